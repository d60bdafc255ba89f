"""Write the small stores in ``stores/`` that every later version of this library must read.

Run it once for each released version of the format::

    python tests/data/make_stores.py

It writes ``stores/<format>.zarr`` and, next to it, what the store holds: ``.npz`` with ``levels`` as Pillow decodes
them, ``magnitude`` that they stand for, and the track table. What was written is never written again: encoders may get
better, but old stores stay as they are.
"""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
from PIL import Image

import norbert_store
from norbert_store import TF
from norbert_store._format.document import VERSION

FOLDER = Path(__file__).parent / "stores"


def stems(samples: int, seed: int) -> dict[str, np.ndarray]:
    """Return a glide and a burst of noise, in two channels."""
    rng = np.random.default_rng(seed)
    seconds = np.arange(samples)[:, np.newaxis] / 8000
    glide = 0.4 * np.sin(2 * np.pi * (500 + 100 * seed + 4000 * seconds) * seconds + np.array([0, 1]))
    burst = rng.uniform(-0.5, 0.5, (samples, 2)) * np.exp(-40 * seconds)
    return {"mixture": glide + burst, "vocals": glide}


def write(path: Path) -> None:
    """Write three tracks in two bundles: several shards, an absent stem, silence, loud and quiet stems, all labels."""
    with norbert_store.create(
        path,
        targets=("mixture", "vocals"),
        transform=TF(rate=8000, n_fft=64),
        bandwidth=3000,
        chunk_frames=8,
        shard_chunks=2,
        bundle_tracks=2,
        title="Three tracks",
        license="CC0-1.0",
    ) as writer:
        labels = {"genre": "Électronique", "year": 1999, "tempo": 120.5, "live": True, "ä/ö": ["rock", 'ß, "x"']}
        writer.add("Ann - Long", stems(1200, 1), split="train", source="audio/Ann", metadata={"a": [1]}, labels=labels)
        short = {"mixture": 100 * stems(200, 2)["mixture"], "vocals": None}
        writer.add("Žofie – 日本", short, split="train", labels={"year": 2000, "start": "here"})
        silent = {"mixture": 1e-12 * stems(300, 3)["mixture"], "vocals": np.zeros((300, 2))}
        writer.add("<b>silent</b> vocals", silent, split="test", labels={"live": False, "target": -(2**60), "ä/ö": []})


def expected(path: Path) -> dict[str, np.ndarray]:
    """Return all that the store holds, decoded by Pillow."""
    db = norbert_store.open(path)
    levels = np.zeros(db.to_xarray().magnitude.shape, np.uint8)
    magnitude = np.full(db.to_xarray().magnitude.shape, np.nan, np.float32)
    for track in db:
        for t, target in enumerate(db.targets):
            for c in range(2):
                for chunk in range(-(-track.frames // 8) if track.present[target] else 0):
                    image = np.asarray(Image.open(io.BytesIO(track.jpeg(target, c, chunk))))
                    there = t, c, slice(track.start + 8 * chunk, track.start + 8 * chunk + len(image))
                    levels[there] = image
                    magnitude[there] = (image / 255) ** (1 / 0.3) * 2.0 ** track.scales[target]
    rows = [
        {
            "name": track.name,
            "split": track.split,
            "source": track.source,
            "start": track.start,
            "frames": track.frames,
            "samples": track.samples,
            "present": track.present,
            "scales": track.scales,
            "metadata": track.metadata,
            "labels": track.labels,
        }
        for track in db
    ]
    return {"levels": levels, "magnitude": magnitude, "frequency": db.frequencies, "tracks": np.array(json.dumps(rows))}


if __name__ == "__main__":
    store = FOLDER / f"{VERSION}.zarr"
    write(store)
    np.savez_compressed(store.with_suffix(".npz"), **expected(store))
