"""Explore a store with xarray: loudest track per target, mean spectrum per split, one slice of one channel.

    python examples/explore_store.py [STORE]

Without STORE, the one that `norbert-store demo` makes is taken, and made where it isn't there yet.
"""

import subprocess
import sys
from pathlib import Path

import numpy as np
import xarray

import norbert_store


def loudest_tracks(db: norbert_store.Store) -> None:
    """Mean power of each track and target, and the track with the most of it."""
    power = xarray.concat([(track.magnitude**2).mean(["channel", "time", "frequency"]) for track in db], "track")
    power = power.assign_coords(track=db.names)
    print("loudest track per target:")
    for target in db.targets:
        of_target = power.sel(target=target).fillna(0)
        print(f"  {target:<8} {of_target.idxmax().item()!s:<42} {10 * np.log10(of_target.max().item()):6.1f} dB")


def mean_spectra(db: norbert_store.Store) -> None:
    """Mean magnitude of the mixture in octaves, for each split."""
    edges = [0, 125, 250, 500, 1000, 2000, 4000, 8000, 16001]
    print("\nmean magnitude of the mixture, dB, in octaves up to (Hz):")
    print(" " * 8 + "".join(f"{edge:>8}" for edge in edges[1:]))
    for split in db.splits:
        tracks = db.select(split=split)
        spectra = [track.magnitude.sel(target=db.targets[0]).mean(["channel", "time"]) for track in tracks]
        octaves = xarray.concat(spectra, "track").mean("track").groupby_bins("frequency", edges).mean()
        print(f"{split:<8}" + "".join(f"{value:8.1f}" for value in 20 * np.log10(octaves.values)))


def one_slice(db: norbert_store.Store) -> None:
    """One slice of one channel: only the chunks it touches are read."""
    track = db[0]
    target = db.targets[-1]
    part = track.magnitude.sel(target=target, channel=db.channels[0], time=slice(1, 3), frequency=slice(200, 4000))
    print(f"\n{target} of {track.name!r}, {db.channels[0]}, from 1 to 3 seconds, 200 to 4000 Hz:")
    print(f"  {part.sizes['time']} frames x {part.sizes['frequency']} bins, not read yet")
    peak = part.load().isel(part.argmax(["time", "frequency"]))
    print(f"  largest magnitude {peak.item():.4f} at {peak.time.item():.2f} s, {peak.frequency.item():.0f} Hz")


def main(store: Path) -> None:
    db = norbert_store.open(store)
    loudest_tracks(db)
    mean_spectra(db)
    one_slice(db)


if __name__ == "__main__":
    demo = Path("norbert-store-demo")
    if len(sys.argv) == 1 and not demo.exists():
        subprocess.run(["norbert-store", "demo", demo], check=True)
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else demo / "musdb.zarr")
