"""How xarray writes a variable with the two codecs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from norbert_store._jpeg.encoder import DEFAULT_QUALITY
from norbert_store._jpeg.layout import LARGEST_SIDE
from norbert_store._spectra.levels import Curve
from norbert_store.codecs._jpeg import ZarrJpeg, image_shape
from norbert_store.codecs._quantize import ZarrQuantize


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
        As for `ZarrQuantize`.
    **parameters : float
        Of the curve, as for `ZarrQuantize`: above all ``reference``, the largest magnitude, 1.0 unless given.

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
    >>> how = encoding((256, 128), quality=90, reference=2.0)
    >>> how["chunks"], how["serializer"], how["fill_value"]
    ((256, 128), ZarrJpeg(quality=90.0), 0)

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
    return {
        "chunks": tuple(map(int, chunks)),
        "filters": (ZarrQuantize(curve, **parameters),),
        "serializer": ZarrJpeg(quality),
        # a JPEG doesn't get smaller
        "compressors": (),
        # fills up the last chunk; NaN, which is no magnitude, would be refused
        "fill_value": 0,
    }
