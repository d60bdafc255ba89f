from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from norbert_store._format.shard import (
    PLACE_BYTES,
    ShardIndex,
    check_place,
    index_bytes,
    pack,
    tail_bytes,
    with_checksum,
    without_checksum,
)
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
    shard = pack(encoded, channels, chunks)
    index = parse(shard, channels, chunks)
    for channel in range(channels):
        for chunk in range(chunks):
            place = index.place(channel, chunk)
            if (channel, chunk) not in encoded:
                assert place is None
            else:
                offset, length = place
                assert shard[offset : offset + length] == encoded[channel, chunk]


@given(contents())
def test_equal_chunks_are_stored_once(content):
    encoded, channels, chunks = content
    once = sum(len(data) for data in set(encoded.values()))
    assert len(pack(encoded, channels, chunks)) == once + tail_bytes(channels, chunks)


def test_chunks_lie_time_outer_and_channel_inner():
    encoded = {(channel, chunk): with_checksum(bytes([channel, chunk])) for channel in (1, 0) for chunk in (2, 0, 1)}
    shard = pack(encoded, 2, 3)
    index = parse(shard, 2, 3)
    offsets = [index.place(channel, chunk)[0] for chunk in range(3) for channel in range(2)]
    assert offsets == [0, 6, 12, 18, 24, 30]


def test_order_of_adding_leaves_no_trace():
    encoded = {(channel, chunk): with_checksum(bytes([channel, chunk])) for channel in range(2) for chunk in range(3)}
    assert pack(encoded, 2, 3) == pack(dict(reversed(encoded.items())), 2, 3)


def tail_of(target, shard):
    return pack({(0, 0): with_checksum(b"x")}, 1, 1, target, shard)[-tail_bytes(1, 1) :]


@pytest.mark.parametrize(("target", "shard"), [(0, 0), (3, 70), (2**32 - 1, 2**64 - 1)])
def test_shard_knows_its_place(target, shard):
    tail = tail_of(target, shard)
    check_place(tail, target, shard)
    assert ShardIndex.parse(tail[PLACE_BYTES:], 1, 1).place(0, 0) == (0, 5)


@pytest.mark.parametrize("place", [(1, 5), (0, 4), (5, 1)])
def test_shard_at_another_place_is_damage(place):
    with pytest.raises(DamagedError, match=f"shard 5 of target 0; expected shard {place[1]} of target {place[0]}"):
        check_place(tail_of(0, 5), *place)


def test_every_flipped_bit_of_a_place_is_found_or_makes_it_unknown():
    tail = tail_of(0, 5)
    for bit in range(8 * PLACE_BYTES):
        broken = bytearray(tail)
        broken[bit // 8] ^= 1 << bit % 8
        if bit < 8 * 8:  # of the signature
            check_place(bytes(broken), 0, 5)
        else:
            with pytest.raises(DamagedError, match="checksum"):
                check_place(bytes(broken), 0, 5)


@pytest.mark.parametrize("tail", [b"", b"short", bytes(100)])
def test_shards_of_others_know_no_place(tail):
    check_place(tail, 1, 2)


def test_every_flipped_bit_of_an_index_is_found():
    shard = pack({(0, 0): with_checksum(b"x"), (1, 1): with_checksum(b"yy")}, 2, 2)
    index = shard[-index_bytes(2, 2) :]
    for bit in range(8 * len(index)):
        broken = bytearray(index)
        broken[bit // 8] ^= 1 << bit % 8
        with pytest.raises(DamagedError, match="checksum"):
            ShardIndex.parse(bytes(broken), 2, 2)


@pytest.mark.parametrize("cut", [0, 1, 4, 19, 20])
def test_index_of_another_length_is_damaged(cut):
    index = pack({}, 1, 1)[-index_bytes(1, 1) :]
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


def test_a_shard_tells_its_place():
    tail = pack({}, 2, 3, target=1, shard=70000)
    assert len(tail) == tail_bytes(2, 3)
    check_place(tail, 1, 70000)
    for target, shard in ((0, 70000), (1, 70001)):
        with pytest.raises(
            DamagedError, match=f"the shard 70000 of target 1; expected shard {shard} of target {target}"
        ):
            check_place(tail, target, shard)


def test_a_shard_without_a_place_record_is_taken():
    check_place(b"\0" * 200, 3, 5)
