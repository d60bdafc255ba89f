"""One thing that is wrong with a store."""

from __future__ import annotations

from dataclasses import dataclass

from norbert_store._read.frames import Reader
from norbert_store.errors import NorbertStoreError, StorageError


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
        Position along the packed axis.
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
        labels = {"track": self.track, "target": self.target, "channel": self.channel, "packed chunk": self.chunk}
        places = [f"{what} {label!r}" for what, label in labels.items() if label is not None]
        places.append(self.key if self.offset is None else f"at byte {self.offset} of {self.key}")
        return f"{self.store}: {', '.join(places)}: {self.problem}"


def problem_of(reader: Reader, key: str, error: NorbertStoreError) -> str:
    """Say what is wrong with a file, without its name; raises if it isn't the file's fault."""
    if isinstance(error, StorageError) and reader.storage.folder is None:
        raise error
    text = str(error)
    _, found, what = text.partition(f"{key} ")
    return f"the file {what}" if found else text
