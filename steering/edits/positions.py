"""Which tokens of a pass an edit changes, by their absolute position in their own row.

A torch module. Shape suffixes: N = rows, T = tokens of this pass, S = tokens of this pass and
those in the cache.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from steering.errors import BadSteeringInput

__all__ = ["Between", "NamedPositions", "PassTokens", "Positions", "chosen_NT", "tokens_of_pass"]

NamedPositions = Literal["all", "prompt", "generated", "last"]
Positions = NamedPositions | Callable[[Tensor], Tensor]
"""`last` is the prompt's last token alone. A function gets absolute positions, int64 [N, T] (the
first token of a row is 0, however it is padded and whatever is cached) and gives bool [N, T]."""


@dataclass(frozen=True)
class Between:
    """Positions from `first` up to, but without, `end`; None is no end."""

    first: int = 0
    end: int | None = None

    def __call__(self, position_NT: Tensor) -> Tensor:
        is_behind_NT = position_NT >= self.first
        return is_behind_NT if self.end is None else is_behind_NT & (position_NT < self.end)


@dataclass(frozen=True)
class PassTokens:
    """The tokens of one pass of a model."""

    is_token_NT: Tensor
    """False for padding."""
    position_NT: Tensor
    """Place of a token in its row: padding does not count, cached tokens do."""
    is_bos_NT: Tensor
    """True for a beginning-of-sequence token at position 0."""
    num_cached: int
    """Columns of the batch that were seen in earlier passes."""

    @property
    def num_tokens_N(self) -> Tensor:
        """Tokens of each row so far: cached ones and this pass's, without padding."""
        counted_NT = torch.where(self.is_token_NT, self.position_NT + 1, 0)
        return counted_NT.amax(dim=1)


def chosen_NT(
    positions: Positions, tokens: PassTokens, prompt_length_N: Tensor, *, skip_bos: bool
) -> Tensor:
    """True for the tokens to be edited. Raises BadSteeringInput for a predicate's wrong answer."""
    position_NT = tokens.position_NT
    length_N1 = prompt_length_N.to(position_NT.device).unsqueeze(-1)
    if positions == "all":
        found_NT = torch.ones_like(tokens.is_token_NT)
    elif positions == "prompt":
        found_NT = position_NT < length_N1
    elif positions == "generated":
        found_NT = position_NT >= length_N1
    elif positions == "last":
        found_NT = position_NT == length_N1 - 1
    elif isinstance(positions, str):
        known = ", ".join(get_args(NamedPositions))
        raise BadSteeringInput(
            f"positions={positions!r} is unknown; known: {known}, or a function of positions"
        )
    else:
        found_NT = positions(position_NT)
        if found_NT.shape != position_NT.shape or found_NT.dtype != torch.bool:
            raise BadSteeringInput(
                f"positions {positions!r} gave {found_NT.dtype} {list(found_NT.shape)} for "
                f"{list(position_NT.shape)} positions; give one bool a position"
            )
    found_NT = found_NT & tokens.is_token_NT
    return found_NT & ~tokens.is_bos_NT if skip_bos else found_NT


def tokens_of_pass(said: Mapping[str, Any], bos_token_id: int | None) -> PassTokens:
    """What the arguments of a model's `forward` say about its tokens.

    Raises BadSteeringInput where positions cannot be told, or the model would compute others.
    """
    ids_NT, embedded_NTD = said.get("input_ids"), said.get("inputs_embeds")
    given = ids_NT if ids_NT is not None else embedded_NTD
    if given is None:
        raise BadSteeringInput("a steered pass got no input_ids and no inputs_embeds; give either")
    num_rows, num_new = given.shape[:2]
    cache = said.get("past_key_values")
    num_cached = 0 if cache is None else int(cache.get_seq_length())
    is_token_NT, position_NT = _places(said, num_rows, num_new, num_cached, given.device)
    if ids_NT is None or bos_token_id is None:
        is_bos_NT = torch.zeros_like(is_token_NT)
    else:
        is_bos_NT = (ids_NT == bos_token_id) & (position_NT == 0) & is_token_NT
    return PassTokens(is_token_NT, position_NT, is_bos_NT, num_cached)


def _places(
    said: Mapping[str, Any], num_rows: int, num_new: int, num_cached: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    mask_NS, position_ids = said.get("attention_mask"), said.get("position_ids")
    if mask_NS is None:
        is_token_NT = torch.ones((num_rows, num_new), dtype=torch.bool, device=device)
        if isinstance(position_ids, Tensor) and position_ids.ndim == 2:
            return is_token_NT, position_ids.to(device).expand(num_rows, num_new)
        place_T = torch.arange(num_cached, num_cached + num_new, device=device)
        return is_token_NT, place_T.expand(num_rows, num_new)
    expected = (num_rows, num_cached + num_new)
    if not isinstance(mask_NS, Tensor) or tuple(mask_NS.shape) != expected:
        shape = list(mask_NS.shape) if isinstance(mask_NS, Tensor) else type(mask_NS).__name__
        raise BadSteeringInput(
            f"attention_mask is {shape}, and the positions of edits are read from one of shape "
            f"{list(expected)} (rows, cached and new tokens); give that, with 0 for padding"
        )
    mask_NS = mask_NS.to(device).bool()
    if position_ids is None and num_cached == 0 and _is_left_padded(mask_NS):
        raise BadSteeringInput(
            "a batch is padded on the left and has no position_ids: models with learned positions "
            "then compute something else for padded rows; give "
            "position_ids=(attention_mask.cumsum(1) - 1).clamp(min=0), or pad on the right"
        )
    position_NS = (mask_NS.long().cumsum(dim=1) - 1).clamp(min=0)
    return mask_NS[:, num_cached:], position_NS[:, num_cached:]


def _is_left_padded(mask_NS: Tensor) -> bool:
    return bool((~mask_NS[:, 0] & mask_NS.any(dim=1)).any())
