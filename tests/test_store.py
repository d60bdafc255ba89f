from __future__ import annotations

import copy
import math
import multiprocessing
import pickle
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from operator import attrgetter, methodcaller
from typing import Any

import numpy as np
import pytest
import soundfile
import xarray

import norbert_store
from norbert_store._check.verify import verify
from norbert_store._command.demo_music import write_musdb
from norbert_store._format.document import Document
from norbert_store._spectra.bins import LinearBins, MelBands, ReadyBins
from norbert_store.errors import AudioError, FormatError, NameNotFoundError, NorbertStoreError, SourceError, TrackError

NAMES = ["Ann - Long", "Bob - Short", "Žofie – Ticho", "one sample"]


# ---- a sequence of tracks, and a mapping from their names


def test_store_is_a_sequence_of_tracks_by_name_and_position(db):
    assert len(db) == 4
    assert db.names == [track.name for track in db] == NAMES
    assert [db[name].name for name in NAMES] == NAMES
    assert [db[i].name for i in range(4)] == NAMES
    assert [db[i].name for i in range(-4, 0)] == NAMES
    assert db[np.int64(2)].name == NAMES[2]


def test_contains(db):
    assert "Bob - Short" in db
    assert "Bob" not in db
    assert 0 not in db
    assert None not in db


def test_unknown_name_is_a_key_error_that_suggests_one(db, small):
    with pytest.raises(NameNotFoundError) as caught:
        db["Bob - Shirt"]
    assert isinstance(caught.value, KeyError)
    assert str(caught.value) == f"{small.path} has no track 'Bob - Shirt'; did you mean 'Bob - Short'?"
    with pytest.raises(KeyError, match="has no track 'xyz'$"):
        db["xyz"]


@pytest.mark.parametrize("position", [4, -5, 1000])
def test_position_that_is_not_there_is_an_index_error(db, position):
    with pytest.raises(IndexError, match=f"has 4 tracks; there is none at position {position}"):
        db[position]


@pytest.mark.parametrize("key", [1.0, None, True, ["Bob - Short"], b"Bob - Short"])
def test_keys_of_another_type_are_refused(db, key):
    with pytest.raises(TypeError, match=r"name or position.*select\(\) takes several"):
        db[key]


def test_what_a_store_tells_of_itself(small, db):
    assert db.location == str(small.path)
    assert db.targets == ("mixture", "vocals", "drums")
    assert db.channels == ("left", "right")
    assert db.rate == 8000
    assert isinstance(db.transform, LinearBins)
    assert db.transform.bandwidth == 3500
    assert (db.attributes["title"], db.attributes["citation"]) == ("Small", "Nobody, 2020")
    assert (db.attributes["tracks"], db.attributes["chunks"]) == (4, 25)
    assert db.to_xarray().sizes["frame"] == 400
    for text in (str(small.path), "tracks     4", "mixture, vocals, drums", "8000 Hz", "113 bins", "'Bob - Short'"):
        assert text in repr(db)
    assert "Bob - Short" in db._repr_html_()


def test_transforms_are_built_again(mel, ready):
    assert isinstance(mel.db.transform, MelBands)
    assert mel.db.transform.n_mels == 24
    assert isinstance(ready.db.transform, ReadyBins)
    assert ready.db.transform.config == {"bins_per_octave": 6, "name": "cqt", "rate": 8000, "hop": 100}


def test_what_a_track_tells_of_itself(db):
    track = db["Bob - Short"]
    assert (track.name, track.split, track.source) == ("Bob - Short", "train", "audio/1")
    assert (track.rate, track.samples, track.frames, track.duration) == (8000, 2000, 17, 0.25)
    assert track.present == {"mixture": True, "vocals": False, "drums": True}
    assert track.metadata == {"position": 1, "tags": ["a", None, {"ü": 1.5}]}
    assert track.labels == {"genre": "Jazz", "year": 1959, "live": False, "tempo": None}
    assert repr(track) == "<norbert_store.Track 'Bob - Short', 0.2 s, mixture, drums>"
    assert "Bob - Short" in track._repr_html_()


def test_table_of_levels_is_a_copy(db):
    db.look_up_table[:] = 0
    assert db.look_up_table[255] == 1


# ---- the track table


def test_table_has_a_row_for_each_track_and_a_typed_column_for_each_label(db):
    tracks = db.tracks
    assert isinstance(tracks, xarray.Dataset)
    assert dict(tracks.sizes) == {"track": 4, "_target": 3}
    assert tracks.name.values.tolist() == NAMES
    assert tracks.split.values.tolist() == ["train", "train", "test", "test"]
    assert tracks["_samples"].values.tolist() == [25600, 2000, 7200, 1]
    assert tracks["_frames"].values.tolist() == [201, 17, 58, 2]
    assert tracks["_source"].values.tolist() == [f"audio/{i}" for i in range(4)]
    assert tracks.genre.values.tolist() == ["Rock", "Jazz", "Rock", ""]
    assert tracks.year.values.tolist() == [1969, 1959, 2001, -1]
    assert tracks.live.values.tolist() == [True, False, False, True]
    assert np.array_equal(tracks.tempo, [120.5, np.nan, 61.0, np.nan], equal_nan=True)
    dtypes = {"year": "int64", "live": "bool", "tempo": "float64", "_start": "int64", "_present": "bool"}
    assert {name: str(tracks[name].dtype) for name in dtypes} == dtypes
    assert tracks["_present"].sel(_target="vocals").values.tolist() == [True, False, True, True]
    kept = {"name", "split", "_source", "_start", "_frames", "_samples", "_present", "_scale", "_metadata"}
    assert set(tracks.data_vars) == kept | {"genre", "year", "live", "tempo"}


def test_table_of_a_selection_has_its_rows(db):
    some = db.select([3, 1])
    xarray.testing.assert_identical(some.tracks, db.tracks.isel(track=[3, 1]))


def test_table_is_what_zarr_reads(small):
    plain = xarray.open_zarr(small.path, group="track")
    tracks = small.db.tracks
    files = {"source_bytes", "source_modified"}
    kept = {"name", "split", "source", "start", "frames", "samples", "present", "scale", "metadata"}
    assert set(plain.data_vars) == kept | files
    plain = plain.drop_vars(files)
    for name, column in plain.data_vars.items():
        found = tracks[name if name in ("name", "split") else f"_{name}"]
        assert found.dims == tuple({"target": "_target"}.get(name, name) for name in column.dims)
        assert np.array_equal(found, column)
    labels = xarray.open_zarr(small.path, group="label")
    keys = {label["name"]: label["key"] for label in small.db.attributes["labels"]}
    assert set(keys.values()) == set(labels.data_vars)
    for name, key in keys.items():
        assert np.array_equal(labels[key], tracks[name], equal_nan=name == "tempo")


# ---- labels of every type, under every name, with gaps

GAPS: dict[str, Any] = {
    "start": [None, "here", "", "ü"],
    "target": [3, None, -(2**53), 0],
    "ä/ö": [["rock", "pop"], None, [], ["pop", "a, b"]],
    "a b": [True, False, None, True],
    "frames": [0.5, None, math.inf, -1],
    "big": [None, 2**60 + 1, None, 5],
    "zarr.json": [None, None, None, "late"],
    "year": [1969, None, None, -1],
    "track": [None, "x", None, "x"],
    "_": [None, None, None, None],
}


@pytest.fixture(scope="module")
def gaps(tmp_path_factory, options, music):
    """Four tracks with labels, two of them added later."""
    path = tmp_path_factory.mktemp("gaps") / "gaps.zarr"
    rows = [{name: values[i] for name, values in GAPS.items()} for i in range(4)]
    with norbert_store.create(path, **options()) as writer:
        for i in range(2):
            writer.add(f"t{i}", music(500, i), labels=rows[i])
    with norbert_store.append(path) as writer:
        for i in (2, 3):
            writer.add(f"t{i}", music(500, i), labels={name: row for name, row in rows[i].items() if row is not None})
    return norbert_store.open(path)


def test_labels_come_back_with_their_gaps(gaps):
    for i, track in enumerate(gaps):
        expected = {name: values[i] for name, values in GAPS.items() if name != "_"}
        expected["start"] = expected["start"] or None  # an empty text isn't known
        assert track.labels == expected
    assert isinstance(gaps[0].labels["a b"], bool)
    assert verify(gaps.location)


def test_labels_with_gaps_in_the_table(gaps):
    tracks = gaps.tracks
    assert tracks["start"].values.tolist() == ["", "here", "", "ü"]
    assert tracks["target"].values.tolist() == GAPS["target"]
    assert np.array_equal(tracks["year"], [1969, np.nan, np.nan, -1], equal_nan=True)
    assert tracks["year"].dtype == float
    assert tracks["track"].values.tolist() == ["", "x", "", "x"]
    assert tracks["ä/ö"].values.tolist() == GAPS["ä/ö"]
    assert tracks["a b"].values.tolist() == GAPS["a b"]
    assert np.array_equal(tracks["frames"], [0.5, np.nan, np.inf, -1], equal_nan=True)
    assert tracks["big"].values.tolist() == GAPS["big"]
    assert tracks["_start"].values.tolist() == [0, 64, 128, 192]


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        ({"ä/ö": "pop"}, ["t0", "t3"]),
        ({"ä/ö": ("rock", "a, b")}, ["t0", "t3"]),
        ({"a b": True}, ["t0", "t3"]),
        ({"a b": False}, ["t1"]),
        ({"start": "here"}, ["t1"]),
        ({"start": ("here", "ü"), "a b": True}, ["t3"]),
        ({"target": (3, 0)}, ["t0", "t3"]),
        ({"frames": 0.5}, ["t0"]),
        ({"big": 2**60 + 1}, ["t1"]),
        ({"split": "", "target": 3}, ["t0"]),
    ],
)
def test_tracks_are_selected_by_labels_with_gaps(gaps, labels, names):
    assert gaps.select(**labels).names == names


def test_labels_and_values_that_are_not_there(gaps):
    with pytest.raises(NameNotFoundError, match="has no label 'genre'; it has 'split', 'target', 'ä/ö', 'a b'"):
        gaps.select(genre="rock")
    with pytest.raises(NameNotFoundError, match="has no ä/ö 'jazz'; it has 'a, b', 'pop', 'rock'"):
        gaps.select(**{"ä/ö": "jazz"})
    # what isn't known is no value
    with pytest.raises(NameNotFoundError, match="has no target 7; it has -9007199254740992, 0, 3$"):
        gaps.select(target=7)


@pytest.mark.parametrize("name", ["_", "_x", "_start", "", " "])
def test_names_that_labels_cannot_have(tmp_path, options, music, name):
    with norbert_store.create(tmp_path / "x.zarr", **options()) as writer:
        with pytest.raises(TrackError, match="a label's name must not be empty or begin with '_'"):
            writer.add("x", music(500, 0), labels={name: 1})
        writer.add("y", music(500, 0), labels={"x": 1})
    assert norbert_store.open(tmp_path / "x.zarr")["y"].labels == {"x": 1}


# ---- selections


@pytest.mark.parametrize(
    ("which", "names"),
    [
        ([True, False, False, True], ["Ann - Long", "one sample"]),
        (np.array([False, True, False, False]), ["Bob - Short"]),
        ([2, 0], ["Žofie – Ticho", "Ann - Long"]),
        ([-1, 0, -1], ["one sample", "Ann - Long", "one sample"]),
        (np.array([1], np.uint8), ["Bob - Short"]),
        (1, ["Bob - Short"]),
        (range(1, 3), ["Bob - Short", "Žofie – Ticho"]),
        (["one sample", "Bob - Short"], ["one sample", "Bob - Short"]),
        (np.array(["one sample", "Bob - Short"], dtype=object), ["one sample", "Bob - Short"]),
        ("Bob - Short", ["Bob - Short"]),
        ([False] * 4, []),
        ([], []),
    ],
)
def test_select(db, which, names):
    some = db.select(which)
    assert len(some) == len(names)
    assert some.names == names
    assert [track.name for track in some] == names
    assert all(np.array_equal(some[i].levels, db[name].levels) for i, name in enumerate(names))
    assert [name in some for name in NAMES] == [name in names for name in NAMES]


def test_select_by_columns_of_the_table(db):
    assert db.select(db.tracks.genre == "Rock").names == ["Ann - Long", "Žofie – Ticho"]
    assert db.select((db.tracks["_samples"] > 5000) & (db.tracks.year < 2000)).names == ["Ann - Long"]
    assert db.select(db.tracks["_present"].sel(_target="vocals")).names == [
        name for name in NAMES if name != "Bob - Short"
    ]
    assert db.select(db.tracks.name[1:3]).names == NAMES[1:3]
    assert db.select(db.tracks["_samples"].argsort()).names == [
        "one sample",
        "Bob - Short",
        "Žofie – Ticho",
        "Ann - Long",
    ]


def test_selections_of_selections(db):
    some = db.select([3, 2, 1])
    assert some.select(some.tracks.genre == "Rock").names == ["Žofie – Ticho"]
    assert some.select([-1]).names == ["Bob - Short"]
    assert some["Bob - Short"].samples == some[2].samples == 2000
    assert some.select(split="test").names == ["one sample", "Žofie – Ticho"]
    with pytest.raises(NameNotFoundError):
        some["Ann - Long"]
    with pytest.raises(NameNotFoundError):
        some.select(["Ann - Long"])
    with pytest.raises(IndexError):
        some[3]
    assert len(db) == 4


def test_empty_selections_work_like_others(db):
    none = db.select([])
    assert list(none) == []
    assert none.tracks.sizes["track"] == 0
    assert none.select([]).names == []
    assert "tracks     0" in repr(none)
    with pytest.raises(IndexError):
        none[0]


@pytest.mark.parametrize(
    ("which", "error", "message"),
    [
        ([True] * 3, ValueError, "expected a mask of 4 values, one for each track; found 3"),
        ([True] * 5, ValueError, "expected a mask of 4 values"),
        ([0, 4, 7], IndexError, "has 4 tracks; there is none at position 4"),
        ([-5], IndexError, "has 4 tracks"),
        (["Ann - Long", "Nobody"], NameNotFoundError, "no track 'Nobody'"),
        ([1.0, 2.0], ValueError, "expected a mask, positions or names, found an array of float64"),
        ([None], ValueError, "expected a mask, positions or names"),
        ([[0, 1]], ValueError, r"in one dimension, found shape \(1, 2\)"),
    ],
)
def test_selections_that_make_no_sense(db, which, error, message):
    with pytest.raises(error, match=message):
        db.select(which)


def test_open_one_split(small):
    assert norbert_store.open(small.path, split="train").names == NAMES[:2]
    assert norbert_store.open(small.path, split="test").names == NAMES[2:]
    with pytest.raises(NameNotFoundError, match=r"small\.zarr has no split 'valid'; it has 'test', 'train'"):
        norbert_store.open(small.path, split="valid")


# ---- chunks


def test_jpeg_takes_labels_and_positions(db):
    track = db[0]
    data = track.jpeg("vocals", "right", 12)
    assert data[:2] == b"\xff\xd8"
    assert data[-2:] == b"\xff\xd9"
    assert track.jpeg(1, 1, 12) == track.jpeg(-2, -1, np.int64(12)) == data
    assert track.jpeg("vocals", "left", 12) != data


@pytest.mark.parametrize("chunk", [-1, 13])
def test_jpeg_of_a_chunk_that_is_not_there(db, chunk):
    with pytest.raises(IndexError, match=f"'Ann - Long' has 13 chunks; there is none at position {chunk}"):
        db[0].jpeg("vocals", "left", chunk)


@pytest.mark.parametrize(
    ("target", "channel", "message"),
    [
        ("voice", 0, "no target 'voice'; it has 'mixture', 'vocals', 'drums'"),
        (3, 0, "no target 3"),
        (-4, 0, "no target -4"),
        ("vocals", "mid", "no channel 'mid'; it has 'left', 'right'"),
        ("vocals", 2, "no channel 2"),
        (None, 0, "no target None"),
    ],
)
def test_jpeg_of_a_label_that_is_not_there(db, target, channel, message):
    with pytest.raises(NameNotFoundError, match=message):
        db[0].jpeg(target, channel, 0)


def test_jpeg_of_an_absent_stem(db):
    with pytest.raises(
        NameNotFoundError, match="track 'Bob - Short' has no target 'vocals'; it has 'mixture', 'drums'"
    ):
        db["Bob - Short"].jpeg("vocals", "left", 0)


# ---- in other processes, in copies


@pytest.fixture(scope="module")
def spawned():
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        yield pool


@pytest.mark.slow
def test_spawned_processes_read_what_is_sent_to_them(spawned, db):
    track = db["Bob - Short"]
    assert spawned.apply(attrgetter("names"), (db,)) == NAMES
    assert spawned.apply(attrgetter("present"), (track,)) == track.present
    lazy = track.magnitude.isel(time=slice(None, None, -2))
    there = spawned.apply(methodcaller("load"), (lazy,))
    xarray.testing.assert_identical(there, lazy.copy(deep=True).load())
    assert np.array_equal(
        spawned.apply(methodcaller("to_xarray"), (db,)).magnitude, db.to_xarray().magnitude, equal_nan=True
    )


@pytest.mark.skipif(not hasattr(multiprocessing, "get_context") or sys.platform == "win32", reason="no fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork:DeprecationWarning")
def test_forked_processes_read_what_was_opened_before(db):
    expected = db[0].magnitude.values
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert np.array_equal(pool.apply_async(attrgetter("magnitude.values"), (db[0],)).get(30), expected)
    assert np.array_equal(db[0].magnitude.values, expected)


def test_threads_read_the_same(small):
    db = norbert_store.open(small.path)
    expected = [small.db[i % 4].magnitude.values for i in range(32)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda i: db[i % 4].magnitude.values, range(32)))
    assert all(map(lambda a, b: np.array_equal(a, b, equal_nan=True), found, expected))


@pytest.mark.parametrize("again", [lambda x: pickle.loads(pickle.dumps(x)), copy.deepcopy, copy.copy])
def test_copies_read_the_same(made, again):
    assert again(made.db).names == made.db.names
    assert again(made.db.select([0])).names == made.db.names[:1]
    for track in made.db:
        assert again(track).present == track.present
        for lazy in (track.magnitude, track.levels.isel(time=slice(1, None))):
            xarray.testing.assert_identical(again(lazy).load(), lazy.load())


def test_pickles_are_small(db):
    db[0].magnitude.load()
    assert len(pickle.dumps(db[0].magnitude)) < 30_000
    many = db.select([0] * 100_000)
    assert "Ann - Long" in many
    assert len(pickle.dumps(many[5])) < 30_000


# ---- back to audio


def reconstruction(track, target, mixture):
    """By the definition, without blocks: stored magnitudes, extended, with the mixture's phase."""
    phase = np.exp(1j * np.angle(track.transform.stft.transform(mixture)))
    stored = np.moveaxis(track.transform.extend(track.magnitude.sel(target=target).values), 0, 2)
    return track.transform.stft.inverse_transform(stored * phase, samples=track.samples)


@pytest.mark.parametrize("store", ["small", "bundled", "mel"])
def test_audio_is_the_magnitudes_with_the_phase_of_the_mixture(store, request):
    made = request.getfixturevalue(store)
    for track in made.db:
        mixture = made.audio[track.name]["mixture"]
        for target, there in track.present.items():
            if there:
                audio = track.to_audio(target, mixture=mixture)
                assert (audio.shape, audio.dtype) == ((track.samples, 2), np.float32)
                assert np.allclose(audio, reconstruction(track, target, mixture), atol=1e-5)


def test_audio_is_near_what_was_stored(small):
    track = small.db["Ann - Long"]
    stems = small.audio["Ann - Long"]
    stored = stems["vocals"]
    again = track.to_audio("vocals", mixture=stems["mixture"])
    assert np.mean((again - stored) ** 2) < 0.1 * np.mean(stored**2)


def test_silence_comes_back_as_silence(small):
    assert not small.db["Žofie – Ticho"].to_audio("drums").any()


def test_mixture_as_array_path_and_source_are_the_same(small):
    for i, track in enumerate(small.db):
        array = track.to_audio("mixture", mixture=small.audio[track.name]["mixture"])
        path = small.path.parent / f"audio/{i}/mixture.wav"
        assert np.array_equal(track.to_audio("mixture", mixture=path), array)
        assert np.array_equal(track.to_audio("mixture", mixture=str(path)), array)
        assert np.array_equal(track.to_audio("mixture", mixture=path.parent), array)
        assert np.array_equal(track.to_audio("mixture"), array)
        assert np.array_equal(track.to_audio(0), array)


def test_mono_mixture_may_have_one_dimension(tmp_path, options, music):
    mono = music(3000, 0)["mixture"][:, 0]
    with norbert_store.create(tmp_path / "mono.zarr", **options(channels=1)) as writer:
        writer.add("mono", {"mixture": mono})
    track = norbert_store.open(tmp_path / "mono.zarr")[0]
    assert np.array_equal(
        track.to_audio("mixture", mixture=mono), track.to_audio("mixture", mixture=mono[:, np.newaxis])
    )


def test_store_and_audio_may_move_together(small, tmp_path, monkeypatch):
    expected = small.db[0].to_audio("vocals")
    shutil.copytree(small.path.parent, tmp_path / "moved")
    moved = norbert_store.open(tmp_path / "moved/small.zarr")
    assert np.array_equal(moved[0].to_audio("vocals"), expected)
    monkeypatch.chdir(tmp_path / "moved")
    relative = norbert_store.open("small.zarr")
    assert np.array_equal(relative[0].to_audio("vocals"), expected)
    shutil.rmtree(tmp_path / "moved/audio")
    with pytest.raises(
        SourceError, match="the source of track 'Ann - Long' can't be read: .*moved.audio.*give mixture="
    ):
        moved[0].to_audio("vocals")


@pytest.mark.parametrize("source", ["", "s3://bucket/audio"])
def test_source_that_cannot_be_followed(tmp_path, options, music, source):
    with norbert_store.create(tmp_path / "x.zarr", **options()) as writer:
        writer.add("x", music(1000, 0), source=source)
    with pytest.raises(SourceError, match="track 'x' .*; give mixture="):
        norbert_store.open(tmp_path / "x.zarr")[0].to_audio("vocals")


def test_source_may_be_a_file_or_its_uri(small, tmp_path, options):
    wav = small.path.parent / "audio/1/mixture.wav"
    with norbert_store.create(tmp_path / "x.zarr", **options()) as writer:
        for source in (str(wav), wav.as_uri(), wav.parent.as_uri()):
            writer.add(source, {"mixture": wav}, source=source)
    with pytest.raises(SourceError, match="leads out of .*; give the folder that its audio lies in as audio_root"):
        norbert_store.open(tmp_path / "x.zarr")[0].to_audio("mixture")
    db = norbert_store.open(tmp_path / "x.zarr", audio_root=small.path.parent)
    first, *others = (track.to_audio("mixture") for track in db)
    assert all(np.array_equal(first, other) for other in others)


@pytest.mark.parametrize(
    ("mixture", "message"),
    [
        (np.zeros((1999, 2)), "the mixture is 1999 samples x 2 channels; track 'Bob - Short' is 2000 x 2"),
        (np.zeros((2001, 2)), "2001 samples x 2 channels"),
        (np.zeros((2000, 1)), "2000 samples x 1 channels"),
        (np.zeros(2000), "2000 samples x 1 channels"),
        (np.zeros((2000, 2), np.int16), "expected floating-point audio"),
        (np.full((2000, 2), np.nan), "NaN or infinite"),
        (np.zeros((0, 2)), "at least one sample"),
    ],
)
def test_mixture_that_does_not_fit(db, mixture, message):
    with pytest.raises(AudioError, match=message):
        db["Bob - Short"].to_audio("drums", mixture=mixture)


def test_mixture_of_another_rate(db, tmp_path):
    soundfile.write(tmp_path / "fast.wav", np.zeros((2000, 2)), 44100)
    with pytest.raises(AudioError, match="the mixture has 44100 samples per second; track 'Bob - Short' has 8000"):
        db["Bob - Short"].to_audio("drums", mixture=tmp_path / "fast.wav")


def test_source_of_another_rate(tmp_path, options, music):
    soundfile.write(tmp_path / "fast.wav", np.zeros((1000, 2)), 44100)
    with norbert_store.create(tmp_path / "x.zarr", **options()) as writer:
        writer.add("x", music(1000, 0), source="fast.wav")
    with pytest.raises(AudioError, match="the source of track 'x' has 44100 samples per second; track 'x' has 8000"):
        norbert_store.open(tmp_path / "x.zarr")[0].to_audio("vocals")


def test_mixture_that_is_not_there(db, tmp_path):
    with pytest.raises(SourceError, match=r"no\.wav"):
        db[0].to_audio("vocals", mixture=tmp_path / "no.wav")


def test_audio_of_what_is_not_there(db):
    with pytest.raises(NameNotFoundError, match="no target 'voice'"):
        db[0].to_audio("voice")
    with pytest.raises(NameNotFoundError, match="track 'Bob - Short' has no target 'vocals'"):
        db["Bob - Short"].to_audio("vocals")


def test_no_audio_of_magnitudes_that_were_computed_elsewhere(ready):
    with pytest.raises(ValueError, match="magnitudes of transform 'cqt' are computed elsewhere"):
        ready.db[0].to_audio("one", mixture=np.zeros((7500, 2)))


# ---- the rest


def test_transform_that_cannot_be_built_again_names_the_store(small_copy):
    path = small_copy / "zarr.json"
    whole = path.read_bytes()
    for key, value, message in (
        ("n_fft", 255, "n_fft must be even"),
        ("bandwidth", 3000, "97 bins; the store's chunks have 113"),
    ):
        document = Document.from_json(whole, "")
        path.write_bytes(replace(document, transform={**document.transform, key: value}).to_json())
        with pytest.raises(FormatError, match=rf"copy\.zarr: .*{message}"):
            norbert_store.open(small_copy)


def test_all_errors_are_of_this_library_and_of_the_usual_kinds(db):
    for access in (lambda: db["x"], lambda: db.select(split="x"), lambda: db[0].jpeg("x", 0, 0)):
        with pytest.raises(NorbertStoreError) as caught:
            access()
        assert isinstance(caught.value, KeyError)


@pytest.mark.slow
def test_opening_takes_no_more_than_the_document(small):
    code = (
        "import sys, norbert_store; db = norbert_store.open(sys.argv[1]); "
        "assert len(db) == 4; sys.exit(any(name in sys.modules for name in ('scipy', 'matplotlib', 'PIL', 'dask')))"
    )
    assert subprocess.run([sys.executable, "-c", code, str(small.path)], check=False).returncode == 0


def test_a_store_opened_by_a_relative_path_stays_open_elsewhere(small_copy, tmp_path, monkeypatch):
    monkeypatch.chdir(small_copy.parent)
    db = norbert_store.open(small_copy.name)
    assert db.location == small_copy.name
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert np.isfinite(db[0].magnitude.sel(target="mixture").values).all()


def test_a_selection_has_no_packed_axis(db):
    with pytest.raises(ValueError, match="the packed axis holds all tracks"):
        db.select(split="train").to_xarray()
    with pytest.raises(ValueError, match="the packed axis holds all tracks"):
        db.select([0]).to_xarray("levels")


def test_source_is_found_through_links(small, tmp_path, options, music):
    real = tmp_path / "real" / "deep"
    real.mkdir(parents=True)
    (tmp_path / "link").symlink_to(real, target_is_directory=True)
    write_musdb(tmp_path / "musdb", tracks=1, seconds=0.5, rate=8000)
    norbert_store.export_musdb(tmp_path / "musdb", tmp_path / "link" / "x.zarr")
    for place in (tmp_path / "link", real):
        db = norbert_store.open(place / "x.zarr", audio_root=tmp_path / "musdb")
        assert db[0].to_audio("vocals").shape == (4000, 2)


def test_reading_from_many_threads_with_few_blocks_kept(small, monkeypatch):
    monkeypatch.setattr("norbert_store._read.snapshot._BLOCK_BYTES_KEPT", 1)
    db = norbert_store.open(small.path)
    expected = small.db[0].magnitude.values
    with ThreadPoolExecutor(8) as pool:
        for values in pool.map(lambda _: db[0].magnitude.values, range(60)):
            assert np.array_equal(values, expected, equal_nan=True)
