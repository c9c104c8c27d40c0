"""The job kind `steer`: a strength chosen on one half, reported on the other, resumed exactly."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from jobs.kind import FinishedTrial, InputArtefact, SweepUnusable
from jobs.steer import Steer
from jobs.steer_setup import SteerSetup
from orchestrator.spec.faults import SpecFaults
from orchestrator.spec.sweep import parse_sweep
from sae.stream_spec import ModelSpec
from steering.measures.answers import read_answers
from steering.vectors import load_vectors
from tests.jobs.steer_trials import (
    NUM_PROMPTS,
    STRENGTHS,
    finished,
    runner_of,
    sae_folder,
    setup_of,
)
from tests.sae.tiny_model import D_MODEL, build_tiny_model


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path_factory.getbasetemp() / "steer-cache"
    monkeypatch.setenv("SAEQ_CACHE", str(folder))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("tiny"))


def test_a_trial_reports_every_metric_and_becomes_vectors(model: Path, tmp_path: Path) -> None:
    runner = runner_of(setup_of(model))
    assert runner.attach(None) == 0
    progress = runner.advance(2, 2, 300.0)
    assert progress.tokens == 2
    assert progress.metrics is not None
    assert set(progress.metrics) == {metric.name for metric in Steer.metrics}
    runner.advance(NUM_PROMPTS, NUM_PROMPTS, 300.0)
    folder = tmp_path / "artefact"
    folder.mkdir()
    found = runner.finish(folder)
    names = {metric.name for metric in (*Steer.metrics, *Steer.final_metrics)}
    assert set(found.metrics) == names
    json.dumps(found.record, allow_nan=False)
    conditions = ("steered", "unsteered", "prompted", "random")
    for condition in conditions:
        interval = found.record["test"][condition]["overall"]
        assert interval["low"] <= interval["estimate"] <= interval["high"]
    assert found.record["test"]["unsteered"]["fluency"]["estimate"] == 1.0
    vectors = load_vectors(folder)
    assert vectors.hooks == ("resid_post.1",)
    assert vectors.about.suggested_strength == found.record["strength"]
    assert [point["strength"] for point in vectors.about.validation] == [0.0, *STRENGTHS]
    assert (folder / "report" / "curve.png").stat().st_size > 1000
    assert "unsteered" in (folder / "report" / "answers.md").read_text()


def test_a_strength_is_chosen_on_one_half_and_reported_on_the_other(
    model: Path, tmp_path: Path
) -> None:
    finished(runner_of(setup_of(model)), tmp_path / "a")
    rows = read_answers(tmp_path / "a" / "answers.jsonl")
    chosen = load_vectors(tmp_path / "a").about.suggested_strength
    halves = {half: {r.prompt for r in rows if r.half == half} for half in ("selection", "test")}
    assert halves == {"selection": {0, 1, 2}, "test": {3, 4, 5}}
    by_half = {
        half: {r.strength for r in rows if r.half == half and r.condition == "steered"}
        for half in halves
    }
    assert by_half == {"selection": set(STRENGTHS), "test": {chosen}}
    assert {r.condition for r in rows if r.half == "test"} == {
        "steered",
        "unsteered",
        "prompted",
        "random",
    }


def test_a_trial_that_was_interrupted_ends_where_it_would_have(model: Path, tmp_path: Path) -> None:
    whole = finished(runner_of(setup_of(model), operation="add_preserving_norm"), tmp_path / "a")
    first = runner_of(setup_of(model), operation="add_preserving_norm")
    first.attach(None)
    first.advance(4, 4, 300.0)
    (tmp_path / "state").mkdir()
    assert first.save(tmp_path / "state") == 4
    second = runner_of(setup_of(model), operation="add_preserving_norm")
    assert second.attach(tmp_path / "state") == 4
    second.advance(NUM_PROMPTS, NUM_PROMPTS, 300.0)
    (tmp_path / "b").mkdir()
    assert second.finish(tmp_path / "b").metrics == whole.metrics
    said = [(tmp_path / name / "answers.jsonl").read_text() for name in "ab"]
    assert said[0] == said[1]


@pytest.mark.parametrize("operation", ["project_out", "clamp"])
def test_other_operations_change_answers_at_one_given_strength(
    operation: str, model: Path, tmp_path: Path
) -> None:
    setup = setup_of(model)
    found = finished(runner_of(setup, operation=operation, strength=1.0), tmp_path / "a")
    assert found.record["strength"] == 1.0
    assert found.record["strength_chosen_on"] is False
    assert found.record["steering"]["operation"] == operation


def test_finished_vectors_of_another_sweep_are_steered_with(model: Path, tmp_path: Path) -> None:
    finished(runner_of(setup_of(model)), tmp_path / "made")
    given = InputArtefact("v", "vectors", "other", "0" * 64, {}, tmp_path / "made")
    setup = setup_of(model, layers=[], vectors="needs", effect={"contrast": {"builtin": "formal"}})
    del setup["contrast"]
    runner = runner_of(setup, (given,), method="given", layer=None)
    found = finished(runner, tmp_path / "again")
    assert found.record["steering"]["hook"] == "resid_post.1"
    lacking = runner_of(setup, (given,), method="given", layer=None, input=1)
    with pytest.raises(SweepUnusable, match="needs 1 artefacts of kind vectors, and number 1"):
        lacking.attach(None)


def sae_setup(model: Path, folder: Path) -> dict[str, Any]:
    effect = {"contrast": {"builtin": "formal"}}
    setup = setup_of(model, layers=[], sae={"folder": str(folder)}, latents=[3, 4], effect=effect)
    del setup["contrast"]
    return setup


@pytest.mark.parametrize("operation", ["add", "set_latent"])
def test_a_latent_is_steered_with(operation: str, model: Path, tmp_path: Path) -> None:
    setup = sae_setup(model, sae_folder(tmp_path / "sae"))
    runner = runner_of(setup, method="sae_latent", layer=None, latent=3, operation=operation)
    found = finished(runner, tmp_path / "a")
    assert found.record["direction"]["sae_check"]["fvu"] < 0.01
    expected_D = torch.eye(D_MODEL)[3]
    torch.testing.assert_close(
        load_vectors(tmp_path / "a").unit("blocks.1.hook_resid_post"), expected_D
    )


def test_an_sae_that_does_not_fit_makes_the_sweep_unusable(model: Path, tmp_path: Path) -> None:
    setup = sae_setup(model, sae_folder(tmp_path / "sae", broken=True))
    with pytest.raises(SweepUnusable, match=r"does not explain these prompts.*sae_limits"):
        runner_of(setup, method="sae_latent", layer=None, latent=3).attach(None)


def test_a_sweeps_page_has_its_curves_and_its_trials(model: Path, tmp_path: Path) -> None:
    trials = []
    for number, strength in enumerate((0.2, 1.0)):
        folder = tmp_path / f"a{number}"
        found = finished(runner_of(setup_of(model), strength=strength), folder)
        config = {"method": "mean_difference", "layer": 1, "strength": strength}
        metrics = dict(found.metrics)
        trials.append(FinishedTrial(f"t{number}", config, metrics, f"x-t{number}", folder))
    other = replace(trials[0], trial="t2", config={"method": "pca_pairwise", "layer": 0})
    out = tmp_path / "out"
    out.mkdir()
    written = Steer().write_report(SteerSetup(**setup_of(model)), [*trials, other], out)
    assert written[0].name == "steering.md"
    assert all(path.is_file() for path in written)
    page = written[0].read_text()
    assert "mean_difference layer 1" in page
    assert "pca_pairwise layer 0" in page
    lines = (out / "curves.csv").read_text().splitlines()
    # Trials that differ in their strength alone make one curve.
    assert sum(line.startswith("mean_difference layer 1,") for line in lines) == 3


SWEEP = """
name: formal
job: steer
model: {{builtin: smollm2-135m}}
layers: {layers}
contrast: {{builtin: formal}}
prompts: neutral
space: {space}
search: {{sampler: grid}}
"""


def test_layers_open_a_parameter_and_are_checked() -> None:
    spec = parse_sweep(SWEEP.format(layers="[8, 12]", space="{method: mean_difference}"))
    assert spec.trials == 2
    assert set(spec.names) >= {"layer", "method"}
    with pytest.raises(SpecFaults, match="(?s)layer 40.*layers 0 to 29"):
        parse_sweep(SWEEP.format(layers="[40]", space="{method: mean_difference}"))


@pytest.mark.parametrize(
    "source",
    [
        "groups: {data: {builtin: python-docs}}",
        "vectors: [a, b]",
        "sae: {folder: a, release: b}\nlatents: [1]",
        "sae: {folder: a}",
    ],
)
def test_a_faulty_source_brings_no_fault_of_the_space_with_it(source: str) -> None:
    text = SWEEP.format(layers="[8]", space="{strength: {choice: [0.1, 0.2]}}")
    with pytest.raises(SpecFaults) as refused:
        parse_sweep(text.replace("contrast: {builtin: formal}", source))
    assert "space" not in str(refused.value)
    with pytest.raises(SpecFaults, match=r"space.method: is missing"):
        parse_sweep(text)


def test_a_method_that_makes_nothing_of_the_source_is_refused() -> None:
    with pytest.raises(SpecFaults, match="(?s)'given' makes nothing of a contrast"):
        parse_sweep(SWEEP.format(layers="[8]", space="{method: given}"))
    given = SWEEP.replace("contrast: {{builtin: formal}}", GIVEN_VECTORS)
    with pytest.raises(SpecFaults, match="'sae_latent' needs sae: .*, which is not there"):
        parse_sweep(given.format(layers="[8]", space="{method: sae_latent}"))
    with pytest.raises(SpecFaults, match="'composed' needs groups: "):
        parse_sweep(given.format(layers="[8]", space="{method: composed}"))


GIVEN_VECTORS = """vectors: somewhere
effect: {{contrast: {{builtin: formal}}}}"""


def test_each_trials_process_has_a_model_of_its_own() -> None:
    kind = Steer()
    spec = parse_sweep(SWEEP.format(layers="[8]", space="{method: mean_difference}"))
    model_bytes = 4 * 134_515_008  # SmolLM2-135M in float32
    setup = SteerSetup.model_validate(spec.setup.model_dump())
    found = kind.footprint(setup, {})
    assert found.shared_bytes == 0
    assert found.trial_bytes > model_bytes
    half = setup.model_copy(update={"model": ModelSpec(builtin="smollm2-135m", dtype="bfloat16")})
    saved = found.trial_bytes - kind.footprint(half, {}).trial_bytes
    assert saved == pytest.approx(model_bytes / 2, rel=0.01)
    unknown = setup.model_copy(update={"model": ModelSpec(name="nobody/knows")})
    assert kind.footprint(unknown, {}).trial_bytes > found.trial_bytes


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("sae: needs\nlatents: [3]\neffect: {contrast: {builtin: formal}}", "sae"),
        ("vectors: needs\nlayers: [8]\neffect: {contrast: {builtin: formal}}", "vectors"),
        (
            "contrast: {builtin: formal}\nlayers: [8]\neffect: {embedding: needs, group: a}",
            "embedding",
        ),
        ("groups: {embedding: needs, target: a}\nlayers: [8]\ninstruction: x", "embedding"),
        ("probe: needs\neffect: {contrast: {builtin: formal}}", "probe"),
    ],
)
def test_what_no_needed_sweep_makes_is_refused_at_submit(source: str, kind: str) -> None:
    text = f"name: s\njob: steer\nmodel: {{builtin: smollm2-135m}}\nprompts: neutral\n{source}\n"
    text += "search: {sampler: grid}\nearly_stop: {scheduler: none}\n"
    method = "method: mean_difference, " if source.startswith("contrast") else ""
    text += f"space: {{{method}strength: {{choice: [0.1, 0.2]}}}}\n"
    with pytest.raises(SpecFaults, match=f"this one needs nothing of kind {kind}; add needs: "):
        parse_sweep(text)
    other = "vectors" if kind != "vectors" else "sae"
    need = "needs: [{sweep: other, select: {kind: %s, all: true}}]\n"
    with pytest.raises(SpecFaults, match=f"this one needs nothing of kind {kind}; add needs: "):
        parse_sweep(text + need % other)
    parse_sweep(text + need % kind)


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"contrast": None}, "exactly one of contrast, .* got none"),
        ({"layers": []}, "layers is missing"),
        ({"contrast": None, "vectors": "needs"}, "effect is missing"),
        (
            {
                "contrast": None,
                "vectors": "needs",
                "effect": {"embedding": "needs", "group": "a"},
            },
            "instruction is missing",
        ),
        ({"prompts": ["a", "b"]}, "2 prompts are written, and 6 are needed"),
        ({"strengths": [0.1, 0.1]}, "names one twice"),
    ],
)
def test_a_setup_that_cannot_work_is_refused(changes: dict[str, Any], rule: str) -> None:
    setup = {**setup_of(Path("m")), **changes}
    with pytest.raises(ValidationError, match=rule):
        SteerSetup.model_validate({k: v for k, v in setup.items() if v is not None})


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"prompts": "neutral", "num_prompts": 60}, "has 48 prompts, and 60 are asked for"),
        ({"prompts": "nutral"}, "built-in ones: neutral"),
        ({"drawing": {"prompts": "nutral"}}, "built-in ones: neutral"),
    ],
)
def test_a_bank_is_judged_before_anything_runs(changes: dict[str, Any], rule: str) -> None:
    setup = SteerSetup.model_validate({**setup_of(Path("m")), **changes})
    assert any(rule in said for _, said in Steer().check_setup(setup))


def test_a_bank_of_ones_own_is_judged_where_it_lies(tmp_path: Path) -> None:
    bank = tmp_path / "short.txt"
    bank.write_text("Why?\n")
    setup = {**setup_of(Path("m")), "prompts": str(bank), "num_prompts": 4}
    one = SteerSetup.model_validate(setup)
    assert Steer().check_setup(one) == []
    assert "has 1 prompts, and 4 are asked for" in Steer().check_here(one)[0][1]
