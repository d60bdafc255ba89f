"""The small arrays: labels of axes, frequencies, and columns of the track table, in blocks along their first axis.

Conventions
-----------
A block holds all of an array along every axis but the first. It is little-endian bytes or ``vlen-utf8``, then zstd,
then the CRC-32C.

References
----------
Zarr version 3 specification, codecs "bytes", "zstd" and "crc32c"; "vlen-utf8" as registered in zarr-extensions.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import zarr
from numcodecs.vlen import VLenUTF8
from numcodecs.zstd import Zstd
from numpy.typing import NDArray
from zarr.abc.store import Store
from zarr.core.array_spec import ArrayConfig
from zarr.core.metadata.v3 import ArrayV3Metadata
from zarr.storage import MemoryStore, StorePath

from norbert_store._format.shard import without_checksum
from norbert_store.errors import DamagedError

Metadata = Mapping[str, Any]
"""The ``zarr.json`` of an array."""

MOST_BLOCK_BYTES = 256 * 2**20

# ---- documents


def group_document() -> dict[str, Any]:
    """Return the ``zarr.json`` of a plain group."""
    return {"zarr_format": 3, "node_type": "group", "attributes": {}}


def array_document(
    shape: Sequence[int], data_type: str, fill_value: Any, dimensions: Sequence[str], rows_per_block: int | None = None
) -> dict[str, Any]:
    """Return the ``zarr.json`` of a small array: one block, or blocks of so many rows."""
    chunk = [max(1, size) for size in shape]
    if rows_per_block is not None:
        chunk[0] = rows_per_block
    first: dict[str, Any] = {"name": "bytes"}
    if data_type == "string":
        first = {"name": "vlen-utf8", "configuration": {}}
    elif data_type != "bool":
        first = {"name": "bytes", "configuration": {"endian": "little"}}
    zstd = {"name": "zstd", "configuration": {"level": 3, "checksum": False}}
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(shape),
        "data_type": data_type,
        "chunk_grid": regular_grid(chunk),
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


def block_key(path: str, metadata: Metadata, block: int = 0) -> str:
    """Key of a block."""
    return "/".join([path, "c", str(block), *["0"] * (len(metadata["shape"]) - 1)])


def encode_block(metadata: Metadata, values: NDArray[Any]) -> bytes:
    """Encode the values of one block; what is missing at its end gets the fill value."""
    shape = [len(values), *metadata["shape"][1:]]
    in_memory = MemoryStore()
    zarr_array(in_memory, "", {**metadata, "shape": shape})[...] = values
    (data,) = (buffer.to_bytes() for buffer in in_memory._store_dict.values())
    return data


def decode_block(metadata: Metadata, data: bytes) -> NDArray[Any]:
    """Decode a block whole; text as objects.

    Through zarr, a million names take four times as long.

    Raises
    ------
    DamagedError
        If it can't be decoded.
    """
    shape, data_type = metadata["chunk_grid"]["configuration"]["chunk_shape"], metadata["data_type"]
    values = without_checksum(data)
    try:
        values = Zstd().decode(values)
        if data_type != "string":
            return np.frombuffer(values, np.dtype(data_type).newbyteorder("<")).reshape(shape)
        count = int.from_bytes(values[:4], "little")
        if count != math.prod(shape):  # the decoder makes room for as many as it says
            raise DamagedError(f"it says that it holds {count} texts; expected {math.prod(shape)}")
        return VLenUTF8().decode(values).reshape(shape)
    except (RuntimeError, ValueError) as error:  # as zstd, vlen-utf8 and NumPy tell of bytes that don't fit
        raise DamagedError(str(error)) from error


def empty_block(metadata: Metadata) -> NDArray[Any]:
    """Return a block of an array that holds nothing."""
    data_type = metadata["data_type"]
    return np.zeros(
        metadata["chunk_grid"]["configuration"]["chunk_shape"], object if data_type == "string" else data_type
    )


def zarr_array(store: Store, path: str, metadata: Metadata) -> zarr.Array[Any]:
    """Return a zarr array by its metadata, without reading its document.

    Blocks that hold nothing but the fill value are written as well, so that one that isn't there is a lost one.
    """
    parsed = ArrayV3Metadata.from_dict(dict(metadata))
    config = ArrayConfig.from_dict({"write_empty_chunks": True})
    return zarr.Array(zarr.AsyncArray(metadata=parsed, store_path=StorePath(store, path), config=config))
