"""What an export costs beyond the bare work, and what more workers are good for.

    python benchmarks/export.py MUSDB [--rounds 5] [--workers 2]

MUSDB is a folder in either layout of MUSDB18. The bare work is what can't be left out: reading the audio of all stems,
FFT and magnitudes, and the encoding of every chunk, in a plain loop that keeps nothing. It is timed in
this process, as are the exports; a pool's processes are started before the clock is. All are run in turn, in each of
several rounds; printed are medians, and medians of the ratios within a round.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import ExitStack
from pathlib import Path

import numpy as np

import norbert_store
from norbert_store._encode.search import Encoding
from norbert_store._export.parallel import process_pool
from norbert_store._format.document import Document
from norbert_store._sources.musdb import TARGETS, musdb_tracks
from norbert_store._sources.stems import blocks_of_stems
from norbert_store._spectra.bins import StoredTransform
from norbert_store._spectra.stft import StftStream
from norbert_store._write.settings import new_document


def bare_work(root: Path) -> float:
    """Read, transform and encode everything; return the length of the music, seconds."""
    samples = rate = 0
    for track in musdb_tracks(root):
        rate = next(iter(track.source.first_headers().values())).rate
        document, transform = new_document(targets=TARGETS, rate=rate)
        encoding = Encoding(document, transform)
        stems = {target: Stem(document, transform, encoding) for target in TARGETS}
        for target, block in blocks_of_stems(track.source, TARGETS, rate):
            stems[target].push(block)
        for stem in stems.values():
            stem.finish()
        samples += max(stem.stream.samples for stem in stems.values())
    return samples / rate


class Stem:
    """Samples to JPEGs, which nobody keeps."""

    def __init__(self, document: Document, transform: StoredTransform, encoding: Encoding) -> None:
        self.transform = transform
        self.stream = StftStream(transform.stft, len(document.channels), np.float32, document.layout.chunk_frames)
        self.encoder = encoding.stem()

    def push(self, block: np.ndarray) -> None:
        """Take samples (samples, channels)."""
        for spectrum in self.stream.push(block):
            self.encode(spectrum)

    def finish(self) -> None:
        """Take it that there are no more."""
        for spectrum in self.stream.finish():
            self.encode(spectrum)
        self.encoder.finish()

    def encode(self, spectrum: np.ndarray) -> None:
        """Encode a chunk (frames, channels, bins)."""
        magnitude = self.transform.reduce(np.abs(spectrum))
        self.encoder.push(magnitude, spectrum[..., : magnitude.shape[-1]])


def start(executor: Executor, workers: int) -> None:
    """Have all processes of a pool running, with this library loaded."""
    for future in [executor.submit(time.sleep, 0.5) for _ in range(workers)]:
        future.result()
    for future in [executor.submit(musdb_tracks, ".") for _ in range(workers)]:
        future.exception()


def main() -> None:
    """Time the bare work, one worker and several, in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("musdb", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    with ExitStack() as stack:
        pool = stack.enter_context(process_pool(arguments.workers))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        start(pool, arguments.workers)
        contestants: dict[str, Callable[[int], object]] = {
            "the bare work": lambda _: bare_work(arguments.musdb),
            "one worker": lambda i: norbert_store.export_musdb(arguments.musdb, folder / f"one-{i}.zarr"),
            f"{arguments.workers} workers": lambda i: norbert_store.export_musdb(
                arguments.musdb, folder / f"more-{i}.zarr", workers=pool
            ),
        }
        music = bare_work(arguments.musdb)  # also fills the page cache
        seconds: dict[str, list[float]] = {name: [] for name in contestants}
        for i in range(arguments.rounds):
            for name, run in contestants.items():
                started = time.perf_counter()
                run(i)
                seconds[name].append(time.perf_counter() - started)
    bare, one, more = seconds.values()
    print(f"{music:.0f} s of music, {len(musdb_tracks(arguments.musdb))} tracks, {arguments.rounds} rounds")
    for name, times in seconds.items():
        median = statistics.median(times)
        print(f"{name:<14} {median:6.2f} s ({min(times):.2f} to {max(times):.2f})  {music / median:5.1f} x real time")
    print(f"one worker / the bare work: {statistics.median(np.divide(one, bare)):.2f}")
    print(f"one worker / {arguments.workers} workers: {statistics.median(np.divide(one, more)):.2f}")


if __name__ == "__main__":
    main()
