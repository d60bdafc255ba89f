"""Some rows of a JPEG, or all of them, into memory that each thread keeps: the decoding of everything that reads.

For JPEGs that came with a right checksum. Where everything stands as this library's encoder puts it, a few comparisons
replace the walk through the header; what looks otherwise is checked like a stranger's.
"""

from __future__ import annotations

import struct
import threading
from array import array
from typing import NamedTuple

import numpy as np
from imagecodecs import Jpeg8Error, jpeg8_decode
from numpy.typing import NDArray

from norbert_store._jpeg import stream
from norbert_store._jpeg.stream import BLOCK
from norbert_store.errors import JpegError

# What the encoder writes, one after the other; segments that are the same in all its JPEGs in full.
_LENGTHS_AT = 33  # after the start (2 bytes), JFIF's segment (18), and of ours marker, length, signature, width
_OURS_AT = 20
_SIGNATURE = b"norbert\0"
_QUANTISATION = bytes.fromhex("ffdb 0043 00")
_QUANTISATION_BYTES = 5 + BLOCK * BLOCK
_HUFFMAN = bytes.fromhex("ffc4")
_HUFFMAN_KINDS = (0x00, 0x10)
_SCAN_HEADER = bytes.fromhex("ffda 0008 01 0100 003f00")
_MARKER_BYTES = 2
_FIRST_RESTART = 0xD0
_END = b"\xff\xd9"


class Segments(NamedTuple):
    """Where the parts of a JPEG lie that was checked.

    Attributes
    ----------
    frame, scan : int
        Offsets of the frame header, and of the entropy-coded data.
    ends : array of int
        0, and then where in the scan each row of blocks ends, with the marker after it.
    """

    frame: int
    scan: int
    ends: array[int]


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
        # baseline, 8 bits, so many rows and columns, one component, with the first quantisation table
        self._frame_header = (
            bytes.fromhex("ffc0 000b 08") + struct.pack(">HH", rows, columns) + bytes.fromhex("01 011100")
        )
        # a restart marker after each row of blocks
        self._scan_header = bytes.fromhex("ffdd 0004") + struct.pack(">H", -(-columns // BLOCK)) + _SCAN_HEADER
        restarts = bytes(_FIRST_RESTART + i % 8 for i in range(self._row_blocks - 1))
        self._markers = restarts + _END[1:]
        self._of_thread = threading.local()

    def __reduce__(self) -> tuple[type[RowDecoder], tuple[int, int]]:
        return RowDecoder, self._shape

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
        first_block, stop_block = first // BLOCK, -(-stop // BLOCK)
        scratch = self._scratch()
        segments = segments or self.segments(data)
        if segments is None:
            return stream.decode(data, scratch)[first:stop]
        if stop_block - first_block < self._row_blocks:
            data = _cut(data, segments, first_block, stop_block)
            scratch = scratch[: (stop_block - first_block) * BLOCK]
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

    def segments(self, data: bytes) -> Segments | None:
        """Find the segments of a JPEG, and check all that decoding depends on.

        None if anything isn't where the encoder puts it.
        """
        try:
            width = data[_LENGTHS_AT - 1]
            tables = _LENGTHS_AT + width * self._row_blocks
            frame = tables + _QUANTISATION_BYTES
            scan = self._scan(data, frame) if data[_OURS_AT + 4 : _LENGTHS_AT - 1] == _SIGNATURE else None
        except IndexError:
            return None
        if scan is None or width not in (2, 4) or int.from_bytes(data[22:24], "big") != tables - _OURS_AT - 2:
            return None
        if data[tables : tables + 5] != _QUANTISATION or 0 in data[tables + 5 : frame]:
            return None
        lengths = np.frombuffer(data, ">u2" if width == 2 else ">u4", self._row_blocks, _LENGTHS_AT)
        ends = np.cumsum(lengths + np.int64(_MARKER_BYTES))
        if scan + int(ends[-1]) != len(data) or not lengths.all() or not data.endswith(_END):
            return None
        content = np.frombuffer(data, np.uint8, offset=scan)
        # within segments, ff is always followed by 00
        found = np.flatnonzero(content == 0xFF)
        found = found[content[found + 1] != 0]
        if not np.array_equal(found, ends - _MARKER_BYTES) or content[ends - 1].tobytes() != self._markers:
            return None
        return Segments(frame, scan, array("I", [0, *ends.tolist()]))

    def _scan(self, data: bytes, frame: int) -> int | None:
        """Walk over the frame header, two Huffman tables and the scan's header."""
        at = frame + len(self._frame_header)
        if data[frame:at] != self._frame_header:
            return None
        for kind in _HUFFMAN_KINDS:
            codes = int.from_bytes(data[at + 2 : at + 4], "big") - 19
            if data[at : at + 2] != _HUFFMAN or data[at + 4] != kind or not 0 < codes == sum(data[at + 5 : at + 21]):
                return None
            at += 21 + codes
        scan = at + len(self._scan_header)
        return scan if data[at:scan] == self._scan_header else None


def _cut(data: bytes, segments: Segments, first: int, stop: int) -> bytes:
    """Cut rows of blocks out, as `stream.cut` does."""
    frame, scan, ends = segments
    begin = ends[first]
    content: bytes | bytearray = data[scan + begin : scan + ends[stop] - _MARKER_BYTES]
    if first % 8 and stop - first > 1:  # markers are counted from 0 to 7, in turn, from the first that there is
        content = bytearray(content)
        for number, end in enumerate(ends[first + 1 : stop]):
            content[end - begin - 1] = _FIRST_RESTART + number % 8
    rows = ((stop - first) * BLOCK).to_bytes(2, "big")
    height = frame + 5  # marker, length, bits
    return b"".join((data[:height], rows, data[height + 2 : scan], content, _END))
