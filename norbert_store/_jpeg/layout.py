r"""The layout of a stored JPEG: written once, read once, and found once more, fast, where nothing can be elsewhere.

In this order::

    SOI
    APP0   JFIF 1.1, square pixels
    APP9   the scale, and how long the segments of the scan are
    COM    a comment, if there is one
    DQT    quantisation table 0, steps of one byte
    SOF0   baseline, 8 bits, rows and columns, one component
    DHT    Huffman table 0 of means
    DHT    Huffman table 0 of all other coefficients
    DRI    restart interval: the blocks of one row of blocks
    SOS    and the segments, with the restart markers 0 to 7 in turn between them
    EOI

The application segment, APP9, tells what level 255 stands for, and lets any rows of blocks be cut out of the scan
without a search for markers::

    "norbert\0"    8 bytes
    width          1 byte, 2 or 4: bytes per length
    scale          2 bytes, big-endian, signed: level 255 stands for 2 to this power
    lengths        width bytes each, big-endian: one per row of blocks, without the restart marker after it

`read_header` reads this and what other encoders write. libjpeg decodes much that this library never writes
(progressive, lossless, 12-bit and colour images), fills in what is cut off, has tables of its own where some are
missing, guesses where restart markers are wrong, and believes every size in a header. So header and markers are
checked here, before memory is taken.

References
----------
ITU-T T.81 (1992), ISO/IEC 10918-1, annex B for the markers, figure A.6 for the zigzag.
"""

from __future__ import annotations

import re
import struct
from array import array
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from norbert_store.errors import JpegError

BLOCK = 8
# libjpeg's own limit (JPEG_MAX_DIMENSION); the standard's is 65,535
LARGEST_SIDE = 65500
LONGEST_COMMENT = 65533

_BASELINE = 0xC0
_HUFFMAN, _QUANTISATION, _RESTART_INTERVAL = 0xC4, 0xDB, 0xDD
_FIRST_RESTART = 0xD0
_SCAN = 0xDA
_APPLICATION = 0xE9
_COMMENT = 0xFE

_START = b"\xff\xd8"
_JFIF = bytes.fromhex("ffe0 0010 4a46494600 0101 00 0001 0001 00 00")
_SIGNATURE = b"norbert\0"
_TYPE_OF_WIDTH = {2: ">u2", 4: ">u4"}
_SCALE = struct.Struct(">h")
_QUANTISATION_HEAD = bytes.fromhex("ffdb 0043 00")
_QUANTISATION_BYTES = len(_QUANTISATION_HEAD) + BLOCK * BLOCK
_HUFFMAN_HEAD_BYTES = 5
# the most significant half tells what for: means of blocks, or all other coefficients
_OF_MEANS, _OF_OTHERS = 0x00, 0x10
_CODE_COUNTS = 16
_RESTARTS = [bytes((0xFF, _FIRST_RESTART + number)) for number in range(8)]
_MARKER_BYTES = 2
_END = b"\xff\xd9"
# offsets: of the application segment's length and width, and of the number of rows in a frame header
_LENGTH_AT = len(_START) + len(_JFIF) + 2
_WIDTH_AT = _LENGTH_AT + 2 + len(_SIGNATURE)
_LENGTH_OF_NONE = 2 + len(_SIGNATURE) + 1 + _SCALE.size
_ROWS_IN_FRAME = 5

# markers of frames that aren't baseline, and of what only these have
_OTHER_KINDS = {marker: "of a rare kind" for marker in range(0xC1, 0xD0) if marker != _HUFFMAN}
_OTHER_KINDS |= {0xC1: "extended", 0xC2: "progressive", 0xC3: "lossless", 0xC9: "arithmetic-coded"}

# A block takes at least one bit for its mean and one for its end, so a byte holds at most four blocks. A header that
# claims more than that lies.
_MOST_PIXELS_PER_BYTE = 4 * BLOCK * BLOCK


def _zigzag() -> NDArray[np.intp]:
    """Where the coefficients stand in a block: along diagonals, in turn up to the right and down to the left."""
    row, column = np.divmod(np.arange(BLOCK * BLOCK), BLOCK)
    diagonal = row + column
    return np.lexsort((np.where(diagonal % 2, row, column), diagonal))


ZIGZAG = _zigzag()


def blocks_along(pixels: int) -> int:
    """How many blocks it takes for some rows or columns of pixels."""
    return -(-pixels // BLOCK)


# ---- writing


def write(
    rows: int,
    columns: int,
    table: NDArray[np.uint8],
    huffman: tuple[bytes, bytes],
    segments: Sequence[bytes],
    comment: bytes = b"",
    scale: int = 0,
) -> bytes:
    """Put a stored JPEG together.

    Parameters
    ----------
    rows, columns : int
        Of the image.
    table : ndarray of uint8
        The quantisation table (8, 8).
    huffman : tuple of bytes
        The Huffman tables of means and of all other coefficients: how many codes have 1 to 16 bits, then symbols.
    segments : sequence of bytes
        Entropy-coded, one for each row of blocks.
    comment : bytes, optional
        Up to `LONGEST_COMMENT` bytes; without any, there is no comment segment.
    scale : int
        See `norbert_store._spectra.levels`; 16 bits with a sign.
    """
    codes = zip((_OF_MEANS, _OF_OTHERS), huffman, strict=True)
    scan = [piece for number, segment in enumerate(segments) for piece in (segment, _RESTARTS[number % 8])]
    lengths = [len(segment) for segment in segments]
    width = 2 if max(lengths) < 1 << 16 else 4
    return b"".join(
        (
            _beginning(len(lengths), width),
            _SCALE.pack(scale),
            np.array(lengths, _TYPE_OF_WIDTH[width]).tobytes(),
            _segment(_COMMENT, comment) if comment else b"",
            _QUANTISATION_HEAD,
            table.ravel()[ZIGZAG].astype(np.uint8).tobytes(),
            _frame_header(rows, columns),
            *(_segment(_HUFFMAN, bytes((number,)) + content) for number, content in codes),
            _scan_header(columns),
            *scan[:-1],
            _END,
        )
    )


def _segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def _beginning(row_blocks: int, width: int) -> bytes:
    """All up to the scale."""
    content = _SIGNATURE + bytes((width,))
    length = 2 + len(content) + _SCALE.size + row_blocks * width
    return _START + _JFIF + struct.pack(">BBH", 0xFF, _APPLICATION, length) + content


def _frame_header(rows: int, columns: int) -> bytes:
    return _segment(_BASELINE, struct.pack(">BHH", 8, rows, columns) + bytes.fromhex("01 01 11 00"))


def _scan_header(columns: int) -> bytes:
    """The restart interval, one row of blocks, and the header of the scan: all coefficients of the one component."""
    interval = _segment(_RESTART_INTERVAL, struct.pack(">H", blocks_along(columns)))
    return interval + _segment(_SCAN, bytes.fromhex("01 01 00 00 3f 00"))


# ---- reading


class Header(NamedTuple):
    """What a JPEG says of itself.

    Attributes
    ----------
    shape : tuple of int
        Rows and columns of the image.
    scan : int
        Offset of the entropy-coded data.
    huffman : tuple of bytes
        The scan's Huffman tables, as for `write`.
    segments : tuple of int, optional
        Bytes in each segment, without its restart marker; None where there is no application segment of ours.
    interval : int
        Blocks from one restart marker to the next; 0 where there are none.
    comments : tuple of bytes
        Contents of the comment segments.
    scale : int
        Level 255 stands for 2 to this power; 0 where there is no application segment of ours.
    """

    shape: tuple[int, int]
    scan: int
    huffman: tuple[bytes, bytes]
    segments: tuple[int, ...] | None
    interval: int
    comments: tuple[bytes, ...]
    scale: int = 0


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
    contents, scan = _contents(data)
    frames, (scan_header,) = contents[_BASELINE], contents[_SCAN]
    if len(frames) != 1:
        raise JpegError(f"the JPEG has {'two frame headers' if frames else 'a scan but no frame header'}")
    shape, quantiser = _read_frame(frames[0])
    if scan_header[:1] != b"\x01" or scan_header[3:] != b"\x00\x3f\x00":
        raise JpegError("the JPEG's scan isn't that of one baseline component")
    _check_quantisation(contents[_QUANTISATION], quantiser)
    scale, lengths = _read_application(contents[_APPLICATION])
    header = Header(
        shape,
        scan,
        _read_huffman(contents[_HUFFMAN], scan_header[2]),
        lengths,
        _read_interval(contents[_RESTART_INTERVAL]),
        tuple(contents[_COMMENT]),
        scale,
    )
    _check_length(data, header)
    return header


def check_markers(data: bytes, header: Header) -> None:
    """Check that the scan has its restart markers, in turn, and no others; libjpeg guesses where it hasn't.

    Raises
    ------
    JpegError
        If it has others.
    """
    scan = np.frombuffer(data, np.uint8, offset=header.scan)
    # in data, ff is always followed by 00
    found = scan[1:][(scan[:-1] == 0xFF) & (scan[1:] != 0)].tobytes()
    blocks = blocks_along(header.shape[0]) * blocks_along(header.shape[1])
    count = (blocks - 1) // header.interval if header.interval else 0
    if found != _markers(count):
        raise JpegError(
            f"the JPEG's scan has {len(found) - 1} markers before its end, {found[:8].hex(' ')}...; expected {count} "
            "restart markers, d0 to d7 in turn"
        )


def segments_of(data: bytes, header: Header) -> list[bytes]:
    """Take a scan with restart markers apart."""
    # in data, ff is always followed by 00
    return re.split(rb"\xff[\xd0-\xd7]", data[header.scan : -len(_END)])


def _markers(restarts: int) -> bytes:
    """Second bytes of the scan's markers: restart markers in turn, and the end."""
    # a stranger's JPEG may claim millions
    turn = bytes(range(_FIRST_RESTART, _FIRST_RESTART + 8))
    return (turn * (restarts // 8 + 1))[:restarts] + _END[1:]


def _contents(data: bytes) -> tuple[defaultdict[int, list[bytes]], int]:
    """Content of the header's marker segments, by marker, and where the header ends."""
    contents: defaultdict[int, list[bytes]] = defaultdict(list)
    at = len(_START)
    while _SCAN not in contents:
        head = data[at : at + 4]
        if len(head) < 4:
            raise JpegError("the JPEG ends within its header")
        marker = head[1]
        if head[0] != 0xFF or marker in (0x00, 0xFF):
            raise JpegError(f"expected a marker at byte {at} of the JPEG, found {head[:2].hex(' ')}")
        if marker == 0x01 or _FIRST_RESTART <= marker <= 0xD9:
            raise JpegError(f"the JPEG has a marker ff {marker:02x} within its header")
        if marker in _OTHER_KINDS:
            kind = _OTHER_KINDS[marker]
            raise JpegError(f"the JPEG is {kind} (marker ff {marker:02x}); only baseline (ff c0) is stored")
        begin, at = at + 4, at + 2 + int.from_bytes(head[2:], "big")
        if not begin <= at <= len(data):
            raise JpegError("the JPEG ends within its header")
        contents[marker].append(data[begin:at])
    return contents, at


def _read_frame(content: bytes) -> tuple[tuple[int, int], int]:
    """Rows and columns, and the number of the quantisation table, from a baseline frame header."""
    if len(content) < 6:
        raise JpegError("the JPEG's frame header is too short")
    precision, rows, columns, components = struct.unpack_from(">BHHB", content)
    if precision != 8:
        raise JpegError(f"the JPEG has {precision} bits per pixel; only 8 are stored")
    if components != 1 or len(content) != 9:
        raise JpegError(f"the JPEG has {components} components (a colour image); only one, grey, is stored")
    if rows == 0 or columns == 0:
        raise JpegError(f"the JPEG claims {rows} rows and {columns} columns")
    return (rows, columns), content[-1]


def _check_quantisation(contents: list[bytes], number: int) -> None:
    """Check the quantisation tables, and that one has the number that the frame header names."""
    size = BLOCK * BLOCK
    numbers = set()
    for content in contents:
        for at in range(0, len(content), 1 + size):
            steps = content[at + 1 : at + 1 + size]
            if content[at] > 3 or len(steps) < size or 0 in steps:
                raise JpegError(f"the JPEG's quantisation table is damaged: expected {size} steps from 1 to 255")
            numbers.add(content[at])
    if number not in numbers:
        raise JpegError(f"the JPEG has no quantisation table {number}, which its frame header names")


def _read_huffman(contents: list[bytes], numbers: int) -> tuple[bytes, bytes]:
    """Find the Huffman tables that the scan names; libjpeg has some of its own for those that aren't there."""
    tables = dict(table for content in contents for table in _huffman_tables(content))
    of_means, of_others = _OF_MEANS | numbers >> 4, _OF_OTHERS | numbers & 0x0F
    if not {of_means, of_others} <= set(tables):
        raise JpegError(f"the JPEG lacks one of the Huffman tables {numbers >> 4} and {numbers & 0x0F} of its scan")
    return tables[of_means], tables[of_others]


def _huffman_tables(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Check how many codes Huffman tables have; their numbers, whose first half is the class, and their contents."""
    at = 0
    while at < len(content):
        begin, symbols = at + 1, at + 1 + _CODE_COUNTS
        number, at = content[at], symbols + sum(content[begin:symbols])
        if at == symbols or at > len(content):
            raise JpegError("the JPEG's Huffman table is damaged: it has other codes than it says")
        yield number, content[begin:at]


def _read_interval(contents: list[bytes]) -> int:
    """Blocks from one restart marker to the next; the last definition counts."""
    if any(len(content) != 2 for content in contents):
        raise JpegError("the JPEG's restart interval is damaged: expected 2 bytes")
    return int.from_bytes(contents[-1], "big") if contents else 0


def _read_application(contents: list[bytes]) -> tuple[int, tuple[int, ...] | None]:
    """Read scale and lengths from our application segment, if there is one."""
    tables = [content[len(_SIGNATURE) :] for content in contents if content.startswith(_SIGNATURE)]
    if not tables:
        return 0, None
    if len(tables) > 1:
        raise JpegError("the JPEG has two tables of segments")
    width, lengths = tables[0][:1], tables[0][1 + _SCALE.size :]
    kind = _TYPE_OF_WIDTH.get(int.from_bytes(width, "big"))
    if kind is None or len(tables[0]) < 1 + _SCALE.size or len(lengths) % np.dtype(kind).itemsize:
        raise JpegError("the JPEG's table of segments is damaged")
    (scale,) = _SCALE.unpack_from(tables[0], 1)
    return scale, tuple(np.frombuffer(lengths, kind).tolist())


def _check_length(data: bytes, header: Header) -> None:
    if not data.endswith(_END):
        raise JpegError(f"the JPEG is cut off: expected it to end with ff d9, found {data[-2:].hex(' ')}")
    (rows, columns), segments = header.shape, header.segments
    found = len(data) - header.scan - len(_END)
    if rows * columns > _MOST_PIXELS_PER_BYTE * max(found, 1) + BLOCK * (rows + columns):
        raise JpegError(f"the JPEG claims {rows} x {columns} pixels, more than its {found} bytes of data can hold")
    if segments is None:
        return
    if len(segments) != blocks_along(rows):
        raise JpegError(f"the JPEG's table has {len(segments)} segments; expected one for each 8 of {rows} rows")
    if len(segments) > 1 and header.interval != blocks_along(columns):
        raise JpegError(
            f"the JPEG has a restart marker for each {header.interval} blocks; expected one for each row of "
            f"{blocks_along(columns)}"
        )
    expected = sum(segments) + _MARKER_BYTES * (len(segments) - 1)
    if found != expected:
        raise JpegError(f"the JPEG's scan has {found} bytes; expected {expected} by its table of segments")


# ---- finding, fast


class Segments(NamedTuple):
    """Where the parts of a JPEG lie that was checked.

    Attributes
    ----------
    rows, scale : int
        Of the image, see `Header`.
    rows_at, scan : int
        Offsets of the number of rows in the frame header, and of the entropy-coded data.
    ends : array of int
        0, and then where in the scan each row of blocks ends, with the marker after it.
    """

    rows: int
    scale: int
    rows_at: int
    scan: int
    ends: array[int]


class Layout:
    """Where everything stands in the JPEGs of one width, and up to some height, that `write` wrote, without comments.

    Parameters
    ----------
    rows : int
        Of the highest image.
    columns : int
        Of every image.
    """

    def __init__(self, rows: int, columns: int) -> None:
        self.shape = rows, columns
        self._frame_header = _frame_header(0, columns)
        self._scan_header = _scan_header(columns)
        self._restarts = _markers(blocks_along(rows) - 1)[:-1]

    def find(self, data: bytes) -> Segments | None:
        """Find the segments of a JPEG, and check all that decoding depends on, by a few comparisons.

        None if anything isn't where `write` puts it: then it takes `read_header` to tell what it is.
        """
        width = data[_WIDTH_AT] if len(data) > _WIDTH_AT else 0
        if width not in _TYPE_OF_WIDTH:
            return None
        row_blocks = (int.from_bytes(data[_LENGTH_AT : _LENGTH_AT + 2], "big") - _LENGTH_OF_NONE) // width
        begin = _WIDTH_AT + 1
        if row_blocks < 1 or data[:begin] != _beginning(row_blocks, width):
            return None
        lengths_at = begin + _SCALE.size
        table = lengths_at + width * row_blocks
        steps = table + len(_QUANTISATION_HEAD)
        frame = table + _QUANTISATION_BYTES
        if data[table:steps] != _QUANTISATION_HEAD or 0 in data[steps:frame]:
            return None
        rows_at = frame + _ROWS_IN_FRAME
        rows = int.from_bytes(data[rows_at : rows_at + 2], "big")
        scan = self._find_scan(data, frame)
        if scan is None or not 0 < rows <= self.shape[0] or blocks_along(rows) != row_blocks:
            return None
        lengths = np.frombuffer(data, _TYPE_OF_WIDTH[width], row_blocks, lengths_at)
        ends = np.cumsum(lengths + np.int64(_MARKER_BYTES))
        if scan + int(ends[-1]) != len(data) or not lengths.all() or not data.endswith(_END):
            return None
        content = np.frombuffer(data, np.uint8, offset=scan)
        # within segments, ff is always followed by 00
        found = np.flatnonzero(content == 0xFF)
        found = found[content[found + 1] != 0]
        markers = self._restarts[: row_blocks - 1] + _END[1:]
        if not np.array_equal(found, ends - _MARKER_BYTES) or content[ends - 1].tobytes() != markers:
            return None
        return Segments(rows, _SCALE.unpack_from(data, begin)[0], rows_at, scan, array("I", [0, *ends.tolist()]))

    def _find_scan(self, data: bytes, frame: int) -> int | None:
        """Walk over the frame header, two Huffman tables and the scan's header."""
        at, rows_at = frame + len(self._frame_header), frame + _ROWS_IN_FRAME
        if data[frame:rows_at] + b"\0\0" + data[rows_at + 2 : at] != self._frame_header:
            return None
        for number in (_OF_MEANS, _OF_OTHERS):
            counts = at + _HUFFMAN_HEAD_BYTES
            symbols = counts + _CODE_COUNTS
            codes = sum(data[counts:symbols])
            length = 2 + 1 + _CODE_COUNTS + codes
            if codes == 0 or data[at:counts] != struct.pack(">BBHB", 0xFF, _HUFFMAN, length, number):
                return None
            at = symbols + codes
        scan = at + len(self._scan_header)
        return scan if data[at:scan] == self._scan_header else None

    def cut(self, data: bytes, segments: Segments, first: int, stop: int) -> bytes:
        """Cut rows of blocks out, ``first <= row of blocks < stop``, without decoding.

        Returns
        -------
        bytes
            A JPEG that decodes, bit for bit, to those rows of the whole. It keeps the whole's application segment.
        """
        ends = segments.ends
        begin = ends[first]
        content: bytes | bytearray = data[segments.scan + begin : segments.scan + ends[stop] - _MARKER_BYTES]
        if first % 8 and stop - first > 1:  # markers are counted from 0 to 7, in turn, from the first that there is
            content = bytearray(content)
            for number, end in enumerate(ends[first + 1 : stop]):
                content[end - begin - 1] = _FIRST_RESTART + number % 8
        rows = min(stop * BLOCK, segments.rows) - first * BLOCK
        at = segments.rows_at
        return b"".join((data[:at], rows.to_bytes(2, "big"), data[at + 2 : segments.scan], content, _END))
