"""Which trials may be compared: those of one stratum."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from math import isfinite, log2
from typing import Any

from orchestrator.log.events import Reported
from orchestrator.log.state import TrialState

L0 = "l0"
"""As a stratum it stands for bands of the metric of that name, an octave each."""
WHOLE_SWEEP = "all"


def stratum_of(
    config: Mapping[str, Any], metrics: Mapping[str, float | None], strata: Sequence[str]
) -> str:
    """Name the stratum of a trial: `k=32, d_sae=1024`, `l0~64`, `all` where there are none.

    Args:
        config: the trial's parameters; one that it lacks reads `-`.
        metrics: its newest metrics; their `l0` is put into the band 2^round(log2(l0)), so a band
            reaches from 2^-0.5 to 2^0.5 of its name.
        strata: parameter names, and `l0` for the band.
    """
    return ", ".join(_part(name, config, metrics) for name in strata) or WHOLE_SWEEP


def _part(name: str, config: Mapping[str, Any], metrics: Mapping[str, float | None]) -> str:
    if name == L0 and L0 not in config:
        return f"l0~{_band(metrics.get(L0))}"
    return f"{name}={_plain(config.get(name))}"


def _band(l0: float | None) -> str:
    if l0 is None or not isfinite(l0):
        return "-"
    return f"{2.0 ** round(log2(l0)):g}" if l0 > 0 else "0"


def _plain(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, str):
        return value
    return f"{value:g}" if isinstance(value, float) else json.dumps(value)


def compared_with(
    trials: Iterable[TrialState], report: Reported, strata: Sequence[str]
) -> dict[str, Reported]:
    """What a report at a rung is judged against: the other trials' reports there.

    A trial of the same stratum that diverged before it came to the rung counts too, with a report
    that has no metrics, which is the worst there is. Otherwise a region where most trials diverge
    would leave each survivor with nobody to be better than.
    """
    assert report.rung is not None and report.stratum is not None
    others = {}
    for trial in trials:
        if trial.id == report.trial:
            continue
        there = trial.rungs.get(report.rung)
        if there is not None:
            if there.stratum == report.stratum:
                others[trial.id] = there
        elif (
            trial.status == "diverged"
            and stratum_of(trial.config, trial.metrics, strata) == report.stratum
        ):
            others[trial.id] = Reported(
                trial=trial.id, tokens=trial.tokens, metrics={}, rung=report.rung
            )
    return others
