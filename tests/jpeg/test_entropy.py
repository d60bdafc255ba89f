"""Coefficients come back, the bytes are libjpeg's own, and codes are as short as they can be."""

from __future__ import annotations

import heapq
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from norbert_store._jpeg.cosine import forward, inverse, quantise, steps_of
from norbert_store._jpeg.encoder import encode, quantisation_table
from norbert_store._jpeg.entropy import CodeLengths, encode_coefficients
from norbert_store._jpeg.huffman import HuffmanCode
from norbert_store._jpeg.layout import ZIGZAG, read_header
from norbert_store._jpeg.rows import RowDecoder
from norbert_store._jpeg.stream import decode

GOLDEN = Path(__file__).parents[1] / "data" / "golden"
ONES = np.ones((8, 8), np.uint8)
quick = settings(max_examples=80)


def sparse(rows, columns, share=0.1, largest=40, seed=0):
    """Coefficients (block rows, block columns, 64) of which a share isn't zero, for an image of so many blocks."""
    random = np.random.default_rng(seed)
    values = random.integers(-largest, largest + 1, (rows, columns, 64)) * (random.random((rows, columns, 64)) < share)
    return values.astype(np.int16)


def huffman_tables(data):
    """Symbols by length and code, for means and for others."""
    tables, at = {}, data.index(b"\xff\xc4")
    while data[at : at + 2] == b"\xff\xc4":
        counts, symbols = data[at + 5 : at + 21], iter(data[at + 21 :])
        codes, code = {}, 0
        for length, count in enumerate(counts, 1):
            for _ in range(count):
                codes[f"{code:0{length}b}"] = next(symbols)
                code += 1
            code *= 2
        tables[data[at + 4]] = codes
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return tables[0x00], tables[0x10]


class Bits:
    """Reads a segment bit for bit."""

    def __init__(self, segment):
        content = segment.replace(b"\xff\x00", b"\xff")
        self.bits = "".join(f"{byte:08b}" for byte in content)
        self.at = 0

    def take(self, count):
        self.at += count
        return self.bits[self.at - count : self.at]

    def symbol(self, codes):
        code = ""
        while code not in codes:
            code += self.take(1)
        return codes[code]

    def value(self, category):
        if not category:
            return 0
        bits = self.take(category)
        return int(bits, 2) - (0 if bits[0] == "1" else (1 << category) - 1)


def coefficients_in(data):
    """Read the coefficients out of a stored JPEG, one bit after the other."""
    header = read_header(data)
    means, others = huffman_tables(data)
    rows, columns = header.shape
    result = np.zeros((-(-rows // 8), -(-columns // 8), 64), np.int16)
    at = header.scan
    for row, length in zip(result, header.segments, strict=True):
        bits, mean = Bits(data[at : at + length]), 0
        for block in row:
            mean += bits.value(bits.symbol(means))
            block[0] = mean
            k = 1
            while k < 64:
                symbol = bits.symbol(others)
                if symbol == 0:
                    break
                k += symbol >> 4
                block[k] = bits.value(symbol & 15)
                k += 1
        rest = bits.bits[bits.at :]
        assert len(rest) < 8
        assert set(rest) <= {"1"}
        at += length + 2
    return result


def table_in(data):
    table = np.empty(64, np.uint8)
    at = data.index(b"\xff\xdb") + 5
    table[ZIGZAG] = list(data[at : at + 64])
    return table.reshape(8, 8)


@pytest.mark.parametrize("name", ["music", "noise", "silence", "pixel"])
def test_golden_files_are_written_again_byte_for_byte(name):
    data = (GOLDEN / f"{name}.jpg").read_bytes()
    header = read_header(data)
    assert encode_coefficients(coefficients_in(data), table_in(data), *header.shape) == data


@quick
@given(st.integers(1, 40), st.integers(1, 60), st.floats(0, 100), st.booleans(), st.integers(0, 2**32 - 1))
def test_bytes_are_those_of_pillow_for_its_coefficients(rows, columns, quality, quiet, seed):
    levels = np.random.default_rng(seed).integers(0, 30 if quiet else 256, (rows, columns), np.uint8)
    data = encode(levels, quantisation_table(quality))
    assert encode_coefficients(coefficients_in(data), table_in(data), rows, columns) == data


def test_bytes_are_those_of_pillow_for_a_whole_chunk():
    time, frequency = np.mgrid[:256, :744]
    levels = 120 + 100 * np.sin(frequency / 3) * np.cos(time / 20)
    levels = (levels + np.random.default_rng(0).normal(0, 20, levels.shape)).clip(0, 255).astype(np.uint8)
    data = encode(levels, quantisation_table(80))
    assert encode_coefficients(coefficients_in(data), table_in(data), 256, 744) == data


@quick
@given(
    st.integers(1, 5),
    st.integers(1, 12),
    st.sampled_from([0, 0.01, 0.05, 0.3, 1]),
    st.sampled_from([1, 2, 40, 1023]),
    st.integers(0, 2**32 - 1),
)
def test_any_coefficients_come_back(rows, columns, share, largest, seed):
    coefficients = sparse(rows, columns, share, largest, seed)
    data = encode_coefficients(coefficients, ONES, 8 * rows, 8 * columns)
    assert np.array_equal(coefficients_in(data), coefficients)


@quick
@given(st.integers(1, 50), st.integers(1, 50), st.integers(0, 2**32 - 1))
def test_every_decoder_sees_the_same_image(rows, columns, seed):
    table = quantisation_table(70)
    coefficients = sparse(-(-rows // 8), -(-columns // 8), 0.1, 10, seed)
    data = encode_coefficients(coefficients, table, rows, columns)
    expected = np.clip(inverse(coefficients * steps_of(table), rows, columns), 0, 255)
    assert np.abs(decode(data) - expected).max() <= 1
    decoder = RowDecoder(rows, columns)
    found = decoder.segments(data)
    assert found is not None
    assert np.array_equal(decoder.decode(data, 0, rows, found).levels, decode(data))


def test_lengths_of_segments_stand_in_the_file():
    coefficients = np.zeros((10, 3, 64), np.int16)
    coefficients[4, :, 1:40] = 77
    header = read_header(encode_coefficients(coefficients, ONES, 80, 24))
    assert len(header.segments) == 10
    assert header.segments.index(max(header.segments)) == 4
    assert header.interval == 3


def test_segments_of_more_than_64_kilobytes_get_wider_lengths():
    coefficients = sparse(2, 1000, 1, 1023)
    data = encode_coefficients(coefficients, ONES, 16, 8000)
    assert max(read_header(data).segments) > 65535
    assert len(decode(data)) == 16


def test_an_image_of_zeros_takes_two_bits_a_block():
    data = encode_coefficients(np.zeros((4, 12, 64), np.int16), ONES, 32, 96)
    assert read_header(data).segments == (3, 3, 3, 3)
    assert (decode(data) == 128).all()


def test_silence_is_silence():
    table = quantisation_table(75)
    data = encode_coefficients(quantise(forward(np.zeros((24, 30), np.float32)), table), table, 24, 30)
    assert not decode(data).any()


def test_one_pixel():
    table = quantisation_table(100)
    data = encode_coefficients(quantise(forward(np.full((1, 1), 200.0)), table), table, 1, 1)
    assert decode(data).tolist() == [[200]]


@pytest.mark.parametrize("place", [1, 15, 16, 17, 18, 32, 33, 48, 49, 50, 62, 63])
def test_long_runs_of_zeros(place):
    coefficients = np.zeros((2, 2, 64), np.int16)
    coefficients[0, 1, place] = -3
    coefficients[1, :, place] = 1
    coefficients[1, :, 63] = 2
    data = encode_coefficients(coefficients, ONES, 16, 16)
    assert np.array_equal(coefficients_in(data), coefficients)
    assert np.abs(decode(data) - inverse(coefficients, 16, 16)).max() <= 1


def test_the_largest_values_work():
    coefficients = np.zeros((1, 5, 64), np.int16)
    coefficients[0, :, 0] = -1024, 1023, -1024, 1023, 0
    coefficients[0, 1, 1:3] = 1023, -1023
    assert np.array_equal(coefficients_in(encode_coefficients(coefficients, ONES, 8, 40)), coefficients)


@pytest.mark.parametrize(
    ("coefficients", "rows", "message"),
    [
        (np.zeros((1, 1, 64), np.int16), 9, r"of shape \(2, 1, 64\) for 9 rows and 8 columns, found int16"),
        (np.zeros((1, 1, 8, 8), np.int16), 8, r"found int16 of shape \(1, 1, 8, 8\)"),
        (np.zeros((1, 1, 64), np.float32), 8, "signed integers .* found float32"),
        (np.zeros((1, 1, 64), np.uint8), 8, "signed integers .* found uint8"),
    ],
)
def test_what_does_not_fit_is_refused(coefficients, rows, message):
    with pytest.raises(ValueError, match=message):
        encode_coefficients(coefficients, ONES, rows, 8)


def test_other_integers_and_memory_orders_give_the_same_bytes_and_stay_as_they_are():
    coefficients = sparse(3, 5)
    data = encode_coefficients(coefficients, ONES, 24, 40)
    before = coefficients.copy()
    coefficients.flags.writeable = False
    assert encode_coefficients(coefficients, ONES, 24, 40) == data
    assert encode_coefficients(coefficients.astype(np.int64), ONES, 24, 40) == data
    assert encode_coefficients(np.asfortranarray(coefficients), ONES, 24, 40) == data
    assert np.array_equal(coefficients, before)


def histograms():
    return st.lists(st.integers(0, 10**6), min_size=256, max_size=256) | st.dictionaries(
        st.integers(0, 255), st.integers(1, 10**9), max_size=40
    ).map(lambda counts: [counts.get(symbol, 0) for symbol in range(256)])


def least_bits(counts):
    """What Huffman's code takes for these counts and one symbol more, which occurs once."""
    heap = [1, *counts[counts > 0].tolist()]
    heapq.heapify(heap)
    bits = 0
    while len(heap) > 1:
        merged = heapq.heappop(heap) + heapq.heappop(heap)
        bits += merged
        heapq.heappush(heap, merged)
    return bits


@pytest.mark.slow
@quick
@given(histograms())
def test_codes_are_prefix_free_and_never_all_ones(counts):
    code = HuffmanCode.shortest(np.array(counts))
    used = np.flatnonzero(counts)
    assert sorted(code.symbols.tolist()) == used.tolist()
    assert code.counts.sum() == len(used)
    words = sorted(f"{code.codes[symbol]:0{code.lengths[symbol]}b}" for symbol in used)
    assert all(0 < len(word) <= 16 and "0" in word for word in words)
    assert not any(after.startswith(word) for word, after in pairwise(words))


@pytest.mark.slow
@quick
@given(histograms())
def test_codes_are_as_short_as_huffmans_where_none_is_longer_than_16_bits(counts):
    counts = np.array(counts)
    lengths = HuffmanCode.shortest(counts).lengths
    if lengths.max() < 16:
        # the code that is kept free lies deepest, next to one that is as long
        assert (counts * lengths).sum() == least_bits(counts) - lengths.max()


def test_depths_beyond_16_bits_are_cut():
    fibonacci = [1, 1]
    while len(fibonacci) < 40:
        fibonacci.append(fibonacci[-1] + fibonacci[-2])
    counts = np.zeros(256, np.int64)
    counts[: len(fibonacci)] = fibonacci
    lengths = HuffmanCode.shortest(counts).lengths[: len(fibonacci)]
    assert lengths.max() == 16
    assert (0.5**lengths).sum() <= 1 - 0.5**16
    assert (counts[: len(fibonacci)] * lengths).sum() < 1.001 * least_bits(counts)


def test_lengths_tell_what_an_image_takes():
    coefficients = sparse(6, 9, 0.2, 3)
    lengths = CodeLengths.of(coefficients)
    bits = 0.0
    for row in coefficients.tolist():
        mean = 0
        for block in row:
            bits += lengths.means[abs(block[0] - mean).bit_length()]
            mean, zeros = block[0], 0
            for value in block[1:]:
                zeros += 1
                if value:
                    bits += lengths.bits[abs(value).bit_length(), zeros - 1]
                    zeros = 0
            bits += lengths.end if zeros else 0
    segments = read_header(encode_coefficients(coefficients, ONES, 48, 72)).segments
    # each segment is filled up to a whole byte, and ff is followed by 00
    assert bits <= 8 * sum(segments) <= bits + 6 * 7 + 8 * 12


def test_lengths_of_what_does_not_occur_are_long_but_finite():
    lengths = CodeLengths.of(sparse(4, 4, 0.1, 1))
    assert lengths.bits.shape == (12, 64)
    assert lengths.means.shape == (12,)
    assert np.isfinite(lengths.bits).all()
    assert lengths.bits[10, 0] > lengths.bits[1, 0]
