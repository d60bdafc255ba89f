"""How magnitudes lie in chunks, chunks in shards, and rows of the track table in blocks; all of that arithmetic.

Conventions
-----------
Along the packed axis, frames, chunks and shards count from 0: chunk ``c`` holds the frames from ``c * chunk_frames``
on, shard ``s`` the chunks from ``s * shard_chunks`` on. What takes a number takes an array of them as well.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from norbert_store._spectra.levels import Curve

MAGNITUDE = "magnitude"
SHARD_CHUNKS = 64
ROWS = 16384
POSITIONS = 4096
NUMBER = "(0|[1-9][0-9]{0,15})"  # in a key: below 2^53, and written in one way alone
MOST_FRAMES = 2**24  # of a track, whose time axis is held in memory

_SHARD_KEY = re.compile(rf"{MAGNITUDE}/c/{NUMBER}/0/{NUMBER}/0")

_Number = TypeVar("_Number", int, NDArray[np.int64])


class ChunkAt(NamedTuple):
    """Which chunk.

    Attributes
    ----------
    target, channel : int
    number : int
        Position along the packed axis, in chunks.
    row : int, optional
        Of the track that it belongs to; looked up, if it must be known.
    """

    target: int
    channel: int
    number: int
    row: int | None = None


@dataclass(frozen=True)
class Layout:
    """How the magnitudes lie in chunks and shards, and rows in blocks.

    Attributes
    ----------
    bins : int
        Length of the frequency axis; a chunk holds all of it.
    chunk_frames : int
        Frames in a chunk, a multiple of 8.
    shard_chunks : int
        Chunks along time in a shard.
    curve : Curve
        Between levels and magnitudes, relative to the scale of a track's target.
    rows : int
        Rows in a block of the track table.
    positions : int
        Chunks along time in a block of extents.
    """

    bins: int
    chunk_frames: int
    shard_chunks: int
    curve: Curve
    rows: int = ROWS
    positions: int = POSITIONS

    # ---- frames and chunks

    def chunks(self, frames: _Number) -> _Number:
        """Chunks that a number of frames takes."""
        return ceil_div(frames, self.chunk_frames)

    def chunk_of(self, frame: _Number) -> _Number:
        """Chunk that a frame lies in."""
        return frame // self.chunk_frames

    def frame_of(self, chunk: _Number) -> _Number:
        """First frame of a chunk."""
        return chunk * self.chunk_frames

    def chunk_span(self, start: int, frames: int) -> range:
        """Chunks that some frames touch."""
        return range(self.chunk_of(start), self.chunks(start + frames))

    # ---- chunks and shards

    @property
    def shard_frames(self) -> int:
        """Frames in a shard."""
        return self.chunk_frames * self.shard_chunks

    def shard_of(self, chunk: _Number) -> _Number:
        """Shard that a chunk lies in."""
        return chunk // self.shard_chunks

    def within_shard(self, chunk: _Number) -> _Number:
        """Position of a chunk in its shard."""
        return chunk % self.shard_chunks

    def first_chunk(self, shard: _Number) -> _Number:
        """First chunk of a shard."""
        return shard * self.shard_chunks

    def shards(self, chunks: _Number) -> _Number:
        """Shards that a number of chunks takes."""
        return ceil_div(chunks, self.shard_chunks)

    def whole_shards(self, chunks: _Number) -> _Number:
        """Chunks of the shards that a number of chunks takes: where the next bundle can begin."""
        return self.first_chunk(self.shards(chunks))

    def by_shard(self, first: int, stop: int) -> Iterator[tuple[int, int]]:
        """Cut chunks where shards begin."""
        while first < stop:
            end = min(stop, self.first_chunk(self.shard_of(first) + 1))
            yield first, end
            first = end

    def shard_edges(self, start: int, frames: int) -> NDArray[np.int64]:
        """Frames at which shards begin, behind the first of some frames and up to their end."""
        size = self.shard_frames
        return np.arange(start // size + 1, (start + frames) // size + 1) * size

    def is_shard_edge(self, frame: int) -> bool:
        """Whether a shard begins at a frame."""
        return frame % self.shard_frames == 0

    # ---- chunks and blocks of extents

    def extent_block_of(self, chunk: int) -> tuple[int, int]:
        """Block of extents that a chunk lies in, and its position there."""
        return divmod(chunk, self.positions)

    def by_extent_block(self, first: int, stop: int) -> Iterator[tuple[int, slice, slice]]:
        """Cut chunks where blocks of extents begin: the block, and where its part lies in it, and among the chunks."""
        begin = first
        while begin < stop:
            block, within = self.extent_block_of(begin)
            end = min(stop, begin + self.positions - within)
            yield block, slice(within, within + end - begin), slice(begin - first, end - first)
            begin = end

    def extent_block_chunks(self, block: int, chunks: int) -> range:
        """Chunks of a block of extents, where there are ``chunks`` in all."""
        return range(block * self.positions, min((block + 1) * self.positions, chunks))

    # ---- rows and blocks

    def blocks(self, rows: int) -> int:
        """Blocks of the track table that a number of rows takes."""
        return ceil_div(rows, self.rows)

    def block_of(self, row: int) -> tuple[int, int]:
        """Block that a row lies in, and its position there."""
        return divmod(row, self.rows)

    def full_blocks(self, rows: int) -> int:
        """Rows in those blocks that are full."""
        return rows // self.rows * self.rows

    def block_rows(self, block: int, rows: int) -> range:
        """Rows of a block of an array that has ``rows`` in all."""
        return range(block * self.rows, min((block + 1) * self.rows, rows))


def shard_key(target: int, shard: int) -> str:
    """Key of a shard, by the positions of target and shard."""
    return f"{MAGNITUDE}/c/{target}/0/{shard}/0"


def parse_shard_key(key: str) -> tuple[int, int] | None:
    """Positions of target and shard that a key names; None where it is no shard's."""
    found = _SHARD_KEY.fullmatch(key)
    return (int(found[1]), int(found[2])) if found else None


def ceil_div(number: _Number, size: int) -> _Number:
    """Divide, and round up: how many parts of a size hold a number."""
    return -(-number // size)
