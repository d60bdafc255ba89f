"""Keys in a store of zarr's: object storage, memory, and whatever else zarr can open."""

from __future__ import annotations

from typing import Any

from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest, Store, SuffixByteRequest
from zarr.core.buffer import default_buffer_prototype

from norbert_store._storage.keys import check_key, is_key, too_large
from norbert_store._storage.remote import RemoteKeys
from norbert_store._storage.tags import RefusedError, tags_of
from norbert_store.errors import StoreInUseError


class ZarrKeys(RemoteKeys):
    """The keys of a zarr store, or of what lies at a path in it.

    Parameters
    ----------
    store : zarr.abc.store.Store
    name : str
        The location, for errors.
    attempts : int
        How often an operation is tried that ends in a transient error.
    path : str
        Without "/" at its ends.
    """

    def __init__(self, store: Store, name: str, attempts: int = 1, path: str = "") -> None:
        super().__init__(name, attempts)
        self.store = store
        self.before = f"{path}/" if path else ""
        self._tags = tags_of(store)

    async def _read(self, key: str, start: int, length: int | None, most: int | None) -> bytes | None:
        length = length if most is None or length is not None else most + 1
        request = _byte_request(start, length)
        try:
            buffer = await self.store.get(self.before + key, default_buffer_prototype(), request)
        except Exception as error:
            # obstore calls a range that begins past the end an error like any other
            if _is_about_range(error) and await self._begins_past_end(key, request):
                return b""
            raise
        return None if buffer is None else buffer.to_bytes()

    async def _begins_past_end(self, key: str, request: ByteRequest | None) -> bool:
        try:
            size = await self.store.getsize(self.before + key)
        except Exception:  # the first error tells more
            return False
        return size <= getattr(request, "start", getattr(request, "offset", 0))

    def set(self, key: str, data: bytes) -> None:
        """Write a key whole."""
        check_key(key)
        buffer = default_buffer_prototype().buffer.from_bytes(data)
        self.run(key, "can't be written", lambda: self.store.set(self.before + key, buffer))

    def get_with_tag(self, key: str, most: int | None = None) -> tuple[bytes, str] | None:
        """Read a key whole, and tell its tag; None where there is no such key."""
        check_key(key)
        found = self.run(key, "can't be read", lambda: self._tags.read(self.before + key, most))
        if found is not None and most is not None and len(found[0]) > most:
            raise too_large(self.name, key, most)
        return found

    def create(self, key: str, data: bytes) -> str | None:
        """Write a key, unless there is one; return its tag if it holds these bytes now, else None."""
        check_key(key)

        async def create() -> str | None:
            try:
                return await self._tags.create(self.before + key, data)
            except RefusedError:
                return await self._tag_of(key, data)  # perhaps written by this one itself, whose answer was lost

        return self.run(key, "can't be written", create)

    async def _tag_of(self, key: str, data: bytes) -> str | None:
        """Read the tag of a key, if it holds these bytes."""
        there = await self._tags.read(self.before + key, len(data))
        return there[1] if there is not None and there[0] == data else None

    def replace(self, key: str, data: bytes, tag: str | None, once: bool = False) -> str:
        """Write a key that nobody has written since it was read with its tag; return its new one."""
        check_key(key)
        if tag is None:
            raise ValueError(f"{key} was read without a tag; read it by get_with_tag")

        async def replace() -> str | None:
            try:
                return await self._tags.replace(self.before + key, data, tag)
            except RefusedError:
                return None if once else await self._tag_of(key, data)

        found = self.run(key, "can't be written", replace)
        if found is None:
            raise StoreInUseError(
                f"{self.name}: somebody else has written {key} since it was read here; nothing of theirs was "
                "overwritten. Open the store again, and see what is missing"
            )
        return found

    def delete(self, key: str) -> None:
        """Delete a key, if it is there."""
        check_key(key)

        async def delete() -> None:
            try:
                await self.store.delete(self.before + key)
            except FileNotFoundError:
                return

        self.run(key, "can't be deleted", delete)

    def size(self, key: str) -> int | None:
        """Count the bytes of a key; None where there is no such key."""
        check_key(key)

        async def size() -> int | None:
            try:
                return int(await self.store.getsize(self.before + key))
            except FileNotFoundError:
                return None

        return self.run(key, "can't be read", size)

    def list(self, prefix: str = "") -> list[str]:
        """List all keys below a prefix, in order; names that can't be keys aren't a store's."""
        if prefix:
            check_key(prefix)

        async def collect() -> list[str]:
            found = self.store.list_prefix(self.before + prefix)
            return [key.removeprefix(self.before) async for key in found]

        return sorted(filter(is_key, self.run(prefix, "can't be listed", collect)))

    def is_empty(self) -> bool:
        """Whether there is nothing at all."""
        return self.run("", "can't be listed", lambda: self.store.is_empty(self.before.rstrip("/")))


def _is_about_range(error: Exception) -> bool:
    return any(word in str(error) for word in ("416", "non-partial", "Invalid range", "InvalidRange"))


def _byte_request(start: int, length: int | None) -> Any:
    if start < 0:
        return SuffixByteRequest(-start)
    if length is None:
        return OffsetByteRequest(start) if start else None
    return RangeByteRequest(start, start + length)
