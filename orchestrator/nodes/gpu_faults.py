"""What keeps a machine's GPUs from being used: the rule, the value, the way out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from jobs.units import format_bytes
from orchestrator.nodes.gpus import Gpu
from orchestrator.nodes.probe_report import ProbedGpu, ProbeFault

MIN_FREE_SHARE = 0.2
"""Of a GPU's memory: with less a language model and one SAE hardly fit beside whoever is there."""
ON_CPU = "`CUDA_VISIBLE_DEVICES= saeq serve` works on the CPU alone"


def wants_memory(gpu: Gpu) -> bool:
    """Whether too little of its memory is free."""
    if gpu.memory_bytes is None or gpu.free_bytes is None:
        return False
    return gpu.free_bytes < MIN_FREE_SHARE * gpu.memory_bytes


def gpu_faults(
    gpus: Sequence[ProbedGpu],
    expected: int,
    expected_by: str,
    silence: str | None,
    torch_fault: ProbeFault | None,
    said: Mapping[str, Any],
) -> list[ProbeFault]:
    """All that is wrong with the GPUs of this machine.

    Args:
        silence: what was heard instead of an answer of the driver, if there was none.
        torch_fault: why torch said nothing.
        said: what `sae.capabilities` printed; empty where it was not asked.
    """
    if silence is not None:
        way_out = f"mend the driver (a reboot often does), or return the machine; {ON_CPU}"
        return [
            ProbeFault(
                what=f"the GPU driver does not answer: {silence}", way_out=way_out, of_device=True
            )
        ]
    faults = [fault for gpu in gpus for fault in _of_one(gpu)]
    if torch_fault is not None:
        faults.append(torch_fault)
    elif said:
        faults += _of_torch(gpus, said)
    if len(gpus) < expected and not faults:
        faults.append(_missing(len(gpus), expected, expected_by))
    return faults


def _missing(count: int, expected: int, expected_by: str) -> ProbeFault:
    found = "no GPU answers" if count == 0 else f"only {count} of {expected} GPUs answer"
    return ProbeFault(
        what=f"{found}, and {expected} should be here ({expected_by})",
        way_out="`nvidia-smi` and `dmesg` on this machine say more; return it if one is lost",
        of_device=True,
    )


def _of_one(gpu: ProbedGpu) -> Iterable[ProbeFault]:
    name = f"GPU {gpu.index}"
    if gpu.ecc_errors:
        errors = f"{gpu.ecc_errors} uncorrectable ECC error{'s' if gpu.ecc_errors > 1 else ''}"
        way_out = (
            f"reset it (`nvidia-smi --gpu-reset -i {gpu.index}`), reboot or return the machine"
        )
        yield ProbeFault(what=f"{name}: {errors}", way_out=way_out, of_device=True)
    if wants_memory(gpu):
        free, total = format_bytes(gpu.free_bytes or 0), format_bytes(gpu.memory_bytes or 0)
        yield ProbeFault(
            what=f"{name}: {free} of {total} is free, less than {MIN_FREE_SHARE:.0%}",
            way_out="`nvidia-smi` names the process that holds it: end it, or leave this GPU out "
            "with CUDA_VISIBLE_DEVICES",
            of_device=False,
        )
    elif gpu.computes is False:
        yield ProbeFault(
            what=f"{name}: a small matrix product failed ({gpu.error or 'no word why'})",
            way_out="reset it, reboot or return the machine; without it: CUDA_VISIBLE_DEVICES",
            of_device="out of memory" not in gpu.error,
        )


def _of_torch(gpus: Sequence[ProbedGpu], said: Mapping[str, Any]) -> Iterable[ProbeFault]:
    """The driver sees GPUs, and torch does not."""
    torch, cuda = said.get("torch") or {}, said.get("cuda") or {}
    version, build = torch.get("version") or "", torch.get("build") or ""
    if torch.get("error"):
        way_out = "install it anew in this environment (`python -c 'import torch'` says more)"
        yield ProbeFault(what=f"torch: {torch['error']}", way_out=way_out, of_device=False)
    elif gpus and build == "cpu":
        what = f"torch {version} is built without CUDA, and this machine has {_count(len(gpus))}"
        way_out = f"install torch with CUDA (`pip install torch`); {ON_CPU}"
        yield ProbeFault(what=what, way_out=way_out, of_device=False)
    elif gpus and not said.get("devices"):
        why = cuda.get("error") or "no word why"
        versions = (
            f"torch {version} for {build or 'CUDA'}, driver {cuda.get('driver') or 'unknown'}"
        )
        yield ProbeFault(
            what=f"torch cannot use this machine's {_count(len(gpus))}: {why} ({versions})",
            way_out="take a driver that is new enough for that CUDA, or a torch for an older one",
            of_device=True,
        )


def _count(count: int) -> str:
    return "1 GPU" if count == 1 else f"{count} GPUs"
