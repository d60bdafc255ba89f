"""A signal as the ear of PEAQ hears it: excitation, modulation and loudness over frames and bands.

The FFT ear model of BS.1387-1 (section 2.1) and the patterns that are made of its output (section 3).

Conventions
-----------
samples
    (channels, samples), float64 at 48 kHz, full scale is 1.0.
frames
    2048 samples, every 1024. The last one is filled up with zeros.
spectra
    Magnitudes (frames, channels, bins): the largest bin of a full-scale sine of 1019.5 Hz is 92 dB above 1.
patterns
    (frames, channels, bands); energies of the bands, or something made of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from norbert_store._lazy import lazy
from norbert_store._spectra.bark import PLAYBACK_LEVEL, BarkBands, decay, ear_weighting, smear, smooth

Floats = NDArray[np.floating[Any]]
Booleans = NDArray[np.bool_]

RATE = 48000
FRAME = 2048
HOP = FRAME // 2
BINS = FRAME // 2  # the one at 24 kHz is used nowhere
FRAME_RATE = RATE / HOP
_SPACING = RATE / FRAME

BANDS = BarkBands()
# Modulation and level adaptation look back further than smearing does.
SLOW_DECAY = decay(BANDS.centre, FRAME_RATE, at_100_hertz=0.050)

# A sine of 1019.5 Hz lies half way between two bins; this much of its amplitude reaches the larger one.
_BETWEEN_BINS = 0.84971762641205
_LEAST_ENERGY = 1e-12
# Their spectra stay in a processor's cache.
_FRAMES_PER_BLOCK = 32


@cache
def _window() -> Floats:
    scale = 10 ** (PLAYBACK_LEVEL / 20) / (_BETWEEN_BINS * (FRAME - 1) / 4)
    return scale * np.hanning(FRAME)


@cache
def _weighting() -> Floats:
    """Gain of outer and middle ear for the power of each bin; nothing of 0 Hz comes through."""
    weighting = np.zeros(BINS)
    weighting[1:] = 10 ** (ear_weighting(np.arange(1, BINS) * _SPACING) / 10)
    return weighting


def resampled(audio: Floats, rate: int) -> Floats:
    """Audio (samples, channels) at a rate to 48 kHz, float64; as it is where that is its rate."""
    if rate == RATE:
        return audio
    from scipy.signal import resample_poly  # a second to import, and not needed at 48 kHz

    divisor = math.gcd(RATE, rate)
    at_48_kilohertz: Floats = resample_poly(
        audio.astype(np.float64, copy=False), RATE // divisor, rate // divisor, axis=0
    )
    return at_48_kilohertz


def padded(samples: Floats) -> Floats:
    """Fill samples up with zeros to whole frames, one frame beyond the last whole one."""
    hops = max(samples.shape[1] // HOP, 1) + 1
    return np.pad(samples, ((0, 0), (0, hops * HOP - samples.shape[1])))


def spectra(samples: Floats) -> Iterator[tuple[slice, Floats]]:
    """Magnitudes of the spectra of `padded` samples, block by block, each with the slice of its frames."""
    frames = np.lib.stride_tricks.sliding_window_view(samples, FRAME, axis=1)[:, ::HOP].swapaxes(0, 1)
    for start in range(0, len(frames), _FRAMES_PER_BLOCK):
        block = slice(start, min(start + _FRAMES_PER_BLOCK, len(frames)))
        yield block, np.abs(np.fft.rfft(frames[block] * _window())[..., :BINS])


def band_energies(power: Floats) -> Floats:
    """Energies of the bands, weighted by outer and middle ear, of a spectrum's powers (frames, channels, bins)."""
    return np.maximum(BANDS.group(power * _weighting(), _SPACING), _LEAST_ENERGY)


@dataclass(frozen=True)
class Heard:
    """A signal as it is heard.

    Parameters
    ----------
    samples : ndarray of float64
        `padded`.
    energies : ndarray of float64
        `band_energies` of all frames.
    """

    samples: Floats
    energies: Floats

    @lazy
    def unsmeared(self) -> Floats:
        """Excitation before it is smeared over the frames that follow."""
        return BANDS.spread(self.energies + BANDS.noise)

    @lazy
    def excitation(self) -> Floats:
        """Energies after spreading and smearing."""
        return smear(self.unsmeared, decay(BANDS.centre, FRAME_RATE))

    @lazy
    def partial_loudness(self) -> Floats:
        """A simple loudness of each band, for modulation: energy ** 0.3."""
        return self.unsmeared**0.3

    @lazy
    def average_loudness(self) -> Floats:
        """`partial_loudness`, smoothed."""
        return smooth(self.partial_loudness, SLOW_DECAY)

    @lazy
    def modulation(self) -> Floats:
        """How much the envelope of each band moves (BS.1387-1, section 3.2, equations 54 to 57)."""
        change = FRAME_RATE * np.abs(np.diff(self.partial_loudness, axis=0, prepend=0))
        return smooth(change, SLOW_DECAY) / (1 + self.average_loudness / 0.3)

    @lazy
    def loudness(self) -> Floats:
        """Loudness of each frame and channel in sone, after Zwicker, (frames, channels)."""
        kilohertz = BANDS.centre / 1000
        threshold = 10 ** (0.364 * kilohertz**-0.8)
        index = 10 ** ((-2 - 2.05 * np.arctan(kilohertz / 4) - 0.75 * np.arctan((kilohertz / 1.6) ** 2)) / 10)
        scale = 1.07664 * (threshold / index * 1e-4) ** 0.23
        sone = scale * ((1 - index + index / threshold * self.excitation) ** 0.23 - 1)
        return 24 / len(BANDS) * np.maximum(sone, 0).sum(axis=-1)

    @lazy
    def loud_enough(self) -> Booleans:
        """Frames where five samples in a row add up to 200 of 32768 in some channel (BS.1387-1, section 5.2.4)."""
        size = np.abs(self.samples)
        fives = size[:, :-4] + size[:, 1:-3] + size[:, 2:-2] + size[:, 3:-1] + size[:, 4:]
        loud = np.any(fives >= 200 / 32768, axis=0)
        starts = np.arange(0, self.samples.shape[1] - FRAME + 1, HOP)
        # sums that begin in the frame and end in it
        return np.array([loud[start : start + FRAME - 4].any() for start in starts])

    @lazy
    def energetic(self) -> Booleans:
        """Frames whose second half has energy in some channel (BS.1387-1, section 5.2.4.3)."""
        halves = self.samples.reshape(len(self.samples), -1, HOP)
        return (np.einsum("chs,chs->ch", halves, halves) >= 8000 / 32768**2).any(axis=0)[1:]
