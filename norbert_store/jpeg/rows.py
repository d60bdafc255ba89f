"""Some rows of a JPEG, or all of them, into memory that each thread keeps: the decoding of everything that reads.

For JPEGs that came with a right checksum. Where everything stands as this library's encoder puts it, a few comparisons
replace the walk through the header; what looks otherwise is checked like a stranger's.
"""

from __future__ import annotations

import struct
import threading

import numpy as np
from imagecodecs import Jpeg8Error, jpeg8_decode
from numpy.typing import NDArray

from norbert_store.errors import JpegError
from norbert_store.jpeg import stream
from norbert_store.jpeg.stream import BLOCK

# Our application segment follows the start marker and JFIF's segment: marker, length, signature, width, lengths.
_APPLICATION_AT = 20
_SIGNATURE = b"norbert\0"
_SIGNATURE_AT = _APPLICATION_AT + 4
_WIDTH_AT = _SIGNATURE_AT + len(_SIGNATURE)
_SCAN_HEADER = bytes.fromhex("ffda 0008 01 0100 003f00")
_END = b"\xff\xd9"
_MARKER_BYTES = 2
_FIRST_RESTART = 0xD0


class RowDecoder:
    """Decodes rows of JPEGs of one size.

    Parameters
    ----------
    rows, columns : int
        Of every JPEG; rows are a multiple of 8.
    """

    def __init__(self, rows: int, columns: int) -> None:
        self._shape = rows, columns
        self._row_blocks = rows // BLOCK
        # baseline, 8 bits, so many rows and columns, one component
        self._frame_header = bytes.fromhex("ffc0 000b 08") + struct.pack(">HH", rows, columns) + b"\x01"
        self._of_thread = threading.local()

    def __reduce__(self) -> tuple[type[RowDecoder], tuple[int, int]]:
        return RowDecoder, self._shape

    def decode(self, data: bytes, first: int, stop: int) -> NDArray[np.uint8]:
        """Decode some rows of a JPEG.

        Parameters
        ----------
        data : bytes
            A whole JPEG, without its checksum, which was right.
        first, stop : int
            ``first <= row < stop``.

        Returns
        -------
        ndarray of uint8
            (stop - first, columns); the memory is this thread's, and holds until its next call.

        Raises
        ------
        JpegError
            If it isn't a baseline JPEG of this size, or the decoder gives up.
        """
        first_block, stop_block = first // BLOCK, -(-stop // BLOCK)
        scratch = self._scratch()
        frame = data.find(self._frame_header, _APPLICATION_AT)
        if stop_block - first_block == self._row_blocks:
            if frame < 0 or data[-2:] != _END:
                return stream.decode(data, scratch)[first:stop]
        else:
            cut = self._cut(data, frame, first_block, stop_block)
            if cut is None:
                return stream.decode(data, scratch)[first:stop]
            data, scratch = cut, scratch[: (stop_block - first_block) * BLOCK]
        try:
            jpeg8_decode(data, out=scratch)
        except (Jpeg8Error, ValueError) as error:
            raise JpegError(f"the JPEG can't be decoded: {error}") from error
        return scratch[first - first_block * BLOCK : stop - first_block * BLOCK]

    def _scratch(self) -> NDArray[np.uint8]:
        try:
            return self._of_thread.scratch
        except AttributeError:
            self._of_thread.scratch = np.empty(self._shape, np.uint8)
            return self._of_thread.scratch

    def _cut(self, data: bytes, frame: int, first: int, stop: int) -> bytes | None:
        """Cut rows of blocks out, as `stream.cut` does; None if something isn't where the encoder puts it."""
        width = data[_WIDTH_AT] if data[_SIGNATURE_AT:_WIDTH_AT] == _SIGNATURE else 0
        if frame < 0 or width not in (2, 4) or data[-2:] != _END:
            return None
        lengths = np.frombuffer(data, ">u2" if width == 2 else ">u4", self._row_blocks, _WIDTH_AT + 1)
        ends = np.cumsum(lengths + np.int64(_MARKER_BYTES))  # of segments, each with the marker after it
        scan = len(data) - int(ends[-1])
        if scan < frame or data[scan - len(_SCAN_HEADER) : scan] != _SCAN_HEADER:
            return None
        before = int(ends[first - 1]) if first else 0
        segments = bytearray(data[scan + before : scan + int(ends[stop - 1]) - _MARKER_BYTES])
        if first % 8:  # markers are counted from 0 to 7, in turn, from the first that there is
            markers = ends[first : stop - 1] - (before + 1)
            np.frombuffer(segments, np.uint8)[markers] = _FIRST_RESTART + np.arange(len(markers)) % 8
        rows = ((stop - first) * BLOCK).to_bytes(2, "big")
        height = frame + 5  # marker, length, bits
        return b"".join((data[:height], rows, data[height + 2 : scan], segments, _END))
