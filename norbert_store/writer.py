"""Arrays to shards: tracks go in one after the other, bundles are written whole, and a commit makes them visible.

The order is always: shards, rows of the track table, then the one document that commits them
(`norbert_store.format.document`). A process that dies at any moment leaves the last committed state.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from norbert_store import audio as audio_files
from norbert_store.errors import (
    AudioError,
    MagnitudeError,
    NorbertStoreError,
    StoreExistsError,
    TrackError,
)
from norbert_store.format.document import MAGNITUDE, ROOT_KEY, TRACK_GROUP, Document, Layout, group_document, json_bytes
from norbert_store.format.shard import ChunkPlace, pack, with_checksum
from norbert_store.format.table import Column, Label, check_labels, check_name, check_text, metadata_text
from norbert_store.jpeg.encoder import DEFAULT_QUALITY, check_quality, encode, quantisation_table
from norbert_store.jpeg.stream import BLOCK, LARGEST_SIDE
from norbert_store.levels import Curve, PowerCurve, as_floats, check_magnitude, quantize, round_up
from norbert_store.storage import Location, Storage
from norbert_store.transform import DEFAULT_BANDWIDTH, Mel, ReadyBins, Stft, StftStream, StoredTransform, as_audio

Stem = ArrayLike | str | os.PathLike[str] | Iterable[ArrayLike]
"""One stem: an array (samples, channels), the path of an audio file, or an iterable of blocks (samples, channels)."""

Stems = Mapping[str, Stem | None] | Iterable[tuple[str, ArrayLike]]
"""All stems of a track by target; or blocks of all of them in any order, each with its target."""

PIXELS_PER_CHUNK = 256 * 744
SHARD_CHUNKS = 64
COMMIT_SECONDS = 5.0
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
        From 0 to 100, see `norbert_store.jpeg.encoder`.
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
    ValueError
        If a parameter is out of range.

    Examples
    --------
    >>> import zarr
    >>> store = zarr.storage.MemoryStore()
    >>> noise = np.random.default_rng(0).uniform(-0.5, 0.5, (8000, 1))
    >>> with create(store, targets=["mixture"], rate=8000, channels=1) as writer:
    ...     row = writer.add("noise", {"mixture": noise})
    >>> row
    Row(start=0, frames=9, samples=8000, present=(True,))
    """
    analysis = _transform(transform, rate)
    stored = analysis.stored(bandwidth)
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
        shard_chunks=_positive("shard_chunks", shard_chunks),
        curve=curve,
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
        encoder={"quality": check_quality(quality)},
        about={key: check_text(key, text) for key, text in about.items() if text},
    )
    storage = Storage(location, read_only=False)
    if not storage.is_empty():
        raise StoreExistsError(f"{storage.name} exists already and isn't empty; give another place, or delete it first")
    writer = Writer(storage, document, stored, _positive("bundle_tracks", bundle_tracks))
    writer._begin()
    return writer


@dataclass(frozen=True)
class Row:
    """Where a track came to lie.

    Attributes
    ----------
    start, frames : int
        Along the packed axis.
    samples : int
        Length of the audio.
    present : tuple of bool
        For each target of the store.
    """

    start: int
    frames: int
    samples: int
    present: tuple[bool, ...]


@dataclass
class _Target:
    """What is open for one target: the shard that fills up."""

    shard: int = -1
    chunks: dict[ChunkPlace, bytes] = field(default_factory=dict)

    def copy(self) -> _Target:
        return _Target(self.shard, dict(self.chunks))


class Writer:
    """Fills a store, track by track; made by `create`.

    At most one shard per target is in memory, encoded. Leaving the ``with`` block commits all tracks that were added
    whole, also after an error.
    """

    def __init__(self, storage: Storage, document: Document, transform: StoredTransform, bundle_tracks: int) -> None:
        self.document = document
        self.transform = transform
        self._storage = storage
        self._bundle_tracks = bundle_tracks
        self._table = quantisation_table(document.encoder["quality"])
        self._names: set[str] = set()
        self._labels = document.labels
        self._waiting: list[dict[str, Any]] = []  # rows of the open bundle
        self._written: list[dict[str, Any]] = []  # rows of whole bundles that aren't committed
        self._targets = {target: _Target() for target in document.targets}
        self._next_chunk = document.layout.chunks(document.frames)
        self._flushed: list[tuple[str, int]] = []
        self._committed_at = time.monotonic()
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def folder(self) -> Path | None:
        """The folder of the store, if it is one on this machine."""
        return self._storage.folder

    def __repr__(self) -> str:
        return f"<norbert_store.Writer of {self._storage.name!r}, {len(self._names)} tracks>"

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
    ) -> Row:
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
            Text or numbers that get a column of their own in the track table.

        Returns
        -------
        Row
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
        row = self._row(name, split, source, metadata, labels)
        rate = self.transform.stft.rate
        with self._track(row, labels) as track:
            for target, block in self._blocks(stems, rate):
                track.push(target, block)
            row["samples"] = track.finish()
        return Row(row["start"], row["frames"], row["samples"], tuple(row["present"]))

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
    ) -> Row:
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
        Row
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
        row = self._row(name, split, source, metadata, labels)
        with self._track(row, labels) as track:
            for target, array in magnitude.items():
                self._check_target(target)
                if array is not None:
                    track.push_magnitude(target, array)
            frames = track.finish_magnitude()
            row["samples"] = self._samples(frames) if samples is None else _positive("samples", samples)
            self._check_samples(row["samples"], frames)
        return Row(row["start"], row["frames"], row["samples"], tuple(row["present"]))

    def _row(
        self,
        name: str,
        split: str,
        source: str,
        metadata: Mapping[str, Any] | None,
        labels: Mapping[str, Label] | None,
    ) -> dict[str, Any]:
        """Check what goes into the track table, before any work is done."""
        if self._closed:
            raise TrackError(f"the writer of {self._storage.name} is closed; no track can be added")
        if check_name(name) in self._names:
            raise TrackError(f"there is a track named {name!r} already; every name stands once")
        rows = len(self._names)
        check_labels(labels, self._labels, rows)
        return {
            "name": name,
            "split": check_text(f"the split of {name!r}", split),
            "source": check_text(f"the source of {name!r}", os.fspath(source)),
            "metadata": metadata_text(metadata),
            **(labels or {}),
        }

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

    def _track(self, row: dict[str, Any], labels: Mapping[str, Label] | None) -> _TrackWriter:
        return _TrackWriter(self, row, labels)

    def _check_target(self, target: str) -> None:
        if target not in self._targets:
            known = ", ".join(map(repr, self.document.targets))
            raise TrackError(f"the store has no target {target!r}; it has {known}")

    def _blocks(self, stems: Stems, rate: int) -> Iterator[tuple[str, NDArray[Any]]]:
        """All blocks of all stems, each with its target."""
        if not isinstance(stems, Mapping):
            for target, block in stems:
                self._check_target(target)
                yield target, as_audio(block)
            return
        present = {target: stem for target, stem in stems.items() if stem is not None}
        for target in present:
            self._check_target(target)
        _check_files(present, rate)
        for target, stem in present.items():
            blocks = 0
            for block in _stem_blocks(stem):
                blocks += 1
                yield target, block
            if not blocks:
                raise AudioError(f"target {target!r} gave no blocks of audio; an iterator can be read only once")

    # ---- shards

    def _put(self, target: str, channel: int, chunk: int, jpeg: bytes) -> None:
        """Put one encoded chunk at its place along the packed axis; write the shard before it, if that is full."""
        shard, within = divmod(chunk, self.document.layout.shard_chunks)
        state = self._targets[target]
        if shard != state.shard:
            self._flush(target)
            state.shard = shard
        state.chunks[channel, within] = with_checksum(jpeg)

    def _flush(self, target: str) -> None:
        state = self._targets[target]
        if state.chunks:
            data = pack(state.chunks, len(self.document.channels), self.document.layout.shard_chunks)
            self._storage.set(self._shard_key(target, state.shard), data)
            self._flushed.append((target, state.shard))
        state.chunks = {}

    def _shard_key(self, target: str, shard: int) -> str:
        return f"{MAGNITUDE}/c/{self.document.targets.index(target)}/0/{shard}/0"

    def _finish_track(self, row: dict[str, Any], chunks: int, labels: Mapping[str, Label] | None) -> None:
        new = check_labels(labels, self._labels, len(self._names))
        self._labels = (*self._labels, *new.values())
        self._names.add(row["name"])
        self._waiting.append(row)
        self._next_chunk += chunks
        if len(self._waiting) >= self._bundle_tracks:
            self._finish_bundle()
            if time.monotonic() - self._committed_at >= COMMIT_SECONDS:
                self.commit()

    def _finish_bundle(self) -> None:
        if not self._waiting:
            return
        for target in self._targets:
            self._flush(target)
        self._written += self._waiting
        self._waiting = []
        shard_chunks = self.document.layout.shard_chunks
        self._next_chunk = -(-self._next_chunk // shard_chunks) * shard_chunks

    # ---- commits

    def commit(self) -> None:
        """Make all whole bundles visible to readers; tracks of a bundle that isn't full yet wait for the next time."""
        if self._written:
            last = self._written[-1]
            chunks = self.document.layout.chunks(last["frames"])
            document = replace(
                self.document,
                tracks=self.document.tracks + len(self._written),
                frames=last["start"] + chunks * self.document.layout.chunk_frames,
                labels=self._labels,
            )
            self._write_rows(document)
            self._storage.set(ROOT_KEY, document.to_json())
            self.document = document
            self._written = []
        self._committed_at = time.monotonic()

    def close(self) -> None:
        """Write the bundle that is open, and commit; nothing can be added after that."""
        if self._closed:
            return
        self._closed = True
        self._finish_bundle()
        self.commit()
        # programs that don't know consolidated metadata read these
        self._write_array_documents()

    def _begin(self) -> None:
        """Write the empty store: it can be opened from now on."""
        document = self.document
        committed = document.to_json()  # before anything is written: a transform may hold what JSON can't
        self._write_array_documents()
        self._storage.set(f"{TRACK_GROUP}/{ROOT_KEY}", json_bytes(group_document()))
        arrays = document.arrays()
        for path, values in (
            ("target", np.array(document.targets, dtype=object)),
            ("channel", np.array(document.channels, dtype=object)),
            ("frequency", self.transform.frequencies),
        ):
            self._storage.array(path, arrays[path])[:] = values
        self._storage.set(ROOT_KEY, committed)

    def _write_array_documents(self) -> None:
        for path, metadata in self.document.arrays().items():
            self._storage.set(f"{path}/{ROOT_KEY}", json_bytes(metadata))

    def _write_rows(self, document: Document) -> None:
        arrays = document.arrays()
        known = {column.name for column in self.document.columns}
        for column in document.columns:
            # a new column begins at the first row, so that none of its chunks is missing
            first = self.document.tracks if column.name in known else 0
            values = _column_values(column, [*[{}] * (self.document.tracks - first), *self._written])
            path = f"{TRACK_GROUP}/{column.name}"
            self._storage.array(path, arrays[path])[first : document.tracks] = values


class _TrackWriter:
    """One track on its way into the shards; undone if anything goes wrong."""

    def __init__(self, writer: Writer, row: dict[str, Any], labels: Mapping[str, Label] | None) -> None:
        self._writer = writer
        self._row = row
        self._labels = labels
        self._streams: dict[str, StftStream] = {}
        self._frames: dict[str, int] = {}
        self._too_large: dict[str, float] = {}

    def __enter__(self) -> Self:
        self._before = {target: state.copy() for target, state in self._writer._targets.items()}
        self._writer._flushed = []
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        writer = self._writer
        if error is not None:
            # a shard that this track completed must not stay: another track's absent stem may come to lie there
            for target, shard in writer._flushed:
                writer._storage.delete(writer._shard_key(target, shard))
            writer._targets = self._before
            if isinstance(error, NorbertStoreError) and not isinstance(error, TrackError):
                raise type(error)(f"track {self._row['name']!r}: {error}") from error
            return
        layout = writer.document.layout
        frames = next(iter(self._frames.values()))
        self._row["start"] = writer._next_chunk * layout.chunk_frames
        self._row["frames"] = frames
        self._row["present"] = [target in self._frames for target in writer.document.targets]
        writer._finish_track(self._row, layout.chunks(frames), self._labels)

    # ---- from audio

    def push(self, target: str, block: NDArray[Any]) -> None:
        writer = self._writer
        channels = len(writer.document.channels)
        if block.shape[1] != channels:
            labels = ", ".join(writer.document.channels)
            raise AudioError(
                f"target {target!r} has {block.shape[1]} channels; the store has {channels} ({labels}): "
                "mix or copy the channels before"
            )
        if target not in self._streams:
            stft, frames = writer.transform.stft, writer.document.layout.chunk_frames
            self._streams[target] = StftStream(stft, channels, np.float32, frames)
            self._frames[target] = 0
        for spectrum in self._streams[target].push(block):
            self._encode_spectrum(target, spectrum)

    def finish(self) -> int:
        """Encode what is left; return the length of the track in samples."""
        if not self._streams:
            raise AudioError("there is no audio; give at least one stem")
        lengths = {target: stream.samples for target, stream in self._streams.items()}
        if len(set(lengths.values())) > 1:
            found = ", ".join(f"{target} {samples}" for target, samples in lengths.items())
            raise AudioError(f"its stems differ in length (samples: {found}); cut or pad them to the same")
        if 0 in lengths.values():
            raise AudioError("its stems hold no samples")
        for target, stream in self._streams.items():
            for spectrum in stream.finish():
                self._encode_spectrum(target, spectrum)
        self._check_reference()
        return next(iter(lengths.values()))

    def _encode_spectrum(self, target: str, spectrum: NDArray[Any]) -> None:
        self._encode(target, self._writer.transform.reduce(np.abs(spectrum)))

    # ---- from magnitudes

    def push_magnitude(self, target: str, magnitude: Any) -> None:
        document = self._writer.document
        layout = document.layout
        expected = (len(document.channels), "frames", layout.bins)
        shape = tuple(np.shape(magnitude))
        if len(shape) != 3 or shape[0] != expected[0] or shape[2] != expected[2] or shape[1] == 0:
            raise MagnitudeError(
                f"target {target!r}: expected magnitudes (channels, frames, bins) of shape "
                f"({expected[0]}, frames, {expected[2]}), found {shape}"
            )
        if not hasattr(magnitude, "__getitem__") or isinstance(magnitude, list | tuple):
            magnitude = np.asarray(magnitude)
        self._frames[target] = 0
        for start in range(0, shape[1], layout.chunk_frames):
            block = np.asarray(magnitude[:, start : start + layout.chunk_frames])
            self._encode(target, np.moveaxis(as_floats(block), 0, 1))

    def finish_magnitude(self) -> int:
        """Check the lengths; return the number of frames."""
        if not self._frames:
            raise MagnitudeError("there are no magnitudes; give those of at least one target")
        if len(set(self._frames.values())) > 1:
            found = ", ".join(f"{target} {frames}" for target, frames in self._frames.items())
            raise MagnitudeError(f"its targets differ in length (frames: {found}); cut or pad them to the same")
        self._check_reference()
        return next(iter(self._frames.values()))

    # ---- both

    def _encode(self, target: str, magnitude: NDArray[Any]) -> None:
        """Encode the next chunk of all channels: magnitudes (frames, channels, bins)."""
        writer, layout = self._writer, self._writer.document.layout
        chunk = writer._next_chunk + self._frames[target] // layout.chunk_frames
        self._frames[target] += len(magnitude)
        try:
            check_magnitude(magnitude)
        except MagnitudeError as error:
            raise MagnitudeError(f"target {target!r}: {error}") from None
        highest = float(magnitude.max())
        if highest > layout.curve.reference * (1 + 1e-6) or self._too_large:
            # nothing more is written, but the rest is looked through, to tell which reference the whole track needs
            self._too_large[target] = max(highest, self._too_large.get(target, 0))
            return
        image = np.zeros((layout.chunk_frames, layout.bins), np.uint8)
        frames = len(magnitude)
        for channel in range(magnitude.shape[1]):
            image[:frames] = quantize(magnitude[:, channel], layout.curve)
            # an edge within a block would cost bytes, and ring into the last frames
            image[frames : -(-frames // BLOCK) * BLOCK] = image[frames - 1]
            writer._put(target, channel, chunk, encode(image, writer._table))

    def _check_reference(self) -> None:
        if not self._too_large:
            return
        reference = self._writer.document.layout.curve.reference
        target, highest = max(self._too_large.items(), key=lambda item: item[1])
        if highest > reference:
            raise MagnitudeError(
                f"target {target!r} has a magnitude of {highest:.6g}, above the reference {reference:g} of the store; "
                f"create the store with reference={round_up(highest)!r} or more, or scale the audio down"
            )


def _transform(transform: Stft | Mel | ReadyBins | None, rate: int | None) -> Stft | Mel | ReadyBins:
    if transform is None:
        return Stft() if rate is None else Stft(rate=rate)
    if not isinstance(transform, Stft | Mel | ReadyBins):
        raise ValueError(f"transform must be a TF, Mel or ReadyBins, found {transform!r}")
    if rate is not None and rate != transform.rate:
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
    if isinstance(channels, int) and not isinstance(channels, bool):
        count = _positive("channels", channels)
        return _CHANNEL_LABELS.get(count) or tuple(str(channel) for channel in range(count))
    return _labels("channels", channels)  # type: ignore[arg-type]


def _chunk_frames(chunk_frames: int | None, bins: int) -> int:
    if chunk_frames is None:
        return int(np.clip(round(PIXELS_PER_CHUNK / bins / 8) * 8, 8, _MOST_CHUNK_FRAMES))
    if _positive("chunk_frames", chunk_frames) % 8:
        raise ValueError(f"chunk_frames must be a multiple of 8, found {chunk_frames}")
    return chunk_frames


def _positive(name: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise ValueError(f"{name} must be a whole number of at least 1, found {value!r}")
    return int(value)


def _check_files(stems: Mapping[str, Stem], rate: int) -> None:
    """Compare the headers of all stems that are files, before any of them is read."""
    lengths: dict[str, int] = {}
    for target, stem in stems.items():
        if not isinstance(stem, str | os.PathLike):
            continue
        info = audio_files.audio_info(stem)
        if info.rate != rate:
            raise AudioError(
                f"{os.fspath(stem)} has {info.rate} samples per second; the store has {rate}: resample it before"
            )
        lengths[target] = info.samples
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"{target} {samples}" for target, samples in lengths.items())
        raise AudioError(f"its stems differ in length (samples: {found}); cut or pad them to the same")


def _stem_blocks(stem: Stem) -> Iterator[NDArray[Any]]:
    if isinstance(stem, str | os.PathLike):
        yield from audio_files.read_blocks(stem)
    elif hasattr(stem, "shape") or isinstance(stem, list | tuple):
        samples = as_audio(stem)  # type: ignore[arg-type]
        for start in range(0, len(samples), audio_files.BLOCK_SAMPLES):
            yield samples[start : start + audio_files.BLOCK_SAMPLES]
    elif isinstance(stem, Iterable):
        for block in stem:
            yield as_audio(block)
    else:
        raise AudioError(f"expected audio as an array, a path or an iterable of blocks, found {type(stem).__name__}")


def _column_values(column: Column, rows: Sequence[Mapping[str, Any]]) -> NDArray[Any]:
    values = [row.get(column.name, column.fill_value) for row in rows]
    return np.array(values, dtype=object if column.data_type == "string" else column.data_type)
