"""A whole store has no faults, and each kind of damage is one, with its place; readers find it as well."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
from typing import Any

import numpy as np
import pytest
import zarr

import norbert_store
from norbert_store._check.repair import repair
from norbert_store._check.report import Fault, Report
from norbert_store._check.verify import verify
from norbert_store._format.document import Document
from norbert_store._format.shard import ShardIndex, index_bytes, pack, with_checksum
from norbert_store._jpeg.encoder import encode, quantisation_table
from norbert_store._storage.storage import Storage
from norbert_store.errors import DamagedError, FormatError, StoreNotFoundError

TARGETS = ("mixture", "vocals")
RATE = 8000
CHUNK_FRAMES, SHARD_CHUNKS = 8, 4
INDEX_BYTES = index_bytes(2, SHARD_CHUNKS)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Three tracks of five chunks, two shards each; the second has no vocals."""
    place = tmp_path_factory.mktemp("whole") / "x.zarr"
    dice = np.random.default_rng(0)
    with norbert_store.create(
        place,
        targets=TARGETS,
        transform=norbert_store.TF(rate=RATE, n_fft=256),
        chunk_frames=CHUNK_FRAMES,
        shard_chunks=SHARD_CHUNKS,
    ) as writer:
        for name in ("one", "two", "three"):
            stems = {target: dice.uniform(-0.5, 0.5, (4500, 2)) for target in TARGETS[: 1 if name == "two" else 2]}
            writer.add(name, stems, split="train", metadata={"seed": 0})
    return place


@pytest.fixture
def store(whole, tmp_path):
    """A copy that a test may damage."""
    return shutil.copytree(whole, tmp_path / "x.zarr")


def shard(store, target, shard):
    return store / f"magnitude/c/{target}/0/{shard}/0"


def flip(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def swap(path, other):
    data = path.read_bytes()
    path.write_bytes(other.read_bytes())
    other.write_bytes(data)


def lines(store, **options):
    """What people read of a store's faults."""
    return [str(fault) for fault in verify(store, **options).faults]


def chunks_named(faults):
    """(track, target, channel, chunk) of every fault of a chunk."""
    return [(fault.track, fault.target, fault.channel, fault.chunk) for fault in faults if fault.chunk is not None]


def chunks_of(path):
    """The encoded chunks of a shard, by (channel, chunk)."""
    data = path.read_bytes()
    index = ShardIndex.parse(data[-INDEX_BYTES:], 2, SHARD_CHUNKS)
    places = {at: index.place(*at) for at in np.ndindex(2, SHARD_CHUNKS)}
    return {at: data[place[0] : sum(place)] for at, place in places.items() if place}


def test_a_whole_store_has_no_faults(whole):
    told = []
    assert verify(whole, progress=lambda *progress: told.append(progress))
    assert told[-1] == (12, 12)  # three tracks of two shards, of two targets each
    assert told == sorted(set(told))
    assert verify(str(whole), decode=False, workers=1)
    assert verify(zarr.storage.LocalStore(whole, read_only=True))


def test_an_empty_store_has_no_faults(tmp_path):
    norbert_store.create(tmp_path / "x.zarr", targets=["mixture"], rate=RATE).close()
    assert verify(tmp_path / "x.zarr")


def test_silence_which_is_stored_once_is_whole(tmp_path):
    with norbert_store.create(tmp_path / "x.zarr", targets=["mixture"], rate=RATE) as writer:
        writer.add("silence", {"mixture": np.zeros((300000, 2))})
    assert verify(tmp_path / "x.zarr")


def test_tracks_that_share_shards_are_whole(bundled, mel, ready):
    for made in (bundled, mel, ready):
        assert verify(made.path)


@pytest.mark.slow
def test_a_shard_that_is_read_in_several_runs(tmp_path):
    """More than four megabytes in one file."""
    transform = norbert_store.ReadyBins("noise", RATE, 100, np.arange(1, 513))
    options: dict[str, Any] = {"targets": ["noise"], "transform": transform, "channels": 1, "quality": 100, "effort": 0}
    with norbert_store.create(tmp_path / "x.zarr", **options) as writer:
        noise = np.random.default_rng(0).uniform(0, 1, (1, 12_000, 512)).astype(np.float32)
        writer.add_magnitudes("noise", {"noise": noise})
    path = shard(tmp_path / "x.zarr", 0, 0)
    assert path.stat().st_size > 5 << 20
    assert verify(tmp_path / "x.zarr", workers=2)
    flip(path, 5 << 20)
    flip(path, 1000)
    first, last = verify(tmp_path / "x.zarr", workers=2).faults
    assert (first.chunk, first.offset) == (0, 0)
    assert 0 <= (5 << 20) - last.offset < 300_000


def test_workers_are_counted_from_one(whole):
    with pytest.raises(ValueError, match="workers"):
        verify(whole, workers=0)


def test_no_store_at_all_is_an_error(tmp_path):
    with pytest.raises(StoreNotFoundError, match="there is no store"):
        verify(tmp_path / "x.zarr")
    (tmp_path / "x.zarr").mkdir()
    (tmp_path / "x.zarr" / "zarr.json").write_text("{}")
    with pytest.raises(FormatError, match="is no norbert_store"):
        verify(tmp_path / "x.zarr")


def test_what_was_never_committed_is_no_fault(store):
    (store / "writer.lock").write_text("{}")
    (store / "magnitude/c/0/0/0/0.1234.partial").write_bytes(b"half")
    shard(store, 0, 6).parent.mkdir()
    shard(store, 0, 6).write_bytes(b"of a session that was cut off")
    path = store / "track" / "name"
    document = json.loads((path / "zarr.json").read_text())
    (path / "zarr.json").write_text(json.dumps({**document, "shape": [5]}))
    zarr.open_array(path, mode="r+")[3:] = ["four", "five"]
    (path / "zarr.json").write_text(json.dumps(document))
    assert verify(store)


def test_a_fault_tells_all_that_is_known(store):
    (store / "target/c/0").unlink()
    shard(store, 1, 1).unlink()
    fault, left, _ = verify(store).faults
    assert fault == Fault(str(store), "target/c/0", "the file is missing")
    assert str(fault) == f"{store}: target/c/0: the file is missing"
    key = "magnitude/c/1/0/1/0"
    assert left == Fault(str(store), key, "the file is missing", "one", "vocals", "left", 4)
    place = "track 'one', target 'vocals', channel 'left', packed chunk 4"
    assert str(left) == f"{store}: {place}, {key}: the file is missing"


# ---- shards


def test_a_deleted_shard(store):
    shard(store, 0, 0).unlink()
    faults = verify(store).faults
    assert chunks_named(faults) == [
        ("one", "mixture", channel, chunk) for chunk in range(4) for channel in ("left", "right")
    ]
    assert {(fault.key, fault.problem) for fault in faults} == {("magnitude/c/0/0/0/0", "the file is missing")}


@pytest.mark.parametrize("length", [0, 10, 2000])
def test_a_truncated_shard(store, length):
    os.truncate(shard(store, 0, 0), length)
    (fault,) = lines(store)
    assert "track 'one', target 'mixture', magnitude/c/0/0/0/0: the index is damaged: " in fault


@pytest.mark.parametrize("decode", [True, False])
def test_a_flipped_byte_in_a_chunk(store, decode):
    data = shard(store, 0, 0).read_bytes()
    offset, length = ShardIndex.parse(data[-INDEX_BYTES:], 2, SHARD_CHUNKS).place(1, 2)
    flip(shard(store, 0, 0), offset + length // 2)
    (fault,) = verify(store, decode=decode).faults
    assert str(fault) == (
        f"{store}: track 'one', target 'mixture', channel 'right', packed chunk 2, at byte {offset} of "
        f"magnitude/c/0/0/0/0: the checksum of {length} bytes doesn't match"
    )


@pytest.mark.parametrize("at", [-1, -5, -70, -132])
def test_a_flipped_byte_in_an_index_is_one_fault(store, at):
    flip(shard(store, 0, 0), at)
    (fault,) = lines(store)
    assert "track 'one', target 'mixture', magnitude/c/0/0/0/0: the index is damaged: the checksum" in fault


def test_a_damaged_index_is_a_fault_of_every_track_in_the_shard(bundled, tmp_path):
    copy = shutil.copytree(bundled.path, tmp_path / "x.zarr")
    flip(shard(copy, 1, 1), -1)
    faults = verify(copy).faults
    assert [(fault.track, fault.target) for fault in faults] == [("clip 1", "vocals"), ("clip 2", "vocals")]


def test_a_chunk_that_the_index_does_not_name(store):
    chunks = chunks_of(shard(store, 0, 0))
    assert pack(chunks, 2, SHARD_CHUNKS)[0] == shard(store, 0, 0).read_bytes()
    last = max(chunks, key=lambda at: (at[1], at[0]))
    del chunks[last]
    shard(store, 0, 0).write_bytes(pack(chunks, 2, SHARD_CHUNKS)[0])
    faults = verify(store).faults
    assert chunks_named(faults) == [("one", "mixture", ("left", "right")[last[0]], last[1])]
    assert faults[0].problem == "the chunk is missing"


def test_an_index_that_names_other_places_than_the_extents(store):
    """Readers go by the extents, and other programs by the index."""
    chunks = chunks_of(shard(store, 0, 0))
    data, extents = pack(chunks, 2, SHARD_CHUNKS)
    entries = np.array([extents[:2, 0].T, extents[:2, 1].T], "<u8")
    entries[:, [0, 1]] = entries[:, [1, 0]]
    shard(store, 0, 0).write_bytes(data[:-INDEX_BYTES] + with_checksum(entries.tobytes()))
    faults = verify(store).faults
    assert chunks_named(faults) == [("one", "mixture", c, n) for n in range(2) for c in ("left", "right")]
    assert {fault.problem for fault in faults} == {"the index of its shard and the extents differ in where it lies"}


def test_a_chunk_that_the_extents_do_not_name(store, set_shard):
    whole = shard(store, 0, 0).read_bytes()
    chunks = chunks_of(shard(store, 0, 0))
    del chunks[0, 3], chunks[1, 3]
    set_shard(store, 0, 0, chunks)
    shard(store, 0, 0).write_bytes(whole)
    faults = verify(store).faults
    assert chunks_named(faults) == [("one", "mixture", "left", 3), ("one", "mixture", "right", 3)]
    assert {fault.problem for fault in faults} == {"the extents have no such chunk"}
    with pytest.raises(DamagedError, match="the extents have no such chunk"):
        norbert_store.open(store)["one"].magnitude.load()


@pytest.mark.parametrize("damage", ["removed", "flipped", "of another target"])
def test_extents_that_are_damaged(store, damage):
    path = store / "chunk/extent/c/1/0/0/0"
    if damage == "removed":
        path.unlink()
    elif damage == "flipped":
        flip(path, 20)
    else:
        path.write_bytes((store / "chunk/extent/c/0/0/0/0").read_bytes())
    (fault,) = verify(store).faults
    assert fault.key == "chunk/extent/c/1/0/0/0"
    db = norbert_store.open(store)
    db["one"].magnitude.sel(target="mixture").load()
    with pytest.raises(DamagedError, match="chunk/extent/c/1/0/0/0"):
        db["one"].magnitude.sel(target="vocals").load()


def test_an_index_that_points_outside_the_shard(store):
    data = bytearray(shard(store, 0, 0).read_bytes()[:-4])
    data[-8:] = len(data).to_bytes(8, "little")
    index = with_checksum(bytes(data[4 - INDEX_BYTES :]))
    shard(store, 0, 0).write_bytes(data[: 4 - INDEX_BYTES] + index)
    (fault,) = lines(store)
    assert "track 'one', target 'mixture', magnitude/c/0/0/0/0: the index is damaged: an entry" in fault


GREY = np.zeros((CHUNK_FRAMES, 129), np.uint8)


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"no JPEG", "not a JPEG"),
        (
            encode(np.zeros((16, 129), np.uint8), quantisation_table(80)),
            "16 rows x 129 columns; expected at most 8 x 129",
        ),
        (encode(GREY, quantisation_table(80))[:-2], "the JPEG is cut off"),
    ],
)
@pytest.mark.parametrize("decode", [True, False])
def test_a_chunk_with_a_good_checksum_but_no_jpeg_of_the_right_size(store, set_shard, content, fault, decode):
    set_shard(store, 0, 1, {(channel, 0): with_checksum(content) for channel in range(2)})
    faults = verify(store, decode=decode).faults
    assert chunks_named(faults) == [("one", "mixture", "left", 4), ("one", "mixture", "right", 4)]
    assert all(fault in one.problem for one in faults)


def test_a_scan_that_only_decoding_finds_out_about(store, set_shard):
    """It ends too early, though all lengths are right."""
    scale = norbert_store.open(store)[0].scales["mixture"]
    jpeg = bytearray(encode(np.full_like(GREY[:5], 200), quantisation_table(80), scale=scale))
    jpeg[-4:-2] = b"\xff\xd9"
    set_shard(store, 0, 1, {(0, 0): with_checksum(bytes(jpeg))})
    assert [fault.problem for fault in verify(store, decode=False).faults] == ["the extents have no such chunk"]
    scan, missing = verify(store).faults
    assert (scan.channel, scan.offset, missing.problem) == ("left", 0, "the extents have no such chunk")
    assert "markers" in scan.problem


@pytest.mark.parametrize("decode", [True, False])
@pytest.mark.parametrize(
    ("rows", "louder", "fault"),
    [
        (4, 0, "the JPEG has 4 rows; the track has 5 frames there"),
        (8, 0, "the JPEG has 8 rows; the track has 5 frames there"),
        (5, 1, r"the JPEG's scale is -?\d+; the track table says -?\d+"),
    ],
)
def test_chunks_that_the_track_table_contradicts(store, set_shard, rows, louder, fault, decode):
    scale = norbert_store.open(store)[0].scales["mixture"] + louder
    jpeg = encode(np.full_like(GREY[:rows], 200), quantisation_table(80), scale=scale)
    set_shard(store, 0, 1, {(channel, 0): with_checksum(jpeg) for channel in range(2)})
    faults = verify(store, decode=decode).faults
    assert chunks_named(faults) == [("one", "mixture", "left", 4), ("one", "mixture", "right", 4)]
    assert all(re.search(fault, one.problem) for one in faults)


@pytest.mark.parametrize("other", [(0, 1), (1, 0), (0, 2)])
def test_swapped_shards_are_noticed(store, other):
    swap(shard(store, 0, 0), shard(store, *other))
    faults = verify(store).faults
    assert {fault.key for fault in faults} == {"magnitude/c/0/0/0/0", "magnitude/c/{}/0/{}/0".format(*other)}
    # where the two have chunks of equal length, the checksum tells
    assert "the checksum of" in str(faults) or "its checksum is another one" in str(faults)


def test_several_faults_are_all_told_in_the_same_order_by_any_number_of_workers(store):
    shard(store, 0, 0).unlink()
    flip(shard(store, 1, 4), -1)
    flip(shard(store, 0, 2), 10)
    faults = verify(store, workers=1).faults
    assert [fault.track for fault in faults] == ["one"] * 8 + ["two"] + ["three"]
    for workers in (2, 7):
        assert verify(store, workers=workers).faults == faults


def test_a_file_that_cannot_be_read_is_a_fault(store):
    """As on a disk that fails."""
    path = shard(store, 0, 0)
    path.unlink()
    path.symlink_to(path.name)
    faults = verify(store).faults
    assert {(fault.track, fault.target, fault.key) for fault in faults} == {("one", "mixture", "magnitude/c/0/0/0/0")}
    assert all("can't be read" in fault.problem for fault in faults)


# ---- what verify finds, readers find


def remove(path):
    path.unlink()


def cut_off(path):
    os.truncate(path, 50)


def swap_with_next(path):
    swap(path, path.parents[1] / str(int(path.parent.name) + 1) / "0")


def flip_in_data(path):
    flip(path, 100)


KINDS = [remove, cut_off, swap_with_next, flip_in_data]


@pytest.mark.parametrize("damage", KINDS)
def test_reading_what_is_damaged_is_an_error_with_the_same_names(store, damage):
    whole = norbert_store.open(store)["one"].levels.sel(target="vocals").values
    damage(shard(store, 0, 0))
    assert not verify(store)
    track = norbert_store.open(store)["one"]
    named = r"x\.zarr: track 'one', target 'mixture'"
    with pytest.raises(DamagedError, match=named):
        track.magnitude.load()
    with pytest.raises(DamagedError, match=named):
        track.levels.isel(channel=0, time=0).load()
    with pytest.raises(DamagedError, match=named):
        track.jpeg("mixture", "left", 0)
    assert np.array_equal(track.levels.sel(target="vocals"), whole)


@pytest.mark.slow
def test_a_damaged_index_takes_nothing_from_readers(store):
    """They go by the extents; other programs need it."""
    whole = norbert_store.open(store)["one"].levels.values
    flip(shard(store, 0, 0), -20)
    assert not verify(store)
    assert np.array_equal(norbert_store.open(store)["one"].levels, whole)


def test_no_flipped_byte_of_any_file_goes_unnoticed_and_changes_something(whole, tmp_path):
    def values(store):
        db = norbert_store.open(store)
        return [db.names, db.targets, db.channels, [track.levels.values.tolist() for track in db]]

    expected = values(whole)
    dice = np.random.default_rng(0)
    files = [path.relative_to(whole) for path in sorted(whole.rglob("*")) if path.is_file()]
    copy = shutil.copytree(whole, tmp_path / "x.zarr")
    noticed = 0
    for file in files:
        original = (copy / file).read_bytes()
        for at in dice.integers(0, len(original), 2).tolist():
            data = bytearray(original)
            data[at] ^= 1 << int(dice.integers(8))
            (copy / file).write_bytes(data)
            try:
                faults = verify(copy).faults
            except FormatError:
                assert file.as_posix() == "zarr.json"
                noticed += 1
                continue
            assert {fault.key for fault in faults} <= {file.as_posix()}
            noticed += bool(faults)
            if not faults:
                assert file.name == "zarr.json"  # spaces, and what nothing depends on
                assert values(copy) == expected
        (copy / file).write_bytes(original)
    assert noticed > 1.5 * len(files)


# ---- presence


def test_a_stem_that_is_there_though_marked_as_absent(store, set_cell):
    set_cell(store, "present", (2, 1), False)
    faults = verify(store).faults
    assert {place[:2] for place in chunks_named(faults)} == {("three", "vocals")}
    assert all("is there, but the track table says that the target is absent" in fault.problem for fault in faults)


def test_a_stem_that_is_not_there_though_marked_as_present(store, set_cell):
    set_cell(store, "present", (1, 1), True)
    faults = verify(store).faults
    assert {place[:2] for place in chunks_named(faults)} == {("two", "vocals")}
    assert all(fault.problem == "the extents have no such chunk" for fault in faults)


# ---- documents, the track table and the coordinates

COLUMNS = [
    "name",
    "split",
    "source",
    "source_bytes",
    "source_modified",
    "start",
    "frames",
    "samples",
    "present",
    "metadata",
]
ARRAYS = [*(f"track/{column}" for column in COLUMNS), "target", "channel", "frequency"]


@pytest.mark.parametrize("path", ["magnitude", "track", *ARRAYS])
def test_documents_below_the_root(store, path):
    document = store / path / "zarr.json"
    whole = json.loads(document.read_text())
    for content, problem in (
        ("{", "the file isn't JSON"),
        ("[]", "the file isn't a JSON object"),
        (json.dumps({**whole, "zarr_format": 2}), "the root's document says something else about 'zarr_format'"),
    ):
        document.write_text(content)
        assert lines(store) == [f"{store}: {path}/zarr.json: {problem}"]
    document.unlink()
    assert lines(store) == [f"{store}: {path}/zarr.json: the file is missing"]


@pytest.mark.parametrize(
    ("path", "axis"), [("magnitude", 2), ("track/name", 0), ("track/present", 0), ("chunk/extent", 3)]
)
def test_arrays_may_only_have_grown(store, path, axis):
    document = store / path / "zarr.json"
    whole = json.loads(document.read_text())
    for other, faults in ((0, 0), (1, 0), (10**6, 1), (-1, 1), ("many", 1)):
        shape = list(whole["shape"])
        shape[axis] = other
        document.write_text(json.dumps({**whole, "shape": shape}))
        assert len(verify(store).faults) == faults
    for shape in ([], None, [*whole["shape"], 1]):
        document.write_text(json.dumps({**whole, "shape": shape}))
        assert lines(store) == [f"{store}: {path}/zarr.json: the root's document says something else about 'shape'"]


def chunk_of(store, array):
    by_target = ("track/present", "track/source_bytes", "track/source_modified")
    return store / array / ("c/0/0" if array in by_target else "c/0")


@pytest.mark.parametrize("array", ARRAYS)
def test_a_deleted_or_flipped_chunk_of_table_or_coordinates(store, array):
    flip(chunk_of(store, array), 12)
    (fault,) = verify(store).faults
    assert fault.key == chunk_of(store, array).relative_to(store).as_posix()
    assert "the file can't be read" in str(fault)
    chunk_of(store, array).unlink()
    (fault,) = lines(store)
    assert fault.startswith(f"{store}: {array}/c/0")
    assert fault.endswith(": the file is missing")


def test_chunks_are_looked_at_also_where_a_label_is_damaged(store):
    flip(chunk_of(store, "track/split"), 12)
    flip(shard(store, 0, 0), 10)
    assert [fault.key for fault in verify(store).faults] == ["track/split/c/0", "magnitude/c/0/0/0/0"]


def test_coordinates_that_another_program_has_changed(store):
    zarr.open_array(store / "target", mode="r+")[1] = "drums"
    zarr.open_array(store / "frequency", mode="r+")[5] = 0.0
    first, second = lines(store)
    for line, path in ((first, "target"), (second, "frequency")):
        assert f"{path}/c/0: the file isn't that of this state of the store: its checksum is another one" in line


def test_columns_that_another_program_has_changed(store):
    zarr.open_array(store / "track/split", mode="r+")[0] = "test"
    (line,) = lines(store)
    assert "track/split/c/0: the file isn't that of this state of the store: its checksum is another one" in line


def test_coordinates_that_contradict_the_document(store, seal):
    def other_target(values):
        values[1] = "drums"

    def falling(values):
        values[5] = 0

    seal(store, "target", (0,), other_target)
    seal(store, "frequency", (0,), falling)
    first, second = lines(store)
    assert "target/c/0: it holds ('mixture', 'drums'), the document says ('mixture', 'vocals')" in first
    assert "frequency/c/0: the frequencies aren't in ascending order" in second


@pytest.mark.parametrize("frames", [-1, 0, 1, 39, 1000, 2**62])
def test_tampered_frames(store, frames, set_cell):
    set_cell(store, "frames", 0, frames)
    faults = lines(store)
    assert any(
        f"track 'one', track/frames/c/0: it has {frames} frames; its 4500 samples give 37" in fault for fault in faults
    )
    outside = [fault for fault in faults if "track 'one', track/start/c/0: it lies at frames 0 to" in fault]
    assert len(outside) == (frames not in (1, 39))


@pytest.mark.parametrize("start", [-8, 0, 4, 8, 100 * CHUNK_FRAMES, 2**62])
def test_a_tampered_start(store, start, set_cell):
    set_cell(store, "start", 1, start)
    assert any(f"lies at frames {start} to " in fault and "expected it at a chunk's" in fault for fault in lines(store))


def test_tampered_samples(store, set_cell):
    set_cell(store, "samples", 2, 10_000)
    (fault,) = lines(store)
    assert "track 'three', track/frames/c/0: it has 37 frames; its 10000 samples give 80" in fault


def test_tampered_metadata(store, set_cell):
    set_cell(store, "metadata", 1, "[1]")
    (fault,) = lines(store)
    assert "track/metadata/c/0: the metadata of row 1 isn't a JSON object" in fault


def test_duplicate_names(store, set_cell):
    set_cell(store, "name", 2, "one")
    (fault,) = lines(store)
    assert "track/name/c/0: 2 tracks are named 'one'" in fault


def test_a_document_that_was_changed_by_hand_is_an_error(store):
    root = (store / "zarr.json").read_text()
    (store / "zarr.json").write_text(root.replace('\\"chunks\\": ', '\\"chunks\\": 1'))
    with pytest.raises(FormatError, match="the checksum of its document is .* changed by hand"):
        verify(store)


def test_a_change_that_was_cut_off_is_told(store):
    """What is read is right; other programs see the old bytes at their place."""
    whole = [track.levels.values for track in norbert_store.open(store)]
    root = store / "zarr.json"
    document = Document.from_json(root.read_bytes(), "x")
    key = "magnitude/c/0/0/0/0"
    pending = store / f"pending/{document.revision}" / key
    pending.parent.mkdir(parents=True)
    shutil.copy(store / key, pending)
    (store / key).write_bytes(b"old")
    root.write_bytes(dataclasses.replace(document, pending=(key,)).to_json())
    (fault,) = verify(store).faults
    assert (fault.key, "repair the store" in fault.problem) == (key, True)
    found = [track.levels.values for track in norbert_store.open(store)]
    assert all(map(np.array_equal, found, whole))
    assert repair(store) == Report(str(store), mended=(key,))
    assert verify(store)
    assert Storage(store).list("pending") == []
