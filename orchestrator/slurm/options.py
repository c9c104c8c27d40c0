"""What is asked of SLURM for each worker job, checked before anything is submitted."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_serializer,
    field_validator,
    model_validator,
)

from orchestrator.redaction import is_secret_name
from orchestrator.slurm.quantities import (
    format_time,
    parse_elastic,
    parse_gpus,
    parse_hosts,
    parse_memory,
    parse_sbatch_options,
    parse_time,
    parse_whole_seconds,
)

OURS: Mapping[str, str] = {
    "account": "account",
    "array": "jobs and array_throttle",
    "constraint": "constraint",
    "cpus-per-task": "cpus",
    "error": "folder: errors go into the job's log",
    "exclude": "exclude",
    "export": "environment",
    "gpus": "gpus",
    "gpus-per-node": "gpus",
    "gres": "gpus; other devices are not handed on",
    "job-name": "the name of the `up`",
    "mem": "memory",
    "nodes": "nodes",
    "no-requeue": "requeue = false",
    "ntasks": "cpus: a job is one task a node",
    "ntasks-per-node": "cpus: a job is one task a node",
    "open-mode": "nothing: it is append",
    "output": "folder",
    "parsable": "nothing: it is set",
    "partition": "partition",
    "qos": "qos",
    "requeue": "requeue",
    "signal": "signal",
    "time": "time",
    "wait": "`saeq slurm status`",
    "wrap": "setup",
}
"""Options of sbatch that have a name of their own here, or that the script depends on."""

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class WorkerOptions(BaseModel):
    """One worker job, and how many of them. Fields are told by their aliases, as people know them.

    `None` means "not asked for": SLURM's or the partition's own default holds.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    jobs: int = Field(default=1, ge=1, le=10_000)
    """Worker jobs, each with a `saeq serve` of its own."""
    nodes: int = Field(default=1, ge=1)
    """Nodes of each job; with several, one Ray spans them."""
    gpus: Annotated[str | None, BeforeValidator(parse_gpus)] = None
    """GPUs of each node: 2, or a100:2."""
    cpus: int | None = Field(default=None, ge=1)
    """Processors of each node."""
    memory: Annotated[str | None, BeforeValidator(parse_memory)] = None
    """Memory of each node: 64G; 0 is all of it."""
    time_s: Annotated[int | None, BeforeValidator(parse_time)] = Field(default=None, alias="time")
    """Time limit: 04:00:00, 2-12, 4h; a bare number is minutes, as sbatch has it."""
    partition: str | None = None
    """Partition, or several with commas."""
    account: str | None = None
    """Account that pays."""
    qos: str | None = None
    """Quality of service."""
    constraint: str | None = None
    """Features that a node must have."""
    exclude: Annotated[tuple[str, ...], BeforeValidator(parse_hosts)] = ()
    """Nodes that are not wanted: n1,n[3-5]."""
    array_throttle: int | None = Field(default=None, ge=1)
    """Of the jobs, how many may run at once."""
    elastic: Annotated[tuple[int, int] | None, BeforeValidator(parse_elastic)] = None
    """Least and most jobs, as there is work: 0:8."""
    setup: Path | None = None
    """Shell file that each job sources first: module load, conda activate."""
    python: str | None = None
    """The Python that saeq is installed for, as the nodes see it. Else: the one that the setup
    brings, else the one that `saeq slurm up` runs on."""
    signal_s: Annotated[int, BeforeValidator(parse_whole_seconds)] = Field(
        default=180, alias="signal"
    )
    """How long before the time limit trials are checkpointed and the job is requeued."""
    requeue: bool = True
    """Whether a job comes back after its time limit and after a preemption."""
    idle_s: Annotated[int, BeforeValidator(parse_whole_seconds)] = Field(default=600, alias="idle")
    """A job that has had nothing to do for so long ends, and does not come back."""
    folder: Path | None = None
    """Where the jobs' files are, seen by all nodes. Else ~/.saeq/slurm."""
    environment: Mapping[str, str] = Field(default_factory=dict)
    """Variables set in each job, beside those of whoever submits."""
    sbatch: Annotated[Mapping[str, str], BeforeValidator(parse_sbatch_options)] = Field(
        default_factory=dict
    )
    """Any other option of sbatch by its long name: reservation, licenses, mail-type."""

    @field_validator("gpus", "memory", "time_s", "elastic", mode="wrap")
    @classmethod
    def _none_is_not_asked_for(cls, value: Any, check: Any) -> Any:
        return None if value is None else check(value)

    @field_serializer("time_s")
    def _as_written(self, value: int | None) -> str | None:
        return None if value is None else format_time(value)

    @field_validator("partition", "account", "qos", "constraint")
    @classmethod
    def _one_word(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"[^\s'\"\\$`;<>]+", value):
            raise ValueError(
                f"must be one word without quotes, as sbatch takes it; got {value!r}; "
                "write it as `sinfo` or `sacctmgr` shows it"
            )
        return value

    @field_validator("environment")
    @classmethod
    def _no_secrets(cls, value: Mapping[str, str]) -> Mapping[str, str]:
        for name in value:
            if not _VARIABLE.fullmatch(name):
                raise ValueError(f"{name!r} is no name of a variable; use letters, digits and _")
            if is_secret_name(name):
                raise ValueError(
                    f"{name} looks like a secret and would stand in the job's script; export it "
                    "before `saeq slurm up` (sbatch hands your environment on), or set it in setup"
                )
        return value

    @field_validator("sbatch")
    @classmethod
    def _not_ours(cls, value: Mapping[str, str]) -> Mapping[str, str]:
        for name, given in value.items():
            if name in OURS:
                raise ValueError(f"--{name} is set by saeq; use {OURS[name]}")
            if "\n" in given:
                raise ValueError(f"--{name} must be one line; got {given!r}")
        return value

    @model_validator(mode="after")
    def _times_fit(self) -> WorkerOptions:
        if self.time_s is not None and self.signal_s >= self.time_s:
            raise ValueError(
                f"signal ({self.signal_s} s before the end) must be below time ({self.time_s} s); "
                "raise time or lower signal"
            )
        return self

    @property
    def num_gpus(self) -> int:
        """GPUs of each node."""
        return int(self.gpus.rpartition(":")[2]) if self.gpus is not None else 0


def keys() -> list[str]:
    """The options as people write them."""
    return [field.alias or name for name, field in WorkerOptions.model_fields.items()]
