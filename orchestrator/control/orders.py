"""What people may ask of a sweep that is queued or runs, checked, recorded in its log, and told.

Whoever drives the sweep, on whatever machine, reads the log every second and goes by it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from orchestrator.log.author import author
from orchestrator.log.events import (
    Cancelled,
    Closed,
    Paused,
    Prioritised,
    Reopened,
    Resumed,
    Retried,
)
from orchestrator.log.find_trial import find_trial
from orchestrator.log.state import SweepState, TrialState
from orchestrator.log.sweep_log import LogWriter, SweepLog
from orchestrator.log.sweep_status import SweepStatus, is_over, num_to_suggest, sweep_status
from orchestrator.queue import Queue
from orchestrator.spec.sweep import SweepSpec
from orchestrator.store import Store
from orchestrator.trials.checkpoints import Checkpoints
from orchestrator.trials.ends import Ends

MAX_PRIORITY = 1_000_000


class OrderRefused(ValueError):
    """Nothing was changed: the message says the rule, what stands against it, and the way out."""


@dataclass(frozen=True)
class Done:
    """What an order did."""

    sweep: str
    what: str
    """`cancelled`, `paused`, `resumed`, `retried`, `priority`, `extended`."""
    trials: tuple[str, ...]
    """The trials it touches."""
    said: str
    """The same in one line for people."""


class Orders:
    """Gives orders about one sweep. Every method raises OrderRefused for what makes no sense.

    Args:
        by: who gives them; not given: user@host of this process.

    Raises:
        UnknownSweep: it is not in the store.
    """

    def __init__(self, store: Store, sweep: str, by: str | None = None) -> None:
        self.store, self.sweep = store, sweep
        self.spec: SweepSpec = Queue(store).get(sweep).spec
        self.by = by or author()
        self.log = SweepLog(store, sweep, LogWriter(store, sweep, role="control"))
        self.state: SweepState = self.log.refresh()

    @property
    def status(self) -> SweepStatus:
        """Where the sweep stands."""
        return sweep_status(self.spec.trials, self.state)

    def next_order(self) -> int:
        """The number that makes an order outrank all that were seen."""
        return self.log.refresh().controls.max_order + 1

    def find(self, names: Iterable[str]) -> list[TrialState]:
        """Trials by id or number, each once. Raises UnknownTrial."""
        found = [find_trial(self.sweep, name, self.state) for name in names]
        return list({trial.id: trial for trial in found}.values())

    # Cancel

    def cancel(self, trials: Sequence[str] = ()) -> Done:
        """End a sweep, or some of its trials; what has ended is kept as it is."""
        self.refuse_cancel(trials)
        return self._cancel_trials(self.find(trials)) if trials else self._cancel_sweep()

    def refuse_cancel(self, trials: Sequence[str] = ()) -> None:
        """Raise OrderRefused for what cannot be cancelled; changes nothing."""
        if not trials and is_over(self.status):
            self._refuse_over("there is nothing to cancel")
        over = [trial for trial in self.find(trials) if trial.ended]
        if over:
            raise OrderRefused(
                f"only a trial that has not ended can be cancelled; {_have_ended(over)}; "
                "leave it out"
            )

    def _cancel_sweep(self) -> Done:
        reason, order = f"cancelled by {self.by}", self.next_order()
        # First the closing: who suggests after it ends what it suggested by itself.
        self.log.append(Closed(reason=reason, by=self.by, order=order))
        self.state = self.log.refresh()
        alive = [trial for trial in self.state.by_number() if not trial.ended]
        num_kept = self.state.counts["finished"]
        ended = self._end_all(alive)
        kept = f"; kept {_trials(num_kept)} that finished" if num_kept else ""
        said = f"sweep {self.sweep}: cancelled, {_trials(len(ended))} ended{kept}"
        return Done(self.sweep, "cancelled", tuple(ended), said)

    def _cancel_trials(self, trials: Sequence[TrialState]) -> Done:
        ended = self._end_all(trials)
        missed = [trial.id for trial in trials if trial.id not in ended]
        beside = f"; {', '.join(missed)} ended by itself just before" if missed else ""
        said = f"sweep {self.sweep}: cancelled {', '.join(ended) or 'nothing'}{beside}"
        return Done(self.sweep, "cancelled", tuple(ended), said)

    def _end_all(self, trials: Iterable[TrialState]) -> list[str]:
        ends, ended = Ends(self.store, self.sweep, self.log), []
        for trial in trials:
            if ends.decide(Cancelled(trial=trial.id, life=trial.life, by=self.by)):
                ended.append(trial.id)
                if trial.status == "queued":  # else whoever holds it does, when it lets go
                    ends.clear_up(trial.id)
        return ended

    # Pause and resume

    def pause(self, trials: Sequence[str] = (), *, keep_running: bool = False) -> Done:
        """Begin nothing more; what runs is checkpointed and let go, or let run to its end."""
        found = self.find(trials)
        self._refuse_if_over("there is nothing to pause", found)
        alike = [
            name
            for name in ([trial.id for trial in found] or [""])
            if (pause := self._pause_of(name)) is not None and pause.keep_running == keep_running
        ]
        if alike and len(alike) == max(len(found), 1):
            what = ", ".join(name for name in alike if name) or f"sweep {self.sweep}"
            pause = self._pause_of(alike[0])
            assert pause is not None
            raise OrderRefused(
                f"only what is not paused can be paused; {what} was paused by {pause.by}; "
                "`saeq resume` goes on with it"
            )
        about = {"by": self.by, "order": self.next_order(), "keep_running": keep_running}
        names = [trial.id for trial in found] or [""]
        self.log.append(*(Paused(**about, trial=name) for name in names))
        return Done(self.sweep, "paused", tuple(t.id for t in found), self._paused_words(found))

    def _pause_of(self, trial: str) -> Paused | None:
        controls = self.state.controls
        return controls.pause_of(trial) if trial else controls.paused

    def _paused_words(self, found: Sequence[TrialState]) -> str:
        self.state = self.log.refresh()
        among = found or list(self.state.trials.values())
        running = [trial for trial in among if trial.status == "running"]
        pause = self._pause_of(found[0].id if found else "")
        keeps = pause is not None and pause.keep_running
        what = "1 trial that runs" if len(running) == 1 else f"{len(running)} that run"
        goes, is_let = ("goes", "is") if len(running) == 1 else ("go", "are")
        then = f"{goes} on to the end" if keeps else f"{is_let} checkpointed and let go"
        paused = f"paused {', '.join(trial.id for trial in found)}" if found else "paused"
        return f"sweep {self.sweep}: {paused}" + (f"; {what} {then}" if running else "")

    def resume(self, trials: Sequence[str] = ()) -> Done:
        """Go on with what was paused; for a whole sweep with its paused trials too."""
        found = self.find(trials)
        controls = self.state.controls
        if found:
            idle = [trial for trial in found if controls.pause_of(trial.id) is None]
            names = [trial.id for trial in found]
        else:
            names = ["", *controls.paused_trials]
            idle = []
        is_idle = not found and controls.paused is None and not controls.paused_trials
        if idle or is_idle:
            what = ", ".join(trial.id for trial in idle) or f"sweep {self.sweep}"
            raise OrderRefused(
                f"only what is paused can be resumed; {what} is not; `saeq show {self.sweep}` "
                "tells how it stands"
            )
        self._refuse_if_over("there is nothing to resume", found)
        order = self.next_order()
        self.log.append(*(Resumed(by=self.by, order=order, trial=name) for name in names))
        what = f"resumed {', '.join(names)}" if found else "resumed"
        return Done(self.sweep, "resumed", tuple(t.id for t in found), self._said(what))

    # Retry

    def retry(self, trials: Sequence[str] = (), *, afresh: bool = False) -> Done:
        """Give failed trials another life, all of them by default; each from its checkpoint.

        Args:
            afresh: from the beginning instead.
        """
        if self.state.cancelled_by:
            self._refuse_over("its trials cannot be retried")
        named = self.find(trials)
        others = [trial for trial in named if trial.status != "failed"]
        if others:
            raise OrderRefused(f"only a failed trial can be retried; {_are(others)}; leave it out")
        failed = named or [t for t in self.state.by_number() if t.status == "failed"]
        if not failed:
            return self._reopen()
        for trial in failed:
            if afresh:
                Checkpoints(self.store, self.sweep, trial.id).remove_all()
            self.log.append(
                Retried(trial=trial.id, epoch=trial.epoch, life=trial.life + 1, by=self.by)
            )
        self.log.append(Reopened(by=self.by, order=self.next_order()))
        ids = tuple(trial.id for trial in failed)
        where = "from the beginning" if afresh else "each from its checkpoint if it has one"
        said = f"to be tried again, {where}: {', '.join(ids)}"
        return Done(self.sweep, "retried", ids, self._said(said))

    def _reopen(self) -> Done:
        """Nothing failed, but perhaps whoever served it gave it up."""
        if is_over(self.status):
            self._refuse_over("no trial of it has failed")
        if self.status == "running":
            raise OrderRefused(
                f"only failed trials can be retried; sweep {self.sweep} runs and none of its "
                "trials has failed; `saeq show` tells how they stand"
            )
        self.log.append(Reopened(by=self.by, order=self.next_order()))
        said = "no trial has failed; whoever serves this store tries the sweep again at once"
        return Done(self.sweep, "retried", (), self._said(said))

    # Priority

    def prioritise(self, priority: int) -> Done:
        """The sweep with the higher one comes first; 0 is what every sweep begins with."""
        if abs(priority) > MAX_PRIORITY:
            raise OrderRefused(
                f"a priority lies between -{MAX_PRIORITY} and {MAX_PRIORITY}; got {priority}; "
                "only the order of sweeps counts, so small numbers do"
            )
        self._refuse_if_over("its priority means nothing", ())
        before = self.state.priority or 0
        self.log.append(Prioritised(by=self.by, order=self.next_order(), priority=priority))
        return Done(self.sweep, "priority", (), self._said(f"priority {priority}, was {before}"))

    # Words

    def _said(self, what: str) -> str:
        return f"sweep {self.sweep}: {what}"

    def _refuse_if_over(self, so: str, trials: Sequence[TrialState]) -> None:
        if is_over(self.status):
            self._refuse_over(so)
        over = [trial for trial in trials if trial.ended]
        if over:
            raise OrderRefused(f"{_have_ended(over)}, so {so}; leave it out")

    def _refuse_over(self, so: str) -> None:
        way_out = "submit it anew under another name"
        if not self.state.cancelled_by:
            way_out = "`saeq extend` gives it more to do"
        how = f"cancelled by {self.state.cancelled_by}" if self.state.cancelled_by else self.status
        raise OrderRefused(f"sweep {self.sweep} is over ({how}), so {so}; {way_out}")


def num_left(spec: SweepSpec, state: SweepState) -> int:
    """Trials that have not ended, and those still to be suggested."""
    return sum(not t.ended for t in state.trials.values()) + num_to_suggest(spec.trials, state)


def _trials(count: int) -> str:
    return "1 trial" if count == 1 else f"{count} trials"


def _have_ended(trials: Sequence[TrialState]) -> str:
    return ", ".join(f"{trial.id} has ended ({trial.status})" for trial in trials)


def _are(trials: Sequence[TrialState]) -> str:
    return ", ".join(f"{trial.id} is {trial.status}" for trial in trials)
