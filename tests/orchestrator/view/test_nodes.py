"""`saeq nodes` and the dashboard's nodes: what they say at every width, from planted records."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from orchestrator.log.events import Started
from orchestrator.nodes.quarantine import keep_out
from orchestrator.nodes.records import Failure, NodeSide
from orchestrator.nodes.stages import Mark, Stage
from orchestrator.store import Store
from orchestrator.store.folder import FolderBackend
from orchestrator.view.dashboard import frame_lines, view_model
from orchestrator.view.nodes_feed import NodesFeed
from orchestrator.view.nodes_rows import NodeRow, NodesSnapshot, node_rows, waiting_work
from orchestrator.view.nodes_table import nodes_page, panel_of
from tests.orchestrator.invented_sweep import InventedSweep, config

NOW = 1_790_000_500.0
H100S = {"at": NOW, "seconds": 3.0, "gpus": [{"index": i, "name": "NVIDIA H100"} for i in range(2)]}
AWS = {
    "saeq-instance-type": "p5.48xlarge",
    "saeq-zone": "us-east-1a",
    "saeq-market-type": "spot",
    "saeq-usd-per-hour": "31.2",
}


class Nodes:
    """Records in a store, and sweeps that wait."""

    def __init__(self, folder: Path) -> None:
        self.store = Store.open(str(folder))
        self.sweep = InventedSweep(self.store)

    def put(
        self, node: str, marks: dict[Stage, float], starter: bool = False, **facts: Any
    ) -> None:
        """Marks by how many seconds ago they were."""
        host = str(facts.get("host", node))
        made = tuple(Mark(stage, NOW - ago_s, host) for stage, ago_s in marks.items())
        side = NodeSide(**{"id": node, "host": host, "at": NOW - 1, "marks": made, **facts})
        layout = self.store.layout
        key = layout.node_starter(node) if starter else layout.node_self(node)
        self.store.write_json(key, side.model_dump(mode="json"))

    @property
    def sweeps(self) -> list[Any]:
        watched = self.sweep.watched()
        return [(watched.facts, watched.log.state)]

    def rows(self, **options: Any) -> list[NodeRow]:
        return node_rows(NodesSnapshot.read(self.store), self.sweeps, NOW, **options)

    def page(self, width: int | None = None) -> str:
        rows, snapshot = self.rows(), NodesSnapshot.read(self.store)
        work = waiting_work(self.sweeps)
        return "\n".join(
            line.plain for line in nodes_page(rows, snapshot.kept_out, work, NOW, width)
        )


@pytest.fixture
def nodes(tmp_path: Path) -> Nodes:
    return Nodes(tmp_path / "store")


@pytest.fixture
def many(nodes: Nodes) -> Nodes:
    """One of each sort."""
    up: dict[Stage, float] = {"probe": 900, "ray": 880, "lease": 800, "report": 700}
    more: dict[str, Any] = {"labels": AWS, "probe": H100S, "state": "serving"}
    nodes.put("works", up, slots=12, sweeps=("gpt2", "pythia"), **more)
    nodes.put("leaves", up, slots=1, state="draining: spot notice, 110 s")
    nodes.put("idles", {"probe": 900}, state="idle", probe={"at": 1, "seconds": 0, "cores": 4})
    nodes.put("queued", {"asked": 9000}, starter=True, kind="slurm", state="QOS limit", host="")
    nodes.put(
        "late", {"asked": 2000, "script": 1000}, starter=True, labels={"job": "7", "gpus": "2"}
    )
    tail = "source venv\nLustre: waiting for OST0007"
    failure = Failure(stage="environment", why="it never came", tail=tail, at=NOW - 5)
    nodes.put("broken", {"asked": 99, "script": 90}, starter=True, failure=failure)
    nodes.put("frozen", up, slots=2, at=NOW - 190)
    nodes.put("old", {"ray": 26 * 3600}, at=NOW - 25 * 3600)
    nodes.put("done", {**up, "ended": 5})
    keep_out(nodes.store, "gpu17", "GPU 1: 3 uncorrectable ECC errors")
    return nodes


def test_every_node_is_told_with_why_it_does_not_work(many: Nodes) -> None:
    states = {row.id: row.health.state for row in many.rows()}
    assert states == {
        "works": "working",
        "leaves": "draining",
        "idles": "ready",
        "late": "starting",
        "queued": "waiting",
        "broken": "failed",
        "frozen": "silent",
    }
    assert {row.id for row in many.rows(every=True)} == {*states, "old", "done"}
    text = many.page()
    for said in (
        "p5.48xlarge us-east-1a spot",
        "2 x H100",
        "$31.20",
        "gpt2 +1",
        "4 cores",
        "job 7",
        "draining: spot notice, 110 s",
        "QOS limit",
        "script started 17 min ago on late; its environment was not ready within 15 min",
        "    Lustre: waiting for OST0007",
        "silent for 3 min",
        "quarantine gpu17 for",
        "`saeq nodes --release gpu17`",
    ):
        assert said in text


@pytest.mark.parametrize("width", [60, 80, 140])
def test_a_narrow_terminal_hides_no_reason(many: Nodes, width: int) -> None:
    text = many.page(width)
    assert max(len(line) for line in text.splitlines()) <= width
    flat = " ".join(text.split())
    assert "its environment was not ready within 15 min" in flat
    assert "broken: it never came" in flat or "it never came" in flat
    assert "silent for 3 min" in flat and "spot notice, 110 s" in flat


def test_programs_get_all_of_it(many: Nodes) -> None:
    row = next(row for row in many.rows() if row.id == "late")
    told = row.to_json(NOW)
    assert told["state"] == "starting" and told["stage"] == "script"
    assert told["waits_for"] == "environment" and told["overdue"] == told["why"]
    assert told["stage_age_seconds"] == 1000.0 and told["labels"] == {"job": "7", "gpus": "2"}
    assert [mark["stage"] for mark in told["marks"]] == ["asked", "script"]


def test_a_node_that_was_started_again_replaces_the_dead_one(nodes: Nodes) -> None:
    up: dict[Stage, float] = {"probe": 900, "ray": 880}
    nodes.put("serve-1", up, host="box", kind="serve", at=NOW - 700)
    failure = Failure(stage="probe", why="no", at=NOW - 20)
    nodes.put("serve-2", {"environment": 20, "ended": 19}, host="box", kind="serve", at=NOW - 19,
              failure=failure)  # fmt: skip
    assert {row.id for row in nodes.rows()} == {"serve-2"}
    nodes.put("serve-3", up, host="box", kind="serve")
    assert [row.id for row in nodes.rows()] == ["serve-3"]


# Why is nothing happening?


def test_why_nothing_happens_is_one_sentence(nodes: Nodes) -> None:
    nodes.sweep.begin(slots=0)
    none = "16 trials wait and no node works: "
    assert nodes.page().endswith(
        f"{none}none is there; start one: `saeq serve` here, `saeq slurm up`, `saeq node up`"
    )
    nodes.put("frozen", {"ray": 900}, slots=2, at=NOW - 190)
    assert f"{none}frozen is silent for 3 min" in nodes.page()
    failure = Failure(stage="probe", why="GPU 1: 3 uncorrectable ECC errors", at=NOW - 5)
    nodes.put("broken", {"script": 90}, starter=True, failure=failure)
    assert f"{none}1 node has failed, the last one broken: GPU 1: 3" in nodes.page()
    nodes.put("queued", {"asked": 9000}, starter=True, state="QOS limit")
    assert f"{none}queued waits for its allocation (QOS limit)" in nodes.page()
    nodes.put("coming", {"script": 40}, starter=True)
    expected = "coming is starting: script started 40 s ago; environment ready is due within 14 min"
    assert f"{none}{expected}" in nodes.page()
    nodes.put("up", {"ray": 10}, state="demo waits: others hold all that is left")
    assert f"{none}up is about to take some (demo waits: others hold" in nodes.page()
    nodes.put("works", {"ray": 10}, slots=1)
    assert none not in nodes.page()


def test_nothing_is_asked_while_nothing_waits(nodes: Nodes) -> None:
    assert waiting_work([]) == waiting_work(()) and not waiting_work([])
    nodes.sweep.begin()
    work = waiting_work(nodes.sweeps)
    assert (work.trials, work.since) == (16, nodes.sweep.facts.submitted_at)


def test_a_node_of_a_cluster_is_told_by_the_trials_that_ran_on_it(nodes: Nodes) -> None:
    nodes.put("ray-ab12", {"environment": 700, "ray": 690}, kind="cluster", state="serving")
    nodes.put("ray-cd34", {"environment": 700, "ray": 690}, kind="cluster", state="serving")
    nodes.sweep.begin()
    trial = nodes.sweep.suggest(0, config(0))
    nodes.sweep.say(Started(trial=trial, epoch=1, node_id="ab12ffff", host="n1"))
    nodes.sweep.report(trial, config(0), {4_000: 0.9})
    first, second = (row for row in nodes.rows())
    assert [mark.stage for mark in first.marks] == ["environment", "ray", "lease", "report"]
    assert (first.id, first.slots, first.health.state) == ("ray-ab12", 1, "working")
    assert (second.slots, second.health.state, second.health.stage) == (0, "ready", "ray")


# The dashboard


@pytest.mark.parametrize("width", [40, 80, 140])
def test_the_dashboard_counts_nodes_and_names_the_worst(many: Nodes, width: int) -> None:
    panel = panel_of(NodesSnapshot.read(many.store), many.sweeps, NOW)
    lines = frame_lines(view_model(many.sweeps, NOW, panel), width, 30)
    assert len(lines) <= 30 and all(line.cell_len <= width for line in lines)
    text = "\n".join(line.plain for line in lines)
    assert "1 working" in text and "1 draining" in text
    if width >= 80:
        assert "1 failed" in text and "1 quarantined" in text
        assert "late script started 17 min ago on late" in text
        assert "more: `saeq nodes`" in text


def test_one_node_that_is_well_needs_no_line(nodes: Nodes) -> None:
    nodes.put("works", {"ray": 10}, slots=1)
    panel = panel_of(NodesSnapshot.read(nodes.store), nodes.sweeps, NOW)
    lines = frame_lines(view_model(nodes.sweeps, NOW, panel), 80)
    assert not any(line.plain.startswith("nodes") for line in lines)


class SlowFolder(FolderBackend):
    """A store that answers once it is told to."""

    may_answer = threading.Event()

    def children(self, prefix: str) -> list[str]:
        self.may_answer.wait(60)
        return super().children(prefix)


def test_a_slow_store_keeps_no_frame_waiting(tmp_path: Path) -> None:
    plain = Nodes(tmp_path / "store")
    plain.put("works", {"ray": 10}, slots=1)
    backend = SlowFolder(tmp_path / "store")
    feed = NodesFeed(Store(backend, "slow"), every_s=0.01).start()
    begun = time.monotonic()
    assert feed.latest == NodesSnapshot()
    assert time.monotonic() - begun < 1.0
    backend.may_answer.set()
    deadline = time.monotonic() + 30
    while not feed.latest.records and time.monotonic() < deadline:
        time.sleep(0.01)
    assert [record.id for record in feed.latest.records] == ["works"]
    feed.close()
