"""Worker jobs of a real SLURM over a sweep of a tiny model, and what the tests ask of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from orchestrator.log.state import SweepState
from orchestrator.log.sweep_log import SweepLog
from orchestrator.log.sweep_status import is_over, sweep_status
from orchestrator.nodes.stages import Stage, parse_lines
from orchestrator.queue import Queue
from orchestrator.slurm.folder import JobFolder, SlurmFolder, new_folder
from orchestrator.slurm.options import WorkerOptions
from orchestrator.slurm.script import sbatch_text
from orchestrator.spec.sweep import parse_sweep
from orchestrator.store import Store
from tests.chaos.verdict import Verdict, judge
from tests.orchestrator.running import SWEEP
from tests.slurm.cluster import SlurmCluster

LONG_S = 400.0
"""For what takes seconds on a quiet machine."""
SLACK_S = 30.0
"""What an end may cost beyond a checkpoint interval: uploads wait for a core on a busy machine."""


class WorkerJobs:
    """Sweeps in a store of their own, and jobs that work them off."""

    def __init__(self, slurm: SlurmCluster, folder: Path, model: Path) -> None:
        self.slurm, self._place, self._model = slurm, folder, model
        self.store = Store.open(str(folder / "store"))
        self.folders: list[SlurmFolder] = []

    def submit(self, name: str = "tiny", **changes: object) -> str:
        """A sweep of k 4 and 8, with the learning rates that are asked for."""
        values: dict[str, object] = {
            "name": name,
            "model": self._model,
            "tokens": "1M",
            "lrs": "1.0e-3, 3.0e-3",
            "early_stop": "{scheduler: none}",
            "report": "50k",
            "checkpoint_seconds": 1,
            "members": 4,
        }
        text = SWEEP.format(**{**values, **changes})
        return Queue(self.store).submit(parse_sweep(text), text)[0].id

    def start(self, **options: object) -> str:
        """Worker jobs, as `saeq slurm up` submits them; the id of the job or the array."""
        asked = {"cpus": 2, "time": "20m", "signal": "60", "idle": "15", **options}
        parsed = WorkerOptions.model_validate(
            {"environment": {"OMP_NUM_THREADS": "1"}, "partition": "main", **asked}
        )
        folder = new_folder("workers", self._place / "ups")
        folder.write_script(sbatch_text(parsed, folder, self.store.url), parsed.setup)
        self.folders.append(folder)
        return self.slurm.run("sbatch", "--parsable", str(folder.script)).strip()

    def job(self, key: str) -> JobFolder:
        """A job's files, in whichever folder they are."""
        found = [folder.job(key) for folder in self.folders if folder.job(key).stages.exists()]
        return found[0] if found else self.folders[-1].job(key)

    def num_starts(self, key: str) -> int:
        marks = parse_lines(self.job(key).lines())
        return sum(mark.stage == "allocated" for mark in marks)

    def wait_for_stage(self, key: str, stage: Stage, start: int = 1) -> None:
        """Until a job has come so far in that start of its script."""
        self.wait(
            lambda: (
                self.num_starts(key) >= start
                and any(mark.stage == stage for mark in self.job(key).marks())
            ),
            f"job {key} at {stage} of start {start}",
        )

    def wait_for(self, sweep: str, seen: Callable[[SweepState], bool], what: str) -> SweepState:
        """Poll a sweep's log until something is in it."""
        log = SweepLog(self.store, sweep)
        self.wait(lambda: seen(log.refresh()), what)
        return log.state

    def wait_for_end(self, *sweeps: str) -> None:
        """Until sweeps are over."""
        for sweep in sweeps:
            trials = Queue(self.store).get(sweep).spec.trials
            self.wait_for(sweep, _over(trials), f"{sweep} over")

    def wait_for_no_jobs(self) -> None:
        """Until SLURM has none left: they end by themselves once there is nothing to do."""
        self.wait(lambda: not self.slurm.run("squeue", "-a", "-h").strip(), "no jobs")

    def wait(self, seen: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + LONG_S
        while not seen():
            assert time.monotonic() < deadline, f"not within {LONG_S:.0f} s: {what}\n{self.said()}"
            time.sleep(0.2)

    def processes_of(self, job: str) -> list[str]:
        """Command lines of whatever carries a job's id, whoever its parent is now."""
        lines = (Path(f"/proc/{pid}/cmdline") for pid in self._environments(job))
        return [line for path in lines if (line := _read(path).replace("\0", " ").strip())]

    def scratch_of(self, job: str) -> list[Path]:
        """A running job's own folder, and those of its Rays, which are named by processes."""
        found = self._environments(job)
        own = {Path(values["TMPDIR"]) for values in found.values() if "TMPDIR" in values}
        rays = {path for pid in found for path in Path("/tmp").glob(f"saeq-ray-{pid}-*")}
        return sorted(path for path in own | rays if path.name.startswith("saeq-"))

    def _environments(self, job: str) -> dict[int, dict[str, str]]:
        """By process. Other SLURMs on this machine number their jobs from 1, too."""
        wanted = {**self.slurm.environment, "SLURM_JOB_ID": job}
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            parts = (part.partition("=") for part in _read(folder / "environ").split("\0"))
            values = {name: value for name, _, value in parts}
            if all(values.get(name) == value for name, value in wanted.items()):
                found[int(folder.name)] = values
        return found

    def verdict(self, sweep: str = "tiny") -> Verdict:
        return judge(self.store, sweep, slack_s=SLACK_S)

    def said(self) -> str:
        """Everything that would tell why."""
        parts = [self.slurm.run("squeue", "-a", check=False)]
        for folder in self.folders:
            for job in folder.jobs():
                for path in (job.stages, job.output_log, job.serve_log):
                    text = path.read_text(errors="replace") if path.exists() else "(none)"
                    parts.append(f"--- {job.key} {path.name}\n{text[-3000:]}")
        return "\n".join(parts)


def _read(path: Path) -> str:
    """Empty for a process that has just ended."""
    try:
        return path.read_bytes().decode(errors="replace")
    except OSError:
        return ""


def _over(num_trials: int) -> Callable[[SweepState], bool]:
    return lambda state: is_over(sweep_status(num_trials, state))


def all_checkpointed(count: int) -> Callable[[SweepState], bool]:
    """So many trials run, each with something to come back to."""

    def seen(state: SweepState) -> bool:
        running = [t for t in state.trials.values() if t.status == "running"]
        return len(running) >= count and all(trial.checkpoint_tokens for trial in running)

    return seen
