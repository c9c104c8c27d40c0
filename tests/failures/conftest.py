"""One tiny model for every scenario."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.failures.scenario import Scenario
from tests.sae.tiny_model import build_tiny_model

Begin = Callable[..., Scenario]


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random LLaMA of three layers, width 32, saved in a folder."""
    return build_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def begin(tiny_model: Path, tmp_path: Path) -> Iterator[Begin]:
    """Makes scenarios; whatever they started is gone after the test."""
    with ExitStack() as undo:

        def make(**changes: object) -> Scenario:
            scenario = Scenario(tmp_path, tiny_model, **changes)  # type: ignore[arg-type]
            undo.callback(scenario.clear)
            return scenario

        yield make
