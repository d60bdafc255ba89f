"""The Wiener filter: norbert's numbers, and finite and consistent ones where norbert has none."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from norbert_store import filters
from norbert_store.filters import (
    apply_filter,
    compress_filter,
    expectation_maximization,
    get_local_gaussian_model,
    get_mix_model,
    reduce_interferences,
    residual_model,
    smooth,
    soft_mask,
    softmask,
    wiener,
    wiener_gain,
)

CASES = ("mono", "stereo", "stereo, mono magnitudes", "stereo, one source", "stereo, loud", "surround", "music")
EPS = {np.complex64: 2.0**-23, np.complex128: 2.0**-52}

sizes = st.tuples(st.integers(1, 6), st.integers(1, 4), st.integers(1, 4), st.integers(1, 4))
seeds = st.integers(0, 2**32 - 1)
iterations = st.integers(0, 3)


@pytest.fixture(scope="module")
def norbert():
    """What norbert 0.2.1 computes, by name: see tests/data/filters/make_norbert.py."""
    with np.load(Path(__file__).parents[1] / "data/filters/norbert_0_2_1.npz") as file:
        return dict(file)


def noise(rng, *shape, dtype=np.complex128):
    return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(dtype)


def song(size, seed=0, dtype=np.complex128):
    """Magnitudes that are about right, and a mixture: frames, bins, channels, sources."""
    frames, bins, channels, sources = size
    rng = np.random.default_rng(seed)
    images = noise(rng, 1, bins, channels, sources) * noise(rng, frames, bins, 1, sources)
    v = abs(images) * rng.uniform(0.5, 2, images.shape)
    return v.astype(np.zeros(0, dtype).real.dtype), images.sum(axis=-1).astype(dtype)


def assert_close(found, expected, relative=1e-5):
    """Largest difference, relative to the largest value."""
    assert found.shape == expected.shape
    assert abs(found - expected).max() <= relative * abs(expected).max()


# the same numbers


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("use_softmask", [True, False])
@pytest.mark.parametrize("iterations", [0, 1, 2, 5])
def test_wiener_agrees_with_norbert(norbert, case, iterations, use_softmask):
    y = wiener(norbert[f"{case}/v"], norbert[f"{case}/x"], iterations, use_softmask)
    assert_close(y, norbert[f"{case}/wiener/{iterations}/{use_softmask}"])


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("iterations", [1, 2, 5])
def test_expectation_maximization_agrees_with_norbert(norbert, case, iterations):
    v, x = norbert[f"{case}/v"], norbert[f"{case}/x"]
    for name, found in zip("yvR", expectation_maximization(softmask(v, x), x, iterations), strict=True):
        assert_close(found, norbert[f"{case}/em/{iterations}/{name}"])


@pytest.mark.parametrize("case", CASES)
def test_softmask_agrees_with_norbert(norbert, case):
    assert_close(softmask(norbert[f"{case}/v"], norbert[f"{case}/x"]), norbert[f"{case}/softmask"])


@pytest.mark.parametrize("case", [case for case in CASES if case != "surround"])
def test_eps_is_norberts(norbert, case):
    # with more than two channels norbert's inverse also drops directions that are weaker than eps
    y = wiener(norbert[f"{case}/v"], norbert[f"{case}/x"], 2, eps=1e-3)
    assert_close(y, norbert[f"{case}/wiener/eps"])


def test_steps_agree_with_norbert(norbert):
    v, x = norbert["stereo/v"], norbert["stereo/x"]
    y = softmask(v, x)
    psd, covariance = get_local_gaussian_model(y[..., 0], eps=1e-3)
    assert_close(psd, norbert["stereo/model/v"])
    assert_close(covariance, norbert["stereo/model/R"])
    _, psds, covariances = expectation_maximization(y, x, 1)
    model = get_mix_model(psds, covariances)
    assert_close(model, norbert["stereo/mix_model"])
    gain = wiener_gain(psds[..., 0], covariances[..., 0], np.linalg.inv(model + 1e-3 * np.eye(2)))
    assert_close(gain, norbert["stereo/wiener_gain"])
    assert_close(apply_filter(x, gain), norbert["stereo/apply_filter"])


def test_models_of_magnitudes_agree_with_norbert(norbert):
    v, x = norbert["stereo/v"], norbert["stereo/x"]
    assert_close(residual_model(v, x), norbert["stereo/residual_model/1"])
    assert_close(residual_model(v**2, x, 2), norbert["stereo/residual_model/2"])
    assert_close(smooth(v), norbert["stereo/smooth/1"])
    assert_close(smooth(v, 3, temporal=True), norbert["stereo/smooth/3/temporal"])
    assert_close(reduce_interferences(v), norbert["stereo/reduce_interferences"])


def test_contrib_holds_what_norberts_does():
    for name in ("compress_filter", "reduce_interferences", "residual_model", "smooth"):
        assert getattr(filters.contrib, name) is getattr(filters, name)


# the model


@given(sizes, seeds)
def test_an_iteration_is_made_of_the_public_steps(size, seed):
    v, x = song(size, seed)
    eps = 1e-6
    first = softmask(v, x)
    y, psd, covariance = expectation_maximization(first, x, 1, eps=eps)
    noise_power = eps**0.5 + (eps if size[2] == 1 else 0)
    inverse = np.linalg.inv(get_mix_model(psd, covariance) + noise_power * np.eye(size[2]))
    for j in range(size[3]):
        v_j, R_j = get_local_gaussian_model(first[..., j], eps)
        assert_close(psd[..., j], v_j, 1e-12)
        assert_close(covariance[..., j], R_j, 1e-12)
        assert_close(y[..., j], apply_filter(x, wiener_gain(v_j, R_j, inverse)), 1e-9)


@given(sizes, seeds, st.integers(1, 4))
def test_estimates_sum_to_the_mixture_without_the_noise(size, seed, iterations):
    v, x = song(size, seed)
    eps = 1e-4
    y, psd, covariance = expectation_maximization(softmask(v, x), x, iterations, eps=eps)
    model = get_mix_model(psd, covariance)
    noisy = model + (eps**0.5 + (eps if size[2] == 1 else 0)) * np.eye(size[2])
    assert_close(y.sum(axis=-1), apply_filter(x, model @ np.linalg.inv(noisy)), 1e-9)


@given(sizes, seeds, iterations, st.booleans())
def test_estimates_sum_to_the_mixture_where_all_directions_sound(size, seed, iterations, use_softmask):
    frames, bins, channels, sources = size
    rng = np.random.default_rng(seed)
    images = noise(rng, 8 + frames, bins, channels, channels + sources)  # covariances of full rank
    x = images.sum(axis=-1)
    y = wiener(abs(images), x, iterations, use_softmask)
    if iterations or use_softmask:
        assert_close(y.sum(axis=-1), x, 1e-4)


@pytest.mark.parametrize("iterations", [0, 1, 2, 5])
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_one_source_is_the_mixture(iterations, channels):
    x = noise(np.random.default_rng(0), 20, 6, channels)
    assert_close(wiener(abs(x)[..., np.newaxis], x, iterations)[..., 0], x, 1e-4)


def test_iterations_tell_sources_of_different_direction_apart():
    rng = np.random.default_rng(0)
    images = noise(rng, 200, 8, 1, 2) * np.array([[1.0, 0.2], [0.2, 1.0]])
    v, x = abs(images).mean(axis=2, keepdims=True), images.sum(axis=-1)
    errors = [(abs(wiener(v, x, iterations) - images) ** 2).sum() for iterations in (0, 1, 2)]
    assert errors[0] > 2 * errors[1] > 2.5 * errors[2]


def test_equal_models_of_all_channels_give_equal_estimates_in_a_real_bin():
    # what the model knows of the channels' difference is nothing but noise, and a rounding error there is magnified
    x = abs(noise(np.random.default_rng(0), 300, 2, 2)) + 0j
    y = wiener(abs(noise(np.random.default_rng(1), 300, 2, 1, 3)), x, 5, use_softmask=False)
    assert_close(y[:, :, 0], y[:, :, 1], 1e-12)


# symmetries


@given(sizes, seeds, iterations, st.booleans(), st.randoms(use_true_random=False))
def test_the_order_of_sources_channels_and_bins_does_not_matter(size, seed, iterations, use_softmask, random):
    v, x = song(size, seed)
    _, bins, channels, sources = (random.sample(range(n), n) for n in size)
    permuted = wiener(v[:, bins][:, :, channels][..., sources], x[:, bins][..., channels], iterations, use_softmask)
    y = wiener(v, x, iterations, use_softmask)
    assert_close(permuted, y[:, bins][:, :, channels][..., sources], 1e-5)


@given(sizes, seeds, iterations, st.booleans(), st.integers(0, 100))
def test_estimates_scale_with_a_loud_mixture(size, seed, iterations, use_softmask, doublings):
    v, x = song(size, seed)
    loud = 20 / abs(x).max()
    y = wiener(loud * v, loud * x, iterations, use_softmask)
    # powers of two are exact, so that all is the same but the softmask's eps
    louder = wiener(2.0**doublings * loud * v, 2.0**doublings * loud * x, iterations, use_softmask)
    assert_close(louder / 2.0**doublings, y, 1e-9)


@given(sizes, seeds, iterations, st.booleans(), st.floats(0.1, 5))
def test_alpha_is_a_power_of_the_magnitudes(size, seed, iterations, use_softmask, alpha):
    v, x = song(size, seed)
    assert_close(wiener(v, x, iterations, alpha=alpha), wiener(v**alpha, x, iterations), 1e-6)
    assert_close(softmask(v, x, alpha=alpha), soft_mask(v, x, alpha), 1e-6)


@pytest.mark.parametrize("level", [1e-200, 1e200])
def test_alpha_neither_overflows_nor_underflows(level):
    v = level * np.array([2.0, 1.0, 0.0]).reshape(1, 1, 1, 3)
    y = softmask(v, np.ones((1, 1, 1), complex), alpha=3, eps=0)
    np.testing.assert_allclose(y.ravel(), [8 / 9, 1 / 9, 0])


@pytest.mark.parametrize("block", [1, 100, 2**30])
def test_the_size_of_blocks_does_not_matter(monkeypatch, block):
    v, x = song((13, 17, 2, 3))
    y, model = wiener(v, x, 2), expectation_maximization(softmask(v, x), x, 2)
    monkeypatch.setattr(sys.modules["norbert_store.filters._wiener"], "BLOCK", block)
    assert_close(wiener(v, x, 2), y, 1e-12)
    for found, expected in zip(expectation_maximization(softmask(v, x), x, 2), model, strict=True):
        assert_close(found, expected, 1e-12)


# precision


@pytest.mark.parametrize(
    ("real", "imaginary", "result"),
    [
        ("float32", "complex64", "complex64"),
        ("float64", "complex64", "complex128"),
        ("float32", "complex128", "complex128"),
    ],
)
@pytest.mark.parametrize("use_softmask", [True, False])
def test_results_are_single_precision_only_if_all_is(real, imaginary, result, use_softmask):
    v, x = song((4, 3, 2, 2))
    v, x = v.astype(real), x.astype(imaginary)
    for iterations in (0, 1):
        assert wiener(v, x, iterations, use_softmask).dtype == result
    y, psd, covariance = expectation_maximization(softmask(v, x), x)
    assert (y.dtype, psd.dtype, covariance.dtype) == (result, np.zeros(0, result).real.dtype, result)


@given(sizes, seeds, st.integers(0, 2), st.booleans())
def test_single_precision_is_close_to_double(size, seed, iterations, use_softmask):
    v, x = song(size, seed, np.complex64)
    y = wiener(v.astype(np.float64), x.astype(np.complex128), iterations, use_softmask, eps=EPS[np.complex64])
    assert_close(wiener(v, x, iterations, use_softmask), y, 1e-2)


def test_arguments_are_never_changed():
    v, x = song((4, 3, 2, 2))
    x *= 100  # so that it is scaled
    y = softmask(v, x)
    kept = [array.copy() for array in (v, x, y)]
    wiener(v, x, 2)
    wiener(v, x, 2, use_softmask=False)
    expectation_maximization(y, x)
    expectation_maximization(y[:1], x[:1])  # one frame: memory needs no reordering
    compress_filter(y)
    residual_model(v, x)
    reduce_interferences(v)
    for array, before in zip((v, x, y), kept, strict=True):
        assert np.array_equal(array, before)


# where norbert has no numbers


@pytest.mark.parametrize("dtype", [np.complex64, np.complex128])
@pytest.mark.parametrize("eps", [None, 0.0, 1e-3])
@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize("use_softmask", [True, False])
def test_silence_stays_silent(dtype, eps, channels, use_softmask):
    v, x = song((6, 4, channels, 3), dtype=dtype)
    v[:, 0] = 0
    v[2] = 0
    v[..., 1] = 0
    x[2:4] = 0
    y = wiener(v, x, 3, use_softmask, eps)
    assert np.isfinite(y).all()
    assert not y[2].any() or (use_softmask and eps == 0)  # then a silent model shares out what sounds
    assert not y[3].any()
    assert not y[:, 1:, ..., 1].any()


@pytest.mark.parametrize("use_softmask", [True, False])
def test_all_silent(use_softmask):
    y = wiener(np.zeros((3, 4, 2, 2)), np.zeros((3, 4, 2), complex), 2, use_softmask)
    assert y.shape == (3, 4, 2, 2)
    assert not y.any()


def test_without_eps_silent_magnitudes_share_the_mixture():
    x = noise(np.random.default_rng(0), 3, 4, 2)
    y = softmask(np.zeros((3, 4, 1, 4)), x, eps=0)
    np.testing.assert_allclose(y, np.repeat(x[..., np.newaxis] / 4, 4, axis=-1))


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.complex64, 1e-4), (np.complex128, 1e-9)])
@pytest.mark.parametrize("channels", [2, 3])
@pytest.mark.parametrize("amplitude", [1e2, 1e6, 1e9])
def test_identical_channels_stay_identical_and_sum_to_the_mixture(dtype, tolerance, channels, amplitude):
    # norbert's determinant is zero, or rounding errors: NaN, or sums that are off by a tenth
    rng = np.random.default_rng(0)
    x = (amplitude * np.repeat(noise(rng, 30, 5, 1), channels, axis=2)).astype(dtype)
    shares = rng.random((30, 5, 1, 3))
    first = (x[..., np.newaxis] * (shares / shares.sum(axis=-1, keepdims=True))).astype(dtype)
    y, psd, covariance = expectation_maximization(first, x, 3)
    assert np.isfinite(psd).all()
    assert np.isfinite(covariance).all()
    assert_close(y.sum(axis=-1), x, tolerance)
    assert_close(y, np.repeat(y[:, :, :1], channels, axis=2), tolerance)


@pytest.mark.parametrize("dtype", [np.complex64, np.complex128])
@pytest.mark.parametrize("amplitude", [1e-30, 1e30])
def test_wiener_is_finite_on_any_scale(dtype, amplitude):
    v, x = song((6, 4, 2, 3), dtype=dtype)
    scale = v.dtype.type(amplitude)
    y = wiener(scale * v, scale * x, 2)
    assert np.isfinite(y).all()
    if amplitude > 1:
        assert_close(y.sum(axis=-1), scale * x, 1e-2)


def test_powers_that_overflow_are_refused():
    x = np.full((3, 2, 2), 1e25, np.complex64)
    with pytest.raises(ValueError, match="powers fit float32, found larger ones"):
        expectation_maximization(x[..., np.newaxis], x)
    with pytest.raises(ValueError, match="powers fit float64"):
        get_local_gaussian_model(np.full((1, 1, 1), 1e200j))


# what norbert documents, and can't do


def test_logit_pushes_masks_to_all_or_nothing():
    v = np.array([0.9, 0.6, 0.0]).reshape(1, 1, 1, 3)
    x = np.ones((1, 1, 1), complex)
    expected = 1 / (1 + np.exp(-15 * (v / v.sum() - 0.6)))
    assert_close(softmask(v, x, logit=0.6), expected, 1e-12)


def test_compress_filter_pushes_the_trace_to_all_or_nothing():
    rng = np.random.default_rng(0)
    v, x = song((5, 4, 2, 3))
    _, psd, covariance = expectation_maximization(softmask(v, x), x)
    inverse = np.linalg.inv(get_mix_model(psd, covariance) + 1e-3 * np.eye(2))
    W = wiener_gain(psd[..., 0], covariance[..., 0], inverse)
    trace = np.trace(W, axis1=-2, axis2=-1).real
    compressed = compress_filter(W, 0.5, 20)
    assert_close(np.trace(compressed, axis1=-2, axis2=-1), 1 / (1 + np.exp(-20 * (trace - 0.5))), 1e-9)
    assert_close(
        compressed * trace[..., None, None], W * np.trace(compressed, axis1=-2, axis2=-1)[..., None, None], 1e-9
    )
    mask = rng.random((5, 4, 1, 1)) + 0j
    assert_close(compress_filter(mask, 0.5, 20), 1 / (1 + np.exp(-20 * (mask - 0.5))), 1e-12)
    assert np.isfinite(compress_filter(1e6 * mask, slope=1e6)).all()


def test_reduce_interferences_listens_to_its_arguments():
    v = np.random.default_rng(0).random((8, 6, 1, 3))
    reduced = [reduce_interferences(v, thresh).sum() for thresh in (0.1, 0.4, 0.9)]
    assert v.sum() > reduced[0] > reduced[1] > reduced[2] > 0


def test_residual_without_scaling_completes_the_sources():
    v, x = song((6, 5, 2, 2))
    v = v * 0.1
    whole = residual_model(v, x, autoscale=False)
    assert np.array_equal(whole[..., :-1], v)
    np.testing.assert_allclose(whole[..., -1], np.maximum(abs(x) - v.sum(axis=-1), 0))
    mono = residual_model(v[:, :, :1], x)
    assert mono.shape == (6, 5, 2, 3)


def test_verbose_tells_of_progress(capsys):
    v, x = song((4, 3, 2, 2))
    expectation_maximization(softmask(v, x), x, 2, verbose=1)
    assert capsys.readouterr().out == "expectation maximization: 2 iterations, to bin 3 of 3\n"
    expectation_maximization(softmask(v, x), x, 2)
    assert capsys.readouterr().out == ""


def test_no_iterations_give_the_estimates_back():
    v, x = song((4, 3, 2, 2))
    first = softmask(v, x)
    y, psd, covariance = expectation_maximization(first, x, 0)
    assert np.array_equal(y, first)
    assert y is not first
    assert not psd.any()
    assert not covariance.any()


# bad input


@pytest.mark.parametrize("function", [wiener, softmask, residual_model])
@pytest.mark.parametrize(
    ("v", "x", "message"),
    [
        (np.ones((2, 3, 4)), np.ones((2, 3, 4), complex), r"v of shape \(frames, bins, channels, sources\)"),
        (np.ones((2, 3, 2, 0)), np.ones((2, 3, 2), complex), "at least one of each"),
        (np.ones((2, 3, 2, 1)), np.ones((2, 4, 2), complex), r"\(2, 4, 2 or 1, sources\).*found \(2, 3, 2, 1\)"),
        (np.ones((2, 3, 2, 1)), np.ones((2, 3, 3), complex), r"\(2, 3, 3 or 1, sources\)"),
        (np.ones((2, 3, 2, 1)), np.ones((2, 3, 2)), "x of dtype complex64 or complex128, found float64"),
        (np.ones((2, 3, 2, 1), int), np.ones((2, 3, 2), complex), "v of dtype float32 or float64, found int64"),
        (-np.ones((2, 3, 2, 1)), np.ones((2, 3, 2), complex), "must not be negative"),
        (np.full((2, 3, 2, 1), np.nan), np.ones((2, 3, 2), complex), "12 of 12 values are NaN or infinite"),
        (np.ones((2, 3, 2, 1)), np.full((2, 3, 2), np.inf + 0j), "12 of 12 in x"),
        (np.ones((0, 3, 2, 1)), np.ones((0, 3, 2), complex), "at least one of each"),
    ],
)
def test_bad_arrays_are_refused(function, v, x, message):
    with pytest.raises(ValueError, match=message):
        function(v, x)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"iterations": -1}, "iterations must be a whole number of at least 0, found -1"),
        ({"iterations": 1.5}, "found 1.5"),
        ({"iterations": True}, "found True"),
        ({"eps": -1e-9}, "eps must be a finite number of at least 0"),
        ({"eps": np.nan}, "eps must be"),
        ({"alpha": 0}, "alpha must be a finite number above 0, found 0"),
        ({"alpha": 2.0, "use_softmask": False}, "use_softmask is False; leave it at 1"),
    ],
)
def test_bad_numbers_are_refused(arguments, message):
    v, x = song((2, 3, 2, 2))
    with pytest.raises(ValueError, match=message):
        wiener(v, x, **arguments)


Y = np.ones((2, 3, 2, 2), complex)
X = np.ones((2, 3, 2), complex)
PSD = np.ones((2, 3))
SQUARE = np.ones((2, 3, 2, 2), complex)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: expectation_maximization(Y[:1], X), r"expected y of shape \(2, 3, 2, 2\).*found \(1, 3, 2, 2\)"),
        (lambda: expectation_maximization(abs(Y), X), "y of dtype complex64 or complex128"),
        (lambda: get_local_gaussian_model(Y), r"y_j of shape \(frames, bins, channels\)"),
        (lambda: get_mix_model(PSD, SQUARE), r"v of shape \(frames, bins, sources\)"),
        (lambda: get_mix_model(abs(X), Y), r"R of shape \(3, 3, 3, 2\).*found \(2, 3, 2, 2\)"),
        (lambda: wiener_gain(PSD, SQUARE[0, :, :, :1], SQUARE), r"R_j of shape \(3, 2, 2\)"),
        (lambda: wiener_gain(PSD, SQUARE[0], SQUARE[:1]), r"inv_Cxx of shape \(2, 3, 2, 2\)"),
        (lambda: wiener_gain(-PSD, SQUARE[0], SQUARE), "must not be negative"),
        (lambda: apply_filter(X, SQUARE[:, :2]), r"W of shape \(2, 3, 2, 2\)"),
        (lambda: compress_filter(X), r"\(..., channels, channels\), found \(2, 3, 2\)"),
        (lambda: smooth(PSD, 0), "width must be a finite number above 0"),
        (lambda: smooth(np.arange(3)), "float32 or float64, found int64"),
        (lambda: reduce_interferences(-PSD), "must not be negative"),
    ],
)
def test_bad_arguments_of_the_steps_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
