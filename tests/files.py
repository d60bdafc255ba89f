"""What lies in a folder, to be compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from norbert_store._format.document import Document

# What differs between stores that hold the same; checksums are of a store's id.
_OF_ONE_STORE = ("id", "revision", "created", "modified", "sums")


def files_below(folder: Path) -> dict[str, bytes]:
    """All files, bytes by key."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def contents(folder: Path) -> dict[str, Any]:
    """All files of a store, bytes by key; of its document what is equal if it is written once more."""
    files: dict[str, Any] = dict(files_below(folder))
    attributes = Document.from_json(files["zarr.json"], str(folder)).attributes
    return {**files, "zarr.json": {key: value for key, value in attributes.items() if key not in _OF_ONE_STORE}}
