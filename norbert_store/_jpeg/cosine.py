"""The cosine transform of JPEG, of images that are still floats.

Conventions
-----------
*Coefficients* are an array (block rows, block columns, 64): the last axis holds the coefficients of one block in
zigzag order, from the mean to the fastest changes, which is the order in which they are coded. On JPEG's scale: the
first is 8 times what the block's mean lies above 128, and one step of quantisation is as in the file's table.

References
----------
ITU-T T.81 (1992), ISO/IEC 10918-1, A.3.3 for the transform.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from norbert_store._jpeg.layout import BLOCK, ZIGZAG

SIZE = BLOCK * BLOCK
_ROWS_AT_A_TIME = 64

# level 128 is JPEG's zero
_MIDDLE = np.float32(BLOCK * 128)


def _basis() -> NDArray[np.float32]:
    """The 64 patterns of which a block is the sum, one a column, in zigzag order; orthonormal."""
    k, n = np.mgrid[:BLOCK, :BLOCK]
    cosine = np.sqrt(2 / BLOCK) * np.cos((2 * n + 1) * k * np.pi / (2 * BLOCK))
    cosine[0] = np.sqrt(1 / BLOCK)
    basis = np.kron(cosine, cosine)[ZIGZAG].T
    basis[:, 0] = 1 / BLOCK  # exactly, so that level 0 is exactly -1024
    return np.ascontiguousarray(basis, np.float32)


_BASIS = _basis()
_INVERSE_BASIS = np.ascontiguousarray(_BASIS.T)


def steps_of(table: ArrayLike) -> NDArray[np.float32]:
    """Return the steps of a quantisation table (8, 8) in zigzag order, (64,), as float32.

    Examples
    --------
    >>> steps_of(np.arange(64).reshape(8, 8))[:6]
    array([ 0.,  1.,  8., 16.,  9.,  2.], dtype=float32)
    """
    return np.asarray(table, np.float32).ravel()[ZIGZAG]


def whole_blocks(image: NDArray[Any]) -> NDArray[Any]:
    """Repeat last row and column of an image (rows, columns) up to a whole number of blocks."""
    rows, columns = image.shape
    if rows % BLOCK == 0 and columns % BLOCK == 0:
        return image
    return np.pad(image, [(0, -rows % BLOCK), (0, -columns % BLOCK)], mode="edge")


def forward(image: NDArray[np.floating]) -> NDArray[np.float32]:
    """Transform an image into coefficients.

    Parameters
    ----------
    image : ndarray of float
        (rows, columns), levels from 0 to 255, not rounded. Blocks that reach over the lower or the right edge are
        filled with the last row and column, as libjpeg does.

    Returns
    -------
    ndarray of float32
        (block rows, block columns, 64)

    Examples
    --------
    >>> forward(np.full((8, 16), 130.0))[..., 0]
    array([[16., 16.]], dtype=float32)
    """
    image = whole_blocks(image)
    rows, columns = image.shape
    blocks = image.reshape(rows // BLOCK, BLOCK, columns // BLOCK, BLOCK).swapaxes(1, 2)
    pixels = np.ascontiguousarray(blocks, np.float32).reshape(-1, SIZE)
    coefficients = _product(pixels, _BASIS)
    coefficients[:, 0] -= _MIDDLE
    return coefficients.reshape(rows // BLOCK, columns // BLOCK, SIZE)


def inverse(coefficients: NDArray[np.generic], rows: int, columns: int) -> NDArray[np.float32]:
    """Transform coefficients into an image, neither rounded nor clipped.

    Parameters
    ----------
    coefficients : ndarray
        (block rows, block columns, 64); quantised ones are first multiplied by their steps.
    rows, columns : int
        Of the image; what the last blocks have beyond them is left out.

    Returns
    -------
    ndarray of float32
        (rows, columns). A JPEG decoder rounds it and clips it from 0 to 255.
    """
    block_rows, block_columns, _ = coefficients.shape
    pixels = _product(coefficients.reshape(-1, SIZE).astype(np.float32, copy=False), _INVERSE_BASIS)
    blocks = pixels.reshape(block_rows, block_columns, BLOCK, BLOCK).swapaxes(1, 2)
    image = blocks.reshape(block_rows * BLOCK, block_columns * BLOCK)[:rows, :columns]
    image += np.float32(128)
    return image


def _product(rows: NDArray[np.float32], basis: NDArray[np.float32]) -> NDArray[np.float32]:
    """Multiply rows with a basis, in pieces that no library shares out to threads: its result would depend on them."""
    product = np.empty_like(rows)
    for start in range(0, len(rows), _ROWS_AT_A_TIME):
        piece = slice(start, start + _ROWS_AT_A_TIME)
        np.matmul(rows[piece], basis, out=product[piece])
    return product


def quantise(coefficients: NDArray[np.float32], table: ArrayLike) -> NDArray[np.int16]:
    """Round coefficients to multiples of a table's steps.

    Parameters
    ----------
    coefficients : ndarray of float32
        (block rows, block columns, 64)
    table : array_like
        (8, 8)

    Returns
    -------
    ndarray of int16
        As ``coefficients``, from -1023 to 1023, or -1024 for the first of a block; images from 0 to 255 have no others.
    """
    quantised = coefficients / steps_of(table)
    np.rint(quantised, out=quantised)
    np.clip(quantised, -1024, 1023, out=quantised)
    np.maximum(quantised[..., 1:], -1023, out=quantised[..., 1:])
    return quantised.astype(np.int16)
