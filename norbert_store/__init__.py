"""Data sets of spectrograms, as small as their JPEGs, as easy to slice as an xarray.

The public names are loaded when they are first used, so that ``import norbert_store`` costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from norbert_store.version import __version__

if TYPE_CHECKING:
    from norbert_store.chain import TF, BandwidthLimiter, Coder, LogScaler, PowerScaler, Quantizer
    from norbert_store.levels import LogCurve, PowerCurve
    from norbert_store.sources.musdb import export_musdb
    from norbert_store.store import Store, Track
    from norbert_store.store import open_store as open
    from norbert_store.transform import Mel, ReadyBins
    from norbert_store.writer import Writer, append, create

# public name -> where it lives, and its name there
_HOMES = {
    "BandwidthLimiter": ("chain", "BandwidthLimiter"),
    "Coder": ("chain", "Coder"),
    "LogCurve": ("levels", "LogCurve"),
    "LogScaler": ("chain", "LogScaler"),
    "Mel": ("transform", "Mel"),
    "PowerCurve": ("levels", "PowerCurve"),
    "PowerScaler": ("chain", "PowerScaler"),
    "Quantizer": ("chain", "Quantizer"),
    "ReadyBins": ("transform", "ReadyBins"),
    "Store": ("store", "Store"),
    "TF": ("chain", "TF"),
    "Track": ("store", "Track"),
    "Writer": ("writer", "Writer"),
    "append": ("writer", "append"),
    "create": ("writer", "create"),
    "export_musdb": ("sources.musdb", "export_musdb"),
    "open": ("store", "open_store"),
}

__all__ = [
    "TF",
    "BandwidthLimiter",
    "Coder",
    "LogCurve",
    "LogScaler",
    "Mel",
    "PowerCurve",
    "PowerScaler",
    "Quantizer",
    "ReadyBins",
    "Store",
    "Track",
    "Writer",
    "__version__",
    "append",
    "create",
    "export_musdb",
    "open",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _HOMES[name]
    value = getattr(import_module(f"{__name__}.{module}"), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
