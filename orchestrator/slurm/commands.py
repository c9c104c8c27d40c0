"""SLURM's own commands: what they are asked, what they answer, and their words when they refuse."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.slurm.answers import expand_hosts, parse_duration_s, parse_time

ANSWER_WITHIN_S = 60.0
"""A busy controller takes half a minute; after that it is down or cut off."""

SEPARATOR = "\x1f"
JOB_FORMAT = SEPARATOR.join(["%i", "%T", "%N", "%P", "%V", "%S", "%L", "%l", "%r", "%k", "%j"])
"""Id, state, nodes, partition, submitted, started, time left, limit, reason, comment, name."""

WAITING_STATES = frozenset({"PENDING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT"})
GOING_STATES = frozenset(
    {"RUNNING", "CONFIGURING", "COMPLETING", "SUSPENDED", "STOPPED", "RESIZING", "SIGNALING",
     "STAGE_OUT"}
)  # fmt: skip

NO_ANSWER = re.compile(
    r"unable to contact slurm controller|socket timed out|connection (refused|reset|timed out)"
    r"|zero bytes were transmitted|communication connection failure"
    r"|slurm temporarily unable|DNS SRV lookup failed|could not establish a configuration source"
    r"|controller.*(not responding|busy)|munge",
    re.IGNORECASE,
)
UNKNOWN_JOB = re.compile(r"invalid job id|job \S+ not found", re.IGNORECASE)


class SlurmError(ValueError):
    """Something about SLURM that its user can mend; the message says how."""


class NoSlurm(SlurmError):
    """SLURM's commands are not on this machine."""

    def __init__(self, program: str) -> None:
        super().__init__(program)
        self.program = program

    def __str__(self) -> str:
        return (
            f"there is no {self.program!r} on this machine, so it cannot reach a SLURM; go to a "
            "login node of the cluster (`module load slurm` on some), or use `saeq run` here"
        )


class NoAnswer(SlurmError):
    """SLURM's controller is away or slow: the same request may succeed later."""

    def __init__(self, command: str, words: str) -> None:
        super().__init__(command, words)
        self.command, self.words = command, words

    def __str__(self) -> str:
        return (
            f"SLURM does not answer `{self.command}`: {self.words}; its jobs are not touched by "
            "that: `scontrol ping` says whether its controller is up"
        )


class Refused(SlurmError):
    """SLURM said no."""

    def __init__(self, command: str, words: str) -> None:
        super().__init__(command, words)
        self.command, self.words = command, words

    def __str__(self) -> str:
        from orchestrator.slurm.reasons import refusal_in_plain_words

        plain = refusal_in_plain_words(self.words)
        return f"`{self.command}` was refused. SLURM says: {self.words}" + (
            f"\n{plain}" if plain else ""
        )


@dataclass(frozen=True)
class Job:
    """A job as `squeue` shows it."""

    id: str
    """`12`, or `12_3` for a task of an array."""
    state: str
    """RUNNING, PENDING, ...; what has just ended is listed for some minutes, too."""
    hosts: tuple[str, ...]
    """SLURM's names of the nodes that it has; empty while it waits."""
    partition: str
    submitted_at: float | None
    starts_at: float | None
    """When it started, or is expected to; None: SLURM does not know. Seconds since 1970."""
    left_s: float | None
    """Until its time limit; None: without one, or not known."""
    limit_s: float | None
    reason: str
    """Why it waits, or how it ended, in SLURM's word."""
    comment: str
    name: str

    @property
    def waits(self) -> bool:
        """Whether it has no nodes yet, or again."""
        return self.state in WAITING_STATES

    @property
    def goes(self) -> bool:
        """Whether it has nodes."""
        return self.state in GOING_STATES

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come of it."""
        return not self.waits and not self.goes


@dataclass(frozen=True)
class JobDetails:
    """A job as `scontrol show job`, or accounting, tells it; also for a while after its end."""

    id: str
    state: str
    reason: str
    exit_code: int
    signal: int
    """By which its script was ended; 0: by none."""
    restarts: int
    hosts: tuple[str, ...]
    output: str
    """The file that its script prints into; empty where that is not known."""
    excluded: tuple[str, ...]


def submit(script: Path, options: Sequence[str] = ()) -> str:
    """`sbatch SCRIPT`; the job's id.

    Args:
        options: for sbatch, before those in the script's own #SBATCH lines.

    Raises:
        NoSlurm, NoAnswer: then the job may be there all the same; look for its name.
        Refused: with SLURM's words.
    """
    answer = _run(["sbatch", "--parsable", *options, str(script)])
    return answer.strip().splitlines()[-1].split(";")[0]


def jobs(ids: Iterable[str] | None = None) -> list[Job]:
    """This user's jobs, also those that ended within minutes; or the ones of some ids.

    An id that SLURM has forgotten is not in the answer; an array's stands for all of its tasks.
    Raises NoSlurm, NoAnswer.
    """
    command = ["squeue", "--noheader", "--all", "--array", "--states=all", f"--format={JOB_FORMAT}"]
    lines = _run([*command, f"--user={user_name()}"]).splitlines()
    found = [job for job in map(_parse_job, lines) if job is not None]
    if ids is None:
        return found
    wanted = set(ids)
    return [job for job in found if job.id in wanted or job.id.split("_")[0] in wanted]


def details(job: str) -> JobDetails | None:
    """What `scontrol show job` knows, else accounting where there is one; None: forgotten.

    Raises NoSlurm, NoAnswer.
    """
    try:
        line = _run(["scontrol", "--oneliner", "show", "job", job])
    except Refused as error:
        if UNKNOWN_JOB.search(error.words):
            return _accounted(job)
        raise
    return _parse_details(line.splitlines()[0])


def cancel(ids: Sequence[str], signal: str | None = None, *, batch: bool = False) -> None:
    """`scancel`; jobs that are gone already are no error. Raises NoSlurm, NoAnswer, Refused.

    Args:
        signal: sent instead of ending the jobs: `USR2`.
        batch: to the script alone, instead of its steps.
    """
    if not ids:
        return
    options = [] if signal is None else [f"--signal={signal}"]
    _run(["scancel", "--quiet", *options, *(["--batch"] if batch else []), *ids])


def release(job: str) -> None:
    """Let a held job wait for nodes again. Raises NoSlurm, NoAnswer, Refused."""
    _run(["scontrol", "release", job])


def exclude(job: str, hosts: Sequence[str]) -> None:
    """Keep a waiting job from some nodes. Raises NoSlurm, NoAnswer, Refused."""
    _run(["scontrol", "update", f"JobId={job}", f"ExcNodeList={','.join(hosts)}"])


def estimate(script: Path, options: Sequence[str] = ()) -> str:
    """When and where SLURM would start a script, in its words; nothing is submitted.

    Raises NoSlurm, NoAnswer, Refused.
    """
    done = _call(["sbatch", "--test-only", *options, str(script)])
    return _words(done.stderr or done.stdout)


@dataclass(frozen=True)
class Partition:
    """A partition as `sinfo` shows it."""

    name: str
    is_default: bool
    limit_s: float | None
    hosts: Mapping[str, str]
    """State of each node: idle, mixed, allocated, drained, down, ..."""


def partitions() -> list[Partition]:
    """All partitions that this user sees. Raises NoSlurm, NoAnswer, Refused."""
    text = _run(["sinfo", "--noheader", "--Node", f"--format=%P{SEPARATOR}%l{SEPARATOR}%N"
                 f"{SEPARATOR}%T"])  # fmt: skip
    found: dict[str, dict[str, str]] = {}
    limits: dict[str, str] = {}
    for line in text.splitlines():
        name, limit, host, state = line.split(SEPARATOR)
        found.setdefault(name, {})[host] = state
        limits[name] = limit
    return [
        Partition(name.rstrip("*"), name.endswith("*"), parse_duration_s(limits[name]), hosts)
        for name, hosts in found.items()
    ]


def drained(hosts: Iterable[str] = ()) -> dict[str, str]:
    """Nodes that take no jobs (drained, down, failing) and the reason that was given for it.

    Args:
        hosts: only those; else all. Raises NoSlurm, NoAnswer, Refused.
    """
    text = _run(["sinfo", "--noheader", "--list-reasons", "--Node",
                 f"--format=%N{SEPARATOR}%T{SEPARATOR}%E"])  # fmt: skip
    wanted, found = set(hosts), {}
    for line in text.splitlines():
        host, state, reason = line.split(SEPARATOR)
        if not wanted or host in wanted:
            found[host] = f"{state.rstrip('*~#!%$@^-')}: {reason}"
    return found


def version() -> str:
    """As SLURM says it: `slurm-wlm 22.05.8`. Raises NoSlurm, NoAnswer, Refused."""
    return _run(["sinfo", "--version"]).strip()


def user_name() -> str:
    """Under which this process's jobs run."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # in a container without an entry for the user
        return str(os.getuid())


def _parse_job(line: str) -> Job | None:
    fields = line.split(SEPARATOR, 10)
    if len(fields) != 11:
        return None
    job, state, hosts, partition, submitted, starts, left, limit, reason, comment, name = fields
    return Job(
        id=job,
        state=state,
        hosts=expand_hosts(hosts),
        partition=partition,
        submitted_at=parse_time(submitted),
        starts_at=parse_time(starts),
        left_s=parse_duration_s(left),
        limit_s=parse_duration_s(limit),
        reason="" if reason == "None" else reason,
        comment="" if comment == "(null)" else comment,
        name=name,
    )


def _parse_details(line: str) -> JobDetails:
    fields = dict(re.findall(r"(?:^|\s)([A-Za-z/:]+)=(.*?)(?=\s+[A-Za-z/:]+=|\s*$)", line))
    code, _, signal = fields.get("ExitCode", "0:0").partition(":")
    reason = fields.get("Reason", "")
    return JobDetails(
        id=fields.get("JobId", ""),
        state=fields.get("JobState", ""),
        reason="" if reason == "None" else reason,
        exit_code=int(code),
        signal=int(signal or 0),
        restarts=int(fields.get("Restarts", "0")),
        hosts=expand_hosts(fields.get("NodeList", "")),
        output=fields.get("StdOut", ""),
        excluded=expand_hosts(fields.get("ExcNodeList", "")),
    )


def _accounted(job: str) -> JobDetails | None:
    """From slurmdbd, which many small clusters do not have."""
    fields = "JobIDRaw,State,Reason,ExitCode,Restarts,NodeList"
    try:
        text = _run(["sacct", "-n", "-X", "--parsable2", f"--jobs={job}", f"--format={fields}"])
    except SlurmError:
        return None
    rows = [line.split("|") for line in text.splitlines() if line.count("|") == 5]
    if not rows:
        return None
    number, state, reason, exit_code, restarts, hosts = rows[-1]
    code, _, signal = exit_code.partition(":")
    return JobDetails(
        id=number,
        state=state.split(" ")[0],  # "CANCELLED by 1000"
        reason="" if reason == "None" else reason,
        exit_code=int(code or 0),
        signal=int(signal or 0),
        restarts=int(restarts or 0),
        hosts=expand_hosts(hosts),
        output="",
        excluded=(),
    )


def _run(command: Sequence[str]) -> str:
    return _call(command).stdout


def _call(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    program = command[0]
    if shutil.which(program) is None:
        raise NoSlurm(program)
    shown = " ".join(part for part in command if SEPARATOR not in part)
    try:
        done = subprocess.run(
            command,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=ANSWER_WITHIN_S,
        )
    except subprocess.TimeoutExpired as error:
        raise NoAnswer(shown, f"nothing within {ANSWER_WITHIN_S:.0f} s") from error
    if done.returncode == 0:
        return done
    words = _words(done.stderr or done.stdout)
    raise NoAnswer(shown, words) if NO_ANSWER.search(words) else Refused(shown, words)


def _environment() -> Mapping[str, str]:
    """Ours, less what a job around us would pass on into the jobs that we submit."""
    keep = ("SLURM_CONF", "SLURM_CLUSTERS", "SLURM_CONF_SERVER", "SLURM_JWT")
    ours = {n: v for n, v in os.environ.items() if not n.startswith("SLURM_") or n in keep}
    return {**ours, "SLURM_TIME_FORMAT": "standard", "LC_ALL": "C"}


def _words(stderr: str) -> str:
    """SLURM's message as one line, less its repeated `sbatch: error: `."""
    lines = [re.sub(r"^\w+: (error: |fatal: )?", "", line.strip()) for line in stderr.splitlines()]
    return "; ".join(line for line in lines if line) or "(it gave no reason)"
