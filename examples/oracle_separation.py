"""Oracle separation: how well the true magnitudes separate a mixture, and what their storage costs.

    python examples/oracle_separation.py [ROOT [OUT]] [--qualities 60 70 80 90] [--museval] [--workers 2]

For every track of a data set in the layout of MUSDB18-HQ, three oracles (ideal binary mask, ideal ratio mask,
multichannel Wiener filter) separate the mixture, once by the exact magnitudes of the stems, and once by those of a
store of each quality. Scores: SDR as in BSS Eval v4 (median over frames of a second), and SI-SDR over the whole track,
in dB, mean over channels. Without ROOT, the data set that `norbert-store demo` makes is taken, and made where it isn't
there yet.

BSS Eval's SDR of images is the energy of the true stem over that of the error, so it needs none of the filters that
make BSS Eval slow. With --museval, the package museval computes it all the same (a minute and more for each track and
method).

Scores are written to OUT/scores.jsonl one by one, and a run that was stopped continues there. At the end, a table is
printed, and a picture written to OUT/cost.png.

References: E. Vincent, R. Gribonval, C. Févotte, "Performance measurement in blind audio source separation", IEEE TASLP
14(4), 2006; F.-R. Stöter, A. Liutkus, N. Ito, "The 2018 Signal Separation Evaluation Campaign", LVA/ICA 2018 (v4);
J. Le Roux et al., "SDR - half-baked or well done?", ICASSP 2019 (SI-SDR).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from rich.console import Console
from rich.progress import track as progress
from rich.table import Table

import norbert_store
from norbert_store import TF
from norbert_store.filters import apply_mask, ideal_binary_mask, ideal_ratio_mask, wiener

TARGETS = ("drums", "bass", "other", "vocals")
METHODS = {"ibm": "ideal binary mask", "irm": "ideal ratio mask", "wiener": "Wiener filter"}
EXACT = "exact"

Row = dict[str, Any]


def exact_estimates(mixture: np.ndarray, stems: dict[str, np.ndarray], rate: int, method: str) -> dict[str, np.ndarray]:
    """Separate by the magnitudes of the stems themselves."""
    tf = TF(rate=rate)
    x = np.asarray(tf.transform(mixture))
    v = np.stack([np.abs(np.asarray(tf.transform(stem))) for stem in stems.values()], axis=-1)
    if method == "wiener":
        scale = tf.weights.sum()
        y = wiener(v * scale, x * scale, iterations=1) / scale
    else:
        y = apply_mask(ideal_binary_mask(v) if method == "ibm" else ideal_ratio_mask(v, exponent=2), x)
    return {target: tf.inverse_transform(y[..., i], len(mixture)) for i, target in enumerate(stems)}


def sdr(stems: dict[str, np.ndarray], estimates: dict[str, np.ndarray], rate: int) -> dict[str, float]:
    """Median over frames of a second, of frames in which no stem is silent, as in BSS Eval v4."""
    seconds = len(next(iter(stems.values()))) // rate or 1
    true = np.stack([stem[: seconds * rate].reshape(seconds, -1) for stem in stems.values()])
    error = true - np.stack([estimates[target][: seconds * rate].reshape(seconds, -1) for target in stems])
    energy, lost = (true.astype(np.float64) ** 2).sum(-1), (error.astype(np.float64) ** 2).sum(-1)
    heard = (energy > 0).all(axis=0)
    ratios = 10 * np.log10(energy[:, heard] / np.maximum(lost[:, heard], 1e-30))
    return dict(zip(stems, np.median(ratios, axis=1).tolist() if heard.any() else [np.nan] * len(stems), strict=True))


def museval_sdr(stems: dict[str, np.ndarray], estimates: dict[str, np.ndarray], rate: int) -> dict[str, float]:
    """The same, by museval."""
    import museval

    true, found = (np.stack([part[target] for target in stems]) for part in (stems, estimates))
    ratios, *_ = museval.evaluate(true, found, win=rate, hop=rate)
    return dict(zip(stems, np.nanmedian(ratios, axis=1).tolist(), strict=True))


def si_sdr(stem: np.ndarray, estimate: np.ndarray) -> float:
    """Scale-invariant SDR of the whole track, mean over channels that aren't silent."""
    true, found = stem.astype(np.float64), estimate.astype(np.float64)
    audible = (true**2).sum(0) > 0
    scale = (true * found).sum(0)[audible] / (true**2).sum(0)[audible]
    target = scale * true[:, audible]
    return float(np.mean(10 * np.log10((target**2).sum(0) / ((found[:, audible] - target) ** 2).sum(0))))


def read(folder: Path, target: str) -> np.ndarray:
    """Audio (samples, channels) of one target of a track."""
    return soundfile.read(folder / f"{target}.wav", dtype="float32", always_2d=True)[0]


def score(folder: Path, store: Path | None, quality: str, with_museval: bool) -> list[Row]:
    """Score all methods on the track that a folder holds, by exact magnitudes or by those of a store."""
    rate = soundfile.info(folder / "mixture.wav").samplerate
    mixture = read(folder, "mixture")
    audio = {target: read(folder, target) for target in TARGETS if (folder / f"{target}.wav").exists()}
    stems = {target: stem for target, stem in audio.items() if stem.any()}
    rows = []
    for method in METHODS:
        if store is None:
            estimates = exact_estimates(mixture, stems, rate, method)
        else:
            track = norbert_store.open(store)[folder.name]
            whole = track.duration + 1
            estimates = track.separate(mixture=mixture, method=method, targets=list(stems), block_seconds=whole)
        ratios = (museval_sdr if with_museval else sdr)(stems, estimates, rate)
        for target in stems:
            scores = {"SDR": ratios[target], "SI-SDR": si_sdr(stems[target], estimates[target])}
            rows.append({"track": folder.name, "quality": quality, "method": method, "target": target, **scores})
    return rows


def run(root: Path, out: Path, qualities: list[float], only: list[str], with_museval: bool, workers: int) -> list[Row]:
    """Score what isn't scored yet; returns all scores."""
    out.mkdir(parents=True, exist_ok=True)
    log = out / ("scores-museval.jsonl" if with_museval else "scores.jsonl")
    rows = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    done = {(row["track"], row["quality"]) for row in rows}
    stores: dict[str, Path | None] = {EXACT: None}
    for quality in qualities:
        stores[f"{quality:g}"] = place = out / f"quality-{quality:g}.zarr"
        if not place.exists():
            norbert_store.export_musdb(root, place, quality=quality)
    folders = sorted(path.parent for path in root.glob("*/*/mixture.wav"))
    jobs = [
        (folder, store, quality, with_museval)
        for folder in folders
        for quality, store in stores.items()
        if (folder.name, quality) not in done and (not only or folder.name in only)
    ]
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool, log.open("a") as file:
        waiting = [pool.submit(score, *job) for job in jobs]
        for future in progress(as_completed(waiting), "scoring", total=len(jobs), transient=True):
            for row in future.result():
                rows.append(row)
                file.write(json.dumps(row) + "\n")
            file.flush()
    wanted = set(stores)
    return [row for row in rows if row["quality"] in wanted and (not only or row["track"] in only)]


def mean(rows: list[Row], measure: str, **where: str) -> float:
    """Mean of a measure over the rows that match."""
    return float(np.nanmean([row[measure] for row in rows if all(row[key] == value for key, value in where.items())]))


def print_table(rows: list[Row], qualities: list[str]) -> None:
    """Print each oracle's mean scores, and what storage costs."""
    for measure in ("SDR", "SI-SDR"):
        table = Table(title=f"{measure}, dB, mean over targets and tracks; in brackets what storage costs", box=None)
        for title in ("", EXACT, *(f"quality {quality}" for quality in qualities)):
            table.add_column(title, justify="left" if not title else "right")
        for method, name in METHODS.items():
            exact = mean(rows, measure, method=method, quality=EXACT)
            stored = [mean(rows, measure, method=method, quality=quality) for quality in qualities]
            table.add_row(name, f"{exact:.2f}", *(f"{value:.2f} ({exact - value:+.2f})" for value in stored))
        Console(width=120).print(table)
    targets = list(dict.fromkeys(row["target"] for row in rows))
    table = Table(title="SDR by exact magnitudes, dB, by target", box=None)
    for title in ("", *targets):
        table.add_column(title, justify="left" if not title else "right")
    for method, name in METHODS.items():
        scores = [mean(rows, "SDR", method=method, quality=EXACT, target=target) for target in targets]
        table.add_row(name, *(f"{value:.2f}" for value in scores))
    Console(width=120).print(table)


def save_picture(rows: list[Row], qualities: list[str], file: Path) -> None:
    """Draw what storage costs, over quality."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axis = figure.subplots()
    for method, name in METHODS.items():
        exact = mean(rows, "SDR", method=method, quality=EXACT)
        cost = [exact - mean(rows, "SDR", method=method, quality=quality) for quality in qualities]
        axis.plot([float(quality) for quality in qualities], cost, "o-", label=name)
    axis.axhline(0, color="grey", linewidth=0.8)
    axis.set(xlabel="quality", ylabel="dB of SDR that storage costs", title="Oracles by stored magnitudes")
    axis.legend()
    figure.savefig(file, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, nargs="?")
    parser.add_argument("out", type=Path, nargs="?", default=Path("oracle-separation"))
    parser.add_argument("--qualities", type=float, nargs="+", default=[60, 70, 80, 90])
    parser.add_argument("--only", nargs="+", default=[], metavar="TRACK", help="names of tracks; all if left out")
    parser.add_argument("--museval", action="store_true")
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root, out, qualities = arguments.root, arguments.out, arguments.qualities
        if root is None:
            demo = Path("norbert-store-demo")
            if not demo.exists():
                subprocess.run(["norbert-store", "demo", demo], check=True)
            root, out, qualities = demo / "musdb", Path(folder), [80.0]
        rows = run(root, out, qualities, arguments.only, arguments.museval, arguments.workers)
        names = [f"{quality:g}" for quality in sorted(qualities)]
        print_table(rows, names)
        save_picture(rows, names, out / "cost.png")
        print(f"{len({row['track'] for row in rows})} tracks; scores and picture in {out}")


if __name__ == "__main__":
    main()
