"""Random excerpts for training.

Excerpt ``i`` is a pure function of the seed and of ``i``, for every ``i`` from 0 on. An epoch is a range of indices, so
any number of workers, machines and restarts sees the same excerpts.

Conventions
-----------
An excerpt is (targets, channels, frames, bins), a batch (excerpts, targets, channels, frames, bins).

References
----------
Numbers are drawn by hashing (seed, i) with the finalizer of SplitMix64: G. L. Steele, D. Lea, C. H. Flood, "Fast
splittable pseudorandom number generators", OOPSLA 2014, doi:10.1145/2714064.2660195.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from norbert_store._read.frames import Request
from norbert_store._read.selection import Selection
from norbert_store._read.values import Values, values_of
from norbert_store._signature import spelled_out
from norbert_store._spectra.stft import whole_number
from norbert_store._text import listed
from norbert_store.errors import NameNotFoundError

Indices = Sequence[int] | NDArray[np.integer[Any]]
Item = dict[str, Any]


_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MOST_SECONDS = 1e15  # frames still are whole numbers of 64 bits


class Excerpts:
    """Random excerpts of a store's tracks, by number; made by `Store.excerpts`.

    A sequence for any loader that wants one: PyTorch's `DataLoader`, grain, ``tf.data`` through a generator. It
    pickles, and works in threads and in processes however they were started.

    Attributes
    ----------
    frames : int
        Length of an excerpt, frames.
    shape : tuple of int
        Shape of an excerpt: (targets, channels, frames, bins).
    dtype : numpy.dtype
        float32, or uint8 for levels.
    """

    def __init__(
        self,
        selection: Selection,
        seconds: float,
        *,
        targets: Sequence[str] | None = None,
        channels: Sequence[str] | None = None,
        seed: int = 0,
        values: Values | Callable[[NDArray[np.float32]], NDArray[Any]] = "magnitude",
        per_epoch: int | None = None,
        remix: bool = False,
    ) -> None:
        self._frames = selection.frames
        self._values = values_of(values, selection)
        self._with_scales = values == "levels"
        self._targets = _positions(selection, "target", targets, selection.document.targets)
        self._channels = _positions(selection, "channel", channels, selection.document.channels)
        self._seed = whole_number("seed", seed, at_least=0)
        self._remix = remix
        self.frames = _frame_count(selection, seconds)
        self.shape = len(self._targets), len(self._channels), self.frames, selection.document.layout.bins
        self.dtype = self._values.dtype
        self._pools = _pools(selection, self._targets, self.frames, seconds, remix)
        if per_epoch is None:
            total = sum(self._pools[0].lengths.tolist())
            per_epoch = max(1, total // self.frames)
        self._per_epoch = whole_number("per_epoch", per_epoch, at_least=1)
        self._seconds_per_frame = selection.transform.hop / selection.transform.rate

    def __repr__(self) -> str:
        return (
            f"<norbert_store.Excerpts of {self._frames.snapshot.name!r}, {self._per_epoch} per epoch, "
            f"shape {self.shape}, {self.dtype}>"
        )

    def __len__(self) -> int:
        """Number of excerpts in an epoch."""
        return self._per_epoch

    def __iter__(self) -> Iterator[Item]:
        """Go over the first epoch; without this method, `for` would never end."""
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: int) -> Item:
        """Read one excerpt.

        Returns
        -------
        dict
            "magnitude": its values (targets, channels, frames, bins), whatever they are; "track": name of the track;
            "start": where it starts in the track, seconds; with levels, "scale" as in `read`.

        Raises
        ------
        IndexError
            If the index is negative.
        DamagedError
            If what is stored is damaged.
        """
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Item]:
        """Read some excerpts in one go; their values are views of one batch."""
        batch = self.read(indices)
        keys = [key for key in batch if key != "magnitude"]
        return [
            {"magnitude": values, **{key: batch[key][i] for key in keys}} for i, values in enumerate(batch["magnitude"])
        ]

    @spelled_out()
    def collate(self, items: Sequence[Item]) -> dict[str, Any]:
        """Put excerpts together into a batch, as `read` returns it; those of one `__getitems__` without a copy."""
        values = [item["magnitude"] for item in items]
        whole = values[0].base if len(values) else None
        if whole is None or whole.shape != (len(values), *values[0].shape) or not _is_batch(values, whole):
            whole = np.stack(values)
        batch = {
            "magnitude": whole,
            "track": [each["track"] for each in items],
            "start": [each["start"] for each in items],
        }
        return {**batch, "scale": np.stack([each["scale"] for each in items])} if self._with_scales else batch

    @spelled_out()
    def read(self, indices: Indices, out: NDArray[Any] | None = None) -> dict[str, Any]:
        """Read some excerpts, into the caller's memory if that is given.

        Parameters
        ----------
        indices : sequence of int
            From 0 on; an epoch's end is no limit.
        out : ndarray, optional
            (excerpts, targets, channels, frames, bins), contiguous, of `dtype`.

        Returns
        -------
        dict
            "magnitude": ``out``, or a new array like it; "track": for each excerpt the name of its track; "start":
            for each where it starts, seconds. With ``remix``, names and starts are tuples, with an entry for each
            target. With levels, "scale" (excerpts, targets), int16: they stand for ``2.0 ** scale`` times the values
            of `Store.look_up_table`.

        Raises
        ------
        IndexError
            If an index is negative.
        TypeError
            If the indices aren't a sequence of whole numbers.
        ValueError
            If ``out`` doesn't fit.
        DamagedError
            If what is stored is damaged.
        """
        places = self._places(indices)
        shape = (len(places.rows), *self.shape)
        out = np.empty(shape, self.dtype) if out is None else _check_out(out, shape, self.dtype)
        requests = [
            Request(target, self._channels, first, out[i, j], row=row)
            for i, (rows, firsts) in enumerate(zip(places.rows.tolist(), places.frames.tolist(), strict=True))
            for j, (target, row, first) in enumerate(zip(self._targets, rows, firsts, strict=True))
        ]
        self._values.read(self._frames, requests)
        starts = (places.starts * self._seconds_per_frame).tolist()
        names = [[str(self._frames.snapshot.cell("name", row)) for row in rows] for rows in places.rows.tolist()]
        one = tuple if self._remix else _first
        batch = {"magnitude": out, "track": [one(each) for each in names], "start": [one(each) for each in starts]}
        return {**batch, "scale": self._scales(places.rows)} if self._with_scales else batch

    def _scales(self, rows: NDArray[np.int64]) -> NDArray[np.int16]:
        """Read the scales of excerpts (excerpts, targets)."""
        scales = [
            [
                self._frames.snapshot.cell("scale", row)[target]
                for target, row in zip(self._targets, of_targets, strict=True)
            ]
            for of_targets in rows.tolist()
        ]
        return np.array(scales, np.int16).reshape(rows.shape)

    @spelled_out()
    def sampler(self, *, epoch: int = 0, rank: int = 0, world_size: int = 1) -> EpochSampler:
        """Return a sampler for a data loader: the indices of an epoch, for one of ``world_size`` processes.

        Parameters
        ----------
        epoch : int
            Which epoch, from 0; ``set_epoch`` of the sampler changes it.
        rank, world_size : int
            Which process this is, of how many: it gets every ``world_size``-th index. Indices at the end of the epoch
            that not every process would get are left out.

        Returns
        -------
        EpochSampler

        Raises
        ------
        ValueError
            If a number is out of range.
        """
        return EpochSampler(self._per_epoch, epoch, rank, world_size)

    def _places(self, indices: Indices) -> _Places:
        numbers = np.asarray(indices)
        if numbers.ndim != 1 or (numbers.size and not np.issubdtype(numbers.dtype, np.integer)):
            raise TypeError(f"expected a sequence of whole numbers, found {indices!r}")
        if numbers.size and numbers.min() < 0:
            raise IndexError(f"excerpts are numbered from 0 on; found {numbers.min()}")
        numbers = numbers.astype(np.uint64)
        drawn = [pool.draw(_hash(self._seed, numbers, stream)) for stream, pool in enumerate(self._pools)]
        self._part(numbers, drawn)
        count = len(self._targets)
        rows, starts, firsts = (np.stack([each[part] for each in drawn], axis=1) for part in range(3))
        if not self._remix:
            rows, starts, firsts = (np.repeat(each, count, axis=1) for each in (rows, starts, firsts))
        return _Places(rows, starts, firsts)

    def _part(self, numbers: NDArray[np.uint64], drawn: list[tuple[NDArray[np.int64], ...]]) -> None:
        """Draw again where two targets came from one track, unless there is no other."""
        for j in range(1, len(drawn)):
            taken = np.stack([rows for rows, _, _ in drawn[:j]])
            for i in np.flatnonzero((taken == drawn[j][0]).any(axis=0)).tolist():
                others = self._pools[j].without(taken[:, i])
                if others is not None:
                    again = others.draw(_hash(self._seed, numbers[i : i + 1], len(drawn) + j))
                    for part, values in zip(drawn[j], again, strict=True):
                        part[i] = values[0]


class EpochSampler:
    """The indices of one epoch, for loaders that want a sampler; made by `Excerpts.sampler`.

    Parameters
    ----------
    per_epoch : int
    epoch, rank, world_size : int
        As for `Excerpts.sampler`.
    """

    def __init__(self, per_epoch: int, epoch: int = 0, rank: int = 0, world_size: int = 1) -> None:
        self._per_epoch = whole_number("per_epoch", per_epoch, at_least=1)
        self._world_size = whole_number("world_size", world_size, at_least=1)
        self._rank = whole_number("rank", rank, at_least=0)
        if self._rank >= self._world_size:
            raise ValueError(f"rank must be below world_size, which is {world_size}; found {rank}")
        self.set_epoch(epoch)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, from 0."""
        self._epoch = whole_number("epoch", epoch, at_least=0)

    def __len__(self) -> int:
        return self._per_epoch // self._world_size

    def __iter__(self) -> Iterator[int]:
        begin = self._epoch * self._per_epoch
        return iter(range(begin + self._rank, begin + self._world_size * len(self), self._world_size))


@dataclass(frozen=True)
class _Places:
    """Where excerpts lie, all (excerpts, targets): rows of the track table, first frames in track and packed axis."""

    rows: NDArray[np.int64]
    starts: NDArray[np.int64]
    frames: NDArray[np.int64]


class _Pool:
    """All possible excerpts of some tracks, each as likely as any other."""

    def __init__(
        self, rows: NDArray[np.int64], starts: NDArray[np.int64], lengths: NDArray[np.int64], frames: int
    ) -> None:
        self.lengths = lengths
        self._rows = rows
        self._starts = starts
        self._frames = frames
        self._ends = np.cumsum(lengths - frames + 1)

    def draw(self, hashes: NDArray[np.uint64]) -> tuple[NDArray[np.int64], ...]:
        """Pick an excerpt by each number: row, first frame in the track, first frame along the packed axis."""
        # the modulo favours some, by less than the number of excerpts over 2^64
        chosen = (hashes % np.uint64(self._ends[-1])).astype(np.int64)
        track = np.searchsorted(self._ends, chosen, side="right")
        start = chosen - np.where(track, self._ends[track - 1], 0)
        return self._rows[track], start, self._starts[track] + start

    def without(self, rows: NDArray[np.int64]) -> _Pool | None:
        """Leave tracks out; None if there are no others."""
        kept = ~np.isin(self._rows, rows)
        return _Pool(self._rows[kept], self._starts[kept], self.lengths[kept], self._frames) if kept.any() else None


def _pools(selection: Selection, targets: Sequence[int], frames: int, seconds: float, remix: bool) -> list[_Pool]:
    """For each draw, the tracks that are long enough and have its target; without remix, one draw with all targets."""
    snapshot, rows = selection.snapshot, selection.rows
    if len(rows) == 0:
        raise ValueError(f"{selection.name} has no tracks to take excerpts from; add or select at least one")
    (starts, lengths), present = snapshot.spans(rows), snapshot.column("present")[rows]
    if lengths.max() < frames:
        longest = lengths.max() * selection.transform.hop / selection.transform.rate
        raise ValueError(
            f"no track of {selection.name} is as long as {seconds:g} seconds ({frames} frames); the longest has "
            f"{longest:.2f} ({lengths.max()} frames): give shorter excerpts"
        )
    pools = []
    for some in [[target] for target in targets] if remix else [list(targets)]:
        fit = (lengths >= frames) & present[:, some].all(axis=1)
        if not fit.any():
            names = ", ".join(repr(selection.document.targets[target]) for target in some)
            raise ValueError(
                f"no track of {selection.name} that is {seconds:g} seconds or longer has {names}; give shorter "
                "excerpts, or other targets"
            )
        pools.append(_Pool(rows[fit], starts[fit], lengths[fit], frames))
    return pools


def _frame_count(selection: Selection, seconds: float) -> int:
    number = isinstance(seconds, int | float | np.integer | np.floating) and not isinstance(seconds, bool)
    if not number or not 0 < seconds < _MOST_SECONDS:
        raise ValueError(f"seconds must be a positive number, found {seconds!r}")
    return max(1, round(float(seconds) * selection.transform.rate / selection.transform.hop))


def _positions(selection: Selection, what: str, labels: Sequence[str] | None, known: Sequence[str]) -> list[int]:
    if labels is None:
        return list(range(len(known)))
    labels = [labels] if isinstance(labels, str) else list(labels)
    if not labels or len(set(labels)) < len(labels):
        raise ValueError(f"expected some of the {what}s {listed(known)}, each once; found {labels!r}")
    for label in labels:
        if label not in known:
            raise NameNotFoundError(f"{selection.name} has no {what} {label!r}; it has {listed(known)}")
    return [list(known).index(label) for label in labels]


def _hash(seed: int, numbers: NDArray[np.uint64], stream: int) -> NDArray[np.uint64]:
    """Mix seed, number and stream into 64 bits that look random."""
    with np.errstate(over="ignore"):
        mixed = _mix(np.full(len(numbers), seed % 2**64, np.uint64) + _GOLDEN)
        mixed = _mix((mixed ^ numbers) + _GOLDEN)
        return _mix((mixed ^ np.uint64(stream)) + _GOLDEN)


def _mix(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return numbers ^ (numbers >> np.uint64(31))


def _check_out(out: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    if not isinstance(out, np.ndarray) or out.shape != shape or out.dtype != dtype:
        found = f"{out.dtype} of shape {out.shape}" if isinstance(out, np.ndarray) else type(out).__name__
        raise ValueError(f"expected out to be an array of {dtype} of shape {shape}, found {found}")
    if not out.flags.c_contiguous or not out.flags.writeable:
        raise ValueError("expected out to be contiguous and writable")
    return out


def _is_batch(values: Sequence[NDArray[Any]], whole: NDArray[Any]) -> bool:
    """Whether arrays are the parts of a batch, all of them and in order."""
    return all(
        value.base is whole and value.ctypes.data == whole[i].ctypes.data and value.strides == whole.strides[1:]
        for i, value in enumerate(values)
    )


def _first(values: Sequence[Any]) -> Any:
    return values[0]
