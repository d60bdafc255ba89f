"""Blocks of the small arrays are what zarr writes and reads, and nothing that claims to be more is decoded."""

from __future__ import annotations

import json
import math
import tracemalloc

import numpy as np
import pytest
import zarr
from numcodecs.vlen import VLenUTF8
from numcodecs.zstd import Zstd
from zarr.storage import MemoryStore

from norbert_store._format.arrays import (
    LARGEST_BLOCK_BYTES,
    array_document,
    block_key,
    block_number,
    blocks_of,
    decode_block,
    encode_block,
    group_document,
    json_bytes,
    nothing,
    valid_part,
)
from norbert_store._format.shard import with_checksum, without_checksum
from norbert_store._storage.storage import Storage
from norbert_store.errors import DamagedError

COLUMNS = {
    "string": ("", np.array(["a", "ü\0b", ""], object)),
    "int64": (0, np.array([-1, 2**60, 0])),
    "float64": ("NaN", np.array([0.5, np.nan, -np.inf])),
    "bool": (False, np.array([True, False, True])),
    "int8": (-1, np.array([1, 0, -1], np.int8)),
    "uint32": (0, np.array([1, 2**32 - 1, 0], np.uint32)),
}


def document(data_type, rows_per_block=2):
    fill_value, values = COLUMNS[data_type]
    return array_document([len(values)], data_type, fill_value, ["track"], [rows_per_block])


def opened(path, metadata):
    """An array of zarr in memory, that has nothing but its document; and where it is."""
    store = MemoryStore()
    storage = Storage(store, read_only=False)
    storage.set("zarr.json", json_bytes(group_document()))
    storage.set(f"{path}/zarr.json", json_bytes(metadata))
    return zarr.open_group(store, mode="r+")[path], storage


@pytest.mark.parametrize("data_type", COLUMNS)
def test_blocks_are_those_of_zarr(data_type):
    metadata, values = document(data_type), COLUMNS[data_type][1]
    array, storage = opened("deep/x", metadata)
    array.with_config({"write_empty_chunks": True})[...] = values
    keys = [block_key("deep/x", block) for block in blocks_of(metadata)]
    assert keys == ["deep/x/c/0", "deep/x/c/1"]
    blocks = [encode_block(metadata, values[2 * i : 2 * i + 2]) for i in range(2)]
    assert [storage.get(key) for key in keys] == blocks
    found = [decode_block(metadata, data) for data in blocks]
    np.testing.assert_array_equal(np.concatenate(found)[: len(values)], values)


@pytest.mark.parametrize("data_type", COLUMNS)
def test_zarr_reads_blocks(data_type):
    metadata, values = document(data_type), COLUMNS[data_type][1]
    array, storage = opened("x", metadata)
    for i in range(2):
        storage.set(f"x/c/{i}", encode_block(metadata, values[2 * i : 2 * i + 2]))
    found = array[...]
    assert array.dtype.kind == ("T" if data_type == "string" else values.dtype.kind)
    assert np.array_equal(found.astype(values.dtype), values, equal_nan=data_type == "float64")


def test_blocks_of_several_axes():
    metadata = array_document([2, 3, 1, 20], "uint32", 0, ["target", "part", "channel", "chunk"], [1, 3, 1, 8])
    values = np.arange(120, dtype=np.uint32).reshape(2, 3, 1, 20)
    array, storage = opened("x", metadata)
    blocks = list(blocks_of(metadata))
    assert [block_number(metadata, block) for block in blocks] == list(range(6))
    assert blocks[4] == (1, 0, 0, 1)
    for target, _, _, number in blocks:
        some = values[target : target + 1, ..., 8 * number : 8 * number + 8]
        data = encode_block(metadata, some)
        storage.set(block_key("x", (target, 0, 0, number)), data)
        whole = decode_block(metadata, data)
        assert whole.shape == (1, 3, 1, 8)
        assert np.array_equal(valid_part(metadata, (target, 0, 0, number), whole), some)
    assert np.array_equal(array[...], values)


def test_what_is_missing_at_the_end_of_a_block_is_the_fill_value():
    for data_type, (fill_value, values) in COLUMNS.items():
        metadata = document(data_type, 5)
        rest = decode_block(metadata, encode_block(metadata, values[:1]))[1:].tolist()
        expected = [math.nan if fill_value == "NaN" else fill_value] * 4
        assert [repr(value) for value in rest] == [repr(value) for value in expected]


def test_an_array_without_rows_has_no_blocks():
    metadata = array_document([0, 3], "bool", False, ["track", "target"], [4, 3])
    assert list(blocks_of(metadata)) == []
    assert nothing(metadata).shape == (0, 3)


def test_documents_are_json_of_every_parser():
    metadata = array_document([3], "float64", "NaN", ["track"])
    assert json.loads(json_bytes(metadata), parse_constant=pytest.fail) == metadata
    with pytest.raises(ValueError, match="JSON"):
        json_bytes({"x": math.nan})


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
    for wrong in (b"", b"abc", data[:4], data[:6], data[:-3], data + data, b"\0" * 100):
        with pytest.raises(DamagedError):
            decode_block(document(data_type), with_checksum(wrong))
    for rows in (1, 4):  # as other blocks have
        with pytest.raises(DamagedError):
            decode_block(document(data_type, rows), with_checksum(data))


# ---- blocks that claim to be what nobody has memory for


def frame_of(size, content=b""):
    """A zstd frame that says that it decodes to so many bytes."""
    return b"\x28\xb5\x2f\xfd" + bytes([0b11100000]) + size.to_bytes(8, "little") + content


def raw_block(data):
    """A last block of a zstd frame, as it is."""
    return (len(data) << 3 | 1).to_bytes(3, "little") + data


def refused(metadata, data, message):
    """See that a block is refused, at once."""
    tracemalloc.start()
    try:
        with pytest.raises(DamagedError, match=message):
            decode_block(metadata, with_checksum(data))
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("data_type", COLUMNS)
@pytest.mark.parametrize("size", [LARGEST_BLOCK_BYTES + 1, 2**40, 2**64 - 1])
def test_blocks_that_claim_to_be_huge(data_type, size):
    refused(document(data_type), frame_of(size, raw_block(b"x")), f"decodes to {size} bytes; a block of this array has")


def test_blocks_that_are_huge():
    """A bomb: 300 MB of zeros in some kilobytes."""
    bomb = bytes(Zstd(level=1).encode(bytes(300 * 2**20)))
    assert len(bomb) < 100_000
    for data_type in COLUMNS:
        refused(document(data_type), bomb, "decodes to 314572800 bytes")


@pytest.mark.parametrize("data_type", COLUMNS)
def test_blocks_with_a_bomb_behind_them(data_type):
    data = without_checksum(encode_block(document(data_type), COLUMNS[data_type][1][:2]))
    # two releases of numcodecs word it in two ways
    message = r"it can't be decoded to the \d+ bytes that it says: .*buffer (is )?too small"
    refused(document(data_type), data + bytes(Zstd(level=1).encode(bytes(300 * 2**20))), message)


def test_blocks_of_metadata_that_is_huge_itself():
    metadata = array_document([2**40], "int64", 0, ["track"], [2**40])
    refused(metadata, frame_of(2**43), f"at most {LARGEST_BLOCK_BYTES}")


def test_blocks_that_do_not_say_how_long_they_are():
    # no single segment, and no size
    refused(document("int64"), b"\x28\xb5\x2f\xfd" + b"\x00\x58" + raw_block(bytes(16)), "decodes to None bytes")


@pytest.mark.parametrize("said", [8, 15, 17, 24])
def test_blocks_that_are_of_another_length_than_they_say(said):
    with pytest.raises(DamagedError):
        decode_block(document("int64", 3), with_checksum(frame_of(said, raw_block(bytes(16)))))


def test_texts_that_claim_to_be_many():
    for count in (0, 1, 3, 2**31 - 1, 2**32 - 1):
        texts = bytearray(VLenUTF8().encode(np.array(["a", "b"], object)))
        texts[:4] = count.to_bytes(4, "little")
        refused(document("string"), bytes(Zstd().encode(bytes(texts))), f"holds {count} texts; expected 2")


def test_texts_that_claim_to_be_long():
    for length in (2, 100, 2**31 - 1, 2**32 - 1):
        texts = bytearray(VLenUTF8().encode(np.array(["a", "b"], object)))
        texts[4:8] = length.to_bytes(4, "little")
        refused(document("string"), bytes(Zstd().encode(bytes(texts))), "corrupt buffer")


def test_texts_that_are_no_utf8():
    texts = bytes(VLenUTF8().encode(np.array(["a", "b"], object))).replace(b"b", b"\xff")
    refused(document("string"), bytes(Zstd().encode(texts)), "utf-8")
