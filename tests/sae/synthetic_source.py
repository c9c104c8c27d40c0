"""An activation source without a language model: a planted sparse dictionary plus noise.

Shape suffixes: B = tokens in the batch, D = d_in, P = planted directions, N = held-out tokens,
C = contexts, T = context length.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sae.activation_source import HookedLanguageModel
from sae.architectures import ArchitectureConfig, by_architecture, parse_architecture

CONTEXT = 16
SPARSITY = {"k": 4, "l1_coefficient": 0.5, "l0_coefficient": 0.05}
"""A reasonable value of every sparsity knob for the planted dictionary."""


def small_config(architecture: str, **parameters: Any) -> ArchitectureConfig:
    """A small SAE of an architecture, with its sparsity knob set unless `parameters` does."""
    knob = by_architecture[architecture].sparsity_knob
    given = {knob: SPARSITY[knob], "d_sae": 64, "lr": 3e-3, "dead_feature_window": 20}
    return parse_architecture({"architecture": architecture, **given, **parameters})


def scheduled_config(architecture: str, **parameters: Any) -> ArchitectureConfig:
    """As `small_config`, with warm-up, cosine, decay and a coefficient warm-up."""
    names = by_architecture[architecture].model_fields
    warm_ups = {
        name: 15 for name in names if name.endswith("_warm_up_steps") and name != "lr_warm_up_steps"
    }
    schedule = {
        "lr_schedule": "cosineannealing",
        "lr_warm_up_steps": 8,
        "lr_decay_steps": 12,
        "dead_feature_window": 3,
    }
    return small_config(architecture, **{**schedule, **warm_ups, **parameters})


class SyntheticHeldOut:
    """Held-out tokens of the synthetic source; the first position of a context is left out."""

    def __init__(self, source: SyntheticSource, num_contexts: int) -> None:
        generator = torch.Generator().manual_seed(10**6)
        self.tokens_CT = torch.randint(5, 50, (num_contexts, CONTEXT), generator=generator)
        self.kept_CT = torch.ones(num_contexts, CONTEXT, dtype=torch.bool)
        self.kept_CT[:, 0] = False
        self.num_tokens = int(self.kept_CT.sum())
        self.fingerprint = "synthetic"
        self._source = source

    def activations(self, hook: str) -> Tensor:
        return self._source.draw(hook, 10**6, self.num_tokens)


class SyntheticSource:
    """x = sparse non-negative code @ planted directions + mean + noise, by (hook, position)."""

    def __init__(
        self,
        hooks: Sequence[str] = ("layer",),
        *,
        d_in: int = 16,
        num_planted: int = 32,
        num_active: int = 3,
        batch_tokens: int = 64,
        noise: float = 0.02,
        held_out_contexts: int = 32,
    ) -> None:
        self.hooks = tuple(hooks)
        self.batch_tokens = batch_tokens
        self._d_in, self._num_active, self._noise = d_in, num_active, noise
        generator = torch.Generator().manual_seed(1)
        self._planted = {}
        self._mean = {}
        for hook in self.hooks:
            planted_PD = torch.randn(num_planted, d_in, generator=generator)
            self._planted[hook] = planted_PD / planted_PD.norm(dim=-1, keepdim=True)
            self._mean[hook] = 2 * torch.randn(d_in, generator=generator)
        self.held_out = SyntheticHeldOut(self, held_out_contexts)
        self.lm_tokens = 0
        self.lm_seconds = 0.0
        self.positions_drawn: list[int] = []

    @property
    def language_model(self) -> HookedLanguageModel:
        raise AssertionError("the synthetic source has no language model")

    def draw(self, hook: str, seed: int, num_tokens: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed * 1000 + self.hooks.index(hook))
        planted_PD = self._planted[hook]
        scores_BP = torch.rand(num_tokens, len(planted_PD), generator=generator)
        top = scores_BP.topk(self._num_active, dim=-1)
        size = 1 + torch.rand(num_tokens, self._num_active, generator=generator)
        code_BP = torch.zeros_like(scores_BP).scatter_(-1, top.indices, 2 * size)
        noise_BD = self._noise * torch.randn(num_tokens, self._d_in, generator=generator)
        return code_BP @ planted_PD + self._mean[hook] + noise_BD

    def batch_at(self, position: int) -> dict[str, Tensor]:
        self.positions_drawn.append(position)
        self.lm_tokens += self.batch_tokens
        self.lm_seconds += 0.25
        return {hook: self.draw(hook, position, self.batch_tokens) for hook in self.hooks}

    def d_in(self, hook: str) -> int:
        del hook
        return self._d_in

    def scale(self, hook: str) -> float:
        norms = self.draw(hook, 0, 512).norm(dim=-1)
        return float(self._d_in**0.5 / norms.mean())

    def mean(self, hook: str) -> Tensor:
        return self.draw(hook, 0, 512).mean(dim=0)

    def epoch_at(self, position: int) -> int:
        del position
        return 0

    def record(self) -> dict[str, Any]:
        return {"source": "synthetic"}


class SourceWithModel(SyntheticSource):
    """The synthetic source's interface over a tiny language model, with real activations."""

    def __init__(self, model: HookedLanguageModel, hook: str, d_in: int, tokens_CT: Tensor) -> None:
        super().__init__((hook,), d_in=d_in, held_out_contexts=len(tokens_CT))
        self._model = model
        self.held_out.tokens_CT = tokens_CT
        self.held_out.kept_CT = torch.ones_like(tokens_CT, dtype=torch.bool)
        self.held_out.kept_CT[:, 0] = False
        self.held_out.kept_CT[0, 3] = False
        self.held_out.num_tokens = int(self.held_out.kept_CT.sum())
        acts_CTD = model.activations(tokens_CT, [hook])[hook].float()
        self._acts_ND = acts_CTD[self.held_out.kept_CT]

    @property
    def language_model(self) -> HookedLanguageModel:
        return self._model

    def draw(self, hook: str, seed: int, num_tokens: int) -> Tensor:
        del hook
        if seed == 10**6:
            return self._acts_ND
        generator = torch.Generator().manual_seed(seed)
        return self._acts_ND[torch.randint(len(self._acts_ND), (num_tokens,), generator=generator)]
