"""What a sweep asks of a cluster whose machines are not all there yet, or not all alike."""

from __future__ import annotations

import pytest

from orchestrator.planning.devices import GPUS
from orchestrator.planning.fits_cluster import place_on
from orchestrator.planning.node_types import ClusterShape, NodeType
from orchestrator.planning.placement import DoesNotFit
from orchestrator.planning.plan import TrialTooLarge
from orchestrator.serving.room import device_for, memory_of
from orchestrator.spec.sweep import SweepSpec, parse_sweep

TEXT = """
name: any
job: sae_train
model: {{name: acme/lm-7b, dtype: bfloat16}}
data: {{builtin: python-docs}}
hooks: [model.layers.1]
tokens: 90k
batch_tokens: 1000
device: {device}
pack: {{members: {members}}}
space: {{architecture: topk, d_sae: 16384, k: 4, lr: {{choice: [{lrs}]}}}}
search: {{sampler: grid}}
"""
HEAD = NodeType(name="head", resources={"CPU": 0}, num_up=1)


def spec(trials: int = 8, device: str = "auto", members: int = 16) -> SweepSpec:
    lrs = ", ".join(f"{n + 1}.0e-4" for n in range(trials))
    return parse_sweep(TEXT.format(device=device, members=members, lrs=lrs))


def gpu_type(name: str, gpu: str, per_node: int = 1, cpus: float = 8, **facts: int) -> NodeType:
    resources = {"CPU": cpus, "GPU": float(per_node)}
    labels = {"ray.io/accelerator-type": gpu}
    return NodeType(name=name, resources=resources, labels=labels, gpu=GPUS[gpu], **facts)


def test_gpus_that_would_still_come_are_counted_and_asked_for_in_fractions() -> None:
    shape = ClusterShape(types=(HEAD, gpu_type("p4d", "A100-40", 8, 96, max_workers=2)))
    placement = place_on(spec(trials=3, members=2), shape)
    assert placement.device == "cuda"
    assert (placement.members, placement.gpus_per_trial) == (2, 0.5)
    assert placement.slots == 2 * 8 * 2
    assert placement.num_devices == 16
    assert placement.num_gpus == 0, "what is up"
    assert placement.cpus_per_trial == 6


def test_few_trials_share_a_gpu_that_would_be_rented_and_spread_over_those_that_are_up() -> None:
    there = ClusterShape(types=(gpu_type("a", "A100-80", 4, num_up=1),))
    assert place_on(spec(trials=4), there).members == 1
    to_come = ClusterShape(types=(HEAD, gpu_type("a", "A100-80", 4, max_workers=1)))
    assert place_on(spec(trials=4), to_come).members == 4


def test_the_smallest_device_that_takes_a_trial_decides_and_it_is_said() -> None:
    large = gpu_type("large", "H200-141", max_workers=1)
    small = gpu_type("small", "A100-40", max_workers=1)
    alone = place_on(spec(trials=64, members=99), ClusterShape(types=(small,)))
    both = place_on(spec(trials=64, members=99), ClusterShape(types=(large, small)))
    richer = place_on(spec(trials=64, members=99), ClusterShape(types=(large,)))
    assert both.members == alone.members < richer.members
    assert any("small (A100-40) decides" in note for note in both.notes)
    assert both.avoids == {}


def test_a_type_that_takes_no_trial_is_kept_off_and_it_is_said() -> None:
    tiny = gpu_type("tiny", "T4-16", max_workers=9)
    large = gpu_type("large", "A100-80", max_workers=1)
    placement = place_on(spec(members=2), ClusterShape(types=(tiny, large)))
    assert placement.avoids == {"ray.io/accelerator-type": "!in(T4-16)"}
    assert placement.slots == 2
    assert "not even one trial fits on tiny (T4-16); trials keep off it" in placement.notes


def test_where_no_label_tells_types_apart_it_is_said() -> None:
    types = (gpu_type("tiny", "T4-16", max_workers=1), gpu_type("a", "A100-80", max_workers=1))
    bare = tuple(t.model_copy(update={"labels": {}}) for t in types)
    placement = place_on(spec(), ClusterShape(types=bare))
    assert placement.avoids == {}
    assert any("no label tells it apart" in note for note in placement.notes)


def test_what_fits_no_type_is_refused_with_the_numbers() -> None:
    shape = ClusterShape(types=(HEAD, gpu_type("tiny", "T4-16", max_workers=1)))
    with pytest.raises(TrialTooLarge, match=r"needs .* GiB beside the .* GiB .*T4-16"):
        place_on(spec(), shape)


def test_what_other_streams_leave_counts_on_every_type() -> None:
    shape = ClusterShape(types=(gpu_type("a", "A100-80", num_up=1),))
    with pytest.raises(TrialTooLarge, match="1 GiB usable"):
        place_on(spec(), shape, usable_bytes=2**30)


def test_a_device_that_nobody_brings_is_refused() -> None:
    cores = NodeType(name="box", resources={"CPU": 8}, num_up=1, cpu_bytes=2**40)
    with pytest.raises(DoesNotFit, match="no node has a GPU; use device: auto"):
        place_on(spec(device="cuda"), ClusterShape(types=(cores,)))
    no_cores = gpu_type("a", "A100-80", cpus=0.5, num_up=1)
    with pytest.raises(DoesNotFit, match="no node has a whole core"):
        place_on(spec(device="cpu"), ClusterShape(types=(no_cores,)))


def test_the_cores_of_two_nodes_are_two_devices() -> None:
    cores = NodeType(name="box", resources={"CPU": 8}, num_up=2, cpu_bytes=2**40)
    placement = place_on(spec(trials=8, members=4), ClusterShape(types=(cores,)))
    assert (placement.device, placement.slots, placement.cpus_per_trial) == ("cpu", 8, 2)
    assert (placement.num_nodes, placement.num_cpus) == (2, 16)


def test_no_more_nodes_are_counted_than_the_cluster_may_have() -> None:
    types = (
        gpu_type("one", "A100-80", 1, max_workers=8),
        gpu_type("eight", "A100-80", 8, max_workers=2, num_up=1),
    )
    assert ClusterShape(types=types).num_devices("cuda") == 8 + 16
    assert ClusterShape(types=types, max_workers=3).num_devices("cuda") == 16 + 1
    assert ClusterShape(types=types, max_workers=0).num_devices("cuda") == 8


def test_shares_are_planned_with_the_smallest_device_that_takes_the_sweep() -> None:
    types = (
        gpu_type("tiny", "T4-16", max_workers=4),
        gpu_type("small", "A100-40", max_workers=2),
        gpu_type("large", "A100-80", max_workers=1),
    )
    own = spec()
    device = device_for(own, memory_of(own), ClusterShape(types=types))
    assert (device.name, device.num_devices) == ("A100-40", 3)
