"""The command ``norbert-store``.

An option ``--a-b`` is the argument ``a_b`` in Python. Errors that this library raises on purpose are printed as one
line, with exit status 1; where they name an argument, the option is named. Every other error is a bug, and shown whole.
"""

from __future__ import annotations

import dis
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO

import click

from norbert_store._text import printable
from norbert_store._version import __version__
from norbert_store.errors import NorbertStoreError, SourceError

if TYPE_CHECKING:
    from norbert_store._store import Store
    from norbert_store._track import Track

_QUALITY_HELP = "From 0 to 100: how little of the loss is heard. Ten points more halve the error."
_QUOTED = r"(?<!\w)'(?:[^'\\]|\\.)*'(?!\w)" + r'|(?<!\w)"(?:[^"\\]|\\.)*"(?!\w)'
_EFFORT_HELP = "From 0 to 4: how long to search for fewer bytes at that quality. 0 uses no model of hearing."


def main() -> None:
    """Run the command; the entry point of the package."""
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            status = cli.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort as error:  # an interrupt from the keyboard
        why = str(error.__cause__ or "")
        click.echo(f"norbert-store: stopped. {why}" if why else "norbert-store: stopped", err=True)
        sys.exit(130)
    sys.exit(status or 0)


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Print a warning in one line, as errors are."""
    click.echo(f"norbert-store: {_one_line(message)}", file=file, err=True)


class _LocalPath(click.Path):
    """A path on this machine: also where it begins with "~" that no shell has expanded, or is a file:// URL."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Take what was typed."""
        from norbert_store._sources.source import local_path

        try:
            return super().convert(local_path(value), param, ctx)
        except SourceError as error:
            self.fail(str(error), param, ctx)


class _Failure(click.ClickException):
    """An error of this library, in one line."""

    def show(self, file: Any = None) -> None:
        """Print it."""
        click.echo(f"norbert-store: {self.message}", file=file, err=True)


class _Command(click.Command):
    """A command whose errors are one line that names its options."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except (NorbertStoreError, OSError, ValueError, ModuleNotFoundError) as error:
            if not isinstance(error, NorbertStoreError | OSError | ModuleNotFoundError) and not _is_raised_here(error):
                raise
            options = [one for one in self.params if isinstance(one, click.Option)]
            raise _Failure(with_options(_one_line(error), options)) from error


def _is_raised_here(error: Exception) -> bool:
    """Whether a ``raise`` in this package is where an error comes from: then it is about an argument, else it is a bug.

    The line of a bug doesn't tell where it is; Python's report does.
    """
    (*_, origin) = _tracebacks(error)
    code, module = origin.tb_frame.f_code, origin.tb_frame.f_globals["__name__"]
    return module.startswith("norbert_store.") and code.co_code[origin.tb_lasti] == dis.opmap["RAISE_VARARGS"]


def _tracebacks(error: BaseException) -> Iterator[TracebackType]:
    traceback = error.__traceback__
    while traceback is not None:
        yield traceback
        traceback = traceback.tb_next


class _Group(click.Group):
    command_class = _Command
    group_class = type


def with_options(text: str, options: Sequence[click.Option]) -> str:
    """Name options as they are typed, where the text of an error names an argument of Python.

    That is where it stands before "=" or "must", and everywhere if it has an underscore. What stands between quotation
    marks is left as it is: it may be somebody's name.

    Examples
    --------
    >>> resume = click.Option(["--resume"], is_flag=True)
    >>> with_options("give bandwidth=2; resume=True goes on", [click.Option(["--bandwidth"]), resume])
    'give --bandwidth 2; --resume goes on'
    """
    by_name = {option.name: option for option in options if option.name}
    names = "|".join(map(re.escape, sorted(by_name, key=len, reverse=True)))

    def typed(match: re.Match[str]) -> str:
        name, after = match["name"], text[match.end() :]
        if not name or not (match["sign"] or "_" in name or after.startswith(" must ")):
            return match[0]
        value_follows = match["sign"] == "=" and after[:1].strip(" .,;:)")
        return by_name[name].opts[-1] + (" " if value_follows else "")

    return re.sub(rf"{_QUOTED}|(?<![\w-])(?P<name>{names})\b(?P<sign>=True\b|=|)", typed, text) if names else text


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, "-V", "--version", message="norbert_store %(version)s")
def cli() -> None:
    """Data sets of spectrograms, as small as their JPEGs and as easy to slice as an xarray."""


# ---- demo


@cli.command()
@click.argument("out", default="norbert-store-demo", type=_LocalPath())
@click.option("--tracks", type=click.IntRange(1, 12), default=6, show_default=True, help="Number of tracks.")
@click.option(
    "--seconds", type=click.FloatRange(0, min_open=True), default=20.0, show_default=True, help="Length of each track."
)
def demo(out: Path, tracks: int, seconds: float) -> None:
    """Show what a store can do, on synthetic music.

    Writes a small data set in the layout of MUSDB18-HQ, its store, a picture, and vocals made from the store into OUT.
    """
    from norbert_store._command.demo import run_demo
    from norbert_store._command.output import console

    run_demo(out, tracks, seconds, console())


# ---- export


@cli.group()
def export() -> None:
    """Write a data set of audio into a store."""


def _export_options(command: Any) -> Any:
    for option in reversed(
        (
            click.argument("root", type=_LocalPath()),
            click.argument("out"),
            click.option("--quality", default=80.0, show_default=True, help=_QUALITY_HELP),
            click.option("--effort", default=3, show_default=True, help=_EFFORT_HELP),
            click.option("--bandwidth", default=16000.0, show_default=True, help="Highest frequency kept, Hz."),
            click.option("--n-fft", default=2048, show_default=True, help="Samples in a frame of the STFT."),
            click.option("--hop", type=int, help="Samples from one frame to the next.  [default: half a frame]"),
            click.option("--n-mels", type=int, help="Store this number of mel bands instead of linear bins."),
            click.option("--title", default="", help="Title of the data set."),
            click.option("--license", default="", help="Licence of the data set."),
            click.option("--citation", default="", help="How to cite the data set."),
            click.option("--skip-broken", is_flag=True, help="Go on without tracks that can't be read."),
            click.option("--resume", is_flag=True, help="Continue an export that was interrupted, or add new tracks."),
            click.option("--update", is_flag=True, help="As --resume; also take anew what was edited since."),
            click.option("--workers", type=click.IntRange(1), help="Processes on this machine.  [default: 1]"),
            click.option("--dask", metavar="ADDRESS", help="Scheduler of a Dask cluster that does the work."),
        )
    ):
        command = option(command)
    return command


@export.command()
@_export_options
def musdb(root: Path, out: str, skip_broken: bool, **options: Any) -> None:
    """Export MUSDB18 or MUSDB18-HQ into a store.

    ROOT holds train and test; in each, a track is a folder of WAV files (HQ) or one .stem.mp4.
    """
    from norbert_store._sources.musdb import TARGETS, musdb_tracks

    _export(musdb_tracks(root), out, TARGETS, skip_broken, options)


@export.command()
@_export_options
def folder(root: Path, out: str, skip_broken: bool, **options: Any) -> None:
    """Export all audio files below the folder ROOT into a store, one track per file."""
    from norbert_store._sources.layouts import TARGETS, folder_tracks

    _export(folder_tracks(root), out, TARGETS, skip_broken, options)


def _export(tracks: Any, out: str, targets: tuple[str, ...], skip_broken: bool, options: dict[str, Any]) -> None:
    from norbert_store._command.output import console, export_progress, print_summary
    from norbert_store._export.tracks import export_tracks
    from norbert_store._storage.places import name_of

    to = console()
    of_transform = {name: options.pop(name) for name in ("n_fft", "hop", "n_mels")}
    options["transform"] = partial(_transform, **of_transform)  # the rate is that of the first file
    with (
        _workers(options.pop("workers"), options.pop("dask")) as workers,
        export_progress(to, len(tracks)) as progress,
    ):
        try:
            summary = export_tracks(
                tracks,
                out,
                targets=targets,
                workers=workers,
                skip_broken=skip_broken,
                progress=progress,
                **options,
            )
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                f"{name_of(out)} holds what was done; the same command with --resume continues"
            ) from None
    print_summary(to, summary)


@contextmanager
def _workers(workers: int | None, dask: str | None) -> Iterator[int | Executor | None]:
    """Processes on this machine, or on those of a Dask cluster."""
    if dask is not None:
        if workers is not None:
            raise click.UsageError("give --workers or --dask, not both")
        try:
            from distributed import Client
        except ModuleNotFoundError:
            raise _Failure("--dask needs the package distributed: pip install 'norbert_store[dask]'") from None
        try:
            client = Client(dask)  # type: ignore[no-untyped-call]
        except ValueError as error:
            raise _Failure(f"--dask can't be {dask!r}: {error}") from error
        with client:
            yield client.get_executor()  # type: ignore[no-untyped-call]
    else:
        yield workers


def _transform(rate: int, n_fft: int, hop: int, n_mels: int | None) -> Any:
    from norbert_store._spectra.bins import Mel
    from norbert_store._spectra.stft import Stft

    return Stft(rate=rate, n_fft=n_fft, hop=hop) if n_mels is None else Mel(n_mels, rate, n_fft, hop)


# ---- looking

_AUDIO_ROOT = click.option(
    "--audio-root",
    type=_LocalPath(),
    help="Folder below which the tracks' audio is read.  [default: the one that holds the store]",
)


@cli.command()
@click.argument("store")
@click.argument("track", required=False)
def info(store: str, track: str | None) -> None:
    """Print what STORE holds, or one TRACK of it.

    TRACK is a name, or a position from 0.
    """
    from norbert_store._command.output import console, print_store, print_track
    from norbert_store._store import open as open_store

    db = open_store(store)
    if track is None:
        print_store(console(), db)
    else:
        print_track(console(), _track(db, track))


@cli.command()
@click.argument("store")
@click.option("--strong", is_flag=True, help="Read all chunks, and take their bytes as well.")
def digest(store: str, strong: bool) -> None:
    """Print one number for what STORE holds (SHA-256).

    It is equal for the same tracks with the same labels and magnitudes, however and wherever they were written.
    """
    from norbert_store._store import open as open_store

    click.echo(open_store(store).digest(strong=strong))


@cli.command()
@click.argument("store")
@click.option("--decode/--no-decode", default=True, help="Also decode all chunks, or only check their bytes.")
@click.option("--workers", type=click.IntRange(1), help="Number of threads.  [default: that of the processors]")
def verify(store: str, decode: bool, workers: int | None) -> None:
    """Check that STORE is whole.

    Checks the documents and the track table, and of every chunk that it is there, its checksum and header, and that it
    decodes. Prints a line for each fault; the exit status is 1 if there is one.
    """
    from norbert_store._check.verify import verify as verify_store
    from norbert_store._command.output import check_progress, console, print_report

    to = console()
    with check_progress(to) as on_progress:
        report = verify_store(store, decode=decode, workers=workers, progress=on_progress)
    print_report(to, report)
    sys.exit(0 if report else 1)


@cli.command()
@click.argument("store")
@_AUDIO_ROOT
@click.option("--drop", is_flag=True, help="Remove tracks from the store that can't be repaired.")
def repair(store: str, audio_root: Path | None, drop: bool) -> None:
    """Repair what is damaged in STORE.

    Damaged chunks are encoded again from the audio that the store was made of. Readers that have
    the store open go on; after --drop they may have to open it again. The exit status is 1 if the store isn't whole
    afterwards.
    """
    from norbert_store._check.repair import repair as repair_store
    from norbert_store._command.output import console, print_report, repair_progress

    to = console()
    with repair_progress(to) as on_progress:
        report = repair_store(store, audio_root=audio_root, drop=drop, progress=on_progress)
    print_report(to, report)
    sys.exit(0 if report else 1)


@cli.command()
@click.argument("store")
@click.argument("track")
@click.option("-o", "--out", required=True, type=_LocalPath(), help="Picture: .png, .pdf, .svg, ...")
def plot(store: str, track: str, out: Path) -> None:
    """Draw the spectrograms of one TRACK of STORE."""
    from norbert_store._show import save_plot
    from norbert_store._store import open as open_store

    save_plot(_track(open_store(store), track), out)
    click.echo(f"wrote {out}")


@cli.command("to-audio")
@click.argument("store")
@click.argument("track")
@click.option("--target", required=True, help="Such as vocals.")
@click.option("--mixture", type=_LocalPath(), help="Audio of the mixture.  [default: the track's source]")
@_AUDIO_ROOT
@click.option("-o", "--out", required=True, type=_LocalPath(), help="Audio file: .wav, .flac, ...")
def to_audio(store: str, track: str, target: str, mixture: Path | None, audio_root: Path | None, out: Path) -> None:
    """Make audio from the magnitudes of one target of TRACK in STORE.

    The phase is that of the mixture.
    """
    from norbert_store._read.track import present_target
    from norbert_store._resynthesis import resynthesize
    from norbert_store._sources.files import check_output, write_audio
    from norbert_store._store import open as open_store

    check_output(out)
    chosen = _track(open_store(store, audio_root=audio_root), track)
    write_audio(out, resynthesize(chosen, present_target(chosen, target), mixture), chosen.rate, len(chosen.channels))
    click.echo(f"wrote {out}, {chosen.duration:.1f} s of {printable(target)}")


@cli.command()
@click.argument("store")
@click.argument("track")
@click.option("--method", default="wiener", show_default=True, help="One of wiener, softmask, irm and ibm.")
@click.option("--iterations", default=1, show_default=True, help="Iterations of expectation maximization, for wiener.")
@click.option("--mixture", type=_LocalPath(), help="Audio of the mixture.  [default: the track's source]")
@_AUDIO_ROOT
@click.option("-o", "--out", required=True, type=_LocalPath(), help="Folder for one file per target.")
@click.option("--format", "suffix", default="wav", show_default=True, help="Suffix of the files: wav, flac, ...")
def separate(
    store: str,
    track: str,
    method: str,
    iterations: int,
    mixture: Path | None,
    audio_root: Path | None,
    out: Path,
    suffix: str,
) -> None:
    """Separate the mixture of TRACK by the magnitudes in STORE.

    Writes one file for each target of the track except the mixture.
    """
    from contextlib import ExitStack

    from norbert_store._command.output import console, seconds_progress
    from norbert_store._resynthesis import separate as separate_track
    from norbert_store._sources.files import open_output
    from norbert_store._store import open as open_store

    chosen = _track(open_store(store, audio_root=audio_root), track)
    with ExitStack() as stack:
        on_progress = stack.enter_context(seconds_progress(console(), chosen.duration))
        files: dict[str, Any] = {}
        for blocks in separate_track(chosen, mixture, method, iterations=iterations):
            for target, block in blocks.items():
                if target not in files:
                    out.mkdir(parents=True, exist_ok=True)
                    place = out / f"{target}.{suffix}"
                    files[target] = stack.enter_context(open_output(place, chosen.rate, len(chosen.channels)))
                files[target].write(block)
            on_progress(len(block) / chosen.rate)
    click.echo(f"wrote {', '.join(f'{printable(target)}.{suffix}' for target in files)} to {out}")


# ---- shared by commands


def _track(db: Store, track: str) -> Track:
    """Find a track by its name; failing that, by its position."""
    if track in db or not track.removeprefix("-").isdecimal():
        return db[track]
    try:
        return db[int(track)]
    except IndexError as error:
        raise _Failure(str(error)) from error


def _one_line(error: BaseException | str) -> str:
    return " ".join(line.strip() for line in str(error).splitlines()) or type(error).__name__
