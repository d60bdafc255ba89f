"""Keys as files in a folder: ranges are read directly, and what is written is whole and on disk, or not there.

The folder may come from a stranger. Nothing is read, written or deleted through a symbolic link that leads out of it,
and nothing is opened that blocks or acts when it is opened: regular files alone are read. What isn't defended is a
folder that somebody changes on purpose while it is used.
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import takewhile
from pathlib import Path

from norbert_store._storage.keys import check_key, is_key, too_large
from norbert_store.errors import DamagedError, FormatError, StorageError

PARTIAL_SUFFIX = ".partial"

# what a key is that has no file, or whose folders aren't there
_NOT_THERE = (FileNotFoundError, NotADirectoryError, IsADirectoryError)


# a FIFO is opened without waiting for somebody who writes into it
_READ = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0)

_SHORT_BYTES = 2**20
_FAR_BYTES = 2**40

_MOST_REMEMBERED = 2**16

_KINDS = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
    stat.S_IFSOCK: "a socket",
}

FileState = tuple[int, int, int, int]
"""Which file it is, its size, and when it was written and changed."""


class LocalKeys:
    """The files below a folder.

    Parameters
    ----------
    folder : Path
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._root = os.path.join(folder, "")
        # which file a key was, when it was looked at: reading asks no more of the system than it must
        self._known: dict[str, int] = {}

    def __reduce__(self) -> tuple[type[LocalKeys], tuple[Path]]:
        return type(self), (self.folder,)

    def get(self, key: str, start: int = 0, length: int | None = None, most: int | None = None) -> bytes | None:
        """Read a key from ``start`` (from its end, if negative) on; None where there is no such key.

        Raises
        ------
        FormatError
            If the key isn't one, or a symbolic link leads out of the folder.
        DamagedError
            If what is there is no regular file, or ``length`` is left out and there are more than ``most`` bytes.
        StorageError
            If it can't be read.
        """
        known = self._known.get(key)
        if known is None:
            self._check(key)
        path = f"{self._root}{key}"
        try:
            descriptor = os.open(path, _READ)
            try:
                if known is None:
                    known = self._look_at(key, os.fstat(descriptor))
                # reading makes room for all that it asks for, and no system takes every offset
                begin, count = start, length
                if count is None or count > _SHORT_BYTES or not 0 <= begin < _FAR_BYTES:
                    size = os.fstat(descriptor).st_size
                    begin = max(0, size + begin) if begin < 0 else min(begin, size)
                    if count is None and most is not None and size - begin > most:
                        raise too_large(str(self.folder), key, most, size - begin)
                    count = size - begin if count is None else min(count, size - begin)
                data = _read(descriptor, begin, count)
                found = os.fstat(descriptor).st_ino
            finally:
                os.close(descriptor)
        except _NOT_THERE:
            return None
        except (DamagedError, FormatError):
            raise
        except OSError as error:
            raise StorageError(f"can't be read: {reason(error)}", place=str(path)) from error
        if found != known:  # another file than the one that was looked at
            self._known.pop(key, None)
            return self.get(key, start, length, most)
        return data

    def _check(self, key: str) -> None:
        """Check that a key and the links on its way stay in the folder."""
        if _leads_out(self._root, check_key(key)):
            raise FormatError(
                f"{self._root}{key} is, or lies behind, a symbolic link that leads out of {self.folder}: nothing "
                "outside of a store is read or written for it; replace the link by what it leads to "
                "(cp -rL copies a store so)"
            )

    def _look_at(self, key: str, status: os.stat_result) -> int:
        """Check that an open file is a regular one, and remember which it is."""
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError
        if not stat.S_ISREG(status.st_mode):
            kind = _KINDS.get(stat.S_IFMT(status.st_mode), "no file")
            raise DamagedError(f"it is {kind}; expected a regular file", key=key, store=str(self.folder))
        if len(self._known) >= _MOST_REMEMBERED:
            self._known.clear()
        self._known[key] = status.st_ino
        return status.st_ino

    def state(self, key: str) -> FileState | None:
        """Tell what changes when a file is written or replaced; None where there is none."""
        if key not in self._known:
            check_key(key)
        try:
            return _state(os.stat(f"{self._root}{key}"))
        except OSError:
            return None

    def get_many(self, keys: Sequence[str], most: int) -> list[bytes | None]:
        """Read keys whole."""
        return [self.get(key, most=most) for key in keys]

    def get_ranges(self, ranges: Sequence[tuple[str, int, int]]) -> list[bytes | None]:
        """Read ranges (key, start, length)."""
        return [self.get(key, start, length) for key, start, length in ranges]

    def set(self, key: str, data: bytes) -> None:
        """Write a file beside the old one, see it on disk, and put it in the old one's place."""
        with self._writing(key) as path:
            partial = path.with_name(f"{path.name}.{secrets.token_hex(4)}{PARTIAL_SUFFIX}")
            make_folder(path.parent)
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
            _sync_folder(path.parent)

    def get_with_tag(self, key: str, most: int | None = None) -> tuple[bytes, None] | None:
        """Read a key whole; it has no tag: who writes holds the system's lock."""
        data = self.get(key, most=most)
        return None if data is None else (data, None)

    def create(self, key: str, data: bytes) -> str | None:
        """Write a file, unless there is one; return the tag that no file has if it holds these bytes now, else None."""
        size = self.size(key)
        if size is None:
            self.set(key, data)
        return "" if size is None or (size == len(data) and self.get(key) == data) else None

    def replace(self, key: str, data: bytes, tag: str | None, once: bool = False) -> None:
        """Write a file."""
        self.set(key, data)

    def delete(self, key: str) -> None:
        """Delete a key, if it is there."""
        with self._writing(key) as path, suppress(FileNotFoundError, NotADirectoryError):
            path.unlink()

    @contextmanager
    def _writing(self, key: str) -> Iterator[Path]:
        """Give the path of a file to be replaced or deleted: a link in its place is, not what it leads to."""
        folder, _, _ = check_key(key).rpartition("/")
        if folder:
            self._check(folder)
        path = self.folder / key
        try:
            yield path
        except OSError as error:
            raise StorageError(f"can't be written: {reason(error)}", place=str(path)) from error

    def sync_folder(self) -> None:
        """See the folder's own name on disk: it may be there because of a process that died, or of somebody else."""
        try:
            _sync_folder(self.folder.parent)
        except PermissionError:  # who may not read the folder above can't sync it, and writes all the same
            return
        except OSError as error:
            raise StorageError(f"can't be written: {reason(error)}", place=str(self.folder)) from error

    def size(self, key: str) -> int | None:
        """Count the bytes of a key; None where there is no such key, or no regular file."""
        self._check(key)
        path = f"{self._root}{key}"
        try:
            status = os.stat(path)
        except _NOT_THERE:
            return None
        except OSError as error:
            raise StorageError(f"can't be read: {reason(error)}", place=path) from error
        return status.st_size if stat.S_ISREG(status.st_mode) else None

    def list(self, prefix: str = "") -> list[str]:
        """List all keys below a prefix, in order; names that can't be keys aren't a store's."""
        if prefix:
            self._check(prefix)
        return sorted(filter(is_key, self._files(prefix)))

    def is_empty(self) -> bool:
        """Whether there is nothing at all, but for empty folders."""
        return not self.folder.exists() or (self.folder.is_dir() and not any(True for _ in self._files()))

    def _files(self, prefix: str = "") -> Iterator[str]:
        """Give the path below this folder of all that is no folder."""

        def refuse(error: OSError) -> None:
            if not isinstance(error, _NOT_THERE):  # a folder may be deleted meanwhile
                place = str(error.filename or self.folder)
                raise StorageError(f"can't be listed: {reason(error)}", place=place) from error

        for folder, _, names in os.walk(self.folder / prefix, onerror=refuse):
            below = Path(folder).relative_to(self.folder)
            yield from ((below / name).as_posix() for name in names)


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


def _leads_out(root: str, key: str) -> bool:
    """Whether a symbolic link below a folder leads out of it."""
    path = root
    for part in key.split("/"):
        path = os.path.join(path, part)
        if os.path.islink(path):
            inside = os.path.join(os.path.realpath(root), "")
            return not os.path.realpath(f"{root}{key}").startswith(inside)
    return False


def _state(status: os.stat_result) -> FileState:
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, and see the names of the new ones on disk."""
    missing = [*takewhile(lambda above: not above.exists(), [folder, *folder.parents])]
    folder.mkdir(parents=True, exist_ok=True)
    for made in missing:
        _sync_folder(made.parent)


def _sync_folder(folder: Path) -> None:
    """See a folder's new names on disk; Windows has no such call, and does it by itself."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
