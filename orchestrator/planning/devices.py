"""Devices that trials may run on: memory and peak arithmetic, known or read off this machine."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from orchestrator.planning.machine import GPU_SHARE, free_device_bytes, num_cpus

EFFICIENCY = 0.4
"""Share of the peak that matrix products of these shapes reach, for estimates not measured."""

BANDWIDTH_EFFICIENCY = 0.6
"""Share of the memory bandwidth that passes over whole tensors reach, where not measured."""

CPU_FLOP_PER_CYCLE = 32
"""fp32, one core with AVX2: two fused multiply-adds on 8 lanes a cycle."""

CPU_DEFAULT_HZ = 2.5e9


class DeviceProfile(BaseModel):
    """One GPU, or one CPU box as a whole."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    name: str
    kind: Literal["cuda", "cpu"]
    memory_bytes: int = Field(gt=0)
    usable_bytes: int = Field(ge=0)
    """What trials may be planned with; the same number a driver works with."""
    bf16_flop_per_second: float = Field(gt=0)
    """Dense peak; what the language model runs at on a GPU. On a CPU the fp32 peak."""
    fp32_flop_per_second: float = Field(gt=0)
    """Peak outside the tensor cores; what SAEs in fp32 run at."""
    bytes_per_second: float | None = Field(default=None, gt=0)
    """Of its memory; None where nobody knows, and arithmetic alone is counted."""
    num_devices: int = Field(default=1, gt=0)
    """How many of them work side by side."""
    here: bool = False
    """Whether this machine has it."""


class UnknownDevice(ValueError):
    """A device name that the table lacks."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name

    def __str__(self) -> str:
        known = ["here", *GPUS]
        close = get_close_matches(self.name.upper(), [each.upper() for each in known], n=1)
        hint = next((f" Did you mean {k!r}?" for k in known if close and k.upper() == close[0]), "")
        return f"device {self.name!r} is unknown; known devices: {', '.join(known)}.{hint}"


def _gpu(
    name: str,
    memory_mib: int,
    bf16_tflops: float,
    fp32_tflops: float,
    gb_per_second: float,
    sustained: float = 1.0,
) -> DeviceProfile:
    """From a data sheet; `sustained` is the share of its peak that its power limit lets last."""
    return DeviceProfile(
        name=name,
        kind="cuda",
        memory_bytes=memory_mib * 1024**2,
        usable_bytes=int(memory_mib * 1024**2 * GPU_SHARE),
        bf16_flop_per_second=bf16_tflops * 1e12 * sustained,
        fp32_flop_per_second=fp32_tflops * 1e12 * sustained,
        bytes_per_second=gb_per_second * 1e9,
    )


# Memory as nvidia-smi reports it; NVIDIA's data sheets: dense bf16 (fp16 on T4), fp32 without
# tensor cores, bandwidth of the memory. Sheets rate a card at its boost clock. Cards of 70 W (T4,
# L4) fall back to their base clock within seconds of matrix products: 24 of 65 TFLOP/s on a T4
# (forums.developer.nvidia.com/t/264462), which is 585 of 1590 MHz.
GPUS: dict[str, DeviceProfile] = {
    gpu.name: gpu
    for gpu in (
        _gpu("T4-16", 15360, 65, 8.1, 320, sustained=585 / 1590),
        _gpu("L4-24", 23034, 121, 30.3, 300, sustained=795 / 2040),
        _gpu("A10G-24", 23028, 70, 31.2, 600),
        _gpu("RTX4090-24", 24564, 165, 82.6, 1008),
        _gpu("A100-40", 40960, 312, 19.5, 1555),
        _gpu("L40S-48", 46068, 362, 91.6, 864),
        _gpu("A100-80", 81920, 312, 19.5, 2039),
        _gpu("H100-80", 81559, 989, 66.9, 3350),
        _gpu("H200-141", 143771, 989, 66.9, 4800),
    )
}


def device_named(name: str, num_devices: int = 1) -> DeviceProfile:
    """A device by its name in the table, or `here`. Raises UnknownDevice."""
    if name in ("here", "this machine"):
        return this_machine()
    for known, profile in GPUS.items():
        if known.upper() == name.upper():
            return profile.model_copy(update={"num_devices": num_devices})
    raise UnknownDevice(name)


def this_machine(device: Literal["auto", "cpu", "cuda"] = "auto") -> DeviceProfile:
    """What this machine trains on: its GPUs if it has any and they are wanted, else its cores."""
    gpus = [] if device == "cpu" else _gpus_here()
    if not gpus:
        return _cpu_here()
    name, memory_bytes = min(gpus, key=lambda gpu: gpu[1])
    known = _matching_gpu(name, memory_bytes)
    return known.model_copy(
        update={
            "name": name,
            "memory_bytes": memory_bytes,
            "usable_bytes": int(memory_bytes * GPU_SHARE),
            "num_devices": len(gpus),
            "here": True,
        }
    )


def _gpus_here() -> list[tuple[str, int]]:
    """(name, memory in bytes) of each GPU that nvidia-smi lists."""
    if shutil.which("nvidia-smi") is None:
        return []
    query = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    gpus = []
    for line in answer.stdout.splitlines():
        name, _, mebibytes = line.rpartition(",")
        if mebibytes.strip().isdigit():
            gpus.append((name.strip(), int(mebibytes) * 1024**2))
    return gpus


def _matching_gpu(name: str, memory_bytes: int) -> DeviceProfile:
    """The known GPU of that model, nearest in memory; the slowest for one that is not known."""
    words = set(re.split(r"[^A-Z0-9]+", name.upper()))
    squeezed = re.sub(r"[^A-Z0-9]+", "", name.upper())
    models = [
        gpu
        for gpu in GPUS.values()
        if (model := gpu.name.partition("-")[0]) in words or model in squeezed
    ]
    exact = [gpu for gpu in models if gpu.name.partition("-")[0] in words] or models
    if not exact:
        return GPUS["T4-16"]
    return min(exact, key=lambda gpu: abs(gpu.memory_bytes - memory_bytes))


def _cpu_here() -> DeviceProfile:
    num_cores = num_cpus()
    peak = num_cores * _cpu_hz() * CPU_FLOP_PER_CYCLE
    return DeviceProfile(
        name=f"this machine, {num_cores} core{'s' if num_cores > 1 else ''}",
        kind="cpu",
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        usable_bytes=free_device_bytes("cpu"),
        bf16_flop_per_second=peak,
        fp32_flop_per_second=peak,
        here=True,
    )


def _cpu_hz() -> float:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return CPU_DEFAULT_HZ
    found = re.search(r"^cpu MHz\s*:\s*([0-9.]+)", text, re.MULTILINE)
    return float(found[1]) * 1e6 if found else CPU_DEFAULT_HZ
