"""Any folder of audio files: a track a file, with the one target "mixture".

A folder directly below the root that is named "train", "valid", "validation", "test" or "eval" is a split. A track's
name is its path below the root, without the suffix; where files differ in nothing but that, with it. Hidden files and
folders are left out.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

from norbert_store._sources.source import MIXTURE, Source, audio_path
from norbert_store._sources.track import SourceTrack
from norbert_store.errors import SourceError

TARGETS = (MIXTURE,)
SPLITS = ("train", "valid", "validation", "test", "eval")
SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".aif", ".au", ".caf", ".w64", ".rf64")


def folder_tracks(root: str | os.PathLike[str]) -> list[SourceTrack]:
    """Find all audio files below a folder, by path.

    Raises
    ------
    SourceError
        If there is no such folder, or no audio in it.
    """
    folder = audio_path(root)
    if not folder.is_dir():
        raise SourceError(f"there is no folder {folder}")
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    files = [path for path in files if not any(part.startswith(".") for part in path.relative_to(folder).parts)]
    if not files:
        raise SourceError(f"{folder} holds no audio files; expected {', '.join(SUFFIXES)}")
    stems = Counter(path.with_suffix("") for path in files)
    return [_track(folder, path, stems[path.with_suffix("")] == 1) for path in files]


def _track(folder: Path, path: Path, alone: bool) -> SourceTrack:
    relative = path.relative_to(folder)
    split = relative.parts[0] if len(relative.parts) > 1 and relative.parts[0] in SPLITS else ""
    name = relative.with_suffix("") if alone else relative
    return SourceTrack(name.as_posix(), split, Source.of_files({MIXTURE: path}))
