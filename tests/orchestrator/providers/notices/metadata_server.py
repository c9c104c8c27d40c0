"""A real HTTP server on loopback that plays a cloud's metadata server."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

IMDS = "/latest/"
ACTION = "/latest/meta-data/spot/instance-action"
REBALANCE = "/latest/meta-data/events/recommendations/rebalance"


class MetadataServer:
    """What it answers can be changed while it runs. Below `/latest/` it wants IMDSv2 tokens."""

    def __init__(self) -> None:
        self.pages: dict[str, str] = {}
        self.headers: dict[str, str] = {}
        self.delay_s = 0.0
        self.gives_tokens = True
        self.asked: list[str] = []
        """`METHOD /path` of every request."""
        self._tokens: set[str] = set()
        self._num_tokens = 0
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_PUT(self) -> None:
                self._answer(*server.put(self.path, self.headers.get(TTL, "")))

            def do_GET(self) -> None:
                self._answer(*server.get(self.path, self.headers.get(TOKEN, "")))

            def _answer(self, status: int, text: str) -> None:
                server.asked.append(f"{self.command} {self.path}")
                time.sleep(server.delay_s)
                body = text.encode()
                try:
                    self.send_response(status)
                    for name, value in server.headers.items():
                        self.send_header(name, value)
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)
                except (BrokenPipeError, ConnectionResetError):
                    return  # nobody waited for so slow an answer

            def log_message(self, *_: object) -> None:
                """Not on the terminal."""

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.address = f"127.0.0.1:{self._http.server_address[1]}"
        self.url = f"http://{self.address}"

    @contextmanager
    def running(self) -> Iterator[MetadataServer]:
        thread = threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._http.shutdown()
            self._http.server_close()

    def forget_tokens(self) -> None:
        """As if they had run out."""
        self._tokens.clear()

    def announce(self, in_s: float, action: str = "terminate") -> None:
        """The spot notice, as AWS words it."""
        at = datetime.fromtimestamp(time.time() + in_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        self.pages[ACTION] = f'{{"action": "{action}", "time": "{at}"}}'

    def put(self, path: str, ttl: str) -> tuple[int, str]:
        if path != f"{IMDS}api/token" or not self.gives_tokens:
            return 404, ""
        if not ttl.isdigit():
            return 400, ""
        self._num_tokens += 1
        token = f"token-{self._num_tokens}"
        self._tokens.add(token)
        return 200, token

    def get(self, path: str, token: str) -> tuple[int, str]:
        if path.startswith(IMDS) and token not in self._tokens:
            return 401, ""
        page = self.pages.get(path)
        return (404, "") if page is None else (200, page)


TTL = "X-aws-ec2-metadata-token-ttl-seconds"
TOKEN = "X-aws-ec2-metadata-token"
