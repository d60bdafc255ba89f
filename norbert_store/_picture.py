"""Grey pictures in files, with a note in the file's own metadata.

Conventions
-----------
A picture is a ``uint8`` array (rows, columns), the first row at the top. The note is a JSON object. It stands where
each container has room for such things, so that other programs show the picture as if there were none: in a comment
segment (JPEG, JPEG-LS), a ``tEXt`` chunk (PNG), a ``uuid`` box (JPEG 2000, JPEG XL, AVIF) or the image description
(TIFF).

References
----------
ITU-T T.81 annex B (JPEG) and T.87 (JPEG-LS); W3C PNG 3rd edition, 11.3.3.2; ISO/IEC 14496-12, 4.2 for boxes.
"""

from __future__ import annotations

import json
import math
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from norbert_store._jpeg import stream
from norbert_store._jpeg.encoder import encode, quantisation_table
from norbert_store.errors import JpegError

Picture = NDArray[np.uint8]
Note = Mapping[str, Any]

_KEYWORD = b"norbert_store"
# any fixed one will do; this was drawn at random
_UUID = bytes.fromhex("9d3ab30d4b2b5c5ba2d4b8f3a34c7f1e")
_COMMENT = 0xFE
_IMAGE_DESCRIPTION = 270
# columns, rows, samples per pixel
_SIZE_TAGS = (256, 257, 277)
_LONGEST_COMMENT = 65533
_LARGEST_AVIF_SIDE = 32768
# as many as a picture may claim to have in a few bytes, as silence does; in more bytes, it may have more
_MOST_PIXELS = 1 << 26
_MOST_PIXELS_PER_BYTE = 256


def write_picture(picture: Picture, format: str, quality: float, note: Note) -> bytes:  # noqa: A002
    """Encode a picture.

    Parameters
    ----------
    picture : ndarray of uint8
        (rows, columns); rows are taken as frequencies and columns as time, where that matters.
    format : str
        One of `FORMATS`.
    quality : float
        From 0 to 100, see `norbert_store._jpeg.encoder`; the other formats than "jpg" lose nothing.
    note : mapping
        What JSON can hold.

    Raises
    ------
    ValueError
        If the format is unknown, or the picture is too large for it.
    """
    container = _container(format)
    if picture.dtype != np.uint8 or picture.ndim != 2 or 0 in picture.shape:
        raise ValueError(f"expected a picture (rows, columns) of uint8, found shape {picture.shape} of {picture.dtype}")
    text = json.dumps(note, allow_nan=False).encode()
    try:
        data = bytes(container.encode(np.ascontiguousarray(picture), quality, text))
        _check_size(container, data)
        return data
    except ValueError:
        raise
    except Exception as error:  # every encoder has errors of its own
        raise ValueError(f"a picture of {picture.shape} can't be written as {format}: {error}") from error


def read_picture(data: bytes) -> tuple[Picture, dict[str, Any]]:
    """Decode a picture, of any of the `FORMATS`.

    Returns
    -------
    picture : ndarray of uint8
        (rows, columns)
    note : dict
        Empty where the file has none of ours.

    Raises
    ------
    ValueError
        If the bytes are none of these formats, damaged, or no grey picture.
    """
    name = next((name for name, container in FORMATS.items() if container.matches(data)), None)
    if name is None:
        begin = data[:4].hex(" ") or "nothing"
        raise ValueError(f"not a picture in one of the formats {', '.join(FORMATS)}; it begins with {begin}")
    container = FORMATS[name]
    try:
        _check_size(container, data)
        note = json.loads(next(container.read_note(data), b"{}"))
        picture = np.asarray(container.decode(data))
    except JpegError:
        raise
    except Exception as error:  # every decoder has errors of its own
        raise ValueError(f"the {name} picture can't be decoded: {error}") from error
    if picture.ndim != 2 or picture.dtype != np.uint8:
        raise ValueError(f"expected a grey picture of 8 bits, found shape {picture.shape} of {picture.dtype}")
    if not isinstance(note, dict):
        raise ValueError(f"expected a JSON object as the note of the {name} picture, found {note!r}")
    return picture, note


def _check_size(container: _Container, data: bytes) -> None:
    """Refuse a picture that claims far more pixels than its bytes can hold, before memory is taken for them."""
    size = container.read_size(data)
    if math.prod(size) > max(_MOST_PIXELS, _MOST_PIXELS_PER_BYTE * len(data)):
        raise ValueError(
            f"{len(data)} bytes claim to hold {' x '.join(map(str, size))} pixels, more than is believed of so few; "
            "use png for a picture that is so large and so empty"
        )


# ---- where the note stands


def _header_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Marker segments of a JPEG or JPEG-LS before the first that is neither application's nor comment."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF and (0xE0 <= data[at + 1] <= 0xEF or data[at + 1] == _COMMENT):
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        yield data[at + 1], at, end
        at = end


def _write_comment(data: bytes, text: bytes) -> bytes:
    content = _KEYWORD + b" " + text
    if len(content) > _LONGEST_COMMENT:
        raise ValueError(f"the note takes {len(content)} bytes; a JPEG has room for {_LONGEST_COMMENT}")
    at = 2
    for _, _, end in _header_segments(data):
        at = end
    return data[:at] + struct.pack(">BBH", 0xFF, _COMMENT, len(content) + 2) + content + data[at:]


def _read_comment(data: bytes) -> Iterator[bytes]:
    for marker, start, end in _header_segments(data):
        content = data[start + 4 : end]
        if marker == _COMMENT and content.startswith(_KEYWORD + b" "):
            yield content[len(_KEYWORD) + 1 :]


def _write_text_chunk(data: bytes, text: bytes) -> bytes:
    header_end = 8 + 12 + 13  # the signature, then IHDR, which always comes first
    chunk = b"tEXt" + _KEYWORD + b"\0" + text
    return (
        data[:header_end]
        + struct.pack(">I", len(chunk) - 4)
        + chunk
        + struct.pack(">I", zlib.crc32(chunk))
        + data[header_end:]
    )


def _read_text_chunk(data: bytes) -> Iterator[bytes]:
    at = 8
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        content = data[at + 8 : at + 8 + length]
        if data[at + 4 : at + 8] == b"tEXt" and content.startswith(_KEYWORD + b"\0"):
            # libpng only warns of a wrong checksum
            if data[at + 8 + length : at + 12 + length] != struct.pack(">I", zlib.crc32(b"tEXt" + content)):
                raise ValueError("the checksum of its note doesn't match")
            yield content[len(_KEYWORD) + 1 :]
        at += 12 + length


def _write_box(data: bytes, text: bytes) -> bytes:
    content = _UUID + text
    return data + struct.pack(">I", len(content) + 8) + b"uuid" + content


def _read_box(data: bytes) -> Iterator[bytes]:
    for kind, content in _boxes(data):
        if kind == b"uuid" and content.startswith(_UUID):
            yield content[len(_UUID) :]


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kind and content of each box up to one that goes on to the end of the file."""
    at = 0
    while at < len(data):
        if at + 8 > len(data):
            raise ValueError(f"the file is cut off: its last box has {len(data) - at} bytes")
        size, kind = struct.unpack_from(">I4s", data, at)
        head = 8
        if size == 1:
            size, head = int.from_bytes(data[at + 8 : at + 16], "big"), 16
        if size == 0:  # to the end of the file
            size = len(data) - at
        if size < head:
            return
        # the note comes last, and without it the picture would pass for one from elsewhere
        if at + size > len(data):
            raise ValueError(f"the file is cut off: {kind!r} needs {at + size} bytes, found {len(data)}")
        yield kind, data[at + head : at + size]
        at += size


def _read_description(data: bytes) -> Iterator[bytes]:
    for tag, _, length, at in _tags(data):
        # up to four bytes would stand in place of the offset
        if tag == _IMAGE_DESCRIPTION and length > 4:
            (start,) = struct.unpack_from(_byte_order(data) + "I", data, at)
            # libtiff only skips a tag that is cut off
            if start + length > len(data):
                raise ValueError(f"the file is cut off: its description needs {start + length} bytes")
            content = data[start : start + length].rstrip(b"\0")
            if content.startswith(_KEYWORD + b" "):
                yield content[len(_KEYWORD) + 1 :]


def _tags(data: bytes) -> Iterator[tuple[int, int, int, int]]:
    """Number, type, count and offset of the value of each tag of a TIFF's first picture."""
    order = _byte_order(data)
    (directory,) = struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack_from(order + "H", data, directory)
    for at in range(directory + 2, directory + 2 + 12 * count, 12):
        yield *struct.unpack_from(order + "HHI", data, at), at + 8


def _byte_order(data: bytes) -> str:
    return "<" if data[:2] == b"II" else ">"


# ---- how large a picture claims to be, where the decoder believes it, and makes up what isn't there


def _no_size(data: bytes) -> tuple[int, ...]:
    return (0,)


def _codestream_size(data: bytes) -> tuple[int, ...]:
    """Columns, rows and components of JPEG 2000."""
    codestream = next((content for kind, content in _boxes(data) if kind == b"jp2c"), b"")
    if codestream[:4] != b"\xff\x4f\xff\x51":
        raise ValueError("expected a JPEG 2000 codestream")
    columns, rows, left, top = struct.unpack_from(">4I", codestream, 8)
    (components,) = struct.unpack_from(">H", codestream, 40)
    return columns - left, rows - top, components


def _largest_property(data: bytes) -> tuple[int, ...]:
    """Columns and rows of the largest picture that AVIF's properties tell of."""
    sizes = [(0, 0)]
    for kind, content in _boxes(data):
        at = content.find(b"ispe") if kind == b"meta" else -1
        while 0 <= at <= len(content) - 16:
            sizes.append(struct.unpack_from(">II", content, at + 8))
            at = content.find(b"ispe", at + 1)
    return max(sizes, key=math.prod)


def _tagged_size(data: bytes) -> tuple[int, ...]:
    """Columns, rows and samples of TIFF."""
    sizes = dict.fromkeys(_SIZE_TAGS, 1)
    for tag, kind, _, at in _tags(data):
        if tag in sizes:
            (size,) = struct.unpack_from(_byte_order(data) + ("H" if kind == 3 else "I"), data, at)
            sizes[tag] = max(sizes[tag], size)
    return tuple(sizes.values())


# ---- formats


@dataclass(frozen=True)
class _Container:
    """How one format is told from others, written with a note, and read."""

    matches: Callable[[bytes], bool]
    encode: Callable[[Picture, float, bytes], bytes]
    decode: Callable[[bytes], Any]
    read_note: Callable[[bytes], Iterator[bytes]]
    read_size: Callable[[bytes], tuple[int, ...]] = _no_size


def _encode_jpeg(picture: Picture, quality: float, note: bytes) -> bytes:
    # here frequency runs along the columns of a block
    return _write_comment(encode(picture, quantisation_table(quality).T), note)


def _is_jpeg(data: bytes) -> bool:
    return data[:2] == b"\xff\xd8" and not _is_jpeg_ls(data)


def _is_jpeg_ls(data: bytes) -> bool:
    if data[:2] != b"\xff\xd8":
        return False
    at = 2
    for _, _, end in _header_segments(data):
        at = end
    return data[at : at + 2] == b"\xff\xf7"


def _encode_jpeg_ls(picture: Picture, quality: float, note: bytes) -> bytes:
    # imagecodecs' own buffer is too small for noise; JPEG-LS codes a pixel of 8 bits in at most 32
    room = 4 * picture.size + 1024
    return _write_comment(bytes(imagecodecs.jpegls_encode(picture, out=room)), note)


def _decode_jpeg_ls(data: bytes) -> Any:
    # CharLS may never return from a stream that is cut off
    if data[-2:] != b"\xff\xd9":
        raise ValueError(f"the file is cut off: expected it to end with ff d9, found {data[-2:].hex(' ')}")
    return imagecodecs.jpegls_decode(data)


def _encode_avif(picture: Picture, quality: float, note: bytes) -> bytes:
    # libavif writes larger ones, but doesn't read them
    if max(picture.shape) > _LARGEST_AVIF_SIDE:
        raise ValueError(
            f"expected at most {_LARGEST_AVIF_SIDE} rows and columns for avif, found "
            f"{picture.shape[0]} x {picture.shape[1]}"
        )
    return _write_box(bytes(imagecodecs.avif_encode(picture)), note)


def _is_box(brand: bytes) -> Callable[[bytes], bool]:
    return lambda data: brand in data[4:16]


FORMATS: dict[str, _Container] = {
    "jpg": _Container(_is_jpeg, _encode_jpeg, stream.decode, _read_comment),
    "png": _Container(
        lambda data: data[:8] == b"\x89PNG\r\n\x1a\n",
        lambda picture, quality, note: _write_text_chunk(bytes(imagecodecs.png_encode(picture)), note),
        imagecodecs.png_decode,
        _read_text_chunk,
    ),
    "jls": _Container(
        _is_jpeg_ls,
        _encode_jpeg_ls,
        _decode_jpeg_ls,
        _read_comment,
    ),
    "jp2": _Container(
        _is_box(b"jP  "),
        lambda picture, quality, note: _write_box(bytes(imagecodecs.jpeg2k_encode(picture)), note),
        imagecodecs.jpeg2k_decode,
        _read_box,
        _codestream_size,
    ),
    "jxl": _Container(
        _is_box(b"JXL "),
        lambda picture, quality, note: _write_box(
            bytes(imagecodecs.jpegxl_encode(picture, lossless=True, usecontainer=True)), note
        ),
        imagecodecs.jpegxl_decode,
        _read_box,
    ),
    "avif": _Container(
        _is_box(b"avif"),
        _encode_avif,
        imagecodecs.avif_decode,
        _read_box,
        _largest_property,
    ),
    "tif": _Container(
        lambda data: data[:4] in (b"II*\0", b"MM\0*"),
        lambda picture, quality, note: bytes(
            imagecodecs.tiff_encode(picture, compression="deflate", description=f"{_KEYWORD.decode()} {note.decode()}")
        ),
        imagecodecs.tiff_decode,
        _read_description,
        _tagged_size,
    ),
}


def _container(name: str) -> _Container:
    if name not in FORMATS:
        raise ValueError(f"format {name!r} is unknown; expected one of {', '.join(map(repr, FORMATS))}")
    return FORMATS[name]
