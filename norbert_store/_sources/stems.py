"""Whatever a track's stems are given as, to blocks of samples.

Conventions
-----------
A block is a float array (samples, channels), full scale 1.0.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from numpy.typing import ArrayLike, NDArray

from norbert_store._sources import files as audio_files
from norbert_store._spectra.stft import as_audio
from norbert_store.errors import AudioError, TrackError

Stem = ArrayLike | str | os.PathLike[str] | Iterable[ArrayLike]
"""One stem: an array (samples, channels), the path of an audio file, or an iterable of blocks (samples, channels)."""

Stems = Mapping[str, Stem | None] | Iterable[tuple[str, ArrayLike]]
"""All stems of a track by target; or blocks of all of them in any order, each with its target."""


def blocks_of_stems(stems: Stems, targets: Sequence[str], rate: int) -> Iterator[tuple[str, NDArray[Any]]]:
    """Yield all blocks of all stems, each with its target.

    Parameters
    ----------
    stems : mapping or iterable
        As `Stems` says.
    targets : sequence of str
        Those that there may be.
    rate : int
        Samples per second that files must have.

    Raises
    ------
    TrackError
        If a target is none of the store's.
    AudioError, SourceError
        If audio can't be read, has another rate, or files differ in length.
    """
    if hasattr(stems, "shape") or isinstance(stems, str | os.PathLike):
        raise AudioError(f"expected stems by target, such as {{{targets[0]!r}: audio}}; found {type(stems).__name__}")
    if not isinstance(stems, Mapping):
        for target, block in stems:
            check_target(target, targets)
            yield target, as_audio(block)
        return
    present = {target: stem for target, stem in stems.items() if stem is not None}
    for target in present:
        check_target(target, targets)
    _check_files(present, rate)
    for target, stem in present.items():
        blocks = 0
        for block in _stem_blocks(stem):
            blocks += 1
            yield target, block
        if not blocks:
            raise AudioError(f"target {target!r} gave no blocks of audio; an iterator can be read only once")


def check_target(target: str, targets: Sequence[str]) -> None:
    """Raise `TrackError` unless a target is one of the store's."""
    if target not in targets:
        raise TrackError(f"the store has no target {target!r}; it has {', '.join(map(repr, targets))}")


def _check_files(stems: Mapping[str, Stem], rate: int) -> None:
    """Compare the headers of all stems that are files, before any of them is read."""
    lengths: dict[str, int] = {}
    for target, stem in stems.items():
        if not isinstance(stem, str | os.PathLike):
            continue
        info = audio_files.audio_info(stem)
        if info.rate != rate:
            raise AudioError(
                f"{os.fspath(stem)} has {info.rate} samples per second; the store has {rate}: resample it before"
            )
        lengths[target] = info.samples
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"{target} {samples}" for target, samples in lengths.items())
        raise AudioError(f"its stems differ in length (samples: {found}); cut or pad them to the same")


def _stem_blocks(stem: Stem) -> Iterator[NDArray[Any]]:
    if isinstance(stem, str | os.PathLike):
        yield from audio_files.read_blocks(stem)
    elif hasattr(stem, "shape") or isinstance(stem, list | tuple):
        samples = as_audio(stem)  # type: ignore[arg-type]
        for start in range(0, len(samples), audio_files.BLOCK_SAMPLES):
            yield samples[start : start + audio_files.BLOCK_SAMPLES]
    elif isinstance(stem, Iterable):
        for block in stem:
            yield as_audio(block)
    else:
        raise AudioError(f"expected audio as an array, a path or an iterable of blocks, found {type(stem).__name__}")
