"""Directions from generated answers: planted ones are found, draws agree, answers are kept."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from sae.language_model import LanguageModel
from steering.directions import generated_attribute_vectors, generated_vectors, kept_answers
from steering.errors import BadSteeringInput
from steering.generation import Generated, GenerationSpec, generate
from steering.vectors import SteeringVectors
from tests.steering.directions.planted_model import WORDS, cosine, directions, plant, tiny_lm

HOOK = "resid_post.0"
SPEC = GenerationSpec(max_new_tokens=5, chat=False, seed=3)
PROMPTS = list(WORDS[:4])


@pytest.fixture(scope="module")
def lm(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    model = tiny_lm(tmp_path_factory.mktemp("planted"))
    (direction_D,) = directions(1)
    plant(model, {"+": direction_D, "-": -direction_D}, size=6)
    return model


def _obedient(lm: LanguageModel) -> Callable[..., list[Generated]]:
    """Answers with the mark that the instruction names: what a real model would do by chance."""

    def answered(
        _lm: LanguageModel, prompts: list[str], spec: GenerationSpec, *, on_row: Any, **_: Any
    ) -> list[Generated]:
        answers = []
        for row, prompt in enumerate(prompts):
            text = {"Say+": " bread+", "Say-": " mill-"}[prompt.split()[0]] * (spec.seed + 1)
            ids = lm.tokenizer(text, add_special_tokens=False)["input_ids"]
            answers.append(Generated(text, tuple(ids), True))
            on_row(row, answers[-1])
        return answers

    return answered


def _found(lm: LanguageModel, **given: Any) -> SteeringVectors:
    asked: dict[str, Any] = {"draws": 3, "spec": SPEC, **given}
    return generated_vectors(lm, PROMPTS, "Say+", [HOOK], away="Say-", **asked)


def test_a_direction_of_what_is_said_is_found(
    lm: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_answers, "generate", _obedient(lm))
    found = _found(lm, pooling="last", draws=2)
    assert cosine(found.unit(HOOK), directions(1)[0]) > 0.99
    spread = found.about.details["cosine_between_draws"]
    assert isinstance(spread, dict)
    assert spread[HOOK] == pytest.approx({"mean": 1.0, "least": 1.0})
    assert found.about.seeds == (3,)


def test_activations_are_read_behind_the_prompt_without_the_instruction(
    lm: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_answers, "generate", _obedient(lm))
    found = _found(lm, draws=1)
    sides = []
    for answer in (" bread+", " mill-"):
        rows = []
        for prompt in PROMPTS:
            ask, say = (
                lm.tokenizer(text, add_special_tokens=False)["input_ids"]
                for text in (prompt, answer * (SPEC.seed + 1))
            )
            ids = torch.tensor([[lm.bos_token_id, *ask, *say]])
            rows.append(lm.activations(ids, [HOOK])[HOOK][0, 1 + len(ask) :].mean(dim=0))
        sides.append(torch.stack(rows).mean(dim=0))
    assert torch.allclose(found.vector_LD[0], sides[0] - sides[1], atol=1e-5)
    assert found.about.details["cosine_between_draws"] == {HOOK: None}


def test_real_draws_differ_and_are_the_seeds(lm: LanguageModel) -> None:
    one, again = _found(lm), _found(lm, spec=SPEC.model_copy(update={"rows": 3}))
    assert torch.allclose(one.vector_LD, again.vector_LD, atol=1e-5)
    other = _found(lm, spec=SPEC.model_copy(update={"seed": 4}))
    assert not torch.allclose(one.vector_LD, other.vector_LD, atol=1e-3)
    spread = one.about.details["cosine_between_draws"]
    assert isinstance(spread, dict)
    assert spread[HOOK]["least"] <= spread[HOOK]["mean"] < 0.999  # type: ignore[index, operator, call-overload]


def test_answers_that_are_there_are_not_made_again(
    lm: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "answers.jsonl"
    whole = _found(lm, keep=path)
    lines = path.read_text().splitlines()
    assert len(lines) == 2 * 3 * len(PROMPTS)
    path.write_text("\n".join(lines[:10]) + "\n" + lines[10][:20])
    asked: list[int] = []

    def counted(lm: LanguageModel, prompts: list[str], *args: Any, **rest: Any) -> object:
        asked.append(len(prompts))
        return generate(lm, prompts, *args, **rest)

    monkeypatch.setattr(kept_answers, "generate", counted)
    assert torch.allclose(_found(lm, keep=path).vector_LD, whole.vector_LD, atol=1e-5)
    _found(lm, keep=path)
    assert asked == [len(lines) - 10]
    _found(lm, keep=path, spec=SPEC.model_copy(update={"seed": 9}))
    assert asked == [len(lines) - 10, len(lines)]
    rows = [json.loads(line)["row"] for line in path.read_text().splitlines() if line[-1:] == "}"]
    assert len(rows) >= 2 * len(lines) - 1


def test_attributes_are_read_from_answers_that_show_them(
    lm: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_answers, "generate", _obedient(lm))
    marks = ["+", "-"]
    found = generated_attribute_vectors(
        lm, marks, PROMPTS, [HOOK], template="Say{attribute}", pooling="last", draws=2, spec=SPEC
    )
    pair = _found(lm, pooling="last", draws=2)
    assert found.ids == ("+", "-")
    assert cosine(found.of("+").unit(HOOK), directions(1)[0]) > 0.99
    assert torch.allclose(found.raw_ALD[0] - found.raw_ALD[1], pair.vector_LD, atol=1e-5)
    spread = found.about.details["cosine_between_draws"]
    assert isinstance(spread, dict)
    assert spread[HOOK] == pytest.approx(1.0)


def test_settings_that_mean_nothing_are_refused(
    lm: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(BadSteeringInput, match="at 0 every draw is the same"):
        _found(lm, spec=SPEC.model_copy(update={"temperature": 0.0}))
    with pytest.raises(BadSteeringInput, match="two different instructions"):
        generated_vectors(lm, PROMPTS, "a", [HOOK], away=" a ")
    with pytest.raises(BadSteeringInput, match="0 prompts"):
        generated_vectors(lm, [], "a", [HOOK])

    def silent(
        _lm: LanguageModel, prompts: list[str], *_: Any, on_row: Any, **__: Any
    ) -> list[Generated]:
        for row in range(len(prompts)):
            on_row(row, Generated("", (), True))
        return []

    monkeypatch.setattr(kept_answers, "generate", silent)
    with pytest.raises(BadSteeringInput, match="in 6 of 6 draws every answer was empty"):
        _found(lm)
