"""A job kind that only waits: found by SAEQ_KINDS, so that trials need no GPU and no model."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from jobs.kind import (
    Config,
    Finished,
    Footprint,
    JobKind,
    Metric,
    Progress,
    TrialContext,
    TrialRunner,
)


class SleeperSetup(BaseModel):
    """How long a trial is, and how much room it asks for."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    steps: int = Field(gt=0)
    step_seconds: float = Field(gt=0)
    trial_gib: float = Field(gt=0)
    shared_gib: float = Field(gt=0)


class SleeperParameters(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    lr: float = Field(gt=0)


class Sleeper(JobKind):
    """Counts steps."""

    name = "sleeper"
    artefact_kind = "nap"
    Setup = SleeperSetup
    metrics: ClassVar[Sequence[Metric]] = (
        Metric(name="loss", direction="min", description="falls with every step"),
    )
    default_metric = "loss"

    def parameters(self) -> Mapping[str | None, type[BaseModel]]:
        return {None: SleeperParameters}

    def default_strata(self, searched: Sequence[str]) -> tuple[str, ...]:
        del searched
        return ()

    def check(self, setup: Any, config: Config) -> list[str]:
        del setup, config
        return []

    def total_tokens(self, setup: SleeperSetup, config: Config) -> int:
        del config
        return setup.steps

    def footprint(self, setup: SleeperSetup, config: Config) -> Footprint:
        del config
        return Footprint(
            trial_bytes=int(setup.trial_gib * 2**30),
            shared_bytes=int(setup.shared_gib * 2**30),
            shared_flop_per_token=1.0,
            trial_flop_per_token=1.0,
        )

    def runner(self, context: TrialContext) -> TrialRunner:
        return SleeperRunner(context)


class SleeperRunner(TrialRunner):
    """Takes its time over each step, and remembers how many it took."""

    def __init__(self, context: TrialContext) -> None:
        self._setup = SleeperSetup.model_validate(context.setup)
        self._step, self._busy_s = 0, 0.0

    def attach(self, checkpoint: Path | None) -> int:
        if checkpoint is not None:
            self._step = json.loads((checkpoint / "steps.json").read_text())["step"]
        return self._step

    def advance(self, until_tokens: int, run_on_to: int, max_seconds: float) -> Progress:
        del run_on_to
        began = time.monotonic()
        while self._step < until_tokens and time.monotonic() - began < max_seconds:
            time.sleep(self._setup.step_seconds)
            self._step += 1
        self._busy_s += time.monotonic() - began
        metrics = {"loss": 1.0 / self._step} if self._step >= until_tokens else None
        return Progress(tokens=self._step, metrics=metrics, busy_seconds=self._busy_s)

    def save(self, folder: Path) -> int:
        (folder / "steps.json").write_text(json.dumps({"step": self._step}))
        return self._step

    def finish(self, folder: Path) -> Finished:
        self.save(folder)
        record: dict[str, Any] = {"lineage": {"stream": {}, "segments": [], "parents": []}}
        metrics = {"loss": 1.0 / self._step}
        return Finished(kind="nap", metrics=metrics, record=record, busy_seconds=self._busy_s)

    def detach(self) -> None:
        """Nothing is held."""
