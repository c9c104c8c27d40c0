"""What a steering trial adds: a direction at a hook, by an operation, at any strength.

A torch module. Shape suffixes: N = rows of a batch, D = width at the hook.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

import torch

from sae.trained_sae import TrainedSae
from steering.edits import Add, AnyEdit, Clamp, ProjectOut, SaeLatents
from steering.vectors import SteeringVectors

__all__ = ["LatentSteerer", "NamedPositions", "Operation", "Steerer", "VectorSteerer"]

Operation = Literal["add", "add_preserving_norm", "project_out", "clamp"]
NamedPositions = Literal["all", "prompt", "generated", "last"]


class Steerer(Protocol):
    """Makes edits of strengths."""

    @property
    def vectors(self) -> SteeringVectors:
        """What is steered with, as the artefact keeps it."""
        ...

    @property
    def hook(self) -> str:
        """Where it writes."""
        ...

    @property
    def record(self) -> Mapping[str, Any]:
        """How it steers, as JSON."""
        ...

    def edit(self, strengths: Sequence[float]) -> AnyEdit:
        """An edit with a strength a row. Raises BadVectors."""
        ...

    def random(self, seed: int) -> Steerer:
        """The same with a random direction, as long at every strength."""
        ...


@dataclass(frozen=True, eq=False)
class VectorSteerer:
    """A direction; see `SteerParameters.operation`."""

    vectors: SteeringVectors
    hook: str
    operation: Operation = "add"
    positions: NamedPositions = "all"

    @property
    def record(self) -> Mapping[str, Any]:
        """Hook, operation and positions."""
        return {"hook": self.hook, "operation": self.operation, "positions": self.positions}

    def edit(self, strengths: Sequence[float]) -> AnyEdit:
        """An edit with a strength a row. Raises BadVectors."""
        strength_N = torch.tensor(list(strengths), dtype=torch.float32)
        unit_D = self.vectors.unit(self.hook)
        if self.operation == "project_out":
            return ProjectOut(self.hook, unit_D, strength=strength_N, positions=self.positions)
        whole_D = self.vectors.displacement(self.hook, 1.0)
        if self.operation == "clamp":
            value_N = strength_N * whole_D.norm()
            return Clamp(self.hook, unit_D, value_N, positions=self.positions)
        keeps = self.operation == "add_preserving_norm"
        return Add(self.hook, whole_D, keeps, strength=strength_N, positions=self.positions)

    def random(self, seed: int) -> VectorSteerer:
        """A normal direction of the same length, drawn by the seed."""
        generator = torch.Generator().manual_seed(seed)
        own = self.vectors.only(self.hook)
        drawn_LD = torch.randn(own.vector_LD.shape, generator=generator)
        length_L1 = own.raw_norm_L.unsqueeze(-1) / drawn_LD.norm(dim=1, keepdim=True)
        return replace(self, vectors=replace(own, vector_LD=drawn_LD * length_L1))


@dataclass(frozen=True, eq=False)
class LatentSteerer:
    """A latent of an SAE that is set, the part of the activation that it leaves out being kept.

    A strength is a fraction of the residual norm, as for vectors: the latent is set to where its
    decoder row is that long. 0 turns the latent off.
    """

    vectors: SteeringVectors
    hook: str
    sae: TrainedSae
    latent: int
    positions: NamedPositions = "all"
    operation: Literal["set_latent"] = field(default="set_latent", init=False)

    @property
    def record(self) -> Mapping[str, Any]:
        """Hook, operation, positions, latent."""
        return {
            "hook": self.hook,
            "operation": self.operation,
            "positions": self.positions,
            "latent": self.latent,
            "latent_value_at_1": self._value_at_1,
        }

    @property
    def _value_at_1(self) -> float:
        length = float(self.vectors.displacement(self.hook, 1.0).norm())
        return length / float(self.sae.W_dec_FD[self.latent].norm())

    def edit(self, strengths: Sequence[float]) -> AnyEdit:
        """An edit with a strength a row. Raises BadVectors."""
        value_N = torch.tensor(list(strengths), dtype=torch.float32) * self._value_at_1
        latents = {self.latent: ("set", value_N)}
        return SaeLatents(self.hook, self.sae, latents, positions=self.positions)  # type: ignore[arg-type]

    def random(self, seed: int) -> VectorSteerer:
        """A random direction is added: there is no latent that stands for it."""
        return VectorSteerer(self.vectors, self.hook, "add", self.positions).random(seed)
