"""The job kind `embedding`: found by its objective, resumed exactly, refused with reasons."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from jobs.embedding import Embedding
from jobs.kind import FinishedTrial, SweepUnusable, TrialContext, TrialOutOfMemory, TrialRunner
from orchestrator.spec.faults import SpecFaults
from orchestrator.spec.sweep import parse_sweep
from steering.styles import load
from tests.steering.styles.tiny_encoders import build_encoder, styled_texts


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


@pytest.fixture
def texts(tmp_path: Path) -> dict[str, Any]:
    """A setup over texts of three groups, with a tiny random encoder."""
    model = build_encoder(tmp_path / "encoder", dropout=0.1)
    texts, groups = styled_texts(30)
    rows = zip(texts, groups, strict=True)
    file = tmp_path / "texts.jsonl"
    lines = [json.dumps({"text": f"{t} w59", "group": g, "q": n}) for n, (t, g) in enumerate(rows)]
    file.write_text("\n".join(dict.fromkeys(lines)) + "\n")
    data = {"files": str(file), "text": "text", "item": "q"}
    return {"data": data, "encoder": {"hf": str(model)}, "epochs": 2}


@pytest.mark.parametrize("tune", ["frozen", "whole", "lora"])
def test_texts_become_an_artefact_that_embeds_texts(
    tune: str, texts: dict[str, Any], tmp_path: Path
) -> None:
    setup = {**texts, "encoder": {**texts["encoder"], "tune": tune}}
    config = {"loss": "supcon", "batch": 24, "groups_in_batch": 3, "hidden": 8, "d_out": 4}
    config |= {"lora_r": 2, "lora_targets": "query_value"} if tune == "lora" else {}
    runner = runner_of(setup, **config)
    runner.attach(None)
    first = runner.advance(1, 1, 60.0).metrics
    (tmp_path / "state").mkdir()
    runner.save(tmp_path / "state")
    again = runner_of(setup, **config)
    assert again.attach(tmp_path / "state") == 1
    assert first is not None
    whole, resumed = (one.advance(2, 2, 60.0).metrics or {} for one in (runner, again))
    del whole["loss"], resumed["loss"]
    assert whole == resumed
    folder = tmp_path / "artefact"
    folder.mkdir()
    finished = again.finish(folder)
    json.dumps(finished.record, allow_nan=False)
    tuning = finished.record["tuning"]
    assert (tuning is None) == (tune == "frozen")
    if tune == "lora":
        assert tuning["lora"]["scale"] == 16 / 2
        assert tuning["trained_parameters"] == 2 * 2 * 2 * 2 * 16  # blocks, modules, A and B, r
    model = load(folder)
    assert model.embed_texts(["w1 w2", "w30"]).shape == (2, 4)
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert {"README.md", "report/confusion.png", "sentence_transformers/modules.json"} <= names
    assert finished.record["report"]["intervals"]["macro_accuracy"]


def test_out_of_memory_goes_back_with_the_way_out(
    texts: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from steering.styles.text_encoder import TextEncoder

    setup = {**texts, "encoder": {**texts["encoder"], "tune": "whole"}}
    runner = runner_of(setup, batch=8)
    runner.attach(None)

    def full(*_: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(TextEncoder, "__call__", full)
    with pytest.raises(TrialOutOfMemory, match=r"out of memory.*gradient_checkpointing: true"):
        runner.advance(1, 1, 60.0)


@pytest.mark.parametrize(
    ("tune", "space", "message"),
    [
        ("frozen", "encoder_lr", "encoder_lr: without effect, as the encoder is tune: frozen"),
        ("whole", "lora_r", "lora_r: without effect.*set encoder: {tune: lora}"),
        ("lora", "lora_r", None),
        ("whole", "encoder_lr", None),
    ],
)
def test_a_parameter_that_changes_nothing_is_refused(
    tune: str, space: str, message: str | None
) -> None:
    setup = Embedding.Setup.model_validate(
        {"data": {"builtin": "python-docs"}, "encoder": {"builtin": "minilm", "tune": tune}}
    )
    faults = Embedding().check(setup, {space: 4})
    assert bool(faults) == (message is not None)
    if message is not None:
        assert re.search(message, faults[0])


def test_a_tuned_encoder_counts_in_each_trial_s_memory() -> None:
    sizes = []
    for tune in ("frozen", "lora", "whole"):
        encoder = {"hf": "microsoft/deberta-v3-base", "tune": tune}
        given = {"data": {"builtin": "python-docs"}, "encoder": encoder}
        setup = Embedding.Setup.model_validate(given)
        sizes.append(Embedding().footprint(setup, {"loss": "triplet"}).trial_bytes)
    assert sizes[0] < 100 * 2**20 < 2**30 < sizes[1] < sizes[2]


def test_a_sweep_s_report_ranks_its_trials(tmp_path: Path) -> None:
    trials = [
        FinishedTrial(f"t{n}", {"margin": 0.1 + n}, {"macro_accuracy": 0.1 * n}, "a", tmp_path)
        for n in range(3)
    ]
    page, *_ = Embedding().write_report(None, trials, tmp_path)
    assert page.read_text().index("t2") < page.read_text().index("t0")
