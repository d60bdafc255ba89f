"""The command ``norbert-store``.

Errors that this library raises on purpose are printed as one line, with exit status 1.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from norbert_store.errors import NorbertStoreError
from norbert_store.version import __version__

if TYPE_CHECKING:
    from rich.console import Console

    from norbert_store.export import Summary
    from norbert_store.store import Track

_QUALITY_HELP = "From 0 to 100; ten points more halve the coarsest error and cost about 1.5 times the bytes."


def main() -> None:
    """Run the command; the entry point of the package."""
    try:
        status = cli.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("norbert-store: stopped", err=True)
        sys.exit(130)
    except (NorbertStoreError, OSError, ValueError, IndexError, ImportError) as error:
        click.echo(f"norbert-store: {_one_line(error)}", err=True)
        sys.exit(1)
    sys.exit(status or 0)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, "-V", "--version", message="norbert_store %(version)s")
def cli() -> None:
    """Data sets of spectrograms, as small as their JPEGs and as easy to slice as an xarray."""


# ---- demo


@cli.command()
@click.argument("out", default="norbert-store-demo", type=click.Path(path_type=Path))
@click.option("--tracks", default=6, show_default=True, help="Number of tracks.")
@click.option("--seconds", default=20.0, show_default=True, help="Length of each track.")
def demo(out: Path, tracks: int, seconds: float) -> None:
    """Make a small data set of synthetic music in OUT, export it, and show what can be done with the store."""
    from norbert_store.demo import run_demo

    run_demo(out, tracks, seconds, _console())


# ---- export


@cli.group()
def export() -> None:
    """Write a data set of audio into a new store."""


def _export_options(command: Any) -> Any:
    for option in reversed(
        (
            click.argument("root", type=click.Path(path_type=Path)),
            click.argument("out"),
            click.option("--quality", default=80.0, show_default=True, help=_QUALITY_HELP),
            click.option("--bandwidth", default=16000.0, show_default=True, help="Highest frequency kept, Hz."),
            click.option("--n-fft", default=2048, show_default=True, help="Samples in a frame."),
            click.option("--hop", type=int, help="Samples from a frame to the next.  [default: half a frame]"),
            click.option("--n-mels", type=int, help="Store so many mel bands instead of linear bins."),
            click.option("--reference", default=1.0, show_default=True, help="Largest magnitude that can be stored."),
            click.option("--title", default="", help="Title of the data set."),
            click.option("--skip-broken", is_flag=True, help="Go on without tracks that can't be read."),
        )
    ):
        command = option(command)
    return command


@export.command()
@_export_options
def musdb(root: Path, out: str, skip_broken: bool, **options: Any) -> None:
    """Export MUSDB18 or MUSDB18-HQ at ROOT into the new store OUT.

    ROOT holds train and test, with a folder of WAV files per track (HQ) or a .stem.mp4 per track.
    """
    from norbert_store.sources.musdb import TARGETS, musdb_tracks

    _export(musdb_tracks(root), out, TARGETS, skip_broken, options)


@export.command()
@_export_options
def folder(root: Path, out: str, skip_broken: bool, **options: Any) -> None:
    """Export all audio files below ROOT into the new store OUT, a track a file."""
    from norbert_store.sources.folder import TARGETS, folder_tracks

    _export(folder_tracks(root), out, TARGETS, skip_broken, options)


def _export(tracks: Any, out: str, targets: tuple[str, ...], skip_broken: bool, options: dict[str, Any]) -> None:
    from norbert_store.export import export as export_tracks

    console = _console()
    transform = _transform_options(tracks, options)
    with export_progress(console, len(tracks)) as on_progress:
        summary = export_tracks(
            tracks, out, targets, skip_broken=skip_broken, on_progress=on_progress, **transform, **options
        )
    print_summary(console, summary)


def _transform_options(tracks: Any, options: dict[str, Any]) -> dict[str, Any]:
    """Take n_fft, hop and n_mels out of the options and make a transform of them, at the first track's rate."""
    from norbert_store.errors import AudioError, SourceError
    from norbert_store.transform import Mel, Stft

    n_fft, hop, n_mels = options.pop("n_fft"), options.pop("hop"), options.pop("n_mels")
    for track in tracks:
        try:
            rate = track.info().rate
        except (AudioError, SourceError):
            continue  # the export says what is to be said of it
        stft = Stft(rate=rate, n_fft=n_fft, hop=hop)
        return {"transform": stft if n_mels is None else Mel(n_mels, rate, n_fft, hop)}
    return {}


@contextmanager
def export_progress(console: Console, tracks: int) -> Iterator[Any]:
    """Show a progress bar with the track, the speed and the expected end; yields what `export` calls."""
    from rich.markup import escape
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.fields[track]}", justify="left"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[speed]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=tracks, track="", speed="")

        def on_progress(progress: Any) -> None:
            name = escape(_shortened(progress.track))
            speed = f"{progress.speed:.0f} x real time" if progress.done else ""
            bar.update(task, completed=progress.done, track=name, speed=speed)

        yield on_progress


def print_summary(console: Console, summary: Summary) -> None:
    """Print what an export has done, and its size against that of .npy and of the audio."""
    from rich.table import Table

    seconds = max(summary.stem_seconds, 1e-9)
    table = Table(box=None, header_style="", pad_edge=False)
    for title, justify in (("", "left"), ("size", "right"), ("kB/s a stem", "right"), ("of the audio", "right")):
        table.add_column(title, justify=justify)  # type: ignore[arg-type]
    for title, size in (
        ("float32 .npy", summary.npy_bytes),
        ("the audio files", summary.audio_bytes),
        ("this store", summary.store_bytes),
    ):
        share = f"{100 * size / summary.audio_bytes:.1f} %" if summary.audio_bytes else ""
        table.add_row(title, f"{size / 1e6:,.1f} MB", f"{size / seconds / 1e3:,.1f}", share)
    console.print(
        f"{summary.tracks} tracks, {summary.audio_seconds / 60:.1f} minutes, written to {summary.store} in "
        f"{summary.elapsed_seconds:.1f} s: {summary.speed:.0f} x real time",
        markup=False,
    )
    console.print(table)
    if summary.skipped:
        console.print(f"{len(summary.skipped)} tracks were left out:", markup=False)
        for _, reason in summary.skipped:
            console.print(f"  {reason}", markup=False)


# ---- looking


@cli.command()
@click.argument("store")
@click.argument("track", required=False)
def info(store: str, track: str | None) -> None:
    """Print what STORE holds, or one TRACK of it (by name, or by position from 0)."""
    from norbert_store.store import open_store

    db = open_store(store)
    console = _console()
    if track is not None:
        _print_track(console, _track(db, track))
        return
    console.print("\n".join(line for line in str(db).splitlines() if not line.startswith("  ")), markup=False)
    attributes = db.attributes
    for key in ("title", "license", "citation", "created_with", "version"):
        if attributes.get(key):
            console.print(f"{key:<10} {attributes[key]}", markup=False)
    _print_tracks(console, db)


def _print_tracks(console: Console, db: Any, most: int = 20) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, header_style="", pad_edge=False)
    for title, justify in (
        ("", "right"),
        ("track", "left"),
        ("split", "left"),
        ("seconds", "right"),
        ("absent", "left"),
    ):
        table.add_column(title, justify=justify, overflow="fold")  # type: ignore[arg-type]
    for i in range(min(len(db), most)):
        track = db[i]
        absent = ", ".join(target for target, there in track.present.items() if not there)
        table.add_row(str(i), escape(track.name), escape(track.split), f"{track.duration:.1f}", escape(absent))
    console.print()
    console.print(table)
    if len(db) > most:
        console.print(f"... {len(db) - most} more", markup=False)


def _print_track(console: Console, track: Track) -> None:
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
    for key, value in facts.items():
        if value != "":
            console.print(f"{key:<10} {value}", markup=False)


@cli.command()
@click.argument("store")
def verify(store: str) -> None:
    """Check that STORE is whole: documents, track table, presence, checksums and headers of all chunks.

    Prints a line for each fault, and exits with status 1 if there is one.
    """
    from rich.progress import Progress

    from norbert_store.verify import verify as verify_store

    console = _console()
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("checking", total=None)
        faults = verify_store(store, lambda done, total: bar.update(task, completed=done, total=total))
    for fault in faults:
        console.print(fault, markup=False)
    console.print(f"{store}: {len(faults)} faults" if faults else f"{store} is whole", markup=False)
    sys.exit(1 if faults else 0)


@cli.command()
@click.argument("store")
@click.argument("track")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="Picture: .png, .pdf, .svg, ...")
def plot(store: str, track: str, output: Path) -> None:
    """Draw the spectrograms of all targets of TRACK in STORE."""
    from norbert_store.show import save_plot
    from norbert_store.store import open_store

    save_plot(_track(open_store(store), track), output)
    _console().print(f"wrote {output}", markup=False)


@cli.command()
@click.argument("store")
@click.argument("track")
@click.option("--target", required=True, help="Which stem, for example vocals.")
@click.option("--mixture", type=click.Path(path_type=Path), help="Audio of the mixture.  [default: the track's source]")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="Audio file: .wav, .flac, ...")
def reconstruct(store: str, track: str, target: str, mixture: Path | None, output: Path) -> None:
    """Make audio of a target's magnitudes in STORE and the phase of the mixture."""
    from norbert_store.audio import write_audio
    from norbert_store.store import open_store

    chosen = _track(open_store(store), track)
    write_audio(output, chosen.to_audio(target, mixture), chosen.rate)
    _console().print(f"wrote {output}, {chosen.duration:.1f} s of {target}", markup=False)


# ---- helpers


def _track(db: Any, track: str) -> Track:
    """Find a track by its name; failing that, by its position."""
    found: Track = db[int(track)] if track not in db and track.removeprefix("-").isdecimal() else db[track]
    return found


def _console() -> Console:
    from rich.console import Console

    return Console(highlight=False, soft_wrap=True, emoji=False)  # a name such as ":star:" stays as it is


def _shortened(name: str, most: int = 40) -> str:
    return name if len(name) <= most else name[: most - 3] + "..."


def _one_line(error: BaseException) -> str:
    return " ".join(line.strip() for line in str(error).splitlines()) or type(error).__name__
