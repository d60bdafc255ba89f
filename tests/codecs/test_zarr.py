"""Both codecs within real zarr arrays and xarray data sets, read in processes that never import this package."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import imagecodecs.numcodecs
import numcodecs
import numpy as np
import pytest
import xarray
import zarr
from zarr.core import codec_pipeline

from norbert_store._jpeg import stream
from norbert_store._jpeg.encoder import encode, quantisation_table
from norbert_store._spectra.levels import LogCurve, PowerCurve, dequantize, quantize, table
from norbert_store.codecs import Jpeg, Quantize, ZarrJpeg, ZarrQuantize
from norbert_store.errors import JpegError, MagnitudeError

GOLDEN = Path(__file__).parents[1] / "data" / "golden"
FORMATS = [2, 3]


def magnitudes(shape=(100, 48), dtype="float32"):
    """Smooth ridges with a silent end, so that zeros and edges matter."""
    time, frequency = np.mgrid[: shape[-2], : shape[-1]]
    ridges = 0.4 * np.cos(frequency / 5) ** 2 * np.exp(-time / 60)
    ridges[-20:] = 0
    scale = 1 - np.arange(np.prod(shape[:-2], dtype=int)) / 10
    return (ridges * scale.reshape(*shape[:-2], 1, 1)).astype(dtype)


def codecs(zarr_format, quality=100, dtype="float32"):
    """What `zarr.create_array` and xarray's encoding take, in either format."""
    if zarr_format == 2:
        return {"filters": [Quantize(dtype=dtype)], "compressors": [Jpeg(quality)]}
    return {"filters": [ZarrQuantize()], "serializer": ZarrJpeg(quality), "compressors": []}


def create(store, zarr_format, values, chunks, how=None, **options):
    options = {"fill_value": 0, **(how or codecs(zarr_format, dtype=values.dtype.name)), **options}
    array = zarr.create_array(
        store, shape=values.shape, chunks=chunks, dtype=values.dtype, zarr_format=zarr_format, **options
    )
    array[...] = values
    return array


def assert_near(found, values, levels=4):
    """At full quality the JPEG errs by a few levels."""
    assert found.shape == values.shape
    assert found.dtype == values.dtype
    curve = PowerCurve()
    difference = quantize(found, curve).astype(int) - quantize(values, curve)
    assert np.abs(difference).max() <= levels


def run_elsewhere(code, *arguments, data=""):
    """Run code in a fresh process, which never imports this package itself."""
    assert "norbert" not in code
    command = [sys.executable, "-W", "error", "-c", code, *map(str, arguments)]
    done = subprocess.run(command, input=data, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("zarr_format", FORMATS)
@pytest.mark.parametrize(
    ("shape", "chunks"),
    [((96, 48), (32, 48)), ((100, 48), (32, 20)), ((2, 100, 48), (1, 64, 48)), ((3, 2, 40, 24), (2, 2, 16, 24))],
    ids=["whole chunks", "cut-off chunks", "3-D", "4-D, cut-off chunks"],
)
def test_arrays_are_written_and_read_back(tmp_path, zarr_format, shape, chunks):
    values = magnitudes(shape)
    create(tmp_path, zarr_format, values, chunks)
    array = zarr.open_array(tmp_path, mode="r")
    assert_near(array[...], values)
    whole: Any = array[...]
    assert np.array_equal(array[..., 5:33, 7:9], whole[..., 5:33, 7:9])


@pytest.mark.parametrize("zarr_format", FORMATS)
def test_an_array_of_one_dimension_works(tmp_path, zarr_format):
    values = magnitudes()[3].copy()
    create(tmp_path, zarr_format, values, (20,))
    assert_near(zarr.open_array(tmp_path, mode="r")[...], values)


@pytest.mark.parametrize("zarr_format", FORMATS)
@pytest.mark.parametrize("quality", [80, 100])
@pytest.mark.parametrize("chunks", [(2, 32769), (3, 65500), (65500, 3)])
def test_long_thin_chunks_work(tmp_path, zarr_format, quality, chunks):
    values = np.random.default_rng(0).random(chunks, np.float32)
    create(tmp_path, zarr_format, values, chunks, codecs(zarr_format, quality))
    # 8.5 levels are what rounding to the table's steps may err by at quality 100, and four times that at 80
    assert_near(zarr.open_array(tmp_path, mode="r")[...], values, levels=10 if quality == 100 else 50)


@pytest.mark.parametrize("zarr_format", FORMATS)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_arrays_keep_their_dtype(tmp_path, zarr_format, dtype):
    values = magnitudes(dtype=dtype)
    create(tmp_path, zarr_format, values, (32, 48))
    found = zarr.open_array(tmp_path, mode="r")[...]
    assert_near(found, values)
    assert set(np.unique(found)) <= set(table(PowerCurve()).astype(dtype))


@pytest.mark.parametrize("zarr_format", FORMATS)
def test_what_was_never_written_reads_as_the_fill_value(tmp_path, zarr_format):
    array = zarr.create_array(
        tmp_path,
        shape=(64, 48),
        chunks=(32, 48),
        dtype="f4",
        fill_value=np.nan,
        zarr_format=zarr_format,
        **codecs(zarr_format),
    )
    array[:32] = magnitudes((32, 48))
    found: Any = zarr.open_array(tmp_path, mode="r")[...]
    assert np.isfinite(found[:32]).all()
    assert np.isnan(found[32:]).all()


@pytest.mark.parametrize("zarr_format", FORMATS)
def test_a_part_of_a_chunk_can_be_overwritten(tmp_path, zarr_format):
    values = magnitudes()
    array = create(tmp_path, zarr_format, values, (32, 48))
    array[40:44, 10:20] = 0.25
    values[40:44, 10:20] = 0.25
    assert_near(array[...], values, levels=8)


def test_big_endian_arrays_work(tmp_path):
    values = magnitudes()
    array = create(tmp_path, 3, values.astype(">f4"), (32, 48), codecs(3))
    assert_near(array[...].astype("f4"), values)
    assert_near(zarr.open_array(tmp_path, mode="r")[...], values)


@pytest.mark.skipif(not hasattr(codec_pipeline, "FusedCodecPipeline"), reason="this zarr has no synchronous pipeline")
@pytest.mark.parametrize("shards", [None, (64, 48)])
def test_the_synchronous_pipeline_gives_the_same(tmp_path, shards):
    values = magnitudes()
    expected = create(tmp_path / "batched", 3, values, (32, 48), shards=shards)[...]
    with zarr.config.set({"codec_pipeline.path": "zarr.core.codec_pipeline.FusedCodecPipeline"}):
        create(tmp_path / "fused", 3, values, (32, 48), shards=shards)
        found = zarr.open_array(tmp_path / "fused", mode="r")[...]
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("shape", [(100, 48), (2, 2, 100, 48)])
def test_sharded_arrays_are_written_and_read_back(tmp_path, shape):
    values = magnitudes(shape)
    ones = (1,) * (len(shape) - 2)
    create(tmp_path, 3, values, (*ones, 16, 48), shards=(*(2,) * len(ones), 64, 48))
    array = zarr.open_array(tmp_path, mode="r")
    assert_near(array[...], values)
    whole: Any = array[...]
    assert np.array_equal(array[..., 17:19, :], whole[..., 17:19, :])


@pytest.mark.parametrize("zarr_format", FORMATS)
def test_the_filter_works_with_zarr_s_own_compressors(tmp_path, zarr_format):
    curve = LogCurve(range_decibel=60.0)
    quantizer = Quantize("log", range_decibel=60.0) if zarr_format == 2 else ZarrQuantize(curve)
    values = magnitudes()
    array = create(tmp_path, zarr_format, values, (32, 48), {"filters": [quantizer], "compressors": "auto"})
    assert np.array_equal(array[...], dequantize(quantize(values, curve), table(curve)))


# 4-D chunks need no squeeze, as long as all axes but the last two have length 1
PICTURES = [("imagecodecs_png", {}), ("imagecodecs_jpegxl", {"lossless": True})]


def assert_levels_are_exact(array, values):
    curve = PowerCurve()
    assert np.array_equal(array[...], dequantize(quantize(values, curve), table(curve)))


@pytest.mark.parametrize(("name", "configuration"), PICTURES)
@pytest.mark.parametrize(("shape", "chunks"), [((100, 48), (32, 48)), ((2, 2, 100, 48), (1, 1, 32, 48))])
def test_pictures_of_imagecodecs_take_the_jpeg_s_place_in_format_2(tmp_path, name, configuration, shape, chunks):
    imagecodecs.numcodecs.register_codecs([name], verbose=False)
    values = magnitudes(shape)
    codec = numcodecs.get_codec({"id": name, **configuration})
    create(tmp_path, 2, values, chunks, {"filters": [Quantize()], "compressors": codec})
    assert_levels_are_exact(zarr.open_array(tmp_path, mode="r"), values)


@pytest.mark.parametrize(("name", "configuration"), PICTURES)
@pytest.mark.parametrize(
    ("shape", "chunks", "shards"),
    [
        ((100, 48), (32, 48), None),
        ((2, 2, 100, 48), (1, 1, 32, 48), None),
        ((2, 2, 100, 48), (1, 1, 32, 48), (1, 2, 64, 48)),
    ],
)
def test_pictures_of_imagecodecs_take_the_jpeg_s_place_in_format_3(
    tmp_path, name, configuration, shape, chunks, shards
):
    if not entry_points(group="zarr.codecs", name=name):
        pytest.skip("needs imagecodecs-zarr")
    values = magnitudes(shape)
    codec = {"name": name, "configuration": configuration}
    how = {"filters": [ZarrQuantize()], "serializer": codec, "compressors": [], "shards": shards}
    create(tmp_path, 3, values, chunks, how)
    assert_levels_are_exact(zarr.open_array(tmp_path, mode="r"), values)


@pytest.mark.parametrize("zarr_format", FORMATS)
def test_the_jpeg_works_without_the_filter_on_levels(tmp_path, zarr_format):
    levels = quantize(magnitudes(), PowerCurve())
    array = create(tmp_path, zarr_format, levels, (50, 48), {**codecs(zarr_format), "filters": []})
    expected = [stream.decode(encode(half, quantisation_table(100))) for half in np.split(levels, 2)]
    assert np.array_equal(array[...], np.concatenate(expected))


def test_both_formats_hold_the_same_jpegs_and_they_are_the_encoder_s(tmp_path):
    values = magnitudes((96, 48))
    create(tmp_path / "2", 2, values, (32, 48), codecs(2, 80))
    create(tmp_path / "3", 3, values, (32, 48), codecs(3, 80))
    for chunk in range(2):
        data = (tmp_path / "2" / f"{chunk}.0").read_bytes()
        assert data == (tmp_path / "3" / "c" / f"{chunk}" / "0").read_bytes()
        levels = quantize(values[32 * chunk : 32 * (chunk + 1)], PowerCurve())
        assert data == encode(levels, quantisation_table(80))


def test_metadata_names_the_codecs_with_all_that_decoding_needs(tmp_path):
    create(tmp_path / "2", 2, magnitudes(), (32, 48))
    create(tmp_path / "3", 3, magnitudes(), (32, 48))
    curve = {"curve": "power", "reference": 1.0, "exponent": 0.3}
    second = json.loads((tmp_path / "2" / ".zarray").read_text())
    assert second["filters"] == [{"id": "norbert_quantize", "dtype": "float32", **curve}]
    assert second["compressor"] == {"id": "norbert_jpeg", "quality": 100.0}
    assert json.loads((tmp_path / "3" / "zarr.json").read_text())["codecs"] == [
        {"name": "norbert_store.quantize", "configuration": curve},
        {"name": "norbert_store.jpeg", "configuration": {"quality": 100.0}},
    ]


@pytest.mark.parametrize("name", ["array-v2", "array-v3", "array-v3-filter"])
def test_golden_arrays_decode_as_they_always_did(name):
    found: Any = zarr.open_array(GOLDEN / f"{name}.zarr", mode="r")[...]
    np.testing.assert_array_max_ulp(found, np.load(GOLDEN / f"{name}.npy"), maxulp=1)


def test_format_2_accepts_both_codecs_as_plain_configurations(tmp_path):
    values = magnitudes()
    # zarr takes a configuration for the compressor, but not for a filter
    quantize = numcodecs.get_codec({"id": "norbert_quantize"})
    how = {"filters": [quantize], "compressors": {"id": "norbert_jpeg", "quality": 100}}
    assert_near(create(tmp_path, 2, values, (32, 48), how)[...], values)


def test_format_3_accepts_both_codecs_as_plain_configurations(tmp_path):
    values = magnitudes()
    jpeg = {"name": "norbert_store.jpeg", "configuration": {"quality": 100}}
    quantize = {"name": "norbert_store.quantize", "configuration": {}}
    how = {"filters": [quantize], "serializer": jpeg, "compressors": []}
    assert_near(create(tmp_path, 3, values, (32, 48), how)[...], values)


@pytest.mark.parametrize("zarr_format", FORMATS)
def test_nan_is_refused_with_a_word_on_the_fill_value(tmp_path, zarr_format):
    # chunks of 32 rows: the last one has 28 rows of padding
    with pytest.raises(MagnitudeError, match=r"1344 of 1536 values are NaN or infinite.*fill_value=0"):
        create(tmp_path, zarr_format, magnitudes(), (32, 48), fill_value=np.nan)


@pytest.mark.parametrize("zarr_format", FORMATS)
def test_magnitudes_above_the_reference_are_refused_with_the_reference_needed(tmp_path, zarr_format):
    with pytest.raises(MagnitudeError, match="use a reference of 4"):
        create(tmp_path, zarr_format, np.full((8, 8), 4, np.float32), (8, 8))


@pytest.mark.parametrize("zarr_format", FORMATS)
def test_the_jpeg_refuses_floats_with_a_word_on_the_filter(tmp_path, zarr_format):
    with pytest.raises(ValueError, match="expected levels of dtype uint8, found float32; quantise them first"):
        create(tmp_path, zarr_format, magnitudes(), (32, 48), {**codecs(zarr_format), "filters": []})


@pytest.mark.parametrize("zarr_format", FORMATS)
def test_the_filter_refuses_integers(tmp_path, zarr_format):
    message = "norbert_store.quantize takes arrays of float16|expected magnitudes of the codec's dtype float32"
    with pytest.raises(ValueError, match=message):
        create(tmp_path, zarr_format, np.ones((8, 8), np.int32), (8, 8), codecs(zarr_format))


def test_format_2_refuses_an_array_of_another_dtype_than_the_filter_s(tmp_path):
    with pytest.raises(ValueError, match="expected magnitudes of the codec's dtype float32, found <f8"):
        create(tmp_path, 2, magnitudes(dtype="float64"), (32, 48), codecs(2))


@pytest.mark.parametrize("order", ["C", "F"])
def test_the_filter_alone_works_in_either_order_in_format_2(tmp_path, order):
    values = magnitudes((40, 20))
    how = {"filters": [Quantize()], "compressors": numcodecs.Zlib()}
    create(tmp_path, 2, values, (16, 20), how, order=order)
    assert_levels_are_exact(zarr.open_array(tmp_path, mode="r"), values)


def test_format_2_refuses_fortran_order(tmp_path):
    with pytest.raises(ValueError, match=r"expected an array in C order"):
        create(tmp_path, 2, magnitudes(), (32, 48), order="F")


@pytest.mark.parametrize(("zarr_format", "chunk"), [(2, "1.0"), (3, "c/1/0")])
def test_a_damaged_chunk_is_a_clear_error(tmp_path, zarr_format, chunk):
    create(tmp_path, zarr_format, magnitudes(), (32, 48))
    data = (tmp_path / chunk).read_bytes()
    (tmp_path / chunk).write_bytes(data[:-40])
    array = zarr.open_array(tmp_path, mode="r")
    assert np.isfinite(array[:32]).all()
    with pytest.raises(JpegError, match="cut off"):
        array[32:64]


def test_a_chunk_of_another_size_is_a_clear_error(tmp_path):
    create(tmp_path, 3, magnitudes(), (32, 48))
    (tmp_path / "c/1/0").write_bytes(Jpeg().encode(np.zeros((16, 48), np.uint8)))
    with pytest.raises(JpegError, match="the JPEG is 16 rows x 48 columns; expected 32 x 48"):
        zarr.open_array(tmp_path, mode="r")[...]


def dataset(values):
    coordinates = {"time": np.arange(values.shape[-2]) * 0.01, "frequency": np.arange(values.shape[-1]) * 10.0}
    return xarray.Dataset({"magnitude": (("time", "frequency"), values)}, coordinates, {"title": "test"})


def encoding(zarr_format, **options):
    # the padding of the last chunk is the fill value: xarray's own is NaN
    fill = {"_FillValue": None} if zarr_format == 2 else {"fill_value": 0.0}
    return {"magnitude": {**codecs(zarr_format), **fill, "chunks": (32, 48), **options}}


@pytest.mark.parametrize("zarr_format", FORMATS)
def test_xarray_writes_and_reads_data_sets(tmp_path, zarr_format):
    values = magnitudes()
    written = dataset(values)
    written.to_zarr(tmp_path / "a.zarr", zarr_format=zarr_format, consolidated=False, encoding=encoding(zarr_format))
    with xarray.open_zarr(tmp_path / "a.zarr", consolidated=False, chunks=None) as found:
        assert_near(found.magnitude.values, values)
        assert not found.magnitude.values[-20:].any()
        assert found.magnitude.sel(time=slice(0.2, 0.4), frequency=slice(0, 100)).shape == (21, 11)
        assert found.attrs == written.attrs
        assert found.coords.equals(written.coords)


def test_xarray_writes_sharded_data_sets(tmp_path):
    values = magnitudes()
    how = encoding(3, shards=(64, 48))
    dataset(values).to_zarr(tmp_path / "a.zarr", zarr_format=3, consolidated=False, encoding=how)
    with xarray.open_zarr(tmp_path / "a.zarr", consolidated=False, chunks=None) as found:
        assert_near(found.magnitude.values, values)


@pytest.mark.parametrize("zarr_format", FORMATS)
def test_xarray_with_its_own_fill_value_is_told_what_to_do(tmp_path, zarr_format):
    # NaN is what xarray takes where none is given; in zarr format 3 since its version 2025.10
    how = encoding(zarr_format, **{"_FillValue" if zarr_format == 2 else "fill_value": np.nan})
    with pytest.raises(MagnitudeError, match=r"NaN or infinite.*fill_value=0"):
        dataset(magnitudes()).to_zarr(tmp_path / "a.zarr", zarr_format=zarr_format, consolidated=False, encoding=how)


READ_ARRAY = """
import sys
import numpy, zarr
numpy.save(sys.argv[2], zarr.open_array(sys.argv[1], mode="r")[...])
"""

READ_DATA_SET = """
import sys
import numpy, xarray
found = xarray.open_zarr(sys.argv[1], consolidated=False, chunks=None)
numpy.save(sys.argv[2], found.magnitude.values)
"""

WRITE_ARRAY = """
import json, sys
import numpy, zarr
quantize, jpeg = json.load(sys.stdin)
values = numpy.load(sys.argv[2])
options = {"filters": [quantize], "serializer": jpeg, "compressors": []}
array = zarr.create_array(
    sys.argv[1], shape=values.shape, chunks=(32, 48), dtype=values.dtype, fill_value=0, **options
)
array[...] = values
"""


@pytest.mark.slow
@pytest.mark.parametrize("zarr_format", FORMATS)
def test_a_process_that_never_imports_this_package_reads_the_array(tmp_path, zarr_format):
    array = create(tmp_path / "a.zarr", zarr_format, magnitudes(), (32, 48))
    run_elsewhere(READ_ARRAY, tmp_path / "a.zarr", tmp_path / "out.npy")
    assert np.array_equal(np.load(tmp_path / "out.npy"), array[...])


@pytest.mark.slow
@pytest.mark.parametrize("zarr_format", FORMATS)
def test_a_process_that_never_imports_this_package_reads_the_data_set(tmp_path, zarr_format):
    path = tmp_path / "a.zarr"
    dataset(magnitudes()).to_zarr(path, zarr_format=zarr_format, consolidated=False, encoding=encoding(zarr_format))
    run_elsewhere(READ_DATA_SET, path, tmp_path / "out.npy")
    with xarray.open_zarr(path, consolidated=False, chunks=None) as found:
        assert np.array_equal(np.load(tmp_path / "out.npy"), found.magnitude.values)


@pytest.mark.slow
def test_a_process_that_never_imports_this_package_writes_with_plain_configurations(tmp_path):
    values = magnitudes()
    np.save(tmp_path / "in.npy", values)
    codecs = json.dumps([ZarrQuantize().to_dict(), ZarrJpeg(100).to_dict()])
    run_elsewhere(WRITE_ARRAY, tmp_path / "a.zarr", tmp_path / "in.npy", data=codecs)
    assert_near(zarr.open_array(tmp_path / "a.zarr", mode="r")[...], values)
