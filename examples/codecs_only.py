"""The codecs without our store: anyone's array of magnitudes, through zarr 2, zarr 3 and xarray.

A mel spectrogram (frames, 128 bands) is written in several ways and read back by a fresh Python process that never
imports norbert_store: the codecs are found by their entry points, so norbert_store only has to be installed there.

    python examples/codecs_only.py
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import xarray
import zarr

from norbert_store import TF
from norbert_store.codecs import Jpeg, Quantize, ZarrJpeg, ZarrQuantize, encoding

RATE = 22050
N_FFT = 2048
HOP = 512
BANDS = 128
CHUNKS = (256, BANDS)

READ_ZARR = """
import sys
import numpy, zarr
assert "norbert_store" not in sys.modules
numpy.save(sys.argv[2], zarr.open_array(sys.argv[1], mode="r")[...])
"""

READ_XARRAY = """
import sys
import numpy, xarray
assert "norbert_store" not in sys.modules
dataset = xarray.open_zarr(sys.argv[1], consolidated=False, chunks=None)
numpy.save(sys.argv[2], dataset["mel"].values)
"""


def chirp_mel() -> np.ndarray:
    """Mel spectrogram of a rising tone and a little noise, as float32 (frames, bands)."""
    seconds = np.arange(20 * RATE) / RATE
    chirp = np.sin(2 * np.pi * (100 * seconds + 150 * seconds**2)) * (0.6 + 0.4 * np.sin(2 * np.pi * seconds))
    audio = 0.5 * chirp + 0.01 * np.random.default_rng(0).standard_normal(len(seconds))
    magnitude = np.abs(TF(rate=RATE, n_fft=N_FFT, hop=HOP).transform(audio))[:, :, 0]
    return np.asarray(magnitude @ mel_triangles().T, dtype=np.float32)


def mel_triangles() -> np.ndarray:
    """Weights (bands, bins), evenly spaced on the mel scale, the sum of each band 1."""
    mel = 2595 * np.log10(1 + np.arange(N_FFT // 2 + 1) * RATE / N_FFT / 700)
    edges = np.linspace(0, mel[-1], BANDS + 2)
    triangles = np.stack([np.interp(mel, edges[i : i + 3], [0, 1, 0]) for i in range(BANDS)])
    return triangles / np.maximum(triangles.sum(axis=1, keepdims=True), 1e-12)


def write_zarr_2(path: Path, mel: np.ndarray, compressor: numcodecs.abc.Codec) -> None:
    """Write an array of zarr format 2: a filter, and the picture as its compressor."""
    array = zarr.create_array(
        path,
        shape=mel.shape,
        chunks=CHUNKS,
        dtype="float32",
        zarr_format=2,
        fill_value=0,  # fills up the last chunk; NaN, which is no magnitude, would be refused
        filters=[Quantize(reference=float(mel.max()))],
        compressors=compressor,
    )
    array[...] = mel


def write_zarr_3(path: Path, mel: np.ndarray) -> None:
    """Write an array of zarr format 3: a serializer that makes levels and a JPEG of magnitudes of any size."""
    array = zarr.create_array(
        path,
        shape=mel.shape,
        chunks=CHUNKS,
        dtype="float32",
        zarr_format=3,
        fill_value=np.nan,  # fills up the last chunk, and is left out of its JPEG
        serializer=ZarrJpeg(filter="power"),
        compressors=None,  # a JPEG doesn't get smaller
    )
    array[...] = mel


def write_other_picture(path: Path, mel: np.ndarray, serializer: Any) -> None:
    """Write an array of zarr format 3: the filter alone, and a picture of another kind as its serializer."""
    array = zarr.create_array(
        path,
        shape=mel.shape,
        chunks=CHUNKS,
        dtype="float32",
        zarr_format=3,
        fill_value=0,
        filters=[ZarrQuantize(reference=float(mel.max()))],
        serializer=serializer,
        compressors=None,
    )
    array[...] = mel


def write_xarray(path: Path, mel: np.ndarray, zarr_format: int) -> None:
    """Write a data set with labelled axes; what differs between the formats is the encoding's names."""
    how = encoding(CHUNKS)
    if zarr_format == 2:
        # xarray would read a _FillValue of 0 as missing data: give none, and zarr fills up with 0
        filters = [Quantize(reference=float(mel.max()))]
        how = {"chunks": CHUNKS, "filters": filters, "compressors": Jpeg(), "_FillValue": None}
    time = np.arange(len(mel)) * HOP / RATE
    dataset = xarray.Dataset({"mel": (("time", "band"), mel)}, {"time": time})
    dataset.to_zarr(path, zarr_format=zarr_format, consolidated=False, encoding={"mel": how})


def read_elsewhere(code: str, path: Path) -> np.ndarray:
    """Read in a fresh process, whose code doesn't import norbert_store."""
    assert "import norbert_store" not in code
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "mel.npy"
        subprocess.run([sys.executable, "-c", code, path, out], check=True)
        return np.load(out)


def report(name: str, path: Path, mel: np.ndarray, code: str = READ_ZARR) -> None:
    """Print the size of what lies at a path, and how far what is read from it is from the original."""
    # a data set has other small arrays too; count the magnitudes alone
    folder = path / "mel" if (path / "mel").exists() else path
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    error = np.abs(read_elsewhere(code, path) - mel).max() / mel.max()
    print(f"{name:<42} {size:>9,} bytes {size / mel.nbytes:>7.1%}   largest error {error:.3f} of the maximum")


def installed(group: str, name: str) -> bool:
    """Tell whether some package registers a codec of that name."""
    return bool(entry_points(group=group, name=name))


def main() -> None:
    """Write in all ways, read elsewhere, and compare."""
    mel = chirp_mel()
    print(f"{'float32, raw':<42} {mel.nbytes:>9,} bytes {1:>7.1%}   {mel.shape[0]} frames x {mel.shape[1]} bands")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        write_zarr_2(folder / "2.zarr", mel, Jpeg())
        report("zarr 2: Quantize, Jpeg", folder / "2.zarr", mel)
        write_zarr_3(folder / "3.zarr", mel)
        report("zarr 3: ZarrJpeg with a filter", folder / "3.zarr", mel)
        for zarr_format in (2, 3):
            path = folder / f"xarray-{zarr_format}.zarr"
            write_xarray(path, mel, zarr_format)
            report(f"xarray, zarr {zarr_format}: the same", path, mel, READ_XARRAY)

        # Any other codec of uint8 may stand in the JPEG's place, for example the image codecs of imagecodecs. The
        # error that is left is that of the 256 levels, for both of these are lossless.
        others = {"png": {}, "jpegxl": {"lossless": True}}
        for codec, configuration in others.items():
            codec_id = f"imagecodecs_{codec}"
            path = folder / f"{codec}-2.zarr"
            if installed("numcodecs.codecs", codec_id):
                write_zarr_2(path, mel, numcodecs.get_codec({"id": codec_id, **configuration}))
                report(f"zarr 2: Quantize, {codec_id}", path, mel)
            else:
                print(f"zarr 2: {codec_id} is skipped; it needs: pip install imagecodecs-numcodecs")
            path = folder / f"{codec}-3.zarr"
            if installed("zarr.codecs", codec_id):
                write_other_picture(path, mel, {"name": codec_id, "configuration": configuration})
                report(f"zarr 3: ZarrQuantize, {codec_id}", path, mel)
            else:
                print(f"zarr 3: {codec_id} is skipped; it needs Python 3.12 and: pip install imagecodecs-zarr")


if __name__ == "__main__":
    main()
