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
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from norbert_store._format.arrays import LARGEST_BLOCK_BYTES, block_key, nothing, valid_part
from norbert_store._format.document import MOST_DOCUMENT_BYTES, ROOT_KEY, Document, block_sum, extent_block, pending_key
from norbert_store._format.layout import MOST_FRAMES, ChunkAt
from norbert_store._format.table import BY_TARGET, LABEL_GROUP, TRACK_GROUP
from norbert_store._lazy import lazy
from norbert_store._spectra.bins import StoredTransform, transform_from_config
from norbert_store._storage.cache import Recent
from norbert_store._storage.storage import Location, Storage
from norbert_store._text import shown
from norbert_store.errors import (
    DamagedError,
    FormatError,
    NorbertStoreError,
    StoreChangedError,
    StoreNotFoundError,
    StoreReplacedError,
)

_BLOCK_BYTES_KEPT = 128 * 2**20
_TEXT_BYTES = 56  # of the object around it
_MOST_ENCODED_BYTES = LARGEST_BLOCK_BYTES + 2**16  # what can't be compressed grows a little

# columns of which a value changes only with the edition
_OF_EDITION = ("name", "start", "frames", "samples")


class Snapshot:
    """One committed state of a store; `Snapshot.open` reads it.

    Parameters
    ----------
    storage : Storage
    document : Document
    audio_root : Path, optional
        The folder that sources of tracks are read below; that which holds the store's, if left out.
    """

    def __init__(self, storage: Storage, document: Document, audio_root: Path | None = None) -> None:
        self.storage = storage
        self.document = document
        self.audio_root = audio_root
        self.layout = document.layout
        self.root_bytes = b""  # as they were read, for who checks what other programs read of them
        self._newest = document  # of the same rows, perhaps with others behind them, and other labels
        self._looked_at: object = None  # which file told that, where that can be known
        self._blocks: Recent[tuple[str, tuple[int, ...]], NDArray[Any]] = Recent(_BLOCK_BYTES_KEPT)

    @classmethod
    def open(cls, place: Location | Storage, audio_root: Path | None = None) -> Snapshot:
        """Read a store's document.

        Raises
        ------
        StoreNotFoundError
            If there is nothing there.
        FormatError
            If what is there is no store, breaks the format, or is newer than this library.
        """
        storage = place if isinstance(place, Storage) else Storage(place)
        data = storage.get(ROOT_KEY, MOST_DOCUMENT_BYTES)
        if data is None:
            raise StoreNotFoundError(f"there is no store at {storage.name}: expected a {ROOT_KEY} there")
        snapshot = cls(storage, Document.from_json(data, storage.name), audio_root)
        snapshot.root_bytes = data
        return snapshot

    def moved_on(self, document: Document) -> Snapshot:
        """Return the state that this process has just committed, of the same rows."""
        return Snapshot(self.storage, document, self.audio_root)

    def __getstate__(self) -> dict[str, Any]:
        # what the document tells is quickly made again
        kept = {key: value for key, value in self.__dict__.items() if key not in ("arrays", "transform")}
        return {**kept, "root_bytes": b"", "_looked_at": None}

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
                f"{self.name}: the transform {shown(config)} gives {len(transform.frequencies)} bins; the store's "
                f"chunks have {self.layout.bins}"
            )
        return transform

    def look_again(self) -> bool:
        """Read the document again, after something didn't fit it; tell whether there is a newer one to go by.

        Raises
        ------
        StoreReplacedError
            If there is another store at the location now, an older state of this one, or one that went on in another
            way.
        StoreChangedError
            If rows have moved since this one was opened.
        """
        local = self.storage.local
        state = None if local is None else local.state(ROOT_KEY)
        # of what is damaged in many places, each would have it read again
        if state is not None and state == self._looked_at:
            return False
        data = self.storage.get(ROOT_KEY, MOST_DOCUMENT_BYTES)
        if data is None:
            raise StoreNotFoundError(f"the store at {self.name} isn't there any more")
        newest, known = Document.from_json(data, self.name), self._newest
        if newest.id != self.document.id:
            raise StoreReplacedError(f"{self.name} was replaced by another store since it was opened; open it again")
        if newest.edition != self.document.edition:
            raise StoreChangedError(f"tracks of {self.name} have moved since it was opened; open it again")
        if self.document.revision <= newest.revision < known.revision:  # another thread has looked since
            return False
        if newest == known:
            self._looked_at = state
            return False
        if newest.revision <= known.revision or not self._is_followed_by(newest):
            raise StoreReplacedError(
                f"{self.name} was replaced by an older state of itself, or by a copy that was written to in another "
                "way, since it was opened; open it again"
            )
        self._newest, self._looked_at = newest, state
        return True

    def _is_followed_by(self, newest: Document) -> bool:
        """Whether a document is of a later state of these rows, whose names and places change only with the edition."""
        rows = self.document.tracks
        full, rest = self.layout.block_of(rows)
        if newest.layout != self.layout or newest.tracks < rows or newest.chunks < self.document.chunks:
            return False
        for path in (f"{TRACK_GROUP}/{name}" for name in _OF_EDITION):
            if newest.sums[path][:full] != self.document.sums[path][:full]:
                return False
            if rest and not self._begins_alike(newest, path, (full,)):
                return False
        return True

    def _begins_alike(self, newest: Document, path: str, block: tuple[int, ...]) -> bool:
        """Whether a block of a newer document begins with what is valid here."""
        key = block_key(path, block)
        try:
            values = newest.check_block(path, block, self._get(key, newest))
        except DamagedError as error:
            raise DamagedError(error.problem, key=key, store=self.name) from error
        valid = valid_part(self.arrays[path], block, values)
        return block_sum(self.document.id, path, block, valid) == self.document.sums[path][block[0]]

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
            If it is missing, or isn't what the document says.
        """
        (values,) = self.read_blocks([(path, (0,))])
        return values

    def column(self, name: str) -> NDArray[Any]:
        """Read a whole column of the track table, or a label by its path, as it is stored; text as objects.

        Raises
        ------
        DamagedError
            As all that follow: if a part of it is missing, or isn't what the document says.
        """
        return self.columns([name])[name]

    def columns(self, names: Iterable[str]) -> dict[str, NDArray[Any]]:
        """Read whole columns, all at once."""
        blocks = range(max(1, self.layout.blocks(self.document.tracks)))
        names = list(names)
        found = self._load([self._block_at(name, block) for name in names for block in blocks])
        return {name: np.concatenate([found[self._block_at(name, block)] for block in blocks]) for name in names}

    def column_block(self, name: str, block: int) -> NDArray[Any]:
        """Read one block of a column; of a table of several blocks, without remembering it."""
        at = self._block_at(name, block)
        if self.document.tracks <= self.layout.rows:
            return self._load([at])[at]
        (values,) = self.read_blocks([at])
        return values

    def cell(self, name: str, row: int) -> Any:
        """Read one row of a column."""
        block, within = self.layout.block_of(row)
        at = self._block_at(name, block)
        values = self._blocks.get(at)
        if values is None:
            values = self._load([at])[at]
        return values[within]

    def cells(self, names: Sequence[str], row: int) -> list[Any]:
        """Read one row of some columns, all at once."""
        block, within = self.layout.block_of(row)
        found = self._load([self._block_at(name, block) for name in names])
        return [found[self._block_at(name, block)][within] for name in names]

    def _block_at(self, name: str, block: int) -> tuple[str, tuple[int, ...]]:
        path = name if name.startswith(f"{LABEL_GROUP}/") else f"{TRACK_GROUP}/{name}"
        return path, (block, 0) if path in BY_TARGET else (block,)

    def spans(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Read where tracks start along the packed axis, and how many frames they have.

        Raises
        ------
        DamagedError
            If one of them can't lie there.
        """
        columns = self.columns(("start", "frames"))
        starts, frames = columns["start"][rows], columns["frames"][rows]
        for row in rows[
            (starts < 0) | (frames <= 0) | (frames > self.document.frames - starts) | (frames > MOST_FRAMES)
        ].tolist():
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
        problem = None
        if start < 0 or not 0 < frames <= end - start:
            problem = f"it lies at frames {start} to {start + frames}; expected it between 0 and {end}"
        elif frames > MOST_FRAMES:
            problem = f"it has {frames} frames; expected at most {MOST_FRAMES}"
        if problem:
            raise DamagedError(problem, store=self.name, track=str(self.cell("name", row)))

    # ---- where chunks lie

    def extents(self, target: int, first: int, stop: int) -> NDArray[np.uint32]:
        """Read where chunks lie in their shards: (parts, channels, chunks), see `EXTENT_PARTS`.

        Parameters
        ----------
        target : int
        first, stop : int
            Along the packed axis.

        Raises
        ------
        DamagedError
            If they are missing, or aren't what the document says.
        """
        parts = [(extent_block(target, block), within) for block, within, _ in self.layout.by_extent_block(first, stop)]
        if len(parts) == 1:
            [(at, within)] = parts
            block = self._blocks.get(at)
            return (self._load([at])[at] if block is None else block)[0, ..., within]
        blocks = self._load([at for at, _ in parts])
        return np.concatenate([blocks[at][0, ..., within] for at, within in parts], axis=-1)

    def forget_extents(self, target: int, number: int) -> None:
        """Forget where a chunk lies, because it doesn't lie there any more."""
        block, _ = self.layout.extent_block_of(number)
        self._blocks.drop(extent_block(target, block))

    def load_extents(self, wanted: Iterable[tuple[int, int]]) -> None:
        """Read the extents of some chunks (target, position), all at once, to be remembered."""
        block_of = self.layout.extent_block_of
        self._load(sorted({extent_block(target, block_of(number)[0]) for target, number in wanted}))

    # ---- blocks

    def _load(self, wanted: Sequence[tuple[str, tuple[int, ...]]]) -> dict[tuple[str, tuple[int, ...]], NDArray[Any]]:
        """Read blocks of small arrays (path, position), or remember them."""
        found = {at: values for at in wanted if (values := self._blocks.get(at)) is not None}
        missing = [at for at in wanted if at not in found]
        if missing:
            for at, values in zip(missing, self.read_blocks(missing), strict=True):
                self._blocks.put(at, values, _size(values))
                found[at] = values
        return found

    def read_blocks(self, wanted: Sequence[tuple[str, tuple[int, ...]]]) -> list[NDArray[Any]]:
        """Read blocks (path, position), all at once: of each what belongs to this state.

        Raises
        ------
        DamagedError
            If one is missing, or isn't what the document says.
        """
        found = self.storage.get_many([self.places_of(block_key(*at))[0] for at in wanted], _MOST_ENCODED_BYTES)
        return [self._checked(path, block, data) for (path, block), data in zip(wanted, found, strict=True)]

    def places_of(self, key: str, document: Document | None = None) -> list[str]:
        """Where a file may lie: while it is being replaced, its new bytes are pending first."""
        document = document or self._newest
        return [pending_key(document.revision, key), key] if key in document.pending else [key]

    def place_of(self, key: str) -> str:
        """Where a file lies now: while it is being replaced, its new bytes may be pending."""
        first, *others = self.places_of(key)
        return first if not others or self.storage.size(first) is not None else key

    def _get(self, key: str, document: Document | None = None) -> bytes | None:
        """Read a file from the first of its places where it is."""
        found = (self.storage.get(place, _MOST_ENCODED_BYTES) for place in self.places_of(key, document))
        return next((data for data in found if data is not None), None)

    def _checked(self, path: str, block: tuple[int, ...], data: bytes | None) -> NDArray[Any]:
        """Decode a block and compare it with the document's checksum, or a newer document's."""
        try:
            return self._decode(path, block, data)
        except DamagedError:
            # it may have been written meanwhile: then a newer document tells, or its bytes have come to their place
            self.look_again()
        key = block_key(path, block)
        try:
            return self._decode(path, block, self._get(key))
        except DamagedError as error:
            raise DamagedError(error.problem, key=key, store=self.name) from error

    def _decode(self, path: str, block: tuple[int, ...], data: bytes | None) -> NDArray[Any]:
        metadata = self.arrays[path]
        if 0 in metadata["shape"]:
            return nothing(metadata)
        # what is valid here is the beginning of what is valid in a newer state
        return valid_part(metadata, block, self._newest.check_block(path, block, data))

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


def _size(values: NDArray[Any]) -> int:
    """Memory that values take."""
    if values.dtype != object:
        return values.nbytes
    return values.nbytes + sum(len(text) + _TEXT_BYTES for text in values.ravel().tolist())
