"""Sampling that depends on a row's seed, the step and the logits, and on nothing else.

A token is the argmax of logits / temperature plus Gumbel noise, and the noise is a hash of row
seed, step and token (splitmix64, Steele et al. 2014): no generator has a state that could run ahead
when rows leave a batch, and the last bits by which logits differ between batches turn a token only
where two candidates are as near as that.

A torch module. Shape suffixes: N = rows, V = vocabulary, K = tokens looked at first.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["choose_tokens", "row_keys"]

_STEP = 0x9E3779B97F4A7C15
_TOKEN = 0xD1B54A32D192ED03
_MIX = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))
_NUM_LIKELIEST = 512
_MAX_ELEMENTS = 1 << 22


def row_keys(seed: int, row_seeds: Sequence[int]) -> Tensor:
    """int64 [N]: what the noise of a row starts from."""
    hashes = [hashlib.sha256(f"{seed} {row_seed}".encode()).digest() for row_seed in row_seeds]
    keys = [int.from_bytes(digest[:8], "little", signed=True) for digest in hashes]
    return torch.tensor(keys, dtype=torch.long)


def choose_tokens(
    logits_NV: Tensor, keys_N: Tensor, step: int, *, temperature: float, top_p: float
) -> Tensor:
    """Next tokens, int64 [N].

    Args:
        step: how many tokens of the answer came before.
        temperature: 0 takes the likeliest.
    """
    if temperature == 0:
        return logits_NV.float().argmax(dim=-1)
    num_rows = max(1, _MAX_ELEMENTS // logits_NV.shape[1])
    parts = []
    for first in range(0, len(logits_NV), num_rows):
        some = slice(first, first + num_rows)
        scores_NV = logits_NV[some].double() / temperature
        parts.append(_sampled(scores_NV, keys_N[some], step, top_p))
    return torch.cat(parts)


def _sampled(scores_NV: Tensor, keys_N: Tensor, step: int, top_p: float) -> Tensor:
    if top_p < 1:
        scores_NV = _likeliest(scores_NV, top_p)
    return (scores_NV + _gumbel(keys_N, step, scores_NV.shape[1])).argmax(dim=-1)


def _likeliest(scores_NV: Tensor, top_p: float) -> Tensor:
    """Scores, -inf outside of the smallest set of likeliest tokens with probability `top_p`."""
    log_total_N1 = scores_NV.logsumexp(dim=-1, keepdim=True)
    num_tokens = scores_NV.shape[1]
    for num_looked_at in (min(_NUM_LIKELIEST, num_tokens), num_tokens):
        best_NK = scores_NV.topk(num_looked_at, dim=-1).values
        sum_NK = (best_NK - log_total_N1).exp().cumsum(dim=-1)
        if bool((sum_NK[:, -1] >= top_p).all()):
            break
    num_before_N1 = (sum_NK < top_p).sum(dim=-1, keepdim=True).clamp(max=num_looked_at - 1)
    return scores_NV.masked_fill(scores_NV < best_NK.gather(1, num_before_N1), -torch.inf)


def _gumbel(keys_N: Tensor, step: int, num_tokens: int) -> Tensor:
    token_V = torch.arange(num_tokens, device=keys_N.device)
    start_N1 = _mixed(keys_N + _signed(_STEP * (step + 1))).unsqueeze(-1)
    bits_NV = _mixed(start_N1 + (token_V + 1) * _signed(_TOKEN))
    uniform_NV = (_shifted(bits_NV, 11).double() + 0.5) * 2.0**-53
    return -(-uniform_NV.log()).log()


def _mixed(x: Tensor) -> Tensor:
    for bits, factor in _MIX:
        x = (x ^ _shifted(x, bits)) * _signed(factor)
    return x ^ _shifted(x, 31)


def _shifted(x: Tensor, bits: int) -> Tensor:
    """Shift right and fill with zeros, which int64's own shift does not."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _signed(value: int) -> int:
    """The int64 with the same 64 bits."""
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >> 63 else value
