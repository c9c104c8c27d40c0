"""Eight SAEs a step on ready activations, no language model: sae_lens's trainer in a loop, ours.

Both sides hold the same initial weights and see the same batches: a planted sparse dictionary plus
noise. Rounds alternate; a row's figure is the median round, in milliseconds a step of all SAEs.

    python -m benchmarks.steps
    python -m benchmarks.steps --only topk-8192 --repeats 3 --steps 5

Shape suffixes: B = tokens in the batch, D = d_in, P = planted directions.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks.report import save_report
from sae.architectures import parse_architecture
from sae.batched.backend import BatchedBackend
from sae.member import Member
from sae.step_backend import ReferenceBackend, StepBackend

D_IN = 576
BATCH_TOKENS = 1024
NUM_MEMBERS = 8
NUM_BATCHES = 8
NUM_PLANTED = 2048
NUM_ACTIVE = 30
IDLE_LOAD = 1.0
"""Processes already running when we start, above which wall-clock times mean little."""


@dataclass(frozen=True)
class Row:
    """One architecture at one width."""

    architecture: str
    d_sae: int
    parameters: dict[str, Any]

    @property
    def name(self) -> str:
        mode = self.parameters.get("jumprelu_sparsity_loss_mode")
        return "-".join(str(part) for part in (self.architecture, mode, self.d_sae) if part)


ROWS = (
    Row("topk", 2048, {"k": 32}),
    Row("topk", 8192, {"k": 32}),
    Row("batchtopk", 2048, {"k": 32}),
    Row("matryoshka_batchtopk", 2048, {"k": 32}),
    Row("standard", 2048, {"l1_coefficient": 5.0}),
    Row("jumprelu", 2048, {"l0_coefficient": 1.0}),
    Row("jumprelu", 2048, {"l0_coefficient": 5.0, "jumprelu_sparsity_loss_mode": "tanh"}),
    Row("gated", 2048, {"l1_coefficient": 5.0}),
)


class Activations:
    """Batches that are drawn once and then only read."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        planted_PD = torch.randn(NUM_PLANTED, D_IN, generator=generator)
        planted_PD /= planted_PD.norm(dim=1, keepdim=True)
        mean_D = 2 * torch.randn(D_IN, generator=generator)
        self.batches = [self._draw(planted_PD, mean_D, generator) for _ in range(NUM_BATCHES)]
        self.mean_D = self.batches[0].mean(0)
        self.scale = float(D_IN**0.5 / self.batches[0].norm(dim=1).mean())

    def _draw(self, planted_PD: Tensor, mean_D: Tensor, generator: torch.Generator) -> Tensor:
        scores_BP = torch.rand(BATCH_TOKENS, NUM_PLANTED, generator=generator)
        size_BP = 1 + 2 * torch.rand(BATCH_TOKENS, NUM_ACTIVE, generator=generator)
        index_BP = scores_BP.topk(NUM_ACTIVE, dim=1).indices
        code_BP = torch.zeros_like(scores_BP).scatter_(1, index_BP, size_BP)
        noise_BD = 0.1 * torch.randn(BATCH_TOKENS, D_IN, generator=generator)
        return code_BP @ planted_PD + mean_D + noise_BD


class Side:
    """Eight members of a row and who steps them."""

    def __init__(self, row: Row, activations: Activations, backend: StepBackend) -> None:
        self._backend, self._activations, self._position = backend, activations, 0
        self._members = {str(seed): _member(row, activations, seed) for seed in range(NUM_MEMBERS)}

    def run(self, num_steps: int) -> float:
        """Milliseconds a step of all members."""
        start_s = time.perf_counter()
        for _ in range(num_steps):
            batch_BD = self._activations.batches[self._position % NUM_BATCHES]
            failures = self._backend.step(self._members, batch_BD, self._position)
            for failure in failures.values():
                raise failure
            self._position += 1
        return (time.perf_counter() - start_s) / num_steps * 1000

    def losses(self) -> list[float]:
        """Mean training loss of each member since the start."""
        return [member.losses.report()["loss"] for member in self._members.values()]


def _member(row: Row, activations: Activations, seed: int) -> Member:
    shared = {"architecture": row.architecture, "d_sae": row.d_sae, "lr": 1e-3, "init_seed": seed}
    return Member(
        parse_architecture({**shared, **row.parameters}),
        hook="ready",
        d_in=D_IN,
        total_tokens=10**6 * BATCH_TOKENS,
        batch_tokens=BATCH_TOKENS,
        scale=activations.scale,
        mean_D=activations.mean_D,
    )


def compare(row: Row, activations: Activations, arguments: argparse.Namespace) -> dict[str, Any]:
    """Alternate the two sides and take medians."""
    makers: dict[str, Callable[[], StepBackend]] = {
        "ours": BatchedBackend,
        "theirs": ReferenceBackend,
    }
    sides = {name: Side(row, activations, make()) for name, make in makers.items()}
    for side in sides.values():
        side.run(arguments.warm_up)
    rounds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(arguments.repeats):
        for name, side in sides.items():
            rounds[name].append(side.run(arguments.steps))
    ours, theirs = (statistics.median(rounds[name]) for name in ("ours", "theirs"))
    losses = {name: side.losses() for name, side in sides.items()}
    worst = max(abs(a / b - 1) for a, b in zip(losses["ours"], losses["theirs"], strict=True))
    print(f"{row.name}: ours {ours:.0f} ms, sae_lens {theirs:.0f} ms, losses within {worst:.1e}")
    return {
        "work": f"{NUM_MEMBERS} {row.name}, batch {BATCH_TOKENS}, d_in {D_IN}, ready activations",
        "against": "SAELens SAETrainer.step in a loop",
        "ours": round(ours, 1),
        "theirs": round(theirs, 1),
        "unit": "ms a step of all",
        "ratio": round(theirs / ours, 2),
        "losses_differ_by": worst,
        "runs": {name: [round(each, 1) for each in times] for name, times in rounds.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--steps", type=int, default=5, help="in a round")
    parser.add_argument("--warm-up", type=int, default=2, help="steps before the first round")
    parser.add_argument("--only", choices=[row.name for row in ROWS], action="append", default=[])
    arguments = parser.parse_args()
    load = os.getloadavg()[0]
    if load > IDLE_LOAD:
        print(f"the machine is busy (load {load:.1f}): these figures compare its neighbours")
    activations = Activations()
    chosen = [row for row in ROWS if not arguments.only or row.name in arguments.only]
    rows = [{**compare(row, activations, arguments), "load_at_start": load} for row in chosen]
    # A run of some rows must not take the place of one of all.
    save_report("steps", "cpu", rows, keep=not arguments.only)


if __name__ == "__main__":
    main()
