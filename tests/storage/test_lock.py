"""One writer at a time: by the operating system in a folder, by a key elsewhere."""

from __future__ import annotations

import getpass
import json
import os
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
from zarr.storage import LocalStore, MemoryStore, WrapperStore

import norbert_store
from norbert_store._check.verify import verify
from norbert_store._storage.lock import LOCK_KEY, WriterLock
from norbert_store._storage.storage import Storage
from norbert_store.errors import StoreExistsError, StoreInUseError

NOISE = {"mixture": np.random.default_rng(0).uniform(-0.5, 0.5, (3000, 2)).astype(np.float32)}
HOUR = 3600

# Locks a folder, and waits to be killed.
HOLDER = """
import sys
from norbert_store._storage.lock import WriterLock
from norbert_store._storage.storage import Storage

lock = WriterLock(Storage(sys.argv[1], read_only=False))
print("locked", flush=True)
sys.stdin.read()
"""


@pytest.fixture(params=["folder", "memory", "wrapped"])
def location(request, tmp_path):
    """A place that two writers share."""
    if request.param == "folder":
        return tmp_path / "x.zarr"
    return MemoryStore() if request.param == "memory" else WrapperStore(LocalStore(tmp_path / "x.zarr"))


def writable(location):
    return Storage(location, read_only=False)


def holder(storage):
    return json.loads(storage.get(LOCK_KEY))


def change_lock(storage, **changes):
    """Change what is in a lock."""
    storage.set(LOCK_KEY, json.dumps({**holder(storage), **changes}).encode())


def dead_process():
    with subprocess.Popen([sys.executable, "-S", "-c", ""]) as process:
        process.wait()
    return process.pid


# ---- who has it, has it alone


def test_second_writer_is_refused_and_told_who_is_the_first(location):
    lock = WriterLock(writable(location))
    with pytest.raises(StoreInUseError) as caught:
        WriterLock(writable(location))
    message = str(caught.value)
    assert str(location) in message
    assert f"{getpass.getuser()} on {socket.gethostname()}, process {os.getpid()}, since 20" in message
    # and it is still the first one's
    with pytest.raises(StoreInUseError):
        WriterLock(writable(location))
    lock.renew()
    lock.release()
    WriterLock(writable(location)).release()


def test_nothing_stays_after_release(location):
    storage = writable(location)
    lock = WriterLock(storage)
    assert storage.list() == [LOCK_KEY]
    lock.release()
    assert storage.list() == []
    lock.release()
    assert storage.list() == []


def test_other_process_is_named_and_free_at_once_when_it_is_killed(tmp_path):
    folder = tmp_path / "x.zarr"
    command = [sys.executable, "-c", HOLDER, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "locked\n"
        with pytest.raises(StoreInUseError, match=rf"x\.zarr is being written by .*, process {process.pid}, since"):
            WriterLock(writable(folder))
        process.kill()
        process.wait()
    assert (folder / LOCK_KEY).exists()
    WriterLock(writable(folder)).release()
    assert not (folder / LOCK_KEY).exists()


# ---- locks that were left behind, where no operating system knows


@pytest.fixture(params=["memory", "wrapped"])
def elsewhere(request, tmp_path):
    return writable(MemoryStore() if request.param == "memory" else WrapperStore(LocalStore(tmp_path)))


@pytest.mark.skipif(sys.platform == "win32", reason="processes can't be asked for there")
def test_lock_of_a_dead_process_of_this_machine_is_taken_over(elsewhere):
    WriterLock(elsewhere)
    change_lock(elsewhere, process=dead_process())
    lock = WriterLock(elsewhere)
    assert holder(elsewhere)["process"] == os.getpid()
    lock.release()
    assert elsewhere.get(LOCK_KEY) is None


def test_lock_of_another_machine_is_taken_over_after_an_hour(elsewhere):
    WriterLock(elsewhere)
    change_lock(elsewhere, host="elsewhere", process=dead_process(), renewed=time.time() - 0.9 * HOUR)
    with pytest.raises(StoreInUseError, match="on elsewhere, process"):
        WriterLock(elsewhere)
    change_lock(elsewhere, renewed=time.time() - 1.1 * HOUR)
    WriterLock(elsewhere).release()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"[1]", b"5", b"null", b"\xff", b"{}"])
def test_lock_that_nobody_understands_is_left_alone(elsewhere, content):
    elsewhere.set(LOCK_KEY, content)
    with pytest.raises(StoreInUseError, match=f"by somebody on some machine.*delete {LOCK_KEY} there"):
        WriterLock(elsewhere)
    assert elsewhere.get(LOCK_KEY) == content


@pytest.mark.parametrize(
    "changes", [{"process": None}, {"process": "x"}, {"process": [1]}, {"renewed": None}, {"renewed": "soon"}]
)
def test_lock_of_odd_content_is_left_alone(elsewhere, changes):
    WriterLock(elsewhere)
    change_lock(elsewhere, **changes)
    with pytest.raises(StoreInUseError):
        WriterLock(elsewhere)


def test_who_was_taken_for_dead_is_told_so(elsewhere):
    first = WriterLock(elsewhere)
    change_lock(elsewhere, host="elsewhere", renewed=time.time() - 2 * HOUR)
    second = WriterLock(elsewhere)
    with pytest.raises(StoreInUseError, match=f"process {os.getpid()}"):
        first.renew()
    first.release()  # not its own any more
    second.renew()
    second.release()
    assert elsewhere.get(LOCK_KEY) is None


def test_who_finds_the_lock_deleted_is_told_so(elsewhere):
    lock = WriterLock(elsewhere)
    elsewhere.delete(LOCK_KEY)
    with pytest.raises(StoreInUseError):
        lock.renew()


def test_renewing_shows_that_the_holder_is_alive(elsewhere, monkeypatch):
    monkeypatch.setattr("norbert_store._storage.lock._RENEWAL_SECONDS", 0.0)
    lock = WriterLock(elsewhere)
    before = holder(elsewhere)
    time.sleep(0.01)
    lock.renew()
    after = holder(elsewhere)
    assert after.pop("renewed") > before.pop("renewed")
    assert after == before
    lock.release()


# ---- writers


def test_writers_hold_it_until_they_are_closed(location, options):
    with norbert_store.create(location, **options()) as writer:
        writer.add("a", NOISE)
        writer.commit()
        for other in (norbert_store.create, lambda place, **_: norbert_store.append(place)):
            with pytest.raises(StoreInUseError, match=rf"is being written by .*, process {os.getpid()}, since"):
                other(location, **options())
    with norbert_store.append(location) as writer:
        with pytest.raises(StoreInUseError, match=f"process {os.getpid()}"):
            norbert_store.append(location)
        writer.add("b", NOISE)
    assert LOCK_KEY not in writable(location).list()
    assert norbert_store.open(location).names == ["a", "b"]
    assert verify(location)


def test_errors_let_go_of_it(location, options):
    def fail():
        with norbert_store.create(location, **options()) as writer:
            writer.add("a", NOISE)
            raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        fail()
    assert LOCK_KEY not in writable(location).list()
    with pytest.raises(StoreExistsError):
        norbert_store.create(location, **options())
    assert LOCK_KEY not in writable(location).list()
    with norbert_store.append(location) as writer:
        writer.add("b", NOISE)
    assert norbert_store.open(location).names == ["a", "b"]


def test_creation_that_fails_lets_go_of_it(tmp_path, options, monkeypatch):
    monkeypatch.setattr("norbert_store._write.commit.write_coordinates", _full)
    with pytest.raises(OSError, match="No space left"):
        norbert_store.create(tmp_path / "x.zarr", **options())
    store = MemoryStore()
    with pytest.raises(OSError, match="No space left"):
        norbert_store.create(store, **options())
    assert Storage(store).get(LOCK_KEY) is None
    assert not (tmp_path / "x.zarr" / LOCK_KEY).exists()


def _full(*_):
    raise OSError("No space left on device")


def documents(storage):
    return {key: storage.get(key) for key in storage.list() if not key.startswith("magnitude/c/")}


@pytest.mark.parametrize("rows", ["more rows", "no more rows"])
def test_writer_that_was_taken_for_dead_commits_nothing_any_more(options, rows):
    store = MemoryStore()
    first = norbert_store.create(store, **options())
    first.add("a", NOISE)
    first.commit()
    change_lock(writable(store), host="elsewhere", renewed=time.time() - 2 * HOUR)
    with norbert_store.append(store) as second:
        second.add("from the second", NOISE)
    before = documents(writable(store))
    if rows == "more rows":
        first.add("from the first", NOISE)
    # it wakes up, and knows nothing of the second one
    with pytest.raises(StoreInUseError):
        first.close()
    assert documents(writable(store)) == before
    assert norbert_store.open(store).names == ["a", "from the second"]
    assert verify(store)
