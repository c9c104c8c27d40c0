"""The configurations that the user wrote down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import Field

from orchestrator.samplers.base import Direction, Sampler, SamplerConfig
from orchestrator.samplers.grid import GridSampler
from orchestrator.spec.distributions import Distribution, Fixed
from orchestrator.spec.space import Space
from orchestrator.spec.units import parse_count


class ListConfig(SamplerConfig):
    """`configs`, in their order, each completed by the fixed entries of the space.

    A configuration may override a fixed entry and may name parameters that the space does not; it
    has to give every entry that the space leaves open.
    """

    sampler: Literal["list"] = "list"
    configs: tuple[Mapping[str, Any], ...] = Field(min_length=1)
    """Parameter name to plain JSON value, one mapping a trial."""

    def faults(self, space: Space) -> list[str]:
        faults = []
        for index, config in enumerate(self.configs):
            missing = completed(space, config)[1]
            if missing:
                faults.append(
                    f"configs[{index}] does not give {', '.join(missing)}, which the space leaves "
                    "open; give it there or fix it in space"
                )
        return faults

    def build(
        self, space: Space, *, strata: Sequence[str], metric: str, direction: Direction
    ) -> Sampler:
        del strata, metric, direction
        self.refuse_faults(space)
        configs = [completed(space, config)[0] for config in self.configs]
        return GridSampler(configs[: self.trials])


def completed(space: Space, config: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """A configuration with the space's fixed entries, and the open entries that it lacks."""
    given = {name: parse_count(value) for name, value in config.items()}
    fixed = {name: (Fixed(value=value),) for name, value in given.items()}
    missing: list[str] = []

    def ask(name: str, distribution: Distribution) -> Any:
        missing.append(name)
        return distribution.corners()[0]

    return Space({**space.entries, **fixed}).walk(ask), missing
