"""A tuned encoder learns, goes on exactly after an interruption, and fits by smaller passes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from steering.styles.encoders import EncoderSpec
from steering.styles.errors import BadStyleData
from steering.styles.fine_tuning import TextTraining, Tuning
from steering.styles.lora import Lora, add_lora, target_names
from steering.styles.text_encoder import load_encoder
from steering.styles.training import Recipe
from tests.steering.styles.tiny_encoders import FAMILIES, LAYERS, WIDTH, build_encoder, styled_texts

RECIPE = Recipe(loss="supcon", hidden=(), d_out=8, lr=1e-2, batch=24, groups_in_batch=3, seed=3)
LORA = Tuning("lora", 1e-2, Lora(r=4, alpha=8, dropout=0.1))
WHOLE = Tuning("whole", 3e-3)


def training_of(folder: Path, tuning: Tuning, recipe: Recipe = RECIPE, **spec: Any) -> TextTraining:
    texts, groups = styled_texts()
    group_N = torch.tensor([int(group[1:]) for group in groups])
    encoder = load_encoder(EncoderSpec(hf=str(folder), **spec), device="cpu")
    ones = torch.ones(WIDTH)
    return TextTraining(recipe, tuning, encoder, texts, group_N, 0 * ones, ones)


def steps(training: TextTraining, count: int) -> list[float]:
    return [training.step() for _ in range(count)]


@pytest.mark.parametrize("tuning", [LORA, WHOLE], ids=["lora", "whole"])
def test_the_encoder_learns_what_its_head_alone_cannot(tuning: Tuning, tmp_path: Path) -> None:
    folder = build_encoder(tmp_path, "bert")
    still = training_of(folder, replace(tuning, lr=1e-12))
    tuned = training_of(folder, tuning)
    before = tuned.features()
    last_still, last_tuned = (sum(steps(one, 16)[-4:]) for one in (still, tuned))
    assert last_tuned < last_still
    assert (tuned.features() - before).abs().max() > 1e-2
    assert (still.features() - before).abs().max() < 1e-4


@pytest.mark.parametrize("loss", ["supcon", "triplet"])
@pytest.mark.parametrize("tuning", [LORA, WHOLE], ids=["lora", "whole"])
def test_a_tuning_that_goes_on_is_the_one_that_was_never_interrupted(
    tuning: Tuning, loss: Any, tmp_path: Path
) -> None:
    folder = build_encoder(tmp_path / "model", "bert", dropout=0.1)
    recipe = replace(RECIPE, loss=loss, hidden=(12,), dropout=0.2, weight_decay=0.01)
    state = torch.random.get_rng_state()
    whole = training_of(folder, tuning, recipe, batch_tokens=160)
    losses = steps(whole, 4)
    first = training_of(folder, tuning, recipe, batch_tokens=160)
    steps(first, 2)
    (tmp_path / "state").mkdir()
    first.save(tmp_path / "state")
    second = training_of(folder, tuning, recipe, batch_tokens=160)
    second.load(tmp_path / "state")
    assert steps(second, 2) == losses[2:]
    assert torch.equal(second.features(), whole.features())
    assert torch.equal(state, torch.random.get_rng_state())


def test_a_checkpoint_of_lora_holds_its_additions_and_the_head(tmp_path: Path) -> None:
    folder = build_encoder(tmp_path / "model", "bert")
    training = training_of(folder, LORA)
    steps(training, 1)
    (tmp_path / "state").mkdir()
    training.save(tmp_path / "state")
    names = load_file(tmp_path / "state" / "state.safetensors")
    encoder = {name for name in names if name.startswith("encoder.")}
    assert encoder
    assert all("lora_" in name for name in encoder)
    # query, key, value and output of two blocks, A and B of rank 4 each
    assert training.num_trained == LAYERS * 4 * 2 * 4 * WIDTH
    assert training.num_trained < training.num_parameters / 4


@pytest.mark.parametrize("loss", ["supcon", "triplet"])
def test_a_batch_in_parts_has_the_gradient_of_the_whole(loss: Any, tmp_path: Path) -> None:
    folder = build_encoder(tmp_path, "bert")
    recipe = replace(RECIPE, loss=loss)
    one, many = (
        training_of(folder, WHOLE, recipe, batch_tokens=tokens) for tokens in (100_000, 64)
    )
    assert one._loss_with_gradient() == pytest.approx(many._loss_with_gradient(), rel=1e-5)
    for (name, ours), theirs in zip(
        one.encoder.model.named_parameters(), many.encoder.model.parameters(), strict=True
    ):
        if ours.grad is None:
            assert name.startswith("pooler.")
            continue
        assert theirs.grad is not None
        torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-5, rtol=1e-3)


def test_a_step_that_runs_out_of_memory_is_made_in_smaller_passes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = build_encoder(tmp_path, "bert")
    expected = steps(training_of(folder, WHOLE), 2)
    training = training_of(folder, WHOLE)
    forward = training.encoder.model.forward

    def small(input_ids: torch.Tensor, **others: Any) -> Any:
        if input_ids.numel() > 150:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return forward(input_ids=input_ids, **others)

    monkeypatch.setattr(training.encoder.model, "forward", small)
    assert steps(training, 2) == pytest.approx(expected, rel=1e-4)
    assert training.encoder.batch_tokens <= 150

    def never(**_: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(training.encoder.model, "forward", never)
    with pytest.raises(torch.OutOfMemoryError):
        training.step()


def test_gradient_checkpointing_changes_nothing_but_memory(tmp_path: Path) -> None:
    folder = build_encoder(tmp_path, "bert")
    for tuning in (WHOLE, replace(LORA, lora=Lora(r=4))):
        spared = replace(tuning, gradient_checkpointing=True)
        plain, saving = training_of(folder, tuning), training_of(folder, spared)
        assert steps(saving, 3) == pytest.approx(steps(plain, 3), rel=1e-4)
        assert saving.encoder.fallbacks == []


@pytest.mark.parametrize("preset", ["query_value", "attention", "all_linear"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_preset_finds_its_modules_in_every_family(
    family: str, preset: Any, tmp_path: Path
) -> None:
    encoder = load_encoder(EncoderSpec(hf=str(build_encoder(tmp_path, family))), device="cpu")
    before = encoder.encode(["w1 w2 w3", "w4"])
    num_linear = len(target_names(encoder.model, "all_linear"))
    encoder.model = add_lora(encoder.model, Lora(r=2, targets=preset), seed=5).eval()
    assert (encoder.encode(["w1 w2 w3", "w4"]) == before).all()  # B is zero at first
    adapted = [n for n, _ in encoder.model.named_modules() if n.endswith("lora_A.default")]
    assert adapted
    assert (len(adapted) == num_linear) == (preset == "all_linear")
    assert all(("lora_" in n) == w.requires_grad for n, w in encoder.model.named_parameters())


def test_modules_that_are_not_there_are_named(tmp_path: Path) -> None:
    model = load_encoder(EncoderSpec(hf=str(build_encoder(tmp_path))), device="cpu").model
    with pytest.raises(BadStyleData, match=r"ends in q_proj; there are self\.query, self\.key"):
        target_names(model, ("q_proj",))
    assert target_names(model, ("query",)) == ["query"]
    model.config.model_type = "novel"
    with pytest.raises(BadStyleData, match="family 'novel'; use all_linear"):
        target_names(model, "attention")


def test_the_seed_decides_lora_s_first_weights(tmp_path: Path) -> None:
    folder = build_encoder(tmp_path)
    state = torch.random.get_rng_state()

    def first(seed: int) -> torch.Tensor:
        model = load_encoder(EncoderSpec(hf=str(folder)), device="cpu").model
        wrapped = add_lora(model, Lora(r=2), seed)
        return torch.cat([w.flatten() for w in wrapped.parameters() if w.requires_grad])

    assert torch.equal(first(1), first(1))
    assert not torch.equal(first(1), first(2))
    assert torch.equal(state, torch.random.get_rng_state())
