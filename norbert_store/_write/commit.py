"""What makes tracks part of a store: rows of the track table, and the one document that commits them.

The order is always: shards (`norbert_store._write.bundle`), rows, then the document, each of them on disk before the
next is written. A process that dies at any moment leaves the last committed state, and perhaps files that no document
knows.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from norbert_store._format.arrays import (
    MOST_BLOCK_BYTES,
    block_key,
    decode_block,
    encode_block,
    group_document,
    json_bytes,
)
from norbert_store._format.document import MOST_DOCUMENT_BYTES, ROOT_KEY, Document
from norbert_store._format.layout import MAGNITUDE, parse_shard_key
from norbert_store._format.table import (
    TRACK_GROUP,
    Column,
    Label,
    check_labels,
    check_name,
    check_text,
    metadata_text,
)
from norbert_store._spectra.bins import StoredTransform, transform_from_config
from norbert_store._storage.folder import PARTIAL_SUFFIX
from norbert_store._storage.lock import LOCK_KEY, WriterLock
from norbert_store._storage.storage import Storage
from norbert_store.errors import (
    DamagedError,
    StorageError,
    StoreExistsError,
    StoreInUseError,
    StoreNotFoundError,
    TrackError,
)

COMMIT_SECONDS = 5.0

# what is written before the first document: nobody else's files, and no shard of a store whose document was lost
_BEGUN = re.compile(
    rf"(zarr\.json|(target|channel|frequency)/(zarr\.json|c/0)|{MAGNITUDE}/zarr\.json|{TRACK_GROUP}/([^/]+/)?zarr\.json)"
    rf"(\.[0-9a-f]{{8}}{re.escape(PARTIAL_SUFFIX)})?"
)

Row = dict[str, Any]
"""A row of the track table: values by column, as far as they are known."""


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
        last, _ = document.layout.block_of(document.tracks)
        blocks = document.layout.blocks(document.tracks)
        columns = {column.name: self._column(column.name, range(last, blocks)) for column in document.columns}
        # rows of the table's last chunk, which is written again when rows are added
        self._last_rows: list[Row] = [
            dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)
        ]
        self._names = set(self.column("name"))
        self._waiting: list[Row] = []
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
        committed = document.to_json()  # before anything is written: a transform may hold what JSON can't
        if not storage.is_empty():
            if storage.size(LOCK_KEY) is not None:
                WriterLock(storage).release()  # who is at it is the better message
            raise _exists(storage)
        lock = WriterLock(storage)
        try:
            if storage.get(ROOT_KEY, MOST_DOCUMENT_BYTES) is not None:
                raise _exists(storage)
            _write_array_documents(storage, document)
            write_coordinates(storage, document, transform)
            storage.set(ROOT_KEY, committed)
            return cls(storage, document, transform, lock)
        except BaseException:
            lock.release()
            raise

    @classmethod
    def of(cls, storage: Storage, check: Callable[[Document], None] | None = None) -> Committer:
        """Go on with a store, after what a process that died has left behind is deleted.

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
            If what is there is no store, or one of other codecs.
        """
        data = storage.get(ROOT_KEY, MOST_DOCUMENT_BYTES)
        if data is None:
            raise StoreNotFoundError(f"there is no store at {storage.name}: expected a {ROOT_KEY} there")
        lock = WriterLock(storage)
        try:
            # what another writer committed while this one waited at the door
            document = Document.from_json(storage.get(ROOT_KEY, MOST_DOCUMENT_BYTES) or data, storage.name)
            document.layout.check_own_codecs(storage.name, "can't be written on")
            if check is not None:
                check(document)
            transform = transform_from_config(document.transform, _frequencies(storage, document))
            _sweep(storage, document)
            return cls(storage, document, transform, lock)
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
        new = check_labels(labels, self._labels, len(self._names))
        row = {
            "name": name,
            "split": check_text(f"the split of {name!r}", split),
            "source": check_text(
                f"the source of {name!r}", os.fspath(source) if isinstance(source, os.PathLike) else source
            ),
            "metadata": metadata_text(metadata),
            **{label: value for label, value in (labels or {}).items() if value is not None},
        }
        return row, tuple(new.values())

    def expect(self, row: Row, new_columns: tuple[Column, ...]) -> None:
        """Take a checked row's name and columns; no other track can have that name from now on."""
        self._names.add(row["name"])
        self._labels = (*self._labels, *new_columns)

    @property
    def names(self) -> frozenset[str]:
        """Names of all tracks that are there or expected."""
        return frozenset(self._names)

    # ---- commits

    def add(self, rows: Sequence[Row]) -> None:
        """Take the rows of a bundle whose shards are written; commit, if the last time is some seconds ago."""
        self._waiting += rows
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
            last, layout = self._waiting[-1], self.document.layout
            document = replace(
                self.document,
                tracks=self.document.tracks + len(self._waiting),
                frames=last["start"] + layout.chunks(last["frames"]) * layout.chunk_frames,
                labels=self._labels,
            )
            rows = self._last_rows + self._waiting
            self._lock.renew()  # before the rows, too: they may be another's by now
            self._write_rows(document, rows)
            self.storage.set(ROOT_KEY, document.to_json())
            self.document = document
            self._last_rows = rows[document.layout.full_blocks(len(rows)) :]
            self._waiting = []
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
        last, _ = self.document.layout.block_of(self.document.tracks)
        return self._column(name, range(last)) + [row[name] for row in self._last_rows]

    def _column(self, name: str, blocks: range) -> list[Any]:
        """Read some blocks of a column."""
        metadata = self.document.arrays()[f"{TRACK_GROUP}/{name}"]
        values: list[Any] = []
        for block in blocks:
            found = _read_block(self.storage, f"{TRACK_GROUP}/{name}", metadata, block)
            values += found[: len(self.document.layout.block_rows(block, self.document.tracks))].tolist()
        return values

    def _write_rows(self, document: Document, rows: Sequence[Row]) -> None:
        """Write rows from the beginning of the table's last chunk on."""
        arrays, known = document.arrays(), {column.name for column in self.document.columns}
        size = document.layout.rows
        first_block, _ = document.layout.block_of(self.document.tracks)
        for column in document.columns:
            # a new column begins at the first row, so that none of its chunks is missing
            missing: list[Row] = [] if column.name in known else [{}] * (first_block * size)
            values = _column_values(column, [*missing, *rows])
            block, path = (first_block if column.name in known else 0), f"{TRACK_GROUP}/{column.name}"
            if column.name not in known:
                self.storage.set(f"{path}/{ROOT_KEY}", json_bytes(arrays[path]))
            for begin in range(0, len(values), size):
                data = encode_block(arrays[path], values[begin : begin + size])
                self.storage.set(block_key(path, arrays[path], block), data)
                block += 1


def write_coordinates(storage: Storage, document: Document, transform: StoredTransform) -> None:
    """Write the arrays of labels and frequencies, and the documents of groups below the root."""
    storage.set(f"{TRACK_GROUP}/{ROOT_KEY}", json_bytes(group_document()))
    arrays = document.arrays()
    for path, values in (
        ("target", np.array(document.targets, dtype=object)),
        ("channel", np.array(document.channels, dtype=object)),
        ("frequency", transform.frequencies),
    ):
        storage.set(block_key(path, arrays[path]), encode_block(arrays[path], values))


def _write_array_documents(storage: Storage, document: Document) -> None:
    for path, metadata in document.arrays().items():
        storage.set(f"{path}/{ROOT_KEY}", json_bytes(metadata))


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


def _sweep(storage: Storage, document: Document) -> None:
    """Delete files that were begun and not finished, and shards that no document knows.

    A track's absent stem may come to lie where such a shard is.
    """
    first_free = document.layout.shards(document.layout.chunks(document.frames))
    storage.sweep()
    for key in storage.list(f"{MAGNITUDE}/c"):
        place = parse_shard_key(key)
        if place is not None and place[1] >= first_free:
            storage.delete(key)


def _frequencies(storage: Storage, document: Document) -> NDArray[np.float64]:
    return _read_block(storage, "frequency", document.arrays()["frequency"])


def _read_block(storage: Storage, path: str, metadata: Mapping[str, Any], block: int = 0) -> NDArray[Any]:
    key = block_key(path, metadata, block)
    data = storage.get(key, MOST_BLOCK_BYTES)
    if data is None:
        raise DamagedError("the file is missing", key=key, store=storage.name)
    try:
        return decode_block(metadata, data)
    except DamagedError as error:
        raise DamagedError(f"the file can't be read: {error}", key=key, store=storage.name) from error


def _column_values(column: Column, rows: Sequence[Row]) -> NDArray[Any]:
    values = [row.get(column.name, column.fill_value) for row in rows]
    return np.array(values, dtype=object if column.data_type == "string" else column.data_type)
