"""What this machine has: memory and processors that a process may really use."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

CPU_SHARE = 0.8
"""Of a machine's free memory, what packs may plan with; the rest is for Ray and the system."""
GPU_SHARE = 0.92


def num_cpus() -> int:
    """Processors this process may use: its affinity, which SLURM and containers narrow."""
    return len(os.sched_getaffinity(0))


def free_memory_bytes() -> int:
    """Memory available to new processes, by the kernel and the control group, in bytes."""
    available = 0
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            available = int(line.split()[1]) * 1024
    limit = Path("/sys/fs/cgroup/memory.max")
    used = Path("/sys/fs/cgroup/memory.current")
    if limit.exists() and used.exists() and (text := limit.read_text().strip()) != "max":
        available = min(available, int(text) - int(used.read_text()))
    return available


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
