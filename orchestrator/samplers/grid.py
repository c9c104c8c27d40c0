"""Every combination of the space, once."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from orchestrator.samplers.base import Direction, Sampler, SamplerConfig

if TYPE_CHECKING:
    from orchestrator.log.state import TrialState
    from orchestrator.spec.space import Space


class GridConfig(SamplerConfig):
    """All points of the space; `trials` keeps the first of them.

    The order takes one stratum after the other, so that each has a good trial early and a limit
    on `trials` or a spent budget leaves none of them out; within a stratum it is shuffled by
    `seed`, so that the first ones are not all from one end of the space.
    """

    sampler: Literal["grid"] = "grid"

    def faults(self, space: Space) -> list[str]:
        try:
            space.grid()
        except ValueError as error:
            return [str(error)]
        return []

    def build(
        self, space: Space, *, strata: Sequence[str], metric: str, direction: Direction
    ) -> GridSampler:
        del metric, direction
        return GridSampler(spread(space.grid(), strata, self.seed)[: self.trials])


class GridSampler(Sampler):
    """Holds all configurations in their order."""

    def __init__(self, configs: Sequence[dict[str, Any]]) -> None:
        self._configs = configs

    def total(self) -> int:
        return len(self._configs)

    def suggest(self, number: int, trials: Sequence[TrialState]) -> dict[str, Any]:
        del trials
        self._check_number(number)
        return dict(self._configs[number])


def spread(
    configs: Sequence[dict[str, Any]], strata: Sequence[str], seed: int
) -> list[dict[str, Any]]:
    """Deal the strata out in turn, each shuffled by seed; the same configurations come back."""
    by_stratum: dict[str, list[dict[str, Any]]] = {}
    for config in configs:
        by_stratum.setdefault(repr([config.get(name) for name in strata]), []).append(config)
    for key, members in by_stratum.items():
        random.Random(f"{seed}:{key}").shuffle(members)
    longest = max(map(len, by_stratum.values()), default=0)
    return [
        members[turn]
        for turn in range(longest)
        for members in by_stratum.values()
        if turn < len(members)
    ]
