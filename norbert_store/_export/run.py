"""Data sets into stores: a table, a folder of audio files, MUSDB18."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Unpack

from norbert_store._export.summary import Summary
from norbert_store._export.tracks import ExportOptions, export_tracks
from norbert_store._signature import spelled_out
from norbert_store._sources import layouts, musdb
from norbert_store._sources.source import MIXTURE
from norbert_store._sources.table import SPLIT, Table, table_tracks
from norbert_store._storage.storage import Location
from norbert_store._write.settings import new_document


@spelled_out(export_tracks, new_document)
def export(
    table: Table,
    out: Location,
    *,
    targets: Sequence[str] | Mapping[str, str] = (MIXTURE,),
    root: str | os.PathLike[str] | None = None,
    name: str = "name",
    split: str | None = SPLIT,
    labels: Sequence[str] | None = None,
    **options: Unpack[ExportOptions],
) -> Summary:
    """Export the tracks of a table into a new store.

    Parameters
    ----------
    table : iterable of mappings, or pandas.DataFrame
        One row per track, with values by column. A value that is left out, None or NaN isn't known.
    out : str, path or zarr store
        Where the store will be; nothing may be there yet, except a store with ``resume`` or ``update``.
    targets : sequence of str, or mapping of str to str
        Targets whose columns have the same names, or the column of each target. A cell is the path of an audio file.
    root : str or path, optional
        The folder that paths are relative to, and must not lead out of. If left out, they are relative to the working
        folder, and may lead anywhere.
    name : str
        Column of the tracks' names, which are unique.
    split : str, optional
        Column of the splits; None if there is none. The default column, "split", may be missing.
    labels : sequence of str, optional
        Columns that become labels; if left out, all columns but those above.
    rate : int, optional
        Samples per second that all files must have; if left out, those of the first file.
    channels : int or sequence of str, optional
        Number or names of the channels; if left out, those of the first file.
    workers : int or concurrent.futures.Executor, optional
        Where tracks are read and encoded: in a number of processes on this machine, or in an executor, such as
        ``dask.distributed.Client.get_executor()``. If left out, this process does it all. The result is the same, byte
        for byte.
    resume : bool
        Whether to continue a store at ``out``, after an interruption or to add new tracks; if there is none, a new one
        is begun. Tracks that are in the store stay as they are: the summary lists those whose files were edited (by
        length and time), deleted or renamed since, or for which the table says something else now.
    update : bool
        Like ``resume``, and brings the store up to date: edited tracks are encoded again, and come to the end of the
        store; where only labels, split, title and the like differ, these are changed. Readers see the old or the new
        one at any moment; if the new one can't be read, the old one stays. Deleted tracks stay, too.
    skip_broken : bool
        Whether to leave out tracks whose audio can't be read, or doesn't fit the store, instead of stopping.
    progress : callable, optional
        Called with a `norbert_store.Progress` before each track (with an executor: after each bundle),
        and at the end.
    bundle_tracks : int, optional
        Number of tracks that share shards; if left out, 1, or more where there would be too many files.
    **options
        As for `norbert_store.create`: ``bandwidth``, ``quality``, ``transform`` and so on.

    Returns
    -------
    Summary
        Number of tracks, sizes, what was left out, and what differs from the data set; ``open()`` opens the store.

    Raises
    ------
    TableError
        If the table can't be exported, before anything is written: a column that isn't there, a row without a file or
        with one outside of ``root``, two rows of one name, or a label whose values have different types.
    StoreExistsError
        If there is something at ``out``.
    StoreInUseError
        If somebody is writing there.
    FormatError
        If the store to be continued breaks the format, or has features that this version can't write.
    SourceError, AudioError, MagnitudeError, TrackError
        If a track can't be exported, unless ``skip_broken``; if none can, in any case.
    StorageError
        If the store can't be written.
    WorkerError
        If workers died again and again.
    TypeError, ValueError
        If an argument is out of range, or differs from what the store was begun with.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import norbert_store, numpy as np, soundfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for i in range(2):
    ...         noise = np.random.default_rng(i).uniform(-0.5, 0.5, (8000, 2))
    ...         soundfile.write(Path(folder, f"{i}.wav"), noise, 8000)
    ...     table = [
    ...         {"name": "one", "file": "0.wav", "split": "train", "genre": "Noise"},
    ...         {"name": "two", "file": "1.wav", "split": "test", "genre": "Noise"},
    ...     ]
    ...     summary = norbert_store.export(table, f"{folder}/x.zarr", targets={"mixture": "file"}, root=folder)
    ...     db = summary.open()
    ...     db.names, db["two"].split, db["two"].labels
    (['one', 'two'], 'test', {'genre': 'Noise'})
    """
    tracks = table_tracks(table, targets, root=root, name=name, split=split, labels=labels)
    return export_tracks(tracks, out, targets=tuple(targets), **options)


@spelled_out(export_tracks, new_document, without=("targets",))
def export_folder(root: str | os.PathLike[str], out: Location, **options: Unpack[ExportOptions]) -> Summary:
    """Export all audio files below a folder into a new store: one track per file, with the one target "mixture".

    A folder directly below the root that is named "train", "valid", "validation", "test" or "eval" is a split. A
    track's name is its path below the root, without the suffix.

    Parameters
    ----------
    root : str or path
        The folder.
    out : str, path or zarr store
        As for `norbert_store.export`.
    **options
        As for `norbert_store.export`: ``workers``, ``resume``, ``skip_broken``, ``progress``, ``quality`` and so on.

    Returns
    -------
    Summary
        Number of tracks, sizes, what was left out; ``open()`` opens the store.

    Raises
    ------
    SourceError
        If there is no such folder, or no audio in it.
    NorbertStoreError, TypeError, ValueError
        As for `norbert_store.export`.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import norbert_store, numpy as np, soundfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     Path(folder, "music/test").mkdir(parents=True)
    ...     noise = np.random.default_rng(0).uniform(-0.5, 0.5, (8000, 1))
    ...     soundfile.write(Path(folder, "music/test/noise.flac"), noise, 8000)
    ...     summary = norbert_store.export_folder(f"{folder}/music", f"{folder}/x.zarr", effort=0)
    ...     summary.open().names, summary.open().splits
    (['test/noise'], {'test': 1})
    """
    return export_tracks(layouts.folder_tracks(root), out, targets=layouts.TARGETS, **options)


@spelled_out(export_tracks, new_document, without=("targets",))
def export_musdb(root: str | os.PathLike[str], out: Location, **options: Unpack[ExportOptions]) -> Summary:
    """Export MUSDB18 or MUSDB18-HQ into a new store.

    Parameters
    ----------
    root : str or path
        Folder that holds ``train`` and ``test``, or one of them.
    out : str, path or zarr store
        As for `norbert_store.export`.
    **options
        As for `norbert_store.export`: ``workers``, ``resume``, ``skip_broken``, ``progress``, ``quality`` and so on.

    Returns
    -------
    Summary
        Number of tracks, sizes, what was left out; ``open()`` opens the store.

    Raises
    ------
    SourceError
        If there are no tracks at ``root``.
    NorbertStoreError, TypeError, ValueError
        As for `norbert_store.export`.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import norbert_store, numpy as np, soundfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     track = Path(folder, "musdb18hq/train/Artist - Title")
    ...     track.mkdir(parents=True)
    ...     for i, target in enumerate(("mixture", "drums", "bass", "other", "vocals")):
    ...         noise = np.random.default_rng(i).uniform(-0.5, 0.5, (8000, 2))
    ...         soundfile.write(track / f"{target}.wav", noise, 8000)
    ...     summary = norbert_store.export_musdb(f"{folder}/musdb18hq", f"{folder}/musdb.zarr")
    ...     summary.open()["Artist - Title"].labels
    {'artist': 'Artist', 'title': 'Title'}
    """
    return export_tracks(musdb.musdb_tracks(root), out, targets=musdb.TARGETS, **options)
