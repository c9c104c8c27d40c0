"""Run by test_live_bytes with TRITON_INTERPRET=1: what running kernels takes."""

from __future__ import annotations

import pytest

from tests.sae.batched.measure_steps import live_memory
from tests.sae.batched.test_live_bytes import TOPK_FAMILY, config_of

D_IN, D_SAE, BATCH_TOKENS = 16, 48, 8
"""The interpreter takes about 10 ms a program."""
INTERPRETERS_BYTES = 4 * BATCH_TOKENS * D_IN - 32
"""It holds on to the last arguments until they are collected: scalars, a bias or two. Less than any
buffer of a step, of which [batch, d_in] is the smallest."""


@pytest.mark.parametrize("architecture", [*TOPK_FAMILY, "standard"])
def test_programs_allocate_nothing(architecture: str) -> None:
    config = config_of(architecture, d_sae=D_SAE)
    run, not_run = (
        live_memory([config], d_in=D_IN, batch_tokens=BATCH_TOKENS, kernels=kernels)
        for kernels in ("interpreted", "triton")
    )
    assert run.num_dead == not_run.num_dead
    for ours, theirs in ((run.members, not_run.members), (run.steps, not_run.steps)):
        assert abs(ours - theirs) <= INTERPRETERS_BYTES
