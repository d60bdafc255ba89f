"""A track's source: its three kinds, the text that a store notes, and how that is found again."""

from __future__ import annotations

import os
import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from norbert_store._sources.files import AudioInfo
from norbert_store._sources.source import Source, read_stem
from norbert_store.errors import AudioError, SourceError

RATE = 16000
INFO = AudioInfo(RATE, 2, 2 * RATE)
STEMS = ("mixture", "drums", "bass", "other", "vocals")


@pytest.fixture
def folder(tmp_path, stems):
    path = tmp_path / "50 % – é"
    path.mkdir()
    for name in ("mixture", "vocals"):
        soundfile.write(path / f"{name}.wav", stems[name], RATE)
    return path


def joined(pairs):
    blocks = {}
    for name, block in pairs:
        blocks.setdefault(name, []).append(block)
    return {name: np.concatenate(parts) for name, parts in blocks.items()}


# ---- kinds


@pytest.mark.parametrize("place", [str, Path, Path.as_uri])
def test_a_stem_of_a_folder(folder, stems, place):
    for name in ("mixture", "vocals"):
        info, blocks = read_stem(place(folder), name)
        assert info == INFO
        assert np.array_equal(np.concatenate(list(blocks)), stems[name])


@pytest.mark.parametrize("place", [str, Path, Path.as_uri])
def test_a_stem_of_a_file_with_a_stream_per_stem(mp4, stems, place):
    info, blocks = read_stem(place(mp4), "bass")
    audio = np.concatenate(list(blocks))
    assert info == INFO
    assert audio.shape == (2 * RATE, 2)
    assert np.corrcoef(audio.ravel(), stems["bass"].ravel())[0, 1] > 0.99


@pytest.mark.parametrize("place", [str, Path, Path.as_uri])
def test_a_plain_file_is_taken_as_it_is(wav, stems, place):
    for stem in ("mixture", "vocals"):
        info, blocks = read_stem(place(wav), stem)
        assert info == INFO
        assert np.array_equal(np.concatenate(list(blocks)), stems["mixture"])


def test_several_stems_in_one_pass(folder, mp4, stems):
    for source in (Source.at(folder, ["mixture", "vocals"]), Source.at(mp4, STEMS)):
        headers = source.headers_of(["vocals", "mixture"])
        assert headers == {"vocals": INFO, "mixture": INFO}
        audio = joined(source.blocks(headers))
        assert set(audio) == {"vocals", "mixture"}
        assert np.corrcoef(audio["vocals"].ravel(), stems["vocals"].ravel())[0, 1] > 0.99


@pytest.mark.parametrize("alone", ["mixture", "vocals"])
def test_a_file_of_one_stream_is_the_stem_that_it_is_taken_for(tmp_path, stems, write_stems, alone):
    path = write_stems(tmp_path / "x.m4a", [stems["bass"]])
    source = Source.at(path, STEMS, alone)
    assert source.first_headers() == source.headers() == {alone: INFO}
    assert joined(source.blocks({alone: INFO}))[alone].shape == (2 * RATE, 2)
    assert list(replace(source, alone=None).headers()) == ["SoundHandler"]


def test_headers_of_the_first_file_and_of_all(folder, mp4, monkeypatch):
    source = Source.at(folder, ["mixture", "vocals"])
    assert source.first_headers() == {"mixture": INFO}
    assert source.headers() == {"mixture": INFO, "vocals": INFO}
    # what is known isn't read again
    (folder / "mixture.wav").unlink()
    assert source.headers({"mixture": INFO}) == {"mixture": INFO, "vocals": INFO}
    streams = Source.at(mp4, STEMS)
    assert streams.first_headers() == streams.headers() == dict.fromkeys(STEMS, INFO)


def test_a_stem_that_is_not_there_is_an_error(folder, mp4, wav):
    with pytest.raises(SourceError, match=r"there is no file .*piano\.wav"):
        read_stem(folder, "piano")
    with pytest.raises(SourceError, match="has no stem 'piano'; it has 'mixture', 'drums', 'bass', 'other', 'vocals'"):
        read_stem(mp4, "piano")
    with pytest.raises(SourceError, match=r"a song\.wav has no stem 'piano'; it has 'mixture'"):
        Source.at(wav, ["piano"]).read("piano")


def test_a_folder_that_is_gone_is_missing_whatever_is_asked_of_it(tmp_path):
    for stem in ("mixture", "vocals"):
        with pytest.raises(SourceError, match="there is no file .*gone"):
            Source.at(tmp_path / "gone", ["vocals"]).read(stem)


@pytest.mark.parametrize("uri", ["https://example.org/x.wav", "s3://bucket/track", "zip://x.wav::file:///a.zip"])
def test_audio_elsewhere_is_an_error_that_says_so(uri):
    with pytest.raises(SourceError, match="can't be read from here; fetch it first") as caught:
        read_stem(uri, "mixture")
    assert uri in str(caught.value)


def test_size_of_all_files_that_are_there(folder, mp4, wav):
    source = Source.at(folder, ["mixture", "vocals", "drums"])
    assert source.audio_bytes == sum(path.stat().st_size for path in folder.iterdir())
    assert Source.at(mp4, STEMS).audio_bytes == mp4.stat().st_size
    assert Source.at(wav, STEMS).audio_bytes == wav.stat().st_size


# ---- what was changed since its header was read


@pytest.mark.parametrize("change", ["longer", "shorter", "rate", "channels", "gone", "empty", "garbage"])
@pytest.mark.parametrize("kind", ["folder", "plain"])
def test_a_file_that_was_changed_since_its_header_was_read(folder, wav, change, kind):
    source = Source.at(folder, ["mixture"]) if kind == "folder" else Source.at(wav, ["mixture"])
    file = source.files["mixture"]
    headers = source.headers()
    samples = {"longer": 2 * RATE + 1, "shorter": 100}.get(change, 2 * RATE)
    if change == "gone":
        file.unlink()
    elif change in ("empty", "garbage"):
        file.write_bytes(b"" if change == "empty" else b"no audio at all")
    else:
        audio = np.zeros((samples, 1 if change == "channels" else 2))
        soundfile.write(file, audio, 8000 if change == "rate" else RATE)
    message = {
        "gone": "there is no file",
        "empty": r"is empty \(0 bytes\)",
        "garbage": "can't be read on after 0 samples",
    }.get(change, f"was changed since its header was read: that said {INFO}, found ")
    with pytest.raises((AudioError, SourceError), match=message) as caught:
        list(source.blocks(headers))
    assert str(file) in str(caught.value)


def test_a_file_of_streams_that_was_changed_since_its_headers_were_read(tmp_path, mp4, stems, write_stems):
    path = shutil.copy(mp4, tmp_path / "x.stem.mp4")
    source = Source.at(path, STEMS)
    headers = source.headers()
    short = [stem[:8000] for stem in stems.values()]
    write_stems(path, short, STEMS)
    with pytest.raises(AudioError, match=r"stem\.mp4, mixture was changed since its header was read: that said 32000"):
        list(source.blocks(headers))
    write_stems(path, list(stems.values())[:3], STEMS[:3])
    with pytest.raises(AudioError, match=r"stem\.mp4, other was changed since its header was read: .* found nothing"):
        list(source.blocks(headers))


# ---- what a store takes


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ({"piano": INFO}, r"piano\.wav has a stem 'piano'; expected 'mixture', 'vocals'"),
        ({"vocals": replace(INFO, rate=8000)}, r"vocals\.wav has 8000 samples per second; the store has 16000"),
        (
            {"mixture": INFO, "vocals": replace(INFO, samples=5)},
            r"differ in length \(.*: mixture 32000, vocals 5\)",
        ),
    ],
)
def test_headers_that_do_not_fit_a_store(tmp_path, headers, message):
    source = Source(tmp_path, {stem: tmp_path / f"{stem}.wav" for stem in headers})
    with pytest.raises(AudioError, match=message):
        source.check(headers, ("mixture", "vocals"), RATE)


# ---- noted, and found again


def test_a_source_is_noted_relative_to_the_folder_that_holds_the_store(tmp_path, monkeypatch):
    source = Source(tmp_path / "musdb" / "train" / "A - B")
    assert source.reference(tmp_path / "x.zarr") == "musdb/train/A - B"
    assert source.reference(tmp_path / "stores" / "x.zarr") == "../musdb/train/A - B"
    monkeypatch.chdir(tmp_path)
    assert Source(Path("musdb/train/A - B")).reference(Path("stores/x.zarr")) == "../musdb/train/A - B"


@pytest.mark.skipif(not hasattr(os, "symlink"), reason="no links")
def test_a_source_behind_a_link_is_noted_where_it_is(tmp_path):
    (tmp_path / "disk" / "music").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    source = Source(tmp_path / "link" / "music")
    assert source.reference(tmp_path / "x.zarr") == "disk/music"


@pytest.mark.skipif(not hasattr(os, "symlink"), reason="no links")
def test_a_source_that_is_a_link_is_found_again_as_what_its_suffix_says(mp4, tmp_path):
    """In a cache of downloads, files are named by checksums."""
    cache, music, store = tmp_path / "data" / "cache", tmp_path / "data" / "music", tmp_path / "data" / "x.zarr"
    for folder in (cache, music):
        folder.mkdir(parents=True)
    shutil.copy(mp4, cache / "0123abcd")
    (music / "song.stem.mp4").symlink_to(cache / "0123abcd")
    noted = Source.at(music / "song.stem.mp4", STEMS).reference(store)
    assert noted == "music/song.stem.mp4"
    assert Source.find(noted, store, STEMS).headers_of(STEMS) == dict.fromkeys(STEMS, INFO)
    cache.rename(tmp_path / "cache")
    (music / "song.stem.mp4").unlink()
    (music / "song.stem.mp4").symlink_to(tmp_path / "cache" / "0123abcd")
    with pytest.raises(
        SourceError, match="song.stem.mp4 leads out of .*; give a folder that holds this link and its file"
    ):
        Source.find(noted, store, STEMS)
    music.rename(tmp_path / "music")
    assert Source.find(noted, store, STEMS, below=tmp_path).headers_of(["bass"]) == {"bass": INFO}


@pytest.mark.parametrize("name", ["~", "~root"])
def test_a_folder_that_is_named_as_a_home_is_found_again(tmp_path, folder, name):
    folder.rename(tmp_path / name)
    noted = Source.at(tmp_path / name, ["vocals"]).reference(tmp_path / "x.zarr")
    assert noted == name
    assert Source.find(noted, tmp_path / "x.zarr", ["vocals"]).headers_of(["vocals"]) == {"vocals": INFO}


@pytest.mark.parametrize("kind", ["folder", "mp4", "wav"])
@pytest.mark.parametrize("store", ["x.zarr", "stores/deep/x.zarr", None])
def test_what_is_noted_is_found_again(request, tmp_path, kind, store):
    path = request.getfixturevalue(kind)
    if store is not None:
        store = tmp_path / store
        store.mkdir(parents=True)
    source = Source.at(path, ["mixture"])
    noted = source.reference(store)
    assert noted.startswith("file:///") == (store is None)
    if store is None or not path.is_relative_to(store.parent):
        with pytest.raises(SourceError, match=r"; give the folder that its audio lies in as audio_root"):
            Source.find(noted, store, ["mixture"])
    below = None if store is not None and path.is_relative_to(store.parent) else path.parent
    found = Source.find(noted, store, ["mixture"], below=below)
    assert found.path.resolve() == path.resolve()
    assert found.headers_of(["mixture"]) == {"mixture": INFO}


def test_a_source_that_moved_is_found_below_a_folder_by_the_longest_end_that_is_there(tmp_path, folder, stems):
    moved = tmp_path / "moved" / "musdb" / "train"
    moved.mkdir(parents=True)
    folder.rename(moved / folder.name)
    other = tmp_path / "moved" / folder.name
    shutil.copytree(moved / folder.name, other)
    noted = f"../musdb/train/{folder.name}"
    for reference in (noted, (tmp_path / noted[3:]).as_uri()):
        for below, expected in (
            (tmp_path / "moved", moved / folder.name),
            (tmp_path / "moved" / "musdb", moved / folder.name),
            (moved, moved / folder.name),
        ):
            found = Source.find(reference, tmp_path / "x.zarr", ["vocals"], below=below)
            assert found.path == expected
    assert Source.find(folder.name, None, ["vocals"], below=tmp_path / "moved").path == other


def test_a_source_that_nobody_can_find_is_an_error_that_says_why(tmp_path):
    with pytest.raises(SourceError, match="the track table doesn't say where its audio is"):
        Source.find("", tmp_path, ["mixture"])
    with pytest.raises(SourceError, match="its source music/a is relative to a folder that isn't on this machine"):
        Source.find("music/a", None, ["mixture"])
    with pytest.raises(SourceError, match=f"its source ../music/a isn't below {tmp_path}"):
        Source.find("../music/a", tmp_path / "x.zarr", ["mixture"], below=tmp_path)
    with pytest.raises(SourceError, match=r"audio at s3://bucket/a\.wav can't be read from here"):
        Source.find("s3://bucket/a.wav", tmp_path / "x.zarr", ["mixture"])


# ---- files wherever they lie


@pytest.mark.parametrize(
    ("files", "noted"),
    [
        ({"mixture": "a/mixture.wav", "vocals": "a/vocals.wav"}, "a"),
        ({"mixture": "a/mix.wav", "vocals": "a/vocals.wav"}, "a/mix.wav"),
        ({"vocals": "b/vocals.wav", "mixture": "a/mixture.wav"}, "a/mixture.wav"),
        ({"vocals": "a/song.wav"}, "a/song.wav"),
        ({"vocals": "b/vocals.wav", "drums": "a/drums.wav"}, ""),
    ],
)
def test_what_a_store_notes_of_files_wherever_they_lie(tmp_path, files, noted):
    source = Source.of_files({stem: tmp_path / file for stem, file in files.items()})
    assert source.reference(tmp_path / "x.zarr") == noted
    assert str(source) == str(tmp_path / (noted or "b/vocals.wav"))
    assert pickle.loads(pickle.dumps(source)) == source
