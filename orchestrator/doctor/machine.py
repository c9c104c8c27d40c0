"""Processors, memory, disks, and what Ray and torch need of an operating system."""

from __future__ import annotations

import os
import platform
import resource
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

from jobs.units import format_bytes
from orchestrator.doctor.base import Check, Finding
from orchestrator.planning.machine import free_memory_bytes, num_cpus
from orchestrator.store import Store

OLDEST_PYTHON = (3, 11)
LITTLE_MEMORY_BYTES = 2 * 2**30
LITTLE_DISK_BYTES = 10 * 2**30
NO_DISK_BYTES = 512 * 2**20
LITTLE_SHARED_BYTES = 2**30
"""Below it Ray puts its objects on the disk and warns."""
FEW_OPEN_FILES = 4096
"""Ray's raylet takes a few for each worker; at 1024 it fails with some dozens."""
ELSEWHERE = "make room, or name another place with SAEQ_CACHE (cache) and TMPDIR (temporary files)"


class Machine(Check):
    """This machine itself."""

    name = "machine"
    order = 10

    def look(self, store: Store) -> Iterable[Finding]:
        """See the base class."""
        del store
        yield _python()
        yield _cores()
        yield _memory()
        yield from _disks()
        yield from _shared_memory()
        yield from _open_files()


def _python() -> Finding:
    found = platform.python_version()
    if tuple(map(int, platform.python_version_tuple()[:2])) < OLDEST_PYTHON:
        wanted = ".".join(map(str, OLDEST_PYTHON))
        return Finding("fault", f"Python {found}; saeq needs {wanted} or newer", "install one")
    return Finding("ok", f"Python {found}, {platform.system()} {platform.machine()}")


def _cores() -> Finding:
    usable, there = num_cpus(), os.cpu_count() or 1
    words = f"{usable} core{'s' if usable > 1 else ''}"
    if usable == there:
        return Finding("ok", words)
    return Finding("ok", f"{words} of {there} (affinity: a container, SLURM or taskset)")


def _memory() -> Finding:
    free = free_memory_bytes()
    what = f"{format_bytes(free)} of memory free"
    if free < LITTLE_MEMORY_BYTES:
        return Finding("warning", f"only {what}", "end other programs, or plan smaller SAEs")
    return Finding("ok", what)


def _disks() -> Iterable[Finding]:
    """Each disk once, under the names of all that is kept on it."""
    on_disk: dict[int, list[tuple[str, Path]]] = {}
    for use, path in _folders():
        existing = next(each for each in (path, *path.parents) if each.exists())
        on_disk.setdefault(existing.stat().st_dev, []).append((use, existing))
    for uses in on_disk.values():
        names = ", ".join(dict.fromkeys(use for use, _ in uses))
        for use, path in uses:
            if not os.access(path, os.W_OK | os.X_OK):
                yield Finding("fault", f"{path} ({use}) cannot be written to", ELSEWHERE)
        yield _free_space(uses[0][1], names)


def _folders() -> list[tuple[str, Path]]:
    given = os.environ.get("SAEQ_CACHE")
    cache = Path(given).expanduser() if given else Path.home() / ".cache" / "saeq"
    return [
        ("cache", cache),
        ("temporary files", Path(tempfile.gettempdir())),
        ("Ray's sockets", Path("/tmp")),
    ]


def _free_space(path: Path, uses: str) -> Finding:
    free = shutil.disk_usage(path).free
    what = f"{format_bytes(free)} of disk free for {uses} ({path})"
    if free < NO_DISK_BYTES:
        return Finding("fault", f"only {what}", ELSEWHERE)
    if free < LITTLE_DISK_BYTES:
        return Finding("warning", f"only {what}", ELSEWHERE)
    return Finding("ok", what)


def _shared_memory() -> Iterable[Finding]:
    shared = Path("/dev/shm")
    if not shared.exists():
        return
    free = shutil.disk_usage(shared).free
    if free < LITTLE_SHARED_BYTES:
        yield Finding(
            "note",
            f"/dev/shm has {format_bytes(free)} free: Ray's objects go to the disk",
            "in a container: --shm-size=2g",
        )
    else:
        yield Finding("ok", f"/dev/shm has {format_bytes(free)} free")


def _open_files() -> Iterable[Finding]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= FEW_OPEN_FILES:
        yield Finding("ok", f"{'unlimited' if soft < 0 else soft} open files allowed")
    else:
        most = "unlimited" if hard == resource.RLIM_INFINITY else str(hard)
        way_out = f"`ulimit -n {most}` before `saeq serve`"
        yield Finding("warning", f"only {soft} open files allowed; Ray needs more", way_out)
