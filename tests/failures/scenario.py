"""One failure at a time, done to real processes that work off a sweep of a tiny model."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from orchestrator.log.state import SweepState
from orchestrator.log.sweep_log import SweepLog
from orchestrator.log.sweep_status import is_over, sweep_status
from orchestrator.queue import Queue
from orchestrator.spec.sweep import parse_sweep
from orchestrator.store import Store
from tests.chaos.faults import Fault, Scene
from tests.chaos.processes import Process
from tests.chaos.served import Served
from tests.chaos.storm import Command, command_line
from tests.chaos.verdict import Verdict, judge
from tests.orchestrator.running import SWEEP

LONG_S = 400.0
"""For what takes seconds on a quiet machine."""
SLACK_S = 30.0
"""What a kill may cost beyond a checkpoint interval: uploads wait for a core on a busy machine."""


class Scenario:
    """A sweep of four trials (k 4 and 8, two learning rates) in a store, and who works it off.

    Args:
        folder: for the sweep file, outputs and, unless another store is given, the store.
        num_serves: commands over the one store; none is started yet.
        environment: for the commands, such as the credentials of an S3 server.
        slack_s: what a kill may cost beyond a checkpoint interval.
        changes: parts of the sweep file, as in `tests.orchestrator.running`.
    """

    def __init__(
        self,
        folder: Path,
        model: Path,
        *,
        store: Store | None = None,
        num_serves: int = 1,
        environment: Mapping[str, str] | None = None,
        command: Command = "serve",
        slack_s: float = SLACK_S,
        **changes: object,
    ) -> None:
        values: dict[str, object] = {
            "name": "tiny",
            "model": model,
            "tokens": "500k",
            "lrs": "1.0e-3, 3.0e-3",
            "early_stop": "{scheduler: none}",
            "report": "25k",
            "checkpoint_seconds": 1,
            "members": 4,
        }
        text = SWEEP.format(**{**values, **changes})
        self.file = folder / "sweep.yaml"
        self.file.write_text(text)
        self.store = store or Store.open(str(folder / "store"))
        queued, _ = Queue(self.store).submit(parse_sweep(text), text)
        self.sweep, self.num_trials, self._command = queued.id, queued.spec.trials, command
        self._slack_s = slack_s
        names = [f"{command}-{number}" for number in range(1, num_serves + 1)]
        self.serves = [Served(name, folder, environment or {}) for name in names]
        self.scene = Scene(self.store, self.serves, random.Random(0), sweep=self.sweep)

    def start(self, *served: Served) -> None:
        """Start some, or all."""
        for one in served or self.serves:
            one.start(command_line(self._command, self.store, self.file))

    def strike(self, fault: str) -> str:
        """Do one of the storm's faults; fails when there is nothing to do it to."""
        hit = Fault.by_name[fault]().strike(self.scene)
        assert hit is not None, f"nothing to {fault}"
        return hit

    def driver_of(self, served: Served) -> Process:
        (driver,) = served.processes("driver")
        return driver

    def state(self) -> SweepState:
        """What the log says now."""
        return SweepLog(self.store, self.sweep).refresh()

    def wait_for(self, seen: Callable[[SweepState], bool], what: str) -> SweepState:
        """Poll the log until something is in it."""
        log = SweepLog(self.store, self.sweep)
        deadline = time.monotonic() + LONG_S
        while time.monotonic() < deadline:
            state = log.refresh()
            if seen(state):
                return state
            time.sleep(0.1)
        said = "\n".join(f"--- {s.name}\n{s.output()}" for s in self.serves if s.has_started)
        raise AssertionError(f"not seen within {LONG_S:.0f} s: {what}\n{said}")

    def has_two_checkpoints(self, trial: str) -> bool:
        """Whether the newest checkpoint may be lost without going back to the start."""
        prefix = self.store.layout.checkpoints(self.sweep, trial)
        names = self.store.backend.children(prefix)
        return sum(self.store.files(f"{prefix}{name}/") is not None for name in names) >= 2

    def finish(self, within_s: float = LONG_S) -> None:
        """To the end of the sweep; a command that gave up is started again, as a person would."""
        log, deadline = SweepLog(self.store, self.sweep), time.monotonic() + within_s
        while not is_over(sweep_status(self.num_trials, log.refresh())):
            assert time.monotonic() < deadline, self.serves[0].output()
            for served in self.serves:
                if served.has_started and served.poll() is not None:
                    self.start(served)
            time.sleep(0.1)

    def verdict(self) -> Verdict:
        """Stop what runs, then judge what is left."""
        for served in self.serves:
            if served.poll() is None and served.has_started:
                served.stop(within_s=60.0)
        left = [process for served in self.serves for process in served.leftovers(within_s=60.0)]
        assert left == []
        return judge(self.store, self.sweep, self.scene.damage, slack_s=self._slack_s)

    def clear(self) -> None:
        """Nothing that was started is left."""
        self.scene.wake(all_of_them=True)
        for served in self.serves:
            served.clear()


def all_checkpointed(state: SweepState) -> bool:
    """Every trial runs and has something to come back to."""
    running = [t for t in state.trials.values() if t.status == "running"]
    return len(running) == len(state.trials) == 4 and all(t.checkpoint_tokens for t in running)
