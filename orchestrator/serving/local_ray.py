"""The Ray that drivers use: a private one on this machine, or a given cluster; watched, not joined.

Nothing here imports Ray. `tick` is called again and again; `address` is None while there is no Ray
to work on, and another one once a Ray that died was replaced.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from orchestrator.serving.ray_host import local_environment, private_token
from orchestrator.serving.scratch import ScratchFolder, remove_left_overs

logger = logging.getLogger(__name__)

START_WITHIN_S = 120.0
MAX_DEATHS = 5
"""Of a local Ray, each within `LIVED_S`: then it is not started again."""
LIVED_S = 120.0
PROBE_EVERY_S = 5.0
PROBE_TIMEOUT_S = 3.0
GONE_AFTER_PROBES = 3


def cluster_address(given: str | None) -> str | None:
    """A running cluster's address: the given one or $RAY_ADDRESS; None: start a local Ray."""
    return given or os.environ.get("RAY_ADDRESS") or None


class RaySource(ABC):
    """Where drivers find their Ray."""

    is_local: bool

    def __init__(self) -> None:
        self.environment: Mapping[str, str] = {}
        """What a driver's process needs beside ours."""
        self.address: str | None = None
        """None while there is none to work on."""
        self.problem = ""
        """Why there is none, in one sentence."""
        self.given_up = False
        """Whether none will come unless somebody mends something."""

    @abstractmethod
    def tick(self) -> None:
        """Look at it; start it anew if that is ours to do. Returns at once."""

    @abstractmethod
    def close(self) -> None:
        """Let it go; a local one ends with all of its processes."""


def ray_source(given: str | None) -> RaySource:
    """The given cluster, that of $RAY_ADDRESS, or a local Ray that starts at the first `tick`."""
    address = cluster_address(given)
    return GivenRay(address) if address else LocalRay()


class LocalRay(RaySource):
    """Starts a private Ray in a child process, and another one when that dies."""

    is_local = True

    def __init__(self) -> None:
        super().__init__()
        self.environment = local_environment()
        self._host: subprocess.Popen[bytes] | None = None
        self._scratch: ScratchFolder | None = None
        self._folder: str | None = None
        self._answers = b""
        self._started_at = 0.0
        self._not_before = 0.0
        self._num_deaths = 0

    def tick(self) -> None:
        if self._host is None:
            if not self.given_up and time.monotonic() >= self._not_before:
                self._start()
            return
        exit_code = self._host.poll()
        self._read_answers()  # its last word says more than an exit code
        if self._host is None:
            return
        if exit_code is not None:
            self._on_death(f"it ended with exit code {exit_code}")
        elif self.address is None and time.monotonic() - self._started_at > START_WITHIN_S:
            self._on_death(f"it did not start within {START_WITHIN_S:.0f} s")

    def close(self) -> None:
        self._end_host()
        if self._scratch is not None:
            self._scratch.remove()
            self._scratch = None

    def _start(self) -> None:
        remove_left_overs()
        self._scratch = self._scratch or ScratchFolder("host")
        self.environment = {**self.environment, **private_token(self._scratch.path)}
        self._started_at, self._answers = time.monotonic(), b""
        with open(self._scratch.path / "ray.log", "wb") as log:
            self._host = subprocess.Popen(
                [sys.executable, "-m", "orchestrator.serving.ray_host"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
                env={**os.environ, **self.environment},
            )
        assert self._host.stdout is not None
        os.set_blocking(self._host.stdout.fileno(), False)

    def _read_answers(self) -> None:
        assert self._host is not None
        assert self._host.stdout is not None
        self._answers += _available(self._host.stdout)
        whole, newline, self._answers = self._answers.rpartition(b"\n")
        for line in (whole + newline).splitlines():
            said = json.loads(line)
            self._folder = said.get("folder", self._folder)
            if "address" in said:
                self.address, self.problem = said["address"], ""
            if "dead" in said:
                self._on_death(f"its {said['dead']} died")
                return

    def _on_death(self, how: str) -> None:
        """Clear away what is left of it; the next one starts after a pause."""
        lived_s = time.monotonic() - self._started_at
        never_came = self.address is None
        self._end_host()
        self._num_deaths = 1 if lived_s > LIVED_S else self._num_deaths + 1
        self._not_before = time.monotonic() + min(0.5 * 2.0**self._num_deaths, 30.0)
        what = "the local Ray did not start" if never_came else "the local Ray died"
        last = self._tail(1) if never_came else ""
        self.problem = f"{what}: {how}{f', its last line: {last}' if last else ''}"
        if self._num_deaths >= MAX_DEATHS:
            self.given_up = True
            self.problem += f" ({self._num_deaths} times in a row); its last lines:\n{self._tail()}"
        logger.info("%s", self.problem)

    def _tail(self, num_lines: int = 5) -> str:
        assert self._scratch is not None
        text = (self._scratch.path / "ray.log").read_text(errors="replace")
        return "\n".join(text.splitlines()[-num_lines:])

    def _end_host(self) -> None:
        self.address = None
        if self._host is None:
            return
        kill_session(self._host.pid)
        self._host.kill()  # it may not have reached its session yet
        self._host.wait()
        for pipe in (self._host.stdin, self._host.stdout):
            assert pipe is not None
            pipe.close()
        kill_session(self._host.pid)  # what it started in between
        self._host = None
        if self._folder is not None:
            remove_left_overs((str(Path(self._folder).parent),))


class GivenRay(RaySource):
    """A cluster that is somebody else's: looked at from a thread, by its door only."""

    is_local = False

    def __init__(self, address: str) -> None:
        super().__init__()
        self._given = address
        self._door = _host_and_port(address)
        self._num_missed = 0
        self._closed = threading.Event()
        self._looking = threading.Thread(target=self._look, name="ray door", daemon=True)

    def tick(self) -> None:
        if self._door is None:  # "auto", "local": Ray knows what that is
            self.address = self._given
        elif self._looking.ident is None:
            self._looking.start()

    def close(self) -> None:
        self._closed.set()

    def _look(self) -> None:
        assert self._door is not None
        while not self._closed.is_set():
            try:
                socket.create_connection(self._door, PROBE_TIMEOUT_S).close()
            except OSError as error:
                self._miss(error.strerror or str(error))
            else:
                self._num_missed, self.address, self.problem = 0, self._given, ""
            self._closed.wait(PROBE_EVERY_S if self._num_missed == 0 else 1.0)

    def _miss(self, why: str) -> None:
        self._num_missed += 1
        if self.address is not None and self._num_missed < GONE_AFTER_PROBES:
            return
        self.address = None
        self.problem = (
            f"the Ray cluster at {self._given} does not answer ({why}); start it, or leave "
            "--ray-address and $RAY_ADDRESS out to use a local Ray"
        )


def is_door_open(address: str) -> bool:
    """Whether anything answers at a cluster's address; true for one that only Ray understands."""
    door = _host_and_port(address)
    if door is None:
        return True
    try:
        socket.create_connection(door, PROBE_TIMEOUT_S).close()
    except OSError:
        return False
    return True


def _host_and_port(address: str) -> tuple[str, int] | None:
    found = re.fullmatch(r"(?:ray://)?\[?([^/]+?)\]?:(\d+)", address)
    return (found[1], int(found[2])) if found else None


def _available(pipe: IO[bytes]) -> bytes:
    """What can be read from a pipe now."""
    data = b""
    try:
        while chunk := os.read(pipe.fileno(), 65536):
            data += chunk
    except BlockingIOError:
        pass
    return data


def kill_session(session: int, within_s: float = 10.0) -> None:
    """Kill the processes of a session, zombies apart, and wait until they are gone.

    Ray's workers are in process groups of their own, but all in the session of their host. A signal
    only announces the end: a killed process still holds its ports and memory for a moment, and one
    that was forked meanwhile is met in the next round.
    """
    deadline = time.monotonic() + within_s
    while living := _living_of(session):
        for pid in living:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            logger.warning(
                "processes %s were killed and are still there after %.0f s",
                ", ".join(map(str, living)),
                within_s,
            )
            return
        time.sleep(0.02)


def _living_of(session: int) -> list[int]:
    """The processes of a session that have not ended."""
    living = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it ended meanwhile
        if int(fields[3]) == session and fields[0] not in ("Z", "X"):
            living.append(int(stat.parent.name))
    return living
