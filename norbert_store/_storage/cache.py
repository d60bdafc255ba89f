"""What was used last, remembered up to a number of bytes."""

from __future__ import annotations

from typing import Generic, TypeVar

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


class Recent(Generic[_Key, _Value]):
    """Remembers what was used last, up to a number of bytes.

    There is no lock in it, so that threads can share it and processes can fork; at worst it forgets too early. Pickled,
    it forgets all.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes // 2
        self._young: dict[_Key, tuple[_Value, int]] = {}
        self._old: dict[_Key, tuple[_Value, int]] = {}
        self._young_bytes = 0

    def __reduce__(self) -> tuple[type[Recent[_Key, _Value]], tuple[int]]:
        return type(self), (2 * self._most_bytes,)

    def get(self, key: _Key) -> _Value | None:
        """Return a value, or None if it isn't remembered (any more)."""
        found = self._young.get(key)
        if found is None:
            found = self._old.get(key)
            if found is None:
                return None
            self.put(key, *found)
        return found[0]

    def put(self, key: _Key, value: _Value, size: int) -> None:
        """Remember a value that takes up ``size`` bytes."""
        if self._young_bytes + size > self._most_bytes:
            self._old, self._young, self._young_bytes = self._young, {}, 0
        self._young[key] = value, size
        self._young_bytes += size

    def drop(self, key: _Key) -> None:
        """Forget a value."""
        self._old.pop(key, None)
        self._young.pop(key, None)
