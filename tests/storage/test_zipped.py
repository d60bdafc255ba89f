"""Keys in .zip files, as all kinds of programs write them, and as none should."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import zipfile

import numpy as np
import pytest

from norbert_store._storage.storage import Storage
from norbert_store.errors import DamagedError, FormatError

RNG = np.random.default_rng(0)
SHARD = RNG.bytes(400_000)
LONG = RNG.bytes(1000) + bytes(20 * 2**20) + RNG.bytes(1000)  # too long to be remembered, decompressed
FILES = {"zarr.json": b"{}", "magnitude/zarr.json": b"{}", "magnitude/c/0/0/1/0": SHARD, "long": LONG, "none": b""}
METHODS = [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]


def write(path, files=FILES, compression=zipfile.ZIP_STORED, before="", comment=b""):
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, data in files.items():
            file.writestr(before + name, data)
        file.comment = comment
    return path


@pytest.fixture(params=METHODS, ids=["stored", "deflated"])
def storage(request, tmp_path):
    return Storage(write(tmp_path / "x.zip", compression=request.param))


def test_files_are_read_whole(storage):
    assert storage.list() == sorted(FILES)
    assert storage.list("magnitude") == ["magnitude/c/0/0/1/0", "magnitude/zarr.json"]
    assert storage.list("no") == []
    assert not storage.is_empty()
    for key, data in FILES.items():
        assert storage.get(key) == data
        assert storage.size(key) == len(data)
    for key in ("no", "magnitude", "magnitude/c"):
        assert storage.get(key) is None
        assert storage.size(key) is None
        assert storage.get_range(key, 0, 1) is None


@pytest.mark.parametrize("key", ["magnitude/c/0/0/1/0", "long", "none"])
def test_ranges_are_cut_at_the_ends(storage, key):
    data = FILES[key]
    size = len(data)
    for start, length in ((0, 10), (5, size), (1000, 70_000), (size - 3, 10), (size, 1), (size + 5, 5), (5, 0)):
        assert storage.get_range(key, start, length) == data[start : start + length]
    for length in (1, 990, size + 5):
        assert storage.get_suffix(key, length) == data[-length:]
    ranges = [(key, 3, 5), ("no", 0, 1), ("zarr.json", -1, 1), (key, -7, 7), (key, 3, 5)]
    assert storage.get_ranges(ranges) == [data[3:8], None, b"}", data[-7:], data[3:8]]


# ---- who packs, packs in his own way


@pytest.mark.parametrize("before", ["x.zarr/", "my data/set/x.zarr/", "./x/"])
@pytest.mark.parametrize("compression", METHODS)
def test_folder_inside(tmp_path, before, compression):
    storage = Storage(write(tmp_path / "x.zip", compression=compression, before=before))
    assert storage.list() == sorted(FILES)
    assert storage.get("magnitude/c/0/0/1/0") == SHARD


def test_folder_inside_with_what_file_managers_add(tmp_path):
    files = {f"x.zarr/{key}": data for key, data in FILES.items()}
    files |= {"x.zarr/": b"", "__MACOSX/x.zarr/._zarr.json": b"x", ".DS_Store": b"x", "x.zarr/../out": b"x"}
    storage = Storage(write(tmp_path / "x.zip", files))
    assert storage.get("zarr.json") == b"{}"
    assert storage.list() == sorted(FILES)


def test_several_stores_inside_are_none(tmp_path):
    files = {f"{name}/{key}": data for name in "ab" for key, data in FILES.items()}
    storage = Storage(write(tmp_path / "x.zip", files))
    assert storage.get("zarr.json") is None
    assert storage.get("a/zarr.json") == b"{}"


@pytest.mark.skipif(shutil.which("zip") is None, reason="no zip")
@pytest.mark.parametrize("options", [["-r"], ["-r0"], ["-rfz"], ["-rX"]])
def test_zip_s_own_files(tmp_path, options):
    for key, data in FILES.items():
        (tmp_path / "x.zarr" / key).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "x.zarr" / key).write_bytes(data)
    subprocess.run(["zip", "-q", *options, "x.zip", "x.zarr"], cwd=tmp_path, check=True)
    storage = Storage(tmp_path / "x.zip")
    assert {key: storage.get(key) for key in storage.list()} == FILES


def test_backslashes_of_old_windows_programs(tmp_path):
    path = write(tmp_path / "x.zip", {"x:zarr.json": b"{}", "x:magnitude:zarr.json": b"[]"})
    path.write_bytes(path.read_bytes().replace(b"x:zarr", b"x\\zarr").replace(b"x:magnitude:", b"x\\magnitude\\"))
    assert Storage(path).list() == ["magnitude/zarr.json", "zarr.json"]


def test_names_that_are_not_ascii(tmp_path):
    files = {"zarr.json": b"{}", "läbel/ключ": b"x"}
    assert Storage(write(tmp_path / "x.zip", files)).get("läbel/ключ") == b"x"


@pytest.mark.parametrize("size", [0, 100, 65535])
def test_comments(tmp_path, size):
    assert Storage(write(tmp_path / "x.zip", comment=b"c" * size)).get("zarr.json") == b"{}"


@pytest.mark.slow
def test_many_files(tmp_path):
    """More than a small table of contents holds, and more than 65535: zip64."""
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as file:
        for number in range(66_000):
            file.writestr(f"c/{number}", str(number))
    storage = Storage(tmp_path / "x.zip")
    assert len(storage.list()) == 66_000
    assert storage.get("c/65999") == b"65999"
    assert storage.get_many(["c/5", "c/65998"], most=10) == [b"5", b"65998"]


def test_files_that_are_written_for_zip64(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as file:
        for key, data in FILES.items():
            with file.open(key, "w", force_zip64=True) as member:
                member.write(data)
    storage = Storage(tmp_path / "x.zip")
    assert {key: storage.get(key) for key in storage.list()} == FILES


def test_file_beyond_four_gigabytes(tmp_path):
    """All behind a hole that takes no room on disk."""
    path = tmp_path / "x.zip"
    with open(path, "wb") as file:
        file.truncate(5 * 2**30)
    with zipfile.ZipFile(path, "a") as file:
        for key, data in FILES.items():
            file.writestr(key, data)
    storage = Storage(path)
    assert {key: storage.get(key) for key in storage.list()} == FILES
    assert storage.get_range("magnitude/c/0/0/1/0", 7, 9) == SHARD[7:16]


def test_empty_zip_file(tmp_path):
    storage = Storage(write(tmp_path / "x.zip", {}))
    assert storage.is_empty()
    assert storage.list() == []
    assert storage.get("zarr.json") is None


# ---- what is refused


def test_zip_file_that_is_replaced(tmp_path):
    storage = Storage(write(tmp_path / "x.zip"))
    assert storage.get("zarr.json") == b"{}"
    os.replace(write(tmp_path / "y.zip", {"zarr.json": b"{ }"}), tmp_path / "x.zip")
    with pytest.raises(DamagedError, match=r"x\.zip: it was replaced since it was opened, or deleted; open it again"):
        storage.get("zarr.json")
    (tmp_path / "x.zip").unlink()
    with pytest.raises(DamagedError, match="deleted"):
        storage.get_range("zarr.json", 0, 1)
    assert Storage(write(tmp_path / "x.zip")).get("zarr.json") == b"{}"


@pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compression(tmp_path, compression):
    storage = Storage(write(tmp_path / "x.zip", compression=compression))
    with pytest.raises(FormatError, match=r"zarr.json is compressed by method 1[24]; pack the store anew"):
        storage.get("zarr.json")


def test_encrypted(tmp_path):
    data = bytearray(write(tmp_path / "x.zip", {"zarr.json": b"{}"}).read_bytes())
    data[data.index(b"PK\1\2") + 8] |= 1
    (tmp_path / "x.zip").write_bytes(data)
    with pytest.raises(FormatError, match=r"zarr.json is encrypted; pack the store anew"):
        Storage(tmp_path / "x.zip").get("zarr.json")


@pytest.mark.parametrize("compression", METHODS)
def test_every_bit_that_flips_is_an_error_or_of_no_effect(tmp_path, compression):
    files = {"zarr.json": b"a text" * 10, "magnitude/c/0": RNG.bytes(50)}
    whole = write(tmp_path / "x.zip", files, compression).read_bytes()
    path = tmp_path / "y.zip"
    for position in range(len(whole)):
        data = bytearray(whole)
        data[position] ^= 1 << position % 8
        path.write_bytes(data)
        try:
            found = {key: Storage(path).get(key) for key in files}
        except (DamagedError, FormatError):
            continue
        assert all(found[key] in (None, files[key]) for key in files), position


@pytest.mark.parametrize("compression", METHODS)
def test_every_cut_is_an_error(tmp_path, compression):
    whole = write(tmp_path / "x.zip", {"zarr.json": b"a text" * 10}, compression).read_bytes()
    path = tmp_path / "y.zip"
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(FormatError, match="is no .zip file, or is cut short"):
            Storage(path).get("zarr.json")


@pytest.mark.slow
def test_random_ends_are_errors(tmp_path):
    """Whatever an end and a table of contents say, nothing but errors with a name comes of it."""
    whole = write(tmp_path / "x.zip", {"zarr.json": b"a text" * 10, "a": b"b"}, zipfile.ZIP_DEFLATED).read_bytes()
    path, rng = tmp_path / "y.zip", np.random.default_rng(1)
    for _ in range(500):
        data = bytearray(whole)
        begin = data.index(b"PK\1\2")
        for position in rng.integers(begin, len(data), 4):
            data[position] = rng.integers(256)
        path.write_bytes(data)
        try:
            storage = Storage(path)
            for key in storage.list():
                storage.get(key)
                storage.get_ranges([(key, 0, 100), (key, -5, 5), (key, 2**40, 5)])
        except (DamagedError, FormatError):
            pass


def test_devices_and_fifos_are_no_zip_files(tmp_path):
    if not hasattr(os, "mkfifo"):
        pytest.skip("no FIFOs")
    os.mkfifo(tmp_path / "x.zip")
    with pytest.raises(DamagedError, match=r"x\.zip: it is a FIFO"):
        Storage(tmp_path / "x.zip").get("zarr.json")


def test_names_that_lead_out_are_not_there(tmp_path):
    storage = Storage(write(tmp_path / "x.zip", {"zarr.json": b"{}", "../out": b"x", "/abs": b"x", "a//b": b"x"}))
    assert storage.list() == ["zarr.json"]
    with pytest.raises(FormatError, match="can't be the key"):
        storage.get("../out")


def test_what_zipfile_reads_is_what_is_read(tmp_path):
    """Against the standard library, for many sizes."""
    rng = np.random.default_rng(2)
    files = {f"c/{n}": rng.bytes(n) + bytes(n) for n in (0, 1, 2, 3, 100, 5000, 70_000)}
    made = io.BytesIO()
    for compression in METHODS:
        with zipfile.ZipFile(made, "a", compression) as file:
            for key, data in files.items():
                file.writestr(f"{compression}/{key}", data)
    (tmp_path / "x.zip").write_bytes(made.getvalue())
    storage = Storage(tmp_path / "x.zip")
    with zipfile.ZipFile(made) as file:
        assert {key: storage.get(key) for key in storage.list()} == {key: file.read(key) for key in file.namelist()}
