"""Order of the tests: what is slow runs last, so that a plain mistake shows within seconds."""

from __future__ import annotations

import pytest
from hypothesis import settings

# A machine that is busy is no fault: an example may take as long as it takes.
settings.register_profile("unhurried", settings(), deadline=None)
settings.load_profile("unhurried")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort stably by the `slow` mark."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is not None)
