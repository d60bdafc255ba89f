"""Bytes to arrays: chunks of magnitudes and columns of the track table.

Conventions
-----------
Positions, not labels: targets and channels count from 0, frames along the packed axis of the whole store, and chunks
along that axis from its start. What comes back is (targets, channels, frames, bins).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from norbert_store.errors import DamagedError, JpegError, StoreNotFoundError
from norbert_store.format.document import MAGNITUDE, ROOT_KEY, TRACK_GROUP, Document, shard_key
from norbert_store.format.shard import ShardIndex, read_tail, tail_bytes, without_checksum
from norbert_store.format.table import ROWS_PER_CHUNK
from norbert_store.jpeg import stream
from norbert_store.levels import dequantize, table
from norbert_store.storage import Location, Storage, decode_array

_INDEXES_KEPT = 1024


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
        data = self.storage.get(ROOT_KEY)
        if data is None:
            raise StoreNotFoundError(f"there is no store at {self.storage.name}: expected a {ROOT_KEY} there")
        self.document = Document.from_json(data, self.storage.name)
        self.layout = self.document.layout
        self.table = table(self.layout.curve)
        self._indexes: dict[tuple[int, int], ShardIndex] = {}
        self._blocks: dict[tuple[str, int], NDArray[Any]] = {}

    @property
    def name(self) -> str:
        """The store's location, for people."""
        return self.storage.name

    @cached_property
    def _arrays(self) -> dict[str, dict[str, Any]]:
        return self.document.arrays()

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
        return self._read_rows(path, 0, slice(None))

    def _read_rows(self, path: str, chunk: int, rows: slice) -> NDArray[Any]:
        """Read rows that lie in one chunk, in one request."""
        metadata = self._arrays[path]
        key = "/".join(["c", str(chunk), *["0"] * (len(metadata["shape"]) - 1)])
        data = self.storage.get(f"{path}/{key}")
        if data is None and 0 not in metadata["shape"]:
            raise DamagedError(f"{self.name}: {path}/{key} is missing")
        try:
            values = np.asarray(decode_array(metadata, {} if data is None else {key: data})[rows])
        except Exception as error:  # zarr raises what its codecs happen to raise
            raise DamagedError(f"{self.name}: {path}/{key} can't be read: {error}") from error
        return values if values.dtype.kind in "biuf" else values.astype(object)

    # ---- the track table

    def column(self, name: str) -> NDArray[Any]:
        """Read a whole column of the track table; text as objects."""
        blocks = range(-(-self.document.tracks // ROWS_PER_CHUNK))
        if not blocks:
            return self._block(name, 0)
        return np.concatenate([self._block(name, block) for block in blocks])

    def cell(self, name: str, row: int) -> Any:
        """Read one row of a column."""
        return self._block(name, row // ROWS_PER_CHUNK)[row % ROWS_PER_CHUNK]

    def _block(self, name: str, block: int) -> NDArray[Any]:
        if (name, block) not in self._blocks:
            rows = slice(block * ROWS_PER_CHUNK, min(self.document.tracks, (block + 1) * ROWS_PER_CHUNK))
            values = self._read_rows(f"{TRACK_GROUP}/{name}", block, rows)
            self._blocks[name, block] = values
        return self._blocks[name, block]

    # ---- chunks

    def jpeg(self, target: int, channel: int, chunk: int, track: str = "") -> bytes | None:
        """Read one chunk's JPEG, without its checksum; None where there is none.

        Parameters
        ----------
        target, channel, chunk : int
        track : str
            Name of the track, for errors.

        Raises
        ------
        DamagedError
            If it is cut short, or fails its checksum.
        """
        (data,) = self._jpegs(target, [(channel, chunk)], track).values()
        return data

    def magnitude(
        self,
        targets: Sequence[int],
        channels: Sequence[int],
        frames: NDArray[np.int64],
        bins: slice,
        present: Sequence[bool] | None = None,
        track: str = "",
    ) -> NDArray[np.float32]:
        """Read magnitudes.

        Parameters
        ----------
        targets, channels : sequence of int
        frames : ndarray of int
            Positions along the packed axis, in any order.
        bins : slice
        present : sequence of bool, optional
            For each of ``targets``, whether its chunks must be there. If left out, none must.
        track : str
            Name of the track, for errors.

        Returns
        -------
        ndarray of float32
            (targets, channels, frames, bins); NaN where there is no chunk.

        Raises
        ------
        DamagedError
            If a chunk that must be there isn't, is cut short, or fails its checksum.
        """
        out = np.full((len(targets), len(channels), len(frames), self._bin_count(bins)), np.nan, np.float32)
        if self.layout.codecs is not None:
            return self._magnitude_by_zarr(out, targets, channels, frames, bins, track)
        for place, levels in self._pieces(targets, channels, frames, present, track):
            out[place] = dequantize(levels[:, bins], self.table)
        return out

    def levels(
        self,
        targets: Sequence[int],
        channels: Sequence[int],
        frames: NDArray[np.int64],
        bins: slice,
        present: Sequence[bool] | None = None,
        track: str = "",
    ) -> NDArray[np.uint8]:
        """Read levels; as `magnitude`, but uint8, and 0 where there is no chunk.

        Raises
        ------
        DamagedError
            As `magnitude`.
        ValueError
            If the store's codecs are others than this format's, so that it has no levels.
        """
        self._check_own_codecs("levels")
        out = np.zeros((len(targets), len(channels), len(frames), self._bin_count(bins)), np.uint8)
        for place, levels in self._pieces(targets, channels, frames, present, track):
            out[place] = levels[:, bins]
        return out

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
        track: str,
    ) -> NDArray[np.float32]:
        array = self.storage.array(MAGNITUDE, self._arrays[MAGNITUDE])
        for i, target in enumerate(targets):
            for j, channel in enumerate(channels):
                try:
                    out[i, j] = array.oindex[target, channel, frames, bins]
                except Exception as error:  # zarr raises what its codecs happen to raise
                    raise DamagedError(f"{self._place(target, channel, track)} can't be read: {error}") from error
        return out

    def _pieces(
        self,
        targets: Sequence[int],
        channels: Sequence[int],
        frames: NDArray[np.int64],
        present: Sequence[bool] | None,
        track: str,
    ) -> Iterator[tuple[tuple[Any, ...], NDArray[np.uint8]]]:
        """Yield (where in the result, levels of those frames and all bins) for every chunk that is there."""
        scratch = np.empty((self.layout.chunk_frames, self.layout.bins), np.uint8)
        chunk_of_frame = frames // self.layout.chunk_frames
        chunks = [int(chunk) for chunk in np.unique(chunk_of_frame)]
        for i, target in enumerate(targets):
            found = self._jpegs(target, [(channel, chunk) for chunk in chunks for channel in channels], track)
            for chunk in chunks:
                where = _as_slice(np.flatnonzero(chunk_of_frame == chunk))
                rows = _as_slice(frames[where] - chunk * self.layout.chunk_frames)
                for j, channel in enumerate(channels):
                    data = found[channel, chunk]
                    if data is not None:
                        self._decode(data, scratch, target, channel, chunk, track)
                        yield (i, j, where), scratch[rows]
                    elif present is not None and present[i]:
                        raise DamagedError(f"{self.place(target, channel, chunk, track)} is missing")

    def _decode(self, data: bytes, out: NDArray[np.uint8], target: int, channel: int, chunk: int, track: str) -> None:
        try:
            stream.decode(data, out)
        except JpegError as error:
            raise DamagedError(f"{self.place(target, channel, chunk, track)}: {error}") from error

    def _jpegs(self, target: int, places: Sequence[tuple[int, int]], track: str) -> dict[tuple[int, int], bytes | None]:
        """Read the JPEGs of one target at (channel, chunk), in one request for each run of neighbours."""
        found: dict[tuple[int, int], bytes | None] = dict.fromkeys(places)
        by_shard: dict[int, dict[tuple[int, int], tuple[int, int]]] = {}
        for channel, chunk in places:
            shard, within = divmod(chunk, self.layout.shard_chunks)
            index = self.index(target, shard, track)
            span = None if index is None else index.place(channel, within)
            if span is not None:
                by_shard.setdefault(shard, {})[channel, chunk] = span
        for shard, spans in by_shard.items():
            key = shard_key(target, shard)
            runs = {run: self.storage.get_range(key, *run) or b"" for run in _runs(spans.values())}
            for (channel, chunk), (offset, length) in spans.items():
                start, data = next((run[0], data) for run, data in runs.items() if run[0] <= offset < sum(run))
                try:
                    found[channel, chunk] = without_checksum(data[offset - start : offset - start + length])
                except DamagedError as error:
                    place = self.place(target, channel, chunk, track)
                    raise DamagedError(f"{place}, at byte {offset} of {key}: {error}") from None
        return found

    def index(self, target: int, shard: int, track: str = "") -> ShardIndex | None:
        """Read a shard's index, or remember it; None where there is no such shard.

        Raises
        ------
        DamagedError
            If it is cut short, fails its checksum, or belongs to another shard.
        """
        known = self._indexes.get((target, shard))
        if known is not None:
            return known
        self._check_own_codecs("chunks of this format")
        channels, chunks = len(self.document.channels), self.layout.shard_chunks
        key = shard_key(target, shard)
        tail = self.storage.get_suffix(key, tail_bytes(channels, chunks))
        if tail is None:
            return None
        try:
            index = read_tail(tail, channels, chunks, target, shard)
        except DamagedError as error:
            label = self.document.targets[target]
            of_track = f"track {track!r}, " if track else ""
            raise DamagedError(f"{self.name}: {of_track}target {label!r}: the index of {key}: {error}") from None
        self._indexes[target, shard] = index
        if len(self._indexes) > _INDEXES_KEPT:
            self._indexes.pop(next(iter(self._indexes)), None)
        return index

    def place(self, target: int, channel: int, chunk: int, track: str = "") -> str:
        """Name a chunk by its place along the packed axis, for errors."""
        return f"{self._place(target, channel, track)}, packed chunk {chunk}"

    def _place(self, target: int, channel: int, track: str) -> str:
        of_track = f"track {track!r}, " if track else ""
        labels = f"target {self.document.targets[target]!r}, channel {self.document.channels[channel]!r}"
        return f"{self.name}: {of_track}{labels}"


def _as_slice(positions: NDArray[np.int64]) -> Any:
    """Positions as a slice, if they rise one by one: slices are read without a copy."""
    if len(positions) and positions[-1] - positions[0] == len(positions) - 1 and (np.diff(positions) == 1).all():
        return slice(int(positions[0]), int(positions[-1]) + 1)
    return positions


def _runs(spans: Any) -> list[tuple[int, int]]:
    """Join spans (offset, length) that touch."""
    runs: list[tuple[int, int]] = []
    for offset, length in sorted(set(spans)):
        if runs and offset <= sum(runs[-1]):
            start, joined = runs[-1]
            runs[-1] = start, max(joined, offset + length - start)
        else:
            runs.append((offset, length))
    return runs
