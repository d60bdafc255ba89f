from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray
import zarr

import norbert_store
from norbert_store._check.verify import verify
from norbert_store.errors import FormatError, StoreNotFoundError

STORES = sorted((Path(__file__).parent / "data/stores").glob("*.zarr"))


@pytest.fixture(params=STORES, ids=lambda path: path.stem)
def store(request):
    return request.param


@pytest.fixture
def expected(store):
    with np.load(store.with_suffix(".npz")) as file:
        return dict(file)


# ---- stores of every released version, written under old and new zarr


def test_there_are_stores_of_both_versions_of_zarr():
    assert [path.stem for path in STORES] == ["1.0-zarr-3.1.6", "1.0-zarr-3.4.2"]


def test_old_stores_open(store, expected):
    db = norbert_store.open(store)
    assert db.names == expected["track_name"].tolist() == ["Ann - Long", "Žofie – 日本", "<b>silent</b> vocals"]
    assert np.array_equal(db.to_xarray("levels")["levels"], expected["levels"])
    # powers may differ in their last place from one machine to the other
    np.testing.assert_allclose(db.to_xarray().magnitude, expected["magnitude"], rtol=1e-6)
    assert np.array_equal(db.frequencies, expected["frequency"])
    for track in db:
        there = slice(track.start, track.start + track.frames)
        assert np.array_equal(track.levels, expected["levels"][:, :, there])
        np.testing.assert_allclose(track.magnitude, expected["magnitude"][:, :, there], rtol=1e-6)
    assert verify(store)


def test_old_tables_read(store, expected):
    db = norbert_store.open(store)
    columns = {name.removeprefix("track_"): values for name, values in expected.items() if name.startswith("track_")}
    assert set(db.tracks) == set(columns)
    for name, values in columns.items():
        found = db.tracks[name].values
        assert np.array_equal(found, values, equal_nan=values.dtype.kind == "f")
    assert db[0].metadata == {"a": [1]}
    assert db.attributes["title"] == "Three tracks"
    assert norbert_store.open(store, split="test").names == ["<b>silent</b> vocals"]


def test_old_stores_make_audio(store):
    track = norbert_store.open(store)[0]
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (1200, 2))
    assert np.abs(track.to_audio("vocals", mixture=noise)).max() > 0.1


def test_old_stores_open_by_the_engine_of_xarray(store, expected):
    db = norbert_store.open(store)
    packed = xarray.open_dataset(store, engine="norbert_store").magnitude
    assert np.array_equal(packed, db.to_xarray().magnitude, equal_nan=True)
    np.testing.assert_allclose(packed, expected["magnitude"], rtol=1e-6)
    track = xarray.open_dataset(store, engine="norbert_store", track="Žofie – 日本")
    assert np.array_equal(track.magnitude, db[1].magnitude, equal_nan=True)


PLAIN = """
import sys
import numpy as np
import xarray

dataset = xarray.open_zarr(sys.argv[1])
expected = dict(np.load(sys.argv[2]))
np.testing.assert_allclose(dataset.magnitude, expected["magnitude"], rtol=1e-6)
np.testing.assert_array_equal(dataset.frequency, expected["frequency"])
assert dataset.target.values.tolist() == ["mixture", "vocals"]
assert dataset.channel.values.tolist() == ["left", "right"]
some = dataset.magnitude.sel(target="vocals", channel="left").isel(frame=slice(3, 20)).values
np.testing.assert_allclose(some, expected["magnitude"][1, 0, 3:20], rtol=1e-6)
tracks = xarray.open_zarr(sys.argv[1], group="track")
for name, values in expected.items():
    if name.startswith("track_"):
        np.testing.assert_array_equal(tracks[name.removeprefix("track_")], values)
np.save(sys.argv[3], dataset.magnitude.values)
"""


@pytest.mark.slow
def test_old_stores_read_by_programs_that_never_heard_of_this_library(store, tmp_path):
    command = [sys.executable, "-W", "error", "-c", PLAIN, store, store.with_suffix(".npz"), tmp_path / "found.npy"]
    done = subprocess.run(list(map(str, command)), check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert np.array_equal(
        np.load(tmp_path / "found.npy"), norbert_store.open(store).to_xarray().magnitude, equal_nan=True
    )


def test_stores_of_both_versions_of_zarr_hold_the_same():
    one, other = (xarray.open_zarr(path).load() for path in STORES)
    xarray.testing.assert_identical(one, other)


# ---- what is newer, unknown or broken


@pytest.fixture
def change(small_copy):
    """Change the root document of a copy of the small store."""

    def change_root(edit):
        path = small_copy / "zarr.json"
        root = json.loads(path.read_bytes())
        edit(root, root["attributes"]["norbert_store"])
        path.write_text(json.dumps(root))
        return small_copy

    return change_root


def test_newer_major_version_is_refused(change):
    store = change(lambda root, attributes: attributes.update(version="2.0"))
    with pytest.raises(FormatError) as caught:
        norbert_store.open(store)
    version = norbert_store.__version__
    assert str(caught.value) == (
        f"{store} is written in format 2.0; this is norbert_store {version}, which reads up to format 1.0: "
        "upgrade norbert_store"
    )


def test_newer_minor_version_reads(change, small):
    db = norbert_store.open(change(lambda root, attributes: attributes.update(version="1.9")))
    assert db.attributes["version"] == "1.9"
    assert np.array_equal(db[0].magnitude, small.db[0].magnitude)


def test_unknown_attributes_are_kept_and_shown(change):
    db = norbert_store.open(change(lambda root, attributes: attributes.update(mood="blue", more={"x": [None]})))
    assert db.attributes["mood"] == "blue"
    assert db.attributes["more"] == {"x": [None]}
    assert db.attributes["title"] == "Small"


def test_others_attributes_and_arrays_beside_ours_do_no_harm(change, small):
    def edit(root, attributes):
        root["attributes"]["other"] = {"a": 1}
        nodes = root["consolidated_metadata"]["metadata"]
        nodes["extra"] = {**nodes["frequency"]}

    assert norbert_store.open(change(edit)).names == small.db.names


@pytest.mark.filterwarnings("ignore:Consolidated metadata:zarr.errors.ZarrUserWarning")
def test_store_reads_after_zarr_has_consolidated_it(small_copy, small):
    zarr.consolidate_metadata(small_copy)
    db = norbert_store.open(small_copy)
    assert np.array_equal(db.to_xarray().magnitude, small.db.to_xarray().magnitude, equal_nan=True)
    xarray.testing.assert_identical(db.tracks, small.db.tracks)


def test_several_faults_are_all_named(change):
    def edit(root, attributes):
        del attributes["channels"], root["consolidated_metadata"]["metadata"]["track/split"]
        attributes["frames"] = -1

    store = change(edit)
    with pytest.raises(FormatError) as caught:
        norbert_store.open(store)
    for part in (str(store), "'channels' is missing", "'frames' must be", "/track/split is missing"):
        assert part in str(caught.value)


def test_other_zarr_data_is_no_store(tmp_path):
    zarr.create_array(tmp_path / "other.zarr", shape=(2,), dtype="int8")
    xarray.Dataset({"x": ("y", [1, 2])}).to_zarr(tmp_path / "set.zarr", zarr_format=3, consolidated=False)
    for name in ("other.zarr", "set.zarr"):
        with pytest.raises(FormatError, match=rf"{name} is no norbert_store.*xarray\.open_zarr opens other zarr data"):
            norbert_store.open(tmp_path / name)


def test_zarr_2_data_is_no_store(tmp_path):
    zarr.create_array(tmp_path / "old.zarr", shape=(2,), dtype="int8", zarr_format=2)
    with pytest.raises(StoreNotFoundError, match=r"old\.zarr: expected a zarr\.json there"):
        norbert_store.open(tmp_path / "old.zarr")


@pytest.mark.parametrize("content", [b"", b"not JSON", b"\xff\xfe\x00", b"[1]", b"{}", b'{"attributes": 5}'])
def test_document_that_is_none(small_copy, content):
    (small_copy / "zarr.json").write_bytes(content)
    with pytest.raises(FormatError, match=r"copy\.zarr is no norbert_store"):
        norbert_store.open(small_copy)


def test_document_that_is_cut_off(small_copy):
    whole = (small_copy / "zarr.json").read_bytes()
    for kept in (1, 100, len(whole) // 2, len(whole) - 1):
        (small_copy / "zarr.json").write_bytes(whole[:kept])
        with pytest.raises(FormatError, match=r"copy\.zarr is no norbert_store"):
            norbert_store.open(small_copy)


def test_nothing_there(tmp_path):
    (tmp_path / "empty.zarr").mkdir()
    (tmp_path / "file.zarr").write_text("x")
    for name in ("empty.zarr", "file.zarr", "no.zarr", "no/such/folder.zarr", "no.zip"):
        with pytest.raises(StoreNotFoundError, match=rf"there is no store at .*{name}") as caught:
            norbert_store.open(tmp_path / name)
        assert isinstance(caught.value, FileNotFoundError)
    assert len(list(tmp_path.iterdir())) == 2


def test_nothing_in_memory():
    with pytest.raises(StoreNotFoundError, match="there is no store at memory://"):
        norbert_store.open(zarr.storage.MemoryStore())


def test_a_group_of_a_store_is_no_store(small):
    with pytest.raises(FormatError, match="track is no norbert_store"):
        norbert_store.open(small.path / "track")
