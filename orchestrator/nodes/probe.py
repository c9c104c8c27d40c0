"""A look at this machine before it takes trials: devices, driver, memory, disks, compilers.

Without nvidia-smi it starts no process and imports no torch. Whatever may hang in a driver runs in
a child process with a deadline.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jobs.units import format_bytes
from orchestrator.nodes import gpus as smi
from orchestrator.nodes.gpu_faults import gpu_faults, wants_memory
from orchestrator.nodes.gpus import DriverSilent, Gpu
from orchestrator.nodes.patient_child import answer_within
from orchestrator.nodes.probe_report import Folder, ProbedGpu, ProbeFault, ProbeReport
from orchestrator.planning.machine import free_memory_bytes, num_cpus

CAPABILITIES_WITHIN_S = 120.0
"""Importing torch from a network file system takes a minute; a healthy GPU a few seconds."""
MEMORY_AGAIN_S = 4.0
MEMORY_LOOKS = 4
"""A process that just ended gives its GPU's memory back within seconds."""
MIN_DISK_BYTES = 512 * 2**20
LOW_DISK_BYTES = 5 * 2**30
LOW_MEMORY_BYTES = 2**30
LOW_SHARED_BYTES = 2**30


@dataclass(frozen=True)
class Prober:
    """Looks at this machine when called. The deadlines are for tests."""

    labels: Mapping[str, str] = field(default_factory=dict)
    """Of the node: `gpus` says how many there have to be."""
    smi_within_s: float = smi.SMI_WITHIN_S
    capabilities_within_s: float = CAPABILITIES_WITHIN_S
    memory_again_s: float = MEMORY_AGAIN_S
    capabilities_command: Sequence[str] = (sys.executable, "-m", "sae.capabilities")

    def __call__(self) -> ProbeReport:
        """Takes milliseconds without a GPU, seconds with one, minutes at most with a broken one."""
        started = time.monotonic()
        expected, by = smi.num_expected(os.environ, self.labels)
        found, silence = self._gpus()
        asks_torch = bool(found) or (expected > 0 and not smi.has_smi())
        torch = self._torch() if asks_torch and silence is None else TorchAnswer()
        probed = _probed(found, torch.said)
        folders = tuple(_folder(path) for path in _local_folders())
        faults = [
            *gpu_faults(probed, expected, by, silence, torch.fault, torch.said),
            *_disk_faults(folders),
        ]
        report = ProbeReport(
            at=time.time(),
            seconds=round(time.monotonic() - started, 3),
            gpus=tuple(probed),
            gpus_expected=expected,
            expected_by=by,
            cores=num_cpus(),
            free_memory_bytes=free_memory_bytes(),
            shared_memory_bytes=_free_bytes(Path("/dev/shm")),
            folders=folders,
            faults=tuple(faults),
            **_tools(torch.said),
        )
        return report.model_copy(update={"notes": tuple(_notes(report))})

    def _gpus(self) -> tuple[list[Gpu], str | None]:
        """Ours, and why the driver does not tell of them."""
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        if not smi.has_smi() or (visible is not None and visible.strip().lower() in smi.NO_DEVICES):
            return [], None
        for look in range(MEMORY_LOOKS):
            try:
                found = smi.ours(smi.gpus_by_driver(self.smi_within_s))
            except DriverSilent as error:
                return [], str(error)
            if not any(wants_memory(gpu) for gpu in found) or look == MEMORY_LOOKS - 1:
                break
            time.sleep(self.memory_again_s)
        return found, None

    def _torch(self) -> TorchAnswer:
        """What torch says of the GPUs, from a process that may hang."""
        answer = answer_within(self.capabilities_command, self.capabilities_within_s)
        if answer.exit_code is None:
            what = f"a small product on the GPUs did not end in {self.capabilities_within_s:g} s"
            way_out = "reset the GPU or return the machine (`dmesg` names the Xid error)"
            return TorchAnswer(ProbeFault(what=what, way_out=way_out, of_device=True))
        try:
            return TorchAnswer(said=json.loads(answer.output))
        except ValueError:
            how = f"ended with exit code {answer.exit_code} ({answer.last_words or 'no words'})"
            what = f"`python -m sae.capabilities` {how}"
            way_out = "run it by hand on this machine and mend what it says"
            of_device = answer.exit_code < 0  # died in the driver
            return TorchAnswer(ProbeFault(what=what, way_out=way_out, of_device=of_device))


@dataclass(frozen=True)
class TorchAnswer:
    """What `sae.capabilities` printed, or why it printed nothing."""

    fault: ProbeFault | None = None
    said: Mapping[str, Any] = field(default_factory=dict)


def _probed(found: Sequence[Gpu], said: Mapping[str, Any]) -> list[ProbedGpu]:
    """nvidia-smi's GPUs with what torch says of each; torch's alone where it has none."""
    devices: Sequence[Mapping[str, Any]] = said.get("devices") or ()
    known = [gpu.model_dump() for gpu in found]
    if not known:
        known = [
            {
                "index": index,
                "name": device.get("name", ""),
                "memory_bytes": device.get("memory_bytes") or None,
                "free_bytes": device.get("free_bytes") or None,
            }
            for index, device in enumerate(devices)
        ]
    probed = []
    for index, facts in enumerate(known):
        device = devices[index] if index < len(devices) else {}
        probed.append(
            ProbedGpu(
                **facts,
                capability=str(device.get("capability", "")),
                computes=device.get("ok"),
                error=str(device.get("error", "")),
            )
        )
    return probed


def _tools(said: Mapping[str, Any]) -> dict[str, str]:
    """torch, compilers and libraries, as far as they are known."""
    torch = said.get("torch") or {}
    words = [torch.get("version") or "", f"({torch['build']})" if torch.get("build") else ""]
    return {
        "torch": " ".join(word for word in words if word),
        "c_compiler": _path(said.get("cc")) or _which("CC", "gcc", "clang", "cc"),
        "cxx_compiler": _path(said.get("cxx")) or _which("CXX", "g++", "c++", "clang++"),
        "triton": _if_works(said.get("triton")),
        "flash_attn": _if_works(said.get("flash_attn")),
    }


def _path(compiler: Any) -> str:
    return str(compiler.get("path", "")) if isinstance(compiler, Mapping) else str(compiler or "")


def _if_works(library: Any) -> str:
    works = isinstance(library, Mapping) and library.get("works")
    return str(library.get("version", "")) if works else ""


def _which(variable: str, *names: str) -> str:
    given = os.environ.get(variable, "").split()
    candidates: Iterable[str] = given[:1] or names
    return next((path for name in candidates if (path := shutil.which(name))), "")


# Disks


def _local_folders() -> list[Path]:
    """The cache, and where drivers, trials and Ray keep what lives as long as they do."""
    given = os.environ.get("SAEQ_CACHE")
    cache = Path(given).expanduser() if given else Path.home() / ".cache" / "saeq"
    return list(dict.fromkeys([cache, Path(tempfile.gettempdir()), Path("/tmp")]))


def _folder(path: Path) -> Folder:
    existing = next(each for each in (path, *path.parents) if each.exists())
    usage = shutil.disk_usage(existing)
    return Folder(
        path=str(path),
        free_bytes=usage.free,
        total_bytes=usage.total,
        is_writable=os.access(existing, os.W_OK | os.X_OK),
    )


def _free_bytes(path: Path) -> int | None:
    return shutil.disk_usage(path).free if path.exists() else None


def _disk_faults(folders: Iterable[Folder]) -> Iterable[ProbeFault]:
    elsewhere = "or name another place with SAEQ_CACHE (cache) and TMPDIR (temporary files)"
    for folder in folders:
        if not folder.is_writable:
            what = f"{folder.path} cannot be written to"
            yield ProbeFault(what=what, way_out=f"mend that, {elsewhere}", of_device=False)
        elif folder.free_bytes < MIN_DISK_BYTES:
            what = (
                f"{folder.path} has {format_bytes(folder.free_bytes)} free, "
                f"less than {format_bytes(MIN_DISK_BYTES)}"
            )
            yield ProbeFault(what=what, way_out=f"make room, {elsewhere}", of_device=False)


def _notes(report: ProbeReport) -> Iterable[str]:
    for folder in report.folders:
        if MIN_DISK_BYTES <= folder.free_bytes < LOW_DISK_BYTES:
            yield f"{folder.path} has only {format_bytes(folder.free_bytes)} free"
    if report.free_memory_bytes < LOW_MEMORY_BYTES:
        yield f"only {format_bytes(report.free_memory_bytes)} of memory is free"
    shared = report.shared_memory_bytes
    if shared is not None and shared < LOW_SHARED_BYTES:
        yield f"/dev/shm has only {format_bytes(shared)} free: Ray's objects go to the disk"
    if report.gpus and not report.c_compiler:
        yield "no C compiler: torch.compile stays off"
    if not report.gpus and not report.cxx_compiler:
        yield "no C++ compiler: SAEs are stepped by torch operations, which is slower"
