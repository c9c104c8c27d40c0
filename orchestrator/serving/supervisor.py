"""Works one sweep off: what `saeq run` does between its first line and its results."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from orchestrator.providers.notices import Notice
from orchestrator.queue import QueuedSweep
from orchestrator.serving.driver_process import DriverOrder
from orchestrator.serving.local_ray import RaySource
from orchestrator.serving.notice_watch import NoticeWatch, leave_within_s
from orchestrator.serving.sweep_worker import LOOK_AGAIN_S, SweepWorker
from orchestrator.store import NotWritable, Store

TICK_S = 0.1
KILL_AFTER_S = 4.5
"""A driver that was asked to stop and has not by then is killed; its trials resume anyway."""
DRAIN_WITHIN_S = 4.0
LEAVE_WITHIN_S = 45.0
"""Before the machine is taken away there is time, and nobody sits and waits."""


@dataclass(frozen=True)
class Outcome:
    """How supervising a sweep ended."""

    how: Literal["over", "interrupted", "unusable", "parked"]
    reason: str = ""


class Supervisor:
    """Works one sweep off with one driver at a time."""

    def __init__(
        self,
        store: Store,
        queued: QueuedSweep,
        ray: RaySource,
        tick: Callable[[], None],
        say: Callable[[str], None],
        notices: NoticeWatch | None = None,
    ) -> None:
        """
        Args:
            tick: called several times a second.
            say: told what went wrong and is being mended.
            notices: says when this machine is taken away; None: nobody does.
        """
        self._ray, self._tick, self._notices = ray, tick, notices
        self._say: Callable[[str], None] = lambda line: say(f"{queued.id}: {line}")
        self._worker = SweepWorker(store, queued, ray, self._say)
        self._said = ""
        self._next_look = 0.0

    def run(self) -> Outcome:
        """Returns when the sweep is over or cannot go on; KeyboardInterrupt drains first."""
        try:
            return self._work()
        except KeyboardInterrupt:
            return self._interrupt()
        except NotWritable as error:
            return Outcome("unusable", str(error))
        finally:
            self._worker.stop()

    def _work(self) -> Outcome:
        worker, ray = self._worker, self._ray
        while True:
            if notice := self._due():
                self._say(f"{notice}: trials are being checkpointed")
                return self._interrupt(leave_within_s(notice, LEAVE_WITHIN_S))
            ray.tick()
            worker.tick()
            if worker.phase != "driving" and time.monotonic() >= self._next_look:
                worker.look()
                self._next_look = time.monotonic() + LOOK_AGAIN_S
                self._say_why_it_waits()
            if worker.phase == "over":
                return Outcome("over")
            if worker.is_hopeless:
                return Outcome("unusable", worker.why_waits)
            if worker.phase in ("unusable", "parked"):
                return Outcome("parked" if worker.phase == "parked" else "unusable", worker.reason)
            if ray.address is None and ray.problem and (ray.given_up or not ray.is_local):
                return Outcome("unusable", ray.problem)
            if worker.may_start and ray.address is not None:
                within_s = DRAIN_WITHIN_S if self._notices is None else LEAVE_WITHIN_S
                order = DriverOrder(ray.address, ray.environment, drain_within_s=within_s)
                worker.start(order)
            self._tick()
            time.sleep(TICK_S)

    def _say_why_it_waits(self) -> None:
        why = self._worker.why_waits if self._worker.phase == "waiting" else ""
        if why and why != self._said:
            self._say(f"waits: {why}")
        self._said = why

    def _due(self) -> Notice | None:
        """The notice that this machine goes, and soon."""
        return self._notices.due() if self._notices is not None else None

    def _interrupt(self, within_s: float = KILL_AFTER_S) -> Outcome:
        """Asked twice: at once."""
        deadline = time.monotonic() + within_s
        try:
            self._worker.ask_to_drain()
            driver = self._worker.driver
            while driver is not None and driver.poll() is None and time.monotonic() < deadline:
                self._tick()
                time.sleep(0.05)
        except KeyboardInterrupt:
            pass
        return Outcome("interrupted")
