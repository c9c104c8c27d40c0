"""A store on a disk that fills up while a sweep runs, and has space again."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.store import Store
from tests.failures.conftest import Begin
from tests.failures.scenario import all_checkpointed

pytestmark = [pytest.mark.storm, pytest.mark.timeout(1500)]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=24m", "saeq-test", str(folder)]
    try:
        answer = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("there is no mount command here")
    if answer.returncode != 0:
        pytest.skip(f"a small disk cannot be mounted here: {answer.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_stops_work_and_loses_none(begin: Begin, small_disk: Path) -> None:
    scenario = begin(store=Store.open(str(small_disk / "store")), command="run")
    scenario.scene.damage.may_lose_events = True
    scenario.start()
    scenario.wait_for(all_checkpointed, "four trials with checkpoints")
    balloon = small_disk / "balloon"
    fill(balloon)
    (served,) = scenario.serves
    scenario.wait_for(lambda _: "the disk is full" in served.output(), "that the disk is full")
    balloon.unlink()
    scenario.finish()
    verdict = scenario.verdict()
    assert verdict.holds, str(verdict)
    assert verdict.counts == {"finished": 4}


def fill(path: Path) -> None:
    """Until not a byte more fits."""
    with open(path, "wb", buffering=0) as file:
        for num_bytes in (2**20, 2**12, 1):
            try:
                while True:
                    file.write(os.urandom(num_bytes))
            except OSError:
                continue
