"""Where tracks will lie, before the first of them is read: whole bundles, from the lengths in the files' headers.

A plan is the same whoever carries it out, in whatever order, and when it is made again after an interruption.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from norbert_store._format.layout import SHARD_CHUNKS, Layout
from norbert_store._sources.files import AudioInfo
from norbert_store._sources.track import SourceTrack

# Beyond this many files, hubs and object stores become slow to list; some refuse 10,000 in one folder.
_MOST_SHARDS = 4096
_MOST_SHARD_CHUNKS = 4096


@dataclass(frozen=True)
class PlannedTrack:
    """A track, and what its first header tells.

    Attributes
    ----------
    track : SourceTrack
    chunks : int
        Along time, that it takes.
    headers : mapping of str to AudioInfo
        Those that were read, by stem: who reads the audio compares it with them.
    anew : bool
        Whether it takes the place of the one of its name that is committed.
    """

    track: SourceTrack
    chunks: int
    headers: Mapping[str, AudioInfo] = field(default_factory=dict)
    anew: bool = False

    @property
    def name(self) -> str:
        """Name of the track."""
        return self.track.name


@dataclass(frozen=True)
class PlannedBundle:
    """Tracks that share shards, and the place that is theirs alone.

    Attributes
    ----------
    tracks : tuple of PlannedTrack
    first_chunk, end_chunk : int
        Along the packed axis; whole shards.
    """

    tracks: tuple[PlannedTrack, ...]
    first_chunk: int
    end_chunk: int


def bundle_size(tracks: int, targets: int) -> int:
    """Tracks in a bundle: one, or more where there would be too many files."""
    return max(1, math.ceil(tracks * targets / _MOST_SHARDS))


def shard_size(bundle_tracks: int, info: AudioInfo) -> int:
    """Chunks in a shard, for bundles of some tracks as long as one of them."""
    if bundle_tracks == 1:
        return SHARD_CHUNKS
    chunks = math.ceil(info.seconds / 6) * bundle_tracks  # a chunk of the default shape takes about six seconds
    return min(max(chunks, SHARD_CHUNKS), _MOST_SHARD_CHUNKS)


def plan_bundles(
    tracks: Sequence[PlannedTrack], bundle_tracks: int, layout: Layout, first_chunk: int = 0
) -> list[PlannedBundle]:
    """Put tracks into bundles, one after the other from a shard's beginning on."""
    bundles = []
    for begin in range(0, len(tracks), bundle_tracks):
        members = tuple(tracks[begin : begin + bundle_tracks])
        end_chunk = layout.whole_shards(first_chunk + sum(track.chunks for track in members))
        bundles.append(PlannedBundle(members, first_chunk, end_chunk))
        first_chunk = end_chunk
    return bundles


def plan_rest(
    tracks: Sequence[PlannedTrack], bundle_tracks: int, layout: Layout, committed: Mapping[str, int], end_chunk: int
) -> list[PlannedBundle]:
    """Plan what is still to be done.

    Parameters
    ----------
    tracks : sequence of PlannedTrack
        All of them, also those that are committed.
    bundle_tracks : int
    layout : Layout
    committed : mapping of str to int
        The chunk that each committed track begins at, by name.
    end_chunk : int
        Where the last committed track ends.

    Returns
    -------
    list of PlannedBundle
        If what is committed lies where a plan of all tracks puts it, the rest of that plan, and then whatever it left
        out before; else what is missing, behind the end.
    """
    free_chunk = layout.whole_shards(end_chunk)
    rest: list[PlannedBundle] = []
    plan = _aligned(plan_bundles(tracks, bundle_tracks, layout), layout, committed, free_chunk)
    if plan is not None:
        rest = [bundle for bundle in plan if bundle.first_chunk >= free_chunk]
    done = committed.keys() | {track.name for bundle in rest for track in bundle.tracks}
    missing = [track for track in tracks if track.name not in done]
    free_chunk = max([free_chunk, *(bundle.end_chunk for bundle in rest)])
    return rest + plan_bundles(missing, bundle_tracks, layout, free_chunk)


def _aligned(
    plan: Sequence[PlannedBundle], layout: Layout, committed: Mapping[str, int], free_chunk: int
) -> list[PlannedBundle] | None:
    """Move a plan to where its committed tracks lie; None if they don't lie like that."""
    left = dict(committed)  # of two tracks of one name, the first is there, and the second was left out
    begins = [(bundle, [left.pop(track.name) for track in bundle.tracks if track.name in left]) for bundle in plan]
    shifts = (min(found) - bundle.first_chunk for bundle, found in begins if found)
    # whole shards: the first track that is there may not have been the first of its bundle
    offset = layout.first_chunk(layout.shard_of(next(shifts, free_chunk)))
    moved = [
        (replace(bundle, first_chunk=bundle.first_chunk + offset, end_chunk=bundle.end_chunk + offset), found)
        for bundle, found in begins
    ]
    fits = all(bundle.first_chunk <= chunk < bundle.end_chunk for bundle, found in moved for chunk in found)
    return [bundle for bundle, _ in moved] if fits else None
