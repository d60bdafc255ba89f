"""A bundle of tracks, as an export uses it: blocks go in, and it stays before the next bundle."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from zarr.storage import MemoryStore

import norbert_store
from norbert_store import verify
from norbert_store._format.shard import ShardIndex, checksum_matches, index_bytes
from norbert_store._storage.storage import Storage
from norbert_store._write.bundle import Bundle
from norbert_store._write.settings import new_document
from norbert_store.errors import AudioError, StorageError, TrackError

RATE = 8000
TARGETS = ("mixture", "vocals")


@pytest.fixture
def storage():
    return Storage(MemoryStore(), read_only=False)


@pytest.fixture
def bundle(storage):
    document, transform = new_document(
        targets=TARGETS,
        transform=norbert_store.TF(rate=RATE, n_fft=256),
        bandwidth=3500,
        chunk_frames=8,
        shard_chunks=2,
        effort=0,
    )
    return Bundle(storage, document, transform, first_chunk=4, end_chunk=8)


def noise(samples, channels=2):
    return np.random.default_rng(samples).uniform(-0.5, 0.5, (samples, channels)).astype(np.float32)


def test_blocks_of_all_targets_take_turns(bundle, storage):
    audio = {target: noise(2000) for target in TARGETS}
    blocks = ((target, audio[target][start : start + 300]) for start in range(0, 2000, 300) for target in TARGETS)
    place = bundle.add("x", blocks)
    bundle.finish()
    assert (place.start, place.samples, place.present) == (4 * 8, 2000, (True, True))
    assert storage.list("magnitude/c") == [f"magnitude/c/{target}/0/{shard}/0" for target in (0, 1) for shard in (2, 3)]


def test_extents_tell_where_each_chunk_lies(bundle, storage):
    """Of tracks that share shards, over several shards; nothing where a stem is absent."""
    for samples, targets in ((500, TARGETS), (1000, TARGETS[:1])):
        bundle.add(f"of {samples}", [(target, noise(samples)) for target in targets])
    bundle.finish()
    extents = bundle.extents
    assert (extents.dtype, extents.shape) == (np.uint32, (2, 3, 2, 3))
    assert not extents[1, :, :, 1:].any()
    shards = {key: storage.get(key) for key in storage.list("magnitude/c")}
    for target, channel, chunk in ((0, 0, 0), (0, 1, 0), (0, 0, 1), (0, 1, 2), (1, 1, 0)):
        offset, length, checksum = extents[target, :, channel, chunk].tolist()
        shard, within = divmod(4 + chunk, 2)
        data = shards[f"magnitude/c/{target}/0/{shard}/0"]
        index = ShardIndex.parse(data[-index_bytes(2, 2) :], 2, 2)
        assert index.place(channel, within) == (offset, length)
        assert checksum_matches(data[offset : offset + length], checksum)


def test_a_track_that_breaks_off_leaves_no_extents(bundle):
    def broken():
        yield "mixture", noise(1500)
        raise TrackError("mine")

    with pytest.raises(TrackError):
        bundle.add("broken", broken())
    bundle.add("whole", [("mixture", noise(500))])
    bundle.finish()
    assert bundle.extents.shape == (2, 3, 2, 1)


def test_a_track_that_would_reach_into_the_next_bundle_is_an_error_and_undone(bundle, storage):
    with pytest.raises(AudioError, match="track 'long': target 'mixture' goes on beyond the place that was planned"):
        bundle.add("long", [("mixture", noise(20_000))])
    assert storage.list() == []
    assert bundle.add("short", [("mixture", noise(1000))]).start == 4 * 8


def test_what_the_blocks_raise_comes_with_the_name_if_it_is_of_this_library(bundle, storage):
    def blocks(error):
        yield "mixture", noise(3000)
        raise error

    with pytest.raises(TrackError, match="track 'x': mine"):
        bundle.add("x", blocks(TrackError("mine")))
    with pytest.raises(ValueError, match="^mine$"):
        bundle.add("x", blocks(ValueError("mine")))
    bundle.finish()
    assert storage.list() == []


@pytest.mark.parametrize(("call", "error"), [("create_anew", StorageError), ("delete", TrackError)])
def test_a_write_or_a_deletion_that_fails_leaves_nothing_of_its_track(tmp_path, monkeypatch, call, error):
    """Another track, whose stem is absent, comes to lie where the failed one was."""
    function = getattr(Storage, call)
    failing = ["magnitude/c/1/0/0/0"]

    def fail_once(self, key, *arguments):
        if key in failing:
            failing.remove(key)
            raise StorageError("busy", place=key)
        function(self, key, *arguments)

    def broken():
        for target in TARGETS:
            yield target, noise(8000)
        raise TrackError("mine")

    options: Any = {
        "transform": norbert_store.TF(rate=RATE, n_fft=256),
        "chunk_frames": 8,
        "shard_chunks": 2,
        "effort": 0,
    }
    with norbert_store.create(tmp_path / "x", targets=TARGETS, bundle_tracks=9, **options) as writer:
        monkeypatch.setattr(Storage, call, fail_once)
        with pytest.raises(error):
            writer.add("broken", broken())
        writer.add("whole", {"mixture": noise(8000)})
    assert not failing
    assert verify(tmp_path / "x")
