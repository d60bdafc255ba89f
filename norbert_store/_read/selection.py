"""Some tracks of one committed state, in some order: what excerpts, statistics and views are made of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from norbert_store._format.document import Document
from norbert_store._lazy import lazy
from norbert_store._read.frames import Frames
from norbert_store._read.snapshot import Snapshot
from norbert_store._read.track import StoredTrack
from norbert_store._signature import did_you_mean
from norbert_store._spectra.bins import StoredTransform
from norbert_store._text import printable, shortened, shown
from norbert_store.errors import NameNotFoundError

_MOST_NAMES_SHOWN = 100


class Selection:
    """Some tracks of one committed state.

    Parameters
    ----------
    frames : Frames
        Of the store.
    chosen : ndarray of int, optional
        Rows of the track table, in order; all of them if left out.
    """

    def __init__(self, frames: Frames, chosen: NDArray[np.int64] | None = None) -> None:
        self.frames = frames
        self.chosen = chosen

    def __len__(self) -> int:
        return self.document.tracks if self.chosen is None else len(self.chosen)

    def __iter__(self) -> Iterator[StoredTrack]:
        return (StoredTrack(self.frames, row) for row in self.each_row())

    def __getstate__(self) -> dict[str, Any]:
        return {"frames": self.frames, "chosen": self.chosen}

    @property
    def snapshot(self) -> Snapshot:
        """The committed state."""
        return self.frames.snapshot

    @property
    def document(self) -> Document:
        """What the committed state says of itself."""
        return self.frames.snapshot.document

    @property
    def transform(self) -> StoredTransform:
        """How audio became magnitudes."""
        return self.frames.snapshot.transform

    @property
    def name(self) -> str:
        """Where the store is, for people."""
        return self.frames.snapshot.name

    @property
    def rows(self) -> NDArray[np.int64]:
        """Rows of the track table."""
        return np.arange(self.document.tracks) if self.chosen is None else self.chosen

    def each_row(self) -> Sequence[int]:
        """Rows one after the other, as whole numbers of Python."""
        return range(self.document.tracks) if self.chosen is None else self.chosen.tolist()

    def some(self, positions: Any) -> Selection:
        """Select by a mask, or by positions, within this one."""
        return Selection(self.frames, self.rows[positions])

    def column(self, name: str) -> NDArray[Any]:
        """Read a column of the track table; text as objects."""
        values = self.frames.snapshot.column(name)
        return values if self.chosen is None else values[self.chosen]

    def facts(self) -> dict[str, str]:
        """What it holds, in words."""
        transform, hertz = self.transform, self.transform.frequencies
        labels = [label.name for label in self.document.labels]
        return {
            "tracks": str(len(self)),
            "targets": _list(self.document.targets),
            "channels": _list(self.document.channels),
            "transform": f"{printable(shortened(transform.name))}, {transform.rate} Hz, hop {transform.hop}, "
            f"{len(hertz)} bins from {hertz[0]:.0f} to {hertz[-1]:.0f} Hz",
            **({"labels": _list(labels)} if labels else {}),
        }

    @lazy
    def row_by_name(self) -> dict[str, int]:
        """Row of each track, by its name."""
        return dict(zip(self.column("name").tolist(), self.each_row(), strict=True))

    def row(self, name: str) -> int:
        """Find a track's row by its name.

        Raises
        ------
        NameNotFoundError
            If there is none; the message names one that is spelled like it.
        """
        try:
            return self.row_by_name[name]
        except KeyError:
            raise NameNotFoundError(
                f"{self.name} has no track {shown(name)}{did_you_mean(name, self.row_by_name)}"
            ) from None


def _list(names: Sequence[str]) -> str:
    more = [f"... {len(names) - _MOST_NAMES_SHOWN} more"] if len(names) > _MOST_NAMES_SHOWN else []
    return ", ".join([*names[:_MOST_NAMES_SHOWN], *more])
