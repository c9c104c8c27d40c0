"""The frontier: the right members, a figure, a page that fetches nothing."""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.log.state import SweepState, TrialState
from orchestrator.results.frontier import Point, pareto, widths_of
from orchestrator.results.frontier_page import frontier_html
from orchestrator.results.frontier_plot import frontier_png, subtitle
from orchestrator.results.table import Results, frontier_members, results_of
from tests.orchestrator.invented_sweep import FACTS, sweep_in_all_states

points = st.dictionaries(
    st.integers(), st.builds(Point, st.integers(0, 6), st.integers(0, 6)), max_size=20
)


def finished(number: int, k: float, fvu: float, **changed: Any) -> TrialState:
    trial = TrialState(f"t{number:04d}", number, {"k": k, "d_sae": 1024}, 64_000, "finished")
    trial.metrics = {"fvu": fvu, "l0": k}
    for name, value in changed.items():
        setattr(trial, name, value)
    return trial


def results_with(*trials: TrialState) -> Results:
    state = SweepState()
    state.trials = {trial.id: trial for trial in trials}
    return results_of(FACTS, state)


@pytest.fixture
def results(tmp_path: Path) -> Results:
    watched = sweep_in_all_states(tmp_path).watched()
    return results_of(watched.facts, watched.log.state)


@given(points, st.sampled_from(["min", "max"]))
def test_the_frontier_is_exactly_what_nothing_dominates(
    places: dict[int, Point], direction: Any
) -> None:
    kept = pareto(places, direction)
    expected = {
        key
        for key, place in places.items()
        if not any(other.dominates(place, direction) for other in places.values())
    }
    assert set(kept) == expected
    assert len(kept) == len(expected)
    costs = [places[key].cost for key in kept]
    assert costs == sorted(costs)


def test_only_finished_trials_are_on_the_frontier() -> None:
    trials = [
        finished(0, 16, 0.3),
        finished(1, 64, 0.2),
        finished(2, 64, 0.4),
        finished(3, 32, 0.1, status="stopped"),
        finished(4, 8, float("nan")),
    ]
    assert frontier_members(FACTS, trials) == ["t0000", "t0001"]


def test_hooks_have_a_frontier_each() -> None:
    trials = [
        finished(0, 16, 0.3, config={"hook": "layers.4"}),
        finished(1, 16, 0.6, config={"hook": "layers.10"}),
    ]
    assert frontier_members(FACTS, trials) == ["t0000", "t0001"]


def test_widths_are_sorted_as_numbers() -> None:
    assert widths_of([{"d_sae": 24576}, {"d_sae": 4096}, {}]) == [4096, 24576, None]


def size_of(png: bytes) -> tuple[int, int]:
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", png[16:24])
    return width, height


def test_the_figure_is_a_png_of_paper_size(results: Results) -> None:
    assert size_of(frontier_png(results)) == (1280, 840)


@pytest.mark.parametrize(
    "trials",
    [
        [],
        [finished(0, 16, 0.3)],
        [finished(0, 0, 0.0), finished(1, 0, 0.0)],
        [finished(n, 2.0**n, 0.9**n) for n in range(9)],
        [finished(0, 16, 1e9), finished(1, 32, 0.1)],
        [finished(0, 16, 0.3, config={}), finished(1, 16, 0.3, config={"d_sae": "x", "k": None})],
        [finished(0, 16, 0.7, status="stopped"), finished(1, 16, 0.8, status="diverged")],
    ],
    ids=["none", "one", "zero", "log", "outlier", "bare", "none finished"],
)
def test_any_results_draw(trials: list[TrialState]) -> None:
    size_of(frontier_png(results_with(*trials)))


def test_the_page_is_whole_in_itself(results: Results) -> None:
    page = frontier_html(results, b"\x89PNG")
    assert "data:image/png;base64,iVBORw==" in page
    assert not re.search(r"https?://|<script|<link", page)
    for said in ("t0004", "cutoff 0.410 against 3", "k=16", "3 finished"):
        assert said in page


def test_the_page_escapes_what_users_wrote() -> None:
    page = frontier_html(results_with(finished(0, 1, 0.1, reason="<script>", status="failed")), b"")
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


def test_the_subtitle_says_model_hook_and_tokens() -> None:
    assert subtitle(FACTS.setup) == "smollm2-135m, model.layers.10, 64k tokens"
    assert subtitle({}) == ""
