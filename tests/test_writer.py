from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import xarray
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.storage import LocalStore, MemoryStore

import norbert_store
from norbert_store import TF, LogCurve, Mel, PowerCurve, ReadyBins
from norbert_store._check.verify import verify
from norbert_store._format.document import Document
from norbert_store._format.shard import ShardIndex, index_bytes
from norbert_store._jpeg.layout import read_header
from norbert_store._spectra.levels import scale_of, scale_within
from norbert_store.errors import (
    AudioError,
    MagnitudeError,
    SourceError,
    StoreExistsError,
    TrackError,
)

RATE = 8000


def index_of(shard, channels=2, chunks=4):
    return ShardIndex.parse(shard[-index_bytes(channels, chunks) :], channels, chunks, len(shard))


@pytest.fixture
def create(tmp_path, options):
    def create_here(name="store.zarr", **changed):
        return norbert_store.create(tmp_path / name, **options(**changed))

    return create_here


@pytest.fixture(scope="module")
def audio(music):
    return music(20011, 7)


@pytest.fixture(scope="module")
def expected_shards(audio, options, shards):
    store = MemoryStore()
    with norbert_store.create(store, **options()) as writer:
        writer.add("track", audio)
    return shards(store)


# ---- the same bytes, however the audio comes


def written(options, shards, stems, peak=None, **changed):
    store = MemoryStore()
    with norbert_store.create(store, **options(**changed)) as writer:
        writer.add("track", stems, peak=peak)
    return shards(store)


def peaks(audio):
    """The largest samples, which are found where audio can be read twice."""
    return {target: float(np.abs(stem).max()) for target, stem in audio.items()}


def where(track):
    """Where a track lies, how long it is, and which targets it has."""
    return track.start, track.frames, track.samples, list(track.present.values())


def cut(audio, sizes):
    """Cut audio into blocks of the given sizes, over and over."""
    start, i = 0, 0
    while start < len(audio):
        yield audio[start : start + sizes[i % len(sizes)]]
        start += sizes[i % len(sizes)]
        i += 1


@pytest.mark.slow
@settings(max_examples=15)
@given(st.lists(st.integers(1, 9000), min_size=1, max_size=5).filter(lambda sizes: max(sizes) > 50))
def test_blocks_of_any_size_give_the_same_shards(options, shards, audio, expected_shards, sizes):
    stems = {target: cut(stem, sizes) for target, stem in audio.items()}
    assert written(options, shards, stems, peaks(audio)) == expected_shards


@pytest.mark.slow
@settings(max_examples=15)
@given(st.integers(100, 30000), st.randoms(use_true_random=False))
def test_interleaved_blocks_give_the_same_shards(options, shards, audio, expected_shards, size, random):
    blocks = {target: list(cut(stem, [size])) for target, stem in audio.items()}
    order = [target for target, pieces in blocks.items() for _ in pieces]
    random.shuffle(order)
    interleaved = ((target, blocks[target].pop(0)) for target in order)
    assert written(options, shards, interleaved, peaks(audio)) == expected_shards


def test_files_give_the_same_shards(options, shards, audio, expected_shards, tmp_path):
    for target, stem in audio.items():
        soundfile.write(tmp_path / f"{target}.wav", stem, RATE)
        soundfile.write(tmp_path / f"{target}.flac", stem, RATE)
    paths = {"mixture": tmp_path / "mixture.wav", "vocals": str(tmp_path / "vocals.flac"), "drums": audio["drums"]}
    assert written(options, shards, paths) == expected_shards


def test_float64_and_lists_give_the_same_shards(options, shards, audio, expected_shards):
    stems = {target: stem.astype(np.float64) for target, stem in audio.items()}
    stems["vocals"] = stems["vocals"].tolist()
    assert written(options, shards, stems) == expected_shards


def test_order_of_stems_does_not_matter(options, shards, audio, expected_shards):
    assert written(options, shards, dict(reversed(audio.items()))) == expected_shards


def test_magnitudes_give_the_same_shards(options, shards, audio, tmp_path, magnitude_of):
    transform = norbert_store.create(MemoryStore(), **options()).transform
    arrays = {target: magnitude_of(stem, transform) for target, stem in audio.items()}
    peaks = {target: float(magnitude.max()) for target, magnitude in arrays.items()}
    with norbert_store.create(tmp_path / "x.zarr", **options()) as writer:
        writer.add("track", audio, peak=peaks)
    np.save(tmp_path / "mixture.npy", arrays["mixture"])
    arrays["mixture"] = np.load(tmp_path / "mixture.npy", mmap_mode="r")
    vocals = zarr.create_array(
        tmp_path / "vocals.zarr", shape=arrays["vocals"].shape, dtype="float32", chunks=(1, 50, 60)
    )
    vocals[:] = arrays["vocals"]
    arrays["vocals"] = vocals
    store = MemoryStore()
    with norbert_store.create(store, **options()) as writer:
        writer.add_magnitudes("track", arrays, samples=20011)
    assert shards(store) == shards(tmp_path / "x.zarr")
    assert where(norbert_store.open(store)[0]) == (0, 158, 20011, [True, True, True])


def test_mono_audio_may_have_one_dimension(options, shards, audio):
    mono = audio["mixture"][:, 0]
    flat, column = (written(options, shards, {"mixture": x}, channels=1) for x in (mono, mono[:, np.newaxis]))
    assert flat == column


# ---- where tracks come to lie


def test_row_tells_where_the_track_lies(small):
    store = MemoryStore()
    with norbert_store.create(store, targets=["a", "b"], rate=RATE, channels=1) as writer:
        writer.add("x", {"b": np.zeros(2049)})
    assert where(norbert_store.open(store)[0]) == (0, 4, 2049, [False, True])


def test_tracks_start_at_chunks_and_bundles_at_shards(bundled):
    starts = [track.start for track in bundled.db]
    frames = [track.frames for track in bundled.db]
    assert frames == [20, 70, 30, 9, 67]
    # 2 + 5 + 2 chunks of 16 frames take 2 1/4 shards; the next bundle begins with the fourth shard
    assert starts == [0, 32, 112, 192, 208]


def test_each_track_is_a_bundle_unless_told_otherwise(small):
    assert all(track.start % 64 == 0 for track in small.db)
    assert [track.start for track in small.db] == [0, 256, 320, 384]


def test_shards_are_one_file_for_each_target(bundled, shards):
    keys = {f"magnitude/c/{target}/0/{shard}/0" for target in range(3) for shard in range(5)}
    assert set(shards(bundled.path)) == keys


def test_tracks_longer_than_a_shard_lie_in_several(small, shards):
    assert small.db[0].frames == 201
    of_mixture = [key for key in shards(small.path) if key.startswith("magnitude/c/0/0/")]
    assert len(of_mixture) == 4 + 1 + 1 + 1


def test_chunks_lie_time_outer_and_channel_inner(expected_shards):
    index = index_of(expected_shards["magnitude/c/0/0/0/0"])
    places = [index.place(channel, chunk) for chunk in range(4) for channel in range(2)]
    ends = [0, *(offset + length for offset, length in places)]
    assert [offset for offset, _ in places] == ends[:-1]


def test_absent_stems_take_no_files(small, shards):
    bob = small.db["Bob - Short"]
    assert bob.present == {"mixture": True, "vocals": False, "drums": True}
    assert f"magnitude/c/1/0/{bob.start // 64}/0" not in shards(small.path)


@pytest.mark.parametrize("stems", [{"mixture", "drums"}, {"drums"}, {"mixture", "vocals", "drums"}])
def test_stems_that_are_none_or_left_out_are_absent(create, music, stems):
    audio = music(3000, 8)
    with create() as writer:
        writer.add("none", {target: audio[target] if target in stems else None for target in audio})
        writer.add("left out", {target: audio[target] for target in stems})
    db = norbert_store.open(writer.location)
    for track in db:
        assert {target for target, there in track.present.items() if there} == stems
    assert np.array_equal(db[0].magnitude, db[1].magnitude, equal_nan=True)


def test_silence_is_stored_once_and_every_chunk_of_it_is_there(create, shards):
    with create() as writer:
        writer.add("silence", {"mixture": np.zeros((20000, 2))})
    found = shards(Path(writer.location))
    assert len(found) == 3
    for key, shard in found.items():
        last = key == "magnitude/c/0/0/2/0"
        index, used = index_of(shard), 10 - 8 if last else 4
        places = {index.place(channel, chunk) for channel in range(2) for chunk in range(used)}
        assert None not in places
        assert len(places) == (2 if last else 1)  # the last chunk ends with the track
        assert {index.place(channel, chunk) for channel in range(2) for chunk in range(used, 4)} <= {None}
        assert len(shard) == sum(length for _, length in places) + index_bytes(2, 4)
    assert (norbert_store.open(writer.location)[0].magnitude.sel(target="mixture") == 0).all()


def test_equal_channels_are_stored_once(options, shards, audio):
    left = audio["mixture"][:, :1]
    one = written(options, shards, {"mixture": left}, channels=1)
    two = written(options, shards, {"mixture": np.repeat(left, 2, axis=1)})
    assert one.keys() == two.keys()
    for key in one:
        assert len(two[key]) - index_bytes(2, 4) == len(one[key]) - index_bytes(1, 4)


def test_equal_chunks_are_shared_within_one_track_and_target_only(create, shards):
    silence = np.zeros((6000, 2))
    with create(bundle_tracks=2, shard_chunks=16) as writer:
        for name in ("one", "two"):
            writer.add(name, {"mixture": silence, "vocals": silence})
    one, two = norbert_store.open(writer.location)
    assert (one.frames, one.start, two.start) == (48, 0, 48)
    places = []
    for target, (key, shard) in enumerate(shards(Path(writer.location)).items()):
        assert key == f"magnitude/c/{target}/0/0/0"
        index = index_of(shard, chunks=16)
        of_one, of_two = (
            {index.place(channel, chunk) for channel in range(2) for chunk in range(first, first + 3)}
            for first in (0, 3)
        )
        assert len(of_one) == len(of_two) == 1
        assert of_one.isdisjoint(of_two)
        places.append(of_one)
    assert places[0] == places[1]  # each in its own file
    assert verify(writer.location)


@pytest.mark.parametrize("samples", [1, 2, 127, 128, 129, 2047, 2048, 2049])
def test_tracks_of_any_length(create, music, samples):
    with create() as writer:
        writer.add("short", music(samples, 9))
    track = norbert_store.open(writer.location)[0]
    assert (track.samples, track.frames) == (samples, -(-samples // 128) + 1)
    assert track.magnitude.shape == (3, 2, track.frames, 113)
    assert not np.isnan(track.magnitude).any()
    assert verify(writer.location)


@pytest.mark.parametrize("channels", [1, 3, ("mid", "side")])
def test_channels(create, channels):
    labels = {1: ("mono",), 3: ("0", "1", "2")}.get(channels, channels)
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (3000, len(labels)))
    with create(channels=channels) as writer:
        writer.add("noise", {"mixture": noise})
    db = norbert_store.open(writer.location)
    assert db.channels == labels
    assert db[0].magnitude.sel(channel=labels[-1]).shape == (3, 25, 113)
    assert verify(writer.location)


def test_every_shared_store_is_whole(made):
    assert verify(made.path)


# ---- commits


@pytest.fixture
def reads_right(magnitude_of, codec_error):
    """Check that a store holds just these tracks, and that their magnitudes are those of the audio."""

    def check(folder, audio, thoroughly=True):
        db = norbert_store.open(folder)
        document = Document.from_json((folder / "zarr.json").read_bytes(), "")
        assert db.names == list(audio)
        for track in db:
            levels = track.levels.load()
            for target, stem in audio[track.name].items():
                if stem is None:
                    assert np.isnan(track.magnitude.sel(target=target)).all()
                else:
                    exact = magnitude_of(stem, db.transform)
                    of_target = levels.sel(target=target)
                    assert codec_error(of_target.values, exact, document, int(of_target.scale)) <= 1
        if thoroughly:
            plain = xarray.open_zarr(folder)
            assert np.array_equal(plain.magnitude, db.to_xarray().magnitude, equal_nan=True)
            assert verify(folder)

    return check


def test_new_store_can_be_opened_at_once(create, reads_right):
    with create() as writer:
        db = norbert_store.open(writer.location)
        assert (len(db), db.names, db.to_xarray().magnitude.shape) == (0, [], (3, 2, 0, 113))
        reads_right(Path(writer.location), {})
    reads_right(Path(writer.location), {})


@pytest.mark.slow
def test_only_committed_tracks_are_seen(create, music, reads_right):
    audio = {name: music(9000, i) for i, name in enumerate("abc")}
    with create() as writer:
        writer.add("a", audio["a"])
        assert len(norbert_store.open(writer.location)) == 0
        writer.commit()
        early = norbert_store.open(writer.location)
        writer.add("b", audio["b"])
        writer.add("c", audio["c"])
        reads_right(Path(writer.location), {"a": audio["a"]})
        writer.commit()
        writer.commit()
        reads_right(Path(writer.location), audio)
    reads_right(Path(writer.location), audio)
    assert early.names == ["a"]
    assert not np.isnan(early[0].magnitude).any()


@pytest.mark.slow
def test_bundles_that_are_not_full_wait_for_the_next_commit(create, music, reads_right):
    audio = {name: music(3000, i) for i, name in enumerate("abc")}
    with create(bundle_tracks=2) as writer:
        for name, stems in audio.items():
            writer.add(name, stems)
        writer.commit()
        reads_right(Path(writer.location), {"a": audio["a"], "b": audio["b"]})
    reads_right(Path(writer.location), audio)


def test_commit_happens_by_itself(create, music, monkeypatch):
    monkeypatch.setattr("norbert_store._write.commit.COMMIT_SECONDS", 0.0)
    with create() as writer:
        writer.add("a", music(1000, 0))
        assert norbert_store.open(writer.location).names == ["a"]


def test_programs_that_know_no_consolidated_metadata_read_the_closed_store(small):
    group: Any = zarr.open_group(small.path, mode="r", use_consolidated=False)
    assert np.array_equal(group["magnitude"][...], small.db.to_xarray().magnitude, equal_nan=True)
    assert list(group["track/name"][:]) == list(small.audio)


def test_error_in_the_with_block_commits_what_was_added_before(create, music, tmp_path, reads_right):
    audio = {name: music(9000, i) for i, name in enumerate("ab")}

    def fill():
        with create() as writer:
            for name, stems in audio.items():
                writer.add(name, stems)
            raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        fill()
    reads_right(tmp_path / "store.zarr", audio)


def breaking(audio, error):
    """Interleaved blocks of several shards' length that end with an error."""
    for start in range(0, len(audio["mixture"]), 1000):
        for target, stem in audio.items():
            yield target, stem[start : start + 1000]
    raise error


@pytest.mark.slow
@pytest.mark.parametrize(
    ("bundle_tracks", "error"),
    [(1, RuntimeError()), (2, AudioError()), (3, KeyboardInterrupt()), (4, RuntimeError()), (100, RuntimeError())],
)
def test_track_that_breaks_off_leaves_nothing_and_the_writer_goes_on(
    create, music, shards, audio, bundle_tracks, error, reads_right
):
    whole = {name: music(3000, i) for i, name in enumerate("abcd")}
    whole["d"]["vocals"] = None
    with create(bundle_tracks=bundle_tracks) as writer, create("right.zarr", bundle_tracks=bundle_tracks) as right:
        for name, stems in whole.items():
            if name in "bcd":
                with pytest.raises(type(error)):
                    writer.add("broken", breaking(audio, error))
            writer.add(name, stems)
            right.add(name, stems)
        with pytest.raises(type(error)):
            writer.add("broken", breaking(audio, error))
    reads_right(Path(writer.location), whole)
    # and not a byte more or less than if it had never been tried
    assert shards(Path(writer.location)) == shards(Path(right.location))


def test_name_of_a_track_that_broke_off_is_free_again(create, audio):
    with create() as writer:
        with pytest.raises(RuntimeError):
            writer.add("track", breaking(audio, RuntimeError()), labels={"year": "text"})
        writer.add("track", audio, labels={"year": 1999})
    assert norbert_store.open(writer.location).tracks.year.values.tolist() == [1999]


KILLED = """
import sys
import numpy as np
import norbert_store
from norbert_store import TF

def noise(seed):
    return np.random.default_rng(seed).uniform(-0.5, 0.5, (20000, 2)).astype(np.float32)

writer = norbert_store.create(
    sys.argv[1],
    targets=["mixture"],
    transform=TF(rate=8000, n_fft=256),
    bandwidth=3500,
    chunk_frames=16,
    shard_chunks=4,
    effort=0,
)
for i in range(3):
    writer.add(f"track {i}", {"mixture": noise(i)})
writer.commit()
for i in range(3, 1000000):
    print(i, flush=True)
    writer.add(f"track {i}", {"mixture": noise(i)})
    if len(sys.argv) > 2:
        writer.commit()
"""


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [[], ["commit"]], ids=["while adding", "while committing"])
def test_killed_process_leaves_the_last_commit(tmp_path, arguments, reads_right):
    folder = tmp_path / "killed.zarr"
    command = [sys.executable, "-c", KILLED, str(folder), *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        lines = [process.stdout.readline() for _ in range(8)]
        process.kill()
        process.wait()
    assert lines[0] == "3\n"
    db = norbert_store.open(folder)
    # the last line was printed before its track was added
    assert len(db) == 3 if not arguments else len(db) >= 10
    noise = [np.random.default_rng(i).uniform(-0.5, 0.5, (20000, 2)).astype(np.float32) for i in range(len(db))]
    reads_right(folder, {f"track {i}": {"mixture": stem} for i, stem in enumerate(noise)})


# ---- scales


def scaled(audio):
    return {"mixture": audio["mixture"], "vocals": 30 * audio["vocals"], "drums": 1e-12 * audio["drums"]}


@pytest.mark.parametrize("effort", [0, 3])
@pytest.mark.parametrize("by", ["arrays", "lists of one channel", "files", "magnitudes"])
def test_any_loudness_is_stored_relative_to_its_own_peak(create, tmp_path, audio, by, effort, magnitude_of):
    stems = scaled(audio)
    with create(effort=effort, quality=100) as writer:
        exact = {target: magnitude_of(stem, writer.transform) for target, stem in stems.items()}
        if by == "magnitudes":
            writer.add_magnitudes("a", exact)
        elif by == "files":
            files = {target: tmp_path / f"{target}.wav" for target in stems}
            for target, file in files.items():
                soundfile.write(file, stems[target], RATE, subtype="FLOAT")
            writer.add("a", files)
        else:
            writer.add("a", {target: stem if by == "arrays" else stem.tolist() for target, stem in stems.items()})
    track = norbert_store.open(writer.location)[0]
    for target, magnitude in exact.items():
        largest = float(magnitude.max())
        assert np.abs(track.magnitude.sel(target=target) - magnitude).max() < 0.08 * largest
        # without a search for fewer bytes, the samples are looked at, not the spectrum
        bound = float(np.abs(stems[target]).max())
        usual = scale_within(bound) if effort == 0 and by != "magnitudes" else scale_of(largest)
        assert track.scales[target] == usual
    assert verify(writer.location)


def test_scales_lie_in_the_table_and_in_every_jpeg(create, audio):
    with create() as writer:
        writer.add("a", scaled(audio))
        writer.add("b", {"drums": audio["drums"]})
    db = norbert_store.open(writer.location)
    assert db.tracks["_scale"].dtype == np.int16
    assert db.tracks["_scale"].values.tolist() == [list(db[0].scales.values()), [0, 0, db[1].scales["drums"]]]
    for track in db:
        for target, scale in track.scales.items():
            for chunk in range(-(-track.frames // 16)):
                header = read_header(track.jpeg(target, 0, chunk))
                assert header.scale == scale
                assert header.shape[0] == min(16, track.frames - 16 * chunk)


@pytest.mark.parametrize(
    "stream", [lambda stems: stems.items(), lambda stems: {k: iter([v]) for k, v in stems.items()}]
)
def test_blocks_that_come_once_take_a_peak(create, audio, stream):
    stems = {**audio, "vocals": 30 * audio["vocals"]}
    with create() as writer:
        with pytest.raises(
            MagnitudeError, match="track 'loud': target 'vocals' has a magnitude of .* give peak="
        ) as caught:
            writer.add("loud", stream(stems))
        peak = float(re.search(r"peak=([\d.e+]+) or more", str(caught.value))[1])
        writer.add("told", stream(stems), peak=peak)
        writer.add("told of one", stream(stems), peak={"vocals": peak})
        writer.add("usual", stream(audio))
        with pytest.raises(MagnitudeError, match="give peak="):
            writer.add("too low", stream(audio), peak=1e-3)
    db = norbert_store.open(writer.location)
    assert db.names == ["told", "told of one", "usual"]
    told, of_one, usual = (track.scales for track in db)
    assert len(set(told.values())) == 1
    assert of_one == {"mixture": 0, "vocals": told["vocals"], "drums": 0}
    assert set(usual.values()) == {0}
    assert verify(writer.location)


@pytest.mark.parametrize(
    ("peak", "message"),
    [
        *[
            (value, "peak must be a positive number")
            for value in (0, -1.0, np.nan, np.inf, True, "1", 1e39, {"vocals": 0})
        ],
        ({"voice": 1.0}, "peak has 'voice', which is no target of the store: 'mixture', 'vocals', 'drums'"),
    ],
)
def test_peaks_that_are_none_are_refused(create, audio, peak, message):
    with create() as writer, pytest.raises(ValueError, match=message):
        writer.add("a", audio, peak=peak)


def test_what_changes_while_it_is_read_is_told(create):
    class Growing:
        """Magnitudes that are larger whenever they are read."""

        shape, gain = (2, 40, 113), 1.0

        def __getitem__(self, key):
            self.gain *= 10
            return np.full(self.shape, 0.1 * self.gain, np.float32)[key]

    message = r"had no magnitude above \d+ when it was looked through, and now one of"
    with create() as writer, pytest.raises(MagnitudeError, match=message):
        writer.add_magnitudes("a", {"mixture": Growing()})


def test_full_scale_fits_blocks_of_unknown_peak(create):
    extremes = np.stack([np.ones(5000), np.resize([1.0, -1.0], 5000)], axis=1)
    with create() as writer:
        writer.add("full scale", [("mixture", extremes)])
        writer.add("the same as an array", {"mixture": extremes})
    assert {track.scales["mixture"] for track in norbert_store.open(writer.location)} == {0}


@pytest.mark.parametrize("gain", [1e-30, 1e-12, 1e12, 1e30])
def test_ready_magnitudes_of_any_unit_come_back_alike(options, gain):
    magnitude = np.random.default_rng(0).uniform(0, 1, (1, 40, 30)) ** 3
    transform = ReadyBins("flat", RATE, 100, np.arange(1.0, 31))
    store = MemoryStore()
    with norbert_store.create(store, **options(targets=["a"], transform=transform, channels=1, effort=3)) as writer:
        writer.add_magnitudes("usual", {"a": magnitude})
        writer.add_magnitudes("other", {"a": gain * magnitude})
    usual, other = (track.magnitude.values.astype(float) for track in norbert_store.open(store))
    errors = [np.sqrt(np.mean((found - magnitude) ** 2)) for found in (usual, other / gain)]
    assert errors[1] == pytest.approx(errors[0], rel=0.3)


# ---- bad input: each is refused, and leaves the store and the tracks before as they were


def wav(folder, name="stem.wav", samples=4000, rate=RATE, channels=2):
    noise = np.random.default_rng(1).uniform(-0.5, 0.5, (samples, channels))
    soundfile.write(folder / name, noise, rate)
    return folder / name


def changed(values, where, value):
    values = values.copy()
    values[where] = value
    return values


def cut_file(folder):
    path = wav(folder)
    path.write_bytes(path.read_bytes()[:8000])
    return path


def written_file(folder, name, content):
    (folder / name).write_bytes(content)
    return folder / name


NOISE = np.random.default_rng(0).uniform(-0.5, 0.5, (4000, 2)).astype(np.float32)


@pytest.mark.parametrize(
    ("stems", "error", "message"),
    [
        ({"mixture": changed(NOISE, (3000, 1), np.nan)}, AudioError, "track 'bad': 1 samples are NaN or infinite"),
        ({"mixture": changed(NOISE, (3000, 1), -np.inf)}, AudioError, "1 samples are NaN or infinite"),
        ({"mixture": NOISE, "vocals": iter([NOISE, changed(NOISE, 5, np.nan)])}, AudioError, "NaN or infinite"),
        ({"mixture": NOISE[:, 0]}, AudioError, r"'mixture' has 1 channels; the store has 2 \(left, right\)"),
        ({"mixture": NOISE[:, :1]}, AudioError, "'mixture' has 1 channels; the store has 2"),
        ({"mixture": np.repeat(NOISE, 2, axis=1)}, AudioError, "'mixture' has 4 channels; the store has 2"),
        ({"mixture": NOISE.T}, AudioError, "transpose"),
        (
            {"mixture": NOISE[np.newaxis]},
            AudioError,
            r"shape \(samples,\) or \(samples, channels\), found \(1, 4000, 2",
        ),
        ({"mixture": (NOISE * 32767).astype(np.int16)}, AudioError, "found dtype int16; divide"),
        ({"mixture": NOISE.astype(np.complex64)}, AudioError, "found dtype complex64"),
        ({"mixture": np.array([["a", "b"]])}, AudioError, "found dtype <U1"),
        ({"mixture": NOISE[:0]}, AudioError, "at least one sample"),
        ({"mixture": iter([NOISE, NOISE[:0]])}, AudioError, "at least one sample"),
        ({"mixture": iter([])}, AudioError, "'mixture' gave no blocks of audio"),
        ({"mixture": NOISE, "vocals": iter([])}, AudioError, "'vocals' gave no blocks of audio"),
        ({"mixture": NOISE, "vocals": NOISE[:-1]}, AudioError, "differ in length.*mixture 4000, vocals 3999"),
        ({"mixture": 5}, AudioError, "track 'bad': expected audio as an array, a path or an iterable"),
        ({"voice": NOISE}, TrackError, "no target 'voice'; it has 'mixture', 'vocals', 'drums'"),
        ({"mixture": NOISE, 5: NOISE}, TrackError, "no target 5"),
        ([("mixture", NOISE), ("voice", NOISE)], TrackError, "no target 'voice'"),
        ([("mixture", NOISE), ("vocals", NOISE[:-1])], AudioError, "differ in length.*mixture 4000, vocals 3999"),
        ([("mixture", (NOISE * 9).astype(int))], AudioError, "found dtype int64"),
        ({}, AudioError, "track 'bad': there is no audio"),
        ([], AudioError, "track 'bad': there is no audio"),
        ({"mixture": None, "vocals": None}, AudioError, "track 'bad': there is no audio"),
        (
            {"mixture": lambda folder: wav(folder, rate=44100)},
            AudioError,
            "44100 samples per second; the store has 8000",
        ),
        ({"mixture": lambda folder: wav(folder, channels=1)}, AudioError, "'mixture' has 1 channels"),
        ({"mixture": lambda folder: wav(folder, samples=0)}, AudioError, "stem.wav holds no samples"),
        ({"mixture": lambda folder: folder / "no.wav"}, SourceError, "track 'bad': there is no file .*no.wav"),
        ({"mixture": lambda folder: folder}, SourceError, "track 'bad': there is no file"),
        ({"mixture": lambda folder: written_file(folder, "0.wav", b"")}, AudioError, "0.wav is empty"),
        (
            {"mixture": lambda folder: written_file(folder, "t.wav", b"la la")},
            AudioError,
            "t.wav can't be read as audio",
        ),
        ({"mixture": cut_file}, AudioError, "stem.wav is cut off"),
        (
            {"mixture": wav, "vocals": lambda folder: wav(folder, "short.wav", 3999)},
            AudioError,
            "differ in length.*mixture 4000, vocals 3999",
        ),
        ({"mixture": wav, "vocals": NOISE[:-1]}, AudioError, "differ in length.*mixture 4000, vocals 3999"),
    ],
)
def test_bad_audio_is_refused(create, music, tmp_path, stems, error, message, reads_right):
    if isinstance(stems, dict):
        stems = {target: stem(tmp_path) if callable(stem) else stem for target, stem in stems.items()}
    audio = {name: music(2000, i) for i, name in enumerate(("before", "after"))}
    with create() as writer:
        writer.add("before", audio["before"])
        with pytest.raises(error, match=message):
            writer.add("bad", stems)
        writer.add("after", audio["after"])
    reads_right(Path(writer.location), audio, thoroughly=False)


MAGNITUDE = np.random.default_rng(0).uniform(0, 1, (2, 40, 113)).astype(np.float32)


@pytest.mark.parametrize(
    ("magnitude", "arguments", "error", "message"),
    [
        ({"mixture": changed(MAGNITUDE, (1, 39, 5), np.nan)}, {}, MagnitudeError, "track 'bad': target 'mixture'.*NaN"),
        ({"mixture": changed(MAGNITUDE, (1, 39, 5), np.inf)}, {}, MagnitudeError, "NaN or infinite"),
        ({"mixture": changed(MAGNITUDE, (1, 39, 5), -0.1)}, {}, MagnitudeError, "must not be negative"),
        (
            {"mixture": changed(MAGNITUDE.astype(float), (1, 39, 5), 1e39)},
            {},
            MagnitudeError,
            r"target 'mixture' has a magnitude of 1e\+39, which float32 can't hold",
        ),
        ({"mixture": MAGNITUDE.astype(np.complex64)}, {}, MagnitudeError, "complex64; take numpy.abs first"),
        ({"mixture": MAGNITUDE.astype("U8")}, {}, MagnitudeError, "expected magnitudes as real numbers"),
        ({"mixture": MAGNITUDE[:1]}, {}, MagnitudeError, r"shape \(2, frames, 113\), found \(1, 40, 113\)"),
        ({"mixture": MAGNITUDE[..., :-1]}, {}, MagnitudeError, r"found \(2, 40, 112\)"),
        ({"mixture": MAGNITUDE[0]}, {}, MagnitudeError, r"found \(40, 113\)"),
        ({"mixture": MAGNITUDE[:, :0]}, {}, MagnitudeError, r"found \(2, 0, 113\)"),
        ({"mixture": MAGNITUDE, "vocals": MAGNITUDE[:, 1:]}, {}, MagnitudeError, "differ in length.*vocals 39"),
        ({}, {}, MagnitudeError, "there are no magnitudes"),
        ({"mixture": None}, {}, MagnitudeError, "there are no magnitudes"),
        ({"voice": MAGNITUDE}, {}, TrackError, "no target 'voice'"),
        ({"mixture": MAGNITUDE}, {"samples": 0}, ValueError, "samples must be a whole number"),
        ({"mixture": MAGNITUDE}, {"samples": 2.5}, ValueError, "samples must be a whole number"),
        ({"mixture": MAGNITUDE}, {"samples": 9999}, MagnitudeError, "9999 samples of audio give 80 frames, found 40"),
    ],
)
def test_bad_magnitudes_are_refused(create, music, magnitude, arguments, error, message, reads_right):
    audio = {name: music(2000, i) for i, name in enumerate(("before", "after"))}
    with create() as writer:
        writer.add("before", audio["before"])
        with pytest.raises(error, match=message):
            writer.add_magnitudes("bad", magnitude, **arguments)
        writer.add("after", audio["after"])
    reads_right(Path(writer.location), audio, thoroughly=False)


@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("frames", [1, 2, 16, 17])
def test_magnitudes_without_samples_are_as_long_as_their_frames(tmp_path, centred, frames):
    transform = TF(rate=RATE, n_fft=256, hop=64, centred=centred)
    with norbert_store.create(tmp_path / "x.zarr", targets=["a"], channels=1, transform=transform) as writer:
        writer.add_magnitudes("x", {"a": np.zeros((1, frames, 129))})
    samples = norbert_store.open(writer.location)[0].samples
    assert transform.frame_count(samples) == frames
    assert transform.frame_count(samples + 1) == frames + 1
    assert verify(writer.location)


def test_ready_magnitudes_without_samples_are_frames_times_hop_long():
    transform = ReadyBins("cqt", RATE, 100, [100.0, 200.0])
    store = MemoryStore()
    with norbert_store.create(store, targets=["a"], channels=1, transform=transform) as writer:
        writer.add_magnitudes("x", {"a": np.zeros((1, 33, 2))})
    assert norbert_store.open(store)[0].samples == 3300


def test_audio_for_magnitudes_that_are_computed_elsewhere_is_refused():
    transform = ReadyBins("cqt", RATE, 100, [100.0, 200.0])
    store = MemoryStore()
    with norbert_store.create(store, targets=["a"], transform=transform) as writer:
        with pytest.raises(ValueError, match="magnitudes of transform 'cqt' are computed elsewhere"):
            writer.add("x", {"a": NOISE})
        writer.add_magnitudes("x", {"a": np.zeros((2, 3, 2))})
    assert norbert_store.open(store)[0].frames == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": ""}, "name must not be empty"),
        ({"name": " \n"}, "name must not be empty"),
        ({"name": "before"}, "a track named 'before' already"),
        ({"name": "half a pair \ud800"}, "can't be written as UTF-8"),
        ({"name": None}, "name must be a str, found None"),
        ({"name": 5}, "name must be a str, found 5"),
        ({"name": b"name"}, "name must be a str"),
        ({"split": None}, "the split of 'bad' must be a str"),
        ({"split": "\udc80"}, "the split of 'bad' .*UTF-8"),
        ({"source": "\udc80"}, "the source of 'bad' .*UTF-8"),
        ({"metadata": {"x": float("nan")}}, "metadata must hold what JSON can"),
        ({"metadata": {"x": object()}}, "metadata must hold what JSON can"),
        ({"metadata": ["x"]}, "metadata must be a mapping"),
        ({"labels": {"year": 1969, "genre": 5}}, "'genre' was string before, now found 5"),
        ({"labels": {"year": "1969"}}, "'year' was int64 before, now found '1969'"),
        ({"labels": {"year": 1969.5}}, "'year' was int64 before, now found 1969.5"),
        ({"labels": {"year": True}}, "'year' was int64 before, now found True"),
        ({"labels": {"year": 2**64}}, "'year' takes whole numbers of 64 bits"),
        ({"labels": {"year": 1, "name": "x"}}, "a track's name is no label; give it as name="),
        ({"labels": {"year": 1, "split": "x"}}, "a track's split is no label; give it as split="),
        ({"labels": {"year": 1, "_start": 5}}, "must not be empty or begin with '_', found '_start'"),
        ({"labels": {"year": 1, "": "x"}}, "must not be empty or begin with '_', found ''"),
        ({"labels": {"year": 1, 5: "x"}}, "a label's name must be a str, found 5"),
        ({"labels": {"year": 1, "mood": [1]}}, r"'mood' must be text, a truth value, a number or a list of texts; .*1"),
        ({"labels": {"year": 1, "mood": {"a": "b"}}}, "'mood' must be text, a truth value, a number or a list of text"),
        ({"labels": {"year": 1, "genre": ["Rock"]}}, r"'genre' was string before, now found \['Rock'\]"),
        ({"labels": {"year": 1, "mood": ["\ud800"]}}, "'mood' .*UTF-8"),
        ({"source": 3}, "the source of 'bad' must be a str, found 3"),
        ({"labels": {"year": 1, "mood": "\ud800"}}, "'mood' .*UTF-8"),
        ({"labels": ["year"]}, "labels must be a mapping"),
    ],
)
def test_bad_rows_are_refused(create, music, arguments, message, reads_right):
    audio = {name: music(1000, i) for i, name in enumerate(("before", "after"))}
    arguments = {"name": "bad", "labels": {"year": 1}, **arguments}
    with create() as writer:
        writer.add("before", audio["before"], labels={"year": 1969, "genre": "Rock"})
        with pytest.raises(TrackError, match=message):
            writer.add(arguments.pop("name"), audio["after"], **arguments)
        writer.add("after", audio["after"], labels={"year": 1970})
    reads_right(Path(writer.location), audio, thoroughly=False)
    assert norbert_store.open(writer.location).tracks.year.values.tolist() == [1969, 1970]


NAMES = [
    "n" * 100_000,
    "Žofie – Ticho",
    "日本語",
    "🎵",
    "a/b",
    "/",
    "..",
    "../../etc/passwd",
    "a\\b",
    "C:\\x",
    "two\nlines",
    "tab\t",
    " spaces ",
    "nul\0",
    "<script>alert(1)</script>",
    "&amp; <b>bold</b> **markup** _x_ `y` $z$",
    "[red]rich[/red]",
    "%s {0} {name}",
    "zarr.json",
    "c",
    "nan",
    "0",
]


def is_label(name):
    """Whether a label may bear a name: people must be able to see all of it."""
    return name.isprintable() and len(name) <= 1000


def test_any_text_is_a_name_and_touches_nothing_else(create, tmp_path):
    with create(targets=["mixture"], bundle_tracks=10) as writer:
        for i, name in enumerate(NAMES):
            labels = {"same": name} | ({name: i} if is_label(name) else {})
            writer.add(name, {"mixture": NOISE[: 100 + i]}, split=name, source=name, labels=labels)
    db = norbert_store.open(writer.location)
    assert db.names == NAMES
    assert list(db.tracks.split.values) == list(db.tracks._source.values) == list(db.tracks.same.values) == NAMES
    for i, name in enumerate(NAMES):
        assert db[name].samples == 100 + i
        assert db[name].labels.get(name) == (i if is_label(name) else None)
        assert not np.isnan(db[name].magnitude).any()
        assert name in db
        assert len(norbert_store.open(writer.location, split=name)) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["store.zarr"]
    assert "<script>" not in db._repr_html_() + db["<script>alert(1)</script>"]._repr_html_()


def test_new_labels_reach_back_to_the_first_row_of_a_long_table(create, monkeypatch):
    monkeypatch.setattr("norbert_store._write.settings.ROWS", 4)
    with create(targets=["mixture"]) as writer:
        for i in range(11):
            labels = {"number": i, **({"late": f"from {i}", "float": i / 2} if i > 8 else {})}
            writer.add(f"track {i}", {"mixture": NOISE[:100]}, labels=labels)
            if i in (2, 6, 8):
                writer.commit()
    db = norbert_store.open(writer.location)
    assert db.names == [f"track {i}" for i in range(11)]
    assert db.tracks.number.values.tolist() == list(range(11))
    assert db.tracks.late.values.tolist() == [""] * 9 + ["from 9", "from 10"]
    assert np.array_equal(db.tracks.float, [np.nan] * 9 + [4.5, 5.0], equal_nan=True)
    assert db["track 3"].labels == {"number": 3, "late": None, "float": None}
    table = xarray.open_zarr(writer.location, group="label")
    assert table["1"].values.tolist() == db.tracks.late.values.tolist()


GAPS: dict[str, Any] = {
    "text": ["a", None, None, "", "ü"],
    "list": [["a", "b"], None, [], ["", "x"], None],
    "number": [2**62, None, -1, 0, 7],
    "fraction": [0.5, 1, None, float("inf"), -0.0],
    "truth": [None, True, False, None, True],
}


def test_text_of_numpy_is_text(tmp_path):
    names, genres = np.array(["a", "b"]), np.array(["Rock", "Pop"])
    with norbert_store.create(
        tmp_path / "x.zarr", targets=list(np.array(["mixture"])), rate=RATE, channels=1
    ) as writer:
        for name, genre in zip(names, genres, strict=True):
            writer.add(name, {"mixture": NOISE[:100, :1]}, split=name, labels={"genre": genre, "genres": [genre]})
    db = norbert_store.open(tmp_path / "x.zarr")
    assert [(track.name, track.labels) for track in db] == [
        ("a", {"genre": "Rock", "genres": ["Rock"]}),
        ("b", {"genre": "Pop", "genres": ["Pop"]}),
    ]
    assert {type(text) for track in db for text in (track.name, track.split, *track.labels["genres"])} == {str}
    assert verify(tmp_path / "x.zarr")


def test_values_under_a_mask_are_refused(tmp_path):
    masked = np.ma.masked_less(np.full((100, 1), 0.5), 1)
    with norbert_store.create(tmp_path / "x.zarr", targets=["mixture"], rate=RATE, channels=1) as writer:
        with pytest.raises(AudioError, match="found a masked array; fill it first"):
            writer.add("a", {"mixture": masked})
        with pytest.raises(MagnitudeError, match="found a masked array; fill it first"):
            writer.add_magnitudes("a", {"mixture": np.ma.masked_less(np.ones((1, 3, 1025)), 2)})


@pytest.mark.parametrize("again", [(), (1,), (1, 2, 3, 4)])
def test_labels_have_gaps_of_every_type(create, again):
    """Also at the beginning, and if the store was closed in between."""
    writer = create(targets=["mixture"])
    for i in range(5):
        if i in again:
            writer.close()
            writer = norbert_store.append(writer.location)
        labels = {label: values[i] for label, values in GAPS.items()}
        writer.add(str(i), {"mixture": NOISE[:100]}, labels=labels)
    writer.close()
    db = norbert_store.open(writer.location)
    for i in range(5):
        # an empty text is one that isn't known
        assert db[i].labels == {label: None if values[i] == "" else values[i] for label, values in GAPS.items()}
    assert db.tracks.number.values.tolist() == GAPS["number"]
    assert db.tracks.truth.values.tolist() == GAPS["truth"]
    assert db.tracks.list.values.tolist() == GAPS["list"]
    assert np.array_equal(db.tracks.fraction, [0.5, 1, np.nan, np.inf, 0], equal_nan=True)
    assert verify(writer.location)


def test_closed_writers_take_no_more_tracks(create, music, reads_right):
    with create() as writer:
        writer.add("a", music(1000, 0))
    with pytest.raises(TrackError, match=r"the writer of .*store\.zarr is closed"):
        writer.add("b", music(1000, 0))
    with pytest.raises(TrackError, match="closed"):
        writer.add_magnitudes("b", {"mixture": MAGNITUDE})
    writer.close()
    reads_right(Path(writer.location), {"a": music(1000, 0)})


# ---- create


def test_existing_store_is_never_written_over(small_copy, options, shards, small):
    with pytest.raises(StoreExistsError, match=r"copy\.zarr exists already and isn't empty"):
        norbert_store.create(small_copy, **options())
    assert shards(small_copy) == shards(small.path)
    assert norbert_store.open(small_copy).names == small.db.names


@pytest.mark.parametrize("kind", [str, LocalStore])
def test_folder_that_holds_anything_is_no_place_for_a_store(tmp_path, options, kind):
    (tmp_path / "my.txt").write_text("mine")
    with pytest.raises(StoreExistsError):
        norbert_store.create(kind(tmp_path), **options())
    with pytest.raises(StoreExistsError):
        norbert_store.create(tmp_path / "my.txt", **options())
    assert (tmp_path / "my.txt").read_text() == "mine"
    assert len(list(tmp_path.iterdir())) == 1


def test_store_that_holds_anything_is_no_place_either(options):
    store = MemoryStore()
    zarr.create_array(store, name="x", shape=(1,), dtype="int8")
    with pytest.raises(StoreExistsError):
        norbert_store.create(store, **options())


@pytest.mark.parametrize("name", ["empty", "new", "new/and/deep"])
def test_empty_and_new_folders_are_taken(tmp_path, options, music, name):
    (tmp_path / "empty").mkdir()
    with norbert_store.create(tmp_path / name, **options()) as writer:
        writer.add("a", music(1000, 0))
    assert norbert_store.open(tmp_path / name).names == ["a"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"targets": ()}, "targets must be"),
        ({"targets": "mixture"}, "targets must be a sequence of names, found the one name 'mixture'"),
        ({"targets": ("a", "a")}, "targets must name everything once"),
        ({"targets": ("a", "")}, "targets must be .* none of them empty"),
        ({"targets": ("a", 5)}, "targets must be"),
        ({"targets": ("\ud800",)}, "UTF-8"),
        ({"rate": 0, "transform": None}, "rate must be"),
        ({"rate": -44100, "transform": None}, "rate must be"),
        ({"rate": 44100.5, "transform": None}, "rate must be"),
        ({"rate": True, "transform": None}, "rate must be"),
        ({"rate": 44100}, "rate is 44100, but the transform's is 8000"),
        *[({"channels": channels}, "channels must be") for channels in (0, -1, "left", (), ("", "b"), ("a", 5))],
        *[({"channels": channels}, "channels must be their number, or") for channels in (True, None, 2.0)],
        ({"channels": ("a", "a")}, "channels must name everything once"),
        ({"transform": "stft"}, "transform must be"),
        *[({"bandwidth": bandwidth}, "bandwidth must be") for bandwidth in (0, -1, float("nan"), float("inf"), "8k")],
        ({"curve": 0.35}, "curve must be"),
        ({"curve": "power"}, "curve must be"),
        *[({"quality": quality}, "quality must be") for quality in (-1, 100.5, float("nan"), "80", None, True)],
        *[({"effort": effort}, "effort must be") for effort in (-1, 5, 1.5, "2", None, True)],
        *[({"chunk_frames": frames}, "chunk_frames must be") for frames in (0, -8, 12, 8.0, "8", True)],
        ({"chunk_frames": 65504}, "too large for a JPEG"),
        ({"transform": TF(rate=192000, n_fft=2**17), "bandwidth": 96000}, "too large for a JPEG"),
        *[({"shard_chunks": chunks}, "shard_chunks must be") for chunks in (0, -1, 1.5, True)],
        *[({"bundle_tracks": tracks}, "bundle_tracks must be") for tracks in (0, -1, 1.5, True)],
        ({"title": 5}, "title must be a str"),
        ({"license": "\ud800"}, "UTF-8"),
        ({"citation": ["a"]}, "citation must be a str"),
        ({"transform": Mel(n_mels=200, rate=8000, n_fft=256)}, "holds none of the STFT's bins"),
        ({"transform": Mel(n_mels=0, rate=8000)}, "n_mels must be"),
        ({"transform": ReadyBins("x", 8000, 1, [1.0], {"y": float("nan")})}, "JSON"),
    ],
)
def test_parameters_out_of_range_are_refused_before_anything_is_written(create, tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        create(**changes)
    assert not list(tmp_path.iterdir())


def test_chunks_have_about_as_many_pixels_whatever_the_bins():
    for n_fft in (256, 2048, 8192):
        transform = TF(rate=44100, n_fft=n_fft)
        layout = norbert_store.create(MemoryStore(), targets=["a"], transform=transform)._committer.document.layout
        assert layout.chunk_frames % 8 == 0
        assert layout.chunk_frames * layout.bins == pytest.approx(190_000, rel=0.03)
    few = norbert_store.create(
        MemoryStore(), targets=["a"], transform=ReadyBins("x", 100, 1, [1.0])
    )._committer.document.layout
    assert few.chunk_frames == 8192


def test_usual_parameters_are_those_of_the_format():
    document = norbert_store.create(MemoryStore(), targets=["mixture"])._committer.document
    assert document.channels == ("left", "right")
    assert (document.layout.chunk_frames, document.layout.bins, document.layout.shard_chunks) == (256, 744, 64)
    assert document.layout.curve == PowerCurve(exponent=0.3)
    assert document.encoder == {"quality": 80.0, "effort": 3}
    assert document.transform == {
        "name": "stft",
        "rate": 44100,
        "n_fft": 2048,
        "hop": 1024,
        "window": "hann",
        "centred": True,
        "padding": "zeros",
        "bandwidth": 16000.0,
    }


@pytest.mark.parametrize("curve", [PowerCurve(exponent=0.5), LogCurve(range_decibel=60)])
def test_curves_and_quality_are_kept(create, curve):
    with create(curve=curve, quality=95) as writer:
        writer.add("a", {"mixture": NOISE})
    document = json.loads((Path(writer.location) / "zarr.json").read_bytes())
    codecs = document["consolidated_metadata"]["metadata"]["magnitude"]["codecs"][0]["configuration"]["codecs"]
    assert codecs[0]["configuration"] == {"quality": 95.0, "filter": curve.config}
    db = norbert_store.open(writer.location)
    assert db.look_up_table[0] == 0
    assert db.look_up_table[255] == 1
    scale = db[0].scales["mixture"]
    assert np.isin(db[0].magnitude.sel(target="mixture"), 2.0**scale * db.look_up_table).all()


def test_higher_quality_is_nearer_and_larger(options, shards, magnitude_of):
    errors, sizes = [], []
    for quality in (50, 80, 100):
        store = MemoryStore()
        with norbert_store.create(store, **options(quality=quality)) as writer:
            writer.add("a", {"mixture": NOISE})
        right = magnitude_of(NOISE, writer.transform)
        errors.append(float(np.abs(norbert_store.open(store)[0].magnitude[0] - right).mean()))
        sizes.append(sum(map(len, shards(store).values())))
    assert errors == sorted(errors, reverse=True)
    assert sizes == sorted(sizes)


def test_what_is_shown_of_a_writer(create, music):
    with create() as writer:
        writer.add("a", music(1000, 0))
        assert re.fullmatch(r"<norbert_store\.Writer of '.*store\.zarr', 1 tracks>", repr(writer))


def test_one_array_instead_of_stems_is_refused(tmp_path):
    with norbert_store.create(tmp_path / "x.zarr", targets=["mixture"], rate=8000, channels=1) as writer:
        with pytest.raises(AudioError, match=r"expected stems by target, such as \{'mixture': audio\}; found ndarray"):
            writer.add("bad", np.zeros((1000, 1)))
        with pytest.raises(AudioError, match="expected stems by target"):
            writer.add("bad", "mixture.wav")  # type: ignore[arg-type]
