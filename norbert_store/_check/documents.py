"""Faults of the metadata that follow from the root's document, for other programs; and of the labels of axes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from norbert_store._check.report import Fault, problem_of
from norbert_store._format.arrays import block_key
from norbert_store._format.document import MOST_DOCUMENT_BYTES, ROOT_KEY, Document
from norbert_store._read.snapshot import Snapshot
from norbert_store._text import read_json, shown
from norbert_store.errors import DamagedError, StorageError

_GROWING = ("track", "frame", "chunk")


def root_faults(snapshot: Snapshot) -> Iterator[Fault]:
    """Faults of the part of the root's ``zarr.json`` that only other programs read; it follows from the document."""
    written = snapshot.document.to_json(not snapshot.storage.is_session)
    found, expected = read_json(snapshot.root_bytes), json.loads(written)
    differing = [
        key
        for key, value in expected.items()
        if key != "attributes" and json.dumps(found.get(key), sort_keys=True) != json.dumps(value, sort_keys=True)
    ]
    if differing:
        yield Fault(snapshot.name, ROOT_KEY, f"{', '.join(map(repr, differing))} isn't what follows from the document")


def pending_faults(snapshot: Snapshot) -> Iterator[Fault]:
    """Files that a change that was cut off has yet to replace: other programs still read the old ones."""
    for key in snapshot.document.pending:
        yield Fault(snapshot.name, key, "its new bytes are still pending: a change was cut off; repair the store")


def document_faults(snapshot: Snapshot) -> Iterator[Fault]:
    """Faults of the arrays' and groups' own documents, for programs that don't know consolidated metadata."""
    for key, expected in snapshot.document.nodes().items():
        try:
            found = snapshot.storage.get(key, MOST_DOCUMENT_BYTES)
        except (DamagedError, StorageError) as error:
            yield Fault(snapshot.name, key, problem_of(snapshot, error))
            continue
        problem = "the file is missing" if found is None else _document_problem(found, expected)
        if problem:
            yield Fault(snapshot.name, key, problem)


def _document_problem(data: bytes, expected: Mapping[str, Any]) -> str | None:
    try:
        found = read_json(data)
    except ValueError:
        return "the file isn't JSON"
    if not isinstance(found, dict):
        return "the file isn't a JSON object"
    differing = sorted(key for key in {*found, *expected} if found.get(key) != expected.get(key))
    # a session that was cut off has left an old one
    if not differing or (differing == ["shape"] and _is_older(found["shape"], expected)):
        return None
    return f"the root's document says something else about {shown(differing)[1:-1]}"


def _is_older(shape: Any, expected: Mapping[str, Any]) -> bool:
    """Whether a shape is one that an array had before it grew."""
    sizes = expected["shape"]
    if not isinstance(shape, list) or len(shape) != len(sizes):
        return False
    return all(
        old == new or (name in _GROWING and isinstance(old, int) and 0 <= old <= new)
        for old, new, name in zip(shape, sizes, expected["dimension_names"], strict=True)
    )


def coordinate_faults(snapshot: Snapshot) -> Iterator[Fault]:
    """Faults of /target, /channel and /frequency, by which programs that read zarr know what the document says."""
    for path, check in _COORDINATES.items():
        key = coordinate_key(path)
        try:
            problem = check(snapshot.document, snapshot.coordinate(path))
        except (DamagedError, StorageError) as error:
            problem = problem_of(snapshot, error)
        if problem:
            yield Fault(snapshot.name, key, problem)


def coordinate_key(path: str) -> str:
    """Key of the one block of /target, /channel or /frequency."""
    return block_key(path, (0,))


def _labels_problem(found: NDArray[Any], expected: tuple[str, ...]) -> str | None:
    return None if tuple(found) == expected else f"it holds {shown(tuple(found))}, the document says {shown(expected)}"


def _frequency_problem(found: NDArray[np.float64]) -> str | None:
    ascending = np.isfinite(found).all() and (np.diff(found) > 0).all()
    return None if ascending else "the frequencies aren't in ascending order"


_COORDINATES: dict[str, Callable[[Document, NDArray[Any]], str | None]] = {
    "target": lambda document, found: _labels_problem(found, document.targets),
    "channel": lambda document, found: _labels_problem(found, document.channels),
    "frequency": lambda document, found: _frequency_problem(found),
}
