from __future__ import annotations

import asyncio

import numpy as np
import pytest
import xarray
import zarr
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import norbert_store
from norbert_store.errors import DamagedError

SIZES = {"target": 3, "channel": 2, "time": 201, "frequency": 113}


def indexers(size):
    """All that xarray takes along one dimension."""
    positions = st.lists(st.integers(-size, size - 1), max_size=8)
    masks = st.lists(st.booleans(), min_size=size, max_size=size)
    return st.one_of(
        # of empty slices that run backwards xarray makes an IndexError, whatever lies below
        st.slices(size).filter(lambda found: len(range(*found.indices(size))) or (found.step or 1) > 0),
        st.just(slice(None)),
        st.integers(-size, size - 1),
        positions.map(lambda found: np.array(found, dtype=np.int64)),
        masks.map(lambda mask: np.array(mask, dtype=bool)),
    )


def selections(sizes):
    return st.fixed_dictionaries({}, optional={dim: indexers(size) for dim, size in sizes.items()})


@pytest.fixture(scope="module")
def pairs(small):
    """Tracks and the packed axis, lazy, and read whole."""
    made = {
        ("Ann - Long", "magnitude"): small.db[0].magnitude,
        ("Ann - Long", "levels"): small.db[0].levels,
        ("Bob - Short", "magnitude"): small.db[1].magnitude,
        ("packed", "magnitude"): small.db.to_xarray().magnitude,
    }
    return {key: (lazy, lazy.copy(deep=True).load()) for key, lazy in made.items()}


@settings(max_examples=150)
@given(selections(SIZES), st.sampled_from(["magnitude", "levels"]))
def test_any_selection_is_that_of_the_whole(pairs, selection, values):
    lazy, whole = pairs["Ann - Long", values]
    xarray.testing.assert_identical(lazy.isel(selection).load(), whole.isel(selection))


@settings(max_examples=50)
@given(selections({**SIZES, "time": 17}))
def test_any_selection_of_a_track_with_an_absent_stem_is_that_of_the_whole(pairs, selection):
    lazy, whole = pairs["Bob - Short", "magnitude"]
    xarray.testing.assert_identical(lazy.isel(selection).load(), whole.isel(selection))


@settings(max_examples=50)
@given(selections({"target": 3, "channel": 2, "frame": 400, "frequency": 113}))
def test_any_selection_of_the_packed_axis_is_that_of_the_whole(pairs, selection):
    lazy, whole = pairs["packed", "magnitude"]
    xarray.testing.assert_identical(lazy.isel(selection).load(), whole.isel(selection))


@settings(max_examples=30)
@given(selections(SIZES), st.data())
def test_selections_of_selections(pairs, first, data):
    lazy, whole = (array.isel(first) for array in pairs["Ann - Long", "magnitude"])
    second = data.draw(selections({dim: size for dim, size in whole.sizes.items() if size}))
    expected = whole.isel(second)
    assume(expected.size)  # for the sake of the same IndexError
    xarray.testing.assert_identical(lazy.isel(second).load(), expected)


labels = {
    "target": st.one_of(
        st.sampled_from(["mixture", "vocals", "drums"]),
        st.lists(st.sampled_from(["mixture", "vocals", "drums"]), max_size=4),
    ),
    "channel": st.one_of(st.sampled_from(["left", "right"]), st.permutations(["left", "right"])),
    "time": st.tuples(st.floats(-1, 4), st.floats(-1, 4)).map(lambda ends: slice(*ends)),
    "frequency": st.one_of(
        st.tuples(st.floats(0, 5000), st.floats(0, 5000)).map(lambda ends: slice(*sorted(ends))),
        st.integers(0, 112).map(lambda i: i * 31.25),
        st.lists(st.integers(0, 112).map(lambda i: i * 31.25), min_size=1, max_size=4),
    ),
}


@settings(max_examples=100)
@given(st.fixed_dictionaries({}, optional=labels))
def test_any_selection_by_label_seconds_and_hertz_is_that_of_the_whole(pairs, selection):
    lazy, whole = pairs["Ann - Long", "magnitude"]
    xarray.testing.assert_identical(lazy.sel(selection).load(), whole.sel(selection))


def test_slices_of_seconds_and_hertz_hold_both_ends(small):
    some = small.db[0].magnitude.sel(time=slice(0.8, 1.6), frequency=slice(0, 1000))
    assert np.allclose(some.time, np.arange(50, 101) * 0.016)
    assert np.array_equal(some.frequency, np.arange(33) * 31.25)


def test_nearest_second(pairs):
    for array in pairs["Ann - Long", "magnitude"]:
        assert float(array.sel(time=1.0, method="nearest").time) == pytest.approx(63 * 0.016)


@settings(max_examples=50)
@given(st.lists(st.tuples(*(st.integers(-size, size - 1) for size in SIZES.values())), min_size=1, max_size=6))
def test_vectorised_selections_are_those_of_the_whole(pairs, points):
    lazy, whole = pairs["Ann - Long", "magnitude"]
    selection = {
        dim: xarray.DataArray(list(at), dims="point") for dim, at in zip(SIZES, zip(*points, strict=True), strict=True)
    }
    xarray.testing.assert_identical(lazy.isel(selection).load(), whole.isel(selection))
    of_two = {dim: selection[dim] for dim in ("time", "target")}
    xarray.testing.assert_identical(lazy.isel(of_two).load(), whole.isel(of_two))


def test_arithmetic_transposition_and_reduction(pairs):
    lazy, whole = pairs["Ann - Long", "magnitude"]
    for of in (
        lambda array: array.transpose("time", ..., "target"),
        lambda array: array.transpose("time", ..., "target")[3:9, :, ::-2],
        lambda array: (array * 2).sel(target="vocals").mean("time"),
        lambda array: array.diff("time").max(),
        lambda array: array.expand_dims("track").squeeze(),
    ):
        xarray.testing.assert_identical(of(lazy), of(whole))


@pytest.mark.parametrize(
    ("selection", "error"),
    [
        ({"time": 201}, IndexError),
        ({"time": [0, 201]}, IndexError),
        ({"target": -4}, IndexError),
        ({"frequency": 113}, IndexError),
        ({"bin": 0}, ValueError),
    ],
)
def test_positions_that_are_not_there(small, selection, error):
    with pytest.raises(error):
        small.db[0].magnitude.isel(selection).load()


@pytest.mark.parametrize("selection", [{"target": "voice"}, {"channel": "middle"}, {"frequency": 31.0}])
def test_labels_that_are_not_there(small, selection):
    with pytest.raises(KeyError):
        small.db[0].magnitude.sel(selection)


@pytest.mark.parametrize(
    ("seconds", "frames"),
    [
        (slice(1, 2), range(63, 126)),
        (slice(2, 1), ()),
        (slice(-5, -1), ()),
        (slice(-1, 0), range(1)),
        (slice(100, 200), ()),
        (slice(3, 100), range(188, 201)),
        (slice(None, None, 50), range(0, 201, 50)),
        (slice(-(10**9), 10**9), range(201)),
        (slice(1.0001, 1.0002), ()),
        (slice(3.2, None), range(200, 201)),
    ],
)
def test_ranges_of_seconds_follow_the_rules_of_xarray(pairs, seconds, frames):
    for values in ("magnitude", "levels"):
        lazy, whole = pairs["Ann - Long", values]
        some = lazy.sel(time=seconds)
        assert some.sizes["time"] == len(frames)
        xarray.testing.assert_identical(some.load(), whole.isel(time=list(frames)))


@pytest.mark.parametrize("second", [-1.0, 100.0, 0.001, float("nan")])
def test_seconds_that_no_frame_has(small, second):
    with pytest.raises(KeyError):
        small.db[0].magnitude.sel(time=second)
    if second == second:
        near = small.db[0].magnitude.sel(time=second, method="nearest").load()
        assert near.shape == (3, 2, 113)
        with pytest.raises(KeyError):
            small.db[0].magnitude.sel(time=second, method="nearest", tolerance=1e-6)


@pytest.mark.parametrize(
    "frames",
    [
        slice(None, None, 2),
        slice(None, None, -1),
        slice(190, 3, -3),
        [200, 0, 200, 0],
        [5, 6, 7, 40, 41, 42, 43, 180],
        [0, 15, 16, 31, 32, 47],
        list(range(201))[::-1] + list(range(0, 201, 7)),
    ],
)
@pytest.mark.parametrize("of", ["Ann - Long", "packed"])
def test_frames_in_any_order(pairs, of, frames):
    lazy, whole = pairs[of, "magnitude"]
    dimension = lazy.dims[2]
    xarray.testing.assert_identical(lazy.isel({dimension: frames}).load(), whole.isel({dimension: frames}))
    some = {dimension: frames, "target": [2, 0], "channel": 1, "frequency": slice(3, 90, 2)}
    xarray.testing.assert_identical(lazy.isel(some).load(), whole.isel(some))


def test_only_what_is_asked_for_is_read(small_copy):
    track = norbert_store.open(small_copy)[0]
    lazy = track.magnitude
    for shard in (0, 2):
        for target in range(3):
            (small_copy / f"magnitude/c/{target}/0/{shard}/0").unlink()
    assert lazy.isel(time=slice(64, 128)).values.shape == (3, 2, 64, 113)
    assert lazy.isel(time=[64, 127, 192]).values.shape == (3, 2, 3, 113)
    broken = lazy.isel(time=slice(60, 70))
    assert broken.shape == (3, 2, 10, 113)
    assert "target" in repr(broken)
    with pytest.raises(DamagedError):
        broken.load()


def test_what_was_read_can_be_written_into(small):
    values = small.db[0].magnitude.isel(time=slice(0, 5)).values
    values[:] = -1
    assert (small.db[0].magnitude.isel(time=slice(0, 5)) >= 0).all()


def test_coordinates_and_attributes_of_a_track(small, mel, ready):
    for made, samples_per_frame in ((small, 128), (mel, 256), (ready, 100)):
        track = made.db[0]
        lazy = track.magnitude
        assert lazy.dims == ("target", "channel", "time", "frequency")
        assert lazy.target.values.tolist() == list(made.db.targets)
        assert lazy.channel.values.tolist() == ["left", "right"]
        assert np.allclose(lazy.time, np.arange(track.frames) * samples_per_frame / 8000)
        assert np.array_equal(lazy.frequency, made.db.frequencies)
        assert lazy.name == "magnitude"
        assert track.levels.name == "levels"
        assert track.to_xarray().attrs == {"track": track.name, "rate": 8000}


@pytest.mark.parametrize("values", ["level", "Magnitude", "decibel", None])
def test_values_that_no_array_has_are_refused(small, values):
    for one in (small.db, small.db[0]):
        with pytest.raises(ValueError, match=f"^values must be 'magnitude' or 'levels', found {values!r}$"):
            one.to_xarray(values)


def test_frames_that_are_not_centred_are_labelled_by_their_middle(tmp_path, options, music):
    transform = norbert_store.TF(rate=8000, n_fft=256, centred=False)
    with norbert_store.create(tmp_path / "x.zarr", **options(transform=transform)) as writer:
        writer.add("x", music(3000, 0))
    time = norbert_store.open(tmp_path / "x.zarr")[0].magnitude.time
    assert np.allclose(time[:2], [128 / 8000, 256 / 8000])


def test_arrays_load_without_holding_up_an_event_loop(small):
    track = small.db[0]
    for lazy in (track.magnitude, track.levels, small.db.to_xarray("levels").levels[:, :, 3:70]):
        if not hasattr(lazy, "load_async"):  # older xarray
            pytest.skip("this xarray doesn't load asynchronously")
        loaded = asyncio.run(lazy.copy().load_async())
        xarray.testing.assert_identical(loaded, lazy.load())


def test_packed_levels_have_the_scale_of_each_frame(made):
    packed = made.db.to_xarray("levels")
    assert packed["scale"].dims == ("target", "frame")
    scales = packed["scale"].values
    assert scales.dtype == np.int16
    expected = np.zeros(scales.shape, np.int16)
    for track in made.db:
        for target, scale in track.scales.items():
            expected[made.db.targets.index(target), track.start : track.start + track.frames] = scale
    assert np.array_equal(scales, expected)
    some = packed.isel(frame=slice(5, 40, 3), target=0)
    assert np.array_equal(some["scale"], expected[0, 5:40:3])
    magnitude = made.db.look_up_table[packed["levels"].values] * 2.0 ** scales[:, np.newaxis, :, np.newaxis]
    there = ~np.isnan(made.db.to_xarray().magnitude.values)
    assert np.array_equal(magnitude[there], made.db.to_xarray().magnitude.values[there])


def test_a_part_of_the_packed_array_is_written_as_it_comes(small, tmp_path):
    """By xarray with the codec of the store, and by zarr's own copy."""
    packed = xarray.open_zarr(small.path, chunks=None)
    # within a track from any frame on, across tracks from the beginning of a chunk
    for part in (packed[["magnitude"]].isel(frame=slice(2, 75)), packed[["magnitude"]].isel(frame=slice(96, 300))):
        part.to_zarr(tmp_path / "part.zarr", mode="w", consolidated=False)
        again = xarray.open_zarr(tmp_path / "part.zarr", chunks=None, consolidated=False)
        assert "norbert_store.jpeg" in (tmp_path / "part.zarr/magnitude/zarr.json").read_text()
        assert np.array_equal(np.isnan(again.magnitude), np.isnan(part.magnitude))
        np.testing.assert_allclose(again.magnitude, part.magnitude, atol=0.05)
    array = zarr.open_array(small.path / "magnitude", mode="r")
    found, expected = (np.asarray(each[...]) for each in (zarr.from_array({}, data=array), array))
    assert np.array_equal(np.isnan(found), np.isnan(expected))
    np.testing.assert_allclose(found, expected, atol=0.05)


def test_means_over_the_packed_axis_are_those_of_the_tracks(small):
    packed = xarray.open_zarr(small.path).magnitude.sel(target="mixture")
    tracks = [track.magnitude.sel(target="mixture").values for track in small.db]
    expected = np.concatenate(tracks, axis=1).mean(axis=1)
    np.testing.assert_allclose(packed.mean("frame"), expected, rtol=1e-5)
