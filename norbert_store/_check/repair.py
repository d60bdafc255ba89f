"""What is damaged, made again: chunks from the audio that they were made of, everything else from the root's document.

Chunks that are whole are carried over as they are, and the others are encoded again, so that an unchanged source gives
back the same shard, byte for byte. Tracks that can't be made again may be dropped.

All states of a store share the chunks that rows of the track table lie in, so dropping a row moves others under
readers that have the store open: repair wants the store to itself, and takes the writer's lock. Before a row moves, all
that will be written is put aside in one file, and rows that move are taken out of the root's document, which tells
readers to open the store again. So whoever opens it, at any moment, sees rows that belong together, and a repair that
was cut off is brought to its end by the next one.
"""

from __future__ import annotations

import base64
import io
import json
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL.JpegImagePlugin import JpegImageFile
from zarr.storage import MemoryStore

from norbert_store._check.documents import coordinate_key, documents
from norbert_store._check.report import Fault, Report
from norbert_store._check.shards import check_index
from norbert_store._check.tracks import Rows
from norbert_store._check.verify import DROP_KEY, faults_of
from norbert_store._format.arrays import block_key, encode_block, json_bytes
from norbert_store._format.document import ROOT_KEY, Document
from norbert_store._format.layout import parse_shard_key, shard_key
from norbert_store._format.shard import (
    ChunkPlace,
    ShardIndex,
    pack,
    place_record,
    tail_bytes,
    with_checksum,
    without_checksum,
)
from norbert_store._format.table import TRACK_GROUP
from norbert_store._jpeg import stream
from norbert_store._lazy import lazy
from norbert_store._read.chunks import Chunks
from norbert_store._read.frames import Frames
from norbert_store._read.snapshot import Snapshot
from norbert_store._read.track import StoredTrack
from norbert_store._signature import spelled_out
from norbert_store._sources.files import AudioInfo
from norbert_store._sources.source import MIXTURE, Source
from norbert_store._spectra.bins import LinearBins, MelBands, ReadyBins, StoredTransform, transform_from_config
from norbert_store._storage.lock import WriterLock
from norbert_store._storage.storage import Location, Storage
from norbert_store._write.bundle import Bundle
from norbert_store.errors import (
    AudioError,
    DamagedError,
    FormatError,
    JpegError,
    NorbertStoreError,
    SourceError,
    StorageError,
)

OnProgress = Callable[[str, int, int], None]

# in levels, root mean square: more is another piece of music, however coarse the tables
_LARGEST_DIFFERENCE = 32.0
_EXPORT_AGAIN = "nothing else in the store says what it said; export the data set again"


@spelled_out()
def repair(
    location: Location,
    *,
    audio_root: str | os.PathLike[str] | None = None,
    drop: bool = False,
    progress: OnProgress | None = None,
) -> Report:
    """Make again what `norbert_store.verify` finds missing or damaged.

    Chunks are encoded again from the sources of their tracks, which must be as they were. Nobody else should have the
    store open meanwhile.

    Parameters
    ----------
    location : str, path or zarr store
    audio_root : str or path, optional
        A folder below which sources lie now, if they aren't any more where the track table says. Of what that says, the
        longest end that is there is taken: ``train/A - B``, or ``A - B``.
    drop : bool
        Whether tracks that can't be made again are taken out of the store. Their place stays unused.
    progress : callable, optional
        Called with ("checking", files done, all of them), and then with ("mending", files done, all of them).

    Returns
    -------
    Report
        What was done, and what is still wrong; true where the store is whole now.

    Raises
    ------
    StoreNotFoundError
        If there is nothing there.
    StoreInUseError
        If somebody is writing there.
    FormatError
        If the root's document is damaged, or the store has other codecs.
    StorageError
        If the store can't be read or written.
    """
    storage = Storage(location, read_only=False)
    _open(storage)  # so that no lock is left where there is no store
    with _writing(storage) as lock:
        _finish_drop(storage, lock)
        snapshot = _open(storage)
        workers = os.cpu_count() or 1
        faults = faults_of(snapshot, None, True, workers, _step("checking", progress))
        if not faults:
            return Report(snapshot.name)
        done = _Done()
        _mend_documents(snapshot, faults, done)
        shards = _Shards(snapshot, lock, None if audio_root is None else Path(audio_root))
        numbers = shards.mend(faults, done, _step("mending", progress))
        # rows that can't be read can't be written either
        if drop and shards.lost and not any(key.startswith(TRACK_GROUP) for key, _ in done.failed):
            numbers |= _drop(shards, done)
        else:
            done.failed += [(shards.title(row), reason) for row, reason in sorted(shards.lost.items())]
        if done.dropped or ROOT_KEY in done.mended:
            snapshot = _open(storage)
        left = faults_of(snapshot, sorted(numbers), True, workers)
        return Report(snapshot.name, tuple(left), tuple(done.mended), tuple(done.dropped), tuple(done.failed))


@dataclass
class _Done:
    """What was done so far; see `Report`."""

    mended: list[str] = field(default_factory=list)
    dropped: list[tuple[str, str]] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)


def _step(step: str, on_progress: OnProgress | None) -> Callable[[int, int], None]:
    return lambda done, total: on_progress(step, done, total) if on_progress else None


def _open(storage: Storage) -> Snapshot:
    try:
        snapshot = Snapshot.open(storage)
    except FormatError as error:
        raise FormatError(f"{error}. This can't be repaired: {_EXPORT_AGAIN}") from None
    snapshot.layout.check_own_codecs(snapshot.name, "can't be repaired")
    return snapshot


@contextmanager
def _writing(storage: Storage) -> Iterator[WriterLock]:
    lock = WriterLock(storage)
    try:
        yield lock
    finally:
        lock.release()


# ---- documents, coordinates and the track table


def _mend_documents(snapshot: Snapshot, faults: Sequence[Fault], done: _Done) -> None:
    """Write again what the root's document says; tell what it doesn't."""
    storage, written = snapshot.storage, documents(snapshot)
    coordinates = {coordinate_key(snapshot, path): path for path in ("target", "channel", "frequency")}
    for key, problem in {fault.key: fault.problem for fault in faults if fault.track is None}.items():
        if key == ROOT_KEY:  # all that readers depend on is there, or it couldn't be read
            storage.set(key, snapshot.document.to_json())
            done.mended.append(key)
        elif key in written:
            storage.set(key, json_bytes(written[key]))
            done.mended.append(key)
        elif key in coordinates and (values := _coordinate(snapshot.document, coordinates[key])) is not None:
            storage.set(key, encode_block(snapshot.arrays[coordinates[key]], values))
            done.mended.append(key)
        elif parse_shard_key(key) is None:
            done.failed.append((key, f"{problem}; {_EXPORT_AGAIN}"))


def _coordinate(document: Document, path: str) -> NDArray[Any] | None:
    """Values of /target, /channel or /frequency, if the root's document tells them."""
    if path != "frequency":
        return np.array(document.targets if path == "target" else document.channels, dtype=object)
    if document.transform["name"] in (LinearBins.name, MelBands.name):
        return transform_from_config(document.transform).frequencies
    return None


# ---- shards


@dataclass
class _Shard:
    """One shard that is made again.

    Attributes
    ----------
    target, number : int
    owners : ndarray of int
        See `norbert_store._check.tracks.Rows.owners`.
    chunks : dict
        Those that are whole, with their checksums.
    lost : set
        Those that must be there, and aren't whole.
    """

    target: int
    number: int
    owners: NDArray[np.int64]
    chunks: dict[ChunkPlace, bytes] = field(default_factory=dict)
    lost: set[ChunkPlace] = field(default_factory=set)

    @property
    def key(self) -> str:
        return shard_key(self.target, self.number)

    def of_row(self, row: int, places: Iterable[ChunkPlace]) -> set[ChunkPlace]:
        """Those places that belong to a row's track."""
        return {place for place in places if self.owners[place[1]] == row}


class _Shards:
    """Makes shards of one committed state again.

    Attributes
    ----------
    lost : dict
        Rows of the tracks that can't be made again, and why.
    """

    def __init__(self, snapshot: Snapshot, lock: WriterLock, root: Path | None = None) -> None:
        self.lost: dict[int, str] = {}
        self.snapshot = snapshot
        self.storage = snapshot.storage
        self.lock = lock
        self._root = root

    @lazy
    def rows(self) -> Rows:
        """Where tracks lie; if shards are at fault, this could be read."""
        return Rows.read(self.snapshot)

    @lazy
    def _frames(self) -> Frames:
        return Frames(Chunks(self.snapshot))

    def title(self, row: int) -> str:
        """Name a row, for people."""
        return f"track {self.name(row)!r}"

    def name(self, row: int) -> str:
        """Name of a row's track."""
        return str(self.snapshot.cell("name", row))

    def mend(self, faults: Sequence[Fault], done: _Done, on_progress: Callable[[int, int], None]) -> set[int]:
        """Make all shards again that are at fault, as far as that goes; return their positions."""
        for fault in faults:
            if fault.track is not None and parse_shard_key(fault.key) is None:  # a row that contradicts itself
                self.lost[self.snapshot.column("name").tolist().index(fault.track)] = fault.problem
        damaged: dict[int, set[int]] = {}
        for key in {fault.key for fault in faults}:
            if place := parse_shard_key(key):
                target, position = place
                damaged.setdefault(position, set()).add(target)
        files, through = sum(map(len, damaged.values())), 0
        for number, targets in sorted(damaged.items()):
            on_progress(through, files)
            self.lock.renew()
            done.mended += self._mend_together(number, sorted(targets))
            through += len(targets)
        on_progress(files, files)
        return set(damaged)

    def _mend_together(self, number: int, targets: Sequence[int]) -> list[str]:
        """Make again the shards of some targets at one position; return the keys of those that are whole then."""
        shards = [self._read(target, number) for target in targets]
        lost = [len(shard.lost) for shard in shards]
        rows = {int(shard.owners[within]) for shard in shards for _, within in shard.lost}
        for row in sorted(rows - self.lost.keys()):
            try:
                self._encode(row, [shard for shard in shards if shard.of_row(row, shard.lost)])
            except NorbertStoreError as error:
                self.lost[row] = str(error).removeprefix(f"{self.title(row)}: ")
        for shard, before in zip(shards, lost, strict=True):
            if not shard.lost or len(shard.lost) < before:
                self._write(shard)
        return [shard.key for shard in shards if not shard.lost]

    def clean(self, number: int) -> None:
        """Take out of the shards at one position what no track owns."""
        for target in range(len(self.snapshot.document.targets)):
            shard = self._read(target, number)
            if not shard.lost:
                self._write(shard)

    def _read(self, target: int, number: int) -> _Shard:
        """Read a shard, and tell what of it is whole."""
        shard = _Shard(target, number, self.rows.owners(number))
        data = self._bytes(shard.key)
        index = self._index(shard, data)
        image = np.empty((self.snapshot.layout.chunk_frames, self.snapshot.layout.bins), np.uint8)
        for within in np.flatnonzero(self.rows.expected(shard.owners, target)).tolist():
            for channel in range(len(self.snapshot.document.channels)):
                span = None if index is None else index.place(channel, within)
                chunk = b"" if span is None else data[span[0] : sum(span)]
                if _is_whole(chunk, image):
                    shard.chunks[channel, within] = chunk
                else:
                    shard.lost.add((channel, within))
        return shard

    def _bytes(self, key: str) -> bytes:
        try:
            return self.storage.get(key) or b""
        except StorageError:
            if self.storage.folder is None:
                raise
            return b""  # what a failing disk can't read any more can be written anew

    def _index(self, shard: _Shard, data: bytes) -> ShardIndex | None:
        layout, channels = self.snapshot.layout, len(self.snapshot.document.channels)
        tail, record = data[-tail_bytes(channels, layout.shard_chunks) :], place_record(shard.target, shard.number)
        # records of two places differ in several bytes, so this one is damaged and the shard is where it belongs
        if sum(found != expected for found, expected in zip(tail, record, strict=False)) == 1:
            tail = record + tail[len(record) :]
        try:
            return check_index(self.snapshot, shard.target, shard.number, tail, len(data))
        except DamagedError:
            return None

    def _write(self, shard: _Shard) -> None:
        """Write a shard, or delete one that has nothing in it any more; not if that changes nothing."""
        channels, chunks = len(self.snapshot.document.channels), self.snapshot.layout.shard_chunks
        if not shard.chunks:
            self.storage.delete(shard.key)
            return
        data = pack(shard.chunks, channels, chunks, shard.target, shard.number)
        if data != self._bytes(shard.key):
            self.storage.set(shard.key, data)

    def _encode(self, row: int, shards: Sequence[_Shard]) -> None:
        """Encode a track again, and put what it has lost into shards at one position.

        Raises
        ------
        SourceError, AudioError, MagnitudeError
            If its source isn't there, or isn't what it was.
        """
        track, document, layout = StoredTrack(self._frames, row), self.snapshot.document, self.snapshot.layout
        if isinstance(track.transform, ReadyBins):
            raise SourceError("its magnitudes were computed elsewhere, and can't be made again from here")
        source = _locate(track, self._root)
        stems = _stems(track, source, [document.targets[shard.target] for shard in shards])
        wanted = {
            (document.targets[shard.target], channel, layout.first_chunk(shard.number) + within): (shard, place)
            for shard in shards
            for place in shard.of_row(row, {*shard.chunks, *shard.lost})
            for channel, within in [place]
        }
        encoder = _Encoder(document, track.transform, layout.chunk_of(track.start), wanted)
        found = encoder.add(track.name, stems)
        if (found.samples, found.frames) != (track.samples, track.frames):
            raise AudioError(f"{source} has {found.samples} samples; the track has {track.samples}")
        for at, (shard, place) in wanted.items():
            if place in shard.chunks and not _are_alike(shard.chunks[place], encoder.made[at]):
                raise AudioError(f"{source} isn't the audio any more that the rest of the track was made of")
        for at, (shard, place) in wanted.items():
            if place in shard.lost:
                shard.chunks[place] = encoder.made[at]
                shard.lost.remove(place)


class _Encoder(Bundle):
    """Encodes a track as a writer does, but keeps those chunks that are wanted, instead of writing shards."""

    def __init__(
        self,
        document: Document,
        transform: StoredTransform,
        first_chunk: int,
        wanted: Collection[tuple[str, int, int]],
    ) -> None:
        super().__init__(Storage(MemoryStore()), document, transform, first_chunk)
        self.made: dict[tuple[str, int, int], bytes] = {}
        self._wanted = wanted

    def put(self, target: str, channel: int, chunk: int, jpeg: bytes) -> None:
        if (target, channel, chunk) in self._wanted:
            self.made[target, channel, chunk] = with_checksum(jpeg)


def _is_whole(chunk: bytes, image: NDArray[np.uint8]) -> bool:
    try:
        stream.decode(without_checksum(chunk), image)
    except (DamagedError, JpegError):
        return False
    return True


def _are_alike(chunk: bytes, other: bytes) -> bool:
    """Whether two chunks may stand for the same levels, whatever encoder wrote them."""
    if chunk == other:
        return True
    jpegs = [without_checksum(data) for data in (chunk, other)]
    # either is off by about half a step of its table, and the cosine transform keeps energies; rounding comes on top
    steps = max(np.sqrt(np.mean(np.square(JpegImageFile(io.BytesIO(jpeg)).quantization[0]))) for jpeg in jpegs)
    levels = [stream.decode(jpeg).astype(np.float64) for jpeg in jpegs]
    return bool(np.sqrt(np.mean((levels[0] - levels[1]) ** 2)) <= min(steps, _LARGEST_DIFFERENCE) + 1)


# ---- sources


def _locate(track: StoredTrack, root: Path | None) -> Source:
    """Find the audio that a track was made of.

    Raises
    ------
    SourceError
        If nobody knows where it is.
    """
    there = [target for target, present in track.present.items() if present]
    # one file is the mixture, or all that the track has
    alone = MIXTURE if MIXTURE in there else there[0]
    return Source.find(track.source, track.folder, there, alone, root)


def _stems(track: StoredTrack, source: Source, targets: Sequence[str]) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Read some stems of a track's source, after a look at whether they are as long as it.

    Raises
    ------
    SourceError, AudioError
        If they aren't there, or differ in rate, length or channels.
    """
    expected = AudioInfo(track.rate, len(track.channels), track.samples)
    headers = source.headers_of(targets)
    for target, found in headers.items():
        if found != expected:
            raise AudioError(f"{source}, {target}: found {found}; the track was made of {expected}")
    return source.blocks(headers)


# ---- dropping


def _drop(shards: _Shards, done: _Done) -> set[int]:
    """Take tracks out that can't be made again; return the positions of the shards that they had a part in."""
    lost = sorted(shards.lost)
    touched = shards.rows.shards(lost)
    _put_aside(shards.snapshot, lost, touched)
    _finish_drop(shards.storage, shards.lock)
    done.dropped = [(shards.name(row), shards.lost[row]) for row in lost]
    return set(touched)


def _put_aside(snapshot: Snapshot, lost: Sequence[int], shards: Sequence[int]) -> None:
    """Write down all that changes when rows are dropped."""
    kept = np.setdiff1d(np.arange(snapshot.document.tracks), lost)
    document = replace(snapshot.document, tracks=len(kept))
    chunks = {}
    for column in document.columns:
        path = f"{TRACK_GROUP}/{column.name}"
        metadata, values = document.arrays()[path], snapshot.column(column.name)[kept]
        for block in range(document.layout.block_of(lost[0])[0], document.layout.blocks(len(kept))):
            rows = document.layout.block_rows(block, len(kept))
            data = encode_block(metadata, values[rows.start : rows.stop])
            chunks[block_key(path, metadata, block)] = base64.b64encode(data).decode()
    aside = {
        "document": document.to_json().decode(),
        "tracks_before": snapshot.document.tracks,
        "tracks_unmoved": int(lost[0]),
        "chunks": chunks,
        "shards": list(shards),
    }
    snapshot.storage.set(DROP_KEY, json.dumps(aside).encode())


def _finish_drop(storage: Storage, lock: WriterLock) -> None:
    """Carry out what was put aside, also if that was begun before."""
    data = storage.get(DROP_KEY)
    if data is None:
        return
    aside = json.loads(data)
    document = Document.from_json(aside["document"].encode(), storage.name)
    unmoved = replace(document, tracks=aside["tracks_unmoved"])
    found = _open(storage).document
    lock.renew()
    # otherwise it was carried out, and tracks were added since
    if found.frames == document.frames and found.tracks in (aside["tracks_before"], unmoved.tracks):
        storage.set(ROOT_KEY, unmoved.to_json())
        for key, chunk in aside["chunks"].items():
            storage.set(key, base64.b64decode(chunk))
        storage.set(ROOT_KEY, document.to_json())
    snapshot = _open(storage)
    for key, metadata in documents(snapshot).items():
        storage.set(key, json_bytes(metadata))
    shards = _Shards(snapshot, lock)
    for number in aside["shards"]:
        shards.clean(number)
    storage.delete(DROP_KEY)
