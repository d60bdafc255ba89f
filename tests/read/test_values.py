"""What levels are read as: a function of one value, which is evaluated on all 256 of them, once."""

from __future__ import annotations

import multiprocessing
import pickle
from operator import methodcaller

import numpy as np
import pytest

INDICES = [0, 1, 5, 17]


def loudness(magnitude):
    return np.log1p(100 * magnitude)


class Counting:
    """A function that counts its calls."""

    def __init__(self):
        self.calls = []

    def __call__(self, magnitude):
        self.calls.append(magnitude.copy())
        return np.sqrt(magnitude)


def read(db, values, indices=INDICES, **options):
    options = {"targets": db.targets[:1], **options}
    return db.excerpts(0.1, values=values, **options).read(indices)["magnitude"]


def by_levels(db, function):
    """What a function of magnitudes gives for the levels of excerpts, each with its scale."""
    batch = db.excerpts(0.1, targets=db.targets[:1], values="levels").read(INDICES)
    found = np.empty(batch["magnitude"].shape, np.float32)
    for i, (scale,) in enumerate(batch["scale"].tolist()):
        found[i] = np.asarray(function(np.ldexp(db.look_up_table, scale)))[batch["magnitude"][i]]
    return found


def test_levels_are_those_of_the_tracks(made):
    excerpts = made.db.excerpts(0.1, targets=made.db.targets[:1], values="levels")
    batch = excerpts.read(INDICES)
    assert excerpts.dtype == batch["magnitude"].dtype == np.uint8
    assert batch["scale"].dtype == np.int16
    assert batch["scale"].tolist() == [[made.db[track].scales[made.db.targets[0]]] for track in batch["track"]]
    for levels, track, start in zip(batch["magnitude"], batch["track"], batch["start"], strict=True):
        first = round(start * made.db.rate / made.db.transform.hop)
        there = made.db[track].levels.isel(target=[0], time=slice(first, first + excerpts.frames))
        assert np.array_equal(levels, there)


def test_magnitudes_are_those_of_the_levels(made):
    magnitude = read(made.db, "magnitude")
    assert magnitude.dtype == np.float32
    assert np.array_equal(magnitude, by_levels(made.db, lambda values: values))


def test_decibels_have_a_floor_that_is_the_lowest_magnitude(made):
    decibel, magnitude = read(made.db, "decibel"), read(made.db, "magnitude").astype(np.float64)
    assert decibel.dtype == np.float32
    lowest = by_levels(made.db, lambda values: np.full(256, values[1])).astype(np.float64)
    assert np.allclose(decibel, 20 * np.log10(np.maximum(magnitude, lowest)), rtol=1e-5, atol=1e-4)
    assert np.isfinite(decibel).all()


def test_silence_in_decibels_is_the_floor(small):
    quiet = small.db.select(["Žofie – Ticho"])
    decibel = read(quiet, "decibel", targets=["drums"])
    assert np.unique(decibel).tolist() == [20 * np.log10(quiet.look_up_table[1])]


@pytest.mark.parametrize("function", [loudness, np.sqrt, lambda m: -3.0 * m.astype(np.float64), lambda m: m > 0.1])
def test_functions_of_a_value(made, function):
    expected = np.asarray(function(made.db.look_up_table))
    if expected.dtype == bool:
        with pytest.raises(ValueError, match="must return a real number for each of 256 magnitudes, found bool"):
            read(made.db, function)
        return
    values = read(made.db, function)
    assert values.dtype == np.float32
    assert np.array_equal(values, by_levels(made.db, function))


def test_whole_numbers_become_floats(small):
    values = read(small.db, lambda magnitude: (1000 * magnitude).astype(np.int16))
    assert values.dtype == np.float32
    assert np.array_equal(values, np.trunc(1000 * read(small.db, "magnitude")))


def test_functions_are_called_once_for_each_scale_with_all_magnitudes(small):
    function = Counting()
    excerpts = small.db.excerpts(0.2, values=function)
    for i in range(20):
        excerpts.read([i, i + 1])
    scales = sorted({scale for track in small.db for scale in track.scales.values()})
    assert len(scales) > 1
    expected = [np.ldexp(small.db.look_up_table, scale) for scale in scales]
    assert np.array_equal(function.calls, expected)
    small.db.excerpts(0.2, values=function)
    assert len(function.calls) == 2 * len(scales)


def test_functions_may_write_into_what_they_get(small):
    def doubled(magnitude):
        magnitude *= 2
        return magnitude

    before = small.db.look_up_table
    assert np.array_equal(read(small.db, doubled), 2 * read(small.db, "magnitude"))
    assert np.array_equal(small.db.look_up_table, before)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda m: m[:100], r"for each of 256 magnitudes, found float32 of shape \(100,\)"),
        (lambda m: m.sum(), r"found float32 of shape \(\)"),
        (lambda m: np.stack([m, m]), r"found float32 of shape \(2, 256\)"),
        (lambda m: m + 1j, r"found complex64 of shape \(256,\)"),
        (lambda m: None, r"found object of shape \(\)"),
        (lambda m: ["loud"] * 256, r"found <U4 of shape \(256,\)"),
    ],
)
def test_functions_that_return_something_else_are_refused(small, function, message):
    for make in (small.db.excerpts, lambda _, values: small.db.statistics(values)):
        with pytest.raises(ValueError, match=message):
            make(0.2, values=function)


def test_errors_of_functions_are_shown(small):
    def broken(_):
        raise ZeroDivisionError("of my own")

    with pytest.raises(ZeroDivisionError, match="of my own"):
        small.db.excerpts(0.2, values=broken)


@pytest.mark.parametrize("values", ["loudness", "", None, 3, b"magnitude", ["magnitude"]])
def test_values_that_are_unknown_are_refused(small, values):
    with pytest.raises(ValueError, match="expected values to be 'magnitude', 'levels', 'decibel' or a function"):
        small.db.excerpts(0.2, values=values)


@pytest.mark.parametrize("values", ["magnitude", "levels", "decibel", loudness, lambda magnitude: magnitude**2])
def test_values_can_be_sent_to_other_processes(small, values):
    excerpts = small.db.excerpts(0.2, values=values)
    again = pickle.loads(pickle.dumps(excerpts))
    assert again.dtype == excerpts.dtype
    assert np.array_equal(again.read(INDICES)["magnitude"], excerpts.read(INDICES)["magnitude"])


def test_functions_that_only_one_process_knows_work_in_others(small):
    excerpts = small.db.excerpts(0.2, values=lambda magnitude: magnitude**0.3)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        there = pool.apply_async(methodcaller("read", INDICES), (excerpts,)).get(60)
    assert np.array_equal(there["magnitude"], excerpts.read(INDICES)["magnitude"])
