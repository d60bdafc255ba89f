"""What levels stand for, stem by stem: a table for each of a few scales, made once and kept."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from norbert_store._spectra.levels import Curve, LookUp, table
from norbert_store._storage.cache import Recent

# a table of pairs takes half a megabyte, and stems of music rarely need more than ten of them
_KEPT_BYTES = 32 * 2**20
_OVERHEAD_BYTES = 2**10
_PAIRS = 2**16

ValuesOfScale = Callable[[int], NDArray[np.float32] | NDArray[np.uint8]]


class Tables:
    """What levels stand for, by the scale of their stem.

    Parameters
    ----------
    values : callable
        Of a scale, to what its 256 levels stand for: float32, or uint8 if levels are to stay what they are.
    """

    def __init__(self, values: ValuesOfScale) -> None:
        self._values = values
        self._kept: Recent[int, LookUp] = Recent(_KEPT_BYTES)

    def of(self, scale: int) -> LookUp:
        """Return the table of a scale."""
        found = self._kept.get(scale)
        if found is None:
            found = LookUp(self._values(scale))
            self._kept.put(scale, found, 2 * _PAIRS * found.values.itemsize + _OVERHEAD_BYTES)
        return found


class Magnitudes:
    """The magnitudes that levels stand for, by scale.

    Parameters
    ----------
    curve : Curve
    """

    def __init__(self, curve: Curve) -> None:
        self._curve = curve

    def __call__(self, scale: int) -> NDArray[np.float32]:
        """Return those of the 256 levels."""
        magnitudes: NDArray[np.float32] = table(self._curve, scale)
        return magnitudes


def levels_themselves(scale: int) -> NDArray[np.uint8]:
    """Return the 256 levels, whatever they stand for."""
    return np.arange(256, dtype=np.uint8)


LEVELS = Tables(levels_themselves)
