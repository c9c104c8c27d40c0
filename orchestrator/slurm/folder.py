"""The shared folder of one `saeq slurm up`: every path that its jobs write, spelled once."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from orchestrator.nodes.records import Failure
from orchestrator.nodes.stages import STAGES, Mark, last_attempt, parse_lines, standing
from orchestrator.nodes.stages_file import FAILED

FOLDER_VARIABLE = "SAEQ_SLURM_FOLDER"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


class BadFolder(ValueError):
    """A name or a place that cannot hold the files of jobs."""


class UpRecord(BaseModel):
    """What `saeq slurm up` was asked for, and what came of it."""

    model_config = ConfigDict(extra="ignore", frozen=True, use_attribute_docstrings=True)

    name: str
    store: str
    """URL of the store."""
    options: Mapping[str, Any] = Field(default_factory=dict)
    """`WorkerOptions` as JSON, by alias."""
    at: float = 0.0
    """Seconds since 1970."""
    submitted: tuple[str, ...] = ()
    """Ids of the SLURM jobs (of an array: its own) that were submitted, in order."""


@dataclass(frozen=True)
class JobFolder:
    """One SLURM job's files; a requeued job goes on in the same ones."""

    path: Path

    @property
    def key(self) -> str:
        """`12`, or `12_3` for a task of an array."""
        return self.path.name

    @property
    def node(self) -> str:
        """Its id in the store's records of nodes."""
        return node_of(self.key)

    @property
    def stages(self) -> Path:
        """A line a stage (`orchestrator.nodes.stages`), by the script and by `serve`."""
        return self.path / "stages"

    @property
    def output_log(self) -> Path:
        """What the script, the setup and SLURM itself print."""
        return self.path.parent / f"{self.key}.log"

    @property
    def serve_log(self) -> Path:
        """What `saeq serve` prints."""
        return self.path / "serve.log"

    @property
    def ray(self) -> Path:
        """With several nodes a job: token, address and log of its Ray."""
        return self.path / "ray"

    def lines(self) -> str:
        """The stages file as it is; empty before the job has begun."""
        try:
            return self.stages.read_text(errors="replace")
        except OSError:
            return ""

    def marks(self) -> list[Mark]:
        """Stages of its last attempt."""
        return last_attempt(parse_lines(self.lines()))

    def failure(self) -> Failure | None:
        """Why its last attempt failed, if the script said so."""
        found = None
        for line in self.lines().splitlines():
            at, _, rest = line.partition(" ")
            stage, _, why = rest.partition(" ")[2].partition(" ")
            if stage == "allocated":
                found = None
            elif stage == FAILED and at.replace(".", "", 1).isdigit():
                found = (float(at), why)
        if found is None:
            return None
        name, _, why = found[1].partition(": ")
        named = next((one for one in STAGES if one == name), None)
        missed = named or standing(self.marks()).waits_for or "report"
        return Failure(stage=missed, why=why, tail=self.tail(), at=found[0])

    def tail(self, num_lines: int = 12) -> str:
        """End of the log that tells most: serve's once there is one, else the script's."""
        for path in (self.serve_log, self.output_log):
            try:
                text = path.read_text(errors="replace")
            except OSError:
                continue
            if text.strip():
                return "\n".join(text.rstrip().splitlines()[-num_lines:])
        return ""


@dataclass(frozen=True)
class SlurmFolder:
    """`<place>/<name>`: seen by the login node and by all nodes."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def record_file(self) -> Path:
        return self.path / "up.json"

    @property
    def script(self) -> Path:
        return self.path / "job.sh"

    @property
    def setup(self) -> Path:
        """The user's setup file as it was at the time of `up`."""
        return self.path / "setup.sh"

    @property
    def jobs_folder(self) -> Path:
        return self.path / "jobs"

    @property
    def going_down(self) -> Path:
        """Once it is there, no job of this `up` is requeued by itself."""
        return self.path / "down"

    @property
    def keeper_memory(self) -> Path:
        """What the keeper remembers of the jobs."""
        return self.path / "keeper.json"

    @property
    def keeper_beat(self) -> Path:
        """Who keeps watch over the jobs; rewritten at each look."""
        return self.path / "keeper.beat"

    @property
    def keeper_log(self) -> Path:
        """What a keeper in the background says."""
        return self.path / "keeper.log"

    def job(self, key: str) -> JobFolder:
        return JobFolder(self.jobs_folder / key)

    def jobs(self) -> list[JobFolder]:
        """Those that have begun, by id."""
        if not self.jobs_folder.is_dir():
            return []
        found = (JobFolder(path) for path in self.jobs_folder.iterdir() if path.is_dir())
        return sorted(found, key=lambda job: [int(n) for n in re.findall(r"\d+", job.key)])

    def output_pattern(self, *, is_array: bool) -> Path:
        """sbatch's --output; its folder has to be there, or jobs fail without a word."""
        return self.jobs_folder / ("%A_%a.log" if is_array else "%j.log")

    def write_record(self, record: UpRecord) -> None:
        """Whole or not at all."""
        _replace(self.record_file, json.dumps(record.model_dump(mode="json"), indent=1))

    def record(self) -> UpRecord | None:
        """None where there is none that can be read."""
        try:
            return UpRecord.model_validate_json(self.record_file.read_bytes())
        except (OSError, ValidationError):
            return None

    def write_script(self, text: str, setup: Path | None = None) -> None:
        """The script, and a copy of the setup file. Raises BadFolder without such a file."""
        if setup is not None:
            try:
                _replace(self.setup, setup.read_text())
            except OSError as error:
                raise BadFolder(
                    f"setup={setup} cannot be read: {error.strerror}; name a shell file"
                ) from error
        _replace(self.script, text)
        self.script.chmod(0o700)


def node_of(key: str) -> str:
    """A job's id in the store's records of nodes: `slurm-12_3`."""
    return f"slurm-{key}"


def default_place() -> Path:
    """$SAEQ_SLURM_FOLDER, else ~/.saeq/slurm."""
    given = os.environ.get(FOLDER_VARIABLE)
    return Path(given) if given else Path.home() / ".saeq" / "slurm"


def new_folder(name: str, place: Path | None = None) -> SlurmFolder:
    """Make the folder of a new `up`, for its owner alone; a name that is taken gets a number.

    Raises BadFolder.
    """
    if not _NAME.fullmatch(name):
        raise BadFolder(
            f"name={name!r} must be letters, digits, '.', '_' and '-', at most 63 of them"
        )
    place = (place or default_place()).expanduser().absolute()
    number = 1
    while True:
        path = place / (name if number == 1 else f"{name}-{number}")
        try:
            path.mkdir(parents=True, mode=0o700)
            break
        except FileExistsError:
            number += 1
        except OSError as error:
            raise BadFolder(
                f"{path} cannot be made: {error.strerror}; give --folder (or {FOLDER_VARIABLE}) "
                "a place that you may write to and that all nodes see"
            ) from error
    folder = SlurmFolder(path)
    folder.jobs_folder.mkdir()
    return folder


def all_folders(place: Path | None = None) -> list[SlurmFolder]:
    """Of every `up` at that place, oldest first."""
    place = (place or default_place()).expanduser().absolute()
    if not place.is_dir():
        return []
    found = [SlurmFolder(path) for path in place.iterdir() if (path / "up.json").exists()]
    return sorted(found, key=lambda folder: (folder.record_file.stat().st_mtime, folder.name))


def _replace(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{time.monotonic_ns()}")
    temporary.write_text(text)
    temporary.chmod(0o600)
    temporary.rename(path)
