"""What of an error in a spectrogram is heard after resynthesis.

Frames overlap, so a spectrogram holds more numbers than the audio has samples: it is *consistent* if it is the STFT of
some audio. Resynthesis keeps the consistent part of whatever it gets, and loses the rest. So does it with errors.

References
----------
J. Le Roux, N. Ono, S. Sagayama, "Explicit consistency constraints for STFT spectrograms and their application to phase
reconstruction", SAPA 2008.
D. Griffin and J. Lim, "Signal estimation from modified short-time Fourier transform", IEEE TASSP 32(2), 1984.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from norbert_store._spectra.stft import Stft

Complex = NDArray[np.complexfloating[Any, Any]]


class Consistency:
    """The projection onto consistent spectrograms: an inverse STFT, and an STFT.

    Parameters
    ----------
    stft : Stft
    bins : int
        So many, from 0 Hz on, are there; the others are 0, and aren't asked for.

    Examples
    --------
    >>> stft = Stft(rate=8000, n_fft=64)
    >>> spectrum = stft.transform(np.sin(np.arange(640)))[:, :, 0]
    >>> again = Consistency(stft, 33).project(spectrum)
    >>> bool(np.allclose(again[1:-1], spectrum[1:-1]))
    True
    """

    def __init__(self, stft: Stft, bins: int) -> None:
        self._n_fft, self._hop, self._bins = stft.n_fft, stft.hop, bins
        window = stft.weights
        pieces = -(-stft.n_fft // stft.hop)
        squares = np.zeros(pieces * stft.hop)
        squares[: stft.n_fft] = window**2
        overlap = np.tile(squares.reshape(pieces, stft.hop).sum(axis=0), pieces)[: stft.n_fft]
        self._analysis = window.astype(np.float32)
        self._synthesis = (window / overlap).astype(np.float32)

    @property
    def reach(self) -> int:
        """How many frames before and after a frame have samples in common with it."""
        return -(-self._n_fft // self._hop) - 1

    def project(self, spectrum: Complex) -> Complex:
        """Keep the consistent part.

        Parameters
        ----------
        spectrum : ndarray of complex
            (frames, bins)

        Returns
        -------
        ndarray of complex
            (frames, bins). The first and last `reach` frames are right only if nothing lies beyond them.
        """
        from scipy.fft import irfft, rfft  # computes several frames at once, in float32; costs an import

        frames = irfft(spectrum, n=self._n_fft, axis=1)
        frames *= self._synthesis
        windows = np.lib.stride_tricks.sliding_window_view(self._overlap_add(frames), self._n_fft)[:: self._hop]
        consistent: Complex = rfft(windows * self._analysis, axis=1)[:, : self._bins]
        return consistent

    def _overlap_add(self, frames: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
        audio = np.zeros((len(frames) + self.reach, self._hop), frames.dtype)
        for i in range(self.reach + 1):
            piece = frames[:, i * self._hop : (i + 1) * self._hop]
            audio[i : i + len(frames), : piece.shape[1]] += piece
        return audio.ravel()[: (len(frames) - 1) * self._hop + self._n_fft]
