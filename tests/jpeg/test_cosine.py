"""The transform is orthogonal, is JPEG's own, and leaves silence exactly what it is."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.fft import dctn

from norbert_store._jpeg.cosine import forward, inverse, quantise, steps_of
from norbert_store._jpeg.encoder import quantisation_table
from norbert_store._jpeg.layout import ZIGZAG

quick = settings(max_examples=60)


def image(rows, columns, seed=0):
    return np.random.default_rng(seed).uniform(0, 255, (rows, columns)).astype(np.float32)


def test_zigzag_is_the_standards():
    places = np.empty(64, int)
    places[ZIGZAG] = np.arange(64)
    # ITU-T T.81, figure 5
    assert places.reshape(8, 8)[:3].tolist() == [
        [0, 1, 5, 6, 14, 15, 27, 28],
        [2, 4, 7, 13, 16, 26, 29, 42],
        [3, 8, 12, 17, 25, 30, 41, 43],
    ]
    assert sorted(ZIGZAG.tolist()) == list(range(64))


def test_coefficients_are_those_of_the_standard():
    pixels = image(16, 24)
    coefficients = forward(pixels)
    assert coefficients.shape == (2, 3, 64)
    assert coefficients.dtype == np.float32
    for row in range(2):
        for column in range(3):
            block = pixels[8 * row : 8 * row + 8, 8 * column : 8 * column + 8].astype(np.float64) - 128
            expected = dctn(block, norm="ortho").ravel()[ZIGZAG]
            np.testing.assert_allclose(coefficients[row, column], expected, atol=1e-3)


@quick
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_there_and_back_is_the_same_image(rows, columns, seed):
    pixels = image(rows, columns, seed)
    coefficients = forward(pixels)
    assert coefficients.shape == (-(-rows // 8), -(-columns // 8), 64)
    np.testing.assert_allclose(inverse(coefficients, rows, columns), pixels, atol=1e-3)


def test_energy_stays_the_same():
    pixels = image(64, 80)
    assert np.square(forward(pixels)).sum() == pytest.approx(np.square(pixels - 128).sum(), rel=1e-5)


@pytest.mark.parametrize("level", [0, 1, 100, 128, 255])
def test_a_constant_has_only_means(level):
    coefficients = forward(np.full((16, 16), level, np.float32))
    assert (coefficients[..., 0] == 8 * (level - 128)).all()
    assert np.abs(coefficients[..., 1:]).max() < 1e-3


def test_edges_are_filled_with_the_last_row_and_column():
    pixels = image(13, 21)
    filled = np.pad(pixels, ((0, 3), (0, 3)), mode="edge")
    assert np.array_equal(forward(pixels), forward(filled))


def test_float64_and_other_memory_orders_give_the_same():
    pixels = image(16, 24)
    assert np.array_equal(forward(pixels.astype(np.float64)), forward(pixels))
    assert np.array_equal(forward(np.asfortranarray(pixels)), forward(pixels))


def test_pillow_decodes_the_same():
    """A file of Pillow's, its pixels transformed again: nearly the same coefficients, so multiples of the steps."""
    table = np.full((8, 8), 40, np.uint8)
    buffer = io.BytesIO()
    pixels = np.add.outer(np.arange(64), 2 * np.arange(64)).astype(np.uint8)
    Image.fromarray(pixels).save(buffer, "JPEG", qtables=[table.ravel().tolist()])
    with Image.open(buffer) as opened:
        decoded = np.asarray(opened).astype(np.float32)
    inner = (decoded > 0) & (decoded < 255)
    again = inverse(quantise(forward(decoded), table) * steps_of(table), 64, 64)
    assert np.abs(again - decoded)[inner].max() < 1


def test_rounding_is_to_the_nearest_multiple():
    coefficients = forward(image(16, 16))
    table = quantisation_table(60)
    quantised = quantise(coefficients, table)
    assert quantised.dtype == np.int16
    assert (np.abs(quantised * steps_of(table) - coefficients) <= steps_of(table) / 2 + 1e-3).all()


def test_what_a_baseline_jpeg_cannot_hold_is_clipped():
    coefficients = np.full((1, 1, 64), -5000, np.float32)
    ones = np.ones((8, 8), np.uint8)
    assert quantise(coefficients, ones)[0, 0, :2].tolist() == [-1024, -1023]
    assert quantise(-coefficients, ones)[0, 0, :2].tolist() == [1023, 1023]


@pytest.mark.parametrize("quality", np.arange(0, 100.5, 2.5))
def test_silence_stays_exactly_zero(quality):
    table = quantisation_table(quality)
    quantised = quantise(forward(np.zeros((16, 24), np.float32)), table)
    assert not quantised[..., 1:].any()
    assert (inverse(quantised * steps_of(table), 16, 24) < 0.5).all()
