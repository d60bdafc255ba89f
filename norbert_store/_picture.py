"""Grey pictures in files, with a note in the file's own metadata.

Conventions
-----------
A picture is a ``uint8`` array (rows, columns), the first row at the top. The note is a JSON object. It stands where
each container has room for such things, so that other programs show the picture as if there were none: in a comment
segment (JPEG), a ``tEXt`` chunk (PNG) or the image description (TIFF).

References
----------
W3C PNG 3rd edition, 11.3.3.2; TIFF 6.0, section 2.
"""

from __future__ import annotations

import io
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
from PIL import Image

from norbert_store._jpeg import stream
from norbert_store._jpeg.encoder import encode, quantisation_table
from norbert_store._jpeg.layout import LONGEST_COMMENT, read_header
from norbert_store.errors import JpegError

Picture = NDArray[np.uint8]
Note = Mapping[str, Any]

_KEYWORD = b"norbert_store"
_IMAGE_DESCRIPTION = 270
# columns, rows, samples per pixel
_SIZE_TAGS = (256, 257, 277)
# as many as a TIFF may claim to have in a few bytes, as silence does; in more bytes, it may have more
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
        If it is no picture, or one that is too large for the format.
    """
    if picture.dtype != np.uint8 or picture.ndim != 2 or 0 in picture.shape:
        raise ValueError(f"expected a picture (rows, columns) of uint8, found shape {picture.shape} of {picture.dtype}")
    text = json.dumps(note, allow_nan=False).encode()
    try:
        return FORMATS[format].encode(np.ascontiguousarray(picture), quality, text)
    except (imagecodecs.PngError, OSError, struct.error) as error:  # of libpng, and of Pillow
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
    name = next((name for name, container in FORMATS.items() if data.startswith(container.beginnings)), None)
    if name is None:
        begin = data[:4].hex(" ") or "nothing"
        raise ValueError(f"not a picture in one of the formats {', '.join(FORMATS)}; it begins with {begin}")
    container = FORMATS[name]
    try:
        note = json.loads(next(container.read_note(data), b"{}"))
        picture = np.asarray(container.decode(data))
    except JpegError:
        raise
    except (struct.error, RecursionError, ValueError) as error:
        raise ValueError(f"the {name} picture can't be decoded: {error}") from error
    if picture.ndim != 2 or picture.dtype != np.uint8:
        raise ValueError(f"expected a grey picture of 8 bits, found shape {picture.shape} of {picture.dtype}")
    if not isinstance(note, dict):
        raise ValueError(f"expected a JSON object as the note of the {name} picture, found {note!r}")
    return picture, note


# ---- where the note stands


def _read_comment(data: bytes) -> Iterator[bytes]:
    for comment in read_header(data).comments:
        if comment.startswith(_KEYWORD + b" "):
            yield comment[len(_KEYWORD) + 1 :]


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


# ---- formats


def _encode_jpeg(picture: Picture, quality: float, note: bytes) -> bytes:
    comment = _KEYWORD + b" " + note
    if len(comment) > LONGEST_COMMENT:
        raise ValueError(f"the note takes {len(comment)} bytes; a JPEG has room for {LONGEST_COMMENT}")
    # here frequency runs along the columns of a block
    return encode(picture, quantisation_table(quality).T, comment)


def _encode_png(picture: Picture, quality: float, note: bytes) -> bytes:
    return _write_text_chunk(bytes(imagecodecs.png_encode(picture)), note)


def _encode_tiff(picture: Picture, quality: float, note: bytes) -> bytes:
    # imagecodecs writes TIFF only since 2026
    buffer = io.BytesIO()
    description = f"{_KEYWORD.decode()} {note.decode()}"
    Image.fromarray(picture).save(buffer, "TIFF", compression="tiff_adobe_deflate", description=description)
    _check_tiff_size(buffer.getvalue())
    return buffer.getvalue()


def _decode_tiff(data: bytes) -> Any:
    _check_tiff_size(data)
    return _decode_by(imagecodecs.tiff_decode, data)


def _decode_png(data: bytes) -> Any:
    return _decode_by(imagecodecs.png_decode, data)


def _decode_by(decode: Callable[[bytes], Any], data: bytes) -> Any:
    """Call another library's decoder."""
    try:
        return decode(data)
    except Exception as error:  # PngError, TiffError, IndexError, and who knows what else of broken bytes
        raise ValueError(str(error)) from error


def _check_tiff_size(data: bytes) -> None:
    """Refuse a TIFF that claims far more pixels than its bytes can hold: libtiff makes up what isn't there."""
    sizes = dict.fromkeys(_SIZE_TAGS, 1)
    for tag, kind, _, at in _tags(data):
        if tag in sizes:
            (size,) = struct.unpack_from(_byte_order(data) + ("H" if kind == 3 else "I"), data, at)
            sizes[tag] = max(sizes[tag], size)
    if math.prod(sizes.values()) > max(_MOST_PIXELS, _MOST_PIXELS_PER_BYTE * len(data)):
        raise ValueError(
            f"{len(data)} bytes claim to hold {' x '.join(map(str, sizes.values()))} pixels, more than is believed of "
            "so few; use png for a picture that is so large and so empty"
        )


@dataclass(frozen=True)
class _Container:
    """How one format is told from others, written with a note, and read."""

    beginnings: tuple[bytes, ...]
    encode: Callable[[Picture, float, bytes], bytes]
    decode: Callable[[bytes], Any]
    read_note: Callable[[bytes], Iterator[bytes]]


FORMATS: dict[str, _Container] = {
    "jpg": _Container((b"\xff\xd8",), _encode_jpeg, stream.decode, _read_comment),
    "png": _Container((b"\x89PNG\r\n\x1a\n",), _encode_png, _decode_png, _read_text_chunk),
    "tif": _Container((b"II*\0", b"MM\0*"), _encode_tiff, _decode_tiff, _read_description),
}
