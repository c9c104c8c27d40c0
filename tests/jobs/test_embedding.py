"""The job kind `embedding`: found by its objective, resumed exactly, refused with reasons."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from jobs.embedding import Embedding
from jobs.kind import SweepUnusable, TrialContext, TrialRunner
from orchestrator.spec.faults import SpecFaults
from orchestrator.spec.sweep import parse_sweep
from steering.styles import load


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAEQ_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Five groups of answers to forty questions, in 24 numbers of which six tell the groups."""
    generator = np.random.default_rng(0)
    centre = np.zeros((5, 24))
    centre[:, :6] = 1.2 * generator.normal(size=(5, 6))
    file = tmp_path / "rows.jsonl"
    with open(file, "w") as out:
        for row in range(400):
            style = centre[row % 5] + generator.normal(size=24)
            about = {"group": f"g{row % 5}", "question": f"q{row // 10}", "corpus": "ab"[row % 2]}
            out.write(json.dumps({**about, "style": style.tolist()}) + "\n")
    return file


def setup_of(table: Path, **changes: Any) -> dict[str, Any]:
    data = {"files": str(table), "vector": "style", "item": "question", "corpus": "corpus"}
    return {"data": data, "encoder": {"features": True}, "epochs": 8, **changes}


def runner_of(setup: dict[str, Any], **config: Any) -> TrialRunner:
    context = TrialContext("sweep", "t0000", {"lr": 3e-3, **config}, setup, 0, 1, "cpu")
    return Embedding().runner(context)


@pytest.mark.parametrize("loss", sorted(str(name) for name in Embedding().parameters()))
def test_every_loss_reports_every_metric_and_becomes_an_artefact(
    loss: str, table: Path, tmp_path: Path
) -> None:
    parents = {"g0": "even", "g2": "even", "g4": "even", "g1": "odd", "g3": "odd"}
    runner = runner_of(setup_of(table, parents=parents), loss=loss)
    assert runner.attach(None) == 0
    progress = runner.advance(8, 8, 60.0)
    assert progress.metrics is not None
    assert set(progress.metrics) == {metric.name for metric in Embedding.metrics}
    assert progress.metrics["macro_accuracy"] > 0.5
    folder = tmp_path / loss
    folder.mkdir()
    finished = runner.finish(folder)
    assert finished.metrics["test_macro_accuracy"] > 0.5
    assert finished.metrics["test_parent_accuracy"] >= finished.metrics["test_macro_accuracy"]
    assert set(finished.record["report"]["accuracy_by_corpus"]) == {"a", "b"}
    json.dumps(finished.record, allow_nan=False)
    model = load(folder)
    rows = [json.loads(line) for line in table.read_text().splitlines()]
    found = model.nearest_group(np.array([row["style"] for row in rows]))
    right = np.mean([group == row["group"] for group, row in zip(found, rows, strict=True)])
    assert right > 0.6


def test_a_trial_that_was_interrupted_ends_where_it_would_have(table: Path, tmp_path: Path) -> None:
    setup = setup_of(table)
    whole = runner_of(setup, dropout=0.1)
    whole.attach(None)
    expected = whole.advance(8, 8, 60.0).metrics
    first = runner_of(setup, dropout=0.1)
    first.attach(None)
    assert first.advance(8, 8, 0.0).metrics is None  # cut off after one step, in an epoch
    first.save(tmp_path)
    second = runner_of(setup, dropout=0.1)
    assert second.attach(tmp_path) == 0
    found = second.advance(8, 8, 60.0).metrics
    assert expected is not None
    assert found is not None
    assert {k: v for k, v in found.items() if k != "loss"} == {
        k: v for k, v in expected.items() if k != "loss"
    }


def test_labels_alone_give_chance(table: Path, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in table.read_text().splitlines()]
    generator = np.random.default_rng(1)
    for row, group in zip(rows, generator.permutation([r["group"] for r in rows]), strict=True):
        row["group"] = str(group)
    shuffled = tmp_path / "shuffled.jsonl"
    shuffled.write_text("".join(json.dumps(row) + "\n" for row in rows))
    runner = runner_of(setup_of(shuffled))
    runner.attach(None)
    metrics = runner.advance(8, 8, 60.0).metrics
    assert metrics is not None
    assert metrics["macro_accuracy"] < 0.4


def test_bad_data_makes_the_sweep_unusable_with_the_reason(table: Path) -> None:
    setup = setup_of(table)
    setup["data"] = {**setup["data"], "vector": "stile"}
    with pytest.raises(SweepUnusable, match="no column 'stile'.*Did you mean 'style'"):
        runner_of(setup).attach(None)


SWEEP = """
name: styles
job: embedding
data: {{files: rows.jsonl, vector: style}}
encoder: {{features: true}}
space: {space}
search: {{sampler: random, trials: 4}}
early_stop: {{scheduler: asha, metric: {metric}}}
"""


def test_loss_is_refused_as_objective_while_a_margin_is_searched() -> None:
    space = "{loss: triplet, margin: {uniform: [0.1, 2.0]}}"
    with pytest.raises(SpecFaults, match="(?s)loss.*margin"):
        parse_sweep(SWEEP.format(space=space, metric="loss"))
    parse_sweep(SWEEP.format(space=space, metric="macro_accuracy"))


def test_a_margin_that_collapses_everything_is_refused() -> None:
    space = "{loss: triplet, distance: cosine, margin: 5.0}"
    with pytest.raises(SpecFaults, match="(?s)at most 2, pulls everything into one point"):
        parse_sweep(SWEEP.format(space=space, metric="macro_accuracy"))


def test_an_encoder_without_its_column_is_refused() -> None:
    with pytest.raises(ValidationError, match="name their column: data.vector"):
        Embedding.Setup.model_validate(
            {"data": {"files": "a.csv", "text": "t"}, "encoder": {"features": True}}
        )
