"""The track table: its columns, and what a row may hold.

Conventions
-----------
A row is a dict with a value for every column. Columns are zarr arrays below ``/track`` with the dimension "track", in
blocks of `norbert_store._format.layout.Layout.rows` rows. Besides the columns of `BASE_COLUMNS` there is one for each
plain label of the source (genre, artist, ...), whose type is that of its first value.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from norbert_store.errors import TrackError

TRACK_GROUP = "track"

Label = str | bool | int | float

# what a column takes, by its data type
_FITS = {"string": ("string",), "bool": ("bool",), "int64": ("int64",), "float64": ("float64", "int64")}

_LABEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\- ]*")


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes
    ----------
    name : str
    data_type : str
        "string", "int64", "float64" or "bool", as zarr calls them.
    fill_value : object
        What stands where no value was given.
    optional : bool
        Whether a row may leave the value out; whole numbers and truth values have nothing to stand for "not known".
    """

    name: str
    data_type: str
    fill_value: Any
    optional: bool = False


BASE_COLUMNS = (
    Column("name", "string", ""),
    Column("split", "string", ""),
    Column("source", "string", ""),
    Column("start", "int64", 0),
    Column("frames", "int64", 0),
    Column("samples", "int64", 0),
    Column("present", "bool", False),
    Column("metadata", "string", "{}"),
)
BASE_NAMES = frozenset(column.name for column in BASE_COLUMNS)

# a dimension of the table, and the name of zarr's own documents
_TAKEN_NAMES = BASE_NAMES | {"target", "zarr.json"}


def check_text(what: str, text: Any) -> str:
    """Return text that can be stored as UTF-8.

    Raises
    ------
    TrackError
        If it is no str, or holds half a surrogate pair.
    """
    if not isinstance(text, str):
        raise TrackError(f"{what} must be a str, found {text!r}")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise TrackError(f"{what} {text!r} can't be written as UTF-8; decode it from the right encoding") from None
    return str(text)


def check_name(name: Any) -> str:
    """Return a track's name: any text but an empty one.

    Raises
    ------
    TrackError
        If it is empty, or can't be stored.
    """
    if check_text("a track's name", name).strip() == "":
        raise TrackError(f"a track's name must not be empty, found {name!r}")
    return str(name)


def metadata_text(metadata: Mapping[str, Any] | None) -> str:
    """Write a track's metadata as JSON text.

    Raises
    ------
    TrackError
        If it isn't a mapping of what JSON can hold.
    """
    if not isinstance(metadata, Mapping | None):
        raise TrackError(f"metadata must be a mapping, found {type(metadata).__name__}")
    try:
        text = json.dumps(dict(metadata or {}), allow_nan=False, ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise TrackError(f"metadata must hold what JSON can: {error}") from None
    return check_text("metadata", text)


def label_column(name: str, value: Any) -> Column:
    """Return the column for a label, by its first value.

    Raises
    ------
    TrackError
        If the name is taken or no plain one, or the value is neither text nor a number.
    """
    if not isinstance(name, str) or not _LABEL_NAME.fullmatch(name) or name.endswith((" ", ".")):
        raise TrackError(f"the label {name!r} must be made of letters, digits, '_', '-', '.' and spaces")
    if name in _TAKEN_NAMES:
        raise TrackError(f"the label {name!r} is taken in every track table; use another name")
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bool):
        return Column(name, "bool", False)
    if isinstance(value, int):
        if not -(2**63) <= value < 2**63:
            raise TrackError(f"the label {name!r} takes whole numbers of 64 bits, found {value}; give it as text")
        return Column(name, "int64", 0)
    if isinstance(value, float):
        return Column(name, "float64", math.nan, optional=True)
    if isinstance(value, str):
        return Column(name, "string", "", optional=True)
    raise TrackError(f"the label {name!r} must be a str, bool, int or float, found {value!r}")


def check_labels(labels: Mapping[str, Label] | None, columns: Iterable[Column], rows: int) -> dict[str, Column]:
    """Check a track's labels against the columns so far, and return the columns that are new.

    Parameters
    ----------
    labels : mapping, optional
        Of the track; None stands for "not known".
    columns : iterable of Column
        Those of the labels so far.
    rows : int
        Tracks so far.

    Raises
    ------
    TrackError
        If a label has another type than before, or is missing where there is nothing to stand for "not known".
    """
    if not isinstance(labels, Mapping | None):
        raise TrackError(f"labels must be a mapping, found {type(labels).__name__}")
    labels = {name: value for name, value in (labels or {}).items() if value is not None}
    known = {column.name: column for column in columns}
    new: dict[str, Column] = {}
    for name, value in labels.items():
        column = label_column(name, value)
        if name not in known:
            if rows and not column.optional:
                raise TrackError(
                    f"the label {name!r} is new, and {column.data_type} has nothing to stand for 'not "
                    f"known' in the {rows} tracks before; give it for every track, or as text or float"
                )
            new[name] = column
        elif column.data_type not in _FITS[known[name].data_type]:
            raise TrackError(f"the label {name!r} was {known[name].data_type} before, now found {value!r}")
        if isinstance(value, str):
            check_text(f"the label {name!r}", value)
    for name, column in known.items():
        if name not in labels and not column.optional:
            raise TrackError(f"the label {name!r} is missing; {column.data_type} has nothing to stand for 'not known'")
    return new
