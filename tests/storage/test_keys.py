"""No key leads out of a store, wherever it lies, and nothing is opened but regular files."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading

import numpy as np
import pytest
import zarr
from zarr.core.metadata import ArrayV3Metadata
from zarr.storage import MemoryStore, StorePath

from norbert_store._storage.folder import LocalKeys
from norbert_store._storage.keys import check_key, is_key
from norbert_store._storage.storage import Storage
from norbert_store.errors import DamagedError, FormatError, StorageError

posix = pytest.mark.skipif(sys.platform == "win32", reason="POSIX")

KEYS = [
    "zarr.json",
    "magnitude/c/0/0/17/0",
    "label/a b.c-d_e/c/0",
    "läbel/ключ",
    ".hidden",
    "a..b/c...",
    "ab:c/d:",
    "~",
]
NO_KEYS = {
    "": "is empty",
    "/etc/passwd": "absolute",
    "//host/share": "absolute",
    "C:/x": "absolute",
    "c:x": "absolute",
    "../x": r"'\.\.'",
    "a/../../x": r"'\.\.'",
    "a/..": r"'\.\.'",
    "./x": r"'\.'",
    "a//b": "is empty",
    "a/": "is empty",
    "a\\..\\b": "backslash",
    "a\0b": "control character",
    "a\nb": "control character",
    "\udcff": "Unicode",
    "a/" + "x" * 256: "more than 255 bytes",
    "a/" + "ä" * 128: "more than 255 bytes",
    "a/" * 600 + "b": "1201 bytes",
}


@pytest.fixture(params=["folder", "memory", "url"])
def storage(request, tmp_path):
    location = {
        "folder": tmp_path / "place",
        "memory": MemoryStore(),
        "url": f"memory://{tmp_path.name}/place",
    }[request.param]
    found = Storage(location, read_only=False)
    found.set("zarr.json", b"x")
    return found


@pytest.mark.parametrize("key", KEYS)
def test_names_below_a_store_are_keys(key):
    assert check_key(key) == key
    assert is_key(key)


@pytest.mark.parametrize("key", KEYS)
def test_keys_are_written_and_read_everywhere(storage, key):
    storage.set(key, b"0123")
    assert storage.get(key) == b"0123"
    assert key in storage.list()


@pytest.mark.parametrize(("key", "problem"), NO_KEYS.items())
def test_what_leads_elsewhere_is_no_key(key, problem):
    with pytest.raises(FormatError, match=f"can't be the key of a file in a store: .*{problem}") as caught:
        check_key(key)
    assert not is_key(key)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("key", ["../victim", "/victim", "a/../../victim", "a\\..\\..\\victim", "C:/victim", "a\0"])
def test_nothing_is_done_by_such_keys(storage, tmp_path, key):
    (tmp_path / "victim").write_text("precious")
    for operation in (
        lambda: storage.get(key),
        lambda: storage.get_range(key, 0, 4),
        lambda: storage.get_suffix(key, 4),
        lambda: storage.get_ranges([("zarr.json", 0, 1), (key, 0, 4)]),
        lambda: storage.size(key),
        lambda: storage.set(key, b"new"),
        lambda: storage.create(key, b"new"),
        lambda: storage.get_with_tag(key),
        lambda: storage.replace(key, b"new", "tag"),
        lambda: storage.get_many(["zarr.json", key], most=5),
        lambda: storage.delete(key),
        lambda: storage.list(key),
    ):
        with pytest.raises(FormatError, match="can't be the key of a file in a store"):
            operation()
    assert (tmp_path / "victim").read_text() == "precious"
    assert storage.list() == ["zarr.json"]


def by_metadata(place, path, metadata):
    """Return a zarr array without reading its document."""
    parsed = ArrayV3Metadata.from_dict(metadata)
    return zarr.Array(zarr.AsyncArray(metadata=parsed, store_path=StorePath(Storage(place).store, path)))


@posix
def test_zarr_reads_by_the_same_rules(tmp_path):
    zarr.create_array(tmp_path / "outside", data=np.arange(4), chunks=(4,))
    metadata = zarr.open_array(tmp_path / "outside", mode="r").metadata.to_dict()
    place = tmp_path / "place"
    (place / "copy").mkdir(parents=True)
    (place / "copy" / "c").symlink_to(tmp_path / "outside" / "c")
    (place / "fifo" / "c").mkdir(parents=True)
    os.mkfifo(place / "fifo" / "c" / "0")
    with pytest.raises(FormatError, match="leads out of"):
        by_metadata(place, "copy", metadata)[...]
    with pytest.raises(DamagedError, match="is a FIFO"):
        by_metadata(place, "fifo", metadata)[...]


# ---- symbolic links


@pytest.fixture
def outside(tmp_path):
    folder = tmp_path / "outside"
    (folder / "c").mkdir(parents=True)
    (folder / "secret").write_text("precious")
    (folder / "c" / "0").write_text("precious")
    return folder


@pytest.fixture
def keys(tmp_path):
    found = LocalKeys(tmp_path / "place")
    found.set("zarr.json", b"x")
    return found


def link(keys, key, to):
    path = keys.folder / key
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(to)


@posix
@pytest.mark.parametrize("to", ["../outside/secret", "{outside}/secret", "../place/../outside/secret", "loose"])
def test_links_that_lead_out_are_not_read(keys, outside, to):
    (keys.folder / "loose").symlink_to(outside / "secret")
    link(keys, "key", to.format(outside=outside))
    for _ in range(2):
        with pytest.raises(FormatError, match=r"place/key is, or lies behind, a symbolic link that leads out of"):
            keys.get("key")
    with pytest.raises(FormatError):
        keys.get_ranges([("key", 0, 4)])
    with pytest.raises(FormatError):
        keys.size("key")


@posix
def test_folders_that_lead_out_are_neither_read_nor_written(keys, outside):
    link(keys, "track/name", outside)
    for operation in (
        lambda: keys.get("track/name/c/0"),
        lambda: keys.size("track/name/c/0"),
        lambda: keys.set("track/name/c/0", b"new"),
        lambda: keys.set("track/name/new", b"new"),
        lambda: keys.set("track/name/new/folder/0", b"new"),
        lambda: keys.create("track/name/new", b"new"),
        lambda: keys.replace("track/name/new", b"new", None),
        lambda: keys.delete("track/name/c/0"),
        lambda: keys.list("track/name"),
    ):
        with pytest.raises(FormatError, match="leads out of"):
            operation()
    assert keys.list() == ["zarr.json"]
    assert sorted(path.name for path in outside.rglob("*")) == ["0", "c", "secret"]
    assert (outside / "c" / "0").read_text() == "precious"


@posix
def test_link_in_the_place_of_a_file_is_replaced_and_deleted_itself(keys, outside):
    link(keys, "a/key", outside / "secret")
    keys.set("a/key", b"new")
    assert keys.get("a/key") == b"new"
    link(keys, "b/key", outside / "secret")
    keys.delete("b/key")
    assert (outside / "secret").read_text() == "precious"
    assert keys.list() == ["a/key", "zarr.json"]


@posix
def test_links_within_a_store_and_links_to_a_store_are_followed(keys, tmp_path):
    keys.set("a/key", b"0123")
    link(keys, "b", "a")
    link(keys, "c/key", "../a/key")
    assert keys.get("b/key") == keys.get("c/key") == b"0123"
    assert keys.size("b/key") == keys.size("c/key") == 4
    (tmp_path / "current").symlink_to("place")
    assert LocalKeys(tmp_path / "current").get("c/key") == b"0123"


@posix
def test_file_that_becomes_a_link_is_noticed(keys, outside):
    keys.set("key", b"0123")
    assert keys.get("key") == b"0123"
    (keys.folder / "key").unlink()
    link(keys, "key", outside / "secret")
    for read in (keys.size, keys.get):
        with pytest.raises(FormatError, match="leads out of"):
            read("key")


@posix
def test_file_that_is_replaced_is_read(keys):
    for data in (b"one", b"another", b"third"):
        keys.set("key", data)
        assert keys.get("key") == data


# ---- what is no regular file


@posix
@pytest.mark.parametrize("kind", ["FIFO", "socket"])
@pytest.mark.parametrize("span", [(0, None), (0, 5), (-5, 5), (0, 2**21)])
def test_what_is_no_regular_file_is_not_read(keys, kind, span, monkeypatch):
    path = keys.folder / "key"
    monkeypatch.chdir(keys.folder)  # a socket's path must be short
    if kind == "FIFO":
        os.mkfifo(path)
    else:
        made = socket.socket(socket.AF_UNIX)
        made.bind("key")
        made.close()
    with pytest.raises(
        (DamagedError, StorageError), match=r"place: key: it is a FIFO; expected a regular file|place/key can't be read"
    ):
        keys.get("key", *span)
    assert keys.size("key") is None


@posix
def test_writer_into_a_fifo_is_left_alone(keys):
    os.mkfifo(keys.folder / "key")
    reader = os.open(keys.folder / "key", os.O_RDONLY | os.O_NONBLOCK)
    writer = os.open(keys.folder / "key", os.O_WRONLY)
    os.write(writer, b"for somebody else")
    with pytest.raises(DamagedError, match="is a FIFO"):
        keys.get("key", 0, 4)
    assert os.read(reader, 100) == b"for somebody else"
    os.close(reader)
    os.close(writer)


@posix
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root makes devices")
def test_devices_are_not_read(keys):
    os.mknod(keys.folder / "key", 0o600 | 0o020000, os.makedev(1, 5))  # /dev/zero
    with pytest.raises(DamagedError, match="is a character device; expected a regular file"):
        keys.get("key", 0, 4)


@posix
def test_file_that_becomes_a_fifo_does_not_block(keys):
    keys.set("key", b"0123")
    assert keys.get("key", 0, 4) == b"0123"
    (keys.folder / "key").unlink()
    os.mkfifo(keys.folder / "key")
    found = []

    def read():
        with pytest.raises((DamagedError, StorageError)) as caught:
            keys.get("key", 0, 4)
        found.append(caught)

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    thread.join(20)
    assert found


READ_THROUGH_ZARR = """
import sys
import norbert_store
from norbert_store.errors import NorbertStoreError
try:
    norbert_store.open(sys.argv[1])
except NorbertStoreError as error:
    print(type(error).__name__)
"""


@pytest.mark.slow
@posix
def test_opening_a_store_of_a_fifo_is_an_error_at_once(tmp_path):
    os.mkfifo(tmp_path / "zarr.json")
    command = [sys.executable, "-c", READ_THROUGH_ZARR, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stdout == "DamagedError\n"
