"""What a process says while it works: its log records, kept for a while for whoever asks.

The same form in every process behind a trial, so that their lines can be told apart and sorted.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

OUR_PACKAGES = ("orchestrator", "jobs", "steering", "sae")
"""Their records are kept from INFO on, other libraries' from WARNING on."""

LENGTH_OF_TIME = len("2026-11-21T06:47:46Z")
"""Every record begins with when it was made."""

MAX_RECORDS = 2000
MAX_RECORD_CHARACTERS = 32 * 1024

_owner: ContextVar[str | None] = ContextVar("owner", default=None)


def line_formatter() -> logging.Formatter:
    """2026-11-21T06:47:46Z WARNING sae.pack: text (UTC: nodes may be in different time zones)."""
    formatter = logging.Formatter(
        "%(asctime)sZ %(levelname)s %(name)s: %(message)s", datefmt="%Y-%m-%dT%H:%M:%S"
    )
    formatter.converter = time.gmtime
    return formatter


@contextmanager
def said_for(owner: str | None) -> Iterator[None]:
    """What is logged in this block, by this thread, is for one reader alone; None: for all."""
    token = _owner.set(owner)
    try:
        yield
    finally:
        _owner.reset(token)


class RecentOutput(logging.Handler):
    """The newest log records of a process; each reader gets what is for it or for everybody."""

    def __init__(self, max_records: int = MAX_RECORDS) -> None:
        super().__init__()
        self.setFormatter(line_formatter())
        self._records: deque[tuple[int, str | None, str]] = deque(maxlen=max_records)
        self._next_number = 0
        self._read_up_to: dict[str, int] = {}
        self._guard = threading.Lock()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = self.format(record)
        except Exception:  # noqa: BLE001 - logging's own way with a record that cannot be worded
            self.handleError(record)
            return
        self.add(text, _owner.get())

    def add(self, text: str, owner: str | None = None) -> None:
        """Keep a text as it is, for one reader or for all."""
        if len(text) > MAX_RECORD_CHARACTERS:
            half = MAX_RECORD_CHARACTERS // 2
            left_out = len(text) - 2 * half
            text = f"{text[:half]}\n... {left_out} characters left out ...\n{text[-half:]}"
        with self._guard:
            self._records.append((self._next_number, owner, text))
            self._next_number += 1

    def open(self, reader: str, *, from_start: bool = False) -> None:
        """Somebody will read from here on, or from the oldest record that is still kept."""
        with self._guard:
            self._read_up_to[reader] = 0 if from_start else self._next_number

    def close_reader(self, reader: str) -> None:
        with self._guard:
            self._read_up_to.pop(reader, None)

    def take(self, reader: str) -> list[str]:
        """Texts since the reader's last call; none for one who is not known."""
        with self._guard:
            if reader not in self._read_up_to:
                return []
            start, self._read_up_to[reader] = self._read_up_to[reader], self._next_number
            oldest = self._records[0][0] if self._records else self._next_number
            lost = [f"({oldest - start} log records were left out)"] if 0 < start < oldest else []
            return lost + [
                text
                for number, owner, text in self._records
                if number >= start and owner in (None, reader)
            ]


def keep_output(handler: logging.Handler) -> None:
    """Let a handler see what this process logs; stderr goes on showing warnings.

    Warnings are logged too where `logging.captureWarnings` was called, as processes behind a
    trial do when they start.
    """
    root = logging.getLogger()
    if not root.handlers and logging.lastResort is not None:
        root.addHandler(logging.lastResort)
    root.addHandler(handler)
    for package in OUR_PACKAGES:
        logging.getLogger(package).setLevel(logging.INFO)


def forget_output(handler: logging.Handler) -> None:
    """The other way round, for the handler alone."""
    logging.getLogger().removeHandler(handler)
