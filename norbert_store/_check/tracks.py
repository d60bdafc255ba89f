"""What is wrong with a store's track table; and what it says of whose each chunk is."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from norbert_store._check.fault import Fault, problem_of
from norbert_store._format.arrays import block_key
from norbert_store._format.document import Document
from norbert_store._format.table import TRACK_GROUP
from norbert_store._read.frames import Reader
from norbert_store._spectra.bins import LinearBins, MelBands, StoredTransform
from norbert_store._store import Store
from norbert_store.errors import DamagedError, StorageError

NOBODY = -1
_FAR = 2**60


@dataclass(frozen=True)
class Rows:
    """What the track table says of where tracks lie, in chunks along the packed axis.

    Attributes
    ----------
    document : Document
    first, stop : ndarray of int
        First chunk of each row's track, and the one after its last, both within the packed axis: what lies beyond it is
        a fault of the table, and may be no end of chunks.
    present : ndarray of bool
        (rows, targets)
    """

    document: Document
    first: NDArray[np.int64]
    stop: NDArray[np.int64]
    present: NDArray[np.bool_]

    @classmethod
    def read(cls, reader: Reader) -> Rows:
        """Read the columns that tell."""
        start, frames, size = reader.column("start"), reader.column("frames"), reader.layout.chunk_frames
        end = reader.layout.chunks(reader.document.frames)
        first = (start // size).clip(0, end)
        stop = (start // size + np.minimum(-(-frames // size), end)).clip(0, end)  # larger sums would wrap around
        return cls(reader.document, first, stop, reader.column("present"))

    def shards(self, rows: Sequence[int] | slice = slice(None)) -> list[int]:
        """Positions along the packed axis of all shards that tracks (all, or those of some rows) have a part in."""
        chunks, first, stop = self.document.layout.shard_chunks, self.first[rows], self.stop[rows]
        there = stop > first
        spans = zip((first[there] // chunks).tolist(), (-(-stop[there] // chunks)).tolist(), strict=True)
        return sorted({shard for begin, end in spans for shard in range(begin, end)})

    def owners(self, shard: int) -> NDArray[np.int64]:
        """For each chunk of a shard, the row of the track that it belongs to; -1 where it is nobody's."""
        chunks = self.document.layout.shard_chunks
        begin, end = shard * chunks, (shard + 1) * chunks
        owners = np.full(chunks, NOBODY, np.int64)
        order, first, furthest = self._by_place
        for row in order[np.searchsorted(furthest, begin, "right") : np.searchsorted(first, end)]:
            owners[max(self.first[row] - begin, 0) : max(self.stop[row] - begin, 0)] = row
        return owners

    @cached_property
    def _by_place(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Rows by their first chunk, those chunks, and how far any track up to that row reaches."""
        order = np.argsort(self.first, kind="stable")
        return order, self.first[order], np.maximum.accumulate(self.stop[order])

    def expected(self, owners: NDArray[np.int64], target: int) -> NDArray[np.bool_]:
        """For each chunk, by its owner, whether it must be there."""
        expected: NDArray[np.bool_] = self._present_and_nobody[owners, target]
        return expected

    @cached_property
    def _present_and_nobody(self) -> NDArray[np.bool_]:
        """The column ``present``, and at its end, which is at position -1, what nobody owns."""
        return np.concatenate([self.present, np.zeros((1, self.present.shape[1]), np.bool_)])


def row_key(reader: Reader, column: str, row: int) -> str:
    """Key of the chunk of a column that holds a row."""
    path = f"{TRACK_GROUP}/{column}"
    return block_key(path, reader.document.arrays()[path], reader.layout.block_of(row)[0])


def column_faults(reader: Reader) -> Iterator[Fault]:
    """Chunks of the track table that can't be read, and metadata that isn't JSON."""
    for column in reader.document.columns:
        for first in range(0, reader.document.tracks, reader.layout.rows):
            key = row_key(reader, column.name, first)
            try:
                cells = _cells(reader, column.name, first)
            except (DamagedError, StorageError) as error:
                yield Fault(reader.name, key, problem_of(reader, key, error))
                continue
            if column.name == "metadata":
                for row, text in enumerate(cells, first):
                    if not _is_object(text):
                        yield Fault(reader.name, key, f"the metadata of row {row} isn't a JSON object")


def _cells(reader: Reader, column: str, first: int) -> list[Any]:
    """Read the chunk of a column that begins at a row; not remembered: a million rows take hundreds of megabytes."""
    return list(reader.column_part(column, reader.layout.block_of(first)[0]))


def _is_object(text: str) -> bool:
    try:
        return text == "{}" or isinstance(json.loads(text), dict)
    except ValueError:
        return False


def name_faults(reader: Reader) -> Iterator[Fault]:
    """Names that stand more than once."""
    tracks = reader.document.tracks
    hashes = np.empty(tracks, np.int64)  # in place of the names, which are many and long
    for first in range(0, tracks, reader.layout.rows):
        hashes[first : first + reader.layout.rows] = [hash(name) for name in _cells(reader, "name", first)]
    order = np.argsort(hashes, kind="stable")
    again = np.flatnonzero(np.diff(hashes[order]) == 0)
    rows_of_name: dict[str, list[int]] = {}
    for row in np.union1d(order[again], order[again + 1]).tolist():
        rows_of_name.setdefault(reader.cell("name", row), []).append(row)
    for name, rows in rows_of_name.items():
        if len(rows) > 1:
            yield Fault(reader.name, row_key(reader, "name", rows[0]), f"{len(rows)} tracks are named {name!r}")


def place_faults(reader: Reader) -> Iterator[Fault]:
    """Tracks that overlap, leave the packed axis, or begin within a chunk."""
    size, end = reader.layout.chunk_frames, reader.document.frames
    starts, frames = reader.column("start"), reader.column("frames")
    order = np.argsort(starts, kind="stable")
    stops = starts.clip(-_FAR, _FAR) + -(-frames.clip(-_FAR, _FAR) // size) * size  # larger sums would wrap around
    before = np.concatenate([[0], np.maximum.accumulate(stops[order])])[:-1]
    before[order] = before.copy()
    wrong = (frames < 1) | (starts % size != 0) | (starts < before) | (stops > end)
    for row in np.flatnonzero(wrong).tolist():
        start, length = int(starts[row]), int(frames[row])
        problem = (
            f"it lies at frames {start} to {start + length}; expected it at a chunk's beginning, after frame "
            f"{before[row]} and before {end}"
        )
        yield Fault(reader.name, row_key(reader, "start", row), problem, reader.cell("name", row))


def length_faults(reader: Reader) -> Iterator[Fault]:
    """Tracks whose spectrogram is longer or shorter than that of their audio."""
    transform = _transform(reader)
    if not isinstance(transform, LinearBins | MelBands):
        return
    for row, (length, found) in enumerate(zip(reader.column("samples"), reader.column("frames"), strict=True)):
        expected = transform.stft.frame_count(int(length))
        if found != expected:
            problem = f"it has {found} frames; its {length} samples give {expected}"
            yield Fault(reader.name, row_key(reader, "frames", row), problem, reader.cell("name", row))


def _transform(reader: Reader) -> StoredTransform | None:
    try:
        return Store(reader).transform
    except DamagedError:  # of /frequency, by which magnitudes that were computed elsewhere are described
        return None
