"""The sweeps of a store that are not over, each with its worker; cheap to look at again and again.

The log of a sweep that is over is not folded again until something was written to it: a retry, an
extension. However many sweeps there are, one look asks the store about a bounded number of them.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable

from orchestrator.queue import DamagedSweep, Queue, QueuedSweep, UnknownSweep
from orchestrator.serving.sweep_worker import SweepWorker
from orchestrator.store import Store

logger = logging.getLogger(__name__)

ASKED_AT_ONCE = 32
"""Of the sweeps that nobody here works on: so many logs are looked at in one look."""

Fingerprint = tuple[tuple[str, int], ...]


class Roster:
    """Workers by sweep."""

    def __init__(
        self,
        store: Store,
        new_worker: Callable[[QueuedSweep], SweepWorker],
        say: Callable[[str, str], None],
    ) -> None:
        """
        Args:
            say: told a sweep and what happened to it.
        """
        self._store, self._queue = store, Queue(store)
        self._new_worker, self._say = new_worker, say
        self._by_id: dict[str, SweepWorker] = {}
        self._over: dict[str, Fingerprint] = {}
        self._damaged: set[str] = set()
        self._turn: deque[str] = deque()

    @property
    def workers(self) -> list[SweepWorker]:
        """Of sweeps that are not over, in the order in which they were submitted."""
        return sorted(self._by_id.values(), key=lambda worker: worker.queued.submitted_at)

    def look(self) -> None:
        """Find new sweeps, and look at those that are known. Raises StoreError."""
        ids = self._queue.ids()
        for sweep in [known for known in self._by_id if known not in ids]:
            self._by_id.pop(sweep).stop()  # somebody removed its record
        for sweep in ids:
            if sweep not in self._by_id and sweep not in self._over:
                self._take_in(sweep)
        for worker in list(self._by_id.values()):
            if worker.phase == "driving":
                worker.look()
            self._set_aside_if_over(worker)
        for sweep in self._next_in_turn(ids):
            self._look_at(sweep)

    def _next_in_turn(self, ids: list[str]) -> list[str]:
        if not self._turn:
            self._turn.extend(ids)
        return [self._turn.popleft() for _ in range(min(ASKED_AT_ONCE, len(self._turn)))]

    def _look_at(self, sweep: str) -> None:
        worker = self._by_id.get(sweep)
        if worker is None:
            if sweep in self._over and self._fingerprint(sweep) != self._over[sweep]:
                del self._over[sweep]
                self._take_in(sweep)
        elif worker.phase != "driving":
            worker.look()
            self._set_aside_if_over(worker)

    def _set_aside_if_over(self, worker: SweepWorker) -> None:
        if worker.phase == "over":
            self._say(worker.queued.id, f"over: {worker.status()}")
            self._set_aside(worker.queued.id)

    def _take_in(self, sweep: str) -> None:
        try:
            worker = self._new_worker(self._queue.get(sweep))
        except UnknownSweep:
            return  # removed since it was listed
        except DamagedSweep as error:
            if sweep not in self._damaged:
                self._say(sweep, str(error))
                self._damaged.add(sweep)
            return
        self._damaged.discard(sweep)
        self._by_id[sweep] = worker
        worker.look()
        if worker.phase == "over":
            self._set_aside(sweep)

    def _set_aside(self, sweep: str) -> None:
        """Forget the log of a sweep that is over; what is written to it from here on is seen."""
        del self._by_id[sweep]
        self._over[sweep] = self._fingerprint(sweep)

    def _fingerprint(self, sweep: str) -> Fingerprint:
        prefix = self._store.layout.log(sweep)
        return tuple((e.key, e.num_bytes) for e in self._store.backend.entries(prefix))
