"""Audio again: from the stored magnitudes of targets, and the audio of their mixture.

Conventions
-----------
Audio comes out in blocks (samples, channels), float32, as long together as the track; memory stays at a block, however
long the track is. Inside, spectrograms are (frames, bins, channels), and have a last axis for several sources.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from norbert_store._read.track import StoredTrack, source_folders
from norbert_store._sources.files import AudioInfo
from norbert_store._sources.source import MIXTURE, Source, read_stem
from norbert_store._spectra.levels import heard_scale
from norbert_store._spectra.stft import FRAMES_PER_BLOCK, Audio, Spectrum, StftStream, StftSynthesis, as_audio
from norbert_store._text import shown
from norbert_store.errors import AudioError, DamagedError, SourceError, TrackError
from norbert_store.filters._masks import apply_mask, ideal_binary_mask, ideal_ratio_mask, soft_mask
from norbert_store.filters._wiener import wiener

Mixture = ArrayLike | str | os.PathLike[str] | None
"""An array (samples, channels), an audio file, or None for what the track's source points to."""

METHODS = ("wiener", "softmask", "irm", "ibm")
_METHODS_OF = {"iterations": ("wiener",), "exponent": ("softmask", "irm"), "threshold": ("ibm",)}

# How many of the highest stored bins tell the shares of what lies above the bandwidth.
_HIGHEST_BINS = 16

# Without centring, the first samples lie under the window's foot, where what storage lost would be blown up.
_LEAST_WEIGHT = 0.1


def resynthesize(track: StoredTrack, target: str, mixture: Mixture) -> Iterator[Audio]:
    """Give a target's magnitudes the phase of the mixture; see `Track.to_audio`."""
    stft, channels = track.transform.stft, len(track.channels)
    synthesis = StftSynthesis(stft, track.samples, channels, least_weight=_LEAST_WEIGHT)
    for start, spectrum in _spectra(track, mixture, FRAMES_PER_BLOCK):
        magnitude = _magnitudes(track, [target], start, len(spectrum))[..., 0]
        yield synthesis.push(magnitude * np.exp(1j * np.angle(spectrum)))
    yield synthesis.finish()


def separate(
    track: StoredTrack,
    mixture: Mixture,
    method: str = "wiener",
    targets: Sequence[str] | None = None,
    iterations: int = 1,
    exponent: float | None = None,
    threshold: float = 0.0,
    block_seconds: float = 30.0,
) -> Iterator[dict[str, Audio]]:
    """Separate the mixture into targets by their stored magnitudes; see `Track.separate`."""
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(map(repr, METHODS))}; found {method!r}")
    _check_parameters(method, iterations=iterations != 1, exponent=exponent is not None, threshold=threshold != 0)
    sources = _sources(track, targets)
    stft, channels = track.transform.stft, len(track.channels)
    if not block_seconds > 0:
        raise ValueError(f"block_seconds must be above 0, found {block_seconds!r}")
    frames = max(1, round(min(block_seconds, track.duration) * stft.rate / stft.hop))
    syntheses = {source: StftSynthesis(stft, track.samples, channels, least_weight=_LEAST_WEIGHT) for source in sources}
    volume = _volume(track, sources)
    for start, spectrum in _spectra(track, mixture, frames):
        magnitudes = _with_shares_above(track, _magnitudes(track, sources, start, len(spectrum)))
        magnitudes *= volume
        estimates = _estimate(
            method, magnitudes, spectrum * volume, stft.weights.sum(), iterations, exponent, threshold
        )
        estimates /= volume
        yield {source: syntheses[source].push(estimates[..., i]) for i, source in enumerate(sources)}
    yield {source: synthesis.finish() for source, synthesis in syntheses.items()}


def _estimate(
    method: str,
    magnitudes: NDArray[np.float32],
    spectrum: Spectrum,
    window_sum: float,
    iterations: int,
    exponent: float | None,
    threshold: float,
) -> Spectrum:
    if method == "softmask":
        return soft_mask(magnitudes, spectrum, 1 if exponent is None else exponent)
    if method == "irm":
        return apply_mask(ideal_ratio_mask(magnitudes, 2 if exponent is None else exponent), spectrum)
    if method == "ibm":
        return apply_mask(ideal_binary_mask(magnitudes, threshold), spectrum)
    # the filter's regularization is made for the usual scale of an STFT, without the division by the window's sum
    return wiener(magnitudes * window_sum, spectrum * window_sum, iterations) / window_sum


def _volume(track: StoredTrack, sources: Sequence[str]) -> np.float32:
    """What sound is multiplied with, so that squares of it, and what filters add to them, are of a usual size."""
    loudest = max(track.scales[source] for source in sources)
    return np.float32(2.0 ** (heard_scale(loudest) - loudest))


def _check_parameters(method: str, **given: bool) -> None:
    """Refuse what would be without effect."""
    for name, is_given in given.items():
        if is_given and method not in _METHODS_OF[name]:
            methods = " or ".join(map(repr, _METHODS_OF[name]))
            raise ValueError(f"{name} must be left out for the method {method!r}: it is for {methods}")


def _sources(track: StoredTrack, targets: Sequence[str] | None) -> list[str]:
    there = [target for target, present in track.present.items() if present]
    if targets is None:
        targets = [target for target in there if target != MIXTURE]
    if isinstance(targets, str):
        raise ValueError(f"targets must be a sequence of names, found the one name {targets!r}")
    sources = list(targets)
    unknown = [source for source in sources if source not in there]
    if unknown or not sources:
        raise TrackError(
            f"track {track.name!r} has {', '.join(map(repr, there))}; found "
            f"{', '.join(map(repr, unknown)) if unknown else 'no target'} to separate"
        )
    return sources


def _magnitudes(track: StoredTrack, targets: Sequence[str], start: int, frames: int) -> NDArray[np.float32]:
    """Magnitudes of the STFT (frames, bins, channels, targets), 0 above the bandwidth."""
    stored = track.magnitude.sel(target=list(targets))[:, :, start : start + frames].values
    extended: NDArray[np.float32] = track.transform.extend(stored).transpose(2, 3, 1, 0)
    return extended


def _with_shares_above(track: StoredTrack, magnitudes: NDArray[np.float32]) -> NDArray[np.float32]:
    """Give each source the share of what lies above the bandwidth that it has just below."""
    covered = track.transform.covered_bins
    highest = magnitudes[:, max(0, covered - _HIGHEST_BINS) : covered]
    magnitudes[:, covered:] = highest.mean(axis=1, keepdims=True)
    return magnitudes


def _spectra(track: StoredTrack, mixture: Mixture, frames: int) -> Iterator[tuple[int, Spectrum]]:
    """Blocks of the mixture's frames (frames, bins, channels), each with the position of its first."""
    stream = StftStream(track.transform.stft, len(track.channels), np.float32, frames)
    start = 0
    for block in _mixture_blocks(track, mixture):
        for spectrum in stream.push(block):
            yield start, np.moveaxis(spectrum, 1, 2)
            start += len(spectrum)
    for spectrum in stream.finish():
        yield start, np.moveaxis(spectrum, 1, 2)
        start += len(spectrum)


def _mixture_blocks(track: StoredTrack, mixture: Mixture) -> Iterator[NDArray[Any]]:
    """Blocks of the mixture's audio, after a look at its rate, length and channels."""
    if mixture is None or isinstance(mixture, str | os.PathLike):
        info, blocks = _read_source(track) if mixture is None else read_stem(mixture, MIXTURE)
    else:
        samples = as_audio(mixture)
        info, blocks = AudioInfo(track.rate, samples.shape[1], samples.shape[0]), iter([samples])
    what = f"the source of track {shown(track.name)}" if mixture is None else "the mixture"
    if track.transform.stft.frame_count(track.samples) != track.frames:
        raise DamagedError(
            f"it has {track.frames} frames, which its {track.samples} samples don't give", track=shown(track.name)
        )
    if info.rate != track.rate:
        raise AudioError(f"{what} has {info.rate} samples per second; track {track.name!r} has {track.rate}")
    if (info.samples, info.channels) != (track.samples, len(track.channels)):
        raise AudioError(
            f"{what} is {info.samples} samples x {info.channels} channels; "
            f"track {track.name!r} is {track.samples} x {len(track.channels)}"
        )
    return blocks


def _read_source(track: StoredTrack) -> tuple[AudioInfo, Iterator[NDArray[np.float32]]]:
    try:
        folder, audio_root = source_folders(track)
        return Source.find(track.source, folder, [MIXTURE], below=audio_root).read(MIXTURE)
    except SourceError as error:
        raise SourceError(f"the source of track {shown(track.name)} can't be read: {error}; give mixture=") from None
