"""How large the magnitudes of a stem become, before they are encoded: its scale is constant, so it has to be known."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from norbert_store._spectra.bins import StoredTransform
from norbert_store._spectra.levels import scale_of, scale_within
from norbert_store._spectra.stft import Spectrum, StftStream


class Peak(ABC):
    """Looks through the blocks (samples, channels) of a stem."""

    @abstractmethod
    def push(self, block: NDArray[Any]) -> None:
        """Take the next samples."""

    @abstractmethod
    def scale(self) -> int:
        """Return the scale of the stem, once all of it was taken."""


class SpectrumPeak(Peak):
    """Looks through the magnitudes themselves, which are the same that will be encoded.

    Parameters
    ----------
    transform : StoredTransform
    stream : StftStream
        As the one that gives the spectra that are encoded.
    """

    def __init__(self, transform: StoredTransform, stream: StftStream) -> None:
        self._transform = transform
        self._stream = stream
        self._highest = 0.0

    def push(self, block: NDArray[Any]) -> None:
        """Take the next samples."""
        self._look(self._stream.push(block))

    def scale(self) -> int:
        """Return the smallest scale above the largest magnitude."""
        self._look(self._stream.finish())
        return scale_of(self._highest)

    def _look(self, spectra: Iterator[Spectrum]) -> None:
        for spectrum in spectra:
            # what is no number is told when it comes to be encoded
            self._highest = max(self._highest, float(self._transform.reduce(np.abs(spectrum)).max()))


class SamplePeak(Peak):
    """Looks through the samples, of which no magnitude is larger than the largest: a bound that costs little.

    Parameters
    ----------
    weights : ndarray of float
        The window, by whose sum spectra are divided.
    """

    def __init__(self, weights: NDArray[np.float64]) -> None:
        # 1, but for windows that have negative weights as well
        self._gain = float(np.abs(weights).sum() / weights.sum())
        self._highest = 0.0

    def push(self, block: NDArray[Any]) -> None:
        """Take the next samples."""
        if block.size:
            self._highest = max(self._highest, float(block.max()), -float(block.min()))

    def scale(self) -> int:
        """Return the smallest scale that holds the largest sample."""
        return scale_within(self._highest * self._gain)
