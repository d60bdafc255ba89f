"""Curves, scales and tables: magnitude <-> level.

Conventions
-----------
magnitude
    Float, finite and not negative (see ``docs/format.md`` for its unit).
scale
    A whole number e: ``2 ** e`` is the largest magnitude that can be stored of a stem, or of a chunk. Where one number
    serves a whole array or picture, it is any, and called *reference*.
compressed
    Float from 0 to 1: a magnitude, divided by ``2 ** e``, after the curve.
level
    ``uint8``, ``round(255 * compressed)``. Level 0 is exactly magnitude 0, level 255 is ``2 ** e``.

A curve is a small frozen value with a `config` that holds all that decoding needs beside the scale, so the inverse of a
stem is one look-up in a 256-entry `table`. Every quantiser of this library, in the chain, the codecs and the writer,
calls this module.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from norbert_store._signature import spelled_out
from norbert_store.errors import MagnitudeError

LEVELS = 256
HIGHEST = LEVELS - 1

# Rounding in float32 may lift a full-scale magnitude by a few units in the last place.
TOLERANCE = 1e-6
# float32 itself ends about 760 dB below 1
_WIDEST_RANGE = 700
# 48 dB below full scale
_LOWEST_HEARD = -8
# below this, float32 has the power of two as a normal number
_PLAIN_SCALES = 126

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Curve(ABC):
    """How magnitudes, relative to the largest that can be stored, are compressed before they are rounded to levels."""

    name: ClassVar[str]

    @property
    def config(self) -> dict[str, Any]:
        """Its name and parameter, as plain JSON values."""
        return {"curve": self.name, **{key: float(value) for key, value in asdict(self).items()}}

    @abstractmethod
    def compress(self, magnitude: Floats) -> Floats:
        """Relative magnitude, 0 to 1, to compressed, 0 to 1; float32 stays float32."""

    @abstractmethod
    def expand(self, compressed: Floats) -> Floats:
        """Compressed, 0 to 1, to relative magnitude, 0 to 1."""


@spelled_out()
@dataclass(frozen=True)
class PowerCurve(Curve):
    """``compressed = relative ** exponent``: roughly how loudness grows with pressure.

    Parameters
    ----------
    exponent : float
        Above 0, at most 1. The smaller it is, the finer quiet magnitudes are kept, at more bytes.
    """

    name: ClassVar[str] = "power"
    exponent: float = 0.3

    def __post_init__(self) -> None:
        _check_parameter("exponent", self.exponent, 0, 1)

    def compress(self, magnitude: Floats) -> Floats:
        """Relative magnitude to compressed, 0 to 1."""
        return magnitude**self.exponent

    def expand(self, compressed: Floats) -> Floats:
        """Compressed, 0 to 1, to relative magnitude."""
        return compressed ** (1 / self.exponent)


@spelled_out()
@dataclass(frozen=True)
class LogCurve(Curve):
    """``compressed = 1 + 20 log10(relative) / range_decibel``, and 0 at or below the range's floor.

    Parameters
    ----------
    range_decibel : float
        How far below the largest magnitude the floor lies, in dB, at most 700. What lies below it becomes exactly 0.
    """

    name: ClassVar[str] = "log"
    range_decibel: float = 80.0

    def __post_init__(self) -> None:
        _check_parameter("range_decibel", self.range_decibel, 0, _WIDEST_RANGE)

    def compress(self, magnitude: Floats) -> Floats:
        """Relative magnitude to compressed, 0 to 1."""
        floor = 10 ** (-self.range_decibel / 20)
        above_floor = np.maximum(magnitude, floor)
        return np.maximum(1 + np.log10(above_floor) * (20 / self.range_decibel), 0)

    def expand(self, compressed: Floats) -> Floats:
        """Compressed, 0 to 1, to relative magnitude; 0 stays exactly 0."""
        magnitude = 10 ** ((compressed - 1) * (self.range_decibel / 20))
        return np.where(compressed > 0, magnitude, np.zeros_like(magnitude))


CURVES: dict[str, type[Curve]] = {curve.name: curve for curve in (PowerCurve, LogCurve)}


def curve_from_config(config: Mapping[str, Any]) -> Curve:
    """Build a curve from what its `Curve.config` gave.

    Parameters
    ----------
    config : mapping
        ``"curve"`` ("power" or "log") and that curve's parameters; what is left out takes its default.

    Raises
    ------
    ValueError
        If the curve is unknown, or a parameter is unknown or out of range.

    Examples
    --------
    >>> curve_from_config({"curve": "power", "exponent": 0.5})
    PowerCurve(exponent=0.5)
    """
    parameters = dict(config)
    name = parameters.pop("curve", PowerCurve.name)
    if not isinstance(name, str) or name not in CURVES:
        raise ValueError(f"curve {name!r} is unknown; expected one of {', '.join(map(repr, CURVES))}")
    try:
        return CURVES[name](**parameters)
    except TypeError:
        takes = ", ".join(field.name for field in fields(CURVES[name]))
        raise ValueError(f"curve {name!r} takes {takes}; found {', '.join(parameters)}") from None


def to_levels(compressed: Floats) -> NDArray[np.uint8]:
    """Round compressed values, 0 to 1, to levels."""
    return (compressed * HIGHEST + 0.5).astype(np.uint8)


def from_levels(levels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Levels to the compressed values, 0 to 1, that they stand for."""
    return levels.astype(np.float64) / HIGHEST


# ---- scales


def scale_of(largest: float) -> int:
    """Return the smallest whole number e with ``2 ** e`` above a magnitude; 0 for silence.

    Examples
    --------
    >>> scale_of(0.3), scale_of(0.5), scale_of(1e-30), scale_of(0)
    (-1, 0, -99, 0)
    """
    return math.frexp(largest)[1] if largest > 0 else 0


def scale_within(bound: float) -> int:
    """Return the smallest whole number e so that ``2 ** e`` is at least a bound of magnitudes; 0 for silence.

    Examples
    --------
    >>> scale_within(1.0), scale_within(1.01)
    (0, 1)
    """
    mantissa, exponent = math.frexp(bound)
    return (exponent - 1 if mantissa == 0.5 else exponent) if bound > 0 else 0


def heard_scale(scale: int) -> int:
    """Return the scale at which a stem is taken to be heard: its own, as long as that may be sound at full scale.

    What is louder than full scale, or quieter than anybody listens to, gets its volume turned.
    """
    return min(max(scale, _LOWEST_HEARD), 0)


def relative(magnitude: Floats, scale: int) -> Floats:
    """Divide magnitudes by ``2 ** scale``, without rounding, in their own dtype."""
    if scale == 0:
        return magnitude
    if abs(scale) < _PLAIN_SCALES:
        return magnitude * magnitude.dtype.type(2.0**-scale)
    shifted: Floats = np.ldexp(magnitude, -scale)
    return shifted


def table(curve: Curve, scale: int = 0, dtype: DTypeLike = np.float32) -> NDArray[Any]:
    """Return the 256 magnitudes that the levels stand for, in order; at most the largest finite one of the dtype.

    Examples
    --------
    >>> table(PowerCurve(exponent=0.5))[[0, 51, 255]]
    array([0.  , 0.04, 1.  ], dtype=float32)
    >>> table(PowerCurve(exponent=0.5), scale=-1)[[0, 51, 255]]
    array([0.  , 0.02, 0.5 ], dtype=float32)
    """
    with np.errstate(over="ignore", under="ignore"):
        magnitudes = np.ldexp(curve.expand(from_levels(np.arange(LEVELS, dtype=np.uint8))), scale)
        return np.minimum(magnitudes, float(np.finfo(dtype).max)).astype(dtype)


def quantize(magnitude: ArrayLike, curve: Curve, reference: float = 1.0) -> NDArray[np.uint8]:
    """Magnitudes to levels.

    Parameters
    ----------
    magnitude : array_like of float
        Any shape; finite, from 0 to ``reference``.
    curve : Curve
    reference : float
        What level 255 stands for.

    Returns
    -------
    ndarray of uint8
        Of the same shape.

    Raises
    ------
    MagnitudeError
        If a value is NaN, infinite, negative, or above the reference.

    Examples
    --------
    >>> quantize([0.0, 0.25, 1.0], PowerCurve(exponent=0.5))
    array([  0, 128, 255], dtype=uint8)
    """
    values = as_floats(magnitude)
    check_magnitude(values, reference)
    return to_levels(curve.compress(values / reference))


def check_reference(reference: float) -> float:
    """Return a reference as a float.

    Raises
    ------
    ValueError
        If it is no number that float32 holds with all its digits.
    """
    limits = np.finfo(np.float32)
    _check_parameter("reference", reference, float(limits.tiny), float(limits.max))
    return float(reference)


def dequantize(levels: NDArray[np.uint8], magnitudes: NDArray[Any]) -> NDArray[Any]:
    """Levels to magnitudes, through a `table`; of the table's dtype and the levels' shape."""
    # 'clip' is the fast mode: no level can lie outside a table of 256
    return np.take(magnitudes, levels, mode="clip")


class LookUp:
    """What levels stand for, by a table of all 256, written into the caller's array.

    Two levels are looked up at a time, in a table of all 65,536 pairs, which takes half as long as one by one.

    Parameters
    ----------
    values : ndarray of float32 or uint8
        256 of them; uint8 if levels are to stay what they are.
    """

    def __init__(self, values: NDArray[Any]) -> None:
        self.values = values
        self._pairs: NDArray[np.uint64] | None = None
        if values.dtype == np.float32:
            both = np.arange(65536, dtype=np.uint16).view(np.uint8).reshape(-1, 2)
            self._pairs = np.take(values, both).view(np.uint64).ravel()

    def __reduce__(self) -> tuple[type[LookUp], tuple[NDArray[Any]]]:
        return LookUp, (self.values,)

    def __call__(self, levels: NDArray[np.uint8], out: NDArray[Any]) -> None:
        """Look up an array of levels, into one of the same shape."""
        if self._pairs is None:
            out[...] = levels if self.values.dtype == np.uint8 else np.take(self.values, levels, mode="clip")
            return
        if levels.size % 2 == 0 and levels.flags.c_contiguous and out.flags.c_contiguous:
            places = out.reshape(-1).view(np.uint64)
            if places.flags.aligned:
                self._pairs.take(levels.reshape(-1).view(np.uint16), out=places, mode="clip")
                return
        out[...] = np.take(self.values, levels, mode="clip")


def as_floats(values: ArrayLike) -> Floats:
    """Take an array of real numbers as float32 or float64.

    Raises
    ------
    MagnitudeError
        If the values are complex, or no numbers at all, or some are masked.
    """
    if np.ma.is_masked(values):
        raise MagnitudeError("expected magnitudes without a mask, found a masked array; fill it first: filled(0)")
    array = np.asarray(values)
    if array.dtype in (np.float32, np.float64):
        return array
    if not np.issubdtype(array.dtype, np.integer) and not np.issubdtype(array.dtype, np.floating):
        raise MagnitudeError(f"expected magnitudes as real numbers, found dtype {array.dtype}; take numpy.abs first")
    return array.astype(np.float32 if array.dtype.itemsize <= 2 else np.float64)


def check_magnitude(values: Floats, reference: float = np.inf) -> None:
    """Raise `MagnitudeError` unless all values are finite, at least 0 and at most the reference."""
    if values.size == 0:
        return
    lowest, highest = values.min(), values.max()
    if lowest >= 0 and highest <= reference * (1 + TOLERANCE) and np.isfinite(highest):
        return
    if not (np.isfinite(lowest) and np.isfinite(highest)):
        count = int(np.count_nonzero(~np.isfinite(values)))
        raise MagnitudeError(
            f"{count} of {values.size} values are NaN or infinite; magnitudes must be finite. (An array whose last "
            "chunk is cut off is padded with its fill value: create it with fill_value=0.)"
        )
    if lowest < 0:
        raise MagnitudeError(f"found a value of {lowest:.6g}; magnitudes must not be negative")
    raise MagnitudeError(
        f"found a magnitude of {highest:.6g}, above the reference {reference:.6g}; "
        f"use a reference of {round_up(float(highest)):g} or more, or scale the values down"
    )


def round_up(value: float) -> float:
    """Round a positive value up to two digits, so that a reference that is copied from a message is enough."""
    unit = 10 ** (math.floor(math.log10(value)) - 1)
    return float(f"{math.ceil(value / unit) * unit:.6g}")


def _check_parameter(name: str, value: float, above: float, at_most: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        raise ValueError(f"{name} must be a number, found {value!r}")
    if not above < value <= at_most:
        raise ValueError(f"{name} must be above {above:g} and at most {at_most:g}; found {value!r}")
