"""A user's own job kinds are found by the name of their module."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def asked(own: str) -> subprocess.CompletedProcess[str]:
    """Which kinds a process finds."""
    return subprocess.run(
        [sys.executable, "-c", "import jobs; print(*sorted(jobs.JobKind.by_name))"],
        env={**os.environ, "SAEQ_KINDS": own, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_module_named_in_the_environment_brings_its_kinds() -> None:
    assert "sleeper" in asked("tests.cluster.sleeper").stdout.split()
    assert "sleeper" not in asked("").stdout.split()


def test_a_module_that_is_not_there_is_named() -> None:
    said = asked("my.misspelt")
    assert said.returncode != 0
    assert "SAEQ_KINDS names 'my.misspelt', which cannot be imported" in said.stderr
