"""Writing under a condition: real servers and stores of every kind, and lost answers."""

from __future__ import annotations

import threading
from itertools import count
from typing import Any

import numpy as np
import obstore.store
import pytest
from zarr.storage import FsspecStore, LocalStore, MemoryStore, ObjectStore, StorePath, WrapperStore

from norbert_store._storage.storage import Storage
from norbert_store.errors import DamagedError, StorageError, StoreInUseError
from tests.servers import BUCKET, S3

S3_KINDS = ["s3 url", "s3fs", "obstore s3"]
OTHER_KINDS = ["memory", "memory url", "wrapped", "obstore memory", "obstore local", "path in memory"]

_numbers = count()


def located(kind, path, front, **options):
    url = f"s3://{BUCKET}/{path}"
    if kind == "s3 url":
        return url
    if kind == "s3fs":
        return FsspecStore.from_url(url, storage_options=S3(front.url).s3fs_options())
    return ObjectStore(obstore.store.S3Store(BUCKET, prefix=path, **S3(front.url).obstore_options(**options)))


@pytest.fixture(params=[*S3_KINDS, *OTHER_KINDS])
def location(request, tmp_path):
    if request.param in S3_KINDS:
        return located(request.param, f"tags/{next(_numbers)}", request.getfixturevalue("front"))
    others: dict[str, Any] = {
        "memory": MemoryStore,
        "memory url": lambda: f"memory://{tmp_path.name}/place",
        "wrapped": lambda: WrapperStore(LocalStore(tmp_path)),
        "obstore memory": lambda: ObjectStore(obstore.store.MemoryStore()),
        "obstore local": lambda: ObjectStore(obstore.store.LocalStore(tmp_path)),
        "path in memory": lambda: StorePath(MemoryStore(), "a/b"),
    }
    return others[request.param]()


@pytest.fixture
def storage(location):
    return Storage(location, read_only=False)


# ---- what holds everywhere


def test_key_is_created_once(storage):
    assert storage.create("a/key", b"one")
    assert storage.get("a/key") == b"one"
    assert storage.create("a/key", b"one")  # these bytes are there
    for other in (b"two", b"", b"one and more", b"on"):
        assert not storage.create("a/key", other)
    assert storage.get("a/key") == b"one"
    assert storage.create("empty", b"")
    assert not storage.create("empty", b"x")


def test_key_is_replaced_by_who_has_read_it_last(storage):
    assert storage.get_with_tag("key") is None
    storage.set("key", b"one")
    data, tag = storage.get_with_tag("key")
    assert data == b"one"
    assert tag
    second = storage.replace("key", b"two", tag)
    assert storage.get_with_tag("key") == (b"two", second)
    third = storage.replace("key", b"three", second)
    assert len({tag, second, third}) == 3
    for late in (tag, second):
        with pytest.raises(StoreInUseError, match="somebody else has written key since it was read here"):
            storage.replace("key", b"late", late)
    assert storage.get("key") == b"three"


def test_refusal_is_success_if_these_bytes_are_there(storage):
    storage.set("key", b"one")
    _, tag = storage.get_with_tag("key")
    new = storage.replace("key", b"two", tag)
    assert storage.replace("key", b"two", tag) == new


def test_key_that_was_deleted_is_not_replaced(storage):
    storage.set("key", b"one")
    _, tag = storage.get_with_tag("key")
    storage.delete("key")
    with pytest.raises(StoreInUseError):
        storage.replace("key", b"late", tag)
    assert storage.get("key") is None
    assert storage.create("key", b"again")


def test_limit_holds_with_tags(storage):
    storage.set("key", b"01234")
    assert storage.get_with_tag("key", most=5)[0] == b"01234"
    with pytest.raises(DamagedError, match="key: the file has more than 4 bytes; expected at most 4"):
        storage.get_with_tag("key", most=4)


def test_what_comes_in_pieces_is_read_whole(storage):
    data = np.random.default_rng(0).bytes(5_000_000)
    storage.set("key", data)
    for most in (None, len(data), 2 * len(data)):
        assert storage.get_with_tag("key", most)[0] == data
    with pytest.raises(DamagedError, match=f"key: the file has more than {len(data) - 1} bytes"):
        storage.get_with_tag("key", len(data) - 1)


def test_tag_is_needed(storage):
    storage.set("key", b"one")
    with pytest.raises(ValueError, match="was read without a tag"):
        storage.replace("key", b"two", None)


def test_folder_needs_no_tags(tmp_path):
    """Its writer holds the system's lock."""
    storage = Storage(tmp_path, read_only=False)
    assert storage.create("a/key", b"one")
    assert storage.create("a/key", b"one")
    assert not storage.create("a/key", b"two")
    assert storage.get_with_tag("a/key") == (b"one", None)
    assert storage.get_with_tag("no") is None
    assert storage.replace("a/key", b"two", None) is None
    assert storage.get("a/key") == b"two"


# ---- the store's one writer


def read(storage, key):
    return Storage(storage.location, read_only=False).get(key)


def test_commit_replaces_what_was_last_seen(storage):
    storage.commit("key", b"one")
    storage.commit("key", b"two")
    other = Storage(storage.location, read_only=False)
    assert other.get_for_update("key") == b"two"
    other.commit("key", b"three")
    with pytest.raises(StoreInUseError, match="somebody else has written key"):
        storage.commit("key", b"late")
    assert read(storage, "key") == b"three"
    storage.get_for_update("key")
    storage.commit("key", b"four")
    assert read(storage, "key") == b"four"


def test_commit_of_what_was_not_seen_is_the_first(storage):
    storage.set("key", b"one")
    with pytest.raises(StoreInUseError, match="somebody else has written key in the meantime"):
        storage.commit("key", b"two")
    storage.commit("key", b"one")
    assert read(storage, "key") == b"one"


def test_of_two_who_commit_the_same_one_is_the_first(storage):
    """If that matters; else they may be one, whose answer was lost."""
    storage.set("key", b"one")
    storages = [Storage(storage.location, read_only=False) for _ in range(3)]
    for each in storages:
        each.get_for_update("key")
    storages[0].commit("key", b"two", once=True)
    storages[1].commit("key", b"two")
    with pytest.raises(StoreInUseError):
        storages[2].commit("key", b"two", once=True)


def test_what_others_have_left_behind_is_written_over(storage):
    storage.write("new", b"one")
    storage.write("new", b"two")
    Storage(storage.location, read_only=False).set("new", b"late")
    storage.write("new", b"three")
    assert read(storage, "new") == b"three"
    Storage(storage.location, read_only=False).delete("new")
    storage.write("new", b"four")
    storage.create_anew("new", b"five")
    storage.create_anew("new", b"five")
    storage.overwrite("other", b"six")
    assert (read(storage, "new"), read(storage, "other")) == (b"five", b"six")


def test_folder_is_written_by_one(tmp_path):
    storage = Storage(tmp_path, read_only=False)
    storage.commit("key", b"one")
    storage.commit("key", b"two")
    storage.write("key", b"three")
    storage.overwrite("key", b"four")
    storage.create_anew("key", b"five")
    assert storage.get_for_update("key") == b"five"


# ---- what S3 decides


@pytest.fixture(params=S3_KINDS)
def place(request, front):
    path = f"tags/{next(_numbers)}"
    return lambda **options: located(request.param, path, front, **options)


def at_once(writers):
    """Call functions from threads, all at the same time; return what they return or raise."""
    barrier = threading.Barrier(len(writers))
    found: list[Any] = [None] * len(writers)

    def call(i):
        barrier.wait()
        try:
            found[i] = writers[i]()
        except StoreInUseError as error:
            found[i] = error

    threads = [threading.Thread(target=call, args=(i,)) for i in range(len(writers))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


@pytest.mark.slow
def test_one_of_many_creates(place):
    storages = [Storage(place(), read_only=False) for _ in range(8)]
    for attempt in range(3):
        key = f"key {attempt}"
        found = at_once([lambda i=i, key=key: storages[i].create(key, b"by %d" % i) for i in range(8)])
        assert sum(found) == 1
        assert storages[0].get(key) == b"by %d" % found.index(True)


@pytest.mark.slow
def test_one_of_many_replaces(place):
    storages = [Storage(place(), read_only=False) for _ in range(8)]
    storages[0].create("key", b"first")
    _, tag = storages[0].get_with_tag("key")
    found = at_once([lambda i=i: storages[i].replace("key", b"by %d" % i, tag) for i in range(8)])
    done = [i for i in range(8) if not isinstance(found[i], StoreInUseError)]
    assert len(done) == 1
    assert storages[0].get_with_tag("key") == (b"by %d" % done[0], found[done[0]])


@pytest.mark.parametrize("operation", ["create", "replace"])
def test_lost_answer_is_of_no_effect(front, operation):
    """The client asks again, and is refused by what it has written itself."""
    storage = Storage(f"s3://{BUCKET}/tags/{next(_numbers)}", read_only=False)
    storage.create("key", b"first")
    _, tag = storage.get_with_tag("key")

    def rule(request):
        return "cut" if request.method == "PUT" and not faults else None

    with front.breaking(rule) as faults:
        if operation == "create":
            assert storage.create("new", b"data")
        else:
            assert storage.replace("key", b"data", tag) == storage.get_with_tag("key")[1]
    assert faults == ["cut"]
    assert storage.get("new" if operation == "create" else "key") == b"data"


def test_commit_whose_answer_was_lost_for_good_is_known_again(front):
    """It was tried so often that it is an error; what follows is written in its place, not refused."""
    storage = Storage(f"s3://{BUCKET}/tags/{next(_numbers)}", read_only=False)
    storage.commit("key", b"one")

    def rule(request):
        return "cut" if request.method == "PUT" else None

    with front.breaking(rule), pytest.raises(StorageError):
        storage.commit("key", b"two")
    assert read(storage, "key") == b"two"
    storage.commit("key", b"three")
    assert read(storage, "key") == b"three"


def test_server_that_knows_no_conditions(front):
    """Then the tag is compared before the write."""

    def rule(request):
        return "501" if request.headers["If-Match"] or request.headers["If-None-Match"] else None

    storage = Storage(f"s3://{BUCKET}/tags/{next(_numbers)}", read_only=False)
    with front.breaking(rule) as faults:
        assert storage.create("key", b"one")
        assert not storage.create("key", b"two")
        _, tag = storage.get_with_tag("key")
        second = storage.replace("key", b"two", tag)
        assert storage.get_with_tag("key") == (b"two", second)
        with pytest.raises(StoreInUseError):
            storage.replace("key", b"late", tag)
    assert set(faults) == {"501"}
    assert storage.get("key") == b"two"


def test_conditions_that_are_turned_off(front):
    options = S3(front.url).obstore_options(conditional_put="disabled")
    place = ObjectStore(obstore.store.S3Store(BUCKET, prefix=f"tags/{next(_numbers)}", **options))
    storage = Storage(place, read_only=False)
    assert storage.create("key", b"one")
    assert not storage.create("key", b"two")
    _, tag = storage.get_with_tag("key")
    storage.replace("key", b"two", tag)
    with pytest.raises(StoreInUseError):
        storage.replace("key", b"late", tag)
    assert storage.get("key") == b"two"
