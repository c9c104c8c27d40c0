"""What the store costs: replaying a big sweep, submitting many, listing them; folder and S3.

The S3 is a real server on this machine (SeaweedFS), so the figures hold what the protocol and the
client cost, and no network. Everything runs in processes of its own, as a user's commands do.

    python -m benchmarks.store                   both places, 2,000 trials, 500 sweeps
    python -m benchmarks.store --places folder --trials 200 --sweeps 50
"""

from __future__ import annotations

import argparse
import datetime
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from benchmarks.report import save_report
from orchestrator.log.events import Checkpointed, Finished, Leased, Reported, Started, Suggested
from orchestrator.log.sweep_log import LogWriter, SweepLog
from orchestrator.queue import Queue
from orchestrator.spec.sweep import parse_sweep
from orchestrator.store import Store
from tests.orchestrator.store.servers import s3_server

PLACES = ["folder", "seaweedfs"]
NUM_TRIALS, NUM_SWEEPS = 2000, 500
NUM_REPORTS = 25
NUM_DRIVERS = 4
NUM_REPEATS = 3
LOG_LIMIT_S = 0.6
"""A hundredth of a trial of one minute, which is a short one."""
METRICS = ("fvu", "explained_variance", "l0", "dead_fraction", "mse", "cosine", "loss")
SWEEP = """
name: {name}
job: sae_train
model: {{builtin: smollm2-135m}}
data: {{builtin: python-docs}}
hooks: [model.layers.10]
tokens: 50k
batch_tokens: 1000
space:
  architecture: topk
  d_sae: 1024
  k: {{choice: [16, 32]}}
  lr: {{choice: [1.0e-4, 1.0e-3]}}
search: {{sampler: grid}}
"""
OPEN = """
import sys, time
from orchestrator.log.sweep_log import SweepLog
from orchestrator.store import Store
log = SweepLog(Store.open(sys.argv[1]), "big")
"""
MEASURE = """
wall, cpu = time.perf_counter(), time.process_time()
state = log.refresh()
print(time.perf_counter() - wall, time.process_time() - cpu)
assert state.counts == {"finished": int(sys.argv[2])}, state.counts
"""
REPLAY = OPEN + MEASURE
POLL = OPEN + "log.refresh()" + MEASURE


def trial_events(number: int, num_reports: int) -> list[Any]:
    """What a driver writes about a trial that is trained to its end."""
    trial = f"t{number:04d}"
    about: dict[str, Any] = {"trial": trial, "epoch": 1}
    config = {"architecture": "topk", "d_sae": 1024, "k": 16, "lr": 1e-3 + number / 1e6}
    events: list[Any] = [
        Suggested(trial=trial, number=number, config=config, total_tokens=50_000),
        Leased(**about),
        Started(**about, node="n1", device="gpu 0", pack="p1", usd_per_hour=1.0),
    ]
    at_place = {"pack": "p1", "pid": 1, "members": 4, "lm_tokens_per_second": 1234.5}
    metrics = dict.fromkeys(METRICS, 0.123456789)
    for turn in range(1, num_reports + 1):
        tokens = 50_000 * turn // num_reports
        rung = tokens if turn in (3, 9) else None
        events.append(Reported(**about, tokens=tokens, metrics=metrics, rung=rung,
                               stratum="k=16", at_place=at_place))  # fmt: skip
        events.append(Checkpointed(**about, tokens=tokens))
    return [*events, Finished(**about, artefact=trial, metrics=metrics, tokens=50_000)]


def write_trials(store: Store, sweep: str, num_trials: int, num_reports: int) -> None:
    writers = [LogWriter(store, sweep) for _ in range(min(NUM_DRIVERS, num_trials))]
    for number in range(num_trials):
        writers[number % len(writers)].append(*trial_events(number, num_reports))


def write_one_by_one(store: Store) -> None:
    """A trial's log as its driver writes it: each event when it happens, after reading the log."""
    log = SweepLog(store, "big", LogWriter(store, "big"))
    log.refresh()
    for event in trial_events(NUM_TRIALS * 2, NUM_REPORTS):
        log.append(event)
        log.refresh()


def submit_many(store: Store, num_sweeps: int) -> None:
    """As `saeq submit` does, one after the other."""
    queue = Queue(store)
    for number in range(num_sweeps):
        text = SWEEP.format(name=f"sweep-{number}")
        queue.submit(parse_sweep(text), text)


@dataclass(frozen=True)
class Spent:
    """Seconds on the clock, and of the processor: the latter tells more on a busy machine."""

    wall_s: float
    cpu_s: float


def spent_by(work: Callable[[], object]) -> Spent:
    """What a piece of work took here and in the processes it started."""
    wall, before = time.perf_counter(), os.times()
    work()
    after = os.times()
    return Spent(time.perf_counter() - wall, sum(after[:4]) - sum(before[:4]))


def printed(code: str, *arguments: str) -> Spent:
    """Two numbers that a script prints about itself."""
    line = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(line, capture_output=True, text=True, check=True)
    wall_s, cpu_s = map(float, done.stdout.split())
    return Spent(wall_s, cpu_s)


def saeq_ls(url: str) -> None:
    line = [sys.executable, "-m", "orchestrator.cli", "ls", "--store", url]
    subprocess.run(line, capture_output=True, check=True)


def median(measure: Callable[[], Spent]) -> Spent:
    return sorted((measure() for _ in range(NUM_REPEATS)), key=lambda spent: spent.wall_s)[
        NUM_REPEATS // 2
    ]


def rows_of(place: str, url: str, num_trials: int, num_sweeps: int) -> Iterator[dict[str, Any]]:
    """Measure one place. The goals are those of the project's issue; None where it has none."""
    limits = {"folder": (5.0, 30.0, 1.0), "seaweedfs": (15.0, 30.0, None)}[place]
    big, many = Store.open(_below(url, "big")), Store.open(_below(url, "many"))
    num_events = num_trials * len(trial_events(0, NUM_REPORTS))
    spent = spent_by(lambda: write_trials(big, "big", num_trials, NUM_REPORTS))
    yield row(f"write a log of {num_events} events, a trial at once", place, spent, None)
    spent = median(lambda: printed(REPLAY, big.url, str(num_trials)))
    yield row(f"replay {num_trials} finished trials", place, spent, limits[0])
    spent = median(lambda: printed(POLL, big.url, str(num_trials)))
    yield row("poll that log when nothing is new", place, spent, None)
    one = Store.open(_below(url, "one"))
    spent = median(lambda: spent_by(lambda: write_one_by_one(one)))
    yield row("log of one trial, an event at a time", place, spent, LOG_LIMIT_S)
    spent = spent_by(lambda: submit_many(many, num_sweeps))
    yield row(f"submit {num_sweeps} sweeps", place, spent, limits[1])
    spent = median(lambda: spent_by(lambda: saeq_ls(many.url)))
    yield row(f"saeq ls over {num_sweeps} queued sweeps", place, spent, limits[2])
    for number in range(num_sweeps):
        write_trials(many, f"sweep-{number}", 4, 5)
    spent = spent_by(lambda: saeq_ls(many.url))
    yield row(f"saeq ls over {num_sweeps} finished sweeps, first time", place, spent, None)
    spent = median(lambda: spent_by(lambda: saeq_ls(many.url)))
    yield row(f"saeq ls over {num_sweeps} finished sweeps", place, spent, limits[2])


def row(work: str, place: str, spent: Spent, limit_s: float | None) -> dict[str, Any]:
    ours = f"{spent.wall_s:8.3f} s ({spent.cpu_s:.3f} s of processor)"
    print(f"{place:10} {work:52} {ours}" + (f", goal {limit_s:g} s" if limit_s else ""), flush=True)
    return {
        "work": work,
        "against": f"the goal, {place}",
        "ours": round(spent.wall_s, 4),
        "theirs": limit_s,
        "unit": "s",
        "ratio": None if limit_s is None else round(limit_s / spent.wall_s, 2),
        "cpu_s": round(spent.cpu_s, 4),
        "load": round(os.getloadavg()[0], 1),
    }


def _below(url: str, name: str) -> str:
    root, mark, settings = url.partition("?")
    return f"{root}/{name}{mark}{settings}"


@contextmanager
def opened(place: str) -> Iterator[str]:
    """URL of an empty store, with a cache of this run's own."""
    with tempfile.TemporaryDirectory(prefix="saeq-bench-cache-") as cache:
        os.environ["SAEQ_CACHE"] = cache
        with _opened(place) as url:
            yield url


@contextmanager
def _opened(place: str) -> Iterator[str]:
    if place == "folder":
        with tempfile.TemporaryDirectory(prefix="saeq-bench-") as folder:
            yield folder
        return
    with s3_server() as server:
        os.environ.update(server.environment)
        yield server.url("bench")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--places", nargs="+", default=PLACES)
    parser.add_argument("--trials", type=int, default=NUM_TRIALS)
    parser.add_argument("--sweeps", type=int, default=NUM_SWEEPS)
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    about = {"date": datetime.date.today().isoformat(), "cpus": os.cpu_count()}
    for place in arguments.places:
        with opened(place) as url:
            measured = rows_of(place, url, arguments.trials, arguments.sweeps)
            rows += [{**found, **about} for found in measured]
    is_whole = (arguments.trials, arguments.sweeps) == (NUM_TRIALS, NUM_SWEEPS)
    if is_whole and set(arguments.places) == set(PLACES):
        save_report("store", "cpu", rows)


if __name__ == "__main__":
    main()
