"""What no reader would take is refused before it is written: documents, and blocks of text that are too large."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from norbert_store._format.arrays import LARGEST_BLOCK_BYTES
from norbert_store._format.document import Document
from norbert_store._format.table import Column
from norbert_store.errors import TrackError

_LENGTH_BYTES = 4  # before each text, and before all of them


def check_readable(document: Document, store: str) -> None:
    """Read a document as a reader will, before anything is written.

    Raises
    ------
    ValueError
        If a reader would refuse it.
    """
    try:
        Document.from_json(document.to_json(), store)
    except (TypeError, ValueError, RecursionError) as error:
        problem = str(error).removeprefix(f"{store}: ") or "it is nested too deep"
        raise ValueError(f"{store} can't be written so, since nobody could open it: {problem}") from error


class TextSizes:
    """How many bytes the texts of the table's last block take, which readers hold in memory as a whole.

    Parameters
    ----------
    rows : int
        Of a block.
    last_rows : sequence of mapping
        Those that are in the last block already, by the path of their column.
    columns : sequence of Column
    """

    def __init__(self, rows: int, last_rows: Sequence[Mapping[str, Any]], columns: Sequence[Column]) -> None:
        self._block_rows = rows
        self._rows = 0
        self._bytes: dict[str, int] = {}
        for row in last_rows:
            self.take(row, columns)

    def check(self, row: Mapping[str, Any], columns: Sequence[Column]) -> None:
        """Check that a row's texts come into the block without making it too large.

        Raises
        ------
        TrackError
            If they would.
        """
        for column, size in _text_bytes(row, columns):
            # texts that aren't there take the bytes of their length, and of the fill value
            empty = _LENGTH_BYTES + self._block_rows * (_LENGTH_BYTES + len(column.fill_value))
            if empty + self._before(column) + size > LARGEST_BLOCK_BYTES:
                what = f"label {column.name!r}" if column.key else column.name
                raise TrackError(
                    f"the {what} of track {row['track/name']!r} has {size} bytes, which is too much together with that "
                    f"of the tracks before it: readers take at most {LARGEST_BLOCK_BYTES} bytes for each "
                    f"{self._block_rows} tracks; shorten it, or keep it in a file of its own"
                )

    def take(self, row: Mapping[str, Any], columns: Sequence[Column]) -> None:
        """Count a row, which comes behind all others."""
        if self._rows == self._block_rows:
            self._rows, self._bytes = 0, {}
        for column, size in _text_bytes(row, columns):
            self._bytes[column.path] = self._before(column) + size
        self._rows += 1

    def _before(self, column: Column) -> int:
        return 0 if self._rows == self._block_rows else self._bytes.get(column.path, 0)


def _text_bytes(row: Mapping[str, Any], columns: Sequence[Column]) -> list[tuple[Column, int]]:
    """Size of a row's texts in UTF-8, as they are stored."""
    texts = [column for column in columns if column.data_type == "string" and row.get(column.path) is not None]
    return [(column, len(str(column.to_array([row[column.path]])[0]).encode())) for column in texts]
