"""What is written stands where it is looked for, whole and in parts, and by the quick look as by the thorough one."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from norbert_store._jpeg.encoder import encode, quantisation_table
from norbert_store._jpeg.layout import LONGEST_COMMENT, Layout, check_markers, read_header, segments_of, write
from norbert_store._jpeg.stream import decode

quick = settings(max_examples=60)

TABLE = quantisation_table(80)
GOLDEN = Path(__file__).parents[1] / "data" / "golden"
NAMES = ["music", "music-cut", "noise", "silence", "pixel"]


def noise(rows, columns, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (rows, columns), np.uint8)


def table_in(data):
    """The quantisation table of a file."""
    with Image.open(io.BytesIO(data)) as image:
        return np.array(image.quantization[0], np.uint8).reshape(8, 8)  # type: ignore[attr-defined]


def images():
    return st.builds(noise, st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1))


@pytest.mark.parametrize("name", NAMES)
def test_golden_files_taken_apart_are_put_together_byte_for_byte(name):
    data = (GOLDEN / f"{name}.jpg").read_bytes()
    header = read_header(data)
    assert write(*header.shape, table_in(data), header.huffman, segments_of(data, header)) == data


def test_some_segments_of_a_file_are_a_file_of_their_rows():
    whole, part = ((GOLDEN / f"{name}.jpg").read_bytes() for name in ("music", "music-cut"))
    header = read_header(whole)
    rows, columns = header.shape
    segments = segments_of(whole, header)[2:7]
    assert write(rows - 16, columns, table_in(whole), header.huffman, segments) == part


@quick
@given(images())
def test_header_tells_size_and_the_length_of_every_segment(levels):
    data = encode(levels, TABLE)
    header = read_header(data)
    assert header.shape == levels.shape
    assert header.comments == ()
    assert header.interval == -(-levels.shape[1] // 8)
    assert len(header.segments) == -(-levels.shape[0] // 8)
    at = header.scan
    for i, length in enumerate(header.segments):
        at += length
        last = i == len(header.segments) - 1
        assert data[at : at + 2] == (b"\xff\xd9" if last else bytes((0xFF, 0xD0 + i % 8)))
        at += 2
    assert at == len(data)
    check_markers(data, header)


@quick
@given(images(), st.integers(0, 30), st.integers(-(2**15), 2**15 - 1))
def test_what_is_found_fast_is_what_the_header_says(levels, more, scale):
    data = encode(levels, TABLE, scale=scale)
    header, found = read_header(data), Layout(levels.shape[0] + more, levels.shape[1]).find(data)
    assert found.scan == header.scan
    assert found.scale == header.scale == scale
    assert struct.unpack_from(">HH", data, found.rows_at) == levels.shape
    assert found.rows == levels.shape[0]
    assert tuple(np.diff(found.ends) - 2) == header.segments


def test_nothing_is_found_fast_in_other_files():
    layout, data = Layout(20, 13), encode(noise(20, 13), TABLE)
    assert layout.find(data) is not None
    for shape in [(20, 14), (19, 13), (12, 13), (20, 24)]:
        assert Layout(*shape).find(data) is None
    for length in range(len(data)):
        assert layout.find(data[:length]) is None
    assert layout.find(data + b"\0") is None
    assert layout.find(encode(noise(20, 13), TABLE, b"a comment")) is None


@pytest.mark.parametrize("at", range(33))
def test_every_byte_before_the_lengths_counts(at):
    data = bytearray(encode(noise(20, 13), TABLE))
    data[at] ^= 1
    assert Layout(20, 13).find(bytes(data)) is None


@quick
@given(images(), st.binary(min_size=1, max_size=100))
def test_a_comment_comes_back_and_changes_nothing_else(levels, comment):
    data, without = encode(levels, TABLE, comment), encode(levels, TABLE)
    assert len(data) == len(without) + 4 + len(comment)
    header = read_header(data)
    assert header.comments == (comment,)
    assert header._replace(comments=(), scan=header.scan - 4 - len(comment)) == read_header(without)
    assert np.array_equal(decode(data), decode(without))
    with Image.open(io.BytesIO(data)) as image:
        assert image.info["comment"] == comment


def test_the_longest_comment():
    comment = bytes(LONGEST_COMMENT)
    assert read_header(encode(noise(8, 8), TABLE, comment)).comments == (comment,)


@settings(quick, max_examples=150)
@given(st.integers(1, 100), st.integers(1, 60), st.data())
def test_a_cut_decodes_bit_for_bit_to_its_rows_of_the_whole(rows, columns, data):
    whole, layout = encode(noise(rows, columns), TABLE), Layout(rows, columns)
    row_blocks = -(-rows // 8)
    first = data.draw(st.integers(0, row_blocks - 1))
    stop = data.draw(st.integers(first + 1, row_blocks))
    with Image.open(io.BytesIO(layout.cut(whole, layout.find(whole), first, stop))) as image:
        assert np.array_equal(np.asarray(image), decode(whole)[8 * first : 8 * stop])
