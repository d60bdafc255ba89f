"""Export MUSDB18 (either layout) into a store, and look at what came out.

    python examples/export_musdb18.py [ROOT [OUT]]

Without ROOT, the data set that `norbert-store demo` makes is taken, and made where it isn't there yet. Without OUT, the
store is temporary.
"""

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import norbert_store


def main(root: Path, out: Path) -> None:
    # called when a track begins, so that a notebook or a log can show progress in its own way
    def progress(now: Any) -> None:
        if now.track:
            print(f"{now.done + 1:>3} of {now.tracks}  {now.track}")

    summary = norbert_store.export_musdb(root, out, progress=progress, title="MUSDB18")
    print(f"\n{summary.tracks} tracks, {summary.audio_seconds / 60:.1f} minutes, {summary.speed:.0f} x real time")
    print(f"store         {summary.store_bytes / 1e6:8.1f} MB")
    print(f"audio files   {summary.audio_bytes / 1e6:8.1f} MB")
    print(f"float32 .npy  {summary.npy_bytes / 1e6:8.1f} MB\n")

    db = norbert_store.open(out, split="train")
    print(db)
    track = db[0]
    vocals = track.magnitude.sel(target="vocals", channel="left", time=slice(2, 4), frequency=slice(0, 8000))
    print(f"\nfrom 2 to 4 seconds, up to 8 kHz, the left channel of the vocals of {track.name!r}:")
    print(vocals.load())


if __name__ == "__main__":
    demo = Path("norbert-store-demo")
    if len(sys.argv) == 1 and not demo.exists():
        subprocess.run(["norbert-store", "demo", demo], check=True)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(sys.argv[1]) if len(sys.argv) > 1 else demo / "musdb"
        main(root, Path(sys.argv[2]) if len(sys.argv) > 2 else Path(folder) / "musdb.zarr")
