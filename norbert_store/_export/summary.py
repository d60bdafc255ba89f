"""Reports of an export: how far it is, and what it has done."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from norbert_store._storage.storage import Location

if TYPE_CHECKING:
    from norbert_store._store import Store

FLOAT_BYTES = 4


@dataclass(frozen=True)
class Progress:
    """How far an export is, before and after each track.

    Attributes
    ----------
    track : str
        Name of the track that comes next; empty where that isn't known, and at the end.
    done, tracks : int
        Number of tracks that are done, and of all tracks.
    audio_seconds : float
        Length of the tracks that were encoded so far, seconds.
    elapsed_seconds : float
        Time since the beginning, seconds.
    """

    track: str
    done: int
    tracks: int
    audio_seconds: float
    elapsed_seconds: float

    @property
    def speed(self) -> float:
        """Seconds of audio for each second of time."""
        return self.audio_seconds / self.elapsed_seconds if self.elapsed_seconds else 0.0


@dataclass
class Summary:
    """What an export has done.

    Attributes
    ----------
    location : str
        Where the store is.
    tracks : int
        Number of tracks of the data set that are in the store now.
    written : int
        Number of tracks that were written this time; others were there already.
    updated : list of str
        Names of the tracks that were there already, and were written anew, or got other labels, with ``update``.
    edited : list of (str, str)
        Name of every track whose files or labels differ in the data set now, and what differs. ``update`` brings them
        up to date.
    gone : list of (str, str)
        Name of every track in the store whose audio isn't there any more, and what is known of that: it was deleted or
        renamed.
    notes : list of str
        What else differs from what was asked for, such as the title.
    skipped : list of (str, str)
        Name of every track that was left out, and why.
    channels : int
        Number of channels.
    audio_seconds : float
        Length of those tracks, seconds.
    stem_seconds : float
        Length of all their stems together, seconds.
    store_bytes, npy_bytes, audio_bytes : int
        Size of the store, of the same magnitudes as float32 in .npy, and of the audio files, bytes.
    written_seconds : float
        Length of the tracks that were written this time, seconds.
    elapsed_seconds : float
        Time that the export took, seconds.
    """

    location: str
    tracks: int = 0
    written: int = 0
    updated: list[str] = field(default_factory=list)
    edited: list[tuple[str, str]] = field(default_factory=list)
    gone: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    channels: int = 0
    audio_seconds: float = 0.0
    stem_seconds: float = 0.0
    store_bytes: int = 0
    npy_bytes: int = 0
    audio_bytes: int = 0
    written_seconds: float = 0.0
    elapsed_seconds: float = 0.0
    _place: Location | None = None  # to open, where it isn't the name

    @property
    def speed(self) -> float:
        """Seconds of audio for each second of time."""
        return self.written_seconds / self.elapsed_seconds if self.elapsed_seconds else 0.0

    def open(self) -> Store:
        """Open the store.

        Raises
        ------
        StoreNotFoundError
            If it isn't there any more.
        """
        from norbert_store._store import open as open_store

        return open_store(self.location if self._place is None else self._place)

    def __repr__(self) -> str:
        tracks = "1 track" if self.tracks == 1 else f"{self.tracks} tracks"
        more = "".join(
            f", {len(found)} {what}"
            for what, found in (("skipped", self.skipped), ("edited", self.edited), ("gone", self.gone))
            if found
        )
        return (
            f"<norbert_store.Summary of {self.location!r}: {tracks}, {self.audio_seconds:.1f} s, "
            f"{self.store_bytes / 1e6:.1f} MB; {self.written} written{more}>"
        )
