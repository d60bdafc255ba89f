"""The two codecs, for anyone's arrays: magnitudes to 256 levels, and levels to grey JPEGs.

`Quantize` and `Jpeg` are for numcodecs (zarr format 2), `ZarrQuantize` and `ZarrJpeg` for zarr format 3, and `encoding`
tells xarray to use these. All are found by their entry points, so that what is written with them reads back in programs
that never import this package.

The last axis of an array is frequency, the one before it time: that is how the JPEG weighs its errors.
"""

from norbert_store.codecs._encoding import encoding
from norbert_store.codecs._jpeg import Jpeg, ZarrJpeg
from norbert_store.codecs._quantize import Quantize, ZarrQuantize

__all__ = ["Jpeg", "Quantize", "ZarrJpeg", "ZarrQuantize", "encoding"]
