"""Search the constants of the perceptual encoder for the best grade at a given size; some tracks are held out.

    python benchmarks/encoder_search.py ROOT [--kilobytes 7] [--seconds 10] [--effort 3] [--rounds 1] [--tracks N]

ROOT holds a data set in the layout of MUSDB18-HQ. One constant is changed at a time, to the neighbours in its list, and
kept where the mean ODG (PEAQ, basic version, mixture's phase) at the given kB/s rises on the tracks searched on. In the
end, the tracks held out tell what that is worth: of the constants found, and of those there were before.

Every third track is held out, so that what is searched on is as varied as what isn't.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import soundfile

from norbert_store import PowerCurve
from norbert_store._encode import masking as perception
from norbert_store._encode import search as encoding
from norbert_store.quality import Original, through_store

# Each constant, and what is tried.
CONSTANTS: dict[tuple[ModuleType, str], Sequence[Any]] = {
    (perception, "_LEAKAGE"): (0.0, 0.02, 0.05, 0.1, 0.2),
    (encoding, "_BITS_PER_STEP"): (0.04, 0.06, 0.08, 0.12, 0.2),
    (encoding, "_STEP"): (1.2, 1.4, 1.6, 1.8),
    (encoding, "_PULL"): (0.0, 0.05, 0.1, 0.2),
    (encoding, "_LOWEST_LEVEL"): (1, 2, 4),
}
EXPONENTS = (0.25, 0.3, 0.35, 0.4)


def read(path: Path, seconds: float) -> Original:
    """Prepare the middle of a file."""
    info = soundfile.info(path)
    frames = min(info.frames, round(seconds * info.samplerate))
    audio, rate = soundfile.read(path, frames, (info.frames - frames) // 2, dtype="float32", always_2d=True)
    return Original(audio, rate)


def grade(original: Original, quality: float, effort: int, exponent: float) -> tuple[float, float]:
    """Store and read again; return kB/s and ODG."""
    curve = PowerCurve(exponent=exponent)
    size, magnitude = through_store(original, quality=quality, effort=effort, curve=curve)
    return size / 1000 / original.seconds, original.score(magnitude, with_zimtohrli=False).odg


def at_size(excerpts: Sequence[Original], kilobytes: float, effort: int, exponent: float) -> tuple[float, float, float]:
    """Mean and worst ODG at the given kB/s on average, and the quality that takes that; the same for all tracks."""
    quality, tries = 78.0, []
    for _ in range(3):
        sizes, grades = np.array([grade(excerpt, quality, effort, exponent) for excerpt in excerpts]).T
        tries.append((np.log(sizes.mean()), quality, grades.mean(), grades.min()))
        # ten points more take about twice the bytes; then by the last two
        slope = 14.4
        if len(tries) > 1 and tries[-1][0] != tries[-2][0]:
            slope = (tries[-1][1] - tries[-2][1]) / (tries[-1][0] - tries[-2][0])
        quality = float(np.clip(quality + slope * (np.log(kilobytes) - tries[-1][0]), 0, 99))
    size, *results = np.array(sorted(tries)).T
    quality, mean, worst = (float(np.interp(np.log(kilobytes), size, values)) for values in results)
    return mean, worst, quality


@contextmanager
def constants(values: dict[tuple[ModuleType, str], Any]) -> Iterator[None]:
    """Let the encoder have other constants."""
    before = {(module, name): getattr(module, name) for module, name in values}
    try:
        for (module, name), value in values.items():
            setattr(module, name, value)
        yield
    finally:
        for (module, name), value in before.items():
            setattr(module, name, value)


def neighbours(values: Sequence[Any], value: Any) -> list[Any]:
    """What stands beside a value in a list, on either side."""
    i = int(np.argmin(np.abs(np.array(values) - value)))
    return [values[j] for j in (i - 1, i + 1) if 0 <= j < len(values)]


def main() -> None:
    """Search, and report."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("root", type=Path)
    parser.add_argument("--kilobytes", type=float, default=7.0, help="a second, on average")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each track, from its middle")
    parser.add_argument("--effort", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=1, help="through all constants")
    parser.add_argument("--tracks", type=int, help="number of tracks, from the first")
    arguments = parser.parse_args()

    paths = sorted(arguments.root.glob("*/*/mixture.wav"))[: arguments.tracks]
    excerpts = [read(path, arguments.seconds) for path in paths]
    held_out = excerpts[2::3]
    searched = [excerpt for i, excerpt in enumerate(excerpts) if i % 3 != 2]
    print("held out:", ", ".join(path.parent.name for path in paths[2::3]))

    def score(values: dict[tuple[ModuleType, str], Any], exponent: float, tracks: Sequence[Original]) -> float:
        with constants(values):
            mean, worst, quality = at_size(tracks, arguments.kilobytes, arguments.effort, exponent)
        told = ", ".join(f"{name[1:].lower()} {value:g}" for (_, name), value in values.items())
        print(f"{mean:7.3f} {worst:7.3f}  quality {quality:.1f}, exponent {exponent:g}, {told}", flush=True)
        return mean

    before = {constant: getattr(*constant) for constant in CONSTANTS}
    found, exponent = dict(before), PowerCurve().exponent
    best = score(found, exponent, searched)
    for _ in range(arguments.rounds):
        for constant, values in CONSTANTS.items():
            for value in neighbours(values, found[constant]):
                if (mean := score({**found, constant: value}, exponent, searched)) > best:
                    found, best = {**found, constant: value}, mean
        for value in neighbours(EXPONENTS, exponent):
            if (mean := score(found, value, searched)) > best:
                exponent, best = value, mean
    print("tracks held out, before and after:")
    score(before, PowerCurve().exponent, held_out)
    score(found, exponent, held_out)


if __name__ == "__main__":
    main()
