"""A reader that follows docs/format.md alone, without this library, reads what the golden store holds."""

from __future__ import annotations

import base64
import io
import itertools
import json
import math
import struct
from pathlib import Path

import google_crc32c
import numpy as np
import pytest
from numcodecs.zstd import Zstd
from PIL import Image

STORE = Path(__file__).parents[1] / "data/stores/1.0.zarr"
DTYPES = {"int64": "<i8", "float64": "<f8", "bool": "|b1", "int8": "|i1", "uint32": "<u4", "int16": "<i2"}


def without_checksum(data):
    assert struct.unpack("<I", data[-4:]) == (google_crc32c.value(data[:-4]),)
    return data[:-4]


def texts_of(data):
    """What vlen-utf8 holds: a number of texts, and each with its length before it."""
    (count,), at = struct.unpack_from("<I", data), 4
    for _ in range(count):
        (length,) = struct.unpack_from("<I", data, at)
        yield data[at + 4 : at + 4 + length].decode()
        at += 4 + length


class PlainReader:
    def __init__(self, store):
        self.store = store
        attributes = json.loads((store / "zarr.json").read_bytes())["attributes"]
        text = attributes["norbert_store"]
        assert attributes["norbert_store_crc32c"] == f"{google_crc32c.value(text.encode()):08x}"
        self.document = json.loads(text)
        self.layout = self.document["layout"]
        assert self.document["version"].split(".")[0] == "1"
        assert self.document["features"]["read"] == self.document["pending"] == []

    def array(self, path, data_type, shape, block):
        """Read a small array, and compare the checksums of its blocks."""
        counts = [-(-size // length) for size, length in zip(shape, block, strict=True)]
        sums = np.frombuffer(base64.b64decode(self.document["sums"][path]), "<u4")
        assert len(sums) == math.prod(counts)
        out = np.zeros(shape, object if data_type == "string" else DTYPES[data_type])
        for expected, position in zip(sums, itertools.product(*map(range, counts)), strict=True):
            data = without_checksum((self.store / path / "c" / "/".join(map(str, position))).read_bytes())
            data = Zstd().decode(data)
            values = [*texts_of(data)] if data_type == "string" else np.frombuffer(data, DTYPES[data_type])
            place = tuple(
                slice(i * length, min((i + 1) * length, size))
                for i, length, size in zip(position, block, shape, strict=True)
            )
            valid = np.array(values, out.dtype).reshape(block)[tuple(slice(0, s.stop - s.start) for s in place)]
            out[place] = valid
            body = valid.tobytes()
            if data_type == "string":
                body = b"".join(struct.pack("<I", len(each.encode())) + each.encode() for each in valid)
            head = (
                bytes.fromhex(self.document["id"]) + path.encode() + b"\0" + struct.pack(f"<{len(block)}I", *position)
            )
            assert google_crc32c.value(head + body) == expected
        return out

    def column(self, path, data_type, *of_each):
        return self.array(path, data_type, (self.document["tracks"], *of_each), (self.layout["rows"], *of_each))

    def chunk(self, extents, target, channel, position):
        """Decode a chunk: its levels, and its scale; None where there is none."""
        offset, length, checksum = extents[target, :, channel, position].tolist()
        if length == 0:
            return None
        shard = position // self.layout["shard_chunks"]
        data = (self.store / f"magnitude/c/{target}/0/{shard}/0").read_bytes()[offset : offset + length]
        assert struct.unpack("<I", data[-4:]) == (checksum,)
        image = Image.open(io.BytesIO(without_checksum(data)))
        segments = image.applist  # type: ignore[attr-defined]
        ((_, segment),) = [(name, content) for name, content in segments if name == "APP9"]
        assert segment[:8] == b"norbert\0"
        (scale,) = struct.unpack_from(">h", segment, 9)
        return np.asarray(image), scale

    def magnitude(self):
        """All chunks, along the packed axis."""
        document, frames = self.document, self.layout["chunk_frames"]
        targets, channels, chunks = len(document["targets"]), len(document["channels"]), document["chunks"]
        shape = targets, 3, channels, chunks
        extents = self.array("chunk/extent", "uint32", shape, (1, 3, channels, self.layout["positions"]))
        curve = document["curve"]
        assert curve["curve"] == "power"
        table = (np.arange(256) / 255) ** (1 / curve["exponent"])
        out = np.full((targets, channels, chunks * frames, self.layout["bins"]), np.nan, np.float32)
        for target, channel, position in itertools.product(range(targets), range(channels), range(chunks)):
            chunk = self.chunk(extents, target, channel, position)
            if chunk is not None:
                levels, scale = chunk
                out[target, channel, position * frames :][: len(levels)] = 2.0**scale * table[levels]
        return out


@pytest.fixture(scope="module")
def reader():
    return PlainReader(STORE)


@pytest.fixture(scope="module")
def expected():
    with np.load(STORE.with_suffix(".npz")) as file:
        return {**file, "tracks": json.loads(file["tracks"].item())}


def test_magnitudes(reader, expected):
    np.testing.assert_allclose(reader.magnitude(), expected["magnitude"], rtol=1e-6)
    assert np.array_equal(reader.array("frequency", "float64", (25,), (25,)), expected["frequency"])
    for axis in ("target", "channel"):
        assert reader.array(axis, "string", (2,), (2,)).tolist() == reader.document[f"{axis}s"]


def test_tracks(reader, expected):
    for name in ("name", "split", "source"):
        assert reader.column(f"track/{name}", "string").tolist() == [row[name] for row in expected["tracks"]]
    for name in ("start", "frames", "samples"):
        assert reader.column(f"track/{name}", "int64").tolist() == [row[name] for row in expected["tracks"]]
    present = reader.column("track/present", "bool", 2)
    assert present.tolist() == [list(row["present"].values()) for row in expected["tracks"]]
    scales = reader.column("track/scale", "int16", 2)
    for row, scale, there in zip(expected["tracks"], scales.tolist(), present.tolist(), strict=True):
        assert scale == [row["scales"].get(target, 0) for target in reader.document["targets"]]
        assert list(row["scales"]) == [
            target for target, is_there in zip(reader.document["targets"], there, strict=True) if is_there
        ]
    metadata = reader.column("track/metadata", "string")
    assert [json.loads(text) for text in metadata] == [row["metadata"] for row in expected["tracks"]]


LABELS = {
    "string": ("string", lambda value: value or None),
    "strings": ("string", lambda value: json.loads(value) if value else None),
    "int64": ("int64", lambda value: None if value == -(2**63) else int(value)),
    "float64": ("float64", lambda value: None if math.isnan(value) else float(value)),
    "bool": ("int8", lambda value: None if value == -1 else bool(value)),
}


def test_labels(reader, expected):
    assert {label["type"] for label in reader.document["labels"]} == set(LABELS)
    for label in reader.document["labels"]:
        data_type, value_of = LABELS[label["type"]]
        found = [value_of(value) for value in reader.column(f"label/{label['key']}", data_type)]
        assert found == [row["labels"][label["name"]] for row in expected["tracks"]]
