"""How much of a sweep early stopping is expected to leave, before a single trial has run.

The sweep's own rule judges trials whose metric is drawn at random and never changes: every order
of merit is equally likely, and a rung ranks as the end would. Each is judged once, on arrival at a
rung; a sweep looks again later and so stops more. Real curves cross.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.log.events import Reported
from orchestrator.log.state import TrialState
from orchestrator.stopping import StoppingConfig, stratum_of
from orchestrator.stopping.base import Direction

NUM_DRAWS = 8
MAX_TRIALS = 300
"""More than this many are thinned out: the share hardly moves and `plan` has to be quick."""


@dataclass(frozen=True)
class Expectation:
    """Tokens trained over tokens of the full grid."""

    share: float | None
    """None where the rule compares more than one number: nothing to draw."""
    basis: str


def expected_share(
    rule: StoppingConfig,
    trials: Sequence[tuple[Mapping[str, Any], int]],
    *,
    strata: Sequence[str],
    direction: Direction,
    slots: int,
) -> Expectation:
    """Play the rule out over random metrics.

    Args:
        rule: the sweep's early stopping.
        trials: (configuration, total tokens) in the order in which they start.
        strata: names by which trials are grouped before they are compared.
        direction: which way the metric is better.
        slots: trials that are live at once.
    """
    if not any(rule.rungs(total) for _, total in trials):
        return Expectation(1.0, "no trial is stopped early")
    if rule.needed_metrics:
        return Expectation(None, f"not modelled: {rule.scheduler} compares several metrics")
    trials = trials[:: -(-len(trials) // MAX_TRIALS)]
    full = sum(total for _, total in trials)
    shares = [
        _play(rule, trials, strata, direction, slots, random.Random(draw)) / full
        for draw in range(NUM_DRAWS)
    ]
    return Expectation(
        sum(shares) / NUM_DRAWS,
        f"{rule.scheduler} played out over random metrics that keep their order, "
        f"mean of {NUM_DRAWS}",
    )


def _play(
    rule: StoppingConfig,
    trials: Sequence[tuple[Mapping[str, Any], int]],
    strata: Sequence[str],
    direction: Direction,
    slots: int,
    rng: random.Random,
) -> int:
    """Tokens trained in all, when trials start in order as slots come free."""
    waiting = iter(range(len(trials)))
    quality = [rng.random() for _ in trials]
    seen: dict[tuple[str, int], dict[str, Reported]] = {}
    live = [(0, next(waiting), 0) for _ in range(min(slots, len(trials)))]
    spent = 0
    while live:
        now, number, tokens = heapq.heappop(live)
        config, total = trials[number]
        rung = next((rung for rung in rule.rungs(total) if rung > tokens), total)
        spent, now = spent + rung - tokens, now + rung - tokens
        stratum = stratum_of(config, {}, strata)
        others = seen.setdefault((stratum, rung), {})
        if rung < total and not _stops(rule, number, quality[number], rung, others, direction):
            heapq.heappush(live, (now, number, rung))
        elif (successor := next(waiting, None)) is not None:
            heapq.heappush(live, (now, successor, 0))
    return spent


def _stops(
    rule: StoppingConfig,
    number: int,
    quality: float,
    rung: int,
    others: dict[str, Reported],
    direction: Direction,
) -> bool:
    report = Reported(trial=str(number), tokens=rung, metrics={"quality": quality}, rung=rung)
    trial = TrialState(report.trial)
    verdict = rule.judge(trial, report, others, metric="quality", direction=direction)
    others[report.trial] = report
    return verdict.stop
