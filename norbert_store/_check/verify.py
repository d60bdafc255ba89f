"""Is everything there that a store says it holds, and is it what was written?

The check covers the documents, the coordinates, the track table, the index of every shard, and presence, checksum,
header and decoding of every chunk. What was written but never committed (unfinished files, shards that no track lies
in, rows beyond the committed ones, a writer's lock) is no fault.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import islice

from norbert_store._check.documents import coordinate_faults, document_faults, pending_faults, root_faults
from norbert_store._check.report import Fault, Report
from norbert_store._check.shards import OnProgress, shard_faults
from norbert_store._check.tracks import Rows, column_faults, extent_faults, length_faults, name_faults, place_faults
from norbert_store._format.table import TRACK_GROUP
from norbert_store._read.chunks import Chunks
from norbert_store._read.digest import digest
from norbert_store._read.frames import Frames
from norbert_store._read.selection import Selection
from norbert_store._read.snapshot import Snapshot
from norbert_store._signature import check_callback, spelled_out
from norbert_store._spectra.stft import whole_number
from norbert_store._storage.storage import Location

# A store may claim any number of blocks and shards; the check stops when this number of them can't be read.
MOST_BLOCK_FAULTS = 1000

# columns that tell which track a chunk belongs to
_NEEDED = tuple(f"{TRACK_GROUP}/{name}/c/" for name in ("name", "start", "frames", "samples", "present", "scale"))


@spelled_out()
def verify(
    location: Location, *, decode: bool = True, workers: int | None = None, progress: OnProgress | None = None
) -> Report:
    """Check a store, and report all that is wrong with it.

    Parameters
    ----------
    location : str, path or zarr store
        Where the store is.
    decode : bool
        Whether to decode the chunks as well; checksums and headers are checked in any case.
    workers : int, optional
        Number of threads; if left out, one per processor.
    progress : callable, optional
        Called with (shards done, all shards), at most ten times a second, and at the end.

    Returns
    -------
    Report
        True if the store is whole; its faults are in the same order with any number of workers. The check stops after
        1,000 wrong blocks of small arrays, or 10,000 wrong chunks.

    Raises
    ------
    StoreNotFoundError
        If there is nothing there.
    FormatError
        If the root's document is damaged, so that the rest can't be found.
    StorageError
        If a server doesn't answer. A local file that can't be read is a fault.
    TypeError, ValueError
        If an argument is out of range.

    Examples
    --------
    >>> import norbert_store, numpy as np, zarr
    >>> place = zarr.storage.MemoryStore()
    >>> with norbert_store.create(place, targets=["mixture"], rate=8000, channels=1) as writer:
    ...     writer.add("silence", {"mixture": np.zeros(8000)})
    >>> bool(verify(place))
    True
    """
    threads = (os.cpu_count() or 1) if workers is None else whole_number("workers", workers, at_least=1)
    check_callback("progress", progress)
    snapshot = Snapshot.open(location)
    faults = tuple(faults_of(snapshot, None, decode, threads, progress))
    return Report(snapshot.name, faults, digest="" if faults else digest(Selection(Frames(Chunks(snapshot)))))


def faults_of(
    snapshot: Snapshot,
    shards: Sequence[range] | None,
    decode: bool,
    workers: int,
    on_progress: OnProgress | None = None,
) -> list[Fault]:
    """Check a store as `verify` does, but only the shards at some positions; all of them if that is None."""
    faults = [
        *root_faults(snapshot),
        *pending_faults(snapshot),
        *document_faults(snapshot),
        *coordinate_faults(snapshot),
    ]
    unreadable = list(islice(column_faults(snapshot), MOST_BLOCK_FAULTS))
    faults += unreadable
    if any(fault.key.startswith(_NEEDED) for fault in unreadable):
        return faults
    for of_rows in (name_faults, place_faults, length_faults):
        faults += islice(of_rows(snapshot), MOST_BLOCK_FAULTS)
    extents = list(islice(extent_faults(snapshot), MOST_BLOCK_FAULTS))
    if extents:
        return faults + extents
    rows = Rows.read(snapshot)
    numbers = rows.shards() if shards is None else shards
    return faults + shard_faults(snapshot, rows, numbers, decode, workers, on_progress)
