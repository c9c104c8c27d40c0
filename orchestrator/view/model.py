"""The dashboard's content, computed from specs, states and the time; nothing here draws."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from orchestrator.log.events import DriverStarted, Reported
from orchestrator.log.state import SweepState, TrialState
from orchestrator.log.sweep_status import SweepStatus, is_over, num_to_suggest, sweep_status
from orchestrator.money.budget import BudgetUse, budget_use
from orchestrator.money.node_price import rests_on_estimate
from orchestrator.view import cells, pace
from orchestrator.view.event_lines import EventLine, event_line
from orchestrator.view.facts import SweepFacts

CURVE_POINTS = 8
SILENT_FROM_S = 60.0
"""Three times as long as others wait before they take its trials."""


@dataclass(frozen=True)
class Header:
    """The machines and the money, over all sweeps shown. None: not known."""

    num_drivers: int
    num_nodes: int | None
    num_cpus: float | None
    num_gpus: float | None
    slots: int | None
    busy_slots: int
    unit: str
    """What is counted by the second: `SAE tokens`, `epochs`, or `steps` of several kinds."""
    units_per_second: float | None
    lm_tokens_per_second: float | None
    spent_usd: float | None
    spent_is_estimate: bool
    """Whether a typical price stands in for one that nobody named."""
    usd_per_hour: float | None
    eta_s: float | None
    silent_s: float | None
    """Since any running trial said something, where that is long."""


@dataclass(frozen=True)
class SweepBar:
    """One sweep in numbers."""

    id: str
    status: SweepStatus
    counts: Mapping[str, int]
    """Trials in each status; `queued` counts those not suggested yet too."""
    num_trials: int
    best: float | None
    """Best metric among finished trials."""
    metric: str
    eta_s: float | None
    saved: float | None
    """Share of the tokens that early stopping saved so far."""
    budget: BudgetUse

    @property
    def num_ended(self) -> int:
        """Trials that are over, however."""
        return self.num_trials - self.counts.get("queued", 0) - self.counts.get("running", 0)


@dataclass(frozen=True)
class RunningRow:
    """One running trial."""

    sweep: str
    trial: str
    unit: str
    parameters: Mapping[str, str]
    """Architecture first, then what was searched, as text."""
    place: str
    tokens: int
    total_tokens: int
    metric: str
    value: float | None
    curve: tuple[float | None, ...]
    l0: float | None
    dead_fraction: float | None
    next_rung: int | None
    cutoff: float | None
    """What the last trial of its stratum had to reach at that rung."""
    cutoff_is_forecast: bool
    """Whether the cutoff is what a trial has to be on course for at its end."""
    is_upper_bound: bool
    """Whether the cutoff is to be stayed below (a metric that falls)."""
    eta_s: float | None
    silent_s: float | None


@dataclass(frozen=True)
class WaitingRow:
    """What waits, and why."""

    sweep: str
    trial: str
    """Empty for the trials that are not suggested yet."""
    parameters: str
    reason: str


@dataclass(frozen=True)
class NodesPanel:
    """The machines in a line, and what a person should know of them."""

    counts: Mapping[str, int] = field(default_factory=dict)
    """Nodes in each state (`orchestrator.nodes.health.NodeState`), and `quarantined` hosts."""
    remarks: tuple[tuple[str, str], ...] = ()
    """(node or host, what is wrong with it or what it waits for), the worst first."""


@dataclass(frozen=True)
class ViewModel:
    """One moment of the dashboard."""

    now: float
    header: Header
    sweeps: tuple[SweepBar, ...]
    running: tuple[RunningRow, ...]
    waiting: tuple[WaitingRow, ...]
    events: tuple[EventLine, ...]
    """Oldest first."""
    nodes: NodesPanel = field(default_factory=NodesPanel)


Watched = Sequence[tuple[SweepFacts, SweepState]]


def view_model(sweeps: Watched, now: float, nodes: NodesPanel | None = None) -> ViewModel:
    """Compute what is shown. Any state draws: what it does not tell is None."""
    bars = tuple(_bar(facts, state, now) for facts, state in sweeps)
    running = tuple(
        _running_row(facts, state, trial, now)
        for facts, state in sweeps
        for trial in state.by_number()
        if trial.status == "running"
    )
    waiting = tuple(row for facts, state in sweeps for row in _waiting(facts, state))
    several = len(sweeps) > 1
    lines = [
        line
        for facts, state in sweeps
        for event in state.recent
        if (line := event_line(event, facts.id if several else "")) is not None
        and line.what != "started"  # the running table shows it
    ]
    lines.sort(key=lambda line: line.at)
    header = _header(sweeps, bars, now)
    panel = nodes or NodesPanel()
    return ViewModel(now, header, bars, running, waiting, tuple(lines), panel)


def _bar(facts: SweepFacts, state: SweepState, now: float) -> SweepBar:
    status = sweep_status(facts.num_trials, state)
    counts = Counter(state.counts)
    counts["queued"] += num_unseen(facts, state)
    return SweepBar(
        id=facts.id,
        status=status,
        counts=counts,
        num_trials=counts.total(),
        best=best_value(facts, state),
        metric=facts.metric,
        eta_s=None if is_over(status) else pace.sweep_eta_s(facts.num_trials, state, now),
        saved=pace.saved_share(state),
        budget=budget_use(state, facts.budget_usd, facts.budget_hours, now),
    )


def num_unseen(facts: SweepFacts, state: SweepState) -> int:
    """Trials still to be suggested."""
    return num_to_suggest(facts.num_trials, state) if facts.num_trials else 0


def best_value(facts: SweepFacts, state: SweepState) -> float | None:
    """Best metric among the finished trials."""
    values = [
        value
        for trial in state.trials.values()
        if trial.status == "finished"
        and (value := cells.known(trial.metrics.get(facts.metric))) is not None
    ]
    best = min if facts.direction == "min" else max
    return best(values, default=None)


def _header(sweeps: Watched, bars: Sequence[SweepBar], now: float) -> Header:
    drivers = [
        driver.started
        for _, state in sweeps
        for driver in state.drivers.values()
        if driver.ended is None
    ]
    running = [t for _, state in sweeps for t in state.trials.values() if t.status == "running"]
    silences = [pace.silent_s(trial, now) for trial in running]
    all_silent = bool(silences) and all(silent is not None for silent in silences)
    return Header(
        num_drivers=len(drivers),
        num_nodes=int(_machines(drivers, "num_nodes")) if drivers else None,
        num_cpus=_machines(drivers, "num_cpus") if drivers else None,
        num_gpus=_machines(drivers, "num_gpus") if drivers else None,
        slots=sum(driver.slots for driver in drivers) if drivers else None,
        busy_slots=len(running),
        unit=_unit(sweeps),
        units_per_second=pace.total_rate(running),
        lm_tokens_per_second=pace.language_model_rate(running),
        spent_usd=_spent(sweeps),
        spent_is_estimate=any(
            rests_on_estimate(trial) for _, state in sweeps for trial in state.trials.values()
        ),
        usd_per_hour=_machines(drivers, "usd_per_hour") or None,
        eta_s=max((bar.eta_s for bar in bars if bar.eta_s is not None), default=None),
        silent_s=min((s for s in silences if s is not None), default=None) if all_silent else None,
    )


def _unit(sweeps: Watched) -> str:
    units = {"SAE tokens" if f.job == "sae_train" else f.unit for f, _ in sweeps}
    return units.pop() if len(units) == 1 else "SAE tokens" if not units else "steps"


def _machines(drivers: Sequence[DriverStarted], what: str) -> float:
    """Drivers on one host see the same cluster: count it once."""
    by_host: dict[str, float] = {}
    for driver in drivers:
        by_host[driver.host] = max(by_host.get(driver.host, 0.0), float(getattr(driver, what)))
    return sum(by_host.values())


def _spent(sweeps: Watched) -> float | None:
    """Dollars of device time; None where nobody gave a price."""
    total = sum(trial.usd for _, state in sweeps for trial in state.trials.values())
    priced = any(d.started.usd_per_hour for _, state in sweeps for d in state.drivers.values())
    return total if total or priced else None


def _running_row(facts: SweepFacts, state: SweepState, trial: TrialState, now: float) -> RunningRow:
    next_rung = facts.next_rung(trial.tokens, trial.total_tokens)
    newest = _newest_cutoff(facts, state, trial, next_rung)
    return RunningRow(
        unit=facts.unit,
        sweep=facts.id,
        trial=trial.id,
        parameters=cells.parameter_texts(trial.config, facts.searched),
        place=place_of(trial),
        tokens=trial.tokens,
        total_tokens=trial.total_tokens,
        metric=facts.metric,
        value=cells.known(trial.metrics.get(facts.metric)),
        curve=tuple(cells.known(m.get(facts.metric)) for _, m in trial.history[-CURVE_POINTS:]),
        l0=cells.known(trial.metrics.get("l0")),
        dead_fraction=cells.known(trial.metrics.get("dead_fraction")),
        next_rung=next_rung,
        cutoff=None if newest is None else cells.known(newest.cutoff),
        cutoff_is_forecast=newest is not None and newest.forecast is not None,
        is_upper_bound=facts.direction == "min",
        eta_s=pace.trial_eta_s(trial, now),
        silent_s=pace.silent_s(trial, now),
    )


def place_of(trial: TrialState) -> str:
    """Node and device, as short as they go: `n1 gpu 0`."""
    if trial.started is None:
        return ""
    node = trial.started.node.split(".")[0] if trial.started.node[:1].isalpha() else ""
    return " ".join(part for part in (node or trial.started.node, trial.started.device) if part)


def _newest_cutoff(
    facts: SweepFacts, state: SweepState, trial: TrialState, rung: int | None
) -> Reported | None:
    """The last report at a rung of the trial's stratum that was compared with anyone."""
    if rung is None:
        return None
    stratum = facts.stratum(trial.config, trial.metrics)
    known: list[Reported] = [
        report for report in state.rung(rung, stratum).values() if report.cutoff is not None
    ]
    return max(known, key=lambda report: report.at, default=None)


def _waiting(facts: SweepFacts, state: SweepState) -> list[WaitingRow]:
    if is_over(sweep_status(facts.num_trials, state)):
        return []
    why = why_it_waits(facts, state)
    rows = [
        WaitingRow(
            facts.id,
            trial.id,
            cells.parameters(trial.config, facts.searched),
            "; ".join(part for part in (_own_reason(state, trial), why) if part),
        )
        for trial in state.by_number()
        if trial.status == "queued"
    ]
    unseen = num_unseen(facts, state)
    if unseen:
        rows.append(WaitingRow(facts.id, "", f"{unseen} not suggested yet", why))
    return rows


def _own_reason(state: SweepState, trial: TrialState) -> str:
    """Why this trial waits, beside what all of its sweep wait for."""
    pause = state.controls.pause_of(trial.id)
    if pause is not None:
        return f"paused by {pause.by}" if pause.trial else ""
    return cells.one_line(trial.reason)


def why_it_waits(facts: SweepFacts, state: SweepState) -> str:
    """Why a sweep's trials do not run now; empty when none waits, or they run."""
    waits = state.counts["queued"] + num_unseen(facts, state)
    pause = state.controls.paused
    gone = "" if pause is not None else _why_nobody_answers(facts, state)
    if gone or not waits:
        return gone
    if pause is not None:
        return f"paused by {pause.by}; `saeq resume` goes on"
    unmet = facts.why_unmet() if state.needs_met is None else ""
    if unmet:
        return unmet
    live = [driver for driver in state.drivers.values() if driver.ended is None]
    if not live and state.drivers:
        return "nobody works on it; `saeq serve`, or `saeq run` with its file, goes on"
    if not live:
        return "nobody has begun; `saeq serve`, or `saeq run` with its file, begins"
    slots, running = sum(driver.started.slots for driver in live), state.counts["running"]
    if slots and running >= slots:
        return f"all {slots} slots are busy" if slots > 1 else "the only slot is busy"
    return "a slot is free: about to start" if running else "its driver is starting up"


def _why_nobody_answers(facts: SweepFacts, state: SweepState) -> str:
    """A driver that was killed, with its machine, never ended in the log: only its beat stopped."""
    live = [writer for writer, driver in state.drivers.items() if driver.ended is None]
    silent_s = facts.silent_s(live)
    if silent_s is None or silent_s < SILENT_FROM_S:
        return ""
    who = "its driver" if len(live) == 1 else f"its {len(live)} drivers"
    return (
        f"no sign of life of {who} for {cells.duration(silent_s)}; "
        "`saeq serve`, or `saeq run` with its file, goes on"
    )
