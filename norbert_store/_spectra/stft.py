"""Audio to complex spectrogram and back: the short-time Fourier transform, whole or in blocks.

Conventions
-----------
audio
    Float array (samples, channels), or (samples,) for one channel; full scale is 1.0.
spectrogram
    Complex array (frames, bins, channels).
frequency
    Hz. Bin ``k`` lies at ``k * rate / n_fft``.
scale
    That of ``scipy.signal.stft(..., scaling="spectrum")``: the spectrum is divided by the sum of the window, so a
    full-scale sine has magnitude 0.5, a constant of 1 has magnitude 1, and ``|x| <= 1`` implies ``|X| <= 1``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from norbert_store._lazy import lazy
from norbert_store.errors import AudioError

Audio = NDArray[np.floating[Any]]
Spectrum = NDArray[np.complexfloating[Any, Any]]

FRAMES_PER_BLOCK = 256

# A store's attributes are believed only so far: a window is made before anything is read. A JPEG has no more bins.
_LARGEST_FRAME = 1 << 17


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
        On another number of dimensions, another dtype, no samples or channels, NaN, infinity or masked samples.
    """
    if np.ma.is_masked(audio):
        raise AudioError("expected audio without a mask, found a masked array; fill it first: filled(0)")
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
        if not isinstance(self.window, str):
            raise ValueError(f"window must be a name, such as 'hann', found {self.window!r}")
        object.__setattr__(self, "rate", whole_number("rate", self.rate, at_least=1))
        object.__setattr__(self, "n_fft", whole_number("n_fft", self.n_fft, at_least=2))
        if self.n_fft > _LARGEST_FRAME:
            raise ValueError(f"n_fft must be at most {_LARGEST_FRAME}, found {self.n_fft}")
        if self.n_fft % 2:
            raise ValueError(f"n_fft must be even, found {self.n_fft}")
        hop = self.n_fft // 2 if self.hop is None else self.hop
        object.__setattr__(self, "hop", whole_number("hop", hop, at_least=1))
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

    @lazy
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
        starts = range(0, array.shape[0], FRAMES_PER_BLOCK)
        blocks = [synthesis.push(array[start : start + FRAMES_PER_BLOCK]) for start in starts]
        return np.concatenate([*blocks, synthesis.finish()])


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
        # (channels, samples), each channel's samples side by side: strided ones take five times as long to transform
        self._waiting: list[Audio] = [np.zeros((channels, lead), dtype)]
        self._waiting_samples = lead

    def push(self, audio: Audio) -> Iterator[Spectrum]:
        """Take the next samples (samples, channels); yield blocks of frames (frames, channels, bins) as they fill."""
        self.samples += len(audio)
        need = self.stft.n_fft + (self._frames_per_block - 1) * self.stft.hop
        # cut large pieces, so that what waits is never copied more than once per block
        for start in range(0, len(audio), need):
            piece = np.ascontiguousarray(audio[start : start + need].T, dtype=self._window.dtype)
            self._waiting.append(piece)
            self._waiting_samples += piece.shape[1]
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
                self._waiting.append(np.zeros((self._waiting[0].shape[0], missing), self._window.dtype))
                self._waiting_samples = need
            yield from self._frames(count, need)

    def _frames(self, count: int, need: int) -> Iterator[Spectrum]:
        from scipy.fft import rfft  # here, for importing it takes a while; of float32 four times as fast as numpy.fft

        hop = self.stft.hop
        waiting = np.concatenate(self._waiting, axis=1)
        while waiting.shape[1] >= need:
            windows = np.lib.stride_tricks.sliding_window_view(waiting[:, :need], self.stft.n_fft, axis=1)[:, ::hop]
            spectrum = rfft(windows * self._window)
            spectrum *= self._scale
            self._frames_done += count
            waiting = waiting[:, count * hop :]
            yield spectrum.swapaxes(0, 1)
            if count < self._frames_per_block:
                break
        self._waiting, self._waiting_samples = [waiting], waiting.shape[1]


class StftSynthesis:
    """The inverse of an `Stft`, block by block: samples come out as soon as no later frame can change them.

    Parameters
    ----------
    stft : Stft
    samples : int
        Length of the audio.
    channels : int
    dtype : dtype
        float32 or float64.
    least_weight : float
        Samples that windows give less weight than this share of what they give far from the ends come out too quiet,
        instead of divided by next to nothing. 0 inverts exactly; raise it where frames were changed.
    """

    def __init__(
        self, stft: Stft, samples: int, channels: int, dtype: Any = np.float32, least_weight: float = 0.0
    ) -> None:
        self._least = least_weight * _shortest_overlap(stft.weights, stft.hop)
        self.stft = stft
        self._window = stft.weights.astype(dtype)
        self._skip = stft.n_fft // 2 if stft.centred else 0
        self._left = samples
        self._audio = np.zeros((channels, 0), dtype)  # what later frames still add to
        self._weight = np.zeros(0, dtype)

    def push(self, spectrum: Spectrum) -> Audio:
        """Take the next frames (frames, bins, channels); return the samples (samples, channels) that are done."""
        stft = self.stft
        # (channels, frames, samples): strided samples would take several times as long
        frames = np.fft.irfft(np.ascontiguousarray(np.moveaxis(spectrum, 2, 0)), n=stft.n_fft)
        frames *= self._window * stft.weights.sum()
        audio = _overlap_add(frames.astype(self._window.dtype, copy=False), stft.hop)
        weight = _overlap_add(np.broadcast_to(self._window**2, frames.shape[1:]), stft.hop)
        audio[:, : self._audio.shape[1]] += self._audio
        weight[: len(self._weight)] += self._weight
        done = len(spectrum) * stft.hop
        self._audio, self._weight = audio[:, done:], weight[done:]
        return self._release(audio[:, :done], weight[:done])

    def finish(self) -> Audio:
        """Return the samples that are left; those that no frame covers are 0."""
        rest = self._release(self._audio, self._weight)
        return np.concatenate([rest, np.zeros((self._left, rest.shape[1]), rest.dtype)])

    def _release(self, audio: Audio, weight: NDArray[np.floating[Any]]) -> Audio:
        samples = slice(min(self._skip, len(weight)), min(self._skip + self._left, len(weight)))
        self._skip -= samples.start
        self._left -= samples.stop - samples.start
        divisor = np.maximum(weight[samples], self._least)
        return np.ascontiguousarray((audio[:, samples] / np.where(divisor > 1e-10, divisor, 1)).T)


def _overlap_add(frames: NDArray[Any], hop: int) -> NDArray[Any]:
    """Add up frames (..., frames, n_fft) that begin ``hop`` samples apart."""
    *channels, count, n_fft = frames.shape
    pieces = -(-n_fft // hop)
    rows = np.zeros((*channels, count + pieces - 1, hop), frames.dtype)
    # piece i of every frame lands i hops after the frame's start, so each piece is one addition for all frames
    for i in range(pieces):
        piece = frames[..., i * hop : (i + 1) * hop]
        rows[..., i : i + count, : piece.shape[-1]] += piece
    return rows.reshape(*channels, -1)


def _shortest_overlap(weights: NDArray[np.float64], hop: int) -> float:
    """Smallest sum of squared windows that a sample gets, far from the ends."""
    if hop > len(weights):
        return 0.0
    squares = np.zeros(-(-len(weights) // hop) * hop)
    squares[: len(weights)] = weights**2
    return float(squares.reshape(-1, hop).sum(axis=0).min())


def whole_number(name: str, value: Any, at_least: int) -> int:
    """Check a whole number, and take it as a plain int, which JSON knows."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < at_least:
        raise ValueError(f"{name} must be a whole number of at least {at_least}, found {value!r}")
    if value >= 2**63:
        raise ValueError(f"{name} must be a whole number of 64 bits, found {value!r}")
    return int(value)
