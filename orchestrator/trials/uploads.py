"""Checkpoints on their way into the store while their trial goes on."""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from jobs.kind import TrialLost
from orchestrator.store import NotWritable, StoreError
from orchestrator.trials.checkpoints import Checkpoints

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LocalState:
    """A trial's state on this machine's disk. Whoever takes it in removes the folder."""

    folder: Path
    tokens: int
    busy_seconds: float | None
    """Device time of this lease up to about there, where it was measured."""


class CheckpointUploads:
    """Carries states into the store from a thread: one travels, and one newer may wait.

    A state that is overtaken while it waits is dropped. An upload that fails is a warning, since
    the next state is due soon; a store that takes nothing in at all (NotWritable), and a lease
    that was lost, are raised to the trial by `raise_if_failed`.

    Args:
        still_held: the fencing check, asked right before a state counts.
    """

    def __init__(
        self, checkpoints: Checkpoints, epoch: int, still_held: Callable[[], bool]
    ) -> None:
        self._checkpoints, self._epoch, self._still_held = checkpoints, epoch, still_held
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._waiting: LocalState | None = None
        self._travels = False
        self._complete: LocalState | None = None
        self._error: Exception | None = None
        self._abandoned = False

    def offer(self, state: LocalState) -> None:
        """Take a state over, to be uploaded as soon as the one before it is."""
        with self._changed:
            overtaken, self._waiting = self._waiting, state
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="uploads", daemon=True)
                self._thread.start()
            self._changed.notify_all()
        if overtaken is not None:
            logger.info("checkpoint at %d tokens was overtaken and dropped", overtaken.tokens)
            shutil.rmtree(overtaken.folder, ignore_errors=True)

    def take_complete(self) -> LocalState | None:
        """The newest state that became complete since the last call; its folder is gone."""
        with self._changed:
            complete, self._complete = self._complete, None
        return complete

    def raise_if_failed(self) -> None:
        """Raises NotWritable or TrialLost if an upload met with it."""
        with self._changed:
            error, self._error = self._error, None
        if error is not None:
            raise error

    def settle(self, within_s: float) -> bool:
        """Wait until nothing travels or waits; False when that took longer."""
        deadline = time.monotonic() + within_s
        with self._changed:
            while self._travels or self._waiting is not None:
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                self._changed.wait(timeout=left)
        return True

    def abandon(self, within_s: float) -> None:
        """Nothing that is not complete yet will be; what was uploaded of it is removed.

        Waits at most so long for the thread, which otherwise ends by itself after its upload.
        """
        with self._changed:
            self._abandoned = True
            waiting, self._waiting = self._waiting, None
            self._changed.notify_all()
        if waiting is not None:
            shutil.rmtree(waiting.folder, ignore_errors=True)
        if self._thread is not None:
            self._thread.join(timeout=within_s)

    def _run(self) -> None:
        while True:
            with self._changed:
                while self._waiting is None and not self._abandoned:
                    self._changed.wait()
                if self._waiting is None:
                    return
                state, self._waiting, self._travels = self._waiting, None, True
            error = self._upload(state)
            shutil.rmtree(state.folder, ignore_errors=True)
            with self._changed:
                self._travels = False
                self._error = error or self._error
                self._changed.notify_all()

    def _upload(self, state: LocalState) -> Exception | None:
        """Returns what the trial has to know of."""
        try:
            counts = self._checkpoints.save(
                state.folder, state.tokens, self._epoch, self._is_wanted
            )
        except (StoreError, OSError) as error:
            if self._abandoned:
                return None
            logger.warning("checkpoint at %d tokens was not uploaded: %s", state.tokens, error)
            return error if isinstance(error, NotWritable) else None
        except Exception as error:  # noqa: BLE001 - raised again in the trial's own thread
            return error
        if counts:
            logger.info("checkpoint at %d tokens is complete", state.tokens)
            with self._changed:
                self._complete = state
            return None
        return None if self._abandoned else TrialLost("its lease was taken over")

    def _is_wanted(self) -> bool:
        return not self._abandoned and self._still_held()
