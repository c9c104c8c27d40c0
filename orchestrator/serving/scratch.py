"""Folders that live as long as one process, and the removal of those whose process is dead."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import tempfile
from pathlib import Path

SHORT = "/tmp"
"""For Ray: its sockets live below, and a socket's path has at most 107 characters."""

LOCK = "lock"
KINDS = ("ray", "host", "drivers", "trial")
_NAME = re.compile(rf"saeq-(?:{'|'.join(KINDS)})-(\d+)-[^/]+")


class ScratchFolder:
    """A folder named `saeq-<what>-<pid>-...`, locked while its process lives."""

    def __init__(self, what: str, parent: str | None = None) -> None:
        """
        Args:
            what: one of `KINDS`.
            parent: where it is made; the system's folder for temporary files by default.
        """
        assert what in KINDS
        self.path = Path(tempfile.mkdtemp(prefix=f"saeq-{what}-{os.getpid()}-", dir=parent))
        self._lock = open(self.path / LOCK, "wb")  # noqa: SIM115 - held until `remove`
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def remove(self) -> None:
        """No error when it is gone already."""
        shutil.rmtree(self.path, ignore_errors=True)
        self._lock.close()


def remove_left_overs(parents: tuple[str, ...] = ()) -> list[Path]:
    """Remove the scratch folders of processes that were killed; returns what was removed.

    A folder is left over when no process of its number lives and nobody holds its lock: a number
    alone says nothing where containers share /tmp.
    """
    removed = []
    for parent in dict.fromkeys(parents or (SHORT, tempfile.gettempdir())):
        for path in sorted(Path(parent).glob("saeq-*")):
            named = _NAME.fullmatch(path.name)
            if named and not _lives(int(named[1])) and not _is_locked(path / LOCK):
                shutil.rmtree(path, ignore_errors=True)
                removed.append(path)
    return removed


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _is_locked(path: Path) -> bool:
    """Also when it cannot be told: somebody else's is left alone."""
    try:
        with open(path, "rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


if __name__ == "__main__":  # for a script that clears away after processes that were killed
    remove_left_overs()
