"""How values are distributed, for each target and frequency: what networks are normalised by.

Levels are counted once, and the counts kept beside the store; the mean and deviation of any function of a value follow
from them.
"""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

import google_crc32c
import numpy as np
import xarray
from numpy.typing import NDArray

from norbert_store.threads import for_each
from norbert_store.values import Function, Values, values_of

if TYPE_CHECKING:
    from norbert_store.store import Store

_FRAMES_AT_A_TIME = 1024


def statistics(store: Store, values: Values | Function = "magnitude") -> xarray.Dataset:
    """Mean and standard deviation of a store's values; public as `Store.statistics`.

    Parameters
    ----------
    store : Store
    values : str or callable
        As for `norbert_store.values.values_of`.

    Returns
    -------
    xarray.Dataset
        "mean" and "deviation" (target, frequency), float64, and "frames" (target): how many were counted, of all
        channels. NaN where no track has a target.
    """
    table = values_of(values, store.table).table.astype(np.float64)
    counts = level_counts(store)
    frames = counts[:, 0].sum(axis=-1)
    with np.errstate(invalid="ignore"):
        share = counts / frames[:, np.newaxis, np.newaxis]
    mean = share @ table
    deviation = np.sqrt((share * (table - mean[..., np.newaxis]) ** 2).sum(axis=-1))
    return xarray.Dataset(
        {
            "mean": (("target", "frequency"), mean),
            "deviation": (("target", "frequency"), deviation),
            "frames": (("target",), frames),
        },
        coords={"target": list(store.targets), "frequency": store.frequencies},
    )


def level_counts(store: Store) -> NDArray[np.int64]:
    """Count levels (targets, bins, 256), or read how many there were the last time."""
    cache = _cache(store)
    if cache is not None:
        with suppress(OSError, ValueError, KeyError), np.load(cache) as file:
            return np.asarray(file["counts"], np.int64)
    counts = _count(store)
    if cache is not None:
        partial = cache.with_name(f"{cache.stem}.{secrets.token_hex(4)}.npz")
        with suppress(OSError):  # a folder that can't be written is no reason to fail
            np.savez_compressed(partial, counts=counts)
            os.replace(partial, cache)
    return counts


def _cache(store: Store) -> Path | None:
    """Where counts are kept: a file for each state of a store, and selection of its tracks."""
    folder = store._reader.storage.folder
    if folder is None:
        return None
    what = store._reader.document.checksum.encode() + store._all_rows.tobytes()
    return folder.with_name(f"{folder.name}.statistics-{google_crc32c.value(what):08x}.npz")


def _count(store: Store) -> NDArray[np.int64]:
    reader, rows = store._reader, store._all_rows
    channels = list(range(len(store.channels)))
    counts = np.zeros((len(store.targets), reader.layout.bins, 256), np.int64)
    first_count = 256 * np.arange(reader.layout.bins)
    lock = Lock()
    starts, frames, present = (reader.column(name)[rows] for name in ("start", "frames", "present"))
    pieces = [
        (target, int(row), int(start) + begin, min(_FRAMES_AT_A_TIME, int(length) - begin))
        for row, start, length, there in zip(rows, starts, frames, present, strict=True)
        for target in np.flatnonzero(there).tolist()
        for begin in range(0, int(length), _FRAMES_AT_A_TIME)
    ]

    def count(piece: tuple[int, int, int, int]) -> None:
        target, row, first, length = piece
        levels = reader.levels([target], channels, np.arange(first, first + length), slice(None), row)
        places = (levels.reshape(-1, reader.layout.bins) + first_count).ravel()
        found = np.bincount(places, minlength=counts[0].size).reshape(counts[0].shape)
        with lock:
            counts[target] += found

    for_each(count, pieces)
    return counts
