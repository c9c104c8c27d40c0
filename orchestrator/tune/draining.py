"""Whether the Ray node that a trial's actor runs on is being drained: the machine will go."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping

from ray.exceptions import RayError

from jobs.runners.draining import draining_nodes
from orchestrator.trials.recall import Recall

logger = logging.getLogger(__name__)

LOOK_EVERY_S = 1.0


def drain_of(node_id: str, nodes: Mapping[str, int], now: float) -> Recall | None:
    """Why trials on a node come back; None while it stays.

    Args:
        now: seconds since 1970.
    """
    if node_id not in nodes:
        return None
    goes_at_ms = nodes[node_id]
    left = f": {max(goes_at_ms / 1000 - now, 0.0):.0f} s are left" if goes_at_ms else ""
    return Recall(f"its node is draining{left}", save=True)


class DrainWatch:
    """Looks whether a node is draining, from a thread of its own, until stopped.

    Apart from the look for orders: a store that hangs must not hide that the machine goes.
    """

    def __init__(
        self,
        node_id: str,
        look: Callable[[], Mapping[str, int]] = draining_nodes,
        every_s: float = LOOK_EVERY_S,
    ) -> None:
        self.node_id = node_id
        self._look, self._every_s = look, every_s
        self._stop = threading.Event()
        self._recall: Recall | None = None
        self._thread = threading.Thread(target=self._run, name="drain", daemon=True)

    @property
    def recall(self) -> Recall | None:
        """Why the trial is to be given back; once found it stays."""
        return self._recall

    def start(self) -> DrainWatch:
        """Looks once before it returns, so that nothing begins on a node that goes."""
        self._look_once()
        if self._recall is None:
            self._thread.start()
        return self

    def stop(self) -> None:
        """Look no more."""
        self._stop.set()

    def _run(self) -> None:
        while self._recall is None and not self._stop.wait(self._every_s):
            self._look_once()

    def _look_once(self) -> None:
        try:
            self._recall = drain_of(self.node_id, self._look(), time.time())
        except RayError as error:
            logger.info("it cannot be told whether the node is draining: %s", error)
