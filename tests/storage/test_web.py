"""Stores on web servers of all kinds; real ones, on loopback."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
import xarray
from zarr.storage import FsspecStore

import norbert_store
from norbert_store import verify
from norbert_store._storage.storage import Storage
from norbert_store.errors import StorageError, StoreNotFoundError
from tests.servers import always, http_server, in_turn, proxy

DATA = np.random.default_rng(0).bytes(300_000)
SERVERS: dict[str, dict[str, Any]] = {
    "ranges": {},
    "whole": {"ranges": False},
    "whole, no lengths": {"ranges": False, "lengths": False},
    "whole, packed": {"ranges": False, "gzipped": True},
    "no HEAD": {"heads": False},
    "whole, no HEAD": {"ranges": False, "heads": False},
}
KNOW_RANGES = ["ranges", "no HEAD"]
RANGES = [(0, 5), (1000, 2000), (123_456, 7), (299_990, 10), (299_990, 100), (300_000, 5), (400_000, 5), (0, 300_000)]
SUFFIXES = [1, 8, 70_000, 300_000, 300_001, 2**40]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "a b").mkdir()
    (tmp_path / "a b" / "key#1?&%20ü").write_bytes(DATA)
    (tmp_path / "key").write_bytes(DATA)
    (tmp_path / "small").write_bytes(b"0123456789")
    (tmp_path / "none").write_bytes(b"")
    return tmp_path


@pytest.fixture(params=SERVERS)
def served(request, folder):
    """A place, and what gives the warning that it must give."""
    with http_server(folder, **SERVERS[request.param]) as url:
        yield Storage(url), request.param


def slow(kind):
    if kind in KNOW_RANGES:
        return nullcontext()
    return pytest.warns(UserWarning, match=r"http://127.* sends whole files where parts of them are asked for")


@pytest.mark.parametrize(("start", "length"), RANGES)
def test_ranges(served, start, length):
    storage, kind = served
    with slow(kind):
        assert storage.get_range("key", start, length) == DATA[start : start + length]
        assert storage.get_range("small", start, length) == b"0123456789"[start : start + length]
        assert storage.get_range("none", start, length) == b""


@pytest.mark.parametrize("length", SUFFIXES)
def test_suffixes(served, length):
    storage, kind = served
    with slow(kind):
        assert storage.get_suffix("key", length) == DATA[-length:]
        assert storage.get_suffix("small", length) == b"0123456789"[-length:]
        assert storage.get_suffix("none", length) == b""


def test_whole_files(served):
    storage, _ = served
    assert storage.get("key") == storage.get("a b/key#1?&%20ü") == DATA
    assert storage.get("key", most=300_000) == DATA
    assert storage.get("none") == b""
    assert storage.get("no") is None
    assert storage.get_many(["key", "no", "small"], most=2**20) == [DATA, None, b"0123456789"]


def test_many_ranges(served):
    storage, kind = served
    wanted = [("key", start, length) for start, length in RANGES]
    wanted += [("key", -length, length) for length in SUFFIXES]
    wanted += [("small", 3, 4), ("no", 0, 1), ("none", 0, 4), ("small", 3, 4), ("no", -1, 1), ("small", 8, 0)]
    found = [DATA[start : start + length] for start, length in RANGES] + [DATA[-length:] for length in SUFFIXES]
    found += [b"3456", None, b"", b"3456", None, b""]
    with slow(kind):
        for _ in range(2):  # what a server does is known the second time
            assert storage.get_ranges(wanted) == found


def test_sizes(served):
    storage, kind = served
    if kind in ("whole, no lengths", "whole, packed"):
        pytest.skip("nobody tells them")
    assert storage.size("key") == len(DATA)
    assert storage.size("none") == 0
    assert storage.size("no") is None


def test_size_that_nobody_tells(folder):
    told = pytest.raises(StorageError, match="key can't be read: the server doesn't tell its length")
    with http_server(folder, ranges=False, lengths=False) as url, told:
        Storage(url).size("key")


def test_it_is_said_once_that_a_server_is_slow(folder):
    with http_server(folder, ranges=False) as url:
        storage = Storage(url)
        with pytest.warns(UserWarning, match="sends whole files") as warned:
            storage.get_ranges([("key", 5, 5), ("small", -1, 1)])
        assert len(warned) == 1
        storage.get_range("key", 5, 5)
        storage.get_ranges([("key", 5, 5), ("small", -1, 1)])


def test_whole_files_are_sent_once_for_many_ranges(folder):
    with http_server(folder, ranges=False) as upstream, proxy(upstream) as front:
        storage = Storage(front.url)
        with pytest.warns(UserWarning, match="sends whole files"):
            storage.get_suffix("key", 5)
        with front.counting() as requests:
            storage.get_ranges([("key", start, 10) for start in range(0, 300_000, 1000)])
        assert len(requests) == 1


@pytest.mark.slow
def test_python_s_own_server(folder):
    """It knows no ranges, and is what people try first."""
    command = [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "-d", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            url = process.stdout.readline().split("(")[1].split(")")[0]
            with pytest.warns(UserWarning, match="sends whole files"):
                assert Storage(url).get_ranges([("key", 7, 9), ("key", -7, 7)]) == [DATA[7:16], DATA[-7:]]
        finally:
            process.kill()


# ---- URLs


def test_query_stays_behind_every_key(folder):
    query = "token=a%2Fb%3D&sig=x+y"
    with http_server(folder, query=query) as url:
        storage = Storage(f"{url}?{query}")
        assert storage.get("key") == storage.get("a b/key#1?&%20ü") == DATA
        assert storage.get_range("key", 5, 5) == DATA[5:10]
        assert storage.get("no") is None
        assert storage.size("key") == len(DATA)
        assert Storage(f"{url}/?{query}").get("small") == b"0123456789"
        with pytest.raises(StorageError, match="key can't be read: the server answers 403"):
            Storage(url).get("key")


@pytest.mark.parametrize("path", ["a%20b", "a b"])
def test_folders_with_spaces(folder, path):
    with http_server(folder) as url:
        assert Storage(f"{url}/{path}").get("key#1?&%20ü") == DATA


def test_ready_store_of_fsspec(folder):
    with http_server(folder, ranges=False) as url, pytest.warns(UserWarning, match="sends whole files"):
        assert Storage(FsspecStore.from_url(url)).get_range("key", 7, 9) == DATA[7:16]


def test_options_of_the_file_system(folder):
    with http_server(folder) as upstream, proxy(upstream) as front:
        storage = Storage(front.url, options={"headers": {"Authorization": "Bearer x"}})
        assert storage.get("small") == b"0123456789"
        assert storage.get_range("small", 2, 3) == b"234"
        assert {request.headers["Authorization"] for request in front.requests} == {"Bearer x"}


def test_nothing_is_written_or_listed(folder):
    with http_server(folder) as url:
        storage = Storage(url, read_only=False)
        for write in (
            lambda: storage.set("new", b"x"),
            lambda: storage.create("new", b"x"),
            lambda: storage.delete("key"),
        ):
            with pytest.raises(StorageError, match="web servers and .zip files can only be read"):
                write()
        for look in (storage.list, Storage(url).is_empty):
            with pytest.raises(StorageError, match="web servers don't tell what they have"):
                look()
        with pytest.raises(StorageError, match=r"can't be written: web servers and \.zip files can only be read"):
            norbert_store.create(f"{url}/new.zarr", targets=["mixture"])
    assert sorted(os.listdir(folder)) == ["a b", "key", "none", "small"]


# ---- faults


def test_errors_that_trying_again_does_not_mend_are_told_at_once(folder):
    with http_server(folder, query="secret") as upstream, proxy(upstream) as front:
        with pytest.raises(StorageError, match="403") as caught:
            Storage(f"{front.url}?wrong").get("key")
        assert len(front.requests) == 1
        assert "wrong" not in str(caught.value)


def test_sizes_are_asked_for_again_after_transient_errors(folder):
    with http_server(folder) as upstream, proxy(upstream) as front, front.breaking(in_turn("503", "503")) as faults:
        assert Storage(front.url).size("small") == 10
        assert faults == ["503", "503"]


def test_errors_instead_of_a_size_are_told_as_they_are(folder):
    with http_server(folder, query="secret") as upstream, proxy(upstream) as front:
        with pytest.raises(StorageError, match="small can't be read: the server answers 403"):
            Storage(front.url).size("small")
        assert [request.method for request in front.requests] == ["HEAD", "GET"]


@pytest.mark.parametrize("fault", ["500", "503", "refuse", "cut"])
def test_errors_that_last_are_told_in_the_end(folder, fault):
    told = pytest.raises(StorageError, match="key can't be read")
    with http_server(folder) as upstream, proxy(upstream) as front, front.breaking(always(fault)), told:
        Storage(FsspecStore.from_url(front.url)).get("key")  # a ready store isn't asked again


# ---- .zip files on the web


@pytest.fixture(scope="module")
def zipped(tmp_path_factory):
    """A store, and the folder of a .zip file of it, packed with its own folder and without compression."""
    root = tmp_path_factory.mktemp("zipped")
    audio = {"mixture": np.random.default_rng(0).uniform(-0.5, 0.5, (9000, 1))}
    options: dict[str, Any] = {
        "targets": ["mixture"],
        "channels": 1,
        "transform": norbert_store.TF(rate=8000, n_fft=256),
    }
    with norbert_store.create(root / "x.zarr", **options, chunk_frames=16) as writer:
        for name in ("one", "two", "three"):
            writer.add(name, audio)
    (root / "served").mkdir()
    with zipfile.ZipFile(root / "served" / "my x.ZIP", "w") as file:
        for path in sorted((root / "x.zarr").rglob("*")):
            file.write(path, path.relative_to(root).as_posix())
    return norbert_store.open(root / "x.zarr"), root / "served"


@pytest.mark.parametrize("kind", SERVERS)
@pytest.mark.parametrize("query", ["", "token=x"])
def test_zip_files_on_the_web(zipped, kind, query):
    db, folder = zipped
    with http_server(folder, query=query, **SERVERS[kind]) as url, slow(kind):
        found = norbert_store.open(f"{url}/{quote('my x.ZIP')}" + (f"?{query}" if query else ""))
        assert found.names == db.names
        assert np.array_equal(found[1].magnitude[..., 3:40, :], db[1].magnitude[..., 3:40, :])
        some, same = (each.excerpts(0.2).read(range(4))["magnitude"] for each in (found, db))
        assert np.array_equal(some, same)


def test_requests_for_a_zip_file_on_the_web(zipped):
    _, folder = zipped
    with http_server(folder) as upstream, proxy(upstream) as front:
        found = norbert_store.open(f"{front.url}/my%20x.ZIP")
        assert len(front.requests) == 3  # its end, the document's header, the document
        with front.counting() as requests:
            found[1].magnitude[..., 3:40, :].load()
        assert len(requests) <= 8
        with front.counting() as requests:
            found[1].magnitude[..., 13:50, :].load()
        assert len(requests) == 1
        assert sum(int(b) - int(a) for a, b in (request.range.split("-") for request in requests)) < 20_000


def test_zip_file_that_is_not_on_the_web(zipped):
    _, folder = zipped
    with http_server(folder) as url, pytest.raises(StoreNotFoundError, match="there is no store at http"):
        norbert_store.open(f"{url}/other.zip")


# ---- stores


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*sends whole files")
@pytest.mark.parametrize("name", ["x.zarr", "x.zip", "INNER.ZIP"])
@pytest.mark.parametrize("query", ["", "signature=a%2Fb&expires=1"])
@pytest.mark.parametrize("ranges", [True, False])
def test_stores_on_the_web_read_as_in_their_folder(tmp_path, options, music, ranges, query, name):
    with norbert_store.create(tmp_path / "x.zarr", **options()) as writer:
        for i in range(3):
            writer.add(f"{i}", music(9000, i), labels={"genre": "Rock"})
    shutil.make_archive(str(tmp_path / "x"), "zip", tmp_path / "x.zarr")
    (tmp_path / "inner").mkdir()
    shutil.copytree(tmp_path / "x.zarr", tmp_path / "inner" / "x.zarr")
    Path(shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path / "inner")).rename(tmp_path / "INNER.ZIP")
    db = norbert_store.open(tmp_path / "x.zarr")
    with http_server(tmp_path, ranges=ranges, query=query) as url:
        found = norbert_store.open(f"{url}/{name}?{query}" if query else f"{url}/{name}")
        assert found.digest(strong=True) == db.digest(strong=True)
        some = {"target": "vocals", "channel": "left", "time": slice(0.2, 0.5)}
        assert np.array_equal(found[1].magnitude.sel(some), db[1].magnitude.sel(some))
        excerpts, expected = found.excerpts(0.3, per_epoch=4), db.excerpts(0.3, per_epoch=4)
        assert np.array_equal(excerpts[1]["magnitude"], expected[1]["magnitude"])
        assert np.array_equal(excerpts.read(range(4))["magnitude"], expected.read(range(4))["magnitude"])
        xarray.testing.assert_identical(found.statistics(), db.statistics())
        assert verify(f"{url}/{name}?{query}" if query else f"{url}/{name}")
