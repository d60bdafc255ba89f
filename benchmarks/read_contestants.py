"""The contestants of `read.py`: the same magnitudes in all formats, and how excerpts of them are read.

Conventions: an excerpt is (target, channel, frame, frequency), a batch (excerpt, target, channel, frame, frequency);
audio is (samples, channels).
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import google_crc32c
import numpy as np
import scipy.fft
import soundfile
from imagecodecs import jpeg8_decode
from numpy.typing import NDArray

import norbert_store
from norbert_store._command.demo_music import write_musdb
from norbert_store._export.tracks import export_tracks
from norbert_store._format.document import ROOT_KEY, Document
from norbert_store._format.layout import shard_key
from norbert_store._format.shard import CHECKSUM_BYTES, ShardIndex, index_bytes
from norbert_store._jpeg.layout import BLOCK, Layout
from norbert_store._sources.files import AudioInfo
from norbert_store._sources.musdb import musdb_tracks
from norbert_store._sources.track import SourceTrack
from norbert_store._spectra.bins import stored_transform
from norbert_store._spectra.levels import LookUp, quantize, table
from norbert_store._spectra.stft import Stft
from norbert_store.errors import DamagedError

TARGETS = ("mixture", "vocals")
SEED = 0
THREADS = 2
LOADER_BATCHES = 4  # in one epoch of a DataLoader
MUSDB_EXCERPTS = 2  # of a batch; it starts a process for each
MUSDB_STEMS = 5
# About as many bytes as the store's JPEGs; neuroglancer's default, 75, has half of them and twice the error.
NEUROGLANCER_QUALITY = 90
# lhotse's defaults: frames in a chunk, and accuracy of the natural logarithm
LILCOM_FRAMES, LILCOM_TICK = 500, -5
LILCOM_FLOOR = 1e-5

POOL = ThreadPoolExecutor(THREADS)

Array = NDArray[Any]


# ---- the data, in all formats


class Excerpt(NamedTuple):
    """Which frames: a track's position, and the first frame in it."""

    track: int
    start: int


@dataclass(frozen=True)
class Batch:
    """Excerpts, and the indices that `Excerpts` of this library know them by."""

    indices: range
    excerpts: list[Excerpt]


class Data:
    """Tracks with all targets: once as audio, once as magnitudes, and in each format when it is first asked for.

    Parameters
    ----------
    root : Path, optional
        Of MUSDB18; the demo's music if left out.
    work : Path
        A folder; what is there already is used again.
    seconds : float
        Length of excerpts.
    batch : int
        Excerpts in a batch.
    tracks : int
        Their number, at most.
    """

    def __init__(self, root: Path | None, work: Path, seconds: float, batch: int, tracks: int) -> None:
        self.work, self.seconds, self.batch = work, seconds, batch
        check_same_music(work, {"root": str(root), "tracks": tracks, "seconds": seconds})
        self.music = self.made("music", partial(write_music, root, tracks, seconds))
        self.sources = musdb_tracks(self.music)
        self.info = info_of(self.sources[0])
        self.stft = Stft(rate=self.info.rate)
        self.stored = stored_transform(self.stft)
        self.bins = len(self.stored.frequencies)
        self.store = self.made(
            "store", lambda path: export_tracks(self.sources, path, targets=TARGETS, transform=self.stft)
        )
        self.db = norbert_store.open(self.store)
        self.position = {name: i for i, name in enumerate(self.db.names)}
        self.starts = [track.start for track in self.db]
        self.track_frames = [track.frames for track in self.db]
        self.document = Document.from_json((self.store / ROOT_KEY).read_bytes(), str(self.store))
        self.frames = self.excerpts().frames
        self.magnitudes = [np.load(path, mmap_mode="r") for path in sorted(self.npy().glob("*.npy"))]

    @property
    def audio_seconds(self) -> float:
        """Length of all tracks."""
        return sum(track.duration for track in self.db)

    @property
    def packed_shape(self) -> tuple[int, int, int, int]:
        """That of all tracks along one axis of frames, as in the store."""
        return len(TARGETS), self.info.channels, self.document.frames, self.bins

    @property
    def chunk_shape(self) -> tuple[int, int, int, int]:
        """That of the store's chunks."""
        return 1, 1, self.document.layout.chunk_frames, self.bins

    def excerpts(self, values: Any = "magnitude", **options: Any) -> Any:
        """What this library makes excerpts of."""
        return self.db.excerpts(seconds=self.seconds, targets=TARGETS, seed=SEED, values=values, **options)

    def draw(self, number: int) -> Batch:
        """Find out which excerpts are in a batch."""
        indices = range(number * self.batch, (number + 1) * self.batch)
        items = self.excerpts().read(indices)
        starts = np.rint(np.asarray(items["start"]) * self.stft.rate / self.stft.hop).astype(int).tolist()
        tracks = [self.position[name] for name in items["track"]]
        return Batch(indices, [Excerpt(track, start) for track, start in zip(tracks, starts, strict=True)])

    def shape(self, gives: str) -> tuple[int, ...]:
        """Shape of a batch."""
        if gives == "audio":
            return self.batch, len(TARGETS), round(self.seconds * self.info.rate), self.info.channels
        return self.batch, len(TARGETS), self.info.channels, self.frames, self.bins

    def made(self, name: str, make: Callable[[Path], object]) -> Path:
        """Return a path in the folder, once it was made whole."""
        path, partial_path = self.work / name, self.work / f"{name}.partial"
        if not path.exists():
            if partial_path.is_dir():
                shutil.rmtree(partial_path)
            make(partial_path)
            partial_path.rename(path)
        return path

    def npy(self) -> Path:
        """A file of exact magnitudes for each track, (target, channel, frame, frequency)."""

        def make(folder: Path) -> None:
            folder.mkdir()
            for i, track in enumerate(self.sources):
                of_targets = []
                for target in TARGETS:
                    samples, _ = soundfile.read(track.source.files[target], dtype="float32", always_2d=True)
                    spectrum = self.stft.transform(samples)[:, : self.bins]
                    of_targets.append(np.abs(spectrum).transpose(2, 0, 1))
                np.save(folder / f"{i:05d}.npy", np.stack(of_targets))

        return self.made("npy", make)

    def flac(self) -> Path:
        """A FLAC for each WAV."""

        def make(folder: Path) -> None:
            for i, target in itertools.product(range(len(self.sources)), TARGETS):
                samples, rate = soundfile.read(self.sources[i].source.files[target], dtype="int16")
                path = folder / f"{i}" / f"{target}.flac"
                path.parent.mkdir(parents=True, exist_ok=True)
                soundfile.write(path, samples, rate, subtype="PCM_16")

        return self.made("flac", make)

    def packed(self, levels: bool = False) -> Iterator[tuple[slice, Array]]:
        """Where each track lies along the packed axis, and its magnitudes or levels."""
        for start, magnitude in zip(self.starts, self.magnitudes, strict=True):
            values = quantize(magnitude, self.db.curve) if levels else magnitude
            yield slice(start, start + magnitude.shape[2]), values

    def where(self, excerpt: Excerpt) -> slice:
        """Frames of an excerpt along the packed axis."""
        start = self.starts[excerpt.track] + excerpt.start
        return slice(start, start + self.frames)

    def truth(self, excerpt: Excerpt) -> Array:
        """Exact magnitudes (target, channel, frame, frequency)."""
        return self.magnitudes[excerpt.track][:, :, excerpt.start : excerpt.start + self.frames]


def check_same_music(work: Path, options: dict[str, Any]) -> None:
    """Refuse a folder that was made of other music."""
    path = work / "options.json"
    if path.exists():
        found = json.loads(path.read_text())
        if found != options:
            raise SystemExit(f"{work} was made with {found}; give another folder, or delete it")
    work.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(options))


def write_music(root: Path | None, most: int, seconds: float, folder: Path) -> None:
    """Write the targets of all tracks that are long enough, as MUSDB18-HQ lays them out."""
    if root is None:
        for place in write_musdb(folder, most, seconds=30.0):
            for file in place.iterdir():
                if file.stem not in TARGETS:
                    file.unlink()
        return
    rate_and_channels = None
    long = (track for track in musdb_tracks(root) if info_of(track).seconds > 2 * seconds)
    for track in itertools.islice(long, most):
        for target in TARGETS:
            info, blocks = track.source.read(target)
            rate_and_channels = rate_and_channels or (info.rate, info.channels)
            if (info.rate, info.channels) != rate_and_channels:
                raise SystemExit(f"{track.source} has another rate, or other channels, than the tracks before it")
            path = folder / track.split / track.name / f"{target}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, np.concatenate(list(blocks)), info.rate, subtype="PCM_16")


def info_of(track: SourceTrack) -> AudioInfo:
    """What the header of a track's first target says."""
    return next(iter(track.source.first_headers().values()))


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files of a folder."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)


# ---- contestants


Read = Callable[[Batch, Array], None]


@dataclass(frozen=True)
class Contestant:
    """One way to read a batch.

    Attributes
    ----------
    ways : dict of str to callable
        How to read a batch into an array, by number of threads; the fastest is taken.
    gives : str
        "magnitude", "levels", "decibel", "log" (natural) or "audio".
    path : Path, optional
        What is read.
    stems : int
        How many of them there are in it.
    scale : float
        What a time is multiplied by, for one that reads more or less than a batch.
    frame : callable, optional
        Reads a single frame of the first target and channel: an excerpt's first.
    prepare : callable
        Called with each batch before the clock is started.
    """

    ways: dict[str, Read]
    gives: str = "magnitude"
    path: Path | None = None
    stems: int = len(TARGETS)
    scale: float = 1.0
    frame: Callable[[Excerpt], Array] | None = None
    prepare: Callable[[Batch], None] = lambda _: None


def one_by_one(read: Callable[[Excerpt, Array], object], most: int | None = None) -> dict[str, Read]:
    """Read one excerpt after the other, on one thread or several."""

    def alone(batch: Batch, out: Array) -> None:
        for excerpt, place in zip(batch.excerpts[:most], out, strict=False):
            read(excerpt, place)

    def together(batch: Batch, out: Array) -> None:
        for _ in POOL.map(read, batch.excerpts[:most], out):
            pass

    return {"1": alone, str(THREADS): together}


def limit(data: Data, gives: str = "magnitude") -> Contestant:
    """Read, check, decode and look up as many whole chunks as the excerpts are long, those in their middles."""
    layout, channels = data.document.layout, data.info.channels
    chunk_frames = layout.chunk_frames
    count = max(1, round(data.frames / chunk_frames))
    values = table(layout.curve)
    pairs = values[np.arange(65536, dtype=np.uint16).view(np.uint8).reshape(-1, 2)].view(np.uint64).ravel()
    shape = (data.batch, len(TARGETS), count, channels, chunk_frames, data.bins)
    places = np.zeros(shape, np.float32 if gives == "magnitude" else np.uint8)
    scratches = [np.zeros((chunk_frames, data.bins), np.uint8) for _ in range(THREADS)]
    shards: dict[tuple[int, int], tuple[int, ShardIndex]] = {}

    def open_shard(target: int, shard: int) -> tuple[int, ShardIndex]:
        if (target, shard) not in shards:
            file = os.open(data.store / shard_key(target, shard), os.O_RDONLY)
            size = index_bytes(channels, layout.shard_chunks)
            index = os.pread(file, size, os.fstat(file).st_size - size)
            shards[target, shard] = file, ShardIndex.parse(index, channels, layout.shard_chunks)
        return shards[target, shard]

    def read_chunk(target: int, chunk: int, out: Array, scratch: Array) -> None:
        shard, within = divmod(chunk, layout.shard_chunks)
        file, index = open_shard(target, shard)
        decoded = None
        for channel, (offset, length) in enumerate(index.entries[:, within].tolist()):
            if decoded != offset:  # equal channels are stored once
                found = os.pread(file, length, offset)
                if google_crc32c.value(found[:-CHECKSUM_BYTES]) != int.from_bytes(found[-CHECKSUM_BYTES:], "little"):
                    raise DamagedError(f"chunk {chunk} of target {target}")
                jpeg8_decode(found, out=scratch)
                decoded = offset
            if gives == "levels":
                out[channel] = scratch
            else:
                np.take(pairs, scratch.view(np.uint16), out=out[channel].view(np.uint64), mode="clip")

    def read(batch: Batch, _: Array) -> None:
        tasks = []
        for i, excerpt in enumerate(batch.excerpts):
            middle = data.where(excerpt).start + data.frames / 2
            begin = data.starts[excerpt.track] // chunk_frames
            whole = data.magnitudes[excerpt.track].shape[2] // chunk_frames
            first = max(begin, min(begin + whole - count, round(middle / chunk_frames - count / 2)))
            tasks += [(j, first + k, places[i, j, k]) for j in range(len(TARGETS)) for k in range(count)]
        queue = iter(tasks)

        def work(scratch: Array) -> None:
            for task in queue:
                read_chunk(*task, scratch)

        for _ in POOL.map(work, scratches):
            pass

    scale = data.frames / (count * chunk_frames)
    return Contestant({str(THREADS): read}, "nothing", data.store, scale=scale)


class Piece(NamedTuple):
    """Rows of blocks of one chunk, cut out: how many rows; where the wanted ones begin, and how many these are."""

    jpeg: bytes
    decoded: int
    first: int
    rows: int


def limit_unaligned(data: Data, gives: str = "magnitude") -> Contestant:
    """Decode and look up the pieces that the excerpts lie in; reading, checking and cutting isn't timed."""
    frames, tracks = data.document.layout.chunk_frames, list(data.db)
    layout = Layout(frames, data.bins)
    out = np.zeros(data.shape("magnitude"), np.float32 if gives == "magnitude" else np.uint8)
    scratches = [np.zeros((frames, data.bins), np.uint8) for _ in range(THREADS)]
    look_up = LookUp(table(data.document.layout.curve) if gives == "magnitude" else np.arange(256, dtype=np.uint8))
    tasks: list[tuple[Piece, Array]] = []

    def prepare(batch: Batch) -> None:
        tasks.clear()
        for excerpt, whole in zip(batch.excerpts, out, strict=True):
            for (i, target), (j, channel) in itertools.product(enumerate(TARGETS), enumerate(data.db.channels)):
                begin, end = excerpt.start, excerpt.start + data.frames
                while begin < end:
                    chunk, first = divmod(begin, frames)
                    rows = min(end - begin, frames - first)
                    low, high = first // BLOCK, -(-(first + rows) // BLOCK)
                    jpeg = tracks[excerpt.track].jpeg(target, channel, chunk)
                    segments = layout.find(jpeg)
                    assert segments is not None
                    cut = layout.cut(jpeg, segments, low, high)
                    decoded = min(high * BLOCK, segments.rows) - low * BLOCK
                    piece = Piece(cut, decoded, first - low * BLOCK, rows)
                    tasks.append((piece, whole[i, j, begin - excerpt.start :][:rows]))
                    begin += rows

    def read(_: Batch, __: Array) -> None:
        queue = iter(tasks)

        def work(scratch: Array) -> None:
            for piece, place in queue:
                jpeg8_decode(piece.jpeg, out=scratch[: piece.decoded])
                look_up(scratch[piece.first : piece.first + piece.rows], place)

        for _ in POOL.map(work, scratches):
            pass

    return Contestant({str(THREADS): read}, "nothing", data.store, prepare=prepare)


def this_reader(data: Data, gives: str = "magnitude") -> Contestant:
    """A batch of excerpts, into the caller's array."""
    excerpts = data.excerpts(gives)
    return Contestant({"": lambda batch, out: excerpts.read(batch.indices, out=out)}, gives, data.store)


def this_reader_fresh(data: Data) -> Contestant:
    """A batch of excerpts, in an array of its own."""
    excerpts = data.excerpts()
    return Contestant({"": lambda batch, _: excerpts.read(batch.indices)}, "nothing", data.store)


def through_xarray(data: Data) -> Contestant:
    """A selection of each excerpt, by xarray."""
    tracks = [track.magnitude for track in data.db]

    def read(excerpt: Excerpt, out: Array) -> None:
        time = slice(excerpt.start, excerpt.start + data.frames)
        out[...] = tracks[excerpt.track].isel(time=time).values

    def frame(excerpt: Excerpt) -> Array:
        return tracks[excerpt.track].isel(target=0, channel=0, time=excerpt.start).values

    return Contestant(one_by_one(read), path=data.store, frame=frame)


def data_loader(data: Data, workers: int, gives: str = "magnitude") -> Contestant:
    """A torch DataLoader that gives tensors; its workers have nothing to do between epochs."""
    import torch
    from torch.utils.data import DataLoader

    excerpts = data.excerpts(gives, per_epoch=LOADER_BATCHES * data.batch)
    sampler = excerpts.sampler()

    def to_tensor(items: Any) -> torch.Tensor:
        return torch.from_numpy(excerpts.collate(items)["magnitude"])

    loader = DataLoader(
        excerpts,
        data.batch,
        sampler=sampler,
        collate_fn=to_tensor,
        num_workers=workers,
        persistent_workers=workers > 0,
    )
    epochs = itertools.count()

    def read(_: Batch, __: Array) -> None:
        sampler.set_epoch(next(epochs))
        assert sum(map(len, loader)) == LOADER_BATCHES * data.batch

    return Contestant({"": read}, "nothing", data.store, scale=1 / LOADER_BATCHES)


def zarr_python(data: Data, pipeline: str = "") -> Contestant:
    """The store itself, by zarr-python."""
    import zarr

    if pipeline and not hasattr(import_module("zarr.core.codec_pipeline"), pipeline):
        raise ImportError(f"no {pipeline} in this version", name=f"zarr {version('zarr')}")
    settings = {"codec_pipeline.path": f"zarr.core.codec_pipeline.{pipeline}"} if pipeline else {}
    with zarr.config.set(settings):
        contestant = of_array(data, zarr.open_array(data.store / "magnitude", mode="r"), data.store)

    def configured(read: Read) -> Read:
        def read_configured(batch: Batch, out: Array) -> None:
            with zarr.config.set(settings):
                read(batch, out)

        return read_configured

    return replace(contestant, ways={threads: configured(read) for threads, read in contestant.ways.items()})


def of_array(data: Data, array: Any, path: Path, gives: str = "magnitude") -> Contestant:
    """What has the packed axis of all tracks, and can be sliced."""

    def read(excerpt: Excerpt, out: Array) -> None:
        out[...] = array[:, :, data.where(excerpt)]

    return Contestant(one_by_one(read), gives, path, frame=lambda one: array[0, 0, data.where(one).start])


def zarr_zstd(data: Data, gives: str = "magnitude") -> Contestant:
    """A plain zarr array, with zarr's default compressor."""
    import zarr

    array = zarr.open_array(zarr_zstd_path(data, gives), mode="r")
    return of_array(data, array, zarr_zstd_path(data, gives), gives)


def zarr_zstd_path(data: Data, gives: str = "magnitude") -> Path:
    """Where that is."""
    import zarr

    def make(path: Path) -> None:
        dtype = np.uint8 if gives == "levels" else np.float32
        array = zarr.create_array(
            path, shape=data.packed_shape, chunks=data.chunk_shape, dtype=dtype, compressors=zarr.codecs.ZstdCodec()
        )
        for frames, values in data.packed(gives == "levels"):
            array[:, :, frames] = values

    return data.made(f"zarr-{gives}", make)


def hdf5(data: Data, compression: str) -> Contestant:
    """HDF5, without its cache of chunks."""
    import h5py

    def make(path: Path) -> None:
        with h5py.File(path, "w") as file:
            array = file.create_dataset(
                "magnitude", data.packed_shape, np.float32, chunks=data.chunk_shape, compression=compression
            )
            for frames, values in data.packed():
                array[:, :, frames] = values

    path = data.made(f"{compression}.h5", make)
    array = h5py.File(path, "r", rdcc_nbytes=0)["magnitude"]
    contestant = of_array(data, array, path)

    def read(excerpt: Excerpt, out: Array) -> None:
        array.read_direct(out, np.s_[:, :, data.where(excerpt)])

    return replace(contestant, ways=one_by_one(read))


def tensorstore_arrays(data: Data, spec: dict[str, Any]) -> list[Any]:
    """Open an array once for each excerpt of a batch; two threads copy and decode for all of them.

    Reads of one array that wait at the same time share chunks, which would be as good as a cache: of a few tracks,
    the excerpts of a batch have many chunks in common.
    """
    import tensorstore

    threads = tensorstore.Context({"data_copy_concurrency": {"limit": THREADS}})
    contexts = [tensorstore.Context({"cache_pool": {"total_bytes_limit": 0}}, threads) for _ in range(data.batch)]
    return [tensorstore.open(spec, context=context, open=True, read=True).result() for context in contexts]


def tensorstore_jpeg(data: Data, gives: str = "magnitude") -> Contestant:
    """Levels as JPEG in neuroglancer's format, (frequency, frame, target and channel), by tensorstore."""
    import tensorstore

    def spec(path: Path) -> dict[str, Any]:
        return {
            "driver": "neuroglancer_precomputed",
            "kvstore": {"driver": "file", "path": str(path)},
        }

    targets, channels, frames, bins = data.packed_shape

    def make(path: Path) -> None:
        multiscale = {"data_type": "uint8", "num_channels": 1, "type": "image"}
        scale = {
            "size": [bins, frames, targets * channels],
            "encoding": "jpeg",
            "jpeg_quality": NEUROGLANCER_QUALITY,
            "chunk_size": [bins, data.document.layout.chunk_frames, 1],
            "resolution": [1, 1, 1],
        }
        spec_to_make = {**spec(path), "multiscale_metadata": multiscale, "scale_metadata": scale}
        array = tensorstore.open(spec_to_make, create=True).result()[..., 0]
        for place, values in data.packed(levels=True):
            images = values.reshape(targets * channels, -1, bins)
            array[:, place].write(images.transpose(2, 1, 0)).result()

    path = data.made("neuroglancer", make)
    arrays = [array[..., 0].transpose([2, 1, 0]) for array in tensorstore_arrays(data, spec(path))]
    values = table(data.db.curve)
    scratch = np.zeros((data.batch, targets * channels, data.frames, bins), np.uint8)

    def read(batch: Batch, out: Array) -> None:
        levels = scratch if gives == "magnitude" else out.reshape(scratch.shape)
        pending = [
            tensorstore.array(place).write(array[:, data.where(excerpt)].translate_to[0, 0, 0])
            for array, excerpt, place in zip(arrays, batch.excerpts, levels, strict=True)
        ]
        for one, found, place in zip(pending, levels, out, strict=True):
            one.result()
            if gives == "magnitude":
                np.take(values, found, out=place.reshape(found.shape), mode="clip")

    def frame(excerpt: Excerpt) -> Array:
        return values[arrays[0][0, data.where(excerpt).start].read().result()]

    return Contestant({str(THREADS): read}, gives, path, frame=frame)


def tensorstore_zarr(data: Data) -> Contestant:
    """The plain zarr array of floats, by tensorstore."""
    import tensorstore

    path = zarr_zstd_path(data)
    arrays = tensorstore_arrays(data, {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(path)}})

    def read(batch: Batch, out: Array) -> None:
        pending = [
            tensorstore.array(place).write(array[:, :, data.where(excerpt)].translate_to[0, 0, 0, 0])
            for array, excerpt, place in zip(arrays, batch.excerpts, out, strict=True)
        ]
        for one in pending:
            one.result()

    def frame(excerpt: Excerpt) -> Array:
        return arrays[0][0, 0, data.where(excerpt).start].read().result()

    return Contestant({str(THREADS): read}, path=path, frame=frame)


def lilcom_chunks(data: Data) -> Contestant:
    """Logarithms in chunks of frames, one channel after the other in one file, as lhotse writes features."""
    import lilcom

    def make(folder: Path) -> None:
        folder.mkdir()
        offsets: list[list[list[list[int]]]] = []
        with open(folder / "features.llc", "wb") as file:
            for magnitude in data.magnitudes:
                logarithms = np.log(np.maximum(magnitude, LILCOM_FLOOR))
                offsets.append([[[] for _ in range(data.info.channels)] for _ in TARGETS])
                for i, j in np.ndindex(magnitude.shape[:2]):
                    for start in range(0, magnitude.shape[2], LILCOM_FRAMES):
                        offsets[-1][i][j].append(file.tell())
                        piece = logarithms[i, j, start : start + LILCOM_FRAMES]
                        file.write(lilcom.compress(piece, tick_power=LILCOM_TICK))
                    offsets[-1][i][j].append(file.tell())
        (folder / "offsets.json").write_text(json.dumps(offsets))

    folder = data.made("lilcom", make)
    offsets = json.loads((folder / "offsets.json").read_text())
    file = os.open(folder / "features.llc", os.O_RDONLY)

    def read_frames(excerpt: Excerpt, target: int, channel: int, frames: int) -> Array:
        of_channel = offsets[excerpt.track][target][channel]
        first = excerpt.start // LILCOM_FRAMES
        last = (excerpt.start + frames - 1) // LILCOM_FRAMES
        found = os.pread(file, of_channel[last + 1] - of_channel[first], of_channel[first])
        bounds = [offset - of_channel[first] for offset in of_channel[first : last + 2]]
        pieces = [lilcom.decompress(found[begin:end]) for begin, end in itertools.pairwise(bounds)]
        within = excerpt.start - first * LILCOM_FRAMES
        return np.concatenate(pieces)[within : within + frames]

    def read(excerpt: Excerpt, out: Array) -> None:
        for i, j in np.ndindex(out.shape[:2]):
            out[i, j] = read_frames(excerpt, i, j, data.frames)

    return Contestant(one_by_one(read), "log", folder, frame=lambda excerpt: read_frames(excerpt, 0, 0, 1)[0])


def npy_files(data: Data) -> Contestant:
    """A file of float32 for each track, mapped into memory."""

    def read(excerpt: Excerpt, out: Array) -> None:
        out[...] = data.truth(excerpt)

    def frame(excerpt: Excerpt) -> Array:
        return np.array(data.truth(excerpt)[0, 0, 0])

    return Contestant(one_by_one(read), path=data.npy(), frame=frame)


def audio_files(data: Data, paths: list[dict[str, Path]], folder: Path, transform: bool) -> Contestant:
    """Audio files that libsndfile reads, and perhaps their STFT."""

    def read_samples(excerpt: Excerpt, target: int, begin: int, out: Array) -> None:
        skip = max(0, -begin)
        with soundfile.SoundFile(paths[excerpt.track][TARGETS[target]]) as file:
            file.seek(begin + skip)
            found = file.read(dtype="float32", always_2d=True, out=out[skip:])
        out[:skip] = out[skip + len(found) :] = 0

    def read(excerpt: Excerpt, out: Array) -> None:
        for target in range(len(TARGETS)):
            read_samples(excerpt, target, excerpt.start * data.stft.hop, out[target])

    if transform:
        return Contestant(one_by_one(partial(analyse, data, read_samples)), path=folder)
    return Contestant(one_by_one(read), "audio", folder)


def analyse(
    data: Data, read_samples: Callable[[Excerpt, int, int, Array], object], excerpt: Excerpt, out: Array
) -> None:
    """Magnitudes of an excerpt, from the samples that they depend on, by the quickest FFT that is here."""
    stft = data.stft
    window = (stft.weights / stft.weights.sum()).astype(np.float32)
    samples = np.empty(((data.frames - 1) * stft.hop + stft.n_fft, data.info.channels), np.float32)
    for target in range(len(TARGETS)):
        read_samples(excerpt, target, excerpt.start * stft.hop - stft.n_fft // 2, samples)
        channels = np.ascontiguousarray(samples.T)
        frames = np.lib.stride_tricks.sliding_window_view(channels, stft.n_fft, axis=1)[:, :: stft.hop]
        np.abs(scipy.fft.rfft(frames * window)[..., : data.bins], out=out[target])


def wav(data: Data, transform: bool = False) -> Contestant:
    """WAV, 16 bits."""
    return audio_files(data, [dict(source.files) for source in data.sources], data.music, transform)


def flac(data: Data, transform: bool = False) -> Contestant:
    """FLAC, 16 bits."""
    folder = data.flac()
    paths = [{target: folder / f"{i}" / f"{target}.flac" for target in TARGETS} for i in range(len(data.sources))]
    return audio_files(data, paths, folder, transform)


def musdb_package(data: Data, stem_mp4: Path | None) -> Contestant:
    """MUSDB18's .stem.mp4, as the README of musdb reads pieces of it, and their STFT."""
    if stem_mp4 is None:
        raise ImportError("it needs a folder of .stem.mp4", name="--stem-mp4")
    import musdb

    by_name = {track.name: track for track in musdb.DB(str(stem_mp4), is_wav=False).tracks}
    missing = [name for name in data.position if name not in by_name]
    if missing:
        raise SystemExit(f"{stem_mp4} has no {missing[0]}.stem.mp4")
    tracks = [by_name[name] for name in data.position]

    def read_samples(excerpt: Excerpt, target: int, begin: int, out: Array) -> None:
        track, skip = tracks[excerpt.track], max(0, -begin)
        track.chunk_start = (begin + skip) / data.info.rate
        track.chunk_duration = (len(out) - skip) / data.info.rate
        audio = track.audio if target == 0 else track.targets[TARGETS[target]].audio
        audio = audio[: len(out) - skip]
        out[:skip] = out[skip + len(audio) :] = 0
        out[skip : skip + len(audio)] = audio

    # chunk_start belongs to the track, so that no two threads may read the same
    alone = one_by_one(partial(analyse, data, read_samples), MUSDB_EXCERPTS)["1"]
    scale = data.batch / min(data.batch, MUSDB_EXCERPTS)
    return Contestant({"": alone}, path=stem_mp4, stems=MUSDB_STEMS, scale=scale)


def entrants(stem_mp4: Path | None) -> dict[str, Callable[[Data], Contestant]]:
    """All contestants, by name."""
    return {
        # before others have threads of their own: workers are forked
        "DataLoader, 0 workers": partial(data_loader, workers=0),
        "DataLoader, 2 workers": partial(data_loader, workers=2),
        "DataLoader, 2 workers, levels": partial(data_loader, workers=2, gives="levels"),
        "limit": limit,
        "this reader": this_reader,
        "limit, levels": partial(limit, gives="levels"),
        "limit, unaligned": limit_unaligned,
        "limit, unaligned levels": partial(limit_unaligned, gives="levels"),
        "this reader, levels": partial(this_reader, gives="levels"),
        "this reader, decibel": partial(this_reader, gives="decibel"),
        "this reader, new array": this_reader_fresh,
        "this reader, xarray": through_xarray,
        "zarr-python, same store": zarr_python,
        "zarr-python fused, same store": partial(zarr_python, pipeline="FusedCodecPipeline"),
        "zarr zstd float32": zarr_zstd,
        "zarr zstd levels": partial(zarr_zstd, gives="levels"),
        "h5py gzip float32": partial(hdf5, compression="gzip"),
        "h5py lzf float32": partial(hdf5, compression="lzf"),
        "tensorstore JPEG": tensorstore_jpeg,
        "tensorstore JPEG, levels": partial(tensorstore_jpeg, gives="levels"),
        "tensorstore zstd float32": tensorstore_zarr,
        "lilcom, log": lilcom_chunks,
        ".npy memmap float32": npy_files,
        "WAV": wav,
        "WAV + STFT": partial(wav, transform=True),
        "FLAC": flac,
        "FLAC + STFT": partial(flac, transform=True),
        "musdb .stem.mp4 + STFT": partial(musdb_package, stem_mp4=stem_mp4),
    }
