"""An S3 server from before conditional writes: it refuses them, or looks past the condition."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar
from urllib.parse import unquote, urlsplit

REFUSAL = b"<?xml version='1.0'?><Error><Code>NotImplemented</Code><Message>no</Message></Error>"
LISTING = """<?xml version="1.0"?>
<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>b</Name>
<IsTruncated>false</IsTruncated>{}</ListBucketResult>"""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    objects: ClassVar[dict[str, bytes]]
    refuses: ClassVar[bool]

    def do_PUT(self) -> None:
        data = self._body()
        is_conditional = "If-None-Match" in self.headers or "If-Match" in self.headers
        if is_conditional and self.refuses:
            self._answer(501, REFUSAL)
            return
        self.objects[self._key()] = data
        self._answer(200)

    def do_GET(self) -> None:
        if "list-type" in self.path:
            keys = "".join(
                f"<Contents><Key>{key}</Key><Size>1</Size></Contents>" for key in self.objects
            )
            self._answer(200, LISTING.format(keys).encode())
        elif self._key() in self.objects:
            self._answer(200, self.objects[self._key()])
        else:
            self._answer(404, REFUSAL.replace(b"NotImplemented", b"NoSuchKey"))

    do_HEAD = do_GET

    def do_POST(self) -> None:
        """Only ever asked to remove several at once."""
        self._body()
        self.objects.clear()
        self._answer(200, b"<DeleteResult></DeleteResult>")

    def _key(self) -> str:
        return unquote(urlsplit(self.path).path).split("/", 2)[2]

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked" and "aws-chunked" not in str(
            self.headers.get("Content-Encoding")
        ):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        raw = self.rfile.read(int(self.headers["Content-Length"]))
        size, _, rest = raw.partition(b"\r\n")
        return rest[: int(size.partition(b";")[0], 16)]

    def _answer(self, status: int, body: bytes = b"") -> None:
        self.send_response(status)
        self.send_header("ETag", '"always-the-same"')
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        del format, args


@contextmanager
def old_s3(*, refuses: bool) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Its endpoint and its objects by key; `refuses`: conditional writes, else it ignores them."""
    objects: dict[str, bytes] = {}
    handler = type("Handler", (_Handler,), {"objects": objects, "refuses": refuses})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", objects
    finally:
        server.shutdown()
        server.server_close()
