"""The demo's music: the same in every run, different in every track, sound as a data set, and musical in its bands."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import soundfile

from norbert_store._command.demo_music import STEMS, TITLES, compose, write_musdb

RATE = 44100


@pytest.fixture(scope="module")
def track():
    return compose(0, seconds=8.0, rate=RATE)


def rms(audio):
    return float(np.sqrt(np.mean(np.square(audio, dtype=np.float64))))


def share(audio, low, high, rate=RATE):
    """Share of the energy between two frequencies."""
    energy = np.abs(np.fft.rfft(audio.astype(np.float64), axis=0)) ** 2
    hertz = np.fft.rfftfreq(len(audio), 1 / rate)
    return float(energy[(hertz >= low) & (hertz < high)].sum() / energy.sum())


def test_titles():
    assert STEMS == ("drums", "bass", "other", "vocals")
    assert len({title for _, title in TITLES}) == len(TITLES) >= 12
    assert [split for split, _ in TITLES[:6]].count("train") == 4
    assert {split for split, _ in TITLES} == {"train", "test"}
    assert all(len(title.split(" - ")) == 2 for _, title in TITLES)


def test_arrays(track):
    assert list(track) == ["mixture", *STEMS]
    for audio in track.values():
        assert audio.shape == (8 * RATE, 2)
        assert audio.dtype == np.float32
        assert np.array_equal(audio * 32768, np.rint(audio * 32768))


def test_mixture_is_exactly_the_sum_and_peaks_at_four_fifths(track):
    assert np.array_equal(track["mixture"], sum(track[stem] for stem in STEMS))
    assert np.abs(track["mixture"]).max() == pytest.approx(0.8, abs=2e-4)


@pytest.mark.parametrize("index", range(6))
def test_no_stem_clips_or_is_silent(index):
    audio = compose(index, seconds=6.0, rate=16000)
    for stem in STEMS:
        assert np.abs(audio[stem]).max() < 0.95
        assert 0.03 < rms(audio[stem]) < 0.2


def test_same_in_every_call(track):
    again = compose(0, seconds=8.0, rate=RATE)
    assert all(np.array_equal(track[name], again[name]) for name in track)


def test_same_on_every_machine(track):
    """Statistics, not bits: sines may differ in their last place."""
    expected = {"mixture": 0.14089, "drums": 0.05936, "bass": 0.07328, "other": 0.06731, "vocals": 0.07701}
    assert {name: rms(audio) for name, audio in track.items()} == pytest.approx(expected, rel=1e-3)


def test_leaves_the_global_generator_alone():
    state = np.random.get_state(legacy=False)["state"]["key"].copy()  # noqa: NPY002
    compose(0, seconds=0.1, rate=8000)
    assert np.array_equal(state, np.random.get_state(legacy=False)["state"]["key"])  # noqa: NPY002


def test_every_track_is_different():
    tracks = [compose(index, seconds=3.0, rate=8000) for index in range(len(TITLES))]
    for stem in ("mixture", *STEMS):
        unit = np.stack([audio[stem].ravel() / np.linalg.norm(audio[stem]) for audio in tracks])
        likeness = np.abs(unit @ unit.T) - np.eye(len(unit))
        assert likeness.max() < 0.95, stem


def test_stems_sit_in_their_bands(track):
    assert share(track["bass"], 30, 300) > 0.95
    assert share(track["other"], 120, 5000) > 0.98
    assert share(track["vocals"], 100, 5000) > 0.95
    kick, snare, hat = (share(track["drums"], low, high) for low, high in ((20, 170), (500, 5000), (9500, 20000)))
    assert kick > 0.3
    assert snare > 0.02
    assert hat > 0.01
    for stem in ("bass", "other", "vocals"):
        assert share(track["drums"], 5000, 20000) > 10 * share(track[stem], 5000, 20000)


def test_stereo(track):
    for stem in ("drums", "other"):
        assert not np.array_equal(track[stem][:, 0], track[stem][:, 1])


@pytest.mark.parametrize("stem", ["bass", "other", "vocals"])
def test_nothing_clicks(track, stem):
    """A click reaches up to the highest frequencies, where these stems have nothing but the rounding's noise."""
    spectrum = np.fft.rfft(track[stem].astype(np.float64), axis=0)
    spectrum[: 14000 * len(track[stem]) // RATE] = 0
    assert np.abs(np.fft.irfft(spectrum, axis=0)).max() < 1e-3 * np.abs(track[stem]).max()
    assert np.abs(track[stem][[0, -1]]).max() < 1e-3


def test_singer_rests(track):
    loudness = np.abs(track["vocals"]).max(axis=1).reshape(-1, RATE // 20).max(axis=1)  # 50 ms each
    assert 0.1 < np.mean(loudness < loudness.max() / 4) < 0.6


def test_same_music_at_every_rate(track):
    """Nothing aliases: below 3 kHz, a track at 8 kHz has the spectrum that it has at 44.1 kHz."""
    low = compose(0, seconds=8.0, rate=8000)
    octaves = [(low, 2 * low) for low in (47, 94, 188, 375, 750, 1500)]
    for stem in STEMS:
        fine, coarse = (
            np.array([share(audio[stem], *octave, rate) for octave in octaves])
            for audio, rate in ((track, RATE), (low, 8000))
        )
        assert coarse / coarse.sum() == pytest.approx(fine / fine.sum(), abs=0.02), stem


def test_high_rate():
    audio = compose(1, seconds=0.5, rate=192000)
    assert audio["mixture"].shape == (96000, 2)
    assert all(share(audio[stem], 22000, 96001, 192000) < 1e-3 for stem in STEMS)


@pytest.mark.parametrize("samples", [1, 2, 3, 399, 400, 401])
@pytest.mark.parametrize("index", [0, 7])
def test_any_length(index, samples):
    audio = compose(index, seconds=samples / 8000, rate=8000)
    assert {array.shape for array in audio.values()} == {(samples, 2)}
    assert np.array_equal(audio["mixture"], sum(audio[stem] for stem in STEMS))
    assert all(np.isfinite(array).all() and np.abs(array).max() < 1 for array in audio.values())


def test_index_past_the_titles():
    assert rms(compose(1000, seconds=1.0, rate=8000)["mixture"]) > 0.03


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"index": -1}, "index is -1, expected 0 or more"),
        ({"index": 0, "seconds": 0}, "seconds is 0, expected a finite number above 0"),
        ({"index": 0, "seconds": -2.5}, r"seconds is -2\.5, expected"),
        ({"index": 0, "seconds": float("nan")}, "seconds is nan, expected"),
        ({"index": 0, "seconds": float("inf")}, "seconds is inf, expected"),
        ({"index": 0, "seconds": 1e-6}, "seconds is 1e-06, no sample at 44100 Hz, expected 2.3e-05 or more"),
        ({"index": 0, "rate": 7999}, "rate is 7999 Hz, expected 8000 or more"),
    ],
)
def test_compose_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        compose(**arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tracks": 0}, f"tracks is 0, expected 1 to {len(TITLES)}"),
        ({"tracks": len(TITLES) + 1}, f"tracks is {len(TITLES) + 1}, expected 1 to {len(TITLES)}"),
        ({"seconds": float("nan")}, "seconds is nan"),
        ({"rate": 4000}, "rate is 4000 Hz"),
    ],
)
def test_write_musdb_refuses_before_it_writes(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        write_musdb(tmp_path / "music", **arguments)
    assert not (tmp_path / "music").exists()


def test_write_musdb(tmp_path):
    folders = write_musdb(tmp_path, tracks=6, seconds=0.5, rate=22050)
    assert folders == [tmp_path / split / title for split, title in TITLES[:6]]
    for index, folder in enumerate(folders):
        audio = compose(index, seconds=0.5, rate=22050)
        assert {file.name for file in folder.iterdir()} == {f"{name}.wav" for name in audio}
        for name, array in audio.items():
            file = folder / f"{name}.wav"
            about = soundfile.info(file)
            assert (about.format, about.subtype, about.channels) == ("WAV", "PCM_16", 2)
            read, rate = soundfile.read(file, dtype="float32")
            assert rate == 22050
            assert np.array_equal(read, array)


def test_write_musdb_replaces(tmp_path):
    write_musdb(str(tmp_path), tracks=1, seconds=0.2, rate=8000)
    (folder,) = write_musdb(str(tmp_path), tracks=1, seconds=0.1, rate=8000)
    assert soundfile.info(folder / "mixture.wav").frames == 800


def test_import_is_light():
    code = (
        "import sys, norbert_store._command.demo_music; "
        "sys.exit(any(name in sys.modules for name in ('scipy', 'soundfile')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
