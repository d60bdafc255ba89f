"""Is everything there that a store says it holds, and is it what was written?

Checked are the document, the track table, and of every chunk of every present stem its place in the shard's index,
its checksum and its JPEG header.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator

import numpy as np

from norbert_store.errors import DamagedError, JpegError, NorbertStoreError
from norbert_store.format.document import ROOT_KEY
from norbert_store.jpeg import stream
from norbert_store.reader import Reader
from norbert_store.storage import Location
from norbert_store.store import Store, Track
from norbert_store.transform import LinearBins, MelBands


def verify(location: Location, on_progress: Callable[[int, int], None] | None = None) -> list[str]:
    """Check a store, and return all that is wrong with it.

    Parameters
    ----------
    location : str, path or zarr store
    on_progress : callable, optional
        Called with (tracks done, tracks) after each track.

    Returns
    -------
    list of str
        A line for each fault, with its place; empty where there is none.

    Raises
    ------
    StoreNotFoundError
        If there is nothing there.
    FormatError
        If the document is so broken that the rest can't be found.
    """
    reader = Reader(location)
    try:
        store = Store(reader)
        faults = [*_array_document_faults(reader), *_coordinate_faults(reader), *_table_faults(reader)]
    except DamagedError as error:
        return [str(error)]
    for i, track in enumerate(store):
        faults += _track_faults(reader, track)
        if on_progress:
            on_progress(i + 1, len(store))
    return faults


def _coordinate_faults(reader: Reader) -> Iterator[str]:
    """Labels stand in the attributes, to be read at once, and in arrays, for programs that read zarr."""
    document = reader.document
    for path, expected in (("target", document.targets), ("channel", document.channels)):
        try:
            found = tuple(reader.coordinate(path))
        except DamagedError as error:
            yield str(error)
            continue
        if found != expected:
            yield f"{reader.name}: /{path} holds {found}, the attributes say {expected}"
    if not np.isfinite(reader.frequencies).all() or (np.diff(reader.frequencies) <= 0).any():
        yield f"{reader.name}: /frequency isn't in ascending order"


def _array_document_faults(reader: Reader) -> Iterator[str]:
    """Each array has a document of its own, for programs that don't know consolidated metadata."""
    for path in reader.document.arrays():
        data = reader.storage.get(f"{path}/{ROOT_KEY}")
        if data is None:
            yield f"{reader.name}: {path}/{ROOT_KEY} is missing"
        elif not _is_json(data):
            yield f"{reader.name}: {path}/{ROOT_KEY} isn't JSON"


def _is_json(text: str | bytes) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False


def _table_faults(reader: Reader) -> Iterator[str]:
    """Rows that overlap, leave the packed axis, bear the same name, or hold metadata that isn't JSON."""
    layout, end = reader.layout, reader.document.frames
    names = reader.column("name")
    for name, count in Counter(names.tolist()).items():
        if count > 1:
            yield f"{reader.name}: {count} tracks are named {name!r}"
    starts, frames = reader.column("start"), reader.column("frames")
    for column in reader.document.columns:
        reader.column(column.name)
    for name, metadata in zip(names, reader.column("metadata"), strict=True):
        if not _is_json(metadata):
            yield f"{reader.name}: the metadata of track {name!r} isn't a JSON object"
    before = 0
    for i in np.argsort(starts, kind="stable"):
        start, stop = int(starts[i]), int(starts[i]) + layout.chunks(int(frames[i])) * layout.chunk_frames
        if frames[i] < 1 or start % layout.chunk_frames or start < before or stop > end:
            yield (
                f"{reader.name}: track {names[i]!r} lies at frames {start} to {start + int(frames[i])}; expected it "
                f"at a chunk's beginning, after frame {before} and before {end}"
            )
        before = max(before, stop)


def _track_faults(reader: Reader, track: Track) -> Iterator[str]:
    transform = track.transform
    if isinstance(transform, LinearBins | MelBands) and transform.stft.frame_count(track.samples) != track.frames:
        yield (
            f"{reader.name}: track {track.name!r} has {track.frames} frames; its {track.samples} samples give "
            f"{transform.stft.frame_count(track.samples)}"
        )
    if reader.layout.codecs is not None:
        yield from _other_codecs_faults(reader, track)
        return
    first = track.start // reader.layout.chunk_frames
    # what lies off the packed axis is a fault of the table already, and may be no end of chunks
    stop = min(first + reader.layout.chunks(track.frames), reader.layout.chunks(reader.document.frames))
    for target, label in enumerate(reader.document.targets):
        last = None
        for chunk in range(max(first, 0), stop):
            for channel in range(len(reader.document.channels)):
                fault = _chunk_fault(reader, target, channel, chunk, track.name, track.present[label])
                # a damaged index is one fault, whichever of its chunks is asked for
                if fault and fault != last:
                    yield fault
                last = fault


def _chunk_fault(reader: Reader, target: int, channel: int, chunk: int, track: str, present: bool) -> str | None:
    place = reader.place(target, channel, chunk, track)
    try:
        data = reader.jpeg(target, channel, chunk, track)
        if data is not None:
            stream.check(data, (reader.layout.chunk_frames, reader.layout.bins))
    except JpegError as error:
        return f"{place}: {error}"
    except NorbertStoreError as error:
        return str(error)
    if data is None and present:
        return f"{place} is missing"
    if data is not None and not present:
        return f"{place} is there, but the track table says that the target is absent"
    return None


def _other_codecs_faults(reader: Reader, track: Track) -> Iterator[str]:
    for target, present in track.present.items():
        try:
            values = track.magnitude.sel(target=target).values
        except Exception as error:  # zarr raises what its codecs happen to raise
            yield f"{reader.name}: track {track.name!r}, target {target!r}: {error}"
            continue
        if present and np.isnan(values).any():
            yield f"{reader.name}: track {track.name!r}, target {target!r}: chunks are missing"
