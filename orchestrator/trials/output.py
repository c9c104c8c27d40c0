"""What was printed for a trial under one lease, carried into the store wherever the trial runs."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

from jobs.runners.output import LENGTH_OF_TIME, RecentOutput, forget_output, keep_output
from orchestrator.redaction import redact
from orchestrator.store import Store, StoreError

logger = logging.getLogger(__name__)

CARRY_EVERY_S = 3.0
MAX_BYTES = 2**20
"""Under one lease. Some stores write the whole object again for each addition."""

_READER = "trial"


class TrialOutput:
    """Keeps what this process logs, and takes what others printed for the trial, until closed.

    A thread writes it into the store every few seconds. A store that does not take it is tried
    again with the next lines; it never stops a trial.

    Args:
        key: a text object that only this process writes.
        every_s: seconds between additions.
    """

    def __init__(self, store: Store, key: str, every_s: float = CARRY_EVERY_S) -> None:
        self._store, self._key, self._every_s = store, key, every_s
        self._recent = RecentOutput()
        self._recent.addFilter(_not_our_own)
        self._take_more: Callable[[], Sequence[str]] = tuple
        self._not_written: list[str] = []
        self._num_bytes = 0
        self._failed = False
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="output", daemon=True)

    def start(self) -> TrialOutput:
        self._recent.open(_READER, from_start=True)
        keep_output(self._recent)
        self._thread.start()
        return self

    def also_from(self, take: Callable[[], Sequence[str]]) -> None:
        """Somebody else's lines, taken each time before something is written."""
        self._take_more = take

    def take_last(self) -> None:
        """Take what others have now; they are about to go."""
        self._add(self._take_more())
        self._take_more = tuple

    def close(self, within_s: float) -> None:
        """Write what is left; a store that takes longer than that is left to the thread."""
        forget_output(self._recent)
        self._closed.set()
        self._thread.join(timeout=within_s)

    def _add(self, lines: Sequence[str]) -> None:
        for line in lines:
            self._recent.add(line, owner=_READER)

    def _run(self) -> None:
        while not self._closed.wait(self._every_s):
            self._add(self._take_more())
            self._carry()
        self._carry()

    def _carry(self) -> None:
        new = sorted(self._recent.take(_READER), key=_said_at)
        self._not_written += [redact(text) for text in new]
        data = "".join(f"{text}\n" for text in self._not_written).encode("utf-8", "replace")
        if not data or self._num_bytes >= MAX_BYTES:
            self._not_written.clear()
            return
        if self._num_bytes + len(data) > MAX_BYTES:
            said = f"(more than {MAX_BYTES} bytes were printed: the rest is left out)\n"
            data = data[: MAX_BYTES - self._num_bytes] + b"\n" + said.encode()
        try:
            self._store.backend.append(self._key, data)
        except StoreError as error:
            if not self._failed:
                logger.warning("%s cannot be written now: %s", self._key, error)
            self._failed = True
            del self._not_written[:-1000]
            return
        self._failed = False
        self._num_bytes += len(data)
        self._not_written.clear()


def _said_at(text: str) -> str:
    """What others printed is taken late: here it finds its place again."""
    return text[:LENGTH_OF_TIME]


def _not_our_own(record: logging.LogRecord) -> bool:
    """That a line could not be written is no line to write."""
    return record.name != __name__
