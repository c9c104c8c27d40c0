"""One node's part of a Ray that spans a job: `python -m orchestrator.slurm.ray_node`.

`head FOLDER` writes its address there; `join ADDRESS`; `wait ADDRESS COUNT` ends when all nodes
are in. Head and others stay until SIGUSR1 or until Ray ends, and take all of its processes with
them; to SIGTERM they are deaf, as is the Ray that they start.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from ipaddress import ip_address
from pathlib import Path

from orchestrator.planning.machine import num_cpus
from orchestrator.serving.local_ray import kill_session
from orchestrator.serving.ray_host import OBJECT_STORE_BYTES, QUIET, outlive_sigterm
from orchestrator.serving.ray_settings import health_checks
from orchestrator.serving.scratch import SHORT, ScratchFolder, remove_left_overs

POLL_S = 0.2
ALL_WITHIN_S = 180.0
WRITTEN_BY_RAY = "ray_current_cluster"
"""In the head's folder: its address."""


class NotAllJoined(ValueError):
    """Nodes of the job are missing in its Ray."""

    def __init__(self, num_joined: int, num_nodes: int, within_s: float) -> None:
        super().__init__(num_joined, num_nodes, within_s)
        self.num_joined, self.num_nodes, self.within_s = num_joined, num_nodes, within_s

    def __str__(self) -> str:
        return f"{self.num_joined} of {self.num_nodes} nodes joined within {self.within_s:.0f} s"


def main() -> None:
    """Entry of the process."""
    what, *rest = sys.argv[1:]
    if what == "wait":
        try:
            wait_for_nodes(rest[0], int(rest[1]))
        except NotAllJoined as error:
            sys.exit(str(error))
        return
    remove_left_overs()
    os.environ.update({**QUIET, **health_checks()})
    scratch = ScratchFolder("ray", SHORT)
    try:
        sys.exit(_stay(what, rest[0], scratch.path))
    finally:
        scratch.remove()


def _stay(what: str, where: str, folder: Path) -> int:
    outlive_sigterm()
    asked: list[int] = []
    signal.signal(signal.SIGUSR1, lambda number, _: asked.append(number))
    # Its own session: SIGUSR1 would reach it as well, and Ray's processes are found by it.
    process = subprocess.Popen(
        start_command(None if what == "head" else where, folder), start_new_session=True
    )
    told = what != "head"
    try:
        while process.poll() is None and not asked:
            address = folder / WRITTEN_BY_RAY
            if not told and address.exists() and (text := address.read_text().strip()):
                _replace(Path(where) / "address", text)
                told = True
            time.sleep(POLL_S)
    finally:
        kill_session(process.pid)
        process.wait()
    return 0 if asked else 1


def start_command(join: str | None, folder: Path) -> list[str]:
    """`ray start` in the foreground, on ports that nobody else has.

    Args:
        join: the head's address; None: this is the head.
        folder: for its sockets and logs; short.
    """
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block"]
    command += ["--head", "--port=0"] if join is None else [f"--address={join}"]
    if join is None:
        command += ["--include-dashboard=false"]
        if find_spec("grpc") is not None:  # else Ray has no such server, and refuses a port for it
            command += [f"--ray-client-server-port={_free_port()}"]
    if (address := own_address()) is not None:
        command += [f"--node-ip-address={address}"]
    return [
        *command,
        f"--temp-dir={folder}",
        f"--num-cpus={num_cpus()}",
        f"--object-store-memory={OBJECT_STORE_BYTES}",
        "--dashboard-agent-listen-port=0",
        "--disable-usage-stats",
    ]


def own_address(environment: Mapping[str, str] = os.environ) -> str | None:
    """By the name under which SLURM's other nodes know this one; None: let Ray choose."""
    try:
        address = socket.gethostbyname(environment.get("SLURMD_NODENAME", ""))
    except OSError:
        return None
    found = ip_address(address)
    return None if found.is_loopback or found.is_unspecified else address


def wait_for_nodes(address: str, num_nodes: int, within_s: float = ALL_WITHIN_S) -> None:
    """Until so many are in; raises NotAllJoined."""
    import ray

    os.environ.update(QUIET)
    ray.init(address=address, log_to_driver=False, configure_logging=False)
    deadline = time.monotonic() + within_s
    try:
        while (joined := _num_alive(ray.nodes())) < num_nodes:
            if time.monotonic() > deadline:
                raise NotAllJoined(joined, num_nodes, within_s)
            time.sleep(POLL_S)
    finally:
        ray.shutdown()


def _num_alive(nodes: Sequence[Mapping[str, object]]) -> int:
    return sum(bool(node["Alive"]) for node in nodes)


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("", 0))
        return int(one.getsockname()[1])


def _replace(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text)
    temporary.rename(path)


if __name__ == "__main__":
    main()
