"""Memory of an SAE in training and of what it shares with its neighbours, from formulas alone.

The counts of buffers were fitted to the resident set of fresh processes on a CPU (torch 2.13,
sae_lens 6.54, d_in 576, d_sae 2048 and 8192, batches of 64 to 4096 tokens, dead latents present
in the top-k family), within 2%; `tests/sae/test_memory.py` holds them to 15%.
"""

from __future__ import annotations

from typing import Literal

from sae.architectures import ArchitectureConfig

BYTES_BY_DTYPE = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}

OPTIMIZER_WEIGHT_BUFFERS = 11.8
"""Tensors of [d_sae, d_in] alive in Adam's step: weight, gradient and two moments for encoder
and decoder make eight, the rest are its temporaries."""
INPUT_BUFFERS = 3.2
"""Tensors of [batch, d_in] alive at the peak of a step's passes."""
RETAINED_BY_ALLOCATOR = 1.25
"""On the CPU glibc keeps freed blocks of up to 32 MiB: resident set over live tensors, fitted."""


def member_bytes(
    config: ArchitectureConfig,
    *,
    d_in: int,
    batch_tokens: int,
    device: Literal["cpu", "cuda"] = "cuda",
) -> int:
    """Peak memory of one member stepped by the reference backend, in bytes.

    The larger of two peaks: the end of the forward pass and the optimizer's step, both over
    weights and moments. On the CPU what its allocator does not give back is added.

    Args:
        d_in: width of the activations.
        batch_tokens: tokens in a step's batch.
    """
    size = BYTES_BY_DTYPE[config.dtype]
    weight = size * d_in * config.d_sae
    latents = size * batch_tokens * config.d_sae
    inputs = size * batch_tokens * d_in
    passes = (
        config.peak_weight_buffers * weight
        + config.peak_latent_buffers * latents
        + INPUT_BUFFERS * inputs
    )
    live = max(passes, OPTIMIZER_WEIGHT_BUFFERS * weight)
    return int(live * (RETAINED_BY_ALLOCATOR if device == "cpu" else 1.0))


def shared_bytes(
    *,
    num_parameters: int,
    model_dtype: str,
    d_in_by_hook: dict[str, int],
    block_tokens: int,
    batch_tokens: int,
    held_out_tokens: int,
    vocab_size: int,
    ce_tokens: int = 2048,
    lm_batch_tokens: int = 2048,
    num_blocks: int = 2,
) -> int:
    """Memory that a pack pays once, however many members it has, in bytes.

    The language model, the shuffled blocks in the model's precision, a batch and the held-out
    activations in fp32, and the clean logits that the last evaluation keeps (if they are below
    512 MiB) beside one batch's worth of others.

    Args:
        block_tokens: activations in one shuffle block.
        held_out_tokens: activations kept aside for evaluation.
        ce_tokens: tokens whose clean logits the evaluation keeps.
        lm_batch_tokens: tokens in one forward pass of the language model.
        num_blocks: blocks in memory at once.
    """
    size = BYTES_BY_DTYPE[model_dtype]
    width = sum(d_in_by_hook.values())
    widest = max(d_in_by_hook.values(), default=0)
    clean_logits = 4 * ce_tokens * vocab_size
    if clean_logits > 512 * 2**20:
        clean_logits = 0
    one_batch_of_logits = 3 * 128 * 2**20
    # Queries, keys, values, the MLP's two inner activations: a dozen widths a token and layer
    # at most, of one layer at a time, since no gradients are kept.
    forward = 12 * size * lm_batch_tokens * widest
    return (
        num_parameters * size
        + num_blocks * block_tokens * width * size
        + (batch_tokens + held_out_tokens) * width * 4
        + forward
        + clean_logits
        + min(one_batch_of_logits, 3 * 4 * ce_tokens * vocab_size)
    )


def step_flop_per_token(config: ArchitectureConfig, *, d_in: int) -> float:
    """Floating-point operations of one training step, a token.

    Encoder and decoder are a multiply and an add for each weight; the backward pass costs twice
    the forward one.
    """
    return 3.0 * 2.0 * 2.0 * d_in * config.d_sae
