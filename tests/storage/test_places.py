"""What people write where a store is: paths, URLs, and what zarr has opened already."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import zarr
from zarr.storage import FsspecStore, LocalStore, MemoryStore, StorePath, WrapperStore, ZipStore

import norbert_store
from norbert_store._storage.places import is_zip, local_path, name_of
from norbert_store._storage.storage import Storage
from norbert_store.errors import SourceError, StorageError, StoreNotFoundError

posix = pytest.mark.skipif(sys.platform == "win32", reason="POSIX")


def writable(location, **options):
    return Storage(location, read_only=False, **options)


# ---- paths on this machine


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.mark.parametrize("kind", [str, Path])
def test_tilde_is_the_home_folder(home, kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    writable(kind("~/music/x.zarr")).set("key", b"x")
    assert (home / "music" / "x.zarr" / "key").read_bytes() == b"x"
    assert Storage(kind("~/music/x.zarr")).folder == home / "music" / "x.zarr"
    assert os.listdir(tmp_path) == ["home"]


def test_tilde_elsewhere_is_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Storage("./~").folder == tmp_path / "~"
    assert Storage("a~b").folder == tmp_path / "a~b"


@posix
@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("file:///music/x.zarr", "/music/x.zarr"),
        ("file://localhost/music/x.zarr", "/music/x.zarr"),
        ("FILE:///music/x.zarr", "/music/x.zarr"),
        ("local:///music/x.zarr", "/music/x.zarr"),
        ("file:///my%20music/100%25%3F.zarr", "/my music/100%?.zarr"),
        ("file:///m%C3%BCsic/a+b#c?d", "/müsic/a+b#c?d"),
        ("file:///music/../x", "/x"),
        ("file://~/x%20y", "{home}/x y"),
        ("~/x%20y", "{home}/x%20y"),
    ],
)
def test_file_urls_are_paths(url, path, home):
    assert local_path(url) == Path(path.format(home=home))
    assert Storage(url).folder == Path(path.format(home=home))


def test_file_url_of_another_machine():
    with pytest.raises(ValueError, match="names a file on the machine 'server'; write file:///"):
        Storage("file://server/music/x.zarr")


@posix
def test_stores_are_written_and_read_by_file_urls(tmp_path, options):
    url = f"{(tmp_path / 'my music').as_uri()}/x.zarr"
    assert "my%20music" in url
    norbert_store.create(url, **options()).close()
    assert len(norbert_store.open(url)) == 0
    assert len(norbert_store.open(tmp_path / "my music" / "x.zarr")) == 0
    with norbert_store.append(url):
        pass


@pytest.mark.parametrize("location", [None, 5, b"x.zarr", ["x.zarr"], {}])
def test_what_is_no_location(location):
    with pytest.raises(TypeError, match="location must be a path, a URL, or a store, path or group of zarr's; got"):
        Storage(location)


def test_array_of_zarr_is_no_location():
    with pytest.raises(TypeError, match="got Array"):
        Storage(zarr.create_array({}, shape=(1,), dtype="int8"))  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [str, Path, LocalStore, lambda path: StorePath(LocalStore(path))])
def test_relative_places_stay_when_the_working_folder_changes(tmp_path, monkeypatch, kind):
    writable(tmp_path / "x.zarr").set("key", b"x")
    monkeypatch.chdir(tmp_path)
    storage = Storage(kind("x.zarr"))
    monkeypatch.chdir("/")
    assert storage.get("key") == b"x"
    assert Storage(storage.location).get("key") == b"x"
    assert pickle.loads(pickle.dumps(storage)).get("key") == b"x"


# ---- what zarr has opened


@pytest.fixture(params=["local", "memory", "wrapped", "fsspec"])
def store(request, tmp_path):
    if request.param == "local":
        return LocalStore(tmp_path / "root")
    if request.param == "fsspec":
        return FsspecStore.from_url(f"memory://{tmp_path.name}/root")
    return MemoryStore() if request.param == "memory" else WrapperStore(LocalStore(tmp_path / "root"))


@pytest.mark.parametrize("kind", ["path", "group"])
@pytest.mark.parametrize("path", ["", "a", "a/deep place"])
def test_paths_and_groups_of_zarr(store, kind, path):
    location = zarr.create_group(store, path=path) if kind == "group" else StorePath(store, path)
    storage = writable(location)
    for key in ("x", "c/0", "c/1", "d/0"):
        storage.set(key, b"0123")
    assert not storage.create("x", b"new")
    assert storage.create("y", b"new")
    storage.replace("y", b"newer", storage.get_with_tag("y")[1])
    storage.delete("c/1")
    assert storage.list("c") == ["c/0"]
    assert [key for key in storage.list() if not key.endswith("zarr.json")] == ["c/0", "d/0", "x", "y"]
    assert not storage.is_empty()
    assert writable(StorePath(store, "nowhere")).is_empty()
    assert storage.get_ranges([("x", 1, 2), ("c/0", -1, 1), ("c/1", 0, 1)]) == [b"12", b"3", None]
    assert storage.get_many(["x", "no"], most=5) == [b"0123", None]
    assert storage.size("x") == 4
    assert storage.get("y") == b"newer"
    whole = Storage(store)
    assert whole.get(f"{path}/x" if path else "x") == b"0123"
    assert Storage(storage.location).get("x") == b"0123"


def test_stores_below_a_path_of_zarr(store, options):
    place = StorePath(store, "data/sets")
    norbert_store.create(place, **options()).close()
    with norbert_store.append(place):
        pass
    assert len(norbert_store.open(place)) == 0
    assert len(norbert_store.open(zarr.open_group(store, path="data/sets", mode="r"))) == 0
    assert Storage(store).get("data/sets/zarr.json") is not None
    assert Storage(store).get("zarr.json") is None


def test_what_was_opened_to_read_is_not_written(tmp_path):
    zarr.create_group(tmp_path / "x.zarr")
    group = zarr.open_group(tmp_path / "x.zarr", mode="r")
    for location in (group, group.store_path, group.store):
        with pytest.raises(ValueError, match="was opened read-only"):
            writable(location).set("key", b"x")
    assert not (tmp_path / "x.zarr" / "key").exists()


# ---- URLs


@pytest.mark.parametrize(
    ("location", "name"),
    [
        ("https://host/x.zarr?token=secret&a=b", "https://host/x.zarr"),
        ("https://user:secret@host:8000/x.zarr", "https://host:8000/x.zarr"),
        ("s3://bucket/x.zarr", "s3://bucket/x.zarr"),
        ("simplecache::s3://bucket/x?y", "simplecache::s3://bucket/x"),
        ("simplecache::https://user:secret@host/x.zarr?token=secret", "simplecache::https://host/x.zarr"),
        ("zip://a?secret::https://u:secret@host/x.zip?t=secret::x", "zip://a::https://host/x.zip"),
        ("https://user:secret@[::1]:8000/x.zarr?token=secret#secret", "https://[::1]:8000/x.zarr"),
        ("https://user:secret@[::1/x.zarr?token=secret", "https://[::1/x.zarr"),
        ("a?b", "a?b"),
        (Path("a/b"), str(Path("a/b"))),
    ],
)
def test_names_hold_no_secrets(location, name):
    assert name_of(location) == name
    assert Storage(location).name == name


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://host/x.zip", True),
        ("http://[::1]/x.zip?a=b", True),
        ("http://user:secret@[::1]:8000/x.ZIP", True),
        ("http://[::1]/x.zarr", False),
        ("simplecache::http://[::1]/x.zip", False),
        ("zip://a::s3://bucket/x.zip", False),
    ],
)
def test_urls_of_zip_files(url, expected):
    assert is_zip(url) == expected


@pytest.mark.parametrize("url", ["foo://bar", "simplecache::foo://bar", "foo::memory://bar"])
def test_scheme_that_nobody_knows(url):
    with pytest.raises(ValueError, match=rf"{url} is no place that can be opened: .*foo; expected a path, or a URL"):
        Storage(url).get("key")


@pytest.mark.parametrize("url", ["ftp://127.0.0.1:1/x", "zip://x.zarr::/nowhere/x.zip"])
def test_a_place_that_cannot_be_reached_is_an_error_of_storage(url):
    with pytest.raises(StorageError, match=f"{url} can't be opened: "):
        norbert_store.open(url)


def test_option_that_is_refused_is_told_as_such():
    options = {"simplecache": {"same_names": True, "cache_mapper": object()}}
    with pytest.raises(ValueError, match="both same_names and cache_mapper") as caught:
        Storage("simplecache::memory://bar", options=options).get("key")
    assert "no place" not in str(caught.value)


def test_options_are_of_urls(tmp_path):
    with pytest.raises(ValueError, match="is no URL; options are of the file system that opens a URL"):
        Storage(tmp_path, options={"anon": True})


# Without the packages that are named after the location.
OPEN_WITHOUT = """
import sys
location, *packages = sys.argv[1:]
for package in packages:
    sys.modules[package] = None
import norbert_store
from norbert_store.errors import StorageError
try:
    norbert_store.open(location)
except StorageError as error:
    print(error)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("location", "packages", "message"),
    [
        (
            "https://host/x",
            ["aiohttp"],
            "https:// needs fsspec and aiohttp: pip install 'norbert_store[http]'",
        ),
        ("http://host/x", ["fsspec"], "http:// needs fsspec and aiohttp: pip install 'norbert_store[http]'"),
        ("s3://bucket/x", ["s3fs"], "s3:// needs s3fs: pip install 'norbert_store[s3]'"),
        ("s3://bucket/x", ["fsspec"], "s3:// needs s3fs: pip install 'norbert_store[s3]'"),
        ("gs://bucket/x", ["gcsfs"], "gcsfs"),
        ("memory://x", ["fsspec"], "fsspec"),
    ],
)
def test_packages_that_are_missing_are_named_with_their_extra(location, packages, message):
    command = [sys.executable, "-c", OPEN_WITHOUT, location, *packages]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    assert f"{location} can't be opened: " in done.stdout
    assert message in done.stdout


# ---- .zip files and folders that are called so


@pytest.fixture
def folder(tmp_path):
    """A place that has "zarr.json" and "a/key"."""
    place = writable(tmp_path / "x.zarr")
    place.set("zarr.json", b"{}")
    place.set("a/key", b"0123456789")
    return tmp_path / "x.zarr"


@pytest.mark.parametrize("name", ["x.zip", "x.ZIP", "x.Zip"])
def test_zip_files_are_told_by_their_names(folder, tmp_path, name):
    Path(shutil.make_archive(tmp_path / "made", "zip", folder)).rename(tmp_path / name)
    for location in (tmp_path / name, str(tmp_path / name), (tmp_path / name).as_uri(), ZipStore(tmp_path / name)):
        storage = Storage(location)
        assert storage.folder is None
        assert storage.list() == ["a/key", "zarr.json"]
        assert storage.get("a/key") == b"0123456789"
        assert pickle.loads(pickle.dumps(storage)).get("a/key") == b"0123456789"


@pytest.mark.parametrize("name", ["x.zip", "x.ZIP"])
def test_folders_may_be_called_so(folder, tmp_path, name):
    folder.rename(tmp_path / name)
    storage = writable(tmp_path / name)
    assert storage.folder == tmp_path / name
    assert storage.get("a/key") == b"0123456789"
    storage.set("b", b"x")
    assert (tmp_path / name / "b").read_bytes() == b"x"


@posix
def test_link_to_a_zip_file(folder, tmp_path):
    made = Path(shutil.make_archive(tmp_path / "elsewhere", "zip", folder))
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "x.zip").symlink_to(made)
    assert Storage(tmp_path / "links" / "x.zip").get("a/key") == b"0123456789"


def test_relative_zip_file_stays_when_the_working_folder_changes(folder, tmp_path, monkeypatch):
    shutil.make_archive(tmp_path / "made", "zip", folder)
    monkeypatch.chdir(tmp_path)
    for location in ("made.zip", ZipStore("made.zip")):
        monkeypatch.chdir(tmp_path)
        storage = Storage(location)
        monkeypatch.chdir("/")
        assert storage.get("a/key") == b"0123456789"


def test_zip_file_in_memory_of_fsspec(folder, tmp_path):
    data = Path(shutil.make_archive(tmp_path / "made", "zip", folder)).read_bytes()
    writable(f"memory://{tmp_path.name}").set("y.zip", data)
    url = f"memory://{tmp_path.name}/y.zip"
    assert Storage(url).get("a/key") == b"0123456789"
    assert Storage(url).list() == ["a/key", "zarr.json"]
    with pytest.raises(ValueError, match="can only be read"):
        writable(url).set("key", b"x")


def test_url_of_a_folder_that_is_called_so(tmp_path):
    writable(f"memory://{tmp_path.name}/other").set("x.zip/key", b"x")
    assert Storage(f"memory://{tmp_path.name}/other/x.zip").get("key") == b"x"


def test_stores_can_be_opened_out_of_zip_files_only_if_there_is_one(tmp_path):
    with pytest.raises(StoreNotFoundError, match=r"there is no store at .*no\.zip"):
        norbert_store.open(tmp_path / "no.zip")
    with pytest.raises((StoreNotFoundError, StorageError)):
        norbert_store.open(f"memory://{tmp_path.name}/no.zip")


def test_folder_of_a_ready_zip_file(tmp_path, options, monkeypatch):
    norbert_store.create(tmp_path / "folder/x.zarr", **options()).close()
    shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path / "folder")
    monkeypatch.chdir(tmp_path)
    place = StorePath(ZipStore("packed.zip", mode="r"), "x.zarr")
    db = norbert_store.open(place)
    monkeypatch.chdir("/")
    assert db.digest() == norbert_store.open(tmp_path / "packed.zip").digest()


# ---- audio


@posix
@pytest.mark.parametrize("kind", ["tilde", "url"])
def test_audio_lies_where_stores_may_lie(home, options, kind):
    """Wherever Python takes the place of audio, it takes what a shell would have expanded, and file:// URLs."""
    files = home / "my music" / "train"
    files.mkdir(parents=True)
    for name in ("a", "b"):
        soundfile.write(files / f"{name}.wav", np.zeros((4000, 2)), 8000)
    below = f"file://{home}/my%20music" if kind == "url" else "~/my music"
    out = below.rpartition("/")[0]
    assert norbert_store.export_folder(below, f"{out}/1.zarr", effort=0).open().names == ["train/a", "train/b"]
    table = [{"name": "a", "mixture": f"{below}/train/a.wav"}]
    assert norbert_store.export(table, f"{out}/2.zarr", effort=0).open()[0].source == "my music/train/a.wav"
    table = [{"name": "a", "mixture": "train/a.wav"}]
    assert norbert_store.export(table, f"{out}/3.zarr", effort=0, root=below).open().names == ["a"]
    with norbert_store.create(f"{out}/4.zarr", **options()) as writer:
        writer.add("a", {"mixture": f"{below}/train/a.wav"})
    assert norbert_store.open(home / "3.zarr")[0].to_audio("mixture", mixture=f"{below}/train/b.wav").shape == (4000, 2)
    shutil.rmtree(home / "3.zarr/magnitude/c")
    (home / "my music").rename(home / "moved music")
    assert norbert_store.repair(f"{out}/3.zarr", audio_root=below.replace("my", "moved"))


def test_audio_of_another_machine():
    for place, message in (
        ("file://other/a.wav", "names a file on the machine 'other'"),
        (
            "https://user:secret@example.org/a.wav?key=secret",
            r"audio at https://example\.org/a\.wav can't be read from here",
        ),
    ):
        with pytest.raises(SourceError, match=message):
            norbert_store.export_folder(place, "x.zarr")
