"""A data set's tracks into a store, whatever their source: order, workers, progress, broken files, a summary.

`norbert_store._sources` finds the tracks; `norbert_store._export.plan` tells where they will lie. Each bundle is then a
task of its own, for this process or for any executor, and this process commits them in order. So the result is the
same, byte for byte, however many workers there are, and however often it was interrupted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

from norbert_store._export.parallel import in_order
from norbert_store._export.plan import PlannedBundle, PlannedTrack, placement, plan_rest
from norbert_store._format.document import Document
from norbert_store._read.snapshot import Snapshot
from norbert_store._sources.files import AudioInfo, source_reference
from norbert_store._sources.track import SourceTrack
from norbert_store._spectra.bins import StoredTransform, transform_from_config
from norbert_store._spectra.stft import whole_number
from norbert_store._storage.storage import Location, Storage
from norbert_store._write.bundle import Bundle, Place
from norbert_store._write.commit import Committer, Row, clear_leftovers
from norbert_store._write.settings import new_document
from norbert_store.errors import (
    AudioError,
    MagnitudeError,
    NorbertStoreError,
    SourceError,
    StoreNotFoundError,
    TrackError,
)

FLOAT_BYTES = 4
_HEADERS_AT_A_TIME = 8

_BROKEN = (AudioError, SourceError, TrackError, ValueError)


@dataclass(frozen=True)
class Progress:
    """How far an export is, before and after each track.

    Attributes
    ----------
    track : str
        That comes next, or is being done.
    done, tracks : int
        Tracks that are through, and all of them.
    audio_seconds : float
        Length of the tracks that are through.
    elapsed_seconds : float
        Since the beginning.
    """

    track: str
    done: int
    tracks: int
    audio_seconds: float
    elapsed_seconds: float

    @property
    def speed(self) -> float:
        """Seconds of music for each second of time."""
        return self.audio_seconds / self.elapsed_seconds if self.elapsed_seconds else 0.0


@dataclass
class Summary:
    """What an export has done.

    Attributes
    ----------
    store : str
    tracks : int
        Of the data set, that are in the store now.
    channels : int
    audio_seconds : float
        Length of these tracks.
    stem_seconds : float
        Length of all stems of these tracks.
    store_bytes, npy_bytes, audio_bytes : int
        Size of the store, of the same magnitudes as float32 in .npy, and of the audio files.
    written : int
        Tracks that were written this time; others were there already.
    written_seconds : float
        Their length.
    elapsed_seconds : float
    skipped : list of (str, str)
        Name of every track that was left out, and why.
    """

    store: str
    tracks: int = 0
    channels: int = 0
    audio_seconds: float = 0.0
    stem_seconds: float = 0.0
    store_bytes: int = 0
    npy_bytes: int = 0
    audio_bytes: int = 0
    written: int = 0
    written_seconds: float = 0.0
    elapsed_seconds: float = 0.0
    skipped: list[tuple[str, str]] = field(default_factory=list)

    @property
    def speed(self) -> float:
        """Seconds of music for each second of time."""
        return self.written_seconds / self.elapsed_seconds if self.elapsed_seconds else 0.0

    def count(self, track: SourceTrack, seconds: float, frames: int, stems: int, bins: int) -> None:
        """Count a track that is in the store."""
        self.tracks += 1
        self.audio_seconds += seconds
        self.stem_seconds += stems * seconds
        self.npy_bytes += stems * self.channels * frames * bins * FLOAT_BYTES
        self.audio_bytes += track.audio_bytes()


def export(
    tracks: Sequence[SourceTrack],
    out: Location,
    targets: Sequence[str],
    *,
    executor: Executor | None = None,
    resume: bool = False,
    skip_broken: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
    **options: Any,
) -> Summary:
    """Write tracks into a store.

    Parameters
    ----------
    tracks : sequence of SourceTrack
        At least one.
    out : str, path or zarr store
        Where nothing is yet; with ``resume``, a store may be there.
    targets : sequence of str
    executor : concurrent.futures.Executor, optional
        Where bundles are encoded: processes, or ``dask.distributed.Client.get_executor()``. Workers read the audio and
        write shards themselves. If left out, this process does it all.
    resume : bool
        Go on where an export was interrupted, or add what is new; starts where there is no store yet.
    skip_broken : bool
        Whether to go on without tracks that can't be read.
    on_progress : callable, optional
        Called with a `Progress` before each track (of an executor: after each bundle), and at the end.
    **options
        As for `norbert_store.create`. Rate and channels are those of the first track, unless given.

    Returns
    -------
    Summary

    Raises
    ------
    StoreExistsError
        If there is something at ``out``.
    StoreInUseError
        If somebody is writing there.
    SourceError, AudioError, MagnitudeError, TrackError
        If a track can't be exported, unless ``skip_broken``.
    StorageError
        If the store can't be written.
    WorkerError
        If workers died again and again.
    ValueError
        If an option is out of range, or isn't what the store was begun with.
    """
    info = first_info(tracks, skip_broken)
    if "transform" not in options:
        options.setdefault("rate", info.rate)
    options.setdefault("channels", info.channels)
    options = {**placement(len(tracks), len(targets), info), **options}
    bundle_tracks = whole_number("bundle_tracks", options.pop("bundle_tracks", 1), at_least=1)
    document, transform = new_document(targets=targets, **options)
    storage = Storage(out, read_only=False)
    if storage.in_memory and not isinstance(executor, ThreadPoolExecutor | None):
        raise ValueError("other processes can't write into the memory of this one; give a folder or a URL")
    run = _Export(tracks, transform.rate, skip_broken, on_progress)
    planned = run.read_headers(document, transform)
    with _committer(storage, document, transform, resume) as committer:
        bundles = run.check_rows(_plan(planned, bundle_tracks, committer), committer)
        try:
            with closing(run.encode(bundles, committer, executor)) as encoded:
                for bundle, results in zip(bundles, encoded, strict=True):
                    committer.add(run.rows_of(bundle, results))
            if executor is not None:
                storage.sweep()  # what workers that died had begun
            run.check_complete()
        except (AudioError, MagnitudeError, SourceError, TrackError) as error:
            raise type(error)(
                f"{error}. {out} holds what was done before: resume=True continues there, skip_broken=True leaves out "
                "such tracks"
            ) from error
    return run.summary(storage)


def first_info(tracks: Sequence[SourceTrack], skip_broken: bool) -> AudioInfo:
    """Read the headers of the first track; with ``skip_broken``, of the first that can be read.

    Raises
    ------
    SourceError, AudioError
        If it can't be read.
    """
    for track in tracks:
        try:
            return track.info()
        except (AudioError, SourceError) as error:
            if not skip_broken:
                raise type(error)(f"track {track.name!r}: {error}") from error
    raise SourceError(f"none of the {len(tracks)} tracks can be read")


class _Export:
    """One export on its way: what is known of its tracks, and what is told of it."""

    def __init__(
        self,
        tracks: Sequence[SourceTrack],
        rate: int,
        skip_broken: bool,
        on_progress: Callable[[Progress], None] | None,
    ) -> None:
        self._tracks = tracks
        self._rate = rate
        self._skip_broken = skip_broken
        self._on_progress = on_progress
        self._started = time.monotonic()
        self._skipped: list[tuple[SourceTrack, str]] = []
        self._broken: NorbertStoreError | None = None
        self._rows: dict[str, Row] = {}
        self._done = 0
        self._seconds = 0.0
        self._written = 0

    # ---- before the first track is read

    def read_headers(self, document: Document, transform: StoredTransform) -> list[PlannedTrack]:
        """Read the length of every track; if one can't be read, and isn't to be skipped, of those before it."""
        planned = []
        with ThreadPoolExecutor(_HEADERS_AT_A_TIME) as pool:
            for track, found in zip(self._tracks, pool.map(_info_or_error, self._tracks), strict=True):
                if isinstance(found, AudioInfo):
                    frames = transform.stft.frame_count(found.samples)
                    planned.append(PlannedTrack(track, document.layout.chunks(frames)))
                elif self._skip_broken:
                    self._skip(track, str(found))
                else:
                    self._broken = type(found)(f"track {track.name!r}: {found}")
                    break
        return planned

    def check_rows(self, bundles: Sequence[PlannedBundle], committer: Committer) -> list[PlannedBundle]:
        """Make the rows of the track table, but for where tracks lie; return the bundles without what doesn't fit."""
        checked = [
            replace(bundle, tracks=tuple(track for track in bundle.tracks if self._check_row(track, committer)))
            for bundle in bundles
        ]
        self._done = len(self._tracks) - len(self._rows)
        return checked

    def _check_row(self, track: SourceTrack, committer: Committer) -> bool:
        source = source_reference(track.path, committer.storage.folder)
        try:
            row, new_columns = committer.check(track.name, track.split, source, labels=track.labels)
        except TrackError as error:
            if not self._skip_broken:
                raise
            self._skip(track, str(error))
            return False
        committer.expect(row, new_columns)
        self._rows[track.name] = row
        return True

    # ---- the work

    def encode(
        self, bundles: Sequence[PlannedBundle], committer: Committer, executor: Executor | None
    ) -> Generator[list[Place | str], None, None]:
        """Encode all bundles; yield what became of the tracks of each."""
        task = partial(_encode_bundle, committer.storage, committer.document, self._skip_broken)
        if executor is not None:
            self._tell("", [])
            with closing(in_order(executor, task, bundles)) as encoded:
                for results in encoded:
                    yield results
                    self._tell("", [])
            return
        for bundle in bundles:
            yield task(bundle, self._tell)

    def check_complete(self) -> None:
        """Raise what stood in the way of the tracks that weren't planned."""
        if self._broken:
            raise self._broken

    def rows_of(self, bundle: PlannedBundle, results: Sequence[Place | str]) -> list[Row]:
        """Complete the rows of the tracks that have a place, and note why others have none."""
        rows = []
        for track, result in zip(bundle.tracks, results, strict=True):
            if isinstance(result, Place):
                rows.append({**self._rows[track.name], **asdict(result)})
            else:
                self._skip(track, result)
        self._done += len(results)
        self._seconds += _seconds(results, self._rate)
        self._written += len(rows)
        return rows

    def _skip(self, track: SourceTrack, reason: str) -> None:
        place = str(track.path)
        self._skipped.append((track, reason if place in reason else f"{place}: {reason}"))

    def _position(self, skipped: tuple[SourceTrack, str]) -> int:
        return next(i for i, track in enumerate(self._tracks) if track is skipped[0])

    def _tell(self, track: str, results: Sequence[Place | str]) -> None:
        """Tell the progress: a track that begins, and what became of those before it in its bundle."""
        if self._on_progress:
            seconds = self._seconds + _seconds(results, self._rate)
            elapsed = time.monotonic() - self._started
            self._on_progress(Progress(track, self._done + len(results), len(self._tracks), seconds, elapsed))

    # ---- in the end

    def summary(self, storage: Storage) -> Summary:
        """Tell the end, and measure what is there now."""
        self._tell("", [])
        snapshot = Snapshot.open(storage.location)
        document = snapshot.document
        columns = [snapshot.column(name) for name in ("name", "samples", "frames", "present")]
        there = {name: facts for name, *facts in zip(*columns, strict=True)}
        summary = Summary(
            storage.name,
            channels=len(document.channels),
            written=self._written,
            written_seconds=self._seconds,
            store_bytes=sum(storage.size(key) or 0 for key in storage.list()),
            elapsed_seconds=time.monotonic() - self._started,
            skipped=[(track.name, reason) for track, reason in sorted(self._skipped, key=self._position)],
        )
        for track in self._tracks:
            if track.name in there:
                samples, frames, present = there.pop(track.name)
                summary.count(track, int(samples) / self._rate, int(frames), int(present.sum()), document.layout.bins)
        return summary


def _encode_bundle(
    storage: Storage,
    document: Document,
    skip_broken: bool,
    planned: PlannedBundle,
    on_track: Callable[[str, Sequence[Place | str]], None] | None = None,
) -> list[Place | str]:
    """Read, encode and write the tracks of a bundle, on whatever machine; return where each lies, or why it doesn't."""
    transform = transform_from_config(document.transform)
    bundle = Bundle(storage, document, transform, planned.first_chunk, planned.end_chunk)
    results: list[Place | str] = []
    for track in planned.tracks:
        if on_track:
            on_track(track.name, results)
        try:
            results.append(bundle.add(track.name, track.stems(transform.rate, document.targets)))
        except _BROKEN as error:
            if not skip_broken:
                raise
            results.append(str(error))
    bundle.finish()
    return results


def _seconds(results: Sequence[Place | str], rate: int) -> float:
    return sum(result.samples for result in results if isinstance(result, Place)) / rate


def _info_or_error(track: SourceTrack) -> AudioInfo | NorbertStoreError:
    try:
        return track.info()
    except (AudioError, SourceError) as error:
        return error


def _plan(planned: Sequence[PlannedTrack], bundle_tracks: int, committer: Committer) -> list[PlannedBundle]:
    layout = committer.document.layout
    names = {track.source.name for track in planned}
    snapshot = Snapshot.open(committer.storage.location)
    starts = zip(snapshot.column("name").tolist(), snapshot.column("start").tolist(), strict=True)
    committed = {name: layout.chunk_of(start) for name, start in starts if name in names}
    return plan_rest(planned, bundle_tracks, layout, committed, layout.chunks(committer.document.frames))


def _committer(storage: Storage, document: Document, transform: StoredTransform, resume: bool) -> Committer:
    if not resume:
        return Committer.new(storage, document, transform)
    clear_leftovers(storage)
    try:
        there = Snapshot.open(storage.location).document
    except StoreNotFoundError:
        return Committer.new(storage, document, transform)
    _check_same(storage.name, there, document)
    return Committer.of(storage)


def _check_same(name: str, there: Document, wanted: Document) -> None:
    """Compare what a store was begun with to what is asked for now."""
    # the number of chunks in a shard follows from the number of tracks, which may have grown
    layout = replace(wanted.layout, shard_chunks=there.layout.shard_chunks)
    wanted = Document.from_json(replace(wanted, layout=layout).to_json(), name)
    for what in ("targets", "channels", "transform", "layout", "encoder"):
        begun, asked = getattr(there, what), getattr(wanted, what)
        if begun != asked:
            raise ValueError(f"{name} was begun with the {what} {begun}; it can't go on with {asked}")
