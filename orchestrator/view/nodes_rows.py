"""The machines of a store as rows: how each stands, what it has, why it does not work."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import ValidationError

from orchestrator.log.events import Reported, Started
from orchestrator.log.state import SweepState
from orchestrator.log.sweep_status import is_over, sweep_status
from orchestrator.money.node_price import PRICE_LABEL
from orchestrator.nodes.health import NodeHealth, WaitingWork, health_of, in_words
from orchestrator.nodes.probe_report import ProbeReport
from orchestrator.nodes.quarantine import HostStanding, hosts_kept_out
from orchestrator.nodes.records import NodeRecord, NodeSide, read_nodes
from orchestrator.nodes.stages import Mark
from orchestrator.store import Store
from orchestrator.view import cells
from orchestrator.view.facts import SweepFacts
from orchestrator.view.model import num_unseen

HIDDEN_AFTER_S = 24 * 3600.0
REPLACED_AFTER_S = 600.0
RAY_NODE = "ray-"
"""Begins the id of a node of a Ray cluster; the beginning of Ray's own id follows."""
WHERE_LABELS = (
    ("saeq-instance-type", "instance-type"),
    ("partition",),
    ("saeq-zone", "ray.io/availability-zone", "zone"),
    ("saeq-market-type", "ray.io/market-type"),
    ("job",),
    ("ssh-target",),
)


@dataclass(frozen=True)
class NodesSnapshot:
    """What the store said of nodes at one time."""

    records: Sequence[NodeRecord] = ()
    kept_out: Sequence[HostStanding] = ()

    @classmethod
    def read(cls, store: Store) -> NodesSnapshot:
        """Raises StoreError."""
        return cls(read_nodes(store), hosts_kept_out(store))


@dataclass(frozen=True)
class NodeRow:
    """One node in `saeq nodes`."""

    id: str
    kind: str
    host: str
    health: NodeHealth
    where: str
    """Type or partition, zone, market, job: what its labels say."""
    devices: str
    slots: int
    """Trials that it holds."""
    sweeps: tuple[str, ...]
    usd_per_hour: float | None
    heard_s: float | None
    """Since it last wrote; None: it has not written yet."""
    says: str
    """Its own word: `serving`, `draining: spot notice, 110 s`."""
    kept_out: str
    """Why its host is in quarantine; empty: it is not."""
    labels: Mapping[str, str]
    marks: tuple[Mark, ...]
    probe: Mapping[str, Any]

    @property
    def why(self) -> str:
        """What a person should know; empty while all is well."""
        health = self.health
        if health.failure is not None:
            return health.failure.why
        if health.silent_s is not None:
            return f"silent for {in_words(health.silent_s)}"
        if health.overdue:
            return health.overdue
        if self.kept_out and health.state != "ended":
            return f"its host is in quarantine: {self.kept_out}"
        is_plain = self.says in ("serving", "idle", "", health.state)
        return "" if is_plain or health.state == "ended" else self.says

    @property
    def tail(self) -> str:
        """Last lines of the log that tells more."""
        return self.health.failure.tail if self.health.failure is not None else ""

    def to_json(self, now: float) -> dict[str, Any]:
        """As documented for `saeq nodes --json`."""
        health = self.health
        return {
            "node": self.id,
            "kind": self.kind,
            "host": self.host,
            "state": health.state,
            "stage": health.stage,
            "stage_age_seconds": None if health.since is None else round(now - health.since, 3),
            "waits_for": health.waits_for,
            "overdue": health.overdue,
            "why": self.why,
            "tail": self.tail,
            "quarantine": self.kept_out,
            "heard_seconds": None if self.heard_s is None else round(self.heard_s, 3),
            "says": self.says,
            "slots": self.slots,
            "sweeps": list(self.sweeps),
            "usd_per_hour": self.usd_per_hour,
            "devices": self.devices,
            "labels": dict(self.labels),
            "marks": [asdict(mark) for mark in self.marks],
            "probe": dict(self.probe),
        }


def node_rows(
    snapshot: NodesSnapshot,
    sweeps: Sequence[tuple[SweepFacts, SweepState]],
    now: float,
    *,
    every: bool = False,
) -> list[NodeRow]:
    """Those that matter now; the ones that need a look and work come first.

    Args:
        sweeps: those that are not over: what waits in them, and what nodes of a cluster did.
        now: seconds since 1970.
        every: also the ended, the replaced, and those not heard of for a day.
    """
    work = waiting_work(sweeps)
    told = [_with_trials(record, sweeps) for record in snapshot.records]
    why_by_host = {standing.host: standing.why for standing in snapshot.kept_out}
    rows = [_row(record, health_of(record, now, work), why_by_host, now) for record in told]
    shown = rows if every else [row for row in rows if not _is_past(row, rows)]
    order = ("working", "draining", "ready", "starting", "waiting", "failed", "silent", "ended")
    return sorted(shown, key=lambda row: (order.index(row.health.state), row.host, row.id))


def _row(
    record: NodeRecord, health: NodeHealth, why_by_host: Mapping[str, str], now: float
) -> NodeRow:
    side = record.newest
    return NodeRow(
        id=cells.one_line(record.id),
        kind=side.kind or (record.starter.kind if record.starter else ""),
        host=cells.one_line(record.host),
        health=health,
        where=_where(record.labels),
        devices=_devices(side, record.labels),
        slots=side.slots,
        sweeps=tuple(side.sweeps),
        usd_per_hour=_usd_per_hour(record.labels),
        heard_s=max(now - side.at, 0.0) if side.at else None,
        says=cells.one_line(side.state),
        kept_out=why_by_host.get(record.host, ""),
        labels=record.labels,
        marks=tuple(record.marks),
        probe=record.itself.probe if record.itself else {},
    )


def _is_past(row: NodeRow, rows: Iterable[NodeRow]) -> bool:
    """Whether it is of no interest any more: gone for long, or another took its place."""
    state, heard_s = row.health.state, row.heard_s or 0.0
    if state == "ended":
        return True
    if state not in ("failed", "silent"):
        return False
    if heard_s > HIDDEN_AFTER_S:
        return True
    newer = (r for r in rows if r is not row and r.host == row.host and r.kind == row.kind)
    replaced = any((r.heard_s or 0.0) < heard_s and r.health.state != "ended" for r in newer)
    is_old = state == "failed" or heard_s > REPLACED_AFTER_S
    return row.kind == "serve" and replaced and is_old


# What the cells say


def _where(labels: Mapping[str, str]) -> str:
    words = []
    for names in WHERE_LABELS:
        value = next((labels[name] for name in names if labels.get(name)), "")
        if value:
            words.append(("job " if names == ("job",) else "") + cells.one_line(value))
    return " ".join(words)


def _devices(side: NodeSide, labels: Mapping[str, str]) -> str:
    report = _report(side)
    if report is None:
        gpus = labels.get("gpus", "")
        return f"{gpus} GPU{'' if gpus == '1' else 's'}" if gpus.isdigit() and gpus != "0" else ""
    if report.gpus:
        return cells.one_line(report.summary.replace("NVIDIA ", ""))
    return "1 core" if report.cores == 1 else f"{report.cores} cores"


def _report(side: NodeSide) -> ProbeReport | None:
    try:
        return ProbeReport.model_validate(side.probe) if side.probe else None
    except ValidationError:
        return None  # a newer saeq's


def _usd_per_hour(labels: Mapping[str, str]) -> float | None:
    try:
        return cells.known(float(labels.get(PRICE_LABEL, "")))
    except ValueError:
        return None


# What the logs say


def waiting_work(sweeps: Iterable[tuple[SweepFacts, SweepState]]) -> WaitingWork:
    """Trials that could be begun or gone on with at once, if anybody took them."""
    trials, since = 0, []
    for facts, state in sweeps:
        count = _num_waiting(facts, state)
        if count:
            trials += count
            ended = (driver.at for driver in state.ended_drivers.values())
            since.append(max([facts.submitted_at or 0.0, *ended]))
    return WaitingWork(trials, min(since, default=None))


def _num_waiting(facts: SweepFacts, state: SweepState) -> int:
    if is_over(sweep_status(facts.num_trials, state)):
        return 0
    if state.needs_met is None and facts.why_unmet():
        return 0
    pause_of = state.controls.pause_of
    queued = sum(t.status == "queued" and not pause_of(t.id) for t in state.trials.values())
    return queued + (0 if state.controls.paused else num_unseen(facts, state))


def _with_trials(record: NodeRecord, sweeps: Iterable[tuple[SweepFacts, SweepState]]) -> NodeRecord:
    """A node of a Ray cluster takes no trials itself: the log says which ones ran on it."""
    itself = record.itself
    if itself is None or itself.kind != "cluster":
        return record
    known = itself.id.removeprefix(RAY_NODE) if itself.id.startswith(RAY_NODE) else ""
    prefix = itself.labels.get("ray.io/node-id") or known
    started: list[float] = []
    reported: list[float] = []
    running = 0
    for _, state in sweeps:
        for trial in state.trials.values():
            here = [
                event
                for event in state.events_of(trial.id)
                if isinstance(event, Started) and event.node_id.startswith(prefix)
            ]
            if not (prefix and here):
                continue
            leases = {(event.life, event.epoch) for event in here}
            started += [event.at for event in here]
            reported += [
                event.at
                for event in state.events_of(trial.id)
                if isinstance(event, Reported) and (event.life, event.epoch) in leases
            ]
            running += trial.status == "running" and trial.started in here
    if not started:
        return record
    marks = [mark for mark in itself.marks if mark.stage not in ("lease", "report")]
    marks.append(Mark("lease", min(started), itself.host))
    marks += [Mark("report", min(reported), itself.host)] if reported else []
    told = itself.model_copy(update={"marks": tuple(marks), "slots": running or itself.slots})
    return record.model_copy(update={"itself": told})
