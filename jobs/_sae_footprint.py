"""Memory and work of an SAE trial and of the language model it shares, from formulas alone."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from jobs.kind import Footprint
from sae.architectures import ArchitectureConfig
from sae.batched.memory import cpu_kernels, cuda_kernels, stepped_by_hand
from sae.batched.step_shapes import Kernels, Shapes
from sae.batched.work import step_work
from sae.hooks import hook_width, layer_of
from sae.memory import (
    CUDA_RUNTIME_BYTES,
    copies_bytes,
    member_bytes,
    pack_memory,
    sae_lens_evaluation_bytes,
    shared_parts,
    step_flop_per_token,
    step_traffic_bytes_per_token,
)
from sae.model_shapes import ModelShape, known_shapes, truncated_flop_per_token
from sae.stream_spec import ModelSpec, StreamSpec

logger = logging.getLogger(__name__)

Device = Literal["cpu", "cuda"]

RUNTIME_BYTES: Mapping[Device, int] = {"cpu": 600 * 2**20, "cuda": CUDA_RUNTIME_BYTES}
"""On a CPU: a process with torch, transformers and sae_lens imported."""
MODEL_DTYPE: Mapping[Device, str] = {"cpu": "float32", "cuda": "bfloat16"}
"""Of a language model whose precision the sweep leaves open (`sae.language_model`)."""
_SIZE_IN_NAME = re.compile(r"(?<![a-z0-9])(\d+(?:\.\d+)?)(m|b)(?![a-z0-9])", re.IGNORECASE)
_GUESSED_PARAMETERS = 1e9


@dataclass(frozen=True)
class _Sae:
    """An SAE and what it is trained on."""

    config: ArchitectureConfig
    d_in: int
    batch_tokens: int
    device: Device


def footprint(stream: StreamSpec, config: ArchitectureConfig, ce_tokens: int) -> Footprint:
    """Peak bytes and work per token of one SAE and of the stream it trains on, on a GPU.

    What holds on a CPU is `on_cpu`. Either is that of the backend which steps the SAE there.

    Args:
        ce_tokens: held-out tokens over which the loss recovered is measured at the end.
    """
    shape = known_shapes(stream.model) or _guessed_shape(stream.model)
    widths = {hook: hook_width(hook, shape) or shape.d_model for hook in stream.hooks}
    d_in = widths[config.hook] if config.hook in widths else max(widths.values())

    def on(device: Device, kernels: Kernels | None) -> Footprint:
        sae = _Sae(config, d_in, stream.batch_tokens, device)
        by_hand = kernels is not None and stepped_by_hand(config)
        own = _batched(sae, kernels) if by_hand else _reference(sae)
        parts = _stream_parts(stream, shape, widths, ce_tokens, device)
        parts |= own.shared_parts
        parts["evaluation: sae_lens's"] = sae_lens_evaluation_bytes(
            config, context=stream.data.context
        )
        parts["libraries"] = RUNTIME_BYTES[device]
        layer = _deepest_layer(stream, shape)
        return replace(
            own,
            shared_bytes=sum(parts.values()),
            shared_parts=parts,
            shared_flop_per_token=truncated_flop_per_token(shape, layer, stream.data.context),
            trial_is_bfloat16=config.autocast or config.dtype == "bfloat16",
        )

    return replace(on("cuda", cuda_kernels()), on_cpu=on("cpu", cpu_kernels()))


def _stream_parts(
    stream: StreamSpec,
    shape: ModelShape,
    widths: Mapping[str, int],
    ce_tokens: int,
    device: Device,
) -> dict[str, int]:
    return shared_parts(
        num_parameters=shape.num_parameters,
        model_dtype=stream.model.dtype or MODEL_DTYPE[device],
        widths=tuple(widths.values()),
        block_tokens=stream.block_tokens * _num_blocks(stream, device),
        batch_tokens=stream.batch_tokens,
        held_out_tokens=stream.held_out_tokens,
        vocab_size=shape.vocab_size,
        ce_tokens=ce_tokens,
        lm_batch_tokens=stream.lm_batch_contexts * stream.data.context,
    )


def _batched(sae: _Sae, kernels: Kernels | None) -> Footprint:
    """An SAE that the batched backend steps: its own state, and what steps take once a pack."""
    assert kernels is not None
    config, device = sae.config, sae.device
    sizes = {"d_in": sae.d_in, "batch_tokens": sae.batch_tokens}
    pack = pack_memory([config], **sizes, kernels=kernels, device=device)
    own = Shapes(config, sae.d_in, sae.batch_tokens, kernels, dead_share=1.0)
    parts = {f"steps: {name}": num_bytes for name, num_bytes in pack.buffers.items()}
    work = step_work(config, **sizes)
    return Footprint(
        trial_bytes=pack.members,
        shared_bytes=0,
        trial_parts={
            "weights": int(2 * own.half),
            "moments": int(own.moments),
            "biases and counters": int(own.small),
        },
        shared_parts={
            **parts,
            "steps: temporaries": pack.passing,
            "steps: allocator": pack.retained,
            "copies": copies_bytes(config, d_in=sae.d_in, device=device),
        },
        trial_flop_per_token=work.dense_flop + work.sparse_flop,
        trial_traffic_bytes_per_token=work.least_bytes + work.again_bytes,
    )


def _reference(sae: _Sae) -> Footprint:
    """An SAE that sae_lens's trainer steps: each has a peak of its own."""
    config, d_in, batch_tokens = sae.config, sae.d_in, sae.batch_tokens
    return Footprint(
        trial_bytes=member_bytes(config, d_in=d_in, batch_tokens=batch_tokens, device=sae.device),
        shared_bytes=0,
        trial_flop_per_token=step_flop_per_token(config, d_in=d_in, batch_tokens=batch_tokens),
        trial_traffic_bytes_per_token=step_traffic_bytes_per_token(
            config, d_in=d_in, batch_tokens=batch_tokens
        ),
    )


def _num_blocks(stream: StreamSpec, device: Device) -> int:
    """Shuffle blocks at a time: one is trained on, another one is made or written to disk."""
    is_ahead = stream.overlap and device == "cuda"
    return 2 if is_ahead or stream.cache is not None else 1


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
