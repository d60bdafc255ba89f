"""One committed state of a store: its document, the labels of its axes, and its track table.

It is opened once, and handed to all that read of it.

Conventions
-----------
Rows are those of the track table, from 0. Columns are remembered, up to a number of bytes.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from norbert_store._format.arrays import MOST_BLOCK_BYTES, block_key, decode_block, empty_block
from norbert_store._format.document import MOST_DOCUMENT_BYTES, ROOT_KEY, Document
from norbert_store._format.layout import ChunkAt
from norbert_store._format.table import TRACK_GROUP
from norbert_store._lazy import lazy
from norbert_store._spectra.bins import StoredTransform, transform_from_config
from norbert_store._storage.cache import Recent
from norbert_store._storage.storage import Location, Storage
from norbert_store.errors import DamagedError, FormatError, NorbertStoreError, StoreNotFoundError

_COLUMN_BYTES_KEPT = 256 * 2**20
_TEXT_BYTES = 100


class Snapshot:
    """One committed state of a store; `Snapshot.open` reads it.

    Parameters
    ----------
    storage : Storage
    document : Document
    """

    def __init__(self, storage: Storage, document: Document) -> None:
        self.storage = storage
        self.document = document
        self.layout = document.layout
        self.root_bytes = b""  # as they were read, for who checks what other programs read of them
        self._root_state: tuple[int, ...] | None = None
        self._blocks: Recent[tuple[str, int], NDArray[Any]] = Recent(_COLUMN_BYTES_KEPT)

    @classmethod
    def open(cls, place: Location | Storage) -> Snapshot:
        """Read a store's document.

        Raises
        ------
        StoreNotFoundError
            If there is nothing there.
        FormatError
            If what is there is no store, breaks the format, or is newer than this library.
        """
        storage = place if isinstance(place, Storage) else Storage(place)
        state = storage.state(ROOT_KEY)
        data = storage.get(ROOT_KEY, MOST_DOCUMENT_BYTES)
        if data is None:
            raise StoreNotFoundError(f"there is no store at {storage.name}: expected a {ROOT_KEY} there")
        snapshot = cls(storage, Document.from_json(data, storage.name))
        snapshot.root_bytes = data
        snapshot._root_state = state
        return snapshot

    def __getstate__(self) -> dict[str, Any]:
        # what the document tells is quickly made again
        kept = {key: value for key, value in self.__dict__.items() if key not in ("arrays", "transform")}
        return {**kept, "root_bytes": b""}

    @property
    def name(self) -> str:
        """The store's location, for people."""
        return self.storage.name

    @lazy
    def arrays(self) -> dict[str, dict[str, Any]]:
        """Metadata of all arrays, by path."""
        return self.document.arrays()

    @lazy
    def transform(self) -> StoredTransform:
        """How audio became magnitudes, and how they become audio again.

        Raises
        ------
        FormatError
            If the document's description of it can't be understood.
        DamagedError
            If it is told by /frequency alone, and that is damaged.
        """
        config = self.document.transform
        try:
            transform = transform_from_config(config, None if config["name"] in ("stft", "mel") else self.frequencies)
        except FormatError as error:
            raise FormatError(f"{self.name}: {error}") from error
        if len(transform.frequencies) != self.layout.bins:
            raise FormatError(
                f"{self.name}: the transform {config!r} gives {len(transform.frequencies)} bins; the store's chunks "
                f"have {self.layout.bins}"
            )
        return transform

    def check_current(self, in_doubt: bool = False) -> None:
        """Check, after something was read, that the store is still the one that was opened, perhaps with more tracks.

        In a folder, a look at the document's file tells whether there is anything to check; elsewhere it would cost a
        request, and is done ``in_doubt`` alone.

        Raises
        ------
        DamagedError
            If it isn't.
        """
        state = self.storage.state(ROOT_KEY)
        if state == self._root_state and not in_doubt:
            return
        data = self.storage.get(ROOT_KEY, MOST_DOCUMENT_BYTES)
        if data is None:
            raise StoreNotFoundError(f"the store at {self.name} isn't there any more")
        then, now = self.document, Document.from_json(data, self.name)
        same = all(getattr(then, part) == getattr(now, part) for part in ("layout", "targets", "channels", "transform"))
        if not same or now.tracks < then.tracks or now.frames < then.frames:
            raise DamagedError("it was replaced since it was opened, or lost tracks; open it again", store=self.name)
        self._root_state = state

    # ---- the track table, and the labels of axes

    @lazy
    def frequencies(self) -> NDArray[np.float64]:
        """Hz of every bin."""
        return self.coordinate("frequency")

    def coordinate(self, path: str) -> NDArray[Any]:
        """Read one of the arrays /target, /channel and /frequency; text as objects.

        Raises
        ------
        DamagedError
            If it is missing, or fails its checksum.
        """
        (values,) = self._read_blocks([(path, 0)])
        return values

    def column(self, name: str) -> NDArray[Any]:
        """Read a whole column of the track table; text as objects.

        Raises
        ------
        DamagedError
            As all that follow: if a part of it is missing, or fails its checksum.
        """
        return self.columns([name])[name]

    def columns(self, names: Iterable[str]) -> dict[str, NDArray[Any]]:
        """Read whole columns, all at once."""
        blocks = range(max(1, self.layout.blocks(self.document.tracks)))
        names = list(names)
        found = self._load_blocks([(name, block) for name in names for block in blocks])
        return {name: np.concatenate([found[name, block] for block in blocks]) for name in names}

    def column_block(self, name: str, block: int) -> NDArray[Any]:
        """Read one block of a column; of a table of several blocks, without remembering it."""
        if self.document.tracks <= self.layout.rows:
            return self._load_blocks([(name, block)])[name, block]
        (values,) = self._read_blocks([(f"{TRACK_GROUP}/{name}", block)])
        return values

    def cell(self, name: str, row: int) -> Any:
        """Read one row of a column."""
        block, within = self.layout.block_of(row)
        values = self._blocks.get((name, block))
        if values is None:
            values = self._load_blocks([(name, block)])[name, block]
        return values[within]

    def cells(self, names: Sequence[str], row: int) -> list[Any]:
        """Read one row of some columns, all at once."""
        block, within = self.layout.block_of(row)
        found = self._load_blocks([(name, block) for name in names])
        return [found[name, block][within] for name in names]

    def spans(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Read where tracks start along the packed axis, and how many frames they have.

        Raises
        ------
        DamagedError
            If one of them can't lie there.
        """
        columns = self.columns(("start", "frames"))
        starts, frames = columns["start"][rows], columns["frames"][rows]
        for row in rows[(starts < 0) | (frames <= 0) | (frames > self.document.frames - starts)].tolist():
            self._check_span(row, int(columns["start"][row]), int(columns["frames"][row]))
        return starts, frames

    def span(self, row: int) -> tuple[int, int]:
        """Read where a track starts along the packed axis, and how many frames it has.

        Raises
        ------
        DamagedError
            If it can't lie there.
        """
        start, frames = map(int, self.cells(("start", "frames"), row))
        self._check_span(row, start, frames)
        return start, frames

    def _check_span(self, row: int, start: int, frames: int) -> None:
        end = self.document.frames
        if start < 0 or not 0 < frames <= end - start:
            raise DamagedError(
                f"it lies at frames {start} to {start + frames}; expected it between 0 and {end}",
                store=self.name,
                track=str(self.cell("name", row)),
            )

    def _load_blocks(self, wanted: Sequence[tuple[str, int]]) -> dict[tuple[str, int], NDArray[Any]]:
        """Read blocks (column, block), or remember them."""
        found = {at: values for at in wanted if (values := self._blocks.get(at)) is not None}
        missing = [at for at in wanted if at not in found]
        if missing:
            blocks = self._read_blocks([(f"{TRACK_GROUP}/{name}", block) for name, block in missing])
            for at, values in zip(missing, blocks, strict=True):
                size = _TEXT_BYTES * values.size if values.dtype == object else values.nbytes
                self._blocks.put(at, values, size)
                found[at] = values
        return found

    def _read_blocks(self, wanted: Sequence[tuple[str, int]]) -> Iterator[NDArray[Any]]:
        """Read blocks of small arrays: (array, block)."""
        keys = [block_key(path, self.arrays[path], block) for path, block in wanted]
        found = self.storage.get_many(keys, MOST_BLOCK_BYTES)
        self.check_current()
        for (path, block), key, data in zip(wanted, keys, found, strict=True):
            metadata = self.arrays[path]
            if data is None and 0 not in metadata["shape"]:
                raise DamagedError("the file is missing", key=key, store=self.name)
            try:
                values = empty_block(metadata) if data is None else decode_block(metadata, data)
            except DamagedError as error:
                raise DamagedError(f"the file can't be read: {error}", key=key, store=self.name) from error
            yield values[: metadata["shape"][0] - block * len(values)]

    # ---- whose a chunk is

    def must_be_there(self, at: ChunkAt) -> bool:
        """Whether a track that has the target lies where a chunk is."""
        row = self.row_of(at)
        return row is not None and bool(self.cell("present", row)[at.target])

    def row_of(self, at: ChunkAt) -> int | None:
        """Find the track that a chunk belongs to; rows are in the order of the packed axis."""
        if at.row is not None:
            return at.row
        frame = self.layout.frame_of(at.number)
        row = bisect_right(range(self.document.tracks), frame, key=lambda row: self.cell("start", row)) - 1
        if row < 0:
            return None
        start, frames = self.cells(("start", "frames"), row)
        return row if at.number < self.layout.chunk_of(start) + self.layout.chunks(frames) else None

    @contextmanager
    def naming(self) -> Iterator[None]:
        """Add the names of store, track, target and channel to an error about a chunk."""
        try:
            yield
        except DamagedError as error:
            error.store = error.store or self.name
            if error.at is not None and error.target is None:
                self._add_names(error, ChunkAt(*error.at))
            raise

    def _add_names(self, error: DamagedError, at: ChunkAt) -> None:
        error.target = self.document.targets[at.target]
        if at.channel >= 0:
            error.channel = self.document.channels[at.channel]
        try:
            row = self.row_of(at)
            error.track = None if row is None else str(self.cell("name", row))
        except NorbertStoreError:  # of a damaged table, which must not hide what is to be told
            return
