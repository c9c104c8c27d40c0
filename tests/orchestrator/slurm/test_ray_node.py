from __future__ import annotations

import socket
from pathlib import Path

import pytest

from orchestrator.slurm.ray_node import NotAllJoined, own_address, start_command


def test_the_head_takes_ports_that_nobody_else_has() -> None:
    command = start_command(None, Path("/tmp/saeq-ray-1-x"))
    assert {"--head", "--block", "--port=0", "--dashboard-agent-listen-port=0"} <= set(command)
    assert "--temp-dir=/tmp/saeq-ray-1-x" in command
    assert not [part for part in command if "10001" in part]


def test_the_others_join_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "1")
    command = start_command("10.0.0.1:6379", Path("/tmp/x"))
    assert "--address=10.0.0.1:6379" in command
    assert "--num-cpus=1" in command
    assert "--head" not in command


def test_a_node_is_reached_by_the_name_that_slurm_has_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    addresses = {"n1": "10.1.2.3", "n2": "127.0.1.1"}

    def resolve(name: str) -> str:
        if name not in addresses:
            raise socket.gaierror(name)
        return addresses[name]

    monkeypatch.setattr(socket, "gethostbyname", resolve)
    assert own_address({"SLURMD_NODENAME": "n1"}) == "10.1.2.3"
    assert own_address({"SLURMD_NODENAME": "n2"}) is None, "nobody else reaches loopback"
    assert own_address({"SLURMD_NODENAME": "n3"}) is None
    assert own_address({}) is None


def test_missing_nodes_are_counted() -> None:
    assert str(NotAllJoined(1, 4, 180.0)) == "1 of 4 nodes joined within 180 s"
