"""Decoding of JPEGs from anywhere: nothing is decoded before its header and markers are checked, by `layout`."""

from __future__ import annotations

from typing import Any

import numpy as np
from imagecodecs import Jpeg8Error, jpeg8_decode
from numpy.typing import NDArray

from norbert_store._jpeg.layout import Header, check_markers, read_header
from norbert_store.errors import JpegError


def check(data: bytes, shape: tuple[int, int]) -> Header:
    """Read the header and compare its size with what is expected.

    Raises
    ------
    JpegError
        As `norbert_store._jpeg.layout.read_header`, and if rows or columns are others.
    """
    header = read_header(data)
    if header.shape != shape:
        rows, columns = header.shape
        raise JpegError(f"the JPEG is {rows} rows x {columns} columns; expected {shape[0]} x {shape[1]}")
    return header


def check_within(data: bytes, shape: tuple[int, int]) -> Header:
    """Read the header and check that there are at most these rows and columns.

    Raises
    ------
    JpegError
        As `norbert_store._jpeg.layout.read_header`, and if rows or columns are more.
    """
    header = read_header(data)
    rows, columns = header.shape
    if rows > shape[0] or columns > shape[1]:
        raise JpegError(f"the JPEG is {rows} rows x {columns} columns; expected at most {shape[0]} x {shape[1]}")
    return header


def decode(data: bytes, out: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
    """Decode a JPEG.

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
    # imagecodecs writes into a read-only array as well
    if out is not None and (
        out.dtype != np.uint8 or not out.flags.c_contiguous or not out.flags.writeable or out.ndim != 2
    ):
        raise ValueError("out must be a writable, C-contiguous, two-dimensional array of uint8")
    header = read_header(data) if out is None else check(data, (out.shape[0], out.shape[1]))
    return _decode(data, header, np.empty(header.shape, np.uint8) if out is None else out)


def decode_within(data: bytes, shape: tuple[int, int]) -> tuple[NDArray[np.uint8], int]:
    """Decode a JPEG of at most some rows and columns; return its levels and its scale.

    Raises
    ------
    JpegError
        As `decode`, and if it has more rows or columns.
    """
    header = check_within(data, shape)
    return _decode(data, header, np.empty(header.shape, np.uint8)), header.scale


def _decode(data: bytes, header: Header, out: NDArray[np.uint8]) -> NDArray[np.uint8]:
    check_markers(data, header)
    return decode_checked(data, out)


def decode_checked(data: bytes, out: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Decode a JPEG, whose header and markers were checked, into memory of its size.

    Raises
    ------
    JpegError
        If the decoder gives up.
    """
    try:
        jpeg8_decode(data, out=out)
    except (Jpeg8Error, ValueError) as error:
        raise JpegError(f"the JPEG can't be decoded: {error}") from error
    return out


def as_bytes(data: Any) -> bytes:
    """Take any object with a contiguous buffer as bytes; bytes themselves are not copied."""
    return data if isinstance(data, bytes) else bytes(memoryview(data).cast("B"))
