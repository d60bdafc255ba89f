"""The right numbers of the right track in a store of two blocks of rows, made as benchmarks/scale.py makes it."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import xarray

import norbert_store
from norbert_store._jpeg import stream
from norbert_store.errors import DamagedError, NameNotFoundError

TRACKS = 20_000

_SCRIPT = Path(__file__).parents[1] / "benchmarks/scale.py"
if not _SCRIPT.exists():
    pytest.skip("benchmarks aren't here", allow_module_level=True)
_SPEC = importlib.util.spec_from_file_location("scale", _SCRIPT)
scale = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(scale)

WITH_DATA = scale.has_data(TRACKS)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("scale") / "many.zarr"
    scale.make_store(path, TRACKS)
    return path


@pytest.fixture(scope="module")
def db(path):
    return norbert_store.open(path)


@pytest.fixture(scope="module")
def columns():
    return scale.columns(TRACKS, **scale.place(TRACKS, 2))


def levels(row, frames):
    """What was written: (targets, channels, frames, bins)."""
    out = np.zeros((2, 2, frames, scale.BINS), np.uint8)
    for target, channel, chunk, jpeg in scale.jpegs(row, frames):
        out[target, channel, 256 * chunk : 256 * (chunk + 1)] = stream.decode(jpeg)
    return out


@pytest.mark.parametrize("row", WITH_DATA)
def test_each_track_has_its_own_data_by_position_and_by_name(db, row):
    expected = levels(row, db[row].frames)
    for track in (db[row], db[row - TRACKS], db[scale.name(row)], db.select([row])[0], db.select([scale.name(row)])[0]):
        assert track.name == scale.name(row)
        assert np.array_equal(track.levels, expected)
    assert np.array_equal(db[row].magnitude, db.look_up_table[expected])
    there = slice(db[row].start, db[row].start + db[row].frames)
    assert np.array_equal(db.to_xarray("levels")["levels"].isel(frame=there), expected)


def test_tracks_without_their_data_are_damage(db):
    with pytest.raises(DamagedError, match=f"track '{scale.name(1)}', target 'mixture', channel 'left', packed chunk"):
        db[1].levels.load()
    at = db[17_000].start
    with pytest.raises(DamagedError, match=f"track '{scale.name(17_000)}', target 'vocals', channel 'right', packed"):
        db.to_xarray().magnitude.isel(target=1, channel=1, frame=slice(at, at + 8)).load()


@pytest.mark.parametrize("row", [0, 3, scale.ROWS - 1, scale.ROWS, TRACKS - 1])
def test_rows_on_both_sides_of_a_block_are_right(db, columns, row):
    track = db[row]
    for key in ("name", "split", "source", "start", "frames", "samples"):
        assert getattr(track, key) == columns[key][row]
    assert track.metadata == json.loads(columns["metadata"][row])
    assert list(track.present.values()) == columns["present"][row].tolist()
    for key in ("artist", "genre", "year", "tempo"):
        value = columns[key][row]
        assert track.labels[key] == (None if value == "" or value != value else value)


def test_names(db, columns):
    assert db.names == columns["name"].tolist() == [track.name for track in db]
    assert scale.name(TRACKS - 1) in db
    assert scale.name(TRACKS) not in db
    with pytest.raises(NameNotFoundError, match="did you mean 'Artist"):
        db["Artist 000000 - Title 000000"]


def test_table_is_read_when_its_values_are_asked_for(path, columns):
    db = norbert_store.open(path)
    table = db.tracks
    assert table.sizes["track"] == TRACKS
    assert not any(variable._in_memory for variable in table.data_vars.values())
    for name, variable in table.data_vars.items():
        assert np.array_equal(variable, columns[str(name).removeprefix("_")], equal_nan=name == "tempo")
    assert table.genre[17_000].item() == columns["genre"][17_000]
    assert np.array_equal(table["_present"][[3, 17_003, 4], [1, 0]], columns["present"][[3, 17_003, 4]][:, [1, 0]])
    assert table.year[-3:].values.tolist() == columns["year"][-3:].tolist()
    xarray.testing.assert_identical(db.select([17_003, 3]).tracks.load(), table.isel(track=[17_003, 3]).load())


def test_selections_and_splits(db, columns):
    rows = np.flatnonzero((columns["genre"] == "Jazz") & (columns["year"] > 2000))
    some = db.select((db.tracks.genre == "Jazz") & (db.tracks.year > 2000))
    assert some.names == columns["name"][rows].tolist()
    assert some[-1].start == db[int(rows[-1])].start
    valid = db.select(split="valid")
    assert valid.names == columns["name"][columns["split"] == "valid"].tolist()
    assert valid.select([-1]).names == [columns["name"][19_996]]
    assert scale.name(0) not in valid


def test_tracks_lie_one_after_the_other(db):
    starts, frames = (db.tracks[name].values for name in ("_start", "_frames"))
    ends = starts + -(-frames // 256) * 256
    assert (starts[1:] >= ends[:-1]).all()
    assert ends[-1] == 256 * db.attributes["chunks"]


@pytest.mark.parametrize("targets", [1, 2, 5])
def test_a_million_clips_make_fewer_than_ten_thousand_files(targets):
    assert scale.files(1_000_000, targets) < scale.MOST_FILES


def test_files_are_counted_as_they_are_written(tmp_path):
    stems = {"one": np.zeros(scale.CLIP.samples), "two": np.zeros(scale.CLIP.samples)}
    with norbert_store.create(tmp_path / "few.zarr", targets=list(stems), rate=44100, channels=1) as writer:
        for i in range(2):
            writer.add(str(i), stems, labels={"artist": "", "genre": "", "year": 0, "tempo": 0.0})
    assert sum(file.is_file() for file in (tmp_path / "few.zarr").rglob("*")) == scale.files(2, 2)


@pytest.mark.slow
def test_measures_print_numbers(path):
    found = scale.measured("store", path, TRACKS)
    assert {"open", "first slice", "by name", "select", "memory"} <= found.keys()
    assert all(value >= 0 for key, value in found.items() if key != "memory")
