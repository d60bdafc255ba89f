"""The codec of JPEGs with a filter: magnitudes of any size, and padding of NaN, in zarr arrays of anybody."""

from __future__ import annotations

import io
import pickle
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from zarr.codecs import Crc32cCodec

from norbert_store._jpeg import stream
from norbert_store._spectra.levels import LogCurve, PowerCurve, scale_of
from norbert_store.codecs import Jpeg, ZarrJpeg
from norbert_store.errors import JpegError, MagnitudeError

CODECS = [ZarrJpeg(filter="power"), ZarrJpeg(90, LogCurve(60.0)), ZarrJpeg(100, {"curve": "power", "exponent": 0.5})]


def ridges(shape=(50, 40), dtype="float32"):
    time, frequency = np.mgrid[: shape[-2], : shape[-1]]
    values = np.cos(frequency / 5) ** 2 * np.exp(-time / 60)
    return np.broadcast_to(values, shape).astype(dtype)


def create(values, chunks, store=None, **options):
    options = {"serializer": ZarrJpeg(100, "power"), "fill_value": np.nan, "compressors": [], **options}
    store = {} if store is None else store
    array = zarr.create_array(store, shape=values.shape, chunks=chunks, dtype=values.dtype, **options)
    array[...] = values
    return zarr.open_array(store, mode="r")


def chunks_in(path):
    return {file.name: file.read_bytes() for file in sorted(path.glob("c/*/*"))}


@pytest.mark.parametrize("codec", CODECS, ids=repr)
def test_codecs_survive_json_and_pickles(codec):
    assert ZarrJpeg.from_dict(codec.to_dict()) == codec
    assert hash(ZarrJpeg.from_dict(codec.to_dict())) == hash(codec)
    assert pickle.loads(pickle.dumps(codec)) == codec


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("mu-law", "curve 'mu-law' is unknown"),
        ({"curve": "power", "reference": 1.0}, "curve 'power' takes exponent; found reference"),
        ({"curve": "power", "exponent": 2}, "exponent must be"),
        (7, "expected a curve as the filter, or its name, such as 'power'; found 7"),
    ],
)
def test_other_filters_are_refused(what, message):
    with pytest.raises(ValueError, match=message):
        ZarrJpeg(filter=what)


@pytest.mark.parametrize(("dtype", "gains"), [("float32", (1e-30, 1, 1e30)), ("float64", (1e-300, 1e300))])
def test_magnitudes_of_any_size_come_back_alike(dtype, gains):
    for gain in gains:
        gain = np.dtype(dtype).type(gain)
        found: Any = create(ridges(dtype=dtype) * gain, (16, 40))[...]
        assert found.dtype == dtype
        np.testing.assert_allclose(found / gain, ridges(dtype=dtype), atol=0.05)


@pytest.mark.parametrize("largest", [65504, 60000, 1e-7])
def test_float16_stays_finite(largest):
    values = (ridges() * np.float32(largest)).astype("float16")
    found: Any = create(values, (16, 40))[...]
    assert found.dtype == np.float16
    assert np.isfinite(found).all()
    assert np.abs(found.astype(float) - values).max() <= 0.06 * largest


def test_each_chunk_has_the_scale_of_its_largest_magnitude(tmp_path):
    values = ridges((32, 40)) * np.repeat([1e-3, 100], 16)[:, np.newaxis].astype("f4")
    create(values, (16, 40), tmp_path)
    scales = [stream.check(data, (16, 40)).scale for data in (p.read_bytes() for p in sorted(tmp_path.glob("c/*/0")))]
    assert scales == [scale_of(float(values[:16].max())), scale_of(float(values[16:].max()))]


def test_padding_is_no_part_of_the_image_and_comes_back(tmp_path):
    found = create(ridges((50, 40)), (16, 30), tmp_path)
    assert not np.isnan(found[...]).any()
    shapes = {(p.parent.name, p.name): Image.open(io.BytesIO(p.read_bytes())).size for p in tmp_path.glob("c/*/*")}
    assert shapes["0", "0"] == (30, 16)
    assert shapes["3", "0"] == (30, 2)
    assert shapes["3", "1"] == (10, 2)


@settings(max_examples=60)
@given(st.integers(0, 16), st.integers(0, 24), st.sampled_from([0, np.nan]), st.sampled_from([None, (32, 24)]))
def test_trailing_rows_and_columns_of_nan_come_back(rows, columns, fill_value, shards):
    values = ridges((16, 24)).copy()
    values[rows:] = np.nan
    values[:, columns:] = np.nan
    store: dict[str, Any] = {}
    options: dict[str, Any] = {"fill_value": fill_value, "shards": shards, "config": {"write_empty_chunks": True}}
    if shards is not None:
        options["compressors"] = [Crc32cCodec()]  # as in stores; zarr leaves out shards whose chunks have no bytes
    found: Any = create(values, (16, 24), store, **options)[...]
    assert np.array_equal(np.isnan(found), np.isnan(values))
    if shards is None:
        # nothing but NaN has no bytes
        assert bool(store.get("c/0/0")) == (rows > 0 and columns > 0)


@pytest.mark.parametrize("where", [(0, 0), (3, 5), (slice(2, 4), slice(None)), (slice(None), 7), (15, 3)])
def test_nan_elsewhere_is_refused(where):
    values = ridges((16, 24)).copy()
    values[where] = np.nan
    with pytest.raises(MagnitudeError, match="found NaN in row .*, column .* of a chunk, and magnitudes behind it"):
        create(values, (16, 24))


@pytest.mark.parametrize(("value", "message"), [(np.inf, "NaN or infinite"), (-1.0, "must not be negative")])
def test_what_is_no_magnitude_is_refused(value, message):
    values = ridges((16, 24)).copy()
    values[3, 4] = value
    with pytest.raises(MagnitudeError, match=message):
        create(values, (16, 24))


def test_several_axes_make_up_the_rows():
    values = ridges((3, 40, 24))
    found: Any = create(values, (2, 40, 24))[...]
    np.testing.assert_allclose(found, values, atol=0.05)


@pytest.mark.parametrize("shards", [None, (32, 40)])
def test_zarr_copies_an_array(shards, tmp_path):
    array = create(ridges((50, 40)), (16, 40), shards=shards)
    again = zarr.from_array({}, data=array)
    assert again.metadata.codecs == array.metadata.codecs  # type: ignore[union-attr]
    found, expected = np.asarray(again[...]), np.asarray(array[...])
    np.testing.assert_allclose(found, expected, atol=0.05)


def test_other_dtypes_are_refused():
    with pytest.raises(ValueError, match="norbert_store.jpeg with a filter takes arrays of float16"):
        create(np.zeros((8, 8), np.uint8), (8, 8), fill_value=0)


def test_a_larger_chunk_than_the_array_s_is_a_clear_error(tmp_path):
    create(ridges((32, 24)), (16, 24), tmp_path)
    (tmp_path / "c/1/0").write_bytes(Jpeg().encode(np.zeros((17, 24), np.uint8)))
    with pytest.raises(JpegError, match="the JPEG is 17 rows x 24 columns; expected at most 16 x 24"):
        zarr.open_array(tmp_path, mode="r")[...]


def test_curves_are_those_of_stores():
    assert CODECS[0].filter == PowerCurve()
    assert CODECS[0].to_dict()["configuration"]["filter"] == PowerCurve().config
