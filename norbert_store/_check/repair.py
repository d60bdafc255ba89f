"""Repair: chunks are encoded again from their audio, everything else is made again from what it follows from.

Intact chunks are kept as they are, and the others are encoded again, so that an unchanged source gives the same shard,
byte for byte; then nothing else changes. Where an encoder of another version gives other bytes, shard and extents are
changed together. Tracks that can't be made again may be dropped: their rows are taken out, and later ones move, which
is an error for a reader that has the store open. Each change is committed whole or not at all
(`norbert_store._write.change`).
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL.JpegImagePlugin import JpegImageFile
from zarr.storage import MemoryStore

from norbert_store._check.documents import coordinate_key
from norbert_store._check.report import Fault, Report
from norbert_store._check.shards import read_index
from norbert_store._check.tracks import NOBODY, Rows
from norbert_store._check.verify import faults_of
from norbert_store._format.arrays import block_key, blocks_of, encode_block, json_bytes
from norbert_store._format.document import EXTENT, EXTENT_PARTS, ROOT_KEY, Document, extent_block
from norbert_store._format.layout import MAGNITUDE, ChunkAt, parse_shard_key, shard_key
from norbert_store._format.shard import (
    CHECKSUM_BYTES,
    LARGEST_SHARD,
    ChunkPlace,
    ShardIndex,
    checksum_matches,
    index_bytes,
    largest_chunk,
    pack,
    stored_checksum,
    with_checksum,
    without_checksum,
)
from norbert_store._format.table import LABEL_GROUP, NOT_NOTED, SCALE, TRACK_GROUP
from norbert_store._jpeg import stream
from norbert_store._jpeg.layout import read_header
from norbert_store._jpeg.rows import RowDecoder
from norbert_store._lazy import lazy
from norbert_store._read.chunks import Chunks, Extent
from norbert_store._read.frames import Frames
from norbert_store._read.snapshot import Snapshot
from norbert_store._read.track import StoredTrack, source_folders
from norbert_store._signature import check_callback, spelled_out
from norbert_store._sources.files import AudioInfo
from norbert_store._sources.source import MIXTURE, FileState, Source, audio_path, time_text
from norbert_store._spectra.bins import LinearBins, MelBands, ReadyBins, StoredTransform, transform_from_config
from norbert_store._storage.lock import WriterLock
from norbert_store._storage.storage import Location, Storage
from norbert_store._write.bundle import Bundle
from norbert_store._write.change import Blocks, block_files, change, row_blocks, settle
from norbert_store._write.commit import check_writable
from norbert_store.errors import (
    AudioError,
    DamagedError,
    FormatError,
    JpegError,
    MagnitudeError,
    SourceError,
    StorageError,
)

OnProgress = Callable[[str, int, int], None]

# in levels, root mean square: more is another piece of music, however coarse the quantisation tables
_LARGEST_DIFFERENCE = 32.0
_SLACK_BYTES = 2**16
_TABLE = (f"{TRACK_GROUP}/", f"{LABEL_GROUP}/")
_EXPORT_AGAIN = "nothing else in the store holds what it held; export the data set again"


@spelled_out()
def repair(
    location: Location,
    *,
    audio_root: str | os.PathLike[str] | None = None,
    drop: bool = False,
    progress: OnProgress | None = None,
) -> Report:
    """Make again what `norbert_store.verify` finds missing or damaged.

    Chunks are encoded again from the sources of their tracks, which must not have changed. Readers that have the store
    open go on; after tracks were taken out, a `StoreChangedError` may tell them to open it again.

    Parameters
    ----------
    location : str, path or zarr store
        Where the store is.
    audio_root : str or path, optional
        The folder below which the tracks' sources are read, as for `norbert_store.open`; the one that holds the store,
        if left out.
    drop : bool
        Whether to take tracks that can't be made again out of the store. Their place stays unused.
    progress : callable, optional
        Called with ("checking", shards done, all shards), and then with ("mending", shards done, all damaged shards).

    Returns
    -------
    Report
        What was done, and what is still wrong; true if the store is whole now.

    Raises
    ------
    StoreNotFoundError
        If there is nothing there.
    StoreInUseError
        If somebody is writing there.
    FormatError
        If the root's document is damaged, or the store has features that this version can't write.
    StorageError
        If the store can't be read or written.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import norbert_store, soundfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     noise = np.random.default_rng(0).uniform(-0.5, 0.5, (8000, 1))
    ...     soundfile.write(Path(folder, "noise.wav"), noise, 8000)
    ...     summary = norbert_store.export_folder(folder, f"{folder}/x.zarr", effort=0)
    ...     Path(folder, "x.zarr/magnitude/c/0/0/0/0").unlink()
    ...     print(norbert_store.repair(f"{folder}/x.zarr").mended)
    ('magnitude/c/0/0/0/0',)
    """
    check_callback("progress", progress)
    root = None if audio_root is None else audio_path(audio_root)
    storage = Storage(location, read_only=False)
    _open(storage)  # so that no lock is left where there is no store
    with _writing(storage) as lock:
        settled = settle(storage, partial(check_writable, storage))
        done = _Done(mended=list(settled.finished))
        snapshot = Snapshot(storage, settled.document)
        snapshot.root_bytes = settled.root_bytes
        workers = os.cpu_count() or 1
        faults = faults_of(snapshot, None, True, workers, _step("checking", progress))
        if not faults:
            return Report(snapshot.name, mended=tuple(done.mended))
        if _mend_scales(snapshot, faults, done):
            faults = faults_of(snapshot, None, True, workers)
        _mend_documents(snapshot, faults, done)
        if _mend_extents(snapshot, faults, done):
            faults = faults_of(snapshot, None, True, workers)
        shards = _Shards(snapshot, lock, root)
        numbers = shards.mend(faults, done, _step("mending", progress))
        # without all of the track table, it can't be written again without these tracks
        if drop and shards.lost and not any(key.startswith(_TABLE) for key, _ in done.failed):
            numbers |= _drop(shards, done)
        else:
            done.failed += [(shards.title(row), reason) for row, reason in sorted(shards.lost.items())]
        if done.dropped or shards.snapshot is not snapshot or ROOT_KEY in done.mended:
            snapshot = _open(storage)  # the document has changed; else what was read of it can be used again
        left = faults_of(snapshot, [range(number, number + 1) for number in sorted(numbers)], True, workers)
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
    check_writable(storage, snapshot.document)
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
    """Write again what follows from the root's document; report what doesn't."""
    storage, written = snapshot.storage, snapshot.document.nodes()
    coordinates = {coordinate_key(path): path for path in ("target", "channel", "frequency")}
    for key, problem in {fault.key: fault.problem for fault in faults if fault.track is None}.items():
        if key == ROOT_KEY:  # the document itself is intact, or the store couldn't have been opened
            storage.commit(key, snapshot.document.to_json(not storage.is_session))
            done.mended.append(key)
        elif key in written:
            storage.write(key, json_bytes(written[key]))
            done.mended.append(key)
        elif key in coordinates and (values := _coordinate(snapshot.document, coordinates[key])) is not None:
            storage.write(key, encode_block(snapshot.arrays[coordinates[key]], values))
            done.mended.append(key)
        elif parse_shard_key(key) is None and not key.startswith(EXTENT):
            done.failed.append((key, f"{problem}; {_EXPORT_AGAIN}"))


def _mend_scales(snapshot: Snapshot, faults: Sequence[Fault], done: _Done) -> bool:
    """Make blocks of scales again from the chunks, which hold them, too, if that gives the document's checksum."""
    damaged, mended = {fault.key for fault in faults}, len(done.mended)
    for block in blocks_of(snapshot.arrays[SCALE]):
        key = block_key(SCALE, block)
        if key not in damaged:
            continue
        try:
            data = encode_block(snapshot.arrays[SCALE], _scales_of_chunks(snapshot, block[0]))
            snapshot.document.check_block(SCALE, block, data)
        except (DamagedError, JpegError):
            continue  # reported with whatever else can't be mended
        snapshot.storage.write(key, data)
        done.mended.append(key)
    return len(done.mended) > mended


def _scales_of_chunks(snapshot: Snapshot, block: int) -> NDArray[np.int16]:
    """Read the scales (rows, targets) of one block of rows from the first chunk of each stem."""
    document, layout = snapshot.document, snapshot.layout
    rows = layout.block_rows(block, document.tracks)
    present = snapshot.column("present")
    scales = np.zeros((len(rows), len(document.targets)), np.int16)
    wanted = [
        ChunkAt(target, 0, layout.chunk_of(snapshot.span(row)[0]), row)
        for row in rows
        for target in np.flatnonzero(present[row]).tolist()
    ]
    for at, chunk in Chunks(snapshot).read(wanted):
        if chunk is not None and at.row is not None:
            scales[at.row - rows.start, at.target] = read_header(chunk.data).scale
    return scales


def _mend_extents(snapshot: Snapshot, faults: Sequence[Fault], done: _Done) -> bool:
    """Make blocks of extents again from the shards' indexes and chunks, if that gives the document's checksum."""
    damaged = {fault.key for fault in faults}
    lost = [block for block in blocks_of(snapshot.arrays[EXTENT]) if block_key(EXTENT, block) in damaged]
    if not lost:
        return False
    rows = Rows.read(snapshot)
    keys = snapshot.storage.list(MAGNITUDE)
    places = [place for key in keys if (place := parse_shard_key(key)) is not None]
    for block in lost:
        key = block_key(EXTENT, block)
        there = sorted(number for target, number in places if target == block[0])
        values = _extents_of_shards(snapshot, rows, there, block[0], block[-1])
        if snapshot.document.knows(EXTENT, block, values[np.newaxis]):
            snapshot.storage.write(key, encode_block(snapshot.arrays[EXTENT], values[np.newaxis]))
            done.mended.append(key)
        else:
            done.failed.append((key, f"the file is damaged, and so are shards that hold the same; {_EXPORT_AGAIN}"))
    return True


def _extents_of_shards(
    snapshot: Snapshot, rows: Rows, there: Iterable[int], target: int, block: int
) -> NDArray[np.uint32]:
    """Read from the shards that are there where chunks lie: (parts, channels, chunks) of one block of extents."""
    layout, channels = snapshot.layout, len(snapshot.document.channels)
    first = block * layout.positions
    stop = min(first + layout.positions, snapshot.document.chunks)
    values = np.zeros((EXTENT_PARTS, channels, stop - first), np.uint32)
    for number in there:
        begin, end = max(first, layout.first_chunk(number)), min(stop, layout.first_chunk(number + 1))
        index = _index_of(snapshot, shard_key(target, number)) if begin < end else None
        if index is None:
            continue
        expected = rows.expected(rows.owners(number), target)
        places = {
            (channel, chunk - first): place
            for chunk in range(begin, end)
            for channel in range(channels)
            # a track that was taken out may have left some
            if expected[layout.within_shard(chunk)]
            and (place := index.place(channel, layout.within_shard(chunk))) is not None
            and place[1] >= CHECKSUM_BYTES
            and sum(place) < LARGEST_SHARD
        }
        ends = [(shard_key(target, number), sum(place) - CHECKSUM_BYTES, CHECKSUM_BYTES) for place in places.values()]
        for (at, place), checksum in zip(places.items(), snapshot.storage.get_ranges(ends), strict=True):
            values[:, *at] = *place, stored_checksum(checksum or b"")
    return values


def _index_of(snapshot: Snapshot, key: str) -> ShardIndex | None:
    """Read the index of a shard; None if it isn't whole."""
    size = index_bytes(len(snapshot.document.channels), snapshot.layout.shard_chunks)
    try:
        tail, shard_bytes = snapshot.storage.get_suffix(key, size), snapshot.storage.size(key)
        return read_index(snapshot, tail or b"", shard_bytes or 0)
    except DamagedError:
        return None
    except StorageError:
        if snapshot.storage.folder is None:
            raise
        return None  # a file that a failing disk can't read any more can be written again


def _coordinate(document: Document, path: str) -> NDArray[Any] | None:
    """Values of /target, /channel or /frequency, if they follow from the root's document."""
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
        The intact ones, with their checksums.
    lost : set
        Those that must be there, and aren't intact.
    holes : dict
        Placeholders of the lost chunks, of the same lengths, so that all other chunks stay where they are.
    """

    target: int
    number: int
    owners: NDArray[np.int64]
    chunks: dict[ChunkPlace, bytes] = field(default_factory=dict)
    lost: set[ChunkPlace] = field(default_factory=set)
    holes: dict[ChunkPlace, bytes] = field(default_factory=dict)

    @property
    def key(self) -> str:
        return shard_key(self.target, self.number)

    def of_row(self, row: int, places: Iterable[ChunkPlace]) -> set[ChunkPlace]:
        """Return those of some places that belong to a row's track."""
        return {place for place in places if self.owners[place[1]] == row}

    def knows(self, place: ChunkPlace, chunk: bytes) -> bool:
        """Whether a chunk has the length and the checksum of the one that was lost."""
        hole = self.holes.get(place, b"")
        return len(hole) == len(chunk) and stored_checksum(hole) == stored_checksum(chunk)


class _Shards:
    """Repairs the shards of one committed state.

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
        self._damaged: set[tuple[int, int]] = set()  # target and number of shards of which something is lost
        self._decoder = RowDecoder(snapshot.layout.chunk_frames, snapshot.layout.bins)

    @lazy
    def rows(self) -> Rows:
        """Where tracks lie; it can be read, since shards are only checked if it can."""
        return Rows.read(self.snapshot)

    @lazy
    def _frames(self) -> Frames:
        return Frames(Chunks(self.snapshot))

    def title(self, row: int) -> str:
        """Name a row's track, for messages."""
        return f"track {self.name(row)!r}"

    def name(self, row: int) -> str:
        """Name of a row's track."""
        return str(self.snapshot.cell("name", row))

    def mend(self, faults: Sequence[Fault], done: _Done, on_progress: Callable[[int, int], None]) -> set[int]:
        """Repair all damaged shards as far as possible; return their positions."""
        for fault in faults:
            if fault.track is not None and parse_shard_key(fault.key) is None:  # a contradictory row
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
        """Repair the shards of some targets at one position; return the keys of those that are whole then."""
        shards = [self._read(target, number) for target in targets]
        rows = {int(shard.owners[within]) for shard in shards for _, within in shard.lost}
        for row in sorted(rows - self.lost.keys()):
            try:
                self._encode(row, [shard for shard in shards if shard.of_row(row, shard.lost)])
            # any other error tells of the storage, or of a bug, and nothing of the track
            except (SourceError, AudioError, MagnitudeError, DamagedError) as error:
                self.lost[row] = str(error).removeprefix(f"{self.title(row)}: ")
        for shard in shards:
            if shard.chunks or not shard.lost:
                self._write(shard)
        self._damaged |= {(shard.target, shard.number) for shard in shards if shard.lost}
        return [shard.key for shard in shards if not shard.lost]

    def _read(self, target: int, number: int, rows: Rows | None = None) -> _Shard:
        """Read a shard, and find which of its chunks are intact; of all tracks, or of those of some rows."""
        rows = rows or self.rows
        layout, channels = self.snapshot.layout, len(self.snapshot.document.channels)
        extents = self._extents(target, number)
        shard = _Shard(target, number, rows.owners(number))
        index = _index_of(self.snapshot, shard.key)
        # a shard isn't much longer than its chunks together, so no more is read, however long the file is
        lengths = extents[1].astype(np.int64)
        data = self._bytes(shard.key, 2 * int(lengths.sum()) + _SLACK_BYTES)
        most = largest_chunk(layout.chunk_frames, layout.bins)
        for within in np.flatnonzero(rows.expected(shard.owners, target)).tolist():
            for channel in range(channels):
                place, extent = (channel, within), Extent(shard.key, *extents[:, channel, within].tolist())
                entry = None if index is None else index.place(*place)
                chunk = self._whole(data, extent, entry)
                if chunk is not None and self._fits(chunk, rows, shard, within):
                    shard.chunks[place] = chunk
                    continue
                shard.lost.add(place)
                if CHECKSUM_BYTES < extent.length <= most:
                    shard.holes[place] = _chunk_at(data, extent.offset, extent)
        return shard

    def _extents(self, target: int, number: int) -> NDArray[np.uint32]:
        """Extents of a shard's chunks, as far as the packed axis goes."""
        layout = self.snapshot.layout
        first, end = layout.first_chunk(number), self.snapshot.document.chunks
        return self.snapshot.extents(target, first, min(layout.first_chunk(number + 1), end))

    def _whole(self, data: bytes, extent: Extent, entry: tuple[int, int] | None) -> bytes | None:
        """Find a chunk in a shard where its extent says, or where the index says; None if it isn't intact."""
        offsets = [extent.offset, *([entry[0]] if entry and entry[1] == extent.length else [])]
        for offset in offsets if extent.length > CHECKSUM_BYTES else ():
            if offset + extent.length <= len(data):
                chunk = _chunk_at(data, offset, extent)
                if checksum_matches(chunk, extent.checksum):
                    return chunk
        return None

    def _fits(self, chunk: bytes, rows: Rows, shard: _Shard, within: int) -> bool:
        """Whether a chunk decodes, and is what the track table says."""
        layout = self.snapshot.layout
        try:
            found = self._decoder.decode(without_checksum(chunk), 0, layout.chunk_frames)
        except (DamagedError, JpegError):
            return False
        owner, number = int(shard.owners[within]), layout.first_chunk(shard.number) + within
        return rows.problem_of(owner, shard.target, number, len(found.levels), found.scale) is None

    def _bytes(self, key: str, most: int) -> bytes:
        """Read the beginning of a file; nothing if it is missing or can't be read."""
        try:
            return self.storage.get_range(key, 0, most) or b""
        except DamagedError:  # it is no regular file
            return b""
        except StorageError:
            if self.storage.folder is None:
                raise
            return b""

    def _write(self, shard: _Shard) -> None:
        """Write a shard; together with its extents, if they have changed."""
        known = self._extents(shard.target, shard.number)
        data, extents = self._packed(shard)
        if np.array_equal(extents, known):
            if data != self._bytes(shard.key, len(data) + 1):
                self.storage.write(shard.key, data)
            return
        blocks: Blocks = {}
        self._put_extents(blocks, shard.target, shard.number, extents)
        document = self.snapshot.document.next().with_blocks(blocks)
        self.lock.renew()
        self.snapshot = self.snapshot.moved_on(
            change(self.storage, document, {shard.key: data, **block_files(document, blocks)})
        )

    def _packed(self, shard: _Shard) -> tuple[bytes, NDArray[np.uint32]]:
        """Bytes of a shard, and extents of its chunks, as far as the packed axis goes."""
        layout, channels = self.snapshot.layout, len(self.snapshot.document.channels)
        held = {**shard.holes, **shard.chunks}
        data, extents = pack(held, channels, layout.shard_chunks, shard.owners.tolist())
        return data, extents[..., : self.snapshot.document.chunks - layout.first_chunk(shard.number)]

    def _put_extents(self, blocks: Blocks, target: int, number: int, extents: NDArray[np.uint32]) -> None:
        """Put the extents of a shard's chunks into the blocks that they lie in."""
        layout = self.snapshot.layout
        first = layout.first_chunk(number)
        for block, within, part in layout.by_extent_block(first, first + extents.shape[-1]):
            at = extent_block(target, block)
            if at not in blocks:
                whole = layout.extent_block_chunks(block, self.snapshot.document.chunks)
                blocks[at] = self.snapshot.extents(target, whole.start, whole.stop)[np.newaxis].copy()
            blocks[at][0, ..., within] = extents[..., part]

    def without(self, kept: NDArray[np.int64]) -> tuple[Blocks, dict[str, bytes]]:
        """Return what changes if only some rows are kept: extents, and shards in which chunks of others are damaged."""
        rows = self.rows.some(kept)
        blocks: Blocks = {}
        shards: dict[str, bytes] = {}
        for number in chain.from_iterable(self.rows.shards(sorted(self.lost))):
            nobodys = rows.owners(number) == NOBODY
            for target in range(len(self.snapshot.document.targets)):
                extents = self._extents(target, number).copy()
                extents[..., nobodys[: extents.shape[-1]]] = 0
                if (target, number) in self._damaged:
                    shard = self._read(target, number, rows)
                    data, extents = self._packed(shard)
                    if shard.chunks or self.storage.size(shard.key) is not None:
                        shards[shard.key] = data
                self._put_extents(blocks, target, number, extents)
        return blocks, shards

    def _encode(self, row: int, shards: Sequence[_Shard]) -> None:
        """Encode a track again, and put its lost chunks into the shards at one position.

        Raises
        ------
        SourceError, AudioError, MagnitudeError
            If its source isn't there, or has changed.
        DamagedError
            If its row can't be read.
        """
        track, document, layout = StoredTrack(self._frames, row), self.snapshot.document, self.snapshot.layout
        if isinstance(track.transform, ReadyBins):
            raise SourceError("its magnitudes were computed elsewhere, and can't be made again here")
        source = _locate(track, self._root)
        states = source.file_states(document.targets)
        stems = _stems(track, source, [document.targets[shard.target] for shard in shards])
        lost = {self._at(shard, place): (shard, place) for shard in shards for place in shard.of_row(row, shard.lost)}
        whole = {self._at(of, place): of.chunks[place] for shard in shards for of, place in self._whole_of(row, shard)}
        encoder = _Encoder(document, track.transform, layout.chunk_of(track.start), {*lost, *whole})
        try:
            found = encoder.add(track.name, stems, scales=track.scales)
        except MagnitudeError as error:
            raise AudioError(f"{source} isn't the audio any more that the track was made from: {error}") from error
        if (found.samples, found.frames) != (track.samples, track.frames):
            raise AudioError(f"{source} has {found.samples} samples; the track has {track.samples}")
        others = {at[0] for at, (shard, place) in lost.items() if not shard.knows(place, encoder.made[at])}
        for at, chunk in whole.items():
            if at[0] in others and not _are_alike(chunk, encoder.made[at]):
                raise AudioError(f"{source} isn't the audio any more that the rest of the track was made from")
        for target in sorted(others - {at[0] for at in whole}):
            self._check_noted(row, source, target, states.get(target))
        for at, (shard, place) in lost.items():
            shard.chunks[place] = encoder.made[at]
            shard.lost.remove(place)

    def _at(self, shard: _Shard, place: ChunkPlace) -> tuple[str, int, int]:
        """Target, channel, and position along the packed axis of a chunk."""
        channel, within = place
        return (
            self.snapshot.document.targets[shard.target],
            channel,
            self.snapshot.layout.first_chunk(shard.number) + within,
        )

    def _whole_of(self, row: int, lost: _Shard) -> list[tuple[_Shard, ChunkPlace]]:
        """Find whole chunks of the stem that a shard has lost some of: all in that shard, or else the nearest one."""
        if places := lost.of_row(row, lost.chunks):
            return [(lost, place) for place in places]
        others = (number for number in chain.from_iterable(self.rows.shards([row])) if number != lost.number)
        for number in sorted(others, key=lambda number: abs(number - lost.number)):
            try:
                shard = self._read(lost.target, number)
            except DamagedError:  # of another block of extents
                continue
            if places := shard.of_row(row, shard.chunks):
                nearest = max if number < lost.number else min
                return [(shard, nearest(places, key=lambda place: place[1]))]
        return []

    def _check_noted(self, row: int, source: Source, target: str, state: FileState | None) -> None:
        """See that the file of a stem is the one that the track table notes.

        Raises
        ------
        AudioError
            If it is another one, or none is noted.
        """
        position = self.snapshot.document.targets.index(target)
        length, time = (int(self.snapshot.cell(name, row)[position]) for name in ("source_bytes", "source_modified"))
        if length != NOT_NOTED and (length, time) == state:
            return
        noted = None if length == NOT_NOTED else (length, time)
        raise AudioError(
            f"{source} may be other audio than the track was made of: {target!r} gives other chunks, and none is left "
            f"to compare with; its file has {_told(state)}, and had {_told(noted)}. Put the file back as it was, or "
            "drop the track and export it again"
        )


class _Encoder(Bundle):
    """Encodes a track as a writer does, but keeps the wanted chunks instead of writing shards."""

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


def _chunk_at(data: bytes, offset: int, extent: Extent) -> bytes:
    """Take a chunk out of a shard, with the checksum that it must have, and zeros where the file is cut off."""
    size = extent.length - CHECKSUM_BYTES
    return data[offset : offset + size].ljust(size, b"\0") + extent.checksum.to_bytes(CHECKSUM_BYTES, "little")


def _told(state: FileState | None) -> str:
    return "an unknown length and time" if state is None else f"{state[0]} bytes of {time_text(state)}"


def _are_alike(chunk: bytes, other: bytes) -> bool:
    """Whether two chunks can be encodings of the same levels, by whatever encoder."""
    if chunk == other:
        return True
    jpegs = [without_checksum(data) for data in (chunk, other)]
    # each is off by about half a quantiser step, and the cosine transform keeps energies; rounding adds up to 1
    steps = max(np.sqrt(np.mean(np.square(JpegImageFile(io.BytesIO(jpeg)).quantization[0]))) for jpeg in jpegs)
    levels = [stream.decode(jpeg).astype(np.float64) for jpeg in jpegs]
    if levels[0].shape != levels[1].shape:
        return False
    return bool(np.sqrt(np.mean((levels[0] - levels[1]) ** 2)) <= min(steps, _LARGEST_DIFFERENCE) + 1)


# ---- sources


def _locate(track: StoredTrack, root: Path | None) -> Source:
    """Find the audio that a track was made from.

    Raises
    ------
    SourceError
        If the track table doesn't say where it is, it isn't there, or it may not be read.
    """
    there = [target for target, present in track.present.items() if present]
    # a single file is the mixture, or the only target of the track
    alone = MIXTURE if MIXTURE in there else there[0]
    return Source.find(track.source, source_folders(track)[0], there, alone, root)


def _stems(track: StoredTrack, source: Source, targets: Sequence[str]) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Read some stems of a track's source, after comparing their headers with the track.

    Raises
    ------
    SourceError, AudioError
        If they aren't there, or differ from the track in rate, length or channels.
    """
    expected = AudioInfo(track.rate, len(track.channels), track.samples)
    headers = source.headers_of(targets)
    for target, found in headers.items():
        if found != expected:
            raise AudioError(f"{source}, {target}: found {found}; the track was made from {expected}")
    return source.blocks(headers)


# ---- dropping


def _drop(shards: _Shards, done: _Done) -> set[int]:
    """Take the rows of tracks out that can't be made again; return the positions of the shards that they lay in."""
    lost, snapshot = sorted(shards.lost), shards.snapshot
    names = [(shards.name(row), shards.lost[row]) for row in lost]
    layout, kept = snapshot.layout, np.setdiff1d(np.arange(snapshot.document.tracks), lost)
    document = replace(snapshot.document.next(tracks=len(kept)), edition=snapshot.document.edition + 1)
    first_block, _ = layout.block_of(lost[0])
    blocks: Blocks = {}
    for column in document.columns:
        values = snapshot.column(column.path if column.key else column.name)[kept]
        blocks |= row_blocks(document, column, values[first_block * layout.rows :], first_block)
    extents, files = shards.without(kept)
    blocks |= extents
    document = document.with_blocks(blocks)
    shards.lock.renew()
    document = change(shards.storage, document, {**files, **block_files(document, blocks)})
    for key, node in document.nodes().items():
        shards.storage.set(key, json_bytes(node))
    done.dropped = names
    return set(chain.from_iterable(shards.rows.shards(lost)))
