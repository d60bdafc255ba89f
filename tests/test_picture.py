"""Pictures in files: pixels and note come back, other programs read them, and what isn't whole or grey is refused."""

from __future__ import annotations

import io
import json
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from norbert_store._picture import FORMATS, read_picture, write_picture
from norbert_store.errors import JpegError

LOSSLESS = [name for name in FORMATS if name != "jpg"]
# by Pillow's names
PILLOW = {"jpg": "JPEG", "png": "PNG", "tif": "TIFF"}

NOTE = {"channels": 2, "steps": [{"step": "TF", "window": "hann", "rate": 44100}], "title": 'Ünï "code" \n\0'}


def noise(rows, columns, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (rows, columns), dtype=np.uint8)


def save(image, format, **options):  # noqa: A002
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (2, 1), (7, 9), (16, 8), (300, 200)])
@pytest.mark.parametrize("name", LOSSLESS)
def test_lossless_formats_give_back_pixels_and_note(name, shape):
    """Noise takes more bytes than it has pixels, which is what an encoder's buffer may be too small for."""
    picture = noise(*shape)
    back, note = read_picture(write_picture(picture, name, 75, NOTE))
    assert back.dtype == np.uint8
    assert np.array_equal(back, picture)
    assert note == NOTE


@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (2, 1), (7, 9), (16, 8), (300, 200)])
def test_jpeg_gives_back_note_and_close_pixels(shape):
    picture = noise(*shape)
    back, note = read_picture(write_picture(picture, "jpg", 100, NOTE))
    assert back.shape == shape
    assert np.abs(back.astype(int) - picture).max() <= 10
    assert note == NOTE


def test_jpeg_of_lower_quality_is_smaller_and_further_off():
    picture = noise(64, 64)
    files = [write_picture(picture, "jpg", quality, {}) for quality in (0, 50, 100)]
    errors = [np.abs(read_picture(data)[0].astype(int) - picture).mean() for data in files]
    assert len(files[0]) < len(files[1]) < len(files[2])
    assert errors[0] > errors[1] > errors[2]


def test_jpeg_is_finer_along_time_than_along_frequency():
    waves = np.rint(128 + 20 * (-1) ** np.arange(64)).astype(np.uint8)
    along_time, along_frequency = np.tile(waves, (64, 1)), np.tile(waves[:, np.newaxis], (1, 64))
    errors = [
        np.abs(read_picture(write_picture(picture, "jpg", 50, {}))[0].astype(int) - picture).mean()
        for picture in (along_time, along_frequency)
    ]
    assert errors[0] < errors[1]


@pytest.mark.parametrize("name", PILLOW)
def test_pillow_sees_the_same_picture(name):
    data = write_picture(noise(24, 40), name, 90, NOTE)
    with Image.open(io.BytesIO(data)) as image:
        assert image.format == PILLOW[name]
        assert image.mode == "L"
        assert image.size == (40, 24)
        assert np.array_equal(np.asarray(image), read_picture(data)[0])


@pytest.mark.parametrize("name", FORMATS)
def test_a_note_may_be_empty(name):
    assert read_picture(write_picture(noise(8, 8), name, 90, {}))[1] == {}


# ---- from elsewhere


@pytest.mark.parametrize("name", PILLOW)
def test_grey_picture_from_elsewhere_has_no_note(name):
    data = save(Image.fromarray(noise(24, 40)), PILLOW[name])
    back, note = read_picture(data)
    with Image.open(io.BytesIO(data)) as image:
        assert np.array_equal(back, np.asarray(image))
    assert note == {}


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(save(Image.fromarray(noise(8, 8)), "JPEG", comment=b'{"channels": 2}'), id="jpg"),
        # as tifffile describes its pictures
        pytest.param(save(Image.fromarray(noise(8, 8)), "TIFF", description='{"shape": [8, 8]}'), id="tif"),
        pytest.param(save(Image.fromarray(noise(8, 8)), "TIFF", description="{no JSON"), id="tif, text"),
    ],
)
def test_notes_of_other_programs_are_not_ours(data):
    back, note = read_picture(data)
    assert back.shape == (8, 8)
    assert note == {}


def test_tiff_may_be_big_endian():
    picture, text = noise(2, 3), b'norbert_store {"channels": 1}\0'
    after = 8 + 2 + 8 * 12 + 4
    tags = [
        (256, 3, 1, 3 << 16),
        (257, 3, 1, 2 << 16),
        (258, 3, 1, 8 << 16),
        (262, 3, 1, 1 << 16),
        (270, 2, len(text), after),
        (273, 4, 1, after + len(text)),
        (278, 3, 1, 2 << 16),
        (279, 4, 1, picture.size),
    ]
    directory = b"".join(struct.pack(">HHII", *tag) for tag in tags)
    data = struct.pack(">2sHIH", b"MM", 42, 8, len(tags)) + directory + bytes(4) + text + picture.tobytes()
    back, note = read_picture(data)
    assert np.array_equal(back, picture)
    assert note == {"channels": 1}


@pytest.mark.parametrize("name", PILLOW)
def test_colour_is_refused(name):
    colour = Image.fromarray(np.stack([noise(16, 16, seed) for seed in range(3)], axis=-1))
    with pytest.raises(ValueError, match=r"colour|grey"):
        read_picture(save(colour, PILLOW[name]))


@pytest.mark.parametrize("mode", ["LA", "P", "RGBA", "I;16"])
def test_png_of_another_kind_than_grey_of_8_bits_is_refused(mode):
    with pytest.raises(ValueError, match="expected a grey picture of 8 bits"):
        read_picture(save(Image.fromarray(noise(16, 16)).convert(mode), "PNG"))


def test_progressive_jpeg_is_refused():
    with pytest.raises(JpegError, match="progressive"):
        read_picture(save(Image.fromarray(noise(16, 16)), "JPEG", progressive=True))


# ---- damaged


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_that_is_cut_off_is_refused(name):
    """Or else it gives the whole picture: PNG's end can't be missed."""
    whole = write_picture(noise(16, 24), name, 90, NOTE)
    picture, _ = read_picture(whole)
    for length in range(len(whole)):
        try:
            back, note = read_picture(whole[:length])
        except ValueError:
            continue
        assert np.array_equal(back, picture), length
        assert note == NOTE, length


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("rest", [b"", bytes(99), b"\xff" * 99, b"something else, of some length"])
def test_garbage_behind_a_signature_is_refused(name, rest):
    with pytest.raises(ValueError, match=r"\w"):
        read_picture(write_picture(noise(16, 24), name, 90, NOTE)[:12] + rest)


@pytest.mark.parametrize("data", [b"", b"\xff", b"GIF89a", b"RIFF    WEBPVP8 ", b"text", bytes(100)])
def test_what_is_no_picture_is_refused_by_name(data):
    found = data[:4].hex(" ") or "nothing"
    with pytest.raises(ValueError, match=f"formats jpg, png, .*; it begins with {found}$"):
        read_picture(data)


@pytest.mark.parametrize("name", FORMATS)
def test_a_note_that_is_no_json_is_refused(name):
    data = write_picture(noise(8, 8), name, 90, {"channels": 1})
    broken = data.replace(b'{"channels": 1}', b'{"channels": 1]')
    if name == "png":  # libpng warns of a wrong checksum
        chunk = b'tEXtnorbert_store\0{"channels": 1]'
        broken = broken.replace(
            struct.pack(">I", zlib.crc32(chunk.replace(b"]", b"}"))), struct.pack(">I", zlib.crc32(chunk))
        )
    assert broken != data
    with pytest.raises(ValueError, match=f"the {name} picture can't be decoded: Expecting"):
        read_picture(broken)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("note", [[1], 5, "text", None])
def test_a_note_that_is_no_object_is_refused(name, note):
    with pytest.raises(ValueError, match=f"expected a JSON object as the note of the {name} picture"):
        read_picture(write_picture(noise(8, 8), name, 90, note))


# ---- what can't be written


@pytest.mark.slow
def test_largest_sides():
    wide = np.broadcast_to(np.arange(65504, dtype=np.uint8), (8, 65504))
    with pytest.raises(ValueError, match="at most 65500 rows and columns, found 8 x 65504"):
        write_picture(wide, "jpg", 75, {})
    for name in LOSSLESS:
        assert np.array_equal(read_picture(write_picture(wide, name, 75, {}))[0], wide)
    assert read_picture(write_picture(wide[:, :65500], "jpg", 75, {}))[0].shape == (8, 65500)


def test_png_has_a_largest_width_too():
    with pytest.raises(ValueError, match=r"a picture of \(1, 1000001\) can't be written as png"):
        write_picture(np.zeros((1, 1_000_001), np.uint8), "png", 75, {})


@pytest.mark.parametrize("name", FORMATS)
def test_only_the_comment_of_a_jpeg_limits_a_note(name):
    note = {"text": "x" * 70_000}
    if name == "jpg":
        with pytest.raises(ValueError, match="the note takes 70026 bytes; a JPEG has room for 65533"):
            write_picture(noise(8, 8), name, 75, note)
    else:
        assert read_picture(write_picture(noise(8, 8), name, 75, note))[1] == note


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(
    "picture",
    [np.zeros((2, 3)), np.zeros((2, 3, 3), np.uint8), np.zeros(3, np.uint8), np.zeros((0, 3), np.uint8)],
    ids=["floats", "three dimensions", "one dimension", "empty"],
)
def test_what_is_no_picture_is_not_written(name, picture):
    with pytest.raises(ValueError, match=r"expected a picture \(rows, columns\) of uint8, found shape"):
        write_picture(picture, name, 75, {})


def test_wrong_quality_and_a_note_that_json_lacks():
    with pytest.raises(ValueError, match="quality must be a number from 0 to 100, found 101"):
        write_picture(noise(8, 8), "jpg", 101, {})
    with pytest.raises(ValueError, match="JSON"):
        write_picture(noise(8, 8), "png", 75, {"gain": float("nan")})


@pytest.mark.parametrize("name", FORMATS)
def test_a_view_is_written_like_its_copy(name):
    picture = noise(32, 48)
    view = picture[::-2, ::3].T
    assert not view.flags.c_contiguous
    back, _ = read_picture(write_picture(view, name, 100, {}))
    expected, _ = read_picture(write_picture(view.copy(), name, 100, {}))
    assert np.array_equal(back, expected)


def test_notes_stay_readable_text():
    text = json.dumps(NOTE).encode()
    for name in FORMATS:
        assert text in write_picture(noise(8, 8), name, 75, NOTE)
