"""How long a trial stands still when its machine is taken away and another one has a slot.

Two `saeq serve` on one store work on a sweep of three trials with two slots each. In each round
the one that holds two of them is asked to go (SIGTERM: a preemption with notice) or switched off
(kill -9 of serve, driver and Ray: without notice), and the log says when the first of its trials
runs at the other. Then a new one takes its place.

    python -m benchmarks.handover --rounds 5
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from benchmarks.report import save_report
from orchestrator.log.events import Started
from orchestrator.log.state import SweepState
from tests.orchestrator.running import RunningServe, RunningSweep
from tests.sae.tiny_model import build_tiny_model

GOAL_S = {"with notice": 10.0, "without notice": 30.0}
GIVE_UP_AFTER_S = 240.0


class Pair:
    """Two serving processes, and the sweep that they share."""

    def __init__(self, folder: Path, undo: ExitStack) -> None:
        model = build_tiny_model(folder / "model")
        lrs = "1.0e-3"
        self.sweep = RunningSweep(
            folder, model, tokens="500M", lrs=lrs, members=2, report="200k", checkpoint_seconds=5
        )
        text = self.sweep.file.read_text().replace("choice: [4, 8]", "choice: [4, 8, 16]")
        self.sweep.file.write_text(text)
        self.sweep.submit()
        self._folder, self._undo = folder, undo
        self._num_started = 0
        self.serves: dict[int, subprocess.Popen[bytes]] = {}

    def start_another(self) -> None:
        self._num_started += 1
        output = self._folder / f"serve-{self._num_started}.txt"
        process = self._undo.enter_context(RunningServe(self.sweep.store, output).command())
        self.serves[process.pid] = process

    def serve_of(self, state: SweepState, holder: str) -> int | None:
        """Pid of the serving process whose driver that is."""
        driver = state.drivers.get(holder)
        if driver is None:
            return None
        return next((s for s in self.serves if driver.started.pid in descendants(s)), None)

    def wait_until_spread(self) -> SweepState:
        """Until all three run, two here and one there."""
        deadline = time.monotonic() + GIVE_UP_AFTER_S
        while time.monotonic() < deadline:
            state = self.sweep.state()
            trials = list(state.trials.values())
            going = [t for t in trials if t.status == "running" and t.checkpoint_tokens > 0]
            here = {t.holder for t in going if t.started and t.started.epoch == t.epoch}
            if len(going) == 3 and len(here) == 2:
                return state
            time.sleep(0.2)
        raise TimeoutError(f"the trials did not spread over two servers in {GIVE_UP_AFTER_S:.0f} s")


def descendants(pid: int) -> set[int]:
    """Processes below one, itself included."""
    listing = subprocess.run(
        ["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True
    ).stdout
    rows = [tuple(map(int, line.split())) for line in listing.splitlines()]
    found = {pid}
    while more := {child for child, parent in rows if parent in found} - found:
        found |= more
    return found


def hand_over_s(pair: Pair, *, notice: bool) -> float:
    """Take the server away that holds two trials; seconds until one of them runs elsewhere."""
    state = pair.wait_until_spread()
    holders = [trial.holder for trial in state.trials.values()]
    busiest = max(set(holders), key=holders.count)
    taken = {t.id: t.epoch for t in state.trials.values() if t.holder == busiest}
    serve = pair.serve_of(state, busiest)
    assert serve is not None
    process = pair.serves.pop(serve)
    asked = time.time()
    if notice:
        process.send_signal(signal.SIGTERM)
    else:
        for pid in descendants(serve):
            os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + GIVE_UP_AFTER_S
    while time.monotonic() < deadline:
        again = [
            event.at
            for event in pair.sweep.events()
            if isinstance(event, Started) and event.epoch > taken.get(event.trial, 10**9)
        ]
        if again:
            process.wait(timeout=GIVE_UP_AFTER_S)
            return min(again) - asked
        time.sleep(0.1)
    raise TimeoutError(f"no trial was taken over in {GIVE_UP_AFTER_S:.0f} s")


def measure(rounds: int, notice: bool) -> list[float]:
    """One sweep, `rounds` preemptions."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as undo:
        pair = Pair(Path(folder), undo)
        pair.start_another()
        seconds = []
        for _ in range(rounds):
            pair.start_another()
            seconds.append(hand_over_s(pair, notice=notice))
            print(f"{'with' if notice else 'without'} notice: {seconds[-1]:.1f} s", flush=True)
        for process in pair.serves.values():
            process.send_signal(signal.SIGTERM)
        for process in pair.serves.values():
            process.wait(timeout=GIVE_UP_AFTER_S)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    load_before = os.getloadavg()[0]
    rows = []
    for case, goal_s in GOAL_S.items():
        seconds = measure(rounds, notice=case == "with notice")
        median = statistics.median(seconds)
        rows.append(
            {
                "work": f"preemption {case} -> running elsewhere, {rounds} times",
                "against": f"goal: {goal_s:g} s",
                "ours": round(median, 2),
                "theirs": goal_s,
                "unit": "s, median",
                "ratio": round(median / goal_s, 3),
                "worst": round(max(seconds), 2),
                "load_before": round(load_before, 1),
            }
        )
    save_report("handover", "cpu", rows)


if __name__ == "__main__":
    main()
