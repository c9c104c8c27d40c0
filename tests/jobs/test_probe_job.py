"""The job kind `probe`: finds what was planted, resumes exactly, and says what it stands beside."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from jobs.kind import FinishedTrial, SweepUnusable, TrialContext, TrialRunner
from jobs.probe import LatentsConfig, Probe, ProbeSetup
from jobs.runners import language_models
from jobs.runners import probe as probe_runner
from orchestrator.spec.faults import SpecFaults
from orchestrator.spec.sweep import parse_sweep
from steering.probes.latents.questions import YesNoSpec
from steering.probes.method import FittedProbe
from tests.jobs.bread_texts import write_texts
from tests.one_thread import one_thread
from tests.sae.tiny_model import build_tiny_model
from tests.steering.probes.tiny_saes import dense_sae

HOOK = "resid_post.1"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("SAEQ_CACHE", str(tmp_path / "cache"))
    language_models.model_of.cache_clear()
    probe_runner.labelled_texts.cache_clear()
    with one_thread():
        yield


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("model") / "llama")


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_texts(tmp_path_factory.mktemp("texts") / "texts.jsonl")


def setup_of(model: Path, texts: Path, **changes: Any) -> dict[str, Any]:
    return {
        "model": {"name": str(model), "dtype": "float32"},
        "data": {"files": str(texts), "label": "bread", "item": "who"},
        "hooks": [HOOK, "resid_post.0"],
        "read": {"max_tokens": 48},
        **changes,
    }


def runner_of(setup: dict[str, Any], **config: Any) -> TrialRunner:
    config = {"c": [0.1, 1.0], **config} if "method" not in config else config
    return Probe().runner(TrialContext("sweep", "t0000", config, setup, 0, 1, "cpu"))


def finished(runner: TrialRunner, folder: Path, units: int = 3) -> dict[str, float]:
    runner.advance(units, units, 600.0)
    folder.mkdir(parents=True)
    metrics = dict(runner.finish(folder).metrics)
    runner.detach()
    return metrics


def test_a_probe_beats_its_controls_and_becomes_an_artefact(
    model: Path, texts: Path, tmp_path: Path
) -> None:
    runner = runner_of(setup_of(model, texts), source=HOOK, pooling="max")
    assert runner.attach(None) == 0
    progress = runner.advance(3, 3, 600.0)
    assert progress.metrics is not None
    assert set(progress.metrics) == {metric.name for metric in Probe.metrics}
    folder = tmp_path / "artefact"
    folder.mkdir()
    metrics = runner.finish(folder).metrics
    assert set(metrics) == {m.name for m in (*Probe.metrics, *Probe.final_metrics)}
    assert metrics["test_auroc"] > 0.8
    assert abs(metrics["shuffled_auroc"] - 0.5) < 0.2
    assert FittedProbe.load(folder / "probe").width == 32
    said = json.loads((folder / "report" / "probe.json").read_text())
    assert {"shuffled_labels", "selectivity", "bag_of_words", "length"} <= set(said["controls"])
    assert said["controls"]["bag_of_words"]["value"] > 0.95, "the word gives it away"
    assert "bag of words does as well" in (folder / "report" / "probe.html").read_text()


def test_a_probe_that_was_interrupted_ends_where_it_would_have(
    model: Path, texts: Path, tmp_path: Path
) -> None:
    setup = setup_of(model, texts, controls=False)
    whole = runner_of(setup, source=HOOK)
    whole.attach(None)
    expected = finished(whole, tmp_path / "whole")
    first = runner_of(setup, source=HOOK)
    first.attach(None)
    first.advance(2, 2, 600.0)
    saved = tmp_path / "saved"
    saved.mkdir()
    assert first.save(saved) == 2
    second = runner_of(setup, source=HOOK)
    assert second.attach(saved) == 2
    again = finished(second, tmp_path / "again")
    assert again == pytest.approx(expected, abs=1e-12, nan_ok=True)


def test_of_two_saes_the_one_that_carries_the_label_is_chosen_and_its_latent_shown(
    model: Path, texts: Path, tmp_path: Path
) -> None:
    good, blind = dense_sae(hook=HOOK), dense_sae(hook=HOOK, seed=1)
    with torch.no_grad():
        blind.sae.W_enc.zero_()
    saes = {}
    for name, sae in (("blind", blind), ("good", good)):
        sae.sae.save_model(tmp_path / name)
        saes[name] = {"folder": str(tmp_path / name)}
    setup = setup_of(model, texts, saes=saes, latents={"top": 2, "contexts": 2, "causal_texts": 4})
    runner = runner_of(setup, source="saes", pooling="max", method="logistic_l2")
    runner.attach(None)
    metrics = finished(runner, tmp_path / "artefact")
    said = json.loads((tmp_path / "artefact" / "report" / "probe.json").read_text())
    assert said["best"] == "good"
    assert metrics["test_auroc"] > 0.6
    assert said["controls"]["raw_logistic"]["value"] > 0.6
    assert len(said["latents"]) == 2
    assert any(latent["contexts"] for latent in said["latents"])
    trial = FinishedTrial("t0000", {}, metrics, "probe-t0000", tmp_path / "artefact")
    runner = runner_of({**setup, "controls": False}, source=HOOK, pooling="max")
    runner.attach(None)
    raw = FinishedTrial("t0001", {}, finished(runner, tmp_path / "raw"), "p", tmp_path / "raw")
    out = tmp_path / "report"
    out.mkdir()
    page, *others = Probe().write_report(ProbeSetup.model_validate(setup), [trial, raw], out)
    assert page.name == "probes.html"
    assert {path.name for path in others} == {"probes.csv", "saes.csv"}
    text = page.read_text()
    saes_csv = list(csv.DictReader((out / "saes.csv").open()))
    for row in (*csv.DictReader((out / "probes.csv").open()), *saes_csv):
        assert 0 <= float(row["low_over_splits"]) <= float(row["high_over_splits"]) <= 1
    assert "SAEs by what they are good for" in text
    assert "Having SAE probes to choose from changes test AUROC by " in text
    assert "the mean of 3 splits (" in text
    assert "of the same texts, so this is no confidence interval" in text
    assert "http" not in text.replace("http-equiv", ""), "readable without a network"


def test_what_cannot_be_used_is_said(model: Path, texts: Path) -> None:
    setup = setup_of(model, texts, saes="needs")
    with pytest.raises(SweepUnusable, match="this one needs none of kind sae"):
        runner_of(setup, source="saes").attach(None)
    setup = setup_of(model, texts)
    setup["data"]["label"] = "butter"
    with pytest.raises(SweepUnusable, match="butter"):
        runner_of(setup, source=HOOK).attach(None)


def test_texts_of_too_few_items_are_refused_before_the_model_is_read(
    model: Path, texts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe_runner, "model_of", lambda *_: pytest.fail("read the model first"))
    setup = setup_of(model, texts, split={"shares": [0.95, 0.025, 0.025]})
    setup["read"]["max_tokens"] = 47  # no cached features
    with pytest.raises(SweepUnusable, match="at least 2 items.* has 1.*max_texts.*finer item"):
        runner_of(setup, source=HOOK).attach(None)


def test_each_trial_is_planned_with_a_language_model_of_its_own() -> None:
    model = {"builtin": "smollm2-135m", "dtype": "float32"}
    setup = ProbeSetup.model_validate(
        {"model": model, "data": {"builtin": "manual-parts"}, "hooks": ["resid_post.1"]}
    )
    footprint = Probe().footprint(setup, {})
    assert footprint.shared_bytes == 0
    assert footprint.trial_bytes >= 2**29 + 134_000_000 * 4


def test_the_example_of_a_question_is_yaml() -> None:
    description = LatentsConfig.model_fields["question"].description or ""
    example = description[description.index("{") : description.index("}") + 1]
    YesNoSpec.model_validate(yaml.safe_load(example))


def test_accuracy_is_no_objective_where_one_answer_is_nearly_always_right(
    model: Path, texts: Path, tmp_path: Path
) -> None:
    rows = [json.loads(line) for line in texts.read_text().splitlines()]
    file = tmp_path / "rare.jsonl"
    rare = [{**row, "bread": place % 8 == 0} for place, row in enumerate(rows)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rare))
    context = TrialContext(
        "sweep", "t0", {"source": HOOK}, setup_of(model, file), 0, 1, "cpu", metric="accuracy"
    )
    with pytest.raises(SweepUnusable, match="accuracy"):
        Probe().runner(context).attach(None)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"hooks": ["resid_post.99"]}, "layers 0 to 29"),
        ({"saes": "needs"}, "saes: takes what other sweeps made, and this one needs nothing of"),
        (
            {"saes": "needs", "needs": [{"sweep": "s", "select": {"kind": "vectors"}}]},
            "add needs: [{sweep: NAME, select: {kind: sae, ...}}]",
        ),
        ({"hooks": [], "saes": {}}, "nothing is read"),
        ({"hooks": ["resid_post.1", "resid_post.1"]}, "names one twice"),
        ({"space": {"method": "k_spars"}}, "k_sparse"),
        ({"space": {"method": "knn", "pooling": "attention"}}, "or method multiple_instance_"),
        ({"space": {"method": "multiple_instance_max", "pooling": "mean"}}, "fixed: attention"),
        ({"space": {"method": "positive_unlabelled"}}, "known"),
        (
            {
                "space": {
                    "method": "positive_unlabelled",
                    "known": "positive",
                    "imbalance": "sqrt",
                }
            },
            "imbalance='sqrt'",
        ),
        ({"label_noise": {"rates": [0.2, 0.5]}}, "stay below 0.5"),
        ({"label_noise": {"flips": ["both"]}}, "must be one of symmetric"),
        ({"label_noise": {"rates": [1.5]}}, "1.5"),
        ({"token_noise": {"kind": "clean", "wrong_among_positive": 0.9}}, "class_conditional"),
        ({"space": {"method": "knn", "source": "resid_post.7"}}, "none of"),
        ({"space": {"method": "knn", "neighbours": 3}}, "neighbours"),
    ],
)
def test_faults_are_said_before_anything_runs(changes: dict[str, Any], said: str) -> None:
    spec = {
        "name": "p",
        "job": "probe",
        "model": {"builtin": "smollm2-135m"},
        "data": {"builtin": "manual-parts"},
        "hooks": ["resid_post.1"],
        "space": {"method": "knn"},
        **changes,
    }
    with pytest.raises(SpecFaults) as refused:
        parse_sweep(json.dumps(spec))
    assert said in str(refused.value)
