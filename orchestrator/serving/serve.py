"""`saeq serve`: works the queue of a store off until told to stop, or until nothing is left."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass

from orchestrator.nodes.presence import NODE_VARIABLE, Presence
from orchestrator.queue import QueuedSweep
from orchestrator.serving.allotment import Allotment, Allotter
from orchestrator.serving.driver_process import DriverOrder
from orchestrator.serving.local_ray import RaySource
from orchestrator.serving.roster import Roster
from orchestrator.serving.sweep_worker import SweepWorker
from orchestrator.store import Store, StoreError

TICK_S = 0.2
LOOK_EVERY_S = 1.0
STORE_AGAIN_S = 5.0
DRAIN_WITHIN_S = 45.0
KILL_AFTER_S = 50.0
"""From the request to stop to the end: within a minute, however slow the store."""
QUEUE = ""
"""Instead of a sweep's name: what is said concerns all of them."""


class NoRay(ValueError):
    """The local Ray does not come up; the message says how it ended."""


@dataclass(frozen=True)
class ServeOptions:
    """How long to serve, and how many sweeps at once."""

    max_sweeps: int = 4
    until_idle: bool = False
    """End when nothing in the queue can be worked on by anybody."""
    for_s: float | None = None
    """Drain after so many seconds."""


class Serve:
    """The loop of one serving process."""

    def __init__(
        self,
        store: Store,
        ray: RaySource,
        options: ServeOptions,
        say: Callable[[str, str], None],
        tick: Callable[[], None],
        allotter: Allotter | None = None,
    ) -> None:
        """
        Args:
            say: told a sweep (or `QUEUE`) and what happened, a line each.
            tick: called several times a second.
        """
        self._store, self._ray, self._options = store, ray, options
        self._say, self._tick = say, tick
        self._roster = Roster(store, self._new_worker, say)
        self._allotter = allotter or Allotter(options.max_sweeps)
        self._said: dict[str, str] = {}
        self._next_look = 0.0
        self._wants_ray = False

    @property
    def working(self) -> list[SweepWorker]:
        """The sweeps that have a driver here."""
        return [worker for worker in self._roster.workers if worker.phase == "driving"]

    def run(self) -> None:
        """Returns when it is done, or when it was asked to stop: then trials are checkpointed.

        Raises:
            NoRay: a local Ray was started again and again, and died each time.
        """
        node = os.environ.get(NODE_VARIABLE) or f"serve-{uuid.uuid4().hex[:10]}"
        with Presence(self._store, node) as presence:
            try:
                self._serve(presence)
            except KeyboardInterrupt:
                self._say(QUEUE, "asked to stop: trials are being checkpointed and given back")
            finally:
                self._drain()

    def _serve(self, presence: Presence) -> None:
        deadline = time.monotonic() + (self._options.for_s or float("inf"))
        while time.monotonic() < deadline:
            has_looked = self._step(presence)
            if self._options.until_idle and has_looked and self._is_idle():
                self._say(QUEUE, "nothing is left that can be worked on")
                return
            time.sleep(TICK_S)
        self._say(QUEUE, "time is over: trials are being checkpointed and given back")

    def _step(self, presence: Presence) -> bool:
        """One round, perhaps with a look; a store that does not answer is asked again later."""
        has_looked = False
        try:
            self._watch()
            if time.monotonic() >= self._next_look:
                self._look()
                working = self.working
                slots = sum(worker.num_running() for worker in working)
                presence.say(slots=slots, sweeps=tuple(w.queued.id for w in working))
                self._next_look = time.monotonic() + LOOK_EVERY_S
                has_looked = True
            self._tick()
            self._said.pop("store", None)
        except StoreError as error:
            self._say_once("store", QUEUE, f"{error}; trying again")
            self._next_look = time.monotonic() + STORE_AGAIN_S
        return has_looked

    def _watch(self) -> None:
        if self._wants_ray:
            self._ray.tick()
        if self._ray.given_up:
            raise NoRay(self._ray.problem)
        if self._ray.problem:
            self._say_once("ray", QUEUE, self._ray.problem)
        else:
            self._said.pop("ray", None)
        for worker in self._roster.workers:
            worker.tick()

    def _look(self) -> None:
        self._roster.look()
        workers = self._roster.workers
        # Also while others hold all the work: to take it over at once when they go.
        self._wants_ray = self._wants_ray or not self._is_idle()
        allotment = self._allotter.allot(workers)
        for worker in workers:
            if worker.phase == "driving":
                worker.allow(allotment.slots.get(worker.queued.id, 0))
            elif worker.queued.id in allotment.slots:
                self._start(worker, allotment)
            self._say_why_it_waits(worker, allotment)
        if not workers:
            self._say_once("idle", QUEUE, "no sweep waits; one that is submitted will be taken")
        else:
            self._said.pop("idle", None)

    def _start(self, worker: SweepWorker, allotment: Allotment) -> None:
        if self._ray.address is None:
            return
        sweep = worker.queued.id
        slots = allotment.slots[sweep]
        worker.start(
            DriverOrder(
                self._ray.address,
                self._ray.environment,
                slots=slots,
                usable_bytes=allotment.usable_bytes.get(sweep),
                drain_within_s=DRAIN_WITHIN_S,
            )
        )
        many = "all slots" if slots is None else f"{slots} slot{'s' if slots != 1 else ''}"
        self._say(sweep, f"taken (priority {worker.priority}, {many})")

    def _say_why_it_waits(self, worker: SweepWorker, allotment: Allotment) -> None:
        sweep = worker.queued.id
        why = worker.why_waits if worker.phase == "waiting" else ""
        why = allotment.why_not.get(sweep, why)
        if why and worker.phase != "driving":
            self._say_once(sweep, sweep, why)
        else:
            self._said.pop(sweep, None)

    def _say_once(self, key: str, sweep: str, what: str) -> None:
        if self._said.get(key) != what:
            self._said[key] = what
            self._say(sweep, what)

    def _is_idle(self) -> bool:
        return not any(worker.is_alive for worker in self._roster.workers)

    def _new_worker(self, queued: QueuedSweep) -> SweepWorker:
        return SweepWorker(self._store, queued, self._ray, lambda what: self._say(queued.id, what))

    def _drain(self) -> None:
        """All drivers at once; asked twice: now."""
        deadline = time.monotonic() + KILL_AFTER_S
        try:
            for worker in self.working:
                worker.ask_to_drain()
            while time.monotonic() < deadline and any(
                worker.driver is not None and worker.driver.poll() is None
                for worker in self.working
            ):
                self._tick()
                time.sleep(0.05)
        except KeyboardInterrupt:
            self._say(QUEUE, "asked again: stopping now")
        for worker in self.working:
            worker.stop()
