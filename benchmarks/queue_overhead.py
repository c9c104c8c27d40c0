"""How long a slot stands idle: from a trial's end to the next one's first step.

Runs a sweep of short trials on a tiny random model through `saeq run` (real Ray, real processes)
and reads the gaps off the sweep's log: each `started` event against the end that made room for it.
A warm worker is one that has run a trial before.

    python -m benchmarks.queue_overhead
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.report import save_report
from orchestrator.log.state import SweepState
from orchestrator.log.sweep_log import SweepLog
from orchestrator.store import Store
from tests.sae.tiny_model import build_tiny_model

SWEEP = """
name: overhead
job: sae_train
model: {{name: {model}}}
data: {{builtin: python-docs, context: 32}}
hooks: [model.layers.1]
tokens: 20k
batch_tokens: 256
held_out_tokens: 512
space:
  architecture: topk
  d_sae: 64
  k: 4
  lr: {{loguniform: [1.0e-4, 1.0e-2]}}
search: {{sampler: random, trials: {trials}}}
pack: {{members: {members}}}
"""


def gaps_s(state: SweepState, slots: int) -> list[float]:
    """Idle time of each slot before each trial after the first round, in seconds."""
    starts = sorted(t.started.at for t in state.trials.values() if t.started)
    ends = sorted(t.ended_at for t in state.trials.values() if t.ended_at is not None)
    return [start - end for start, end in zip(starts[slots:], ends, strict=False)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--members", type=int, default=2)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = build_tiny_model(Path(folder, "model"))
        file = Path(folder, "sweep.yaml")
        text = SWEEP.format(model=model, trials=arguments.trials, members=arguments.members)
        file.write_text(text)
        command = [sys.executable, "-m", "orchestrator.cli", "run", str(file)]
        command += ["--store", f"{folder}/store", "--plain"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        state = SweepLog(Store.open(f"{folder}/store"), "overhead").refresh()
    gaps = gaps_s(state, arguments.members)
    row = {
        "work": f"{arguments.trials} short trials on {arguments.members} slots, warm worker",
        "against": "goal: 1 s",
        "ours": round(statistics.median(gaps), 3),
        "theirs": 1.0,
        "unit": "s idle between trials, median",
        "ratio": round(statistics.median(gaps), 3),
        "worst": round(max(gaps), 3),
        "num_gaps": len(gaps),
    }
    save_report("queue_overhead", "cpu", [row])


if __name__ == "__main__":
    main()
