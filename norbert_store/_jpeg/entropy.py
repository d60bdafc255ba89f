"""Quantised coefficients to one stored JPEG, all in NumPy.

Only coefficients that aren't zero become bits, and they are few, so all is done on lists of them. A *token* is what one
of them becomes: the Huffman code of its symbol (how many zeros stand before it, and its *category*, the number of bits
that its magnitude needs), those bits, and, after the last one of a block, the code that ends the block.

References
----------
ITU-T T.81 (1992), ISO/IEC 10918-1, F.1.2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from norbert_store._jpeg import layout
from norbert_store._jpeg.cosine import SIZE
from norbert_store._jpeg.huffman import SYMBOLS, HuffmanCode
from norbert_store._jpeg.layout import blocks_along

LARGEST = 1023
_LARGEST_DIFFERENCE = 2047
_END_OF_BLOCK = 0x00
_SIXTEEN_ZEROS = 0xF0


def _categories() -> NDArray[np.int64]:
    """Category of each value from -2047 to 2047, at that index."""
    values = np.arange(2 * _LARGEST_DIFFERENCE + 1)
    return np.frexp(np.minimum(values, len(values) - values))[1].astype(np.int64)


CATEGORY = _categories()


def encode_coefficients(
    coefficients: NDArray[np.signedinteger], table: NDArray[np.uint8], rows: int, columns: int, scale: int = 0
) -> bytes:
    """Encode quantised coefficients as one stored JPEG.

    Parameters
    ----------
    coefficients : ndarray of int
        (block rows, block columns, 64), in zigzag order, no larger than `norbert_store._jpeg.cosine.quantise` gives
        them: a baseline JPEG can't hold others.
    table : ndarray of uint8
        (8, 8), the steps by which they were divided.
    rows, columns : int
        Of the image.
    scale : int
        Level 255 stands for 2 to this power.

    Returns
    -------
    bytes
        The same that `norbert_store._jpeg.encoder.encode` gives where libjpeg finds these coefficients.

    Raises
    ------
    ValueError
        If the sizes don't fit.
    """
    expected = (blocks_along(rows), blocks_along(columns), SIZE)
    if coefficients.shape != expected or coefficients.dtype.kind != "i":
        raise ValueError(
            f"expected signed integers of shape {expected} for {rows} rows and {columns} columns, found "
            f"{coefficients.dtype} of shape {coefficients.shape}"
        )
    tokens = _tokens(coefficients)
    histogram = _histogram(tokens)
    others, means = HuffmanCode.shortest(histogram[:SYMBOLS]), HuffmanCode.shortest(histogram[SYMBOLS:])
    segments = _segments(tokens, others, means)
    return layout.write(rows, columns, table, (means.table(), others.table()), segments, scale=scale)


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
        """Find the lengths of the codes that quantised coefficients (block rows, block columns, 64) would be given.

        What doesn't occur has the length that it would have if it did, about.
        """
        histogram = _histogram(_tokens(coefficients))
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
    codes, bits = np.append(others.codes, means.codes), np.append(others.lengths, means.lengths)
    words = codes[tokens.symbol] << tokens.category | tokens.bits
    lengths = bits[tokens.symbol] + tokens.category
    # at most 16 + 11 bits so far, and 16 for the end of a block and 7 to the end of a byte are still to come: 50 of 64
    words[tokens.ending] = words[tokens.ending] << bits[_END_OF_BLOCK] | codes[_END_OF_BLOCK]
    lengths[tokens.ending] += bits[_END_OF_BLOCK]
    rows = tokens.rows
    if tokens.sixteens.any():
        place = np.arange(len(words)) + np.cumsum(tokens.sixteens)
        words = _spread(words, place, codes[_SIXTEEN_ZEROS])
        lengths = _spread(lengths, place, bits[_SIXTEEN_ZEROS])
        rows = place[rows]
    # ones, up to a whole byte
    total = np.add.reduceat(lengths, rows)
    padding = -total % 8
    last = np.append(rows[1:], len(words)) - 1
    words[last] = (words[last] + 1 << padding) - 1
    lengths[last] += padding
    data = _packed(words.view(np.uint64), lengths)
    stops = np.cumsum(total + padding) // 8
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
    """Put the last bits of words, a number of each, one after the other; the end is filled up with zeros."""
    stops = np.cumsum(lengths)
    starts = stops - lengths
    target = starts >> 6
    room = (target + 1 << 6) - stops  # to the end of 64 bits; below 0, that number of bits goes to the next 64
    over = np.flatnonzero(room < 0)
    beyond = -room[over]
    shifted = words << np.maximum(room, 0).astype(np.uint64)
    shifted[over] = words[over] >> beyond.astype(np.uint64)
    first = np.flatnonzero(np.diff(target, prepend=-1))
    packed = np.zeros(int(stops[-1] + 63 >> 6), np.uint64)
    packed[target[first]] = np.bitwise_or.reduceat(shifted, first)
    packed[target[over] + 1] |= words[over] << (64 - beyond).astype(np.uint64)
    return packed.astype(">u8").tobytes()
