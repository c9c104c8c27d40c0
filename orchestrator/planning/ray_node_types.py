"""What a running Ray cluster has, and what its autoscaler could bring."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from functools import cache

from orchestrator.money.node_price import ACCELERATOR_LABEL
from orchestrator.planning.autoscaler_offers import (
    ASK_WITHIN_S,
    HEAD_RESOURCE,
    Node,
    Offer,
    Offers,
    is_here,
    offers_of_cluster,
    task_on,
)
from orchestrator.planning.devices import DeviceProfile, this_machine
from orchestrator.planning.machine import free_device_bytes, gpu_memory_bytes
from orchestrator.planning.node_types import (
    GROUP_LABEL,
    INSTANCE_LABEL,
    Basis,
    ClusterShape,
    NodeType,
    known_gpu,
    measured_gpu,
)

logger = logging.getLogger(__name__)

ACCELERATOR_RESOURCE = "accelerator_type:"
OF_ONE_NODE = "ray.io/node-id"
"""A label that tells nothing about a type."""

_measured: dict[str, int] = {}
"""Bytes of the smallest GPU of a node that was asked, by Ray's id of it."""


def node_types_of_cluster() -> ClusterShape:
    """The node types of the cluster that this process has joined; nodes that are up alone where
    nobody brings any, or where it cannot be found out.
    """
    import ray

    nodes = [node for node in ray.nodes() if node["Alive"]]
    offers = offers_of_cluster(nodes)
    grouped: dict[str, list[Node]] = {}
    for node in nodes:
        grouped.setdefault(_type_name(node, offers), []).append(node)
    names = list(dict.fromkeys([*(offers.available_node_types if offers else ()), *grouped]))
    types = [_node_type(name, offers, grouped.get(name, [])) for name in names]
    return ClusterShape(
        types=tuple(t for t in types if t.num_nodes),
        max_workers=offers.max_workers if offers else None,
        autoscales=any(t.max_workers for t in types),
    )


def _node_type(name: str, offers: Offers | None, up: list[Node]) -> NodeType:
    offer = offers.available_node_types.get(name) if offers is not None else None
    labels = _common(node.get("Labels", {}) for node in up)
    resources = _least(node["Resources"] for node in up)
    max_workers = 0
    if offers is not None and offer is not None:
        labels = {**offer.labels, **labels}
        resources = {**offer.resources, **resources}
        max_workers = offers.most_workers(name)
    instance_type = labels.get(INSTANCE_LABEL) or (offer.instance_type if offer else "")
    gpu, basis = _gpu(resources, labels, instance_type, up)
    return NodeType(
        name=name,
        resources={key: value for key, value in resources.items() if not key.startswith("node:")},
        labels=labels,
        instance_type=instance_type,
        min_workers=offer.min_workers if offer is not None else 0,
        max_workers=max_workers,
        num_up=len(up),
        gpu=gpu,
        gpu_basis=basis,
        cpu_bytes=_free_bytes_here() if any(is_here(node) for node in up) else None,
    )


def _gpu(
    resources: Mapping[str, float], labels: Mapping[str, str], instance_type: str, up: list[Node]
) -> tuple[DeviceProfile | None, Basis]:
    """What this machine's GPUs are if it is one of the nodes, else what labels say, else asked."""
    if resources.get("GPU", 0.0) < 1:
        return None, ""
    here = this_machine("cuda") if any(is_here(node) for node in up) else None
    if here is not None and here.kind == "cuda":
        return here, "measured"
    named = (key for key in resources if key.startswith(ACCELERATOR_RESOURCE))
    accelerator = next(named, "").removeprefix(ACCELERATOR_RESOURCE)
    gpu, basis = known_gpu(instance_type, labels.get(ACCELERATOR_LABEL) or accelerator)
    if basis != "guessed":
        return gpu, basis
    found = [asked for node in up if (asked := _asked_gpu_bytes(node))]
    return (measured_gpu(min(found), gpu), "measured") if found else (gpu, basis)


def _asked_gpu_bytes(node: Node) -> int:
    """Memory of a node's smallest GPU, asked once on that node; 0 where it has none to speak of."""
    import ray
    from ray.exceptions import RayError

    name = node["NodeID"]
    if name not in _measured:
        try:
            answer = ray.get(task_on(node, gpu_memory_bytes).remote(), timeout=ASK_WITHIN_S)
            _measured[name] = min(answer, default=0)
        except RayError as error:
            logger.warning("node %s did not say what its GPUs are: %s", name, error)
            return 0
    return _measured[name]


@cache
def _free_bytes_here() -> int:
    """Looked at once: what trials take later on is theirs."""
    return free_device_bytes("cpu")


def _type_name(node: Node, offers: Offers | None) -> str:
    """The configured type that a node is of; else one of its own, by what it has."""
    labels, resources = node.get("Labels", {}), node["Resources"]
    cores, gpus = resources.get("CPU", 0.0), resources.get("GPU", 0.0)
    known = offers.available_node_types if offers is not None else {}
    alike = [name for name, offer in known.items() if _could_be(node, offer)]
    if (group := labels.get(GROUP_LABEL, "")) in known and (group in alike or not alike):
        return str(group)
    if offers is not None and _is_head(node) and offers.head_node_type in known:
        return offers.head_node_type
    if alike and not _is_head(node):  # of several that nothing tells apart, any will do
        return alike[0]
    told = labels.get(INSTANCE_LABEL) or labels.get(ACCELERATOR_LABEL, "")
    size = f"{cores:g} cores" + (f", {gpus:g} GPU" if gpus else "")
    return f"{'head' if _is_head(node) else told or 'node'} ({size})"


def _could_be(node: Node, offer: Offer) -> bool:
    """Whether the node has what the offer promises."""
    has, promised = node["Resources"], offer.resources
    if any(has.get(each, 0.0) != promised.get(each, 0.0) for each in ("CPU", "GPU")):
        return False
    labels = node.get("Labels", {})
    told = [
        (labels.get(INSTANCE_LABEL), offer.instance_type),
        (labels.get(ACCELERATOR_LABEL), offer.labels.get(ACCELERATOR_LABEL)),
    ]
    return all(of_node == offered for of_node, offered in told if of_node and offered)


def _is_head(node: Node) -> bool:
    return HEAD_RESOURCE in node["Resources"]


def _common(labels: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """What is the same on all nodes."""
    every = [dict(each) for each in labels]
    first = every[0] if every else {}
    return {
        k: v for k, v in first.items() if k != OF_ONE_NODE and all(e.get(k) == v for e in every)
    }


def _least(resources: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Of each resource, what every one of the nodes has."""
    every = [dict(each) for each in resources]
    first = every[0] if every else {}
    return {key: min(each.get(key, 0.0) for each in every) for key in first}
