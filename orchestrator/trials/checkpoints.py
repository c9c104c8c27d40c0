"""Checkpoints of a trial in the store: the newest two complete ones, none of an ended trial."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from pathlib import Path

from orchestrator.store import Damaged, KeyMissing, Store, StoreError

logger = logging.getLogger(__name__)

KEEP = 2
_NAME = re.compile(r"(\d+)-(\d+)")


def tokens_and_epoch(name: str) -> tuple[int, int] | None:
    """What the name of a checkpoint says; None for what is no checkpoint's name."""
    named = _NAME.fullmatch(name)
    return (int(named[1]), int(named[2])) if named else None


class _Unwanted(Exception):
    """A state that must not count: its lease was lost, or its trial needs it no more."""


class Checkpoints:
    """The checkpoints of one trial."""

    def __init__(self, store: Store, sweep: str, trial: str) -> None:
        self._store, self._sweep, self._trial = store, sweep, trial
        self._prefix = store.layout.checkpoints(sweep, trial)
        self._damaged: set[str] = set()

    def _epoch_by_prefix(self) -> dict[str, int]:
        """In order of tokens, then epochs.

        By their files, not by `children`: some S3 servers go on listing folders that were emptied.
        """
        keys = (entry.key for entry in self._store.backend.entries(self._prefix))
        names = sorted({key.removeprefix(self._prefix).partition("/")[0] for key in keys})
        named = {name: tokens_and_epoch(name) for name in names}
        return {f"{self._prefix}{name}/": meant[1] for name, meant in named.items() if meant}

    def save(
        self,
        folder: Path,
        tokens: int,
        epoch: int,
        is_wanted: Callable[[], bool] | None = None,
    ) -> bool:
        """Upload a state; when it is complete, older ones beyond the last two are removed.

        Args:
            is_wanted: asked right before the state counts.

        Returns:
            Whether it counts; what was uploaded of one that is not wanted any more is removed.
        """
        prefix = self._store.layout.checkpoint(self._sweep, self._trial, tokens, epoch)

        def check() -> None:
            if is_wanted is not None and not is_wanted():
                raise _Unwanted

        try:
            self._store.put_files(folder, prefix, check)
        except _Unwanted:
            self._store.delete_files(prefix)
            return False
        self._remove_superseded(epoch)
        return True

    def _remove_superseded(self, epoch: int) -> None:
        """Complete ones beyond the newest two, damaged ones, and what earlier holders left half."""
        try:
            epoch_by_prefix = self._epoch_by_prefix()
            complete = [p for p in epoch_by_prefix if self._is_complete(p)]
            cut_off = [p for p, its in epoch_by_prefix.items() if its < epoch and p not in complete]
            for prefix in [*complete[:-KEEP], *cut_off]:
                self._store.delete_files(prefix)
        except StoreError as error:  # the new one is there, which is what counts
            logger.warning("trial %s: old checkpoints were not removed: %s", self._trial, error)

    def _is_complete(self, prefix: str) -> bool:
        return prefix not in self._damaged and self._store.files(prefix) is not None

    def remove_cut_off(self, epoch: int) -> None:
        """Remove uploads that holders of earlier leases did not bring to their end."""
        for prefix, its_epoch in self._epoch_by_prefix().items():
            if its_epoch < epoch and self._store.files(prefix) is None:
                self._store.delete_files(prefix)

    def fetch_newest(self, folder: Path) -> tuple[Path, int] | None:
        """Download the newest complete, undamaged state; (its folder, its tokens), or None.

        A damaged one is passed over with a warning: the one before it costs one interval of work.
        """
        for prefix in reversed(self._epoch_by_prefix()):
            tokens = int(prefix.rstrip("/").rpartition("/")[2].partition("-")[0])
            target = folder / f"{tokens}"
            try:
                self._store.get_files(prefix, target)
            except KeyMissing:
                continue  # an upload that was cut off: it never counted
            except Damaged as error:
                logger.warning("trial %s: %s; going back to the one before", self._trial, error)
                self._damaged.add(prefix)
                continue
            return target, tokens
        return None

    def remove_all(self) -> None:
        """For a trial that has ended."""
        self._store.backend.delete_prefix(self._prefix)
