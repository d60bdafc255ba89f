"""Nothing is read that is larger than it can be, and no memory is taken for it."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from contextlib import nullcontext
from typing import Any

import pytest
from zarr.storage import LocalStore, MemoryStore, WrapperStore, ZipStore

from norbert_store._format.document import MOST_DOCUMENT_BYTES
from norbert_store._storage.storage import Storage
from norbert_store.errors import DamagedError
from tests.servers import endless_server, http_server

MIB = 2**20


def packed(folder, path, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as file:
        for key in folder.rglob("*"):
            file.write(key, key.relative_to(folder).as_posix())
    return path


@pytest.fixture(params=["folder", "memory", "url", "wrapped", "web", "zip", "deflated", "zarr's zip"])
def storage(request, tmp_path):
    """A place that has "five" and "a/ten", of so many bytes."""
    folder = tmp_path / "place"
    kind = request.param
    others: dict[str, Any] = {
        "memory": MemoryStore(),
        "url": f"memory://{tmp_path.name}/place",
        "wrapped": WrapperStore(LocalStore(folder)),
    }
    location = others.get(kind, folder)
    written = Storage(location, read_only=False)
    written.set("five", b"01234")
    written.set("a/ten", b"0123456789")
    written.set("none", b"")
    if kind == "web":
        return Storage(request.getfixturevalue("web"))
    if kind in ("zip", "deflated"):
        compression = zipfile.ZIP_DEFLATED if kind == "deflated" else zipfile.ZIP_STORED
        return Storage(packed(folder, tmp_path / "place.zip", compression))
    if kind == "zarr's zip":
        return Storage(ZipStore(packed(folder, tmp_path / "place.zip")))
    return Storage(location)


@pytest.fixture
def web(tmp_path):
    with http_server(tmp_path / "place") as url:
        yield url


def test_what_is_within_the_limit_is_read_whole(storage):
    assert storage.get("five", most=5) == b"01234"
    assert storage.get("five", most=2**28) == b"01234"
    assert storage.get("none", most=0) == storage.get("none", most=3) == storage.get("none") == b""
    assert storage.get("no", most=5) is None
    assert storage.get_many(["five", "a/ten", "no", "none"], most=10) == [b"01234", b"0123456789", None, b""]
    assert storage.get_many([], most=10) == []


def test_what_is_beyond_the_limit_is_an_error(storage):
    with pytest.raises(DamagedError, match=r"five: the file has (5|more than 4) bytes; expected at most 4"):
        storage.get("five", most=4)
    with pytest.raises(DamagedError, match=r"a/ten: the file has (10|more than 9) bytes; expected at most 9"):
        storage.get_many(["five", "a/ten"], most=9)


# Reads a store's document, and tells the error, and how much more memory that took at its peak, in MiB, and seconds of
# the processor's time.
OPEN = """
import json, resource, sys, time
import norbert_store, norbert_store._storage.web
from norbert_store.errors import NorbertStoreError
before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
try:
    norbert_store.open(sys.argv[1])
    error = None
except NorbertStoreError as found:
    error = found
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(json.dumps([type(error).__name__, str(error), peak / 1024, time.process_time() - began]))
"""


def opened(location):
    done = subprocess.run([sys.executable, "-c", OPEN, str(location)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    error, message, peak, seconds = json.loads(done.stdout)
    assert peak < 200, f"took {peak} MiB"
    assert seconds < 10  # however busy the machine is
    return error, message


posix = pytest.mark.skipif(sys.platform == "win32", reason="memory is measured by POSIX")


@pytest.mark.slow
@posix
def test_sparse_document_takes_no_memory(tmp_path):
    with open(tmp_path / "zarr.json", "wb") as file:
        file.truncate(2**40)
    error, message = opened(tmp_path)
    assert error == "DamagedError"
    of_both = f"the file has {2**40} bytes; expected at most {MOST_DOCUMENT_BYTES}"
    assert message.startswith(f"{tmp_path}: zarr.json: {of_both}")


@pytest.mark.slow
@posix
@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (200, []),
        (200, [("Content-Length", str(2**50))]),
        (206, []),
        (206, [("Content-Range", f"bytes 0-{2**40}/{2**50}")]),
        (200, [("Content-Type", "application/json"), ("Accept-Ranges", "bytes")]),
    ],
)
def test_endless_answer_is_read_no_further_than_a_document_can_be(status, headers):
    with endless_server(status, headers) as (url, sent):
        error, message = opened(url)
        assert error == "DamagedError"
        assert f"zarr.json: the file has more than {MOST_DOCUMENT_BYTES} bytes" in message
        assert sent[0] < 100 * MIB


@pytest.mark.parametrize("status", [200, 206])
def test_ranges_of_an_endless_answer(status):
    with endless_server(status) as (url, sent), warnings_if(status == 200):
        storage = Storage(url)
        assert storage.get_range("key", 3 * MIB, 10) == bytes(10)
        assert storage.get_ranges([("key", 5, 3), ("key", 0, 3), ("other", MIB, 2)]) == [bytes(3), bytes(3), bytes(2)]
        assert sent[0] < 30 * MIB


def warnings_if(condition):
    return pytest.warns(UserWarning, match="whole files") if condition else nullcontext()


# ---- .zip files that lie


def zip_of(path, members, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return path


@pytest.mark.slow
@posix
def test_document_that_expands_to_gigabytes(tmp_path):
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file, file.open("zarr.json", "w") as member:
        for _ in range(300):
            member.write(bytes(MIB))
    error, message = opened(path)
    assert error == "DamagedError"
    assert "zarr.json" in message
    assert str(300 * MIB) in message


@pytest.mark.slow
@posix
def test_document_that_is_said_to_be_small(tmp_path):
    path = zip_of(tmp_path / "x.zip", {"zarr.json": bytes(300 * MIB)})
    data = path.read_bytes()
    assert data.count((300 * MIB).to_bytes(4, "little")) == 2
    path.write_bytes(data.replace((300 * MIB).to_bytes(4, "little"), (100).to_bytes(4, "little")))
    error, message = opened(path)
    assert error == "DamagedError"
    assert "zarr.json: its checksum in the .zip file doesn't match" in message


@pytest.mark.slow
@posix
def test_document_that_is_said_to_be_large(tmp_path):
    path = zip_of(tmp_path / "x.zip", {"zarr.json": b"0123456"}, zipfile.ZIP_STORED)
    path.write_bytes(path.read_bytes().replace((7).to_bytes(4, "little"), (2**31).to_bytes(4, "little")))
    error, _ = opened(path)
    assert error == "DamagedError"


@pytest.mark.slow
@posix
@pytest.mark.parametrize("size", [2**31, 2**40])
def test_sparse_zip_file(tmp_path, size):
    with open(tmp_path / "x.zip", "wb") as file:
        file.truncate(size)
    assert opened(tmp_path / "x.zip")[0] == "FormatError"


@pytest.mark.slow
@posix
def test_zip_file_of_a_sparse_table_of_contents(tmp_path):
    path = zip_of(tmp_path / "x.zip", {})
    end = path.read_bytes()
    with open(path, "wb") as file:
        file.truncate(2**31)
        file.seek(2**31)
        file.write(end[:12] + (2**31).to_bytes(4, "little") + bytes(4) + end[20:])
    error, message = opened(path)
    assert error == "FormatError"
    assert f"a table of contents of {2**31} bytes" in message


@pytest.mark.slow
@posix
def test_zip_file_of_as_many_files_as_there_can_be(tmp_path):
    """Entries that are as short as can be, in a table of contents that is as long as can be."""
    entries = 2**25 // 52
    entry = b"PK\1\2" + bytes(24) + (6).to_bytes(2, "little") + bytes(16)
    directory = b"".join(entry + b"%06x" % number for number in range(entries))
    end = b"PK\5\6" + bytes(8) + len(directory).to_bytes(4, "little") + bytes(6)
    (tmp_path / "x.zip").write_bytes(directory + end)
    error, message = opened(tmp_path / "x.zip")
    assert error == "StoreNotFoundError"
    assert "expected a zarr.json" in message
