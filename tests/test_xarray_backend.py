from __future__ import annotations

import asyncio

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


waited_for = pytest.mark.skipif(not hasattr(xarray.Dataset, "load_async"), reason="an older xarray")


@waited_for
def test_everything_lazy_can_be_waited_for(small):
    lazy = [
        small.db[0].magnitude,
        small.db[0].levels.isel(time=slice(3, 60, 2), target=1),
        small.db[1].magnitude.isel(time=[5, 3], channel=0),
        small.db[0].magnitude.isel(time=xarray.DataArray([7, 8], dims="x"), target=xarray.DataArray([0, 2], dims="x")),
        small.db.to_xarray(),
        open_dataset(small.path),
        open_dataset(small.path, track=0, values="levels"),
        small.db.tracks,
        xarray.open_zarr(small.path, chunks=None),
    ]

    async def load_all():
        return await asyncio.gather(*(each.copy().load_async() for each in lazy))

    for found, each in zip(asyncio.run(load_all()), lazy, strict=True):
        xarray.testing.assert_identical(found, each.load())


@waited_for
def test_columns_of_a_large_table_can_be_waited_for(tmp_path, options, monkeypatch):
    monkeypatch.setattr("norbert_store._write.settings.ROWS", 2)
    with norbert_store.create(tmp_path / "x.zarr", **options()) as writer:
        for i in range(5):
            writer.add(f"{i}", {"mixture": np.zeros((300, 2))}, labels={"year": i})
    tracks = norbert_store.open(tmp_path / "x.zarr").tracks
    assert asyncio.run(tracks.year.load_async()).values.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("of", ["a table", "a track", "all tracks", "xarray.open_zarr", "the engine"])
def test_netcdf_holds_it(small, tmp_path, of):
    pytest.importorskip("scipy")
    dataset = {
        "a table": lambda: small.db.tracks,
        "a track": lambda: small.db[0].to_xarray(),
        "all tracks": lambda: small.db.to_xarray(),
        "xarray.open_zarr": lambda: xarray.open_zarr(small.path, chunks=None),
        "the engine": lambda: open_dataset(small.path, track=1),
    }[of]()
    dataset.to_netcdf(tmp_path / "x.nc", engine="scipy")
    with xarray.open_dataset(tmp_path / "x.nc", engine="scipy") as found:
        found.load()
        for name, variable in dataset.variables.items():
            assert np.array_equal(
                found[name].values.astype(variable.dtype), variable, equal_nan=variable.dtype.kind == "f"
            )
        assert found.attrs == dataset.attrs
    if of == "xarray.open_zarr":
        assert found.attrs["norbert_store"].startswith("{")


def test_netcdf_holds_the_table_of_an_export(tmp_path):
    pytest.importorskip("scipy")
    import soundfile

    soundfile.write(tmp_path / "a.wav", np.zeros((4000, 2)), 8000)
    table = [{"name": "a", "mixture": tmp_path / "a.wav", "year": 1969}]
    tracks = norbert_store.export(table, tmp_path / "x.zarr", effort=0).open().tracks
    tracks.to_netcdf(tmp_path / "x.nc", engine="scipy")
    with xarray.open_dataset(tmp_path / "x.nc", engine="scipy") as found:
        assert found["_source"].values.tolist() == ["a.wav"]
