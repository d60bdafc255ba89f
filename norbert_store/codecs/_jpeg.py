"""Levels, or magnitudes, <-> one stored JPEG: uint8 or floats in, bytes out.

Arrays of more dimensions than two fold all but the last into rows: (1, 2, 256, 744) becomes an image of 512 rows and
744 columns. The last axis should be frequency, the one before it time.

Magnitudes are quantised relative to a power of two, which stands in the JPEG, so those of any size fit. They may end in
rows and columns of NaN, with which zarr fills up what reaches over an array's end: these are left out of the image.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numcodecs.abc import Codec
from numcodecs.compat import ensure_ndarray
from numpy.typing import NDArray
from zarr.abc.codec import ArrayBytesCodec

from norbert_store._jpeg import stream
from norbert_store._jpeg.encoder import DEFAULT_QUALITY, check_quality, encode, quantisation_table
from norbert_store._spectra.levels import (
    Curve,
    as_floats,
    check_magnitude,
    curve_from_config,
    dequantize,
    relative,
    scale_of,
    table,
    to_levels,
)
from norbert_store.codecs._configuration import from_configuration
from norbert_store.codecs._quantize import FLOATS
from norbert_store.errors import MagnitudeError

if TYPE_CHECKING:
    from zarr.core.array_spec import ArraySpec
    from zarr.core.buffer import Buffer, NDBuffer

NUMCODECS_ID = "norbert_jpeg"
ZARR_NAME = "norbert_store.jpeg"


def image_shape(shape: tuple[int, ...]) -> tuple[int, int]:
    """Fold a shape into that of an image: all axes but the last become rows."""
    # zarr 3.1 tells a codec neither shape nor dtype of its chunks before the first write, so all checks come then
    if not shape:
        raise ValueError("an array without dimensions is no image")
    return math.prod(shape[:-1]), shape[-1]


class Jpeg(Codec):  # type: ignore[misc]
    """Levels to a baseline grey JPEG and back, for numcodecs.

    Parameters
    ----------
    quality : float
        From 0 to 100; ten points less double the error. Only encoding needs it.

    Raises
    ------
    ValueError
        If the quality is out of range.

    Examples
    --------
    >>> codec = Jpeg(quality=90)
    >>> codec
    Jpeg(quality=90.0)
    >>> levels = np.full((4, 16, 32), 100, np.uint8)
    >>> codec.decode(codec.encode(levels)).shape
    (64, 32)
    """

    codec_id = NUMCODECS_ID

    def __init__(self, quality: float = DEFAULT_QUALITY) -> None:
        self.quality = check_quality(quality)

    def encode(self, buf: Any) -> bytes:
        """Encode an array of uint8 as one JPEG."""
        levels = ensure_ndarray(buf)
        if levels.flags.f_contiguous and not levels.flags.c_contiguous:
            # zarr reads what such an array decodes to in Fortran order, and a JPEG doesn't tell in which it was
            raise ValueError("expected an array in C order; use numpy.ascontiguousarray, or a zarr array of order 'C'")
        return encode(levels.reshape(image_shape(levels.shape)), quantisation_table(self.quality))

    def decode(self, buf: Any, out: Any = None) -> NDArray[np.uint8]:
        """Decode one JPEG; uint8 (rows, columns), or of the shape of ``out``."""
        data = stream.as_bytes(buf)
        if out is None:
            return stream.decode(data)
        target = ensure_ndarray(out)
        target[...] = stream.decode(data, np.empty(image_shape(target.shape), np.uint8)).reshape(target.shape)
        return target

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Build the codec from what `get_config` gave, without the id."""
        return from_configuration(cls, config)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments, with the codec's id."""
        return {"id": self.codec_id, "quality": self.quality}

    def __repr__(self) -> str:
        return f"{type(self).__name__}(quality={self.quality!r})"


@dataclass(frozen=True)
class ZarrJpeg(ArrayBytesCodec):
    """Levels, or with a filter magnitudes, to a baseline grey JPEG and back, for zarr v3: a serializer.

    Parameters
    ----------
    quality : float
        As for `Jpeg`.
    filter : Curve, str or mapping, optional
        How magnitudes become levels: a curve, its name, or an object of name and parameter. Without one, the array is
        of levels, uint8; with one, of float16, float32 or float64, finite and not negative, of any size. Each chunk is
        stored relative to the smallest power of two above its largest magnitude. Rows and columns of NaN at the end of
        a chunk come back as NaN; NaN elsewhere is refused.

    Raises
    ------
    ValueError
        If the quality is out of range, or there is no such curve.

    Examples
    --------
    >>> ZarrJpeg(quality=90).to_dict()
    {'name': 'norbert_store.jpeg', 'configuration': {'quality': 90.0}}
    >>> ZarrJpeg(quality=90, filter="power").to_dict()["configuration"]
    {'quality': 90.0, 'filter': {'curve': 'power', 'exponent': 0.3}}
    """

    quality: float = DEFAULT_QUALITY
    filter: Curve | None = None

    is_fixed_size = False

    def __init__(
        self,
        quality: float = DEFAULT_QUALITY,
        filter: Curve | str | Mapping[str, Any] | None = None,  # noqa: A002
    ) -> None:
        object.__setattr__(self, "quality", check_quality(quality))
        object.__setattr__(self, "filter", _curve(filter))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Build the codec from an entry of ``codecs`` in zarr.json."""
        return from_configuration(cls, data.get("configuration", {}))

    def to_dict(self) -> dict[str, Any]:
        """Return the entry of ``codecs`` in zarr.json."""
        configuration: dict[str, Any] = {"quality": self.quality}
        if self.filter is not None:
            configuration["filter"] = self.filter.config
        return {"name": ZARR_NAME, "configuration": configuration}

    def evolve_from_array_spec(self, array_spec: ArraySpec) -> Self:
        """Check that the array holds what is encoded."""
        dtype = array_spec.dtype.to_native_dtype()
        if self.filter is not None and dtype.name not in FLOATS:
            raise ValueError(f"{ZARR_NAME} with a filter takes arrays of {', '.join(FLOATS)}; found {dtype}")
        return self

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: ArraySpec) -> int:
        """A JPEG's size isn't known beforehand."""
        raise NotImplementedError

    def _encode_sync(self, chunk_data: NDBuffer, chunk_spec: ArraySpec) -> Buffer | None:
        values = chunk_data.as_numpy_array().reshape(image_shape(chunk_spec.shape))
        steps = quantisation_table(self.quality)
        if self.filter is None:
            return chunk_spec.prototype.buffer.from_bytes(encode(values, steps))
        magnitudes = _without_padding(as_floats(values))
        if magnitudes.size == 0:
            # where a missing chunk means something else, one without bytes has to be there
            missing = chunk_spec.fill_value is not None and np.isnan(chunk_spec.fill_value)
            return None if missing else chunk_spec.prototype.buffer.from_bytes(b"")
        check_magnitude(magnitudes)
        scale = scale_of(float(magnitudes.max()))
        levels = to_levels(self.filter.compress(relative(magnitudes, scale)))
        return chunk_spec.prototype.buffer.from_bytes(encode(levels, steps, scale=scale))

    def _decode_sync(self, chunk_data: Buffer, chunk_spec: ArraySpec) -> NDBuffer:
        shape, data = image_shape(chunk_spec.shape), chunk_data.to_bytes()
        if self.filter is None:
            values: NDArray[Any] = stream.decode(data, np.empty(shape, np.uint8))
        else:
            dtype = chunk_spec.dtype.to_native_dtype()
            values = np.full(shape, np.nan, dtype)
            levels, scale = stream.decode_within(data, shape) if data else (np.empty((0, 0), np.uint8), 0)
            values[: levels.shape[0], : levels.shape[1]] = dequantize(levels, _table(self.filter, scale, dtype.name))
        return chunk_spec.prototype.nd_buffer.from_numpy_array(values.reshape(chunk_spec.shape))

    async def _encode_single(self, chunk_data: NDBuffer, chunk_spec: ArraySpec) -> Buffer | None:
        return await asyncio.to_thread(self._encode_sync, chunk_data, chunk_spec)

    async def _decode_single(self, chunk_data: Buffer, chunk_spec: ArraySpec) -> NDBuffer:
        return await asyncio.to_thread(self._decode_sync, chunk_data, chunk_spec)


def _curve(what: Any) -> Curve | None:
    if what is None or isinstance(what, Curve):
        return what
    if isinstance(what, str):
        return curve_from_config({"curve": what})
    if isinstance(what, Mapping):
        return curve_from_config(what)
    raise ValueError(f"expected a curve as the filter, or its name, such as 'power'; found {what!r}")


@lru_cache(maxsize=64)
def _table(curve: Curve, scale: int, dtype: str) -> NDArray[Any]:
    return table(curve, scale, dtype)


def _without_padding(image: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """Cut off rows and columns of NaN at the end of an image.

    Raises
    ------
    MagnitudeError
        If there is NaN elsewhere.
    """
    there = ~np.isnan(image)
    rows, columns = (_stop(there.any(axis=axis)) for axis in (1, 0))
    missing = np.argwhere(~there[:rows, :columns])
    if len(missing):
        row, column = missing[0].tolist()
        raise MagnitudeError(
            f"found NaN in row {row}, column {column} of a chunk, and magnitudes behind it; NaN may only fill whole "
            f"rows and columns at the end, of which this chunk has {image.shape[0] - rows} and "
            f"{image.shape[1] - columns}"
        )
    return image[:rows, :columns]


def _stop(there: NDArray[np.bool_]) -> int:
    """Position behind the last that is there."""
    return len(there) - int(there[::-1].argmax()) if there.any() else 0
