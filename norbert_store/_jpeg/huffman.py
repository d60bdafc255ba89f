"""Huffman codes of at most 16 bits, the shortest for a histogram.

References
----------
ITU-T T.81 (1992), ISO/IEC 10918-1, annex K.2 for the lengths, annex C for the codes, B.2.4.2 for the table in the file.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SYMBOLS = 256
LONGEST = 16


@dataclass(frozen=True)
class HuffmanCode:
    """A code, as a JPEG's table says it.

    Attributes
    ----------
    symbols : ndarray of uint8
        Those that have a code, from the shortest to the longest.
    counts : ndarray of int64
        (16,), how many codes have 1, 2, ... 16 bits.
    """

    symbols: NDArray[np.uint8]
    counts: NDArray[np.int64]

    @classmethod
    def shortest(cls, histogram: NDArray[np.integer]) -> HuffmanCode:
        """Make the code for a histogram (256,): the same that libjpeg makes.

        Examples
        --------
        >>> histogram = np.zeros(256, int)
        >>> histogram[[7, 8, 9]] = 100, 10, 1
        >>> HuffmanCode.shortest(histogram).lengths[[7, 8, 9]]
        array([1, 2, 3])
        """
        depths = _depths(histogram)
        counts = _limited(np.bincount([depth for depth, _ in depths]).tolist())
        return cls(np.array([symbol for _, symbol in depths if symbol < SYMBOLS], np.uint8), np.array(counts))

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Bits of each symbol's code (256,); 0 for those that have none."""
        lengths = np.zeros(SYMBOLS, np.int64)
        lengths[self.symbols] = np.repeat(np.arange(1, LONGEST + 1), self.counts)
        return lengths

    @property
    def codes(self) -> NDArray[np.int64]:
        """Each symbol's code (256,)."""
        # a code of n bits takes up 2^(16 - n) of the codes of 16 bits, and begins where those before it end
        beyond = LONGEST - self.lengths[self.symbols]
        room = 1 << beyond
        codes = np.zeros(SYMBOLS, np.int64)
        codes[self.symbols] = (np.cumsum(room) - room) >> beyond
        return codes

    def table(self) -> bytes:
        """Return what stands in the file."""
        return bytes(self.counts.tolist()) + self.symbols.tobytes()


def _depths(histogram: NDArray[np.integer]) -> list[tuple[int, int]]:
    """Depth in Huffman's tree and number of each symbol that occurs, and of one more, 256, sorted.

    The one more comes last, so that what is all ones, which JPEG forbids, is its code and no other's.
    """
    used = np.flatnonzero(histogram)
    # libjpeg's choices: of equal counts the larger symbol goes first, and a pair goes by the symbol of its first half
    heap = [(1, -SYMBOLS, 0)]
    heap += zip(histogram[used].tolist(), (-used).tolist(), range(1, len(used) + 1), strict=True)
    leaves = [-symbol for _, symbol, _ in heap]
    parents = [0] * (2 * len(heap) - 1)
    heapq.heapify(heap)
    for node in range(len(leaves), len(parents)):
        count, symbol, first = heapq.heappop(heap)
        other_count, _, second = heap[0]
        parents[first] = parents[second] = node
        heapq.heapreplace(heap, (count + other_count, symbol, node))
    depths = [0] * len(parents)
    for node in reversed(range(len(parents) - 1)):
        depths[node] = depths[parents[node]] + 1
    return sorted(zip(depths, leaves, strict=False))


def _limited(counts: list[int]) -> list[int]:
    """Numbers of codes of 1 to 16 bits, from those by depth, after figure K.3; without the code of the one more."""
    counts += [0] * (LONGEST + 1 - len(counts))
    for depth in range(len(counts) - 1, LONGEST, -1):
        while counts[depth]:
            # two go: one takes the place of their parent, the other shares that of a shorter code, which moves down
            shorter = next(length for length in range(depth - 2, 0, -1) if counts[length])
            counts[depth] -= 2
            counts[depth - 1] += 1
            counts[shorter] -= 1
            counts[shorter + 1] += 2
    longest = max(length for length, count in enumerate(counts) if count)
    counts[longest] -= 1
    return counts[1 : LONGEST + 1]
