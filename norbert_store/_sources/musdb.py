"""MUSDB18 and MUSDB18-HQ, in the folders that they come in.

Layouts
-------
MUSDB18-HQ
    ``{train,test}/<Artist - Title>/{mixture,drums,bass,other,vocals}.wav``
MUSDB18
    ``{train,test}/<Artist - Title>.stem.mp4``, five streams in one file; needs PyAV (the extra "musdb").

References
----------
Z. Rafii, A. Liutkus, F.-R. Stöter, S. I. Mimilakis, R. Bittner, "MUSDB18 - a corpus for music separation", 2017,
doi:10.5281/zenodo.1117372; MUSDB18-HQ, 2019, doi:10.5281/zenodo.3338373.
"""

from __future__ import annotations

import os
from pathlib import Path

from norbert_store._sources.source import Source, audio_path
from norbert_store._sources.track import SourceTrack
from norbert_store.errors import SourceError

TARGETS = ("mixture", "drums", "bass", "other", "vocals")
SPLITS = ("train", "test")

_STEMS_SUFFIX = ".stem.mp4"


def musdb_tracks(root: str | os.PathLike[str]) -> list[SourceTrack]:
    """Find the tracks of either layout, train before test, by name.

    Parameters
    ----------
    root : str or path
        Folder that holds ``train`` and ``test``, or one of them.

    Returns
    -------
    list of SourceTrack
        Stems whose file isn't there are left out.

    Raises
    ------
    SourceError
        If there are no tracks.
    """
    folder = audio_path(root)
    if not folder.is_dir():
        raise SourceError(f"there is no folder {folder}; expected the one that holds MUSDB18's train and test")
    tracks = [track for split in SPLITS for track in _split_tracks(folder / split, split)]
    if not tracks:
        raise SourceError(
            f"{folder} holds no tracks of MUSDB18; expected {{train,test}}/<Artist - Title>/mixture.wav and so on, "
            f"or {{train,test}}/<Artist - Title>{_STEMS_SUFFIX}"
        )
    return tracks


def _split_tracks(folder: Path, split: str) -> list[SourceTrack]:
    if not folder.is_dir():
        return []
    tracks = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):  # what other systems leave there
            continue
        if path.name.endswith(_STEMS_SUFFIX) and path.is_file():
            name = path.name.removesuffix(_STEMS_SUFFIX)
            tracks.append(SourceTrack(name, split, Source(path), _labels(name)))
        elif path.is_dir():
            files = {target: path / f"{target}.wav" for target in TARGETS if (path / f"{target}.wav").is_file()}
            if files:
                tracks.append(SourceTrack(path.name, split, Source(path, files), _labels(path.name)))
    return tracks


def _labels(name: str) -> dict[str, str]:
    artist, dash, title = name.partition(" - ")
    return {"artist": artist, "title": title} if dash else {}
