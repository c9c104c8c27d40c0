"""One real SLURM for all tests of this folder; idle again after each of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sae.tiny_model import build_tiny_model
from tests.slurm.cluster import SlurmCluster, running_cluster, why_not_here
from tests.slurm.student import Student
from tests.slurm.worker_jobs import WorkerJobs


@pytest.fixture(scope="session")
def slurm_for_all() -> Iterator[SlurmCluster]:
    """Two nodes, partitions `main`, `urgent` and `short`; skips where SLURM cannot be started."""
    why = why_not_here()
    if why:
        pytest.skip(why)
    with running_cluster() as cluster:
        yield cluster


@pytest.fixture
def slurm(slurm_for_all: SlurmCluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[SlurmCluster]:
    """The SLURM that this process's `sbatch` and `squeue` talk to; its jobs go with the test."""
    for name, value in slurm_for_all.environment.items():
        monkeypatch.setenv(name, value)
    yield slurm_for_all
    slurm_for_all.clear()


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random LLaMA of three layers, width 32, saved in a folder."""
    return build_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def student(slurm: SlurmCluster, tmp_path: Path, tiny_model: Path) -> Student:
    """A user with a store and a folder that are seen by all nodes."""
    return Student(slurm, tmp_path, tiny_model)


@pytest.fixture
def workers(slurm: SlurmCluster, tmp_path: Path, tiny_model: Path) -> WorkerJobs:
    """Jobs by their script alone, without the command that submits and keeps them."""
    return WorkerJobs(slurm, tmp_path, tiny_model)
