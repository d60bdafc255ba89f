"""The ear: numbers of BS.1387-1, its formulas written out once more, and what must hold for any ear."""

from __future__ import annotations

import numpy as np
import pytest

from norbert_store._spectra.bark import (
    BarkBands,
    bark,
    decay,
    ear_weighting,
    frequency_of_bark,
    internal_noise,
    smear,
    smooth,
)

BANDS = BarkBands()
RANDOM = np.random.default_rng(1387)


def energies(*shape):
    return 10 ** RANDOM.uniform(0, 9, shape)


def test_bark_and_back():
    frequency = np.geomspace(20, 20000, 50)
    assert np.allclose(frequency_of_bark(bark(frequency)), frequency)
    assert bark(0) == 0


@pytest.mark.parametrize(
    ("band", "lower", "centre", "upper"),
    [
        (0, 80.000, 91.708, 103.445),
        (1, 103.445, 115.216, 127.023),
        (2, 127.023, 138.870, 150.762),
        (108, 17385.420, 17690.045, 18000.000),
    ],
)
def test_bands_are_those_of_the_standard(band, lower, centre, upper):
    """Rows of the table of the FFT model's bands, to its three decimals (they were rounded on the way)."""
    assert len(BANDS) == 109
    found = BANDS.lower[band], BANDS.centre[band], BANDS.upper[band]
    assert found == pytest.approx((lower, centre, upper), abs=0.005)


def test_last_band_ends_at_the_highest_frequency():
    bands = BarkBands(width=0.5, lowest=50, highest=16000)
    assert bands.lower[0] == pytest.approx(50)
    assert bands.upper[-1] == pytest.approx(16000)
    widths = bark(bands.upper) - bark(bands.lower)
    assert np.allclose(widths[:-1], 0.5)
    assert 0 < widths[-1] <= 0.5 + 1e-9


def test_ear_weighting():
    assert ear_weighting(1000) == pytest.approx(-0.6 * 3.64 + 6.5 * np.exp(-0.6 * 2.3**2) - 0.001)
    frequency = np.geomspace(20, 20000, 1000)
    assert 3000 < frequency[np.argmax(ear_weighting(frequency))] < 3600
    assert ear_weighting(20) < -40
    assert ear_weighting(20000) < -40


def test_internal_noise():
    assert internal_noise(1000) == pytest.approx(1.456)
    assert np.all(np.diff(internal_noise(BANDS.centre)) < 0)
    assert np.allclose(10 * np.log10(BANDS.noise), internal_noise(BANDS.centre))


def test_mask_offset():
    assert np.all(BANDS.mask_offset[:49] == 3)
    assert BANDS.mask_offset[[49, 108]] == pytest.approx([0.25 * 12.25, 0.25 * 27])


def test_grouping_loses_nothing():
    spacing = 48000 / 2048
    frequency = np.arange(1024) * spacing
    shares = BANDS.shares(frequency)
    assert shares.sum() * spacing == pytest.approx(18000 - 80)
    inside = (frequency > 80 + spacing) & (frequency < 18000 - spacing)
    assert np.allclose(shares[inside].sum(axis=1), 1)
    power = energies(3, 2, 1024)
    assert np.allclose(BANDS.group(power, spacing), power @ shares)


def spread_by_the_formula(energy):
    """Every source band on its own, as equations of section 2.1.7 have it."""

    def spread(energy):
        total = np.zeros(len(BANDS))
        for source, (centre, own) in enumerate(zip(BANDS.centre, energy, strict=True)):
            distance = 0.25 * (np.arange(len(BANDS)) - source)
            upwards = -24 - 230 / centre + 0.2 * 10 * np.log10(own)
            shape = 10 ** (np.where(distance < 0, 27 * distance, upwards * distance) / 10)
            total += (own * shape / shape.sum()) ** 0.4
        return total ** (1 / 0.4)

    return spread(energy) / spread(np.ones(len(BANDS)))


def test_spreading_is_that_of_the_standard():
    energy = energies(2, 109)
    assert np.allclose(BANDS.spread(energy), [spread_by_the_formula(row) for row in energy], rtol=1e-9)


def test_spreading_does_not_depend_on_what_lies_beside():
    energy = energies(150, 2, 109)
    spread = BANDS.spread(energy)
    assert spread.shape == energy.shape
    assert np.allclose(spread[140, 1], BANDS.spread(energy[140, 1]))


def test_spreading_leaves_0_decibels_alone():
    assert np.allclose(BANDS.spread(np.ones(109)), 1)


def test_louder_spreads_further_up():
    def above(level):
        energy = BANDS.noise.copy()
        energy[40] = 10 ** (level / 10)
        spread = BANDS.spread(energy)
        return 10 * np.log10(spread[48] / spread[40])

    assert above(60) < above(75) < above(90)


def test_spreading_at_120_decibels_and_beyond_is_finite():
    spread = BANDS.spread(np.full((3, 109), [[1e12], [1e13], [1.0]]))
    assert np.all(np.isfinite(spread))
    at_a_flat_slope = 10 ** ((24 + 230 / BANDS.centre) / 2)
    assert np.all(np.isfinite(BANDS.spread(at_a_flat_slope)))


def test_decay_at_100_hertz_and_far_up():
    assert decay(np.array([100.0]), 50) == pytest.approx(np.exp(-1 / (50 * 0.030)))
    assert decay(np.array([1e9]), 50) == pytest.approx(np.exp(-1 / (50 * 0.008)))
    assert decay(np.array([100.0]), 50, at_100_hertz=0.05) == pytest.approx(np.exp(-1 / (50 * 0.050)))


def test_smoothing_follows_its_recursion():
    values, slow = energies(20, 2, 109), decay(BANDS.centre, 46.875)
    smoothed = smooth(values, slow)
    assert np.allclose(smoothed[0], (1 - slow) * values[0])
    assert np.allclose(smoothed[1:], slow * smoothed[:-1] + (1 - slow) * values[1:])
    assert smooth(np.ones(3), 0.5) == pytest.approx([0.5, 0.75, 0.875])


def test_nothing_is_smoothed_to_nothing():
    assert smooth(np.zeros((0, 109)), decay(BANDS.centre, 46.875)).shape == (0, 109)


def test_smearing_fades_but_never_takes_away():
    energy = np.ones((10, 109))
    energy[3] = 1e6
    smeared = smear(energy, decay(BANDS.centre, 46.875))
    assert np.all(smeared >= energy)
    assert np.array_equal(smeared[3], energy[3])
    assert np.all(np.diff(smeared[4:7], axis=0) < 0)
    # low frequencies fade more slowly
    assert smeared[5, 0] > smeared[5, -1]
