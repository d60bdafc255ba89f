"""Is everything there that a store says it holds, and is it what was written?

Checked are the documents, the coordinates, the track table, of every shard its index, and of every chunk its presence,
checksum, header and decoding. What was written but never committed (files that were begun, shards that no track has a
part in, rows beyond the committed ones, a writer's lock) is no fault.

Shards are read in long runs by as many threads as there are processors, each of which holds one run at a time.
"""

from __future__ import annotations

import json
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from copy import copy
from dataclasses import dataclass, field, replace
from functools import cached_property
from operator import itemgetter
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from norbert_store.errors import DamagedError, JpegError, NorbertStoreError, StorageError
from norbert_store.format.document import MAGNITUDE, ROOT_KEY, TRACK_GROUP, Document, shard_key
from norbert_store.format.shard import (
    PLACE_BYTES,
    ChunkPlace,
    ShardIndex,
    check_place,
    index_bytes,
    pack,
    tail_bytes,
    without_checksum,
)
from norbert_store.format.table import ROWS_PER_CHUNK
from norbert_store.jpeg import stream
from norbert_store.jpeg.rows import RowDecoder
from norbert_store.reader import Reader
from norbert_store.stft import whole_number
from norbert_store.storage import Location
from norbert_store.store import Store
from norbert_store.transform import LinearBins, MelBands, StoredTransform

OnProgress = Callable[[int, int], None]

DROP_KEY = "dropping.json"
"""What `norbert_store.repair` is about to write, as long as it does."""

# columns without which nobody can tell which chunk is whose
_NEEDED = tuple(f"{TRACK_GROUP}/{name}/c/" for name in ("name", "start", "frames", "samples", "present"))
_GROWING = ("track", "frame")
_NOBODY = -1
_FAR = 2**60
_MISSING = np.iinfo(np.uint64).max

# what all threads together hold of shards, and the most that one of them reads at a time
_BUFFER_BYTES = 32 << 20
_RUN_BYTES = 4 << 20
_AHEAD = 4
_PROGRESS_SECONDS = 0.1

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong with a store.

    Attributes
    ----------
    store : str
        Its location.
    key : str
        The file, relative to the store.
    problem : str
        What is wrong with it.
    track, target, channel : str, optional
        What can't be read because of it, as far as that is known.
    chunk : int, optional
        Position along the packed axis.
    offset : int, optional
        Where in the file, bytes.
    """

    store: str
    key: str
    problem: str
    track: str | None = None
    target: str | None = None
    channel: str | None = None
    chunk: int | None = None
    offset: int | None = None

    def __str__(self) -> str:
        labels = {"track": self.track, "target": self.target, "channel": self.channel, "packed chunk": self.chunk}
        places = [f"{what} {label!r}" for what, label in labels.items() if label is not None]
        places.append(self.key if self.offset is None else f"at byte {self.offset} of {self.key}")
        return f"{self.store}: {', '.join(places)}: {self.problem}"


def verify(
    location: Location, *, decode: bool = True, workers: int | None = None, on_progress: OnProgress | None = None
) -> list[Fault]:
    """Check a store, and return all that is wrong with it.

    Parameters
    ----------
    location : str, path or zarr store
    decode : bool
        Whether chunks are decoded as well; checksums and headers are checked in any case.
    workers : int, optional
        Threads; as many as there are processors if left out.
    on_progress : callable, optional
        Called with (files of magnitudes done, all of them), ten times a second at most, and at the end.

    Returns
    -------
    list of Fault
        In the same order however many workers there are; empty where the store is whole.

    Raises
    ------
    StoreNotFoundError
        If there is nothing there.
    FormatError
        If the root's document is damaged, so that the rest can't be found.
    StorageError
        If a server doesn't answer. A local file that can't be read is a fault.

    Examples
    --------
    >>> import norbert_store, zarr
    >>> place = zarr.storage.MemoryStore()
    >>> with norbert_store.create(place, targets=["mixture"], rate=8000, channels=1) as writer:
    ...     _ = writer.add("silence", {"mixture": np.zeros(8000)})
    >>> verify(place)
    []
    """
    threads = (os.cpu_count() or 1) if workers is None else whole_number("workers", workers, at_least=1)
    return faults_of(Reader(location), None, decode, threads, on_progress)


def faults_of(
    reader: Reader, shards: Sequence[int] | None, decode: bool, workers: int, on_progress: OnProgress | None = None
) -> list[Fault]:
    """Check a store as `verify` does, but of the shards only those at some positions, or all of them."""
    faults = [*_cut_off_faults(reader), *_root_faults(reader), *_document_faults(reader), *_coordinate_faults(reader)]
    unreadable = list(_column_faults(reader))
    faults += unreadable
    if any(fault.key.startswith(_NEEDED) for fault in unreadable):
        return faults
    faults += [*_name_faults(reader), *_place_faults(reader), *_length_faults(reader)]
    if reader.layout.codecs is not None:
        return [*faults, *_other_codecs_faults(Store(reader), on_progress)]
    rows = Rows.read(reader)
    numbers = rows.shards() if shards is None else shards
    return faults + _shard_faults(reader, rows, numbers, decode, workers, on_progress)


# ---- documents and coordinates


def _cut_off_faults(reader: Reader) -> Iterator[Fault]:
    if reader.storage.get(DROP_KEY) is not None:
        yield Fault(
            reader.name, DROP_KEY, "tracks were being dropped when a repair was cut off; repair the store again"
        )


def documents(reader: Reader) -> dict[str, dict[str, Any]]:
    """Return the documents of all arrays and groups below the root, by key, as the root's document says them."""
    return _nodes(_root(reader))


def _root(reader: Reader) -> dict[str, Any]:
    return dict(json.loads(reader.storage.get(ROOT_KEY) or b"{}"))


def _nodes(root: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return {f"{path}/{ROOT_KEY}": node for path, node in root["consolidated_metadata"]["metadata"].items()}


def _root_faults(reader: Reader) -> Iterator[Fault]:
    """What only other programs read of the root's document."""
    found, expected = _root(reader), json.loads(reader.document.to_json())
    for part in (found, expected):
        del part["attributes"], part["consolidated_metadata"]["metadata"]
    differing = [key for key, value in expected.items() if found.get(key) != value]
    if differing:
        yield Fault(
            reader.name, ROOT_KEY, f"{', '.join(map(repr, differing))} must be {[*map(expected.get, differing)]}"
        )


def _document_faults(reader: Reader) -> Iterator[Fault]:
    """Every array and group has a document of its own, for programs that don't know consolidated metadata."""
    written = _nodes(json.loads(reader.document.to_json()))
    for key, expected in documents(reader).items():
        try:
            found = reader.storage.get(key)
        except StorageError as error:
            yield Fault(reader.name, key, _problem(reader, key, error))
            continue
        problem = "the file is missing" if found is None else _document_problem(found, expected)
        if problem and found is not None and key in written and _document_problem(found, written[key]) is None:
            yield Fault(reader.name, ROOT_KEY, f"it contradicts itself and {key}")
        elif problem:
            yield Fault(reader.name, key, problem)


def _document_problem(data: bytes, expected: Mapping[str, Any]) -> str | None:
    try:
        found = json.loads(data)
    except ValueError:
        return "the file isn't JSON"
    if not isinstance(found, dict):
        return "the file isn't a JSON object"
    differing = sorted(key for key in {*found, *expected} if found.get(key) != expected.get(key))
    # a session that was cut off has left an old one
    if not differing or (differing == ["shape"] and _is_older(found["shape"], expected)):
        return None
    return f"the root's document says something else about {', '.join(map(repr, differing))}"


def _is_older(shape: Any, expected: Mapping[str, Any]) -> bool:
    """Whether a shape is one that an array had before it grew."""
    sizes = expected["shape"]
    if not isinstance(shape, list) or len(shape) != len(sizes):
        return False
    return all(
        old == new or (name in _GROWING and isinstance(old, int) and 0 <= old <= new)
        for old, new, name in zip(shape, sizes, expected["dimension_names"], strict=True)
    )


def _coordinate_faults(reader: Reader) -> Iterator[Fault]:
    """Labels stand in the attributes, to be read at once, and in arrays, for programs that read zarr."""
    for path, check in _COORDINATES.items():
        key = coordinate_key(path)
        try:
            problem = check(reader.document, reader.coordinate(path))
        except (DamagedError, StorageError) as error:
            problem = _problem(reader, key, error)
        if problem:
            yield Fault(reader.name, key, problem)


def coordinate_key(path: str) -> str:
    """Key of the one chunk of /target, /channel or /frequency."""
    return f"{path}/c/0"


def _labels_problem(found: NDArray[Any], expected: tuple[str, ...]) -> str | None:
    return None if tuple(found) == expected else f"it holds {tuple(found)}, the attributes say {expected}"


def _frequency_problem(found: NDArray[np.float64]) -> str | None:
    ascending = np.isfinite(found).all() and (np.diff(found) > 0).all()
    return None if ascending else "the frequencies aren't in ascending order"


_COORDINATES: dict[str, Callable[[Document, NDArray[Any]], str | None]] = {
    "target": lambda document, found: _labels_problem(found, document.targets),
    "channel": lambda document, found: _labels_problem(found, document.channels),
    "frequency": lambda document, found: _frequency_problem(found),
}


def _problem(reader: Reader, key: str, error: NorbertStoreError) -> str:
    """Say what is wrong with a file, without its name; raises if it isn't the file's fault."""
    if isinstance(error, StorageError) and reader.storage.folder is None:
        raise error
    text = str(error)
    _, found, what = text.partition(f"{key} ")
    return f"the file {what}" if found else text


# ---- the track table


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
        owners = np.full(chunks, _NOBODY, np.int64)
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


def row_key(column: str, row: int) -> str:
    """Key of the chunk of a column that holds a row."""
    return f"{TRACK_GROUP}/{column}/c/{row // ROWS_PER_CHUNK}{'/0' if column == 'present' else ''}"


def _column_faults(reader: Reader) -> Iterator[Fault]:
    """Chunks of the track table that can't be read, and metadata that isn't JSON."""
    for column in reader.document.columns:
        for first in range(0, reader.document.tracks, ROWS_PER_CHUNK):
            key = row_key(column.name, first)
            try:
                cells = _cells(reader, column.name, first)
            except (DamagedError, StorageError) as error:
                yield Fault(reader.name, key, _problem(reader, key, error))
                continue
            if column.name == "metadata":
                for row, text in enumerate(cells, first):
                    if not _is_object(text):
                        yield Fault(reader.name, key, f"the metadata of row {row} isn't a JSON object")


def _cells(reader: Reader, column: str, first: int) -> list[Any]:
    """Read the chunk of a column that begins at a row."""
    apart = copy(reader)  # which is forgotten at once: a million rows take hundreds of megabytes
    return [apart.cell(column, row) for row in range(first, min(first + ROWS_PER_CHUNK, reader.document.tracks))]


def _is_object(text: str) -> bool:
    try:
        return text == "{}" or isinstance(json.loads(text), dict)
    except ValueError:
        return False


def _name_faults(reader: Reader) -> Iterator[Fault]:
    tracks = reader.document.tracks
    hashes = np.empty(tracks, np.int64)  # in place of the names, which are many and long
    for first in range(0, tracks, ROWS_PER_CHUNK):
        hashes[first : first + ROWS_PER_CHUNK] = [hash(name) for name in _cells(reader, "name", first)]
    order = np.argsort(hashes, kind="stable")
    again = np.flatnonzero(np.diff(hashes[order]) == 0)
    rows_of_name: dict[str, list[int]] = {}
    for row in np.union1d(order[again], order[again + 1]).tolist():
        rows_of_name.setdefault(reader.cell("name", row), []).append(row)
    for name, rows in rows_of_name.items():
        if len(rows) > 1:
            yield Fault(reader.name, row_key("name", rows[0]), f"{len(rows)} tracks are named {name!r}")


def _place_faults(reader: Reader) -> Iterator[Fault]:
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
        yield Fault(reader.name, row_key("start", row), problem, reader.cell("name", row))


def _length_faults(reader: Reader) -> Iterator[Fault]:
    """Tracks whose spectrogram is longer or shorter than that of their audio."""
    transform = _transform(reader)
    if not isinstance(transform, LinearBins | MelBands):
        return
    for row, (length, found) in enumerate(zip(reader.column("samples"), reader.column("frames"), strict=True)):
        expected = transform.stft.frame_count(int(length))
        if found != expected:
            problem = f"it has {found} frames; its {length} samples give {expected}"
            yield Fault(reader.name, row_key("frames", row), problem, reader.cell("name", row))


def _transform(reader: Reader) -> StoredTransform | None:
    try:
        return Store(reader).transform
    except DamagedError:  # of /frequency, by which magnitudes that were computed elsewhere are described
        return None


# ---- shards

_Ordered = tuple[tuple[int, int, int, int], Fault]
"""A fault, and what it is ordered by: shard, target, chunk, channel."""

_Spans = dict[tuple[int, int], list[ChunkPlace]]
"""By offset and length in bytes: the places (channel, chunk within the shard) that name these bytes."""


def _shard_faults(
    reader: Reader, rows: Rows, shards: Sequence[int], decode: bool, workers: int, on_progress: OnProgress | None
) -> list[Fault]:
    check = _ShardCheck(reader, rows, decode, min(_RUN_BYTES, _BUFFER_BYTES // workers))
    files, done, told = len(shards) * len(reader.document.targets), 0, 0.0
    faults: list[_Ordered] = []
    with ThreadPoolExecutor(workers) as pool:
        places = ((target, shard) for shard in shards for target in range(len(reader.document.targets)))
        begun = _in_parallel(pool, check.begin, places, workers)
        for run, found in _in_parallel(pool, check.read, (run for runs in begun for run in runs), workers):
            faults += found
            done += run.last
            if on_progress and run.last and (done == files or time.monotonic() - told >= _PROGRESS_SECONDS):
                told = time.monotonic()
                on_progress(done, files)
    return [fault for _, fault in sorted(faults, key=itemgetter(0))]


def _in_parallel(
    pool: ThreadPoolExecutor, function: Callable[[_Item], _Result], items: Iterable[_Item], workers: int
) -> Iterator[_Result]:
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

    def __init__(self, reader: Reader, rows: Rows, decode: bool, run_bytes: int) -> None:
        self._reader = reader
        self._storage = reader.storage
        self._rows = rows
        self._decode = decode
        self._decoder = RowDecoder(reader.layout.chunk_frames, reader.layout.bins)
        self._run_bytes = run_bytes
        self._tail_bytes = tail_bytes(len(reader.document.channels), reader.layout.shard_chunks)

    def begin(self, place: tuple[int, int]) -> list[_Run]:
        """Check the index of a shard (target, shard), and all of it if it is small; return what is left to be read."""
        target, shard = place
        first = _Run(target, shard, self._rows.owners(shard))
        runs = [first]
        try:
            head = self._storage.get_range(first.key, 0, self._run_bytes)
            index = None if head is None else self._index(first, head)
        except (DamagedError, StorageError) as error:
            first.faults = self._index_faults(first, _problem(self._reader, first.key, error))
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
            tail = self._storage.get_suffix(run.key, self._tail_bytes) or b""
            size = self._storage.size(run.key) or 0
        return check_index(self._reader, run.target, run.shard, tail, size)

    def read(self, run: _Run) -> tuple[_Run, list[_Ordered]]:
        """Read the chunks of a run, and check them."""
        if not run.spans:
            return run, run.faults
        start = min(offset for offset, _ in run.spans)
        try:
            data = self._storage.get_range(run.key, start, max(map(sum, run.spans)) - start) or b""
        except StorageError as error:
            problem = _problem(self._reader, run.key, error)
            return run, [fault for span in run.spans for fault in self._span_faults(run, span, problem)]
        return run, self._chunk_faults(run, data, start)

    def _index_faults(self, run: _Run, problem: str) -> list[_Ordered]:
        """A fault for each track that can't be read any more."""
        expected = self._rows.expected(run.owners, run.target)
        _, lost = np.unique(np.where(expected, run.owners, _NOBODY), return_index=True)
        return [self._fault(run, problem, within) for within in lost.tolist() if expected[within]] or [
            self._fault(run, problem)
        ]

    def _compare(self, run: _Run, index: ShardIndex | None) -> _Spans:
        """Compare an index with the track table; return what is to be read, in order."""
        shape = (len(run.owners), len(self._reader.document.channels))
        there = np.zeros(shape, np.bool_) if index is None else (index.entries[..., 0] != _MISSING).T
        expected = np.broadcast_to(self._rows.expected(run.owners, run.target)[:, np.newaxis], shape)
        nobodys = (run.owners == _NOBODY)[:, np.newaxis]
        missing = "the file is missing" if index is None else "the chunk is missing"
        stray = "the chunk is there, but the track table says that the target is absent"
        for problem, wrong in ((missing, expected & ~there), (stray, there & ~expected & ~nobodys)):
            run.faults += [self._fault(run, problem, *place) for place in np.argwhere(wrong).tolist()]
        spans: _Spans = {}
        if index is not None:
            chunks, channels = np.nonzero(there & (expected | nobodys))
            entries = index.entries[channels, chunks].tolist()
            for (offset, length), channel, chunk in zip(entries, channels.tolist(), chunks.tolist(), strict=True):
                spans.setdefault((offset, length), []).append((channel, chunk))
        return dict(sorted(spans.items()))

    def _chunk_faults(self, run: _Run, data: bytes, start: int) -> list[_Ordered]:
        """Check the chunks of a run, given what lies from byte ``start`` of the shard on."""
        faults = []
        for offset, length in run.spans:
            try:
                self._check(data[offset - start : offset - start + length])
            except (DamagedError, JpegError) as error:
                faults += self._span_faults(run, (offset, length), str(error))
        return faults

    def _span_faults(self, run: _Run, span: tuple[int, int], problem: str) -> list[_Ordered]:
        """A fault for each chunk that names some bytes."""
        return [self._fault(run, problem, within, channel, span[0]) for channel, within in run.spans[span]]

    def _check(self, data: bytes) -> None:
        jpeg, layout = without_checksum(data), self._reader.layout
        if self._decode:
            self._decoder.decode(jpeg, 0, layout.chunk_frames)
        else:
            stream.check(jpeg, (layout.chunk_frames, layout.bins))

    def _fault(
        self, run: _Run, problem: str, within: int | None = None, channel: int | None = None, offset: int | None = None
    ) -> _Ordered:
        """Make a fault of a whole shard, of a track's part of it, or of a chunk."""
        document, owner = self._reader.document, _NOBODY if within is None else int(run.owners[within])
        fault = Fault(
            self._reader.name,
            run.key,
            problem,
            track=None if owner == _NOBODY else self._reader.cell("name", owner),
            target=document.targets[run.target],
            channel=None if channel is None else document.channels[channel],
            chunk=None if channel is None else run.shard * document.layout.shard_chunks + (within or 0),
            offset=offset,
        )
        return (run.shard, run.target, within or 0, -1 if channel is None else channel), fault


def check_index(reader: Reader, target: int, shard: int, tail: bytes, size: int) -> ShardIndex:
    """Read a shard's index, and check it more closely than readers need.

    Parameters
    ----------
    reader : Reader
    target, shard : int
    tail : bytes
        What the shard ends with; more than the index will do.
    size : int
        Of the whole shard, bytes.

    Raises
    ------
    DamagedError
        If it is cut short, fails its checksum, belongs to another shard, or points to where no chunks are.
    """
    channels, chunks = len(reader.document.channels), reader.layout.shard_chunks
    tail = tail[-tail_bytes(channels, chunks) :]
    try:
        check_place(tail, target, shard)
        index = ShardIndex.parse(tail[-index_bytes(channels, chunks) :], channels, chunks, size)
    except DamagedError as error:
        raise DamagedError(f"the index is damaged: {error}") from None
    there = index.entries[index.entries[..., 0] != _MISSING]
    room = size - int(there.sum(axis=1).max(initial=0))
    # readers take a record that doesn't begin as one for none
    if room == len(tail) and tail[:PLACE_BYTES] != place_record(target, shard):
        raise DamagedError("the place record is damaged")
    return index


def place_record(target: int, shard: int) -> bytes:
    """Return the bytes that stand before a shard's index."""
    return pack({}, 1, 1, target, shard)[:PLACE_BYTES]


def _split(spans: _Spans, most_bytes: int) -> Iterator[_Spans]:
    """Cut spans, which are in order, into runs of so many bytes, or of one span."""
    run: _Spans = {}
    begin = 0
    for (offset, length), places in spans.items():
        if run and offset + length - begin > most_bytes:
            yield run
            run = {}
        begin = begin if run else offset
        run[offset, length] = places
    if run:
        yield run


# ---- other codecs


def _other_codecs_faults(store: Store, on_progress: OnProgress | None) -> Iterator[Fault]:
    """What zarr finds wrong, track by track."""
    for i, track in enumerate(store):
        for target, present in track.present.items():
            try:
                missing = present and bool(np.isnan(track.magnitude.sel(target=target)).any())
                problem = "chunks are missing" if missing else ""
            except DamagedError as error:
                problem = str(error).removeprefix(f"{store.location}: ")
            if problem:
                yield Fault(store.location, MAGNITUDE, problem, track.name, target)
        if on_progress:
            on_progress(i + 1, len(store))
