"""Make tests/data/golden: encoded bytes, and what they decode to, that every later version must decode the same.

Run once, for format 1.0. Encoders may get better and would then make other bytes, so what lies there is never made
again: this script refuses to write over it. A new version of the format gets a folder of its own.

    python tests/data/make_golden.py
"""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import zarr

from norbert_store._jpeg.encoder import encode, quantisation_table
from norbert_store._jpeg.layout import read_header, segments_of, write
from norbert_store._jpeg.stream import decode
from norbert_store._spectra.levels import LogCurve, PowerCurve, quantize, table
from norbert_store.codecs import Jpeg, Quantize, ZarrJpeg, ZarrQuantize

GOLDEN = Path(__file__).parent / "golden"


def music() -> np.ndarray:
    """Magnitudes (frames, bins) of a falling tone with overtones that dies away; neither side is a multiple of 8."""
    frame, bin_ = np.mgrid[:52, :37].astype(np.float64)
    tones = sum(np.exp(-((bin_ - (12 - frame / 10) * k) ** 2) / 2) / k for k in (1, 2, 3))
    return (0.4 * np.exp(-frame / 15) * tones).astype(np.float32)


def with_four_byte_lengths(data: bytes) -> bytes:
    """Write the table of segments as only an image of long segments has it."""
    segments = read_header(data).segments
    start = data.index(b"norbert\0") - 4
    end = start + 2 + int.from_bytes(data[start + 2 : start + 4], "big")
    content = b"norbert\0" + struct.pack(f">Bh{len(segments)}I", 4, 0, *segments)
    return data[:start] + struct.pack(">BBH", 0xFF, 0xE9, len(content) + 2) + content + data[end:]


def some_rows_of_blocks(data: bytes, first: int) -> bytes:
    """Write the image's rows of blocks from one on as a file of their own."""
    header = read_header(data)
    rows, columns = header.shape
    segments = segments_of(data, header)[first:]
    return write(rows - 8 * first, columns, quantisation_table(80), header.huffman, segments)


def jpegs() -> dict[str, bytes]:
    """Return JPEGs of several kinds, by name."""
    levels = quantize(music(), PowerCurve())
    noise = np.random.default_rng(0).integers(0, 256, (20, 37), np.uint8)
    whole = encode(levels, quantisation_table(80))
    return {
        "music": whole,
        "music-cut": some_rows_of_blocks(whole, 2),
        "noise": encode(noise, quantisation_table(100)),
        "scaled": encode(levels, quantisation_table(80), scale=-20),
        "silence": encode(np.zeros((24, 16), np.uint8), quantisation_table(80)),
        "pixel": encode(np.full((1, 1), 200, np.uint8), quantisation_table(80)),
        "four-byte-lengths": with_four_byte_lengths(whole),
    }


def main() -> None:
    """Write everything."""
    GOLDEN.mkdir()
    for name, data in jpegs().items():
        (GOLDEN / f"{name}.jpg").write_bytes(data)
        np.save(GOLDEN / f"{name}.npy", decode(data))
    for curve, scale in ((PowerCurve(exponent=0.4), 1), (LogCurve(range_decibel=70.0), -100)):
        content = {"curve": curve.config, "scale": scale}
        (GOLDEN / f"{curve.name}.json").write_text(json.dumps(content, indent=2) + "\n")
        np.save(GOLDEN / f"{curve.name}.npy", table(curve, scale))
    arrays = {
        "array-v2": {"filters": [Quantize()], "compressors": [Jpeg()], "zarr_format": 2, "fill_value": 0},
        "array-v3": {"filters": [ZarrQuantize()], "serializer": ZarrJpeg(), "compressors": [], "fill_value": 0},
        "array-v3-filter": {"serializer": ZarrJpeg(filter="power"), "compressors": [], "fill_value": np.nan},
    }
    for name, how in arrays.items():
        array = zarr.create_array(GOLDEN / f"{name}.zarr", data=music(), chunks=(16, 30), **how)
        np.save(GOLDEN / f"{name}.npy", array[...])


if __name__ == "__main__":
    main()
