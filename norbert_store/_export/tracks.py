"""Tracks into a store, whatever their source: order, workers, progress, broken files, a summary.

`norbert_store._sources` finds the tracks; `norbert_store._export.plan` tells where they will lie. Each bundle is then a
task of its own, for this process or for any executor, and this process commits them in order. So the result is the
same, byte for byte, however many workers there are, and however often it was interrupted.

The header of each file is read once: those that the plan needs go with the tracks to who reads their audio.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Any, NamedTuple, Unpack

from norbert_store._export.parallel import in_order, process_pool
from norbert_store._export.plan import PlannedBundle, PlannedTrack, placement, plan_rest
from norbert_store._export.summary import FLOAT_BYTES, Progress, Summary
from norbert_store._format.document import Document
from norbert_store._sources.files import AudioInfo
from norbert_store._sources.stems import TrackStems
from norbert_store._sources.track import SourceTrack
from norbert_store._spectra.bins import StoredTransform, transform_from_config
from norbert_store._spectra.stft import whole_number
from norbert_store._storage.storage import Location, Storage
from norbert_store._write.bundle import Bundle, Place
from norbert_store._write.commit import Committer, Extents, Row, clear_leftovers
from norbert_store._write.settings import CreateOptions, new_document
from norbert_store.errors import (
    AudioError,
    MagnitudeError,
    NorbertStoreError,
    SourceError,
    StoreNotFoundError,
    TrackError,
)

Headers = Mapping[str, AudioInfo]
Workers = int | Executor | None


class ExportOptions(CreateOptions, total=False):
    """What every export takes beside the data set and the place; `norbert_store.export` has what each means."""

    rate: int | None
    channels: int | Sequence[str] | None
    workers: Workers
    resume: bool
    skip_broken: bool
    progress: Callable[[Progress], None] | None
    bundle_tracks: int | None


_HEADERS_AT_A_TIME = 8

# what can be wrong with a track; every other error stops an export, whatever is to be skipped
_BROKEN = (AudioError, MagnitudeError, SourceError, TrackError)


def export_tracks(
    tracks: Sequence[SourceTrack],
    out: Location,
    *,
    targets: Sequence[str],
    rate: int | None = None,
    channels: int | Sequence[str] | None = None,
    workers: Workers = None,
    resume: bool = False,
    skip_broken: bool = False,
    progress: Callable[[Progress], None] | None = None,
    bundle_tracks: int | None = None,
    **options: Unpack[CreateOptions],
) -> Summary:
    """Write tracks into a store.

    Parameters
    ----------
    tracks : sequence of SourceTrack
        At least one.
    out : str, path or zarr store
        Where nothing is yet; with ``resume``, a store may be there.
    targets : sequence of str
    rate, channels, workers, resume, skip_broken, progress, bundle_tracks
        As for `norbert_store._export.run.export`.
    **options
        As for `norbert_store.create`; ``transform`` may also be a function that makes one for the first track's rate.

    Returns
    -------
    Summary

    Raises
    ------
    NorbertStoreError, ValueError
        As `norbert_store._export.run.export`.
    """
    first_headers, info = _read_until_readable(tracks, skip_broken)
    transform_of_rate = options.get("transform")
    if callable(transform_of_rate):
        options["transform"] = transform_of_rate(info.rate)
    planned_bundle_tracks, planned_shard_chunks = placement(len(tracks), len(targets), info)
    options.setdefault("shard_chunks", planned_shard_chunks)
    document, transform = new_document(
        targets=targets,
        rate=info.rate if rate is None and options.get("transform") is None else rate,
        channels=info.channels if channels is None else channels,
        **options,
    )
    bundle_tracks = planned_bundle_tracks if bundle_tracks is None else bundle_tracks
    bundle_tracks = whole_number("bundle_tracks", bundle_tracks, at_least=1)
    storage = Storage(out, read_only=False)
    with _executor(workers, storage) as executor:
        run = _Export(tracks, transform.rate, skip_broken, progress)
        planned = run.read_headers(first_headers, document, transform)
        with _committer(storage, document, transform, resume) as committer:
            bundles = run.check_rows(_plan(planned, bundle_tracks, committer), committer)
            try:
                with closing(run.encode(bundles, committer, executor)) as encoded:
                    for bundle, results in zip(bundles, encoded, strict=True):
                        committer.add(run.rows_of(bundle, results.tracks), bundle.first_chunk, results.extents)
                if executor is not None:
                    storage.sweep()  # what workers that died had begun
                run.check_complete()
            except _BROKEN as error:
                raise type(error)(
                    f"{error}. {out} holds what was done before: resume=True continues there, skip_broken=True leaves "
                    "out such tracks"
                ) from error
        return run.summary(committer)


class _Encoded(NamedTuple):
    """What became of a bundle.

    Attributes
    ----------
    tracks : list
        Where each lies, or why it doesn't.
    extents : ndarray of uint32
        (targets, parts, channels, chunks) of its chunks, from its beginning on.
    """

    tracks: list[Place | str]
    extents: Extents


class _Export:
    """One export on its way: what is known of its tracks, and what is told of it."""

    def __init__(
        self,
        tracks: Sequence[SourceTrack],
        rate: int,
        skip_broken: bool,
        progress: Callable[[Progress], None] | None,
    ) -> None:
        self._tracks = tracks
        self._rate = rate
        self._skip_broken = skip_broken
        self._progress = progress
        self._started = time.monotonic()
        self._skipped: list[tuple[SourceTrack, str]] = []
        self._broken: NorbertStoreError | None = None
        self._rows: dict[str, Row] = {}
        self._done = 0
        self._seconds = 0.0
        self._written = 0

    # ---- before the first track is read

    def read_headers(
        self, first: Sequence[Headers | NorbertStoreError], document: Document, transform: StoredTransform
    ) -> list[PlannedTrack]:
        """Read the length of every track, but for the first ones, whose headers were read.

        If one can't be read, and isn't to be skipped, those before it are returned.
        """
        planned = []
        with ThreadPoolExecutor(_HEADERS_AT_A_TIME) as pool:
            others = pool.map(_headers_or_error, self._tracks[len(first) :])
            for track, found in zip(self._tracks, chain(first, others), strict=True):
                if not isinstance(found, NorbertStoreError):
                    frames = transform.stft.frame_count(next(iter(found.values())).samples)
                    planned.append(PlannedTrack(track, document.layout.chunks(frames), found))
                elif self._skip_broken:
                    self._skip(track, str(found))
                else:
                    self._broken = type(found)(f"track {track.name!r}: {found}")
                    break
        return planned

    def check_rows(self, bundles: Sequence[PlannedBundle], committer: Committer) -> list[PlannedBundle]:
        """Make the rows of the track table, but for where tracks lie; return the bundles without what doesn't fit."""
        checked = [
            replace(bundle, tracks=tuple(planned for planned in bundle.tracks if self._check_row(planned, committer)))
            for bundle in bundles
        ]
        self._done = len(self._tracks) - len(self._rows)
        return checked

    def _check_row(self, planned: PlannedTrack, committer: Committer) -> bool:
        track = planned.track
        source = track.source.reference(committer.storage.folder)
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
    ) -> Generator[_Encoded, None, None]:
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
        for planned, result in zip(bundle.tracks, results, strict=True):
            if isinstance(result, Place):
                rows.append({**self._rows[planned.name], **result.row})
            else:
                self._skip(planned.track, result)
        self._done += len(results)
        self._seconds += _seconds(results, self._rate)
        self._written += len(rows)
        return rows

    def _skip(self, track: SourceTrack, reason: str) -> None:
        place = str(track.source)
        self._skipped.append((track, reason if place in reason else f"{place}: {reason}"))

    def _tell(self, track: str, results: Sequence[Place | str]) -> None:
        """Tell the progress: a track that begins, and what became of those before it in its bundle."""
        if self._progress:
            seconds = self._seconds + _seconds(results, self._rate)
            elapsed = time.monotonic() - self._started
            self._progress(Progress(track, self._done + len(results), len(self._tracks), seconds, elapsed))

    # ---- in the end

    def summary(self, committer: Committer) -> Summary:
        """Tell the end, and measure what is there now.

        Raises
        ------
        SourceError
            If none of the tracks is.
        """
        self._tell("", [])
        storage, layout = committer.storage, committer.document.layout
        positions = {id(track): i for i, track in enumerate(self._tracks)}
        skipped = sorted(self._skipped, key=lambda item: positions[id(item[0])])
        summary = Summary(
            storage.name,
            written=self._written,
            skipped=[(track.name, reason) for track, reason in skipped],
            channels=len(committer.document.channels),
            store_bytes=sum(storage.size(key) or 0 for key in storage.list()),
            written_seconds=self._seconds,
            elapsed_seconds=time.monotonic() - self._started,
            _place=storage.location,
        )
        columns = [committer.column(name) for name in ("name", "samples", "frames", "present")]
        there = {name: facts for name, *facts in zip(*columns, strict=True)}
        for track in self._tracks:
            if track.name in there:
                samples, frames, present = there.pop(track.name)
                seconds, stems = samples / self._rate, sum(present)
                summary.tracks += 1
                summary.audio_seconds += seconds
                summary.stem_seconds += stems * seconds
                summary.npy_bytes += stems * summary.channels * frames * layout.bins * FLOAT_BYTES
                summary.audio_bytes += track.source.audio_bytes
        if not summary.tracks:
            raise SourceError(
                f"none of the {len(self._tracks)} tracks could be written to {storage.name}; the first: {skipped[0][1]}"
            )
        return summary


def _encode_bundle(
    storage: Storage,
    document: Document,
    skip_broken: bool,
    planned: PlannedBundle,
    on_track: Callable[[str, Sequence[Place | str]], None] | None = None,
) -> _Encoded:
    """Read, encode and write the tracks of a bundle, on whatever machine; return where each lies, or why it doesn't."""
    transform = transform_from_config(document.transform)
    bundle = Bundle(storage, document, transform, planned.first_chunk, planned.end_chunk)
    results: list[Place | str] = []
    for track in planned.tracks:
        if on_track:
            on_track(track.name, results)
        stems = TrackStems(track.track.source, document.targets, transform.rate, track.headers)
        try:
            results.append(bundle.add(track.name, stems.blocks(), stems.blocks_to_look_through()))
        except _BROKEN as error:
            if not skip_broken:
                raise
            results.append(str(error))
    bundle.finish()
    return _Encoded(results, bundle.extents)


def _seconds(results: Sequence[Place | str], rate: int) -> float:
    return sum(result.samples for result in results if isinstance(result, Place)) / rate


# ---- headers


def _read_until_readable(
    tracks: Sequence[SourceTrack], skip_broken: bool
) -> tuple[list[Headers | NorbertStoreError], AudioInfo]:
    """Read the headers of the first track; with ``skip_broken``, of those up to the first that can be read.

    Returns
    -------
    headers : list
        Of each of these tracks, or why they can't be read.
    info : AudioInfo
        Of the one that can be read.
    """
    found: list[Headers | NorbertStoreError] = []
    for track in tracks:
        headers = _headers_or_error(track)
        found.append(headers)
        if not isinstance(headers, NorbertStoreError):
            return found, next(iter(headers.values()))
        if not skip_broken:
            raise type(headers)(f"track {track.name!r}: {headers}") from headers
    if not found:
        raise SourceError("there are no tracks to export")
    raise SourceError(f"none of the {len(tracks)} tracks can be read; the first: {found[0]}")


def _headers_or_error(track: SourceTrack) -> Headers | NorbertStoreError:
    try:
        return track.source.first_headers()
    except (AudioError, SourceError) as error:
        return error


# ---- workers and the store


@contextmanager
def _executor(workers: Workers, storage: Storage) -> Iterator[Executor | None]:
    """What does the work: processes of this machine, an executor that was given, or None for this process alone."""
    if not isinstance(workers, Executor | None):
        workers = whole_number("workers", workers, at_least=1)
    if storage.in_memory and workers not in (None, 1) and not isinstance(workers, ThreadPoolExecutor):
        raise ValueError("other processes can't write into the memory of this one; give a folder or a URL")
    if isinstance(workers, int) and workers > 1:
        with process_pool(workers) as pool:
            yield pool
    else:
        yield None if isinstance(workers, int) else workers


def _plan(planned: Sequence[PlannedTrack], bundle_tracks: int, committer: Committer) -> list[PlannedBundle]:
    layout = committer.document.layout
    names = {track.name for track in planned}
    starts = zip(committer.column("name"), committer.column("start"), strict=True)
    committed = {name: layout.chunk_of(start) for name, start in starts if name in names}
    return plan_rest(planned, bundle_tracks, layout, committed, committer.document.chunks)


def _committer(storage: Storage, document: Document, transform: StoredTransform, resume: bool) -> Committer:
    if not resume:
        return Committer.new(storage, document, transform)
    try:
        return Committer.of(storage, partial(_check_same, storage.name, document))
    except StoreNotFoundError:
        clear_leftovers(storage)
        return Committer.new(storage, document, transform)


def _check_same(name: str, wanted: Document, there: Document) -> None:
    """Compare what a store was begun with to what is asked for now."""
    # the number of chunks in a shard follows from the number of tracks, which may have grown
    layout = replace(wanted.layout, shard_chunks=there.layout.shard_chunks)
    wanted = replace(wanted, layout=layout, transform=_as_read(wanted.transform), encoder=_as_read(wanted.encoder))
    for what in ("targets", "channels", "transform", "layout", "encoder"):
        begun, asked = getattr(there, what), getattr(wanted, what)
        if begun != asked:
            raise ValueError(f"{name} was begun with the {what} {begun}; it can't go on with {asked}")


def _as_read(config: dict[str, Any]) -> Any:
    """Return what JSON makes of a value."""
    return json.loads(json.dumps(config))
