"""Writers that are cut off before or after any of their writes lose nothing that was healthy, and nothing is silent.

Cut off is: killed; a disk that is full from then on; an error of the disk, once; and a write that was done, but ended
in an error. Then a reader opens the store, two go on that had opened it before, and the next writer appends, resumes,
repairs or takes out.
"""

from __future__ import annotations

import errno
import os
import pickle
import random
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from zarr.storage import MemoryStore

import norbert_store
from norbert_store._check.repair import repair
from norbert_store._check.verify import verify
from norbert_store._storage.lock import LOCK_KEY
from norbert_store.errors import (
    DamagedError,
    StorageError,
    StoreChangedError,
    StoreExistsError,
    StoreNotFoundError,
)
from tests.files import files_below
from tests.writers import NAMES, WAYS, State, Way, World, append, export, files, make_world, mend, put

RATE = 8000


def create(world: World, place: Any) -> None:
    """Write an empty store."""
    transform = norbert_store.TF(rate=RATE, n_fft=64)
    options: dict[str, Any] = {"chunk_frames": 8, "shard_chunks": 4, "effort": 0, "transform": transform}
    norbert_store.create(place, targets=("mixture",), channels=1, **options).close()


def damage(state: State, *shards: int) -> State:
    return {**state, **{f"magnitude/c/0/0/{shard}/0": b"damaged" for shard in shards}}


def drop(world: World, place: Any) -> None:
    """Take out what is damaged."""
    mend(world, place, "nowhere", drop=True)


ALL = {
    "create": Way("nothing", create),
    "export": Way("nothing", export, adds="abcd"),
    **WAYS,
    "extents": Way("without extents", partial(mend, audio_root="nowhere")),
    "drop the first": Way("first", drop, takes="a"),
    "drop the last": Way("last", drop, takes="d"),
    "drop two": Way("two", drop, takes="ac"),
    "drop again": Way("dropped", drop, takes="d"),
    "drop all": Way("all", drop, takes="abcd"),
}
# the tracks that can't be read in a state
LOST = {
    "damaged": "b",
    "without extents": "abcd",
    "first": "a",
    "last": "d",
    "two": "ac",
    "dropped": "d",
    "all": "abcd",
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with make_world(tmp_path_factory.mktemp("cut off")) as made:
        whole = made.states["whole"]
        made.states["first"] = damage(whole, 0)
        made.states["last"] = damage(whole, 5)
        made.states["two"] = damage(whole, 0, 3)
        made.states["all"] = damage(whole, *range(6))
        yield made


# ---- cutting off


class CutOff(MemoryStore):
    """A place at which one of the writes fails, in some way."""

    def __init__(self, how: str, at: int) -> None:
        super().__init__()
        self.writes = 0
        self._how, self._at = how, at

    async def _write(self, key: str, write: Callable[[], Awaitable[None]]) -> None:
        if self._at < 0 or key == LOCK_KEY:
            await write()
            return
        self.writes += 1
        if self.writes == self._at and self._how == "done, and an error":
            await write()
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        if self.writes == self._at and self._how == "an error":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        if self.writes >= self._at and self._how == "full":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        await write()

    async def set(self, key: str, value: Any, byte_range: Any = None) -> None:
        await self._write(key, partial(super().set, key, value))

    async def set_if_not_exists(self, key: str, value: Any) -> None:
        await self._write(key, partial(super().set_if_not_exists, key, value))

    async def delete(self, key: str) -> None:
        await self._write(key, partial(super().delete, key))

    def begin(self) -> None:
        """Count from now on."""
        self._at = abs(self._at)


HOW = ("full", "an error", "done, and an error")


def cut_off_at(world: World, way: Way, how: str, at: int) -> tuple[State, list[Opened]]:
    """Have a writer cut off at a write; return what is there then, and who had opened it before."""
    place = CutOff(how, -at)
    put(place, world.states[way.state])
    opened = [Opened(place, way, is_warm) for is_warm in (False, True)] if way.state != "nothing" else []
    place.begin()
    with pytest.raises(StorageError):
        way.act(world, place)
    return files(place), opened


# ---- what may be found


class Opened:
    """A store as it was opened before."""

    def __init__(self, place: Any, way: Way, is_warm: bool) -> None:
        self.db = norbert_store.open(place)
        self._way = way
        if is_warm:
            self.db.tracks.load()
            for track in self.db:
                readable(track)

    def check(self, world: World) -> None:
        """It goes on with the tracks that it knows, or is told that they have moved."""
        try:
            names = self.db.names
        except StoreChangedError:
            assert self._way.takes
            return
        assert names == list(NAMES_IN.get(self._way.state, NAMES))
        for i in range(len(names)):
            try:
                found = self.db[i].magnitude.values.tobytes()
            except StoreChangedError:
                assert self._way.takes
            except DamagedError:
                assert names[i] in LOST.get(self._way.state, "")
            else:
                assert found in world.magnitudes[names[i]]


NAMES_IN = {"nothing": "", "begun": "ab", "dropped": "acd"}


def readable(track: norbert_store.Track) -> bytes | None:
    """Magnitudes of a track; None where reading tells that they are damaged."""
    try:
        return track.magnitude.values.tobytes()
    except DamagedError:
        return None


def orders(way: Way) -> list[list[str]]:
    """Which tracks may be there, in order: those before, those after, or some that were committed on the way."""
    before = NAMES_IN.get(way.state, NAMES)
    if way.takes:
        return [list(before), [*(name for name in before if name not in way.takes), *way.adds]]
    return [[*before, *way.adds[:count]] for count in range(len(way.adds) + 1)]


def check_opened(world: World, way: Way, state: State) -> list[str]:
    """What is there is one of the states; return the names."""
    place = put(MemoryStore(), state)
    try:
        db = norbert_store.open(place)
    except StoreNotFoundError:
        assert way.state == "nothing"
        return []
    assert db.names in orders(way)
    lost = LOST.get(way.state, "")
    for track in db:
        found = readable(track)
        assert found in world.magnitudes[track.name] or (found is None and track.name in lost)
    # a change that was cut off is told of, too: other programs see the old bytes
    report = verify(place, workers=1)
    assert report or lost or way.takes
    assert {fault.track for fault in report.faults if fault.track is not None} <= set(lost)
    return db.names


def check_appended(world: World, way: Way, state: State, names: list[str]) -> None:
    place = put(MemoryStore(), state)
    append(world, place, "y")
    check_next(world, way, place, [*names, "y"])


def check_next(world: World, way: Way, place: Any, names: list[str]) -> None:
    """What the next writer has left: no fewer tracks, and after a repair a whole store."""
    db = norbert_store.open(place)
    healthy = set(names) - set(LOST.get(way.state, ""))
    assert healthy <= set(db.names)
    assert set(names) - set(way.takes) <= set(db.names)
    for track in db:
        found = readable(track)
        assert found in world.magnitudes[track.name] or (found is None and track.name not in healthy)
    assert repair(place, audio_root=world.folder / "audio")
    assert verify(place, workers=1)
    after = norbert_store.open(place)
    assert after.names == db.names
    assert all(readable(track) in world.magnitudes[track.name] for track in after)
    assert not [key for key in files(place) if key.startswith("pending/")]


def check_resumed(world: World, way: Way, state: State, names: list[str]) -> None:
    place = put(MemoryStore(), state)
    if way is ALL["create"]:
        with pytest.raises(StoreExistsError) if state else pytest.raises(StoreNotFoundError):
            create(world, place) if state else norbert_store.append(place)
        return
    export(world, place, resume=True)
    assert set(NAMES) <= set(norbert_store.open(place).names)
    check_next(world, way, place, [*names, *(name for name in NAMES if name not in names)])
    if way.state in ("nothing", "begun"):
        assert norbert_store.open(place).digest() == world.digest


def check_repaired(world: World, way: Way, state: State, names: list[str]) -> None:
    place = put(MemoryStore(), state)
    assert repair(place, audio_root=world.folder / "audio")
    check_next(world, way, place, names)
    if way is ALL["repair"] or way is ALL["extents"]:
        assert norbert_store.open(place).digest() == world.digest


def check_dropped(world: World, way: Way, state: State, names: list[str]) -> None:
    """Who takes out what is damaged takes out no more."""
    place = put(MemoryStore(), state)
    drop(world, place)
    lost = LOST.get(way.state, "") if way.state != "without extents" else ""
    db = norbert_store.open(place)
    assert set(names) - set(lost) <= set(db.names)
    assert all(readable(track) in world.magnitudes[track.name] for track in db)
    assert verify(place, workers=1)


def check_all(world: World, way: Way, state: State, opened: list[Opened]) -> None:
    """Whatever comes next, nothing is lost."""
    names = check_opened(world, way, state)
    for each in opened:
        each.check(world)
    if "zarr.json" in state:
        check_appended(world, way, state, names)
        check_repaired(world, way, state, names)
        check_dropped(world, way, state, names)
    check_resumed(world, way, state, names)


# ---- all of them

# which are tried of a way, unless all are asked for by --all-states
SOME = 6


def count_writes(world: World, way: str) -> int:
    """Count the writes of a writer that isn't cut off."""
    place = CutOff("full", -(10**6))
    put(place, world.states[ALL[way].state])
    place.begin()
    ALL[way].act(world, place)
    return place.writes


def try_writes(world: World, way: str, how: str, numbers: Sequence[int]) -> None:
    for number in numbers:
        state, opened = cut_off_at(world, ALL[way], how, number)
        try:
            check_all(world, ALL[way], state, opened)
        except BaseException as error:
            error.add_note(f"{way}: {how} at write {number}")
            raise


QUICK = [
    ("append with a label", "full", 10),
    ("export", "an error", 50),
    ("repair with other bytes", "done, and an error", 3),
    ("drop", "full", 33),
    ("resume", "an error", 4),
]


@pytest.mark.parametrize(("way", "how", "number"), QUICK)
def test_a_writer_that_is_cut_off(world, way, how, number):
    try_writes(world, way, how, [number])


@pytest.mark.slow
@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("way", ALL)
def test_writers_that_are_cut_off_anywhere(world, way, how, request):
    numbers = range(1, count_writes(world, way) + 1)
    some = request.config.getoption("--all-states") or len(numbers) <= SOME
    try_writes(world, way, how, numbers if some else sorted(random.sample(numbers, SOME)))
    print(f"{way}, {how}: {len(numbers)} writes")


# ---- killed

# Does something, and kills itself before or after one of the files is put in its place, or deleted.
KILLED = """
import os, pickle, signal, sys
from tests.test_cut_off import ALL
from tests.writers import short_blocks

folder, world, way, when, at = pickle.load(sys.stdin.buffer)
left = [at]

def dying(call):
    def called(*arguments):
        if not str(arguments[-1]).startswith(folder) or str(arguments[-1]).endswith("writer.lock"):
            return call(*arguments)
        left[0] -= 1
        if left[0] == 0 and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        found = call(*arguments)
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return found
    return called

os.replace, os.unlink = dying(os.replace), dying(os.unlink)
with short_blocks():
    ALL[way].act(world, folder)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no such signal there")
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("way", ["export", "append with a label", "repair with other bytes", "drop", "resume"])
def test_writers_that_are_killed(world, tmp_path, way, when):
    """Processes, in a folder."""
    for at in random.sample(range(1, {"repair with other bytes": 7, "drop": 12}.get(way, 20)), 2):
        folder = tmp_path / str(at) / "x.zarr"
        folder.parent.mkdir()
        put(folder, world.states[ALL[way].state])
        command = [sys.executable, "-c", KILLED]
        arguments = pickle.dumps((str(folder), world, way, when, at))
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])}
        done = subprocess.run(command, input=arguments, capture_output=True, env=environment)
        assert (done.returncode, done.stderr) == (-signal.SIGKILL, b"")
        state = {key: data for key, data in files_below(folder).items() if key != LOCK_KEY}
        check_all(world, ALL[way], state, [])
        # and where it happened, by another process
        again = [sys.executable, "-m", "norbert_store._command.cli", "verify", str(folder)]
        told = subprocess.run(again, capture_output=True, env=environment).returncode
        assert told == 0 or LOST.get(ALL[way].state)
        if "zarr.json" in state:
            append(world, folder, "y")
            assert readable(norbert_store.open(folder)["y"]) in world.magnitudes["y"]
            assert not [key for key in files_below(folder) if key.endswith(".partial") or key.startswith("pending/")]
