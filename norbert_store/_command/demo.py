"""The demo: from audio to a store, a slice, a picture and sound again, on music that is made on the spot."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from norbert_store._command.demo_music import write_musdb
from norbert_store._command.output import counted, export_progress, print_summary
from norbert_store._export.run import export_musdb
from norbert_store._show import save_plot
from norbert_store._sources.files import write_audio
from norbert_store._store import open as open_store
from norbert_store.errors import StoreExistsError

if TYPE_CHECKING:
    from rich.console import Console


def run_demo(out: str | os.PathLike[str], tracks: int, seconds: float, console: Console) -> None:
    """Write a data set, a store, a picture and a reconstruction into a new folder, and tell what happens.

    Parameters
    ----------
    out : str or path
        A folder that isn't there yet, or is empty.
    tracks : int
        How many.
    seconds : float
        Length of each.
    console : rich.console.Console
        Where to print.

    Raises
    ------
    StoreExistsError
        If the folder isn't empty.
    """
    folder = Path(out)
    if folder.exists() and any(folder.iterdir()):
        raise StoreExistsError(f"{folder} exists already and isn't empty; give another folder, or delete it first")

    say = console.print
    say(f"Writing {counted(tracks, 'track')} of synthetic music, as MUSDB18-HQ is laid out, to {folder / 'musdb'}")
    write_musdb(folder / "musdb", tracks, seconds)
    place = folder / "musdb.zarr"
    with export_progress(console, tracks) as progress:
        summary = export_musdb(folder / "musdb", place, title="norbert_store demo", progress=progress)
    say()
    print_summary(console, summary)

    db = open_store(place)
    track = db[0]
    say(f"\n>>> db = norbert_store.open({os.fspath(place)!r})\n>>> db\n{db}")
    begin, end = round(seconds / 10, 3), round(seconds / 5, 3)
    where = f"target='vocals', channel='left', time=slice({begin:g}, {end:g}), frequency=slice(0, 4000)"
    magnitude = track.magnitude
    started = time.perf_counter()
    values = magnitude.sel(target="vocals", channel="left", time=slice(begin, end), frequency=slice(0, 4000)).values
    took = 1000 * (time.perf_counter() - started)
    say(f"\n>>> magnitude = db[{track.name!r}].magnitude\n>>> magnitude.sel({where}).values")
    say(f"{values.shape[0]} frames x {values.shape[1]} bins, largest {values.max(initial=0):.4f}, in {took:.0f} ms")

    save_plot(track, folder / "picture.png")
    write_audio(folder / "vocals.wav", [track.to_audio("vocals")], track.rate, len(track.channels))
    say(f"\n{folder / 'picture.png'}   the five targets of {track.name!r}")
    say(f"{folder / 'vocals.wav'}    its vocals, from the store's magnitudes and the mixture's phase")
    say(f"\nNext: norbert-store info {place}")
