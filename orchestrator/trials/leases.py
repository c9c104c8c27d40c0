"""Who may work on a trial: numbered leases, kept alive by their driver's heartbeat.

A lease is an object that one driver creates and nobody else can (`leases/000003.json`). Its number
is the fencing token: a driver that was silent, lost its trial and comes back finds a higher number
and drops its work. Silence is measured by the observer's own monotonic clock against a counter
that the driver moves on, so clocks of different machines need not agree.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from orchestrator.store import KeyMissing, Store, StoreError

logger = logging.getLogger(__name__)

BEAT_EVERY_S = 5.0
SILENT_AFTER_S = 20.0


class Heartbeat:
    """Moves a driver's counter on, from a thread of its own, until stopped."""

    def __init__(
        self, store: Store, sweep: str, holder: str, every_s: float = BEAT_EVERY_S
    ) -> None:
        self._store, self._every_s = store, every_s
        self._key = store.layout.heartbeat(sweep, holder)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def __enter__(self) -> Heartbeat:
        self._store.write_json(self._key, {"beat": 0, "at": time.time()})
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(timeout=self._every_s)

    def _run(self) -> None:
        beat = 0
        while not self._stop.wait(self._every_s):
            beat += 1
            try:
                self._store.write_json(self._key, {"beat": beat, "at": time.time()})
            except StoreError as error:
                logger.warning("heartbeat %d was not written: %s", beat, error)


class Leases:
    """Leases of one sweep, from the point of view of one holder."""

    def __init__(
        self,
        store: Store,
        sweep: str,
        holder: str,
        clock: Callable[[], float] = time.monotonic,
        silent_after_s: float = SILENT_AFTER_S,
    ) -> None:
        self._store, self._sweep, self.holder = store, sweep, holder
        self._clock, self._silent_after_s = clock, silent_after_s
        self._seen: dict[str, tuple[object, float]] = {}

    def is_silent(self, holder: str) -> bool:
        """Whether a holder's counter has stood still for as long as makes its leases free."""
        if holder == self.holder:
            return False
        try:
            beat = self._store.read_json(self._store.layout.heartbeat(self._sweep, holder))["beat"]
        except KeyMissing:
            beat = None
        except (StoreError, KeyError, TypeError) as error:
            logger.warning("heartbeat of %s cannot be read: %s", holder, error)
            return False
        now = self._clock()
        last_beat, since = self._seen.setdefault(holder, (beat, now))
        if last_beat != beat:
            self._seen[holder] = (beat, now)
            return False
        return now - since >= self._silent_after_s

    def take(self, trial: str, after_epoch: int, is_gone: Callable[[str], bool]) -> int | None:
        """Take the next free epoch of a trial; None when somebody alive holds it.

        Args:
            after_epoch: the last epoch that is known to be free.
            is_gone: whether a holder's process is known to have ended.
        """
        epoch = after_epoch + 1
        while True:
            key = self._store.layout.lease(self._sweep, trial, epoch)
            if self._store.create_json(key, {"holder": self.holder, "epoch": epoch}):
                return epoch
            holder = self._store.read_json(key)["holder"]
            if holder == self.holder or not (is_gone(holder) or self.is_silent(holder)):
                return None
            epoch += 1

    def holds(self, trial: str, epoch: int) -> bool:
        """Whether nobody has taken the trial over since."""
        return still_held(self._store, self._sweep, trial, epoch)


def still_held(store: Store, sweep: str, trial: str, epoch: int) -> bool:
    """The fencing check: no lease with a higher number exists."""
    return not store.backend.exists(store.layout.lease(sweep, trial, epoch + 1))
