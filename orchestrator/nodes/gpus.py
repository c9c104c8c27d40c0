"""The GPUs of this machine as its driver tells of them, and as this process may use them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence

from pydantic import BaseModel, ConfigDict

from orchestrator.nodes.patient_child import answer_within

SMI_WITHIN_S = 45.0
"""Eight GPUs without persistence mode take about 15 s to wake up."""
FIELDS = ("index", "uuid", "name", "driver_version", "memory.total", "memory.free",
          "ecc.errors.uncorrected.volatile.total")  # fmt: skip
NO_DEVICES = frozenset({"", "-1", "none", "void", "nodevfiles"})


class Gpu(BaseModel):
    """One GPU by nvidia-smi."""

    model_config = ConfigDict(extra="ignore", frozen=True, use_attribute_docstrings=True)

    index: int
    uuid: str = ""
    name: str = ""
    driver: str = ""
    memory_bytes: int | None = None
    free_bytes: int | None = None
    ecc_errors: int | None = None
    """Uncorrectable, since the driver was loaded; None: it does not count them."""


class DriverSilent(ValueError):
    """nvidia-smi does not answer, or not with GPUs; the message is what it said."""

    def __init__(self, said: str) -> None:
        super().__init__(said)
        self.said = said

    def __str__(self) -> str:
        return self.said


def has_smi() -> bool:
    """Whether there is an nvidia-smi to ask."""
    return shutil.which("nvidia-smi") is not None


def gpus_by_driver(within_s: float = SMI_WITHIN_S) -> list[Gpu]:
    """Every GPU that the driver knows, ours or not. Raises DriverSilent."""
    query = ["nvidia-smi", f"--query-gpu={','.join(FIELDS)}", "--format=csv,noheader,nounits"]
    try:
        answer = answer_within(query, within_s)
    except OSError as error:
        raise DriverSilent(f"nvidia-smi cannot be started ({error.strerror or error})") from error
    if answer.exit_code is None:
        raise DriverSilent(f"nvidia-smi did not answer within {within_s:g} s")
    if answer.output.startswith("No devices"):
        return []
    if answer.exit_code != 0:
        said = answer.last_words.rstrip(".") or "nothing"
        raise DriverSilent(f"nvidia-smi ended with exit code {answer.exit_code}, saying: {said}")
    return [_gpu(line) for line in answer.output.splitlines() if line.strip()]


def _gpu(line: str) -> Gpu:
    cells = [cell.strip() for cell in line.split(",")]
    if len(cells) != len(FIELDS) or not cells[0].isdigit():
        raise DriverSilent(f"nvidia-smi said: {line.strip()}")  # "Unable to determine the device"
    return Gpu(
        index=int(cells[0]),
        uuid=cells[1],
        name=cells[2],
        driver=cells[3],
        memory_bytes=_mebibytes(cells[4]),
        free_bytes=_mebibytes(cells[5]),
        ecc_errors=_whole(cells[6]),
    )


def _whole(cell: str) -> int | None:
    return int(cell) if cell.isdigit() else None


def _mebibytes(cell: str) -> int | None:
    count = _whole(cell)
    return None if count is None else count * 2**20


def ours(gpus: Sequence[Gpu], environment: Mapping[str, str] = os.environ) -> list[Gpu]:
    """Those that CUDA_VISIBLE_DEVICES leaves to this process, in its order: torch's order.

    MIG slices are not told apart: then all of them.
    """
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return list(gpus)
    names = _visible(visible)
    if any(name.startswith("MIG-") for name in names):
        return list(gpus)
    found = (next((gpu for gpu in gpus if _names(name, gpu)), None) for name in names)
    return [gpu for gpu in found if gpu is not None]


def _names(name: str, gpu: Gpu) -> bool:
    return name == str(gpu.index) or (name.startswith("GPU-") and gpu.uuid.startswith(name))


def _visible(value: str) -> list[str]:
    names = [name.strip() for name in value.split(",")]
    return [name for name in names if name.lower() not in NO_DEVICES]


def num_expected(environment: Mapping[str, str], labels: Mapping[str, str]) -> tuple[int, str]:
    """How many GPUs there have to be, and who says so; (0, "") where nobody expects any.

    Args:
        labels: of the node; `gpus` is the number that its starter asked for.
    """
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        names = _visible(visible)
        return (len(names), f"CUDA_VISIBLE_DEVICES={visible}") if names else (0, "")
    for variable in ("SLURM_GPUS_ON_NODE", "SLURM_JOB_GPUS"):
        value = environment.get(variable, "").strip()
        if value:
            count = _slurm_count(variable, value)
            return (count, f"{variable}={value}") if count else (0, "")
    asked = labels.get("gpus", "")
    return (int(asked), f"its label gpus={asked}") if asked.isdigit() and int(asked) else (0, "")


def _slurm_count(variable: str, value: str) -> int:
    """`SLURM_GPUS_ON_NODE` is a number (`4`), `SLURM_JOB_GPUS` a list (`0,1,4-6`)."""
    if variable == "SLURM_GPUS_ON_NODE" and value.isdigit():
        return int(value)
    count = 0
    for part in value.split(","):
        first, _, last = part.partition("-")
        whole = first.isdigit() and last.isdigit()
        count += int(last) - int(first) + 1 if whole else 1
    return count
