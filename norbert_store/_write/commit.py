"""What makes tracks part of a store: rows of the track table, extents of their chunks, and the document that commits.

The order is always: shards (`norbert_store._write.bundle`), blocks of small arrays, then the document, each of them on
disk before the next is written. A process that dies at any moment leaves the last committed state, and perhaps files
that no document knows. What is changed of that state is `norbert_store._write.change`.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from norbert_store._format.arrays import block_key, encode_block, group_document, json_bytes
from norbert_store._format.document import CHUNK_GROUP, EXTENT, EXTENT_PARTS, MOST_DOCUMENT_BYTES, ROOT_KEY, Document
from norbert_store._format.layout import MAGNITUDE
from norbert_store._format.table import (
    LABEL_GROUP,
    PRESENT,
    TRACK_GROUP,
    Column,
    Label,
    check_name,
    check_text,
    metadata_text,
    new_labels,
)
from norbert_store._spectra.bins import StoredTransform, transform_from_config
from norbert_store._storage.folder import PARTIAL_SUFFIX
from norbert_store._storage.lock import LOCK_KEY, WriterLock
from norbert_store._storage.storage import Storage
from norbert_store._text import shown
from norbert_store._write.change import settle
from norbert_store.errors import (
    DamagedError,
    FormatError,
    StorageError,
    StoreExistsError,
    StoreInUseError,
    StoreNotFoundError,
    TrackError,
)

COMMIT_SECONDS = 5.0

# what is written before the first document: nobody else's files, and no shard of a store whose document was lost
_BEGUN = re.compile(
    rf"(zarr\.json|(target|channel|frequency)/(zarr\.json|c/0)|{MAGNITUDE}/zarr\.json"
    rf"|({TRACK_GROUP}|{LABEL_GROUP}|{CHUNK_GROUP})/([^/]+/)?zarr\.json)"
    rf"(\.[0-9a-f]{{8}}{re.escape(PARTIAL_SUFFIX)})?"
)

Row = dict[str, Any]
"""A row of the track table: values by the path of their column, as far as they are known."""

Blocks = dict[tuple[str, tuple[int, ...]], NDArray[Any]]
"""Values of blocks, by path and position."""

Extents = NDArray[np.uint32]
"""Extents of chunks, (targets, parts, channels, chunks)."""


class Committer:
    """The one that writes a store's table and document; nobody else does, as long as it is open.

    Made by `Committer.new` or `Committer.of`.

    Parameters
    ----------
    storage : Storage
    document : Document
        What is committed.
    transform : StoredTransform
    lock : WriterLock
    """

    def __init__(self, storage: Storage, document: Document, transform: StoredTransform, lock: WriterLock) -> None:
        self.document = document
        self.transform = transform
        self.storage = storage
        self._lock = lock
        self._labels = document.labels
        # the last block of each small array, which is written again when it grows
        last, _ = document.layout.block_of(document.tracks)
        blocks = range(last, document.layout.blocks(document.tracks))
        columns = {column.path: self._column(column, blocks) for column in document.columns}
        self._last_rows: list[Row] = [
            dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)
        ]
        self._last_extents = self._read_last_extents()
        self._names = set(self.column("name"))
        self._waiting: list[Row] = []
        self._waiting_extents: list[tuple[int, Extents]] = []
        self._committed_at = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self.close()
        except (StorageError, StoreInUseError):
            # what went wrong first is what people need to know
            if error is None:
                raise

    @classmethod
    def new(cls, storage: Storage, document: Document, transform: StoredTransform) -> Committer:
        """Write an empty store: it can be opened from now on.

        Raises
        ------
        StoreExistsError
            If there is something at the location.
        StoreInUseError
            If somebody is writing there.
        """
        document.to_json()  # before anything is written: a transform may hold what JSON can't
        if not storage.is_empty():
            if storage.size(LOCK_KEY) is not None:
                WriterLock(storage).release()  # who is at it is the better message
            raise _exists(storage)
        lock = WriterLock(storage)
        try:
            if storage.get(ROOT_KEY, MOST_DOCUMENT_BYTES) is not None:
                raise _exists(storage)
            _write_array_documents(storage, document)
            document = _write_coordinates(storage, document, transform)
            storage.set(ROOT_KEY, document.to_json())
            return cls(storage, document, transform, lock)
        except BaseException:
            lock.release()
            raise

    @classmethod
    def of(cls, storage: Storage, check: Callable[[Document], None] | None = None) -> Committer:
        """Go on with a store, after what a process that died has left behind is finished, or deleted.

        Parameters
        ----------
        storage : Storage
        check : callable, optional
            Called with the document before anything is changed; what it raises leaves the store as it is.

        Raises
        ------
        StoreNotFoundError
            If there is none.
        StoreInUseError
            If somebody else is writing there.
        FormatError
            If what is there is no store, or has features that this version can't write on.
        """
        data = storage.get(ROOT_KEY, MOST_DOCUMENT_BYTES)
        if data is None:
            raise StoreNotFoundError(f"there is no store at {storage.name}: expected a {ROOT_KEY} there")
        lock = WriterLock(storage)
        try:
            # what another writer committed while this one waited at the door
            document = Document.from_json(storage.get(ROOT_KEY, MOST_DOCUMENT_BYTES) or data, storage.name)
            if document.writes:
                raise FormatError(
                    f"{storage.name} has features that this version can't write on: {shown(list(document.writes))}; "
                    "upgrade norbert_store"
                )
            if check is not None:
                check(document)
            transform = transform_from_config(document.transform, _read_block(storage, document, "frequency", (0,)))
            return cls(storage, settle(storage, document), transform, lock)
        except BaseException:
            lock.release()
            raise

    # ---- what may come in

    def check(
        self,
        name: str,
        split: str = "",
        source: str = "",
        metadata: Mapping[str, Any] | None = None,
        labels: Mapping[str, Label] | None = None,
    ) -> tuple[Row, tuple[Column, ...]]:
        """Check what goes into the track table, before any work is done; return it, and columns that are new.

        Raises
        ------
        TrackError
            If it doesn't fit.
        """
        if check_name(name) in self._names:
            raise TrackError(f"there is a track named {name!r} already; every name stands once")
        new = new_labels(labels, self._labels)
        paths = {column.name: column.path for column in (*self._labels, *new)}
        row = {
            f"{TRACK_GROUP}/name": name,
            f"{TRACK_GROUP}/split": check_text(f"the split of {name!r}", split),
            f"{TRACK_GROUP}/source": check_text(
                f"the source of {name!r}", os.fspath(source) if isinstance(source, os.PathLike) else source
            ),
            f"{TRACK_GROUP}/metadata": metadata_text(metadata),
            **{paths[label]: value for label, value in (labels or {}).items() if value is not None},
        }
        return row, new

    def expect(self, row: Row, new_columns: tuple[Column, ...]) -> None:
        """Take a checked row's name and columns; no other track can have that name from now on."""
        self._names.add(row[f"{TRACK_GROUP}/name"])
        self._labels = (*self._labels, *new_columns)

    @property
    def names(self) -> frozenset[str]:
        """Names of all tracks that are there or expected."""
        return frozenset(self._names)

    # ---- commits

    def add(self, rows: Sequence[Row], first_chunk: int, extents: Extents) -> None:
        """Take the rows of a bundle whose shards are written; commit, if the last time is some seconds ago.

        Parameters
        ----------
        rows : sequence of dict
        first_chunk : int
            Where the bundle begins along the packed axis.
        extents : ndarray of uint32
            (targets, parts, channels, chunks) of its chunks.
        """
        if rows:
            self._waiting += rows
            self._waiting_extents.append((first_chunk, extents))
        if time.monotonic() - self._committed_at >= COMMIT_SECONDS:
            self.commit()

    def commit(self) -> None:
        """Make all whole bundles visible to readers.

        Raises
        ------
        StoreInUseError
            If somebody took this process for dead, and writes in its place.
        """
        if self._waiting:
            first, extents = self._waiting_extents[-1]
            document = self.document.next(
                tracks=self.document.tracks + len(self._waiting),
                chunks=first + extents.shape[-1],
                labels=self._labels,
            )
            rows = self._last_rows + self._waiting
            self._lock.renew()  # before the rows, too: they may be another's by now
            blocks = {**self._blocks_of_rows(document, rows), **self._blocks_of_extents(document)}
            document = document.with_blocks(blocks)
            self._write_blocks(document, blocks)
            self.storage.set(ROOT_KEY, document.to_json())
            self.document = document
            self._last_rows = rows[document.layout.full_blocks(len(rows)) :]
            self._last_extents = self._last_extents_of(document, blocks)
            self._waiting, self._waiting_extents = [], []
        self._committed_at = time.monotonic()

    def close(self) -> None:
        """Commit, and let others write."""
        try:
            self.commit()
            self._lock.renew()
            # programs that don't know consolidated metadata read these
            _write_array_documents(self.storage, self.document)
        finally:
            self._lock.release()

    def column(self, name: str) -> list[Any]:
        """Values of one of the columns that every table has, for all rows that are committed."""
        column, (last, _) = self.document.column(name), self.document.layout.block_of(self.document.tracks)
        return self._column(column, range(last)) + [row[column.path] for row in self._last_rows]

    def _column(self, column: Column, blocks: range) -> list[Any]:
        """Read some blocks of a column."""
        rest = (0,) if column.path == PRESENT else ()
        found = (_read_block(self.storage, self.document, column.path, (block, *rest)) for block in blocks)
        return [column.value(value) for values in found for value in values.tolist()]

    def _read_last_extents(self) -> Extents:
        """Read the extents in the last block of each target, as far as they are committed."""
        document = self.document
        targets, channels = len(document.targets), len(document.channels)
        block, within = divmod(document.chunks, document.layout.positions)
        extents = np.zeros((targets, EXTENT_PARTS, channels, within), np.uint32)
        for target in range(targets if within else 0):
            extents[target] = _read_block(self.storage, document, EXTENT, (target, 0, 0, block))[0]
        return extents

    def _blocks_of_rows(self, document: Document, rows: Sequence[Row]) -> Blocks:
        """Values of the blocks that rows come to lie in, from the beginning of the table's last block on."""
        known, size = {column.path for column in self.document.columns}, document.layout.rows
        first_block, _ = document.layout.block_of(self.document.tracks)
        blocks: Blocks = {}
        for column in document.columns:
            # a new column begins at the first row, so that none of its blocks is missing
            missing: list[Row] = [] if column.path in known else [{}] * (first_block * size)
            values = column.to_array([row.get(column.path) for row in [*missing, *rows]])
            first = first_block if column.path in known else 0
            rest = (0,) if column.path == PRESENT else ()
            for number, begin in enumerate(range(0, len(values), size), first):
                blocks[column.path, (number, *rest)] = values[begin : begin + size]
        return blocks

    def _blocks_of_extents(self, document: Document) -> Blocks:
        """Values of the blocks that new extents come to lie in."""
        size = document.layout.positions
        first_block, within = divmod(self.document.chunks, size)
        begin = first_block * size
        extents = np.zeros((*self._last_extents.shape[:-1], document.chunks - begin), np.uint32)
        extents[..., :within] = self._last_extents
        for first, some in self._waiting_extents:
            extents[..., first - begin : first - begin + some.shape[-1]] = some
        return {
            (EXTENT, (target, 0, 0, number)): extents[target : target + 1, ..., start : start + size]
            for number, start in enumerate(range(0, extents.shape[-1], size), first_block)
            for target in range(len(extents))
        }

    def _last_extents_of(self, document: Document, blocks: Blocks) -> Extents:
        """Extents in the last block of each target, if that isn't full."""
        block, within = divmod(document.chunks, document.layout.positions)
        if not within:
            return np.zeros((*self._last_extents.shape[:-1], 0), np.uint32)
        return np.concatenate([blocks[EXTENT, (target, 0, 0, block)] for target in range(len(document.targets))])

    def _write_blocks(self, document: Document, blocks: Blocks) -> None:
        arrays, known = document.arrays(), set(self.document.small_arrays)
        for path in dict.fromkeys(path for path, _ in blocks):
            if path not in known:
                self.storage.set(f"{path}/{ROOT_KEY}", json_bytes(arrays[path]))
        for (path, block), values in blocks.items():
            self.storage.set(block_key(path, block), encode_block(arrays[path], values))


def _write_coordinates(storage: Storage, document: Document, transform: StoredTransform) -> Document:
    """Write the arrays of labels and frequencies; return the document with their checksums."""
    blocks: Blocks = {
        ("target", (0,)): np.array(document.targets, dtype=object),
        ("channel", (0,)): np.array(document.channels, dtype=object),
        ("frequency", (0,)): np.asarray(transform.frequencies, np.float64),
    }
    arrays = document.arrays()
    for (path, block), values in blocks.items():
        storage.set(block_key(path, block), encode_block(arrays[path], values))
    return document.with_blocks(blocks)


def _write_array_documents(storage: Storage, document: Document) -> None:
    for key, node in array_documents(document).items():
        storage.set(key, json_bytes(node))


def array_documents(document: Document) -> dict[str, dict[str, Any]]:
    """Return the ``zarr.json`` of all arrays and groups below the root, by key."""
    groups = {path: group_document() for path in (TRACK_GROUP, LABEL_GROUP, CHUNK_GROUP)}
    return {f"{path}/{ROOT_KEY}": node for path, node in {**groups, **document.arrays()}.items()}


def clear_leftovers(storage: Storage) -> None:
    """Delete what a process has left that died before it had written an empty store.

    Raises
    ------
    StoreExistsError
        If there is anything else.
    """
    if storage.is_empty() or storage.get(ROOT_KEY, MOST_DOCUMENT_BYTES) is not None:
        return
    lock = WriterLock(storage)
    try:
        keys = storage.list()
        if ROOT_KEY in keys:  # another one, that this one waited for at the door
            return
        for key in keys:
            if key != LOCK_KEY and not _BEGUN.fullmatch(key):
                raise StoreExistsError(
                    f"{storage.name} isn't empty, and holds no store: found {key}; give another place"
                )
        for key in keys:
            if key != LOCK_KEY:
                storage.delete(key)
    finally:
        lock.release()


def _exists(storage: Storage) -> StoreExistsError:
    return StoreExistsError(f"{storage.name} exists already and isn't empty; give another place, or delete it first")


def _read_block(storage: Storage, document: Document, path: str, block: tuple[int, ...]) -> NDArray[Any]:
    key = block_key(path, block)
    data = storage.get(f"pending/{document.revision}/{key}") if key in document.pending else None
    try:
        return document.check_block(path, block, data or storage.get(key))
    except DamagedError as error:
        raise DamagedError(error.problem, key=key, store=storage.name) from error
