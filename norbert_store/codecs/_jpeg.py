"""Levels <-> one stored JPEG: uint8 in, bytes out.

Arrays of more dimensions than two fold all but the last into rows: (1, 2, 256, 744) becomes an image of 512 rows and
744 columns. The last axis should be frequency, the one before it time.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numcodecs.abc import Codec
from numcodecs.compat import ensure_ndarray
from numpy.typing import NDArray
from zarr.abc.codec import ArrayBytesCodec

from norbert_store._jpeg import stream
from norbert_store._jpeg.encoder import DEFAULT_QUALITY, check_quality, encode, quantisation_table
from norbert_store.codecs._configuration import from_configuration

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
        From 0 to 100, see `norbert_store._jpeg.encoder`. Only encoding needs it.

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
    """Levels to a baseline grey JPEG and back, for zarr v3: a serializer of uint8.

    Parameters
    ----------
    quality : float
        As for `Jpeg`.

    Examples
    --------
    >>> ZarrJpeg(quality=90).to_dict()
    {'name': 'norbert_store.jpeg', 'configuration': {'quality': 90.0}}
    """

    quality: float = DEFAULT_QUALITY

    is_fixed_size = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "quality", check_quality(self.quality))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Build the codec from an entry of ``codecs`` in zarr.json."""
        return from_configuration(cls, data.get("configuration", {}))

    def to_dict(self) -> dict[str, Any]:
        """Return the entry of ``codecs`` in zarr.json."""
        return {"name": ZARR_NAME, "configuration": {"quality": self.quality}}

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: ArraySpec) -> int:
        """A JPEG's size isn't known beforehand."""
        raise NotImplementedError

    def _encode_sync(self, chunk_data: NDBuffer, chunk_spec: ArraySpec) -> Buffer:
        levels = chunk_data.as_numpy_array().reshape(image_shape(chunk_spec.shape))
        return chunk_spec.prototype.buffer.from_bytes(encode(levels, quantisation_table(self.quality)))

    def _decode_sync(self, chunk_data: Buffer, chunk_spec: ArraySpec) -> NDBuffer:
        levels = np.empty(chunk_spec.shape, np.uint8)
        stream.decode(chunk_data.to_bytes(), levels.reshape(image_shape(chunk_spec.shape)))
        return chunk_spec.prototype.nd_buffer.from_numpy_array(levels)

    async def _encode_single(self, chunk_data: NDBuffer, chunk_spec: ArraySpec) -> Buffer:
        return await asyncio.to_thread(self._encode_sync, chunk_data, chunk_spec)

    async def _decode_single(self, chunk_data: Buffer, chunk_spec: ArraySpec) -> NDBuffer:
        return await asyncio.to_thread(self._decode_sync, chunk_data, chunk_spec)
