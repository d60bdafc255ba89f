"""The JPEG codec alone, in both of its faces: shapes fold into images, and what is no image of levels is refused."""

from __future__ import annotations

import io
import json
import pickle

import numcodecs
import numpy as np
import pytest
from PIL import Image
from zarr.registry import get_codec_class

from norbert_store._jpeg import stream
from norbert_store._jpeg.encoder import encode, quantisation_table
from norbert_store.codecs import Jpeg, ZarrJpeg
from norbert_store.codecs._jpeg import image_shape
from norbert_store.errors import JpegError

CODECS = [Jpeg(), Jpeg(90), Jpeg(quality=67.5)]
ZARR_CODECS = [ZarrJpeg(), ZarrJpeg(90), ZarrJpeg(quality=67.5)]


def levels(shape=(20, 30)):
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def test_both_faces_are_found_by_their_entry_points():
    assert type(numcodecs.get_codec({"id": "norbert_jpeg"})) is Jpeg
    assert get_codec_class("norbert_store.jpeg") is ZarrJpeg


@pytest.mark.parametrize("codec", CODECS, ids=repr)
def test_numcodecs_config_survives_json(codec):
    again = numcodecs.get_codec(json.loads(json.dumps(codec.get_config())))
    assert again == codec
    assert again.encode(levels()) == codec.encode(levels())


@pytest.mark.parametrize("codec", CODECS, ids=repr)
def test_repr_builds_the_same_codec(codec):
    assert eval(repr(codec)) == codec


@pytest.mark.parametrize("codec", ZARR_CODECS, ids=repr)
def test_zarr_config_survives_json(codec):
    entry = json.loads(json.dumps(codec.to_dict()))
    assert entry["name"] == "norbert_store.jpeg"
    assert ZarrJpeg.from_dict(entry) == codec


def test_an_entry_without_configuration_means_the_defaults():
    assert ZarrJpeg.from_dict({"name": "norbert_store.jpeg"}) == ZarrJpeg(quality=80)


@pytest.mark.parametrize("codec", [*CODECS, *ZARR_CODECS], ids=repr)
def test_codecs_can_be_pickled_for_workers(codec):
    assert pickle.loads(pickle.dumps(codec)) == codec


def test_all_axes_but_the_last_fold_into_rows():
    assert image_shape((5,)) == (1, 5)
    assert image_shape((3, 5)) == (3, 5)
    assert image_shape((1, 2, 256, 744)) == (512, 744)


@pytest.mark.parametrize("shape", [(50,), (20, 30), (2, 9, 16), (1, 2, 8, 24)])
def test_round_trip_of_any_number_of_dimensions(shape):
    array = levels(shape)
    data = Jpeg(100).encode(array)
    decoded = Jpeg().decode(data)
    assert decoded.shape == image_shape(shape)
    out = np.empty(shape, np.uint8)
    assert Jpeg().decode(data, out) is out
    assert np.array_equal(out, decoded.reshape(shape))
    assert np.abs(out.astype(int) - array).max() <= 8


def test_encoding_is_that_of_the_encoder_and_every_decoder_reads_it():
    data = Jpeg(70).encode(levels())
    assert data == encode(levels(), quantisation_table(70))
    with Image.open(io.BytesIO(data)) as image:
        assert np.array_equal(Jpeg().decode(data), np.asarray(image))


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, lambda data: np.frombuffer(data, np.uint8)])
def test_a_jpeg_may_come_as_any_buffer(kind):
    data = Jpeg().encode(levels())
    assert np.array_equal(Jpeg().decode(kind(data)), stream.decode(data))


def test_decoding_fills_strided_and_fortran_memory_too():
    data = Jpeg().encode(levels())
    for out in (np.empty((20, 60), np.uint8)[:, ::2], np.empty((20, 30), np.uint8, order="F")):
        Jpeg().decode(data, out)
        assert np.array_equal(out, Jpeg().decode(data))


def test_strided_levels_are_taken():
    assert Jpeg().encode(levels((20, 60))[:, ::2]) == Jpeg().encode(levels((20, 60))[:, ::2].copy())


@pytest.mark.parametrize("shape", [(20, 30), (2, 3, 8, 16)])
def test_levels_in_fortran_order_are_refused_as_zarr_would_read_them_back_shuffled(shape):
    with pytest.raises(
        ValueError, match=r"expected an array in C order; use numpy\.ascontiguousarray, or a zarr array"
    ):
        Jpeg().encode(np.asfortranarray(levels(shape)))


def test_arrays_that_are_in_both_orders_are_taken():
    for shape in ((30,), (1, 30), (30, 1)):
        assert Jpeg().encode(np.asfortranarray(levels(shape))) == Jpeg().encode(levels(shape))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((8, 8), np.float32), "dtype uint8, found float32; quantise them first"),
        (np.zeros((8, 8), np.uint16), "dtype uint8, found uint16"),
        (np.zeros((8, 8), bool), "dtype uint8, found bool"),
        (np.zeros((0, 8), np.uint8), r"expected an image \(rows, columns\), found shape \(0, 8\)"),
        (np.zeros((2, 40000, 1), np.uint8), "at most 65500 rows and columns, found 80000 x 1; use smaller chunks"),
        (np.zeros((), np.uint8), "without dimensions is no image"),
    ],
    ids=["float32", "uint16", "bool", "empty", "too long", "0-D"],
)
def test_what_is_no_image_of_levels_is_refused(array, message):
    with pytest.raises(ValueError, match=message):
        Jpeg().encode(array)


def test_decoding_into_another_size_is_refused_with_both():
    with pytest.raises(JpegError, match="the JPEG is 20 rows x 30 columns; expected 20 x 31"):
        Jpeg().decode(Jpeg().encode(levels()), np.empty((20, 31), np.uint8))


def test_what_is_no_stored_jpeg_is_refused():
    with pytest.raises(JpegError, match="not a JPEG"):
        Jpeg().decode(b"PNG")
    with pytest.raises(JpegError, match="cut off"):
        Jpeg().decode(Jpeg().encode(levels())[:-10])


@pytest.mark.parametrize("quality", [-1, 101, np.nan, True, "90", None])
def test_bad_quality_is_refused_by_both_faces(quality):
    for codec in (Jpeg, ZarrJpeg):
        with pytest.raises(ValueError, match="quality must be a number from 0 to 100"):
            codec(quality)
