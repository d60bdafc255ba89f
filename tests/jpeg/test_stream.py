"""Decoding of JPEGs from anywhere: whole grey baseline ones, and nothing else, however it is damaged."""

from __future__ import annotations

import io
import struct
import time
import tracemalloc
from contextlib import suppress
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from norbert_store._jpeg.encoder import encode, quantisation_table
from norbert_store._jpeg.layout import read_header
from norbert_store._jpeg.stream import as_bytes, check, decode
from norbert_store.errors import JpegError, NorbertStoreError

quick = settings(max_examples=60)

TABLE = quantisation_table(80)
SIGNATURE = b"norbert\0"
GOLDEN = Path(__file__).parents[1] / "data" / "golden"


def noise(rows, columns, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (rows, columns), np.uint8)


@st.composite
def images(draw, largest=40):
    rows, columns = draw(st.integers(1, largest)), draw(st.integers(1, largest))
    kind = draw(st.sampled_from(["noise", "silence", "full", "extremes", "ramp", "quiet then loud"]))
    levels = noise(rows, columns, draw(st.integers(0, 2**32 - 1)))
    if kind == "silence":
        levels[:] = 0
    elif kind == "full":
        levels[:] = 255
    elif kind == "extremes":
        levels = np.where(levels > 127, 255, 0).astype(np.uint8)
    elif kind == "ramp":
        levels[:] = np.arange(columns) % 256
    elif kind == "quiet then loud":
        levels[: rows // 2] = 0
    return levels


def pillow_jpeg(levels, mode="L", **options):
    buffer = io.BytesIO()
    Image.fromarray(levels).convert(mode).save(buffer, "JPEG", **options)
    return buffer.getvalue()


def segments_of(data):
    """(marker, start, end) of every marker segment of the header, the scan's included."""
    found, at = [], 2
    while not found or found[-1][0] != 0xDA:
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        found.append((data[at + 1], at, end))
        at = end
    return found


def place(data, marker):
    """Start and end of the first segment with a marker."""
    return next((start, end) for found, start, end in segments_of(data) if found == marker)


def patched(data, at, new):
    return data[:at] + new + data[at + len(new) :]


def with_size(data, rows, columns):
    return patched(data, place(data, 0xC0)[0] + 5, struct.pack(">HH", rows, columns))


def with_lengths(data, content):
    """The same JPEG with other content in its table of segments."""
    start, end = place(data, 0xE9)
    return data[:start] + struct.pack(">BBH", 0xFF, 0xE9, len(content) + 10) + SIGNATURE + content + data[end:]


def lengths(values):
    return struct.pack(f">Bh{len(values)}H", 2, 0, *values)


# 3 rows of blocks, neither side a multiple of 8
LEVELS = noise(20, 13)
JPEG = encode(LEVELS, TABLE)
PLAIN = pillow_jpeg(LEVELS)


@quick
@given(images(), st.sampled_from([0, 50, 80, 100]))
def test_decoding_equals_that_of_pillow_and_imagecodecs(levels, quality):
    data = encode(levels, quantisation_table(quality))
    decoded = decode(data)
    with Image.open(io.BytesIO(data)) as image:
        assert np.array_equal(decoded, np.asarray(image))
    assert np.array_equal(decoded, imagecodecs.jpeg8_decode(data))


@pytest.mark.parametrize("name", ["music", "music-cut", "noise", "silence", "pixel", "four-byte-lengths"])
def test_golden_bytes_decode_as_they_always_did(name):
    data = (GOLDEN / f"{name}.jpg").read_bytes()
    expected = np.load(GOLDEN / f"{name}.npy")
    assert np.array_equal(decode(data), expected)
    assert len(read_header(data).segments) == -(-expected.shape[0] // 8)


def test_a_grey_baseline_jpeg_of_any_encoder_is_decoded():
    with Image.open(io.BytesIO(PLAIN)) as image:
        assert np.array_equal(decode(PLAIN), np.asarray(image))
    assert read_header(PLAIN).segments is None


@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (50, 1), (8, 8), (7, 9)])
def test_smallest_and_thinnest_images_are_decoded(shape):
    levels = np.full(shape, 200, np.uint8)
    assert np.array_equal(decode(encode(levels, quantisation_table(100))), levels)


def test_decoding_writes_into_what_is_given_and_returns_it():
    out = np.empty((20, 13), np.uint8)
    assert decode(JPEG, out) is out
    assert np.array_equal(out, decode(JPEG))
    stacked = np.zeros((3, 20, 13), np.uint8)
    decode(JPEG, stacked[1])
    assert np.array_equal(stacked[1], out)
    assert not stacked[[0, 2]].any()


def read_only():
    out = np.zeros((20, 13), np.uint8)
    out.flags.writeable = False
    return out


@pytest.mark.parametrize(
    "out",
    [
        np.zeros((20, 13), np.int8),
        np.zeros((20, 13), np.float32),
        np.zeros((20, 26), np.uint8)[:, ::2],
        np.zeros((13, 20), np.uint8).T,
        np.zeros(260, np.uint8),
        np.zeros((1, 20, 13), np.uint8),
        read_only(),
    ],
    ids=["int8", "float32", "strided", "Fortran", "1-D", "3-D", "read-only"],
)
def test_memory_that_cannot_take_the_image_is_refused_and_left_alone(out):
    with pytest.raises(ValueError, match="out must be a writable, C-contiguous, two-dimensional array of uint8"):
        decode(JPEG, out)
    assert not out.any()


@pytest.mark.parametrize("shape", [(20, 14), (19, 13), (24, 16), (13, 20)])
def test_another_size_than_expected_is_refused_with_both(shape):
    message = f"the JPEG is 20 rows x 13 columns; expected {shape[0]} x {shape[1]}"
    with pytest.raises(JpegError, match=message):
        check(JPEG, shape)
    with pytest.raises(JpegError, match=message):
        decode(JPEG, np.empty(shape, np.uint8))
    assert check(JPEG, (20, 13)) == read_header(JPEG)


def test_the_error_is_a_value_error_of_this_library():
    assert issubclass(JpegError, ValueError)
    assert issubclass(JpegError, NorbertStoreError)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, lambda data: np.frombuffer(data, np.uint8)])
def test_any_buffer_becomes_bytes(kind):
    assert as_bytes(kind(JPEG)) == JPEG
    assert as_bytes(JPEG) is JPEG


def marked(marker):
    """The same JPEG with another frame marker."""
    return patched(JPEG, place(JPEG, 0xC0)[0] + 1, bytes((marker,)))


def without(marker):
    start, end = place(JPEG, marker)
    return JPEG[:start] + JPEG[end:]


def twice(marker):
    start, end = place(JPEG, marker)
    return JPEG[:end] + JPEG[start:end] + JPEG[end:]


FRAME = place(JPEG, 0xC0)[0]
SCAN = place(JPEG, 0xDA)[0]
LENGTHS = read_header(JPEG).segments
COLOUR = np.dstack([LEVELS] * 3)

HOSTILE = {
    "empty": (b"", "not a JPEG: expected it to begin with ff d8, found nothing"),
    "one byte": (b"\xff", "not a JPEG.*found ff"),
    "start marker alone": (b"\xff\xd8", "ends within its header"),
    "start and end markers alone": (b"\xff\xd8\xff\xd9", "ends within its header"),
    "a PNG": (b"\x89PNG\r\n\x1a\n" + bytes(100), "not a JPEG.*found 89 50"),
    "zeros": (bytes(1000), "not a JPEG.*found 00 00"),
    "no marker where one is due": (patched(JPEG, 2, b"\x00"), "expected a marker at byte 2 of the JPEG"),
    "colour": (pillow_jpeg(COLOUR, "RGB"), r"3 components \(a colour image\)"),
    "four colours": (pillow_jpeg(COLOUR, "CMYK"), "4 components"),
    "12 bits": (patched(JPEG, FRAME + 4, b"\x0c"), "12 bits per pixel; only 8"),
    "no component": (patched(JPEG, FRAME + 9, b"\x00"), "0 components"),
    "extended": (marked(0xC1), r"extended \(marker ff c1\); only baseline"),
    "progressive": (pillow_jpeg(LEVELS, progressive=True), r"progressive \(marker ff c2\)"),
    "lossless": (marked(0xC3), r"lossless \(marker ff c3\)"),
    "differential": (marked(0xC5), r"of a rare kind \(marker ff c5\)"),
    "arithmetic": (marked(0xC9), r"arithmetic-coded \(marker ff c9\)"),
    "arithmetic, progressive": (marked(0xCA), r"of a rare kind \(marker ff ca\)"),
    "arithmetic tables": (marked(0xCC), r"of a rare kind \(marker ff cc\)"),
    "reserved marker": (marked(0xC8), r"of a rare kind \(marker ff c8\)"),
    "two frame headers": (twice(0xC0), "two frame headers"),
    "no frame header": (without(0xC0), "a scan but no frame header"),
    "no scan": (JPEG[:SCAN] + b"\xff\xd9", "ends within its header"),
    "scan of two components": (patched(JPEG, SCAN + 4, b"\x02"), "isn't that of one baseline component"),
    "scan of some coefficients": (patched(JPEG, SCAN + 7, b"\x01"), "isn't that of one baseline component"),
    "restart marker in the header": (patched(JPEG, 3, b"\xd0"), "marker ff d0 within its header"),
    "segment of length 0": (patched(JPEG, 4, b"\x00\x00"), "ends within its header"),
    "segment of length 65535": (patched(JPEG, 4, b"\xff\xff"), "ends within its header"),
    "no rows": (patched(JPEG, FRAME + 5, b"\x00\x00"), "claims 0 rows and 13 columns"),
    "no columns": (patched(JPEG, FRAME + 7, b"\x00\x00"), "claims 20 rows and 0 columns"),
    "a row of blocks more": (with_size(JPEG, 25, 13), "table has 3 segments; expected one for each 8 of 25 rows"),
    "a row of blocks less": (with_size(JPEG, 16, 13), "table has 3 segments; expected one for each 8 of 16 rows"),
    "a huge size": (with_size(JPEG, 65500, 65500), r"claims 65500 x 65500 pixels, more than its \d+ bytes"),
    "a huge size, no table": (with_size(PLAIN, 65500, 65500), r"claims 65500 x 65500 pixels, more than its \d+ bytes"),
    "a table of nothing": (with_lengths(JPEG, b""), "table of segments is damaged"),
    "a table of no lengths": (with_lengths(JPEG, b"\x02\0\0"), "table has 0 segments"),
    "a table without a scale": (with_lengths(JPEG, b"\x02\0"), "table of segments is damaged"),
    "a table of 3-byte lengths": (with_lengths(JPEG, b"\x03" + bytes(11)), "table of segments is damaged"),
    "a table of half a length": (with_lengths(JPEG, lengths(LENGTHS) + b"\0"), "table of segments is damaged"),
    "a table of one length more": (with_lengths(JPEG, lengths([*LENGTHS, 1])), "table has 4 segments"),
    "a table of one length less": (with_lengths(JPEG, lengths(LENGTHS[1:])), "table has 2 segments"),
    "a table of longer lengths": (with_lengths(JPEG, lengths([9000, *LENGTHS[1:]])), r"expected \d+ by its table"),
    "garbage at the end": (JPEG + b"garbage", "cut off: expected it to end with ff d9"),
    "garbage before the end": (JPEG[:-2] + b"garbage\xff\xd9", r"scan has \d+ bytes; expected \d+ by its table"),
    "a second file at the end": (JPEG + JPEG, r"scan has \d+ bytes; expected \d+ by its table"),
    "a segment lost": (JPEG[: read_header(JPEG).scan] + JPEG[read_header(JPEG).scan + LENGTHS[0] + 2 :], "scan has"),
    "the end marker lost": (JPEG[:-2], "cut off: expected it to end with ff d9"),
}


@pytest.mark.parametrize(("data", "message"), HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_data_is_refused_with_a_clear_message(data, message):
    for refuse in (read_header, decode, lambda data: decode(data, np.empty((20, 13), np.uint8))):
        with pytest.raises(JpegError, match=message):
            refuse(data)


@pytest.mark.parametrize("data", [JPEG, PLAIN], ids=["with the table of segments", "of another encoder"])
def test_data_cut_short_anywhere_is_refused(data):
    for length in range(len(data)):
        with pytest.raises(JpegError):
            decode(data[:length])


@pytest.mark.parametrize("data", [JPEG, PLAIN], ids=["with the table of segments", "of another encoder"])
def test_a_huge_claim_takes_no_memory(data):
    giant = with_size(data, 65500, 65500)
    tracemalloc.start()
    try:
        with pytest.raises(JpegError, match="more than its"):
            decode(giant)
        assert tracemalloc.get_traced_memory()[1] < 1e6
    finally:
        tracemalloc.stop()


def test_millions_of_restart_markers_that_are_not_there_take_no_time():
    interval = b"\xff\xdd\0\4\0\1"
    scan = place(PLAIN, 0xDA)[0]
    giant = with_size(PLAIN[:-2] + bytes(10_000_000) + PLAIN[-2:], 32000, 65500)
    begin = time.process_time()
    with pytest.raises(JpegError, match="expected 32751999 restart markers"):
        decode(giant[:scan] + interval + giant[scan:])
    assert time.process_time() - begin < 0.5


def refused_or_decoded(data):
    out = np.empty((20, 13), np.uint8)
    with suppress(JpegError):
        assert decode(data, out) is out
        assert decode(data).shape == (20, 13)


@pytest.mark.slow
@settings(quick, max_examples=400)
@given(
    st.sampled_from([JPEG, PLAIN]),
    st.lists(st.tuples(st.integers(0, len(PLAIN) - 1), st.integers(0, 255)), min_size=1, max_size=8),
)
def test_changed_bytes_are_refused_or_decode_to_the_expected_shape(data, changes):
    damaged = bytearray(data)
    for at, value in changes:
        damaged[at % len(damaged)] = value
    refused_or_decoded(bytes(damaged))


@settings(quick, max_examples=200)
@given(st.sampled_from([JPEG, PLAIN]), st.integers(0, 1000), st.integers(0, 12), st.binary(max_size=12))
def test_lost_and_inserted_bytes_are_refused_or_decode_to_the_expected_shape(data, at, lost, inserted):
    at %= len(data)
    refused_or_decoded(data[:at] + inserted + data[at + lost :])


@settings(quick, max_examples=200)
@given(st.binary(max_size=200))
def test_random_bytes_are_refused(data):
    with pytest.raises(JpegError):
        decode(data)
    with pytest.raises(JpegError):
        decode(b"\xff\xd8\xff" + data + b"\xff\xd9")
