"""Keys in a session of icechunk: a transaction, which knows groups, arrays and their chunks, and no other files."""

from __future__ import annotations

from zarr.abc.store import RangeByteRequest
from zarr.core.buffer import default_buffer_prototype

from norbert_store._storage.keys import METADATA_FILE, check_key, is_key
from norbert_store._storage.zarr_keys import ZarrKeys


class SessionKeys(ZarrKeys):
    """The keys of a session; see `ZarrKeys` for its parameters."""

    async def _read(self, key: str, start: int, length: int | None, most: int | None) -> bytes | None:
        size = await self._size(key)
        if size is None:
            return None
        begin = max(0, size + start) if start < 0 else min(start, size)
        if length is None and most is not None:
            length = most + 1
        end = size if length is None else min(begin + length, size)
        if begin == end:
            return b""
        # it refuses ranges that end beyond a chunk, and knows none of documents
        part = None if key.rpartition("/")[2] == METADATA_FILE else RangeByteRequest(begin, end)
        buffer = await self.store.get(self.before + key, default_buffer_prototype(), part)
        if buffer is None:
            return None
        return buffer.to_bytes() if part is not None else buffer.to_bytes()[begin:end]

    async def _size(self, key: str) -> int | None:
        # of a chunk that isn't there, it says that it has no bytes
        return await self.store.getsize(self.before + key) if await self.store.exists(self.before + key) else None

    def get_with_tag(self, key: str, most: int | None = None) -> tuple[bytes, str] | None:
        """Read a key whole; it needs no tag: nobody else writes in a session."""
        data = self.get(key, most=most)
        return None if data is None else (data, "")

    def create(self, key: str, data: bytes) -> str | None:
        """Write a key, unless there is one; return no tag if it holds these bytes now, else None."""
        there = self.get(key)
        if there is None:
            self.set(key, data)
        return "" if there in (None, data) else None

    def replace(self, key: str, data: bytes, tag: str | None, once: bool = False) -> str:
        """Write a key."""
        self.set(key, data)
        return ""

    def size(self, key: str) -> int | None:
        """Count the bytes of a key; None where there is no such key."""
        check_key(key)
        return self.run(key, "can't be read", lambda: self._size(key))

    def list(self, prefix: str = "") -> list[str]:
        """List all keys below a prefix, in order; names that can't be keys aren't a store's."""
        if prefix:
            check_key(prefix)

        async def collect() -> list[str]:
            # it lists what is below groups and arrays, not below parts of a chunk's key
            return [key.removeprefix(self.before) async for key in self.store.list_prefix(self.before)]

        keys = self.run(prefix, "can't be listed", collect)
        return sorted(key for key in keys if is_key(key) and key.startswith(prefix))
