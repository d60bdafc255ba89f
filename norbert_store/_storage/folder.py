"""Keys as files in a folder: ranges are read directly, and what is written is whole and on disk, or not there."""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from norbert_store.errors import StorageError

PARTIAL_SUFFIX = ".partial"

# what a key is that has no file, or whose folders aren't there
_NOT_THERE = (FileNotFoundError, NotADirectoryError, IsADirectoryError)


_READ = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)

_SHORT_BYTES = 2**20
_FAR_BYTES = 2**40


class LocalKeys:
    """The files below a folder.

    Parameters
    ----------
    folder : Path
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._root = os.path.join(folder, "")

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes | None:
        """Read a key from ``start`` (from its end, if negative) on; None where there is no such key."""
        path = f"{self._root}{key}"
        try:
            descriptor = os.open(path, _READ)
            try:
                # reading makes room for all that it asks for, and no system takes every offset
                if length is None or length > _SHORT_BYTES or not 0 <= start < _FAR_BYTES:
                    size = os.fstat(descriptor).st_size
                    start = max(0, size + start) if start < 0 else min(start, size)
                    length = size - start if length is None else min(length, size - start)
                return _read(descriptor, start, length)
            finally:
                os.close(descriptor)
        except _NOT_THERE:
            return None
        except OSError as error:
            raise StorageError(f"{path} can't be read: {reason(error)}") from error

    def get_ranges(self, ranges: Sequence[tuple[str, int, int]]) -> list[bytes | None]:
        """Read ranges (key, start, length)."""
        return [self.get(key, start, length) for key, start, length in ranges]

    def set(self, key: str, data: bytes) -> None:
        """Write a file beside the old one, see it on disk, and put it in the old one's place."""
        path = self.folder / key
        partial = path.with_name(f"{path.name}.{secrets.token_hex(4)}{PARTIAL_SUFFIX}")
        try:
            new_folders = _make_folders(path.parent)
            try:
                with open(partial, "wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(partial, path)
            except BaseException:
                with suppress(OSError):
                    partial.unlink()
                raise
            for folder in {path.parent, *(made.parent for made in new_folders)}:
                _sync_folder(folder)
        except OSError as error:
            raise StorageError(f"{path} can't be written: {reason(error)}") from error

    def set_new(self, key: str, data: bytes) -> None:
        """Write a file, unless there is one."""
        if not (self.folder / key).exists():
            self.set(key, data)

    def delete(self, key: str) -> None:
        """Delete a key, if it is there."""
        with suppress(*_NOT_THERE):
            (self.folder / key).unlink()

    def size(self, key: str) -> int | None:
        """Count the bytes of a key; None where there is no such key."""
        try:
            return (self.folder / key).stat().st_size
        except _NOT_THERE:
            return None

    def list(self, prefix: str = "") -> list[str]:
        """List all keys below a prefix, in order."""
        keys = []
        for folder, _, names in os.walk(self.folder / prefix):
            below = Path(folder).relative_to(self.folder)
            keys += [(below / name).as_posix() for name in names]
        return sorted(keys)

    def is_empty(self) -> bool:
        """Whether there is nothing at all, but for empty folders."""
        return not self.folder.exists() or (
            self.folder.is_dir() and not any(names for *_, names in os.walk(self.folder))
        )


def reason(error: OSError) -> str:
    """Why the system refused, in its own words."""
    return os.strerror(error.errno) if error.errno else str(error)


def _read(descriptor: int, start: int, length: int) -> bytes:
    """Read a range; a single call may give less, and never more than 2 GiB."""
    os.lseek(descriptor, start, os.SEEK_SET)
    data = os.read(descriptor, length)
    if len(data) == length:
        return data
    pieces = [data]
    while piece := os.read(descriptor, length - sum(map(len, pieces))):
        pieces.append(piece)
    return b"".join(pieces)


def _make_folders(folder: Path) -> list[Path]:
    """Make a folder and those above it; return the new ones."""
    missing = [folder, *folder.parents][: next(i for i, f in enumerate([folder, *folder.parents]) if f.exists())]
    folder.mkdir(parents=True, exist_ok=True)
    return missing


def _sync_folder(folder: Path) -> None:
    """See a folder's new names on disk; Windows has no such call, and does it by itself."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
