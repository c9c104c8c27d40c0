"""How much of their time slots work: many short trials through a real `saeq run`.

Trials of a known length (they wait, so that the measured loss is not one of shared cores) run on
four slots, with Ray, processes, reports, checkpoints and artefacts as in any sweep. Two shares are
read off the sweep's log: of the time from the first trial's start to the last one's end, how much
the slots spent on trials' own seconds (the goal: 95% at 60 s), and how much each part of the rest
took: trials' beginnings and ends, gaps between two trials of a slot, the tail in which there are
fewer trials left than slots.

    python -m benchmarks.embedding_throughput                          64 trials of 60 s: 17 minutes
    python -m benchmarks.embedding_throughput --trials 16 --seconds 5  a try
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.report import save_report
from orchestrator.log.state import SweepState
from orchestrator.log.sweep_log import SweepLog
from orchestrator.store import Store

TRIALS, SECONDS, SLOTS = 64, 60.0, 4
GOAL = 0.95
SWEEP = """
name: throughput
job: timed
seconds: {seconds}
space: {{quality: {{uniform: [0.0, 1.0]}}}}
search: {{sampler: random, trials: {trials}, seed: 0}}
pack: {{members: {slots}}}
"""


def run(trials: int, seconds: float, slots: int) -> SweepState:
    """The sweep's log after a real run."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "sweep.yaml")
        file.write_text(SWEEP.format(seconds=seconds, trials=trials, slots=slots))
        command = [sys.executable, "-m", "orchestrator.cli", "run", str(file)]
        command += ["--store", f"{folder}/store", "--plain"]
        # Workers start elsewhere: they find this module by the path alone.
        root = str(Path(__file__).parents[1])
        environment = {**os.environ, "SAEQ_KINDS": "benchmarks.timed_kind", "PYTHONPATH": root}
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
        return SweepLog(Store.open(f"{folder}/store"), "throughput").refresh()


def shares(state: SweepState, seconds: float, slots: int) -> dict[str, Any]:
    """Of the slots' time, what went into work and what into the rest.

    Raises SystemExit if a trial did not finish: the figures would mean nothing.
    """
    ended = {t.id: t for t in state.trials.values() if t.status == "finished"}
    others = {t.id: t.status for t in state.trials.values() if t.id not in ended}
    if others:
        raise SystemExit(f"not all trials finished: {others}")
    starts = sorted(float(t.first_started_at or 0) for t in ended.values())
    ends = sorted(float(t.ended_at or 0) for t in ended.values())
    leases = {t.id: t.leased_at for t in ended.values()}
    whole = slots * (ends[-1] - starts[0])
    worked = seconds * len(ended)
    gaps = [start - end for start, end in zip(starts[slots:], ends, strict=False)]
    within = sum(ends) - sum(starts) - worked
    tail = sum(ends[-1] - end for end in ends[-slots:])
    ramp = sum(start - starts[0] for start in starts[:slots])
    begun = [float(t.first_started_at or 0) - leases[t.id] for t in ended.values()]
    return {
        "worked": worked / whole,
        "within_trials": within / whole,
        "between_trials": sum(gaps) / whole,
        "ramp": ramp / whole,
        "tail": tail / whole,
        "gap_median_s": statistics.median(gaps) if gaps else 0.0,
        "gap_worst_s": max(gaps, default=0.0),
        "lease_to_start_median_s": statistics.median(begun),
        "overhead_within_trial_s": within / len(ended),
        "steady": worked / (whole - tail - ramp),
    }


def report_row(found: Mapping[str, Any], trials: int, seconds: float, slots: int) -> dict[str, Any]:
    """As `benchmarks/results` keeps it."""
    return {
        "work": f"{trials} trials of {seconds:g} s of work on {slots} slots",
        "against": "goal",
        "ours": round(found["worked"], 3),
        "theirs": GOAL,
        "unit": "share of the slots' time that was work",
        "ratio": round(found["worked"] / GOAL, 3),
        **{name: round(value, 4) for name, value in found.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=TRIALS)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="Of work, a trial.")
    parser.add_argument("--slots", type=int, default=SLOTS)
    arguments = parser.parse_args()
    trials, seconds, slots = arguments.trials, arguments.seconds, arguments.slots
    found = shares(run(trials, seconds, slots), seconds, slots)
    for name, value in found.items():
        print(f"{name:28s} {value:.3f}" if name.endswith("_s") else f"{name:28s} {value:.1%}")
    is_full = (trials, seconds, slots) == (TRIALS, SECONDS, SLOTS)
    row = report_row(found, trials, seconds, slots)
    save_report("embedding_throughput", "cpu", [row], keep=is_full)


if __name__ == "__main__":
    main()
