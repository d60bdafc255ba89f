"""Two writers at one store on object storage, of which one was taken for dead: it loses nothing, whatever it writes.

One writer stops before one of its writes, any of them: a shard, a block, the document, a file of a change, a deletion.
Another one takes its lock over and comes as far as one of its own writes, any of them. Then the first one goes on, as
if it had looked at the lock a moment ago, until it is told; and then the second one.
"""

from __future__ import annotations

import itertools
import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import obstore.store
import pytest
import xarray
from zarr.storage import ObjectStore

import norbert_store
from norbert_store._check.repair import repair
from norbert_store._check.verify import verify
from norbert_store._storage.lock import LOCK_KEY
from norbert_store._storage.storage import Storage
from norbert_store.errors import (
    AudioError,
    DamagedError,
    NorbertStoreError,
    StoreChangedError,
    StoreInUseError,
    StoreReplacedError,
)
from tests.servers import BUCKET, S3
from tests.writers import NAMES, WAYS, Way, World, append, audio, export, make_world, put

_numbers = itertools.count()


class Running(threading.Thread):
    """A writer on its way, which stops before one of its writes until it is told to go on.

    In the end it is done, or was told that the store is another's, or isn't what it was.
    """

    def __init__(self, act: Callable[[Any], None], place: Any, stop_at: int = 0) -> None:
        super().__init__()
        self.writes = 0
        self.is_done = False
        self.told: NorbertStoreError | None = None
        self._act, self._place, self._stop_at = act, place, stop_at
        self._has_stopped, self._may_go = threading.Event(), threading.Event()
        self.start()

    def run(self) -> None:
        _own.running = self
        try:
            self._act(self._place)
            self.is_done = True
        except (StoreInUseError, StoreChangedError, StoreReplacedError) as error:
            self.told = error
        finally:
            self._has_stopped.set()

    def step(self) -> None:
        """Come to a write."""
        self.writes += 1
        if self.writes == self._stop_at:
            self._has_stopped.set()
            assert self._may_go.wait(60)

    def until_it_stops(self) -> Running:
        assert self._has_stopped.wait(60)
        return self

    def to_the_end(self) -> Running:
        self._may_go.set()
        self.join(60)
        assert self.is_done or self.told is not None
        return self


_own = threading.local()


@pytest.fixture(autouse=True)
def stopping(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have writers stop between their look at the lock and the write."""
    look = Storage.__dict__["_keys_to_write"].fget

    def keys_to_write(storage: Storage) -> Any:
        keys = look(storage)
        running = getattr(_own, "running", None)
        if running is not None and storage._guard is not None:  # the lock itself has none
            running.step()
        return keys

    monkeypatch.setattr(Storage, "_keys_to_write", property(keys_to_write))


def take_over(place: Any) -> None:
    """Make a lock look as if its holder died an hour ago, as a clock that is off does."""
    storage = Storage(place, read_only=False)
    found = json.loads(storage.get(LOCK_KEY) or b"{}")
    if found:
        late = {**found, "machine": "another", "renewed": time.time() - 2 * 3600}
        storage.set(LOCK_KEY, json.dumps(late).encode())


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with make_world(tmp_path_factory.mktemp("late")) as made:
        yield made


def in_memory() -> ObjectStore[Any]:
    return ObjectStore(obstore.store.MemoryStore())


OTHERS = {
    **WAYS,
    "append": Way("", partial(append, name="y"), adds="y"),
    "append with a label": Way("", partial(append, name="y", tempo=1.5), adds="y"),
}
del OTHERS["repair"]


def check(world: World, place: Any, begun_with: str, late: Running, other: Running, ways: tuple[Way, Way]) -> None:
    """Nothing that was committed is lost, nothing is silent, and whoever writes next goes on."""
    before = {"begun": {"a", "b"}}.get(begun_with, set(NAMES))
    surely = before | {name for one, way in zip((late, other), ways, strict=True) if one.is_done for name in way.adds}
    for _ in range(2):
        db = norbert_store.open(place)
        assert surely - {name for way in ways for name in way.takes} <= set(db.names) <= world.magnitudes.keys()
        assert len(set(db.names)) == len(db.names)
        for track in db:
            try:
                found = track.magnitude.values.tobytes()
            except DamagedError:
                assert begun_with == "damaged"
                assert track.name == "b"
            else:
                assert found in world.magnitudes[track.name], track.name
        if begun_with != "damaged":
            assert verify(place, workers=1)
        surely |= set(db.names)
        # and goes on
        export(world, place, resume=True)
        surely |= set(NAMES)
    assert repair(place, audio_root=world.folder / "audio")
    assert verify(place, workers=1)
    assert norbert_store.open(place)._selection.snapshot.document.pending == ()


def writes_of(world: World, state: str, way: Way) -> int:
    """Count the writes of a writer who is alone."""
    running = Running(partial(way.act, world), put(in_memory(), world.states[state])).to_the_end()
    assert running.is_done
    return running.writes


def try_pairs(
    world: World, late: str, other: str, pairs: list[tuple[int, int]], make: Callable[[], Any] = in_memory
) -> None:
    """Have a writer stop before one of its writes, and another one take over up to one of its own; then both go on."""
    ways = WAYS[late], OTHERS[other]
    for one, two in pairs:
        place = put(make(), world.states[ways[0].state])
        first = Running(partial(ways[0].act, world), place, one).until_it_stops()
        take_over(place)
        second = Running(partial(ways[1].act, world), place, two).until_it_stops()
        first.to_the_end()
        second.to_the_end()
        try:
            check(world, place, ways[0].state, first, second, ways)
        except BaseException as error:
            error.add_note(f"{late} stopped before write {one}, {other} before write {two}")
            raise


# ---- all of them

# how many pairs of writes are tried of two writers, unless all are asked for by --all-states
SOME_PAIRS = 20

SOME = [
    ("append", "append", (2, 1)),
    ("append", "resume", (5, 8)),
    ("append with a label", "append with a label", (14, 14)),
    ("drop", "append", (3, 2)),
    ("drop", "append", (40, 6)),
    ("repair with other bytes", "drop", (4, 3)),
    ("resume", "resume", (3, 4)),
    ("resume", "append", (1, 3)),
]


@pytest.mark.parametrize(("late", "other", "pair"), SOME)
def test_a_late_write_before_a_write_of_another_writer(world, late, other, pair):
    try_pairs(world, late, other, [pair])


@pytest.mark.slow
@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("late", WAYS)
def test_a_late_write_of_each_kind_before_each_write_of_another_writer(world, late, other, request):
    counts = [writes_of(world, WAYS[late].state, way) for way in (WAYS[late], OTHERS[other])]
    pairs = [(one, two) for one in range(1, counts[0] + 1) for two in range(1, counts[1] + 2)]
    if not request.config.getoption("--all-states"):
        pairs = random.sample(pairs, min(SOME_PAIRS, len(pairs)))
    try_pairs(world, late, other, pairs)


@pytest.mark.slow
@pytest.mark.parametrize(("late", "other", "pair"), SOME)
@pytest.mark.parametrize("by", ["s3fs", "obstore"])
def test_a_late_write_on_s3(world, front, by, late, other, pair):
    """Its tags are the same again where the bytes are."""
    s3 = S3(front.url)

    def make():
        path = f"late/{next(_numbers)}"
        if by == "s3fs":
            return f"s3://{BUCKET}/{path}"
        return ObjectStore(obstore.store.S3Store(BUCKET, prefix=path, **s3.obstore_options()))

    try_pairs(world, late, other, [pair, (pair[0] + 3, pair[1] + 2)], make)


def test_where_a_stem_is_absent_what_was_left_behind_is_emptied(options):
    place = in_memory()
    stems = {"mixture": audio("b"), "vocals": audio("b")}
    options = options(targets=list(stems), channels=1)
    with norbert_store.create(place, **options) as writer:
        writer.add("a", stems)
    storage = Storage(place, read_only=False)
    for target in range(2):
        for number in (1, 2):
            storage.set(f"magnitude/c/{target}/0/{number}/0", storage.get(f"magnitude/c/{target}/0/0/0") or b"")
    with norbert_store.append(place) as writer:
        writer.add("b", {"mixture": audio("x")})
        with pytest.raises(AudioError):
            writer.add("c", {"vocals": itertools.chain(np.array_split(audio("y"), 3), [np.zeros((1, 7))])})
        writer.add("d", {"vocals": audio("y")})
    assert verify(place)
    db = norbert_store.open(place)
    plain = xarray.open_zarr(place).magnitude
    assert np.array_equal(plain, db.to_xarray().magnitude, equal_nan=True)
    for name, absent in (("b", 1), ("d", 0)):
        track = db[name]
        assert np.isnan(plain[absent, :, track.start : track.start + track.frames]).all()
