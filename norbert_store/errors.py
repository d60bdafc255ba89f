"""Errors of this library.

Every one of them is also a `ValueError`, a `KeyError` or an `OSError`, so that ordinary ``except`` clauses work.
A message says what was found, what was expected and what to do, and names store, track, target and chunk where
they are known.
"""

from __future__ import annotations


class NorbertStoreError(Exception):
    """Base of all errors that this library raises on purpose."""


class MagnitudeError(NorbertStoreError, ValueError):
    """Values that can't be stored: NaN, infinite, negative, or above the reference."""


class AudioError(NorbertStoreError, ValueError):
    """Audio that can't be read, or that doesn't fit the store or its own other stems."""


class JpegError(NorbertStoreError, ValueError):
    """A JPEG that is damaged, or not of the one kind that is stored: baseline, 8 bits, one grey component."""


class FormatError(NorbertStoreError, ValueError):
    """A store whose documents break the format, or whose version is newer than this library."""


class TrackError(NorbertStoreError, ValueError):
    """A track that can't be added: its name, labels or metadata don't fit."""


class StoreExistsError(NorbertStoreError, FileExistsError):
    """Something is already there, where a new store was to be written."""


class StoreNotFoundError(NorbertStoreError, FileNotFoundError):
    """There is no store where one was to be opened."""


class StoreInUseError(NorbertStoreError, OSError):
    """Somebody else writes to the store."""


class StorageError(NorbertStoreError, OSError):
    """The place where a store lies can't be read or written: a full disk, a missing right, a server that fails."""


class WorkerError(NorbertStoreError, OSError):
    """Processes that were to do the work died, again and again."""


class SourceError(NorbertStoreError, OSError):
    """The audio that a track was made of, or a data set, isn't where it was looked for."""


class DamagedError(NorbertStoreError, OSError):
    """Stored bytes that are missing, cut short, or fail their checksum."""


class NameNotFoundError(NorbertStoreError, KeyError):
    """A track, target, channel or split of that name isn't in the store."""

    def __str__(self) -> str:
        # KeyError shows the repr of its argument, which is for keys, not for sentences
        return str(self.args[0]) if self.args else ""
