"""Stores that are wrong though all checksums fit, as a writer with a bug would leave them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from norbert_store._format.arrays import block_key, encode_block
from norbert_store._format.document import EXTENT, Document
from norbert_store._format.layout import shard_key
from norbert_store._format.shard import ChunkPlace, pack


def seal(store: Path, path: str, block: tuple[int, ...], change: Callable[[np.ndarray], None]) -> None:
    """Change a block of a small array, and the checksums that tell of it."""
    root, file = store / "zarr.json", store / block_key(path, block)
    document = Document.from_json(root.read_bytes(), str(store))
    values = document.check_block(path, block, file.read_bytes()).copy()
    change(values)
    file.write_bytes(encode_block(document.arrays()[path], values))
    root.write_bytes(document.with_blocks({(path, block): values}).to_json())


@pytest.fixture(name="seal")
def seal_fixture() -> Callable[..., None]:
    """Change a block of a small array, and the checksums that tell of it."""
    return seal


@pytest.fixture
def set_cell() -> Callable[[Path, str, Any, Any], None]:
    """Write a cell of a column."""

    def write(store: Path, column: str, row: Any, value: Any) -> None:
        def change(values: np.ndarray) -> None:
            values[row] = value

        seal(store, f"track/{column}", (0, 0) if column in ("present", "scale") else (0,), change)

    return write


@pytest.fixture
def set_shard() -> Callable[[Path, int, int, Mapping[ChunkPlace, bytes]], None]:
    """Write a shard of other chunks, and their extents."""

    def write(store: Path, target: int, number: int, chunks: Mapping[ChunkPlace, bytes]) -> None:
        document = Document.from_json((store / "zarr.json").read_bytes(), str(store))
        layout = document.layout
        data, extents = pack(chunks, len(document.channels), layout.shard_chunks)
        (store / shard_key(target, number)).write_bytes(data)
        first, stop = layout.first_chunk(number), min(layout.first_chunk(number + 1), document.chunks)

        def change(values: np.ndarray) -> None:
            values[0, :, :, first:stop] = extents[..., : stop - first]

        seal(store, EXTENT, (target, 0, 0, 0), change)

    return write
