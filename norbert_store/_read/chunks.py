"""Encoded chunks out of shards.

Conventions
-----------
Positions, not labels: targets and channels count from 0, chunks along the packed axis of the whole store.

The store's extents tell where each chunk lies in its shard, how long it is, and its CRC-32C. So what a read needs is
asked for at once, in batches, neighbours in one range. Length and CRC decide: what isn't at its offset, in a shard that
was made again, is looked for by that shard's own index.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from norbert_store._format.layout import ChunkAt, shard_key
from norbert_store._format.shard import (
    CHECKSUM_BYTES,
    ShardIndex,
    checksum_matches,
    index_bytes,
    largest_chunk,
)
from norbert_store._read.snapshot import Snapshot
from norbert_store.errors import DamagedError

BATCH_BYTES = 32 * 2**20

# What lies between two chunks is read along, if it is no more than this, and than they are: another request would cost
# more.
_SMALL_GAP = 64 * 2**10


class Extent(NamedTuple):
    """Where a chunk lies: the key of its shard, offset and length there, with the checksum, and that checksum."""

    key: str
    offset: int
    length: int
    checksum: int


class EncodedChunk(NamedTuple):
    """A chunk's bytes.

    Attributes
    ----------
    data : bytes
        Without the checksum, which was right.
    extent : Extent
        What names these bytes, however often they are read.
    """

    data: bytes
    extent: Extent


class Chunks:
    """Reads the encoded chunks of one committed state.

    Parameters
    ----------
    snapshot : Snapshot
    """

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self._storage = snapshot.storage
        self._layout = snapshot.layout
        self._channels = len(snapshot.document.channels)
        self._most_bytes = largest_chunk(self._layout.chunk_frames, self._layout.bins)

    def jpeg(self, at: ChunkAt) -> bytes | None:
        """Read one chunk's JPEG, without its checksum; None where there is none, and none must be.

        Raises
        ------
        DamagedError
            If it is missing, cut short, or fails its checksum.
        """
        with self.snapshot.naming():
            ((_, found),) = self.read([at])
        return None if found is None else found.data

    def read_files(self, first: ChunkAt, channels: Sequence[int], stop: int) -> Sequence[EncodedChunk | None]:
        """Read neighbours from files: as a rule in one piece, without ado; else with all care.

        Parameters
        ----------
        first : ChunkAt
            Whose target, and row, all of them have.
        channels : sequence of int
        stop : int
            Position behind the last.

        Returns
        -------
        sequence of EncodedChunk or None
            Time-outer, channel-inner; None where there is none, and none must be.

        Raises
        ------
        DamagedError
            If one is missing, cut short, or fails its checksum.
        """
        found = self._read_pieces(first.target, channels, first.number, stop)
        if found is not None:
            return found
        wanted = [
            ChunkAt(first.target, channel, number, first.row)
            for number in range(first.number, stop)
            for channel in channels
        ]
        chunks = dict(self.read(wanted))
        return [chunks[at] for at in wanted]

    def _read_pieces(self, target: int, channels: Sequence[int], first: int, stop: int) -> list[EncodedChunk] | None:
        """Read a piece of each shard; None if anything is out of the ordinary."""
        found: list[EncodedChunk] = []
        for begin, end in self._layout.by_shard(first, stop):
            # (chunks, channels, parts)
            extents = self.snapshot.extents(target, begin, end).transpose(2, 1, 0)[:, channels].reshape(-1, 3).tolist()
            piece = self._piece(shard_key(target, self._layout.shard_of(begin)), extents)
            if piece is None:
                return None
            found += piece
        return found

    def _piece(self, key: str, extents: Sequence[Sequence[int]]) -> list[EncodedChunk] | None:
        """Read chunks (offset, length, checksum) of a shard by one range; None if anything is out of the ordinary."""
        local = self._storage.local
        if local is None or not all(length for _, length, _ in extents):
            return None
        begin = min(offset for offset, _, _ in extents)
        end = max(offset + length for offset, length, _ in extents)
        total = sum(length for _, length, _ in extents)
        if end - begin > 2 * total or total > len(extents) * self._most_bytes:
            return None
        data = local.get(key, begin, end - begin)
        if data is None:
            return None
        found: list[EncodedChunk] = []
        seen: dict[Extent, EncodedChunk] = {}  # equal chunks are stored once
        for offset, length, checksum in extents:
            extent = Extent(key, offset, length, checksum)
            chunk = seen.get(extent)
            if chunk is None:
                bytes_of_chunk = data[offset - begin : offset - begin + length]
                if not checksum_matches(bytes_of_chunk, checksum):
                    return None
                chunk = seen[extent] = EncodedChunk(bytes_of_chunk[:-CHECKSUM_BYTES], extent)
            found.append(chunk)
        return found

    def read(self, wanted: Iterable[ChunkAt]) -> Iterator[tuple[ChunkAt, EncodedChunk | None]]:
        """Read JPEGs in batches that memory holds; None where there is none, and none must be.

        Raises
        ------
        DamagedError
            If one is missing, cut short, or fails its checksum.
        """
        for batch in self._batches(self._extents(list(wanted))):
            runs, run_of_extent = _runs({extent for extent in batch.values() if extent is not None})
            data_of_runs = self._storage.get_ranges(runs) if runs else []
            for at, extent in batch.items():
                if extent is None:
                    yield at, None
                    continue
                run = run_of_extent[extent]
                begin = extent.offset - runs[run][1]
                data = (data_of_runs[run] or b"")[begin : begin + extent.length]
                if not checksum_matches(data, extent.checksum):
                    extent, data = self._read_again(at, data)
                yield at, EncodedChunk(data[:-CHECKSUM_BYTES], extent)

    def _extents(self, wanted: Sequence[ChunkAt]) -> dict[ChunkAt, Extent | None]:
        """Look up where chunks lie; None where there is none, and none must be."""
        self.snapshot.load_extents((at.target, at.number) for at in wanted)
        found: dict[ChunkAt, Extent | None] = {}
        for at in wanted:
            extents = self.snapshot.extents(at.target, at.number, at.number + 1)
            offset, length, checksum = extents[:, at.channel, 0].tolist()
            key = shard_key(at.target, self._layout.shard_of(at.number))
            if length == 0 and self.snapshot.must_be_there(at):
                raise DamagedError("the extents have no such chunk", at=at)
            if length > self._most_bytes:
                raise DamagedError(
                    f"a chunk has at most {self._most_bytes} bytes; this one has {length}", key=key, at=at
                )
            found[at] = Extent(key, offset, length, checksum) if length else None
        return found

    def _read_again(self, at: ChunkAt, found: bytes) -> tuple[Extent, bytes]:
        """Read a chunk that isn't where it was: its shard may have been made again, with the same chunks or others.

        Raises
        ------
        StoreReplacedError, StoreChangedError
            If it belongs to another state by now.
        DamagedError
            If it isn't there either.
        """
        self.snapshot.look_again()
        self.snapshot.forget_extents(at.target, at.number)
        extent = self._extents([at])[at]
        if extent is not None:
            for key in self.snapshot.places_of(extent.key):
                for offset in self._offsets(key, at, extent):
                    data = self._storage.get_range(key, offset, extent.length) or b""
                    if checksum_matches(data, extent.checksum):
                        return extent, data
        problem = f"the checksum of {len(found)} bytes doesn't match"
        if checksum_matches(found):
            problem = "the chunk isn't that of this state of the store: its checksum is another one"
        if not found:
            problem = "the file is missing or cut off"
        shard = shard_key(at.target, self._layout.shard_of(at.number))
        raise DamagedError(problem, key=shard, offset=None if extent is None else extent.offset, at=at)

    def _offsets(self, key: str, at: ChunkAt, extent: Extent) -> Iterator[int]:
        """Where a chunk may lie: by its extent, and by the index of its shard."""
        yield extent.offset
        index = self._index(key)
        place = None if index is None else index.place(at.channel, self._layout.within_shard(at.number))
        if place is not None and place[1] == extent.length:
            yield place[0]

    def _index(self, key: str) -> ShardIndex | None:
        size = index_bytes(self._channels, self._layout.shard_chunks)
        data = self._storage.get_suffix(key, size)
        try:
            return None if data is None else ShardIndex.parse(data, self._channels, self._layout.shard_chunks)
        except DamagedError:
            return None

    def _batches(self, extents: Mapping[ChunkAt, Extent | None]) -> Iterator[dict[ChunkAt, Extent | None]]:
        """Cut what is to be read into batches of `BATCH_BYTES`."""
        batch: dict[ChunkAt, Extent | None] = {}
        size = 0
        for at, extent in extents.items():
            length = 0 if extent is None else extent.length
            if batch and size + length > BATCH_BYTES:
                yield batch
                batch, size = {}, 0
            batch[at] = extent
            size += length
        if batch:
            yield batch


def _runs(extents: Iterable[Extent]) -> tuple[list[tuple[str, int, int]], dict[Extent, int]]:
    """Join extents that nearly touch into runs (key, offset, length); and tell which run each is in."""
    runs: list[tuple[str, int, int]] = []
    run_of_extent = {}
    for extent in sorted(extents):
        key, start, length = runs[-1] if runs else ("", 0, 0)
        gap = extent.offset - start - length
        if extent.key == key and gap <= min(_SMALL_GAP, length + extent.length):
            runs[-1] = key, start, max(length, extent.offset + extent.length - start)
        else:
            runs.append(extent[:3])
        run_of_extent[extent] = len(runs) - 1
    return runs, run_of_extent
