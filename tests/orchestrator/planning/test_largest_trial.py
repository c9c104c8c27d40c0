"""The largest trial of a sweep whose trials are not alike."""

from __future__ import annotations

from dataclasses import replace

from jobs.kind import Footprint
from orchestrator.planning.largest_trial import largest_of, largest_trial

WIDE = Footprint(
    trial_bytes=10, shared_bytes=5, shared_flop_per_token=0.0, trial_flop_per_token=2.0
)
BUFFERED = replace(WIDE, trial_bytes=4, shared_bytes=8, trial_flop_per_token=1.0)


def test_the_largest_is_planned_with_beside_the_most_that_any_shares() -> None:
    assert largest_of([BUFFERED, WIDE]) == replace(WIDE, shared_bytes=8)
    assert largest_of([WIDE]) == WIDE


def test_of_trials_that_differ_a_device_pays_the_largest_of_each_part() -> None:
    topk = replace(WIDE, shared_bytes=12, shared_parts={"model": 5, "steps: pre": 4, "rows": 3})
    gated = replace(BUFFERED, shared_bytes=14, shared_parts={"model": 5, "steps: pre": 9})
    found = largest_of([topk, gated])
    assert found.shared_parts == {"model": 5, "steps: pre": 9, "rows": 3}
    assert found.shared_bytes == 17
    assert largest_of([topk, replace(BUFFERED, shared_bytes=20)]).shared_bytes == 20


def test_another_trial_may_be_the_largest_on_a_cpu() -> None:
    by_hand = replace(WIDE, on_cpu=replace(WIDE, trial_bytes=3))
    found = largest_trial([{"k": 1}, {"k": 2}], [by_hand, BUFFERED])
    assert found.footprint.on("cuda").trial_bytes == 10
    assert (found.footprint.on("cpu").trial_bytes, found.footprint.on("cpu").shared_bytes) == (4, 8)
    assert found.config_by_device == {"cpu": {"k": 2}, "cuda": {"k": 1}}
