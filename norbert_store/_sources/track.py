"""A track of a data set, as it lies on disk."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from norbert_store._format.table import Label
from norbert_store._sources.files import AudioInfo, audio_info, read_stems, stems_info
from norbert_store._sources.stems import Stems
from norbert_store.errors import AudioError


@dataclass(frozen=True)
class SourceTrack:
    """A track that can be exported.

    Attributes
    ----------
    name, split : str
    path : Path
        What its source is: a folder, a file with a stream per stem, or a plain file.
    files : mapping of str to Path
        A file per stem; empty where one file holds them all.
    labels : mapping
        Columns of the track table.
    """

    name: str
    split: str
    path: Path
    files: Mapping[str, Path] = field(default_factory=dict)
    labels: Mapping[str, Label] = field(default_factory=dict)

    def info(self) -> AudioInfo:
        """Read the headers: rate, channels and length of the first stem.

        Raises
        ------
        SourceError, AudioError
            If there is no audio, or it can't be read.
        """
        if self.files:
            return audio_info(next(iter(self.files.values())))
        return next(iter(stems_info(self.path).values()))

    def stems(self, rate: int, targets: Sequence[str]) -> Stems:
        """Return what `Writer.add` takes.

        Raises
        ------
        AudioError
            If a file that holds all stems has another rate, or a stem that is no target.
        """
        if self.files:
            return dict(self.files)
        for stem, info in stems_info(self.path).items():
            if info.rate != rate:
                raise AudioError(f"{self.path} has {info.rate} samples per second; the store has {rate}")
            if stem not in targets:
                raise AudioError(f"{self.path} has a stem {stem!r}; expected {', '.join(map(repr, targets))}")
        return read_stems(self.path)

    def audio_bytes(self) -> int:
        """Size of the audio files."""
        paths = list(self.files.values()) or [self.path]
        return sum(os.path.getsize(path) for path in paths if path.is_file())
