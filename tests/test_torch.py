"""Random excerpts through PyTorch's DataLoader, in this process and in workers; skipped where there is no PyTorch."""

from __future__ import annotations

import numpy as np
import pytest

import norbert_store
from norbert_store.errors import DamagedError

torch = pytest.importorskip("torch")
DataLoader = torch.utils.data.DataLoader

PER_EPOCH = 24
BATCH = 5
WORKERS = {
    "no workers": {},
    "fork": {"num_workers": 2, "multiprocessing_context": "fork"},
    "spawn": {"num_workers": 2, "multiprocessing_context": "spawn"},
}

# From 3.12 on, Python says at every fork beside threads what is true of it in general
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


def excerpts_of(db, **options):
    return db.excerpts(0.5, targets=("mixture", "vocals"), seed=3, per_epoch=PER_EPOCH, **options)


@pytest.fixture
def excerpts(db):
    return excerpts_of(db)


def cut(indices):
    """Cut a sequence into batches, as a loader does."""
    return [indices[first : first + BATCH] for first in range(0, len(indices), BATCH)]


def assert_same(batches, excerpts, indices):
    batches, expected = list(batches), [excerpts.read(each) for each in cut(indices)]
    assert len(batches) == len(expected)
    for batch, wanted in zip(batches, expected, strict=True):
        np.testing.assert_array_equal(batch["magnitude"], wanted["magnitude"])
        np.testing.assert_array_equal(batch["start"], wanted["start"])
        assert batch["track"] == wanted["track"]


@pytest.mark.parametrize(
    ("workers", "options"),
    [
        ("no workers", {}),
        ("fork", {}),
        ("fork", {"values": "levels", "remix": True}),
        ("spawn", {"values": np.sqrt}),
    ],
)
def test_batches_in_order(db, workers, options):
    excerpts = excerpts_of(db, **options)
    excerpts.read(range(100, 108))  # threads run, and files are open, before workers are forked
    loader = DataLoader(excerpts, batch_size=BATCH, collate_fn=excerpts.collate, **WORKERS[workers])
    assert len(loader) == 5
    assert_same(loader, excerpts, range(PER_EPOCH))


@pytest.mark.parametrize("workers", ["no workers", "fork"])
def test_collation_of_pytorch_itself(excerpts, workers):
    batches = list(DataLoader(excerpts, batch_size=BATCH, **WORKERS[workers]))
    assert batches[0]["magnitude"].dtype is torch.float32
    assert batches[0]["start"].dtype is torch.float64
    assert_same(batches, excerpts, range(PER_EPOCH))


def test_shuffled(excerpts):
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(PER_EPOCH, generator=generator.clone_state()).tolist()
    sampler = torch.utils.data.SubsetRandomSampler(range(PER_EPOCH), generator)
    loader = DataLoader(excerpts, batch_size=BATCH, sampler=sampler, collate_fn=excerpts.collate)
    assert_same(loader, excerpts, order)


def test_tensors_are_what_was_decoded_into(excerpts):
    decoded = []

    def collate(items):
        batch = excerpts.collate(items)["magnitude"]
        decoded.append((batch, items))
        return torch.from_numpy(batch)

    tensors = list(DataLoader(excerpts, batch_size=BATCH, collate_fn=collate))
    for tensor, (batch, items) in zip(tensors, decoded, strict=True):
        assert tensor.is_contiguous()
        assert tensor.data_ptr() == batch.ctypes.data == items[0]["magnitude"].ctypes.data
        for i, item in enumerate(items):
            assert np.shares_memory(batch[i], item["magnitude"])
    # and they are the caller's: nothing is decoded into them again, nor is anything read from them
    assert len({tensor.data_ptr() for tensor in tensors}) == len(tensors)
    first = tensors[0].clone()
    tensors[0].fill_(-1)
    np.testing.assert_array_equal(excerpts.read(range(BATCH))["magnitude"], first)


def test_tensors_from_workers(excerpts):
    def collate(items):
        return torch.from_numpy(excerpts.collate(items)["magnitude"])

    tensors = list(DataLoader(excerpts, batch_size=BATCH, collate_fn=collate, **WORKERS["fork"]))
    assert all(tensor.is_shared() for tensor in tensors)
    np.testing.assert_array_equal(torch.cat(tensors), excerpts.read(range(PER_EPOCH))["magnitude"])


@pytest.mark.parametrize("workers", ["no workers", "fork"])
def test_epochs_and_ranks(excerpts, workers):
    world = 2
    samplers = [excerpts.sampler(rank=rank, world_size=world) for rank in range(world)]
    options = WORKERS[workers] and {**WORKERS[workers], "persistent_workers": True}
    loaders = [
        DataLoader(excerpts, batch_size=BATCH, sampler=sampler, collate_fn=excerpts.collate, **options)
        for sampler in samplers
    ]
    for epoch in (0, 3):
        for rank, (sampler, loader) in enumerate(zip(samplers, loaders, strict=True)):
            sampler.set_epoch(epoch)
            assert len(loader) == 3
            assert_same(loader, excerpts, range(epoch * PER_EPOCH + rank, (epoch + 1) * PER_EPOCH, world))


def test_ranks_have_equally_many(excerpts):
    samplers = [excerpts.sampler(epoch=1, rank=rank, world_size=5) for rank in range(5)]
    assert [len(sampler) for sampler in samplers] == [4] * 5
    drawn = sorted(index for sampler in samplers for index in sampler)
    assert drawn == list(range(PER_EPOCH, PER_EPOCH + 20))


@pytest.mark.parametrize("workers", ["no workers", "fork"])
def test_damage_has_a_name(small_copy, workers):
    for shard in (small_copy / "magnitude" / "c" / "1").rglob("*"):
        if shard.is_file():
            shard.unlink()
    excerpts = excerpts_of(norbert_store.open(small_copy))
    loader = DataLoader(excerpts, batch_size=BATCH, collate_fn=excerpts.collate, **WORKERS[workers])
    with pytest.raises(DamagedError, match="'vocals'"):
        list(loader)
