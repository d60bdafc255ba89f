"""The track table: what the store keeps of each track, and the labels that users give.

Conventions
-----------
A row is a dict with a value for every column. What the store itself keeps are arrays below ``/track``; labels, under
whatever name, are arrays below ``/label``, named by keys that the document maps to names. All have the dimension
"track", in blocks of `norbert_store._format.layout.Layout.rows` rows.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from norbert_store._format.arrays import LONGEST_TEXT
from norbert_store._text import MOST_DEPTH, is_seen, read_json, shown
from norbert_store.errors import DamagedError, TrackError

TRACK_GROUP = "track"
LABEL_GROUP = "label"

Label = str | bool | int | float | Sequence[str] | None
"""A label's value: text, truth, a number, or several texts; None where it isn't known."""

_KEY = re.compile(r"[0-9]{1,9}")
_NO_LABELS = frozenset(("name", "split"))  # columns of the table of tracks, under the same names
_LARGEST_INTEGER = 2**63 - 1
_EXACT_IN_FLOAT = 2**53
LONGEST_NAME = 240  # of a target or channel, in UTF-8; a file may be named for a target
LONGEST_LABEL = 1024
_DRIVE = re.compile(r"[A-Za-z]:")

# by the type of a label: data type and fill value of its array; the fill value stands for "not known"
_LABEL_TYPES: dict[str, tuple[str, Any]] = {
    "string": ("string", ""),
    "strings": ("string", ""),  # a JSON list
    "int64": ("int64", -(2**63)),
    "float64": ("float64", math.nan),
    "bool": ("int8", -1),
}


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes
    ----------
    name : str
    type : str
        "string", "strings" (a list of texts), "int64", "float64" or "bool".
    data_type : str
        What the array holds, as zarr calls it.
    fill_value : object
        What stands where no value was given.
    path : str
        Of its array.
    key : str
        Of a label's array, below ``/label``; empty for what the store itself keeps.
    """

    name: str
    type: str
    data_type: str
    fill_value: Any = field(compare=False)  # NaN isn't equal to itself; it follows from the type
    path: str
    key: str = ""

    @property
    def by_target(self) -> bool:
        """Whether there is a value for each target."""
        return self.path in BY_TARGET

    def block(self, number: int) -> tuple[int, ...]:
        """Position of one of its blocks, counted along its rows."""
        return (number, 0) if self.by_target else (number,)

    def to_array(self, values: Sequence[Any]) -> NDArray[Any]:
        """Return what the array holds for some values; None for what isn't known."""
        if self.type == "strings":
            values = [None if value is None else _json_text(value) for value in values]
        values = [self.fill_value if value is None else value for value in values]
        if self.data_type == "string":
            return np.array([str(value) for value in values], dtype=object)  # text of NumPy's, too, is written as str
        return np.array(values, dtype=self.data_type)

    def value(self, stored: Any) -> Any:
        """Return one value as users gave it; None for what isn't known."""
        if not self.key:
            return stored
        if self.type in ("string", "strings"):
            return None if stored == "" else _texts(stored) if self.type == "strings" else str(stored)
        if self.type == "float64":
            return None if math.isnan(stored) else float(stored)
        if stored == self.fill_value:
            return None
        return bool(stored) if self.type == "bool" else int(stored)

    def values(self, stored: NDArray[Any]) -> NDArray[Any]:
        """Return values as an array for people: numbers where all are known, floats with NaN, or objects with None."""
        if not self.key or self.type in ("float64", "string"):
            return stored
        if self.type != "strings" and not (stored == self.fill_value).any():
            return stored.astype(self.type)
        known = stored != self.fill_value
        if self.type == "int64" and (np.abs(stored[known]) < _EXACT_IN_FLOAT).all():
            return np.where(known, stored, np.nan)
        found = np.empty(len(stored), object)
        found[:] = [self.value(each) for each in stored.tolist()]
        return found


def _texts(stored: str) -> list[str]:
    """Read a list of texts."""
    try:
        found = read_json(stored)
    except ValueError as error:
        raise DamagedError(f"a label is no list of texts: {error}") from None
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        raise DamagedError(f"a label is no list of texts: {shown(found)}")
    return found


def metadata_of(stored: str) -> dict[str, Any]:
    """Read a track's metadata.

    Raises
    ------
    DamagedError
        If they are no JSON object.
    """
    try:
        found = read_json(stored)
    except ValueError as error:
        raise DamagedError(f"the metadata are no JSON object: {error}") from None
    if not isinstance(found, dict):
        raise DamagedError(f"the metadata are no JSON object: {shown(found)}")
    return found


def _base(name: str, data_type: str, fill_value: Any) -> Column:
    return Column(name, data_type, data_type, fill_value, f"{TRACK_GROUP}/{name}")


PRESENT = f"{TRACK_GROUP}/present"
SCALE = f"{TRACK_GROUP}/scale"
SOURCE_BYTES = f"{TRACK_GROUP}/source_bytes"
SOURCE_MODIFIED = f"{TRACK_GROUP}/source_modified"
BY_TARGET = frozenset((PRESENT, SCALE, SOURCE_BYTES, SOURCE_MODIFIED))
NOT_NOTED = -1  # length of a file of which nothing is known
BASE_COLUMNS = (
    _base("name", "string", ""),
    _base("split", "string", ""),
    _base("source", "string", ""),
    _base("source_bytes", "int64", NOT_NOTED),
    _base("source_modified", "int64", NOT_NOTED),
    _base("start", "int64", 0),
    _base("frames", "int64", 0),
    _base("samples", "int64", 0),
    _base("present", "bool", False),
    _base("scale", "int16", 0),
    _base("metadata", "string", "{}"),
)


def label_column_of(name: str, type: str, key: str) -> Column:  # noqa: A002  # as the document calls it
    """Return the column of a label that a document describes.

    Raises
    ------
    ValueError
        If it breaks the format.
    """
    if not isinstance(key, str) or not _KEY.fullmatch(key):
        raise ValueError("it needs a key of 1 to 9 digits")
    if not isinstance(name, str):
        raise ValueError("its name must be text")
    _check_label_name(name)
    if not isinstance(type, str) or type not in _LABEL_TYPES:
        raise ValueError(f"its type must be one of {', '.join(_LABEL_TYPES)}")
    return Column(name, type, *_LABEL_TYPES[type], f"{LABEL_GROUP}/{key}", key)


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
    if len(text.encode()) > LONGEST_TEXT:
        raise TrackError(f"{what} takes at most {LONGEST_TEXT} bytes, found {len(text.encode())}")
    return str(text)


def name_problem(name: str) -> str | None:
    """Say why a text is no name of a target or a channel; None if it is one.

    Files may be named for targets, so nothing in a name may lead to another folder.
    """
    if "/" in name or "\\" in name or _DRIVE.match(name) or name in (".", ".."):
        return "could lead to another folder, as the name of a file"
    return _text_problem(name, LONGEST_NAME)


def _text_problem(name: str, most_bytes: int) -> str | None:
    """Say why a text is no name that people can be shown."""
    if not name.strip():
        return "is empty"
    if not all(map(is_seen, name)):
        return "has characters that can't be seen"
    if len(name.encode()) > most_bytes:
        return f"has more than {most_bytes} bytes"
    return None


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
        read_json(text)
    except RecursionError:
        raise TrackError(f"metadata must be of at most {MOST_DEPTH} levels of lists and mappings") from None
    except (TypeError, ValueError) as error:
        raise TrackError(f"metadata must hold what JSON can: {error}") from None
    return check_text("metadata", text)


def label_type(name: str, value: Any) -> str:
    """Tell the type of a label by a value.

    Raises
    ------
    TrackError
        If the name can't be one, or the value is none that is kept.
    """
    _check_label_name(check_text("a label's name", name))
    if isinstance(value, bool | np.bool_):
        return "bool"
    if isinstance(value, int | np.integer):
        if not -_LARGEST_INTEGER <= value <= _LARGEST_INTEGER:
            raise TrackError(f"the label {name!r} takes whole numbers of 64 bits, found {value}; give it as text")
        return "int64"
    if isinstance(value, float | np.floating):
        return "float64"
    if isinstance(value, str):
        check_text(f"the label {name!r}", value)
        return "string"
    if isinstance(value, list | tuple) and all(isinstance(each, str) for each in value):
        for each in value:
            check_text(f"the label {name!r}", each)
        check_text(f"the label {name!r}, as JSON,", _json_text(value))
        return "strings"
    raise TrackError(f"the label {name!r} must be text, a truth value, a number or a list of texts; found {value!r}")


def _json_text(texts: Sequence[str]) -> str:
    return json.dumps(list(texts), ensure_ascii=False)


def _check_label_name(name: str) -> None:
    if not name.strip() or name.startswith("_"):
        raise TrackError(f"a label's name must not be empty or begin with '_', found {shown(name)}")
    problem = _text_problem(name, LONGEST_LABEL)
    if problem:
        raise TrackError(f"a label's name must be text that can be read; {shown(name)} {problem}")
    if name in _NO_LABELS:
        raise TrackError(f"a track's {name} is no label; give it as {name}=")


def new_labels(labels: Mapping[str, Label] | None, columns: Iterable[Column]) -> tuple[Column, ...]:
    """Check a track's labels against those so far, and return the columns that are new.

    Parameters
    ----------
    labels : mapping, optional
        Of the track; None stands for "not known".
    columns : iterable of Column
        Those of the labels so far.

    Raises
    ------
    TrackError
        If a label has another type than before.
    """
    if not isinstance(labels, Mapping | None):
        raise TrackError(f"labels must be a mapping, found {type(labels).__name__}")
    known = {column.name: column for column in columns}
    next_key = 1 + max((int(column.key) for column in known.values()), default=-1)
    new: list[Column] = []
    for name, value in (labels or {}).items():
        if value is None:
            continue
        found = label_type(name, value)
        if name not in known:
            new.append(label_column_of(name, found, str(next_key + len(new))))
        elif found != known[name].type and (found, known[name].type) != ("int64", "float64"):
            raise TrackError(
                f"the label {name!r} was {known[name].type} before, now found {value!r}; give what it was before, or a "
                "label of another name"
            )
    return tuple(new)
