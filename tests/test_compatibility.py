from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import google_crc32c
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
        return {**file, "tracks": json.loads(file["tracks"].item())}


# ---- stores of every released version


def test_there_is_a_store_of_every_version():
    assert [path.name for path in STORES] == ["1.0.zarr"]


def test_old_stores_open(store, expected):
    db = norbert_store.open(store)
    assert db.names == ["Ann - Long", "Žofie – 日本", "<b>silent</b> vocals"]
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
    found = [{key: getattr(track, key) for key in row} for track, row in zip(db, expected["tracks"], strict=True)]
    assert found == expected["tracks"]
    assert db.attributes["title"] == "Three tracks"
    assert norbert_store.open(store, split="test").names == ["<b>silent</b> vocals"]
    assert db.select(**{"ä/ö": "rock"}).names == ["Ann - Long"]
    assert db.select(start="here").names == ["Žofie – 日本"]


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


# reads all arrays, and keeps what it found, in memory and as netCDF
PLAIN = """
import sys
import numpy as np
import xarray

store, expected, out, consolidated = sys.argv[1:]
options = {"consolidated": consolidated == "True"}
dataset = xarray.open_zarr(store, **options)
expected = dict(np.load(expected))
assert set(dataset.variables) == {"magnitude", "target", "channel", "frequency"}
np.testing.assert_allclose(dataset.magnitude, expected["magnitude"], rtol=1e-6)
np.testing.assert_array_equal(dataset.frequency, expected["frequency"])
assert dataset.target.values.tolist() == ["mixture", "vocals"]
assert dataset.channel.values.tolist() == ["left", "right"]
some = dataset.magnitude.sel(target="vocals", channel="left").isel(frame=slice(3, 20)).values
np.testing.assert_allclose(some, expected["magnitude"][1, 0, 3:20], rtol=1e-6)
tracks = xarray.open_zarr(store, group="track", **options)
assert tracks.name.values.tolist()[0] == "Ann - Long"
assert tracks.start.values.tolist() == [0, 40, 48]
assert tracks.present.values.tolist() == [[True, True], [True, False], [True, True]]
labels = xarray.open_zarr(store, group="label", **options)
assert labels["0"].values.tolist() == ["Électronique", "", ""]
assert labels["3"].values.tolist() == [1, -1, 0]
extent = xarray.open_zarr(store, group="chunk", **options).extent
assert extent.dims == ("target", "part", "channel", "chunk")
dataset.to_netcdf(out, engine="scipy")
assert xarray.open_dataset(out, engine="scipy").identical(dataset)
"""


@pytest.mark.slow
@pytest.mark.parametrize("consolidated", [True, False])
def test_old_stores_read_by_programs_that_never_heard_of_this_library(store, consolidated, tmp_path):
    arguments = [store, store.with_suffix(".npz"), tmp_path / "found.nc", consolidated]
    command = [sys.executable, "-W", "error", "-c", PLAIN, *map(str, arguments)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    with xarray.open_dataset(tmp_path / "found.nc", engine="scipy") as found:
        packed = norbert_store.open(store).to_xarray()
        assert np.array_equal(found.magnitude, packed.magnitude, equal_nan=True)
        # netCDF keeps the document, byte for byte
        text = found.attrs["norbert_store"]
        assert f"{google_crc32c.value(text.encode()):08x}" == found.attrs["norbert_store_crc32c"]
        assert json.loads(text)["title"] == "Three tracks"


# ---- what is newer, unknown or broken


@pytest.fixture
def change(small_copy):
    """Change the document of a copy of the small store, and its checksum with it."""

    def change_root(edit):
        path = small_copy / "zarr.json"
        root = json.loads(path.read_bytes())
        document = json.loads(root["attributes"]["norbert_store"])
        edit(root, document)
        text = json.dumps(document, ensure_ascii=False)
        root["attributes"]["norbert_store"] = text
        root["attributes"]["norbert_store_crc32c"] = f"{google_crc32c.value(text.encode()):08x}"
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


def test_unknown_features_that_readers_need_are_refused(change):
    store = change(lambda root, attributes: attributes.update(features={"read": ["x"], "write": []}))
    with pytest.raises(FormatError, match=r"copy\.zarr needs features that norbert_store .* can't read: \['x'\]"):
        norbert_store.open(store)


def test_stores_with_unknown_features_that_writers_need_are_read_only(change, small):
    store = change(lambda root, attributes: attributes.update(features={"read": [], "write": ["x"]}))
    before = (store / "zarr.json").read_bytes()
    assert np.array_equal(norbert_store.open(store)[0].magnitude, small.db[0].magnitude)
    with pytest.raises(FormatError, match=r"has features that this version can't write on: \['x'\]"):
        norbert_store.append(store)
    assert (store / "zarr.json").read_bytes() == before


def test_unknown_keys_outlive_a_commit(change, music):
    store = change(lambda root, attributes: attributes.update(mood="blue", more={"x": [None]}, version="1.9"))
    with norbert_store.append(store) as writer:
        writer.add("new", music(1000, 1))
    attributes = norbert_store.open(store).attributes
    assert (attributes["mood"], attributes["more"], attributes["version"]) == ("blue", {"x": [None]}, "1.9")


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

    db = norbert_store.open(change(edit))
    assert db.names == small.db.names
    assert np.array_equal(db[0].magnitude, small.db[0].magnitude)


@pytest.mark.parametrize("metadata", [..., None, {}, {"kind": "inline", "metadata": {"magnitude": {"shape": [0]}}}])
def test_a_store_needs_no_consolidated_metadata_to_be_read(change, small, metadata):
    def edit(root, attributes):
        del root["consolidated_metadata"]
        if metadata is not ...:
            root["consolidated_metadata"] = metadata

    db = norbert_store.open(change(edit))
    assert np.array_equal(db.to_xarray().magnitude, small.db.to_xarray().magnitude, equal_nan=True)
    xarray.testing.assert_identical(db.tracks, small.db.tracks)


def test_a_store_needs_no_documents_of_arrays_to_be_read(small_copy, small):
    for path in small_copy.rglob("*/zarr.json"):
        path.unlink()
    db = norbert_store.open(small_copy)
    assert np.array_equal(db.to_xarray().magnitude, small.db.to_xarray().magnitude, equal_nan=True)
    xarray.testing.assert_identical(db.tracks, small.db.tracks)


@pytest.mark.filterwarnings("ignore:Consolidated metadata:zarr.errors.ZarrUserWarning")
def test_store_reads_after_zarr_has_consolidated_it(small_copy, small):
    zarr.consolidate_metadata(small_copy)
    db = norbert_store.open(small_copy)
    assert np.array_equal(db.to_xarray().magnitude, small.db.to_xarray().magnitude, equal_nan=True)
    xarray.testing.assert_identical(db.tracks, small.db.tracks)


def test_several_faults_are_all_named(change):
    def edit(root, attributes):
        del attributes["channels"]
        attributes["chunks"] = -1
        attributes["labels"][0]["type"] = "complex"

    store = change(edit)
    with pytest.raises(FormatError) as caught:
        norbert_store.open(store)
    for part in (str(store), "'channels' is missing", "'chunks' must be", "'complex'"):
        assert part in str(caught.value)


@pytest.mark.parametrize(("old", "new"), [('"tracks": 4', '"tracks": 3'), ("Small", "Smell"), ('": ', '":')])
def test_a_document_that_was_changed_by_hand_or_damaged_is_refused(small_copy, old, new):
    path = small_copy / "zarr.json"
    root = json.loads(path.read_text())
    text = root["attributes"]["norbert_store"]
    assert old in text
    root["attributes"]["norbert_store"] = text.replace(old, new, 1)
    path.write_text(json.dumps(root))
    with pytest.raises(FormatError, match=r"copy\.zarr: the checksum of its document is .* changed by hand"):
        norbert_store.open(small_copy)


@pytest.mark.parametrize("checksum", [..., None, 5, "", "0" * 8])
def test_a_document_without_its_checksum_is_refused(change, checksum):
    store = change(lambda root, attributes: None)
    root = json.loads((store / "zarr.json").read_text())
    del root["attributes"]["norbert_store_crc32c"]
    if checksum is not ...:
        root["attributes"]["norbert_store_crc32c"] = checksum
    (store / "zarr.json").write_text(json.dumps(root))
    with pytest.raises(FormatError, match="the checksum of its document is"):
        norbert_store.open(store)


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
