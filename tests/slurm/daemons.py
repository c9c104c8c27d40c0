"""Runs SLURM's daemons as children and ends with all that came of them.

A process of its own that adopts orphans: whatever the daemons started (job steps, their scripts,
processes that left their session) stays below it and is killed when it ends. It ends when its
stdin does, so also when a test run is killed.

    python -m tests.slurm.daemons FOLDER '["munged", "--foreground"]' '["slurmctld", "-D"]' ...
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36
LOOK_EVERY_S = 0.2


def main(folder: str, commands: list[str]) -> None:
    """Start each command (a JSON list); end with all of them when stdin ends or on SIGTERM.

    Args:
        folder: removed if whoever started us is no longer there to do it.
    """
    parent = os.getppid()
    signal.signal(signal.SIGTERM, _leave)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for whoever started us: he tells us
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "cannot adopt orphans")
    try:
        for text in commands:
            subprocess.Popen(json.loads(text), stdin=subprocess.DEVNULL)
        while not _stdin_ended():
            _bury()
    finally:
        _kill_all_below()
        if os.getppid() != parent:
            shutil.rmtree(folder, ignore_errors=True)


def _leave(*_: object) -> None:
    raise SystemExit


def _stdin_ended() -> bool:
    readable, _, _ = select.select([0], [], [], LOOK_EVERY_S)
    return bool(readable) and not os.read(0, 1024)


def _bury() -> None:
    """Take note of what ended, so that nothing stays a zombie."""
    try:
        while os.waitpid(-1, os.WNOHANG) != (0, 0):
            pass
    except ChildProcessError:
        pass


def _kill_all_below() -> None:
    deadline = time.monotonic() + 10.0
    while (below := processes_below(os.getpid())) and time.monotonic() < deadline:
        for pid in below:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        _bury()
        time.sleep(0.02)


def processes_below(pid: int) -> list[int]:
    """Every descendant that is no zombie."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = stat.read_text().rpartition(") ")[2].split()[:2]
        except (FileNotFoundError, ProcessLookupError):
            continue
        children.setdefault(int(parent), []).append(int(stat.parent.name) if state != "Z" else 0)
    found, todo = [], [pid]
    while todo:
        below = [one for one in children.get(todo.pop(), []) if one]
        found += below
        todo += below
    return found


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
