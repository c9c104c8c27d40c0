"""One report on held-out activations: sae_lens's forward pass, and the batched step's own kernels.

Shapes of the demo: 8192 held-out tokens of width 576. Both sides in one process, in turns; medians.

    python -m benchmarks.held_out_report
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from benchmarks.report import save_report
from sae.architectures import parse_architecture
from sae.batched.backend import BatchedStepper
from sae.evaluation import report_metrics
from sae.member import REFERENCE_STEPPER, Member, Stepper
from tests.sae.synthetic_source import SyntheticSource

D_IN, CONTEXTS = 576, 512


def seconds(member: Member, source: SyntheticSource, stepper: Stepper) -> float:
    member.stepper = stepper
    start = time.perf_counter()
    report_metrics(member, source)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=15)
    arguments = parser.parse_args()
    source = SyntheticSource(d_in=D_IN, held_out_contexts=CONTEXTS)
    own = BatchedStepper(torch.device("cpu"))
    rows = []
    for architecture, d_sae in (("topk", 1024), ("topk", 4096), ("batchtopk", 4096)):
        config = {"architecture": architecture, "k": 32, "d_sae": d_sae, "lr": 1e-4}
        member = Member.from_source(parse_architecture(config), source, 10**6)
        num_tokens = len(source.held_out.activations(member.hook))
        times: dict[str, list[float]] = {"ours": [], "theirs": []}
        for repeat in range(arguments.repeats + 1):
            for side, stepper in (("theirs", REFERENCE_STEPPER), ("ours", own)):
                taken = seconds(member, source, stepper)
                if repeat:  # the first one warms up
                    times[side].append(taken)
        ours, theirs = (statistics.median(times[side]) for side in ("ours", "theirs"))
        row = {"work": f"{architecture}, d_sae {d_sae}, {num_tokens} tokens", "unit": "s"}
        row |= {"against": "sae_lens's encode and decode, same chunks"}
        rows.append({**row, "ours": ours, "theirs": theirs, "ratio": theirs / ours})
        print(f"{row['work']}: {theirs / ours:.2f}x ({ours * 1e3:.0f} ms)")
    save_report("held_out_report", "cpu", rows)


if __name__ == "__main__":
    main()
