"""Nodes come when trials wait, leave when they are idle, and are replaced when they are killed.

GPUs are invented and trials only wait: what is shown is who asks for what, and what becomes of it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from orchestrator.log.events import Started
from orchestrator.log.state import SweepState
from orchestrator.log.sweep_log import LogReader, SweepLog
from orchestrator.nodes.records import read_nodes
from orchestrator.store import Store
from tests.cluster.autoscaling import HEAD_TYPE, AutoscaledRay, node_type, wait_until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

SWEEP = """
name: {name}
job: sleeper
steps: {steps}
step_seconds: 0.1
trial_gib: {trial_gib}
shared_gib: 16
space: {{lr: {{choice: [{lrs}]}}}}
search: {{sampler: grid}}
early_stop: {{scheduler: none}}
checkpoint: {{seconds: 1}}
pack: {{members: {members}}}
"""
LONG_S = 120
"""Generous: a node of the fake provider takes seconds, on a busy machine many."""


class Served:
    """A store that a `saeq serve` works off on an autoscaled cluster."""

    def __init__(self, cluster: AutoscaledRay, folder: Path) -> None:
        self.cluster, self.folder = cluster, folder
        self.store = Store.open(str(folder / "store"))
        self.left_within_s = float("inf")
        """From the request to stop to the end of `serve`."""

    @contextmanager
    def serving(self) -> Iterator[Served]:
        with open(self.folder / "serve.txt", "wb") as output:
            serve = self._command("serve", "--plain", "--ray-address", self.cluster.address)
            process = subprocess.Popen(
                serve,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            wait_until(self._is_known, LONG_S, f"serve to say what it takes: {self.said}")
            yield self
        finally:
            process.terminate()
            began = time.monotonic()
            try:
                process.wait(timeout=90)
                self.left_within_s = time.monotonic() - began
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    @property
    def said(self) -> str:
        return (self.folder / "serve.txt").read_text()

    def submit(
        self, name: str, num_trials: int, **changes: object
    ) -> subprocess.CompletedProcess[str]:
        values = {"name": name, "steps": 50, "trial_gib": 20, "members": 2, **changes}
        values["lrs"] = ", ".join(f"{n + 1}.0e-3" for n in range(num_trials))
        file = self.folder / f"{name}.yaml"
        file.write_text(SWEEP.format(**values))
        return subprocess.run(
            self._command("submit", str(file)),
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
        )

    def state(self, sweep: str) -> SweepState:
        return SweepLog(self.store, sweep).refresh()

    def started(self, sweep: str) -> list[Started]:
        events = LogReader(self.store, sweep).poll()
        return [event for event in events if isinstance(event, Started)]

    def is_finished(self, sweep: str, num_trials: int) -> bool:
        trials = self.state(sweep).trials.values()
        return sum(trial.status == "finished" for trial in trials) == num_trials

    def held(self, sweep: str) -> int:
        """Trials under a lease."""
        return sum(t.status == "running" for t in self.state(sweep).trials.values())

    def ask(self, *command: str) -> None:
        """One of saeq's other commands."""
        subprocess.run(self._command(*command), env=self._environment, check=True)

    def _is_known(self) -> bool:
        return any(record.newest.takes for record in read_nodes(self.store))

    @property
    def _environment(self) -> dict[str, str]:
        return {**self.cluster.for_commands, "PYTHONUNBUFFERED": "1"}

    def _command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "orchestrator.cli", *arguments, "--store", self.store.url]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    cluster = AutoscaledRay({"gpu": node_type(4, "A100-80G"), "small": node_type(4, "T4")})
    served = Served(cluster, tmp_path_factory.mktemp("served"))
    with cluster.running(), served.serving():
        yield served


def test_what_a_serve_takes_names_nodes_that_are_not_there_yet(served: Served) -> None:
    takes = next(record.newest.takes for record in read_nodes(served.store))
    by_name = {each["name"]: each for each in takes}
    assert by_name["gpu"]["max_workers"] == 4
    assert by_name["gpu"]["num_up"] == 0
    assert by_name["gpu"]["gpu"]["name"] == "A100-80"
    assert by_name[HEAD_TYPE]["resources"].get("CPU", 0) == 0


def test_five_halves_of_a_gpu_bring_three_nodes_of_the_type_they_fit_and_then_none(
    served: Served,
) -> None:
    """16 GiB and 20 a trial: two on an A100, none on a T4, which is brought by nobody."""
    began = time.monotonic()
    assert served.submit("halves", 5).returncode == 0
    wait_until(lambda: served.started("halves"), LONG_S, f"a trial: {served.said}")
    first_s = time.monotonic() - began
    most = 0

    def all_started() -> bool:
        nonlocal most
        most = max(most, len(served.cluster.nodes_up()))
        return len({event.trial for event in served.started("halves")}) == 5

    wait_until(all_started, LONG_S, "all trials")
    all_s = time.monotonic() - began
    wait_until(lambda: served.is_finished("halves", 5), LONG_S, "the end")
    assert most == 3, f"first trial after {first_s:.1f} s, all after {all_s:.1f} s"
    assert len({event.node_id for event in served.started("halves")}) == 3
    wait_until(lambda: not served.cluster.nodes_up(), LONG_S, "idle nodes to leave")
    left_s = time.monotonic() - began
    sys.stderr.write(f"first {first_s:.1f} s, all {all_s:.1f} s, left {left_s:.1f} s\n")


def test_a_killed_node_is_replaced_and_its_trials_go_on_uncounted(served: Served) -> None:
    assert served.submit("killed", 2, steps=400).returncode == 0
    trials = wait_until(lambda: served.started("killed"), LONG_S, "a trial")
    wait_until(
        lambda: all(t.checkpoint_tokens for t in served.state("killed").trials.values()),
        LONG_S,
        "checkpoints",
    )
    before = {event.node_id for event in trials}
    assert len(before) == 1, "two halves fit on one GPU"
    os.kill(served.cluster.raylet_of(before.pop()), signal.SIGKILL)
    wait_until(lambda: served.is_finished("killed", 2), LONG_S, f"the end: {served.said}")
    state = served.state("killed")
    assert all(trial.num_failures == 0 for trial in state.trials.values())
    again = [event for event in served.started("killed") if event.epoch > 1]
    assert {event.trial for event in again} == {"t0000", "t0001"}
    assert all(event.tokens > 0 for event in again), "from their checkpoints"
    assert not {event.node_id for event in again} & {event.node_id for event in trials}


def test_a_sweep_that_fits_no_node_type_is_refused_with_the_numbers(served: Served) -> None:
    refused = served.submit("huge", 2, trial_gib=64)
    assert refused.returncode == 2
    assert "a trial needs 64 GiB beside the 16 GiB" in refused.stderr
    assert "gpu (A100-80) has 73.6 GiB, small (T4-16) has 13.8 GiB" in refused.stderr, (
        refused.stderr[:300]
    )
    assert not served.store.backend.exists(served.store.layout.queued("huge"))


def test_trials_that_wait_for_nodes_in_vain_are_let_go_when_nobody_wants_them(
    served: Served, tmp_path: Path
) -> None:
    own = Served(served.cluster, tmp_path)
    with served.cluster.bringing_nothing():
        with own.serving():
            assert own.submit("regretted", 3).returncode == 0
            wait_until(lambda: own.held("regretted") == 3, LONG_S, "leases")
            own.ask("cancel", "regretted", "--yes")
            wait_until(
                lambda: {t.status for t in own.state("regretted").trials.values()} == {"cancelled"},
                LONG_S,
                f"the end of its trials: {own.said}",
            )
            assert own.submit("patient", 3).returncode == 0
            wait_until(lambda: own.held("patient") == 3, LONG_S, "leases")
        assert own.left_within_s < 40, "it waits 45 s for trials that do not come back"
    assert own.held("patient") == 0
    assert not own.started("regretted")
    assert not own.started("patient")
