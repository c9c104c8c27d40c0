"""The rules that are always on, whatever the scheduler: a trial that can only waste tokens ends.

Ray Tune's ASHA never stops NaN (`nan < cutoff` is false), so this does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from statistics import median

from pydantic import BaseModel, ConfigDict, Field, model_validator

from orchestrator.log.events import Reported
from orchestrator.spec.units import Tokens, format_tokens
from orchestrator.stopping.strata import L0

LOSS = "loss"
DEAD_FRACTION = "dead_fraction"
MIN_REPORTS_BEFORE_SPIKE = 5
"""A median of fewer is no median."""

History = Sequence[tuple[int, Mapping[str, float | None]]]


@dataclass(frozen=True)
class GuardVerdict:
    """Why a trial counts as diverged."""

    rule: str
    """`non_finite`, `spike`, `dead` or `l0_band`."""
    reason: str
    """In words, for tables and logs."""


class GuardsConfig(BaseModel):
    """The `guards:` part of a sweep file. That what is not finite ends cannot be switched off."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )

    spike: float | None = Field(default=10.0, gt=1)
    """Ends a trial whose loss is above this many times its own running median; null: never."""
    l0_band: tuple[float, float] | None = None
    """Ends a trial whose L0 is outside [low, high] after warm-up."""
    l0_after: Tokens | None = None
    """When warm-up is over, in tokens; goes with l0_band."""
    dead: bool = True
    """Ends a trial whose latents are all dead."""

    @model_validator(mode="after")
    def _band_makes_sense(self) -> GuardsConfig:
        if (self.l0_band is None) != (self.l0_after is None):
            raise ValueError(
                "l0_band and l0_after go together; give both, such as "
                "l0_band: [8, 256] and l0_after: 5M"
            )
        if self.l0_band is not None and not 0 <= self.l0_band[0] < self.l0_band[1]:
            raise ValueError(
                f"l0_band={list(self.l0_band)} is empty; write [low, high] with 0 <= low < high"
            )
        return self


def judge_guards(config: GuardsConfig, history: History, report: Reported) -> GuardVerdict | None:
    """Say whether a report ends its trial; None where it may go on.

    Args:
        history: (tokens, metrics) of the trial's reports; those from `report.tokens` on are left
            out, so it does not matter whether the report itself is among them already.
        report: the report that is judged.
    """
    metrics = report.metrics
    place = f"at {format_tokens(report.tokens)} tokens"
    for name in sorted(metrics, key=lambda name: (name != LOSS, name)):
        if not _is_finite(metrics[name]):
            return GuardVerdict("non_finite", f"{name} is not finite {place}")
    dead_fraction = metrics.get(DEAD_FRACTION)
    if config.dead and dead_fraction is not None and dead_fraction >= 1:
        return GuardVerdict("dead", f"all latents are dead {place}")
    return _judge_spike(config, history, report, place) or _judge_band(config, report, place)


def _judge_spike(
    config: GuardsConfig, history: History, report: Reported, place: str
) -> GuardVerdict | None:
    loss = report.metrics.get(LOSS)
    if config.spike is None or loss is None:
        return None
    before = [m.get(LOSS) for tokens, m in history if tokens < report.tokens]
    losses = [value for value in before if value is not None and isfinite(value)]
    if len(losses) < MIN_REPORTS_BEFORE_SPIKE:
        return None
    usual = median(losses)
    if usual <= 0 or loss <= config.spike * usual:  # a multiple of it says nothing if not positive
        return None
    return GuardVerdict(
        "spike",
        f"loss {loss:.4g} {place} is above {config.spike:g} times its running median {usual:.4g}",
    )


def _judge_band(config: GuardsConfig, report: Reported, place: str) -> GuardVerdict | None:
    l0 = report.metrics.get(L0)
    if config.l0_band is None or config.l0_after is None or l0 is None:
        return None
    low, high = config.l0_band
    if report.tokens < config.l0_after or low <= l0 <= high:
        return None
    return GuardVerdict("l0_band", f"l0 {l0:.4g} {place} is outside [{low:g}, {high:g}]")


def _is_finite(value: float | None) -> bool:
    return value is not None and isfinite(value)
