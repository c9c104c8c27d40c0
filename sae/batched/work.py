"""Work of batched steps, from shapes alone: arithmetic, and bytes of device memory that move.

No torch: plans are made with this, and `benchmarks.roofline` holds measurements to it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from sae.architectures import ArchitectureConfig
from sae.architectures.base import MUON_ITERATIONS, TopKFamilyConfig
from sae.architectures.gated import GatedConfig
from sae.architectures.jumprelu import JumpReluConfig
from sae.batched.step_shapes import BFLOAT16_BYTES, BYTES_BY_DTYPE

RANKING_PASSES = 8
"""Over the pre-activations, beyond the one that reads them: keys are written and weighed by a norm,
and torch's radix selection reads them once for each of 4 digits and once to collect."""
WEIGHT_PASSES = {"standard": 9.0, "gated": 13.0, "jumprelu": 7.5, "tanh": 9.0}
"""Over both weights, Adam's moments left out; counted by operation, as the next."""
LATENT_PASSES = {"standard": 20, "gated": 48, "jumprelu": 33, "tanh": 52}
DENSE_PRODUCTS = {"standard": 5, "gated": 8, "jumprelu": 5, "tanh": 5}
"""Products of [batch, d_in] and [d_in, d_sae]: pre-activations, reconstruction, the pull on the
latents, two gradients; gated reconstructs twice."""
MUON_PASSES = 32
"""Over both weights, beside gradient, weight and moment: the direction is made of two (3), read by
its norm, scaled (2) and read to move the weight; each of the five iterations takes its matrix four
times and writes the next one."""


@dataclass(frozen=True)
class StepWork:
    """One member's step, a token."""

    dense_flop: float
    sparse_flop: float
    """On the few latents that fire."""
    least_bytes: float
    """What no step can do without moving."""
    again_bytes: float
    """What ours moves again, if no cache holds it."""


def step_work(config: ArchitectureConfig, *, d_in: int, batch_tokens: int) -> StepWork:
    """Work of a configuration that the batched backend steps.

    Args:
        d_in: width of the activations.
        batch_tokens: tokens in a step's batch, over which the weights' traffic is spread.
    """
    work = _dense_or_topk(config, d_in, batch_tokens)
    if config.optimizer != "muon":
        return work
    operand = BFLOAT16_BYTES if config.autocast else BYTES_BY_DTYPE[config.dtype]
    passes = MUON_PASSES * operand * 2.0 * d_in * config.d_sae
    return replace(
        work,
        dense_flop=work.dense_flop + optimizer_flop(config, d_in=d_in) / batch_tokens,
        again_bytes=work.again_bytes + passes / batch_tokens,
    )


def optimizer_flop(config: ArchitectureConfig, *, d_in: int) -> float:
    """Of the matrix products in one step of the optimizer: Muon's iterations on both weights.

    Each takes the square of the matrix, the square's own square, and the square times the matrix.
    """
    if config.optimizer != "muon":
        return 0.0
    shorter, longer = sorted((float(d_in), float(config.d_sae)))
    return 2 * MUON_ITERATIONS * (4 * shorter**2 * longer + 2 * shorter**3)


def _dense_or_topk(config: ArchitectureConfig, d_in: int, batch_tokens: int) -> StepWork:
    if isinstance(config, TopKFamilyConfig):
        return _topk(config, d_in, batch_tokens)
    name = "standard"
    if isinstance(config, GatedConfig):
        name = "gated"
    elif isinstance(config, JumpReluConfig):
        name = "tanh" if config.jumprelu_sparsity_loss_mode == "tanh" else "jumprelu"
    size = BYTES_BY_DTYPE[config.dtype]
    num_weights = 2.0 * d_in * config.d_sae
    weights = WEIGHT_PASSES[name] * size + 2 * config.moment_bytes
    return StepWork(
        dense_flop=DENSE_PRODUCTS[name] * num_weights,
        sparse_flop=0.0,
        least_bytes=weights * num_weights / batch_tokens
        + LATENT_PASSES[name] * size * config.d_sae
        + 4.0 * size * d_in,
        again_bytes=0.0,
    )


def _topk(config: TopKFamilyConfig, d_in: int, batch_tokens: int) -> StepWork:
    """Only the encoder's forward pass is dense.

    Pre-activations are written once and read once to be ranked. Encoder and decoder are read once
    each, their gradients written and read by the norm, and Adam reads gradient, parameter and
    moments and writes all but the gradient. With autocast encoder, decoder and inputs are copied
    to bfloat16 first: written and read once more, in half the bytes.

    Again: rows of the decoder (twice), of errors and of inputs that entries gather, norms of
    decoder rows, the encoder for the input's bias.
    """
    size = BYTES_BY_DTYPE[config.dtype]
    num_weights, k = 2.0 * d_in * config.d_sae, config.sparsity
    copied = 2 * BFLOAT16_BYTES if config.autocast else 0
    weights = (1 + 2 + 3) * size + copied + 2 * config.moment_bytes
    latents = float((BFLOAT16_BYTES if config.autocast else size) * config.d_sae)
    return StepWork(
        dense_flop=num_weights,
        sparse_flop=4 * 2.0 * d_in * k,
        least_bytes=weights * num_weights / batch_tokens
        + 2 * latents
        + (4.0 * size + copied) * d_in,
        again_bytes=size * num_weights / batch_tokens
        + RANKING_PASSES * latents
        + 4.0 * size * d_in * k,
    )
