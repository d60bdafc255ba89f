"""The small arrays: labels of axes, frequencies, columns of the track table, and extents of chunks, in blocks.

Conventions
-----------
A block is a chunk of zarr: little-endian bytes or ``vlen-utf8``, then zstd, then the CRC-32C.

References
----------
Zarr version 3 specification, codecs "bytes", "zstd" and "crc32c"; "vlen-utf8" as registered in zarr-extensions.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numcodecs.vlen import VLenUTF8
from numcodecs.zstd import Zstd
from numpy.typing import NDArray

from norbert_store._format.layout import ceil_div
from norbert_store._format.shard import with_checksum, without_checksum
from norbert_store.errors import DamagedError, TrackError

LARGEST_BLOCK_BYTES = 64 * 2**20
LONGEST_TEXT = 2**20  # in UTF-8, bytes
_ZSTD_LEVEL = 3

Metadata = Mapping[str, Any]
"""The ``zarr.json`` of an array."""

# ---- documents


def group_document() -> dict[str, Any]:
    """Return the ``zarr.json`` of a plain group."""
    return {"zarr_format": 3, "node_type": "group", "attributes": {}}


def array_document(
    shape: Sequence[int],
    data_type: str,
    fill_value: Any,
    dimensions: Sequence[str],
    block: Sequence[int] | None = None,
) -> dict[str, Any]:
    """Return the ``zarr.json`` of a small array, in blocks of some shape or in one."""
    first: dict[str, Any] = {"name": "bytes"}
    if data_type == "string":
        first = {"name": "vlen-utf8", "configuration": {}}
    elif data_type not in ("bool", "int8"):
        first = {"name": "bytes", "configuration": {"endian": "little"}}
    zstd = {"name": "zstd", "configuration": {"level": _ZSTD_LEVEL, "checksum": False}}
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(shape),
        "data_type": data_type,
        "chunk_grid": regular_grid([max(1, size) for size in (shape if block is None else block)]),
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": fill_value,
        "codecs": [first, zstd, {"name": "crc32c"}],
        "attributes": {},
        "dimension_names": list(dimensions),
        "storage_transformers": [],
    }


def regular_grid(chunk_shape: Sequence[int]) -> dict[str, Any]:
    """Return a chunk grid of zarr."""
    return {"name": "regular", "configuration": {"chunk_shape": list(chunk_shape)}}


def json_bytes(document: Mapping[str, Any]) -> bytes:
    """Write a document; NaN only as the text that zarr uses for it."""
    return json.dumps(document, indent=2, allow_nan=False, ensure_ascii=False).encode()


# ---- blocks


def block_shape(metadata: Metadata) -> tuple[int, ...]:
    """Shape of a block."""
    return tuple(metadata["chunk_grid"]["configuration"]["chunk_shape"])


def block_counts(metadata: Metadata) -> list[int]:
    """Number of blocks along each axis."""
    return [ceil_div(size, length) for size, length in zip(metadata["shape"], block_shape(metadata), strict=True)]


def blocks_of(metadata: Metadata) -> Iterator[tuple[int, ...]]:
    """Positions of all blocks, in C order."""
    return itertools.product(*map(range, block_counts(metadata)))


def block_number(metadata: Metadata, block: Sequence[int]) -> int:
    """Count the blocks before one, in C order."""
    number = 0
    for count, position in zip(block_counts(metadata), block, strict=True):
        number = number * count + position
    return number


def block_key(path: str, block: Sequence[int]) -> str:
    """Key of a block, by its position along each axis."""
    return "/".join([path, "c", *map(str, block)])


def valid_part(metadata: Metadata, block: Sequence[int], values: NDArray[Any]) -> NDArray[Any]:
    """Cut a block down to what of it lies within the array; what is cut off doesn't stay in memory."""
    sizes = zip(metadata["shape"], block_shape(metadata), block, strict=True)
    valid = values[tuple(slice(0, max(0, size - number * length)) for size, length, number in sizes)]
    return valid.copy() if 2 * valid.size < values.size else valid


def encode_block(metadata: Metadata, values: NDArray[Any]) -> bytes:
    """Encode the values of one block; what is missing at its end gets the fill value."""
    fill_value = float(metadata["fill_value"]) if metadata["data_type"] == "float64" else metadata["fill_value"]
    whole = np.full(block_shape(metadata), fill_value, _numpy_type(metadata))
    whole[tuple(map(slice, values.shape))] = values
    body = VLenUTF8().encode(whole.ravel()) if whole.dtype == object else whole.tobytes()
    if len(body) > LARGEST_BLOCK_BYTES:
        raise TrackError(
            f"a block of the track table takes at most {LARGEST_BLOCK_BYTES} bytes, found {len(body)}: labels, sources "
            "or metadata of its tracks are too long"
        )
    return with_checksum(Zstd(level=_ZSTD_LEVEL).encode(body))


def decoded_bytes(metadata: Metadata, values: NDArray[Any] | None = None) -> int:
    """Bytes that a block decodes to, with some values at its beginning or none: this is what readers bound."""
    count, data_type = math.prod(block_shape(metadata)), _numpy_type(metadata)
    if not data_type.hasobject:
        return count * data_type.itemsize
    texts = [] if values is None else values.ravel().tolist()
    filled = (count - len(texts)) * len(metadata["fill_value"].encode())
    return 4 + 4 * count + sum(len(str(text).encode()) for text in texts) + filled


def decode_block(metadata: Metadata, data: bytes) -> NDArray[Any]:
    """Decode a block whole; text as objects.

    Through zarr, a million names take four times as long.

    Raises
    ------
    DamagedError
        If it can't be decoded, or is larger than the metadata says.
    """
    compressed, shape, data_type = without_checksum(data), block_shape(metadata), _numpy_type(metadata)
    size = _decoded_bytes(compressed)
    most = LARGEST_BLOCK_BYTES
    if not data_type.hasobject:
        most = min(most, math.prod(shape) * data_type.itemsize)
    if size is None or size > most:
        raise DamagedError(f"it says that it decodes to {size} bytes; a block of this array has at most {most}")
    values = np.empty(size, np.uint8)
    try:
        # what is behind the first frame would get memory as well, if it weren't told where to go
        Zstd().decode(compressed, out=values)
        if not data_type.hasobject:
            values.flags.writeable = False  # it is remembered
            return values.view(data_type).reshape(shape)
        count = int.from_bytes(values[:4].tobytes(), "little")
        if count != math.prod(shape):  # the decoder makes room for as many as it says
            raise DamagedError(f"it says that it holds {count} texts; expected {math.prod(shape)}")
        texts = VLenUTF8().decode(values)
        if len(values) > LONGEST_TEXT and (longest := max(map(len, texts))) > LONGEST_TEXT:
            raise DamagedError(f"it holds a text of {longest} characters; a text has at most {LONGEST_TEXT} bytes")
        return texts.reshape(shape)
    except (RuntimeError, ValueError) as error:  # as zstd, vlen-utf8 and NumPy tell of bytes that don't fit
        raise DamagedError(f"it can't be decoded to the {size} bytes that it says: {error}") from error


def nothing(metadata: Metadata) -> NDArray[Any]:
    """Return the values of an array that holds none."""
    return np.zeros(metadata["shape"], _numpy_type(metadata))


def _numpy_type(metadata: Metadata) -> np.dtype[Any]:
    data_type = metadata["data_type"]
    return np.dtype(object) if data_type == "string" else np.dtype(data_type).newbyteorder("<")


def _decoded_bytes(compressed: bytes) -> int | None:
    """Read how many bytes a zstd frame decodes to (RFC 8878, 3.1.1.1); None if it doesn't say, or is none."""
    if compressed[:4] != b"\x28\xb5\x2f\xfd" or len(compressed) < 5:
        return None
    descriptor = compressed[4]
    single_segment = descriptor >> 5 & 1
    size_bytes = (single_segment, 2, 4, 8)[descriptor >> 6]
    begin = 5 + (1 - single_segment) + (0, 1, 2, 4)[descriptor & 3]
    if size_bytes == 0 or len(compressed) < begin + size_bytes:
        return None
    return int.from_bytes(compressed[begin : begin + size_bytes], "little") + (256 if size_bytes == 2 else 0)
