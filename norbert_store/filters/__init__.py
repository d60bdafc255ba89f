"""From magnitudes of sources and a complex mixture to complex estimates of the sources.

`masks` gives every bin, or a share of it, to each source; `wiener` is the multichannel Wiener filter, whose functions
have the names, arguments and numbers of the package norbert 0.2.1. Its users change the import to
``from norbert_store import filters as norbert``.

Arrays are (frames, bins, channels, sources); the modules say more.
"""

from types import SimpleNamespace

from norbert_store.filters._masks import apply_mask, ideal_binary_mask, ideal_ratio_mask, soft_mask, winner_mask
from norbert_store.filters._wiener import (
    apply_filter,
    compress_filter,
    expectation_maximization,
    get_local_gaussian_model,
    get_mix_model,
    reduce_interferences,
    residual_model,
    smooth,
    softmask,
    wiener,
    wiener_gain,
)

# norbert's users know these by norbert.contrib, too
contrib = SimpleNamespace(
    compress_filter=compress_filter,
    reduce_interferences=reduce_interferences,
    residual_model=residual_model,
    smooth=smooth,
)

__all__ = [
    "apply_filter",
    "apply_mask",
    "compress_filter",
    "contrib",
    "expectation_maximization",
    "get_local_gaussian_model",
    "get_mix_model",
    "ideal_binary_mask",
    "ideal_ratio_mask",
    "reduce_interferences",
    "residual_model",
    "smooth",
    "soft_mask",
    "softmask",
    "wiener",
    "wiener_gain",
    "winner_mask",
]
