"""What can be seen of the jobs of one `saeq slurm up`: from SLURM, their folder, and the store."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from orchestrator.nodes.records import Failure, NodeSide, read_side
from orchestrator.nodes.stages import (
    STAGES,
    WITHIN_S,
    Mark,
    Stage,
    Standing,
    last_attempt,
    parse_lines,
    standing,
)
from orchestrator.slurm import commands
from orchestrator.slurm.commands import Job, JobDetails, Refused
from orchestrator.slurm.folder import JobFolder, SlurmFolder, node_of
from orchestrator.store import Store

logger = logging.getLogger(__name__)

FRESH_FOR_S = 60.0
OLDER_S = 60.0
"""Marks of an attempt that ended so long before the job's present start are of an earlier one: a
requeued job waits longer, and clocks of nodes differ by less."""
TAIL_LINES = 12
BY_SERVE: frozenset[Stage] = frozenset({"lease", "report", "ended"})
"""Stages that `saeq serve` comes to; those before are told by the script."""


@dataclass(frozen=True)
class Worker:
    """One worker job."""

    key: str
    job: Job | None
    """None: SLURM does not list it, not yet or no more."""
    ended: JobDetails | None = None
    """What SLURM still knows of one that it does not list."""
    marks: tuple[Mark, ...] = ()
    """Of the present attempt, from SLURM, the script and the node itself."""
    num_starts: int = 0
    """How often its script has begun."""
    failure: Failure | None = None
    """What its script said that failed."""
    itself: NodeSide | None = None
    """The node's own word, if it was heard of within a minute."""
    folder: JobFolder | None = None

    @property
    def state(self) -> str:
        """SLURM's word; `GONE`: it knows nothing of the job."""
        if self.job is not None:
            return self.job.state
        return self.ended.state if self.ended is not None else "GONE"

    @property
    def reason(self) -> str:
        """SLURM's, for waiting or for the end."""
        found = self.job or self.ended
        return found.reason if found is not None else ""

    @property
    def goes(self) -> bool:
        return self.job is not None and self.job.goes

    @property
    def waits(self) -> bool:
        return self.job is not None and self.job.waits

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come of it."""
        return self.job is None or self.job.is_over

    @property
    def hosts(self) -> tuple[str, ...]:
        """SLURM's names of the nodes that it has, or had in its last attempt."""
        found = self.job or self.ended
        if found is not None and found.hosts:
            return found.hosts
        named = [mark.host for mark in self.marks if mark.host not in ("", "-")]
        return (named[-1],) if named else ()

    @property
    def host(self) -> str:
        """The node that its script runs on; empty while it has none."""
        return self.hosts[0] if self.hosts else ""

    @property
    def stage(self) -> Stage | None:
        """The last one that it reached."""
        return self.marks[-1].stage if self.marks else None

    def reached(self, stage: Stage) -> bool:
        """Whether it came to a stage, or beyond it."""
        return any(STAGES.index(mark.stage) >= STAGES.index(stage) for mark in self.marks)

    def standing(self, within_s: Mapping[Stage, float | None] = WITHIN_S) -> Standing:
        """How far it has come and what it has to reach next."""
        return standing(self.marks, within_s)

    def tail(self, num_lines: int = TAIL_LINES) -> str:
        """End of the log that tells of the stage that it waits for; empty where there is none."""
        if self.folder is None:
            return ""
        waits_for = self.standing().waits_for
        logs = [self.folder.serve_log, self.folder.output_log]
        if waits_for is not None and waits_for not in BY_SERVE:
            logs.reverse()
        return next((text for text in (_end_of(log, num_lines) for log in logs) if text), "")


def see(
    keys: Iterable[str],
    listed: Mapping[str, Job],
    folder: SlurmFolder | None,
    store: Store | None,
    now: float | None = None,
) -> list[Worker]:
    """Put together what is known of some jobs.

    Args:
        listed: by id, as `commands.jobs` found them.
        store: None: it is not asked. Raises StoreError where it does not answer.
    """
    now = time.time() if now is None else now
    return [_see(key, listed.get(key), folder, store, now) for key in keys]


def with_end(worker: Worker) -> Worker:
    """Ask SLURM what became of a job that is over, or not listed. Raises NoSlurm, NoAnswer."""
    if not worker.is_over:
        return worker
    try:
        return replace(worker, ended=commands.details(worker.key))
    except Refused as error:
        logger.info("job %s: %s", worker.key, error)
        return worker


def _see(
    key: str, job: Job | None, folder: SlurmFolder | None, store: Store | None, now: float
) -> Worker:
    files = folder.job(key) if folder is not None else None
    told = parse_lines(files.lines()) if files is not None else []
    side = read_side(store, node_of(key), "self") if store is not None else None
    attempt = [*last_attempt(told), *(side.marks if side is not None else ())]
    if _is_of_an_earlier_start(attempt, job):
        attempt, side = [], None
    failures = [files.failure() if files is not None and attempt else None]
    failures += [side.failure if side is not None else None]
    return Worker(
        key=key,
        job=job,
        marks=_merged(_by_slurm(job), attempt),
        num_starts=sum(mark.stage == "script" for mark in told),
        failure=next((failure for failure in failures if failure is not None), None),
        itself=side if side is not None and abs(now - side.at) < FRESH_FOR_S else None,
        folder=files,
    )


def _is_of_an_earlier_start(marks: list[Mark], job: Job | None) -> bool:
    if job is None or job.is_over or not marks:
        return False
    if job.waits:
        return True
    newest = max(mark.at for mark in marks)
    return job.starts_at is not None and newest < job.starts_at - OLDER_S


def _by_slurm(job: Job | None) -> list[Mark]:
    if job is None:
        return []
    marks = []
    if job.submitted_at is not None:
        marks.append(Mark("asked", job.submitted_at))
    if not job.waits and job.hosts and job.starts_at is not None:
        marks.append(Mark("allocated", job.starts_at, job.hosts[0], ",".join(job.hosts)))
    return marks


def _merged(by_slurm: list[Mark], told: list[Mark]) -> tuple[Mark, ...]:
    """One mark a stage, in the order of stages: clocks of nodes may differ."""
    by_stage: dict[Stage, Mark] = {}
    for mark in [*told, *by_slurm]:
        by_stage.setdefault(mark.stage, mark)
    return tuple(sorted(by_stage.values(), key=lambda mark: STAGES.index(mark.stage)))


def _end_of(log: Path, num_lines: int) -> str:
    try:
        with open(log, "rb") as file:
            file.seek(0, 2)
            file.seek(max(file.tell() - 65536, 0))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    return "\n".join(text.rstrip().splitlines()[-num_lines:])
