"""Audio to spectrogram and back: the STFT, the limited band, the mel scale.

Conventions
-----------
audio
    Float array (samples, channels), or (samples,) for one channel; full scale is 1.0.
spectrogram
    Array (frames, bins, channels), complex or magnitude.
frequency
    Hz. Bin ``k`` of an STFT lies at ``k * rate / n_fft``.
scale
    That of ``scipy.signal.stft(..., scaling="spectrum")``: the spectrum is divided by the sum of the window, so a
    full-scale sine has magnitude 0.5, a constant of 1 has magnitude 1, and ``|x| <= 1`` implies ``|X| <= 1``.

`Stft` is the transform itself. What a store holds is a *view* of it: `LinearBins` keeps the bins up to a
bandwidth, `MelBands` averages them into bands, `ReadyBins` describes magnitudes that were computed elsewhere.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from norbert_store.errors import AudioError, FormatError

Audio = NDArray[np.floating[Any]]
Spectrum = NDArray[np.complexfloating[Any, Any]]
Magnitude = NDArray[np.floating[Any]]

FRAMES_PER_BLOCK = 256
DEFAULT_BANDWIDTH = 16000.0

# A store's attributes are believed only so far: a window is made before anything is read.
_LARGEST_FRAME = 1 << 22


def as_audio(audio: ArrayLike) -> Audio:
    """Take audio as a float array (samples, channels), and check it.

    Parameters
    ----------
    audio : array_like
        (samples,) or (samples, channels), floating point. Integer audio is refused, for its full scale is unknown.

    Returns
    -------
    ndarray of float32 or float64
        (samples, channels)

    Raises
    ------
    AudioError
        On another number of dimensions, another dtype, no samples or channels, NaN or infinity.
    """
    array = np.asarray(audio)
    if array.ndim == 1:
        array = array[:, np.newaxis]
    if array.ndim != 2:
        raise AudioError(f"expected audio of shape (samples,) or (samples, channels), found {array.shape}")
    if not np.issubdtype(array.dtype, np.floating):
        raise AudioError(
            f"expected floating-point audio with full scale 1.0, found dtype {array.dtype}; "
            "divide integers by their full scale (32768 for 16 bits)"
        )
    if array.shape[0] == 0 or array.shape[1] == 0:
        raise AudioError(f"expected at least one sample and one channel, found audio of shape {array.shape}")
    if array.shape[1] > array.shape[0] and array.shape[1] > 64:
        raise AudioError(f"expected (samples, channels), found {array.shape}; transpose the audio")
    if not np.isfinite(array).all():
        raise AudioError(f"{np.count_nonzero(~np.isfinite(array))} samples are NaN or infinite")
    return array if array.dtype in (np.float32, np.float64) else array.astype(np.float64)


@dataclass(frozen=True)
class Stft:
    """Short-time Fourier transform, equal to ``scipy.signal.stft(..., scaling="spectrum")``, that can also stream.

    Parameters
    ----------
    rate : int
        Samples per second.
    n_fft : int
        Samples in a frame, even, at least 2.
    hop : int, optional
        Samples from a frame to the next; half a frame if left out.
    window : str
        "hann", or any other name that `scipy.signal.get_window` knows; always the periodic form.
    centred : bool
        Whether frame ``t`` is centred on sample ``t * hop`` (the audio is extended by half a frame at both ends), or
        begins there.
    padding : str
        What the audio is extended with; "zeros".

    Raises
    ------
    ValueError
        If a parameter is out of range, or window and hop can't be inverted.

    Examples
    --------
    >>> stft = Stft(rate=8000, n_fft=256)
    >>> seconds = np.arange(8000) / 8000
    >>> spectrum = stft.transform(np.sin(2 * np.pi * 1000 * seconds))
    >>> spectrum.shape
    (64, 129, 1)
    >>> round(float(abs(spectrum[32, 32, 0])), 6)
    0.5
    >>> stft.inverse_transform(spectrum, samples=8000).shape
    (8000, 1)

    References
    ----------
    D. Griffin and J. Lim, "Signal estimation from modified short-time Fourier transform", IEEE TASSP 32(2), 1984,
    equation 6, for the inverse.
    """

    rate: int = 44100
    n_fft: int = 2048
    hop: int = None  # type: ignore[assignment]  # __post_init__ fills it in
    window: str = "hann"
    centred: bool = True
    padding: str = "zeros"

    def __post_init__(self) -> None:
        object.__setattr__(self, "rate", _count("rate", self.rate, at_least=1))
        object.__setattr__(self, "n_fft", _count("n_fft", self.n_fft, at_least=2))
        if self.n_fft > _LARGEST_FRAME:
            raise ValueError(f"n_fft must be at most {_LARGEST_FRAME}, found {self.n_fft}")
        if self.n_fft % 2:
            raise ValueError(f"n_fft must be even, found {self.n_fft}")
        hop = self.n_fft // 2 if self.hop is None else self.hop
        object.__setattr__(self, "hop", _count("hop", hop, at_least=1))
        if self.padding != "zeros":
            raise ValueError(f"padding must be 'zeros', found {self.padding!r}")
        if _shortest_overlap(self._weights, self.hop) < 1e-10:
            raise ValueError(
                f"a {self.window!r} window of {self.n_fft} samples at a hop of {self.hop} can't be inverted: some "
                f"samples get no weight; use a hop of at most {self.n_fft // 2}"
            )

    @property
    def config(self) -> dict[str, Any]:
        """All that inverting needs, as plain JSON values."""
        names = ("rate", "n_fft", "hop", "window", "centred", "padding")
        return {name: getattr(self, name) for name in names}

    @property
    def bins(self) -> int:
        """Number of bins from 0 Hz up to half the rate, ``n_fft // 2 + 1``."""
        return self.n_fft // 2 + 1

    @property
    def frequencies(self) -> NDArray[np.float64]:
        """Frequency of every bin, Hz."""
        return np.arange(self.bins, dtype=np.float64) * (self.rate / self.n_fft)

    @cached_property
    def weights(self) -> NDArray[np.float64]:
        """The window, (n_fft,)."""
        if self.window == "hann":
            # what scipy.signal.get_window("hann", n_fft) gives, without the second that importing scipy.signal takes
            return 0.5 - 0.5 * np.cos(2 * np.pi / self.n_fft * np.arange(self.n_fft, dtype=np.float64))
        from scipy.signal import get_window

        return np.asarray(get_window(self.window, self.n_fft), dtype=np.float64)

    @property
    def _weights(self) -> NDArray[np.float64]:
        weights = self.weights
        if weights.sum() <= 0:
            raise ValueError(f"window {self.window!r} of {self.n_fft} samples has no sum to scale by")
        return weights

    def stored(self, bandwidth: float = DEFAULT_BANDWIDTH) -> LinearBins:
        """Return the view of this transform that a store holds: its bins up to ``bandwidth`` Hz."""
        return LinearBins(self, bandwidth)

    def frame_count(self, samples: int) -> int:
        """Frames that ``samples`` samples of audio give; the last one may be partly past the end."""
        if self.centred:
            return -(-samples // self.hop) + 1
        return -(-max(samples - self.n_fft, 0) // self.hop) + 1

    def frame_seconds(self, frames: int) -> NDArray[np.float64]:
        """Centres of the first ``frames`` frames, in seconds."""
        centre = 0 if self.centred else self.n_fft // 2
        return (np.arange(frames) * self.hop + centre) / self.rate

    def transform(self, audio: ArrayLike) -> Spectrum:
        """Audio to complex spectrogram.

        Parameters
        ----------
        audio : array_like of float
            (samples,) or (samples, channels); from one sample up.

        Returns
        -------
        ndarray of complex64 or complex128
            (frames, bins, channels); float32 audio gives complex64.

        Raises
        ------
        AudioError
            If the audio has a wrong shape or dtype, is empty, or holds NaN or infinity.
        """
        samples = as_audio(audio)
        stream = StftStream(self, samples.shape[1], samples.dtype)
        blocks = [*stream.push(samples), *stream.finish()]
        return np.moveaxis(np.concatenate(blocks), 1, 2)

    def inverse_transform(self, spectrum: ArrayLike, samples: int | None = None) -> Audio:
        """Complex spectrogram to audio, by weighted overlap-add.

        Parameters
        ----------
        spectrum : array_like of complex
            (frames, bins, channels)
        samples : int, optional
            Length of the audio; if left out, all that the frames cover, up to a hop longer than what was transformed.

        Returns
        -------
        ndarray of float32 or float64
            (samples, channels)

        Raises
        ------
        ValueError
            If the shape doesn't fit this transform, or holds NaN or infinity.
        """
        array = np.asarray(spectrum)
        if array.ndim != 3 or array.shape[1] != self.bins or 0 in array.shape:
            raise ValueError(f"expected a spectrogram (frames, {self.bins}, channels), found {array.shape}")
        if not np.isfinite(array).all():
            raise ValueError("the spectrogram holds NaN or infinity")
        if samples is None:
            padding = 0 if self.centred else self.n_fft - self.hop
            samples = max(1, (array.shape[0] - (1 if self.centred else 0)) * self.hop + padding)
        synthesis = StftSynthesis(self, samples, array.shape[2], array.real.dtype)
        for start in range(0, array.shape[0], FRAMES_PER_BLOCK):
            synthesis.add(array[start : start + FRAMES_PER_BLOCK])
        return synthesis.finish()


class StftStream:
    """An `Stft` of audio that comes in blocks, with memory for one block of frames.

    What comes out doesn't depend on how the audio was cut, for frames are always transformed in the same groups.

    Parameters
    ----------
    stft : Stft
    channels : int
    dtype : dtype
        float32 or float64.
    frames_per_block : int
        Frames in every block that comes out but the last.
    """

    def __init__(
        self, stft: Stft, channels: int, dtype: Any = np.float32, frames_per_block: int = FRAMES_PER_BLOCK
    ) -> None:
        self.stft = stft
        self.samples = 0
        self._frames_per_block = frames_per_block
        self._frames_done = 0
        self._window = stft.weights.astype(dtype)
        self._scale = self._window.dtype.type(1 / stft.weights.sum())
        lead = stft.n_fft // 2 if stft.centred else 0
        self._waiting: list[Audio] = [np.zeros((lead, channels), dtype)]
        self._waiting_samples = lead

    def push(self, audio: Audio) -> Iterator[Spectrum]:
        """Take the next samples (samples, channels); yield blocks of frames (frames, channels, bins) as they fill."""
        audio = audio.astype(self._window.dtype, copy=False)
        self.samples += len(audio)
        need = self.stft.n_fft + (self._frames_per_block - 1) * self.stft.hop
        # cut large pieces, so that what waits is never copied more than once per block
        for start in range(0, len(audio), need):
            piece = audio[start : start + need]
            self._waiting.append(piece)
            self._waiting_samples += len(piece)
            if self._waiting_samples >= need:
                yield from self._frames(self._frames_per_block, need)

    def finish(self) -> Iterator[Spectrum]:
        """Yield the frames that are left, with zeros after the end of the audio."""
        total = self.stft.frame_count(self.samples)
        while self._frames_done < total:
            count = min(self._frames_per_block, total - self._frames_done)
            need = self.stft.n_fft + (count - 1) * self.stft.hop
            missing = need - self._waiting_samples
            if missing > 0:
                self._waiting.append(np.zeros((missing, self._waiting[0].shape[1]), self._window.dtype))
                self._waiting_samples = need
            yield from self._frames(count, need)

    def _frames(self, count: int, need: int) -> Iterator[Spectrum]:
        hop = self.stft.hop
        waiting = np.concatenate(self._waiting)
        while len(waiting) >= need:
            windows = np.lib.stride_tricks.sliding_window_view(waiting[:need], self.stft.n_fft, axis=0)[::hop]
            spectrum = np.fft.rfft(windows * self._window, axis=-1)
            spectrum *= self._scale
            self._frames_done += count
            waiting = waiting[count * hop :]
            yield spectrum
            if count < self._frames_per_block:
                break
        self._waiting, self._waiting_samples = [waiting], len(waiting)


class StftSynthesis:
    """The inverse of an `Stft`, block by block, into audio of known length.

    Parameters
    ----------
    stft : Stft
    samples : int
        Length of the audio.
    channels : int
    dtype : dtype
        float32 or float64.
    """

    def __init__(self, stft: Stft, samples: int, channels: int, dtype: Any = np.float32) -> None:
        self.stft = stft
        self._lead = stft.n_fft // 2 if stft.centred else 0
        self._samples = samples
        self._frames = 0
        self._audio = np.zeros((self._lead + samples, channels), dtype)
        self._weight = np.zeros(self._lead + samples, dtype)
        self._window = stft.weights.astype(dtype)

    def add(self, spectrum: Spectrum) -> None:
        """Add the next frames, (frames, bins, channels)."""
        stft = self.stft
        frames = np.fft.irfft(spectrum, n=stft.n_fft, axis=1)
        frames *= (self._window * stft.weights.sum())[:, np.newaxis]
        start = self._frames * stft.hop
        _overlap_add(self._audio, frames.astype(self._audio.dtype, copy=False), stft.hop, start)
        squares = np.broadcast_to(self._window**2, (len(frames), stft.n_fft))
        _overlap_add(self._weight, squares, stft.hop, start)
        self._frames += len(frames)

    def finish(self) -> Audio:
        """Return the audio, (samples, channels); samples that no frame covers are 0."""
        weight = self._weight[self._lead :, np.newaxis]
        return self._audio[self._lead :] / np.where(weight > 1e-10, weight, 1)


def _overlap_add(out: NDArray[Any], frames: NDArray[Any], hop: int, start: int) -> None:
    """Add frames (frames, n_fft, ...) into out, ``hop`` apart from ``start`` on; what lies past the end is dropped."""
    count, n_fft = frames.shape[:2]
    pieces = -(-n_fft // hop)
    total = np.zeros(((count + pieces - 1) * hop, *frames.shape[2:]), out.dtype)
    rows = total.reshape(count + pieces - 1, hop, *frames.shape[2:])
    # piece i of every frame lands i hops after the frame's start, so each piece is one addition for all frames
    for i in range(pieces):
        piece = frames[:, i * hop : (i + 1) * hop]
        rows[i : i + count, : piece.shape[1]] += piece
    room = out[start : start + len(total)]
    room += total[: len(room)]


def _shortest_overlap(weights: NDArray[np.float64], hop: int) -> float:
    """Smallest sum of squared windows that a sample gets, far from the ends."""
    squares = np.zeros(-(-len(weights) // hop) * hop)
    squares[: len(weights)] = weights**2
    return float(squares.reshape(-1, hop).sum(axis=0).min())


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
        "stft", "mel", or whatever ready magnitudes are called.
    rate : int
        Samples per second of the audio.
    hop : int
        Samples from a frame to the next.
    frequencies : ndarray of float64
        Hz, one for each stored bin.
    config : dict
        All that `transform_from_config` needs to build this again, as plain JSON values.
    """

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
        """The STFT below.

        Raises
        ------
        ValueError
            If this transform has none.
        """
        raise ValueError(f"transform {self.name!r} has no STFT here: audio can be neither analysed nor made from it")

    def frame_seconds(self, frames: int) -> NDArray[np.float64]:
        """Centres of the first ``frames`` frames, in seconds."""
        return np.arange(frames, dtype=np.float64) * (self.hop / self.rate)

    def reduce(self, magnitude: Magnitude) -> Magnitude:
        """Magnitudes of the STFT (..., bins of the STFT) to what is stored (..., stored bins)."""
        raise ValueError(f"transform {self.name!r} is not computed here")

    def extend(self, stored: Magnitude) -> Magnitude:
        """What is stored (..., stored bins) to magnitudes of the STFT (..., bins of the STFT)."""
        raise ValueError(f"transform {self.name!r} is not inverted here")


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


@dataclass(frozen=True)
class Mel:
    """What `norbert_store.create` takes to store mel bands.

    Parameters
    ----------
    n_mels : int
        Number of bands.
    rate, n_fft, hop, window, centred, padding
        Of the STFT below, as in `Stft`.
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

    def stored(self, bandwidth: float = DEFAULT_BANDWIDTH) -> MelBands:
        """Return what a store holds: the bands up to ``bandwidth`` Hz."""
        stft = Stft(self.rate, self.n_fft, self.hop, self.window, self.centred, self.padding)
        return MelBands(stft, self.n_mels, self.lowest, bandwidth, self.scale)


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
        n_mels = _count("n_mels", n_mels, at_least=1)
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

    def reduce(self, magnitude: Magnitude) -> Magnitude:
        means = self._filters / self._filters.sum(axis=1, keepdims=True)
        return magnitude @ means.T.astype(magnitude.dtype)

    def extend(self, stored: Magnitude) -> Magnitude:
        """Spread bands over bins: each bin takes the mean of the bands that cover it, weighted by their triangles.

        The fine structure within a band is lost; this is a smooth estimate, not an inverse.
        """
        cover = self._filters.sum(axis=0)
        spread = self._filters / np.where(cover > 0, cover, 1)
        return stored @ spread.astype(stored.dtype)


class ReadyBins(StoredTransform):
    """Magnitudes that were computed elsewhere, described well enough to be labelled.

    Parameters
    ----------
    name : str
        What they are, for example "cqt".
    rate, hop : int
        Samples per second, and samples from a frame to the next.
    frequencies : array_like of float
        Hz of every bin, ascending.
    details : mapping, optional
        Whatever else is needed to understand or invert them, as JSON values.
    """

    def __init__(
        self, name: str, rate: int, hop: int, frequencies: ArrayLike, details: Mapping[str, Any] | None = None
    ) -> None:
        if name in (LinearBins.name, MelBands.name):
            raise ValueError(f"the name {name!r} stands for a transform of this library; take another")
        self._name = name
        self._rate = _count("rate", rate, at_least=1)
        self._hop = _count("hop", hop, at_least=1)
        self._frequencies = np.array(frequencies, dtype=np.float64)
        self._details = dict(details or {})
        if self._frequencies.ndim != 1 or len(self._frequencies) == 0:
            raise ValueError(f"expected one frequency per bin, found an array of shape {self._frequencies.shape}")
        if not np.isfinite(self._frequencies).all() or (np.diff(self._frequencies) <= 0).any():
            raise ValueError("expected finite frequencies in ascending order")

    def stored(self, bandwidth: float = DEFAULT_BANDWIDTH) -> ReadyBins:
        """Return itself; the bandwidth is that of the frequencies."""
        return self

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


def transform_from_config(config: Mapping[str, Any], frequencies: ArrayLike | None = None) -> StoredTransform:
    """Build a transform from what its `StoredTransform.config` gave.

    Parameters
    ----------
    config : mapping
        With at least "name".
    frequencies : array_like, optional
        Hz of every bin; needed where the name stands for ready magnitudes.

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
    except (KeyError, TypeError, ValueError) as error:
        raise FormatError(f"the transform {config!r} can't be built again: {error!r}") from error


def _slaney_mel(hertz: NDArray[np.float64]) -> NDArray[np.float64]:
    # 3 mels for every 200 Hz up to 1 kHz, then 27 for every factor of 6.4
    return np.where(hertz < 1000, hertz * 3 / 200, 15 + np.log(np.maximum(hertz, 1e-9) / 1000) * 27 / np.log(6.4))


def _slaney_hertz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(mel < 15, mel * 200 / 3, 1000 * np.exp((mel - 15) * np.log(6.4) / 27))


def _htk_mel(hertz: NDArray[np.float64]) -> NDArray[np.float64]:
    return 2595 * np.log10(1 + hertz / 700)


def _htk_hertz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    return 700 * (10 ** (mel / 2595) - 1)


_MEL_SCALES = {"slaney": (_slaney_mel, _slaney_hertz), "htk": (_htk_mel, _htk_hertz)}


def _triangles(edges: NDArray[np.float64], frequencies: NDArray[np.float64]) -> NDArray[np.float64]:
    """Triangles (bands, bins) of height 1 that rise from one edge to the next and fall to the one after."""
    low, centre, high = (edges[i : len(edges) - 2 + i, np.newaxis] for i in range(3))
    rising = (frequencies - low) / (centre - low)
    falling = (high - frequencies) / (high - centre)
    heights = np.minimum(rising, falling)
    # a bin that lies on an edge has no part in the band; rounding may say a hair
    return np.where(heights > 1e-9, heights, 0)


def _count(name: str, value: Any, at_least: int) -> int:
    """Check a whole number, and take it as a plain int, which JSON knows."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < at_least:
        raise ValueError(f"{name} must be a whole number of at least {at_least}, found {value!r}")
    return int(value)
