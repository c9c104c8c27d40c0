"""Reading and appending the log of one sweep."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Sequence

from pydantic import ValidationError

from orchestrator.log.events import AnyEvent, EventBase, parse_event
from orchestrator.log.state import SweepState
from orchestrator.store import Store, StoreError

logger = logging.getLogger(__name__)

SEGMENT_BYTES = 128 * 1024
"""Where an append writes its object again, a writer begins the next one at about this size."""


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
        grown = self._grown()
        found = self._store.backend.get_many(grown)
        for key, start in grown.items():
            whole, newline, _ = found.get(key, b"").rpartition(b"\n")
            self._offset[key] = start + len(whole) + len(newline)
            events.extend(self._parse(key, whole))
        return events

    @property
    def num_bytes_read(self) -> dict[str, int]:
        """How much of each segment was read, in whole lines."""
        return dict(self._offset)

    def _grown(self) -> dict[str, int]:
        """Segments that have more than was read, from where on; a writer's own in their order."""
        listed = self._store.backend.entries(self._store.layout.log(self._sweep))
        grown = {
            entry.key: self._offset.get(entry.key, 0)
            for entry in listed
            if entry.key.endswith(".jsonl") and entry.num_bytes > self._offset.get(entry.key, 0)
        }
        return dict(sorted(grown.items(), key=lambda item: item[0].removesuffix(".jsonl")))

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
        self._num_bytes = 0
        self._seq = 0
        self._clock = clock

    def append(self, *events: EventBase) -> list[AnyEvent]:
        """Stamp and append; durable when it returns. Raises StoreError (full disk)."""
        stamped: list[AnyEvent] = []
        for event in events:
            self._seq += 1
            update = {"writer": self.id, "seq": self._seq, "at": round(self._clock(), 3)}
            stamped.append(event.model_copy(update=update))  # type: ignore[arg-type]
        lines = "".join(event.model_dump_json() + "\n" for event in stamped).encode()
        if self._store.backend.append_rewrites and self._is_full(len(lines)):
            self._begin_segment()
        try:
            self._store.backend.append(self._key, lines)
        except StoreError:
            # A reader may have seen part of it, so nothing may follow in the same place.
            self._begin_segment()
            raise
        self._num_bytes += len(lines)
        return stamped

    def _is_full(self, more_bytes: int) -> bool:
        return self._num_bytes > 0 and self._num_bytes + more_bytes > SEGMENT_BYTES

    def _begin_segment(self) -> None:
        self._num_segments, self._num_bytes = self._num_segments + 1, 0
        name = f"{self.id}-{self._num_segments:05d}"
        self._key = self._store.layout.segment(self._sweep, name)


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

    @property
    def num_bytes_read(self) -> dict[str, int]:
        """How much of each segment is in the state."""
        return self._reader.num_bytes_read

    def append(self, *events: EventBase) -> None:
        """Append as this process and take the events into the state at once."""
        if self.writer is None:
            raise RuntimeError("this log was opened for reading only")
        self.state.add(self.writer.append(*events))


def refresh_all(logs: Sequence[SweepLog]) -> None:
    """Refresh several sweeps of one store, side by side where each read waits for a network."""
    if logs:
        logs[0].store.side_by_side(SweepLog.refresh, logs)


def log_sizes(store: Store, sweep: str) -> dict[str, int]:
    """Bytes of each segment: equal to a `SweepLog.num_bytes_read` while nothing was added."""
    listed = store.backend.entries(store.layout.log(sweep))
    return {entry.key: entry.num_bytes for entry in listed if entry.key.endswith(".jsonl")}
