"""What levels are read as: magnitudes, levels, decibels, or any function of one value, which is evaluated 256 times."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from norbert_store._format.table import SCALE
from norbert_store._read.frames import Frames, Request
from norbert_store._read.selection import Selection
from norbert_store._read.tables import Magnitudes, Tables, ValuesOfScale, levels_themselves
from norbert_store.errors import DamagedError

Values = Literal["magnitude", "levels", "decibel"]

Function = Callable[[NDArray[np.float32]], NDArray[Any]]


class ReadValues:
    """Reads a store's values through a function of each.

    Parameters
    ----------
    of_scale : callable
        Of a scale, to what its 256 levels are read as.
    dtype : dtype
    """

    def __init__(self, of_scale: ValuesOfScale, dtype: type[np.float32] | type[np.uint8] = np.float32) -> None:
        self.table = of_scale
        self.dtype = np.dtype(dtype)
        self._tables = Tables(of_scale)

    def read(self, frames: Frames, requests: Sequence[Request]) -> None:
        """Read frames into the caller's arrays."""
        frames.read_into(requests, self._tables)


def values_of(values: Values | Function, selection: Selection) -> ReadValues:
    """Return what reads values.

    Parameters
    ----------
    values : str or callable
        "magnitude"; "levels" (uint8); "decibel": 20 log10 of the magnitude, and where it is 0 of the smallest that
        isn't in stems of this scale; or a function of one value, which gets an array of magnitudes and returns as many
        numbers.
    selection : Selection
        What will be read; a function is evaluated for each scale that occurs there.

    Raises
    ------
    ValueError
        If it is none of them, or the function doesn't return a number for each value.
    """
    magnitudes = Magnitudes(selection.document.layout.curve)
    if callable(values):
        return ReadValues(_Evaluated(values, magnitudes, scales_of(selection)))
    if values == "magnitude":
        return ReadValues(magnitudes)
    if values == "levels":
        return ReadValues(levels_themselves, np.uint8)
    if values == "decibel":
        return ReadValues(Decibel(magnitudes))
    raise ValueError(f"expected values to be 'magnitude', 'levels', 'decibel' or a function, found {values!r}")


def scales_of(selection: Selection) -> list[int]:
    """Return the scales that stems of some tracks have, each once, in order."""
    scales, present = selection.column("scale"), selection.column("present")
    found: list[int] = np.unique(scales[present]).tolist()
    return found


class Decibel:
    """20 log10 of the magnitudes of a scale; of the smallest that isn't 0 in place of 0."""

    def __init__(self, magnitudes: Magnitudes) -> None:
        self._magnitudes = magnitudes

    def __call__(self, scale: int) -> NDArray[np.float32]:
        """Return those of the 256 levels."""
        magnitudes = self._magnitudes(scale)
        there = magnitudes[magnitudes > 0]
        lowest = there.min() if len(there) else np.finfo(np.float32).tiny
        decibel: NDArray[np.float32] = 20 * np.log10(np.maximum(magnitudes, lowest))
        return decibel


class _Evaluated:
    """A function of magnitudes, evaluated at once, so that it needn't be pickled."""

    def __init__(self, function: Function, magnitudes: Magnitudes, scales: Iterable[int]) -> None:
        # a function that fits nothing is told of at once, and not where the first stem is read
        self._values = {scale: _evaluate(function, magnitudes(scale)) for scale in [*scales] or [0]}

    def __call__(self, scale: int) -> NDArray[np.float32]:
        """Return what the 256 levels are read as."""
        try:
            return self._values[scale]
        except KeyError:
            raise DamagedError(f"its scale is {scale}, which no stem has by /{SCALE}") from None


def _evaluate(function: Function, table: NDArray[np.float32]) -> NDArray[np.float32]:
    values = np.asarray(function(table.copy()))
    if values.shape != table.shape or not np.issubdtype(values.dtype, np.number) or np.iscomplexobj(values):
        raise ValueError(
            f"the function must return a real number for each of {len(table)} magnitudes, found {values.dtype} of "
            f"shape {values.shape}"
        )
    return values.astype(np.float32)
