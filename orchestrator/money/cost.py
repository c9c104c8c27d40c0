"""What a sweep cost, what of it was lost, and what was saved: from its state alone.

Seconds are device time as trials measured it. A trial's dollars are the sum over its leases of
seconds x the price noted when each began; where that price has a history, its mean over the
lease's life.

What was saved is measured against trials that ran: early stopping saved the tokens not trained, at
that trial's own seconds a token; a shared forward pass saved what the language model would have
taken for each trial alone, less what it took. The two do not overlap. Work that was done twice
counts as spent and as lost.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from orchestrator.log.device_time import EpochTime
from orchestrator.log.state import SweepState, TrialState
from orchestrator.money.budget import ended_by_budget
from orchestrator.money.machine_time import MachineUse, machine_use
from orchestrator.money.node_price import is_estimate
from orchestrator.money.price_history import PriceHistory

STOPPED_EARLY = frozenset({"stopped", "diverged"})


@dataclass(frozen=True)
class Amount:
    """Device time and what it cost."""

    seconds: float = 0.0
    usd: float = 0.0
    """At prices that are known; what has none counts as 0."""

    def __add__(self, other: Amount) -> Amount:
        return Amount(self.seconds + other.seconds, self.usd + other.usd)


@dataclass(frozen=True)
class TrialCost:
    """One trial's bill."""

    trial: str
    state: str
    tokens: int
    total_tokens: int
    spent: Amount
    lost_to_preemption: Amount
    """Of what is spent: work done again because a node, a process or a lease went away."""
    lost_to_failures: Amount
    """Of what is spent: work done again because the trial itself failed."""
    saved_by_stopping: Amount
    saved_by_packing: Amount
    unpriced_seconds: float
    """Of the seconds spent: those on devices whose price nobody knows."""
    price_sources: tuple[str, ...]

    @property
    def is_estimate(self) -> bool:
        """Whether a typical price stands in for one that nobody named."""
        return any(is_estimate(source) for source in self.price_sources)


@dataclass(frozen=True)
class CostReport:
    """One sweep's bill, or that of several."""

    trials: tuple[TrialCost, ...]
    machines: MachineUse

    @property
    def spent(self) -> Amount:
        """Device time of all trials."""
        return self._total("spent")

    @property
    def lost_to_preemption(self) -> Amount:
        """Of that: work done again because a node, a process or a lease went away."""
        return self._total("lost_to_preemption")

    @property
    def lost_to_failures(self) -> Amount:
        """Of that: work done again because trials failed."""
        return self._total("lost_to_failures")

    @property
    def saved_by_stopping(self) -> Amount:
        """What the tokens that stopped trials did not train would have taken."""
        return self._total("saved_by_stopping")

    @property
    def saved_by_packing(self) -> Amount:
        """What language models would have taken beyond what they took."""
        return self._total("saved_by_packing")

    def _total(self, name: str) -> Amount:
        return sum((getattr(trial, name) for trial in self.trials), Amount())

    @property
    def unpriced_seconds(self) -> float:
        """Seconds on devices whose price nobody knows."""
        return sum(trial.unpriced_seconds for trial in self.trials)

    @property
    def has_price(self) -> bool:
        """Whether dollars say anything: some device time has a price."""
        return self.spent.seconds > self.unpriced_seconds

    @property
    def price_sources(self) -> tuple[str, ...]:
        """Where the prices come from, each once."""
        return tuple(dict.fromkeys(name for trial in self.trials for name in trial.price_sources))

    @property
    def is_estimate(self) -> bool:
        """Whether a typical price stands in for one that nobody named."""
        return any(trial.is_estimate for trial in self.trials)

    @property
    def one_run_each(self) -> Amount:
        """What one run per trial would have cost at least, each to its end.

        At least: the tokens not trained are counted at the shared rate.
        """
        return self.spent + self.saved_by_stopping + self.saved_by_packing

    @property
    def num_finished(self) -> int:
        """Trials that left an artefact."""
        return sum(trial.state == "finished" for trial in self.trials)

    @property
    def per_finished(self) -> Amount | None:
        """All that was spent, over the trials that left something; None while none did."""
        count = self.num_finished
        return Amount(self.spent.seconds / count, self.spent.usd / count) if count else None

    @property
    def by_state(self) -> dict[str, Amount]:
        """What was spent on trials in each state, the largest first."""
        totals: dict[str, Amount] = {}
        for trial in self.trials:
            totals[trial.state] = totals.get(trial.state, Amount()) + trial.spent
        return dict(sorted(totals.items(), key=lambda item: -item[1].seconds))

    @property
    def unattributed(self) -> Amount | None:
        """What machines cost beyond the trials' own time: loading, evaluation, waiting.

        None where trials account for more than the drivers' machines: nodes came later.
        """
        seconds = self.machines.device_seconds - self.spent.seconds
        if seconds < 0 or not self.machines.device_seconds:
            return None
        return Amount(seconds, max(self.machines.usd - self.spent.usd, 0.0))


def cost_of(
    state: SweepState,
    now: float,
    histories: Mapping[str, PriceHistory] | None = None,
    alive: Collection[str] = (),
) -> CostReport:
    """Make out a sweep's bill.

    Args:
        now: seconds since 1970.
        histories: source of a price, as noted at a trial's start -> how that price went on.
        alive: drivers that are known to live now.
    """
    trials = tuple(_trial_cost(trial, histories or {}) for trial in state.by_number())
    return CostReport(trials, machine_use(state.drivers.values(), now, alive))


def cost_of_all(
    states: Iterable[SweepState], reports: Iterable[CostReport], now: float
) -> CostReport:
    """Several sweeps together; machines that worked on more than one of them count once."""
    drivers = [driver for state in states for driver in state.drivers.values()]
    trials = tuple(trial for report in reports for trial in report.trials)
    return CostReport(trials, machine_use(drivers, now))


def price_sources(state: SweepState) -> set[str]:
    """Sources of all prices that a sweep's trials noted."""
    return {one.price_source for trial in state.trials.values() for one in trial.epoch_times}


def _trial_cost(trial: TrialState, histories: Mapping[str, PriceHistory]) -> TrialCost:
    times = trial.epoch_times
    price = {one.epoch: _usd_per_hour(one, histories) for one in times}
    spent = _sum(times, price, "busy_seconds")
    lost = _sum([one for one in times if not one.failed], price, "lost_seconds")
    failed = _sum([one for one in times if one.failed], price, "lost_seconds")
    packing = Amount()
    for one in times:
        seconds = max(one.lm_alone_seconds - one.lm_seconds, 0.0)
        packing += Amount(seconds, seconds * (price[one.epoch] or 0.0) / 3600)
    return TrialCost(
        trial=trial.id,
        state=trial.status,
        tokens=trial.tokens,
        total_tokens=trial.total_tokens,
        spent=spent,
        lost_to_preemption=lost,
        lost_to_failures=failed,
        saved_by_stopping=_saved_by_stopping(trial, spent, lost + failed),
        saved_by_packing=packing,
        unpriced_seconds=sum(one.busy_seconds for one in times if price[one.epoch] is None),
        price_sources=tuple(dict.fromkeys(one.price_source for one in times if one.price_source)),
    )


def _usd_per_hour(one: EpochTime, histories: Mapping[str, PriceHistory]) -> float | None:
    """The device's price over a lease's life; None where nobody knows it."""
    if one.usd_per_hour <= 0 and not one.price_source:
        return None
    history = histories.get(one.price_source)
    noted = history.usd_per_hour_at(one.begun_at) if history is not None else 0.0
    if history is None or noted <= 0:
        return one.usd_per_hour
    return one.usd_per_hour * history.mean_usd_per_hour(one.begun_at, one.last_at) / noted


def _sum(times: list[EpochTime], price: Mapping[int, float | None], what: str) -> Amount:
    seconds = {one.epoch: float(getattr(one, what)) for one in times}
    usd = sum(count * (price[epoch] or 0.0) / 3600 for epoch, count in seconds.items())
    return Amount(sum(seconds.values()), usd)


def _saved_by_stopping(trial: TrialState, spent: Amount, lost: Amount) -> Amount:
    """Tokens not trained, at the rate of those trained. A budget that ran out saved nothing."""
    left = trial.total_tokens - trial.tokens
    if (
        trial.status not in STOPPED_EARLY
        or ended_by_budget(trial)
        or trial.tokens <= 0
        or left <= 0
    ):
        return Amount()
    share = left / trial.tokens
    useful = max(spent.seconds - lost.seconds, 0.0), max(spent.usd - lost.usd, 0.0)
    return Amount(useful[0] * share, useful[1] * share)
