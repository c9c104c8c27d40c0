"""One sweep as whoever works it off sees it: a driver while there is work, another when one dies.

A state machine: `look` reads the log, `tick` watches the driver; neither waits for anything.
"""

from __future__ import annotations

import logging
import random
import signal
import time
from collections.abc import Callable
from typing import Literal

from orchestrator.log.events import DriverEnded
from orchestrator.log.state import SweepState
from orchestrator.log.sweep_log import LogWriter, SweepLog
from orchestrator.log.sweep_status import SweepStatus, is_over, num_to_suggest, sweep_status
from orchestrator.queue import QueuedSweep
from orchestrator.serving.driver_process import DriverOrder, DriverProcess
from orchestrator.serving.free_work import FreeWork
from orchestrator.serving.local_ray import RaySource
from orchestrator.serving.shares import Claim
from orchestrator.spec.sweep import SweepSpec
from orchestrator.store import Store, StoreError
from orchestrator.trials.ends import Ends
from orchestrator.tune.exit_codes import EXIT_DONE, EXIT_DRAINED, EXIT_UNUSABLE

logger = logging.getLogger(__name__)

MAX_DEATHS_WITHOUT_PROGRESS = 5
LOOK_AGAIN_S = 2.0
UNUSABLE_AGAIN_S = 60.0
MAX_UNUSABLE_AGAIN_S = 3600.0

Phase = Literal["waiting", "driving", "unusable", "parked", "over"]


def _nothing(message: str) -> None:
    """Nobody listens."""
    del message


class SweepWorker:
    """Works one sweep off with one driver at a time."""

    def __init__(
        self,
        store: Store,
        queued: QueuedSweep,
        ray: RaySource,
        say: Callable[[str], None] = _nothing,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
            say: told what happens, a line each, without the sweep's name.
        """
        self._store, self.queued, self._ray, self._say = store, queued, ray, say
        writer = LogWriter(store, queued.id, role="supervisor")
        self.log = SweepLog(store, queued.id, writer)
        self._free_work = FreeWork(store, queued, self.log)
        self._clock = clock
        self.phase: Phase = "waiting"
        self.reason = ""
        """Why it is parked or unusable, or why its driver died last."""
        self.has_free_work = False
        """Whether a driver started now would find something to do, as of the last `look`."""
        self._driver: DriverProcess | None = None
        self._not_before = 0.0
        self._deaths = 0
        self._num_unusable = 0
        self._progress_at_start = 0
        self._order_at_stop = 0
        self._is_begun = False

    # Looking

    def look(self) -> None:
        """Read what is new in the log: is there work, is it over, was something mended?"""
        if self.phase == "driving":
            self.log.refresh()
            return
        self.has_free_work = self._free_work.is_there()
        if self.is_over():
            self.phase, self.has_free_work = "over", False
        elif self.phase == "over" or (
            self.phase in ("parked", "unusable")
            and self.log.state.controls.max_order > self._order_at_stop
        ):
            self._deaths = self._num_unusable = 0
            self.phase, self._not_before = "waiting", 0.0

    def is_over(self) -> bool:
        return is_over(self.status())

    @property
    def spec(self) -> SweepSpec:
        """As of the last look: a sweep may be extended while it is worked on."""
        return self._free_work.spec

    @property
    def why_waits(self) -> str:
        """Why no driver is on it and none is due; empty otherwise."""
        if self.phase in ("parked", "unusable"):
            return self.reason
        return self._free_work.why_not if self.phase == "waiting" else ""

    @property
    def is_hopeless(self) -> bool:
        """Whether it waits for what cannot come unless somebody does something."""
        return self.phase == "waiting" and self._free_work.is_hopeless

    def status(self) -> SweepStatus:
        """In one word, from the log."""
        return sweep_status(self.spec.trials, self.log.state)

    @property
    def may_start(self) -> bool:
        """Whether a driver should be started as soon as there is a Ray and a slot for it."""
        waits = self.phase == "waiting" or (
            self.phase == "unusable" and self._clock() >= self._not_before
        )
        return waits and self.has_free_work and self._clock() >= self._not_before

    @property
    def is_alive(self) -> bool:
        """Whether it works, will soon, or waits for a driver elsewhere: not to be called idle."""
        if self.phase == "waiting" and not self.has_free_work:
            state = self.log.state
            waits_for_needs = bool(self.spec.needs) and state.needs_met is None
            return not waits_for_needs and self.status() != "paused"
        return self.phase in ("waiting", "driving")

    @property
    def priority(self) -> int:
        asked = self.log.state.priority
        return self.queued.priority if asked is None else asked

    @property
    def served_device_s(self) -> float:
        """Device time of all its trials so far, in seconds."""
        return sum(trial.busy_seconds for trial in self.log.state.trials.values())

    def claim(self, slots_per_device: float) -> Claim:
        """What it could use now.

        Args:
            slots_per_device: its trials that live on one device, until its driver says so.
        """
        state = self.log.state
        trials = [trial for trial in state.trials.values() if not trial.ended]
        queued = sum(t.status == "queued" and not state.controls.pause_of(t.id) for t in trials)
        new = 0 if state.controls.paused else num_to_suggest(self.spec.trials, state)
        return Claim(
            sweep=self.queued.id,
            priority=self.priority,
            slots_per_device=self._slots_per_device() or slots_per_device,
            demand=self.num_running() + queued + new,
            served_device_s=self.served_device_s,
        )

    def num_running(self) -> int:
        """Trials that its driver here holds."""
        ours = self._driver.writer if self._driver is not None else ""
        trials = self.log.state.trials.values()
        return sum(t.status == "running" and t.holder == ours for t in trials)

    def num_devices(self) -> float:
        """Devices that its driver counts on, now or later; 0 until it has looked."""
        started = self.log.state.drivers.get(self._driver.writer) if self._driver else None
        if started is None:
            return 0.0
        event = started.started
        if event.num_devices:
            return event.num_devices
        return event.num_gpus if event.device == "cuda" else float(event.num_nodes)

    def _slots_per_device(self) -> float:
        devices = self.num_devices()
        if not devices or self._driver is None:
            return 0.0
        return self.log.state.drivers[self._driver.writer].started.slots / devices

    # Driving

    @property
    def driver(self) -> DriverProcess | None:
        return self._driver

    def start(self, order: DriverOrder) -> None:
        """Put a driver on it."""
        assert self._driver is None
        if not self._is_begun:
            self._free_work.restore_suggestions()
            self._is_begun = True
        self._progress_at_start = _progress(self.log.refresh())
        self._driver = DriverProcess(self._store, self.queued.id, order)
        self.phase = "driving"

    def tick(self) -> None:
        """Watch the driver, if there is one."""
        if self._driver is None:
            return
        self._driver.copy_output()
        code = self._driver.poll()
        if code is not None:
            self._on_driver_end(code)
        elif self._driver.ray_address != self._ray.address:
            self._driver.kill()
            self._end_driver("its Ray is gone", again_after_s=0.0)
            self._say(f"its driver was stopped: {self._ray.problem or 'its Ray is gone'}")

    def allow(self, slots: int | None) -> None:
        """Tell the driver how many trials it may hold at once."""
        if self._driver is not None:
            self._driver.allow(slots)

    def ask_to_drain(self) -> None:
        """The driver checkpoints its trials and ends, if there is one."""
        if self._driver is not None:
            self._driver.ask_to_drain()

    def stop(self) -> None:
        """Now. A driver that did not drain in time is killed; its trials resume anyway."""
        if self._driver is None:
            return
        code = self._driver.poll()
        if code is None:
            self._driver.kill()
            code = -signal.SIGKILL
        try:
            self._end_driver(_how(code, self._driver), again_after_s=0.0)
        except StoreError as error:
            logger.warning("the end of %s's driver was not logged: %s", self.queued.id, error)

    def _on_driver_end(self, code: int) -> None:
        assert self._driver is not None
        state = self.log.refresh()
        moved = _progress(state) > self._progress_at_start or code in (EXIT_DONE, EXIT_DRAINED)
        self._deaths = 0 if moved or code == EXIT_UNUSABLE else self._deaths + 1
        how = _how(code, self._driver)
        if code == EXIT_UNUSABLE:
            self._on_unusable(state)
        elif self._deaths >= MAX_DEATHS_WITHOUT_PROGRESS:
            self._on_parked(how)
        elif code in (EXIT_DONE, EXIT_DRAINED):
            self._num_unusable = 0
            self._end_driver(how, LOOK_AGAIN_S)
        else:
            again_after_s = min(0.5 * 2.0**self._deaths, 30.0) * random.uniform(0.5, 1.0)
            last = self._driver.last_lines(1) if code > 0 else ""  # killed, it had no last word
            self._end_driver(how, again_after_s)
            said = f", its last line: {last}" if last else ""
            self._say(f"its driver died ({how}{said}); again in {again_after_s:.1f} s")

    def _on_unusable(self, state: SweepState) -> None:
        """The driver says why; tried again later, since somebody may mend it."""
        assert self._driver is not None
        ended = state.ended_drivers.get(self._driver.writer)
        self.reason = ended.reason if ended is not None else self._driver.last_lines(1)
        again_after_s = min(UNUSABLE_AGAIN_S * 2.0**self._num_unusable, MAX_UNUSABLE_AGAIN_S)
        self._num_unusable += 1
        self._end_driver(self.reason, again_after_s, phase="unusable")
        self._say(f"cannot run here: {self.reason}")

    def _on_parked(self, how: str) -> None:
        assert self._driver is not None
        lines = self._driver.last_lines()
        reason = (
            f"parked: its driver died {self._deaths} times in a row without progress "
            f"(the last time: {how}); `saeq retry {self.queued.id}` lets it try again"
        )
        self.reason = f"{reason}; the end of its output:\n{lines}"
        self._end_driver(reason, 0.0, phase="parked")
        self._say(self.reason)

    def _end_driver(self, how: str, again_after_s: float, phase: Phase = "waiting") -> None:
        """Say in the log that the process is gone, unless it could say so itself."""
        driver, self._driver = self._driver, None
        assert driver is not None
        self.phase, self.has_free_work = phase, False
        self._not_before = self._clock() + again_after_s
        driver.clear_away()
        if driver.writer not in self.log.refresh().ended_drivers:
            self.log.append(DriverEnded(driver=driver.writer, reason=how))
            Ends(self._store, self.queued.id, self.log).clear_up_after(driver.writer)
        self._order_at_stop = self.log.state.controls.max_order
        self.look()


def _how(code: int, driver: DriverProcess) -> str:
    if code == EXIT_DRAINED:
        return "asked to stop"
    if code == EXIT_UNUSABLE:
        return driver.last_lines(1)
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def _progress(state: SweepState) -> int:
    """Grows with everything that a sweep gets done."""
    return sum(len(t.history) + t.checkpoint_tokens + 10 * t.ended for t in state.trials.values())
