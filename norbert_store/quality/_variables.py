"""The eleven model output variables of PEAQ's basic version (BS.1387-1, section 4), from two signals as they are heard.

Every function compares a reference and a test signal, as spectra or as `norbert_store.quality._ear.Heard`, and gives a
value for each frame, (frames, channels), or (frames,) where both ears are combined. `model_output_variables` averages
them over the frames that section 5.2.4 selects, and over channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from norbert_store._spectra.bark import smooth
from norbert_store.quality._ear import BANDS, SLOW_DECAY, Booleans, Floats, Heard, band_energies

Integers = NDArray[np.integer[Any]]

# Half a second, in which the smoothing of modulation and levels settles.
_SETTLING_FRAMES = 24
# 50 ms after both signals were first loud enough to be judged
_ATTENTION_FRAMES = 3
_LEAST_LOUDNESS = 0.1  # sone

_HIGHEST_BIN = 921  # 21.6 kHz: above, there is only noise
_LOWEST_BANDWIDTH = 346  # bins: frames that reach less far don't count
_LAGS = 256
_SILENCE = 1e-15

_WINDOW_FRAMES = 4


def bandwidths(reference: Floats, test: Floats) -> tuple[Integers, Integers]:
    """How many bins of reference and test stand above the test's noise beyond 21.6 kHz (section 4.4)."""
    floor = test[..., _HIGHEST_BIN:].max(axis=-1, keepdims=True)
    bins = np.arange(1, _HIGHEST_BIN + 1, dtype=np.int16)
    of_reference = ((reference[..., :_HIGHEST_BIN] > 10 ** (10 / 20) * floor) * bins).max(axis=-1)
    in_test = (test[..., :_HIGHEST_BIN] >= 10 ** (5 / 20) * floor) & (bins <= of_reference[..., np.newaxis])
    return of_reference, (in_test * bins).max(axis=-1)


def noise(reference: Floats, test: Floats) -> Floats:
    """Energy of the error in each band, (frames, channels, bands)."""
    return band_energies((test - reference) ** 2)


def harmonic_structure(reference: Floats, test: Floats) -> Floats:
    """How regular the error's spectrum is: a peak in the spectrum of its autocorrelation (section 4.8)."""
    error = np.log(np.maximum(test[..., : 2 * _LAGS], _SILENCE) / np.maximum(reference[..., : 2 * _LAGS], _SILENCE))
    error[..., 0] = 0
    whole, half = np.fft.rfft(error, 2 * _LAGS), np.fft.rfft(error[..., :_LAGS], 2 * _LAGS)
    correlation = np.fft.irfft(whole * half.conj())[..., :_LAGS]

    energy = np.cumsum(np.pad(error**2, [(0, 0)] * (error.ndim - 1) + [(1, 0)]), axis=-1)
    energy = energy[..., _LAGS : 2 * _LAGS] - energy[..., :_LAGS]
    scale = np.sqrt(np.maximum(energy * energy[..., :1], 0))
    correlation = np.divide(correlation, scale, out=np.zeros_like(correlation), where=scale > 0)

    correlation -= correlation.mean(axis=-1, keepdims=True)
    spectrum = np.abs(np.fft.rfft(correlation * (np.sqrt(8 / 3) / _LAGS * np.hanning(_LAGS)))) ** 2
    rising = spectrum[..., 1:] > spectrum[..., :-1]
    return 1000 * np.max(spectrum[..., 1:] * rising, axis=-1)


def noise_to_mask(reference: Heard, noise: Floats) -> Floats:
    """Energy of the error over what the reference masks, (frames, channels, bands) (equations 26, 70)."""
    return noise / reference.excitation * 10 ** (BANDS.mask_offset / 10)


def modulation_differences(reference: Heard, test: Heard) -> tuple[Floats, Floats, Floats]:
    """Two differences of modulation and the weight of each frame (section 4.2, equations 63 to 65)."""
    difference = np.abs(test.modulation - reference.modulation)
    first = difference / (1 + reference.modulation)
    lost_counts_less = np.where(test.modulation >= reference.modulation, 1, 0.1)
    second = lost_counts_less * difference / (0.01 + reference.modulation)
    weight = reference.average_loudness / (reference.average_loudness + 100 * BANDS.noise**0.3)
    return 100 * first.mean(axis=-1), 100 * second.mean(axis=-1), weight.sum(axis=-1)


def adapted_excitations(reference: Heard, test: Heard) -> tuple[Floats, Floats]:
    """Excitations with differences of level, and slow ones of the spectrum, evened out (section 3.1)."""
    ours, theirs = smooth(reference.excitation, SLOW_DECAY), smooth(test.excitation, SLOW_DECAY)
    gain = (np.sqrt(ours * theirs).sum(axis=-1) / theirs.sum(axis=-1))[..., np.newaxis] ** 2
    ours, theirs = reference.excitation / np.maximum(gain, 1), test.excitation * np.minimum(gain, 1)

    ratio = smooth(ours * theirs, SLOW_DECAY) / smooth(ours * ours, SLOW_DECAY)
    ours *= smooth(_neighbours(np.minimum(ratio, 1)), SLOW_DECAY)
    theirs *= smooth(_neighbours(np.minimum(1 / ratio, 1)), SLOW_DECAY)
    return ours, theirs


def _neighbours(values: Floats) -> Floats:
    """Mean over three bands below to four above, as far as there are any."""
    total = np.cumsum(np.pad(values, [(0, 0)] * (values.ndim - 1) + [(1, 0)]), axis=-1)
    bands = np.arange(len(BANDS))
    first, beyond = np.maximum(bands - 3, 0), np.minimum(bands + 5, len(BANDS))
    return (total[..., beyond] - total[..., first]) / (beyond - first)


def noise_loudness(reference: Heard, test: Heard) -> Floats:
    """Loudness of what was added, partly masked by the reference (equations 66 to 68)."""
    ours, theirs = adapted_excitations(reference, test)
    of_reference, of_test = 0.15 * reference.modulation + 0.5, 0.15 * test.modulation + 0.5
    masking = np.exp(-1.5 * (theirs - ours) / ours)
    ours *= of_reference
    above = np.maximum(of_test * theirs - ours, 0) / (BANDS.noise + ours * masking)
    sone = (BANDS.noise / of_test) ** 0.23 * ((1 + above) ** 0.23 - 1)
    return 24 / len(BANDS) * sone.sum(axis=-1)


def detection(reference: Heard, test: Heard) -> tuple[Floats, Floats]:
    """Probability that a frame's difference is detected, and how many steps above threshold it is (equations 73 to 78).

    In each band, the ear that hears more counts.
    """
    ours, theirs = 10 * np.log10(reference.excitation), 10 * np.log10(test.excitation)
    difference = ours - theirs
    level = 0.3 * np.maximum(ours, theirs) + 0.7 * theirs
    step = _just_noticeable(level)
    relative = np.abs(difference) / step
    undetected = 0.5 ** np.where(difference > 0, relative**4, relative**6)
    probability = 1 - undetected.min(axis=1).prod(axis=-1)
    steps = np.trunc(np.abs(difference)) / step
    return probability, steps.max(axis=1).sum(axis=-1)


def _just_noticeable(level: Floats) -> Floats:
    """Just noticeable difference of level, dB, at a level in dB; out of reach below 0 dB."""
    audible = np.maximum(level, 1e-3)
    polynomial = -0.198719 + audible * (
        0.0550197 + audible * (-0.00102438 + audible * (5.05622e-6 + audible * 9.01033e-11))
    )
    return np.where(level > 0, polynomial + 5.95072 * (6.39468 / audible) ** 1.71332, 1e30)


@dataclass(frozen=True)
class SpectralDifferences:
    """What is compared in spectra, not in patterns; all frames, or a block of them.

    Parameters
    ----------
    of_reference, of_test : ndarray of int
        `bandwidths`.
    noise : ndarray of float64
        `noise`.
    harmonics : ndarray of float64
        `harmonic_structure`.
    """

    of_reference: Integers
    of_test: Integers
    noise: Floats
    harmonics: Floats

    @classmethod
    def between(cls, reference: Floats, test: Floats) -> SpectralDifferences:
        """Compare two spectra of equal shape, magnitudes (frames, channels, bins)."""
        return cls(*bandwidths(reference, test), noise(reference, test), harmonic_structure(reference, test))

    @classmethod
    def joined(cls, blocks: Sequence[SpectralDifferences]) -> SpectralDifferences:
        """One block after the other."""
        return cls(*(np.concatenate([getattr(block, field.name) for block in blocks]) for field in fields(cls)))


def model_output_variables(reference: Heard, test: Heard, spectral: SpectralDifferences) -> dict[str, float]:
    """The eleven variables by the names of BS.1387-1."""
    judged, settled, attentive, energetic = _selected_frames(reference, test)
    wide = judged[:, np.newaxis] & (spectral.of_reference > _LOWEST_BANDWIDTH)
    ratio = noise_to_mask(reference, spectral.noise)[judged]
    first, second, weight = (values[settled] for values in modulation_differences(reference, test))
    probability, steps = (values[judged] for values in detection(reference, test))
    return {
        "BandwidthRefB": _mean(spectral.of_reference, wide, otherwise=_LOWEST_BANDWIDTH),
        "BandwidthTestB": _mean(spectral.of_test, wide, otherwise=_LOWEST_BANDWIDTH),
        "Total NMRB": float(np.mean(10 * np.log10(ratio.mean(axis=(0, 2))))),
        "WinModDiff1B": _windowed_mean(first),
        "ADBB": _distorted_block(steps[probability > 0.5]),
        "EHSB": _mean(spectral.harmonics, energetic[:, np.newaxis], otherwise=0),
        "AvgModDiff1B": float(np.mean((first * weight).sum(axis=0) / weight.sum(axis=0))),
        "AvgModDiff2B": float(np.mean((second * weight).sum(axis=0) / weight.sum(axis=0))),
        "RmsNoiseLoudB": _root_mean_square(noise_loudness(reference, test)[attentive]),
        "MFPDB": float(smooth(probability, 0.9).max()),
        "RelDistFramesB": float((ratio.max(axis=-1) > 10 ** (1.5 / 10)).mean()),
    }


def _selected_frames(reference: Heard, test: Heard) -> tuple[Booleans, Booleans, Booleans, Booleans]:
    """Frames that are judged at all, once smoothing has settled, by loudness, and by harmonics (section 5.2.4).

    A reference that is silent, or shorter than half a second, is judged by all frames that there are.
    """
    frames = np.arange(len(reference.loud_enough))
    judged = _from_first_to_last(reference.loud_enough) if reference.loud_enough.any() else np.full(len(frames), True)
    settled = judged & (frames >= _SETTLING_FRAMES)
    if not settled.any():
        settled = judged
    both_loud = ((reference.loudness > _LEAST_LOUDNESS) & (test.loudness > _LEAST_LOUDNESS)).any(axis=1)
    attentive = settled & (frames >= np.argmax(both_loud) + _ATTENTION_FRAMES) & both_loud.any()
    energetic = judged & (reference.energetic | test.energetic)
    return judged, settled, attentive, energetic


def _from_first_to_last(frames: Booleans) -> Booleans:
    return np.logical_or.accumulate(frames) & np.logical_or.accumulate(frames[::-1])[::-1]


def _mean(values: NDArray[Any], where: Booleans, otherwise: float) -> float:
    """Mean over frames, then over channels; channels without a frame don't count, and without any it is `otherwise`."""
    where = np.broadcast_to(where, values.shape)
    count = where.sum(axis=0)
    total = (values * where).sum(axis=0)
    return float(np.mean(total[count > 0] / count[count > 0])) if count.any() else otherwise


def _windowed_mean(values: Floats) -> float:
    """Mean in which what is large for four frames, 100 ms, counts most."""
    length = min(_WINDOW_FRAMES, len(values))
    windows = np.lib.stride_tricks.sliding_window_view(np.sqrt(values), length, axis=0).mean(axis=-1)
    return float(np.mean(np.sqrt(np.mean(windows**4, axis=0))))


def _distorted_block(steps: Floats) -> float:
    """Logarithm of the mean steps above threshold of frames where a difference is detected."""
    if not len(steps):
        return 0.0
    return float(np.log10(steps.mean())) if steps.any() else -0.5


def _root_mean_square(values: Floats) -> float:
    return float(np.mean(np.sqrt(np.mean(values**2, axis=0)))) if len(values) else 0.0
