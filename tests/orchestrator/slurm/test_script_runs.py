"""The script in a real bash, among stand-ins for SLURM's commands and for Python."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.slurm.folder import JobFolder, SlurmFolder, new_folder
from orchestrator.slurm.options import WorkerOptions
from orchestrator.slurm.script import sbatch_text

SRUN = """
while [ "${1#-}" != "$1" ]; do
  case $1 in --output=*) out=${1#--output=} ;; esac
  shift
done
exec "$@" >>"$out" 2>&1
"""
SQUEUE = 'cat "$STATE/ends"'
SCONTROL = """
case "$1 $2" in
  "show job") cat "$STATE/job" ;;
  requeue*) echo "$2" >>"$STATE/requeued" ;;
esac
"""
SLEEP = """
[ "$1" != 120 ] || exit 0
exec /bin/sleep "$1"
"""
PYTHON = """
case $* in
  *--version) echo warning; echo "saeq 9.9" ;;
  *after_serve*) cat "$STATE/left"; exit "$(cat "$STATE/left-code")" ;;
  *scratch) touch "$STATE/cleared" ;;
  *" serve "*)
    echo "$*" >"$STATE/serve-arguments"
    env >"$STATE/serve-environment"
    trap 'echo drained; exit 0' TERM
    [ ! -s "$STATE/serve-code" ] || { echo "it broke"; exit "$(cat "$STATE/serve-code")"; }
    touch "$STATE/serving"
    while :; do /bin/sleep 0.05; done ;;
esac
"""


class Job:
    """One job's script, and what it is told."""

    def __init__(self, tmp_path: Path, **options: object) -> None:
        self.state = tmp_path / "state"
        self._bin = tmp_path / "bin"
        (tmp_path / "tmp").mkdir()
        self.tmp = tmp_path / "tmp"
        self.folder: SlurmFolder = new_folder("w", tmp_path / "ups")
        self._process: subprocess.Popen[bytes] | None = None
        self.state.mkdir()
        self._bin.mkdir()
        programs = {"srun": SRUN, "squeue": SQUEUE, "scontrol": SCONTROL, "sleep": SLEEP}
        for name, text in {**programs, "saeq-python": PYTHON}.items():
            (self._bin / name).write_text(f"#!/bin/bash\n{text}")
            (self._bin / name).chmod(0o755)
        self.says(ends="N/A", job="PreemptTime=None", left="", **{"left-code": "0"})
        values = {"python": str(self._bin / "saeq-python"), "cpus": 3, **options}
        setup = values.pop("setup", None)
        parsed = WorkerOptions.model_validate(values)
        self.folder.write_script(sbatch_text(parsed, self.folder, "/store"))
        if setup is not None:
            self.folder.setup.write_text(str(setup))

    def says(self, **files: str) -> None:
        """What SLURM and the store answer."""
        for name, text in files.items():
            (self.state / name).write_text(text)

    def start(self, **environment: str) -> None:
        with open(self.folder.jobs_folder / "7.log", "ab") as log:
            self._process = subprocess.Popen(
                ["/bin/bash", str(self.folder.script)],
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={
                    "PATH": f"{self._bin}:{os.environ['PATH']}",
                    "STATE": str(self.state),
                    "TMPDIR": str(self.tmp),
                    "HOME": str(self.tmp),
                    "SLURM_JOB_ID": "7",
                    "SLURM_JOB_NODELIST": "n1",
                    "SLURMD_NODENAME": "n1",
                    "SLURM_JOB_PARTITION": "gpu",
                    "SLURM_CPUS_PER_TASK": "3",
                    **environment,
                },
            )

    def wait_for(self, name: str) -> None:
        deadline = time.monotonic() + 60.0
        while not (self.state / name).exists():
            assert time.monotonic() < deadline, self.log()
            assert self._process is not None
            assert self._process.poll() is None, self.log()
            time.sleep(0.02)

    def tell(self, number: signal.Signals) -> None:
        """SLURM signals the script alone."""
        assert self._process is not None
        self._process.send_signal(number)

    def tell_serve(self, number: signal.Signals) -> None:
        os.kill(int((self.job.path / "serve.pid").read_text()), number)

    def end(self) -> int:
        assert self._process is not None
        return self._process.wait(timeout=60.0)

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    @property
    def job(self) -> JobFolder:
        return self.folder.job("7")

    def left(self) -> list[str]:
        """Processes that outlive the script."""
        assert self._process is not None
        listing = ["ps", "-s", str(self._process.pid), "-o", "args="]
        return subprocess.run(listing, capture_output=True, text=True).stdout.splitlines()

    def log(self) -> str:
        return f"{self.job.output_log.read_text()}\n{self.job.lines()}"

    def ended(self) -> str:
        """What its last line of the stages says."""
        return self.job.lines().rstrip().splitlines()[-1].partition(" n1 ")[2]

    @property
    def num_requeued(self) -> int:
        path = self.state / "requeued"
        return len(path.read_text().split()) if path.exists() else 0


@pytest.fixture
def jobs() -> Iterator[list[Job]]:
    """Whatever is put in has ended after the test."""
    started: list[Job] = []
    yield started
    for job in started:
        job.stop()


def _started(jobs: list[Job], tmp_path: Path, **options: object) -> Job:
    job = Job(tmp_path, **options)
    jobs.append(job)
    job.start()
    job.wait_for("serving")
    return job


def test_it_says_how_far_it_came_and_serves_what_it_was_given(
    jobs: list[Job], tmp_path: Path
) -> None:
    job = _started(jobs, tmp_path, idle="5m")
    assert [mark.stage for mark in job.job.marks()] == ["allocated", "script", "environment"]
    assert job.job.marks()[-1].detail == f"saeq 9.9, {tmp_path}/bin/saeq-python"
    arguments = (job.state / "serve-arguments").read_text()
    assert "orchestrator.cli serve --plain --store /store --idle-for 300s" in arguments
    assert "--for" not in arguments, "there is no time limit"
    environment = (job.state / "serve-environment").read_text().splitlines()
    for line in [
        "SAEQ_NODE=slurm-7", "SAEQ_NODE_KIND=slurm", "SAEQ_NODE_HOST=n1",
        "SAEQ_NODE_LABELS=partition=gpu,job=7", f"SAEQ_STAGES={job.job.stages}",
        "OMP_NUM_THREADS=3",
    ]:  # fmt: skip
        assert line in environment
    (scratch,) = job.tmp.iterdir()
    assert f"TMPDIR={scratch}" in environment


def test_the_time_limit_drains_it_and_it_asks_for_another_turn(
    jobs: list[Job], tmp_path: Path
) -> None:
    job = _started(jobs, tmp_path)
    job.tell(signal.SIGUSR2)
    job.end()
    assert job.ended() == "ended requeued: time limit"
    assert job.num_requeued == 1
    assert job.job.serve_log.read_text() == "drained\n"
    assert (job.state / "cleared").exists()
    assert list(job.tmp.iterdir()) == []


@pytest.mark.parametrize(
    ("code", "words", "ended", "exit_code"),
    [
        ("3", "the queue is empty", "ended time limit, not requeued: the queue is empty", 0),
        ("4", "it came to nothing", "failed report: it came to nothing", 1),
    ],
)
def test_without_work_it_does_not_come_back(
    jobs: list[Job], tmp_path: Path, code: str, words: str, ended: str, exit_code: int
) -> None:
    job = _started(jobs, tmp_path)
    job.says(left=words, **{"left-code": code})
    job.tell(signal.SIGUSR2)
    assert job.end() == exit_code
    assert (job.ended(), job.num_requeued) == (ended, 0)


def test_a_store_that_does_not_answer_is_no_reason_to_stay_away(
    jobs: list[Job], tmp_path: Path
) -> None:
    job = _started(jobs, tmp_path)
    job.says(**{"left-code": "2"})
    job.tell(signal.SIGUSR2)
    job.end()
    assert job.num_requeued == 1


def test_within_the_grace_time_of_a_preemption_it_makes_room_at_once(
    jobs: list[Job], tmp_path: Path
) -> None:
    job = _started(jobs, tmp_path)
    job.says(job="   PreemptEligibleTime=2026-11-21T10:14:13 PreemptTime=2026-11-21T10:14:16")
    job.tell_serve(signal.SIGTERM)
    job.end()
    assert (job.ended(), job.num_requeued) == ("ended requeued: preempted", 1)


def test_what_slurm_ends_it_does_not_requeue_itself(jobs: list[Job], tmp_path: Path) -> None:
    job = _started(jobs, tmp_path)
    job.tell(signal.SIGTERM)
    job.tell_serve(signal.SIGTERM)
    assert job.end() == 143
    assert (job.ended(), job.num_requeued) == ("ended ended by SLURM", 0)
    assert list(job.tmp.iterdir()) == []
    assert job.left() == []


def test_a_serve_that_was_asked_to_stop_by_hand_is_done(jobs: list[Job], tmp_path: Path) -> None:
    job = _started(jobs, tmp_path)
    job.tell_serve(signal.SIGTERM)
    assert job.end() == 0
    assert (job.ended(), job.num_requeued) == ("ended nothing to do", 0)


def test_a_folder_that_goes_down_and_an_option_keep_it_from_coming_back(
    jobs: list[Job], tmp_path: Path
) -> None:
    job = _started(jobs, tmp_path)
    job.folder.going_down.touch()
    job.tell(signal.SIGUSR2)
    assert job.end() == 0
    assert (job.ended(), job.num_requeued) == ("ended time limit, not requeued", 0)


def test_serve_is_told_how_much_time_is_left(jobs: list[Job], tmp_path: Path) -> None:
    job = Job(tmp_path, signal="60")
    jobs.append(job)
    job.says(ends=time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(time.time() + 600)))
    job.start()
    job.wait_for("serving")
    arguments = (job.state / "serve-arguments").read_text().split()
    left_s = int(arguments[arguments.index("--for") + 1].removesuffix("s"))
    assert 440 <= left_s <= 541


def test_a_serve_that_breaks_is_a_failure_with_its_last_line(
    jobs: list[Job], tmp_path: Path
) -> None:
    job = Job(tmp_path)
    jobs.append(job)
    job.says(**{"serve-code": "2"})
    job.start()
    assert job.end() == 1
    assert job.ended() == "failed serve: it ended with code 2: it broke"
    failure = job.job.failure()
    assert failure is not None
    assert (failure.stage, failure.tail) == ("probe", "it broke")
    assert list(job.tmp.iterdir()) == []


@pytest.mark.parametrize(
    ("setup", "why"),
    [
        ("echo loading\nfalse\n", "the last line of the setup ended with code 1"),
        ("set -e\nfalse\ntrue\n", "the script ended with code 1"),
        ("exit 0\n", "the script ended with code 0"),
        ("no-such-command\n", "the last line of the setup ended with code 127"),
    ],
)
def test_a_setup_that_fails_is_said_before_python_exists(
    jobs: list[Job], tmp_path: Path, setup: str, why: str
) -> None:
    job = Job(tmp_path, setup=setup)
    jobs.append(job)
    job.start()
    assert job.end() == 1
    failure = job.job.failure()
    assert failure is not None
    assert (failure.stage, failure.why) == ("environment", why)
    assert list(job.tmp.iterdir()) == []


def test_a_python_without_saeq_is_a_failure_that_names_it(jobs: list[Job], tmp_path: Path) -> None:
    job = Job(tmp_path, python="/no/python")
    jobs.append(job)
    job.start()
    assert job.end() == 1
    assert "failed environment: /no/python cannot run saeq:" in job.ended()
    assert "No such file" in job.ended()


def test_the_setup_may_bring_the_python(jobs: list[Job], tmp_path: Path) -> None:
    brought = tmp_path / "brought"
    brought.mkdir()
    (brought / "python").symlink_to(tmp_path / "bin" / "saeq-python")
    job = _started(jobs, tmp_path, python=None, setup=f"set -eu\nPATH={brought}:$PATH\n")
    assert job.job.marks()[-1].detail == f"saeq 9.9, {brought}/python"


def test_what_a_killed_job_left_is_removed_and_a_living_neighbours_is_not(
    jobs: list[Job], tmp_path: Path
) -> None:
    job = Job(tmp_path)
    jobs.append(job)
    old, living = (job.tmp / f"saeq-job-{number}-abcdef" for number in (5, 6))
    for folder in (old, living):
        folder.mkdir()
    with open(living / "lock", "wb") as lock:
        holder = subprocess.Popen(
            ["flock", "--nonblock", str(lock.fileno())], pass_fds=[lock.fileno()]
        )
        assert holder.wait(timeout=30.0) == 0
        (old / "lock").touch()
        for folder in (old, living):
            os.utime(folder, (time.time() - 600,) * 2)
        job.start()
        job.wait_for("serving")
        assert not old.exists()
        assert living.exists()


def test_a_second_start_goes_on_in_the_same_files(jobs: list[Job], tmp_path: Path) -> None:
    job = _started(jobs, tmp_path)
    job.tell(signal.SIGUSR2)
    job.end()
    (job.state / "serving").unlink()
    job.start(SLURM_RESTART_COUNT="1")
    job.wait_for("serving")
    marks = job.job.marks()
    assert [mark.stage for mark in marks] == ["allocated", "script", "environment"]
    assert marks[1].detail == "start 2"
