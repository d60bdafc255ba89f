"""A data set that has changed since it was exported: what is told of that, and what is taken anew."""

from __future__ import annotations

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
import soundfile
from zarr.storage import MemoryStore

import norbert_store
from norbert_store import verify
from norbert_store._export.run import export, export_folder
from norbert_store._format import layout
from norbert_store._storage.storage import Storage
from norbert_store.errors import AudioError, StorageError, StoreChangedError, TrackError
from tests.files import contents
from tests.servers import FailingOnce

RATE = 8000
OPTIONS: dict[str, Any] = {
    "transform": norbert_store.TF(rate=RATE, n_fft=256),
    "effort": 0,
    "chunk_frames": 16,
    "shard_chunks": 2,
}
NAMES = ("a", "b", "c", "d")
TARGETS = ("mixture", "vocals")


def write(file, seed, samples=3000):
    file.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).uniform(-0.5, 0.5, (samples, 2))
    soundfile.write(file, noise, RATE, subtype="FLOAT")


@pytest.fixture
def music(tmp_path, monkeypatch):
    """Files of four tracks."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    for i, name in enumerate(NAMES):
        for j, target in enumerate(TARGETS):
            write(tmp_path / "music" / name / f"{target}.wav", (i, j), 1000 + 1000 * i)
    return tmp_path / "music"


def rows(music, names=NAMES, **others):
    """A row for each track; others of their values by name."""
    return [
        {
            "name": name,
            **{target: music / name / f"{target}.wav" for target in TARGETS},
            "split": "train",
            "genre": "Rock",
            **others.get(name, {}),
        }
        for name in names
    ]


@pytest.fixture
def put(music, tmp_path):
    """Export rows into one place, again and again."""

    def put(table=None, **options):
        return export(table or rows(music), tmp_path / "x.zarr", targets=TARGETS, **{**OPTIONS, **options})

    return put


def magnitudes(db, name):
    return {target: db[name].magnitude.sel(target=target).values for target in TARGETS}


def assert_same(found, expected):
    for target in TARGETS:
        assert np.array_equal(found[target], expected[target], equal_nan=True)


# ---- what is told


def test_nothing_is_told_where_nothing_has_changed(put, tmp_path):
    first = put()
    before = contents(tmp_path / "x.zarr")
    for options in ({"resume": True}, {"update": True}):
        again = put(**options)
        assert (again.edited, again.gone, again.updated, again.notes, again.written) == ([], [], [], [], 0)
        assert contents(tmp_path / "x.zarr") == before
    assert (first.edited, first.gone, first.updated, first.notes) == ([], [], [], [])


def test_an_edited_file_is_told_by_its_length_and_by_its_time(music, put):
    before = put().open()
    write(music / "b/vocals.wav", 9, 2500)
    write(music / "b/mixture.wav", 9, 2500)
    length = (music / "c/mixture.wav").stat().st_size
    os.utime(music / "c/mixture.wav", ns=(0, 10**18))
    again = put(resume=True)
    (first, how), (second, when) = again.edited
    assert (first, second) == ("b", "c")
    assert "the file of 'mixture' has 20088 bytes, and had 16088" in how
    assert "the file of 'vocals' has 20088 bytes" in how
    assert when.startswith("the file of 'mixture' was modified 2001-09-09 01:46:40.000000, and was of 20")
    assert length == (music / "c/mixture.wav").stat().st_size
    assert repr(again).endswith("0 written, 2 edited>")
    # nothing was done about it
    assert (again.written, again.updated) == (0, [])
    assert_same(magnitudes(again.open(), "b"), magnitudes(before, "b"))


def test_files_that_came_and_went_are_told(music, put):
    put(rows(music, a={"vocals": None}))
    (music / "c/vocals.wav").unlink()
    found = dict(put(rows(music, c={"vocals": None}), resume=True).edited)
    assert found == {"a": "the file of 'vocals' is new", "c": "the file of 'vocals' isn't there any more"}


def test_a_track_without_audio_is_told_and_stays(music, put):
    before = put().open()
    for target in TARGETS:
        (music / "a" / f"{target}.wav").unlink()
    for options in ({"resume": True}, {"update": True}):
        again = put(**options)
        assert again.gone == [("a", f"there is no {music / 'a'} any more")]
        assert (again.tracks, again.edited, again.updated) == (4, [], [])
        assert_same(magnitudes(again.open(), "a"), magnitudes(before, "a"))


def test_a_track_that_was_deleted_is_told_and_one_that_was_left_out_is_not(music, put):
    put()
    shutil.rmtree(music / "b")
    again = put(rows(music, ("a", "c")), resume=True)
    assert again.gone == [("b", "its source music/b isn't there any more")]
    assert (again.tracks, len(again.open())) == (2, 4)


def test_a_track_that_was_renamed_is_told_by_both_names(music, tmp_path):
    export_folder(music, tmp_path / "x.zarr", **OPTIONS)
    (music / "b/vocals.wav").rename(music / "b/sung.wav")
    again = export_folder(music, tmp_path / "x.zarr", resume=True, **OPTIONS)
    ((name, how),) = again.gone
    assert name == "b/vocals"
    assert how.endswith("music/b/vocals.wav isn't there any more; 'b/sung' has files of the same lengths and times")
    assert (again.written, again.open().names[-1]) == (1, "b/sung")


def test_labels_splits_and_places_that_differ_are_told(music, put):
    put()
    (music / "d").rename(music / "moved")
    files = {target: music / "moved" / f"{target}.wav" for target in TARGETS}
    again = put(rows(music, a={"genre": "Pop"}, b={"split": "test"}, c={"year": 1999}, d=files), resume=True)
    assert dict(again.edited) == {
        "a": "its genre was 'Rock', and is 'Pop'",
        "b": "its split was 'train', and is 'test'",
        "c": "its year was None, and is 1999",
        "d": "its source was 'music/d', and is 'music/moved'",
    }
    # what a table doesn't say isn't contradicted
    assert (
        put([{**row, "genre": None, "split": None} for row in rows(music, ("a", "b", "c"))], resume=True).edited == []
    )


def test_numbers_and_truth_that_the_store_could_only_round_are_told(music, put):
    put(rows(music, ("a",), a={"bpm": 120, "live": True, "tempo": 60.5}))
    (same,) = rows(music, ("a",), a={"bpm": 120.0, "live": True, "tempo": 60.5})
    assert put([same], resume=True).edited == []
    again = put([{**same, "bpm": 120.9, "live": 7, "tempo": 61}], resume=True)
    assert again.edited == [
        ("a", "its bpm was 120, and is 120.9; its live was True, and is 7; its tempo was 60.5, and is 61.0")
    ]
    with pytest.raises(TrackError, match=r"'bpm' was int64 before, now found 120\.9; give what it was before, or"):
        put([{**same, "bpm": 120.9}], update=True)
    updated = put([{**same, "bpm": 121, "tempo": 61}], update=True)
    assert updated.updated == ["a"]
    assert updated.open()["a"].labels == {"genre": "Rock", "bpm": 121, "live": True, "tempo": 61.0}


def test_another_title_is_told(put):
    put(title="First", license="CC0-1.0")
    again = put(title="Second", license="CC0-1.0", citation="Me", resume=True)
    assert again.notes == [
        "the title of the store is still 'First', not 'Second'",
        "the citation of the store is still '', not 'Me'",
    ]
    assert again.open().attributes["title"] == "First"


def test_of_a_store_that_was_written_by_hand_nothing_is_known(music, tmp_path):
    with norbert_store.create(tmp_path / "x.zarr", targets=TARGETS, **OPTIONS) as writer:
        writer.add("a", dict.fromkeys(TARGETS, music / "a/mixture.wav"), split="train", source="music/a")
        writer.add("elsewhere", {"mixture": music / "b/mixture.wav"}, source="https://example.org/b.wav")
    again = export(rows(music, ("a",)), tmp_path / "x.zarr", targets=TARGETS, resume=True, **OPTIONS)
    assert (again.edited, again.gone) == ([("a", "its genre was None, and is 'Rock'")], [])


# ---- taken anew


@pytest.mark.parametrize("workers", [None, 2])
@pytest.mark.parametrize("bundle_tracks", [1, 3])
def test_edited_tracks_are_taken_anew(music, put, tmp_path, bundle_tracks, workers):
    workers = workers and ThreadPoolExecutor(workers)
    put(bundle_tracks=bundle_tracks)
    open_before = norbert_store.open(tmp_path / "x.zarr")
    for target in TARGETS:
        write(music / "b" / f"{target}.wav", 9, 5000)
        write(music / "d" / f"{target}.wav", 10, 500)
    again = put(rows(music, d={"genre": "Pop"}), update=True, bundle_tracks=bundle_tracks, workers=workers)
    assert (again.updated, again.edited, again.written, again.tracks) == (["b", "d"], [], 2, 4)
    db = again.open()
    assert db.names == ["a", "c", "b", "d"]
    assert verify(tmp_path / "x.zarr")
    fresh = export(rows(music, ("a", "c", "b", "d"), d={"genre": "Pop"}), MemoryStore(), targets=TARGETS, **OPTIONS)
    assert db.digest(strong=True) == fresh.open().digest(strong=True)
    assert put(rows(music, d={"genre": "Pop"}), update=True, bundle_tracks=bundle_tracks).written == 0
    with pytest.raises(StoreChangedError):
        open_before.names  # noqa: B018


def test_update_begins_a_store_too(put, tmp_path):
    assert (put(update=True).written, bool(verify(tmp_path / "x.zarr"))) == (4, True)


def test_labels_and_title_are_changed_without_encoding_again(music, put, shards, tmp_path):
    put(title="First")
    before = shards(tmp_path / "x.zarr")
    with norbert_store.append(tmp_path / "x.zarr") as writer:
        writer.add("by hand", {"mixture": np.zeros((500, 2))}, metadata={"x": 1}, labels={"genre": "None", "y": 2.5})
    again = put(rows(music, a={"genre": "Pop", "year": 1999}, c={"split": "test"}), update=True, title="Second")
    assert (again.updated, again.written) == (["a", "c"], 0)
    assert again.notes == ["the title of the store was 'First', and is 'Second' now"]
    db = again.open()
    assert db.attributes["title"] == "Second"
    assert db.names == [*NAMES, "by hand"]
    assert db["a"].labels == {"genre": "Pop", "y": None, "year": 1999}
    assert (db["b"].labels["genre"], db["c"].split, db["by hand"].labels["genre"]) == ("Rock", "test", "None")
    assert db["by hand"].metadata == {"x": 1}
    assert verify(tmp_path / "x.zarr")
    assert {key: data for key, data in shards(tmp_path / "x.zarr").items() if key in before} == before


def test_what_a_table_does_not_say_stays_with_a_track_that_is_taken_anew(music, put, tmp_path):
    with norbert_store.create(tmp_path / "x.zarr", targets=TARGETS, **OPTIONS) as writer:
        writer.add("b", {"mixture": np.zeros((500, 2))}, split="test", metadata={"x": 1}, labels={"mood": "calm"})
    put(rows(music, b={"split": None}), update=True)  # nothing is known of its files: the row alone is others'
    write(music / "b/mixture.wav", 9, 2000)
    db = put(rows(music, b={"split": None}), update=True).open()
    assert (db["b"].split, db["b"].metadata, db["b"].labels) == ("test", {"x": 1}, {"mood": "calm", "genre": "Rock"})


def test_where_the_new_one_is_broken_the_old_one_stays(music, put, tmp_path):
    before = magnitudes(put().open(), "b")
    (music / "b/mixture.wav").write_bytes(b"no audio")
    for target in TARGETS:
        write(music / "c" / f"{target}.wav", 9, 2000)
    with pytest.raises(AudioError, match=r"track 'b': .*b/mixture\.wav can't be read as audio"):
        put(update=True)
    again = put(update=True, skip_broken=True)
    assert (again.updated, [name for name, _ in again.skipped], [name for name, _ in again.edited]) == (
        ["c"],
        ["b"],
        ["b"],
    )
    assert again.tracks == 4
    assert_same(magnitudes(again.open(), "b"), before)
    assert verify(tmp_path / "x.zarr")


def test_rows_and_extents_of_many_blocks(music, put, tmp_path, monkeypatch):
    """Blocks of the table hold two rows, and those of extents a handful of chunks."""
    monkeypatch.setattr("norbert_store._write.settings.ROWS", 2)
    monkeypatch.setattr(layout.Layout.__init__, "__defaults__", (2, 4))
    put()
    write(music / "a/mixture.wav", 9, 1000)
    os.utime(music / "a/mixture.wav", ns=(0, 10**18))
    write(music / "d/vocals.wav", 10, 4000)
    os.utime(music / "d/vocals.wav", ns=(0, 10**18))
    again = put(rows(music, c={"genre": "Pop", "year": 3}), update=True)
    db = again.open()
    assert db._selection.document.layout.rows == 2
    assert db._selection.document.layout.positions == 4
    assert db.names == ["b", "c", "a", "d"]
    assert db["c"].labels == {"genre": "Pop", "year": 3}
    assert verify(tmp_path / "x.zarr")
    fresh = export(
        rows(music, ("b", "c", "a", "d"), c={"genre": "Pop", "year": 3}), MemoryStore(), targets=TARGETS, **OPTIONS
    )
    assert db.digest(strong=True) == fresh.open().digest(strong=True)


def test_a_change_follows_rows_of_the_same_session_that_lack_a_label(music, put, tmp_path, monkeypatch):
    """Every bundle is committed at once: the new row first, then what changes the one before it."""
    put(rows(music, "a"))
    write(music / "a/mixture.wav", 9, 1000)
    os.utime(music / "a/mixture.wav", ns=(0, 10**18))
    monkeypatch.setattr("norbert_store._write.commit.COMMIT_SECONDS", 0.0)
    again = put(rows(music, "ab", b={"genre": None}), update=True, bundle_tracks=1)
    assert (again.updated, again.written) == (["a"], 2)
    db = again.open()
    assert [(track.name, track.labels["genre"]) for track in db] == [("b", None), ("a", "Rock")]
    assert verify(tmp_path / "x.zarr")


def test_what_fails_after_a_commit_is_not_committed_again(music):
    """Every bundle is committed at once; one of the reads of the names fails."""
    before = MemoryStore()
    export(rows(music, "a"), before, targets=TARGETS, **OPTIONS)
    write(music / "a/mixture.wav", 9, 1000)
    os.utime(music / "a/mixture.wav", ns=(0, 10**18))
    failed = 0
    for reads_before in range(40):
        place = FailingOnce({**before._store_dict})
        place.key, place.reads_before = "track/name/c/0", reads_before
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr("norbert_store._write.commit.COMMIT_SECONDS", 0.0)
            with suppress(StorageError):
                export(rows(music, "ab"), place, targets=TARGETS, update=True, bundle_tracks=1, **OPTIONS)
        if place.reads_before >= 0:
            break
        failed += 1
        place.key = ""
        assert verify(place)
        export(rows(music, "ab"), place, targets=TARGETS, update=True, bundle_tracks=1, **OPTIONS)
        assert sorted(norbert_store.open(place).names) == ["a", "b"]
        assert verify(place)
    assert failed >= 2


# ---- cut off


class StopError(Exception):
    """A process that dies, in place."""


@pytest.mark.slow
def test_an_update_that_is_cut_off_anywhere_loses_nothing(music, put, tmp_path, monkeypatch):
    store, before = tmp_path / "x.zarr", tmp_path / "before.zarr"
    put(title="First")
    shutil.copytree(store, before)
    old = {name: magnitudes(norbert_store.open(before), name) for name in NAMES}
    for target in TARGETS:
        write(music / "b" / f"{target}.wav", 9, 5000)
    table = rows(music, c={"genre": "Pop"})
    put(table, update=True, title="Second")
    expected = norbert_store.open(store).digest(strong=True)
    new = magnitudes(norbert_store.open(store), "b")
    writes = 0

    def limited(limit, function):
        def write_or_stop(self, *arguments):
            nonlocal writes
            writes += 1
            if writes > limit:
                raise StopError
            return function(self, *arguments)

        return write_or_stop

    seen = set()
    for limit in range(200):
        shutil.rmtree(store)
        shutil.copytree(before, store)
        writes = 0
        with monkeypatch.context() as patched:
            for name in ("set", "create", "replace", "delete"):
                patched.setattr(Storage, name, limited(limit, getattr(Storage, name)))
            try:
                put(table, update=True, title="Second")
            except StopError:
                pass
            else:
                break
        db = norbert_store.open(store)
        state = (db.names, db.attributes["title"], db["c"].labels["genre"])
        is_new = state == (["a", "c", "d", "b"], "Second", "Pop")
        assert is_new or state == (list(NAMES), "First", "Rock")
        seen.add(is_new)
        for name in NAMES:
            assert_same(magnitudes(db, name), new if is_new and name == "b" else old[name])
        assert all("pending" in str(fault) for fault in verify(store).faults)
        put(table, update=True, title="Second")
        assert norbert_store.open(store).digest(strong=True) == expected
        assert verify(store)
    assert seen == {False, True}
    assert limit > 20
