"""Somebody with an account: gives `saeq` commands, has a store and a folder that all nodes see."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from orchestrator.log.state import SweepState
from orchestrator.log.sweep_log import SweepLog
from orchestrator.log.sweep_status import is_over, sweep_status
from orchestrator.queue import Queue, QueuedSweep
from orchestrator.slurm.folder import SlurmFolder
from orchestrator.spec.sweep import parse_sweep
from orchestrator.store import Store
from tests.chaos.verdict import Verdict, judge
from tests.orchestrator.running import SWEEP
from tests.slurm.cluster import SlurmCluster

LONG_S = 400.0
"""For what takes half a minute on a quiet machine."""
SLACK_S = 45.0
"""What an end without notice may cost beyond a checkpoint interval on a busy machine."""
SMALL = {
    "name": "tiny",
    "tokens": "200k",
    "lrs": "1.0e-3, 3.0e-3",
    "early_stop": "{scheduler: none}",
    "report": "25k",
    "checkpoint_seconds": 1,
    "members": 2,
}


class Student:
    """One user.

    Args:
        folder: for everything of theirs.
    """

    def __init__(self, slurm: SlurmCluster, folder: Path, model: Path) -> None:
        self.slurm, self.folder, self._model = slurm, folder, model
        self.store = Store.open(str(folder / "store"))
        self._outputs = 0

    @property
    def environment(self) -> dict[str, str]:
        """What is set at their prompt."""
        ours = {name: text for name, text in os.environ.items() if not name.startswith("SLURM")}
        return {
            **ours,
            **self.slurm.environment,
            "SAEQ_STORE": self.store.url,
            "SAEQ_SLURM_FOLDER": str(self.folder / "up"),
            "SAEQ_CACHE": str(self.folder / "cache"),
            "OMP_NUM_THREADS": "1",
        }

    def submit(self, **changes: object) -> QueuedSweep:
        """A sweep of four trials of a tiny model; parts as in `tests.orchestrator.running`."""
        text = SWEEP.format(**{**SMALL, "model": self._model, **changes})
        queued, _ = Queue(self.store).submit(parse_sweep(text), text)
        return queued

    def saeq(self, *arguments: str, code: int = 0, within_s: float = LONG_S) -> str:
        """A command to its end; what it printed."""
        done = subprocess.run(
            [sys.executable, "-m", "orchestrator.cli", *arguments],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=within_s,
        )
        assert done.returncode == code, f"{arguments} ended with {done.returncode}\n{done.stdout}"
        return done.stdout

    @contextmanager
    def running(self, *arguments: str) -> Iterator[Running]:
        """A command that goes on; interrupted at the end of the block, as with Ctrl-C."""
        self._outputs += 1
        running = Running(self.folder / f"output-{self._outputs}.txt")
        with open(running.output, "wb") as file:
            running.process = subprocess.Popen(
                [sys.executable, "-m", "orchestrator.cli", *arguments],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
                preexec_fn=_hears_ctrl_c,
            )
        try:
            yield running
        finally:
            running.interrupt()

    def up(self, name: str = "workers") -> SlurmFolder:
        return SlurmFolder(self.folder / "up" / name)

    def status(self) -> Any:
        """`saeq slurm status --json`."""
        return json.loads(self.saeq("slurm", "status", "--json"))

    def jobs(self) -> dict[str, Any]:
        """Those of `slurm status`, by id."""
        return {job["job"]: job for up in self.status()["ups"] for job in up["jobs"]}

    def wait_for(self, seen: Callable[[], bool], what: str, within_s: float = LONG_S) -> None:
        """Poll for something."""
        deadline = time.monotonic() + within_s
        while not seen():
            if time.monotonic() > deadline:
                status = self.saeq("slurm", "status")
                raise AssertionError(f"not within {within_s:.0f} s: {what}\n{status}")
            time.sleep(0.3)

    def state(self, queued: QueuedSweep) -> SweepState:
        return SweepLog(self.store, queued.id).refresh()

    def is_over(self, queued: QueuedSweep) -> bool:
        return is_over(sweep_status(queued.spec.trials, self.state(queued)))

    def verdict(self, queued: QueuedSweep) -> Verdict:
        """Of a sweep that is over."""
        return judge(self.store, queued.id, slack_s=SLACK_S)


class Running:
    """A command that goes on."""

    process: subprocess.Popen[bytes]

    def __init__(self, output: Path) -> None:
        self.output = output

    def said(self) -> str:
        """What it printed so far."""
        return self.output.read_text()

    def interrupt(self) -> int:
        """Ctrl-C; its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        try:
            return self.process.wait(timeout=60.0)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


def _hears_ctrl_c() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
