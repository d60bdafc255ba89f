"""Faults of a store's track table; and which track each chunk belongs to, by that table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from norbert_store._check.report import Fault, problem_of
from norbert_store._format.arrays import block_key, blocks_of
from norbert_store._format.document import EXTENT, Document
from norbert_store._format.layout import MOST_FRAMES
from norbert_store._format.table import BY_TARGET, LABEL_GROUP, TRACK_GROUP, metadata_of
from norbert_store._lazy import lazy
from norbert_store._read.snapshot import Snapshot
from norbert_store._spectra.bins import LinearBins, MelBands, StoredTransform
from norbert_store._text import shown
from norbert_store.errors import DamagedError, StorageError

NOBODY = -1
_FAR = 2**60


@dataclass(frozen=True)
class Rows:
    """Where tracks lie, by the track table, in chunks along the packed axis.

    Attributes
    ----------
    document : Document
    first, stop : ndarray of int
        First chunk of each row's track, and the one after its last, both cut off at the end of the packed axis: a
        damaged table may claim any number of chunks beyond it.
    frames : ndarray of int
        Length of each row's track.
    present : ndarray of bool
        (rows, targets)
    scale : ndarray of int
        (rows, targets)
    """

    document: Document
    first: NDArray[np.int64]
    stop: NDArray[np.int64]
    frames: NDArray[np.int64]
    present: NDArray[np.bool_]
    scale: NDArray[np.int16]

    @classmethod
    def read(cls, snapshot: Snapshot) -> Rows:
        """Read the columns."""
        layout, start, frames = snapshot.layout, snapshot.column("start"), snapshot.column("frames")
        end = layout.chunks(snapshot.document.frames)
        first = layout.chunk_of(start).clip(0, end)
        # larger sums would wrap around
        stop = (layout.chunk_of(start) + np.minimum(layout.chunks(frames), end)).clip(0, end)
        stop = np.where(frames > MOST_FRAMES, first, stop)
        return cls(snapshot.document, first, stop, frames, snapshot.column("present"), snapshot.column("scale"))

    def some(self, rows: NDArray[np.int64]) -> Rows:
        """Return these for some rows alone, numbered from 0."""
        return Rows(
            self.document, self.first[rows], self.stop[rows], self.frames[rows], self.present[rows], self.scale[rows]
        )

    def shards(self, rows: Sequence[int] | slice = slice(None)) -> list[range]:
        """Positions along the packed axis of all shards that tracks (all, or those of some rows) lie in."""
        layout, first, stop = self.document.layout, self.first[rows], self.stop[rows]
        there = stop > first
        spans = zip(layout.shard_of(first[there]).tolist(), layout.shards(stop[there]).tolist(), strict=True)
        found: list[range] = []
        for begin, end in sorted(spans):
            if found and begin <= found[-1].stop:
                found[-1] = range(found[-1].start, max(end, found[-1].stop))
            else:
                found.append(range(begin, end))
        return found

    def owners(self, shard: int) -> NDArray[np.int64]:
        """For each chunk of a shard, the row of the track that it belongs to; -1 where it belongs to none."""
        layout = self.document.layout
        begin, end = layout.first_chunk(shard), layout.first_chunk(shard + 1)
        owners = np.full(layout.shard_chunks, NOBODY, np.int64)
        order, first, furthest = self._by_place
        for row in order[np.searchsorted(furthest, begin, "right") : np.searchsorted(first, end)]:
            owners[max(self.first[row] - begin, 0) : max(self.stop[row] - begin, 0)] = row
        return owners

    @lazy
    def _by_place(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Rows in the order of their first chunks, those chunks, and the furthest end of all tracks up to each."""
        order = np.argsort(self.first, kind="stable")
        return order, self.first[order], np.maximum.accumulate(self.stop[order])

    def frames_in(self, row: int, chunk: int) -> int:
        """Count the frames of a row's track that lie in a chunk, by its position along the packed axis."""
        size = self.document.layout.chunk_frames
        return int(min(size, self.frames[row] - (chunk - self.first[row]) * size))

    def problem_of(self, row: int, target: int, chunk: int, frames: int, scale: int) -> str | None:
        """Say how a JPEG differs from what the track table says of its chunk; None if it doesn't."""
        expected = self.frames_in(row, chunk)
        if frames != expected:
            return f"the JPEG has {frames} rows; the track has {expected} frames there"
        if scale != self.scale[row, target]:
            return f"the JPEG's scale is {scale}; the track table says {self.scale[row, target]}"
        return None

    def expected(self, owners: NDArray[np.int64], target: int) -> NDArray[np.bool_]:
        """For each chunk, by its owner, whether it must be there."""
        expected: NDArray[np.bool_] = self._present_or_unowned[owners, target]
        return expected

    @lazy
    def _present_or_unowned(self) -> NDArray[np.bool_]:
        """The column ``present``, and at its end, at position -1, False for chunks of no track."""
        return np.concatenate([self.present, np.zeros((1, self.present.shape[1]), np.bool_)])


def row_key(snapshot: Snapshot, column: str, row: int) -> str:
    """Key of the block of a column that holds a row."""
    path = column if column.startswith(f"{LABEL_GROUP}/") else f"{TRACK_GROUP}/{column}"
    block, _ = snapshot.layout.block_of(row)
    return block_key(path, (block, 0) if path in BY_TARGET else (block,))


def column_faults(snapshot: Snapshot) -> Iterator[Fault]:
    """Blocks of the track table that can't be read, and metadata that isn't JSON."""
    for column in snapshot.document.columns:
        for first in range(0, snapshot.document.tracks, snapshot.layout.rows):
            at = column.path if column.key else column.name
            key = row_key(snapshot, at, first)
            try:
                cells = _cells(snapshot, at, first)
            except (DamagedError, StorageError) as error:
                yield Fault(snapshot.name, key, problem_of(snapshot, error))
                continue
            if at == "metadata":
                for row, text in enumerate(cells, first):
                    if not _is_object(text):
                        yield Fault(snapshot.name, key, f"the metadata of row {row} isn't a JSON object")


def _cells(snapshot: Snapshot, column: str, first: int) -> list[Any]:
    """Read the block of a column that begins at a row; it isn't kept, as a million rows take hundreds of MB."""
    return list(snapshot.column_block(column, snapshot.layout.block_of(first)[0]))


def _is_object(text: str) -> bool:
    try:
        return text == "{}" or metadata_of(text) is not None
    except DamagedError:
        return False


def name_faults(snapshot: Snapshot) -> Iterator[Fault]:
    """Names that occur more than once."""
    tracks = snapshot.document.tracks
    hashes = np.empty(tracks, np.int64)  # instead of the names, which would take too much memory
    for first in range(0, tracks, snapshot.layout.rows):
        hashes[first : first + snapshot.layout.rows] = [hash(name) for name in _cells(snapshot, "name", first)]
    order = np.argsort(hashes, kind="stable")
    again = np.flatnonzero(np.diff(hashes[order]) == 0)
    rows_of_name: dict[str, list[int]] = {}
    for row in np.union1d(order[again], order[again + 1]).tolist():
        rows_of_name.setdefault(snapshot.cell("name", row), []).append(row)
    for name, rows in rows_of_name.items():
        if len(rows) > 1:
            yield Fault(
                snapshot.name, row_key(snapshot, "name", rows[0]), f"{len(rows)} tracks are named {shown(name)}"
            )


def place_faults(snapshot: Snapshot) -> Iterator[Fault]:
    """Tracks that overlap, leave the packed axis, or begin within a chunk."""
    layout, end = snapshot.layout, snapshot.document.frames
    starts, frames = snapshot.column("start"), snapshot.column("frames")
    order = np.argsort(starts, kind="stable")
    # larger sums would wrap around
    stops = starts.clip(-_FAR, _FAR) + layout.frame_of(layout.chunks(frames.clip(-_FAR, _FAR)))
    before = np.concatenate([[0], np.maximum.accumulate(stops[order])])[:-1]
    before[order] = before.copy()
    wrong = (
        (frames < 1)
        | (starts != layout.frame_of(layout.chunk_of(starts)))
        | (starts < before)
        | (stops > end)
        | (frames > MOST_FRAMES)
    )
    for row in np.flatnonzero(wrong).tolist():
        start, length = int(starts[row]), int(frames[row])
        problem = (
            f"it lies at frames {start} to {start + length}; expected it at a chunk's beginning, after frame "
            f"{before[row]} and before {end}"
        )
        yield Fault(snapshot.name, row_key(snapshot, "start", row), problem, snapshot.cell("name", row))


def length_faults(snapshot: Snapshot) -> Iterator[Fault]:
    """Tracks whose spectrogram is longer or shorter than that of their audio."""
    transform = _transform(snapshot)
    if not isinstance(transform, LinearBins | MelBands):
        return
    for row, (length, found) in enumerate(zip(snapshot.column("samples"), snapshot.column("frames"), strict=True)):
        expected = transform.stft.frame_count(int(length))
        if found != expected:
            problem = f"it has {found} frames; its {length} samples give {expected}"
            yield Fault(snapshot.name, row_key(snapshot, "frames", row), problem, snapshot.cell("name", row))


def _transform(snapshot: Snapshot) -> StoredTransform | None:
    try:
        return snapshot.transform
    except DamagedError:  # of /frequency, by which magnitudes that were computed elsewhere are described
        return None


def extent_faults(snapshot: Snapshot) -> Iterator[Fault]:
    """Blocks of extents that can't be read."""
    for block in blocks_of(snapshot.arrays[EXTENT]):
        try:
            snapshot.read_blocks([(EXTENT, block)])
        except (DamagedError, StorageError) as error:
            yield Fault(snapshot.name, block_key(EXTENT, block), problem_of(snapshot, error))
