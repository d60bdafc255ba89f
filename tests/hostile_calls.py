"""Everything that can be asked of a store, and what must hold of each answer.

As a program: makes hostile stores by their names, calls everything on each, and prints what is wrong, a line of JSON
each.
"""

from __future__ import annotations

import contextlib
import faulthandler
import io
import json
import linecache
import os
import pickle
import resource
import shutil
import sys
import time
import traceback
import unicodedata
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import xarray

import norbert_store
from norbert_store._command.cli import main
from norbert_store.errors import NorbertStoreError

MOST_MEGABYTES = 300
MOST_SECONDS = 1.0
MOST_SECONDS_WRITING = 3.0
HANGS_SECONDS = 60
# who asks for all values of what is said to be long gets all that is said; what is asked for here is no more than this
MOST_VALUES = 10**6

Call = Callable[[Any, Path], Any]
CALLS: dict[str, Call] = {}
WRITING: dict[str, Call] = {}


def call(name: str, table: dict[str, Call] = CALLS) -> Callable[[Call], Call]:
    """Put a call into a table."""

    def put(function: Call) -> Call:
        table[name] = function
        return function

    return put


def of_store(name: str, function: Callable[[norbert_store.Store], Any]) -> None:
    CALLS[name] = lambda place, folder: function(norbert_store.open(place))


def of_track(name: str, function: Callable[[norbert_store.Track], Any]) -> None:
    def each(place: Any, folder: Path) -> Any:
        db = norbert_store.open(place)
        return [function(db[i]) for i in range(min(2, len(db)))]

    CALLS[f"track.{name}"] = each


def small(array: xarray.DataArray) -> Any:
    """Values of a lazy array; of a large one, those at its ends."""
    if array.size <= MOST_VALUES:
        return array.values.shape
    ends = {dimension: [0, -1] for dimension in array.dims}
    return array.isel(ends).values.shape


of_store("open", lambda db: db.location)
of_store("repr", repr)
of_store("_repr_html_", lambda db: db._repr_html_())
of_store("len", len)
of_store("rate", lambda db: (db.rate, db.frequencies.shape, db.targets, db.channels, db.curve, db.look_up_table.shape))
of_store("transform", lambda db: repr(db.transform))
of_store("attributes", lambda db: db.attributes)
of_store("names", lambda db: len(db.names))
of_store("splits", lambda db: db.splits)
of_store("iter", lambda db: [track.name for track, _ in zip(db, range(10), strict=False)])
of_store("in", lambda db: ("one" in db, db.get("none"), "two" in db))
of_store("keys", lambda db: len(db.keys()))
of_store("items", lambda db: len(db.items()))
of_store("by name", lambda db: db["one"])
of_store("by a wrong name", lambda db: db["onee"])
of_store("slice", lambda db: repr(db[:1]))
of_store("tracks", lambda db: repr(db.tracks) + db.tracks._repr_html_())
of_store("tracks' values", lambda db: [values.values.shape for values in db.tracks.values()])
of_store("select a split", lambda db: db.select(split="train"))
of_store("select a label", lambda db: db.select(genre="Rock"))
of_store("select of a list", lambda db: db.select(tags="a"))
of_store("select a wrong label", lambda db: db.select(genre="Rokk"))
of_store("to_xarray", lambda db: repr(db.to_xarray()) + db.to_xarray()._repr_html_())
of_store("to_xarray's values", lambda db: small(db.to_xarray()["magnitude"]))
of_store("to_xarray's levels", lambda db: small(db.to_xarray("levels")["levels"]))
of_store("statistics", lambda db: str(db.statistics()))
of_store("excerpts", lambda db: (repr(db.excerpts(0.05)), db.excerpts(0.05).read([0, 1, 2])["track"]))
of_store("excerpts, remix", lambda db: db.excerpts(0.05, remix=True, values="decibel").read(range(4))["start"])
of_store("digest", lambda db: db.digest())
of_store("digest, strong", lambda db: db.digest(strong=True))
of_store("pickle", lambda db: repr(pickle.loads(pickle.dumps(db))))
of_track("repr", repr)
of_track("_repr_html_", lambda track: track._repr_html_())
of_track("labels", lambda track: track.labels)
of_track("metadata", lambda track: track.metadata)
of_track("facts", lambda track: (track.samples, track.duration, track.frames, track.start, track.present, track.split))
of_track("source", lambda track: track.source)
of_track("to_xarray", lambda track: repr(track.to_xarray()) + track.to_xarray()._repr_html_())
of_track("magnitude", lambda track: small(track.magnitude))
of_track("levels", lambda track: small(track.levels))
of_track("jpeg", lambda track: len(track.jpeg(0, 0, 0)))
of_track("jpeg of a wrong target", lambda track: track.jpeg("vocal", 0, 0))
of_track("to_audio of an array", lambda track: track.to_audio(1, mixture=np.zeros((1600, 1), np.float32)).shape)
of_track("to_audio", lambda track: track.to_audio(0).shape)
of_track("separate", lambda track: list(track.separate()))
of_track("separate of an array", lambda track: list(track.separate(mixture=np.zeros((1600, 1), np.float32))))
of_track("equal", lambda track: (track == track, hash(track)))


@call("open with a root")
def _rooted(place: Any, folder: Path) -> Any:
    db = norbert_store.open(place, audio_root=folder / "audio")
    return [db[i].to_audio(0).shape for i in range(min(2, len(db)))]


@call("xarray's engine")
def _engine(place: Any, folder: Path) -> Any:
    return small(xarray.open_dataset(str(place), engine="norbert_store", track=0)["magnitude"])


@call("verify")
def _verify(place: Any, folder: Path) -> Any:
    report = norbert_store.verify(place)
    return str(report)[: 10**6], bool(report)


@call("verify, not decoded")
def _verify_bytes(place: Any, folder: Path) -> Any:
    return str(norbert_store.verify(place, decode=False, workers=2))[: 10**6]


@call("repair", WRITING)
def _repair(place: Any, folder: Path) -> Any:
    return str(norbert_store.repair(place))[: 10**6]


@call("repair with a root", WRITING)
def _repair_rooted(place: Any, folder: Path) -> Any:
    return str(norbert_store.repair(place, audio_root=folder / "audio"))[: 10**6]


@call("repair, drop", WRITING)
def _drop(place: Any, folder: Path) -> Any:
    return str(norbert_store.repair(place, drop=True))[: 10**6]


@call("append", WRITING)
def _append(place: Any, folder: Path) -> Any:
    with norbert_store.append(place) as writer:
        labels = {"genre": "Pop", "new": "x"}
        writer.add("three", {"mixture": np.zeros(1600)}, labels=labels)
    return norbert_store.open(place)["three"].magnitude.values.shape


@call("export, resume", WRITING)
def _resume(place: Any, folder: Path) -> Any:
    row: dict[str, Any] = {"name": "more", "mixture": "audio/one/mixture.wav", "vocals": "audio/one/vocals.wav"}
    options: dict[str, Any] = {
        "transform": norbert_store.TF(rate=8000, n_fft=64),
        "bandwidth": 4000,
        "chunk_frames": 16,
        "effort": 0,
    }
    return str(
        norbert_store.export(
            [row], place, targets=["mixture", "vocals"], root=folder, channels=1, resume=True, **options
        )
    )


def command(name: str, *arguments: str, table: dict[str, Call] = CALLS) -> None:
    """Put a command into the table; in an argument, @ stands for the folder, and STORE for the store."""

    def run(place: Any, folder: Path) -> Any:
        known = {"STORE": str(place)}
        typed = [known.get(argument, argument.replace("@", str(folder))) for argument in arguments]
        said = io.StringIO()
        before = sys.argv
        sys.argv = ["norbert-store", *typed]
        try:
            with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
                main()
        except SystemExit as end:
            return f"{end.code}\n{said.getvalue()}"
        finally:
            sys.argv = before

    table[f"$ {name}"] = run


command("info", "info", "STORE")
command("info of a track", "info", "STORE", "0")
command("digest", "digest", "STORE", "--strong")
command("verify", "verify", "STORE", "--workers", "1")
command("plot", "plot", "STORE", "0", "-o", "@/out/plot.png")
command("to-audio", "to-audio", "STORE", "0", "--target", "vocals", "-o", "@/out/vocals.wav")
command("separate", "separate", "STORE", "0", "-o", "@/out/separated")
command("separate with a file", "separate", "STORE", "0", "--mixture", "@/audio/one/mixture.wav", "-o", "@/out/other")
command("repair", "repair", "STORE", table=WRITING)
command("repair --drop", "repair", "STORE", "--drop", "--audio-root", "@/audio", table=WRITING)
command("export --resume", "export", "folder", "@/audio", "STORE", "--resume", "--effort", "0", table=WRITING)


# ---- what must hold


def wrong_error(error: BaseException) -> str | None:
    """Say what is wrong with an error; None if nothing is."""
    if isinstance(error, NorbertStoreError):
        return unseen(str(error)) or (None if len(str(error)) < 10_000 else f"an error of {len(str(error))} letters")
    frame = traceback.extract_tb(error.__traceback__)[-1]
    line = linecache.getline(frame.filename, frame.lineno)
    on_purpose = "norbert_store" in frame.filename and "raise" in line
    if type(error) in (ValueError, TypeError, IndexError) and on_purpose:
        return unseen(str(error))
    where = [f"{Path(each.filename).name}:{each.lineno}" for each in traceback.extract_tb(error.__traceback__)[-6:]]
    return f"{type(error).__name__}: {str(error)[:200]} at {' '.join(where)}"


def unseen(value: Any) -> str | None:
    """Say which characters of what is shown can drive a terminal, or turn a line around."""
    if isinstance(value, str):
        for letter in set(value) - {"\n"}:
            if unicodedata.category(letter) in ("Cc", "Cf", "Cs", "Zl", "Zp"):
                return f"shows {letter!r}"
    return None


SHOWN = (
    "repr",
    "_repr_html_",
    "$",
    "verify",
    "repair",
    "export",
    "tracks",
    "to_xarray",
    "excerpts",
    "slice",
    "transform",
)


def wrong_answer(name: str, answer: Any) -> str | None:
    answers = answer if isinstance(answer, list | tuple) else [answer]
    if name.removeprefix("track.").startswith(SHOWN):
        return next(filter(None, map(unseen, answers)), None)
    return None


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6


def _forget_peak() -> float:
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return _peak()


def one(function: Call, name: str, place: Any, folder: Path) -> Iterator[str]:
    """Call once, and say what is wrong with what comes."""
    faulthandler.dump_traceback_later(HANGS_SECONDS, exit=True)
    before, began = _forget_peak(), time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        try:
            problem = wrong_answer(name, function(place, folder))
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            problem = wrong_error(error)
    seconds, megabytes = time.process_time() - began, _peak() - before
    faulthandler.cancel_dump_traceback_later()
    if problem:
        yield problem
    if seconds > (MOST_SECONDS_WRITING if name in WRITING else MOST_SECONDS):
        yield f"takes {seconds:.1f} s"
    if megabytes > MOST_MEGABYTES:
        yield f"takes {megabytes:.0f} MB"


def around(folder: Path, without: Path) -> dict[str, Any]:
    """What lies in a folder, but for some of it: kind, content, and when it was read and written."""
    found: dict[str, Any] = {}
    for path in [folder, *folder.rglob("*")]:
        if without == path or without in path.parents:
            continue
        status = path.lstat()
        found[str(path.relative_to(folder))] = [
            status.st_mode,
            status.st_size if path.is_file() else 0,
            status.st_mtime_ns,
        ]
    return found


def check(store: str, base: Path) -> Iterator[tuple[str, str, str]]:
    """Make a store, call everything on it, and say what is wrong: (store, call, problem)."""
    import soundfile

    from tests import hostile

    os.environ["HOME"] = str(base / "home")
    secret = base / "around" / "secret.wav"
    for name, function in [*CALLS.items(), *WRITING.items()]:
        if name in WRITING or name == next(iter(CALLS)):
            shutil.rmtree(base, ignore_errors=True)
            folder = base / "place"
            for part in ("place/out", "home", "around", "cwd"):
                (base / part).mkdir(parents=True)
            (base / "home" / ".profile").write_text("precious")
            soundfile.write(secret, np.zeros(1600), 8000)
            os.chdir(base / "cwd")
            hostile.write_audio(folder)
            place = hostile.STORES[store](folder)
            (base / "around" / "c").mkdir()
            os.utime(secret, (1, 2**30))
            before = around(base, without=folder)
            beside = {path.name for path in folder.iterdir()}
        for problem in one(function, name, place, folder):
            yield store, name, problem
        after = around(base, without=folder)
        if before != after:
            differing = sorted(key for key in {*before, *after} if before.get(key) != after.get(key))
            yield store, name, f"touches {differing}"
            before = after
        if secret.exists() and secret.stat().st_atime != 1:
            yield store, name, "reads a secret"
            os.utime(secret, (1, 2**30))
        new = {path.name for path in folder.iterdir()} - beside
        if new and not all(path.startswith("store.zarr") for path in new):
            yield store, name, f"writes {sorted(new)}"
        beside |= new


def program() -> None:
    """Check the stores that are named, one a line, on standard input."""
    base = Path(sys.argv[1])
    norbert_store.open  # noqa: B018  # what is loaded late isn't a store's fault
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    limit = 8 * 2**30  # what goes beyond is an error instead of the machine's end
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    list(check("right", base))  # imports what is needed
    for line in sys.stdin:
        store = line.rstrip("\n")
        print(json.dumps([store]), flush=True)
        for finding in check(store, base):
            print(json.dumps(finding), flush=True)
    shutil.rmtree(base, ignore_errors=True)


if __name__ == "__main__":
    program()
