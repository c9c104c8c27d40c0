"""Tells the trials that a driver holds what people ask of them, while they run.

A trial's actor may be on another node, in a call that lasts. It hears through the store: somebody
creates the object `give_back` of its lease, it checkpoints if asked to and lets the trial go, and
the desk finds the trial's end in the log or queues it again.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass

from orchestrator.control.current_spec import CurrentSpec
from orchestrator.log.state import SweepState
from orchestrator.log.sweep_log import SweepLog
from orchestrator.queue import UnknownSweep
from orchestrator.spec.sweep import SweepSpec
from orchestrator.spec.units import format_tokens
from orchestrator.store import StoreError
from orchestrator.trials.desk import Desk
from orchestrator.trials.ticket import Ticket

logger = logging.getLogger(__name__)

LOOK_EVERY_S = 1.0


@dataclass(frozen=True)
class Summons:
    """Why a trial is to be given back."""

    reason: str
    save: bool
    """Whether it is worth a checkpoint: somebody will go on with it."""


def summons_for(ticket: Ticket, state: SweepState, spec: SweepSpec, holder: str) -> Summons | None:
    """Why whoever holds a trial should let it go; None while it should go on."""
    trial = state.trials.get(ticket.trial)
    if trial is not None and trial.ended and trial.life == ticket.life:
        return Summons(trial.reason or f"it has ended: {trial.status}", save=False)
    if state.cancelled_by:
        return Summons(f"its sweep was cancelled by {state.cancelled_by}", save=False)
    if holder in state.ended_drivers:
        return Summons(f"its driver was taken for dead: {holder}", save=True)
    pause = state.controls.pause_of(ticket.trial)
    if pause is not None and not pause.keep_running:
        return Summons(f"paused by {pause.by}", save=True)
    total = spec.kind.total_tokens(spec.setup, ticket.config)
    if total != ticket.total_tokens:
        return Summons(f"extended to {format_tokens(total)} tokens", save=True)
    return None


class ControlWatch:
    """Looks into the log from a thread of its own, for as long as the block lasts.

    Args:
        desk: whose trials are looked after.
        every_s: seconds between looks.
    """

    def __init__(self, desk: Desk, every_s: float = LOOK_EVERY_S) -> None:
        self._desk, self._every_s = desk, every_s
        self._log = SweepLog(desk.store, desk.sweep)
        self._current_spec = CurrentSpec(desk.store, desk.sweep, desk.spec)
        self._told: set[tuple[str, int]] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="control", daemon=True)

    def __enter__(self) -> ControlWatch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """A look that hangs in the store is left to end by itself."""
        self._stop.set()
        self._thread.join(timeout=self._every_s)

    def look(self) -> list[str]:
        """Look once; returns the trials that were told to come back. Raises StoreError."""
        state = self._log.refresh()
        spec = self._current_spec.look(state)
        holder = self._desk.leases.holder
        if holder in state.ended_drivers:
            self._desk.draining = True
        told = []
        for ticket in self._desk.tickets():
            summons = summons_for(ticket, state, spec, holder)
            if summons is None or (ticket.trial, ticket.epoch) in self._told:
                continue
            key = self._desk.store.layout.give_back(ticket.sweep, ticket.trial, ticket.epoch)
            order = {"reason": summons.reason, "save": summons.save}
            self._desk.store.create_json(key, order)
            self._told.add((ticket.trial, ticket.epoch))
            told.append(ticket.trial)
            logger.info("trial %s: asked back: %s", ticket.trial, summons.reason)
        return told

    def _run(self) -> None:
        while not self._stop.wait(self._every_s):
            try:
                self.look()
            except (StoreError, UnknownSweep) as error:
                logger.warning("orders could not be looked for: %s", error)
