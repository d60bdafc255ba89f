"""Data sets of spectrograms, as small as their JPEGs, as easy to slice as an xarray.

The public names are loaded when they are first used, so that ``import norbert_store`` costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from norbert_store._version import __version__

if TYPE_CHECKING:
    from norbert_store._chain import TF, BandwidthLimiter, Coder, LogScaler, PowerScaler, Quantizer
    from norbert_store._sources.musdb import export_musdb
    from norbert_store._spectra.bins import Mel, ReadyBins
    from norbert_store._spectra.levels import LogCurve, PowerCurve
    from norbert_store._store import Store, open
    from norbert_store._track import Track
    from norbert_store._writer import Writer, append, create

# public name -> where it lives, and its name there
_HOMES = {
    "BandwidthLimiter": ("_chain", "BandwidthLimiter"),
    "Coder": ("_chain", "Coder"),
    "LogCurve": ("_spectra.levels", "LogCurve"),
    "LogScaler": ("_chain", "LogScaler"),
    "Mel": ("_spectra.bins", "Mel"),
    "PowerCurve": ("_spectra.levels", "PowerCurve"),
    "PowerScaler": ("_chain", "PowerScaler"),
    "Quantizer": ("_chain", "Quantizer"),
    "ReadyBins": ("_spectra.bins", "ReadyBins"),
    "Store": ("_store", "Store"),
    "TF": ("_chain", "TF"),
    "Track": ("_track", "Track"),
    "Writer": ("_writer", "Writer"),
    "append": ("_writer", "append"),
    "create": ("_writer", "create"),
    "export_musdb": ("_sources.musdb", "export_musdb"),
    "open": ("_store", "open"),
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
