"""What is damaged is made again, byte for byte, from sources and the root's document; or dropped; or named."""

from __future__ import annotations

import hashlib
import json
import os
import shutil

import numpy as np
import pytest
import soundfile
import zarr
from zarr.storage import MemoryStore

import norbert_store
from norbert_store._check.repair import repair
from norbert_store._check.report import Report
from norbert_store._check.verify import verify
from norbert_store._export.run import export_folder
from norbert_store._format.document import Document
from norbert_store._format.shard import ShardIndex, index_bytes, with_checksum
from norbert_store._jpeg.encoder import encode, quantisation_table
from norbert_store._storage.lock import WriterLock
from norbert_store._storage.storage import Storage
from norbert_store.errors import (
    DamagedError,
    FormatError,
    NorbertStoreError,
    StorageError,
    StoreChangedError,
    StoreInUseError,
    StoreNotFoundError,
)
from tests.servers import FailingOnce

RATE = 8000
INDEX_BYTES = index_bytes(2, 4)
NAMES = ["Ann - Long", "Bob - Short", "Žofie – Ticho", "one sample"]


@pytest.fixture
def place(small, tmp_path):
    """A copy of the small store and its sources, in a folder."""
    return shutil.copytree(small.path.parent, tmp_path / "place")


@pytest.fixture
def store(place):
    return place / "small.zarr"


@pytest.fixture(scope="module")
def shared(tmp_path_factory, music, options):
    """Three tracks that share shards, and their sources."""
    folder = tmp_path_factory.mktemp("shared")
    with norbert_store.create(folder / "x.zarr", **options(bundle_tracks=3)) as writer:
        for i, samples in enumerate((2400, 8800, 3700)):
            stems = music(samples, i)
            (folder / str(i)).mkdir()
            for target, stem in stems.items():
                soundfile.write(folder / str(i) / f"{target}.wav", stem, RATE)
            writer.add(f"clip {i}", stems, source=str(i), labels={"number": i})
    return folder


def shard(store, target, number):
    return store / f"magnitude/c/{target}/0/{number}/0"


def flip(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def digests(store):
    """Of all files, by path."""
    files = sorted(path for path in store.rglob("*") if path.is_file())
    return {path.relative_to(store).as_posix(): hashlib.md5(path.read_bytes()).hexdigest() for path in files}


def levels(db):
    return {track.name: track.levels.values for track in db}


# ---- chunks


def remove(path):
    path.unlink()


def cut_off(path):
    os.truncate(path, path.stat().st_size // 2)


def empty(path):
    os.truncate(path, 0)


def swap_with_next(path):
    other = path.parents[1] / "1" / "0"
    data = path.read_bytes()
    path.write_bytes(other.read_bytes())
    other.write_bytes(data)


def flip_in_data(path):
    flip(path, 100)


def flip_in_index(path):
    flip(path, -20)


def fill_with_zeros(path):
    path.write_bytes(bytes(path.stat().st_size))


KINDS = [remove, cut_off, empty, swap_with_next, flip_in_data, flip_in_index, fill_with_zeros]


@pytest.mark.parametrize("damage", KINDS)
def test_a_damaged_shard_is_the_same_again(store, damage):
    before = digests(store)
    damage(shard(store, 1, 0))
    keys = sorted({fault.key for fault in verify(store).faults})
    assert keys
    repairs = repair(store)
    assert repairs == Report(str(store), mended=tuple(keys))
    assert bool(repairs)
    assert digests(store) == before
    assert verify(store)


def flip_at_end(path):
    flip(path, -3)


@pytest.mark.parametrize(
    ("key", "documents"),
    # the document, before the lock is taken and behind it; once more where something doesn't fit it
    [("magnitude/c/0/0/0/0", 2), ("track/zarr.json", 2), ("target/c/0", 3), ("chunk/extent/c/0/0/0/0", 3)],
)
def test_names_are_read_once_and_documents_before_and_under_the_lock(store, local_reads, key, documents):
    flip_at_end(store / key)
    assert repair(store).mended == (key,)
    assert (local_reads["zarr.json"], local_reads["track/name/c/0"]) == (documents, 1)
    local_reads.clear()
    assert verify(store)
    assert (local_reads["zarr.json"], local_reads["track/name/c/0"]) == (1, 1)


def test_many_faults_at_once(store):
    before = digests(store)
    shutil.rmtree(store / "magnitude/c/0")
    for path in (store / "magnitude/c/2").rglob("0"):
        if path.is_file():
            flip(path, 50)
    told = []
    repairs = repair(store, progress=lambda *progress: told.append(progress))
    assert bool(repairs)
    assert digests(store) == before
    assert {step for step, _, _ in told} == {"checking", "mending"}
    assert told[-1] == ("mending", len(repairs.mended), len(repairs.mended))


def test_a_whole_store_stays_as_it_is(store):
    before = {path: path.stat().st_mtime_ns for path in store.rglob("*") if path.is_file()}
    assert repair(store, drop=True) == Report(str(store))
    assert {path: path.stat().st_mtime_ns for path in store.rglob("*") if path.is_file()} == before


def test_all_tracks_in_a_shard_with_a_damaged_index(shared, tmp_path):
    folder = shutil.copytree(shared, tmp_path / "x")
    flip(shard(folder / "x.zarr", 1, 1), -1)
    assert repair(folder / "x.zarr")
    assert digests(folder / "x.zarr") == digests(shared / "x.zarr")


def test_whole_chunks_are_carried_over_where_their_source_is_gone(shared, tmp_path):
    folder = shutil.copytree(shared, tmp_path / "x")
    flip(shard(folder / "x.zarr", 1, 0), 100)  # of the first track
    shutil.rmtree(folder / "1")
    shutil.rmtree(folder / "2")
    assert repair(folder / "x.zarr")
    assert digests(folder / "x.zarr") == digests(shared / "x.zarr")


def test_what_can_be_mended_is_mended_beside_what_cannot(shared, tmp_path):
    folder = shutil.copytree(shared, tmp_path / "x")
    shard(folder / "x.zarr", 0, 0).unlink()  # all of the first track, and the beginning of the second
    shutil.rmtree(folder / "1")
    repairs = repair(folder / "x.zarr")
    assert (repairs.mended, repairs.dropped, bool(repairs)) == ((), (), False)
    assert repairs.failed == (("track 'clip 1'", f"there is no file {folder / '1'}"),)
    assert {fault.track for fault in repairs.faults} == {"clip 1"}
    assert repairs.faults == verify(folder / "x.zarr").faults
    whole = levels(norbert_store.open(shared / "x.zarr"))["clip 0"]
    assert np.array_equal(norbert_store.open(folder / "x.zarr")["clip 0"].levels, whole)
    # and once the source is there again, so is the shard
    shutil.copytree(shared / "1", folder / "1")
    assert repair(folder / "x.zarr")
    assert digests(folder / "x.zarr") == digests(shared / "x.zarr")


def test_mel_bands_are_made_again(tmp_path, music, options):
    transform = norbert_store.Mel(n_mels=24, rate=RATE, n_fft=512)
    soundfile.write(tmp_path / "mixture.wav", music(9000, 5)["mixture"], RATE)
    with norbert_store.create(tmp_path / "x.zarr", **options(transform=transform, bandwidth=4000)) as writer:
        writer.add("Mel", {"mixture": tmp_path / "mixture.wav"}, source="mixture.wav")
    before = digests(tmp_path / "x.zarr")
    shard(tmp_path / "x.zarr", 0, 0).unlink()
    (tmp_path / "x.zarr/frequency/c/0").unlink()
    assert repair(tmp_path / "x.zarr")
    assert digests(tmp_path / "x.zarr") == before


def test_a_folder_of_plain_files(tmp_path, music):
    for i in range(2):
        soundfile.write(tmp_path / f"{i}.wav", music(5000, i)["mixture"], RATE)
    export_folder(tmp_path, tmp_path / "x.zarr")
    before = digests(tmp_path / "x.zarr")
    shutil.rmtree(tmp_path / "x.zarr/magnitude/c")
    assert repair(tmp_path / "x.zarr")
    assert digests(tmp_path / "x.zarr") == before


@pytest.mark.slow
def test_a_file_with_a_stream_per_stem(tmp_path):
    av = pytest.importorskip("av")
    path = tmp_path / "train" / "A - B.stem.mp4"
    path.parent.mkdir()
    dice = np.random.default_rng(0)
    with av.open(str(path), "w", format="mp4") as container:
        streams = [container.add_stream("aac", rate=16000, layout="stereo") for _ in range(5)]
        for stream in streams:
            frame = av.AudioFrame.from_ndarray(
                dice.uniform(-0.2, 0.2, (2, 16000)).astype(np.float32), format="fltp", layout="stereo"
            )
            frame.rate, frame.pts = 16000, 0
            for packet in (*stream.encode(frame), *stream.encode(None)):
                container.mux(packet)
    norbert_store.export_musdb(tmp_path, tmp_path / "x.zarr")
    before = digests(tmp_path / "x.zarr")
    shard(tmp_path / "x.zarr", 4, 0).unlink()
    flip(shard(tmp_path / "x.zarr", 1, 0), 100)
    assert repair(tmp_path / "x.zarr")
    assert digests(tmp_path / "x.zarr") == before


def test_a_stem_that_is_there_though_marked_as_absent_is_taken_out(store, set_cell):
    set_cell(store, "present", (0, 1), False)
    repairs = repair(store)
    assert bool(repairs)
    assert set(repairs.mended) == {f"magnitude/c/1/0/{number}/0" for number in range(4)}
    assert verify(store)
    assert np.isnan(norbert_store.open(store)[0].magnitude.sel(target="vocals")).all()


# ---- sources


@pytest.mark.parametrize("root", ["moved", "moved/audio"])
def test_sources_that_were_moved(store, place, root):
    before = digests(store)
    shard(store, 0, 0).unlink()
    (place / "moved").mkdir()
    (place / "audio").rename(place / "moved" / "audio")
    repairs = repair(store)
    assert repairs.failed == ((f"track {NAMES[0]!r}", f"there is no file {place / 'audio' / '0'}"),)
    assert repair(store, audio_root=place / root)
    assert digests(store) == before


def test_sources_that_are_nowhere_below_the_root(store, tmp_path):
    shard(store, 0, 0).unlink()
    (tmp_path / "elsewhere").mkdir()
    repairs = repair(store, audio_root=tmp_path / "elsewhere")
    assert repairs.failed == ((f"track {NAMES[0]!r}", f"its source audio/0 isn't below {tmp_path / 'elsewhere'}"),)


def test_a_stem_that_is_gone(store, place):
    shard(store, 0, 0).unlink()
    flip(shard(store, 1, 0), 100)
    (place / "audio/0/vocals.wav").unlink()
    repairs = repair(store)
    assert repairs.mended == ()
    assert repairs.failed == ((f"track {NAMES[0]!r}", f"there is no file {place / 'audio/0/vocals.wav'}"),)


@pytest.mark.parametrize(
    ("samples", "rate", "channels", "found"),
    [
        (25601, RATE, 2, "found 25601 samples x 2 channels at 8000 Hz"),
        (25600, 16000, 2, "found 25600 samples x 2 channels at 16000 Hz"),
        (25600, RATE, 1, "found 25600 samples x 1 channels at 8000 Hz"),
    ],
)
def test_a_source_that_no_longer_fits_is_not_used(store, place, samples, rate, channels, found):
    shard(store, 0, 0).unlink()
    soundfile.write(place / "audio/0/mixture.wav", np.zeros((samples, channels)), rate)
    repairs = repair(store)
    assert repairs.mended == ()
    (reason,) = (reason for _, reason in repairs.failed)
    assert reason.endswith(f"{found}; the track was made from 25600 samples x 2 channels at 8000 Hz")
    assert not shard(store, 0, 0).exists()


def test_other_audio_of_the_same_length_is_not_used(store, place):
    flip(shard(store, 0, 0), 100)
    before = digests(store)
    soundfile.write(place / "audio/0/mixture.wav", np.random.default_rng(0).uniform(-0.9, 0.9, (25600, 2)), RATE)
    repairs = repair(store)
    ((track, reason),) = repairs.failed
    assert track == f"track {NAMES[0]!r}"
    assert reason.endswith("audio/0 isn't the audio any more that the rest of the track was made from")
    assert digests(store) == before


@pytest.fixture
def noise(tmp_path):
    """A track of one chunk in each of six shards, whose file is noted; its file, and its store."""
    soundfile.write(tmp_path / "a.wav", np.random.default_rng(0).uniform(-0.5, 0.5, (11000, 1)), RATE, "FLOAT")
    norbert_store.export(
        [{"name": "a", "mixture": "a.wav"}],
        tmp_path / "x.zarr",
        root=tmp_path,
        transform=norbert_store.TF(rate=RATE, n_fft=256),
        chunk_frames=16,
        shard_chunks=1,
        effort=0,
    )
    return tmp_path / "a.wav", tmp_path / "x.zarr"


def play_sine(file):
    sine = 0.1 * np.sin(2 * np.pi * 440 / RATE * np.arange(11000))
    soundfile.write(file, sine[:, np.newaxis], RATE, "FLOAT")


def test_other_audio_is_not_used_for_a_whole_shard(noise):
    """It is compared with the nearest shard of the track that is left."""
    file, store = noise
    for number in (2, 3):
        shard(store, 0, number).unlink()
    play_sine(file)
    before = digests(store)
    report = repair(store)
    reason = f"{file} isn't the audio any more that the rest of the track was made from"
    assert (bool(report), report.mended, report.failed) == (False, (), (("track 'a'", reason),))
    assert digests(store) == before


def test_where_all_chunks_are_lost_other_audio_is_not_used(noise):
    file, store = noise
    audio, _ = soundfile.read(file)
    noted = file.stat()
    shutil.rmtree(store / "magnitude/c")
    play_sine(file)
    os.utime(file, ns=(0, 10**18))
    ((track, reason),) = repair(store).failed
    assert track == "track 'a'"
    assert (
        f"its file has {noted.st_size} bytes of 2001-09-09 01:46:40.000000, and had {noted.st_size} bytes of" in reason
    )
    assert reason.endswith("Put the file back as it was, or drop the track and export it again")
    # by another encoder, chunks of the same file would be others
    soundfile.write(file, audio * 1.001, RATE, "FLOAT")
    os.utime(file, ns=(0, noted.st_mtime_ns))
    assert repair(store)


def test_where_all_chunks_are_lost_the_same_audio_of_another_time_is_used(noise):
    """Chunks that have length and checksum of those that are lost are right."""
    file, store = noise
    before = digests(store)
    shutil.rmtree(store / "magnitude/c")
    os.utime(file, ns=(0, 10**18))
    assert repair(store)
    assert digests(store) == before


def test_other_audio_is_not_used_where_no_file_was_noted(store, place):
    shutil.rmtree(store / "magnitude/c/0")
    soundfile.write(place / "audio/2/mixture.wav", np.random.default_rng(0).uniform(-0.9, 0.9, (7200, 2)), RATE)
    ((track, reason),) = repair(store).failed
    assert track == f"track {NAMES[2]!r}"
    assert "and had an unknown length and time" in reason


def test_the_same_audio_in_other_bits_is_used(store, place):
    """Chunks aren't the same bytes then, but levels hardly differ."""
    flip(shard(store, 0, 0), 100)
    audio, _ = soundfile.read(place / "audio/0/mixture.wav")
    soundfile.write(place / "audio/0/mixture.wav", audio * 1.0005, RATE, "FLOAT")
    assert repair(store)
    assert verify(store)


def test_a_track_without_a_source_and_one_of_ready_magnitudes(bundled, ready, tmp_path):
    for made, reason in (
        (bundled, "the track table doesn't say where its audio is"),
        (ready, "its magnitudes were computed elsewhere, and can't be made again here"),
    ):
        copy = shutil.copytree(made.path, tmp_path / made.path.name)
        flip(shard(copy, 0, 0), 100)
        repairs = repair(copy)
        assert repairs.failed == ((f"track {made.db[0].name!r}", reason),)
        assert repairs.faults == verify(copy).faults != ()


# ---- documents, coordinates and the track table


def test_all_documents_and_coordinates_below_the_root(store):
    before = digests(store)
    paths = [*sorted(store.glob("*/zarr.json")), *sorted(store.glob("*/*/zarr.json"))]
    paths += [store / path / "c/0" for path in ("target", "channel", "frequency")]
    for i, path in enumerate(paths):
        path.unlink() if i % 2 else flip(path, 3)
    repairs = repair(store)
    assert set(repairs.mended) == {path.relative_to(store).as_posix() for path in paths}
    assert bool(repairs)
    assert digests(store) == before


@pytest.mark.parametrize("damage", ["node_type", "kind", "codecs"])
def test_what_others_read_of_the_root(store, damage):
    before = digests(store)
    document = json.loads((store / "zarr.json").read_text())
    consolidated = document["consolidated_metadata"]
    if damage == "node_type":
        document["node_type"] = "grouq"
    elif damage == "kind":
        consolidated["kind"] = "Inline"
    else:
        consolidated["metadata"]["frequency"]["codecs"][1]["configuration"]["level"] = 2
    (store / "zarr.json").write_text(json.dumps(document))
    assert [fault.key for fault in verify(store).faults] == ["zarr.json"]
    assert repair(store) == Report(str(store), mended=("zarr.json",))
    assert digests(store) == before


def test_frequencies_of_ready_magnitudes_are_nowhere_else(ready, tmp_path):
    copy = shutil.copytree(ready.path, tmp_path / "x.zarr")
    (copy / "frequency/c/0").unlink()
    repairs = repair(copy)
    assert [key for key, _ in repairs.failed] == ["frequency/c/0"]
    assert "export the data set again" in repairs.failed[0][1]
    assert not bool(repairs)


@pytest.mark.parametrize("column", ["track/name", "track/start", "label/0"])
def test_a_damaged_column_cannot_be_repaired(store, column):
    flip(store / f"{column}/c/0", 12)
    (store / "target/c/0").unlink()
    before = digests(store)
    repairs = repair(store, drop=True)
    assert repairs.mended == ("target/c/0",)
    assert [key for key, _ in repairs.failed] == [f"{column}/c/0"]
    assert "export the data set again" in repairs.failed[0][1]
    assert [fault.key for fault in repairs.faults] == [f"{column}/c/0"]
    assert {key: value for key, value in digests(store).items() if key != "target/c/0"} == before


def test_nothing_is_dropped_from_a_table_with_a_damaged_column(store, place):
    flip(store / "label/0/c/0", 12)
    shard(store, 0, 0).unlink()
    shutil.rmtree(place / "audio/0")
    repairs = repair(store, drop=True)
    assert repairs.dropped == ()
    assert [what for what, _ in repairs.failed] == ["label/0/c/0", f"track {NAMES[0]!r}"]
    assert norbert_store.open(store).names == NAMES


def test_a_damaged_root_is_an_error_that_says_what_to_do(store):
    root = (store / "zarr.json").read_text()
    (store / "zarr.json").write_text(root.replace('\\"chunks\\": ', '\\"chunks\\": 1'))
    before = digests(store)
    with pytest.raises(FormatError, match="can't be repaired: .* export the data set again"):
        repair(store)
    assert digests(store) == before


def test_where_there_is_no_store(tmp_path):
    with pytest.raises(StoreNotFoundError, match="there is no store"):
        repair(tmp_path / "x.zarr")
    assert not (tmp_path / "x.zarr").exists()


def test_a_store_that_is_being_written_is_left_alone(store):
    shard(store, 0, 0).unlink()
    lock = WriterLock(Storage(store, read_only=False))
    with pytest.raises(StoreInUseError):
        repair(store)
    lock.release()
    assert repair(store)
    assert not (store / "writer.lock").exists()


# ---- dropping


def test_a_dropped_track_is_out_and_all_others_are_as_before(store, place):
    before, whole = digests(store), norbert_store.open(store)
    expected, tracks = levels(whole), whole.tracks.isel(track=[0, 2, 3]).load()
    flip(shard(store, 0, 4), 100)
    shutil.rmtree(place / "audio/1")
    repairs = repair(store, drop=True)
    assert repairs.dropped == ((NAMES[1], f"there is no file {place / 'audio/1'}"),)
    assert (repairs.mended, repairs.failed, bool(repairs)) == ((), (), True)
    assert verify(store)
    db = norbert_store.open(store)
    assert db.names == [NAMES[0], NAMES[2], NAMES[3]]
    assert db.tracks.identical(tracks)
    assert all(np.array_equal(db[name].levels, expected[name]) for name in db.names)
    assert np.asarray(zarr.open_array(store / "track/name", mode="r")[:]).tolist() == db.names
    after = digests(store)
    assert after.keys() == before.keys()
    # of the shards, only that in which a chunk is damaged; whole ones stay, and nothing names what is in them
    assert {key for key in after if key.startswith("magnitude/c") and after[key] != before[key]} == {
        "magnitude/c/0/0/4/0"
    }
    place_of_dropped = slice(whole[1].start, whole[1].start + whole[1].frames)
    assert np.isnan(db.to_xarray().magnitude[:, :, place_of_dropped]).all()


def test_what_can_be_mended_is_not_dropped(store, place):
    before = digests(store)
    shard(store, 0, 0).unlink()
    flip(shard(store, 2, 4), 100)
    shutil.rmtree(place / "audio/1")
    repairs = repair(store, drop=True)
    assert repairs.mended == ("magnitude/c/0/0/0/0",)
    assert [name for name, _ in repairs.dropped] == [NAMES[1]]
    assert bool(repairs)
    assert digests(store)["magnitude/c/0/0/0/0"] == before["magnitude/c/0/0/0/0"]


@pytest.mark.slow
def test_no_track_is_dropped_because_the_storage_failed_for_a_moment(tmp_path, monkeypatch):
    monkeypatch.setattr("norbert_store._write.settings.ROWS", 2)  # blocks of columns are read again and again then
    for name in ("a", "b", "c"):
        soundfile.write(tmp_path / f"{name}.wav", np.random.default_rng(0).uniform(-0.5, 0.5, (900, 2)), RATE)
    made = MemoryStore()
    export_clips(tmp_path, made)
    damaged = {key: data for key, data in state_of(made).items() if key != "magnitude/c/0/0/0/0"}
    raised = 0
    for reads_before in range(20):
        place = put_into(FailingOnce(), damaged)
        place.key, place.reads_before = "track/source/c/0", reads_before
        try:
            report = repair(place, audio_root=tmp_path, drop=True)
        except StorageError:
            raised += 1
        else:
            assert report.dropped == ()
        place.key = ""
        assert norbert_store.open(place).names == ["a", "b", "c"]
        if place.reads_before >= 0:
            break
    assert raised >= 1


def test_a_dropped_track_leaves_the_shards_that_it_shares(shared, tmp_path):
    folder = shutil.copytree(shared, tmp_path / "x")
    store, expected = folder / "x.zarr", levels(norbert_store.open(shared / "x.zarr"))
    shard(store, 0, 1).unlink()  # the rest of the second track, and the beginning of the third
    shutil.rmtree(folder / "1")
    repairs = repair(store, drop=True)
    assert [name for name, _ in repairs.dropped] == ["clip 1"]
    assert bool(repairs)
    db = norbert_store.open(store)
    assert db.names == ["clip 0", "clip 2"]
    assert db.tracks.number.values.tolist() == [0, 2]
    assert all(np.array_equal(db[name].levels, expected[name]) for name in db.names)
    place_of_dropped = slice(db[0].start + 32, db[1].start)
    assert np.isnan(db.to_xarray().magnitude[:, :, place_of_dropped]).all()


def test_all_tracks_dropped(ready, tmp_path):
    copy = shutil.copytree(ready.path, tmp_path / "x.zarr")
    shard(copy, 0, 0).unlink()
    assert repair(copy, drop=True)
    assert norbert_store.open(copy).names == []
    assert verify(copy)


def test_a_row_that_contradicts_itself_can_only_be_dropped(store, set_cell):
    set_cell(store, "samples", 2, 10_000)
    ((track, reason),) = repair(store).failed
    assert track == f"track {NAMES[2]!r}"
    assert "its 10000 samples give 80" in reason
    assert repair(store, drop=True)
    assert norbert_store.open(store).names == [NAMES[0], NAMES[1], NAMES[3]]


def test_a_reader_that_has_the_store_open_is_told_to_open_it_again(store, place):
    db = norbert_store.open(store)
    assert db.names == NAMES
    flip(shard(store, 0, 4), 100)
    shutil.rmtree(place / "audio/1")
    assert repair(store, drop=True)
    with pytest.raises(StoreChangedError, match="have moved since it was opened; open it again"):
        db[NAMES[3]].magnitude.load()


def test_a_reader_that_knows_where_tracks_lie_goes_on_with_those_that_stay(store, place):
    db = norbert_store.open(store)
    whole = levels(db)
    flip(shard(store, 0, 4), 100)
    shutil.rmtree(place / "audio/1")
    assert repair(store, drop=True)
    for name in NAMES:
        if name != NAMES[1]:
            assert np.array_equal(db[name].levels, whole[name])
    with pytest.raises(StoreChangedError, match="open it again"):
        db[NAMES[1]].levels.load()
    assert verify(store)


def test_tracks_are_dropped_one_after_the_other_and_others_appended(store, place, music):
    whole = levels(norbert_store.open(store))
    for number in (4, 0):
        flip(shard(store, 0, number), 100)
        shutil.rmtree(place / "audio" / {4: "1", 0: "0"}[number])
        assert len(repair(store, drop=True).dropped) == 1
        with norbert_store.append(store) as writer:
            writer.add(f"new {number}", music(2000, number), source="nowhere")
    db = norbert_store.open(store)
    assert db.names == [NAMES[2], NAMES[3], "new 4", "new 0"]
    assert all(np.array_equal(db[name].levels, whole[name]) for name in NAMES[2:])
    assert verify(store)
    (store / "chunk/extent/c/0/0/0/0").unlink()
    assert repair(store).mended == ("chunk/extent/c/0/0/0/0",)


# ---- extents


@pytest.mark.parametrize("data", [None, b"", b"damaged"])
def test_scales_are_made_again_from_chunks(store, data):
    path = store / "track/scale/c/0/0"
    before = path.read_bytes()
    path.unlink() if data is None else path.write_bytes(data)
    assert not verify(store)
    report = repair(store)
    assert report
    assert report.mended == ("track/scale/c/0/0",)
    assert path.read_bytes() == before


def test_scales_of_damaged_chunks_cannot_be_mended(store):
    (store / "track/scale/c/0/0").unlink()
    (store / "magnitude/c/0/0/0/0").write_bytes(b"damaged")
    report = repair(store)
    assert not report
    assert "track/scale/c/0/0" in [key for key, _ in report.failed]


@pytest.mark.parametrize("louder", [-1, 1])
def test_chunks_that_the_track_table_contradicts_are_made_again(store, set_shard, shards, louder):
    """By a writer with a bug, whose chunks have another scale or other rows than the table says."""
    before = shards(store)
    scale = norbert_store.open(store)[0].scales["mixture"] + louder
    jpeg = with_checksum(encode(np.zeros((16, 113), np.uint8), quantisation_table(80), scale=scale))
    set_shard(store, 0, 0, {(channel, chunk): jpeg for channel in range(2) for chunk in range(4)})
    assert len(verify(store).faults) == 8
    assert repair(store)
    assert shards(store) == before


def test_extents_are_made_again_from_shards(store):
    before = digests(store)
    for target in range(3):
        (store / f"chunk/extent/c/{target}/0/0/0").unlink()
    repairs = repair(store)
    assert repairs == Report(str(store), mended=tuple(f"chunk/extent/c/{target}/0/0/0" for target in range(3)))
    assert digests(store) == before


def test_extents_that_shards_do_not_tell_any_more_cannot_be_mended(store):
    (store / "chunk/extent/c/1/0/0/0").unlink()
    shard(store, 1, 0).unlink()
    before = digests(store)
    repairs = repair(store, drop=True)
    ((key, reason),) = repairs.failed
    assert key == "chunk/extent/c/1/0/0/0"
    assert "and so are shards that hold the same; " in reason
    assert (bool(repairs), digests(store)) == (False, before)


def test_other_bytes_change_shard_and_extents_together(store, place):
    db, document = norbert_store.open(store), document_of(store)
    before, whole = digests(store), levels(db)
    shard(store, 0, 0).unlink()
    audio, _ = soundfile.read(place / "audio/0/mixture.wav")
    soundfile.write(place / "audio/0/mixture.wav", audio * 1.001, RATE, "FLOAT")
    assert repair(store).mended == ("magnitude/c/0/0/0/0",)
    changed = {key for key, digest in digests(store).items() if before[key] != digest}
    assert changed == {"zarr.json", "chunk/extent/c/0/0/0/0", "magnitude/c/0/0/0/0"}
    after = document_of(store)
    assert (after.revision, after.edition, after.pending) == (document.revision + 2, document.edition, ())
    # a reader that has the store open, and its extents in memory, finds the new chunks
    again = levels(norbert_store.open(store))
    assert all(np.array_equal(db[name].levels, again[name]) for name in NAMES)
    assert not np.array_equal(whole[NAMES[0]], again[NAMES[0]])


def test_equal_bytes_change_nothing_but_the_shard(store):
    document = document_of(store)
    shard(store, 0, 0).unlink()
    assert repair(store)
    assert document_of(store) == document


def test_a_flipped_byte_of_a_checksum_needs_no_source(store, place):
    before = digests(store)
    shutil.rmtree(place / "audio")
    data = shard(store, 0, 0).read_bytes()
    _, length = ShardIndex.parse(data[-INDEX_BYTES:], 2, 4).place(0, 0)
    flip(shard(store, 0, 0), length - 2)
    assert not verify(store)
    assert repair(store)
    assert digests(store) == before


def document_of(store):
    return Document.from_json((store / "zarr.json").read_bytes(), str(store))


# ---- cut off


class CutOff(MemoryStore):
    """A place where so many files can be written or deleted, and no more."""

    left = 10**9

    def _count(self):
        if self.left == 0:
            raise PermissionError("no more")
        self.left -= 1

    async def set(self, key, value, byte_range=None):
        self._count()
        await super().set(key, value)

    async def delete(self, key):
        self._count()
        await super().delete(key)


CLIPS = {"a": 1800, "b": 3000, "c": 900, "d": 2500}


@pytest.fixture(scope="module")
def clips(tmp_path_factory, music):
    """Files of four clips, the same a little louder, and the store that was exported of them."""
    folder = tmp_path_factory.mktemp("clips")
    for way in ("audio", "louder"):
        (folder / way).mkdir()
        for i, (name, samples) in enumerate(CLIPS.items()):
            gain = 1.0 if way == "audio" else 1.001
            soundfile.write(folder / way / f"{name}.wav", gain * music(samples, i)["mixture"], RATE, "FLOAT")
            # as if another encoder gave other bytes of the same files
            os.utime(folder / way / f"{name}.wav", ns=(0, 10**18))
    place = MemoryStore()
    export_clips(folder / "audio", place)
    return folder, {key: Storage(place).get(key) for key in Storage(place).list()}


def export_clips(folder, place, **options):
    transform = norbert_store.TF(rate=RATE, n_fft=256)
    return export_folder(
        folder, place, workers=1, transform=transform, chunk_frames=8, shard_chunks=4, effort=0, **options
    )


def put_into(place, state):
    for key, data in state.items():
        Storage(place, read_only=False).set(key, data)
    return place


def state_of(place):
    storage = Storage(place)
    return {key: storage.get(key) for key in storage.list() if key != "writer.lock"}


def read_tracks(place):
    """Levels of all tracks by name; None where reading is an error of this library."""
    found = {}
    for track in norbert_store.open(place):
        try:
            found[track.name] = track.levels.values.tobytes()
        except NorbertStoreError:
            found[track.name] = None
    return found


def shards_lost(state):
    return {**state, "magnitude/c/0/0/1/0": b"damaged", "magnitude/c/0/0/3/0": b"damaged"}


EXTENTS = "chunk/extent/c/0/0/0/0"


def extents_lost(state):
    return {key: data for key, data in state.items() if key != EXTENTS}


CUT_OFF = {
    "drop": (shards_lost, "nowhere", True),
    "other bytes": (shards_lost, "louder", False),
    "equal bytes": (shards_lost, "audio", False),
    "extents": (extents_lost, "nowhere", False),
}


# a way, every which write is cut off, and how many there are at least
CUTS = [("drop", 7, 4), ("other bytes", 2, 4), ("equal bytes", 1, 2), ("extents", 1, 2)]
ALL_CUTS = [
    pytest.param("drop", 1, 30, marks=pytest.mark.slow),
    pytest.param("other bytes", 1, 8, marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("way", "step", "least"), [*CUTS, *ALL_CUTS])
def test_a_repair_that_is_cut_off_anywhere_loses_nothing(clips, way, step, least):
    folder, whole_state = clips
    damage, audio, drop = CUT_OFF[way]
    damaged = damage(whole_state)
    before = read_tracks(put_into(MemoryStore(), whole_state))
    options = {"audio_root": folder / audio, "drop": drop}
    mended = put_into(MemoryStore(), damaged)
    report = repair(mended, **options)
    assert report
    gone = {name for name, _ in report.dropped}
    after = read_tracks(mended)
    assert after.keys() == before.keys() - gone
    healthy = {name: data for name, data in read_tracks(put_into(MemoryStore(), damaged)).items() if data is not None}
    cut_off = 0
    for left in range(step - 1, 1000, step):
        place = put_into(CutOff(), damaged)
        place.left = left
        try:
            repair(place, **options)
        except StorageError:
            cut_off += 1
        else:
            break
        state = state_of(place)
        check_opened(state, before, after, healthy)
        check_appended(state, before, after, healthy, options)
        check_resumed(state, before, after, healthy, folder)
        again = put_into(MemoryStore(), state)
        assert repair(again, **options)
        assert read_tracks(again) == after
        assert verify(again)
    assert cut_off >= least


def check_opened(state, before, after, healthy):
    """What is there is the state before or after, and nothing that was healthy is lost."""
    found = read_tracks(put_into(MemoryStore(), state))
    assert list(found) in (list(before), list(after))
    for name, data in found.items():
        assert data in (before[name], after.get(name), None)
        assert data is not None or name not in healthy
    assert healthy.keys() - found.keys() <= before.keys() - after.keys()


def check_appended(state, before, after, healthy, options):
    """Who writes next brings to its end what was committed, and adds to that."""
    place = put_into(MemoryStore(), state)
    if EXTENTS not in state:
        with pytest.raises(DamagedError, match=EXTENTS):
            norbert_store.append(place)
        return
    with norbert_store.append(place) as writer:
        writer.add("new", {"mixture": np.full((700, 2), 0.1)}, source="new.wav")
    found = read_tracks(place)
    assert list(found) in ([*before, "new"], [*after, "new"])
    assert all(found[name] in (before[name], after.get(name)) for name in healthy.keys() & found.keys())
    assert found["new"] is not None
    report = repair(place, **options)
    assert report
    assert read_tracks(place) == {**after, "new": found["new"]}
    assert verify(place)


def check_resumed(state, before, after, healthy, folder):
    """An export that is resumed adds what was taken out."""
    place = put_into(MemoryStore(), state)
    if EXTENTS not in state:
        with pytest.raises(DamagedError, match=EXTENTS):
            export_clips(folder / "audio", place, resume=True)
        return
    export_clips(folder / "audio", place, resume=True)
    found = read_tracks(place)
    assert found.keys() == before.keys()
    assert all(found[name] in (before[name], after.get(name)) for name in healthy)
