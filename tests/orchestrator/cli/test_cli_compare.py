"""`saeq compare`: from the log of a sweep to a verdict, or to what to run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from orchestrator.log.events import Finished, Leased, Suggested
from orchestrator.queue import Queue
from orchestrator.spec.sweep import parse_sweep
from orchestrator.store import Store
from tests.orchestrator.cli.conftest import Saeq
from tests.orchestrator.invented_sweep import InventedSweep

SWEEP = """
name: heads
job: embedding
data: {builtin: python-docs}
encoder: {builtin: minilm}
space:
  loss: triplet
  distance: {choice: [euclidean, cosine]}
  margin: {choice: [0.1, 0.5]}
  seed: {choice: [0, 1, 2]}
search: {sampler: grid}
"""


@pytest.fixture
def heads(tmp_path: Path) -> InventedSweep:
    """Cosine is better by 0.1 in what the sweep is judged by, and equal on test rows."""
    store = Store.open(str(tmp_path / "store"))
    spec = parse_sweep(SWEEP, "heads.yaml")
    Queue(store).submit(spec, SWEEP)
    sweep = InventedSweep.under(tmp_path / "store", id="heads", job="embedding")
    sweep.begin()
    number = 0
    for distance in ("euclidean", "cosine"):
        for margin in (0.1, 0.5):
            for seed in range(3):
                trial = f"t{number:04d}"
                config = {"loss": "triplet", "distance": distance, "margin": margin, "seed": seed}
                value = 0.5 + 0.1 * (distance == "cosine") + 0.01 * seed
                metrics = {"macro_accuracy": value, "test_macro_accuracy": 0.5, "loss": margin}
                sweep.say(
                    Suggested(trial=trial, number=number, config=config, total_tokens=30),
                    Leased(trial=trial, epoch=1),
                    Finished(trial=trial, epoch=1, artefact=f"heads-{trial}", metrics=metrics,
                             tokens=30, busy_seconds=1.0),
                )  # fmt: skip
                number += 1
    return sweep


@pytest.mark.usefixtures("heads")
def test_the_verdict_is_printed_and_written(saeq: Saeq) -> None:
    code, out, _ = saeq("compare", "heads", "--by", "distance", "--csv", "found.csv")
    assert code == 0
    assert "cosine is better than euclidean." in out
    assert Path("found.csv").read_text().startswith("by,metric,first,second")
    code, out, _ = saeq("compare", "heads", "--by", "distance", "--json")
    assert json.loads(out)["comparisons"][0]["winner"] == "cosine"


@pytest.mark.usefixtures("heads")
def test_another_metric_may_tie(saeq: Saeq) -> None:
    _, out, _ = saeq("compare", "heads", "--by", "distance", "--metric", "test_macro_accuracy")
    assert "a tie" in out
    _, out, _ = saeq("compare", "heads", "--by", "distance", "--within", "0.2")
    assert "a tie" in out
    _, out, _ = saeq("compare", "heads", "--by", "distance", "--at-best", "margin")
    assert "best setting was chosen by mean macro_accuracy" in out


@pytest.mark.usefixtures("heads")
@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--by", "distanc"), "Did you mean 'distance'?"),
        (("--by", "pool"), "pool: {choice: [mixed, disjoint]}"),
        (("--by", "distance", "--metric", "fvu"), "it has macro_accuracy"),
        (("--by", "distance", "--metric", "separation"), "no such metric with a better side"),
        (("--by", "margin", "--metric", "loss"), "units that margin changes"),
        (("--by", "distance", "--at-best", "distance"), "is what is compared"),
        (("--by", "distance", "--at-best", "nothing"), "has a parameter 'nothing'"),
        (("--by", "loss"), "two values of loss are needed"),
        ((), "--by"),
    ],
)
def test_what_cannot_be_compared_is_said_with_the_way_out(
    arguments: tuple[str, ...], told: str, saeq: Saeq
) -> None:
    code, _, err = saeq("compare", "heads", *arguments)
    assert code == 2
    assert told in err


def test_a_sweep_without_trials_says_so(saeq: Saeq, tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "store"))
    Queue(store).submit(parse_sweep(SWEEP, "heads.yaml"), SWEEP)
    code, _, err = saeq("compare", "heads", "--by", "distance")
    assert code == 2
    assert "0 of 0 finished" in err
    code, _, err = saeq("compare", "nobody", "--by", "distance")
    assert code == 2
