"""What is wrong with a store, one thing at a time and all of it."""

from __future__ import annotations

from dataclasses import dataclass

from norbert_store._read.snapshot import Snapshot
from norbert_store.errors import DamagedError, StorageError, in_words


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong with a store.

    Attributes
    ----------
    store : str
        Its location.
    key : str
        The file, relative to the store.
    problem : str
        What is wrong with it.
    track, target, channel : str, optional
        What can't be read because of it, as far as that is known.
    chunk : int, optional
        Position along the packed axis, in chunks.
    offset : int, optional
        Where in the file, bytes.
    """

    store: str
    key: str
    problem: str
    track: str | None = None
    target: str | None = None
    channel: str | None = None
    chunk: int | None = None
    offset: int | None = None

    def __str__(self) -> str:
        place = in_words(self.key, self.offset, self.track, self.target, self.channel, self.chunk)
        return f"{self.store}: {place}: {self.problem}"


@dataclass(frozen=True)
class Report:
    """What `norbert_store.verify` has found, or `norbert_store.repair` has done; true if the store is whole.

    Attributes
    ----------
    location : str
        Where the store is.
    faults : tuple of Fault
        What is wrong with it; after a repair, what still is.
    mended : tuple of str
        Keys of the files that were written again.
    dropped : tuple of (str, str)
        Name of every track that was taken out, and why it couldn't be mended.
    failed : tuple of (str, str)
        Each track or file that couldn't be mended, and why.
    digest : str
        `norbert_store.Store.digest` of a store that `norbert_store.verify` found whole; else empty.

    Examples
    --------
    >>> bool(Report("music.zarr")), print(Report("music.zarr"))
    music.zarr is whole
    (True, None)
    """

    location: str
    faults: tuple[Fault, ...] = ()
    mended: tuple[str, ...] = ()
    dropped: tuple[tuple[str, str], ...] = ()
    failed: tuple[tuple[str, str], ...] = ()
    digest: str = ""

    def __bool__(self) -> bool:
        return not self.faults

    def __str__(self) -> str:
        lines = [f"mended {key}" for key in self.mended]
        lines += [f"dropped track {track!r}: {reason}" for track, reason in self.dropped]
        lines += [f"can't mend {what}: {reason}" for what, reason in self.failed]
        if not self.failed:
            lines += map(str, self.faults)
        count = f"{len(self.faults)} fault{'' if len(self.faults) == 1 else 's'}"
        left = " left" if self.mended or self.dropped or self.failed else ""
        lines.append(f"{self.location}: {count}{left}" if self.faults else f"{self.location} is whole")
        return "\n".join([*lines, f"digest {self.digest}"] if self.digest else lines)


def problem_of(snapshot: Snapshot, error: DamagedError | StorageError) -> str:
    """Say what is wrong with a file, without its name; raises if it isn't the file's fault."""
    if isinstance(error, StorageError):
        if snapshot.storage.folder is None:
            raise error
        return f"the file {error.problem}"
    return error.problem
