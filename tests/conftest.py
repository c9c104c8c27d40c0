"""Order of the tests, which of them may run side by side, and which are tried again."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from hypothesis import settings

# A machine that is busy is no fault: an example may take as long as it takes.
settings.register_profile("unhurried", settings(), deadline=None)
settings.load_profile("unhurried")

HERE = Path(__file__).parent

OF_REAL_PROCESSES = ("slow", "long", "cluster", "storm")
"""Marks of tests that depend on when a process may run, and on what its allocator keeps."""
OF_MINUTES = ("cluster", "storm")
"""Marks of tests of which each takes minutes."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort stably by the `slow` mark, so that a plain mistake shows within seconds; then group.

    With `-n 2 --dist loadgroup` a group stays in one process. Tests of one file share what it
    sets up; those that need root share a SLURM or the machine's network. A storm shares nothing.

    In continuous integration (`$CI`) a test of real processes that failed is tried once more, its
    first traceback is shown all the same, and more than a few of them are a failure.
    """
    items.sort(key=lambda item: item.get_closest_marker("slow") is not None)
    for item in items:
        if item.get_closest_marker("storm") is None:
            item.add_marker(pytest.mark.xdist_group(_group(item)))
        if "CI" in os.environ and any(map(item.get_closest_marker, OF_REAL_PROCESSES)):
            item.add_marker(pytest.mark.flaky(reruns=1, reruns_delay=10))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Where all tests together have a time limit, begin none that would be cut off by it."""
    latest = os.environ.get("SAEQ_BEGIN_NO_TEST_AFTER")
    if latest and time.time() > float(latest) and any(map(item.get_closest_marker, OF_MINUTES)):
        pytest.skip("not begun: the time for all tests is nearly over")


def _group(item: pytest.Item) -> str:
    place = item.path.relative_to(HERE)
    if item.get_closest_marker("cluster") is None:
        return str(place)
    return "slurm" if place.parts[0] == "slurm" else "cluster"
