"""Which nodes work, come, are late or gone: from invented records and an invented clock."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.nodes.health import NodeHealth, WaitingWork, health_of, in_words
from orchestrator.nodes.records import Failure, NodeRecord, NodeSide
from orchestrator.nodes.stages import Mark, Stage

NOW = 1_000_000.0
NO_WORK, WORK = WaitingWork(), WaitingWork(3, NOW - 5000)


def side(marks: dict[Stage, float], **facts: Any) -> NodeSide:
    """Marks by how many seconds ago they were."""
    made = tuple(Mark(stage, NOW - ago_s, "n2") for stage, ago_s in marks.items())
    return NodeSide(**{"id": "n", "host": "n2", "at": NOW - 2, "marks": made, **facts})


def of(
    starter: NodeSide | None = None, itself: NodeSide | None = None, work: WaitingWork = WORK
) -> NodeHealth:
    return health_of(NodeRecord(starter=starter, itself=itself), NOW, work)


def test_a_start_is_followed_and_called_late() -> None:
    health = of(side({"asked": 400, "allocated": 300, "script": 240}))
    assert (health.state, health.stage, health.overdue) == ("starting", "script", "")
    late = of(side({"asked": 4000, "allocated": 1200, "script": 1000}))
    assert late.overdue == (
        "script started 17 min ago on n2; its environment was not ready within 15 min"
    )
    assert late.needs_a_look and late.state == "starting"
    assert of(side({"allocated": 130})).overdue.startswith("allocated 2 min ago")


def test_a_queue_may_be_long() -> None:
    health = of(side({"asked": 500_000}, state="QOS limit"))
    assert (health.state, health.overdue, health.needs_a_look) == ("waiting", "", False)


def test_a_node_without_work_is_late_with_nothing() -> None:
    itself = side({"environment": 900, "probe": 890}, state="idle")
    assert of(itself=itself, work=NO_WORK).state == "ready"
    assert of(itself=itself, work=NO_WORK).overdue == ""
    late = of(itself=itself.model_copy(update={"state": "Ray is starting"}))
    assert late.state == "starting" and "Ray was not up within 3 min" in late.overdue
    new = of(itself=itself, work=WaitingWork(1, NOW - 20))
    assert new.overdue == "", "the work came just now"
    up = side({"environment": 900, "probe": 890, "ray": 880})
    assert of(itself=up, work=NO_WORK).state == "ready"
    assert "it took no trial within 2 min" in of(itself=up).overdue


def test_a_trial_that_says_nothing_is_noticed_only_while_it_is_held() -> None:
    marks: dict[Stage, float] = {"probe": 5000, "ray": 4000, "lease": 2000}
    assert "its trial reported nothing within 30 min" in of(itself=side(marks, slots=2)).overdue
    assert of(itself=side(marks)).overdue == ""
    well = of(itself=side({**marks, "report": 10}, slots=2))
    assert (well.state, well.overdue) == ("working", "")


@pytest.mark.parametrize(
    ("facts", "state"),
    [
        ({"slots": 2}, "working"),
        ({"slots": 0}, "ready"),
        ({"slots": 2, "state": "draining: spot notice, 110 s"}, "draining"),
        ({"slots": 2, "at": NOW - 61}, "silent"),
        ({"slots": 2, "at": NOW - 61, "state": "draining"}, "silent"),
    ],
)
def test_a_node_that_came_up(facts: dict[str, Any], state: str) -> None:
    health = of(itself=side({"ray": 900, "lease": 800, "report": 700}, **facts))
    assert health.state == state
    assert (health.silent_s is not None) == (state == "silent")


def test_an_end_and_a_failure_stay_until_a_new_attempt() -> None:
    starter = side({"asked": 5000, "allocated": 4000, "script": 3990})
    gone = side({"environment": 3000, "ended": 100}, at=NOW - 100)
    assert of(starter, gone).state == "ended"
    why = Failure(stage="probe", why="GPU 1: 3 uncorrectable ECC errors", at=NOW - 101)
    failed = of(starter, gone.model_copy(update={"failure": why}))
    assert (failed.state, failed.stage, failed.waits_for) == ("failed", "environment", "probe")
    assert failed.failure == why and failed.overdue == ""
    again = side({"asked": 5000, "allocated": 60, "script": 50})
    health = of(again, gone.model_copy(update={"failure": why}))
    assert (health.state, health.failure, health.stage) == ("starting", None, "script")


def test_times_in_words() -> None:
    assert [in_words(s) for s in (-1, 40, 240, 7200, 200_000)] == [
        "0 s", "40 s", "4 min", "2 h", "2 days"
    ]  # fmt: skip
