"""What a new store is told: parameters, checked, become the document of an empty store."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypedDict

import numpy as np

from norbert_store._format.document import Document
from norbert_store._format.layout import ROWS, SHARD_CHUNKS, Layout
from norbert_store._format.table import check_text, name_problem
from norbert_store._jpeg.encoder import DEFAULT_EFFORT, DEFAULT_QUALITY, check_effort, check_quality
from norbert_store._jpeg.layout import BLOCK, LARGEST_SIDE
from norbert_store._spectra.bins import (
    DEFAULT_BANDWIDTH,
    Mel,
    ReadyBins,
    StoredTransform,
    stored_transform,
)
from norbert_store._spectra.levels import Curve, PowerCurve
from norbert_store._spectra.stft import Stft, whole_number
from norbert_store._text import shown
from norbert_store.errors import TrackError

PIXELS_PER_CHUNK = 256 * 744
_MOST_CHUNK_FRAMES = 8192

_CHANNEL_LABELS = {1: ("mono",), 2: ("left", "right")}


class CreateOptions(TypedDict, total=False):
    """What `create` takes beside targets, rate and channels; it has what each means, and the defaults."""

    transform: Stft | Mel | ReadyBins | None
    bandwidth: float
    curve: Curve | None
    quality: float
    effort: int
    chunk_frames: int | None
    shard_chunks: int
    title: str
    license: str
    citation: str


def new_document(
    *,
    targets: Sequence[str],
    rate: int | None = None,
    channels: int | Sequence[str] = 2,
    transform: Stft | Mel | ReadyBins | None = None,
    bandwidth: float = DEFAULT_BANDWIDTH,
    curve: Curve | None = None,
    quality: float = DEFAULT_QUALITY,
    effort: int = DEFAULT_EFFORT,
    chunk_frames: int | None = None,
    shard_chunks: int = SHARD_CHUNKS,
    title: str = "",
    license: str = "",  # noqa: A002  # the name of the attribute
    citation: str = "",
) -> tuple[Document, StoredTransform]:
    """Describe an empty store; parameters as for `create`.

    Raises
    ------
    ValueError
        If one is out of range.
    """
    stored = stored_transform(_analysis(transform, rate), bandwidth)
    target_labels = _labels("targets", targets)
    channel_labels = _channel_labels(channels)
    curve = curve if curve is not None else PowerCurve()
    if not isinstance(curve, Curve):
        raise ValueError(f"curve must be a PowerCurve or LogCurve, found {curve!r}")
    layout = Layout(
        bins=len(stored.frequencies),
        chunk_frames=_chunk_frames(chunk_frames, len(stored.frequencies)),
        shard_chunks=whole_number("shard_chunks", shard_chunks, at_least=1),
        curve=curve,
        rows=ROWS,
    )
    if max(layout.chunk_frames, layout.bins) > LARGEST_SIDE:
        raise ValueError(
            f"a chunk of {layout.chunk_frames} frames x {layout.bins} bins is too large for a JPEG, whose sides have "
            f"at most {LARGEST_SIDE} pixels; lower chunk_frames, n_fft or the bandwidth"
        )
    about = {"title": title, "license": license, "citation": citation}
    document = Document(
        targets=target_labels,
        channels=channel_labels,
        transform=stored.config,
        layout=layout,
        encoder={"quality": check_quality(quality), "effort": check_effort(effort)},
        about={key: _text(key, text) for key, text in about.items() if text != ""},
    )
    return document, stored


def _analysis(transform: Stft | Mel | ReadyBins | None, rate: int | None) -> Stft | Mel | ReadyBins:
    if transform is None:
        return Stft() if rate is None else Stft(rate=rate)
    if rate is not None and rate != getattr(transform, "rate", rate):
        raise ValueError(f"rate is {rate}, but the transform's is {transform.rate}; give one, or the same")
    return transform


def _text(what: str, text: Any) -> str:
    try:
        return check_text(what, text)
    except TrackError as error:  # which this is no fault of
        raise ValueError(str(error)) from None


def _labels(what: str, labels: Sequence[str]) -> tuple[str, ...]:
    if isinstance(labels, str):
        raise ValueError(f"{what} must be a sequence of names, found the one name {labels!r}")
    names = tuple(str(label) if isinstance(label, str) else label for label in labels)  # NumPy's text is a str, too
    if not names or not all(isinstance(name, str) and name.strip() for name in names):
        raise ValueError(f"{what} must be a sequence of names, none of them empty; found {names!r}")
    if len(set(names)) != len(names):
        raise ValueError(f"{what} must name everything once; found {names!r}")
    for name in names:
        problem = name_problem(check_text(f"the name in {what}", name))
        if problem:
            raise ValueError(f"{what} must be names that can be read; {shown(name)} {problem}")
    return names


def _channel_labels(channels: int | Sequence[str]) -> tuple[str, ...]:
    if isinstance(channels, int | np.integer) and not isinstance(channels, bool):
        count = whole_number("channels", channels, at_least=1)
        return _CHANNEL_LABELS.get(count) or tuple(str(channel) for channel in range(count))
    if isinstance(channels, bool) or not isinstance(channels, Iterable):
        raise ValueError(f"channels must be their number, or their names; found {channels!r}")
    return _labels("channels", channels)


def _chunk_frames(chunk_frames: int | None, bins: int) -> int:
    if chunk_frames is None:
        return int(np.clip(round(PIXELS_PER_CHUNK / bins / BLOCK) * BLOCK, BLOCK, _MOST_CHUNK_FRAMES))
    if whole_number("chunk_frames", chunk_frames, at_least=1) % BLOCK:
        raise ValueError(f"chunk_frames must be a multiple of {BLOCK}, found {chunk_frames}")
    return chunk_frames
