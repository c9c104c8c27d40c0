"""A step of eight topk SAEs on ready activations: EleutherAI's sparsify with Adam, and ours.

Theirs is the body of `sparsify.Trainer` for one SAE after another, on one device without gradient
accumulation: unit decoder rows, forward, FVU, backward, gradients' parallel part off, Adam. Ours is
the pack's step backend. No language model on either side; the two alternate and medians count.

    pip install --no-deps eai-sparsify natsort schedulefree     # beside what saeq itself needs
    python -m benchmarks.vs_sparsify
    python -m benchmarks.vs_sparsify --d-sae 2048 --steps 2 --repeats 1

Shape suffixes: B = tokens in the batch, D = d_in.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from benchmarks.report import save_report
from benchmarks.vs_saelens import IDLE_LOAD, wait
from sae.architectures import parse_architecture
from sae.batched.backend import BatchedBackend
from sae.language_model import resolve_device
from sae.member import Member

D_IN = 576
K = 32
NUM_SAES = 8
BATCH_TOKENS = 1024
LR = 3e-4
HOW_TO_GET_IT = "sparsify is not installed: pip install --no-deps eai-sparsify natsort schedulefree"

Step = Callable[[Tensor, int], None]


def sparsify_step(
    d_sae: int, device: str, *, d_in: int = D_IN, num_saes: int = NUM_SAES, k: int = K
) -> Step:
    """One step of each of the SAEs as `sparsify.Trainer.fit` takes it."""
    if device == "cpu":
        # Where Triton is installed sparsify decodes with it, on a CPU too, where it cannot run.
        os.environ["SPARSIFY_DISABLE_TRITON"] = "1"
    sparsify: Any = import_module("sparsify")
    config = sparsify.SparseCoderConfig(num_latents=d_sae, k=k)
    coders = [sparsify.SparseCoder(d_in, config, device=device) for _ in range(num_saes)]
    optimizers = [torch.optim.Adam(coder.parameters(), lr=LR) for coder in coders]

    def step(batch_BD: Tensor, position: int) -> None:
        del position
        for coder, optimizer in zip(coders, optimizers, strict=True):
            coder.set_decoder_norm_to_unit_norm()
            coder(batch_BD).fvu.backward()
            coder.remove_gradient_parallel_to_decoder_directions()
            optimizer.step()
            optimizer.zero_grad()

    return step


def our_step(d_sae: int, device: str) -> Step:
    """One step of a group of members."""
    config = parse_architecture(
        {
            "architecture": "topk",
            "d_sae": d_sae,
            "k": K,
            "lr": LR,
            "normalize_activations": "none",
            "b_dec_init": "zeros",
        }
    )
    members = {
        f"m{number}": Member(
            config.model_copy(update={"init_seed": number}),
            hook="layer",
            d_in=D_IN,
            total_tokens=10**6 * BATCH_TOKENS,
            batch_tokens=BATCH_TOKENS,
            scale=1.0,
            mean_D=torch.zeros(D_IN),
            device=device,
        )
        for number in range(NUM_SAES)
    }
    backend = BatchedBackend(device)

    def step(batch_BD: Tensor, position: int) -> None:
        failures = backend.step(members, batch_BD, position)
        assert not failures, failures

    return step


def batches(device: str) -> list[Tensor]:
    """Activations of a planted sparse code; sizes with a heavy tail."""
    generator = torch.Generator().manual_seed(0)
    planted = torch.randn(2 * D_IN, D_IN, generator=generator) / D_IN**0.5
    made = []
    for _ in range(4):
        chance = torch.rand(BATCH_TOKENS, len(planted), generator=generator)
        size_B = torch.randn(BATCH_TOKENS, generator=generator).mul(0.5).exp()
        code = (chance > 0.98).float() * 4
        noise_BD = 0.1 * torch.randn(BATCH_TOKENS, D_IN, generator=generator)
        made.append((size_B[:, None] * (code @ planted) + noise_BD).to(device))
    return made


def milliseconds(step: Step, ready: Sequence[Tensor], num_steps: int, device: str) -> float:
    """Mean time of a step of all SAEs."""
    wait(device)
    start = time.perf_counter()
    for position in range(num_steps):
        step(ready[position % len(ready)], position)
    wait(device)
    return 1e3 * (time.perf_counter() - start) / num_steps


def compare(d_sae: int, device: str, *, num_steps: int, repeats: int) -> dict[str, Any]:
    """One row: both sides warm up, then alternate."""
    ready = batches(device)
    sides = {"ours": our_step(d_sae, device), "theirs": sparsify_step(d_sae, device)}
    for step in sides.values():
        milliseconds(step, ready, 2, device)
    runs: dict[str, list[float]] = {side: [] for side in sides}
    for repeat in range(repeats):
        for side, step in sides.items():
            runs[side].append(milliseconds(step, ready, num_steps, device))
            print(f"d_sae {d_sae}, repeat {repeat + 1}: {side} {runs[side][-1]:.1f} ms")
    median = {side: statistics.median(times) for side, times in runs.items()}
    return {
        "work": f"a step of {NUM_SAES} topk SAEs, d_sae {d_sae}, k {K}, ready activations",
        "against": "sparsify SparseCoder with Adam, one after the other",
        "ours": round(median["ours"], 2),
        "theirs": round(median["theirs"], 2),
        "unit": "ms",
        "ratio": round(median["theirs"] / median["ours"], 3),
        "runs": {side: [round(run, 2) for run in times] for side, times in runs.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--d-sae", type=int, action="append", default=[])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--steps", type=int, default=10, help="timed together")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--no-save", action="store_true", help="print the rows only")
    arguments = parser.parse_args()
    if find_spec("sparsify") is None:
        parser.error(HOW_TO_GET_IT)
    load = os.getloadavg()[0]
    if load > IDLE_LOAD:
        print(f"the machine is busy (load {load:.1f}): these figures compare its neighbours")
    device = resolve_device(arguments.device).type
    rows = [
        {
            **compare(d_sae, device, num_steps=arguments.steps, repeats=arguments.repeats),
            "load_at_start": round(load, 2),
        }
        for d_sae in arguments.d_sae or (2048, 8192)
    ]
    save_report("vs_sparsify", device, rows, keep=not arguments.no_save)


if __name__ == "__main__":
    main()
