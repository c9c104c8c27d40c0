"""A job kind of known work: a trial takes so many seconds and computes nothing.

Found by SAEQ_KINDS=benchmarks.timed_kind, so that what a slot loses between trials is measured
apart from what shares its cores. Its trials run, report and export as those of `embedding` do.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from jobs.kind import Config, Footprint, JobKind, Metric, TrialContext, TrialRunner
from jobs.runners.in_process import InProcessRunner

REPORTS = 24
"""Of a trial, as many as the example of embeddings has epochs."""


class TimedSetup(BaseModel):
    """How long a trial takes."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    seconds: float = Field(gt=0)
    """Of work, without what it takes to begin and to end it."""


class TimedParameters(BaseModel):
    """Something to search."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    quality: float = Field(ge=0, le=1)
    """Becomes the metric."""


class Timed(JobKind):
    """Waits."""

    name = "timed"
    artefact_kind = "timed"
    unit = "epochs"
    Setup = TimedSetup
    metrics: ClassVar[Sequence[Metric]] = (
        Metric(name="quality", direction="max", description="what was drawn"),
    )
    default_metric = "quality"

    def parameters(self) -> Mapping[str | None, type[BaseModel]]:
        return {None: TimedParameters}

    def default_strata(self, searched: Sequence[str]) -> tuple[str, ...]:
        del searched
        return ()

    def check(self, setup: Any, config: Config) -> list[str]:
        del setup, config
        return []

    def total_tokens(self, setup: Any, config: Config) -> int:
        """Reports."""
        del setup, config
        return REPORTS

    def footprint(self, setup: Any, config: Config) -> Footprint:
        del setup, config
        return Footprint(64 * 2**20, 256 * 2**20, 0.0, 0.0)

    def runner(self, context: TrialContext) -> TrialRunner:
        return TimedRunner(context)


class TimedRunner(InProcessRunner):
    """Sleeps, a part of a report at a time."""

    artefact_kind = "timed"

    def open(self) -> None:
        self._seconds = TimedSetup.model_validate(self.context.setup).seconds
        self._done_s = 0.0

    @property
    def units_done(self) -> int:
        return int(self._done_s / self._seconds * REPORTS + 1e-6)

    def step(self) -> None:
        step_s = min(0.5, self._seconds / REPORTS)
        time.sleep(step_s)
        self._done_s += step_s

    def measure(self) -> Mapping[str, float]:
        return {"quality": float(self.context.config["quality"])}

    def write_state(self, folder: Path) -> None:
        (folder / "state.json").write_text(json.dumps({"done_s": self._done_s}))

    def read_state(self, folder: Path) -> None:
        self._done_s = float(json.loads((folder / "state.json").read_text())["done_s"])

    def export(self, folder: Path) -> tuple[Mapping[str, float], Mapping[str, Any]]:
        self.write_state(folder)
        return self.measure(), {"seconds": self._seconds}
