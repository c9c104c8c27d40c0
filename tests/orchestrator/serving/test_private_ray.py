"""A local Ray is nobody else's: on loopback alone, with a token of its own, deaf to SIGTERM."""

from __future__ import annotations

import os
import signal
import stat
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from orchestrator.serving.local_ray import LocalRay

pytestmark = pytest.mark.slow


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalRay]:
    """One that is up."""
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE"):
        monkeypatch.delenv(name, raising=False)
    with closing(LocalRay()) as started:
        deadline = time.monotonic() + 120.0
        while started.address is None:
            assert time.monotonic() < deadline, started.problem
            started.tick()
            time.sleep(0.1)
        yield started


def test_a_local_ray_is_private_and_outlives_a_signal_to_all_of_its_processes(
    ray: LocalRay,
) -> None:
    token = Path(ray.environment["RAY_AUTH_TOKEN_PATH"])
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    assert stat.S_IMODE(token.parent.stat().st_mode) == 0o700

    processes = [pid for pid in _processes() if _carries(pid, f"RAY_AUTH_TOKEN_PATH={token}")]
    listening = {where for pid in processes for where in _listens(pid)}
    assert listening, "Ray listens somewhere"
    assert {where for where in listening if where != "loopback"} == set()

    for pid in processes:
        os.kill(pid, signal.SIGTERM)
    before = ray.address
    deadline = time.monotonic() + 2.0
    while time.monotonic() < deadline:
        ray.tick()
        assert (ray.address, ray.problem) == (before, "")
        time.sleep(0.1)
    ray.close()
    assert not token.exists()
    assert [pid for pid in processes if _carries(pid, f"RAY_AUTH_TOKEN_PATH={token}")] == []


def _processes() -> list[int]:
    return [int(folder.name) for folder in Path("/proc").glob("[0-9]*")]


def _carries(pid: int, variable: str) -> bool:
    try:
        return variable.encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False


def _listens(pid: int) -> Iterator[str]:
    """`loopback`, or the address in hexadecimal, of each port on which a process waits."""
    try:
        targets = {os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir()}
    except OSError:
        return
    for name in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in targets:
                address = fields[1].partition(":")[0]
                is_loopback = address.endswith("0100007F") or address == "0" * 24 + "01000000"
                yield "loopback" if is_loopback else address
