"""Arrays to shards: tracks go in one after the other, bundles are written whole, and a commit makes them visible.

`norbert_store._write.commit` says in which order, and what that is good for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from norbert_store._format.document import Document
from norbert_store._format.layout import ROWS, SHARD_CHUNKS, Layout
from norbert_store._format.table import Column, Label, check_text
from norbert_store._jpeg.encoder import DEFAULT_EFFORT, DEFAULT_QUALITY, check_effort, check_quality
from norbert_store._jpeg.stream import BLOCK, LARGEST_SIDE
from norbert_store._sources.stems import Stems, check_target
from norbert_store._spectra.bins import (
    DEFAULT_BANDWIDTH,
    Mel,
    ReadyBins,
    StoredTransform,
    stored_transform,
)
from norbert_store._spectra.levels import Curve, PowerCurve
from norbert_store._spectra.stft import Stft, whole_number
from norbert_store._storage.storage import Location, Storage
from norbert_store._write.bundle import Bundle, Place
from norbert_store._write.commit import Committer, Row
from norbert_store.errors import MagnitudeError, NorbertStoreError, TrackError

PIXELS_PER_CHUNK = 256 * 744
_MOST_CHUNK_FRAMES = 8192

_CHANNEL_LABELS = {1: ("mono",), 2: ("left", "right")}


def create(
    location: Location,
    *,
    targets: Sequence[str],
    rate: int | None = None,
    channels: int | Sequence[str] = 2,
    transform: Stft | Mel | ReadyBins | None = None,
    bandwidth: float = DEFAULT_BANDWIDTH,
    reference: float | None = None,
    curve: Curve | None = None,
    quality: float = DEFAULT_QUALITY,
    effort: int = DEFAULT_EFFORT,
    chunk_frames: int | None = None,
    shard_chunks: int = SHARD_CHUNKS,
    bundle_tracks: int = 1,
    title: str = "",
    license: str = "",  # noqa: A002  # the name of the attribute
    citation: str = "",
) -> Writer:
    """Create a store, and return the writer that fills it.

    Parameters
    ----------
    location : str, path or zarr store
        Where; nothing may be there yet.
    targets : sequence of str
        Labels of the stems, for example ``("mixture", "vocals")``.
    rate : int, optional
        Samples per second; that of the transform, or 44,100.
    channels : int or sequence of str
        Their number, or their labels. One is "mono", two are "left" and "right".
    transform : TF, Mel or ReadyBins, optional
        How audio becomes magnitudes; ``TF(rate=rate)`` if left out.
    bandwidth : float
        Highest frequency that is kept, Hz.
    reference : float, optional
        The largest magnitude that can be stored; 1.0, which audio within full scale never exceeds.
    curve : Curve, optional
        Between magnitudes and levels; ``PowerCurve()`` if left out.
    quality : float
        From 0 to 100: what is heard of the loss, the same on every track. Ten points less double the error.
    effort : int
        How long to search for fewer bytes at that quality, from 0 to 4; see `norbert_store._encode.search`. 0 asks no
        ear, and bounds the error of every block instead, for data that isn't for listening.
    chunk_frames : int, optional
        Frames in a chunk, a multiple of 8; if left out, what gives about 190,000 pixels.
    shard_chunks : int
        Chunks along time in a shard (a file per target).
    bundle_tracks : int
        Tracks that are written and committed together and share shards; raise it for many short tracks.
    title, license, citation : str
        Of the data set, kept in its attributes.

    Returns
    -------
    Writer
        A context manager; leaving it commits.

    Raises
    ------
    StoreExistsError
        If there is something at the location.
    StoreInUseError
        If somebody is writing there.
    StorageError
        If nothing can be written there.
    ValueError
        If a parameter is out of range.

    Examples
    --------
    >>> import zarr
    >>> store = zarr.storage.MemoryStore()
    >>> noise = np.random.default_rng(0).uniform(-0.5, 0.5, (8000, 1))
    >>> with create(store, targets=["mixture"], rate=8000, channels=1) as writer:
    ...     place = writer.add("noise", {"mixture": noise})
    >>> place
    Place(start=0, frames=9, samples=8000, present=(True,))
    """
    bundle_tracks = whole_number("bundle_tracks", bundle_tracks, at_least=1)
    document, stored = new_document(
        targets=targets,
        rate=rate,
        channels=channels,
        transform=transform,
        bandwidth=bandwidth,
        reference=reference,
        curve=curve,
        quality=quality,
        effort=effort,
        chunk_frames=chunk_frames,
        shard_chunks=shard_chunks,
        title=title,
        license=license,
        citation=citation,
    )
    return Writer(Committer.new(Storage(location, read_only=False), document, stored), bundle_tracks)


def append(location: Location, *, bundle_tracks: int = 1) -> Writer:
    """Go on with a store: return a writer that adds tracks behind those that are there.

    Readers that have the store open go on with the tracks that they know; who opens it after a commit sees more. What a
    writer that died has left behind, and never committed, is deleted.

    Parameters
    ----------
    location : str, path or zarr store
    bundle_tracks : int
        As for `create`.

    Returns
    -------
    Writer
        A context manager; leaving it commits.

    Raises
    ------
    StoreNotFoundError
        If there is nothing there.
    StoreInUseError
        If somebody else is writing there.
    FormatError
        If what is there is no store, or one of other codecs.
    StorageError
        If nothing can be written there.

    Examples
    --------
    >>> import norbert_store, zarr
    >>> store = zarr.storage.MemoryStore()
    >>> with create(store, targets=["mixture"], rate=8000, channels=1) as writer:
    ...     _ = writer.add("noise", {"mixture": np.random.default_rng(0).uniform(-0.5, 0.5, 8000)}, split="train")
    >>> with append(store) as writer:
    ...     _ = writer.add("silence", {"mixture": np.zeros(8000)}, split="test")
    >>> norbert_store.open(store).names
    ['noise', 'silence']
    """
    bundle_tracks = whole_number("bundle_tracks", bundle_tracks, at_least=1)
    return Writer(Committer.of(Storage(location, read_only=False)), bundle_tracks)


def new_document(
    *,
    targets: Sequence[str],
    rate: int | None = None,
    channels: int | Sequence[str] = 2,
    transform: Stft | Mel | ReadyBins | None = None,
    bandwidth: float = DEFAULT_BANDWIDTH,
    reference: float | None = None,
    curve: Curve | None = None,
    quality: float = DEFAULT_QUALITY,
    effort: int = DEFAULT_EFFORT,
    chunk_frames: int | None = None,
    shard_chunks: int = SHARD_CHUNKS,
    title: str = "",
    license: str = "",  # noqa: A002  # the name of the attribute
    citation: str = "",
) -> tuple[Document, StoredTransform]:
    """Describe an empty store; parameters as for `create`.

    Raises
    ------
    ValueError
        If one is out of range.
    """
    stored = stored_transform(_analysis(transform, rate), bandwidth)
    target_labels = _labels("targets", targets)
    channel_labels = _channel_labels(channels)
    curve = curve if curve is not None else PowerCurve()
    if not isinstance(curve, Curve):
        raise ValueError(f"curve must be a PowerCurve or LogCurve, found {curve!r}")
    if reference is not None:
        curve = replace(curve, reference=reference)
    layout = Layout(
        bins=len(stored.frequencies),
        chunk_frames=_chunk_frames(chunk_frames, len(stored.frequencies)),
        shard_chunks=whole_number("shard_chunks", shard_chunks, at_least=1),
        curve=curve,
        rows=ROWS,
    )
    if max(layout.chunk_frames, layout.bins) > LARGEST_SIDE:
        raise ValueError(
            f"a chunk of {layout.chunk_frames} frames x {layout.bins} bins is too large for a JPEG, whose sides have "
            f"at most {LARGEST_SIDE} pixels; lower chunk_frames, n_fft or the bandwidth"
        )
    about = {"title": title, "license": license, "citation": citation}
    document = Document(
        targets=target_labels,
        channels=channel_labels,
        transform=stored.config,
        layout=layout,
        encoder={"quality": check_quality(quality), "effort": check_effort(effort)},
        about={key: check_text(key, text) for key, text in about.items() if text},
    )
    return document, stored


class Writer:
    """Fills a store, track by track; made by `create` or `append`.

    At most one shard per target is in memory, encoded. Leaving the ``with`` block commits all tracks that were added
    whole, also after an error.
    """

    def __init__(self, committer: Committer, bundle_tracks: int) -> None:
        self.transform = committer.transform
        self._committer = committer
        self._bundle_tracks = bundle_tracks
        self._rows: list[Row] = []  # of the open bundle
        layout = committer.document.layout
        self._bundle = self._new_bundle(layout.chunks(committer.document.frames))
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self.close()
        except NorbertStoreError:
            # what went wrong first is what people need to know
            if error is None:
                raise

    @property
    def document(self) -> Document:
        """What is committed."""
        return self._committer.document

    @property
    def folder(self) -> Path | None:
        """The folder of the store, if it is one on this machine."""
        return self._committer.storage.folder

    def __repr__(self) -> str:
        return f"<norbert_store.Writer of {self._committer.storage.name!r}, {len(self._committer.names)} tracks>"

    # ---- adding tracks

    def add(
        self,
        name: str,
        stems: Stems,
        *,
        split: str = "",
        source: str = "",
        metadata: Mapping[str, Any] | None = None,
        labels: Mapping[str, Label] | None = None,
    ) -> Place:
        """Add a track from audio.

        Parameters
        ----------
        name : str
            Not empty, and not that of another track.
        stems : mapping or iterable
            By target: an array (samples, channels) of floats, the path of an audio file, or an iterable of blocks
            (samples, channels). A target that is left out, or None, is marked as absent. Or an iterable of
            (target, block) for stems that come interleaved.
        split : str
            Such as "train".
        source : str
            Where the audio is: a path relative to the folder that holds the store, or a URI.
        metadata : mapping, optional
            Anything that JSON can hold.
        labels : mapping, optional
            Text or numbers that get a column of their own in the track table; None where one isn't known.

        Returns
        -------
        Place
            Where the track came to lie.

        Raises
        ------
        TrackError
            If name, split, metadata or labels don't fit.
        AudioError, SourceError
            If audio can't be read, or stems differ in length, rate or channels.
        MagnitudeError
            If a magnitude exceeds the reference. The message tells the reference that the track needs.
        """
        self._check_open()
        row, columns = self._committer.check(name, split, source, metadata, labels)
        return self._finish_track(row, columns, self._bundle.add(name, stems))

    def add_magnitude(
        self,
        name: str,
        magnitude: Mapping[str, Any],
        *,
        samples: int | None = None,
        split: str = "",
        source: str = "",
        metadata: Mapping[str, Any] | None = None,
        labels: Mapping[str, Label] | None = None,
    ) -> Place:
        """Add a track from magnitudes that were computed elsewhere.

        Parameters
        ----------
        name, split, source, metadata, labels
            As for `add`.
        magnitude : mapping
            By target: an array (channels, frames, bins), finite, from 0 to the reference. Anything that slices like
            NumPy will do (a memory map, HDF5, zarr); it is read in blocks of frames.
        samples : int, optional
            Length of the audio; if left out, the longest that gives so many frames.

        Returns
        -------
        Place
            Where the track came to lie.

        Raises
        ------
        TrackError
            If name, split, metadata or labels don't fit.
        MagnitudeError
            If values are no magnitudes up to the reference, or arrays differ in length or don't fit the store.
        ValueError
            If so many samples don't give so many frames.
        """
        self._check_open()
        row, columns = self._committer.check(name, split, source, metadata, labels)
        if not isinstance(magnitude, Mapping):
            kind = type(magnitude).__name__
            raise MagnitudeError(f"track {name!r}: expected magnitudes by target, found {kind}")
        with self._bundle.track(name) as track:
            for target, array in magnitude.items():
                check_target(target, self.document.targets)
                if array is not None:
                    track.push_magnitude(target, array)
            frames = track.finish_magnitude()
            samples = self._samples(frames) if samples is None else whole_number("samples", samples, at_least=1)
            self._check_samples(samples, frames)
            place = track.place(samples)
        return self._finish_track(row, columns, place)

    def _check_open(self) -> None:
        if self._closed:
            raise TrackError(f"the writer of {self._committer.storage.name} is closed; no track can be added")

    def _samples(self, frames: int) -> int:
        """Length of the audio that a number of frames stands for."""
        if isinstance(self.transform, ReadyBins):
            return frames * self.transform.hop
        stft = self.transform.stft
        return (frames - 1) * stft.hop + (0 if stft.centred else stft.n_fft)

    def _check_samples(self, samples: int, frames: int) -> None:
        """What `Track.to_audio` would otherwise stumble over."""
        if isinstance(self.transform, ReadyBins):
            return
        expected = self.transform.stft.frame_count(samples)
        if expected != frames:
            raise MagnitudeError(f"{samples} samples of audio give {expected} frames, found {frames}")

    def _finish_track(self, row: Row, columns: tuple[Column, ...], place: Place) -> Place:
        self._committer.expect(row, columns)
        self._rows.append({**row, **asdict(place)})
        if len(self._rows) >= self._bundle_tracks:
            self._finish_bundle()
        return place

    def _new_bundle(self, next_chunk: int) -> Bundle:
        """Begin a bundle at the next shard's beginning."""
        committer = self._committer
        first_chunk = committer.document.layout.whole_shards(next_chunk)
        return Bundle(committer.storage, committer.document, self.transform, first_chunk)

    def _finish_bundle(self) -> None:
        if self._rows:
            self._bundle.finish()
            rows, self._rows = self._rows, []
            self._bundle = self._new_bundle(self._bundle.next_chunk)
            self._committer.add(rows)

    # ---- commits

    def commit(self) -> None:
        """Make all whole bundles visible to readers; tracks of a bundle that isn't full yet wait for the next time."""
        self._committer.commit()

    def close(self) -> None:
        """Write the bundle that is open, and commit; nothing can be added after that."""
        if self._closed:
            return
        self._closed = True
        try:
            self._finish_bundle()
        finally:
            self._committer.close()


def _analysis(transform: Stft | Mel | ReadyBins | None, rate: int | None) -> Stft | Mel | ReadyBins:
    if transform is None:
        return Stft() if rate is None else Stft(rate=rate)
    if rate is not None and rate != getattr(transform, "rate", rate):
        raise ValueError(f"rate is {rate}, but the transform's is {transform.rate}; give one, or the same")
    return transform


def _labels(what: str, labels: Sequence[str]) -> tuple[str, ...]:
    if isinstance(labels, str):
        raise ValueError(f"{what} must be a sequence of names, found the one name {labels!r}")
    names = tuple(labels)
    if not names or not all(isinstance(name, str) and name.strip() for name in names):
        raise ValueError(f"{what} must be a sequence of names, none of them empty; found {names!r}")
    if len(set(names)) != len(names):
        raise ValueError(f"{what} must name everything once; found {names!r}")
    return tuple(check_text(f"the name in {what}", name) for name in names)


def _channel_labels(channels: int | Sequence[str]) -> tuple[str, ...]:
    if isinstance(channels, int | np.integer) and not isinstance(channels, bool):
        count = whole_number("channels", channels, at_least=1)
        return _CHANNEL_LABELS.get(count) or tuple(str(channel) for channel in range(count))
    return _labels("channels", channels)  # type: ignore[arg-type]


def _chunk_frames(chunk_frames: int | None, bins: int) -> int:
    if chunk_frames is None:
        return int(np.clip(round(PIXELS_PER_CHUNK / bins / BLOCK) * BLOCK, BLOCK, _MOST_CHUNK_FRAMES))
    if whole_number("chunk_frames", chunk_frames, at_least=1) % BLOCK:
        raise ValueError(f"chunk_frames must be a multiple of {BLOCK}, found {chunk_frames}")
    return chunk_frames
