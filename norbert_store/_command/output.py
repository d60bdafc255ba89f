"""What the command prints: progress, tables, facts.

Names of tracks are text of unknown origin: they are printed as they are, except that control characters, which could
control the terminal, are escaped; and they are never read as markup.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from norbert_store._export import summary as export
from norbert_store._store import Store, selection_of
from norbert_store._text import printable, shortened
from norbert_store._track import Track

if TYPE_CHECKING:
    from norbert_store._check.report import Report

_WIDTH_OF_PIPES = 200
_MOST_TRACKS_SHOWN = 20
_LONGEST_NAME = 40
_LONGEST_FACT = 20_000


def console() -> Console:
    """Return a console that prints text as it is; output into a pipe isn't wrapped."""
    made = Console(highlight=False, soft_wrap=True, emoji=False, markup=False)
    if not made.is_terminal and "COLUMNS" not in os.environ:
        made.width = _WIDTH_OF_PIPES
    return made


def counted(count: int, what: str) -> str:
    """Count in words: "1 track", "2 tracks"."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


@contextmanager
def export_progress(to: Console, tracks: int) -> Iterator[Callable[[export.Progress], None]]:
    """Show a progress bar with the track, the speed and the expected end; yields what an export calls."""
    columns = (
        TextColumn("{task.fields[track]}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[speed]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=to, transient=True, disable=not to.is_terminal) as bar:
        task = bar.add_task("", total=tracks, track="", speed="")

        def on_progress(progress: export.Progress) -> None:
            name = printable(progress.track)
            name = name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 3] + "..."
            speed = f"{progress.speed:.0f} x real time" if progress.done else ""
            bar.update(task, completed=progress.done, track=name, speed=speed)

        yield on_progress


@contextmanager
def check_progress(to: Console) -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar of files; yields what a check calls with (done, all)."""
    with Progress(console=to, transient=True, disable=not to.is_terminal) as bar:
        task = bar.add_task("checking", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextmanager
def repair_progress(to: Console) -> Iterator[Callable[[str, int, int], None]]:
    """Show a progress bar of files for each step; yields what a repair calls with (step, done, all)."""
    with Progress(console=to, transient=True, disable=not to.is_terminal) as bar:
        task = bar.add_task("checking", total=None)
        yield lambda step, done, total: bar.update(task, description=step, completed=done, total=total)


@contextmanager
def seconds_progress(to: Console, seconds: float) -> Iterator[Callable[[float], None]]:
    """Show a progress bar of audio; yields what is called with each block's length, seconds."""
    with Progress(console=to, transient=True, disable=not to.is_terminal) as bar:
        task = bar.add_task("separating", total=seconds)
        yield lambda block: bar.update(task, advance=block)


def print_summary(to: Console, summary: export.Summary) -> None:
    """Print what an export has done, and its size against that of .npy and of the audio."""
    seconds = summary.audio_seconds
    length = f"{seconds / 60:.1f} minutes" if seconds >= 60 else f"{seconds:.1f} seconds"
    before = summary.tracks - summary.written
    there = f" ({before} of them {'was' if before == 1 else 'were'} there before)" if before else ""
    speed = f": {summary.speed:.0f} x real time" if summary.written else ""
    to.print(
        f"{counted(summary.tracks, 'track')}, {length}, written to {summary.location}{there} in "
        f"{summary.elapsed_seconds:.1f} s{speed}"
    )
    rows = []
    for title, size in (
        ("float32 .npy", summary.npy_bytes),
        ("the audio files", summary.audio_bytes),
        ("this store", summary.store_bytes),
    ):
        share = f"{100 * size / summary.audio_bytes:.1f} %" if summary.audio_bytes else ""
        rows.append((title, f"{size / 1e6:,.1f} MB", f"{size / summary.stem_seconds / 1e3:,.1f}", share))
    _print_table(to, ("", "size", "kB/s a stem", "of the audio"), "lrrr", rows)
    if summary.skipped:
        to.print(f"{counted(len(summary.skipped), 'track')} left out:")
        for _, reason in summary.skipped:
            to.print(f"  {printable(reason)}")
    if summary.updated:
        to.print(f"{counted(len(summary.updated), 'track')} updated")
    _print_differing(
        to, summary.edited, "changed in the data set since, and not in the store; --update brings the store up to date"
    )
    _print_differing(to, summary.gone, "in the store whose audio isn't there any more: deleted, or renamed")
    for note in summary.notes:
        to.print(printable(note))


def _print_differing(to: Console, tracks: Sequence[tuple[str, str]], what: str) -> None:
    if tracks:
        to.print(f"{counted(len(tracks), 'track')} {what}:")
    for name, how in tracks:
        to.print(f"  {printable(name)}: {printable(how)}")


def print_report(to: Console, report: Report) -> None:
    """Print what is wrong with a store, and what a repair has done."""
    for line in str(report).splitlines():
        to.print(printable(line))
    if report.failed and any(fault.track for fault in report.faults):
        to.print("give --audio-root if the audio was moved; --drop removes tracks that can't be mended")


def print_store(to: Console, store: Store) -> None:
    """Print what a store holds, and its first tracks."""
    attributes = store.attributes
    facts: dict[str, Any] = {"store": store.location}
    facts |= {key: attributes[key] for key in ("title", "license", "citation") if key in attributes}
    facts |= selection_of(store).facts()
    if any(store.splits):
        facts["splits"] = ", ".join(f"{split} {tracks}" for split, tracks in store.splits.items() if split)
    facts |= {"format": attributes["version"], "written by": attributes["created_with"], "digest": store.digest()}
    print_facts(to, facts)
    rows = []
    for i in range(min(len(store), _MOST_TRACKS_SHOWN)):
        track = store[i]
        absent = ", ".join(target for target, there in track.present.items() if not there)
        rows.append((str(i), track.name, track.split, f"{track.duration:.1f}", absent))
    to.print()
    _print_table(to, ("", "track", "split", "seconds", "absent"), "rllrl", rows)
    if len(store) > len(rows):
        to.print(f"... {len(store) - len(rows)} more")


def print_track(to: Console, track: Track) -> None:
    """Print what is known of a track."""
    facts = {
        "name": track.name,
        "split": track.split,
        "length": f"{track.duration:.2f} s, {track.samples} samples at {track.rate} Hz, {track.frames} frames",
        "targets": ", ".join(target for target, there in track.present.items() if there),
        "absent": ", ".join(target for target, there in track.present.items() if not there),
        "source": track.source,
        **track.labels,
        **({"metadata": track.metadata} if track.metadata else {}),
    }
    print_facts(to, {key: value for key, value in facts.items() if value != ""})


def print_facts(to: Console, facts: Mapping[str, Any]) -> None:
    """Print a line for each fact."""
    width = min(_LONGEST_NAME, max(map(len, facts), default=0))
    for key, value in facts.items():
        to.print(f"{printable(shortened(key)):<{width}}  {printable(shortened(str(value), _LONGEST_FACT))}")


def _print_table(to: Console, titles: Sequence[str], alignment: str, rows: Sequence[Sequence[str]]) -> None:
    table = Table(box=None, header_style="", pad_edge=False)
    for title, side in zip(titles, alignment, strict=True):
        table.add_column(title, justify="right" if side == "r" else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(shortened(cell))) for cell in row))
    to.print(table)
