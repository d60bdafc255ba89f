"""Export of a list of tracks: order, progress, sizes, broken tracks, and how many files there are in the end."""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import zarr

import norbert_store
from norbert_store._check.verify import verify
from norbert_store._export.plan import bundle_size, shard_size
from norbert_store._export.tracks import export_tracks
from norbert_store._format.layout import SHARD_CHUNKS
from norbert_store._sources.files import AudioInfo
from norbert_store._sources.source import Source
from norbert_store._sources.track import SourceTrack
from norbert_store.errors import AudioError, NorbertStoreError, SourceError, StorageError, StoreExistsError

RATE = 8000
TARGETS = ("mixture", "vocals")
TRANSFORM = norbert_store.TF(rate=RATE, n_fft=256)

# what is wrong with a track, and what the error is to say
BROKEN = {
    "cut off": r"cut off/vocals\.wav is cut off",
    "empty": r"empty/mixture\.wav is empty",
    "garbage": r"garbage/mixture\.wav can't be read as audio",
    "gone": r"there is no file .*gone/vocals\.wav",
    "lengths": r"'lengths': its stems differ in length \(samples: mixture 4000, vocals 3000\)",
    "rates": r"rates/vocals\.wav has 16000 samples per second; the store has 8000",
    "mono": r"'mono': target 'vocals' has 1 channels; the store has 2",
    "NaN": r"'NaN': target 'vocals': \d+ of \d+ values are NaN or infinite",
    "corrupt.stem.mp4": r"corrupt\.stem\.mp4 can't be read as audio",
    "empty.stem.mp4": r"empty\.stem\.mp4 is empty",
}


def noise(*seed, samples=4000, channels=2):
    return np.random.default_rng(seed).uniform(-0.5, 0.5, (samples, channels))


def write_track(root, name, targets=TARGETS, **labels):
    folder = root / name
    folder.mkdir(parents=True)
    files = {target: folder / f"{target}.wav" for target in targets}
    for i, file in enumerate(files.values()):
        soundfile.write(file, noise(*name.encode(), i), RATE, subtype="FLOAT")
    return SourceTrack(name, "train", Source(folder, files), labels)


def write_broken_track(root, kind):
    if kind.endswith(".mp4"):
        path = root / kind
        path.write_bytes(b"" if kind.startswith("empty") else np.random.default_rng(0).bytes(1000))
        return SourceTrack(kind, "train", Source(path))
    track = write_track(root, kind)
    mixture, vocals = track.source.files.values()
    if kind == "cut off":
        vocals.write_bytes(vocals.read_bytes()[:5000])
    elif kind == "empty":
        mixture.write_bytes(b"")
    elif kind == "garbage":
        mixture.write_bytes(b"no audio at all")
    elif kind == "gone":
        vocals.unlink()
    else:
        audio = {
            "lengths": noise(0, samples=3000),
            "mono": noise(0, channels=1),
            "NaN": np.full((4000, 2), np.nan),
            "rates": noise(0),
        }[kind]
        soundfile.write(vocals, audio, 2 * RATE if kind == "rates" else RATE, subtype="FLOAT")
    return track


def write_good_tracks(root, count=2):
    return [write_track(root, f"good {i}") for i in range(count)]


def assert_same_tracks(found, expected):
    """Both stores hold the same magnitudes, wherever in the packed axis they lie."""
    assert found.names == expected.names
    for track, other in zip(found, expected, strict=True):
        assert track.present == other.present
        assert np.array_equal(track.levels.values, other.levels.values)


# ---- what is written


def test_each_header_is_read_once(tmp_path, monkeypatch):
    tracks = [write_track(tmp_path / "audio", name) for name in ("a", "b", "c")]
    info, read = soundfile.info, []

    def counted(file, *arguments, **options):
        read.append(Path(file))
        return info(file, *arguments, **options)

    monkeypatch.setattr("soundfile.info", counted)
    export_tracks(tracks, tmp_path / "x.zarr", targets=TARGETS, transform=TRANSFORM)
    assert sorted(read) == sorted((tmp_path / "audio").rglob("*.wav"))
    # the table tells how long tracks are that are there
    read.clear()
    tracks.append(write_track(tmp_path / "audio", "d"))
    export_tracks(tracks, tmp_path / "x.zarr", targets=TARGETS, transform=TRANSFORM, resume=True)
    assert sorted(read) == sorted((tmp_path / "audio" / "d").rglob("*.wav"))


def test_tracks_are_written_in_order_with_their_split_labels_and_source(tmp_path):
    tracks = [write_track(tmp_path / "audio", name, genre=name[0]) for name in ("b", "a", "c")]
    summary = export_tracks(tracks, tmp_path / "x.zarr", targets=TARGETS, transform=TRANSFORM)
    db = norbert_store.open(tmp_path / "x.zarr")
    assert db.names == ["b", "a", "c"]
    assert [track.split for track in db] == ["train"] * 3
    assert db.tracks.genre.values.tolist() == ["b", "a", "c"]
    assert [track.source for track in db] == ["audio/b", "audio/a", "audio/c"]
    assert verify(tmp_path / "x.zarr")
    assert (summary.location, summary.tracks, summary.channels) == (str(tmp_path / "x.zarr"), 3, 2)


def test_rate_and_channels_are_those_of_the_first_track(tmp_path):
    path = tmp_path / "x.wav"
    soundfile.write(path, noise(0, channels=3), 11025)
    export_tracks([SourceTrack("x", "", Source(path, {"mixture": path}))], tmp_path / "x.zarr", targets=["mixture"])
    db = norbert_store.open(tmp_path / "x.zarr")
    assert db.rate == 11025
    assert db.channels == ("0", "1", "2")


def test_a_transform_can_be_made_for_the_rate_of_the_first_track(tmp_path):
    summary = export_tracks(
        write_good_tracks(tmp_path),
        tmp_path / "x.zarr",
        targets=TARGETS,
        transform=lambda rate: norbert_store.TF(rate=rate, n_fft=512),  # type: ignore[arg-type]
    )
    assert summary.open().transform.stft.config == norbert_store.TF(rate=RATE, n_fft=512).config


def test_stems_without_a_file_are_absent(tmp_path):
    export_tracks([write_track(tmp_path, "x", ["vocals"])], tmp_path / "x.zarr", targets=TARGETS, transform=TRANSFORM)
    track = norbert_store.open(tmp_path / "x.zarr")[0]
    assert track.present == {"mixture": False, "vocals": True}
    assert np.isnan(track.magnitude.sel(target="mixture").values).all()


def test_options_go_to_the_store(tmp_path):
    tracks = write_good_tracks(tmp_path)
    export_tracks(
        tracks, tmp_path / "x.zarr", targets=TARGETS, bandwidth=1000, title="Noise", quality=50, bundle_tracks=2
    )
    db = norbert_store.open(tmp_path / "x.zarr")
    assert db.frequencies[-1] <= 1000
    assert db.attributes["title"] == "Noise"
    assert db.attributes["encoder"]["quality"] == 50


def test_an_existing_store_is_refused_and_left_as_it_is(tmp_path):
    tracks = write_good_tracks(tmp_path)
    export_tracks(tracks, tmp_path / "x.zarr", targets=TARGETS, transform=TRANSFORM)
    before = {path: path.read_bytes() for path in (tmp_path / "x.zarr").rglob("*") if path.is_file()}
    with pytest.raises(StoreExistsError, match=r"x\.zarr exists already"):
        export_tracks(tracks, tmp_path / "x.zarr", targets=TARGETS, transform=TRANSFORM, skip_broken=True)
    assert {path: path.read_bytes() for path in (tmp_path / "x.zarr").rglob("*") if path.is_file()} == before


# ---- progress and sizes


@pytest.mark.parametrize("broken", [[], ["garbage"]])
def test_progress_is_told_before_each_track_and_at_the_end(tmp_path, broken):
    tracks = write_good_tracks(tmp_path, 3)
    tracks[1:2] = [write_broken_track(tmp_path, kind) for kind in broken] or tracks[1:2]
    told = []
    summary = export_tracks(
        tracks, tmp_path / "x.zarr", targets=TARGETS, skip_broken=True, progress=told.append, transform=TRANSFORM
    )
    # a track whose header can't be read is through before any other
    good = [track for track in tracks if track.name not in broken]
    assert [(progress.track, progress.done) for progress in told] == [
        *((track.name, i + len(broken)) for i, track in enumerate(good)),
        ("", 3),
    ]
    assert {progress.tracks for progress in told} == {3}
    seconds = [progress.audio_seconds for progress in told]
    assert seconds == [i / 2 for i in range(len(good) + 1)]
    elapsed = [progress.elapsed_seconds for progress in told]
    assert elapsed == sorted(elapsed)
    assert told[-1].speed > 0
    assert summary.elapsed_seconds >= elapsed[-1]
    assert summary.audio_seconds == seconds[-1]


@pytest.mark.parametrize("kind", ["folder", "memory"])
def test_sizes_of_the_summary(tmp_path, kind):
    tracks = [write_track(tmp_path / "audio", "whole"), write_track(tmp_path / "audio", "part", ["vocals"])]
    store: Any = zarr.storage.MemoryStore() if kind == "memory" else tmp_path / "x.zarr"
    summary = export_tracks(tracks, store, targets=TARGETS, transform=TRANSFORM)
    arrays = [
        track.magnitude.sel(target=target).values
        for track in norbert_store.open(store)
        for target, there in track.present.items()
        if there
    ]
    assert len(arrays) == 3
    assert summary.npy_bytes == sum(array.astype(np.float32).nbytes for array in arrays)
    if kind == "memory":
        assert summary.store_bytes == sum(len(value.to_bytes()) for value in store._store_dict.values())
    else:
        assert summary.store_bytes == sum(path.stat().st_size for path in store.rglob("*") if path.is_file())
    assert summary.audio_bytes == sum(path.stat().st_size for path in (tmp_path / "audio").rglob("*.wav"))
    assert summary.audio_seconds == 1.0
    assert summary.stem_seconds == 1.5
    assert summary.speed == pytest.approx(1.0 / summary.elapsed_seconds)


def test_a_track_is_found_from_a_store_that_is_no_folder(tmp_path):
    store = zarr.storage.MemoryStore()
    (track,) = write_good_tracks(tmp_path / "50 % – é", 1)
    export_tracks([track], store, targets=TARGETS, transform=TRANSFORM)
    with pytest.raises(SourceError, match="isn't read unasked, as the store is in no folder; .* as audio_root"):
        norbert_store.open(store)[0].to_audio("vocals")
    (found,) = norbert_store.open(store, audio_root=tmp_path)
    assert found.source == track.source.path.as_uri()
    assert found.to_audio("vocals").shape == (4000, 2)


# ---- broken tracks


def test_skipped_tracks_are_named_with_their_fault_and_leave_no_trace(tmp_path):
    good = write_good_tracks(tmp_path, 3)
    broken = [write_broken_track(tmp_path, kind) for kind in BROKEN]
    summary = export_tracks(
        [good[0], *broken[:5], good[1], *broken[5:], good[2]],
        tmp_path / "x.zarr",
        targets=TARGETS,
        skip_broken=True,
        transform=TRANSFORM,
        chunk_frames=8,
        shard_chunks=2,
    )
    assert [name for name, _ in summary.skipped] == list(BROKEN)
    for (_, reason), pattern in zip(summary.skipped, BROKEN.values(), strict=True):
        assert re.search(pattern, reason)
    assert summary.tracks == 3
    assert verify(tmp_path / "x.zarr")
    export_tracks(good, tmp_path / "good.zarr", targets=TARGETS, transform=TRANSFORM, chunk_frames=8, shard_chunks=2)
    found, expected = norbert_store.open(tmp_path / "x.zarr"), norbert_store.open(tmp_path / "good.zarr")
    assert_same_tracks(found, expected)
    assert summary.npy_bytes == sum(3 * 2 * 2 * track.frames * 129 * 4 for track in found) / 3


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_track_is_an_error_and_the_tracks_before_it_stay(tmp_path, kind):
    (good,) = write_good_tracks(tmp_path, 1)
    with pytest.raises(NorbertStoreError, match=BROKEN[kind]) as caught:
        export_tracks(
            [good, write_broken_track(tmp_path, kind)], tmp_path / "x.zarr", targets=TARGETS, transform=TRANSFORM
        )
    assert kind in str(caught.value)
    assert norbert_store.open(tmp_path / "x.zarr").names == [good.name]
    assert verify(tmp_path / "x.zarr")


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX")
def test_sizes_are_those_of_the_store_s_own_files(tmp_path):
    tracks = write_good_tracks(tmp_path, 1)
    before = export_tracks(tracks, tmp_path / "x.zarr", targets=TARGETS, transform=TRANSFORM)
    (tmp_path / "x.zarr" / "mine").symlink_to(tmp_path / "elsewhere.wav")
    (tmp_path / "elsewhere.wav").write_bytes(bytes(1000))
    after = export_tracks(tracks, tmp_path / "x.zarr", targets=TARGETS, transform=TRANSFORM, resume=True)
    assert after.store_bytes == before.store_bytes


def test_the_password_of_a_place_is_not_told(tmp_path):
    tracks = [write_track(tmp_path, "a"), write_broken_track(tmp_path, "empty")]
    with pytest.raises(AudioError, match=r"memory://bucket/.* holds the tracks before it") as caught:
        export_tracks(tracks, f"memory://user:secret@bucket{tmp_path}", targets=TARGETS, transform=TRANSFORM)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_first_track(tmp_path, kind):
    tracks = [write_broken_track(tmp_path, kind), *write_good_tracks(tmp_path)]
    with pytest.raises(NorbertStoreError, match=BROKEN[kind]) as caught:
        export_tracks(tracks, tmp_path / "error.zarr", targets=TARGETS, transform=TRANSFORM)
    assert kind in str(caught.value)
    summary = export_tracks(tracks, tmp_path / "x.zarr", targets=TARGETS, skip_broken=True)
    assert [name for name, _ in summary.skipped] == [kind]
    db = norbert_store.open(tmp_path / "x.zarr")
    assert db.names == ["good 0", "good 1"]
    assert db.rate == RATE
    assert verify(tmp_path / "x.zarr")


def test_nothing_but_broken_tracks_is_an_error_before_there_is_a_store(tmp_path):
    tracks = [write_broken_track(tmp_path, kind) for kind in ("garbage", "corrupt.stem.mp4")]
    with pytest.raises(SourceError, match=rf"none of the 2 tracks can be read; the first: .*{BROKEN['garbage']}"):
        export_tracks(tracks, tmp_path / "x.zarr", targets=TARGETS, skip_broken=True)
    with pytest.raises(SourceError, match="there are no tracks to export"):
        export_tracks([], tmp_path / "x.zarr", targets=TARGETS)
    assert not (tmp_path / "x.zarr").exists()


@pytest.mark.parametrize("workers", [None, pytest.param(2, marks=pytest.mark.slow)])
def test_an_export_of_which_nothing_came_into_the_store_is_an_error(tmp_path, workers):
    tracks = [write_broken_track(tmp_path, kind) for kind in ("mono", "NaN")]
    options = {"targets": TARGETS, "skip_broken": True, "workers": workers, "transform": TRANSFORM, "channels": 2}
    with pytest.raises(SourceError, match=rf"none of the 2 tracks .* to .*x\.zarr; the first: .*{BROKEN['mono']}"):
        export_tracks(tracks, tmp_path / "x.zarr", **options)
    assert len(norbert_store.open(tmp_path / "x.zarr")) == 0
    # nor do other tracks count that are there
    good = write_good_tracks(tmp_path)
    export_tracks(good, tmp_path / "x.zarr", resume=True, **options)
    with pytest.raises(SourceError, match="none of the 2 tracks"):
        export_tracks(tracks, tmp_path / "x.zarr", resume=True, **options)
    summary = export_tracks([good[0], *tracks], tmp_path / "x.zarr", resume=True, **options)
    assert (summary.tracks, summary.written, len(summary.skipped)) == (1, 0, 2)


@pytest.mark.parametrize("error", [ValueError, KeyError, TypeError, RuntimeError, OSError])
def test_a_bug_is_no_broken_track(tmp_path, monkeypatch, error):
    tracks = write_good_tracks(tmp_path)

    def bug(*arguments):
        raise error("operands could not be broadcast together with shapes (3,) (4,)")

    with monkeypatch.context() as patch:
        patch.setattr("norbert_store._encode.search.PlainEncoder.push", bug)
        with pytest.raises(error, match="operands could not be broadcast"):
            export_tracks(tracks, tmp_path / "x.zarr", targets=TARGETS, skip_broken=True, effort=0, transform=TRANSFORM)
    assert verify(tmp_path / "x.zarr")
    options: dict[str, Any] = {"targets": TARGETS, "resume": True, "effort": 0, "transform": TRANSFORM}
    assert export_tracks(tracks, tmp_path / "x.zarr", **options).written == 2


def test_two_tracks_of_one_name_are_an_error(tmp_path):
    track = write_track(tmp_path, "x")
    with pytest.raises(NorbertStoreError, match="there is a track named 'x' already"):
        export_tracks([track, track], tmp_path / "x.zarr", targets=TARGETS, transform=TRANSFORM)
    summary = export_tracks([track, track], tmp_path / "y.zarr", targets=TARGETS, transform=TRANSFORM, skip_broken=True)
    assert summary.tracks == len(summary.skipped) == 1


# ---- many tracks


def test_many_short_tracks_share_files(tmp_path, monkeypatch):
    tracks = write_good_tracks(tmp_path, 10)
    export_tracks(tracks, tmp_path / "alone.zarr", targets=TARGETS, transform=TRANSFORM)
    monkeypatch.setattr("norbert_store._export.plan._MOST_SHARDS", 4)
    tracks.insert(7, write_broken_track(tmp_path, "mono"))
    export_tracks(tracks, tmp_path / "shared.zarr", targets=TARGETS, transform=TRANSFORM, skip_broken=True)
    shards = {
        name: [path for path in (tmp_path / name / "magnitude" / "c").rglob("*") if path.is_file()]
        for name in ("alone.zarr", "shared.zarr")
    }
    assert len(shards["alone.zarr"]) == 20
    assert len(shards["shared.zarr"]) == 4
    assert_same_tracks(norbert_store.open(tmp_path / "shared.zarr"), norbert_store.open(tmp_path / "alone.zarr"))
    assert verify(tmp_path / "shared.zarr")


def test_a_data_set_like_musdb18_has_a_bundle_for_each_track():
    assert bundle_size(150, 5) == bundle_size(819, 5) == 1
    assert shard_size(1, AudioInfo(44100, 2, 240 * 44100)) == SHARD_CHUNKS


@pytest.mark.parametrize("targets", [1, 5])
@pytest.mark.parametrize("tracks", [5000, 100_000, 1_000_000])
@pytest.mark.parametrize("seconds", [0.01, 10, 240])
def test_the_number_of_files_stays_small(tracks, targets, seconds):
    bundle_tracks = bundle_size(tracks, targets)
    shard_chunks = shard_size(bundle_tracks, AudioInfo(44100, 2, round(seconds * 44100)))
    assert bundle_tracks > 1
    assert tracks * targets / bundle_tracks <= 4096
    chunks = max(1, seconds / 6) * bundle_tracks  # of a bundle
    assert chunks <= shard_chunks or shard_chunks == 4096


# ---- headers that promise what the file doesn't hold


def flac_that_claims(path, samples):
    """Noise of 4000 samples whose STREAMINFO says something else; 0 is what a writer into a pipe leaves there."""
    soundfile.write(path, noise(1), RATE)
    data = bytearray(path.read_bytes())
    data[21:26] = ((data[21] >> 4 << 36) | samples).to_bytes(5, "big")  # 36 bits
    path.write_bytes(data)


def wav_that_claims(path, samples):
    soundfile.write(path, noise(1), RATE, subtype="FLOAT")
    data = bytearray(path.read_bytes())
    at = data.index(b"data") + 4
    data[at : at + 4] = (samples * 8).to_bytes(4, "little")
    path.write_bytes(data)


def cut_off(path):
    soundfile.write(path, noise(1, samples=20000), RATE)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


LYING = {
    "piped.flac": (lambda path: flac_that_claims(path, 0), "piped.flac doesn't say how long it is"),
    "more.flac": (lambda path: flac_that_claims(path, 100_000), "more.flac can't be read on after 0 samples"),
    "huge.flac": (lambda path: flac_that_claims(path, 2**36 - 1), "huge.flac says 68719476735 samples, more than its"),
    "less.flac": (lambda path: flac_that_claims(path, 1000), 1000),
    "more.wav": (lambda path: wav_that_claims(path, 9000), "more.wav is cut off"),
    "less.wav": (lambda path: wav_that_claims(path, 1000), 1000),
    "cut.flac": (cut_off, "cut.flac can't be read on after 0 samples"),
    "cut.mp3": (cut_off, "cut.mp3 is cut off: its header says 20000 samples, found "),
}


@pytest.mark.parametrize("bundle_tracks", [pytest.param(1, marks=pytest.mark.slow), 3])
@pytest.mark.parametrize("kind", LYING)
def test_what_a_header_promises_never_reaches_into_other_tracks(tmp_path, kind, bundle_tracks):
    make, expected = LYING[kind]
    (tmp_path / "audio").mkdir()
    try:
        make(tmp_path / "audio" / kind)
    except (soundfile.LibsndfileError, TypeError, ValueError):
        pytest.skip("this libsndfile doesn't write it")
    before, after = write_good_tracks(tmp_path / "audio")
    liar = SourceTrack(kind, "train", Source.of_files({"mixture": tmp_path / "audio" / kind}))
    options = {"transform": TRANSFORM, "chunk_frames": 8, "shard_chunks": 2, "bundle_tracks": bundle_tracks}
    summary = export_tracks([before, liar, after], tmp_path / "x.zarr", targets=TARGETS, skip_broken=True, **options)
    db = norbert_store.open(tmp_path / "x.zarr")
    if isinstance(expected, str):
        assert expected in dict(summary.skipped)[kind]
        assert kind not in db
    else:
        assert db[kind].samples == expected
        assert summary.skipped == []
    export_tracks([before, after], tmp_path / "good.zarr", targets=TARGETS, **options)
    assert_same_tracks(db.select([before.name, after.name]), norbert_store.open(tmp_path / "good.zarr"))
    assert verify(tmp_path / "x.zarr")


@pytest.mark.parametrize("which", [1, 2])
@pytest.mark.parametrize("samples", [9000, pytest.param(300, marks=pytest.mark.slow)])
@pytest.mark.parametrize("skip_broken", [pytest.param(False, marks=pytest.mark.slow), True])
def test_a_file_that_changes_its_length_meanwhile(tmp_path, which, samples, skip_broken):
    """The first file's length is known to the plan; of the others, headers are read later."""
    tracks = write_good_tracks(tmp_path / "audio", 3)
    options = {"transform": TRANSFORM, "chunk_frames": 8, "shard_chunks": 2, "skip_broken": skip_broken}
    export_tracks(tracks, tmp_path / "before.zarr", targets=TARGETS, **options)

    def change(progress):
        if progress.track == "good 1":
            for file in list(tracks[1].source.files.values())[:which]:
                soundfile.write(file, noise(9, samples=samples), RATE, subtype="FLOAT")

    message = rf"mixture\.wav was changed since its header was read: that said 4000 samples .* found {samples} samples"
    if which == 2:
        message = rf"its stems differ in length \(samples: mixture 4000, vocals {samples}\)"
    if skip_broken:
        summary = export_tracks(tracks, tmp_path / "x.zarr", targets=TARGETS, progress=change, **options)
        assert re.search(message, dict(summary.skipped)["good 1"])
        expected = ["good 0", "good 2"]
    else:
        with pytest.raises(AudioError, match=f"track 'good 1': .*{message}"):
            export_tracks(tracks, tmp_path / "x.zarr", targets=TARGETS, progress=change, **options)
        expected = ["good 0"]
    found, before = norbert_store.open(tmp_path / "x.zarr"), norbert_store.open(tmp_path / "before.zarr")
    assert found.names == expected
    for name in expected:
        assert found[name].start == before[name].start
        assert np.array_equal(found[name].levels.values, before[name].levels.values)
    assert verify(tmp_path / "x.zarr")


# ---- when the place fails


@pytest.fixture
def powerless():
    """A folder that everybody may read, and a context in which nobody may write there."""
    folder = Path(tempfile.mkdtemp())

    @contextmanager
    def without_rights():
        # threads and modules that are loaded when first used: from now on, Python's own files may be out of reach
        export_tracks(write_good_tracks(folder / "first"), folder / "first.zarr", targets=TARGETS, transform=TRANSFORM)
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o555 if path.is_dir() else 0o444)
        root = os.geteuid() == 0
        try:
            if root:
                os.seteuid(65534)
            yield
        finally:
            if root:
                os.seteuid(0)
            for path in (folder, *folder.rglob("*")):
                path.chmod(0o755 if path.is_dir() else 0o644)

    yield folder, without_rights
    shutil.rmtree(folder)


@pytest.mark.skipif(not hasattr(os, "seteuid"), reason="no such rights")
def test_a_place_that_may_not_be_written_is_an_error_and_the_store_still_opens(powerless):
    folder, without_rights = powerless
    tracks = write_good_tracks(folder / "audio")
    export_tracks(tracks[:1], folder / "x.zarr", targets=TARGETS, transform=TRANSFORM)
    (folder / "empty").mkdir()
    with without_rights():
        for name, resume in (("new.zarr", False), ("new.zarr", True), ("empty", False), ("x.zarr", True)):
            with pytest.raises(StorageError, match=rf"{name} can't be written: Permission denied"):
                export_tracks(tracks, folder / name, targets=TARGETS, resume=resume, transform=TRANSFORM)
        with pytest.raises(StorageError, match=r"x\.zarr can't be written: Permission denied"):
            norbert_store.append(folder / "x.zarr")
        assert norbert_store.open(folder / "x.zarr").names == ["good 0"]
        assert verify(folder / "x.zarr")
    assert not (folder / "new.zarr").exists()
    export_tracks(tracks, folder / "x.zarr", targets=TARGETS, resume=True, transform=TRANSFORM)
    assert verify(folder / "x.zarr")


@pytest.mark.parametrize("error", [UnicodeEncodeError("ascii", "é", 0, 1, "mine"), ValueError("mine"), OSError("mine")])
def test_errors_of_who_is_told_the_progress_come_through_as_they_are(tmp_path, error):
    tracks = write_good_tracks(tmp_path)

    def tell(progress):
        if progress.done == 1:
            raise error

    with pytest.raises(type(error)) as caught:
        export_tracks(tracks, tmp_path / "x.zarr", targets=TARGETS, progress=tell, transform=TRANSFORM)
    assert caught.value is error
    assert norbert_store.open(tmp_path / "x.zarr").names == ["good 0"]
