"""What gpu.py runs at which size, how it is timed, and what a chip would allow: the roofline.

Shape suffixes: B = tokens in the batch, D = d_in, F = latents.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from transformers import GPT2Config

from benchmarks.vs_saelens import wait
from sae.architectures.topk import TopKConfig
from sae.batched.work import step_work

WARM_UP_STEPS = 3
REPEATS = 3
MAX_STEPS = 100


@dataclass(frozen=True)
class Scale:
    """How large everything is."""

    device: str
    d_sae: int
    k: int
    batch_tokens: int
    counts: tuple[int, ...]
    step_widths: tuple[int, ...]
    """Columns of ready activations."""
    model: GPT2Config
    layer: int
    block_batches: int
    """Batches that the language model makes at a time."""
    saelens_batches: int
    """By how many a longer training is longer than a short one, over the number of SAEs."""
    round_s: float
    """Seconds of one timed round, about."""
    matmul: int
    copy_bytes: int
    autocast: bool = False
    """Whether SAEs' products are taken in bfloat16."""

    @property
    def product_dtype(self) -> torch.dtype:
        return torch.bfloat16 if self.autocast else torch.float32

    @property
    def hook(self) -> str:
        return f"transformer.h.{self.layer}"


FULL = Scale(
    device="cuda",
    d_sae=24576,
    k=32,
    batch_tokens=4096,
    counts=(1, 4, 8, 16, 32),
    step_widths=(768, 4096),
    model=GPT2Config(bos_token_id=0, eos_token_id=1),
    layer=8,
    block_batches=16,
    saelens_batches=120,
    round_s=0.7,
    matmul=8192,
    copy_bytes=2**31,
)
DRY = Scale(
    device="cpu",
    d_sae=96,
    k=4,
    batch_tokens=64,
    counts=(1, 2),
    step_widths=(24,),
    model=GPT2Config(
        bos_token_id=0, eos_token_id=1, n_embd=24, n_layer=2, n_head=2, n_positions=128,
        vocab_size=600,
    ),
    layer=1,
    block_batches=2,
    saelens_batches=20,
    round_s=0.01,
    matmul=64,
    copy_bytes=2**16,
)  # fmt: skip


@dataclass(frozen=True)
class Rates:
    """What this chip reached."""

    flop_s: float
    """Matrix product in float32, as torch is set."""
    bf16_flop_s: float
    bytes_s: float
    """Read and written in a copy."""

    @classmethod
    def measured(cls, scale: Scale) -> Rates:
        source = torch.zeros(scale.copy_bytes, dtype=torch.uint8, device=scale.device)
        target = torch.empty_like(source)
        copy_s = seconds(partial(target.copy_, source), scale)
        return cls(
            flop_s=product_flop_s(scale, torch.float32),
            bf16_flop_s=product_flop_s(scale, torch.bfloat16),
            bytes_s=2 * scale.copy_bytes / copy_s,
        )


def product_flop_s(scale: Scale, dtype: torch.dtype) -> float:
    """Of two large square matrices."""
    size = scale.matmul
    left = torch.randn(size, size, device=scale.device, dtype=dtype)
    right = torch.randn(size, size, device=scale.device, dtype=dtype)
    return 2 * size**3 / seconds(partial(torch.mm, left, right), scale)


@dataclass(frozen=True)
class Roofline:
    """What a training step of one topk SAE cannot do without."""

    dense_flop: float
    """The encoder's forward pass."""
    sparse_flop: float
    """Decoder, pull on the latents, both gradients: k latents a token each."""
    bytes: float
    autocast: bool
    """Whether the dense part is in bfloat16; all else is in float32 in either case."""

    @classmethod
    def of(cls, scale: Scale, d_in: int) -> Roofline:
        """By `sae.batched.work`. Rows of the decoder, of errors and of inputs that are gathered
        again are taken to come from the cache.
        """
        config = TopKConfig(d_sae=scale.d_sae, k=scale.k, autocast=scale.autocast)
        work = step_work(config, d_in=d_in, batch_tokens=scale.batch_tokens)
        return cls(
            dense_flop=work.dense_flop * scale.batch_tokens,
            sparse_flop=work.sparse_flop * scale.batch_tokens,
            bytes=work.least_bytes * scale.batch_tokens,
            autocast=scale.autocast,
        )

    def row(self, rates: Rates, measured_s: float) -> dict[str, float]:
        """For a report: the least seconds that a step may take, and our share of that."""
        dense_flop_s = rates.bf16_flop_s if self.autocast else rates.flop_s
        compute_s = self.dense_flop / dense_flop_s + self.sparse_flop / rates.flop_s
        memory_s = self.bytes / rates.bytes_s
        return {
            "step_gflop": round((self.dense_flop + self.sparse_flop) / 1e9, 3),
            "step_gbyte": round(self.bytes / 1e9, 4),
            "compute_ms": round(1e3 * compute_s, 4),
            "memory_ms": round(1e3 * memory_s, 4),
            "measured_ms": round(1e3 * measured_s, 4),
            # The matrix product and the passes over memory come one after the other.
            "share_of_roofline": round((compute_s + memory_s) / measured_s, 3),
        }


def seconds(step: Callable[[], object], scale: Scale) -> float:
    """Of one step: median of rounds, after a warm-up."""

    def round_of(num_steps: int) -> float:
        wait(scale.device)
        start = time.perf_counter()
        for _ in range(num_steps):
            step()
        wait(scale.device)
        return (time.perf_counter() - start) / num_steps

    round_of(WARM_UP_STEPS)
    num_steps = max(1, min(MAX_STEPS, int(scale.round_s / max(round_of(1), 1e-6))))
    return statistics.median(round_of(num_steps) for _ in range(REPEATS))


def encoder_row(scale: Scale, d_in: int, rates: Rates) -> dict[str, float]:
    """The dense part alone: its share of what matrix products reach in float32 and bfloat16.

    With autocast a weight's copy to bfloat16 is timed beside it.
    """
    dtype, device = scale.product_dtype, scale.device
    master_DF = torch.randn(d_in, scale.d_sae, device=device)
    x_BD = torch.randn(scale.batch_tokens, d_in, device=device).to(dtype)
    W_enc_DF = master_DF.to(dtype, copy=True)
    pre_BF = torch.empty(scale.batch_tokens, scale.d_sae, device=device, dtype=dtype)
    taken_s = seconds(lambda: torch.mm(x_BD, W_enc_DF, out=pre_BF), scale)
    flop_s = Roofline.of(scale, d_in).dense_flop / taken_s
    copied = {}
    if scale.autocast:
        copied["copy_ms"] = round(1e3 * seconds(lambda: W_enc_DF.copy_(master_DF), scale), 4)
    return {
        "ms": round(1e3 * taken_s, 4),
        **copied,
        "share_of_float32_peak": round(flop_s / rates.flop_s, 3),
        "share_of_bf16_peak": round(flop_s / rates.bf16_flop_s, 3),
    }
