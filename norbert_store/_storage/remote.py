"""Keys in any other zarr store: object storage, the web, .zip, memory.

zarr's stores are asynchronous; here they are called from ordinary code, many ranges at a time, and what
fails in passing is tried again.
"""

from __future__ import annotations

import asyncio
import os
import pickle
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit, urlunsplit

from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest, Store, SuffixByteRequest
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import FsspecStore, ObjectStore

from norbert_store._storage.keys import check_key, is_key, too_large
from norbert_store._storage.tags import RefusedError, tags_of
from norbert_store.errors import StorageError, StoreInUseError

ATTEMPTS = 5
_FIRST_WAIT_SECONDS = 0.1
_LONGEST_WAIT_SECONDS = 5.0
_READ_SECONDS = 15
_CONNECT_SECONDS = 5
_MOST_AT_A_TIME = 32
_LONGEST_REASON = 300

# what URLs of a scheme need, beyond what every installation has
_NEEDED = {
    "http": "http:// needs fsspec and aiohttp: pip install 'norbert_store[http]'",
    "https": "https:// needs fsspec and aiohttp: pip install 'norbert_store[http]'",
    "s3": "s3:// needs s3fs: pip install 'norbert_store[s3]'",
}

_S3FS_OPTIONS = {
    "key": "access_key_id",
    "secret": "secret_access_key",
    "token": "session_token",
    "endpoint_url": "endpoint",
}


class LastingError(Exception):
    """What a place says that trying again doesn't mend."""


_LASTING = (
    LastingError,
    RefusedError,
    FileNotFoundError,
    FileExistsError,
    PermissionError,
    NotImplementedError,
    TypeError,
    ValueError,
)

_Result = TypeVar("_Result")

# A forked child that collected an inherited session would cut its parent's connections: they share the kernel's list.
_kept: dict[tuple[int, int], Any] = {}

_forked = False


def _note_fork() -> None:
    global _forked
    _forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_note_fork)


def is_forked() -> bool:
    """Whether this process is the fork of another, whose connections and threads don't work here."""
    return _forked


def keep(system: Any) -> None:
    """Never let go of the connections of one of fsspec's file systems, as long as this process and its forks live."""
    _kept[os.getpid(), id(system)] = system


class RemoteKeys(ABC):
    """Keys that are waited for: many are asked for at a time, and once more what fails in passing.

    Parameters
    ----------
    name : str
        The location, for errors.
    attempts : int
        How often an operation is tried that fails in passing.
    """

    def __init__(self, name: str, attempts: int) -> None:
        self._name = name
        self._attempts = attempts

    @abstractmethod
    async def _read(self, key: str, start: int, length: int | None, most: int | None) -> bytes | None:
        """Read a key from ``start`` on, once; of what is more than ``most``, one byte more."""

    def get(self, key: str, start: int = 0, length: int | None = None, most: int | None = None) -> bytes | None:
        """Read a key from ``start`` (from its end, if negative) on; None where there is no such key."""
        check_key(key)
        data = self._run(f"{key} can't be read", lambda: self._read(key, start, length, most))
        return self._bounded(key, data, most if length is None else None)

    def get_many(self, keys: Sequence[str], most: int) -> list[bytes | None]:
        """Read keys whole, many at a time."""
        found = self._read_all([(key, 0, None, most) for key in keys])
        return [self._bounded(key, data, most) for key, data in zip(keys, found, strict=True)]

    def get_ranges(self, ranges: Sequence[tuple[str, int, int]]) -> list[bytes | None]:
        """Read ranges (key, start, length), many at a time."""
        return self._read_all([(*part, None) for part in ranges])

    @abstractmethod
    def size(self, key: str) -> int | None:
        """Count the bytes of a key; None where there is no such key."""

    @abstractmethod
    def is_empty(self) -> bool:
        """Whether there is nothing at all."""

    def _read_all(self, wanted: Sequence[tuple[str, int, int | None, int | None]]) -> list[bytes | None]:
        for key, *_ in wanted:
            check_key(key)

        async def read() -> list[bytes | None]:
            free = asyncio.Semaphore(_MOST_AT_A_TIME)

            async def one(key: str, start: int, length: int | None, most: int | None) -> bytes | None:
                async with free:
                    return await _tried(lambda: self._read(key, start, length, most), self._attempts)

            return await asyncio.gather(*(one(*part) for part in wanted))

        keys = ", ".join(sorted({key for key, *_ in wanted}))
        return self._run(f"{keys} can't be read", read, attempts=1)

    def _bounded(self, key: str, data: bytes | None, most: int | None) -> bytes | None:
        if data is not None and most is not None and len(data) > most:
            raise too_large(f"{self._name}: {key}", most)
        return data

    def _run(self, failure: str, operation: Callable[[], Awaitable[_Result]], attempts: int | None = None) -> _Result:
        try:
            return sync(_tried(operation, attempts or self._attempts))
        except Exception as error:  # stores raise what their libraries happen to raise
            text = " ".join(str(error).split()) or type(error).__name__
            raise StorageError(f"{self._name}: {failure}: {text[:_LONGEST_REASON]}") from error

    @abstractmethod
    def list(self, prefix: str = "") -> list[str]:
        """List all keys below a prefix, in order; names that can't be keys aren't a store's."""


class ZarrKeys(RemoteKeys):
    """The keys of a zarr store, or of what lies at a path in it.

    Parameters
    ----------
    store : zarr.abc.store.Store
    name : str
        The location, for errors.
    attempts : int
        How often an operation is tried that fails in passing.
    path : str
        Without "/" at its ends.
    """

    def __init__(self, store: Store, name: str, attempts: int = 1, path: str = "") -> None:
        super().__init__(name, attempts)
        self._store = store
        self._before = f"{path}/" if path else ""
        self._tags = tags_of(store)

    async def _read(self, key: str, start: int, length: int | None, most: int | None) -> bytes | None:
        length = length if most is None or length is not None else most + 1
        request = _byte_request(start, length)
        try:
            buffer = await self._store.get(self._before + key, default_buffer_prototype(), request)
        except Exception as error:
            # obstore calls a range that begins past the end an error like any other
            if _is_about_range(error) and await self._begins_past_end(key, request):
                return b""
            raise
        return None if buffer is None else buffer.to_bytes()

    async def _begins_past_end(self, key: str, request: ByteRequest | None) -> bool:
        try:
            size = await self._store.getsize(self._before + key)
        except Exception:  # the first error tells more
            return False
        return size <= getattr(request, "start", getattr(request, "offset", 0))

    def set(self, key: str, data: bytes) -> None:
        """Write a key whole."""
        check_key(key)
        buffer = default_buffer_prototype().buffer.from_bytes(data)
        self._run(f"{key} can't be written", lambda: self._store.set(self._before + key, buffer))

    def get_with_tag(self, key: str, most: int | None = None) -> tuple[bytes, str] | None:
        """Read a key whole, and tell its tag; None where there is no such key."""
        check_key(key)
        found = self._run(f"{key} can't be read", lambda: self._tags.read(self._before + key, most))
        self._bounded(key, None if found is None else found[0], most)
        return found

    def create(self, key: str, data: bytes) -> bool:
        """Write a key, unless there is one; tell whether it holds these bytes now."""
        check_key(key)

        async def create() -> bool:
            try:
                await self._tags.create(self._before + key, data)
            except RefusedError:
                # perhaps by this one itself, whose answer was lost
                return await self._read(key, 0, None, len(data)) == data
            return True

        return self._run(f"{key} can't be written", create)

    def replace(self, key: str, data: bytes, tag: str | None) -> str:
        """Write a key that nobody has written since it was read with its tag; return its new one."""
        check_key(key)
        if tag is None:
            raise ValueError(f"{key} was read without a tag; read it by get_with_tag")

        async def replace() -> str | None:
            try:
                return await self._tags.replace(self._before + key, data, tag)
            except RefusedError:
                there = await self._tags.read(self._before + key, len(data))
                return there[1] if there is not None and there[0] == data else None

        found = self._run(f"{key} can't be written", replace)
        if found is None:
            raise StoreInUseError(
                f"{self._name}: somebody else has written {key} since it was read here; nothing of theirs was "
                "overwritten. Open the store again, and see what is missing"
            )
        return found

    def delete(self, key: str) -> None:
        """Delete a key, if it is there."""
        check_key(key)

        async def delete() -> None:
            try:
                await self._store.delete(self._before + key)
            except FileNotFoundError:
                return

        self._run(f"{key} can't be deleted", delete)

    def size(self, key: str) -> int | None:
        """Count the bytes of a key; None where there is no such key."""
        check_key(key)

        async def size() -> int | None:
            try:
                return int(await self._store.getsize(self._before + key))
            except FileNotFoundError:
                return None

        return self._run(f"{key} can't be read", size)

    def list(self, prefix: str = "") -> list[str]:
        """List all keys below a prefix, in order; names that can't be keys aren't a store's."""
        if prefix:
            check_key(prefix)

        async def collect() -> list[str]:
            found = self._store.list_prefix(self._before + prefix)
            return [key.removeprefix(self._before) async for key in found]

        return sorted(filter(is_key, self._run(f"{prefix or 'all'} can't be listed", collect)))

    def is_empty(self) -> bool:
        """Whether there is nothing at all."""
        return self._run("it can't be listed", lambda: self._store.is_empty(self._before.rstrip("/")))


def keys_in_store(store: Store, name: str, path: str = "") -> RemoteKeys:
    """Give the keys of a ready store of zarr's, which tries again as it was told to."""
    if isinstance(store, FsspecStore):
        keep(store.fs)
        if "https" in store.fs.protocol:
            from norbert_store._storage.web import WebKeys

            return WebKeys(_below(store.path, path), name, 1, store.fs)
    return ZarrKeys(store, name, 1, path)


def keys_at_url(url: str, name: str, read_only: bool, options: Mapping[str, Any]) -> RemoteKeys:
    """Give the keys at a URL, through fsspec.

    Raises
    ------
    StorageError
        If a package is missing.
    ValueError
        If nobody knows the URL's scheme.
    """
    scheme = url.partition("://")[0].lower()
    try:
        if scheme in ("http", "https"):
            from norbert_store._storage.web import WebKeys, web_system

            system = web_system(options)
            keep(system)
            return WebKeys(url, name, ATTEMPTS, system)
        store = _open_s3(url, read_only, options) if scheme == "s3" else _open_by_fsspec(url, read_only, options)
    except ImportError as error:
        raise StorageError(f"{name} can't be opened: {_NEEDED.get(scheme, error)}") from error
    except ValueError as error:
        raise ValueError(
            f"{name} is no place that can be opened: {error}; expected a path, or a URL that fsspec knows, such as one "
            "that begins with https:// or s3://"
        ) from error
    keep(store.fs)
    return ZarrKeys(store, name, ATTEMPTS)


def _open_by_fsspec(url: str, read_only: bool, options: Mapping[str, Any]) -> FsspecStore:
    return FsspecStore.from_url(url, storage_options=dict(options), read_only=read_only)


def _open_s3(url: str, read_only: bool, options: Mapping[str, Any]) -> FsspecStore:
    """Open a place on S3 so that nothing but `ZarrKeys` tries again."""
    ours = {
        "max_concurrency": 1,  # of the parts of one object; a whole object is one request then, not two
        "config_kwargs": {
            "retries": {"total_max_attempts": 1, "mode": "standard"},
            "read_timeout": _READ_SECONDS,
            "connect_timeout": _CONNECT_SECONDS,
        },
    }
    store = _open_by_fsspec(url, read_only, {**ours, **options})
    store.fs.retries = 1  # instances are shared by who asks for the same options: by stores of ours
    return store


def _below(url: str, path: str) -> str:
    """Put a path behind that of a URL, before its query."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/{quote(path)}" if path else parts.path))


def reopened(store: Store, name: str) -> Store:
    """Return a store that works in this process, after a fork; connections and threads are the parent's.

    Raises
    ------
    StorageError
        If there is no way.
    """
    if not isinstance(store, ObjectStore):
        return pickle.loads(pickle.dumps(store))
    # obstore's threads are gone, and whatever one asks of it hangs
    config = getattr(store.store, "config", {})
    if "bucket" not in config:
        raise StorageError(f"{name}: obstore doesn't work after a fork; start processes by spawn or forkserver")
    options = {ours: config[theirs] for ours, theirs in _S3FS_OPTIONS.items() if theirs in config}
    if "region" in config:
        options["client_kwargs"] = {"region_name": config["region"]}
    if str(config.get("skip_signature", "")).lower() == "true":
        options["anon"] = True
    url = f"s3://{config['bucket']}/{getattr(store.store, 'prefix', None) or ''}"
    return FsspecStore.from_url(url, storage_options=options, read_only=store.read_only)


async def _tried(operation: Callable[[], Awaitable[_Result]], attempts: int) -> _Result:
    """Call an operation until it doesn't fail in passing."""
    try:
        return await operation()
    except _LASTING:
        raise
    except Exception:
        if attempts == 1:
            raise
    import tenacity  # only where something failed

    async def again() -> _Result:
        return await operation()

    await asyncio.sleep(_FIRST_WAIT_SECONDS)
    retrying = tenacity.AsyncRetrying(
        stop=tenacity.stop_after_attempt(attempts - 1),
        wait=tenacity.wait_exponential(2 * _FIRST_WAIT_SECONDS, _LONGEST_WAIT_SECONDS) + tenacity.wait_random(0, 0.1),
        retry=tenacity.retry_if_not_exception_type(_LASTING),
        reraise=True,
    )
    return await retrying(again)


def _is_about_range(error: Exception) -> bool:
    return any(word in str(error) for word in ("416", "non-partial", "Invalid range", "InvalidRange"))


def _byte_request(start: int, length: int | None) -> Any:
    if start < 0:
        return SuffixByteRequest(-start)
    if length is None:
        return OffsetByteRequest(start) if start else None
    return RangeByteRequest(start, start + length)
