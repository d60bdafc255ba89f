"""PEAQ against the grades of an independent implementation, and its speed.

    python benchmarks/peaq.py REFERENCE.csv DISTORT.py CORPUS [--tracks 4] [--details]

REFERENCE.csv has the columns track, distortion, amount, odg and distortion_index, for the first 10 seconds of each
track's mixture; DISTORT.py makes the pairs, ``distort(audio, rate, distortion, amount)``; CORPUS is a folder of tracks
in the layout of MUSDB18-HQ. Both signals are resampled to 48 kHz and rounded to float32 before they are compared.
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import math
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import soundfile
from scipy.signal import resample_poly

from norbert_store.quality import Reference

SECONDS = 10
RATE = 48000


def main() -> None:
    """Compare all pairs and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reference", type=Path)
    parser.add_argument("distort", type=Path)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--tracks", type=int, help="number of tracks, from the first")
    parser.add_argument("--details", action="store_true", help="a line for every pair")
    arguments = parser.parse_args()
    distort = load_function(arguments.distort, "distort")

    errors = []
    preparing, comparing = [], []
    for track, pairs in list(read_pairs(arguments.reference).items())[: arguments.tracks]:
        (path,) = arguments.corpus.glob(f"*/{track}/mixture.wav")
        rate = soundfile.info(path).samplerate
        audio, _ = soundfile.read(path, frames=SECONDS * rate, always_2d=True)
        signal = resampled(audio, rate)
        start = time.perf_counter()
        reference = Reference(signal, RATE)
        reference.compare(signal)
        preparing.append(time.perf_counter() - start)
        for pair in pairs:
            kind = f"{pair['distortion']} {pair['amount']}"
            distorted = distort(audio, rate, pair["distortion"], int(pair["amount"]))
            test = resampled(distorted, rate)
            start = time.perf_counter()
            result = reference.compare(test)
            comparing.append(time.perf_counter() - start)
            grade, index = result.odg - float(pair["odg"]), result.distortion_index - float(pair["distortion_index"])
            errors.append((kind, abs(grade), abs(index)))
            if arguments.details:
                print(f"{track:30} {kind:16} ODG {result.odg:7.3f}, off by {grade:+.4f}; index off by {index:+.4f}")

    print_table(errors)
    print("times as fast as the audio lasts, median over all pairs and, in brackets, of the slowest tenth:")
    for what, seconds in (("reference prepared before", comparing), ("preparing and comparing", preparing)):
        print(f"{what:26} {SECONDS / np.median(seconds):5.0f} ({SECONDS / np.quantile(seconds, 0.9):.0f})")


def resampled(audio: np.ndarray, rate: int) -> np.ndarray:
    """Audio (samples, channels) at 48 kHz, float32."""
    divisor = math.gcd(RATE, rate)
    return resample_poly(audio, RATE // divisor, rate // divisor, axis=0).astype(np.float32)


def load_function(path: Path, name: str):
    """Take a function out of a file of Python."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, name)


def read_pairs(path: Path) -> dict[str, list[dict[str, str]]]:
    """Rows of the table of reference values, by track."""
    rows = defaultdict(list)
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            rows[row["track"]].append(row)
    return rows


def print_table(errors: list[tuple[str, float, float]]) -> None:
    """Mean, 95 % quantile and largest difference for each distortion and for all pairs."""
    print(f"{'':16}  pairs    ODG mean       95 %        max   index mean       95 %        max")
    for kind in [*dict.fromkeys(error[0] for error in errors), "all"]:
        chosen = np.array([error[1:] for error in errors if kind in (error[0], "all")])
        columns = [f(values) for values in chosen.T for f in (np.mean, lambda v: np.quantile(v, 0.95), np.max)]
        print(f"{kind:16} {len(chosen):6}  " + "  ".join(f"{number:9.4f}" for number in columns))


if __name__ == "__main__":
    main()
