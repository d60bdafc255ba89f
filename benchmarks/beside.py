"""One checkout beside another: how long the same work takes in each, and whether exports have the same shards.

    python benchmarks/beside.py OTHER MUSDB [--rounds 9] [--only batches]

OTHER is another checkout, for example `git worktree add ../before COMMIT`; MUSDB is a folder in either layout of
MUSDB18. Both need the same dependencies installed. Each checkout has a process of its own, which exports the data set,
opens its own store and then works on demand: the two take turns, in each of several rounds, and the other one goes
first in every second round. Printed are the medians of both and the median of the ratios within a round: above 1, this
checkout is slower.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

SECONDS, BATCH, BATCHES = 6.0, 16, 8


def main() -> None:
    """Start both, let them take turns, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("other", type=Path)
    parser.add_argument("musdb", type=Path)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--only", default="", help="measure only what has this in its name")
    arguments = parser.parse_args()
    here = Path(__file__).resolve().parents[1]
    with tempfile.TemporaryDirectory() as folder:
        sides = [
            Side(checkout.resolve(), arguments.musdb.resolve(), Path(folder) / name)
            for name, checkout in (("this", here), ("other", arguments.other))
        ]
        print(f"{'':28}{'this':>11}{'other':>11}{'ratio':>8}   median of {arguments.rounds} rounds")
        for work in (name for name in sides[0].names if arguments.only in name):
            compare(work, sides, arguments.rounds)
        shards, others = (side.ask("shards") for side in sides)
        print(f"{'shards of the export':28}{'the same bytes' if shards == others else 'other bytes'}")
        for side in sides:
            side.stop()


class Side:
    """The process of a checkout."""

    def __init__(self, checkout: Path, musdb: Path, folder: Path) -> None:
        folder.mkdir()
        self._process = subprocess.Popen(
            [sys.executable, "-c", f"import runpy; runpy.run_path({__file__!r})['serve']({str(musdb)!r})"],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(checkout), "OPENBLAS_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        place, *self.names = self._read().split("\t")
        if not Path(place).is_relative_to(checkout):
            raise SystemExit(f"{checkout} was to be measured, but norbert_store was imported from {place}")

    def ask(self, what: str) -> str:
        """Let it do something, and return what it says."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{what}\n")
        self._process.stdin.flush()
        return self._read()

    def stop(self) -> None:
        """End the process."""
        self._process.communicate()

    def _read(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline().rstrip("\n")
        if not line:
            raise SystemExit("a process ended; what it says stands above")
        return line


def compare(work: str, sides: list[Side], rounds: int) -> None:
    """Print a row of the table."""
    for side in sides:
        side.ask(work)  # the first time, modules are loaded and caches filled
    seconds: list[list[float]] = [[], []]
    for number in range(rounds):
        for at in (0, 1) if number % 2 else (1, 0):
            seconds[at].append(float(sides[at].ask(work)))
    this, other = (statistics.median(values) for values in seconds)
    ratio = statistics.median(one / two for one, two in zip(*seconds, strict=True))
    print(f"{work:28}{this * 1e3:8.2f} ms{other * 1e3:8.2f} ms{ratio:8.3f}", flush=True)


# ---- in the process of a checkout


def serve(musdb: str) -> None:
    """Export, print what can be measured, then do what each line of standard input asks for."""
    import norbert_store

    answers = sys.stdout
    sys.stdout = sys.stderr
    norbert_store.export_musdb(musdb, "all.zarr")
    works = work_on(musdb)
    print(norbert_store.__file__, *works, sep="\t", file=answers, flush=True)
    for line in sys.stdin:
        asked = line.rstrip("\n")
        print(shards() if asked == "shards" else timed(works[asked]), file=answers, flush=True)


def shards() -> str:
    """Return one checksum of all shards of the export."""
    found = hashlib.sha256()
    for path in sorted(Path("all.zarr/magnitude/c").rglob("*")):
        if path.is_file():
            found.update(f"{path}".encode() + path.read_bytes())
    return found.hexdigest()


def timed(work: Callable[[], object]) -> float:
    """Repeat something for at least a fifth of a second; return the seconds that it takes once."""
    begin, times = time.perf_counter(), 0
    while times == 0 or time.perf_counter() - begin < 0.2:
        work()
        times += 1
    return (time.perf_counter() - begin) / times


def work_on(musdb: str) -> dict[str, Callable[[], object]]:
    """What is measured, by name."""
    import itertools

    import numpy as np

    import norbert_store
    from norbert_store.filters import wiener

    db = norbert_store.open("all.zarr")
    names = itertools.count()

    def batches(**options: object) -> Callable[[], object]:
        excerpts = db.excerpts(SECONDS, targets=["mixture", "vocals"], **options)
        read = excerpts.read if hasattr(excerpts, "read") else excerpts.batch  # in older checkouts
        return lambda: [read(range(first, first + BATCH)) for first in range(0, BATCHES * BATCH, BATCH)]

    rng = np.random.default_rng(0)
    estimates = rng.gamma(0.3, size=(130, 1025, 2, 4)).astype(np.float32)
    mixture = (rng.standard_normal((130, 1025, 2)) + 1j * rng.standard_normal((130, 1025, 2))).astype(np.complex64)
    audio = rng.uniform(-0.5, 0.5, (10 * 44100, 2)).astype(np.float32)

    def export() -> None:
        transform = norbert_store.TF(rate=44100)
        place = f"{next(names)}.zarr"
        with norbert_store.create(place, targets=["mixture"], transform=transform, channels=2) as writer:
            writer.add("noise", {"mixture": audio})

    return {
        "open": lambda: norbert_store.open("all.zarr"),
        "open, first slice": lambda: norbert_store.open("all.zarr")[0].magnitude[0, 0, :100].load(),
        "one track as magnitudes": lambda: db[0].magnitude.load(),
        f"{BATCHES} batches of excerpts": batches(),
        f"{BATCHES} batches of levels": batches(values="levels"),
        "Wiener filter": lambda: wiener(estimates, mixture),
        "export of 10 s of noise": export,
    }


if __name__ == "__main__":
    main()
