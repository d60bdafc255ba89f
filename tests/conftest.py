"""Stores that tests share: written once, only read; whoever changes one takes a copy."""

from __future__ import annotations

import io
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, settings
from PIL import Image

import norbert_store
from norbert_store import TF
from norbert_store._format.document import Document
from norbert_store._jpeg.encoder import quantisation_table
from norbert_store._spectra.bins import StoredTransform
from norbert_store._spectra.levels import HIGHEST
from norbert_store._spectra.stft import StftStream
from norbert_store._storage.folder import LocalKeys
from norbert_store._storage.storage import Storage
from tests.servers import Proxy, proxy, s3_server

# Other examples in every run, and no test fails because a machine is busy. What fails is kept in .hypothesis and tried
# first from then on; with "ci" it is printed instead, and who starts the run chooses its seed.
settings.register_profile(
    "norbert_store", deadline=None, derandomize=False, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("ci", settings.get_profile("norbert_store"), database=None, print_blob=True)
settings.load_profile("norbert_store")

RATE = 8000


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let everything be tried of what is otherwise drawn at random."""
    text = "try all mixed states, writers that are cut off or late and hostile stores, not some drawn at random"
    parser.addoption("--all-states", action="store_true", help=text)


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Share the whole suite out among the processors; files and tests that are named start sooner in this process."""
    whole = config.args_source is pytest.Config.ArgsSource.TESTPATHS
    return min(os.cpu_count() or 1, 8) if whole else 0


class Made(NamedTuple):
    """A store, and what was written into it."""

    path: Path
    audio: dict[str, dict[str, Any]]
    db: norbert_store.Store


def make_music(samples: int, seed: int) -> dict[str, np.ndarray]:
    """A mixture and its two stems, in steps of 16 bits, so that files hold them exactly."""
    rng = np.random.default_rng(seed)
    seconds = np.arange(samples)[:, np.newaxis] / RATE
    sung = 0.25 * np.sin(2 * np.pi * (200 + 30 * seed + np.array([0, 7])) * seconds + seconds**2)
    struck = rng.uniform(-0.5, 0.5, (samples, 2)) * np.exp(-20 * (seconds % 0.2))
    stems = {"vocals": sung, "drums": struck}
    stems = {target: (np.rint(stem * 32768) / 32768).astype(np.float32) for target, stem in stems.items()}
    return {"mixture": stems["vocals"] + stems["drums"], **stems}


def small_options(**options: Any) -> dict[str, Any]:
    """What `norbert_store.create` takes for stores of tests: 113 bins, 16 frames a chunk, 4 chunks a shard.

    The plain encoder takes no time, and the table bounds its errors.
    """
    return {
        "targets": ("mixture", "vocals", "drums"),
        "transform": TF(rate=RATE, n_fft=256),
        "bandwidth": 3500,
        "chunk_frames": 16,
        "shard_chunks": 4,
        "effort": 0,
        **options,
    }


@pytest.fixture(scope="session")
def music():
    return make_music


@pytest.fixture(scope="session")
def options():
    return small_options


@pytest.fixture(scope="session")
def small(tmp_path_factory) -> Made:
    """Four tracks in two splits, one without vocals, one with silent drums and equal channels; and their WAV files."""
    folder = tmp_path_factory.mktemp("small")
    audio: dict[str, dict[str, Any]] = {
        "Ann - Long": make_music(25600, 1),
        "Bob - Short": {**make_music(2000, 2), "vocals": None},
        "Žofie – Ticho": make_music(7200, 3),
        "one sample": make_music(1, 4),
    }
    quiet = audio["Žofie – Ticho"]
    quiet["drums"] = np.zeros_like(quiet["drums"])
    quiet["vocals"][:, 1] = quiet["vocals"][:, 0]
    labels: list[dict[str, Any]] = [
        {"genre": "Rock", "year": 1969, "live": True, "tempo": 120.5},
        {"genre": "Jazz", "year": 1959, "live": False},
        {"genre": "Rock", "year": 2001, "live": False, "tempo": 61.0},
        {"year": -1, "live": True},
    ]
    path = folder / "small.zarr"
    with norbert_store.create(path, **small_options(title="Small", citation="Nobody, 2020")) as writer:
        for i, (name, stems) in enumerate(audio.items()):
            (folder / "audio" / str(i)).mkdir(parents=True)
            for target, stem in stems.items():
                if stem is not None:
                    soundfile.write(folder / "audio" / str(i) / f"{target}.wav", stem, RATE)
            writer.add(
                name,
                stems,
                split="train" if i < 2 else "test",
                source=f"audio/{i}",
                metadata={"position": i, "tags": ["a", None, {"ü": 1.5}]},
                labels=labels[i],
            )
    return Made(path, audio, norbert_store.open(path))


@pytest.fixture(scope="session")
def db(small) -> norbert_store.Store:
    return small.db


@pytest.fixture
def small_copy(small, tmp_path) -> Path:
    """A copy of the small store, to break."""
    return shutil.copytree(small.path, tmp_path / "copy.zarr")


@pytest.fixture(scope="session")
def bundled(tmp_path_factory) -> Made:
    """Two bundles, of 3 tracks and of 2, that share shards and cross their borders."""
    path = tmp_path_factory.mktemp("bundled") / "bundled.zarr"
    audio = {f"clip {i}": make_music(samples, i) for i, samples in enumerate((2400, 8800, 3700, 900, 8400))}
    with norbert_store.create(path, **small_options(bundle_tracks=3)) as writer:
        for name, stems in audio.items():
            writer.add(name, stems)
    return Made(path, audio, norbert_store.open(path))


@pytest.fixture(scope="session")
def mel(tmp_path_factory) -> Made:
    path = tmp_path_factory.mktemp("mel") / "mel.zarr"
    audio = {"Mel": make_music(9000, 5)}
    transform = norbert_store.Mel(n_mels=24, rate=RATE, n_fft=512)
    with norbert_store.create(path, **small_options(transform=transform, bandwidth=4000)) as writer:
        writer.add("Mel", audio["Mel"])
    return Made(path, audio, norbert_store.open(path))


@pytest.fixture(scope="session")
def ready(tmp_path_factory) -> Made:
    """Magnitudes that were computed elsewhere, up to 4; what stands for the audio are the magnitudes."""
    path = tmp_path_factory.mktemp("ready") / "ready.zarr"
    rng = np.random.default_rng(6)
    magnitude = {"one": rng.uniform(0, 4, (2, 75, 30)).astype(np.float32), "two": None}
    transform = norbert_store.ReadyBins("cqt", RATE, 100, 55 * 2 ** (np.arange(30) / 6), {"bins_per_octave": 6})
    options = {"targets": ("one", "two"), "transform": transform, "quality": 100}
    with norbert_store.create(path, **small_options(**options)) as writer:
        writer.add_magnitudes("Ready", magnitude, samples=7500)
    return Made(path, {"Ready": magnitude}, norbert_store.open(path))


@pytest.fixture(scope="session", params=["small", "bundled", "mel", "ready"])
def made(request) -> Made:
    """Each of the shared stores."""
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="session")
def pillow_levels():
    """What Pillow, that knows nothing of this library, sees in the JPEGs of a track: (channels, frames, bins)."""

    def levels(track: norbert_store.Track, target: str) -> np.ndarray:
        chunk_frames = 16
        chunks = -(-track.frames // chunk_frames)
        channels = [
            np.concatenate(
                [np.asarray(Image.open(io.BytesIO(track.jpeg(target, channel, chunk)))) for chunk in range(chunks)]
            )
            for channel in range(2)
        ]
        return np.stack(channels)[:, : track.frames]

    return levels


@pytest.fixture(scope="session")
def magnitude_of():
    """What is encoded of audio (samples, channels): (channels, frames, bins)."""

    def magnitude(audio: np.ndarray, transform: StoredTransform) -> np.ndarray:
        stream = StftStream(transform.stft, audio.shape[1], np.float32, 16)
        blocks = [transform.reduce(np.abs(spectrum)) for spectrum in (*stream.push(audio), *stream.finish())]
        return np.moveaxis(np.concatenate(blocks), 1, 0)

    return magnitude


@pytest.fixture(scope="session")
def codec_error():
    """How far levels lie from those of the magnitudes that were encoded, as a share of what the codec may err."""

    def error(levels: np.ndarray, magnitude: np.ndarray, document: Document, scale: int = 0) -> float:
        exact = HIGHEST * document.layout.curve.compress(magnitude.astype(np.float64) / 2.0**scale)
        rows, columns = (-size % 8 for size in exact.shape[-2:])
        squares = np.pad((levels - exact) ** 2, ((0, 0), (0, rows), (0, columns)))
        blocks = squares.reshape(len(squares), squares.shape[1] // 8, 8, -1, 8).mean(axis=(2, 4))
        # A coefficient errs by half its step at most, and the cosine transform keeps energies. Three roundings, to
        # levels, of the transform and of its inverse, come on top.
        steps = quantisation_table(document.encoder["quality"]).astype(np.float64)
        return float(np.sqrt(blocks.max()) / (np.sqrt((steps**2).mean()) / 2 + 1.5))

    return error


@pytest.fixture(scope="session")
def shards():
    """All shards of a store, bytes by key."""

    def shards_of(location: Any) -> dict[str, bytes]:
        storage = Storage(location)
        return {key: storage.get(key) or b"" for key in storage.list("magnitude/c")}

    return shards_of


@pytest.fixture
def local_reads(monkeypatch) -> Counter[str]:
    """How often each key of a folder was read, from now on."""
    seen: Counter[str] = Counter()
    read = LocalKeys.get

    def counted(self: LocalKeys, key: str, *arguments: Any, **options: Any) -> Any:
        seen[key] += 1
        return read(self, key, *arguments, **options)

    monkeypatch.setattr(LocalKeys, "get", counted)
    return seen


@pytest.fixture(scope="session")
def front() -> Iterator[Proxy]:
    """The proxy in front of an S3 server; URLs lead to it.

    There is one for all tests: s3fs remembers where it has found its server.
    """
    with s3_server() as s3, proxy(s3.endpoint) as made, pytest.MonkeyPatch.context() as patch:
        for name, value in s3.behind(made).environment.items():
            patch.setenv(name, value)
        yield made
