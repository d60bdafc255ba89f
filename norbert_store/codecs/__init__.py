"""The two codecs, for numcodecs (zarr v2) and for zarr v3: thin faces over `norbert_store._spectra.levels` and `jpeg`.

They are found by their entry points, so that data written with them reads back in programs that never import this
package. `Quantize` and `Jpeg` are for numcodecs, `ZarrQuantize` and `ZarrJpeg` for zarr v3.
"""

from norbert_store.codecs._jpeg import Jpeg, ZarrJpeg
from norbert_store.codecs._quantize import Quantize, ZarrQuantize

__all__ = ["Jpeg", "Quantize", "ZarrJpeg", "ZarrQuantize"]
