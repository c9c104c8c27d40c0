"""The desk of one driver: hands out trials under leases, judges their reports, writes the log.

It knows nothing of Ray: the searcher and the scheduler of Tune are thin windows onto it. Every
decision is made from the log, so a driver that starts after a crash, or beside others, decides the
same. All of it runs in Tune's thread but what is said to be for others.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any

from orchestrator.control.current_spec import CurrentSpec
from orchestrator.log.events import (
    BudgetWarned,
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
from orchestrator.money.budget import BUDGET_RULE, BudgetUse, budget_use
from orchestrator.spec.sweep import SweepSpec
from orchestrator.stopping import Verdict, judge_guards, judge_standing, stratum_of
from orchestrator.store import Store
from orchestrator.trials.ends import Ends
from orchestrator.trials.leases import Leases
from orchestrator.trials.ticket import Ticket as Ticket
from orchestrator.trials.time_left import TimeLeft

logger = logging.getLogger(__name__)

MAX_DEATHS_WITHOUT_PROGRESS = 20
UNUSABLE = "the sweep cannot run here now"
NOWHERE: Mapping[str, str] = {}


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
        self.ends = Ends(store, sweep, log)
        self.sampler = spec.build_sampler()
        self._current_spec = CurrentSpec(store, sweep, spec)
        self.held: dict[str, Ticket] = {}
        self.draining = False
        """Nothing more is handed out, and what comes back goes to the queue. For others too."""
        self.asked_back = False
        """Trials were told to save and come back: a report on its way ends none before it has."""
        self.allowed: int | None = None
        """Trials that this driver may hold at once, by its share of the machine; None: no limit."""
        self.time_left = TimeLeft()
        """Until this driver is asked to stop: what cannot be saved by then is not begun."""
        self.unusable = ""
        """Why the sweep cannot run here at all (no model, no data)."""

    # Handing out

    def next(self) -> Ticket | Done | None:
        """The next trial to run; None for "not now"; Done when this driver may end."""
        state = self.log.refresh()
        self._take_over_changes(state)
        if self._may_hand_out(state):
            ticket = self._runnable(state) or self._suggest(state)
            if ticket is not None:
                self.held[ticket.trial] = ticket
                return ticket
        return None if self.held else Done()

    def _take_over_changes(self, state: SweepState) -> None:
        """What was asked for, or said of this driver, since it last looked."""
        spec = self._current_spec.look(state)
        if spec != self.spec:
            logger.info("the sweep was extended: its spec is taken over")
            self.spec, self.sampler = spec, spec.build_sampler()
        if self.leases.holder in state.ended_drivers and not self.draining:
            logger.warning("this driver was taken for dead: leaving its trials to others")
            self.draining = True

    def _may_hand_out(self, state: SweepState) -> bool:
        if self.draining or (self.spec.needs and state.needs_met is None):
            return False
        has_room = self.allowed is None or len(self.held) < self.allowed
        return has_room and not self.time_left.is_short(state)

    def _runnable(self, state: SweepState) -> Ticket | None:
        """An interrupted trial that nobody holds and nobody paused, lowest number first."""
        for trial in state.by_number():
            if trial.ended or trial.id in self.held or trial.number < 0:
                continue
            if state.controls.pause_of(trial.id) is not None and not state.cancelled_by:
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
        if state.closed is not None or state.controls.paused is not None:
            return None
        why = self._budget(state).spent
        if why is not None:
            self.log.append(Closed(reason=why, order=state.controls.max_order))
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
        total = self.spec.kind.total_tokens(self.spec.setup, config)
        life = known.life if known is not None else 0
        self.log.append(Leased(trial=trial, epoch=epoch, life=life, total_tokens=total))
        by = self.log.state.cancelled_by
        is_over = self.ends.announce(trial, epoch, life)
        if by and not is_over:
            self.ends.decide(Cancelled(trial=trial, epoch=epoch, life=life, by=by))
        if by or is_over:
            self.ends.clear_up(trial)
            return None
        members = self.max_members
        if known is not None and known.num_out_of_memory:
            members = max(1, members // 2)
        return Ticket(
            sweep=self.sweep,
            trial=trial,
            epoch=epoch,
            config=config,
            total_tokens=total,
            report_points=tuple(self.spec.report_points(config)),
            rungs=tuple(self.spec.rungs(config)),
            max_members=members,
            life=life,
            inputs=met.artefacts if (met := self.log.state.needs_met) is not None else (),
        )

    def _budget(self, state: SweepState) -> BudgetUse:
        """What is used of the budget; somebody is told once when it comes near its end."""
        limits = self.spec.budget
        use = budget_use(state, limits.usd, limits.hours, time.time(), {self.leases.holder})
        if use.warning is not None and state.budget_warned is None:
            self.log.append(BudgetWarned(reason=use.warning))
        return use

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
            saved = {"busy_seconds": result.get("checkpoint_busy_seconds")}
            self._append(ticket, Checkpointed, tokens=result["checkpoint_tokens"], **saved)
        if kind != "finished" and self._ended_meanwhile(ticket):
            return False
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
            self._on_lost(ticket, UNUSABLE, process_died=False)  # the driver's end says why, once
        elif kind in ("preempted", "lost"):
            self._on_lost(ticket, result["reason"], kind == "lost", _place(result))
        else:
            raise AssertionError(f"unknown result kind {kind!r}")
        return False

    def _ended_meanwhile(self, ticket: Ticket) -> bool:
        """Whether somebody else ended it: by a cancel of the trial, or of its whole sweep."""
        state = self.log.refresh()
        trial = state.trials[ticket.trial]
        if not trial.ended and trial.life == ticket.life:
            if not state.cancelled_by:
                return False
            self._end(ticket, Cancelled, by=state.cancelled_by)
        self._drop(ticket)
        self.ends.clear_up(ticket.trial)
        return True

    def _on_report(self, ticket: Ticket, result: Mapping[str, Any]) -> bool:
        spec = self.spec
        state = self.log.state
        trial = state.trials[ticket.trial]
        metrics, tokens = finite(result["metrics"]), result["tokens"]
        report = Reported(
            trial=ticket.trial,
            epoch=ticket.epoch,
            life=ticket.life,
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
        at_rung, verdict = judged or (report, None)
        if verdict is not None and report.rung is not None:
            report = at_rung.model_copy(update={"cutoff": verdict.cutoff})
        self.log.append(report)
        if verdict is not None and verdict.stop:
            self._stop(ticket, at_rung.rung, verdict, tokens)
            return False
        leaves = self.draining and not self.asked_back
        return not (self._stop_for_budget(ticket, report) or leaves)

    def _stop_for_budget(self, ticket: Ticket, report: Reported) -> bool:
        """With the budget spent, a trial goes as far as its next rung, or its end."""
        spent = self._budget(self.log.state).spent
        if spent is None or report.rung is None or report.tokens >= ticket.total_tokens:
            return False
        name = self.spec.metric
        value = report.metrics.get(name)
        verdict = Verdict(True, BUDGET_RULE, name, value, None, 0, False, spent)
        self._stop(ticket, report.rung, verdict, report.tokens)
        return True

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
            **_place(result),
        }
        if final:
            self._end(ticket, Failed, **fields)
        else:
            self._append(ticket, Failed, **fields)
            self._drop(ticket)

    def _on_lost(
        self, ticket: Ticket, reason: str, process_died: bool, place: Mapping[str, str] = NOWHERE
    ) -> None:
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
        fields = {"reason": reason, "tokens": safe, "process_died": process_died, **place}
        self._append(ticket, Preempted, **fields)
        self._drop(ticket)

    def on_lost(self, ticket: Ticket, reason: str, process_died: bool = True) -> None:
        """The trial's actor is gone without a word."""
        is_held = self.held.get(ticket.trial) == ticket
        is_held = is_held and self.leases.holds(ticket.trial, ticket.epoch)
        if is_held and not self._ended_meanwhile(ticket):
            self._on_lost(ticket, reason, process_died and not self.draining)
        self._drop(ticket)

    def release_all(self, reason: str) -> None:
        """Give every trial still held back to the queue."""
        self.draining = True
        for ticket in list(self.held.values()):
            self.on_lost(ticket, reason, process_died=False)

    # Writing

    def _append(self, ticket: Ticket, kind: type[TrialEvent], **fields: Any) -> None:
        about = {"trial": ticket.trial, "epoch": ticket.epoch, "life": ticket.life}
        self.log.append(kind(**about, **fields))

    def _end(self, ticket: Ticket, kind: type[TrialEvent], **fields: Any) -> None:
        """End a trial."""
        about = {"trial": ticket.trial, "epoch": ticket.epoch, "life": ticket.life}
        self.ends.decide(kind(**about, **fields))
        self._drop(ticket)
        self.ends.clear_up(ticket.trial)

    def _drop(self, ticket: Ticket) -> None:
        if self.held.get(ticket.trial) == ticket:
            del self.held[ticket.trial]

    # For other threads

    def tickets(self) -> list[Ticket]:
        """What is held now."""
        return list(self.held.copy().values())


def _place(result: Mapping[str, Any]) -> dict[str, str]:
    """Host and device that a result came from, where it says so."""
    return {name: str(result[name]) for name in ("host", "device") if result.get(name)}
