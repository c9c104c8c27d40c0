"""Members step exactly as sae_lens's trainer does, and resume exactly from a folder."""

from __future__ import annotations

import json
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from sae_lens.config import LoggingConfig, SAETrainerConfig
from sae_lens.training.sae_trainer import SAETrainer
from torch import Tensor

from sae.architectures import ArchitectureConfig, by_architecture
from sae.member import Member
from sae.member_state import STATE_FILE, TENSORS_FILE, BadCheckpoint, load_member, save_member
from tests.sae.synthetic_source import SyntheticSource, scheduled_config, small_config

ARCHITECTURES = sorted(by_architecture)
NUM_STEPS = 50
SOURCE = SyntheticSource()
TOTAL_TOKENS = NUM_STEPS * SOURCE.batch_tokens


def fresh(config: ArchitectureConfig) -> Member:
    return Member.from_source(config, SOURCE, TOTAL_TOKENS)


def train(member: Member, first: int, end: int) -> Member:
    for position in range(first, end):
        member.step(SOURCE.batch_at(position)[member.hook], position)
    return member


def whole_state(member: Member) -> dict[str, Tensor]:
    trainer = member.trainer
    state = {f"sae.{name}": value for name, value in trainer.sae.state_dict().items()}
    for index, slots in trainer.optimizer.state_dict()["state"].items():
        state |= {f"adam.{index}.{name}": value for name, value in slots.items()}
    state["frequencies"] = trainer.act_freq_scores
    state["since_fired"] = trainer.n_forward_passes_since_fired
    state["lr"] = torch.tensor(trainer.optimizer.param_groups[0]["lr"], dtype=torch.float64)
    state["loss_sum"] = member.losses.sum
    state["loss_max"] = member.losses.max
    return state


def assert_equal_bit_for_bit(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    differing = [name for name, value in one.items() if not torch.equal(value, other[name])]
    assert not differing


def bare_trainer(config: ArchitectureConfig) -> SAETrainer[Any, Any]:
    """sae_lens's trainer as its own runner would make it, starting from our initial weights."""
    sae = config.build_sae(SOURCE.d_in("layer"), "cpu", {})
    sae.b_dec.data = SOURCE.mean("layer") * SOURCE.scale("layer")
    trainer = SAETrainer(
        SAETrainerConfig(
            total_training_samples=TOTAL_TOKENS,
            train_batch_size_samples=SOURCE.batch_tokens,
            lr=config.learning_rate,
            lr_end=config.learning_rate / 10,
            lr_scheduler_name=config.lr_schedule,
            lr_warm_up_steps=config.lr_warm_up_steps,
            lr_decay_steps=config.lr_decay_steps,
            dead_feature_window=config.dead_feature_window,
            logger=LoggingConfig(log_to_wandb=False),
        ),
        sae,
        iter(SOURCE.batch_at(position)["layer"] for position in range(NUM_STEPS)),
    )
    trainer.activation_scaler.scaling_factor = SOURCE.scale("layer")
    return trainer


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_fifty_steps_of_a_member_are_fifty_steps_of_the_bare_trainer(architecture: str) -> None:
    config = scheduled_config(architecture)
    trainer = bare_trainer(config)
    losses = []
    for _ in range(NUM_STEPS):
        losses.append(trainer.step(next(trainer.data_provider)).loss.item())
        trainer.n_training_steps += 1
    member = train(fresh(config), 0, NUM_STEPS)
    for name, value in trainer.sae.state_dict().items():
        assert torch.equal(value, member.sae.state_dict()[name]), name
    assert torch.equal(trainer.act_freq_scores, member.trainer.act_freq_scores)
    assert member.losses.report()["loss"] == pytest.approx(sum(losses) / NUM_STEPS, rel=1e-5)
    assert member.tokens == TOTAL_TOKENS


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_member_interrupted_at_random_points_ends_as_if_it_had_not_been(
    architecture: str, tmp_path: Path
) -> None:
    config = scheduled_config(architecture)
    uninterrupted = train(fresh(config), 0, NUM_STEPS)
    cuts = sorted(random.Random(architecture).sample(range(1, NUM_STEPS), 4))
    member = fresh(config)
    for first, end in zip([0, *cuts], [*cuts, NUM_STEPS], strict=True):
        train(member, first, end)
        folder = tmp_path / str(end)
        assert save_member(member, folder) == end * SOURCE.batch_tokens
        member = fresh(config)
        assert load_member(member, folder) == end * SOURCE.batch_tokens
    assert_equal_bit_for_bit(whole_state(uninterrupted), whole_state(member))
    assert member.segments == [(0, NUM_STEPS)]
    assert member.losses.report() == uninterrupted.losses.report()


def test_warm_up_and_decay_of_the_automatic_learning_rate_are_sae_lens_s() -> None:
    """Up over the warm-up, flat, and down to nothing in the last steps."""
    config = small_config("topk", lr="auto", lr_warm_up_steps=5, lr_decay_steps=10)
    member, rates = fresh(config), []
    for position in range(NUM_STEPS):
        rates.append(member.trainer.optimizer.param_groups[0]["lr"] / config.learning_rate)
        train(member, position, position + 1)
    assert rates[:6] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 1.0])
    assert rates[5:41] == pytest.approx([1.0] * 36)
    assert rates[40:] == pytest.approx([1 - n / 10 for n in range(10)])


def test_initial_weights_depend_on_the_seed_alone_and_leave_the_global_one_alone() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    one = fresh(small_config("topk", init_seed=7))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(99)
    same = fresh(small_config("topk", init_seed=7))
    other = fresh(small_config("topk", init_seed=8))
    assert torch.equal(one.sae.W_dec, same.sae.W_dec)
    assert not torch.equal(one.sae.W_dec, other.sae.W_dec)


def test_members_made_in_several_threads_at_once_have_the_weights_of_their_seeds() -> None:
    """Trials attach to a pack side by side, and torch's global generator is one for all."""
    seeds = [1, 2, 3, 4] * 16
    alone = {seed: fresh(small_config("topk", init_seed=seed)).sae.W_dec for seed in set(seeds)}
    with ThreadPoolExecutor(8) as threads:
        made = list(threads.map(lambda s: fresh(small_config("topk", init_seed=s)), seeds))
    for seed, member in zip(seeds, made, strict=True):
        assert torch.equal(member.sae.W_dec, alone[seed])


def test_the_decoder_bias_starts_from_the_scaled_mean_or_from_zero() -> None:
    mean = fresh(small_config("topk")).sae.b_dec
    assert torch.allclose(mean, SOURCE.mean("layer") * SOURCE.scale("layer"))
    unscaled = fresh(small_config("topk", normalize_activations="none")).sae.b_dec
    assert torch.allclose(unscaled, SOURCE.mean("layer"))
    assert not fresh(small_config("topk", b_dec_init="zeros")).sae.b_dec.any()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("dtype", ["bfloat16", "float64"])
def test_members_train_in_other_precisions(architecture: str, dtype: str, tmp_path: Path) -> None:
    config = small_config(architecture, dtype=dtype)
    member = train(fresh(config), 0, 5)
    assert torch.isfinite(member.sae.W_dec).all()
    save_member(member, tmp_path)
    resumed = fresh(config)
    load_member(resumed, tmp_path)
    assert_equal_bit_for_bit(whole_state(train(member, 5, 10)), whole_state(train(resumed, 5, 10)))


def test_firing_frequencies_start_anew_at_the_window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sae.member.FEATURE_SAMPLING_WINDOW_STEPS", 10)
    member = train(fresh(small_config("topk")), 0, 13)
    assert member.trainer.n_frac_active_samples == 3 * SOURCE.batch_tokens


def test_segments_record_the_gaps() -> None:
    member = fresh(small_config("topk"))
    train(train(member, 2, 5), 9, 11)
    assert member.segments == [(2, 5), (9, 11)]
    assert member.end_position == 11


def test_a_loss_that_is_not_a_number_shows_in_the_report() -> None:
    member = train(fresh(small_config("topk")), 0, 2)
    member.losses.add(torch.tensor(float("nan")))
    assert all(value != value for value in member.losses.report().values())


def test_a_second_report_without_a_step_repeats_the_first() -> None:
    member = fresh(small_config("topk"))
    assert member.losses.report() == {}
    train(member, 0, 3)
    assert member.losses.report() == member.losses.report() != {}


def test_a_schedule_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="lr_warm_up_steps=60.*below the 50 steps"):
        fresh(small_config("topk", lr_warm_up_steps=60))


def test_a_hook_the_stream_has_not_is_refused_with_those_it_has() -> None:
    with pytest.raises(ValueError, match="hook='other' is not in this stream; its hooks are layer"):
        fresh(small_config("topk", hook="other"))


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save_member(train(fresh(small_config("topk")), 0, 3), tmp_path)
    return tmp_path


def refused(folder: Path, **parameters: Any) -> str:
    member = fresh(small_config(**{"architecture": "topk", **parameters}))
    with pytest.raises(BadCheckpoint) as caught:
        load_member(member, folder)
    return str(caught.value)


def test_a_checkpoint_without_its_last_file_is_refused(saved: Path) -> None:
    (saved / STATE_FILE).unlink()
    assert "incomplete" in refused(saved)


def test_a_checkpoint_without_tensors_is_refused(saved: Path) -> None:
    (saved / TENSORS_FILE).unlink()
    assert "incomplete" in refused(saved)


def test_a_truncated_checkpoint_is_refused(saved: Path) -> None:
    path = saved / TENSORS_FILE
    path.write_bytes(path.read_bytes()[:-100])
    assert "truncated" in refused(saved)
    path.write_bytes(b"x" * json.loads((saved / STATE_FILE).read_text())["tensor_bytes"])
    assert "damaged" in refused(saved)


def test_a_cut_off_state_file_is_refused(saved: Path) -> None:
    path = saved / STATE_FILE
    path.write_text(path.read_text()[:200])
    assert "damaged" in refused(saved)
    path.write_text("[]")
    assert "format" in refused(saved)


def test_a_checkpoint_of_another_config_is_refused_with_what_differs(saved: Path) -> None:
    assert "k=4 there, 5 here" in refused(saved, k=5)
    assert "architecture='topk' there, 'batchtopk' here" in refused(saved, architecture="batchtopk")


def test_nothing_in_a_checkpoint_is_a_pickle(saved: Path) -> None:
    assert {path.name for path in saved.iterdir()} == {STATE_FILE, TENSORS_FILE}
    json.loads((saved / STATE_FILE).read_text(), parse_constant=pytest.fail)
