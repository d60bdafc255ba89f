"""The codecs, for anyone's arrays: magnitudes to grey JPEGs, in one step or in two.

`ZarrJpeg` with a filter makes JPEGs of magnitudes of any size, for zarr format 3, and `encoding` tells xarray to use
it. Its halves also work alone: `ZarrQuantize` makes 256 levels of magnitudes up to a reference, and `ZarrJpeg` JPEGs of
levels; `Quantize` and `Jpeg` are the same for numcodecs (zarr format 2). All are found by their entry points, so that
what is written with them reads back in programs that never import this package.

The last axis of an array is frequency, the one before it time: that is how the JPEG weighs its errors.
"""

from norbert_store.codecs._encoding import encoding
from norbert_store.codecs._jpeg import Jpeg, ZarrJpeg
from norbert_store.codecs._quantize import Quantize, ZarrQuantize

__all__ = ["Jpeg", "Quantize", "ZarrJpeg", "ZarrQuantize", "encoding"]
