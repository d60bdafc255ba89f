"""What a store of a data set costs, and what is lost: kB/s of the mixtures, and SNR of their resynthesis.

    python benchmarks/storage_cost.py ROOT [--quality 80] [--json OUT]

ROOT holds MUSDB18-HQ, or anything in its layout. Each mixture is stored, read back and made audio
again with its own phase, so that the SNR (dB, over all channels) shows what storage costs and nothing else: the band
limit, 8 bits and JPEG. Random slices are compared with the whole decoded track, which must be equal, and with the STFT
of the audio, which must agree to within the error of the whole track.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path

import numpy as np
import soundfile

import norbert_store

SLICES_PER_TRACK = 50


def main() -> None:
    """Export, read back, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("--quality", type=float, default=80.0)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "store.zarr"
        norbert_store.export_musdb(arguments.root, place, quality=arguments.quality)
        db = norbert_store.open(place)
        rng = np.random.default_rng(0)
        print(f"{'track':<32} {'kB/s':>7} {'SNR dB':>7}   slices equal, largest level error")
        for track in db:
            kilobytes = mixture_bytes(place, track) / 1000
            mixture, _ = soundfile.read(arguments.root / track.split / track.name / "mixture.wav", dtype="float32")
            resynthesis = track.to_audio("mixture", mixture=mixture)
            snr = 10 * np.log10((mixture**2).sum() / ((mixture - resynthesis) ** 2).sum())
            equal, error = check_slices(db, track, mixture, rng)
            rows.append({"track": track.name, "kB/s": kilobytes / track.duration, "SNR": float(snr)})
            print(f"{track.name:<32} {rows[-1]['kB/s']:7.2f} {snr:7.2f}   {equal}, {error:.1f}")
    rates, ratios = [row["kB/s"] for row in rows], [row["SNR"] for row in rows]
    print(f"{'mean':<32} {statistics.mean(rates):7.2f} {statistics.mean(ratios):7.2f}")
    print(f"{'worst':<32} {max(rates):7.2f} {min(ratios):7.2f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1))


def mixture_bytes(place: Path, track: norbert_store.Track) -> int:
    """Size of the shards that hold a track's mixture, index and all; every track has shards of its own."""
    grid = json.loads((place / "magnitude/zarr.json").read_text())["chunk_grid"]["configuration"]["chunk_shape"]
    shards = range(track.start // grid[2], (track.start + track.frames - 1) // grid[2] + 1)
    return sum((place / f"magnitude/c/0/0/{shard}/0").stat().st_size for shard in shards)


def check_slices(
    db: norbert_store.Store, track: norbert_store.Track, mixture: np.ndarray, rng: np.random.Generator
) -> tuple[bool, float]:
    """Compare random slices with the whole track, and the whole track with the STFT of the audio, in levels."""
    whole = track.magnitude.load()
    equal = True
    for _ in range(SLICES_PER_TRACK):
        seconds = np.sort(rng.uniform(0, track.duration, 2))
        hertz = np.sort(rng.uniform(0, 16000, 2))
        labels = {"target": rng.choice(db.targets), "channel": rng.choice(track.magnitude.channel.values)}
        where = {**labels, "time": slice(*seconds), "frequency": slice(*hertz)}
        equal &= np.array_equal(track.magnitude.sel(where).values, whole.sel(where).values)
    exact = np.abs(track.transform.stft.transform(mixture))[:, : len(whole.frequency)]
    stored = whole.sel(target="mixture").transpose("time", "frequency", "channel").values
    largest = 2.0 ** track.scales["mixture"]
    error = db.curve.compress(stored / largest) - db.curve.compress(exact / largest)
    return bool(equal), float(255 * np.abs(error).max())


if __name__ == "__main__":
    main()
