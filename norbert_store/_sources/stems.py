"""Whatever a track's stems are given as, to blocks of samples.

Conventions
-----------
A block is a float array (samples, channels), full scale 1.0.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import ArrayLike, NDArray

from norbert_store._sources.files import BLOCK_SAMPLES, AudioInfo
from norbert_store._sources.source import Source
from norbert_store._spectra.stft import as_audio
from norbert_store.errors import AudioError, TrackError

Stem = ArrayLike | str | os.PathLike[str] | Iterable[ArrayLike]
"""One stem: an array (samples, channels), the path of an audio file, or an iterable of blocks (samples, channels)."""

Stems = Mapping[str, Stem | None] | Iterable[tuple[str, ArrayLike]]
"""All stems of a track by target; or blocks of all of them in any order, each with its target."""


def blocks_of_stems(
    stems: Stems | Source, targets: Sequence[str], rate: int, headers: Mapping[str, AudioInfo] | None = None
) -> Iterator[tuple[str, NDArray[Any]]]:
    """Yield all blocks of all stems, each with its target.

    Parameters
    ----------
    stems : Source, mapping or iterable
        A track's source, or as `Stems` says.
    targets : sequence of str
        Those that there may be.
    rate : int
        Samples per second that files must have.
    headers : mapping of str to AudioInfo, optional
        Headers of a source that were read before; if left out, all are read here.

    Raises
    ------
    TrackError
        If a target is none of the store's.
    AudioError, SourceError
        If audio can't be read, has another rate, or files differ in length.
    """
    if isinstance(stems, Source):
        headers = stems.headers(headers)
        stems.check(headers, targets, rate)
        yield from stems.blocks(headers)
    elif hasattr(stems, "shape") or isinstance(stems, str | os.PathLike):
        raise AudioError(f"expected stems by target, such as {{{targets[0]!r}: audio}}; found {type(stems).__name__}")
    elif not isinstance(stems, Mapping):
        for target, block in stems:
            check_target(target, targets)
            yield target, as_audio(block)
    else:
        present = {target: stem for target, stem in stems.items() if stem is not None}
        for target in present:
            check_target(target, targets)
        yield from _blocks_of_mapping(present, targets, rate)


def _blocks_of_mapping(
    stems: Mapping[str, Stem], targets: Sequence[str], rate: int
) -> Iterator[tuple[str, NDArray[Any]]]:
    files = {target: Path(stem) for target, stem in stems.items() if isinstance(stem, str | os.PathLike)}
    source = Source(None, files)
    headers = source.headers_of(list(files)) if files else {}
    source.check(headers, targets, rate)
    for target, stem in stems.items():
        if target in headers:
            yield from source.blocks({target: headers[target]})
            continue
        blocks = 0
        for block in _blocks(stem):
            blocks += 1
            yield target, block
        if not blocks:
            raise AudioError(f"target {target!r} gave no blocks of audio; an iterator can be read only once")


def check_target(target: str, targets: Sequence[str]) -> None:
    """Raise `TrackError` unless a target is one of the store's."""
    if target not in targets:
        raise TrackError(f"the store has no target {target!r}; it has {', '.join(map(repr, targets))}")


def _blocks(stem: Stem) -> Iterator[NDArray[Any]]:
    if hasattr(stem, "shape") or isinstance(stem, list | tuple):
        samples = as_audio(stem)  # type: ignore[arg-type]
        for start in range(0, len(samples), BLOCK_SAMPLES):
            yield samples[start : start + BLOCK_SAMPLES]
    elif isinstance(stem, Iterable):
        for block in stem:
            yield as_audio(block)
    else:
        raise AudioError(f"expected audio as an array, a path or an iterable of blocks, found {type(stem).__name__}")
