from __future__ import annotations

import copy
import json
from dataclasses import replace

import pytest

from norbert_store._format.document import Document
from norbert_store._format.layout import Layout
from norbert_store._format.table import label_column
from norbert_store._spectra.levels import LogCurve, PowerCurve
from norbert_store._version import __version__
from norbert_store.errors import FormatError

DOCUMENT = Document(
    targets=("mixture", "vocals"),
    channels=("left", "right"),
    transform={"name": "stft", "rate": 8000, "n_fft": 256},
    layout=Layout(bins=129, chunk_frames=16, shard_chunks=4, curve=PowerCurve(exponent=0.5)),
    tracks=3,
    frames=320,
    labels=(label_column("genre", ""), label_column("year", 1), label_column("live", True)),
    encoder={"quality": 80.0},
    about={"title": "Títle", "license": "CC0"},
    unknown={"mood": ["blue", {"x": None}]},
)


def parsed(document=DOCUMENT):
    return json.loads(document.to_json())


def read(tree):
    return Document.from_json(json.dumps(tree).encode(), "some.zarr")


@pytest.mark.parametrize(
    "document",
    [
        DOCUMENT,
        replace(DOCUMENT, tracks=0, frames=0, labels=(), about={}, unknown={}, encoder={}),
        replace(DOCUMENT, layout=replace(DOCUMENT.layout, curve=LogCurve(reference=20, range_decibel=90))),
        replace(DOCUMENT, layout=Layout(129, 16, 4, PowerCurve(), codecs=({"name": "bytes"}, {"name": "zstd"}))),
        replace(DOCUMENT, encoder={"effort": 3}, version="1.7"),
    ],
)
def test_what_is_written_is_read_again(document):
    assert Document.from_json(document.to_json(), "some.zarr") == document


def test_float_labels_come_back():
    document = replace(DOCUMENT, labels=(label_column("tempo", 1.0),))
    (column,) = Document.from_json(document.to_json(), "some.zarr").labels
    assert (column.name, column.data_type, column.optional) == ("tempo", "float64", True)


def test_attributes_are_all_there_and_written_with_this_version():
    attributes = parsed()["attributes"]["norbert_store"]
    assert attributes == {
        "checksum": DOCUMENT.checksum,
        "version": "1.0",
        "tracks": 3,
        "frames": 320,
        "targets": ["mixture", "vocals"],
        "channels": ["left", "right"],
        "transform": {"name": "stft", "rate": 8000, "n_fft": 256},
        "encoder": {"quality": 80.0},
        "created_with": f"norbert_store {__version__}",
        "title": "Títle",
        "license": "CC0",
        "mood": ["blue", {"x": None}],
    }


def test_arrays_are_those_of_the_format():
    nodes = parsed()["consolidated_metadata"]["metadata"]
    magnitude = nodes["magnitude"]
    assert magnitude["shape"] == [2, 2, 320, 129]
    assert magnitude["dimension_names"] == ["target", "channel", "frame", "frequency"]
    assert magnitude["fill_value"] == "NaN"
    assert magnitude["chunk_grid"]["configuration"]["chunk_shape"] == [1, 2, 64, 129]
    (sharding,) = magnitude["codecs"]
    assert sharding["configuration"]["chunk_shape"] == [1, 1, 16, 129]
    names = [codec["name"] for codec in sharding["configuration"]["codecs"]]
    assert names == ["norbert_store.quantize", "norbert_store.jpeg", "crc32c"]
    assert nodes["track/present"]["shape"] == [3, 2]
    assert {path: node["data_type"] for path, node in nodes.items() if path.startswith("track/")} == {
        "track/name": "string",
        "track/split": "string",
        "track/source": "string",
        "track/start": "int64",
        "track/frames": "int64",
        "track/samples": "int64",
        "track/present": "bool",
        "track/metadata": "string",
        "track/genre": "string",
        "track/year": "int64",
        "track/live": "bool",
    }


def test_document_is_json_that_every_parser_takes():
    document = replace(DOCUMENT, labels=(label_column("tempo", 1.0),))
    json.loads(document.to_json(), parse_constant=pytest.fail)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"null",
        b"[]",
        b"5",
        b"{}",
        b'{"attributes": {}}',
        b'{"attributes": {"norbert_store": {}}}',
        b'{"attributes": {"norbert_store": null}}',
        b'{"attributes": {"norbert_store": {"version": "one"}}}',
        b'{"attributes": {"norbert_store": {"version": null}}}',
    ],
)
def test_what_is_no_store_is_refused(data):
    with pytest.raises(FormatError, match=r"some\.zarr is no norbert_store.*xarray\.open_zarr"):
        Document.from_json(data, "some.zarr")


@pytest.mark.parametrize("version", ["2.0", "10.3", "2"])
def test_newer_major_version_is_refused_whatever_else_it_holds(version):
    tree = {"attributes": {"norbert_store": {"version": version, "new": True}}}
    with pytest.raises(FormatError, match=rf"some\.zarr is written in format {version}.*upgrade norbert_store"):
        read(tree)


def broken(where, value):
    """A document with another value at a place; without it, if the value is `...`."""
    tree = copy.deepcopy(parsed())
    *parents, key = where
    node = tree
    for parent in parents:
        node = node[parent]
    if value is ...:
        del node[key]
    else:
        node[key] = value
    return tree


ATTRIBUTES = ("attributes", "norbert_store")
NODES = ("consolidated_metadata", "metadata")
MAGNITUDE = (*NODES, "magnitude")
SHARDING = (*MAGNITUDE, "codecs", 0)
INNER = (*SHARDING, "configuration")


@pytest.mark.parametrize(
    ("where", "value", "fault"),
    [
        *[((*ATTRIBUTES, key), ..., f"attribute '{key}' is missing") for key in ("tracks", "frames", "targets")],
        *[((*ATTRIBUTES, key), ..., f"attribute '{key}' is missing") for key in ("channels", "transform")],
        *[((*ATTRIBUTES, "tracks"), value, "'tracks' must be a whole number") for value in (-1, 1.5, "3", None, True)],
        ((*ATTRIBUTES, "frames"), "320", "'frames' must be a whole number"),
        *[((*ATTRIBUTES, "targets"), value, "'targets' must be a list of names") for value in ([], "ab", [1], [""])],
        ((*ATTRIBUTES, "channels"), {"left": 0}, "'channels' must be a list of names"),
        ((*ATTRIBUTES, "targets"), ["a", "a"], "'targets' names something twice"),
        *[((*ATTRIBUTES, "transform"), value, "'transform' must be an object") for value in ("stft", {}, {"name": 5})],
        ((*ATTRIBUTES, "encoder"), 80, "'encoder' must be an object"),
        ((*ATTRIBUTES, "tracks"), 4, r"/track/name has shape \[3\]; the attributes say \[4\]"),
        ((*ATTRIBUTES, "frames"), 304, r"/magnitude has shape \[2, 2, 320, 129\]; the attributes say \[2, 2, 304,"),
        ((*ATTRIBUTES, "targets"), ["a"], r"/magnitude has shape \[2, 2, 320, 129\]; the attributes say \[1, 2, 320,"),
        (("consolidated_metadata",), ..., "no inline consolidated metadata"),
        (("consolidated_metadata",), None, "no inline consolidated metadata"),
        (NODES, ["magnitude"], "no inline consolidated metadata"),
        *[((*NODES, path), ..., f"the array /{path} is missing") for path in ("magnitude", "target", "channel")],
        *[((*NODES, path), ..., f"the array /{path} is missing") for path in ("frequency", "track/name")],
        *[((*NODES, path), None, f"the array /{path} is missing") for path in ("magnitude", "track/start")],
        ((*NODES, "frequency", "shape"), [128], r"/frequency has shape \[128\]; the attributes say \[129\]"),
        ((*NODES, "track/present", "shape"), [3], r"/track/present has shape \[3\]; the attributes say \[3, 2\]"),
        ((*NODES, "track/year", "shape"), ..., "/track/year has shape None"),
        ((*NODES, "track/year", "data_type"), "int8", "the column /track/year has data type 'int8'"),
        ((*NODES, "track/year", "data_type"), {"name": "x"}, "the column /track/year has data type"),
        ((*MAGNITUDE, "shape"), ..., "the metadata of /magnitude can't be read.*shape"),
        *[((*MAGNITUDE, "shape"), value, "/magnitude can't be read") for value in (5, [2, 2, 320], ["2", 2, 320, 129])],
        ((*MAGNITUDE, "shape"), [2, 2, 320, 128], r"chunks must be \[1, 1, a multiple of 8, 128\]"),
        ((*MAGNITUDE, "data_type"), "float64", "must be float32 in sharding_indexed.*float64"),
        ((*MAGNITUDE, "chunk_grid"), ..., "/magnitude can't be read.*chunk_grid"),
        ((*MAGNITUDE, "codecs"), [], "/magnitude can't be read"),
        ((*MAGNITUDE, "codecs"), [{"name": "bytes"}], "/magnitude can't be read.*configuration"),
        ((*MAGNITUDE, "codecs"), ["bytes"], "/magnitude can't be read"),
        ((*SHARDING, "name"), "sharding_other", "must be float32 in sharding_indexed.*sharding_other"),
        ((*INNER, "index_location"), "start", "its index at the end.*start"),
        ((*INNER, "index_codecs"), [{"name": "bytes"}], "its index at the end"),
        ((*INNER, "codecs"), [{}], "/magnitude can't be read.*name"),
        ((*INNER, "codecs"), 5, "/magnitude can't be read"),
        ((*INNER, "codecs", 0, "configuration"), {"curve": "cubic"}, "curve 'cubic' is unknown"),
        ((*INNER, "codecs", 0, "configuration"), {"curve": "power", "exponent": 7}, "exponent must be"),
        ((*INNER, "codecs", 0, "configuration"), 5, "/magnitude can't be read"),
        *[
            (
                (*INNER, "chunk_shape"),
                value,
                r"chunks must be \[1, 1, a multiple of 8, 129\], found|expected the sizes of",
            )
            for value in ([1, 1, 12, 129], [1, 1, 16, 64], [1, 2, 16, 129], [1, 1, 0, 129], [1, 1, -8, 129])
        ],
        *[
            ((*INNER, "chunk_shape"), value, "/magnitude can't be read")
            for value in ([16, 129], "16", [1, 1, 16.0, 129])
        ],
        *[
            (
                (*MAGNITUDE, "chunk_grid", "configuration", "chunk_shape"),
                value,
                r"shards must be \[1, 2, a multiple of 16, 129\], found",
            )
            for value in ([1, 2, 24, 129], [1, 1, 64, 129], [2, 2, 64, 129], [1, 2, 64, 128], [1, 2, 0, 129])
        ],
    ],
)
def test_broken_document_is_refused_with_store_and_fault(where, value, fault):
    with pytest.raises(FormatError, match=rf"some\.zarr breaks format 1\.0: .*{fault}"):
        read(broken(where, value))


def test_all_faults_are_named_at_once():
    tree = parsed()
    attributes, nodes = tree["attributes"]["norbert_store"], tree["consolidated_metadata"]["metadata"]
    del attributes["channels"], nodes["frequency"], nodes["track/split"]
    attributes["tracks"] = "many"
    attributes["targets"] = []
    nodes["magnitude"]["data_type"] = "int16"
    nodes["magnitude"]["codecs"][0]["configuration"]["chunk_shape"][2] = 5
    nodes["track/year"]["data_type"] = "complex64"
    with pytest.raises(FormatError) as caught:
        read(tree)
    for fault in (
        "'channels' is missing",
        "'tracks' must be",
        "'targets' must be",
        "/frequency is missing",
        "/track/split is missing",
        "int16",
        "a multiple of 8",
        "/track/year has data type 'complex64'",
    ):
        assert fault in str(caught.value)


def test_encoder_and_about_may_be_left_out():
    tree = parsed()
    for key in ("encoder", "title", "license", "created_with", "mood"):
        del tree["attributes"]["norbert_store"][key]
    document = read(tree)
    assert (document.encoder, document.about, document.unknown) == ({}, {}, {})
    assert read(json.loads(document.to_json())).layout == document.layout


def test_layout_counts_chunks():
    layout = DOCUMENT.layout
    assert layout.shard_frames == 64
    assert [layout.chunks(frames) for frames in (0, 1, 16, 17, 320)] == [0, 1, 1, 2, 20]
