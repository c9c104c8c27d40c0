"""A sweep of label noise in steps of one fit: it can be left after any, and gone on with."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import cached_property
from typing import Any

from steering.errors import BadSteeringInput
from steering.probes.evaluation import number_json
from steering.probes.methods import parse_method
from steering.probes.noise.label_flips import (
    NoisePoint,
    NoiseSweepSpec,
    noise_point,
    planned_points,
)
from steering.probes.parts import Judge
from steering.probes.study import ProbeStudy

__all__ = ["NoiseSteps"]

logger = logging.getLogger(__name__)


class NoiseSteps:
    """The recipe of a study on wrong labels, one source on one split; rate 0 comes first.

    The points do not depend on where the sweep was interrupted.
    """

    def __init__(
        self, study: ProbeStudy, source: str, split_seed: int, spec: NoiseSweepSpec
    ) -> None:
        self._study, self._source, self._split_seed = study, source, split_seed
        self._plan = planned_points((0.0, *sorted(spec.rates)), spec.flips, range(spec.seeds))
        self.points: list[NoisePoint] = []
        self.skipped: str | None = None
        """Why there are no points."""

    @property
    def is_done(self) -> bool:
        """Whether no step is left."""
        return self.skipped is not None or len(self.points) == len(self._plan)

    def step(self) -> None:
        """One more fit. Labels that cannot be used end the sweep, with `skipped` saying why."""
        flip, rate, seed = self._plan[len(self.points)]
        study, recipe = self._study, self._study.recipe
        try:
            point = noise_point(
                study.parts(self._source, self._split_seed),
                self._source,
                parse_method(recipe.method, recipe.parameters),
                flip,
                rate,
                seed,
                imbalance=recipe.imbalance,
                judge=self._judge,
            )
        except BadSteeringInput as error:
            self.points, self.skipped = [], str(error)
            return
        self.points.append(point)
        logger.info(
            "label noise %d of %d: %s at %g, seed %d: test AUROC %.3f",
            len(self.points), len(self._plan), flip, rate, seed, point.test_auroc,
        )  # fmt: skip

    @cached_property
    def _judge(self) -> Judge:
        study = self._study
        return study.judge(study.spec_by_source[self._source], self._split_seed)

    def to_json(self) -> dict[str, Any]:
        """What was measured so far."""
        points = [
            {**asdict(point), "test_auroc": number_json(point.test_auroc)} for point in self.points
        ]
        return {"points": points, "skipped": self.skipped}

    def read(self, said: Mapping[str, Any]) -> None:
        """Go on from what `to_json` said."""
        self.skipped = said["skipped"]
        self.points = [_point(one) for one in said["points"]]


def _point(said: Mapping[str, Any]) -> NoisePoint:
    point = NoisePoint(**said)
    return replace(point, test_auroc=float("nan")) if point.test_auroc is None else point
