"""Exports that are interrupted, and go on: in the end, every file is as if nothing had happened."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

import norbert_store
from norbert_store._check.verify import verify
from norbert_store._export.parallel import process_pool
from norbert_store._export.run import export_musdb
from norbert_store._export.tracks import export_tracks
from norbert_store._sources.source import Source
from norbert_store._sources.track import SourceTrack
from norbert_store._storage.folder import LocalKeys
from norbert_store.errors import (
    NorbertStoreError,
    SourceError,
    StoreExistsError,
    StoreInUseError,
    StoreNotFoundError,
)
from tests.files import contents, files_below

RATE = 8000
TARGETS = ("mixture", "vocals")
LENGTHS = (4000, 500, 9000, 1000, 2600, 7000, 300)
OPTIONS: dict[str, Any] = {
    "transform": norbert_store.TF(rate=RATE, n_fft=256),
    "bandwidth": 3500,
    "chunk_frames": 16,
    "shard_chunks": 2,
}
PLACES = {"the first": [0], "one in the middle": [3], "the last": [6], "several": [0, 2, 3, 6]}


class StopError(Exception):
    """An error that comes from outside."""


def noise(seed, samples):
    return np.random.default_rng(seed).uniform(-0.5, 0.5, (samples, 2)).astype(np.float32)


def write_track(root, name, seed, samples, split="train"):
    folder = root / name
    folder.mkdir(parents=True)
    for i, target in enumerate(TARGETS):
        soundfile.write(folder / f"{target}.wav", noise((seed, i), samples), RATE, subtype="FLOAT")
    return SourceTrack(
        name, split, Source(folder, {target: folder / f"{target}.wav" for target in TARGETS}), {"seed": seed}
    )


@pytest.fixture(autouse=True)
def no_waiting_for_disks(monkeypatch):
    """Processes die here, not machines: what was written is there, synced or not; syncing takes most of the time."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("resume")


@pytest.fixture(scope="module")
def good(root):
    """Tracks of up to three shards; one has no vocals."""
    tracks = [write_track(root / "audio", f"track {i}", i, samples) for i, samples in enumerate(LENGTHS)]
    tracks[4] = SourceTrack(
        "track 4",
        "test",
        Source(tracks[4].source.path, {"mixture": tracks[4].source.files["mixture"]}),
        tracks[4].labels,
    )
    return tracks


@pytest.fixture(scope="module")
def broken(root):
    """Tracks by how they are broken: in the header, or by a value at the end of the audio."""
    header = write_track(root / "audio", "header", 100, 3000)
    header.source.files["mixture"].write_bytes(b"no audio at all")
    values = write_track(root / "audio", "values", 101, 9000)
    audio = noise(101, 9000)
    audio[-1] = np.nan
    soundfile.write(values.source.files["vocals"], audio, RATE, subtype="FLOAT")
    return {"header": header, "values": values}


@pytest.fixture(scope="module")
def executors():
    """What does the work, by a name."""
    with process_pool(2) as processes, ThreadPoolExecutor(3) as threads:
        yield {"this process": None, "threads": threads, "processes": processes}


@pytest.fixture
def path(root, request):
    """A place beside all others, so that sources lie the same way from everywhere."""
    made = root / f"{abs(hash(request.node.name))}.zarr"
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture(scope="module")
def whole(root):
    """Files of an export that was never interrupted."""
    done = {}

    def files_of_whole(tracks, **options):
        key = (tuple(track.name for track in tracks), tuple(options.items()))
        if key not in done:
            place = root / f"whole {len(done)}.zarr"
            export_tracks(tracks, place, targets=TARGETS, **OPTIONS, **options)
            assert verify(place)
            done[key] = contents(place)
        return done[key]

    return files_of_whole


def stop_after(count, error):
    def tell(progress):
        if progress.done >= count:
            raise error

    return tell


def assert_beginning(path, tracks, files):
    """The store is whole, and holds some first tracks as they will stay."""
    db = norbert_store.open(path)
    names = [track.name for track in tracks]
    assert db.names == names[: len(db)]
    assert verify(path)
    last = max([0, *(-(-(track.start + track.frames) // 32) for track in db)])
    shards = {key: data for key, data in files.items() if key.startswith("magnitude/c") and shard_of(key) < last}
    found = files_below(path)
    assert {key: found.get(key) for key in shards} == shards
    return len(db)


def shard_of(key):
    return int(key.split("/")[-2])


# ---- interrupted from within


@pytest.mark.slow
@pytest.mark.parametrize(
    ("executor", "bundle_tracks", "count", "error"),
    [
        ("this process", 1, 0, StopError),
        ("this process", 1, 1, KeyboardInterrupt),
        ("this process", 1, 6, StopError),
        ("this process", 3, 1, KeyboardInterrupt),
        ("this process", 3, 4, StopError),
        ("threads", 1, 0, StopError),
        ("threads", 1, 3, KeyboardInterrupt),
        ("threads", 3, 4, StopError),
        ("processes", 1, 3, KeyboardInterrupt),
        ("processes", 3, 3, StopError),
    ],
)
def test_interrupted_exports_end_as_if_never_interrupted(
    good, path, whole, executors, count, error, executor, bundle_tracks
):
    expected = whole(good, bundle_tracks=bundle_tracks)
    options = {"workers": executors[executor], "bundle_tracks": bundle_tracks, **OPTIONS}
    with pytest.raises(error):
        export_tracks(good, path, targets=TARGETS, progress=stop_after(count, error), **options)
    done = assert_beginning(path, good, expected)
    assert count - bundle_tracks < done < count + bundle_tracks
    summary = export_tracks(good, path, targets=TARGETS, resume=True, **options)
    assert (summary.tracks, summary.written, summary.skipped) == (7, 7 - done, [])
    assert contents(path) == expected


@pytest.mark.slow
def test_interrupted_again_and_again_with_any_workers(good, path, whole, executors):
    expected, done, order = whole(good), 0, ["threads", "this process", "processes", "this process"]
    for count, executor in enumerate(order, 1):
        with pytest.raises(StopError):
            export_tracks(
                good,
                path,
                targets=TARGETS,
                workers=executors[executor],
                resume=True,
                progress=stop_after(count, StopError),
                **OPTIONS,
            )
        before, done = done, assert_beginning(path, good, expected)
        assert before <= done <= count
    export_tracks(good, path, targets=TARGETS, resume=True, **OPTIONS)
    assert contents(path) == expected


def test_progress_goes_on_where_it_was(good, path):
    told = []
    with pytest.raises(StopError):
        export_tracks(good, path, targets=TARGETS, progress=stop_after(3, StopError), **OPTIONS)
    summary = export_tracks(good, path, targets=TARGETS, resume=True, progress=told.append, **OPTIONS)
    assert [(progress.track, progress.done, progress.tracks) for progress in told] == [
        *((f"track {i}", i, 7) for i in range(3, 7)),
        ("", 7, 7),
    ]
    # the speed is that of this time
    assert told[-1].audio_seconds == summary.written_seconds == pytest.approx(sum(LENGTHS[3:]) / RATE)
    assert summary.audio_seconds == pytest.approx(sum(LENGTHS) / RATE)


# ---- broken tracks


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "bundle_tracks", "count"), [("header", 1, 2), ("values", 3, 3)])
@pytest.mark.parametrize("where", PLACES)
def test_gaps_of_broken_tracks_stay_where_they_were(good, broken, path, whole, where, kind, bundle_tracks, count):
    tracks = list(good)
    for i, place in enumerate(PLACES[where]):
        again = broken[kind]
        tracks[place] = SourceTrack(f"{kind} {i}", again.split, again.source, again.labels)
    options = {"bundle_tracks": bundle_tracks, "skip_broken": True}
    expected = whole(tracks, **options)
    there = [track for track in tracks if not track.name.startswith(kind)]
    with pytest.raises(StopError):
        export_tracks(tracks, path, targets=TARGETS, progress=stop_after(count, StopError), **options, **OPTIONS)
    assert_beginning(path, there, expected)
    summary = export_tracks(tracks, path, targets=TARGETS, resume=True, **options, **OPTIONS)
    assert [name for name, _ in summary.skipped] == [track.name for track in tracks if track not in there]
    assert summary.tracks == len(there)
    assert contents(path) == expected


@pytest.mark.slow
def test_track_of_a_name_that_is_there_twice_is_left_out_in_the_same_way(good, path, whole):
    tracks = [*good[:3], SourceTrack("track 1", "test", good[5].source, good[5].labels), *good[3:]]
    expected = whole(tracks, skip_broken=True)
    with pytest.raises(StopError):
        export_tracks(tracks, path, targets=TARGETS, skip_broken=True, progress=stop_after(3, StopError), **OPTIONS)
    export_tracks(tracks, path, targets=TARGETS, skip_broken=True, resume=True, **OPTIONS)
    assert contents(path) == expected


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "executor"), [("header", "this process"), ("values", "this process"), ("values", "threads")]
)
def test_what_is_before_a_broken_track_stays_and_it_can_be_mended(root, good, path, whole, executors, kind, executor):
    expected = whole(good)
    file = good[3].source.files["mixture"]
    right, time_of_it = file.read_bytes(), file.stat().st_mtime_ns
    options = {"workers": executors[executor], **OPTIONS}
    try:
        if kind == "header":
            file.write_bytes(b"no audio at all")
        else:
            soundfile.write(file, np.full((1000, 2), np.nan), RATE, subtype="FLOAT")
        for resume in (False, True):
            with pytest.raises(
                NorbertStoreError, match=r"track 'track 3'.*holds the tracks before it: resume=True continues"
            ):
                export_tracks(good, path, targets=TARGETS, resume=resume, **options)
            assert assert_beginning(path, good, expected) == 3
    finally:
        file.write_bytes(right)
        os.utime(file, ns=(time_of_it, time_of_it))  # which is in the table
    export_tracks(good, path, targets=TARGETS, resume=True, **options)
    assert contents(path) == expected


@pytest.mark.slow
def test_track_that_is_mended_after_the_end_comes_behind_it(good, path):
    file = good[3].source.files["mixture"]
    right, time_of_it = file.read_bytes(), file.stat().st_mtime_ns
    try:
        file.write_bytes(b"no audio at all")
        export_tracks(good, path, targets=TARGETS, skip_broken=True, **OPTIONS)
    finally:
        file.write_bytes(right)
        os.utime(file, ns=(time_of_it, time_of_it))  # which is in the table
    summary = export_tracks(good, path, targets=TARGETS, skip_broken=True, resume=True, **OPTIONS)
    assert (summary.tracks, summary.written, summary.skipped) == (7, 1, [])
    assert norbert_store.open(path).names == [*(f"track {i}" for i in (0, 1, 2, 4, 5, 6)), "track 3"]
    assert verify(path)


@pytest.mark.slow
def test_source_that_vanishes_meanwhile(root, good, path, whole):
    expected = whole(good)
    away = good[4].source.path.with_name("away")

    def tell(progress):
        if progress.track == "track 2" and not away.exists():
            good[4].source.path.rename(away)

    try:
        with pytest.raises(SourceError, match=r"track 'track 4': there is no file .*resume=True continues"):
            export_tracks(good, path, targets=TARGETS, progress=tell, **OPTIONS)
        assert assert_beginning(path, good, expected) == 4
    finally:
        away.rename(good[4].source.path)
    export_tracks(good, path, targets=TARGETS, resume=True, **OPTIONS)
    assert contents(path) == expected


# ---- what is there already


def test_nothing_to_resume_is_a_start(good, path, whole):
    path.mkdir()
    summary = export_tracks(good, path, targets=TARGETS, resume=True, **OPTIONS)
    assert (summary.tracks, summary.written) == (7, 7)
    assert contents(path) == whole(good)


@pytest.mark.slow
@pytest.mark.parametrize("skip_broken", [False, True])
def test_finished_store_is_not_changed(good, path, whole, skip_broken):
    export_tracks(good, path, targets=TARGETS, **OPTIONS)
    summary = export_tracks(good, path, targets=TARGETS, resume=True, skip_broken=skip_broken, **OPTIONS)
    assert (summary.tracks, summary.written, summary.written_seconds, summary.speed) == (7, 0, 0, 0)
    assert contents(path) == whole(good)


def test_a_resume_with_nothing_to_do_reads_the_document_twice_and_each_column_once(good, path, monkeypatch):
    export_tracks(good, path, targets=TARGETS, **OPTIONS)
    get, read = LocalKeys.get, Counter()

    def counted(self, key, *arguments, **options):
        read[key] += 1
        return get(self, key, *arguments, **options)

    monkeypatch.setattr(LocalKeys, "get", counted)
    export_tracks(good, path, targets=TARGETS, resume=True, **OPTIONS)
    assert read["zarr.json"] == 2
    assert {key: count for key, count in read.items() if key.startswith("track/")} == dict.fromkeys(
        [
            *(f"track/{name}/c/0" for name in ("name", "split", "source", "start", "frames", "samples", "metadata")),
            *(f"track/{name}/c/0/0" for name in ("present", "scale", "source_bytes", "source_modified")),
        ],
        1,
    )


def test_new_tracks_come_behind_the_end(good, path, shards):
    export_tracks([*good[1:3], good[5]], path, targets=TARGETS, **OPTIONS)
    before = shards(path)
    summary = export_tracks(good, path, targets=TARGETS, resume=True, **OPTIONS)
    assert (summary.tracks, summary.written) == (7, 4)
    db = norbert_store.open(path)
    assert db.names == [f"track {i}" for i in (1, 2, 5, 0, 3, 4, 6)]
    assert {key: data for key, data in shards(path).items() if key in before} == before
    assert verify(path)
    # tracks that went away are kept
    assert export_tracks(good[2:], path, targets=TARGETS, resume=True, **OPTIONS).tracks == 5
    assert norbert_store.open(path).names == db.names


@pytest.mark.slow
def test_splits_one_after_the_other(root, good, path, whole):
    expected = whole(good)
    train, test = good[:4], good[4:]
    export_tracks(train, path, targets=TARGETS, **OPTIONS)
    with pytest.raises(StopError):
        export_tracks(test, path, targets=TARGETS, resume=True, progress=stop_after(1, StopError), **OPTIONS)
    assert assert_beginning(path, good, expected) == 5
    export_tracks(test, path, targets=TARGETS, resume=True, **OPTIONS)
    assert contents(path) == expected
    assert norbert_store.open(path, split="test").names == ["track 4"]


def test_splits_of_musdb_one_after_the_other(tmp_path, good):
    root, out = tmp_path / "musdb", tmp_path / "x.zarr"
    for i, track in enumerate(good[:3]):
        shutil.copytree(track.source.path, root / ("train" if i < 2 else "later/test") / f"A - {i}")
    assert export_musdb(root, out, resume=True, **OPTIONS).tracks == 2
    (root / "later/test").rename(root / "test")
    summary = export_musdb(root, out, resume=True, **OPTIONS)
    assert (summary.tracks, summary.written) == (3, 1)
    db = norbert_store.open(out)
    assert [(track.name, track.split) for track in db] == [("A - 0", "train"), ("A - 1", "train"), ("A - 2", "test")]
    assert norbert_store.open(out, split="test").names == ["A - 2"]
    assert verify(out)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"quality": 70}, "quality 80.0, found 70.0; give what it was begun with, or export to another place"),
        ({"quality": 70, "effort": 1}, "quality 80.0, found 70.0; effort [0-4], found 1; give"),
        ({"bandwidth": 3000}, "bins 113, found 97; bandwidth 3500.0, found 3000.0; give"),
        ({"transform": norbert_store.TF(rate=RATE, n_fft=512)}, ".*; n_fft 256, found 512; "),
        ({"chunk_frames": 8}, "chunk_frames 16, found 8; give"),
        ({"curve": norbert_store.LogCurve()}, "curve PowerCurve.*, found LogCurve.*; give"),
        ({"channels": ("a", "b")}, r"channels \('left', 'right'\), found \('a', 'b'\); give"),
        ({"targets": ("vocals",)}, r"targets \('mixture', 'vocals'\), found \('vocals',\); give"),
    ],
)
def test_other_options_are_refused_and_both_named(good, path, change, message):
    with pytest.raises(StopError):
        export_tracks(good, path, targets=TARGETS, progress=stop_after(2, StopError), **OPTIONS)
    before = files_below(path)
    options = {"targets": TARGETS, **OPTIONS, **change}
    with pytest.raises(ValueError, match=rf"\.zarr was begun with {message}"):
        export_tracks(good, path, resume=True, **options)
    assert files_below(path) == before


def test_without_resume_a_store_is_left_as_it_is(good, path):
    with pytest.raises(StopError):
        export_tracks(good, path, targets=TARGETS, progress=stop_after(2, StopError), **OPTIONS)
    before = files_below(path)
    with pytest.raises(StoreExistsError, match="exists already"):
        export_tracks(good, path, targets=TARGETS, **OPTIONS)
    assert files_below(path) == before


FOREIGN = (
    "my.txt",
    "track/01.wav",
    "track/disc 1/01.wav",
    "track/c/song.wav",
    "target/zarr.json.txt",
    "channel/c",
    "magnitude/c/0/0/0/0/x",
    "magnitude/readme",
    "download.mp3.partial",
    ".zgroup",
    "mixture/zarr.json",
)


@pytest.mark.parametrize("name", FOREIGN)
@pytest.mark.parametrize("beside", ["alone", "beside left-overs"])
def test_other_files_are_never_touched(good, path, name, beside):
    file = path / name
    file.parent.mkdir(parents=True)
    file.write_text("mine")
    if beside != "alone":
        (path / "frequency/c").mkdir(parents=True, exist_ok=True)
        (path / "frequency/c/0").write_text("not mine")
    before = files_below(path)
    with pytest.raises(StoreExistsError, match="isn't empty, and holds no store: found .*; give another place"):
        export_tracks(good, path, targets=TARGETS, resume=True, **OPTIONS)
    assert files_below(path) == before


def test_other_zarr_data_is_never_touched(good, path):
    path.mkdir()
    (path / "zarr.json").write_text('{"zarr_format": 3, "node_type": "group", "attributes": {}}')
    (path / "frequency").mkdir()
    (path / "frequency/zarr.json").write_text("mine")
    before = files_below(path)
    with pytest.raises(NorbertStoreError, match="is no norbert_store"):
        export_tracks(good, path, targets=TARGETS, resume=True, **OPTIONS)
    assert files_below(path) == before


@pytest.mark.slow
def test_leftovers_are_swept(good, path, whole):
    with pytest.raises(StopError):
        export_tracks(good, path, targets=TARGETS, progress=stop_after(3, StopError), **OPTIONS)
    committed = files_below(path)
    shard = committed["magnitude/c/0/0/0/0"]
    # the fifth track has no vocals: what a killed process left there would be taken for them
    for key in ("magnitude/c/1/0/6/0", "magnitude/c/1/0/7/0", "magnitude/c/0/0/99/0", "magnitude/c/1/0/99/0"):
        (path / key).parent.mkdir(parents=True, exist_ok=True)
        (path / key).write_bytes(shard)
    for key in ("zarr.json.0123abcd.partial", "track/name/c/0.0123abcd.partial"):
        (path / key).write_bytes(b"begun")
    (path / "writer.lock").touch()
    export_tracks(good, path, targets=TARGETS, resume=True, **OPTIONS)
    assert contents(path) == whole(good)


@pytest.mark.slow
def test_second_export_is_refused_and_the_first_is_named(good, path, whole):
    told = []

    def tell(progress):
        if progress.done == 2:
            for resume in (False, True):
                with pytest.raises(StoreInUseError, match=rf"is being written by .*, process {os.getpid()}, since"):
                    export_tracks(good, path, targets=TARGETS, resume=resume, **OPTIONS)
            told.append(progress)

    export_tracks(good, path, targets=TARGETS, progress=tell, **OPTIONS)
    assert len(told) == 1
    assert contents(path) == whole(good)


# ---- killed


def killed_at(step, function):
    """Call a function in a forked child that dies before a file takes its place for the n-th time from 0."""
    process = os.fork()
    if process == 0:
        replace, left = os.replace, step

        def die_in_turn(source, target):
            nonlocal left
            if left == 0:
                os._exit(9)
            left -= 1
            replace(source, target)

        try:
            os.replace = die_in_turn  # type: ignore[assignment]
            function()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 9


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork:DeprecationWarning")
def test_death_before_any_write(good, path, whole, monkeypatch):
    """The child commits after every bundle, so that it dies within shards, rows and documents."""
    monkeypatch.setattr("norbert_store._write.commit.COMMIT_SECONDS", 0.0)
    tracks = good[3:5]
    expected = whole(tracks)
    step, opened = 0, set()
    while killed_at(step, lambda: export_tracks(tracks, path, targets=TARGETS, **OPTIONS)):
        try:
            opened.add(assert_beginning(path, tracks, expected))
        except StoreNotFoundError:
            opened.add(None)
        export_tracks(tracks, path, targets=TARGETS, resume=True, **OPTIONS)
        assert contents(path) == expected
        shutil.rmtree(path)
        step += 7
    assert opened == {None, 0, 1, 2}


# Exports with two workers, commits each track at once, and tells how many there are and who works.
EXPORT = """
import multiprocessing
import sys
import norbert_store
import norbert_store._write.commit
from norbert_store._export.parallel import process_pool

def tell(progress):
    print(progress.done, *(child.pid for child in multiprocessing.active_children()), flush=True)

if __name__ == "__main__":
    norbert_store._write.commit.COMMIT_SECONDS = 0.0
    transform = norbert_store.TF(rate=8000, n_fft=256)
    options = {"bandwidth": 3500, "chunk_frames": 16, "shard_chunks": 2, "progress": tell}
    with process_pool(2) as executor:
        norbert_store.export_musdb(sys.argv[1], sys.argv[2], workers=executor, transform=transform, **options)
"""


def is_running(process):
    """Whether a process is there, and isn't one that has ended and waits to be asked for its status."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{process}/stat")
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_killed_process_and_its_workers_leave_what_was_committed(root, tmp_path, good, path):
    source, script = root / "musdb", tmp_path / "export.py"
    script.write_text(EXPORT)
    for i in range(30):
        shutil.copytree(good[i % 7].source.path, source / "train" / f"{i:02d}")
    export_musdb(source, root / "not killed.zarr", **OPTIONS)
    command = [sys.executable, script, source, path]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        lines = [process.stdout.readline() for _ in range(5)]
        process.kill()
    done, *workers = map(int, lines[-1].split())
    assert (done, len(workers)) == (4, 2)
    deadline = time.monotonic() + 30
    while any(map(is_running, workers)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(map(is_running, workers))
    committed = norbert_store.open(path).names
    assert done <= len(committed) < 30
    assert verify(path)
    assert export_musdb(source, path, resume=True, **OPTIONS).written == 30 - len(committed)
    assert contents(path) == contents(root / "not killed.zarr")
