"""What a store holds along frequency: bins of an STFT up to a bandwidth, mel bands, or bins computed elsewhere.

Conventions
-----------
A magnitude is a non-negative float array whose last axis is frequency; its scale is that of
`norbert_store._spectra.stft`. Each `StoredTransform` knows the way from magnitudes of the STFT to what is stored
(`reduce`), and back (`extend`).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from norbert_store._lazy import lazy
from norbert_store._signature import spelled_out
from norbert_store._spectra.stft import Stft, whole_number
from norbert_store._text import shortened, shown
from norbert_store.errors import FormatError

Magnitude = NDArray[np.floating[Any]]

DEFAULT_BANDWIDTH = 16000.0


def bins_within(frequencies: NDArray[np.float64], bandwidth: float) -> int:
    """Count the bins that lie at or below ``bandwidth`` Hz; at least one.

    Raises
    ------
    ValueError
        If the bandwidth is not a positive number.
    """
    if not (isinstance(bandwidth, int | float | np.number) and 0 < bandwidth < math.inf):
        raise ValueError(f"bandwidth must be a positive number of Hz, found {bandwidth!r}")
    return max(1, int(np.searchsorted(frequencies, bandwidth, side="right")))


class StoredTransform(ABC):
    """What a store holds along its last axis, and how that came from audio.

    Attributes
    ----------
    name : str
        "stft", "mel", or the name of magnitudes that were computed elsewhere.
    rate : int
        Samples per second of the audio.
    hop : int
        Samples from a frame to the next.
    frequencies : ndarray of float64
        Hz, one for each stored bin.
    config : dict
        All that `transform_from_config` needs to build this again, as plain JSON values.
    """

    def __repr__(self) -> str:
        facts = {key: value for key, value in self.config.items() if key != "name"}
        return f"<transform {self.name!r}: {', '.join(f'{key} {value}' for key, value in facts.items())}>"

    @property
    @abstractmethod
    def name(self) -> str:
        """Name of the transform."""

    @property
    @abstractmethod
    def rate(self) -> int:
        """Samples per second."""

    @property
    @abstractmethod
    def hop(self) -> int:
        """Samples from a frame to the next."""

    @property
    @abstractmethod
    def frequencies(self) -> NDArray[np.float64]:
        """Hz, one for each stored bin."""

    @property
    @abstractmethod
    def config(self) -> dict[str, Any]:
        """Plain JSON values that `transform_from_config` takes."""

    @property
    def stft(self) -> Stft:
        """The STFT that the stored values are computed from.

        Raises
        ------
        ValueError
            If there is none: magnitudes were computed elsewhere.
        """
        raise ValueError(
            f"the magnitudes of transform {self.name!r} are computed elsewhere; add them with add_magnitudes(), and "
            "make audio from them with the program that computed them"
        )

    @property
    def covered_bins(self) -> int:
        """Number of bins of the STFT, from 0 Hz on, that the stored values cover."""
        return bins_within(self.stft.frequencies, float(self.frequencies[-1]))

    def frame_seconds(self, frames: int) -> NDArray[np.float64]:
        """Centres of the first ``frames`` frames, in seconds."""
        return np.arange(frames, dtype=np.float64) * (self.hop / self.rate)

    def reduce(self, magnitude: Magnitude) -> Magnitude:
        """Magnitudes of the STFT (..., bins of the STFT) to what is stored (..., stored bins)."""
        raise ValueError(f"the magnitudes of transform {self.name!r} are computed elsewhere")

    def extend(self, stored: Magnitude) -> Magnitude:
        """What is stored (..., stored bins) to magnitudes of the STFT (..., bins of the STFT)."""
        raise ValueError(f"the magnitudes of transform {self.name!r} can only be inverted elsewhere")


class _OfStft(StoredTransform):
    """A stored transform that is computed from an STFT."""

    _stft: Stft

    @property
    def rate(self) -> int:
        return self._stft.rate

    @property
    def hop(self) -> int:
        return self._stft.hop

    @property
    def stft(self) -> Stft:
        return self._stft

    def frame_seconds(self, frames: int) -> NDArray[np.float64]:
        return self._stft.frame_seconds(frames)


class LinearBins(_OfStft):
    """The bins of an STFT up to a bandwidth.

    Parameters
    ----------
    stft : Stft
    bandwidth : float
        Hz; bins above it are not kept, and come back as 0. Beyond half the rate, all bins are kept.

    Examples
    --------
    >>> LinearBins(Stft(), bandwidth=16000).frequencies.shape
    (744,)
    """

    name = "stft"

    def __init__(self, stft: Stft, bandwidth: float = DEFAULT_BANDWIDTH) -> None:
        self._stft = stft
        self._bins = bins_within(stft.frequencies, bandwidth)
        self.bandwidth = float(bandwidth)

    @property
    def frequencies(self) -> NDArray[np.float64]:
        return self._stft.frequencies[: self._bins]

    @property
    def config(self) -> dict[str, Any]:
        return {"name": self.name, **self._stft.config, "bandwidth": self.bandwidth}

    def reduce(self, magnitude: Magnitude) -> Magnitude:
        return magnitude[..., : self._bins]

    def extend(self, stored: Magnitude) -> Magnitude:
        extended = np.zeros((*stored.shape[:-1], self._stft.bins), stored.dtype)
        extended[..., : self._bins] = stored
        return extended


@spelled_out()
@dataclass(frozen=True)
class Mel:
    """Mel bands as the ``transform`` of `norbert_store.create`.

    Parameters
    ----------
    n_mels : int
        Number of bands.
    rate, n_fft, hop, window, centred, padding
        Of the STFT that they are computed from, as for `norbert_store.TF`.
    lowest : float
        Lower edge of the lowest band, Hz.
    scale : str
        "slaney" (linear below 1 kHz, logarithmic above) or "htk" (``2595 log10(1 + f / 700)``).
    """

    n_mels: int = 128
    rate: int = 44100
    n_fft: int = 2048
    hop: int = None  # type: ignore[assignment]  # half a frame, as in Stft
    window: str = "hann"
    centred: bool = True
    padding: str = "zeros"
    lowest: float = 0.0
    scale: str = "slaney"


class MelBands(_OfStft):
    """Mean magnitude of an STFT in triangular bands, evenly spaced on the mel scale.

    The filters are librosa's (``norm="slaney"``) but for their height: each sums to 1 over the bins, so that a band
    holds a weighted mean of magnitudes and never exceeds the largest of them.

    Parameters
    ----------
    stft : Stft
    n_mels : int
        Number of bands.
    lowest, bandwidth : float
        Edges of the lowest and the highest band, Hz. Beyond half the rate, half the rate is taken.
    scale : str
        "slaney" or "htk".

    Raises
    ------
    ValueError
        If a parameter is out of range, or a band is too narrow to hold a bin.

    References
    ----------
    S. Stevens, J. Volkmann and E. Newman, "A scale for the measurement of the psychological magnitude pitch", JASA
    8(3), 1937; M. Slaney, "Auditory Toolbox", Interval Research TR 1998-010; S. Young et al., "The HTK Book", 5.4.
    """

    name = "mel"

    def __init__(
        self,
        stft: Stft,
        n_mels: int = 128,
        lowest: float = 0.0,
        bandwidth: float = DEFAULT_BANDWIDTH,
        scale: str = "slaney",
    ) -> None:
        n_mels = whole_number("n_mels", n_mels, at_least=1)
        # filters are a matrix (bands, bins); with two bands a bin, some are sure to hold none
        if n_mels > min(2 * stft.bins, _LARGEST_FILTERS // stft.bins):
            raise ValueError(f"n_mels must be less for an n_fft of {stft.n_fft}, found {n_mels}")
        if scale not in _MEL_SCALES:
            raise ValueError(f"scale must be one of {', '.join(map(repr, _MEL_SCALES))}; found {scale!r}")
        highest = min(float(bandwidth), stft.rate / 2)
        if not 0 <= lowest < highest:
            raise ValueError(f"lowest must be from 0 to below {highest:g} Hz, found {lowest!r}")
        self._stft = stft
        self.n_mels, self.lowest, self.bandwidth, self.scale = n_mels, float(lowest), float(bandwidth), scale
        to_mel, to_hertz = _MEL_SCALES[scale]
        low, high = to_mel(np.array([lowest, highest], dtype=np.float64))
        self._edges = to_hertz(np.linspace(low, high, n_mels + 2))
        self._filters = _triangles(self._edges, stft.frequencies)
        empty = np.flatnonzero(self._filters.sum(axis=1) == 0)
        if len(empty):
            low, high = self._edges[empty[0]], self._edges[empty[0] + 2]
            raise ValueError(
                f"mel band {empty[0]} ({low:.1f} to {high:.1f} Hz) holds none of the STFT's bins, which lie "
                f"{stft.rate / stft.n_fft:.1f} Hz apart; use fewer than {n_mels} bands, or a larger n_fft"
            )

    @property
    def frequencies(self) -> NDArray[np.float64]:
        """Centre of every band, Hz."""
        return self._edges[1:-1]

    @property
    def config(self) -> dict[str, Any]:
        return {
            "name": self.name,
            **self._stft.config,
            "n_mels": self.n_mels,
            "lowest": self.lowest,
            "bandwidth": self.bandwidth,
            "scale": self.scale,
        }

    @lazy
    def _means(self) -> Any:
        # of dense matrices, the product would depend on how many threads compute it, and so would what is stored
        from scipy.sparse import csr_array  # takes a while to import

        return csr_array(self._filters / self._filters.sum(axis=1, keepdims=True))

    def reduce(self, magnitude: Magnitude) -> Magnitude:
        rows = magnitude.reshape(-1, magnitude.shape[-1])
        return np.ascontiguousarray((self._means.astype(magnitude.dtype) @ rows.T).T).reshape(
            *magnitude.shape[:-1], self.n_mels
        )

    def extend(self, stored: Magnitude) -> Magnitude:
        """Spread bands over bins: each bin takes the mean of the bands that cover it, weighted by their triangles.

        The fine structure within a band is lost; this is a smooth estimate, not an inverse.
        """
        cover = self._filters.sum(axis=0)
        spread = self._filters / np.where(cover > 0, cover, 1)
        return stored @ spread.astype(stored.dtype)


@spelled_out()
class ReadyBins(StoredTransform):
    """The bins of magnitudes that are computed elsewhere, as the ``transform`` of `norbert_store.create`.

    Parameters
    ----------
    name : str
        What they are, for example "cqt".
    rate, hop : int
        Samples per second, and samples from one frame to the next.
    frequencies : array_like of float
        Frequency of every bin, Hz, ascending, (bins,).
    details : mapping, optional
        Whatever else is needed to understand or invert them, as JSON values.

    Raises
    ------
    ValueError
        If the name is that of a transform of this library, or a parameter is out of range.
    """

    def __init__(
        self, name: str, rate: int, hop: int, frequencies: ArrayLike, details: Mapping[str, Any] | None = None
    ) -> None:
        if name in (LinearBins.name, MelBands.name):
            raise ValueError(f"the name {name!r} stands for a transform of this library; choose another")
        self._name = name
        self._rate = whole_number("rate", rate, at_least=1)
        self._hop = whole_number("hop", hop, at_least=1)
        self._frequencies = np.array(frequencies, dtype=np.float64)
        self._details = dict(details or {})
        if self._frequencies.ndim != 1 or len(self._frequencies) == 0:
            raise ValueError(f"expected one frequency per bin, found an array of shape {self._frequencies.shape}")
        if not np.isfinite(self._frequencies).all() or (np.diff(self._frequencies) <= 0).any():
            raise ValueError(
                f"expected finite frequencies in ascending order, found {shown(self._frequencies.tolist())}"
            )

    @property
    def name(self) -> str:
        return self._name

    @property
    def rate(self) -> int:
        return self._rate

    @property
    def hop(self) -> int:
        return self._hop

    @property
    def frequencies(self) -> NDArray[np.float64]:
        return self._frequencies

    @property
    def config(self) -> dict[str, Any]:
        return {**self._details, "name": self._name, "rate": self._rate, "hop": self.hop}


def stored_transform(transform: Stft | Mel | ReadyBins, bandwidth: float = DEFAULT_BANDWIDTH) -> StoredTransform:
    """Return the stored transform that a transform given to `norbert_store.create` stands for, up to a bandwidth.

    Parameters
    ----------
    transform : Stft, Mel or ReadyBins
        The bandwidth doesn't apply to the last, which keeps all its bins.
    bandwidth : float
        Hz.

    Raises
    ------
    ValueError
        If a parameter is out of range, or the transform is none of the three.

    Examples
    --------
    >>> len(stored_transform(Stft(), bandwidth=16000).frequencies)
    744
    """
    if isinstance(transform, Stft):
        linear = LinearBins(transform, bandwidth)
        if len(linear.frequencies) < 2:
            raise ValueError(
                f"bandwidth must be in Hz, and reach the first bin above 0, which lies at {transform.frequencies[1]:g} "
                f"Hz; found {bandwidth!r}"
            )
        return linear
    if isinstance(transform, Mel):
        mel = transform
        stft = Stft(mel.rate, mel.n_fft, mel.hop, mel.window, mel.centred, mel.padding)
        return MelBands(stft, mel.n_mels, mel.lowest, bandwidth, mel.scale)
    if isinstance(transform, ReadyBins):
        return transform
    raise ValueError(f"transform must be a TF, Mel or ReadyBins, found {transform!r}")


def transform_from_config(config: Mapping[str, Any], frequencies: ArrayLike | None = None) -> StoredTransform:
    """Build a transform from what its `StoredTransform.config` gave.

    Parameters
    ----------
    config : mapping
        With at least "name".
    frequencies : array_like, optional
        Hz of every bin; needed for magnitudes that were computed elsewhere.

    Raises
    ------
    FormatError
        If something is missing or out of range.
    """
    try:
        parameters = dict(config)
        name = parameters.pop("name")
        if name not in (LinearBins.name, MelBands.name):
            rate, hop = parameters.pop("rate"), parameters.pop("hop")
            return ReadyBins(name, rate, hop, () if frequencies is None else frequencies, parameters)
        stft = Stft(**{key: parameters[key] for key in Stft().config if key in parameters})
        if name == LinearBins.name:
            return LinearBins(stft, parameters["bandwidth"])
        bands = {key: parameters[key] for key in ("n_mels", "lowest", "bandwidth", "scale")}
        return MelBands(stft, **bands)
    except (KeyError, OverflowError, TypeError, ValueError) as error:
        raise FormatError(f"the transform {shown(config)} can't be built again: {shortened(repr(error))}") from error


def _slaney_mel(hertz: NDArray[np.float64]) -> NDArray[np.float64]:
    # 3 mels for every 200 Hz up to 1 kHz, then 27 for every factor of 6.4
    return np.where(hertz < 1000, hertz * 3 / 200, 15 + np.log(np.maximum(hertz, 1e-9) / 1000) * 27 / np.log(6.4))


def _slaney_hertz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(mel < 15, mel * 200 / 3, 1000 * np.exp((mel - 15) * np.log(6.4) / 27))


def _htk_mel(hertz: NDArray[np.float64]) -> NDArray[np.float64]:
    return 2595 * np.log10(1 + hertz / 700)


def _htk_hertz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    return 700 * (10 ** (mel / 2595) - 1)


# numbers in the matrix of mel filters; four times those of 256 bands at an n_fft of 8,192
_LARGEST_FILTERS = 1 << 22

_MEL_SCALES = {"slaney": (_slaney_mel, _slaney_hertz), "htk": (_htk_mel, _htk_hertz)}


def _triangles(edges: NDArray[np.float64], frequencies: NDArray[np.float64]) -> NDArray[np.float64]:
    """Triangles (bands, bins) of height 1 that rise from one edge to the next and fall to the one after."""
    low, centre, high = (edges[i : len(edges) - 2 + i, np.newaxis] for i in range(3))
    rising = (frequencies - low) / (centre - low)
    falling = (high - frequencies) / (high - centre)
    heights = np.minimum(rising, falling)
    # a bin that lies on an edge has no part in the band; rounding may say a hair
    return np.where(heights > 1e-9, heights, 0)
