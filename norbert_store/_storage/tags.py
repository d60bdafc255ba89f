"""Writing under a condition: that a key isn't there yet, or that nobody has written it since it was read.

What a key holds has a tag. S3 and what obstore knows compare it themselves, so that of two writers one is refused,
whenever their requests arrive. Elsewhere it is compared here, just before the write: that tells a writer that is late
by more than a moment.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from http import HTTPStatus
from typing import Any

from zarr.abc.store import RangeByteRequest, Store
from zarr.core.buffer import default_buffer_prototype
from zarr.storage import FsspecStore, ObjectStore

from norbert_store._storage.remote import LastingError

_OWN_TAG = "sha256:"


class RefusedError(LastingError):
    """A condition that didn't hold."""


class Tags(ABC):
    """Writes the keys of a store of zarr's under conditions.

    Parameters
    ----------
    store : zarr.abc.store.Store
    """

    def __init__(self, store: Any) -> None:
        self._store = store

    async def create(self, key: str, data: bytes) -> str:
        """Write a key that isn't there; return its tag.

        Raises
        ------
        RefusedError
            If it is.
        """
        try:
            return await self._write_new(key, data)
        except NotImplementedError:
            if await self.read(key, 0) is not None:
                raise RefusedError from None
            return await self._write(key, data, None)

    async def replace(self, key: str, data: bytes, tag: str) -> str:
        """Write a key that has a tag; return its new one.

        Raises
        ------
        RefusedError
            If it has another.
        """
        try:
            return await self._write(key, data, tag)
        except NotImplementedError:
            there = await self.read(key)
            if there is None or there[1] != tag:
                raise RefusedError from None
            return await self._write(key, data, None)

    @abstractmethod
    async def read(self, key: str, most: int | None = None) -> tuple[bytes, str] | None:
        """Read a key, and tell its tag; of what is more than ``most``, one byte more."""

    @abstractmethod
    async def _write_new(self, key: str, data: bytes) -> str:
        """As `create`, by the store; NotImplementedError if it can't."""

    @abstractmethod
    async def _write(self, key: str, data: bytes, tag: str | None) -> str:
        """As `replace`, by the store; NotImplementedError if it can't. Whatever is there, if there is no tag."""


class _ComparedTags(Tags):
    """Tags are digests of what is there."""

    async def read(self, key: str, most: int | None = None) -> tuple[bytes, str] | None:
        part = None if most is None else RangeByteRequest(0, most + 1)
        buffer = await self._store.get(key, default_buffer_prototype(), part)
        return None if buffer is None else (buffer.to_bytes(), _digest(buffer.to_bytes()))

    async def _write_new(self, key: str, data: bytes) -> str:
        if not isinstance(self._store, FsspecStore):
            await self._store.set_if_not_exists(key, default_buffer_prototype().buffer.from_bytes(data))
            there = await self.read(key, len(data))
            if there is None or there[0] != data:  # nobody tells whether it was
                raise RefusedError
            return _digest(data)
        try:
            await self._store.fs._pipe_file(f"{self._store.path}/{key}", data, mode="create")
        except FileExistsError:
            raise RefusedError from None
        except TypeError:  # not every file system knows how
            raise NotImplementedError from None
        return _digest(data)

    async def _write(self, key: str, data: bytes, tag: str | None) -> str:
        if tag is not None:
            raise NotImplementedError
        await self._store.set(key, default_buffer_prototype().buffer.from_bytes(data))
        return _digest(data)


class _ObstoreTags(Tags):
    """Tags are those of obstore."""

    async def read(self, key: str, most: int | None = None) -> tuple[bytes, str] | None:
        import obstore

        try:
            found = await obstore.get_async(self._store.store, key)
        except FileNotFoundError:
            return None
        if most is not None and found.meta["size"] > most:
            data = bytes(await obstore.get_range_async(self._store.store, key, start=0, end=most + 1))
        else:
            data = bytes(await found.bytes_async())
        return data, found.meta["e_tag"] or _own_tag(data)

    async def _write_new(self, key: str, data: bytes) -> str:
        import obstore

        try:
            found = await obstore.put_async(self._store.store, key, data, mode="create")
        except obstore.exceptions.AlreadyExistsError:
            raise RefusedError from None
        return found["e_tag"] or _own_tag(data)

    async def _write(self, key: str, data: bytes, tag: str | None) -> str:
        import obstore

        if tag is not None and tag.startswith(_OWN_TAG):
            raise NotImplementedError
        try:
            found = await obstore.put_async(
                self._store.store, key, data, mode="overwrite" if tag is None else {"e_tag": tag}
            )
        except obstore.exceptions.PreconditionError:
            raise RefusedError from None
        return found["e_tag"] or _own_tag(data)


class _S3Tags(Tags):
    """Tags are those of S3, by s3fs."""

    async def read(self, key: str, most: int | None = None) -> tuple[bytes, str] | None:
        try:
            found = await self._ask("get_object", key)
        except FileNotFoundError:
            return None
        # entered, a body is something else in each release of aiobotocore
        body = found["Body"]
        try:
            return await _read_body(body, most), found["ETag"]
        finally:
            body.close()

    async def _write_new(self, key: str, data: bytes) -> str:
        return await self._put(key, data, IfNoneMatch="*")

    async def _write(self, key: str, data: bytes, tag: str | None) -> str:
        return await self._put(key, data, **({} if tag is None else {"IfMatch": tag}))

    async def _put(self, key: str, data: bytes, **condition: str) -> str:
        try:
            found = await self._ask("put_object", key, Body=data, **condition)
        except FileNotFoundError:  # there is nothing to be replaced any more
            raise RefusedError from None
        except OSError as error:
            status = _status(error)
            if status == HTTPStatus.PRECONDITION_FAILED:
                raise RefusedError from None
            if status == HTTPStatus.NOT_IMPLEMENTED and condition:
                raise NotImplementedError from error
            raise
        self._store.fs.invalidate_cache(self._path(key))
        return str(found["ETag"])

    async def _ask(self, method: str, key: str, **options: Any) -> Any:
        system = self._store.fs
        bucket, inside, _ = system.split_path(self._path(key))
        await system.set_session()
        client = await system.get_s3(bucket)
        # s3fs leaves out what its client doesn't know
        known = system._get_s3_method_kwargs(getattr(client, method), **options)
        if set(options) - set(known):
            raise NotImplementedError
        return await system._call_s3(method, Bucket=bucket, Key=inside, **options)

    def _path(self, key: str) -> str:
        return f"{self._store.path}/{key}"


def tags_of(store: Store) -> Tags:
    """Return what writes a store's keys under conditions, by the store itself where it knows how."""
    if isinstance(store, ObjectStore):
        return _ObstoreTags(store)
    if isinstance(store, FsspecStore) and "s3" in store.fs.protocol:
        return _S3Tags(store)
    return _ComparedTags(store)


async def _read_body(body: Any, most: int | None) -> bytes:
    """Read a body; of what is more than ``most`` bytes, one byte more. A single call gives what has come so far."""
    if most is None:
        return await body.read()
    pieces: list[bytes] = []
    left = most + 1
    while left and (piece := await body.read(left)):
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)


def _own_tag(data: bytes) -> str:
    """Tell what is there, where a store has no tags."""
    return _OWN_TAG + _digest(data)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _status(error: BaseException) -> int | None:
    """What S3 answered."""
    answer = getattr(error.__cause__, "response", None) or {}
    return (answer.get("ResponseMetadata") or {}).get("HTTPStatusCode")
