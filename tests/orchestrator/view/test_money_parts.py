"""Money in the dashboard, in `ls` and in the line of a pipe: spent, a price an hour, the budget."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.log.events import BudgetWarned, DriverStarted, Leased, Reported, Started
from orchestrator.view.dashboard import frame_lines, view_model
from orchestrator.view.facts import SweepFacts
from orchestrator.view.listing import sweep_row, sweep_table
from tests.orchestrator.invented_sweep import FACTS, InventedSweep

TYPICAL = "typical on-demand, 2025-06; give price.usd_per_hour for yours"


def frame(sweep: InventedSweep, facts: SweepFacts, width: int = 140) -> str:
    model = view_model([(facts, sweep.watched().log.state)], sweep.clock.now)
    return "\n".join(line.plain for line in frame_lines(model, width))


def spending(folder: Path, usd: float, source: str = "price.usd_per_hour of the sweep"
             ) -> InventedSweep:  # fmt: skip
    """A running trial at a dollar a second."""
    sweep = InventedSweep.under(folder)
    sweep.begin(usd_per_hour=3600.0)
    about = {"trial": "t0000", "epoch": 1}
    sweep.say(
        Leased(**about),
        Started(**about, usd_per_hour=3600.0, price_source=source),
        Reported(**about, tokens=8000, metrics={"fvu": 0.5}, busy_seconds=usd),
    )
    return sweep


@pytest.mark.parametrize("width", [60, 80, 140])
def test_a_sweep_with_a_budget_shows_how_much_of_it_is_used(tmp_path: Path, width: int) -> None:
    sweep = spending(tmp_path, 30.0)
    assert "budget" not in frame(sweep, FACTS, width)
    drawn = frame(sweep, replace(FACTS, budget_usd=60.0, budget_hours=10.0), width)
    assert "\u2588\u2588\u2588\u2588\u2588\u00b7" in drawn
    assert "$30.00 of $60.00, 0.00 of 10 hours" in drawn


@pytest.mark.parametrize(("usd", "style"), [(30.0, ""), (50.0, "bold yellow"), (60.0, "bold red")])
def test_its_colour_says_when_it_ends(tmp_path: Path, usd: float, style: str) -> None:
    facts = replace(FACTS, budget_usd=60.0)
    state = spending(tmp_path, usd).watched().log.state
    lines = sweep_table([sweep_row(facts, state, 0.0)], 140)
    styles = {str(span.style) for span in lines[1].spans}
    assert (style in styles) == bool(style)
    assert ("of budget" in lines[1].plain) == bool(style)


def test_an_estimate_is_marked_wherever_dollars_stand(tmp_path: Path) -> None:
    sweep = spending(tmp_path, 30.0, TYPICAL)
    assert "spent ~$30.00 at $3,600.00/h" in frame(sweep, FACTS)
    row = sweep_row(FACTS, sweep.watched().log.state, 0.0)
    assert "~$30.00" in sweep_table([row], 140)[1].plain and row.to_json()["usd_is_estimate"]


def test_drivers_on_one_host_use_the_same_machines(tmp_path: Path) -> None:
    sweep = spending(tmp_path, 30.0)
    second = sweep.writer("driver")
    second.append(DriverStarted(host="laptop", pid=2, usd_per_hour=3600.0))
    assert "at $3,600.00/h" in frame(sweep, FACTS)


def test_a_warning_is_an_event_that_a_person_sees(tmp_path: Path) -> None:
    sweep = spending(tmp_path, 50.0)
    sweep.say(BudgetWarned(reason="$50.00 of $60.00 used"))
    assert "budget" in frame(sweep, FACTS) and "$50.00 of $60.00 used" in frame(sweep, FACTS)
