"""Whether a job that has to go should come back: `python -m orchestrator.slurm.after_serve`.

The exit code answers: 0, there is work for it; 3, there is none; 4, it came to nothing too often.
Any other (the store does not answer) is no answer: then it comes back.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

from orchestrator.log.sweep_log import SweepLog
from orchestrator.log.sweep_status import sweep_status
from orchestrator.nodes.stages import Mark, parse_lines
from orchestrator.queue import Queue
from orchestrator.slurm.demand import Demand
from orchestrator.store import Store
from orchestrator.trials.leases import SILENT_AFTER_S

WORK, NO_WORK, FRUITLESS = 0, 3, 4
MAX_FRUITLESS = 3
"""Starts in a row that ran into the time limit before the first report: so will the next one."""
LOOK_AGAIN_S = 2.0


def main() -> None:
    """Entry of the process."""
    parser = argparse.ArgumentParser(prog="python -m orchestrator.slurm.after_serve")
    parser.add_argument("store")
    parser.add_argument("stages", type=Path)
    arguments = parser.parse_args()
    fruitless = num_fruitless(parse_lines(arguments.stages.read_text(errors="replace")))
    if fruitless >= MAX_FRUITLESS:
        sys.stdout.write(
            f"its time limit came {fruitless} times in a row before a first report; raise --time\n"
        )
        sys.exit(FRUITLESS)
    store = Store.open(arguments.store)
    why_not = why_no_work(store)
    sys.stdout.write(f"{why_not}\n" if why_not else "")
    sys.exit(NO_WORK if why_not else WORK)


def num_fruitless(marks: list[Mark]) -> int:
    """Starts in a row, up to the present one, without a first report; preempted ones do not count.

    Args:
        marks: all that the job's stages file holds, of all its starts.
    """
    starts: list[list[Mark]] = []
    for mark in marks:
        if mark.stage == "allocated":
            starts.append([])
        if starts:
            starts[-1].append(mark)
    count = 0
    for start in reversed(starts):
        if any(mark.stage == "report" for mark in start):
            break
        count += not any(m.stage == "ended" and "preempted" in m.detail for m in start)
    return count


def why_no_work(
    store: Store,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> str:
    """Empty if the queue has a trial that nobody alive holds, else why there is none.

    Takes up to 25 s: so long it is before a holder that died counts as gone. Raises StoreError.
    """
    demand, deadline = Demand(store), clock() + SILENT_AFTER_S + 2 * LOOK_AGAIN_S
    while demand.num_trials() == 0:
        if not _somebody_works(store):
            return "the queue is empty"
        if clock() > deadline:
            return "others hold all that is left"
        sleep(LOOK_AGAIN_S)
    return ""


def _somebody_works(store: Store) -> bool:
    for queued in Queue(store).all():
        if sweep_status(queued.spec.trials, SweepLog(store, queued.id).refresh()) == "running":
            return True
    return False


if __name__ == "__main__":
    main()
