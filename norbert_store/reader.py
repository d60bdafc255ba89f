"""Bytes to arrays: chunks of magnitudes and columns of the track table.

Conventions
-----------
Positions, not labels: targets and channels count from 0, frames along the packed axis of the whole store, chunks
along that axis from its start, and rows are those of the track table. What comes back is (targets, channels, frames,
bins).

What a read needs is read in two steps, each of which asks the storage for all at once: the indexes of shards that
aren't known yet, and then, in batches, the chunks, neighbours in one range. Indexes and columns are remembered, up to
a number of bytes.

Others may write to a store while it is open here. Tracks that are appended change nothing of what was there. A shard
that is made again is noticed by its file's state, in a folder, or else by the checksums of its chunks; its index is
then read once more. What still fails is an error.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
from numcodecs.vlen import VLenUTF8
from numcodecs.zstd import Zstd
from numpy.typing import NDArray

from norbert_store.errors import DamagedError, JpegError, NorbertStoreError, StoreNotFoundError
from norbert_store.format.document import MAGNITUDE, ROOT_KEY, TRACK_GROUP, Document, shard_key
from norbert_store.format.shard import ShardIndex, read_tail, tail_bytes, without_checksum
from norbert_store.format.table import ROWS_PER_CHUNK
from norbert_store.jpeg import stream
from norbert_store.jpeg.rows import RowDecoder
from norbert_store.levels import LookUp, table
from norbert_store.local import FileState
from norbert_store.storage import Location, Storage
from norbert_store.threads import for_each

_INDEX_BYTES_KEPT = 16 * 2**20
_COLUMN_BYTES_KEPT = 256 * 2**20
_BATCH_BYTES = 32 * 2**20
_ALL_BYTES = 2**40  # more than any array's chunk has

# What lies between two chunks is read along, if it is no more than this, and than they are: another request would cost
# more.
_SMALL_GAP = 64 * 2**10

# A coefficient takes up to 26 bits in a baseline JPEG, and every byte of them may have to be escaped.
_MOST_BYTES_PER_PIXEL = 8
_MOST_HEADER_BYTES = 2**18

_NO_CHUNK = 2**64 - 1

# Threads share a long read in pieces of so many chunks.
_CHUNKS_AT_A_TIME = 4

_LEVELS = LookUp(np.arange(256, dtype=np.uint8))
_NO_LEVELS = np.empty((0, 0), np.uint8)

_INDEX_OVERHEAD_BYTES = 600  # of the objects around it
_TEXT_BYTES = 100

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")

_ShardAt = tuple[int, int]  # target, and position along the packed axis in shards


class _ChunkAt(NamedTuple):
    """Which chunk: its target, its channel, and its position along the packed axis in chunks."""

    target: int
    channel: int
    number: int


class _Span(NamedTuple):
    """Where a chunk's bytes lie, and the state that the file had before its index was read."""

    key: str
    offset: int
    length: int
    state: FileState | None


@dataclass(frozen=True)
class _KnownShard:
    """A shard's index; None where there is no shard. And the state that the file had before that was read."""

    index: ShardIndex | None
    state: FileState | None


class Request(NamedTuple):
    """Frames of one target, and where they are wanted.

    Attributes
    ----------
    target : int
    channels : sequence of int
    start : int
        First frame, along the packed axis.
    out : ndarray
        (channels, frames, bins)
    bins : slice
    row : int, optional
        Of the track that all frames belong to.
    picks : ndarray of int, optional
        Which frames of one chunk are wanted, counted from ``start``, rising; neighbours if left out.
    """

    target: int
    channels: Sequence[int]
    start: int
    out: NDArray[Any]
    bins: slice = slice(None)
    row: int | None = None
    picks: NDArray[np.int64] | None = None


class Reader:
    """Reads one committed state of a store.

    Parameters
    ----------
    location : str, path or zarr store

    Raises
    ------
    StoreNotFoundError
        If there is nothing there.
    FormatError
        If what is there is no store, breaks the format, or is newer than this library.
    """

    def __init__(self, location: Location) -> None:
        self.storage = Storage(location)
        self._root_state = self.storage.state(ROOT_KEY)
        data = self.storage.get(ROOT_KEY)
        if data is None:
            raise StoreNotFoundError(f"there is no store at {self.storage.name}: expected a {ROOT_KEY} there")
        self.document = Document.from_json(data, self.storage.name)
        self.layout = self.document.layout
        self.table = table(self.layout.curve)
        self._decoder = RowDecoder(self.layout.chunk_frames, self.layout.bins)
        self._forget_all()

    def _forget_all(self) -> None:
        self._indexes: _Recent[_ShardAt, _KnownShard] = _Recent(_INDEX_BYTES_KEPT)
        self._blocks: _Recent[tuple[str, int], NDArray[Any]] = _Recent(_COLUMN_BYTES_KEPT)

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key not in ("_indexes", "_blocks", "_arrays")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget_all()

    @property
    def name(self) -> str:
        """The store's location, for people."""
        return self.storage.name

    @cached_property
    def _arrays(self) -> dict[str, dict[str, Any]]:
        return self.document.arrays()

    def _check_same_store(self, in_doubt: bool = False) -> None:
        """Check, after something was read, that the store is still the one that was opened, perhaps with more tracks.

        In a folder, a look at the document's file tells whether there is anything to check; elsewhere it would cost a
        request, and is done ``in_doubt`` alone.
        """
        state = self.storage.state(ROOT_KEY)
        if state == self._root_state and not in_doubt:
            return
        data = self.storage.get(ROOT_KEY)
        if data is None:
            raise StoreNotFoundError(f"the store at {self.name} isn't there any more")
        then, now = self.document, Document.from_json(data, self.name)
        same = all(getattr(then, part) == getattr(now, part) for part in ("layout", "targets", "channels", "transform"))
        if not same or now.tracks < then.tracks or now.frames < then.frames:
            raise DamagedError(f"{self.name} was replaced since it was opened, or lost tracks; open it again")
        self._root_state = state

    # ---- the track table, and the labels of axes

    @cached_property
    def frequencies(self) -> NDArray[np.float64]:
        """Hz of every bin."""
        return self.coordinate("frequency")

    def coordinate(self, path: str) -> NDArray[Any]:
        """Read one of the arrays /target, /channel and /frequency; text as objects.

        Raises
        ------
        DamagedError
            If it is missing, or fails its checksum.
        """
        (values,) = self._array_chunks([(path, 0)])
        return values

    def column(self, name: str) -> NDArray[Any]:
        """Read a whole column of the track table; text as objects.

        Raises
        ------
        DamagedError
            As all that follow: if a part of it is missing, or fails its checksum.
        """
        return self.columns([name])[name]

    def columns(self, names: Iterable[str]) -> dict[str, NDArray[Any]]:
        """Read whole columns, all at once."""
        blocks = range(max(1, -(-self.document.tracks // ROWS_PER_CHUNK)))
        names = list(names)
        found = self._load_blocks([(name, block) for name in names for block in blocks])
        return {name: np.concatenate([found[name, block] for block in blocks]) for name in names}

    def cell(self, name: str, row: int) -> Any:
        """Read one row of a column."""
        block, within = divmod(row, ROWS_PER_CHUNK)
        values = self._blocks.get((name, block))
        if values is None:
            values = self._load_blocks([(name, block)])[name, block]
        return values[within]

    def cells(self, names: Sequence[str], row: int) -> list[Any]:
        """Read one row of some columns, all at once."""
        block, within = divmod(row, ROWS_PER_CHUNK)
        found = self._load_blocks([(name, block) for name in names])
        return [found[name, block][within] for name in names]

    def extents(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Read where tracks start along the packed axis, and how many frames they have.

        Raises
        ------
        DamagedError
            If one of them can't lie there.
        """
        columns = self.columns(("start", "frames"))
        starts, frames = columns["start"][rows], columns["frames"][rows]
        end = self.document.frames
        for row in rows[(starts < 0) | (frames <= 0) | (frames > end - starts)].tolist():
            raise DamagedError(
                f"{self.name}: track {self.cell('name', row)!r} starts at frame {columns['start'][row]} and has "
                f"{columns['frames'][row]}; expected it between 0 and {end}"
            )
        return starts, frames

    def _load_blocks(self, wanted: Sequence[tuple[str, int]]) -> dict[tuple[str, int], NDArray[Any]]:
        """Read parts (column, chunk of rows), or remember them."""
        found = {at: values for at in wanted if (values := self._blocks.get(at)) is not None}
        missing = [at for at in wanted if at not in found]
        if missing:
            chunks = self._array_chunks([(f"{TRACK_GROUP}/{name}", block) for name, block in missing])
            for at, values in zip(missing, chunks, strict=True):
                size = _TEXT_BYTES * values.size if values.dtype == object else values.nbytes
                self._blocks.put(at, values, size)
                found[at] = values
        return found

    def _array_chunks(self, wanted: Sequence[tuple[str, int]]) -> Iterator[NDArray[Any]]:
        """Read chunks of arrays that have one along all axes but the first: (array, position along the first)."""
        keys = [
            "/".join([path, "c", str(number), *["0"] * (len(self._arrays[path]["shape"]) - 1)])
            for path, number in wanted
        ]
        found = self.storage.get_ranges([(key, -_ALL_BYTES, _ALL_BYTES) for key in keys])
        self._check_same_store()
        for (path, number), key, data in zip(wanted, keys, found, strict=True):
            shape, data_type = self._arrays[path]["shape"], self._arrays[path]["data_type"]
            chunk = self._arrays[path]["chunk_grid"]["configuration"]["chunk_shape"]
            if data is None and 0 not in shape:
                raise DamagedError(f"{self.name}: {key} is missing")
            try:
                values = _nothing(data_type, chunk) if data is None else _decode_values(data, data_type, chunk)
            except Exception as error:  # codecs raise what they happen to raise
                raise DamagedError(f"{self.name}: {key} can't be read: {error}") from error
            yield values[: shape[0] - number * chunk[0]]

    # ---- chunks

    def jpeg(self, target: int, channel: int, chunk: int, row: int | None = None) -> bytes | None:
        """Read one chunk's JPEG, without its checksum; None where there is none, and none must be.

        Parameters
        ----------
        target, channel, chunk : int
        row : int, optional
            Of the track that the chunk belongs to; looked up, if it must be known.

        Raises
        ------
        DamagedError
            If it is missing, cut short, or fails its checksum.
        """
        ((_, data),) = self._jpegs([_ChunkAt(target, channel, chunk)], row)
        return data

    def magnitude(
        self,
        targets: Sequence[int],
        channels: Sequence[int],
        frames: NDArray[np.int64],
        bins: slice,
        row: int | None = None,
    ) -> NDArray[np.float32]:
        """Read magnitudes.

        Parameters
        ----------
        targets, channels : sequence of int
        frames : ndarray of int
            Positions along the packed axis, in any order.
        bins : slice
        row : int, optional
            Of the track that all frames belong to. If left out, tracks are looked up where chunks are missing.

        Returns
        -------
        ndarray of float32
            (targets, channels, frames, bins); NaN between tracks, and where a track hasn't a target.

        Raises
        ------
        DamagedError
            If a chunk that must be there isn't, is cut short, or fails its checksum.
        """
        out = np.empty((len(targets), len(channels), len(frames), self._bin_count(bins)), np.float32)
        if self.layout.codecs is not None:
            return self._magnitude_by_zarr(out, targets, channels, frames, bins, row)
        self._read(targets, channels, frames, bins, row, out, self._magnitudes, np.nan)
        return out

    def levels(
        self,
        targets: Sequence[int],
        channels: Sequence[int],
        frames: NDArray[np.int64],
        bins: slice,
        row: int | None = None,
    ) -> NDArray[np.uint8]:
        """Read levels; as `magnitude`, but uint8, and 0 where that has NaN.

        Raises
        ------
        DamagedError
            As `magnitude`.
        ValueError
            If the store's codecs are others than this format's, so that it has no levels.
        """
        self._check_own_codecs("levels")
        out = np.empty((len(targets), len(channels), len(frames), self._bin_count(bins)), np.uint8)
        self._read(targets, channels, frames, bins, row, out, _LEVELS, 0)
        return out

    @cached_property
    def _magnitudes(self) -> LookUp:
        return LookUp(self.table)

    def _read(
        self,
        targets: Sequence[int],
        channels: Sequence[int],
        frames: NDArray[np.int64],
        bins: slice,
        row: int | None,
        out: NDArray[Any],
        look_up: LookUp,
        missing: float,
    ) -> None:
        """Read frames in any order, in pieces that threads can share."""
        if out.size == 0:
            return
        if (np.diff(frames) <= 0).any():
            rising, places = np.unique(frames, return_inverse=True)
            some = np.empty((*out.shape[:2], len(rising), out.shape[3]), out.dtype)
            self._read(targets, channels, rising, bins, row, some, look_up, missing)
            np.take(some, places, axis=2, out=out, mode="clip")
            return
        requests = [
            Request(target, channels, start, out[i, :, where], bins, row, picks)
            for start, where, picks in self._pieces(frames)
            for i, target in enumerate(targets)
        ]
        self.read_into(requests, look_up, missing)

    def _pieces(self, frames: NDArray[np.int64]) -> Iterator[tuple[int, slice, NDArray[np.int64] | None]]:
        """Cut rising frames into neighbours of a few chunks, and others, chunk by chunk, so that each is decoded once.

        Where each piece starts, which of the frames it has, and, for those that aren't neighbours, how far from there.
        """
        for few in _groups(frames, _CHUNKS_AT_A_TIME * self.layout.chunk_frames):
            groups = [few]
            if not _are_neighbours(frames[few]):
                groups = [
                    slice(few.start + one.start, few.start + one.stop)
                    for one in _groups(frames[few], self.layout.chunk_frames)
                ]
            for where in groups:
                some = frames[where]
                yield int(some[0]), where, None if _are_neighbours(some) else some - some[0]

    def read_into(self, requests: Sequence[Request], look_up: LookUp, missing: float = np.nan) -> None:
        """Read frames into the caller's arrays, on all threads.

        Parameters
        ----------
        requests : sequence of Request
        look_up : LookUp
            What levels stand for.
        missing : float
            What stands where there is no chunk.

        Raises
        ------
        DamagedError
            If a chunk that must be there isn't, is cut short, or fails its checksum.
        ValueError
            If the store's codecs are others than this format's.
        """
        self._check_own_codecs("levels")
        if self.storage.local is not None:
            for_each(lambda request: self._decode(request, self._chunks(request), look_up, missing), requests)
            return
        # elsewhere it is waiting that takes long, so all is asked for at once
        for some in self._by_bytes(requests):
            wanted = {at: request.row for request in some for at in self._places(request)}
            row = next(iter(wanted.values())) if len(set(wanted.values())) == 1 else None
            found = dict(self._jpegs(wanted, row))
            jpegs = [[found[at] for at in self._places(request)] for request in some]
            for_each(lambda i: self._decode(some[i], jpegs[i], look_up, missing), range(len(some)))  # noqa: B023

    def _places(self, request: Request) -> list[_ChunkAt]:
        """Chunks that a request touches, time-outer, channel-inner."""
        size = self.layout.chunk_frames
        numbers = range(request.start // size, -(-(request.start + request.out.shape[1]) // size))
        return [_ChunkAt(request.target, channel, number) for number in numbers for channel in request.channels]

    def _by_bytes(self, requests: Sequence[Request]) -> Iterator[list[Request]]:
        """Cut requests into lists of which each fits into memory, encoded: no chunk is larger than its levels."""
        some: list[Request] = []
        size = 0
        for request in requests:
            length = len(self._places(request)) * self.layout.chunk_frames * self.layout.bins
            if some and size + length > _BATCH_BYTES:
                yield some
                some, size = [], 0
            some.append(request)
            size += length
        if some:
            yield some

    def _decode(self, request: Request, jpegs: Sequence[bytes | None], look_up: LookUp, missing: float) -> None:
        size, start = self.layout.chunk_frames, request.start
        stop = start + request.out.shape[1]
        decoded: tuple[bytes | None, int, int] = (None, 0, 0)
        levels = _NO_LEVELS
        for i, data in enumerate(jpegs):
            number, channel = divmod(i, len(request.channels))
            first = (start // size + number) * size
            begin, end = max(start, first), min(stop, first + size)
            out = request.out[channel, begin - start : end - start]
            if request.picks is not None:
                end = start + int(request.picks[-1]) + 1
            if data is None:
                out[...] = missing
                continue
            rows = data, begin - first, end - first
            if rows[0] is not decoded[0] or rows[1:] != decoded[1:]:  # channels that are equal share their bytes
                try:
                    levels = self._decoder.decode(*rows)[:, request.bins]
                except JpegError as error:
                    at = _ChunkAt(request.target, request.channels[channel], first // size)
                    raise DamagedError(f"{self._chunk(at, request.row)}: {error}") from error
                decoded = rows
            look_up(levels if request.picks is None else levels[request.picks], out)

    def _chunks(self, request: Request) -> Sequence[bytes | None]:
        """Read the JPEGs of a request from files: as a rule in one piece, without ado; else with all care."""
        jpegs = self._chunks_at_once(request)
        if jpegs is None:
            places = self._places(request)
            found = dict(self._jpegs(places, request.row))
            jpegs = [found[at] for at in places]
        return jpegs

    def _chunks_at_once(self, request: Request) -> list[bytes | None] | None:
        """Read the JPEGs of a request, a piece for each shard; None if anything is out of the ordinary."""
        layout, target, local = self.layout, request.target, self.storage.local
        first = request.start // layout.chunk_frames
        stop = -(-(request.start + request.out.shape[1]) // layout.chunk_frames)
        jpegs: list[bytes | None] = []
        for shard in range(first // layout.shard_chunks, -(-stop // layout.shard_chunks)):
            known = self._indexes.get((target, shard))
            if known is None:
                at = _ChunkAt(target, request.channels[0], max(first, shard * layout.shard_chunks))
                known = self._load_indexes({(target, shard): [at]}, request.row)[target, shard]
            if known.index is None or local is None:
                return None
            before = shard * layout.shard_chunks
            chunks = slice(max(first - before, 0), min(stop - before, layout.shard_chunks))
            entries = known.index.entries[request.channels, chunks].swapaxes(0, 1).reshape(-1, 2).tolist()
            offset = min(entry[0] for entry in entries)
            end = max(map(sum, entries))
            length = end - offset
            if end > _NO_CHUNK or length > 2 * sum(entry[1] for entry in entries):
                return None
            found = local.get_with_state(shard_key(target, shard), offset, length)
            if found is None or found[1] != known.state:
                return None
            pieces = {begin: found[0][begin - offset : begin - offset + size] for begin, size in entries}
            try:
                whole = {begin: without_checksum(piece) for begin, piece in pieces.items()}
            except DamagedError:
                return None
            jpegs += [whole[begin] for begin, _ in entries]
        return jpegs

    def _bin_count(self, bins: slice) -> int:
        return len(range(*bins.indices(self.layout.bins)))

    def _check_own_codecs(self, what: str) -> None:
        if self.layout.codecs is not None:
            names = ", ".join(str(codec.get("name")) for codec in self.layout.codecs)
            raise ValueError(f"{self.name} has no {what}: its chunks are encoded by {names}; read its magnitudes")

    def _magnitude_by_zarr(
        self,
        out: NDArray[np.float32],
        targets: Sequence[int],
        channels: Sequence[int],
        frames: NDArray[np.int64],
        bins: slice,
        row: int | None,
    ) -> NDArray[np.float32]:
        try:
            array = self.storage.array(MAGNITUDE, self._arrays[MAGNITUDE])
        except Exception as error:  # zarr raises what its codecs happen to raise
            raise DamagedError(f"{self.name}: the metadata of /{MAGNITUDE} can't be used: {error}") from error
        for i, target in enumerate(targets):
            for j, channel in enumerate(channels):
                try:
                    out[i, j] = array.oindex[target, channel, frames, bins]
                except Exception as error:  # zarr raises what its codecs happen to raise
                    at = _ChunkAt(target, channel, int(frames[0]) // self.layout.chunk_frames)
                    raise DamagedError(f"{self._channel(at, row)} can't be read: {error}") from error
                # for zarr, what is missing is NaN, whether it must be there or not
                for number in np.unique(frames[np.isnan(out[i, j]).any(axis=-1)] // self.layout.chunk_frames):
                    at = _ChunkAt(target, channel, int(number))
                    if self._must_be_there(at, row):
                        raise DamagedError(f"{self._chunk(at, row)} is missing")
        self._check_same_store()
        return out

    # ---- from shards

    @property
    def _tail_bytes(self) -> int:
        return tail_bytes(len(self.document.channels), self.layout.shard_chunks)

    def _jpegs(self, wanted: Iterable[_ChunkAt], row: int | None) -> Iterator[tuple[_ChunkAt, bytes | None]]:
        """Read JPEGs, shard by shard, in batches that memory holds; None where there is none, and none must be."""
        self._check_own_codecs("chunks of this format")
        for some in _some_shards(wanted, self.layout.shard_chunks, most=max(1, _BATCH_BYTES // self._tail_bytes)):
            for batch in _batches(self._spans(some, row)):
                found, faults = self._fetch(batch)
                lost = self._lost(found, faults, row)
                if lost:
                    found |= self._fetch_again(lost, row)
                yield from found.items()
                found.clear()  # before the next ones are read

    def _fetch_again(self, lost: Sequence[_ChunkAt], row: int | None) -> dict[_ChunkAt, bytes | None]:
        """Read chunks by indexes that are read anew: their shards may have been made again in the meantime."""
        self._check_same_store(in_doubt=True)
        shards = next(_some_shards(lost, self.layout.shard_chunks, most=len(lost)))
        for shard in shards:
            self._indexes.drop(shard)
        found, faults = self._fetch(self._spans(shards, row))
        for at in self._lost(found, faults, row):
            raise DamagedError(self._chunk(at, row) + faults.get(at, " is missing"))
        return found

    def _lost(
        self, found: Mapping[_ChunkAt, bytes | None], faults: Mapping[_ChunkAt, str], row: int | None
    ) -> list[_ChunkAt]:
        return [at for at, data in found.items() if data is None and (at in faults or self._must_be_there(at, row))]

    def _fetch(
        self, spans: Mapping[_ChunkAt, _Span | None]
    ) -> tuple[dict[_ChunkAt, bytes | None], dict[_ChunkAt, str]]:
        """Read chunks, all at once; None where there is none. And what is wrong with those that are damaged."""
        found: dict[_ChunkAt, bytes | None] = dict.fromkeys(spans)
        faults: dict[_ChunkAt, str] = {}
        runs, run_of_span = _runs({span for span in spans.values() if span is not None})
        data_of_runs = self.storage.get_ranges(runs) if runs else []
        states = {key: self.storage.state(key) for key, _, _ in runs}
        for at, span in spans.items():
            if span is None:
                continue
            run = run_of_span[span]
            begin = span.offset - runs[run][1]
            data = (data_of_runs[run] or b"")[begin : begin + span.length]
            try:
                found[at] = without_checksum(data)
            except DamagedError as error:
                faults[at] = f", at byte {span.offset} of {span.key}: {error}"
            if states[span.key] != span.state:
                found[at] = None
                faults.setdefault(at, f": {span.key} was written while it was read; read it again")
        return found, faults

    def _spans(self, shards: Mapping[_ShardAt, Sequence[_ChunkAt]], row: int | None) -> dict[_ChunkAt, _Span | None]:
        """Look up where chunks lie; None where there is no chunk."""
        known = self._load_indexes(shards, row)
        spans: dict[_ChunkAt, _Span | None] = {}
        for shard, chunks in shards.items():
            index, state, key = known[shard].index, known[shard].state, shard_key(*shard)
            for at in chunks:
                entry = None if index is None else index.place(at.channel, at.number % self.layout.shard_chunks)
                spans[at] = None if entry is None else _Span(key, *entry, state)
        return spans

    def index(self, target: int, shard: int) -> ShardIndex | None:
        """Read a shard's index, or remember it; None where there is no such shard.

        Raises
        ------
        DamagedError
            If it is cut short, fails its checksum, or belongs to another shard.
        """
        self._check_own_codecs("chunks of this format")
        first = _ChunkAt(target, 0, shard * self.layout.shard_chunks)
        return self._load_indexes({(target, shard): [first]}, None)[target, shard].index

    def _load_indexes(
        self, shards: Mapping[_ShardAt, Sequence[_ChunkAt]], row: int | None
    ) -> dict[_ShardAt, _KnownShard]:
        """Read the indexes of shards, all at once, or remember them."""
        found = {shard: known for shard in shards if (known := self._indexes.get(shard)) is not None}
        missing = [shard for shard in shards if shard not in found]
        if missing:
            keys = [shard_key(*shard) for shard in missing]
            states = [self.storage.state(key) for key in keys]
            size = self._tail_bytes
            tails = self.storage.get_ranges([(key, -size, size) for key in keys])
            self._check_same_store()
            for shard, key, state, tail in zip(missing, keys, states, tails, strict=True):
                try:
                    index = None if tail is None else self._read_tail(tail, shard)
                except DamagedError as error:
                    place = self._target(shards[shard][0], row)
                    raise DamagedError(f"{place}: the index of {key}: {error}") from None
                found[shard] = _KnownShard(index, state)
                self._indexes.put(shard, found[shard], size + _INDEX_OVERHEAD_BYTES)
        return found

    def _read_tail(self, tail: bytes, shard: _ShardAt) -> ShardIndex:
        """Read an index, and refuse chunks of impossible size, so that nobody makes room for them."""
        index = read_tail(tail, len(self.document.channels), self.layout.shard_chunks, *shard)
        columns = -(-self.layout.bins // stream.BLOCK) * stream.BLOCK
        most = _MOST_BYTES_PER_PIXEL * self.layout.chunk_frames * columns + _MOST_HEADER_BYTES
        lengths = index.entries[..., 1]
        for length in lengths[(lengths > most) & (lengths != _NO_CHUNK)].tolist():
            raise DamagedError(f"a chunk has at most {most} bytes; there is one of {length}")
        return index

    # ---- which track

    def _must_be_there(self, at: _ChunkAt, row: int | None) -> bool:
        row = self._row_at(at) if row is None else row
        return row is not None and bool(self.cell("present", row)[at.target])

    def _row_at(self, at: _ChunkAt) -> int | None:
        """Find the track that a chunk belongs to; rows are in the order of the packed axis."""
        frame = at.number * self.layout.chunk_frames
        row = bisect_right(range(self.document.tracks), frame, key=lambda row: self.cell("start", row)) - 1
        if row < 0:
            return None
        start, frames = self.cells(("start", "frames"), row)
        return row if at.number < start // self.layout.chunk_frames + self.layout.chunks(frames) else None

    def _track(self, at: _ChunkAt, row: int | None) -> str:
        """Name a track at the beginning of an error, if that can be."""
        try:
            row = self._row_at(at) if row is None else row
            return self.name if row is None else f"{self.name}: track {self.cell('name', row)!r}"
        except NorbertStoreError:  # must not hide what is to be told
            return self.name

    def _target(self, at: _ChunkAt, row: int | None) -> str:
        return f"{self._track(at, row)}, target {self.document.targets[at.target]!r}"

    def _channel(self, at: _ChunkAt, row: int | None) -> str:
        return f"{self._target(at, row)}, channel {self.document.channels[at.channel]!r}"

    def _chunk(self, at: _ChunkAt, row: int | None) -> str:
        return f"{self._channel(at, row)}, packed chunk {at.number}"


class _Recent(Generic[_Key, _Value]):
    """Remembers what was used last, up to a number of bytes.

    There is no lock in it, so that threads can share it and processes can fork; at worst it forgets too early.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes // 2
        self._young: dict[_Key, tuple[_Value, int]] = {}
        self._old: dict[_Key, tuple[_Value, int]] = {}
        self._young_bytes = 0

    def get(self, key: _Key) -> _Value | None:
        found = self._young.get(key)
        if found is None:
            found = self._old.get(key)
            if found is None:
                return None
            self.put(key, *found)
        return found[0]

    def put(self, key: _Key, value: _Value, size: int) -> None:
        if self._young_bytes + size > self._most_bytes:
            self._old, self._young, self._young_bytes = self._young, {}, 0
        self._young[key] = value, size
        self._young_bytes += size

    def drop(self, key: _Key) -> None:
        self._old.pop(key, None)
        self._young.pop(key, None)


def _nothing(data_type: str, chunk: Sequence[int]) -> NDArray[Any]:
    return np.zeros(chunk, object if data_type == "string" else data_type)


def _decode_values(data: bytes, data_type: str, chunk: Sequence[int]) -> NDArray[Any]:
    """Decode a chunk of one of the small arrays, as `norbert_store.format.document` says that it is encoded.

    Through zarr, a million names take four times as long.
    """
    values = Zstd().decode(without_checksum(data))
    if data_type != "string":
        return np.frombuffer(values, np.dtype(data_type).newbyteorder("<")).reshape(chunk)
    count = int.from_bytes(values[:4], "little")
    if count != math.prod(chunk):  # the decoder makes room for as many as it says
        raise DamagedError(f"it says that it holds {count} texts; expected {math.prod(chunk)}")
    return VLenUTF8().decode(values).reshape(chunk)


def _some_shards(wanted: Iterable[_ChunkAt], shard_chunks: int, most: int) -> Iterator[dict[_ShardAt, list[_ChunkAt]]]:
    """Sort chunks by shard, and hand them out before there are more shards than ``most``."""
    shards: dict[_ShardAt, list[_ChunkAt]] = {}
    for at in wanted:
        shard = at.target, at.number // shard_chunks
        if shard not in shards and len(shards) == most:
            yield shards
            shards = {}
        shards.setdefault(shard, []).append(at)
    if shards:
        yield shards


def _batches(spans: Mapping[_ChunkAt, _Span | None]) -> Iterator[dict[_ChunkAt, _Span | None]]:
    """Cut what is to be read into batches of `_BATCH_BYTES`."""
    batch: dict[_ChunkAt, _Span | None] = {}
    size = 0
    for at, span in spans.items():
        length = 0 if span is None else span.length
        if batch and size + length > _BATCH_BYTES:
            yield batch
            batch, size = {}, 0
        batch[at] = span
        size += length
    if batch:
        yield batch


def _runs(spans: Iterable[_Span]) -> tuple[list[tuple[str, int, int]], dict[_Span, int]]:
    """Join spans that nearly touch into runs (key, offset, length); and tell which run each is in."""
    runs: list[tuple[str, int, int]] = []
    run_of_span = {}
    for span in sorted(spans, key=lambda span: span[:3]):
        key, start, length = runs[-1] if runs else ("", 0, 0)
        gap = span.offset - start - length
        if span.key == key and gap <= min(_SMALL_GAP, length + span.length):
            runs[-1] = key, start, max(length, span.offset + span.length - start)
        else:
            runs.append(span[:3])
        run_of_span[span] = len(runs) - 1
    return runs, run_of_span


def _groups(frames: NDArray[np.int64], size: int) -> Iterator[slice]:
    """Cut rising frames where a multiple of a size lies between."""
    ends = np.flatnonzero(np.diff(frames // size)) + 1
    for begin, end in pairwise([0, *ends.tolist(), len(frames)]):
        yield slice(begin, end)


def _are_neighbours(rising: NDArray[np.int64]) -> bool:
    return int(rising[-1] - rising[0]) == len(rising) - 1
