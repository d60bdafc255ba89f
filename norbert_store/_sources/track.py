"""A track of a data set, as it is found: what its row in the track table says, and its source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from norbert_store._format.table import Label
from norbert_store._sources.source import Source


@dataclass(frozen=True)
class SourceTrack:
    """A track that can be exported.

    Attributes
    ----------
    name, split : str
    source : Source
        Where its audio is.
    labels : mapping
        Columns of the track table.
    """

    name: str
    split: str
    source: Source
    labels: Mapping[str, Label] = field(default_factory=dict)
