"""Levels to JPEG: the quantisation table, and the bytes.

``quality`` is a number from 0 to 100. It sets the table's smallest step, ``2 ** ((100 - quality) / 10)``: 1 at 100,
4 at the default of 80, and twice as coarse for every ten points less, down to 20, where steps reach their largest, 255.
The step grows along frequency and stays flat along time, for a smooth table that favours time costs the fewest bytes at
equal error on spectrograms (``docs/format.md``).

That is the whole of an encoder that only sees levels. The one that a store is written with knows more, what an ear
makes of an error; it is `norbert_store._encode.search`, and ``quality`` means what a listener hears.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from norbert_store._jpeg import layout
from norbert_store._jpeg.cosine import whole_blocks
from norbert_store._jpeg.layout import BLOCK, LARGEST_SIDE

DEFAULT_QUALITY = 80.0
DEFAULT_EFFORT = 3
HIGHEST_EFFORT = 4


def check_quality(quality: float) -> float:
    """Return the quality as a float.

    Raises
    ------
    ValueError
        If it isn't a number from 0 to 100.
    """
    if isinstance(quality, bool) or not isinstance(quality, int | float | np.number) or not 0 <= quality <= 100:
        raise ValueError(f"quality must be a number from 0 to 100, found {quality!r}")
    return float(quality)


def check_effort(effort: int) -> int:
    """Return the effort as a plain int.

    Raises
    ------
    ValueError
        If it isn't a whole number from 0 to `HIGHEST_EFFORT`.
    """
    if isinstance(effort, bool) or not isinstance(effort, int | np.integer) or not 0 <= effort <= HIGHEST_EFFORT:
        raise ValueError(f"effort must be a whole number from 0 to {HIGHEST_EFFORT}, found {effort!r}")
    return int(effort)


def quantisation_table(quality: float = DEFAULT_QUALITY) -> NDArray[np.uint8]:
    """Return the steps (8, 8) by which the cosine coefficients of a block are divided.

    Parameters
    ----------
    quality : float
        From 0 to 100.

    Returns
    -------
    ndarray of uint8
        First axis along rows (time), second along columns (frequency).

    Examples
    --------
    >>> quantisation_table(80)[0]
    array([ 4,  5,  6,  7,  9, 10, 11, 12], dtype=uint8)
    """
    return table_of_step(2 ** ((100 - check_quality(quality)) / 10))


def table_of_step(step: float) -> NDArray[np.uint8]:
    """Return the quantisation table (8, 8) whose smallest step is the given one, at least 1."""
    along_frequency = step * (1 + 2 * np.arange(BLOCK) / 7)
    steps = np.clip(np.rint(along_frequency), 1, 255).astype(np.uint8)
    table = np.tile(steps, (BLOCK, 1))
    table[0, 0] = _step_that_keeps_silence(int(steps[0]))
    return table


def _step_that_keeps_silence(step: int) -> int:
    """Largest step up to the given one for the mean of a block that leaves a block of level 0 exactly that."""
    # level 0 lies 128 below the middle, so its coefficient is -8 * 128; half a level is 4, and what is lower is clipped
    return next(smaller for smaller in range(step, 0, -1) if round(1024 / smaller) * smaller > 1024 - 4)


def encode(levels: NDArray[np.uint8], table: NDArray[np.uint8], comment: bytes = b"", scale: int = 0) -> bytes:
    """Encode an image of levels as one stored JPEG.

    Parameters
    ----------
    levels : ndarray of uint8
        (rows, columns), each from 1 to 65,500.
    table : ndarray of uint8
        (8, 8), from `quantisation_table` or of one's own, 1 to 255.
    comment : bytes, optional
        For the file's comment segment.
    scale : int
        Level 255 stands for 2 to this power.

    Returns
    -------
    bytes
        Baseline, grey, with optimised Huffman tables, as `norbert_store._jpeg.layout` describes it.

    Raises
    ------
    ValueError
        On another dtype, number of dimensions or size.
    """
    check_image(levels)
    # Pillow makes room for two bytes a pixel, which is too little where most of a block lies outside of the image: so
    # blocks are filled up before, as libjpeg would
    image = np.ascontiguousarray(whole_blocks(levels)[:LARGEST_SIDE, :LARGEST_SIDE])
    buffer = io.BytesIO()
    options: dict[str, Any] = {"optimize": True, "restart_marker_rows": 1}
    Image.fromarray(image).save(buffer, "JPEG", qtables=[table.ravel().tolist()], **options)
    data = buffer.getvalue()
    header = layout.read_header(data)
    rows, columns = levels.shape
    return layout.write(rows, columns, table, header.huffman, layout.segments_of(data, header), comment, scale)


def check_image(levels: NDArray[np.uint8]) -> None:
    """Raise `ValueError` unless an array is an image that a JPEG can hold."""
    if levels.dtype != np.uint8:
        raise ValueError(f"expected levels of dtype uint8, found {levels.dtype}; quantise them first")
    if levels.ndim != 2 or 0 in levels.shape:
        raise ValueError(f"expected an image (rows, columns), found shape {levels.shape}")
    if max(levels.shape) > LARGEST_SIDE:
        raise ValueError(
            f"expected at most {LARGEST_SIDE} rows and columns, found {levels.shape[0]} x {levels.shape[1]}; "
            "use smaller chunks, or a shorter piece"
        )
