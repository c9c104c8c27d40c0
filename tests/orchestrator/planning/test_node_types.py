"""What is known of machines that are not there yet: from names, labels and an autoscaler's file."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.planning import autoscaler_offers, ray_node_types
from orchestrator.planning.autoscaler_offers import Offers
from orchestrator.planning.instance_types import gpu_of_instance, gpus_called
from orchestrator.planning.node_types import NodeType, known_gpu, shape_of_this_machine

FILE = {
    "max_workers": 8,
    "head_node_type": "head",
    "available_node_types": {
        "head": {"resources": {"CPU": 0}, "node_config": {"InstanceType": "m5.xlarge"}},
        "p4d": {
            "resources": {"CPU": 96, "GPU": 8},
            "max_workers": 2,
            "node_config": {"InstanceType": "p4d.24xlarge"},
            "labels": {"saeq-market-type": "spot"},
        },
        "p4de": {
            "resources": {"CPU": 96, "GPU": 8},
            "node_config": {"InstanceType": "p4de.24xlarge"},
            "labels": {"saeq-instance-type": "p4de.24xlarge"},
        },
        "odd": {"resources": {"CPU": 4, "GPU": 1}, "max_workers": -1},
    },
}
HEAD_NODE = {"CPU": 0.0, "node:__internal_head__": 1.0}


@pytest.mark.parametrize(
    ("instance", "gpu"),
    [
        ("p4d.24xlarge", "A100-40"),
        ("p4de.24xlarge", "A100-80"),
        ("g6e.2xlarge", "L40S-48"),
        ("a2-ultragpu-1g", "A100-80"),
        ("m5.xlarge", None),
        ("", None),
    ],
)
def test_an_instance_type_names_its_gpu(instance: str, gpu: str | None) -> None:
    found = gpu_of_instance(instance)
    assert (found.name if found else None) == gpu


@pytest.mark.parametrize(
    ("accelerator", "gpus"),
    [
        ("A100", ["A100-40", "A100-80"]),
        ("A100-80G", ["A100-80"]),
        ("NVIDIA H100 80GB HBM3", ["H100-80"]),
        ("GeForce RTX 4090", ["RTX4090-24"]),
        ("TPU-V4", []),
    ],
)
def test_an_accelerator_type_may_leave_the_memory_open(accelerator: str, gpus: list[str]) -> None:
    assert [gpu.name for gpu in gpus_called(accelerator)] == gpus


def test_what_is_not_known_is_taken_for_the_smallest_and_marked() -> None:
    assert known_gpu("p4de.24xlarge", "A100")[1] == "instance type"
    gpu, basis = known_gpu("", "A100")
    assert (gpu.name, basis) == ("A100-40", "guessed")
    gpu, basis = known_gpu("", "somebody's own")
    assert (gpu.name, basis) == ("T4-16", "guessed")


def cluster(monkeypatch: pytest.MonkeyPatch, nodes: list[dict[str, Any]], asked: int = 0) -> Any:
    """The shape of a cluster of which Ray says that."""
    known = [
        {"NodeID": f"n{i}", "Alive": True, "Labels": {}, "NodeManagerAddress": "10.0.0.9", **node}
        for i, node in enumerate(nodes)
    ]
    monkeypatch.setattr("ray.nodes", lambda: known)
    monkeypatch.setattr("ray.util.get_node_ip_address", lambda: "10.0.0.1")
    monkeypatch.setattr(ray_node_types, "offers_of_cluster", lambda _nodes: OFFERS)
    monkeypatch.setattr(ray_node_types, "_asked_gpu_bytes", lambda _node: asked)
    return ray_node_types.node_types_of_cluster()


OFFERS: Offers | None = Offers.model_validate(FILE)


def test_nodes_that_would_come_stand_beside_those_that_are_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    up = {"Resources": {"CPU": 96.0, "GPU": 8.0}, "Labels": {"saeq-instance-type": "p4de.24xlarge"}}
    shape = cluster(monkeypatch, [{"Resources": HEAD_NODE}, up, {**up, "NodeID": "other"}])
    types = {each.name: each for each in shape.types}
    assert (types["head"].num_up, types["head"].max_workers) == (1, 0)
    assert (types["p4de"].num_up, types["p4de"].max_workers) == (2, 8), "no limit of its own"
    assert (types["p4d"].num_up, types["p4d"].max_workers) == (0, 2)
    assert types["odd"].max_workers == 8, "without a limit, as many as the cluster may have"
    assert [types[n].gpu.name for n in ("p4d", "p4de", "odd")] == ["A100-40", "A100-80", "T4-16"]
    assert types["odd"].gpu_basis == "guessed"
    assert shape.autoscales
    assert shape.num_devices("cuda") == 2 * 8 + 6 * 8


def test_a_node_is_of_the_type_whose_accelerator_it_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Autoscalers before v2 do not label a node with its group."""
    offer = {"resources": {"CPU": 4, "GPU": 1}, "max_workers": 3}
    labels = {name: {"ray.io/accelerator-type": name} for name in ("T4", "A100-80G")}
    types = {name: {**offer, "labels": labels[name]} for name in labels}
    offers = Offers.model_validate({"available_node_types": types})
    monkeypatch.setitem(globals(), "OFFERS", offers)
    up = {"Resources": {"CPU": 4.0, "GPU": 1.0}, "Labels": labels["A100-80G"]}
    shape = cluster(monkeypatch, [up])
    assert [(each.name, each.num_up) for each in shape.types] == [("T4", 0), ("A100-80G", 1)]


def test_without_an_autoscaler_there_is_what_is_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "OFFERS", None)
    box = {"Resources": {"CPU": 4.0, "memory": 8.0 * 2**30}}
    shape = cluster(monkeypatch, [{"Resources": HEAD_NODE}, box, dict(box)])
    assert not shape.autoscales
    assert [each.num_up for each in shape.types] == [1, 2]
    assert shape.types[1].device("cpu").usable_bytes == 8 * 2**30
    assert not shape.is_empty


def test_a_head_alone_is_nothing_to_run_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "OFFERS", None)
    assert cluster(monkeypatch, [{"Resources": HEAD_NODE}]).is_empty


def test_a_gpu_that_no_name_tells_of_is_measured_on_its_node(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(globals(), "OFFERS", None)
    up = {"Resources": {"CPU": 4.0, "GPU": 1.0}, "Labels": {"ray.io/accelerator-type": "A100"}}
    shape = cluster(monkeypatch, [up], asked=80 * 2**30)
    assert shape.types[0].gpu_basis == "measured"
    assert shape.types[0].gpu.memory_bytes == 80 * 2**30


def test_a_node_type_survives_json_and_fields_of_a_later_version() -> None:
    here = shape_of_this_machine().types[0]
    assert NodeType.model_validate({**here.model_dump(mode="json"), "later": 1}) == here


def test_an_autoscaler_s_file_that_makes_no_sense_is_none() -> None:
    assert autoscaler_offers._parsed("available_node_types: 3") is None
    assert autoscaler_offers._parsed("{") is None
