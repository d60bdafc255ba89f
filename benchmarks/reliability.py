"""Break stores on purpose, and count what is noticed.

    python benchmarks/reliability.py [--short] [--only kills flips truncations states s3 readers] [--seed 0]

The long form takes about an hour, the short form, which CI runs, a minute. Fuzzing and hostile JPEGs have a command of
their own, ``benchmarks/fuzz.py``; ``s3`` needs the extra "test". Exit status 1 if anything went wrong.

kills
    ``kill -9`` at random moments of an export by one and by two workers (of all processes, or of the first one alone).
    What is there then must open, verify, and hold the committed tracks whole; resumed, it must have the same shards and
    rows, byte for byte, as an export that was never interrupted.
flips
    One byte of any file, another value. Noticed by `verify` or by reading everything, or without any effect on values
    and labels, as this library and ``xarray.open_zarr`` read them.
truncations
    Files cut off or deleted, shards swapped.
states
    Files of two valid states mixed at random: an older or a newer commit, a copy that went on in another way, a
    repaired store, other exports of equal settings. Readers that open it, and readers that had it open, must get one of
    the two states or an error; needs the extra "test".
s3
    Export, verify and read with one in twenty requests failing: right bytes, or an error of this library.
readers
    Eight threads in each of two processes read random excerpts while tracks are appended.
"""

from __future__ import annotations

import argparse
import hashlib
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import xarray

import norbert_store
from norbert_store import append, verify
from norbert_store._command.demo_music import write_musdb
from norbert_store.errors import NorbertStoreError

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

# commits every bundle, so that a kill finds something to lose
EXPORT = """
import norbert_store._write.commit
from norbert_store._command.cli import main
if __name__ == "__main__":
    norbert_store._write.commit.COMMIT_SECONDS = 0
    main()
"""
THREADS = 8
TARGETS = ("mixture", "vocals")

Outcome = tuple[str, str]
"""What became of one trial ("resumed", "noticed", ...; "WRONG" if it failed), and its description."""


# ---- kills


def kills(trials: int, seed: int, folder: Path) -> Iterator[Outcome]:
    """Kill exports, look at what is left, and resume."""
    rng = random.Random(seed)
    write_musdb(folder / "music", tracks=12, seconds=4.0)
    reference = folder / "reference.zarr"
    seconds = {}
    for workers in (1, 2):
        shutil.rmtree(reference, ignore_errors=True)
        started = time.monotonic()
        export(folder / "music", reference, workers).wait()
        seconds[workers] = time.monotonic() - started
    expected = shards(reference), rows(reference)
    for trial in range(trials):
        workers = 1 + trial % 2
        store = folder / "killed.zarr"
        shutil.rmtree(store, ignore_errors=True)
        after, everybody = rng.uniform(0.3, 1.0) * seconds[workers], rng.random() < 0.5
        process = export(folder / "music", store, workers)
        time.sleep(after)
        (os.killpg if everybody else os.kill)(process.pid, signal.SIGKILL)
        process.wait()
        what = f"{workers} workers, {'all' if everybody else 'the first'} killed after {after:.2f} s"
        try:
            left = check_left_over(store, reference)
            if export(folder / "music", store, workers).wait():
                raise AssertionError("resuming failed")
            if (shards(store), rows(store)) != expected:
                raise AssertionError("the resumed store differs")
        except (AssertionError, NorbertStoreError) as error:
            yield "WRONG", f"{what}: {error}"
            continue
        yield f"resumed after {left}", what


def export(music: Path, store: Path, workers: int) -> subprocess.Popen[bytes]:
    """Start or resume an export, in a session of its own."""
    command = ["export", "musdb", str(music), str(store), "--resume", "--workers", str(workers)]
    return subprocess.Popen(
        [sys.executable, "-c", EXPORT, *command],
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def check_left_over(store: Path, reference: Path) -> str:
    """See that what a kill has left opens, verifies and is right as far as it goes."""
    if not (store / "zarr.json").exists():
        return "nothing"
    faults = verify(store).faults
    assert not faults, f"{len(faults)} faults, {faults[0]}"
    found, whole = rows(store), rows(reference)
    assert found == whole[: len(found)], "committed rows differ"
    end = norbert_store.open(store).to_xarray().magnitude.sizes["frame"]
    layout = norbert_store.open(store)._selection.snapshot.layout
    last = -(-end // layout.shard_frames)
    committed = {key: data for key, data in shards(reference).items() if int(key.split("/")[-2]) < last}
    there = shards(store)
    assert all(there.get(key) == data for key, data in committed.items()), "committed shards differ"
    return "some tracks" if len(found) < len(whole) else "all tracks"


def shards(store: Path) -> dict[str, str]:
    """Digest of every shard."""
    return {
        path.relative_to(store).as_posix(): hashlib.md5(path.read_bytes()).hexdigest()
        for path in (store / "magnitude" / "c").rglob("0")
        if path.is_file()
    }


def rows(store: Path) -> list[dict[str, Any]]:
    """All rows of the track table."""
    return norbert_store.open(store).tracks.to_dataframe().reset_index().to_dict("records")


# ---- damage


def small_store(folder: Path) -> Path:
    """Two targets, two channels, four tracks in shards of their own, one stem absent."""
    rng = np.random.default_rng(0)
    path = folder / "whole.zarr"
    options = {"rate": 8000, "transform": norbert_store.TF(rate=8000, n_fft=128), "chunk_frames": 16, "shard_chunks": 4}
    with norbert_store.create(path, targets=TARGETS, title="small", **options) as writer:
        for i in range(4):
            stems = {target: rng.uniform(-0.5, 0.5, (4000 + 900 * i, 2)) for target in TARGETS[: 1 + (i != 2)]}
            labels = {"genre": f"genre {i % 2}", "tempo": 90.5 + i}
            writer.add(f"track {i}", stems, split="train" if i < 3 else "test", labels=labels, metadata={"n": i})
    return path


def everything(store: Path) -> list[Any]:
    """All values and labels of a store, as this library reads them."""
    db = norbert_store.open(store)
    table = db.tracks
    facts = [
        db.targets,
        db.channels,
        db.rate,
        db.look_up_table.tobytes(),
        db.frequencies.tobytes(),
        repr(db.transform.config),
    ]
    facts += [(name, table[name].values.tolist()) for name in sorted(table.variables)]
    return [*map(repr, facts), *(track.magnitude.values.tobytes() for track in db)]


def everything_by_zarr(store: Path) -> list[Any]:
    """The same for programs that don't know this library."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        whole = xarray.open_zarr(store)
        tables = [xarray.open_zarr(store, group=group) for group in ("track", "label", "chunk")]
    return [
        (name, variable.dims, repr(variable.values.tolist()))
        for data in (whole, *tables)
        for name, variable in sorted(data.variables.items())
    ]


def noticed(store: Path, expected: list[Any], by_zarr: list[Any]) -> str:
    """Tell how damage shows: "noticed by ...", "without effect" or "WRONG"."""
    try:
        if not verify(store):
            by = "verify"
            with suppress(NorbertStoreError):
                # what verify names must still not be read as something else
                if everything(store) != expected:
                    return "WRONG"
            return f"noticed by {by}"
        if everything(store) != expected:
            return "WRONG"
    except NorbertStoreError:
        return "noticed on opening or reading"
    return "without effect" if everything_by_zarr(store) == by_zarr else "WRONG"


def flips(trials: int, seed: int, folder: Path) -> Iterator[Outcome]:
    """Change one byte."""
    rng = random.Random(seed)
    store = small_store(folder)
    expected, by_zarr = everything(store), everything_by_zarr(store)
    for _ in range(trials):
        path = random_file(store, rng)
        data = bytearray(path.read_bytes())
        # the last bytes of a shard are its index
        at = rng.randrange(max(0, len(data) - 200) if rng.random() < 0.3 else 0, len(data))
        was, data[at] = data[at], data[at] ^ rng.randrange(1, 256)
        with replaced(path, bytes(data)):
            outcome = noticed(store, expected, by_zarr)
        yield outcome, f"{path.relative_to(store)}, byte {at} of {len(data)}: {was} -> {data[at]}"


def truncations(trials: int, seed: int, folder: Path) -> Iterator[Outcome]:
    """Cut files off, delete them, swap shards."""
    rng = random.Random(seed)
    store = small_store(folder)
    expected, by_zarr = everything(store), everything_by_zarr(store)
    all_shards = sorted(path for path in (store / "magnitude" / "c").rglob("0") if path.is_file())
    for trial in range(trials):
        kind = ("truncated", "deleted", "swapped", "copied over")[trial % 4]
        path = random_file(store, rng) if trial % 4 < 2 else rng.choice(all_shards)
        data = path.read_bytes()
        if kind in ("swapped", "copied over"):
            other = rng.choice([one for one in all_shards if one != path])
            with replaced(path, other.read_bytes()), replaced(other, data if kind == "swapped" else other.read_bytes()):
                outcome = noticed(store, expected, by_zarr)
            what = f"{path.relative_to(store)} and {other.relative_to(store)} {kind}"
        else:
            cut = rng.randrange(len(data))
            with replaced(path, data[:cut] if kind == "truncated" else None):
                outcome = noticed(store, expected, by_zarr)
            what = f"{path.relative_to(store)} {kind}" + (f" to {cut} of {len(data)}" if kind == "truncated" else "")
        yield "WRONG" if outcome == "without effect" else outcome, what


def random_file(store: Path, rng: random.Random) -> Path:
    """One of the shards half of the time, else any other file."""
    files = sorted(path for path in store.rglob("*") if path.is_file())
    of_shards = [path for path in files if (store / "magnitude" / "c") in path.parents]
    return rng.choice(of_shards if rng.random() < 0.5 else [path for path in files if path not in of_shards])


class replaced:  # noqa: N801  # reads like what it does
    """Put other bytes into a file, or none at all, for a while."""

    def __init__(self, path: Path, data: bytes | None) -> None:
        self._path, self._before, self._data = path, path.read_bytes(), data

    def __enter__(self) -> None:
        if self._data is None:
            self._path.unlink()
        else:
            self._path.write_bytes(self._data)

    def __exit__(self, *error: object) -> None:
        self._path.write_bytes(self._before)


# ---- mixtures of states


def states(trials: int, seed: int, folder: Path) -> Iterator[Outcome]:
    """Put random files of another state into a store."""
    from test_states import MAKERS, OTHERS, Matrix, State

    rng = random.Random(seed)
    made: dict[str, State] = {}

    def state(name: str) -> State:
        if name not in made:
            made[name] = MAKERS[name](state, folder)
        return made[name]

    matrix = Matrix(folder / "mixed.zarr", state)
    a = state("A")
    for _ in range(trials):
        other = rng.choice(OTHERS)
        b, share = state(other), rng.random()
        taken = {key for key in a.keys() | b.keys() if rng.random() < share}
        mixed = {key: data for key, data in a.items() if key not in taken}
        mixed |= {key: data for key, data in b.items() if key in taken}
        before = len(matrix.silent) + len(matrix.untold)
        matrix.try_all(other, iter([("some files", mixed)]))
        wrong = len(matrix.silent) + len(matrix.untold) > before
        what = "; ".join([*matrix.silent[-3:], *matrix.untold[-1:]]) if wrong else ", ".join(sorted(taken))
        yield "WRONG" if wrong else "of one state or an error", f"{other}: {what}"


# ---- object storage


def s3(trials: int, seed: int, folder: Path) -> Iterator[Outcome]:
    """Export to a server that fails now and then, verify and read."""
    import zarr
    from servers import at_random, proxy, s3_server

    write_musdb(folder / "music", tracks=4, seconds=1.0)
    norbert_store.export_musdb(folder / "music", folder / "reference.zarr")
    expected = everything(folder / "reference.zarr")
    with s3_server() as server, proxy(server.endpoint) as way:
        behind = server.behind(way)
        os.environ.update(behind.environment)
        for trial in range(trials):
            backend = ("s3fs by URL", "obstore")[trial % 2]
            url = f"s3://{server.bucket}/trial-{trial}"
            if trial % 2:
                from obstore.store import S3Store

                store: Any = zarr.storage.ObjectStore(
                    S3Store(server.bucket, prefix=f"trial-{trial}", **behind.obstore_options())
                )
            else:
                store = url
            try:
                with way.breaking(at_random(0.05, seed + trial, ("500", "503", "cut", "refuse"))):
                    summary = norbert_store.export_musdb(folder / "music", store)
                    faults = verify(store).faults
                    found = everything(store)
            except NorbertStoreError as error:
                yield f"a clear error, {backend}", f"{backend}: {error}"
                continue
            right = summary.tracks == 4 and not faults and same_but_sources(found, expected)
            yield (f"right bytes, {backend}" if right else "WRONG"), f"{backend}: {faults[:1]}"


def same_but_sources(found: list[Any], expected: list[Any]) -> bool:
    """Compare all but the places of the audio, which are given relative to a folder's own place."""
    pairs = zip(found, expected, strict=True)
    return all(one == other or str(one).startswith("('_source'") for one, other in pairs)


# ---- readers beside a writer


def readers(trials: int, seed: int, folder: Path) -> Iterator[Outcome]:
    """Append for this number of seconds, and read random excerpts meanwhile."""
    rng = np.random.default_rng(seed)
    store = folder / "growing.zarr"
    audio = [rng.uniform(-0.5, 0.5, (int(rng.integers(2000, 30000)), 2)) for _ in range(8)]
    options = {"rate": 8000, "transform": norbert_store.TF(rate=8000, n_fft=128), "chunk_frames": 16, "shard_chunks": 4}
    with norbert_store.create(store, targets=TARGETS, **options) as writer:
        for i, samples in enumerate(audio):
            writer.add(f"{i}", {"mixture": samples, "vocals": 0.5 * samples}, labels={"kind": str(i)})
    expected = [track.levels.values for track in norbert_store.open(store)]
    context = multiprocessing.get_context("spawn")
    stop, reads, wrong = context.Event(), context.Value("q", 0), context.Queue()
    processes = [
        context.Process(target=read_for_ever, args=(store, expected, seed + i, stop, reads, wrong)) for i in range(2)
    ]
    for process in processes:
        process.start()
    started, tracks = time.monotonic(), len(audio)
    while time.monotonic() - started < trials:
        with append(store, bundle_tracks=int(rng.integers(1, 4))) as writer:
            for _ in range(int(rng.integers(1, 12))):
                samples = audio[tracks % len(audio)]
                stems = {"mixture": samples, "vocals": 0.5 * samples}
                writer.add(f"{tracks}", stems, labels={"kind": str(tracks % len(audio))})
                tracks += 1
                if rng.random() < 0.3:
                    writer.commit()
    stop.set()
    for process in processes:
        process.join()
    while not wrong.empty():
        yield "WRONG", wrong.get()
    if any(process.exitcode for process in processes):
        yield "WRONG", "a reader's process died"
    yield f"{reads.value:,} reads right while {tracks:,} tracks were written", ""


def read_for_ever(store: Path, expected: list[Any], seed: int, stop: Any, reads: Any, wrong: Any) -> None:
    """Read in many threads, each with a store that it opens again now and then."""

    def read(thread: int) -> None:
        rng = np.random.default_rng((seed, thread))
        count = 0
        while not stop.is_set():
            db = norbert_store.open(store)
            for _ in range(int(rng.integers(1, 60))):
                i = int(rng.integers(len(db)))
                track = db[f"{i}"] if rng.random() < 0.05 else db[i]
                values = expected[i % len(expected)]
                begin = int(rng.integers(values.shape[2]))
                end = int(rng.integers(begin, values.shape[2])) + 1
                try:
                    right = np.array_equal(track.levels[..., begin:end, :].values, values[:, :, begin:end])
                    right &= track.name == str(i) and track.labels["kind"] == str(i % len(expected))
                except Exception as error:
                    wrong.put(f"track {i}: {type(error).__name__}: {error}")
                    continue
                if not right:
                    wrong.put(f"track {i}, frames {begin} to {end}")
                count += 1
        with reads.get_lock():
            reads.value += count

    threads = [threading.Thread(target=read, args=(i,)) for i in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


# ---- all of them

TESTS: dict[str, tuple[Callable[[int, int, Path], Iterator[Outcome]], int, int]] = {
    "kills": (kills, 100, 4),
    "flips": (flips, 2000, 150),
    "truncations": (truncations, 200, 40),
    "states": (states, 2000, 40),
    "s3": (s3, 20, 2),
    "readers": (readers, 600, 5),
}
"""By name: the test, and how many trials (of readers: seconds) the long and the short form take."""


def main() -> None:
    """Run the tests and print what came of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="few trials of each")
    parser.add_argument("--only", nargs="+", choices=list(TESTS), default=list(TESTS))
    parser.add_argument("--trials", type=int, help="how many, in place of what the form says")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    failed = False
    for name in arguments.only:
        test, long, short = TESTS[name]
        trials = arguments.trials or (short if arguments.short else long)
        counts: Counter[str] = Counter()
        started = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            for outcome, what in test(trials, arguments.seed, Path(folder)):
                counts[outcome] += 1
                if outcome == "WRONG":
                    failed = True
                    print(f"{name}: WRONG: {what}", flush=True)
        told = ", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items()))
        print(f"{name:<12} {time.monotonic() - started:6.0f} s  {told}", flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
