"""One writer at a time.

In a folder, the operating system holds the lock, and lets go of it when its process ends, however it ends. Elsewhere
it is a key that is written only if it isn't there; one that was left behind is told by its process or by its age.
"""

from __future__ import annotations

import getpass
import json
import os
import secrets
import socket
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import filelock

from norbert_store._storage.folder import reason
from norbert_store._storage.storage import Storage
from norbert_store.errors import StorageError, StoreInUseError

LOCK_KEY = "writer.lock"

_RENEWAL_SECONDS = 60.0
_STALE_SECONDS = 3600.0

# keys of this process's locks that it has let go of, even if the server couldn't be told
_ended: set[str] = set()


class WriterLock:
    """The right to write to a store, from now on until it is released.

    Parameters
    ----------
    storage : Storage

    Raises
    ------
    StoreInUseError
        If somebody else has it; the message names them.
    """

    def __init__(self, storage: Storage) -> None:
        folder = storage.folder
        self._lock = _KeyLock(storage) if folder is None else _FileLock(folder, storage.name)

    def renew(self) -> None:
        """Show that the holder is alive, and see that nobody took it for dead; called before each commit.

        Raises
        ------
        StoreInUseError
            If somebody did.
        """
        self._lock.renew()

    def release(self) -> None:
        """Let the next one write."""
        self._lock.release()


class _FileLock:
    def __init__(self, folder: Path, name: str) -> None:
        self._path = folder / LOCK_KEY
        self._lock = filelock.FileLock(self._path, thread_local=False)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(blocking=False)
            self._path.write_text(json.dumps(_holder()))
        except filelock.Timeout:
            raise _in_use(name, self._read()) from None
        except OSError as error:
            if self._lock.is_locked:
                self.release()
            raise StorageError(f"{folder} can't be written: {reason(error)}") from error

    def _read(self) -> dict[str, Any]:
        try:
            return _parse(self._path.read_bytes())
        except OSError:
            return {}

    def renew(self) -> None:
        """Do nothing: the operating system knows who is alive."""

    def release(self) -> None:
        # first the file: who finds it gone makes a new one, who has it open sees that it is gone
        with suppress(OSError):
            self._path.unlink()
        self._lock.release()


class _KeyLock:
    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._holder = {**_holder(), "key": secrets.token_hex(8)}
        try:
            self._acquire()
        except BaseException:
            _ended.add(self._holder["key"])
            raise

    def _acquire(self) -> None:
        self._write_new()
        found = self._read()
        if not self._is_ours(found) and _is_stale(found):
            self._storage.delete(LOCK_KEY)
            self._write_new()
            found = self._read()
        if not self._is_ours(found):
            raise _in_use(self._storage.name, found)

    def _write_new(self) -> None:
        self._renewed = time.time()
        self._storage.set_new(LOCK_KEY, json.dumps({**self._holder, "renewed": self._renewed}).encode())

    def _read(self) -> dict[str, Any]:
        return _parse(self._storage.get(LOCK_KEY) or b"{}")

    def _is_ours(self, found: dict[str, Any]) -> bool:
        return found.get("key") == self._holder["key"]

    def renew(self) -> None:
        found = self._read()
        if not self._is_ours(found):
            raise _in_use(self._storage.name, found)
        if time.time() - self._renewed > _RENEWAL_SECONDS:
            self._renewed = time.time()
            self._storage.set(LOCK_KEY, json.dumps({**self._holder, "renewed": self._renewed}).encode())

    def release(self) -> None:
        _ended.add(self._holder["key"])
        if self._is_ours(self._read()):
            self._storage.delete(LOCK_KEY)


def _holder() -> dict[str, Any]:
    """Tell who this is."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # no name for this number
        user = "somebody"
    since = datetime.now(UTC).isoformat(timespec="seconds")
    return {"user": user, "host": socket.gethostname(), "process": os.getpid(), "since": since}


def _parse(data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _is_stale(found: dict[str, Any]) -> bool:
    """Whether a holder's process is gone, hasn't been heard of for an hour, or is this one and has let go of it."""
    if str(found.get("key")) in _ended:
        return True
    process, renewed = found.get("process"), found.get("renewed")
    if found.get("host") == socket.gethostname() and isinstance(process, int) and os.name != "nt":
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return True
        except (PermissionError, OverflowError):  # another user's; no number of a process
            pass
    return isinstance(renewed, int | float) and time.time() - renewed > _STALE_SECONDS


def _in_use(name: str, found: dict[str, Any]) -> StoreInUseError:
    who = "{user} on {host}, process {process}, since {since}".format(
        **{"user": "somebody", "host": "some machine", "process": "unknown", "since": "a while", **found}
    )
    return StoreInUseError(
        f"{name} is being written by {who}; wait until that has ended (if it has for sure, delete {LOCK_KEY} there)"
    )
