"""MUSDB18 in both layouts: what is found, and an export from end to end."""

from __future__ import annotations

import shutil

import av
import numpy as np
import pytest
import soundfile

import norbert_store
from norbert_store._check.verify import verify
from norbert_store._command.demo_music import TITLES, write_musdb
from norbert_store._export.run import export_musdb
from norbert_store._sources.musdb import TARGETS, musdb_tracks
from norbert_store.errors import AudioError, SourceError, StoreExistsError

RATE = 16000
SECONDS = 0.503
NAMES = [name for split in ("train", "test") for where, name in sorted(TITLES[:3]) if where == split]


def write_stems(path, stems, names=TARGETS, rate=RATE, layout="stereo"):
    """An MP4 with an AAC stream for each array (samples, channels)."""
    with av.open(str(path), "w", format="mp4") as container:
        streams = []
        for name in names:
            streams.append(container.add_stream("aac", rate=rate, layout=layout))
            streams[-1].metadata["handler_name"] = name
        for stream, samples in zip(streams, stems, strict=True):
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples.T), format="fltp", layout=layout)
            frame.rate, frame.pts = rate, 0
            for packet in (*stream.encode(frame), *stream.encode(None)):
                container.mux(packet)


@pytest.fixture(scope="module")
def hq(tmp_path_factory):
    root = tmp_path_factory.mktemp("hq") / "musdb18hq"
    write_musdb(root, tracks=3, seconds=SECONDS, rate=RATE)
    return root


@pytest.fixture(scope="module")
def mp4(hq, tmp_path_factory):
    root = tmp_path_factory.mktemp("mp4") / "musdb18"
    for split in ("train", "test"):
        (root / split).mkdir(parents=True)
        for folder in (hq / split).iterdir():
            stems = [soundfile.read(folder / f"{target}.wav", dtype="float32")[0] for target in TARGETS]
            write_stems(root / split / f"{folder.name}.stem.mp4", stems)
    return root


@pytest.fixture(params=["hq", "mp4"])
def root(request, tmp_path):
    """A copy of either layout, that a test may change."""
    original = request.getfixturevalue(request.param)
    return shutil.copytree(original, tmp_path / "data" / original.name)


def source(root, name):
    split = next(where for where, title in TITLES if title == name)
    return root / split / (name if root.name == "musdb18hq" else f"{name}.stem.mp4")


# ---- what is found


def test_tracks_are_in_order_train_before_test(root):
    tracks = musdb_tracks(root)
    assert [track.name for track in tracks] == NAMES
    assert [track.split for track in tracks] == ["train", "train", "test"]
    assert [track.source.path for track in tracks] == [source(root, name) for name in NAMES]
    assert tracks[0].labels == {"artist": "Tin Harbour", "title": "Low Tide Lullaby"}
    headers = [next(iter(track.source.first_headers().values())) for track in tracks]
    assert headers == headers[:1] * 3
    assert headers[0].rate == RATE


def test_one_split_is_enough(root):
    shutil.rmtree(root / "test")
    assert [track.name for track in musdb_tracks(root)] == NAMES[:2]


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("A - B", {"artist": "A", "title": "B"}),
        ("A - B - C", {"artist": "A", "title": "B - C"}),
        ("A-B", {}),
        ("Music Delta - 80s Rock", {"artist": "Music Delta", "title": "80s Rock"}),
    ],
)
def test_artist_and_title_are_parted_at_the_first_dash_between_spaces(tmp_path, name, labels):
    (tmp_path / "train" / name).mkdir(parents=True)
    (tmp_path / "train" / name / "bass.wav").touch()
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / f"{name}.stem.mp4").touch()
    assert [track.labels for track in musdb_tracks(tmp_path)] == [labels, labels]


@pytest.mark.slow
def test_stems_that_are_not_there_are_left_out(hq, tmp_path):
    root = shutil.copytree(hq, tmp_path / "hq")
    (root / "train" / NAMES[0] / "vocals.wav").unlink()
    assert list(musdb_tracks(root)[0].source.files) == ["mixture", "drums", "bass", "other"]
    export_musdb(root, tmp_path / "x.zarr")
    db = norbert_store.open(tmp_path / "x.zarr")
    assert db[0].present == {**dict.fromkeys(TARGETS, True), "vocals": False}
    assert all(db[1].present.values())


def test_stray_files_are_ignored(root):
    for path in (
        "README.md",
        "train/x.wav",
        "train/x.mp4",
        "train/.DS_Store",
        "train/._x.stem.mp4",
        "extra/y.stem.mp4",
    ):
        (root / path).parent.mkdir(exist_ok=True)
        (root / path).touch()
    for folder in ("train/empty", "train/other", "train/folder.stem.mp4", "train/.hidden"):
        (root / folder).mkdir()
    (root / "train" / "other" / "notes.txt").touch()
    (root / "train" / ".hidden" / "vocals.wav").touch()
    assert [track.name for track in musdb_tracks(root)] == NAMES


def test_a_wrong_root_is_an_error(root, tmp_path):
    with pytest.raises(SourceError, match=r"there is no folder .*nowhere; expected the one that holds MUSDB18's train"):
        musdb_tracks(tmp_path / "nowhere")
    with pytest.raises(SourceError, match=r"holds no tracks of MUSDB18; expected \{train,test\}/<Artist - Title>"):
        musdb_tracks(root / "train")


# ---- export


def test_export_from_end_to_end(root, tmp_path):
    summary = export_musdb(root, tmp_path / "x.zarr", title="Synthetic")
    assert (summary.tracks, summary.channels, summary.skipped) == (3, 2, [])
    assert verify(tmp_path / "x.zarr")
    db = norbert_store.open(tmp_path / "x.zarr")
    assert db.names == NAMES
    assert db.targets == TARGETS
    assert db.rate == RATE
    assert db.attributes["title"] == "Synthetic"
    assert db.tracks.artist.values.tolist() == [name.split(" - ")[0] for name in NAMES]
    assert norbert_store.open(tmp_path / "x.zarr", split="test").names == NAMES[2:]
    assert [track.source for track in db] == [
        source(root, name).relative_to(tmp_path).as_posix() for name in NAMES
    ]  # relative to the folder that holds the store
    assert all(track.duration == pytest.approx(SECONDS, abs=0.001) for track in db)


@pytest.mark.slow
def test_vocals_come_back_with_the_phase_of_the_source(root, hq, tmp_path):
    export_musdb(root, tmp_path / "x.zarr")
    for track in norbert_store.open(tmp_path / "x.zarr"):
        audio = track.to_audio("vocals")
        original = soundfile.read(source(hq, track.name) / "vocals.wav", dtype="float32")[0]
        assert audio.shape == (track.samples, 2)
        assert abs(len(audio) - len(original)) <= RATE / 1000
        common = min(len(audio), len(original))
        assert np.corrcoef(audio[:common].ravel(), original[:common].ravel())[0, 1] > 0.8


@pytest.mark.slow
def test_the_source_is_found_after_data_set_and_store_moved_together(root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    export_musdb("data/" + root.name, "data/x.zarr")
    before = norbert_store.open("data/x.zarr")[0].to_audio("drums")
    (tmp_path / "data").rename(tmp_path / "moved")
    monkeypatch.chdir("/")
    track = norbert_store.open(tmp_path / "moved" / "x.zarr")[0]
    assert np.array_equal(track.to_audio("drums"), before)
    shutil.rmtree(tmp_path / "moved" / root.name)
    with pytest.raises(
        SourceError, match=f"the source of track '{track.name}' can't be read: there is no file .*; give mixture="
    ):
        track.to_audio("drums")


@pytest.mark.slow
def test_progress_and_sizes(root, tmp_path):
    told = []
    summary = export_musdb(root, tmp_path / "x.zarr", progress=told.append)
    assert [(progress.track, progress.done, progress.tracks) for progress in told] == [
        *((name, i, 3) for i, name in enumerate(NAMES)),
        ("", 3, 3),
    ]
    db = norbert_store.open(tmp_path / "x.zarr")
    assert summary.npy_bytes == sum(track.magnitude.values.nbytes for track in db)
    assert summary.store_bytes == sum(
        path.stat().st_size for path in (tmp_path / "x.zarr").rglob("*") if path.is_file()
    )
    assert summary.audio_bytes == sum(path.stat().st_size for path in root.rglob("*") if path.is_file())
    assert summary.stem_seconds == pytest.approx(5 * summary.audio_seconds)


@pytest.mark.slow
def test_an_existing_store_is_refused(root, tmp_path):
    export_musdb(root, tmp_path / "x.zarr")
    with pytest.raises(StoreExistsError, match=r"x\.zarr exists already"):
        export_musdb(root, tmp_path / "x.zarr")


# ---- broken MP4 files


def write_broken(path, kind):
    silence = [np.zeros((8000, 2), np.float32) + np.float32(0.01)] * 5
    if kind == "cut off":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif kind == "garbage":
        path.write_bytes(np.random.default_rng(0).bytes(3000))
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "rate":
        write_stems(path, silence, rate=44100)
    elif kind == "mono":
        write_stems(path, [stem[:, :1] for stem in silence], layout="mono")
    elif kind == "lengths":
        write_stems(path, [*silence[:4], silence[4][:6000]])
    elif kind == "names":
        write_stems(path, silence, ("mixture", "drums", "bass", "piano", "vocals"))
    elif kind == "count":
        write_stems(path, silence[:3], ("SoundHandler",) * 3)


BROKEN = {
    "cut off": "can't be read",
    "garbage": "can't be read as audio",
    "empty": r"is empty \(0 bytes\)",
    "rate": "has 44100 samples per second; the store has 16000",
    "mono": "has 1 channels; the store has 2",
    "lengths": r"stems differ in length \(samples: mixture 8000, .*, vocals 6000\)",
    "names": "has a stem 'piano'; expected 'mixture', 'drums'",
    "count": "has 3 streams whose handler_name doesn't tell them apart",
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_mp4_is_named_and_can_be_skipped(mp4, tmp_path, kind):
    root = shutil.copytree(mp4, tmp_path / "musdb18")
    write_broken(source(root, NAMES[1]), kind)
    with pytest.raises(AudioError, match=BROKEN[kind]) as caught:
        export_musdb(root, tmp_path / "x.zarr")
    assert NAMES[1] in str(caught.value)
    assert norbert_store.open(tmp_path / "x.zarr").names == NAMES[:1]
    summary = export_musdb(root, tmp_path / "y.zarr", skip_broken=True)
    assert [name for name, _ in summary.skipped] == [NAMES[1]]
    assert norbert_store.open(tmp_path / "y.zarr").names == [NAMES[0], NAMES[2]]
    assert verify(tmp_path / "y.zarr")
