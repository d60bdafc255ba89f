"""Changes of what is committed: all of them or none, whenever they are cut off, for readers and the next writer."""

from __future__ import annotations

import errno
import os
from typing import NamedTuple

import numpy as np
import pytest
from zarr.storage import MemoryStore, WrapperStore

import norbert_store
from norbert_store._check.verify import verify
from norbert_store._format.arrays import block_key, encode_block
from norbert_store._format.document import EXTENT, Document
from norbert_store._read.snapshot import Snapshot
from norbert_store._storage.storage import Storage
from norbert_store._write.change import change
from norbert_store.errors import StorageError

SHARD = "magnitude/c/0/0/0/0"


class CutOff(WrapperStore):
    """A place that fails at one of its writes, and at all that follow."""

    def __init__(self, store, at, is_lost):
        super().__init__(store)
        self._left, self._is_lost = at, is_lost

    async def _write(self, write, *arguments):
        self._left -= 1
        if self._left < 0:
            if self._left == -1 and self._is_lost:  # it was done, and nobody was told
                await write(*arguments)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        await write(*arguments)

    async def set(self, key, value):
        await self._write(super().set, key, value)

    async def set_if_not_exists(self, key, value):
        await self._write(super().set_if_not_exists, key, value)

    async def delete(self, key):
        await self._write(super().delete, key)


def to_be_changed(place, *cut_off):
    """A place whose document was read to be replaced, and that is cut off then."""
    storage = Storage(CutOff(place, *cut_off) if cut_off else place, read_only=False)
    storage.get_for_update("zarr.json")
    return storage


class Change(NamedTuple):
    """Files of a store; the document that is to follow, and the files that change with it; and labels and levels."""

    before: dict[str, bytes]
    document: Document
    files: dict[str, bytes]
    old: tuple[list[str], np.ndarray]
    new: tuple[list[str], np.ndarray]


def opened(store):
    """What is read of a store: a label of all tracks, and the levels of the first one's first target."""
    return store.tracks.mood.values.tolist(), store[0].levels[0].values


@pytest.fixture(scope="module")
def planned(options, music):
    """One shard with chunks of other bytes and their extents, and another label for every track."""
    coarse, fine = MemoryStore(), MemoryStore()
    for place, quality in ((coarse, 60), (fine, 95)):
        with norbert_store.create(place, **options(quality=quality, targets=["mixture", "vocals"])) as writer:
            for name in "ab":
                audio = {target: music(5000, 1)[target] for target in writer._committer.document.targets}
                writer.add(name, audio, labels={"mood": "blue" if place is coarse else "red"})
    storage, document = Storage(coarse), Snapshot.open(coarse).document
    extents = Snapshot.open(coarse).extents(0, 0, document.chunks).copy()
    extents[..., :4] = Snapshot.open(fine).extents(0, 0, 4)
    blocks = {(EXTENT, (0, 0, 0, 0)): extents[np.newaxis], ("label/0", (0,)): np.array(["red", "red"], object)}
    changed = document.next().with_blocks(blocks)
    files = {block_key(*at): encode_block(changed.arrays()[at[0]], values) for at, values in blocks.items()}
    old, new = opened(norbert_store.open(coarse)), opened(norbert_store.open(fine))
    assert not np.array_equal(old[1], new[1])
    return Change(
        {key: storage.get(key) or b"" for key in storage.list()},
        changed,
        {SHARD: Storage(fine).get(SHARD) or b"", **files},
        old,
        new,
    )


def stored(planned):
    place = MemoryStore()
    for key, data in planned.before.items():
        Storage(place, read_only=False).set(key, data)
    return place


def same(found, expected):
    return found[0] == expected[0] and np.array_equal(found[1], expected[1])


def is_part(found, planned):
    """Whether each part of what was read is the old one or the new one."""
    return any(found[0] == known[0] for known in (planned.old, planned.new)) and any(
        np.array_equal(found[1], known[1]) for known in (planned.old, planned.new)
    )


STEPS = 11  # three files that are pending, the document, three files, the document, three that are deleted


def test_a_change_is_made_whole(planned):
    place = stored(planned)
    storage = to_be_changed(place, STEPS, False)
    document = change(storage, planned.document, planned.files)
    with pytest.raises(StorageError):
        storage.set("more", b"")
    assert (document.pending, document.revision) == ((), planned.document.revision + 1)
    assert Snapshot.open(place).document == document
    assert same(opened(norbert_store.open(place)), planned.new)
    assert Storage(place).list() == sorted(planned.before)
    assert verify(place)


@pytest.mark.parametrize("is_lost", [False, True], ids=["", "the answer is lost"])
@pytest.mark.parametrize("at", range(STEPS))
def test_a_change_that_is_cut_off_is_one_state_or_the_other(planned, at, is_lost):
    place = stored(planned)
    cold, warm = norbert_store.open(place), norbert_store.open(place)
    opened(warm)
    with pytest.raises(StorageError):
        change(to_be_changed(place, at, is_lost), planned.document, planned.files)
    expected = planned.old if at + is_lost < 4 else planned.new
    # who had opened it goes on: with what it knows, or with what is new
    assert is_part(opened(cold), planned)
    assert is_part(opened(warm), planned)
    for _ in range(2):
        assert same(opened(norbert_store.open(place)), expected)
        assert not np.isnan(norbert_store.open(place)[1].magnitude).any()
        norbert_store.append(place).close()  # it finishes what was cut off, or deletes it
        assert Storage(place).list("pending") == []
        assert verify(place)
    assert is_part(opened(cold), planned)
    assert is_part(opened(warm), planned)


@pytest.mark.parametrize("at", range(4, STEPS))
def test_a_change_that_was_finished_in_part_is_read_by_who_opened_it_meanwhile(planned, at):
    place = stored(planned)
    with pytest.raises(StorageError):
        change(to_be_changed(place, at, False), planned.document, planned.files)
    meanwhile = norbert_store.open(place)
    norbert_store.append(place).close()
    assert same(opened(meanwhile), planned.new)
