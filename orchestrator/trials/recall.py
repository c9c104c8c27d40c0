"""Noticing that a trial is to be let go: somebody asked for it, or somebody else took it over."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass

from orchestrator.store import Damaged, KeyMissing, Store, StoreError
from orchestrator.trials.leases import still_held

logger = logging.getLogger(__name__)

LOOK_EVERY_S = 2.0
"""A cancel or pause has to show within 5 s: this, the driver's own look, and a slice of a step."""


@dataclass(frozen=True)
class Recall:
    """Why a trial's actor lets its trial go before its end."""

    reason: str
    save: bool
    """Whether to checkpoint first."""
    lost: bool = False
    """A later lease exists: nothing may be written any more."""


def look_for_recall(store: Store, sweep: str, trial: str, epoch: int) -> Recall | None:
    """What the store says about this lease now; None while the trial may go on.

    Raises StoreError when the store cannot be asked.
    """
    if not still_held(store, sweep, trial, epoch):
        return Recall("its lease was taken over", save=False, lost=True)
    key = store.layout.give_back(sweep, trial, epoch)
    try:
        asked = store.read_json(key)
    except KeyMissing:
        return None
    except Damaged:  # it is there, whatever it says: letting go with a checkpoint loses nothing
        asked = {}
    fields = asked if isinstance(asked, dict) else {}
    reason = str(fields.get("reason") or "asked to give it back")
    return Recall(reason, save=fields.get("save") is not False)


class RecallWatch:
    """Looks from a thread of its own, so that a slow store holds no trial up.

    Args:
        every_s: seconds between looks.
    """

    def __init__(
        self, store: Store, sweep: str, trial: str, epoch: int, every_s: float = LOOK_EVERY_S
    ) -> None:
        self._where = (store, sweep, trial, epoch)
        self._every_s = every_s
        self._stop = threading.Event()
        self._recall: Recall | None = None
        self._thread = threading.Thread(target=self._run, name="recall", daemon=True)

    @property
    def recall(self) -> Recall | None:
        """What was found; once found it stays."""
        return self._recall

    def start(self) -> RecallWatch:
        self._thread.start()
        return self

    def stop(self) -> None:
        """Look no more; a look that hangs in the store is left to end by itself."""
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._recall = look_for_recall(*self._where)
            except StoreError as error:
                logger.warning("trial %s: could not look for orders: %s", self._where[2], error)
            if self._recall is not None:
                return
            self._stop.wait(self._every_s)
