"""A folder of audio: names and splits by path, and an export of it."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile

import norbert_store
from norbert_store._check.verify import verify
from norbert_store._export.run import export_folder
from norbert_store._sources.layouts import TARGETS, folder_tracks
from norbert_store.errors import AudioError, SourceError

RATE = 8000


def write(root, *names, samples=2000):
    for i, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, np.random.default_rng(i).uniform(-0.5, 0.5, (samples, 2)), RATE)


def names(root):
    return [track.name for track in folder_tracks(root)]


def test_a_track_is_named_by_its_path_without_the_suffix(tmp_path):
    write(tmp_path, "b.wav", "a.flac", "albums/One/02. B-side.wav", "albums/One/01. A.WAV", "50 % – é.aiff")
    tracks = folder_tracks(tmp_path)
    assert [track.name for track in tracks] == [
        "50 % – é",
        "a",
        "albums/One/01. A",
        "albums/One/02. B-side",
        "b",
    ]
    assert tracks[2].source.files == {"mixture": tmp_path / "albums/One/01. A.WAV"}
    assert tracks[2].source.path == tmp_path / "albums/One/01. A.WAV"
    assert TARGETS == ("mixture",)


def test_a_split_is_a_known_folder_right_below_the_root(tmp_path):
    write(tmp_path, "train/a.wav", "test/deep/er/b.wav", "valid/c.wav", "music/train/d.wav", "train.wav", "Train/e.wav")
    assert {track.name: track.split for track in folder_tracks(tmp_path)} == {
        "train/a": "train",
        "test/deep/er/b": "test",
        "valid/c": "valid",
        "music/train/d": "",
        "train": "",
        "Train/e": "",
    }


def test_files_that_differ_only_in_the_suffix_keep_it(tmp_path):
    write(tmp_path, "a.wav", "a.flac", "b.wav", "c/a.wav")
    assert names(tmp_path) == ["a.flac", "a.wav", "b", "c/a"]
    export_folder(tmp_path, tmp_path / "x.zarr")
    assert norbert_store.open(tmp_path / "x.zarr").names == names(tmp_path)


def test_other_and_hidden_files_are_ignored(tmp_path):
    write(tmp_path, "a.wav", "._a.wav", ".trash/b.wav")
    for name in ("cover.jpg", "notes.txt", "video.mp4"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "folder.wav").mkdir()
    assert names(tmp_path) == ["a"]


def test_a_hidden_folder_can_be_the_root(tmp_path):
    write(tmp_path / ".cache", "a.wav")
    assert names(tmp_path / ".cache") == ["a"]


def test_a_root_without_audio_is_an_error(tmp_path):
    with pytest.raises(SourceError, match=r"there is no folder .*nowhere"):
        folder_tracks(tmp_path / "nowhere")
    (tmp_path / "x.txt").write_text("x")
    with pytest.raises(SourceError, match=r"holds no audio files; expected \.wav, "):
        folder_tracks(tmp_path)
    with pytest.raises(SourceError, match="there is no folder"):
        folder_tracks(tmp_path / "x.txt")


def test_export_and_back_to_the_audio(tmp_path, monkeypatch):
    write(tmp_path / "music", "train/a.wav", "test/albums/b.flac")
    monkeypatch.chdir(tmp_path)
    told = []
    summary = export_folder("music", "x.zarr", progress=told.append)
    assert [progress.track for progress in told] == ["test/albums/b", "train/a", ""]
    assert summary.tracks == 2
    assert verify("x.zarr")
    db = norbert_store.open("x.zarr")
    assert db.names == ["test/albums/b", "train/a"]
    assert [track.split for track in db] == ["test", "train"]
    assert [track.source for track in db] == ["music/test/albums/b.flac", "music/train/a.wav"]
    for track, path in zip(db, ("music/test/albums/b.flac", "music/train/a.wav"), strict=True):
        audio = soundfile.read(path)[0]
        assert np.sqrt(np.mean((track.to_audio("mixture") - audio) ** 2)) < 0.2 * np.sqrt(np.mean(audio**2))


def test_a_broken_file_is_named(tmp_path):
    write(tmp_path, "a.wav", "b.wav", "c.wav")
    path = tmp_path / "b.wav"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(AudioError, match=r"track 'b': .*b\.wav is cut off"):
        export_folder(tmp_path, tmp_path / "x.zarr")
    summary = export_folder(tmp_path, tmp_path / "y.zarr", skip_broken=True)
    assert [name for name, _ in summary.skipped] == ["b"]
    assert norbert_store.open(tmp_path / "y.zarr").names == ["a", "c"]
