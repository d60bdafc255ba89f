"""Weights of errors, by what is heard."""

import numpy as np
import pytest

from norbert_store._encode.masking import EarModel
from norbert_store._spectra.bark import BarkBands, ear_weighting

FREQUENCIES = np.arange(744) * 44100 / 2048
FRAME_RATE = 44100 / 1024


@pytest.fixture(scope="module")
def ear() -> EarModel:
    return EarModel(FREQUENCIES, FRAME_RATE)


def tone(hertz: float, magnitude: float = 0.1, frames: int = 3) -> np.ndarray:
    spectrum = np.zeros((frames, 744), np.float32)
    spectrum[:, round(hertz * 2048 / 44100)] = magnitude
    return spectrum


def at(weights: np.ndarray, hertz: float) -> float:
    return float(weights[1, round(hertz * 2048 / 44100)])


def test_a_weight_is_what_an_error_adds_to_the_ratio_of_noise_to_mask():
    """The definition, written out for a bin that lies within one band."""
    bands = BarkBands(highest=float(FREQUENCIES[-1] + 22050 / 2048))
    magnitude = np.full((1, 744), 1e-3, np.float32)
    gain = 10 ** ((92 + ear_weighting(np.maximum(FREQUENCIES, 1))) / 10) / 0.25
    energy = magnitude**2 * gain @ bands.shares(FREQUENCIES)
    mask = bands.spread(energy + bands.noise) / 10 ** (bands.mask_offset / 10)
    band = 60
    inside = np.flatnonzero(bands.shares(FREQUENCIES)[:, band] == 1)
    weights = EarModel(FREQUENCIES, FRAME_RATE).weights(magnitude)
    assert np.allclose(weights[0, inside], gain[inside] / mask[0, band] / 109, rtol=1e-3)


def test_what_is_loud_hides_errors_and_more_so_above(ear):
    silence, masked = ear.weights(np.zeros((3, 744), np.float32)), ear.weights(tone(1000))
    hidden = {hertz: at(masked, hertz) / at(silence, hertz) for hertz in (700, 1000, 1400, 10000)}
    assert hidden[1000] < hidden[1400] < hidden[700] < 1
    assert hidden[10000] > 1e3 * hidden[1000]


def test_in_silence_the_ear_is_keenest_at_three_kilohertz(ear):
    weights = ear.weights(np.zeros((3, 744), np.float32))
    assert 2500 < FREQUENCIES[weights[1].argmax()] < 4500


def test_an_error_beside_a_quiet_frame_weighs_more(ear):
    loud = tone(1000, frames=5)
    among_loud = ear.weights(loud)[1:4]
    loud[2] = 0
    assert at(ear.weights(loud)[0:3], 1000) > 10 * at(among_loud, 1000)
    loud[2], loud[4] = loud[1], 0
    assert np.array_equal(ear.weights(loud)[1:3], among_loud[:2])  # but not two frames off


def test_frames_count_for_their_time_and_share_their_samples(ear):
    weights = ear.weights(tone(500))
    half_hop = EarModel(FREQUENCIES, 2 * FRAME_RATE, overlap=4)
    assert np.allclose(half_hop.weights(tone(500)) * 4, weights, rtol=1e-5)


@pytest.mark.parametrize("level", [0.0, 1e-30, 1e-3, 1.0])
@pytest.mark.parametrize(
    "frequencies",
    [
        [440.0],
        [0.0, 4000.0],
        np.arange(129) * 31.25,
        np.arange(2049) * 192000 / 4096,
        55 * 2 ** (np.arange(84) / 12),
        np.arange(10.0),
        [50_000.0, 60_000.0],
    ],
)
def test_any_bins_and_levels_have_finite_weights_above_zero(frequencies, level):
    weights = EarModel(frequencies, 50).weights(np.full((4, len(frequencies)), level, np.float32))
    assert weights.shape == (4, len(frequencies))
    assert weights.dtype == np.float32
    assert np.isfinite(weights).all()
    assert (weights > 0).all()


@pytest.mark.parametrize("reach", [1, 3])
@pytest.mark.parametrize("frames", [1, 2, 5])
def test_few_frames_are_enough(frames, reach):
    ear = EarModel(FREQUENCIES, FRAME_RATE, reach=reach)
    assert ear.context == reach
    assert ear.weights(np.ones((frames, 744), np.float32)).shape == (frames, 744)
