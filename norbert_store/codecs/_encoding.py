"""How xarray writes a variable of magnitudes as JPEGs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from norbert_store._jpeg.encoder import DEFAULT_QUALITY
from norbert_store._jpeg.layout import LARGEST_SIDE
from norbert_store._spectra.levels import Curve, curve_from_config
from norbert_store.codecs._jpeg import ZarrJpeg, image_shape


def encoding(
    chunk_shape: Sequence[int], *, quality: float = DEFAULT_QUALITY, curve: Curve | str = "power", **parameters: float
) -> dict[str, Any]:
    """Tell xarray's ``to_zarr`` to write a variable of magnitudes as JPEGs, in zarr format 3.

    Parameters
    ----------
    chunk_shape : sequence of int
        Of what becomes one JPEG, an entry for each dimension of the variable. The last is frequency, the one before it
        time; all but the last become rows of the image, of which there are at most 65,500, as of columns.
    quality : float
        From 0 to 100, as for `ZarrJpeg`.
    curve : Curve or str
        A curve, or its name with its parameter. Magnitudes may be of any size.
    **parameters : float
        Of the curve: ``exponent`` (power) or ``range_decibel`` (log).

    Returns
    -------
    dict
        ``chunks``, ``filters``, ``serializer``, ``compressors`` and ``fill_value``. For many small JPEGs in fewer
        files, add ``shards``, a multiple of the chunk's shape.

    Raises
    ------
    TypeError
        If the chunk's shape is no sequence.
    ValueError
        If such a chunk is no image, or quality, curve or a parameter is out of range.

    Examples
    --------
    >>> how = encoding((256, 128), quality=90)
    >>> how["chunks"], how["serializer"], how["fill_value"]
    ((256, 128), ZarrJpeg(quality=90.0, filter=PowerCurve(exponent=0.3)), 0)

    A data set whose variable ``mel`` has dimensions (time, band) is written with
    ``dataset.to_zarr("mel.zarr", zarr_format=3, encoding={"mel": encoding((256, 128))})``.
    """
    if not isinstance(chunk_shape, Sequence):
        raise TypeError(f"expected the shape of a chunk, such as (256, 128), found {chunk_shape!r}")
    chunks = tuple(chunk_shape)
    if not all(isinstance(n, int | np.integer) and not isinstance(n, bool) and n > 0 for n in chunks):
        raise ValueError(f"expected whole numbers above 0 as the chunk's shape, found {chunk_shape!r}")
    rows, columns = image_shape(chunks)
    if max(rows, columns) > LARGEST_SIDE:
        raise ValueError(
            f"a chunk of {chunks} is an image of {rows} rows and {columns} columns; expected at most {LARGEST_SIDE} "
            "each: use smaller chunks"
        )
    if not isinstance(curve, Curve):
        curve = curve_from_config({"curve": curve, **parameters})
    elif parameters:
        raise ValueError("give either a curve, or its name and parameters")
    return {
        "chunks": tuple(map(int, chunks)),
        "filters": (),
        "serializer": ZarrJpeg(quality, curve),
        # a JPEG doesn't get smaller
        "compressors": (),
        # fills up the last chunk: NaN, if several axes make up the rows, would have to stand between magnitudes
        "fill_value": 0,
    }
