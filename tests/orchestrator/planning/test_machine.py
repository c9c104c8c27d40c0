from __future__ import annotations

import os

import pytest

from orchestrator.planning.machine import free_memory_bytes, num_cpus, slurm_memory_bytes


@pytest.fixture(autouse=True)
def no_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("SLURM"):
            monkeypatch.delenv(name)


def test_processors_are_those_of_the_affinity_and_of_the_allocation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    assert num_cpus() == 64
    monkeypatch.setenv("SLURM_CPUS_ON_NODE", "16")
    assert num_cpus() == 16
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "8")
    assert num_cpus() == 8
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    assert num_cpus() == 2, "a control group may give less"


def test_memory_is_no_more_than_the_allocation(monkeypatch: pytest.MonkeyPatch) -> None:
    assert slurm_memory_bytes() is None
    monkeypatch.setenv("SLURM_MEM_PER_CPU", "2")
    monkeypatch.setenv("SLURM_CPUS_ON_NODE", "4")
    assert slurm_memory_bytes() == 8 * 2**20
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "16")
    assert free_memory_bytes() == 16 * 2**20


def test_a_node_without_counted_memory_is_not_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "0")
    assert slurm_memory_bytes() is None
