"""Magnitudes <-> levels as a filter: float16, float32 or float64 in, uint8 out, by a companding curve."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from numcodecs.abc import Codec
from numcodecs.compat import ensure_ndarray
from numpy.typing import NDArray
from zarr.abc.codec import ArrayArrayCodec
from zarr.dtype import UInt8

from norbert_store._spectra.levels import (
    HIGHEST,
    TOLERANCE,
    Curve,
    check_reference,
    curve_from_config,
    dequantize,
    from_levels,
    quantize,
)
from norbert_store.codecs._configuration import from_configuration

if TYPE_CHECKING:
    from zarr.core.array_spec import ArraySpec
    from zarr.core.buffer import NDBuffer

NUMCODECS_ID = "norbert_quantize"
ZARR_NAME = "norbert_store.quantize"

FLOATS = ("float16", "float32", "float64")


@lru_cache(maxsize=64)
def _table(curve: Curve, reference: float, dtype: str) -> NDArray[Any]:
    """What levels stand for, in the dtype of an array; no more than the reference, so that it can be stored again."""
    exact = (curve.expand(from_levels(np.arange(HIGHEST + 1, dtype=np.uint8))) * reference).astype(np.float32)
    magnitudes = np.minimum(exact.astype(np.float64), np.finfo(dtype).max).astype(dtype)
    # float16 rounds up by more than is taken for rounding
    too_high = magnitudes > np.float64(reference * (1 + TOLERANCE))
    return np.where(too_high, np.nextafter(magnitudes, magnitudes.dtype.type(0)), magnitudes)


def _order(array: NDArray[Any]) -> Literal["C", "F"]:
    return "F" if array.flags.f_contiguous else "C"


def _one_by_one(function: Callable[[NDArray[Any]], NDArray[Any]], array: NDArray[Any]) -> NDArray[Any]:
    """Apply a function to each value, and leave the array's memory order: zarr v2 goes by the bytes in memory."""
    order = _order(array)
    return function(array.reshape(-1, order=order)).reshape(array.shape, order=order)


class Quantize(Codec):  # type: ignore[misc]
    """Magnitudes to 256 levels and back, for numcodecs.

    Parameters
    ----------
    curve : str
        "power" or "log".
    dtype : str
        "float16", "float32" or "float64"; that of the array it serves.
    reference : float
        The largest magnitude, which becomes level 255.
    **parameters : float
        Of the curve: ``exponent`` (power) or ``range_decibel`` (log).

    Raises
    ------
    ValueError
        If curve, dtype or a parameter is unknown or out of range.

    Examples
    --------
    >>> codec = Quantize(exponent=0.5)
    >>> codec
    Quantize(curve='power', dtype='float32', exponent=0.5, reference=1.0)
    >>> codec.decode(codec.encode(np.float32([0, 0.25, 1])))
    array([0.        , 0.25196463, 1.        ], dtype=float32)
    """

    codec_id = NUMCODECS_ID

    def __init__(
        self, curve: str = "power", dtype: str = "float32", *, reference: float = 1.0, **parameters: float
    ) -> None:
        if dtype not in FLOATS:
            raise ValueError(f"dtype must be one of {', '.join(FLOATS)}; found {dtype!r}")
        self._curve = curve_from_config({"curve": curve, **parameters})
        self._reference = check_reference(reference)
        self._table = _table(self._curve, self._reference, dtype)

    def encode(self, buf: Any) -> NDArray[np.uint8]:
        """Quantise an array of magnitudes; uint8 of the same shape and memory order (C or Fortran)."""
        magnitudes = ensure_ndarray(buf)
        if magnitudes.dtype != self._table.dtype:
            # zarr would read the bytes that `decode` gives as another dtype's
            raise ValueError(
                f"expected magnitudes of the codec's dtype {self._table.dtype}, found {magnitudes.dtype.str}; "
                f"give the array and the codec the same of {', '.join(FLOATS)}"
            )
        return _one_by_one(lambda values: quantize(values, self._curve, self._reference), magnitudes)

    def decode(self, buf: Any, out: Any = None) -> NDArray[Any]:
        """Look the levels' magnitudes up; floats of the same shape and memory order.

        Bytes without a shape fill ``out`` in its own memory order, as those of an array in that order.
        """
        levels = ensure_ndarray(buf).view(np.uint8)
        magnitudes = _one_by_one(lambda values: dequantize(values, self._table), levels)
        if out is None:
            return magnitudes
        target = ensure_ndarray(out)
        if magnitudes.shape != target.shape:
            magnitudes = magnitudes.reshape(-1, order="A").reshape(target.shape, order=_order(target))
        target[...] = magnitudes
        return target

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Build the codec from what `get_config` gave, without the id."""
        return from_configuration(cls, config)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments, with the codec's id."""
        config = {**self._curve.config, "reference": self._reference, "dtype": self._table.dtype.name}
        return {"id": self.codec_id, **config}

    def __repr__(self) -> str:
        arguments = sorted((key, value) for key, value in self.get_config().items() if key != "id")
        return f"{type(self).__name__}({', '.join(f'{key}={value!r}' for key, value in arguments)})"


@dataclass(frozen=True)
class ZarrQuantize(ArrayArrayCodec):
    """Magnitudes to 256 levels and back, for zarr v3: a filter, before a serializer of uint8.

    Parameters
    ----------
    curve : Curve or str
        A curve, or its name with its parameters.
    reference : float
        As for `Quantize`.
    **parameters : float
        As for `Quantize`.

    Examples
    --------
    >>> ZarrQuantize(exponent=0.5).to_dict()
    {'name': 'norbert_store.quantize',
     'configuration': {'curve': 'power', 'exponent': 0.5, 'reference': 1.0}}
    """

    curve: Curve
    reference: float

    is_fixed_size = True

    def __init__(self, curve: Curve | str = "power", *, reference: float = 1.0, **parameters: float) -> None:
        if not isinstance(curve, Curve):
            curve = curve_from_config({"curve": curve, **parameters})
        elif parameters:
            raise ValueError("give either a curve, or its name and parameters")
        object.__setattr__(self, "curve", curve)
        object.__setattr__(self, "reference", check_reference(reference))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Build the codec from an entry of ``codecs`` in zarr.json."""
        return from_configuration(cls, data.get("configuration", {}))

    def to_dict(self) -> dict[str, Any]:
        """Return the entry of ``codecs`` in zarr.json."""
        return {"name": ZARR_NAME, "configuration": {**self.curve.config, "reference": self.reference}}

    def evolve_from_array_spec(self, array_spec: ArraySpec) -> Self:
        """Check that the array holds floats."""
        dtype = array_spec.dtype.to_native_dtype()
        if dtype.name not in FLOATS:
            raise ValueError(f"{ZARR_NAME} takes arrays of {', '.join(FLOATS)}; found {dtype}")
        return self

    def resolve_metadata(self, chunk_spec: ArraySpec) -> ArraySpec:
        """Describe what comes after this filter: uint8."""
        return replace(chunk_spec, dtype=UInt8(), fill_value=np.uint8(0))

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: ArraySpec) -> int:
        """One byte for each float."""
        return input_byte_length // chunk_spec.dtype.to_native_dtype().itemsize

    def _encode_sync(self, chunk_data: NDBuffer, chunk_spec: ArraySpec) -> NDBuffer:
        levels = quantize(chunk_data.as_numpy_array(), self.curve, self.reference)
        return chunk_spec.prototype.nd_buffer.from_numpy_array(levels)

    def _decode_sync(self, chunk_data: NDBuffer, chunk_spec: ArraySpec) -> NDBuffer:
        dtype = chunk_spec.dtype.to_native_dtype()
        values = _table(self.curve, self.reference, dtype.name)
        magnitudes = dequantize(chunk_data.as_numpy_array(), values).astype(dtype, copy=False)
        return chunk_spec.prototype.nd_buffer.from_numpy_array(magnitudes)

    async def _encode_single(self, chunk_data: NDBuffer, chunk_spec: ArraySpec) -> NDBuffer:
        return await asyncio.to_thread(self._encode_sync, chunk_data, chunk_spec)

    async def _decode_single(self, chunk_data: NDBuffer, chunk_spec: ArraySpec) -> NDBuffer:
        return await asyncio.to_thread(self._decode_sync, chunk_data, chunk_spec)
