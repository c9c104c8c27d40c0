"""A Ray cluster whose autoscaler brings nodes on this machine: Ray's fake provider, GPUs invented.

Not `ray.cluster_utils.AutoscalingCluster`: that runs `ray stop` for the whole machine, and needs a
file which the wheel lacks.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

HEAD_ID = "f" * 51 + "00000"
HEAD_TYPE = "ray.head.default"
"""The fake provider knows no other name for it."""
PROVIDER = "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider"
ROOT = Path(__file__).parents[2]
OBJECT_STORE_BYTES = 100 * 2**20


def node_type(max_workers: int, accelerator: str, gpus: float = 1) -> dict[str, Any]:
    """A kind of machine for the autoscaler's configuration."""
    return {
        "resources": {"CPU": 4, "GPU": gpus, "object_store_memory": OBJECT_STORE_BYTES},
        "labels": {"ray.io/accelerator-type": accelerator},
        "node_config": {},
        "min_workers": 0,
        "max_workers": max_workers,
    }


class AutoscaledRay:
    """A head without a core or a GPU, and an autoscaler (v2, as after `ray up`)."""

    def __init__(self, types: Mapping[str, dict[str, Any]], *, idle_s: float = 8.0) -> None:
        self._types, self._idle_s = types, idle_s
        self._port = _free_port()
        self._folder = Path(tempfile.mkdtemp(prefix="as", dir="/tmp"))  # short, for its sockets
        self.environment = {
            **os.environ,
            "AUTOSCALER_UPDATE_INTERVAL_S": "1",
            "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
            "RAY_AUTH_MODE": "disabled",
            "RAY_CLOUD_INSTANCE_ID": HEAD_ID,
            "RAY_enable_autoscaler_v2": "1",
            "RAY_FAKE_CLUSTER": "1",
            "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD_ID,
            "RAY_USAGE_STATS_ENABLED": "0",
            "SAEQ_KINDS": "tests.cluster.sleeper",
            "OMP_NUM_THREADS": "1",
        }
        self.address = f"{_own_address()}:{self._port}"

    @property
    def for_commands(self) -> dict[str, str]:
        """Environment of what works with the cluster: without what makes its nodes fakes."""
        fake = ("RAY_CLOUD_INSTANCE_ID", "RAY_OVERRIDE_NODE_ID_FOR_TESTING", "RAY_FAKE_CLUSTER")
        return {name: value for name, value in self.environment.items() if name not in fake}

    @contextmanager
    def running(self) -> Iterator[AutoscaledRay]:
        """Started, and killed with every process that it started."""
        config = self._folder / "cluster.json"
        config.write_text(json.dumps(self._config()))
        options = [f"--port={self._port}", f"--temp-dir={self._folder}", "--num-cpus=0"]
        options += ["--num-gpus=0", f"--object-store-memory={OBJECT_STORE_BYTES}"]
        options += ["--include-dashboard=false", f"--autoscaling-config={config}"]
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"]
        with open(self._folder / "out.txt", "wb") as output:
            process = subprocess.Popen(
                [*command, *options],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            wait_until(lambda: self._answers(process), 60, "the head to answer")
            yield self
        finally:
            _kill_session(process.pid)
            process.wait()
            shutil.rmtree(self._folder, ignore_errors=True)

    def _config(self) -> dict[str, Any]:
        provider = {"type": "external", "module": PROVIDER, "gcs_address": self.address}
        head = {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0}
        commands = ["initialization", "setup", "head_setup", "worker_setup"]
        commands += ["head_start_ray", "worker_start_ray"]
        return {
            "cluster_name": "fake",
            "max_workers": 8,
            "idle_timeout_minutes": self._idle_s / 60,
            "upscaling_speed": 10,
            "provider": {
                **provider,
                "launch_multiple": True,
                "disable_node_updaters": True,
                "head_node_id": HEAD_ID,
            },
            "available_node_types": {HEAD_TYPE: head, **self._types},
            "head_node_type": HEAD_TYPE,
            "auth": {},
            "file_mounts": {},
            "cluster_synced_files": [],
            "file_mounts_sync_continuously": False,
            "rsync_exclude": [],
            "rsync_filter": [],
            **{f"{name}_commands": [] for name in commands},
        }

    def _answers(self, process: subprocess.Popen[bytes]) -> bool:
        assert process.poll() is None, (self._folder / "out.txt").read_text()
        try:
            socket.create_connection((self.address.rpartition(":")[0], self._port), 1).close()
        except OSError:
            return False
        return "--block" in (self._folder / "out.txt").read_text()  # its last words: all is up

    def nodes_up(self) -> list[str]:
        """Ray's ids of the workers that run now."""
        return sorted(self._raylets())

    @contextmanager
    def bringing_nothing(self) -> Iterator[None]:
        """Its autoscaler stands still, as where the market has no machine."""
        pid = next(
            int(each.parent.name)
            for each in Path("/proc").glob("[0-9]*/cmdline")
            if b"/autoscaler/v2/monitor.py" in (text := each.read_bytes())
            and self.address.encode() in text
        )
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    def raylet_of(self, node_id: str) -> int:
        """Pid of the process without which a node is dead."""
        return self._raylets()[node_id]

    def _raylets(self) -> dict[str, int]:
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                command = (folder / "cmdline").read_bytes()
                environment = (folder / "environ").read_bytes().decode(errors="replace")
            except OSError:
                continue
            program, _, arguments = command.partition(b"\0")
            if program.endswith(b"/raylet") and self.address.encode() in arguments:
                named = dict(each.partition("=")[::2] for each in environment.split("\0"))
                found[named.get("RAY_OVERRIDE_NODE_ID_FOR_TESTING", "")] = int(folder.name)
        found.pop(HEAD_ID, None)
        return found


def wait_until(seen: Callable[[], Any], timeout_s: float, what: str) -> Any:
    """Poll until something true comes back."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if answer := seen():
            return answer
        time.sleep(0.2)
    raise AssertionError(f"waited {timeout_s:.0f} s in vain for {what}")


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("", 0))
        return int(listening.getsockname()[1])


def _own_address() -> str:
    import ray._private.services

    return str(ray._private.services.get_node_ip_address())


def _kill_session(session: int) -> None:
    """Twice: a node may have been on its way."""
    for _ in range(2):
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                if int(stat.read_text().rpartition(")")[2].split()[3]) == session:
                    os.kill(int(stat.parent.name), signal.SIGKILL)
            except (OSError, IndexError):
                continue  # it ended meanwhile
        time.sleep(0.3)
