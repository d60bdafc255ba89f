"""Random excerpts: the numbers of the tracks, at places that depend on seed and number alone."""

from __future__ import annotations

import copy
import gc
import io
import multiprocessing
import os
import pickle
import shutil
import subprocess
import sys
import tracemalloc
import zipfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import islice, pairwise
from operator import methodcaller
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from zarr.storage import LocalStore, MemoryStore, WrapperStore

import norbert_store
from norbert_store._excerpts import EpochSampler
from norbert_store._format.shard import ShardIndex, index_bytes, with_checksum
from norbert_store._format.shard import pack as pack_shard
from norbert_store._storage.storage import Storage
from norbert_store.errors import DamagedError, NameNotFoundError, StoreNotFoundError, StoreReplacedError

RATE = 100  # one frame every hundredth of a second


def write(location, lengths, absent=(), change=np.asarray, **options):
    """Write tracks of so many frames, each of other noise; "absent" names (track, target)."""
    options = {"targets": ("a", "b", "c"), "channels": 1, "chunk_frames": 8, "shard_chunks": 4, "bins": 3, **options}
    bins = options.pop("bins")
    transform = norbert_store.ReadyBins("flat", RATE, 1, np.arange(1.0, bins + 1))
    rng = np.random.default_rng(0)
    with norbert_store.create(location, transform=transform, **options) as writer:
        for i, length in enumerate(lengths):
            shape = options["channels"], length, bins
            stems = {target: change(rng.uniform(0, 1, shape).astype(np.float32)) for target in options["targets"]}
            writer.add_magnitudes(
                f"t{i}", {target: None if (i, target) in absent else stems[target] for target in stems}
            )
    return norbert_store.open(location)


def places(batch):
    """Tracks and first frames of a batch."""
    starts = [np.rint(np.multiply(start, RATE)).astype(int).tolist() for start in batch["start"]]
    return list(zip(batch["track"], starts, strict=True))


def same(found, expected):
    """Whether two batches are equal, bit for bit."""
    return np.array_equal(found["magnitude"], expected["magnitude"]) and places(found) == places(expected)


# ---- the right numbers


class Layout(NamedTuple):
    """A store, and the levels of each track by target, as Pillow sees them: (channels, frames, bins)."""

    db: norbert_store.Store
    levels: dict[str, dict[str, np.ndarray]]


LENGTHS = (70, 1, 33, 8, 150, 24, 65)
ABSENT = {(0, "b"), (2, "c"), (4, "c"), (5, "a")}
LAYOUTS = {
    "mono, odd bins": {"bins": 33, "shard_chunks": 1},
    "stereo, bundles": {"channels": 2, "bins": 30, "chunk_frames": 16, "shard_chunks": 3, "bundle_tracks": 3},
    "three channels": {"channels": 3, "bins": 7, "chunk_frames": 24},
    "long chunks, one bundle": {"channels": 2, "bins": 41, "chunk_frames": 104, "shard_chunks": 2, "bundle_tracks": 9},
}


def whole_levels(db):
    chunk_frames = db._selection.snapshot.layout.chunk_frames

    def decode(track, target, channel):
        jpegs = [track.jpeg(target, channel, i) for i in range(-(-track.frames // chunk_frames))]
        return np.concatenate([np.asarray(Image.open(io.BytesIO(jpeg))) for jpeg in jpegs])[: track.frames]

    return {
        track.name: {
            target: np.stack([decode(track, target, channel) for channel in db.channels])
            for target, there in track.present.items()
            if there
        }
        for track in db
    }


@pytest.fixture(scope="module")
def layouts(tmp_path_factory):
    """The same tracks in several layouts, in folders and elsewhere."""
    folder = tmp_path_factory.mktemp("layouts")
    made = {}
    for name, options in LAYOUTS.items():
        db = write(folder / f"{name}.zarr", LENGTHS, ABSENT, **options)
        made[name] = Layout(db, whole_levels(db))
    made["in memory"] = Layout(
        write(MemoryStore(), LENGTHS, ABSENT, **LAYOUTS["stereo, bundles"]), made["stereo, bundles"][1]
    )
    source = folder / "three channels.zarr"
    packed = pack(source, folder / "packed.zip")
    made["zip"] = Layout(norbert_store.open(packed), made["three channels"].levels)
    made["wrapped"] = Layout(norbert_store.open(WrapperStore(LocalStore(source))), made["three channels"].levels)
    return made


def pack(source, path):
    with zipfile.ZipFile(path, "w") as file:
        for member in sorted(source.rglob("*")):
            if member.is_file():
                file.write(member, member.relative_to(source).as_posix())
    return path


@settings(max_examples=150)
@given(st.sampled_from([*LAYOUTS, "in memory", "zip", "wrapped"]), st.integers(1, 130), st.data())
def test_every_excerpt_is_its_part_of_its_track(layouts, name, frames, data):
    db, levels = layouts[name]
    targets = data.draw(st.lists(st.sampled_from("abc"), min_size=1, max_size=3, unique=True))
    channels = data.draw(st.lists(st.sampled_from(db.channels), min_size=1, unique=True))
    values, remix = data.draw(st.sampled_from(["magnitude", "levels"])), data.draw(st.booleans())
    options = {"targets": targets, "channels": channels, "values": values, "remix": remix}
    indices = data.draw(st.lists(st.integers(0, 2**62), max_size=5))
    options["seed"] = data.draw(st.integers(0, 100))
    sets = [[target] for target in targets] if remix else [targets]
    if not all(
        any(there.keys() >= set(some) and len(there[some[0]][0]) >= frames for there in levels.values())
        for some in sets
    ):
        with pytest.raises(ValueError, match=r"(no track of .* is as long as)|(no track of .* has '.')"):
            db.excerpts(frames / RATE, **options)
        return
    excerpts = db.excerpts(frames / RATE, **options)
    assert excerpts.frames == frames
    assert excerpts.shape == (len(targets), len(channels), frames, len(db.frequencies))
    batch = excerpts.read(indices)
    assert batch["magnitude"].shape == (len(indices), *excerpts.shape)
    assert batch["magnitude"].dtype == excerpts.dtype
    at = [db.channels.index(channel) for channel in channels]
    for found, (tracks, starts) in zip(batch["magnitude"], places(batch), strict=True):
        of_each = zip(tracks, starts, strict=True) if remix else [(tracks, starts)] * len(targets)
        for part, target, (track, start) in zip(found, targets, of_each, strict=True):
            expected = levels[track][target][at, start : start + frames]
            magnitude = np.ldexp(db.look_up_table, db[track].scales[target])[expected]
            assert np.array_equal(part, expected if values == "levels" else magnitude)


@pytest.mark.parametrize("values", ["magnitude", "levels"])
def test_excerpts_are_what_tracks_give(made, values):
    db = made.db
    excerpts = db.excerpts(0.1, targets=db.targets[:1], channels=["right"], values=values)
    for i in range(10):
        item = excerpts[i]
        first = round(item["start"] * db.rate / db.transform.hop)
        track = db[item["track"]].to_xarray(values)[values].sel(target=[db.targets[0]], channel=["right"])
        assert np.array_equal(item["magnitude"], track.isel(time=slice(first, first + excerpts.frames)))
        assert float(track.time[first]) == pytest.approx(item["start"])


def test_tracks_may_be_as_long_as_an_excerpt(layouts):
    db, levels = layouts["stereo, bundles"]
    batch = db.excerpts(1.5, targets=["a"], values="levels").read([0, 1])
    assert places(batch) == [("t4", 0), ("t4", 0)]
    assert np.array_equal(batch["magnitude"][1, 0], levels["t4"]["a"])


def test_excerpts_of_other_transforms(mel):
    excerpts = mel.db.excerpts(0.3)
    assert excerpts.shape == (3, 2, round(0.3 * 8000 / 256), 24)
    item = excerpts[5]
    times = mel.db[0].magnitude.time
    first = int(np.flatnonzero(np.isclose(times, item["start"]))[0])
    assert np.array_equal(item["magnitude"], mel.db[0].magnitude[:, :, first : first + excerpts.frames])


# ---- at the right places

GOLDEN = {
    0: [("t3", 224), ("t3", 485), ("t3", 478), ("t3", 476), ("t3", 45), ("t0", 84), ("t3", 302), ("t0", 55)],
    1: [("t3", 211), ("t3", 114), ("t3", 236), ("t3", 424), ("t0", 67), ("t0", 75), ("t3", 256), ("t3", 473)],
    2**40 + 7: [("t3", 119), ("t3", 124), ("t3", 255), ("t3", 181), ("t3", 47), ("t3", 50), ("t3", 34), ("t3", 14)],
}
GOLDEN_NUMBERS = [0, 1, 2, 3, 4, 10**6, 2**40, 2**62 + 5]
GOLDEN_INDEPENDENT = [
    (("t3", "t0", "t1"), [314, 71, 3]),
    (("t3", "t0", "t1"), [335, 8, 13]),
    (("t3", "t0", "t1"), [177, 50, 18]),
    (("t0", "t3", "t1"), [88, 88, 4]),
    (("t0", "t3", "t1"), [40, 85, 20]),
]


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    """Five tracks: one is long, one shorter than most excerpts, and two miss a stem."""
    path = tmp_path_factory.mktemp("few") / "few.zarr"
    return make_few(path)


def make_few(path, **options):
    return write(path, (100, 30, 10, 500, 9), {(1, "b"), (4, "c")}, **options)


@pytest.mark.parametrize("seed", GOLDEN)
def test_places_never_change(few, seed):
    assert places(few.excerpts(0.1, seed=seed).read(GOLDEN_NUMBERS)) == GOLDEN[seed]


def test_places_of_independent_targets_never_change(few):
    assert places(few.excerpts(0.1, seed=3, remix=True).read(range(5))) == GOLDEN_INDEPENDENT


def test_places_do_not_depend_on_what_is_read_with_them(few):
    for remix in (False, True):
        excerpts = few.excerpts(0.1, seed=4, remix=remix)
        numbers = np.random.default_rng(0).integers(0, 1000, 40)
        whole = excerpts.read(numbers)
        single = [excerpts.read([number]) for number in numbers[::-1]][::-1]
        assert places(whole) == [place for one in single for place in places(one)]
        assert np.array_equal(whole["magnitude"], np.concatenate([one["magnitude"] for one in single]))
        others = few.excerpts(0.1, seed=4, remix=remix, channels=["mono"], values="levels", per_epoch=3)
        assert places(others.read(numbers)) == places(whole)


def test_seeds_give_other_places(few):
    found = {seed: places(few.excerpts(0.1, seed=seed).read(range(20))) for seed in range(20)}
    assert len({tuple(one) for one in found.values()}) == 20
    # neighbours aren't each other, moved on
    assert not any(found[seed][1:5] == found[seed + 1][:4] for seed in range(19))


def goodness(counts, shares):
    """Chi-square over its number of degrees of freedom: about 1."""
    expected = sum(counts) * np.asarray(shares) / np.sum(shares)
    return float(((np.asarray(counts) - expected) ** 2 / expected).sum()) / (len(counts) - 1)


def test_every_start_is_as_likely_as_any_other(tmp_path):
    lengths = (20, 12, 45, 9, 10, 11)
    db = write(tmp_path / "x.zarr", lengths, targets=("a",))
    found = places(db.excerpts(0.1, seed=5).read(range(3000)))
    drawn = Counter(found)
    starts = [(f"t{i}", start) for i, length in enumerate(lengths) for start in range(length - 9)]
    assert set(drawn) == set(starts)  # the first and the last ones, too; and no others
    assert goodness([drawn[start] for start in starts], [1] * len(starts)) < 1.6
    assert max(Counter(pairwise(found)).values()) <= 8  # of about 1 that is expected


def test_tracks_are_drawn_by_their_length(few):
    drawn = Counter(track for track, _ in places(few.excerpts(0.1, targets=["a"], seed=6).read(range(2500))))
    assert set(drawn) == {"t0", "t1", "t2", "t3"}  # the last one is too short
    assert goodness([drawn[f"t{i}"] for i in range(4)], [91, 21, 1, 491]) < 3


def test_only_tracks_that_have_all_targets(few):
    some = few.select(["t0", "t1", "t4"])
    for targets, tracks in (
        (["a"], {"t0", "t1", "t4"}),
        (["b"], {"t0", "t4"}),
        (["c"], {"t0", "t1"}),
        (["c", "a"], {"t0", "t1"}),
        (["a", "b", "c"], {"t0"}),
        (None, {"t0"}),
    ):
        assert set(some.excerpts(0.01, targets=targets, seed=1).read(range(200))["track"]) == tracks


def test_absent_stems_are_never_read(small):
    db = small.db.select(["Bob - Short"])
    batch = db.excerpts(0.1, targets=["drums", "mixture"]).read(range(10))
    assert np.isfinite(batch["magnitude"]).all()
    with pytest.raises(ValueError, match=r"no track of .*small\.zarr that is 0.1 seconds or longer has 'vocals'"):
        db.excerpts(0.1, targets=["vocals"])
    with pytest.raises(ValueError, match=r"has 'mixture', 'vocals', 'drums'"):
        db.excerpts(0.1)
    with pytest.raises(ValueError, match=r"has 'vocals'"):
        db.excerpts(0.1, remix=True)


def test_only_tracks_of_a_selection(small):
    for some in (small.db.select([2, 0]), norbert_store.open(small.path, split="train"), small.db.select([-1])):
        excerpts = some.excerpts(0.01, targets=["mixture"], seed=2)
        assert set(excerpts.read(range(500))["track"]) == set(some.names)


def test_tracks_that_are_selected_twice_are_drawn_twice_as_often(few):
    drawn = Counter(few.select(["t0", "t1", "t1"]).excerpts(0.3, targets=["a"]).read(range(1000))["track"])
    assert goodness([drawn["t0"], drawn["t1"]], [71, 2]) < 4


# ---- each target from a track of its own


def test_independent_targets_come_from_different_tracks(few):
    drawn = few.excerpts(0.1, seed=7, remix=True).read(range(500))["track"]
    assert all(len(set(tracks)) == 3 for tracks in drawn)
    assert {track for tracks in drawn for track in tracks} == {"t0", "t1", "t2", "t3"}
    assert not any(tracks[1] == "t1" for tracks in drawn)  # that has no b


def test_independent_targets_are_those_of_their_tracks(few):
    excerpts = few.excerpts(0.1, seed=8, remix=True)
    for i in range(20):
        item = excerpts[i]
        for j, (track, start) in enumerate(zip(item["track"], item["start"], strict=True)):
            whole = few[track].magnitude.isel(target=j).sel(time=slice(start - 0.001, start + 0.099))
            assert np.array_equal(item["magnitude"][j], whole)


def test_the_first_of_independent_targets_is_drawn_by_length_and_the_next_among_the_others(tmp_path):
    lengths = np.array([40, 100, 10, 60])
    db = write(tmp_path / "x.zarr", lengths, targets=("a", "b"))
    drawn = db.excerpts(0.01, seed=9, remix=True).read(range(3000))["track"]
    share = lengths / lengths.sum()
    first = Counter(track for track, _ in drawn)
    assert goodness([first[f"t{i}"] for i in range(4)], share) < 3
    pairs = Counter(drawn)
    expected = {(f"t{i}", f"t{j}"): share[i] * share[j] / (1 - share[i]) for i in range(4) for j in range(4) if i != j}
    assert set(pairs) == set(expected)
    assert goodness([pairs[pair] for pair in expected], list(expected.values())) < 2.5


def test_starts_of_independent_targets_have_nothing_to_do_with_each_other(tmp_path):
    db = write(tmp_path / "x.zarr", (200, 200), targets=("a", "b"))
    starts = np.array(db.excerpts(0.01, seed=1, remix=True).read(range(1000))["start"])
    assert abs(np.corrcoef(starts.T)[0, 1]) < 0.1


@pytest.mark.parametrize("which", [["t0"], ["t0", "t0", "t0"]])
def test_independent_targets_of_one_track_come_from_that(few, which):
    drawn = few.select(which).excerpts(0.1, remix=True).read(range(20))
    assert set(drawn["track"]) == {("t0", "t0", "t0")}
    assert any(len(set(starts)) > 1 for starts in drawn["start"])


def test_independent_targets_share_a_track_only_where_there_is_no_other(tmp_path):
    # b is on two tracks, c on one of them
    absent = {(i, target) for i in (2, 3) for target in "bc"} | {(1, "c")}
    db = write(tmp_path / "x.zarr", (50, 50, 50, 50), absent)
    for a, b, c in db.excerpts(0.1, seed=3, remix=True).read(range(300))["track"]:
        assert a != b
        assert b in ("t0", "t1")
        assert c == "t0"
    # the last of three, on as many tracks as there are targets before it
    for a, c, b in db.excerpts(0.1, targets=["a", "c", "b"], seed=3, remix=True).read(range(300))["track"]:
        assert b == ("t1" if a != "t1" else "t0" if c != "t0" else b)
        assert c == "t0"


# ---- batches, items, epochs


def test_items_are_views_of_one_batch_and_collate_to_it(few):
    excerpts = few.excerpts(0.1, seed=2)
    items = excerpts.__getitems__([5, 3, 9])
    batch = excerpts.collate(items)
    assert all(np.shares_memory(item["magnitude"], batch["magnitude"]) for item in items)
    assert batch["magnitude"] is items[0]["magnitude"].base
    assert same(batch, excerpts.read([5, 3, 9]))
    for number, item in zip([5, 3, 9], items, strict=True):
        alone = excerpts[number]
        assert set(item) == {"magnitude", "track", "start"}
        assert np.array_equal(item["magnitude"], alone["magnitude"])
        assert (item["track"], item["start"]) == (alone["track"], alone["start"])
        assert isinstance(item["track"], str)
        assert isinstance(item["start"], float)


@pytest.mark.parametrize(
    "change",
    [
        lambda items, _: items[::-1],
        lambda items, _: items[:2],
        lambda items, _: items[1:],
        lambda items, _: [items[0], items[0], items[2]],
        lambda items, excerpts: [excerpts[0], *items[1:]],
        lambda items, excerpts: [excerpts[i] for i in range(3)],
        lambda items, _: [{**item, "magnitude": item["magnitude"].copy()} for item in items],
        lambda items, _: [{**item, "magnitude": item["magnitude"][:, :, ::-1]} for item in items],
        lambda items, _: pickle.loads(pickle.dumps(items)),
    ],
)
def test_items_from_elsewhere_are_put_together(few, change):
    excerpts = few.excerpts(0.1, seed=2)
    items = change(excerpts.__getitems__([0, 1, 2]), excerpts)
    batch = excerpts.collate(items)
    assert batch["magnitude"].shape == (len(items), *items[0]["magnitude"].shape)
    for found, item in zip(batch["magnitude"], items, strict=True):
        assert np.array_equal(found, item["magnitude"])
        assert not np.shares_memory(found, item["magnitude"])
    assert batch["track"] == [item["track"] for item in items]
    assert batch["start"] == [item["start"] for item in items]


def test_one_item_collates_to_a_batch_of_one(few):
    excerpts = few.excerpts(0.1)
    item = excerpts[4]
    batch = excerpts.collate([item])
    assert same(batch, excerpts.read([4]))
    assert np.shares_memory(batch["magnitude"], item["magnitude"])


def test_items_of_independent_targets_collate_as_well(few):
    excerpts = few.excerpts(0.1, remix=True)
    items = excerpts.__getitems__([0, 1])
    assert same(excerpts.collate(items), excerpts.read([0, 1]))
    assert items[1]["track"] == excerpts[1]["track"]
    assert isinstance(items[1]["track"], tuple)


def test_no_excerpts_are_an_empty_batch(few):
    excerpts = few.excerpts(0.1)
    batch = excerpts.read([])
    assert batch["magnitude"].shape == (0, *excerpts.shape)
    assert batch["track"] == batch["start"] == excerpts.__getitems__([]) == []


@pytest.mark.parametrize("make", [list, tuple, range, np.array, lambda numbers: np.array(numbers, np.uint8)])
def test_numbers_of_any_kind(few, make):
    excerpts = few.excerpts(0.1)
    numbers = range(3, 6) if make is range else make([3, 4, 5])
    assert same(excerpts.read(numbers), excerpts.read([3, 4, 5]))
    assert excerpts[np.int32(3)]["start"] == excerpts[3]["start"]


@pytest.mark.parametrize("values", ["magnitude", "levels", "decibel"])
@pytest.mark.parametrize("name", [*LAYOUTS, "in memory"])
def test_batches_are_written_into_what_is_given(layouts, name, values):
    excerpts = layouts[name].db.excerpts(0.21, targets=["a"], values=values)
    expected = excerpts.read(range(6))
    outs = [np.full(expected["magnitude"].shape, 99, excerpts.dtype)]
    # memory of others, that lies however it lies
    for offset in (4, 8, 1):
        memory = np.zeros(outs[0].nbytes + offset, np.uint8)
        outs.append(memory[offset:].view(excerpts.dtype).reshape(outs[0].shape))
    for out in outs:
        batch = excerpts.read(range(6), out=out)
        assert batch["magnitude"] is out
        assert same(batch, expected)
        assert same(excerpts.read(range(5, -1, -1), out=out[::-1].copy()[::1]), excerpts.read(range(5, -1, -1)))


@pytest.mark.parametrize("name", ["stereo, bundles", "in memory"])
def test_results_belong_to_the_caller(layouts, name):
    excerpts = layouts[name].db.excerpts(0.2, targets=["a"])
    first, items, item = excerpts.read(range(4)), excerpts.__getitems__(range(4)), excerpts[0]
    kept = copy.deepcopy(first)
    items[0]["magnitude"][:] = -1
    item["magnitude"][:] = -2
    assert same(excerpts.read(range(4)), kept)  # neither what comes later
    assert same(first, kept)  # nor what came before
    assert items[1]["magnitude"].min() >= 0
    assert first["magnitude"].flags.owndata
    assert first["magnitude"].flags.writeable
    first["track"].append("mine")
    assert same(excerpts.read(range(4)), kept)


def test_an_epoch_makes_up_the_length_of_all_tracks_unless_it_is_told(few):
    assert len(few.excerpts(0.1)) == 610 // 10  # of those that are long enough, and have all targets
    assert len(few.excerpts(0.1, targets=["a"])) == (100 + 30 + 10 + 500) // 10
    assert len(few.excerpts(5.0, targets=["a"])) == 1
    assert len(few.excerpts(0.1, per_epoch=7)) == 7
    assert "7 per epoch, shape (3, 1, 10, 3), float32" in repr(few.excerpts(0.1, per_epoch=7))


def test_going_over_excerpts_ends_after_an_epoch(few):
    excerpts = few.excerpts(0.1, per_epoch=5)
    found = list(islice(excerpts, 100))
    assert len(found) == 5
    assert all(np.array_equal(one["magnitude"], excerpts[i]["magnitude"]) for i, one in enumerate(found))


@settings(max_examples=60)
@given(st.integers(1, 60), st.integers(1, 7), st.integers(0, 5))
def test_ranks_share_an_epoch_and_epochs_share_nothing(per_epoch, world, epoch):
    of_ranks = [EpochSampler(per_epoch, epoch, rank, world) for rank in range(world)]
    found = [number for sampler in of_ranks for number in sampler]
    assert (
        {len(list(sampler)) for sampler in of_ranks} == {len(sampler) for sampler in of_ranks} == {per_epoch // world}
    )
    assert len(found) == len(set(found))
    numbers = range(epoch * per_epoch, (epoch + 1) * per_epoch)
    assert sorted(found) == list(numbers)[: world * (per_epoch // world)]
    of_ranks[0].set_epoch(epoch + 1)
    assert set(found).isdisjoint(of_ranks[0])


def test_samplers_of_excerpts(few):
    excerpts = few.excerpts(0.1, per_epoch=10)
    assert list(excerpts.sampler()) == list(range(10))
    assert list(excerpts.sampler(epoch=3)) == list(range(30, 40))
    sampler = excerpts.sampler(epoch=1, rank=1, world_size=3)
    assert list(sampler) == list(sampler) == [11, 14, 17]
    sampler.set_epoch(0)
    assert list(pickle.loads(pickle.dumps(sampler))) == [1, 4, 7]
    assert same(excerpts.read(list(sampler)), excerpts.read([1, 4, 7]))


@pytest.mark.parametrize(
    "options",
    [
        {"epoch": -1},
        {"epoch": 1.0},
        {"rank": 2, "world_size": 2},
        {"rank": -1},
        {"world_size": 0},
        {"world_size": True},
        {"rank": "0"},
    ],
)
def test_samplers_that_make_no_sense(few, options):
    with pytest.raises(ValueError, match="epoch|rank|world"):
        few.excerpts(0.1).sampler(**options)


# ---- in threads, in processes, in copies


@pytest.mark.parametrize("name", ["stereo, bundles", "in memory", "zip"])
def test_many_threads_may_read_at_once(layouts, name):
    excerpts = layouts[name].db.excerpts(0.2, targets=["a"])
    expected = excerpts.read(range(40))

    def right(i):
        numbers = [(i + k) % 40 for k in range(5)]
        batch = excerpts.read(numbers)
        return np.array_equal(batch["magnitude"], expected["magnitude"][numbers])

    with ThreadPoolExecutor(12) as pool:
        assert all(pool.map(right, range(120)))


@pytest.mark.parametrize("again", [lambda x: pickle.loads(pickle.dumps(x)), copy.deepcopy, copy.copy])
def test_copies_give_the_same(layouts, again):
    for name in ("stereo, bundles", "zip", "wrapped"):
        for remix in (False, True):
            excerpts = layouts[name].db.excerpts(0.2, seed=3, targets=["a", "b"], remix=remix)
            expected = excerpts.read(range(5))
            other = again(excerpts)
            assert same(other.read(range(5)), expected)
            assert repr(other) == repr(excerpts)


def test_what_is_sent_is_small(few):
    excerpts = few.excerpts(0.1)
    excerpts.read(range(100))
    assert len(pickle.dumps(excerpts)) < 20_000


FORK = [
    pytest.mark.skipif(sys.platform == "win32", reason="no fork"),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork:DeprecationWarning"),
]


@pytest.mark.slow
@pytest.mark.parametrize("method", [pytest.param("fork", marks=FORK), "spawn", "forkserver"])
def test_processes_however_they_were_started_give_the_same(layouts, method):
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {method}")
    names = ("stereo, bundles", "zip", "wrapped") if method == "fork" else ("stereo, bundles", "zip")
    some = [layouts[name].db.excerpts(0.2, seed=4, targets=["a"]) for name in names]
    expected = [excerpts.read(range(8)) for excerpts in some]  # threads and files are in use by now
    with multiprocessing.get_context(method).Pool(1) as pool:
        results = [pool.apply_async(methodcaller("read", range(8)), (excerpts,)) for excerpts in some * 2]
        assert all(same(result.get(60), batch) for result, batch in zip(results, expected * 2, strict=True))
        (counts,) = pool.map_async(methodcaller("statistics"), [layouts[names[0]].db]).get(60)
    assert counts.equals(layouts[names[0]].db.statistics())


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no fork")
def test_forks_of_a_process_that_reads_on_other_threads(few):
    """In a process of their own, which ends, whatever they do."""
    program = f"""if True:
        import multiprocessing, threading, warnings
        import numpy as np
        import norbert_store

        warnings.simplefilter("ignore", DeprecationWarning)
        excerpts = norbert_store.open({str(few.location)!r}).excerpts(0.1)
        expected = excerpts.read(range(8))["magnitude"]
        stop = threading.Event()

        def go_on():
            while not stop.is_set():
                excerpts.read(range(8))

        def check():
            assert np.array_equal(excerpts.read(range(8))["magnitude"], expected)

        thread = threading.Thread(target=go_on)
        thread.start()
        children = [multiprocessing.get_context("fork").Process(target=check) for _ in range(8)]
        for child in children:
            child.start()
        for child in children:
            child.join(20)
        stop.set()
        thread.join()
        print([child.exitcode for child in children])
    """
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=100, check=False)
    assert done.stdout.strip() == str([0] * 8), done.stderr


@pytest.mark.slow
def test_memory_does_not_grow(few):
    excerpts = few.excerpts(0.1)

    def memory_after(first, stop):
        for i in range(first, stop):
            excerpts.read(range(16 * i, 16 * i + 16))
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        before = memory_after(0, 30)  # fills the caches, also those of a tool that measures coverage
        assert memory_after(30, 60) - before < 100_000
    finally:
        tracemalloc.stop()


@pytest.mark.slow
def test_many_tracks_with_few_open_files(tmp_path):
    """2,000 tracks, each with a file of its own, by threads of which none may keep files open."""
    resource = pytest.importorskip("resource")
    assert resource
    into = tmp_path / "many.zarr"
    store = MemoryStore()
    write(store, [8] * 2000, targets=("a",), shard_chunks=1)
    for key, buffer in store._store_dict.items():
        (into / key).parent.mkdir(parents=True, exist_ok=True)
        (into / key).write_bytes(buffer.to_bytes())
    assert len(list((into / "magnitude").rglob("c/*/*/*/*"))) == 2000
    program = f"""if True:
        import resource

        resource.setrlimit(resource.RLIMIT_NOFILE, (256, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
        import norbert_store

        excerpts = norbert_store.open({str(into)!r}).excerpts(0.05)
        found = excerpts.read(range(1000))
        print(len(set(found["track"])), float(found["magnitude"].min()) >= 0)
        print(norbert_store.open({str(into)!r}).select(range(500)).statistics().frames.item())
    """
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=100, check=False)
    tracks, right, frames = done.stdout.split()
    assert 740 < int(tracks) < 830  # 2,000 (1 - exp(-1/2))
    assert right == "True"
    assert int(frames) == 4000


# ---- what makes no sense


@pytest.mark.parametrize(
    "seconds", [0, -1, -0.0, float("nan"), float("inf"), -float("inf"), 1e308, 10**400, True, False, "6", None, [6], 6j]
)
def test_lengths_that_make_no_sense(few, seconds):
    with pytest.raises(ValueError, match="seconds must be a positive number, found"):
        few.excerpts(seconds)


@pytest.mark.parametrize("seconds", [0.1, np.float32(0.1), np.float64(0.1)])
def test_lengths_of_any_kind_of_number(few, seconds):
    assert few.excerpts(seconds).frames == 10
    assert few.excerpts(np.int64(1)).frames == few.excerpts(1).frames == 100
    assert few.excerpts(1e-9).frames == 1


def test_excerpts_that_are_longer_than_every_track(few, tmp_path):
    message = r"no track of .*few\.zarr is as long as 5.01 seconds \(501 frames\); the longest has 5.00 \(500 frames\)"
    with pytest.raises(ValueError, match=message):
        few.excerpts(5.01)
    with pytest.raises(ValueError, match=r"is as long as 1e\+14 seconds"):
        few.excerpts(1e14)
    with pytest.raises(ValueError, match=r"no track of .*x\.zarr that is 4 seconds or longer has 'b'"):
        write(tmp_path / "x.zarr", (9, 500), {(1, "b")}).excerpts(4, targets=["b"])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"targets": ["d"]}, NameNotFoundError, r"few\.zarr has no target 'd'; it has 'a', 'b', 'c'"),
        ({"targets": ["a", 0]}, NameNotFoundError, r"few\.zarr has no target 0; it has 'a', 'b', 'c'"),
        ({"targets": "abc"}, NameNotFoundError, r"few\.zarr has no target 'abc'"),
        ({"channels": ["left"]}, NameNotFoundError, r"few\.zarr has no channel 'left'; it has 'mono'"),
        ({"targets": []}, ValueError, r"expected some of the targets 'a', 'b', 'c', each once; found \[\]"),
        ({"targets": ["a", "b", "a"]}, ValueError, r"each once; found \['a', 'b', 'a'\]"),
        ({"channels": ()}, ValueError, r"expected some of the channels 'mono', each once; found \[\]"),
        ({"channels": ["mono", "mono"]}, ValueError, "each once"),
        ({"seed": -1}, ValueError, "seed must be a whole number of at least 0, found -1"),
        ({"seed": 1.5}, ValueError, "seed must be a whole number"),
        ({"seed": "0"}, ValueError, "seed must be a whole number"),
        ({"per_epoch": 0}, ValueError, "per_epoch must be a whole number of at least 1, found 0"),
        ({"per_epoch": 2.0}, ValueError, "per_epoch must be a whole number"),
    ],
)
def test_options_that_make_no_sense(few, options, error, message):
    with pytest.raises(error, match=message) as caught:
        few.excerpts(0.1, **options)
    assert isinstance(caught.value, KeyError | ValueError)


def test_one_target_may_be_named_alone(few):
    assert few.excerpts(0.1, targets="b", channels="mono").shape == (1, 1, 10, 3)


def test_stores_without_tracks_have_no_excerpts(few):
    for empty in (few.select([]), write(MemoryStore(), ())):
        with pytest.raises(ValueError, match="has no tracks to take excerpts from"):
            empty.excerpts(0.1)


@pytest.mark.parametrize("number", [-1, -(2**62), np.int8(-5)])
def test_numbers_below_zero(few, number):
    excerpts = few.excerpts(0.1)
    for read in (
        lambda: excerpts[number],
        lambda: excerpts.read([0, number]),
        lambda: excerpts.__getitems__([number]),
    ):
        with pytest.raises(IndexError, match=f"excerpts are numbered from 0 on; found {number}"):
            read()


@pytest.mark.parametrize("number", [1.0, "1", None, True, slice(0, 3), [1], np.float32(1), 2**64])
def test_numbers_that_are_none(few, number):
    excerpts = few.excerpts(0.1)
    with pytest.raises(TypeError, match="expected a sequence of whole numbers, found"):
        excerpts[number]
    with pytest.raises(TypeError, match="expected a sequence of whole numbers, found"):
        excerpts.read([number])


@pytest.mark.parametrize("numbers", [5, 1.5, [[0, 1]], "01", np.zeros((2, 2), int)])
def test_sequences_of_numbers_that_are_none(few, numbers):
    with pytest.raises(TypeError, match="expected a sequence of whole numbers, found"):
        few.excerpts(0.1).read(numbers)


def read_only(array):
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda shape: np.empty((3, *shape[1:]), np.float32), r"float32 of shape \(2, 3, 1, 10, 3\), found float32 of"),
        (lambda shape: np.empty(shape[1:], np.float32), r"found float32 of shape \(3, 1, 10, 3\)"),
        (lambda shape: np.empty(shape, np.float64), "found float64 of shape"),
        (lambda shape: np.empty(shape, ">f4"), "found >f4 of shape"),
        (lambda shape: np.empty(shape, np.uint8), "found uint8 of shape"),
        (lambda shape: np.empty(shape[::-1], np.float32).T, "expected out to be contiguous and writable"),
        (lambda shape: np.empty((4, *shape[1:]), np.float32)[::2], "expected out to be contiguous and writable"),
        (lambda shape: read_only(np.empty(shape, np.float32)), "expected out to be contiguous and writable"),
        (lambda shape: np.empty(shape, np.float32).tolist(), "found list"),
        (lambda shape: bytearray(4 * int(np.prod(shape))), "found bytearray"),
    ],
)
def test_memory_that_does_not_fit(few, make, message):
    excerpts = few.excerpts(0.1)
    with pytest.raises(ValueError, match=message):
        excerpts.read([0, 1], out=make((2, *excerpts.shape)))


# ---- stores that are damaged, or change while they are open


@pytest.fixture
def broken(few, tmp_path):
    """A copy to damage, with excerpts that were read before, and are all in one long track."""
    path = shutil.copytree(few.location, tmp_path / "broken.zarr")
    excerpts = norbert_store.open(path).select(["t3"]).excerpts(4.9, targets=["b"])
    expected = excerpts.read(range(4))
    assert same(expected, few.select(["t3"]).excerpts(4.9, targets=["b"]).read(range(4)))
    return path, excerpts, expected


def shards_of(path, target):
    """Those of the long track, in order."""
    found = sorted((path / f"magnitude/c/{target}/0").iterdir(), key=lambda folder: int(folder.name))
    return [folder / "0" for folder in found][-17:-1]


def replaced(path, data):
    """Put a new file in its place, as this library does."""
    path.with_name("new").write_bytes(data)
    os.replace(path.with_name("new"), path)


WRITE = pytest.mark.parametrize("write", [lambda path, data: path.write_bytes(data), replaced], ids=["over", "anew"])


def test_shards_that_are_deleted(broken):
    path, excerpts, _ = broken
    shards_of(path, 1)[3].unlink()
    with pytest.raises(
        DamagedError,
        match=r"broken\.zarr: track 't3', target 'b', channel 'mono', packed chunk \d+, .*the file is missing",
    ):
        excerpts[0]


@WRITE
@pytest.mark.parametrize("kept", [0, 1, 30, 68, 92, 200])
def test_shards_that_are_cut_off(broken, write, kept):
    path, excerpts, _ = broken
    shard = shards_of(path, 1)[5]
    write(shard, shard.read_bytes()[:kept])
    with pytest.raises(DamagedError, match=r"broken\.zarr: track 't3', target 'b'"):
        excerpts.read(range(4))


@WRITE
def test_shards_with_a_byte_that_is_wrong(broken, write):
    path, excerpts, expected = broken
    shard = shards_of(path, 1)[5]
    whole = shard.read_bytes()
    for at in np.random.default_rng(0).integers(0, len(whole) - 92, 10).tolist():
        write(shard, whole[:at] + bytes((whole[at] ^ 4,)) + whole[at + 1 :])
        with pytest.raises(DamagedError, match=r"'t3', target 'b', channel 'mono', packed chunk \d+, at byte \d+ of"):
            excerpts.read(range(4))
        write(shard, whole)
        assert same(excerpts.read(range(4)), expected)  # and it is read again


@WRITE
def test_shards_whose_index_is_damaged_are_read_by_the_extents(broken, write):
    path, excerpts, expected = broken
    for shard in shards_of(path, 1):
        whole = shard.read_bytes()
        write(shard, whole[:-1] + bytes([whole[-1] ^ 1]))
    assert same(excerpts.read(range(4)), expected)


OTHER = "its checksum is another one|the checksum of .* bytes doesn't match"


@WRITE
def test_shards_that_are_swapped(broken, write):
    path, excerpts, _ = broken
    first, second, *_ = shards_of(path, 1)
    data = first.read_bytes(), second.read_bytes()
    write(first, data[1])
    write(second, data[0])
    with pytest.raises(DamagedError, match=f"'t3', target 'b', .*magnitude/c/.*({OTHER})"):
        excerpts[0]


@WRITE
def test_shards_of_another_target(broken, write):
    path, excerpts, _ = broken
    write(shards_of(path, 1)[2], shards_of(path, 2)[2].read_bytes())
    with pytest.raises(DamagedError, match=f"'t3', target 'b', .*magnitude/c/.*({OTHER})"):
        excerpts.read([0, 1])


@pytest.mark.slow
@WRITE
def test_shards_of_another_store_of_the_same_shape(broken, write, tmp_path):
    path, excerpts, expected = broken
    other = tmp_path / "other.zarr"
    make_few(other, change=lambda magnitude: 1 - magnitude)
    shard = shards_of(path, 1)[5]
    whole = shard.read_bytes()
    write(shard, (other / shard.relative_to(path)).read_bytes())
    with pytest.raises(DamagedError, match=f"'t3', target 'b', .*magnitude/c/.*({OTHER})"):
        excerpts.read(range(4))
    write(shard, whole)
    assert same(excerpts.read(range(4)), expected)


@WRITE
def test_shards_whose_chunks_have_moved_are_read_by_their_index(broken, write):
    """As another program may write them, or repair: the same chunks in another order."""
    path, excerpts, expected = broken
    for shard in shards_of(path, 1):
        whole = shard.read_bytes()
        index = ShardIndex.parse(whole[-index_bytes(1, 4) :], 1, 4)
        chunks = [whole[offset : offset + length] for offset, length in index.entries[0].tolist()]
        moved, _ = pack_shard({(0, i): chunk for i, chunk in enumerate(reversed(chunks))}, 1, 4)
        entries = np.frombuffer(moved[-index_bytes(1, 4) : -4], "<u8").reshape(4, 2)[::-1]
        write(shard, moved[: -index_bytes(1, 4)] + with_checksum(entries.tobytes()))
    for again in (excerpts, norbert_store.open(path).select(["t3"]).excerpts(4.9, targets=["b"])):
        assert same(again.read(range(4)), expected)


def test_a_store_that_is_moved_away(broken):
    path, excerpts, expected = broken
    path.rename(path.with_name("moved.zarr"))
    for _ in range(2):
        with pytest.raises(StoreNotFoundError, match=r"the store at .*broken\.zarr isn't there any more"):
            excerpts.read(range(4))
    path.with_name("moved.zarr").rename(path)
    assert same(excerpts.read(range(4)), expected)


@pytest.mark.slow
def test_another_store_at_the_same_place(broken):
    path, excerpts, _ = broken
    shutil.rmtree(path)
    write(path, (500, 500), targets=("a", "b"))
    with pytest.raises(StoreReplacedError, match=r"broken\.zarr was replaced by another store since it was opened"):
        excerpts.read(range(4))


def test_tracks_that_are_added_change_nothing(broken):
    path, excerpts, expected = broken
    with norbert_store.append(path) as writer:
        writer.add_magnitudes("new", {target: np.ones((1, 300, 3), np.float32) for target in "abc"})
    assert same(excerpts.read(range(4)), expected)
    again = norbert_store.open(path).select(["t3"]).excerpts(4.9, targets=["b"])
    assert same(again.read(range(4)), expected)


def test_all_that_is_damaged_in_memory_is_told_as_well(few):
    files = [path for path in few._selection.snapshot.storage.folder.rglob("*") if path.is_file()]
    store = MemoryStore()
    into = Storage(store, read_only=False)
    for path in files:
        into.set(path.relative_to(few.location).as_posix(), path.read_bytes())
    excerpts = norbert_store.open(store).select(["t3"]).excerpts(4.9, targets=["b"])
    expected = excerpts.read(range(4))
    assert same(expected, few.select(["t3"]).excerpts(4.9, targets=["b"]).read(range(4)))
    keys = [
        shard.relative_to(few.location).as_posix() for shard in shards_of(few._selection.snapshot.storage.folder, 1)
    ]
    whole = {key: into.get(key) for key in keys}
    for key, data in ((keys[0], whole[keys[1]]), (keys[3], b""), (keys[3], whole[keys[3]][:150]), (keys[5], None)):
        if data is None:
            into.delete(key)
        else:
            into.set(key, data)
        with pytest.raises(DamagedError, match=r"track 't3', target 'b'"):
            excerpts.read(range(4))
        into.set(key, whole[key])
        assert same(excerpts.read(range(4)), expected)
