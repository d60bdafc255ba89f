"""Keys to bytes, wherever a store lies: the one place where this library touches storage.

`norbert_store._storage.places` says what a location is, and `opening` opens it; `folder`, `zipped`, `web` and
`zarr_keys` have the keys of folders, .zip files, web servers, and everything else that zarr can open.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

from zarr.abc.store import Store
from zarr.storage import MemoryStore, StorePath, ZipStore

from norbert_store._storage.adapter import KeysStore
from norbert_store._storage.folder import PARTIAL_SUFFIX, LocalKeys
from norbert_store._storage.keys import Keys, Readable
from norbert_store._storage.opening import is_forked, keys_at_url, keys_in_store, reopened
from norbert_store._storage.places import Location, is_session, is_zip, name_of, place_of
from norbert_store._storage.zarr_keys import ZarrKeys
from norbert_store._storage.zipped import ZipKeys
from norbert_store.errors import StorageError, StoreInUseError, StoreNotFoundError

__all__ = ["Location", "Storage"]


_ROUNDS = 3


class Guard(Protocol):
    """Raises what forbids to write."""

    def __call__(self, storage: Storage) -> None:
        """Look, unless that was done a moment ago."""

    def now(self, storage: Storage) -> None:
        """Look in any case."""


class Storage:
    """A place for one zarr hierarchy.

    Parameters
    ----------
    location : str, path, or store, path or group of zarr's
        A folder, a .zip file (to read), a URL that fsspec knows, or what zarr has opened already. ``~`` is the home
        folder, and file:// URLs are paths.
    read_only : bool
    options : mapping, optional
        Of fsspec's file system for the URL's scheme.

    Raises
    ------
    TypeError, ValueError
        If the location is none.
    """

    def __init__(self, location: Location, read_only: bool = True, options: Mapping[str, Any] | None = None) -> None:
        self._name = name_of(location)
        self._place = place_of(location)
        self._options = dict(options or {})
        if self._options and not isinstance(self._place, str):
            raise ValueError(f"{self._name} is no URL; options are of the file system that opens a URL")
        self._read_only = read_only or bool(getattr(location, "read_only", False))
        self._is_zip = is_zip(self._place)
        self.local = LocalKeys(self._place) if isinstance(self._place, Path) and not self._is_zip else None
        """The files, if it is a folder on this machine."""
        self.is_session = is_session(self._place)
        """Whether it is a session of icechunk: what is written becomes visible when the session is committed."""
        self._opened: Readable | None = None
        self._process = 0
        self._guard: Guard | None = None
        self._seen: dict[str, str] = {}  # tags of what was last read to be replaced, or written
        self._sent: dict[str, bytes] = {}  # what was to be committed, and perhaps was

    def __repr__(self) -> str:
        return f"Storage({self.name!r})"

    def __getstate__(self) -> dict[str, Any]:
        # what is open may hold connections and threads: the process that unpickles this opens its own
        return {**self.__dict__, "_opened": None, "_seen": {}, "_sent": {}}

    def guard(self, guard: Guard | None) -> None:
        """Have this called with the storage before every write and every deletion, here and in copies; None ends it."""
        self._guard = guard

    def without_guard(self) -> Storage:
        """Return the same place, to be written by who guards it."""
        found = copy.copy(self)
        found._guard, found._opened, found._process = None, self._opened, self._process
        found._seen, found._sent = {}, {}
        return found

    @property
    def name(self) -> str:
        """The location, for people."""
        return self._name

    @property
    def location(self) -> Location:
        """What another one can be made of, which is the same place; options are to be given again."""
        if isinstance(self._place, StorePath) and not self._place.path:
            return self._place.store
        return self._place

    @property
    def in_memory(self) -> bool:
        """Whether it is the memory of this process."""
        # also through a wrapper of zarr's, or by its URL
        return not isinstance(self._place, Path) and "memory://" in str(self._place)

    @property
    def folder(self) -> Path | None:
        """The folder that the hierarchy lies in, if it is one on this machine."""
        return None if self.local is None else self.local.folder

    @property
    def store(self) -> Store:
        """The place as a store of zarr's, to read only, by the same rules as here."""
        return KeysStore(self._keys)

    @property
    def _keys(self) -> Readable:
        """What reads the place; opened once in each process."""
        if self.local is not None:
            return self.local
        if self._opened is None or self._process != os.getpid():
            self._opened, self._process = self._open(), os.getpid()
        return self._opened

    def _open(self) -> Readable:
        if self._is_zip and not self._read_only:
            raise ValueError(f"{self.name}: .zip files can only be read; write into a folder, and pack that")
        place = self._place
        if isinstance(place, Path):
            return self._in_zip(place)
        if isinstance(place, StorePath) and isinstance(place.store, ZipStore) and place.store.read_only:
            return self._in_zip(Path(place.store.path), place.path)
        if isinstance(place, StorePath):
            ready = isinstance(place.store, MemoryStore) or not is_forked()
            store = place.store if ready else reopened(place.store, self.name)
            return keys_in_store(store, self.name, place.path)
        if self._is_zip:
            folder, file_name = _split(place)
            try:
                return ZipKeys(keys_at_url(folder, self.name, True, self._options), file_name, self.name)
            except StoreNotFoundError:  # a folder may be called so
                pass
        return keys_at_url(place, self.name, self._read_only, self._options)

    def _in_zip(self, path: Path, folder: str | None = None) -> ZipKeys:
        file = Path(os.path.realpath(path))
        return ZipKeys(LocalKeys(file.parent), file.name, self.name, folder)

    def get(self, key: str, most: int | None = None) -> bytes | None:
        """All bytes of a key; None where there is no such key.

        Parameters
        ----------
        key : str
        most : int, optional
            How many bytes there may be.

        Raises
        ------
        FormatError
            As all that follow: if the key leads out of the store, by its name or by a symbolic link.
        DamagedError
            If there are more than ``most`` bytes, of which no more than that are read; and, as all that follow, if what
            is there is no regular file.
        StorageError
            As all that follow: if the storage fails, also after some more attempts.
        """
        return self._keys.get(key, most=most)

    def get_many(self, keys: Sequence[str], most: int) -> list[bytes | None]:
        """Read keys whole, many at a time, each of which may have ``most`` bytes; None where there is no such key.

        Raises
        ------
        DamagedError
            If one of them has more.
        """
        return self._keys.get_many(keys, most)

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
        self._keys_to_write.set(key, data)

    def get_with_tag(self, key: str, most: int | None = None) -> tuple[bytes, str | None] | None:
        """All bytes of a key, as `get`, and the tag by which `replace` knows them; None where there is no such key.

        In a folder there are no tags: its writer holds the system's lock.
        """
        return self._writable_keys.get_with_tag(key, most)

    def create(self, key: str, data: bytes) -> bool:
        """Write a key, unless there is one; on object storage, the server decides which of two writers is the first.

        Returns
        -------
        bool
            Whether the key holds these bytes now: because they were written, or were there already.
        """
        return self._keys_to_write.create(key, data) is not None

    def replace(self, key: str, data: bytes, tag: str | None, once: bool = False) -> str | None:
        """Write a key that nobody has written since it was read with its tag.

        Readers see the old bytes or the new ones, nothing between.

        On S3, by s3fs or obstore, the server compares; elsewhere the tag is compared just before the write, which
        tells a writer that is late by more than a moment. In a folder there is nothing to be compared.

        Parameters
        ----------
        key : str
        data : bytes
        tag : str, optional
            As `get_with_tag` and this gave it.
        once : bool
            Whether it is refused also if these bytes are there already. Else they are taken for one's own, whose answer
            was lost.

        Returns
        -------
        str or None
            The new tag.

        Raises
        ------
        StoreInUseError
            If somebody else has written it, and not these bytes.
        """
        return self._keys_to_write.replace(key, data, tag, once)

    # ---- as the store's one writer

    @property
    def is_exclusive(self) -> bool:
        """Whether nobody else can write here meanwhile: a folder that the system locks, or a session."""
        return self.local is not None or self.is_session

    @property
    def may_delete(self) -> bool:
        """Whether what was left behind may be deleted: nobody takes this writer for dead, and writes in its place."""
        return self.is_exclusive or self._guard is None

    def look(self) -> None:
        """See that the lock is this writer's still, where there is one to be looked at.

        Raises
        ------
        StoreInUseError
            If it isn't.
        """
        if self._guard is not None:
            self._guard.now(self)

    def get_for_update(self, key: str, most: int | None = None) -> bytes | None:
        """All bytes of a key, as `get`; what is written there from now on replaces these, and no others."""
        found = self.get_with_tag(key, most)
        self._remember(key, None if found is None else found[1])
        return None if found is None else found[0]

    def commit(self, key: str, data: bytes, once: bool = False) -> None:
        """Write a key in the place of what was last read or written there, or where nothing was.

        Raises
        ------
        StoreInUseError
            If somebody else has written it since, and not these bytes. With ``once``, also if these are there.
        """
        if self.is_exclusive:
            self.set(key, data)
            return
        tag = self._seen.get(key)
        try:
            self._remember(key, self._commit(key, data, tag, once))
        except StorageError:  # it may be there all the same
            self._sent[key] = data
            raise
        self._sent.pop(key, None)

    def _commit(self, key: str, data: bytes, tag: str | None, once: bool) -> str | None:
        try:
            if tag is not None:
                return self.replace(key, data, tag, once)
            tag = self._keys_to_write.create(key, data)
            if tag is not None:
                return tag
            raise StoreInUseError(f"{self.name}: somebody else has written {key} in the meantime; open the store again")
        except StoreInUseError:
            there = self.get_with_tag(key) if key in self._sent else None
            if there is None or there[0] != self._sent[key]:
                raise
            return self.replace(key, data, there[1], once)

    def create_anew(self, key: str, data: bytes) -> None:
        """Write a key once that belongs to no committed state yet, as `write` does; it won't be replaced."""
        if self.is_exclusive or not self.create(key, data):
            self.overwrite(key, data)

    def write(self, key: str, data: bytes) -> None:
        """Write a key that belongs to no committed state, or follows from one, whatever others have left behind there.

        Raises
        ------
        StoreInUseError
            If it isn't left behind, but written by who has taken the lock over.
        """
        if self.is_exclusive:
            self.set(key, data)
            return
        tag = self._seen.pop(key, None)
        if tag is None:
            tag = self._keys_to_write.create(key, data)
        else:
            try:
                tag = self.replace(key, data, tag)
            except StoreInUseError:
                tag = None
        if tag is None:
            self.overwrite(key, data)
        else:
            self._remember(key, tag)

    def overwrite(self, key: str, data: bytes) -> None:
        """Write a key, as `write`, of which it is known that something is there."""
        if self.is_exclusive:
            self.set(key, data)
            return
        for _ in range(_ROUNDS):
            there = self.get_with_tag(key)
            if there is not None and there[0] == data:
                self._remember(key, there[1])
                return
            # after the tag was read: what another one commits from now on has another tag
            self.look()
            with suppress(StoreInUseError):
                tag = self._keys_to_write.create(key, data) if there is None else self.replace(key, data, there[1])
                if tag is not None:
                    self._remember(key, tag)
                    return
        raise StoreInUseError(f"{self.name}: somebody else goes on writing {key}; nothing of theirs was overwritten")

    def _remember(self, key: str, tag: str | None) -> None:
        if tag is None:
            self._seen.pop(key, None)
        else:
            self._seen[key] = tag

    # ---- whoever writes

    @property
    def _keys_to_write(self) -> Keys:
        keys = self._writable_keys
        if self._guard is not None:
            self._guard(self)
        return keys

    @property
    def _writable_keys(self) -> Keys:
        if self._read_only:
            raise ValueError(f"{self.name} was opened read-only")
        keys = self._keys
        if isinstance(keys, LocalKeys | ZarrKeys):
            return keys
        raise StorageError("can't be written: web servers and .zip files can only be read", place=self.name)

    def sync_folder(self) -> None:
        """See the name of the folder on disk, whoever made it; other places have none."""
        if self.local is not None:
            self.local.sync_folder()

    def delete(self, key: str) -> None:
        """Delete a key, if it is there."""
        self._seen.pop(key, None)
        self._keys_to_write.delete(key)

    def is_empty(self) -> bool:
        """Whether there is nothing at all at the location."""
        return (self._keys if self._read_only else self._writable_keys).is_empty()

    def list(self, prefix: str = "") -> list[str]:
        """List all keys below a prefix, in order."""
        return self._keys.list(prefix)

    def sweep(self) -> None:
        """Delete files that were begun, and never finished because their process died."""
        if self.folder is not None:
            for key in self.list():
                if key.endswith(PARTIAL_SUFFIX):
                    self.delete(key)


def _split(url: str) -> tuple[str, str]:
    """Cut a URL into that of a folder, and the name of a file in it."""
    web = urlsplit(url).scheme in ("http", "https")
    path, mark, query = url.partition("?") if web else (url, "", "")
    folder, _, name = path.rpartition("/")
    return folder + mark + query, unquote(name) if web else name
