"""Keys in a .zip file, wherever that lies: members that aren't compressed are read by ranges.

The store may be packed with its folder, as ``zip -r`` and file managers do. Sizes that the file tells are checked
before room is made, and what is compressed is taken apart no further than it is asked for.

References
----------
PKWARE, "APPNOTE.TXT - .ZIP File Format Specification", version 6.3.10: sections 4.3.7 (local header), 4.3.12 (central
directory), 4.3.14 to 4.3.16 (its end), 4.5.3 (zip64).
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from struct import Struct, error
from typing import NamedTuple

from norbert_store._storage.cache import Recent
from norbert_store._storage.folder import LocalKeys
from norbert_store._storage.keys import METADATA_FILE, Readable, check_key, is_key, too_large
from norbert_store.errors import DamagedError, FormatError, StoreNotFoundError

_END = Struct("<4s4H2LH")
_END_SIGNATURE = b"PK\5\6"
_END64 = Struct("<4sQ2H2L4Q")
_END64_SIGNATURE = b"PK\6\6"
_LOCATOR = Struct("<4sLQL")
_LOCATOR_SIGNATURE = b"PK\6\7"
_ENTRY = Struct("<4s4B4H3L5H2L")
_ENTRY_SIGNATURE = b"PK\1\2"
_HEADER = Struct("<4s2B4H3L2H")
_HEADER_SIGNATURE = b"PK\3\4"

_IN_ZIP64 = 0xFFFFFFFF
_STORED, _DEFLATED = 0, 8
_ENCRYPTED = 1
_UTF8 = 1 << 11

# A comment may stand at the end; a small directory is read along.
_TAIL_BYTES = 2**17
# a third of a million files as zip writes them
_MOST_DIRECTORY_BYTES = 2**25

_PIECE_BYTES = 2**22
_KEPT_BYTES = 2**26
_SMALL_BYTES = 2**24
# Nothing that is large in a store can be compressed, neither JPEGs nor what zstd has compressed already.
_LARGE_BYTES = 2**26
_MOST_EXPANSION = 20


class _Member(NamedTuple):
    """What the central directory says of a file: where its header is, and how it is packed."""

    header: int
    packed: int
    size: int
    method: int
    crc: int


class ZipKeys:
    """The files of a .zip file.

    Parameters
    ----------
    place : Readable
        The folder that it lies in.
    key : str
        Its name there.
    name : str
        The location, for errors.
    folder : str, optional
        The one inside that holds the keys; that of the outermost ``zarr.json``, if left out.

    Raises
    ------
    StoreNotFoundError
        If there is no such file.
    FormatError
        If it is no .zip file, or damaged, or too large to be read.
    """

    def __init__(self, place: Readable, key: str, name: str, folder: str | None = None) -> None:
        self._place = place
        self._key = key
        self._name = name
        self._state = self._file_state()
        self._directory = self._read_directory()
        self._entries = self._find_entries()
        self._folder = f"{folder}/" if folder else _folder_of_store(self._entries)
        self._data_offsets: dict[str, int] = {}
        self._expanded: Recent[str, bytes] = Recent(_KEPT_BYTES)

    # ---- what is asked for

    def get(self, key: str, start: int = 0, length: int | None = None, most: int | None = None) -> bytes | None:
        """Read a key from ``start`` (from its end, if negative) on; None where there is no such key."""
        member = self._member(check_key(key))
        if member is None:
            return None
        if length is not None or start:
            (found,) = self.get_ranges([(key, start, member.size if length is None else length)])
            return found
        if most is not None and member.size > most:
            raise too_large(self._name, key, most, member.size)
        (found,) = self.get_ranges([(key, 0, member.size)])
        if found is not None and (len(found) != member.size or zlib.crc32(found) != member.crc):
            raise self._damaged(key, "its checksum in the .zip file doesn't match")
        return found

    def get_many(self, keys: Sequence[str], most: int) -> list[bytes | None]:
        """Read keys whole."""
        for key in keys:
            member = self._member(check_key(key))
            if member is not None and member.size > most:
                raise too_large(self._name, key, most, member.size)
        return self.get_ranges([(key, 0, most) for key in keys])

    def get_ranges(self, ranges: Sequence[tuple[str, int, int]]) -> list[bytes | None]:
        """Read ranges (key, start, length), many at a time."""
        members = {key: self._member(check_key(key)) for key, _, _ in ranges}
        there = {key: member for key, member in members.items() if member is not None}
        offsets = self._find_data(there)
        spans: list[tuple[str, int, int, int]] = []
        for number, (key, start, length) in enumerate(ranges):
            if key in there:
                size = there[key].size
                begin = max(0, size + start) if start < 0 else min(start, size)
                spans.append((key, begin, min(begin + length, size), number))
        found: list[bytes | None] = [None] * len(ranges)
        stored = [span for span in spans if there[span[0]].method == _STORED]
        pieces = self._read([(offsets[key] + begin, end - begin) for key, begin, end, _ in stored])
        for (_, _, _, number), piece in zip(stored, pieces, strict=True):
            found[number] = piece
        for key, begin, end, number in spans:
            if there[key].method == _DEFLATED:
                found[number] = self._expand(key, there[key], offsets[key], begin, end)
        return found

    def size(self, key: str) -> int | None:
        """Count the bytes of a key; None where there is no such key."""
        member = self._member(check_key(key))
        return None if member is None else member.size

    def list(self, prefix: str = "") -> list[str]:
        """List all keys below a prefix, in order; names that can't be keys aren't a store's."""
        below = f"{self._folder}{check_key(prefix)}/" if prefix else self._folder
        names = (name.removeprefix(self._folder) for name in self._entries if name.startswith(below))
        return sorted(filter(is_key, names))

    def is_empty(self) -> bool:
        """Whether there is nothing at all."""
        return not self._entries

    # ---- members

    def _member(self, key: str) -> _Member | None:
        entry = self._entries.get(self._folder + key)
        if entry is None:
            return None
        fields = _ENTRY.unpack_from(self._directory, entry)
        flags, method, crc, packed, size, name, extra, header = *fields[5:7], *fields[9:14], fields[-1]
        begin = entry + _ENTRY.size + name
        header, packed, size = _zip64(self._directory[begin : begin + extra], header, packed, size)
        if flags & _ENCRYPTED or method not in (_STORED, _DEFLATED):
            how = "encrypted" if flags & _ENCRYPTED else f"compressed by method {method}"
            raise FormatError(f"{self._name}: {key} is {how}; pack the store anew, without compression (zip -0)")
        if (method == _STORED and packed != size) or (size > _LARGE_BYTES and size > _MOST_EXPANSION * packed):
            raise self._damaged(key, f"it is said to have {size} bytes, and {packed} in the .zip file")
        return _Member(header, packed, size, method, crc)

    def _find_data(self, members: dict[str, _Member]) -> dict[str, int]:
        """Find where the bytes of members begin: behind headers, whose length they tell themselves."""
        unknown = {key: member.header for key, member in members.items() if key not in self._data_offsets}
        for (key, offset), header in zip(
            unknown.items(), self._read([(offset, _HEADER.size) for offset in unknown.values()]), strict=True
        ):
            if len(header) < _HEADER.size or header[:4] != _HEADER_SIGNATURE:
                raise self._damaged(key, "it isn't where the .zip file says that it is")
            name, extra = _HEADER.unpack(header)[-2:]
            self._data_offsets[key] = offset + _HEADER.size + name + extra
        return {key: self._data_offsets[key] for key in members}

    def _expand(self, key: str, member: _Member, offset: int, begin: int, end: int) -> bytes:
        """Decompress a member as far as it is asked for; keep it, if it is small."""
        if member.size > _SMALL_BYTES:
            return self._inflate(key, member, offset, begin, end)
        whole = self._expanded.get(key)
        if whole is None:
            whole = self._inflate(key, member, offset, 0, member.size)
            self._expanded.put(key, whole, len(whole))
        return whole[begin:end]

    def _inflate(self, key: str, member: _Member, offset: int, begin: int, end: int) -> bytes:
        inflating = zlib.decompressobj(-zlib.MAX_WBITS)
        found = []
        position = packed = 0
        while position < end and not inflating.eof:
            data = inflating.unconsumed_tail
            if not data and packed < member.packed:
                (data,) = self._read([(offset + packed, min(_PIECE_BYTES, member.packed - packed))])
                packed += len(data)
            try:
                piece = inflating.decompress(data, _PIECE_BYTES)
            except zlib.error as problem:
                raise self._damaged(key, f"it can't be decompressed: {problem}") from None
            if not piece and not data:
                raise self._damaged(key, "it is cut short in the .zip file")
            found.append(piece[max(0, begin - position) : max(0, end - position)])
            position += len(piece)
        return b"".join(found)

    def _damaged(self, key: str, problem: str) -> DamagedError:
        return DamagedError(problem, key=key, store=self._name)

    # ---- the file

    def _file_state(self) -> object:
        return self._place.state(self._key) if isinstance(self._place, LocalKeys) else None

    def _read(self, spans: Sequence[tuple[int, int]]) -> Sequence[bytes]:
        """Read ranges of the .zip file, which must be the one that was opened."""
        if not spans:
            return []
        found = self._place.get_ranges([(self._key, start, length) for start, length in spans])
        if any(piece is None for piece in found) or self._file_state() != self._state:
            raise DamagedError("it was replaced since it was opened, or deleted; open it again", store=self._name)
        return [piece or b"" for piece in found]

    def _read_directory(self) -> bytes:
        """Read the central directory, which stands at the end."""
        tail = self._place.get(self._key, -_TAIL_BYTES, _TAIL_BYTES)
        if tail is None:
            raise StoreNotFoundError(f"there is no store at {self._name}")
        at = tail.rfind(_END_SIGNATURE)
        if at < 0 or len(tail) - at < _END.size:
            raise FormatError(f"{self._name} is no .zip file, or is cut short: it doesn't end as one does")
        size, offset = _END.unpack_from(tail, at)[5:7]
        before = at - _LOCATOR.size
        if before >= 0 and tail[before:at].startswith(_LOCATOR_SIGNATURE):
            end = tail[max(0, before - _END64.size) : before]
            if not end.startswith(_END64_SIGNATURE):
                (end,) = self._read([(_LOCATOR.unpack_from(tail, before)[2], _END64.size)])
            if len(end) < _END64.size or end[:4] != _END64_SIGNATURE:
                raise FormatError(f"{self._name} is a damaged .zip file: its end (zip64) isn't where it says")
            size, offset = _END64.unpack(end)[8:10]
            at = before - _END64.size
        if size > _MOST_DIRECTORY_BYTES:
            raise FormatError(
                f"{self._name} has a table of contents of {size} bytes; expected at most {_MOST_DIRECTORY_BYTES}: "
                "unpack the store"
            )
        if size <= at and tail[at - size : at].startswith(_ENTRY_SIGNATURE):
            return tail[at - size : at]
        (directory,) = self._read([(offset, size)])
        return directory

    def _find_entries(self) -> dict[str, int]:
        """Find where in the directory each file's entry begins."""
        entries: dict[str, int] = {}
        position = 0
        while position < len(self._directory):
            try:
                fields = _ENTRY.unpack_from(self._directory, position)
            except error:
                fields = (b"",)
            if fields[0] != _ENTRY_SIGNATURE:
                raise FormatError(f"{self._name} is a damaged .zip file: its table of contents breaks off")
            flags, (name, extra, comment) = fields[5], fields[12:15]
            begin = position + _ENTRY.size
            entries[_text(self._directory[begin : begin + name], flags)] = position
            position = begin + name + extra + comment
        return entries


def _text(name: bytes, flags: int) -> str:
    text = name.decode("utf-8" if flags & _UTF8 else "cp437", "replace")
    return text.replace("\\", "/")  # as some programs write


def _zip64(extra: bytes, header: int, packed: int, size: int) -> tuple[int, int, int]:
    """Take numbers that are too large for 32 bits from where they stand then."""
    while len(extra) >= 4 and _IN_ZIP64 in (header, packed, size):
        kind, length = int.from_bytes(extra[:2], "little"), int.from_bytes(extra[2:4], "little")
        if kind == 1:
            numbers = iter(int.from_bytes(extra[i : i + 8], "little") for i in range(4, 4 + length, 8))
            size = next(numbers, size) if size == _IN_ZIP64 else size
            packed = next(numbers, packed) if packed == _IN_ZIP64 else packed
            header = next(numbers, header) if header == _IN_ZIP64 else header
            break
        extra = extra[4 + length :]
    return header, packed, size


def _folder_of_store(entries: dict[str, int]) -> str:
    """The folder of the outermost document, with "/" at its end; none, if there are several equally far out."""
    documents = [name for name in entries if name == METADATA_FILE or name.endswith(f"/{METADATA_FILE}")]
    depth = min((name.count("/") for name in documents), default=0)
    outermost = [name for name in documents if name.count("/") == depth]
    return outermost[0].removesuffix(METADATA_FILE) if len(outermost) == 1 else ""
