"""One track of a committed state: what the track table says of it, and its frames as lazy arrays."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray

from norbert_store._format.layout import ChunkAt
from norbert_store._format.table import metadata_of
from norbert_store._lazy import lazy
from norbert_store._read.frames import Frames
from norbert_store._read.xarrays import TRACK_DIMENSIONS, LazyFrames, Values, lazy_dataset
from norbert_store._signature import spelled_out
from norbert_store._spectra.bins import StoredTransform
from norbert_store._spectra.levels import Curve
from norbert_store._text import listed, printable, shown
from norbert_store.errors import NameNotFoundError


class StoredTrack:
    """One track of a store; everything is read only when it is asked for.

    Parameters
    ----------
    frames : Frames
        Of the store.
    row : int
        Of the track table.
    """

    def __init__(self, frames: Frames, row: int) -> None:
        self._frames = frames
        self._row = row

    def __repr__(self) -> str:
        present = [target for target, there in self.present.items() if there]
        return f"<norbert_store.Track {shown(self.name)}, {self.duration:.1f} s, {', '.join(present)}>"

    def __eq__(self, other: object) -> bool:
        """Whether another object is the same track of the same store, opened at the same time or not."""
        if not isinstance(other, StoredTrack):
            return NotImplemented
        here, there = self._frames.snapshot, other._frames.snapshot
        return (here.name, self._row, self.name) == (there.name, other._row, other.name)

    def __hash__(self) -> int:
        return hash((self._frames.snapshot.name, self._row))

    def _cell(self, column: str) -> Any:
        return self._frames.snapshot.cell(column, self._row)

    # ---- of the store

    @property
    def transform(self) -> StoredTransform:
        """How audio became magnitudes, and how they become audio again."""
        return self._frames.snapshot.transform

    @property
    def curve(self) -> Curve:
        """The curve between levels and magnitudes, relative to `scales`."""
        return self._frames.snapshot.layout.curve

    @property
    def targets(self) -> tuple[str, ...]:
        """Names of the store's targets; `present` tells which of them the track has."""
        return self._frames.snapshot.document.targets

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the channels."""
        return self._frames.snapshot.document.channels

    @property
    def rate(self) -> int:
        """Samples per second of the audio."""
        return self.transform.rate

    # ---- of the track table

    @lazy
    def name(self) -> str:
        """Name of the track."""
        return str(self._cell("name"))

    @lazy
    def split(self) -> str:
        """Split that the track belongs to, such as "train"."""
        return str(self._cell("split"))

    @lazy
    def source(self) -> str:
        """Where the audio is: a path relative to the folder that holds the store, or a URI."""
        return str(self._cell("source"))

    @property
    def metadata(self) -> dict[str, Any]:
        """The metadata that were given with the track."""
        return metadata_of(self._cell("metadata"))

    @property
    def labels(self) -> dict[str, Any]:
        """The track's labels, by name; None for one that isn't known."""
        return {label.name: label.value(self._cell(label.path)) for label in self._frames.snapshot.document.labels}

    @lazy
    def samples(self) -> int:
        """Length of the audio, samples."""
        return int(self._cell("samples"))

    @property
    def duration(self) -> float:
        """Length of the audio, seconds."""
        return self.samples / self.rate

    @lazy
    def _span(self) -> tuple[int, int]:
        return self._frames.snapshot.span(self._row)

    @property
    def frames(self) -> int:
        """Length of the spectrogram, frames."""
        return self._span[1]

    @property
    def start(self) -> int:
        """Where the track begins along the packed axis, frames."""
        return self._span[0]

    @lazy
    def present(self) -> dict[str, bool]:
        """For each target, whether the track has it."""
        return {target: bool(there) for target, there in zip(self.targets, self._cell("present"), strict=True)}

    @lazy
    def scales(self) -> dict[str, int]:
        """For each target that the track has, its scale e: level 255 stands for the magnitude 2 ** e."""
        scales = zip(self.targets, self._cell("scale").tolist(), strict=True)
        return {target: scale for target, scale in scales if self.present[target]}

    # ---- of the chunks

    @property
    def magnitude(self) -> xarray.DataArray:
        """Magnitudes (target, channel, time, frequency), float32, lazy; NaN where a target is absent.

        Coordinates are names of targets and channels, seconds and Hz.
        """
        return self._lazy_dataset("magnitude")["magnitude"]

    @property
    def levels(self) -> xarray.DataArray:
        """Levels (target, channel, time, frequency), lazy, uint8; 0 where a target is absent.

        The coordinate "scale" (target) tells what they stand for: ``2.0 ** scale`` times `Store.look_up_table`.
        """
        return self._lazy_dataset("levels")["levels"]

    @spelled_out()
    def to_xarray(self, values: Values = "magnitude") -> xarray.Dataset:
        """Return the track as a data set of one lazy variable.

        Parameters
        ----------
        values : str
            "magnitude" or "levels": which variable, as in `magnitude` and `levels`.

        Returns
        -------
        xarray.Dataset

        Raises
        ------
        ValueError
            If ``values`` is neither.
        """
        return self._lazy_dataset(values).assign_attrs(track=printable(self.name), rate=self.rate)

    def _lazy_dataset(self, values: Values) -> xarray.Dataset:
        """Make the data set without the attributes, so that the track's name needn't be read."""
        coordinates = {
            "target": list(self.targets),
            "channel": list(self.channels),
            "time": self.transform.frame_seconds(self.frames),
            "frequency": self.transform.frequencies,
        }
        if values == "levels":
            coordinates["scale"] = ("target", self._cell("scale"))
        array = LazyFrames(self._frames, values, self.start, self.frames, self._row)
        return lazy_dataset(array, TRACK_DIMENSIONS, coordinates, values)

    @spelled_out()
    def jpeg(self, target: str | int, channel: str | int, chunk: int) -> bytes:
        """Return one chunk's JPEG, as it is in the store: rows are frames, columns are bins.

        Parameters
        ----------
        target, channel : str or int
            Name or position.
        chunk : int
            Position within the track, from 0.

        Returns
        -------
        bytes

        Raises
        ------
        NameNotFoundError
            If there is no such target or channel, or the track doesn't have it.
        IndexError
            If the track has no such chunk.
        DamagedError
            If the chunk is missing or damaged.
        """
        position = self._position("target", target, self.targets)
        layout = self._frames.snapshot.layout
        chunks = layout.chunks(self.frames)
        if not 0 <= chunk < chunks:
            raise IndexError(f"track {shown(self.name)} has {chunks} chunks; there is none at position {chunk}")
        of_channel = self._position("channel", channel, self.channels)
        data = self._frames.chunks.jpeg(ChunkAt(position, of_channel, layout.chunk_of(self.start) + chunk, self._row))
        if data is None:  # which is right: the track doesn't have the target
            raise self._absent(self.targets[position])
        return data

    def _position(self, what: str, label: str | int, labels: Sequence[str]) -> int:
        if isinstance(label, str) and label in labels:
            return labels.index(label)
        if isinstance(label, int | np.integer) and -len(labels) <= label < len(labels):
            return int(label) % len(labels)
        raise NameNotFoundError(f"{store_name(self)} has no {what} {label!r}; it has {listed(labels)}")

    def _absent(self, target: str) -> NameNotFoundError:
        there = [name for name, present in self.present.items() if present]
        return NameNotFoundError(f"track {shown(self.name)} has no target {target!r}; it has {listed(there)}")


# ---- for other modules, not for users of a track


def store_name(track: StoredTrack) -> str:
    """Where the store of a track is, as text for people."""
    return track._frames.snapshot.name


def source_folders(track: StoredTrack) -> tuple[Path | None, Path | None]:
    """Folders by which a track's source is found: the store's, if it is one on this machine, and ``audio_root``."""
    snapshot = track._frames.snapshot
    return snapshot.storage.folder, snapshot.audio_root


def present_target(track: StoredTrack, target: str | int) -> str:
    """Return the name of a target, given its name or position, if a track has it.

    Raises
    ------
    NameNotFoundError
        If it doesn't have it.
    """
    label = track.targets[track._position("target", target, track.targets)]
    if not track.present[label]:
        raise track._absent(label)
    return label
