"""The right to run one trial, as it travels through Tune to the trial's actor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Ticket:
    """One lease of one trial, with all that follows from the sweep's spec for it."""

    sweep: str
    trial: str
    epoch: int
    config: Mapping[str, Any]
    total_tokens: int
    report_points: tuple[int, ...]
    rungs: tuple[int, ...]
    """Where it waits for a verdict; between them it works on while its reports travel."""
    max_members: int
    life: int = 0
    """How many times the trial had been retried when it was leased."""
    inputs: tuple[Mapping[str, Any], ...] = ()
    """{"id", "kind", "sweep", "sha256"} of each artefact that its sweep takes."""

    def to_json(self) -> dict[str, Any]:
        points = {"report_points": [*self.report_points], "rungs": [*self.rungs]}
        inputs = [dict(one) for one in self.inputs]
        return {**vars(self), "config": dict(self.config), "inputs": inputs, **points}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Ticket:
        points = {name: tuple(value[name]) for name in ("report_points", "rungs")}
        return cls(**{**value, **points, "inputs": tuple(value.get("inputs", ()))})
