"""A Ray cluster of several nodes on this machine: a node of it is taken away, or frozen."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from orchestrator.log.state import SweepState
from orchestrator.nodes.raylet import Raylet, raylets
from orchestrator.serving.ray_host import QUIET
from orchestrator.serving.ray_settings import HEALTH_CHECKS


@dataclass
class SomeNode:
    """One worker node."""

    handle: Any
    stopped: list[int] = field(default_factory=list)

    @property
    def id(self) -> str:
        return str(self.handle.node_id)

    @property
    def raylet(self) -> Raylet:
        return next(one for one in raylets() if one.node_id == self.id)

    def is_alive(self) -> bool:
        """Whether its raylet runs."""
        return any(one.node_id == self.id for one in raylets())

    def pids(self) -> list[int]:
        """Its raylet with all that it started: agents, trials, packs."""
        found = [self.raylet.pid]
        parent_of = _parents()
        for pid in sorted(parent_of):
            if pid not in found and _is_below(pid, found[0], parent_of):
                found.append(pid)
        return found

    def freeze(self) -> None:
        """Every process of it stands still; nobody is told."""
        for pid in self.pids():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
                self.stopped.append(pid)

    def wake_workers(self) -> None:
        """What it had started goes on, before its raylet can tell it that the node is dead."""
        self._wake(self.stopped[1:])
        del self.stopped[1:]

    def wake(self) -> None:
        """All of it goes on."""
        self._wake(self.stopped)
        self.stopped.clear()

    def _wake(self, pids: list[int]) -> None:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def trials_of(self, state: SweepState) -> set[str]:
        """The trials that run on it, as far as the log says."""
        return {
            trial.id
            for trial in state.trials.values()
            if trial.status == "running"
            and trial.started is not None
            and trial.started.epoch == trial.epoch
            and trial.started.node_id == self.id
        }


class SomeCluster:
    """A head without cores, and worker nodes."""

    def __init__(self, cluster: Any) -> None:
        self._cluster = cluster
        self.nodes: list[SomeNode] = []

    @property
    def address(self) -> str:
        return str(self._cluster.address)

    def add_node(self, num_cpus: int = 1) -> SomeNode:
        node = SomeNode(self._cluster.add_node(num_cpus=num_cpus, object_store_memory=STORE_BYTES))
        self.nodes.append(node)
        return node

    def node_where(self, seen: Callable[[SomeNode], bool]) -> SomeNode | None:
        """The first node that answers yes."""
        return next((node for node in self.nodes if seen(node)), None)

    def kill(self, node: SomeNode) -> None:
        """As a machine that is switched off; no error when it has ended already."""
        for pid in node.pids() if node.is_alive() else []:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


STORE_BYTES = 100 * 2**20


@contextmanager
def some_cluster(folder: Path) -> Iterator[SomeCluster]:
    """Started, and gone at the end with all its processes.

    Args:
        folder: Ray's files; its path has to be short, for its sockets.
    """
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**QUIET, **HEALTH_CHECKS}.items():
            patch.setenv(name, value)
        head = {"num_cpus": 0, "object_store_memory": STORE_BYTES, "include_dashboard": False}
        cluster = Cluster(initialize_head=True, head_node_args=head | {"temp_dir": str(folder)})
        some = SomeCluster(cluster)
        try:
            yield some
        finally:
            for node in some.nodes:
                node.wake()
            cluster.shutdown()


def _parents() -> dict[int, int]:
    parent_of = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parent_of[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    return parent_of


def _is_below(pid: int, ancestor: int, parent_of: dict[int, int]) -> bool:
    seen = set()
    while pid in parent_of and pid not in seen:
        seen.add(pid)
        pid = parent_of[pid]
        if pid == ancestor:
            return True
    return False
