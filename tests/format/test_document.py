"""The document: what it says, what of it is refused, and checksums of blocks."""

from __future__ import annotations

import base64
import copy
import json
import pickle
import struct
from dataclasses import replace

import google_crc32c
import numpy as np
import pytest

from norbert_store._format.arrays import decode_block, encode_block
from norbert_store._format.document import (
    EXTENT,
    MOST_DOCUMENT_BYTES,
    Document,
    block_sum,
    checksum,
)
from norbert_store._format.layout import Layout
from norbert_store._format.table import label_column_of
from norbert_store._spectra.levels import LogCurve, PowerCurve
from norbert_store._text import MOST_DEPTH
from norbert_store._version import __version__
from norbert_store.errors import DamagedError, FormatError

ID = "0123456789abcdef0123456789abcdef"
LABELS = (
    label_column_of("genre", "string", "0"),
    label_column_of("year", "int64", "1"),
    label_column_of("live", "bool", "2"),
    label_column_of("ä/ö", "strings", "7"),
    label_column_of("start", "float64", "12"),
)


def with_sums(document):
    """Give a document as many checksums as it needs, each another number."""
    empty = replace(document, sums={}).with_blocks({})
    return replace(document, sums={path: tuple(range(len(sums))) for path, sums in empty.sums.items()})


DOCUMENT = with_sums(
    Document(
        targets=("mixture", "vocals"),
        channels=("left", "right"),
        transform={"name": "stft", "rate": 8000, "n_fft": 256},
        layout=Layout(bins=129, chunk_frames=16, shard_chunks=4, curve=PowerCurve(exponent=0.5), rows=2, positions=8),
        tracks=3,
        chunks=20,
        labels=LABELS,
        id=ID,
        revision=5,
        edition=2,
        encoder={"quality": 80.0},
        about={"title": "Títle", "license": "CC0"},
        created="2024-01-02T03:04:05+00:00",
        modified="2024-02-02T03:04:05+00:00",
        unknown={"mood": ["blue", {"x": None}]},
    )
)


def parsed(document=DOCUMENT):
    """What a document says."""
    return json.loads(json.loads(document.to_json())["attributes"]["norbert_store"])


def nodes(document=DOCUMENT):
    """Metadata of the arrays, for other programs."""
    return json.loads(document.to_json())["consolidated_metadata"]["metadata"]


def read_text(text):
    root = {"attributes": {"norbert_store": text, "norbert_store_crc32c": checksum(text)}}
    return Document.from_json(json.dumps(root).encode(), "some.zarr")


def read(attributes):
    return read_text(json.dumps(attributes))


# ---- what is written


@pytest.mark.parametrize(
    "document",
    [
        DOCUMENT,
        with_sums(replace(DOCUMENT, tracks=0, chunks=0, labels=(), about={}, unknown={}, encoder={})),
        replace(DOCUMENT, layout=replace(DOCUMENT.layout, curve=LogCurve(range_decibel=90))),
        replace(DOCUMENT, encoder={"effort": 3}, version="1.7"),
        replace(DOCUMENT, writes=("x", "ü"), pending=("track/name/c/0", "label/12/c/1", "chunk/extent/c/0/0/0/1")),
        replace(DOCUMENT, pending=("magnitude/c/1/0/4/0", "track/present/c/1/0")),
        with_sums(replace(DOCUMENT, targets=("ä-ö", "a b", "__x__"))),
        DOCUMENT.next(),
    ],
)
def test_what_is_written_is_read_again(document):
    assert Document.from_json(document.to_json(), "some.zarr") == document


def test_it_is_a_text_and_its_checksum():
    attributes = json.loads(DOCUMENT.to_json())["attributes"]
    text = attributes.pop("norbert_store")
    assert attributes == {"norbert_store_crc32c": f"{google_crc32c.value(text.encode()):08x}"}
    assert "Títle" in text


def test_all_keys_are_there():
    assert parsed() == {
        "version": "1.0",
        "features": {"read": [], "write": []},
        "id": ID,
        "revision": 5,
        "edition": 2,
        "tracks": 3,
        "chunks": 20,
        "targets": ["mixture", "vocals"],
        "channels": ["left", "right"],
        "transform": {"name": "stft", "rate": 8000, "n_fft": 256},
        "curve": {"curve": "power", "exponent": 0.5},
        "layout": {"bins": 129, "chunk_frames": 16, "shard_chunks": 4, "rows": 2, "positions": 8},
        "labels": [
            {"name": "genre", "type": "string", "key": "0"},
            {"name": "year", "type": "int64", "key": "1"},
            {"name": "live", "type": "bool", "key": "2"},
            {"name": "ä/ö", "type": "strings", "key": "7"},
            {"name": "start", "type": "float64", "key": "12"},
        ],
        "sums": {
            "algorithm": "crc32c",
            **{f"track/{name}": encoded(2) for name in ("name", "split", "source", "start", "frames", "samples")},
            **{f"track/{name}": encoded(2) for name in ("source_bytes", "source_modified")},
            **{f"track/{name}": encoded(2) for name in ("present", "scale", "metadata")},
            **{f"label/{key}": encoded(2) for key in (0, 1, 2, 7, 12)},
            "chunk/extent": encoded(6),
            **{axis: encoded(1) for axis in ("target", "channel", "frequency")},
        },
        "pending": [],
        "encoder": {"quality": 80.0},
        "created": "2024-01-02T03:04:05+00:00",
        "modified": "2024-02-02T03:04:05+00:00",
        "created_with": f"norbert_store {__version__}",
        "title": "Títle",
        "license": "CC0",
        "mood": ["blue", {"x": None}],
    }


def encoded(blocks):
    return base64.b64encode(struct.pack(f"<{blocks}I", *range(blocks))).decode()


def test_every_store_has_an_id_of_its_own():
    options = {key: getattr(DOCUMENT, key) for key in ("targets", "channels", "transform", "layout")}
    first, second = Document(**options), Document(**options)
    assert first.id != second.id
    assert (first.revision, first.edition) == (1, 1)


def test_the_next_commit_has_the_next_revision():
    later = DOCUMENT.next(tracks=4)
    assert (later.revision, later.edition, later.tracks, later.id) == (6, 2, 4, ID)
    assert later.created == DOCUMENT.created
    assert later.modified > DOCUMENT.modified


def test_arrays_are_those_of_the_format():
    arrays = {path: node for path, node in nodes().items() if node["node_type"] == "array"}
    magnitude = arrays["magnitude"]
    assert magnitude["shape"] == [2, 2, 320, 129]
    assert magnitude["dimension_names"] == ["target", "channel", "frame", "frequency"]
    assert magnitude["fill_value"] == "NaN"
    assert magnitude["chunk_grid"]["configuration"]["chunk_shape"] == [1, 2, 64, 129]
    (sharding,) = magnitude["codecs"]
    assert sharding["configuration"]["chunk_shape"] == [1, 1, 16, 129]
    assert sharding["configuration"]["codecs"] == [
        {"name": "norbert_store.jpeg", "configuration": {"quality": 80.0, "filter": parsed()["curve"]}},
        {"name": "crc32c"},
    ]
    extent = arrays["chunk/extent"]
    assert (extent["shape"], extent["dimension_names"]) == ([2, 3, 2, 20], ["target", "part", "channel", "chunk"])
    assert extent["chunk_grid"]["configuration"]["chunk_shape"] == [1, 3, 2, 8]
    assert arrays["track/present"]["shape"] == arrays["track/scale"]["shape"] == [3, 2]
    assert arrays["label/2"]["chunk_grid"]["configuration"]["chunk_shape"] == [2]
    assert {path: (node["data_type"], node["fill_value"]) for path, node in arrays.items()} == {
        "magnitude": ("float32", "NaN"),
        "target": ("string", ""),
        "channel": ("string", ""),
        "frequency": ("float64", 0.0),
        "chunk/extent": ("uint32", 0),
        "track/name": ("string", ""),
        "track/split": ("string", ""),
        "track/source": ("string", ""),
        "track/source_bytes": ("int64", -1),
        "track/source_modified": ("int64", -1),
        "track/start": ("int64", 0),
        "track/frames": ("int64", 0),
        "track/samples": ("int64", 0),
        "track/present": ("bool", False),
        "track/scale": ("int16", 0),
        "track/metadata": ("string", "{}"),
        "label/0": ("string", ""),
        "label/1": ("int64", -(2**63)),
        "label/2": ("int8", -1),
        "label/7": ("string", ""),
        "label/12": ("float64", "NaN"),
    }
    assert {path for path, node in nodes().items() if node["node_type"] == "group"} == {"track", "label", "chunk"}


def test_it_is_json_that_every_parser_takes():
    json.loads(DOCUMENT.to_json(), parse_constant=pytest.fail)


def test_what_follows_from_it_is_not_sent_along():
    assert DOCUMENT.arrays()
    assert b"chunk_grid" not in pickle.dumps(DOCUMENT)
    assert pickle.loads(pickle.dumps(DOCUMENT)) == DOCUMENT


def test_it_counts_frames():
    assert DOCUMENT.frames == 320
    assert DOCUMENT.layout.shard_frames == 64
    assert [DOCUMENT.layout.chunks(frames) for frames in (0, 1, 16, 17, 320)] == [0, 1, 1, 2, 20]


# ---- what is refused


@pytest.mark.parametrize(
    ("rows", "positions", "channels", "fault"),
    [
        (2**14, 8, 2, None),
        (2**14 + 1, 8, 2, "/track/source_bytes has 67112960 bytes"),
        (2**14, 4096, 1365, None),
        (2**14, 4096, 1366, "/chunk/extent has 67141632 bytes"),
    ],
)
def test_what_is_accepted_has_blocks_that_can_be_decoded(rows, positions, channels, fault):
    layout = replace(DOCUMENT.layout, rows=rows, positions=positions)
    names = {"targets": tuple(map(str, range(512))), "channels": tuple(map(str, range(channels)))}
    document = with_sums(replace(DOCUMENT, **names, layout=layout))
    if fault is not None:
        with pytest.raises(FormatError, match=f"a block of {fault}, of at most 67108864: there are too many"):
            read(parsed(document))
        return
    read(parsed(document))
    for path, metadata in document.arrays().items():
        if path in ("track/source_bytes", "chunk/extent"):
            decode_block(metadata, encode_block(metadata, np.empty([0] * len(metadata["shape"]))))


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
        b'{"attributes": []}',
        b'{"attributes": null}',
        b'{"attributes": {"norbert_store": {}}}',
        b'{"attributes": {"norbert_store": {"version": "1.0"}}}',
        b'{"attributes": {"norbert_store": null}}',
        b"[" * 100_000,
        b'{"attributes": ' * 100_000,
    ],
)
def test_what_is_no_store_is_refused(data):
    with pytest.raises(FormatError, match=r"some\.zarr is no norbert_store.*xarray\.open_zarr"):
        Document.from_json(data, "some.zarr")


def test_what_is_too_long_is_not_even_parsed():
    with pytest.raises(FormatError, match=f"at most {MOST_DOCUMENT_BYTES} bytes, found"):
        Document.from_json(bytes(MOST_DOCUMENT_BYTES + 1), "some.zarr")


def deep(levels):
    return '{"version": "1.0", "x": ' + "[" * (levels - 1) + "]" * (levels - 1) + "}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "its document isn't JSON"),
        ("{", "its document isn't JSON"),
        ("NaN", "its document isn't JSON"),
        ("[]", "must be a JSON object"),
        ('"1.0"', "must be a JSON object"),
        ('{"version": "1.0", "x": NaN}', "its document isn't JSON"),
        ('{"version": "1.0", "x": 1e999}', "its document isn't JSON"),
        ('{"version": "1.0", "x": "\\ud800"}', "its document isn't JSON"),
        ('{"version": "1.0", "x": ' + "9" * 5000 + "}", "its document isn't JSON"),
        (deep(MOST_DEPTH), "'id' is missing"),
        (deep(MOST_DEPTH + 1), "of at most 32 levels"),
        (deep(900), "of at most 32 levels"),
        (deep(100_000), "of at most 32 levels"),
        ("{}", "its document has no version such as '1.0'; found None"),
        ('{"version": null}', "found None"),
        ('{"version": 1.0}', "found 1.0"),
        ('{"version": "one"}', "found 'one'"),
        ('{"version": "1"}', "found '1'"),
        ('{"version": "1.0\\n"}', "found '1.0"),
        ('{"version": "١.٠"}', "found '١.٠'"),
        ('{"version": "' + "9" * 5000 + '.0"}', "has no version such as"),
    ],
)
def test_text_that_is_no_document_is_refused(text, message):
    with pytest.raises(FormatError, match=rf"some\.zarr.*{message}"):
        read_text(text)


def test_text_that_is_no_unicode_is_refused():
    root = b'{"attributes": {"norbert_store": "{\\"version\\": \\"1.0\\", \\"x\\": \\"\\ud800\\"}"}}'
    with pytest.raises(FormatError, match=r"some\.zarr: its document isn't JSON"):
        Document.from_json(root, "some.zarr")


@pytest.mark.parametrize("version", ["2.0", "10.3"])
def test_newer_major_version_is_refused_whatever_else_it_holds(version):
    root = {"attributes": {"norbert_store": json.dumps({"version": version, "new": True})}}
    with pytest.raises(FormatError, match=rf"some\.zarr is written in format {version}.*upgrade norbert_store"):
        Document.from_json(json.dumps(root).encode(), "some.zarr")


@pytest.mark.parametrize("needed", [["x"], ["x", "y"], "x", 5, [None]])
def test_features_that_readers_need_are_refused(needed):
    with pytest.raises(FormatError, match="needs features that norbert_store .* can't read"):
        read({**parsed(), "features": {"read": needed, "write": []}})


def test_features_that_writers_need_are_told():
    assert read({**parsed(), "features": {"read": [], "write": ["x", "y"]}}).writes == ("x", "y")
    assert read({**parsed(), "features": {"write": ["x"], "other": 5}}).writes == ("x",)


@pytest.mark.parametrize("found", [None, "", 5, "00000000", "ABCDEF01", ...])
def test_a_wrong_checksum_is_refused(found):
    root = json.loads(DOCUMENT.to_json())
    del root["attributes"]["norbert_store_crc32c"]
    if found is not ...:
        root["attributes"]["norbert_store_crc32c"] = found
    with pytest.raises(FormatError, match=r"some\.zarr: the checksum of its document is [0-9a-f]{8}, and .* written"):
        Document.from_json(json.dumps(root).encode(), "some.zarr")


def test_every_changed_byte_of_the_text_is_found():
    root = json.loads(DOCUMENT.to_json())
    text = root["attributes"]["norbert_store"]
    for at in range(0, len(text), 7):
        root["attributes"]["norbert_store"] = text[:at] + chr(ord(text[at]) ^ 1) + text[at + 1 :]
        with pytest.raises(FormatError, match=r"some\.zarr"):
            Document.from_json(json.dumps(root).encode(), "some.zarr")


def test_others_attributes_and_metadata_are_nothing_to_it():
    root = json.loads(DOCUMENT.to_json())
    root["attributes"]["other"] = {"x": [1]}
    root["consolidated_metadata"] = {"kind": "inline", "metadata": {"magnitude": {"shape": [0]}}}
    assert Document.from_json(json.dumps(root).encode(), "some.zarr") == DOCUMENT


REQUIRED = ("id", "revision", "edition", "tracks", "chunks", "targets", "channels", "transform", "curve")


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


@pytest.mark.parametrize(
    ("where", "value", "fault"),
    [
        *[((key,), ..., f"'{key}' is missing") for key in REQUIRED],
        *[
            ((key,), value, f"'{key}' must be a whole number, found {value!r}")
            for key in ("tracks", "chunks", "revision", "edition")
            for value in (-1, 1.5, "3", None, True, 2**53)
        ],
        *[
            (("id",), value, "'id' must be 32 hexadecimal digits")
            for value in (5, None, "", ID[1:], ID.upper(), ID + "0")
        ],
        *[
            ((key,), value, f"'{key}' must be a list of names")
            for key in ("targets", "channels")
            for value in ([], "ab", [1], [""], {"left": 0}, None, [["a"]])
        ],
        (("targets",), ["a", "a"], "'targets' names something twice"),
        *[(("transform",), value, "'transform' must be an object") for value in ("stft", {}, {"name": 5}, None, [])],
        *[
            ((key,), value, f"'{key}' must be an object")
            for key in ("encoder", "features", "sums")
            for value in (5, [], None)
        ],
        *[(("features", "read"), value, "'features' must have a list of names for 'read'") for value in (0, "", None)],
        *[(("features", "write"), value, "a list of names for 'write'") for value in (0, "x", None, [5], {})],
        *[
            ((key,), 5, f"'{key}' must be text, found 5")
            for key in ("title", "license", "citation", "created", "modified", "created_with")
        ],
        *[(("curve",), value, "'curve' can't be read") for value in (None, 5, "power")],
        *[(("curve",), value, "'curve' must be an object of curve, exponent") for value in ([], {})],
        *[(("curve", key), ..., "'curve' must be an object of curve, exp") for key in ("curve", "exponent")],
        (("curve",), {"curve": "cubic"}, "curve 'cubic' is unknown"),
        (("curve", "exponent"), 7, "exponent must be"),
        (("curve", "exponent"), "x", "'curve' can't be read"),
        (("curve", "exponent"), 10**400, "exponent must be"),
        (("curve", "reference"), 1.0, "'curve' can't be read: curve 'power' takes exponent; found"),
        (("layout",), ..., "'layout' must be an object of bins"),
        *[(("layout",), value, "'layout' must be an object of bins, chunk_frames") for value in (None, 5, [], {})],
        *[(("layout", key), ..., "'layout' must be an object of") for key in parsed()["layout"]],
        (("layout", "more"), 1, "'layout' must be an object of"),
        *[
            (("layout", key), value, f"'layout' must have {key} from 1 to .*, found {value!r}")
            for key in parsed()["layout"]
            for value in (0, -8, 16.0, "16", None, True, 2**40)
        ],
        (("layout", "chunk_frames"), 12, "chunk_frames that are a multiple of 8, found 12"),
        *[(("labels",), value, "'labels' must be a list") for value in (None, {}, "genre", 5)],
        *[(("labels", 1), value, "can't be read") for value in (None, {}, "year", 5, ["year", "int64", "1"])],
        *[(("labels", 1, key), ..., "can't be read") for key in ("name", "type", "key")],
        (("labels", 1, "more"), 1, "can't be read"),
        *[(("labels", 1, "name"), name, "can't be read") for name in ("", " ", "_year", "name", "split", 5, None, [])],
        *[(("labels", 1, "type"), name, "its type must be one of") for name in ("complex", "", "int8")],
        *[(("labels", 1, "type"), name, "can't be read") for name in (None, 5, [], {})],
        *[
            (("labels", 1, "key"), key, "it needs a key of 1 to 9 digits")
            for key in (1, None, "", "x", "-1", "1/c", "../1", "١", "1" * 10, "1\n")
        ],
        (("labels", 1, "name"), "genre", "two labels have the same name"),
        (("labels", 1, "key"), "0", "two labels have the same key"),
        (("sums",), {}, "'sums' must be of the algorithm 'crc32c'"),
        (("sums",), ..., "'sums' must be of the algorithm 'crc32c'"),
        (("sums", "algorithm"), "md5", "'sums' must be of the algorithm 'crc32c'"),
        *[
            (("sums", path), ..., f"'sums' must have . checksums of /{path}")
            for path in parsed()["sums"]
            if "a" in path[1:]
        ],
        *[
            (("sums", "track/name"), value, "'sums' must have 2 checksums of /track/name")
            for value in (encoded(1), encoded(3), "", encoded(2)[:-1], encoded(2) + "\n", "ä" * 12, 5, None, [0, 1])
        ],
        (("sums", "track/other"), encoded(2), "'sums' has checksums of /track/other, which isn't there"),
        (("sums", "label/3"), encoded(2), "'sums' has checksums of /label/3, which isn't there"),
        (("tracks",), 5, "'sums' must have 3 checksums of /track/name"),
        (("tracks",), 2, "'sums' must have 1 checksums of /track/name"),
        (("chunks",), 25, "'sums' must have 8 checksums of /chunk/extent"),
        (("targets",), ["a"], "'sums' must have 3 checksums of /chunk/extent"),
        (("labels",), [], "'sums' has checksums of /label/0"),
        *[(("pending",), value, "'pending' must be a list") for value in (None, {}, "track/name/c/0")],
        *[
            (("pending",), [key], "'pending' must not have")
            for key in (
                *("", 5, None, "zarr.json", "writer.lock", "track/name", "track/name/zarr.json", "/track/name/c/0"),
                *("track/name/c/٣", "track/name/c/00", "track/name/c/0/0", "track/name/c/" + "9" * 17),
                *("track/present/c/0", "track/present/c/0/1", "label/12/c/0/0", "chunk/extent/c/1"),
                *("chunk/extent/c/0/1/0/0", "magnitude/c/5", "magnitude/c/0/0/٣/0", "magnitude/c/0/1/0/0"),
                *(
                    "track/name/c/",
                    "track/name/c/x",
                    "track/name/c/0/../../../x",
                    "track/name/c/0\n",
                    "../track/name/c/0",
                ),
                *("track/other/c/0", "label/3/c/0", "label/genre/c/0", "chunk/other/c/0", "target/c/0", "other/c/0"),
                *("track/name/c/-1", "track/name/c/" + "1" * 17, "pending/5/track/name/c/0", "trackxname/c/0"),
            )
        ],
    ],
)
def test_broken_document_is_refused_with_store_and_fault(where, value, fault):
    with pytest.raises(FormatError, match=rf"some\.zarr breaks format 1\.0: .*({fault})"):
        read(broken(where, value))


def test_all_faults_are_named_at_once():
    attributes = parsed()
    del attributes["channels"]
    attributes |= {"tracks": "many", "targets": [], "id": "?"}
    attributes["layout"]["chunk_frames"] = 0
    attributes["labels"][1]["type"] = "complex64"
    with pytest.raises(FormatError) as caught:
        read(attributes)
    for fault in (
        "'channels' is missing",
        "'tracks' must be",
        "'targets' must be",
        "'id' must be",
        "chunk_frames from 1",
        "'complex64'",
    ):
        assert fault in str(caught.value)


def test_what_nobody_needs_may_be_left_out():
    attributes = parsed()
    for key in ("encoder", "features", "pending", "title", "license", "created", "modified", "created_with", "mood"):
        del attributes[key]
    document = read(attributes)
    assert (document.encoder, document.about, document.unknown, document.pending) == ({}, {}, {}, ())
    assert (document.reads, document.writes, document.created) == ((), (), "")
    assert Document.from_json(document.to_json(), "some.zarr") == document


# ---- checksums of blocks

VALUES = {
    "string": np.array(["a", "bc", ""], object),
    "int64": np.array([1, -2, 2**60]),
    "float64": np.array([0.5, np.nan, -0.0]),
    "bool": np.array([[True, False], [False, False]]),
    "int8": np.array([1, -1, 0], np.int8),
    "uint32": np.arange(24, dtype=np.uint32).reshape(1, 3, 2, 4),
}


def test_a_sum_is_that_of_the_format():
    head = bytes.fromhex(ID) + b"track/name\0" + struct.pack("<I", 7)
    body = b"\1\0\0\0a" + b"\2\0\0\0\xc3\xa4" + b"\0\0\0\0"
    values = np.array(["a", "ä", ""], object)
    assert block_sum(ID, "track/name", (7,), values) == google_crc32c.value(head + body)
    head = bytes.fromhex(ID) + b"track/present\0" + struct.pack("<II", 1, 0)
    assert block_sum(ID, "track/present", (1, 0), np.array([[True, False]])) == google_crc32c.value(head + b"\1\0")
    head = bytes.fromhex(ID) + b"chunk/extent\0" + struct.pack("<IIII", 1, 0, 0, 2)
    extents = np.array([[[[258]], [[5]], [[2**32 - 1]]]], np.uint32)
    body = struct.pack("<III", 258, 5, 2**32 - 1)
    assert block_sum(ID, "chunk/extent", (1, 0, 0, 2), extents) == google_crc32c.value(head + body)


@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES)
def test_order_of_bytes_and_memory_is_nothing_to_a_sum(values):
    expected = block_sum(ID, "x", (0,), values)
    assert block_sum(ID, "x", (0,), np.asfortranarray(values)) == expected
    if values.dtype != object:
        assert block_sum(ID, "x", (0,), values.astype(values.dtype.newbyteorder(">"))) == expected


@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES)
def test_anything_else_changes_a_sum(values):
    different = values.copy()
    different.flat[0] = {"O": "b", "b": False}[values.dtype.kind] if values.dtype.kind in "Ob" else values.flat[0] + 1
    sums = [
        block_sum(ID, "track/a", (0, 1), values),
        block_sum(ID[::-1], "track/a", (0, 1), values),
        block_sum(ID, "track/b", (0, 1), values),
        block_sum(ID, "track/a", (1, 0), values),
        block_sum(ID, "track/a", (0, 2), values),
        block_sum(ID, "track/a", (0, 1), different),
        block_sum(ID, "track/a", (0, 1), values[..., :-1]),
        block_sum(ID, "track/a", (0, 1), values[..., ::-1]),
    ]
    assert len(set(sums)) == len(sums)


def test_texts_are_told_apart_by_where_they_end():
    split = [["ab", "c"], ["a", "bc"], ["abc", ""], ["", "abc"], ["abc"]]
    assert len({block_sum(ID, "x", (0,), np.array(texts, object)) for texts in split}) == len(split)


ROWS = np.array(["a", "b", "c", "d"], object)


@pytest.fixture
def three():
    """A document of three rows, two in a block, and the bytes of its blocks of names."""
    blocks = {("track/name", (0,)): ROWS[:2], ("track/name", (1,)): ROWS[2:3]}
    metadata = DOCUMENT.arrays()["track/name"]
    return DOCUMENT.with_blocks(blocks), [encode_block(metadata, ROWS[:2]), encode_block(metadata, ROWS[2:3])]


def test_blocks_are_checked(three):
    document, blocks = three
    assert document.check_block("track/name", (0,), blocks[0]).tolist() == ["a", "b"]
    assert document.check_block("track/name", (1,), blocks[1]).tolist() == ["c"]
    for block, data, message in (
        ((0,), blocks[1], "its checksum is another one"),
        ((1,), blocks[0], "its checksum is another one"),
        ((0,), None, "the file is missing"),
        ((0,), b"", "the file can't be read"),
        ((0,), blocks[0][:-1], "the file can't be read"),
    ):
        with pytest.raises(DamagedError, match=message):
            document.check_block("track/name", block, data)
    with pytest.raises(DamagedError, match="its checksum is another one"):
        document.check_block("track/split", (0,), blocks[0])
    with pytest.raises(DamagedError, match="its checksum is another one"):
        replace(document, id=ID[::-1]).check_block("track/name", (0,), blocks[0])


def test_rows_behind_the_valid_ones_are_nothing_to_a_block(three):
    document, _ = three
    longer = encode_block(document.arrays()["track/name"], ROWS[2:4])  # as it stands there after another commit
    assert document.check_block("track/name", (1,), longer).tolist() == ["c"]


def test_positions_behind_the_valid_ones_are_nothing_to_a_block():
    extents = np.random.default_rng(0).integers(0, 2**32, (1, 3, 2, 8), np.uint32)
    document = DOCUMENT.with_blocks({(EXTENT, (1, 0, 0, 2)): extents[..., :4]})
    metadata = document.arrays()[EXTENT]
    for valid in (4, 7, 8):
        data = encode_block(metadata, extents[..., :valid])
        assert np.array_equal(document.check_block(EXTENT, (1, 0, 0, 2), data), extents[..., :4])
    with pytest.raises(DamagedError, match="its checksum is another one"):
        document.check_block(EXTENT, (1, 0, 0, 2), encode_block(metadata, extents[..., :3]))


def test_sums_stay_with_their_blocks_when_arrays_grow_and_shrink():
    grown = replace(DOCUMENT, tracks=7, chunks=33).with_blocks({})
    assert grown.sums["track/present"] == (0, 1, 0, 0)
    assert grown.sums[EXTENT] == (0, 1, 2, 0, 0, 3, 4, 5, 0, 0)
    assert grown.sums["target"] == (0,)
    shrunk = replace(grown, tracks=2, chunks=16).with_blocks({("track/name", (0,)): ROWS[:2]})
    assert shrunk.sums["track/present"] == (0,)
    assert shrunk.sums[EXTENT] == (0, 1, 3, 4)
    assert shrunk.sums["track/name"] == (block_sum(ID, "track/name", (0,), ROWS[:2]),)
    nothing = replace(shrunk, tracks=0, chunks=0).with_blocks({})
    assert nothing.sums["track/name"] == nothing.sums[EXTENT] == ()
    for document in (grown, shrunk, nothing):
        assert Document.from_json(document.to_json(), "some.zarr") == document


def test_a_new_label_has_sums_of_all_blocks():
    label = label_column_of("more", "bool", "13")
    values = np.zeros(2, np.int8)
    document = replace(DOCUMENT, labels=(*LABELS, label)).with_blocks(
        {("label/13", (0,)): values, ("label/13", (1,)): values[:1]}
    )
    assert len(document.sums["label/13"]) == 2
    assert document.sums["label/0"] == DOCUMENT.sums["label/0"]
