"""Mean and deviation of all values that a store holds, as NumPy tells them; and the counts that are kept beside it."""

from __future__ import annotations

import io
import os
import shutil
import struct
import zipfile

import numpy as np
import pytest
from zarr.storage import LocalStore, MemoryStore

import norbert_store
from norbert_store._format.arrays import encode_block
from norbert_store._format.document import EXTENT
from norbert_store.errors import DamagedError, StoreNotFoundError


def decoded(db, target, values="magnitude"):
    """All values of a target, of all tracks that have it: (channels, frames, bins)."""
    some = [track.to_xarray(values)[values].sel(target=target).values for track in db if track.present[target]]
    return np.concatenate(some, axis=1).astype(np.float64) if some else None


def check(found, db, function=lambda values: values, values="magnitude"):
    """Compare with what NumPy makes of the values themselves."""
    for target in db.targets:
        of_target, expected = found.sel(target=target), decoded(db, target, values)
        if expected is None:
            assert of_target.frames == 0
            assert np.isnan(of_target["mean"]).all()
            assert np.isnan(of_target["std"]).all()
            continue
        assert of_target.frames == expected.shape[0] * expected.shape[1]
        changed = function(expected)
        scale = max(1.0, np.abs(changed).max())
        assert np.allclose(of_target["mean"], changed.mean(axis=(0, 1)), rtol=1e-6, atol=1e-7 * scale)
        assert np.allclose(of_target["std"], changed.std(axis=(0, 1)), rtol=1e-5, atol=1e-6 * scale)


def cached(db):
    """Files beside a store."""
    folder = db._selection.snapshot.storage.folder
    return sorted(path for path in folder.parent.iterdir() if path.name.startswith(f"{folder.name}.statistics"))


def change(path, **arrays):
    """Put other arrays into a file of counts."""
    with np.load(path) as file:
        np.savez_compressed(path, **{**file, **arrays})


def spoil(path):
    """Make counts ten times as many, so that it shows that they are used."""
    with np.load(path) as file:
        counts = file["counts"]
    change(path, counts=10 * counts)


@pytest.fixture
def copied(small_copy):
    return norbert_store.open(small_copy)


def test_magnitudes(made):
    check(made.db.statistics(), made.db)


def test_shape_and_names(small):
    found = small.db.statistics()
    assert found["mean"].dims == found["std"].dims == ("target", "frequency")
    assert found["mean"].dtype == found["std"].dtype == np.float64
    assert found.target.values.tolist() == list(small.db.targets)
    assert np.array_equal(found.frequency, small.db.frequencies)
    frames = np.array([track.frames for track in small.db])
    assert found.frames.values.tolist() == [2 * frames.sum(), 2 * (frames.sum() - frames[1]), 2 * frames.sum()]


@pytest.mark.parametrize(
    ("values", "function", "read"),
    [
        ("levels", lambda levels: levels, "levels"),
        (np.sqrt, np.sqrt, "magnitude"),
        (lambda m: -7 + 1000 * m, lambda m: -7 + 1000 * m, "magnitude"),
    ],
)
def test_other_functions(small, values, function, read):
    check(small.db.statistics(values), small.db, function, read)


def test_functions_need_be_finite_only_where_magnitudes_occur(small):
    def inverse(magnitude):
        return np.where(magnitude > 0.99 * largest, np.inf, magnitude)

    largest = float(small.db.look_up_table[255]) * 2.0 ** max(max(track.scales.values()) for track in small.db)
    check(small.db.statistics(inverse), small.db, inverse)
    with pytest.raises(ValueError, match="values must be finite for all magnitudes that occur; found inf in target"):
        small.db.statistics(lambda magnitude: np.full_like(magnitude, np.inf))


def test_decibels(small):
    found = small.db.statistics("decibel")
    for target in small.db.targets:
        expected = []
        for track in small.db:
            if track.present[target]:
                lowest = small.db.look_up_table[1] * np.float32(2) ** track.scales[target]
                expected.append(20 * np.log10(np.maximum(track.magnitude.sel(target=target), lowest)))
        values = np.concatenate(expected, axis=1).astype(np.float64)
        assert np.allclose(found["mean"].sel(target=target), values.mean(axis=(0, 1)), rtol=1e-5)
        assert np.allclose(found["std"].sel(target=target), values.std(axis=(0, 1)), rtol=1e-4)


@pytest.mark.parametrize("values", ["magnitude", np.sqrt, lambda m: m**2])
def test_stems_of_very_different_scales(tmp_path, options, values, monkeypatch):
    transform = norbert_store.ReadyBins("flat", 8000, 100, np.arange(1.0, 10))
    rng = np.random.default_rng(0)
    with norbert_store.create(
        tmp_path / "x.zarr", **options(targets=["a", "b"], transform=transform, channels=1)
    ) as writer:
        for i, gain in enumerate((1e-15, 1, 1e3, 1e3, 1e15)):
            stem = gain * rng.random((1, 20 + i, 9))
            writer.add_magnitudes(str(i), {"a": stem, "b": None if i == 1 else stem[:, ::-1]})
    db = norbert_store.open(tmp_path / "x.zarr")
    function = values if callable(values) else lambda m: m
    check(db.statistics(values), db, function)
    assert len(cached(db)) == 1
    check(db.statistics(values), db, function)
    # as many scales as memory doesn't hold at a time are counted one after the other, and not kept
    monkeypatch.setattr("norbert_store._statistics._MOST_BYTES", 3 * 9 * 256 * 8)
    cached(db)[0].unlink()
    check(db.statistics(values), db, function)
    assert not cached(db)


def test_other_functions_of_counts_that_are_kept(copied):
    copied.statistics()
    (path,) = cached(copied)
    spoil(path)
    assert copied.statistics(np.sqrt).frames[0] == 20 * sum(track.frames for track in copied)
    check(copied.statistics(np.sqrt).assign(frames=copied.statistics().frames // 10), copied, np.sqrt)


def test_what_stands_after_the_last_frame_is_not_counted(tmp_path, options):
    transform = norbert_store.ReadyBins("flat", 8000, 100, np.arange(1.0, 10))
    with norbert_store.create(tmp_path / "x.zarr", **options(targets=["a"], transform=transform, channels=1)) as writer:
        writer.add_magnitudes("short", {"a": np.full((1, 3, 9), 0.999)})
        writer.add_magnitudes("long", {"a": np.full((1, 17, 9), 0.999)})
    found = norbert_store.open(tmp_path / "x.zarr").statistics("levels").sel(target="a")
    assert found.frames == 20
    assert (found["mean"] == 255).all()
    assert (found["std"] == 0).all()


@pytest.mark.slow
def test_tracks_that_are_longer_than_what_is_counted_at_a_time(tmp_path, options):
    """In chunks that don't begin where pieces of a read do."""
    transform = norbert_store.ReadyBins("flat", 8000, 100, np.arange(1.0, 8))
    rng = np.random.default_rng(0)
    options = options(targets=["a", "b"], transform=transform, channels=2, chunk_frames=40, bundle_tracks=3)
    with norbert_store.create(tmp_path / "x.zarr", **options) as writer:
        for frames in (50, 2500, 1024):
            part = rng.beta(1, 5, (2, frames, 7)).astype(np.float32)
            writer.add_magnitudes(str(frames), {"a": part, "b": part[::-1]})
    db = norbert_store.open(tmp_path / "x.zarr")
    check(db.statistics(), db)
    assert np.allclose(db.statistics()["mean"][0], 1 / 6, atol=0.02)


def test_splits_and_selections(copied):
    every = copied.statistics()
    train, test = (norbert_store.open(copied.location, split=split) for split in ("train", "test"))
    for some in (train, test, copied.select([3, 0]), copied.select(["Bob - Short"])):
        for _ in range(2):
            check(some.statistics(), some)
    assert copied.statistics().equals(every)
    assert (train.statistics().frames + test.statistics().frames).equals(every.frames)
    assert len(cached(copied)) == 5
    assert copied.select(range(4)).statistics().equals(every)
    assert len(cached(copied)) == 5  # it is the whole


def test_no_tracks(copied):
    found = copied.select([]).statistics()
    assert (found.frames == 0).all()
    assert np.isnan(found["mean"]).all()


def test_counts_are_kept_beside_the_store_and_used(copied, small_copy):
    before = copied.statistics()
    inside = sorted(path for path in small_copy.rglob("*"))
    assert [path.name for path in cached(copied)] == ["copy.zarr.statistics.npz"]
    assert copied.statistics().equals(before)
    spoil(*cached(copied))
    for db in (copied, norbert_store.open(small_copy), norbert_store.open(LocalStore(small_copy))):
        assert (db.statistics().frames == 10 * before.frames).all()
        assert np.allclose(db.statistics()["mean"], before["mean"])
    assert sorted(path for path in small_copy.rglob("*")) == inside


def array_file():
    file = io.BytesIO()
    np.save(file, np.zeros(3))
    return file.getvalue()


def listed(data, offset, number):
    """Change what an archive's directory says of its files."""
    parts = data.split(b"PK\x01\x02")
    return b"PK\x01\x02".join(
        [parts[0], *(part[: offset - 4] + struct.pack("<H", number) + part[offset - 2 :] for part in parts[1:])]
    )


def unreadable_header(path, header):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("state.npy", b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header.encode())


@pytest.mark.parametrize(
    "damage",
    [
        lambda path, data: path.write_bytes(b""),
        lambda path, data: path.write_bytes(data[:100]),
        lambda path, data: path.write_bytes(data[:-1]),
        lambda path, data: path.write_bytes(data[: len(data) // 2] + b"\0\xff" + data[len(data) // 2 + 2 :]),
        lambda path, data: path.write_bytes(b"PK\x03\x04" + data),
        lambda path, data: path.write_bytes(listed(data, 8, 1)),  # encrypted
        lambda path, data: path.write_bytes(listed(data, 10, zipfile.ZIP_LZMA)),
        lambda path, data: path.write_bytes(listed(data, 10, 77)),
        lambda path, data: unreadable_header(path, "("),
        lambda path, data: unreadable_header(path, "-" * 3000 + "1"),
        lambda path, data: unreadable_header(path, "{'descr': '<U64', 'fortran_order': False, 'shape': (-1,)}"),
        lambda path, data: path.write_bytes(b"no counts at all"),
        lambda path, data: path.write_bytes(array_file()),
        lambda path, data: np.savez(path, other=np.zeros(3)),
        lambda path, data: np.savez(path, counts=np.zeros((3, 113, 256), np.int64)),
        lambda path, data: change(path, counts=np.zeros((3, 113, 255), np.int64)),
        lambda path, data: change(path, counts=np.array([{}], object)),
        lambda path, data: change(path, state="another"),
    ],
)
def test_kept_counts_that_are_damaged_are_made_again(copied, damage):
    before = copied.statistics()
    (path,) = cached(copied)
    damage(path, path.read_bytes())
    assert copied.statistics().equals(before)
    spoil(path)  # it is whole again
    assert (copied.statistics().frames == 10 * before.frames).all()


def test_a_bug_is_no_damage(copied, monkeypatch):
    copied.statistics()

    def fail(*_):
        raise AssertionError("mine")

    monkeypatch.setattr("norbert_store._statistics._array", fail)
    with pytest.raises(AssertionError, match="mine"):
        copied.statistics()


def test_tracks_that_are_added_are_counted(copied, small_copy, music):
    before = copied.statistics()
    stems = music(9000, 9)
    with norbert_store.append(small_copy) as writer:
        labels: dict[str, str | int] = {"genre": "Pop", "year": 2020, "live": False}
        writer.add("new", stems, labels=labels)
    grown = norbert_store.open(small_copy)
    check(grown.statistics(), grown)
    assert (grown.statistics().frames == before.frames + 2 * grown["new"].frames).all()
    assert copied.statistics().equals(before)  # which still is what it was when it was opened
    check(grown.statistics(), grown)


def test_another_store_of_the_same_names_and_lengths_is_counted(copied, small_copy, small, options):
    """Made at the same place, of other sounds."""
    before = copied.statistics()
    shutil.rmtree(small_copy)
    with norbert_store.create(small_copy, **options()) as writer:
        for track in small.db:
            stems = {target: None if stem is None else stem / 4 for target, stem in small.audio[track.name].items()}
            writer.add(track.name, stems, split=track.split, labels=track.labels)
    other = norbert_store.open(small_copy)
    check(other.statistics(), other)
    assert not np.allclose(other.statistics()["mean"], before["mean"])


def test_shards_of_another_store_are_not_counted(copied, small_copy, tmp_path, options, music, shards):
    with norbert_store.create(tmp_path / "finer.zarr", **options(quality=95)) as writer:
        writer.add("Ann - Long", music(25600, 1))
    for key, data in shards(tmp_path / "finer.zarr").items():
        (small_copy / key).write_bytes(data)
    with pytest.raises(DamagedError, match="track 'Ann - Long', target 'mixture'"):
        copied.statistics()
    assert cached(copied) == []


def test_a_store_whose_chunks_were_changed_is_counted_again(copied, small_copy):
    """By a commit that changes nothing else."""
    before = copied.statistics()
    spoil(*cached(copied))
    snapshot = copied._selection.snapshot
    extents = snapshot.read_blocks([(EXTENT, (0, 0, 0, 0))])[0].copy()
    extents[:, 2] += 1  # checksums
    path = small_copy / "zarr.json"
    path.write_bytes(snapshot.document.next().with_blocks({(EXTENT, (0, 0, 0, 0)): extents}).to_json())
    (small_copy / EXTENT / "c/0/0/0/0").write_bytes(encode_block(snapshot.arrays[EXTENT], extents))
    with pytest.raises(DamagedError, match="track 'Ann - Long', target 'mixture'"):
        norbert_store.open(small_copy).statistics()
    assert (copied.statistics().frames == 10 * before.frames).all()  # of the state that it has open


def test_chunks_that_are_lost_are_missed_when_they_are_counted(copied, small_copy):
    (small_copy / "magnitude/c/0/0/1/0").unlink()
    with pytest.raises(DamagedError, match="track 'Ann - Long', target 'mixture', channel 'left', packed chunk 4"):
        copied.statistics()
    small_copy.rename(small_copy.with_name("moved.zarr"))
    with pytest.raises(StoreNotFoundError, match="isn't there any more"):
        copied.statistics()


def test_a_folder_that_cannot_be_written(copied, small_copy):
    before = copied.statistics()
    (path,) = cached(copied)
    path.unlink()
    path.mkdir()  # is in the way of a file
    assert copied.statistics().equals(before)
    assert cached(copied) == [path]
    path.rmdir()
    small_copy.parent.chmod(0o500)
    try:
        assert copied.statistics().equals(before)
        assert len(cached(copied)) == (0 if os.getuid() else 1)  # root may write everywhere
    finally:
        small_copy.parent.chmod(0o700)


def test_a_store_whose_name_leaves_no_room_for_another(small_copy):
    path = small_copy.rename(small_copy.with_name("x" * 250))
    check(norbert_store.open(path).statistics(), norbert_store.open(path))
    assert [found.name for found in path.parent.iterdir()] == [path.name]


def test_stores_that_are_opened_by_relative_paths(copied, small_copy, monkeypatch):
    before = copied.statistics()
    (path,) = cached(copied)
    spoil(path)
    monkeypatch.chdir(small_copy)
    for location in (".", "../copy.zarr", LocalStore(".")):
        assert (norbert_store.open(location).statistics().frames == 10 * before.frames).all()
    assert cached(copied) == [path]


def test_stores_elsewhere_are_counted_each_time(options, music):
    store = MemoryStore()
    with norbert_store.create(store, **options()) as writer:
        writer.add("one", music(5000, 0))
    for _ in range(2):
        db = norbert_store.open(store)
        check(db.statistics(), db)
    assert not any("statistics" in key for key in store._store_dict)
