"""What storing magnitudes costs in bytes and in sound, by this library, by Norbert, and by what else there is.

    python benchmarks/quality.py MUSDB [--tracks N] [--seconds S] [--quality Q ...] [--effort E ...] [--only NAME ...]
                                 [--stems] [--sizes] [--again NAME ...] [--work FOLDER] [--workers 2]
                                 [--no-zimtohrli] [--details]
                                 [--out results.json] [--picture rate.png] [--quality-picture quality.png]

MUSDB is a folder in the layout of MUSDB18-HQ, or any folder of audio files. Of each mixture the magnitudes (STFT of
2048 samples, hop 1024, up to 16 kHz) are stored and read again by every contestant at several settings, and made into
audio with the phase of the mixture. Bytes are all that the contestant needs for the stereo piece, without what a data
set has once. Audio codecs get the mixture itself; of what they give back, magnitudes are taken.

ODG is PEAQ's grade of that audio against the mixture: 0 can't be told apart, -1 can but doesn't annoy, -4 annoys very
much. SNR is the energy of the mixture over that of the difference, LSE the error of the log spectrum, and zimtohrli a
distance by the package of that name. Tables show means over tracks, and the worst track's ODG.

With --stems, vocals, drums, bass and other are stored too, and heard twice: with their own phase, and with that of the
mixture, compared with what their exact magnitudes give with it. With --sizes, only the few settings are measured that
the table of file sizes needs.

Results are written to FOLDER/results.jsonl one by one; a run that was stopped continues there. A contestant that has
changed since is measured --again. What depends on a package that is missing isn't measured. Beyond those of this
library, the packages are lilcom and zimtohrli; audio codecs need the program ffmpeg.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import quality_pictures
import soundfile
from quality_contestants import (
    DEFAULT_QUALITY,
    EXACT,
    QUALITIES,
    SEED,
    SEED_2018,
    THIS_STORE,
    Array,
    Contestant,
    entrants,
)
from resumed import resumed
from rich.progress import track as progress

from norbert_store.quality import Original

FORMATS = ("WAV", "FLAC", "OGG", "OPUS", "MP3", "AIFF", "AIF")
STEMS = ("vocals", "drums", "bass", "other")
MIXTURE = "mixture"

# name in the table, contestant, setting
SIZES = (
    (".npy, 64 bits, all bins", "exact, all bins", 64),
    (".npz, the same zipped", "exact, all bins, zipped", 64),
    ("MP3, 256 kbit/s", "MP3", 256),
    ("AAC, 160 kbit/s", "AAC", 160),
    (".npy, Norbert's 8 bits, all bins", "Norbert's levels, all bins", 8),
    ("JPEG as in Norbert, quality 80", SEED, 80),
    ("JPEG as in Norbert's code of 2018, quality 80", SEED_2018, 80),
    (f"this store, quality {DEFAULT_QUALITY:g}", THIS_STORE, DEFAULT_QUALITY),
)
# what is measured of stems
OF_STEMS = ((THIS_STORE, DEFAULT_QUALITY), (SEED, 80), (EXACT, 32))
# where the table of equal bytes and equal grades looks
RATES, GRADES = (3.8, 7.0, 14.7), (-1.0, -0.5)

Key = Mapping[str, Any]
Row = dict[str, Any]


# ---- measuring


@dataclass(frozen=True)
class Measurement:
    """What a process needs to measure any key.

    Attributes
    ----------
    tracks : mapping
        By name, a folder with a file per target, or the file of a mixture.
    qualities, efforts : tuple
        Of this store.
    with_zimtohrli : bool
    """

    tracks: Mapping[str, Path]
    qualities: tuple[float, ...]
    efforts: tuple[int, ...]
    with_zimtohrli: bool

    def __call__(self, key: Key) -> Row:
        """Store one piece in one way, and compare."""
        original = prepared(self.tracks[key["track"]], key["target"], key["phase"], key["seconds"])
        if original is None:
            return {"silent": True}
        started = processor_seconds()
        size, magnitude = entrants(self.qualities, self.efforts)[key["contestant"]].store(original, key["setting"])
        took = processor_seconds() - started
        scores = original.score(magnitude, self.with_zimtohrli)
        rate = size / original.seconds / 1000
        return {"silent": False, "kB/s": rate, "processor_seconds": took / original.seconds, **asdict(scores)}


@lru_cache(maxsize=1)
def prepared(path: Path, target: str, phase: str, seconds: float | None) -> Original | None:
    """The beginning of a track, or None where there is nothing but silence."""
    audio, rate = beginning(path, target, seconds)
    mixture = None if phase == target else beginning(path, phase, seconds)[0]
    return Original(audio, rate, mixture) if audio.any() else None


def beginning(path: Path, target: str, seconds: float | None) -> tuple[Array, int]:
    """The first seconds of a target, or all of it, and its rate."""
    file = path / f"{target}.wav" if path.is_dir() else path
    frames = -1 if seconds is None else round(seconds * soundfile.info(file).samplerate)
    audio, rate = soundfile.read(file, frames, dtype="float32", always_2d=True)
    return audio, rate


def processor_seconds() -> float:
    """What this process and its children have worked."""
    return sum(os.times()[:4])


def keys_of(
    tracks: Sequence[str], contestants: Mapping[str, Contestant], seconds: float | None, stems: bool, sizes: bool
) -> list[Key]:
    """All that is to be measured, piece by piece."""
    pieces = [(MIXTURE, MIXTURE), *((stem, phase) for stem in STEMS for phase in (stem, MIXTURE) if stems)]
    wanted = {(name, setting) for _, name, setting in SIZES}
    return [
        {
            "track": track,
            "target": target,
            "phase": phase,
            "seconds": seconds,
            "contestant": name,
            "setting": float(setting),
        }
        for track in tracks
        for target, phase in pieces
        for name, contestant in contestants.items()
        for setting in contestant.settings
        if (not sizes or (name, setting) in wanted) and (target == MIXTURE or (name, setting) in OF_STEMS)
    ]


# ---- tables


def mean_over_tracks(rows: Sequence[Row]) -> dict[tuple[str, float], Row]:
    """Means of all measures by contestant and setting, and the worst track's grade."""
    found: dict[tuple[str, float], list[Row]] = {}
    for row in rows:
        if not row["silent"]:
            found.setdefault((row["contestant"], row["setting"]), []).append(row)
    return {key: mean_of(several) for key, several in found.items()}


def mean_of(rows: Sequence[Row]) -> Row:
    """Means of all measures, and the worst grade."""
    names = ("kB/s", "odg", "snr", "log_spectral_error", "zimtohrli", "processor_seconds")
    means = {name: mean([row[name] for row in rows]) for name in names}
    worst = min(rows, key=lambda row: row["odg"])
    return {**means, "worst": worst["odg"], "worst track": worst["track"], "tracks": len(rows)}


def mean(values: Sequence[float | None]) -> float | None:
    """Mean, where all were measured."""
    return None if None in values else float(np.mean(np.array(values, dtype=np.float64)))


COLUMNS = {
    "kB/s": lambda row: f"{row['kB/s']:.2f}",
    "kbit/s": lambda row: f"{8 * row['kB/s']:.0f}",
    "ODG": lambda row: f"{row['odg']:.2f}",
    "worst": lambda row: f"{row['worst']:.2f}",
    "SNR, dB": lambda row: f"{row['snr']:.1f}",
    "LSE, dB": lambda row: f"{row['log_spectral_error']:.2f}",
    "zimtohrli": lambda row: "" if row["zimtohrli"] is None else f"{row['zimtohrli']:.5f}",
    "x real time": lambda row: f"{1 / max(row['processor_seconds'], 1e-3):.0f}",
}


def print_table(title: str, lines: Sequence[tuple[str, Row]], columns: Sequence[str] = tuple(COLUMNS)) -> None:
    """Print a line for each row, in Markdown; columns that nothing is known of are left out."""
    if not lines:
        return
    columns = [column for column in columns if any(COLUMNS[column](row) for _, row in lines)]
    width = max([len(title), *(len(name) for name, _ in lines)])
    print(f"\n| {title:<{width}} |" + "".join(f" {column:>7} |" for column in columns))
    print(f"|{'-' * (width + 2)}|" + "".join(f"{'-' * (max(7, len(column)) + 1)}:|" for column in columns))
    for name, row in lines:
        cells = (f" {COLUMNS[column](row):>{max(7, len(column))}} |" for column in columns)
        print(f"| {name:<{width}} |" + "".join(cells))


def print_tables(rows: Sequence[Row], contestants: Mapping[str, Contestant], details: bool) -> None:
    """Print all that the rows are good for."""
    mixtures = [row for row in rows if row["target"] == MIXTURE]
    means = mean_over_tracks(mixtures)
    units = {name: contestant.unit for name, contestant in contestants.items()}
    print_table("mixtures", [(f"{name}, {units[name]} {setting:g}", row) for (name, setting), row in means.items()])
    sizes = [(label, means[name, float(setting)]) for label, name, setting in SIZES if (name, setting) in means]
    print_table("file sizes", sizes, ("kB/s", "kbit/s", "ODG", "worst"))
    print_equal(means)
    if details:
        ours = [row for row in mixtures if (row["contestant"], row["setting"]) == (THIS_STORE, DEFAULT_QUALITY)]
        print_table("this store, default", [(row["track"], mean_of([row])) for row in ours])
    for target, phase in dict.fromkeys((row["target"], row["phase"]) for row in rows if row["target"] != MIXTURE):
        several = [row for row in rows if (row["target"], row["phase"]) == (target, phase)]
        title = f"{target}, {'its own phase' if phase == target else 'the phase of the mixture'}"
        means = mean_over_tracks(several)
        print_table(title, [(f"{name}, {units[name]} {setting:g}", row) for (name, setting), row in means.items()])


def print_equal(means: Mapping[tuple[str, float], Row]) -> None:
    """Print the grade that each contestant reaches with equal bytes, and the bytes for an equal grade."""
    settings = Counter(name for name, _ in means)
    names = [name for name in settings if settings[name] > 1]
    if not names:
        return
    print("\nbetween the settings, on a logarithmic scale of bytes: ODG mean / worst at a rate; kB/s for a mean ODG")
    heads = [*(f"at {rate:g} kB/s" for rate in RATES), *(f"ODG {grade:g}" for grade in GRADES)]
    print(f"| {'':<24} |" + "".join(f" {head:>15} |" for head in heads))
    print(f"|{'-' * 26}|" + "-----------------:|" * len(heads))
    for name in names:
        curve = sorted((row["kB/s"], row["odg"], row["worst"]) for (one, _), row in means.items() if one == name)
        rates, grades, worst = np.array(curve).T
        cells = [f"{interpolated(rate, rates, grades):.2f} / {interpolated(rate, rates, worst):.2f}" for rate in RATES]
        best_so_far = np.maximum.accumulate(grades)
        cells += [f"{np.exp(interpolated(grade, best_so_far, np.log(rates), False)):.1f}" for grade in GRADES]
        print(f"| {name:<24} |" + "".join(f" {cell.replace('nan', '-'):>15} |" for cell in cells))


def interpolated(x: float, known: Any, values: Any, logarithmic: bool = True) -> float:
    """Between known places; NaN beyond them."""
    scale = np.log if logarithmic else np.asarray
    return float(np.interp(scale(x), scale(known), values, left=np.nan, right=np.nan))


# ---- the script


def find_tracks(root: Path, most: int | None) -> dict[str, Path]:
    """Tracks of MUSDB18-HQ, or of a plain folder, by name."""
    folders = sorted(path.parent for path in root.glob("t*/*/mixture.wav"))
    files = [] if folders else sorted(path for path in root.rglob("*") if path.suffix[1:].upper() in FORMATS)
    return {path.relative_to(root).with_suffix("").as_posix(): path for path in files[:most]} or {
        path.name: path for path in folders[:most]
    }


def forget(log: Path, names: Sequence[str]) -> None:
    """Take what was measured of some contestants out of the log."""
    if log.exists() and names:
        lines = log.read_text().splitlines(keepends=True)
        log.write_text("".join(line for line in lines if not json.loads(line)["contestant"].startswith(tuple(names))))


def main() -> None:
    """Measure what isn't measured yet, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, metavar="MUSDB")
    parser.add_argument("--tracks", type=int, help="Number of tracks, at most.")
    parser.add_argument("--seconds", type=float, help="Of each track, from its beginning; all of it if left out.")
    parser.add_argument("--quality", type=float, nargs="+", default=QUALITIES, help="Of this store.")
    parser.add_argument("--effort", type=int, nargs="+", default=(), help="Of this store, beside its default.")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="Contestants whose names begin with one of these.")
    parser.add_argument("--stems", action="store_true", help="Also the four stems, at default settings.")
    parser.add_argument("--sizes", action="store_true", help="Only what the table of file sizes needs.")
    parser.add_argument("--again", nargs="+", default=(), metavar="NAME", help="Forget results of these.")
    parser.add_argument("--no-zimtohrli", action="store_true", help="It takes four fifths of the time.")
    parser.add_argument("--work", type=Path, help="Where results are kept.")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--details", action="store_true", help="Also a line for every track.")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--picture", type=Path, help="Grades over bytes.")
    parser.add_argument("--quality-picture", type=Path, help="Grades and bytes over quality.")
    arguments = parser.parse_args()
    with ExitStack() as stack:
        work = arguments.work or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        work.mkdir(parents=True, exist_ok=True)
        run(arguments, work / "results.jsonl")


def run(arguments: argparse.Namespace, log: Path) -> None:
    """Measure, print, draw."""
    tracks = find_tracks(arguments.root, arguments.tracks)
    efforts = tuple(arguments.effort)
    qualities = tuple(arguments.quality)
    known = entrants(qualities, efforts)
    chosen = {name: one for name, one in known.items() if name.startswith(tuple(arguments.only or known))}
    contestants = {name: one for name, one in chosen.items() if not one.missing}
    forget(log, arguments.again)
    keys = keys_of(list(tracks), contestants, arguments.seconds, arguments.stems, arguments.sizes)
    with ProcessPoolExecutor(arguments.workers, get_context("spawn")) as pool:
        function = Measurement(tracks, qualities, efforts, not arguments.no_zimtohrli)
        measured = resumed(function, keys, log, pool)
        rows = list(progress(measured, "measuring", total=len(keys), transient=True))

    length = "" if arguments.seconds is None else f", {arguments.seconds:g} s each"
    print(f"{len(tracks)} tracks{length}")
    print_tables(rows, contestants, arguments.details)
    for name, one in chosen.items():
        if one.missing:
            print(f"{name}: not measured ({one.missing})")
    if arguments.out:
        arguments.out.write_text(json.dumps(rows, indent=1))
    means = mean_over_tracks([row for row in rows if row["target"] == MIXTURE])
    if arguments.picture:
        quality_pictures.draw_rates(means, arguments.picture)
    if arguments.quality_picture:
        quality_pictures.draw_qualities(means, arguments.quality_picture)


if __name__ == "__main__":
    main()
