"""Checkpoints of a trial in the store: the newest two complete ones, none of an ended trial."""

from __future__ import annotations

import logging
from pathlib import Path

from orchestrator.store import Damaged, KeyMissing, Store

logger = logging.getLogger(__name__)

KEEP = 2


class Checkpoints:
    """The checkpoints of one trial."""

    def __init__(self, store: Store, sweep: str, trial: str) -> None:
        self._store, self._sweep, self._trial = store, sweep, trial
        self._prefix = store.layout.checkpoints(sweep, trial)

    def _prefixes(self) -> list[str]:
        names = self._store.backend.children(self._prefix)
        return [f"{self._prefix}{name}/" for name in sorted(names)]

    def save(self, folder: Path, tokens: int, epoch: int) -> None:
        """Upload a state; when it is complete, older ones beyond the last two are removed."""
        prefix = self._store.layout.checkpoint(self._sweep, self._trial, tokens, epoch)
        self._store.put_files(folder, prefix)
        complete = [p for p in self._prefixes() if self._store.files(p) is not None]
        for old in complete[:-KEEP]:
            self._store.delete_files(old)

    def fetch_newest(self, folder: Path) -> tuple[Path, int] | None:
        """Download the newest complete, undamaged state; (its folder, its tokens), or None.

        A damaged one is passed over with a warning: the one before it costs one interval of work.
        """
        for prefix in reversed(self._prefixes()):
            tokens = int(prefix.rstrip("/").rpartition("/")[2].partition("-")[0])
            target = folder / f"{tokens}"
            try:
                self._store.get_files(prefix, target)
            except KeyMissing:
                continue  # an upload that was cut off: it never counted
            except Damaged as error:
                logger.warning("trial %s: %s; going back to the one before", self._trial, error)
                continue
            return target, tokens
        return None

    def remove_all(self) -> None:
        """For a trial that has ended."""
        self._store.backend.delete_prefix(self._prefix)
