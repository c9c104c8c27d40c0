"""The Ray node that this machine is part of, found by its process: nothing here imports Ray.

Who joins Ray as a driver, only to find that out, holds a place on the node and keeps it from being
idle; and Ray's client ends its process when the cluster's head is away for a minute.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

DRAIN_WITHIN_S = 30.0
"""Most of it is for importing Ray on a machine that is busy."""


class NoRaylet(ValueError):
    """No Ray node of that kind runs on this machine."""


class SeveralRaylets(ValueError):
    """More than one does, and nobody said which."""


class DrainFailed(ValueError):
    """The cluster did not take the request in; it may be asked again."""


@dataclass(frozen=True)
class Raylet:
    """One Ray node's process on this machine."""

    node_id: str
    gcs_address: str
    pid: int
    started: int
    """Of the process, in ticks since the machine's start: a pid alone may be somebody else's."""
    is_head: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)

    def is_alive(self) -> bool:
        """Whether that process still runs."""
        return _start_of(self.pid) == self.started

    def drain(self, why: str, deadline_s: float | None) -> None:
        """Nothing more is put on it; once idle it ends. In a child process. Raises DrainFailed.

        Args:
            deadline_s: seconds from now until the machine goes; None: nobody says.
        """
        command = [sys.executable, "-m", "orchestrator.nodes.drain_node", self.gcs_address]
        command += [self.node_id, why]
        if deadline_s is not None:
            command.append(str(round((time.time() + max(deadline_s, 0.0)) * 1000)))
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=DRAIN_WITHIN_S,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise DrainFailed(f"no answer within {DRAIN_WITHIN_S:.0f} s") from error
        if done.returncode != 0:
            lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
            raise DrainFailed(lines[-1])


def own_raylet(address: str | None = None, node_id: str | None = None) -> Raylet:
    """This user's one Ray node on this machine. Raises NoRaylet and SeveralRaylets.

    Args:
        address: HOST:PORT of its cluster; None, empty or `auto`: any.
        node_id: Ray's id of it, or how that begins, where there are several.
    """
    found = [one for one in raylets() if one.node_id.startswith(node_id or "")]
    if address and address != "auto":
        found = [one for one in found if _is_same(one.gcs_address, address)]
    if len(found) == 1:
        return found[0]
    of = f" of the cluster at {address}" if address else ""
    if not found:
        raise NoRaylet(f"no Ray node{of} runs on this machine; start it with `ray start` first")
    ids = ", ".join(one.node_id[:10] for one in found)
    raise SeveralRaylets(
        f"{len(found)} Ray nodes{of} run on this machine; name one by --node-id: {ids}"
    )


def raylets() -> list[Raylet]:
    """Every Ray node of this user on this machine."""
    return sorted(_raylets(), key=lambda one: one.pid)


def _raylets() -> Iterator[Raylet]:
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if folder.stat().st_uid != os.geteuid():
                continue
            words = folder.joinpath("cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:  # it ended meanwhile
            continue
        started = _start_of(int(folder.name))
        if words[0].rpartition("/")[2] == "raylet" and started is not None:
            yield from _parsed(words[1:], int(folder.name), started)


def _parsed(words: Sequence[str], pid: int, started: int) -> Iterator[Raylet]:
    options = {name: value for name, _, value in (word.partition("=") for word in words)}
    node_id, address = options.get("--node_id", ""), options.get("--gcs-address", "")
    if not node_id or not address:
        return
    try:
        labels = json.loads(options.get("--labels") or "{}")
    except ValueError:
        labels = {}
    texts = {str(name): str(value) for name, value in labels.items()}
    yield Raylet(node_id, address, pid, started, "--head" in options, texts)


def _start_of(pid: int) -> int | None:
    """When a process started; None for one that is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def _is_same(one: str, other: str) -> bool:
    """Two addresses of one cluster: the same port, and one machine."""
    (host, _, port), (other_host, _, other_port) = one.rpartition(":"), other.rpartition(":")
    return port == other_port and (host == other_host or _numbers(host) == _numbers(other_host))


def _numbers(host: str) -> str:
    try:
        return socket.gethostbyname(host.strip("[]"))
    except OSError:
        return host
