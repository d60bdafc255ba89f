from __future__ import annotations

import pickle
import zipfile
from pathlib import Path

import pytest
from zarr.storage import LocalStore, MemoryStore, ZipStore

from norbert_store._storage.storage import Storage
from norbert_store.errors import FormatError, StoreNotFoundError

KINDS = ["path", "text", "local", "memory", "url"]


@pytest.fixture(params=KINDS)
def location(request, tmp_path):
    if request.param == "url":
        pytest.importorskip("fsspec")
    return {
        "path": lambda: tmp_path / "place",
        "text": lambda: str(tmp_path / "place"),
        "local": lambda: LocalStore(tmp_path / "place"),
        "memory": MemoryStore,
        "url": lambda: f"memory://{tmp_path.name}/place",
    }[request.param]()


@pytest.fixture
def storage(location):
    return Storage(location, read_only=False)


def test_what_is_set_is_got_again(storage):
    storage.set("a/b/c", b"0123456789")
    assert storage.get("a/b/c") == b"0123456789"
    storage.set("a/b/c", b"new")
    assert storage.get("a/b/c") == b"new"


def test_ranges(storage):
    storage.set("key", b"0123456789")
    assert storage.get_range("key", 2, 3) == b"234"
    assert storage.get_range("key", 8, 5) == b"89"
    assert storage.get_suffix("key", 4) == b"6789"
    assert storage.get_suffix("key", 10) == b"0123456789"
    assert storage.size("key") == 10


def test_suffix_of_what_is_shorter_is_all_of_it(tmp_path):
    # zarr 3.1's MemoryStore gives even less
    (tmp_path / "key").write_bytes(b"012")
    assert Storage(tmp_path).get_suffix("key", 5) == b"012"


def test_what_is_not_there_is_none(storage):
    storage.set("other", b"x")
    assert storage.get("key") is None
    assert storage.get_range("key", 0, 1) is None
    assert storage.get_suffix("key", 1) is None
    assert storage.size("key") is None


def test_delete_and_list(storage):
    for key in ("b", "a/x", "a/y", "a/z/deep"):
        storage.set(key, b"x")
    storage.delete("a/y")
    storage.delete("a/y")
    assert storage.list() == ["a/x", "a/z/deep", "b"]
    assert storage.list("a") == ["a/x", "a/z/deep"]
    assert storage.list("nowhere") == []


def test_empty_until_something_is_set(storage):
    assert storage.is_empty()
    storage.set("key", b"x")
    assert not storage.is_empty()


def test_empty_folder_is_empty_and_a_file_is_not(tmp_path):
    assert Storage(tmp_path).is_empty()
    (tmp_path / "file").write_text("x")
    assert not Storage(tmp_path).is_empty()
    assert not Storage(tmp_path / "file").is_empty()


def test_pickles_without_what_is_open(storage, request):
    storage.set("key", b"x")
    copied = pickle.loads(pickle.dumps(storage))
    assert copied.get("key") == b"x"
    assert copied.name == storage.name or "memory" in request.node.name


def test_folder_is_that_of_folders(tmp_path):
    assert Storage(tmp_path).folder == tmp_path
    assert Storage(str(tmp_path)).folder == tmp_path
    assert Storage(LocalStore(tmp_path)).folder == tmp_path
    assert Storage(MemoryStore()).folder is None
    assert Storage("memory://place").folder is None
    assert Storage("s3://bucket/place").folder is None


def test_name_is_the_location(tmp_path):
    assert Storage(tmp_path).name == str(tmp_path)
    assert Storage("s3://bucket/place").name == "s3://bucket/place"
    assert repr(Storage(Path("a"))) == "Storage('a')"


def test_making_one_touches_nothing(tmp_path):
    Storage(tmp_path / "place", read_only=False)
    Storage("s3://no-such-bucket/place")
    assert not (tmp_path / "place").exists()


def test_reading_makes_no_folder(tmp_path):
    assert Storage(tmp_path / "place").get("key") is None
    assert not (tmp_path / "place").exists()


def test_read_only_is_kept(tmp_path):
    with pytest.raises(ValueError, match="read-only"):
        Storage(tmp_path).set("key", b"x")


@pytest.fixture
def zip_file(tmp_path):
    path = tmp_path / "place.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a/key", "0123456789")
    return path


@pytest.mark.parametrize("kind", [Path, str, ZipStore])
def test_zip_files_are_read(zip_file, kind):
    storage = Storage(kind(zip_file))
    assert storage.get("a/key") == b"0123456789"
    assert storage.get_range("a/key", 2, 3) == b"234"
    assert storage.get_suffix("a/key", 2) == b"89"
    assert storage.get("a/other") is None
    assert storage.list() == ["a/key"]


def test_zip_files_are_not_written(tmp_path):
    with pytest.raises(ValueError, match="can only be read"):
        Storage(tmp_path / "new.zip", read_only=False).set("key", b"x")
    assert not (tmp_path / "new.zip").exists()


def test_zip_file_that_is_not_there(tmp_path):
    with pytest.raises(StoreNotFoundError, match=r"no\.zip"):
        Storage(tmp_path / "no.zip").get("key")


def test_zip_file_that_is_none(tmp_path):
    (tmp_path / "bad.zip").write_text("x")
    with pytest.raises(FormatError, match=r"bad\.zip is no \.zip file"):
        Storage(tmp_path / "bad.zip").get("key")
