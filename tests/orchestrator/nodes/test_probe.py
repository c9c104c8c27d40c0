"""A machine that is not fit says why, and no broken driver hangs whoever asks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from orchestrator.nodes.gpus import num_expected
from orchestrator.nodes.patient_child import answer_within
from orchestrator.nodes.probe import Prober
from orchestrator.nodes.probe_report import ProbeReport

FAST_AND_WELL = "{index}, GPU-{index}aaa-bbb, NVIDIA H100 80GB HBM3, 550.54, 81559, {free}, {ecc}"
VARIABLES = ("CUDA_VISIBLE_DEVICES", "SLURM_JOB_GPUS", "SLURM_GPUS_ON_NODE")
FakeSmi = Callable[[str], None]


@pytest.fixture(autouse=True)
def _nobody_expects_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSmi:
    """Puts an nvidia-smi with a shell body first on PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    def write(body: str) -> None:
        script = folder / "nvidia-smi"
        script.write_text(f"#!/bin/sh\n{body}\n")
        script.chmod(0o755)

    return write


def lines(*gpus: Mapping[str, Any]) -> str:
    rows = [
        FAST_AND_WELL.format(**{"index": index, "free": 81000, "ecc": 0, **gpu})
        for index, gpu in enumerate(gpus)
    ]
    return f"cat <<'EOF'\n{chr(10).join(rows)}\nEOF"


def saying(tmp_path: Path, **said: Any) -> tuple[str, ...]:
    """A child that prints what `sae.capabilities` would."""
    well = {
        "torch": {"version": "2.13.0", "build": "cuda 12.8", "error": ""},
        "cuda": {"available": True, "driver": "550.54", "error": ""},
        "devices": [{"index": i, "capability": "9.0", "ok": True, "error": ""} for i in range(2)],
        "cc": {"path": "/usr/bin/gcc", "version": "gcc 12"},
        "triton": {"version": "3.5.0", "works": True, "error": ""},
        "flash_attn": {"version": "2.8", "works": False, "error": "too old"},
    }
    answer = tmp_path / "capabilities.json"
    answer.write_text(json.dumps({**well, **said}))
    return (sys.executable, "-S", "-c", f"print(open({str(answer)!r}).read())")


def whats(report: ProbeReport) -> str:
    return "\n".join(fault.what for fault in report.faults)


def test_without_a_gpu_it_is_quick_and_imports_no_torch(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    environment["PATH"] = str(tmp_path)  # no nvidia-smi, wherever this runs
    code = (
        "import sys, time\n"
        "from orchestrator.nodes.probe import Prober\n"
        "begun = time.monotonic(); report = Prober()()\n"
        "assert report.is_fit, report.faults\n"
        "assert not {'torch', 'ray', 'boto3'} & set(sys.modules)\n"
        "print(time.monotonic() - begun)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert float(done.stdout) < 0.3


def test_what_a_machine_is_like_is_told() -> None:
    report = Prober()()
    assert report.cores >= 1
    assert report.free_memory_bytes > 0
    assert report.folders and all(folder.free_bytes > 0 for folder in report.folders)
    assert ProbeReport.model_validate(report.model_dump(mode="json")) == report


def test_healthy_gpus_are_fit_and_described(smi: FakeSmi, tmp_path: Path) -> None:
    smi(lines({}, {}))
    report = Prober(capabilities_command=saying(tmp_path))()
    assert report.is_fit
    assert report.summary == "2 x NVIDIA H100 80GB HBM3"
    assert [gpu.computes for gpu in report.gpus] == [True, True]
    assert report.gpus[0].capability == "9.0"
    assert (report.torch, report.triton, report.flash_attn) == ("2.13.0 (cuda 12.8)", "3.5.0", "")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("echo 'NVIDIA-SMI has failed: no driver.'; exit 9", "exit code 9, saying: NVIDIA-SMI has"),
        ("echo 'Unable to determine the device handle for GPU 0: GPU is lost'", "GPU is lost"),
        ("sleep 600", "did not answer within 0.5 s"),
        ("trap '' TERM; while :; do sleep 1; done", "did not answer within 0.5 s"),
    ],
)
def test_a_driver_that_does_not_answer_is_a_fault_of_the_device(
    smi: FakeSmi, body: str, said: str
) -> None:
    smi(body)
    begun = time.monotonic()
    report = Prober(smi_within_s=0.5)()
    assert time.monotonic() - begun < 20.0
    assert said in whats(report)
    assert len(report.device_faults) == 1
    assert "CUDA_VISIBLE_DEVICES= saeq serve" in report.faults[0].way_out


def test_each_gpu_is_judged_by_itself(smi: FakeSmi, tmp_path: Path) -> None:
    smi(lines({"free": 300}, {"ecc": 3}))
    report = Prober(memory_again_s=0.01, capabilities_command=saying(tmp_path))()
    memory, ecc = report.faults
    assert memory.what == "GPU 0: 300 MiB of 79.6 GiB is free, less than 20%"
    assert not memory.of_device, "somebody else's process is no fault of the machine"
    assert ecc.what == "GPU 1: 3 uncorrectable ECC errors" and ecc.of_device
    assert "return the machine" in ecc.way_out


def test_memory_that_is_given_back_meanwhile_is_no_fault(smi: FakeSmi, tmp_path: Path) -> None:
    first = tmp_path / "first"
    smi(
        f"if [ -e {first} ]; then {lines({})}\nelse touch {first}; {lines({'free': 100})}\nfi",
    )
    assert Prober(memory_again_s=0.01, capabilities_command=saying(tmp_path))().is_fit


def test_gpus_of_others_are_not_ours_to_judge(
    smi: FakeSmi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    smi(lines({"ecc": 7}, {}, {"ecc": 9}))
    prober = Prober(capabilities_command=saying(tmp_path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert prober().is_fit
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-2aaa")
    assert "GPU 2: 9 uncorrectable" in whats(prober())
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,5")
    assert whats(prober()) == (
        "only 1 of 2 GPUs answer, and 2 should be here (CUDA_VISIBLE_DEVICES=1,5)"
    )
    smi("exit 9")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert prober().is_fit, "it was asked to leave them alone"


def test_gpus_that_were_asked_for_have_to_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    none = ("/bin/sh", "-c", 'echo \'{"torch": {"version": "2.13", "build": "cpu"}}\'')
    report = Prober(labels={"gpus": "2"}, capabilities_command=none)()
    assert whats(report) == "no GPU answers, and 2 should be here (its label gpus=2)"
    assert report.device_faults
    monkeypatch.setenv("SLURM_GPUS_ON_NODE", "4")
    assert "4 should be here (SLURM_GPUS_ON_NODE=4)" in whats(Prober(capabilities_command=none)())


@pytest.mark.parametrize(
    ("environment", "count"),
    [
        ({}, 0),
        ({"CUDA_VISIBLE_DEVICES": ""}, 0),
        ({"CUDA_VISIBLE_DEVICES": "-1"}, 0),
        ({"CUDA_VISIBLE_DEVICES": "NoDevFiles", "SLURM_GPUS_ON_NODE": "2"}, 0),
        ({"CUDA_VISIBLE_DEVICES": "0,3"}, 2),
        ({"SLURM_JOB_GPUS": "0,2-4"}, 4),
        ({"SLURM_GPUS_ON_NODE": "8"}, 8),
    ],
)
def test_who_expects_how_many(environment: dict[str, str], count: int) -> None:
    assert num_expected(environment, {})[0] == count


def test_torch_without_its_gpus_is_a_fault(smi: FakeSmi, tmp_path: Path) -> None:
    smi(lines({}, {}))

    def found(**said: Any) -> tuple[str, bool]:
        report = Prober(capabilities_command=saying(tmp_path, **said))()
        return whats(report), bool(report.device_faults)

    cpu = {"version": "2.13.0+cpu", "build": "cpu", "error": ""}
    text, of_device = found(torch=cpu, devices=[])
    assert "torch 2.13.0+cpu is built without CUDA, and this machine has 2 GPUs" in text
    assert not of_device
    old = {"available": False, "driver": "470.1", "error": "the driver is too old"}
    text, of_device = found(cuda=old, devices=[])
    assert "cannot use this machine's 2 GPUs: the driver is too old" in text and of_device
    wrong = [{"ok": True}, {"ok": False, "error": "CUDA error: an uncorrectable ECC error"}]
    text, of_device = found(devices=wrong)
    assert text.startswith("GPU 1: a small matrix product failed (CUDA error") and of_device
    full = [{"ok": True}, {"ok": False, "error": "OutOfMemoryError: CUDA out of memory"}]
    assert found(devices=full)[1] is False
    text, of_device = found(torch={"error": "ImportError: libcudart.so"}, devices=[])
    assert text == "torch: ImportError: libcudart.so" and not of_device


@pytest.mark.parametrize(
    ("command", "said", "of_device"),
    [
        (("sleep", "600"), "did not end in 0.5 s", True),
        (("/bin/sh", "-c", "kill -SEGV $$"), "ended with exit code -11", True),
        (("/bin/sh", "-c", "echo no module named sae >&2; exit 1"), "no module named sae", False),
    ],
)
def test_a_product_that_never_comes_keeps_nobody_waiting(
    smi: FakeSmi, command: tuple[str, ...], said: str, of_device: bool
) -> None:
    smi(lines({}))
    report = Prober(capabilities_within_s=0.5, capabilities_command=command)()
    assert said in whats(report)
    assert bool(report.device_faults) is of_device


def test_no_place_to_write_is_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv("SAEQ_CACHE", str(tmp_path / "not" / "there" / "yet"))
    assert Prober()().is_fit
    monkeypatch.setattr("orchestrator.nodes.probe.MIN_DISK_BYTES", 2**60)
    report = Prober()()
    assert f"{tmp_path}" in whats(report) and "less than" in whats(report)
    assert "SAEQ_CACHE" in report.faults[0].way_out and not report.device_faults


def test_a_child_is_given_up_with_what_it_said() -> None:
    answer = answer_within(("/bin/sh", "-c", "echo begun; echo wrong >&2; sleep 600"), 0.5)
    assert (answer.exit_code, answer.output, answer.last_words) == (None, "begun\n", "wrong")
    assert answer_within(("/bin/sh", "-c", "exit 3"), 20.0).exit_code == 3
