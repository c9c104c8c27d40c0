"""How a sweep is spread over a cluster, by what its largest trial needs of each node type."""

from __future__ import annotations

from orchestrator.planning.node_types import ClusterShape
from orchestrator.planning.placement import Placement, device_kind, place
from orchestrator.planning.plan import refuse_what_fits_nowhere, trials_per_device
from orchestrator.spec.sweep import SweepSpec


def place_on(spec: SweepSpec, shape: ClusterShape, usable_bytes: int | None = None) -> Placement:
    """Spread a sweep over a cluster, by the memory of its node types.

    Args:
        usable_bytes: what is left of a device beside other sweeps' streams; None: all of it.

    Raises:
        DoesNotFit: a trial fits no node type, or there is no device of the kind asked for.
    """
    kind = device_kind(spec, shape)
    devices = {}
    num_up = max(1, shape.num_up(kind)) if kind == "cuda" else 1
    for each in shape.with_device(kind):
        device = each.device(kind)
        usable = device.usable_bytes
        if usable_bytes is not None:
            usable = min(usable, usable_bytes)
        # Few trials are spread over the GPUs that are up, never over those that would be rented.
        update = {"usable_bytes": usable, "num_devices": num_up}
        devices[each.name] = device.model_copy(update=update)
    largest = refuse_what_fits_nowhere(spec, list(devices.values()))
    fit = {name: trials_per_device(spec, device, largest) for name, device in devices.items()}
    return place(spec, shape, kind, fit)
