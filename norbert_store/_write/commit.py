"""What makes tracks part of a store: rows of the track table, extents of their chunks, and the document that commits.

The order is always: shards (`norbert_store._write.bundle`), blocks of small arrays, then the document, each of them on
disk before the next is written. A process that dies at any moment leaves the last committed state, and perhaps files
that no document knows. What is changed of that state is `norbert_store._write.change`.

Where there is no system's lock, blocks and document are written in the place of those that this writer has last seen
(`norbert_store._storage.storage.Storage.write` and `commit`), so that one that is late overwrites nothing.
"""

from __future__ import annotations

import os
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from norbert_store._format.arrays import (
    LARGEST_BLOCK_BYTES,
    block_key,
    decoded_bytes,
    json_bytes,
)
from norbert_store._format.document import (
    CHUNK_GROUP,
    EXTENT_PARTS,
    MOST_DOCUMENT_BYTES,
    ROOT_KEY,
    Document,
    extent_block,
)
from norbert_store._format.layout import MAGNITUDE
from norbert_store._format.table import (
    BASE_COLUMNS,
    LABEL_GROUP,
    NOT_NOTED,
    SOURCE_BYTES,
    SOURCE_MODIFIED,
    TRACK_GROUP,
    Column,
    Label,
    check_name,
    check_text,
    metadata_text,
    new_labels,
)
from norbert_store._jpeg.encoder import DEFAULT_EFFORT, DEFAULT_QUALITY, check_effort, check_quality
from norbert_store._spectra.bins import StoredTransform, transform_from_config
from norbert_store._storage.folder import PARTIAL_SUFFIX
from norbert_store._storage.lock import LOCK_KEY, WriterLock
from norbert_store._storage.storage import Storage
from norbert_store._text import shown
from norbert_store._write.change import Blocks, block_files, change, row_blocks, settle
from norbert_store._write.limits import TextSizes, check_readable
from norbert_store.errors import (
    DamagedError,
    FormatError,
    StoreExistsError,
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

_NAME = f"{TRACK_GROUP}/name"

Row = dict[str, Any]
"""A row of the track table: values by the path of their column, as far as they are known."""

Extents = NDArray[np.uint32]
"""Extents of chunks, (targets, parts, channels, chunks)."""


class Closing(ABC):
    """What is closed when its ``with`` block ends, without hiding the error that ended it."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self.close()
        except Exception:
            # the first error is the one that people need to see
            if error is None:
                raise

    @abstractmethod
    def close(self) -> None:
        """Finish."""


class Committer(Closing):
    """The one that writes a store's table and document; nobody else does, as long as it is open.

    Made by `Committer.new` or `Committer.of`.

    Parameters
    ----------
    storage : Storage
    document : Document
        What is committed.
    transform : StoredTransform
    lock : WriterLock
    left_behind : set of str
        Keys of shards that were never committed.
    """

    def __init__(
        self,
        storage: Storage,
        document: Document,
        transform: StoredTransform,
        lock: WriterLock,
        left_behind: set[str] | None = None,
    ) -> None:
        self.document = document
        self.transform = transform
        self.storage = storage
        self.left_behind = set() if left_behind is None else left_behind
        self._lock = lock
        self._revision = document.revision
        self._labels = document.labels
        self._last_rows = self._read_last_rows()
        self._last_extents = self._read_last_extents()
        self._lasts_are_known = True
        self._names = set(self.column("name"))
        self._waiting: list[Row] = []
        self._waiting_extents: list[tuple[int, Extents]] = []
        # of what is committed: names of tracks that are written anew, cells of others, and facts of the whole
        self._anew: set[str] = set()
        self._edited: dict[str, Row] = {}
        self._about: dict[str, str] = {}
        self._texts = TextSizes(document.layout.rows, self._last_rows, document.columns)
        self._committed_at = time.monotonic()

    @classmethod
    def new(
        cls, storage: Storage, document: Document, transform: StoredTransform, over_leftovers: bool = False
    ) -> Committer:
        """Write an empty store: it can be opened from now on.

        Parameters
        ----------
        storage : Storage
        document : Document
        transform : StoredTransform
        over_leftovers : bool
            Whether there may be what `check_leftovers` lets pass.

        Raises
        ------
        StoreExistsError
            If there is something at the location.
        StoreInUseError
            If somebody is writing there.
        """
        blocks = _coordinates(document, transform)
        document = document.with_blocks(blocks)
        check_readable(document, storage.name)  # before anything is written: a transform may hold what JSON can't
        if not over_leftovers and not storage.is_empty():
            if not storage.is_session and storage.size(LOCK_KEY) is not None:
                WriterLock(storage).release()  # who is at it is the better message
            raise _exists(storage)
        lock = WriterLock(storage)
        try:
            if storage.get(ROOT_KEY, MOST_DOCUMENT_BYTES) is not None:
                raise _exists(storage)
            storage.sync_folder()
            for key, node in document.nodes().items():
                storage.write(key, json_bytes(node))
            for key, data in block_files(document, blocks).items():
                storage.write(key, data)
            storage.commit(ROOT_KEY, document.to_json(not storage.is_session))
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
        if storage.get(ROOT_KEY, MOST_DOCUMENT_BYTES) is None:  # so that no lock is left where there is no store
            raise StoreNotFoundError(f"there is no store at {storage.name}: expected a {ROOT_KEY} there")
        transforms: list[StoredTransform] = []

        def check_all(document: Document) -> None:
            check_writable(storage, document)
            if check is not None:
                check(document)
            frequency = _read_block(storage, document, "frequency", (0,))
            transforms.append(transform_from_config(document.transform, frequency))

        lock = WriterLock(storage)
        try:
            settled = settle(storage, check_all)
            return cls(storage, settled.document, transforms[-1], lock, settled.left_behind)
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
        files: Mapping[str, tuple[int, int]] | None = None,
        anew: bool = False,
    ) -> tuple[Row, tuple[Column, ...]]:
        """Check what goes into the track table, before any work is done; return it, and columns that are new.

        Parameters
        ----------
        name, split, source, metadata, labels
            As for `norbert_store.Writer.add`.
        files : mapping, optional
            Of the files that the audio is in, by target: length in bytes, and when it was modified, ns since 1970.
        anew : bool
            Whether the track is to take the place of the one of this name that is committed.

        Raises
        ------
        TrackError
            If it doesn't fit.
        """
        if check_name(name) in self._names and not anew:
            raise TrackError(f"there is a track named {name!r} already; every name stands once")
        new = new_labels(labels, self._labels)
        paths = {column.name: column.path for column in (*self._labels, *new)}
        states = [(files or {}).get(target, (NOT_NOTED, NOT_NOTED)) for target in self.document.targets]
        row = {
            _NAME: name,
            f"{TRACK_GROUP}/split": check_text(f"the split of {name!r}", split),
            f"{TRACK_GROUP}/source": check_text(
                f"the source of {name!r}", os.fspath(source) if isinstance(source, os.PathLike) else source
            ),
            f"{TRACK_GROUP}/metadata": metadata_text(metadata),
            SOURCE_BYTES: [length for length, _ in states],
            SOURCE_MODIFIED: [modified for _, modified in states],
            **{paths[label]: value for label, value in (labels or {}).items() if value is not None},
        }
        self._texts.check(row, (*BASE_COLUMNS, *self._labels, *new))
        return row, new

    def expect(self, row: Row, new_columns: tuple[Column, ...], anew: bool = False) -> None:
        """Take a checked row's name and columns; no other track can have that name from now on."""
        self._texts.take(row, (*BASE_COLUMNS, *self._labels, *new_columns))
        self._names.add(row[_NAME])
        if anew:
            self._anew.add(row[_NAME])
        self._labels = (*self._labels, *new_columns)

    def edit(self, cells: Row, new_columns: tuple[Column, ...]) -> None:
        """Have the next commit change some cells of a track that is committed; its name is one of them."""
        self._edited[cells[_NAME]] = cells
        self._labels = (*self._labels, *new_columns)

    def describe(self, about: Mapping[str, str]) -> None:
        """Have the next commit change what is said of the whole: title, license, citation."""
        self._about.update(about)

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
            Of these, one whose name is committed takes the place of that row, whose other cells it keeps.
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
        self._read_lasts()
        anew = {row[_NAME] for row in self._waiting} & self._anew
        if anew or self._edited or self._about:
            self._commit_change(anew)
        elif self._waiting:
            self._commit_behind()
        self._committed_at = time.monotonic()

    def _move_on(self, document: Document) -> None:
        """Take a document as committed: whatever fails from here on, nothing is committed twice."""
        self.document = document
        self._anew -= {row[_NAME] for row in self._waiting}
        self._edited, self._about, self._waiting, self._waiting_extents = {}, {}, [], []
        self._lasts_are_known = False

    def _read_lasts(self) -> None:
        """Read what grows in the last blocks, unless it is known."""
        if not self._lasts_are_known:
            self._last_rows = self._read_last_rows()
            self._last_extents = self._read_last_extents()
            self._lasts_are_known = True

    def _commit_behind(self) -> None:
        """Commit rows behind those that are there, which stay as they are."""
        document = self._next(tracks=self.document.tracks + len(self._waiting))
        rows = self._last_rows + self._waiting
        self._lock.renew()  # before the rows, too: they may be another's by now
        blocks = {**self._blocks_of_rows(document, rows), **self._blocks_of_extents(document)}
        document = self._checked(document, blocks)
        self._write_labels(document)
        for key, data in block_files(document, blocks).items():
            self.storage.write(key, data)
        self.storage.commit(ROOT_KEY, document.to_json(not self.storage.is_session))
        self._move_on(document)
        self._last_rows = rows[document.layout.full_blocks(len(rows)) :]
        self._last_extents = self._last_extents_of(document, blocks)
        self._lasts_are_known = True

    def _commit_change(self, anew: Collection[str]) -> None:
        """Commit what changes rows that are there, together with what comes behind them: all of it, or nothing.

        A row whose track was written anew goes, and the new one comes to the end, as its chunks do.
        """
        numbers = {
            name: number for number, name in enumerate(self.column("name")) if name in anew or name in self._edited
        }
        gone = sorted(numbers[name] for name in anew)
        tracks = self.document.tracks - len(gone) + len(self._waiting)
        document = self._next(tracks=tracks, edition=self.document.edition + bool(gone))
        self._lock.renew()
        blocks = {**self._changed_rows(document, numbers, gone), **self._changed_extents(document, gone)}
        document = self._checked(document, blocks)
        self._write_labels(document)
        self._move_on(change(self.storage, document, block_files(document, blocks)))
        self._revision = self.document.revision
        self._read_lasts()

    def _next(self, **changes: Any) -> Document:
        """Return the document of the next commit, without the checksums of what changes."""
        chunks = self.document.chunks
        if self._waiting_extents:
            first, extents = self._waiting_extents[-1]
            chunks = first + extents.shape[-1]
        about = {**self.document.about, **self._about}
        self._revision += 1  # another one each time: what has failed may be there all the same
        document = self.document.next(chunks=chunks, labels=self._labels, about=about, **changes)
        return replace(document, revision=self._revision)

    def _checked(self, document: Document, blocks: Blocks) -> Document:
        """Give a document its checksums; nothing is written that no reader would take.

        Raises
        ------
        TrackError
            If a reader wouldn't.
        """
        document = document.with_blocks(blocks)
        for (path, block), values in blocks.items():
            size = decoded_bytes(document.arrays()[path], values)
            if size > LARGEST_BLOCK_BYTES:
                name = next(column.name for column in document.columns if column.path == path)
                raise TrackError(
                    f"{self.storage.name}: {name!r} of the tracks in block {block[0]} of the table takes {size} bytes; "
                    f"a block has at most {LARGEST_BLOCK_BYTES}"
                )
        if document.labels != self.document.labels or document.about != self.document.about:
            check_readable(document, self.storage.name)
        return document

    def close(self) -> None:
        """Commit, and let others write."""
        try:
            self.commit()
            self._lock.renew()
            # programs that don't know consolidated metadata read these
            for key, node in self.document.nodes().items():
                self.storage.set(key, json_bytes(node))
        finally:
            self._lock.release()

    def column(self, name: str) -> list[Any]:
        """Values of one of the columns that every table has, for all rows that are committed."""
        return self.values(self.document.column(name))

    def values(self, column: Column) -> list[Any]:
        """Values of any column, for all rows that are committed."""
        last, _ = self.document.layout.block_of(self.document.tracks)
        return self._column(column, range(last)) + [row.get(column.path) for row in self._last_rows]

    def _column(self, column: Column, blocks: range) -> list[Any]:
        """Read some blocks of a column."""
        found = (_read_block(self.storage, self.document, column.path, column.block(number)) for number in blocks)
        return [column.value(value) for values in found for value in values.tolist()]

    def _read_last_rows(self) -> list[Row]:
        """Read the rows of the table's last block, which is written again when it grows, unless it is full."""
        last, _ = self.document.layout.block_of(self.document.tracks)
        blocks = range(last, self.document.layout.blocks(self.document.tracks))
        columns = {column.path: self._column(column, blocks) for column in self.document.columns}
        return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]

    def _read_last_extents(self) -> Extents:
        """Read the extents in the last block of each target, as far as they are committed."""
        document = self.document
        targets, channels = len(document.targets), len(document.channels)
        block, within = document.layout.extent_block_of(document.chunks)
        extents = np.zeros((targets, EXTENT_PARTS, channels, within), np.uint32)
        for target in range(targets if within else 0):
            extents[target] = _read_block(self.storage, document, *extent_block(target, block))[0]
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
            blocks |= row_blocks(document, column, values, first_block if column.path in known else 0)
        return blocks

    def _changed_rows(self, document: Document, numbers: Mapping[str, int], gone: Sequence[int]) -> Blocks:
        """Values of the blocks from the first row on that changes.

        Parameters
        ----------
        document : Document
            The next one.
        numbers : mapping of str to int
            Rows that change, by name.
        gone : sequence of int
            Those that go; the new rows of their tracks keep the cells that they don't have themselves.
        """
        known, rows = {column.path for column in self.document.columns}, np.arange(self.document.tracks)
        first_changed, _ = document.layout.block_of(min([*numbers.values(), self.document.tracks]))
        blocks: Blocks = {}
        for column in document.columns:
            path, first_block = column.path, first_changed if column.path in known else 0
            before = [*self.values(column)] if column.path in known else [None] * self.document.tracks
            for name, cells in self._edited.items():
                before[numbers[name]] = cells.get(path, before[numbers[name]])
            after = [before[row] for row in np.setdiff1d(rows, gone).tolist()]
            for row in self._waiting:
                kept = before[numbers[row[_NAME]]] if row[_NAME] in numbers else None
                after.append(row.get(path, kept))
            values = column.to_array(after[first_block * document.layout.rows :])
            blocks |= row_blocks(document, column, values, first_block)
        return blocks

    def _changed_extents(self, document: Document, gone: Sequence[int]) -> Blocks:
        """Values of the blocks of extents that change: those of rows that go become 0, new ones come behind."""
        blocks = self._blocks_of_extents(document) if self._waiting_extents else {}
        layout, starts, frames = document.layout, self.column("start"), self.column("frames")
        for row in gone:
            chunks = layout.chunk_span(starts[row], frames[row])
            for block, within, _ in layout.by_extent_block(chunks.start, chunks.stop):
                for target in range(len(document.targets)):
                    at = extent_block(target, block)
                    if at not in blocks:
                        blocks[at] = _read_block(self.storage, self.document, *at).copy()
                    blocks[at][..., within] = 0
        return blocks

    def _blocks_of_extents(self, document: Document) -> Blocks:
        """Values of the blocks that new extents come to lie in."""
        _, within = document.layout.extent_block_of(self.document.chunks)
        begin = self.document.chunks - within
        extents = np.zeros((*self._last_extents.shape[:-1], document.chunks - begin), np.uint32)
        extents[..., :within] = self._last_extents
        for first, some in self._waiting_extents:
            extents[..., first - begin : first - begin + some.shape[-1]] = some
        return {
            extent_block(target, block): extents[target : target + 1, ..., part]
            for block, _, part in document.layout.by_extent_block(begin, document.chunks)
            for target in range(len(extents))
        }

    def _last_extents_of(self, document: Document, blocks: Blocks) -> Extents:
        """Extents in the last block of each target, if that isn't full."""
        block, within = document.layout.extent_block_of(document.chunks)
        if not within:
            return np.zeros((*self._last_extents.shape[:-1], 0), np.uint32)
        return np.concatenate([blocks[extent_block(target, block)] for target in range(len(document.targets))])

    def _write_labels(self, document: Document) -> None:
        """Write the documents of the arrays of new labels."""
        arrays, known = document.arrays(), set(self.document.small_arrays)
        for path in document.small_arrays:
            # a session takes no blocks behind the end of an array
            if path not in known or self.storage.is_session:
                self.storage.write(f"{path}/{ROOT_KEY}", json_bytes(arrays[path]))


def _coordinates(document: Document, transform: StoredTransform) -> Blocks:
    """Labels and frequencies of the axes."""
    return {
        ("target", (0,)): np.array(document.targets, dtype=object),
        ("channel", (0,)): np.array(document.channels, dtype=object),
        ("frequency", (0,)): np.asarray(transform.frequencies, np.float64),
    }


def check_writable(storage: Storage, document: Document) -> None:
    """Check that this version can write on a store.

    Raises
    ------
    FormatError
        If the store has features that it doesn't know, or an encoder that isn't there.
    """
    if document.writes:
        raise FormatError(
            f"{storage.name} has features that this version can't write on: {shown(list(document.writes))}; "
            "upgrade norbert_store"
        )
    try:
        check_quality(document.encoder.get("quality", DEFAULT_QUALITY))
        check_effort(document.encoder.get("effort", DEFAULT_EFFORT))
    except ValueError as error:
        raise FormatError(f"{storage.name}: its 'encoder' can't be written with: {error}") from None


def check_leftovers(storage: Storage) -> None:
    """Check that at a place is only what a process has left that died before it had written an empty store.

    In a folder it is deleted; elsewhere, where this may be late, it is written over.

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
        for key in keys if storage.local is not None else ():
            if key != LOCK_KEY:
                storage.delete(key)
    finally:
        lock.release()


def _exists(storage: Storage) -> StoreExistsError:
    return StoreExistsError(f"{storage.name} exists already and isn't empty; give another place, or delete it first")


def _read_block(storage: Storage, document: Document, path: str, block: tuple[int, ...]) -> NDArray[Any]:
    key = block_key(path, block)
    try:
        return document.check_block(path, block, storage.get_for_update(key, LARGEST_BLOCK_BYTES))
    except DamagedError as error:
        raise DamagedError(error.problem, key=key, store=storage.name) from error
