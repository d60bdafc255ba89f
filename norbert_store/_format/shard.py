r"""The bytes of one shard: chunks, then an index of where each lies (zarr's ``sharding_indexed``, index at the end).

Conventions
-----------
A shard holds ``channels x chunks`` chunks of one target. Its index is little-endian ``uint64``
(channels, chunks, 2), each entry offset and length in bytes, ``2**64 - 1`` twice for a chunk that isn't there;
the CRC-32C of the index follows in 4 bytes. Every chunk ends with the CRC-32C of its own bytes, as zarr's ``crc32c``
codec writes it. Entries may name the same bytes: equal chunks are stored once.

Between chunks and index stands a place record, which zarr has no eye for: "norbert\0", target (``uint32``) and shard
(``uint64``), little-endian, and their CRC-32C. It is read with the index, and tells a shard that was swapped.

References
----------
Zarr version 3 specification, codecs "sharding_indexed" 1.0 and "crc32c" 1.0; RFC 3720, appendix B.4 for the CRC.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from norbert_store._jpeg.layout import BLOCK
from norbert_store.errors import DamagedError

CHECKSUM_BYTES = 4
_RESIDUE = 0x48674BC7
MISSING = 2**64 - 1
LARGEST_FILE = 2**63 - 1
_ENTRY_BYTES = 16
_SIGNATURE = b"norbert\0"
_PLACE = "<8sIQ"
PLACE_BYTES = struct.calcsize(_PLACE) + CHECKSUM_BYTES

# A coefficient takes up to 26 bits in a baseline JPEG, and every byte of them may have to be escaped.
_MOST_BYTES_PER_PIXEL = 8
_MOST_HEADER_BYTES = 2**18

ChunkPlace = tuple[int, int]
"""Where a chunk stands in its shard: (channel, chunk), both from 0."""


def with_checksum(data: bytes) -> bytes:
    """Append the CRC-32C of some bytes to them."""
    return data + struct.pack("<I", google_crc32c.value(data))


def checksum_matches(data: bytes) -> bool:
    """Whether bytes end with the CRC-32C of those before."""
    # the CRC of anything that is followed by its own CRC is always the same: nothing needs to be copied
    return len(data) >= CHECKSUM_BYTES and google_crc32c.value(data) == _RESIDUE


def without_checksum(data: bytes) -> bytes:
    """Check and cut off the CRC-32C at the end of some bytes.

    Raises
    ------
    DamagedError
        If it doesn't match.
    """
    if not checksum_matches(data):
        raise DamagedError(f"the checksum of {len(data)} bytes doesn't match")
    return data[:-CHECKSUM_BYTES]


def largest_chunk(chunk_frames: int, bins: int) -> int:
    """Return the most bytes that a chunk of this format can have."""
    columns = -(-bins // BLOCK) * BLOCK
    return _MOST_BYTES_PER_PIXEL * chunk_frames * columns + _MOST_HEADER_BYTES


def place_record(target: int, shard: int) -> bytes:
    """Return the bytes that stand before a shard's index."""
    return with_checksum(struct.pack(_PLACE, _SIGNATURE, target, shard))


def index_bytes(channels: int, chunks: int) -> int:
    """Length of a shard's index with its checksum."""
    return channels * chunks * _ENTRY_BYTES + CHECKSUM_BYTES


def tail_bytes(channels: int, chunks: int) -> int:
    """Length of a shard's place record and index: what a reader reads first."""
    return PLACE_BYTES + index_bytes(channels, chunks)


def check_place(tail: bytes, target: int, shard: int) -> None:
    """Compare the place record at the beginning of a shard's tail with where the shard was found.

    Raises
    ------
    DamagedError
        If the record tells another place. Shards that others wrote have no record, and pass.
    """
    record = tail[:PLACE_BYTES]
    if not record.startswith(_SIGNATURE):
        return
    if len(record) < PLACE_BYTES:
        raise DamagedError(f"a shard's place record takes {PLACE_BYTES} bytes, found {len(record)}")
    _, found_target, found_shard = struct.unpack(_PLACE, without_checksum(record))
    if (found_target, found_shard) != (target, shard):
        raise DamagedError(
            f"this is the shard {found_shard} of target {found_target}; expected shard {shard} of target {target}"
        )


def pack(encoded: Mapping[ChunkPlace, bytes], channels: int, chunks: int, target: int = 0, shard: int = 0) -> bytes:
    """Put encoded chunks into the bytes of a shard.

    Parameters
    ----------
    encoded : mapping of (channel, chunk) to bytes
        Each with its checksum. What isn't named is marked as not there.
    channels, chunks : int
        Size of the shard.
    target, shard : int
        Positions of its target, and of the shard along the packed axis.

    Returns
    -------
    bytes
        Time-outer, channel-inner, so that an excerpt of all channels is one range; equal chunks stand once.
    """
    index = np.full((channels, chunks, 2), MISSING, "<u8")
    offsets: dict[bytes, int] = {}
    end = 0
    for channel, chunk in sorted(encoded, key=lambda place: (place[1], place[0])):
        data = encoded[channel, chunk]
        if data not in offsets:
            offsets[data] = end
            end += len(data)
        index[channel, chunk] = offsets[data], len(data)
    return b"".join(offsets) + place_record(target, shard) + with_checksum(index.tobytes())


@dataclass(frozen=True)
class ShardIndex:
    """Where the chunks of one shard lie.

    Attributes
    ----------
    entries : ndarray of uint64
        (channels, chunks, 2): offset and length in bytes.
    """

    entries: NDArray[np.uint64]

    @classmethod
    def parse(cls, data: bytes, channels: int, chunks: int, shard_bytes: int | None = None) -> ShardIndex:
        """Read an index, and check it.

        Parameters
        ----------
        data : bytes
            The last `index_bytes` of the shard.
        channels, chunks : int
            Size of the shard.
        shard_bytes : int, optional
            Length of the whole shard, to check the entries against; if left out, no more than any file has.

        Raises
        ------
        DamagedError
            If the length or the checksum is wrong, or an entry lies outside the shard.
        """
        if len(data) != index_bytes(channels, chunks):
            raise DamagedError(f"a shard's index takes {index_bytes(channels, chunks)} bytes, found {len(data)}")
        entries = np.frombuffer(without_checksum(data), "<u8").reshape(channels, chunks, 2)
        missing = entries == MISSING
        if (missing[..., 0] != missing[..., 1]).any():
            raise DamagedError("an entry of a shard's index is half missing")
        there = entries[~missing[..., 0]]
        room = LARGEST_FILE if shard_bytes is None else shard_bytes - len(data)
        # one by one: a sum of two huge numbers would wrap around
        if (there > room).any() or (there[:, 0] + there[:, 1] > room).any():
            raise DamagedError(f"an entry of a shard's index points outside the {room} bytes of its chunks")
        return cls(entries)

    @property
    def there(self) -> NDArray[np.bool_]:
        """For each (channel, chunk), whether it is in the shard."""
        return self.entries[..., 0] != MISSING

    def place(self, channel: int, chunk: int) -> tuple[int, int] | None:
        """Offset and length in bytes of a chunk with its checksum; None where it isn't there."""
        offset, length = self.entries[channel, chunk].tolist()
        return None if offset == MISSING else (offset, length)


def read_tail(tail: bytes, channels: int, chunks: int, target: int, shard: int) -> ShardIndex:
    """Read the last `tail_bytes` of a shard, and check that it is the one that was looked for.

    Raises
    ------
    DamagedError
        As `check_place` and `ShardIndex.parse`.
    """
    check_place(tail, target, shard)
    return ShardIndex.parse(tail[-index_bytes(channels, chunks) :], channels, chunks)
