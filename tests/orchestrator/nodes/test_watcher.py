"""What the watcher of a Ray node makes of notices, a quarantine, and a cluster that is away."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from orchestrator.nodes.presence import Presence
from orchestrator.nodes.quarantine import keep_out
from orchestrator.nodes.raylet import DrainFailed, NoRaylet, SeveralRaylets, own_raylet, raylets
from orchestrator.nodes.records import read_node
from orchestrator.nodes.watcher import AlreadyWatched, NodeWatcher, watch_alone
from orchestrator.providers.notices import Notice, NoticesUnavailable
from orchestrator.store import Store, StoreError

SPOT = Notice("terminate", 110.0, "spot notice (terminate)", "aws")
REBALANCE = Notice("rebalance", None, "rebalance recommendation", "aws")


class Announced:
    """Answers what it was given, one after the other; the last for ever."""

    name = "announced"

    def __init__(self, *answers: Notice | NoticesUnavailable | None) -> None:
        self._answers = list(answers)

    def poll(self) -> Notice | None:
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, NoticesUnavailable):
            raise answer
        return answer


@dataclass
class SomeRayNode:
    """Takes drains down."""

    node_id: str = "a" * 56
    is_head: bool = False
    looks_left: int = 10**6
    refuses: int = 0
    drains: list[tuple[str, float | None]] = field(default_factory=list)

    def is_alive(self) -> bool:
        self.looks_left -= 1
        return self.looks_left >= 0

    def drain(self, why: str, deadline_s: float | None) -> None:
        if self.refuses:
            self.refuses -= 1
            raise DrainFailed("the cluster is away")
        self.drains.append((why, deadline_s))


def watcher(node: SomeRayNode, *answers: Notice | NoticesUnavailable | None) -> Told:
    return Told(node, Announced(*answers))


class Told:
    """A watcher without a store, and what it said."""

    def __init__(self, node: SomeRayNode, source: Announced) -> None:
        self.said: list[str] = []
        self.watcher = NodeWatcher(node, source, None, None, self.said.append)

    def look(self, times: int = 1, **how: object) -> list[str]:
        for _ in range(times):
            self.watcher.look(**how)  # type: ignore[arg-type]
        return self.said


def test_a_notice_drains_once_with_its_deadline() -> None:
    node = SomeRayNode()
    said = watcher(node, None, SPOT).look(times=5)
    assert node.drains == [("spot notice (terminate), 110 s are left", 110.0)]
    assert len(said) == 1 and "the node is drained" in said[0]


def test_a_cluster_that_is_away_is_asked_again_and_complained_of_once() -> None:
    node = SomeRayNode(refuses=3)
    said = watcher(node, SPOT).look(times=6)
    assert len(node.drains) == 1
    assert [line for line in said if "not drained yet: the cluster is away" in line] == said[:1]
    assert "the node is drained" in said[1]


def test_a_rebalance_recommendation_is_noted_unless_asked_to_drain() -> None:
    node = SomeRayNode()
    told = watcher(node, REBALANCE)
    assert told.look(times=3) == ["rebalance recommendation: noted, the node works on"]
    assert node.drains == []
    told.look(times=3, on_rebalance="drain")
    assert node.drains == [("rebalance recommendation", None)]


def test_the_notice_after_a_recommendation_brings_its_deadline() -> None:
    node = SomeRayNode()
    watcher(node, REBALANCE, REBALANCE, SPOT).look(times=6, on_rebalance="drain")
    assert [deadline for _, deadline in node.drains] == [None, 110.0]


def test_a_machine_that_goes_in_an_hour_works_on() -> None:
    node = SomeRayNode()
    later = Notice("terminate", 3600.0, "host maintenance", "gcp")
    told = watcher(node, later, later, Notice("terminate", 170.0, "host maintenance", "gcp"))
    assert told.look(times=2) == ["host maintenance, 3600 s are left: noted, the node works on"]
    assert node.drains == []
    told.look()
    assert node.drains == [("host maintenance, 170 s are left", 170.0)]


def test_a_source_that_cannot_be_asked_is_said_once_and_when_it_is_back() -> None:
    away = NoticesUnavailable("the metadata server is away")
    said = watcher(SomeRayNode(), away, away, away, None, None).look(times=6)
    assert said == [
        "notices cannot be asked for: the metadata server is away",
        "notices can be asked for again",
    ]


# The quarantine, and who may look at it


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(str(tmp_path / "store"))


def run_until(watcher: NodeWatcher, node: SomeRayNode, seen: Callable[[], bool]) -> None:
    """Run for as long as it takes, on a node that then ends."""

    class Ends(SomeRayNode):
        def is_alive(self) -> bool:
            return not seen() and time.monotonic() < deadline

    deadline = time.monotonic() + 60
    node.__class__ = Ends
    watcher.run(every_s=0.01)
    assert seen()


def test_a_node_of_a_host_in_quarantine_is_drained_and_says_so(store: Store) -> None:
    keep_out(store, "bad-host", "its GPU fell off the bus")
    node = SomeRayNode()
    with Presence(store, "ray-1", kind="cluster", every_s=0.05) as presence:
        watcher = NodeWatcher(node, None, store, presence, lambda _: None, host="bad-host")
        why = "its host is in quarantine: its GPU fell off the bus"
        run_until(watcher, node, lambda: bool(node.drains))
        assert node.drains == [(why, None)]
        record = read_node(store, "ray-1")
        deadline = time.monotonic() + 60
        while record is None or record.newest.state != f"draining: {why}":
            assert time.monotonic() < deadline
            time.sleep(0.02)
            record = read_node(store, "ray-1")
        assert record.newest.kind == "cluster"


def test_the_head_is_left_to_people(store: Store) -> None:
    keep_out(store, "head", "three fast failures")
    node, said = SomeRayNode(is_head=True), list[str]()
    watcher = NodeWatcher(node, None, store, None, said.append, host="head")
    run_until(watcher, node, lambda: bool(said))
    assert node.drains == [] and "the head is not drained for that" in said[0]


def test_a_store_that_hangs_hides_no_notice(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def hangs(key: str) -> bytes:
        time.sleep(30)
        raise StoreError(f"nobody answers for {key}")

    monkeypatch.setattr(store.backend, "get", hangs)
    node = SomeRayNode()
    watcher = NodeWatcher(node, Announced(None, SPOT), store, None, lambda _: None, host="h")
    begun = time.monotonic()
    run_until(watcher, node, lambda: bool(node.drains))
    assert time.monotonic() - begun < 25


def test_it_ends_with_its_node() -> None:
    said: list[str] = []
    NodeWatcher(SomeRayNode(looks_left=3), Announced(None), None, None, said.append).run(0.01)
    assert said == [f"Ray node {'a' * 10} has ended"]


def test_a_node_has_one_watcher() -> None:
    node = f"test-{os.getpid()}"
    first = watch_alone(node)
    with pytest.raises(AlreadyWatched, match="is watched already"):
        watch_alone(node)
    first.close()
    watch_alone(node).close()


# Finding the node's process


@pytest.fixture
def some_raylets(tmp_path: Path) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Processes that look like raylets from outside."""
    program = tmp_path / "raylet"
    program.symlink_to(sys.executable)
    found = []
    for number, port in enumerate((6379, 6379, 6400)):
        labels = '{"saeq-provider": "aws"}'
        options = [f"--node_id={number}{'f' * 55}", f"--gcs-address=127.0.0.9:{port}"]
        line = [str(program), "-c", "import time; time.sleep(300)", *options, f"--labels={labels}"]
        found.append(subprocess.Popen(line))
    yield found
    for process in found:
        process.kill()
        process.wait()


def test_a_raylet_is_found_by_its_cluster_or_its_id(
    some_raylets: list[subprocess.Popen[bytes]],
) -> None:
    deadline = time.monotonic() + 60
    while sum(one.gcs_address.startswith("127.0.0.9") for one in raylets()) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    found = own_raylet("127.0.0.9:6400")
    assert (found.node_id[0], found.pid) == ("2", some_raylets[2].pid)
    assert found.labels == {"saeq-provider": "aws"} and not found.is_head
    assert own_raylet("127.0.0.9:6379", "1fff").pid == some_raylets[1].pid
    with pytest.raises(SeveralRaylets, match="name one by --node-id: 0fff"):
        own_raylet("127.0.0.9:6379")
    with pytest.raises(NoRaylet, match="start it with `ray start` first"):
        own_raylet("127.0.0.9:6401")
    assert found.is_alive()
    some_raylets[2].kill()
    some_raylets[2].wait()
    assert not found.is_alive()
