"""The signal in the ear: level, loudness and frames as BS.1387-1 has them."""

from __future__ import annotations

import numpy as np
import pytest

from norbert_store.quality._ear import Heard, band_energies, padded, spectra


def sine(frequency, level, seconds=1.0):
    """A sine at a level in dB SPL, (1, samples); full scale is 92 dB."""
    time = np.arange(int(48000 * seconds)) / 48000
    return 10 ** ((level - 92) / 20) * np.sin(2 * np.pi * frequency * time)[np.newaxis]


def magnitudes(samples):
    return np.concatenate([spectrum for _, spectrum in spectra(padded(samples))])


def hear(samples):
    return Heard(padded(samples), band_energies(magnitudes(samples) ** 2))


def test_full_scale_is_92_decibels():
    assert 20 * np.log10(magnitudes(sine(1019.5, 92))[5].max()) == pytest.approx(92, abs=0.01)


def test_1_kilohertz_at_40_decibels_is_about_a_sone():
    """It should be one; with the standard's factor for the FFT model it is 0.58."""
    loudness = hear(sine(1000, 40)).loudness
    assert loudness.shape == (46, 1)
    assert loudness[20] == pytest.approx(0.58, abs=0.02)


def test_10_decibels_double_the_loudness():
    louder, softer = (hear(sine(1000, level)).loudness[20, 0] for level in (70, 60))
    assert louder / softer == pytest.approx(2, abs=0.3)


def test_silence_has_no_loudness_and_no_modulation():
    heard = hear(np.zeros((2, 48000)))
    assert np.all(heard.loudness == 0)
    assert np.all(heard.modulation[20:] < 0.01)
    assert not heard.loud_enough.any()
    assert not heard.energetic.any()


def test_modulation_is_larger_for_a_beating_tone():
    steady, beating = (
        hear(sine(1000, 60)),
        hear(sine(1000, 60) * (1 + np.sin(2 * np.pi * 4 * np.arange(48000) / 48000))),
    )
    band = int(np.argmax(steady.excitation[20, 0]))
    assert beating.modulation[20:40, 0, band].mean() > 10 * steady.modulation[20:40, 0, band].mean()


@pytest.mark.parametrize(("samples", "frames"), [(1, 1), (2047, 1), (2048, 2), (3071, 2), (3072, 3), (48000, 46)])
def test_the_last_frame_is_filled_up(samples, frames):
    assert magnitudes(np.ones((2, samples))).shape == (frames, 2, 1024)


def test_loud_frames_are_found():
    samples = np.zeros((2, 20480))
    samples[1, 10240 : 10240 + 5] = -40 / 32768
    assert np.flatnonzero(hear(samples).loud_enough).tolist() == [9, 10]
    samples[1, 10240] = -39 / 32768
    assert not hear(samples).loud_enough.any()


def test_energy_is_asked_of_the_second_half_of_a_frame():
    samples = np.zeros((1, 20480))
    samples[0, 5000] = 8001**0.5 / 32768
    assert np.flatnonzero(hear(samples).energetic).tolist() == [3]
    samples[0, 5000] = 7999**0.5 / 32768
    assert not hear(samples).energetic.any()
