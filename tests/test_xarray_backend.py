from __future__ import annotations

import numpy as np
import pytest
import xarray
from zarr.storage import MemoryStore

import norbert_store
from norbert_store._xarray_backend import NorbertStoreBackend
from norbert_store.errors import NameNotFoundError, StoreNotFoundError


def open_dataset(path, **options):
    return xarray.open_dataset(path, engine="norbert_store", **options)


def test_engine_is_there():
    engine = xarray.backends.list_engines()["norbert_store"]
    assert isinstance(engine, NorbertStoreBackend)
    assert "norbert_store" in engine.description


@pytest.mark.parametrize("track", ["Bob - Short", 1, -3])
def test_one_track_by_name_and_position(small, track):
    dataset = open_dataset(small.path, track=track)
    xarray.testing.assert_identical(dataset.load(), small.db[1].to_xarray().load())
    assert dataset.magnitude.dims == ("target", "channel", "time", "frequency")
    assert dataset.attrs == {"track": "Bob - Short", "rate": 8000}


def test_levels(small):
    dataset = open_dataset(str(small.path), track=0, values="levels")
    assert list(dataset) == ["levels"]
    xarray.testing.assert_identical(dataset.levels.load(), small.db[0].levels.load())


@pytest.mark.parametrize("values", ["magnitude", "levels"])
def test_all_tracks_packed_without_a_track(made, values):
    dataset = open_dataset(made.path, values=values)
    assert dataset[values].dims == ("target", "channel", "frame", "frequency")
    xarray.testing.assert_identical(dataset.load(), made.db.to_xarray(values).load())


def test_open_dataarray_and_context(small):
    with xarray.open_dataarray(small.path, engine="norbert_store", track=0) as lazy:
        some = lazy.sel(target="vocals", channel="left", time=slice(1, 1.1), frequency=slice(0, 1000)).values
    assert np.array_equal(some, small.db[0].magnitude[1, 0, 63:69, :33])


def test_zarr_stores_as_places(options, music):
    store = MemoryStore()
    with norbert_store.create(store, **options()) as writer:
        writer.add("a", music(2000, 0))
    assert not open_dataset(store, track="a").magnitude.isnull().any()


@pytest.mark.parametrize(
    ("drop", "left"),
    [
        ("magnitude", {"target", "channel", "time", "frequency"}),
        (["time", "frequency"], {"magnitude", "target", "channel"}),
        (["not there"], {"magnitude", "target", "channel", "time", "frequency"}),
        (None, {"magnitude", "target", "channel", "time", "frequency"}),
    ],
)
def test_variables_are_dropped(small, drop, left):
    assert set(open_dataset(small.path, track=0, drop_variables=drop).variables) == left


@pytest.mark.parametrize("store", ["small", "bundled"])
def test_dask_chunks_lie_along_shards(store, request):
    pytest.importorskip("dask")
    made = request.getfixturevalue(store)
    for track in made.db:
        chunked = open_dataset(made.path, track=track.name, chunks={}).magnitude
        assert dict(zip(chunked.dims, chunked.chunks, strict=True)) | {"time": ()} == {
            "target": (1, 1, 1),
            "channel": (2,),
            "time": (),
            "frequency": (113,),
        }
        ends = np.cumsum(chunked.chunksizes["time"])
        assert ends[-1] == track.frames
        assert ((track.start + ends[:-1]) % 64 == 0).all()
        assert max(chunked.chunksizes["time"]) <= 64
        xarray.testing.assert_identical(chunked.compute(), track.magnitude.load())


def test_dask_of_the_packed_axis(bundled):
    pytest.importorskip("dask")
    chunked = open_dataset(bundled.path, chunks={}).magnitude
    assert chunked.chunksizes["frame"] == (64, 64, 64, 64, 32)
    xarray.testing.assert_identical(chunked.compute(), bundled.db.to_xarray().magnitude.load())
    mean = chunked.mean(("frame", "frequency"))
    assert np.allclose(mean, bundled.db.to_xarray().magnitude.load().mean(("frame", "frequency")))


def test_dask_of_an_empty_store(tmp_path, options):
    pytest.importorskip("dask")
    norbert_store.create(tmp_path / "empty.zarr", **options()).close()
    assert open_dataset(tmp_path / "empty.zarr", chunks={}).magnitude.compute().shape == (3, 2, 0, 113)


def test_other_chunks_are_the_callers(small):
    pytest.importorskip("dask")
    with pytest.warns(UserWarning, match="separate the stored chunks"):
        chunked = open_dataset(small.path, track=0, chunks={"time": 50}).magnitude
    assert chunked.chunksizes["time"] == (50, 50, 50, 50, 1)
    xarray.testing.assert_identical(chunked.compute(), small.db[0].magnitude.load())


@pytest.mark.slow
def test_never_claims_anything_by_itself(small):
    for place in (small.path, str(small.path), "s3://bucket/x.zarr", MemoryStore()):
        assert not NorbertStoreBackend().guess_can_open(place)
    guessed = xarray.open_dataset(small.path)
    xarray.testing.assert_identical(guessed.load(), xarray.open_zarr(small.path, chunks=None).load())


def test_what_is_not_there(small, tmp_path):
    with pytest.raises(NameNotFoundError, match="no track 'Nobody'"):
        open_dataset(small.path, track="Nobody")
    with pytest.raises(IndexError):
        open_dataset(small.path, track=4)
    with pytest.raises(StoreNotFoundError, match=r"no\.zarr"):
        open_dataset(tmp_path / "no.zarr")
    with pytest.raises(ValueError, match="values must be 'magnitude' or 'levels', found 'phase'"):
        open_dataset(small.path, values="phase")


def test_tracks_are_written_as_other_files(small, tmp_path):
    track = small.db["Bob - Short"]
    track.to_xarray().to_zarr(tmp_path / "track.zarr", zarr_format=2, consolidated=False)
    again = xarray.open_zarr(tmp_path / "track.zarr", consolidated=False)
    assert np.array_equal(again.magnitude, track.magnitude, equal_nan=True)
