"""Quality makes a legal table that only gets finer; any image that a JPEG can hold comes back, no other is taken."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from norbert_store._jpeg.encoder import check_image, check_quality, encode, quantisation_table
from norbert_store._jpeg.layout import read_header
from norbert_store._jpeg.stream import decode

quick = settings(max_examples=60)


def noise(rows, columns, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (rows, columns), np.uint8)


def smooth(rows, columns):
    """Ridges along time, as music has them."""
    time, frequency = np.mgrid[:rows, :columns]
    return (120 + 100 * np.sin(frequency / 3) * np.cos(time / 20)).astype(np.uint8)


def test_every_table_is_legal_and_higher_quality_is_never_coarser():
    tables = np.array([quantisation_table(quality) for quality in np.arange(0, 100.5, 0.5)])
    assert tables.dtype == np.uint8
    assert tables.min() >= 1
    assert (np.diff(tables.astype(int), axis=0) <= 0).all()
    assert (tables[-1] <= 3).all()


def test_table_is_flat_along_time_and_rises_along_frequency():
    table = quantisation_table(80)
    assert table.shape == (8, 8)
    assert (table == table[0]).all()
    assert table[0].tolist() == [4, 5, 6, 7, 9, 10, 11, 12]
    assert np.array_equal(table, quantisation_table())


@quick
@given(st.floats(0, 100))
def test_ten_points_less_are_twice_the_step(quality):
    step = 2 ** ((100 - quality) / 10)
    assert quantisation_table(quality)[1, 0] == np.clip(np.rint(step), 1, 255)


@pytest.mark.parametrize("quality", [-0.1, 100.1, np.nan, np.inf, True, "80", None, [80]])
def test_bad_quality_is_refused(quality):
    with pytest.raises(ValueError, match="quality must be a number from 0 to 100"):
        check_quality(quality)
    with pytest.raises(ValueError, match="quality must be a number from 0 to 100"):
        quantisation_table(quality)


def test_quality_becomes_a_float():
    assert type(check_quality(80)) is float
    assert type(check_quality(np.float32(80))) is float  # type: ignore[arg-type]


def test_the_table_stands_in_the_file_rows_first():
    table = np.arange(1, 65, dtype=np.uint8).reshape(8, 8)
    with Image.open(io.BytesIO(encode(noise(16, 16), table))) as image:
        assert image.quantization == {0: table.ravel().tolist()}  # type: ignore[attr-defined]


def test_the_file_is_a_grey_jfif_that_pillow_opens():
    with Image.open(io.BytesIO(encode(noise(20, 30), quantisation_table()))) as image:
        assert (image.format, image.mode, image.size) == ("JPEG", "L", (30, 20))
        assert "jfif" in image.info
        assert not image.info.get("progressive")


@quick
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_any_noise_comes_back_within_the_finest_table(rows, columns, seed):
    levels = noise(rows, columns, seed)
    data = encode(levels, np.ones((8, 8), np.uint8))
    decoded = decode(data)
    assert decoded.shape == (rows, columns)
    assert np.abs(decoded.astype(int) - levels).max() <= 2


@pytest.mark.parametrize("shape", [(1, 1), (1, 77), (77, 1), (8, 8), (9, 7), (256, 744)])
@pytest.mark.parametrize("value", [0, 1, 127, 128, 255])
def test_a_constant_comes_back_exactly_at_full_quality(shape, value):
    levels = np.full(shape, value, np.uint8)
    assert np.array_equal(decode(encode(levels, quantisation_table(100))), levels)


@pytest.mark.parametrize("quality", range(68, 101, 4))
def test_silence_comes_back_as_silence_while_the_smallest_step_is_below_ten(quality):
    levels = np.zeros((40, 50), np.uint8)
    assert not decode(encode(levels, quantisation_table(quality))).any()


def test_higher_quality_takes_more_bytes_and_errs_less():
    levels = smooth(64, 96)
    encoded = [encode(levels, quantisation_table(quality)) for quality in (40, 60, 80, 100)]
    sizes = [len(data) for data in encoded]
    errors = [np.abs(decode(data).astype(int) - levels).mean() for data in encoded]
    assert sizes == sorted(sizes)
    assert errors == sorted(errors, reverse=True)


def test_huffman_tables_are_made_for_the_image():
    levels = smooth(64, 96)
    buffer = io.BytesIO()
    Image.fromarray(levels).save(buffer, "JPEG", qtables=[quantisation_table(80).ravel().tolist()])
    assert len(encode(levels, quantisation_table(80))) < len(buffer.getvalue())


@pytest.mark.parametrize("shape", [(65500, 1), (1, 65500)])
def test_the_longest_sides_work(shape):
    levels = noise(*shape)
    decoded = decode(encode(levels, quantisation_table(100)))
    assert decoded.shape == shape
    assert np.abs(decoded.astype(int) - levels).max() <= 8


@settings(max_examples=20)
@given(
    st.integers(1, 20),
    st.integers(15000, 65500) | st.integers(65490, 65500),
    st.booleans(),
    st.sampled_from([80.0, 95.0, 99.5, 100.0]),
    st.sampled_from([2, 256]),
)
def test_long_thin_images_work_at_every_quality(short, long, is_wide, quality, values):
    """Pillow has room for two bytes a pixel of the image, and blocks reach far beyond such a one."""
    shape = (short, long) if is_wide else (long, short)
    levels = np.random.default_rng(short).integers(0, values, shape, np.uint8) * np.uint8(255 // (values - 1))
    table = quantisation_table(quality)
    decoded = decode(encode(levels, table))
    assert decoded.shape == shape
    # the squared error of a block is that of its coefficients, at most half a step each, and of rounding
    assert np.abs(decoded.astype(int) - levels).max() <= np.sqrt(np.square(table / 2.0).sum()) + 1


def test_segments_of_more_than_64_kilobytes_get_wider_lengths():
    levels = noise(24, 65500)
    header = read_header(encode(levels, quantisation_table(100)))
    assert len(header.segments) == 3
    assert max(header.segments) > 65535


def test_arrays_in_any_memory_order_give_the_same_bytes():
    levels = noise(20, 30)
    table = quantisation_table()
    assert encode(np.asfortranarray(levels), table) == encode(levels, table)
    assert encode(np.repeat(levels, 2, axis=1)[:, ::2], table) == encode(levels, table)
    levels.flags.writeable = False
    assert encode(levels, table) == encode(levels, table)


@pytest.mark.parametrize(
    ("levels", "message"),
    [
        (np.zeros((8, 8), np.float32), "expected levels of dtype uint8, found float32; quantise them first"),
        (np.zeros((8, 8), np.int8), "expected levels of dtype uint8, found int8"),
        (np.zeros((8, 8), bool), "expected levels of dtype uint8, found bool"),
        (np.zeros(8, np.uint8), r"expected an image \(rows, columns\), found shape \(8,\)"),
        (np.zeros((1, 8, 8), np.uint8), r"found shape \(1, 8, 8\)"),
        (np.zeros((0, 8), np.uint8), r"found shape \(0, 8\)"),
        (np.zeros((8, 0), np.uint8), r"found shape \(8, 0\)"),
        (np.zeros((65501, 1), np.uint8), "at most 65500 rows and columns, found 65501 x 1; use smaller chunks"),
        (np.zeros((1, 65501), np.uint8), "found 1 x 65501"),
    ],
)
def test_what_is_no_image_is_refused(levels, message):
    with pytest.raises(ValueError, match=message):
        check_image(levels)
    with pytest.raises(ValueError, match=message):
        encode(levels, quantisation_table())


@pytest.mark.parametrize("table", [np.ones((4, 4), np.uint8), np.ones((8, 16), np.uint8)])
def test_a_table_of_another_size_is_refused(table):
    with pytest.raises(ValueError, match=r"[Qq]uantization table"):
        encode(noise(8, 8), table)


@pytest.mark.parametrize("quality", np.arange(0, 100.5, 0.5))
def test_silence_stays_exactly_level_zero_at_every_quality(quality):
    silence = np.zeros((16, 24), np.uint8)
    assert not decode(encode(silence, quantisation_table(quality))).any()
