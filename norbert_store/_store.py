"""Open stores: `open_store` (public as ``norbert_store.open``), `Store` and `Track`.

Conventions
-----------
Everything is lazy: opening reads one document, names are read when they are asked for, and magnitudes when their
values are.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray
from numpy.typing import ArrayLike, NDArray

from norbert_store._read.frames import Reader
from norbert_store._read.xarrays import TRACK_DIMENSIONS, LazyFrames, Values, lazy_column, lazy_dataset, packed_dataset
from norbert_store._spectra.bins import StoredTransform, transform_from_config
from norbert_store._spectra.levels import Curve
from norbert_store._spectra.stft import Audio
from norbert_store._storage.storage import Location
from norbert_store.errors import DamagedError, FormatError, NameNotFoundError

if TYPE_CHECKING:
    from norbert_store._excerpts import Excerpts
    from norbert_store._read.values import Function
    from norbert_store._read.values import Values as AnyValues

_MOST_NAMES_SHOWN = 5


def open_store(location: Location, split: str | None = None) -> Store:
    """Open a store to read.

    Parameters
    ----------
    location : str, path or zarr store
        A folder, a URL, a .zip file, or a ready zarr store.
    split : str, optional
        Only the tracks of this split, such as "train".

    Returns
    -------
    Store

    Raises
    ------
    StoreNotFoundError
        If there is nothing there.
    FormatError
        If what is there is no store, breaks the format, or is newer than this library.
    NameNotFoundError
        If there is no such split.

    Examples
    --------
    >>> import norbert_store, zarr
    >>> place = zarr.storage.MemoryStore()
    >>> with norbert_store.create(place, targets=["mixture"], rate=8000, channels=1) as writer:
    ...     _ = writer.add("one second", {"mixture": np.zeros(8000)})
    >>> db = norbert_store.open(place)
    >>> len(db), db[0].name, db[0].duration
    (1, 'one second', 1.0)
    >>> db["one second"].magnitude.sel(target="mixture", frequency=slice(0, 1000)).shape
    (1, 9, 257)
    """
    store = Store(Reader(location))
    return store if split is None else store.split(split)


class Store:
    """A data set of spectrograms: a sequence of tracks, and a mapping from their names.

    Parameters
    ----------
    reader : Reader
    rows : ndarray of int, optional
        Rows of the track table that this store shows, in order; all of them if left out.
    """

    def __init__(self, reader: Reader, rows: NDArray[np.int64] | None = None) -> None:
        self._reader = reader
        self._rows = rows
        self._transform = _stored_transform(reader)

    def __repr__(self) -> str:
        names = [self[i].name for i in range(min(len(self), _MOST_NAMES_SHOWN))]
        more = [f"  ... {len(self) - len(names)} more"] if len(self) > len(names) else []
        facts = [f"{key:<10} {value}" for key, value in self.facts().items()]
        return "\n".join(
            [f"<norbert_store.Store {self.location!r}>", *facts, *(f"  {name!r}" for name in names), *more]
        )

    def facts(self) -> dict[str, str]:
        """What the store holds, in words, for people to read."""
        transform, hertz = self._transform, self.frequencies
        return {
            "tracks": str(len(self)),
            "targets": ", ".join(self.targets),
            "channels": ", ".join(self.channels),
            "transform": f"{transform.name}, {transform.rate} Hz, hop {transform.hop}, {len(hertz)} bins from "
            f"{hertz[0]:.0f} to {hertz[-1]:.0f} Hz",
        }

    def _repr_html_(self) -> str:
        from norbert_store._show import store_html

        return store_html(self)

    # ---- what is in it

    @property
    def location(self) -> str:
        """Where the store is."""
        return self._reader.name

    @property
    def targets(self) -> tuple[str, ...]:
        """Labels of the targets."""
        return self._reader.document.targets

    @property
    def channels(self) -> tuple[str, ...]:
        """Labels of the channels."""
        return self._reader.document.channels

    @property
    def rate(self) -> int:
        """Samples per second of the audio."""
        return self._transform.rate

    @property
    def frequencies(self) -> NDArray[np.float64]:
        """Hz of every bin."""
        return self._transform.frequencies

    @property
    def transform(self) -> StoredTransform:
        """How audio became magnitudes, and how they become audio again."""
        return self._transform

    @property
    def attributes(self) -> dict[str, Any]:
        """All attributes of the store, with those that this version doesn't know."""
        return self._reader.document.attributes

    @property
    def curve(self) -> Curve:
        """Between magnitudes and levels."""
        return self._reader.layout.curve

    @property
    def table(self) -> NDArray[np.float32]:
        """The 256 magnitudes that the levels stand for."""
        return self._reader.table.copy()

    @property
    def names(self) -> list[str]:
        """Names of the tracks, in order."""
        return self._column("name").tolist()

    def _column(self, name: str) -> NDArray[Any]:
        values = self._reader.column(name)
        return values if self._rows is None else values[self._rows]

    @cached_property
    def _row_by_name(self) -> dict[str, int]:
        rows = range(len(self)) if self._rows is None else self._rows.tolist()
        return dict(zip(self.names, rows, strict=True))

    def _row(self, name: str) -> int:
        try:
            return self._row_by_name[name]
        except KeyError:
            raise NameNotFoundError(f"{self.location} has no track {name!r}{_close_to(name, self.names)}") from None

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_row_by_name"}

    # ---- tracks

    def __len__(self) -> int:
        return self._reader.document.tracks if self._rows is None else len(self._rows)

    def __contains__(self, name: object) -> bool:
        return name in self._row_by_name

    def __iter__(self) -> Iterator[Track]:
        rows = range(len(self)) if self._rows is None else self._rows.tolist()
        return (Track(self, row) for row in rows)

    def __getitem__(self, key: str | int) -> Track:
        """Return a track by its name, or by its position (negative ones count from the end).

        Raises
        ------
        NameNotFoundError
            If there is no track of that name.
        IndexError
            If there is no such position.
        """
        if isinstance(key, str):
            return Track(self, self._row(key))
        if not isinstance(key, int | np.integer):
            raise TypeError(f"expected a track's name or position, found {key!r}; select() takes several")
        if not -len(self) <= key < len(self):
            raise IndexError(f"{self.location} has {len(self)} tracks; there is none at position {key}")
        position = int(key) % len(self)
        return Track(self, position if self._rows is None else int(self._rows[position]))

    @property
    def tracks(self) -> xarray.Dataset:
        """The track table: a variable for each column, one row a track.

        Of a store with many tracks, a column is read when its values are asked for.
        """
        names = [column.name for column in self._reader.document.columns]
        dataset = xarray.Dataset(
            {name: lazy_column(self._reader, name, self._rows) for name in names}, coords={"target": list(self.targets)}
        )
        if self._reader.document.tracks > self._reader.layout.rows:
            return dataset
        self._reader.columns(names)  # at once, and not one after the other
        return dataset.load()

    def select(self, which: ArrayLike | xarray.DataArray) -> Store:
        """Return a store of some of the tracks.

        Parameters
        ----------
        which : array_like
            A mask over the tracks, their positions, or their names.

        Raises
        ------
        NameNotFoundError, IndexError
            If a name or position isn't there.
        ValueError
            If a mask has another length than there are tracks, or it is none of the three.

        Examples
        --------
        ``db.select(db.tracks.genre == "Rock")``
        """
        chosen = np.atleast_1d(np.asarray(which))
        rows = self._all_rows
        if chosen.ndim != 1:
            raise ValueError(f"expected a mask, positions or names in one dimension, found shape {chosen.shape}")
        if len(chosen) == 0:
            return Store(self._reader, rows[:0])
        if chosen.dtype == bool:
            if len(chosen) != len(self):
                raise ValueError(f"expected a mask of {len(self)} values, one for each track; found {len(chosen)}")
            return Store(self._reader, rows[chosen])
        if np.issubdtype(chosen.dtype, np.integer):
            wrong = chosen[(chosen < -len(self)) | (chosen >= len(self))]
            if len(wrong):
                raise IndexError(f"{self.location} has {len(self)} tracks; there is none at position {wrong[0]}")
            return Store(self._reader, rows[chosen])
        names = chosen.tolist()
        if all(isinstance(name, str) for name in names):
            return Store(self._reader, np.array([self._row(name) for name in names], dtype=np.int64))
        raise ValueError(f"expected a mask, positions or names, found an array of {chosen.dtype}")

    def split(self, split: str) -> Store:
        """Return a store of the tracks of one split.

        Raises
        ------
        NameNotFoundError
            If there is no such split.
        """
        splits = self._column("split")
        # NumPy would take a text with zeros at its end for the one without
        chosen = np.fromiter((one == split for one in splits), bool, len(splits))
        if not chosen.any():
            known = ", ".join(map(repr, sorted(set(splits.tolist())))) or "none"
            raise NameNotFoundError(f"{self.location} has no split {split!r}; it has {known}")
        return self.select(chosen)

    # ---- for training

    def excerpts(
        self,
        seconds: float,
        *,
        targets: Sequence[str] | None = None,
        channels: Sequence[str] | None = None,
        seed: int = 0,
        values: AnyValues | Function = "magnitude",
        per_epoch: int | None = None,
        independent: bool = False,
    ) -> Excerpts:
        """Return random excerpts, by number: a sequence for any data loader.

        They are drawn in proportion to the tracks' lengths, never cross from one track into another, and lie where all
        targets are present.

        Parameters
        ----------
        seconds : float
            Length of an excerpt.
        targets, channels : sequence of str, optional
            All, if left out.
        seed : int
            Excerpt ``i`` is a pure function of the seed and ``i``.
        values : str or callable
            "magnitude", "levels" (uint8), "decibel", or a function of one value, which is evaluated once for each of
            the 256 levels: it gets an array of magnitudes and returns as many numbers.
        per_epoch : int, optional
            How many excerpts an epoch has; if left out, so many as make up the tracks' length.
        independent : bool
            Whether each target is drawn from another track.

        Returns
        -------
        norbert_store._excerpts.Excerpts

        Raises
        ------
        NameNotFoundError
            If there is no such target or channel.
        ValueError
            If no track is long enough, or a parameter is out of range.

        Examples
        --------
        >>> import norbert_store, zarr
        >>> place = zarr.storage.MemoryStore()
        >>> with norbert_store.create(place, targets=["mixture"], rate=8000, channels=1) as writer:
        ...     _ = writer.add("noise", {"mixture": np.random.default_rng(0).uniform(-0.5, 0.5, 80000)})
        >>> excerpts = norbert_store.open(place).excerpts(2.0)
        >>> len(excerpts), excerpts[0]["magnitude"].shape
        (5, (1, 1, 16, 1025))
        >>> excerpts.batch([0, 1, 2, 3])["magnitude"].shape
        (4, 1, 1, 16, 1025)
        """
        from norbert_store._excerpts import Excerpts

        return Excerpts(self, seconds, targets, channels, seed, values, per_epoch, independent)

    def statistics(self, values: AnyValues | Function = "magnitude") -> xarray.Dataset:
        """Mean and standard deviation for each target and frequency.

        Levels are counted once; the counts are kept in a file beside the store.

        Parameters
        ----------
        values : str or callable
            As for `excerpts`.

        Returns
        -------
        xarray.Dataset
            "mean" and "deviation" (target, frequency), "frames" (target).
        """
        from norbert_store._statistics import statistics

        return statistics(self, values)

    @property
    def _all_rows(self) -> NDArray[np.int64]:
        return np.arange(len(self)) if self._rows is None else self._rows

    # ---- all magnitudes

    @property
    def magnitude(self) -> xarray.DataArray:
        """All tracks along one packed axis (target, channel, frame, frequency), lazy; see `dataset`."""
        return self.dataset("magnitude")["magnitude"]

    def dataset(self, values: Values = "magnitude") -> xarray.Dataset:
        """All tracks along one packed axis, as a data set; "magnitude" or "levels".

        Magnitudes are NaN where no chunk was written. What stands between a track's last frame and the end of its
        chunk means nothing: `tracks` tells where each track starts, and how many frames it has.

        Raises
        ------
        ValueError
            If this store is a selection: the packed axis holds all tracks.
        """
        if self._rows is not None:
            raise ValueError(
                "the packed axis holds the tracks of all splits; take it of the whole store, or go over the tracks of "
                "this selection one by one"
            )
        return packed_dataset(self._reader, values, self.frequencies)


class Track:
    """One track of a store; nothing of it is read before it is asked for.

    Parameters
    ----------
    store : Store
    row : int
        Of the track table.
    """

    def __init__(self, store: Store, row: int) -> None:
        self._reader = store._reader
        self._transform = store.transform
        self._row = row

    def __repr__(self) -> str:
        present = [target for target, there in self.present.items() if there]
        return f"<norbert_store.Track {self.name!r}, {self.duration:.1f} s, {', '.join(present)}>"

    def _repr_html_(self) -> str:
        from norbert_store._show import track_html

        return track_html(self)

    def _cell(self, column: str) -> Any:
        return self._reader.cell(column, self._row)

    @property
    def transform(self) -> StoredTransform:
        """How audio became magnitudes, and how they become audio again."""
        return self._transform

    @property
    def curve(self) -> Curve:
        """Between magnitudes and levels."""
        return self._reader.layout.curve

    @cached_property
    def name(self) -> str:
        """Name of the track."""
        return str(self._cell("name"))

    @cached_property
    def split(self) -> str:
        """Split that the track belongs to, such as "train"."""
        return str(self._cell("split"))

    @cached_property
    def source(self) -> str:
        """Where the audio is: a path relative to the folder that holds the store, or a URI."""
        return str(self._cell("source"))

    @property
    def metadata(self) -> dict[str, Any]:
        """Whatever was given with the track."""
        return dict(json.loads(self._cell("metadata")))

    @property
    def labels(self) -> dict[str, Any]:
        """The plain labels: those with a column of their own."""
        return {column.name: self._cell(column.name) for column in self._reader.document.labels}

    @property
    def channels(self) -> tuple[str, ...]:
        """Labels of the channels."""
        return self._reader.document.channels

    @property
    def folder(self) -> Path | None:
        """The folder of the store, if it is one on this machine; `source` is relative to the one that holds it."""
        return self._reader.storage.folder

    @property
    def rate(self) -> int:
        """Samples per second of the audio."""
        return self._transform.rate

    @cached_property
    def samples(self) -> int:
        """Length of the audio, samples."""
        return int(self._cell("samples"))

    @cached_property
    def _extent(self) -> tuple[int, int]:
        start, frames = map(int, self._reader.cells(("start", "frames"), self._row))
        end = self._reader.document.frames
        if start < 0 or not 0 < frames <= end - start:
            raise DamagedError(
                f"{self._reader.name}: track {self.name!r} lies at frames {start} to {start + frames}; expected it "
                f"between 0 and {end}"
            )
        return start, frames

    @property
    def frames(self) -> int:
        """Length of the spectrogram, frames."""
        return self._extent[1]

    @property
    def duration(self) -> float:
        """Length of the audio, seconds."""
        return self.samples / self.rate

    @property
    def start(self) -> int:
        """Where the track begins along the packed axis, frames."""
        return self._extent[0]

    @cached_property
    def present(self) -> dict[str, bool]:
        """For each target, whether the track has it."""
        there = self._cell("present")
        return {target: bool(there[i]) for i, target in enumerate(self._reader.document.targets)}

    @property
    def magnitude(self) -> xarray.DataArray:
        """Magnitudes (target, channel, time, frequency), lazy, in seconds and Hz; NaN where a target is absent."""
        return self._lazy("magnitude")["magnitude"]

    @property
    def levels(self) -> xarray.DataArray:
        """Levels (target, channel, time, frequency), lazy, uint8; 0 where a target is absent."""
        return self._lazy("levels")["levels"]

    def dataset(self, values: Values = "magnitude") -> xarray.Dataset:
        """The track as a data set of one lazy variable, "magnitude" or "levels"."""
        return self._lazy(values).assign_attrs(track=self.name, rate=self.rate)

    def _lazy(self, values: Values) -> xarray.Dataset:
        """Make what is the same for every track, and needs no name."""
        coordinates = {
            "target": list(self._reader.document.targets),
            "channel": list(self._reader.document.channels),
            "time": self.transform.frame_seconds(self.frames),
            "frequency": self.transform.frequencies,
        }
        array = LazyFrames(self._reader, values, self.start, self.frames, self._row)
        return lazy_dataset(array, TRACK_DIMENSIONS, coordinates, values)

    def jpeg(self, target: str | int, channel: str | int, chunk: int) -> bytes:
        """Return one chunk's JPEG, as it stands in the store: rows are frames, columns frequencies.

        Parameters
        ----------
        target, channel : str or int
            Label or position.
        chunk : int
            From 0, within the track.

        Raises
        ------
        NameNotFoundError
            If there is no such target or channel, or the track hasn't it.
        IndexError
            If the track has no such chunk.
        DamagedError
            If the chunk is missing or damaged.
        """
        t = self._position("target", target, self._reader.document.targets)
        c = self._position("channel", channel, self._reader.document.channels)
        chunks = self._reader.layout.chunks(self.frames)
        if not 0 <= chunk < chunks:
            raise IndexError(f"track {self.name!r} has {chunks} chunks; there is none at position {chunk}")
        packed = self._reader.layout.chunk_of(self.start) + chunk
        data = self._reader.jpeg(t, c, packed, self._row)
        if data is None:  # and none must be there
            raise self._absent(self._reader.document.targets[t])
        return data

    def to_audio(self, target: str | int, mixture: ArrayLike | str | os.PathLike[str] | None = None) -> Audio:
        """Make audio of a target's magnitudes and the mixture's phase.

        Parameters
        ----------
        target : str or int
            Label or position.
        mixture : array_like or path, optional
            Audio (samples, channels) at the store's rate and of the track's length, or a file of it. If left out,
            what `source` points to is read.

        Returns
        -------
        ndarray of float32
            (samples, channels)

        Raises
        ------
        NameNotFoundError
            If the track hasn't the target.
        AudioError
            If the mixture has another length, rate or number of channels than the track.
        SourceError
            If the mixture's file isn't there.

        References
        ----------
        A. Liutkus and F.-R. Stöter, "The 2018 Signal Separation Evaluation Campaign", LVA/ICA 2018, for magnitudes
        combined with the mixture's phase.
        """
        from norbert_store._resynthesis import resynthesize

        return np.concatenate(list(resynthesize(self, self.label(target), mixture)))

    def separate(
        self,
        mixture: ArrayLike | str | os.PathLike[str] | None = None,
        method: str = "wiener",
        *,
        targets: Sequence[str] | None = None,
        iterations: int = 1,
        exponent: float | None = None,
        threshold: float = 0.0,
        block_seconds: float = 30.0,
    ) -> dict[str, Audio]:
        """Separate the mixture into targets, by their stored magnitudes.

        Parameters
        ----------
        mixture : array_like or path, optional
            As for `to_audio`.
        method : str
            "wiener" (multichannel Wiener filter, `norbert_store.filters._wiener`), "softmask", "irm" (ideal ratio mask)
            or "ibm" (ideal binary mask).
        targets : sequence of str, optional
            What the mixture is made of; all targets that the track has but "mixture" if left out.
        iterations : int
            Of expectation maximization, for "wiener".
        exponent : float, optional
            Of magnitudes in a share, for "softmask" (1 if left out) and "irm" (2: shares of power).
        threshold : float
            dB, for "ibm".
        block_seconds : float
            The Wiener filter learns where sources are anew in every block so long; the masks don't depend on it.

        Returns
        -------
        dict of str to ndarray of float32
            By target, (samples, channels). Above the store's bandwidth each target has the share that it has just
            below it.

        Raises
        ------
        TrackError
            If the track hasn't one of the targets, or none but the mixture.
        AudioError, SourceError
            As `to_audio`.
        ValueError
            If the method is unknown, or a parameter out of range.
        """
        from norbert_store._resynthesis import separate

        blocks = list(separate(self, mixture, method, targets, iterations, exponent, threshold, block_seconds))
        return {target: np.concatenate([block[target] for block in blocks]) for target in blocks[0]}

    def label(self, target: str | int) -> str:
        """Return the label of a target, by label or position, if the track has it.

        Raises
        ------
        NameNotFoundError
            If it hasn't.
        """
        label = self._reader.document.targets[self._position("target", target, self._reader.document.targets)]
        if not self.present[label]:
            raise self._absent(label)
        return label

    def _position(self, what: str, label: str | int, labels: Sequence[str]) -> int:
        if isinstance(label, str) and label in labels:
            return labels.index(label)
        if isinstance(label, int | np.integer) and -len(labels) <= label < len(labels):
            return int(label) % len(labels)
        raise NameNotFoundError(f"{self._reader.name} has no {what} {label!r}; it has {', '.join(map(repr, labels))}")

    def _absent(self, target: str) -> NameNotFoundError:
        there = ", ".join(repr(name) for name, present in self.present.items() if present)
        return NameNotFoundError(f"track {self.name!r} has no target {target!r}; it has {there}")


def _stored_transform(reader: Reader) -> StoredTransform:
    config = reader.document.transform
    ready = config["name"] not in ("stft", "mel")
    try:
        transform = transform_from_config(config, reader.frequencies if ready else None)
    except FormatError as error:
        raise FormatError(f"{reader.name}: {error}") from error
    if len(transform.frequencies) != reader.layout.bins:
        raise FormatError(
            f"{reader.name}: the transform {config!r} gives {len(transform.frequencies)} bins; the store's chunks have "
            f"{reader.layout.bins}"
        )
    return transform


def _close_to(name: str, names: Sequence[str]) -> str:
    from difflib import get_close_matches

    close = get_close_matches(name, names[:10000], n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
