"""One keeper an `up`: who it is, and that it is there."""

from __future__ import annotations

import json
import os
import socket
import time
from dataclasses import asdict, dataclass

from orchestrator.slurm.folder import SlurmFolder

SILENT_S = 90.0
"""A keeper on another machine that was not heard of for so long is gone."""


class AlreadyKept(ValueError):
    """Somebody keeps watch over these jobs."""

    def __init__(self, name: str, pid: int, host: str) -> None:
        super().__init__(name, pid, host)
        self.name, self.pid, self.host = name, pid, host

    def __str__(self) -> str:
        return (
            f"jobs {self.name!r} have a keeper: process {self.pid} on {self.host}; `saeq slurm "
            f"status {self.name}` shows what it sees, `kill {self.pid}` there ends it (jobs go on)"
        )


@dataclass(frozen=True)
class Beat:
    """A keeper's word."""

    pid: int
    host: str
    at: float
    """When it looked last, seconds since 1970."""
    since: float
    is_detached: bool = False

    def is_there(self, now: float | None = None) -> bool:
        """Whether that process lives, as far as can be told from here."""
        now = time.time() if now is None else now
        if self.host != socket.gethostname():
            return now - self.at < SILENT_S
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
        return True


def read_beat(folder: SlurmFolder) -> Beat | None:
    """Who keeps watch; None: nobody does."""
    try:
        beat = Beat(**json.loads(folder.keeper_beat.read_bytes()))
    except (OSError, ValueError, TypeError):
        return None
    return beat if beat.is_there() else None


class KeeperPost:
    """Held while watch is kept; left on the way out.

    Entering raises AlreadyKept.
    """

    def __init__(self, folder: SlurmFolder, *, is_detached: bool = False) -> None:
        self._folder = folder
        now = time.time()
        self._beat = Beat(os.getpid(), socket.gethostname(), now, now, is_detached)

    def __enter__(self) -> KeeperPost:
        place = self._folder.keeper_beat
        while True:
            try:
                with open(place, "x") as file:
                    file.write(self._text())
                return self
            except FileExistsError:
                there = read_beat(self._folder)
                if there is not None and there.pid != os.getpid():
                    raise AlreadyKept(self._folder.name, there.pid, there.host) from None
                place.unlink(missing_ok=True)

    def __exit__(self, *_: object) -> None:
        there = read_beat(self._folder)
        if there is None or there.pid == os.getpid():
            self._folder.keeper_beat.unlink(missing_ok=True)

    def beat(self) -> None:
        """Say that it is there."""
        self._beat = Beat(**{**asdict(self._beat), "at": time.time()})
        place = self._folder.keeper_beat
        temporary = place.with_name(f".{place.name}.{os.getpid()}")
        try:
            temporary.write_text(self._text())
            temporary.replace(place)
        except FileNotFoundError:  # somebody removed the folder; the jobs are kept all the same
            return

    def _text(self) -> str:
        return json.dumps(asdict(self._beat))
