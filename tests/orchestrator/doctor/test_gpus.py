"""What is said of GPUs, drivers and torch that do not get on, from what each of them says."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.doctor.base import Finding
from orchestrator.doctor.capabilities_here import forget_capabilities
from orchestrator.doctor.compilers import Compilers
from orchestrator.doctor.gpus import Gpus, of_each, of_torch
from orchestrator.nodes.gpus import Gpu
from orchestrator.store import Store


@pytest.fixture(autouse=True)
def _asked_anew() -> Iterator[None]:
    forget_capabilities()
    yield
    forget_capabilities()


def said(build: str = "cuda 12.6", **changed: Any) -> dict[str, Any]:
    """As `sae.capabilities` prints it, of a machine with one good A100."""
    device = {
        "index": 0,
        "name": "NVIDIA A100-SXM4-40GB",
        "capability": "8.0",
        "memory_bytes": 40 * 2**30,
        "free_bytes": 39 * 2**30,
        "bf16": True,
        "ok": True,
        "error": "",
    }
    runtime = build.removeprefix("cuda ") if build.startswith("cuda") else None
    plain: dict[str, Any] = {
        "torch": {"version": "2.13.0", "build": build, "error": ""},
        "cuda": {"available": True, "driver": "560.1", "runtime": runtime, "error": ""},
        "devices": [device],
        "cc": {"path": "/usr/bin/gcc", "version": "gcc 12"},
        "cxx": {"path": "/usr/bin/g++", "version": "g++ 12"},
        "triton": {"version": "3.4.0", "works": True, "error": ""},
        "flash_attn": None,
        "bf16": True,
    }
    return {**plain, **changed}


def a_gpu(driver: str = "560.35.03", **more: Any) -> Gpu:
    return Gpu(index=0, name="NVIDIA A100-SXM4-40GB", driver=driver, **more)


def only(findings: Any) -> Finding:
    [found] = list(findings)
    assert isinstance(found, Finding)
    return found


def test_a_good_machine_is_well() -> None:
    assert only(of_torch([a_gpu()], said())).level == "ok"
    assert only(of_each([a_gpu()], said())).what.endswith("39 GiB free, computes right")


def test_torch_without_cuda_on_a_gpu_machine_names_the_build_for_its_driver() -> None:
    fault = only(of_torch([a_gpu("470.1")], said("cpu", devices=[])))
    assert fault.level == "fault"
    assert "built without CUDA, and there is a GPU here" in fault.what
    assert fault.way_out.endswith("TORCH_INDEX_URL=https://download.pytorch.org/whl/cu118")
    newer = only(of_torch([a_gpu("580.1")], said("cpu", devices=[])))
    assert newer.way_out.endswith("cu130")


def test_a_driver_that_is_too_old_is_named_with_what_is_needed() -> None:
    fault = only(of_torch([a_gpu("535.104")], said("cuda 13.0", devices=[])))
    assert fault.what == "driver 535.104 is too old for torch 2.13.0: CUDA 13.0 needs 580 or newer"
    assert "cu126" in fault.way_out


def test_a_torch_that_sees_nothing_for_another_reason_says_which() -> None:
    cuda = {"available": False, "driver": "580", "runtime": "12.6", "error": "CUDA error 802"}
    fault = only(of_torch([a_gpu("580.1")], said(devices=[], cuda=cuda)))
    assert "CUDA error 802" in fault.what


def test_a_torch_that_cannot_be_imported_is_a_fault() -> None:
    torch = {"version": None, "build": "", "error": "ImportError: libcudart"}
    assert "libcudart" in only(of_torch([], said(torch=torch, devices=[]))).what


def test_each_gpu_is_told_of() -> None:
    broken = {**said()["devices"][0], "ok": False, "error": "came out wrong in 3 places"}
    used = {**said()["devices"][0], "index": 1, "free_bytes": 2**30}
    old = {**said()["devices"][0], "index": 2, "name": "Tesla T4", "bf16": False}
    findings = list(of_each([a_gpu(ecc_errors=4)], said(devices=[broken, used, old])))
    assert [finding.level for finding in findings] == ["fault", "fault", "warning", "ok", "note"]
    assert "4 uncorrectable ECC errors" in findings[0].what
    assert "came out wrong" in findings[1].what
    assert "somebody else uses it" in findings[2].what
    assert "bfloat16" in findings[4].what


def test_a_driver_that_answers_nonsense_is_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\necho 'Failed to initialize NVML: Driver/library version mismatch'\n"
                   "exit 18\n")  # fmt: skip
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    findings = list(Gpus().look(Store.open(str(tmp_path / "store"))))
    assert findings[0].level == "fault"
    assert "Driver/library version mismatch" in findings[0].what


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"triton": None}, "Triton not installed: `compile: true` stays off"),
        ({"triton": {"version": "3", "works": False, "error": "OSError: x"}}, "OSError: x"),
        ({"cc": None}, "no C compiler, which Triton needs"),
        ({"devices": [], "cxx": None}, "no C++ compiler: steps on the cores use torch"),
    ],
)
def test_what_compiling_lacks_is_a_warning(
    changed: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("orchestrator.doctor.compilers.capabilities_here", lambda: said(**changed))
    found = list(Compilers().look(Store.open(str(tmp_path))))
    assert words in " | ".join(f.what for f in found if f.level == "warning")


def test_flash_attention_is_a_note(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("orchestrator.doctor.compilers.capabilities_here", said)
    notes = [f.what for f in Compilers().look(Store.open(str(tmp_path))) if f.level == "note"]
    assert notes == ["flash-attn is not installed: `attention: flash` becomes sdpa"]
