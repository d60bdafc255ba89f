"""Keys in any other zarr store: object storage, the web, .zip, memory.

zarr's stores are asynchronous; here they are called from ordinary code, many ranges at a time, and what
fails in passing is tried again.
"""

from __future__ import annotations

import asyncio
import os
import pickle
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest, Store, SuffixByteRequest
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import FsspecStore, ObjectStore

from norbert_store._storage.keys import check_key, is_key
from norbert_store.errors import StorageError

ATTEMPTS = 5
_FIRST_WAIT_SECONDS = 0.1
_LONGEST_WAIT_SECONDS = 5.0
_READ_SECONDS = 15
_CONNECT_SECONDS = 5
_MOST_AT_A_TIME = 32
_LONGEST_REASON = 300

_S3FS_OPTIONS = {
    "key": "access_key_id",
    "secret": "secret_access_key",
    "token": "session_token",
    "endpoint_url": "endpoint",
}

# what trying again doesn't mend
_LASTING = (FileNotFoundError, FileExistsError, PermissionError, NotImplementedError, TypeError, ValueError)

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


def keep(store: Store) -> None:
    """Never let go of a store's connections, as long as this process and its forks live."""
    if isinstance(store, FsspecStore):
        _kept[os.getpid(), id(store.fs)] = store.fs


class ZarrKeys:
    """The keys of a zarr store.

    Parameters
    ----------
    store : zarr.abc.store.Store
    name : str
        The location, for errors.
    attempts : int
        How often an operation is tried that fails in passing.
    """

    def __init__(self, store: Store, name: str, attempts: int = 1) -> None:
        self._store = store
        self._name = name
        self._attempts = attempts

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes | None:
        """Read a key from ``start`` (from its end, if negative) on; None where there is no such key."""
        check_key(key)
        return self._run(f"{key} can't be read", self._get(key, _byte_request(start, length)))

    def get_ranges(self, ranges: Sequence[tuple[str, int, int]]) -> list[bytes | None]:
        """Read ranges (key, start, length), many at a time."""
        for key, _, _ in ranges:
            check_key(key)

        async def read() -> list[bytes | None]:
            free = asyncio.Semaphore(_MOST_AT_A_TIME)

            async def one(key: str, start: int, length: int) -> bytes | None:
                async with free:
                    return await _tried(self._get(key, _byte_request(start, length)), self._attempts)

            return await asyncio.gather(*(one(*place) for place in ranges))

        keys = ", ".join(sorted({key for key, _, _ in ranges}))
        return self._run(f"{keys} can't be read", read, attempts=1)

    def set(self, key: str, data: bytes) -> None:
        """Write a key whole."""
        check_key(key)
        buffer = default_buffer_prototype().buffer.from_bytes(data)
        self._run(f"{key} can't be written", lambda: self._store.set(key, buffer))

    def set_new(self, key: str, data: bytes) -> None:
        """Write a key, unless there is one: on object storage one request that the server decides on."""
        check_key(key)
        buffer = default_buffer_prototype().buffer.from_bytes(data)

        async def write() -> None:
            if not isinstance(self._store, FsspecStore):
                await self._store.set_if_not_exists(key, buffer)
                return
            try:  # zarr's own way through fsspec is to look, and then to write
                await self._store.fs._pipe_file(f"{self._store.path}/{key}", data, mode="create")
            except FileExistsError:
                return
            except (NotImplementedError, TypeError):  # not every file system knows how
                await self._store.set_if_not_exists(key, buffer)

        self._run(f"{key} can't be written", write)

    def delete(self, key: str) -> None:
        """Delete a key, if it is there."""
        check_key(key)

        async def delete() -> None:
            try:
                await self._store.delete(key)
            except FileNotFoundError:
                return

        self._run(f"{key} can't be deleted", delete)

    def size(self, key: str) -> int | None:
        """Count the bytes of a key; None where there is no such key."""
        check_key(key)

        async def size() -> int | None:
            try:
                return int(await self._store.getsize(key))
            except FileNotFoundError:
                return None

        return self._run(f"{key} can't be read", size)

    def list(self, prefix: str = "") -> list[str]:
        """List all keys below a prefix, in order; names that can't be keys aren't a store's."""
        if prefix:
            check_key(prefix)

        async def collect() -> list[str]:
            return [key async for key in self._store.list_prefix(prefix) if is_key(key)]

        return sorted(self._run(f"{prefix or 'all'} can't be listed", collect))

    def is_empty(self) -> bool:
        """Whether there is nothing at all."""
        return self._run("it can't be listed", lambda: self._store.is_empty(""))

    def _get(self, key: str, byte_range: ByteRequest | None) -> Callable[[], Awaitable[bytes | None]]:
        async def get() -> bytes | None:
            try:
                buffer = await self._store.get(key, default_buffer_prototype(), byte_range)
            except Exception as error:
                # obstore calls a range that begins past the end an error like any other
                if _is_about_range(error) and await self._begins_past_end(key, byte_range):
                    return b""
                raise
            return None if buffer is None else buffer.to_bytes()

        return get

    async def _begins_past_end(self, key: str, byte_range: ByteRequest | None) -> bool:
        try:
            size = await self._store.getsize(key)
        except Exception:  # the first error tells more
            return False
        return size <= getattr(byte_range, "start", getattr(byte_range, "offset", 0))

    def _run(self, failure: str, operation: Callable[[], Awaitable[_Result]], attempts: int | None = None) -> _Result:
        try:
            return sync(_tried(operation, attempts or self._attempts))
        except Exception as error:  # stores raise what their libraries happen to raise
            text = " ".join(str(error).split()) or type(error).__name__
            raise StorageError(f"{self._name}: {failure}: {text[:_LONGEST_REASON]}") from error


def open_url(url: str, read_only: bool) -> Store:
    """Open a store by its URL, through fsspec, so that nothing but `ZarrKeys` tries again."""
    if not url.startswith("s3://"):
        return FsspecStore.from_url(url, read_only=read_only)
    options = {
        "max_concurrency": 1,  # of the parts of one object; a whole object is one request then, not two
        "config_kwargs": {
            "retries": {"total_max_attempts": 1, "mode": "standard"},
            "read_timeout": _READ_SECONDS,
            "connect_timeout": _CONNECT_SECONDS,
        },
    }
    store = FsspecStore.from_url(url, storage_options=options, read_only=read_only)
    store.fs.retries = 1  # instances are shared by who asks for the same options: by stores of ours
    return store


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
    return any(word in str(error) for word in ("416", "non-partial"))


def _byte_request(start: int, length: int | None) -> Any:
    if start < 0:
        return SuffixByteRequest(-start)
    if length is None:
        return OffsetByteRequest(start) if start else None
    return RangeByteRequest(start, start + length)
