"""The job kind `steer` towards a group: composed vectors, what is said of them, what is refused."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from jobs.composed_setup import CompositionParameters, GroupsSpec
from jobs.kind import InputArtefact, SweepUnusable, TrialContext, TrialRunner
from jobs.runners.steer_groups import composed_vectors, found_groups
from jobs.steer import Steer
from jobs.steer_parameters import ComposedParameters
from jobs.steer_setup import SteerSetup
from orchestrator.spec.faults import SpecFaults
from orchestrator.spec.sweep import parse_sweep
from sae.language_model import LanguageModel
from sae.stream_spec import ModelSpec
from steering.directions.attributes import attribute_vectors
from steering.errors import BadSteeringInput
from steering.styles.catalogue import Catalogue
from steering.styles.head import Head
from steering.styles.model import StyleModel, save
from steering.table.builtin_attributes import builtin_catalogue
from steering.vectors import SteeringVectors, load_vectors
from tests.sae.tiny_model import build_tiny_model

GROUPS = ("miller", "sailor", "child")
NUM_ATTRIBUTES = 6
NUM_PROMPTS = 4
WORDS = {
    "miller": "The miller ground the {} grain of the harvest between his stones into flour.",
    "sailor": "We hoisted the {} sail and steered the ship through the storm to the harbour.",
    "child": "Mummy, look, I want the {} balloon and the biggest ice cream, please!",
}
COLOURS = ("red", "blue", "green", "old", "new", "white", "heavy", "light", "wet", "dry")


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path_factory.getbasetemp() / "steer-groups-cache"
    monkeypatch.setenv("SAEQ_CACHE", str(folder))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model, a catalogue, texts of three groups, their style vectors, an embedding."""
    folder = tmp_path_factory.mktemp("made")
    build_tiny_model(folder / "model")
    attributes = builtin_catalogue().attributes[:NUM_ATTRIBUTES]
    catalogue = Catalogue(
        name="tiny", version="1", dimension=NUM_ATTRIBUTES, attributes=tuple(attributes)
    )
    (folder / "catalogue.json").write_text(catalogue.model_dump_json())
    texts, styles = [], []
    for place, group in enumerate(GROUPS):
        for number, colour in enumerate(COLOURS):
            text = WORDS[group].format(colour)
            texts.append({"group": group, "text": text, "item": f"{group}{number}"})
            # A miller's style is attribute 0 above all, and a bit of attribute 3.
            style = [0.2] * NUM_ATTRIBUTES
            style[place], style[place + 3] = 0.8, 0.5
            styles.append({"group": group, "style": style})
    for name, rows in (("texts", texts), ("styles", styles)):
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(lines)
    _save_embedding(folder / "embedding")
    return folder


def _save_embedding(folder: Path) -> None:
    """The style vectors' own space, with the groups' places in it."""
    head = Head((NUM_ATTRIBUTES, NUM_ATTRIBUTES), normalize=False, seed=0)
    with torch.no_grad():
        for parameter in head.parameters():
            eye = torch.eye(NUM_ATTRIBUTES)
            parameter.copy_(eye if parameter.ndim == 2 else torch.zeros(NUM_ATTRIBUTES))
    point_GE = 0.5 + 0.1 * torch.eye(3, NUM_ATTRIBUTES)
    zeros, ones = torch.zeros(NUM_ATTRIBUTES), torch.ones(NUM_ATTRIBUTES)
    config = {"encoder": {"features": True}}
    folder.mkdir()
    save(folder, StyleModel(head, GROUPS, point_GE, "euclidean", zeros, ones, config=config))


def groups_of(made: Path, **changes: Any) -> dict[str, Any]:
    return {
        "target": "miller",
        "data": {"files": str(made / "texts.jsonl"), "text": "text", "item": "item"},
        "catalogue": str(made / "catalogue.json"),
        **changes,
    }


def by_styles(made: Path, **changes: Any) -> dict[str, Any]:
    data = {"files": str(made / "styles.jsonl"), "vector": "style"}
    return groups_of(made, data=data, **changes)


def setup_of(made: Path, groups: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    return {
        "model": {"name": str(made / "model")},
        "layers": [0, 1],
        "groups": groups or groups_of(made),
        "prompts": "neutral",
        "num_prompts": NUM_PROMPTS,
        "strengths": [0.2, 4.0],
        "generation": {"max_new_tokens": 6, "chat": False},
        **changes,
    }


def runner_of(
    setup: dict[str, Any], inputs: tuple[InputArtefact, ...] = (), **config: Any
) -> TrialRunner:
    config = {"method": "composed", "layer": 1, **config}
    context = TrialContext("sweep", "t0000", config, setup, 0, 1, "cpu", inputs=inputs)
    return Steer().runner(context)


def finished(runner: TrialRunner, folder: Path) -> Any:
    runner.attach(None)
    runner.advance(NUM_PROMPTS, NUM_PROMPTS, 300.0)
    folder.mkdir()
    return runner.finish(folder)


def test_a_trial_is_steered_with_a_composed_vector_and_says_what_it_is(
    made: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    runner = runner_of(setup_of(made), tau=0.02)
    with caplog.at_level(logging.INFO, logger="jobs.runners.composed_groups"):
        assert runner.attach(None) == 0
    report = next(r.getMessage() for r in caplog.records if "as composed" in r.getMessage())
    assert "effective" in report and "cosine between groups" in report  # before any answer
    runner.advance(NUM_PROMPTS, NUM_PROMPTS, 300.0)
    folder = tmp_path / "artefact"
    folder.mkdir()
    found = runner.finish(folder)
    assert {m.name for m in (*Steer.metrics, *Steer.final_metrics)} == set(found.metrics)
    record = json.loads(json.dumps(found.record, allow_nan=False))
    composition = record["direction"]["composition"]
    assert [row["group"] for row in composition["groups"]] == sorted(GROUPS)
    assert all(1 <= row["effective"] <= NUM_ATTRIBUTES for row in composition["groups"])
    assert -1 <= composition["mean_cosine"] <= composition["max_cosine"] <= 1.001
    assert composition["num_texts"] == dict.fromkeys(sorted(GROUPS), 10)
    assert composition["report"] in report
    assert composition["report"] in (folder / "report" / "composition.txt").read_text()
    assert record["effect"]["group"] == "miller"
    assert record["effect"]["validation_auroc"] > 0.9
    assert record["instruction"].startswith("Answer like a miller. You ")
    vectors = load_vectors(folder)
    assert vectors.about.formula == "attributes_softmax"
    recipe: Any = vectors.about.details["recipe"]
    assert recipe["tau"] == 0.02
    assert vectors.hooks == ("resid_post.1",)


@pytest.fixture(scope="module")
def lm(made: Path) -> LanguageModel:
    return LanguageModel.load(ModelSpec(name=str(made / "model")), "cpu")


def composed_by(made: Path, lm: LanguageModel, **config: Any) -> SteeringVectors:
    setup = SteerSetup.model_validate(setup_of(made, by_styles(made), effect=EFFECT))
    assert setup.groups is not None
    parameters = ComposedParameters.model_validate({"layer": 1, **config})
    return composed_vectors(lm, setup, setup.groups, parameters)[0]


EFFECT = {"contrast": {"builtin": "formal"}}


def cosine(one: torch.Tensor, other: torch.Tensor) -> float:
    return float(torch.cosine_similarity(one, other, dim=0))


def test_tau_and_top_k_decide_which_attributes_make_the_vector(
    made: Path, lm: LanguageModel
) -> None:
    catalogue = Catalogue.model_validate_json((made / "catalogue.json").read_text())
    attributes = attribute_vectors(lm, catalogue, ["resid_post.1"])
    planted_D = attributes.of(catalogue.ids[0]).vector_LD[0]
    sharp = composed_by(made, lm, tau=0.01)
    assert cosine(sharp.vector_LD[0], planted_D) > 0.999
    flat = composed_by(made, lm, tau=5.0)
    single = composed_by(made, lm, weights="top_k", top_k=1, tau=5.0)
    two = composed_by(made, lm, weights="top_k", top_k=2, tau=5.0)
    assert cosine(single.vector_LD[0], planted_D) > 0.999  # whatever tau is
    counts = [one.about.details["effective_attributes"] for one in (sharp, single, two, flat)]
    assert counts == pytest.approx([1, 1, 2, NUM_ATTRIBUTES], abs=0.05)
    assert len({one.sha256 for one in (sharp, flat, single, two)}) == 4
    expected_D = two.vector_LD[0] + attributes.mean_LD[0]  # centred by the mean attribute
    shares: Any = two.about.details["weights"]
    assert set(shares) == {catalogue.ids[0], catalogue.ids[3]}
    sum_D = sum(
        share * attributes.raw_ALD[catalogue.ids.index(one), 0] for one, share in shares.items()
    )
    torch.testing.assert_close(expected_D, torch.as_tensor(sum_D), atol=1e-4, rtol=1e-4)


def test_each_layer_has_a_vector_and_a_norm_of_its_own(made: Path, lm: LanguageModel) -> None:
    low, high = composed_by(made, lm, layer=0), composed_by(made, lm, layer=1)
    assert (low.hooks, high.hooks) == (("resid_post.0",), ("resid_post.1",))
    assert low.sha256 != high.sha256
    assert float(low.norm_L[0]) != float(high.norm_L[0])


def test_a_needed_embedding_brings_its_texts_and_measures_the_effect(
    made: Path, tmp_path: Path
) -> None:
    data = {"files": str(made / "styles.jsonl"), "vector": "style"}
    record = {"setup": {"data": data}}
    needed = InputArtefact("e", "embedding", "styles", "0" * 64, record, made / "embedding")
    groups = groups_of(made, data=None, embedding="needs", among=["miller", "child"])
    setup = setup_of(made, groups)
    found = finished(runner_of(setup, (needed,), strength=1.0), tmp_path / "a")
    assert found.record["effect"]["effect"] == "margin in a style embedding"
    assert found.record["effect"]["others"] == ["child"]
    assert found.record["effect"]["scorer"] == {"builtin": "minilm"}
    assert 0 <= found.metrics["test_effect"] <= 1
    with pytest.raises(SweepUnusable, match="needs 0 artefacts of kind embedding"):
        runner_of(setup).attach(None)
    silent = InputArtefact("e", "embedding", "styles", "0" * 64, {}, made / "embedding")
    with pytest.raises(SweepUnusable, match="does not say which texts it was made from; name them"):
        runner_of(setup, (silent,)).attach(None)


def test_a_folder_of_an_embedding_is_taken_as_it_is(made: Path) -> None:
    spec = GroupsSpec.model_validate(by_styles(made, embedding=str(made / "embedding")))
    assert found_groups(spec, ()) == spec
    assert found_groups(spec.model_copy(update={"embedding": None}), ()).embedding is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"target": "miler"}, "no group 'miler'; it has child, miller, sailor.*mean 'miller'"),
        ({"among": ["miller", "cook"]}, "no group 'cook'"),
        ({"data": {"files": "nothing.jsonl", "text": "text"}}, "nothing.jsonl"),
    ],
)
def test_a_group_that_is_not_there_makes_the_sweep_unusable(
    made: Path, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(SweepUnusable, match=said):
        runner_of(setup_of(made, groups_of(made, **changes))).attach(None)


def test_more_attributes_than_there_are_is_refused_and_the_default_is_cut() -> None:
    assert CompositionParameters(weights="top_k").composition(6).top_k == 6
    with pytest.raises(BadSteeringInput, match=r"top_k=7 is more than the catalogue's 6 .*softmax"):
        CompositionParameters(weights="top_k", top_k=7).composition(6)


@pytest.mark.parametrize(
    ("groups", "changes", "rule"),
    [
        ({"among": ["miller"]}, {}, "at least 2 different groups are needed"),
        ({"among": ["sailor", "child"]}, {}, "'miller' is not among=.*; add it there"),
        ({"data": None}, {}, r"give the groups' texts \(data: .*got neither"),
        ({}, {"layers": []}, "layers is missing"),
        ({}, {"vectors": "needs"}, "exactly one of .*; got vectors and groups"),
        ({}, {"contrast": {"builtin": "formal"}}, "got contrast and groups"),
    ],
)
def test_a_setup_that_cannot_work_is_refused(
    made: Path, groups: dict[str, Any], changes: dict[str, Any], rule: str
) -> None:
    with pytest.raises(ValidationError, match=rule):
        SteerSetup.model_validate(setup_of(made, groups_of(made, **groups), **changes))


def test_groups_without_texts_need_something_that_measures(made: Path) -> None:
    with pytest.raises(ValidationError, match="vectors and no texts that a classifier"):
        SteerSetup.model_validate(setup_of(made, by_styles(made)))
    by_embedding = by_styles(made, embedding=str(made / "embedding"))
    for setup in (setup_of(made, by_embedding), setup_of(made, by_styles(made), effect=EFFECT)):
        SteerSetup.model_validate(setup)


def test_files_that_are_not_there_are_said_before_anything_runs(made: Path) -> None:
    groups = groups_of(
        made, catalogue="none.json", embedding="nowhere", scorer={"regressor": "neither"}
    )
    groups["data"] = {**groups["data"], "files": "no.jsonl"}
    faults = dict(Steer().check_here(SteerSetup.model_validate(setup_of(made, groups))))
    assert set(faults) == {
        ("groups", "catalogue"),
        ("groups", "embedding"),
        ("groups", "scorer", "regressor"),
        ("groups", "data", "files"),
    }
    manual = {"builtin": "python-docs", "min_per_group": 40, "drop_small_groups": True}
    setup = setup_of(made, groups_of(made, target="debuger", data=manual))
    ((place, said),) = Steer().check_here(SteerSetup.model_validate(setup))
    assert place == ("groups", "data")
    assert "Did you mean 'debugger'?" in said


SWEEP = """
name: towards
job: steer
model: {builtin: smollm2-135m}
layers: [8]
groups:
  target: debugger
  data: {builtin: python-docs, min_per_group: 40, drop_small_groups: true}
prompts: neutral
space: {SPACE}
search: {sampler: grid}
"""


def test_groups_open_the_method_and_fields_of_the_composition_may_be_searched() -> None:
    space = (
        "{weights: {choice: [softmax, top_k]}, tau: {choice: [0.01, 0.1]}, "
        "top_k: {choice: [5, 40], when: {weights: top_k}}}"
    )
    spec = parse_sweep(SWEEP.replace("{SPACE}", space))
    assert spec.trials == 6
    assert set(spec.names) >= {"layer", "method", "weights", "tau", "top_k"}


@pytest.mark.parametrize(
    ("space", "said"),
    [
        ("{tau: {choice: [0.1, 0]}}", r"tau.*must be above 0.*got 0"),
        ("{tau: {uniform: [-1, 1]}}", r"tau.*must be above 0.*got -1"),
        (
            "{weights: top_k, top_k: {choice: [40, 41]}}",
            r"top_k=41 is more than the catalogue's 40 attributes of style; lower it",
        ),
        ("{top_k: {choice: [5, 10]}}", "top_k=5 counts for nothing.*write weights: top_k"),
        ("{method: mean_difference}", "makes a direction of texts; give contrast: "),
    ],
)
def test_a_composition_that_cannot_be_is_refused_with_its_value(space: str, said: str) -> None:
    with pytest.raises(SpecFaults, match=f"(?s){said}"):
        parse_sweep(SWEEP.replace("{SPACE}", space))


def test_the_method_needs_groups() -> None:
    contrast = SWEEP[: SWEEP.index("groups:")] + "contrast: {builtin: formal}\n"
    rest = SWEEP[SWEEP.index("prompts:") :].replace("{SPACE}", "{method: composed}")
    with pytest.raises(SpecFaults, match="'composed' makes nothing of a contrast"):
        parse_sweep(contrast + rest)
