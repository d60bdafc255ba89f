"""What storing magnitudes costs: bytes, and how audio sounds that is made of them and a phase that wasn't stored.

An `Original` is prepared once and compared with what any way of storing makes of its magnitudes; `through_store` is one
such way, this library's.

Conventions
-----------
Audio is (samples, channels), full scale 1.0; magnitudes are (frames, bins, channels), on the scale of
`norbert_store.TF`.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from norbert_store._jpeg.encoder import DEFAULT_EFFORT, DEFAULT_QUALITY
from norbert_store._jpeg.layout import read_header
from norbert_store._lazy import lazy
from norbert_store._signature import spelled_out
from norbert_store._spectra.bins import DEFAULT_BANDWIDTH, LinearBins
from norbert_store._spectra.levels import Curve
from norbert_store._spectra.stft import Audio, Stft, as_audio
from norbert_store._store import open as open_store
from norbert_store._track import Track
from norbert_store._writer import create
from norbert_store.errors import AudioError
from norbert_store.quality._ear import RATE, resampled
from norbert_store.quality._peaq import Reference

Magnitude = NDArray[np.floating[Any]]

# 100 dB below the largest magnitude that audio within full scale can have: what is quieter counts as equally quiet
_FLOOR = 1e-5

_CHECKSUM_AND_INDEX_BYTES = 4 + 16  # of each chunk


@dataclass(frozen=True)
class Scores:
    """How far audio that was made of magnitudes is from the original.

    Parameters
    ----------
    odg, distortion_index : float
        See `norbert_store.quality.PeaqResult`.
    snr : float
        Energy of the original over that of the difference, dB; infinite if they are equal.
    log_spectral_error : float
        Of the magnitudes themselves, dB: root mean square over bins, mean over frames and channels; what lies more than
        100 dB below full scale counts as if it were there ([1]_, equation 3).
    zimtohrli : float or None
        Distance by zimtohrli [2]_, mean over channels, 0 for equal signals; None where it wasn't called or isn't
        installed.

    References
    ----------
    .. [1] A. H. Gray and J. D. Markel, "Distance measures for speech processing", IEEE TASSP 24(5), 1976.
    .. [2] https://github.com/google/zimtohrli
    """

    odg: float
    distortion_index: float
    snr: float
    log_spectral_error: float
    zimtohrli: float | None


class Original:
    """Audio whose magnitudes are stored in one way or another, prepared once for all comparisons.

    Parameters
    ----------
    audio : array_like of float
        (samples,) or (samples, channels), one or two channels.
    rate : int
        Samples a second.
    mixture : array_like of float, optional
        Of the same shape. If it is given, its phase is taken, and what is made of stored magnitudes is compared with
        what is made of exact ones: that tells what storing costs, and not what the wrong phase does.
    stft : Stft, optional
        ``Stft(rate)`` if left out.
    bandwidth : float
        Highest frequency that is stored, Hz.

    Attributes
    ----------
    audio : ndarray of float32
        (samples, channels)
    magnitude : ndarray of float32
        (frames, bins up to the bandwidth, channels)

    Raises
    ------
    AudioError
        If it isn't audio of one or two channels, or the mixture has another shape.

    Examples
    --------
    >>> import numpy as np
    >>> noise = 0.1 * np.random.default_rng(0).standard_normal((44100, 2))
    >>> original = Original(noise, 44100)
    >>> coarse = 0.01 * np.round(original.magnitude / 0.01)
    >>> scores = original.score(coarse)
    >>> scores.odg < original.score(original.magnitude).odg
    True
    """

    def __init__(
        self,
        audio: ArrayLike,
        rate: int,
        mixture: ArrayLike | None = None,
        stft: Stft | None = None,
        bandwidth: float = DEFAULT_BANDWIDTH,
    ) -> None:
        self.rate = rate
        self.audio = as_audio(audio).astype(np.float32, copy=False)
        self.mixture = None if mixture is None else as_audio(mixture).astype(np.float32, copy=False)
        if self.mixture is not None and self.mixture.shape != self.audio.shape:
            raise AudioError(f"the mixture has shape {self.mixture.shape}; expected the audio's, {self.audio.shape}")
        self.transform = LinearBins(stft or Stft(rate), bandwidth)
        spectrum = self.transform.stft.transform(self.audio)
        self.full_magnitude = np.abs(spectrum)
        self.magnitude = self.full_magnitude[:, : len(self.transform.frequencies)]
        heard = spectrum if self.mixture is None else self.transform.stft.transform(self.mixture)
        self._phase = np.exp(1j * np.angle(heard))

    @property
    def seconds(self) -> float:
        """Length."""
        return len(self.audio) / self.rate

    def resynthesize(self, magnitude: Magnitude) -> Audio:
        """Make audio (samples, channels) of magnitudes, all bins or those up to the bandwidth."""
        if magnitude.shape[1] != self._phase.shape[1]:
            magnitude = np.moveaxis(self.transform.extend(np.moveaxis(magnitude, 1, 2)), 2, 1)
        return self.transform.stft.inverse_transform(magnitude * self._phase, len(self.audio))

    def score(self, magnitude: Magnitude, with_zimtohrli: bool = True) -> Scores:
        """Compare what is made of stored magnitudes with the original.

        Parameters
        ----------
        magnitude : ndarray
            (frames, bins, channels), all bins or those up to the bandwidth.
        with_zimtohrli : bool
            Whether to call zimtohrli, where it is installed; it takes four fifths of the time.
        """
        test = self.resynthesize(magnitude)
        heard = resampled(test, self.rate)
        grade = self._peaq.compare(heard)
        return Scores(
            grade.odg,
            grade.distortion_index,
            signal_to_noise(self._reference, test),
            log_spectral_error(self.magnitude, magnitude[:, : self.magnitude.shape[1]]),
            zimtohrli(self._heard, heard) if with_zimtohrli and find_spec("zimtohrli") else None,
        )

    @lazy
    def _reference(self) -> Audio:
        return self.audio if self.mixture is None else self.resynthesize(self.full_magnitude)

    @lazy
    def _heard(self) -> Audio:
        return resampled(self._reference, self.rate)

    @lazy
    def _peaq(self) -> Reference:
        return Reference(self._heard, RATE)


def signal_to_noise(reference: Audio, test: Audio) -> float:
    """Energy of a reference over that of its difference from a test signal, dB; infinite if they are equal."""
    noise = float(np.sum(np.square(reference.astype(np.float64) - test)))
    signal = float(np.sum(np.square(reference.astype(np.float64))))
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal else -math.inf


def log_spectral_error(reference: Magnitude, test: Magnitude) -> float:
    """Difference of two magnitudes (frames, bins, channels), dB; see `Scores`."""
    decibel = 20 * np.log10(np.maximum(test, _FLOOR) / np.maximum(reference, _FLOOR))
    return float(np.sqrt(np.mean(np.square(decibel), axis=1)).mean())


def zimtohrli(reference: Audio, test: Audio) -> float:
    """Distance of two signals at 48 kHz, (samples, channels), by the package of that name; see `Scores`."""
    ear = import_module("zimtohrli").Pyohrli()
    channels = zip(reference.astype(np.float32).T, test.astype(np.float32).T, strict=True)
    return float(np.mean([ear.distance(np.ascontiguousarray(one), np.ascontiguousarray(two)) for one, two in channels]))


@spelled_out()
def through_store(
    original: Original,
    *,
    quality: float = DEFAULT_QUALITY,
    effort: int = DEFAULT_EFFORT,
    curve: Curve | None = None,
) -> tuple[int, Magnitude]:
    """Store an original's magnitudes and read them again.

    Parameters
    ----------
    original : Original
    quality, effort, curve
        As for `norbert_store.create`.

    Returns
    -------
    bytes : int
        Of all chunks, each with its checksum and its entry in the shard's index.
    magnitude : ndarray of float32
        (frames, bins, channels)

    Examples
    --------
    >>> import numpy as np
    >>> original = Original(0.1 * np.random.default_rng(0).standard_normal((44100, 2)), 44100)
    >>> fine, coarse = (through_store(original, quality=quality)[0] for quality in (90, 70))
    >>> fine > coarse
    True
    """
    stems = {"mixture": original.audio if original.mixture is None else original.mixture}
    if original.mixture is not None:
        stems["target"] = original.audio
    target, transform = list(stems)[-1], original.transform
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "one.zarr"
        channels = original.audio.shape[1]
        with create(
            place,
            targets=list(stems),
            channels=channels,
            transform=transform.stft,
            bandwidth=transform.bandwidth,
            quality=quality,
            effort=effort,
            curve=curve,
        ) as writer:
            writer.add("one", stems)
        track = open_store(place)["one"]
        size = sum(_chunk_bytes(track, target, channels))
        return size, track.magnitude.sel(target=target).values.transpose(1, 2, 0)


def _chunk_bytes(track: Track, target: str, channels: int) -> Iterator[int]:
    """Bytes that each chunk costs; what several have in common is stored once."""
    chunk_frames, _ = read_header(track.jpeg(target, 0, 0)).shape
    for number in range(math.ceil(track.frames / chunk_frames)):
        chunks = [track.jpeg(target, channel, number) for channel in range(channels)]
        yield sum(map(len, set(chunks))) + channels * _CHECKSUM_AND_INDEX_BYTES
