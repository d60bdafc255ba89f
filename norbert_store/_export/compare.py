"""What a store has of a data set already, and what has changed in the data set since it was written.

Compared are the files of each track, by length and time of modification; where they lie; and what else the data set
says of the track. No audio is read for that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from norbert_store._format.table import NOT_NOTED, Column, Label, label_type
from norbert_store._sources.source import FileState, Source, time_text
from norbert_store._sources.track import SourceTrack
from norbert_store._write.commit import Committer
from norbert_store.errors import TrackError


@dataclass(frozen=True)
class Difference:
    """What is otherwise in a data set than in the store.

    Attributes
    ----------
    gone : str
        Why a track's audio isn't there any more; empty if it is.
    files : tuple of str
        How its files differ from those that the store was made of.
    row : tuple of str
        What else of it differs.
    """

    gone: str = ""
    files: tuple[str, ...] = ()
    row: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.gone or self.files or self.row)

    def __str__(self) -> str:
        return self.gone or "; ".join([*self.files, *self.row])


class Committed:
    """The tracks that a store has, by name.

    Parameters
    ----------
    committer : Committer
    """

    def __init__(self, committer: Committer) -> None:
        document = committer.document
        self._targets = document.targets
        self._folder = committer.storage.folder
        self._labels = {label.name: label for label in document.labels}
        self._columns = {column.path: committer.values(column) for column in document.columns}
        self._rows = {name: row for row, name in enumerate(self._of("name"))}

    def __contains__(self, name: str) -> bool:
        return name in self._rows

    def _of(self, name: str) -> list[Any]:
        return self._columns[f"track/{name}"]

    def start(self, name: str) -> int:
        """First frame of a track along the packed axis."""
        return int(self._of("start")[self._rows[name]])

    def frames(self, name: str) -> int:
        """Length of a track."""
        return int(self._of("frames")[self._rows[name]])

    def _files(self, row: int) -> dict[str, FileState]:
        """The files that a track was made of, as far as they were noted."""
        states = zip(self._of("source_bytes")[row], self._of("source_modified")[row], strict=True)
        return {target: state for target, state in zip(self._targets, states, strict=True) if state[0] != NOT_NOTED}

    # ---- compared with a data set

    def difference(self, track: SourceTrack) -> Difference:
        """Tell what is otherwise in the data set, of a track whose name is there."""
        row = self._rows[track.name]
        before, now = self._files(row), track.source.file_states(self._targets)
        missing = [target for target in before if target not in now]
        if before and len(missing) == len(before):
            return Difference(gone=f"there is no {track.source} any more")
        files = [f"the file of {target!r} isn't there any more" for target in missing]
        if before:
            files += [f"the file of {target!r} is new" for target in now if target not in before]
        files += [
            f"the file of {target!r} {_edited(before[target], now[target])}"
            for target in before
            if target in now and before[target] != now[target]
        ]
        said = self._row_differences(track, row)
        if not files:  # else where they are says nothing new
            said = [*_differing("source", self._of("source")[row], track.source.reference(self._folder)), *said]
        return Difference(files=tuple(files), row=tuple(said))

    def _row_differences(self, track: SourceTrack, row: int) -> list[str]:
        said: dict[str, tuple[Any, Any]] = {}
        if track.split:
            said["split"] = self._of("split")[row], track.split
        for name, value in track.labels.items():
            label = self._labels.get(name)
            said[name] = (None, value) if label is None else (self._columns[label.path][row], _stored(label, value))
        return [text for name, values in said.items() for text in _differing(name, *values)]

    def gone(self, tracks: Sequence[SourceTrack]) -> dict[str, str]:
        """Find tracks that the data set has no more, and whose source isn't there; and say what it may be called now.

        Parameters
        ----------
        tracks : sequence of SourceTrack
            All that the data set has.
        """
        names = {track.name for track in tracks}
        lost = [name for name, row in self._rows.items() if name not in names and self._is_gone(row)]
        if not lost:
            return {}
        renamed: dict[tuple[tuple[str, FileState], ...], str] = {}
        for track in tracks:
            if track.name not in self._rows:
                renamed.setdefault(_key(track.source.file_states(self._targets)), track.name)
        return {name: self._why_gone(name, renamed) for name in lost}

    def _is_gone(self, row: int) -> bool:
        """Whether what was noted of a track's source says where it is, and it isn't."""
        source = self._of("source")[row]
        if not source:
            return False
        try:
            place = Source.find(source, self._folder, []).path
            return place is not None and not place.exists()
        except OSError:  # a SourceError too: as if it were on another machine: nobody knows from here
            return False

    def _why_gone(self, name: str, renamed: Mapping[tuple[tuple[str, FileState], ...], str]) -> str:
        row = self._rows[name]
        files = self._files(row)
        called = renamed.get(_key(files)) if files else None
        reason = f"its source {self._of('source')[row]} isn't there any more"
        return f"{reason}; {called!r} has files of the same lengths and times" if called else reason


def _differing(name: str, was: Any, now: Any) -> list[str]:
    return [] if was == now else [f"its {name} was {was!r}, and is {now!r}"]


def _key(files: Mapping[str, FileState]) -> tuple[tuple[str, FileState], ...]:
    return tuple(sorted(files.items()))


def _edited(before: FileState, now: FileState) -> str:
    if before[0] != now[0]:
        return f"has {now[0]} bytes, and had {before[0]}"
    return f"was modified {time_text(now)}, and was of {time_text(before)} before"


def _stored(label: Column, value: Label) -> Any:
    """Return what a label's value is when it is read again; the value itself, where the label can't have it."""
    if value is None:
        return None
    try:
        kind = label_type(label.name, value)
    except TrackError:
        return value
    # numpy would make 120 of 120.9, and 1 of True
    fits = kind == label.type or (kind, label.type) == ("int64", "float64")
    return label.value(label.to_array([value])[0]) if fits else value
