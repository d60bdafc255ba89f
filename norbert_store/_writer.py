"""Arrays to shards: tracks go in one after the other, bundles are written whole, and a commit makes them visible.

`norbert_store._write.commit` explains the order of writes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Unpack

from norbert_store._format.document import LARGEST_NUMBER
from norbert_store._format.table import Column, Label
from norbert_store._signature import spelled_out
from norbert_store._sources.stems import Stems, TrackStems, check_target
from norbert_store._spectra.bins import ReadyBins
from norbert_store._spectra.stft import whole_number
from norbert_store._storage.storage import Location, Storage
from norbert_store._write.bundle import Bundle, Place, scales_of_peaks
from norbert_store._write.commit import Closing, Committer, Row
from norbert_store._write.settings import CreateOptions, new_document
from norbert_store.errors import MagnitudeError, TrackError


@spelled_out(new_document)
def create(
    location: Location,
    *,
    targets: Sequence[str],
    rate: int | None = None,
    channels: int | Sequence[str] = 2,
    bundle_tracks: int = 1,
    **options: Unpack[CreateOptions],
) -> Writer:
    """Create a store, and return the writer that fills it.

    Parameters
    ----------
    location : str, path or zarr store
        Where the store will be; nothing may be there yet.
    targets : sequence of str
        Names of the targets, for example ``("mixture", "vocals")``.
    rate : int, optional
        Samples per second; that of the transform if left out, or 44,100.
    channels : int or sequence of str
        Their number, or their names. One is "mono", two are "left" and "right".
    transform : TF, Mel or ReadyBins, optional
        How audio becomes magnitudes; ``TF(rate=rate)`` if left out.
    bandwidth : float
        Highest frequency that is kept, Hz.
    curve : PowerCurve or LogCurve, optional
        The curve between magnitudes and levels; ``PowerCurve()`` if left out.
    quality : float
        From 0 to 100: the higher, the less of the loss is heard, equally on every track. Ten points less double the
        error.
    effort : int
        How long to search for fewer bytes at that quality, from 0 to 4. 0 doesn't use the model of hearing; it bounds
        the error of every block instead, for data that isn't for listening.
    chunk_frames : int, optional
        Frames in a chunk, a multiple of 8; if left out, the number that gives about 190,000 pixels.
    shard_chunks : int
        Chunks along time in a shard; a shard is one file of one target.
    bundle_tracks : int
        Number of tracks that are written and committed together and share shards; raise it for many short tracks.
    title, license, citation : str
        Of the data set, kept in the store's document.

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
        If an argument is out of range.
    TypeError
        If there is no option of such a name.

    Examples
    --------
    >>> import norbert_store, numpy as np, zarr
    >>> store = zarr.storage.MemoryStore()
    >>> noise = np.random.default_rng(0).uniform(-0.5, 0.5, (8000, 1))
    >>> with norbert_store.create(store, targets=["mixture"], rate=8000, channels=1, quality=90) as writer:
    ...     writer.add("noise", {"mixture": noise}, split="train")
    >>> norbert_store.open(store)["noise"].duration
    1.0
    """
    bundle_tracks = whole_number("bundle_tracks", bundle_tracks, at_least=1)
    document, stored = new_document(targets=targets, rate=rate, channels=channels, **options)
    return Writer(Committer.new(Storage(location, read_only=False), document, stored), bundle_tracks)


@spelled_out()
def append(location: Location, *, bundle_tracks: int = 1) -> Writer:
    """Open a store to add tracks: return a writer that adds them after those that are there.

    A reader that has the store open goes on with the tracks that it knows; one that opens it after a commit sees the
    new tracks, too. Files that a writer has left behind when it died, and never committed, are deleted.

    Parameters
    ----------
    location : str, path or zarr store
        Where the store is.
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
        If what is there is no store, breaks the format, or has features that this version can't write.
    StorageError
        If nothing can be written there.
    ValueError
        If ``bundle_tracks`` is no whole number above 0.

    Examples
    --------
    >>> import norbert_store, numpy as np, zarr
    >>> store = zarr.storage.MemoryStore()
    >>> with norbert_store.create(store, targets=["mixture"], rate=8000, channels=1) as writer:
    ...     writer.add("noise", {"mixture": np.random.default_rng(0).uniform(-0.5, 0.5, 8000)}, split="train")
    >>> with norbert_store.append(store) as writer:
    ...     writer.add("silence", {"mixture": np.zeros(8000)}, split="test")
    >>> norbert_store.open(store).names
    ['noise', 'silence']
    """
    bundle_tracks = whole_number("bundle_tracks", bundle_tracks, at_least=1)
    return Writer(Committer.of(Storage(location, read_only=False)), bundle_tracks)


class Writer(Closing):
    """Adds tracks to a store, one after the other; `create` and `append` return one.

    At most one shard per target is in memory, encoded. Leaving the ``with`` block commits all tracks that were added
    completely, even after an error.

    Attributes
    ----------
    transform : StoredTransform
        How audio becomes magnitudes.
    """

    def __init__(self, committer: Committer, bundle_tracks: int) -> None:
        self.transform = committer.transform
        self._committer = committer
        self._bundle_tracks = bundle_tracks
        self._rows: list[Row] = []  # of the open bundle
        self._bundle = self._new_bundle(committer.document.chunks)
        self._closed = False

    @property
    def location(self) -> str:
        """Where the store is, as text for people."""
        return self._committer.storage.name

    def __repr__(self) -> str:
        return f"<norbert_store.Writer of {self.location!r}, {len(self._committer.names)} tracks>"

    # ---- adding tracks

    @spelled_out()
    def add(
        self,
        name: str,
        audio: Stems,
        *,
        split: str = "",
        source: str = "",
        metadata: Mapping[str, Any] | None = None,
        labels: Mapping[str, Label] | None = None,
        peak: float | Mapping[str, float] | None = None,
    ) -> None:
        """Add a track from audio.

        Arrays and files are read twice: first for the largest magnitude of each target, from which its scale follows.

        Parameters
        ----------
        name : str
            Not empty, and not that of another track.
        audio : mapping or iterable
            By target: an array (samples, channels) of floats, full scale 1.0; the path of an audio file; or an iterable
            of such blocks. A target that is left out, or None, is marked as absent. Or an iterable of (target, block),
            for stems that come interleaved.
        split : str
            Such as "train".
        source : str
            Where the audio is: a path relative to the folder that holds the store, or a URI.
        metadata : mapping, optional
            Anything that JSON can hold.
        labels : mapping, optional
            By name: text, a truth value, a number or a list of texts; None if it isn't known. Each label becomes a
            column of `Store.tracks`.
        peak : float or mapping of str to float, optional
            The largest magnitude, of all targets or by target, or a bound such as the largest absolute sample, which no
            magnitude exceeds: for blocks that can be read only once. If it is left out, 1.0 is taken for those, which
            is right for audio within full scale; arrays and files are read first to find it.

        Raises
        ------
        TrackError
            If name, split, metadata or labels don't fit.
        AudioError, SourceError
            If audio can't be read, or targets differ in length, rate or channels.
        MagnitudeError
            If values aren't finite, or a magnitude exceeds the peak. The message says which peak the track needs.
        ValueError
            If a peak is no positive number, or is given for something that is no target; or if the store is one of
            magnitudes that are computed elsewhere (`ReadyBins`).
        StorageError, StoreInUseError
            If the store can't be written, or another writer has taken it over.
        """
        self._check_open()
        row, columns = self._committer.check(name, split, source, metadata, labels)
        scales = scales_of_peaks(peak, self._committer.document.targets)
        stems = TrackStems(audio, self._committer.document.targets, self.transform.stft.rate)
        place = self._bundle.add(name, stems.blocks(), stems.blocks_to_look_through(scales), scales)
        self._finish_track(row, columns, place)

    @spelled_out()
    def add_magnitudes(
        self,
        name: str,
        magnitudes: Mapping[str, Any],
        *,
        samples: int | None = None,
        split: str = "",
        source: str = "",
        metadata: Mapping[str, Any] | None = None,
        labels: Mapping[str, Label] | None = None,
    ) -> None:
        """Add a track from magnitudes that were computed elsewhere.

        Parameters
        ----------
        name, split, source, metadata, labels
            As for `add`.
        magnitudes : mapping
            By target: an array (channels, frames, bins) of floats, finite and not negative, in any unit. Anything that
            slices like NumPy will do (a memory map, HDF5, zarr); it is read twice, in blocks of frames. A target that
            is left out, or None, is marked as absent.
        samples : int, optional
            Length of the audio; if left out, the longest that gives this number of frames.

        Raises
        ------
        TrackError
            If name, split, metadata or labels don't fit.
        MagnitudeError
            If values are no magnitudes, if arrays differ in length or don't fit the store, or if audio of ``samples``
            samples has another number of frames.
        ValueError
            If ``samples`` is no whole number above 0.
        StorageError, StoreInUseError
            As for `add`.
        """
        self._check_open()
        row, columns = self._committer.check(name, split, source, metadata, labels)
        if not isinstance(magnitudes, Mapping):
            kind = type(magnitudes).__name__
            raise MagnitudeError(f"track {name!r}: expected magnitudes by target, found {kind}")
        with self._bundle.track(name) as track:
            for target, array in magnitudes.items():
                check_target(target, self._committer.document.targets)
                if array is not None:
                    track.push_magnitude(target, array)
            frames = track.finish_magnitude()
            samples = self._samples(frames) if samples is None else whole_number("samples", samples, at_least=1)
            self._check_samples(samples, frames)
            place = track.place(samples)
        self._finish_track(row, columns, place)

    def _check_open(self) -> None:
        if self._closed:
            name = self._committer.storage.name
            raise TrackError(f"the writer of {name} is closed; open another one with norbert_store.append()")

    def _samples(self, frames: int) -> int:
        """Length of the audio that a number of frames stands for."""
        if isinstance(self.transform, ReadyBins):
            return frames * self.transform.hop
        stft = self.transform.stft
        return (frames - 1) * stft.hop + (0 if stft.centred else stft.n_fft)

    def _check_samples(self, samples: int, frames: int) -> None:
        """Check a length that `Track.to_audio` depends on, and that the track table can hold it."""
        if samples >= LARGEST_NUMBER:
            raise MagnitudeError(
                f"a track has fewer than 2^53 samples, found {samples}; give samples=, or a smaller hop"
            )
        if isinstance(self.transform, ReadyBins):
            return
        expected = self.transform.stft.frame_count(samples)
        if expected != frames:
            raise MagnitudeError(f"{samples} samples of audio give {expected} frames, found {frames}")

    def _finish_track(self, row: Row, columns: tuple[Column, ...], place: Place) -> None:
        self._committer.expect(row, columns)
        self._rows.append({**row, **place.row})
        if len(self._rows) >= self._bundle_tracks:
            self._finish_bundle()

    def _new_bundle(self, next_chunk: int) -> Bundle:
        """Begin a bundle where the next shard begins."""
        committer = self._committer
        first_chunk = committer.document.layout.whole_shards(next_chunk)
        left_behind = committer.left_behind
        return Bundle(committer.storage, committer.document, self.transform, first_chunk, left_behind=left_behind)

    def _finish_bundle(self) -> None:
        if self._rows:
            finished = self._bundle
            finished.finish()
            rows, self._rows = self._rows, []
            self._bundle = self._new_bundle(finished.next_chunk)
            self._committer.add(rows, finished.first_chunk, finished.extents)

    # ---- commits

    def commit(self) -> None:
        """Make all full bundles visible to readers; tracks of a bundle that isn't full yet wait for a later commit.

        Raises
        ------
        StorageError, StoreInUseError
            If the store can't be written, or another writer has taken it over.
        """
        self._committer.commit()

    def close(self) -> None:
        """Write the open bundle, and commit; nothing can be added after that.

        Raises
        ------
        StorageError, StoreInUseError
            As for `commit`.
        """
        if self._closed:
            return
        self._closed = True
        try:
            self._finish_bundle()
        finally:
            self._committer.close()
