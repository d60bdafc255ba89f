"""The contestants of `quality.py`: ways to store magnitudes, each with a setting that trades bytes for quality.

Conventions: magnitudes are (frames, bins, channels); a contestant returns the bytes that it needs and the magnitudes
that come back. What knows chunks is given those of the store, 256 frames of one channel, so that all can be read in
pieces; Norbert and audio codecs take the whole track.
"""

from __future__ import annotations

import inspect
import io
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import soundfile
from numpy.typing import NDArray
from PIL import Image

import norbert_store
from norbert_store import LogScaler, PowerCurve, Quantizer
from norbert_store.quality import Original, through_store

CHUNK_FRAMES = 256
ZSTD_LEVEL = 19
LILCOM_FLOOR = 1e-6
CURVE = PowerCurve()

Array = NDArray[Any]
Stored = tuple[int, Array]


@dataclass(frozen=True)
class Contestant:
    """A way to store magnitudes.

    Attributes
    ----------
    store : callable
        From an original and a setting to bytes and magnitudes.
    settings : tuple of float
        From few bytes to many.
    unit : str
        What the settings are.
    needs : str
        Name of a package or program; empty if this library's own will do.
    size_only : bool
        Whether it belongs into the table of file sizes alone.
    """

    store: Callable[[Original, float], Stored]
    settings: tuple[float, ...]
    unit: str
    needs: str = ""
    size_only: bool = False

    @property
    def missing(self) -> str:
        """What it needs and isn't there."""
        there = not self.needs or find_spec(self.needs) or shutil.which(self.needs)
        return "" if there else self.needs


# ---- chunk by chunk


def chunks(values: Array) -> Iterator[tuple[slice, int, Array]]:
    """Frames, channel and values (frames, bins) of each chunk."""
    for start in range(0, len(values), CHUNK_FRAMES):
        frames = slice(start, start + CHUNK_FRAMES)
        for channel in range(values.shape[2]):
            yield frames, channel, np.ascontiguousarray(values[frames, :, channel])


def by_chunks(values: Array, encode: Callable[[Array], bytes], decode: Callable[[bytes], Array]) -> Stored:
    """Encode and decode each chunk."""
    size, out = 0, np.empty_like(values)
    for frames, channel, chunk in chunks(values):
        data = encode(chunk)
        size += len(data)
        out[frames, :, channel] = np.asarray(decode(data)).reshape(chunk.shape)
    return size, out


def levels(original: Original, highest: int = 255) -> Array:
    """The store's levels, or fewer than 256."""
    return np.rint(highest * CURVE.compress(original.magnitude)).astype(np.uint8)


def magnitudes(compressed: Array) -> Array:
    """From values that the store's curve compressed, or 255ths of them."""
    values = compressed / 255 if compressed.dtype == np.uint8 else compressed
    return CURVE.expand(np.clip(values, 0, 1)).astype(np.float32)


# ---- this library, and where it comes from


def this_store(original: Original, quality: float, **options: Any) -> Stored:
    """Quality of `norbert_store.create`."""
    return through_store(original, quality=quality, **options)


def norbert(original: Original, quality: float, as_in_2018: bool = False) -> Stored:
    """Norbert (2018): logarithm over 80 dB, 8 bits, a JPEG of the whole track with Pillow's own tables.

    Below full scale and with both channels above each other in one grey picture, as `norbert_store._chain` has it; or
    below the track's peak and with the channels as red and green, as its code of 2018 did it.
    """
    scaler, quantizer = LogScaler(reference=float(original.magnitude.max()) if as_in_2018 else 1.0), Quantizer()
    picture = np.asarray(quantizer.quantize(scaler.scale(original.magnitude))).transpose(1, 0, 2)[::-1]
    bins, _, channels = picture.shape
    if as_in_2018:
        empty = np.zeros((*picture.shape[:2], 3 - channels), np.uint8)
        size, found = pillow_jpeg(np.concatenate([picture, empty], axis=-1), quality)
        found = found[..., :channels]
    else:
        size, found = pillow_jpeg(np.concatenate(np.moveaxis(picture, 2, 0)), quality)
        found = np.moveaxis(found.reshape(channels, bins, -1), 0, 2)
    back = np.ascontiguousarray(found[::-1].transpose(1, 0, 2))
    return size, np.asarray(scaler.unscale(quantizer.dequantize(back)))


def pillow_jpeg(picture: Array, quality: float) -> Stored:
    """Through a JPEG, colours in full resolution."""
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(
        file, "JPEG", quality=int(quality), optimize=True, subsampling=0
    )
    return len(file.getvalue()), np.asarray(Image.open(file))


# ---- arrays


def exact(original: Original, _: float) -> Stored:
    """Floats of 32 bits, up to the bandwidth: what all others can reach at most."""
    return original.magnitude.nbytes, original.magnitude


def npy(original: Original, _: float, zipped: bool = False) -> Stored:
    """Doubles of all bins in a .npy, or in a zipped one."""
    file = io.BytesIO()
    save = partial(np.savez_compressed, file) if zipped else partial(np.save, file)
    save(original.full_magnitude.astype(np.float64))
    return len(file.getvalue()), original.full_magnitude


def npy_levels(original: Original, _: float) -> Stored:
    """Norbert's levels of all bins in a .npy."""
    scaler, quantizer = LogScaler(), Quantizer()
    found = quantizer.quantize(scaler.scale(original.full_magnitude))
    file = io.BytesIO()
    np.save(file, np.asarray(found))
    return len(file.getvalue()), np.asarray(scaler.unscale(quantizer.dequantize(found)))


def zstd(original: Original, bits: float) -> Stored:
    """Levels of 4 to 8 bits, without loss."""
    highest = 2 ** int(bits) - 1

    def decode(data: bytes) -> Array:
        return np.frombuffer(imagecodecs.zstd_decode(data), np.uint8)

    size, found = by_chunks(levels(original, highest), partial(imagecodecs.zstd_encode, level=ZSTD_LEVEL), decode)
    return size, magnitudes(found / highest)


def lilcom(original: Original, tick: float) -> Stored:
    """Natural logarithms in steps of ``2 ** tick``, as lhotse stores features."""
    import lilcom

    logarithms = np.log(np.maximum(original.magnitude, LILCOM_FLOOR))
    size, found = by_chunks(logarithms, partial(lilcom.compress, tick_power=int(tick)), lilcom.decompress)
    return size, np.minimum(np.exp(found), 1)


def zfp(original: Original, tolerance: float) -> Stored:
    """Compressed magnitudes with an absolute tolerance."""
    encode = partial(imagecodecs.zfp_encode, mode="a", level=tolerance)
    size, found = by_chunks(compressed(original), encode, imagecodecs.zfp_decode)
    return size, magnitudes(found)


def sz3(original: Original, tolerance: float) -> Stored:
    """Compressed magnitudes with an absolute tolerance."""
    encode = partial(imagecodecs.sz3_encode, mode="abs", abs=tolerance)
    # it tells neither shape nor type
    size, out = 0, np.empty_like(compressed(original))
    for frames, channel, chunk in chunks(compressed(original)):
        data = encode(chunk)
        size += len(data)
        out[frames, :, channel] = imagecodecs.sz3_decode(data, chunk.shape, chunk.dtype)
    return size, magnitudes(out)


def compressed(original: Original) -> Array:
    """What the store rounds to levels, 0 to 1, float32."""
    return CURVE.compress(original.magnitude).astype(np.float32)


# ---- pictures


def jpeg_xl(original: Original, distance: float) -> Stored:
    """Levels as grey JPEG XL; distance 1 is what its authors call visually lossless."""
    encode = partial(imagecodecs.jpegxl_encode, distance=distance, photometric="gray", effort=7, numthreads=1)
    size, found = by_chunks(levels(original), encode, imagecodecs.jpegxl_decode)
    return size, magnitudes(found)


def htj2k(original: Original, step: float) -> Stored:
    """Levels as lossy high-throughput JPEG 2000, quantised in steps that are a share of the whole range."""
    encode = partial(imagecodecs.htj2k_encode, level=step, reversible=False)
    size, found = by_chunks(levels(original), encode, imagecodecs.htj2k_decode)
    return size, magnitudes(found)


# ---- audio codecs


def ffmpeg(original: Original, kilobits: float, encoder: str, suffix: str) -> Stored:
    """Audio at a bit rate; the magnitudes are those of what comes back."""
    run = partial(subprocess.run, check=True, capture_output=True)
    with tempfile.TemporaryDirectory() as folder:
        before, encoded, after = (Path(folder) / name for name in ("before.wav", f"encoded.{suffix}", "after.wav"))
        soundfile.write(before, original.audio, original.rate, subtype="FLOAT")
        command = ["ffmpeg", "-nostdin", "-loglevel", "error", "-threads", "1"]
        run([*command, "-i", before, "-c:a", encoder, "-b:a", f"{kilobits:g}k", encoded])
        run([*command, "-i", encoded, "-ar", str(original.rate), "-c:a", "pcm_f32le", after])
        size, audio = encoded.stat().st_size, soundfile.read(after, dtype="float32", always_2d=True)[0]
    audio = aligned(audio, original.audio)
    return size, Original(audio, original.rate).magnitude


def aligned(audio: Array, reference: Array) -> Array:
    """Shift and cut decoded audio, so that it fits the original best."""
    length = len(reference) + len(audio)
    spectra = (np.fft.rfft(signal.mean(axis=1), length) for signal in (audio, reference))
    correlation = np.fft.irfft(next(spectra) * next(spectra).conj(), length)
    delay = int(np.argmax(correlation))
    delay -= length if delay > length // 2 else 0
    shifted = audio[delay:] if delay >= 0 else np.pad(audio, ((-delay, 0), (0, 0)))
    shifted = shifted[: len(reference)]
    return np.pad(shifted, ((0, len(reference) - len(shifted)), (0, 0)))


# ---- all of them

QUALITIES = (40.0, 50.0, 60.0, 65.0, 70.0, 75.0, 80.0, 85.0, 90.0, 95.0)
SEED_QUALITIES = (10.0, 20.0, 40.0, 60.0, 80.0, 90.0, 95.0)
TOLERANCES = (0.1, 0.05, 0.025, 0.0125, 0.006)

THIS_STORE, SEED, SEED_2018, EXACT = "this store", "Norbert", "Norbert, 2018", "exact"
DEFAULT_QUALITY: float = inspect.signature(norbert_store.create).parameters["quality"].default


def entrants(qualities: tuple[float, ...] = QUALITIES, efforts: tuple[int, ...] = ()) -> dict[str, Contestant]:
    """All contestants, by name."""
    qualities = tuple(sorted({*qualities, DEFAULT_QUALITY}))
    with_effort = {
        f"{THIS_STORE}, effort {effort}": Contestant(partial(this_store, effort=effort), qualities, "quality")
        for effort in efforts
    }
    audio = {
        "MP3": ("libmp3lame", "mp3", (48.0, 64.0, 96.0, 128.0, 192.0, 256.0, 320.0)),
        "AAC": ("aac", "m4a", (48.0, 64.0, 96.0, 128.0, 160.0, 256.0, 320.0)),
        "Opus": ("libopus", "opus", (24.0, 32.0, 48.0, 64.0, 96.0, 128.0, 192.0)),
    }
    return {
        THIS_STORE: Contestant(this_store, qualities, "quality"),
        **with_effort,
        SEED: Contestant(norbert, SEED_QUALITIES, "quality"),
        SEED_2018: Contestant(partial(norbert, as_in_2018=True), SEED_QUALITIES, "quality"),
        "zstd": Contestant(zstd, (4.0, 5.0, 6.0, 7.0, 8.0), "bits"),
        "lilcom": Contestant(lilcom, (2.0, 1.0, 0.0, -1.0, -2.0, -3.0), "tick", "lilcom"),
        "zfp": Contestant(zfp, (0.4, 0.2, *TOLERANCES[:-1]), "tolerance"),
        "SZ3": Contestant(sz3, (*TOLERANCES, 0.003), "tolerance"),
        "JPEG XL": Contestant(jpeg_xl, (8.0, 4.0, 2.0, 1.0, 0.5, 0.25), "distance"),
        "HTJ2K": Contestant(htj2k, TOLERANCES, "step"),
        **{
            name: Contestant(partial(ffmpeg, encoder=encoder, suffix=suffix), rates, "kbit/s", "ffmpeg")
            for name, (encoder, suffix, rates) in audio.items()
        },
        EXACT: Contestant(exact, (32.0,), "bits"),
        "exact, all bins": Contestant(npy, (64.0,), "bits", size_only=True),
        "exact, all bins, zipped": Contestant(partial(npy, zipped=True), (64.0,), "bits", size_only=True),
        "Norbert's levels, all bins": Contestant(npy_levels, (8.0,), "bits", size_only=True),
    }
