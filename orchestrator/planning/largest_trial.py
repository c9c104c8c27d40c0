"""The largest of a sweep's trials, by memory: what a device has to have room for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from jobs.kind import Footprint


@dataclass(frozen=True)
class LargestTrial:
    """What is planned with, wherever trials run."""

    footprint: Footprint
    """The memory of the largest trial, beside all that any of them shares."""
    config_by_device: Mapping[str, Mapping[str, Any]]
    """Whose it is, on `cpu` and on `cuda`."""


def largest_trial(
    configs: Sequence[Mapping[str, Any]], footprints: Sequence[Footprint]
) -> LargestTrial:
    """The largest of some trials; at least one."""
    config_by_device = {}
    for device in ("cpu", "cuda"):
        trial_bytes = [each.on(device).trial_bytes for each in footprints]
        config_by_device[device] = configs[trial_bytes.index(max(trial_bytes))]
    return LargestTrial(largest_of(footprints), config_by_device)


def largest_of(footprints: Sequence[Footprint]) -> Footprint:
    """The footprint of the trial that keeps most, with all that any of them shares."""
    largest = max(footprints, key=lambda each: each.trial_bytes)
    on_cpu = None
    if any(each.on_cpu is not None for each in footprints):
        on_cpu = largest_of([replace(each.on("cpu"), on_cpu=None) for each in footprints])
    names = dict.fromkeys(name for each in footprints for name in each.shared_parts)
    parts = {name: max(each.shared_parts.get(name, 0) for each in footprints) for name in names}
    # Trials that say nothing of their parts are taken as a whole.
    shared_bytes = max(sum(parts.values()), *(each.shared_bytes for each in footprints))
    return replace(largest, shared_bytes=shared_bytes, shared_parts=parts, on_cpu=on_cpu)
