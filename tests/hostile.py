"""Stores of strangers that mean harm: a table of what makes each, by name.

A maker writes a store below a folder that is its own, and returns the location. Whatever else the store says is right,
checksums above all: what is wrong must be noticed for what it is.
"""

from __future__ import annotations

import base64
import io
import json
import math
import os
import socket
import struct
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numcodecs.zstd import Zstd
from zarr.storage import MemoryStore

import norbert_store
from norbert_store._format.arrays import block_key, encode_block
from norbert_store._format.document import ATTRIBUTE, CHECKSUM, EXTENT, ROOT_KEY, Document, checksum
from norbert_store._format.shard import ShardIndex, index_bytes, pack, with_checksum, without_checksum

RATE, SAMPLES = 8000, 1600
SHARD = "magnitude/c/{target}/0/0/0"
ESCAPE = "\x1b]0;OWNED\x07\x1b[2J\u202e\u2066\u200f"
LABELS = {"genre": "Rock", "tags": ["a", "b"], "year": 1969, "tempo": 120.5, "live": True}

Maker = Callable[..., Any]
STORES: dict[str, Maker] = {}

Change = Callable[..., object]
How = Callable[[Path, Path], object]


class Draft:
    """A small store that is right: two tracks, two targets, one channel, five labels; to be changed.

    Attributes
    ----------
    files : dict of str to bytes
        By key, all but the root's document.
    says : dict
        What the document says.
    """

    def __init__(self) -> None:
        files, says = _right()
        self.files: dict[str, bytes] = dict(files)
        self.says: dict[str, Any] = deepcopy(says)
        self.root: bytes | None = None

    def set(self, *path: Any) -> Draft:
        """Have the document say something: keys, and a value."""
        *keys, last, value = path
        place = self.says
        for key in keys:
            place = place[key]
        place[last] = value
        return self

    def fit(self) -> Draft:
        """Give the document as many checksums as it asks for."""
        says = self.says
        rows = -(-says["tracks"] // says["layout"]["rows"])
        extents = len(says["targets"]) * -(-says["chunks"] // says["layout"]["positions"])
        counts = {path: rows for path in says["sums"] if path.startswith(("track/", "label/"))}
        counts |= {EXTENT: extents}
        for path, count in counts.items():
            if len(base64.b64decode(says["sums"][path])) != 4 * count:
                says["sums"][path] = base64.b64encode(bytes(4 * min(count, 2**21))).decode()
        return self

    @property
    def document(self) -> Document:
        """What the document says, for programs."""
        return Document.from_json(self.to_root(), "the store")

    def values(self, path: str, block: tuple[int, ...]) -> np.ndarray:
        """Values of a block."""
        return self.document.check_block(path, block, self.files[block_key(path, block)]).copy()

    def put(self, path: str, block: tuple[int, ...], values: Any) -> Draft:
        """Have a block hold other values."""
        document = self.document.with_blocks({(path, block): values})
        self.files[block_key(path, block)] = encode_block(document.arrays()[path], values)
        self.says = document.attributes
        return self

    def cell(self, path: str, value: Any, row: int = 0) -> Draft:
        """Have a row of a column hold another value."""
        block = (0,) * len(self.document.arrays()[path]["shape"])
        values = self.values(path, block)
        values[row] = value
        return self.put(path, block, values)

    def raw(self, path: str, body: bytes, block: tuple[int, ...] = (0,)) -> Draft:
        """Have a block be other bytes, before they are compressed."""
        self.files[block_key(path, block)] = with_checksum(bytes(Zstd(level=3).encode(body)))
        return self

    def extents(self, part: int, value: int, chunk: int = 0) -> Draft:
        """Have an extent say something else."""
        values = self.values(EXTENT, (0, 0, 0, 0))
        values[0, part, :, chunk] = value
        return self.put(EXTENT, (0, 0, 0, 0), values)

    def jpeg(self) -> bytes:
        """The first chunk of the first target."""
        offset, length = self.values(EXTENT, (0, 0, 0, 0))[0, :2, 0, 0].tolist()
        return without_checksum(self.files[SHARD.format(target=0)][offset : offset + length])

    def chunks(self, jpeg: bytes) -> Draft:
        """Have every chunk of the first target be other bytes, with the right checksums."""
        document = self.document
        size = document.layout.shard_chunks
        data, extents = pack({(0, chunk): with_checksum(jpeg) for chunk in range(document.chunks)}, 1, size)
        self.files[SHARD.format(target=0)] = data
        return self.put(EXTENT, (0, 0, 0, 0), extents[np.newaxis, ..., : document.chunks])

    def to_root(self) -> bytes:
        """The root's ``zarr.json``."""
        if self.root is not None:
            return self.root
        return root_of(json.dumps(self.says))

    def write(self, folder: Path) -> Path:
        """Write it."""
        place = folder / "store.zarr"
        for key, data in {**self.files, ROOT_KEY: self.to_root()}.items():
            path = place / key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return place


def root_of(text: str) -> bytes:
    """The root's ``zarr.json`` of a document."""
    attributes = {ATTRIBUTE: text, CHECKSUM: checksum(text.encode(errors="replace").decode())}
    return json.dumps({"zarr_format": 3, "node_type": "group", "attributes": attributes}).encode()


@cache
def _right() -> tuple[dict[str, bytes], dict[str, Any]]:
    place = MemoryStore()
    noise = np.random.default_rng(0).uniform(-0.3, 0.3, (2, 2, SAMPLES))
    transform = norbert_store.TF(rate=RATE, n_fft=64)
    options: dict[str, Any] = {
        "bandwidth": 4000,
        "chunk_frames": 16,
        "shard_chunks": 8,
        "bundle_tracks": 2,
        "effort": 0,
    }
    with norbert_store.create(
        place, targets=["mixture", "vocals"], channels=1, transform=transform, title="A title", **options
    ) as writer:
        for number, name in enumerate(("one", "two")):
            stems = dict(zip(("mixture", "vocals"), noise[number], strict=True))
            about: dict[str, Any] = {
                "labels": LABELS,
                "source": f"audio/{name}",
                "metadata": {"a": [1]},
                "split": ("train", "test")[number],
            }
            writer.add(name, stems, **about)
    files = {key: buffer.to_bytes() for key, buffer in place._store_dict.items()}
    return files, json.loads(json.loads(files.pop(ROOT_KEY))["attributes"][ATTRIBUTE])


def write_audio(folder: Path) -> None:
    """Write what the tracks of a `Draft` were made of beside it."""
    noise = np.random.default_rng(0).uniform(-0.3, 0.3, (2, 2, SAMPLES))
    for name, stems in zip(("one", "two"), noise, strict=True):
        (folder / "audio" / name).mkdir(parents=True)
        for target, stem in zip(("mixture", "vocals"), stems, strict=True):
            soundfile.write(folder / "audio" / name / f"{target}.wav", stem, RATE, subtype="FLOAT")


def changed(name: str, change: Change) -> None:
    """Put a store into the table that is right but for a change."""

    def make(folder: Path) -> Path:
        draft = Draft()
        change(draft)
        return draft.write(folder)

    assert name not in STORES, name
    STORES[name] = make


def made(name: str) -> Callable[[Maker], Maker]:
    """Put a maker into the table."""

    def put(maker: Maker) -> Maker:
        assert name not in STORES, name
        STORES[name] = maker
        return maker

    return put


# ---- a store that is right


changed("right", lambda draft: None)


# ---- what the document says

VALUES: dict[str, Any] = {
    **{str(number): number for number in (-1, 0, 1, 7, 2**16, 2**31 - 1, 2**40, 10**12, 2**50, 2**53 - 1, 2**53)},
    "2^63": 2**63,
    "10^30": 10**30,
    "10^400": 10**400,
    "0.5": 0.5,
    "1e-300": 1e-300,
    "1e300": 1e300,
    "-0.5": -0.5,
    "true": True,
    "nan": math.nan,
    "inf": math.inf,
    "text": "1",
    "null": None,
    "list": [],
    "object": {},
}


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """All places in a JSON value."""
    yield path
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, child in items:
            yield from _places(child, (*path, key))


def _said() -> Iterator[tuple[tuple[Any, ...], Any]]:
    says = _right()[1]
    for path in _places(says):
        value = says
        for key in path:
            value = value[key]
        yield path, value


for _path, _value in _said():
    if isinstance(_value, int | float) and not isinstance(_value, bool):
        for _name, _other in VALUES.items():
            _where = ".".join(map(str, _path))
            changed(f"number {_where} {_name}", lambda draft, path=_path, other=_other: draft.set(*path, other))
            if _path[0] in ("tracks", "chunks", "layout") and isinstance(_other, int) and 0 < _other < 2**54:
                changed(
                    f"number {_where} {_name}, with checksums",
                    lambda draft, path=_path, other=_other: draft.set(*path, other).fit(),
                )
    elif _path:
        for _name in ("-1", "text", "null", "list", "object", "true"):
            _where = ".".join(map(str, _path))
            changed(f"value {_where} {_name}", lambda draft, path=_path, other=VALUES[_name]: draft.set(*path, other))


def _much(draft: Draft, **layout: int) -> Draft:
    draft.says["layout"] |= layout
    return draft


changed("10^12 tracks in large blocks", lambda d: _much(d, rows=2**16).set("tracks", 10**12).fit())
changed("10^6 tracks in blocks of one", lambda d: _much(d, rows=1).set("tracks", 10**5).fit())
changed("as many tracks as rows", lambda d: _much(d, rows=2**16).set("tracks", 2**16).fit())
changed("2^40 chunks", lambda d: _much(d, positions=2**16).set("chunks", 2**40).fit())
changed("2^30 chunks in shards of one", lambda d: _much(d, positions=2**16, shard_chunks=1).set("chunks", 2**30).fit())
changed("2^50 chunks a shard", lambda d: _much(d, shard_chunks=2**50))
changed("2^20 chunks a shard", lambda d: _much(d, shard_chunks=2**20))
changed("2^18 chunks a shard", lambda d: _much(d, shard_chunks=2**18))
changed("largest chunks", lambda d: _much(d, chunk_frames=65496, bins=65500))
changed("large chunks", lambda d: _much(d, chunk_frames=65496, bins=33))
changed("many channels", lambda d: d.set("channels", [str(i) for i in range(4096)]))
changed("very many channels", lambda d: d.set("channels", [str(i) for i in range(10**6)]))
changed("many targets", lambda d: d.set("targets", [str(i) for i in range(4096)]).fit())
changed("very many targets", lambda d: d.set("targets", [str(i) for i in range(10**5)]).fit())


def _labels(draft: Draft, count: int) -> None:
    draft.set("labels", [{"name": f"l{i}", "type": "string", "key": str(i)} for i in range(count)])
    draft.says["sums"] |= {f"label/{i}": "AAAAAA==" for i in range(count)}


changed("1,024 labels", lambda d: _labels(d, 1024))
changed("4,000 labels", lambda d: _labels(d, 4000))
changed("10^5 labels", lambda d: _labels(d, 10**5))
changed("10^6 labels", lambda d: d.set("labels", [{"name": "x", "type": "string", "key": "0"}] * 10**6))
changed("10^6 unknown keys", lambda d: d.says.update({str(i): i for i in range(10**6)}))
changed("10^6 faults", lambda d: d.set("pending", [f"../{i}" for i in range(10**6)]))
changed("long unknown text", lambda d: d.set("x", "ü" * 10**6))
changed("unknown text of 15 MB", lambda d: d.set("x", "x" * (15 * 10**6)))
changed("letters of four bytes", lambda d: setattr(d, "root", _root_in_utf8({**d.says, "x": "x" * 10**7 + "🎵"})))
changed("lists of nothing", lambda d: d.set("x", [[] for _ in range(10**6)]))
changed("more lists of nothing", lambda d: d.set("x", [[] for _ in range(3 * 10**6)]))
changed("deep", lambda d: d.set("x", json.loads("[" * 500 + "]" * 500)))


def _root_in_utf8(says: dict[str, Any]) -> bytes:
    text = json.dumps(says, ensure_ascii=False)
    return json.dumps({"attributes": {ATTRIBUTE: text, CHECKSUM: checksum(text)}}, ensure_ascii=False).encode()


def _text(draft: Draft, text: str) -> None:
    draft.root = root_of(text)


for _name, _body in {
    "very deep": "[" * 10**6,
    "very deep objects": '{"x":' * 10**6,
    "very deep in a key": '{"version": "1.0", "x": ' + "[" * 10**5 + "]" * 10**5 + "}",
    "a long number": '{"version": "1.0", "x": ' + "9" * 10**6 + "}",
    "a number without end": '{"version": "1.0", "x": 1e' + "9" * 10**6 + "}",
    "NaN": '{"version": "1.0", "x": NaN}',
    "half a pair": '{"version": "1.0", "x": "\\ud800"}',
    "nothing": "",
    "null": "null",
    "zero": "\0" * 100,
    "json in json": json.dumps(json.dumps(json.dumps({"version": "1.0"}))),
}.items():
    changed(f"text {_name}", lambda draft, body=_body: _text(draft, body))
    changed(f"root {_name}", lambda draft, body=_body: setattr(draft, "root", body.encode()))
changed("text a key twice", lambda d: _text(d, json.dumps(d.says)[:-1] + ', "tracks": 0}'))
changed("root no Unicode", lambda d: setattr(d, "root", b'{"attributes": {"norbert_store": "\xff"}}'))
changed(
    "root checksum is a list",
    lambda d: setattr(d, "root", d.to_root().replace(b'_crc32c": "', b'": "')),
)
changed("root without end", lambda d: setattr(d, "root", b" " * (17 * 2**20)))

for _key in ("version", "created", "modified", "created_with", "title", "license", "citation", "id"):
    changed(f"escapes in {_key}", lambda draft, key=_key: draft.set(key, ESCAPE))
changed("escapes in version 1", lambda d: d.set("version", f"1.{ESCAPE}"))
changed("escapes in a missing key's neighbour", lambda d: (d.says.pop("tracks"), d.set("title", ESCAPE)))
changed("escapes in an unknown key", lambda d: d.set(ESCAPE, ESCAPE))
changed("escapes in a transform", lambda d: d.set("transform", {"name": ESCAPE, "rate": 8000, "hop": 32, "x": ESCAPE}))
changed("escapes in a curve", lambda d: d.set("curve", "curve", ESCAPE))
changed("escapes in an encoder", lambda d: d.set("encoder", "quality", ESCAPE))
changed("escapes in features", lambda d: d.set("features", {"read": [ESCAPE], "write": []}))
changed("escapes in features to write", lambda d: d.set("features", {"read": [], "write": [ESCAPE]}))
changed("very many features to write", lambda d: d.set("features", {"read": [], "write": ["x" * 10**6]}))
changed("escapes in a path of sums", lambda d: d.set("sums", f"track/{ESCAPE}", ""))
changed("newer version", lambda d: d.set("version", "2.0"))
changed("newest version", lambda d: d.set("version", f"{'9' * 9}.0"))
changed("minor version", lambda d: d.set("version", "1.999"))

NAMES = {
    "that lead upwards": "../victim",
    "of upwards": "..",
    "that are absolute": "/tmp/victim",
    "with a drive": "C:victim",
    "with a backslash": "..\\victim",
    "with a zero": "a\0b",
    "with a new line": "a\nb",
    "with escapes": f"a{ESCAPE}b",
    "with a direction": "a\u202eb",
    "that are empty": "",
    "that are blank": " ",
    "that are very long": "x" * 10**6,
    "that are long": "x" * 300,
    "of home": "~/.profile",
}
for _how, _name in NAMES.items():
    changed(f"targets {_how}", lambda draft, name=_name: draft.set("targets", 1, name))
    changed(f"channels {_how}", lambda draft, name=_name: draft.set("channels", 0, name))
    changed(f"labels {_how}", lambda draft, name=_name: draft.set("labels", 0, "name", name))
    changed(f"tracks {_how}", lambda draft, name=_name: draft.cell("track/name", name[: 2**20 - 10]))
    changed(f"splits {_how}", lambda draft, name=_name: draft.cell("track/split", name[: 2**20 - 10]))
    changed(f"label values {_how}", lambda draft, name=_name: draft.cell("label/0", name[: 2**20 - 10]))
    changed(f"sources {_how}", lambda draft, name=_name: draft.cell("track/source", name[: 2**20 - 10]))
    changed(f"pending {_how}", lambda draft, name=_name: draft.set("pending", [name]))
    changed(f"label keys {_how}", lambda draft, name=_name: draft.set("labels", 0, "key", name))
changed("targets twice", lambda d: d.set("targets", ["mixture", "mixture"]))
changed("labels twice", lambda d: d.set("labels", 1, "name", "genre"))
changed("label keys twice", lambda d: d.set("labels", 1, "key", "0"))
changed("labels of another type", lambda d: d.set("labels", 0, "type", "strings"))
changed("tracks twice", lambda d: d.cell("track/name", "two"))
changed("targets of half a pair", lambda d: _text(d, json.dumps(d.says).replace('"vocals"', '"\\ud800"')))
changed("targets that are special for formulas", lambda d: d.set("targets", 1, "$\\frac{1}{0"))
changed("tracks that are special for formulas", lambda d: d.cell("track/name", "$\\frac{1}{0$ <b>&"))

for _name, _keys in {
    "documents": ["zarr.json", "track/name/zarr.json", "writer.lock"],
    "other places": ["track/name/c/../../../../x", "track/name/c/0/", "magnitude/c/x", "pending/1/track/name/c/0"],
    "what isn't there": ["track/name/c/7", "magnitude/c/9/9/9/9"],
    "what is there": ["track/name/c/0", "chunk/extent/c/0/0/0/0", "magnitude/c/0/0/0/0"],
    "a key twice": ["track/name/c/0", "track/name/c/0"],
    "many keys": [f"magnitude/c/0/0/{i}/0" for i in range(10**5)],
}.items():
    changed(f"pending is {_name}", lambda draft, keys=_keys: draft.set("pending", keys))
changed(
    "pending is elsewhere",
    lambda d: d.set("pending", ["track/name/c/0"]).files.update({"pending/1/track/name/c/0": b"x"}),
)

for _name, _other in {
    "short": "AAAA",
    "long": "AAAA" * 10,
    "no base64": "!",
    "a number": 5,
    "of other letters": "ü",
}.items():
    changed(f"sums are {_name}", lambda draft, other=_other: draft.set("sums", "track/name", other))
changed("sums are for 10^6 blocks", lambda d: d.set("sums", "track/name", "AAAA" * 10**6))

TRANSFORMS: dict[str, dict[str, Any]] = {
    **{f"n_fft {n}": {"n_fft": n, "hop": n // 2} for n in (2**17, 2**18, 2**22, 2**40)},
    "hop 1": {"hop": 1},
    "hop 2^62": {"hop": 2**62},
    "rate 1": {"rate": 1, "bandwidth": 0.5},
    "rate 2^62": {"rate": 2**62, "bandwidth": 1e300},
    "bandwidth 1e-300": {"bandwidth": 1e-300},
    "window of any": {"window": "x" * 10**6},
    "window with parameters": {"window": "kaiser"},
    "window slow": {"window": "dpss"},
    "window taylor": {"window": "taylor", "n_fft": 2**22, "hop": 2**21},
    "centred text": {"centred": "no"},
    "mel": {"name": "mel", "n_mels": 33, "lowest": 0.0, "scale": "htk", "n_fft": 2**14},
    "mel of many bands": {"name": "mel", "n_mels": 2**40, "lowest": 0.0, "scale": "htk"},
    "mel of large filters": {
        "name": "mel",
        "n_mels": 2000,
        "lowest": 0.0,
        "scale": "htk",
        "n_fft": 2**13,
        "hop": 2**12,
    },
    "mel of no scale": {"name": "mel", "n_mels": 3, "lowest": [], "scale": {}},
    "ready": {"name": "cqt"},
    "ready of no hop": {"name": "cqt", "hop": None},
    "ready of huge hop": {"name": "cqt", "hop": 2**62},
    "of no rate": {"rate": None},
    "of unknown keys": {"x" * 10**5: 1},
}
for _name, _with in TRANSFORMS.items():
    changed(f"transform {_name}", lambda draft, more=_with: draft.says["transform"].update(more))
for _curve in (
    {"curve": "log", "range_decibel": 700.0},
    {"curve": "log", "range_decibel": 1e-300},
    {"curve": "power", "exponent": 5e-324},
    {"curve": "power", "exponent": 1.0},
    {"curve": "x" * 10**6},
    {"curve": []},
    {"x" * 10**6: 1},
    [],
):
    _name = str(_curve)[:40]
    changed(f"curve {_name}", lambda draft, curve=_curve: draft.set("curve", curve))
    if isinstance(_curve, dict):
        changed(f"curve with {_name}", lambda draft, curve=_curve: draft.says["curve"].update(curve))


# ---- what the track table says


@cache
def _bomb(size: int) -> bytes:
    """A zstd frame that says that it decodes to many bytes, and does: blocks of one byte that is repeated."""
    head = b"\x28\xb5\x2f\xfd" + bytes((0b11100000,)) + size.to_bytes(8, "little")
    block, count = 2**17, size // 2**17
    parts = [((block << 3) | 2 | (number == count - 1)).to_bytes(3, "little") + b"\0" for number in range(count)]
    return head + b"".join(parts)


def _texts(values: Sequence[bytes], count: int | None = None) -> bytes:
    parts = [struct.pack("<I", len(value)) + value for value in values]
    return struct.pack("<I", len(values) if count is None else count) + b"".join(parts)


changed("text of 2 MB", lambda d: d.raw("track/name", _texts([b"x" * 2**21] + [b""] * 16383)))
changed("block of 4 GB", lambda d: d.files.update({"track/name/c/0": with_checksum(_bomb(2**32))}))
changed("block of 60 MB", lambda d: d.raw("track/name", _texts([b"x" * 3800] * 16384)))
changed("block of 60 MB of letters of four bytes", lambda d: d.raw("track/name", _texts(["🎵".encode() * 950] * 16384)))
changed("blocks of 60 MB", lambda d: [d.raw(path, _texts([b"x" * 3800] * 16384)) for path in _text_paths(d)])
changed("block of 2^32 texts", lambda d: d.raw("track/name", _texts([b""], 2**32 - 1)))
changed(
    "block of texts beyond its end", lambda d: d.raw("track/name", struct.pack("<II", 16384, 2**32 - 1) + b"x" * 99)
)
changed("block of no Unicode", lambda d: d.raw("track/name", _texts([b"\xff\xfe", b"\xed\xa0\x80"] + [b""] * 16382)))
changed("block of numbers too short", lambda d: d.raw("track/start", bytes(8)))
changed("block of numbers of 4 GB", lambda d: d.files.update({"track/start/c/0": with_checksum(_bomb(2**32))}))
changed("block of nothing", lambda d: d.files.update({"track/name/c/0": b""}))
changed(
    "block without a size", lambda d: d.files.update({"track/name/c/0": with_checksum(b"\x28\xb5\x2f\xfd\x00\x58")})
)


def _text_paths(draft: Draft) -> list[str]:
    return ["track/name", "track/split", "track/source", "track/metadata", "label/0", "label/1"]


for _column in ("start", "frames", "samples"):
    for _number in (-1, 0, 1, 5, 2**31, 2**53, 2**62, 2**63 - 1, -(2**63)):
        changed(f"{_column} {_number}", lambda d, c=_column, n=_number: d.cell(f"track/{c}", n))
changed("overlapping tracks", lambda d: d.cell("track/start", 0, row=1))
changed("targets absent", lambda d: d.cell("track/present", [False, False]))
changed("targets present by 255", lambda d: d.raw("track/present", b"\xff" * 2 * 16384, (0, 0)))
for _name, _text_of in {
    "deep": "[" * 10**5 + "]" * 10**5,
    "deep objects": '{"a":' * 10**5 + "1" + "}" * 10**5,
    "no json": "{",
    "a list": "[1]",
    "NaN": '{"a": NaN}',
    "a long number": '{"a": ' + "9" * 10**5 + "}",
    "half a pair": '{"a": "\\ud800"}',
    "huge": json.dumps({"a": "x" * 10**6}),
    "many": json.dumps({"a": [[]] * 3 * 10**5}),
    "escapes": json.dumps({ESCAPE: ESCAPE}),
    "twice": '{"a": 1, "a": 2}',
    "empty": "",
}.items():
    changed(f"metadata {_name}", lambda draft, text=_text_of: draft.cell("track/metadata", text))
    changed(f"texts {_name}", lambda draft, text=_text_of: draft.cell("label/1", text))
changed("texts of numbers", lambda d: d.cell("label/1", "[1, null, {}]"))
changed("truth of 5", lambda d: d.cell("label/4", 5))
changed("tempo infinite", lambda d: d.cell("label/3", math.inf))

SOURCES = {
    "passwords": "/etc/passwd",
    "of upwards": "../" * 30 + "etc/passwd",
    "a secret": "../around/secret.wav",
    "a secret folder": "../around",
    "a secret by its path": "{around}/secret.wav",
    "a secret by its URL": "file://{around}/secret.wav",
    "a secret through a link": "link",
    "a URL": "https://127.0.0.1:9/x.wav",
    "another protocol": "concat:/etc/passwd|/etc/passwd.mp4",
    "a device": "/dev/zero",
    "a device as a stem": "/dev/zero.mp4",
    "home": "~/secret.wav",
    "a FIFO": "fifo",
    "a folder of FIFOs": "fifos",
    "a huge file": "huge.wav",
    "no URL": "file://[x",
    "percents": "file:///%00%ff",
    "dot": ".",
    "the store": "store.zarr",
    "many parts": "a/" * 5 * 10**5,
    "escapes": f"x{ESCAPE}/y.wav",
    "a zero": "a\0b",
}
for _name, _reference in SOURCES.items():

    @made(f"source is {_name}")
    def _source(folder: Path, reference: str = _reference) -> Path:
        around = folder.parent / "around"
        os.mkfifo(folder / "fifo")
        (folder / "fifos").mkdir()
        for target in ("mixture", "vocals"):
            os.mkfifo(folder / "fifos" / f"{target}.wav")
        (folder / "link").symlink_to(around)
        soundfile.write(folder / "huge.wav", np.zeros(100), RATE)
        data = (folder / "huge.wav").read_bytes().replace(struct.pack("<I", 200), struct.pack("<I", 2**31 - 10**6))
        (folder / "huge.wav").write_bytes(data)
        os.truncate(folder / "huge.wav", 2**31)
        draft = Draft().cell("track/source", reference.replace("{around}", str(around)))
        # so that repair looks for it
        shard = SHARD.format(target=0)
        draft.files[shard] = draft.files[shard][:100] + b"\0\0\0\0" + draft.files[shard][104:]
        return draft.write(folder)


# ---- where chunks lie, and what they are

for _part, _what in enumerate(("offsets", "lengths", "checksums")):
    for _number in (0, 1, 4, 5, 100, 2**20, 2**31, 2**32 - 1):
        changed(f"{_what} of {_number}", lambda d, part=_part, number=_number: d.extents(part, number))
changed("overlapping extents", lambda d: d.extents(0, 10, 1))
changed("no extents", lambda d: d.put(EXTENT, (0, 0, 0, 0), d.values(EXTENT, (0, 0, 0, 0)) * 0))


def _index(draft: Draft, change: Callable[[np.ndarray], object]) -> None:
    """Change a shard's index, and move its chunks so that it is asked."""
    key, size = SHARD.format(target=0), index_bytes(1, draft.says["layout"]["shard_chunks"])
    entries = ShardIndex.parse(draft.files[key][-size:], 1, draft.says["layout"]["shard_chunks"]).entries.copy()
    change(entries)
    draft.files[key] = b"moved" + draft.files[key][:-size] + with_checksum(entries.tobytes())


for _number in (0, 2**32, 2**63 - 1, 2**63, 2**64 - 2):
    changed(f"index offset {_number}", lambda d, n=_number: _index(d, lambda e: e.__setitem__((0, 0, 0), n)))
    changed(f"index length {_number}", lambda d, n=_number: _index(d, lambda e: e.__setitem__((0, 0, 1), n)))


def _picture(mode: str, size: tuple[int, int], kind: str = "JPEG", **options: Any) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.new(mode, size).save(file, kind, **options)
    return file.getvalue()


def _with_size(jpeg: bytes, rows: int, columns: int) -> bytes:
    at = jpeg.index(b"\xff\xc0") + 5
    return jpeg[:at] + struct.pack(">HH", rows, columns) + jpeg[at + 4 :]


JPEGS: dict[str, Callable[[bytes], bytes]] = {
    "of another size": lambda jpeg: _picture("L", (16, 16)),
    "of colours": lambda jpeg: _picture("RGB", (33, 16)),
    "progressive": lambda jpeg: _picture("L", (33, 16), progressive=True),
    "of another kind": lambda jpeg: _picture("L", (33, 16), "PNG"),
    "that says it is huge": lambda jpeg: _with_size(jpeg, 65500, 65500),
    "that says it is nothing": lambda jpeg: _with_size(jpeg, 0, 0),
    "that is cut off": lambda jpeg: jpeg[: len(jpeg) // 2],
    "of a header": lambda jpeg: jpeg[:20],
    "of nothing": lambda jpeg: b"",
    "of zeros": lambda jpeg: bytes(len(jpeg)),
    "with much behind it": lambda jpeg: jpeg + bytes(1000),
    "of many segments": lambda jpeg: jpeg[:2] + b"\xff\xfe\x00\x02" * 20000 + jpeg[2:],
}
for _name, _change in JPEGS.items():
    changed(f"JPEG {_name}", lambda draft, change=_change: draft.chunks(change(draft.jpeg())))


# ---- files that are none, are missing, or are for others

KEYS = (
    "zarr.json",
    "track/name/c/0",
    "track/name/zarr.json",
    "chunk/extent/c/0/0/0/0",
    "magnitude/c/0/0/0/0",
    "writer.lock",
)


def _replaced(key: str, how: How) -> Maker:
    def make(folder: Path) -> Path:
        place = Draft().write(folder)
        path = place / key
        with suppress(FileNotFoundError):
            path.unlink()
        how(path, folder.parent / "around")
        return place

    return make


def _sparse(path: Path, size: int) -> None:
    with open(path, "wb") as file:
        file.truncate(size)


def _socket(path: Path) -> None:
    there = os.getcwd()
    os.chdir(path.parent)  # a socket's path must be short
    try:
        with socket.socket(socket.AF_UNIX) as made_socket:
            made_socket.bind(path.name)
    finally:
        os.chdir(there)


KINDS: dict[str, How] = {
    "missing": lambda path, around: None,
    "a FIFO": lambda path, around: os.mkfifo(path),
    "a socket": lambda path, around: _socket(path),
    "a folder": lambda path, around: path.mkdir(),
    "a link to a secret": lambda path, around: path.symlink_to(around / "secret.wav"),
    "a link to a device": lambda path, around: path.symlink_to("/dev/zero"),
    "a link to itself": lambda path, around: path.symlink_to(path),
    "a link to nothing": lambda path, around: path.symlink_to(around / "new"),
    "sparse": lambda path, around: _sparse(path, 2**40),
    "sparse, of 60 MB": lambda path, around: _sparse(path, 60 * 2**20),
}
for _key in KEYS:
    for _name, _kind in KINDS.items():
        made(f"{_key} is {_name}")(_replaced(_key, _kind))
for _folder in ("track", "magnitude", "track/name/c", "chunk", "label"):

    @made(f"folder {_folder} leads out")
    def _folder_out(folder: Path, key: str = _folder) -> Path:
        place = Draft().write(folder)
        (place / key).rename(folder / "moved")
        (place / key).symlink_to(folder.parent / "around")
        return place


@made("the store is a file")
def _file(folder: Path) -> Path:
    (folder / "store.zarr").write_bytes(b"x")
    return folder / "store.zarr"


@made("the store is a FIFO")
def _fifo(folder: Path) -> Path:
    os.mkfifo(folder / "store.zarr")
    return folder / "store.zarr"


@made("the store is a link to itself")
def _loop(folder: Path) -> Path:
    (folder / "store.zarr").symlink_to("store.zarr")
    return folder / "store.zarr"


for _name, _other in {
    "arrays of other codecs": {"codecs": [{"name": "bytes"}]},
    "arrays of another shape": {"shape": [2**62] * 7},
    "arrays of another type": {"data_type": "float64", "chunk_grid": None},
}.items():
    changed(
        f"{_name}",
        lambda draft, other=_other: draft.files.update(
            {
                key: json.dumps({**json.loads(data), **other}).encode()
                for key, data in draft.files.items()
                if key.endswith("/zarr.json") and b'"array"' in data
            }
        ),
    )
for _name, _data in {"deep": b"[" * 10**5, "no Unicode": b"\xff", "a list": b"[]", "NaN": b'{"shape": NaN}'}.items():
    changed(f"array's document is {_name}", lambda d, body=_data: d.files.update({"track/name/zarr.json": body}))
for _name, _found in {
    "disagrees": {"kind": "inline", "metadata": {f"track/{ESCAPE}": {"data_type": "x"}, "../x": {}}},
    "is a list": [[]],
    "is of keys": {ESCAPE: 1},
}.items():
    changed(
        f"consolidated metadata {_name}",
        lambda draft, found=_found: setattr(
            draft,
            "root",
            json.dumps({**json.loads(draft.to_root()), "consolidated_metadata": found, ESCAPE: 1}).encode(),
        ),
    )
changed("dropping.json", lambda d: d.files.update({"dropping.json": b'{"chunks": {"../victim": "eA=="}}'}))
changed("partial files", lambda d: d.files.update({f"{i}.00000000.partial": b"" for i in range(100)}))
changed("names that are no keys", lambda d: d.files.update({"a\nb": b"", "c\\d": b"", "pending/1/e\x1bf": b""}))


# ---- statistics beside a store


def _beside(draft: Draft, folder: Path, how: How) -> Path:
    place = draft.write(folder)
    how(folder / "store.zarr.statistics.npz", folder.parent / "around")
    return place


def _counts(path: Path, **arrays: Any) -> None:
    np.savez_compressed(path, **arrays)


def _bomb_of_counts(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(header, {"descr": "<i8", "fortran_order": False, "shape": (2**36,)})
        for name in ("state.npy", "counts.npy"):
            with file.open(name, "w") as member:
                member.write(header.getvalue())
                for _ in range(100):
                    member.write(bytes(2**20))


STATISTICS: dict[str, How] = {
    **{name: how for name, how in KINDS.items() if name != "missing"},
    "of nothing": lambda path, around: path.write_bytes(b""),
    "of text": lambda path, around: path.write_bytes(b"x" * 1000),
    "of objects": lambda path, around: _counts(path, state=np.array([None], object), counts=np.array([{}], object)),
    "of another store": lambda path, around: _counts(path, state="x", counts=np.zeros((2, 33, 256), np.int64)),
    "a bomb": lambda path, around: _bomb_of_counts(path),
}
for _name, _kind in STATISTICS.items():
    made(f"statistics are {_name}")(lambda folder, how=_kind: _beside(Draft(), folder, how))


# ---- packed


def _zipped(folder: Path, draft: Draft, how: int = zipfile.ZIP_STORED, more: Mapping[str, bytes] | None = None) -> Path:
    place = folder / "store.zip"
    with zipfile.ZipFile(place, "w", how) as file:
        for key, data in {**draft.files, ROOT_KEY: draft.to_root(), **(more or {})}.items():
            file.writestr(key, data)
    return place


made("zip, right")(lambda folder: _zipped(folder, Draft()))
made("zip, compressed")(lambda folder: _zipped(folder, Draft(), zipfile.ZIP_DEFLATED))
made("zip, sources")(lambda folder: _zipped(folder, Draft().cell("track/source", "../around/secret.wav")))
made("zip, upwards")(lambda folder: _zipped(folder, Draft(), more={"../victim": b"x"}))


@made("zip, a document of 3 GB")
def _large_in_zip(folder: Path) -> Path:
    place = folder / "store.zip"
    with zipfile.ZipFile(place, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file, file.open(ROOT_KEY, "w") as member:
        for _ in range(100):
            member.write(bytes(2**20))
    # the rest is only said
    data = place.read_bytes()
    place.write_bytes(data.replace(struct.pack("<I", 100 * 2**20), struct.pack("<I", 3 * 2**30)))
    return place


@made("zip, cut off")
def _cut_zip(folder: Path) -> Path:
    place = _zipped(folder, Draft())
    os.truncate(place, place.stat().st_size // 2)
    return place


@made("zip, sparse")
def _sparse_zip(folder: Path) -> Path:
    _sparse(folder / "store.zip", 2**40)
    return folder / "store.zip"
