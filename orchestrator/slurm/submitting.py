"""Handing worker jobs of one `saeq slurm up` to SLURM, so that none is lost or submitted twice."""

from __future__ import annotations

import sys
import tempfile
import time
import uuid
from collections.abc import Iterable
from pathlib import Path

from orchestrator.nodes.quarantine import hosts_kept_out
from orchestrator.slurm import commands
from orchestrator.slurm.commands import NoAnswer, NoSlurm, Refused, SlurmError
from orchestrator.slurm.folder import SlurmFolder, UpRecord
from orchestrator.slurm.options import WorkerOptions
from orchestrator.slurm.script import sbatch_text
from orchestrator.store import Store

COMMENT = "saeq:"
"""Begins the comment of our jobs: then the folder, then a word that no other submission has."""
LOOK_AGAIN_S = 5.0


def submit_jobs(
    folder: SlurmFolder,
    record: UpRecord,
    store: Store,
    jobs: int,
    excluded: Iterable[str] = (),
) -> tuple[UpRecord, str]:
    """Submit worker jobs and note it in the folder; answers with the new record and their id.

    Hosts in quarantine are excluded. With several jobs, the id is an array's.

    Args:
        excluded: nodes that are not wanted, beside those of the options.

    Raises:
        SlurmError, StoreError, BadFolder.
    """
    options = WorkerOptions.model_validate(dict(record.options))
    away = tuple(dict.fromkeys([*excluded, *hosts_to_avoid(store)]))
    folder.write_script(
        sbatch_text(options, folder, store.url, jobs=jobs, exclude=away, python=sys.executable),
        None if folder.setup.exists() else options.setup,  # as it was at the time of `up`
    )
    job = _submit_once(folder, options)
    record = record.model_copy(update={"submitted": (*record.submitted, job)})
    folder.write_record(record)
    return record, job


def hosts_to_avoid(store: Store) -> list[str]:
    """SLURM's names of the nodes that are in quarantine. Raises SlurmError, StoreError."""
    kept_out = {standing.host for standing in hosts_kept_out(store)}
    if not kept_out:
        return []
    known = {host for partition in commands.partitions() for host in partition.hosts}
    # A machine may call itself by its full name, and SLURM by its short one, or the other way.
    short = {host.partition(".")[0] for host in kept_out}
    return sorted(host for host in known if host in kept_out or host.partition(".")[0] in short)


def _submit_once(folder: SlurmFolder, options: WorkerOptions) -> str:
    """sbatch may have worked although its answer was lost: then the job is found by its comment."""
    if "comment" in options.sbatch:
        return commands.submit(folder.script)
    comment = f"{COMMENT}{folder.path}:{uuid.uuid4().hex[:8]}"
    try:
        return commands.submit(folder.script, [f"--comment={comment}"])
    except (NoAnswer, Refused) as error:
        if isinstance(error, Refused) and "timed out" not in error.words.lower():
            raise
        time.sleep(LOOK_AGAIN_S)
        # A submission that was refused is listed, too, as one that failed.
        ours = [job for job in commands.jobs() if job.comment == comment and job.state != "FAILED"]
        found = [job.id.partition("_")[0] for job in ours]
        if not found:
            raise
        return found[0]


def folder_of(comment: str) -> str:
    """The folder that a job's comment names; empty where it is none of ours."""
    if not comment.startswith(COMMENT):
        return ""
    return comment.removeprefix(COMMENT).rpartition(":")[0]


def estimated(text: str) -> str:
    """What SLURM says to a script that it is only asked about; empty where there is no SLURM."""
    with tempfile.NamedTemporaryFile("w", suffix=".sh") as file:
        file.write(text)
        file.flush()
        try:
            return commands.estimate(Path(file.name))
        except NoSlurm:
            return ""
        except SlurmError as error:
            return str(error)
