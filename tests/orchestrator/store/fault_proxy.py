"""A proxy in front of a real S3 server that fails in the ways networks and servers fail.

The Host header goes through as the client wrote it: signatures cover it, and the server checks them
against what arrives.
"""

from __future__ import annotations

import http.client
import random
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

CHUNK_BYTES = 64 * 1024
UPSTREAM_WITHIN_S = 120.0
OF_THE_CONNECTION = frozenset({"connection", "keep-alive", "expect", "transfer-encoding"})


class Fault(StrEnum):
    """What can be done to one request."""

    ERROR_500 = "500"
    """Answered with InternalError; the server never hears of it."""
    SLOW_DOWN = "503"
    """Answered with SlowDown; the server never hears of it."""
    HANG = "hang"
    """No answer until mended; the server never hears of it."""
    CUT_UPLOAD = "cut upload"
    """The connection breaks after half of the request's body, on both sides."""
    CUT_DOWNLOAD = "cut download"
    """The connection breaks after half of the answer's body."""
    DROP_ANSWER = "drop answer"
    """The server does it; the connection breaks before the answer."""


def any_request(method: str, path: str) -> bool:
    """Every one."""
    del method, path
    return True


@dataclass
class _Order:
    """Which requests get which faults."""

    faults: tuple[Fault, ...] = ()
    times: int | None = None
    share: float = 1.0
    matches: Callable[[str, str], bool] = any_request


@dataclass
class FaultProxy:
    """Switches of a proxy that listens at `endpoint`."""

    endpoint: str
    upstream: str
    requests: Counter[str] = field(default_factory=Counter)
    """By method: how many came."""
    done: Counter[Fault] = field(default_factory=Counter)
    """How often each fault was done."""
    _order: _Order = field(default_factory=_Order)
    _rng: random.Random = field(default_factory=lambda: random.Random(0))
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _mended: threading.Event = field(default_factory=threading.Event)

    def fail(
        self,
        *faults: Fault,
        times: int | None = None,
        share: float = 1.0,
        matches: Callable[[str, str], bool] = any_request,
        seed: int = 0,
    ) -> None:
        """From now on, do one of the faults to requests.

        Args:
            faults: one is drawn for each request.
            times: how many requests are hit; None: until `mend`.
            share: of the matching requests, drawn with `seed`.
            matches: (method, path with query) -> whether it may be hit.
        """
        with self._lock:
            self._order, self._rng = _Order(faults, times, share, matches), random.Random(seed)
            self._mended.clear()

    def mend(self) -> None:
        """No more faults; what hangs is let go, without an answer."""
        with self._lock:
            self._order = _Order()
            self._mended.set()

    def draw(self, method: str, path: str) -> Fault | None:
        """The fault for a request that came in."""
        with self._lock:
            order = self._order
            self.requests[method] += 1
            if not order.faults or order.times == 0 or not order.matches(method, path):
                return None
            if self._rng.random() >= order.share:
                return None
            fault = self._rng.choice(order.faults)
            if order.times is not None:
                order.times -= 1
            self.done[fault] += 1
            return fault

    def wait_until_mended(self, timeout_s: float) -> None:
        self._mended.wait(timeout_s)


@contextmanager
def fault_proxy(upstream: str) -> Iterator[FaultProxy]:
    """A proxy on a free port of this machine.

    Args:
        upstream: `http://host:port` of the real server.
    """
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    proxy = FaultProxy(f"http://127.0.0.1:{server.server_address[1]}", upstream)
    server.proxy = proxy  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield proxy
    finally:
        proxy.mend()
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    """One connection of a client."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Any

    def log_message(self, *_: object) -> None:  # noqa: D102
        """Nothing: a test that fails shows the store's own message."""

    def _serve(self) -> None:
        proxy: FaultProxy = self.server.proxy
        fault = proxy.draw(self.command, self.path)
        with suppress(ConnectionError, TimeoutError, http.client.HTTPException):
            if fault in (Fault.ERROR_500, Fault.SLOW_DOWN):
                self._body()
                self._refuse(int(fault))
            elif fault is Fault.HANG:
                self._body()
                proxy.wait_until_mended(UPSTREAM_WITHIN_S)
                self._cut()
            else:
                self._forward(proxy, fault)
            return
        self._cut()

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _serve  # noqa: N815

    def _body(self) -> bytes:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            return self._chunked_body()
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _chunked_body(self) -> bytes:
        parts = []
        while num_bytes := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(num_bytes))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _refuse(self, status: int) -> None:
        code = {500: "InternalError", 503: "SlowDown"}[status]
        xml = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>injected</Message></Error>"
        body = b"" if self.command == "HEAD" else xml.encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _forward(self, proxy: FaultProxy, fault: Fault | None) -> None:
        body = self._body()
        parts = urlsplit(proxy.upstream)
        upstream = http.client.HTTPConnection(
            str(parts.hostname), parts.port, timeout=UPSTREAM_WITHIN_S
        )
        try:
            upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in {*OF_THE_CONNECTION, "content-length"}:
                    upstream.putheader(name, value)
            if body or self.command in ("PUT", "POST"):
                upstream.putheader("Content-Length", str(len(body)))
            upstream.endheaders()
            if fault is Fault.CUT_UPLOAD:
                upstream.send(body[: len(body) // 2])
                self._cut()
                return
            upstream.send(body)
            answer = upstream.getresponse()
            data = answer.read()
            if fault is Fault.DROP_ANSWER:
                self._cut()
            else:
                self._answer(answer, data, is_cut=fault is Fault.CUT_DOWNLOAD)
        finally:
            upstream.close()

    def _answer(self, answer: http.client.HTTPResponse, data: bytes, is_cut: bool) -> None:
        self.send_response_only(answer.status, answer.reason)
        for name, value in answer.getheaders():
            if name.lower() not in {*OF_THE_CONNECTION, "content-length"}:
                self.send_header(name, value)
        length = answer.getheader("Content-Length") if self.command == "HEAD" else str(len(data))
        if length is not None and answer.status != 204:
            self.send_header("Content-Length", length)
        self.end_headers()
        if self.command == "HEAD":
            data = b""
        for start in range(0, len(data) // 2 if is_cut else len(data), CHUNK_BYTES):
            end = min(start + CHUNK_BYTES, len(data) // 2 if is_cut else len(data))
            self.wfile.write(data[start:end])
        if is_cut:
            self.wfile.flush()
            self._cut()

    def _cut(self) -> None:
        """End the connection with a reset, as a machine that vanishes does."""
        self.close_connection = True
        with suppress(OSError):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.shutdown(socket.SHUT_RD)
            self.connection.close()
