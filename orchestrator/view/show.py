"""`saeq show`: one sweep, or one trial with all that happened to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.text import Text

from orchestrator.log.events import AnyEvent, TrialEvent
from orchestrator.log.find_trial import UnknownTrial as UnknownTrial
from orchestrator.log.find_trial import find_trial as find_trial
from orchestrator.log.state import DriverState, SweepState, TrialState
from orchestrator.log.sweep_status import sweep_status
from orchestrator.money.node_price import rests_on_estimate
from orchestrator.view import cells
from orchestrator.view.columns import Column, table_lines
from orchestrator.view.event_lines import EventLine, day_time, event_line
from orchestrator.view.facts import SweepFacts
from orchestrator.view.marks import counts_legend, status_bar, status_text, style_of
from orchestrator.view.model import best_value, num_unseen, place_of, why_it_waits

HISTORY_ROWS = 12
SHOWN_METRICS = ("fvu", "l0", "dead_fraction", "loss", "explained_variance", "ce_recovered")


# A sweep


def sweep_json(facts: SweepFacts, state: SweepState) -> dict[str, Any]:
    """As documented for `saeq show ID --json`."""
    counts = _counts(facts, state)
    return {
        "sweep": facts.id,
        "job": facts.job,
        "state": sweep_status(facts.num_trials, state),
        "counts": {name: count for name, count in counts.items() if count},
        "metric": facts.metric,
        "direction": facts.direction,
        "strata": list(facts.strata),
        "searched": list(facts.searched),
        "sampler": facts.sampler,
        "scheduler": facts.scheduler,
        "best": best_value(facts, state),
        "setup": dict(facts.setup),
        "submitted_at": facts.submitted_at,
        "priority": facts.priority if state.priority is None else state.priority,
        "closed": state.closed.reason if state.closed is not None else None,
        "drivers": [_driver_json(driver) for driver in _drivers(state)],
        "trials": [trial.id for trial in state.by_number()],
    }


def _counts(facts: SweepFacts, state: SweepState) -> dict[str, int]:
    counts = dict(state.counts)
    counts["queued"] = counts.get("queued", 0) + num_unseen(facts, state)
    return counts


def _drivers(state: SweepState) -> list[DriverState]:
    return sorted(state.drivers.values(), key=lambda driver: driver.started.at)


def _driver_json(driver: DriverState) -> dict[str, Any]:
    return {
        "driver": driver.id,
        "host": driver.started.host,
        "pid": driver.started.pid,
        "slots": driver.started.slots,
        "started_at": driver.started.at,
        "ended_at": driver.ended.at if driver.ended is not None else None,
        "reason": driver.ended.reason if driver.ended is not None else None,
    }


def sweep_page(
    facts: SweepFacts, state: SweepState, width: int | None, *, ascii_only: bool = False
) -> list[Text]:
    """A sweep: what was asked for, how far it is, who worked on it."""
    status = sweep_status(facts.num_trials, state)
    counts = _counts(facts, state)
    bar_width = min(width or 80, 80)
    why = (
        why_it_waits(facts, state)
        if status in ("queued", "running", "interrupted", "paused")
        else ""
    )
    lines = [
        Text.assemble((cells.one_line(facts.id), "bold"), "  ", status_text(status)),
        status_bar(counts, bar_width, ascii_only=ascii_only),
        Text("   ").join(counts_legend(counts, ascii_only=ascii_only)),
        *([Text(f"waits: {why}")] if why else []),
        Text(""),
        *_pairs({**_asked(facts), **_reached(facts, state)}, width),
    ]
    if state.drivers:
        lines += [Text(""), Text("drivers", style="bold"), *_driver_lines(state, width, ascii_only)]
    return lines


def _asked(facts: SweepFacts) -> dict[str, str]:
    budget = [
        *([cells.usd(facts.budget_usd)] if facts.budget_usd is not None else []),
        *([f"{facts.budget_hours:g} h"] if facts.budget_hours is not None else []),
    ]
    return {
        "job": facts.job,
        **{name: _short(value) for name, value in facts.setup.items() if _says(value)},
        "search": f"{facts.num_trials} trials, {facts.sampler or '-'} over "
        + (", ".join(facts.searched) or "nothing"),
        "early stop": f"{facts.scheduler or '-'} by {facts.metric} ({facts.direction}), strata: "
        + (", ".join(facts.strata) or "the whole sweep"),
        **({"budget": " or ".join(budget)} if budget else {}),
    }


def _reached(facts: SweepFacts, state: SweepState) -> dict[str, str]:
    reached = {f"best {facts.metric}": cells.number(best_value(facts, state))}
    return {**reached, "closed": state.closed.reason} if state.closed is not None else reached


def _says(value: Any) -> bool:
    return value is not False and value not in (None, "", [], {})


def _short(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name}={_short(part)}" for name, part in value.items() if _says(part))
    if isinstance(value, list | tuple):
        return ", ".join(_short(part) for part in value)
    return cells.parameter(value) if isinstance(value, float) else cells.one_line(value)


def _pairs(pairs: Mapping[str, str], width: int | None) -> list[Text]:
    columns = [
        Column("", [Text(cells.one_line(name), style="bright_black") for name in pairs]),
        Column("", [cells.one_line(value) for value in pairs.values()], shrinks_to=20),
    ]
    return table_lines(columns, width, titled=False)


def _driver_lines(state: SweepState, width: int | None, ascii_only: bool) -> list[Text]:
    drivers = _drivers(state)
    columns = [
        Column("driver", [cells.one_line(driver.id) for driver in drivers]),
        Column("on", [f"{cells.one_line(d.started.host)}:{d.started.pid}" for d in drivers], 3),
        Column("slots", [str(driver.started.slots) for driver in drivers], 4, right=True),
        Column("from", [day_time(driver.started.at) for driver in drivers], 2),
        Column("to", [day_time(d.ended.at) if d.ended else "now" for d in drivers], 1),
        Column("why it ended", [cells.one_line(d.ended.reason) if d.ended else "" for d in drivers],
               1, shrinks_to=16),
    ]  # fmt: skip
    return table_lines(columns, width, ascii_only=ascii_only)


# A trial


def trial_json(
    facts: SweepFacts, trial: TrialState, artefact_path: str | None, checkpoints: Sequence[str]
) -> dict[str, Any]:
    """As documented for `saeq show ID TRIAL --json`."""
    return {
        "sweep": facts.id,
        "trial": trial.id,
        "number": trial.number,
        "state": trial.status,
        "config": dict(trial.config),
        "stratum": facts.stratum(trial.config, trial.metrics),
        "tokens": trial.tokens,
        "total_tokens": trial.total_tokens,
        "metrics": _finite(trial.metrics),
        "history": [{"tokens": tokens, "metrics": _finite(m)} for tokens, m in trial.history],
        "rungs": [_rung_json(facts, trial, rung) for rung in sorted(trial.rungs)],
        "lease": {"epoch": trial.epoch, "holder": trial.holder},
        "preemptions": trial.num_preemptions,
        "failures": trial.num_failures,
        "checkpoint_tokens": trial.checkpoint_tokens,
        "checkpoints": list(checkpoints),
        "reason": trial.reason,
        "traceback": trial.traceback,
        "artefact": trial.artefact,
        "path": artefact_path,
        "seconds": round(trial.busy_seconds, 3),
        "usd": round(trial.usd, 6),
    }


def _finite(metrics: Mapping[str, Any]) -> dict[str, float | None]:
    return {name: cells.known(value) for name, value in metrics.items()}


def _rung_json(facts: SweepFacts, trial: TrialState, rung: int) -> dict[str, Any]:
    report = trial.rungs[rung]
    return {
        "rung": rung,
        "value": cells.known(report.metrics.get(facts.metric)),
        "forecast": cells.known(report.forecast),
        "cutoff": cells.known(report.cutoff),
        "stratum": report.stratum,
        "verdict": "stopped" if _was_stopped_at(trial, rung) else "went on",
    }


def _was_stopped_at(trial: TrialState, rung: int) -> bool:
    return trial.stop is not None and trial.status == "stopped" and trial.stop.rung == rung


def trial_page(
    facts: SweepFacts,
    trial: TrialState,
    events: Sequence[AnyEvent],
    artefact_path: str | None,
    width: int | None,
    *,
    ascii_only: bool = False,
) -> list[Text]:
    """A trial: configuration, learning curve, rungs, what happened, how it ended."""
    lines = [
        Text.assemble(
            (f"{cells.one_line(facts.id)}/{cells.one_line(trial.id)}", "bold"),
            "  ",
            status_text(trial.status),
            f"  {cells.one_line(trial.reason)}",
        ),
        *_pairs({name: _short(value) for name, value in trial.config.items()}, width),
        Text(""),
        *_pairs(_standing(facts, trial, artefact_path), width),
    ]
    if trial.history:
        lines += [Text(""), Text("history", style="bold"), *_history(trial, width, ascii_only)]
    if trial.rungs:
        lines += [Text(""), Text("rungs", style="bold"), *_rungs(facts, trial, width, ascii_only)]
    happened = _happened(trial, events)
    if happened:
        lines += [Text(""), Text("events", style="bold"), *_event_lines(happened, width)]
    if trial.traceback:
        lines += [Text(""), Text("traceback", style="bold")]
        lines += [Text(cells.one_line_kept(line)) for line in trial.traceback.splitlines()]
    return lines


def _standing(facts: SweepFacts, trial: TrialState, path: str | None) -> dict[str, str]:
    saved = f"{cells.tokens(trial.checkpoint_tokens)} tokens" if trial.checkpoint_tokens else "-"
    pairs = {
        "stratum": facts.stratum(trial.config, trial.metrics),
        "tokens": f"{cells.tokens(trial.tokens)} of {cells.tokens(trial.total_tokens)}",
        "lease": f"{trial.epoch} held by {trial.holder}" if trial.epoch else "-",
        "place": place_of(trial) or "-",
        "checkpoint": saved,
        "preempted": _times(trial.num_preemptions),
        "failed": _times(trial.num_failures),
        "device time": cells.duration(trial.busy_seconds or None),
        "lost": _lost(trial),
        "cost": cells.usd(trial.usd or None, is_estimate=rests_on_estimate(trial)),
        "price": _price(trial),
        "artefact": trial.artefact or "",
        "path": path or "",
    }
    return {name: value for name, value in pairs.items() if value}


def _lost(trial: TrialState) -> str:
    """Device time that was spent twice."""
    seconds = sum(one.lost_seconds for one in trial.epoch_times)
    return cells.duration(seconds) + " done again" if seconds > 0 else ""


def _price(trial: TrialState) -> str:
    """What an hour of its last device costs, and who says so."""
    priced = [one for one in trial.epoch_times if one.price_source]
    if not priced:
        return ""
    source = cells.one_line(priced[-1].price_source)
    return f"{cells.usd(priced[-1].usd_per_hour)} an hour ({source})"


def _times(count: int) -> str:
    return "" if not count else "once" if count == 1 else f"{count} times"


def _history(trial: TrialState, width: int | None, ascii_only: bool) -> list[Text]:
    shown = trial.history[-HISTORY_ROWS:]
    occurring = list(dict.fromkeys(name for _, metrics in shown for name in metrics))
    first = [name for name in SHOWN_METRICS if name in occurring]
    names = first + [name for name in occurring if name not in first]
    columns = [
        Column("tokens", [cells.tokens(tokens) for tokens, _ in shown], right=True),
        *(
            Column(
                cells.one_line(name),
                [cells.number(metrics.get(name)) for _, metrics in shown],
                rank + 1,
                right=True,
            )
            for rank, name in enumerate(names)
        ),
    ]
    lines = table_lines(columns, width, ascii_only=ascii_only)
    hidden = len(trial.history) - len(shown)
    return [*lines, *([Text(f"({hidden} earlier reports)", "bright_black")] if hidden else [])]


def _rungs(facts: SweepFacts, trial: TrialState, width: int | None, ascii_only: bool) -> list[Text]:
    rungs = [_rung_json(facts, trial, rung) for rung in sorted(trial.rungs)]
    columns = [
        Column("rung", [cells.tokens(rung["rung"]) for rung in rungs], right=True),
        Column(facts.metric, [cells.number(rung["value"]) for rung in rungs], right=True),
        Column("heading for", [cells.number(rung["forecast"]) for rung in rungs], right=True),
        Column("cutoff", [cells.number(rung["cutoff"]) for rung in rungs], right=True),
        Column("stratum", [cells.one_line(rung["stratum"] or "-") for rung in rungs], 1),
        Column("verdict", [status_text(rung["verdict"]) for rung in rungs]),
    ]
    return table_lines(columns, width, ascii_only=ascii_only)


def _happened(trial: TrialState, events: Sequence[AnyEvent]) -> list[EventLine]:
    """The trial's events in the log's own order: by lease, then by sequence."""
    own = [event for event in events if isinstance(event, TrialEvent) and event.trial == trial.id]
    own.sort(key=lambda event: (event.epoch, event.seq, event.writer))
    return [line for event in own if (line := event_line(event)) is not None]


def _event_lines(events: Sequence[EventLine], width: int | None) -> list[Text]:
    columns = [
        Column("", [Text(event.clock, style="bright_black") for event in events]),
        Column("", [Text(event.what, style=style_of(event.what)) for event in events]),
        Column("", [event.text for event in events], shrinks_to=20),
    ]
    return table_lines(columns, width, titled=False)
