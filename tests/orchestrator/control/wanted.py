"""A sweep of four trials in a store, with drivers and people that do what a test says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from orchestrator.control.orders import Orders
from orchestrator.log.events import DriverStarted
from orchestrator.log.state import SweepState
from orchestrator.log.sweep_log import LogWriter, SweepLog
from orchestrator.queue import Queue, QueuedSweep
from orchestrator.spec.sweep import parse_sweep
from orchestrator.store import Store
from orchestrator.trials.desk import Desk
from orchestrator.trials.ticket import Ticket

TEXT = """
name: steered
job: sae_train
model: {builtin: smollm2-135m}
data: {builtin: python-docs}
hooks: [model.layers.1]
tokens: 90k
batch_tokens: 1000
space:
  architecture: topk
  d_sae: 64
  k: 4
  lr: {loguniform: [1.0e-4, 1.0e-2]}
search: {sampler: random, trials: 4}
early_stop: {scheduler: asha, reduction: 3}
max_failures: 0
"""
GRID = TEXT.replace("{loguniform: [1.0e-4, 1.0e-2]}", "{choice: [1.0e-4, 1.0e-3]}").replace(
    "{sampler: random, trials: 4}", "{sampler: grid}"
)


class Wanted:
    """The sweep, and what is done to it."""

    def __init__(self, folder: Path, text: str = TEXT) -> None:
        self.store = Store.open(str(folder / "store"))
        self.queued: QueuedSweep = Queue(self.store).submit(parse_sweep(text), text)[0]

    def desk(self) -> Desk:
        """A driver's desk, announced in the log."""
        log = SweepLog(self.store, self.queued.id, LogWriter(self.store, self.queued.id))
        log.append(DriverStarted(host="here", pid=1, slots=4))
        spec = Queue(self.store).get(self.queued.id).spec
        return Desk(self.store, self.queued.id, spec, log, max_members=4)

    def orders(self, by: str = "ada@laptop") -> Orders:
        """What a person asks for now."""
        return Orders(self.store, self.queued.id, by)

    def state(self) -> SweepState:
        return SweepLog(self.store, self.queued.id).refresh()

    def given_back(self, ticket: Ticket) -> Any:
        """What its actor would read; None while it is not asked to let go."""
        key = self.store.layout.give_back(ticket.sweep, ticket.trial, ticket.epoch)
        return self.store.read_json(key) if self.store.backend.exists(key) else None


def take(desk: Desk) -> Ticket:
    ticket = desk.next()
    assert isinstance(ticket, Ticket)
    return ticket


def report(tokens: int, fvu: float = 0.5) -> dict[str, Any]:
    numbers = {"fvu": fvu, "loss": 1.0, "l0": 4.0, "dead_fraction": 0.0}
    return {"kind": "report", "tokens": tokens, "metrics": numbers, "busy_seconds": 1.0, "at": {}}


def finished(ticket: Ticket) -> dict[str, Any]:
    numbers = {"artefact": f"{ticket.sweep}-{ticket.trial}", "metrics": {"fvu": 0.1}}
    return {"kind": "finished", "finished": {**numbers, "tokens": 90_000, "busy_seconds": 2.0}}


FAILED = {"kind": "failed", "reason": "ValueError: no such word", "traceback": "..."}
GIVEN_BACK = {"kind": "preempted", "reason": "asked to give it back"}
