"""One writer at a time.

In a folder, the operating system holds the lock, and lets go of it when its process ends, however it ends. Elsewhere
it is a key that is created if it isn't there, and renewed by a thread as long as its holder lives, whatever else that
does. Who finds one that wasn't renewed for an hour, or whose process is gone, takes it over.

A holder may be alive all the same: asleep, stopped, or cut off. So it looks at the lock before it writes, unless it has
done so a moment ago, and writes nothing any more once the lock is another's. What it writes in that moment is refused
by the keys themselves, if it is written by `Storage.create` and `Storage.replace`.
"""

from __future__ import annotations

import getpass
import json
import os
import secrets
import socket
import stat
import threading
import time
import uuid
import weakref
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import filelock

from norbert_store._storage.folder import LocalKeys, make_folder, reason
from norbert_store._storage.storage import Storage
from norbert_store.errors import StorageError, StoreInUseError

LOCK_KEY = "writer.lock"

_MOST_BYTES = 2**16
_MOST_SHOWN = 60
_ROUNDS = 3

# keys of this process's locks that it has let go of, even if the server couldn't be told
_ended: set[str] = set()


class WriterLock:
    """The right to write to a store, from now on until it is released.

    As long as it is held, what is written and deleted through the storage, or a copy of it in another process, looks at
    the lock first.

    Parameters
    ----------
    storage : Storage
    renew_seconds : float
        How often a key shows that its holder is alive.
    look_seconds : float
        How long a look at the key holds good.
    stale_seconds : float
        How old a key may be before its holder is taken for dead.

    Raises
    ------
    StoreInUseError
        If somebody else has it; the message names them.
    """

    def __init__(
        self,
        storage: Storage,
        renew_seconds: float = 60.0,
        look_seconds: float = 30.0,
        stale_seconds: float = 3600.0,
    ) -> None:
        self._lock: _FileLock | _KeyLock | _NoLock
        if storage.is_session:
            self._lock = _NoLock()
        elif storage.local is not None:
            self._lock = _FileLock(storage.local, storage.name)
        else:
            self._lock = _KeyLock(storage, renew_seconds, look_seconds, stale_seconds)

    def renew(self) -> None:
        """See that nobody took the holder for dead; called before each commit.

        Raises
        ------
        StoreInUseError
            If somebody did.
        """
        self._lock.renew()

    def release(self) -> None:
        """Let the next one write."""
        self._lock.release()


class _NoLock:
    """A session is its writer's alone; of two, the one that is committed later is refused."""

    def renew(self) -> None:
        """Do nothing."""

    def release(self) -> None:
        """Do nothing."""


class _FileLock:
    def __init__(self, keys: LocalKeys, name: str) -> None:
        folder = keys.folder
        self._path = folder / LOCK_KEY
        self._lock = filelock.FileLock(self._path, thread_local=False)
        try:
            make_folder(folder)
            _check_regular(self._path)
            self._lock.acquire(blocking=False)
            self._path.write_text(json.dumps(_holder()))
        except filelock.Timeout:
            raise _in_use(name, _parse(keys.get(LOCK_KEY, most=_MOST_BYTES))) from None
        except OSError as error:
            if self._lock.is_locked:
                self.release()
            raise StorageError(f"can't be written: {reason(error)}", place=str(folder)) from error

    def renew(self) -> None:
        """Do nothing: the operating system knows who is alive."""

    def release(self) -> None:
        # first the file: who finds it gone makes a new one, who has it open sees that it is gone
        with suppress(OSError):
            self._path.unlink()
        self._lock.release()


def _check_regular(path: Path) -> None:
    """Refuse what blocks, or leads elsewhere, in the place of a lock."""
    with suppress(FileNotFoundError):
        if not stat.S_ISREG(path.lstat().st_mode):
            raise StorageError("is no regular file; delete it: it is where writers lock the store", place=str(path))


class _Look:
    """Looks whether a lock is still its holder's, unless that was seen a moment ago.

    It goes with a storage into other processes, and remembers nothing there.
    """

    def __init__(self, key: str, seconds: float) -> None:
        self._key = key
        self._seconds = seconds
        self._seen: tuple[float, float] | None = None
        self.overtaken_by: dict[str, Any] | None = None

    def __reduce__(self) -> tuple[type[_Look], tuple[str, float]]:
        return type(self), (self._key, self._seconds)

    def __call__(self, storage: Storage) -> None:
        if self.overtaken_by is not None or not self._is_fresh():
            self.now(storage)

    def now(self, storage: Storage) -> None:
        """Look in any case.

        Raises
        ------
        StoreInUseError
            If the lock is another's, or nobody's.
        """
        before = _clocks()
        if self.overtaken_by is None:
            found = _parse(storage.get(LOCK_KEY, most=_MOST_BYTES))
            if found.get("key") == self._key:
                self.seen(before)
                return
            self.overtaken_by = found
        raise _overtaken(storage.name, self.overtaken_by)

    def seen(self, at: tuple[float, float]) -> None:
        """Take note that the lock was its holder's then."""
        self._seen = at

    def _is_fresh(self) -> bool:
        if self._seen is None:
            return False
        # one of the clocks stands still while a machine sleeps, the other may be set
        return all(0 <= now - then <= self._seconds for now, then in zip(_clocks(), self._seen, strict=True))


def _clocks() -> tuple[float, float]:
    return time.time(), time.monotonic()


class _KeyLock:
    def __init__(self, storage: Storage, renew_seconds: float, look_seconds: float, stale_seconds: float) -> None:
        self._guarded = storage
        self._storage = storage.without_guard()
        self._stale_seconds = stale_seconds
        key = secrets.token_hex(8)
        self._holder = {**_holder(), "key": key}
        self._look = _Look(key, look_seconds)
        self._tag: str | None = None
        self._one_at_a_time = threading.Lock()
        self._stop = threading.Event()
        # also of a lock that was forgotten
        self._let_go = weakref.finalize(self, _let_go, key, self._stop)
        try:
            self._acquire()
        except BaseException:
            self._let_go()
            raise
        storage.guard(self._look)
        threading.Thread(
            target=_keep_renewing, args=(weakref.ref(self), self._stop, renew_seconds), daemon=True
        ).start()

    def _acquire(self) -> None:
        before = _clocks()
        for _ in range(_ROUNDS):
            if self._storage.create(LOCK_KEY, self._content()):
                break
            found = self._storage.get_with_tag(LOCK_KEY, _MOST_BYTES)
            if found is None:  # let go of just now
                continue
            if not _is_stale(_parse(found[0]), self._stale_seconds):
                raise _in_use(self._storage.name, _parse(found[0]))
            with suppress(StoreInUseError):  # another one was faster: who is it?
                self._storage.replace(LOCK_KEY, self._content(), found[1])
                break
        data, self._tag = self._storage.get_with_tag(LOCK_KEY, _MOST_BYTES) or (b"", None)
        if not self._is_ours(_parse(data)):
            raise _in_use(self._storage.name, _parse(data))
        self._look.seen(before)

    def _content(self) -> bytes:
        return json.dumps({**self._holder, "renewed": time.time()}).encode()

    def _is_ours(self, found: dict[str, Any]) -> bool:
        return found.get("key") == self._holder["key"]

    def keep(self) -> bool:
        """Show that the holder is alive; tell whether it is the holder still."""
        with self._one_at_a_time:
            if self._stop.is_set():
                return False
            before = _clocks()
            with suppress(StorageError):  # perhaps the next time
                try:
                    self._tag = self._storage.replace(LOCK_KEY, self._content(), self._tag)
                except StoreInUseError:  # by another one; or by this one, if the answer to its last renewal was lost
                    data, self._tag = self._storage.get_with_tag(LOCK_KEY, _MOST_BYTES) or (b"", self._tag)
                    if not self._is_ours(_parse(data)):
                        self._look.overtaken_by = _parse(data)
                        return False
                self._look.seen(before)
            return True

    def renew(self) -> None:
        self._look.now(self._storage)

    def release(self) -> None:
        self._let_go()
        self._guarded.guard(None)
        with self._one_at_a_time:
            if self._is_ours(_parse(self._storage.get(LOCK_KEY, most=_MOST_BYTES))):
                self._storage.delete(LOCK_KEY)


def _keep_renewing(lock: weakref.ref[_KeyLock], stop: threading.Event, seconds: float) -> None:
    """Renew a lock, until it is let go of, taken over, or forgotten."""
    while not stop.wait(seconds):
        held = lock()
        if held is None or not held.keep():
            return
        del held


def _let_go(key: str, stop: threading.Event) -> None:
    _ended.add(key)
    stop.set()


def _holder() -> dict[str, Any]:
    """Tell who this is."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # no name for this number
        user = "somebody"
    since = datetime.now(UTC).isoformat(timespec="seconds")
    return {
        "user": user,
        "host": socket.gethostname(),
        "machine": _machine(),
        "process": os.getpid(),
        "since": since,
    }


def _machine() -> str:
    """Tell machines apart whose names are equal, and containers, whose processes are numbered by themselves."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip() + os.readlink("/proc/self/ns/pid")
    except OSError:
        return f"{uuid.getnode():012x}"


def _parse(data: bytes | None) -> dict[str, Any]:
    try:
        found = json.loads(data or b"{}")
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _is_stale(found: dict[str, Any], seconds: float) -> bool:
    """Whether a holder's process is gone, hasn't been heard of for too long, or is this one and has let go of it."""
    if str(found.get("key")) in _ended:
        return True
    process, renewed = found.get("process"), found.get("renewed")
    if found.get("machine") == _machine() and isinstance(process, int) and process > 0 and os.name != "nt":
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return True
        except (PermissionError, OverflowError):  # another user's; no number of a process
            pass
    return isinstance(renewed, int | float) and time.time() - renewed > seconds


def _who(found: dict[str, Any]) -> str:
    """Name a holder; what a key says may be anything."""
    known = {"user": "somebody", "host": "some machine", "process": "unknown", "since": "a while", **found}
    shown = {name: "".join(filter(str.isprintable, str(value)[:_MOST_SHOWN])) for name, value in known.items()}
    return "{user} on {host}, process {process}, since {since}".format(**shown)


def _in_use(name: str, found: dict[str, Any]) -> StoreInUseError:
    return StoreInUseError(
        f"{name} is being written by {_who(found)}; wait until that has ended (if it has for sure, delete {LOCK_KEY} "
        "there)"
    )


def _overtaken(name: str, found: dict[str, Any]) -> StoreInUseError:
    by = f"{_who(found)} took over" if found else f"somebody took over and has ended, or has deleted {LOCK_KEY}"
    return StoreInUseError(
        f"{name} isn't written by this process any more: {by}, as this one wasn't heard of for too long. What it has "
        "committed is kept; open the store again to add the rest"
    )
