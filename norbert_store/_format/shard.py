"""The bytes of one shard: chunks, then an index of where each lies (zarr's ``sharding_indexed``, index at the end).

Conventions
-----------
A shard holds ``channels x chunks`` chunks of one target. Its index is little-endian ``uint64``
(channels, chunks, 2), each entry offset and length in bytes, ``2**64 - 1`` twice for a chunk that isn't there;
the CRC-32C of the index follows in 4 bytes. Every chunk ends with the CRC-32C of its own bytes, as zarr's ``crc32c``
codec writes it. Entries may name the same bytes: equal chunks of one track are stored once.

References
----------
Zarr version 3 specification, codecs "sharding_indexed" 1.0 and "crc32c" 1.0; RFC 3720, appendix B.4 for the CRC.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from norbert_store._jpeg.layout import BLOCK, blocks_along
from norbert_store.errors import DamagedError

CHECKSUM_BYTES = 4
_RESIDUE = 0x48674BC7
MISSING = 2**64 - 1
LARGEST_FILE = 2**63 - 1
LARGEST_SHARD = 2**32
_ENTRY_BYTES = 16

# A coefficient takes up to 26 bits in a baseline JPEG, and every byte of them may have to be escaped.
_MOST_BYTES_PER_PIXEL = 8
_MOST_HEADER_BYTES = 2**18

ChunkPlace = tuple[int, int]
"""Where a chunk stands in its shard: (channel, chunk), both from 0."""


def with_checksum(data: bytes) -> bytes:
    """Append the CRC-32C of some bytes to them."""
    return data + struct.pack("<I", google_crc32c.value(data))


def checksum_matches(data: bytes, expected: int | None = None) -> bool:
    """Whether bytes end with the CRC-32C of those before, and that is the one expected."""
    if len(data) < CHECKSUM_BYTES or (expected is not None and stored_checksum(data) != expected):
        return False
    # the CRC of anything that is followed by its own CRC is always the same: nothing needs to be copied
    return bool(google_crc32c.value(data) == _RESIDUE)


def stored_checksum(data: bytes) -> int:
    """Read the CRC-32C at the end of some bytes."""
    return int.from_bytes(data[-CHECKSUM_BYTES:], "little")


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
    columns = blocks_along(bins) * BLOCK
    return _MOST_BYTES_PER_PIXEL * chunk_frames * columns + _MOST_HEADER_BYTES


def index_bytes(channels: int, chunks: int) -> int:
    """Length of a shard's index with its checksum."""
    return channels * chunks * _ENTRY_BYTES + CHECKSUM_BYTES


def pack(
    encoded: Mapping[ChunkPlace, bytes], channels: int, chunks: int, owners: Sequence[int] | None = None
) -> tuple[bytes, NDArray[np.uint32]]:
    """Put encoded chunks into the bytes of a shard.

    Parameters
    ----------
    encoded : mapping of (channel, chunk) to bytes
        Each with its checksum. What isn't named is marked as not there.
    channels, chunks : int
        Size of the shard.
    owners : sequence of int, optional
        For each chunk, a number of the track that it belongs to; only chunks of one track share bytes.

    Returns
    -------
    data : bytes
        Time-outer, channel-inner, so that an excerpt of all channels is one range; equal chunks of a track stand once.
    extents : ndarray of uint32
        (3, channels, chunks): offset, length with checksum, and checksum of each chunk; 0 where there is none.
    """
    index = np.full((channels, chunks, 2), MISSING, "<u8")
    extents = np.zeros((3, channels, chunks), np.uint32)
    offsets: dict[tuple[int, bytes], int] = {}
    pieces: list[bytes] = []
    end = 0
    for channel, chunk in sorted(encoded, key=lambda place: (place[1], place[0])):
        data = encoded[channel, chunk]
        owner = 0 if owners is None else owners[chunk]
        offset = offsets.setdefault((owner, data), end)
        if offset == end:
            pieces.append(data)
            end += len(data)
        index[channel, chunk] = offset, len(data)
        extents[:, channel, chunk] = offset, len(data), stored_checksum(data)
    if end >= LARGEST_SHARD:
        raise ValueError(f"a shard has less than {LARGEST_SHARD} bytes, found {end}; use fewer chunks in a shard")
    return b"".join(pieces) + with_checksum(index.tobytes()), extents


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
