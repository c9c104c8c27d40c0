"""Adam whose moments are kept as a byte each, by torch operations.

Dettmers et al. 2022 (arXiv 2110.02861), section 2: the moments are decoded, Adam's step is taken
in float32, and they are encoded again (`byte_maps.py`). Weights and gradients are as in Adam.

Shape suffixes: R = rows (latents), C = columns (d_in).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from sae.optimizers.adam_rule import AdamRule, adam_rule, torch_adam
from sae.optimizers.by_parameter import ByParameter, adam_slots
from sae.optimizers.byte_maps import CodedMoments, decoded, encoded

EPS = 1e-8
"""Of torch's Adam, which sae_lens leaves as it is."""
CODED_FROM = 4096
"""Numbers of a matrix from which on its moments are coded, as in the paper's own implementation;
what has one dimension (biases, thresholds) mixes latents and is small."""
CHUNK_NUMBERS = 2**20
"""As many are decoded at a time: moments in float32 are never there as a whole."""
SLOTS = ("mean_codes", "mean_scales", "square_codes", "square_scales")
"""Names in the optimizer's state of what `CodedMoments` holds, in its order."""


class EightBitAdam(ByParameter):
    """As a torch optimizer.

    Args:
        columns: those of the parameters whose latents are columns, rather than rows.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float,
        betas: tuple[float, float],
        columns: Iterable[Tensor] = (),
    ) -> None:
        self._columns = {id(param) for param in columns}
        super().__init__(params, {"lr": lr, "betas": betas, "eps": EPS})

    @torch.no_grad()
    def move(self, param: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        """Move one parameter along a gradient of its shape."""
        state = self.state_of(param)
        state["step"] += 1
        rule = adam_rule(group, int(state["step"]), torch.ones((), device=param.device))
        moments = self.coded_moments(param)
        if moments is None:
            torch_adam(param, grad, state["exp_avg"], state["exp_avg_sq"], rule)
            return
        turned = self.latents_are_columns(param)
        coded_adam(param.T if turned else param, grad.T if turned else grad, moments, rule)

    def state_of(self, param: Tensor) -> dict[str, Tensor]:
        """Step count and moments, coded or as torch's Adam has them; made if there are none yet."""
        state: dict[str, Tensor] = self.state[param]
        if not state:
            if param.dim() == 2 and param.numel() >= CODED_FROM:
                state["step"] = torch.tensor(0.0, dtype=torch.float32)
                turned = self.latents_are_columns(param)
                num_rows, num_columns = (param.T if turned else param).shape
                made = CodedMoments.zero(num_rows, num_columns, param.device)
                state |= zip(SLOTS, vars(made).values(), strict=True)
            else:
                state |= adam_slots(param)
        return state

    def coded_moments(self, param: Tensor) -> CodedMoments | None:
        """A parameter's coded moments, to be changed in place; None where they are not coded."""
        state = self.state_of(param)
        return CodedMoments(*(state[slot] for slot in SLOTS)) if SLOTS[0] in state else None

    def latents_are_columns(self, param: Tensor) -> bool:
        """Whether a parameter is [C, R] where its moments are [R, C]."""
        return id(param) in self._columns

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As torch's, which would make floating-point numbers of the codes."""
        super().load_state_dict({**state_dict, "state": {}})
        params = [param for group in self.param_groups for param in group["params"]]
        for index, slots in state_dict["state"].items():
            device = params[index].device
            self.state[params[index]] = {
                name: value if name == "step" else value.to(device) for name, value in slots.items()
            }


def coded_adam(param_RC: Tensor, grad_RC: Tensor, moments: CodedMoments, rule: AdamRule) -> None:
    """Update a parameter and its coded moments in place, in chunks of rows.

    Args:
        param_RC: a row a latent; a view that is not contiguous will do. So will `grad_RC`.
    """
    clip = rule.clip.float()
    for rows in chunks_of_rows(*param_RC.shape):
        grad = grad_RC[rows].float() * clip
        mean = decoded(moments.mean_RC[rows], moments.mean_scale_RS[rows], signed=True)
        square = decoded(moments.square_RC[rows], moments.square_scale_RS[rows], signed=False)
        mean.lerp_(grad, 1 - rule.beta1)
        square.mul_(rule.beta2).addcmul_(grad, grad, value=1 - rule.beta2)
        moments.mean_RC[rows], moments.mean_scale_RS[rows] = encoded(mean, signed=True)
        moments.square_RC[rows], moments.square_scale_RS[rows] = encoded(square, signed=False)
        denominator = square.sqrt_().div_(rule.root_correction2).add_(rule.eps)
        here_RC = param_RC[rows]
        here_RC.copy_(here_RC.float().addcdiv(mean, denominator, value=-rule.step_size))


def chunks_of_rows(num_rows: int, num_columns: int) -> Iterator[slice]:
    """So many rows at a time that they are at most `CHUNK_NUMBERS` numbers, or one row."""
    step = max(1, CHUNK_NUMBERS // num_columns)
    for first in range(0, num_rows, step):
        yield slice(first, min(first + step, num_rows))
