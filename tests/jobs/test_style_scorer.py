"""The job kind `style_scorer`: learns from texts, resumes exactly, and becomes a scorer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jobs.kind import FinishedTrial, SweepUnusable, TrialContext, TrialFailed, TrialRunner
from jobs.style_scorer import StyleScorer
from orchestrator.spec.faults import SpecFaults
from orchestrator.spec.sweep import parse_sweep
from steering.styles.scorers import ScorerSpec, score_attributes
from tests.sae.tiny_model import build_tiny_model

WORDS = ("river", "mill", "grain", "flour", "morning", "village", "wheel", "bread")
STEPS = 40


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAEQ_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def setup(tmp_path: Path) -> dict[str, Any]:
    """120 texts, scored by how loud they are and by nothing that is in them."""
    random = np.random.default_rng(0)
    with open(tmp_path / "rows.jsonl", "w") as out:
        for row in range(120):
            loud = row % 3
            text = " ".join(random.choice(WORDS, 5)) + " !!!" * 3 * loud + f" {row}"
            scores = [0.5 * loud, float(random.random())]
            out.write(json.dumps({"text": text, "scores": scores, "q": row // 4}) + "\n")
    about = {"name": "two", "version": "1", "dimension": 2}
    attributes = [
        {"id": "loud", "text": "The author shouts."},
        {"id": "noise", "text": "The author is noise."},
    ]
    (tmp_path / "catalogue.json").write_text(json.dumps({**about, "attributes": attributes}))
    return {
        "data": {"files": str(tmp_path / "rows.jsonl"), "vector": "scores", "item": "q"},
        "encoder": {"hf": str(build_tiny_model(tmp_path / "model"))},
        "catalogue": str(tmp_path / "catalogue.json"),
        "steps": STEPS,
    }


def runner_of(setup: dict[str, Any], **config: Any) -> TrialRunner:
    given = {"loss": "mse", "hidden": [16], "lr": 1e-2, **config}
    return StyleScorer().runner(TrialContext("sweep", "t0000", given, setup, 0, 1, "cpu"))


def finished(setup: dict[str, Any], folder: Path, **config: Any) -> Any:
    runner = runner_of(setup, **config)
    runner.attach(None)
    runner.advance(STEPS, STEPS, 600.0)
    folder.mkdir()
    return runner.finish(folder)


@pytest.mark.parametrize("loss", sorted(str(name) for name in StyleScorer().parameters()))
def test_every_loss_reports_every_metric_and_becomes_a_scorer(
    loss: str, setup: dict[str, Any], tmp_path: Path
) -> None:
    runner = runner_of(setup, loss=loss)
    assert runner.attach(None) == 0
    progress = runner.advance(STEPS, STEPS, 600.0)
    assert progress.metrics is not None
    assert set(progress.metrics) == {metric.name for metric in StyleScorer.metrics}
    folder = tmp_path / "artefact"
    folder.mkdir()
    done = runner.finish(folder)
    known = {metric.name for metric in (*StyleScorer.metrics, *StyleScorer.final_metrics)}
    assert set(done.metrics) == known
    loud, noise = done.record["attributes_test"]
    assert loud["r2"] > 0.7
    assert noise["r2"] < 0.2
    assert len(done.record["catalogue_sha256"]) == 64
    json.dumps(done.record, allow_nan=False)
    lines = (folder / "report" / "attributes.csv").read_text().splitlines()
    assert lines[0].startswith("id,text,r2,auroc") and lines[1].startswith("loud,")
    spec = ScorerSpec(regressor=str(folder))
    texts = [
        "river mill grain flour bread 1",
        "river mill grain flour bread !!! !!! !!! !!! !!! !!!",
    ]
    scores = score_attributes(spec, texts, ["The author shouts."], tmp_path / "cache")
    assert scores[1, 0] > scores[0, 0] + 0.3


def test_a_trial_that_was_interrupted_ends_where_it_would_have(
    setup: dict[str, Any], tmp_path: Path
) -> None:
    whole = runner_of(setup, dropout=0.2)
    whole.attach(None)
    expected = whole.advance(STEPS, STEPS, 600.0).metrics
    first = runner_of(setup, dropout=0.2)
    first.attach(None)
    assert first.advance(STEPS, STEPS, 0.0).metrics is None
    first.save(tmp_path)
    second = runner_of(setup, dropout=0.2)
    assert 0 < second.attach(tmp_path) < STEPS
    found = second.advance(STEPS, STEPS, 600.0).metrics
    assert expected is not None and found is not None
    assert found["r2"] == expected["r2"]


def test_a_number_of_rows_that_is_not_there_fails_its_own_trial_alone(
    setup: dict[str, Any],
) -> None:
    with pytest.raises(TrialFailed, match="train_rows=119") as failed:
        runner_of(setup, train_rows=119).attach(None)
    assert failed.value.final


def test_a_catalogue_of_another_length_is_refused_for_all(setup: dict[str, Any]) -> None:
    path = Path(setup["catalogue"])
    one = json.loads(path.read_text())
    path.write_text(json.dumps({**one, "dimension": 1, "attributes": one["attributes"][:1]}))
    with pytest.raises(SweepUnusable, match="style vectors have 2 numbers, but catalogue two 1"):
        runner_of(setup).attach(None)


def test_trials_on_different_numbers_of_rows_become_a_learning_curve(
    setup: dict[str, Any], tmp_path: Path
) -> None:
    trials = []
    for rows in (8, 80):
        folder = tmp_path / f"rows{rows}"
        done = finished(setup, folder, train_rows=rows)
        trials.append(
            FinishedTrial(f"t{rows}", {"loss": "mse"}, dict(done.metrics), f"a{rows}", folder)
        )
    written = StyleScorer().write_report(None, trials, tmp_path)
    assert [path.name for path in written] == ["learning_curve.png", "learning_curve.csv"]
    assert [line.split(",")[1] for line in written[1].read_text().splitlines()[1:]] == ["8", "80"]


SWEEP = """
name: scorer
job: style_scorer
data: {builtin: python-docs}
encoder: {builtin: minilm}
space:
  loss: {choice: [mse, bce]}
  train_rows: {choice: [100, 300]}
search: {sampler: grid}
"""


def test_a_sweep_is_checked_before_it_runs() -> None:
    spec = parse_sweep(SWEEP, "sweep.yaml")
    assert (spec.metric, spec.direction) == ("r2", "max")
    assert tuple(spec.strata) == ("train_rows",)
    with pytest.raises(SpecFaults, match="loss"):
        parse_sweep(SWEEP + "early_stop: {scheduler: asha, metric: loss, grace: 100}", "s.yaml")
    with pytest.raises(SpecFaults, match="the vectors are what is learned"):
        parse_sweep(SWEEP.replace("{builtin: minilm}", "{features: true}"), "s.yaml")
    with pytest.raises(SpecFaults, match=r"vector: NAME"):
        parse_sweep(SWEEP.replace("{builtin: python-docs}", "{files: a.jsonl}"), "s.yaml")
