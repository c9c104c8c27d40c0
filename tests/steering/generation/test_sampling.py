"""Sampling follows the probabilities, and the noise of a row is its own."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from steering.generation.sampling import choose_tokens, row_keys

LOGITS_V = torch.tensor([1.0, 0.0, 2.0, -1.0, 0.5, -30.0])


def sampled(num_rows: int, *, step: int = 0, seed: int = 0, **settings: float) -> Tensor:
    options = {"temperature": 1.0, "top_p": 1.0, **settings}
    keys_N = row_keys(seed, range(num_rows))
    return choose_tokens(LOGITS_V.expand(num_rows, -1), keys_N, step, **options)


def test_tokens_are_as_frequent_as_they_are_likely() -> None:
    for temperature in (1.0, 0.5):
        token_N = sampled(40_000, temperature=temperature)
        share_V = torch.bincount(token_N, minlength=6) / 40_000
        expected_V = (LOGITS_V / temperature).softmax(dim=0)
        assert (share_V - expected_V).abs().max() < 0.012  # five standard deviations


def test_steps_rows_and_seeds_are_independent() -> None:
    base_N = sampled(20_000)
    chance = float((LOGITS_V.softmax(dim=0) ** 2).sum())
    for other_N in (sampled(20_000, step=1), sampled(20_000, seed=1), base_N.roll(1)):
        assert abs(float((base_N == other_N).float().mean()) - chance) < 0.02


def test_temperature_0_takes_the_likeliest_and_a_low_one_nearly_always() -> None:
    assert sampled(50, temperature=0.0).tolist() == [2] * 50
    assert (sampled(1000, temperature=0.05) == 2).all()


@pytest.mark.parametrize(("top_p", "kept"), [(0.5, [2]), (0.7, [0, 2]), (0.95, [0, 1, 2, 4])])
def test_top_p_keeps_the_smallest_set_that_is_likely_enough(top_p: float, kept: list[int]) -> None:
    assert sorted(set(sampled(5000, top_p=top_p).tolist())) == kept


def test_top_p_over_a_large_flat_vocabulary() -> None:
    logits_1V = torch.randn((1, 5000), generator=torch.Generator().manual_seed(0)) * 0.1
    logits_NV = logits_1V.expand(400, -1)
    token_N = choose_tokens(logits_NV, row_keys(0, range(400)), 0, temperature=1.0, top_p=0.5)
    found = set(token_N.tolist())
    order = logits_NV[0].argsort(descending=True)
    num_kept = int((logits_NV[0].softmax(0)[order].cumsum(0) < 0.5).sum()) + 1
    assert found <= set(order[:num_kept].tolist())
    assert max(order.tolist().index(token) for token in found) > 0.9 * num_kept


def test_a_rows_token_does_not_depend_on_the_rows_beside_it() -> None:
    logits_NV = torch.randn((6, 300), generator=torch.Generator().manual_seed(0))
    keys_N = row_keys(3, [4, 8, 15, 16, 23, 42])
    together_N = choose_tokens(logits_NV, keys_N, 7, temperature=0.9, top_p=0.9)
    for row in range(6):
        alone = slice(row, row + 1)
        token = choose_tokens(logits_NV[alone], keys_N[alone], 7, temperature=0.9, top_p=0.9)
        assert int(token) == int(together_N[row])


def test_rounding_seldom_turns_a_token() -> None:
    logits_NV = torch.randn((2000, 300), generator=torch.Generator().manual_seed(0))
    shaken_NV = logits_NV * (
        1 + 1e-6 * torch.randn(300, generator=torch.Generator().manual_seed(1))
    )
    keys_N = row_keys(0, range(2000))
    plain_N, shaken_N = (
        choose_tokens(logits, keys_N, 0, temperature=1.0, top_p=1.0)
        for logits in (logits_NV, shaken_NV)
    )
    assert int((plain_N != shaken_N).sum()) <= 1


def test_the_noise_is_the_same_everywhere() -> None:
    """A change of it would change every sampled text: this is written into reports."""
    assert row_keys(0, [0, 1]).tolist() == [RECORDED_KEY, row_keys(0, [1]).item()]
    assert sampled(12).tolist() == RECORDED


RECORDED_KEY = -291119308711054445
RECORDED = [2, 2, 3, 2, 0, 3, 0, 1, 4, 0, 0, 0]
