"""Twenty kills over a sweep, whatever they hit, and every promise holds."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.store import Store
from tests.chaos.faults import Fault
from tests.chaos.storm import Storm, Weather

pytestmark = [pytest.mark.storm, pytest.mark.timeout(1500)]

KILLS = tuple(name for name, fault in Fault.by_name.items() if fault.is_kill)
NUM_KILLS = 20


def test_twenty_kills_lose_nothing(tiny_model: Path, tmp_path: Path) -> None:
    weather = Weather(
        seed=7,
        storm_seconds=400.0,
        max_strikes=NUM_KILLS,
        calm_seconds=300.0,
        pause_seconds=(1.5, 3.5),
        restart_seconds=0.5,
        faults=KILLS,
        num_serves=1,
        trials=8,
        tokens=400_000,
        checkpoint_seconds=1.0,
    )
    lines: list[str] = []
    store = Store.open(str(tmp_path / "store"))
    report = Storm(weather, store, tmp_path, tiny_model, say=lines.append).run()
    assert report.holds, "\n".join([*lines, str(report)])
    assert report.num_kills >= NUM_KILLS, str(report)
    assert "verdict: every promise holds" in str(report)
