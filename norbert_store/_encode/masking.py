"""How much an error in a stored magnitude is heard: weights for the encoder, one for each bin of each frame.

What is loud hides errors in its neighbourhood: the ear model of BS.1387 (`norbert_store._spectra.bark`) tells, for each
Bark band and frame, how strong a noise stays unheard. The weight of a bin is what a squared error of 1 in it adds to
the ratio of noise to that threshold, averaged over bands. It is computed from the magnitudes of the store's own frames.

References
----------
ITU-R BS.1387-1, "Method for objective measurements of perceived audio quality", 2001, sections 2.1, and 4.5 for the
ratio.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from norbert_store._spectra.bark import PLAYBACK_LEVEL, BarkBands, bin_edges, ear_weighting

Weights = NDArray[np.float32]

# A full-scale sine has this magnitude.
_SINE = 0.5
# Errors reach into the frames before and after, which may be quieter: this share of their weights is added.
_LEAKAGE = 0.05
_LOWEST, _HIGHEST = 80.0, 18000.0
# The standard's number of bands, over which the ratio is averaged: also where a store's bins cover fewer of them.
_BANDS = 109
# The rate of frames, a second, of 2,048 samples at 44.1 kHz that overlap by half.
_USUAL_FRAME_RATE = 44100 / 1024


class EarModel:
    """The weights of errors in the bins of one kind of frames. A full-scale sine is taken to be played at 92 dB SPL.

    Parameters
    ----------
    frequencies : array_like of float
        Hz of every bin, (bins,), ascending.
    frame_rate : float
        Frames a second.
    overlap : float
        How many frames cover a sample.
    reach : int
        From a frame to the next one that has half of its samples, in frames.

    Examples
    --------
    >>> ear = EarModel(np.arange(744) * 44100 / 2048, frame_rate=43)
    >>> loud, quiet = (ear.weights(np.full((3, 744), level))[1] for level in (1e-2, 1e-4))
    >>> bool((loud < quiet).all())
    True
    """

    def __init__(self, frequencies: ArrayLike, frame_rate: float, overlap: float = 2.0, reach: int = 1) -> None:
        # most of these matrices is zero; and a product of dense ones depends on how many threads compute it
        from scipy.sparse import csr_array  # takes a while to import

        hertz = np.asarray(frequencies, dtype=float)
        self._bands = BarkBands(lowest=_LOWEST, highest=float(np.clip(bin_edges(hertz)[-1], 2 * _LOWEST, _HIGHEST)))
        # what lies beyond the bands is heard like what lies at their ends, rather than not at all
        audible = np.clip(hertz, self._bands.centre[0], self._bands.centre[-1])
        gain = 10 ** ((PLAYBACK_LEVEL + ear_weighting(audible)) / 10) / _SINE**2
        of_bins = self._bands.shares(hertz)
        self._energy = csr_array((gain[:, np.newaxis] * of_bins).T.astype(np.float32))
        lost = np.maximum(1 - of_bins.sum(axis=1), 0)
        of_bins[:, 0] += np.where(hertz < self._bands.centre[0], lost, 0)
        of_bins[:, -1] += np.where(hertz > self._bands.centre[0], lost, 0)
        offset = 10 ** (self._bands.mask_offset / 10)
        # a frame counts for the time that it stands for, and shares its samples with those that overlap it
        share = _USUAL_FRAME_RATE / frame_rate * 2 / overlap
        self._sensitivity = csr_array((gain[:, np.newaxis] * of_bins * (offset * share / _BANDS)).astype(np.float32))
        self._reach = reach

    @property
    def context(self) -> int:
        """How many frames before and after those of interest are needed."""
        return self._reach

    def excitation(self, magnitude: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
        """Energy (frames, bands) of what magnitudes (frames, bins) excite, the ear's own noise included."""
        power = (magnitude * magnitude).astype(np.float32, copy=False)
        energy = np.ascontiguousarray((self._energy @ power.T).T)
        excitation = self._bands.spread(energy + self._bands.noise.astype(np.float32))
        return excitation.astype(np.float32, copy=False)

    def weights(self, magnitude: NDArray[np.floating[Any]]) -> Weights:
        """Weights of squared errors.

        Parameters
        ----------
        magnitude : ndarray of float
            (frames, bins), not negative.

        Returns
        -------
        ndarray of float32
            (frames, bins), above 0.
        """
        hidden = 1 / self.excitation(magnitude)
        neighbours = hidden.copy()
        neighbours[self._reach :] += np.float32(_LEAKAGE) * hidden[: -self._reach]
        neighbours[: -self._reach] += np.float32(_LEAKAGE) * hidden[self._reach :]
        return np.ascontiguousarray((self._sensitivity @ neighbours.T).T, np.float32)
