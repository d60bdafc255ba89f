"""What a batch of random excerpts costs, read in turn by this library and by what people use today.

    python benchmarks/read.py [MUSDB] [--seconds 6] [--batch 16] [--rounds 7] [--only NAME ...] [--tracks 12]
                              [--stem-mp4 FOLDER] [--work FOLDER] [--memory] [--out results.json] [--picture read.png]

MUSDB is a folder in either layout of MUSDB18; without it, the demo's music is made. The magnitudes of its mixtures and
vocals are written once in every format, chunk for chunk as the store has them where a format has chunks. Then all
contestants read the same excerpts, which begin anywhere: every time others, in turn, in one process, with warm files
and nothing kept of what was decoded. What they read lands in one array of the whole batch. Where a contestant can be
run on one thread or on two, the faster way is taken. Quick contestants are run three times in a round, slow ones once.

"limit" is what can't be left out: reading, checking, decoding and looking up as many chunks as the excerpts are long,
on two threads. A ratio is the median, over the batches that both have read, of a contestant's time and that of this
reader with the same kind of values. "error" is the mean difference from the exact magnitudes, in levels of 255, which
also shows that everyone reads the right thing; "read" is the bytes read for each byte that the excerpts' share of the
format has. What depends on a package that is missing isn't measured. Beyond those of this library, the packages are
h5py, tensorstore, lilcom, musdb (with ffmpeg) and torch.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import google_crc32c
import numpy as np
import soundfile
from imagecodecs import jpeg8_decode
from numpy.typing import NDArray

import norbert_store
from norbert_store.audio import read_stem
from norbert_store.errors import DamagedError
from norbert_store.export import export
from norbert_store.format.document import ROOT_KEY, Document, shard_key
from norbert_store.format.shard import CHECKSUM_BYTES, ShardIndex, read_tail, tail_bytes
from norbert_store.levels import quantize, table
from norbert_store.sources.musdb import musdb_tracks
from norbert_store.sources.synthetic import write_musdb
from norbert_store.stft import Stft
from norbert_store.transform import stored_transform

TARGETS = ("mixture", "vocals")
THREADS = 2
QUICK_SECONDS, QUICK_TIMES = 0.4, 3  # contestants that are quicker are run so often in a round
LOADER_BATCHES = 4  # in one epoch of a DataLoader
MUSDB_EXCERPTS = 2  # of a batch; it starts a process for each
MUSDB_STEMS = 5
FRAME_READS = 20  # of single frames, in each round
MEMORY_EXCERPTS = 10_000
FRESH_PROCESSES = 7
SEED = 0

# About as many bytes as the store's JPEGs; neuroglancer's default, 75, has half of them and twice the error.
NEUROGLANCER_QUALITY = 90
# lhotse's defaults: frames in a chunk, and accuracy of the natural logarithm
LILCOM_FRAMES, LILCOM_TICK = 500, -5
LILCOM_FLOOR = 1e-5
# a contestant with a larger error hasn't read what it should have
MOST_ERROR_LEVELS = 12.0

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
        At most so many.
    """

    def __init__(self, root: Path | None, work: Path, seconds: float, batch: int, tracks: int) -> None:
        self.work, self.seconds, self.batch = work, seconds, batch
        check_same_music(work, {"root": str(root), "tracks": tracks, "seconds": seconds})
        self.music = self.made("music", partial(write_music, root, tracks, seconds))
        self.sources = musdb_tracks(self.music)
        self.info = self.sources[0].info()
        self.stft = Stft(rate=self.info.rate)
        self.stored = stored_transform(self.stft)
        self.bins = len(self.stored.frequencies)
        self.store = self.made("store", lambda path: export(self.sources, path, TARGETS, transform=self.stft))
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
        items = self.excerpts().batch(indices)
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
                    samples, _ = soundfile.read(track.files[target], dtype="float32", always_2d=True)
                    spectrum = self.stft.transform(samples)[:, : self.bins]
                    of_targets.append(np.abs(spectrum).transpose(2, 0, 1))
                np.save(folder / f"{i:05d}.npy", np.stack(of_targets))

        return self.made("npy", make)

    def flac(self) -> Path:
        """A FLAC for each WAV."""

        def make(folder: Path) -> None:
            for i, target in itertools.product(range(len(self.sources)), TARGETS):
                samples, rate = soundfile.read(self.sources[i].files[target], dtype="int16")
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
        write_musdb(folder, most, seconds=30.0)
        return
    rate_and_channels = None
    for track in itertools.islice((one for one in musdb_tracks(root) if one.info().seconds > 2 * seconds), most):
        for target in TARGETS:
            info, blocks = read_stem(track.path, target)
            rate_and_channels = rate_and_channels or (info.rate, info.channels)
            if (info.rate, info.channels) != rate_and_channels:
                raise SystemExit(f"{track.path} has another rate, or other channels, than the tracks before it")
            path = folder / track.split / track.name / f"{target}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, np.concatenate(list(blocks)), info.rate, subtype="PCM_16")


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
    """

    ways: dict[str, Read]
    gives: str = "magnitude"
    path: Path | None = None
    stems: int = len(TARGETS)
    scale: float = 1.0
    frame: Callable[[Excerpt], Array] | None = None


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
    """Read, check, decode and look up as many chunks as the excerpts are long, those in their middles."""
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
            size = tail_bytes(channels, layout.shard_chunks)
            tail = os.pread(file, size, os.fstat(file).st_size - size)
            shards[target, shard] = file, read_tail(tail, channels, layout.shard_chunks, target, shard)
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
            first = max(data.starts[excerpt.track] // chunk_frames, round(middle / chunk_frames - count / 2))
            tasks += [(j, first + k, places[i, j, k]) for j in range(len(TARGETS)) for k in range(count)]
        queue = iter(tasks)

        def work(scratch: Array) -> None:
            for task in queue:
                read_chunk(*task, scratch)

        for _ in POOL.map(work, scratches):
            pass

    scale = data.frames / (count * chunk_frames)
    return Contestant({str(THREADS): read}, "nothing", data.store, scale=scale)


def this_reader(data: Data, gives: str = "magnitude") -> Contestant:
    """A batch of excerpts, into the caller's array."""
    excerpts = data.excerpts(gives)
    return Contestant({"": lambda batch, out: excerpts.batch(batch.indices, out=out)}, gives, data.store)


def this_reader_fresh(data: Data) -> Contestant:
    """A batch of excerpts, in an array of its own."""
    excerpts = data.excerpts()
    return Contestant({"": lambda batch, _: excerpts.batch(batch.indices)}, "nothing", data.store)


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
    """Magnitudes of an excerpt, from the samples that they depend on."""
    stft = replace(data.stft, centred=False)
    samples = np.empty(((data.frames - 1) * stft.hop + stft.n_fft, data.info.channels), np.float32)
    for target in range(len(TARGETS)):
        read_samples(excerpt, target, excerpt.start * stft.hop - stft.n_fft // 2, samples)
        np.abs(stft.transform(samples)[:, : data.bins].transpose(2, 0, 1), out=out[target])


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


# what issue and README say: contestant, against, at least so many times as slow (or, below 2, at most)
@dataclass(frozen=True)
class Goal:
    """How many times as long one contestant takes as another."""

    slow: str
    quick: str
    at_least: float | None = None
    at_most: float | None = None

    def met(self, ratio: float) -> bool:
        """Whether it is reached."""
        return (self.at_least is None or ratio >= self.at_least) and (self.at_most is None or ratio <= self.at_most)


GOALS = (
    Goal("this reader", "limit", at_most=1.15),
    Goal("this reader, levels", "limit, levels", at_most=1.15),
    Goal("this reader, xarray", "this reader", at_most=1.2),
    Goal("zarr-python, same store", "this reader", at_least=6),
    Goal("zarr-python fused, same store", "this reader", at_least=4),
    Goal("tensorstore JPEG", "this reader", at_least=1.5),
    Goal("h5py gzip float32", "this reader", at_least=9),
    Goal("lilcom, log", "this reader", at_least=4.5),
    Goal("FLAC + STFT", "this reader", at_least=5),
    Goal("musdb .stem.mp4 + STFT", "this reader", at_least=50),
)
MOST_IMPORT_SECONDS = 0.05


# ---- measuring


@dataclass
class Found:
    """What was measured of a contestant, by number of the batch: seconds, seconds of the processor, bytes read."""

    contestant: Contestant
    threads: str = ""
    error: float | None = None
    seconds: dict[int, float] = field(default_factory=dict)
    processor: dict[int, float] = field(default_factory=dict)
    bytes_read: list[int] = field(default_factory=list)
    frame_seconds: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """Seconds a batch."""
        return statistics.median(self.seconds.values())

    def over(self, other: Found, processor: bool = False) -> float:
        """How many times as long as another it takes, or as much of the processor."""
        mine, theirs = (self.processor, other.processor) if processor else (self.seconds, other.seconds)
        return statistics.median(mine[number] / theirs[number] for number in mine.keys() & theirs.keys())


def measure(data: Data, contestants: dict[str, Contestant], rounds: int) -> dict[str, Found]:
    """Run them all in turn, after a warm-up."""
    outs = Outs(data)
    batches = [data.draw(number) for number in range(1 + rounds * QUICK_TIMES)]
    found = {}
    for name, contestant in contestants.items():
        out = outs[contestant.gives]
        found[name] = warm_up(contestant, batches[0], out)
        found[name].error = mean_error(data, contestant, batches[0], out)
        if (found[name].error or 0) > MOST_ERROR_LEVELS:
            raise SystemExit(f"{name} reads something else: {found[name].error:.1f} levels off in the mean")
    is_quick = {name: one.median < QUICK_SECONDS for name, one in found.items()}
    for one in found.values():
        one.seconds.clear()
    for number, batch in enumerate(batches[1:]):
        for name, one in found.items():
            if number % QUICK_TIMES == 0 or is_quick[name]:
                run(one, number, batch, outs[one.contestant.gives])
        if number % QUICK_TIMES == 0:
            for one in found.values():
                read_frames(one, (batch.excerpts * FRAME_READS)[:FRAME_READS])
    return found


class Outs(dict[str, Array]):
    """An array for a batch of each kind of values, made once."""

    def __init__(self, data: Data) -> None:
        self._data = data

    def __missing__(self, gives: str) -> Array:
        dtype = np.uint8 if gives == "levels" else np.float32
        self[gives] = np.zeros(() if gives == "nothing" else self._data.shape(gives), dtype)
        return self[gives]


def warm_up(contestant: Contestant, batch: Batch, out: Array) -> Found:
    """Run each way three times; choose the fastest."""
    seconds = {}
    for threads, read in contestant.ways.items():
        out[...] = 0 if out.dtype == np.uint8 else np.nan
        times = []
        for _ in range(QUICK_TIMES):
            started = time.perf_counter()
            read(batch, out)
            times.append(contestant.scale * (time.perf_counter() - started))
            if times[0] > QUICK_SECONDS:
                break
        seconds[threads] = min(times)
    threads = min(seconds, key=lambda one: seconds[one])
    return Found(contestant, threads, seconds={-1: seconds[threads]})


def run(found: Found, number: int, batch: Batch, out: Array) -> None:
    """Read a batch once."""
    read, scale = found.contestant.ways[found.threads], found.contestant.scale
    bytes_before, processor, started = bytes_read(), time.process_time(), time.perf_counter()
    read(batch, out)
    found.seconds[number] = scale * (time.perf_counter() - started)
    found.processor[number] = scale * (time.process_time() - processor)
    found.bytes_read.append(round(scale * (bytes_read() - bytes_before)))


def read_frames(found: Found, excerpts: Iterable[Excerpt]) -> None:
    """Read some single frames."""
    read = found.contestant.frame
    for excerpt in excerpts if read else ():
        started = time.perf_counter()
        read(excerpt)
        found.frame_seconds.append(time.perf_counter() - started)


def mean_error(data: Data, contestant: Contestant, batch: Batch, out: Array) -> float | None:
    """Mean difference from the exact magnitudes, levels."""
    if contestant.gives in ("audio", "nothing"):
        return None
    errors = []
    for excerpt, found in zip(batch.excerpts, out, strict=True):
        if not np.isfinite(found).all():  # it reads a part of the batch
            continue
        exact = 255 * data.db.curve.compress(data.truth(excerpt))
        if contestant.gives == "levels":
            errors.append(np.abs(exact - found).mean())
            continue
        as_magnitude = {"magnitude": np.asarray, "log": np.exp, "decibel": lambda values: 10 ** (values / 20)}
        errors.append(np.abs(exact - 255 * data.db.curve.compress(as_magnitude[contestant.gives](found))).mean())
    return float(np.mean(errors)) if errors else np.inf


def bytes_read() -> int:
    """Bytes that this process has asked files for; 0 where the system doesn't tell."""
    try:
        lines = Path("/proc/self/io").read_text().split()
    except OSError:
        return 0
    return int(lines[1])


# ---- this reader, in processes of its own


def measure_import(_: Path, __: float) -> dict[str, float]:
    """What importing costs; this script's own imports come first, so the process is another's."""
    code = "import time; t = time.perf_counter(); import norbert_store; print(time.perf_counter() - t)"
    return {"import norbert_store": float(subprocess.check_output([sys.executable, "-c", code], text=True))}


def measure_open(store: Path, seconds: float) -> dict[str, float]:
    """From opening to the first excerpt, imports apart."""
    for module in ("norbert_store.store", "norbert_store.excerpts", "norbert_store.codecs"):
        import_module(module)
    started = time.perf_counter()
    db = norbert_store.open(store)
    opened = time.perf_counter()
    values = db.excerpts(seconds=seconds, targets=TARGETS, seed=SEED)[0]["magnitude"]
    done = time.perf_counter()
    assert np.isfinite(values).all()
    return {"open": opened - started, "open and first excerpt": done - started}


def measure_memory(store: Path, seconds: float) -> dict[str, float]:
    """Resident memory after the first excerpts, and after many."""
    excerpts = norbert_store.open(store).excerpts(seconds=seconds, targets=TARGETS, seed=SEED)
    batch, found = 16, {}
    for start in range(0, MEMORY_EXCERPTS, batch):
        excerpts.batch(range(start, start + batch))
        if start + batch == 10 * batch:
            found[f"MB after {start + batch} excerpts"] = resident_megabytes()
    found[f"MB after {MEMORY_EXCERPTS} excerpts"] = resident_megabytes()
    return found


def resident_megabytes() -> float:
    """Memory of this process; its peak, where the system doesn't tell it."""
    status = Path("/proc/self/statm")
    if status.exists():
        return int(status.read_text().split()[1]) * resource.getpagesize() / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6


MEASURES = {"import": measure_import, "open": measure_open, "memory": measure_memory}


def in_fresh_process(what: str, data: Data, times: int) -> dict[str, float]:
    """Medians of what is measured in a fresh process, a few times."""
    command = [sys.executable, __file__, "--measure", what, str(data.store), "--seconds", str(data.seconds)]
    several = [json.loads(subprocess.check_output(command, text=True)) for _ in range(times)]
    return {key: statistics.median(one[key] for one in several) for key in several[0]}


# ---- what comes out


@dataclass(frozen=True)
class Line:
    """A contestant's line in the table."""

    name: str
    threads: str
    milliseconds: float
    processor_milliseconds: float | None
    ratio: float | None
    error_levels: float | None
    megabytes: float
    kilobytes_a_second: float
    read_ratio: float | None
    frame_microseconds: float | None


def lines_of(data: Data, found: dict[str, Found]) -> list[Line]:
    """Make the table."""
    return [line_of(data, name, one, found) for name, one in found.items()]


def line_of(data: Data, name: str, one: Found, found: dict[str, Found]) -> Line:
    """Make a line of the table."""
    contestant = one.contestant
    reference = found.get("this reader, levels" if name.endswith("levels") else "this reader")
    size = size_of(contestant.path) if contestant.path else 0
    share = data.batch * data.frames / sum(data.track_frames) * len(TARGETS) / contestant.stems
    read = statistics.mean(one.bytes_read)
    in_this_process = "workers" not in name and contestant.stems == len(TARGETS)
    is_read = in_this_process and "memmap" not in name and read > 0
    return Line(
        name,
        one.threads,
        1000 * one.median,
        1000 * statistics.median(one.processor.values()) if in_this_process else None,
        one.over(reference) if reference else None,
        one.error,
        size / 1e6,
        size / 1000 / data.audio_seconds / contestant.stems,
        read / (size * share) if is_read else None,
        1e6 * statistics.median(one.frame_seconds) if one.frame_seconds else None,
    )


def print_table(data: Data, lines: Sequence[Line], missing: dict[str, str]) -> None:
    """Print a line for each contestant."""
    heads = ("threads", "ms", "CPU ms", "ratio", "error", "MB", "kB/s a stem", "read", "a frame, µs")
    print(f"{'':<32}" + "".join(f"{head:>{max(8, len(head) + 2)}}" for head in heads))
    for line in lines:
        cells = (
            line.threads,
            f"{line.milliseconds:.1f}",
            shown(line.processor_milliseconds, 1),
            shown(line.ratio, 2),
            shown(line.error_levels, 2),
            f"{line.megabytes:.1f}",
            f"{line.kilobytes_a_second:.1f}",
            shown(line.read_ratio, 2),
            shown(line.frame_microseconds, 0),
        )
        columns = zip(heads, cells, strict=True)
        print(f"{line.name:<32}" + "".join(f"{cell:>{max(8, len(head) + 2)}}" for head, cell in columns))
    for name, package in missing.items():
        print(f"{name:<32}  not measured ({package})")


def shown(value: float | None, digits: int) -> str:
    """A number, or nothing."""
    return "" if value is None else f"{value:.{digits}f}"


def goals_of(found: dict[str, Found], more: dict[str, float]) -> list[dict[str, Any]]:
    """What is to be reached, what is, and whether that will do."""
    goals = [
        {
            "what": f"{goal.slow} / {goal.quick}",
            "found": (ratio := found[goal.slow].over(found[goal.quick])),
            "of the processor": found[goal.slow].over(found[goal.quick], processor=True),
            "goal": f"at most {goal.at_most:g}" if goal.at_most else f"at least {goal.at_least:g}",
            "met": goal.met(ratio),
        }
        for goal in GOALS
        if goal.slow in found and goal.quick in found
    ]
    imported = more["import norbert_store"]
    return [
        *goals,
        {
            "what": "import norbert_store, ms",
            "found": 1000 * imported,
            "of the processor": None,
            "goal": f"at most {1000 * MOST_IMPORT_SECONDS:g}",
            "met": imported <= MOST_IMPORT_SECONDS,
        },
    ]


def draw_picture(lines: Sequence[Line], title: str, path: Path) -> None:
    """Draw a bar for each contestant: milliseconds, on a logarithmic scale."""
    from matplotlib.figure import Figure

    lines = sorted(lines, key=lambda line: line.milliseconds, reverse=True)
    figure = Figure(figsize=(10, 0.5 + 0.3 * len(lines)), layout="constrained")
    axes = figure.add_subplot()
    colours = ["C7" if "limit" in line.name else "C0" if OWN.intersection([line.name]) else "C1" for line in lines]
    bars = axes.barh([line.name for line in lines], [line.milliseconds for line in lines], color=colours)
    labels = [f"{line.milliseconds:.0f} ms, {line.kilobytes_a_second:.0f} kB/s a stem" for line in lines]
    axes.bar_label(bars, labels, padding=4, fontsize=8)
    axes.set(xscale="log", xlabel="milliseconds a batch", title=title)
    axes.set_xlim(right=8 * lines[0].milliseconds)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)


OWN = {name for name in entrants(None) if name.startswith(("this reader", "DataLoader"))}


def main() -> None:
    """Make the data, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("musdb", type=Path, nargs="?")
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="Contestants whose names begin with one of these.")
    parser.add_argument("--tracks", type=int, default=12, help="At most so many.")
    parser.add_argument("--stem-mp4", type=Path, help="MUSDB18 of the same tracks, as .stem.mp4.")
    parser.add_argument("--work", type=Path, help="Where data is made, and used again if it is there.")
    parser.add_argument("--memory", action="store_true", help=f"Also read {MEMORY_EXCERPTS:,} excerpts.")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        what, store = arguments.measure
        print(json.dumps(MEASURES[what](Path(store), arguments.seconds)))
        return
    with ExitStack() as stack:
        work = arguments.work or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        compare(arguments, Data(arguments.musdb, work, arguments.seconds, arguments.batch, arguments.tracks))


def compare(arguments: argparse.Namespace, data: Data) -> None:
    """Measure all that is asked for, and print it."""
    contestants: dict[str, Contestant] = {}
    missing: dict[str, str] = {}
    for name, make in entrants(arguments.stem_mp4).items():
        if arguments.only is None or name.startswith(tuple(arguments.only)):
            try:
                contestants[name] = make(data)
            except ImportError as error:
                missing[name] = error.name or str(error)
    found = measure(data, contestants, arguments.rounds)
    more = {**in_fresh_process("import", data, FRESH_PROCESSES), **in_fresh_process("open", data, FRESH_PROCESSES)}
    if arguments.memory:
        more |= in_fresh_process("memory", data, 1)

    lines, goals = lines_of(data, found), goals_of(found, more)
    title = (
        f"{data.batch} excerpts of {data.seconds:g} s, {len(TARGETS)} targets, {data.info.channels} channels; "
        f"Python {platform.python_version()}, {os.cpu_count()} CPUs"
    )
    print(f"{title}; {len(data.sources)} tracks, {data.audio_seconds:.0f} s; {arguments.rounds} rounds\n")
    print_table(data, lines, missing)
    print()
    for what, value in more.items():
        print(f"{what:<32}" + (f"{value:>8.1f}" if "MB" in what else f"{1000 * value:>8.1f} ms"))
    print(f"\n{'goals':<48}{'found':>8}{'CPU':>8}")
    for goal in goals:
        cells = f"{goal['found']:>8.2f}{shown(goal['of the processor'], 2):>8}"
        print(f"{goal['what']:<48}{cells}   {goal['goal']:<14}{'met' if goal['met'] else 'MISSED'}")
    if arguments.out:
        batches = {name: list(one.seconds.values()) for name, one in found.items()}
        arguments.out.write_text(
            json.dumps(
                {
                    "title": title,
                    "packages": {name: version(name) for name in ("numpy", "zarr", "xarray", "imagecodecs")},
                    "contestants": [{**vars(line), "seconds": batches[line.name]} for line in lines],
                    "not measured": missing,
                    "more": more,
                    "goals": goals,
                },
                indent=1,
            )
        )
    if arguments.picture:
        draw_picture(lines, title, arguments.picture)


if __name__ == "__main__":
    main()
