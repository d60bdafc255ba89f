"""The filter alone, in both of its faces: what it takes, what it gives back, and how it describes itself."""

from __future__ import annotations

import json
import pickle

import numcodecs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from zarr.core.array_spec import ArrayConfig, ArraySpec
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.dtype import parse_dtype
from zarr.registry import get_codec_class

from norbert_store._spectra.levels import LogCurve, PowerCurve, dequantize, quantize, table
from norbert_store.codecs import Quantize, ZarrQuantize
from norbert_store.errors import MagnitudeError

CODECS = [
    Quantize(),
    Quantize(exponent=0.5, reference=2.0, dtype="float64"),
    Quantize("log", range_decibel=60.0, dtype="float16"),
]
ZARR_CODECS = [ZarrQuantize(), ZarrQuantize(exponent=0.5, reference=2.0), ZarrQuantize("log", range_decibel=60.0)]


def magnitudes(shape=(20, 30), dtype="float32"):
    return np.random.default_rng(0).random(shape).astype(dtype)


def test_both_faces_are_found_by_their_entry_points():
    assert type(numcodecs.get_codec({"id": "norbert_quantize"})) is Quantize
    assert get_codec_class("norbert_store.quantize") is ZarrQuantize


@pytest.mark.parametrize("codec", CODECS, ids=repr)
def test_numcodecs_config_survives_json(codec):
    config = json.loads(json.dumps(codec.get_config()))
    again = numcodecs.get_codec(config)
    assert again == codec
    assert again.get_config() == codec.get_config()
    assert (
        again.encode(magnitudes(dtype=config["dtype"])).tolist()
        == codec.encode(magnitudes(dtype=config["dtype"])).tolist()
    )


@pytest.mark.parametrize("codec", CODECS, ids=repr)
def test_repr_builds_the_same_codec(codec):
    assert eval(repr(codec)) == codec


@pytest.mark.parametrize("codec", ZARR_CODECS, ids=repr)
def test_zarr_config_survives_json(codec):
    entry = json.loads(json.dumps(codec.to_dict()))
    assert entry["name"] == "norbert_store.quantize"
    assert ZarrQuantize.from_dict(entry) == codec
    assert hash(ZarrQuantize.from_dict(entry)) == hash(codec)


@pytest.mark.parametrize("codec", [*CODECS, *ZARR_CODECS], ids=repr)
def test_codecs_can_be_pickled_for_workers(codec):
    assert pickle.loads(pickle.dumps(codec)) == codec


def test_config_names_the_curve_and_all_of_its_parameters():
    assert Quantize().get_config() == {
        "id": "norbert_quantize",
        "curve": "power",
        "reference": 1.0,
        "exponent": 0.3,
        "dtype": "float32",
    }
    assert ZarrQuantize("log").to_dict()["configuration"] == {"curve": "log", "reference": 1.0, "range_decibel": 80.0}


def test_an_entry_without_configuration_means_the_defaults():
    assert ZarrQuantize.from_dict({"name": "norbert_store.quantize"}) == ZarrQuantize()


def test_zarr_codec_takes_a_curve_as_well_as_its_parameters():
    assert ZarrQuantize(LogCurve(60.0), reference=2.0) == ZarrQuantize("log", reference=2.0, range_decibel=60.0)
    with pytest.raises(ValueError, match="either a curve, or its name and parameters"):
        ZarrQuantize(PowerCurve(), exponent=0.5)


@pytest.mark.parametrize("shape", [(7,), (5, 6), (2, 3, 4), (2, 1, 3, 4), (0, 3), ()])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_round_trip_keeps_shape_and_dtype_and_equals_the_levels(shape, dtype):
    codec = Quantize(dtype=dtype)
    values = magnitudes(shape, dtype)
    encoded = codec.encode(values)
    assert encoded.dtype == np.uint8
    assert np.array_equal(encoded, quantize(values, PowerCurve()))
    decoded = codec.decode(encoded)
    assert decoded.dtype == dtype
    assert np.array_equal(decoded, dequantize(encoded, table(PowerCurve())).astype(dtype))


def in_order(array, order):
    """The same values in another memory order; in "strided", every second of a larger array."""
    if order == "strided":
        wide = np.zeros((*array.shape[:-1], 2 * array.shape[-1]), array.dtype)
        wide[..., ::2] = array
        return wide[..., ::2]
    return np.array(array, order=order)


SHAPES = st.lists(st.integers(1, 5), min_size=1, max_size=4).map(tuple)
ORDERS = st.sampled_from(["C", "F", "strided"])


@given(SHAPES, ORDERS, ORDERS, ORDERS)
def test_memory_order_does_not_matter(shape, order, levels_order, out_order):
    values = magnitudes(shape)
    expected = dequantize(quantize(values, PowerCurve()), table(PowerCurve()))
    encoded = Quantize().encode(in_order(values, order))
    assert np.array_equal(encoded, quantize(values, PowerCurve()))
    levels = in_order(encoded, levels_order)
    assert np.array_equal(Quantize().decode(levels), expected)
    out = in_order(np.zeros(shape, np.float32), out_order)
    assert Quantize().decode(levels, out) is out
    assert np.array_equal(out, expected)


@given(SHAPES, ORDERS)
def test_bytes_in_memory_order_fill_an_array_of_that_order(shape, order):
    """As zarr v2 passes them on, and as numcodecs copies them."""
    values = magnitudes(shape)
    encoded = Quantize().encode(in_order(values, order))
    decoded = Quantize().decode(encoded.tobytes(order="A"))
    out = in_order(np.zeros(shape, np.float32), order)
    Quantize().decode(encoded.tobytes(order="A"), out=out)
    assert np.array_equal(out, Quantize().decode(encoded))
    assert np.array_equal(decoded, Quantize().decode(encoded).ravel(order="A"))


def test_bytes_of_another_size_do_not_fill_an_array():
    with pytest.raises(ValueError, match="size 5 into shape"):
        Quantize().decode(bytes(5), out=np.zeros((3, 4), np.float32))


LIMITS = {dtype: np.finfo(dtype) for dtype in ("float16", "float32", "float64")}


@given(
    st.sampled_from(list(LIMITS)),
    st.floats(np.log10(1.2e-38), np.log10(3.4e38)).map(lambda power: 10**power) | st.sampled_from([65504.0, 70000.0]),
    st.lists(st.floats(0, 1), min_size=1, max_size=20),
    st.sampled_from(["power", "log"]),
)
def test_what_is_finite_stays_finite_and_near_for_every_dtype_and_reference(dtype, reference, shares, curve):
    codec, filter_ = Quantize(curve, dtype, reference=reference), ZarrQuantize(curve, reference=reference)
    values = np.minimum(np.array(shares) * reference, LIMITS[dtype].max).astype(dtype)
    values = np.where(values > np.float64(reference), np.nextafter(values, values.dtype.type(0)), values)
    levels = codec.encode(values)
    decoded = codec.decode(levels)
    assert np.isfinite(decoded).all()
    # where a dtype has digits left, what comes back is the same level again
    again = np.abs(codec.encode(decoded).astype(int) - levels)
    assert again[decoded > 2**11 * LIMITS[dtype].tiny].max(initial=0) <= (0 if dtype != "float16" else 2)
    assert np.array_equal(decode_by_zarr(filter_, levels, dtype), decoded)


def decode_by_zarr(filter_, levels, dtype):
    """Decode one chunk as zarr v3 does."""
    spec = ArraySpec(
        levels.shape, parse_dtype(dtype, zarr_format=3), 0, ArrayConfig.from_dict({}), default_buffer_prototype()
    )
    buffer = default_buffer_prototype().nd_buffer.from_numpy_array(levels)
    (decoded,) = sync(filter_.decode([(buffer, spec)]))
    return decoded.as_numpy_array()


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_levels_may_come_as_any_buffer(kind):
    encoded = Quantize().encode(magnitudes())
    decoded = Quantize().decode(kind(encoded.tobytes()))
    assert np.array_equal(decoded, Quantize().decode(encoded).ravel())


def test_decoding_into_an_array_fills_and_returns_it():
    encoded = Quantize().encode(magnitudes())
    out = np.empty((20, 30), np.float32)
    assert Quantize().decode(encoded, out) is out
    assert np.array_equal(out, Quantize().decode(encoded))
    flat = np.empty((20, 30), np.float32)
    Quantize().decode(encoded.tobytes(), out=flat)
    assert np.array_equal(flat, out)


@pytest.mark.parametrize("dtype", ["float64", "float16", ">f4", "int32", "uint8", "complex64"])
def test_an_array_of_another_dtype_than_the_codec_gives_back_is_refused(dtype):
    # zarr v2 reads the codec's bytes as the array's dtype, whatever they are
    with pytest.raises(
        ValueError, match=r"expected magnitudes of the codec's dtype float32, found .*give the array and"
    ):
        Quantize().encode(np.zeros((4, 4), dtype))


@pytest.mark.parametrize(
    ("value", "message"),
    [(np.nan, "NaN or infinite.*fill_value=0"), (-1.0, "must not be negative"), (1.5, r"use a reference of 1\.5")],
)
def test_magnitudes_that_cannot_be_stored_are_refused(value, message):
    values = magnitudes()
    values[3, 4] = value
    with pytest.raises(MagnitudeError, match=message):
        Quantize().encode(values)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"dtype": "int16"}, "dtype must be one of float16, float32, float64; found 'int16'"),
        ({"curve": "mu-law"}, "curve 'mu-law' is unknown"),
        ({"exponent": 2.0}, "exponent must be"),
        ({"reference": "1"}, "reference must be a number"),
        ({"range_decibel": 80.0}, "curve 'power' takes exponent; found range_decibel"),
        ({"curve": "log", "range_decibel": -1.0}, "range_decibel must be"),
    ],
)
def test_bad_parameter_is_refused(parameters, message):
    with pytest.raises(ValueError, match=message):
        Quantize(**parameters)
    if "dtype" not in parameters:
        with pytest.raises(ValueError, match=message):
            ZarrQuantize(**parameters)
