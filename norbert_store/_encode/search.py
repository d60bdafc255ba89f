"""Magnitudes to the JPEGs of a stem, chunk after chunk: nothing is spent on what can't be heard.

Conventions
-----------
Magnitudes are (frames, channels, bins) of one chunk after the other; the complex spectrum of the same shape goes with
them where there is one. All chunks of a stem have one scale, and within an encoder magnitudes are relative to it, from
0 to 1. An encoder is one chunk behind, for it looks at the frames that follow; it remembers a few frames before. So
what comes out depends on the frames alone, not on how their audio was cut, and memory stays at two chunks.

How
---
An error of magnitude ``e`` in a bin weighs ``w``, by `norbert_store._encode.masking`. Errors and bits are balanced: a
chunk becomes the JPEG that makes ::

    sum of w e ** 2  +  price * bits

small, where ``price`` is what ``quality`` stands for. As the price is the same everywhere, one bit more would lower
what is heard by the same amount in every track.

1. The chunk's quantisation table follows from its mean weight and the price.
2. `norbert_store._jpeg.trellis` chooses coefficients, each block with its mean weight.
3. With a phase, the *heard* error is known: magnitudes with errors, given their phase, become audio, and of the error
   only what is consistent (`norbert_store._encode.consistency`) is left, of which what is in phase matters. A *step*
   moves magnitudes against the heard error, and so the error into what is lost; then coefficients are chosen anew.
4. In between, a few steps move only coefficients that aren't zero, without rounding: those that are left make up for
   those that were left out. At first the price is higher, so that fewer are left, and others take their part.

References
----------
T. Blumensath, M. Davies, "Iterative hard thresholding for compressed sensing", Applied and Computational Harmonic
Analysis 27 (3), 2009, for steps and thresholds in turn. ``docs/quality.md`` for what each part brings.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from norbert_store._encode.consistency import Consistency
from norbert_store._encode.masking import EarModel
from norbert_store._format.document import Document
from norbert_store._format.layout import Layout
from norbert_store._jpeg import cosine, trellis
from norbert_store._jpeg.encoder import DEFAULT_QUALITY, encode, quantisation_table, table_of_step
from norbert_store._jpeg.entropy import CodeLengths, encode_coefficients
from norbert_store._jpeg.layout import BLOCK
from norbert_store._spectra.bins import LinearBins, ReadyBins, StoredTransform
from norbert_store._spectra.levels import HIGHEST, Curve, heard_scale, relative, table, to_levels

Floats = NDArray[np.float32]
Complex = NDArray[np.complex64]

# Price of a bit at quality 80; ten points less make it four times as high, which doubles errors. Above 80 it falls
# faster, to nothing at 100.
_PRICE = 5.5e-5
_FALLS_FASTER = 80.0
# The table's step is that at which a squared error of it costs as much as this number of bits, on average over a chunk.
_BITS_PER_STEP = 0.08
_LARGEST_STEP = 80.0
# A step a little beyond the heard error gets further; one of 2.5 times it diverges.
_STEP = 1.6
# What is smaller than this number of steps will probably be left out, for a first guess of code lengths.
_LIKELY = 0.65
# Below this level the curve is taken to be straight, for it has no slope at 0.
_LOWEST_LEVEL = 2
# Of its own error, heard or not, a magnitude gives so much up in a step, so that what isn't heard can't pile up.
_PULL = 0.1
_SILENT_BLOCK = np.array([-128 * BLOCK] + [0] * (BLOCK * BLOCK - 1), np.float32)


# What is done for a chunk, by effort: for each round, how many times its price a bit costs, and how many steps refine
# the coefficients that aren't zero. Without a phase, the last round's price is all that counts.
_ROUNDS: dict[int, tuple[tuple[float, int], ...]] = {
    1: ((1.0, 0),),
    2: ((2.0, 2), (1.0, 0)),
    3: ((3.0, 3), (1.3, 0), (1.0, 0)),
    4: ((3.0, 4), (1.6, 4), (1.1, 4), (1.0, 0)),
}


class ChunkEncoder(ABC):
    """Encodes the chunks of one stem; made by `Encoding`."""

    @abstractmethod
    def push(self, magnitude: Floats, spectrum: Complex | None) -> list[list[bytes]]:
        """Take the next chunk; return a JPEG for each channel of each chunk that is done."""

    def finish(self) -> list[list[bytes]]:
        """Return the chunks that are left."""
        return []


class Encoding:
    """How a store encodes: makes an encoder for each stem.

    Parameters
    ----------
    document : Document
        For layout, curve, quality and effort.
    transform : StoredTransform
        For frequencies and frame rate.
    """

    def __init__(self, document: Document, transform: StoredTransform) -> None:
        quality = document.encoder.get("quality", DEFAULT_QUALITY)
        effort = document.encoder.get("effort", 0)
        self._layout = document.layout
        self._table = quantisation_table(quality)
        self._perceptual = _Perceptual(document, transform, quality, effort) if effort else None

    def stem(self, scale: int) -> ChunkEncoder:
        """Return an encoder for a stem, whose largest magnitude is at most ``2 ** scale``."""
        if self._perceptual is None:
            return PlainEncoder(self._layout, self._table, scale)
        return PerceptualEncoder(self._perceptual, scale)


class PlainEncoder(ChunkEncoder):
    """Effort 0: one table for all, which bounds the error of every block.

    Parameters
    ----------
    layout : Layout
    table : ndarray of uint8
        (8, 8)
    scale : int
    """

    def __init__(self, layout: Layout, table: NDArray[np.uint8], scale: int) -> None:
        self._layout = layout
        self._table = table
        self._scale = scale

    def push(self, magnitude: Floats, spectrum: Complex | None) -> list[list[bytes]]:
        """Encode the next chunk."""
        jpegs = []
        for channel in range(magnitude.shape[1]):
            levels = to_levels(self._layout.curve.compress(relative(magnitude[:, channel], self._scale)))
            jpegs.append(encode(levels, self._table, scale=self._scale))
        return [jpegs]


@dataclass(frozen=True, eq=False)
class _Frames:
    """Frames of one channel: magnitudes (frames, bins), and the unit vectors of their phases, if known."""

    magnitude: Floats
    phase: Complex | None

    @classmethod
    def of(cls, magnitude: Floats, spectrum: Complex | None, scale: int) -> _Frames:
        of_scale = np.ascontiguousarray(relative(magnitude, scale), np.float32)
        if spectrum is None:
            return cls(of_scale, None)
        phase = spectrum / np.maximum(magnitude, np.finfo(np.float32).tiny)
        return cls(of_scale, phase.astype(np.complex64, copy=False))

    def equals(self, other: _Frames) -> bool:
        """Whether both are bit for bit the same."""
        if self.phase is None or other.phase is None:
            return self.phase is other.phase and np.array_equal(self.magnitude, other.magnitude)
        return np.array_equal(self.magnitude, other.magnitude) and np.array_equal(self.phase, other.phase)


@dataclass(frozen=True, eq=False)
class _History:
    """The last frames of a channel that are encoded: their magnitudes, and complex errors."""

    magnitude: Floats
    error: Complex


class _Perceptual:
    """What the encoders of all stems share, and never change."""

    def __init__(self, document: Document, transform: StoredTransform, quality: float, effort: int) -> None:
        self.layout = document.layout
        self.channels = len(document.channels)
        self.price = price_of_a_bit(quality)
        self.rounds = _ROUNDS[effort]
        self.curve = _LevelCurve(document.layout.curve)
        self.consistency: Consistency | None = None
        frame_rate, overlap, reach = transform.rate / transform.hop, 2.0, 1
        if isinstance(transform, LinearBins):
            stft = transform.stft
            self.consistency = Consistency(stft, document.layout.bins)
            overlap, reach = stft.n_fft / stft.hop, max(1, round(stft.n_fft / 2 / stft.hop))
        self.ear = EarModel(transform.frequencies, frame_rate, overlap, reach)
        self._in_sound = not isinstance(transform, ReadyBins)
        none = np.zeros((0, document.layout.bins), np.float32)
        self.beginning = _History(none, none.astype(np.complex64))

    def volume(self, scale: int) -> np.float32:
        """What magnitudes of a stem, relative to its scale, are multiplied with to be those that are heard."""
        # nobody knows the unit of magnitudes that were computed elsewhere
        return np.float32(2.0 ** (heard_scale(scale) if self._in_sound else 0))

    def silence(self, frames: int, scale: int) -> bytes:
        """A chunk of it."""
        return encode(np.zeros((frames, self.layout.bins), np.uint8), table_of_step(1), scale=scale)


def price_of_a_bit(quality: float) -> float:
    """How much less noise, as a share of what is masked, a bit has to bring in a band and frame."""
    falling = (100 - max(quality, _FALLS_FASTER)) / (100 - _FALLS_FASTER)
    return float(_PRICE * 4 ** ((80 - quality) / 10) * falling)


class PerceptualEncoder(ChunkEncoder):
    """Efforts from 1 on: see the module."""

    def __init__(self, shared: _Perceptual, scale: int) -> None:
        self._shared = shared
        self._scale = scale
        self._volume = shared.volume(scale)
        self._histories = [shared.beginning] * shared.channels
        self._waiting: list[_Frames] | None = None

    def push(self, magnitude: Floats, spectrum: Complex | None) -> list[list[bytes]]:
        """Take the next chunk, encode the one before."""
        if self._shared.consistency is None:
            spectrum = None
        following = [
            _Frames.of(magnitude[:, i], None if spectrum is None else spectrum[:, i], self._scale)
            for i in range(magnitude.shape[1])
        ]
        done = []
        if self._waiting is not None:
            done.append(self._encode(self._waiting, [frames.magnitude for frames in following]))
        self._waiting = following
        return done

    def finish(self) -> list[list[bytes]]:
        """Encode the last chunk."""
        if self._waiting is None:
            return []
        return [self._encode(self._waiting, [frames.magnitude[:0] for frames in self._waiting])]

    def _encode(self, chunk: Sequence[_Frames], following: Sequence[Floats]) -> list[bytes]:
        """Encode a chunk of all channels; those that were equal so far share one result."""
        jpegs: list[bytes] = []
        before = list(self._histories)
        after = [frames[: self._shared.ear.context] for frames in following]
        for channel, frames in enumerate(chunk):
            for other in range(channel):
                same = before[other] is before[channel] and chunk[other].equals(frames)
                if same and np.array_equal(after[other], after[channel]):
                    jpegs.append(jpegs[other])
                    self._histories[channel] = self._histories[other]
                    break
            else:
                jpeg, self._histories[channel] = self._encode_channel(before[channel], frames, after[channel])
                jpegs.append(jpeg)
        return jpegs

    def _encode_channel(self, before: _History, frames: _Frames, after: Floats) -> tuple[bytes, _History]:
        shared, magnitude = self._shared, frames.magnitude
        if not magnitude.any():
            silence = shared.silence(len(magnitude), self._scale)
            return silence, self._history(magnitude, np.zeros(magnitude.shape, np.complex64))
        around = np.concatenate([before.magnitude, magnitude, after]) * self._volume
        weights = shared.ear.weights(around)[len(before.magnitude) :][: len(magnitude)] * self._volume**2
        chunk = _Chunk(frames, weights, shared.curve, shared.price, before.error, shared.consistency)
        chunk.optimise(shared.rounds)
        jpeg = encode_coefficients(chunk.multiples, chunk.table, len(magnitude), shared.layout.bins, self._scale)
        return jpeg, self._history(magnitude, chunk.error())

    def _history(self, magnitude: Floats, error: Complex) -> _History:
        reach = 0 if self._shared.consistency is None else self._shared.consistency.reach
        return _History(_last(magnitude, self._shared.ear.context), _last(error, reach))


class _LevelCurve:
    """The curve between relative magnitudes and levels that aren't rounded, in float32."""

    def __init__(self, curve: Curve) -> None:
        self._curve = curve
        self._magnitudes = table(curve)
        slopes = np.gradient(self._magnitudes.astype(np.float64))
        slopes[:_LOWEST_LEVEL] = slopes[_LOWEST_LEVEL]
        self._slopes = slopes.astype(np.float32)

    def levels(self, magnitude: Floats) -> Floats:
        """Relative magnitudes, which may lie outside of 0 to 1, to levels from 0 to 255."""
        within = np.clip(magnitude, 0, np.float32(1))
        levels: Floats = self._curve.compress(within)
        levels *= np.float32(HIGHEST)
        return levels

    def magnitudes(self, levels: Floats) -> Floats:
        """Levels, which may lie outside of 0 to 255, to relative magnitudes."""
        magnitudes: Floats = self._curve.expand(np.clip(levels, 0, HIGHEST) / np.float32(HIGHEST))
        return magnitudes

    def decoded(self, levels: Floats) -> Floats:
        """Levels to the relative magnitudes that a decoder, which rounds them, gives."""
        return np.take(self._magnitudes, np.rint(np.clip(levels, 0, HIGHEST)).astype(np.uint8), mode="clip")

    def slopes(self, levels: Floats) -> Floats:
        """Magnitude over level."""
        return np.take(self._slopes, levels.astype(np.uint8), mode="clip")


class _Chunk:
    """One channel of a chunk on its way to a JPEG.

    Attributes
    ----------
    table : ndarray of uint8
        (8, 8)
    multiples : ndarray of int16
        (block rows, block columns, 64), of the table's steps, as they were chosen last.
    """

    def __init__(
        self,
        frames: _Frames,
        weights: Floats,
        curve: _LevelCurve,
        price: float,
        error_before: Complex,
        consistency: Consistency | None,
    ) -> None:
        self._frames = frames
        self._curve = curve
        self._price = price
        self._error_before = error_before
        self._consistency = consistency
        levels = curve.levels(frames.magnitude)
        of_levels = weights * curve.slopes(levels) ** 2
        of_blocks = _blocks(of_levels).mean(axis=(1, 3))
        self._weights = of_blocks[..., np.newaxis]
        # a magnitude moves against its heard error as far as its weight in its block allows
        self._step = np.float32(_STEP) * np.minimum(of_levels / _of_pixels(of_blocks, levels.shape), 1)
        self._silent = ~_blocks(levels).any(axis=(1, 3))
        mean = float(of_blocks.mean(dtype=np.float64))
        self.table = table_of_step(float(np.clip(np.sqrt(price / (_BITS_PER_STEP * mean)), 1, _LARGEST_STEP)))
        self._steps = cosine.steps_of(self.table)
        self._coefficients = cosine.forward(levels)
        rounded = cosine.quantise(self._coefficients, self.table)
        rounded[np.abs(self._coefficients) < _LIKELY * self._steps] = 0
        self._lengths = CodeLengths.of(rounded)

    def optimise(self, rounds: Sequence[tuple[float, int]]) -> None:
        """Choose coefficients, again and again if there is a phase; without a price, there is nothing to choose."""
        if self._frames.phase is None or self._consistency is None or self._price == 0:
            rounds = [(rounds[-1][0], 0)]
        for number, (price, refinements) in enumerate(rounds):
            if number:
                self._move(self._curve.decoded(self._levels()))
            self._choose(price)
            if refinements:
                chosen = self.multiples != 0
                chosen[..., 0] = True
                for _ in range(refinements):
                    self._move(self._curve.magnitudes(self._levels()))
                    self._coefficients *= chosen
                self._choose(price)

    def error(self) -> Complex:
        """Error of what was chosen, (frames, bins), with the phase that it has in the spectrum."""
        if self._frames.phase is None:
            return np.zeros(self._frames.magnitude.shape, np.complex64)
        error: Complex = (self._curve.decoded(self._levels()) - self._frames.magnitude) * self._frames.phase
        return error

    def _choose(self, price: float) -> None:
        """Round coefficients to multiples of their steps, at a multiple of the price."""
        self.multiples = trellis.quantise(
            self._coefficients, self.table, self._weights, price * self._price, self._lengths
        )
        self._lengths = CodeLengths.of(self.multiples)
        self._coefficients = self.multiples * self._steps

    def _levels(self) -> Floats:
        return cosine.inverse(self._coefficients, *self._frames.magnitude.shape)

    def _move(self, magnitude: Floats) -> None:
        """Set coefficients to what lies a step from the given magnitudes, against the error that is heard of them."""
        assert self._frames.phase is not None
        assert self._consistency is not None
        phase, before = self._frames.phase, len(self._error_before)
        error = np.zeros((before + len(magnitude) + self._consistency.reach, magnitude.shape[1]), np.complex64)
        error[:before] = self._error_before
        own = magnitude - self._frames.magnitude
        # two products of reals take half the time of one with a complex number
        np.multiply(own, phase.real, out=error.real[before:][: len(magnitude)])
        np.multiply(own, phase.imag, out=error.imag[before:][: len(magnitude)])
        heard = self._consistency.project(error)[before:][: len(magnitude)]
        in_phase = heard.real * phase.real + heard.imag * phase.imag
        in_phase += np.float32(_PULL / _STEP) * own
        self._coefficients = cosine.forward(self._curve.levels(magnitude - self._step * in_phase))
        self._coefficients[self._silent] = _SILENT_BLOCK


def _of_pixels(blocks: Floats, shape: tuple[int, ...]) -> Floats:
    """Repeat what stands for each block for its pixels."""
    return np.repeat(np.repeat(blocks, BLOCK, axis=0), BLOCK, axis=1)[: shape[0], : shape[1]]


def _blocks(image: Floats) -> Floats:
    """Cut an image into blocks, (block rows, 8, block columns, 8)."""
    whole = cosine.whole_blocks(image)
    return whole.reshape(len(whole) // BLOCK, BLOCK, -1, BLOCK)


def _last(frames: NDArray[Any], count: int) -> NDArray[Any]:
    # a copy, which doesn't keep all frames in memory
    return frames[len(frames) - min(count, len(frames)) :].copy()
