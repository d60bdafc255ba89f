"""Keys to bytes, on any zarr store: the one place where this library touches storage.

zarr's stores are asynchronous; here they are called from ordinary code.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import zarr
from zarr.abc.store import ByteRequest, RangeByteRequest, Store, SuffixByteRequest
from zarr.core.array_spec import ArrayConfig
from zarr.core.buffer import default_buffer_prototype
from zarr.core.metadata.v3 import ArrayV3Metadata
from zarr.core.sync import sync
from zarr.storage import FsspecStore, LocalStore, MemoryStore, StorePath, ZipStore

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
    def folder(self) -> Path | None:
        """The folder that the hierarchy lies in, if it is one on this machine."""
        if isinstance(self._location, LocalStore):
            return Path(self._location.root)
        if isinstance(self._location, Store) or "://" in str(self._location):
            return None
        return Path(self._location)

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
            store = _open_store(self._location, self._read_only)
            try:
                sync(store._ensure_open())  # the ZipStore of zarr 3.1 doesn't do so when it is first read
            except FileNotFoundError as error:
                raise StoreNotFoundError(f"there is no store at {self.name}") from error
            except BadZipFile as error:
                raise FormatError(f"{self.name} can't be read: {error}") from None
            self._store = store
            self._process = os.getpid()
        return self._store

    def get(self, key: str) -> bytes | None:
        """All bytes of a key; None where there is no such key."""
        return self._get(key, None)

    def get_range(self, key: str, start: int, length: int) -> bytes | None:
        """Bytes of a key from an offset on; fewer where it ends before."""
        return self._get(key, RangeByteRequest(start, start + length))

    def get_suffix(self, key: str, length: int) -> bytes | None:
        """Last bytes of a key; all of them where it is shorter."""
        return self._get(key, SuffixByteRequest(length))

    def _get(self, key: str, byte_range: ByteRequest | None) -> bytes | None:
        buffer = sync(self.store.get(key, default_buffer_prototype(), byte_range))
        return None if buffer is None else buffer.to_bytes()

    def size(self, key: str) -> int | None:
        """Count the bytes of a key; None where there is no such key."""
        try:
            return int(sync(self.store.getsize(key)))
        except FileNotFoundError:
            return None

    def set(self, key: str, data: bytes) -> None:
        """Write a key whole; readers see the old bytes or the new ones, nothing between."""
        sync(self.store.set(key, default_buffer_prototype().buffer.from_bytes(data)))

    def delete(self, key: str) -> None:
        """Delete a key, if it is there."""
        sync(self.store.delete(key))

    def is_empty(self) -> bool:
        """Whether there is nothing at all at the location."""
        folder = self.folder
        if folder is not None:
            return not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))
        return bool(sync(self.store.is_empty("")))

    def list(self, prefix: str = "") -> list[str]:
        """List all keys below a prefix, in order."""
        store = self.store

        async def collect() -> list[str]:
            return [key async for key in store.list_prefix(prefix)]

        return sorted(sync(collect()))

    def array(self, path: str, metadata: Mapping[str, Any]) -> zarr.Array[Any]:
        """Return a zarr array by its metadata, without reading or writing its document.

        Chunks that hold nothing but the fill value are written as well, so that one that isn't there is a lost one.
        """
        return _array(self.store, path, metadata)


def decode_array(metadata: Mapping[str, Any], chunks: Mapping[str, bytes]) -> zarr.Array[Any]:
    """Return a zarr array over chunks that were read already, by their keys below the array's path ("c/0/0")."""
    prototype = default_buffer_prototype()
    in_memory = MemoryStore({key: prototype.buffer.from_bytes(data) for key, data in chunks.items()})
    return _array(in_memory, "", metadata)


def _array(store: Store, path: str, metadata: Mapping[str, Any]) -> zarr.Array[Any]:
    parsed = ArrayV3Metadata.from_dict(dict(metadata))
    config = ArrayConfig.from_dict({"write_empty_chunks": True})
    return zarr.Array(zarr.AsyncArray(metadata=parsed, store_path=StorePath(store, path), config=config))


def _open_store(location: Location, read_only: bool) -> Store:
    if isinstance(location, Store):
        return location
    text = os.fspath(location)
    if "://" in text:
        return FsspecStore.from_url(text, read_only=read_only)
    if text.endswith(".zip"):
        if not read_only:
            raise ValueError(f"{text}: .zip files can only be read; write into a folder, and pack that")
        return ZipStore(text, mode="r", read_only=True)
    return LocalStore(text, read_only=read_only)
