"""Which nodes of the Ray cluster are draining. Asked here alone: Ray has no public way to."""

from __future__ import annotations

from collections.abc import Mapping

import ray
from ray.exceptions import RayError


def draining_nodes() -> Mapping[str, int]:
    """Ray's ids of the nodes that are draining -> when each goes, unix milliseconds; 0: not said.

    Within a process of a Ray cluster. Ray Train asks in the same way (ray 2.60). Raises RayError.
    """
    found: dict[str, int] = ray._private.state.state.get_draining_nodes()
    return found


def this_node_drains() -> bool:
    """Whether the node of the calling process will go; False where it cannot be told."""
    try:
        return ray.get_runtime_context().get_node_id() in draining_nodes()
    except RayError:
        return False
