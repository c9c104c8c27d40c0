"""With autocast, members' steps are those that sae_lens's trainer takes under torch's autocast."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
import torch

from sae.batched.backend import BatchedStepper, family_of
from tests.sae.batched.autocast_rival import Bounds, Step, distances, faults, our_steps, their_steps
from tests.sae.batched.parity_cases import CASES, Life
from tests.sae.batched.test_parity import STEPPED_BY_SAE_LENS

CPU = torch.device("cpu")

WHERE_IT_ROUNDS = Bounds(firing=0.0, gradient=0.05, slope=5e-4, update=1e-3, loss=3e-5)
"""torch's kernels round where sae_lens does: pre-activations are equal bit for bit, and so is what
fires. What is left is whether sums are rounded before they are added up or after."""
ELSEWHERE = Bounds(firing=1e-3, gradient=0.1, slope=2e-3, update=5e-3, loss=1e-2)
"""Levels are decoded one by one, a gated SAE's magnitudes come from the gate's product, and C++
adds up in float32 what sae_lens has rounded, and picks others of equals."""


def bounds_of(case: str, kernels: str) -> Bounds:
    dense = case.startswith(("standard", "jumprelu"))
    exact = case.startswith(("topk", "batchtopk")) and kernels == "torch"
    return WHERE_IT_ROUNDS if dense or exact else ELSEWHERE


@cache
def lives_of(case: str) -> dict[str, Life]:
    return {
        name: replace(life, config=life.config.model_copy(update={"autocast": True}))
        for name, life in CASES[case].lives("float32")
    }


if __name__ == "__main__":
    import sys, os, time

    os.environ["SAEQ_KERNELS"] = sys.argv[1]
    for case in sys.argv[2:] or sorted(CASES):
        if case in STEPPED_BY_SAE_LENS:
            continue
        t = time.time()
        o = our_steps(lives_of(case))
        th = their_steps(lives_of(case), o)
        ex = their_steps(lives_of(case), o, exact=True)
        f = faults(o, th, AS_SAE_LENS)
        d1, d2 = distances(o, th), distances(o, ex)
        print(
            case,
            f"{time.time() - t:.1f}s",
            len(f),
            f[:6],
            {k: (f"{d1[k]:.1e}", f"{d2[k]:.1e}") for k in d1},
        )
