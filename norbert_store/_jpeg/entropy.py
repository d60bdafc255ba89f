"""Quantised coefficients to one stored JPEG, all in NumPy.

Only coefficients that aren't zero become bits, and they are few, so all is done on lists of them. A *token* is what one
of them becomes: the Huffman code of its symbol (how many zeros stand before it, and its *category*, the number of bits
that its magnitude needs), those bits, and, after the last one of a block, the code that ends the block.

References
----------
ITU-T T.81 (1992), ISO/IEC 10918-1, F.1.2.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from norbert_store._jpeg.cosine import SIZE, ZIGZAG
from norbert_store._jpeg.huffman import SYMBOLS, HuffmanCode
from norbert_store._jpeg.stream import BLOCK, LARGEST_SIDE, segment_of_lengths

LARGEST = 1023
_LARGEST_DIFFERENCE = 2047
_END_OF_BLOCK = 0x00
_SIXTEEN_ZEROS = 0xF0

_START = bytes.fromhex("ffd8 ffe0 0010 4a46494600 0101 00 0001 0001 00 00")  # and JFIF 1.1, square pixels
_END = b"\xff\xd9"


def _categories() -> NDArray[np.int64]:
    """Category of each value from -2047 to 2047, at that index."""
    values = np.arange(2 * _LARGEST_DIFFERENCE + 1)
    return np.frexp(np.minimum(values, len(values) - values))[1].astype(np.int64)


CATEGORY = _categories()


def encode_coefficients(
    coefficients: NDArray[np.signedinteger], table: NDArray[np.uint8], rows: int, columns: int
) -> bytes:
    """Encode quantised coefficients as one stored JPEG.

    Parameters
    ----------
    coefficients : ndarray of int
        (block rows, block columns, 64), in zigzag order, as `norbert_store._jpeg.cosine.quantise` gives them.
    table : ndarray of uint8
        (8, 8), the steps by which they were divided.
    rows, columns : int
        Of the image.

    Returns
    -------
    bytes
        The same that `norbert_store._jpeg.encoder.encode` gives where libjpeg finds these coefficients.

    Raises
    ------
    ValueError
        If the sizes don't fit, or a coefficient is larger than a baseline JPEG can hold.
    """
    _check(coefficients, table, rows, columns)
    tokens = _tokens(coefficients)
    histogram = _histogram(tokens)
    others, means = HuffmanCode.shortest(histogram[:SYMBOLS]), HuffmanCode.shortest(histogram[SYMBOLS:])
    segments = _segments(tokens, others, means)
    return b"".join(
        (
            _START,
            segment_of_lengths([len(segment) for segment in segments]),
            b"\xff\xdb\x00\x43\x00" + table.ravel()[ZIGZAG].astype(np.uint8).tobytes(),
            struct.pack(">HHBHH", 0xFFC0, 11, 8, rows, columns) + b"\x01\x01\x11\x00",
            means.table(0x00),
            others.table(0x10),
            struct.pack(">HHH", 0xFFDD, 4, -(-columns // BLOCK)),
            bytes.fromhex("ffda 0008 01 0100 003f00"),
            *_with_markers(segments),
            _END,
        )
    )


@dataclass(frozen=True)
class CodeLengths:
    """What coefficients cost, in bits, in images of a certain histogram.

    Attributes
    ----------
    bits : ndarray of float32
        (12, 64): of a coefficient other than the mean, by its category and the number of zeros before it.
    end : float
        Of the end of a block.
    means : ndarray of float32
        (12,): of a mean, by the category of its difference to the one before.
    """

    bits: NDArray[np.float32]
    end: float
    means: NDArray[np.float32]

    @classmethod
    def of(cls, coefficients: NDArray[np.signedinteger]) -> CodeLengths:
        """Find the lengths of the codes that quantised coefficients (..., block columns, 64) would be given.

        Of several images, all together. What doesn't occur has the length that it would have if it did, about.
        """
        *_, columns, _ = coefficients.shape
        histogram = _histogram(_tokens(coefficients.reshape(-1, columns, SIZE)))
        others, means = _with_absent(histogram[:SYMBOLS]), _with_absent(histogram[SYMBOLS:])
        zeros, category = np.arange(SIZE), np.arange(12)
        bits = others[zeros % 16 * 16 + category[:, None]] + zeros // 16 * others[_SIXTEEN_ZEROS] + category[:, None]
        return cls(bits.astype(np.float32), float(others[_END_OF_BLOCK]), (means[:12] + category).astype(np.float32))


def _with_absent(histogram: NDArray[np.int64]) -> NDArray[np.float64]:
    """Bits of each symbol; those that don't occur are taken to occur half a time."""
    lengths = HuffmanCode.shortest(histogram).lengths
    return np.where(lengths, lengths, np.clip(np.log2(2.0 * max(histogram.sum(), 1)), 1, 16))


@dataclass(frozen=True)
class _Tokens:
    """The tokens of an image, in their order.

    symbol : int64, number in the histogram: below 256, or, for means, from 256
    bits : int64, the value's own bits
    category : int64, how many those are
    sixteens : int64, how many times sixteen zeros stand before it
    ending : int64, positions of those tokens after which an end of block follows
    rows : int64, positions of those with which rows of blocks begin
    """

    symbol: NDArray[np.int64]
    bits: NDArray[np.int64]
    category: NDArray[np.int64]
    sixteens: NDArray[np.int64]
    ending: NDArray[np.int64]
    rows: NDArray[np.int64]


def _tokens(coefficients: NDArray[np.signedinteger]) -> _Tokens:
    present = coefficients != 0
    unfinished = ~present[..., -1].ravel()
    present[..., 0] = True  # a mean always has a token
    place = np.flatnonzero(present)
    means = np.flatnonzero(place % SIZE == 0) if len(place) else place
    values = coefficients.ravel()[place].astype(np.int64)
    values[means] = np.diff(coefficients[..., 0].astype(np.int64), axis=1, prepend=0).ravel()
    _check_values(values, means)
    category = CATEGORY[values]
    zeros = np.diff(place, prepend=-1) - 1
    zeros[means] = 0
    symbol = (zeros & 15) << 4 | category
    symbol[means] += SYMBOLS
    bits = (values + (values >> 63)) & ((1 << category) - 1)  # of negative ones all are turned over
    ending = (np.append(means[1:], len(place)) - 1)[unfinished]
    return _Tokens(symbol, bits, category, zeros >> 4, ending, means[:: coefficients.shape[1]])


def _histogram(tokens: _Tokens) -> NDArray[np.int64]:
    """How often each symbol occurs (512,); those of means come last."""
    histogram = np.bincount(tokens.symbol, minlength=2 * SYMBOLS)
    histogram[_SIXTEEN_ZEROS] += tokens.sixteens.sum()
    histogram[_END_OF_BLOCK] += len(tokens.ending)
    return histogram


def _segments(tokens: _Tokens, others: HuffmanCode, means: HuffmanCode) -> list[bytes]:
    """The entropy-coded bytes of each row of blocks."""
    words = np.append(others.codes, means.codes)[tokens.symbol] << tokens.category | tokens.bits
    lengths = np.append(others.lengths, means.lengths)[tokens.symbol] + tokens.category
    # at most 16 + 11 bits so far, and 16 for the end of a block and 7 to the end of a byte are still to come: 50 of 64
    end = others.lengths[_END_OF_BLOCK]
    words[tokens.ending] = words[tokens.ending] << end | others.codes[_END_OF_BLOCK]
    lengths[tokens.ending] += end
    rows = tokens.rows
    if tokens.sixteens.any():
        place = np.arange(len(words)) + np.cumsum(tokens.sixteens)
        words = _spread(words, place, others.codes[_SIXTEEN_ZEROS])
        lengths = _spread(lengths, place, others.lengths[_SIXTEEN_ZEROS])
        rows = place[rows]
    # ones, up to a whole byte
    bits = np.add.reduceat(lengths, rows)
    padding = -bits % 8
    last = np.append(rows[1:], len(words)) - 1
    words[last] = (words[last] + 1 << padding) - 1
    lengths[last] += padding
    data = _packed(words.view(np.uint64), lengths)
    stops = np.cumsum(bits + padding) // 8
    return [
        data[start:stop].replace(b"\xff", b"\xff\x00")
        for start, stop in zip([0, *stops[:-1].tolist()], stops.tolist(), strict=True)
    ]


def _spread(values: NDArray[np.int64], place: NDArray[np.int64], between: np.int64) -> NDArray[np.int64]:
    """Put values at their places, the last of which is the end, and another one between them."""
    spread = np.full(int(place[-1]) + 1, between)
    spread[place] = values
    return spread


def _packed(words: NDArray[np.uint64], lengths: NDArray[np.int64]) -> bytes:
    """Put the last bits of words, so many of each, one after the other; the end is filled up with zeros."""
    stops = np.cumsum(lengths)
    starts = stops - lengths
    target = starts >> 6
    room = (target + 1 << 6) - stops  # to the end of 64 bits; below 0, so many bits go to the next 64
    over = np.flatnonzero(room < 0)
    beyond = -room[over]
    shifted = words << np.maximum(room, 0).astype(np.uint64)
    shifted[over] = words[over] >> beyond.astype(np.uint64)
    first = np.flatnonzero(np.diff(target, prepend=-1))
    packed = np.zeros(int(stops[-1] + 63 >> 6), np.uint64)
    packed[target[first]] = np.bitwise_or.reduceat(shifted, first)
    packed[target[over] + 1] |= words[over] << (64 - beyond).astype(np.uint64)
    return packed.astype(">u8").tobytes()


def _with_markers(segments: list[bytes]) -> list[bytes]:
    """Put restart markers between segments."""
    pieces = [segments[0]]
    for number, segment in enumerate(segments[1:]):
        pieces += (bytes((0xFF, 0xD0 + number % 8)), segment)
    return pieces


def _check(coefficients: NDArray[np.signedinteger], table: NDArray[np.uint8], rows: int, columns: int) -> None:
    if not (0 < rows <= LARGEST_SIDE and 0 < columns <= LARGEST_SIDE):
        raise ValueError(f"expected from 1 to {LARGEST_SIDE} rows and columns, found {rows} x {columns}")
    expected = (-(-rows // BLOCK), -(-columns // BLOCK), SIZE)
    if coefficients.shape != expected or coefficients.dtype.kind != "i":
        raise ValueError(
            f"expected quantised coefficients, signed integers of shape {expected} for {rows} rows and {columns} "
            f"columns, found {coefficients.dtype} of shape {coefficients.shape}"
        )
    if table.shape != (BLOCK, BLOCK) or table.dtype != np.uint8 or not table.all():
        raise ValueError("expected a quantisation table of dtype uint8 and shape (8, 8), with steps from 1 to 255")


def _check_values(values: NDArray[np.int64], means: NDArray[np.int64]) -> None:
    if np.abs(values).max() <= LARGEST:
        return
    difference = np.abs(values[means]).max()
    largest = np.abs(np.delete(values, means)).max(initial=0)
    if largest > LARGEST or difference > _LARGEST_DIFFERENCE:
        raise ValueError(
            f"expected coefficients up to {LARGEST} and differences of means up to {_LARGEST_DIFFERENCE}, found "
            f"{largest} and {difference}; clip them, as norbert_store._jpeg.cosine.quantise does"
        )
