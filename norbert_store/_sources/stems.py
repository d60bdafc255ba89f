"""Whatever a track's stems are given as, to blocks of samples.

Conventions
-----------
A block is a float array (samples, channels), full scale 1.0.
"""

from __future__ import annotations

import os
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from typing import Any

from numpy.typing import ArrayLike, NDArray

from norbert_store._lazy import lazy
from norbert_store._sources.files import BLOCK_SAMPLES, AudioInfo
from norbert_store._sources.source import Source, audio_path
from norbert_store._spectra.stft import as_audio
from norbert_store.errors import AudioError, TrackError

Stem = ArrayLike | str | os.PathLike[str] | Iterable[ArrayLike]
"""One stem: an array (samples, channels), the path of an audio file, or an iterable of blocks (samples, channels)."""

Stems = Mapping[str, Stem | None] | Iterable[tuple[str, ArrayLike]]
"""All stems of a track by target; or blocks of all of them in any order, each with its target."""


class TrackStems:
    """All stems of a track, to be read in blocks: once, or before that those that can be read more than once.

    Parameters
    ----------
    stems : Source, mapping or iterable
        A track's source, or as `Stems` says.
    targets : sequence of str
        Those that there may be.
    rate : int
        Samples per second that files must have.
    headers : mapping of str to AudioInfo, optional
        Headers of a source that were read before; if left out, all are read when the first block is.
    """

    def __init__(
        self, stems: Stems | Source, targets: Sequence[str], rate: int, headers: Mapping[str, AudioInfo] | None = None
    ) -> None:
        self._stems = stems
        self._targets = targets
        self._rate = rate
        self._known_headers = headers

    def blocks(self) -> Iterator[tuple[str, NDArray[Any]]]:
        """Yield all blocks of all stems, each with its target.

        Raises
        ------
        TrackError
            If a target is none of the store's.
        AudioError, SourceError
            If audio can't be read, has another rate, or files differ in length.
        """
        if isinstance(self._stems, Source):
            yield from self._stems.blocks(self._headers)
        elif hasattr(self._stems, "shape") or isinstance(self._stems, str | os.PathLike):
            found = type(self._stems).__name__
            raise AudioError(f"expected stems by target, such as {{{self._targets[0]!r}: audio}}; found {found}")
        elif isinstance(self._stems, Mapping):
            for target in self._present:
                yield from self._blocks_of(target)
        else:
            for target, block in self._stems:
                check_target(target, self._targets)
                yield target, as_audio(block)

    def blocks_to_look_through(self, known: Container[str] = ()) -> Iterator[tuple[str, NDArray[Any]]]:
        """Yield the blocks of those stems that can be read again: arrays and files, but none that iterates.

        Parameters
        ----------
        known : container of str
            Targets whose blocks aren't wanted.

        Raises
        ------
        TrackError, AudioError, SourceError
            As `blocks`.
        """
        if isinstance(self._stems, Source):
            wanted = {stem: header for stem, header in self._headers.items() if stem not in known}
            if wanted:
                yield from self._stems.blocks(wanted)
        elif isinstance(self._stems, Mapping):
            for target, stem in self._present.items():
                if target not in known and (_is_array(stem) or target in self._headers):
                    yield from self._blocks_of(target)

    def _blocks_of(self, target: str) -> Iterator[tuple[str, NDArray[Any]]]:
        """Yield the blocks of one stem of a mapping."""
        if target in self._headers:
            yield from self._source.blocks({target: self._headers[target]})
            return
        blocks = 0
        for block in _blocks(self._present[target]):
            blocks += 1
            yield target, block
        if not blocks:
            raise AudioError(f"target {target!r} gave no blocks of audio; an iterator can be read only once")

    @lazy
    def _present(self) -> dict[str, Stem]:
        """The stems of a mapping that are there."""
        assert isinstance(self._stems, Mapping)
        present = {target: stem for target, stem in self._stems.items() if stem is not None}
        for target in present:
            check_target(target, self._targets)
        return present

    @lazy
    def _source(self) -> Source:
        """What is read from files."""
        if isinstance(self._stems, Source):
            return self._stems
        files = {stem: audio_path(file) for stem, file in self._present.items() if isinstance(file, str | os.PathLike)}
        return Source(None, files)

    @lazy
    def _headers(self) -> dict[str, AudioInfo]:
        """Headers of what is read from files, once they were found to fit."""
        source = self._source
        if source is self._stems:
            headers = source.headers(self._known_headers)
        else:
            headers = source.headers_of(list(source.files)) if source.files else {}
        source.check(headers, self._targets, self._rate)
        return headers


def check_target(target: str, targets: Sequence[str]) -> None:
    """Raise `TrackError` unless a target is one of the store's."""
    if target not in targets:
        raise TrackError(f"the store has no target {target!r}; it has {', '.join(map(repr, targets))}")


def _is_array(stem: Stem) -> bool:
    return hasattr(stem, "shape") or isinstance(stem, list | tuple)


def _blocks(stem: Stem) -> Iterator[NDArray[Any]]:
    if _is_array(stem):
        samples = as_audio(stem)  # type: ignore[arg-type]
        for start in range(0, len(samples), BLOCK_SAMPLES):
            yield samples[start : start + BLOCK_SAMPLES]
    elif isinstance(stem, Iterable):
        for block in stem:
            yield as_audio(block)
    else:
        raise AudioError(f"expected audio as an array, a path or an iterable of blocks, found {type(stem).__name__}")
