"""Chunks to arrays: levels and magnitudes.

Conventions
-----------
Positions, not labels: targets and channels count from 0, frames along the packed axis of the whole store. What comes
back is (targets, channels, frames, bins).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from norbert_store._format.layout import ChunkAt
from norbert_store._jpeg.layout import Segments
from norbert_store._jpeg.rows import RowDecoder, Rows
from norbert_store._lazy import lazy
from norbert_store._read.chunks import BATCH_BYTES, Chunks, EncodedChunk, Extent
from norbert_store._read.snapshot import Snapshot
from norbert_store._read.tables import LEVELS, Magnitudes, Tables
from norbert_store._read.threads import for_each
from norbert_store._storage.cache import Recent
from norbert_store._storage.storage import Location, Storage
from norbert_store.errors import DamagedError, JpegError

_CHECKED_BYTES_KEPT = 32 * 2**20
_CHECKED_OVERHEAD_BYTES = 600  # of the objects around it

# Threads share a long read in pieces of this number of chunks.
_CHUNKS_AT_A_TIME = 4

_NO_ROWS = Rows(np.empty((0, 0), np.uint8), 0)


class Wanted(NamedTuple):
    """What is to be read.

    Attributes
    ----------
    targets, channels : sequence of int
    frames : ndarray of int
        Positions along the packed axis, in any order.
    bins : slice
    row : int, optional
        Of the track that all frames belong to. If left out, tracks are looked up where chunks are missing.
    """

    targets: Sequence[int]
    channels: Sequence[int]
    frames: NDArray[np.int64]
    bins: slice = slice(None)
    row: int | None = None


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


class Frames:
    """Reads frames of one committed state.

    Parameters
    ----------
    chunks : Chunks
    """

    def __init__(self, chunks: Chunks) -> None:
        self.chunks = chunks
        self.snapshot = chunks.snapshot
        self._layout = self.snapshot.layout
        self._decoder = RowDecoder(self._layout.chunk_frames, self._layout.bins)
        self._checked: Recent[Extent, Segments] = Recent(_CHECKED_BYTES_KEPT)

    @classmethod
    def open(cls, place: Location | Storage, audio_root: Path | None = None) -> Frames:
        """Open a store's committed state to read all of it; parameters and errors as of `Snapshot.open`."""
        return cls(Chunks(Snapshot.open(place, audio_root)))

    def magnitude(self, wanted: Wanted) -> NDArray[np.float32]:
        """Read magnitudes.

        Returns
        -------
        ndarray of float32
            (targets, channels, frames, bins); NaN behind a track's last frame, and where it doesn't have a target.

        Raises
        ------
        DamagedError
            If a chunk that must be there isn't, is cut short, or fails its checksum.
        """
        out = self._room(wanted, np.float32)
        with self.snapshot.naming():
            self._read(wanted, out, self._magnitudes, np.nan)
        return out

    def levels(self, wanted: Wanted) -> NDArray[np.uint8]:
        """Read levels; as `magnitude`, but uint8, and 0 where that has NaN.

        Raises
        ------
        DamagedError
            As `magnitude`.
        """
        out = self._room(wanted, np.uint8)
        with self.snapshot.naming():
            self._read(wanted, out, LEVELS, 0)
        return out

    def _room(self, wanted: Wanted, dtype: type) -> NDArray[Any]:
        """Take the memory that is needed."""
        bins = len(range(*wanted.bins.indices(self._layout.bins)))
        shape = len(wanted.targets), len(wanted.channels), len(wanted.frames), bins
        try:
            return np.empty(shape, dtype)
        except (MemoryError, ValueError):
            raise ValueError(f"an array of shape {shape} doesn't fit into memory; take a part of it") from None

    @lazy
    def _magnitudes(self) -> Tables:
        return Tables(Magnitudes(self._layout.curve))

    def _read(self, wanted: Wanted, out: NDArray[Any], tables: Tables, missing: float) -> None:
        """Read frames in any order, in pieces that threads can share."""
        if out.size == 0:
            return
        if (np.diff(wanted.frames) <= 0).any():
            rising, places = np.unique(wanted.frames, return_inverse=True)
            some = np.empty((*out.shape[:2], len(rising), out.shape[3]), out.dtype)
            self._read(wanted._replace(frames=rising), some, tables, missing)
            np.take(some, places, axis=2, out=out, mode="clip")
            return
        requests = [
            Request(target, wanted.channels, start, out[i, :, where], wanted.bins, wanted.row, picks)
            for start, where, picks in self._pieces(wanted.frames)
            for i, target in enumerate(wanted.targets)
        ]
        self._read_requests(requests, tables, missing)

    def _pieces(self, frames: NDArray[np.int64]) -> Iterator[tuple[int, slice, NDArray[np.int64] | None]]:
        """Cut rising frames into neighbours of a few chunks, and others, chunk by chunk, so that each is decoded once.

        Where each piece starts, which of the frames it has, and, for those that aren't neighbours, how far from there.
        """
        size = self._layout.chunk_frames
        # a short read would leave threads without work
        at_a_time = _CHUNKS_AT_A_TIME if len(frames) > 2 * _CHUNKS_AT_A_TIME * size else 1
        for few in _groups(frames, at_a_time * size):
            groups = [few]
            if not _are_neighbours(frames[few]):
                groups = [slice(few.start + one.start, few.start + one.stop) for one in _groups(frames[few], size)]
            for where in groups:
                some = frames[where]
                yield int(some[0]), where, None if _are_neighbours(some) else some - some[0]

    def read_into(self, requests: Sequence[Request], tables: Tables) -> None:
        """Read frames into the caller's arrays, on all threads; NaN stands where there is none.

        Parameters
        ----------
        requests : sequence of Request
        tables : Tables
            What levels stand for.

        Raises
        ------
        DamagedError
            If a chunk that must be there isn't, is cut short, or fails its checksum.
        """
        with self.snapshot.naming():
            self._read_requests(requests, tables, np.nan)

    def _read_requests(self, requests: Sequence[Request], tables: Tables, missing: float) -> None:
        if self.snapshot.storage.local is not None:
            for_each(lambda request: self._read_from_files(request, tables, missing), requests)
            return
        # elsewhere it is waiting that takes long, so all is asked for at once
        for some in self._by_bytes(requests):
            found = dict(self.chunks.read(at for request in some for at in self._chunks_of(request)))
            chunks = [[found[at] for at in self._chunks_of(request)] for request in some]
            for_each(lambda i: self._decode(some[i], chunks[i], tables, missing), range(len(some)))  # noqa: B023

    def _read_from_files(self, request: Request, tables: Tables, missing: float) -> None:
        numbers = self._layout.chunk_span(request.start, request.out.shape[1])
        first = ChunkAt(request.target, request.channels[0], numbers.start, request.row)
        chunks = self.chunks.read_files(first, request.channels, numbers.stop)
        self._decode(request, chunks, tables, missing)

    def _chunks_of(self, request: Request) -> list[ChunkAt]:
        """Chunks that a request touches, time-outer, channel-inner."""
        numbers = self._layout.chunk_span(request.start, request.out.shape[1])
        return [
            ChunkAt(request.target, channel, number, request.row) for number in numbers for channel in request.channels
        ]

    def _by_bytes(self, requests: Sequence[Request]) -> Iterator[list[Request]]:
        """Cut requests into lists of which each fits into memory, encoded: no chunk is larger than its levels."""
        some: list[Request] = []
        size = 0
        for request in requests:
            length = len(self._chunks_of(request)) * self._layout.chunk_frames * self._layout.bins
            if some and size + length > BATCH_BYTES:
                yield some
                some, size = [], 0
            some.append(request)
            size += length
        if some:
            yield some

    def _decode(self, request: Request, chunks: Sequence[EncodedChunk | None], tables: Tables, missing: float) -> None:
        size, start = self._layout.chunk_frames, request.start
        first_frame = self._layout.frame_of(self._layout.chunk_of(start))
        stop = start + request.out.shape[1]
        decoded: EncodedChunk | None = None
        rows = _NO_ROWS
        for i, chunk in enumerate(chunks):
            number, channel = divmod(i, len(request.channels))
            first = first_frame + number * size
            begin, end = max(start, first), min(stop, first + size)
            out = request.out[channel, begin - start : end - start]
            if chunk is None:
                out[...] = missing
                continue
            if request.picks is not None:
                end = start + int(request.picks[-1]) + 1
            try:
                # channels that are equal share their bytes
                if channel == 0 or decoded is None or chunk.extent != decoded.extent:
                    rows, decoded = self._rows(chunk, begin - first, end - first), chunk
                if len(rows.levels) < end - begin:
                    out = self._fill(request, rows, out, missing)
                levels = rows.levels[:, request.bins]
                look_up = tables.of(rows.scale)
            except (DamagedError, JpegError) as error:
                key, offset = chunk.extent[:2]
                at = ChunkAt(request.target, request.channels[channel], self._layout.chunk_of(first), request.row)
                raise DamagedError(str(error), key=key, offset=offset, at=at) from error
            look_up(levels if request.picks is None else levels[request.picks[: len(out)]], out)

    def _fill(self, request: Request, rows: Rows, out: NDArray[Any], missing: float) -> NDArray[Any]:
        """Fill what lies behind the last frame of a chunk; return what lies before.

        Raises
        ------
        JpegError
            If the frames are those of a track, which must be there.
        """
        if request.row is not None:
            raise JpegError(f"the JPEG ends {len(out) - len(rows.levels)} frames before its track does")
        there = len(rows.levels) if request.picks is None else int(np.searchsorted(request.picks, len(rows.levels)))
        out[there:] = missing
        return out[:there]

    def _rows(self, chunk: EncodedChunk, first: int, stop: int) -> Rows:
        """Decode rows of a chunk, whose header and markers are checked when it is read for the first time."""
        segments = self._checked.get(chunk.extent)
        if segments is None:
            segments = self._decoder.segments(chunk.data)
            if segments is not None:
                self._checked.put(chunk.extent, segments, len(segments.ends) * 4 + _CHECKED_OVERHEAD_BYTES)
        return self._decoder.decode(chunk.data, first, stop, segments)


def _groups(frames: NDArray[np.int64], size: int) -> Iterator[slice]:
    """Cut rising frames where a multiple of a size lies between."""
    ends = np.flatnonzero(np.diff(frames // size)) + 1
    for begin, end in pairwise([0, *ends.tolist(), len(frames)]):
        yield slice(begin, end)


def _are_neighbours(rising: NDArray[np.int64]) -> bool:
    return int(rising[-1] - rising[0]) == len(rising) - 1
