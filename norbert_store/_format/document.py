"""The document that commits and opens a store: a JSON text in the attributes of the root's ``zarr.json``.

Writing it is the commit: it is one atomic write, and whoever reads it sees one consistent state. Beside it stand its
checksum and, for programs that read zarr, the metadata of all arrays, which follows from it. Each array has a
``zarr.json`` of its own as well, for programs that don't know consolidated metadata; it is as old as the last time
the store was closed.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from norbert_store._format.arrays import (
    LARGEST_BLOCK_BYTES,
    Metadata,
    array_document,
    block_counts,
    block_number,
    decode_block,
    decoded_bytes,
    group_document,
    json_bytes,
    regular_grid,
    valid_part,
)
from norbert_store._format.layout import MAGNITUDE, NUMBER, Layout, ceil_div, parse_shard_key
from norbert_store._format.table import (
    BASE_COLUMNS,
    BY_TARGET,
    LABEL_GROUP,
    TRACK_GROUP,
    Column,
    label_column_of,
    name_problem,
)
from norbert_store._jpeg.layout import BLOCK, LARGEST_SIDE
from norbert_store._lazy import lazy
from norbert_store._spectra.levels import PowerCurve, curve_from_config
from norbert_store._storage.keys import METADATA_FILE
from norbert_store._text import read_json, shortened, shown
from norbert_store._version import __version__
from norbert_store.errors import DamagedError, FormatError

VERSION = "1.0"
ROOT_KEY = METADATA_FILE
MOST_DOCUMENT_BYTES = 16 * 2**20
PENDING = "pending"
ATTRIBUTE = "norbert_store"
CHECKSUM = "norbert_store_crc32c"

DIMENSIONS = ("target", "channel", "frame", "frequency")
CHUNK_GROUP = "chunk"
EXTENT = f"{CHUNK_GROUP}/extent"
GROUPS = (TRACK_GROUP, LABEL_GROUP, CHUNK_GROUP)
EXTENT_PARTS = 3  # offset, length, CRC-32C

# as in norbert_store.codecs, which isn't imported here: it loads the encoder, and opening a store must not
JPEG = "norbert_store.jpeg"

LARGEST_NUMBER = 2**53
LARGEST_BLOCK = 2**16
MOST_NAMES = 4096  # of targets, and of channels
MOST_LABELS = 1024
MOST_BLOCKS = 2**20  # of all small arrays together
LARGEST_INDEX = 2**18  # entries for the chunks of a shard
LARGEST_IMAGE = 2**23  # pixels in a chunk

_REQUIRED = ("version", "id", "revision", "edition", "tracks", "chunks", "targets", "channels", "transform", "curve")
_MOST_FAULTS_TOLD = 10
_TEXTS_AT_A_TIME = 1024
_LAYOUT = ("bins", "chunk_frames", "shard_chunks", "rows", "positions")
_LABEL = frozenset(("name", "type", "key"))
_ABOUT = ("title", "license", "citation")
_ID = re.compile(r"[0-9a-f]{32}")

Sums = Mapping[str, tuple[int, ...]]
"""Checksums of the blocks of every small array, by its path."""


@dataclass(frozen=True)
class Document:
    """One committed state of a store.

    Attributes
    ----------
    targets, channels : tuple of str
        Labels of the first two axes.
    transform : dict
        What `norbert_store._spectra.bins.transform_from_config` takes.
    layout : Layout
    tracks : int
        Rows of the track table that are valid.
    chunks : int
        Used positions of the packed axis.
    labels : tuple of Column
        What users gave with their tracks.
    sums : mapping
    id : str
        Of the store, 32 hexadecimal digits; another one whenever a store is created.
    revision : int
        One more with each commit.
    edition : int
        One more whenever rows move.
    pending : tuple of str
        Keys whose new bytes lie below ``pending/<revision>/`` still.
    encoder : dict
        What the encoder was told; decoding never needs it.
    about : dict
        "title", "license", "citation", as far as given.
    created, modified : str
        Times in UTC (ISO 8601).
    reads, writes : tuple of str
        Features that a reader, or a writer, must know.
    unknown : dict
        Keys that this version doesn't know; they are kept.
    """

    targets: tuple[str, ...]
    channels: tuple[str, ...]
    transform: dict[str, Any]
    layout: Layout
    tracks: int = 0
    chunks: int = 0
    labels: tuple[Column, ...] = ()
    sums: Sums = field(default_factory=dict)
    id: str = field(default_factory=lambda: secrets.token_hex(16))
    revision: int = 1
    edition: int = 1
    pending: tuple[str, ...] = ()
    encoder: dict[str, Any] = field(default_factory=dict)
    about: dict[str, str] = field(default_factory=dict)
    created: str = field(default_factory=lambda: _now())
    modified: str = field(default_factory=lambda: _now())
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    unknown: dict[str, Any] = field(default_factory=dict)
    version: str = VERSION
    created_with: str = f"norbert_store {__version__}"

    def __getstate__(self) -> dict[str, Any]:
        # what follows from the rest is quickly made again
        return {key: value for key, value in self.__dict__.items() if key != "_arrays"}

    @property
    def frames(self) -> int:
        """Used length of the packed axis."""
        return self.layout.frame_of(self.chunks)

    @property
    def columns(self) -> tuple[Column, ...]:
        """What the store itself keeps of each track, and all labels."""
        return (*BASE_COLUMNS, *self.labels)

    def column(self, name: str) -> Column:
        """Return a column of the track table, or a label, by its name."""
        return next(column for column in self.columns if column.name == name)

    def next(self, **changes: Any) -> Document:
        """Return the state that the next commit makes."""
        return replace(self, revision=self.revision + 1, modified=_now(), **changes)

    # ---- what it says, as JSON

    @property
    def attributes(self) -> dict[str, Any]:
        """All keys of the document."""
        layout = self.layout
        return {
            **self.unknown,
            "version": self.version,
            "features": {"read": list(self.reads), "write": list(self.writes)},
            "id": self.id,
            "revision": self.revision,
            "edition": self.edition,
            "tracks": self.tracks,
            "chunks": self.chunks,
            "targets": list(self.targets),
            "channels": list(self.channels),
            "transform": self.transform,
            "curve": layout.curve.config,
            "layout": {key: getattr(layout, key) for key in _LAYOUT},
            "labels": [{"name": label.name, "type": label.type, "key": label.key} for label in self.labels],
            "sums": {"algorithm": "crc32c", **{path: _encode_sums(sums) for path, sums in self.sums.items()}},
            "pending": list(self.pending),
            "encoder": self.encoder,
            "created": self.created,
            "modified": self.modified,
            "created_with": self.created_with,
            **self.about,
        }

    def to_json(self, consolidated: bool = True) -> bytes:
        """Write the root's ``zarr.json``, with the metadata of all arrays and groups or without."""
        text = json.dumps(self.attributes, allow_nan=False, ensure_ascii=False)
        document = group_document()
        document["attributes"] = {ATTRIBUTE: text, CHECKSUM: checksum(text)}
        if consolidated:
            nodes = {**self.arrays(), **{path: group_document() for path in GROUPS}}
            document["consolidated_metadata"] = {"kind": "inline", "must_understand": False, "metadata": nodes}
        data = json_bytes(document)
        if len(data) > MOST_DOCUMENT_BYTES:
            raise FormatError(
                f"the store's {ROOT_KEY} would have {len(data)} bytes, of at most {MOST_DOCUMENT_BYTES}: it has too "
                "many labels, targets or tracks"
            )
        return data

    def nodes(self) -> dict[str, dict[str, Any]]:
        """Return the ``zarr.json`` of all groups and arrays below the root, by key; groups before what is in them."""
        nodes = {**{path: group_document() for path in GROUPS}, **self.arrays()}
        return {f"{path}/{ROOT_KEY}": node for path, node in nodes.items()}

    # ---- metadata of arrays, which follows from it

    def arrays(self) -> dict[str, dict[str, Any]]:
        """Metadata of every array, by path."""
        return self._arrays

    @lazy
    def _arrays(self) -> dict[str, dict[str, Any]]:
        layout, positions = self.layout, self.layout.positions
        extents = array_document(
            [len(self.targets), EXTENT_PARTS, len(self.channels), self.chunks],
            "uint32",
            0,
            ["target", "part", "channel", "chunk"],
            [1, EXTENT_PARTS, len(self.channels), positions],
        )
        arrays = {
            MAGNITUDE: self._magnitude(),
            "target": array_document([len(self.targets)], "string", "", ["target"]),
            "channel": array_document([len(self.channels)], "string", "", ["channel"]),
            "frequency": array_document([layout.bins], "float64", 0.0, ["frequency"]),
            EXTENT: extents,
        }
        for column in self.columns:
            of_each = [len(self.targets)] if column.by_target else []
            arrays[column.path] = array_document(
                [self.tracks, *of_each],
                column.data_type,
                "NaN" if column.data_type == "float64" else column.fill_value,
                ["track", "target"] if of_each else ["track"],
                [layout.rows, *of_each],
            )
        return arrays

    def _magnitude(self) -> dict[str, Any]:
        layout = self.layout
        quality = {"quality": self.encoder["quality"]} if "quality" in self.encoder else {}
        jpeg = {"name": JPEG, "configuration": {**quality, "filter": layout.curve.config}}
        sharding = {
            "chunk_shape": [1, 1, layout.chunk_frames, layout.bins],
            "codecs": [jpeg, {"name": "crc32c"}],
            "index_codecs": [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}],
            "index_location": "end",
        }
        shard = [1, len(self.channels), layout.shard_frames, layout.bins]
        metadata = array_document(
            [len(self.targets), len(self.channels), self.frames, layout.bins], "float32", "NaN", DIMENSIONS
        )
        metadata["chunk_grid"] = regular_grid(shard)
        metadata["codecs"] = [{"name": "sharding_indexed", "configuration": sharding}]
        return metadata

    # ---- blocks of small arrays

    def check_block(self, path: str, block: Sequence[int], data: bytes | None) -> NDArray[Any]:
        """Decode a block of a small array, and see that it is that of this state, or of one with more rows.

        Raises
        ------
        DamagedError
            If it isn't, or can't be decoded.
        """
        metadata = self.arrays()[path]
        if data is None:
            raise DamagedError("the file is missing")
        try:
            whole = decode_block(metadata, data)
        except DamagedError as error:
            raise DamagedError(f"the file can't be read: {error}") from error
        valid = valid_part(metadata, block, whole)
        if not self.knows(path, block, valid):
            raise DamagedError("the file isn't that of this state of the store: its checksum is another one")
        return valid

    def knows(self, path: str, block: Sequence[int], values: NDArray[Any]) -> bool:
        """Whether the valid values of a block are those of this state."""
        return block_sum(self.id, path, block, values) == self.sums[path][block_number(self.arrays()[path], block)]

    def with_blocks(self, blocks: Mapping[tuple[str, tuple[int, ...]], NDArray[Any]]) -> Document:
        """Return a document whose checksums are those of some blocks, and of all others as they were.

        Parameters
        ----------
        blocks : mapping
            By path and position: the values of a block that are valid.
        """
        arrays = self.arrays()
        sums = {path: _grown(self.sums.get(path, ()), arrays[path]) for path in self.small_arrays}
        for (path, block), values in blocks.items():
            sums[path][block_number(arrays[path], block)] = block_sum(self.id, path, block, values)
        return replace(self, sums={path: tuple(of_blocks) for path, of_blocks in sums.items()})

    @property
    def small_arrays(self) -> tuple[str, ...]:
        """Paths of all arrays but the magnitudes."""
        return ("target", "channel", "frequency", EXTENT, *(column.path for column in self.columns))

    # ---- reading

    @classmethod
    def from_json(cls, data: bytes, store: str) -> Document:
        """Read the root's ``zarr.json``, and check all that opens the store.

        Parameters
        ----------
        data : bytes
        store : str
            Name of the store, for errors.

        Raises
        ------
        FormatError
            That names every fault at once, or says that the version is newer than this library, or that the checksum
            is another one.
        """
        text, found = _own_attributes(data, store)
        attributes = _parse(text, store)
        _check_version(attributes, store)
        expected = checksum(text)
        if found != expected:
            raise FormatError(
                f"{store}: the checksum of its document is {expected}, and {shown(found)} is written there: it was "
                "damaged, or changed by hand"
            )
        _refuse(_faults(attributes), attributes, store)
        document = cls._of(dict(attributes))
        _refuse(_block_faults(document.arrays()), attributes, store)
        return document

    @classmethod
    def _of(cls, attributes: dict[str, Any]) -> Document:
        """Take what was checked."""
        sums = dict(attributes.pop("sums", {}))
        sums.pop("algorithm", None)
        features = attributes.pop("features", {})
        return cls(
            targets=tuple(attributes.pop("targets")),
            channels=tuple(attributes.pop("channels")),
            transform=attributes.pop("transform"),
            layout=Layout(**attributes.pop("layout"), curve=curve_from_config(attributes.pop("curve"))),
            labels=tuple(label_column_of(**label) for label in attributes.pop("labels", [])),
            sums={path: _decode_sums(text) for path, text in sums.items()},
            pending=tuple(attributes.pop("pending", [])),
            about={key: attributes.pop(key) for key in _ABOUT if key in attributes},
            reads=tuple(features.get("read", [])),
            writes=tuple(features.get("write", [])),
            **{key: attributes.pop(key) for key in ("id", "revision", "edition", "tracks", "chunks", "version")},
            **{key: attributes.pop(key, "") for key in ("created", "modified", "created_with")},
            encoder=attributes.pop("encoder", {}),
            unknown=attributes,
        )


def extent_block(target: int, block: int) -> tuple[str, tuple[int, ...]]:
    """Path and position of a block of a target's extents."""
    return EXTENT, (target, 0, 0, block)


def pending_key(revision: int, key: str) -> str:
    """Key of the new bytes of a file that a change replaces, until they are in its place."""
    return f"{PENDING}/{revision}/{key}"


def checksum(text: str) -> str:
    """Return the CRC-32C of a text in UTF-8, eight hexadecimal digits."""
    return f"{google_crc32c.value(text.encode()):08x}"


def block_sum(store_id: str, path: str, block: Sequence[int], values: NDArray[Any]) -> int:
    """Return the CRC-32C that tells a block of a small array from any other.

    Parameters
    ----------
    store_id : str
        32 hexadecimal digits.
    path : str
        Of the array, without a leading "/".
    block : tuple of int
        Position of the block along each axis.
    values : ndarray
        Those that are valid: rows, or chunks, that are committed.

    Returns
    -------
    int
        Over the id's 16 bytes; the path in UTF-8, and a zero; the positions, uint32 each; and the values in C order:
        numbers little-endian, truth values one byte each, texts as their length (uint32) and UTF-8.
    """
    head = bytes.fromhex(store_id) + path.encode() + b"\0" + np.array(block, "<u4").tobytes()
    found = google_crc32c.value(head)
    for part in _parts(values):
        found = google_crc32c.extend(found, part)
    return int(found)


def _parts(values: NDArray[Any]) -> Iterator[bytes]:
    """What is taken of values, in parts that need little memory."""
    if values.dtype != object:
        yield np.ascontiguousarray(values, values.dtype.newbyteorder("<")).tobytes()
        return
    flat = values.ravel()
    for begin in range(0, len(flat), _TEXTS_AT_A_TIME):
        texts = [str(text).encode() for text in flat[begin : begin + _TEXTS_AT_A_TIME].tolist()]
        yield b"".join(len(text).to_bytes(4, "little") + text for text in texts)


def _grown(sums: Sequence[int], metadata: Metadata) -> list[int]:
    """Make room for the checksums of an array that has grown along its growing axis, or shrunk: zeros where new."""
    counts = block_counts(metadata)
    # the one axis along which blocks are added is the last of extents, and the first of everything else
    last = metadata["dimension_names"][-1] == "chunk"
    other = math.prod(counts[:-1]) if last else math.prod(counts[1:])
    if not other or not math.prod(counts):
        return []
    before = np.array(sums, np.int64).reshape((other, -1) if last else (-1, other))
    grown = np.zeros((other, counts[-1]) if last else (counts[0], other), np.int64)
    kept = tuple(map(slice, np.minimum(before.shape, grown.shape).tolist()))
    grown[kept] = before[kept]
    return [int(each) for each in grown.ravel()]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _encode_sums(sums: tuple[int, ...]) -> str:
    return base64.b64encode(np.array(sums, "<u4").tobytes()).decode()


def _decode_sums(text: str) -> tuple[int, ...]:
    return tuple(np.frombuffer(base64.b64decode(text), "<u4").tolist())


def _own_attributes(data: bytes, store: str) -> tuple[str, Any]:
    """Find the document's text in a ``zarr.json``, and the checksum that stands beside it."""
    if len(data) > MOST_DOCUMENT_BYTES:
        raise FormatError(f"{store}: its zarr.json has at most {MOST_DOCUMENT_BYTES} bytes, found {len(data)}")
    try:
        root = read_json(data)
    except UnicodeEncodeError as error:
        raise FormatError(f"{store}: its document isn't JSON: {error}") from None
    except ValueError:
        root = None
    attributes = root.get("attributes") if isinstance(root, dict) else None
    text = attributes.get(ATTRIBUTE) if isinstance(attributes, dict) else None
    if not isinstance(attributes, dict) or not isinstance(text, str):
        raise FormatError(
            f"{store} is no norbert_store: its zarr.json has no attribute {ATTRIBUTE!r} with a document; "
            "xarray.open_zarr opens other zarr data"
        )
    return text, attributes.get(CHECKSUM)


def _parse(text: str, store: str) -> dict[str, Any]:
    try:
        attributes = read_json(text)
    except ValueError as error:
        raise FormatError(f"{store}: its document isn't JSON that can be read: {error}") from None
    if not isinstance(attributes, dict):
        raise FormatError(f"{store}: its document must be a JSON object, found {shown(attributes)}")
    return attributes


def _check_version(attributes: Mapping[str, Any], store: str) -> None:
    version = attributes.get("version")
    match = re.fullmatch(r"([0-9]{1,9})\.[0-9]{1,9}", version) if isinstance(version, str) else None
    if match is None:
        raise FormatError(f"{store}: its document has no version such as {VERSION!r}; found {shown(version)}")
    if int(match[1]) > int(VERSION.split(".")[0]):
        raise FormatError(
            f"{store} is written in format {version}; this is norbert_store {__version__}, which reads up to "
            f"format {VERSION}: upgrade norbert_store"
        )
    features = attributes.get("features", {})
    needed = features.get("read", []) if isinstance(features, dict) else None
    if needed:
        raise FormatError(
            f"{store} needs features that norbert_store {__version__} can't read: {shown(needed)}; upgrade it"
        )


def _refuse(faults: Sequence[str], attributes: Mapping[str, Any], store: str) -> None:
    if faults:
        more = [f"and {len(faults) - _MOST_FAULTS_TOLD} more"] if len(faults) > _MOST_FAULTS_TOLD else []
        told = "; ".join([*faults[:_MOST_FAULTS_TOLD], *more])
        raise FormatError(f"{store} breaks format {attributes['version']}: {told}")


def _faults(attributes: Mapping[str, Any]) -> list[str]:
    """All that is wrong with a document's keys."""
    faults = [f"{key!r} is missing" for key in _REQUIRED if key not in attributes]
    faults += [
        f"{key!r} must be a whole number, found {shown(attributes[key])}"
        for key in ("tracks", "chunks", "revision", "edition")
        if key in attributes and not _is_size(attributes[key])
    ]
    if "id" in attributes and not (isinstance(attributes["id"], str) and _ID.fullmatch(attributes["id"])):
        faults.append(f"'id' must be 32 hexadecimal digits, found {shown(attributes['id'])}")
    for key in ("targets", "channels"):
        faults += _name_faults(key, attributes.get(key, [key]))
    transform = attributes.get("transform", {"name": ""})
    if not isinstance(transform, dict) or not isinstance(transform.get("name"), str):
        faults.append(f"'transform' must be an object with a name, found {shown(transform)}")
    for key in ("encoder", "features", "sums"):
        if not isinstance(attributes.get(key, {}), dict):
            faults.append(f"{key!r} must be an object, found {shown(attributes[key])}")
    faults += _feature_faults(attributes.get("features"))
    faults += [
        f"{key!r} must be text, found {shown(attributes[key])}"
        for key in (*_ABOUT, "created", "modified", "created_with")
        if not isinstance(attributes.get(key, ""), str)
    ]
    faults += _curve_faults(attributes.get("curve", PowerCurve().config))
    faults += _layout_faults(attributes.get("layout"))
    faults += _label_faults(attributes.get("labels", []))
    return faults or _size_faults(attributes) or [*_sum_faults(attributes), *_pending_faults(attributes)]


def _feature_faults(features: Any) -> list[str]:
    if not isinstance(features, dict):
        return []
    return [
        f"'features' must have a list of names for {what!r}, found {shown(names)}"
        for what in ("read", "write")
        if not isinstance(names := features.get(what, []), list) or not all(isinstance(name, str) for name in names)
    ]


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < LARGEST_NUMBER


def _name_faults(key: str, names: Any) -> list[str]:
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        return [f"{key!r} must be a list of names, found {shown(names)}"]
    if len(names) > MOST_NAMES:
        return [f"{key!r} must be at most {MOST_NAMES} names, found {len(names)}"]
    if len(set(names)) != len(names):
        return [f"{key!r} names something twice: {shown(names)}"]
    problems = ((name, name_problem(name)) for name in names)
    return [f"{key!r} must be a list of names; {shown(name)} {problem}" for name, problem in problems if problem]


def _curve_faults(curve: Any) -> list[str]:
    try:
        expected = curve_from_config(curve).config
    except (ValueError, TypeError, AttributeError, KeyError, OverflowError) as error:
        return [f"'curve' can't be read: {shortened(str(error))}"]
    # a default might be another one some day
    if not isinstance(curve, dict) or curve.keys() != expected.keys():
        return [f"'curve' must be an object of {', '.join(expected)}; found {shown(curve)}"]
    return []


def _layout_faults(layout: Any) -> list[str]:
    if not isinstance(layout, dict) or layout.keys() != set(_LAYOUT):
        return [f"'layout' must be an object of {', '.join(_LAYOUT)}; found {shown(layout)}"]
    limits = {"bins": LARGEST_SIDE, "chunk_frames": LARGEST_SIDE, "rows": LARGEST_BLOCK, "positions": LARGEST_BLOCK}
    limits["shard_chunks"] = LARGEST_INDEX
    faults = [
        f"'layout' must have {key} from 1 to {most}, found {shown(layout[key])}"
        for key, most in limits.items()
        if not _is_size(layout[key]) or not 1 <= layout[key] <= most
    ]
    if not faults and layout["chunk_frames"] % BLOCK:
        faults.append(f"'layout' must have chunk_frames that are a multiple of {BLOCK}, found {layout['chunk_frames']}")
    if not faults and layout["chunk_frames"] * layout["bins"] > LARGEST_IMAGE:
        faults.append(
            f"'layout' must have at most {LARGEST_IMAGE} pixels in a chunk, found {layout['chunk_frames']} x "
            f"{layout['bins']}"
        )
    return faults


def _size_faults(attributes: Mapping[str, Any]) -> list[str]:
    """Sizes that are right one by one, and too large together: what they ask for is held in memory."""
    layout, channels = attributes["layout"], len(attributes["channels"])
    limits = {
        "entries in a shard's index": (channels * layout["shard_chunks"], LARGEST_INDEX),
        "blocks of small arrays": (sum(_block_counts(attributes).values()), MOST_BLOCKS),
    }
    return [
        f"there must be at most {most} {what}, found {found}" for what, (found, most) in limits.items() if found > most
    ]


def _block_faults(arrays: Mapping[str, Metadata]) -> list[str]:
    """Blocks of small arrays that are refused by all that decode them."""
    sizes = {path: decoded_bytes(metadata) for path, metadata in arrays.items() if path != MAGNITUDE}
    return [
        f"a block of /{path} has {size} bytes, of at most {LARGEST_BLOCK_BYTES}: there are too many targets or channels"
        for path, size in sizes.items()
        if size > LARGEST_BLOCK_BYTES
    ]


def _block_counts(attributes: Mapping[str, Any]) -> dict[str, int]:
    """Count the blocks of every small array, by its path."""
    layout, targets = attributes["layout"], len(attributes["targets"])
    rows = ceil_div(attributes["tracks"], layout["rows"])
    columns = [column.path for column in BASE_COLUMNS]
    columns += [f"{LABEL_GROUP}/{label['key']}" for label in attributes.get("labels", [])]
    extents = targets * ceil_div(attributes["chunks"], layout["positions"])
    return {**dict.fromkeys(columns, rows), EXTENT: extents, "target": 1, "channel": 1, "frequency": 1}


def _label_faults(labels: Any) -> list[str]:
    if not isinstance(labels, list):
        return [f"'labels' must be a list, found {shown(labels)}"]
    if len(labels) > MOST_LABELS:
        return [f"'labels' must be at most {MOST_LABELS}, found {len(labels)}"]
    faults = []
    for label in labels:
        try:
            if not isinstance(label, dict) or label.keys() != _LABEL:
                raise ValueError(f"it must be an object of {', '.join(sorted(_LABEL))}")
            label_column_of(**label)
        except ValueError as error:
            faults.append(f"the label {shown(label)} can't be read: {shortened(str(error))}")
    for what in ("name", "key"):
        seen = [label.get(what) for label in labels if isinstance(label, dict)]
        if len(set(map(str, seen))) < len(seen):
            faults.append(f"two labels have the same {what}: {shown(seen)}")
    return faults


def _sum_faults(attributes: Mapping[str, Any]) -> list[str]:
    """Every block of every small array has a checksum, and nothing else."""
    sums = dict(attributes.get("sums", {}))
    if sums.pop("algorithm", None) != "crc32c":
        return ["'sums' must be of the algorithm 'crc32c'"]
    blocks = _block_counts(attributes)
    faults = []
    for path, count in blocks.items():
        try:
            found = len(base64.b64decode(sums[path], validate=True))
        except (KeyError, TypeError, ValueError, binascii.Error):
            found = -1
        if found != 4 * count:
            faults.append(f"'sums' must have {count} checksums of /{path}")
    unknown = sorted(sums.keys() - blocks.keys())
    return faults + [f"'sums' has checksums of /{shortened(path)}, which isn't there" for path in unknown]


def _pending_faults(attributes: Mapping[str, Any]) -> list[str]:
    pending = attributes.get("pending", [])
    columns = [column.path for column in BASE_COLUMNS]
    columns += [f"{LABEL_GROUP}/{label['key']}" for label in attributes.get("labels", [])]
    blocks = [f"{path}/c/{NUMBER}" + ("/0" if path in BY_TARGET else "") for path in columns]
    allowed = re.compile("|".join([*blocks, f"{EXTENT}/c/{NUMBER}/0/0/{NUMBER}"]))
    if not isinstance(pending, list):
        return [f"'pending' must be a list, found {shown(pending)}"]
    if len(set(map(str, pending))) < len(pending):
        return [f"'pending' has a key twice: {shown(pending)}"]
    return [
        f"'pending' must not have {shown(key)}"
        for key in pending
        if not (isinstance(key, str) and (allowed.fullmatch(key) or parse_shard_key(key) is not None))
    ]
