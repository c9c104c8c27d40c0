"""A machine that is not fit keeps out of the way, says why, and comes back once it is mended."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from orchestrator.nodes.admission import (
    NodeKeptOut,
    NodeUnfit,
    admit,
    probe_beside_ray,
    refuse_if_kept_out,
)
from orchestrator.nodes.gpus import Gpu
from orchestrator.nodes.identity import (
    BadNodeKind,
    has_starter,
    node_id,
    node_kind,
    node_labels,
    this_host,
)
from orchestrator.nodes.presence import Presence
from orchestrator.nodes.probe_report import ProbedGpu, ProbeFault, ProbeReport
from orchestrator.nodes.quarantine import host_standing, keep_out, note_failure, note_success
from orchestrator.nodes.records import NodeRecord, read_node
from orchestrator.store import Store

FULL = ProbeFault(what="/tmp has 3 MiB free", way_out="make room", of_device=False)
ECC = ProbeFault(what="GPU 1: 3 ECC errors", way_out="return the machine", of_device=True)
GPU = ProbedGpu(**Gpu(index=0, name="H100").model_dump())


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("SAEQ_NODE_HOST", "box")
    monkeypatch.delenv("SAEQ_NODE", raising=False)
    return Store.open(str(tmp_path / "store"))


def probe(*faults: ProbeFault, gpus: tuple[ProbedGpu, ...] = ()) -> ProbeReport:
    return ProbeReport(at=1.0, seconds=0.1, cores=2, faults=faults, gpus=gpus)


def enter(store: Store, report: ProbeReport, kind: str = "serve", *, anyway: bool = False) -> None:
    """As `serve` does."""
    said: list[str] = []
    with Presence(store, "n", kind) as presence:
        presence.mark("environment")
        admit(store, presence, lambda: report, said.append, anyway=anyway)


def record(store: Store) -> NodeRecord:
    found = read_node(store, "n")
    assert found is not None
    return found


def test_a_broken_device_puts_its_host_into_quarantine_and_says_so(store: Store) -> None:
    with pytest.raises(NodeUnfit) as refused:
        enter(store, probe(ECC, FULL))
    message = str(refused.value)
    assert message.startswith("host box is not fit for trials: GPU 1: 3 ECC errors; return the")
    assert "also: /tmp has 3 MiB free; make room" in message
    assert "saeq nodes --release box" in message and "--anyway" in message
    assert refused.value.exit_code == 1
    assert host_standing(store, "box").why == "GPU 1: 3 ECC errors"
    left = record(store)
    assert left.failure is not None and left.failure.stage == "probe"
    assert left.failure.why == "GPU 1: 3 ECC errors; /tmp has 3 MiB free"
    assert left.itself is not None and left.itself.probe["cores"] == 2
    assert [mark.stage for mark in left.marks] == ["environment", "ended"]


def test_a_quarantine_by_a_probe_ends_with_a_probe_that_passes(store: Store) -> None:
    with pytest.raises(NodeUnfit):
        enter(store, probe(ECC, gpus=(GPU,)))
    enter(store, probe())
    assert host_standing(store, "box").is_kept_out, "a look at the CPU alone says nothing of GPUs"
    refuse_if_kept_out(host_standing(store, "box"))
    enter(store, probe(gpus=(GPU,)))
    assert not host_standing(store, "box").is_kept_out


def test_a_quarantine_by_failures_refuses_until_released_or_asked_anyway(store: Store) -> None:
    for number in range(3):
        note_failure(store, "box", f"trial t{number}: CUDA error")
    with pytest.raises(NodeKeptOut, match="3 fast failures; the last: trial t2: CUDA error") as no:
        enter(store, probe(gpus=(GPU,)))
    assert no.value.exit_code == 1 and "`saeq nodes --release box`" in str(no.value)
    enter(store, probe(), anyway=True)
    keep_out(store, "box", "smells of smoke")
    with pytest.raises(NodeKeptOut, match="smells of smoke"):
        enter(store, probe())


def test_who_is_started_by_machinery_has_its_failures_counted(store: Store) -> None:
    for _ in range(3):
        with pytest.raises(NodeUnfit, match="serves all the same"):
            enter(store, probe(FULL))
    assert host_standing(store, "box").failures == (), "a person knows what he does"
    for _ in range(3):
        with pytest.raises(NodeUnfit):
            enter(store, probe(FULL), kind="slurm")
    assert host_standing(store, "box").is_kept_out


def test_a_ray_node_that_is_up_is_kept_out_for_its_devices_alone(store: Store) -> None:
    said: list[str] = []
    with Presence(store, "ray-1", "cluster") as presence:
        probe_beside_ray(store, presence, lambda: probe(FULL, gpus=(GPU,)), said.append)
        assert not host_standing(store, "box").is_kept_out and said == []
    with Presence(store, "n", "cluster") as presence:
        probe_beside_ray(store, presence, lambda: probe(ECC), said.append)
    assert host_standing(store, "box").is_kept_out
    assert said == ["not fit for trials: GPU 1: 3 ECC errors; return the machine"]
    failure = record(store).failure
    assert failure is not None and failure.why == "GPU 1: 3 ECC errors"


def test_good_news_of_one_device_says_nothing_of_another(store: Store) -> None:
    note_failure(store, "box", "a", device="gpu 3")
    note_failure(store, "box", "b")
    note_success(store, "box", "gpu 0")
    assert [one.what for one in host_standing(store, "box").failures] == ["a"]
    note_success(store, "box", "gpu 3")
    assert host_standing(store, "box").failures == ()


def test_a_failure_outlives_its_process_and_a_clean_end_leaves_nothing(store: Store) -> None:
    with pytest.raises(RuntimeError), Presence(store, "n") as presence:
        presence.mark("environment")
        raise RuntimeError("no Ray\nlast line of its log")
    failure = record(store).failure
    assert failure is not None
    assert (failure.stage, failure.why, failure.tail) == ("probe", "no Ray", "last line of its log")
    with Presence(store, "other"):
        time.sleep(0.05)
    assert read_node(store, "other") is None


def test_who_was_started_by_others_says_goodbye(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAEQ_NODE", "n")
    with Presence(store, "n", "slurm") as presence:
        presence.say(state="draining", slots=2)
    left = record(store).itself
    assert left is not None
    assert ([mark.stage for mark in left.marks], left.state, left.slots) == (["ended"], "", 0)


def test_who_a_node_is_stands_in_its_environment() -> None:
    told = {
        "SAEQ_NODE": "slurm-7",
        "SAEQ_NODE_KIND": "slurm",
        "SAEQ_NODE_LABELS": "job=7, partition=gpu,broken,=x,empty=",
        "SAEQ_NODE_HOST": "rack 1/box",
    }
    assert (node_id(told), node_kind(told), this_host(told)) == ("slurm-7", "slurm", "rack-1-box")
    assert node_labels(told) == {"job": "7", "partition": "gpu"}
    assert has_starter("slurm-7", told) and not has_starter("other", told)
    assert node_id({}) != node_id({}) and node_kind({}) == "serve"
    with pytest.raises(BadNodeKind, match="kinds: serve, slurm, ssh, cluster"):
        node_kind({"SAEQ_NODE_KIND": "k8s"})
