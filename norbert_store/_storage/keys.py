"""Keys: the names of a store's files, relative to the store, and the check that none of them leads out of it.

A store may come from a stranger, and many keys follow from what it says of itself. So every key is checked here, on the
lowest floor, however it came about.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Protocol

from norbert_store.errors import DamagedError, FormatError

METADATA_FILE = "zarr.json"
"""Name of the file in which zarr keeps the metadata of a group or an array."""

# what object storage and file systems take
_MOST_KEY_BYTES = 1024
_MOST_PART_BYTES = 255
_LONGEST_SHOWN = 100

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_DRIVE = re.compile(r"[A-Za-z]:")


class Readable(Protocol):
    """What lies at a place, to be read by key; every method checks the keys that it is given.

    All of them raise `FormatError` for what is no key, `DamagedError` for what can't be the file of a store, and
    `StorageError` if the place fails.
    """

    def get(self, key: str, start: int = 0, length: int | None = None, most: int | None = None) -> bytes | None:
        """Read a key from ``start`` (from its end, if negative) on; None where there is no such key.

        Raises
        ------
        DamagedError
            If ``length`` is left out, and there are more than ``most`` bytes; no more memory than that is taken.
        """

    def get_many(self, keys: Sequence[str], most: int) -> list[bytes | None]:
        """Read keys whole, many at a time, as `get` does."""

    def get_ranges(self, ranges: Sequence[tuple[str, int, int]]) -> list[bytes | None]:
        """Read ranges (key, start, length), many at a time."""

    def size(self, key: str) -> int | None:
        """Count the bytes of a key; None where there is no such key."""

    def list(self, prefix: str = "") -> list[str]:
        """List all keys below a prefix, in order; names that can't be keys aren't a store's."""

    def is_empty(self) -> bool:
        """Whether there is nothing at all."""


class Keys(Readable, Protocol):
    """What lies at a place that can be written."""

    def set(self, key: str, data: bytes) -> None:
        """Write a key whole."""

    def get_with_tag(self, key: str, most: int | None = None) -> tuple[bytes, str | None] | None:
        """Read a key whole, and tell its tag; None where there is no such key."""

    def create(self, key: str, data: bytes) -> str | None:
        """Write a key, unless there is one; return its tag if it holds these bytes now, else None."""

    def replace(self, key: str, data: bytes, tag: str | None, once: bool = False) -> str | None:
        """Write a key that nobody has written since it was read with its tag; return its new one.

        If ``once``, these bytes in its place aren't taken for one's own.

        Raises
        ------
        StoreInUseError
            If somebody has.
        """

    def delete(self, key: str) -> None:
        """Delete a key, if it is there."""


def too_large(store: str, key: str, most: int, found: int | None = None) -> DamagedError:
    """Say that there is more at a key than a store's file of its kind can have."""
    size = f"more than {most}" if found is None else str(found)
    return DamagedError(f"the file has {size} bytes; expected at most {most}", key=key, store=store)


@lru_cache(2**14)
def check_key(key: str) -> str:
    """Return a key, if it names something below the folder of a store, on every system.

    Raises
    ------
    FormatError
        If it is absolute, has parts that are empty or lead upwards, or is nothing that a file can be named.
    """
    problem = _problem(key)
    if problem:
        raise FormatError(
            f"{_shown(key)} can't be the key of a file in a store: {problem}; expected names divided by '/', which "
            "lead to nothing outside of the store"
        )
    return key


def is_key(name: str) -> bool:
    """Whether a name that was found in a folder or an archive could be a key."""
    return _problem(name) is None


def _problem(key: str) -> str | None:
    """Say why a text is no key; None if it is one."""
    try:
        encoded = key.encode()
    except UnicodeEncodeError:
        return "it isn't Unicode"
    if len(encoded) > _MOST_KEY_BYTES:
        return f"it has {len(encoded)} bytes, of at most {_MOST_KEY_BYTES}"
    if _CONTROL.search(key):
        return "it holds a control character"
    if "\\" in key:
        return "it holds a backslash"
    if key.startswith("/") or _DRIVE.match(key):
        return "it is absolute"
    parts = key.split("/")
    if "" in parts:
        return "one of its parts is empty"
    if "." in parts or ".." in parts:
        return "one of its parts is '.' or '..'"
    if max(len(part.encode()) for part in parts) > _MOST_PART_BYTES:
        return f"one of its parts has more than {_MOST_PART_BYTES} bytes"
    return None


def _shown(key: str) -> str:
    return repr(key) if len(key) <= _LONGEST_SHOWN else f"{key[:_LONGEST_SHOWN]!r}..."
