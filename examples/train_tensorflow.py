"""Train on random excerpts with tf.data and Keras: a mask for the vocals, from the mixture.

    pip install 'norbert_store[tensorflow]'
    python examples/train_tensorflow.py [STORE]

Without STORE, the one that `norbert-store demo` makes is taken, and made where it isn't there yet.

What a real net looks like is in train_torch.py; here it is one layer over the frequencies of a frame.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

import norbert_store

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # no remarks about the processor
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
try:
    import keras
    import tensorflow as tf
except ModuleNotFoundError:
    print("needs TensorFlow: pip install 'norbert_store[tensorflow]'")
    sys.exit()

BATCH = 16


def loudness(magnitude: np.ndarray) -> np.ndarray:
    """What the net sees and gives, about as loud as it sounds; evaluated once, on the 256 levels."""
    return magnitude**0.35


def dataset(excerpts: norbert_store.Excerpts, epochs: int) -> tf.data.Dataset:
    """Batches (batch, channel, frame, frequency) of mixture and vocals, in the order of the excerpts' numbers.

    TensorFlow batches nothing but numbers. Batches are read whole, the next ones while the net learns.
    """

    def read(numbers: np.ndarray) -> np.ndarray:
        return excerpts.read(numbers)["magnitude"]

    def pair(numbers: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        batch = tf.ensure_shape(tf.numpy_function(read, [numbers], excerpts.dtype), (None, *excerpts.shape))
        return batch[:, 0], batch[:, 1]

    numbers = tf.data.Dataset.range(epochs * len(excerpts))  # .shard(world, rank) for one of several machines
    return numbers.batch(BATCH, drop_remainder=True).map(pair).prefetch(2)


def mask_net(shape: tuple[int, ...]) -> keras.Model:
    """From a mixture (channel, frame, frequency) to what of it is vocals."""
    mixture = keras.Input(shape)
    hidden = keras.layers.Dense(64, "relu")(mixture)
    mask = keras.layers.Dense(shape[-1], "sigmoid")(hidden)
    return keras.Model(mixture, keras.layers.Multiply()([mask, mixture]))


def main(store: Path, epochs: int = 3) -> None:
    keras.utils.set_random_seed(0)
    db = norbert_store.open(store, split="train")
    excerpts = db.excerpts(seconds=3.0, targets=("mixture", "vocals"), values=loudness, per_epoch=10 * BATCH, seed=0)
    net = mask_net(excerpts.shape[1:])
    net.compile(keras.optimizers.Adam(3e-3), "mse")
    started = time.perf_counter()
    steps = len(excerpts) // BATCH
    fit = net.fit(dataset(excerpts, epochs), epochs=epochs, steps_per_epoch=steps, shuffle=False, verbose=0)
    history = fit.history["loss"]
    seconds = time.perf_counter() - started
    print(f"TensorFlow {tf.__version__}: {epochs * steps} batches of {(BATCH, *excerpts.shape)} in {seconds:.1f} s")
    print("mean loss of the epochs:", *(f"{loss:.5f}" for loss in history))
    assert history[-1] < history[0], "the net didn't learn"


if __name__ == "__main__":
    demo = Path("norbert-store-demo")
    if len(sys.argv) == 1 and not demo.exists():
        subprocess.run(["norbert-store", "demo", demo], check=True)
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else demo / "musdb.zarr")
