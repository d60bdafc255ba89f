"""Blocks of the small arrays are what zarr writes and reads."""

from __future__ import annotations

import numpy as np
import pytest
from zarr.storage import MemoryStore

from norbert_store._format.arrays import array_document, block_key, decode_block, encode_block, zarr_array
from norbert_store._format.shard import with_checksum, without_checksum
from norbert_store.errors import DamagedError

COLUMNS = {
    "string": ("", np.array(["a", "ü\0b", ""], object)),
    "int64": (0, np.array([-1, 2**60, 0])),
    "float64": ("NaN", np.array([0.5, np.nan, -np.inf])),
    "bool": (False, np.array([True, False, True])),
}


def document(data_type, rows_per_block=2):
    fill_value, values = COLUMNS[data_type]
    return array_document([len(values)], data_type, fill_value, ["track"], rows_per_block)


@pytest.mark.parametrize("data_type", COLUMNS)
def test_blocks_are_those_of_zarr(data_type):
    metadata, values, store = document(data_type), COLUMNS[data_type][1], MemoryStore()
    zarr_array(store, "x", metadata)[...] = values
    blocks = {block_key("x", metadata, i): encode_block(metadata, values[2 * i : 2 * i + 2]) for i in range(2)}
    assert {key: buffer.to_bytes() for key, buffer in store._store_dict.items()} == blocks
    found = [decode_block(metadata, data) for data in blocks.values()]
    np.testing.assert_array_equal(np.concatenate(found)[: len(values)], values)


def test_a_block_that_holds_nothing_but_the_fill_value_is_written():
    store = MemoryStore()
    zarr_array(store, "deep/array", document("int64"))[...] = [1, 0, 0]
    assert sorted(store._store_dict) == ["deep/array/c/0", "deep/array/c/1"]


def test_axes_but_the_first_lie_in_one_block():
    assert block_key("track/present", array_document([5, 3], "bool", False, ["track", "target"], 2), 1) == (
        "track/present/c/1/0"
    )


@pytest.mark.parametrize("data_type", COLUMNS)
@pytest.mark.parametrize(
    "damage", [lambda data: data[:-1], lambda data: b"", lambda data: data[:-5] + b"?" + data[-4:]]
)
def test_damaged_blocks_are_told(data_type, damage):
    data = encode_block(document(data_type), COLUMNS[data_type][1][:2])
    with pytest.raises(DamagedError, match="checksum"):
        decode_block(document(data_type), damage(data))


@pytest.mark.parametrize("data_type", COLUMNS)
def test_what_is_no_block_in_spite_of_its_checksum_is_told(data_type):
    data = without_checksum(encode_block(document(data_type), COLUMNS[data_type][1][:2]))
    for wrong in (b"", b"abc", data[:-3]):
        with pytest.raises(DamagedError):
            decode_block(document(data_type), with_checksum(wrong))
    with pytest.raises(DamagedError):  # of more rows than the array's blocks have
        decode_block(document(data_type, rows_per_block=4), with_checksum(data))
