"""The job kind `steer` by methods beyond contrasts: answers, SAEs, one group's texts, probes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from jobs.kind import InputArtefact, SweepUnusable, TrialContext
from jobs.probe import Probe
from jobs.runners.steer_results import notes_of
from jobs.runners.steer_texts import drawing_prompts
from jobs.steer import Steer
from jobs.steer_setup import DrawingSpec, SteerSetup
from orchestrator.spec.faults import SpecFaults
from orchestrator.spec.sweep import parse_sweep
from sae.language_model import LanguageModel
from sae.model_files import cache_dir
from sae.stream_spec import ModelSpec
from steering.directions.contrast_pairs import read_contrast
from steering.directions.contrast_spec import ContrastSpec
from steering.directions.contrasting import contrast
from steering.directions.each_style import one_vs_rest
from steering.errors import BadSteeringInput
from steering.probes.method import FittedProbe
from steering.prompt_banks import find_bank
from steering.vectors import load_vectors
from tests.jobs.bread_texts import write_texts
from tests.jobs.steer_trials import NUM_PROMPTS, finished, runner_of, sae_folder, setup_of
from tests.sae.tiny_model import D_MODEL, build_tiny_model


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path_factory.getbasetemp() / "steer-methods-cache"
    monkeypatch.setenv("SAEQ_CACHE", str(folder))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def lm(model: Path) -> LanguageModel:
    return LanguageModel.load(ModelSpec(name=str(model)), "cpu")


def cosine(one: torch.Tensor, other: torch.Tensor) -> float:
    return float(torch.nn.functional.cosine_similarity(one, other, dim=0))


def drawn(model: Path, **config: Any) -> Any:
    drawing = {"num_prompts": 3, "away": "Answer like a pirate."}
    # Cold: of this model all tokens are nearly alike, and noise alone would say every answer.
    config = {"draw_temperature": 0.01, **config}
    return runner_of(setup_of(model, drawing=drawing), method="generated", **config)


def test_a_direction_of_answers_says_how_alike_its_draws_are_and_shares_them(
    model: Path, tmp_path: Path
) -> None:
    found = finished(drawn(model, draws=2, draw_seed=3), tmp_path / "a")
    direction = found.record["direction"]
    assert direction["formula"] == "generated_mean_difference"
    assert direction["away"] == "Answer like a pirate."
    assert (direction["draws"], direction["num_prompts"]) == (2, 3)
    assert direction["generation"]["seed"] == 3
    assert set(direction["cosine_between_draws"]) == {"resid_post.0", "resid_post.1"}
    assert load_vectors(tmp_path / "a").hooks == ("resid_post.1",)
    assert "The mean of 2 draws: two" in (tmp_path / "a" / "report" / "answers.md").read_text()
    (kept,) = (cache_dir() / "steering" / "drawn").glob("*.jsonl")
    assert len(kept.read_text().splitlines()) == 2 * 2 * 3
    drawn(model, draws=2, draw_seed=3, pooling="last", layer=0).attach(None)
    assert len(kept.read_text().splitlines()) == 2 * 2 * 3  # another direction of the same answers
    drawn(model, draws=2, draw_seed=4).attach(None)
    assert len(list(kept.parent.glob("*.jsonl"))) == 2


@pytest.mark.parametrize(
    ("spread", "said"),
    [
        (None, "One draw: how much of the direction is chance is not known"),
        ({"mean": 0.9, "least": 0.8}, "cosine of 0.90 on average, of 0.80 at least.$"),
        ({"mean": 0.1, "least": 0.0}, "Much of it is chance: more draws, or more prompts"),
    ],
)
def test_how_steady_a_direction_is_stands_above_its_answers(spread: Any, said: str) -> None:
    found = {"draws": 3, "cosine_between_draws": {"resid_post.1": spread}}
    (note,) = notes_of(found, "resid_post.1")
    assert re.search(said, note)
    assert notes_of({"num_texts": 3}, "resid_post.1") == []


def test_no_direction_is_drawn_from_prompts_that_the_sweep_is_measured_by() -> None:
    bank = [prompt.text for prompt in find_bank("neutral").prompts]
    assert drawing_prompts(DrawingSpec(num_prompts=4), bank[:5]) == tuple(bank[5:9])
    with pytest.raises(BadSteeringInput, match=r"all 2 prompts of drawing are prompts of the sw"):
        drawing_prompts(DrawingSpec(prompts=("a", "b")), ("b", "a", "c"))


def sae_and_contrast(model: Path, folder: Path, **changes: Any) -> dict[str, Any]:
    return setup_of(model, sae={"folder": str(sae_folder(folder))}, **changes)


def test_a_shift_of_latents_is_decoded(model: Path, lm: LanguageModel, tmp_path: Path) -> None:
    setup = sae_and_contrast(model, tmp_path / "sae", layers=[])
    runner = runner_of(setup, method="sae_mean_difference", layer=None, pooling="mean")
    found = finished(runner, tmp_path / "a")
    assert found.record["direction"]["sae_check"]["fvu"] < 0.01
    vectors = load_vectors(tmp_path / "a")
    (hook,) = vectors.hooks
    train = read_contrast(ContrastSpec(builtin="formal")).train
    # The SAE's latents are each coordinate's two signs: its decoded shift is the plain one.
    plain = contrast(lm, train.positive, train.negative, ["resid_post.1"], pooling="mean")
    assert cosine(vectors.unit(hook), plain.unit("resid_post.1")) > 0.99


def test_latents_may_be_few_and_added_at_another_layer(model: Path, tmp_path: Path) -> None:
    setup = sae_and_contrast(model, tmp_path / "sae", layers=[0])
    config: dict[str, Any] = {"method": "sae_mean_difference", "layer": 0}
    runner = runner_of(setup, **config, num_latents=1)
    found = finished(runner, tmp_path / "a")
    vectors = load_vectors(tmp_path / "a")
    assert vectors.hooks == ("resid_post.0",)
    assert vectors.about.read_hooks != vectors.hooks
    assert int((vectors.unit("resid_post.0").abs() > 0).sum()) == 1
    assert found.record["direction"]["num_latents"] == 1
    many = runner_of(setup, **config, num_latents=2 * D_MODEL + 1)
    with pytest.raises(SweepUnusable, match=f"is more than the {2 * D_MODEL} latents"):
        many.attach(None)


GROUPS = {
    "miller": "The miller ground the {} grain of the harvest between his stones.",
    "sailor": "We hoisted the {} sail and steered the ship through the storm.",
    "child": "Mummy, look, I want the {} balloon and the biggest ice cream, please!",
}
COLOURS = ("red", "blue", "green", "old", "new", "white", "heavy", "light", "wet", "dry")


def test_a_group_is_steered_towards_by_its_texts_alone(
    model: Path, lm: LanguageModel, tmp_path: Path
) -> None:
    rows = [(text.format(c), group) for group, text in GROUPS.items() for c in COLOURS]
    lines = "".join(json.dumps({"text": text, "group": group}) + "\n" for text, group in rows)
    (tmp_path / "texts.jsonl").write_text(lines)
    data = {"files": str(tmp_path / "texts.jsonl"), "text": "text"}
    setup = setup_of(model, groups={"target": "sailor", "data": data}, instruction="Be a sailor.")
    del setup["contrast"]
    found = finished(runner_of(setup, method="one_vs_rest", pooling="mean"), tmp_path / "a")
    assert found.record["direction"]["style"] == "sailor"
    assert found.record["direction"]["num_texts"] == len(COLOURS)
    own = load_vectors(tmp_path / "a").unit("resid_post.1")
    texts, labels = zip(*rows, strict=True)
    expected = one_vs_rest(lm, texts, labels, ["resid_post.1"], "mean")["sailor"]
    assert cosine(own, expected.unit("resid_post.1")) > 0.999
    asked = runner_of(setup, method="generated", draws=1, draw_temperature=0)
    asked.attach(None)  # a group may be asked for in words as well
    vectors_alone = {"data": {"files": "styles.jsonl", "vector": "style"}, "target": "sailor"}
    checked = SteerSetup.model_validate({**setup, "groups": {**vectors_alone, "embedding": "e"}})
    (said,) = Steer().check(checked, {"method": "one_vs_rest", "layer": 1})
    assert "has vectors alone; name the column of the texts" in said


def probe_folder(folder: Path, model: Path, labels: tuple[str, ...], best: str) -> Path:
    """A probe as its sweep leaves it, whose label i is coordinate i."""
    import numpy as np

    from steering.probes.methods import fit

    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, D_MODEL)).astype("float32")
    y = x[:, : len(labels)] > 0
    fitted = fit("logistic_l2", {}, x[:100], y[:100], x[100:], y[100:], imbalance="none", seed=0)
    fitted.save(folder / "probe")
    said = {
        "about": {"model": ModelSpec(name=str(model)).label, "saes": {"mine": {}}},
        "best": best,
        "labels": {"labels": [{"name": name} for name in labels]},
    }
    (folder / "report").mkdir()
    (folder / "report" / "probe.json").write_text(json.dumps(said))
    return folder


def probe_setup(model: Path, folder: Path, **changes: Any) -> dict[str, Any]:
    effect = {"contrast": {"builtin": "formal"}}
    setup = setup_of(model, layers=[], probe=str(folder), effect=effect, **changes)
    del setup["contrast"]
    return setup


def test_a_probes_weights_are_steered_with(model: Path, tmp_path: Path) -> None:
    folder = probe_folder(tmp_path / "p", model, ("toxic", "rude"), "resid_post.1")
    setup = probe_setup(model, folder)
    runner = runner_of(setup, method="probe", layer=None, label="rude")
    found = finished(runner, tmp_path / "a")
    assert found.record["direction"]["probe"] == "logistic_l2"
    own = load_vectors(tmp_path / "a").unit("resid_post.1")
    assert cosine(own, torch.eye(D_MODEL)[1]) > 0.8
    with pytest.raises(SweepUnusable, match="has 2 labels: toxic, rude; write label: toxic"):
        runner_of(setup, method="probe", layer=None).attach(None)
    with pytest.raises(SweepUnusable, match="no label 'kind'; it has toxic, rude"):
        runner_of(setup, method="probe", layer=None, label="kind").attach(None)


def test_files_that_are_not_there_are_said_before_anything_runs(tmp_path: Path) -> None:
    drawing = {"prompts": str(tmp_path / "nothing.txt")}
    setup = probe_setup(Path("m"), tmp_path / "no-probe", drawing=drawing)
    faults = dict(Steer().check_here(SteerSetup.model_validate(setup)))
    assert set(faults) == {("probe",), ("drawing", "prompts")}
    assert "no-probe" in faults["probe",]


def test_a_probe_of_another_sweep_is_steered_with(model: Path, tmp_path: Path) -> None:
    data = {
        "files": str(write_texts(tmp_path / "texts.jsonl")),
        "label": "bread",
        "item": "who",
    }
    setup = {
        "model": {"name": str(model)},
        "data": data,
        "hooks": ["resid_post.0"],
        "read": {"max_tokens": 48},
        "seeds": 1,
        "controls": False,
    }
    config = {"method": "mass_mean", "pooling": "max"}
    made = Probe().runner(TrialContext("sweep", "t0000", config, setup, 0, 1, "cpu"))
    made.attach(None)
    made.advance(1, 1, 300.0)
    (tmp_path / "probe").mkdir()
    made.finish(tmp_path / "probe")
    needed = InputArtefact("p", "probe", "other", "0" * 64, {}, tmp_path / "probe")
    setup = {**probe_setup(model, Path("unused")), "probe": "needs"}
    runner = runner_of(setup, (needed,), method="probe", layer=None)
    runner.attach(None)
    (tmp_path / "vectors").mkdir()
    runner.advance(NUM_PROMPTS, NUM_PROMPTS, 300.0)
    record = runner.finish(tmp_path / "vectors").record
    assert record["steering"]["hook"] == "resid_post.0"
    expected_D = FittedProbe.load(tmp_path / "probe" / "probe").weights()[0]
    own = load_vectors(tmp_path / "vectors").unit("resid_post.0")
    assert cosine(own, torch.from_numpy(expected_D).float()) > 0.999


def test_a_probe_of_latents_or_of_another_model_is_refused(model: Path, tmp_path: Path) -> None:
    of_latents = probe_folder(tmp_path / "s", model, ("toxic",), "mine")
    with pytest.raises(SweepUnusable, match="reads latents of the SAE 'mine'"):
        runner_of(probe_setup(model, of_latents), method="probe", layer=None).attach(None)
    other = probe_folder(tmp_path / "o", Path("else"), ("toxic",), "resid_post.1")
    with pytest.raises(SweepUnusable, match="the probe reads else, and .* other_model: true"):
        runner_of(probe_setup(model, other), method="probe", layer=None).attach(None)


SWEEP = """
name: formal
job: steer
model: {builtin: smollm2-135m}
SOURCE
prompts: neutral
space: SPACE
"""
CONTRAST = "contrast: {builtin: formal}\n"
WITH_SAE = CONTRAST + "sae: {folder: somewhere}\n"


def parsed(source: str, space: str) -> Any:
    if "contrast" not in source and "groups" not in source:
        source += "\neffect: {contrast: {builtin: formal}}"
    return parse_sweep(SWEEP.replace("SOURCE", source).replace("SPACE", space))


def test_methods_of_one_source_are_searched_together() -> None:
    space = (
        "{method: {choice: [mean_difference, generated]}, "
        "draws: {choice: [2, 4], when: {method: generated}}}"
    )
    assert parsed(CONTRAST + "layers: [8]", space).trials == 3
    beside = "{method: {choice: [sae_mean_difference, mean_difference]}}"
    assert parsed(WITH_SAE + "layers: [8]", beside).trials == 2
    assert parsed(WITH_SAE, "{num_latents: {choice: [10, 100]}}").trials == 2
    groups = "layers: [8]\ngroups: {target: debugger, data: {builtin: python-docs}}"
    ways = "{method: {choice: [composed, one_vs_rest, generated]}, tau: {choice: [0.01, 0.1]}}"
    assert parsed(groups, ways).trials == 4


@pytest.mark.parametrize(
    ("source", "space", "said"),
    [
        (
            CONTRAST + "layers: [8]",
            "{method: generated, draw_temperature: 0}",
            "draws=4 at draw_temperature=0 are the same answer",
        ),
        (
            CONTRAST + "layers: [8]\ninstruction: Be formal.\ndrawing: {away: Be formal.}",
            "{method: generated}",
            "compares instruction with drawing.away, and both are 'Be formal.'",
        ),
        (CONTRAST + "layers: [8]", "{method: sae_mean_difference}", "needs sae: .* give it"),
        (CONTRAST + "layers: [8]", "{method: one_vs_rest}", "makes nothing of a contrast; use one"),
        ("vectors: v", "{method: generated}", "makes a direction of texts; give contrast"),
        (WITH_SAE, "{method: logistic}", "'logistic' needs layers: "),
        (WITH_SAE, "{method: sae_latent}", "makes nothing of a contrast; .*sae_mean_difference"),
        (WITH_SAE, "{pooling: max}", "pooling: must be one of mean, last, first; got 'max'"),
        (WITH_SAE + "latents: [3]", "{num_latents: 3}", "where sae stands alone, and needed there"),
        ("probe: needs\nlayers: [8]", "{label: a}", "beside a probe, whose weights mean something"),
    ],
)
def test_what_cannot_be_together_is_refused(source: str, space: str, said: str) -> None:
    with pytest.raises(SpecFaults, match=f"(?s){said}"):
        parsed(source, space)


def test_an_sae_alone_needs_its_latents() -> None:
    setup = {
        **setup_of(Path("m")),
        "sae": {"folder": "s"},
        "effect": {"contrast": {"builtin": "formal"}},
    }
    del setup["contrast"]
    with pytest.raises(ValidationError, match=r"needed there; got latents=\[\] beside sae"):
        SteerSetup.model_validate(setup)
