"""Train on random excerpts with grain and JAX: a mask for the vocals, from the mixture.

    pip install 'norbert_store[jax]'
    python examples/train_jax.py [STORE]

Without STORE, the one that `norbert-store demo` makes is taken, and made where it isn't there yet.

What a real net looks like is in train_torch.py; here it is one layer over the frequencies of a frame.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np

import norbert_store

try:
    import grain
    import jax
    from jax import numpy as jnp
except ModuleNotFoundError:
    print("needs JAX and grain: pip install 'norbert_store[jax]'")
    sys.exit()

BATCH = 16

Parameters = dict[str, jax.Array]


def loudness(magnitude: np.ndarray) -> np.ndarray:
    """What the net sees and gives, about as loud as it sounds; evaluated once, on the 256 levels."""
    return magnitude**0.35


def start_parameters(bins: int, features: int = 64) -> Parameters:
    keys = jax.random.split(jax.random.key(0))
    return {
        "narrow": jax.random.normal(keys[0], (bins, features)) / bins**0.5,
        "widen": jax.random.normal(keys[1], (features, bins)) / features**0.5,
        "bias": jnp.zeros(bins),
    }


def loss_of(parameters: Parameters, batch: jax.Array) -> jax.Array:
    """Squared error as a share of the mixture's energy, of a batch (batch, target, channel, frame, frequency)."""
    mixture, vocals = batch[:, 0], batch[:, 1]
    hidden = jax.nn.relu(mixture @ parameters["narrow"])
    mask = jax.nn.sigmoid(hidden @ parameters["widen"] + parameters["bias"])
    return jnp.sum((mask * mixture - vocals) ** 2) / jnp.sum(mixture**2)


@jax.jit
def step(parameters: Parameters, batch: jax.Array, rate: float = 30.0) -> tuple[Parameters, jax.Array]:
    """One step down the gradient."""
    loss, gradients = jax.value_and_grad(loss_of)(parameters, batch)
    return jax.tree.map(lambda value, gradient: value - rate * gradient, parameters, gradients), loss


def batches(excerpts: norbert_store.Excerpts, epochs: int) -> grain.IterDataset:
    """Batches in the order of the excerpts' numbers.

    Grain batches nothing but numbers. Batches are read whole, up to four ahead, while the net learns; each on all
    processors, so that one thread is enough here. ``mp_prefetch`` would read them in other processes.
    """
    numbers = grain.MapDataset.range(epochs * len(excerpts))  # [rank::world] for one of several machines
    read = numbers.batch(BATCH, drop_remainder=True).map(excerpts.read)
    return read.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=4))


def main(store: Path, epochs: int = 3) -> None:
    db = norbert_store.open(store, split="train")
    excerpts = db.excerpts(seconds=3.0, targets=("mixture", "vocals"), values=loudness, per_epoch=10 * BATCH, seed=0)
    parameters = start_parameters(excerpts.shape[-1])
    started = time.perf_counter()
    losses = []
    for batch in batches(excerpts, epochs):
        parameters, loss = step(parameters, jnp.asarray(batch["magnitude"]))
        losses.append(loss.item())
    seconds = time.perf_counter() - started
    print(f"JAX {jax.__version__}: {len(losses)} batches of {(BATCH, *excerpts.shape)} in {seconds:.1f} s")
    means = np.mean(np.split(np.array(losses), epochs), axis=1)
    print("mean loss of the epochs:", *(f"{mean:.4f}" for mean in means))
    assert means[-1] < means[0], "the net didn't learn"


if __name__ == "__main__":
    demo = Path("norbert-store-demo")
    if len(sys.argv) == 1 and not demo.exists():
        subprocess.run(["norbert-store", "demo", demo], check=True)
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else demo / "musdb.zarr")
