"""What a driver hears from whoever started it: its allowance, and that nobody is there any more."""

from __future__ import annotations

import json
import logging
import os
import signal
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestrator.trials.desk import Desk

logger = logging.getLogger(__name__)


class ParentLine:
    """Reads stdin: a line {"slots": 3} (null: no limit) each time the allowance changes.

    Its end means that the parent is gone, however it went: then the driver drains.
    """

    def __init__(self, slots: int | None) -> None:
        self._slots = slots
        self._desk: Desk | None = None
        self._lock = threading.Lock()
        self.is_gone = False
        """Whether nobody is at the other end any more."""

    def start(self) -> None:
        """From here on the driver ends with its parent."""
        threading.Thread(target=self._read, name="parent", daemon=True).start()

    def tell(self, desk: Desk) -> None:
        """The desk heeds the allowance from here on."""
        with self._lock:
            self._desk = desk
            desk.allowed = self._slots

    def _read(self) -> None:
        rest = b""
        while data := os.read(0, 4096):
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                self._take(json.loads(line)["slots"])
        self.is_gone = True
        logger.info("whoever started this driver is gone")
        os.kill(os.getpid(), signal.SIGTERM)

    def _take(self, slots: int | None) -> None:
        with self._lock:
            self._slots = slots
            if self._desk is not None:
                self._desk.allowed = slots
