"""Noisy labels in `probe` jobs: bags of tokens, PU learning, thinned negatives, noise sweeps."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from jobs.kind import FinishedTrial, TrialContext
from jobs.probe import Probe, ProbeSetup
from jobs.runners import language_models
from jobs.runners import probe as probe_runner
from steering.probes.method import FittedProbe
from tests.jobs.bread_texts import write_texts
from tests.one_thread import one_thread
from tests.sae.tiny_model import build_tiny_model

HOOK = "resid_post.1"
BAGS: dict[str, Any] = {
    "method": "multiple_instance_max", "weight_decay": [0.01], "epochs": [5, 20],
}  # fmt: skip
LABEL_NOISE = {"rates": [0.1, 0.3], "flips": ["symmetric", "positive_to_negative"], "seeds": 3}
DECLARED = {"kind": "class_conditional", "wrong_among_positive": 0.9}


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Features are extracted once for all tests here."""
    with pytest.MonkeyPatch.context() as patch, one_thread():
        patch.setenv("SAEQ_CACHE", str(tmp_path_factory.mktemp("cache")))
        language_models.model_of.cache_clear()
        probe_runner.labelled_texts.cache_clear()
        yield


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("model") / "llama")


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the place of the word that tells the label."""
    file = write_texts(tmp_path_factory.mktemp("texts") / "texts.jsonl")
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    for row in rows:
        start = row["text"].find("bread")
        row["where"] = [] if start < 0 else [{"start": start, "end": start + len("bread")}]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


@pytest.fixture
def plain_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages without pictures, which take longer than the probes."""
    monkeypatch.setattr("steering.probes.report.pictures._drawn", lambda *_, **__: b"picture")


def setup_of(model: Path, texts: Path, **changes: Any) -> dict[str, Any]:
    return {
        "model": {"name": str(model), "dtype": "float32"},
        "data": {"files": str(texts), "label": "bread", "item": "who"},
        "hooks": [HOOK],
        "read": {"max_tokens": 48},
        "seeds": 1,
        "controls": False,
        **changes,
    }


def said_of(setup: dict[str, Any], folder: Path, config: dict[str, Any]) -> dict[str, Any]:
    """The report of a finished trial; its files are in the folder."""
    runner = Probe().runner(TrialContext("sweep", "t0000", config, setup, 0, 1, "cpu"))
    runner.attach(None)
    runner.advance(1, 1, 600.0)
    folder.mkdir()
    runner.finish(folder)
    runner.detach()
    said: dict[str, Any] = json.loads((folder / "report" / "probe.json").read_text())
    return said


def test_a_sweep_of_label_noise_is_drawn_tabled_and_written_as_csv(
    model: Path, texts: Path, tmp_path: Path
) -> None:
    setup = setup_of(model, texts, label_noise=LABEL_NOISE)
    configs: list[dict[str, Any]] = [
        {"c": [0.1], "pooling": "max"},
        {"method": "mass_mean", "pooling": "max"},
    ]
    trials = []
    for place, config in enumerate(configs):
        folder = tmp_path / f"t{place}"
        curves = said_of(setup, folder, config)["label_noise"]["curves"]
        found = {(point["flip"], point["rate"]): point for point in curves}
        assert list(found)[0] == ("none", 0.0)
        assert {flip for flip, _ in found} == {"none", "symmetric", "positive_to_negative"}
        assert len(found) == 1 + 2 * 2
        assert all(point["low"] <= point["auroc"] <= point["high"] for point in curves)
        assert found["none", 0.0]["flipped_share"] == 0
        assert found["symmetric", 0.3]["flipped_share"] == pytest.approx(0.3, abs=0.15)
        assert found["none", 0.0]["auroc"] > found["symmetric", 0.3]["auroc"] - 0.05
        page = (folder / "report" / "probe.html").read_text()
        assert "Wrong labels" in page
        assert "positives missed" in page
        trials.append(FinishedTrial(f"t{place}", config, {}, f"probe-t{place}", folder))
    out = tmp_path / "out"
    out.mkdir()
    sweep_page, *others = Probe().write_report(ProbeSetup.model_validate(setup), trials, out)
    assert "Wrong labels" in sweep_page.read_text()
    assert {path.name for path in others} == {"probes.csv", "label_noise.csv"}
    rows = list(csv.DictReader((out / "label_noise.csv").open()))
    assert len(rows) == 2 * 5
    assert {row["method"] for row in rows} == {"logistic_l2", "mass_mean"}
    assert {row["flip"] for row in rows} == {"none", "symmetric", "positive_to_negative"}


@pytest.mark.usefixtures("plain_pages")
def test_a_sweep_of_label_noise_can_be_left_between_fits_and_gone_on_with(
    model: Path, texts: Path, tmp_path: Path
) -> None:
    noise = {"rates": [0.3], "flips": ["positive_to_negative"], "seeds": 2}
    setup = setup_of(model, texts, label_noise=noise)
    config = {"method": "mass_mean", "pooling": "max"}
    whole = said_of(setup, tmp_path / "whole", config)["label_noise"]

    def runner_at(checkpoint: Path | None) -> Any:
        runner: Any = Probe().runner(TrialContext("sweep", "t0", config, setup, 0, 1, "cpu"))
        runner.attach(checkpoint)
        return runner

    first, steps = runner_at(None), 0
    while len(first._fits) < 1 or len(first._noise_steps.points) < 3:
        progress = first.advance(1, 1, 0.0)  # comes back after a step: here it may be stopped
        assert progress.metrics is None
        assert progress.tokens == 0, "the last split is done with its noise sweep"
        steps += 1
    assert steps == 1 + 3
    saved = tmp_path / "saved"
    saved.mkdir()
    first.save(saved)
    second = runner_at(saved)
    assert len(second._noise.points) == 3
    assert second.advance(1, 1, 600.0).tokens == 1
    (tmp_path / "again").mkdir()
    second.finish(tmp_path / "again")
    again = json.loads((tmp_path / "again" / "report" / "probe.json").read_text())
    assert again["label_noise"] == whole


def test_noise_that_leaves_no_positive_is_said_and_stops_nothing(
    model: Path, texts: Path, tmp_path: Path
) -> None:
    noise = {"rates": [0.99], "flips": ["positive_to_negative"], "seeds": 1}
    setup = setup_of(model, texts, label_noise=noise)
    curves = said_of(setup, tmp_path / "t", {"c": [0.1]})["label_noise"]["curves"]
    assert [point["auroc"] is None for point in curves] == [False, True]
    assert "Wrong labels" in (tmp_path / "t" / "report" / "probe.html").read_text()


@pytest.mark.usefixtures("plain_pages")
def test_without_the_asking_there_is_no_noise_sweep(
    model: Path, texts: Path, tmp_path: Path
) -> None:
    said = said_of(setup_of(model, texts), tmp_path / "t", {"c": [0.1]})
    assert said["label_noise"] is None
    assert said["levels"] is None, "of pooled features there are no tokens"
    assert "Wrong labels" not in (tmp_path / "t" / "report" / "probe.html").read_text()


@pytest.mark.usefixtures("plain_pages")
def test_a_probe_of_bags_finds_the_word_is_judged_by_text_and_has_all_controls(
    model: Path, texts: Path, tmp_path: Path
) -> None:
    setup = setup_of(model, texts, controls=True)
    said = said_of(setup, tmp_path / "bags", BAGS)
    assert said["about"]["pooling"] == "attention", "the method's default"
    assert said["test"]["metrics"]["auroc"]["estimate"] > 0.8
    assert said["test"]["rows"] == said["test"]["items"] * 5, "judged by text"
    assert {"shuffled_labels", "selectivity", "bag_of_words", "length"} <= set(said["controls"])
    skipped = {name: one["skipped"] for name, one in said["controls"].items() if "skipped" in one}
    assert set(skipped) == {"selectivity"}
    assert "no item is in two parts" in skipped["selectivity"]
    assert "no item is in two parts" in (tmp_path / "bags" / "report" / "probe.html").read_text()
    assert said["sources"][0]["fits"][0]["chosen"][0]["epochs"] in (5, 20)
    assert FittedProbe.load(tmp_path / "bags" / "probe").method == "multiple_instance_max"


@pytest.mark.usefixtures("plain_pages")
@pytest.mark.parametrize(
    ("config", "least"),
    [(BAGS, 0.6), ({"method": "logistic_l2", "c": [0.1], "pooling": "tokens"}, 0.8)],
)
def test_tokens_are_judged_where_spans_label_them_or_their_noise_is_declared(
    model: Path, texts: Path, tmp_path: Path, config: dict[str, Any], least: float
) -> None:
    unknown = said_of(setup_of(model, texts), tmp_path / "a", config)["levels"]
    assert unknown["noise"] is None
    assert unknown["tokens"] == []
    assert unknown["texts"][0]["auroc"]["estimate"] > 0.7
    page = (tmp_path / "a" / "report" / "probe.html").read_text()
    assert "By token nothing is said" in page
    assert "AUROC by token" not in page
    declared = said_of(setup_of(model, texts, token_noise=DECLARED), tmp_path / "b", config)
    (label,) = declared["levels"]["tokens"]
    assert declared["levels"]["noise"]["wrong_among_positive"] == 0.9
    kept = 0.5 + (label["auroc_as_labelled"]["estimate"] - 0.5) / 0.1
    assert label["auroc"]["estimate"] == pytest.approx(min(1.0, max(0.0, kept)))
    page = (tmp_path / "b" / "report" / "probe.html").read_text()
    assert ("more than 1" in page) is not label["is_possible"]
    assert declared["levels"]["texts"] == unknown["texts"], "what is declared changes no text"
    setup = setup_of(model, texts)
    setup["data"] = {**setup["data"], "spans": "where"}
    spanned = said_of(setup, tmp_path / "c", config)["levels"]
    assert spanned["noise"]["kind"] == "clean"
    assert spanned["tokens"][0]["auroc"]["estimate"] > least
    assert "AUROC by token" in (tmp_path / "c" / "report" / "probe.html").read_text()


@pytest.mark.usefixtures("plain_pages")
def test_probes_on_tokens_without_spans_and_their_controls_are_judged_by_text(
    model: Path, texts: Path, tmp_path: Path
) -> None:
    setup = setup_of(model, texts, controls=True, label_noise={**LABEL_NOISE, "seeds": 1})
    config = {"method": "mass_mean", "pooling": "tokens"}
    said = said_of(setup, tmp_path / "t", config)
    auroc = said["test"]["metrics"]["auroc"]["estimate"]
    assert said["test"]["rows"] == said["test"]["items"] * 5
    assert said["levels"]["texts"][0]["auroc"]["estimate"] == pytest.approx(auroc)
    assert said["label_noise"]["curves"][0]["auroc"] == pytest.approx(auroc)
    assert abs(said["controls"]["shuffled_labels"]["value"] - 0.5) < 0.25
    assert said["controls"]["selectivity"]["value"] is None, "types would be items, not tokens"


@pytest.mark.usefixtures("plain_pages")
@pytest.mark.parametrize("share", [0.1, "estimate"])
def test_certain_negatives_and_thinned_ones_in_a_trial(
    model: Path, texts: Path, tmp_path: Path, share: float | str
) -> None:
    config = {
        "method": "positive_unlabelled", "known": "negative", "positive_share": share,
        "pooling": "tokens", "weight_decay": [0.01], "negatives_per_positive": 0.5,
    }  # fmt: skip
    said = said_of(setup_of(model, texts), tmp_path / "t", config)
    if share != "estimate":  # what it comes to here, tokens after the word told too, is no matter
        assert said["test"]["metrics"]["auroc"]["estimate"] > 0.7
    chosen = said["sources"][0]["fits"][0]["chosen"][0]
    assert 0 < chosen["positive_share"] < 0.5
    assert "positive_share=" in (tmp_path / "t" / "report" / "probe.html").read_text()
    assert said["about"]["config"]["negatives_per_positive"] == 0.5


def test_negatives_are_thinned_in_training_alone(model: Path, texts: Path) -> None:
    def parts(config: dict[str, Any]) -> Any:
        setup = setup_of(model, texts)
        runner: Any = Probe().runner(TrialContext("sweep", "t", config, setup, 0, 1, "cpu"))
        runner.attach(None)
        study = runner._the_study
        rows = study.rows(HOOK, 0)
        part = study.parts(HOOK, 0)
        assert len(rows["train"]) == len(part.train.items)
        said = study.row_texts(HOOK, 0)
        assert [len(some) for some in said] == [len(one.items) for one in part.all]
        return part

    for config in ({"c": [0.1]}, BAGS):
        whole = parts(config)
        thin = parts({**config, "negatives_per_positive": 0.25})
        positives = int(whole.train.y_NL.sum())
        assert int(thin.train.y_NL.sum()) == positives
        assert len(thin.train.items) == positives + round(0.25 * positives)
        assert thin.train.x.shape[0] == len(thin.train.items)
        assert len(thin.validation.items) == len(whole.validation.items)
        assert len(thin.test.items) == len(whole.test.items)
