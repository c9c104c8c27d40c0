"""A sweep of another stream is let in only when its language model fits beside the others."""

from __future__ import annotations

from orchestrator.serving.room import SweepMemory, left_beside, memory_of, why_no_room
from orchestrator.spec.sweep import parse_sweep

GIB = 2**30
TEXT = """
name: room
job: sae_train
model: {builtin: smollm2-135m}
data: {builtin: python-docs}
hooks: [model.layers.1]
tokens: 90k
batch_tokens: 1000
space: {architecture: topk, d_sae: 64, k: {choice: [4, 8]}, lr: 1.0e-3}
search: {sampler: grid}
"""


def sweep(stream: str, shared_gib: float, trial_gib: float = 1.0) -> SweepMemory:
    return SweepMemory(stream, int(shared_gib * GIB), int(trial_gib * GIB), most_members=16)


def test_streams_in_common_are_paid_for_once() -> None:
    own = sweep("a", 4)
    assert left_beside([sweep("a", 4), sweep("b", 3), sweep("b", 3)], own, 20 * GIB) == 17 * GIB


def test_members_are_what_memory_leaves() -> None:
    assert sweep("a", 4).members(10 * GIB) == 6
    assert sweep("a", 4).members(100 * GIB) == 16
    assert sweep("a", 4).members(4 * GIB) == 0


def test_a_sweep_that_does_not_fit_beside_the_others_waits_and_says_so() -> None:
    why = why_no_room([sweep("a", 8)], sweep("b", 8), 16 * GIB)
    assert why.startswith("waits for memory: it needs 8")
    assert why_no_room([sweep("a", 8)], sweep("a", 8), 16 * GIB) == ""
    assert why_no_room([sweep("a", 4)], sweep("b", 4), 16 * GIB) == ""


def test_one_that_would_push_another_out_waits_too() -> None:
    wide = sweep("a", 4, trial_gib=8)
    assert why_no_room([wide], sweep("b", 5), 16 * GIB)


def test_alone_it_is_let_through_for_its_driver_to_refuse() -> None:
    assert why_no_room([], sweep("a", 100), 16 * GIB) == ""


def test_two_sweeps_of_one_stream_name_the_same_one() -> None:
    one, other = parse_sweep(TEXT), parse_sweep(TEXT.replace("d_sae: 64", "d_sae: 128"))
    assert memory_of(one).stream == memory_of(other).stream
    another = parse_sweep(TEXT.replace("layers.1", "layers.2"))
    assert memory_of(one).stream != memory_of(another).stream
    assert memory_of(one).most_members == 2


def test_a_cpu_has_room_by_what_trials_need_there() -> None:
    memory = memory_of(parse_sweep(TEXT))
    there = memory.on("cpu")
    assert memory.on("cuda") is memory
    assert there.shared_bytes != memory.shared_bytes  # its precision, its libraries
    assert (there.stream, there.most_members) == (memory.stream, memory.most_members)
