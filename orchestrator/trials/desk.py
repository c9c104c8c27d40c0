"""The desk of one driver: hands out trials under leases, judges their reports, writes the log.

It knows nothing of Ray: the searcher and the scheduler of Tune are thin windows onto it. Every
decision is made from the log, so a driver that starts after a crash, or beside others, decides the
same.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.log.events import (
    Cancelled,
    Checkpointed,
    Closed,
    Diverged,
    DriverEnded,
    Failed,
    Finished,
    Leased,
    Preempted,
    Reported,
    Started,
    Stopped,
    Suggested,
    TrialEvent,
    finite,
)
from orchestrator.log.state import SweepState, TrialState
from orchestrator.log.sweep_log import SweepLog
from orchestrator.spec.sweep import SweepSpec
from orchestrator.stopping import Verdict, judge_guards, judge_standing, stratum_of
from orchestrator.store import Store
from orchestrator.trials.checkpoints import Checkpoints
from orchestrator.trials.leases import Leases

logger = logging.getLogger(__name__)

MAX_DEATHS_WITHOUT_PROGRESS = 20


@dataclass(frozen=True)
class Ticket:
    """The right to run one trial, as it travels through Tune to the trial's actor."""

    sweep: str
    trial: str
    epoch: int
    config: Mapping[str, Any]
    total_tokens: int
    report_points: tuple[int, ...]
    rungs: tuple[int, ...]
    """Where it waits for a verdict; between them it works on while its reports travel."""
    max_members: int

    def to_json(self) -> dict[str, Any]:
        points = {"report_points": [*self.report_points], "rungs": [*self.rungs]}
        return {**vars(self), "config": dict(self.config), **points}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Ticket:
        points = {name: tuple(value[name]) for name in ("report_points", "rungs")}
        return cls(**{**value, **points})


class Done:
    """Nothing to do now and nothing running here: the driver may end."""


class Desk:
    """One driver's view of one sweep."""

    def __init__(
        self, store: Store, sweep: str, spec: SweepSpec, log: SweepLog, max_members: int
    ) -> None:
        self.store, self.sweep, self.spec, self.log = store, sweep, spec, log
        self.max_members = max_members
        assert log.writer is not None
        self.leases = Leases(store, sweep, log.writer.id)
        self.sampler = spec.build_sampler()
        self.held: dict[str, Ticket] = {}
        self.draining = False
        self.allowed: int | None = None
        """Trials that this driver may hold at once, by its share of the machine; None: no limit."""
        self.unusable = ""
        """Why the sweep cannot run here at all (no model, no data)."""

    # Handing out

    def next(self) -> Ticket | Done | None:
        """The next trial to run; None for "not now"; Done when this driver may end."""
        state = self.log.refresh()
        if not self.draining and (self.allowed is None or len(self.held) < self.allowed):
            ticket = self._runnable(state) or self._suggest(state)
            if ticket is not None:
                self.held[ticket.trial] = ticket
                return ticket
        return None if self.held else Done()

    def _runnable(self, state: SweepState) -> Ticket | None:
        """An interrupted trial that nobody holds, lowest number first."""
        for trial in state.by_number():
            if trial.ended or trial.id in self.held or trial.number < 0:
                continue
            if trial.status == "running" and not self._free(trial.holder):
                continue
            ticket = self._lease(trial.id, trial.config, trial.epoch, trial)
            if ticket is not None:
                return ticket
        return None

    def _free(self, holder: str) -> bool:
        """Whether the holder of a lease has gone silent; noted in the log the first time."""
        if not self.leases.is_silent(holder):
            return False
        self.log.append(DriverEnded(driver=holder, reason="silent for 20 s"))
        return True

    def _is_gone(self, holder: str) -> bool:
        return holder in self.log.state.ended_drivers

    def _suggest(self, state: SweepState) -> Ticket | None:
        """A new configuration, claimed by an exclusive create."""
        if state.closed is not None:
            return None
        why = self._budget_spent(state)
        if why is not None:
            self.log.append(Closed(reason=why))
            return None
        while (number := self._next_number(self.log.state)) < self.sampler.total():
            trial = f"t{number:04d}"
            key = self.store.layout.claim(self.sweep, trial)
            config = self.sampler.suggest(number, self.log.state.by_number())
            if not self.store.create_json(key, {"number": number, "config": config}):
                config = self.store.read_json(key)["config"]  # claimed, perhaps never announced
            total = self.spec.kind.total_tokens(self.spec.setup, config)
            self.log.append(
                Suggested(trial=trial, number=number, config=config, total_tokens=total)
            )
            ticket = self._lease(trial, config, 0, None)
            if ticket is not None:
                return ticket
        return None

    def _next_number(self, state: SweepState) -> int:
        return 1 + max((trial.number for trial in state.trials.values()), default=-1)

    def _lease(
        self, trial: str, config: Mapping[str, Any], after_epoch: int, known: TrialState | None
    ) -> Ticket | None:
        epoch = self.leases.take(trial, after_epoch, self._is_gone)
        if epoch is None:
            return None
        self.log.append(Leased(trial=trial, epoch=epoch))
        if self._announce_end(trial, epoch):
            return None
        members = self.max_members
        if known is not None and known.num_out_of_memory:
            members = max(1, members // 2)
        return Ticket(
            sweep=self.sweep,
            trial=trial,
            epoch=epoch,
            config=config,
            total_tokens=self.spec.kind.total_tokens(self.spec.setup, config),
            report_points=tuple(self.spec.report_points(config)),
            rungs=tuple(self.spec.rungs(config)),
            max_members=members,
        )

    def _announce_end(self, trial: str, epoch: int) -> bool:
        """Finish what a dead driver began: it had won the trial's end but not logged it."""
        key = self.store.layout.end(self.sweep, trial)
        if not self.store.backend.exists(key):
            return False
        end = self.store.read_json(key)
        types: dict[str, type[TrialEvent]] = {
            "stopped": Stopped,
            "diverged": Diverged,
            "failed": Failed,
            "finished": Finished,
            "cancelled": Cancelled,
        }
        self.log.append(types[end["event"]].model_validate({**end, "epoch": epoch}))
        Checkpoints(self.store, self.sweep, trial).remove_all()
        return True

    def _budget_spent(self, state: SweepState) -> str | None:
        budget = self.spec.budget
        spent_usd = sum(trial.usd for trial in state.trials.values())
        if budget.usd is not None and spent_usd >= budget.usd:
            return f"budget: ${spent_usd:.2f} of ${budget.usd:.2f} are spent"
        starts = [d.started.at for d in state.drivers.values()]
        hours = (time.time() - min(starts)) / 3600 if starts else 0.0
        if budget.hours is not None and hours >= budget.hours:
            return f"budget: {hours:.2f} of {budget.hours:g} hours are over"
        return None

    # What comes back

    def on_result(self, ticket: Ticket, result: Mapping[str, Any]) -> bool:
        """Take in what a trial's actor said; returns whether the trial goes on."""
        if self.held.get(ticket.trial) != ticket:
            return False
        if not self.leases.holds(ticket.trial, ticket.epoch):
            logger.warning("trial %s: lease %d was lost", ticket.trial, ticket.epoch)
            self._drop(ticket)
            return False
        kind = result["kind"]
        if result.get("checkpoint_tokens") is not None:
            self._append(ticket, Checkpointed, tokens=result["checkpoint_tokens"])
        if kind == "started":
            self._append(ticket, Started, **result["started"])
            return not self.draining
        if kind == "report":
            return self._on_report(ticket, result)
        if kind == "finished":
            self._end(ticket, Finished, **result["finished"])
        elif kind == "failed":
            self._on_failed(ticket, result)
        elif kind == "unusable":
            self.unusable, self.draining = result["reason"], True
            self._on_lost(ticket, result["reason"], process_died=False)
        elif kind in ("preempted", "lost"):
            self._on_lost(ticket, result["reason"], process_died=kind == "lost")
        else:
            raise AssertionError(f"unknown result kind {kind!r}")
        return False

    def _on_report(self, ticket: Ticket, result: Mapping[str, Any]) -> bool:
        spec = self.spec
        state = self.log.refresh()
        trial = state.trials[ticket.trial]
        metrics, tokens = finite(result["metrics"]), result["tokens"]
        report = Reported(
            trial=ticket.trial,
            epoch=ticket.epoch,
            tokens=tokens,
            metrics=metrics,
            busy_seconds=result["busy_seconds"],
            lm_seconds=result.get("lm_seconds", 0.0),
            lm_alone_seconds=result.get("lm_alone_seconds", 0.0),
            rung=self._new_rung(trial, tokens),
            stratum=stratum_of(ticket.config, metrics, spec.strata),
            at_place=result["at"],
        )
        guard = judge_guards(spec.guards, trial.history, report)
        if guard is not None:
            self.log.append(report.model_copy(update={"rung": None}))
            self._end(ticket, Diverged, rule=guard.rule, reason=guard.reason, tokens=tokens)
            return False
        judged = judge_standing(
            spec.early_stop,
            trial,
            report,
            state.trials.values(),
            strata=spec.strata,
            metric=spec.metric,
            direction=spec.direction,
        )
        if judged is None:
            self.log.append(report)
            return not self.draining
        at_rung, verdict = judged
        if report.rung is not None:
            report = at_rung.model_copy(update={"cutoff": verdict.cutoff})
        self.log.append(report)
        if verdict.stop:
            self._stop(ticket, at_rung.rung, verdict, tokens)
        return not (verdict.stop or self.draining)

    def _stop(self, ticket: Ticket, rung: int | None, verdict: Verdict, tokens: int) -> None:
        self._end(
            ticket,
            Stopped,
            rule=verdict.rule,
            rung=rung,
            metric=verdict.metric,
            value=verdict.value,
            cutoff=verdict.cutoff,
            against=verdict.against,
            on_course=verdict.on_course,
            reason=verdict.reason,
            tokens=tokens,
        )

    def _new_rung(self, trial: TrialState, tokens: int) -> int | None:
        """The highest rung that a report stands at and that the trial was not judged at yet."""
        rungs = self.spec.early_stop.rungs(trial.total_tokens)
        rung = max((r for r in rungs if r <= tokens), default=None)
        return None if rung in trial.rungs else rung

    def _on_failed(self, ticket: Ticket, result: Mapping[str, Any]) -> None:
        trial = self.log.state.trials[ticket.trial]
        out_of_memory = bool(result.get("out_of_memory"))
        already = trial.num_failures
        allowed = self.spec.max_failures
        final = bool(result.get("final")) or already + 1 > allowed
        if out_of_memory:
            final = trial.num_out_of_memory >= 1
        fields = {
            "reason": result["reason"],
            "traceback": result.get("traceback", ""),
            "final": final,
            "out_of_memory": out_of_memory,
        }
        if final:
            self._end(ticket, Failed, **fields)
        else:
            self._append(ticket, Failed, **fields)
            self._drop(ticket)

    def _on_lost(self, ticket: Ticket, reason: str, process_died: bool) -> None:
        """Back to the queue, uncounted; unless its process dies again and again in one place."""
        trial = self.log.refresh().trials[ticket.trial]
        safe = trial.checkpoint_tokens
        recent = trial.died_at_tokens[-(MAX_DEATHS_WITHOUT_PROGRESS - 1) :]
        stuck = len(recent) == MAX_DEATHS_WITHOUT_PROGRESS - 1 and set(recent) == {safe}
        if process_died and stuck and not self.draining:
            times = (
                f"its process died {MAX_DEATHS_WITHOUT_PROGRESS} times in a row at {safe} tokens"
            )
            self._end(ticket, Failed, reason=f"{times}; the last time: {reason}", final=True)
            return
        self._append(ticket, Preempted, reason=reason, tokens=safe, process_died=process_died)
        self._drop(ticket)

    def on_lost(self, ticket: Ticket, reason: str, process_died: bool = True) -> None:
        """The trial's actor is gone without a word."""
        if self.held.get(ticket.trial) == ticket and self.leases.holds(ticket.trial, ticket.epoch):
            self._on_lost(ticket, reason, process_died)
        self._drop(ticket)

    def release_all(self, reason: str) -> None:
        """Give every trial still held back to the queue."""
        self.draining = True
        for ticket in list(self.held.values()):
            self.on_lost(ticket, reason, process_died=False)

    # Writing

    def _append(self, ticket: Ticket, kind: type[TrialEvent], **fields: Any) -> None:
        self.log.append(kind(trial=ticket.trial, epoch=ticket.epoch, **fields))

    def _end(self, ticket: Ticket, kind: type[TrialEvent], **fields: Any) -> None:
        """End a trial: the one who creates its end object says how, everybody else repeats it."""
        event = kind(trial=ticket.trial, epoch=ticket.epoch, **fields)
        key = self.store.layout.end(self.sweep, ticket.trial)
        if self.store.create_json(key, event.model_dump(mode="json")):
            self.log.append(event)
        else:
            self._announce_end(ticket.trial, ticket.epoch)
        self._drop(ticket)
        Checkpoints(self.store, self.sweep, ticket.trial).remove_all()

    def _drop(self, ticket: Ticket) -> None:
        if self.held.get(ticket.trial) == ticket:
            del self.held[ticket.trial]
