from __future__ import annotations

import asyncio
import os
import pickle
import shutil
import zipfile
from itertools import chain

import numpy as np
import pytest
import xarray
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.storage import LocalStore, MemoryStore, WrapperStore, ZipStore

import norbert_store
from norbert_store import PowerCurve, ReadyBins
from norbert_store._format.arrays import block_key, encode_block
from norbert_store._format.document import Document
from norbert_store._format.shard import MISSING, ShardIndex, index_bytes, pack, with_checksum
from norbert_store._read.frames import Frames, Wanted
from norbert_store._read.snapshot import Snapshot
from norbert_store._spectra.levels import table
from norbert_store._storage.storage import Storage
from norbert_store.errors import DamagedError, StoreNotFoundError, StoreReplacedError

INDEX_BYTES = index_bytes(2, 4)


# ---- the right numbers, at the right place


@pytest.mark.parametrize("store", ["small", "bundled", "mel"])
def test_magnitudes_are_those_of_the_audio_but_for_the_codec(store, request, magnitude_of, codec_error):
    made = request.getfixturevalue(store)
    document = Document.from_json((made.path / "zarr.json").read_bytes(), "")
    for track in made.db:
        for target, audio in made.audio[track.name].items():
            if audio is not None:
                magnitude = magnitude_of(audio, track.transform)
                levels = track.levels.sel(target=target)
                assert codec_error(levels.values, magnitude, document, int(levels.scale)) <= 1


def test_ready_magnitudes_are_those_that_were_given_but_for_the_codec(ready, codec_error):
    document = Document.from_json((ready.path / "zarr.json").read_bytes(), "")
    given = ready.audio["Ready"]["one"]
    track = ready.db[0]
    assert codec_error(track.levels.sel(target="one").values, given, document, track.scales["one"]) <= 1
    assert np.abs(track.magnitude.sel(target="one") - given).max() < 0.6


def test_click_peaks_in_the_frame_and_channel_where_it_is(tmp_path, options):
    clicks = np.zeros((40000, 2))
    at = [(0, 3000), (1, 3500), (0, 8192), (1, 25000), (0, 39999)]
    for channel, sample in at:
        clicks[sample, channel] = 1
    with norbert_store.create(tmp_path / "clicks.zarr", **options(quality=100)) as writer:
        writer.add("before", {"drums": np.zeros((5000, 2))})
        writer.add("clicks", {"drums": clicks})
    loudness = norbert_store.open(tmp_path / "clicks.zarr")["clicks"].magnitude.sel(target="drums").sum("frequency")
    for channel, sample in at:
        around = loudness.sel(time=slice(sample / 8000 - 0.05, sample / 8000 + 0.05))
        peak = float(around.isel(channel=channel).idxmax())
        assert abs(peak - sample / 8000) <= 64 / 8000
        assert around.isel(channel=1 - channel).max() == 0


@pytest.mark.parametrize("hertz", [62.5, 1000, 3468.75])
def test_sine_peaks_at_its_frequency_with_half_its_amplitude(tmp_path, options, hertz):
    sine = 0.5 * np.sin(2 * np.pi * hertz * np.arange(8000) / 8000)
    with norbert_store.create(tmp_path / "sine.zarr", **options(channels=1, quality=100)) as writer:
        writer.add("sine", {"vocals": sine})
    middle = norbert_store.open(tmp_path / "sine.zarr")[0].magnitude.sel(target="vocals", time=slice(0.2, 0.8))
    assert (middle.idxmax("frequency") == hertz).all()
    assert np.allclose(middle.max("frequency"), 0.25, rtol=0.03)


def test_frequencies_are_those_of_the_transform(small, mel, ready):
    assert np.array_equal(small.db.frequencies, np.arange(113) * 31.25)
    for made in (small, mel, ready):
        assert np.array_equal(made.db.frequencies, made.db.transform.frequencies)


def test_levels_are_what_every_jpeg_decoder_sees(made, pillow_levels):
    for track in made.db:
        for target, there in track.present.items():
            levels = track.levels.sel(target=target).values
            assert levels.dtype == np.uint8
            if there:
                assert np.array_equal(levels, pillow_levels(track, target))
            else:
                assert not levels.any()


def test_table_turns_levels_into_magnitudes_and_back(made):
    values = made.db.look_up_table
    assert values.dtype == np.float32
    assert values.shape == (256,)
    assert (np.diff(values) > 0).all()
    for track in made.db:
        for target, there in track.present.items():
            magnitude, levels = (x.sel(target=target).values for x in (track.magnitude, track.levels))
            assert magnitude.dtype == np.float32
            if there:
                of_scale = np.ldexp(values, track.scales[target])
                assert np.array_equal(of_scale[levels], magnitude)
                assert np.array_equal(np.searchsorted(of_scale, magnitude), levels)
            else:
                assert np.isnan(magnitude).all()


def test_table_is_that_of_the_curve(small, ready):
    assert np.array_equal(small.db.look_up_table, table(PowerCurve()))
    assert np.array_equal(ready.db.look_up_table, table(PowerCurve()))


def test_packed_magnitudes_are_what_zarr_reads(made):
    packed = made.db.to_xarray().magnitude
    plain = xarray.open_zarr(made.path).magnitude
    assert packed.dims == plain.dims == ("target", "channel", "frame", "frequency")
    assert packed.shape == plain.shape
    assert np.array_equal(packed, plain, equal_nan=True)
    for coordinate in ("target", "channel", "frequency"):
        assert np.array_equal(packed[coordinate], plain[coordinate])


def test_packed_magnitudes_hold_every_track_at_its_place(made):
    packed = made.db.to_xarray().magnitude.values
    for track in made.db:
        there = packed[:, :, track.start : track.start + track.frames]
        assert np.array_equal(there, track.magnitude, equal_nan=True)


def test_what_lies_between_tracks_is_nan(made):
    packed = made.db.to_xarray().magnitude.values
    used = np.zeros(packed.shape[2], bool)
    for track in made.db:
        used[track.start : track.start + track.frames] = True
    assert np.isnan(packed[:, :, ~used]).all()
    assert not made.db.to_xarray("levels")["levels"].values[:, :, ~used].any()


@st.composite
def frames_in_any_order(draw, size):
    """Single frames, or runs of frames that may leave some out or go backwards."""
    first = st.integers(0, size - 1)
    step = st.sampled_from([1, 1, 2, 5, -1, -3])
    runs = st.builds(lambda at, count, by: range(at, at + count * by, by), first, st.integers(1, 40), step)
    some = draw(st.one_of(st.lists(first, max_size=20), st.lists(runs, max_size=3).map(chain.from_iterable).map(list)))
    return np.array([frame for frame in some if 0 <= frame < size], dtype=np.int64)


@pytest.mark.parametrize("where", ["folder", "memory"])
@settings(max_examples=60)
@given(frames_in_any_order(400), st.data())
def test_frames_of_the_packed_axis_in_any_order(bundled, bundled_levels, in_memory, where, frames, data):
    reader = Frames.open(bundled.path) if where == "folder" else Frames.open(in_memory)
    frames = frames[frames < bundled_levels.shape[2]]
    targets, channels = (data.draw(st.lists(st.integers(0, size - 1), max_size=3)) for size in bundled_levels.shape[:2])
    bins = data.draw(st.sampled_from([slice(None), slice(0, 1), slice(3, 90, 4), slice(50, 50)]))
    found = reader.levels(Wanted(targets, channels, frames, bins))
    assert np.array_equal(found, bundled_levels[np.ix_(targets, channels, frames)][..., bins])


def in_memory_of(path):
    location = MemoryStore()
    into = Storage(location, read_only=False)
    for file in filter(os.path.isfile, path.rglob("*")):
        into.set(file.relative_to(path).as_posix(), file.read_bytes())
    return location


@pytest.fixture(scope="module")
def bundled_levels(bundled):
    return bundled.db.to_xarray("levels")["levels"].values


@pytest.fixture(scope="module")
def in_memory(bundled):
    """The store of bundles, elsewhere than in a folder."""
    return in_memory_of(bundled.path)


def test_empty_reads_are_empty(small):
    reader = Frames.open(small.path)
    for read, dtype in ((reader.magnitude, np.float32), (reader.levels, np.uint8)):
        nothing = read(Wanted([0], [0, 1], np.array([], np.int64)))
        assert (nothing.shape, nothing.dtype) == ((1, 2, 0, 113), dtype)
        assert read(Wanted([], [], np.arange(3), slice(5, 5))).shape == (0, 0, 3, 0)


# ---- from wherever


def same(db, made):
    assert db.names == made.db.names
    assert np.array_equal(db.to_xarray().magnitude, made.db.to_xarray().magnitude, equal_nan=True)
    xarray.testing.assert_identical(db.tracks.load(), made.db.tracks.load())


def test_local_store(small):
    same(norbert_store.open(LocalStore(small.path)), small)
    same(norbert_store.open(LocalStore(small.path, read_only=True)), small)
    same(norbert_store.open(str(small.path)), small)


def test_memory_store(small, options):
    store = MemoryStore()
    with norbert_store.create(store, **options()) as writer:
        for track in small.db:
            row = {column: getattr(track, column) for column in ("split", "source", "metadata")}
            labels = {key: value.item() if hasattr(value, "item") else value for key, value in track.labels.items()}
            writer.add(track.name, small.audio[track.name], labels=labels, **row)
    same(norbert_store.open(store), small)


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("kind", [str, ZipStore])
def test_zip_files(small, tmp_path, compression, kind):
    path = tmp_path / "small.zip"
    with zipfile.ZipFile(path, "w", compression) as file:
        for member in sorted(small.path.rglob("*")):
            if member.is_file():
                file.write(member, member.relative_to(small.path).as_posix())
    db = norbert_store.open(kind(path))
    same(db, small)
    assert db[0].to_audio("vocals", mixture=small.audio[db[0].name]["mixture"]).shape == (25600, 2)


def test_memory_url(small, tmp_path):
    fsspec = pytest.importorskip("fsspec")
    url = f"memory://{tmp_path.name}/small.zarr"
    fsspec.filesystem("memory").put(str(small.path), url, recursive=True)
    same(norbert_store.open(url), small)
    same(norbert_store.open(url), small)


def test_file_url(small):
    pytest.importorskip("fsspec")
    same(norbert_store.open(small.path.as_uri()), small)


def test_writing_to_a_url(music, options, tmp_path):
    pytest.importorskip("fsspec")
    url = f"memory://{tmp_path.name}/new.zarr"
    with norbert_store.create(url, **options()) as writer:
        writer.add("a", music(3000, 0))
    assert not np.isnan(norbert_store.open(url)["a"].magnitude).any()


# ---- damage is told, never read as numbers


def flipped(path, position, mask=0x10):
    data = bytearray(path.read_bytes())
    data[position] ^= mask
    path.write_bytes(data)


@pytest.mark.slow
def places_in(shard):
    """Offset and length of each chunk (channel, chunk), by the index of the shard."""
    index = ShardIndex.parse(shard[-INDEX_BYTES:], 2, 4, len(shard))
    return {(channel, chunk): index.place(channel, chunk) for channel in range(2) for chunk in range(4)}


def test_every_flipped_byte_of_a_chunk_is_found_and_named(small_copy):
    path = small_copy / "magnitude/c/1/0/1/0"
    whole = path.read_bytes()
    places = places_in(whole)
    for position in (0, *np.random.default_rng(0).integers(0, len(whole) - INDEX_BYTES, 40)):
        path.write_bytes(whole)
        flipped(path, int(position), mask=1 << int(position % 8))
        track = norbert_store.open(small_copy)["Ann - Long"]
        ((channel, chunk),) = (at for at, (start, length) in places.items() if start <= position < start + length)
        with pytest.raises(DamagedError) as caught:
            track.magnitude.sel(target="vocals").load()
        assert (
            f"{small_copy}: track 'Ann - Long', target 'vocals', channel '{('left', 'right')[channel]}', packed chunk "
            f"{4 + chunk}, at byte {places[channel, chunk][0]} of magnitude/c/1/0/1/0: the checksum of "
        ) in str(caught.value)
        # what doesn't touch it reads as before
        assert not np.isnan(track.magnitude.sel(target="mixture")).any()
        assert not np.isnan(track.magnitude.isel(target=1, channel=1 - channel)).any()
        with pytest.raises(DamagedError, match=f"chunk {4 + chunk}"):
            track.jpeg("vocals", channel, 4 + chunk)


def test_an_index_is_not_needed_where_the_chunks_are_at_their_places(small_copy, small):
    path = small_copy / "magnitude/c/1/0/1/0"
    path.write_bytes(path.read_bytes()[:-INDEX_BYTES])
    assert np.array_equal(norbert_store.open(small_copy)[0].magnitude, small.db[0].magnitude)


def test_shards_that_were_swapped_are_damage(small_copy):
    first, second = (small_copy / f"magnitude/c/0/0/{shard}/0" for shard in (0, 1))
    of_vocals = small_copy / "magnitude/c/1/0/0/0"
    whole = first.read_bytes()
    for path in (second, of_vocals):
        first.write_bytes(path.read_bytes())
        with pytest.raises(DamagedError, match="'Ann - Long', target 'mixture', channel 'left', packed chunk 0, "):
            norbert_store.open(small_copy)[0].magnitude.load()
    first.write_bytes(whole)
    assert not np.isnan(norbert_store.open(small_copy)[0].magnitude).any()


def test_a_shard_of_another_store_of_the_same_kind_is_damage(small_copy, tmp_path, options, music):
    with norbert_store.create(tmp_path / "other.zarr", **options()) as writer:
        writer.add("Ann - Long", music(25600, 9))
    shutil.copy(tmp_path / "other.zarr/magnitude/c/0/0/1/0", small_copy / "magnitude/c/0/0/1/0")
    db = norbert_store.open(small_copy)
    for read in (
        lambda: db[0].magnitude.load(),
        lambda: db[0].jpeg("mixture", "left", 4),
        lambda: db.to_xarray("levels")["levels"].load(),
        db.statistics,
    ):
        with pytest.raises(DamagedError, match="target 'mixture', channel '(left|right)', packed chunk [4-7], "):
            read()
    assert not np.isnan(db[0].magnitude.isel(time=slice(0, 64))).any()


@pytest.mark.parametrize("kept", [0, 1, 3, 500])
def test_shard_that_is_cut_off_is_damaged(small_copy, kept):
    path = small_copy / "magnitude/c/0/0/0/0"
    path.write_bytes(path.read_bytes()[:kept])
    track = norbert_store.open(small_copy)[0]
    with pytest.raises(DamagedError, match=r"copy\.zarr.*'Ann - Long', target 'mixture'.*magnitude/c/0/0/0/0"):
        track.magnitude.isel(time=0).load()


def test_deleted_shard_of_a_present_stem_is_damage(small_copy):
    (small_copy / "magnitude/c/2/0/2/0").unlink()
    db = norbert_store.open(small_copy)
    track = db["Ann - Long"]
    named = r"copy\.zarr: track 'Ann - Long', target 'drums', channel 'left', packed chunk 8, .*the file is missing"
    with pytest.raises(DamagedError, match=named):
        track.magnitude.load()
    with pytest.raises(DamagedError, match=named):
        track.levels.load()
    with pytest.raises(DamagedError, match=named):
        track.jpeg("drums", "left", 8)
    assert not np.isnan(track.magnitude.isel(time=slice(0, 128))).any()
    assert not np.isnan(track.magnitude.sel(target=["mixture", "vocals"])).any()


def test_deleted_shard_of_an_absent_stem_is_no_damage(small_copy):
    track = norbert_store.open(small_copy)["Bob - Short"]
    assert np.isnan(track.magnitude.sel(target="vocals")).all()


def test_a_shard_that_lost_a_chunk_has_all_others(small_copy, small):
    """Whether they are at their places still, or elsewhere."""
    path = small_copy / "magnitude/c/0/0/0/0"
    whole = path.read_bytes()
    places = places_in(whole)
    for missing in places:
        some = {at: whole[begin : begin + size] for at, (begin, size) in places.items() if at != missing}
        path.write_bytes(pack(some, 2, 4)[0])
        mixture = norbert_store.open(small_copy)[0].magnitude.isel(target=0)
        channel = ("left", "right")[missing[0]]
        with pytest.raises(DamagedError, match=f"target 'mixture', channel '{channel}', packed chunk {missing[1]}, "):
            mixture.isel(time=slice(0, 64)).load()
        others = mixture.isel(channel=1 - missing[0], time=slice(0, 64))
        assert np.array_equal(others, small.db[0].magnitude.isel(target=0, channel=1 - missing[0], time=slice(0, 64)))


NEEDED = ["track/name/c/0", "track/start/c/0", "track/frames/c/0", "chunk/extent/c/1/0/0/0"]


@pytest.mark.parametrize("path", NEEDED)
def test_every_flipped_byte_of_the_table_is_found_and_named(small_copy, path):
    whole = (small_copy / path).read_bytes()
    for position in np.random.default_rng(0).integers(0, len(whole), 10):
        (small_copy / path).write_bytes(whole)
        flipped(small_copy / path, int(position))
        db = norbert_store.open(small_copy)
        with pytest.raises(DamagedError, match=rf"copy\.zarr: {path}: the file can't be read"):
            db["Bob - Short"].magnitude.load()


@pytest.mark.parametrize("path", NEEDED)
def test_missing_table_is_damage(small_copy, path):
    (small_copy / path).unlink()
    db = norbert_store.open(small_copy)
    with pytest.raises(DamagedError, match=rf"copy\.zarr: {path}: the file is missing"):
        db["Bob - Short"].magnitude.load()


def test_frequencies_that_no_transform_tells_must_be_there(ready, tmp_path):
    path = shutil.copytree(ready.path, tmp_path / "ready.zarr")
    flipped(path / "frequency/c/0", 20)
    with pytest.raises(DamagedError, match=r"ready\.zarr: frequency/c/0: the file can't be read"):
        norbert_store.open(path)
    (path / "frequency/c/0").unlink()
    with pytest.raises(DamagedError, match=r"ready\.zarr: frequency/c/0: the file is missing"):
        norbert_store.open(path)


def test_unreadable_names_do_not_hide_what_is_wrong(small_copy):
    flipped(small_copy / "track/name/c/0", 5)
    flipped(small_copy / "magnitude/c/0/0/0/0", 0)
    with pytest.raises(DamagedError, match=r"copy\.zarr: target 'mixture', channel 'left', packed chunk 0, at byte 0"):
        norbert_store.open(small_copy)[0].magnitude.load()


def test_missing_chunks_of_the_packed_axis_are_damage_where_a_track_needs_them(small_copy):
    db = norbert_store.open(small_copy)
    (small_copy / "magnitude/c/2/0/2/0").unlink()
    packed = db.to_xarray().magnitude.sel(target="drums")
    named = r"track 'Ann - Long', target 'drums', channel 'left', packed chunk 8, .*the file is missing"
    with pytest.raises(DamagedError, match=named):
        packed.load()
    with pytest.raises(DamagedError, match=named):
        db.to_xarray("levels")["levels"].isel(target=2).load()
    assert np.isnan(packed.isel(frame=slice(208, 256))).all()  # between tracks
    assert np.isnan(db.to_xarray().magnitude.sel(target="vocals").isel(frame=slice(256, 272))).all()  # an absent stem


def with_block(path, array, block, values):
    """Put a block of a small array into a store as a writer would that means it: its checksum is in the document."""
    document = Document.from_json((path / "zarr.json").read_bytes(), "")
    (path / block_key(array, block)).write_bytes(encode_block(document.arrays()[array], values))
    (path / "zarr.json").write_bytes(document.with_blocks({(array, block): values}).to_json())


@pytest.mark.parametrize(
    ("extent", "found"),
    [
        ((0, 2**32 - 1, 5), "a chunk has at most 277504 bytes; this one has 4294967295"),
        ((2**32 - 1, 100, 5), "at byte 4294967295 of magnitude/c/0/0/0/0: the file is missing or cut off"),
        ((0, 3, 5), "the checksum of 3 bytes doesn't match"),
        ((0, 0, 0), "the extents have no such chunk"),
    ],
)
@pytest.mark.parametrize("where", ["folder", "memory"])
def test_extents_that_no_chunk_can_have_are_damage(small_copy, extent, found, where):
    extents = Snapshot.open(small_copy).extents(0, 0, 25)[np.newaxis].copy()
    extents[0, :, 0, 1] = extent
    with_block(small_copy, "chunk/extent", (0, 0, 0, 0), extents)
    db = norbert_store.open(small_copy if where == "folder" else in_memory_of(small_copy))
    with pytest.raises(DamagedError, match=f"'Ann - Long', target 'mixture', channel 'left', packed chunk 1.*{found}"):
        db[0].magnitude.load()
    assert not np.isnan(db[0].magnitude.isel(channel=1)).any()


def test_damage_is_found_again_each_time(small_copy):
    flipped(small_copy / "magnitude/c/0/0/0/0", 5)
    track = norbert_store.open(small_copy)[0]
    for _ in range(2):
        with pytest.raises(DamagedError):
            track.magnitude.load()
    flipped(small_copy / "magnitude/c/0/0/0/0", 5)
    assert not np.isnan(track.magnitude).any()


@pytest.mark.parametrize(
    ("column", "values", "found"),
    [
        ("frames", [201, 17, 2**62, 1], "'Žofie – Ticho': it lies at frames 320 to 4611686018427388224"),
        ("frames", [201, 17, 58, 0], "'one sample': it lies at frames 384 to 384"),
        ("frames", [-5, 17, 58, 2], "'Ann - Long': it lies at frames 0 to -5"),
        ("start", [0, -(2**62), 320, 384], "'Bob - Short': it lies at frames -4611686018427387904 to .*"),
        ("start", [0, 256, 2**62, 384], "'Žofie – Ticho': it lies at frames 4611686018427387904 to .*"),
    ],
)
def test_places_that_no_track_can_have_are_damage(small_copy, column, values, found):
    with_block(small_copy, f"track/{column}", (0,), np.array(values))
    db = norbert_store.open(small_copy)
    for read in (lambda: db.excerpts(0.1), db.statistics):
        with pytest.raises(DamagedError, match=f"track {found}; expected it between 0 and 400"):
            read()


# ---- shards that change while the store is open


@pytest.fixture(params=["folder", "memory"])
def opened(request, small_copy):
    """A store that is open, whose values were all read once; and what others write with."""
    location = in_memory_of(small_copy) if request.param == "memory" else small_copy
    db = norbert_store.open(location)
    db.to_xarray().magnitude.load()
    return db, Storage(location, read_only=False)


def shard_of(target, shard):
    return f"magnitude/c/{target}/0/{shard}/0"


def rearranged(shard):
    """A shard with the same chunks at other offsets: those of the other channel first, and none shared."""
    chunks = {at: shard[begin : begin + size] for at, (begin, size) in places_in(shard).items()}
    index, data = np.full((2, 4, 2), MISSING, "<u8"), b"other bytes"
    for channel, chunk in sorted(chunks, reverse=True):
        index[channel, chunk] = len(data), len(chunks[channel, chunk])
        data += chunks[channel, chunk]
    return data + with_checksum(index.tobytes())


def test_shards_with_the_same_chunks_at_other_offsets_are_read_by_their_index(opened, small):
    db, others = opened
    for target, shard in ((0, 0), (0, 1), (2, 2)):
        others.set(shard_of(target, shard), rearranged(others.get(shard_of(target, shard))))
    for now in (db, norbert_store.open(others.location)):
        assert np.array_equal(now[0].magnitude, small.db[0].magnitude)
        assert now[0].jpeg("drums", "right", 9) == small.db[0].jpeg("drums", "right", 9)
        assert np.array_equal(now.to_xarray().magnitude, small.db.to_xarray().magnitude, equal_nan=True)


def test_shards_with_other_chunks_are_damage(opened, tmp_path, options, music, shards):
    db, others = opened
    with norbert_store.create(tmp_path / "finer.zarr", **options(quality=95)) as writer:
        writer.add("Ann - Long", music(25600, 1))
    for key, data in shards(tmp_path / "finer.zarr").items():
        others.set(key, data)
    with pytest.raises(DamagedError, match="'Ann - Long', target 'mixture', channel 'left', packed chunk 0, "):
        db[0].levels.load()
    assert not np.isnan(db[2].magnitude).any()


def test_chunks_that_come_back_are_read(opened):
    db, others = opened
    whole = others.get(shard_of(0, 0))
    others.delete(shard_of(0, 0))
    for _ in range(2):
        with pytest.raises(
            DamagedError, match="'Ann - Long', target 'mixture', channel 'left', packed chunk 0, .*the file is missing"
        ):
            db[0].magnitude.load()
    assert np.isnan(db[1].magnitude.sel(target="vocals")).all()
    others.set(shard_of(0, 0), whole)
    assert not np.isnan(db[0].magnitude).any()


@pytest.mark.parametrize("kept", [0, 30, INDEX_BYTES])
def test_shards_that_are_cut_off_while_open_are_damage(opened, kept):
    db, others = opened
    others.set(shard_of(0, 0), others.get(shard_of(0, 0))[:kept])
    with pytest.raises(DamagedError, match="'Ann - Long', target 'mixture'.*magnitude/c/0/0/0/0"):
        db[0].levels.load()


def test_shards_that_are_swapped_while_open_are_damage(opened):
    db, others = opened
    first, second = others.get(shard_of(0, 0)), others.get(shard_of(0, 1))
    others.set(shard_of(0, 0), second)
    others.set(shard_of(0, 1), first)
    for time in (slice(0, 64), slice(64, 128)):
        with pytest.raises(DamagedError, match="'Ann - Long', target 'mixture', channel 'left', packed chunk [04], "):
            db[0].magnitude.isel(time=time).load()


@pytest.mark.parametrize(
    "write", [lambda path, data: path.write_bytes(data), lambda path, data: os.replace(data, path)]
)
def test_another_shard_of_the_same_size_is_noticed(tmp_path, options, write):
    transform = ReadyBins("flat", 8000, 100, np.arange(1.0, 31))
    path = tmp_path / "flat.zarr"
    with norbert_store.create(path, **options(targets=["one"], transform=transform, channels=1)) as writer:
        for level in (100, 101):
            # just below a power of two
            magnitude = 0.999 * np.ones((1, 16, 30))
            magnitude[:, 1:] = writer._committer.document.layout.curve.expand(np.array(level / 255))
            writer.add_magnitudes(str(level), {"one": magnitude})
    db = norbert_store.open(path)
    assert db[0].scales == {"one": 0}
    first, second = path / shard_of(0, 0), path / shard_of(0, 1)
    assert first.stat().st_size == second.stat().st_size
    moved = shutil.copy2(second, tmp_path / "moved")
    write(first, moved if write.__code__.co_names[0] == "os" else moved.read_bytes())
    with pytest.raises(DamagedError, match="the chunk isn't that of this state of the store: its checksum is another"):
        db[0].levels.load()


def test_a_store_that_is_gone_is_told(small_copy):
    db = norbert_store.open(small_copy)
    db[0].magnitude.load()
    small_copy.rename(small_copy.with_name("moved.zarr"))
    with pytest.raises(StoreNotFoundError, match=r"the store at .*copy\.zarr isn't there any more"):
        db[0].magnitude.load()
    with pytest.raises(StoreNotFoundError):
        db["Bob - Short"]


def replaced(others, options, audio, **changed):
    """Put another store where one is."""
    if others.folder:
        shutil.rmtree(others.folder)
    for key in others.list():
        others.delete(key)
    with norbert_store.create(others.location, **options(**changed)) as writer:
        for name, stems in audio.items():
            writer.add(name, stems, labels={"genre": name})


@pytest.mark.parametrize(("tracks", "changed"), [(1, {}), (4, {}), (5, {"quality": 90})])
def test_another_store_at_the_same_place_is_told(opened, options, music, tracks, changed):
    db, others = opened
    untouched, excerpts = norbert_store.open(others.location), db.excerpts(0.5)
    excerpts.read([0, 1])
    replaced(others, options, {f"other {i}": music(9000, 7 + i) for i in range(tracks)}, **changed)
    for read in (
        lambda: db[0].magnitude.load(),
        lambda: db[0].jpeg("mixture", "left", 0),
        lambda: db.to_xarray("levels")["levels"].load(),
        lambda: excerpts.read([0, 1]),
        lambda: untouched.names,
        lambda: untouched.tracks.load(),
        lambda: untouched.select(genre="Rock"),
        lambda: untouched.excerpts(0.5),
        lambda: untouched[0].magnitude.load(),
        untouched.statistics,
    ):
        with pytest.raises(StoreReplacedError, match="was replaced by another store since it was opened; open it ag"):
            read()
    assert norbert_store.open(others.location).names[0] == "other 0"


def test_what_is_equal_in_a_store_that_was_exported_anew_is_read_on(opened, options, small):
    db, others = opened
    untouched, expected = norbert_store.open(others.location), db[0].levels.values
    replaced(others, options, small.audio)  # with other labels
    with pytest.raises(StoreReplacedError):
        untouched.select(genre="Rock")
    for now in (db, untouched):
        assert np.array_equal(now["Ann - Long"].levels.values, expected)


def test_tracks_that_are_added_change_nothing_for_who_reads(small, small_copy, tmp_path, options, music):
    for name, tracks in (("one", 1), ("two", 2)):
        with norbert_store.create(tmp_path / name, **options()) as writer:
            for i in range(tracks):
                writer.add(f"track {i}", music(5000, i))
    db = norbert_store.open(tmp_path / "one")
    before = norbert_store.open(tmp_path / "one").to_xarray().magnitude.values
    shutil.copytree(tmp_path / "two", tmp_path / "one", dirs_exist_ok=True)
    assert db.names == ["track 0"]
    assert np.array_equal(db.to_xarray().magnitude, before, equal_nan=True)
    assert norbert_store.open(tmp_path / "one").names == ["track 0", "track 1"]


# ---- what is asked of the storage


class CountingStore(WrapperStore):
    """Tells what is asked of it: keys and ranges, in rounds of what is asked at the same time."""

    def __init__(self, store):
        super().__init__(store)
        self.rounds = []
        self._running = 0

    async def get(self, key, prototype, byte_range=None):
        if not self._running:
            self.rounds.append([])
        self.rounds[-1].append((key, byte_range))
        self._running += 1
        await asyncio.sleep(0.002)
        self._running -= 1
        return await super().get(key, prototype, byte_range)

    def taken(self):
        """All that was asked since the last time, by round."""
        rounds, self.rounds = self.rounds, []
        return [sorted(key for key, _ in asked) for asked in rounds]


@pytest.fixture
def counting(small, bundled):
    def open_counting(made=small):
        store = CountingStore(LocalStore(made.path, read_only=True))
        return store, norbert_store.open(store)

    return open_counting


def test_opening_takes_one_request(counting):
    store, db = counting()
    assert len(db) == 4
    assert store.taken() == [["zarr.json"]]


def test_first_slice_takes_four_requests_in_three_rounds(counting):
    store, db = counting()
    store.taken()
    db[0].magnitude.sel(target="vocals", time=slice(0.2, 0.8)).load()
    assert store.taken() == [["track/frames/c/0", "track/start/c/0"], ["chunk/extent/c/1/0/0/0"], [shard_of(1, 0)]]


def test_next_slices_take_a_request_for_each_run_of_chunks(counting, monkeypatch):
    monkeypatch.setattr("norbert_store._read.chunks._SMALL_GAP", 0)  # chunks of tests are small as well
    store, db = counting()
    db[2].magnitude.isel(target=0, time=0).load()
    store.taken()
    for time, requests in ((slice(0, 16), 1), (slice(16, 58), 1), ([0, 20, 40], 1), ([0, 50], 2)):
        db[2].magnitude.isel(target=0, time=time).load()
        assert store.taken() == [[shard_of(0, 5)] * requests]
    db[2].magnitude.isel(target=0, channel=1, time=[0, 50]).load()
    assert store.taken() == [[shard_of(0, 5)] * 2]
    db[2].jpeg(0, 0, 1)
    assert store.taken() == [[shard_of(0, 5)]]


def test_small_gaps_between_chunks_are_read_along(counting, small):
    store, db = counting()
    db[0].magnitude.isel(target=0, time=0).load()
    store.taken()
    for time, requests in (([0, 16, 32], 1), ([0, 48], 2)):
        some = db[0].magnitude.isel(target=0, channel=0, time=time).load()
        assert store.taken() == [[shard_of(0, 0)] * requests]
        xarray.testing.assert_identical(some, small.db[0].magnitude.isel(target=0, channel=0, time=time).load())


def test_reads_of_many_shards_take_two_rounds(counting, small):
    store, db = counting()
    track = db[0]
    assert track.frames == 201
    store.taken()
    assert np.array_equal(track.magnitude, small.db[0].magnitude)
    extents = [f"chunk/extent/c/{target}/0/0/0" for target in range(3)]
    assert store.taken() == [extents, sorted(shard_of(target, shard) for target in range(3) for shard in range(4))]


def bytes_of_chunks(store):
    """How many bytes of chunks were asked for in each round."""
    return [
        sum(part.end - part.start for key, part in asked if key.startswith("magnitude/") and hasattr(part, "end"))
        for asked in store.rounds
    ]


def test_long_reads_take_rounds_that_memory_holds(counting, small, monkeypatch):
    most = 4000
    for module in ("_read.frames", "_read.chunks"):
        monkeypatch.setattr(f"norbert_store.{module}.BATCH_BYTES", most)
    store, db = counting()
    assert np.array_equal(db[0].levels, small.db[0].levels)
    sizes = bytes_of_chunks(store)
    assert sum(size > 0 for size in sizes) > 10
    assert max(sizes) <= most


@pytest.mark.parametrize("frames", [slice(0, 201, 2), slice(None, None, -1), [170, 3, 200, 77, 3, 140, 5]])
def test_frames_in_any_order_ask_for_each_chunk_once(counting, small, frames):
    store, db = counting()
    db[0].magnitude.isel(target=0).load()
    store.taken()
    some = db[0].levels.isel(target=0, time=frames).load()
    assert store.taken() == [["track/scale/c/0/0"], [shard_of(0, shard) for shard in range(4)]]
    xarray.testing.assert_identical(some, small.db[0].levels.isel(target=0, time=frames).load())


def test_frames_far_from_each_other_take_rounds_that_memory_holds(counting, small, monkeypatch):
    """Of each there is a whole chunk to be read."""
    most = 4000
    for module in ("_read.frames", "_read.chunks"):
        monkeypatch.setattr(f"norbert_store.{module}.BATCH_BYTES", most)
    store, db = counting()
    assert np.array_equal(db[0].levels.isel(time=slice(None, None, 16)), small.db[0].levels[:, :, ::16])
    sizes = bytes_of_chunks(store)
    assert len(sizes) > 10
    assert max(sizes) <= most


def test_columns_are_read_at_once(counting):
    store, db = counting()
    store.taken()
    assert db.tracks.sizes["track"] == 4
    ((*keys,),) = store.taken()
    assert len(keys) == len(set(keys)) == 13
    assert len(db.names) == 4
    assert "Bob - Short" in db
    assert db.tracks.genre[0] == "Rock"
    assert store.taken() == []


def test_absent_stems_are_asked_for_once(counting):
    store, db = counting()
    absent = db["Bob - Short"].magnitude.sel(target="vocals")
    store.taken()
    assert np.isnan(absent.load()).all()
    assert store.taken() == [["chunk/extent/c/1/0/0/0"], ["track/present/c/0/0"]]
    assert np.isnan(db["Bob - Short"].magnitude.sel(target="vocals")).all()
    assert store.taken() == []


def test_packed_magnitudes_need_no_table(counting, bundled):
    store, db = counting(bundled)
    store.taken()
    assert np.isfinite(db.to_xarray().magnitude.isel(target=1, frame=slice(0, 16))).all()
    assert store.taken() == [["chunk/extent/c/1/0/0/0"], [shard_of(1, 0)]]


@pytest.mark.parametrize(("kept", "requests"), [(1_000_000, 1), (1000, 2)])
def test_blocks_are_kept_up_to_a_number_of_bytes(counting, monkeypatch, kept, requests):
    monkeypatch.setattr("norbert_store._read.snapshot._BLOCK_BYTES_KEPT", kept)
    store, db = counting()
    first, *others = (db[0].magnitude.isel(target=target, time=0) for target in range(3))
    for lazy in (first, *others):
        lazy.copy(deep=False).values  # noqa: B018
    store.taken()
    first.copy(deep=False).values  # noqa: B018
    assert sum(map(len, store.taken())) == requests


def test_readers_are_sent_without_what_they_remember(small):
    reader = Frames.open(small.path)
    before = len(pickle.dumps(reader))
    reader.snapshot.column("name")
    reader.levels(Wanted([0, 1, 2], [0, 1], np.arange(400)))
    again = pickle.loads(pickle.dumps(reader))
    assert len(pickle.dumps(reader)) < before + 2000
    assert np.array_equal(again.snapshot.column("name"), reader.snapshot.column("name"))
