"""The Wiener filter beside norbert 0.2.1: time, peak memory, and how far their estimates differ.

    pip install norbert==0.2.1
    python benchmarks/wiener.py [--seconds 30] [--sources 4] [--iterations 2] [--runs 5]

Random stereo at 44.1 kHz, n_fft 2048, hop 1024; each implementation by its defaults, with the same arrays. Times are
medians of runs that take turns, in one process. Memory is what a fresh process needs at its peak beyond its
arguments: the estimates themselves, and all other memory. Linux and macOS (resource.getrusage).
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

RATE, HOP, BINS, CHANNELS = 44100, 1024, 1025, 2
NAMES = ("norbert", "norbert_store")


def wiener(name: str) -> Callable[..., np.ndarray]:
    """Import one of the two."""
    if name == "norbert_store":
        from norbert_store.filters import wiener
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it imports from a place that SciPy deprecates
            from norbert import wiener
    return wiener


def make(folder: Path, frames: int, sources: int, dtype: str) -> None:
    """Write magnitudes that are wrong by up to 6 dB, and a mixture, to ``v.npy`` and ``x.npy``."""
    rng = np.random.default_rng(0)

    def noise(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape) + 1j * rng.standard_normal(shape)

    images = noise(1, BINS, CHANNELS, sources) * noise(frames, BINS, 1, sources)
    images *= rng.gamma(0.3, size=(frames, BINS, 1, sources))
    np.save(folder / "v.npy", (np.abs(images) * rng.uniform(0.5, 2, images.shape)).astype(dtype))
    np.save(folder / "x.npy", images.sum(axis=-1).astype(np.result_type(dtype, np.complex64)))


def peak_bytes() -> int:
    """Largest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def memory(folder: Path, name: str, iterations: int) -> float:
    """MB at the peak of one call, beyond what the process holds before."""
    separate = wiener(name)
    v, x = np.load(folder / "v.npy"), np.load(folder / "x.npy")
    before = peak_bytes()
    separate(v, x, iterations)
    return (peak_bytes() - before) / 1e6


def times(folder: Path, iterations: int, runs: int) -> tuple[dict[str, float], float]:
    """Median seconds of each, and the largest difference relative to the largest estimate."""
    v, x = np.load(folder / "v.npy"), np.load(folder / "x.npy")
    seconds: dict[str, list[float]] = {name: [] for name in NAMES}
    for run in range(runs):
        estimates = []
        for name in NAMES:
            separate, mixture = wiener(name), x.copy()  # norbert changes its argument
            started = time.perf_counter()
            y = separate(v, mixture, iterations)
            seconds[name].append(time.perf_counter() - started)
            if run == 0:
                estimates.append(y)
            del y
        if run == 0:
            difference = float(np.abs(estimates[0] - estimates[1]).max() / np.abs(estimates[0]).max())
    return {name: statistics.median(seconds[name]) for name in NAMES}, difference


def fresh(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call in a process of its own. This one must stay small: a child's peak begins at its parent's size."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--sources", type=int, default=4)
    parser.add_argument("--iterations", type=int, default=2)
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    frames = round(arguments.seconds * RATE / HOP) + 1
    print(f"{arguments.seconds:g} s of stereo: {frames} frames x {BINS} bins, {arguments.sources} sources, ", end="")
    print(f"{arguments.iterations} iterations; medians of {arguments.runs}")
    print(f"{'':<8} {'norbert':>17} {'norbert_store':>17} {'ratio':>15}   largest difference")
    for dtype in ("float64", "float32"):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            fresh(make, folder, frames, arguments.sources, dtype)
            peaks = [fresh(memory, folder, name, arguments.iterations) for name in NAMES]
            seconds, difference = fresh(times, folder, arguments.iterations, arguments.runs)
        theirs, ours = (seconds[name] for name in NAMES)
        print(f"{dtype:<8} {theirs:15.2f} s {ours:15.2f} s {theirs / ours:8.1f} faster   {difference:.1e}")
        print(f"{'':<8} {peaks[0]:14.0f} MB {peaks[1]:14.0f} MB {peaks[1] / peaks[0]:8.2f} of it")


if __name__ == "__main__":
    main()
