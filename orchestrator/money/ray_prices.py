"""Prices of the nodes of a Ray cluster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from orchestrator.money.node_price import NodePrice, node_price

if TYPE_CHECKING:
    from orchestrator.store import Store


def price_of_this_node(own_usd_per_hour: float, device: str, store: Store) -> NodePrice:
    """Price of one device of the node that the calling Ray process runs on.

    Args:
        own_usd_per_hour: the sweep's `price.usd_per_hour`; 0 stands for "not given".
        device: `cpu` or `cuda`.
    """
    if own_usd_per_hour > 0:
        return node_price(own_usd_per_hour, {})
    import ray

    here = ray.get_runtime_context().get_node_id()
    nodes: list[dict[str, Any]] = ray.nodes()
    node = next((node for node in nodes if node["NodeID"] == here), {})
    return _price(own_usd_per_hour, node, device, store)


def price_of_cluster(
    own_usd_per_hour: float, nodes: Sequence[Mapping[str, Any]], device: str, store: Store
) -> float:
    """Dollars an hour of all nodes with such devices; those without a price count as 0.

    Args:
        nodes: as `ray.nodes()` gives them.
        device: `cpu` or `cuda`.
    """
    total = 0.0
    for node in nodes:
        count = _num_devices(node, device)
        if node.get("Alive") and count >= 1:
            total += count * (_price(own_usd_per_hour, node, device, store).usd_per_hour or 0.0)
    return total


def _num_devices(node: Mapping[str, Any], device: str) -> float:
    """GPUs of a node; a node without one is one device, if it has a core to work with."""
    resources = node.get("Resources", {})
    if device == "cuda":
        return float(resources.get("GPU", 0.0))
    return 1.0 if resources.get("CPU", 0.0) >= 1 else 0.0


def _price(own: float, node: Mapping[str, Any], device: str, store: Store) -> NodePrice:
    labels = dict(node.get("Labels", {}))
    if device != "cuda":  # a typical price of a GPU says nothing of a node's cores
        labels.pop("ray.io/accelerator-type", None)
    return node_price(own, labels, num_devices=_num_devices(node, device), store=store)
