"""Independent draws from the space."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from orchestrator.samplers.base import Direction, Sampler, SamplerConfig

if TYPE_CHECKING:
    from orchestrator.log.state import TrialState
    from orchestrator.spec.space import Space

MAX_REDRAWS = 1000
"""A finite space is drawn from without repetition until this many draws in a row were known."""


class RandomConfig(SamplerConfig):
    """Draws that depend on `seed` and the trial's number alone, whatever the log says."""

    sampler: Literal["random"] = "random"
    trials: int = Field(gt=0)
    """How many configurations are drawn."""

    def build(
        self, space: Space, *, strata: Sequence[str], metric: str, direction: Direction
    ) -> RandomSampler:
        del strata, metric, direction
        self.refuse_faults(space)
        return RandomSampler(space, self.trials, self.seed)


class RandomSampler(Sampler):
    """In a finite space no configuration comes twice before all have come."""

    def __init__(self, space: Space, num_trials: int, seed: int) -> None:
        self._space, self._num_trials, self._seed = space, num_trials, seed
        self._is_finite = space.size() is not None
        self._drawn: list[dict[str, Any]] = []
        self._known: set[str] = set()

    def total(self) -> int:
        return self._num_trials

    def suggest(self, number: int, trials: Sequence[TrialState]) -> dict[str, Any]:
        del trials
        self._check_number(number)
        if not self._is_finite:
            return self._draw(number, 0)
        while len(self._drawn) <= number:
            self._drawn.append(self._draw_new(len(self._drawn)))
        return dict(self._drawn[number])

    def _draw(self, number: int, attempt: int) -> dict[str, Any]:
        return self._space.sample(random.Random(f"{self._seed}:{number}:{attempt}"))

    def _draw_new(self, number: int) -> dict[str, Any]:
        for attempt in range(MAX_REDRAWS):
            config = self._draw(number, attempt)
            key = json.dumps(config, sort_keys=True)
            if key not in self._known:
                self._known.add(key)
                return config
        return self._draw(number, 0)
