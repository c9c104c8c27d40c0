"""What every early-stopping rule is told and what it answers with."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from math import isfinite
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict

from orchestrator.log.events import Reported
from orchestrator.log.state import TrialState
from orchestrator.spec.units import format_tokens

Direction = Literal["min", "max"]
"""Which way a metric is better."""


@dataclass(frozen=True)
class Verdict:
    """What a rule decided at a rung, and from what."""

    stop: bool
    rule: str
    metric: str
    value: float | None
    """The trial's own; None when it was not finite."""
    cutoff: float | None
    """What had to be reached; None when there was nobody to compare with."""
    against: int
    """How many other trials it was compared with."""
    on_course: bool
    """Whether value and cutoff are forecasts for the end of the training."""
    reason: str
    """The same in words, for tables and logs."""


class StoppingConfig(BaseModel):
    """The `early_stop:` part of a sweep file.

    A subclass that gives `scheduler` a default registers itself under that name.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )

    by_scheduler: ClassVar[dict[str, type[StoppingConfig]]] = {}

    needed_metrics: ClassVar[tuple[str, ...]] = ()
    """Metrics that every report must carry beside the compared one."""

    scheduler: str
    metric: str | None = None
    """What trials are compared by; not asked for: the job kind's own choice."""
    strata: tuple[str, ...] | None = None
    """Parameters within whose equal values trials are compared, `l0` for L0 bands, `[]` for the
    whole sweep; not asked for: the job kind's own choice."""
    judge_by: Literal["trend", "value"] = "trend"
    """Compare what trials are on course for at their end (see `trend`), or what they have."""
    rejudge: bool = True
    """Look again, at each report, at how a trial stands at the last rung it passed, now that more
    have come there; false: judge once, on arrival."""

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        field = cls.model_fields["scheduler"]
        if field.is_required():
            return
        known = cls.by_scheduler.setdefault(field.default, cls)
        if known is not cls:
            raise TypeError(
                f"two schedulers are named {field.default!r}: {known.__module__} and "
                f"{cls.__module__}; rename one"
            )

    def strata_or(self, default: Sequence[str]) -> tuple[str, ...]:
        """The strata asked for, else the job kind's own choice."""
        return tuple(default) if self.strata is None else self.strata

    @abstractmethod
    def rungs(self, total_tokens: int) -> tuple[int, ...]:
        """Token counts at which a trial of that length is judged, rising, all below its end."""

    @abstractmethod
    def judge(
        self,
        trial: TrialState,
        report: Reported,
        others: Mapping[str, Reported],
        *,
        metric: str,
        direction: Direction,
    ) -> Verdict:
        """Decide whether a trial goes on past a rung.

        Args:
            trial: the trial that is judged.
            report: its report at the rung; `report.rung` and `report.stratum` are set.
            others: reports of other trials at the same rung of the same stratum (`compared_with`
                makes them); a report without the metric stands for a trial that diverged.
            metric: what is compared.
            direction: which way it is better.
        """


def finite_value(report: Reported, metric: str) -> float | None:
    """A report's metric, or None where it is missing or not finite."""
    value = report.metrics.get(metric)
    return value if value is not None and isfinite(value) else None


def compared_value(report: Reported, metric: str) -> float | None:
    """What a report is judged by: its forecast where there is one, else its metric."""
    value = finite_value(report, metric)
    return value if value is None or report.forecast is None else report.forecast


def in_words(report: Reported, metric: str) -> str:
    """`fvu 0.464 at 8k tokens, on course for 0.349`."""
    value, place = finite_value(report, metric), f"at {format_tokens(report.tokens)} tokens"
    if value is None:
        return f"{metric} is not finite {place}"
    heading = "" if report.forecast is None else f", on course for {report.forecast:.4g}"
    return f"{metric} {value:.4g} {place}{heading}"


def quarter(total_tokens: int) -> int:
    """Where the first rung stands when nobody says: a quarter of the training."""
    return max(1, total_tokens // 4)


def badness(value: float | None, direction: Direction) -> float:
    """A number that is smaller for better values; infinite for what is not finite."""
    if value is None or not isfinite(value):
        return float("inf")
    return value if direction == "min" else -value


def geometric_rungs(grace: int, reduction: float, total_tokens: int) -> tuple[int, ...]:
    """grace * reduction^i, rounded to tokens, strictly below the total."""
    rungs: list[int] = []
    rung = float(grace)
    while round(rung) < total_tokens:
        rungs.append(round(rung))
        rung *= reduction
    return tuple(dict.fromkeys(rungs))


def stopping_class(name: object) -> type[StoppingConfig]:
    """Look a rule up by name. Raises ValueError with the known ones and a suggestion."""
    known = StoppingConfig.by_scheduler
    if isinstance(name, str) and name in known:
        return known[name]
    close = get_close_matches(str(name), known, n=1)
    suggestion = f" Did you mean {close[0]!r}?" if close else ""
    raise ValueError(
        f"scheduler={name!r} is unknown; known schedulers: {', '.join(sorted(known))}.{suggestion}"
    )


def parse_stopping(entry: Mapping[str, Any]) -> StoppingConfig:
    """Make the configuration that a sweep file's `early_stop:` describes.

    Raises:
        ValueError: the scheduler is missing or unknown, or (pydantic's ValidationError) a key is
            missing, unknown or out of range.
    """
    if "scheduler" not in entry:
        known = ", ".join(sorted(StoppingConfig.by_scheduler))
        raise ValueError(f"early_stop.scheduler is not given; choose one of {known}")
    return stopping_class(entry["scheduler"]).model_validate(dict(entry))
