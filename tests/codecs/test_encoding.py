"""What `encoding` gives is what xarray takes: a data set is written as JPEGs, and read back by anyone."""

from __future__ import annotations

import numpy as np
import pytest
import xarray

from norbert_store._spectra.levels import LogCurve, PowerCurve, quantize
from norbert_store.codecs import ZarrJpeg, encoding


def mel(frames=100, bands=48):
    time, band = np.mgrid[:frames, :bands]
    values = 1.8 * np.cos(band / 5) ** 2 * np.exp(-time / 60)
    return xarray.Dataset({"mel": (("time", "band"), values.astype(np.float32))})


def write(dataset, path, **how):
    dataset.to_zarr(path, zarr_format=3, consolidated=False, encoding={"mel": how})
    with xarray.open_zarr(path, consolidated=False, chunks=None) as found:
        return found.load()


def test_it_is_the_codec_and_what_it_needs():
    assert encoding((32, 48)) == {
        "chunks": (32, 48),
        "filters": (),
        "serializer": ZarrJpeg(filter=PowerCurve()),
        "compressors": (),
        "fill_value": 0,
    }
    how = encoding([np.int64(32), 48], quality=90, curve="log", range_decibel=60.0)  # type: ignore[list-item]
    assert how["chunks"] == (32, 48)
    assert how["serializer"] == ZarrJpeg(90, LogCurve(60.0))
    assert encoding((32, 48), quality=90, curve=LogCurve(60.0)) == how


def test_a_data_set_comes_back(tmp_path):
    written = mel()
    found = write(written, tmp_path / "mel.zarr", **encoding((32, 48), quality=100))
    assert found.mel.dtype == np.float32
    assert found.mel.dims == ("time", "band")
    levels = [quantize(one.mel.values, PowerCurve(), 2.0).astype(int) for one in (written, found)]
    assert np.abs(levels[0] - levels[1]).max() <= 4
    data = (tmp_path / "mel.zarr/mel/c/3/0").read_bytes()
    assert data.startswith(b"\xff\xd8")


def test_chunks_of_dask_and_shards_work_too(tmp_path):
    written = mel(128)
    how = encoding((32, 48), quality=100)
    whole = write(written, tmp_path / "whole.zarr", **how)
    lazy = write(written.chunk(time=64), tmp_path / "lazy.zarr", **how, shards=(64, 48))
    assert whole.equals(lazy)
    assert sorted(path.name for path in (tmp_path / "lazy.zarr/mel/c").iterdir()) == ["0", "1"]


@pytest.mark.parametrize("gain", [1e-30, 1e30])
def test_magnitudes_of_any_size_come_back(tmp_path, gain):
    how, gain = encoding((32, 48), quality=100), np.float32(gain)
    found = write(mel() * gain, tmp_path / "mel.zarr", **how)
    np.testing.assert_allclose(found.mel / gain, mel().mel, atol=0.05)


def test_a_cut_out_is_written_as_it_comes(tmp_path):
    found = write(mel(), tmp_path / "mel.zarr", **encoding((32, 48), quality=100))
    part = found.isel(time=slice(4, 61))
    part.to_zarr(tmp_path / "part.zarr", zarr_format=3, consolidated=False)
    with xarray.open_zarr(tmp_path / "part.zarr", consolidated=False, chunks=None) as again:
        np.testing.assert_allclose(again.mel, part.mel, atol=0.05)


@pytest.mark.parametrize(
    ("chunk_shape", "options", "message"),
    [
        ((), {}, "without dimensions is no image"),
        ((0, 48), {}, r"whole numbers above 0 as the chunk's shape, found \(0, 48\)"),
        ((32.0, 48), {}, r"found \(32.0, 48\)"),
        ((True, 48), {}, r"found \(True, 48\)"),
        ("ab", {}, "found 'ab'"),
        ((2, 40000, 48), {}, "80000 rows and 48 columns; expected at most 65500 each: use smaller chunks"),
        ((32, 48), {"quality": 101}, "quality must be a number from 0 to 100"),
        ((32, 48), {"curve": "mu-law"}, "curve 'mu-law' is unknown"),
        ((32, 48), {"reference": 1.0}, "curve 'power' takes exponent; found reference"),
        ((32, 48), {"exponent": 0.5, "curve": PowerCurve()}, "either a curve, or its name and parameters"),
    ],
)
def test_what_cannot_be_written_is_refused_before(chunk_shape, options, message):
    with pytest.raises(ValueError, match=message):
        encoding(chunk_shape, **options)


def test_a_chunk_shape_that_is_one_number_is_a_type_error():
    with pytest.raises(TypeError, match="expected the shape of a chunk, such as .* found 256"):
        encoding(256)  # type: ignore[arg-type]
