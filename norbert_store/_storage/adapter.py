"""A place as a store of zarr's, to read only, so that zarr reads by the same rules as everything else here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable

from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest, Store, SuffixByteRequest
from zarr.core.buffer import Buffer, BufferPrototype

from norbert_store._storage.keys import Readable


class KeysStore(Store):
    """The keys of a place.

    Parameters
    ----------
    keys : Readable
    """

    supports_writes = False
    supports_deletes = False
    supports_listing = True

    def __init__(self, keys: Readable) -> None:
        super().__init__(read_only=True)
        self._keys = keys

    def __eq__(self, other: object) -> bool:
        return isinstance(other, KeysStore) and self._keys is other._keys

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """Read a key or a part of it."""
        data = await asyncio.to_thread(self._keys.get, key, *_start_and_length(byte_range))
        return None if data is None else prototype.buffer.from_bytes(data)

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """Read parts of keys."""
        return list(await asyncio.gather(*(self.get(key, prototype, part) for key, part in key_ranges)))

    async def exists(self, key: str) -> bool:
        """Whether there is such a key."""
        return await asyncio.to_thread(self._keys.size, key) is not None

    async def set(self, key: str, value: Buffer) -> None:
        """Refuse to."""
        self._check_writable()

    async def delete(self, key: str) -> None:
        """Refuse to."""
        self._check_writable()

    async def list(self) -> AsyncIterator[str]:
        """List all keys."""
        for key in await asyncio.to_thread(self._keys.list):
            yield key

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """List keys that begin so."""
        async for key in self.list():
            if key.startswith(prefix):
                yield key

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """List names directly below a folder."""
        folder = f"{prefix.rstrip('/')}/".lstrip("/")
        names = {key.removeprefix(folder).split("/")[0] async for key in self.list_prefix(folder)}
        for name in sorted(names):
            yield name


def _start_and_length(part: ByteRequest | None) -> tuple[int, int | None]:
    match part:
        case RangeByteRequest(start, end):
            return start, end - start
        case OffsetByteRequest(offset):
            return offset, None
        case SuffixByteRequest(suffix):
            return -suffix, None
    return 0, None
