"""Audio files: exact blocks, aligned stems, sources of all kinds, and errors that name the file."""

from __future__ import annotations

import sys
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from norbert_store._sources import files as audio_module
from norbert_store._sources.files import (
    AudioInfo,
    audio_info,
    read_blocks,
    read_stems,
    stems_info,
    write_audio,
)
from norbert_store.errors import AudioError, NorbertStoreError, SourceError

RATE = 16000
STEMS = ("mixture", "drums", "bass", "other", "vocals")


def joined(pairs):
    blocks = {}
    for name, block in pairs:
        blocks.setdefault(name, []).append(block)
    return {name: np.concatenate(parts) for name, parts in blocks.items()}


def cut(path, share, to):
    data = path.read_bytes()
    to.write_bytes(data[: int(share * len(data))])
    return to


def read_all(path):
    return list(read_stems(path)) if path.suffix == ".mp4" else list(read_blocks(path))


# ---- plain files


def test_header(wav):
    info = audio_info(wav)
    assert info == AudioInfo(rate=RATE, channels=2, samples=2 * RATE)
    assert info.seconds == 2.0


@pytest.mark.parametrize(
    ("suffix", "subtype"), [("wav", "PCM_16"), ("wav", "PCM_24"), ("wav", "FLOAT"), ("flac", "PCM_24"), ("aiff", None)]
)
def test_blocks_put_together_are_the_file(tmp_path, monkeypatch, stems, suffix, subtype):
    monkeypatch.setattr(audio_module, "BLOCK_SAMPLES", 1000)
    path = tmp_path / f"x.{suffix}"
    soundfile.write(path, stems["vocals"], RATE, subtype=subtype)
    blocks = list(read_blocks(path))
    assert [len(block) for block in blocks] == [1000] * 32
    assert all(block.dtype == np.float32 for block in blocks)
    assert np.array_equal(np.concatenate(blocks), soundfile.read(path, dtype="float32")[0])
    # the demo's samples are whole steps of 16 bits, so that nothing is lost
    assert np.array_equal(np.concatenate(blocks), stems["vocals"])


def test_blocks_of_a_mono_file_have_two_dimensions(tmp_path):
    soundfile.write(tmp_path / "x.wav", np.zeros(100), RATE)
    assert [block.shape for block in read_blocks(tmp_path / "x.wav")] == [(100, 1)]


@pytest.mark.parametrize("suffix", ["wav", "flac", "aiff", "au"])
def test_a_plain_file_that_is_cut_off_is_an_error(tmp_path, stems, suffix):
    whole = tmp_path / f"whole.{suffix}"
    soundfile.write(whole, stems["mixture"], RATE)
    half = cut(whole, 0.5, tmp_path / f"half.{suffix}")
    with pytest.raises(AudioError, match=rf"half\.{suffix} (is cut off|can't be read on)"):
        read_all(half)


def test_a_wav_that_was_written_into_a_pipe_is_read_to_its_end(wav, stems):
    data = bytearray(wav.read_bytes())
    for at in (4, data.index(b"data") + 4):
        data[at : at + 4] = b"\xff\xff\xff\xff"
    wav.write_bytes(data)
    assert np.array_equal(np.concatenate(list(read_blocks(wav))), stems["mixture"])


def test_a_wav_without_samples_is_an_error(tmp_path):
    soundfile.write(tmp_path / "x.wav", np.zeros((0, 2)), RATE)
    with pytest.raises(AudioError, match=r"x\.wav holds no samples"):
        audio_info(tmp_path / "x.wav")


# ---- missing, empty and foreign files


@pytest.mark.parametrize("name", ["x.wav", "x.flac", "x.stem.mp4"])
def test_missing_empty_and_foreign_files_are_errors_that_name_the_file(tmp_path, name):
    path = tmp_path / name
    with pytest.raises(SourceError, match=f"there is no file .*{name}"):
        read_all(path)
    path.mkdir()
    with pytest.raises(SourceError, match=f"there is no file .*{name}"):
        read_all(path)
    path.rmdir()
    path.touch()
    with pytest.raises(AudioError, match=rf"{name} is empty \(0 bytes\)"):
        read_all(path)
    path.write_bytes(np.random.default_rng(0).bytes(5000))
    with pytest.raises(AudioError, match=f"{name} can't be read as audio: ") as caught:
        read_all(path)
    assert str(caught.value).count(name) == 1


# ---- MP4 with a stream for each stem


def test_stems_are_named_by_their_streams(mp4):
    assert stems_info(mp4) == dict.fromkeys(STEMS, AudioInfo(RATE, 2, 2 * RATE))


def test_names_of_streams_go_before_their_order(tmp_path, stems, write_stems):
    names = ("vocals", "mixture", "bass")
    path = write_stems(tmp_path / "x.mp4", [stems[name] for name in names], names)
    assert tuple(stems_info(path)) == names
    assert list(dict.fromkeys(name for name, _ in read_stems(path))) == list(names)


def test_five_streams_without_names_are_in_the_order_of_musdb18(tmp_path, stems, write_stems):
    path = write_stems(tmp_path / "x.stem.mp4", stems.values())
    assert tuple(stems_info(path)) == STEMS
    found = joined(read_stems(path))
    for name in STEMS:
        assert np.corrcoef(found[name].ravel(), stems[name].ravel())[0, 1] > 0.99


@pytest.mark.parametrize("names", [None, ("vocals", "vocals", "drums")])
def test_streams_that_cannot_be_told_apart_are_an_error(tmp_path, stems, names, write_stems):
    path = write_stems(tmp_path / "x.stem.mp4", list(stems.values())[:3], names)
    with pytest.raises(AudioError, match=r"x\.stem\.mp4 has 3 streams whose handler_name doesn't tell them apart"):
        stems_info(path)


def test_an_mp4_that_says_more_samples_than_it_can_hold_is_an_error(tmp_path):
    path = tmp_path / "x.stem.mp4"
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=RATE, layout="stereo")
        frame = av.AudioFrame.from_ndarray(np.zeros((2, 4096), np.float32), format="fltp", layout="stereo")
        frame.rate, frame.pts = RATE, 0
        *packets, last = *stream.encode(frame), *stream.encode(None)
        last.pts = last.dts = 2**30  # a stream's length is where its last packet ends
        for packet in (*packets, last):
            container.mux(packet)
    for read in (lambda path: stems_info(path, alone="mixture"), read_all):
        with pytest.raises(AudioError, match=r"x\.stem\.mp4 says \d+ samples, more than its \d+ bytes can hold"):
            read(path)


def test_an_mp3_that_says_more_samples_than_it_can_hold_is_an_error(tmp_path, stems):
    soundfile.write(tmp_path / "x.mp3", stems["mixture"], RATE)
    data = bytearray((tmp_path / "x.mp3").read_bytes())
    at = data.index(b"Xing") + 8
    data[at : at + 4] = (2**30).to_bytes(4, "big")  # frames
    (tmp_path / "x.mp3").write_bytes(data)
    with pytest.raises(AudioError, match=r"x\.mp3 says \d+ samples, more than its \d+ bytes can hold"):
        audio_info(tmp_path / "x.mp3")


def test_a_file_with_pictures_alone_is_an_error(tmp_path):
    path = tmp_path / "x.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 16
        stream.pix_fmt = "yuv420p"
        frame = av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), format="rgb24")
        for packet in (*stream.encode(frame), *stream.encode(None)):
            container.mux(packet)
    with pytest.raises(AudioError, match=r"x\.mp4 holds no audio"):
        stems_info(path)


def test_all_stems_of_one_pass_are_as_long_as_their_streams_and_aligned(mp4, stems):
    found = joined(read_stems(mp4))
    assert set(found) == set(STEMS)
    for name in STEMS:
        assert found[name].dtype == np.float32
        assert found[name].shape == (2 * RATE, 2)
        spectrum = np.fft.rfft(found[name][:, 0], 4 * RATE) * np.conj(np.fft.rfft(stems[name][:, 0], 4 * RATE))
        assert np.argmax(np.fft.irfft(spectrum)) == 0, name
        assert np.corrcoef(found[name].ravel(), stems[name].ravel())[0, 1] > 0.99


@pytest.mark.parametrize("samples", [1, 700, 1025, 12345, 20001, 30007])
def test_stems_of_any_length_are_read_where_the_container_counts_milliseconds(tmp_path, stems, samples, write_stems):
    short = [stem[:samples] for stem in stems.values()]
    path = write_stems(tmp_path / "x.stem.mp4", short, STEMS, movie_timescale="1000")
    expected = {name: info.samples for name, info in stems_info(path).items()}
    assert {name: len(audio) for name, audio in joined(read_stems(path)).items()} == expected
    assert all(abs(length - samples) <= RATE / 1000 for length in expected.values())


@pytest.mark.parametrize("share", [0.001, 0.02, 0.5, 0.9])
@pytest.mark.parametrize("header", ["behind", "before"])
def test_an_mp4_that_is_cut_off_is_an_error(tmp_path, stems, header, share, write_stems):
    options = {"movflags": "faststart"} if header == "before" else {}
    short = [stem[:8000] for stem in stems.values()]
    whole = write_stems(tmp_path / "whole.stem.mp4", short, STEMS, **options)
    path = cut(whole, share, tmp_path / "part.stem.mp4")
    with pytest.raises(AudioError, match=r"part\.stem\.mp4 (can't be read|is cut off|holds no audio)"):
        read_all(path)


def test_damage_within_a_stream_is_an_error(tmp_path, mp4):
    data = bytearray(mp4.read_bytes())
    at = len(data) // 2
    data[at : at + 400] = np.random.default_rng(0).bytes(400)
    (tmp_path / "x.stem.mp4").write_bytes(data)
    with pytest.raises(AudioError, match=r"x\.stem\.mp4 can't be read on"):
        read_all(tmp_path / "x.stem.mp4")


def test_a_colon_in_a_file_name_is_no_protocol(tmp_path, monkeypatch, mp4):
    monkeypatch.chdir(tmp_path)
    Path("Artist: Title.stem.mp4").write_bytes(mp4.read_bytes())
    assert tuple(stems_info("Artist: Title.stem.mp4")) == STEMS


def test_without_pyav_the_error_tells_what_to_install(mp4, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(SourceError, match=r"a song\.stem\.mp4 needs PyAV: pip install 'norbert_store\[musdb\]'"):
        stems_info(mp4)


# ---- writing


def test_a_wav_beyond_full_scale_does_not_clip(tmp_path):
    loud = np.random.default_rng(0).uniform(-4, 4, (100, 2)).astype(np.float32)
    write_audio(tmp_path / "x.wav", [loud[:50], loud[50:]], RATE, loud.shape[1])
    found, rate = soundfile.read(tmp_path / "x.wav", dtype="float32")
    assert rate == RATE
    assert np.array_equal(found, loud)


def test_flac_is_written_by_its_suffix(tmp_path, stems):
    write_audio(tmp_path / "x.FLAC", [stems["bass"]], RATE, 2)
    assert soundfile.info(tmp_path / "x.FLAC").format == "FLAC"
    assert np.array_equal(soundfile.read(tmp_path / "x.FLAC", dtype="float32")[0], stems["bass"])


@pytest.mark.parametrize("name", ["x.xyz", "x", "folder.wav", "nowhere/x.wav"])
def test_audio_that_cannot_be_written_is_an_error_that_names_the_file(tmp_path, name):
    (tmp_path / "folder.wav").mkdir()
    with pytest.raises(NorbertStoreError, match=Path(name).name):
        write_audio(tmp_path / name, [np.zeros((10, 2))], RATE, 2)


def test_an_error_while_writing_leaves_the_old_file(tmp_path):
    def blocks():
        yield np.zeros((10, 2))
        raise ValueError("no more")

    (tmp_path / "x.wav").write_bytes(b"old")
    with pytest.raises(ValueError, match="no more"):
        write_audio(tmp_path / "x.wav", blocks(), RATE, 2)
    assert (tmp_path / "x.wav").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["x.wav"]
