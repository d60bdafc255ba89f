"""Errors of this library, all of them below `NorbertStoreError`.

Each is also one of Python's own, so that ordinary ``except`` clauses work::

    NorbertStoreError
    |
    |   what was given doesn't fit                                          ValueError
    |-- MagnitudeError        magnitudes that can't be stored
    |-- AudioError            audio that can't be read, or doesn't fit
    |-- TrackError            a track whose name, labels or metadata don't fit
    |-- TableError            a table of tracks whose columns, names or files don't fit
    |-- JpegError             a JPEG that is corrupt, or of another kind
    |-- FormatError           a store that breaks the format, or is newer than this library
    |
    |   what was asked for isn't there                                      KeyError
    |-- NameNotFoundError     a track, target, channel, label or label's value
    |
    |   a place, a file or a process                                        OSError
    |-- StoreExistsError      where a new store was to be written           (FileExistsError)
    |-- StoreNotFoundError    where a store was to be opened                (FileNotFoundError)
    |-- StoreReplacedError    another store, or state of it, is there now; open it again
    |-- StoreChangedError     tracks have moved since it was opened; open it again
    |-- StoreInUseError       somebody else is writing there
    |-- StorageError          the place can't be read or written
    |-- SourceError           audio, or a data set, isn't where it was looked for
    |-- DamagedError          stored bytes are missing, cut off, or fail their checksum
    `-- WorkerError           processes that did the work died again and again

A wrong argument is a plain `TypeError` or `ValueError`. A message says what was found, what was expected and what to
do, and names store, track, target and chunk where they are known. Text that comes from a store is escaped in it, so
that it can't control a terminal.
"""

from __future__ import annotations

from typing import Any

from norbert_store._text import printable, shown

__all__ = [
    "AudioError",
    "DamagedError",
    "FormatError",
    "JpegError",
    "MagnitudeError",
    "NameNotFoundError",
    "NorbertStoreError",
    "SourceError",
    "StorageError",
    "StoreChangedError",
    "StoreExistsError",
    "StoreInUseError",
    "StoreNotFoundError",
    "StoreReplacedError",
    "TableError",
    "TrackError",
    "WorkerError",
]


class NorbertStoreError(Exception):
    """Base of all errors that this library raises on purpose."""

    def __str__(self) -> str:
        return printable(super().__str__())


class MagnitudeError(NorbertStoreError, ValueError):
    """Values that can't be stored: NaN, infinite, negative, or above the given peak or reference."""


class AudioError(NorbertStoreError, ValueError):
    """Audio that can't be read, or doesn't fit the store, the track or its other stems."""


class JpegError(NorbertStoreError, ValueError):
    """A JPEG that is corrupt, or not of the kind that is stored: baseline, 8 bits, one grey component."""


class FormatError(NorbertStoreError, ValueError):
    """A store whose documents break the format, or whose version is newer than this library."""


class TrackError(NorbertStoreError, ValueError):
    """A track that can't be added: its name, labels or metadata don't fit."""


class TableError(NorbertStoreError, ValueError):
    """A table of tracks that can't be exported: a column, a name or a file in it doesn't fit."""


class StoreExistsError(NorbertStoreError, FileExistsError):
    """There is something already where a new store was to be written."""


class StoreNotFoundError(NorbertStoreError, FileNotFoundError):
    """There is no store where one was to be opened."""


class StoreReplacedError(NorbertStoreError, OSError):
    """An open store was replaced by another store, or by another state of itself; open it again."""


class StoreChangedError(NorbertStoreError, OSError):
    """Tracks of a store have moved since it was opened; open it again."""


class StoreInUseError(NorbertStoreError, OSError):
    """Another writer holds the store."""


class StorageError(NorbertStoreError, OSError):
    """The place where a store lies can't be read or written: a full disk, missing permission, a server that fails.

    Attributes
    ----------
    problem : str
        What went wrong.
    place : str
        The file or the key; empty where it is the whole store.
    """

    def __init__(self, problem: str, *, place: str = "") -> None:
        super().__init__(problem)
        self.problem = problem
        self.place = place

    def __str__(self) -> str:
        return printable(f"{self.place} {self.problem}".lstrip())


class WorkerError(NorbertStoreError, OSError):
    """Worker processes died several times in a row."""


class SourceError(NorbertStoreError, OSError):
    """The audio that a track was made from, or a data set, isn't where it was looked for."""


class DamagedError(NorbertStoreError, OSError):
    """Stored bytes that are missing, cut short, or fail their checksum.

    The code that finds the damage gives the problem and the file; callers that know the names of store, track and
    target add them.

    Attributes
    ----------
    problem : str
        What is wrong.
    key : str, optional
        The file, relative to the store.
    offset : int, optional
        Where in the file, bytes.
    at : tuple of int, optional
        Positions of the chunk's target and channel (-1: all of them), and its own along the packed axis.
    store, track, target, channel : str, optional
        Names, as far as they are known.
    """

    def __init__(
        self,
        problem: str,
        *,
        key: str | None = None,
        offset: int | None = None,
        at: tuple[Any, ...] | None = None,
        store: str | None = None,
        track: str | None = None,
        target: str | None = None,
        channel: str | None = None,
    ) -> None:
        super().__init__(problem)
        self.problem = problem
        self.key = key
        self.offset = offset
        self.at = at
        self.store = store
        self.track = track
        self.target = target
        self.channel = channel

    def __str__(self) -> str:
        chunk = None if self.at is None or self.channel is None else self.at[2]
        place = in_words(self.key, self.offset, self.track, self.target, self.channel, chunk)
        return printable(": ".join(part for part in (self.store, place, self.problem) if part))


class NameNotFoundError(NorbertStoreError, KeyError):
    """There is no such track, target, channel or label in the store, or no such value of a label."""

    def __str__(self) -> str:
        # KeyError shows the repr of its argument, which is for keys, not for sentences
        return printable(str(self.args[0])) if self.args else ""


def in_words(
    key: str | None,
    offset: int | None = None,
    track: str | None = None,
    target: str | None = None,
    channel: str | None = None,
    chunk: int | None = None,
) -> str:
    """Name a place in a store: "track 'A', target 'vocals', at byte 20 of magnitude/c/0/0/1/0".

    Parameters
    ----------
    key : str, optional
        The file, relative to the store.
    offset : int, optional
        Where in the file, bytes.
    track, target, channel : str, optional
    chunk : int, optional
        Position along the packed axis.
    """
    labels = {"track": track, "target": target, "channel": channel, "packed chunk": chunk}
    places = [f"{what} {shown(label)}" for what, label in labels.items() if label is not None]
    if key is not None:
        places.append(key if offset is None else f"at byte {offset} of {key}")
    return ", ".join(places)
