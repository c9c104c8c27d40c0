"""A node of a Ray cluster that is announced to go: its trials leave it, and go on elsewhere."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from orchestrator.log.events import Checkpointed, Failed, Finished, Leased, Preempted, Started
from orchestrator.log.state import SweepState
from orchestrator.nodes.records import read_nodes
from orchestrator.providers.notices.aws import ENDPOINT_VARIABLE
from tests.orchestrator.providers.notices.metadata_server import REBALANCE, MetadataServer
from tests.orchestrator.running import RunningServe, RunningSweep
from tests.orchestrator.some_cluster import SomeCluster, SomeNode

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

LONG_S = 300.0


class Watch:
    """`saeq node watch` for one of the nodes on this machine, told by a metadata server."""

    def __init__(self, node: SomeNode, sweep: RunningSweep, output: Path) -> None:
        self._node, self._sweep, self._output = node, sweep, output

    @contextmanager
    def command(self, metadata: MetadataServer) -> Iterator[subprocess.Popen[bytes]]:
        line = [sys.executable, "-m", "orchestrator.cli", "node", "watch", "--notices", "aws"]
        line += ["--every", "1s", "--node-id", self._node.id, "--store", self._sweep.store.url]
        environment = {**os.environ, ENDPOINT_VARIABLE: metadata.url, "PYTHONUNBUFFERED": "1"}
        with open(self._output, "wb") as file:
            process = subprocess.Popen(line, stdout=file, stderr=subprocess.STDOUT, env=environment)
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    def wait_for(self, seen: Callable[[], bool]) -> None:
        """Fails with what the command has said."""
        deadline = time.monotonic() + 90
        while not seen():
            assert time.monotonic() < deadline, self.output
            time.sleep(0.1)

    @property
    def output(self) -> str:
        return self._output.read_text()


def test_a_noticed_node_is_left_in_time_and_nothing_is_lost(
    cluster: SomeCluster, tiny_model: Path, tmp_path: Path
) -> None:
    for _ in range(2):
        cluster.add_node(2)
    sweep = RunningSweep(tmp_path, tiny_model, tokens="1M", checkpoint_seconds=600)
    sweep.submit()
    metadata, serve = MetadataServer(), RunningServe(sweep.store, tmp_path / "serve.txt")
    with (
        metadata.running(),
        serve.command("--ray-address", cluster.address, "--until-idle") as process,
        ExitStack() as undo,
    ):
        state = sweep.wait_for(all_report, process, LONG_S)
        leaving = cluster.node_where(lambda node: bool(node.trials_of(state)))
        assert leaving is not None
        on_it = leaving.trials_of(state)
        watch = Watch(leaving, sweep, tmp_path / "watch.txt")
        watching = undo.enter_context(watch.command(metadata))
        metadata.pages[REBALANCE] = '{"noticeTime": "2026-11-21T10:00:00Z"}'
        watch.wait_for(lambda: "noted, the node works on" in watch.output)
        assert leaving.is_alive() and not preempted(sweep)
        noticed_at = time.time()
        metadata.announce(in_s=110)
        sweep.wait_for(lambda s: not leaving.trials_of(s) & on_it, process, 90)
        print(f"left {time.time() - noticed_at:.1f} s after the notice")  # noqa: T201
        watch.wait_for(lambda: not leaving.is_alive())
        assert watching.wait(timeout=60) == 0, "it ends with its node"
        assert process.wait(timeout=LONG_S) == 0, serve.output[-3000:]
    assert "s are left: the node is drained" in watch.output
    assert not any(record.id == f"ray-{leaving.id[:10]}" for record in read_nodes(sweep.store))
    assert_all_finished(sweep, 4)
    assert_gone_on_elsewhere(sweep, leaving, noticed_at)


def all_report(state: SweepState) -> bool:
    trials = state.trials.values()
    return len(trials) == 4 and all(t.last_report_at > t.leased_at > 0 for t in trials)


def preempted(sweep: RunningSweep) -> list[Preempted]:
    return [e for e in sweep.events() if isinstance(e, Preempted)]


def assert_all_finished(sweep: RunningSweep, num_trials: int) -> None:
    events = sweep.events()
    assert not [e for e in events if isinstance(e, Failed)]
    assert Counter(t.status for t in sweep.state().trials.values()) == {"finished": num_trials}
    assert set(Counter(e.trial for e in events if isinstance(e, Finished)).values()) == {1}


def assert_gone_on_elsewhere(sweep: RunningSweep, left: SomeNode, noticed_at: float) -> None:
    """Each from a checkpoint that was taken after the notice, and without being tried there."""
    events, back = sweep.events(), preempted(sweep)
    assert back and not any(e.process_died for e in back)
    assert all(e.reason.startswith("its node is draining: ") for e in back), back
    for gone in back:
        mine = [e for e in events if isinstance(e, Checkpointed) and e.trial == gone.trial]
        newest = max((e for e in mine if e.epoch == gone.epoch), key=lambda e: e.at)
        assert newest.at >= noticed_at and newest.tokens == gone.tokens > 0
        starts = [e for e in events if isinstance(e, Started) and e.trial == gone.trial]
        (again,) = [e for e in starts if e.epoch > gone.epoch]
        assert again.tokens == gone.tokens
        assert again.node_id != left.id
    leases = [e for e in events if isinstance(e, Leased)]
    assert len(leases) <= 4 + 2 * len(back), "the node got no trial again and again"
