"""What an autoscaler of Ray is configured to bring: read where Ray leaves it to be read.

Ray itself tells nobody (ray 2.60): GCS holds it only where whoever started the cluster puts it
there, and after `ray up` it is in the file that the autoscaler's own process reads, on the head.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from orchestrator.planning.node_types import INSTANCE_LABEL

logger = logging.getLogger(__name__)

ASK_WITHIN_S = 30.0
"""How long a node may take to answer: a worker process has to start there first."""
UNLIMITED_NODES = 1000
"""Instead of a number of workers that nobody limits."""
HEAD_RESOURCE = "node:__internal_head__"

Node = Mapping[str, Any]
"""An entry of `ray.nodes()`."""


class Offer(BaseModel):
    """One node type, as in the file of `ray up`."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    resources: dict[str, float] = Field(default_factory=dict)
    labels: dict[str, str] = Field(default_factory=dict)
    node_config: dict[str, Any] = Field(default_factory=dict)
    min_workers: int = 0
    max_workers: int | None = None

    @property
    def instance_type(self) -> str:
        """As its provider calls it, where a label or node_config (AWS, Google) names it."""
        config = self.node_config
        if INSTANCE_LABEL in self.labels:
            return self.labels[INSTANCE_LABEL]
        return str(config.get("InstanceType") or config.get("machineType", "")).rpartition("/")[2]


class Offers(BaseModel):
    """All node types, and how many nodes there may be of all of them together."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    available_node_types: dict[str, Offer] = Field(default_factory=dict)
    head_node_type: str = ""
    max_workers: int | None = None

    def most_workers(self, name: str) -> int:
        """Nodes of a type, as the autoscaler reads it: a head type that says nothing has none."""
        asked = self.available_node_types[name].max_workers
        if asked is None:
            asked = 0 if name == self.head_node_type else UNLIMITED_NODES
        asked = asked if asked >= 0 else UNLIMITED_NODES
        return asked if self.max_workers is None else min(asked, self.max_workers)


def offers_of_cluster(nodes: list[Node]) -> Offers | None:
    """Of the cluster that this process has joined; None where nobody brings nodes.

    Args:
        nodes: those that are up.
    """
    import ray
    from ray.exceptions import RayError

    in_gcs = _offers_in_gcs()
    if in_gcs is not None:
        return in_gcs
    gcs = ray.get_runtime_context().gcs_address
    head = next((node for node in nodes if HEAD_RESOURCE in node["Resources"]), None)
    text = autoscaler_config(gcs)
    if text is None and head is not None and not is_here(head):
        try:
            text = ray.get(task_on(head, autoscaler_config).remote(gcs), timeout=ASK_WITHIN_S)
        except RayError as error:
            logger.warning("the head did not say what its autoscaler may bring: %s", error)
    return _parsed(text) if text else None


def is_here(node: Node) -> bool:
    """Whether this process runs on the node's machine."""
    import ray

    return bool(node["NodeManagerAddress"] == ray.util.get_node_ip_address())


def task_on(node: Node, function: Any) -> Any:
    """A Ray task that runs on that node and takes none of its resources."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
    return ray.remote(num_cpus=0)(function).options(scheduling_strategy=there)


def autoscaler_config(gcs_address: str) -> str | None:
    """The YAML (or JSON) that the autoscaler of a cluster works by, if it runs on this machine.

    None where there is none to be seen; empty where Ray's monitor runs without: nothing is brought.
    """
    port = gcs_address.rpartition(":")[2]
    for command in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            arguments = command.read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue  # it ended meanwhile
        if not any(each.endswith("/monitor.py") for each in arguments[:4]):
            continue
        options = dict(each.partition("=")[::2] for each in arguments if each.startswith("--"))
        if options.get("--gcs-address", "").rpartition(":")[2] != port:
            continue
        file = options.get("--autoscaling-config")
        if not file:
            return ""
        try:
            return Path(file).expanduser().read_text()
        except OSError as error:
            logger.warning("what the autoscaler may bring is not readable: %s", error)
    return None


def _offers_in_gcs() -> Offers | None:
    from ray._private.state import state

    config = state.get_cluster_config()
    if config is None or not config.node_group_configs:
        return None
    groups = {
        group.name: {
            "resources": dict(group.resources),
            "min_workers": group.min_count,
            "max_workers": group.max_count,
        }
        for group in config.node_group_configs
    }
    return Offers.model_validate({"available_node_types": groups})


def _parsed(text: str) -> Offers | None:
    import yaml

    try:
        return Offers.model_validate(yaml.safe_load(text))
    except (yaml.YAMLError, ValidationError) as error:
        logger.warning("the autoscaler's configuration makes no sense here: %s", error)
        return None
