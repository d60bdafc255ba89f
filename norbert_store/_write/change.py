"""Changes of what is committed already: all of them, or none; and how a writer begins.

A change writes each file anew below ``pending/<revision>/``, then the document that tells of them, which is the commit,
and then brings each file to its place. Readers take a file that the document calls pending from there, or, if it has
gone from there, from its place. So whoever opens the store sees the state before or after, at any moment; and whoever
writes next brings to its end what was cut off.

Where no operating system knows who is alive, whoever writes next begins by a document of its own, in the place of the
one that it has read. From then on nothing is committed any more by who was taken for dead, and is late.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from numpy.typing import NDArray

from norbert_store._format.arrays import block_key, encode_block
from norbert_store._format.document import MOST_DOCUMENT_BYTES, PENDING, ROOT_KEY, Document, pending_key
from norbert_store._format.layout import MAGNITUDE, parse_shard_key
from norbert_store._format.table import Column
from norbert_store._storage.storage import Storage
from norbert_store.errors import StoreInUseError, StoreNotFoundError

_ROUNDS = 3

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


class Settled(NamedTuple):
    """What a writer begins with.

    Attributes
    ----------
    document : Document
        As it is committed.
    root_bytes : bytes
        The root's ``zarr.json`` that holds it.
    finished : tuple of str
        Keys of a change that was cut off, and is brought to its end now.
    left_behind : set of str
        Keys of shards that were never committed, and couldn't be deleted.
    """

    document: Document
    root_bytes: bytes
    finished: tuple[str, ...]
    left_behind: set[str]


def change(storage: Storage, document: Document, files: Mapping[str, bytes]) -> Document:
    """Commit a document with files that stand where committed ones do.

    Parameters
    ----------
    storage : Storage
        Whose lock is held, and whose document was read to be replaced.
    document : Document
        The next state, with the checksums of all its blocks.
    files : mapping of str to bytes
        By key.

    Returns
    -------
    Document
        As it is committed in the end.

    Raises
    ------
    StoreInUseError
        If somebody else has taken the lock over.
    """
    if storage.is_session:  # whose commit is the commit
        for key, data in files.items():
            storage.set(key, data)
        storage.commit(ROOT_KEY, document.to_json(consolidated=False))
        return document
    for key, data in files.items():
        storage.set(pending_key(document.revision, key), data)
    document = replace(document, pending=tuple(files))
    storage.commit(ROOT_KEY, document.to_json())
    return _finish(storage, document)


def _finish(storage: Storage, document: Document) -> Document:
    """Bring every file that is pending to its place, also if that was begun before."""
    if not document.pending:
        return document
    for key in document.pending:
        data = storage.get(pending_key(document.revision, key))
        if data is not None:  # else it is there
            storage.overwrite(key, data)
    done = document.next(pending=())
    storage.commit(ROOT_KEY, done.to_json())
    for key in document.pending:
        storage.delete(pending_key(document.revision, key))
    return done


def settle(storage: Storage, check: Callable[[Document], None] | None = None) -> Settled:
    """Read the document to be replaced, finish what was committed, and delete what was begun and never committed.

    Parameters
    ----------
    storage : Storage
        Whose lock is held.
    check : callable, optional
        Called with the document before anything is changed; what it raises leaves the store as it is.

    Returns
    -------
    Settled

    Raises
    ------
    StoreNotFoundError
        If there is no document.
    StoreInUseError
        If somebody else has taken the lock over.
    """
    attempt = 0
    while True:
        root_bytes = storage.get_for_update(ROOT_KEY, MOST_DOCUMENT_BYTES)
        if root_bytes is None:
            raise StoreNotFoundError(f"there is no store at {storage.name}: expected a {ROOT_KEY} there")
        found = Document.from_json(root_bytes, storage.name)
        if check is not None:
            check(found)
        try:
            document = _claim(storage, _finish(storage, found))
            break
        except StoreInUseError:
            # somebody who has no lock any more was faster, and late: what that one has committed counts
            storage.look()
            attempt += 1
            if attempt == _ROUNDS:
                raise
    if document is not found:
        root_bytes = document.to_json(not storage.is_session)
    return Settled(document, root_bytes, found.pending, _sweep(storage, document))


def _claim(storage: Storage, document: Document) -> Document:
    """Write the document once more, so that it isn't any more what another writer has read."""
    if storage.is_exclusive:  # the other one doesn't live
        return document
    claimed = replace(document, revision=document.revision + 1)
    storage.commit(ROOT_KEY, claimed.to_json(), once=True)
    return claimed


def _sweep(storage: Storage, document: Document) -> set[str]:
    """Delete what was begun and never committed: files, changes, and shards behind the end.

    A track's absent stem may come to lie where such a shard is. Where a deletion may be late itself, shards are left
    where they are, and returned: what is written in their place, and when, can be told from what another one has
    written there since.
    """
    storage.sweep()
    for key in storage.list(PENDING) if not storage.is_session else ():
        begun = re.fullmatch(rf"{PENDING}/([0-9]+)/.+", key)
        # of later revisions are those of who has taken the lock over
        if begun and (storage.may_delete or int(begun[1]) <= document.revision):
            storage.delete(key)
    first_free = document.layout.shards(document.chunks)
    places = ((key, parse_shard_key(key)) for key in storage.list(f"{MAGNITUDE}/c"))
    left_behind = {key for key, place in places if place is not None and place[1] >= first_free}
    if not storage.may_delete:
        return left_behind
    for key in sorted(left_behind):
        storage.delete(key)
    return set()
