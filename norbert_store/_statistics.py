"""How values are distributed, for each target and frequency: what networks are normalised by.

Levels are counted once, and the counts kept beside the store; the mean and deviation of any function of a value follow
from them.
"""

from __future__ import annotations

import hashlib
import io
import math
import os
import secrets
import zipfile
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import xarray
from numpy.typing import NDArray

from norbert_store._read.frames import Wanted
from norbert_store._read.selection import Selection
from norbert_store._read.threads import for_each
from norbert_store._read.values import Function, Values, values_of
from norbert_store._storage.folder import LocalKeys

_FRAMES_AT_A_TIME = 1024
_HEADER_BYTES = 2**12


def statistics(selection: Selection, values: Values | Function = "magnitude") -> xarray.Dataset:
    """Mean and standard deviation of a store's values; public as `Store.statistics`.

    Parameters
    ----------
    selection : Selection
    values : str or callable
        As for `norbert_store._read.values.values_of`.

    Returns
    -------
    xarray.Dataset
        "mean" and "std" (target, frequency), float64, and "frames" (target): how many were counted, of all
        channels. NaN where no track has a target.
    """
    table = values_of(values, selection.frames).table.astype(np.float64)
    counts = level_counts(selection)
    frames = counts[:, 0].sum(axis=-1)
    with np.errstate(invalid="ignore"):
        share = counts / frames[:, np.newaxis, np.newaxis]
    mean = share @ table
    deviation = np.sqrt((share * (table - mean[..., np.newaxis]) ** 2).sum(axis=-1))
    return xarray.Dataset(
        {
            "mean": (("target", "frequency"), mean),
            "std": (("target", "frequency"), deviation),
            "frames": (("target",), frames),
        },
        coords={"target": list(selection.document.targets), "frequency": selection.transform.frequencies},
    )


def level_counts(selection: Selection) -> NDArray[np.int64]:
    """Count levels (targets, bins, 256), or read how many there were the last time."""
    shape = len(selection.document.targets), selection.document.layout.bins, 256
    cache = _cache(selection)
    if cache is None:
        return _count(selection, shape)
    state = _state(selection)
    counts = _kept(cache, state, shape)
    if counts is None:
        counts = _count(selection, shape)
        _keep(cache, state, counts)
    return counts


def _cache(selection: Selection) -> Path | None:
    """Where counts are kept: a file for each selection of a store's tracks."""
    folder = selection.snapshot.storage.folder
    if folder is None:
        return None
    folder, rows = folder.absolute(), selection.rows
    every = np.array_equal(rows, np.arange(selection.document.tracks))
    which = "" if every else f"-{hashlib.sha256(rows.tobytes()).hexdigest()[:8]}"
    return folder.with_name(f"{folder.name}.statistics{which}.npz")


def _state(selection: Selection) -> str:
    """What changes when other tracks, or other chunks of them, are there: their checksums in the document."""
    document = selection.document
    what = document.id, sorted(document.sums.items()), selection.rows.tolist()
    return hashlib.sha256(repr(what).encode()).hexdigest()


def _kept(cache: Path, state: str, shape: tuple[int, ...]) -> NDArray[np.int64] | None:
    """Read counts of this state; None if there are none. What lies beside a store may come from a stranger, too."""
    size = 8 * math.prod(shape) + _HEADER_BYTES
    # what is damaged raises what it happens to raise
    with suppress(Exception):
        data = LocalKeys(cache.parent).get(cache.name, most=size + 2 * _HEADER_BYTES) or b""
        with zipfile.ZipFile(io.BytesIO(data)) as file:
            if _array(file, "state.npy", _HEADER_BYTES) == state:
                counts = _array(file, "counts.npy", size)
                return np.asarray(counts, np.int64) if counts.shape == shape else None
    return None


def _array(file: zipfile.ZipFile, name: str, most: int) -> NDArray[Any]:
    """Read an array of at most a number of bytes; no more memory is taken, whatever the file says.

    Raises
    ------
    ValueError
        If it has more, or isn't what its header says.
    """
    with file.open(name) as member:
        data = member.read(most + 1)
    stream = io.BytesIO(data)
    np.lib.format.read_magic(stream)
    shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
    if len(data) > most or dtype.hasobject or len(data) - stream.tell() != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{name} isn't an array of at most {most} bytes")
    return np.frombuffer(data, dtype, offset=stream.tell()).reshape(shape)


def _keep(cache: Path, state: str, counts: NDArray[np.int64]) -> None:
    partial = cache.with_name(f"{cache.stem}.{secrets.token_hex(4)}.npz")
    with suppress(OSError):  # a folder that can't be written is no reason to fail
        try:
            np.savez_compressed(partial, counts=counts, state=state)
            os.replace(partial, cache)
        finally:
            partial.unlink(missing_ok=True)


def _count(selection: Selection, shape: tuple[int, int, int]) -> NDArray[np.int64]:
    frames, snapshot, rows = selection.frames, selection.snapshot, selection.rows
    channels = list(range(len(selection.document.channels)))
    counts = np.zeros(shape, np.int64)
    first_count = 256 * np.arange(snapshot.layout.bins)
    lock = Lock()
    (starts, lengths), present = snapshot.spans(rows), snapshot.column("present")[rows]
    pieces = [
        (target, int(row), int(start) + begin, min(_FRAMES_AT_A_TIME, int(length) - begin))
        for row, start, length, there in zip(rows, starts, lengths, present, strict=True)
        for target in np.flatnonzero(there).tolist()
        for begin in range(0, int(length), _FRAMES_AT_A_TIME)
    ]

    def count(piece: tuple[int, int, int, int]) -> None:
        target, row, first, length = piece
        levels = frames.levels(Wanted([target], channels, np.arange(first, first + length), row=row))
        places = (levels.reshape(-1, snapshot.layout.bins) + first_count).ravel()
        found = np.bincount(places, minlength=counts[0].size).reshape(counts[0].shape)
        with lock:
            counts[target] += found

    for_each(count, pieces)
    return counts
