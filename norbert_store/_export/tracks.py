"""Tracks into a store, whatever their source: order, workers, progress, broken files, a summary.

`norbert_store._sources` finds the tracks; `norbert_store._export.plan` plans where they will lie. Each bundle is then a
task of its own, for this process or for any executor, and this process commits them in order. So the result is the
same, byte for byte, however many workers there are, and however often it was interrupted.

The header of each file is read once: headers that the plan needs go with the tracks to the worker that reads their
audio. Files of tracks that a store has already are only compared with what was noted of them
(`norbert_store._export.compare`).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import Any, NamedTuple, Unpack

from norbert_store._export.compare import Committed, Difference
from norbert_store._export.parallel import in_order, process_pool
from norbert_store._export.plan import PlannedBundle, PlannedTrack, bundle_size, plan_bundles, plan_rest, shard_size
from norbert_store._export.summary import FLOAT_BYTES, Progress, Summary
from norbert_store._format.document import Document
from norbert_store._format.layout import SHARD_CHUNKS
from norbert_store._format.table import TRACK_GROUP, Column
from norbert_store._signature import check_callback
from norbert_store._sources.files import AudioInfo
from norbert_store._sources.stems import TrackStems
from norbert_store._sources.track import SourceTrack
from norbert_store._spectra.bins import StoredTransform, transform_from_config
from norbert_store._spectra.stft import whole_number
from norbert_store._storage.storage import Location, Storage
from norbert_store._write.bundle import TRACK_ERRORS, Bundle, Place
from norbert_store._write.commit import Committer, Extents, Row, check_leftovers
from norbert_store._write.settings import CreateOptions, new_document
from norbert_store.errors import (
    AudioError,
    FormatError,
    NorbertStoreError,
    SourceError,
    StoreNotFoundError,
    TrackError,
)

Headers = Mapping[str, AudioInfo]
Workers = int | Executor | None


class ExportOptions(CreateOptions, total=False):
    """Options of every export, besides the data set and the place; `norbert_store.export` explains them."""

    rate: int | None
    channels: int | Sequence[str] | None
    workers: Workers
    resume: bool
    update: bool
    skip_broken: bool
    progress: Callable[[Progress], None] | None
    bundle_tracks: int | None


_HEADERS_AT_A_TIME = 8


def export_tracks(
    tracks: Sequence[SourceTrack],
    out: Location,
    *,
    targets: Sequence[str],
    rate: int | None = None,
    channels: int | Sequence[str] | None = None,
    workers: Workers = None,
    resume: bool = False,
    update: bool = False,
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
        As for `norbert_store.export`.
    targets : sequence of str
    rate, channels, workers, resume, update, skip_broken, progress, bundle_tracks
        As for `norbert_store.export`.
    **options
        As for `norbert_store.create`; ``transform`` may also be a function that makes one for the first track's rate.

    Returns
    -------
    Summary

    Raises
    ------
    NorbertStoreError, ValueError
        As for `norbert_store.export`.
    """
    check_callback("progress", progress)
    if bundle_tracks is not None:
        bundle_tracks = whole_number("bundle_tracks", bundle_tracks, at_least=1)
    wanted = _Wanted(targets, rate, channels, options)
    storage = Storage(out, read_only=False)
    run = _Export(tracks, skip_broken, update, progress)
    with _executor(workers, storage) as executor:
        committer = _resumed(storage, wanted, run) if resume or update else None
        with committer or _begun(storage, wanted, run, resume or update) as committer:
            bundles = run.check_rows(run.plan(committer, bundle_tracks), committer)
            try:
                with closing(run.encode(bundles, committer, executor)) as encoded:
                    for bundle, results in zip(bundles, encoded, strict=True):
                        committer.add(run.rows_of(bundle, results.tracks), bundle.first_chunk, results.extents)
                if executor is not None:
                    storage.sweep()  # partial files of workers that died
                run.check_complete()
            except TRACK_ERRORS as error:
                raise type(error)(
                    f"{error}. {storage.name} holds the tracks before it: resume=True continues there, "
                    "skip_broken=True leaves out such tracks"
                ) from error
        return run.summary(committer)


def _bytes_of(storage: Storage) -> int:
    """Size of all files of a store; what links lead to that leave it is none of them."""
    found = 0
    for key in storage.list():
        with suppress(FormatError):
            found += storage.size(key) or 0
    return found


class _Encoded(NamedTuple):
    """The result of encoding a bundle.

    Attributes
    ----------
    tracks : list
        Where each track lies, or why it was left out.
    extents : ndarray of uint32
        (targets, parts, channels, chunks) of its chunks, from its beginning on.
    """

    tracks: list[Place | str]
    extents: Extents


@dataclass(frozen=True)
class _Wanted:
    """Settings of the store that an export is to write; None where they are those of the first file."""

    targets: Sequence[str]
    rate: int | None
    channels: int | Sequence[str] | None
    options: CreateOptions

    def document(
        self, rate: int, channels: int | Sequence[str], shard_chunks: int = SHARD_CHUNKS
    ) -> tuple[Document, StoredTransform]:
        """Describe the store; ``rate`` and ``channels`` are taken where the settings have none."""
        options: CreateOptions = {"shard_chunks": shard_chunks, **self.options}
        transform = options.get("transform")
        if callable(transform):
            options["transform"] = transform(rate)
        return new_document(
            targets=self.targets,
            rate=rate if self.rate is None and transform is None else self.rate,
            channels=channels if self.channels is None else self.channels,
            **options,
        )


class _Export:
    """One export while it runs: what is known of its tracks, and what is reported."""

    def __init__(
        self,
        tracks: Sequence[SourceTrack],
        skip_broken: bool,
        update: bool,
        progress: Callable[[Progress], None] | None,
    ) -> None:
        self._tracks = tracks
        self._skip_broken = skip_broken
        self._update = update
        self._progress = progress
        self._started = time.monotonic()
        self._skipped: list[tuple[SourceTrack, str]] = []
        self._broken: NorbertStoreError | None = None
        self._rows: dict[str, Row] = {}
        self._done = 0
        self._seconds = 0.0
        self._written = 0
        self._planned: list[PlannedTrack] = []
        # of what was there before
        self._differences: dict[int, Difference] = {}  # by the track's position
        self._gone: dict[str, str] = {}
        self._notes: list[str] = []
        self._updated: list[str] = []

    @property
    def tracks(self) -> int:
        """Number of tracks that the data set has."""
        return len(self._tracks)

    # ---- before the first track is read

    def first_headers(self) -> tuple[list[Headers | NorbertStoreError], AudioInfo]:
        """Read the headers of the first track; with ``skip_broken``, of those up to the first that can be read.

        Returns
        -------
        headers : list
            Of each of these tracks, or why they can't be read.
        info : AudioInfo
            Of the one that can be read.
        """
        found: list[Headers | NorbertStoreError] = []
        for track in self._tracks:
            headers = _headers_or_error(track)
            found.append(headers)
            if not isinstance(headers, NorbertStoreError):
                return found, next(iter(headers.values()))
            if not self._skip_broken:
                raise type(headers)(f"track {track.name!r}: {headers}") from headers
        if not found:
            raise SourceError("there are no tracks to export")
        raise SourceError(f"none of the {len(self._tracks)} tracks can be read; the first: {found[0]}")

    def compare(self, committer: Committer, wanted: Document) -> dict[int, int]:
        """Find which tracks of the data set are in a store already, and what has changed since.

        Returns
        -------
        dict of int to int
            By the position of a track that is there, the number of its frames.
        """
        committed = Committed(committer)
        there: dict[str, int] = {}
        for position, track in enumerate(self._tracks):
            if track.name in committed:  # of two tracks of one name, the first one counts
                there.setdefault(track.name, position)
        for position in there.values():
            if difference := committed.difference(self._tracks[position]):
                self._differences[position] = difference
        self._gone = committed.gone(self._tracks)
        self._compare_facts(committer, wanted)
        return {position: committed.frames(name) for name, position in there.items()}

    def _compare_facts(self, committer: Committer, wanted: Document) -> None:
        before = committer.document.about
        new = {key: text for key, text in wanted.about.items() if text != before.get(key)}
        for key, text in new.items():
            was = repr(before.get(key, ""))
            now = f"was {was}, and is {text!r} now" if self._update else f"is still {was}, not {text!r}"
            self._notes.append(f"the {key} of the store {now}")
        if new and self._update:
            committer.describe(new)

    def read_headers(
        self,
        document: Document,
        transform: StoredTransform,
        first: Sequence[Headers | NorbertStoreError] = (),
        there: Mapping[int, int] | None = None,
    ) -> None:
        """Find the lengths of all tracks that are to be written, from their headers.

        If a header can't be read, and its track isn't to be skipped, later tracks aren't planned.

        Parameters
        ----------
        document : Document
        transform : StoredTransform
        first : sequence
            Headers, or errors, of the first tracks, which were read already.
        there : mapping of int to int, optional
            Frames of the tracks that the store has, by their position.
        """
        self._rate, there = transform.rate, there or {}
        anew = {position for position in there if self._is_anew(position)}
        wanted = [i for i in range(len(first), len(self._tracks)) if i in anew or i not in there]
        with ThreadPoolExecutor(_HEADERS_AT_A_TIME) as pool:
            others = pool.map(_headers_or_error, (self._tracks[position] for position in wanted))
            headers = chain(first, others)
            for position, track in enumerate(self._tracks):
                if position in there:
                    self._planned.append(PlannedTrack(track, document.layout.chunks(there[position])))
                    if position not in anew:
                        continue
                found = next(headers)
                if not isinstance(found, NorbertStoreError):
                    frames = transform.stft.frame_count(next(iter(found.values())).samples)
                    chunks = document.layout.chunks(frames)
                    self._planned.append(PlannedTrack(track, chunks, found, anew=position in anew))
                elif self._skip_broken:
                    self._skip(track, str(found))
                else:
                    self._broken = type(found)(f"track {track.name!r}: {found}")
                    pool.shutdown(wait=False, cancel_futures=True)  # nobody needs the headers behind it
                    break

    def _is_anew(self, position: int) -> bool:
        """Whether a track that is there is to be written anew."""
        difference = self._differences.get(position)
        return self._update and difference is not None and bool(difference.files)

    def plan(self, committer: Committer, bundle_tracks: int | None) -> list[PlannedBundle]:
        """Plan where all tracks to be written will lie: those that are written anew come after all others."""
        layout = committer.document.layout
        planned = [track for track in self._planned if not track.anew]
        names = {track.name for track in planned}
        starts = zip(committer.column("name"), committer.column("start"), strict=True)
        committed = {name: layout.chunk_of(start) for name, start in starts if name in names}
        targets = len(committer.document.targets)
        size = bundle_size(len(self._tracks), targets) if bundle_tracks is None else bundle_tracks
        rest = plan_rest(planned, size, layout, committed, committer.document.chunks)
        end = max([layout.whole_shards(committer.document.chunks), *(bundle.end_chunk for bundle in rest)])
        return rest + plan_bundles([track for track in self._planned if track.anew], size, layout, end)

    def check_rows(self, bundles: Sequence[PlannedBundle], committer: Committer) -> list[PlannedBundle]:
        """Make the tracks' rows, without where they lie; return the bundles without tracks that don't fit."""
        checked = [
            replace(bundle, tracks=tuple(planned for planned in bundle.tracks if self._check_row(planned, committer)))
            for bundle in bundles
        ]
        for position, difference in self._differences.items():
            if self._update and difference.row and not difference.files:
                self._edit_row(self._tracks[position], committer)
        self._done = len(self._tracks) - len(self._rows)
        return checked

    def _check_row(self, planned: PlannedTrack, committer: Committer) -> bool:
        found = self._row(planned.track, committer, planned.anew)
        if found is None:
            return False
        row, new_columns = found
        committer.expect(row, new_columns, planned.anew)
        self._rows[planned.name] = row
        return True

    def _edit_row(self, track: SourceTrack, committer: Committer) -> None:
        """Have the next commit change the row of a track that is there, and whose files are the same."""
        found = self._row(track, committer, anew=True)
        if found is not None:
            row, new_columns = found
            committer.edit(row, new_columns)
            self._updated.append(track.name)

    def _row(self, track: SourceTrack, committer: Committer, anew: bool) -> tuple[Row, tuple[Column, ...]] | None:
        """Make a track's row; None if it doesn't fit, and is to be skipped."""
        source = track.source.reference(committer.storage.folder)
        files = track.source.file_states(committer.document.targets)
        try:
            row, new_columns = committer.check(
                track.name, track.split, source, labels=track.labels, files=files, anew=anew
            )
        except TrackError as error:
            if not self._skip_broken:
                raise
            self._skip(track, str(error))
            return None
        if anew:  # values that the data set doesn't have stay as they are
            row.pop(f"{TRACK_GROUP}/metadata")
            if not track.split:
                row.pop(f"{TRACK_GROUP}/split")
        return row, new_columns

    # ---- the work

    def encode(
        self, bundles: Sequence[PlannedBundle], committer: Committer, executor: Executor | None
    ) -> Generator[_Encoded, None, None]:
        """Encode all bundles, and yield the result of each, in order."""
        left_behind = committer.left_behind
        task = partial(_encode_bundle, committer.storage, committer.document, left_behind, self._skip_broken)
        if executor is not None:
            self._report("", [])
            with closing(in_order(executor, task, bundles)) as encoded:
                for results in encoded:
                    yield results
                    self._report("", [])
            return
        for bundle in bundles:
            yield task(bundle, self._report)

    def check_complete(self) -> None:
        """Raise the error because of which later tracks weren't planned, if there was one."""
        if self._broken:
            raise self._broken

    def rows_of(self, bundle: PlannedBundle, results: Sequence[Place | str]) -> list[Row]:
        """Complete the rows of the tracks that have a place, and note why others have none."""
        rows = []
        for planned, result in zip(bundle.tracks, results, strict=True):
            if isinstance(result, Place):
                rows.append({**self._rows[planned.name], **result.row})
                if planned.anew:
                    self._updated.append(planned.name)
            else:
                self._skip(planned.track, result)
        self._done += len(results)
        self._seconds += _seconds(results, self._rate)
        self._written += len(rows)
        return rows

    def _skip(self, track: SourceTrack, reason: str) -> None:
        place = str(track.source)
        self._skipped.append((track, reason if place in reason else f"{place}: {reason}"))

    def _report(self, track: str, results: Sequence[Place | str]) -> None:
        """Report the progress: the track that begins, and the results of those before it in its bundle."""
        if self._progress:
            seconds = self._seconds + _seconds(results, self._rate)
            elapsed = time.monotonic() - self._started
            self._progress(Progress(track, self._done + len(results), len(self._tracks), seconds, elapsed))

    # ---- in the end

    def summary(self, committer: Committer) -> Summary:
        """Report the end, and measure what is in the store now.

        Raises
        ------
        SourceError
            If none of the tracks is in the store.
        """
        self._report("", [])
        storage, layout = committer.storage, committer.document.layout
        positions = {id(track): i for i, track in enumerate(self._tracks)}
        skipped = sorted(self._skipped, key=lambda item: positions[id(item[0])])
        updated = set(self._updated)
        differing = [(self._tracks[i].name, difference) for i, difference in sorted(self._differences.items())]
        summary = Summary(
            storage.name,
            written=self._written,
            updated=self._updated,
            edited=[(name, str(how)) for name, how in differing if not how.gone and name not in updated],
            gone=[*((name, how.gone) for name, how in differing if how.gone), *self._gone.items()],
            notes=self._notes,
            skipped=[(track.name, reason) for track, reason in skipped],
            channels=len(committer.document.channels),
            store_bytes=_bytes_of(storage),
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
    left_behind: set[str],
    skip_broken: bool,
    planned: PlannedBundle,
    on_track: Callable[[str, Sequence[Place | str]], None] | None = None,
) -> _Encoded:
    """Read, encode and write the tracks of a bundle, in this process or in a worker."""
    transform = transform_from_config(document.transform)
    bundle = Bundle(storage, document, transform, planned.first_chunk, planned.end_chunk, left_behind)
    results: list[Place | str] = []
    for track in planned.tracks:
        if on_track:
            on_track(track.name, results)
        stems = TrackStems(track.track.source, document.targets, transform.rate, track.headers)
        try:
            results.append(bundle.add(track.name, stems.blocks(), stems.blocks_to_look_through()))
        except TRACK_ERRORS as error:
            if not skip_broken:
                raise
            results.append(str(error))
    bundle.finish()
    return _Encoded(results, bundle.extents)


def _seconds(results: Sequence[Place | str], rate: int) -> float:
    return sum(result.samples for result in results if isinstance(result, Place)) / rate


# ---- headers


def _headers_or_error(track: SourceTrack) -> Headers | NorbertStoreError:
    try:
        return track.source.first_headers()
    except (AudioError, SourceError) as error:
        return error


# ---- workers and the store


@contextmanager
def _executor(workers: Workers, storage: Storage) -> Iterator[Executor | None]:
    """Yield what does the work: processes of this machine, the given executor, or None for this process alone."""
    if not isinstance(workers, Executor | None):
        workers = whole_number("workers", workers, at_least=1)
    if storage.in_memory and workers not in (None, 1) and not isinstance(workers, ThreadPoolExecutor):
        raise ValueError("other processes can't write into the memory of this one; export to a folder or a URL")
    if storage.is_session and workers not in (None, 1):
        raise ValueError("a session of icechunk is written by this process alone; leave workers out")
    if isinstance(workers, int) and workers > 1:
        with process_pool(workers) as pool:
            yield pool
    else:
        yield None if isinstance(workers, int) else workers


def _begun(storage: Storage, wanted: _Wanted, run: _Export, over_leftovers: bool) -> Committer:
    """Begin a new store, once the lengths of all tracks are known."""
    headers, info = run.first_headers()
    shard_chunks = shard_size(bundle_size(run.tracks, len(wanted.targets)), info)
    document, transform = wanted.document(info.rate, info.channels, shard_chunks)
    run.read_headers(document, transform, headers)
    return Committer.new(storage, document, transform, over_leftovers)


def _resumed(storage: Storage, wanted: _Wanted, run: _Export) -> Committer | None:
    """Continue the store that is there; None if there is none."""
    asked: list[Document] = []

    def check(there: Document) -> None:
        document, _ = wanted.document(there.transform["rate"], there.channels)
        _check_same(storage.name, document, there)
        asked.append(document)

    try:
        committer = Committer.of(storage, check)
    except StoreNotFoundError:
        check_leftovers(storage)
        return None
    try:
        there = run.compare(committer, asked[0])
        run.read_headers(committer.document, committer.transform, there=there)
    except BaseException:
        committer.close()
        raise
    return committer


def _check_same(name: str, wanted: Document, there: Document) -> None:
    """Check that a store was begun with the settings that are asked for now."""
    # the number of chunks in a shard follows from the number of tracks, which may have grown
    layout = replace(wanted.layout, shard_chunks=there.layout.shard_chunks)
    wanted = replace(wanted, layout=layout, transform=_as_read(wanted.transform), encoder=_as_read(wanted.encoder))
    begun, asked = _settings(there), _settings(wanted)
    differ = [key for key in begun | asked if begun.get(key) != asked.get(key)]
    if differ:
        of_both = "; ".join(f"{key} {begun.get(key)!r}, found {asked.get(key)!r}" for key in differ)
        raise ValueError(f"{name} was begun with {of_both}; give what it was begun with, or export to another place")


def _settings(document: Document) -> dict[str, Any]:
    """Settings that are the same for all tracks of a store, by name."""
    parts = {"targets": document.targets, "channels": document.channels}
    return parts | vars(document.layout) | document.transform | document.encoder


def _as_read(config: dict[str, Any]) -> Any:
    """Return what JSON makes of a value."""
    return json.loads(json.dumps(config))
