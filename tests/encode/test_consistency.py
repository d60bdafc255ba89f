"""The part of a spectrogram that survives resynthesis."""

import numpy as np
import pytest

from norbert_store._encode.consistency import Consistency
from norbert_store._spectra.stft import Stft


def random_spectrum(frames: int, bins: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    spectrum = rng.standard_normal((frames, bins)) + 1j * rng.standard_normal((frames, bins))
    spectrum[:, [0, -1]] = spectrum[:, [0, -1]].real  # as of any audio
    return spectrum.astype(np.complex64)


TRANSFORMS = [
    Stft(rate=8000, n_fft=256),
    Stft(rate=8000, n_fft=256, hop=64),
    Stft(rate=8000, n_fft=256, hop=100),
    Stft(rate=8000, n_fft=256, hop=64, window="hamming", centred=False),
]


@pytest.mark.parametrize("stft", TRANSFORMS)
def test_audio_is_consistent(stft):
    audio = np.random.default_rng(0).standard_normal(6000).astype(np.float32)
    spectrum = stft.transform(audio)[:, :, 0]
    consistency = Consistency(stft, stft.bins)
    inner = slice(consistency.reach, -consistency.reach)
    assert np.allclose(consistency.project(spectrum)[inner], spectrum[inner], atol=1e-6)


@pytest.mark.parametrize("stft", TRANSFORMS)
def test_it_is_what_resynthesis_and_analysis_make_of_a_spectrogram(stft):
    spectrum = random_spectrum(40, stft.bins)
    audio = stft.inverse_transform(spectrum[..., np.newaxis])
    consistency = Consistency(stft, stft.bins)
    inner = slice(2 * consistency.reach, -2 * consistency.reach)
    expected = stft.transform(audio)[: len(spectrum), :, 0]
    assert np.allclose(consistency.project(spectrum)[inner], expected[inner], atol=1e-5)


@pytest.mark.parametrize(("hop", "kept"), [(128, 1 / 2), (64, 1 / 4), (32, 1 / 8)])
def test_of_random_errors_as_much_is_kept_as_audio_has_samples(hop, kept):
    spectrum = random_spectrum(400, 129)
    projected = Consistency(Stft(rate=8000, n_fft=256, hop=hop), 129).project(spectrum)[10:-10]
    power = (np.abs(projected) ** 2).mean() / (np.abs(spectrum) ** 2).mean()
    assert power == pytest.approx(kept, rel=0.05)


def test_bins_that_are_not_stored_are_silent():
    stft = Stft(rate=8000, n_fft=256)
    spectrum = random_spectrum(20, 129)
    spectrum[:, 100:] = 0
    whole = Consistency(stft, 129).project(spectrum)
    assert np.array_equal(Consistency(stft, 100).project(spectrum[:, :100]), whole[:, :100])


@pytest.mark.parametrize(("hop", "reach"), [(128, 1), (64, 3), (100, 2)])
def test_reach_is_how_far_frames_have_samples_in_common(hop, reach):
    consistency = Consistency(Stft(rate=8000, n_fft=256, hop=hop), 129)
    assert consistency.reach == reach
    spectrum = np.zeros((21, 129), np.complex64)
    spectrum[10] = random_spectrum(1, 129)
    touched = np.flatnonzero(np.abs(consistency.project(spectrum)).max(axis=1) > 1e-5)
    assert (touched[0], touched[-1]) == (10 - reach, 10 + reach)
