"""A node that says of itself, every few seconds, that it is there and how far it has come."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Mapping
from typing import Any

from orchestrator.nodes.records import NodeSide, remove_node, write_side
from orchestrator.nodes.stages import Mark, Stage
from orchestrator.store import Store, StoreError

logger = logging.getLogger(__name__)

BEAT_EVERY_S = 5.0
NODE_VARIABLE = "SAEQ_NODE"
"""Set by whoever starts a node, who writes the other side of its record under the same id."""


class Presence:
    """Writes the node's own side of its record, from a thread of its own, until left.

    Args:
        node: its id.
        kind: how it came: `serve`, `slurm`, `ssh`, `cluster`.
        labels: what is known of the machine, as text.
    """

    def __init__(
        self,
        store: Store,
        node: str,
        kind: str = "serve",
        labels: Mapping[str, str] | None = None,
        every_s: float = BEAT_EVERY_S,
    ) -> None:
        self._store, self._every_s = store, every_s
        self._lock = threading.Lock()
        self._changed = threading.Event()
        self._stop = False
        self._side = NodeSide(
            id=node,
            kind=kind,
            host=socket.gethostname(),
            pid=os.getpid(),
            labels=dict(labels or {}),
            since=time.time(),
        )
        self._thread = threading.Thread(target=self._run, name="presence", daemon=True)

    def __enter__(self) -> Presence:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop = True
        self._changed.set()
        self._thread.join(timeout=self._every_s)
        try:
            remove_node(self._store, self._side.id, "self")
        except StoreError as error:
            logger.warning("node %s still looks present: %s", self._side.id, error)

    @property
    def node(self) -> str:
        return self._side.id

    def say(self, **facts: Any) -> None:
        """Change fields of its side (`slots`, `state`, `probe`, ...) for the next beat."""
        with self._lock:
            self._side = self._side.model_copy(update=facts)

    def mark(self, stage: Stage, detail: str = "") -> None:
        """A stage was reached, now; told at once. Once it was reached, nothing changes."""
        with self._lock:
            if any(mark.stage == stage for mark in self._side.marks):
                return
            mark = Mark(stage, time.time(), self._side.host, detail)
            self._side = self._side.model_copy(update={"marks": (*self._side.marks, mark)})
        self._changed.set()

    def _run(self) -> None:
        while not self._stop:
            with self._lock:
                self._side = self._side.model_copy(update={"beat": self._side.beat + 1})
                side = self._side
            try:
                write_side(self._store, "self", side)
            except StoreError as error:
                logger.info("node %s could not say that it is there: %s", side.id, error)
            self._changed.wait(self._every_s)
            self._changed.clear()
