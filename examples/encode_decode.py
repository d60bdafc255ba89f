"""The chain, step by step: a track becomes one JPEG, and comes back with the phase of the original.

    python examples/encode_decode.py [AUDIO [FOLDER]]

The picture and the reconstruction are written to FOLDER; without it, a temporary one is made, and stays. Without AUDIO,
a mixture of the data set that `norbert-store demo` makes is taken; that is made where it isn't there yet.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import soundfile as sf

import norbert_store as norbert


def encode_decode(audio_file: Path) -> tuple[float, dict[str, float], np.ndarray]:
    # fmt: off
    audio, rate = sf.read(audio_file)

    # set up modules
    tf = norbert.TF()
    bw = norbert.BandwidthLimiter(bandwidth=16000)
    ls = norbert.LogScaler()
    qt = norbert.Quantizer()
    im = norbert.Coder(format='jpg', quality=75)

    # forward path
    Xc = tf.transform(audio)            # complex spectrogram
    Xl = bw.downsample(Xc)              # limit spectrogram to 16 kHz
    Xs = ls.scale(Xl)                   # log scale
    Xq = qt.quantize(Xs)                # quantize to 8 bit
    im.encode(Xq, "quantized_image.jpg")

    # inverse path
    Xm_hat, _ = im.decode("quantized_image.jpg")
    Xm_hat = qt.dequantize(Xm_hat)
    Xm_hat = ls.unscale(Xm_hat)
    Xm_hat = bw.upsample(Xm_hat)

    # apply reconstruction using original phase
    X_hat = np.multiply(Xm_hat, np.exp(1j * np.angle(Xc)))
    audio_hat = tf.inverse_transform(X_hat)
    sf.write("reconstruction.wav", audio_hat, rate)
    # fmt: on

    # the same way back from earlier turning points, to tell what each step costs
    def snr(magnitude: np.ndarray) -> float:
        reconstruction = tf.inverse_transform(np.multiply(bw.upsample(magnitude), np.exp(1j * np.angle(Xc))))
        reference = audio.reshape(reconstruction.shape)  # one channel comes back as a column
        return float(10 * np.log10(np.sum(reference**2) / np.sum((reference - reconstruction) ** 2)))

    # TF() takes 44,100 Hz for granted, so at another rate 16 kHz means another frequency
    report = {
        f"band limit, {16 * rate / tf.rate:.3g} kHz": snr(np.abs(Xl)),
        "... and log scale, 80 dB": snr(ls.unscale(Xs)),
        "... and 8 bits": snr(ls.unscale(qt.dequantize(Xq))),
        "... and JPEG: the reconstruction": snr(bw.downsample(Xm_hat)),
    }
    return len(audio) / rate, report, Xm_hat


def magnitude_from(picture: Path) -> tuple[list[Any], np.ndarray]:
    """All that another process needs is the picture: its metadata tells the steps that led to it."""
    levels, metadata = norbert.Coder().decode(picture)
    chain: list[Any] = norbert.Coder.modules(metadata)
    _, bw, ls, qt = chain
    return chain, bw.upsample(ls.unscale(qt.dequantize(levels)))


def main(audio_file: Path, folder: Path) -> None:
    with contextlib.chdir(folder):
        seconds, report, magnitude = encode_decode(audio_file)
    picture = folder / "quantized_image.jpg"
    size = picture.stat().st_size / 1000
    print(f"{seconds:.1f} s of audio in a picture of {size:.1f} kB: {size / seconds:.1f} kB/s")
    print(f"look at {picture}\nlisten to {folder / 'reconstruction.wav'}\n")

    print("signal-to-noise ratio, with the original's phase, after")
    for step, decibel in report.items():
        print(f"  {step:<33}{decibel:6.1f} dB")
    *_, without_jpeg, with_jpeg = report.values()
    print(f"  {1 - 10 ** ((with_jpeg - without_jpeg) / 10):.0%} of the error's energy is JPEG's\n")

    with ProcessPoolExecutor(1, get_context("spawn")) as another_process:
        chain, its_magnitude = another_process.submit(magnitude_from, picture).result()
    print("another process reads in the picture's metadata how it was made:")
    for module in chain:
        print(f"  {module}")
    print(f"and inverts it to {'the same' if np.array_equal(magnitude, its_magnitude) else 'other'} magnitudes")


if __name__ == "__main__":
    folder = Path(sys.argv[2] if len(sys.argv) > 2 else tempfile.mkdtemp()).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    demo = Path("norbert-store-demo")
    if len(sys.argv) == 1 and not demo.exists():
        subprocess.run(["norbert-store", "demo", demo], check=True)
    audio_file = Path(sys.argv[1]) if len(sys.argv) > 1 else min(demo.glob("musdb/train/*/mixture.wav"))
    main(audio_file.resolve(), folder)
