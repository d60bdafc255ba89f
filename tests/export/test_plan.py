"""Where tracks will lie: whole bundles side by side, and the same plan again after an interruption."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from norbert_store._export.plan import PlannedTrack, plan_bundles, plan_rest
from norbert_store._format.layout import Layout
from norbert_store._sources.source import Source
from norbert_store._sources.track import SourceTrack
from norbert_store._spectra.levels import PowerCurve


def track_of(i):
    return SourceTrack(str(i), "", Source(Path()))


def planned(chunks):
    """Tracks "0", "1", ... that take so many chunks."""
    return [PlannedTrack(track_of(i), count) for i, count in enumerate(chunks)]


def layout_of(shard_chunks):
    return Layout(bins=8, chunk_frames=8, shard_chunks=shard_chunks, curve=PowerCurve())


def names(bundles):
    return [track.name for bundle in bundles for track in bundle.tracks]


def names_of(tracks):
    return [track.name for track in tracks]


def carried_out(tracks, bundles, broken=()):
    """Carry bundles out: where each track begins that isn't broken, and where the last one ends."""
    chunks = {track.name: track.chunks for track in tracks}
    starts, end_chunk = {}, 0
    for bundle in bundles:
        chunk = bundle.first_chunk
        for track in bundle.tracks:
            if track.name not in broken:
                starts[track.name] = chunk
                chunk += chunks[track.name]
                end_chunk = chunk
    return starts, end_chunk


def assert_side_by_side(tracks, bundles, layout, first_chunk=0):
    """Whole shards for each bundle, one bundle after the other, with room enough for its tracks."""
    chunks = {track.name: track.chunks for track in tracks}
    for bundle in bundles:
        assert bundle.first_chunk >= first_chunk
        assert bundle.first_chunk % layout.shard_chunks == bundle.end_chunk % layout.shard_chunks == 0
        assert bundle.end_chunk - bundle.first_chunk >= sum(chunks[track.name] for track in bundle.tracks) > 0
        first_chunk = bundle.end_chunk


CHUNKS = st.lists(st.integers(1, 20), min_size=1, max_size=12)
BUNDLE_TRACKS = st.integers(1, 5)
SHARD_CHUNKS = st.integers(1, 7)


@given(CHUNKS, BUNDLE_TRACKS, SHARD_CHUNKS, st.integers(0, 5))
def test_bundles_take_whole_shards_side_by_side_and_hold_all_tracks_in_order(
    chunks, bundle_tracks, shard_chunks, first_shard
):
    tracks, layout = planned(chunks), layout_of(shard_chunks)
    bundles = plan_bundles(tracks, bundle_tracks, layout, first_shard * shard_chunks)
    assert names(bundles) == names_of(tracks)
    assert_side_by_side(tracks, bundles, layout, first_shard * shard_chunks)
    assert all(len(bundle.tracks) <= bundle_tracks for bundle in bundles)
    # and not a shard more than needed
    assert bundles[0].first_chunk == first_shard * shard_chunks
    for bundle, following in pairwise(bundles):
        assert bundle.end_chunk == following.first_chunk
    _, end_chunk = carried_out(tracks, bundles)
    assert bundles[-1].end_chunk == layout.whole_shards(end_chunk)


@given(CHUNKS, BUNDLE_TRACKS, SHARD_CHUNKS, st.data())
def test_what_is_left_after_any_bundle_is_the_rest_of_the_plan(chunks, bundle_tracks, shard_chunks, data):
    tracks, layout = planned(chunks), layout_of(shard_chunks)
    whole = plan_bundles(tracks, bundle_tracks, layout)
    done = data.draw(st.integers(0, len(whole)))
    committed, end_chunk = carried_out(tracks, whole[:done])
    assert plan_rest(tracks, bundle_tracks, layout, committed, end_chunk) == whole[done:]


@given(CHUNKS, BUNDLE_TRACKS, SHARD_CHUNKS, st.data())
def test_broken_tracks_leave_their_place_empty_and_are_tried_again_in_the_end(
    chunks, bundle_tracks, shard_chunks, data
):
    tracks, layout = planned(chunks), layout_of(shard_chunks)
    whole = plan_bundles(tracks, bundle_tracks, layout)
    done = data.draw(st.integers(0, len(whole)))
    broken = data.draw(st.sets(st.sampled_from(names_of(tracks))))
    committed, end_chunk = carried_out(tracks, whole[:done], broken)
    rest = plan_rest(tracks, bundle_tracks, layout, committed, end_chunk)
    # bundles of nothing but broken tracks, behind the last one that is committed, are done again where they were
    again = next((i for i, bundle in enumerate(whole) if bundle.first_chunk >= layout.whole_shards(end_chunk)), done)
    assert rest[: len(whole) - again] == whole[again:]
    assert sorted([*committed, *names(rest)], key=int) == names_of(tracks)
    assert_side_by_side(tracks, rest, layout, layout.whole_shards(end_chunk))


@st.composite
def resumed(draw):
    """A store of whole bundles, some tracks of which may be broken, and a list that has changed since.

    Returns tracks of the list, tracks in a bundle, layout, what is committed of the list, and where it ends.
    """
    old, layout, bundle_tracks = planned(draw(CHUNKS)), layout_of(draw(SHARD_CHUNKS)), draw(BUNDLE_TRACKS)
    whole = plan_bundles(old, bundle_tracks, layout)
    done = draw(st.one_of(st.just(len(whole)), st.integers(0, len(whole))))
    broken = draw(st.one_of(st.just(set()), st.sets(st.sampled_from(names_of(old)))))
    committed, end_chunk = carried_out(old, whole[:done], broken)
    tracks = draw(st.one_of(st.just(old), st.permutations(old), st.lists(st.sampled_from(old), unique_by=id)))
    tracks = list(tracks)
    for i, chunks in enumerate(draw(st.lists(st.integers(1, 20), max_size=8)), len(old)):
        tracks.insert(draw(st.integers(0, len(tracks))), PlannedTrack(track_of(i), chunks))
    there = {name: chunk for name, chunk in committed.items() if name in names_of(tracks)}
    return tracks, draw(st.one_of(st.just(bundle_tracks), BUNDLE_TRACKS)), layout, there, end_chunk


@given(resumed())
@settings(max_examples=500)
def test_whatever_new_tracks_come_in_each_is_planned_once_behind_the_end(case):
    tracks, _, layout, committed, end_chunk = case
    rest = plan_rest(*case)
    assert_side_by_side(tracks, rest, layout, layout.whole_shards(end_chunk))
    missing = [name for name in names_of(tracks) if name not in committed]
    assert sorted(names(rest)) == sorted(missing)
    # those at the end of the list may keep the places that they had; those that come in before follow, in their order
    ends = (names_of(tracks[first:]) for first in range(len(tracks) + 1))
    orders = [[*end, *(name for name in missing if name not in end)] for end in ends if not committed.keys() & {*end}]
    assert names(rest) in orders


@given(resumed(), st.data())
@settings(max_examples=500)
def test_a_resume_that_was_interrupted_goes_on_with_the_same_plan(case, data):
    tracks, bundle_tracks, layout, committed, end_chunk = case
    rest = plan_rest(*case)
    done = data.draw(st.integers(0, len(rest)))
    more, end = carried_out(tracks, rest[:done])
    again = plan_rest(tracks, bundle_tracks, layout, {**committed, **more}, max(end, end_chunk))
    assert again == rest[done:]


@given(CHUNKS, CHUNKS, BUNDLE_TRACKS, SHARD_CHUNKS)
def test_new_tracks_at_the_end_of_the_list_lie_where_an_export_of_all_puts_them(
    chunks, more, bundle_tracks, shard_chunks
):
    chunks = chunks[: max(1, len(chunks) // bundle_tracks) * bundle_tracks]
    bundle_tracks = min(bundle_tracks, len(chunks))  # the last bundle is full
    tracks, layout = planned(chunks + more), layout_of(shard_chunks)
    whole = plan_bundles(tracks, bundle_tracks, layout)
    done = len(chunks) // bundle_tracks
    committed, end_chunk = carried_out(tracks, whole[:done])
    assert plan_rest(tracks, bundle_tracks, layout, committed, end_chunk) == whole[done:]


@given(CHUNKS, BUNDLE_TRACKS, SHARD_CHUNKS, st.data())
@settings(max_examples=500)
def test_whatever_is_committed_nothing_is_planned_twice_or_over_it(chunks, bundle_tracks, shard_chunks, data):
    tracks, layout = planned(chunks), layout_of(shard_chunks)
    committed, end_chunk = {}, 0
    for track in data.draw(st.lists(st.sampled_from(tracks), unique_by=lambda track: track.name)):
        committed[track.name] = end_chunk + data.draw(st.integers(0, 10))
        end_chunk = committed[track.name] + track.chunks
    rest = plan_rest(tracks, bundle_tracks, layout, committed, end_chunk)
    assert sorted([*committed, *names(rest)], key=int) == names_of(tracks)
    assert_side_by_side(tracks, rest, layout, layout.whole_shards(end_chunk))


def test_nothing_is_left_when_all_is_done():
    assert plan_rest([], 3, layout_of(4), {}, 0) == []
    assert plan_rest(planned([5]), 3, layout_of(4), {"0": 8}, 13) == []
