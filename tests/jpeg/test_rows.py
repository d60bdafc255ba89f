"""Rows of stored JPEGs: those of the whole, for every first and last one; and no trust in what looks otherwise."""

from __future__ import annotations

import pickle
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from norbert_store._jpeg import stream
from norbert_store._jpeg.encoder import encode, quantisation_table
from norbert_store._jpeg.layout import read_header
from norbert_store._jpeg.rows import RowDecoder
from norbert_store.errors import JpegError

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
TABLE = quantisation_table(80)


def noise(rows, columns, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (rows, columns), np.uint8)


def plain(levels, **options):
    """As other encoders write it: without the table of segments."""
    return bytes(imagecodecs.jpeg8_encode(levels, **options))


def decoded(data, shape, first, stop):
    """Rows, or None if they were refused with words."""
    try:
        rows = RowDecoder(*shape).decode(data, first, stop).levels
    except JpegError as error:
        if not str(error):
            raise
        return None
    # rows that the image doesn't have are missing
    assert rows.shape[0] <= stop - first
    assert rows.shape[1] == shape[1]
    return rows


def ranges(rows):
    return [(first, stop) for first in range(rows) for stop in range(first + 1, rows + 1)]


@pytest.mark.parametrize("shape", [(8, 1), (8, 9), (16, 33), (24, 8), (40, 16), (72, 5), (1, 1), (9, 7), (20, 13)])
def test_every_range_of_rows_is_that_of_the_whole(shape):
    data = encode(noise(*shape), TABLE)
    whole = stream.decode(data)
    decoder = RowDecoder(*shape)
    for first, stop in ranges(shape[0]):
        rows = decoder.decode(data, first, stop).levels
        assert rows.dtype == np.uint8
        assert rows.flags.c_contiguous
        assert np.array_equal(rows, whole[first:stop])


@settings(max_examples=60)
@given(
    st.integers(1, 270),
    st.integers(1, 80),
    st.sampled_from(["noise", "silence", "full", "steps"]),
    st.sampled_from([0, 20, 80, 100]),
    st.data(),
)
def test_rows_of_any_image_of_any_quality(rows, columns, kind, quality, data):
    levels = noise(rows, columns, rows)
    if kind in ("silence", "full"):
        levels[:] = 0 if kind == "silence" else 255
    if kind == "steps":
        levels = np.broadcast_to((3 * np.arange(rows)).astype(np.uint8)[:, np.newaxis], (rows, columns))
    jpeg = encode(levels, quantisation_table(quality))
    first = data.draw(st.integers(0, rows - 1))
    stop = data.draw(st.integers(first + 1, rows))
    assert np.array_equal(RowDecoder(rows, columns).decode(jpeg, first, stop).levels, stream.decode(jpeg)[first:stop])


def test_segments_whose_lengths_take_four_bytes():
    levels = noise(32, 12000)
    data = encode(levels, quantisation_table(100))
    assert max(read_header(data).segments) >= 1 << 16
    whole, decoder = stream.decode(data), RowDecoder(*levels.shape)
    for first, stop in ((0, 32), (0, 8), (3, 30), (24, 32), (15, 17)):
        assert np.array_equal(decoder.decode(data, first, stop).levels, whole[first:stop])


def test_size_of_the_default_chunk():
    data = encode(noise(256, 744), TABLE)
    whole, decoder = stream.decode(data), RowDecoder(256, 744)
    for first in range(0, 256, 37):
        for stop in range(first + 1, 257, 29):
            assert np.array_equal(decoder.decode(data, first, stop).levels, whole[first:stop])


@pytest.mark.parametrize("options", [{}, {"level": 30}, {"level": 100}])
def test_jpegs_of_other_encoders(options):
    levels = noise(24, 40)
    data = plain(levels, **options)
    assert read_header(data).segments is None
    decoder = RowDecoder(24, 40)
    for first, stop in ranges(24):
        assert np.array_equal(decoder.decode(data, first, stop).levels, stream.decode(data)[first:stop])


def test_one_decoder_takes_jpegs_of_all_makers_in_turn():
    decoder = RowDecoder(24, 40)
    jpegs = [encode(noise(24, 40, 1), TABLE), plain(noise(24, 40, 2)), encode(noise(24, 40, 3), TABLE)]
    for first, stop in ((0, 24), (0, 5), (9, 24)):
        for data in [*jpegs, *jpegs[::-1]]:
            assert np.array_equal(decoder.decode(data, first, stop).levels, stream.decode(data)[first:stop])


@pytest.mark.parametrize("make", [lambda levels: encode(levels, TABLE, scale=-7), plain], ids=["ours", "others"])
@pytest.mark.parametrize("rows", [1, 7, 8, 9, 16, 23, 24])
def test_images_may_be_less_high(make, rows):
    data = make(noise(rows, 40))
    whole, decoder = stream.decode(data), RowDecoder(24, 40)
    for first, stop in ranges(24):
        found = decoder.decode(data, first, stop)
        assert np.array_equal(found.levels, whole[first:stop])
        assert found.scale == (0 if make is plain else -7)


SHAPES = [(24, 48), (32, 40), (24, 39), (25, 40), (40, 24), (8, 8), (8, 48)]


@pytest.mark.parametrize("make", [lambda levels: encode(levels, TABLE), plain], ids=["ours", "others"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("first", "stop"), [(0, 24), (0, 8), (11, 20)])
def test_other_sizes_are_refused_with_both(make, shape, first, stop):
    with pytest.raises(JpegError, match=f"the JPEG .* {shape[1]} columns; expected"):
        RowDecoder(24, 40).decode(make(noise(*shape)), first, stop)


LEVELS = noise(24, 40)
OTHERS = {
    "nothing": b"",
    "text": b"this is no JPEG at all, but long enough to hold a header of one",
    "a PNG": bytes(imagecodecs.png_encode(LEVELS)),
    "lossless": bytes(imagecodecs.ljpeg_encode(LEVELS)),
    "colour": bytes(imagecodecs.jpeg8_encode(np.dstack([LEVELS] * 3))),
    "cut off": encode(LEVELS, TABLE)[:-2],
    "no start": encode(LEVELS, TABLE)[2:],
    "a header": encode(LEVELS, TABLE)[:300],
}


@pytest.mark.parametrize("data", OTHERS.values(), ids=OTHERS.keys())
@pytest.mark.parametrize(("first", "stop"), [(0, 24), (0, 8), (11, 20)])
def test_other_kinds_are_refused(data, first, stop):
    with pytest.raises(JpegError, match=r"\w+"):
        RowDecoder(24, 40).decode(data, first, stop)


def hostile():
    """Those of the fuzzer; of the many that are merely cut off, some are enough."""
    if not BENCHMARKS.exists():
        pytest.skip("the benchmarks aren't here, which have the hostile JPEGs")
    sys.path.insert(0, str(BENCHMARKS))
    from hostile_jpegs import hostile_jpegs

    return [one for i, one in enumerate(hostile_jpegs()) if not one.name.startswith("the first ") or i % 20 == 0]


@pytest.mark.slow
def test_hostile_jpegs_are_refused_or_right_or_at_least_of_the_right_shape():
    right = 0
    for one in hostile():
        for first, stop in ((0, 24), (0, 8), (3, 13), (8, 24), (16, 24)):
            rows = decoded(one.data, (24, 40), first, stop)
            assert one.expected.name in (("REFUSED", "SHAPED") if rows is None else ("RIGHT", "SHAPED")), one.name
            if one.expected.name == "RIGHT":
                right += 1
                assert np.array_equal(rows, stream.decode(one.data)[first:stop]), one.name
    assert right >= 50


@pytest.mark.slow
@settings(max_examples=300)
@given(st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 255)), min_size=1, max_size=4), st.data())
def test_changed_bytes_are_refused_or_of_the_right_shape(changes, data):
    jpeg = bytearray(encode(noise(16, 24), TABLE))
    for at, value in changes:
        jpeg[at % len(jpeg)] = value
    decoded(bytes(jpeg), (16, 24), *data.draw(st.sampled_from(ranges(16))))


@settings(max_examples=100)
@given(st.lists(st.integers(-300, 300), min_size=3, max_size=3), st.sampled_from([2, 4]), st.data())
def test_tables_of_segments_that_lie_are_never_believed(wrong, width, data):
    jpeg = encode(noise(24, 40), TABLE)
    header = read_header(jpeg)
    told = [max(0, length + more) for length, more in zip(header.segments, wrong, strict=True)]
    begin = jpeg.index(b"norbert\0")
    table = bytes((width,)) + b"".join(length.to_bytes(width, "big") for length in told)
    table = table[:1] + b"\0\0" + table[1:]
    end = begin + 11 + 2 * len(told)
    lying = jpeg[: begin - 2] + (10 + len(table)).to_bytes(2, "big") + b"norbert\0" + table + jpeg[end:]
    first, stop = data.draw(st.sampled_from(ranges(24)))
    rows = decoded(lying, (24, 40), first, stop)
    assert rows is None or np.array_equal(rows, stream.decode(jpeg)[first:stop])
    assert rows is not None or sum(told) != sum(header.segments)


def test_rows_hold_until_the_same_thread_decodes_again():
    decoder = RowDecoder(16, 24)
    data, other = (encode(noise(16, 24, seed), TABLE) for seed in range(2))
    rows = decoder.decode(data, 2, 13).levels
    before = rows.copy()
    with ThreadPoolExecutor(1) as pool:
        assert np.array_equal(pool.submit(decoder.decode, other, 0, 16).result().levels, stream.decode(other))
    assert np.array_equal(rows, before)


def test_threads_do_not_disturb_each_other():
    decoder = RowDecoder(48, 200)
    jpegs = [encode(noise(48, 200, seed), TABLE) for seed in range(8)]
    expected = [stream.decode(data) for data in jpegs]

    def decode(i):
        first = i % 40
        return np.array_equal(decoder.decode(jpegs[i % 8], first, first + 7).levels, expected[i % 8][first : first + 7])

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(decode, range(800)))


def test_decoders_are_sent_without_their_memory():
    decoder = RowDecoder(16, 24)
    data = encode(noise(16, 24), TABLE)
    decoder.decode(data, 0, 16)
    again = pickle.loads(pickle.dumps(decoder))
    assert np.array_equal(again.decode(data, 3, 5).levels, stream.decode(data)[3:5])
    assert len(pickle.dumps(decoder)) < 200
