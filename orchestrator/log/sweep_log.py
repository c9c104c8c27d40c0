"""Reading and appending the log of one sweep."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable

from pydantic import ValidationError

from orchestrator.log.events import AnyEvent, EventBase, parse_event
from orchestrator.log.state import SweepState
from orchestrator.store import KeyMissing, Store, StoreError

logger = logging.getLogger(__name__)


class LogReader:
    """Follows all writers of a sweep; each `poll` reads only what is new."""

    def __init__(self, store: Store, sweep: str) -> None:
        self._store, self._sweep = store, sweep
        self._offset: dict[str, int] = {}

    def poll(self) -> list[AnyEvent]:
        """Events appended since the last call, writer by writer in their order.

        A torn last line (its writer died, or is writing) is left for the next call; a whole line
        that is no event is skipped with a warning: one bad sector must not hide a sweep.
        """
        events: list[AnyEvent] = []
        prefix = self._store.layout.log(self._sweep)
        for entry in self._store.backend.entries(prefix):
            start = self._offset.get(entry.key, 0)
            if entry.num_bytes <= start or not entry.key.endswith(".jsonl"):
                continue
            try:
                data = self._store.backend.get(entry.key, offset=start)
            except KeyMissing:
                continue
            whole, newline, _ = data.rpartition(b"\n")
            self._offset[entry.key] = start + len(whole) + len(newline)
            events.extend(self._parse(entry.key, whole))
        return events

    def _parse(self, key: str, lines: bytes) -> list[AnyEvent]:
        events = []
        for line in lines.split(b"\n"):
            if not line:
                continue
            try:
                events.append(parse_event(line))
            except ValidationError:
                logger.warning("%s: skipped a line that is no event: %r", key, line[:80])
        return events


def new_writer_id(role: str) -> str:
    """A name that no other writer has: every process start is a writer of its own."""
    return f"{role}-{uuid.uuid4().hex[:10]}"


class LogWriter:
    """One process's own sequence in the log of a sweep."""

    def __init__(
        self,
        store: Store,
        sweep: str,
        role: str = "driver",
        clock: Callable[[], float] = time.time,
        writer_id: str | None = None,
    ) -> None:
        self.id = writer_id or new_writer_id(role)
        self._store, self._sweep = store, sweep
        self._key = store.layout.segment(sweep, self.id)
        self._num_segments = 1
        self._seq = 0
        self._clock = clock

    def append(self, *events: EventBase) -> list[AnyEvent]:
        """Stamp and append; durable when it returns. Raises StoreError (full disk)."""
        stamped: list[AnyEvent] = []
        for event in events:
            self._seq += 1
            update = {"writer": self.id, "seq": self._seq, "at": round(self._clock(), 3)}
            stamped.append(event.model_copy(update=update))  # type: ignore[arg-type]
        lines = "".join(event.model_dump_json() + "\n" for event in stamped)
        try:
            self._store.backend.append(self._key, lines.encode())
        except StoreError:
            # A reader may have seen part of it, so nothing may follow in the same place.
            self._num_segments += 1
            self._key = self._store.layout.segment(self._sweep, f"{self.id}-{self._num_segments}")
            raise
        return stamped


class SweepLog:
    """A sweep's state, kept up to date from its log, with a writer for those who have one."""

    def __init__(self, store: Store, sweep: str, writer: LogWriter | None = None) -> None:
        self.store, self.sweep, self.writer = store, sweep, writer
        self.state = SweepState()
        self._reader = LogReader(store, sweep)

    def refresh(self) -> SweepState:
        """Take in what all writers appended since."""
        self.state.add(self._reader.poll())
        return self.state

    def append(self, *events: EventBase) -> None:
        """Append as this process and take the events into the state at once."""
        if self.writer is None:
            raise RuntimeError("this log was opened for reading only")
        self.state.add(self.writer.append(*events))
