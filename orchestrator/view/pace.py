"""How fast a sweep goes and when it will be done, from what was measured."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import fmean

from orchestrator.log.state import SweepState, TrialState
from orchestrator.log.sweep_status import num_to_suggest
from orchestrator.money.budget import ended_by_budget
from orchestrator.view.cells import known

MIN_ENDS_TO_EXPECT_FROM = 3
"""Ended trials from which the mean length of a trial is taken instead of its full length."""
SILENT_AFTER_S = 120.0
"""Without a word from it for so long, a trial's numbers are called stale."""


def tokens_per_second(trial: TrialState) -> float | None:
    """Mean rate of a running trial since it was last taken up, evaluations included."""
    started = trial.started
    if trial.status != "running" or started is None:
        return None
    seconds = trial.last_report_at - started.at
    done = trial.tokens - started.tokens
    return done / seconds if seconds > 0 and done > 0 else None


def total_rate(trials: Iterable[TrialState]) -> float | None:
    """Tokens per second over all running SAEs; None while nothing was measured."""
    rates = [rate for trial in trials if (rate := tokens_per_second(trial)) is not None]
    return sum(rates) if rates else None


def language_model_rate(trials: Iterable[TrialState]) -> float | None:
    """Tokens per second through the language models: each pack's newest figure, once."""
    newest: dict[str, tuple[float, float]] = {}
    for trial in trials:
        rate = known(trial.at_place.get("lm_tokens_per_second"))
        if trial.status != "running" or rate is None or rate <= 0:
            continue
        pack = str(trial.at_place.get("pack", trial.started.pack if trial.started else ""))
        newest[pack] = max(newest.get(pack, (0.0, 0.0)), (trial.last_report_at, rate))
    return sum(rate for _, rate in newest.values()) if newest else None


def trial_eta_s(trial: TrialState, now: float) -> float | None:
    """Seconds until a trial is through all of its tokens, if nothing stops it before."""
    rate = tokens_per_second(trial)
    if rate is None or trial.total_tokens <= 0:
        return None
    left = max(trial.total_tokens - trial.tokens, 0) / rate
    return max(left - _since_report(trial, now), 0.0)


def _since_report(trial: TrialState, now: float) -> float:
    """Seconds worked since the last report, as far as can be believed: one report interval."""
    return min(max(now - trial.last_report_at, 0.0), _report_interval_s(trial))


def _report_interval_s(trial: TrialState) -> float:
    if not trial.history or trial.started is None:
        return 0.0
    return max(trial.last_report_at - trial.started.at, 0.0) / len(trial.history)


def silent_s(trial: TrialState, now: float) -> float | None:
    """How long a running trial has said nothing, where that is long; else None."""
    if trial.status != "running" or trial.last_event_at <= 0:
        return None
    silent = now - trial.last_event_at
    return silent if silent > max(SILENT_AFTER_S, 5 * _report_interval_s(trial)) else None


def expected_tokens(state: SweepState) -> float | None:
    """What a trial takes: the mean of those that ended, once there are some; else all it asks.

    With early stopping the mean is far below the full length, so it is what a forecast needs.
    """
    ended = [t.tokens for t in state.trials.values() if t.status in ("finished", "stopped")]
    asked = [t.total_tokens for t in state.trials.values() if t.total_tokens > 0]
    if len(ended) >= MIN_ENDS_TO_EXPECT_FROM and fmean(ended) > 0:
        return fmean(ended)
    return fmean(asked) if asked else None


def sweep_eta_s(num_trials: int, state: SweepState, now: float) -> float | None:
    """Seconds until a sweep is done at the rate it goes now; None while that is not known."""
    trials = list(state.trials.values())
    running = [trial for trial in trials if trial.status == "running"]
    rate, expected = total_rate(running), expected_tokens(state)
    if rate is None or expected is None:
        return None
    unseen = num_to_suggest(num_trials, state) if num_trials else 0
    waiting = sum(
        max(min(expected, t.total_tokens) - t.checkpoint_tokens, 0.0)
        for t in trials
        if t.status == "queued"
    )
    left = sum(max(min(expected, t.total_tokens) - t.tokens, 0.0) for t in running)
    seconds = (left + waiting + unseen * expected) / rate
    since = min((_since_report(trial, now) for trial in running), default=0.0)
    return max(seconds - since, *_bounds_s(running, expected, now))


def _bounds_s(running: Sequence[TrialState], expected: float, now: float) -> tuple[float, float]:
    """No sweep ends before its slowest trial gets as far as trials do, nor before its next one."""
    ends = [eta for trial in running if (eta := trial_eta_s(trial, now)) is not None]
    slowest = [
        max(min(expected, trial.total_tokens) - trial.tokens, 0.0) / rate
        for trial in running
        if (rate := tokens_per_second(trial)) is not None
    ]
    return min(ends, default=0.0), max(slowest, default=0.0)


def saved_share(state: SweepState) -> float | None:
    """Share of the tokens of the trials begun that early stopping did not have to spend."""
    asked = sum(max(trial.total_tokens, 0) for trial in state.trials.values())
    saved = sum(
        max(trial.total_tokens - trial.tokens, 0)
        for trial in state.trials.values()
        if trial.status in ("stopped", "diverged") and not ended_by_budget(trial)
    )
    return saved / asked if asked else None
