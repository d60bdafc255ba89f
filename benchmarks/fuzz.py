"""Broken bytes, by the million: nothing but a clear error, or a right-shaped result, may come of them.

    python benchmarks/fuzz.py [--runs N] [--minutes M] [--only TARGET] [--seed S] [--plain]
    python benchmarks/fuzz.py --hostile

Runs are guided by coverage where atheris is installed (``pip install atheris``), and otherwise, or with --plain, a
seeded loop of changes to valid inputs. Every target runs in a process of its own, so that a crash of a C decoder, a
hang, and memory are noticed. A finding's input is written below --out, and the exit status is 1. A target
ends at its first finding; fix it, and run again.

--hostile reads the JPEGs of `hostile_jpegs` in every way there is, and checks what comes out.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import mmap
import os
import random
import resource
import signal
import struct
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import nullcontext, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TextIO

DEADLINE_SECONDS = 10  # of processor time: the machine may be busy with something else
WAITING_SECONDS = 120  # for what needs no processor
MOST_MEGABYTES = 100
FINDINGS = Path(__file__).parents[1] / "tests/data/fuzz"

_LARGEST_INPUT = 16_000_000


def main() -> None:
    """Run the targets, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1_000_000, help="over all targets")
    parser.add_argument("--minutes", type=float, default=60, help="at most, over all targets")
    parser.add_argument(
        "--only", metavar="TARGET", action="append", help="one of those of the table; also several times"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plain", action="store_true", help="without atheris")
    parser.add_argument("--hostile", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("fuzz-findings"))
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(json.loads(arguments.child))
        return
    guided = find_spec("atheris") is not None and not (arguments.plain or arguments.hostile)
    if arguments.hostile:
        print("hostile JPEGs, every one in every way")
    else:
        print("guided by coverage (atheris)" if guided else f"a loop of changes, seed {arguments.seed}, no coverage")
    found = fuzz(arguments, guided)
    print(f"{found} found" if found else "nothing found")
    sys.exit(1 if found else 0)


def fuzz(arguments: argparse.Namespace, guided: bool) -> int:
    """Run each target in a process, print a line for each, and return how many findings there were."""
    import fuzz_targets

    known = dict.fromkeys(fuzz_targets.READERS, 1.0)
    if not arguments.hostile:
        known = {target.name: target.share for target in fuzz_targets.TARGETS.values()}
    unknown = set(arguments.only or ()) - set(known)
    if unknown:
        sys.exit(f"no target {', '.join(unknown)}; there are {', '.join(known)}")
    shares = {name: known[name] for name in arguments.only or known}
    print(f"{'target':<16} {'runs':>10} {'found':>6} {'seconds':>8} {'peak MB':>8}", flush=True)
    found = total = 0
    for name, share in shares.items():
        task = {
            "target": name,
            "hostile": arguments.hostile,
            "guided": guided,
            "seed": arguments.seed,
            "runs": max(1, round(arguments.runs * share / sum(shares.values()))),
            "seconds": 60 * arguments.minutes * max(share, 0.1) / sum(max(one, 0.1) for one in shares.values()),
        }
        started = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            record = Record(Path(folder) / "record")
            fault = watch(task, record)
            seconds = time.monotonic() - started
            count = int(fault is not None)
            print(f"{name:<16} {record.runs:>10,} {count:>6} {seconds:>8.0f} {record.peak:>8.0f}", flush=True)
            total, found = total + record.runs, found + count
            if fault is not None:
                print(keep(record.data, name, fault, arguments.out), flush=True)
    print(f"{'all':<16} {total:>10,} {found:>6}")
    return found


class Record:
    """What a child does, in memory that it shares with its parent and that outlives it."""

    # runs, when the last began (ns) and what processor time the process had taken then (ns), its length, peak of memory
    _head = struct.Struct("<qqqqd")

    def __init__(self, path: Path) -> None:
        self.path = path
        new = not path.exists()
        with open(path, "w+b" if new else "r+b") as file:
            if new:
                file.truncate(self._head.size + _LARGEST_INPUT)
            self._memory = mmap.mmap(file.fileno(), self._head.size + _LARGEST_INPUT)

    def begin(self, data: bytes) -> None:
        """Note a run that begins."""
        self._memory[self._head.size : self._head.size + len(data)] = data
        now = time.monotonic_ns(), time.process_time_ns()
        self._head.pack_into(self._memory, 0, self.runs + 1, *now, len(data), self.peak)

    def end(self, megabytes: float) -> None:
        """Note how much memory the last run took."""
        if megabytes > self.peak:
            *known, _ = self._values()
            self._head.pack_into(self._memory, 0, *known, megabytes)

    def _values(self) -> tuple[int, int, int, int, float]:
        return self._head.unpack_from(self._memory)

    @property
    def runs(self) -> int:
        """Runs that were begun."""
        return self._values()[0]

    def hangs(self, process: int) -> bool:
        """Whether the last run takes a process more time than it may, of the processor or in all."""
        runs, began, taken_before, _, _ = self._values()
        waited, taken = (time.monotonic_ns() - began) / 1e9, processor_seconds(process)
        late = waited > DEADLINE_SECONDS if taken is None else taken - taken_before / 1e9 > DEADLINE_SECONDS
        return bool(runs) and (late or waited > WAITING_SECONDS)

    @property
    def peak(self) -> float:
        """Most memory that a run took, MB."""
        return self._values()[4]

    @property
    def data(self) -> bytes:
        """Input of the last run."""
        return self._memory[self._head.size : self._head.size + self._values()[3]]


def processor_seconds(process: int) -> float | None:
    """Tell how much processor time a process has taken; None where the system doesn't tell."""
    with suppress(OSError, ValueError):
        # the name, in parentheses, may hold anything
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return None


def watch(task: dict[str, Any], record: Record) -> str | None:
    """Run a child to its end, and tell what was wrong with its last input, if anything was."""
    command = [sys.executable, __file__, "--child", json.dumps({**task, "record": str(record.path)})]
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        try:
            late = 0
            while process.poll() is None:
                time.sleep(0.05)
                # the record may be half written when it is read, but not several times
                late = late + 1 if record.hangs(process.pid) else 0
                if late == 5:
                    return f"hangs: no result after {DEADLINE_SECONDS} s of processor time, or {WAITING_SECONDS} s"
        finally:
            process.kill()
            process.wait()
        if process.returncode == 0:
            return None
        output.seek(0)
        said = "".join(line for line in output if not line.startswith("INFO: "))  # of atheris
        if process.returncode < 0:
            return f"the process died of {signal.Signals(-process.returncode).name}"
        return said[-3000:].strip() or f"the process ended with {process.returncode}"


def keep(data: bytes, target: str, fault: str, out: Path) -> str:
    """Write an input to a file, and tell of it."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{target}-{hashlib.sha256(data).hexdigest()[:8]}.bin"
    path.write_bytes(data)
    return f"\n{fault}\n--> {path} ({len(data)} bytes)\n"


# ---- in the child


def child(task: dict[str, Any]) -> None:
    """Run one target."""
    sys.path.insert(0, str(Path(__file__).parent))
    sys.setswitchinterval(0.0005)
    with _coverage(task["guided"]):
        import fuzz_targets
    record = Record(Path(task["record"]))
    errors = _quiet_decoders()
    if task["hostile"]:
        faults = hostile(task["target"], record, errors)
        print(*faults, sep="\n", file=errors)
        sys.exit(1 if faults else 0)
    target = fuzz_targets.TARGETS[task["target"]]
    seeds = [*target.seeds(), *(path.read_bytes() for path in sorted(FINDINGS.glob(f"{target.name}-*.bin")))]
    memory = Memory(target.most_megabytes)

    def one(data: bytes) -> None:
        watched(target.run, data, record, memory, errors)

    for data in seeds:
        one(data)
    if task["guided"]:
        guided_loop(task, target, seeds, one)
    else:
        plain_loop(task, target, seeds, one)


def plain_loop(task: dict[str, Any], target: Any, seeds: list[bytes], one: Callable[[bytes], None]) -> None:
    """Change inputs at random."""
    import fuzz_targets

    rng = random.Random(task["seed"])
    end = time.monotonic() + task["seconds"]
    for _ in range(task["runs"] - len(seeds)):
        one(fuzz_targets.mutate(rng.choice(seeds), seeds, target.is_json, rng))
        if time.monotonic() > end:
            break


def guided_loop(task: dict[str, Any], target: Any, seeds: list[bytes], one: Callable[[bytes], None]) -> None:
    """Leave the choice of inputs to atheris, and every other change to it as well."""
    import atheris
    import fuzz_targets

    def change(data: bytes, most: int, seed: int) -> bytes:
        rng = random.Random(seed)
        if rng.random() < 0.5:
            return fuzz_targets.mutate(bytes(data), seeds, target.is_json, rng)[:most]
        return atheris.Mutate(data, most)

    with tempfile.TemporaryDirectory() as corpus:
        for i, data in enumerate(seeds):
            (Path(corpus) / str(i)).write_bytes(data)
        # what is wrong is noticed by the parent and by `watched`
        signals = [f"handle_{name}=0" for name in ("segv", "bus", "abrt", "ill", "fpe")]
        own = ["timeout=1000000", "rss_limit_mb=0", *signals]
        limits = [f"runs={task['runs'] - len(seeds)}", f"max_total_time={max(1, round(task['seconds']))}"]
        options = [*own, *limits, f"seed={task['seed'] + 1}", f"max_len={max(4096, *map(len, seeds))}", "verbosity=0"]
        arguments = [sys.argv[0], *(f"-{option}" for option in options), corpus]
        atheris.Setup(arguments, lambda data: one(bytes(data)), custom_mutator=change)
        atheris.Fuzz()


def hostile(reader: str, record: Record, errors: TextIO) -> list[str]:
    """Read every hostile JPEG in one way, and tell what is wrong."""
    import fuzz_targets

    run, memory, faults = fuzz_targets.READERS[reader], Memory(), []
    for jpeg in fuzz_targets.hostile_jpegs():
        watched(lambda data, jpeg=jpeg: faults.append(fuzz_targets.wrong(jpeg, run)), jpeg.data, record, memory, errors)
    return [fault for fault in faults if fault]


def watched(run: Callable[[bytes], object], data: bytes, record: Record, memory: Memory, errors: TextIO) -> None:
    """Note a run in the record, and end the process if it raises, or takes too much memory."""
    record.begin(data)
    try:
        run(data)
        record.end(memory.taken())
    except Exception:
        traceback.print_exc(file=errors)
        errors.flush()
        os._exit(1)


class Memory:
    """How much a single run adds to the memory that this process has in use."""

    def __init__(self, most_megabytes: float = MOST_MEGABYTES) -> None:
        self._most = most_megabytes
        self._before = _forget_peak()

    def taken(self) -> float:
        """Memory that was taken, at most, since this was asked before, MB.

        Raises
        ------
        MemoryError
            If it was too much.
        """
        taken = _peak_megabytes() - self._before
        if taken > self._most:
            raise MemoryError(f"took {taken:.0f} MB; at most {self._most} are expected")
        if taken > 5:
            self._before = _forget_peak()
        return taken


def _forget_peak() -> float:
    # Linux forgets on demand how large a process once was; elsewhere a run is only noticed if it exceeds all before
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return _peak_megabytes()


def _peak_megabytes() -> float:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def _quiet_decoders() -> TextIO:
    """Send to nowhere what C libraries print; return where errors go instead."""
    sys.stderr = errors = os.fdopen(os.dup(2), "w")
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    return errors


def _coverage(guided: bool) -> Any:
    if not guided:
        return nullcontext()
    import atheris

    return atheris.instrument_imports(include=["norbert_store"])


if __name__ == "__main__":
    main()
