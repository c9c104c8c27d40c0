"""The configurations that the user wrote down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from orchestrator.samplers.base import Direction, Sampler, SamplerConfig
from orchestrator.samplers.grid import GridSampler

if TYPE_CHECKING:
    from orchestrator.space import Space


class ListConfig(SamplerConfig):
    """`configs`, in their order, each completed by the fixed entries of the space.

    A configuration may override a fixed entry; it has to give every entry that is not fixed.
    """

    sampler: Literal["list"] = "list"
    configs: tuple[Mapping[str, Any], ...] = Field(min_length=1)
    """Parameter name to plain JSON value, one mapping a trial."""

    def faults(self, space: Space) -> list[str]:
        faults = []
        for index, config in enumerate(self.configs):
            missing = [name for name in _searched(space, config) if name not in config]
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
        completed = [_completed(space, config) for config in self.configs]
        return GridSampler(completed[: self.trials])
