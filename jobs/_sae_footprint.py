"""Memory and work of an SAE trial and of the language model it shares, from formulas alone."""

from __future__ import annotations

import logging
import re
from dataclasses import replace

from jobs.kind import Footprint
from sae.architectures import ArchitectureConfig
from sae.batched.memory import cpu_kernels, stepped_by_hand
from sae.hooks import hook_width, layer_of
from sae.memory import (
    copies_bytes,
    member_bytes,
    pack_memory,
    shared_bytes,
    step_flop_per_token,
    step_traffic_bytes_per_token,
)
from sae.model_shapes import ModelShape, known_shapes, truncated_flop_per_token
from sae.stream_spec import ModelSpec, StreamSpec

logger = logging.getLogger(__name__)

RUNTIME_BYTES = 600 * 2**20
"""A process with torch, transformers and sae_lens imported."""
_SIZE_IN_NAME = re.compile(r"(?<![a-z0-9])(\d+(?:\.\d+)?)(m|b)(?![a-z0-9])", re.IGNORECASE)
_GUESSED_PARAMETERS = 1e9


def footprint(stream: StreamSpec, config: ArchitectureConfig, ce_tokens: int) -> Footprint:
    """Peak bytes and work per token of one SAE and of the stream it trains on.

    A model whose precision the sweep leaves open is counted in float32, as it runs on a CPU. On a
    CPU memory is the batched backend's where that steps the SAE. On CUDA, where nobody has
    measured, it is the reference backend's with what a CPU's allocator keeps: the dearest there is.

    Args:
        ce_tokens: held-out tokens over which the loss recovered is measured at the end.
    """
    shape = known_shapes(stream.model) or _guessed_shape(stream.model)
    widths = {hook: hook_width(hook, shape) or shape.d_model for hook in stream.hooks}
    d_in = widths[config.hook] if config.hook in widths else max(widths.values())
    shared = shared_bytes(
        num_parameters=shape.num_parameters,
        model_dtype=stream.model.dtype or "float32",
        widths=tuple(widths.values()),
        block_tokens=stream.block_tokens * _num_blocks(stream),
        batch_tokens=stream.batch_tokens,
        held_out_tokens=stream.held_out_tokens,
        vocab_size=shape.vocab_size,
        ce_tokens=ce_tokens,
        lm_batch_tokens=stream.lm_batch_contexts * stream.data.context,
    )
    elsewhere = Footprint(
        trial_bytes=member_bytes(config, d_in=d_in, batch_tokens=stream.batch_tokens, device="cpu"),
        shared_bytes=shared + RUNTIME_BYTES,
        shared_flop_per_token=truncated_flop_per_token(
            shape, _deepest_layer(stream, shape), stream.data.context
        ),
        trial_flop_per_token=step_flop_per_token(config, d_in=d_in),
        trial_traffic_bytes_per_token=step_traffic_bytes_per_token(
            config, d_in=d_in, batch_tokens=stream.batch_tokens
        ),
        trial_is_bfloat16=config.autocast or config.dtype == "bfloat16",
    )
    on_cpu = _batched_on_cpu(elsewhere, config, d_in=d_in, batch_tokens=stream.batch_tokens)
    return replace(elsewhere, on_cpu=on_cpu)


def _batched_on_cpu(
    elsewhere: Footprint, config: ArchitectureConfig, *, d_in: int, batch_tokens: int
) -> Footprint | None:
    """The footprint where the batched backend steps; None where it does not."""
    kernels = cpu_kernels()
    if kernels is None or not stepped_by_hand(config):
        return None
    pack = pack_memory([config], d_in=d_in, batch_tokens=batch_tokens, kernels=kernels)
    once = pack.steps + pack.retained + copies_bytes(config, d_in=d_in)
    return replace(elsewhere, trial_bytes=pack.members, shared_bytes=elsewhere.shared_bytes + once)


def _num_blocks(stream: StreamSpec) -> int:
    """Shuffle blocks at a time: one is trained on, another one is made or written to disk."""
    return 2 if stream.overlap or stream.cache is not None else 1


def _deepest_layer(stream: StreamSpec, shape: ModelShape) -> int:
    layers = [layer_of(hook) for hook in stream.hooks]
    last = shape.num_layers - 1
    return min(last, max(last if layer is None else layer for layer in layers))


def _guessed_shape(model: ModelSpec) -> ModelShape:
    """Sizes for a model nobody has told them of: from a `7B` in its name, else of a billion.

    A transformer has about 12 * layers * width^2 weights (Kaplan et al. 2020, arXiv 2001.08361,
    table 1), and common ones have about a layer for each 64 of width.
    """
    found = _SIZE_IN_NAME.search(model.label)
    num_parameters = _GUESSED_PARAMETERS
    if found is not None:
        num_parameters = float(found[1]) * (1e9 if found[2].lower() == "b" else 1e6)
    d_model = max(64, 64 * round((num_parameters * 64 / 12) ** (1 / 3) / 64))
    num_layers = max(1, d_model // 64)
    logger.warning(
        "the sizes of model %s are not known here; counted as %.2gB parameters of width %d",
        model.label,
        num_parameters / 1e9,
        d_model,
    )
    return ModelShape(
        family="",
        d_model=d_model,
        num_layers=num_layers,
        vocab_size=50_000,
        num_parameters=int(num_parameters),
        max_context=2048,
        num_block_parameters=int(num_parameters / num_layers),
    )
