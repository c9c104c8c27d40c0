"""Keeps watch over the jobs of one `saeq slurm up`: looks, decides (keeper.py), acts, tells."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from pydantic import ValidationError

from orchestrator.nodes.quarantine import note_failure
from orchestrator.slurm import commands, node_side
from orchestrator.slurm.commands import Refused, SlurmError
from orchestrator.slurm.demand import Demand
from orchestrator.slurm.folder import SlurmFolder, UpRecord
from orchestrator.slurm.keeper import (
    Action,
    Blame,
    Cancel,
    Memory,
    Release,
    Rules,
    Say,
    Sight,
    Submit,
    decide,
    has_work,
    is_started,
)
from orchestrator.slurm.reasons import explain
from orchestrator.slurm.sight import Worker, see, with_end
from orchestrator.slurm.submitting import submit_jobs
from orchestrator.store import Store, StoreError

logger = logging.getLogger(__name__)

HOPELESS_AFTER_S = 5.0

Tell = Callable[[str, str, str], None]
"""Told a job (empty: all of them), what happened, and the end of a log or nothing."""


class Keeping:
    """The jobs of one `up`.

    Args:
        record: of the folder; it has to be there.
    """

    def __init__(
        self, folder: SlurmFolder, record: UpRecord, store: Store, rules: Rules, tell: Tell
    ) -> None:
        self.folder, self._record, self._store = folder, record, store
        self._rules, self._tell = rules, tell
        self._demand = Demand(store)
        self._said = ""
        self._has_new = False
        self._stuck_since: dict[tuple[str, str], float] = {}
        self.memory = read_memory(folder.keeper_memory)
        self.workers: list[Worker] = []
        """As of the last look."""
        self.free_trials = 0

    def submit(self, jobs: int, why: str = "") -> None:
        """Hand more jobs to SLURM. Raises SlurmError, StoreError, BadFolder."""
        self._record, job = self._submit(jobs)
        self._has_new = True
        many = f"{jobs} jobs" if jobs > 1 else "a job"
        self._tell(job, f"{many} submitted" + (f", {why}" if why else ""), "")

    def step(self) -> bool:
        """Look once and act. False: SLURM or the store did not answer; it has been told."""
        try:
            sight = self._look()
            actions, self.memory = decide(sight, self.memory, self._rules)
            for action in actions:
                self._act(action)
            self._write_records(sight.now)
        except (SlurmError, StoreError, OSError) as error:
            if str(error) != self._said:
                self._said = str(error)
                self._tell("", f"{error}; trying again", "")
            return False
        finally:
            _write(self.folder.keeper_memory, self.memory.model_dump_json(indent=1))
        self._said = ""
        return True

    @property
    def all_settled(self) -> bool:
        """Whether nothing is left to keep watch over."""
        return not self._has_new and all(self._is_settled(worker.key) for worker in self.workers)

    @property
    def all_started(self) -> bool:
        """Whether every job that is not over does what it is for, and one is there at least."""
        open_jobs = [worker for worker in self.workers if not self._is_settled(worker.key)]
        return bool(open_jobs) and not self._has_new and all(map(self.is_started, open_jobs))

    def is_started(self, worker: Worker) -> bool:
        """Whether a job does what it is for, as of the last look."""
        return is_started(worker, has_work(self.memory, time.time()))

    @property
    def hopeless(self) -> list[Worker]:
        """Jobs that wait for what will not come, when no other is left.

        A reason has to stand for some seconds: SLURM's first answer may be a passing one.
        """
        open_jobs = [worker for worker in self.workers if not self._is_settled(worker.key)]
        stuck = [w for w in open_jobs if w.waits and explain(w.reason).is_hopeless]
        now = time.monotonic()
        reasons = {(worker.key, worker.reason) for worker in stuck}
        self._stuck_since = {each: self._stuck_since.get(each, now) for each in reasons}
        stand = all(now - since > HOPELESS_AFTER_S for since in self._stuck_since.values())
        return stuck if stand and len(stuck) == len(open_jobs) else []

    def _is_settled(self, key: str) -> bool:
        job = self.memory.jobs.get(key)
        return job is not None and bool(job.settled)

    def _look(self) -> Sight:
        now, self._has_new = time.time(), False
        self._record = self.folder.record() or self._record
        ids = self._record.submitted
        listed = {job.id: job for job in commands.jobs(ids)} if ids else {}
        keys = all_keys(ids, listed, [*self.memory.jobs, *(j.key for j in self.folder.jobs())])
        workers = see(keys, listed, self.folder, self._store, now)
        self.workers = [self._with_end(worker) for worker in workers]
        self.free_trials = self._demand.num_trials()
        return Sight(now, self.workers, self.free_trials, self.folder.going_down.exists())

    def _with_end(self, worker: Worker) -> Worker:
        is_known = worker.job is not None and not worker.job.is_over
        return worker if is_known or self._is_settled(worker.key) else with_end(worker)

    def _act(self, action: Action) -> None:
        if isinstance(action, Say):
            self._tell(action.key, action.text, action.tail)
        elif isinstance(action, Cancel):
            self._tell(action.key, f"cancelled: {action.why}", "")
            commands.cancel([action.key])
        elif isinstance(action, Blame):
            standing = note_failure(self._store, action.host, action.what)
            if standing.is_kept_out:
                way_out = f"`saeq nodes --release {action.host}` lets it work again"
                self._tell("", f"{action.host} is in quarantine: {standing.why}. {way_out}", "")
        elif isinstance(action, Release):
            self._release(action)
        else:
            self._submit_again(action)

    def _release(self, action: Release) -> None:
        try:
            if action.without:
                commands.exclude(action.key, [action.without])
            commands.release(action.key)
        except Refused as error:
            self._tell(action.key, str(error), "")

    def _submit_again(self, action: Submit) -> None:
        try:
            self.submit(action.jobs, action.why)
        except Refused as error:
            self._tell("", str(error), "")
            given_up = "SLURM takes no more of these jobs"
            if self.memory.excluded:
                # Perhaps too few nodes are left: better one that failed once than none.
                self._tell("", f"without excluding {', '.join(self.memory.excluded)}:", "")
                self.memory = self.memory.model_copy(update={"excluded": ()})
                try:
                    self.submit(action.jobs, action.why)
                except Refused:
                    self.memory = self.memory.model_copy(update={"given_up": given_up})
            else:
                self.memory = self.memory.model_copy(update={"given_up": given_up})

    def _submit(self, jobs: int) -> tuple[UpRecord, str]:
        record = self.folder.record() or self._record
        return submit_jobs(self.folder, record, self._store, jobs, self.memory.excluded)

    def _write_records(self, now: float) -> None:
        for worker in self.workers:
            node_side.write(self._store, self.folder.name, worker, self.memory, now)


def all_keys(
    ids: Sequence[str], listed: dict[str, commands.Job], known: Sequence[str]
) -> list[str]:
    """Every job of an `up`: what SLURM lists, what has a folder, what was seen once.

    An array's own id stands for its tasks, as soon as one of them was seen.
    """
    found = dict.fromkeys([*known, *listed])
    arrays = {key.partition("_")[0] for key in found if "_" in key}
    found.update(dict.fromkeys(job for job in ids if job not in arrays))
    for array in arrays:
        found.pop(array, None)
    return sorted(found, key=lambda key: [int(n) for n in key.split("_") if n.isdigit()])


def read_memory(path: Path) -> Memory:
    """Nothing is remembered where nothing can be read."""
    try:
        return Memory.model_validate(json.loads(path.read_bytes()))
    except (OSError, ValueError, ValidationError):
        return Memory()


def _write(path: Path, text: str) -> None:
    """Whole or not at all; a keeper whose folder was removed goes on without a memory."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text)
        temporary.replace(path)
    except OSError as error:
        logger.info("%s: %s", path, error)
