"""A data set's tracks into a store, whatever their source: order, progress, what to do with broken files, a summary.

`norbert_store.sources` finds the tracks; this module writes them.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from norbert_store.audio import AudioInfo, audio_info, read_stems, source_reference, stems_info
from norbert_store.errors import AudioError, SourceError, TrackError
from norbert_store.format.table import Label
from norbert_store.stems import Stems
from norbert_store.storage import Location, Storage
from norbert_store.writer import SHARD_CHUNKS, Writer, create

FLOAT_BYTES = 4

# Beyond this many files, hubs and object stores become slow to list; some refuse 10,000 in one folder.
_MOST_SHARDS = 4096
_MOST_SHARD_CHUNKS = 4096


@dataclass(frozen=True)
class SourceTrack:
    """A track that can be exported.

    Attributes
    ----------
    name, split : str
    path : Path
        What its source is: a folder, a file with a stream per stem, or a plain file.
    files : mapping of str to Path
        A file per stem; empty where one file holds them all.
    labels : mapping
        Columns of the track table.
    """

    name: str
    split: str
    path: Path
    files: Mapping[str, Path] = field(default_factory=dict)
    labels: Mapping[str, Label] = field(default_factory=dict)

    def info(self) -> AudioInfo:
        """Read the headers: rate, channels and length of the first stem.

        Raises
        ------
        SourceError, AudioError
            If there is no audio, or it can't be read.
        """
        if self.files:
            return audio_info(next(iter(self.files.values())))
        return next(iter(stems_info(self.path).values()))

    def stems(self, rate: int, targets: Sequence[str]) -> Stems:
        """Return what `Writer.add` takes.

        Raises
        ------
        AudioError
            If a file that holds all stems has another rate, or a stem that is no target.
        """
        if self.files:
            return dict(self.files)
        for stem, info in stems_info(self.path).items():
            if info.rate != rate:
                raise AudioError(f"{self.path} has {info.rate} samples per second; the store has {rate}")
            if stem not in targets:
                raise AudioError(f"{self.path} has a stem {stem!r}; expected {', '.join(map(repr, targets))}")
        return read_stems(self.path)

    def audio_bytes(self) -> int:
        """Size of the audio files."""
        paths = list(self.files.values()) or [self.path]
        return sum(os.path.getsize(path) for path in paths if path.is_file())


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
    channels : int
    audio_seconds : float
        Length of all tracks.
    stem_seconds : float
        Length of all stems of all tracks.
    store_bytes, npy_bytes, audio_bytes : int
        Size of the store, of the same magnitudes as float32 in .npy, and of the audio files.
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
    elapsed_seconds: float = 0.0
    skipped: list[tuple[str, str]] = field(default_factory=list)

    @property
    def speed(self) -> float:
        """Seconds of music for each second of time."""
        return self.audio_seconds / self.elapsed_seconds if self.elapsed_seconds else 0.0


def export(
    tracks: Sequence[SourceTrack],
    out: Location,
    targets: Sequence[str],
    *,
    skip_broken: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
    **options: Any,
) -> Summary:
    """Write tracks into a new store.

    Parameters
    ----------
    tracks : sequence of SourceTrack
        At least one.
    out : str, path or zarr store
        Where nothing is yet.
    targets : sequence of str
    skip_broken : bool
        Whether to go on without tracks that can't be read.
    on_progress : callable, optional
        Called with a `Progress` before each track, and at the end.
    **options
        As for `norbert_store.create`. Rate and channels are those of the first track, unless given.

    Returns
    -------
    Summary

    Raises
    ------
    StoreExistsError
        If there is something at ``out``.
    SourceError, AudioError, MagnitudeError, TrackError
        If a track can't be exported, unless ``skip_broken``.
    """
    started = time.monotonic()
    info = first_info(tracks, skip_broken)
    if "transform" not in options:
        options.setdefault("rate", info.rate)
    options.setdefault("channels", info.channels)
    options = {**_placement(len(tracks), len(targets), info), **options}
    summary = Summary(store=str(out))
    with create(out, targets=targets, **options) as writer:
        summary.channels = len(writer.document.channels)
        for i, track in enumerate(tracks):
            if on_progress:
                on_progress(_progress(track.name, i, tracks, summary, started))
            try:
                _add(writer, track, summary)
            except (AudioError, SourceError, TrackError, ValueError) as error:
                if not skip_broken:
                    raise type(error)(f"{error}. {out} holds the {summary.tracks} tracks before it") from error
                place = str(track.path)
                reason = str(error) if place in str(error) else f"{place}: {error}"
                summary.skipped.append((track.name, reason))
    if on_progress:
        on_progress(_progress("", len(tracks), tracks, summary, started))
    storage = Storage(out)
    summary.store_bytes = sum(storage.size(key) or 0 for key in storage.list())
    summary.elapsed_seconds = time.monotonic() - started
    return summary


def _add(writer: Writer, track: SourceTrack, summary: Summary) -> None:
    document = writer.document
    rate = writer.transform.rate
    source = source_reference(track.path, writer.folder)
    place = writer.add(
        track.name, track.stems(rate, document.targets), split=track.split, source=source, labels=track.labels
    )
    stems = sum(place.present)
    summary.tracks += 1
    summary.audio_seconds += place.samples / rate
    summary.stem_seconds += stems * place.samples / rate
    summary.npy_bytes += stems * len(document.channels) * place.frames * document.layout.bins * FLOAT_BYTES
    summary.audio_bytes += track.audio_bytes()


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


def _placement(tracks: int, targets: int, info: AudioInfo) -> dict[str, int]:
    """Tracks in a bundle and chunks in a shard: one track a bundle, or so many that there are not too many files."""
    bundle_tracks = math.ceil(tracks * targets / _MOST_SHARDS)
    if bundle_tracks == 1:
        return {}
    chunks = math.ceil(info.seconds / 6) * bundle_tracks  # a chunk of the default shape takes about six seconds
    return {"bundle_tracks": bundle_tracks, "shard_chunks": min(max(chunks, SHARD_CHUNKS), _MOST_SHARD_CHUNKS)}


def _progress(track: str, done: int, tracks: Sequence[SourceTrack], summary: Summary, started: float) -> Progress:
    return Progress(track, done, len(tracks), summary.audio_seconds, time.monotonic() - started)
