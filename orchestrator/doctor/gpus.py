"""The GPUs: what the driver says, what torch says, and whether they get on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from jobs.units import format_bytes
from orchestrator.doctor.base import Check, Finding
from orchestrator.doctor.capabilities_here import WITHIN_S, NoCapabilities, capabilities_here
from orchestrator.nodes.gpus import DriverSilent, Gpu, gpus_by_driver, has_smi
from orchestrator.store import Store

REINSTALL = "make clean && make venv TORCH_INDEX_URL=https://download.pytorch.org/whl/{build}"
NEEDED_DRIVER: tuple[tuple[int, int, str], ...] = (
    (13, 580, "cu130"),
    (12, 525, "cu126"),
    (11, 450, "cu118"),
)
"""CUDA's major version, the oldest Linux driver for it, and torch's build: minor versions are
compatible (docs.nvidia.com/deploy/cuda-compatibility, table 1)."""


class Gpus(Check):
    """Also where there is none: trials then run on the cores."""

    name = "GPUs"
    order = 20
    within_s = WITHIN_S + 5

    def look(self, store: Store) -> Iterable[Finding]:
        """See the base class."""
        del store
        try:
            gpus = gpus_by_driver(within_s=20.0) if has_smi() else []
        except DriverSilent as error:
            yield Finding(
                "fault",
                f"the NVIDIA driver is broken: {error}",
                "mend the driver (a reboot often does); without GPUs: `CUDA_VISIBLE_DEVICES=`",
            )
            gpus = []
        try:
            said = capabilities_here()
        except NoCapabilities as error:
            yield Finding("fault", str(error), "run it by hand: it says more")
            return
        yield from of_torch(gpus, said)
        yield from of_each(gpus, said)


def of_torch(gpus: list[Gpu], said: Mapping[str, Any]) -> Iterable[Finding]:
    """Whether torch is there, and uses the GPUs that the driver has."""
    torch, cuda = said["torch"], said["cuda"]
    if torch["error"]:
        way_out = "install it anew: make clean, then make venv"
        yield Finding("fault", f"torch cannot be imported: {torch['error']}", way_out)
        return
    name = f"torch {torch['version']}"
    if said["devices"]:
        yield Finding("ok", f"{name}, {torch['build']}, driver {cuda['driver'] or 'unknown'}")
    elif not gpus:
        yield Finding("ok", f"{name}; no GPU here: trials run on the cores")
    elif torch["build"] == "cpu":
        what = f"{name} is built without CUDA, and there {_are(len(gpus))} here"
        yield Finding("fault", what, REINSTALL.format(build=_build_for(gpus[0].driver)))
    else:
        yield _too_old(gpus, torch, cuda)


def _too_old(gpus: list[Gpu], torch: Mapping[str, Any], cuda: Mapping[str, Any]) -> Finding:
    driver = gpus[0].driver
    needed = next(
        (oldest for major, oldest, _ in NEEDED_DRIVER if _major(cuda["runtime"]) == major), None
    )
    if needed is not None and _major(driver) < needed:
        what = (
            f"driver {driver} is too old for torch {torch['version']}: CUDA {cuda['runtime']} "
            f"needs {needed} or newer"
        )
        way_out = f"update the driver, or {REINSTALL.format(build=_build_for(driver))}"
        return Finding("fault", what, way_out)
    why = cuda["error"] or "no word why"
    return Finding(
        "fault",
        f"torch {torch['version']} ({torch['build']}) cannot use the GPUs of driver {driver}: "
        f"{why}",
        "see whether CUDA_VISIBLE_DEVICES hides them; else mend the driver",
    )


def _build_for(driver: str) -> str:
    """The newest of torch's builds that a driver runs."""
    have = _major(driver)
    return next((build for _, oldest, build in NEEDED_DRIVER if have >= oldest), "cpu")


def _major(version: str | None) -> int:
    head = (version or "").partition(".")[0]
    return int(head) if head.isdigit() else 0


def _are(count: int) -> str:
    return "is a GPU" if count == 1 else f"are {count} GPUs"


def of_each(gpus: list[Gpu], said: Mapping[str, Any]) -> Iterable[Finding]:
    """Each GPU by itself."""
    for gpu in gpus:
        if gpu.ecc_errors:
            way_out = f"nvidia-smi --gpu-reset -i {gpu.index}; if they come back, return it"
            yield Finding(
                "fault", f"GPU {gpu.index}: {gpu.ecc_errors} uncorrectable ECC errors", way_out
            )
    for device in said["devices"]:
        name = f"GPU {device['index']}: {device['name']}"
        if not device["ok"]:
            what = f"{name}: a small matrix product failed ({device['error'] or 'no word why'})"
            yield Finding("fault", what, "reset it or return the machine; see `dmesg`")
            continue
        free, total = device["free_bytes"], device["memory_bytes"]
        words = f"{name}, {format_bytes(total)}, {format_bytes(free)} free"
        if free < total / 2:
            way_out = "`nvidia-smi` names the programs that hold it"
            yield Finding("warning", f"{words}: somebody else uses it", way_out)
        else:
            yield Finding("ok", f"{words}, computes right")
        if not device["bf16"]:
            what = f"{name} has no bfloat16 in hardware"
            yield Finding("note", what, "model: {dtype: float16} is faster there")
