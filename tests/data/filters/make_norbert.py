"""What norbert 0.2.1 computes, for tests/filters/test_wiener.py; norbert itself warns on import under today's SciPy.

    pip install norbert==0.2.1 && python tests/data/filters/make_norbert.py

Writes norbert_0_2_1.npz beside this script: ``CASE/v`` and ``CASE/x`` go in, ``CASE/FUNCTION/...`` comes out. Inputs
are exact; what comes out is kept in single precision, which is a hundred times finer than the tests ask for. Made once,
with numpy 2.4.6 and scipy 1.17.1; there is no reason to make it again.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from scipy.signal import stft

ITERATIONS = (0, 1, 2, 5)


def noise(rng, *shape):
    """Complex white noise."""
    return rng.standard_normal(shape) + 1j * rng.standard_normal(shape)


def random_case(rng, channels, sources, mono=False, amplitude=1.0):
    """Sources of random direction in every bin, and magnitudes that are wrong by up to 6 dB."""
    directions = noise(rng, 4, channels, sources)
    images = amplitude * directions * noise(rng, 10, 4, 1, sources) * rng.gamma(0.3, size=(10, 4, 1, sources))
    v = abs(images) * rng.uniform(0.5, 2, images.shape)
    return (v.mean(axis=2, keepdims=True) if mono else v), images.sum(axis=-1)


def music_case():
    """Three decaying notes, panned, one in the middle with an echo, and silence at the end; STFT of 16 samples."""
    seconds = np.arange(176) / 8000
    notes = [np.sin(2 * np.pi * hertz * seconds) * np.exp(-40 * seconds) for hertz in (440, 1250, 2900)]
    pans = ((0.9, 0.3), (0.7, 0.7), (0.2, 0.95))
    images = np.stack([np.outer(note, pan) for note, pan in zip(notes, pans, strict=True)], axis=-1)
    images[40:, 0, 1] += 0.4 * images[:-40, 1, 1]
    images[120:] = 0
    _, _, spectra = stft(images, nperseg=16, axis=0)  # (bins, channels, sources, frames)
    spectra = np.moveaxis(spectra, -1, 0)
    v = abs(spectra).mean(axis=2, keepdims=True)
    return v, spectra.sum(axis=-1)


def cases():
    """Name -> v, x."""
    rng = np.random.default_rng(0)
    return {
        "mono": random_case(rng, channels=1, sources=2),
        "stereo": random_case(rng, channels=2, sources=4),
        "stereo, mono magnitudes": random_case(rng, channels=2, sources=3, mono=True),
        "stereo, one source": random_case(rng, channels=2, sources=1),
        "stereo, loud": random_case(rng, channels=2, sources=3, amplitude=1e4),
        "surround": random_case(rng, channels=4, sources=3),
        "music": music_case(),
    }


def separations(norbert, v, x):
    """FUNCTION/... -> array, of all that separates."""
    found = {"softmask": norbert.softmask(v, x), "wiener/eps": norbert.wiener(v, x.copy(), 2, eps=1e-3)}
    for iterations in ITERATIONS:
        for use_softmask in (True, False):
            found[f"wiener/{iterations}/{use_softmask}"] = norbert.wiener(v, x.copy(), iterations, use_softmask)
        if not iterations:
            continue  # norbert gives back y, and zeros
        y, psd, covariance = norbert.expectation_maximization(norbert.softmask(v, x), x, iterations)
        found |= {f"em/{iterations}/y": y, f"em/{iterations}/v": psd, f"em/{iterations}/R": covariance}
    return found


def steps(norbert, v, x):
    """FUNCTION/... -> array, of the steps and of what makes magnitudes."""
    y = norbert.softmask(v, x)
    psd, covariance = norbert.get_local_gaussian_model(y[..., 0], eps=1e-3)
    _, psds, covariances = norbert.expectation_maximization(y.copy(), x, 1)
    model = norbert.get_mix_model(psds, covariances)
    inverse = np.linalg.inv(model + 1e-3 * np.eye(x.shape[2]))
    gain = norbert.wiener_gain(psds[..., 0], covariances[..., 0], inverse)
    return {
        "model/v": psd,
        "model/R": covariance[0],  # norbert adds a first axis of 1 to what it documents
        "mix_model": model,
        "wiener_gain": gain,
        "apply_filter": norbert.apply_filter(x, gain),
        "residual_model/1": norbert.residual_model(v, x),
        "residual_model/2": norbert.residual_model(v**2, x, 2),
        "smooth/1": norbert.smooth(v),
        "smooth/3/temporal": norbert.smooth(v, 3, temporal=True),
        "reduce_interferences": norbert.reduce_interferences(v),
    }


def main():
    """Write the file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import norbert
    arrays = {}
    for case, (v, x) in cases().items():
        arrays |= {f"{case}/v": v, f"{case}/x": x}
        found = separations(norbert, v, x)
        if case == "stereo":
            found |= steps(norbert, v, x)
        for name, array in found.items():
            assert np.isfinite(array).all(), (case, name)
            arrays[f"{case}/{name}"] = array.astype(np.complex64 if np.iscomplexobj(array) else np.float32)
    np.savez_compressed(Path(__file__).with_name("norbert_0_2_1.npz"), **arrays)


if __name__ == "__main__":
    main()
