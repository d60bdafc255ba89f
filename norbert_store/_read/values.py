"""What levels are read as: magnitudes, levels, decibels, or any function of one value, which is evaluated 256 times."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from norbert_store._read.frames import Frames, Request
from norbert_store._spectra.levels import LookUp

Values = Literal["magnitude", "levels", "decibel"]

Function = Callable[[NDArray[np.float32]], NDArray[Any]]


class ReadValues:
    """Reads a store's values through a function of each.

    Parameters
    ----------
    function : callable
        Of an array of magnitudes, float32, to an array of the same shape.
    frames : Frames
        Of the store.
    levels : bool
        Whether levels are wanted as they are, uint8; there is no function then.
    """

    def __init__(self, function: Function, frames: Frames, levels: bool = False) -> None:
        values = np.arange(256, dtype=np.uint8) if levels else _evaluate(function, frames.table)
        self.look_up = LookUp(values)
        self.dtype = values.dtype

    @property
    def table(self) -> NDArray[Any]:
        """What each level stands for."""
        return self.look_up.values

    def read(self, frames: Frames, requests: Sequence[Request]) -> None:
        """Read frames into the caller's arrays."""
        frames.read_into(requests, self.look_up)


def values_of(values: Values | Function, frames: Frames) -> ReadValues:
    """Return what reads values.

    Parameters
    ----------
    values : str or callable
        "magnitude"; "levels" (uint8); "decibel": 20 log10 of the magnitude, of the smallest that isn't 0 where it is
        0; or a function of one value, which gets an array of magnitudes and returns as many numbers.
    frames : Frames
        Of the store.

    Raises
    ------
    ValueError
        If it is none of them, or the function doesn't return a number for each value.
    """
    if callable(values):
        return ReadValues(values, frames)
    if values == "magnitude":
        return ReadValues(_magnitude, frames)
    if values == "levels":
        return ReadValues(_magnitude, frames, levels=True)
    if values == "decibel":
        return ReadValues(Decibel(float(frames.table[frames.table > 0].min())), frames)
    raise ValueError(f"expected values to be 'magnitude', 'levels', 'decibel' or a function, found {values!r}")


class Decibel:
    """20 log10 of magnitudes, not below the smallest that isn't 0."""

    def __init__(self, lowest: float) -> None:
        self._lowest = lowest

    def __call__(self, magnitude: NDArray[np.float32]) -> NDArray[np.float32]:
        """Convert an array."""
        return 20 * np.log10(np.maximum(magnitude, self._lowest))


def _magnitude(magnitude: NDArray[np.float32]) -> NDArray[np.float32]:
    return magnitude


def _evaluate(function: Function, table: NDArray[np.float32]) -> NDArray[np.float32]:
    values = np.asarray(function(table.copy()))
    if values.shape != table.shape or not np.issubdtype(values.dtype, np.number) or np.iscomplexobj(values):
        raise ValueError(
            f"the function must return a real number for each of {len(table)} magnitudes, found {values.dtype} of "
            f"shape {values.shape}"
        )
    return values.astype(np.float32)
