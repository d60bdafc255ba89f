"""Peak memory of writing long audio, streamed in blocks: one target, stereo, 44.1 kHz.

    python benchmarks/memory.py [--minutes 60] [--array]

The music is noise, which makes the largest JPEGs. With --array the audio is one float32 array, whose own size is
printed beside the peak. Linux and macOS (resource.getrusage).
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import norbert_store

RATE = 44100


def noise(minutes: float) -> Iterator[np.ndarray]:
    """Blocks of a second, (samples, 2), float32."""
    rng = np.random.default_rng(0)
    for _ in range(round(60 * minutes)):
        yield 0.3 * rng.standard_normal((RATE, 2), dtype=np.float32).clip(-3, 3)


def peak_megabytes() -> float:
    """Largest resident memory of this process so far."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def main() -> None:
    """Write a store and print the peak."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--array", action="store_true")
    arguments = parser.parse_args()
    audio = np.concatenate(list(noise(arguments.minutes))) if arguments.array else None
    with tempfile.TemporaryDirectory() as folder:
        before = peak_megabytes()
        started = time.monotonic()
        with norbert_store.create(Path(folder) / "store.zarr", targets=["mixture"], rate=RATE) as writer:
            writer.add("noise", {"mixture": noise(arguments.minutes) if audio is None else audio})
        seconds = time.monotonic() - started
        size = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
    print(f"{arguments.minutes:g} minutes in {seconds:.0f} s, {size / 1e6:.0f} MB on disk")
    print(f"peak memory {peak_megabytes():.0f} MB; before writing {before:.0f} MB", end="")
    print("" if audio is None else f", of which the audio {audio.nbytes / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
