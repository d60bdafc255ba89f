"""The curves: exact at both ends, the same level after a round trip, an error of half a level, and plain refusals."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from norbert_store._spectra.levels import (
    CURVES,
    LogCurve,
    PowerCurve,
    as_floats,
    check_magnitude,
    check_reference,
    curve_from_config,
    dequantize,
    from_levels,
    heard_scale,
    quantize,
    relative,
    scale_of,
    scale_within,
    table,
    to_levels,
)
from norbert_store.errors import MagnitudeError, NorbertStoreError

GOLDEN = Path(__file__).parents[1] / "data" / "golden"
EVERY_LEVEL = np.arange(256, dtype=np.uint8)

quick = settings(max_examples=60)

# The range where all 256 levels differ in a float32 table. Below an exponent of about 0.06 the lowest levels stand for
# less than float32 can hold and become 0; below a range of about 0.001 dB neighbours are closer than float32's steps.
references = st.floats(1e-6, 1e6)
scales = st.integers(-20, 20)
powers = st.builds(PowerCurve, exponent=st.floats(0.08, 1.0))
logs = st.builds(LogCurve, range_decibel=st.floats(0.01, 600.0))
curves = powers | logs


@pytest.mark.parametrize("scale", [-100, -1, 0, 1, 127])
@pytest.mark.parametrize("curve", [PowerCurve(), PowerCurve(0.5), LogCurve(), LogCurve(40.0)])
def test_lowest_level_is_zero_and_highest_is_the_power_of_two(curve, scale):
    magnitudes = table(curve, scale)
    assert magnitudes.shape == (256,)
    assert magnitudes.dtype == np.float32
    assert magnitudes[0] == 0
    assert magnitudes[255] == 2.0**scale


@quick
@given(curves, scales)
def test_every_level_comes_back_as_itself(curve, scale):
    magnitudes = dequantize(EVERY_LEVEL, table(curve, scale))
    assert np.array_equal(quantize(relative(magnitudes, scale), curve), EVERY_LEVEL)
    assert np.array_equal(quantize(magnitudes, curve, 2.0**scale), EVERY_LEVEL)


@quick
@given(curves, scales)
def test_table_rises_from_zero_to_the_power_of_two(curve, scale):
    magnitudes = table(curve, scale)
    assert (np.diff(magnitudes) > 0).all()
    assert magnitudes[0] == 0
    assert magnitudes[255] == 2.0**scale


@pytest.mark.parametrize(("dtype", "scale"), [("float16", 16), ("float32", 128), ("float64", 1024), ("float16", 32767)])
def test_tables_stay_finite(dtype, scale):
    magnitudes = table(PowerCurve(), scale, dtype)
    assert magnitudes.dtype == dtype
    assert magnitudes[255] == np.finfo(dtype).max
    assert (np.diff(magnitudes.astype(float)) >= 0).all()


def test_tables_of_the_smallest_scale_are_zero():
    assert not table(PowerCurve(), -32768).any()


@quick
@given(st.floats(1e-40, 1e38) | st.sampled_from([0.5, 1.0, 2.0**-20, 2.0**100]))
def test_a_scale_is_the_smallest_above_a_magnitude(magnitude):
    scale = scale_of(magnitude)
    assert 2.0 ** (scale - 1) <= magnitude < 2.0**scale
    assert 2.0 ** (scale_within(magnitude) - 1) < magnitude <= 2.0 ** scale_within(magnitude)


def test_silence_has_a_scale_too():
    assert scale_of(0) == scale_within(0) == 0


@quick
@given(st.integers(-148, 128), st.integers(0, 2**32 - 1), st.sampled_from([np.float32, np.float64]))
def test_relative_magnitudes_are_exact(scale, seed, dtype):
    values = np.random.default_rng(seed).random(20).astype(dtype)
    with np.errstate(under="ignore"):
        magnitude = np.ldexp(values, scale)
    found = relative(magnitude, scale)
    assert found.dtype == dtype
    assert np.array_equal(found, np.ldexp(magnitude.astype(np.float64), -scale))


def test_what_is_quieter_or_louder_than_sound_is_heard_at_the_nearest_volume():
    assert [heard_scale(scale) for scale in (-100, -9, -8, -3, 0, 1, 100)] == [-8, -8, -8, -3, 0, 0, 0]


@quick
@given(
    powers | st.builds(LogCurve, range_decibel=st.floats(1.0, 600.0)),
    references,
    st.integers(0, 2**32 - 1),
    st.sampled_from([np.float32, np.float64]),
)
def test_error_is_at_most_half_a_level_of_the_compressed_scale(curve, reference, seed, dtype):
    compressed = np.random.default_rng(seed).random(500)
    magnitude = np.minimum(curve.expand(compressed) * reference, reference).astype(dtype)
    levels = quantize(magnitude, curve, reference)
    exact = curve.compress(magnitude.astype(np.float64) / reference)
    # float32 adds a thousandth of a level at worst
    assert np.abs(exact * 255 - levels).max() <= 0.5 + 1e-3


@quick
@given(curves, references, st.integers(0, 2**32 - 1))
def test_a_larger_magnitude_never_gets_a_lower_level(curve, reference, seed):
    magnitude = np.sort(np.random.default_rng(seed).random(500)) * reference
    assert (np.diff(quantize(magnitude, curve, reference).astype(int)) >= 0).all()


@pytest.mark.parametrize("curve", [PowerCurve(), LogCurve()])
def test_levels_keep_the_shape_and_float32_stays_float32(curve):
    magnitude = np.full((2, 3, 4), 0.5, np.float32)
    assert curve.compress(magnitude).dtype == np.float32
    assert quantize(magnitude, curve).shape == (2, 3, 4)
    assert quantize(magnitude, curve).dtype == np.uint8
    assert quantize(np.zeros((0, 3)), curve).shape == (0, 3)
    assert quantize(0.5, curve).shape == ()


def test_levels_stand_for_evenly_spaced_compressed_values():
    assert np.array_equal(from_levels(EVERY_LEVEL), np.arange(256) / 255)


def test_levels_round_to_the_nearest():
    compressed = np.array([0, 0.49, 0.51, 1.49, 254.51, 255]) / 255
    assert to_levels(compressed).tolist() == [0, 0, 1, 1, 255, 255]


def test_log_curve_makes_zero_of_what_lies_below_its_floor():
    curve = LogCurve(range_decibel=60.0)
    assert quantize([0.0, 1e-4, 0.001, 0.01, 0.1, 1.0], curve).tolist() == [0, 0, 0, 85, 170, 255]


def test_dequantize_takes_the_dtype_of_the_table_and_the_shape_of_the_levels():
    levels = EVERY_LEVEL.reshape(4, 64)
    magnitudes = dequantize(levels, table(PowerCurve()).astype(np.float16))
    assert magnitudes.dtype == np.float16
    assert magnitudes.shape == (4, 64)


@quick
@given(curves)
def test_config_survives_json(curve):
    config = json.loads(json.dumps(curve.config))
    assert curve_from_config(config) == curve
    assert config["curve"] in CURVES


@pytest.mark.parametrize("name", ["power", "log"])
def test_golden_configurations_give_the_tables_they_always_did(name):
    content = json.loads((GOLDEN / f"{name}.json").read_text())
    # the last bit is the mathematical library's
    found = table(curve_from_config(content["curve"]), content["scale"])
    np.testing.assert_array_max_ulp(found, np.load(GOLDEN / f"{name}.npy"), maxulp=1)


def test_config_of_numpy_numbers_is_plain_json():
    curve = PowerCurve(np.float32(0.5))  # type: ignore[arg-type]
    assert json.loads(json.dumps(curve.config)) == {"curve": "power", "exponent": 0.5}


def test_config_without_parameters_takes_the_defaults():
    assert curve_from_config({}) == PowerCurve(exponent=0.3)
    assert curve_from_config({"curve": "log"}) == LogCurve(range_decibel=80.0)


def test_unknown_curve_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"'mu-law' is unknown; expected one of 'power', 'log'"):
        curve_from_config({"curve": "mu-law"})


def test_unknown_parameter_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"^curve 'log' takes range_decibel; found exponent$"):
        curve_from_config({"curve": "log", "exponent": 0.5})


@pytest.mark.parametrize("value", [0, -1.0, np.nan, np.inf, -np.inf, True, "1", None, 1j, [1.0], 10**400])
@pytest.mark.parametrize(
    ("kind", "name"),
    [(check_reference, "reference"), (PowerCurve, "exponent"), (LogCurve, "range_decibel")],
)
def test_bad_parameter_is_refused_by_name(kind, name, value):
    with pytest.raises(ValueError, match=f"^{name} must be"):
        kind(**{name: value})


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        (PowerCurve, "exponent", 1.001),
        (LogCurve, "range_decibel", 701),
        (check_reference, "reference", 1e39),
        (check_reference, "reference", 1e-46),
    ],
)
def test_parameter_beyond_its_limit_is_refused_with_the_limit(kind, name, value):
    with pytest.raises(ValueError, match=f"{name} must be above .* and at most"):
        kind(**{name: value})


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_and_infinity_are_counted_and_the_fill_value_is_explained(bad):
    magnitude = np.full((4, 5), 0.5, np.float32)
    magnitude[1, 2:4] = bad
    with pytest.raises(MagnitudeError, match=r"2 of 20 values are NaN or infinite.*fill_value=0"):
        quantize(magnitude, PowerCurve())


def test_minus_infinity_is_refused():
    with pytest.raises(MagnitudeError, match="1 of 2 values are NaN or infinite"):
        quantize([0.5, -np.inf], PowerCurve())


def test_negative_magnitude_is_refused_with_the_value():
    with pytest.raises(MagnitudeError, match=r"found a value of -0\.25; magnitudes must not be negative"):
        quantize([0.5, -0.25], PowerCurve())


def test_negative_zero_is_zero():
    assert quantize([-0.0], PowerCurve()).tolist() == [0]
    assert quantize([-0.0], LogCurve()).tolist() == [0]


def test_magnitude_above_the_reference_names_both():
    with pytest.raises(MagnitudeError, match=r"found a magnitude of 2\.5, above the reference 2; use a reference of"):
        quantize([0.5, 2.5], PowerCurve(), 2.0)


@quick
@given(st.floats(1.01, 1e30))
def test_the_reference_that_the_error_asks_for_is_enough(value):
    with pytest.raises(MagnitudeError) as caught:
        quantize([value], PowerCurve())
    needed = float(re.search(r"use a reference of ([-+.\de]+) or more", str(caught.value))[1])
    assert needed <= 1.11 * value
    assert quantize([value], PowerCurve(), needed)[0] > 245


@pytest.mark.parametrize("curve", [PowerCurve(), LogCurve()])
def test_a_millionth_above_the_reference_is_rounding_and_becomes_level_255(curve):
    assert quantize(np.array([2.0 * (1 + 0.9e-6)]), curve, 2.0).tolist() == [255]
    assert quantize(np.array([np.nextafter(np.float32(2), np.float32(3))], np.float32), curve, 2.0).tolist() == [255]
    with pytest.raises(MagnitudeError, match="above the reference"):
        quantize(np.array([2.0 * (1 + 3e-6)]), curve, 2.0)


@pytest.mark.parametrize(
    "values",
    [np.array([0.5 + 0j]), np.array(["0.5"]), np.array([b"0"]), np.array([True]), np.array([None]), np.array([{}])],
    ids=["complex", "text", "bytes", "bool", "None", "object"],
)
def test_what_is_no_real_number_is_refused_with_its_dtype(values):
    with pytest.raises(MagnitudeError, match=r"expected magnitudes as real numbers, found dtype .*take numpy\.abs"):
        quantize(values, PowerCurve())


def test_the_error_is_a_value_error_of_this_library():
    assert issubclass(MagnitudeError, ValueError)
    assert issubclass(MagnitudeError, NorbertStoreError)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int64", "float16", "float32", "float64", ">f4", "longdouble"])
def test_any_real_dtype_gives_the_same_levels(dtype):
    assert quantize(np.array([0, 1, 2], dtype), PowerCurve(0.5), 2.0).tolist() == [0, 180, 255]


def test_floats_of_32_and_64_bits_are_not_copied():
    for dtype in (np.float32, np.float64):
        values = np.zeros(3, dtype)
        assert as_floats(values) is values
    assert as_floats(np.zeros(3, np.float16)).dtype == np.float32
    assert as_floats(np.zeros(3, np.int32)).dtype == np.float64


def test_check_without_a_reference_only_asks_for_finite_non_negative_values():
    check_magnitude(np.array([0.0, 1e30]))
    check_magnitude(np.array([]))
    with pytest.raises(MagnitudeError, match="NaN or infinite"):
        check_magnitude(np.array([0.0, np.inf]))
