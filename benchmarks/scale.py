"""What the number of tracks costs: the same store with 150 tracks and with a million, in fresh processes.

    python benchmarks/scale.py [--tracks 1000000] [--folder FOLDER] [--rounds 7] [--groups 150 1000 10000]

The tracks are clips of about ten seconds, two targets, stereo. Names, splits, sources, labels and places are all
there; of the data, what the first, the middle and the last track need. Beside it stands what a store would cost that
gives each track a zarr group of its own, with consolidated metadata, opened by zarr-python; 100,000 of them take a
minute and more than a gigabyte, so that they are measured only when asked for (--groups 100000).

Times are medians, imports apart; all files have been read before. A slice is a whole clip of one target, of the last
track. Memory is what the process has grown by since its imports (on Linux; elsewhere its peak).
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from norbert_store._export.plan import bundle_size, shard_size
from norbert_store._format.arrays import block_key, block_shape, blocks_of, encode_block, group_document, json_bytes
from norbert_store._format.document import EXTENT, EXTENT_PARTS, ROOT_KEY, Document
from norbert_store._format.layout import POSITIONS, ROWS, Layout, shard_key
from norbert_store._format.shard import pack, with_checksum
from norbert_store._format.table import BASE_COLUMNS, label_column_of
from norbert_store._jpeg.encoder import encode, quantisation_table
from norbert_store._sources.files import AudioInfo
from norbert_store._spectra.bins import stored_transform
from norbert_store._spectra.levels import PowerCurve
from norbert_store._spectra.stft import Stft
from norbert_store._storage.storage import Storage

TARGETS = ("mixture", "vocals")
CHANNELS = ("left", "right")
CLIP = AudioInfo(rate=44100, channels=2, samples=441000)
STFT = Stft(rate=CLIP.rate)
TRANSFORM = stored_transform(STFT, 16000)
CHUNK_FRAMES = 256
BINS = len(TRANSFORM.frequencies)
LABELS = (
    label_column_of("artist", "string", "0"),
    label_column_of("genre", "string", "1"),
    label_column_of("year", "int64", "2"),
    label_column_of("tempo", "float64", "3"),
)
GENRES = ("Rock", "Jazz", "Electronic", "Classical", "Folk", "Hip-Hop", "Soul", "")
SPLITS = ("train", "train", "train", "train", "valid", "test")

# what is to be reached with a million tracks
MOST_OPEN_SECONDS, MOST_RATIO, MOST_MEGABYTES, MOST_NAME_SECONDS, MOST_FILES = 0.1, 2.0, 30.0, 2.0, 10_000


# ---- what the tracks are


def name(row: int) -> str:
    """Name of a track; every one stands once."""
    return f"Artist {row // 7:06d} - Title {row:07d}"


def has_data(tracks: int) -> list[int]:
    """Rows of the tracks whose chunks are really there."""
    return sorted({0, tracks // 2, tracks - 1})


def columns(tracks: int, bundle_tracks: int, shard_chunks: int) -> dict[str, np.ndarray]:
    """The track table, by column."""
    rows = np.arange(tracks)
    samples = CLIP.samples - 100 * (rows * 7919 % 2000)  # from about 5.5 to 10 seconds
    frames = -(-samples // STFT.hop) + 1
    chunks = -(-frames // CHUNK_FRAMES)
    # bundles begin at shards, and none of them is longer than one
    before = np.cumsum(chunks) - chunks
    start_chunks = before - before[rows // bundle_tracks * bundle_tracks] + rows // bundle_tracks * shard_chunks
    present = np.ones((tracks, len(TARGETS)), bool)
    present[rows % 10 == 3, 1] = False

    def texts(of_row: Callable[[int], str]) -> np.ndarray:
        return np.array([of_row(row) for row in range(tracks)], dtype=object)

    return {
        "name": texts(name),
        "split": texts(lambda row: SPLITS[row % len(SPLITS)]),
        "source": texts(lambda row: f"audio/{row // 7:06d}/{row:07d}.flac"),
        "source_bytes": np.where(present, 2 * samples[:, np.newaxis], -1),
        "source_modified": np.where(present, 1_500_000_000_000_000_000 + rows[:, np.newaxis], -1),
        "start": start_chunks * CHUNK_FRAMES,
        "frames": frames,
        "samples": samples,
        "present": present,
        "scale": np.zeros((tracks, len(TARGETS)), np.int16),
        "metadata": texts(lambda row: f'{{"album": "Album {row // 70}", "position": {row % 70}}}'),
        "artist": texts(lambda row: f"Artist {row // 7:06d}"),
        "genre": texts(lambda row: GENRES[row // 7 % len(GENRES)]),
        "year": 1950 + rows % 75,
        "tempo": np.where(rows % 5 == 0, np.nan, 60 + rows % 120.0),
    }


def jpegs(row: int, frames: int) -> Iterator[tuple[int, int, int, bytes]]:
    """Encode (target, channel, chunk, JPEG) of a track: noise below a slope that falls with frequency."""
    rng = np.random.default_rng(row)
    table = quantisation_table()
    slope = np.linspace(160, 20, BINS)
    for target in range(len(TARGETS)):
        for first in range(0, frames, CHUNK_FRAMES):
            for channel in range(len(CHANNELS)):
                levels = slope * rng.uniform(0.3, 1, (min(CHUNK_FRAMES, frames - first), BINS))
                yield target, channel, first // CHUNK_FRAMES, encode(levels.astype(np.uint8), table)


# ---- stores of them


def make_store(path: Path, tracks: int) -> None:
    """Write a store, placed as an export would place it."""
    placed = place(tracks, len(TARGETS))
    table = columns(tracks, **placed)
    layout = Layout(BINS, CHUNK_FRAMES, placed["shard_chunks"], PowerCurve())
    last = int(table["start"][-1]) + int(table["frames"][-1])
    document = Document(
        TARGETS,
        CHANNELS,
        TRANSFORM.config,
        layout,
        tracks=tracks,
        chunks=layout.chunks(last),
        labels=LABELS,
        encoder={"quality": 80.0},
    )
    storage, arrays = Storage(path, read_only=False), document.arrays()
    extents = likely_extents(table, layout, document.chunks)
    for (target, shard), (data, of_shard) in shards(table, layout).items():
        storage.set(shard_key(target, shard), data)
        there = extents[target, ..., layout.first_chunk(shard) :][..., : layout.shard_chunks]
        np.copyto(there, of_shard[..., : there.shape[-1]], where=of_shard[1:2, ..., : there.shape[-1]] > 0)
    values = {"target": np.array(TARGETS, object), "channel": np.array(CHANNELS, object)}
    values |= {"frequency": TRANSFORM.frequencies, EXTENT: extents}
    values |= {column.path: table[column.name] for column in document.columns}
    blocks = {
        (array, block): values[array][
            tuple(slice(size * i, size * (i + 1)) for i, size in zip(block, block_shape(arrays[array]), strict=True))
        ]
        for array in document.small_arrays
        for block in blocks_of(arrays[array])
    }
    for (array, block), part in blocks.items():
        storage.set(block_key(array, block), encode_block(arrays[array], part))
    for key, node in document.nodes().items():
        storage.set(key, json_bytes(node))
    storage.set(ROOT_KEY, document.with_blocks(blocks).to_json())


def likely_extents(table: dict[str, np.ndarray], layout: Layout, chunks: int) -> np.ndarray:
    """Make up extents of all chunks, as if each were there (targets, parts, channels, chunks)."""
    rng = np.random.default_rng(0)
    extents = np.zeros((len(TARGETS), EXTENT_PARTS, len(CHANNELS), chunks), np.uint32)
    first, count = layout.chunk_of(table["start"]), layout.chunks(table["frames"])
    positions = np.repeat(first, count) + np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    for target, of_target in enumerate(extents):
        there = positions[np.repeat(table["present"][:, target], count)]
        lengths = np.zeros((chunks, len(CHANNELS)), np.int64)
        lengths[there] = rng.integers(3000, 20000, (len(there), len(CHANNELS)))
        # time-outer, channel-inner, from the beginning of each shard
        before = np.cumsum(lengths).reshape(lengths.shape) - lengths
        in_shard = before - before[layout.first_chunk(layout.shard_of(np.arange(chunks))), :1]
        checksums = rng.integers(0, 2**32, lengths.shape)
        of_target[:] = np.stack([np.where(lengths > 0, part, 0).T for part in (in_shard, lengths, checksums)])
    return extents


def shards(table: dict[str, np.ndarray], layout: Layout) -> dict[tuple[int, int], tuple[bytes, np.ndarray]]:
    """Make the shards of the tracks that have data, and their extents, by target and shard."""
    chunks_of_shards: dict[tuple[int, int], dict[tuple[int, int], bytes]] = {}
    for row in has_data(len(table["name"])):
        first = int(table["start"][row]) // CHUNK_FRAMES
        for target, channel, chunk, jpeg in jpegs(row, int(table["frames"][row])):
            shard, within = divmod(first + chunk, layout.shard_chunks)
            chunks_of_shards.setdefault((target, shard), {})[channel, within] = with_checksum(jpeg)
    return {at: pack(chunks, len(CHANNELS), layout.shard_chunks) for at, chunks in chunks_of_shards.items()}


def place(tracks: int, targets: int) -> dict[str, int]:
    """Tell how many tracks an export puts into a bundle, and how many chunks into a shard."""
    bundle_tracks = bundle_size(tracks, targets)
    shard_chunks = shard_size(bundle_tracks, CLIP)
    return {"bundle_tracks": bundle_tracks, "shard_chunks": shard_chunks}


def files(tracks: int, targets: int) -> int:
    """Count the files of a store of clips of ten seconds that all have all targets."""
    placed = place(tracks, targets)
    bundles, rest = divmod(tracks, placed["bundle_tracks"])
    chunks = -(-STFT.frame_count(CLIP.samples) // CHUNK_FRAMES)
    shards = bundles * -(-placed["bundle_tracks"] * chunks // placed["shard_chunks"])
    used = shards * placed["shard_chunks"] + rest * chunks
    shards += -(-rest * chunks // placed["shard_chunks"])
    columns = len(BASE_COLUMNS) + len(LABELS)
    axes, magnitude, extent, groups = 3, 1, 1, 4
    documents = columns + axes + magnitude + extent + groups
    return shards * targets + -(-used // POSITIONS) * targets + columns * -(-tracks // ROWS) + axes + documents


def make_groups(path: Path, tracks: int) -> None:
    """Write a group for each track, as zarr-python would: of its documents, those that a reader needs."""
    layout = Layout(BINS, CHUNK_FRAMES, 2, PowerCurve())
    table = columns(tracks, 1, 2)
    nodes: dict[str, Any] = {}
    for row in range(tracks):
        frames = int(table["frames"][row])
        of_track = Document(
            TARGETS, CHANNELS, TRANSFORM.config, layout, 1, layout.chunks(frames), encoder={"quality": 80.0}
        )
        labels = {column: table[column][row] for column in ("split", "source", "metadata", "artist", "genre")}
        nodes[name(row)] = {**group_document(), "attributes": {**labels, "year": int(table["year"][row])}}
        nodes[f"{name(row)}/magnitude"] = of_track.arrays()["magnitude"]
    storage = Storage(path, read_only=False)
    for row in has_data(tracks):
        own = {column: values[row : row + 1] for column, values in table.items()} | {"start": np.array([0])}
        chunks: dict[int, dict[tuple[int, int], bytes]] = {}
        for target, channel, chunk, jpeg in jpegs(row, int(own["frames"][0])):
            chunks.setdefault(target, {})[channel, chunk] = with_checksum(jpeg)
        for target, of_target in chunks.items():
            storage.set(f"{name(row)}/magnitude/c/{target}/0/0/0", pack(of_target, len(CHANNELS), 2)[0])
    consolidated = {"kind": "inline", "must_understand": False, "metadata": nodes}
    storage.set(ROOT_KEY, json.dumps({**group_document(), "consolidated_metadata": consolidated}).encode())


# ---- what is measured, each in a process of its own


def measure_store(path: str, tracks: int) -> dict[str, float]:
    """Open a store, and use it."""
    import norbert_store

    import_all()
    clock = Clock()
    db = norbert_store.open(path)
    clock.lap("open")
    values = db[-1].magnitude.sel(target="vocals").values
    clock.lap("first slice")
    assert np.isfinite(values).all()
    clock.memory("memory")
    track = db[name(tracks - 1)]
    clock.lap("by name")
    assert track.start == db[-1].start
    clock.lap("")
    names = db.names
    clock.lap("names")
    assert names[-1] == track.name
    clock.lap("")
    rock = db.select(db.tracks.genre == "Rock")
    clock.lap("select")
    assert 0 < len(rock) < tracks
    clock.lap("")
    db.select(split="valid")
    clock.lap("split")
    assert sum(track.frames > 0 for track in db) == tracks
    clock.lap("iterate")
    clock.memory("memory at the end")
    return clock.found


def measure_groups(path: str, tracks: int) -> dict[str, float]:
    """The same of a store of groups, through zarr-python."""
    import zarr

    import_all()
    clock = Clock()
    root = zarr.open_group(path, mode="r", use_consolidated=True)
    clock.lap("open")
    values = root[f"{name(tracks - 1)}/magnitude"][1]
    clock.lap("first slice")
    assert np.isfinite(values).all()
    clock.memory("memory")
    root[name(tracks // 2)]
    clock.lap("by name")
    names = list(root.group_keys())
    clock.lap("names")
    assert len(names) == tracks
    return clock.found


def import_all() -> None:
    """Import what reading needs; some of it xarray imports with its first data set."""
    for module in ("norbert_store.codecs", "norbert_store._store", "zarr.codecs"):
        import_module(module)
    import xarray

    xarray.Dataset({"x": ("y", np.zeros(1))})["x"].sel(y=0).to_numpy()


class Clock:
    """Takes the time between laps, and the memory since it was made."""

    def __init__(self) -> None:
        self.found: dict[str, float] = {}
        self._memory = resident_megabytes()
        self._last = time.perf_counter()

    def lap(self, what: str) -> None:
        """Note the seconds since the lap before."""
        now = time.perf_counter()
        if what:
            self.found[what] = now - self._last
        self._last = time.perf_counter()

    def memory(self, what: str) -> None:
        """Note the megabytes that have come since the imports."""
        self.found[what] = resident_megabytes() - self._memory
        self._last = time.perf_counter()


def resident_megabytes() -> float:
    """Memory of this process; its peak, where the system doesn't tell it."""
    status = Path("/proc/self/statm")
    if status.exists():
        return int(status.read_text().split()[1]) * resource.getpagesize() / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6


MEASURES = {"store": measure_store, "groups": measure_groups}


def measured(kind: str, path: Path, tracks: int) -> dict[str, float]:
    """Measure in a fresh process."""
    command = [sys.executable, __file__, "--measure", kind, str(path), str(tracks)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


# ---- the table


def main() -> None:
    """Make, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tracks", type=int, default=1_000_000)
    parser.add_argument("--few", type=int, default=150, help="Number of tracks to compare with.")
    parser.add_argument("--groups", type=int, nargs="*", default=[150, 1000, 10_000])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--folder", type=Path, help="Where stores are made, and used again if they are there.")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        kind, path, tracks = arguments.measure
        print(json.dumps(MEASURES[kind](path, int(tracks))))
        return
    folder = arguments.folder or Path(tempfile.mkdtemp())
    try:
        stores = [("store", arguments.few), ("store", arguments.tracks), *(("groups", n) for n in arguments.groups)]
        found = measure_all(folder, stores, arguments.rounds)
    finally:
        if arguments.folder is None:
            shutil.rmtree(folder)
    print_table(found)
    print_goals(found["store", arguments.few], found["store", arguments.tracks], arguments.tracks)
    if arguments.json:
        rows = [{"kind": kind, "tracks": tracks, **values} for (kind, tracks), values in found.items()]
        arguments.json.write_text(json.dumps(rows, indent=1))


def measure_all(
    folder: Path, stores: Iterable[tuple[str, int]], rounds: int
) -> dict[tuple[str, int], dict[str, float]]:
    """Make what isn't there yet, and measure all of it in turn, after a round that doesn't count."""
    paths = {}
    for kind, tracks in stores:
        path = paths[kind, tracks] = folder / f"{kind}-{tracks}.zarr"
        if not (path / ROOT_KEY).exists():
            (make_store if kind == "store" else make_groups)(path, tracks)
    all_found: dict[tuple[str, int], list[dict[str, float]]] = {of: [] for of in paths}
    for _ in range(rounds + 1):
        for (kind, tracks), path in paths.items():
            all_found[kind, tracks].append(measured(kind, path, tracks))
    return {
        of: {what: statistics.median(one[what] for one in several[1:]) for what in several[0]}
        for of, several in all_found.items()
    }


def print_table(found: dict[tuple[str, int], dict[str, float]]) -> None:
    """Print a column for each store."""
    titles = [f"{tracks:,} {'tracks' if kind == 'store' else 'groups'}" for kind, tracks in found]
    print(f"{'':<20}" + "".join(f"{title:>18}" for title in titles))
    for what in next(iter(found.values())):
        cells = []
        for values in found.values():
            if what not in values:
                cells.append("")
            elif "memory" in what:
                cells.append(f"{values[what]:.1f} MB")
            else:
                cells.append(f"{1000 * values[what]:.1f} ms")
        print(f"{what:<20}" + "".join(f"{cell:>18}" for cell in cells))
    print("files of a store".ljust(20) + "".join(f"{count_files(*of):>18,}" for of in found))


def count_files(kind: str, tracks: int) -> int:
    """Count the files of a store, or of one that gives each track a group: two documents, and a shard a target."""
    return files(tracks, len(TARGETS)) if kind == "store" else 1 + tracks * (2 + len(TARGETS))


def print_goals(few: dict[str, float], many: dict[str, float], tracks: int) -> None:
    """Print what is to be reached, what is, and whether that will do."""
    goals = [
        ("open, ms", 1000 * many["open"], 1000 * MOST_OPEN_SECONDS),
        ("open, times that of few", many["open"] / few["open"], MOST_RATIO),
        ("first slice, times that of few", many["first slice"] / few["first slice"], MOST_RATIO),
        ("memory more than with few, MB", many["memory"] - few["memory"], MOST_MEGABYTES),
        ("first by name, s", many["by name"], MOST_NAME_SECONDS),
        *((f"files, {targets} target(s)", files(tracks, targets), MOST_FILES) for targets in (1, 2, 5, 10)),
    ]
    print()
    for what, value, most in goals:
        print(f"{what:<34}{value:>10,.2f}   at most {most:>9,.2f}   {'yes' if value <= most else 'NO'}")


if __name__ == "__main__":
    main()
