"""Train a small separation net with PyTorch: a mask for the vocals, from the mixture.

    pip install 'norbert_store[torch]'
    python examples/train_torch.py [STORE]

Without STORE, the one that `norbert-store demo` makes is taken, and made where it isn't there yet.

The net looks at about a second of the mixture, in both channels, and gives a mask: what of the mixture is vocals, for
each channel, frame and frequency.
"""

from __future__ import annotations

import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import norbert_store

try:
    import torch
    from torch import Tensor, nn
    from torch.utils.data import DataLoader
except ModuleNotFoundError:
    print("needs PyTorch: pip install 'norbert_store[torch]'")
    sys.exit()

TARGETS = ("mixture", "vocals")
BATCH = 16


def loudness(magnitude: np.ndarray) -> np.ndarray:
    """What the net sees and gives, about as loud as it sounds; evaluated once, on the 256 levels."""
    return magnitude**0.35


def to_tensor(excerpts: norbert_store.Excerpts, items: list[dict[str, Any]]) -> Tensor:
    """Make a tensor (batch, target, channel, frame, frequency) of the batch's own memory, which wasn't copied yet."""
    return torch.from_numpy(excerpts.collate(items)["magnitude"])


class Net(nn.Module):
    """Mask (batch, channel, frame, frequency) from 0 to 1 of a mixture of the same shape.

    Parameters
    ----------
    channels : int
    mean, deviation : ndarray
        Of the mixture, (frequency,).
    features : int
        Of a frame.
    """

    def __init__(self, channels: int, mean: np.ndarray, deviation: np.ndarray, features: int = 64) -> None:
        super().__init__()
        self.register_buffer("mean", torch.as_tensor(mean, dtype=torch.float32))
        self.register_buffer("scale", torch.as_tensor(1 / (deviation + 0.01), dtype=torch.float32))
        self.layers = nn.Sequential(
            nn.Conv1d(channels * len(mean), features, kernel_size=1),
            nn.ReLU(),
            nn.Conv1d(features, features, kernel_size=9, padding="same"),  # 0.2 seconds
            nn.ReLU(),
            nn.Conv1d(features, features, kernel_size=9, padding="same", dilation=4),  # 0.8 seconds
            nn.ReLU(),
            nn.Conv1d(features, channels * len(mean), kernel_size=1),
            nn.Sigmoid(),
        )

    def forward(self, mixture: Tensor) -> Tensor:
        """Compute the mask."""
        batch, channels, frames, bins = mixture.shape
        normal = (mixture - self.mean) * self.scale
        mask = self.layers(normal.transpose(2, 3).flatten(1, 2))  # (batch, channel and frequency, frame)
        return mask.view(batch, channels, bins, frames).transpose(2, 3)


def loss_of(estimate: Tensor, vocals: Tensor) -> Tensor:
    """Mean squared error of loudness."""
    return nn.functional.mse_loss(estimate, vocals)


def train(db: norbert_store.Store, epochs: int = 4) -> tuple[Net, list[float]]:
    """Train on random excerpts of 2 seconds; return the net and the loss of every step."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    statistics = db.statistics(values=loudness).sel(target="mixture")
    net = Net(len(db.channels), statistics["mean"].values, statistics["std"].values).to(device)
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)

    excerpts = db.excerpts(seconds=2.0, targets=TARGETS, values=loudness, per_epoch=15 * BATCH, seed=0)
    sampler = excerpts.sampler()  # one of several machines takes excerpts.sampler(rank=rank, world_size=world)

    def loader(workers: int) -> DataLoader[Tensor]:
        return DataLoader(
            excerpts,
            batch_size=BATCH,
            sampler=sampler,
            collate_fn=partial(to_tensor, excerpts),
            num_workers=workers,
            multiprocessing_context="spawn" if workers else None,  # safe beside threads, on every system
            persistent_workers=workers > 0,
        )

    # Without workers, a batch is read on all processors, and then the net learns. Each worker reads on one processor,
    # while the net learns. Either way the excerpts are the same.
    loaders = [loader(0), loader(2)]
    losses: list[float] = []
    for epoch in range(epochs):
        batches = loaders[epoch % 2]
        sampler.set_epoch(epoch)
        started = time.perf_counter()
        for batch in batches:
            mixture, vocals = batch.to(device).unbind(dim=1)
            loss = loss_of(net(mixture) * mixture, vocals)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        seconds = time.perf_counter() - started
        mean = np.mean(losses[-len(batches) :])
        print(f"epoch {epoch}, {batches.num_workers} workers: {len(batches)} batches, {seconds:.1f} s, loss {mean:.5f}")
    return net, losses


@torch.no_grad()
def evaluate(net: Net, db: norbert_store.Store) -> tuple[float, float]:
    """Loss over whole tracks, mean over frames: of the net's estimate, and of the mixture as it is."""
    device = next(net.parameters()).device
    losses = []
    for track in db:
        magnitude = track.magnitude.sel(target=list(TARGETS)).values
        mixture, vocals = torch.from_numpy(loudness(magnitude)).to(device).unsqueeze(dim=1)
        losses.append([loss_of(estimate, vocals).item() for estimate in (net(mixture) * mixture, mixture)])
    of_net, of_mixture = np.average(losses, axis=0, weights=[track.frames for track in db])
    return of_net, of_mixture


def main(store: Path) -> None:
    torch.manual_seed(0)
    db = norbert_store.open(store)
    net, losses = train(db.select(split="train"))
    first, last = losses[0], float(np.mean(losses[-10:]))
    print(f"loss of the first step {first:.5f}, of the last ten {last:.5f}: {last / first:.0%}")
    of_net, of_mixture = evaluate(net, db.select(split="test"))
    print(f"on the test split, which the net never saw: {of_net:.5f}; of the mixture as it is: {of_mixture:.5f}")
    assert last < first / 2, "the net didn't learn"


if __name__ == "__main__":
    demo = Path("norbert-store-demo")
    if len(sys.argv) == 1 and not demo.exists():
        subprocess.run(["norbert-store", "demo", demo], check=True)
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else demo / "musdb.zarr")
