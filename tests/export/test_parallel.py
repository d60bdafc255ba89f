"""Any executor gives the same bytes, and what a worker that died was at is done again.

Calls in other processes are expressions, which `eval` can be sent anywhere.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from zarr.storage import MemoryStore

import norbert_store
from norbert_store._check.verify import verify
from norbert_store._export.parallel import in_order, process_pool
from norbert_store._export.tracks import export_tracks
from norbert_store._sources.source import Source
from norbert_store._sources.track import SourceTrack
from norbert_store.errors import MagnitudeError, WorkerError
from tests.files import contents

RATE = 8000
TARGETS = ("mixture", "vocals")
OPTIONS: dict[str, Any] = {
    "transform": norbert_store.TF(rate=RATE, n_fft=256),
    "bandwidth": 3500,
    "chunk_frames": 16,
    "shard_chunks": 2,
}


def noise(seed, samples):
    return np.random.default_rng(seed).uniform(-0.5, 0.5, (samples, 2)).astype(np.float32)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("parallel")


@pytest.fixture(scope="module")
def tracks(root):
    found = []
    for i in range(12):
        files = {target: root / "audio" / f"{i}" / f"{target}.wav" for target in TARGETS}
        for j, file in enumerate(files.values()):
            file.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(file, noise((i, j), 1000 * (1 + 5 * i % 7)), RATE, subtype="FLOAT")
        found.append(SourceTrack(f"track {i}", "train", Source(root / "audio" / f"{i}", files), {"number": i}))
    return found


@pytest.fixture(scope="module")
def whole(root, tracks):
    """Files of what one process has written, by the number of tracks in a bundle."""
    found = {}
    for bundle_tracks in (1, 3):
        path = root / f"whole {bundle_tracks}.zarr"
        export_tracks(tracks, path, targets=TARGETS, bundle_tracks=bundle_tracks, **OPTIONS)
        found[bundle_tracks] = contents(path)
    return found


@pytest.fixture(scope="module")
def pool():
    with process_pool(2) as made:
        yield made


@pytest.fixture(scope="module")
def cluster():
    """A cluster of Dask in this process, and a client of it."""
    distributed = pytest.importorskip("distributed")
    with distributed.Client(processes=False, n_workers=1, threads_per_worker=2, dashboard_address=":0") as client:
        yield client


@pytest.fixture(params=["threads", "processes", "dask"])
def executor(request, pool):
    if request.param == "dask":
        yield request.getfixturevalue("cluster").get_executor()
    elif request.param == "processes":
        yield pool
    else:
        with ThreadPoolExecutor(3) as threads:
            yield threads


class Steps:
    """Calls that leave traces in a folder: when they begin, and when they end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def call(self, number, seconds=0.0, last="None"):
        begun, ended = (f"open({str(self.folder / f'{number}.{word}')!r}, 'w').close()" for word in ("begun", "ended"))
        return f"[{begun}, __import__('time').sleep({seconds}), {last}, {ended}, {number}][-1]"

    def numbers(self, word):
        return {int(path.stem) for path in self.folder.glob(f"*.{word}")}

    @property
    def running(self):
        return self.numbers("begun") - self.numbers("ended")


@pytest.fixture
def steps(tmp_path):
    return Steps(tmp_path)


def once(marker, expression):
    """Write an expression that has an effect the first time only, in whatever process."""
    path = str(marker)
    return f"__import__('os').path.exists({path!r}) or (open({path!r}, 'w').close(), {expression})"


DIE = "__import__('os')._exit(3)"
KILL_ITSELF = "__import__('os').kill(__import__('os').getpid(), 9)"


# ---- calls


def test_results_come_in_order(executor, steps):
    """The first ones take longest."""
    calls = [steps.call(i, seconds=0.03 * (5 - i)) for i in range(6)]
    assert list(in_order(executor, eval, calls)) == list(range(6))
    assert list(in_order(executor, eval, [])) == []


@pytest.mark.slow
def test_results_come_as_soon_as_they_are_there(executor, steps):
    with closing(in_order(executor, eval, [steps.call(0), *(steps.call(i, 0.2) for i in range(1, 9))])) as results:
        assert next(results) == 0
        assert len(steps.numbers("ended")) < 9


@pytest.mark.slow
def test_error_of_a_call_comes_in_its_turn(executor, steps):
    calls = [steps.call(0), steps.call(1, 0.2), "1 // 0", *(steps.call(i, 0.05) for i in range(3, 40))]
    results = in_order(executor, eval, calls)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert steps.running == set()
    assert_nothing_begins(steps)
    assert len(steps.numbers("begun")) < 39


@pytest.mark.slow
def test_nothing_runs_any_more_once_it_is_closed(executor, steps):
    with closing(in_order(executor, eval, [steps.call(i, 0.1) for i in range(50)])) as results:
        assert next(results) == 0
    assert steps.running == set()
    assert_nothing_begins(steps)
    assert len(steps.numbers("begun")) < 50


def assert_nothing_begins(steps):
    begun = steps.numbers("begun")
    time.sleep(0.2)
    assert steps.numbers("begun") == begun


def test_calls_are_made_again_when_they_are_asked_for_again(executor, steps):
    """Also where an executor remembers what calls gave, as long as somebody holds it."""
    calls = [steps.call(i) for i in range(3)]
    with closing(in_order(executor, eval, calls)) as first:
        next(first)
        for path in steps.folder.iterdir():
            path.unlink()
        assert list(in_order(executor, eval, calls)) == [0, 1, 2]
        assert steps.numbers("ended") == {0, 1, 2}


# ---- workers by their number


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2, np.int64(2)])
def test_a_number_of_workers_gives_the_same_bytes(tracks, whole, tmp_path, root, workers):
    path = root / f"{tmp_path.name}.zarr"
    before = set(multiprocessing.active_children())
    summary = export_tracks(tracks, path, targets=TARGETS, workers=workers, **OPTIONS)
    assert summary.written == len(tracks)
    assert contents(path) == whole[1]
    assert set(multiprocessing.active_children()) <= before


@pytest.mark.parametrize("workers", [0, -1, 1.5, "2", True])
def test_a_number_of_workers_that_is_none(tracks, tmp_path, workers):
    with pytest.raises(ValueError, match="workers must be a whole number of at least 1, found"):
        export_tracks(tracks, tmp_path / "x.zarr", targets=TARGETS, workers=workers, **OPTIONS)
    assert not (tmp_path / "x.zarr").exists()


# ---- workers that die


@pytest.mark.parametrize("death", [DIE, KILL_ITSELF], ids=["exit", "kill"])
def test_what_a_worker_that_died_was_at_is_done_again(steps, tmp_path, death):
    if sys.platform == "win32" and death == KILL_ITSELF:
        pytest.skip("signals")
    calls = [steps.call(i, last=once(tmp_path / "died", death) if i == 3 else "None") for i in range(8)]
    with process_pool(2) as pool:
        assert list(in_order(pool, eval, calls)) == list(range(8))
    assert (tmp_path / "died").exists()
    assert steps.running == set()


def test_what_was_done_before_a_death_is_not_done_again(steps, tmp_path):
    count = "open({!r}, 'a').write('x')"
    calls = [steps.call(i, last=count.format(str(tmp_path / f"{i}.count"))) for i in range(6)]
    calls[3] = steps.call(3, last=once(tmp_path / "died", DIE))
    with process_pool(1) as pool:
        assert list(in_order(pool, eval, calls)) == list(range(6))
    assert {path.name: path.read_text() for path in tmp_path.glob("*.count")} == {
        f"{i}.count": "x" for i in (0, 1, 2, 4, 5)
    }


def test_executor_that_is_broken_already_is_replaced(steps):
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), initializer=os._exit, initargs=(1,)) as pool:
        assert list(in_order(pool, eval, [steps.call(i) for i in range(3)])) == [0, 1, 2]


def test_workers_that_die_again_and_again_are_an_error(steps):
    before = multiprocessing.active_children()
    with process_pool(1) as pool:
        results = in_order(pool, eval, [steps.call(0), DIE, steps.call(2)])
        assert next(results) == 0
        with pytest.raises(
            WorkerError, match="workers died 3 times in a row, at task 2 of 3 .*memory enough"
        ) as caught:
            next(results)
    assert isinstance(caught.value, OSError)
    assert set(multiprocessing.active_children()) == set(before)


@pytest.mark.parametrize("seconds", [0.0, 0.002, 0.005])
def test_pool_ends_also_if_a_worker_dies_at_that_moment(seconds):
    """The one that dies may hold the lock that another one waits for."""

    def work():
        others = set(multiprocessing.active_children())
        with process_pool(2) as pool:
            assert list(pool.map(eval, ["__import__('time').sleep(0.05)"] * 4)) == [None] * 4
            (set(multiprocessing.active_children()) - others).pop().kill()
            time.sleep(seconds)

    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    worker.join(30)
    assert not worker.is_alive()


@pytest.mark.slow
def test_pool_waits_for_its_calls(steps):
    with process_pool(2) as pool:
        for i in range(5):
            pool.submit(eval, steps.call(i, 0.05))
    assert steps.numbers("ended") == set(range(5))
    with process_pool(1) as pool:
        for i in range(5, 30):
            pool.submit(eval, steps.call(i, 0.05))
        pool.shutdown(cancel_futures=True)
        assert steps.running == set()
    assert len(steps.numbers("begun")) < 30


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_workers_leave_interrupts_to_their_parent(pool, steps):
    """As a terminal sends them to all processes in front of it."""
    results = in_order(pool, eval, [steps.call(i, 0.05) for i in range(10)])
    assert next(results) == 0
    for process in multiprocessing.active_children():
        os.kill(process.pid, signal.SIGINT)
    assert list(results) == list(range(1, 10))


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_workers_that_are_only_starting_do_so_too():
    others = set(multiprocessing.active_children())
    with process_pool(2) as pool:
        future = pool.submit(eval, "1")
        (process,) = set(multiprocessing.active_children()) - others
        for _ in range(20):
            os.kill(process.pid, signal.SIGINT)
            time.sleep(0.005)
        assert future.result() == 1
        # and they are not blocked in this process
        assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == set()


# ---- exports


@pytest.mark.slow
@pytest.mark.parametrize("bundle_tracks", [1, 3])
def test_export_is_that_of_one_process(root, tracks, whole, executor, bundle_tracks, request):
    path, told = root / f"{request.node.name}.zarr", []
    summary = export_tracks(
        tracks,
        path,
        targets=TARGETS,
        workers=executor,
        bundle_tracks=bundle_tracks,
        progress=told.append,
        **OPTIONS,
    )
    assert contents(path) == whole[bundle_tracks]
    assert verify(path)
    assert [progress.done for progress in told] == [*range(0, 13, bundle_tracks), 12]
    assert (summary.tracks, summary.written) == (12, 12)
    assert summary.written_seconds == summary.audio_seconds == pytest.approx(told[-1].audio_seconds)


@pytest.mark.slow
def test_tracks_that_are_left_out_are_the_same_ones(root, tracks, executor, request):
    loud = root / "audio" / "loud.wav"
    soundfile.write(loud, np.full((3000, 2), np.nan), RATE, subtype="FLOAT")
    listed = [
        *tracks[:2],
        SourceTrack("loud", "", Source(loud, {"mixture": loud}), {"number": -1}),
        SourceTrack("gone", "", Source(loud, {"mixture": root / "gone.wav"}), {"number": -1}),
        SourceTrack("track 1", "", Source(loud, tracks[2].source.files), {"number": -1}),
        *tracks[2:5],
    ]
    paths = [root / f"one {request.node.name}.zarr", root / f"{request.node.name}.zarr"]
    summaries = [
        export_tracks(listed, path, targets=TARGETS, workers=worker, skip_broken=True, bundle_tracks=2, **OPTIONS)
        for path, worker in zip(paths, (None, executor), strict=True)
    ]
    assert contents(paths[0]) == contents(paths[1])
    assert summaries[0].skipped == summaries[1].skipped
    assert [name for name, _ in summaries[1].skipped] == ["loud", "gone", "track 1"]


@pytest.mark.slow
def test_error_in_a_bundle_keeps_what_is_before_it(root, tracks, whole, executor, request):
    loud = root / "audio" / "loud.wav"
    soundfile.write(loud, np.full((3000, 2), np.nan), RATE, subtype="FLOAT")
    listed = [*tracks[:4], SourceTrack("loud", "", Source(loud, {"mixture": loud}), {"number": -1}), *tracks[4:]]
    path = root / f"{request.node.name}.zarr"
    with pytest.raises(
        MagnitudeError, match="track 'loud': target 'mixture': .* NaN or infinite.*resume=True continues there"
    ):
        export_tracks(listed, path, targets=TARGETS, workers=executor, **OPTIONS)
    assert norbert_store.open(path).names == [f"track {i}" for i in range(4)]
    assert verify(path)
    export_tracks(tracks, path, targets=TARGETS, workers=executor, resume=True, **OPTIONS)
    assert contents(path) == whole[1]


@pytest.mark.slow
def test_workers_that_are_killed_meanwhile_leave_no_trace(root, tracks, whole):
    path, killed, others = root / "killed.zarr", [], set(multiprocessing.active_children())

    def kill_one(progress):
        if progress.done in (2, 7) and len(killed) < 2:
            process = next(process for process in multiprocessing.active_children() if process not in others)
            process.kill()
            killed.append(process)

    with process_pool(2) as pool:
        export_tracks(tracks, path, targets=TARGETS, workers=pool, progress=kill_one, **OPTIONS)
    assert len(killed) == 2
    assert contents(path) == whole[1]


@pytest.mark.slow
def test_what_a_worker_that_died_had_begun_to_write_is_swept(root, tracks, whole, pool):
    path = root / "begun.zarr"

    def leave_one(progress):
        if progress.done == 3:
            (path / "magnitude/c/0/0/99").mkdir()
            (path / "magnitude/c/0/0/99/0.0123abcd.partial").write_bytes(b"begun")

    export_tracks(tracks, path, targets=TARGETS, workers=pool, progress=leave_one, **OPTIONS)
    assert contents(path) == whole[1]


@pytest.mark.slow
# Python 3.11's pool may stumble, in a thread of its own, over a process that is started while another one dies
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_workers_that_are_always_killed_are_an_error_and_the_store_is_whole(root, tracks, whole):
    path, ended, others = root / "always killed.zarr", threading.Event(), set(multiprocessing.active_children())

    def kill_all():
        while not ended.wait(0.01):
            for process in set(multiprocessing.active_children()) - others:
                process.kill()

    killer = threading.Thread(target=kill_all)
    with process_pool(2) as pool:
        killer.start()
        try:
            with pytest.raises(WorkerError, match="workers died 3 times in a row"):
                export_tracks(tracks, path, targets=TARGETS, workers=pool, **OPTIONS)
        finally:
            ended.set()
            killer.join()
    assert verify(path)
    assert not (path / "writer.lock").exists()
    export_tracks(tracks, path, targets=TARGETS, resume=True, **OPTIONS)
    assert contents(path) == whole[1]


@pytest.mark.slow
@pytest.mark.parametrize("place", [MemoryStore, lambda: "memory://place/x.zarr"], ids=["store", "url"])
def test_memory_of_this_process_is_no_place_for_others_to_write(tracks, place, pool):
    location = place()
    with pytest.raises(ValueError, match="other processes can't write into the memory of this one"):
        export_tracks(tracks, location, targets=TARGETS, workers=pool, **OPTIONS)
    with ThreadPoolExecutor(2) as threads:
        export_tracks(tracks, location, targets=TARGETS, workers=threads, **OPTIONS)
    assert verify(location)


# ---- Dask


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_workers_of_dask_that_die_again_and_again_are_an_error(steps, capfd):
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0") as cluster,
        distributed.Client(cluster) as client,
    ):
        executor = client.get_executor()
        assert list(in_order(executor, eval, [steps.call(0)])) == [0]
        with pytest.raises(WorkerError, match=r"task \d of 2 was given up: .*workers died"):
            list(in_order(executor, eval, [steps.call(1), DIE]))
        client.wait_for_workers(1, timeout=60)  # a cluster that closes while it starts a worker again fails
    capfd.readouterr()  # what Dask logs


@pytest.mark.slow
def test_client_of_dask_that_is_closed_is_an_error(steps):
    distributed = pytest.importorskip("distributed")
    with distributed.Client(processes=False, n_workers=1, threads_per_worker=1, dashboard_address=":0") as client:
        results = in_order(client.get_executor(), eval, [steps.call(0), steps.call(1, 1.0), steps.call(2, 1.0)])
        assert next(results) == 0
        client.close()
        with pytest.raises(WorkerError, match="task 2 of 3 was given up.*scheduler"):
            next(results)


def test_processes_of_a_pool_leave_processors_to_each_other(monkeypatch):
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    with process_pool(1) as pool:
        assert pool.submit(os.getenv, "OPENBLAS_NUM_THREADS").result() == "1"
    assert "OPENBLAS_NUM_THREADS" not in os.environ
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "3")
    with process_pool(1) as pool:
        assert pool.submit(os.getenv, "OPENBLAS_NUM_THREADS").result() == "3"
