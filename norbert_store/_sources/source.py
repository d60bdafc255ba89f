"""A track's source: where its audio lies, which stems it has, and how it is found again from a store.

A source is a folder that holds ``<stem>.wav`` for each stem, one file with a stream per stem (``.mp4``, ``.m4a``), or
one plain audio file. A store notes it as text: a path relative to the folder that holds the store, or a ``file:`` URI
where the store is no folder on this machine.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Self
from urllib.parse import unquote, urlsplit

from norbert_store._sources.files import AudioInfo, Block, audio_info, check_file, read_blocks, read_stems, stems_info
from norbert_store._storage.places import is_url, local_path, name_of
from norbert_store._text import printable, shortened
from norbert_store.errors import AudioError, SourceError

MIXTURE = "mixture"

FileState = tuple[int, int]
"""Length of a file, bytes, and when it was modified, nanoseconds since 1970: what tells whether it was edited."""

_LONGEST_REFERENCE = 4096
_GIVE = "give the folder that its audio lies in as audio_root"
_GIVE_BOTH = "give a folder that holds this link and its file as audio_root, or put the file in the place of the link"
_STREAM_SUFFIXES = (".mp4", ".m4a")


@dataclass(frozen=True)
class Source:
    """Where the audio of a track is.

    Attributes
    ----------
    path : Path, optional
        The one place that tells all of it: a folder, a file with a stream per stem, or a plain file. None where files
        lie as no store could note them.
    files : mapping of str to Path
        The file of each stem; empty where ``path`` is a file with a stream per stem.
    alone : str, optional
        The stem that a file with a single stream is taken for; by the name of its stream, if left out.
    """

    path: Path | None
    files: Mapping[str, Path] = field(default_factory=dict)
    alone: str | None = None

    # ---- found, and found again

    @classmethod
    def at(cls, place: str | os.PathLike[str], stems: Sequence[str], alone: str = MIXTURE) -> Self:
        """Take a place for the source of some stems.

        Parameters
        ----------
        place : str or path
            A folder, a file, or a ``file:`` URI of one.
        stems : sequence of str
            Those that are wanted of a folder.
        alone : str
            The stem that a plain file, or one with a single stream, holds.

        Raises
        ------
        SourceError
            If it is a URI that can't be read from here.
        """
        path = audio_path(place)
        if path.is_dir():
            return cls(path, {stem: path / f"{stem}.wav" for stem in stems})
        if path.suffix.lower() in _STREAM_SUFFIXES:
            return cls(path, alone=alone)
        return cls(path, {alone: path})

    @classmethod
    def of_files(cls, files: Mapping[str, Path]) -> Self:
        """Take a file for each stem, wherever they lie.

        A store notes their folder where ``<stem>.wav`` is their name, else the mixture, or the only one.
        """
        folder = next(iter(files.values())).parent
        if len(files) > 1 and all(file == folder / f"{stem}.wav" for stem, file in files.items()):
            return cls(folder, files)
        only = next(iter(files.values())) if len(files) == 1 else None
        return cls(files.get(MIXTURE, only), files)

    @classmethod
    def find(
        cls,
        reference: str,
        store_folder: Path | None,
        stems: Sequence[str],
        alone: str = MIXTURE,
        below: Path | None = None,
    ) -> Self:
        """Find again what a store has noted.

        Parameters
        ----------
        reference : str
            As `reference` wrote it.
        store_folder : Path, optional
            That of the store, if it is one on this machine.
        stems, alone
            As for `at`.
        below : Path, optional
            A folder to look in instead: of what was noted, the longest end that is there is taken.

        Raises
        ------
        SourceError
            If nothing was noted, it can't be found, or it leads out of ``below``, or else of the folder that holds the
            store: a store may come from a stranger, who doesn't choose what is read here.
        """
        if not reference:
            raise SourceError("the track table doesn't say where its audio is")
        if len(reference) > _LONGEST_REFERENCE or "\0" in reference:
            raise SourceError(f"its source {_told(reference)} can't be the name of a file")
        try:
            place, root = _find(reference, store_folder, below)
            found = cls.at(place, stems, alone)
            for path in (found.path or place, *found.files.values()):
                _check_below(root, path, reference)
        except (OSError, ValueError) as error:
            if isinstance(error, SourceError):
                raise
            # of names that are too long, or links in a circle
            raise SourceError(f"its source {_told(reference)} can't be looked for: {error}") from None
        return found

    def reference(self, store_folder: Path | None) -> str:
        """Write where it is, for a store: relative to the folder that holds the store's, or a URI; empty if unknown."""
        if self.path is None:
            return ""
        if store_folder is None:
            return self.path.absolute().as_uri()
        try:
            # resolved, since the way back from the store may not lead through the links that led there; but for the
            # last one, whose suffix tells what it is, and which may lead to a file without any
            path = self.path.absolute()
            return Path(os.path.relpath(path.parent.resolve() / path.name, store_folder.resolve().parent)).as_posix()
        except ValueError:  # on Windows, another drive
            return self.path.absolute().as_uri()

    def __str__(self) -> str:
        return str(next(iter(self.files.values())) if self.path is None else self.path)

    # ---- what it holds

    @property
    def audio_bytes(self) -> int:
        """Size of its files, as far as they are there."""
        paths = [*self.files.values()] or [Path(str(self))]
        return sum(os.path.getsize(path) for path in paths if path.is_file())

    def file_states(self, stems: Sequence[str]) -> dict[str, FileState]:
        """Tell length and time of the file that each stem is in; of stems whose file isn't there, nothing.

        Parameters
        ----------
        stems : sequence of str
            Those that a file with a stream per stem may have.
        """
        if not self.files:
            state = None if self.path is None else _file_state(self.path)
            return {} if state is None else dict.fromkeys(stems, state)
        states = {stem: _file_state(file) for stem, file in self.files.items()}
        return {stem: state for stem, state in states.items() if state is not None}

    def first_headers(self) -> dict[str, AudioInfo]:
        """Read the header of the first file: that of one stem, or of all that are streams of it.

        Raises
        ------
        SourceError, AudioError
            As `norbert_store._sources.files.audio_info` and `norbert_store._sources.files.stems_info`.
        """
        for stem, file in self.files.items():
            return {stem: audio_info(file)}
        return stems_info(str(self), self.alone)

    def headers(self, known: Mapping[str, AudioInfo] | None = None) -> dict[str, AudioInfo]:
        """Read the headers of all stems, but for those that are known.

        Raises
        ------
        SourceError, AudioError
            As `first_headers`.
        """
        known = known or {}
        if self.files:
            return {stem: known.get(stem) or audio_info(file) for stem, file in self.files.items()}
        return dict(known) or stems_info(str(self), self.alone)

    def blocks(self, headers: Mapping[str, AudioInfo]) -> Iterator[tuple[str, Block]]:
        """Read those stems whose headers are given: (stem, block), in any order.

        Raises
        ------
        SourceError, AudioError
            If a file isn't there or can't be read, or was changed since its header was read.
        """
        if not self.files:
            yield from read_stems(str(self), headers, self.alone)
        for stem, file in self.files.items():
            if stem in headers:
                yield from ((stem, block) for block in read_blocks(file, headers[stem]))

    def headers_of(self, stems: Sequence[str]) -> dict[str, AudioInfo]:
        """Read the headers of some stems, which must be there.

        Raises
        ------
        SourceError
            If there is no such file, or it has no such stem.
        AudioError
            If it can't be read.
        """
        headers = {} if self.files else stems_info(str(self), self.alone)
        there = self.files or headers
        for stem in stems:
            if stem not in there:
                for file in self.files.values():
                    check_file(file)  # what isn't there looks like a plain file
                raise SourceError(f"{self} has no stem {stem!r}; it has {', '.join(map(repr, there))}")
        return {stem: headers.get(stem) or audio_info(self.files[stem]) for stem in stems}

    def read(self, stem: str) -> tuple[AudioInfo, Iterator[Block]]:
        """Read one stem: what its header says, and blocks (samples, channels).

        Raises
        ------
        SourceError, AudioError
            As `headers_of`, at once; as `blocks`, while it is read.
        """
        headers = self.headers_of([stem])
        return headers[stem], (block for _, block in self.blocks(headers))

    def check(self, headers: Mapping[str, AudioInfo], targets: Sequence[str], rate: int) -> None:
        """Compare what all headers say with what a store takes, before any audio is read.

        Parameters
        ----------
        headers : mapping of str to AudioInfo
        targets : sequence of str
            Those that the store has.
        rate : int
            Samples per second that the store has.

        Raises
        ------
        AudioError
            If a stem is no target, or has another rate, or stems differ in length.
        """
        for stem, info in headers.items():
            file = self.files.get(stem, self)
            if stem not in targets:
                raise AudioError(f"{file} has a stem {stem!r}; expected {', '.join(map(repr, targets))}")
            if info.rate != rate:
                raise AudioError(f"{file} has {info.rate} samples per second; the store has {rate}: resample it before")
        if len({info.samples for info in headers.values()}) > 1:
            found = ", ".join(f"{stem} {info.samples}" for stem, info in headers.items())
            raise AudioError(f"its stems differ in length (samples: {found}); cut or pad them to the same")


def _file_state(file: Path) -> FileState | None:
    try:
        status = os.stat(file)
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


def time_text(state: FileState) -> str:
    """Write when a file was modified, for people."""
    nanoseconds = state[1]
    try:
        return datetime.fromtimestamp(nanoseconds / 1e9, UTC).isoformat(" ", "microseconds").removesuffix("+00:00")
    except (OverflowError, ValueError, OSError):  # of a time that no calendar has
        return f"{nanoseconds} ns after 1970"


def read_stem(place: str | os.PathLike[str], stem: str) -> tuple[AudioInfo, Iterator[Block]]:
    """Read one stem of what is at a place; a plain file is taken as it is.

    Raises
    ------
    SourceError, AudioError
        As `Source.at` and `Source.read`.
    """
    return Source.at(place, [stem], alone=stem).read(stem)


def _find(reference: str, store_folder: Path | None, below: Path | None) -> tuple[Path, Path]:
    """Find what was noted, and the folder that it must be below."""
    if below is not None:
        return _find_below(below, reference), below
    path = audio_path(reference) if "://" in reference else Path(reference)  # no store means anyone's home by "~"
    if store_folder is None and path.is_absolute():
        raise SourceError(f"its source {_told(reference)} isn't read unasked, as the store is in no folder; {_GIVE}")
    if store_folder is None:
        raise SourceError(f"its source {_told(reference)} is relative to a folder that isn't on this machine; {_GIVE}")
    root = store_folder.resolve().parent
    return root / path, root


def _find_below(root: Path, reference: str) -> Path:
    """Find the longest end of what was noted that is there below a folder."""
    path = unquote(urlsplit(reference).path) if "://" in reference else reference
    parts = [part for part in PurePosixPath(path).parts if part not in ("/", "..")]
    for first in range(len(parts)):
        found = root.joinpath(*parts[first:])
        if found.exists():
            return found
    raise SourceError(f"its source {_told(reference)} isn't below {root}")


def _check_below(root: Path, path: Path, reference: str) -> None:
    """See that neither a name nor a symbolic link leads out of a folder."""
    inside = os.path.join(os.path.realpath(root), "")
    if not os.path.join(os.path.realpath(path), "").startswith(inside):
        raise SourceError(
            f"its source {_told(reference)} leads out of {root}, and what a store names is read below that alone; "
            f"{_GIVE_BOTH if path.is_symlink() else _GIVE}"
        )


def _told(reference: str) -> str:
    return printable(shortened(reference))


def audio_path(place: str | os.PathLike[str]) -> Path:
    """Take a path, perhaps with ``~``, or a ``file:`` URI, as a path.

    Raises
    ------
    SourceError
        If it is another kind of URI, or one of another machine.
    """
    text = os.fspath(place)
    if is_url(text):
        raise SourceError(f"audio at {_told(name_of(text))} can't be read from here; fetch it first")
    if "://" not in text:
        return Path(os.path.expanduser(text))
    try:
        return local_path(text)
    except ValueError as error:
        raise SourceError(str(error)) from None
