"""`saeq cost`: tables that fit, sentences that are true, JSON and CSV for programs."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from orchestrator.log.events import (
    Finished,
    Leased,
    Preempted,
    Reported,
    Started,
    Stopped,
    Suggested,
)
from orchestrator.money.cost import CostReport, cost_of, cost_of_all
from orchestrator.queue import Queue
from orchestrator.spec.sweep import parse_sweep
from orchestrator.store import Store
from orchestrator.view.cost_page import cost_table, sentences, trial_cost_table
from tests.orchestrator.cli.conftest import Saeq
from tests.orchestrator.invented_sweep import TOTAL, InventedSweep, config

SWEEP = """
name: demo
job: sae_train
model: {builtin: smollm2-135m}
data: {builtin: python-docs}
hooks: [model.layers.10]
tokens: 64k
batch_tokens: 256
space:
  architecture: {choice: [topk, batchtopk]}
  d_sae: {choice: [1024, 2048]}
  k: {choice: [16, 64]}
  lr: {choice: [1.0e-5, 3.0e-3]}
budget: {usd: 10}
"""
DOLLAR_A_SECOND = {"usd_per_hour": 3600.0, "price_source": "price.usd_per_hour of the sweep"}
TYPICAL = {"usd_per_hour": 3600.0, "price_source": "typical on-demand, 2025-06; give yours"}
NO_PRICE = {"usd_per_hour": 0.0, "price_source": ""}


def invented(folder: Path, price: dict[str, Any]) -> InventedSweep:
    """One trial finished (8 s, 2 of them twice), one stopped at half (2 s); packs halve the LM."""
    store = Store.open(str(folder / "store"))
    Queue(store).submit(parse_sweep(SWEEP, "demo.yaml"), SWEEP)
    sweep = InventedSweep(store)
    sweep.begin(usd_per_hour=price["usd_per_hour"])
    for number, trial in enumerate(("t0000", "t0001")):
        sweep.say(
            Suggested(trial=trial, number=number, config=config(number), total_tokens=TOTAL),
            Leased(trial=trial, epoch=1),
            Started(trial=trial, epoch=1, **price),
            Reported(trial=trial, epoch=1, tokens=TOTAL // 2, metrics={"fvu": 0.5},
                     busy_seconds=2.0, lm_seconds=1.0, lm_alone_seconds=2.0),
        )  # fmt: skip
    sweep.say(
        Stopped(trial="t0001", epoch=1, rule="asha", rung=TOTAL // 2, metric="fvu", value=0.5,
                cutoff=0.4, against=3, reason="bad", tokens=TOTAL // 2),
        Preempted(trial="t0000", epoch=1, reason="node gone", tokens=0),
        Leased(trial="t0000", epoch=2),
        Started(trial="t0000", epoch=2, **price),
        Finished(trial="t0000", epoch=2, artefact="demo-t0000", metrics={"fvu": 0.3},
                 tokens=TOTAL, busy_seconds=6.0, lm_seconds=2.0, lm_alone_seconds=4.0),
    )  # fmt: skip
    return sweep


def report_of(sweep: InventedSweep) -> CostReport:
    return cost_of(sweep.watched().log.state, sweep.clock.now)


def test_without_a_sweep_there_is_nothing_to_pay(saeq: Saeq) -> None:
    code, out, _ = saeq("cost")
    assert code == 0 and "saeq run FILE" in out


def test_a_line_a_sweep_and_the_total(tmp_path: Path, saeq: Saeq) -> None:
    invented(tmp_path, DOLLAR_A_SECOND)
    code, out, _ = saeq("cost")
    assert code == 0
    line = next(line for line in out.splitlines() if line.startswith("demo"))
    for cell in ("$10.00", "$2.00", "$4.00", "100%"):
        assert cell in line
    # spent 10, stopping saved 2, packing saved 4
    assert "one run per SAE, each to its end, would have cost at least $16.00" in out
    assert "packing saved 25%, early stopping saved 12%" in out
    assert "preemptions cost $2.00, 20% of what was spent" in out


def test_a_line_a_trial_and_the_total(tmp_path: Path, saeq: Saeq) -> None:
    invented(tmp_path, DOLLAR_A_SECOND)
    code, out, _ = saeq("cost", "demo")
    assert code == 0
    first = next(line for line in out.splitlines() if line.startswith("t0000"))
    assert "finished" in first and "$8.00" in first
    assert "where it went: finished $8.00 (80%), stopped $2.00 (20%)" in out
    assert "budget: $10.00 of $10.00 used; no further trial is suggested" in out


def test_an_estimate_is_marked_as_one(tmp_path: Path, saeq: Saeq) -> None:
    invented(tmp_path, TYPICAL)
    for arguments in (("cost",), ("cost", "demo"), ("results", "demo", "--no-files")):
        assert "~$10.00" in saeq(*arguments)[1]


def test_without_a_price_seconds_stand_alone_and_it_says_how_to_give_one(
    tmp_path: Path, saeq: Saeq
) -> None:
    invented(tmp_path, NO_PRICE)
    code, out, _ = saeq("cost", "demo")
    assert code == 0 and "$" not in out.partition("budget: ")[0]
    assert "budget.usd does not see device time without a price" in out
    assert "would have taken at least 16s" in out
    assert "usd_per_hour: 2.5" in out and '--labels="saeq-usd-per-hour=2.5"' in out


def test_the_json_is_the_contract(tmp_path: Path, saeq: Saeq) -> None:
    invented(tmp_path, DOLLAR_A_SECOND)
    whole = json.loads(saeq("cost", "--json")[1])
    one = json.loads(saeq("cost", "demo", "--json")[1])
    assert whole["sweeps"] == [{key: value for key, value in one.items() if key != "trials"}]
    assert whole["total"]["spent"] == {"seconds": 10.0, "usd": 10.0}
    assert one["budget"]["usd_limit"] == 10.0
    assert one["trials"][1] == {
        "trial": "t0001",
        "state": "stopped",
        "tokens": 32_000,
        "total_tokens": 64_000,
        "spent": {"seconds": 2.0, "usd": 2.0},
        "lost_to_preemption": {"seconds": 0.0, "usd": 0.0},
        "lost_to_failures": {"seconds": 0.0, "usd": 0.0},
        "saved_by_stopping": {"seconds": 2.0, "usd": 2.0},
        "saved_by_packing": {"seconds": 1.0, "usd": 1.0},
        "unpriced_seconds": 0.0,
        "price_sources": ["price.usd_per_hour of the sweep"],
        "is_estimate": False,
    }


def test_dollars_are_null_where_no_price_is_known(tmp_path: Path, saeq: Saeq) -> None:
    invented(tmp_path, NO_PRICE)
    one = json.loads(saeq("cost", "demo", "--json")[1])
    assert one["spent"] == {"seconds": 10.0, "usd": None}
    assert one["per_finished"] == {"seconds": 10.0, "usd": None}
    assert (one["unpriced_seconds"], one["price_sources"]) == (10.0, [])


def test_csv_goes_where_it_is_told(tmp_path: Path, saeq: Saeq) -> None:
    invented(tmp_path, DOLLAR_A_SECOND)
    rows = list(csv.DictReader(io.StringIO(saeq("cost", "demo", "--csv", "-")[1])))
    assert [row["trial"] for row in rows] == ["t0000", "t0001"]
    assert rows[0]["lost_to_preemption_usd"] == "2.0"
    code, _, err = saeq("cost", "--csv", "all.csv")
    assert code == 0 and "wrote all.csv" in err
    assert (tmp_path / "all.csv").read_text().startswith("sweep,state,spent_seconds,spent_usd")


def test_mistakes_are_answered(tmp_path: Path, saeq: Saeq) -> None:
    invented(tmp_path, DOLLAR_A_SECOND)
    assert saeq("cost", "dem")[0] == 2
    code, _, err = saeq("cost", "--json", "--csv", "-")
    assert code == 2 and "both want stdout" in err
    code, _, err = saeq("cost", "--csv", "no/such/folder.csv")
    assert code == 2 and "cannot be written" in err


@pytest.mark.parametrize("width", [20, 40, 60, 80, 100, 140, 200])
@pytest.mark.parametrize("price", [DOLLAR_A_SECOND, TYPICAL, NO_PRICE])
def test_no_line_of_a_table_is_wider_than_the_terminal(
    tmp_path: Path, width: int, price: dict[str, Any]
) -> None:
    from orchestrator.cli.cost import _sweep_cost

    sweep = invented(tmp_path, price)
    one = _sweep_cost(sweep.store, sweep.watched(), sweep.clock.now)
    total = cost_of_all([sweep.watched().log.state], [one.report], sweep.clock.now)
    for ascii_only in (False, True):
        tables = [
            cost_table([one], total, width, ascii_only=ascii_only),
            trial_cost_table(one, width, ascii_only=ascii_only),
        ]
        for line in [line for lines in tables for line in lines]:
            assert line.cell_len <= max(width, LONGEST_WORD), line.plain
            assert not ascii_only or line.plain.isascii()


LONGEST_WORD = 36
"""A word of a sentence is not broken: `--labels="saeq-usd-per-hour=2.5"`, and its table."""


def test_machines_that_idle_are_named(tmp_path: Path) -> None:
    sweep = invented(tmp_path, DOLLAR_A_SECOND)
    sweep.clock.now += 90
    said = " ".join(sentences(report_of(sweep)))
    assert "machines were held for" in said and "not attributed to trials" in said
