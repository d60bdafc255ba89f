"""Encoded chunks out of shards.

Conventions
-----------
Positions, not labels: targets and channels count from 0, chunks along the packed axis of the whole store.

What a read needs is read in two steps, each of which asks the storage for all at once: the indexes of shards that
aren't known yet, and then, in batches, the chunks, neighbours in one range. Indexes are remembered, up to a number of
bytes.

Others may write to a store while it is open here. Tracks that are appended change nothing of what was there. A shard
that is made again is noticed by its file's state, in a folder, or else by the checksums of its chunks; its index is
then read once more. What still fails is an error.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from norbert_store._format.layout import ChunkAt, shard_key
from norbert_store._format.shard import (
    CHECKSUM_BYTES,
    LARGEST_FILE,
    MISSING,
    ShardIndex,
    checksum_matches,
    largest_chunk,
    read_tail,
    tail_bytes,
)
from norbert_store._read.snapshot import Snapshot
from norbert_store._storage.cache import Recent
from norbert_store._storage.folder import FileState
from norbert_store.errors import DamagedError

_INDEX_BYTES_KEPT = 16 * 2**20
_INDEX_OVERHEAD_BYTES = 600  # of the objects around it
BATCH_BYTES = 32 * 2**20

# What lies between two chunks is read along, if it is no more than this, and than they are: another request would cost
# more.
_SMALL_GAP = 64 * 2**10

_ShardAt = tuple[int, int]  # target, and position along the packed axis in shards


class EncodedChunk(NamedTuple):
    """A chunk's bytes.

    Attributes
    ----------
    data : bytes
        Without the checksum, which was right.
    identity : tuple
        Key of the shard, offset there, and checksum: what names these bytes, however often they are read.
    """

    data: bytes
    identity: tuple[str, int, bytes]


class _Place(NamedTuple):
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
        self._tail_bytes = tail_bytes(self._channels, self._layout.shard_chunks)
        self._indexes: Recent[_ShardAt, _KnownShard] = Recent(_INDEX_BYTES_KEPT)

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
        shard_chunks = self._layout.shard_chunks
        while first < stop:
            shard, within = divmod(first, shard_chunks)
            count = min(stop - first, shard_chunks - within)
            known = self._indexes.get((target, shard))
            if known is None:
                known = self._load_indexes([(target, shard)])[target, shard]
            if known.index is None:
                return None
            entries = known.index.entries[:, within : within + count].tolist()
            piece = self._piece(
                shard_key(target, shard),
                known.state,
                [entries[channel][i] for i in range(count) for channel in channels],
            )
            if piece is None:
                return None
            found += piece
            first += count
        return found

    def _piece(
        self, key: str, state: FileState | None, entries: Sequence[tuple[int, int]]
    ) -> list[EncodedChunk] | None:
        """Read chunks (offset, length) of a shard by one range; None if anything is out of the ordinary."""
        local = self._storage.local
        begin = min(entries)[0]
        end = max(map(sum, entries))
        if local is None or end > LARGEST_FILE or end - begin > 2 * sum(length for _, length in entries):
            return None
        read = local.get_with_state(key, begin, end - begin)
        if read is None or read[1] != state:
            return None
        data = read[0]
        found: list[EncodedChunk] = []
        seen: dict[int, EncodedChunk] = {}  # equal chunks are stored once
        for offset, length in entries:
            chunk = seen.get(offset)
            if chunk is None:
                bytes_of_chunk = data[offset - begin : offset - begin + length]
                if not checksum_matches(bytes_of_chunk):
                    return None
                chunk = seen[offset] = _encoded(key, offset, bytes_of_chunk)
            found.append(chunk)
        return found

    # ---- from shards

    def read(self, wanted: Iterable[ChunkAt]) -> Iterator[tuple[ChunkAt, EncodedChunk | None]]:
        """Read JPEGs, shard by shard, in batches that memory holds; None where there is none, and none must be.

        Raises
        ------
        DamagedError
            If one is missing, cut short, or fails its checksum.
        FormatError
            If the store's chunks are encoded by other codecs.
        """
        self._layout.check_own_codecs(self.snapshot.name, "has no chunks of this format")
        for some in self._some_shards(wanted, most=max(1, BATCH_BYTES // self._tail_bytes)):
            for batch in _batches(self._places(some)):
                found, faults = self._fetch(batch)
                lost = self._lost(found, faults)
                if lost:
                    found |= self._fetch_again(lost)
                yield from found.items()
                found.clear()  # before the next ones are read

    def _some_shards(self, wanted: Iterable[ChunkAt], most: int) -> Iterator[dict[_ShardAt, list[ChunkAt]]]:
        """Sort chunks by shard, and hand them out before there are more shards than ``most``."""
        shards: dict[_ShardAt, list[ChunkAt]] = {}
        for at in wanted:
            shard = at.target, self._layout.shard_of(at.number)
            if shard not in shards and len(shards) == most:
                yield shards
                shards = {}
            shards.setdefault(shard, []).append(at)
        if shards:
            yield shards

    def _fetch_again(self, lost: Sequence[ChunkAt]) -> dict[ChunkAt, EncodedChunk | None]:
        """Read chunks by indexes that are read anew: their shards may have been made again in the meantime."""
        self.snapshot.check_current(in_doubt=True)
        shards = next(self._some_shards(lost, most=len(lost)))
        for shard in shards:
            self._indexes.drop(shard)
        found, faults = self._fetch(self._places(shards))
        for at in self._lost(found, faults):
            raise faults.get(at) or DamagedError("the chunk is missing", key=self._key(at), at=at)
        return found

    def _key(self, at: ChunkAt) -> str:
        return shard_key(at.target, self._layout.shard_of(at.number))

    def _lost(
        self, found: Mapping[ChunkAt, EncodedChunk | None], faults: Mapping[ChunkAt, DamagedError]
    ) -> list[ChunkAt]:
        return [at for at, data in found.items() if data is None and (at in faults or self.snapshot.must_be_there(at))]

    def _fetch(
        self, places: Mapping[ChunkAt, _Place | None]
    ) -> tuple[dict[ChunkAt, EncodedChunk | None], dict[ChunkAt, DamagedError]]:
        """Read chunks, all at once; None where there is none. And what is wrong with those that are damaged."""
        found: dict[ChunkAt, EncodedChunk | None] = dict.fromkeys(places)
        faults: dict[ChunkAt, DamagedError] = {}
        runs, run_of_place = _runs({place for place in places.values() if place is not None})
        data_of_runs = self._storage.get_ranges(runs) if runs else []
        states = {key: self._storage.state(key) for key, _, _ in runs}
        for at, place in places.items():
            if place is None:
                continue
            run = run_of_place[place]
            begin = place.offset - runs[run][1]
            data = (data_of_runs[run] or b"")[begin : begin + place.length]
            problem = ""
            if states[place.key] != place.state:
                problem = "the file was written while it was read; read it again"
            if not checksum_matches(data):
                problem = f"the checksum of {len(data)} bytes doesn't match"
            if problem:
                faults[at] = DamagedError(problem, key=place.key, offset=place.offset, at=at)
            else:
                found[at] = _encoded(place.key, place.offset, data)
        return found, faults

    def _places(self, shards: Mapping[_ShardAt, Sequence[ChunkAt]]) -> dict[ChunkAt, _Place | None]:
        """Look up where chunks lie; None where there is no chunk."""
        known = self._load_indexes(shards)
        places: dict[ChunkAt, _Place | None] = {}
        for shard, chunks in shards.items():
            index, state, key = known[shard].index, known[shard].state, shard_key(*shard)
            for at in chunks:
                entry = None if index is None else index.place(at.channel, self._layout.within_shard(at.number))
                places[at] = None if entry is None else _Place(key, *entry, state)
        return places

    def index(self, target: int, shard: int) -> ShardIndex | None:
        """Read a shard's index, or remember it; None where there is no such shard.

        Raises
        ------
        DamagedError
            If it is cut short, fails its checksum, or belongs to another shard.
        """
        self._layout.check_own_codecs(self.snapshot.name, "has no chunks of this format")
        with self.snapshot.naming():
            return self._load_indexes([(target, shard)])[target, shard].index

    def _load_indexes(self, shards: Iterable[_ShardAt]) -> dict[_ShardAt, _KnownShard]:
        """Read the indexes of shards, all at once, or remember them."""
        found, missing = {}, []
        for shard in shards:
            known = self._indexes.get(shard)
            if known is None:
                missing.append(shard)
            else:
                found[shard] = known
        if missing:
            keys = [shard_key(*shard) for shard in missing]
            states = [self._storage.state(key) for key in keys]
            size = self._tail_bytes
            tails = self._storage.get_ranges([(key, -size, size) for key in keys])
            self.snapshot.check_current()
            for shard, key, state, tail in zip(missing, keys, states, tails, strict=True):
                try:
                    index = None if tail is None else self._read_tail(tail, shard)
                except DamagedError as error:
                    first = ChunkAt(shard[0], -1, self._layout.first_chunk(shard[1]))
                    raise DamagedError(f"its index: {error}", key=key, at=first) from None
                found[shard] = _KnownShard(index, state)
                self._indexes.put(shard, found[shard], size + _INDEX_OVERHEAD_BYTES)
        return found

    def _read_tail(self, tail: bytes, shard: _ShardAt) -> ShardIndex:
        """Read an index, and refuse chunks of impossible size, so that nobody makes room for them."""
        index = read_tail(tail, self._channels, self._layout.shard_chunks, *shard)
        most = largest_chunk(self._layout.chunk_frames, self._layout.bins)
        lengths = index.entries[..., 1]
        for length in lengths[(lengths > most) & (lengths != MISSING)].tolist():
            raise DamagedError(f"a chunk has at most {most} bytes; there is one of {length}")
        return index


def _encoded(key: str, offset: int, with_checksum: bytes) -> EncodedChunk:
    checksum = with_checksum[-CHECKSUM_BYTES:]
    return EncodedChunk(with_checksum[:-CHECKSUM_BYTES], (key, offset, checksum))


def _batches(places: Mapping[ChunkAt, _Place | None]) -> Iterator[dict[ChunkAt, _Place | None]]:
    """Cut what is to be read into batches of `BATCH_BYTES`."""
    batch: dict[ChunkAt, _Place | None] = {}
    size = 0
    for at, place in places.items():
        length = 0 if place is None else place.length
        if batch and size + length > BATCH_BYTES:
            yield batch
            batch, size = {}, 0
        batch[at] = place
        size += length
    if batch:
        yield batch


def _runs(places: Iterable[_Place]) -> tuple[list[tuple[str, int, int]], dict[_Place, int]]:
    """Join places that nearly touch into runs (key, offset, length); and tell which run each is in."""
    runs: list[tuple[str, int, int]] = []
    run_of_place = {}
    for place in sorted(places, key=lambda place: place[:3]):
        key, start, length = runs[-1] if runs else ("", 0, 0)
        gap = place.offset - start - length
        if place.key == key and gap <= min(_SMALL_GAP, length + place.length):
            runs[-1] = key, start, max(length, place.offset + place.length - start)
        else:
            runs.append(place[:3])
        run_of_place[place] = len(runs) - 1
    return runs, run_of_place
