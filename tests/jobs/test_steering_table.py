"""The job kind `steering_table` on a tiny random model: whole, interrupted, and refused."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from jobs.kind import FinishedTrial, InputArtefact, SweepUnusable, TrialContext, TrialRunner
from jobs.steering_table import SteeringTable
from orchestrator.spec.faults import SpecFaults
from orchestrator.spec.sweep import parse_sweep
from steering.styles.catalogue import Attribute, Catalogue
from steering.styles.head import Head
from steering.styles.model import StyleModel, save
from steering.table.builtin_attributes import builtin_catalogue
from tests.sae.tiny_model import build_tiny_model

GROUPS = ("miller", "baker", "child")
NUM_ATTRIBUTES = 6


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SAEQ_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model, an embedding of attribute scores, a catalogue, style vectors of groups."""
    folder = tmp_path_factory.mktemp("made")
    build_tiny_model(folder / "model")
    (folder / "embedding").mkdir()
    head = Head((NUM_ATTRIBUTES, 8, 4), normalize=False, seed=0)
    random = torch.Generator().manual_seed(1)
    centroid_GE = torch.randn((3, 4), generator=random) * 0.05
    mean_D, deviation_D = torch.full((NUM_ATTRIBUTES,), 0.55), torch.full((NUM_ATTRIBUTES,), 0.05)
    config = {"encoder": {"features": True}}
    model = StyleModel(
        head.eval(), GROUPS, centroid_GE, "euclidean", mean_D, deviation_D, config=config
    )
    save(folder / "embedding", model)
    attributes = builtin_catalogue().attributes[:NUM_ATTRIBUTES]
    catalogue = Catalogue(
        name="tiny", version="1", dimension=NUM_ATTRIBUTES, attributes=tuple(attributes)
    )
    (folder / "catalogue.json").write_text(catalogue.model_dump_json())
    generator = np.random.default_rng(0)
    with (folder / "rows.jsonl").open("w") as file:
        for row in range(36):
            style = generator.random(NUM_ATTRIBUTES) * 0.2
            style[row % 3] += 0.6
            said = {"group": GROUPS[row % 3], "style": style.tolist()}
            file.write(json.dumps(said) + "\n")
    lines = [
        {"prompt": f"{word}?", "group": group}
        for word in ("why", "what", "who")
        for group in (*GROUPS, None)
    ]
    unique = [{**one, "prompt": f"{one['group'] or 'nobody'} {one['prompt']}"} for one in lines]
    (folder / "bank.jsonl").write_text("".join(json.dumps(one) + "\n" for one in unique))
    return folder


def setup_of(made: Path, **changes: Any) -> dict[str, Any]:
    return {
        "model": {"name": str(made / "model")},
        "embedding": str(made / "embedding"),
        "data": {"files": str(made / "rows.jsonl"), "vector": "style"},
        "catalogue": str(made / "catalogue.json"),
        "banks": [str(made / "bank.jsonl")],
        "prompts_per_bank": 4,
        "strengths": [0.5, 3.0],
        "fluent_within": 50.0,
        "generation": {"max_new_tokens": 6, "chat": False, "rows": 16},
        **changes,
    }


def runner_of(setup: dict[str, Any], **config: Any) -> TrialRunner:
    context = TrialContext("sweep", "t0000", {"layer": 1, **config}, setup, 0, 1, "cpu")
    return SteeringTable().runner(context)


def finish(runner: TrialRunner, total: int, folder: Path) -> Any:
    progress = runner.advance(total, total, 600.0)
    assert progress.tokens == total
    folder.mkdir()
    return runner.finish(folder)


@pytest.mark.slow
def test_a_whole_table_and_one_interrupted_in_the_middle_are_the_same(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup = setup_of(made)
    total = SteeringTable().total_tokens(SteeringTable.Setup.model_validate(setup), {})
    assert total == 12
    whole = runner_of(setup)
    assert whole.attach(None) == 0
    early = whole.advance(1, 1, 600.0)
    assert early.metrics is not None
    assert set(early.metrics) == {metric.name for metric in SteeringTable.metrics}
    assert np.isfinite(list(early.metrics.values())).all()
    expected = finish(whole, total, tmp_path / "whole")
    assert {m.name for m in SteeringTable.final_metrics} <= set(expected.metrics)
    json.dumps(expected.record, allow_nan=False)

    monkeypatch.setenv("SAEQ_CACHE", str(tmp_path / "another"))  # nothing is found there
    first = runner_of(setup)
    first.attach(None)
    assert first.advance(total, total, 0.0).metrics is None  # cut off after one batch
    first.advance(8, 8, 600.0)  # in the middle of the table
    (tmp_path / "state").mkdir()
    first.save(tmp_path / "state")
    monkeypatch.setenv("SAEQ_CACHE", str(tmp_path / "a third"))
    second = runner_of(setup)
    assert second.attach(tmp_path / "state") >= 8
    found = finish(second, total, tmp_path / "resumed")
    assert found.metrics == pytest.approx(expected.metrics, abs=1e-6)
    for name in ("generations.jsonl", "prompts.jsonl", "composition.txt"):
        paths = [tmp_path / which / "report" / name for which in ("whole", "resumed")]
        assert paths[0].read_text() == paths[1].read_text()
    _check_report(tmp_path / "whole" / "report")
    trial = FinishedTrial("t0", {"layer": 1}, expected.metrics, "a", tmp_path / "whole")
    (tmp_path / "page").mkdir()
    other = replace(trial, trial="t1", config={"layer": 2})
    (page, *_) = SteeringTable().write_report(None, [trial, other], tmp_path / "page")
    assert "| t0 | 1 |" in page.read_text()


def _check_report(report: Path) -> None:
    lines = [json.loads(line) for line in (report / "generations.jsonl").read_text().splitlines()]
    asked = {(one["condition"], one["prompt"], one["target"], one["seed"]) for one in lines}
    assert {one[0] for one in asked} == {"C1b", *(f"C{number}" for number in range(1, 9))}
    by_condition = {one["condition"]: one for one in lines if one["target"] == "baker"}
    assert by_condition["C2"]["prompt"].startswith("Answer like a baker.\n\n")
    assert "You use" in by_condition["C3"]["prompt"]
    assert "Answer like" not in by_condition["C5"]["prompt"]
    assert by_condition["C8"]["strength"] == by_condition["C5"]["strength"] > 0
    with (report / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["condition"] for row in rows} == {f"C{number}" for number in range(1, 9)}
    markdown = (report / "table.md").read_text()
    assert "Warning" in markdown or "topic leak" in markdown
    assert (report / "table.tex").read_text().count("\\\\") >= 9
    for name in ("table.png", "strengths.png"):
        assert (report / name).read_bytes()[:4] == b"\x89PNG"


def test_without_steering_the_answers_are_found_again_by_another_trial(
    made: Path, tmp_path: Path
) -> None:
    setup = setup_of(made)
    first = runner_of(setup, strength=1.0)
    first.attach(None)
    first.advance(1, 1, 600.0)
    kept = tmp_path / "cache" / "answers" / "answers.jsonl"
    keys = [json.loads(line)["key"] for line in kept.read_text().splitlines()]
    second = runner_of(setup, strength=2.0)
    second.attach(None)
    second.advance(1, 1, 600.0)
    more = [json.loads(line)["key"] for line in kept.read_text().splitlines()]
    assert len(set(more)) == len(more)  # the unsteered ones were not made again
    assert len(keys) < len(more) < 2 * len(keys)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"seeds": [0, 1]}, "needs at least 3"),
        ({"groups": ["miller", "baker"]}, "at least 3 different ones"),
        ({"generation": {"temperature": 0}}, "same answer for every seed"),
        ({"strengths": [0.0]}, "must be positive"),
    ],
)
def test_what_can_give_no_table_is_refused(made: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        SteeringTable.Setup.model_validate(setup_of(made, **changes))


def test_the_embedding_of_another_sweep_brings_its_texts_with_it(made: Path) -> None:
    setup = setup_of(made)
    data = setup.pop("data")
    folder = Path(setup.pop("embedding"))
    needed = InputArtefact(
        "styles-t0", "embedding", "styles", "0", {"setup": {"data": data}}, folder
    )
    context = TrialContext("sweep", "t0000", {"layer": 1}, setup, 0, 1, "cpu", inputs=(needed,))
    assert SteeringTable().runner(context).attach(None) == 0
    twice = replace(context, inputs=(needed, needed))
    with pytest.raises(
        SweepUnusable, match="exactly one style embedding; got embedding=None and 2"
    ):
        SteeringTable().runner(twice).attach(None)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"groups": ["miller", "baker", "cook"]}, "has no groups cook; it has miller"),
        ({"embedding": None}, "exactly one style embedding; got embedding=None and 0"),
        ({"data": None}, "does not say which texts"),
        ({"prompts_per_bank": 14}, "has 12 prompts, and 14 are asked for"),
    ],
)
def test_what_does_not_fit_makes_the_sweep_unusable(
    made: Path, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(SweepUnusable, match=said):
        runner_of(setup_of(made, **changes)).attach(None)


SWEEP = """
name: table
job: steering_table
model: {{builtin: smollm2-135m}}
embedding: somewhere
banks: {banks}
space: {{layer: {layer}, strength: {{choice: [0.1, 0.2]}}}}
search: {{sampler: grid}}
early_stop: {{scheduler: none}}
"""


def test_a_table_takes_one_embedding_and_says_so_at_submit() -> None:
    named = SWEEP.format(layer=12, banks="neutral")
    needed = named.replace(
        "embedding: somewhere",
        "needs: [{sweep: styles, select: {kind: embedding, best: macro_accuracy}}]",
    )
    parse_sweep(needed)
    none = named.replace("embedding: somewhere\n", "")
    both = needed + "embedding: somewhere\n"
    for text, got in ((none, "embedding=None and 0"), (both, "embedding='somewhere' and 1")):
        with pytest.raises(SpecFaults, match=f"exactly one style embedding; got {got}"):
            parse_sweep(text)


def test_a_layer_that_the_model_does_not_have_is_refused() -> None:
    parse_sweep(SWEEP.format(layer=12, banks="neutral"))
    with pytest.raises(SpecFaults, match="30"):
        parse_sweep(SWEEP.format(layer=30, banks="neutral"))


def test_a_composition_that_cannot_be_is_refused_as_in_steer() -> None:
    sweep = SWEEP.replace("strength:", "top_k: 41, weights: {weights}, strength:")
    with pytest.raises(SpecFaults, match="top_k=41 is more than the catalogue's 40 attributes"):
        parse_sweep(sweep.format(layer=12, banks="neutral", weights="top_k"))
    with pytest.raises(SpecFaults, match="top_k=41 counts for nothing"):
        parse_sweep(sweep.format(layer=12, banks="neutral", weights="softmax"))


def test_each_trials_process_has_a_model_of_its_own() -> None:
    spec = parse_sweep(SWEEP.format(layer=12, banks="neutral"))
    setup = SteeringTable.Setup.model_validate(spec.setup.model_dump())
    found = SteeringTable().footprint(setup, {})
    assert found.shared_bytes == 0
    assert found.trial_bytes > 4 * 134_515_008  # SmolLM2-135M in float32


def test_files_that_are_not_there_are_said_before_anything_runs(made: Path) -> None:
    setup = SteeringTable.Setup.model_validate(
        setup_of(made, embedding="nowhere", banks=["mine.txt"], catalogue="none.json")
    )
    faults = dict(SteeringTable().check_here(setup))
    assert set(faults) == {("embedding",), ("banks",), ("catalogue",)}
    assert "cannot be read" in faults[("banks",)]


def test_the_builtin_attributes_are_forty_styles() -> None:
    catalogue = builtin_catalogue()
    assert catalogue.dimension == 40
    assert len(catalogue.places("style")) == 40
    assert all(isinstance(one, Attribute) for one in catalogue.attributes)
