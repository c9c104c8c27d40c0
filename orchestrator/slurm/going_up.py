"""The beginning of a `saeq slurm up`: its folder, its rules, its keeper in the background."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence

from orchestrator.nodes.stages import STAGES, WITHIN_S, Stage
from orchestrator.slurm.folder import SlurmFolder, UpRecord, new_folder
from orchestrator.slurm.keeper import Rules
from orchestrator.slurm.keeper_post import read_beat
from orchestrator.slurm.options import WorkerOptions
from orchestrator.spec.units import BadQuantity, parse_seconds
from orchestrator.store import Store

KEEPER_UP_WITHIN_S = 30.0


class BadDeadline(ValueError):
    """A deadline that cannot be read, or of a stage that has none."""


class KeeperDidNotStart(ValueError):
    """The process in the background ended at once."""

    def __init__(self, log: str, words: str) -> None:
        super().__init__(log, words)
        self.log, self.words = log, words

    def __str__(self) -> str:
        return (
            f"the keeper in the background did not start: {self.words or '(no word)'} ({self.log})"
        )


def begin(name: str, options: WorkerOptions, store: Store) -> tuple[SlurmFolder, UpRecord]:
    """A new folder with its record; nothing is submitted. Raises BadFolder."""
    folder = new_folder(name, options.folder)
    record = UpRecord(
        name=folder.name,
        store=store.url,
        options=options.model_dump(mode="json", by_alias=True),
        at=time.time(),
    )
    folder.write_record(record)
    return folder, record


def take_back(folder: SlurmFolder) -> None:
    """Remove the folder of an `up` of which nothing was submitted."""
    record = folder.record()
    if record is not None and not record.submitted:
        shutil.rmtree(folder.path, ignore_errors=True)


def rules_of(record: UpRecord, within_s: Mapping[Stage, float | None]) -> Rules:
    """What the keeper goes by.

    Args:
        within_s: deadlines of stages, in seconds, that were asked for otherwise.
    """
    options = WorkerOptions.model_validate(dict(record.options))
    return Rules(
        within_s={**WITHIN_S, **within_s},
        elastic=options.elastic,
        slots_guess=max(options.num_gpus, 1) * options.nodes,
        requeues=options.requeue,
    )


def parse_within(texts: Sequence[str]) -> dict[Stage, float | None]:
    """Deadlines from `environment=30m`; `lease=none` for no limit. Raises BadDeadline."""
    limited = [stage for stage in STAGES if WITHIN_S[stage] is not None]
    found: dict[Stage, float | None] = {}
    for text in texts:
        name, _, value = text.partition("=")
        stage = next((one for one in limited if one == name.strip()), None)
        if stage is None:
            raise BadDeadline(
                f"--within {text!r}: {name!r} is no stage with a deadline; stages: "
                f"{', '.join(limited)}; write {limited[1]}=30m"
            )
        try:
            found[stage] = None if value.strip() == "none" else parse_seconds(value)
        except BadQuantity as error:
            raise BadDeadline(f"--within {stage}: {error}") from error
    return found


def start_keeper(folder: SlurmFolder, options: Sequence[str]) -> int:
    """A keeper that outlives this terminal; its process id. Raises KeeperDidNotStart.

    Args:
        options: of `saeq slurm keep`, beside the folder's name.
    """
    place, name = str(folder.path.parent), folder.name
    command = [sys.executable, "-m", "orchestrator.cli", "slurm", "keep", name, "--folder", place]
    with open(folder.keeper_log, "ab") as log:
        process = subprocess.Popen(
            [*command, "--in-background", *options],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    deadline = time.monotonic() + KEEPER_UP_WITHIN_S
    while time.monotonic() < deadline and process.poll() is None:
        beat = read_beat(folder)
        if beat is not None and beat.pid == process.pid:
            return process.pid
        time.sleep(0.1)
    if process.poll() is None:
        return process.pid  # slow, but there
    said = folder.keeper_log.read_text(errors="replace").strip().splitlines()
    if process.returncode == 0:
        return process.pid  # it found nothing left to keep
    raise KeeperDidNotStart(str(folder.keeper_log), said[-1] if said else "")
