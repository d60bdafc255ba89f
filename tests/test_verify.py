"""A whole store has no faults, and each kind of damage is one, with its place."""

from __future__ import annotations

import json
import os
import re
import shutil

import numpy as np
import pytest
import zarr

import norbert_store
from norbert_store.errors import FormatError, StoreNotFoundError
from norbert_store.format.shard import ShardIndex, pack, with_checksum
from norbert_store.verify import verify

TARGETS = ("mixture", "vocals")
RATE = 8000
CHUNK_FRAMES, SHARD_CHUNKS = 8, 4


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


def set_cell(store, column, row, value):
    zarr.open_array(store / "track" / column, mode="r+")[row] = value


def chunks_named(faults):
    """(track, target, channel, chunk) of every fault that names them all."""
    pattern = r"x\.zarr: track '(\w+)', target '(\w+)', channel '(\w+)', packed chunk (\d+)"
    found = [re.search(pattern, fault) for fault in faults]
    return [(*match.groups()[:3], int(match[4])) for match in found if match]


def test_a_whole_store_has_no_faults(whole):
    told = []
    assert verify(whole, lambda *progress: told.append(progress)) == []
    assert told == [(1, 3), (2, 3), (3, 3)]
    assert verify(str(whole)) == []
    assert verify(zarr.storage.LocalStore(whole, read_only=True)) == []


def test_an_empty_store_has_no_faults(tmp_path):
    norbert_store.create(tmp_path / "x.zarr", targets=["mixture"], rate=RATE).close()
    assert verify(tmp_path / "x.zarr") == []


def test_silence_which_is_stored_once_is_whole(tmp_path):
    with norbert_store.create(tmp_path / "x.zarr", targets=["mixture"], rate=RATE) as writer:
        writer.add("silence", {"mixture": np.zeros((300000, 2))})
    assert verify(tmp_path / "x.zarr") == []


def test_no_store_at_all_is_an_error(tmp_path):
    with pytest.raises(StoreNotFoundError, match="there is no store"):
        verify(tmp_path / "x.zarr")
    (tmp_path / "x.zarr").mkdir()
    (tmp_path / "x.zarr" / "zarr.json").write_text("{}")
    with pytest.raises(FormatError, match="is no norbert_store"):
        verify(tmp_path / "x.zarr")


# ---- shards


def test_a_deleted_shard(store):
    shard(store, 1, 1).unlink()
    faults = verify(store)
    assert chunks_named(faults) == [("one", "vocals", "left", 4), ("one", "vocals", "right", 4)]
    assert all(fault.endswith("is missing") for fault in faults)


def test_all_chunks_of_a_deleted_shard_are_named(store):
    shard(store, 0, 0).unlink()
    assert chunks_named(verify(store)) == [
        ("one", "mixture", channel, chunk) for chunk in range(4) for channel in ("left", "right")
    ]


@pytest.mark.parametrize("length", [0, 10, 2000])
def test_a_truncated_shard(store, length):
    os.truncate(shard(store, 0, 0), length)
    (fault,) = verify(store)
    assert "track 'one', target 'mixture': the index of magnitude/c/0/0/0/0: " in fault


def test_a_flipped_byte_in_a_chunk(store):
    data = shard(store, 0, 0).read_bytes()
    index = ShardIndex.parse(data[-(2 * SHARD_CHUNKS * 16 + 4) :], 2, SHARD_CHUNKS)
    offset, length = index.place(1, 2)
    flip(shard(store, 0, 0), offset + length // 2)
    faults = verify(store)
    assert chunks_named(faults) == [("one", "mixture", "right", 2)]
    assert f"at byte {offset} of magnitude/c/0/0/0/0: the checksum of {length} bytes doesn't match" in faults[0]


@pytest.mark.parametrize("at", [-1, -5, -70, -132])
def test_a_flipped_byte_in_an_index_is_one_fault(store, at):
    flip(shard(store, 0, 0), at)
    (fault,) = verify(store)
    assert "track 'one', target 'mixture': the index of magnitude/c/0/0/0/0: the checksum" in fault


def test_a_chunk_that_the_index_does_not_name(store):
    data = shard(store, 0, 0).read_bytes()
    index = ShardIndex.parse(data[-(2 * SHARD_CHUNKS * 16 + 4) :], 2, SHARD_CHUNKS)
    chunks = {}
    for channel in range(2):
        for chunk in range(SHARD_CHUNKS):
            offset, length = index.place(channel, chunk)
            chunks[channel, chunk] = data[offset : offset + length]
    assert pack(chunks, 2, SHARD_CHUNKS) == data
    del chunks[0, 3]
    shard(store, 0, 0).write_bytes(pack(chunks, 2, SHARD_CHUNKS))
    assert chunks_named(verify(store)) == [("one", "mixture", "left", 3)]


@pytest.mark.parametrize(
    ("content", "fault"),
    [(b"no JPEG", "not a JPEG"), (None, "the JPEG is 16 rows x 129 columns; expected 8 x 129")],
)
def test_a_chunk_with_a_good_checksum_but_no_jpeg_of_the_right_size(store, content, fault):
    if content is None:
        from norbert_store.jpeg.encoder import encode, quantisation_table

        content = encode(np.zeros((16, 129), np.uint8), quantisation_table(80))
    places = {(channel, 0): with_checksum(content) for channel in range(2)}
    shard(store, 0, 1).write_bytes(pack(places, 2, SHARD_CHUNKS, target=0, shard=1))
    faults = verify(store)
    assert chunks_named(faults) == [("one", "mixture", "left", 4), ("one", "mixture", "right", 4)]
    assert fault in faults[0]


@pytest.mark.parametrize("other", [(0, 1), (1, 0), (0, 2)])
def test_swapped_shards_are_noticed(store, other):
    swap(shard(store, 0, 0), shard(store, *other))
    faults = verify(store)
    assert any("this is the shard 0 of target 0" in fault for fault in faults)
    assert any("expected shard 0 of target 0" in fault and "track 'one', target 'mixture'" in fault for fault in faults)


def test_several_faults_are_all_told(store):
    shard(store, 0, 0).unlink()
    flip(shard(store, 1, 4), -1)
    flip(shard(store, 0, 2), 10)
    tracks = [re.search(r"track '(\w+)'", fault)[1] for fault in verify(store)]
    assert tracks == ["one"] * 8 + ["two"] + ["three"]


# ---- presence


def test_a_stem_that_is_there_though_marked_as_absent(store):
    set_cell(store, "present", (2, 1), False)
    faults = verify(store)
    assert {place[:2] for place in chunks_named(faults)} == {("three", "vocals")}
    assert all("is there, but the track table says that the target is absent" in fault for fault in faults)


def test_a_stem_that_is_not_there_though_marked_as_present(store):
    set_cell(store, "present", (1, 1), True)
    faults = verify(store)
    assert {place[:2] for place in chunks_named(faults)} == {("two", "vocals")}
    assert all(fault.endswith("is missing") for fault in faults)


# ---- the track table and the coordinates

COLUMNS = ["name", "split", "source", "start", "frames", "samples", "present", "metadata"]


def chunk_of(store, array):
    return store / array / ("c/0/0" if array == "track/present" else "c/0")


@pytest.mark.parametrize("array", [*(f"track/{column}" for column in COLUMNS), "target", "channel", "frequency"])
def test_a_deleted_or_flipped_chunk_of_table_or_coordinates(store, array):
    flip(chunk_of(store, array), 12)
    (fault,) = verify(store)
    assert f"x.zarr: {array}/c/0" in fault
    assert "can't be read" in fault
    chunk_of(store, array).unlink()
    (fault,) = verify(store)
    assert f"x.zarr: {array}/c/0" in fault
    assert fault.endswith("is missing")


def test_tampered_coordinates(store):
    zarr.open_array(store / "target", mode="r+")[1] = "drums"
    frequency = zarr.open_array(store / "frequency", mode="r+")
    frequency[5] = 0.0
    first, second = verify(store)
    assert "/target holds ('mixture', 'drums'), the attributes say ('mixture', 'vocals')" in first
    assert "/frequency isn't in ascending order" in second


@pytest.mark.parametrize("frames", [-1, 0, 1, 39, 1000, 2**62])
def test_tampered_frames(store, frames):
    set_cell(store, "frames", 0, frames)
    faults = verify(store)
    assert any(f"track 'one' has {frames} frames; its 4500 samples give 37" in fault for fault in faults)
    outside = [fault for fault in faults if "track 'one' lies at frames 0 to" in fault]
    assert len(outside) == (frames not in (1, 39))


@pytest.mark.parametrize("start", [-8, 0, 4, 8, 100 * CHUNK_FRAMES, 2**62])
def test_a_tampered_start(store, start):
    set_cell(store, "start", 1, start)
    assert any(
        f"lies at frames {start} to " in fault and "expected it at a chunk's" in fault for fault in verify(store)
    )


def test_tampered_samples(store):
    set_cell(store, "samples", 2, 10_000)
    (fault,) = verify(store)
    assert "track 'three' has 37 frames; its 10000 samples give 80" in fault


def test_duplicate_names(store):
    set_cell(store, "name", 2, "one")
    (fault,) = verify(store)
    assert "2 tracks are named 'one'" in fault


def test_a_document_that_contradicts_itself_is_an_error(store):
    document = json.loads((store / "zarr.json").read_text())
    document["attributes"]["norbert_store"]["frames"] += 1
    (store / "zarr.json").write_text(json.dumps(document))
    with pytest.raises(FormatError, match="/magnitude has shape"):
        verify(store)


# ---- other codecs


def test_a_store_of_other_codecs(tmp_path, store):
    """What a program that writes zarr makes of the store: the same arrays, but chunks that are no JPEGs."""
    document = json.loads((store / "zarr.json").read_text())
    magnitude = document["consolidated_metadata"]["metadata"]["magnitude"]
    values = zarr.open_array(store / "magnitude", mode="r")[:]
    (sharding,) = magnitude["codecs"]
    sharding["configuration"]["codecs"] = [
        {"name": "bytes", "configuration": {"endian": "little"}},
        {"name": "crc32c"},
    ]
    (store / "zarr.json").write_text(json.dumps(document))
    (store / "magnitude" / "zarr.json").write_text(json.dumps(magnitude))
    shutil.rmtree(store / "magnitude" / "c")
    zarr.open_array(store / "magnitude", mode="r+")[:] = values
    assert verify(store) == []
    path = shard(store, 0, 0)
    flip(path, 100)
    (fault,) = verify(store)
    assert "track 'one', target 'mixture'" in fault
    path.unlink()
    (fault,) = verify(store)
    assert "track 'one', target 'mixture': chunks are missing" in fault
