"""Options of `saeq slurm up`, `keep`, `status` and `down`: how a worker job is asked for."""

from __future__ import annotations

from typing import Annotated

import typer


def _asked(flag: str, metavar: str, text: str) -> typer.models.OptionInfo:
    """An option that a profile may hold as well: not given means that nothing is said here."""
    option = typer.Option(flag, metavar=metavar, help=text, show_default=False)
    assert isinstance(option, typer.models.OptionInfo)
    return option


JobsOption = Annotated[
    str | None,
    _asked("--jobs", "N", "Worker jobs, each with a `saeq serve` of its own. [1]"),
]
NodesOption = Annotated[
    str | None,
    _asked("--nodes", "N", "Nodes of each job; with several one Ray spans them. [1]"),
]
GpusOption = Annotated[
    str | None, _asked("--gpus", "N", "GPUs of each node: 2, or a100:2 (`sinfo -o '%P %G'`).")
]
CpusOption = Annotated[
    str | None,
    _asked("--cpus", "N", "Processors of each node; about 8 for each GPU feed it well."),
]
MemoryOption = Annotated[str | None, _asked("--memory", "SIZE", "Memory of each node: 64G.")]
TimeOption = Annotated[
    str | None,
    _asked(
        "--time",
        "TIME",
        "Time limit: 04:00:00, 2-12:00, 4h. Short ones start sooner, and a job that meets its "
        "limit checkpoints and comes back. Else the partition's default.",
    ),
]
PartitionOption = Annotated[
    str | None, _asked("--partition", "NAME", "Partition, or several with commas (`sinfo`).")
]
AccountOption = Annotated[str | None, _asked("--account", "NAME", "Account that pays.")]
QosOption = Annotated[str | None, _asked("--qos", "NAME", "Quality of service.")]
ConstraintOption = Annotated[
    str | None, _asked("--constraint", "FEATURES", "Features that a node must have: 'a100|h100'.")
]
ExcludeOption = Annotated[
    str | None,
    _asked("--exclude", "NODES", "Nodes that are not wanted: n1,n[3-5]. Those in quarantine are "
           "excluded anyway."),
]  # fmt: skip
ThrottleOption = Annotated[
    str | None, _asked("--array-throttle", "N", "Of the jobs, how many may run at once.")
]
ElasticOption = Annotated[
    str | None,
    _asked(
        "--elastic",
        "MIN:MAX",
        "As many jobs as there is work that nobody holds, 0:8 for none to eight; instead of "
        "--jobs. Needs its keeper: leave it in the foreground, or --detach.",
    ),
]
SetupOption = Annotated[
    str | None,
    _asked("--setup", "FILE", "Shell file that each job sources first: module load, conda "
           "activate, export."),
]  # fmt: skip
PythonOption = Annotated[
    str | None,
    _asked("--python", "PATH", "The Python that has saeq, as the nodes see it. Else the setup's, "
           "else the one that runs here."),
]  # fmt: skip
SignalOption = Annotated[
    str | None,
    _asked("--signal", "TIME", "So long before the time limit trials are checkpointed. [3m]"),
]
RequeueOption = Annotated[
    bool | None,
    typer.Option(
        "--requeue/--no-requeue",
        help="Whether a job comes back after its time limit and after a preemption. [requeue]",
        show_default=False,
    ),
]
IdleOption = Annotated[
    str | None,
    _asked("--idle", "TIME", "A job that has had nothing to do for so long ends. [10m]"),
]
FolderOption = Annotated[
    str | None,
    _asked("--folder", "PATH", "Where scripts and logs go; all nodes have to see it. Else "
           "the profile's, else $SAEQ_SLURM_FOLDER, else ~/.saeq/slurm."),
]  # fmt: skip
EnvOption = Annotated[
    list[str] | None,
    typer.Option(
        "--env",
        metavar="NAME=VALUE",
        help="A variable for the jobs, beside those that are set here. Several times if need be.",
        show_default=False,
    ),
]
SbatchOption = Annotated[
    list[str] | None,
    typer.Option(
        "--sbatch",
        metavar="OPTION",
        help="Any other option of sbatch: reservation=NAME, exclusive. Several times if need be; "
        "or at the end, after `--`, as sbatch takes them.",
        show_default=False,
    ),
]
ExtraArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="SBATCH_OPTION", help="After `--`, as sbatch takes it: -- --reservation=NAME."
    ),
]
ProfileOption = Annotated[
    str | None,
    typer.Option(
        "--profile",
        metavar="NAME|FILE",
        help="Options that a lab wrote down once: a named table [tool.saeq.slurm.profiles.NAME], "
        "or another file. What stands in [tool.saeq.slurm] of the nearest saeq.toml holds anyway.",
        show_default=False,
    ),
]
NameOption = Annotated[
    str,
    typer.Option("--name", metavar="NAME", help="What the jobs and their folder are called."),
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Show the script and the command; submit nothing.")
]
DetachOption = Annotated[
    bool,
    typer.Option("--detach", help="Leave a keeper in the background, which outlives the login."),
]
WithinOption = Annotated[
    list[str] | None,
    typer.Option(
        "--within",
        metavar="STAGE=TIME",
        help="A stage's deadline, such as environment=30m (or =none); after it the job is tried "
        "on another node. Several times if need be.",
        show_default=False,
    ),
]
EveryOption = Annotated[
    str | None,
    typer.Option(
        "--every",
        metavar="TIME",
        help="How often SLURM is asked. Else every 3 s while jobs start, every 15 s later.",
        show_default=False,
    ),
]
NamesArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="NAME", help="Of an `up`; else all.", show_default=False),
]
