"""Opens places that are no folders: by URL, or in a store that zarr has opened already; and again after a fork."""

from __future__ import annotations

import os
import pickle
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

from zarr.abc.store import Store
from zarr.storage import FsspecStore, ObjectStore, StorePath

from norbert_store._storage.places import is_session
from norbert_store._storage.remote import RemoteKeys
from norbert_store._storage.zarr_keys import ZarrKeys
from norbert_store.errors import StorageError

_ATTEMPTS = 5
_READ_SECONDS = 15
_CONNECT_SECONDS = 5

# what URLs of a scheme need, beyond what every installation has
_NEEDED = {
    "http": "http:// needs fsspec and aiohttp: pip install 'norbert_store[http]'",
    "https": "https:// needs fsspec and aiohttp: pip install 'norbert_store[http]'",
    "s3": "s3:// needs s3fs: pip install 'norbert_store[s3]'",
}

_SCHEME = re.compile(r"(?:^|::)([a-z][a-z0-9+.-]*)(?=::|://)", re.IGNORECASE)

# told by its module, which isn't imported for that
_HTTP_MODULE = "fsspec.implementations.http"

_S3FS_OPTIONS = {
    "key": "access_key_id",
    "secret": "secret_access_key",
    "token": "session_token",
    "endpoint_url": "endpoint",
}

# A forked child that collected an inherited session would cut its parent's connections: they share the kernel's list.
_kept: dict[tuple[int, int], Any] = {}

_forked = False


def _note_fork() -> None:
    global _forked
    _forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_note_fork)


def is_forked() -> bool:
    """Whether this process is the fork of another, whose connections and threads don't work here."""
    return _forked


def keep(system: Any) -> None:
    """Never let go of the connections of one of fsspec's file systems, as long as this process and its forks live."""
    _kept[os.getpid(), id(system)] = system


def keys_in_store(store: Store, name: str, path: str = "") -> RemoteKeys:
    """Give the keys of a ready store of zarr's, which tries again as it was told to."""
    if isinstance(store, FsspecStore):
        keep(store.fs)
        if any(kind.__module__ == _HTTP_MODULE for kind in type(store.fs).__mro__):
            from norbert_store._storage.web import WebKeys

            return WebKeys(_below(store.path, path), name, 1, store.fs)
    if is_session(StorePath(store)):
        from norbert_store._storage.sessions import SessionKeys

        return SessionKeys(store, name, 1, path)
    return ZarrKeys(store, name, 1, path)


def keys_at_url(url: str, name: str, read_only: bool, options: Mapping[str, Any]) -> RemoteKeys:
    """Give the keys at a URL, through fsspec.

    Raises
    ------
    StorageError
        If a package is missing, or the place can't be reached.
    ValueError
        If the URL's scheme is unknown, or an option is refused by what opens it.
    """
    scheme = url.partition("://")[0].lower()
    try:
        if scheme in ("http", "https"):
            from norbert_store._storage.web import WebKeys, web_system

            system = web_system(options)
            keep(system)
            return WebKeys(url, name, _ATTEMPTS, system)
        _check_schemes(url, name)
        store = _open_s3(url, read_only, options) if scheme == "s3" else _open_by_fsspec(url, read_only, options)
    except ImportError as error:
        raise StorageError(f"can't be opened: {_NEEDED.get(scheme, error)}", place=name) from error
    except OSError as error:
        raise StorageError(f"can't be opened: {error}", place=name) from error
    keep(store.fs)
    return ZarrKeys(store, name, _ATTEMPTS)


def _check_schemes(url: str, name: str) -> None:
    """Check that fsspec knows the scheme of a URL, and those of a chain."""
    import fsspec  # type: ignore[import-untyped]

    for scheme in _SCHEME.findall(url):
        try:
            fsspec.get_filesystem_class(scheme)
        except ValueError as error:
            raise ValueError(
                f"{name} is no place that can be opened: {error}; expected a path, or a URL that fsspec knows, such as "
                "one that begins with https:// or s3://"
            ) from error


def _open_by_fsspec(url: str, read_only: bool, options: Mapping[str, Any]) -> FsspecStore:
    return FsspecStore.from_url(url, storage_options=dict(options), read_only=read_only)


def _open_s3(url: str, read_only: bool, options: Mapping[str, Any]) -> FsspecStore:
    """Open a place on S3 so that nothing but `ZarrKeys` tries again."""
    ours = {
        "max_concurrency": 1,  # of the parts of one object; a whole object is one request then, not two
        "config_kwargs": {
            "retries": {"total_max_attempts": 1, "mode": "standard"},
            "read_timeout": _READ_SECONDS,
            "connect_timeout": _CONNECT_SECONDS,
        },
    }
    store = _open_by_fsspec(url, read_only, {**ours, **options})
    store.fs.retries = 1  # instances are shared by who asks for the same options: by stores of ours
    return store


def _below(url: str, path: str) -> str:
    """Put a path behind that of a URL, before its query."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/{quote(path)}" if path else parts.path))


def reopened(store: Store, name: str) -> Store:
    """Return a store that works in this process, after a fork; connections and threads are the parent's.

    Raises
    ------
    StorageError
        If there is no way.
    """
    if not isinstance(store, ObjectStore):
        return pickle.loads(pickle.dumps(store))
    # obstore's threads are gone, and whatever one asks of it hangs
    config = getattr(store.store, "config", {})
    if "bucket" not in config:
        raise StorageError("can't be read after a fork by obstore; start processes by spawn or forkserver", place=name)
    options = {ours: config[theirs] for ours, theirs in _S3FS_OPTIONS.items() if theirs in config}
    if "region" in config:
        options["client_kwargs"] = {"region_name": config["region"]}
    if str(config.get("skip_signature", "")).lower() == "true":
        options["anon"] = True
    url = f"s3://{config['bucket']}/{getattr(store.store, 'prefix', None) or ''}"
    return FsspecStore.from_url(url, storage_options=options, read_only=store.read_only)
