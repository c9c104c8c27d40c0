"""Where a learning curve is heading: early values mislead, early slopes less.

A high learning rate leads for a while and then loses to one that learns more slowly and longer.
On SmolLM2 (`benchmarks/early_stop.py`) the leader at a quarter of the training was the wrong one
in every stratum, while the power law through the last few reports had the right one at a sixth.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import exp, isfinite, log
from statistics import linear_regression

from orchestrator.stopping.base import Direction

WINDOW = 0.5
"""The slope is taken over reports from this share of the newest one's tokens on."""


def on_course_for(
    history: Sequence[tuple[int, Mapping[str, float | None]]],
    metric: str,
    direction: Direction,
    total_tokens: int,
) -> float | None:
    """Continue a metric along its recent slope to the end of the training.

    A metric that falls is continued as a power law of the tokens, one that rises as a straight
    line in their logarithm; nothing is expected to get worse.

    Args:
        history: (tokens, metrics) of the reports so far, rising; the last one is continued.

    Returns:
        The expected value at `total_tokens`, or None where there are not two reports to tell.
    """
    now = history[-1][0]
    points = [
        (tokens, value)
        for tokens, metrics in history
        if tokens >= WINDOW * now and (value := metrics.get(metric)) is not None
    ]
    if len(points) < 2 or points[-1][0] != now or not all(isfinite(v) for _, v in points):
        return None
    falls = direction == "min" and all(value > 0 for _, value in points)
    xs = [log(tokens) for tokens, _ in points]
    ys = [log(value) if falls else value for _, value in points]
    slope = linear_regression(xs, ys).slope
    slope = min(slope, 0.0) if direction == "min" else max(slope, 0.0)
    end = ys[-1] + slope * (log(total_tokens) - xs[-1])
    return exp(end) if falls else end
