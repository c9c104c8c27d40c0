"""What the probe says of a machine, whole or broken; and what is made of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from sae.capabilities import Device, cannot_compile, cannot_flash, capabilities
from sae.compilers import cannot_find, find_compiler


def probed(**environment: str) -> dict[str, Any]:
    """What `python -m sae.capabilities` answers in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "sae.capabilities"],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def a_program(folder: Path, name: str, prints: str, exit_code: int = 0) -> None:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\necho '{prints}'\nexit {exit_code}\n")
    path.chmod(0o755)


def test_the_probe_prints_one_object_with_all_that_is_asked_of_it() -> None:
    answer = probed()
    assert answer == json.loads(json.dumps(capabilities().to_json())) | {
        "devices": answer["devices"]  # free memory moves
    }
    assert answer["torch"]["version"] == str(torch.__version__)
    assert answer["cuda"]["available"] == torch.cuda.is_available()
    assert all(device["ok"] for device in answer["devices"])


def test_a_machine_without_compilers_says_null(tmp_path: Path) -> None:
    answer = probed(PATH=str(tmp_path), CC="", CXX="")
    assert answer["cc"] is None
    assert answer["cxx"] is None
    assert answer["cuda"]["driver"] is None


def test_a_torch_that_cannot_be_imported_is_an_answer(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text(
        "print('noise on standard output')\nraise OSError('libcudart.so.12: no such file\\nmore')\n"
    )
    answer = probed(PYTHONPATH=str(tmp_path))
    assert answer["torch"]["error"] == "OSError: libcudart.so.12: no such file"
    assert answer["devices"] == []
    assert answer["cuda"]["available"] is False
    assert answer["bf16"] is False


def test_the_driver_is_what_nvidia_smi_says(tmp_path: Path) -> None:
    a_program(tmp_path / "bin", "nvidia-smi", "550.54.15\n550.54.15")
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    assert probed(PATH=path)["cuda"]["driver"] == "550.54.15"
    a_program(tmp_path / "bin", "nvidia-smi", "Failed to initialize NVML", exit_code=9)
    assert probed(PATH=path)["cuda"]["driver"] is None


def test_cxx_and_cc_are_believed_before_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_program(tmp_path, "my-cc", "mycc 1.2\nCopyright")
    monkeypatch.setenv("CC", f"{tmp_path / 'my-cc'} -m64")
    found = find_compiler("C")
    assert found is not None
    assert found.version == "mycc 1.2"
    assert found.path == f"{tmp_path / 'my-cc'} -m64"
    monkeypatch.setenv("CC", "no-such-cc")
    assert find_compiler("C") is None
    assert "$CC=no-such-cc" in cannot_find("C")


def test_a_compiler_that_does_not_run_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_program(tmp_path, "g++", "", exit_code=1)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    assert find_compiler("C++") is None
    assert cannot_compile("cpu") == "there is no C++ compiler (looked for $CXX, g++)"


def test_compiling_on_a_gpu_needs_triton() -> None:
    installed = capabilities().triton
    assert bool(cannot_compile("cuda")) == (installed is None or not installed.works)


@pytest.mark.parametrize(
    ("device", "dtype", "words"),
    [
        ("cpu", "bfloat16", "needs a CUDA device, and this is cpu"),
        ("cuda:0", "float32", "takes bfloat16 and float16, and the model is float32"),
    ],
)
def test_why_flash_attention_cannot_be_had(device: str, dtype: str, words: str) -> None:
    assert words in cannot_flash(device, dtype)


class OldGpu:
    """torch's word on a card before Ampere."""

    name, major, minor = "Tesla T4", 7, 5


def test_an_old_device_refuses_flash_attention_by_its_capability(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    metadata = tmp_path / "flash_attn-2.7.4.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: flash-attn\nVersion: 2.7.4\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: OldGpu())
    refusal = cannot_flash("cuda", "bfloat16")
    assert refusal == "Tesla T4 has compute capability 7.5, below 8.0"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_every_gpu_multiplies_right() -> None:
    devices = capabilities().devices
    assert len(devices) == torch.cuda.device_count()
    assert all(device.ok and device.free_bytes <= device.memory_bytes for device in devices)
    assert isinstance(devices[0], Device)
