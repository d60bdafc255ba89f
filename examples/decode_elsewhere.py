"""Decode a track's JPEGs with what other libraries have: Pillow, TensorFlow, TorchCodec.

    python examples/decode_elsewhere.py [STORE]

Without STORE, the one that `norbert-store demo` makes is taken, and made where it isn't there yet.

Pillow comes with norbert_store; the others are tried where they are installed: TensorFlow (pip install
'norbert_store[tensorflow]') and TorchCodec from 0.16 on (pip install torchcodec, beside PyTorch). The levels are the
same, bit for bit, if the decoder's inverse cosine transform is libjpeg's accurate one, which TensorFlow has to be asked
for.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

import norbert_store

Decoder = Callable[[bytes], np.ndarray]
"""From a JPEG to levels (frames, bins), uint8."""


def pillow() -> Decoder:
    return lambda jpeg: np.asarray(Image.open(io.BytesIO(jpeg)))


def tensorflow(dct_method: str) -> Decoder:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # no remarks about the processor
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    import tensorflow as tf

    return lambda jpeg: tf.io.decode_jpeg(jpeg, channels=1, dct_method=dct_method).numpy()[..., 0]


def torchcodec() -> Decoder:
    from torchcodec.decoders import decode_jpeg

    return lambda jpeg: decode_jpeg(jpeg, mode="GRAY").numpy()[0]


ACCURATE: dict[str, Callable[[], Decoder]] = {
    "Pillow": pillow,
    "TensorFlow, INTEGER_ACCURATE": partial(tensorflow, "INTEGER_ACCURATE"),
    "TorchCodec": torchcodec,
}
OTHERS: dict[str, Callable[[], Decoder]] = {"TensorFlow, by default": partial(tensorflow, "")}


def decode(track: norbert_store.Track, target: str, channel: str, decoder: Decoder) -> np.ndarray:
    """Levels (frames, bins) of one channel of a track; its JPEGs are the chunks, one after the other."""
    pieces: list[np.ndarray] = []
    while sum(map(len, pieces)) < track.frames:
        pieces.append(decoder(track.jpeg(target, channel, len(pieces))))
    return np.concatenate(pieces)


def main(store: Path) -> None:
    db = norbert_store.open(store)
    track = db[0]
    target, channel = db.targets[0], db.channels[0]
    one = {"target": target, "channel": channel}
    levels, magnitude = track.levels.sel(one).values, track.magnitude.sel(one).values
    print(f"{target} of {track.name!r}, {channel}: {track.frames} frames x {len(db.frequencies)} bins")
    for name, make in {**ACCURATE, **OTHERS}.items():
        try:
            decoder = make()
        except (ImportError, OSError):  # OSError: a build for CUDA, on a machine without its libraries
            print(f"  {name:<30} isn't installed")
            continue
        decoded = decode(track, target, channel, decoder)
        apart = np.abs(decoded.astype(int) - levels)
        same = not apart.any() and np.array_equal(2.0 ** track.scales[target] * db.look_up_table[decoded], magnitude)
        print(f"  {name:<30} {np.mean(apart == 0):.1%} of the levels are equal; none is more than {apart.max()} apart")
        assert same or name in OTHERS, f"{name} decodes something else"


if __name__ == "__main__":
    demo = Path("norbert-store-demo")
    if len(sys.argv) == 1 and not demo.exists():
        subprocess.run(["norbert-store", "demo", demo], check=True)
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else demo / "musdb.zarr")
