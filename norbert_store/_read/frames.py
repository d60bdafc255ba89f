"""Bytes to arrays: levels and magnitudes.

Conventions
-----------
Positions, not labels: targets and channels count from 0, frames along the packed axis of the whole store. What comes
back is (targets, channels, frames, bins).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from norbert_store._format.arrays import zarr_array
from norbert_store._format.layout import MAGNITUDE
from norbert_store._jpeg.rows import RowDecoder, Segments
from norbert_store._read.chunks import BATCH_BYTES, ChunkAt, ChunkReader, EncodedChunk
from norbert_store._read.threads import for_each
from norbert_store._spectra.levels import LookUp, table
from norbert_store._storage.cache import Recent
from norbert_store._storage.storage import Location
from norbert_store.errors import DamagedError, JpegError

_CHECKED_BYTES_KEPT = 32 * 2**20
_CHECKED_OVERHEAD_BYTES = 600  # of the objects around it

# Threads share a long read in pieces of so many chunks.
_CHUNKS_AT_A_TIME = 4

_LEVELS = LookUp(np.arange(256, dtype=np.uint8))
_NO_LEVELS = np.empty((0, 0), np.uint8)


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


class Reader(ChunkReader):
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
        super().__init__(location)
        self.table = table(self.layout.curve)
        self._decoder = RowDecoder(self.layout.chunk_frames, self.layout.bins)
        self._checked: Recent[tuple[str, int, bytes], Segments] = Recent(_CHECKED_BYTES_KEPT)

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
        size = self.layout.chunk_frames
        # a short read would leave threads without work
        at_a_time = _CHUNKS_AT_A_TIME if len(frames) > 2 * _CHUNKS_AT_A_TIME * size else 1
        for few in _groups(frames, at_a_time * size):
            groups = [few]
            if not _are_neighbours(frames[few]):
                groups = [slice(few.start + one.start, few.start + one.stop) for one in _groups(frames[few], size)]
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
            for_each(lambda request: self._read_from_files(request, look_up, missing), requests)
            return
        # elsewhere it is waiting that takes long, so all is asked for at once
        for some in self._by_bytes(requests):
            wanted = {at: request.row for request in some for at in self._places(request)}
            row = next(iter(wanted.values())) if len(set(wanted.values())) == 1 else None
            found = dict(self.chunks(wanted, row))
            chunks = [[found[at] for at in self._places(request)] for request in some]
            for_each(lambda i: self._decode(some[i], chunks[i], look_up, missing), range(len(some)))  # noqa: B023

    def _read_from_files(self, request: Request, look_up: LookUp, missing: float) -> None:
        first, stop = self._extent(request)
        chunks = self.chunks_in_files(request.target, request.channels, first, stop, request.row)
        self._decode(request, chunks, look_up, missing)

    def _extent(self, request: Request) -> tuple[int, int]:
        """Tell the first chunk that a request touches, and the one after the last."""
        size = self.layout.chunk_frames
        return request.start // size, -(-(request.start + request.out.shape[1]) // size)

    def _places(self, request: Request) -> list[ChunkAt]:
        """Chunks that a request touches, time-outer, channel-inner."""
        numbers = range(*self._extent(request))
        return [ChunkAt(request.target, channel, number) for number in numbers for channel in request.channels]

    def _by_bytes(self, requests: Sequence[Request]) -> Iterator[list[Request]]:
        """Cut requests into lists of which each fits into memory, encoded: no chunk is larger than its levels."""
        some: list[Request] = []
        size = 0
        for request in requests:
            length = len(self._places(request)) * self.layout.chunk_frames * self.layout.bins
            if some and size + length > BATCH_BYTES:
                yield some
                some, size = [], 0
            some.append(request)
            size += length
        if some:
            yield some

    def _decode(self, request: Request, chunks: Sequence[EncodedChunk | None], look_up: LookUp, missing: float) -> None:
        size, start = self.layout.chunk_frames, request.start
        stop = start + request.out.shape[1]
        decoded: EncodedChunk | None = None
        levels = _NO_LEVELS
        for i, chunk in enumerate(chunks):
            number, channel = divmod(i, len(request.channels))
            first = (start // size + number) * size
            begin, end = max(start, first), min(stop, first + size)
            out = request.out[channel, begin - start : end - start]
            if chunk is None:
                out[...] = missing
                continue
            # channels that are equal share their bytes
            if channel == 0 or decoded is None or chunk.identity != decoded.identity:
                if request.picks is not None:
                    end = start + int(request.picks[-1]) + 1
                try:
                    levels = self._rows(chunk, begin - first, end - first)[:, request.bins]
                except JpegError as error:
                    at = ChunkAt(request.target, request.channels[channel], first // size)
                    raise DamagedError(f"{self._chunk(at, request.row)}: {error}") from error
                decoded = chunk
            look_up(levels if request.picks is None else levels[request.picks], out)

    def _rows(self, chunk: EncodedChunk, first: int, stop: int) -> NDArray[np.uint8]:
        """Decode rows of a chunk, whose header and markers are checked when it is read for the first time."""
        segments = self._checked.get(chunk.identity)
        if segments is None:
            segments = self._decoder.segments(chunk.data)
            if segments is not None:
                self._checked.put(chunk.identity, segments, len(segments.ends) * 4 + _CHECKED_OVERHEAD_BYTES)
        return self._decoder.decode(chunk.data, first, stop, segments)

    def _bin_count(self, bins: slice) -> int:
        return len(range(*bins.indices(self.layout.bins)))

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
            array = zarr_array(self.storage.store, MAGNITUDE, self._arrays[MAGNITUDE])
        except Exception as error:  # zarr raises what its codecs happen to raise
            raise DamagedError(f"{self.name}: the metadata of /{MAGNITUDE} can't be used: {error}") from error
        for i, target in enumerate(targets):
            for j, channel in enumerate(channels):
                try:
                    out[i, j] = array.oindex[target, channel, frames, bins]
                except Exception as error:  # zarr raises what its codecs happen to raise
                    at = ChunkAt(target, channel, int(frames[0]) // self.layout.chunk_frames)
                    raise DamagedError(f"{self._channel(at, row)} can't be read: {error}") from error
                # for zarr, what is missing is NaN, whether it must be there or not
                for number in np.unique(frames[np.isnan(out[i, j]).any(axis=-1)] // self.layout.chunk_frames):
                    at = ChunkAt(target, channel, int(number))
                    if self._must_be_there(at, row):
                        raise DamagedError(f"{self._chunk(at, row)} is missing")
        self._check_same_store()
        return out


def _groups(frames: NDArray[np.int64], size: int) -> Iterator[slice]:
    """Cut rising frames where a multiple of a size lies between."""
    ends = np.flatnonzero(np.diff(frames // size)) + 1
    for begin, end in pairwise([0, *ends.tolist(), len(frames)]):
        yield slice(begin, end)


def _are_neighbours(rising: NDArray[np.int64]) -> bool:
    return int(rising[-1] - rising[0]) == len(rising) - 1
