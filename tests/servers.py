"""Servers on loopback that tests read from and write to: S3 (moto), plain HTTP over a folder, and a faulty proxy.

All are context managers. The proxy stands in front of either server, counts requests, and breaks some on purpose.
"""

from __future__ import annotations

import gzip
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from email.message import Message
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
from zarr.storage import MemoryStore

BUCKET = "bucket"

# Ends when its standard input is closed, which it is when the process that started it ends, however that comes about.
_S3_SERVER = """
import logging, sys, threading
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server

logging.getLogger("werkzeug").setLevel(logging.ERROR)
MotoRequestHandler.disable_nagle_algorithm = True  # small answers would wait 40 ms for each other
application = DomainDispatcherApplication(create_backend_app)
writing = threading.Lock()

def one_writes(environment, respond):
    # S3 looks at a condition and writes in one step, moto in two
    if environment["REQUEST_METHOD"] != "PUT":
        return application(environment, respond)
    with writing:
        return application(environment, respond)

server = make_server("127.0.0.1", 0, one_writes, threaded=True, request_handler=MotoRequestHandler)
threading.Thread(target=server.serve_forever, daemon=True).start()
print(server.server_port, flush=True)
sys.stdin.read()
"""


@dataclass(frozen=True)
class S3:
    """Where an S3 server is, and how to get in."""

    endpoint: str
    bucket: str = BUCKET
    key: str = "key"
    secret: str = "secret"
    region: str = "us-east-1"

    def behind(self, proxy: Proxy) -> S3:
        """The same server, through a proxy."""
        return replace(self, endpoint=proxy.url)

    @property
    def environment(self) -> dict[str, str]:
        """Variables by which s3fs, obstore and boto find the server, for ``s3://`` URLs without options."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.key,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_DEFAULT_REGION": self.region,
            "AWS_ALLOW_HTTP": "true",  # obstore wants TLS otherwise
            "AWS_EC2_METADATA_DISABLED": "true",  # credentials are asked of nobody else
            "AWS_CONFIG_FILE": "/dev/null",
            "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        }

    def s3fs_options(self, **options: Any) -> dict[str, Any]:
        """What s3fs takes, as ``storage_options`` of zarr's FsspecStore."""
        return {
            "key": self.key,
            "secret": self.secret,
            "endpoint_url": self.endpoint,
            "client_kwargs": {"region_name": self.region},
            **options,
        }

    def obstore_options(self, **options: Any) -> dict[str, Any]:
        """What obstore's S3Store takes beside bucket and prefix."""
        return {
            "endpoint": self.endpoint,
            "access_key_id": self.key,
            "secret_access_key": self.secret,
            "region": self.region,
            "client_options": {"allow_http": True},
            **options,
        }


@contextmanager
def s3_server() -> Iterator[S3]:
    """Run moto's S3 server, with an empty bucket, in a process of its own."""
    command = [sys.executable, "-c", _S3_SERVER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            port = int(process.stdout.readline())
            put = HTTPConnection("127.0.0.1", port, timeout=30)
            put.request("PUT", f"/{BUCKET}")
            assert put.getresponse().status == 200
            put.close()
            yield S3(f"http://127.0.0.1:{port}")
        finally:
            process.kill()


@dataclass(frozen=True)
class Request:
    """What a proxy was asked for.

    Attributes
    ----------
    method : str
    path : str
        Without the query, unquoted; over S3 that is ``/bucket/key``.
    query : str
    range : str
        The header, without "bytes=": "0-9", "5-", "-4", or empty.
    headers : message
    """

    method: str
    path: str
    query: str
    range: str
    headers: Message = field(repr=False, compare=False)


# What a proxy does to a request, if anything: one of FAULTS.
Rule = Callable[[Request], str | None]

FAULTS = {
    "500": "answers with an internal error",
    "501": "answers that it doesn't know how",
    "503": "answers that it is too busy",
    "refuse": "closes the connection without asking the server",
    "cut": "asks the server, and closes the connection in the middle of the answer",
    "stall": "answers nothing for `Proxy.stall` seconds, then closes the connection, without asking the server",
}


def at_random(share: float, seed: int, faults: Sequence[str] = ("500", "503", "refuse", "cut")) -> Rule:
    """Break a share of all requests."""
    rng, lock = np.random.default_rng(seed), threading.Lock()

    def rule(request: Request) -> str | None:
        with lock:
            return faults[int(rng.integers(len(faults)))] if rng.random() < share else None

    return rule


def in_turn(*faults: str | None) -> Rule:
    """Break the first requests, each in its way, or not (None); leave those after alone."""
    left = iter(faults)
    return lambda request: next(left, None)


def always(fault: str) -> Rule:
    """Break every request."""
    return lambda request: fault


class Proxy:
    """Passes requests on to a server, writes them down, and breaks those that `rule` says.

    Attributes
    ----------
    url : str
    requests : list of Request
        All so far, broken or not.
    faults : list of str
        What was done to requests so far.
    rule : callable
        From a Request to one of FAULTS, or None; called by several threads at a time.
    stall : float
        Seconds.
    """

    def __init__(self, url: str, upstream: str) -> None:
        self.url = url
        self.requests: list[Request] = []
        self.faults: list[str] = []
        self.rule: Rule = lambda request: None
        self.stall = 60.0
        self.ended = threading.Event()
        self._upstream = urlsplit(upstream)

    @contextmanager
    def counting(self) -> Iterator[list[Request]]:
        """Give a list that holds the requests of the ``with`` block, once it is left."""
        found: list[Request] = []
        before = len(self.requests)
        yield found
        found += self.requests[before:]

    @contextmanager
    def breaking(self, rule: Rule) -> Iterator[list[str]]:
        """Break requests in the ``with`` block; give the list of faults."""
        before, self.rule, self.faults = self.rule, rule, []
        try:
            yield self.faults
        finally:
            self.rule = before

    def decide(self, request: Request) -> str | None:
        """Write a request down, and say what is done to it."""
        self.requests.append(request)
        fault = self.rule(request)
        if fault is not None:
            self.faults.append(fault)
        return fault

    def ask(self, method: str, target: str, headers: Message, body: bytes) -> tuple[int, Message, bytes]:
        """Ask the server; return status, headers and body of its answer."""
        connection = HTTPConnection(str(self._upstream.hostname), self._upstream.port, timeout=60)
        try:
            # signatures hold for the host that the client asked, so its header goes on as it is
            connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
            for name, value in headers.items():
                if name.lower() not in _BETWEEN_TWO:
                    connection.putheader(name, value)
            if body or method in ("PUT", "POST"):
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()
        finally:
            connection.close()


# headers that hold between two machines only
_BETWEEN_TWO = {"connection", "keep-alive", "transfer-encoding", "content-length", "expect", "te", "upgrade"}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = 60

    def __getattr__(self, name: str) -> Any:
        if name.startswith("do_"):
            return self.serve
        raise AttributeError(name)

    def serve(self) -> None:
        raise NotImplementedError

    def answer(self, status: int, headers: Sequence[tuple[str, str]] = (), body: bytes = b"", length: int = -1) -> None:
        """Send an answer; with a length, say that it is this long, whatever is sent."""
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        if status not in (204, 304):
            self.send_header("Content-Length", str(len(body) if length < 0 else length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def handle(self) -> None:
        with suppress(OSError):  # a client that hangs up
            super().handle()

    def log_message(self, *_: object) -> None:
        pass


class _ProxyHandler(_Handler):
    proxy: Proxy

    def serve(self) -> None:
        target = urlsplit(self.path)
        bytes_range = self.headers.get("Range", "").removeprefix("bytes=")
        body = self._body()
        request = Request(self.command, unquote(target.path), target.query, bytes_range, self.headers)
        match self.proxy.decide(request):
            case "500" | "501" | "503" as fault:
                self.answer(int(fault), [("Content-Type", "application/xml")], _S3_ERRORS[fault])
            case "refuse":
                self.close_connection = True
            case "stall":
                self.proxy.ended.wait(self.proxy.stall)
                self.close_connection = True
            case fault:
                self._pass_on(body, cut=fault == "cut")

    def _pass_on(self, body: bytes, cut: bool) -> None:
        try:
            status, found, content = self.proxy.ask(self.command, self.path, self.headers, body)
        except (OSError, HTTPException):
            self.close_connection = True
            return
        headers = [(name, value) for name, value in found.items() if name.lower() not in _BETWEEN_TWO]
        length = int(found.get("Content-Length", 0)) if self.command == "HEAD" else len(content)
        if not cut:
            self.answer(status, headers, content, length)
            return
        self.close_connection = True
        if content:
            self.answer(status, headers, content[: len(content) // 2], length)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body


_S3_ERRORS = {
    "500": b"<?xml version='1.0'?><Error><Code>InternalError</Code><Message>injected</Message></Error>",
    "501": b"<?xml version='1.0'?><Error><Code>NotImplemented</Code><Message>injected</Message></Error>",
    "503": b"<?xml version='1.0'?><Error><Code>SlowDown</Code><Message>injected</Message></Error>",
}


class _FolderHandler(_Handler):
    folder: Path
    ranges: bool
    query: str
    heads: bool
    lengths: bool
    gzipped: bool

    def serve(self) -> None:
        target = urlsplit(self.path)
        path = self.folder / unquote(target.path).lstrip("/")
        if self.command not in (("GET", "HEAD") if self.heads else ("GET",)):
            self.answer(405)
        elif target.query != self.query:
            self.answer(403)
        elif not path.is_file():
            self.answer(404)
        else:
            self._send(path.read_bytes(), self.headers.get("Range", "") if self.ranges else "")

    def _send(self, data: bytes, bytes_range: str) -> None:
        headers = [("Accept-Ranges", "bytes" if self.ranges else "none")]
        found = re.fullmatch(r"bytes=(\d*)-(\d*)", bytes_range)
        if not found or bytes_range == "bytes=-":
            self._send_whole(data, headers)
            return
        first, last = found.groups()
        start = int(first) if first else max(len(data) - int(last), 0)
        stop = min(int(last) + 1, len(data)) if first and last else len(data)
        if start >= stop:
            self.answer(416, [("Content-Range", f"bytes */{len(data)}")])
            return
        headers.append(("Content-Range", f"bytes {start}-{stop - 1}/{len(data)}"))
        self.answer(206, headers, data[start:stop])

    def _send_whole(self, data: bytes, headers: list[tuple[str, str]]) -> None:
        if self.gzipped:
            data = gzip.compress(data)
            headers.append(("Content-Encoding", "gzip"))
        if self.lengths:
            self.answer(200, headers, data)
            return
        self.send_response_only(200)
        for name, value in [*headers, ("Transfer-Encoding", "chunked")]:
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            for begin in range(0, len(data), 1000):
                piece = data[begin : begin + 1000]
                self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            self.wfile.write(b"0\r\n\r\n")


class _EndlessHandler(_Handler):
    headers_sent: Sequence[tuple[str, str]]
    status: int
    protocol_version = "HTTP/1.0"  # an answer without a length ends with the connection
    sent: list[int]

    def serve(self) -> None:
        self.send_response_only(self.status)
        for name, value in self.headers_sent:
            self.send_header(name, value)
        self.end_headers()
        while self.command != "HEAD":  # until the client hangs up
            self.wfile.write(bytes(2**16))
            self.sent[0] += 2**16


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128


@contextmanager
def _serving(handler: type[_Handler]) -> Iterator[str]:
    server = _Server(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def http_server(
    folder: Path,
    ranges: bool = True,
    query: str = "",
    heads: bool = True,
    lengths: bool = True,
    gzipped: bool = False,
) -> Iterator[str]:
    """Serve the files of a folder to read; give the URL of the folder.

    With ranges or whole alone; to who sends a query alone; with or without the method HEAD; whole files with or without
    their length, and packed by gzip or not.
    """
    attributes = {
        "folder": folder,
        "ranges": ranges,
        "query": query,
        "heads": heads,
        "lengths": lengths,
        "gzipped": gzipped,
    }
    with _serving(type("Handler", (_FolderHandler,), attributes)) as url:
        yield url


@contextmanager
def endless_server(status: int = 200, headers: Sequence[tuple[str, str]] = ()) -> Iterator[tuple[str, list[int]]]:
    """Answer everything by zeros without end; give the URL, and a list of one number: of bytes that were sent."""
    sent = [0]
    with _serving(
        type("Handler", (_EndlessHandler,), {"status": status, "headers_sent": headers, "sent": sent})
    ) as url:
        yield url, sent


@contextmanager
def proxy(upstream: str) -> Iterator[Proxy]:
    """Run a proxy in front of the server at a URL."""

    class Handler(_ProxyHandler):
        pass

    with _serving(Handler) as url:
        Handler.proxy = made = Proxy(url, upstream)
        try:
            yield made
        finally:
            made.ended.set()


def unused_endpoint() -> str:
    """URL of a port on loopback at which nobody answers."""
    with _Server(("127.0.0.1", 0), _Handler) as server:
        return f"http://127.0.0.1:{server.server_port}"


class FailingOnce(MemoryStore):
    """A place where one of the reads of a key fails."""

    key, reads_before = "", 0

    async def get(self, key: str, prototype: Any = None, byte_range: Any = None) -> Any:
        if key == self.key:
            self.reads_before -= 1
            if self.reads_before == -1:
                raise OSError("503 slow down")
        return await super().get(key, prototype, byte_range)
