"""What writers do to small stores: states to begin with, ways to go on from there, and what may be read afterwards."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import soundfile
from zarr.storage import MemoryStore

import norbert_store
from norbert_store._check.repair import repair
from norbert_store._export.run import export_folder
from norbert_store._format.layout import Layout
from norbert_store._storage.lock import LOCK_KEY
from norbert_store._storage.storage import Storage
from norbert_store._write import settings

RATE = 8000
NAMES = ("a", "b", "c", "d")
LENGTHS = {"a": 700, "b": 1500, "c": 400, "d": 1200, "x": 900, "y": 1300}

EXTENTS = "chunk/extent/c/0/0/0/0"

State = dict[str, bytes]
"""All files of a store, by key."""


class World(NamedTuple):
    """A folder of audio files, states of stores that were made of them, and what may be read.

    Attributes
    ----------
    folder : Path
        Below it "audio"; "louder", which gives other bytes; and "edited", where "b" is another recording.
    states : dict
        "nothing"; "whole"; "damaged", one of whose shards can't be read, and with it the track "b"; "without extents";
        "dropped", out of which "b" was taken, and "d" is damaged; "begun", whose export was cut off behind two more
        shards.
    magnitudes : dict
        What each track may hold, by name.
    digest : str
        Of the whole store.
    """

    folder: Path
    states: dict[str, State]
    magnitudes: dict[str, list[bytes]]
    digest: str


class Way(NamedTuple):
    """What a writer does.

    Attributes
    ----------
    state : str
        With which it begins.
    act : callable
        Of a World and a place.
    adds, takes : str
        Names of the tracks that are there, or gone, once it is done; both are tracks that are taken anew.
    """

    state: str
    act: Callable[[World, Any], Any]
    adds: str = ""
    takes: str = ""


def audio(name: str) -> np.ndarray:
    """A track, as 16-bit files hold it."""
    noise = np.random.default_rng(ord(name)).uniform(-0.5, 0.5, (LENGTHS[name], 1))
    return np.rint(noise * 32768) / 32768


def files(place: Any) -> State:
    """Read all files of a store, but for its lock."""
    storage = Storage(place)
    return {key: storage.get(key) or b"" for key in storage.list() if key != LOCK_KEY}


def put(place: Any, state: State) -> Any:
    """Write files, and return the place."""
    storage = Storage(place, read_only=False)
    for key, data in state.items():
        storage.set(key, data)
    return place


def export(world: World | Path, place: Any, **options: Any) -> None:
    """Export a folder of files; a track is a bundle."""
    folder = world.folder / "audio" if isinstance(world, World) else world
    transform = norbert_store.TF(rate=RATE, n_fft=64)
    options = {"workers": 1, "bundle_tracks": 1, "chunk_frames": 8, "shard_chunks": 4, "effort": 0, **options}
    export_folder(folder, place, transform=transform, **options)


def update(world: World, place: Any) -> None:
    """Take anew what was edited; it comes to the end."""
    export(world.folder / "edited", place, update=True)


def append(world: World, place: Any, name: str, **labels: Any) -> None:
    """Add a track."""
    with norbert_store.append(place) as writer:
        writer.add(name, {"mixture": audio(name)}, source=f"nowhere/{name}.wav", labels=labels)


def mend(world: World, place: Any, audio_root: str, drop: bool = False) -> None:
    """Repair a store from files of some folder."""
    repair(place, audio_root=world.folder / audio_root, drop=drop)


def magnitudes_of(place: Any) -> dict[str, bytes]:
    """Magnitudes of all tracks, by name."""
    return {track.name: track.magnitude.values.tobytes() for track in norbert_store.open(place)}


@contextmanager
def short_blocks() -> Iterator[None]:
    """Have stores that are made have short blocks, so that a few tracks fill some of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(settings, "ROWS", 2)
        patch.setattr(settings, "Layout", partial(Layout, positions=8))
        yield


@contextmanager
def make_world(folder: Path) -> Iterator[World]:
    """Make files and states; until the end, blocks are short."""
    with short_blocks():
        yield _world(folder)


def _world(folder: Path) -> World:
    for way, gain in (("audio", 1.0), ("louder", 1.001)):
        (folder / way).mkdir()
        for name in NAMES:
            file = folder / way / f"{name}.wav"
            soundfile.write(file, gain * audio(name), RATE, "FLOAT")
            os.utime(
                file, ns=(0, 10**18)
            )  # the louder one passes for the noted one, as if another encoder made the bytes
    shutil.copytree(folder / "audio", folder / "edited")
    soundfile.write(folder / "edited" / "b.wav", audio("b")[::-1], RATE, "FLOAT")
    shutil.copytree(folder / "audio", folder / "part", ignore=lambda *_: ["c.wav", "d.wav"])
    world = World(folder, {"nothing": {}}, {}, "")
    whole, part, without_b = MemoryStore(), MemoryStore(), MemoryStore()
    export(world, whole)
    digest = norbert_store.open(whole).digest()
    world.states["whole"] = state = files(whole)
    export(folder / "part", part)
    world.states["begun"] = begun(state, files(part))
    world.states["damaged"] = damaged(state, 1)
    world.states["without extents"] = {key: data for key, data in state.items() if key != EXTENTS}
    mend(world, put(without_b, world.states["damaged"]), "nowhere", drop=True)
    world.states["dropped"] = damaged(files(without_b), 4)
    edited = put(MemoryStore(), state)
    update(world, edited)
    for name in "xy":
        append(world, whole, name)
    world.magnitudes.update({name: [found] for name, found in magnitudes_of(whole).items()})
    world.magnitudes["b"].append(magnitudes_of(edited)["b"])
    for lost in range(6):
        place = put(MemoryStore(), damaged(state, lost))
        mend(world, place, "louder")
        for name, found in magnitudes_of(place).items():
            world.magnitudes[name].append(found)
    return world._replace(digest=digest)


def damaged(state: State, shard: int) -> State:
    return {**state, f"magnitude/c/0/0/{shard}/0": b"damaged"}


def begun(whole: State, part: State) -> State:
    """What an export leaves that is cut off when two more shards were written."""
    left_behind = [key for key in sorted(whole) if key.startswith("magnitude/c/") and key not in part]
    return {**part, **{key: whole[key] for key in left_behind[:2]}}


WAYS = {
    "append": Way("whole", partial(append, name="x"), adds="x"),
    "append with a label": Way("whole", partial(append, name="x", mood="calm"), adds="x"),
    "repair": Way("damaged", partial(mend, audio_root="audio")),
    "repair with other bytes": Way("damaged", partial(mend, audio_root="louder")),
    "drop": Way("damaged", partial(mend, audio_root="nowhere", drop=True), takes="b"),
    "update": Way("whole", update, adds="b", takes="b"),
    "resume": Way("begun", partial(export, resume=True), adds="cd"),
}
