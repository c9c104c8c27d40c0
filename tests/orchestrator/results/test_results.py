"""Results: the JSON contract, the tables, what early stopping saved."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from orchestrator.log.state import SweepState
from orchestrator.results.files import default_places, write_results
from orchestrator.results.page import results_lines, summary
from orchestrator.results.table import Results, results_csv, results_of
from tests.orchestrator.invented_sweep import FACTS, sweep_in_all_states


@pytest.fixture
def results(tmp_path: Path) -> Results:
    watched = sweep_in_all_states(tmp_path).watched()
    return results_of(watched.facts, watched.log.state)


def test_the_json_is_the_contract(results: Results) -> None:
    found = json.loads(json.dumps(results.to_json(), allow_nan=False))
    assert list(found) == ["sweep", "state", "trials"]
    assert (found["sweep"], found["state"]) == ("demo", "running")
    trials = {trial["trial"]: trial for trial in found["trials"]}
    assert list(trials) == [f"t{number:04d}" for number in range(13)]
    assert trials["t0000"] == {
        "trial": "t0000",
        "state": "finished",
        "config": {"architecture": "batchtopk", "d_sae": 1024, "k": 16, "lr": 1e-5},
        "tokens": 64_000,
        "metrics": {"fvu": 0.31, "l0": 15.9, "dead_fraction": pytest.approx(0.0544, abs=1e-4),
                    "ce_recovered": 0.93},
        "stopped": None,
        "artefact": "demo-t0000",
        "seconds": 66.0,
        "usd": pytest.approx(66 * 0.8 / 3600, abs=1e-6),
        "usd_is_estimate": False,
        "reason": "",
    }  # fmt: skip
    assert trials["t0004"]["stopped"] == {
        "rung": 24_000,
        "value": 0.52,
        "cutoff": 0.41,
        "against": 3,
        "on_course": False,
        "rule": "asha",
        "reason": "fvu 0.52 at 24000; the best 1 of 4 reach 0.41",
    }
    assert trials["t0004"]["artefact"] is None
    assert trials["t0006"]["metrics"]["fvu"] is None
    assert trials["t0007"]["reason"] == "ValueError: k=4096 exceeds d_sae=1024"


def test_each_stratum_is_sorted_by_the_metric_finished_first(results: Results) -> None:
    strata = results.by_stratum()
    assert list(strata) == ["k=16", "k=64"]
    assert [row.trial for row in strata["k=64"]][:3] == ["t0001", "t0003", "t0009"]
    assert [row.trial for row in strata["k=16"]][:2] == ["t0000", "t0004"]
    best = {name: row.trial for name, row in results.best_by_stratum().items()}
    assert best == {"k=16": "t0000", "k=64": "t0001"}


def test_strata_are_in_the_order_of_their_numbers() -> None:
    watched_facts = FACTS
    state = SweepState()
    results = results_of(watched_facts, state)
    assert results.by_stratum() == {}
    assert results.full_tokens is None


def test_the_summary_counts_and_says_what_was_saved(results: Results) -> None:
    counts, spent = summary(results)
    assert counts.startswith("demo running: 16 trials: 3 finished, 3 stopped, 1 diverged")
    # three stopped at 8k, 24k, 8k and one diverged at 6k, of 13 trials of 64k
    saved = (3 * 64 + 64 - 8 - 24 - 8 - 6) / (13 * 64)
    assert f"early stopping saved {100 * saved:.0f}%" in spent
    assert "of 1.02M for the full search" in spent


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_tables_fit_and_mark_the_frontier(results: Results, width: int) -> None:
    lines = results_lines(results, width, ascii_only=True)
    tables = [line.plain for line in lines if line.plain.startswith(("*  ", "   "))]
    assert all(len(line) <= width for line in tables)
    starred = [line.split()[1] for line in tables if line.startswith("*  ")]
    assert starred == ["t0000", "t0001"]


def test_a_pipe_gets_every_column(results: Results) -> None:
    text = "\n".join(line.plain for line in results_lines(results, None))
    assert "at 24k: cutoff 0.410 against 3 (asha)" in text
    assert "ValueError: k=4096 exceeds d_sae=1024" in text


def test_the_csv_has_a_row_a_trial_and_no_nan(results: Results) -> None:
    rows = list(csv.DictReader(io.StringIO(results_csv(results))))
    assert len(rows) == 13
    assert rows[0]["config.k"] == "16"
    assert rows[0]["metrics.fvu"] == "0.31"
    assert rows[6]["metrics.fvu"] == ""


def test_files_go_beside_the_table_that_was_asked_for(results: Results, tmp_path: Path) -> None:
    places = default_places("demo", tmp_path / "out" / "table.csv", None)
    written = write_results(results, places)
    assert [path.name for path in written] == ["table.csv", "frontier.png", "frontier.html"]
    assert {path.parent for path in written} == {tmp_path / "out"}
    assert default_places("demo", None, None).csv == Path("demo-results/results.csv")
    assert default_places("demo", None, Path("a.png")).csv is None
