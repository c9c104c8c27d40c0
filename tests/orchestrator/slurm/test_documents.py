"""The profiles of docs/running_on_slurm.md are profiles."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from orchestrator.slurm.profile import load_options

PAGE = Path(__file__).parents[3] / "docs" / "running_on_slurm.md"
BLOCKS = re.findall(r"```toml\n(.*?)```", PAGE.read_text(), re.DOTALL)


def test_there_is_a_profile_for_each_of_three_clusters() -> None:
    assert len(BLOCKS) == 3


@pytest.mark.parametrize("block", range(len(BLOCKS)))
def test_every_profile_on_the_page_is_one(
    block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SAEQ_PROFILE", raising=False)
    (tmp_path / "saeq.toml").write_text(BLOCKS[block])
    (tmp_path / "env.sh").write_text("")
    assert load_options({}, start=tmp_path).partition
    table = tomllib.loads(BLOCKS[block])["tool"]["saeq"]["slurm"]
    for name in table.get("profiles", {}):
        assert load_options({}, name, tmp_path).partition
