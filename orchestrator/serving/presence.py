"""That a `saeq serve` is there: a small object in the store, for people; nothing depends on it."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.store import Damaged, KeyMissing, Store, StoreError

logger = logging.getLogger(__name__)

BEAT_EVERY_S = 5.0
FRESH_FOR_S = 60.0
"""By the reader's clock: one that is off by less, or a store that is slow, does no harm."""


@dataclass(frozen=True)
class Server:
    """One `saeq serve`, as it last said of itself."""

    id: str
    host: str
    pid: int
    since: float
    at: float
    """Seconds since 1970, by its own clock."""
    slots: int
    sweeps: tuple[str, ...]
    """Those it is working on."""


class Presence:
    """Says every 5 s that this process serves, from a thread of its own, until left."""

    def __init__(self, store: Store, serve_id: str, every_s: float = BEAT_EVERY_S) -> None:
        self._store, self._every_s = store, every_s
        self._key = store.layout.node(serve_id)
        self._since = time.time()
        self._slots = 0
        self._sweeps: Sequence[str] = ()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="presence", daemon=True)

    def __enter__(self) -> Presence:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(timeout=self._every_s)
        try:
            self._store.backend.delete(self._key)
        except StoreError as error:
            logger.warning("%s was not removed: %s", self._key, error)

    def say(self, slots: int, sweeps: Sequence[str]) -> None:
        """What the next beat tells."""
        self._slots, self._sweeps = slots, list(sweeps)

    def _run(self) -> None:
        beat = 0
        while True:
            try:
                self._store.write_json(self._key, self._now(beat))
            except StoreError as error:
                logger.info("%s was not written: %s", self._key, error)
            beat += 1
            if self._stop.wait(self._every_s):
                return

    def _now(self, beat: int) -> Mapping[str, Any]:
        return {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "since": self._since,
            "at": time.time(),
            "beat": beat,
            "slots": self._slots,
            "sweeps": list(self._sweeps),
        }


def servers(store: Store, now: float | None = None) -> list[Server]:
    """Every `saeq serve` that was heard of within a minute, oldest first; for people only."""
    now = time.time() if now is None else now
    found = []
    for name in store.backend.children(store.layout.nodes):
        serve_id = name.removesuffix(".json")
        try:
            said = store.read_json(store.layout.node(serve_id))
            server = Server(
                id=serve_id,
                host=str(said["host"]),
                pid=int(said["pid"]),
                since=float(said["since"]),
                at=float(said["at"]),
                slots=int(said["slots"]),
                sweeps=tuple(said["sweeps"]),
            )
        except (KeyMissing, Damaged, KeyError, TypeError, ValueError):
            continue
        if abs(now - server.at) < FRESH_FOR_S:
            found.append(server)
    return sorted(found, key=lambda server: server.since)
