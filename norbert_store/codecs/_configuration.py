"""Codecs from what a document says of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

_Codec = TypeVar("_Codec")


def from_configuration(codec: Callable[..., _Codec], configuration: Any) -> _Codec:
    """Build a codec with the parameters of its configuration.

    Raises
    ------
    ValueError
        If the configuration is no object, or holds parameters that the codec doesn't take.
    """
    try:
        if isinstance(configuration, Mapping):
            return codec(**configuration)
        found = f"expected an object, found {type(configuration).__name__}"
    except TypeError as error:
        found = str(error)
    raise ValueError(f"the codec can't be built from the configuration {configuration!r}: {found}")
