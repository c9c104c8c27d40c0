"""How faithful and how sparse a member is on held-out activations.

Shape suffixes: N = held-out tokens, D = d_in, F = d_sae.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sae.activation_source import ActivationSource
from sae.downstream import DEFAULT_CE_TOKENS, downstream_metrics
from sae.member import Forward, Member
from sae.memory import MAX_CHUNK_BYTES

MAX_CPU_CHUNK_TOKENS = 1024
"""Larger intermediate results leave the processor's caches, and each is fresh memory."""


class ReconstructionTally:
    """Sums over chunks of held-out tokens, in fp64 on the device; one host sync at the end.

    Explained variance is 1 - E||x - xhat||^2 / Var(x) over all tokens and dimensions at once,
    Var(x) = E||x||^2 - ||E x||^2, as sae_lens 6.54's `ExplainedVarianceCalculator` has it.
    """

    def __init__(self, d_in: int, d_sae: int, device: torch.device) -> None:
        self._num_tokens = 0
        self._sum_D = torch.zeros(d_in, dtype=torch.float64, device=device)
        self._ever_fired_F = torch.zeros(d_sae, dtype=torch.bool, device=device)
        self._sums = torch.zeros(5, dtype=torch.float64, device=device)

    def add(self, x_ND: Tensor, fired_F: Tensor, reconstruction_ND: Tensor) -> None:
        """Count one chunk.

        Args:
            fired_F: how many tokens of the chunk each latent fired for.
        """
        x_ND, xhat_ND = x_ND.double(), reconstruction_ND.double()
        norm_N, norm_hat_N = x_ND.norm(dim=-1), xhat_ND.norm(dim=-1)
        dot_N = (x_ND * xhat_ND).sum(dim=-1)
        self._num_tokens += len(x_ND)
        self._sum_D += x_ND.sum(dim=0)
        self._ever_fired_F |= fired_F > 0
        self._sums += torch.stack(
            [
                norm_N.pow(2).sum(),
                (x_ND - xhat_ND).pow(2).sum(),
                fired_F.sum().double(),
                (dot_N / (norm_N * norm_hat_N).clamp(min=1e-12)).sum(),
                (norm_hat_N / norm_N.clamp(min=1e-12)).sum(),
            ]
        )

    def metrics(self) -> dict[str, float]:
        """Explained variance, fvu, l0, silent_fraction, mse, cosine and norm_ratio."""
        mean_D = self._sum_D / self._num_tokens
        squared_norm, mse, l0, cosine, ratio = (self._sums / self._num_tokens).tolist()
        variance = squared_norm - float(mean_D.pow(2).sum())
        fvu = mse / variance if variance > 0 else (0.0 if mse == 0 else float("inf"))
        return {
            "fvu": fvu,
            "explained_variance": 1.0 - fvu,
            "l0": l0,
            "silent_fraction": 1.0 - float(self._ever_fired_F.double().mean()),
            "mse": mse,
            "cosine": cosine,
            "norm_ratio": ratio,
        }


@torch.no_grad()
def reconstruction_metrics(forward: Forward, x_ND: Tensor, d_sae: int) -> dict[str, float]:
    """Reconstruction and sparsity over all of `x_ND`, in chunks that bound the memory."""
    tally = ReconstructionTally(x_ND.shape[-1], d_sae, x_ND.device)
    size = max(64, MAX_CHUNK_BYTES // (4 * d_sae))
    if x_ND.device.type == "cpu":
        size = min(size, MAX_CPU_CHUNK_TOKENS)
    for first in range(0, len(x_ND), size):
        chunk_ND = x_ND[first : first + size]
        tally.add(chunk_ND, *forward(chunk_ND))
    return tally.metrics()


def member_forward(member: Member, *, exported: bool) -> Forward:
    """A member on raw activations; its weights are not copied.

    Args:
        exported: the batchtopk family with its learned threshold, as the exported SAE runs, not
            with the batch's top k. The threshold is a running mean that starts at zero: for its
            first hundred steps or so it says nothing about the SAE.
    """
    sae, scale, config = member.sae, member.scale, member.config
    own = None if exported else member.stepper.forward_of(member)
    if own is not None:
        return own
    latents = config.inference_latents if exported else config.training_latents

    def forward(x_ND: Tensor) -> tuple[Tensor, Tensor]:
        scaled_ND = x_ND.to(sae.device, sae.dtype) * scale
        latents_NF = latents(sae, scaled_ND)
        return (latents_NF != 0).sum(dim=0), sae.decode(latents_NF) / scale

    return forward


def exported_forward(sae: Any) -> Forward:
    """An exported sae_lens SAE on raw activations."""

    def forward(x_ND: Tensor) -> tuple[Tensor, Tensor]:
        latents_NF = sae.encode(x_ND.to(sae.device))
        return (latents_NF != 0).sum(dim=0), sae.decode(latents_NF)

    return forward


def report_metrics(
    member: Member, source: ActivationSource, *, exported: bool = False
) -> dict[str, float]:
    """The cheap numbers of one report; needs no forward pass of the language model.

    Args:
        exported: as the exported SAE does, see `member_forward`; a report in training is of the
            SAE as it is trained.

    Returns:
        `sae.metric_names.REPORTED`. `mse` sums over dimensions and is in the units of the raw
        activations; `dead_fraction` counts latents that no training batch fired for longer than
        `dead_feature_window` steps, `silent_fraction` those that no held-out token fires. The
        losses since the last report are left out of a member that has not stepped yet.
    """
    x_ND = source.held_out.activations(member.hook).to(member.device)
    metrics = reconstruction_metrics(
        member_forward(member, exported=exported), x_ND, member.config.d_sae
    )
    metrics["dead_fraction"] = float(member.trainer.dead_neurons.float().mean())
    return {**metrics, **member.losses.report()}


def full_metrics(
    member: Member, source: ActivationSource, *, ce_tokens: int = DEFAULT_CE_TOKENS
) -> dict[str, float]:
    """The cheap numbers, and what replacing the activation does to the model's predictions.

    Args:
        ce_tokens: kept held-out tokens over which the losses are taken.
    """
    forward = member_forward(member, exported=True)
    downstream = downstream_metrics(
        lambda x_ND: forward(x_ND)[1], source, member.hook, ce_tokens=ce_tokens
    )
    return {**report_metrics(member, source, exported=True), **downstream}
