"""A table of tracks: a row a track, with the paths of its files, its name, and labels in all other columns.

The whole table is checked before anything of it is read or written; rows count from 1.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeGuard

from norbert_store._format.table import Column, check_name, check_text, new_labels
from norbert_store._sources.source import Source, audio_path
from norbert_store._sources.track import SourceTrack
from norbert_store.errors import SourceError, TableError, TrackError


class Frame(Protocol):
    """What a table of pandas is taken by, which need not be imported."""

    columns: Any

    def items(self) -> Iterable[tuple[Any, Any]]:
        """Give names and values of columns."""


Table = Iterable[Mapping[str, Any]] | Frame
"""Rows, each with values by column; or a DataFrame."""

SPLIT = "split"


def table_tracks(
    table: Table,
    targets: Sequence[str] | Mapping[str, str],
    *,
    root: str | os.PathLike[str] | None = None,
    name: str = "name",
    split: str | None = SPLIT,
    labels: Sequence[str] | None = None,
) -> list[SourceTrack]:
    """Read tracks from a table; parameters as for `norbert_store._export.run.export`.

    Raises
    ------
    TableError
        If the table is empty or has no such column; if a row has no file or one outside of ``root``, the name of
        another row, or a name, split or labels that can't be stored.
    SourceError
        If there is no such root.
    TypeError
        If ``targets`` or ``labels`` is one name, or the table has no rows that are mappings.
    """
    files = _columns_of_targets(targets)
    if isinstance(labels, str):
        raise TypeError(f"labels must be a sequence of columns, found the one name {labels!r}")
    root = None if root is None else audio_path(root)
    if root is not None and not root.is_dir():
        raise SourceError(f"there is no folder {os.fspath(root)}, which paths of the table start from")
    rows = _rows(table)
    columns = list(dict.fromkeys(column for row in rows for column in row))
    if split == SPLIT and SPLIT not in columns:
        split = None
    named = [name, *files.values(), *([] if split is None else [split])]
    for column in (*named, *(labels or ())):
        if column not in columns:
            raise TableError(f"the table has no column {column!r}; it has {', '.join(map(repr, columns))}")
    if labels is None:
        labels = [column for column in columns if column not in named]
    return _checked(partial(_track, files=files, root=root, name=name, split=split, labels=labels), rows)


def _checked(
    track_of: Callable[[Mapping[str, Any]], SourceTrack], rows: Sequence[Mapping[str, Any]]
) -> list[SourceTrack]:
    """Make a track of each row, if they fit together."""
    tracks: list[SourceTrack] = []
    rows_by_name: dict[str, int] = {}
    known: tuple[Column, ...] = ()  # of labels
    for number, row in enumerate(rows, 1):
        try:
            track = track_of(row)
            known += new_labels(track.labels, known)
        except (SourceError, TableError, TrackError) as error:
            raise TableError(f"row {number}: {error}") from None
        if rows_by_name.setdefault(track.name, number) != number:
            raise TableError(f"rows {rows_by_name[track.name]} and {number} are both named {track.name!r}")
        tracks.append(track)
    return tracks


def _columns_of_targets(targets: Sequence[str] | Mapping[str, str]) -> dict[str, str]:
    if isinstance(targets, str):
        raise TypeError(f"targets must be a sequence of columns, or columns by target; found the one name {targets!r}")
    columns = dict(targets) if isinstance(targets, Mapping) else {target: target for target in targets}
    if not columns:
        raise ValueError("targets must name at least one column of the table")
    return columns


def _rows(table: Table) -> list[Mapping[str, Any]]:
    if isinstance(table, str | os.PathLike):
        raise TypeError(f"table must be rows or a DataFrame, found the path {table!s}; read it with pandas.read_csv")
    if _is_frame(table):
        rows = _rows_of_frame(table)
    elif isinstance(table, Mapping) or not isinstance(table, Iterable):
        raise TypeError(
            f"table must be rows, each a mapping of columns to values, or a DataFrame; found {type(table).__name__}"
        )
    else:
        rows = list(table)
    if not rows:
        raise TableError("the table is empty; expected a row for each track")
    for number, row in enumerate(rows, 1):
        if not isinstance(row, Mapping):
            raise TypeError(f"row {number} must be a mapping of columns to values, found {type(row).__name__}")
    return rows


def _is_frame(table: Any) -> TypeGuard[Frame]:
    return hasattr(table, "columns") and hasattr(table, "isna")


def _rows_of_frame(frame: Frame) -> list[Mapping[str, Any]]:
    """Rows of a DataFrame as Python's own values, and None where a cell is empty."""
    if not frame.columns.is_unique:
        twice = frame.columns[frame.columns.duplicated()][0]
        raise TableError(f"the table has two columns {twice!r}; every column needs a name of its own")
    columns = {
        column: [None if empty else cell for cell, empty in zip(cells.tolist(), cells.isna(), strict=True)]
        for column, cells in frame.items()
    }
    return [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]


def _track(
    row: Mapping[str, Any],
    files: Mapping[str, str],
    root: Path | None,
    name: str,
    split: str | None,
    labels: Sequence[str],
) -> SourceTrack:
    cells = {target: row.get(column) for target, column in files.items()}
    paths = {target: _path(cell, files[target], root) for target, cell in cells.items() if not _is_missing(cell)}
    if not paths:
        raise TableError(f"there is no file in {', '.join(map(repr, dict.fromkeys(files.values())))}")
    part = None if split is None else row.get(split)
    return SourceTrack(
        check_name(row.get(name)),
        "" if _is_missing(part) else check_text("the split", part),
        Source.of_files(paths),
        {label: row[label] for label in labels if not _is_unknown(row.get(label))},
    )


def _path(cell: Any, column: str, root: Path | None) -> Path:
    if not isinstance(cell, str | os.PathLike):
        raise TableError(f"{column!r} is {cell!r}; expected the path of a file")
    path = audio_path(cell)
    if root is None:
        return path
    path = root / path
    # by its name: what links within the root lead to is meant
    if not Path(os.path.abspath(path)).is_relative_to(os.path.abspath(root)):
        raise TableError(f"{column!r} is {os.fspath(cell)}, which lies outside of {os.fspath(root)}")
    return path


def _is_unknown(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _is_missing(cell: Any) -> bool:
    """Whether no text was given, as tables of any kind say so."""
    return _is_unknown(cell) or cell == ""
