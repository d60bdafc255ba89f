"""Changes of what is committed already: all of them, or none.

A change writes each file anew below ``pending/<revision>/``, then the document that tells of them, which is the commit,
and then brings each file to its place. Readers take a file that the document calls pending from there, or, if it has
gone from there, from its place. So whoever opens the store sees the state before or after, at any moment; and whoever
writes next brings to its end what was cut off.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from numpy.typing import NDArray

from norbert_store._format.arrays import block_key, encode_block
from norbert_store._format.document import ROOT_KEY, Document
from norbert_store._format.layout import MAGNITUDE, parse_shard_key
from norbert_store._format.table import Column
from norbert_store._storage.storage import Storage

PENDING = "pending/"

Blocks = dict[tuple[str, tuple[int, ...]], NDArray[Any]]
"""Values of blocks, by path and position."""


def row_blocks(document: Document, column: Column, values: NDArray[Any], first_block: int = 0) -> Blocks:
    """Cut a column's values into blocks, from some block on.

    Parameters
    ----------
    document : Document
    column : Column
    values : ndarray
        From the first row of that block on.
    first_block : int
    """
    size = document.layout.rows
    return {
        (column.path, column.block(number)): values[begin : begin + size]
        for number, begin in enumerate(range(0, len(values), size), first_block)
    }


def block_files(document: Document, blocks: Blocks) -> dict[str, bytes]:
    """Encode blocks of a document's arrays; by key."""
    return {block_key(*at): encode_block(document.arrays()[at[0]], values) for at, values in blocks.items()}


def change(storage: Storage, document: Document, files: Mapping[str, bytes]) -> Document:
    """Commit a document with files that stand where committed ones do.

    Parameters
    ----------
    storage : Storage
        Whose lock is held.
    document : Document
        The next state, with the checksums of all its blocks.
    files : mapping of str to bytes
        By key.

    Returns
    -------
    Document
        As it is committed in the end.
    """
    for key, data in files.items():
        storage.set(f"{PENDING}{document.revision}/{key}", data)
    document = replace(document, pending=tuple(files))
    storage.set(ROOT_KEY, document.to_json())
    return finish(storage, document)


def finish(storage: Storage, document: Document) -> Document:
    """Bring every file that is pending to its place, also if that was begun before."""
    if not document.pending:
        return document
    for key in document.pending:
        data = storage.get(f"{PENDING}{document.revision}/{key}")
        if data is not None:  # else it is there
            storage.set(key, data)
    done = document.next(pending=())
    storage.set(ROOT_KEY, done.to_json())
    for key in document.pending:
        storage.delete(f"{PENDING}{document.revision}/{key}")
    return done


def settle(storage: Storage, document: Document) -> Document:
    """Finish what was committed, and delete what was begun and never committed; before anything else is written.

    Parameters
    ----------
    storage : Storage
        Whose lock is held.
    document : Document
        As it is committed.

    Returns
    -------
    Document
        As it is committed in the end.
    """
    document = finish(storage, document)
    _sweep(storage, document)
    return document


def _sweep(storage: Storage, document: Document) -> None:
    """Delete what was begun and never committed: files, changes, and shards behind the end.

    A track's absent stem may come to lie where such a shard is.
    """
    storage.sweep()
    for key in storage.list(PENDING.rstrip("/")):
        if re.fullmatch(rf"{PENDING}\d+/.+", key):
            storage.delete(key)
    first_free = document.layout.shards(document.chunks)
    for key in storage.list(f"{MAGNITUDE}/c"):
        place = parse_shard_key(key)
        if place is not None and place[1] >= first_free:
            storage.delete(key)
