"""Stores in sessions of icechunk: what is written is seen once the session is committed, all of it."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import pytest
import xarray

import norbert_store
from norbert_store._check.repair import repair
from norbert_store._check.verify import verify
from norbert_store._storage.storage import Storage
from norbert_store.errors import AudioError, StoreExistsError, StoreNotFoundError
from tests.writers import NAMES, World, append, audio, export, magnitudes_of, make_world, mend

icechunk: Any = pytest.importorskip("icechunk", reason="it needs Python 3.12")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with make_world(tmp_path_factory.mktemp("sessions")) as made:
        yield made


@pytest.fixture
def repository() -> Any:
    return icechunk.Repository.create(icechunk.in_memory_storage())


@pytest.fixture
def exported(world, repository) -> Any:
    """A repository in which a store is committed."""
    session = repository.writable_session("main")
    export(world, session.store)
    session.commit("export")
    return repository


def newest(repository: Any) -> Any:
    return repository.readonly_session("main").store


def names_of(repository: Any) -> list[str]:
    return norbert_store.open(newest(repository)).names


def test_export_is_the_same_as_elsewhere(world, exported):
    place = newest(exported)
    db = norbert_store.open(place)
    assert (db.names, db.digest()) == (list(NAMES), world.digest)
    assert verify(place)
    assert {key for key in Storage(place).list() if "zarr.json" not in key} == {
        key for key in world.states["whole"] if "zarr.json" not in key
    }
    plain = xarray.open_zarr(place, consolidated=False)
    assert np.array_equal(plain.magnitude, db.to_xarray().magnitude, equal_nan=True)
    assert xarray.open_zarr(place, group="track", consolidated=False).name.values.tolist() == db.names


def test_nothing_is_seen_before_the_session_is_committed(world, repository):
    session = repository.writable_session("main")
    export(world, session.store)
    assert norbert_store.open(session.store).digest() == world.digest
    with pytest.raises(StoreNotFoundError):
        norbert_store.open(newest(repository))
    with pytest.raises(StoreExistsError):
        export(world, session.store)
    session.commit("export")
    assert names_of(repository) == list(NAMES)


def test_appending(world, exported):
    before = norbert_store.open(newest(exported))
    session = exported.writable_session("main")
    append(world, session.store, "x", mood="calm", tempo=1.5)
    append(world, session.store, "y", mood="wild")
    session.commit("two more")
    db = norbert_store.open(newest(exported))
    assert db.names == [*NAMES, "x", "y"]
    assert db.tracks.mood.values.tolist() == ["", "", "", "", "calm", "wild"]
    assert all(found in world.magnitudes[name] for name, found in magnitudes_of(newest(exported)).items())
    assert verify(newest(exported))
    # who had opened it reads its own snapshot
    assert before.names == list(NAMES)
    assert before.digest() == world.digest


def test_of_two_writers_the_second_to_commit_is_refused(world, exported):
    first, second = exported.writable_session("main"), exported.writable_session("main")
    append(world, first.store, "x")
    append(world, second.store, "y")
    first.commit("x")
    with pytest.raises(icechunk.ConflictError):
        second.commit("y")
    with pytest.raises(icechunk.RebaseFailedError):
        second.rebase(icechunk.ConflictDetector())
    assert names_of(exported) == [*NAMES, "x"]
    again = exported.writable_session("main")
    append(world, again.store, "y")
    again.commit("y")
    assert names_of(exported) == [*NAMES, "x", "y"]
    assert verify(newest(exported))


def test_writer_that_is_given_up_leaves_nothing(world, exported):
    session = exported.writable_session("main")
    writer = norbert_store.append(session.store)
    writer.add("x", {"mixture": audio("x")})
    writer.commit()
    session.discard_changes()
    del writer
    assert names_of(exported) == list(NAMES)
    session = exported.writable_session("main")
    export(world, session.store, resume=True)
    assert norbert_store.open(session.store).digest() == world.digest


def test_track_that_fails_is_taken_back(world, exported):
    session = exported.writable_session("main")
    with norbert_store.append(session.store, bundle_tracks=2) as writer:
        long = np.tile(audio("x"), (9, 1))

        def blocks() -> Iterator[np.ndarray]:
            yield long
            raise AudioError("cut off")

        with pytest.raises(AudioError, match="cut off"):
            writer.add("long", {"mixture": blocks()})
        for name in "xy":
            writer.add(name, {"mixture": audio(name)})
    session.commit("more")
    assert names_of(exported) == [*NAMES, "x", "y"]
    assert verify(newest(exported))


@pytest.mark.parametrize(
    ("act", "names"),
    [
        (partial(mend, audio_root="audio"), "abcd"),
        (partial(mend, audio_root="louder"), "abcd"),
        (partial(mend, audio_root="nowhere", drop=True), "acd"),
    ],
    ids=["equal bytes", "other bytes", "drop"],
)
def test_repair(world, exported, act, names):
    session = exported.writable_session("main")
    Storage(session.store, read_only=False).set("magnitude/c/0/0/1/0", b"damaged")
    assert [fault.track for fault in verify(session.store).faults] == ["b"]
    act(world, session.store)
    session.commit("repaired")
    found = magnitudes_of(newest(exported))
    assert "".join(found) == names
    assert all(data in world.magnitudes[name] for name, data in found.items())
    assert verify(newest(exported))
    assert Storage(newest(exported)).list("pending") == []


def test_repair_makes_extents_again(world, exported):
    session = exported.writable_session("main")
    Storage(session.store, read_only=False).delete("chunk/extent/c/0/0/0/0")
    assert not verify(session.store)
    assert repair(session.store).mended == ("chunk/extent/c/0/0/0/0",)


def test_workers_are_refused(world, repository):
    store = repository.writable_session("main").store
    with ThreadPoolExecutor(1) as pool:
        for workers in (2, pool):
            with pytest.raises(ValueError, match="is written by this process alone; leave workers out"):
                export(world, store, workers=workers)


def test_what_is_read_goes_to_other_processes(world, tmp_path):
    repository = icechunk.Repository.create(icechunk.local_filesystem_storage(str(tmp_path)))
    session = repository.writable_session("main")
    export(world, session.store)
    session.commit("export")
    db = norbert_store.open(newest(repository))
    again = pickle.loads(pickle.dumps(db))
    assert np.array_equal(again["a"].magnitude, db["a"].magnitude)


def test_ranges_and_sizes(exported):
    storage = Storage(newest(exported))
    shard = storage.get("magnitude/c/0/0/0/0") or b""
    assert storage.size("magnitude/c/0/0/0/0") == len(shard)
    assert storage.get_range("magnitude/c/0/0/0/0", len(shard) - 3, 10) == shard[-3:]
    assert storage.get_range("magnitude/c/0/0/0/0", len(shard) + 3, 10) == b""
    assert storage.get_suffix("magnitude/c/0/0/0/0", 10**6) == shard
    assert storage.get_suffix("zarr.json", 3) == (storage.get("zarr.json") or b"")[-3:]
    for missing in ("magnitude/c/0/0/50/0", "label/9/c/0", "nothing/zarr.json"):
        assert (storage.get(missing), storage.size(missing)) == (None, None)
