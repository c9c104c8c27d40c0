"""Memory of an SAE in training and of what it shares with its neighbours, from formulas alone.

Of the reference backend: the counts of buffers were fitted to the resident set of fresh processes
on a CPU (torch 2.13, sae_lens 6.54, d_in 576, d_sae 2048 and 8192, batches of 64 to 4096 tokens,
dead latents present in the top-k family; matryoshka_batchtopk at 2048 tokens alone), within 2% with
an allocator that gives back what is freed. `tests/sae/test_memory.py` holds them to 15%. Not
measured on CUDA. Of the batched backend: `sae.batched.memory`, counted from its code. On a CPU
whole packs are held to it (10%, `tests/sae/batched/test_pack_memory.py`), and live tensors of the
steps that CUDA takes, counted without a GPU (`tests/sae/batched/test_live_bytes.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from sae.architectures import ArchitectureConfig
from sae.batched.memory import PackMemory, batched_memory, stepped_by_hand
from sae.batched.step_shapes import Kernels, Shapes
from sae.batched.work import optimizer_flop

BYTES_BY_DTYPE = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}

OPTIMIZER_WEIGHT_BUFFERS = 5.9
"""Tensors of [d_sae, d_in] alive in Adam's step, for each of encoder and decoder: weight,
gradient and two moments make four, the rest are its temporaries."""
INPUT_BUFFERS = 3.2
"""Tensors of [batch, d_in] alive at the peak of a step's passes."""
FORWARD_BUFFERS = 24
"""Tensors of [tokens, width] alive in one layer of the language model, its MLP included; an
upper bound for the common families, not measured."""
MAX_LOGIT_BYTES = 128 * 2**20
"""Logits of one batch of contexts in an evaluation, in fp32."""
MAX_CLEAN_LOGIT_BYTES = 512 * 2**20
"""Clean logits kept for all members of a source; above it they are computed again each time."""
MAX_CHUNK_BYTES = 64 * 2**20
"""Latents of one chunk of held-out tokens in an evaluation, in fp32."""
SAE_LENS_CONTEXTS = 4
"""Contexts that sae_lens's evaluation of an export encodes at a time, unless they are too many."""
MAX_SAE_LENS_LATENT_BYTES = 256 * 2**20
"""Latents of so many contexts, in fp32; those of one context may be more."""
SAE_LENS_LATENT_BUFFERS = {"topk": 4, "standard": 4, "gated": 7}
"""Tensors of their latents that are alive at that evaluation's peak, by architecture; counted in
sae_lens 6.54. Others are exported as JumpReLU."""
JUMPRELU_LATENT_BUFFERS = 6
CUDA_RUNTIME_BYTES = 2**30
"""What CUDA takes of a device before any tensor, and what its allocator rounds up: a context with
torch's kernels (about half a GiB on recent GPUs), cuBLAS's workspace of each stream (8 MiB, 32 on
Hopper: torch's notes on CUDA, "cuBLAS workspaces"), blocks of 2 and 20 MiB (CUDACachingAllocator).
A sum of such figures, not measured."""
RETAINED_BY_ALLOCATOR = 1.42
"""Resident set over live tensors on the CPU: glibc keeps freed blocks of up to 32 MiB.

Varies between equal processes, from 1.25 to 1.58 in 20 of them (topk, d_sae 2048 and 8192, 512
tokens). Too high where tensors exceed 32 MiB and are given back: 1.1 at d_sae 8192, 2048 tokens.
"""


def member_bytes(
    config: ArchitectureConfig,
    *,
    d_in: int,
    batch_tokens: int,
    device: Literal["cpu", "cuda"] = "cuda",
) -> int:
    """Peak memory of one member where the reference backend steps it, in bytes.

    The larger of two peaks: the end of the forward pass and the optimizer's step, both over
    weights and moments. On the CPU what its allocator does not give back is added. Members of one
    pack are stepped in turn and do not peak together: their sum is on the safe side.

    Args:
        d_in: width of the activations.
        batch_tokens: tokens in a step's batch.
    """
    size = BYTES_BY_DTYPE[config.dtype]
    weights = size * 2 * d_in * config.d_sae
    latents = size * batch_tokens * config.d_sae
    inputs = size * batch_tokens * d_in
    passes = (
        config.peak_weight_buffers * weights
        + config.peak_latent_buffers * latents
        + INPUT_BUFFERS * inputs
    )
    # Both counts have two moments of Adam in them.
    spared = (2 * size - config.moment_bytes) * 2 * d_in * config.d_sae
    live = max(passes, OPTIMIZER_WEIGHT_BUFFERS * weights) - spared
    return int(live * (RETAINED_BY_ALLOCATOR if device == "cpu" else 1.0))


def pack_memory(
    configs: Sequence[ArchitectureConfig],
    *,
    d_in: int,
    batch_tokens: int,
    kernels: Kernels | None = "cpp",
    dead_share: float = 1.0,
    device: Literal["cpu", "cuda"] = "cpu",
) -> PackMemory:
    """Peak memory of members that train side by side, by the backend that steps each.

    The stream comes on top (`shared_bytes`), and what a checkpoint and an export copy
    (`copies_bytes`).

    Args:
        kernels: of the batched backend; None where sae_lens's trainer steps all.
        dead_share: share of latents that may be dead at once, for which auxiliary losses need
            room; at most all of them.
    """
    by_hand = [config for config in configs if kernels is not None and stepped_by_hand(config)]
    others = [config for config in configs if kernels is None or not stepped_by_hand(config)]
    memory = batched_memory(
        [
            Shapes(config, d_in, batch_tokens, kernels or "cpp", dead_share, device == "cuda")
            for config in by_hand
        ]
    )
    by_sae_lens = sum(
        member_bytes(config, d_in=d_in, batch_tokens=batch_tokens, device=device)
        for config in others
    )
    return replace(memory, members=memory.members + by_sae_lens)


def copies_bytes(
    config: ArchitectureConfig, *, d_in: int, device: Literal["cpu", "cuda"] = "cpu"
) -> int:
    """What a checkpoint and an export take beside the pack, one of each at a time, in bytes.

    A copy of weights and moments; a copy of the weights, and the weights that are loaded back. Of a
    GPU's memory only the last: the copies are on the host.
    """
    weights = 2 * d_in * config.d_sae
    weight_bytes = BYTES_BY_DTYPE[config.dtype]
    on_host = 2 * weight_bytes + config.moment_bytes if device == "cpu" else 0.0
    return int(weights * (weight_bytes + on_host))


def sae_lens_contexts(*, d_sae: int, context: int) -> int:
    """How many contexts of so many tokens sae_lens's evaluation of an export encodes at a time."""
    each = 4 * context * d_sae
    return max(1, min(SAE_LENS_CONTEXTS, MAX_SAE_LENS_LATENT_BYTES // each))


def sae_lens_evaluation_bytes(config: ArchitectureConfig, *, context: int) -> int:
    """What latents take in that evaluation, in bytes; one export is evaluated at a time."""
    num_contexts = sae_lens_contexts(d_sae=config.d_sae, context=context)
    buffers = SAE_LENS_LATENT_BUFFERS.get(config.architecture, JUMPRELU_LATENT_BUFFERS)
    return buffers * num_contexts * context * config.d_sae * 4


def shared_parts(
    *,
    num_parameters: int,
    model_dtype: str,
    widths: Sequence[int],
    block_tokens: int,
    batch_tokens: int,
    held_out_tokens: int,
    vocab_size: int,
    lm_batch_tokens: int,
    ce_tokens: int,
) -> dict[str, int]:
    """Memory that a pack pays once, however many members it has, in bytes by what it is for.

    The language model, its shuffle blocks in its precision, a batch and the held-out activations
    in fp32, one layer's forward pass, and what the evaluation of a finished member takes: a chunk
    of latents, the clean logits where they are kept, and a batch of contexts' logits three times
    (clean, edited, and their logarithms). A process's libraries come on top.

    Args:
        widths: width of the activations at each hook.
        block_tokens: activations in all shuffle blocks that are there at a time.
        held_out_tokens: activations kept aside for evaluation.
        lm_batch_tokens: tokens in one forward pass of the language model.
        ce_tokens: tokens over which losses are taken at the end.
    """
    size = BYTES_BY_DTYPE[model_dtype]
    logits = 4 * ce_tokens * vocab_size
    kept_logits = logits if logits <= MAX_CLEAN_LOGIT_BYTES else 0
    blocks = block_tokens * sum(widths) * size
    return {
        "language model": num_parameters * size,
        "its forward pass": FORWARD_BUFFERS * lm_batch_tokens * max(widths) * size,
        "activations": blocks + (batch_tokens + held_out_tokens) * sum(widths) * 4,
        "evaluation": kept_logits + 3 * min(logits, MAX_LOGIT_BYTES) + 3 * MAX_CHUNK_BYTES,
    }


def step_traffic_bytes_per_token(
    config: ArchitectureConfig, *, d_in: int, batch_tokens: int
) -> float:
    """Bytes of device memory that one training step reads and writes, a token.

    Every buffer of latents once each way. The weights thirteen times a step: read by the forward
    pass (1) and the backward one, which writes their gradients (2), measured and scaled by the
    clipping (3), and Adam's three tensors read and written, its gradient read (7).
    """
    size = BYTES_BY_DTYPE[config.dtype]
    weights = 13.0 * size * 2 * d_in * config.d_sae / batch_tokens
    latent_size = BYTES_BY_DTYPE["bfloat16"] if config.autocast else size
    return weights + 2.0 * config.peak_latent_buffers * latent_size * config.d_sae


def step_flop_per_token(config: ArchitectureConfig, *, d_in: int, batch_tokens: int) -> float:
    """Floating-point operations of one training step, a token.

    Encoder and decoder are a multiply and an add for each weight; the backward pass costs twice
    the forward one. What the optimizer multiplies is spread over the batch.
    """
    passes = 3.0 * 2.0 * 2.0 * d_in * config.d_sae
    return passes + optimizer_flop(config, d_in=d_in) / batch_tokens
