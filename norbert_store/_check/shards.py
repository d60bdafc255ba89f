"""What is wrong with a store's shards: their indexes, and every chunk's presence, checksum, header and decoding.

Shards are read in long runs by as many threads as there are processors, each of which holds one run at a time.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import chain
from operator import itemgetter
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from norbert_store._check.report import Fault, problem_of
from norbert_store._check.tracks import NOBODY, Rows
from norbert_store._format.document import EXTENT_PARTS
from norbert_store._format.layout import shard_key
from norbert_store._format.shard import (
    ChunkPlace,
    ShardIndex,
    checksum_matches,
    index_bytes,
    without_checksum,
)
from norbert_store._jpeg import stream
from norbert_store._jpeg.rows import RowDecoder
from norbert_store._read.snapshot import Snapshot
from norbert_store.errors import DamagedError, JpegError, StorageError

OnProgress = Callable[[int, int], None]

# what all threads together hold of shards, and the most that one of them reads at a time
_BUFFER_BYTES = 32 << 20
_RUN_BYTES = 4 << 20
_AHEAD = 4
_PROGRESS_SECONDS = 0.1
MOST_CHUNK_FAULTS = 10_000

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

_Ordered = tuple[tuple[int, int, int, int], Fault]
"""A fault, and what it is ordered by: shard, target, chunk, channel."""

_Spans = dict[tuple[int, int, int], list[ChunkPlace]]
"""By offset and length in bytes, and checksum: the places (channel, chunk within the shard) that name these bytes."""


def shard_faults(
    snapshot: Snapshot, rows: Rows, shards: Sequence[range], decode: bool, workers: int, on_progress: OnProgress | None
) -> list[Fault]:
    """Check the shards of all targets at some positions; see `norbert_store._check.verify.verify`."""
    check = _ShardCheck(snapshot, rows, decode, min(_RUN_BYTES, _BUFFER_BYTES // workers))
    files, done, told = sum(map(len, shards)) * len(snapshot.document.targets), 0, 0.0
    faults: list[_Ordered] = []
    with ThreadPoolExecutor(workers) as pool:
        targets = range(len(snapshot.document.targets))
        places = ((target, shard) for shard in chain.from_iterable(shards) for target in targets)
        begun = _in_parallel(pool, check.begin, places, workers)
        read = _in_parallel(pool, check.read, (run for runs in begun for run in runs), workers)
        for run, found in read:
            faults += found
            done += run.last
            if len(faults) >= MOST_CHUNK_FAULTS:
                break
            if on_progress and run.last and (done == files or time.monotonic() - told >= _PROGRESS_SECONDS):
                told = time.monotonic()
                on_progress(done, files)
        read.close()
        begun.close()
    return [fault for _, fault in sorted(faults, key=itemgetter(0))]


def _in_parallel(
    pool: ThreadPoolExecutor, function: Callable[[_Item], _Result], items: Iterable[_Item], workers: int
) -> Generator[_Result, None, None]:
    """Call a function for each item, some items ahead of what is asked for; results come in order."""
    waiting: deque[Future[_Result]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > _AHEAD * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


@dataclass
class _Run:
    """Neighbouring chunks of a shard, which are read at once; or faults that were found before.

    Attributes
    ----------
    target, shard : int
    place : str
        Key of the file that is read.
    owners : ndarray of int
        See `Rows.owners`.
    spans : dict
        In order.
    faults : list
    last : bool
        Whether it is the last of its shard.
    """

    target: int
    shard: int
    place: str
    owners: NDArray[np.int64]
    spans: _Spans = field(default_factory=dict)
    faults: list[_Ordered] = field(default_factory=list)
    last: bool = False

    @property
    def key(self) -> str:
        """Of the shard."""
        return shard_key(self.target, self.shard)


class _ShardCheck:
    """Checks shards, many at a time."""

    def __init__(self, snapshot: Snapshot, rows: Rows, decode: bool, run_bytes: int) -> None:
        self._snapshot = snapshot
        self._storage = snapshot.storage
        self._rows = rows
        self._decode = decode
        self._decoder = RowDecoder(snapshot.layout.chunk_frames, snapshot.layout.bins)
        self._run_bytes = run_bytes
        self._index_bytes = index_bytes(len(snapshot.document.channels), snapshot.layout.shard_chunks)

    def begin(self, at: tuple[int, int]) -> list[_Run]:
        """Check the index of a shard (target, shard), and all of it if it is small; return what is left to be read."""
        target, shard = at
        place = self._snapshot.place_of(shard_key(target, shard))
        first = _Run(target, shard, place, self._rows.owners(shard))
        runs = [first]
        try:
            head = self._storage.get_range(first.place, 0, self._run_bytes)
            index = None if head is None else self._index(first, head)
        except (DamagedError, StorageError) as error:
            first.faults = self._index_faults(first, problem_of(self._snapshot, error))
        else:
            spans = self._compare(first, index)
            if head is not None and len(head) < self._run_bytes:
                first.faults += self._chunk_faults(replace(first, spans=spans), head, 0)
            else:
                runs += [replace(first, spans=some, faults=[]) for some in _split(spans, self._run_bytes)]
        runs[-1].last = True
        return runs

    def _index(self, run: _Run, head: bytes) -> ShardIndex:
        tail, size = head, len(head)
        if size == self._run_bytes:
            tail = self._storage.get_suffix(run.place, self._index_bytes) or b""
            size = self._storage.size(run.place) or 0
        return read_index(self._snapshot, tail, size)

    def read(self, run: _Run) -> tuple[_Run, list[_Ordered]]:
        """Read the chunks of a run, and check them."""
        if not run.spans:
            return run, run.faults
        start = min(offset for offset, _, _ in run.spans)
        stop = max(offset + length for offset, length, _ in run.spans)
        try:
            data = self._storage.get_range(run.place, start, stop - start) or b""
        except StorageError as error:
            problem = problem_of(self._snapshot, error)
            return run, [fault for span in run.spans for fault in self._span_faults(run, span, problem)]
        return run, self._chunk_faults(run, data, start)

    def _index_faults(self, run: _Run, problem: str) -> list[_Ordered]:
        """A fault for each track that can't be read any more."""
        expected = self._rows.expected(run.owners, run.target)
        _, lost = np.unique(np.where(expected, run.owners, NOBODY), return_index=True)
        return [self._fault(run, problem, within) for within in lost.tolist() if expected[within]]

    def _compare(self, run: _Run, index: ShardIndex | None) -> _Spans:
        """Compare index and extents with the track table, and with each other; return what is to be read, in order."""
        shape = (len(run.owners), len(self._snapshot.document.channels))
        extents = self._extents(run)  # (chunks, channels, parts)
        known = extents[..., 1] > 0
        there = np.zeros(shape, np.bool_) if index is None else index.there.T
        expected = np.broadcast_to(self._rows.expected(run.owners, run.target)[:, np.newaxis], shape)
        nobodys = (run.owners == NOBODY)[:, np.newaxis]
        entries = extents[..., :2] if index is None else index.entries.transpose(1, 0, 2)
        elsewhere = there & known & (entries != extents[..., :2]).any(axis=-1)
        missing = "the file is missing" if index is None else "the chunk is missing"
        for problem, wrong in (
            ("the extents have no such chunk", expected & ~known),
            (missing, expected & known & ~there),
            (
                "the chunk is there, but the track table says that the target is absent",
                (there | known) & ~expected & ~nobodys,
            ),
            ("the index of its shard and the extents differ in where it lies", expected & elsewhere),
        ):
            run.faults += [self._fault(run, problem, *place) for place in np.argwhere(wrong).tolist()]
        chunks, channels = np.nonzero(expected & known & there)
        spans: _Spans = {}
        for extent, channel, chunk in zip(
            extents[chunks, channels].tolist(), channels.tolist(), chunks.tolist(), strict=True
        ):
            spans.setdefault(tuple(extent), []).append((channel, chunk))
        return dict(sorted(spans.items()))

    def _extents(self, run: _Run) -> NDArray[np.uint32]:
        """Extents of a shard's chunks, (chunks, channels, parts)."""
        layout, channels = self._snapshot.layout, len(self._snapshot.document.channels)
        extents = np.zeros((layout.shard_chunks, channels, EXTENT_PARTS), np.uint32)
        first, end = layout.first_chunk(run.shard), self._snapshot.document.chunks
        found = self._snapshot.extents(run.target, first, min(layout.first_chunk(run.shard + 1), end))
        extents[: found.shape[-1]] = found.transpose(2, 1, 0)
        return extents

    def _chunk_faults(self, run: _Run, data: bytes, start: int) -> list[_Ordered]:
        """Check the chunks of a run, given what lies from byte ``start`` of the shard on."""
        faults = []
        for offset, length, checksum in run.spans:
            span = offset, length, checksum
            try:
                frames, scale = self._check(data[offset - start : offset - start + length], checksum)
            except (DamagedError, JpegError) as error:
                faults += self._span_faults(run, span, str(error))
                continue
            first_chunk = self._snapshot.layout.first_chunk(run.shard)
            for channel, within in run.spans[span]:
                owner = int(run.owners[within])
                problem = self._rows.problem_of(owner, run.target, first_chunk + within, frames, scale)
                if problem:
                    faults.append(self._fault(run, problem, within, channel, offset))
        return faults

    def _span_faults(self, run: _Run, span: tuple[int, int, int], problem: str) -> list[_Ordered]:
        """A fault for each chunk that names some bytes."""
        return [self._fault(run, problem, within, channel, span[0]) for channel, within in run.spans[span]]

    def _check(self, data: bytes, checksum: int) -> tuple[int, int]:
        """Check a chunk; return its frames and its scale."""
        jpeg, layout = without_checksum(data), self._snapshot.layout
        if not checksum_matches(data, checksum):
            raise DamagedError("the chunk isn't that of this state of the store: its checksum is another one")
        if self._decode:
            rows = self._decoder.decode(jpeg, 0, layout.chunk_frames)
            return len(rows.levels), rows.scale
        header = stream.check_within(jpeg, (layout.chunk_frames, layout.bins))
        return header.shape[0], header.scale

    def _fault(
        self, run: _Run, problem: str, within: int | None = None, channel: int | None = None, offset: int | None = None
    ) -> _Ordered:
        """Make a fault of a whole shard, of a track's part of it, or of a chunk."""
        document, owner = self._snapshot.document, NOBODY if within is None else int(run.owners[within])
        fault = Fault(
            self._snapshot.name,
            run.key,
            problem,
            track=None if owner == NOBODY else self._snapshot.cell("name", owner),
            target=document.targets[run.target],
            channel=None if channel is None else document.channels[channel],
            chunk=None if channel is None else document.layout.first_chunk(run.shard) + (within or 0),
            offset=offset,
        )
        return (run.shard, run.target, within or 0, -1 if channel is None else channel), fault


def read_index(snapshot: Snapshot, tail: bytes, size: int) -> ShardIndex:
    """Read a shard's index.

    Parameters
    ----------
    snapshot : Snapshot
    tail : bytes
        What the shard ends with; more than the index will do.
    size : int
        Of the whole shard, bytes.

    Raises
    ------
    DamagedError
        If it is cut short, fails its checksum, or points to where no chunks are.
    """
    channels, chunks = len(snapshot.document.channels), snapshot.layout.shard_chunks
    try:
        return ShardIndex.parse(tail[-index_bytes(channels, chunks) :], channels, chunks, size)
    except DamagedError as error:
        raise DamagedError(f"the index is damaged: {error}") from None


def _split(spans: _Spans, most_bytes: int) -> Iterator[_Spans]:
    """Cut spans, which are in order, into runs of at most ``most_bytes``, or of one span."""
    run: _Spans = {}
    begin = 0
    for (offset, length, checksum), places in spans.items():
        if run and offset + length - begin > most_bytes:
            yield run
            run = {}
        begin = begin if run else offset
        run[offset, length, checksum] = places
    if run:
        yield run
