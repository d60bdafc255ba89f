"""What is fuzzed: for each target its valid inputs, and what must hold for any other.

A target's `run` takes bytes, and returns when they were refused as they must be, or gave a right-shaped result;
whatever it raises is a finding.
"""

from __future__ import annotations

import io
import json
import random
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from hostile_jpegs import JPEG, LEVELS, PLAIN, SHAPE, Expected, Hostile, hostile_jpegs
from numcodecs.zstd import Zstd
from zarr.core.array_spec import ArrayConfig, ArraySpec
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.dtype import Float32, UInt8
from zarr.storage import MemoryStore

import norbert_store
from norbert_store._chain import FORMATS, Coder
from norbert_store._format.arrays import block_key, blocks_of, encode_block
from norbert_store._format.document import ATTRIBUTE, CHECKSUM, EXTENT, EXTENT_PARTS, ROOT_KEY, Document, checksum
from norbert_store._format.shard import ShardIndex, index_bytes, pack, with_checksum, without_checksum
from norbert_store._jpeg import stream
from norbert_store._jpeg.encoder import encode, quantisation_table
from norbert_store._jpeg.layout import Layout, read_header
from norbert_store._jpeg.rows import RowDecoder
from norbert_store._spectra.bins import transform_from_config
from norbert_store._spectra.levels import curve_from_config, table
from norbert_store.codecs import Jpeg, Quantize, ZarrJpeg, ZarrQuantize
from norbert_store.errors import DamagedError, FormatError, JpegError, NorbertStoreError

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.hostile import Draft, write_audio
from tests.hostile_calls import CALLS, WRITING, one

CHANNELS, CHUNKS = 2, 3
SHARD = "magnitude/c/0/0/0/0"
# a picture of any size may be asked for; fuzzing looks at what small files cost
_LARGEST_LEVELS = 4_000_000


@dataclass(frozen=True)
class Target:
    """One thing that takes bytes from elsewhere.

    Attributes
    ----------
    name : str
    run : callable
        Takes bytes; raises on a finding.
    seeds : callable
        Valid inputs.
    share : float
        Of all runs: quick targets take most.
    is_json : bool
        Whether inputs are JSON, and are best changed as such.
    most_megabytes : int
        What a run may add to the memory in use.
    """

    name: str
    run: Callable[[bytes], object]
    seeds: Callable[[], list[bytes]]
    share: float
    is_json: bool = False
    most_megabytes: int = 100


@contextmanager
def refusing(*errors: type[Exception]) -> Iterator[None]:
    """Let errors of this library pass, and of exactly the documented classes, if there are words in them."""
    try:
        yield
    except Exception as error:
        if (type(error) not in errors and not isinstance(error, NorbertStoreError)) or not str(error):
            raise


def expect(holds: bool, what: str) -> None:
    """Raise unless something holds."""
    if not holds:
        raise AssertionError(what)


# ---- JPEGs


def small_jpegs() -> list[bytes]:
    """Whole JPEGs of several shapes and contents, and the hostile ones that are odd but valid."""
    rng = np.random.default_rng(1)
    images = [np.zeros((8, 8)), np.full((20, 13), 255), rng.integers(0, 256, (9, 16)), rng.gamma(1, 20, (40, 24))]
    good = [encode(image.clip(0, 255).astype(np.uint8), quantisation_table(70)) for image in images]
    odd = [one.data for one in hostile_jpegs() if len(one.data) < 3000 and one.expected is Expected.RIGHT]
    return [JPEG, PLAIN, *good, *odd]


def run_header(data: bytes) -> None:
    """Read the header, by the quick look too."""
    with refusing(JpegError):
        header = read_header(data)
        rows, columns = header.shape
        expect(0 < rows < 1 << 16 and 0 < columns < 1 << 16, f"size {header.shape}")
        expect(header.scan <= len(data), f"a scan from {header.scan}")
        expect(stream.check(data, header.shape) == header, "another header the second time")
        if header.segments is not None:
            expect(len(header.segments) == -(-rows // 8), f"{len(header.segments)} segments")
            expect(min(header.segments) >= 0 and sum(header.segments) <= len(data), f"lengths {header.segments}")
        found = Layout(*header.shape).find(data)
        if found is not None:
            expect(found.scan == header.scan, f"a scan from {found.scan}, and from {header.scan}")
            expect(tuple(np.diff(found.ends) - 2) == header.segments, "other segments by the quick look")


def run_decode(data: bytes) -> None:
    """Decode into buffers that hold other things before, and into none."""
    with refusing(JpegError):
        header = read_header(data)
        if np.prod(header.shape) > _LARGEST_LEVELS:
            return
        outs = [np.full(header.shape, fill, np.uint8) for fill in (0, 255)]
        for out in outs:
            expect(stream.decode(data, out) is out, "not the buffer that was given")
        expect(np.array_equal(*outs), "something was left as it was before")
        expect(np.array_equal(stream.decode(data), outs[0]), "decodes differently without a buffer")
    with refusing(JpegError):
        stream.decode(data, np.empty(SHAPE, np.uint8))


def run_rows(data: bytes) -> None:
    """Decode some rows, which two bytes in front tell: the same as in the whole, or refused."""
    first, more, data = *(data[:2] + bytes(2))[:2], data[2:]
    with refusing(JpegError):
        rows, columns = read_header(data).shape
        if rows * columns > _LARGEST_LEVELS:
            return
        first %= rows
        stop = first + 1 + more % (rows - first)
        found = RowDecoder(rows, columns).decode(data, first, stop)
        expect(np.array_equal(found.levels, stream.decode(data)[first:stop]), "other rows than in the whole")


# ---- codecs


def chunk_spec(dtype: Any) -> ArraySpec:
    """What zarr tells a codec of its chunk."""
    config = ArrayConfig.from_dict({})
    return ArraySpec(SHAPE, dtype, dtype.default_scalar(), config, default_buffer_prototype())


def run_codecs(data: bytes) -> None:
    """Decode by both codecs' faces for numcodecs and for zarr."""
    with refusing(JpegError):
        if np.prod(read_header(data).shape) < _LARGEST_LEVELS:
            expect(Jpeg().decode(data).dtype == np.uint8, "another dtype")
    for shape in (SHAPE, (2, SHAPE[0] // 2, SHAPE[1])):
        with refusing(JpegError):
            out = np.empty(shape, np.uint8)
            expect(Jpeg().decode(bytearray(data), out) is out, "not the buffer that was given")
    magnitudes = Quantize().decode(data)
    expect(magnitudes.shape == (len(data),) and magnitudes.dtype == np.float32, "another shape or dtype")
    expect(bool(((magnitudes >= 0) & (magnitudes <= 1)).all()), "magnitudes outside 0 to 1")
    with refusing(ValueError):
        Quantize().decode(data, np.empty(SHAPE, np.float32))
    with refusing(JpegError):
        expect(decode_by_zarr(data).shape == SHAPE, "another shape")
    with refusing(JpegError):
        buffer = default_buffer_prototype().buffer.from_bytes(data)
        (magnitudes,) = sync(ZarrJpeg(filter="power").decode([(buffer, chunk_spec(Float32()))]))
        expect(not np.isinf(magnitudes.as_numpy_array()).any(), "magnitudes that are infinite")


def decode_by_zarr(data: bytes) -> np.ndarray:
    """Decode one chunk as zarr does: JPEG, then magnitudes."""
    buffer = default_buffer_prototype().buffer.from_bytes(data)
    (levels,) = sync(ZarrJpeg().decode([(buffer, chunk_spec(UInt8()))]))
    (magnitudes,) = sync(ZarrQuantize().decode([(levels, chunk_spec(Float32()))]))
    expect(magnitudes.as_numpy_array().dtype == np.float32, "another dtype")
    return levels.as_numpy_array()


def configurations() -> list[bytes]:
    """Configurations of codecs, curves and transforms, and steps of the chain, as documents and pictures hold them."""
    rate = {"rate": 8000, "n_fft": 256, "hop": 128, "window": "hann", "centred": True, "padding": "zeros"}
    mel = {"n_mels": 20, "lowest": 20.0, "bandwidth": 3500.0, "scale": "slaney"}
    steps = [
        {"step": "TF", **rate, "samples": 1000},
        {"step": "BandwidthLimiter", "bandwidth": 3500.0, "rate": 8000, "n_fft": 256},
        {"step": "PowerScaler", "exponent": 0.35, "reference": 1.0},
        {"step": "LogScaler", "range_decibel": 80.0, "reference": 1.0},
        {"step": "Quantizer"},
    ]
    objects = [
        {"curve": "power", "exponent": 0.35, "reference": 1.0},
        {"curve": "log", "range_decibel": 80.0},
        {"quality": 80.0, "filter": {"curve": "power", "exponent": 0.3}},
        {"curve": "power", "dtype": "float64"},
        {"quality": 80.0},
        {"name": "stft", **rate, "bandwidth": 3500.0},
        {"name": "mel", **rate, **mel},
        {"name": "cqt", "rate": 8000, "hop": 100, "bins_per_octave": 12},
        {"steps": steps},
    ]
    return [json.dumps(one).encode() for one in objects]


def run_configurations(data: bytes) -> None:
    """Build whatever a configuration can be one of."""
    try:
        config = json.loads(data)
    except (ValueError, RecursionError):
        return
    if not isinstance(config, dict):
        config = {"steps": config}
    with refusing(ValueError):
        curve = curve_from_config(config)
        magnitudes = table(curve)
        expect(magnitudes.shape == (256,) and bool((np.diff(magnitudes) >= 0).all()), f"a table that falls, of {curve}")
    for codec in (ZarrQuantize, ZarrJpeg):
        with refusing(ValueError):
            expect(codec.from_dict({"name": "", "configuration": config}).to_dict()["name"] != "", "no name")
    for numcodec in (Quantize, Jpeg):
        with refusing(ValueError):
            expect(numcodec.from_config(config).get_config()["id"] == numcodec.codec_id, "another id")
    with refusing(FormatError):
        transform = transform_from_config(config, np.arange(1.0, 20))
        expect(transform.frequencies.ndim == 1 and transform.rate > 0 and transform.hop > 0, f"{transform.config}")
        expect(transform.frame_seconds(3).shape == (3,), "times of another shape")
    with refusing(ValueError):
        expect(isinstance(Coder.modules(config), list), "no list")


# ---- shards and documents


def indexes() -> list[bytes]:
    """Indexes of shards, with a byte in front: whether their checksum is made right."""
    chunks = {(channel, chunk): with_checksum(bytes(20 + chunk)) for channel in range(CHANNELS) for chunk in range(2)}
    index = pack(chunks, CHANNELS, CHUNKS)[0][-index_bytes(CHANNELS, CHUNKS) :]
    entries = [(0, 2**64 - 2), (2**63, 2**63), (2**64 - 1, 2**64 - 1), (2**64 - 2, 3), (0, 0), (5, 2**63 - 1)]
    hostile = np.array(entries, "<u8").tobytes() + bytes(4)
    return [bytes((how,)) + data for how in range(2) for data in (index, hostile)]


def run_index(data: bytes) -> None:
    """Read the index of a shard, with its checksum made right, or as it is."""
    index = with_checksum(data[1:-4]) if data[:1] == b"\1" else data[1:]
    for shard_bytes in (None, 200):
        with refusing(DamagedError):
            found = ShardIndex.parse(index, CHANNELS, CHUNKS, shard_bytes)
            expect(found.entries.shape == (CHANNELS, CHUNKS, 2), f"an index of {found.entries.shape}")
            for channel in range(CHANNELS):
                for chunk in range(CHUNKS):
                    offset, length = found.place(channel, chunk) or (0, 0)
                    end = 2**63 if shard_bytes is None else shard_bytes - index_bytes(CHANNELS, CHUNKS)
                    expect(0 <= offset <= offset + length <= end, f"a chunk of {length} bytes at {offset}")


@cache
def stores() -> tuple[dict[str, bytes], ...]:
    """Two small stores, by key: STFT with labels, and ready magnitudes."""
    made = []
    rock = {"genre": "Rock", "year": 1969, "tempo": 120.5, "live": True}
    for transform, bins, labels in (
        (norbert_store.TF(rate=8000, n_fft=64), 33, rock),
        (norbert_store.ReadyBins("cqt", 8000, 100, np.arange(1.0, SHAPE[1] + 1)), SHAPE[1], {}),
    ):
        place = MemoryStore()
        options = {"transform": transform, "bandwidth": 4000.0, "chunk_frames": SHAPE[0], "shard_chunks": CHUNKS}
        with norbert_store.create(place, targets=["mixture", "vocals"], channels=CHANNELS, **options) as writer:
            levels = np.resize(LEVELS, (CHANNELS, SHAPE[0] + 5, bins)) / 255
            writer.add_magnitudes("one", {"mixture": levels.astype(np.float32), "vocals": None}, labels=labels)
        made.append({key: buffer.to_bytes() for key, buffer in place._store_dict.items()})
    return tuple(made)


def texts() -> list[bytes]:
    """What the documents say."""
    return [json.loads(store[ROOT_KEY])["attributes"][ATTRIBUTE].encode() for store in stores()]


def documents() -> list[bytes]:
    """What the documents say, and the roots that hold them."""
    return [*texts(), *(store[ROOT_KEY] for store in stores())]


def root_of(text: bytes) -> bytes:
    """The root of a store whose document says something, with a right checksum."""
    said = text.decode(errors="replace")
    return json.dumps({"attributes": {ATTRIBUTE: said, CHECKSUM: checksum(said)}}).encode()


def run_document(data: bytes) -> None:
    """Read a root, or what a document says; what it gives must be enough to open a store, and be written again."""
    for root in (data, root_of(data)):
        with refusing(FormatError):
            document = Document.from_json(root, "the store")
            again = Document.from_json(document.to_json(), "the store")
            expect(again.arrays() == document.arrays(), "other arrays when written again")
            expect(again.attributes == document.attributes, "another document when written again")
            expect(table(document.layout.curve).shape == (256,), "a table of another shape")
            expect(document.layout.chunk_frames % 8 == 0 < document.layout.shard_chunks, f"{document.layout}")
            transform_from_config(document.transform, np.arange(1.0, 9))


PARTS = ("document", "chunk", "extents", "index", "column", "block")


def run_store(data: bytes) -> None:
    """Open and read a store in which one thing is other bytes, and every checksum right.

    The first byte tells which of `PARTS`.
    """
    which, content = PARTS[data[0] % len(PARTS)] if data else PARTS[0], data[1:]
    keys = dict(stores()[1])
    if which == "document":
        keys[ROOT_KEY] = root_of(content)
    elif which == "chunk":
        keys = with_chunks({(channel, chunk): content for channel in range(CHANNELS) for chunk in range(2)})
    elif which == "extents":
        values = np.frombuffer(content[: len(content) // 4 * 4], "<u4")
        keys = with_block(keys, EXTENT, (0, 0, 0, 0), np.resize(values, (1, EXTENT_PARTS, CHANNELS, 2)))
    elif which == "index":
        # where chunks aren't at their places, the index is asked
        keys[SHARD] = b"x" + keys[SHARD][: -index_bytes(CHANNELS, CHUNKS)] + with_checksum(content)
    elif which == "column":
        start, frames = np.resize(np.frombuffer(content[: len(content) // 8 * 8], "<i8"), 2)
        keys = with_block(keys, "track/start", (0,), np.array([start]))
        keys = with_block(keys, "track/frames", (0,), np.array([frames]))
    else:
        keys["track/frames/c/0"] = with_checksum(content)
    with suppress(NorbertStoreError):
        read_all(keys)


def with_block(keys: Mapping[str, bytes], path: str, block: tuple[int, ...], values: np.ndarray) -> dict[str, bytes]:
    """A store with other values in a block of a small array, and the checksum of them."""
    document = Document.from_json(keys[ROOT_KEY], "the store").with_blocks({(path, block): values})
    data = encode_block(document.arrays()[path], values)
    return {**keys, block_key(path, block): data, ROOT_KEY: document.to_json()}


def with_chunks(chunks: Mapping[tuple[int, int], bytes]) -> dict[str, bytes]:
    """A store with other chunks (channel, chunk) in its shard, and their extents."""
    data, extents = pack({at: with_checksum(jpeg) for at, jpeg in chunks.items()}, CHANNELS, CHUNKS)
    return with_block({**stores()[1], SHARD: data}, EXTENT, (0, 0, 0, 0), extents[np.newaxis, ..., :2])


def read_all(keys: Mapping[str, bytes]) -> None:
    """Read what a store holds."""
    db = norbert_store.open(memory_store(keys))
    for track in db:
        expect(track.name == "one", f"another track, {track.name!r}")
        targets, channels, frames, bins = len(track.present), CHANNELS, track.frames, len(track.levels.frequency)
        if frames * bins > _LARGEST_LEVELS:
            return
        expect(track.levels.values.shape == (targets, channels, frames, bins), "levels of another shape")
        expect(track.magnitude.values.dtype == np.float32, "magnitudes of another dtype")
        track.jpeg("mixture", 0, 0)


def memory_store(keys: Mapping[str, bytes]) -> MemoryStore:
    """A zarr store of these keys."""
    buffer = default_buffer_prototype().buffer
    return MemoryStore({key: buffer.from_bytes(data) for key, data in keys.items()}, read_only=True)


def store_inputs() -> list[bytes]:
    """Parts of a store, each behind a byte that tells which."""
    keys = stores()[1]
    index = keys[SHARD][-index_bytes(CHANNELS, CHUNKS) : -4]
    document = Document.from_json(keys[ROOT_KEY], "the store")
    extents = document.check_block(EXTENT, (0, 0, 0, 0), keys[block_key(EXTENT, (0, 0, 0, 0))])
    parts = [
        *((0, data) for data in texts()),
        *((1, data) for data in small_jpegs()),
        (2, extents.tobytes()),
        *((3, data) for data in (index, *(tail[1:-4] for tail in indexes()[-1:]))),
        (4, np.array([0, SHAPE[0] + 5]).tobytes()),
        (5, without_checksum(keys["track/frames/c/0"])),
    ]
    return [bytes((which,)) + data for which, data in parts]


# ---- whole stores, and everything that can be asked of them


def run_whole(data: bytes) -> None:
    """Change a store in some places, as the bytes decide, with checksums made right or not; and call everything."""
    with tempfile.TemporaryDirectory() as place:
        base = Path(place)
        for name, function in [*CALLS.items(), *WRITING.items()]:
            if name in WRITING or name == next(iter(CALLS)):
                folder = base / str(len(list(base.iterdir())))
                (folder / "out").mkdir(parents=True)
                write_audio(folder)
                place_of_store = changed_store(random.Random(data)).write(folder)
            found = one(function, name, place_of_store, folder)
            problems = [problem for problem in found if not problem.startswith("takes ")]  # who watches tells these
            expect(not problems, f"{name}: {problems}")


def changed_store(rng: random.Random) -> Draft:
    """A store that is changed in one to three places."""
    draft = Draft()
    for _ in range(rng.choice((1, 1, 2, 3))):
        with suppress(NorbertStoreError, ValueError, TypeError, KeyError, OverflowError, AttributeError, IndexError):
            rng.choice(_CHANGES)(draft, rng)
    return draft


def _change_bytes(draft: Draft, rng: random.Random) -> None:
    key = rng.choice(sorted(draft.files))
    draft.files[key] = mutate(draft.files[key], [draft.files[key]], False, rng)


def _change_document(draft: Draft, rng: random.Random) -> None:
    draft.says = _mutated_json(draft.says, rng)


def _change_fitting(draft: Draft, rng: random.Random) -> None:
    """Change a number of the document, and have as many checksums as it asks for then."""
    where, key = rng.choice(((draft.says, "tracks"), (draft.says, "chunks"), (draft.says["layout"], "rows")))
    where[key] = rng.choice((0, 1, 2, 3, 5, 100, 2**16, 10**6))
    draft.fit()


def _change_block(draft: Draft, rng: random.Random) -> None:
    """Change values of a block, with the right checksum."""
    path = rng.choice([path for path in draft.document.small_arrays if path in draft.says["sums"]])
    block = next(blocks_of(draft.document.arrays()[path]))
    values = draft.values(path, block)
    at = tuple(rng.randrange(size) for size in values.shape)
    if values.dtype == object:
        values[at] = mutate(values[at].encode(), [b"[]", b"{}", b"../x"], False, rng).decode(errors="replace")
    else:
        values[at] = rng.choice((0, 1, -1, 2, 5, 100, 2**31 - 1, 2**62)) if values.dtype.kind in "iu" else rng.random()
    draft.put(path, block, values)


def _change_raw_block(draft: Draft, rng: random.Random) -> None:
    """Change what a block decodes to."""
    keys = [key for key in sorted(draft.files) if "/c/" in key and not key.startswith("magnitude/")]
    key = rng.choice(keys)
    body = bytes(Zstd().decode(without_checksum(draft.files[key])))
    draft.files[key] = with_checksum(bytes(Zstd().encode(mutate(body, [body], False, rng))))


def _change_chunks(draft: Draft, rng: random.Random) -> None:
    jpeg = draft.jpeg()
    draft.chunks(mutate(jpeg, [jpeg], False, rng))


def _swap_files(draft: Draft, rng: random.Random) -> None:
    one_key, other = rng.sample(sorted(draft.files), 2)
    draft.files[one_key], draft.files[other] = draft.files[other], draft.files[one_key]


def _lose_file(draft: Draft, rng: random.Random) -> None:
    del draft.files[rng.choice(sorted(draft.files))]


def _add_file(draft: Draft, rng: random.Random) -> None:
    key = rng.choice(sorted(draft.files))
    names = (f"pending/1/{key}", f"{key}.partial", "writer.lock", "magnitude/c/0/0/7/0", f"{key}x")
    draft.files[rng.choice(names)] = draft.files[key]


def _pend(draft: Draft, rng: random.Random) -> None:
    keys = [key for key in sorted(draft.files) if "/c/" in key]
    draft.says["pending"] = rng.sample(keys, rng.choice((1, 2)))


_CHANGES = (
    *(_change_bytes, _change_document, _change_document, _change_fitting, _change_block, _change_block),
    *(_change_raw_block, _change_chunks, _swap_files, _lose_file, _add_file, _pend),
)


# ---- pictures


def pictures() -> list[bytes]:
    """A picture in every format, with a note."""
    levels = LEVELS[:16, :24].T.reshape(24, 8, 2)
    files = []
    for name in FORMATS:
        file = io.BytesIO()
        Coder(name).encode(levels, file)
        files.append(file.getvalue())
    return [*files, JPEG, PLAIN]


def run_picture(data: bytes) -> None:
    """Read a picture, and build the modules that its note tells of."""
    with refusing(ValueError, JpegError):
        levels, metadata = Coder().decode(io.BytesIO(data))
        expect(levels.ndim == 3 and levels.dtype == np.uint8 and levels.size > 0, f"{levels.shape}, {levels.dtype}")
        expect(levels.shape[2] == metadata["channels"], f"{levels.shape} of {metadata['channels']} channels")
        Coder.modules(metadata)


TARGETS = {
    target.name: target
    for target in (
        Target("header", run_header, small_jpegs, 0.30),
        Target("rows", run_rows, lambda: [bytes((0, 2)) + data for data in small_jpegs()], 0.20),
        Target("decode", run_decode, small_jpegs, 0.15),
        Target("codecs", run_codecs, small_jpegs, 0.03),
        # the filters of mel bands are as large as a configuration asks for, up to a limit
        Target("configurations", run_configurations, configurations, 0.08, is_json=True, most_megabytes=1000),
        Target("index", run_index, indexes, 0.12),
        Target("document", run_document, documents, 0.05, is_json=True),
        # libtiff makes up what isn't there, of pictures that aren't too large to be believed
        Target("picture", run_picture, pictures, 0.05, most_megabytes=400),
        Target("store", run_store, store_inputs, 0.02),
        Target("whole", run_whole, lambda: [b"0"], 0.001, most_megabytes=300),
    )
}


# ---- ways to a hostile JPEG's levels

GOOD = stream.decode(JPEG)


def levels_by_coder(data: bytes) -> np.ndarray:
    """Levels by the chain's coder, which shows frequencies from the bottom up, and time to the right.

    The coder takes pictures of other kinds and sizes as well.
    """
    levels, _ = Coder().decode(io.BytesIO(data))
    if not data.startswith(b"\xff\xd8") or levels.shape != (SHAPE[1], SHAPE[0], 1):
        raise ValueError("a right picture, but not the one that was expected")
    return np.asarray(levels)[:, ::-1, 0].T


def levels_by_store(data: bytes) -> np.ndarray:
    """Levels by a store that holds the JPEG in a shard, with a right checksum."""
    return norbert_store.open(store_of(data))[0].levels.values[0, 0, : SHAPE[0]]


def levels_by_zarr(data: bytes) -> np.ndarray:
    """Levels by the same store, read by zarr alone."""
    magnitude = zarr.open_array(store_of(data), path="magnitude", mode="r")[0, 0, : SHAPE[0]]
    if np.isnan(magnitude).any():
        raise DamagedError("it isn't as high or wide as the chunk")  # which zarr can't know
    return np.searchsorted(table(curve_from_config({})), magnitude).astype(np.uint8)


def store_of(data: bytes) -> MemoryStore:
    """A store with this JPEG in place of its first chunk."""
    return memory_store(with_chunks({(0, 0): data, (0, 1): JPEG, (1, 0): JPEG, (1, 1): JPEG}))


READERS: dict[str, Callable[[bytes], np.ndarray]] = {
    "stream": lambda data: stream.decode(data, np.empty(SHAPE, np.uint8)),
    "numcodecs": lambda data: Jpeg().decode(data, np.empty(SHAPE, np.uint8)),
    "zarr codecs": decode_by_zarr,
    "Coder": levels_by_coder,
    "store": levels_by_store,
    "store, by zarr": levels_by_zarr,
}


def wrong(jpeg: Hostile, read: Callable[[bytes], np.ndarray]) -> str | None:
    """Read a hostile JPEG, and tell what is wrong with what came of it; None if nothing is."""
    try:
        levels = read(jpeg.data)
    except NorbertStoreError as error:
        found = "refused" if str(error) else "refused without a word"
    except ValueError as error:
        # of no JPEG at all, the coder may say so
        found = "refused" if type(error) is ValueError and read is levels_by_coder else f"raised {error!r}"
    except Exception as error:
        found = f"raised {error!r}"
    else:
        found = "right" if np.array_equal(levels, GOOD) else f"gave wrong values of shape {levels.shape}"
    allowed = {
        Expected.REFUSED: ("refused",),
        Expected.RIGHT: ("right",),
        Expected.SHAPED: ("right", f"gave wrong values of shape {SHAPE}"),
    }[jpeg.expected]
    # a store takes no more bytes for a chunk than its pixels can need
    too_large = read is levels_by_store and len(jpeg.data) > 200_000 and found == "refused"
    return None if found in allowed or too_large else f"{jpeg.name}: {found}; expected {jpeg.expected.value}"


# ---- changes


def mutate(data: bytes, seeds: list[bytes], is_json: bool, rng: random.Random) -> bytes:
    """Change an input in one to four places."""
    if is_json and rng.random() < 0.9:
        with suppress(ValueError, RecursionError):
            return json.dumps(_mutated_json(json.loads(data), rng)).encode()
    for _ in range(rng.choice((1, 1, 2, 4))):
        data = rng.choice(_MUTATIONS)(data, seeds, rng)
    return data


def _flip(data: bytes, seeds: list[bytes], rng: random.Random) -> bytes:
    at = rng.randrange(max(1, len(data)))
    return data[:at] + bytes(byte ^ 1 << rng.randrange(8) for byte in data[at : at + 1]) + data[at + 1 :]


def _set(data: bytes, seeds: list[bytes], rng: random.Random) -> bytes:
    at = rng.randrange(max(1, len(data)))
    return data[:at] + bytes((rng.choice((0, 1, 0x7F, 0x80, 0xD9, 0xDA, 0xFF, rng.randrange(256))),)) + data[at + 1 :]


def _cut(data: bytes, seeds: list[bytes], rng: random.Random) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + data[at + rng.choice((1, 2, 4, 8, rng.randrange(64), len(data))) :]


def _splice(data: bytes, seeds: list[bytes], rng: random.Random) -> bytes:
    other = rng.choice(seeds)
    begin, at = rng.randrange(len(other) + 1), rng.randrange(len(data) + 1)
    return data[:at] + other[begin : begin + rng.randrange(64)] + data[at + rng.choice((0, rng.randrange(64))) :]


def _repeat(data: bytes, seeds: list[bytes], rng: random.Random) -> bytes:
    at, length = rng.randrange(len(data) + 1), rng.randrange(1, 40)
    return data[:at] + data[at : at + length] * rng.randrange(1, 8) + data[at + length :]


def _number(data: bytes, seeds: list[bytes], rng: random.Random) -> bytes:
    """Write a number that is often wrong for a length or a size, in either byte order."""
    width = rng.choice((2, 4, 8))
    value = rng.choice((0, 1, 2, 3, 7, 255, 256, 65500, 65535, -1, -2, 2**31, 2**31 - 1, 2**63, len(data)))
    at = rng.randrange(len(data) + 1)
    number = (value % 256**width).to_bytes(width, rng.choice(("big", "little")))
    return data[:at] + number + data[at + width :]


_MUTATIONS = (_flip, _set, _cut, _splice, _repeat, _number)

_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 8, 255, 65536, 2**31, 2**63, 2**64, 10**30, 10**400, 0.0, 0.5, -0.5, 1e-300),
    *(1e300, float("nan"), float("inf"), "", "x", "power", "stft", "é", "\ud800", "1.0", "2.0", "x" * 1000),
    *([], [[]], [0], ["x", "x"], {}, {"": 0}, {"name": "x"}),
)


def _mutated_json(value: Any, rng: random.Random) -> Any:
    """Change one value, key or item anywhere within."""
    if isinstance(value, dict | list) and value and rng.random() < 0.9:
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        key = rng.choice(keys)
        chance = rng.random()
        if chance < 0.08:
            value.pop(key)
        elif chance < 0.12 and isinstance(value, dict):
            value[rng.choice(("", "x", "name", "curve", "id", "step", "codecs"))] = value[key]
        elif chance < 0.12:
            value.append(value[key])
        else:
            value[key] = _mutated_json(value[key], rng)
        return value
    if isinstance(value, int | float) and not isinstance(value, bool) and rng.random() < 0.4:
        return rng.choice((value + 1, value - 1, -value, value * 2, value * 8, value // 2, str(value)))
    return rng.choice(_VALUES)
