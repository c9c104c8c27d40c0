"""Peak memory of members that the batched backend steps, measured in the process this is run in.

Run as a script in a fresh process, with one `PackCase` as JSON.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from sae.architectures import parse_architecture
from sae.batched.backend import BatchedBackend
from sae.member import Member
from tests.sae.measure_memory import resident_bytes
from tests.sae.synthetic_source import SyntheticSource, small_config

SUNK = 0.7
"""Share of latents that stop firing half-way, so that few enough do for lists of them."""


@dataclass(frozen=True)
class PackCase:
    """Members of a pack, and how they are stepped."""

    configs: tuple[dict[str, Any], ...]
    """Trial parameters, one mapping a member."""
    d_in: int
    batch_tokens: int
    num_steps: int = 3


@dataclass(frozen=True)
class PackPeak:
    """What a process came to."""

    peak_bytes: int
    """Growth of the resident set, over building the members and stepping them."""
    dead_share: float
    """Of the latents of the member with most dead ones, before its last step."""


def measure(case: PackCase) -> PackPeak:
    """Build the members and step them."""
    source = SyntheticSource(
        d_in=case.d_in, batch_tokens=case.batch_tokens, held_out_contexts=1, num_planted=64
    )
    configs = [parse_architecture(parameters) for parameters in case.configs]
    for architecture in {config.architecture for config in configs}:
        warm_up(architecture, source)
    batches = [source.batch_at(position)["layer"] for position in range(case.num_steps)]
    mean_D, scale = source.mean("layer"), source.scale("layer")
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before = resident_bytes("VmRSS")
    members = {
        str(number): Member(
            config,
            hook="layer",
            d_in=case.d_in,
            total_tokens=100 * case.batch_tokens,
            batch_tokens=case.batch_tokens,
            scale=scale,
            mean_D=mean_D,
        )
        for number, config in enumerate(configs)
    }
    backend = BatchedBackend()
    dead_share = 0.0
    for position, batch_BD in enumerate(batches):
        if position == case.num_steps - 1:
            dead_share = max(
                float(member.trainer.dead_neurons.float().mean()) for member in members.values()
            )
            sink(members)
        failures = backend.step(members, batch_BD, position)
        assert not failures, failures
    return PackPeak(resident_bytes("VmHWM") - before, dead_share)


def warm_up(architecture: str, source: SyntheticSource) -> None:
    """Let libraries take what they take once, so that it is not counted as the members'."""
    member = Member.from_source(small_config(architecture), source, 100 * source.batch_tokens)
    backend = BatchedBackend()
    for position in range(2):
        backend.step({"m": member}, source.batch_at(position)["layer"], position)


def sink(members: dict[str, Member]) -> None:
    """Let ReLU-like SAEs come to where lists of what fires are kept, as they do in training."""
    for member in members.values():
        if member.config.fixes_l0:
            continue
        for name, parameter in member.sae.named_parameters():
            if name in ("b_enc", "b_gate"):
                parameter.data[: int(SUNK * len(parameter))] -= 100.0


if __name__ == "__main__":
    torch.set_num_threads(1)
    given = json.loads(sys.argv[1])
    found = measure(PackCase(**{**given, "configs": tuple(given["configs"])}))
    sys.stdout.write(json.dumps(asdict(found)))
