"""Whole sweeps on a tiny random model, run by the real command in processes of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from orchestrator.log.state import SweepState
from orchestrator.log.sweep_log import LogReader, SweepLog
from orchestrator.queue import Queue
from orchestrator.spec.sweep import load_sweep
from orchestrator.store import Store

SWEEP = """
name: {name}
job: sae_train
model: {{name: {model}}}
data: {{builtin: python-docs, context: 32}}
hooks: [model.layers.1]
tokens: {tokens}
batch_tokens: 256
held_out_tokens: 512
space:
  architecture: topk
  d_sae: 64
  k: {{choice: [4, 8]}}
  lr: {{choice: [{lrs}]}}
search: {{sampler: grid}}
early_stop: {early_stop}
report: {report}
checkpoint: {{seconds: {checkpoint_seconds}}}
pack: {{members: {members}}}
"""


class RunningSweep:
    """A sweep file and a store in a folder, and `saeq run` on them."""

    def __init__(self, folder: Path, model: Path, **changes: object) -> None:
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
        self.file = folder / "sweep.yaml"
        self.file.write_text(SWEEP.format(**{**values, **changes}))
        self.id = str({**values, **changes}["name"])
        self.store = Store.open(str(folder / "store"))
        self._output = folder / "output.txt"

    @contextmanager
    def command(self, *options: str) -> Iterator[subprocess.Popen[bytes]]:
        """`saeq run` as a process; killed at the end of the block if it is still there."""
        line = [sys.executable, "-m", "orchestrator.cli", "run", str(self.file), "--plain"]
        with open(self._output, "ab") as output:
            process = subprocess.Popen(
                [*line, "--store", self.store.url, *options],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_listen_to_ctrl_c,
            )
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def run(self, timeout_s: float = 240) -> int:
        """To the end; returns the exit code."""
        with self.command() as process:
            return process.wait(timeout=timeout_s)

    @property
    def output(self) -> str:
        return self._output.read_text(errors="replace")

    def submit(self) -> None:
        """Into the store's queue, for a `saeq serve` to take."""
        Queue(self.store).submit(load_sweep(self.file), self.file.read_text())

    def state(self) -> SweepState:
        """What the log says now."""
        return SweepLog(self.store, self.id).refresh()

    def events(self) -> list[object]:
        """Every event of the log, writer by writer."""
        return list(LogReader(self.store, self.id).poll())

    def wait_for(
        self, seen: Callable[[SweepState], bool], process: subprocess.Popen[bytes], timeout_s: float
    ) -> SweepState:
        """Poll the log until something is in it. Fails with the output when it does not come."""
        log = SweepLog(self.store, self.id)
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            state = log.refresh()
            if seen(state):
                return state
            assert process.poll() is None, f"ended early:\n{self.output[-3000:]}"
            time.sleep(0.1)
        raise AssertionError(f"not seen within {timeout_s} s:\n{self.output[-3000:]}")


def _listen_to_ctrl_c() -> None:
    """A shell's background jobs ignore SIGINT, and so would what the tests start from one."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def process_of(name_part: str, below: int) -> int:
    """Pid of a descendant process whose title or command line holds `name_part`."""
    listing = subprocess.run(
        ["ps", "-ww", "-eo", "pid,ppid,args"], capture_output=True, text=True, check=True
    ).stdout
    rows = [line.split(None, 2) for line in listing.splitlines()[1:]]
    parent_of = {int(pid): int(parent) for pid, parent, _ in rows}
    for pid_text, _, args in rows:
        pid = int(pid_text)
        if name_part in args and below in _ancestors(pid, parent_of):
            return pid
    raise AssertionError(f"no process below {below} is called {name_part!r}:\n{listing}")


def _ancestors(pid: int, parent_of: dict[int, int]) -> set[int]:
    found = set()
    while pid in parent_of and pid not in found:
        found.add(pid)
        pid = parent_of[pid]
    return found


class RunningServe:
    """`saeq serve` on a store, as a process that prints plain lines."""

    def __init__(self, store: Store, output: Path) -> None:
        self.store, self._output = store, output

    @contextmanager
    def command(self, *options: str) -> Iterator[subprocess.Popen[bytes]]:
        """Killed at the end of the block if it is still there, with its Ray and its drivers."""
        line = [sys.executable, "-m", "orchestrator.cli", "serve", "--plain"]
        with open(self._output, "ab") as output:
            process = subprocess.Popen(
                [*line, "--store", self.store.url, *options],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_listen_to_ctrl_c,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()

    @property
    def output(self) -> str:
        return self._output.read_text(errors="replace")

    def wait_for_line(
        self, part: str, process: subprocess.Popen[bytes], timeout_s: float = 240
    ) -> str:
        """The first line that holds `part`, once it is printed."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            found = next((line for line in self.output.splitlines() if part in line), None)
            if found is not None:
                return found
            assert process.poll() is None, f"ended early:\n{self.output[-3000:]}"
            time.sleep(0.1)
        raise AssertionError(f"{part!r} was not said within {timeout_s} s:\n{self.output[-3000:]}")
