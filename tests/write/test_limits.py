"""What no reader would take is refused before it is written, and what is refused leaves the store as it was."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from zarr.storage import MemoryStore

import norbert_store
from norbert_store import ReadyBins, verify
from norbert_store._format import arrays
from norbert_store._format.arrays import LONGEST_TEXT
from norbert_store._storage.storage import Storage
from norbert_store.errors import MagnitudeError, TrackError

AUDIO = {"mixture": np.zeros((300, 2))}
FEW_BYTES = 600_000


@pytest.fixture
def few_bytes(monkeypatch):
    """Blocks of the table have 100 rows, and may have some bytes only: for both, who reads and who writes."""
    monkeypatch.setattr("norbert_store._write.settings.ROWS", 100)
    for module in ("_format.arrays", "_write.limits", "_write.commit", "_read.snapshot"):
        monkeypatch.setattr(f"norbert_store.{module}.LARGEST_BLOCK_BYTES", FEW_BYTES)


@pytest.mark.parametrize("what", ["metadata", "genre", "tags", "source", "name", "split"])
def test_texts_that_would_make_a_block_too_large_are_refused(options, few_bytes, what):
    def row(i):
        text = f"{i}" + "x" * 60_000
        return {
            "metadata": {"metadata": {"x": text}},
            "genre": {"labels": {"genre": text}},
            "tags": {"labels": {"tags": ["a", text]}},
            "source": {"source": text},
            "split": {"split": text},
            "name": {},
        }[what], (text if what == "name" else f"{i}")

    store = MemoryStore()
    with norbert_store.create(store, **options()) as writer:
        for i in range(5):
            others, name = row(i)
            writer.add(name, AUDIO, **others)
    with norbert_store.append(store) as writer:
        for i in range(5, 9):
            others, name = row(i)
            writer.add(name, AUDIO, **others)
        others, name = row(9)
        with pytest.raises(TrackError, match=rf"the .*{what}.* of track .* has 60\d\d\d bytes, which is too much"):
            writer.add(name, AUDIO, **others)
        writer.add("short", AUDIO)
    db = norbert_store.open(store)
    assert len(db) == 10
    assert verify(store)
    assert db[9].name == "short"
    assert db[0].metadata == row(0)[0].get("metadata", {})


def test_the_limit_counts_for_each_block(options, few_bytes, monkeypatch):
    monkeypatch.setattr("norbert_store._write.settings.ROWS", 4)
    store = MemoryStore()
    with norbert_store.create(store, **options()) as writer:
        for i in range(12):
            writer.add(f"{i}", AUDIO, metadata={"x": "x" * 130_000})
    assert verify(store)
    assert [track.metadata["x"] for track in norbert_store.open(store)] == ["x" * 130_000] * 12


@pytest.mark.parametrize("values", [np.array(["a", "äö", ""], object), np.zeros(3), np.zeros((2, 3, 2, 4), np.uint32)])
def test_the_size_of_a_block_is_told_before_it_is_encoded(values):
    kind = {"O": "string", "f": "float64", "u": "uint32"}[values.dtype.kind]
    metadata = arrays.array_document([9, 3, 2, 4][: values.ndim], kind, "" if kind == "string" else 0, [""] * 4)
    block = arrays.encode_block(metadata, values)
    size = arrays._decoded_bytes(block[:-4])
    assert arrays.decoded_bytes(metadata, values) == size


def test_a_text_has_at_most_a_mebibyte(options):
    long = "x" * (LONGEST_TEXT + 1)
    with norbert_store.create(MemoryStore(), **options()) as writer:
        for others in (
            {"metadata": {"x": long}},
            {"labels": {"genre": long}},
            {"labels": {"genre": ["x" * 2**19, "y" * 2**19]}},
            {"labels": {long: 1}},
            {"split": long},
            {"source": long},
        ):
            with pytest.raises(TrackError, match=r"takes at most 1048576 bytes, found 10\d+"):
                writer.add("x", AUDIO, **others)
        with pytest.raises(TrackError, match="takes at most"):
            writer.add(long, AUDIO)


def nested(levels):
    """A mapping in a mapping, and so on."""
    value: dict = {}
    for _ in range(levels):
        value = {"x": value}
    return value


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        (nested(40), "can't be written so, since nobody could open it: its document isn't JSON that can be read"),
        (nested(5000), "can't be written so, since nobody could open it"),
        ({"x": float("nan")}, "can't be written so, since nobody could open it"),
        ({"x": object()}, "can't be written so, since nobody could open it"),
        ({"x": "x" * 2**26}, "at most 16777216"),
    ],
    ids=["deep", "deeper", "nan", "object", "long"],
)
def test_a_description_that_nobody_could_read_is_refused(parameters, message):
    store = MemoryStore()
    transform = ReadyBins("mine", 8000, 100, [10.0, 20.0, 30.0], parameters)
    with pytest.raises(ValueError, match=message):
        norbert_store.create(store, targets=["mixture"], transform=transform)
    assert Storage(store).is_empty()


@pytest.mark.parametrize(("hop", "samples"), [(2**60, None), (100, 2**53), (100, 2**62)])
def test_a_track_has_a_number_of_samples_that_every_reader_can_hold(hop, samples):
    store = MemoryStore()
    transform = ReadyBins("mine", 8000, hop, [10.0, 20.0, 30.0])
    with norbert_store.create(store, targets=["mixture"], channels=1, transform=transform) as writer:
        writer.add_magnitudes("a", {"mixture": np.zeros((1, 4, 3))}, samples=2**53 - 1)
        with pytest.raises(MagnitudeError, match=r"a track has fewer than 2\^53 samples, found \d+"):
            writer.add_magnitudes("b", {"mixture": np.zeros((1, 8, 3))}, samples=samples)
    assert [track.samples for track in norbert_store.open(store)] == [2**53 - 1]


def test_metadata_is_as_deep_as_readers_take_it(options):
    store = MemoryStore()
    with norbert_store.create(store, **options()) as writer:
        writer.add("a", AUDIO, metadata=nested(31))
        for levels in (32, 500, 5000):
            with pytest.raises(TrackError, match="at most 32 levels"):
                writer.add("b", AUDIO, metadata=nested(levels))
    assert norbert_store.open(store)[0].metadata == nested(31)
    assert verify(store)


@pytest.mark.parametrize(
    ("many", "told"),
    [
        ({"targets": list(map(str, range(600)))}, "a block of /track/source_bytes has 78643200 bytes"),
        ({"targets": ["a"], "channels": 2000}, "a block of /chunk/extent has 98304000 bytes"),
        ({"targets": ["a"], "channels": 6000}, "'channels' must be at most 4096 names"),
    ],
)
def test_too_many_targets_and_channels_for_a_block_are_refused(many, told):
    store = MemoryStore()
    with pytest.raises(ValueError, match=f"nobody could open it: .*{told}"):
        norbert_store.create(store, rate=8000, **many)
    assert Storage(store).is_empty()


def test_too_many_labels_for_one_document_are_refused(options, monkeypatch):
    for module in ("_format.document", "_write.commit"):
        monkeypatch.setattr(f"norbert_store.{module}.MOST_DOCUMENT_BYTES", 60_000)
    store = MemoryStore()
    with norbert_store.create(store, **options()) as writer:
        writer.add("a", AUDIO)
        writer.commit()
    writer = norbert_store.append(store)
    labels: dict[str, Any] = {f"label {i}": i for i in range(100)}
    writer.add("b", AUDIO, labels=labels)
    with pytest.raises(ValueError, match="nobody could open it"):
        writer.close()
    assert norbert_store.open(store).names == ["a"]
