"""Some rows of a JPEG, or all of them, into memory that each thread keeps: the decoding of everything that reads.

For JPEGs that came with a right checksum. Where everything stands as this library writes it, the few comparisons of
`Layout.find` replace the walk through the header; what looks otherwise is checked like a stranger's.
"""

from __future__ import annotations

import threading
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from norbert_store._jpeg import stream
from norbert_store._jpeg.layout import BLOCK, Layout, Segments, blocks_along
from norbert_store.errors import JpegError


class Rows(NamedTuple):
    """Some rows of a JPEG.

    Attributes
    ----------
    levels : ndarray of uint8
        (rows, columns): those that were asked for, as far as the image goes.
    scale : int
        Level 255 stands for 2 to this power.
    """

    levels: NDArray[np.uint8]
    scale: int


class RowDecoder:
    """Decodes rows of JPEGs of one width.

    Parameters
    ----------
    rows : int
        That a JPEG has at most.
    columns : int
        Of every JPEG.
    """

    def __init__(self, rows: int, columns: int) -> None:
        self._layout = Layout(rows, columns)
        self._of_thread = threading.local()

    def __reduce__(self) -> tuple[type[RowDecoder], tuple[int, int]]:
        return RowDecoder, self._layout.shape

    def segments(self, data: bytes) -> Segments | None:
        """Find the segments of a JPEG, as `Layout.find`."""
        return self._layout.find(data)

    def decode(self, data: bytes, first: int, stop: int, segments: Segments | None = None) -> Rows:
        """Decode some rows of a JPEG.

        Parameters
        ----------
        data : bytes
            A whole JPEG, without its checksum, which was right.
        first, stop : int
            ``first <= row < stop``.
        segments : Segments, optional
            What `segments` found in it before; if left out, it is checked now.

        Returns
        -------
        Rows
            Levels (up to stop - first, columns); the memory is this thread's, and holds until its next call.

        Raises
        ------
        JpegError
            If it isn't a baseline JPEG of this width and at most this height, or the decoder gives up.
        """
        segments = segments or self.segments(data)
        if segments is None:
            return self._decode_other(data, first, stop)
        scratch, stop = self._scratch(), min(stop, segments.rows)
        if first >= stop:
            return Rows(scratch[:0], segments.scale)
        first_block, stop_block = first // BLOCK, blocks_along(stop)
        begin = first_block * BLOCK
        rows = min(stop_block * BLOCK, segments.rows) - begin
        if rows < segments.rows:
            data = self._layout.cut(data, segments, first_block, stop_block)
        levels = stream.decode_checked(data, scratch[:rows])
        return Rows(levels[first - begin : stop - begin], segments.scale)

    def _decode_other(self, data: bytes, first: int, stop: int) -> Rows:
        """Decode a JPEG that this library didn't write."""
        levels, scale = stream.decode_within(data, self._layout.shape)
        if levels.shape[1] != self._layout.shape[1]:
            raise JpegError(f"the JPEG has {levels.shape[1]} columns; expected {self._layout.shape[1]}")
        return Rows(levels[first:stop], scale)

    def _scratch(self) -> NDArray[np.uint8]:
        try:
            return self._of_thread.scratch
        except AttributeError:
            self._of_thread.scratch = np.empty(self._layout.shape, np.uint8)
            return self._of_thread.scratch
