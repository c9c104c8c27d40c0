"""The groups of members that a backend must step as sae_lens steps each of them alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sae.architectures import ArchitectureConfig, parse_architecture

NUM_STEPS = 50
D_SAE = 64


@dataclass(frozen=True)
class Life:
    """One member: its configuration and at which stream positions it is stepped."""

    config: ArchitectureConfig
    joins: int = 0
    leaves: int = NUM_STEPS
    every: int = 1
    """Stepped at each so many positions from its first one."""
    depth: float = 0.0
    """How far below zero every third latent's bias starts, so that it never fires at first."""

    def is_due(self, position: int) -> bool:
        return self.joins <= position < self.leaves and (position - self.joins) % self.every == 0


LIVES: tuple[Mapping[str, Any], ...] = (
    {},
    {"joins": 10},
    {"joins": 20, "depth": 1.0},
    {"leaves": 30},
    {"every": 3, "depth": 1.0},
    {"joins": 10, "leaves": 30, "depth": 1.0},
)
"""One for each member of a case, in this order: what it shares its group with changes."""

TRAINING: tuple[Mapping[str, Any], ...] = (
    {"lr": 3e-3, "dead_feature_window": 3},
    {"lr": 1e-3, "lr_warm_up_steps": 8, "adam_beta1": 0.0, "dead_feature_window": 4},
    {"lr": 2e-3, "lr_schedule": "cosineannealing", "lr_decay_steps": 12, "dead_feature_window": 2},
    {"lr": 1e-2, "adam_beta1": 0.8, "adam_beta2": 0.95, "dead_feature_window": 1},
    {"lr": "auto", "lr_warm_up_steps": 1, "dead_feature_window": 2, "b_dec_init": "zeros"},
    {
        "lr": 3e-3,
        "lr_schedule": "cosineannealing",
        "lr_end": 1e-3,
        "lr_warm_up_steps": 5,
        "lr_decay_steps": 5,
        "adam_beta2": 0.9,
        "dead_feature_window": 1,
        "decoder_init_norm": None,
    },
)
"""What differs between the members of every case."""

_K = tuple({"k": k} for k in (4, 1, 8, 6, 3, 12))
_FRACTIONAL_K = tuple({"k": k} for k in (4, 1.3, 8, 5.5, 3, 12))
_AUX = tuple({"aux_loss_coefficient": c} for c in (1.0, 0.5, 1.0, 0.0, 2.0, 1 / 32))
_THRESHOLD = tuple({"topk_threshold_lr": lr} for lr in (0.01, 0.1, 0.05, 1.0, 0.01, 0.2))
_L1 = tuple(
    {"l1_coefficient": c, "l1_warm_up_steps": w}
    for c, w in ((0.5, 0), (0.1, 10), (1.0, 5), (0.0, 0), (0.3, 1), (0.2, 25))
)
_L0 = tuple(
    {"l0_coefficient": c, "l0_warm_up_steps": w, "jumprelu_bandwidth": b}
    for c, w, b in (
        (0.05, 0, 0.05),
        (0.1, 10, 0.2),
        (0.02, 5, 0.1),
        (0.0, 0, 0.05),
        (0.2, 1, 0.3),
        (0.03, 25, 0.15),
    )
)
_NO_SCALE = {"normalize_activations": "none", "apply_b_dec_to_input": False}
_MIXED: tuple[Mapping[str, Any], ...] = (
    {},
    _NO_SCALE,
    {"apply_b_dec_to_input": False},
    {},
    {"normalize_activations": "none"},
    {},
)
"""Settings that members of one group may differ in, too."""
_MODES: tuple[Mapping[str, Any], ...] = (
    {"jumprelu_sparsity_loss_mode": "tanh"},
    {"jumprelu_sparsity_loss_mode": "quadratic", "target_l0": 5, "l0_coefficient": 0.01},
    {"pre_act_loss_coefficient": 0.01},
    {"jumprelu_ste_to_input": True, "jumprelu_init_threshold": 0.1},
    {"pre_act_loss_coefficient": 0.1, "jumprelu_sparsity_loss_mode": "tanh"},
    {"jumprelu_ste_to_input": True, "jumprelu_sparsity_loss_mode": "tanh"},
)


@dataclass(frozen=True)
class Case:
    """Members of one architecture that are stepped as a group."""

    architecture: str
    common: Mapping[str, Any]
    own: tuple[tuple[Mapping[str, Any], ...], ...]
    """For each member in turn, one mapping of each of these."""

    def lives(self, dtype: str) -> Iterator[tuple[str, Life]]:
        for number, (life, training) in enumerate(zip(LIVES, TRAINING, strict=True)):
            parameters: dict[str, Any] = {"d_sae": D_SAE, **training}
            for mappings in self.own:
                parameters |= mappings[number]
            parameters |= {"dtype": dtype, "init_seed": number, **self.common}
            config = parse_architecture({"architecture": self.architecture, **parameters})
            yield f"m{number}", Life(config, **life)


_TOPK = (_K, _AUX)
_BATCHTOPK = (_FRACTIONAL_K, _AUX, _THRESHOLD)
_WIDTHS = tuple(
    {"matryoshka_widths": widths}
    for widths in (None, (8, 40), (5,), (16, 32, 48), (1, 2, 64), (60,))
)

CASES: dict[str, Case] = {
    "topk": Case("topk", {}, _TOPK),
    "topk-not-rescaled": Case("topk", {"rescale_acts_by_decoder_norm": False}, _TOPK),
    "topk-as-sae-lens-defaults": Case("topk", {**_NO_SCALE, "b_dec_init": "zeros"}, _TOPK),
    "topk-mixed": Case(
        "topk",
        {},
        (*_TOPK, _MIXED, tuple({"rescale_acts_by_decoder_norm": n % 2 == 0} for n in range(6))),
    ),
    "batchtopk": Case("batchtopk", {}, _BATCHTOPK),
    "batchtopk-not-rescaled": Case(
        "batchtopk", {"rescale_acts_by_decoder_norm": False}, _BATCHTOPK
    ),
    "batchtopk-mixed": Case("batchtopk", {}, (*_BATCHTOPK, _MIXED)),
    "matryoshka": Case("matryoshka_batchtopk", {}, _BATCHTOPK),
    "matryoshka-widths": Case("matryoshka_batchtopk", {}, (*_BATCHTOPK, _WIDTHS, _MIXED)),
    "matryoshka-aux-by-level": Case(
        "matryoshka_batchtopk", {"use_matryoshka_aux_loss": True}, (*_BATCHTOPK, _WIDTHS)
    ),
    "matryoshka-not-rescaled": Case(
        "matryoshka_batchtopk",
        {"rescale_acts_by_decoder_norm": False, "use_matryoshka_aux_loss": True},
        _BATCHTOPK,
    ),
    "standard": Case("standard", {}, (_L1,)),
    "standard-mixed": Case("standard", {}, (_L1, _MIXED)),
    "standard-l2": Case("standard", {"lp_norm": 2.0}, (_L1,)),
    "jumprelu": Case("jumprelu", {}, (_L0,)),
    "jumprelu-tanh": Case("jumprelu", {"jumprelu_sparsity_loss_mode": "tanh"}, (_L0,)),
    "jumprelu-quadratic": Case(
        "jumprelu",
        {"jumprelu_sparsity_loss_mode": "quadratic", "target_l0": 6.5, "l0_coefficient": 0.02},
        (_L0,),
    ),
    "jumprelu-mixed": Case("jumprelu", {}, (_L0, _MODES, _MIXED)),
    "gated": Case("gated", {}, (_L1,)),
    "gated-mixed": Case("gated", {}, (_L1, _MIXED)),
}
