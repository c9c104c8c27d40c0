"""Keeps a driver on a sweep until the sweep is over, and starts the next one when one dies."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

from orchestrator.log.events import DriverEnded
from orchestrator.log.state import SweepState
from orchestrator.log.sweep_log import LogWriter, SweepLog, new_writer_id
from orchestrator.log.sweep_status import sweep_status
from orchestrator.queue import QueuedSweep
from orchestrator.serving.free_work import FreeWork
from orchestrator.store import NotWritable, Store, StoreError
from orchestrator.tune.exit_codes import EXIT_DONE, EXIT_DRAINED, EXIT_UNUSABLE

logger = logging.getLogger(__name__)

MAX_DEATHS_WITHOUT_PROGRESS = 5
TICK_S = 0.25
LOOK_AGAIN_S = 2.0
KILL_AFTER_S = 4.8
"""A driver that was asked to stop and has not by then is killed; its trials resume anyway."""


@dataclass(frozen=True)
class Outcome:
    """How supervising a sweep ended."""

    how: Literal["over", "interrupted", "unusable", "parked"]
    reason: str = ""


class DriverProcess:
    """One driver, started in a session of its own so that Ctrl-C reaches only its supervisor."""

    def __init__(self, store: Store, sweep: str, ray_address: str) -> None:
        self.writer = new_writer_id("driver")
        folder = Path(store.local_path(store.layout.output(sweep)))
        self.log_path = folder / f"{self.writer}.log"
        command = [sys.executable, "-m", "orchestrator.tune.driver", "--store", store.url]
        command += ["--sweep", sweep, "--writer", self.writer, "--ray-address", ray_address]
        with _opened(self.log_path) as output:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def poll(self) -> int | None:
        """Exit code, negative for a signal, None while it runs."""
        return self._process.poll()

    def stop(self, within_s: float, tick: Callable[[], None]) -> None:
        """Ask it to drain; kill it when it takes longer."""
        if self.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + within_s
        while self.poll() is None and time.monotonic() < deadline:
            tick()
            time.sleep(0.05)
        if self.poll() is None:
            self._process.kill()
            self._process.wait()

    def last_lines(self, count: int = 5) -> str:
        """End of its output, for a message."""
        lines = self.log_path.read_text(errors="replace").splitlines()
        return "\n".join(lines[-count:])


def _opened(path: Path) -> BinaryIO:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return open(path, "wb")
    except OSError as error:
        raise NotWritable(
            f"the driver's output cannot be written to {path}: {error.strerror}; free space or "
            "choose another --store, then run again"
        ) from error


def _nothing() -> None:
    """Nobody looks."""


class Supervisor:
    """Works one sweep off with one driver at a time."""

    def __init__(
        self,
        store: Store,
        queued: QueuedSweep,
        ray_address: str,
        tick: Callable[[], None],
    ) -> None:
        self._store, self._queued, self._ray_address = store, queued, ray_address
        self._log = SweepLog(store, queued.id, LogWriter(store, queued.id, role="supervisor"))
        self._free_work = FreeWork(store, queued, self._log)
        self._tick = tick
        self._driver: DriverProcess | None = None

    def run(self) -> Outcome:
        """Returns when the sweep is over or cannot go on; KeyboardInterrupt drains first."""
        try:
            return self._work()
        except KeyboardInterrupt:
            return self._interrupt()
        except NotWritable as error:
            self._stop_driver()
            return Outcome("unusable", str(error))
        except BaseException:
            self._stop_driver()
            raise

    def _work(self) -> Outcome:
        deaths = 0
        self._free_work.restore_suggestions()
        while True:
            while not self._free_work.is_there():
                if self._is_over(self._log.state):
                    return Outcome("over")
                self._wait(LOOK_AGAIN_S)
            before = _progress(self._log.state)
            code = self._run_driver()
            state = self._log.refresh()
            if self._is_over(state):
                return Outcome("over")
            if code == EXIT_UNUSABLE:
                return Outcome("unusable", self._reason(state))
            deaths = 0 if _progress(state) > before or code == EXIT_DONE else deaths + 1
            if deaths >= MAX_DEATHS_WITHOUT_PROGRESS:
                return self._park(deaths)
            self._wait(LOOK_AGAIN_S if code == EXIT_DONE else min(0.5 * 2.0**deaths, 30.0))

    def _run_driver(self) -> int:
        self._driver = DriverProcess(self._store, self._queued.id, self._ray_address)
        while (code := self._driver.poll()) is None:
            self._tick()
            time.sleep(TICK_S)
        self._note_end(code)
        return code

    def _note_end(self, code: int) -> None:
        """Say in the log that the process is gone, unless it could say so itself."""
        assert self._driver is not None
        if self._driver.writer in self._log.refresh().ended_drivers:
            return
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        if code == EXIT_DRAINED:
            how = "asked to stop"
        if code == EXIT_UNUSABLE:
            how = self._driver.last_lines(1)
        self._log.append(DriverEnded(driver=self._driver.writer, reason=how))

    def _interrupt(self) -> Outcome:
        try:
            self._stop_driver(self._tick)
        except KeyboardInterrupt:  # asked twice: at once
            if self._driver is not None:
                self._driver.stop(0.0, _nothing)
        return Outcome("interrupted")

    def _stop_driver(self, tick: Callable[[], None] = _nothing) -> None:
        if self._driver is None:
            return
        self._driver.stop(KILL_AFTER_S, tick)
        try:
            self._note_end(self._driver.poll() or 0)
        except StoreError as error:
            logger.warning("the end of %s was not logged: %s", self._driver.writer, error)

    def _park(self, deaths: int) -> Outcome:
        assert self._driver is not None
        reason = (
            f"its driver died {deaths} times in a row without progress; the end of "
            f"{self._driver.log_path}:\n{self._driver.last_lines()}"
        )
        return Outcome("parked", reason)

    def _reason(self, state: SweepState) -> str:
        """Why its driver could not work, in the driver's own words."""
        assert self._driver is not None
        ended = state.ended_drivers.get(self._driver.writer)
        return ended.reason if ended is not None else self._driver.last_lines(1)

    def _is_over(self, state: SweepState) -> bool:
        status = sweep_status(self._queued.spec.trials, state)
        return status in ("finished", "failed", "cancelled")

    def _wait(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self._tick()
            time.sleep(min(TICK_S, seconds))


def _progress(state: SweepState) -> int:
    """Grows with everything that a sweep gets done."""
    return sum(len(t.history) + t.checkpoint_tokens + 10 * t.ended for t in state.trials.values())
