"""Data sets of spectrograms, as small as their JPEGs, as easy to slice as an xarray.

The public names are loaded when they are first used, so that ``import norbert_store`` costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from norbert_store.version import __version__

if TYPE_CHECKING:
    from norbert_store.transform import Mel, ReadyBins

_HOMES = {
    "Mel": "transform",
    "ReadyBins": "transform",
}

__all__ = ["Mel", "ReadyBins", "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
