"""Why a job waits, or how it ended, in plain words and with what to do about it.

SLURM's words: `man squeue` (JOB REASON CODES, JOB STATE CODES), slurm.schedmd.com/job_reason_codes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Reason:
    """One of SLURM's reasons, explained."""

    words: str
    """What it means, as a part of a sentence."""
    way_out: str = ""
    """What its user can do; empty: wait."""
    is_hopeless: bool = False
    """Whether it stays so until somebody changes the job or the cluster."""
    is_held: bool = False
    """Whether SLURM will not look at the job again by itself."""


LIMIT_OF: Mapping[str, str] = {
    "Cpu": "CPUs",
    "Gres": "GPUs",
    "Mem": "memory",
    "Memory": "memory",
    "Node": "nodes",
    "Wall": "time",
    "Wallduration": "time",
    "Billing": "billing units",
    "Bb": "burst buffer",
    "License": "licences",
    "Energy": "energy",
    "Jobs": "running jobs",
    "Submitjobs": "submitted jobs",
}
SMALLER = "`saeq slurm up` with fewer --jobs, --gpus or --cpus, another --qos or --account, or wait"

_REASONS: Mapping[str, Reason] = {
    "Priority": Reason("jobs of higher priority come first"),
    "Resources": Reason("it is next: it waits for nodes to become free"),
    "BeginTime": Reason("it may not begin yet: SLURM lets a requeued job wait about two minutes"),
    "JobRequeued": Reason("it was requeued and waits to start again"),
    "Cleaning": Reason("its last run is still being cleared up on its node"),
    "Prolog": Reason("the cluster's prolog is running on its node"),
    "WaitingForScheduling": Reason("SLURM has not looked at it yet"),
    "None": Reason("SLURM has not looked at it yet"),
    "JobArrayTaskLimit": Reason(
        "--array-throttle lets no more of these jobs run at once",
        "raise it: `scontrol update JobId=ID ArrayTaskThrottle=N`",
    ),
    "Reservation": Reason("its reservation has not begun"),
    "Licenses": Reason("it waits for licences that others hold"),
    "ReqNodeNotAvail": Reason(
        "nodes that it needs are down, drained or reserved",
        "`sinfo -R` says why; ask for less, or for another --partition or --constraint; near a "
        "maintenance a shorter --time lets it in before",
    ),
    "Nodes_required_for_job_are_DOWN": Reason(
        "the nodes that it could run on are down, drained, or reserved for others",
        "`sinfo -R` says why; another --partition, or wait",
    ),
    "NodeDown": Reason("a node that it needs is down", "`sinfo -R` says why"),
    "PartitionDown": Reason("its partition is closed for now", "another --partition, or wait"),
    "PartitionInactive": Reason("its partition starts no jobs now", "another --partition, or wait"),
    "PartitionTimeLimit": Reason(
        "it asks for more time than its partition allows",
        "lower --time (`sinfo -o '%P %l'` shows the limits), or another --partition",
        is_hopeless=True,
    ),
    "PartitionNodeLimit": Reason(
        "it asks for more nodes than its partition has, or for ones that are not up",
        "lower --nodes, or another --partition",
        is_hopeless=True,
    ),
    "PartitionConfig": Reason(
        "no node of its partition could ever hold it",
        "lower --gpus, --cpus or --memory, or another --partition (`sinfo -N -l` shows nodes)",
        is_hopeless=True,
    ),
    "BadConstraints": Reason(
        "no node satisfies what it asks for",
        "another --constraint, --gpus or --memory; fewer nodes in --exclude",
        is_hopeless=True,
    ),
    "AccountNotAllowed": Reason(
        "its account may not use this partition",
        "another --account or --partition",
        is_hopeless=True,
    ),
    "QOSNotAllowed": Reason(
        "its QOS may not be used here", "another --qos or --partition", is_hopeless=True
    ),
    "InvalidAccount": Reason(
        "its account is not known to SLURM", "another --account", is_hopeless=True
    ),
    "InvalidQOS": Reason("its QOS is not known to SLURM", "another --qos", is_hopeless=True),
    "AccountingPolicy": Reason("a limit of its account is reached", SMALLER),
    "Dependency": Reason("it waits for another job to end"),
    "DependencyNeverSatisfied": Reason(
        "the job that it waits for has failed",
        "`saeq slurm down`, then up again",
        is_hopeless=True,
    ),
    "JobHeldUser": Reason(
        "it was held by its owner", "`scontrol release ID` lets it go on", is_held=True
    ),
    "JobHeldAdmin": Reason(
        "it was held by an administrator, or by SLURM after failed launches",
        "`scontrol release ID`; if that is refused, ask the cluster's administrators",
        is_held=True,
    ),
    "launch_failed_requeued_held": Reason(
        "SLURM could not launch it on its node, and holds it",
        "`scontrol release ID` lets it try again",
        is_held=True,
    ),
    "job_requeued_in_held_state": Reason(
        "it was requeued and held", "`scontrol release ID` lets it go on", is_held=True
    ),
    "JobHoldMaxRequeue": Reason(
        "its launch failed again and again, and SLURM holds it",
        "`saeq slurm down`, then up again",
        is_held=True,
    ),
    "ReservationDeleted": Reason(
        "its reservation is gone", "`saeq slurm up` without it", is_hopeless=True
    ),
    # Reasons of an end.
    "JobLaunchFailure": Reason(
        "SLURM could not launch its script: its output folder is missing, not shared, or full",
        "give --folder a place that every node sees",
    ),
    "NonZeroExitCode": Reason("its script failed"),
    "TimeLimit": Reason("it reached its time limit"),
    "NodeFailed": Reason("its node failed"),
    "OutOfMemory": Reason("it used more memory than it asked for", "raise --memory"),
    "RaisedSignal": Reason("its script was ended by a signal"),
    "SystemFailure": Reason("SLURM itself failed"),
}

_STATES: Mapping[str, Reason] = {
    "COMPLETED": Reason("it ended by itself"),
    "CANCELLED": Reason("it was cancelled"),
    "FAILED": Reason("its script failed"),
    "TIMEOUT": Reason("it reached its time limit"),
    "NODE_FAIL": Reason("its node failed"),
    "PREEMPTED": Reason("it was preempted"),
    "BOOT_FAIL": Reason("its node did not boot"),
    "DEADLINE": Reason("it could not end before its deadline"),
    "OUT_OF_MEMORY": Reason("it used more memory than it asked for", "raise --memory"),
    "REVOKED": Reason("it was moved to another cluster"),
}

_LIMIT = re.compile(r"(QOS|Assoc|)(Max|Grp|Min)([A-Z][A-Za-z]*)")

_REFUSALS: Sequence[tuple[str, str]] = (
    (r"invalid partition", "`sinfo -o %P` lists the partitions; give one with --partition."),
    (r"invalid account|account.*partition combination",
     "`sacctmgr show associations user=$USER` lists accounts and partitions that go together; give "
     "--account."),
    (r"invalid qos|invalid qos specification",
     "`sacctmgr show associations user=$USER format=account,partition,qos` lists yours."),
    (r"requested node configuration is not available",
     "No node has what was asked for: lower --gpus, --cpus or --memory, check --constraint, or "
     "take another --partition (`sinfo -N -l`, `sinfo -o '%P %G %c %m'`)."),
    (r"invalid generic resource|gres",
     "The cluster does not know such GPUs: `sinfo -o '%P %G'` shows what they are called; "
     "--gpus 2 or --gpus NAME:2."),
    (r"time limit", "Lower --time: `sinfo -o '%P %l'` shows each partition's limit."),
    (r"submi.*limit|QOSMaxSubmitJob|AssocMaxSubmitJob|AssocGrpSubmit",
     "You have as many jobs as you may have: fewer --jobs, or `squeue --me` and `scancel`."),
    (r"accounting/qos policy|job violates",
     "It is beyond a limit of your account: " + SMALLER + "."),
    (
        r"reservation",
        "`scontrol show reservation` lists them, with who may use each and from when to when.",
    ),
    (r"invalid feature", "`sinfo -o '%N %f'` lists features for --constraint."),
    (r"invalid node name|node name", "`sinfo -N` lists the nodes' names for --exclude."),
    (r"node count", "More nodes than the partition has: lower --nodes."),
    (r"memory specification", "`sinfo -N -l` shows the nodes' memory (in MB); lower --memory."),
    (r"cpu count|tasks per node|more processors",
     "`sinfo -N -l` shows the nodes' CPUs; lower --cpus."),
    (r"unrecognized option|invalid option",
     "This SLURM does not have that option; `man sbatch` lists its own."),
    (r"permission denied|access.*denied|user.*not permitted",
     "You may not do that here; another --partition or --account, or ask the administrators."),
    (r"partition.*(down|inactive|drain)", "The partition is closed for now: another --partition."),
)  # fmt: skip


def explain(reason: str) -> Reason:
    """A pending reason in plain words; one that is not known is told as SLURM says it."""
    told = reason.strip()
    code = told.split(",")[0].strip("()")
    known = _REASONS.get(code) or _REASONS.get(code.replace(" ", "_"))
    if known is None and told:
        known = _by_beginning(told)
    if known is not None:
        return _with_details(known, told)
    if not told:
        return _REASONS["None"]
    limit = _LIMIT.fullmatch(code)
    return _limit(limit, code) if limit else Reason(f"SLURM says {told}")


def how_it_ended(state: str, reason: str = "", exit_code: int = 0, signal: int = 0) -> Reason:
    """The end of a job in plain words."""
    by_reason = _REASONS.get(reason.split(",")[0])
    if state in ("FAILED", "NODE_FAIL", "BOOT_FAIL") and by_reason and reason != "NonZeroExitCode":
        return by_reason
    known = _STATES.get(state, Reason(f"SLURM says {state}{' ' if reason else ''}{reason}"))
    details = [f"exit code {exit_code}"] if exit_code else []
    details += [f"signal {signal}"] if signal else []
    return Reason(" with ".join([known.words, *details]), known.way_out)


def refusal_in_plain_words(words: str) -> str:
    """What to do about a refusal of sbatch; empty where nothing better than its words is known."""
    for pattern, way_out in _REFUSALS:
        if re.search(pattern, words, re.IGNORECASE):
            return way_out
    return ""


def _by_beginning(told: str) -> Reason | None:
    """Reasons that come as sentences: `launch failed requeued held`, `Nodes required for ...`."""
    flat = told.strip("()").replace(" ", "_").lower()
    for code, reason in _REASONS.items():
        if "_" in code and flat.startswith(code.lower()):
            return reason
    return None


def _with_details(reason: Reason, told: str) -> Reason:
    """SLURM adds the names of nodes after a comma."""
    _, _, nodes = told.partition("UnavailableNodes:")
    if not nodes:
        return reason
    words = f"{reason.words} ({nodes.strip()})"
    return Reason(words, reason.way_out, reason.is_hopeless, reason.is_held)


def _limit(found: re.Match[str], code: str) -> Reason:
    """QOSMaxGRESPerUser, AssocGrpCPUMinutesLimit, ...: whose limit, and of what."""
    whose = "its account" if found[1] == "Assoc" else "its QOS"
    what = re.sub(r"(Limit|Reached)$", "", found[3])
    per = re.search(r"Per(User|Account|Job|Node)", what)
    thing = re.sub(r"Per(User|Account|Job|Node).*", "", what)
    minutes = re.sub(r"(Run)?Minutes$", "", thing)
    name = LIMIT_OF.get(minutes.capitalize(), LIMIT_OF.get(minutes, minutes))
    shown = f"{name} times minutes" if minutes != thing else name
    each = f" per {per[1].lower()}" if per else ""
    if found[2] == "Min":
        return Reason(f"it asks for less than {whose} wants in {shown}{each} ({code})",
                      "ask for more, or another --qos", is_hopeless=True)  # fmt: skip
    alone = per is not None and per[1] in ("Job", "Node")
    words = (
        f"it asks for more {shown} than {whose} allows{each} ({code})"
        if alone
        else f"{whose} is at its limit of {shown}{each} ({code})"
    )
    return Reason(words, SMALLER, is_hopeless=alone)
