"""One writer at a time: by the operating system in a folder, by a key elsewhere."""

from __future__ import annotations

import gc
import getpass
import json
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import numpy as np
import pytest
from zarr.storage import LocalStore, MemoryStore, WrapperStore

import norbert_store
from norbert_store._check.verify import verify
from norbert_store._storage.lock import LOCK_KEY, WriterLock
from norbert_store._storage.storage import Storage
from norbert_store.errors import StorageError, StoreExistsError, StoreInUseError
from tests.servers import BUCKET, S3

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
    storage.without_guard().set(LOCK_KEY, json.dumps({**holder(storage), **changes}).encode())


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
    first = WriterLock(elsewhere)
    with pytest.raises(StoreInUseError):
        WriterLock(elsewhere)
    change_lock(elsewhere, process=dead_process())
    lock = WriterLock(elsewhere)
    assert holder(elsewhere)["process"] == os.getpid()
    lock.release()
    assert elsewhere.get(LOCK_KEY) is None
    first.release()


@pytest.mark.parametrize("other", [{"host": "elsewhere", "machine": "another"}, {"machine": "another of equal name"}])
def test_lock_of_another_machine_is_taken_over_after_an_hour(elsewhere, other):
    first = WriterLock(elsewhere)
    change_lock(elsewhere, **other, process=dead_process(), renewed=time.time() - 0.9 * HOUR)
    with pytest.raises(StoreInUseError, match=f"on {other.get('host', socket.gethostname())}, process"):
        WriterLock(elsewhere)
    change_lock(elsewhere, renewed=time.time() - 1.1 * HOUR)
    WriterLock(elsewhere).release()
    first.release()


def test_lock_that_was_forgotten_is_free(elsewhere):
    """As where a notebook has lost its writer to an error."""
    WriterLock(elsewhere)
    gc.collect()
    assert elsewhere.get(LOCK_KEY) is not None
    WriterLock(elsewhere).release()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"[1]", b"5", b"null", b"\xff", b"{}", b"[" * 10_000])
def test_lock_that_nobody_understands_is_left_alone(elsewhere, content):
    elsewhere.set(LOCK_KEY, content)
    with pytest.raises(StoreInUseError, match=f"by somebody on some machine.*delete {LOCK_KEY} there"):
        WriterLock(elsewhere)
    assert elsewhere.get(LOCK_KEY) == content


@pytest.mark.parametrize(
    "changes", [{"process": None}, {"process": "x"}, {"process": [1]}, {"renewed": None}, {"renewed": "soon"}]
)
def test_lock_of_odd_content_is_left_alone(elsewhere, changes):
    first = WriterLock(elsewhere)
    change_lock(elsewhere, **changes)
    with pytest.raises(StoreInUseError):
        WriterLock(elsewhere)
    first.release()
    assert elsewhere.get(LOCK_KEY) is None


def test_who_was_taken_for_dead_is_told_so(elsewhere):
    first = WriterLock(elsewhere)
    change_lock(elsewhere, machine="another", renewed=time.time() - 2 * HOUR)
    second = WriterLock(elsewhere)
    with pytest.raises(StoreInUseError, match=f"process {os.getpid()}"):
        first.renew()
    first.release()  # not its own any more
    second.renew()
    second.release()
    assert elsewhere.get(LOCK_KEY) is None


def test_who_finds_the_lock_deleted_is_told_so(elsewhere):
    lock = WriterLock(elsewhere)
    elsewhere.without_guard().delete(LOCK_KEY)
    with pytest.raises(StoreInUseError):
        lock.renew()


def test_names_in_a_lock_are_shown_harmlessly(elsewhere):
    first = WriterLock(elsewhere)
    change_lock(elsewhere, user="\x1b[31m\u202e" + "x" * 1000, host={"a": "\n"})
    with pytest.raises(StoreInUseError) as caught:
        WriterLock(elsewhere)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500
    first.release()


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX")
@pytest.mark.parametrize("kind", ["FIFO", "link", "folder"])
def test_what_is_no_file_is_no_lock(tmp_path, kind):
    path = tmp_path / "place" / LOCK_KEY
    path.parent.mkdir()
    if kind == "FIFO":
        os.mkfifo(path)
    elif kind == "link":
        (tmp_path / "victim").write_text("precious")
        path.symlink_to(tmp_path / "victim")
    else:
        path.mkdir()
    with pytest.raises(StorageError, match=r"writer.lock is no regular file; delete it"):
        WriterLock(writable(path.parent))
    if kind == "link":
        assert (tmp_path / "victim").read_text() == "precious"


# ---- as long as it is held

SHORT = {"renew_seconds": 0.1, "look_seconds": 0.3, "stale_seconds": 1.5}


def until(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_lock_is_renewed_as_long_as_its_holder_lives(elsewhere):
    lock = WriterLock(elsewhere, **SHORT)
    before = holder(elsewhere)
    until(lambda: holder(elsewhere)["renewed"] > before["renewed"] + 0.3)
    assert {**holder(elsewhere), "renewed": 0} == {**before, "renewed": 0}
    lock.renew()
    lock.release()
    assert elsewhere.get(LOCK_KEY) is None
    time.sleep(0.3)
    assert elsewhere.get(LOCK_KEY) is None


def overtake(storage):
    """Take a lock over whose holder lives."""
    change_lock(storage, machine="another", host="elsewhere", renewed=time.time() - 2 * HOUR)
    return WriterLock(Storage(storage.location, read_only=False))


def writes(storage):
    return (
        lambda: storage.set("key", b"late"),
        lambda: storage.create("new", b"late"),
        lambda: storage.replace("key", b"late", storage.get_with_tag("key")[1]),
        lambda: storage.delete("key"),
    )


def test_nothing_is_written_by_who_was_overtaken(elsewhere):
    lock = WriterLock(elsewhere, look_seconds=0)
    elsewhere.set("key", b"first")
    second = overtake(elsewhere)
    for write in writes(elsewhere):
        with pytest.raises(StoreInUseError, match=f"isn't written by this process any more: .*process {os.getpid()}"):
            write()
    assert elsewhere.get("key") == b"first"
    assert elsewhere.list() == ["key", LOCK_KEY]
    lock.release()
    assert holder(elsewhere)  # not its own any more
    second.release()


def test_lock_that_was_deleted_is_lost(elsewhere):
    lock = WriterLock(elsewhere, look_seconds=0)
    elsewhere.without_guard().delete(LOCK_KEY)
    with pytest.raises(StoreInUseError, match=f"has ended, or has deleted {LOCK_KEY}, as this one wasn't heard of"):
        elsewhere.set("key", b"late")
    lock.release()
    elsewhere.set("key", b"free")


def test_thread_that_renews_notices_that_it_was_overtaken(elsewhere):
    lock = WriterLock(elsewhere, renew_seconds=0.1, look_seconds=HOUR)
    elsewhere.set("key", b"first")
    second = overtake(elsewhere)
    taken = holder(elsewhere)["key"]
    with pytest.raises(StoreInUseError):
        until(lambda: elsewhere.set("key", b"late"))
    assert holder(elsewhere)["key"] == taken
    lock.release()
    second.release()


def test_what_is_left_behind_is_deleted_by_who_holds_the_lock_alone(elsewhere):
    """However fresh its last look is."""
    lock = WriterLock(elsewhere, look_seconds=HOUR)
    elsewhere.set("shard", b"left behind")
    elsewhere.create_anew("shard", b"first")
    elsewhere.create_anew("shard", b"first")
    elsewhere.create_anew("other", b"first")
    assert elsewhere.get("shard") == elsewhere.get("other") == b"first"
    second = overtake(elsewhere)
    elsewhere.create_anew("shard", b"first")
    with pytest.raises(StoreInUseError):
        elsewhere.create_anew("shard", b"late")
    assert elsewhere.get("shard") == b"first"
    lock.release()
    second.release()


class CountingStore(WrapperStore):
    """Counts how often the lock is read."""

    looks = 0

    async def get(self, key, *args, **options):
        self.looks += key == LOCK_KEY
        return await super().get(key, *args, **options)


def test_lock_is_looked_at_once_in_a_while():
    store = CountingStore(MemoryStore())
    storage = Storage(store, read_only=False)
    lock = WriterLock(storage, look_seconds=1)
    before = store.looks
    for _ in range(20):
        storage.set("key", b"x")
    assert store.looks == before
    time.sleep(1.1)
    for _ in range(20):
        storage.set("key", b"x")
    assert store.looks == before + 1
    lock.release()
    before = store.looks
    time.sleep(1.1)
    storage.set("key", b"x")
    assert store.looks == before


class LossyStore(WrapperStore):
    """Writes the lock, or reads it, and loses the answer, each as often as it is told to."""

    def __init__(self, store):
        super().__init__(store)
        self.writes_to_lose, self.reads_to_lose, self.reads_before = 0, 0, 0

    async def set(self, key, value):
        await super().set(key, value)
        if key == LOCK_KEY and self.writes_to_lose:
            self.writes_to_lose -= 1
            raise OSError("connection reset")

    async def get(self, key, *args, **options):
        found = await super().get(key, *args, **options)
        if key == LOCK_KEY and not self.writes_to_lose and self.reads_to_lose:
            self.reads_before -= 1
            if self.reads_before < 0:
                self.reads_to_lose -= 1
                raise OSError("connection reset")
        return found


# after the write that was lost, the next renewal compares twice before it looks whose the lock is
@pytest.mark.parametrize("reads_to_lose", [0, 1])
def test_renewal_whose_answer_is_lost_is_one_s_own(reads_to_lose):
    store = LossyStore(MemoryStore())
    storage = Storage(store, read_only=False)
    lock = WriterLock(storage, renew_seconds=0.05, look_seconds=0)
    store.reads_before, store.reads_to_lose, store.writes_to_lose = 2, reads_to_lose, 1
    until(lambda: not store.writes_to_lose and not store.reads_to_lose)
    before = holder(storage.without_guard())["renewed"]
    until(lambda: holder(storage.without_guard())["renewed"] > before + 0.1)
    lock.renew()
    storage.set("key", b"mine")
    lock.release()
    assert storage.list() == ["key"]


@pytest.mark.slow
def test_copies_in_other_processes_look_as_well(tmp_path):
    storage = writable(WrapperStore(LocalStore(tmp_path)))
    lock = WriterLock(storage, look_seconds=HOUR)
    with ProcessPoolExecutor(1, get_context("spawn")) as executor:
        executor.submit(storage.set, "key", b"first").result(60)
        second = overtake(storage)
        with pytest.raises(StoreInUseError, match="isn't written by this process any more"):
            executor.submit(storage.set, "key", b"late").result(60)  # a new copy knows of no look
    assert storage.get("key") == b"first"
    lock.release()
    second.release()


# ---- between processes, on S3

# Holds a lock, and writes its own name whenever it is told to, as long as it may.
WRITER = """
import sys
import obstore.store
from zarr.storage import ObjectStore
from norbert_store._storage.lock import WriterLock
from norbert_store._storage.storage import Storage
from norbert_store.errors import StoreInUseError

name, place, options, stale_seconds = sys.argv[1], sys.argv[2], eval(sys.argv[3]), float(sys.argv[4])
if options:
    bucket, _, prefix = place.removeprefix("s3://").partition("/")
    place = ObjectStore(obstore.store.S3Store(bucket, prefix=prefix, **options))
storage = Storage(place, read_only=False)
try:
    lock = WriterLock(storage, renew_seconds=0.2, look_seconds=0.2, stale_seconds=stale_seconds)
    document = storage.get_with_tag("document")
    if document is None:
        storage.create("document", name.encode())
        document = storage.get_with_tag("document")
    tag = document[1]
    print("holds", flush=True)
    for line in sys.stdin:
        if line.strip() == "release":
            lock.release()
        elif line.strip() == "blind":  # as if its look was just before it fell asleep
            tag = storage.without_guard().replace("document", name.encode(), tag)
        else:
            tag = storage.replace("document", name.encode(), tag)
            storage.set("file of " + name, b"x")
        print("done", flush=True)
except StoreInUseError as error:
    print("StoreInUseError", error, flush=True)
"""


class Process:
    """Runs a writer."""

    def __init__(self, name, place, options, environment, stale_seconds):
        command = [sys.executable, "-c", WRITER, name, place, repr(options), str(stale_seconds)]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.popen = subprocess.Popen(command, env={**os.environ, **environment}, **pipes)

    def answer(self, what=None):
        if what is not None:
            self.popen.stdin.write(f"{what}\n")
            self.popen.stdin.flush()
        return self.popen.stdout.readline().strip()

    def signal(self, number):
        self.popen.send_signal(number)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.popen.kill()
        self.popen.communicate()


@pytest.fixture(params=["s3fs", "obstore"])
def start(request, front):
    """Starts writers at one place."""
    s3 = S3(front.url)
    place = f"s3://{BUCKET}/{request.node.name}"
    options = {} if request.param == "s3fs" else s3.obstore_options()
    return lambda name, stale_seconds=HOUR: Process(name, place, options, s3.environment, stale_seconds)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="processes can't be stopped there")
@pytest.mark.parametrize("order", ["write", "blind"])
def test_writer_that_wakes_up_late_overwrites_nothing(start, order):
    with start("sleeper") as sleeper:
        assert sleeper.answer() == "holds"
        assert sleeper.answer("write") == "done"
        sleeper.signal(signal.SIGSTOP)
        with start("early") as early:
            assert f"process {sleeper.popen.pid}, since" in early.answer()
        time.sleep(0.5)
        with start("second", stale_seconds=0.4) as second:
            assert second.answer() == "holds"
            assert second.answer("write") == "done"
            sleeper.signal(signal.SIGCONT)
            told = sleeper.answer(order)
            assert told.startswith("StoreInUseError")
            if order == "write":
                assert f"process {second.popen.pid}, since" in told
            assert second.answer("write") == "done"  # its tag is still that of the key


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="processes can't be asked for there")
def test_writer_that_was_killed_is_followed_at_once(start):
    with start("killed") as killed:
        assert killed.answer() == "holds"
    with start("second") as second:
        assert second.answer() == "holds"
        assert second.answer("write") == "done"
        assert second.answer("release") == "done"
    with start("third") as third:
        assert third.answer() == "holds"


@pytest.mark.slow
def test_writer_that_does_nothing_keeps_its_lock(start, front):
    with start("first") as first:
        assert first.answer() == "holds"

        def renewals():
            return [request for request in front.requests if request.method == "PUT" and "If-Match" in request.headers]

        before = len(renewals())
        until(lambda: len(renewals()) > before + 2)
        with start("second") as second:
            assert "is being written by" in second.answer()
        assert first.answer("write") == "done"


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
    monkeypatch.setattr("norbert_store._write.commit.block_files", _full)
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
    change_lock(writable(store), machine="another", renewed=time.time() - 2 * HOUR)
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
