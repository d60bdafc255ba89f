"""The digest of an export is the same from every executor, in every place, and after every interruption."""

from __future__ import annotations

import multiprocessing
import shutil
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest
import soundfile
from zarr.storage import MemoryStore

import norbert_store
from tests.servers import BUCKET

RATE = 8000


@pytest.fixture
def tracks(tmp_path, music):
    """A folder of audio, and what is exported of it."""
    for i in range(5):
        (tmp_path / "train" / f"{i} - x").mkdir(parents=True)
        for target, audio in music(3000 + 500 * i, i).items():
            soundfile.write(tmp_path / "train" / f"{i} - x" / f"{target}.wav", audio, RATE)
    return tmp_path


def export_musdb(root, out, **options):
    """Export with shards of a few chunks, so that there are many."""
    transform = norbert_store.TF(rate=RATE, n_fft=256)
    return norbert_store.export_musdb(
        root, out, transform=transform, effort=0, chunk_frames=16, shard_chunks=2, **options
    )


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["one process", "two processes", "four threads", "an executor of processes", "dask"])
@pytest.mark.parametrize("place", ["folder", "memory", "s3", "zip"])
def test_it_is_the_same_from_every_executor_in_every_place(tracks, kind, place, request):
    expected = export_musdb(tracks, tracks / "expected.zarr").open()
    with ExitStack() as stack:
        if kind == "dask":
            distributed = pytest.importorskip("distributed")
            client = stack.enter_context(
                distributed.Client(processes=False, n_workers=1, threads_per_worker=2, dashboard_address=":0")
            )
            workers = client.get_executor()
        elif kind == "four threads":
            workers = stack.enter_context(ThreadPoolExecutor(4))
        elif kind == "an executor of processes":
            workers = stack.enter_context(ProcessPoolExecutor(2, multiprocessing.get_context("spawn")))
        else:
            workers = {"one process": None, "two processes": 2}[kind]
        if place == "memory" and kind not in ("one process", "four threads"):
            pytest.skip("other processes don't see the memory of this one")
        if place == "s3":
            request.getfixturevalue("front")
            out: Any = f"s3://{BUCKET}/digest/{kind.replace(' ', '-')}.zarr"
        else:
            out = MemoryStore() if place == "memory" else tracks / "x.zarr"
        found = export_musdb(tracks, out, workers=workers).open()
    if place == "zip":
        found = norbert_store.open(shutil.make_archive(str(tracks / "x"), "zip", out))
    assert found.digest() == expected.digest()
    assert found.digest(strong=True) == expected.digest(strong=True)


# Exports with two workers, commits each track at once, and tells how many there are.
EXPORT = """
import sys
import norbert_store
import norbert_store._write.commit

if __name__ == "__main__":
    norbert_store._write.commit.COMMIT_SECONDS = 0.0
    norbert_store.export_musdb(
        sys.argv[1], sys.argv[2], transform=norbert_store.TF(rate=8000, n_fft=256), effort=0, chunk_frames=16,
        shard_chunks=2, resume=True, workers=int(sys.argv[3]),
        progress=lambda progress: print(progress.done, flush=True),
    )
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize("workers", [1, 2])
def test_it_is_the_same_after_kills(tracks, workers):
    expected = export_musdb(tracks, tracks / "expected.zarr").open().digest(strong=True)
    (tracks / "export.py").write_text(EXPORT)
    command = [sys.executable, tracks / "export.py", tracks, tracks / "x.zarr", str(workers)]
    for count in (1, 2, 4):
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if int(line) >= count:
                    process.kill()
                    break
    found = export_musdb(tracks, tracks / "x.zarr", resume=True).open()
    assert found.digest(strong=True) == expected
