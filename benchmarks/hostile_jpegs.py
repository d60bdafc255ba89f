"""JPEGs that lie, built by hand: of each what a reader must make of it.

All are made of one small picture (`LEVELS`), so that whoever reads them knows shape and values to expect.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

import imagecodecs
import numpy as np
from PIL import Image

from norbert_store._jpeg.encoder import encode, quantisation_table
from norbert_store._jpeg.layout import read_header

SHAPE = (24, 40)
LEVELS = np.random.default_rng(0).integers(0, 256, SHAPE, np.uint8)
TABLE = quantisation_table(80)
JPEG = encode(LEVELS, TABLE)

SOI, EOI = b"\xff\xd8", b"\xff\xd9"
JFIF, EXIF, OURS, COMMENT = 0xE0, 0xE1, 0xE9, 0xFE
QUANTISATION, HUFFMAN, FRAME, SCAN, INTERVAL, LINES = 0xDB, 0xC4, 0xC0, 0xDA, 0xDD, 0xDC
SIGNATURE = b"norbert\0"

Segment = tuple[int, bytes]


class Expected(Enum):
    """What a reader must make of a JPEG."""

    REFUSED = "an error"
    RIGHT = "the values of the good JPEG: odd, but valid"
    SHAPED = "values of the right shape: only its checksum, or a look at every bit, could tell that they are wrong"


@dataclass(frozen=True)
class Hostile:
    """One JPEG.

    Attributes
    ----------
    name : str
    data : bytes
    expected : Expected
    """

    name: str
    data: bytes
    expected: Expected


def hostile_jpegs() -> Iterator[Hostile]:
    """Build all of them, one at a time: some are large."""
    for kind in (_no_jpegs, _sizes, _frames, _scans, _tables, _restarts, _lengths, _cuts, _padding):
        names = set()
        for name, data, *expected in kind():
            assert name not in names, name
            names.add(name)
            yield Hostile(name, data, *expected or [Expected.REFUSED])


# ---- taking apart, putting together


def parse(data: bytes) -> tuple[list[Segment], bytes]:
    """Take a good JPEG apart: marker and content of its header's segments, and what follows them without the end."""
    segments, at = [], 2
    while not segments or segments[-1][0] != SCAN:
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        segments.append((data[at + 1], data[at + 4 : end]))
        at = end
    return segments, data[at:-2]


def segment(marker: int, content: bytes, length: int | None = None) -> bytes:
    """One marker segment, with the length that it has or another."""
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2 if length is None else length) + content


def build(segments: list[Segment], scan: bytes, end: bytes = EOI) -> bytes:
    """Put a JPEG together."""
    return SOI + b"".join(segment(*one) for one in segments) + scan + end


def plain_jpeg(levels: np.ndarray = LEVELS, mode: str = "L", **options: object) -> bytes:
    """A JPEG of the picture by Pillow."""
    buffer = io.BytesIO()
    Image.fromarray(levels).convert(mode).save(buffer, "JPEG", **options)
    return buffer.getvalue()


SEGMENTS, ENTROPY = parse(JPEG)
HEADER = len(JPEG) - len(ENTROPY) - len(EOI)
ROWS = read_header(JPEG).segments or ()
# the same picture with no table of segments and no restart markers, as other programs write it
PLAIN = plain_jpeg(qtables=[TABLE.ravel().tolist()])
PLAIN_SEGMENTS, PLAIN_ENTROPY = parse(PLAIN)


def content(marker: int) -> bytes:
    """Content of the good JPEG's first segment of a kind."""
    return next(found for kind, found in SEGMENTS if kind == marker)


def changed(marker: int, new: bytes | None, scan: bytes = ENTROPY) -> bytes:
    """The good JPEG with other content in its segments of a kind, or without them."""
    others = [(kind, found if kind != marker else new) for kind, found in SEGMENTS]
    return build([(kind, found) for kind, found in others if found is not None], scan)


def with_before(marker: int, *new: Segment, scan: bytes = ENTROPY) -> bytes:
    """The good JPEG with more segments before the first of a kind."""
    at = next(i for i, (kind, _) in enumerate(SEGMENTS) if kind == marker)
    return build([*SEGMENTS[:at], *new, *SEGMENTS[at:]], scan)


def frame(rows: int = SHAPE[0], columns: int = SHAPE[1], bits: int = 8, components: bytes = b"\x01\x11\0") -> bytes:
    """Content of a frame header."""
    return struct.pack(">BHHB", bits, rows, columns, len(components) // 3) + components


def lengths(values: list[int], width: int = 2) -> bytes:
    """Content of a table of segments."""
    return SIGNATURE + struct.pack(f">Bh{len(values)}{'H' if width == 2 else 'I'}", width, 0, *values)


def rows_of_blocks() -> list[bytes]:
    """The good JPEG's scan, by rows of blocks, without the markers between them."""
    starts = [sum(ROWS[:i]) + 2 * i for i in range(len(ROWS))]
    return [ENTROPY[start : start + length] for start, length in zip(starts, ROWS, strict=True)]


# ---- the kinds


def _no_jpegs() -> Iterator[tuple]:
    yield "empty", b""
    yield "one byte", b"\xff"
    yield "start", SOI
    yield "start and end", SOI + EOI
    yield "starts without end", SOI * 1000
    yield "zeros", bytes(1000)
    yield "ones", b"\xff" * 1000
    yield "text", b"This is no JPEG. " * 100
    yield "a PNG", bytes(imagecodecs.png_encode(LEVELS))
    yield "a PNG behind a start", SOI + bytes(imagecodecs.png_encode(LEVELS)) + EOI
    yield "a lossless JPEG", bytes(imagecodecs.ljpeg_encode(LEVELS))
    yield "a JPEG XL", bytes(imagecodecs.jpegxl_encode(LEVELS))


def _sizes() -> Iterator[tuple]:
    for rows, columns in (
        *((65500, 65500), (65535, 65535), (65500, SHAPE[1]), (SHAPE[0], 65500), (1, 65535), (65535, 1)),
        *((0, 0), (0, SHAPE[1]), (SHAPE[0], 0), (0, 65535)),
        *((SHAPE[0] + 8, SHAPE[1]), (SHAPE[0], SHAPE[1] + 1), (SHAPE[1], SHAPE[0]), (1, 1)),
    ):
        yield f"{rows} x {columns}", changed(FRAME, frame(rows, columns))
        yield f"{rows} x {columns}, no table of segments", with_plain(FRAME, frame(rows, columns))
    yield "the size in a later marker", with_before(SCAN, (LINES, b"\xff\xff")), Expected.RIGHT
    yield "no rows, the size after the scan", changed(FRAME, frame(0), ENTROPY + segment(LINES, struct.pack(">H", 24)))


def with_plain(marker: int, new: bytes) -> bytes:
    """The plain JPEG with other content in its segments of a kind."""
    return build([(kind, found if kind != marker else new) for kind, found in PLAIN_SEGMENTS], PLAIN_ENTROPY)


def _frames() -> Iterator[tuple]:
    for marker in range(0xC1, 0xD0):
        if marker != HUFFMAN:
            yield f"frame ff {marker:02x}", build([(marker if k == FRAME else k, c) for k, c in SEGMENTS], ENTROPY)
    yield "progressive", plain_jpeg(progressive=True)
    yield "colour", plain_jpeg(np.dstack([LEVELS] * 3), "RGB")
    yield "four colours", plain_jpeg(np.dstack([LEVELS] * 3), "CMYK")
    for bits in (0, 1, 7, 9, 12, 16, 255):
        yield f"{bits} bits", changed(FRAME, frame(bits=bits))
    for count in (0, 2, 3, 4, 85, 255):
        yield f"{count} components", changed(FRAME, frame(components=b"\x01\x11\0" * count))
        yield f"{count} components claimed", changed(FRAME, frame()[:5] + bytes((count,)) + frame()[6:])
    yield "a short frame", changed(FRAME, frame()[:5])
    yield "an empty frame", changed(FRAME, b"")
    yield "a long frame", changed(FRAME, frame() + b"\0")
    yield "no frame", changed(FRAME, None)
    yield "two frames", with_before(FRAME, (FRAME, frame()))
    yield "two frames of different sizes", with_before(FRAME, (FRAME, frame(8, 8)))
    yield "baseline and progressive frame", with_before(FRAME, (0xC2, frame()))
    yield "a frame after the scan", build(SEGMENTS, ENTROPY + segment(FRAME, frame()))
    yield "sampling 0", changed(FRAME, frame(components=b"\x01\x00\0"))
    yield "sampling 15", changed(FRAME, frame(components=b"\x01\xff\0"))
    yield "sampling 2", changed(FRAME, frame(components=b"\x01\x22\0")), Expected.RIGHT
    yield "quantisation table 1", changed(FRAME, frame(components=b"\x01\x11\x01"))
    yield "quantisation table 255", changed(FRAME, frame(components=b"\x01\x11\xff"))
    yield "another component", changed(FRAME, frame(components=b"\x02\x11\0"))


def _scans() -> Iterator[tuple]:
    scan = content(SCAN)
    yield "no scan", build([one for one in SEGMENTS if one[0] != SCAN], b"")
    yield "no scan, but its data", build([one for one in SEGMENTS if one[0] != SCAN], ENTROPY)
    yield "an empty scan", build(SEGMENTS, b"")
    yield "an empty scan, no table of segments", build(PLAIN_SEGMENTS, b"")
    yield "two scans", build(SEGMENTS, ENTROPY + segment(SCAN, scan) + ENTROPY)
    yield "two scans, no table of segments", build(PLAIN_SEGMENTS, PLAIN_ENTROPY + segment(SCAN, scan) + PLAIN_ENTROPY)
    yield "two scan headers", build([*SEGMENTS, (SCAN, scan)], ENTROPY)
    yield "a hundred scans", build(PLAIN_SEGMENTS, PLAIN_ENTROPY + 100 * (segment(SCAN, scan) + PLAIN_ENTROPY))
    for name, new in (
        ("no component", b"\0\0\x3f\0"),
        ("two components", b"\x02\x01\0\x02\0\0\x3f\0"),
        ("two components claimed", b"\x02" + scan[1:]),
        ("another component", scan[:1] + b"\x07" + scan[2:]),
        ("Huffman tables 1", scan[:2] + b"\x11" + scan[3:]),
        ("Huffman tables 15", scan[:2] + b"\xff" + scan[3:]),
        ("no coefficients", scan[:3] + b"\0\0\0"),
        ("the first coefficients", scan[:3] + b"\0\x05\0"),
        ("the last coefficients", scan[:3] + b"\x05\x3f\0"),
        ("too many coefficients", scan[:3] + b"\0\xff\0"),
        ("half its precision", scan[:3] + b"\0\x3f\x01"),
        ("nothing in its header", b""),
        ("a long header", scan + b"\0"),
    ):
        yield f"a scan of {name}", changed(SCAN, new)
    for name, value in (("zeros", 0), ("a half", 0x7F), ("fe", 0xFE)):
        yield f"a scan of {name}", build(PLAIN_SEGMENTS, bytes((value,)) * len(PLAIN_ENTROPY)), Expected.SHAPED
    yield "a scan of ones", build(PLAIN_SEGMENTS, b"\xff\0" * len(PLAIN_ENTROPY)), Expected.SHAPED
    yield "a scan of fill bytes", build(PLAIN_SEGMENTS, b"\xff" * len(PLAIN_ENTROPY))


def _tables() -> Iterator[tuple]:
    steps, huffman = content(QUANTISATION), content(HUFFMAN)
    nonsense = steps[:1] + bytes(range(1, 65))
    yield "no quantisation table", changed(QUANTISATION, None)
    yield "an empty quantisation table", changed(QUANTISATION, b"")
    yield "a short quantisation table", changed(QUANTISATION, steps[:-1])
    yield "a long quantisation table", changed(QUANTISATION, steps + b"\0")
    yield "the quantisation table twice", with_before(QUANTISATION, (QUANTISATION, steps)), Expected.RIGHT
    yield "two quantisation tables in one", changed(QUANTISATION, nonsense + steps), Expected.RIGHT
    yield "another quantisation table first", with_before(QUANTISATION, (QUANTISATION, nonsense)), Expected.RIGHT
    yield "a quantisation table of 16 bits", changed(QUANTISATION, b"\x10" + b"".join(b"\0%c" % i for i in steps[1:]))
    yield "half a quantisation table of 16 bits", changed(QUANTISATION, b"\x10" + steps[1:])
    yield "a quantisation table of 128 bits", changed(QUANTISATION, b"\xf0" + steps[1:])
    yield "quantisation table 4", changed(QUANTISATION, b"\x04" + steps[1:])
    for i in (1, 2, 33, 64):
        yield f"step {i} is 0", changed(QUANTISATION, steps[:i] + b"\0" + steps[i + 1 :])
    yield "all steps are 0", changed(QUANTISATION, steps[:1] + bytes(64))
    yield "tables after the scan", build([s for s in SEGMENTS if s[0] != QUANTISATION], ENTROPY + segment(0xDB, steps))

    yield "no Huffman tables", changed(HUFFMAN, None)
    first, second = (i for i, (kind, _) in enumerate(SEGMENTS) if kind == HUFFMAN)
    yield "no Huffman table of means", build([*SEGMENTS[:first], *SEGMENTS[first + 1 :]], ENTROPY)
    yield "no Huffman table of the rest", build([*SEGMENTS[:second], *SEGMENTS[second + 1 :]], ENTROPY)
    yield "the Huffman table twice", with_before(HUFFMAN, (HUFFMAN, huffman)), Expected.RIGHT
    other = b"\0" + bytes((0, 1, *[0] * 14)) + b"\x05"
    yield "another Huffman table first", with_before(HUFFMAN, (HUFFMAN, other)), Expected.RIGHT
    both = SEGMENTS[first][1] + SEGMENTS[second][1]
    rest = [one for one in SEGMENTS if one[0] not in (HUFFMAN, SCAN)]
    yield "Huffman tables in one", build([*rest, (HUFFMAN, both), SEGMENTS[-1]], ENTROPY), Expected.RIGHT
    for name, new in (
        ("nothing", b""),
        ("half its counts", huffman[:9]),
        ("no codes", b"\0" + bytes(16)),
        ("counts without codes", huffman[:17]),
        ("a code less", huffman[:-1]),
        ("a code more", huffman + b"\0"),
        ("more codes than fit", b"\0" + bytes((3, *[0] * 15)) + b"\0\x01\x02"),
        ("255 codes of every length", b"\0" + b"\xff" * 16 + bytes(range(256)) * 16),
        ("257 codes", b"\0" + bytes((*[0] * 14, 255, 2)) + bytes(257)),
        ("a mean of 16 bits", b"\0" + bytes((0, 1, *[0] * 14)) + b"\x10"),
        ("kind 2", b"\x20" + huffman[1:]),
        ("number 4", b"\x04" + huffman[1:]),
        ("number 15", b"\x0f" + huffman[1:]),
    ):
        yield f"a Huffman table of {name}", build([*SEGMENTS[:first], (HUFFMAN, new), *SEGMENTS[first + 1 :]], ENTROPY)
    few = b"\0\x01" + bytes(15) + b"\0"
    one_code = build([*SEGMENTS[:first], (HUFFMAN, few), *SEGMENTS[first + 1 :]], ENTROPY)
    yield "a Huffman table of one code", one_code, Expected.SHAPED
    yield "arithmetic tables", with_before(SCAN, (0xCC, b"\0\x10"))


def _restarts() -> Iterator[tuple]:
    blocks = SHAPE[1] // 8
    for interval in (0, 1, blocks - 1, blocks + 1, 2 * blocks, 3 * blocks, 65535):
        yield f"restart interval {interval}", changed(INTERVAL, struct.pack(">H", interval))
    yield "no restart interval", changed(INTERVAL, None)
    yield "an empty restart interval", changed(INTERVAL, b"")
    yield "a long restart interval", changed(INTERVAL, struct.pack(">I", blocks))
    yield "another restart interval first", with_before(INTERVAL, (INTERVAL, b"\0\x01")), Expected.RIGHT
    yield "another restart interval last", with_before(SCAN, (INTERVAL, b"\0\x01"))
    no_table = [one for one in SEGMENTS if one[0] != OURS]
    for name, with_table in (("", True), (", no table of segments", False)):
        for what, marks in (
            ("missing", (b"", b"\xff\xd1")),
            ("missing at the end", (b"\xff\xd0", b"")),
            ("missing everywhere", (b"", b"")),
            ("misnumbered", (b"\xff\xd1", b"\xff\xd0")),
            ("of one number", (b"\xff\xd0", b"\xff\xd0")),
            ("from 7", (b"\xff\xd7", b"\xff\xd0")),
            ("doubled", (b"\xff\xd0\xff\xd0", b"\xff\xd1")),
            ("all there are", (b"".join(bytes((0xFF, 0xD0 + i)) for i in range(8)), b"\xff\xd1")),
            ("replaced by an end", (b"\xff\xd9", b"\xff\xd1")),
            ("replaced by a start", (b"\xff\xd8", b"\xff\xd1")),
            ("replaced by a frame", (b"\xff\xc0", b"\xff\xd1")),
            ("replaced by a scan", (b"\xff\xda", b"\xff\xd1")),
            ("replaced by data", (b"\xff\0", b"\xff\xd1")),
            ("replaced by zeros", (b"\0\0", b"\xff\xd1")),
            ("behind fill bytes", (b"\xff\xff\xff\xd0", b"\xff\xd1")),
            ("behind many fill bytes", (b"\xff" * 100_000 + b"\xff\xd0", b"\xff\xd1")),
            ("behind a comment", (segment(COMMENT, b"hello") + b"\xff\xd0", b"\xff\xd1")),
        ):
            rows = rows_of_blocks()
            scan = b"".join((rows[0], marks[0], rows[1], marks[1], rows[2]))
            sizes = [len(rows[0]) + len(marks[0]) - 2, len(rows[1]) + len(marks[1]) - 2, len(rows[2])]
            segments = [(k, lengths([max(0, n) for n in sizes], 4) if k == OURS else c) for k, c in SEGMENTS]
            yield f"restart markers {what}{name}", build(segments if with_table else no_table, scan)
        before, after = b"\xff\xd0" + ENTROPY, ENTROPY + b"\xff\xd2"
        segments = SEGMENTS if with_table else no_table
        yield f"a restart marker before the scan{name}", build(segments, before)
        yield f"a restart marker after the scan{name}", build(segments, after)
    yield "a row of blocks twice", build(no_table, ENTROPY + b"\xff\xd2" + rows_of_blocks()[2])
    rows = rows_of_blocks()
    short = b"".join((rows[0][:-20], b"\xff\xd0", rows[1], b"\xff\xd1", rows[2]))
    table = lengths([len(rows[0]) - 20, *map(len, rows[1:])])
    yield "a row of blocks cut short, and told so", changed(OURS, table, short), Expected.SHAPED


def _lengths() -> Iterator[tuple]:
    total, good = sum(ROWS), list(ROWS)
    wrong = {
        "nothing": SIGNATURE,
        "no lengths": lengths([]),
        "half a length": lengths(good) + b"\0",
        "width 0": SIGNATURE + b"\0" + lengths(good)[9:],
        "width 1": SIGNATURE + b"\x01" + bytes(3),
        "width 3": SIGNATURE + b"\x03" + bytes(9),
        "width 8": SIGNATURE + struct.pack(">Bh3Q", 8, 0, *good),
        "width 255": SIGNATURE + b"\xff" + bytes(255),
        "a length more": lengths([*good, 0]),
        "a length less": lengths(good[:-1]),
        "32,000 lengths": lengths([1] * 32_000),
        "zeros": lengths([0, 0, 0]),
        "the largest": lengths([65535] * 3),
        "the largest of 4 bytes": lengths([2**32 - 1] * 3, 4),
        "minus two": lengths([2**32 - 2, total + 2, 0], 4),
        "a sum that is right modulo 2**32": lengths([2**32 - 1, good[1] + good[0] + 1, good[2]], 4),
        "a sum that is right modulo 2**16": lengths([65535, good[0] + good[1] + 1, good[2]]),
    }
    for name, new in wrong.items():
        yield f"a table of segments of {name}", changed(OURS, new)
    # such a table is no good for cuts, and decoding doesn't need it
    for name, wrong_lengths in {
        "two lengths swapped": [good[1], good[0], good[2]],
        "a byte too many, then one too few": [good[0] + 1, good[1] - 1, good[2]],
        "all in the first": [total, 0, 0],
    }.items():
        yield f"a table of segments of {name}", changed(OURS, lengths(wrong_lengths)), Expected.RIGHT
    right = content(OURS)
    yield "a table of segments of 4 bytes each", changed(OURS, lengths(good, 4)), Expected.RIGHT
    yield "no table of segments", changed(OURS, None), Expected.RIGHT
    yield "two tables of segments", with_before(OURS, (OURS, right))
    yield "two different tables of segments", with_before(OURS, (OURS, wrong["zeros"]))
    yield "the table of segments last", build(_moved(OURS), ENTROPY), Expected.RIGHT
    yield "an application segment of others", with_before(OURS, (OURS, b"norbert \0\x02")), Expected.RIGHT
    yield "a table of segments in a comment", changed(OURS, None)[:2] + segment(COMMENT, right), Expected.REFUSED
    for length in (0, 1, 2, 3, len(right), len(right) + 3, 65535):
        whole = segment(OURS, right)
        yield f"a table of segments whose length is {length}", JPEG.replace(whole, segment(OURS, right, length))


def _moved(marker: int) -> list[Segment]:
    """The good JPEG's segments, with those of a kind right before the scan."""
    moved = [one for one in SEGMENTS if one[0] == marker]
    others = [one for one in SEGMENTS if one[0] != marker]
    return [*others[:-1], *moved, others[-1]]


def _cuts() -> Iterator[tuple]:
    for name, data, header in (("", JPEG, HEADER), (", plain", PLAIN, len(PLAIN) - len(PLAIN_ENTROPY) - 2)):
        for length in range(header):
            yield f"the first {length} bytes{name}", data[:length]
            yield f"the first {length} bytes and an end{name}", data[:length] + EOI
        for length in range(header, len(data), 7):
            yield f"the first {length} bytes{name}", data[:length]
        for length in range(header, len(data) - 2, 7):
            expected = Expected.REFUSED if data is JPEG or length == header else Expected.SHAPED
            yield f"the first {length} bytes and an end{name}", data[:length] + EOI, expected
    yield "no end", JPEG[:-2]
    yield "half an end", JPEG[:-1]
    yield "the header alone", JPEG[:HEADER] + EOI
    yield "a byte lost in the middle", JPEG[: HEADER + 50] + JPEG[HEADER + 51 :]
    yield "the start lost", JPEG[2:]


def _padding() -> Iterator[tuple]:
    yield "garbage after the end", JPEG + b"garbage"
    yield "zeros after the end", JPEG + bytes(1000)
    yield "a second JPEG after the end", JPEG + JPEG
    yield "a second JPEG after the end, plain", PLAIN + PLAIN
    yield "two ends", JPEG + EOI
    yield "two ends, plain", PLAIN + EOI
    yield "garbage before the end", JPEG[:-2] + b"garbage" + EOI
    yield "garbage before the end, plain", PLAIN[:-2] + b"garbage" + EOI, Expected.RIGHT
    yield "megabytes before the end", JPEG[:-2] + bytes(10_000_000) + EOI
    yield "megabytes before the end, plain", PLAIN[:-2] + bytes(10_000_000) + EOI, Expected.RIGHT
    yield "fill bytes", SOI + b"\xff" * 1_000_000 + JPEG[2:]
    yield "fill bytes without end", SOI + b"\xff" * 10_000_000
    yield "fill bytes before the scan", JPEG[: HEADER - 10] + b"\xff" * 100_000 + JPEG[HEADER - 10 :]
    yield "fill bytes before the end", JPEG[:-2] + b"\xff" * 1_000_000 + EOI
    yield "fill bytes before the end, plain", PLAIN[:-2] + b"\xff" * 1_000_000 + EOI
    yield "stuffed bytes before the end", JPEG[:-2] + b"\xff\0" * 1_000_000 + EOI
    yield "a comment", with_before(OURS, (COMMENT, b"hello")), Expected.RIGHT
    yield "a hundred huge comments", with_before(OURS, *[(COMMENT, bytes(65533))] * 100), Expected.RIGHT
    yield "100,000 empty comments", with_before(OURS, *[(COMMENT, b"")] * 100_000), Expected.RIGHT
    yield "a comment of length 0", SOI + segment(COMMENT, b"", 0) + JPEG[2:]
    yield "a comment of length 1", SOI + segment(COMMENT, b"", 1) + JPEG[2:]
    yield "a comment that swallows the rest", SOI + segment(COMMENT, b"", 65535) + JPEG[2:]
    thumbnail = b"Exif\0\0" + JPEG
    nested = b"JFXX\0\x10" + build([*SEGMENTS[:1], (JFIF, b"JFXX\0\x10" + JPEG), *SEGMENTS[1:]], ENTROPY)
    yield "a thumbnail", with_before(OURS, (EXIF, thumbnail)), Expected.RIGHT
    yield "a thumbnail in a thumbnail", with_before(OURS, (JFIF, nested)), Expected.RIGHT
    yield "a hundred thumbnails", with_before(OURS, *[(EXIF, thumbnail)] * 100), Expected.RIGHT
    yield "a thumbnail without a segment", SOI + JPEG + JPEG[2:]
    for marker in (0x01, 0x02, 0xBF, 0xD0, 0xD7, 0xD8, 0xD9, 0xDE, 0xF0, 0xFD):
        yield f"a marker ff {marker:02x}", with_before(OURS, (marker, b"\0\0"))
