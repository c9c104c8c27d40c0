"""SLURM as it is seen from here, and a real job sent through all stages of a start."""

from __future__ import annotations

import shutil
import sys
import time
import uuid
from collections.abc import Callable, Iterator

from orchestrator.doctor.base import Check, Finding, Level
from orchestrator.nodes.stages import WORDS, Stage
from orchestrator.slurm import commands
from orchestrator.slurm.commands import SlurmError
from orchestrator.slurm.folder import BadFolder, SlurmFolder
from orchestrator.slurm.going_down import DownRequest, bring_down
from orchestrator.slurm.going_up import begin
from orchestrator.slurm.options import WorkerOptions
from orchestrator.slurm.profile import BadOptions, load_options
from orchestrator.slurm.reasons import explain, how_it_ended
from orchestrator.slurm.sight import Worker, see, with_end
from orchestrator.slurm.submitting import submit_jobs
from orchestrator.slurm.tiny_sweep import submit_tiny_sweep
from orchestrator.store import Store, StoreError
from orchestrator.view import cells

WAITS_AT_MOST_S = 180.0
"""A queue may be long: then the job is taken back, and the reason is the answer."""
LOOK_EVERY_S = 1.0
OF_JOB: tuple[Stage, ...] = (
    "allocated", "script", "environment", "probe", "ray", "lease", "report",
)  # fmt: skip

Tell = Callable[[str], None]


class SlurmCheck(Check):
    """The controller, partitions, and nodes that take no jobs."""

    name = "slurm"
    order = 60

    def applies(self, store: Store) -> bool:
        """Where SLURM's commands are."""
        del store
        return shutil.which("squeue") is not None and shutil.which("sbatch") is not None

    def look(self, store: Store) -> Iterator[Finding]:
        try:
            partitions = commands.partitions()
            yield Finding("ok", f"{commands.version()} answers")
        except SlurmError as error:
            yield Finding("warning", str(error), "scontrol ping")
            return
        shown = [
            f"{p.name}{' (default)' if p.is_default else ''}: {len(p.hosts)} nodes"
            + ("" if p.limit_s is None else f", up to {cells.duration(p.limit_s)}")
            for p in partitions
        ]
        level: Level = "ok" if partitions else "fault"
        none = "" if partitions else "ask the cluster's administrators"
        yield Finding(level, f"partitions {'; '.join(shown) or 'none'}", none)
        for host, why in sorted(commands.drained().items()):
            yield Finding("note", f"node {host} takes no jobs, {why}", "sinfo -R")
        if store.url.startswith("/tmp/"):
            way_out = "--store with a folder of the shared file system, or s3://..."
            yield Finding("warning", f"jobs may not see the store {store.url}", way_out)
        try:
            load_options({})
        except BadOptions as error:
            yield Finding("fault", f"the profile: {error}", "mend it: docs/running_on_slurm.md")


def try_job(
    store: Store, tell: Tell | None = None, waits_at_most_s: float = WAITS_AT_MOST_S
) -> Iterator[Finding]:
    """Send a job of about a minute through all stages; each is told when it is reached.

    It works off a sweep of its own in a corner of the store, with the options of the profile file,
    and everything of it is removed.

    Args:
        tell: told each finding at once; by default it goes to stderr.
    """
    live = tell or _to_stderr
    try:
        with _Trial(store) as trial:
            for finding in trial.findings(waits_at_most_s):
                live(finding.what + (f" -> {finding.way_out}" if finding.way_out else ""))
                yield finding
    except (SlurmError, StoreError, BadFolder, BadOptions) as error:
        yield Finding("fault", str(error), "saeq slurm up --dry-run")


def _to_stderr(text: str) -> None:
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {text}\n")


class _Trial:
    """One job, its folder and its corner of the store; all gone when left."""

    def __init__(self, store: Store) -> None:
        self._store = _corner(store)
        self._folder: SlurmFolder | None = None
        self._key = ""

    def __enter__(self) -> _Trial:
        said = {"jobs": 1, "nodes": 1, "time": "00:15:00", "idle": "10s", "elastic": None}
        options: WorkerOptions = load_options({**said, "array_throttle": None})
        self._folder, record = begin("doctor", options, self._store)
        try:
            submit_tiny_sweep(self._store, self._folder.path / "model")
            _, self._key = submit_jobs(self._folder, record, self._store, 1)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        assert self._folder is not None
        if self._key:
            bring_down(DownRequest([self._folder], strays=False, at_once=True), lambda *_: None)
        shutil.rmtree(self._folder.path, ignore_errors=True)
        self._store.backend.delete_prefix("")
        if self._store.url.startswith("/"):
            shutil.rmtree(self._store.url, ignore_errors=True)

    def findings(self, waits_at_most_s: float) -> Iterator[Finding]:
        """One a stage, and at the end why there are no more."""
        began, told = time.time(), set[Stage]()
        yield Finding("ok", f"job {self._key} submitted")
        while True:
            worker = self._look()
            for mark in worker.marks:
                if mark.stage in OF_JOB and mark.stage not in told:
                    told.add(mark.stage)
                    where = f" on {worker.host}" if mark.stage == "allocated" else ""
                    after = cells.duration(max(mark.at - worker.marks[0].at, 0.0))
                    yield Finding("ok", f"{WORDS[mark.stage]}{where} after {after}")
            if "report" in told:
                yield Finding("ok", "a worker job does all that it has to do")
                return
            why = self._why_not(worker, time.time() - began, waits_at_most_s)
            if why is not None:
                yield why
                return
            time.sleep(LOOK_EVERY_S)

    def _look(self) -> Worker:
        listed = {job.id: job for job in commands.jobs([self._key])}
        return with_end(see([self._key], listed, self._folder, self._store)[0])

    def _why_not(self, worker: Worker, passed_s: float, waits_at_most_s: float) -> Finding | None:
        """Why nothing more will come; None: it may."""
        if worker.waits:
            reason = explain(worker.reason)
            if passed_s < (10.0 if reason.is_hopeless else waits_at_most_s):
                return None
            level: Level = "fault" if reason.is_hopeless or reason.is_held else "note"
            text = f"the job still waits after {cells.duration(passed_s)}: {reason.words}"
            return Finding(level, text, reason.way_out or "try again later")
        standing = worker.standing()
        waits_for = WORDS[standing.waits_for or "report"]
        if worker.failure is not None:
            return Finding("fault", f"{waits_for}: {worker.failure.why}", _with_tail(worker))
        if worker.is_over and passed_s > LOOK_EVERY_S * 5:
            reason = how_it_ended(worker.state, worker.reason)
            return Finding("fault", f"{waits_for}: {reason.words}", _with_tail(worker))
        if standing.is_overdue(time.time()):
            return Finding("fault", f"{waits_for}: not in time", _with_tail(worker))
        return None


def _with_tail(worker: Worker) -> str:
    """What to look at: the folder goes, so its log is told here."""
    tail = worker.tail(6)
    return f"the end of its log:\n{tail}" if tail else "sinfo -R"


def _corner(store: Store) -> Store:
    """A place of its own that is reached in the same way as the store."""
    name = f"doctor-{uuid.uuid4().hex[:8]}"
    place, mark, query = store.url.partition("?")
    return Store.open(f"{place.rstrip('/')}/{name}{mark}{query}")
