"""What a store that was opened says of itself: its document, the labels of its axes, and its track table.

Conventions
-----------
Rows are those of the track table, from 0. Columns are remembered, up to a number of bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from norbert_store._format.arrays import block_key, decode_block, empty_block
from norbert_store._format.document import ROOT_KEY, Document
from norbert_store._format.table import TRACK_GROUP
from norbert_store._storage.cache import Recent
from norbert_store._storage.storage import Location, Storage
from norbert_store.errors import DamagedError, StoreNotFoundError

_COLUMN_BYTES_KEPT = 256 * 2**20
_TEXT_BYTES = 100
_ALL_BYTES = 2**40  # more than any array's chunk has


class OpenedStore:
    """One committed state of a store.

    Parameters
    ----------
    location : str, path or zarr store

    Raises
    ------
    StoreNotFoundError
        If there is nothing there.
    FormatError
        If what is there is no store, breaks the format, or is newer than this library.
    """

    def __init__(self, location: Location) -> None:
        self.storage = Storage(location)
        self._root_state = self.storage.state(ROOT_KEY)
        data = self.storage.get(ROOT_KEY)
        if data is None:
            raise StoreNotFoundError(f"there is no store at {self.storage.name}: expected a {ROOT_KEY} there")
        self.document = Document.from_json(data, self.storage.name)
        self.layout = self.document.layout
        self._blocks: Recent[tuple[str, int], NDArray[Any]] = Recent(_COLUMN_BYTES_KEPT)

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_arrays"}

    @property
    def name(self) -> str:
        """The store's location, for people."""
        return self.storage.name

    @cached_property
    def _arrays(self) -> dict[str, dict[str, Any]]:
        return self.document.arrays()

    def _check_same_store(self, in_doubt: bool = False) -> None:
        """Check, after something was read, that the store is still the one that was opened, perhaps with more tracks.

        In a folder, a look at the document's file tells whether there is anything to check; elsewhere it would cost a
        request, and is done ``in_doubt`` alone.
        """
        state = self.storage.state(ROOT_KEY)
        if state == self._root_state and not in_doubt:
            return
        data = self.storage.get(ROOT_KEY)
        if data is None:
            raise StoreNotFoundError(f"the store at {self.name} isn't there any more")
        then, now = self.document, Document.from_json(data, self.name)
        same = all(getattr(then, part) == getattr(now, part) for part in ("layout", "targets", "channels", "transform"))
        if not same or now.tracks < then.tracks or now.frames < then.frames:
            raise DamagedError(f"{self.name} was replaced since it was opened, or lost tracks; open it again")
        self._root_state = state

    # ---- the track table, and the labels of axes

    @cached_property
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
        (values,) = self._array_chunks([(path, 0)])
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

    def column_part(self, name: str, block: int) -> NDArray[Any]:
        """Read one chunk of a column, without remembering it."""
        (values,) = self._array_chunks([(f"{TRACK_GROUP}/{name}", block)])
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

    def extents(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Read where tracks start along the packed axis, and how many frames they have.

        Raises
        ------
        DamagedError
            If one of them can't lie there.
        """
        columns = self.columns(("start", "frames"))
        starts, frames = columns["start"][rows], columns["frames"][rows]
        end = self.document.frames
        for row in rows[(starts < 0) | (frames <= 0) | (frames > end - starts)].tolist():
            raise DamagedError(
                f"{self.name}: track {self.cell('name', row)!r} starts at frame {columns['start'][row]} and has "
                f"{columns['frames'][row]}; expected it between 0 and {end}"
            )
        return starts, frames

    def _load_blocks(self, wanted: Sequence[tuple[str, int]]) -> dict[tuple[str, int], NDArray[Any]]:
        """Read parts (column, chunk of rows), or remember them."""
        found = {at: values for at in wanted if (values := self._blocks.get(at)) is not None}
        missing = [at for at in wanted if at not in found]
        if missing:
            chunks = self._array_chunks([(f"{TRACK_GROUP}/{name}", block) for name, block in missing])
            for at, values in zip(missing, chunks, strict=True):
                size = _TEXT_BYTES * values.size if values.dtype == object else values.nbytes
                self._blocks.put(at, values, size)
                found[at] = values
        return found

    def _array_chunks(self, wanted: Sequence[tuple[str, int]]) -> Iterator[NDArray[Any]]:
        """Read chunks of arrays that have one along all axes but the first: (array, position along the first)."""
        keys = [block_key(path, self._arrays[path], block) for path, block in wanted]
        found = self.storage.get_ranges([(key, -_ALL_BYTES, _ALL_BYTES) for key in keys])
        self._check_same_store()
        for (path, block), key, data in zip(wanted, keys, found, strict=True):
            metadata = self._arrays[path]
            if data is None and 0 not in metadata["shape"]:
                raise DamagedError(f"{self.name}: {key} is missing")
            try:
                values = empty_block(metadata) if data is None else decode_block(metadata, data)
            except DamagedError as error:
                raise DamagedError(f"{self.name}: {key} can't be read: {error}") from error
            yield values[: metadata["shape"][0] - block * len(values)]
