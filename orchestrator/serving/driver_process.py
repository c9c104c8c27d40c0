"""One driver as a child process: told its allowance, asked to stop, its output kept."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.log.sweep_log import new_writer_id
from orchestrator.redaction import redact
from orchestrator.serving.scratch import ScratchFolder
from orchestrator.store import NotWritable, Store, StoreError

logger = logging.getLogger(__name__)

COPY_EVERY_S = 5.0
COPY_LARGE_EVERY_S = 30.0
LARGE_BYTES = 256 * 1024
MAX_COPIED_BYTES = 8 * 2**20
"""Of an output that is larger, the end is copied."""


@dataclass(frozen=True)
class DriverOrder:
    """How a driver is to be started."""

    ray_address: str
    environment: Mapping[str, str] = field(default_factory=dict)
    slots: int | None = None
    """Trials it may hold at once to begin with; None: no limit."""
    usable_bytes: int | None = None
    """Memory of a device that its placement may plan with; None: it looks for itself."""
    drain_within_s: float = 4.0
    """How long its trials may take to be checkpointed when it is asked to stop."""
    ends_in_s: float | None = None
    """When it will be asked to stop, in seconds from its start; None: nobody knows."""


class DriverProcess:
    """One driver, started in a session of its own so that Ctrl-C reaches only its supervisor."""

    def __init__(self, store: Store, sweep: str, order: DriverOrder) -> None:
        self.writer = new_writer_id("driver")
        self.ray_address = order.ray_address
        self._slots = order.slots
        self._scratch = ScratchFolder("drivers")
        self._output = _Output(store, sweep, self.writer, self._scratch.path / "output.log")
        command = [sys.executable, "-m", "orchestrator.tune.driver", "--store", store.url]
        command += ["--sweep", sweep, "--writer", self.writer, "--ray-address", order.ray_address]
        command += ["--scratch", str(self._scratch.path)]
        command += ["--drain-within-s", f"{order.drain_within_s:g}"]
        if order.slots is not None:
            command += ["--slots", str(order.slots)]
        if order.usable_bytes is not None:
            command += ["--usable-bytes", str(order.usable_bytes)]
        if order.ends_in_s is not None:
            command += ["--ends-in-s", f"{order.ends_in_s:.1f}"]
        try:
            self._process = self._start(command, order)
        except OSError as error:
            self._scratch.remove()
            raise NotWritable(
                f"the driver's output cannot be written to {self._scratch.path}: "
                f"{error.strerror}; free space or set TMPDIR, then run again"
            ) from error

    def _start(self, command: list[str], order: DriverOrder) -> subprocess.Popen[bytes]:
        with open(self._output.path, "wb") as output:
            return subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, **order.environment, "PYTHONUNBUFFERED": "1"},
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def poll(self) -> int | None:
        """Exit code, negative for a signal, None while it runs."""
        return self._process.poll()

    def allow(self, slots: int | None) -> None:
        """Tell it how many trials it may hold at once; None: as many as it likes."""
        if slots == self._slots:
            return
        self._slots = slots
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"slots": slots}).encode() + b"\n")
            self._process.stdin.flush()
        except OSError:
            logger.info("driver %s has ended: not told of its allowance", self.writer)

    def ask_to_drain(self) -> None:
        """Checkpoint its trials, give them back, end."""
        if self.poll() is None:
            self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Now; its trials go on from their last checkpoints."""
        if self.poll() is None:
            self._process.kill()
        self._process.wait()

    def copy_output(self) -> None:
        """Into the store, now and then while it grows."""
        self._output.copy_if_due()

    def last_lines(self, count: int = 5) -> str:
        """End of its output, for a message."""
        return self._output.last_lines(count)

    def clear_away(self) -> None:
        """Once it has ended: the rest of its output into the store, its folder removed."""
        self._output.copy()
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._scratch.remove()


class _Output:
    """What a driver prints: a local file, and its copy in the store."""

    def __init__(self, store: Store, sweep: str, writer: str, path: Path) -> None:
        self.path = path
        self._store = store
        self._key = f"{store.layout.output(sweep)}{writer}.log"
        self._num_copied = 0
        self._copied_at = time.monotonic()

    def copy_if_due(self) -> None:
        num_bytes = self.path.stat().st_size
        every_s = COPY_EVERY_S if num_bytes < LARGE_BYTES else COPY_LARGE_EVERY_S
        if num_bytes > self._num_copied and time.monotonic() - self._copied_at >= every_s:
            self.copy()

    def copy(self) -> None:
        """A store that takes nothing in is no reason to stop a driver."""
        data = self.path.read_bytes()
        self._copied_at = time.monotonic()
        if len(data) == self._num_copied:
            return
        self._num_copied = len(data)
        try:
            text = redact(data[-MAX_COPIED_BYTES:].decode("utf-8", errors="replace"))
            self._store.backend.put(self._key, text.encode("utf-8"))
        except StoreError as error:
            logger.warning("%s was not copied into the store: %s", self._key, error)

    def last_lines(self, count: int) -> str:
        return redact("\n".join(self.path.read_text(errors="replace").splitlines()[-count:]))
