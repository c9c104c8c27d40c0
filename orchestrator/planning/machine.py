"""What this machine has: memory and processors that a process may really use."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

CPU_SHARE = 0.8
"""Of a machine's free memory, what packs may plan with; the rest is for Ray and the system."""
GPU_SHARE = 0.92


def num_cpus() -> int:
    """Processors this process may use: its affinity, and what SLURM gave it.

    SLURM narrows the affinity only where it is set up to, with control groups or `task/affinity`.
    """
    given = _slurm_number("SLURM_CPUS_PER_TASK") or _slurm_number("SLURM_CPUS_ON_NODE")
    affinity = len(os.sched_getaffinity(0))
    return min(affinity, given) if given else affinity


def slurm_memory_bytes() -> int | None:
    """Memory that SLURM gave this job on this node; None outside of SLURM, or where it counts none.

    Where SLURM sets no control group, nothing but this keeps a job within its share.
    """
    mib = _slurm_number("SLURM_MEM_PER_NODE")
    if not mib:
        mib = _slurm_number("SLURM_MEM_PER_CPU") * _slurm_number("SLURM_CPUS_ON_NODE")
    return mib * 2**20 or None


def _slurm_number(name: str) -> int:
    text = os.environ.get(name, "")
    return int(text) if text.isdigit() else 0


def free_memory_bytes() -> int:
    """Memory available to new processes, by kernel, control group and SLURM, in bytes."""
    available = 0
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            available = int(line.split()[1]) * 1024
    limit = Path("/sys/fs/cgroup/memory.max")
    used = Path("/sys/fs/cgroup/memory.current")
    if limit.exists() and used.exists() and (text := limit.read_text().strip()) != "max":
        available = min(available, int(text) - int(used.read_text()))
    given = slurm_memory_bytes()
    return available if given is None else min(available, given)


def gpu_memory_bytes() -> list[int]:
    """Memory of each GPU by nvidia-smi, in bytes; empty where there is none."""
    command = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (FileNotFoundError, subprocess.SubprocessError):
        return []
    return [int(line) * 2**20 for line in done.stdout.split() if line.strip().isdigit()]


def free_device_bytes(device: str) -> int:
    """What a pack may plan with on this machine's device, in bytes."""
    if device == "cuda":
        gpus = gpu_memory_bytes()
        return int(min(gpus) * GPU_SHARE) if gpus else 0
    return int(free_memory_bytes() * CPU_SHARE)
