"""Keeps what the store says of nodes at hand for a view that must not wait for it."""

from __future__ import annotations

import logging
import threading

from orchestrator.store import Store, StoreError
from orchestrator.view.nodes_rows import NodesSnapshot

logger = logging.getLogger(__name__)

READ_EVERY_S = 5.0


class NodesFeed:
    """Reads in a thread of its own, from its first use until closed."""

    def __init__(self, store: Store, every_s: float = READ_EVERY_S) -> None:
        self._store, self._every_s = store, every_s
        self._closed = threading.Event()
        self._latest = NodesSnapshot()
        self._thread = threading.Thread(target=self._run, name="nodes", daemon=True)

    def start(self) -> NodesFeed:
        """Begin to read."""
        self._thread.start()
        return self

    @property
    def latest(self) -> NodesSnapshot:
        """As of the last answer; empty until the first one. Never waits."""
        return self._latest

    def close(self) -> None:
        """Stop reading; a read that hangs is left to itself."""
        self._closed.set()

    def _run(self) -> None:
        while not self._closed.is_set():
            try:
                self._latest = NodesSnapshot.read(self._store)
            except StoreError as error:
                logger.info("nodes could not be read: %s", error)
            self._closed.wait(self._every_s)
