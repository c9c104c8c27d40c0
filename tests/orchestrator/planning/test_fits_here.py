"""What this machine cannot run is refused before anything is submitted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestrator.planning.devices import this_machine
from orchestrator.planning.fits_here import refuse_what_cannot_run_here
from orchestrator.planning.placement import DoesNotFit
from orchestrator.spec.faults import SpecFaults
from orchestrator.spec.sweep import load_sweep

SWEEP = """name: here
job: sae_train
model: {model}
data: {data}
hooks: [model.layers.1]
tokens: 90k
device: {device}
space: {{architecture: topk, d_sae: {d_sae}, k: 4}}
"""


def check(folder: Path, **changes: Any) -> None:
    values = {
        "model": "{builtin: smollm2-135m}",
        "data": "{builtin: python-docs}",
        "device": "cpu",
        "d_sae": 64,
    }
    file = folder / "sweep.yaml"
    file.write_text(SWEEP.format(**{**values, **changes}))
    refuse_what_cannot_run_here(load_sweep(file), file)


def test_a_sweep_that_can_run_here_passes(tmp_path: Path) -> None:
    check(tmp_path)


def test_a_hub_name_is_not_looked_up(tmp_path: Path) -> None:
    check(tmp_path, model="{name: acme/nothing}", data="{dataset: acme/nothing}")


def test_an_sae_that_is_too_large_is_refused_with_numbers(tmp_path: Path) -> None:
    with pytest.raises(DoesNotFit, match=r"needs [\d.]+ [GT]iB .* usable.*d_sae=50000000"):
        check(tmp_path, d_sae=50_000_000)


@pytest.mark.skipif(this_machine("cuda").kind == "cuda", reason="this machine has a GPU")
def test_a_gpu_that_is_not_here_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DoesNotFit, match="no node has a GPU; use device: auto"):
        check(tmp_path, device="cuda")


def test_all_files_that_are_not_there_are_said_with_their_lines(tmp_path: Path) -> None:
    with pytest.raises(SpecFaults) as told:
        check(tmp_path, model="{name: ./nowhere}", data="{files: ./no.txt}")
    first, second, count = str(told.value).splitlines()
    assert "sweep.yaml:3: model.name: model './nowhere' is not there" in first
    assert "sweep.yaml:4: data.files: there is no file './no.txt'" in second
    assert count.startswith("2 faults")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("m.gguf", b"no model", "is no GGUF file: it starts with b'no m'"),
        ("m.bin", b"", "is a file but not .gguf"),
        ("m", None, "has no config.json"),
    ],
)
def test_what_is_visibly_no_model_is_refused(
    tmp_path: Path, name: str, content: bytes | None, said: str
) -> None:
    path = tmp_path / name
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    with pytest.raises(SpecFaults, match=said):
        check(tmp_path, model=f"{{name: {path}}}")


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"", "nothing in it"), (b"\0\1\2" * 99, r"is not text \(NUL bytes\)")],
)
def test_what_is_visibly_no_text_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "t.txt").write_bytes(content)
    with pytest.raises(SpecFaults, match=said):
        check(tmp_path, data=f"{{files: {tmp_path}/t.txt}}")
