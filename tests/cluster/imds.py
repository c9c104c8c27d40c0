"""A program: plays an AWS instance's metadata server (IMDSv2 alone) where a real one listens.

    imds.py ADDRESS PORT FOLDER

What FOLDER holds is served below /latest/meta-data/, as it is when asked; all else is 404.
"""

from __future__ import annotations

import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

TOKEN = "token-of-a-test"
DATA = "/latest/meta-data/"


class Metadata(BaseHTTPRequestHandler):
    """Refuses whoever asks without a token, as an instance does with HttpTokens: required."""

    folder = Path()

    def do_PUT(self) -> None:
        asks = self.path == "/latest/api/token"
        timed = self.headers.get("X-aws-ec2-metadata-token-ttl-seconds", "").isdigit()
        self._answer(200 if asks and timed else 400, TOKEN)

    def do_GET(self) -> None:
        if self.headers.get("X-aws-ec2-metadata-token") != TOKEN:
            self._answer(401, "")
            return
        wanted = self.folder / self.path.removeprefix(DATA)
        found = self.path.startswith(DATA) and wanted.is_file()
        self._answer(200 if found else 404, wanted.read_text() if found else "")

    def _answer(self, status: int, text: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, format: str, *args: Any) -> None:
        del format, args


if __name__ == "__main__":
    Metadata.folder = Path(sys.argv[3])
    ThreadingHTTPServer((sys.argv[1], int(sys.argv[2])), Metadata).serve_forever()
