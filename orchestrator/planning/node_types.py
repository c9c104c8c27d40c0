"""Kinds of machine that trials may be put on: those that are up, and those an autoscaler brings.

Without Ray: what a cluster offers is read elsewhere (`ray_node_types`) and travels as JSON.
"""

from __future__ import annotations

import logging
from collections.abc import Container, Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from orchestrator.planning.devices import (
    CPU_DEFAULT_HZ,
    CPU_FLOP_PER_CYCLE,
    GPUS,
    DeviceProfile,
    this_machine,
)
from orchestrator.planning.instance_types import gpu_of_instance, gpus_called
from orchestrator.planning.machine import GPU_SHARE, free_device_bytes, num_cpus

logger = logging.getLogger(__name__)

INSTANCE_LABEL = "saeq-instance-type"
GROUP_LABEL = "ray.io/node-group"
"""Set by autoscaler v2 alone."""
SMALLEST_GPU = min(GPUS.values(), key=lambda gpu: gpu.memory_bytes)

Kind = Literal["cpu", "cuda"]
Basis = Literal["measured", "instance type", "accelerator type", "guessed", ""]


class NodeType(BaseModel):
    """Machines that are alike: how many there are, how many there may be, what each has."""

    model_config = ConfigDict(extra="ignore", frozen=True, use_attribute_docstrings=True)

    name: str
    resources: Mapping[str, float] = Field(default_factory=dict)
    """As Ray counts them on one machine: CPU, GPU, memory (bytes)."""
    labels: Mapping[str, str] = Field(default_factory=dict)
    """Accelerator type, instance type, price, zone: whatever its nodes are labelled with."""
    instance_type: str = ""
    """As its provider calls it: `p4d.24xlarge`."""
    min_workers: int = Field(default=0, ge=0)
    max_workers: int = Field(default=0, ge=0)
    """Nodes that an autoscaler may bring; 0 where nobody brings any."""
    num_up: int = Field(default=0, ge=0)
    """Nodes that are there now."""
    gpu: DeviceProfile | None = None
    """One of its GPUs; None without any."""
    gpu_basis: Basis = ""
    """Where the memory of its GPUs is known from."""
    cpu_bytes: int | None = Field(default=None, ge=0)
    """Main memory that trials on the cores of one machine may be planned with."""

    @property
    def num_nodes(self) -> int:
        """Nodes that there may be at once."""
        return max(self.num_up, self.max_workers)

    def per_node(self, kind: Kind) -> int:
        """Devices of one node: whole GPUs, or 1 for a node with a core to work with."""
        if kind == "cuda":
            return int(self.resources.get("GPU", 0.0))
        return 1 if self.resources.get("CPU", 0.0) >= 1 else 0

    def device(self, kind: Kind) -> DeviceProfile:
        """What one of its devices holds; `num_devices` says how many are up, at least 1."""
        if kind == "cpu":
            return self._cpu()
        gpu = self.gpu or SMALLEST_GPU
        return gpu.model_copy(update={"num_devices": max(1, self.num_up * self.per_node(kind))})

    def _cpu(self) -> DeviceProfile:
        cores = self.resources.get("CPU", 1.0)
        usable = self.cpu_bytes or int(self.resources.get("memory", 0)) or 2**30
        peak = max(cores, 1.0) * CPU_DEFAULT_HZ * CPU_FLOP_PER_CYCLE
        return DeviceProfile(
            name=f"{cores:g} cores",
            kind="cpu",
            memory_bytes=usable,
            usable_bytes=usable,
            bf16_flop_per_second=peak,
            fp32_flop_per_second=peak,
        )

    def described(self, kind: Kind) -> str:
        """Its name and device, for a message: `gpu_a100 (A100-40)`."""
        guessed = ", memory guessed" if kind == "cuda" and self.gpu_basis == "guessed" else ""
        device = self.device(kind).name
        return self.name if device == self.name else f"{self.name} ({device}{guessed})"


class ClusterShape(BaseModel):
    """What trials of one cluster, or of one machine, may be put on."""

    model_config = ConfigDict(extra="ignore", frozen=True, use_attribute_docstrings=True)

    types: tuple[NodeType, ...] = ()
    max_workers: int | None = Field(default=None, ge=0)
    """Nodes of all types together that an autoscaler may bring; None: no such limit."""
    autoscales: bool = False
    """Whether an autoscaler brings nodes that are not there yet."""

    def with_device(self, kind: Kind) -> list[NodeType]:
        """Types that have such a device, and may have a node."""
        return [t for t in self.types if t.num_nodes and t.per_node(kind)]

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to run on, and nobody who would bring anything."""
        return not (self.with_device("cuda") or self.with_device("cpu"))

    def num_devices(self, kind: Kind, among: Container[str] | None = None) -> int:
        """Devices that there may be at once, the largest nodes first where their number is limited.

        Args:
            among: names of the types that count; None: all.
        """
        types = [t for t in self.with_device(kind) if among is None or t.name in among]
        left = sum(t.max_workers for t in types)
        if self.max_workers is not None:
            left = max(0, self.max_workers - sum(t.num_up for t in self.types if t.max_workers))
        total = self.num_up(kind, among)
        for each in sorted(types, key=lambda t: t.per_node(kind), reverse=True):
            more = min(max(0, each.max_workers - each.num_up), left)
            left -= more
            total += more * each.per_node(kind)
        return total

    def num_up(self, kind: Kind, among: Container[str] | None = None) -> int:
        """Devices that are there now."""
        types = [t for t in self.with_device(kind) if among is None or t.name in among]
        return sum(t.num_up * t.per_node(kind) for t in types)


def known_gpu(instance_type: str, accelerator: str) -> tuple[DeviceProfile, Basis]:
    """The GPU that names speak of; where they leave the memory open, the smallest there is.

    Args:
        instance_type: as its provider calls it; may be empty.
        accelerator: Ray's accelerator type; may be empty.
    """
    found = gpu_of_instance(instance_type)
    if found is not None:
        return found, "instance type"
    meant = gpus_called(accelerator)
    if meant:
        smallest = min(meant, key=lambda gpu: gpu.memory_bytes)
        return smallest, "accelerator type" if len(meant) == 1 else "guessed"
    return SMALLEST_GPU, "guessed"


def measured_gpu(memory_bytes: int, like: DeviceProfile) -> DeviceProfile:
    """A GPU whose memory was measured, in bytes, computing like a known one."""
    update = {"memory_bytes": memory_bytes, "usable_bytes": int(memory_bytes * GPU_SHARE)}
    return like.model_copy(update=update)


def shape_of_this_machine(device: Literal["auto", "cpu", "cuda"] = "auto") -> ClusterShape:
    """What a local Ray has to offer: this machine, and nothing that would come."""
    machine = this_machine(device)
    gpus = machine.num_devices if machine.kind == "cuda" else 0
    here = NodeType(
        name="this machine",
        resources={"CPU": float(num_cpus()), "GPU": float(gpus)},
        num_up=1,
        gpu=machine if gpus else None,
        gpu_basis="measured" if gpus else "",
        cpu_bytes=free_device_bytes("cpu"),
    )
    return ClusterShape(types=(here,))
