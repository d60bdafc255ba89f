"""The chain of Norbert (2018), step by step: audio, spectrogram, limited band, compressed scale, 8 bits, picture.

Conventions
-----------
audio
    Float array (samples, channels), or (samples,) for one channel; full scale is 1.0.
spectrogram
    Array (frames, bins, channels).

Each module has a forward and an inverse method, and keeps nothing between calls. The arrays themselves remember which
steps they went through (`Spectrogram.steps`), and `Coder` writes that into the picture's metadata, so that
`Coder.modules` can build the same chain again in another process.

References
----------
F.-R. Stöter, A. Liutkus, N. Ito, "The 2018 Signal Separation Evaluation Campaign", LVA/ICA 2018, and the package
norbert that came with it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import ArrayLike, NDArray

from norbert_store._jpeg.encoder import DEFAULT_QUALITY, check_quality
from norbert_store._picture import FORMATS, read_picture, write_picture
from norbert_store._signature import spelled_out
from norbert_store._spectra.bins import DEFAULT_BANDWIDTH, bins_within
from norbert_store._spectra.levels import (
    LEVELS,
    Curve,
    LogCurve,
    PowerCurve,
    as_floats,
    check_magnitude,
    check_reference,
    from_levels,
    to_levels,
)
from norbert_store._spectra.stft import Audio, Stft, as_audio

Step = dict[str, Any]


class Spectrogram(np.ndarray[Any, Any]):
    """An array (frames, bins, channels) that remembers the steps of the chain it went through.

    It is an ordinary array in every other way; what NumPy makes of it remembers the same steps.

    Attributes
    ----------
    steps : tuple of dict
        For each step its name and what inverting it needs.
    """

    steps: tuple[Step, ...] = ()

    def __array_finalize__(self, origin: Any) -> None:
        self.steps = getattr(origin, "steps", ())

    def __array_wrap__(self, array: Any, context: Any = None, return_scalar: bool = False) -> Any:
        # the mean of an ordinary array is a number, not an array without axes
        return array[()] if return_scalar else super().__array_wrap__(array, context, return_scalar)


def remember(array: NDArray[Any], steps: tuple[Step, ...]) -> Spectrogram:
    """View an array as a `Spectrogram` that went through some steps."""
    spectrogram = array.view(Spectrogram)
    spectrogram.steps = steps
    return spectrogram


def as_spectrogram(array: ArrayLike) -> Spectrogram:
    """Take an array (frames, bins, channels), and check it.

    Raises
    ------
    ValueError
        On another number of dimensions, an empty axis, NaN or infinity, or no numbers at all.
    """
    values = np.asanyarray(array)
    if values.ndim != 3 or 0 in values.shape:
        raise ValueError(f"expected a spectrogram (frames, bins, channels), found shape {values.shape}")
    if not np.issubdtype(values.dtype, np.number):
        raise ValueError(f"expected a spectrogram of numbers, found dtype {values.dtype}")
    if not np.isfinite(values).all():
        raise ValueError(f"{np.count_nonzero(~np.isfinite(values))} values are NaN or infinite")
    return remember(values, getattr(values, "steps", ()))


@spelled_out()
@dataclass(frozen=True)
class TF(Stft):
    """Audio <-> complex spectrogram; its arrays remember their steps.

    Parameters
    ----------
    rate : int
        Samples per second. It only matters for what is in Hz or seconds.
    n_fft : int
        Samples in a frame.
    hop : int, optional
        Samples from a frame to the next; half a frame if left out.
    window : str
        "hann", or any other name that `scipy.signal.get_window` knows.
    centred : bool
        Whether frame ``t`` is centred on sample ``t * hop``.
    padding : str
        "zeros".

    Examples
    --------
    >>> tf = TF(n_fft=512)
    >>> spectrum = tf.transform(np.zeros((1000, 2)))
    >>> spectrum.shape, tf.inverse_transform(spectrum).shape
    ((5, 257, 2), (1000, 2))
    """

    def transform(self, audio: ArrayLike) -> Spectrogram:
        """Audio (samples, channels) to complex spectrogram (frames, bins, channels).

        Raises
        ------
        AudioError
            On a wrong shape or dtype, no samples, NaN or infinity.
        """
        spectrum = super().transform(audio)
        step = {"step": "TF", **self.config, "samples": int(as_audio(audio).shape[0])}
        return remember(spectrum, (step,))

    def inverse_transform(self, spectrum: ArrayLike, samples: int | None = None) -> Audio:
        """Complex spectrogram (frames, bins, channels) to audio (samples, channels).

        Parameters
        ----------
        spectrum : array_like of complex
        samples : int, optional
            Length of the audio. If left out, the length that the spectrogram remembers, else all that its frames
            cover.

        Raises
        ------
        ValueError
            If the shape doesn't fit this transform, or holds NaN or infinity.
        """
        remembered = _find_step(getattr(spectrum, "steps", ()), "TF")
        if samples is None and remembered and self.frame_count(remembered["samples"]) == np.shape(spectrum)[0]:
            samples = remembered["samples"]
        return super().inverse_transform(np.asarray(as_spectrogram(spectrum)), samples)


@spelled_out()
@dataclass(frozen=True)
class BandwidthLimiter:
    """All bins <-> the bins up to a bandwidth.

    Parameters
    ----------
    bandwidth : float
        Highest frequency that is kept, Hz.
    rate, n_fft : int, optional
        Of the transform. If left out, those that the spectrogram remembers, else 44,100 and what its bins say.

    Examples
    --------
    >>> limiter = BandwidthLimiter(bandwidth=16000)
    >>> limited = limiter.downsample(np.ones((10, 1025, 2)))
    >>> limited.shape, limiter.upsample(limited).shape
    ((10, 744, 2), (10, 1025, 2))
    """

    bandwidth: float = DEFAULT_BANDWIDTH
    rate: int | None = None
    n_fft: int | None = None

    def __post_init__(self) -> None:
        bins_within(np.zeros(1), self.bandwidth)
        # a transform knows what its parameters may be
        Stft(Stft.rate if self.rate is None else self.rate, Stft.n_fft if self.n_fft is None else self.n_fft)

    def downsample(self, spectrogram: ArrayLike) -> Spectrogram:
        """Keep the bins (frames, bins, channels) that lie at or below the bandwidth.

        Raises
        ------
        ValueError
            If it is no spectrogram, or has another number of bins than ``n_fft`` gives.
        """
        full = as_spectrogram(spectrogram)
        transform = _find_step(full.steps, "TF") or {}
        rate = self.rate or transform.get("rate") or Stft.rate
        n_fft = self.n_fft or transform.get("n_fft") or 2 * (full.shape[1] - 1) or 2
        if full.shape[1] != n_fft // 2 + 1:
            raise ValueError(f"expected {n_fft // 2 + 1} bins for n_fft={n_fft}, found {full.shape[1]}")
        bins = bins_within(np.arange(full.shape[1]) * (rate / n_fft), self.bandwidth)
        step = {"step": "BandwidthLimiter", "bandwidth": float(self.bandwidth), "rate": int(rate), "n_fft": int(n_fft)}
        return remember(full[:, :bins], (*full.steps, step))

    def upsample(self, spectrogram: ArrayLike) -> Spectrogram:
        """Put zeros above the bandwidth, up to half the rate.

        Raises
        ------
        ValueError
            If it is no spectrogram, or has more bins than ``n_fft`` gives.
        """
        limited = as_spectrogram(spectrogram)
        step = _find_step(limited.steps, "BandwidthLimiter") or _find_step(limited.steps, "TF") or {}
        n_fft = self.n_fft or step.get("n_fft") or Stft.n_fft
        bins = n_fft // 2 + 1
        if limited.shape[1] > bins:
            raise ValueError(f"expected at most {bins} bins for n_fft={n_fft}, found {limited.shape[1]}; give n_fft")
        full = np.zeros((limited.shape[0], bins, limited.shape[2]), limited.dtype)
        full[:, : limited.shape[1]] = limited
        return remember(full, _without(limited.steps, "BandwidthLimiter"))


class _Scaler:
    """Magnitude <-> compressed, 0 to 1, by a `norbert_store.PowerCurve` or `norbert_store.LogCurve`."""

    def __init__(self, curve: Curve, reference: float) -> None:
        self.curve = curve
        self.reference = check_reference(reference)

    @property
    def _parameters(self) -> dict[str, Any]:
        return {
            "reference": self.reference,
            **{key: value for key, value in self.curve.config.items() if key != "curve"},
        }

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{key}={value!r}' for key, value in self._parameters.items())})"

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and (other.curve, other.reference) == (self.curve, self.reference)

    def __hash__(self) -> int:
        return hash((type(self), self.curve, self.reference))

    def scale(self, spectrogram: ArrayLike) -> Spectrogram:
        """Complex or magnitude spectrogram to compressed magnitudes, 0 to 1.

        Raises
        ------
        MagnitudeError
            If a magnitude is negative, or above the reference.
        ValueError
            If it is no spectrogram.
        """
        values = as_spectrogram(spectrogram)
        magnitude = as_floats(np.abs(values) if np.iscomplexobj(values) else values)
        check_magnitude(magnitude, self.reference)
        step = {"step": type(self).__name__, **self._parameters}
        relative = np.asarray(magnitude) / self.reference
        return remember(np.asarray(self.curve.compress(relative)), (*values.steps, step))

    def unscale(self, spectrogram: ArrayLike) -> Spectrogram:
        """Compressed magnitudes, 0 to 1, to magnitudes.

        Raises
        ------
        ValueError
            If it is no spectrogram, or has values outside 0 to 1.
        """
        values = _check_compressed(as_spectrogram(spectrogram))
        magnitude = self.curve.expand(np.asarray(values)) * self.reference
        return remember(magnitude, _without(values.steps, type(self).__name__))


@spelled_out()
class LogScaler(_Scaler):
    """Magnitude <-> its logarithm, 0 to 1.

    Parameters
    ----------
    range_decibel : float
        How far below the reference the floor lies, dB; what is below becomes 0.
    reference : float
        The largest magnitude, which becomes 1.

    Examples
    --------
    >>> LogScaler().scale(np.full((1, 1, 1), 0.01)).item()
    0.5
    """

    def __init__(self, range_decibel: float = 80.0, reference: float = 1.0) -> None:
        super().__init__(LogCurve(range_decibel), reference)


@spelled_out()
class PowerScaler(_Scaler):
    """Magnitude <-> a power of it, 0 to 1.

    Parameters
    ----------
    exponent : float
        Above 0, at most 1.
    reference : float
        The largest magnitude, which becomes 1.

    Examples
    --------
    >>> PowerScaler(exponent=0.5).scale(np.full((1, 1, 1), 0.25)).item()
    0.5
    """

    def __init__(self, exponent: float = PowerCurve.exponent, reference: float = 1.0) -> None:
        super().__init__(PowerCurve(exponent), reference)


@dataclass(frozen=True)
class Quantizer:
    """Compressed values, 0 to 1 <-> 256 levels.

    Examples
    --------
    >>> levels = Quantizer().quantize(np.full((1, 1, 1), 0.5))
    >>> levels.item(), Quantizer().dequantize(levels).item()
    (128, 0.5019607843137255)
    """

    def quantize(self, spectrogram: ArrayLike) -> Spectrogram:
        """Compressed values (frames, bins, channels) to levels, uint8.

        Raises
        ------
        ValueError
            If it is no spectrogram, or has values outside 0 to 1.
        """
        values = _check_compressed(as_spectrogram(spectrogram))
        return remember(to_levels(np.asarray(values)), (*values.steps, {"step": "Quantizer"}))

    def dequantize(self, spectrogram: ArrayLike) -> Spectrogram:
        """Levels (frames, bins, channels) to compressed values, float64.

        Raises
        ------
        ValueError
            If it is no spectrogram of uint8.
        """
        levels = _check_levels(as_spectrogram(spectrogram))
        return remember(from_levels(np.asarray(levels)), _without(levels.steps, "Quantizer"))


Module = TF | BandwidthLimiter | LogScaler | PowerScaler | Quantizer

_MODULES: dict[str, type[Module]] = {
    module.__name__: module for module in (TF, BandwidthLimiter, LogScaler, PowerScaler, Quantizer)
}


@spelled_out()
@dataclass(frozen=True)
class Coder:
    """Levels <-> a grey picture that a person can look at: low frequencies at the bottom, time to the right, channels
    one above the other, the first on top.

    Parameters
    ----------
    format : str
        "jpg", "png" or "tif".
    quality : float
        From 0 to 100, of "jpg"; the others lose nothing.

    Raises
    ------
    ValueError
        If the format is unknown, or the quality out of range.
    """

    format: str = "jpg"
    quality: float = DEFAULT_QUALITY

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise ValueError(f"format must be one of {', '.join(map(repr, FORMATS))}; found {self.format!r}")
        check_quality(self.quality)

    def encode(self, spectrogram: ArrayLike, file: str | os.PathLike[str] | BinaryIO) -> None:
        """Write levels (frames, bins, channels) as a picture.

        Parameters
        ----------
        spectrogram : array_like of uint8
        file : str, path or binary file

        Raises
        ------
        ValueError
            If it is no spectrogram of uint8, or too large for the format.
        OSError
            If the file can't be written.
        """
        levels = _check_levels(as_spectrogram(spectrogram))
        frames, bins, channels = levels.shape
        picture = np.asarray(levels).transpose(2, 1, 0)[:, ::-1].reshape(channels * bins, frames)
        note = {"channels": channels, "steps": list(levels.steps)}
        data = write_picture(picture, self.format, self.quality, note)
        if isinstance(file, str | os.PathLike):
            Path(file).write_bytes(data)
        else:
            file.write(data)

    def decode(self, file: str | os.PathLike[str] | BinaryIO) -> tuple[Spectrogram, dict[str, Any]]:
        """Read a picture, of any of the formats.

        Parameters
        ----------
        file : str, path or binary file

        Returns
        -------
        levels : Spectrogram of uint8
            (frames, bins, channels)
        metadata : dict
            ``"channels"``, and ``"steps"`` for `modules`; one channel and no steps for a picture from elsewhere.

        Raises
        ------
        ValueError
            If it is none of the formats, damaged, or no grey picture of 8 bits.
        OSError
            If the file can't be read.
        """
        data = Path(file).read_bytes() if isinstance(file, str | os.PathLike) else file.read()
        picture, metadata = read_picture(data)
        channels = metadata.setdefault("channels", 1)
        steps = metadata.setdefault("steps", [])
        if not isinstance(channels, int) or channels < 1 or picture.shape[0] % channels:
            raise ValueError(f"the picture's metadata claims {channels!r} channels in {picture.shape[0]} rows")
        if not isinstance(steps, list) or not all(isinstance(step, dict) for step in steps):
            raise ValueError(f"expected a list of objects as the steps in the picture's metadata, found {steps!r}")
        stacked = picture.reshape(channels, -1, picture.shape[1])[:, ::-1]
        levels = np.ascontiguousarray(stacked.transpose(2, 1, 0))
        return remember(levels, tuple(dict(step) for step in steps)), metadata

    @staticmethod
    def modules(metadata: Mapping[str, Any]) -> list[Module]:
        """Build the modules again that a picture's levels came through, in forward order.

        Parameters
        ----------
        metadata : mapping
            The second value of `decode`.

        Returns
        -------
        list of TF, BandwidthLimiter, LogScaler, PowerScaler and Quantizer

        Raises
        ------
        ValueError
            If it names a step that is unknown, or with parameters that don't fit.

        Examples
        --------
        >>> Coder.modules({"steps": [{"step": "LogScaler", "range_decibel": 60.0}, {"step": "Quantizer"}]})
        [LogScaler(reference=1.0, range_decibel=60.0), Quantizer()]
        """
        steps = metadata.get("steps", [])
        if not isinstance(steps, list | tuple):
            raise ValueError(f"expected a list of objects as the steps, found {steps!r}")
        return [_module(step) for step in steps]


def _module(step: Step) -> Module:
    try:
        # how long one piece of audio was is no parameter of a transform
        parameters = {key: value for key, value in step.items() if key not in ("step", "samples")}
        return _MODULES[step["step"]](**parameters)
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"the step {step!r} can't be built again: {error!r}") from None


def _check_compressed(values: Spectrogram) -> Spectrogram:
    as_floats(values)
    if values.min() < 0 or values.max() > 1 + 1e-6:
        raise ValueError(f"expected values from 0 to 1, found {values.min():g} to {values.max():g}; scale them first")
    return values


def _check_levels(levels: Spectrogram) -> Spectrogram:
    if levels.dtype != np.uint8:
        raise ValueError(f"expected {LEVELS} levels as uint8, found dtype {levels.dtype}; quantize them first")
    return levels


def _find_step(steps: tuple[Step, ...], name: str) -> Step | None:
    return next((step for step in reversed(steps) if step.get("step") == name), None)


def _without(steps: tuple[Step, ...], name: str) -> tuple[Step, ...]:
    """Drop the last step, if it is the one that is undone."""
    return steps[:-1] if steps and steps[-1].get("step") == name else steps
