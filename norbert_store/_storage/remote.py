"""Keys that are waited for: many are asked for at a time, and again after a transient error.

zarr's stores, and the libraries below them, are asynchronous; here they are called from ordinary code.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from zarr.core.sync import sync

from norbert_store._storage.keys import check_key, too_large
from norbert_store.errors import StorageError

_FIRST_WAIT_SECONDS = 0.1
_LONGEST_WAIT_SECONDS = 5.0
_MOST_AT_A_TIME = 32
_LONGEST_REASON = 300
_MOST_SHOWN = 4

_Result = TypeVar("_Result")


class LastingError(Exception):
    """What a place says that trying again doesn't mend."""


_LASTING = (
    LastingError,
    FileNotFoundError,
    FileExistsError,
    PermissionError,
    NotImplementedError,
    TypeError,
    ValueError,
)


class RemoteKeys(ABC):
    """Keys that are waited for: many are asked for at a time, and again after a transient error.

    Parameters
    ----------
    name : str
        The location, for errors.
    attempts : int
        How often an operation is tried that ends in a transient error.
    """

    def __init__(self, name: str, attempts: int) -> None:
        self.name = name
        self.attempts = attempts

    @abstractmethod
    async def _read(self, key: str, start: int, length: int | None, most: int | None) -> bytes | None:
        """Read a key from ``start`` on, once; of what is more than ``most``, one byte more."""

    def get(self, key: str, start: int = 0, length: int | None = None, most: int | None = None) -> bytes | None:
        """Read a key from ``start`` (from its end, if negative) on; None where there is no such key."""
        check_key(key)
        data = self.run(key, "can't be read", lambda: self._read(key, start, length, most))
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
                    return await _tried(lambda: self._read(key, start, length, most), self.attempts)

            return await asyncio.gather(*(one(*part) for part in wanted))

        keys = sorted({key for key, *_ in wanted})
        shown = ", ".join(keys) if len(keys) <= _MOST_SHOWN else f"{keys[0]} and {len(keys) - 1} others"
        return self.run(shown, "can't be read", read, attempts=1)

    def _bounded(self, key: str, data: bytes | None, most: int | None) -> bytes | None:
        if data is not None and most is not None and len(data) > most:
            raise too_large(self.name, key, most)
        return data

    def run(
        self, key: str, failure: str, operation: Callable[[], Awaitable[_Result]], attempts: int | None = None
    ) -> _Result:
        """Wait for an operation of a key, which is tried again as often as is meant.

        Raises
        ------
        StorageError
            If it fails.
        """
        try:
            return sync(_tried(operation, attempts or self.attempts))
        except Exception as error:  # stores raise what their libraries happen to raise
            text = " ".join(str(error).split()) or type(error).__name__
            place = f"{self.name}: {key}" if key else self.name
            raise StorageError(f"{failure}: {text[:_LONGEST_REASON]}", place=place) from error

    @abstractmethod
    def list(self, prefix: str = "") -> list[str]:
        """List all keys below a prefix, in order; names that can't be keys aren't a store's."""


async def _tried(operation: Callable[[], Awaitable[_Result]], attempts: int) -> _Result:
    """Call an operation until it ends without a transient error."""
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
