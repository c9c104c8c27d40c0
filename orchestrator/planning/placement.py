"""How many trials a cluster takes at once, and what each asks Ray for."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchestrator.spec.sweep import SweepSpec

DEFAULT_MEMBERS = 16
"""Trials on one device when neither the sweep nor memory sets a lower number."""


class DoesNotFit(ValueError):
    """A trial needs more memory than any device has."""


@dataclass(frozen=True)
class Placement:
    """What a driver asks for."""

    device: str
    """`cpu` or `cuda`."""
    members: int
    """Trials on one device."""
    slots: int
    cpus_per_trial: float
    gpus_per_trial: float
    num_nodes: int
    num_cpus: float
    num_gpus: float


def place(spec: SweepSpec, nodes: Sequence[Mapping[str, float]], fit: int) -> Placement:
    """Spread a sweep over the nodes of a cluster.

    Args:
        nodes: Ray's resources of each node that is up ("CPU", "GPU").
        fit: trials that fit on one device by memory.
    """
    num_gpus = sum(node.get("GPU", 0.0) for node in nodes)
    wants_gpu = spec.device == "cuda" or (spec.device == "auto" and num_gpus > 0)
    if wants_gpu and num_gpus < 1:
        raise DoesNotFit("device: cuda was asked for, but no node has a GPU; use device: auto")
    usable = [n for n in nodes if n.get("GPU" if wants_gpu else "CPU", 0.0) >= 1]
    members = max(1, min(spec.pack.members or DEFAULT_MEMBERS, fit, spec.trials))
    devices = num_gpus if wants_gpu else len(usable)
    least_cpus = min((n.get("CPU", 1.0) for n in usable), default=1.0)
    per_node = members * max((n.get("GPU", 1.0) for n in usable), default=1.0)
    return Placement(
        device="cuda" if wants_gpu else "cpu",
        members=members,
        slots=int(devices * members),
        cpus_per_trial=_round_down(least_cpus / (per_node if wants_gpu else members)),
        gpus_per_trial=_round_down(1.0 / members) if wants_gpu else 0.0,
        num_nodes=len(nodes),
        num_cpus=sum(node.get("CPU", 0.0) for node in nodes),
        num_gpus=num_gpus,
    )


def _round_down(share: float) -> float:
    """Ray counts in steps of 1e-4; rounding up would leave the last trial without room."""
    return max(0.001, math.floor(share * 1000) / 1000)
