"""Lazy xarray objects over the reader: what a selection touches is read when its values are asked for, no more."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
import xarray
from numpy.typing import NDArray
from xarray.backends import BackendArray
from xarray.core import indexing

from norbert_store._format.document import DIMENSIONS
from norbert_store._format.table import SOURCE_BYTES, SOURCE_MODIFIED, Column
from norbert_store._read.frames import Frames, Wanted
from norbert_store._read.snapshot import Snapshot

Values = Literal["magnitude", "levels"]

_OF_FILES = (SOURCE_BYTES, SOURCE_MODIFIED)
_MOST_SHARDS_TOLD = 10_000
_TABLE_DIMENSIONS = ("track", "_target")  # a label may be called "target"
TRACK_DIMENSIONS = ("target", "channel", "time", "frequency")


class _LazyArray(BackendArray):
    """An array that is read when it is indexed, by xarray's `load_async` without holding up an event loop."""

    async def async_getitem(self, key: indexing.ExplicitIndexer) -> Any:
        """Read in another thread."""
        return await asyncio.to_thread(lambda: self[key])  # type: ignore[index]  # which its subclasses have


class LazyFrames(_LazyArray):
    """Frames of the packed axis, as an array (targets, channels, frames, bins) that is read when it is indexed.

    Parameters
    ----------
    frames : Frames
    values : str
        "magnitude" (float32) or "levels" (uint8).
    start, count : int
        Where the frames begin along the packed axis, and how many there are.
    row : int, optional
        Of the track table, if all frames belong to one track.

    Raises
    ------
    ValueError
        If ``values`` is neither.
    """

    def __init__(self, frames: Frames, values: Values, start: int, count: int, row: int | None = None) -> None:
        if values not in get_args(Values):
            raise ValueError(f"values must be {' or '.join(map(repr, get_args(Values)))}, found {values!r}")
        document = frames.snapshot.document
        self.shape = (len(document.targets), len(document.channels), count, document.layout.bins)
        self.dtype = np.dtype(np.float32 if values == "magnitude" else np.uint8)
        self._frames, self._values, self._start, self._row = frames, values, start, row

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._read)

    def _read(self, key: tuple[Any, ...]) -> NDArray[Any]:
        targets, channels, frames = (_positions(k, size) for k, size in zip(key[:3], self.shape[:3], strict=True))
        # a chunk is decoded whole anyhow, so single bins are picked from what was read; xarray gives rising slices
        bins = key[3] if isinstance(key[3], slice) else slice(None)
        read = self._frames.magnitude if self._values == "magnitude" else self._frames.levels
        values = read(Wanted(targets.tolist(), channels.tolist(), self._start + frames, bins, self._row))
        if not isinstance(key[3], slice):
            values = values[..., np.asarray(key[3])]
        drop = tuple(0 if isinstance(k, int | np.integer) else slice(None) for k in key[:3])
        return values[drop]

    def preferred_chunks(self) -> dict[str, int | tuple[int, ...]]:
        """Chunk sizes for dask, by axis: whole shards of one target; of very many, as long as shards."""
        layout = self._frames.snapshot.layout
        if layout.shards(self.shape[2]) > _MOST_SHARDS_TOLD or layout.is_shard_edge(self._start):
            return self._chunks(layout.shard_frames)
        inner = layout.shard_edges(self._start, self.shape[2]) - self._start
        bounds = np.unique(np.concatenate(([0], inner, [self.shape[2]])))
        return self._chunks(tuple(np.diff(bounds).tolist()) or (0,))

    def _chunks(self, time: int | tuple[int, ...]) -> dict[str, int | tuple[int, ...]]:
        return {"target": 1, "channel": self.shape[1], "time": time, "frequency": self.shape[3]}


class LazyScales(_LazyArray):
    """The scale of each frame of the packed axis, (targets, frames), int16, read when it is indexed; 0 between tracks.

    Parameters
    ----------
    snapshot : Snapshot
    """

    def __init__(self, snapshot: Snapshot) -> None:
        self.shape = (len(snapshot.document.targets), snapshot.document.frames)
        self.dtype = np.dtype(np.int16)
        self._snapshot = snapshot

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._read)

    def _read(self, key: tuple[Any, ...]) -> NDArray[Any]:
        targets, frames = (_positions(k, size) for k, size in zip(key, self.shape, strict=True))
        columns = self._snapshot.columns(("start", "frames", "scale"))
        starts, lengths = columns["start"], columns["frames"]
        if not len(starts):
            return np.zeros((len(targets), len(frames)), self.dtype)
        rows = np.searchsorted(starts, frames, side="right") - 1
        there = (rows >= 0) & (frames < starts[rows] + lengths[rows])
        scales = np.where(there, columns["scale"][rows][:, targets].T, 0).astype(self.dtype)
        return scales[tuple(0 if isinstance(k, int | np.integer) else slice(None) for k in key)]


class LazyColumn(_LazyArray):
    """A column of the track table (tracks, ...), read when it is indexed.

    Parameters
    ----------
    snapshot : Snapshot
    column : Column
    rows : ndarray of int, optional
        Those of the table that it holds, in order; all of them if left out.
    """

    def __init__(self, snapshot: Snapshot, column: Column, rows: NDArray[np.int64] | None = None) -> None:
        of_each = (len(snapshot.document.targets),) if column.by_target else ()
        self.shape = (snapshot.document.tracks if rows is None else len(rows), *of_each)
        # of labels with gaps, whole numbers and truth values become floats or objects when they are read
        may_change = bool(column.key) and column.type in ("int64", "bool")
        self.dtype = np.dtype(object if column.data_type == "string" or may_change else column.data_type)
        self._snapshot, self._column, self._rows = snapshot, column, rows

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER_1VECTOR, self._read)

    def _read(self, key: tuple[Any, ...]) -> Any:
        return column_values(self._snapshot, self._column, self._rows).astype(self.dtype, copy=False)[key]


def column_values(snapshot: Snapshot, column: Column, rows: NDArray[np.int64] | None = None) -> NDArray[Any]:
    """Read a column as people want it: labels with gaps as floats with NaN, or as objects with None."""
    stored = snapshot.column(column.path if column.key else column.name)
    return column.values(stored if rows is None else stored[rows])


def table_dataset(snapshot: Snapshot, rows: NDArray[np.int64] | None = None) -> xarray.Dataset:
    """Return the track table: one row a track; lazy, unless it is short.

    What the store itself keeps besides name and split begins with "_"; what it remembers of files, for a later export,
    isn't there.
    """
    document = snapshot.document
    columns = {_public_name(column): column for column in document.columns if column.path not in _OF_FILES}
    coordinates = {_TABLE_DIMENSIONS[1]: list(document.targets)}
    if document.tracks > document.layout.rows:
        arrays = {name: LazyColumn(snapshot, column, rows) for name, column in columns.items()}
        variables = {
            name: xarray.Variable(_TABLE_DIMENSIONS[: len(array.shape)], indexing.LazilyIndexedArray(array))
            for name, array in arrays.items()
        }
        return xarray.Dataset(variables, coords=coordinates)
    snapshot.columns([column.path if column.key else column.name for column in columns.values()])  # all at once
    values = {name: column_values(snapshot, column, rows) for name, column in columns.items()}
    return xarray.Dataset(
        {name: (_TABLE_DIMENSIONS[: array.ndim], array) for name, array in values.items()}, coords=coordinates
    )


def _public_name(column: Column) -> str:
    return column.name if column.key or column.name in ("name", "split") else f"_{column.name}"


def lazy_dataset(
    array: LazyFrames, dimensions: Sequence[str], coordinates: dict[str, Any], values: Values
) -> xarray.Dataset:
    """Put a lazy array and its coordinates into a data set of one variable, named for its values."""
    chunks = array.preferred_chunks()
    variable = xarray.Variable(
        dimensions,
        indexing.LazilyIndexedArray(array),
        encoding={"preferred_chunks": dict(zip(dimensions, chunks.values(), strict=True))},
    )
    return xarray.Dataset({values: variable}, coords=coordinates)


def packed_dataset(frames: Frames, values: Values) -> xarray.Dataset:
    """All tracks along one packed axis (target, channel, frame, frequency)."""
    document = frames.snapshot.document
    coordinates = {
        "target": list(document.targets),
        "channel": list(document.channels),
        "frequency": frames.snapshot.transform.frequencies,
    }
    if values == "levels":
        scales = indexing.LazilyIndexedArray(LazyScales(frames.snapshot))
        coordinates["scale"] = xarray.Variable((DIMENSIONS[0], DIMENSIONS[2]), scales)
    return lazy_dataset(LazyFrames(frames, values, 0, document.frames), DIMENSIONS, coordinates, values)


def _positions(key: Any, size: int) -> NDArray[np.int64]:
    if isinstance(key, slice):
        return np.arange(*key.indices(size))
    return np.atleast_1d(np.asarray(key, dtype=np.int64))
