"""One number for what tracks hold: the same however they were written, another one for all that reads otherwise."""

from __future__ import annotations

import shutil
import zipfile
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import soundfile
from zarr.storage import MemoryStore

import norbert_store

RATE = 8000
LABELS: dict[str, Any] = {"genre": "Rock", "tags": ["a", "b"], "year": 1999}


@pytest.fixture
def write(options, music):
    """Write two tracks somewhere, one of them without vocals; some things may be others."""

    def write(location, second="two", labels=LABELS, split="train", seed=1, metadata=None, source="", **others):
        with norbert_store.create(location, **options(**others)) as writer:
            writer.add("one", music(3000, 0), split=split, labels=labels, metadata=metadata, source=source)
            stems = music(4000, seed)
            writer.add(second, {target: stems[target] for target in ("mixture", "drums")})
        return norbert_store.open(location)

    return write


def test_it_tells_what_a_store_holds_and_not_how_it_came_there(write, tmp_path):
    digest = write(MemoryStore()).digest()
    assert len(digest) == 64
    for location, others in (
        (tmp_path / "x.zarr", {}),
        (MemoryStore(), {"metadata": {"anything": 1}, "source": "elsewhere/1.wav"}),
        (MemoryStore(), {"bundle_tracks": 2, "shard_chunks": 8, "title": "Of the same tracks"}),
        (MemoryStore(), {"labels": {**LABELS, "unknown": None}}),
    ):
        assert write(location, **others).digest() == digest
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as file:
        for path in sorted((tmp_path / "x.zarr").rglob("*")):
            file.write(path, path.relative_to(tmp_path / "x.zarr"))
    assert norbert_store.open(tmp_path / "x.zip").digest() == digest
    assert norbert_store.open(shutil.copytree(tmp_path / "x.zarr", tmp_path / "y.zarr")).digest() == digest


@pytest.mark.parametrize(
    "others",
    [
        {"second": "three"},
        {"split": "test"},
        {"seed": 2},
        {"labels": {**LABELS, "genre": "Pop"}},
        {"labels": {**LABELS, "tags": ["b", "a"]}},
        {"labels": {"genre": "Rock"}},
        {"quality": 60},
        {"bandwidth": 3000},
        {"channels": ("a", "b")},
        {"targets": ("mixture", "drums", "vocals")},
    ],
    ids=str,
)
def test_it_is_another_for_anything_that_reads_otherwise(write, others):
    assert write(MemoryStore(), **others).digest() != write(MemoryStore()).digest()


def test_selections_are_like_stores_of_their_tracks(write, options, music):
    db = write(MemoryStore())
    with norbert_store.create(place := MemoryStore(), **options()) as writer:
        writer.add("one", music(3000, 0), split="train", labels=LABELS)
    assert db.select(["one"]).digest() == norbert_store.open(place).digest()
    assert db[::-1].digest() != db.digest() == db[:].digest()


def test_appended_tracks_are_like_tracks_written_at_once(write, options, music):
    with norbert_store.create(place := MemoryStore(), **options()) as writer:
        writer.add("one", music(3000, 0), split="train", labels=LABELS)
    with norbert_store.append(place) as writer:
        stems = music(4000, 1)
        writer.add("two", {target: stems[target] for target in ("mixture", "drums")})
    assert norbert_store.open(place).digest() == write(MemoryStore()).digest()


def test_exports_are_the_same_with_any_workers_and_when_resumed(tmp_path, music):
    for i in range(3):
        (tmp_path / "train" / f"{i} - x").mkdir(parents=True)
        soundfile.write(tmp_path / "train" / f"{i} - x" / "mixture.wav", music(3000, i)["mixture"], RATE)
    whole = norbert_store.export_musdb(tmp_path, tmp_path / "a.zarr", effort=0).open()
    with ThreadPoolExecutor(2) as pool:
        assert norbert_store.export_musdb(tmp_path, tmp_path / "b.zarr", effort=0, workers=pool).open().digest() == (
            whole.digest()
        )
    (tmp_path / "train" / "2 - x").rename(tmp_path / "2 - x")
    norbert_store.export_musdb(tmp_path, tmp_path / "c.zarr", effort=0)
    (tmp_path / "2 - x").rename(tmp_path / "train" / "2 - x")
    resumed = norbert_store.export_musdb(tmp_path, tmp_path / "c.zarr", effort=0, resume=True).open()
    assert resumed.digest() == whole.digest()


def test_a_byte_of_a_chunk_that_differs_is_told_if_all_are_read(write, tmp_path):
    db = write(tmp_path / "x.zarr")
    strong = db.digest(strong=True)
    assert strong != db.digest()
    assert write(MemoryStore()).digest(strong=True) == strong
    shard = tmp_path / "x.zarr/magnitude/c/0/0/0/0"
    data = bytearray(shard.read_bytes())
    data[100] ^= 1
    shard.write_bytes(data)
    assert db.digest() == norbert_store.open(tmp_path / "x.zarr").digest()
    with pytest.raises(norbert_store.errors.DamagedError):
        db.digest(strong=True)


def test_verify_tells_it_of_a_store_that_is_whole(write, tmp_path):
    db = write(tmp_path / "x.zarr")
    assert norbert_store.verify(tmp_path / "x.zarr").digest == db.digest()
    np.array(0).tofile(tmp_path / "x.zarr/track/name/c/0")
    assert norbert_store.verify(tmp_path / "x.zarr").digest == ""


def test_any_label_and_any_bit_of_a_jpeg_that_differ_give_another(write):
    """What is stored differs by one value; nobody has damaged it."""
    digests = {write(MemoryStore()).digest()}
    many = [
        {**LABELS, "genre": "Rocк"},
        {**LABELS, "year": 1998},
        {**LABELS, "year": 1999.0},
        {**LABELS, "live": True},
        {**LABELS, "live": False},
        {**LABELS, "tags": ["a", "b", ""]},
        {**LABELS, "tags": ["ab"]},
        {**LABELS, "Genre": "Rock"},
        {name: value for name, value in LABELS.items() if name != "year"},
    ]
    digests |= {write(MemoryStore(), labels=labels).digest() for labels in many}
    digests |= {write(MemoryStore(), **{what: value}).digest() for what, value in (("split", ""), ("second", "Two"))}
    assert len(digests) == 12


def test_every_byte_of_every_jpeg_counts(write):
    """One level that differs by one is another JPEG, and another digest."""
    levels = np.random.default_rng(0).integers(1, 255, (2, 40, 113)).astype(np.uint8)
    digests = set()
    for at in (None, (0, 0, 0), (1, 39, 112), (0, 17, 60)):
        other = levels.copy()
        if at is not None:
            other[at] ^= 128
        transform = norbert_store.ReadyBins("mine", RATE, 128, np.arange(113) * 30.0)
        with norbert_store.create(
            place := MemoryStore(), targets=["mixture"], transform=transform, chunk_frames=16, effort=0, quality=95
        ) as writer:
            writer.add_magnitudes("x", {"mixture": (other / 255) ** (1 / 0.3)})
        digests.add(norbert_store.open(place).digest())
    assert len(digests) == 4
