"""A bundle: whole tracks on their way into shards that are theirs alone.

Stems are looked through for their scales; then magnitudes become chunks, chunks wait for their shard to fill up, and
full shards are written. At most one shard per target is in memory, encoded. A track that fails is undone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from norbert_store._encode.search import ChunkEncoder, Encoding
from norbert_store._format.arrays import json_bytes
from norbert_store._format.document import EXTENT_PARTS, ROOT_KEY, Document
from norbert_store._format.layout import MAGNITUDE, MOST_FRAMES, parse_shard_key, shard_key
from norbert_store._format.shard import ChunkPlace, pack, with_checksum
from norbert_store._format.table import TRACK_GROUP
from norbert_store._spectra.bins import StoredTransform
from norbert_store._spectra.levels import TOLERANCE, as_floats, check_magnitude, round_up, scale_of, scale_within
from norbert_store._spectra.stft import StftStream
from norbert_store._storage.storage import Storage
from norbert_store._write.peak import Peak, SamplePeak, SpectrumPeak
from norbert_store.errors import AudioError, MagnitudeError, NorbertStoreError, SourceError, StorageError, TrackError

# what is wrong with a single track, which can be left out; every other error is about the store, or a mistake
TRACK_ERRORS = (AudioError, MagnitudeError, SourceError, TrackError)


@dataclass(frozen=True)
class Place:
    """Where a track came to lie.

    Attributes
    ----------
    start, frames : int
        Along the packed axis.
    samples : int
        Length of the audio.
    present : tuple of bool
        For each target of the store.
    scale : tuple of int
        For each target of the store; 0 where it is absent.
    """

    start: int
    frames: int
    samples: int
    present: tuple[bool, ...]
    scale: tuple[int, ...]

    @property
    def row(self) -> dict[str, Any]:
        """The values of the track table that tell it, by the path of their column."""
        return {f"{TRACK_GROUP}/{name}": value for name, value in asdict(self).items()}


@dataclass
class _OpenShard:
    """The shard of one target that fills up: its number, its chunks so far, and the track that each belongs to."""

    number: int = -1
    chunks: dict[ChunkPlace, bytes] = field(default_factory=dict)
    owners: dict[int, int] = field(default_factory=dict)

    def copy(self) -> _OpenShard:
        return _OpenShard(self.number, dict(self.chunks), dict(self.owners))


class Bundle:
    """Takes tracks one after the other, and owns the shards from its beginning on.

    Parameters
    ----------
    storage : Storage
    document : Document
        For labels, layout and encoder; what it says is committed doesn't matter here.
    transform : StoredTransform
    first_chunk : int
        Where the bundle begins along the packed axis, in chunks; a shard's beginning.
    end_chunk : int, optional
        Where the next bundle begins, if that is known: this one stays before it.
    left_behind : set of str, optional
        Keys of shards that were never committed, nor deleted; it is kept up to date.
    """

    def __init__(
        self,
        storage: Storage,
        document: Document,
        transform: StoredTransform,
        first_chunk: int,
        end_chunk: int | None = None,
        left_behind: set[str] | None = None,
    ) -> None:
        self.document = document
        self.transform = transform
        self.next_chunk = first_chunk
        self.end_chunk = end_chunk
        self.encoding = Encoding(document, transform)
        self._storage = storage
        self._open = {target: _OpenShard() for target in document.targets}
        self.first_chunk = first_chunk
        self._tracks = 0
        self._room = 0
        self._extents: dict[str, NDArray[np.uint32]] = {}  # of shards that are written
        self._written_by_track: list[str] = []
        self._left_behind = set() if left_behind is None else left_behind

    def add(
        self,
        name: str,
        blocks: Iterable[tuple[str, NDArray[Any]]],
        before: Iterable[tuple[str, NDArray[Any]]] = (),
        scales: Mapping[str, int] | None = None,
    ) -> Place:
        """Take a track of audio.

        Parameters
        ----------
        name : str
            For errors.
        blocks : iterable of (str, ndarray)
            A target of the store, and its next samples (samples, channels); targets may take turns as they like.
        before : iterable of (str, ndarray)
            The same, of those stems that can be looked through before.
        scales : mapping of str to int, optional
            Scales that are known, by target; 0 for those that aren't, and can't be looked through either.

        Raises
        ------
        AudioError, MagnitudeError
            If the audio doesn't fit the store. What the iterable raises comes with the track's name, if it is an error
            of this library.
        """
        with self.track(name, scales) as track:
            track.look_through(before)
            for target, block in blocks:
                track.push(target, block)
            return track.place(samples=track.finish())

    @contextmanager
    def track(self, name: str, scales: Mapping[str, int] | None = None) -> Iterator[TrackEncoder]:
        """Take one track; whatever is raised within undoes it.

        Parameters
        ----------
        name : str
            For errors.
        scales : mapping of str to int, optional
            As for `add`.
        """
        before = {target: shard.copy() for target, shard in self._open.items()}
        self._written_by_track = []
        encoder = TrackEncoder(self, scales or {})
        try:
            yield encoder
        except BaseException as error:
            self._open = before
            # a shard that the track completed must not stay: another track's absent stem may come to lie there
            for key in self._written_by_track:
                self._extents.pop(key, None)
                self._left_behind.add(key)
            for key in self._written_by_track:
                self._undo(key)
            if isinstance(error, TRACK_ERRORS):
                raise type(error)(f"track {name!r}: {error}") from error
            raise
        self._tracks += 1
        self.next_chunk += self.document.layout.chunks(encoder.frames)

    def put(self, target: str, channel: int, chunk: int, jpeg: bytes) -> None:
        """Put one encoded chunk at its place along the packed axis; write the shard before, if this begins another.

        Raises
        ------
        AudioError
            If the place belongs to the next bundle.
        """
        if self.end_chunk is not None and chunk >= self.end_chunk:
            raise AudioError(f"target {target!r} goes on beyond the place that was planned for the track")
        layout = self.document.layout
        number, within = layout.shard_of(chunk), layout.within_shard(chunk)
        shard = self._open[target]
        if number != shard.number:
            self._write(target)
            shard.number = number
        shard.chunks[channel, within] = with_checksum(jpeg)
        shard.owners[within] = self._tracks

    def finish(self) -> None:
        """Write the shards that are open."""
        for target in self._open:
            self._write(target)
        self._empty()

    def _make_room(self, shard: int) -> None:
        """Have an array of a session reach as far as a shard; elsewhere it does when the bundle is committed."""
        end = self.document.layout.first_chunk(shard + 1)
        if self._storage.is_session and end > self._room:
            self._room = end
            node = replace(self.document, chunks=end).arrays()[MAGNITUDE]
            self._storage.set(f"{MAGNITUDE}/{ROOT_KEY}", json_bytes(node))

    def _undo(self, key: str) -> None:
        """Take a shard back that was written for nothing; what can't be deleted now is emptied in the end."""
        # a deletion may be late, and would take what another one has written since
        if self._storage.may_delete:
            with suppress(StorageError):  # what the track failed of is what people need to know
                self._storage.delete(key)
                self._left_behind.discard(key)

    def _empty(self) -> None:
        """See that nothing is left behind where stems are absent."""
        layout, channels = self.document.layout, len(self.document.channels)
        nothing, _ = pack({}, channels, layout.shard_chunks)
        for key in sorted(self._left_behind):
            place = parse_shard_key(key)
            if place is not None and layout.shard_of(self.first_chunk) <= place[1] < layout.shards(self.next_chunk):
                if key not in self._extents:
                    self._storage.overwrite(key, nothing)
                self._left_behind.discard(key)

    @property
    def extents(self) -> NDArray[np.uint32]:
        """Extents of all chunks from the bundle's beginning on, (targets, parts, channels, chunks); once finished."""
        layout, document = self.document.layout, self.document
        shards = range(layout.shard_of(self.first_chunk), layout.shards(self.next_chunk))
        shape = EXTENT_PARTS, len(document.channels), layout.shard_chunks
        nothing = np.zeros(shape, np.uint32)
        of_targets = [
            np.concatenate([self._extents.get(shard_key(target, shard), nothing) for shard in shards], axis=-1)
            if shards
            else nothing[..., :0]
            for target in range(len(document.targets))
        ]
        return np.stack(of_targets)[..., : self.next_chunk - self.first_chunk]

    def _write(self, target: str) -> None:
        shard = self._open[target]
        if shard.chunks:
            position = self.document.targets.index(target)
            channels, chunks = len(self.document.channels), self.document.layout.shard_chunks
            key = shard_key(position, shard.number)
            owners = [shard.owners.get(within, -1) for within in range(chunks)]
            data, extents = pack(shard.chunks, channels, chunks, owners)
            self._make_room(shard.number)
            self._written_by_track.append(key)  # before: what has failed may be there all the same
            self._storage.create_anew(key, data)
            self._extents[key] = extents
        shard.chunks, shard.owners = {}, {}


class TrackEncoder:
    """Encodes one track, all of whose stems may come in any order; made by `Bundle.track`."""

    def __init__(self, bundle: Bundle, scales: Mapping[str, int]) -> None:
        self._bundle = bundle
        self._scales = dict(scales)
        self._looked_through: set[str] = set()
        self._document = bundle.document
        self._streams: dict[str, StftStream] = {}
        self._encoders: dict[str, ChunkEncoder] = {}
        self._frames: dict[str, int] = {}
        self._chunks: dict[str, int] = {}  # that were put
        self._too_large: dict[str, float] = {}

    @property
    def frames(self) -> int:
        """Length of the track, once it is finished."""
        return next(iter(self._frames.values()))

    def place(self, samples: int) -> Place:
        """Tell where the track lies, once it is finished."""
        start = self._bundle.next_chunk * self._document.layout.chunk_frames
        there = [target in self._frames for target in self._document.targets]
        scales = [self._scale(target) if target in self._frames else 0 for target in self._document.targets]
        return Place(start, self.frames, samples, tuple(there), tuple(scales))

    def _scale(self, target: str) -> int:
        return self._scales.get(target, 0)

    # ---- from audio

    def look_through(self, blocks: Iterable[tuple[str, NDArray[Any]]]) -> None:
        """Find the scales of stems, before they are encoded.

        Raises
        ------
        AudioError
            As `push`.
        """
        peaks: dict[str, Peak] = {}
        for target, block in blocks:
            self._check_channels(target, block)
            if target not in peaks:
                peaks[target] = self._peak()
            peaks[target].push(block)
        self._scales |= {target: peak.scale() for target, peak in peaks.items()}
        self._looked_through |= peaks.keys()

    def _peak(self) -> Peak:
        transform = self._bundle.transform
        if self._document.encoder.get("effort"):
            return SpectrumPeak(transform, self._stream())
        # without a search for fewer bytes, encoding takes hardly longer than the transform does
        return SamplePeak(transform.stft.weights)

    def _stream(self) -> StftStream:
        channels, frames = len(self._document.channels), self._document.layout.chunk_frames
        return StftStream(self._bundle.transform.stft, channels, np.float32, frames)

    def _check_channels(self, target: str, block: NDArray[Any]) -> None:
        channels = len(self._document.channels)
        if block.shape[1] != channels:
            labels = ", ".join(self._document.channels)
            raise AudioError(
                f"target {target!r} has {block.shape[1]} channels; the store has {channels} ({labels}): "
                "mix or copy the channels before"
            )

    def push(self, target: str, block: NDArray[Any]) -> None:
        """Take the next samples (samples, channels) of a stem.

        Raises
        ------
        AudioError
            If the number of channels isn't the store's.
        """
        self._check_channels(target, block)
        if target not in self._streams:
            self._streams[target] = self._stream()
            self._begin(target)
        for spectrum in self._streams[target].push(block):
            self._encode_spectrum(target, spectrum)

    def finish(self) -> int:
        """Encode what is left of the audio; return the length of the track in samples.

        Raises
        ------
        AudioError
            If there was no audio, or stems differ in length.
        MagnitudeError
            If a magnitude was larger than its target's scale allows.
        """
        if not self._streams:
            raise AudioError("there is no audio; give at least one stem")
        samples = _one_length(
            {target: stream.samples for target, stream in self._streams.items()}, "samples", AudioError
        )
        if samples == 0:
            raise AudioError("its stems hold no samples")
        for target, stream in self._streams.items():
            for spectrum in stream.finish():
                self._encode_spectrum(target, spectrum)
            self._end(target)
        self._check_scales()
        return samples

    def _encode_spectrum(self, target: str, spectrum: NDArray[Any]) -> None:
        magnitude = self._bundle.transform.reduce(np.abs(spectrum))
        self._encode(target, magnitude, spectrum[..., : magnitude.shape[-1]])

    # ---- from magnitudes

    def push_magnitude(self, target: str, magnitude: Any) -> None:
        """Take all magnitudes (channels, frames, bins) of a stem.

        Raises
        ------
        MagnitudeError
            If the shape isn't the store's, or values are no magnitudes.
        """
        layout, channels = self._document.layout, len(self._document.channels)
        shape = tuple(np.shape(magnitude))
        if len(shape) != 3 or shape[0] != channels or shape[2] != layout.bins or shape[1] == 0:
            raise MagnitudeError(
                f"target {target!r}: expected magnitudes (channels, frames, bins) of shape "
                f"({channels}, frames, {layout.bins}), found {shape}"
            )
        if not hasattr(magnitude, "__getitem__") or isinstance(magnitude, list | tuple):
            magnitude = np.asarray(magnitude)
        highest = max(float(block.max()) for block in self._blocks_of_magnitude(target, magnitude, shape[1]))
        self._scales[target] = scale_of(highest)
        self._looked_through.add(target)
        self._begin(target)
        for block in self._blocks_of_magnitude(target, magnitude, shape[1]):
            self._encode(target, block)
        self._end(target)

    def _blocks_of_magnitude(self, target: str, magnitude: Any, frames: int) -> Iterator[NDArray[np.float32]]:
        """Cut magnitudes into chunks (frames, channels, bins), and check them."""
        size = self._document.layout.chunk_frames
        for start in range(0, frames, size):
            block = as_floats(magnitude[:, start : start + size])
            _check(target, block)
            if block.max() > np.finfo(np.float32).max:
                raise MagnitudeError(
                    f"target {target!r} has a magnitude of {block.max():.6g}, which float32 can't hold; scale it down"
                )
            yield np.moveaxis(block.astype(np.float32, copy=False), 0, 1)

    def finish_magnitude(self) -> int:
        """Return the number of frames.

        Raises
        ------
        MagnitudeError
            If there were no magnitudes, or stems differ in length.
        """
        if not self._frames:
            raise MagnitudeError("there are no magnitudes; give those of at least one target")
        frames = _one_length(self._frames, "frames", MagnitudeError)
        self._check_scales()
        return frames

    # ---- both

    def _begin(self, target: str) -> None:
        self._encoders[target] = self._bundle.encoding.stem(self._scale(target))
        self._frames[target] = self._chunks[target] = 0

    def _encode(self, target: str, magnitude: NDArray[Any], spectrum: NDArray[Any] | None = None) -> None:
        """Encode the next chunk of all channels: magnitudes (frames, channels, bins), and the spectrum behind them."""
        self._frames[target] += len(magnitude)
        if self._frames[target] > MOST_FRAMES:
            raise AudioError(
                f"target {target!r} has more than {MOST_FRAMES} frames, which no reader takes; cut the track into "
                "several, or use a larger hop"
            )
        _check(target, magnitude)
        highest = float(magnitude.max())
        if highest > 2.0 ** self._scale(target) * (1 + TOLERANCE) or self._too_large:
            # nothing more is written, but the rest is looked through, to tell what the whole track needs
            self._too_large[target] = max(highest, self._too_large.get(target, 0))
            return
        self._put(target, self._encoders[target].push(magnitude, spectrum))

    def _end(self, target: str) -> None:
        if not self._too_large:
            self._put(target, self._encoders[target].finish())

    def _put(self, target: str, chunks: list[list[bytes]]) -> None:
        for jpegs in chunks:
            chunk = self._bundle.next_chunk + self._chunks[target]
            for channel, jpeg in enumerate(jpegs):
                self._bundle.put(target, channel, chunk, jpeg)
            self._chunks[target] += 1

    def _check_scales(self) -> None:
        if not self._too_large:
            return
        target, highest = max(self._too_large.items(), key=lambda item: item[1])
        most = 2.0 ** self._scale(target)
        if target in self._looked_through:
            raise MagnitudeError(
                f"target {target!r} had no magnitude above {most:g} when it was looked through, and now one of "
                f"{highest:.6g}: it changes while it is read"
            )
        raise MagnitudeError(
            f"target {target!r} has a magnitude of {highest:.6g}; blocks that come one after the other have at most "
            f"{most:g}, unless another peak is given: give peak={round_up(highest)!r} or more, or the target as one "
            "array or file"
        )


def scales_of_peaks(peak: float | Mapping[str, float] | None, targets: Sequence[str]) -> dict[str, int]:
    """Return the scales of targets whose largest magnitude, or a bound of it, is known.

    Raises
    ------
    ValueError
        If one is no positive number.
    """
    if peak is None:
        return {}
    peaks = dict(peak) if isinstance(peak, Mapping) else dict.fromkeys(targets, peak)
    for target, value in peaks.items():
        if target not in targets:
            raise ValueError(f"peak has {target!r}, which is no target of the store: {', '.join(map(repr, targets))}")
        number = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
        if not number or not 0 < value <= float(np.finfo(np.float32).max):
            raise ValueError(f"peak must be a positive number that float32 can hold, found {value!r}")
    return {target: scale_within(float(value)) for target, value in peaks.items()}


def _check(target: str, magnitude: NDArray[Any]) -> None:
    try:
        check_magnitude(magnitude)
    except MagnitudeError as error:
        raise MagnitudeError(f"target {target!r}: {error}") from None


def _one_length(lengths: Mapping[str, int], unit: str, error: type[NorbertStoreError]) -> int:
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"{target} {length}" for target, length in lengths.items())
        raise error(f"its stems differ in length ({unit}: {found}); cut or pad them to the same")
    return next(iter(lengths.values()))
