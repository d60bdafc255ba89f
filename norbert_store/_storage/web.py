"""Keys on a web server: what is asked for is read, and no more, whatever the server sends.

A server may answer a range by all of the file (``python -m http.server`` does). Then what lies before the range is read
and thrown away, and the connection is closed behind it: right, and slow, which is said once.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit, urlunsplit

import yarl
from aiohttp import ClientResponse
from fsspec.implementations.http import HTTPFileSystem  # type: ignore[import-untyped]

from norbert_store._storage.keys import check_key
from norbert_store._storage.remote import LastingError, RemoteKeys
from norbert_store.errors import StorageError

# what an answer of unknown length may have, of which the end is asked for
_MOST_UNTOLD_BYTES = 2**30
_PIECE_BYTES = 2**18

_NOT_THERE = (404, 410)
_PAST_END = 416
_PARTIAL = 206
_TOO_BUSY = (408, 425, 429)

# what stands in URLs as it is, or is encoded already
_RESERVED = "%/:?@!$&'()*+,;=~"

_Result = TypeVar("_Result")


class WebKeys(RemoteKeys):
    """The files below a URL. A query stays behind every key, as servers want it that sign URLs.

    Parameters
    ----------
    url : str
    name : str
        The location, for errors.
    attempts : int
        How often a request is sent that ends in a transient error.
    system : HTTPFileSystem
        Holds the connections, and what is sent along with every request.
    """

    def __init__(self, url: str, name: str, attempts: int, system: HTTPFileSystem) -> None:
        super().__init__(name, attempts)
        parts = urlsplit(url)
        path = quote(parts.path.rstrip("/"), safe=_RESERVED)
        self._folder = urlunsplit((parts.scheme, parts.netloc, path, "", ""))
        self._query = f"?{quote(parts.query, safe=_RESERVED)}" if parts.query else ""
        self._system = system
        self._ignores_ranges = False
        self._warned = False

    def get_ranges(self, ranges: Sequence[tuple[str, int, int]]) -> list[bytes | None]:
        """Read ranges (key, start, length), many at a time; of a server that ignores ranges, each file once."""
        if not self._ignores_ranges:
            return super().get_ranges(ranges)
        spans: dict[str, tuple[int, int]] = {}
        for key, start, length in ranges:
            if start >= 0:
                first, last = spans.get(key, (start, 0))
                spans[key] = min(first, start), max(last, start + length)
        from_ends = [part for part in ranges if part[1] < 0]
        found = super().get_ranges([(key, start, end - start) for key, (start, end) in spans.items()] + from_ends)
        pieces, ends = dict(zip(spans, found[: len(spans)], strict=True)), iter(found[len(spans) :])
        return [
            next(ends) if start < 0 else _part(pieces[key], start - spans[key][0], length)
            for key, start, length in ranges
        ]

    def size(self, key: str) -> int | None:
        """Count the bytes of a key; None where there is no such key."""
        check_key(key)

        async def size() -> int | None:
            for method in ("HEAD", "GET"):  # not every server knows the first
                async with await self._ask(method, key, {}) as answer:
                    if answer.status in _NOT_THERE:
                        return None
                    if answer.ok and answer.content_length is not None:
                        return answer.content_length
            if not answer.ok:
                raise _refusal(answer)
            raise LastingError("the server doesn't tell its length")

        return self.run(key, "can't be read", size)

    def list(self, prefix: str = "") -> list[str]:
        """Refuse to: a web server doesn't tell what it has."""
        raise StorageError("can't be listed: web servers don't tell what they have", place=self.name)

    def is_empty(self) -> bool:
        """Refuse to, as `list`."""
        return not self.list()

    async def _read(self, key: str, start: int, length: int | None, most: int | None) -> bytes | None:
        if length == 0:
            return b""
        if length is None and most is not None:
            length = most + 1
            asked = ""
        else:
            asked = _range_header(start, length)
        if start < 0:
            length = -start if length is None else min(length, -start)
        async with await self._ask("GET", key, {"Range": asked} if asked else {}) as answer:
            if answer.status in _NOT_THERE:
                return None
            if answer.status == _PAST_END:
                return b""
            if not answer.ok:
                raise _refusal(answer)
            if answer.status == _PARTIAL:
                _check_part(answer, start)
                return await _cut(answer, 0, length)
            self._ignores_ranges |= bool(asked)
            if start >= 0:
                return await _cut(answer, start, length)
            size = None if _is_encoded(answer) else answer.content_length
            return await (_end(answer, -start, length) if size is None else _cut(answer, max(0, size + start), length))

    async def _ask(self, method: str, key: str, headers: dict[str, str]) -> ClientResponse:
        session = await self._system.set_session()
        options = dict(self._system.kwargs)
        # compressed, a range would be one of other bytes
        sent = {"Accept-Encoding": "identity", **options.pop("headers", {}), **headers}
        url = yarl.URL(f"{self._folder}/{quote(key)}{self._query}", encoded=True)
        return await session.request(method, url, headers=sent, **options)

    def run(
        self, key: str, failure: str, operation: Callable[[], Awaitable[_Result]], attempts: int | None = None
    ) -> _Result:
        """Wait for an operation; say once that a server is slow, here where callers hear it."""
        found = super().run(key, failure, operation, attempts)
        if self._ignores_ranges and not self._warned:
            self._warned = True
            warnings.warn(
                f"{self.name}: this web server sends whole files where parts of them are asked for, which is slow; "
                "use one that knows ranges, or download the store",
                stacklevel=2,
            )
        return found


def _range_header(start: int, length: int | None) -> str:
    if start < 0:
        return f"bytes={start}"
    if length is None:
        return f"bytes={start}-" if start else ""
    return f"bytes={start}-{start + length - 1}"


def _check_part(answer: ClientResponse, start: int) -> None:
    """Check that what is sent is what was asked for."""
    if _is_encoded(answer):
        raise LastingError("the server sends a part of a compressed file; it must send what is stored")
    found = re.match(r"bytes (\d+)-", answer.headers.get("Content-Range", ""))
    if found and start >= 0 and int(found[1]) != start:
        raise LastingError(f"the server sends what begins at byte {found[1]}; byte {start} was asked for")


def _is_encoded(answer: ClientResponse) -> bool:
    return answer.headers.get("Content-Encoding", "identity") != "identity"


async def _cut(answer: ClientResponse, start: int, length: int | None) -> bytes:
    """Read on until a range is whole, or all ends."""
    found: list[bytes] = []
    position = 0
    end = None if length is None else start + length
    async for piece in answer.content.iter_chunked(_PIECE_BYTES):
        found.append(piece[max(0, start - position) : None if end is None else end - position])
        position += len(piece)
        if end is not None and position >= end:
            break
    return b"".join(found)


async def _end(answer: ClientResponse, suffix: int, length: int | None) -> bytes:
    """Read the end of what tells no length."""
    found = bytearray()
    position = 0
    async for piece in answer.content.iter_chunked(_PIECE_BYTES):
        found += piece
        position += len(piece)
        if len(found) > 2 * suffix:
            del found[:-suffix]
        if position > _MOST_UNTOLD_BYTES:
            raise LastingError(
                f"the server sends more than {_MOST_UNTOLD_BYTES} bytes, and doesn't tell how many there are"
            )
    return bytes(found[-suffix:][:length])


def _part(data: bytes | None, start: int, length: int) -> bytes | None:
    return None if data is None else data[start : start + length]


def _refusal(answer: ClientResponse) -> Exception:
    what = f"the server answers {answer.status} {answer.reason}"
    lasting = 400 <= answer.status < 500 and answer.status not in _TOO_BUSY
    return LastingError(what) if lasting else OSError(what)


def web_system(options: Mapping[str, Any]) -> HTTPFileSystem:
    """Open what holds connections, with options of fsspec's HTTPFileSystem."""
    return HTTPFileSystem(**{"asynchronous": True, **options})
