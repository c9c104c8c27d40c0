"""Edits of activations: what is done to them, where, at which tokens, under which condition."""

from importlib import import_module
from pkgutil import iter_modules

from steering.edits.add import Add
from steering.edits.base import Edit
from steering.edits.clamp import Clamp
from steering.edits.conditions import (
    CastCondition,
    Condition,
    CosineCondition,
    ProbeCondition,
    When,
)
from steering.edits.mean_ablate import MeanAblate
from steering.edits.positions import Between, Positions
from steering.edits.project_out import ProjectOut
from steering.edits.sae_latents import SaeLatents
from steering.edits.steered import AnyEdit, Steering, steered

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")

__all__ = [
    "Add",
    "AnyEdit",
    "Between",
    "CastCondition",
    "Clamp",
    "Condition",
    "CosineCondition",
    "Edit",
    "MeanAblate",
    "Positions",
    "ProbeCondition",
    "ProjectOut",
    "SaeLatents",
    "Steering",
    "When",
    "steered",
]
