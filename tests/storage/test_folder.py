"""Keys as files: what is written is whole, or not there."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import norbert_store
from norbert_store._storage.folder import PARTIAL_SUFFIX, LocalKeys
from norbert_store._storage.storage import Storage
from norbert_store.errors import StorageError

posix = pytest.mark.skipif(sys.platform == "win32", reason="POSIX")


@pytest.fixture
def keys(tmp_path):
    return LocalKeys(tmp_path / "place")


def files_below(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


# ---- reading


@pytest.mark.parametrize(
    ("start", "length", "found"),
    [
        (0, None, b"0123456789"),
        (3, None, b"3456789"),
        (3, 4, b"3456"),
        (3, 0, b""),
        (8, 5, b"89"),
        (10, 5, b""),
        (99, 5, b""),
        (-4, None, b"6789"),
        (-4, 2, b"67"),
        (-10, None, b"0123456789"),
        (-99, None, b"0123456789"),
        (-99, 3, b"012"),
    ],
)
def test_ranges_are_cut_at_the_ends(keys, start, length, found):
    keys.set("key", b"0123456789")
    assert keys.get("key", start, length) == found


def test_ranges_of_several_keys(keys):
    keys.set("a", b"0123456789")
    keys.set("b/c", b"abc")
    assert keys.get_ranges([("b/c", 1, 1), ("no", 0, 1), ("a", -2, 2), ("a", 0, 3)]) == [b"b", None, b"89", b"012"]
    assert keys.get_ranges([]) == []


@pytest.mark.parametrize("key", ["no", "no/such/folder", "file/below", "folder"])
def test_what_is_no_file_is_not_there(keys, key):
    keys.set("file", b"x")
    keys.set("folder/file", b"x")
    assert keys.get(key) is None
    assert keys.get_ranges([(key, 0, 1)]) == [None]
    assert keys.size(key) is None
    if key != "folder":
        keys.delete(key)
    assert keys.list() == ["file", "folder/file"]


def test_folder_in_the_place_of_a_file_is_not_taken_for_deleted(keys):
    keys.set("folder/file", b"x")
    with pytest.raises(StorageError, match=r"folder can't be written: "):
        keys.delete("folder")
    assert keys.list() == ["folder/file"]


# ---- writing


def test_set_makes_folders_and_leaves_nothing_else(keys):
    assert keys.is_empty()
    keys.set("a/b/c", b"one")
    keys.set("a/b/c", b"two")
    assert keys.get("a/b/c") == b"two"
    assert files_below(keys.folder) == ["a/b/c"]
    assert not keys.is_empty()


def test_create_never_writes_over(keys):
    assert keys.create("key", b"one") is not None
    assert keys.create("key", b"two") is None
    assert keys.get("key") == b"one"


@pytest.mark.parametrize("key", ["file/below", "folder"])
def test_what_can_not_be_written_is_an_error_and_changes_nothing(keys, key):
    keys.set("file", b"x")
    keys.set("folder/file", b"x")
    with pytest.raises(StorageError, match=f"{key} can't be written: ") as caught:
        keys.set(key, b"new")
    assert isinstance(caught.value, OSError)
    assert files_below(keys.folder) == ["file", "folder/file"]
    assert keys.get("file") == b"x"


def test_readers_see_the_old_bytes_or_the_new(keys):
    """Each version is as long as its letter says, and of nothing but it."""
    versions = [bytes([letter]) * (1000 * letter) for letter in range(1, 30)]
    keys.set("key", versions[0])
    stop, seen, torn = threading.Event(), set(), []

    def read():
        while not stop.is_set():
            data = keys.get("key")
            seen.add(data[0])
            if data != versions[data[0] - 1]:
                torn.append(data)

    reader = threading.Thread(target=read)
    reader.start()
    deadline = time.monotonic() + 20
    while len(seen) < 3 and time.monotonic() < deadline:
        for version in versions:
            keys.set("key", version)
    stop.set()
    reader.join()
    assert len(seen) >= 3
    assert torn == []


@pytest.fixture
def synced(monkeypatch):
    """Paths of what is synced, in order."""
    if not os.path.exists("/proc/self/fd"):
        pytest.skip("nobody tells the paths of open files")
    paths, sync = [], os.fsync

    def noting(descriptor):
        paths.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", noting)
    return paths


def test_files_and_new_folders_are_synced_into_their_parents(tmp_path, synced):
    keys = LocalKeys(tmp_path / "new" / "place")
    keys.set("a/b/key", b"x")
    new = [tmp_path / "new" / "place" / "a", tmp_path / "new" / "place", tmp_path / "new", tmp_path]
    file = synced[4]
    assert file.name.startswith("key.")
    assert synced == [*new, file, tmp_path / "new" / "place" / "a" / "b"]
    synced.clear()
    keys.set("a/b/key", b"y")
    assert synced[1:] == [tmp_path / "new" / "place" / "a" / "b"]


def test_folder_of_a_store_is_synced_into_its_parents(tmp_path, synced, options):
    """It is made when it is locked, before anything is written there."""
    norbert_store.create(tmp_path / "new" / "x.zarr", **options()).close()
    assert synced[:2] == [tmp_path / "new", tmp_path]
    assert (tmp_path / "new" / "x.zarr") in synced


# Writes with no more room in a file than so many bytes, as on a full disk.
FULL = """
import resource, sys
from pathlib import Path
from norbert_store.errors import StorageError
from norbert_store._storage.folder import LocalKeys

keys = LocalKeys(Path(sys.argv[1]))
keys.set("key", b"old")
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    keys.set("key", bytes(200_000))
except StorageError as error:
    print(error, end="")
"""


@posix
def test_full_disk_leaves_the_old_bytes(tmp_path):
    done = subprocess.run([sys.executable, "-c", FULL, tmp_path], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{tmp_path / 'key'} can't be written: {os.strerror(errno.EFBIG)}"
    assert files_below(tmp_path) == ["key"]
    assert (tmp_path / "key").read_bytes() == b"old"


@posix
@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root writes everywhere")
def test_folder_without_the_right_to_write(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(StorageError, match="key can't be written: Permission denied"):
            LocalKeys(tmp_path).set("key", b"x")
    finally:
        tmp_path.chmod(0o700)


def test_sweep_takes_what_was_begun_and_nothing_else(tmp_path):
    storage = Storage(tmp_path / "place", read_only=False)
    for key in ("zarr.json", "a/b/c", f"zarr.json.1a2b3c4d{PARTIAL_SUFFIX}", f"a/b/d.00000000{PARTIAL_SUFFIX}"):
        storage.set(key, b"x")
    storage.sweep()
    assert storage.list() == ["a/b/c", "zarr.json"]
    storage.sweep()
    Storage(tmp_path / "nowhere", read_only=False).sweep()
    assert not (tmp_path / "nowhere").exists()


# ---- listing


def test_keys_are_listed_in_order_below_a_prefix(keys):
    for key in ("b", "a/y", "a/x", "a/x.y", "ab/c", "a/z/deep"):
        keys.set(key, b"x")
    assert keys.list() == ["a/x", "a/x.y", "a/y", "a/z/deep", "ab/c", "b"]
    assert keys.list("a") == ["a/x", "a/x.y", "a/y", "a/z/deep"]
    assert keys.list("a/z") == ["a/z/deep"]
    assert keys.list("no") == []


@posix
def test_folder_that_can_not_be_read_is_not_taken_for_empty(keys, monkeypatch):
    """Here by a path that is longer than the system takes, which holds for root as well."""
    keys.folder.mkdir()
    with monkeypatch.context() as inside:
        inside.chdir(keys.folder)
        for _ in range(20):
            os.mkdir("x" * 250)
            os.chdir("x" * 250)
        Path("file").touch()
    for look in (keys.list, lambda: keys.list("x" * 250), keys.is_empty):
        with pytest.raises(StorageError, match=f"xxx can't be listed: {os.strerror(errno.ENAMETOOLONG)}"):
            look()


def test_sizes(keys):
    keys.set("key", b"12345")
    assert keys.size("key") == 5
    assert keys.size("no") is None


def test_what_is_empty(tmp_path):
    assert LocalKeys(tmp_path / "nowhere").is_empty()
    assert LocalKeys(tmp_path).is_empty()
    (tmp_path / "folder" / "folder").mkdir(parents=True)
    assert LocalKeys(tmp_path).is_empty()
    (tmp_path / "folder" / "folder" / "file").touch()
    assert not LocalKeys(tmp_path).is_empty()
    assert not LocalKeys(tmp_path / "folder" / "folder" / "file").is_empty()
