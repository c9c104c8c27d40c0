"""Conditions under which an edit is made: a similarity or a score passes a threshold.

A torch module. Shape suffixes: N = rows of a batch, M = tokens or rows that are judged, T = tokens
of a pass, D = width at the hook.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from torch import Tensor

from steering.edits.base import Edit
from steering.edits.positions import PassTokens, Positions, chosen_NT
from steering.edits.row_wise import NUMBER, VECTOR, Number, RowWise, per_row
from steering.edits.unit_vectors import check_direction, unit
from steering.errors import BadSteeringInput

__all__ = [
    "CastCondition",
    "Condition",
    "CosineCondition",
    "Decided",
    "Op",
    "ProbeCondition",
    "When",
]

Op = Literal["sim_ge", "sim_lt"]
Decided = Literal["prompt", "token"]
Read = Literal["mean", "last"]


@dataclass(frozen=True, eq=False)
class Condition(RowWise, ABC):
    """Base of conditions: they read at their own hook, which must run no later than the edit's."""

    hook: str
    vector: Tensor = field(metadata=VECTOR)
    """[D], or [N, D] with one a row."""
    threshold: Number = field(metadata=NUMBER)
    op: Op = "sim_ge"
    """`sim_ge`: the edit is made where the score is at least the threshold; `sim_lt`: below it."""
    decided: Decided = "prompt"
    """`prompt`: once a row, when its prompt is read; holds for all its tokens. `token`: for each
    token by its own activation."""
    read: Read = "mean"
    """Of a prompt: the mean activation of its tokens, or its last one."""
    skip_bos: bool = field(default=True, kw_only=True)
    """Leave a beginning-of-sequence token out of the mean."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, allowed in (("op", Op), ("decided", Decided), ("read", Read)):
            if getattr(self, name) not in get_args(allowed):
                raise BadSteeringInput(
                    f"{type(self).__name__}: {name}={getattr(self, name)!r} is unknown; known: "
                    f"{', '.join(get_args(allowed))}"
                )

    @abstractmethod
    def score(self, h_MD: Tensor, row_M: Tensor) -> Tensor:
        """One number [M] for each activation."""

    def holds(self, h_MD: Tensor, row_M: Tensor) -> Tensor:
        """Whether the edit is to be made, bool [M]."""
        threshold = per_row(self.threshold, row_M, h_MD, shared_ndim=0)
        score_M1 = self.score(h_MD, row_M).unsqueeze(-1)
        is_met_M1 = score_M1 >= threshold if self.op == "sim_ge" else score_M1 < threshold
        return is_met_M1.squeeze(-1)

    def holds_for_tokens(self, h_NTD: Tensor) -> Tensor:
        """bool [N, T]."""
        num_rows, num_tokens, width = h_NTD.shape
        row_M = torch.arange(num_rows, device=h_NTD.device).repeat_interleave(num_tokens)
        return self.holds(h_NTD.reshape(-1, width), row_M).reshape(num_rows, num_tokens)

    def holds_for_prompts(
        self, h_NTD: Tensor, tokens: PassTokens, prompt_length_N: Tensor
    ) -> Tensor:
        """bool [N], from a pass that holds the whole prompts."""
        where: Positions = "prompt" if self.read == "mean" else "last"
        is_read_NT = chosen_NT(
            where, tokens, prompt_length_N, skip_bos=self.skip_bos and self.read == "mean"
        ).to(h_NTD.device)
        total_ND = h_NTD.masked_fill(~is_read_NT.unsqueeze(-1), 0.0).sum(dim=1)
        mean_ND = total_ND / is_read_NT.sum(dim=1, keepdim=True).clamp(min=1)
        return self.holds(mean_ND, torch.arange(len(h_NTD), device=h_NTD.device))


@dataclass(frozen=True, eq=False)
class CosineCondition(Condition):
    """score = cos(h, c)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_direction(type(self).__name__, self.vector)

    def score(self, h_MD: Tensor, row_M: Tensor) -> Tensor:
        c_MD = unit(per_row(self.vector, row_M, h_MD, shared_ndim=1))
        return torch.cosine_similarity(h_MD, c_MD.expand_as(h_MD), dim=-1)


@dataclass(frozen=True, eq=False)
class CastCondition(Condition):
    """score = cos(h, tanh(P h)), P = c c^T / (c^T c): conditional activation steering of IBM.

    Unlike there, where "larger" means the threshold (it fires below it), `op` says what it does.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        check_direction(type(self).__name__, self.vector)

    def score(self, h_MD: Tensor, row_M: Tensor) -> Tensor:
        c_MD = unit(per_row(self.vector, row_M, h_MD, shared_ndim=1))
        projected_MD = (h_MD * c_MD).sum(dim=-1, keepdim=True) * c_MD
        return torch.cosine_similarity(h_MD, projected_MD.tanh(), dim=-1)


@dataclass(frozen=True, eq=False)
class ProbeCondition(Condition):
    """score = h . w + b: the logit of a linear probe, or a plain projection."""

    bias: Number = field(default=0.0, metadata=NUMBER)

    def score(self, h_MD: Tensor, row_M: Tensor) -> Tensor:
        w_MD = per_row(self.vector, row_M, h_MD, shared_ndim=1)
        bias_M1 = per_row(self.bias, row_M, h_MD, shared_ndim=0)
        return ((h_MD * w_MD).sum(dim=-1, keepdim=True) + bias_M1).squeeze(-1)


@dataclass(frozen=True, eq=False)
class When:
    """An edit that is made only where a condition holds; several nested ones must all hold."""

    edit: Edit | When
    condition: Condition

    @property
    def hook(self) -> str:
        """Where the edit writes."""
        return self.edit.hook

    @property
    def num_rows(self) -> int | None:
        """How many rows there are settings for; None if they are for any number of rows."""
        found = self.condition.num_rows
        return self.edit.num_rows if found is None else found

    def rows(self, indices: Sequence[int] | Tensor) -> When:
        """The same for these rows of the batch."""
        return When(self.edit.rows(indices), self.condition.rows(indices))

    def to(self, device: torch.device) -> When:
        """The same with its tensors on a device."""
        return When(self.edit.to(device), self.condition.to(device))

    def with_strength(self, strength: Number) -> When:
        """The same at another strength."""
        return When(self.edit.with_strength(strength), self.condition)
