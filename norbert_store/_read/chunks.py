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

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from norbert_store._format.layout import shard_key
from norbert_store._format.shard import CHECKSUM_BYTES, ShardIndex, checksum_matches, read_tail, tail_bytes
from norbert_store._jpeg import stream
from norbert_store._read.snapshot import OpenedStore
from norbert_store._storage.cache import Recent
from norbert_store._storage.folder import FileState
from norbert_store._storage.storage import Location
from norbert_store.errors import DamagedError, NorbertStoreError

_INDEX_BYTES_KEPT = 16 * 2**20
_INDEX_OVERHEAD_BYTES = 600  # of the objects around it
BATCH_BYTES = 32 * 2**20

# What lies between two chunks is read along, if it is no more than this, and than they are: another request would cost
# more.
_SMALL_GAP = 64 * 2**10

# A coefficient takes up to 26 bits in a baseline JPEG, and every byte of them may have to be escaped.
_MOST_BYTES_PER_PIXEL = 8
_MOST_HEADER_BYTES = 2**18

_NO_CHUNK = 2**64 - 1

_ShardAt = tuple[int, int]  # target, and position along the packed axis in shards


class ChunkAt(NamedTuple):
    """Which chunk: its target, its channel, and its position along the packed axis in chunks."""

    target: int
    channel: int
    number: int


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


class ChunkReader(OpenedStore):
    """Reads encoded chunks.

    Parameters
    ----------
    location : str, path or zarr store
    """

    def __init__(self, location: Location) -> None:
        super().__init__(location)
        self._indexes: Recent[_ShardAt, _KnownShard] = Recent(_INDEX_BYTES_KEPT)

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
        ((_, found),) = self.chunks([ChunkAt(target, channel, chunk)], row)
        return None if found is None else found.data

    def chunks_in_files(
        self, target: int, channels: Sequence[int], first: int, stop: int, row: int | None
    ) -> Sequence[EncodedChunk | None]:
        """Read neighbours from files: as a rule in one piece, without ado; else with all care.

        Parameters
        ----------
        target : int
        channels : sequence of int
        first, stop : int
            ``first <= chunk < stop``.
        row : int, optional
            Of the track that all of them belong to; looked up, if it must be known.

        Returns
        -------
        sequence of EncodedChunk or None
            Time-outer, channel-inner; None where there is none, and none must be.

        Raises
        ------
        DamagedError
            As `jpeg`.
        """
        found = self._at_once(target, channels, first, stop, row)
        if found is not None:
            return found
        places = [ChunkAt(target, channel, number) for number in range(first, stop) for channel in channels]
        chunks = dict(self.chunks(places, row))
        return [chunks[at] for at in places]

    def _at_once(
        self, target: int, channels: Sequence[int], first: int, stop: int, row: int | None
    ) -> list[EncodedChunk] | None:
        """Read a piece of each shard; None if anything is out of the ordinary."""
        found: list[EncodedChunk] = []
        while first < stop:
            shard, within = divmod(first, self.layout.shard_chunks)
            count = min(stop - first, self.layout.shard_chunks - within)
            known = self._indexes.get((target, shard))
            if known is None:
                known = self._load_indexes({(target, shard): [ChunkAt(target, channels[0], first)]}, row)[target, shard]
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
        local = self.storage.local
        begin = min(entries)[0]
        end = max(map(sum, entries))
        if local is None or end > _NO_CHUNK or end - begin > 2 * sum(length for _, length in entries):
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

    def _check_own_codecs(self, what: str) -> None:
        if self.layout.codecs is not None:
            names = ", ".join(str(codec.get("name")) for codec in self.layout.codecs)
            raise ValueError(f"{self.name} has no {what}: its chunks are encoded by {names}; read its magnitudes")

    # ---- from shards

    @property
    def _tail_bytes(self) -> int:
        return tail_bytes(len(self.document.channels), self.layout.shard_chunks)

    def chunks(self, wanted: Iterable[ChunkAt], row: int | None) -> Iterator[tuple[ChunkAt, EncodedChunk | None]]:
        """Read JPEGs, shard by shard, in batches that memory holds; None where there is none, and none must be."""
        self._check_own_codecs("chunks of this format")
        for some in _some_shards(wanted, self.layout.shard_chunks, most=max(1, BATCH_BYTES // self._tail_bytes)):
            for batch in _batches(self._spans(some, row)):
                found, faults = self._fetch(batch)
                lost = self._lost(found, faults, row)
                if lost:
                    found |= self._fetch_again(lost, row)
                yield from found.items()
                found.clear()  # before the next ones are read

    def _fetch_again(self, lost: Sequence[ChunkAt], row: int | None) -> dict[ChunkAt, EncodedChunk | None]:
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
        self, found: Mapping[ChunkAt, EncodedChunk | None], faults: Mapping[ChunkAt, str], row: int | None
    ) -> list[ChunkAt]:
        return [at for at, data in found.items() if data is None and (at in faults or self._must_be_there(at, row))]

    def _fetch(
        self, spans: Mapping[ChunkAt, _Span | None]
    ) -> tuple[dict[ChunkAt, EncodedChunk | None], dict[ChunkAt, str]]:
        """Read chunks, all at once; None where there is none. And what is wrong with those that are damaged."""
        found: dict[ChunkAt, EncodedChunk | None] = dict.fromkeys(spans)
        faults: dict[ChunkAt, str] = {}
        runs, run_of_span = _runs({span for span in spans.values() if span is not None})
        data_of_runs = self.storage.get_ranges(runs) if runs else []
        states = {key: self.storage.state(key) for key, _, _ in runs}
        for at, span in spans.items():
            if span is None:
                continue
            run = run_of_span[span]
            begin = span.offset - runs[run][1]
            data = (data_of_runs[run] or b"")[begin : begin + span.length]
            if checksum_matches(data):
                found[at] = _encoded(span.key, span.offset, data)
            else:
                faults[at] = f", at byte {span.offset} of {span.key}: the checksum of {len(data)} bytes doesn't match"
            if states[span.key] != span.state:
                found[at] = None
                faults.setdefault(at, f": {span.key} was written while it was read; read it again")
        return found, faults

    def _spans(self, shards: Mapping[_ShardAt, Sequence[ChunkAt]], row: int | None) -> dict[ChunkAt, _Span | None]:
        """Look up where chunks lie; None where there is no chunk."""
        known = self._load_indexes(shards, row)
        spans: dict[ChunkAt, _Span | None] = {}
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
        first = ChunkAt(target, 0, shard * self.layout.shard_chunks)
        return self._load_indexes({(target, shard): [first]}, None)[target, shard].index

    def _load_indexes(
        self, shards: Mapping[_ShardAt, Sequence[ChunkAt]], row: int | None
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

    def _must_be_there(self, at: ChunkAt, row: int | None) -> bool:
        row = self._row_at(at) if row is None else row
        return row is not None and bool(self.cell("present", row)[at.target])

    def _row_at(self, at: ChunkAt) -> int | None:
        """Find the track that a chunk belongs to; rows are in the order of the packed axis."""
        frame = at.number * self.layout.chunk_frames
        row = bisect_right(range(self.document.tracks), frame, key=lambda row: self.cell("start", row)) - 1
        if row < 0:
            return None
        start, frames = self.cells(("start", "frames"), row)
        return row if at.number < start // self.layout.chunk_frames + self.layout.chunks(frames) else None

    def _track(self, at: ChunkAt, row: int | None) -> str:
        """Name a track at the beginning of an error, if that can be."""
        try:
            row = self._row_at(at) if row is None else row
            return self.name if row is None else f"{self.name}: track {self.cell('name', row)!r}"
        except NorbertStoreError:  # must not hide what is to be told
            return self.name

    def _target(self, at: ChunkAt, row: int | None) -> str:
        return f"{self._track(at, row)}, target {self.document.targets[at.target]!r}"

    def _channel(self, at: ChunkAt, row: int | None) -> str:
        return f"{self._target(at, row)}, channel {self.document.channels[at.channel]!r}"

    def _chunk(self, at: ChunkAt, row: int | None) -> str:
        return f"{self._channel(at, row)}, packed chunk {at.number}"


def _encoded(key: str, offset: int, with_checksum: bytes) -> EncodedChunk:
    checksum = with_checksum[-CHECKSUM_BYTES:]
    return EncodedChunk(with_checksum[:-CHECKSUM_BYTES], (key, offset, checksum))


def _some_shards(wanted: Iterable[ChunkAt], shard_chunks: int, most: int) -> Iterator[dict[_ShardAt, list[ChunkAt]]]:
    """Sort chunks by shard, and hand them out before there are more shards than ``most``."""
    shards: dict[_ShardAt, list[ChunkAt]] = {}
    for at in wanted:
        shard = at.target, at.number // shard_chunks
        if shard not in shards and len(shards) == most:
            yield shards
            shards = {}
        shards.setdefault(shard, []).append(at)
    if shards:
        yield shards


def _batches(spans: Mapping[ChunkAt, _Span | None]) -> Iterator[dict[ChunkAt, _Span | None]]:
    """Cut what is to be read into batches of `BATCH_BYTES`."""
    batch: dict[ChunkAt, _Span | None] = {}
    size = 0
    for at, span in spans.items():
        length = 0 if span is None else span.length
        if batch and size + length > BATCH_BYTES:
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
