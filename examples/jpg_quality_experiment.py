"""Norbert's experiment: how much quality of the JPEGs is enough, to the ear?

    python examples/jpg_quality_experiment.py [MUSDB [OUT]] [--qualities 40 50 ...] [--tracks N] [--seconds S]
                                              [--workers 2]

The magnitudes of each mixture are stored at several qualities, read again, and made into audio with the phase of the
mixture. PEAQ grades the difference from the mixture: 0 is imperceptible, -1 perceptible but not annoying, -4 very
annoying. MUSDB is a folder in the layout of MUSDB18-HQ. Without it, the beginnings of two tracks of the data set that
`norbert-store demo` makes are taken, and made where it isn't there yet.

Grades are written to OUT/results.jsonl one by one, and a run that was stopped continues there. At the end, a table is
printed, and a picture written to OUT/quality.png. `benchmarks/quality.py` compares other ways to store magnitudes.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from functools import lru_cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from rich.console import Console
from rich.progress import track as progress
from rich.table import Table

from norbert_store.quality import Original, through_store

QUALITIES = [40.0, 50.0, 60.0, 70.0, 80.0, 90.0]
NOT_ANNOYING = -1

Row = dict[str, Any]


@lru_cache(maxsize=1)
def prepared(path: Path, seconds: float | None) -> Original:
    """The beginning of a mixture; all qualities of a track share it."""
    samples = -1 if seconds is None else round(seconds * soundfile.info(path).samplerate)
    audio, rate = soundfile.read(path, samples, dtype="float32", always_2d=True)
    return Original(audio, rate)


def grade(paths: dict[str, Path], key: Row) -> Row:
    """Store a track's mixture at a quality, and compare."""
    original = prepared(paths[key["track"]], key["seconds"])
    size, magnitude = through_store(original, quality=key["quality"])
    return {**key, "kB/s": size / original.seconds / 1000, **asdict(original.score(magnitude))}


def grade_all(paths: dict[str, Path], keys: list[Row], log: Path, workers: int) -> list[Row]:
    """Grade what the log doesn't know yet, and write it down there; return all grades."""
    known = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    found = [row for row in known if {name: row[name] for name in ("track", "quality", "seconds")} in keys]
    done = {(row["track"], row["quality"]) for row in found}
    missing = [key for key in keys if (key["track"], key["quality"]) not in done]
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool, log.open("a") as file:
        graded = pool.map(partial(grade, paths), missing)
        for row in progress(graded, "grading", total=len(missing), transient=True):
            found.append(row)
            file.write(json.dumps(row) + "\n")
            file.flush()
    return found


def mean(rows: list[Row], measure: str) -> float:
    """Mean over tracks."""
    return float(np.mean([row[measure] for row in rows]))


def print_table(by_quality: dict[float, list[Row]]) -> None:
    """Print means over tracks, and the worst track's grade."""
    table = Table(title="means over tracks", box=None)
    for title in ("quality", "kB/s", "kbit/s", "ODG", "worst", "SNR, dB", "log spectrum, dB"):
        table.add_column(title, justify="right")
    for quality, rows in by_quality.items():
        rate = mean(rows, "kB/s")
        table.add_row(
            f"{quality:g}",
            f"{rate:.2f}",
            f"{8 * rate:.0f}",
            f"{mean(rows, 'odg'):.2f}",
            f"{min(row['odg'] for row in rows):.2f}",
            f"{mean(rows, 'snr'):.1f}",
            f"{mean(rows, 'log_spectral_error'):.2f}",
        )
    Console(width=120).print(table)


def save_picture(by_quality: dict[float, list[Row]], file: Path) -> None:
    """Draw grades and bit rate over quality; grades that don't annoy are shaded."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    grades = figure.subplots()
    rates = grades.twinx()
    qualities = list(by_quality)
    grades.axhspan(NOT_ANNOYING, 0.25, color="C2", alpha=0.12, linewidth=0)
    grades.text(min(qualities), NOT_ANNOYING + 0.05, "not annoying", color="C2", va="bottom")
    spread = [[row["odg"] for row in rows] for rows in by_quality.values()]
    grades.fill_between(qualities, list(map(min, spread)), list(map(max, spread)), color="C0", alpha=0.2, linewidth=0)
    grades.plot(qualities, list(map(np.mean, spread)), "o-", color="C0")
    rates.plot(qualities, [8 * mean(rows, "kB/s") for rows in by_quality.values()], "s--", color="C1")
    grades.set(xlabel="quality", ylim=(-4, 0.25))
    grades.set_ylabel("PEAQ, ODG: mean, best and worst track", color="C0")
    rates.set_ylabel("kbit a second of stereo", color="C1")
    rates.set_ylim(bottom=0)
    figure.savefig(file, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, nargs="?", metavar="MUSDB")
    parser.add_argument("out", type=Path, nargs="?", default=Path("jpg-quality"))
    parser.add_argument("--qualities", type=float, nargs="+", default=QUALITIES)
    parser.add_argument("--tracks", type=int, help="at most this number")
    parser.add_argument("--seconds", type=float, help="of each track; all of it if left out")
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root, out, qualities = arguments.root, arguments.out, sorted(set(arguments.qualities))
        tracks, seconds = arguments.tracks, arguments.seconds
        if root is None:
            demo = Path("norbert-store-demo")
            if not demo.exists():
                subprocess.run(["norbert-store", "demo", demo], check=True)
            root, out, qualities, tracks, seconds = demo / "musdb", Path(folder), [60.0, 80.0], 2, 4.0
        out.mkdir(parents=True, exist_ok=True)
        paths = {path.parent.name: path for path in sorted(root.glob("*/*/mixture.wav"))[:tracks]}
        keys = [{"track": track, "quality": quality, "seconds": seconds} for track in paths for quality in qualities]
        rows = grade_all(paths, keys, out / "results.jsonl", arguments.workers)
        by_quality = {quality: [row for row in rows if row["quality"] == quality] for quality in qualities}
        print_table(by_quality)
        save_picture(by_quality, out / "quality.png")
        print(f"{len(paths)} tracks; grades and picture in {out}")


if __name__ == "__main__":
    main()
