"""Masks: they share out every bin, silent ones too, and do what their formulas say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from norbert_store.filters import apply_mask, ideal_binary_mask, ideal_ratio_mask, soft_mask, winner_mask

SHAPES = npst.array_shapes(min_dims=4, max_dims=4, max_side=4)
# from the smallest float64 to nearly the largest, with many zeros and ties
VALUES = st.sampled_from([0.0, 1.0, 5e-324, 1e-200, 1e300]) | st.floats(0, 1e6)
MAGNITUDES = npst.arrays(np.float64, SHAPES, elements=VALUES)
EXPONENTS = st.floats(0.05, 50)


def one_bin(*magnitudes):
    """Magnitudes of one frame, bin and channel."""
    return np.array(magnitudes, np.float64).reshape(1, 1, 1, -1)


@given(MAGNITUDES, EXPONENTS)
def test_ratio_masks_sum_to_one(v, exponent):
    mask = ideal_ratio_mask(v, exponent)
    assert mask.shape == v.shape
    assert mask.min() >= 0
    np.testing.assert_allclose(mask.sum(axis=-1), 1, rtol=1e-14)


@given(MAGNITUDES, EXPONENTS)
def test_ratio_masks_do_not_depend_on_the_scale(v, exponent):
    v = np.where((v > 0) & ((v < 1e-9) | (v > 1e9)), 1, v)
    # a power of two, so that scaling is exact
    np.testing.assert_allclose(ideal_ratio_mask(v * 2.0**200, exponent), ideal_ratio_mask(v, exponent), rtol=1e-12)


@given(MAGNITUDES, EXPONENTS, st.randoms(use_true_random=False))
def test_masks_follow_the_order_of_the_sources(v, exponent, random):
    order = list(range(v.shape[-1]))
    random.shuffle(order)
    for mask in (lambda v: ideal_ratio_mask(v, exponent), ideal_binary_mask):
        np.testing.assert_allclose(mask(v[..., order]), mask(v)[..., order], rtol=1e-13)


def test_ratio_mask_is_its_formula():
    v = one_bin(3, 4, 5)
    np.testing.assert_allclose(ideal_ratio_mask(v).ravel(), [3 / 12, 4 / 12, 5 / 12])
    np.testing.assert_allclose(ideal_ratio_mask(v, 2).ravel(), [9 / 50, 16 / 50, 25 / 50])


def test_silent_bins_are_shared_equally_and_nothing_leaks_into_others():
    assert ideal_ratio_mask(one_bin(0, 0, 0, 0)).ravel().tolist() == [0.25] * 4
    assert ideal_ratio_mask(one_bin(0, 1e-300, 0)).ravel().tolist() == [0, 1, 0]


@given(MAGNITUDES)
def test_large_exponents_approach_the_winner(v):
    v = np.ceil(v.clip(0, 1e6))
    v += np.arange(v.shape[-1]) / 8  # without ties
    np.testing.assert_allclose(ideal_ratio_mask(v, 1e9), winner_mask(v), atol=1e-9)


@given(MAGNITUDES)
def test_every_bin_has_one_winner_and_the_first_of_equals_wins(v):
    mask = winner_mask(v)
    assert np.array_equal(mask.sum(axis=-1), np.ones(v.shape[:-1]))
    assert set(np.unique(mask)) <= {0, 1}
    assert np.array_equal(mask.argmax(axis=-1), v.argmax(axis=-1))


@given(MAGNITUDES)
def test_at_0_decibels_no_bin_has_two_owners_and_an_owner_is_the_winner(v):
    mask = ideal_binary_mask(v)
    assert mask.sum(axis=-1).max() <= 1
    assert (mask <= winner_mask(v)).all()


@pytest.mark.parametrize(
    ("threshold", "expected"),
    [(0, [1, 0]), (5.9, [1, 0]), (6.1, [0, 0]), (-5.9, [1, 0]), (-6.1, [1, 1])],
)
def test_binary_mask_compares_with_a_threshold_in_decibels(threshold, expected):
    assert ideal_binary_mask(one_bin(2, 1), threshold).ravel().tolist() == expected


def test_binary_mask_compares_with_the_sum_of_all_others_and_leaves_ties():
    assert ideal_binary_mask(one_bin(3, 2, 2)).ravel().tolist() == [0, 0, 0]
    assert ideal_binary_mask(one_bin(5, 2, 2)).ravel().tolist() == [1, 0, 0]
    assert ideal_binary_mask(one_bin(1, 1)).ravel().tolist() == [0, 0]
    assert ideal_binary_mask(one_bin(0, 0)).ravel().tolist() == [0, 0]
    assert ideal_binary_mask(one_bin(1e20, 1), -420 / 2).ravel().tolist() == [1, 0]


def test_one_source_has_all():
    v = one_bin(0.5)
    for mask in (winner_mask, ideal_ratio_mask):
        assert mask(v).item() == mask(0 * v).item() == 1
    assert ideal_binary_mask(v).item() == 1


@given(MAGNITUDES, EXPONENTS, st.integers(1, 3), st.integers(0, 99))
def test_soft_mask_estimates_sum_to_the_mixture(v, alpha, channels, seed):
    rng = np.random.default_rng(seed)
    v = v[:, :, :1]
    x = rng.standard_normal((*v.shape[:2], channels)) + 1j * rng.standard_normal((*v.shape[:2], channels))
    y = soft_mask(v, x, alpha)
    assert y.shape == (*x.shape, v.shape[-1])
    np.testing.assert_allclose(y.sum(axis=-1), x, rtol=1e-13)
    np.testing.assert_allclose(y, apply_mask(ideal_ratio_mask(v, alpha), x))


@pytest.mark.parametrize("mask", [ideal_binary_mask, winner_mask, ideal_ratio_mask])
def test_masks_keep_the_dtype_and_the_argument(mask):
    v = np.random.default_rng(0).random((3, 4, 2, 3), dtype=np.float32)
    before = v.copy()
    assert mask(v).dtype == np.float32
    assert np.array_equal(v, before)
    np.testing.assert_allclose(mask(v), mask(v.astype(np.float64)), rtol=1e-6)


@pytest.mark.parametrize(
    ("real", "imaginary", "result"),
    [
        ("float32", "complex64", "complex64"),
        ("float64", "complex64", "complex128"),
        ("float32", "complex128", "complex128"),
    ],
)
def test_estimates_are_single_precision_only_if_all_is(real, imaginary, result):
    assert soft_mask(np.ones((2, 3, 1, 2), real), np.ones((2, 3, 2), imaginary)).dtype == result


@pytest.mark.parametrize("function", [ideal_binary_mask, winner_mask, ideal_ratio_mask])
@pytest.mark.parametrize(
    ("v", "message"),
    [
        (np.ones((2, 3, 4)), r"\(frames, bins, channels, sources\).*found \(2, 3, 4\)"),
        (np.ones((2, 3, 4, 0)), "at least one of each"),
        (np.ones((0, 3, 4, 2)), "at least one of each"),
        (np.ones((2, 3, 4, 2), int), "float32 or float64, found int64"),
        (np.ones((2, 3, 4, 2), complex), "found complex128"),
        (np.ones((2, 3, 4, 2), np.float16), "found float16"),
        (np.full((2, 3, 4, 2), np.nan), "48 of 48 values are NaN or infinite"),
        (np.full((2, 3, 4, 2), np.inf), "NaN or infinite"),
        (-np.ones((2, 3, 4, 2)), "-1; magnitudes must not be negative"),
    ],
)
def test_bad_magnitudes_are_refused(function, v, message):
    with pytest.raises(ValueError, match=message):
        function(v)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.ones((2, 3, 3), complex), r"\(2, 3, 3 or 1, sources\).*found \(2, 3, 2, 2\)"),
        (np.ones((2, 4, 2), complex), r"\(2, 4, 2 or 1, sources\)"),
        (np.ones((2, 3), complex), r"expected x of shape \(frames, bins, channels\)"),
        (np.ones((2, 3, 2)), "complex64 or complex128, found float64"),
        (np.full((2, 3, 2), complex(0, np.inf)), "12 of 12 in x"),
    ],
)
def test_bad_mixtures_are_refused(x, message):
    with pytest.raises(ValueError, match=message):
        soft_mask(np.ones((2, 3, 2, 2)), x)


@pytest.mark.parametrize("exponent", [0, -1, np.nan, np.inf])
def test_bad_numbers_are_refused(exponent):
    v, x = np.ones((1, 1, 1, 2)), np.ones((1, 1, 1), complex)
    with pytest.raises(ValueError, match="exponent must be a finite number above 0"):
        ideal_ratio_mask(v, exponent)
    with pytest.raises(ValueError, match="alpha must be a finite number above 0"):
        soft_mask(v, x, exponent)
    with pytest.raises(ValueError, match="threshold must lie from -300 to 300 dB"):
        ideal_binary_mask(v, exponent * 301 if exponent else np.nan)
