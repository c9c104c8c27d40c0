"""Peak memory of members' training steps, measured in the process that this is run in.

Run as a script in a fresh process, with a JSON list of `peak_bytes`'s arguments.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from sae.architectures import parse_architecture
from sae.member import Member
from tests.sae.synthetic_source import SyntheticSource

NUM_STEPS = 4


def resident_bytes(field: str) -> int:
    """`VmRSS` (now) or `VmHWM` (peak) of this process, in bytes."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    line = next(line for line in lines if line.startswith(f"{field}:"))
    return 1024 * int(line.split()[1])


def peak_bytes(parameters: dict[str, object], d_in: int, batch_tokens: int) -> int:
    """Growth of the resident set at its peak, over building a member and stepping it."""
    source = SyntheticSource(d_in=d_in, batch_tokens=batch_tokens, held_out_contexts=1)
    warm_up(source)
    batches = [source.batch_at(position)["layer"] for position in range(NUM_STEPS)]
    mean_D, scale = source.mean("layer"), source.scale("layer")
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before = resident_bytes("VmRSS")
    member = Member(
        parse_architecture(parameters),
        hook="layer",
        d_in=d_in,
        total_tokens=100 * batch_tokens,
        batch_tokens=batch_tokens,
        scale=scale,
        mean_D=mean_D,
    )
    for position, batch_BD in enumerate(batches):
        member.step(batch_BD, position)
    return resident_bytes("VmHWM") - before


def warm_up(source: SyntheticSource) -> None:
    """Let libraries take what they take once, so that it is not counted as the member's."""
    config = parse_architecture({"architecture": "topk", "d_sae": 16, "k": 2})
    member = Member.from_source(config, source, 100 * source.batch_tokens)
    for position in range(2):
        member.step(source.batch_at(position)["layer"], position)


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.stdout.write(json.dumps([peak_bytes(**request) for request in json.loads(sys.argv[1])]))
