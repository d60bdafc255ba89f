r"""Headers, checks, decoding and restart cuts of stored JPEGs.

libjpeg decodes much that this library never writes (progressive, lossless, 12-bit and colour images), fills in what
is cut off, has tables of its own where some are missing, guesses where restart markers are wrong, and believes every
size in a header. So header and markers are checked here, before memory is taken.

The application segment
-----------------------
An APP9 segment tells how long each segment of the scan is, so that any rows of blocks can be cut out without a
search for markers::

    "norbert\0"     8 bytes
    width          1 byte, 2 or 4: bytes per length
    lengths        width bytes each, big-endian: one per row of blocks, without the restart marker after it
"""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from imagecodecs import Jpeg8Error, jpeg8_decode
from numpy.typing import NDArray

from norbert_store.errors import JpegError

BLOCK = 8
# libjpeg's own limit (JPEG_MAX_DIMENSION); the standard's is 65,535
LARGEST_SIDE = 65500

_START = b"\xff\xd8"
_END = b"\xff\xd9"
_BASELINE = 0xC0
_DEFINE_HUFFMAN, _DEFINE_ARITHMETIC, _JPG = 0xC4, 0xCC, 0xC8
_DEFINE_QUANTISATION, _DEFINE_RESTART = 0xDB, 0xDD
_FIRST_RESTART = 0xD0
_RESTART_NUMBERS = bytes(range(_FIRST_RESTART, _FIRST_RESTART + 8))
_SCAN = 0xDA
_APPLICATION = 0xE9
_SIGNATURE = b"norbert\0"
# what decoding depends on, besides frame and scan
_WITH_TABLES = (_DEFINE_QUANTISATION, _DEFINE_HUFFMAN, _DEFINE_RESTART, _APPLICATION)

_KINDS = {
    0xC1: "extended",
    0xC2: "progressive",
    0xC3: "lossless",
    0xC5: "differential",
    0xC6: "differential progressive",
    0xC7: "differential lossless",
    0xC9: "arithmetic-coded",
    0xCA: "arithmetic-coded progressive",
    0xCB: "arithmetic-coded lossless",
    0xCD: "arithmetic-coded differential",
    0xCE: "arithmetic-coded differential progressive",
    0xCF: "arithmetic-coded differential lossless",
}

# A block takes at least one bit for its DC and one for its end, so a byte holds at most four blocks. A header that
# claims more than that lies.
_MOST_PIXELS_PER_BYTE = 4 * BLOCK * BLOCK


@dataclass(frozen=True)
class Header:
    """What a stored JPEG says of itself.

    Attributes
    ----------
    rows, columns : int
        Size of the image, pixels.
    frame : int
        Offset of the frame header's size field (2 bytes of rows, 2 bytes of columns).
    scan : int
        Offset of the entropy-coded data.
    segments : tuple of int, optional
        Bytes in each segment, without its restart marker; None where there is no application segment of ours.
    interval : int
        Blocks from one restart marker to the next; 0 where there are none.
    """

    rows: int
    columns: int
    frame: int
    scan: int
    segments: tuple[int, ...] | None
    interval: int = 0

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns)."""
        return self.rows, self.columns


def read_header(data: bytes) -> Header:
    """Read and check a JPEG's header, in time that doesn't depend on the size it claims.

    Parameters
    ----------
    data : bytes
        A whole JPEG, from its start to its end marker.

    Returns
    -------
    Header

    Raises
    ------
    JpegError
        If it isn't a whole baseline JPEG of 8 bits and one component, with all tables that it needs, or claims a
        size that its bytes can't hold.
    """
    if data[:2] != _START:
        raise JpegError(f"not a JPEG: expected it to begin with ff d8, found {data[:2].hex(' ') or 'nothing'}")
    places = _places(data)
    if len(places[_BASELINE]) != 1:
        raise JpegError(f"the JPEG has {'two frame headers' if places[_BASELINE] else 'a scan but no frame header'}")
    ((frame, frame_end),) = places[_BASELINE]
    rows, columns = _read_frame(data[frame:frame_end])
    ((scan, scan_end),) = places[_SCAN]
    if data[scan:scan_end] != data[scan : scan + 3] + b"\x00\x3f\x00" or data[scan] != 1:
        raise JpegError("the JPEG's scan isn't that of one baseline component")
    content = {marker: [data[begin:end] for begin, end in places[marker]] for marker in _WITH_TABLES}
    _check_tables(content, quantiser=data[frame_end - 1], huffman=data[scan + 2])
    interval, segments = _read_interval(content[_DEFINE_RESTART]), _read_lengths(content[_APPLICATION])
    header = Header(rows, columns, frame + 1, scan_end, segments, interval)
    _check_length(data, header)
    return header


def check(data: bytes, shape: tuple[int, int]) -> Header:
    """Read the header and compare its size with what is expected.

    Raises
    ------
    JpegError
        As `read_header`, and if rows or columns are others.
    """
    header = read_header(data)
    if header.shape != shape:
        raise JpegError(f"the JPEG is {header.rows} rows x {header.columns} columns; expected {shape[0]} x {shape[1]}")
    return header


def decode(data: bytes, out: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
    """Decode a stored JPEG.

    Parameters
    ----------
    data : bytes
        A whole JPEG.
    out : ndarray of uint8, optional
        Contiguous and writable, (rows, columns); made if left out.

    Returns
    -------
    ndarray of uint8
        ``out``

    Raises
    ------
    JpegError
        If the header doesn't pass `check`, a restart marker isn't where it must be, or the decoder gives up.
    """
    if out is None:
        header = read_header(data)
        _check_markers(data, header)
        out = np.empty(header.shape, np.uint8)
    else:
        # imagecodecs writes into a read-only array as well
        if out.dtype != np.uint8 or not out.flags.c_contiguous or not out.flags.writeable or out.ndim != 2:
            raise ValueError("out must be a writable, C-contiguous, two-dimensional array of uint8")
        _check_markers(data, check(data, (out.shape[0], out.shape[1])))
    try:
        jpeg8_decode(data, out=out)
    except (Jpeg8Error, ValueError) as error:
        raise JpegError(f"the JPEG can't be decoded: {error}") from error
    return out


def cut(data: bytes, first: int, stop: int) -> bytes:
    """Cut rows of blocks out of a JPEG, without decoding it.

    Parameters
    ----------
    data : bytes
        A JPEG of this library's encoder.
    first, stop : int
        Rows of blocks to keep, ``first <= row < stop``: the image's rows from ``8 * first`` to below ``8 * stop``.

    Returns
    -------
    bytes
        A JPEG that decodes, bit for bit, to those rows of the whole.

    Raises
    ------
    JpegError
        If the JPEG isn't whole, or has no lengths of segments, or others than its scan.
    ValueError
        If there are no such rows of blocks.
    """
    header = read_header(data)
    if header.segments is None:
        raise JpegError("the JPEG has no table of segments, so it can't be cut; decode it whole")
    count = len(header.segments)
    if not 0 <= first < stop <= count:
        raise ValueError(f"expected rows of blocks 0 <= first < stop <= {count}, found {first} and {stop}")
    rows = min(header.rows, stop * BLOCK) - first * BLOCK
    pieces = [data[: header.frame], struct.pack(">H", rows), data[header.frame + 2 : header.scan]]
    starts = _segment_starts(header)
    for i in range(max(first, 1), min(stop + 1, count)):
        if data[starts[i] - 2 : starts[i]] != bytes((0xFF, _FIRST_RESTART + (i - 1) % 8)):
            raise JpegError(f"the JPEG's table of segments is damaged: no restart marker before row of blocks {i}")
    for number, i in enumerate(range(first, stop)):
        if number:
            pieces.append(bytes((0xFF, _FIRST_RESTART + (number - 1) % 8)))
        pieces.append(data[starts[i] : starts[i] + header.segments[i]])
    return _with_lengths(b"".join(pieces) + _END, replace(header, segments=header.segments[first:stop]))


def add_segment_lengths(data: bytes) -> bytes:
    """Give a JPEG that has a restart marker after every row of blocks the application segment with their lengths."""
    header = read_header(data)
    scan = np.frombuffer(data, np.uint8, offset=header.scan, count=len(data) - header.scan - len(_END))
    # in the scan, ff is always followed by 00, so this finds markers alone
    markers = np.flatnonzero((scan[:-1] == 0xFF) & (scan[1:] & 0xF8 == _FIRST_RESTART))
    starts = np.concatenate(([0], markers + 2))
    ends = np.concatenate((markers, [len(scan)]))
    lengths = tuple((ends - starts).tolist())
    expected = -(-header.rows // BLOCK)
    if len(lengths) != expected:
        raise JpegError(f"the JPEG has {len(lengths)} segments; expected one for each of {expected} rows of blocks")
    return _with_lengths(data, replace(header, segments=lengths), insert=True)


def _segment(data: bytes, at: int) -> tuple[int, int, int]:
    """Read one marker segment at an offset: its marker, and where its content begins and ends."""
    if at + 4 > len(data):
        raise JpegError("the JPEG ends within its header")
    if data[at] != 0xFF or data[at + 1] in (0x00, 0xFF):
        raise JpegError(f"expected a marker at byte {at} of the JPEG, found {data[at : at + 2].hex(' ')}")
    marker = data[at + 1]
    if marker == 0x01 or _FIRST_RESTART <= marker <= 0xD9:
        raise JpegError(f"the JPEG has a marker ff {marker:02x} within its header")
    end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    if end < at + 4 or end > len(data):
        raise JpegError("the JPEG ends within its header")
    return marker, at + 4, end


def _places(data: bytes) -> defaultdict[int, list[tuple[int, int]]]:
    """Where the content of each marker segment of the header begins and ends, by marker; the scan's comes last."""
    places: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)
    at = 2
    while _SCAN not in places:
        marker, begin, end = _segment(data, at)
        if marker in _KINDS:
            raise JpegError(f"the JPEG is {_KINDS[marker]} (marker ff {marker:02x}); only baseline (ff c0) is stored")
        if marker in (_DEFINE_ARITHMETIC, _JPG):
            raise JpegError(f"the JPEG has a marker ff {marker:02x}, which baseline doesn't know")
        places[marker].append((begin, end))
        at = end
    return places


def _read_frame(content: bytes) -> tuple[int, int]:
    """Rows and columns, from a baseline frame header."""
    if len(content) < 6:
        raise JpegError("the JPEG's frame header is too short")
    precision, rows, columns, components = struct.unpack_from(">BHHB", content)
    if precision != 8:
        raise JpegError(f"the JPEG has {precision} bits per pixel; only 8 are stored")
    if components != 1 or len(content) != 9:
        raise JpegError(f"the JPEG has {components} components (a colour image); only one, grey, is stored")
    if rows == 0 or columns == 0:
        raise JpegError(f"the JPEG claims {rows} rows and {columns} columns")
    return rows, columns


def _check_tables(content: dict[int, list[bytes]], quantiser: int, huffman: int) -> None:
    """Check that the tables that frame and scan name are there; libjpeg has some of its own for those that aren't."""
    steps = {number for tables in content[_DEFINE_QUANTISATION] for number in _quantisation_tables(tables)}
    if quantiser not in steps:
        raise JpegError(f"the JPEG has no quantisation table {quantiser}, which its frame header names")
    codes = {number for tables in content[_DEFINE_HUFFMAN] for number in _huffman_tables(tables)}
    # one half of the byte for the means of blocks, one for all other coefficients, whose tables are of class 1
    if not {huffman >> 4, 0x10 | huffman & 0x0F} <= codes:
        raise JpegError(f"the JPEG lacks one of the Huffman tables {huffman >> 4} and {huffman & 0x0F} of its scan")


def _quantisation_tables(content: bytes) -> Iterator[int]:
    """Check quantisation tables, and tell their numbers."""
    size = BLOCK * BLOCK
    for at in range(0, len(content), 1 + size):
        steps = content[at + 1 : at + 1 + size]
        if content[at] > 3 or len(steps) < size or 0 in steps:
            raise JpegError(f"the JPEG's quantisation table is damaged: expected {size} steps from 1 to 255")
        yield content[at]


def _huffman_tables(content: bytes) -> Iterator[int]:
    """Check how many codes Huffman tables have, and tell their numbers, whose first half is the class."""
    at = 0
    while at < len(content):
        codes = sum(content[at + 1 : at + 17])
        if codes == 0 or at + 17 + codes > len(content):
            raise JpegError("the JPEG's Huffman table is damaged: it has other codes than it says")
        yield content[at]
        at += 17 + codes


def _read_interval(intervals: list[bytes]) -> int:
    """Blocks from one restart marker to the next; the last definition counts."""
    if any(len(interval) != 2 for interval in intervals):
        raise JpegError("the JPEG's restart interval is damaged: expected 2 bytes")
    return int.from_bytes(intervals[-1], "big") if intervals else 0


def _read_lengths(applications: list[bytes]) -> tuple[int, ...] | None:
    """Read our application segment, if there is one."""
    tables = [content[len(_SIGNATURE) :] for content in applications if content.startswith(_SIGNATURE)]
    if not tables:
        return None
    if len(tables) > 1:
        raise JpegError("the JPEG has two tables of segments")
    (table,) = tables
    width = table[0] if table else 0
    if width not in (2, 4) or (len(table) - 1) % width:
        raise JpegError("the JPEG's table of segments is damaged")
    return struct.unpack_from(f">{(len(table) - 1) // width}{'H' if width == 2 else 'I'}", table, 1)


def _check_length(data: bytes, header: Header) -> None:
    if data[-2:] != _END:
        raise JpegError(f"the JPEG is cut off: expected it to end with ff d9, found {data[-2:].hex(' ')}")
    found = len(data) - header.scan - len(_END)
    if header.rows * header.columns > _MOST_PIXELS_PER_BYTE * max(found, 1) + BLOCK * (header.rows + header.columns):
        raise JpegError(
            f"the JPEG claims {header.rows} x {header.columns} pixels, more than its {found} bytes of data can hold"
        )
    if header.segments is None:
        return
    if len(header.segments) != -(-header.rows // BLOCK):
        raise JpegError(
            f"the JPEG's table has {len(header.segments)} segments; expected one for each 8 of {header.rows} rows"
        )
    if len(header.segments) > 1 and header.interval != -(-header.columns // BLOCK):
        raise JpegError(
            f"the JPEG has a restart marker for each {header.interval} blocks; expected one for each row of "
            f"{-(-header.columns // BLOCK)}"
        )
    expected = sum(header.segments) + 2 * (len(header.segments) - 1)
    if found != expected:
        raise JpegError(f"the JPEG's scan has {found} bytes; expected {expected} by its table of segments")


def _check_markers(data: bytes, header: Header) -> None:
    """Check that the scan has its restart markers, in turn, and no others; libjpeg guesses where it hasn't."""
    scan = np.frombuffer(data, np.uint8, offset=header.scan)
    # in data, ff is always followed by 00
    found = scan[1:][(scan[:-1] == 0xFF) & (scan[1:] != 0)].tobytes()
    blocks = -(-header.rows // BLOCK) * -(-header.columns // BLOCK)
    count = (blocks - 1) // header.interval if header.interval else 0
    if found != (_RESTART_NUMBERS * (count // 8 + 1))[:count] + _END[1:]:
        raise JpegError(
            f"the JPEG's scan has {len(found) - 1} markers before its end, {found[:8].hex(' ')}...; expected {count} "
            "restart markers, d0 to d7 in turn"
        )


def _segment_starts(header: Header) -> list[int]:
    starts, at = [], header.scan
    for length in header.segments or ():
        starts.append(at)
        at += length + 2
    return starts


def segment_of_lengths(lengths: Sequence[int]) -> bytes:
    """Make the application segment that tells how long segments are.

    Raises
    ------
    JpegError
        If there are more of them than it can hold.
    """
    width = 2 if max(lengths) < 1 << 16 else 4
    content = _SIGNATURE + struct.pack(f">B{len(lengths)}{'H' if width == 2 else 'I'}", width, *lengths)
    if len(content) + 2 >= 1 << 16:
        raise JpegError(f"the image has {len(lengths)} rows of blocks, too many for one table of segments")
    return struct.pack(">BBH", 0xFF, _APPLICATION, len(content) + 2) + content


def _with_lengths(data: bytes, header: Header, insert: bool = False) -> bytes:
    """Write the application segment for a header's segments, over the one that is there or as a new one."""
    begin, end = _place_of_lengths(data, insert)
    return data[:begin] + segment_of_lengths(header.segments or ()) + data[end:]


def _place_of_lengths(data: bytes, insert: bool) -> tuple[int, int]:
    """Where our application segment stands, or, to insert it, the place after JFIF's."""
    at = 2
    while True:
        marker, begin, end = _segment(data, at)
        if insert and marker != 0xE0:
            return at, at
        if marker == _APPLICATION and data[begin : begin + len(_SIGNATURE)] == _SIGNATURE:
            return at, end
        at = end


def as_bytes(data: Any) -> bytes:
    """Take any object with a contiguous buffer as bytes; bytes themselves are not copied."""
    return data if isinstance(data, bytes) else bytes(memoryview(data).cast("B"))
