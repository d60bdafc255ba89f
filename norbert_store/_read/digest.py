"""One number for what tracks hold: equal however, wherever and by whom they were written.

It tells accidents, not forgers: of magnitudes it takes lengths and checksums (CRC-32C), unless it is asked to read all.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import numpy as np

from norbert_store._format.layout import ChunkAt
from norbert_store._read.selection import Selection

_COLUMNS = ("name", "split", "samples", "frames")


def digest(selection: Selection, strong: bool = False) -> str:
    """Return the SHA-256 of some tracks, in their order; public as `Store.digest`.

    Taken are: targets, channels, transform, curve, bins and frames of a chunk; of each track name, split, samples,
    frames and the labels that it has; and of each of its chunks length and CRC-32C. Not taken are: where it came from,
    metadata, where it lies, and when and how it was written.

    Parameters
    ----------
    selection : Selection
    strong : bool
        Whether the chunks' own bytes are read and taken as well.

    Returns
    -------
    str
        64 hexadecimal digits.
    """
    found = hashlib.sha256()
    document, layout = selection.document, selection.document.layout
    head = [document.targets, document.channels, document.transform, layout.curve.config, layout.bins]
    found.update(_line([*head, layout.chunk_frames]))
    channels = range(len(document.channels))
    for row, line in _tracks(selection):
        found.update(line)
        start, frames = selection.snapshot.span(row)
        chunks = layout.chunk_span(start, frames)
        for target in range(len(document.targets)):
            extents = selection.snapshot.extents(target, chunks.start, chunks.stop)
            found.update(np.ascontiguousarray(extents[1:].transpose(2, 1, 0), "<u4").tobytes())
            if strong:
                wanted = [ChunkAt(target, channel, number, row) for number in chunks for channel in channels]
                for _, chunk in selection.frames.chunks.read(wanted):
                    found.update(b"" if chunk is None else chunk.data)
    return found.hexdigest()


def _tracks(selection: Selection) -> Iterator[tuple[int, bytes]]:
    """Row of each track, and what the track table says that is taken."""
    labels = selection.document.labels
    columns = [selection.column(name).tolist() for name in _COLUMNS]
    values = [map(label.value, selection.column(label.path).tolist()) for label in labels]
    names = [label.name for label in labels]
    for row, *cells in zip(selection.each_row(), *columns, *values, strict=True):
        of_labels = zip(names, cells[len(_COLUMNS) :], strict=True)
        known = {name: value for name, value in of_labels if value is not None}
        yield row, _line([*cells[: len(_COLUMNS)], known])


def _line(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"
