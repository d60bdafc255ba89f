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
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

from norbert_store._export.run import Progress, Summary, export
from norbert_store._sources.track import SourceTrack
from norbert_store._storage.storage import Location
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
    folder = Path(root)
    if not folder.is_dir():
        raise SourceError(f"there is no folder {folder}; expected the one that holds MUSDB18's train and test")
    tracks = [track for split in SPLITS for track in _split_tracks(folder / split, split)]
    if not tracks:
        raise SourceError(
            f"{folder} holds no tracks of MUSDB18; expected {{train,test}}/<Artist - Title>/mixture.wav and so on, "
            f"or {{train,test}}/<Artist - Title>{_STEMS_SUFFIX}"
        )
    return tracks


def export_musdb(
    root: str | os.PathLike[str],
    out: Location,
    *,
    executor: Executor | None = None,
    resume: bool = False,
    skip_broken: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
    **options: Any,
) -> Summary:
    """Export MUSDB18 or MUSDB18-HQ into a store.

    Parameters
    ----------
    root : str or path
        Folder that holds ``train`` and ``test``.
    out : str, path or zarr store
        Where nothing is yet; with ``resume``, a store may be there.
    executor : concurrent.futures.Executor, optional
        Where bundles of tracks are encoded: a ``ProcessPoolExecutor``, ``dask.distributed.Client.get_executor()``.
        The result is the same, byte for byte.
    resume : bool
        Go on where an export was interrupted, or add what is new; starts where there is no store yet.
    skip_broken : bool
        Whether to go on without tracks that can't be read.
    on_progress : callable, optional
        Called with a `norbert_store._export.run.Progress` before each track (of an executor: after each bundle), and at
        the end.
    **options
        As for `norbert_store.create`: ``bandwidth``, ``quality``, ``transform`` and so on.

    Returns
    -------
    norbert_store._export.run.Summary
        Number of tracks, sizes, and what was left out.

    Raises
    ------
    StoreExistsError
        If there is something at ``out``.
    StoreInUseError
        If somebody is writing there.
    SourceError
        If there are no tracks at ``root``.
    AudioError, MagnitudeError, TrackError
        If a track can't be exported, unless ``skip_broken``.
    StorageError, WorkerError
        If the store can't be written, or workers die.

    Examples
    --------
    >>> import tempfile
    >>> from norbert_store._command.demo_music import write_musdb
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = write_musdb(f"{folder}/musdb", tracks=2, seconds=1.0)
    ...     summary = export_musdb(f"{folder}/musdb", f"{folder}/musdb.zarr")
    >>> summary.tracks, summary.skipped
    (2, [])
    """
    return export(
        musdb_tracks(root),
        out,
        TARGETS,
        executor=executor,
        resume=resume,
        skip_broken=skip_broken,
        on_progress=on_progress,
        **options,
    )


def _split_tracks(folder: Path, split: str) -> list[SourceTrack]:
    if not folder.is_dir():
        return []
    tracks = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):  # what other systems leave there
            continue
        if path.name.endswith(_STEMS_SUFFIX) and path.is_file():
            name = path.name.removesuffix(_STEMS_SUFFIX)
            tracks.append(SourceTrack(name, split, path, labels=_labels(name)))
        elif path.is_dir():
            files = {target: path / f"{target}.wav" for target in TARGETS if (path / f"{target}.wav").is_file()}
            if files:
                tracks.append(SourceTrack(path.name, split, path, files, _labels(path.name)))
    return tracks


def _labels(name: str) -> dict[str, str]:
    artist, dash, title = name.partition(" - ")
    return {"artist": artist, "title": title} if dash else {}
