"""Stores on object storage, on the web and in .zip files: real servers, counted requests, and faults on purpose.

`kind` is how a store on S3 is named: by its URL, or by a ready store of zarr over s3fs or over obstore.
"""

from __future__ import annotations

import gc
import multiprocessing
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from itertools import count
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import obstore.store
import pytest
from zarr.storage import FsspecStore, ObjectStore

import norbert_store
from norbert_store._check.verify import verify
from norbert_store._command.demo_music import write_musdb
from norbert_store._sources.musdb import TARGETS
from norbert_store._storage.storage import Storage
from norbert_store.errors import NorbertStoreError, StorageError, StoreExistsError, StoreInUseError, StoreNotFoundError
from tests.servers import (
    BUCKET,
    S3,
    Proxy,
    Request,
    always,
    at_random,
    http_server,
    in_turn,
    proxy,
    unused_endpoint,
)

RATE = 8000
OPTIONS: dict[str, Any] = {
    "transform": norbert_store.TF(rate=RATE, n_fft=256),
    "bandwidth": 3500,
    "chunk_frames": 16,
    "shard_chunks": 8,
}
KINDS = ["url", "s3fs", "obstore"]
BACKENDS = ["url", "obstore"]  # a URL is read by s3fs


def locate(kind: str, path: str, front: Proxy) -> Any:
    """Name a place in the bucket."""
    if kind == "url":
        return f"s3://{BUCKET}/{path}"
    if kind == "s3fs":
        return FsspecStore.from_url(f"s3://{BUCKET}/{path}", storage_options=S3(front.url).s3fs_options())
    return ObjectStore(obstore.store.S3Store(BUCKET, prefix=path, **S3(front.url).obstore_options()))


def impatient(kind: str, path: str, front: Proxy, attempts: int = 1, seconds: float = 10) -> Any:
    """Name a place in the bucket, as a store that tries so often, and waits so long for an answer."""
    if kind == "s3fs":
        client = {"retries": {"total_max_attempts": attempts, "mode": "standard"}, "read_timeout": seconds}
        options = S3(front.url).s3fs_options(config_kwargs=client)
        store = FsspecStore.from_url(f"s3://{BUCKET}/{path}", storage_options=options)
        store.fs.retries = attempts
        return store
    options = S3(front.url).obstore_options(
        client_options={"allow_http": True, "timeout": timedelta(seconds=seconds)},
        retry_config={"max_retries": attempts - 1, "retry_timeout": timedelta(seconds=30)},
    )
    return ObjectStore(obstore.store.S3Store(BUCKET, prefix=path, **options))


@pytest.fixture(params=BACKENDS)
def kind(request) -> str:
    return request.param


_numbers = count()


@pytest.fixture
def new_path() -> str:
    """A place in the bucket where nothing is."""
    return f"new/{next(_numbers)}.zarr"


@pytest.fixture
def new_place(kind, new_path, front) -> Any:
    return locate(kind, new_path, front)


@pytest.fixture(scope="module")
def musdb(tmp_path_factory):
    root = tmp_path_factory.mktemp("remote") / "musdb"
    write_musdb(root, tracks=2, seconds=2.2, rate=RATE)
    return root


@pytest.fixture(scope="module")
def folder(musdb) -> Path:
    """The data set, exported into a folder."""
    path = musdb.parent / "local.zarr"
    norbert_store.export_musdb(musdb, path, **OPTIONS)
    return path


@pytest.fixture(scope="module")
def local(folder) -> norbert_store.Store:
    return norbert_store.open(folder)


@pytest.fixture(scope="module")
def path(front, musdb) -> str:
    """The data set, exported to S3, to be read only."""
    place = f"{next(_numbers)}/exported.zarr"  # a new one each time that this is asked for anew
    norbert_store.export_musdb(musdb, locate("url", place, front), **OPTIONS)
    return place


@pytest.fixture(params=KINDS)
def place(request, path, front) -> Any:
    return locate(request.param, path, front)


def shards(location: Any) -> dict[str, bytes | None]:
    storage = Storage(location)
    return {key: storage.get(key) for key in storage.list("magnitude/c")}


def assert_same_values(found: norbert_store.Store, expected: norbert_store.Store) -> None:
    for track in found:
        assert np.array_equal(track.levels.values, expected[track.name].levels.values)


# ---- writing and reading


@pytest.mark.slow
def test_export_is_that_to_a_folder(place, folder, local):
    assert shards(place) == shards(folder)
    assert norbert_store.open(place).names == local.names
    assert "writer.lock" not in Storage(place).list()
    assert verify(place)


def test_slices_are_those_of_a_folder(place, local):
    found, expected = norbert_store.open(place)[1].magnitude, local[1].magnitude
    assert np.array_equal(found.frequency, expected.frequency)
    for excerpt in (np.s_[0, 1, 3:100], np.s_[:, 0, 50], np.s_[1:3, :, ::-40]):
        assert np.array_equal(found[excerpt].values, expected[excerpt].values)


@pytest.mark.slow
def test_track_by_track(new_place, music, options):
    audio = {"one": music(3000, 1), "two": music(5000, 2)}
    with norbert_store.create(new_place, **options()) as writer:
        for name, stems in audio.items():
            writer.add(name, stems, split="train", labels={"length": len(stems["mixture"])})
    db = norbert_store.open(new_place)
    assert db.names == ["one", "two"]
    assert db.tracks.length.values.tolist() == [3000, 5000]
    assert verify(new_place)
    with pytest.raises(StoreExistsError, match="exists already"):
        norbert_store.create(new_place, **options())
    assert verify(new_place)


def test_one_writer_at_a_time(new_place, musdb):
    with norbert_store.create(new_place, targets=TARGETS, **OPTIONS):
        with pytest.raises((StoreInUseError, StoreExistsError)):
            norbert_store.create(new_place, targets=TARGETS, **OPTIONS)
        with pytest.raises(StoreInUseError, match="is being written by"):
            norbert_store.export_musdb(musdb, new_place, resume=True, **OPTIONS)
    assert verify(new_place)


def test_nothing_there(kind, front):
    with pytest.raises(StoreNotFoundError, match="there is no store at"):
        norbert_store.open(locate(kind, "nowhere.zarr", front))


# ---- on the web, and in a .zip


@pytest.fixture(scope="module")
def web(folder) -> Iterator[Proxy]:
    """The proxy in front of a web server that has the local store."""
    with http_server(folder) as url, proxy(url) as made:
        yield made


def test_web(web, local):
    db = norbert_store.open(web.url)
    assert db.names == local.names
    assert_same_values(db, local)
    assert verify(web.url)


@pytest.mark.slow
def test_web_is_not_written(web, options):
    with pytest.raises(NorbertStoreError, match="new.zarr"):
        norbert_store.create(f"{web.url}/new.zarr", **options())


def test_web_where_nothing_is(web):
    with pytest.raises(StoreNotFoundError, match=r"there is no store at http://.*nowhere\.zarr"):
        norbert_store.open(f"{web.url}/nowhere.zarr")


@pytest.mark.slow
def test_web_with_faults(web, local):
    with web.breaking(at_random(0.2, seed=1)) as faults:
        assert_same_values(norbert_store.open(web.url), local)
    assert faults


def test_web_server_that_knows_no_ranges(folder, local):
    expected = local.excerpts(0.5, seed=1).read(range(8))
    with http_server(folder, ranges=False) as url:
        with pytest.warns(UserWarning, match="sends whole files where parts of them are asked for") as warned:
            found = norbert_store.open(url).excerpts(0.5, seed=1).read(range(8))
        assert len(warned) == 1
        with pytest.warns(UserWarning, match="sends whole files"):
            assert_same_values(norbert_store.open(url), local)
        with pytest.warns(UserWarning, match="sends whole files"):
            assert verify(url)
    assert np.array_equal(found["magnitude"], expected["magnitude"])


def test_zip(folder, local, tmp_path):
    path = shutil.make_archive(tmp_path / "store", "zip", folder)
    db = norbert_store.open(path)
    assert db.names == local.names
    assert_same_values(db, local)
    assert verify(path)


def test_zip_on_object_storage(folder, local, tmp_path, front):
    path = Path(shutil.make_archive(tmp_path / "store", "zip", folder.parent, folder.name))
    Storage(f"s3://{BUCKET}/zips", read_only=False).set("a store.zip", path.read_bytes())
    found = norbert_store.open(f"s3://{BUCKET}/zips/a store.zip")
    assert found.names == local.names
    assert_same_values(found, local)


# ---- requests


@pytest.fixture(params=["web", *KINDS])
def counted(request) -> tuple[Any, Proxy]:
    """A store to read, and the proxy that counts its requests."""
    if request.param == "web":
        web = request.getfixturevalue("web")
        return web.url, web
    front = request.getfixturevalue("front")
    return locate(request.param, request.getfixturevalue("path"), front), front


def test_requests_are_few(counted, local):
    location, front = counted
    with front.counting() as requests:
        db = norbert_store.open(location)
    assert len(requests) <= 2
    with front.counting() as requests:
        found = db[1].magnitude[0, :, :20].values
    assert len(requests) <= 4
    assert np.array_equal(found, local[1].magnitude[0, :, :20].values)
    with front.counting() as requests:
        found = db[1].magnitude[0, :, 20:100].values  # chunks 1 to 6 of 8, two channels: one run
    assert len(requests) == 1
    assert np.array_equal(found, local[1].magnitude[0, :, 20:100].values)
    with front.counting() as requests:
        db[1].magnitude[0, :, [0, 120]].load()  # two runs, or one with what is between
    assert len(requests) <= 2


def test_requests_of_many_shards_run_at_the_same_time(counted, local):
    location, front = counted
    magnitude = norbert_store.open(location)[0].magnitude
    magnitude[:, :, :8].load()  # all indexes are known now
    together = threading.Barrier(len(local.targets), timeout=30)
    with front.breaking(lambda request: None if together.wait() >= 0 else "500"):
        found = magnitude[:, :, 20:40].values
    assert np.array_equal(found, local[0].magnitude[:, :, 20:40].values)


# ---- other processes


def in_a_fork(function: Callable[[], Any]) -> Any:
    """Call a function in a forked child, which inherits what is open."""
    context = multiprocessing.get_context("fork")
    receiving, sending = context.Pipe(duplex=False)
    process = context.Process(target=lambda: sending.send(function()))
    process.start()
    sending.close()
    try:
        assert receiving.poll(30), "the child hangs"
        return receiving.recv()
    finally:
        process.kill()
        process.join()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork:DeprecationWarning")
def test_forked_processes_read_what_was_opened_before(counted, local):
    location, front = counted
    db = norbert_store.open(location)
    expected = local[0].levels.values
    db[0].levels.load()
    with front.counting() as before:
        assert np.array_equal(db[0].levels.values, expected)

    def read() -> tuple[np.ndarray, np.ndarray]:
        known, unknown = db[0].levels[2].values, db[1].levels[0].values  # whose index is known, and not
        gc.collect()  # what is inherited must not be closed: it shares its connections with the parent
        return known, unknown

    known, unknown = in_a_fork(read)
    assert np.array_equal(known, expected[2])
    assert np.array_equal(unknown, local[1].levels[0].values)
    with front.counting() as after:
        assert np.array_equal(db[0].levels.values, expected)
    assert len(after) == len(before)  # nothing had to be tried again


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork:DeprecationWarning")
def test_forked_processes_open_what_their_parent_had(counted, local):
    location, _ = counted
    assert norbert_store.open(location).names == local.names
    assert in_a_fork(lambda: norbert_store.open(location).names) == local.names
    assert norbert_store.open(location).names == local.names


@pytest.mark.slow
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_other_processes_read_what_is_sent_to_them(method, path, front, local):
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {method}")
    stores = [norbert_store.open(locate(kind, path, front)) for kind in ("s3fs", "obstore")]
    expected = local[0].levels[0].values
    with multiprocessing.get_context(method).Pool(1) as pool:
        for db in stores:
            assert np.array_equal(db[0].levels[0].values, expected)
            assert np.array_equal(pool.apply_async(attrgetter("values"), (db[0].levels[0],)).get(60), expected)


# ---- faults


@pytest.mark.slow
def test_export_and_read_with_failing_requests(new_place, front, musdb, folder, local):
    with front.breaking(at_random(0.05, seed=3)) as faults:
        norbert_store.export_musdb(musdb, new_place, **OPTIONS)
        assert_same_values(norbert_store.open(new_place), local)
    assert faults
    assert shards(new_place) == shards(folder)
    assert verify(new_place)


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["500", "503", "refuse", "cut", "stall"])
@pytest.mark.parametrize("ready", ["s3fs", "obstore"])
def test_one_fault_while_reading_is_of_no_effect(ready, fault, front, path, local):
    place = impatient(ready, path, front, attempts=2, seconds=1 if fault == "stall" else 10)
    db = norbert_store.open(place)
    with front.breaking(in_turn(fault)) as faults:
        assert np.array_equal(db[0].levels[0].values, local[0].levels[0].values)
    assert faults == [fault]


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["500", "cut", "stall"])
@pytest.mark.parametrize("ready", ["s3fs", "obstore"])
def test_lasting_fault_while_reading_is_an_error(ready, fault, front, path, local):
    db = norbert_store.open(impatient(ready, path, front, seconds=1 if fault == "stall" else 10))
    with front.breaking(always(fault)), pytest.raises(StorageError, match=r"exported\.zarr.* can't be read"):
        db[0].levels[0].load()
    assert np.array_equal(db[0].levels[0].values, local[0].levels[0].values)


@pytest.mark.slow
@pytest.mark.parametrize(("ready", "requests"), [("s3fs", 40), ("obstore", 8)])
def test_server_that_fails_in_the_middle_of_an_export(ready, requests, new_path, front, musdb, folder, local):
    place = impatient(ready, new_path, front)
    rule = in_turn(*[None] * requests, *["500"] * 1000)
    with front.breaking(rule) as faults, pytest.raises(StorageError, match="can't be"):
        norbert_store.export_musdb(musdb, place, **OPTIONS)
    assert faults
    with suppress(StoreNotFoundError):
        assert_same_values(norbert_store.open(place), local)
        assert verify(place)
    norbert_store.export_musdb(musdb, place, resume=True, **OPTIONS)
    assert shards(place) == shards(folder)
    assert verify(place)


def test_lock_whose_answer_is_lost_is_ours_all_the_same(new_place, front, options):
    def rule(request: Request) -> str | None:
        return "cut" if request.method == "PUT" and request.path.endswith("writer.lock") and not faults else None

    with front.breaking(rule) as faults, norbert_store.create(new_place, **options()):
        assert faults == ["cut"]


@pytest.mark.slow
def test_server_that_is_gone_is_one_line():
    command = [
        sys.executable,
        "-c",
        "from norbert_store._command.cli import main; main()",
        "info",
        f"s3://{BUCKET}/gone.zarr",
    ]
    environment = S3(unused_endpoint()).environment
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "gone.zarr" in done.stderr
