"""Which multiple of its step each coefficient becomes, where bits are weighed against the error.

Rounding makes the error smallest and doesn't ask what a coefficient costs. Here each block gets multiples that make ::

    weight * (sum of (coefficient - multiple * step) ** 2)  +  price * bits

small, with the code lengths that the image will have. Each coefficient may become what it rounds to, one less, or zero.
What it costs depends on how many zeros stand before it, so one that is left out makes the next one dearer: the best of
all choices takes a dynamic programme over the last coefficient that was kept. Leaving out one after the other, while
that pays, wins 97 to 99 % as much in half the time.

Only coefficients that don't round to zero have a choice, so all is done on lists of those.

References
----------
Ramchandran, Vetterli, "Rate-distortion optimal fast thresholding with complete JPEG/MPEG decoder compatibility", IEEE
Transactions on Image Processing 3 (5), 1994.
Crouse, Ramchandran, "Joint thresholding and quantizer selection for transform image coding", IEEE Transactions on Image
Processing 6 (2), 1997.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from norbert_store._jpeg import cosine
from norbert_store._jpeg.cosine import SIZE, steps_of
from norbert_store._jpeg.entropy import CATEGORY, LARGEST, CodeLengths

# the first coefficient of a block whose mean lies below level 1/2, which decoders round to 0
_SILENCE = -8 * 127.5


def quantise(
    coefficients: NDArray[np.float32],
    table: ArrayLike,
    weight: ArrayLike,
    price: float,
    lengths: CodeLengths,
) -> NDArray[np.int16]:
    """Quantise coefficients so that error and bits together cost little.

    Parameters
    ----------
    coefficients : ndarray of float32
        (block rows, block columns, 64), as `norbert_store._jpeg.cosine.forward` gives them.
    table : array_like
        Quantisation table (8, 8).
    weight : array_like
        Of squared errors, not negative; whatever broadcasts against the coefficients: a number, one for each block,
        (block rows, block columns, 1), or one for each coefficient.
    price : float
        What a bit costs, in weighted squared levels; 0 gives plain rounding.
    lengths : CodeLengths
        Those of an image much like the result, say of what rounding gives, or of an earlier result.

    Returns
    -------
    ndarray of int16
        Multiples of the table's steps, as ``coefficients``.

    Raises
    ------
    ValueError
        If the price is negative.

    Examples
    --------
    >>> coefficients = np.zeros((1, 1, 64), np.float32)
    >>> coefficients[0, 0, [0, 1, 40]] = 80, 30, 6
    >>> rounded = cosine.quantise(coefficients, np.full((8, 8), 10))
    >>> rounded[0, 0, [0, 1, 40]]
    array([8, 3, 1], dtype=int16)
    >>> quantise(coefficients, np.full((8, 8), 10), 1.0, 10.0, CodeLengths.of(rounded))[0, 0, [0, 1, 40]]
    array([8, 3, 0], dtype=int16)
    """
    if not price >= 0:
        raise ValueError(f"price must be a number from 0 up, found {price!r}")
    if price == 0:
        return cosine.quantise(coefficients, table)
    steps = steps_of(table)
    ratio = coefficients / steps
    # what the squared error of each coefficient costs, in bits, if it is one step
    scale = np.asarray(weight, np.float32) * (steps * steps / np.float32(price))
    scale = np.ascontiguousarray(np.broadcast_to(scale, ratio.shape))
    choices = _choices(ratio, scale, _least(lengths))
    magnitude = _magnitudes(choices, lengths.bits.ravel())
    quantised = np.zeros(ratio.shape, np.int16)
    negative = coefficients.ravel()[choices.place] < 0
    quantised.ravel()[choices.place] = np.where(negative, -magnitude, magnitude)
    quantised[..., 0] = _means(coefficients, ratio, scale, lengths)
    return quantised


@dataclass(frozen=True)
class _Choices:
    """Coefficients that may become something else than zero, in their order, but for means.

    place : int64, position among all coefficients
    magnitude : int64, what it rounds to, without its sign
    gain : float32, by how many bits' worth the error is smaller with that than with zero
    less : float32, the same for one less, where that is in another category, else -inf
    """

    place: NDArray[np.int64]
    magnitude: NDArray[np.int64]
    gain: NDArray[np.float32]
    less: NDArray[np.float32]

    def __getitem__(self, kept: NDArray[Any]) -> _Choices:
        return _Choices(self.place[kept], self.magnitude[kept], self.gain[kept], self.less[kept])


def _threshold(scale: NDArray[np.float32], bits: float) -> NDArray[np.float32]:
    """Smallest size of a coefficient, in steps, at which a one gains ``bits``; at most 1.5, where twos begin."""
    # a one gains scale * (size ** 2 - (size - 1) ** 2)
    with np.errstate(divide="ignore"):
        threshold = np.float32(bits / 2) / scale
    threshold += np.float32(0.5)
    return np.minimum(threshold, np.float32(1.5), out=threshold)


def _least(lengths: CodeLengths) -> float:
    """What leaving out a one between two others saves, in bits: the least that it does, but for a few."""
    return 2 * float(lengths.bits[1, 0]) - float(lengths.bits[1, 1])


def _choices(ratio: NDArray[np.float32], scale: NDArray[np.float32], least: float) -> _Choices:
    """List the coefficients that don't round to zero, but for ones that don't gain the least that they cost."""
    size = np.abs(ratio)
    present = size > (_threshold(scale, least) if least > 0 else 0.5)
    present[..., 0] = False
    place = np.flatnonzero(present)
    size, scale = size.ravel()[place], scale.ravel()[place]
    rounded = np.clip(np.rint(size), 1, LARGEST)
    magnitude = rounded.astype(np.int64)
    shorter = (magnitude & (magnitude - 1) == 0) & (magnitude > 1)
    less = np.where(shorter, scale * (rounded - 1) * (2 * size - rounded + 1), np.float32(-np.inf))
    return _Choices(place, magnitude, scale * rounded * (2 * size - rounded), less)


def _magnitudes(choices: _Choices, bits: NDArray[np.float32]) -> NDArray[np.int64]:
    """Magnitudes, by leaving out each coefficient that alone isn't worth its bits, and then the ends of blocks."""
    choices = _lowered(choices, bits)
    kept = np.flatnonzero(_worth_it(choices, bits))  # a second time wins 0.1 % of what is to be won
    kept = kept[_before_best_end(choices[kept], bits)]
    magnitude = np.zeros_like(choices.magnitude)
    magnitude[kept] = choices.magnitude[kept]
    return magnitude


def _lowered(choices: _Choices, bits: NDArray[np.float32]) -> _Choices:
    """Make magnitudes one less where that saves more bits than it loses, all else left as it is."""
    zeros, _ = _zeros_before(choices.place)
    index = CATEGORY[choices.magnitude] << 6 | zeros
    lower = choices.less - bits[index - SIZE] > choices.gain - bits[index]
    return replace(choices, magnitude=choices.magnitude - lower, gain=np.where(lower, choices.less, choices.gain))


def _zeros_before(place: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """How many zeros stand before each coefficient, and whether it is the first of its block."""
    zeros = np.diff(place, prepend=-1) - 1
    first = np.diff(place >> 6, prepend=-1) != 0
    begin = np.flatnonzero(first)
    zeros[begin] = (place[begin] & 63) - 1
    return zeros, first


def _worth_it(choices: _Choices, bits: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which coefficients are better kept than left out; of two neighbours at least one is."""
    zeros, first = _zeros_before(choices.place)
    category = CATEGORY[choices.magnitude] << 6
    cost = bits[category | zeros]
    net = choices.gain - cost
    after = np.flatnonzero(~first)
    before = after - 1
    # without the one before, the one after has more zeros before it
    net[before] += bits[category[after] | zeros[before] + zeros[after] + 1] - cost[after]
    kept = net >= 0
    kept[np.where(net[before] <= net[after], after, before)] = True
    return kept


def _before_best_end(choices: _Choices, bits: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which coefficients stand before the place where their block is best ended."""
    zeros, first = _zeros_before(choices.place)
    begin, block = np.flatnonzero(first), np.cumsum(first) - 1
    net = choices.gain - bits[CATEGORY[choices.magnitude] << 6 | zeros]
    total = np.cumsum(net, dtype=np.float64)
    total -= (total[begin] - net[begin])[block]
    best = np.maximum.reduceat(total, begin) if len(begin) else total
    end = np.full(len(begin), -1)
    reached = np.flatnonzero(total == np.maximum(best, 0)[block])
    end[block[reached]] = reached
    return np.arange(len(net)) <= end[block]


def _means(
    coefficients: NDArray[np.float32], ratio: NDArray[np.float32], scale: NDArray[np.float32], lengths: CodeLengths
) -> NDArray[np.int64]:
    """Multiples of first coefficients, by dynamic programming along rows of blocks, where differences cost bits.

    Each may become what it rounds to, one less or one more.
    """
    exact, importance, mean = (values[..., 0].T for values in (ratio, scale, coefficients))
    nearest = np.clip(np.rint(exact), -1024, 1023)
    values = np.stack((nearest, nearest - 1, nearest + 1), axis=1)  # (columns, choices, rows)
    error = importance[:, None] * (values - exact[:, None]) ** 2
    fixed = (mean <= _SILENCE) | (np.abs(nearest) > 1022)
    error[:, 1:] = np.where(fixed[:, None], np.inf, error[:, 1:])
    values = values.astype(np.int64)
    bits = lengths.means[CATEGORY]
    error[0] += bits[values[0]]
    choice = _cheapest(error, bits[values[1:, None] - values[:-1, :, None]])
    return np.take_along_axis(values, choice[:, None], axis=1)[:, 0].T


def _cheapest(cost: NDArray[np.float32], step: NDArray[np.float32]) -> NDArray[np.int64]:
    """Choices (columns, rows) of least cost: their own (columns, choices, rows), and of steps from one to the next.

    Steps are (columns - 1, choices before, choices, rows).
    """
    total = cost.copy()
    for n in range(1, len(cost)):
        total[n] += (total[n - 1, :, None] + step[n - 1]).min(axis=0)
    before = (total[:-1, :, None] + step).argmin(axis=1)
    choice = np.empty((cost.shape[0], cost.shape[2]), np.int64)
    choice[-1] = total[-1].argmin(axis=0)
    rows = np.arange(cost.shape[2])
    for n in range(len(cost) - 1, 0, -1):
        choice[n - 1] = before[n - 1, choice[n], rows]
    return choice
