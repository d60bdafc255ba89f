"""What an ear makes of a spectrum: Bark bands, thresholds, spreading, smearing.

Small functions without state, which the encoder and `norbert_store.quality._peaq` share. Numbers and formulas are those
of the FFT ear model of [1]_, section 2.1; [2]_ explains them.

Conventions
-----------
frequency
    Hz.
energy
    Power, in units of the power of a sound at 0 dB SPL. Bands are the last axis, frames the one before:
    (..., frames, bands).
level
    dB: ten times the decadic logarithm of an energy.

References
----------
.. [1] ITU-R, Recommendation BS.1387-1, "Method for objective measurements of perceived audio quality", 2001.
.. [2] P. Kabal, "An Examination and Interpretation of ITU-R BS.1387: Perceptual Evaluation of Audio Quality",
   McGill University, 2002.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from norbert_store._lazy import lazy

Floats = NDArray[np.floating[Any]]

# What a full-scale sine is taken to sound like, in dB SPL, where nothing else is known.
PLAYBACK_LEVEL = 92.0

# Spreading adds up at this power of the energies: two equal maskers mask more than 3 dB above one.
_ADDITION = 0.4
_LOWER_SLOPE = 27.0  # dB a Bark
_FASTEST_DECAY = 0.008  # time constant far up, s

# What is worked on at a time stays in a processor's cache.
_FRAMES_PER_BLOCK = 128


def bark(frequency: ArrayLike) -> Floats:
    """Frequency, Hz, to pitch on the Bark scale of BS.1387, ``7 asinh(f / 650)``.

    Examples
    --------
    >>> bark([80, 1000, 18000]).round(3)
    array([ 0.859,  8.511, 28.102])
    """
    return 7 * np.arcsinh(np.asarray(frequency, dtype=float) / 650)


def frequency_of_bark(pitch: ArrayLike) -> Floats:
    """Pitch in Bark to frequency in Hz: the inverse of `bark`."""
    return 650 * np.sinh(np.asarray(pitch, dtype=float) / 7)


def ear_weighting(frequency: ArrayLike) -> Floats:
    """Gain of outer and middle ear in dB; frequencies must be above 0 Hz (`bark` 0 would be minus infinity).

    Notes
    -----
    BS.1387-1, equation 7.
    """
    kilohertz = np.asarray(frequency, dtype=float) / 1000
    return -0.6 * 3.64 * kilohertz**-0.8 + 6.5 * np.exp(-0.6 * (kilohertz - 3.3) ** 2) - 1e-3 * kilohertz**3.6


def internal_noise(frequency: ArrayLike) -> Floats:
    """Level, in dB, of the noise that the ear itself adds, frequencies above 0 Hz.

    Notes
    -----
    BS.1387-1, section 2.1.
    """
    return 0.4 * 3.64 * (np.asarray(frequency, dtype=float) / 1000) ** -0.8


def bin_edges(frequency: ArrayLike) -> NDArray[np.float64]:
    """Where bins of rising frequencies, Hz, begin and end: half way to their neighbours, (bins + 1,)."""
    hertz = np.asarray(frequency, dtype=float)
    if len(hertz) == 1:
        return np.array([hertz[0] / 2, hertz[0] * 1.5 + 1])
    middle = (hertz[1:] + hertz[:-1]) / 2
    return np.concatenate([[2 * hertz[0] - middle[0]], middle, [2 * hertz[-1] - middle[-1]]])


@dataclass(frozen=True)
class BarkBands:
    """Bands of equal width in Bark, side by side from a lowest to a highest frequency; the last one may be narrower.

    Parameters
    ----------
    width : float
        Bark.
    lowest, highest : float
        Hz.

    Examples
    --------
    >>> bands = BarkBands()
    >>> len(bands), bands.centre[[0, -1]].round(1)
    (109, array([   91.7, 17690. ]))
    """

    width: float = 0.25
    lowest: float = 80.0
    highest: float = 18000.0

    def __len__(self) -> int:
        return len(self.centre)

    @lazy
    def _edges(self) -> Floats:
        first, last = float(bark(self.lowest)), float(bark(self.highest))
        inner = np.arange(first, last, self.width)
        return np.append(inner, last)

    @lazy
    def lower(self) -> Floats:
        """Lower edges, Hz, (bands,)."""
        return frequency_of_bark(self._edges[:-1])

    @lazy
    def centre(self) -> Floats:
        """Frequencies in the middle of the bands on the Bark scale, Hz, (bands,)."""
        return frequency_of_bark((self._edges[:-1] + self._edges[1:]) / 2)

    @lazy
    def upper(self) -> Floats:
        """Upper edges, Hz, (bands,)."""
        return frequency_of_bark(self._edges[1:])

    @lazy
    def noise(self) -> Floats:
        """Energy of the ear's own noise in each band, (bands,)."""
        return 10 ** (internal_noise(self.centre) / 10)

    @lazy
    def mask_offset(self) -> Floats:
        """How far, in dB, below its masker a noise must lie to stay unheard: 3 dB up to 12 Bark, then more, (bands,).

        Notes
        -----
        BS.1387-1, equation 25: pitch is counted from the first band's.
        """
        above_first = self.width * np.arange(len(self))
        return np.where(above_first <= 12, 3.0, 0.25 * above_first)

    def shares(self, frequency: ArrayLike) -> NDArray[np.float64]:
        """How much of each bin of a spectrum falls into each band.

        Parameters
        ----------
        frequency : array_like of float
            The bins' frequencies, Hz, (bins,), rising. A bin reaches half way to its neighbours, see `bin_edges`.

        Returns
        -------
        ndarray of float64
            (bins, bands), 0 to 1; ``power @ shares`` are the bands' energies.

        Notes
        -----
        BS.1387-1, section 2.1.5.
        """
        edges = bin_edges(frequency)
        lower, upper = edges[:-1, np.newaxis], edges[1:, np.newaxis]
        overlap = np.minimum(upper, self.upper) - np.maximum(lower, self.lower)
        return np.maximum(overlap, 0) / (upper - lower)

    def group(self, power: Floats, spacing: float) -> Floats:
        """Add up the powers of bins in bands: ``power @ shares``, without a product of large matrices.

        Parameters
        ----------
        power : ndarray of float
            (..., bins), of bins at 0 Hz, ``spacing``, 2 ``spacing``, ... to beyond the highest band.
        spacing : float
            Hz.

        Returns
        -------
        ndarray of float64
            (..., bands). Rounding may leave 1e-16 of the sum of all bins, of either sign, where there is nothing.
        """
        # bin k reaches from k to k + 1; every edge lies in one bin and parts two bands
        edges = frequency_of_bark(self._edges) / spacing + 0.5
        whole = edges.astype(int)
        power = power[..., : whole[-1] + 1]
        below = np.cumsum(power, axis=-1) - power
        return np.diff(below[..., whole] + (edges - whole) * power[..., whole], axis=-1)

    def spread(self, energy: Floats) -> Floats:
        """Spread energies over neighbouring bands, as the basilar membrane does; the louder, the further upwards.

        Parameters
        ----------
        energy : ndarray of float
            (..., bands), above 0: `noise` is to be added before.

        Returns
        -------
        ndarray of float64
            Of the same shape.

        Notes
        -----
        BS.1387-1, section 2.1.7: 27 dB a Bark downwards, ``24 + 230 Hz / f - 0.2 L`` dB a Bark upwards for a band of
        level ``L``, of unit area, and added at the power 0.4; divided by what becomes of 0 dB in all bands.
        """
        rows = np.asarray(energy, dtype=float).reshape(-1, len(self))
        spread = np.empty_like(rows)
        for start in range(0, len(rows), _FRAMES_PER_BLOCK):
            block = slice(start, start + _FRAMES_PER_BLOCK)
            spread[block] = (self._spread(rows[block].T) / self._spread_of_unity).T
        return spread.reshape(np.shape(energy))

    @lazy
    def _spread_of_unity(self) -> Floats:
        return self._spread(np.ones((len(self), 1)))

    def _spread(self, energy: Floats) -> Floats:
        # (bands, frames): shifting by a band is then a plain slice of memory
        bands = np.arange(len(self))[:, np.newaxis]
        down = 10 ** (-_LOWER_SLOPE / 10 * self.width)
        up = 10 ** (-(2.4 + 23 / self.centre[:, np.newaxis]) * self.width) * energy ** (0.2 * self.width)
        area = _geometric_sum(down, bands + 1) + _geometric_sum(up, len(self) - bands) - 1

        term = (energy / area) ** _ADDITION
        spread = term.copy()
        down = down**_ADDITION
        for band in range(len(self) - 2, -1, -1):
            spread[band] += down * spread[band + 1]
        up **= _ADDITION
        for distance in range(1, len(self)):
            term[:-distance] *= up[:-distance]
            spread[distance:] += term[:-distance]
        return spread ** (1 / _ADDITION)


def _geometric_sum(ratio: Any, terms: Any) -> Any:
    """``1 + ratio + ratio**2 + ...``; a ratio of 1 (120 dB, say) is moved away from where the formula has no value."""
    ratio = np.where(np.abs(ratio - 1) < 1e-9, 1 + 1e-9, ratio)
    return (1 - ratio**terms) / (1 - ratio)


def decay(centre: Floats, frame_rate: float, at_100_hertz: float = 0.030) -> Floats:
    """How much of a band's smoothed energy is left after a frame, (bands,).

    Parameters
    ----------
    centre : ndarray of float
        The bands' frequencies, Hz.
    frame_rate : float
        Frames a second.
    at_100_hertz : float
        Time constant at 100 Hz, in seconds.

    Notes
    -----
    BS.1387-1, sections 2.1.8 (where the time constants stand) and 3.1.
    """
    seconds = _FASTEST_DECAY + 100 / np.asarray(centre, dtype=float) * (at_100_hertz - _FASTEST_DECAY)
    return np.exp(-1 / (frame_rate * seconds))


def smooth(values: Floats, decay: ArrayLike) -> Floats:
    """Smooth along the frames: ``s[t] = decay s[t - 1] + (1 - decay) values[t]``, from 0 before the first.

    Parameters
    ----------
    values : ndarray of float
        (frames, ...).
    decay : array_like of float
        From 0 to below 1; a number, or one for each band.

    Returns
    -------
    ndarray of float64
        Of the shape of `values`.
    """
    smoothed = (1 - np.asarray(decay, dtype=float)) * values
    rows = smoothed[:, np.newaxis] if smoothed.ndim == 1 else smoothed
    left = np.empty(rows.shape[1:])
    for previous, row in pairwise(rows):
        row += np.multiply(decay, previous, out=left)
    return smoothed


def smear(energy: Floats, decay: ArrayLike) -> Floats:
    """Let energies fade over the frames that follow (forward masking): the larger of smoothed and raw.

    Parameters
    ----------
    energy : ndarray of float
        (frames, ..., bands).
    decay : array_like of float
        For each band, as from `decay`.

    Notes
    -----
    BS.1387-1, section 2.1.8.
    """
    return np.maximum(smooth(energy, decay), energy)
