"""What a batch of random excerpts costs, read in turn by this library and by what people use today.

    python benchmarks/read.py [MUSDB] [--seconds 6] [--batch 16] [--rounds 7] [--only NAME ...] [--tracks 12]
                              [--stem-mp4 FOLDER] [--work FOLDER] [--memory] [--out results.json] [--picture read.png]

MUSDB is a folder in either layout of MUSDB18; without it, the demo's music is made. The magnitudes of its mixtures and
vocals are written once in every format, chunk for chunk as the store has them where a format has chunks. Then all
contestants read the same excerpts, which begin anywhere: every time others, in turn, in one process, with warm files
and nothing kept of what was decoded. What they read lands in one array of the whole batch. Where a contestant can be
run on one thread or on two, the faster way is taken. Quick contestants are run three times in a round, slow ones once.

"limit" is what can't be left out: reading, checking, decoding and looking up as many chunks as the excerpts are long,
on two threads; "limit, unaligned" only decodes and looks up, but just the pieces of chunks that excerpts lie in, twice
as many as they have chunks, and with whole blocks at both ends. A ratio is the median, over the batches that both have
read, of a contestant's time and that of this reader with the same kind of values; "best" is the quickest batch, which
a busy machine disturbs least, and "CPU" what all threads worked. "error" is the mean difference from the exact
magnitudes, in levels of 255, which also shows that everyone reads the right thing; "read" is the bytes read for each
byte that the excerpts' share of the format has. What depends on a package that is missing isn't measured. Beyond those
of this library, the packages are h5py, tensorstore, lilcom, musdb (with ffmpeg) and torch.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from read_contestants import SEED, TARGETS, Array, Batch, Contestant, Data, Excerpt, entrants, size_of

import norbert_store

QUICK_SECONDS, QUICK_TIMES = 0.4, 3  # contestants that are quicker are run so often in a round
FRAME_READS = 20  # of single frames, in each round
MEMORY_EXCERPTS = 10_000
FRESH_PROCESSES = 7
# a contestant with a larger error has read something else than it should
MOST_ERROR_LEVELS = 12.0


# ---- what is to be reached


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

    @property
    def best(self) -> float:
        """Seconds of the quickest batch."""
        return min(self.seconds.values())

    def over(self, other: Found) -> float:
        """How many times as long as another it takes."""
        both = self.seconds.keys() & other.seconds.keys()
        return statistics.median(self.seconds[number] / other.seconds[number] for number in both)


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
    contestant.prepare(batch)
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
    found.contestant.prepare(batch)
    bytes_before, processor, started = bytes_read(), time.process_time(), time.perf_counter()
    read(batch, out)
    found.seconds[number] = scale * (time.perf_counter() - started)
    found.processor[number] = scale * (time.process_time() - processor)
    found.bytes_read.append(round(scale * (bytes_read() - bytes_before)))


def read_frames(found: Found, excerpts: Iterable[Excerpt]) -> None:
    """Read some single frames."""
    read = found.contestant.frame
    if read is None:
        return
    for excerpt in excerpts:
        started = time.perf_counter()
        read(excerpt)
        found.frame_seconds.append(time.perf_counter() - started)


def mean_error(data: Data, contestant: Contestant, batch: Batch, out: Array) -> float | None:
    """Mean difference from the exact magnitudes, levels."""
    if contestant.gives in ("audio", "nothing"):
        return None
    # one that reads a part of the batch leaves NaN elsewhere
    whole = [i for i, values in enumerate(out) if np.isfinite(values).all()]
    errors = [
        np.abs(as_levels(data, data.truth(batch.excerpts[i]), "magnitude") - as_levels(data, out[i], contestant.gives))
        for i in whole
    ]
    return float(np.mean(errors)) if errors else np.inf


def as_levels(data: Data, values: Array, gives: str) -> Array:
    """Convert values of any kind to levels of scale 0 that aren't rounded."""
    if gives == "levels":
        return values.astype(np.float32)
    if gives == "log":
        values = np.exp(values)
    elif gives == "decibel":
        values = 10 ** (values / 20)
    return 255 * data.db.curve.compress(values)


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
    _ = norbert_store.Store, norbert_store.Excerpts, norbert_store.codecs  # names are loaded when they are first used
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
        excerpts.read(range(start, start + batch))
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
    best_milliseconds: float
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
        1000 * one.best,
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
    heads = ("threads", "ms", "best", "CPU ms", "ratio", "error", "MB", "kB/s a stem", "read", "a frame, µs")
    print(f"{'':<32}" + "".join(f"{head:>{max(8, len(head) + 2)}}" for head in heads))
    for line in lines:
        cells = (
            line.threads,
            f"{line.milliseconds:.1f}",
            f"{line.best_milliseconds:.1f}",
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
            "best": found[goal.slow].best / found[goal.quick].best,
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
            "best": None,
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
    colours = [colour_of(line.name) for line in lines]
    bars = axes.barh([line.name for line in lines], [line.milliseconds for line in lines], color=colours)
    labels = [f"{line.milliseconds:.0f} ms, {line.kilobytes_a_second:.0f} kB/s a stem" for line in lines]
    axes.bar_label(bars, labels, padding=4, fontsize=8)
    axes.set(xscale="log", xlabel="milliseconds a batch", title=title)
    axes.set_xlim(right=8 * lines[0].milliseconds)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)


def colour_of(name: str) -> str:
    """Colour of a contestant: this library's, the limit's, all others'."""
    if name.startswith(("this reader", "DataLoader")):
        return "C0"
    return "C7" if name.startswith("limit") else "C1"


def main() -> None:
    """Make the data, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("musdb", type=Path, nargs="?")
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="Contestants whose names begin with one of these.")
    parser.add_argument("--tracks", type=int, default=12, help="Number of tracks, at most.")
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
    print(f"\n{'goals':<48}{'median':>8}{'best':>8}")
    for goal in goals:
        cells = f"{goal['found']:>8.2f}{shown(goal['best'], 2):>8}"
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
