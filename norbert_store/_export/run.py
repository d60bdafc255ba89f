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
        A row a track, with values by column; what a row leaves out, None and NaN are not known.
    out : str, path or zarr store
        Where nothing is yet; with ``resume``, a store may be there.
    targets : sequence of str, or mapping of str to str
        Targets whose columns are named like them, or the column of each target. A cell is the path of an audio file.
    root : str or path, optional
        The folder that paths start from, and that they must stay within; the working folder, if left out, and then
        they may lead anywhere.
    name : str
        Column of the tracks' names; every name stands once.
    split : str, optional
        Column of the splits. None if there is none; "split" need not be there.
    labels : sequence of str, optional
        Columns that become labels; all that aren't named above, if left out.
    rate : int, optional
        Samples per second, as all files must have them; those of the first file if left out.
    channels : int or sequence of str, optional
        Their number, or their names; those of the first file if left out.
    workers : int or concurrent.futures.Executor, optional
        Where tracks are read and encoded: a number of processes of this machine, or an executor, such as
        ``dask.distributed.Client.get_executor()``. This process does it all if left out. The result is the same, byte
        for byte.
    resume : bool
        Go on where an export was interrupted, or add what is new; starts where there is no store yet. What is there
        stays as it is: tracks whose files were edited since (other length, or time), deleted or renamed, or of which
        the table says something else now, are told in the summary.
    update : bool
        As ``resume``, and takes anew what was edited: such tracks are encoded again, and come to the end of the store;
        where only labels, split, title and the like differ, these are changed. Each is the old or the new one at any
        moment; if the new one can't be read, the old one stays. What was deleted stays, too.
    skip_broken : bool
        Whether to go on without tracks whose audio can't be read, or doesn't fit the store.
    progress : callable, optional
        Called with a `norbert_store.Progress` before each track (of an executor: after each bundle),
        and at the end.
    bundle_tracks : int, optional
        Tracks that share shards; 1 if left out, or more where there would be too many files.
    **options
        As for `norbert_store.create`: ``bandwidth``, ``quality``, ``transform`` and so on.

    Returns
    -------
    Summary
        Number of tracks, sizes, what was left out, and what is otherwise in the store; ``open()`` opens the store.

    Raises
    ------
    TableError
        If the table can't be exported, before anything is written: a column that isn't there, a row without a file or
        with one outside of ``root``, two rows of one name, labels of which one has another type than before.
    StoreExistsError
        If there is something at ``out``.
    StoreInUseError
        If somebody is writing there.
    SourceError, AudioError, MagnitudeError, TrackError
        If a track can't be exported, unless ``skip_broken``; if none can, in any case.
    StorageError
        If the store can't be written.
    WorkerError
        If workers died again and again.
    TypeError, ValueError
        If an argument is out of range, or isn't what the store was begun with.

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
    """Export all audio files below a folder into a new store: a track a file, with the one target "mixture".

    A folder directly below the root that is named "train", "valid", "validation", "test" or "eval" is a split. A
    track's name is its path below the root, without the suffix.

    Parameters
    ----------
    root : str or path
    out : str, path or zarr store
        Where nothing is yet; with ``resume``, a store may be there.
    **options
        As for `norbert_store.export`: ``workers``, ``resume``, ``skip_broken``, ``progress``, ``quality`` and so on.

    Returns
    -------
    Summary

    Raises
    ------
    SourceError
        If there is no such folder, or no audio in it.
    NorbertStoreError, TypeError, ValueError
        As `norbert_store.export`.

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
        Folder that holds ``train`` and ``test``.
    out : str, path or zarr store
        Where nothing is yet; with ``resume``, a store may be there.
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
        As `norbert_store.export`.

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
