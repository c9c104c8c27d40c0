"""A short real run on this machine, from which a plan's hours are measured instead of guessed.

The run is a process of its own: only there is torch imported.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

LIMIT_SECONDS = 900
"""A first run may have to convert or fetch a language model."""


class Calibration(BaseModel):
    """Rates measured on this machine."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    device: str
    members: int
    """Trials that shared the forward pass."""
    stream_tokens: int
    """Tokens that went by while it was measured."""
    wall_seconds: float
    load_seconds: float
    """Model, text and first batch; paid once a pack."""
    shared_seconds_per_token: float
    """Of the language model, for one token of the stream, whoever trains on it."""
    trial_seconds_per_token: float
    """Of one trial's own step, and its share of what is neither that nor the language model."""
    waiting_share: float = Field(default=0.0, ge=0, le=1)
    """Of that time, what went into no step: batches, text, disk, and the loop itself."""
    optimizer_share: float | None = Field(default=None, ge=0, le=1)
    """Of the steps, what went into the optimizer; None if the backend does not tell."""
    report_seconds: float
    """Of one trial's measurement on held-out tokens."""
    checkpoint_seconds: float
    """Of one trial's state written to a local disk."""

    def shares(
        self, *, members: int, tokens: int, num_reports: int, checkpoint_interval_s: float
    ) -> dict[str, float]:
        """What a trial's time goes into, as shares that add up to 1.

        Args:
            members: trials that will share the forward pass.
            tokens: length of a trial.
            num_reports: measurements on the way.
            checkpoint_interval_s: time from one checkpoint to the next.
        """
        own = tokens * self.trial_seconds_per_token
        steps = own * (1 - self.waiting_share)
        seconds = {
            "language model": tokens * self.shared_seconds_per_token / members,
            **self._steps_and_optimizer(steps),
            "waiting": own - steps,
            "evaluation": num_reports * self.report_seconds,
        }
        num_checkpoints = members * sum(seconds.values()) // checkpoint_interval_s + 1
        seconds["checkpoints"] = num_checkpoints * self.checkpoint_seconds
        total = sum(seconds.values())
        return {name: part / total for name, part in seconds.items()}

    def _steps_and_optimizer(self, seconds: float) -> dict[str, float]:
        if self.optimizer_share is None:
            return {"training steps with their optimizer": seconds}
        optimizer = seconds * self.optimizer_share
        return {"training steps": seconds - optimizer, "optimizer": optimizer}


class CalibrationFailed(ValueError):
    """The short run did not come to an end."""

    def __init__(self, job: str, detail: str) -> None:
        super().__init__(job, detail)
        self.job, self.detail = job, detail

    def __str__(self) -> str:
        return f"calibration of {self.job} failed: {self.detail}; plan without --calibrate"


def calibrate(
    job: str,
    setup: Mapping[str, Any],
    configs: Sequence[Mapping[str, Any]],
    *,
    device: str = "auto",
    seconds: float = 12.0,
) -> Calibration:
    """Measure a job kind on this machine for some seconds, loading not counted.

    Args:
        job: name of the job kind.
        setup: its part of the sweep file, as JSON.
        configs: configurations to train side by side.
        device: `auto`, `cpu` or `cuda`.
        seconds: how long to train.

    Raises:
        CalibrationFailed: the kind has nothing to measure with, or the run failed.
    """
    module = f"jobs.calibrations.{job}"
    if find_spec(module) is None:
        raise CalibrationFailed(job, "this job kind has no calibration")
    request = {"setup": setup, "configs": list(configs), "device": device, "seconds": seconds}
    try:
        answer = subprocess.run(
            [sys.executable, "-m", module],
            input=json.dumps(request),
            capture_output=True,
            text=True,
            timeout=LIMIT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise CalibrationFailed(job, f"it took more than {LIMIT_SECONDS} s") from None
    if answer.returncode != 0:
        raise CalibrationFailed(job, _last_line(answer.stderr))
    try:
        return Calibration.model_validate_json(_last_line(answer.stdout))
    except ValidationError as error:
        raise CalibrationFailed(job, f"it answered nonsense ({error.error_count()} faults)") from (
            error
        )


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else "it said nothing"
