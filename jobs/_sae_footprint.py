"""Memory and work of an SAE trial and of the language model it shares, from formulas alone."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence

from jobs.kind import Footprint
from sae.architectures import ArchitectureConfig
from sae.hooks import hook_width, layer_of
from sae.model_shapes import ModelShape, known_shapes, truncated_flop_per_token
from sae.stream_spec import ModelSpec, StreamSpec

logger = logging.getLogger(__name__)

BYTES_OF = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}
STEP_FLOP_PER_WEIGHT = 6.0
"""A forward and a backward pass: 2 + 4 floating point operations for each weight and token."""
RUNTIME_BYTES = 600 * 2**20
"""A process with torch, transformers and sae_lens imported."""
LOGIT_BYTES = 640 * 2**20
"""Logits of the losses at a trial's end: `sae.downstream` keeps 512 MiB and works on 128."""
EVALUATION_BYTES = 3 * 64 * 2**20
"""A chunk of held-out latents and what is derived from it; one member at a time."""
FORWARD_BUFFERS = 24
"""Tensors of [tokens, d_model] alive at the peak of a block's forward pass, its MLP included."""
_SIZE_IN_NAME = re.compile(r"(?<![a-z0-9])(\d+(?:\.\d+)?)(m|b)(?![a-z0-9])", re.IGNORECASE)
_GUESSED_PARAMETERS = 1e9


def footprint(stream: StreamSpec, config: ArchitectureConfig) -> Footprint:
    """Peak bytes and work per token of one SAE and of the stream it trains on.

    A trial: `peak_weight_buffers` for each of encoder and decoder (weight, gradient and Adam's
    two moments) and `peak_latent_buffers` of [batch, d_sae]. Where the sweep does not say in
    which precision the model runs, float32 is counted.
    """
    shape = known_shapes(stream.model) or _guessed_shape(stream.model)
    widths = {hook: hook_width(hook, shape) or shape.d_model for hook in stream.hooks}
    d_in = widths[config.hook] if config.hook in widths else max(widths.values())
    weights = 2 * d_in * config.d_sae
    trial_bytes = BYTES_OF[config.dtype] * (
        config.peak_weight_buffers * weights
        + config.peak_latent_buffers * stream.batch_tokens * config.d_sae
        + 8 * stream.batch_tokens * d_in
    )
    return Footprint(
        trial_bytes=int(trial_bytes),
        shared_bytes=_shared_bytes(stream, shape, list(widths.values())),
        shared_flop_per_token=truncated_flop_per_token(
            shape, _deepest_layer(stream, shape), stream.data.context
        ),
        trial_flop_per_token=STEP_FLOP_PER_WEIGHT * weights,
    )


def _shared_bytes(stream: StreamSpec, shape: ModelShape, widths: Sequence[int]) -> int:
    """The model, the shuffle block (twice while it is made), held-out activations, a forward."""
    size = BYTES_OF[stream.model.dtype or "float32"]
    width = sum(widths)
    blocks = 2 * stream.block_tokens * width * size
    held_out = stream.held_out_tokens * width * 4
    forward = stream.lm_batch_contexts * stream.data.context * shape.d_model * FORWARD_BUFFERS
    fixed = RUNTIME_BYTES + LOGIT_BYTES + EVALUATION_BYTES
    return shape.num_parameters * size + blocks + held_out + forward * size + fixed


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
