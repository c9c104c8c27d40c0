"""Order of the tests, and which of them may run side by side."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

# A machine that is busy is no fault: an example may take as long as it takes.
settings.register_profile("unhurried", settings(), deadline=None)
settings.load_profile("unhurried")

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort stably by the `slow` mark, so that a plain mistake shows within seconds; then group.

    With `-n 2 --dist loadgroup` a group stays in one process. Tests of one file share what it
    sets up; those that need root share a SLURM or the machine's network. A storm shares nothing.
    """
    items.sort(key=lambda item: item.get_closest_marker("slow") is not None)
    for item in items:
        if item.get_closest_marker("storm") is None:
            item.add_marker(pytest.mark.xdist_group(_group(item)))


def _group(item: pytest.Item) -> str:
    place = item.path.relative_to(HERE)
    if item.get_closest_marker("cluster") is None:
        return str(place)
    return "slurm" if place.parts[0] == "slurm" else "cluster"
