"""What people write where a store is: a path, a URL, or what zarr has opened already."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import zarr
from zarr.abc.store import Store
from zarr.storage import LocalStore, StorePath, ZipStore

Location = str | os.PathLike[str] | Store | StorePath | zarr.Group

Place = Path | str | StorePath
"""A file or folder on this machine, absolute; a URL; or a path in a store of zarr's."""

_FILE_URL = re.compile("(?:file|local)://", re.IGNORECASE)
_ZIP = ".zip"

# user and password; a query, or fragment, up to the next URL of a chain
_SECRET = re.compile(r"(?<=://)[^/?#]*@|[?#].*?(?=::[a-z][a-z0-9+.-]*://|$)", re.IGNORECASE)
_IP6 = re.compile(r"(?<=[/@])\[[^]/]*\]")


def place_of(location: Location) -> Place:
    """Return what a location stands for; what is on this machine stays the same when the working folder changes.

    Raises
    ------
    TypeError
        If it is something else than can be a location.
    ValueError
        If it is a file:// URL of another machine.
    """
    if isinstance(location, zarr.Group):
        location = location.store_path
    if isinstance(location, Store):
        location = StorePath(location)
    if isinstance(location, StorePath):
        return _place_in_store(location)
    if not isinstance(location, str | os.PathLike):
        raise TypeError(
            f"a store's location must be a path, a URL, or a store, path or group of zarr's; got "
            f"{type(location).__name__}"
        )
    text = os.fspath(location)
    return text if is_url(text) else local_path(text)


def is_url(text: str) -> bool:
    """Whether a text is the URL of something that isn't on this machine."""
    return "://" in text and not _FILE_URL.match(text)


def local_path(place: str | os.PathLike[str]) -> Path:
    """Return the absolute path that a path, perhaps with ``~``, or a file:// URL stands for.

    Raises
    ------
    ValueError
        If the URL is of another machine.

    Examples
    --------
    >>> local_path("file:///music/my%20store.zarr").as_posix()
    '/music/my store.zarr'
    """
    text = os.fspath(place)
    scheme = _FILE_URL.match(text)
    if scheme:
        host, slash, path = text[scheme.end() :].partition("/")
        if host not in ("", "localhost", "~"):
            raise ValueError(f"{text} names a file on the machine {host!r}; write file:///... for one on this machine")
        text = unquote(("~" if host == "~" else "") + slash + path)
        if re.match(r"/[A-Za-z]:", text) and os.name == "nt":
            text = text[1:]
    return Path(os.path.abspath(os.path.expanduser(text)))


def name_of(location: Any) -> str:
    """Name a location for people: URLs, also those of a chain, without query and password, which may be secrets."""
    if isinstance(location, zarr.Group):
        location = location.store_path
    text = " ".join(str(location).split())
    return _SECRET.sub("", text) if isinstance(location, str) and is_url(text) else text


def is_session(place: Place) -> bool:
    """Whether a place is a session of icechunk: what is written to it becomes visible when the session is committed."""
    return isinstance(place, StorePath) and type(place.store).__module__.partition(".")[0] == "icechunk"


def is_zip(place: Place) -> bool:
    """Whether a place is a .zip file by its name, and not a folder that is called so."""
    if isinstance(place, Path):
        return place.suffix.lower() == _ZIP and not place.is_dir()
    return isinstance(place, str) and not _is_chain(place) and urlsplit(place).path.lower().endswith(_ZIP)


def _is_chain(url: str) -> bool:
    """Whether it is several of fsspec's, one through another; an address may have the same signs between brackets."""
    return "::" in _IP6.sub("", url)


def _place_in_store(place: StorePath) -> Place:
    store = place.store
    if isinstance(store, LocalStore):
        return Path(os.path.abspath(store.root), *place.path.split("/"))
    if isinstance(store, ZipStore) and store.read_only:
        path = Path(os.path.abspath(store.path))
        return StorePath(ZipStore(path, mode="r"), place.path) if place.path else path
    return place
