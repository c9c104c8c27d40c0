"""What to do about the jobs of one `saeq slurm up`: a function of what is seen and remembered.

It asks nobody and changes nothing; `orchestrator.slurm.keeping` looks and acts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pydantic import BaseModel, ConfigDict, Field

from orchestrator.nodes.stages import STAGES, WITHIN_S, WORDS, Stage
from orchestrator.slurm.reasons import explain, how_it_ended
from orchestrator.slurm.sight import Worker
from orchestrator.view import cells

MAX_FAILED_STARTS = 3
"""Starts that fail one after the other before any job has worked: then it is not the nodes."""
MAX_FAILED_ONCE_ONE_WORKED = 10
LISTED_AFTER_S = 60.0
"""So long a new job may be missing from squeue's list: controllers answer from a cache."""
TAKEN_WITHIN_S = 60.0
"""A job that has room for a trial takes it within this."""
SAID_WITHIN_S = 10.0
"""A node tells of the trials that it took within this."""
NEEDS_WORK: frozenset[Stage] = frozenset({"ray", "lease"})
"""Stages that a node comes to only when the store has work that nobody holds."""


class JobMemory(BaseModel):
    """What the keeper remembers of one job."""

    model_config = ConfigDict(extra="ignore", frozen=True, use_attribute_docstrings=True)

    at: float = 0.0
    """When it was submitted, seconds since 1970."""
    host: str = ""
    """The node that it was last seen on."""
    stage: str = ""
    """The last stage that was told of it."""
    said: tuple[str, ...] = ()
    """Why it waits, as told."""
    is_released: bool = False
    """Whether it was held after a failed launch, and released."""
    settled: str = ""
    """What became of it; empty: not over."""


class Memory(BaseModel):
    """What the keeper remembers; it survives the keeper in a file of the folder."""

    model_config = ConfigDict(extra="ignore", frozen=True, use_attribute_docstrings=True)

    jobs: Mapping[str, JobMemory] = Field(default_factory=dict)
    excluded: tuple[str, ...] = ()
    """Nodes on which a start failed: no job of this `up` is put there again."""
    failed_in_a_row: int = 0
    has_worked: bool = False
    """Whether some job came to a lease."""
    slots_per_job: int = 0
    """Trials that a job was seen to hold at once, at most; 0: none was seen yet."""
    work_since: float | None = None
    """Since when the store has work that nobody holds."""
    no_work_since: float | None = None
    """Since when it has none."""
    given_up: str = ""
    """Why no more jobs are submitted; empty: they are."""


@dataclass(frozen=True)
class Rules:
    """What was asked for."""

    within_s: Mapping[Stage, float | None] = field(default_factory=lambda: dict(WITHIN_S))
    elastic: tuple[int, int] | None = None
    """Least and most jobs; None: as many as were submitted."""
    slots_guess: int = 1
    """Trials of a job, before one was seen: one a device."""
    requeues: bool = True
    """Whether jobs come back after their time limit by themselves."""


@dataclass(frozen=True)
class Sight:
    """One look."""

    now: float
    """Seconds since 1970."""
    workers: Sequence[Worker]
    free_trials: int
    """Trials that nobody holds and that could be worked on now."""
    is_going_down: bool = False
    """Whether `saeq slurm down` was asked for."""


@dataclass(frozen=True)
class Say:
    """A line for whoever watches; `tail` are lines of a log below it."""

    key: str
    text: str
    tail: str = ""


@dataclass(frozen=True)
class Cancel:
    """End a job: it waits for nothing, or its start hangs."""

    key: str
    why: str


@dataclass(frozen=True)
class Release:
    """Let a held job try again, not on that node."""

    key: str
    without: str


@dataclass(frozen=True)
class Blame:
    """Hold a failed start against a host; the third puts it into quarantine."""

    host: str
    what: str


@dataclass(frozen=True)
class Submit:
    """As many more jobs, each on its own."""

    jobs: int
    why: str


Action = Say | Cancel | Release | Blame | Submit


def decide(sight: Sight, memory: Memory, rules: Rules) -> tuple[list[Action], Memory]:
    """What to do now, and what to remember then."""
    if sight.free_trials == 0:
        since = sight.now if memory.no_work_since is None else memory.no_work_since
        memory = _with(memory, work_since=None, no_work_since=since)
    else:
        since = sight.now if memory.work_since is None else memory.work_since
        memory = _with(memory, work_since=since, no_work_since=None)
    actions: list[Action] = []
    for worker in sight.workers:
        if memory.jobs.get(worker.key, JobMemory()).settled:
            continue
        found, memory = _Look(sight, rules).at(worker, memory)
        actions += found
    if sight.is_going_down:
        return [act for act in actions if not isinstance(act, Submit | Release)], memory
    if rules.elastic is not None and not memory.given_up:
        actions = [act for act in actions if not isinstance(act, Submit)]
        for action in _elastic(sight, memory, rules, rules.elastic):
            actions.append(action)
            if isinstance(action, Cancel):  # SLURM forgets at once a task that has never run
                memory = _note(memory, action.key, settled=f"cancelled: {action.why}")
    return actions, memory


def is_started(worker: Worker, has_work: bool) -> bool:
    """Whether a job does what it is for: it holds trials, or there are none to hold."""
    idles = not has_work and worker.itself is not None and worker.reached("probe")
    return worker.goes and (worker.reached("lease") or idles)


def has_work(memory: Memory, now: float) -> bool:
    """Whether there was work that nobody held within the last seconds.

    Trials are taken some seconds before whoever took them says so.
    """
    since = memory.no_work_since
    return since is None or now - since < SAID_WITHIN_S


def _with(memory: Memory, **changes: object) -> Memory:
    return memory.model_copy(update=changes)


def _note(memory: Memory, key: str, **changes: object) -> Memory:
    job = memory.jobs.get(key, JobMemory()).model_copy(update=changes)
    return _with(memory, jobs={**memory.jobs, key: job})


@dataclass(frozen=True)
class _Look:
    """The decision about one job at a time."""

    sight: Sight
    rules: Rules

    def at(self, worker: Worker, memory: Memory) -> tuple[list[Action], Memory]:
        if worker.key not in memory.jobs:
            memory = _note(memory, worker.key, at=self.sight.now)
        if worker.host:
            memory = _note(memory, worker.key, host=worker.host)
        if worker.itself is not None:
            slots = max(memory.slots_per_job, worker.itself.slots)
            memory = _with(memory, slots_per_job=slots)
        if worker.waits:
            return self._waiting(worker, memory)
        if worker.goes:
            return self._going(worker, memory)
        return self._over(worker, memory)

    def _waiting(self, worker: Worker, memory: Memory) -> tuple[list[Action], Memory]:
        job, reason = memory.jobs[worker.key], explain(worker.reason)
        memory = _note(memory, worker.key, stage="")
        launch_failed = reason.is_held and "user" not in worker.reason.lower()
        if launch_failed and not job.is_released:
            what = f"{reason.words}; released once" + (f", not to {job.host}" if job.host else "")
            memory = _note(memory, worker.key, is_released=True)
            return [Say(worker.key, what), Release(worker.key, job.host)], memory
        if launch_failed:
            cancel = Cancel(worker.key, "held again after it was released")
            found, memory = self._failed(worker, memory, "script", reason.words)
            return [cancel, *found], memory
        words = f"waits: {reason.words}" + (f". {reason.way_out}" if reason.way_out else "")
        if words in job.said:
            return [], memory
        return [Say(worker.key, words)], _note(memory, worker.key, said=(*job.said, words))

    def _going(self, worker: Worker, memory: Memory) -> tuple[list[Action], Memory]:
        actions, memory = self._stages(worker, memory)
        if worker.state != "RUNNING" or worker.failure is not None:
            return actions, memory
        standing = worker.standing(self.rules.within_s)
        due_at, waits_for = self._due_at(worker, memory), standing.waits_for
        if due_at is None or waits_for is None or self.sight.now <= due_at:
            return actions, memory
        within_s = self.rules.within_s.get(waits_for) or 0.0
        why = f"not {WORDS[waits_for]!r} within {cells.duration(within_s)}"
        cancel = Cancel(worker.key, why)
        found, memory = self._failed(worker, memory, waits_for, why)
        return [*actions, *found[:1], cancel, *found[1:]], memory

    def _stages(self, worker: Worker, memory: Memory) -> tuple[list[Action], Memory]:
        """A line for each stage that is new."""
        told = memory.jobs[worker.key].stage
        place = STAGES.index(told) if told in STAGES else STAGES.index("asked")
        fresh = [mark for mark in worker.marks if STAGES.index(mark.stage) > place]
        if not fresh:
            return [], memory
        memory = _note(memory, worker.key, stage=fresh[-1].stage)
        if worker.reached("lease"):
            memory = _with(memory, has_worked=True, failed_in_a_row=0)
        begun = worker.marks[0].at
        lines: list[Action] = []
        for mark in fresh:
            where = f" on {worker.host}" if mark.stage == "allocated" else ""
            after = f" after {cells.duration(max(mark.at - begun, 0.0))}"
            lines.append(Say(worker.key, f"{WORDS[mark.stage]}{where}{after}"))
        return lines, memory

    def _due_at(self, worker: Worker, memory: Memory) -> float | None:
        standing = worker.standing(self.rules.within_s)
        if standing.due_at is None or standing.reached is None or standing.waits_for is None:
            return None
        if standing.waits_for in NEEDS_WORK:
            if memory.work_since is None:
                return None
            limit_s = standing.due_at - standing.reached.at
            return max(standing.due_at, memory.work_since + limit_s)
        if standing.waits_for == "report" and worker.itself is not None and not worker.itself.slots:
            return None  # it gave its trial back: paused, or cancelled
        return standing.due_at

    def _over(self, worker: Worker, memory: Memory) -> tuple[list[Action], Memory]:
        """Not listed, or ended."""
        if worker.state == "GONE":
            return self._gone(worker, memory)
        said, memory = self._stages(worker, memory)
        if worker.state == "CANCELLED" and worker.failure is None:
            return [*said, Say(worker.key, "cancelled")], _note(
                memory, worker.key, settled="cancelled"
            )
        by_limit = worker.state in ("TIMEOUT", "PREEMPTED") and not self.rules.requeues
        if (worker.state == "COMPLETED" or by_limit) and worker.failure is None:
            words = how_it_ended(worker.state).words
            memory = _note(memory, worker.key, settled=words)
            found, memory = self._fruitless(worker, memory)
            return [*said, Say(worker.key, words), *found], memory
        end = worker.ended
        code, signal = (end.exit_code, end.signal) if end is not None else (0, 0)
        ending = how_it_ended(worker.state, worker.reason, code, signal)
        stage = worker.standing().waits_for or "report"
        why = ending.words
        if worker.failure is not None:
            stage, why = worker.failure.stage, worker.failure.why or why
        if ending.way_out:
            why = f"{why} ({ending.way_out})"
        found, memory = self._failed(worker, memory, stage, why)
        return [*said, *found], memory

    def _fruitless(self, worker: Worker, memory: Memory) -> tuple[list[Action], Memory]:
        """A job that left work lying: where jobs follow the work, the next would come at once."""
        is_fruitful = worker.reached("lease") or not self.sight.free_trials
        if self.rules.elastic is None or is_fruitful or memory.given_up:
            return [], memory
        memory = _with(memory, failed_in_a_row=memory.failed_in_a_row + 1)
        if memory.failed_in_a_row < self._limit(memory):
            return [], memory
        given_up = (
            f"{memory.failed_in_a_row} jobs in a row ended without taking the work that waits; no "
            f"more are submitted. The end of the last one's log says why: {worker.key}"
        )
        return [Say("", given_up, worker.tail())], _with(memory, given_up=given_up)

    def _limit(self, memory: Memory) -> int:
        return MAX_FAILED_ONCE_ONE_WORKED if memory.has_worked else MAX_FAILED_STARTS

    def _gone(self, worker: Worker, memory: Memory) -> tuple[list[Action], Memory]:
        """SLURM has forgotten it; its stages may tell."""
        if self.sight.now - memory.jobs[worker.key].at < LISTED_AFTER_S:
            return [], memory
        if worker.reached("ended") and worker.failure is None:
            return [Say(worker.key, "ended")], _note(memory, worker.key, settled="ended")
        stage = WORDS[worker.stage] if worker.stage is not None else "nothing"
        text = (
            f"SLURM knows nothing of it any more, and it did not say that it ended; last: {stage}"
        )
        settled = _note(memory, worker.key, settled="gone without a word")
        return [Say(worker.key, text, worker.tail())], settled

    def _failed(
        self, worker: Worker, memory: Memory, stage: Stage, why: str
    ) -> tuple[list[Action], Memory]:
        """Tell it, hold it against the node where it was the start that failed, try elsewhere."""
        host, is_start = memory.jobs[worker.key].host, not worker.reached("lease")
        where = f" on {host}" if host else ""
        actions: list[Action] = [Say(worker.key, f"failed{where}: {why}", worker.tail())]
        if is_start and host:
            actions.append(Blame(host, f"SLURM job {worker.key}: {why}"))
            excluded = tuple(dict.fromkeys([*memory.excluded, host]))
            memory = _with(memory, excluded=excluded)
        memory = _note(memory, worker.key, settled=f"failed: {why}")
        memory = _with(memory, failed_in_a_row=memory.failed_in_a_row + 1)
        if memory.given_up:
            return actions, memory
        if memory.failed_in_a_row >= self._limit(memory):
            given_up = (
                f"{memory.failed_in_a_row} starts in a row failed, the last before "
                f"{WORDS[stage]!r}: it is not one node; no more jobs are submitted. Mend what the "
                "log says, then `saeq slurm up` again"
            )
            return [*actions, Say("", given_up)], _with(memory, given_up=given_up)
        without = f", without {', '.join(memory.excluded)}" if memory.excluded else ""
        actions.append(Submit(1, f"in place of {worker.key}{without}"))
        return actions, memory


def _elastic(sight: Sight, memory: Memory, rules: Rules, elastic: tuple[int, int]) -> list[Action]:
    """Jobs for the work that nobody holds, between the least and the most."""
    least, most = elastic
    alive = [worker for worker in sight.workers if _is_alive(worker, sight, memory)]
    slots = memory.slots_per_job or rules.slots_guess
    beyond = sight.free_trials - sum(_spare(worker, slots, sight, memory) for worker in alive)
    wanted = len(alive) + (math.ceil(beyond / slots) if beyond > 0 else -(-beyond // slots))
    wanted = min(max(wanted, least), most)
    if wanted > len(alive):
        many = f"{sight.free_trials} trials wait" if sight.free_trials > 1 else "a trial waits"
        why = f"{many} that nobody holds" if sight.free_trials else f"at least {least} are wanted"
        return [Submit(wanted - len(alive), why)]
    waiting = [worker for worker in alive if worker.waits]
    surplus = min(len(alive) - wanted, len(waiting))
    why = "no work is left for it" if sight.free_trials == 0 else "others take the work"
    return [Cancel(worker.key, why) for worker in waiting[len(waiting) - surplus :]]


def _is_alive(worker: Worker, sight: Sight, memory: Memory) -> bool:
    job = memory.jobs.get(worker.key, JobMemory())
    is_new = worker.state == "GONE" and sight.now - job.at < LISTED_AFTER_S
    return not job.settled and (is_new or not worker.is_over)


def _spare(worker: Worker, slots: int, sight: Sight, memory: Memory) -> int:
    """Trials that a job will take by itself."""
    if not worker.reached("lease"):
        return slots
    waited_s = 0.0 if memory.work_since is None else sight.now - memory.work_since
    if worker.itself is None or waited_s > TAKEN_WITHIN_S:
        return 0  # it could have taken them: it is full, whatever it held of another sweep
    return max(slots - worker.itself.slots, 0)
