"""Models that whole sweeps run on."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.sae.tiny_model import build_tiny_model


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random LLaMA of three layers, width 32, saved in a folder."""
    return build_tiny_model(tmp_path_factory.mktemp("model"))
