"""The document that commits and opens a store: the root's ``zarr.json``, with every array's metadata inline.

Writing it is the commit: it is one atomic write, and whoever reads it sees one consistent state. Each array has a
``zarr.json`` of its own as well, for programs that don't know consolidated metadata; it is as old as the last time
the store was closed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import google_crc32c

from norbert_store._format.arrays import array_document, group_document, json_bytes, regular_grid
from norbert_store._format.layout import MAGNITUDE, Layout
from norbert_store._format.table import BASE_COLUMNS, BASE_NAMES, TRACK_GROUP, Column
from norbert_store._jpeg.layout import BLOCK, LARGEST_SIDE
from norbert_store._spectra.levels import curve_from_config
from norbert_store._version import __version__
from norbert_store.errors import FormatError

VERSION = "1.0"
ROOT_KEY = "zarr.json"
MOST_DOCUMENT_BYTES = 64 * 2**20
ATTRIBUTE = "norbert_store"
CHECKSUM = "checksum"

DIMENSIONS = ("target", "channel", "frame", "frequency")

# as in norbert_store.codecs, which isn't imported here: it loads the encoder, and opening a store must not
QUANTIZE = "norbert_store.quantize"
JPEG = "norbert_store.jpeg"

# rows; what an array of texts takes in memory has to stay bounded
LARGEST_BLOCK = 2**20

_REQUIRED = ("version", "tracks", "frames", "targets", "channels", "transform")


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
    frames : int
        Used length of the packed time axis.
    labels : tuple of Column
        Columns of the track table besides `BASE_COLUMNS`.
    encoder : dict
        What the encoder was told; decoding never needs it.
    about : dict
        "title", "license", "citation", as far as given.
    unknown : dict
        Attributes that this version doesn't know; they are kept.
    """

    targets: tuple[str, ...]
    channels: tuple[str, ...]
    transform: dict[str, Any]
    layout: Layout
    tracks: int = 0
    frames: int = 0
    labels: tuple[Column, ...] = ()
    encoder: dict[str, Any] = field(default_factory=dict)
    about: dict[str, str] = field(default_factory=dict)
    unknown: dict[str, Any] = field(default_factory=dict)
    version: str = VERSION
    created_with: str = f"norbert_store {__version__}"

    @property
    def columns(self) -> tuple[Column, ...]:
        """All columns of the track table."""
        return (*BASE_COLUMNS, *self.labels)

    @property
    def attributes(self) -> dict[str, Any]:
        """The root's attribute ``norbert_store``."""
        return {
            **self.unknown,
            "version": self.version,
            "tracks": self.tracks,
            "frames": self.frames,
            "targets": list(self.targets),
            "channels": list(self.channels),
            "transform": self.transform,
            "encoder": self.encoder,
            "created_with": self.created_with,
            **self.about,
        }

    def arrays(self) -> dict[str, dict[str, Any]]:
        """Metadata of every array, by path."""
        arrays = {
            MAGNITUDE: self._magnitude(),
            "target": array_document([len(self.targets)], "string", "", ["target"]),
            "channel": array_document([len(self.channels)], "string", "", ["channel"]),
            "frequency": array_document([self.layout.bins], "float64", 0.0, ["frequency"]),
        }
        for column in self.columns:
            two_dimensional = column.name == "present"
            arrays[f"{TRACK_GROUP}/{column.name}"] = array_document(
                [self.tracks, len(self.targets)] if two_dimensional else [self.tracks],
                column.data_type,
                "NaN" if column.data_type == "float64" else column.fill_value,
                ["track", "target"] if two_dimensional else ["track"],
                rows_per_block=self.layout.rows,
            )
        return arrays

    def _magnitude(self) -> dict[str, Any]:
        layout = self.layout
        own: list[dict[str, Any]] = [
            {"name": QUANTIZE, "configuration": layout.curve.config},
            {"name": JPEG, "configuration": {"quality": self.encoder["quality"]} if "quality" in self.encoder else {}},
            {"name": "crc32c"},
        ]
        sharding = {
            "chunk_shape": [1, 1, layout.chunk_frames, layout.bins],
            "codecs": own if layout.codecs is None else list(layout.codecs),
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

    @property
    def checksum(self) -> str:
        """CRC-32C, in hexadecimal, of all that values and labels depend on, however it is written."""
        essence = replace(self, encoder={})  # decoding doesn't need what the encoder was told
        attributes = {key: essence.attributes[key] for key in _REQUIRED if key != "version"}
        said = json.dumps([attributes, essence.arrays()], sort_keys=True, separators=(",", ":"))
        return f"{google_crc32c.value(said.encode()):08x}"

    def to_json(self) -> bytes:
        """Write the root's ``zarr.json``."""
        nodes = {**self.arrays(), TRACK_GROUP: group_document()}
        document = group_document()
        document["attributes"] = {ATTRIBUTE: {**self.attributes, CHECKSUM: self.checksum}}
        document["consolidated_metadata"] = {"kind": "inline", "must_understand": False, "metadata": nodes}
        return json_bytes(document)

    @classmethod
    def from_json(cls, data: bytes, store: str) -> Document:
        """Read the root's ``zarr.json``, and check all of it.

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
        try:
            root = json.loads(data)
            attributes = dict(root["attributes"][ATTRIBUTE])
            version = str(attributes["version"])
            major = int(version.split(".")[0])
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise FormatError(
                f"{store} is no norbert_store: its zarr.json has no attribute {ATTRIBUTE!r} with a version; "
                "xarray.open_zarr opens other zarr data"
            ) from None
        if major > int(VERSION.split(".")[0]):
            raise FormatError(
                f"{store} is written in format {version}; this is norbert_store {__version__}, which reads up to "
                f"format {VERSION}: upgrade norbert_store"
            )
        faults = _attribute_faults(attributes)
        known = not faults
        nodes = _inline_nodes(root, faults)
        layout = _read_layout(nodes, attributes if known else None, faults) if MAGNITUDE in nodes else None
        labels = _read_labels(nodes, faults)
        if known and layout is not None:
            faults += _shape_faults(nodes, attributes, layout)
        if faults or layout is None:
            raise FormatError(f"{store} breaks format {version}: " + "; ".join(faults))
        checksum = attributes.pop(CHECKSUM, None)  # stores that others write have none
        about = {key: attributes.pop(key) for key in ("title", "license", "citation") if key in attributes}
        document = cls(
            targets=tuple(attributes.pop("targets")),
            channels=tuple(attributes.pop("channels")),
            transform=attributes.pop("transform"),
            layout=layout,
            tracks=attributes.pop("tracks"),
            frames=attributes.pop("frames"),
            labels=labels,
            encoder=attributes.pop("encoder", {}),
            about=about,
            version=attributes.pop("version"),
            created_with=str(attributes.pop("created_with", "")),
            unknown=attributes,
        )
        # other codecs were put there by somebody else
        if layout.codecs is None and checksum not in (None, document.checksum):
            raise FormatError(
                f"{store}: the checksum of its zarr.json is {document.checksum}, and {checksum!r} is written there: it "
                "was damaged, or changed by hand (take the attribute 'checksum' out if you did)"
            )
        return document


def _attribute_faults(attributes: Mapping[str, Any]) -> list[str]:
    faults = [f"attribute {key!r} is missing" for key in _REQUIRED if key not in attributes]
    faults += [
        f"attribute {key!r} must be a whole number, found {attributes[key]!r}"
        for key in ("tracks", "frames")
        if key in attributes and _is_no_size(attributes[key])
    ]
    for key in ("targets", "channels"):
        labels = attributes.get(key, [key])
        if not isinstance(labels, list) or not labels or not all(isinstance(label, str) and label for label in labels):
            faults.append(f"attribute {key!r} must be a list of names, found {labels!r}")
        elif len(set(labels)) != len(labels):
            faults.append(f"attribute {key!r} names something twice: {labels!r}")
    transform = attributes.get("transform", {"name": ""})
    if not isinstance(transform, dict) or not isinstance(transform.get("name"), str):
        faults.append(f"attribute 'transform' must be an object with a name, found {transform!r}")
    if not isinstance(attributes.get("encoder", {}), dict):
        faults.append(f"attribute 'encoder' must be an object, found {attributes['encoder']!r}")
    return faults


def _inline_nodes(root: Mapping[str, Any], faults: list[str]) -> dict[str, Any]:
    try:
        nodes = dict(root["consolidated_metadata"]["metadata"])
    except (KeyError, TypeError, ValueError):
        faults.append("zarr.json has no inline consolidated metadata")
        return {}
    wanted = [MAGNITUDE, "target", "channel", "frequency", *(f"{TRACK_GROUP}/{column.name}" for column in BASE_COLUMNS)]
    faults.extend(f"the array /{path} is missing" for path in wanted if not isinstance(nodes.get(path), dict))
    return {path: node for path, node in nodes.items() if isinstance(node, dict)}


def _read_layout(nodes: Mapping[str, Any], attributes: Mapping[str, Any] | None, faults: list[str]) -> Layout | None:
    """Read chunks, shards, codecs and blocks from the arrays' metadata; attributes that are at fault are left out."""
    before = len(faults)
    try:
        magnitude = nodes[MAGNITUDE]
        shape = _four_sizes(magnitude["shape"])
        shard = _four_sizes(magnitude["chunk_grid"]["configuration"]["chunk_shape"])
        (sharding,) = magnitude["codecs"]
        configuration = sharding["configuration"]
        chunk = _four_sizes(configuration["chunk_shape"])
        codecs = [dict(codec) for codec in configuration["codecs"]]
        names = [codec["name"] for codec in codecs]
        index_codecs = [codec["name"] for codec in configuration["index_codecs"]]
        ready = (magnitude["data_type"], sharding["name"], index_codecs, configuration.get("index_location", "end"))
        curve = curve_from_config(codecs[0].get("configuration", {}) if names[:1] == [QUANTIZE] else {})
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        faults.append(f"the metadata of /{MAGNITUDE} can't be read: {error!r}")
        return None
    if ready != ("float32", "sharding_indexed", ["bytes", "crc32c"], "end"):
        faults.append(f"/{MAGNITUDE} must be float32 in sharding_indexed with its index at the end, found {ready}")
    rows = _read_rows(nodes.get(f"{TRACK_GROUP}/name"), faults)
    if attributes is not None:
        labelled = [len(attributes["targets"]), len(attributes["channels"]), attributes["frames"]]
        if shape[:3] != labelled:
            faults.append(f"/{MAGNITUDE} has shape {shape}; the attributes say {[*labelled, 'bins']}")
    if chunk[:2] != [1, 1] or chunk[2] < 1 or chunk[2] % BLOCK or chunk[3] != shape[3]:
        faults.append(f"chunks must be [1, 1, a multiple of {BLOCK}, {shape[3]}], found {chunk}")
    elif shard[:2] != [1, shape[1]] or shard[2] % chunk[2] or shard[2] < 1 or shard[3] != shape[3]:
        faults.append(f"shards must be [1, {shape[1]}, a multiple of {chunk[2]}, {shape[3]}], found {shard}")
    own = names == [QUANTIZE, JPEG, "crc32c"]
    if own and max(chunk) > LARGEST_SIDE:
        faults.append(f"chunks must have sides of at most {LARGEST_SIDE}, which is what a JPEG can have; found {chunk}")
    if len(faults) > before:
        return None
    return Layout(shape[3], chunk[2], shard[2] // chunk[2], curve, None if own else tuple(codecs), rows)


def _read_rows(names: Any, faults: list[str]) -> int:
    """Read how many rows a block of the track table has."""
    try:
        (rows,) = names["chunk_grid"]["configuration"]["chunk_shape"]
    except (KeyError, TypeError, ValueError):
        rows = None
    if _is_no_size(rows) or not 1 <= rows <= LARGEST_BLOCK:
        faults.append(f"blocks of the track table must have from 1 to {LARGEST_BLOCK} rows, found {rows!r}")
    return int(rows or 1)


def _four_sizes(sizes: Any) -> list[int]:
    if not isinstance(sizes, list) or len(sizes) != len(DIMENSIONS) or any(map(_is_no_size, sizes)):
        raise ValueError(f"expected the sizes of {', '.join(DIMENSIONS)}, found {sizes!r}")
    return sizes


def _is_no_size(value: Any) -> bool:
    return isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63


def _shape_faults(nodes: Mapping[str, Any], attributes: Mapping[str, Any], layout: Layout) -> list[str]:
    """Compare the other arrays' shapes with the attributes, by which they are read."""
    targets, tracks = len(attributes["targets"]), attributes["tracks"]
    shapes = {"target": [targets], "channel": [len(attributes["channels"])], "frequency": [layout.bins]}
    shapes |= {path: [tracks] for path in nodes if path.startswith(f"{TRACK_GROUP}/")}
    shapes[f"{TRACK_GROUP}/present"] = [tracks, targets]
    return [
        f"/{path} has shape {nodes[path].get('shape')}; the attributes say {shape}"
        for path, shape in shapes.items()
        if path in nodes and nodes[path].get("shape") != shape
    ]


def _read_labels(nodes: Mapping[str, Any], faults: list[str]) -> tuple[Column, ...]:
    prefix = f"{TRACK_GROUP}/"
    labels = []
    for path, node in nodes.items():
        name = path.removeprefix(prefix)
        if not path.startswith(prefix) or name in BASE_NAMES:
            continue
        data_type = node.get("data_type")
        if data_type not in ("string", "int64", "float64", "bool"):
            faults.append(f"the column /{path} has data type {data_type!r}")
            continue
        fill = float("nan") if data_type == "float64" else node.get("fill_value")
        labels.append(Column(name, data_type, fill, optional=data_type in ("string", "float64")))
    return tuple(labels)
