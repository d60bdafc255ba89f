"""Open stores: `open` and `Store`.

Conventions
-----------
Everything is lazy: opening reads one document, names are read when they are asked for, and magnitudes when their
values are.
"""

from __future__ import annotations

import os
from collections.abc import ItemsView, Iterator, KeysView, Sequence
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import xarray
from numpy.typing import ArrayLike, NDArray

from norbert_store._read.frames import Frames
from norbert_store._read.selection import Selection
from norbert_store._read.xarrays import Values, column_values, packed_dataset, table_dataset
from norbert_store._signature import spelled_out
from norbert_store._spectra.bins import StoredTransform
from norbert_store._spectra.levels import Curve, table
from norbert_store._storage.places import local_path
from norbert_store._storage.storage import Location
from norbert_store._text import listed, shown
from norbert_store._track import Track
from norbert_store.errors import NameNotFoundError

if TYPE_CHECKING:
    from norbert_store._excerpts import Excerpts
    from norbert_store._read.values import Function
    from norbert_store._read.values import Values as AnyValues

_MOST_NAMES_SHOWN = 5
_MOST_VALUES_SHOWN = 20


@spelled_out()
def open(  # noqa: A001  # as it is called: norbert_store.open
    location: Location, *, split: str | None = None, audio_root: str | os.PathLike[str] | None = None
) -> Store:
    """Open a store to read.

    Parameters
    ----------
    location : str, path or zarr store
        A folder, a URL, a .zip file, or an open zarr store, path or group.
    split : str, optional
        Only the tracks of this split, such as "train".
    audio_root : str or path, optional
        The folder below which `Track.to_audio` and `Track.separate` read the tracks' sources; the one that holds the
        store, if left out. If it is given, the longest end of a source's path that exists there is taken: of
        ``../musdb/train/A - B`` perhaps ``train/A - B``, or ``A - B``. A source is never read anywhere else.

    Returns
    -------
    Store

    Raises
    ------
    StoreNotFoundError
        If there is nothing there.
    FormatError
        If what is there is no store, breaks the format, or is newer than this library.
    StorageError
        If the place can't be read.
    DamagedError
        If the frequencies of magnitudes that were computed elsewhere are damaged.
    NameNotFoundError
        If there is no such split.
    TypeError, ValueError
        If no store can be at such a location.

    Examples
    --------
    >>> import norbert_store, zarr
    >>> place = zarr.storage.MemoryStore()
    >>> with norbert_store.create(place, targets=["mixture"], rate=8000, channels=1) as writer:
    ...     writer.add("one second", {"mixture": np.zeros(8000)})
    >>> db = norbert_store.open(place)
    >>> len(db), db[0].name, db[0].duration
    (1, 'one second', 1.0)
    >>> db["one second"].magnitude.sel(target="mixture", frequency=slice(0, 1000)).shape
    (1, 9, 257)
    """
    store = Store(Selection(Frames.open(location, None if audio_root is None else local_path(audio_root))))
    # so that a document that can't be understood is an error at once
    _ = store.transform
    return store if split is None else store.select(split=split)


def selection_of(store: Store) -> Selection:
    """Return the tracks that a store shows, for other modules of this library."""
    return store._selection


class Store:
    """A data set of spectrograms: a sequence of tracks, and a mapping from their names; made by `open`."""

    def __init__(self, selection: Selection) -> None:
        self._selection = selection

    def __repr__(self) -> str:
        names = [self[i].name for i in range(min(len(self), _MOST_NAMES_SHOWN))]
        more = [f"  ... {len(self) - len(names)} more"] if len(self) > len(names) else []
        facts = [f"{key:<10} {value}" for key, value in self._selection.facts().items()]
        return "\n".join(
            [f"<norbert_store.Store {self.location!r}>", *facts, *(f"  {shown(name)}" for name in names), *more]
        )

    def _repr_html_(self) -> str:
        from norbert_store._show import store_html

        return store_html(self._selection)

    # ---- what is in it

    @property
    def location(self) -> str:
        """Where the store is."""
        return self._selection.name

    @property
    def targets(self) -> tuple[str, ...]:
        """Names of the targets."""
        return self._selection.document.targets

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the channels."""
        return self._selection.document.channels

    @property
    def rate(self) -> int:
        """Samples per second of the audio."""
        return self.transform.rate

    @property
    def frequencies(self) -> NDArray[np.float64]:
        """Frequency of every bin, Hz, (bins,)."""
        return self.transform.frequencies

    @property
    def transform(self) -> StoredTransform:
        """How audio became magnitudes, and how they become audio again."""
        return self._selection.transform

    @property
    def attributes(self) -> dict[str, Any]:
        """All keys of the store's document, as JSON values, including those that this version doesn't know."""
        return self._selection.document.attributes

    @property
    def curve(self) -> Curve:
        """The curve between levels and magnitudes, relative to a stem's scale (`Track.scales`)."""
        return self._selection.document.layout.curve

    @property
    def look_up_table(self) -> NDArray[np.float32]:
        """The 256 magnitudes that levels stand for at scale 0, (256,); at other scales ``2.0 ** scale`` times these."""
        magnitudes: NDArray[np.float32] = table(self.curve)
        return magnitudes

    @property
    def names(self) -> list[str]:
        """Names of the tracks, in order."""
        return list(self._selection.column("name").tolist())

    @property
    def splits(self) -> dict[str, int]:
        """Number of tracks in each split; "" for tracks without one."""
        found, counts = np.unique(self._selection.column("split").astype(str), return_counts=True)
        return dict(zip(found.tolist(), counts.tolist(), strict=True))

    # ---- tracks

    def __len__(self) -> int:
        return len(self._selection)

    def __iter__(self) -> Iterator[Track]:
        return (Track(self._selection.frames, row) for row in self._selection.each_row())

    def __contains__(self, track: object) -> bool:
        """Whether a track, or one of that name, is among these."""
        if isinstance(track, Track):
            return track.name in self._selection.row_by_name and self[track.name] == track
        return isinstance(track, str) and track in self._selection.row_by_name

    def keys(self) -> KeysView[str]:
        """Names of the tracks, as of a mapping."""
        return self._by_name().keys()

    def items(self) -> ItemsView[str, Track]:
        """Pairs of name and track, as of a mapping."""
        return self._by_name().items()

    def get(self, name: str, default: Any = None) -> Any:
        """Return a track by its name, or ``default`` if there is none."""
        return self[name] if name in self else default  # noqa: SIM401

    def _by_name(self) -> dict[str, Track]:
        return dict(zip(self.names, self, strict=True))

    def _ipython_key_completions_(self) -> list[str]:
        return self.names

    @overload
    def __getitem__(self, key: str | int) -> Track: ...
    @overload
    def __getitem__(self, key: slice) -> Store: ...
    def __getitem__(self, key: str | int | slice) -> Track | Store:
        """Return a track by its name, or by its position (negative ones count from the end); or a slice of them.

        Raises
        ------
        NameNotFoundError
            If there is no track of that name.
        IndexError
            If there is no such position.
        TypeError
            If the key is something else.
        """
        if isinstance(key, slice):
            return Store(self._selection.some(key))
        if isinstance(key, str):
            return Track(self._selection.frames, self._selection.row(key))
        if isinstance(key, bool) or not isinstance(key, int | np.integer):
            raise TypeError(f"expected a track's name or position, found {key!r}; select() takes several")
        if not -len(self) <= key < len(self):
            raise IndexError(f"{self.location} has {len(self)} tracks; there is none at position {key}")
        return Track(self._selection.frames, self._selection.each_row()[int(key)])

    @property
    def tracks(self) -> xarray.Dataset:
        """The track table: a variable for each column, along the dimension "track".

        Labels have their own names. What the store keeps itself begins with "_" (``_samples``, ``_start``, ...), except
        ``name`` and ``split``. In a store with many tracks, a column is read when its values are asked for. Labels that
        are lists of texts, and truth values of which some aren't known, are arrays of objects: convert them to text or
        numbers before you write them as netCDF or zarr.
        """
        return table_dataset(self._selection.snapshot, self._selection.chosen)

    def select(
        self, which: ArrayLike | xarray.DataArray | None = None, /, **labels: str | bool | float | Sequence[Any]
    ) -> Store:
        """Return a store of some of the tracks.

        Parameters
        ----------
        which : array_like, optional
            A mask over the tracks, their positions, or their names.
        **labels
            Values of ``split``, or of any label: one value, or several of which a track must have one.

        Returns
        -------
        Store

        Raises
        ------
        NameNotFoundError, IndexError
            If a name, a position, a label or a value of it isn't there.
        ValueError
            If ``which`` is neither a mask, positions nor names, or a mask of another length than there are tracks.

        Examples
        --------
        ``db.select(split="train", genre=("Rock", "Pop"))``, ``db.select(db.tracks.genre == "Rock")``
        """
        selection = self._selection if which is None else self._some(which)
        for label, values in labels.items():
            selection = _with_values(selection, label, values)
        return Store(selection)

    def _some(self, which: ArrayLike | xarray.DataArray) -> Selection:
        chosen = np.atleast_1d(np.asarray(which))
        if chosen.ndim != 1:
            raise ValueError(f"expected a mask, positions or names in one dimension, found shape {chosen.shape}")
        if len(chosen) == 0:
            return self._selection.some(slice(0))
        if chosen.dtype == bool:
            if len(chosen) != len(self):
                raise ValueError(f"expected a mask of {len(self)} values, one for each track; found {len(chosen)}")
            return self._selection.some(chosen)
        if np.issubdtype(chosen.dtype, np.integer):
            wrong = chosen[(chosen < -len(self)) | (chosen >= len(self))]
            if len(wrong):
                raise IndexError(f"{self.location} has {len(self)} tracks; there is none at position {wrong[0]}")
            return self._selection.some(chosen)
        names = chosen.tolist()
        if all(isinstance(name, str) for name in names):
            rows = np.array([self._selection.row(name) for name in names], dtype=np.int64)
            return Selection(self._selection.frames, rows)
        raise ValueError(f"expected a mask, positions or names, found an array of {chosen.dtype}")

    # ---- for training

    @spelled_out()
    def excerpts(
        self,
        seconds: float,
        *,
        targets: Sequence[str] | None = None,
        channels: Sequence[str] | None = None,
        seed: int = 0,
        values: AnyValues | Function = "magnitude",
        per_epoch: int | None = None,
        remix: bool = False,
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
            "magnitude" (float32), "levels" (uint8, with their scale under "scale"), "decibel" (float32), or a function
            of one value. A function is called once for each scale in the store, with the 256 magnitudes that levels
            stand for, and returns as many numbers, which become float32.
        per_epoch : int, optional
            How many excerpts an epoch has; if left out, as many as together are as long as the tracks.
        remix : bool
            Whether each target is drawn from another track.

        Returns
        -------
        Excerpts

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
        ...     writer.add("noise", {"mixture": np.random.default_rng(0).uniform(-0.5, 0.5, 80000)})
        >>> excerpts = norbert_store.open(place).excerpts(2.0)
        >>> len(excerpts), excerpts[0]["magnitude"].shape
        (5, (1, 1, 16, 1025))
        >>> excerpts.read([0, 1, 2, 3])["magnitude"].shape
        (4, 1, 1, 16, 1025)
        """
        from norbert_store._excerpts import Excerpts

        return Excerpts(
            self._selection,
            seconds,
            targets=targets,
            channels=channels,
            seed=seed,
            values=values,
            per_epoch=per_epoch,
            remix=remix,
        )

    @spelled_out()
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
            "mean" and "std" (target, frequency), float64, NaN where no track has the target; and "frames" (target), the
            number of frames that were counted, over all channels.

        Raises
        ------
        ValueError
            If ``values`` is none of these.
        DamagedError
            If what is stored is damaged.
        """
        from norbert_store._statistics import statistics

        return statistics(self._selection, values)

    @spelled_out()
    def digest(self, *, strong: bool = False) -> str:
        """Return the SHA-256 of these tracks, which is the same however, wherever and by whom they were written.

        It covers names, splits and labels of the tracks, the transform, and length and checksum of each chunk; not
        their sources and metadata, nor when they were written. It detects accidents, not forgeries.

        Parameters
        ----------
        strong : bool
            Whether to read all chunks, and cover their bytes as well.

        Returns
        -------
        str
            64 hexadecimal digits.

        Raises
        ------
        DamagedError
            If the track table, or with ``strong`` a chunk, is damaged.

        Examples
        --------
        >>> import norbert_store, zarr
        >>> def store(location):
        ...     with norbert_store.create(location, targets=["mixture"], rate=8000, channels=1) as writer:
        ...         writer.add("silence", {"mixture": np.zeros(8000)})
        ...     return norbert_store.open(location)
        >>> store(zarr.storage.MemoryStore()).digest() == store(zarr.storage.MemoryStore()).digest()
        True
        """
        from norbert_store._read.digest import digest

        return digest(self._selection, strong)

    # ---- all magnitudes

    @spelled_out()
    def to_xarray(self, values: Values = "magnitude") -> xarray.Dataset:
        """Return all tracks along one packed axis (target, channel, frame, frequency), lazy.

        Parameters
        ----------
        values : str
            "magnitude" (float32) or "levels" (uint8), which is also the name of the variable.

        Returns
        -------
        xarray.Dataset
            Magnitudes are NaN between tracks and where a target is absent; `tracks` tells where each track starts
            (``_start``), and how many frames it has (``_frames``). Levels are 0 there, and have a coordinate "scale"
            (target, frame).

        Raises
        ------
        ValueError
            If ``values`` is neither, or this store is a selection: the packed axis holds all tracks.
        """
        if self._selection.chosen is not None:
            raise ValueError(
                "the packed axis holds all tracks, and this store is a selection of them; call to_xarray of the whole "
                "store, or of each track"
            )
        return packed_dataset(self._selection.frames, values)


def _with_values(selection: Selection, label: str, values: Any) -> Selection:
    """Select the tracks whose label has one of some values."""
    document = selection.document
    known = {column.name: column for column in (document.column("split"), *document.labels)}
    if label not in known:
        raise NameNotFoundError(f"{selection.name} has no label {label!r}; it has {listed(known)}")
    wanted = [values] if isinstance(values, str) or not isinstance(values, Sequence | set | np.ndarray) else [*values]
    column = column_values(selection.snapshot, known[label], selection.chosen).tolist()
    # one text of a list is enough
    of_each = [set(found or ()) if known[label].type == "strings" else {found} for found in column]
    there = set().union(*of_each)
    for value in wanted:
        if value not in there:
            known_values = [one for one in there if one is not None and one == one]  # without gaps, which may be NaN
            found = ", ".join(map(shown, sorted(known_values, key=str)[:_MOST_VALUES_SHOWN])) or "none"
            raise NameNotFoundError(f"{selection.name} has no {label} {shown(value)}; it has {found}")
    return selection.some(np.fromiter((not found.isdisjoint(wanted) for found in of_each), bool, len(column)))
