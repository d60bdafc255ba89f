"""What makes tracks part of a store: rows, documents, and the order in which they come to lie on disk."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray
import zarr
from zarr.storage import MemoryStore, WrapperStore

import norbert_store
from norbert_store._check.verify import verify
from norbert_store._format.document import Document
from norbert_store._format.layout import Layout
from norbert_store._storage.storage import Storage
from norbert_store.errors import FormatError, StorageError, StoreNotFoundError, TrackError
from tests.files import files_below

GOLDEN = sorted((Path(__file__).parents[1] / "data/stores").glob("1.*.zarr"))


def noise(seed, samples=300, channels=2):
    return np.random.default_rng(seed).uniform(-0.5, 0.5, (samples, channels)).astype(np.float32)


def assert_same_tracks(found, expected):
    """The first tracks of one store are those of the other."""
    assert found.names[: len(expected)] == expected.names
    for track, other in zip(found, expected, strict=False):
        assert np.array_equal(track.levels.values, other.levels.values)


# ---- appending


def test_appending_goes_on_behind_the_end(small_copy, small, music):
    new = music(5000, 11)
    with norbert_store.append(small_copy) as writer:
        writer.add("new", new, split="more", labels={"year": 2020, "live": True, "mood": "blue"})
        with pytest.raises(TrackError, match="a track named 'Ann - Long' already"):
            writer.add("Ann - Long", new, labels={"year": 1, "live": True})
        with pytest.raises(TrackError, match="'year' was int64 before"):
            writer.add("other", new, labels={"year": "1", "live": True})
    last = small.db[-1]
    db = norbert_store.open(small_copy)
    assert db["new"].start == -(-(last.start + last.frames) // 64) * 64
    assert db.names == [*small.db.names, "new"]
    assert_same_tracks(db, small.db)
    assert db.tracks.split.values.tolist() == ["train", "train", "test", "test", "more"]
    assert db.tracks.mood.values.tolist() == ["", "", "", "", "blue"]
    assert db["new"].metadata == {}
    assert db[0].metadata == small.db[0].metadata
    assert db.attributes["title"] == "Small"
    assert norbert_store.open(small_copy, split="more").names == ["new"]
    assert verify(small_copy)
    plain = xarray.open_zarr(small_copy)
    assert np.array_equal(plain.magnitude, db.to_xarray().magnitude, equal_nan=True)


@pytest.mark.parametrize("bundle_tracks", [1, 2, 5])
def test_appending_again_and_again_is_writing_at_once(options, shards, bundle_tracks):
    """As long as bundles end where the writer is closed."""
    audio = {f"track {i}": {"mixture": noise(i, 700 * (i + 1))} for i in range(6)}
    parts = [list(audio.items())[begin : begin + bundle_tracks] for begin in range(0, 6, bundle_tracks)]
    at_once, in_parts = MemoryStore(), MemoryStore()
    with norbert_store.create(at_once, **options(bundle_tracks=bundle_tracks)) as writer:
        for name, stems in audio.items():
            writer.add(name, stems)
    with norbert_store.create(in_parts, **options()):
        pass
    for part in parts:
        with norbert_store.append(in_parts, bundle_tracks=bundle_tracks) as writer:
            for name, stems in part:
                writer.add(name, stems)
    assert shards(in_parts) == shards(at_once)
    one, other = ({key: storage.get(key) for key in storage.list()} for storage in map(Storage, (at_once, in_parts)))
    documents = [Document.from_json(files.pop("zarr.json"), "") for files in (one, other)]
    assert one == other
    # the checksums are those of another store
    changing: dict[str, Any] = {"id": "", "revision": 1, "sums": {}, "created": "", "modified": ""}
    assert replace(documents[0], **changing) == replace(documents[1], **changing)
    assert documents[1].revision == 1 + 2 * len(parts)  # who appends writes the document first


def test_appending_nothing_changes_nothing(small_copy):
    before = files_below(small_copy)
    with norbert_store.append(small_copy) as writer:
        assert writer._committer.document.tracks == 4
    assert files_below(small_copy) == before


@pytest.mark.slow
@pytest.mark.parametrize("golden", GOLDEN, ids=lambda path: path.stem)
def test_appending_to_stores_of_released_versions(golden, tmp_path):
    path = shutil.copytree(golden, tmp_path / "x.zarr")
    expected = norbert_store.open(golden)
    labels: dict[str, str | int] = {"genre": "Jazz", "year": 1959, "live": False, "label": "new"}
    with norbert_store.append(path, bundle_tracks=2) as writer:
        writer.add("new", {"vocals": noise(0, 900)}, split="test", labels=labels)
        writer.add("another", {"mixture": noise(1)}, labels={"year": 0, "live": True})
    db = norbert_store.open(path)
    assert db.names == [*expected.names, "new", "another"]
    assert_same_tracks(db, expected)
    for column in expected.tracks:
        assert np.array_equal(
            db.tracks[column].values[:3],
            expected.tracks[column].values,
            equal_nan=expected.tracks[column].dtype.kind == "f",
        )
    assert db.tracks.label.values.tolist() == ["", "", "", "new", ""]
    assert db.attributes["title"] == "Three tracks"
    assert db.attributes["created_with"] == expected.attributes["created_with"]
    assert verify(path)
    # nothing that was committed is written anew
    before, after = files_below(golden), files_below(path)
    old = [key for key in before if key.startswith("magnitude/c/")]
    assert {key: after[key] for key in old} == {key: before[key] for key in old}


def change_document(store, **changes):
    path = store / "zarr.json"
    path.write_bytes(replace(Document.from_json(path.read_bytes(), ""), **changes).to_json())


def test_appending_keeps_what_this_version_does_not_know(small_copy):
    change_document(small_copy, version="1.7", unknown={"mood": "blue"})
    with norbert_store.append(small_copy) as writer:
        writer.add("new", {"mixture": noise(0)}, labels={"year": 1, "live": True})
    attributes = norbert_store.open(small_copy).attributes
    assert (attributes["mood"], attributes["version"]) == ("blue", "1.7")


@pytest.mark.parametrize("kind", ["mel", "ready"])
def test_appending_knows_the_transform(request, tmp_path, kind):
    made = request.getfixturevalue(kind)
    path = shutil.copytree(made.path, tmp_path / "x.zarr")
    ((name, stems),) = made.audio.items()
    with norbert_store.append(path) as writer:
        if kind == "mel":
            writer.add("again", stems)
        else:
            writer.add_magnitudes("again", stems, samples=7500)
    db = norbert_store.open(path)
    assert db.transform.config == made.db.transform.config
    assert np.array_equal(db["again"].levels.values, db[name].levels.values)
    assert verify(path)


def test_nothing_to_append_to(tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "my.txt").write_text("mine")
    zarr.create_group(tmp_path / "other.zarr")
    before = files_below(tmp_path)
    for name in ("nowhere", "file", "folder"):
        with pytest.raises(StoreNotFoundError, match=rf"there is no store at .*{name}: expected a zarr\.json there"):
            norbert_store.append(tmp_path / name)
    with pytest.raises(FormatError, match=r"other\.zarr is no norbert_store"):
        norbert_store.append(tmp_path / "other.zarr")
    with pytest.raises(ValueError, match="bundle_tracks must be"):
        norbert_store.append(tmp_path / "nowhere", bundle_tracks=0)
    assert files_below(tmp_path) == before
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": "2.0"}, "is written in format 2.0; this is norbert_store .*: upgrade norbert_store"),
        ({"writes": ("branches",)}, r"has features that this version can't write on: \['branches'\]; upgrade"),
        ({"reads": ("branches",)}, r"needs features that norbert_store .* can't read: \['branches'\]; upgrade it"),
    ],
)
def test_newer_stores_are_not_written_on(small_copy, changes, message):
    change_document(small_copy, **changes)
    before = files_below(small_copy)
    with pytest.raises(FormatError, match=message):
        norbert_store.append(small_copy)
    assert files_below(small_copy) == before


def test_what_only_writers_must_know_is_read(small_copy, small):
    change_document(small_copy, writes=("branches",))
    assert_same_tracks(norbert_store.open(small_copy), small.db)


def test_damaged_table_is_not_written_on(small_copy):
    name = small_copy / "track/name/c/0"
    data = bytearray(name.read_bytes())
    data[5] ^= 1
    name.write_bytes(data)
    before = files_below(small_copy)
    with pytest.raises(OSError, match="track/name/c/0: the file can't be read"):
        norbert_store.append(small_copy)
    name.unlink()
    with pytest.raises(OSError, match="track/name/c/0: the file is missing"):
        norbert_store.append(small_copy)
    del before["track/name/c/0"]
    assert files_below(small_copy) == before


def test_leftovers_of_a_writer_that_died_are_deleted(small_copy, music):
    committed = files_below(small_copy)
    # begun and not finished; and shards behind the end, of a stem that the next track hasn't
    for key in (
        "zarr.json.1a2b3c4d.partial",
        "track/name/c/0.00000000.partial",
        "magnitude/c/0/0/7/0.ffffffff.partial",
    ):
        (small_copy / key).parent.mkdir(parents=True, exist_ok=True)
        (small_copy / key).write_bytes(b"begun")
    for target in range(3):
        for shard in (7, 8, 20):
            path = small_copy / f"magnitude/c/{target}/0/{shard}/0"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(committed["magnitude/c/0/0/0/0"])
    (small_copy / "writer.lock").write_text("{}")
    assert verify(small_copy)
    with norbert_store.append(small_copy) as writer:
        assert files_below(small_copy).keys() - {"writer.lock"} == committed.keys()
        writer.add("new", {"mixture": music(5000, 1)["mixture"]}, labels={"year": 1, "live": True})
    assert np.isnan(norbert_store.open(small_copy)["new"].magnitude.sel(target="vocals")).all()
    assert verify(small_copy)


def test_changes_that_were_begun_and_not_committed_are_deleted(small_copy):
    committed = files_below(small_copy)
    pending = small_copy / "pending/7/track/name/c/0"
    pending.parent.mkdir(parents=True)
    pending.write_bytes(b"begun")
    norbert_store.append(small_copy).close()
    assert files_below(small_copy) == committed


# ---- long tables, and long axes

ROWS, POSITIONS = 4, 5


@pytest.fixture
def short_blocks(monkeypatch):
    """Blocks of 4 rows of the track table, and of 5 chunks of the packed axis: shards of 4 lie across their borders."""
    monkeypatch.setattr("norbert_store._write.settings.ROWS", ROWS)
    monkeypatch.setattr("norbert_store._write.settings.Layout", partial(Layout, positions=POSITIONS))


def of_length(number):
    """Audio of 1 to 3 chunks."""
    return {"mixture": noise(number, 1 + 1500 * (number % 4), channels=1)}


@pytest.fixture(scope="module")
def at_once(options):
    """15 tracks in blocks of the usual size, one commit."""
    store = MemoryStore()
    with norbert_store.create(store, **options(targets=["mixture"], channels=1)) as writer:
        for number in range(15):
            writer.add(f"track {number}", of_length(number))
    return norbert_store.open(store)


@pytest.mark.slow
@pytest.mark.usefixtures("short_blocks")
@pytest.mark.parametrize("late", [0, 2, 9, 99])
@pytest.mark.parametrize("parts", [[15], [3, 1, 4, 5, 0, 2], [4, 4, 1, 6], [5, 10]], ids=str)
def test_blocks_are_the_same_however_they_grow(options, at_once, parts, late):
    """Parts are committed, and every second one is by another writer; from some track on, there is another label."""
    store, expected = MemoryStore(), []
    writer = norbert_store.create(store, **options(targets=["mixture"], channels=1))
    for i, count in enumerate(parts):
        for number in range(len(expected), len(expected) + count):
            labels: dict[str, Any] = {"number": number, **({"late": f"from {number}"} if number >= late else {})}
            writer.add(f"track {number}", of_length(number), metadata={"n": number}, labels=labels)
            expected.append(labels)
        if i % 2:
            writer.close()
            writer = norbert_store.append(store)
        else:
            writer.commit()
        now = norbert_store.open(store)
        assert now.names == [f"track {i}" for i in range(len(expected))]
        assert_same_tracks(at_once, now)
    writer.close()
    db = norbert_store.open(store)
    assert [db[i].metadata for i in range(15)] == [{"n": i} for i in range(15)]
    assert db.tracks.number.values.tolist() == list(range(15))
    assert db.tracks._start.values.tolist() == [64 * i for i in range(15)]
    assert np.array_equal(db.to_xarray().magnitude, at_once.to_xarray().magnitude, equal_nan=True)
    assert xarray.open_zarr(store, group="track").name.values.tolist() == db.names
    found, right = (
        xarray.open_zarr(each, group="chunk").extent for each in (store, at_once._selection.snapshot.storage.store)
    )
    assert found.encoding["chunks"] == (1, 3, 1, POSITIONS)
    assert np.array_equal(found, right)
    if late < 15:
        assert db.tracks.late.values.tolist() == [labels.get("late", "") for labels in expected]
        assert xarray.open_zarr(store, group="label")["1"].values.tolist() == db.tracks.late.values.tolist()
    assert verify(store)


@pytest.mark.usefixtures("short_blocks")
@pytest.mark.parametrize("bundle_tracks", [1, 3, 15])
def test_excerpts_across_blocks_are_those_of_one_block(options, at_once, bundle_tracks):
    store = MemoryStore()
    with norbert_store.create(store, **options(targets=["mixture"], channels=1, bundle_tracks=bundle_tracks)) as writer:
        for number in range(15):
            writer.add(f"track {number}", of_length(number))
    found, expected = (db.excerpts(0.2, values="levels").read(range(50)) for db in (norbert_store.open(store), at_once))
    assert found["track"] == expected["track"]
    assert np.array_equal(found["magnitude"], expected["magnitude"])
    assert_same_tracks(norbert_store.open(store), at_once)


@pytest.mark.slow
@pytest.mark.usefixtures("short_blocks")
def test_blocks_that_are_full_are_not_written_again(tmp_path, options):
    path = tmp_path / "x.zarr"
    with norbert_store.create(path, **options(targets=["mixture"])) as writer:
        for i in range(2 * ROWS):
            writer.add(str(i), {"mixture": noise(i, 1)})
    keys = [f"track/name/c/{block}" for block in range(2)] + [f"chunk/extent/c/0/0/0/{block}" for block in range(5)]
    full = {key: (path / key).stat().st_mtime_ns for key in keys}
    with norbert_store.append(path) as writer:
        for i in range(2 * ROWS, 2 * ROWS + 3):
            writer.add(str(i), {"mixture": noise(i, 1)})
            writer.commit()
    assert {key: (path / key).stat().st_mtime_ns for key in keys} == full
    assert norbert_store.open(path).names == [str(i) for i in range(2 * ROWS + 3)]


# ---- writers that are cut off


class Recorded(WrapperStore):
    """Keeps what is written and deleted of a store, in order."""

    def __init__(self, store):
        super().__init__(store)
        self.steps = []

    async def set(self, key, value):
        self.steps.append((key, value.to_bytes()))
        await super().set(key, value)

    async def set_if_not_exists(self, key, value):
        if not await self.exists(key):
            self.steps.append((key, value.to_bytes()))
        await super().set_if_not_exists(key, value)

    async def delete(self, key):
        self.steps.append((key, None))
        await super().delete(key)


def add_labelled(writer, numbers):
    for number in numbers:
        labels = {"number": number, **({"late": f"from {number}"} if number > 6 else {})}
        writer.add(f"track {number}", of_length(number), labels=labels)


@pytest.mark.slow
@pytest.mark.usefixtures("short_blocks")
def test_writers_that_are_cut_off_anywhere_leave_a_whole_state(options, at_once):
    """Within blocks and over their borders, with a label that is new; whoever writes next goes on."""
    location = MemoryStore()
    with norbert_store.create(location, **options(targets=["mixture"], channels=1)) as writer:
        add_labelled(writer, range(6))
    before = {key: Storage(location).get(key) for key in Storage(location).list()}
    recorded = Recorded(location)
    with norbert_store.append(recorded) as writer:
        for numbers in (range(6, 7), range(7, 12)):
            add_labelled(writer, numbers)
            writer.commit()
    assert len(recorded.steps) > 40
    lengths = []
    for stop in range(len(recorded.steps) + 1):
        storage = Storage(MemoryStore(), read_only=False)
        for key, data in before.items():
            storage.set(key, data)
        early = norbert_store.open(storage.location)
        for key, data in recorded.steps[:stop]:
            if key != "writer.lock":
                storage.delete(key) if data is None else storage.set(key, data)
        assert early.names == [f"track {i}" for i in range(6)]
        assert early.tracks.number.values.tolist() == list(range(6))
        assert_same_tracks(at_once, early)
        now = norbert_store.open(storage.location)
        lengths.append(len(now))
        assert now.tracks.number.values.tolist() == list(range(len(now)))
        assert_same_tracks(at_once, now)
        assert verify(storage.location)
        if stop % 4 == 0:
            with norbert_store.append(storage.location) as writer:
                add_labelled(writer, range(len(now), 15))
            assert_same_tracks(norbert_store.open(storage.location), at_once)
            assert verify(storage.location)
    assert sorted(set(lengths)) == [6, 7, 12]
    assert lengths == sorted(lengths)


# Commits a track, and dies when all is written but the document.
DIES = """
import os, signal, sys
import numpy as np
import norbert_store

replace = os.replace
def dying(source, target):
    if str(target) == os.path.join(sys.argv[1], "zarr.json"):
        os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)

writer = norbert_store.append(sys.argv[1])
writer.add("new", {"mixture": np.full((5000, 2), 0.1)}, labels={"year": 5, "mood": "blue"})
os.replace = dying
writer.commit()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no such signal there")
def test_a_writer_that_dies_before_the_document_has_written_nothing_that_counts(small_copy, small):
    early = norbert_store.open(small_copy)
    before = files_below(small_copy)
    done = subprocess.run([sys.executable, "-c", DIES, small_copy], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (-9, "")
    after = files_below(small_copy)
    assert after["zarr.json"] == before["zarr.json"]
    assert after["track/name/c/0"] != before["track/name/c/0"]
    assert after["chunk/extent/c/0/0/0/0"] != before["chunk/extent/c/0/0/0/0"]
    for db in (early, norbert_store.open(small_copy)):
        xarray.testing.assert_identical(db.tracks.load(), small.db.tracks.load())
        assert_same_tracks(db, small.db)
        assert "mood" not in db.tracks
    assert verify(small_copy)
    with norbert_store.append(small_copy) as writer:
        writer.add("other", {"mixture": noise(0, 3000)}, labels={"mood": 7})
    assert norbert_store.open(small_copy)["other"].labels["mood"] == 7
    assert verify(small_copy)


# ---- readers that were there before


@pytest.mark.slow
def test_readers_go_on_while_tracks_are_appended(tmp_path, options):
    """What was opened before keeps its tracks and values; what is opened meanwhile sees whole tracks."""
    path = tmp_path / "x.zarr"
    with norbert_store.create(path, **options(targets=["mixture"])) as writer:
        for i in range(3):
            writer.add(str(i), {"mixture": noise(i, 3000)}, labels={"number": i})
    early = norbert_store.open(path)
    untouched = norbert_store.open(path)  # nothing was read of it before, not even names
    plain = xarray.open_zarr(path)
    expected = [track.levels.values for track in early]
    ended, faults, rounds = threading.Event(), [], []

    def read():
        try:
            while not ended.is_set() or len(rounds) < 2:
                for track, levels in zip(early, expected, strict=True):
                    assert np.array_equal(track.levels.values, levels)
                now = norbert_store.open(path)
                assert now.names == [str(i) for i in range(len(now))]
                assert now.tracks.number.values.tolist() == list(range(len(now)))
                assert not np.isnan(now[-1].magnitude).any()
                rounds.append(len(now))
        except BaseException as error:
            faults.append(error)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    try:
        with norbert_store.append(path) as writer:
            for i in range(3, 10):
                writer.add(str(i), {"mixture": noise(i, 3000)}, labels={"number": i, "late": "x"})
                writer.commit()
    finally:
        ended.set()
        for reader in readers:
            reader.join()
    assert faults == []
    for db in (early, untouched):
        assert db.names == ["0", "1", "2"]
        assert db.tracks.number.values.tolist() == [0, 1, 2]
        assert all(np.array_equal(track.levels.values, levels) for track, levels in zip(db, expected, strict=True))
    assert np.array_equal(plain.magnitude, early.to_xarray().magnitude, equal_nan=True)
    assert len(norbert_store.open(path)) == 10
    assert verify(path)


# ---- the order of things


def test_everything_is_on_disk_before_the_document_that_commits_it(tmp_path, options, monkeypatch):
    """Watched from outside: what is synced, and what takes its place under which name."""
    events = []
    fsync, put, folder_of = os.fsync, os.replace, {}

    def watched_fsync(descriptor):
        fsync(descriptor)
        number = os.fstat(descriptor).st_ino
        events.append(("synced", number))

    def watched_replace(source, target):
        number = os.stat(source).st_ino
        put(source, target)
        name = Path(target).relative_to(tmp_path / "x.zarr").as_posix()
        events.append((name, number))
        folder_of[name] = os.stat(Path(target).parent).st_ino

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(os, "replace", watched_replace)
    with norbert_store.create(tmp_path / "x.zarr", **options()) as writer:
        writer.add("a", {"mixture": noise(0, 9000), "vocals": noise(1, 9000)})
        writer.commit()
        writer.add("b", {"mixture": noise(0, 9000)})
    names = [name for name, _ in events]
    roots = [i for i, name in enumerate(names) if name == "zarr.json"]
    assert len(roots) == 3
    written = [i for i, name in enumerate(names) if name != "synced"]
    for i in written:
        # the bytes before the name, and the folder that holds the name before the next document
        name, number = events[i]
        assert ("synced", number) in events[:i]
        following = [root for root in roots if root > i]
        if following:
            assert ("synced", folder_of[name]) in events[i : following[0]]
    for shard, row in (("magnitude/c/0/0/0/0", "track/name/c/0"), ("magnitude/c/0/0/2/0", "chunk/extent/c/0/0/0/0")):
        assert names.index(shard) < roots[-1]
        last_row = max(i for i, name in enumerate(names) if name == row)
        assert names.index(shard) < last_row < roots[-1]


@pytest.mark.parametrize("failing", ["track/start/c/0", "chunk/extent/c/1/0/0/0", "zarr.json"])
def test_commit_that_fails_can_be_done_again(tmp_path, options, monkeypatch, failing):
    path = tmp_path / "x.zarr"
    writer = norbert_store.create(path, **options())
    writer.add("a", {"mixture": noise(0, 5000)})
    writer.commit()
    writer.add("b", {"mixture": noise(1, 5000)})
    put = os.replace

    def full(source, target):
        if str(target) == str(path / failing):
            raise OSError(28, "No space left on device")
        put(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(StorageError, match=f"{failing} can't be written: No space left on device"):
            writer.commit()
        assert norbert_store.open(path).names == ["a"]
        assert verify(path)
    writer.close()
    assert norbert_store.open(path).names == ["a", "b"]
    assert verify(path)


# Adds tracks until nothing more fits into a file.
FULL = """
import resource, sys
import numpy as np
import norbert_store
from norbert_store.errors import StorageError

def noise(seed, samples):
    return np.random.default_rng(seed).uniform(-0.5, 0.5, (samples, 2)).astype(np.float32)

try:
    with norbert_store.append(sys.argv[1]) as writer:
        writer.add("fits", {"mixture": noise(1, 2000)})
        resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
        writer.add("fits as well", {"mixture": noise(2, 2000)})
        writer.add("too long", {"mixture": noise(3, 120_000), "vocals": noise(4, 120_000)})
except StorageError as error:
    print(error, end="")
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no limits there")
def test_full_disk_costs_the_track_that_did_not_fit_and_no_other(tmp_path, options, music):
    path = tmp_path / "x.zarr"
    norbert_store.create(path, **options(shard_chunks=64)).close()
    done = subprocess.run([sys.executable, "-c", FULL, path], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith(" can't be written: File too large")
    assert norbert_store.open(path).names == ["fits", "fits as well"]
    assert verify(path)
    assert not [key for key in files_below(path) if key.endswith((".partial", ".lock"))]
    with norbert_store.append(path) as writer:
        writer.add("too long", music(120_000, 1))
    assert verify(path)


def test_document_tells_what_is_committed(tmp_path, options):
    with norbert_store.create(tmp_path / "x.zarr", **options(bundle_tracks=2)) as writer:
        for i in range(3):
            writer.add(str(i), {"mixture": noise(i)})
        writer.commit()
        assert (writer._committer.document.tracks, writer._committer.document.frames) == (2, 32)
        root = (tmp_path / "x.zarr/zarr.json").read_bytes()
        assert Document.from_json(root, "") == writer._committer.document
    assert writer._committer.document.tracks == 3
