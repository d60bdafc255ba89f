"""Keys to bytes, wherever a store lies: the one place where this library touches storage.

`norbert_store._storage.folder` has folders, `norbert_store._storage.remote` everything else that zarr can open.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

from zarr.abc.store import Store
from zarr.core.sync import sync
from zarr.storage import LocalStore, MemoryStore, ZipStore

from norbert_store._lazy import lazy
from norbert_store._storage.folder import PARTIAL_SUFFIX, LocalKeys
from norbert_store._storage.remote import ATTEMPTS, ZarrKeys, is_forked, keep, open_url, reopened
from norbert_store.errors import FormatError, StoreNotFoundError

Location = str | os.PathLike[str] | Store


class Storage:
    """A place for one zarr hierarchy.

    Parameters
    ----------
    location : str, path or zarr store
        A folder, a URL that fsspec knows, a .zip file (to read), or a ready zarr store.
    read_only : bool
    """

    def __init__(self, location: Location, read_only: bool = True) -> None:
        self._name = str(location)
        # absolute, so that it stays the same place when the working folder changes
        remote = isinstance(location, Store) or "://" in os.fspath(location)
        self._location = location if remote else os.path.abspath(os.fspath(location))  # type: ignore[arg-type]
        self._read_only = read_only
        self._store: Store | None = None
        self._process = 0

    def __repr__(self) -> str:
        return f"Storage({self.name!r})"

    def __getstate__(self) -> dict[str, Any]:
        # an open store may hold connections and threads: the process that unpickles this opens its own
        return {**self.__dict__, "_store": None}

    @property
    def name(self) -> str:
        """The location, for people."""
        return self._name

    @property
    def location(self) -> Location:
        """What it was made of."""
        return self._location

    @property
    def in_memory(self) -> bool:
        """Whether it is the memory of this process."""
        # also through a wrapper of zarr's, or by its URL
        return "memory://" in str(self._location)

    @property
    def folder(self) -> Path | None:
        """The folder that the hierarchy lies in, if it is one on this machine."""
        if isinstance(self._location, LocalStore):
            return Path(self._location.root)
        if isinstance(self._location, Store) or "://" in str(self._location) or self._is_zip:
            return None
        return Path(self._location)

    @property
    def _is_zip(self) -> bool:
        return str(self._location).endswith(".zip")

    @lazy
    def local(self) -> LocalKeys | None:
        """The files, if it is a folder on this machine."""
        return None if self.folder is None else LocalKeys(self.folder)

    @property
    def _keys(self) -> LocalKeys | ZarrKeys:
        if self.local is not None:
            return self.local
        # a ready store tries again as it was told to
        return ZarrKeys(self.store, self.name, attempts=1 if isinstance(self._location, Store) else ATTEMPTS)

    @property
    def store(self) -> Store:
        """The zarr store, opened once in each process.

        Raises
        ------
        StoreNotFoundError
            If there is no such folder or file to read.
        FormatError
            If a .zip file is none.
        """
        if self._store is None or self._process != os.getpid():
            store = self._open()
            try:
                sync(store._ensure_open())  # the ZipStore of zarr 3.1 doesn't do so when it is first read
            except FileNotFoundError as error:
                raise StoreNotFoundError(f"there is no store at {self.name}") from error
            except BadZipFile as error:
                raise FormatError(f"{self.name} can't be read: {error}") from None
            keep(store)
            self._store = store
            self._process = os.getpid()
        return self._store

    def _open(self) -> Store:
        if not isinstance(self._location, Store):
            return _open_store(self._location, self._read_only) if self.folder is None else LocalStore(self.folder)
        if not is_forked() or isinstance(self._location, MemoryStore):
            return self._location
        return reopened(self._location, self.name)

    def get(self, key: str) -> bytes | None:
        """All bytes of a key; None where there is no such key.

        Raises
        ------
        StorageError
            As all that follow: if the storage fails, also after some more attempts.
        """
        return self._keys.get(key)

    def get_range(self, key: str, start: int, length: int) -> bytes | None:
        """Bytes of a key from an offset on; fewer where it ends before."""
        return self._keys.get(key, start, length)

    def get_ranges(self, ranges: Sequence[tuple[str, int, int]]) -> list[bytes | None]:
        """Read ranges (key, start, length) of any keys, many at a time; a negative start counts from the end."""
        return self._keys.get_ranges(ranges)

    def get_suffix(self, key: str, length: int) -> bytes | None:
        """Last bytes of a key; all of them where it is shorter."""
        return self._keys.get(key, -length)

    def size(self, key: str) -> int | None:
        """Count the bytes of a key; None where there is no such key."""
        return self._keys.size(key)

    def set(self, key: str, data: bytes) -> None:
        """Write a key whole; readers see the old bytes or the new ones, nothing between.

        In a folder, the bytes are on disk when this returns.

        Raises
        ------
        ValueError
            If this was opened to read only.
        """
        self._check_writable()
        self._keys.set(key, data)

    def set_new(self, key: str, data: bytes) -> None:
        """Write a key, unless there is one; on object storage, the server decides which of two writers is the first."""
        self._check_writable()
        self._keys.set_new(key, data)

    def _check_writable(self) -> None:
        if self._read_only:
            raise ValueError(f"{self.name} was opened read-only")

    def delete(self, key: str) -> None:
        """Delete a key, if it is there."""
        self._check_writable()
        self._keys.delete(key)

    def is_empty(self) -> bool:
        """Whether there is nothing at all at the location."""
        return self._keys.is_empty()

    def list(self, prefix: str = "") -> list[str]:
        """List all keys below a prefix, in order."""
        return self._keys.list(prefix)

    def sweep(self) -> None:
        """Delete files that were begun, and never finished because their process died."""
        if self.folder is not None:
            for key in self.list():
                if key.endswith(PARTIAL_SUFFIX):
                    self.delete(key)


def _open_store(location: str | os.PathLike[str], read_only: bool) -> Store:
    text = os.fspath(location)
    if "://" in text:
        return open_url(text, read_only)
    if not read_only:
        raise ValueError(f"{text}: .zip files can only be read; write into a folder, and pack that")
    return ZipStore(text, mode="r", read_only=True)
