"""Mixtures of two valid states of stores are never read as if they were one.

Files of one state come to lie beside those of another when a copy is cut off, when a store is exported anew where
another one is open, or when a backup is put back in part. Whatever is read then, by a reader that opens the store or
by one that had opened it before, is of one of the two states, or a typed error; and `verify` tells of every mixture
that reads as neither of them whole.
"""

from __future__ import annotations

import functools
import itertools
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from zarr.storage import MemoryStore

import norbert_store
from norbert_store._check.repair import repair
from norbert_store._check.verify import verify
from norbert_store._format.arrays import encode_block
from norbert_store._format.document import ROOT_KEY, Document
from norbert_store._format.layout import Layout
from norbert_store._read.frames import Frames, Wanted
from norbert_store._storage.storage import Storage
from norbert_store._store import selection_of
from norbert_store._write import settings
from norbert_store.errors import DamagedError, NorbertStoreError, StoreChangedError, StoreReplacedError

RATE = 8000
TARGETS = ("mixture", "vocals")
NAMES = ("a", "b", "c", "d", "e")
SECONDS = 0.04

State = dict[str, bytes]
"""All files of a store, by key."""

Pieces = dict[str, Any]
"""What a reader got, piece by piece; `ERROR` where it was told that something is wrong."""

ERROR = object()


# ---- states


def audio(name: str, seed: int = 0, gain: float = 1.0) -> dict[str, np.ndarray]:
    """Stems of a track, as 16-bit files hold them; one track hasn't all."""
    rng = np.random.default_rng([seed, ord(name)])
    stems = {target: np.rint(rng.uniform(-0.5, 0.5, (480 + 16 * ord(name), 1)) * 32768) / 32768 for target in TARGETS}
    return {target: gain * stem for target, stem in stems.items() if (name, target) != ("c", "vocals")}


def add(writer: norbert_store.Writer, names: str, seed: int = 0, gain: float = 1.0) -> None:
    """Append tracks, with labels of each type, gaps included."""
    for name in names:
        number = ord(name)
        labels: dict[str, Any] = {
            "artist": f"by {name}",
            "title": f"on {name}",
            "year": number,
            "age": 2 * number,
        }
        labels |= {"tags": [name, "x"], "live": number % 2 == 0, "tempo": None if name == "b" else number / 7}
        split = "train" if number % 2 else "test"
        writer.add(
            name, audio(name, seed, gain), split=split, source=f"audio/{name}", metadata={"n": number}, labels=labels
        )


def files(location: Any) -> State:
    """Read all files of a store."""
    storage = Storage(location)
    return {key: storage.get(key) or b"" for key in storage.list() if key != "writer.lock"}


def put(location: Any, state: State) -> None:
    """Make a place hold these files and no others."""
    storage = Storage(location, read_only=False)
    for key in set(storage.list()) - state.keys():
        storage.delete(key)
    for key, data in state.items():
        if storage.get(key) != data:
            if storage.folder is None:
                storage.set(key, data)
            else:  # without waiting for the disk
                path = storage.folder / key
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)


@pytest.fixture(scope="module")
def states(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], State]]:
    """Valid states, by what they are beside the state "A"; each is made when it is first asked for."""
    root = tmp_path_factory.mktemp("louder")
    made: dict[str, State] = {}

    def state(name: str) -> State:
        if name not in made:
            made[name] = MAKERS[name](state, root)
        return made[name]

    with pytest.MonkeyPatch.context() as patch:
        # small blocks, so that each array has full ones and one that grows
        patch.setattr(settings, "ROWS", 2)
        patch.setattr(settings, "Layout", functools.partial(Layout, positions=8))
        yield state


def exported(names: str = "abcde", seed: int = 0, gain: float = 1.0, **options: Any) -> State:
    """A store of some tracks."""
    options = {"transform": norbert_store.TF(rate=RATE, n_fft=64), "chunk_frames": 8, "shard_chunks": 4, **options}
    place = MemoryStore()
    with norbert_store.create(place, targets=TARGETS, channels=1, effort=0, bundle_tracks=2, **options) as writer:
        add(writer, names, seed, gain)
    return files(place)


def grown(state: State, names: str, seed: int = 0, **more_labels: Any) -> State:
    """What a store becomes by tracks that are appended."""
    place = MemoryStore()
    put(place, state)
    with norbert_store.append(place, bundle_tracks=2) as writer:
        add(writer, names, seed)
        if more_labels:
            writer.add("with more labels", audio("x"), labels=more_labels)
    return files(place)


def dropped(state: State) -> State:
    """What a store becomes by a repair that takes tracks out."""
    place = MemoryStore()
    put(place, {**state, "magnitude/c/0/0/0/0": b"damaged"})
    assert repair(place, drop=True).dropped
    return files(place)


def repaired(state: State, root: Path) -> State:
    """What a store becomes by a repair whose encoder gives other bytes, here because the audio isn't quite the same."""
    for name in NAMES:
        (root / "audio" / name).mkdir(parents=True)
        for target, stem in audio(name, gain=1.001).items():
            soundfile.write(root / "audio" / name / f"{target}.wav", stem, RATE, "FLOAT")
    place = MemoryStore()
    put(place, {**state, "magnitude/c/0/0/0/0": b"damaged", "magnitude/c/1/0/3/0": b"damaged"})
    assert repair(place, audio_root=root)
    return files(place)


MAKERS: dict[str, Callable[[Callable[[str], State], Path], State]] = {
    "older": lambda states, root: exported("abc"),
    "A": lambda states, root: grown(states("older"), "de"),
    "newer": lambda states, root: grown(states("A"), "fg", mood="calm"),
    "fork": lambda states, root: grown(states("older"), "xe", 7),
    "longer fork": lambda states, root: grown(states("fork"), "z", 7),
    "dropped": lambda states, root: dropped(states("A")),
    "repaired": lambda states, root: repaired(states("A"), root),
    "one more in the middle": lambda states, root: exported("abxcde"),
    "other audio": lambda states, root: exported(seed=1),
    "other quality": lambda states, root: exported(quality=70),
    "louder": lambda states, root: exported(gain=8.0),  # other scales, and equal levels
    "the same again": lambda states, root: exported(),
}
# what follows A without moving rows: a reader that had A open may get some chunks before the change, and some after it
FOLLOWING = ("newer", "repaired")
OTHERS = [name for name in MAKERS if name != "A"]
QUICK = ("fork", "repaired")
# tried with each other state, unless all are asked for by `pytest -m "" tests/test_states.py --all-states`
SOME_STATES = 8
KINDS = [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in OTHERS]


# ---- readers


class Reader:
    """A store as it was opened at some moment, with the excerpts that were drawn from it then."""

    def __init__(self, location: Any, warm: bool) -> None:
        self.db = norbert_store.open(location)
        self.excerpts = self.db.excerpts(SECONDS, targets=["mixture"], per_epoch=8) if warm else None
        if warm:
            self.db.tracks.load()
            self.db[0].levels.load()

    def pieces(self) -> Pieces:
        """Read everything, piece by piece."""
        db, frames = self.db, selection_of(self.db).frames
        found = {"names": attempt(lambda: db.names), "splits": attempt(lambda: db.splits)}
        found["table"] = attempt(lambda: repr(sorted(db.tracks.load().to_dict().items())))
        for i in range(len(db)):
            for what in ("name", "split", "source", "metadata", "labels", "samples", "frames", "present", "scales"):
                found[f"{i} {what}"] = attempt(functools.partial(lambda i, what: repr(getattr(db[i], what)), i, what))
            for target in range(len(TARGETS)):
                found[f"{i} {TARGETS[target]}"] = attempt(functools.partial(magnitudes_of, frames, i, target))
        if self.excerpts is None:
            excerpts = attempt(lambda: db.excerpts(SECONDS, targets=["mixture"], per_epoch=8))
            self.excerpts = None if excerpts is ERROR else excerpts
        for i in range(0 if self.excerpts is None else 8):
            found[f"excerpt {i}"] = attempt(functools.partial(lambda i: values_of(self.excerpts[i]), i))
        return found


def magnitudes_of(frames: Frames, row: int, target: int) -> bytes:
    """Read a stem, as `Track.magnitude` does."""
    start, length = frames.snapshot.span(row)
    return frames.magnitude(Wanted([target], [0], np.arange(start, start + length), row=row)).tobytes()


def values_of(excerpt: dict[str, Any]) -> tuple[Any, ...]:
    return excerpt["track"], excerpt["start"], excerpt["magnitude"].tobytes()


def attempt(read: Callable[[], Any]) -> Any:
    """Read something; an error of this library is an answer, any other one counts as a wrong answer."""
    try:
        return read()
    except NorbertStoreError:
        return ERROR
    except Exception as error:
        return f"untyped: {error!r}"


def read(location: Any) -> Pieces:
    """Read everything by a new reader."""
    reader = attempt(lambda: Reader(location, warm=False))
    return {"open": ERROR} if reader is ERROR else reader.pieces()


def is_part_of(found: Pieces, whole: Pieces) -> bool:
    """Whether all that was read, errors aside, is of one state."""
    return all(value is ERROR or (key in whole and whole[key] == value) for key, value in found.items())


def is_of_either(found: Pieces, one: Pieces, other: Pieces) -> bool:
    """Whether each piece is of one of two states."""
    return all(value in (ERROR, one.get(key, ERROR), other.get(key, ERROR)) for key, value in found.items())


def is_all_of(found: Pieces, whole: Pieces) -> bool:
    return found == whole


class Matrix:
    """Puts mixed states to a place where readers have a whole one open, and keeps the names of the silent ones."""

    def __init__(self, location: Any, states: Callable[[str], State], most: int | None = None) -> None:
        self.location = location
        self.states = states
        self.most = most  # of the mixtures with one other state, some of which are drawn anew in each run
        self.tried = 0
        self.silent: list[str] = []
        self.untold: list[str] = []

    def whole(self, name: str) -> Pieces:
        """What a reader gets of a valid state."""
        put(self.location, self.states(name))
        found = read(self.location)
        assert ERROR not in found.values()
        assert verify(self.location)
        return found

    def try_all(self, other: str, mixed: Iterator[tuple[str, State]]) -> None:
        """Try mixtures of A and another state."""
        other_whole, a_whole = self.whole(other), self.whole("A")
        every = list(mixed)
        for what, state in every if self.most is None else random.sample(every, min(len(every), self.most)):
            put(self.location, self.states("A"))
            opened, warm = Reader(self.location, warm=False), Reader(self.location, warm=True)
            put(self.location, state)
            fresh = read(self.location)
            for who, found in (("fresh", fresh), ("opened", opened.pieces()), ("warm", warm.pieces())):
                either = who != "fresh" and other in FOLLOWING and is_of_either(found, a_whole, other_whole)
                if not either and not is_part_of(found, a_whole) and not is_part_of(found, other_whole):
                    wrong = [key for key, value in found.items() if value not in (ERROR, a_whole.get(key))]
                    self.silent.append(f"{other}, {what}, {who} reader: {', '.join(wrong)}")
            if not self.is_told() and not is_all_of(fresh, a_whole) and not is_all_of(fresh, other_whole):
                self.untold.append(f"{other}, {what}")
            self.tried += 1

    def is_told(self) -> bool:
        """Whether `verify` tells that something is wrong."""
        try:
            return not verify(self.location, workers=1)
        except NorbertStoreError:
            return True


@pytest.fixture(params=["folder", pytest.param("memory", marks=pytest.mark.slow)])
def matrix(request: pytest.FixtureRequest, tmp_path: Path, states: Callable[[str], State]) -> Iterator[Matrix]:
    most = None if request.config.getoption("--all-states") else SOME_STATES
    matrix = Matrix(MemoryStore() if request.param == "memory" else tmp_path / "x.zarr", states, most)
    yield matrix
    print(f"{matrix.tried} states, silent {len(matrix.silent)}, not told by verify {len(matrix.untold)}")
    assert matrix.tried
    assert matrix.silent == []
    assert matrix.untold == []


# ---- mixtures


def with_one_file(a: State, b: State) -> Iterator[tuple[str, State]]:
    """A with one file of B, or without it."""
    for key in sorted(a.keys() | b.keys()):
        if a.get(key) != b.get(key):
            state = {**a, key: b[key]} if key in b else {name: data for name, data in a.items() if name != key}
            yield key, state


def copied_in_part(a: State, b: State) -> Iterator[tuple[str, State]]:
    """A on its way to become B, by copies in some orders that were cut off after each file."""
    keys = sorted(a.keys() | b.keys(), key=lambda key: (key == ROOT_KEY, key))
    orders = {"root last": keys, "root first": keys[::-1], "extents first": sorted(keys, key=is_no_extent)}
    orders |= {f"at random, seed {seed}": random.Random(seed).sample(keys, len(keys)) for seed in range(5)}
    for order, all_keys in orders.items():
        for count in range(1, len(all_keys)):
            source = {**dict.fromkeys(all_keys, a), **dict.fromkeys(all_keys[:count], b)}
            state = {key: source[key][key] for key in all_keys if key in source[key]}
            yield f"{order}, {count} files", state


def is_no_extent(key: str) -> bool:
    return not key.startswith("chunk/")


def with_a_folder(a: State, b: State) -> Iterator[tuple[str, State]]:
    """A with all files of B below a folder."""
    for folder in ("magnitude", "track", "label", "chunk", "track/name", "magnitude/c/0", ""):
        kept = {key: data for key, data in a.items() if not key.startswith(folder)}
        yield folder or "all", kept | {key: data for key, data in b.items() if key.startswith(folder)}


@pytest.mark.parametrize("other", KINDS)
def test_one_file_of_another_state(matrix, other):
    matrix.try_all(other, with_one_file(matrix.states("A"), matrix.states(other)))


@pytest.mark.parametrize("other", KINDS)
def test_a_folder_of_another_state(matrix, other):
    matrix.try_all(other, with_a_folder(matrix.states("A"), matrix.states(other)))


@pytest.mark.slow
@pytest.mark.parametrize("other", OTHERS)
def test_a_copy_of_another_state_that_was_cut_off(matrix, other):
    matrix.try_all(other, copied_in_part(matrix.states("A"), matrix.states(other)))


@pytest.mark.slow
@pytest.mark.parametrize("other", ["older", "newer", "repaired", "dropped"])
def test_a_copy_that_was_cut_off_is_written_on(states, other, request):
    """As by a backup that was put back in part: it can't be written on, or what is read then is right."""
    a, b = states("A"), states(other)
    wholes = [read(put_anew(state)) for state in (a, b)]
    every = list(copied_in_part(a, b))
    for what, state in every if request.config.getoption("--all-states") else random.sample(every, 20):
        place = put_anew(state)
        try:
            with norbert_store.append(place) as writer:
                add(writer, "z")
        except NorbertStoreError:
            continue
        db = norbert_store.open(place)
        for name in db.names:
            for target in TARGETS:
                found = attempt(functools.partial(stem_of, db, name, target))
                known = [
                    whole.get(f"{whole['names'].index(name)} {target}") for whole in wholes if name in whole["names"]
                ]
                if name == "z":
                    known = [stem_of(norbert_store.open(put_anew(grown(a, "z"))), "z", target)]
                assert found is ERROR or found in known, f"{what}: {name}, {target}"
        assert stem_of(db, "z", "mixture")


def put_anew(state: State) -> MemoryStore:
    place = MemoryStore()
    put(place, state)
    return place


def stem_of(db: norbert_store.Store, name: str, target: str) -> bytes:
    return magnitudes_of(selection_of(db).frames, db.names.index(name), TARGETS.index(target))


def are_neighbours(one: str, other: str) -> bool:
    """Whether two blocks are of one array, or have the same rows."""
    (array, block), (other_array, other_block) = one.split("/c/"), other.split("/c/")
    return array == other_array or block.split("/")[0] == other_block.split("/")[0]


SOME = ("track/start/", "track/samples/")
ALL = ("track/", "label/", "chunk/")


@pytest.mark.parametrize("groups", [SOME, pytest.param(ALL, marks=pytest.mark.slow)], ids=["some", "all"])
def test_two_blocks_of_the_table_swapped(matrix, groups):
    a = matrix.states("A")
    blocks = [key for key in a if key.startswith(groups) and "/c/" in key]
    pairs = [pair for pair in itertools.combinations(blocks, 2) if are_neighbours(*pair) and a[pair[0]] != a[pair[1]]]
    matrix.try_all("A", ((f"{one} and {two}", {**a, one: a[two], two: a[one]}) for one, two in pairs))


def test_a_mixture_that_nothing_can_tell_is_counted_as_silent(tmp_path, states):
    """What is written on purpose, with checksums that fit, shows that the matrix would notice."""
    a = states("A")
    document = Document.from_json(a[ROOT_KEY], "A")
    metadata = document.arrays()["track/split"]
    values = document.check_block("track/split", (0,), a["track/split/c/0"])[::-1].copy()
    forged = document.with_blocks({("track/split", (0,)): values}).to_json()
    matrix = Matrix(tmp_path / "x.zarr", states)
    state = {**a, ROOT_KEY: forged, "track/split/c/0": encode_block(metadata, values)}
    matrix.try_all("A", iter([("forged", state)]))
    assert "A, forged, fresh reader: table, 0 split, 1 split" in matrix.silent
    assert matrix.untold == ["A, forged"]


# ---- a store that is exported anew where it is open


@pytest.fixture(params=["folder", "memory"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    return MemoryStore() if request.param == "memory" else tmp_path / "x.zarr"


@pytest.mark.parametrize("other", ["one more in the middle", "other audio", "other quality"])
def test_a_store_that_is_exported_anew_where_it_is_open(location, states, other):
    put(location, states("A"))
    db = norbert_store.open(location)
    excerpts = db.excerpts(SECONDS, targets=["vocals"], per_epoch=64)
    labels, expected = db.tracks.load(), [values_of(excerpt) for excerpt in excerpts]
    put(location, states(other))
    assert db.names == list(NAMES)
    assert db.tracks.identical(labels)
    # what lies where it lay, byte for byte, is the track's still
    assert all(
        attempt(functools.partial(lambda i: values_of(excerpts[i]), i)) in (ERROR, expected[i]) for i in range(64)
    )
    with pytest.raises(StoreReplacedError, match="was replaced by another store .* open it again"):
        db["e"].magnitude.load()
    with pytest.raises(StoreReplacedError, match="was replaced by another store .* open it again"):
        _ = [values_of(excerpt) for excerpt in excerpts]
    assert read(location) == Matrix(location, states).whole(other)


def test_shards_of_another_store_of_equal_settings(location, states):
    """As a copy of a new export leaves it that has come as far as the magnitudes."""
    a, b = states("A"), states("one more in the middle")
    mixed = {key: data for key, data in a.items() if not key.startswith("magnitude/c/")}
    put(location, mixed | {key: data for key, data in b.items() if key.startswith("magnitude/c/")})
    assert {fault.track for fault in verify(location).faults} >= {"c", "d", "e"}
    db = norbert_store.open(location)
    for name in ("c", "d", "e"):
        with pytest.raises(DamagedError, match="another one|doesn't match|missing"):
            db[name].magnitude.sel(target="mixture").load()


def test_a_reader_that_opened_the_store_before_a_repair_goes_on(location, states):
    """The same audio in other bytes: where chunks lie now is read anew."""
    put(location, states("A"))
    opened, warm = Reader(location, warm=False), Reader(location, warm=True)
    put(location, states("repaired"))
    fresh = read(location)
    assert opened.pieces() == fresh
    assert warm.pieces() == fresh


def test_a_reader_that_opened_the_store_before_tracks_were_taken_out_is_told(location, states):
    put(location, states("A"))
    db = norbert_store.open(location)
    put(location, states("dropped"))
    with pytest.raises(StoreChangedError, match="have moved .* open it again"):
        _ = db.names
    assert len(norbert_store.open(location)) < len(db)


@pytest.mark.parametrize("other", ["older", "fork"])
def test_a_store_that_went_back_or_on_in_another_way_is_another_one(location, states, other):
    put(location, states("A"))
    db = norbert_store.open(location)
    put(location, states(other))
    with pytest.raises(StoreReplacedError, match="an older state of itself, or by a copy that was written to"):
        db["e"].magnitude.load()
