"""How values are distributed, for each target and frequency: what networks are normalised by.

Levels are counted once, for each target and scale, and the counts kept beside the store; the mean and deviation of any
function of a value follow from them.
"""

from __future__ import annotations

import hashlib
import io
import math
import os
import secrets
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Sequence
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
from norbert_store.errors import NorbertStoreError

_FRAMES_AT_A_TIME = 1024
# counts in memory at a time, and in a file: of stems of all scales that there can be, they would take a gigabyte
_MOST_BYTES = 64 * 2**20

Stems = tuple[int, int]
"""All stems of a target (its position) and a scale."""

Counts = NDArray[np.int64]
"""How often each level occurs, (bins, 256), or of several stems (stems, bins, 256)."""
_HEADER_BYTES = 2**12

# what zipfile, zlib, and NumPy's reader of headers raise where bytes are damaged, or were made to mislead
_DAMAGED = (
    *(NorbertStoreError, OSError, EOFError, LookupError, RuntimeError, TypeError, ValueError, MemoryError),
    *(zipfile.BadZipFile, zlib.error, struct.error, tokenize.TokenError),
)


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

    Raises
    ------
    ValueError
        If a function isn't finite for a magnitude that occurs.
    """
    table = values_of(values, selection).table
    moments = [_Moments(selection.document.layout.bins) for _ in selection.document.targets]
    for (target, scale), counts in level_counts(selection):
        of_levels = np.where(counts.any(axis=0), table(scale).astype(np.float64), 0.0)  # of those that occur
        if not np.isfinite(of_levels).all():
            wrong = of_levels[~np.isfinite(of_levels)][0]
            raise ValueError(
                f"values must be finite for all magnitudes that occur; found {wrong} in target "
                f"{selection.document.targets[target]!r}: for a logarithm, add something small, as in "
                "numpy.log(magnitude + 1e-5)"
            )
        moments[target].add(counts, of_levels)
    return xarray.Dataset(
        {
            "mean": (("target", "frequency"), np.stack([of_target.mean for of_target in moments])),
            "std": (("target", "frequency"), np.stack([of_target.deviation for of_target in moments])),
            "frames": (("target",), [of_target.frames for of_target in moments]),
        },
        coords={"target": list(selection.document.targets), "frequency": selection.transform.frequencies},
    )


class _Moments:
    """Mean and squared deviation of what was added so far, (bins).

    References
    ----------
    T. F. Chan, G. H. Golub, R. J. LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances",
    1979, equation 2.1.
    """

    def __init__(self, bins: int) -> None:
        self.frames = 0
        self._mean = np.zeros(bins)
        self._squares = np.zeros(bins)

    def add(self, counts: Counts, table: NDArray[np.float64]) -> None:
        """Add what levels stand for, as often as each occurs."""
        frames, before = int(counts[0].sum()), self.frames
        share = counts / frames
        mean = share @ table
        squares = (share * (table - mean[:, np.newaxis]) ** 2).sum(axis=-1) * frames
        self.frames += frames
        apart = mean - self._mean
        self._mean += apart * (frames / self.frames)
        self._squares += squares + apart**2 * (before * frames / self.frames)

    @property
    def mean(self) -> NDArray[np.float64]:
        """NaN, if nothing was added."""
        return self._mean if self.frames else np.full_like(self._mean, np.nan)

    @property
    def deviation(self) -> NDArray[np.float64]:
        """NaN, if nothing was added."""
        return np.sqrt(self._squares / self.frames) if self.frames else np.full_like(self._mean, np.nan)


def level_counts(selection: Selection) -> Iterator[tuple[Stems, Counts]]:
    """Count levels (bins, 256) for each target and scale, or read how many there were the last time."""
    layout, rows = selection.document.layout, selection.rows
    scales, present = selection.column("scale"), selection.column("present")
    stems = [
        (target, scale)
        for target in range(len(selection.document.targets))
        for scale in np.unique(scales[present[:, target], target]).tolist()
    ]
    shape = layout.bins, 256
    at_a_time = max(1, _MOST_BYTES // (8 * layout.bins * 256))
    cache = _cache(selection) if len(stems) <= at_a_time else None
    state = _state(selection)
    kept = None if cache is None else _kept(cache, state, (len(stems), *shape))
    if kept is not None:
        yield from zip(stems, kept, strict=True)
        return
    for first in range(0, len(stems), at_a_time):
        some = stems[first : first + at_a_time]
        counts = _count(selection, rows, scales, some)
        if cache is not None:
            _keep(cache, state, counts)
        yield from zip(some, counts, strict=True)


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
    with suppress(*_DAMAGED):
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
    if file.getinfo(name).compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{name} is packed as no array of this package is")
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


def _count(selection: Selection, rows: NDArray[np.int64], scales: NDArray[np.int16], some: Sequence[Stems]) -> Counts:
    """Count the levels (stems, bins, 256) of some targets and scales."""
    frames, snapshot = selection.frames, selection.snapshot
    channels = list(range(len(selection.document.channels)))
    counts = np.zeros((len(some), snapshot.layout.bins, 256), np.int64)
    first_count = 256 * np.arange(snapshot.layout.bins)
    numbers = {stems: number for number, stems in enumerate(some)}
    lock = Lock()
    (starts, lengths), present = snapshot.spans(rows), snapshot.column("present")[rows]
    pieces = [
        (number, target, int(row), int(start) + begin, min(_FRAMES_AT_A_TIME, int(length) - begin))
        for row, start, length, there, scale in zip(rows, starts, lengths, present, scales.tolist(), strict=True)
        for target in np.flatnonzero(there).tolist()
        if (number := numbers.get((target, scale[target]))) is not None
        for begin in range(0, int(length), _FRAMES_AT_A_TIME)
    ]

    def count(piece: tuple[int, int, int, int, int]) -> None:
        number, target, row, first, length = piece
        levels = frames.levels(Wanted([target], channels, np.arange(first, first + length), row=row))
        places = (levels.reshape(-1, snapshot.layout.bins) + first_count).ravel()
        found = np.bincount(places, minlength=counts[0].size).reshape(counts[0].shape)
        with lock:
            counts[number] += found

    for_each(count, pieces)
    return counts
