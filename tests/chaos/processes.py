"""Finding the processes that a storm started, and nobody else's, whatever became of their parents.

A mark in the environment is handed down to every child, also to those of a parent that was killed.
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

MARK = "SAEQ_STORM_MARK"

Kind = Literal["serve", "driver", "ray host", "gcs", "raylet", "trial", "pack", "other"]

_KINDS: tuple[tuple[str, Kind], ...] = (
    ("-m orchestrator.cli ", "serve"),
    ("-m orchestrator.tune.driver", "driver"),
    ("-m orchestrator.serving.ray_host", "ray host"),
    ("/gcs/gcs_server", "gcs"),
    ("/raylet/raylet", "raylet"),
    ("ray::SweepTrial", "trial"),
    ("ray::SaePackActor", "pack"),
)
_RAY_FOLDER = re.compile(r"/tmp/saeq-ray-[^/ ]+")
_WRITER = re.compile(r"--writer (\S+)")


@dataclass(frozen=True)
class Process:
    """One process as it was seen."""

    pid: int
    command: str
    is_stopped: bool = False

    @property
    def kind(self) -> Kind:
        return next((kind for part, kind in _KINDS if part in self.command), "other")

    @property
    def writer(self) -> str:
        """Log writer of a driver; empty for anything else."""
        found = _WRITER.search(self.command)
        return found[1] if found and self.kind == "driver" else ""

    @property
    def ray_folder(self) -> Path | None:
        """Where its Ray keeps sockets and logs, if its command line says so."""
        found = _RAY_FOLDER.search(self.command)
        return Path(found[0]) if found else None

    def send(self, number: signal.Signals) -> None:
        """Signal it; no error when it is gone."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def __str__(self) -> str:
        return f"{self.kind} {self.pid} {self.writer}".rstrip()


def marked(mark: str) -> list[Process]:
    """Every living process with the mark, in the order of their pids. Zombies do not count."""
    return [process for _, process in all_marked() if _ == mark]


def all_marked() -> Iterator[tuple[str, Process]]:
    """(mark, process) of everything that bears one."""
    own = f"{MARK}=".encode()
    for name in sorted((n for n in os.listdir("/proc") if n.isdigit()), key=int):
        folder = Path("/proc", name)
        try:
            environment = folder.joinpath("environ").read_bytes().split(b"\0")
            found = next((entry for entry in environment if entry.startswith(own)), None)
            if found is None:
                continue
            state = folder.joinpath("stat").read_text().rpartition(")")[2].split()[0]
            words = folder.joinpath("cmdline").read_bytes().rstrip(b"\0").split(b"\0")
        except OSError:  # gone meanwhile, or another user's
            continue
        if state not in "ZX":
            command = b" ".join(words).decode(errors="replace")
            yield found[len(own) :].decode(), Process(int(name), command, state == "T")


def kill_all(mark: str) -> int:
    """Kill whatever bears the mark; how many there were."""
    found = marked(mark)
    for process in found:
        process.send(signal.SIGKILL)
    return len(found)
