"""Some rows of a JPEG, or all of them, into memory that each thread keeps: the decoding of everything that reads.

For JPEGs that came with a right checksum. Where everything stands as this library writes it, the few comparisons of
`Layout.find` replace the walk through the header; what looks otherwise is checked like a stranger's.
"""

from __future__ import annotations

import threading

import numpy as np
from numpy.typing import NDArray

from norbert_store._jpeg import stream
from norbert_store._jpeg.layout import BLOCK, Layout, Segments, blocks_along


class RowDecoder:
    """Decodes rows of JPEGs of one size.

    Parameters
    ----------
    rows, columns : int
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

    def decode(self, data: bytes, first: int, stop: int, segments: Segments | None = None) -> NDArray[np.uint8]:
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
        ndarray of uint8
            (stop - first, columns); the memory is this thread's, and holds until its next call.

        Raises
        ------
        JpegError
            If it isn't a baseline JPEG of this size, or the decoder gives up.
        """
        scratch = self._scratch()
        segments = segments or self.segments(data)
        if segments is None:
            return stream.decode(data, scratch)[first:stop]
        first_block, stop_block = first // BLOCK, blocks_along(stop)
        begin = first_block * BLOCK
        rows = min(stop_block * BLOCK, len(scratch)) - begin
        if rows < len(scratch):
            data = self._layout.cut(data, segments, first_block, stop_block)
            scratch = scratch[:rows]
        return stream.decode_checked(data, scratch)[first - begin : stop - begin]

    def _scratch(self) -> NDArray[np.uint8]:
        try:
            return self._of_thread.scratch
        except AttributeError:
            self._of_thread.scratch = np.empty(self._layout.shape, np.uint8)
            return self._of_thread.scratch
