"""The model hub: reached or not, with a token or without, and what is kept of it here."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import urlsplit

from orchestrator.doctor.base import Check, Finding
from orchestrator.store import Store

CONNECT_WITHIN_S = 3.0
DEFAULT_ENDPOINT = "https://huggingface.co"
YES = frozenset({"1", "on", "true", "yes"})


class Hub(Check):
    """Never a fault: local folders and builtin models need no hub."""

    name = "model hub"
    order = 45
    within_s = 12.0

    def look(self, store: Store) -> Iterable[Finding]:
        """See the base class."""
        del store
        yield _reached()
        yield _token()
        yield _kept()


def _reached() -> Finding:
    offline = next((n for n in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE") if _is_on(n)), None)
    if offline is not None:
        return Finding("note", f"{offline} is set: only what is kept here can be used")
    parts = urlsplit(os.environ.get("HF_ENDPOINT") or DEFAULT_ENDPOINT)
    host, port = _door(parts.hostname or "", parts.port or (80 if parts.scheme == "http" else 443))
    through = "" if host == parts.hostname else f" (through the proxy {host}:{port})"
    try:
        socket.create_connection((host, port), CONNECT_WITHIN_S).close()
    except OSError as error:
        return Finding(
            "note",
            f"{parts.hostname} cannot be reached{through} ({error.strerror or error})",
            "download models where there is a network, and set HF_HUB_OFFLINE=1 here; or use "
            "local folders, files: and builtin:",
        )
    return Finding("ok", f"{parts.hostname} can be reached{through}")


def _door(host: str, port: int) -> tuple[str, int]:
    """A proxy, where one is named, stands between."""
    from urllib.request import getproxies, proxy_bypass

    proxy = urlsplit(getproxies().get("https", ""))
    if not proxy.hostname or proxy_bypass(host):
        return host, port
    return proxy.hostname, proxy.port or 80


def _is_on(variable: str) -> bool:
    return os.environ.get(variable, "").lower() in YES


def _home() -> Path:
    given = os.environ.get("HF_HOME")
    return Path(given).expanduser() if given else Path.home() / ".cache" / "huggingface"


def _token() -> Finding:
    """Whether there is one, never which."""
    variables = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
    variable = next((name for name in variables if os.environ.get(name)), None)
    path = Path(os.environ.get("HF_TOKEN_PATH") or _home() / "token").expanduser()
    if variable is not None:
        return Finding("ok", f"a token is in {variable}")
    if path.is_file():
        return Finding("ok", f"a token is in {path}")
    return Finding("note", "no token: gated models (Gemma, Llama) cannot be had", "hf auth login")


def _kept() -> Finding:
    given = os.environ.get("HF_HUB_CACHE")
    folder = Path(given).expanduser() if given else _home() / "hub"
    if not folder.is_dir():
        return Finding("ok", f"no model or data set is kept in {folder} yet")
    counts = [sum(1 for _ in folder.glob(f"{kind}--*")) for kind in ("models", "datasets")]
    return Finding("ok", f"{counts[0]} models and {counts[1]} data sets are kept in {folder}")
