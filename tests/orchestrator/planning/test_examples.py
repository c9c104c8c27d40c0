"""The sweep files that people start from: planned without a network, each parameter explained."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from orchestrator.cli.plan import plan as command
from orchestrator.spec.sweep import load_sweep
from sae.model_shapes import known_shapes

EXAMPLES = sorted((Path(__file__).parents[3] / "examples").glob("*.yaml"))
OF_SAES = [path for path in EXAMPLES if load_sweep(path).job == "sae_train"]
GPUS = ("A100-80", "H100-80", "H200-141")


@pytest.fixture
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a plan asked the network")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)


@pytest.mark.usefixtures("_no_network")
@pytest.mark.parametrize("path", OF_SAES, ids=lambda path: path.stem)
def test_a_plan_answers_with_saes_a_gpu_hours_and_dollars(path: Path) -> None:
    devices = [word for gpu in GPUS for word in ("--device", gpu)]
    app = typer.Typer()
    app.command()(command)
    answer = CliRunner().invoke(app, [str(path), "--json", *devices])
    assert answer.exit_code == 0, answer.output
    plan = json.loads(answer.output)
    assert [device["device"] for device in plan["devices"]] == list(GPUS)
    for device in plan["devices"]:
        assert device["trials_per_device"] >= 1
        assert 0 < device["hours"]["at_most"] < 1000
        assert 0 < device["usd"]["at_most"] < 5000
    a100, h100, h200 = plan["devices"]
    assert a100["hours"]["at_most"] > h100["hours"]["at_most"] >= h200["hours"]["at_most"]
    assert a100["trials_per_device"] <= h200["trials_per_device"]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_every_parameter_says_why(path: Path) -> None:
    space = load_sweep(path).space
    assert [name for name, found in space.entries.items() if not found[0].why] == []


@pytest.mark.parametrize("path", OF_SAES, ids=lambda path: path.stem)
def test_the_model_s_sizes_are_known_not_guessed(path: Path) -> None:
    spec = load_sweep(path)
    assert known_shapes(spec.setup.model) is not None  # type: ignore[attr-defined]


@pytest.mark.parametrize("path", OF_SAES, ids=lambda path: path.stem)
def test_the_file_is_named_after_its_sweep(path: Path) -> None:
    assert load_sweep(path).name == path.stem
