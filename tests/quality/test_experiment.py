"""The experiment: scores of stored magnitudes, and the way through a store."""

from __future__ import annotations

import math

import numpy as np
import pytest

import norbert_store
from norbert_store.errors import AudioError
from norbert_store.quality import Original, log_spectral_error, signal_to_noise, through_store

RATE = 44100
SAMPLES = RATE


def sound(seed=0):
    """Decaying tones and noise, stereo."""
    seconds = np.arange(SAMPLES) / RATE
    noise = np.random.default_rng(seed).standard_normal((SAMPLES, 2))
    tones = sum(np.sin(2 * np.pi * (220 + 30 * seed) * n * seconds) / n for n in range(1, 12))
    return (0.1 * (tones * np.exp(-3 * (seconds % 0.5)))[:, np.newaxis] + 0.01 * noise).astype(np.float32)


@pytest.fixture(scope="module")
def original():
    return Original(sound(), RATE)


def test_exact_magnitudes_give_the_audio_back(original):
    scores = original.score(original.full_magnitude)
    assert scores.odg > 0.15
    assert scores.snr > 100
    assert scores.log_spectral_error == 0
    # without what lies above 16 kHz, the noise there is gone
    limited = original.score(original.magnitude)
    assert 10 < limited.snr < 40
    assert limited.log_spectral_error == 0


def test_coarser_is_worse(original):
    fine, coarse = (original.score(step * np.round(original.magnitude / step)) for step in (1e-4, 1e-2))
    assert coarse.odg < fine.odg
    assert coarse.distortion_index < fine.distortion_index
    assert coarse.snr < fine.snr
    assert coarse.log_spectral_error > fine.log_spectral_error


def test_with_the_phase_of_a_mixture_only_storing_is_judged():
    stem, mixture = sound(0), sound(0) + sound(1)
    original = Original(stem, RATE, mixture)
    assert original.score(original.full_magnitude).snr == math.inf
    assert signal_to_noise(stem, original.resynthesize(original.full_magnitude)) < 20


@pytest.mark.slow
def test_resynthesis_is_that_of_a_store(original, tmp_path):
    with norbert_store.create(tmp_path / "one.zarr", targets=["mixture"], rate=RATE) as writer:
        writer.add("one", {"mixture": original.audio})
    audio = norbert_store.open(tmp_path / "one.zarr")["one"].to_audio("mixture", mixture=original.audio)
    _, magnitude = through_store(original)
    np.testing.assert_allclose(original.resynthesize(magnitude), audio, atol=1e-6)


@pytest.mark.slow
def test_through_store_counts_bytes(original):
    (small, coarse), (large, fine) = (through_store(original, quality=quality) for quality in (50, 90))
    assert 200 < small < large < original.magnitude.size
    assert coarse.shape == fine.shape == original.magnitude.shape
    assert log_spectral_error(original.magnitude, fine) < log_spectral_error(original.magnitude, coarse)


def test_equal_channels_are_counted_once():
    mono = sound()[:, :1]
    one, _ = through_store(Original(mono, RATE))
    two, _ = through_store(Original(np.repeat(mono, 2, axis=1), RATE))
    assert one < two < 1.05 * one


def test_through_store_with_a_mixture_takes_the_stem():
    stem = sound(0)
    original = Original(stem, RATE, stem + sound(1))
    _, magnitude = through_store(original, quality=90)
    assert log_spectral_error(original.magnitude, magnitude) < 10
    assert magnitude.max() == pytest.approx(original.magnitude.max(), rel=0.1)


def test_silence():
    silence = Original(np.zeros((SAMPLES, 2)), RATE)
    size, magnitude = through_store(silence)
    scores = silence.score(magnitude)
    assert size > 0
    assert math.isfinite(scores.odg)
    assert (scores.snr, scores.log_spectral_error) == (math.inf, 0)


def test_measures():
    reference = np.full((10, 5, 1), 0.1)
    assert signal_to_noise(reference, 0.9 * reference) == pytest.approx(20)
    assert log_spectral_error(reference, 0.5 * reference) == pytest.approx(20 * math.log10(2))
    assert log_spectral_error(0 * reference, np.full_like(reference, 1e-6)) == 0  # both below the floor
    assert signal_to_noise(0 * reference, reference) == -math.inf


def test_another_shape_of_the_mixture():
    with pytest.raises(AudioError, match="mixture has shape"):
        Original(sound(), RATE, sound()[:-1])
