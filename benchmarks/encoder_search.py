"""Search the constants of the perceptual encoder for the best grade at a given size; some tracks are held out.

    python benchmarks/encoder_search.py ROOT [--kilobytes 7] [--seconds 10] [--effort 3] [--rounds 1] [--tracks N]

ROOT holds a data set in the layout of MUSDB18-HQ. One constant is changed at a time, to the neighbours in its list, and
kept where the mean ODG (PEAQ, basic version, mixture's phase) at so many kB/s rises on the tracks searched on. In the
end, the tracks held out tell what that is worth: of the constants found, and of those there were before.

Every third track is held out, so that what is searched on is as varied as what isn't.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from norbert_store import encoding, perception
from norbert_store.jpeg import stream
from norbert_store.levels import PowerCurve, table
from norbert_store.quality.peaq import Reference
from norbert_store.stft import Stft, StftStream
from norbert_store.writer import new_document

# Each constant, and what is tried.
CONSTANTS: dict[tuple[ModuleType, str], Sequence[Any]] = {
    (perception, "_LEAKAGE"): (0.0, 0.02, 0.05, 0.1, 0.2),
    (encoding, "_BITS_PER_STEP"): (0.04, 0.06, 0.08, 0.12, 0.2),
    (encoding, "_STEP"): (1.2, 1.4, 1.6, 1.8),
    (encoding, "_PULL"): (0.0, 0.05, 0.1, 0.2),
    (encoding, "_LOWEST_LEVEL"): (1, 2, 4),
}
EXPONENTS = (0.25, 0.3, 0.35, 0.4)


@dataclass
class Excerpt:
    """What is encoded, and the reference for its grade."""

    name: str
    audio: NDArray[np.float32]
    rate: int
    reference: Reference

    @classmethod
    def read(cls, path: Path, seconds: float) -> Excerpt:
        """Read from the middle of a file."""
        info = soundfile.info(path)
        frames = min(info.frames, round(seconds * info.samplerate))
        start = (info.frames - frames) // 2
        audio, rate = soundfile.read(path, frames, start, dtype="float32", always_2d=True)
        return cls(path.parent.name, audio, rate, Reference(audio, rate))

    def grade(self, quality: float, effort: int, exponent: float) -> tuple[float, float]:
        """Encode and decode; return kB/s and ODG."""
        stft = Stft(rate=self.rate)
        document, transform = new_document(
            targets=["mixture"],
            transform=stft,
            channels=self.audio.shape[1],
            curve=PowerCurve(exponent=exponent),
            quality=quality,
            effort=effort,
        )
        bins, magnitudes = document.layout.bins, table(document.layout.curve)
        encoder = encoding.Encoding(document, transform).stem()
        frames = StftStream(stft, self.audio.shape[1], np.float32, document.layout.chunk_frames)
        spectra = [*frames.push(self.audio), *frames.finish()]
        chunks = [jpegs for block in spectra for jpegs in encoder.push(np.abs(block[..., :bins]), block[..., :bins])]
        chunks += encoder.finish()
        decoded = [np.stack([magnitudes[stream.decode(jpeg)] for jpeg in jpegs], axis=1) for jpegs in chunks]
        spectrum = np.concatenate(spectra)
        magnitude = np.abs(spectrum)
        again = np.zeros_like(spectrum)
        again[..., :bins] = np.concatenate(decoded)[: len(spectrum)]
        again *= spectrum / np.maximum(magnitude, np.finfo(np.float32).tiny)
        audio = stft.inverse_transform(np.moveaxis(again, 1, 2), len(self.audio))
        once = {id(jpeg): len(jpeg) for jpegs in chunks for jpeg in jpegs}  # equal channels are stored once
        return sum(once.values()) / 1000 / (len(audio) / self.rate), self.reference.compare(audio).odg


def at_size(excerpts: Sequence[Excerpt], kilobytes: float, effort: int, exponent: float) -> tuple[float, float, float]:
    """Mean and worst ODG at so many kB/s on average, and the quality that takes that; the same for all tracks."""
    quality, tries = 78.0, []
    for _ in range(3):
        sizes, grades = np.array([excerpt.grade(quality, effort, exponent) for excerpt in excerpts]).T
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
    parser.add_argument("--tracks", type=int, help="only the first so many")
    arguments = parser.parse_args()

    paths = sorted(arguments.root.glob("*/*/mixture.wav"))[: arguments.tracks]
    excerpts = [Excerpt.read(path, arguments.seconds) for path in paths]
    held_out = excerpts[2::3]
    searched = [excerpt for i, excerpt in enumerate(excerpts) if i % 3 != 2]
    print("held out:", ", ".join(excerpt.name for excerpt in held_out))

    def score(values: dict[tuple[ModuleType, str], Any], exponent: float, tracks: Sequence[Excerpt]) -> float:
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
