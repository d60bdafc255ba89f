from __future__ import annotations

import google_crc32c
import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st
from zarr.codecs import BytesCodec, Crc32cCodec, ShardingCodec

from norbert_store._format.shard import (
    ShardIndex,
    checksum_matches,
    index_bytes,
    largest_chunk,
    pack,
    stored_checksum,
    with_checksum,
    without_checksum,
)
from norbert_store._jpeg.encoder import encode, quantisation_table
from norbert_store._storage.storage import Storage
from norbert_store.errors import DamagedError

MISSING = 2**64 - 1


@st.composite
def contents(draw):
    channels, chunks = draw(st.integers(1, 3)), draw(st.integers(1, 5))
    places = st.tuples(st.integers(0, channels - 1), st.integers(0, chunks - 1))
    # few different values, so that equal chunks are common
    data = st.sampled_from([b"", b"a", b"bb", b"\xff\xd8 jpeg \xff\xd9", bytes(300)]).map(with_checksum)
    return draw(st.dictionaries(places, data)), channels, chunks


def parse(shard, channels, chunks):
    return ShardIndex.parse(shard[-index_bytes(channels, chunks) :], channels, chunks, len(shard))


@given(contents())
def test_what_is_packed_is_found_again_and_nothing_else(content):
    encoded, channels, chunks = content
    shard, extents = pack(encoded, channels, chunks)
    index = parse(shard, channels, chunks)
    assert (extents.shape, extents.dtype) == ((3, channels, chunks), np.uint32)
    assert np.array_equal(index.there, extents[1] > 0)
    for channel in range(channels):
        for chunk in range(chunks):
            place = index.place(channel, chunk)
            offset, length, checksum = extents[:, channel, chunk].tolist()
            if (channel, chunk) not in encoded:
                assert place is None
                assert (offset, length, checksum) == (0, 0, 0)
            else:
                assert place == (offset, length)
                assert shard[offset : offset + length] == encoded[channel, chunk]
                assert checksum == google_crc32c.value(shard[offset : offset + length - 4])


@given(contents())
def test_equal_chunks_are_stored_once_and_nothing_else_is_there(content):
    encoded, channels, chunks = content
    once = sum(len(data) for data in set(encoded.values()))
    shard, _ = pack(encoded, channels, chunks)
    assert len(shard) == once + index_bytes(channels, chunks)


def test_chunks_of_different_tracks_share_nothing():
    data = with_checksum(b"silence")
    encoded = {(channel, chunk): data for channel in range(2) for chunk in range(4)}
    shard, extents = pack(encoded, 2, 4, owners=[7, 7, 8, 7])
    assert extents[0].tolist() == [[0, 0, 11, 0]] * 2
    assert len(shard) == 2 * len(data) + index_bytes(2, 4)


def test_chunks_lie_time_outer_and_channel_inner():
    encoded = {(channel, chunk): with_checksum(bytes([channel, chunk])) for channel in (1, 0) for chunk in (2, 0, 1)}
    _, extents = pack(encoded, 2, 3)
    assert extents[0].T.ravel().tolist() == [0, 6, 12, 18, 24, 30]


def test_order_of_adding_leaves_no_trace():
    encoded = {(channel, chunk): with_checksum(bytes([channel, chunk])) for channel in range(2) for chunk in range(3)}
    assert pack(encoded, 2, 3)[0] == pack(dict(reversed(encoded.items())), 2, 3)[0]


def test_shards_have_a_largest_size(monkeypatch):
    monkeypatch.setattr("norbert_store._format.shard.LARGEST_SHARD", 20)
    encoded = {(0, i): with_checksum(bytes([i] * 6)) for i in range(2)}
    with pytest.raises(ValueError, match="a shard has less than 20 bytes, found 20; use fewer chunks in a shard"):
        pack(encoded, 1, 2)


def test_zarr_reads_what_is_packed():
    """As the shard of an array of bytes, with nothing but the checksum around them."""
    store = zarr.storage.MemoryStore()
    sharding = ShardingCodec(chunk_shape=(1, 3), codecs=[BytesCodec(), Crc32cCodec()])
    array = zarr.create_array(
        store, shape=(2, 6), dtype="uint8", chunks=(2, 6), serializer=sharding, compressors=None, fill_value=9
    )
    encoded = {(0, 0): b"abc", (1, 0): b"abc", (1, 1): b"xyz"}
    data, _ = pack({place: with_checksum(chunk) for place, chunk in encoded.items()}, 2, 2)
    Storage(store, read_only=False).set("c/0/0", data)
    assert np.asarray(array[...]).tolist() == [[*b"abc", 9, 9, 9], [*b"abc", *b"xyz"]]


def test_every_flipped_bit_of_an_index_is_found():
    shard, _ = pack({(0, 0): with_checksum(b"x"), (1, 1): with_checksum(b"yy")}, 2, 2)
    index = shard[-index_bytes(2, 2) :]
    for bit in range(8 * len(index)):
        broken = bytearray(index)
        broken[bit // 8] ^= 1 << bit % 8
        with pytest.raises(DamagedError, match="checksum"):
            ShardIndex.parse(bytes(broken), 2, 2)


@pytest.mark.parametrize("cut", [0, 1, 4, 19, 20])
def test_index_of_another_length_is_damaged(cut):
    index, _ = pack({}, 1, 1)
    assert len(index) == 20
    with pytest.raises(DamagedError, match=f"takes 36 bytes, found {cut}"):
        ShardIndex.parse(index[:cut], 2, 1)


@pytest.mark.parametrize(
    "entry",
    [(0, 11), (10, 1), (11, 0), (5, 6), (MISSING - 1, 3), (3, MISSING - 1), (2**63, 2**63)],
)
def test_entry_outside_the_shard_is_damaged(entry):
    data = with_checksum(np.array([entry], "<u8").tobytes())
    with pytest.raises(DamagedError, match="outside the 10 bytes"):
        ShardIndex.parse(data, 1, 1, shard_bytes=10 + len(data))


@pytest.mark.parametrize("entry", [(0, 10), (10, 0), (4, 6), (MISSING, MISSING)])
def test_entry_up_to_the_end_of_the_shard_is_right(entry):
    data = with_checksum(np.array([entry], "<u8").tobytes())
    expected = None if entry[0] == MISSING else entry
    assert ShardIndex.parse(data, 1, 1, shard_bytes=10 + len(data)).place(0, 0) == expected


@pytest.mark.parametrize("entry", [(MISSING, 5), (5, MISSING)])
def test_half_missing_entry_is_damaged(entry):
    data = with_checksum(np.array([entry], "<u8").tobytes())
    with pytest.raises(DamagedError, match="half missing"):
        ShardIndex.parse(data, 1, 1)


def test_checksum_is_that_of_the_standard():
    # the check value of CRC-32C, in zarr's byte order
    assert with_checksum(b"123456789") == b"123456789" + (0xE3069283).to_bytes(4, "little")


@given(st.binary(max_size=40), st.data())
def test_checksum_finds_every_changed_byte(content, data):
    whole = bytearray(with_checksum(content))
    assert without_checksum(bytes(whole)) == content
    position = data.draw(st.integers(0, len(whole) - 1))
    whole[position] ^= data.draw(st.integers(1, 255))
    with pytest.raises(DamagedError):
        without_checksum(bytes(whole))


@pytest.mark.parametrize("data", [b"", b"\0", b"\0\0\0"])
def test_too_few_bytes_for_a_checksum_are_damaged(data):
    with pytest.raises(DamagedError, match=f"{len(data)} bytes"):
        without_checksum(data)


def test_a_checksum_is_told_from_others():
    data = with_checksum(b"some bytes")
    assert stored_checksum(data) == google_crc32c.value(b"some bytes")
    assert checksum_matches(data)
    assert checksum_matches(data, stored_checksum(data))
    assert not checksum_matches(data, stored_checksum(data) ^ 1)
    assert not checksum_matches(data[:-1])
    assert not checksum_matches(b"")


def test_no_chunk_is_larger_than_it_can_be():
    noise = np.random.default_rng(0).integers(0, 2, (64, 100), np.uint8) * np.uint8(255)
    assert len(with_checksum(encode(noise, quantisation_table(100)))) < largest_chunk(64, 100)
    assert largest_chunk(8, 8) < largest_chunk(16, 8) == largest_chunk(8, 16) == largest_chunk(8, 9)
