"""A node of a Ray cluster that stands still without a word, and comes back when it is too late."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from orchestrator.log.state import SweepState
from tests.orchestrator.running import RunningServe, RunningSweep
from tests.orchestrator.some_cluster import SomeCluster
from tests.orchestrator.tune.test_draining_node import LONG_S, assert_all_finished

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

NOTICED_WITHIN_S = 30.0
STALE_FOR_S = 6.0
"""A stale actor looks for a later lease every two seconds."""


def test_a_frozen_node_costs_half_a_minute_and_writes_nothing_when_it_wakes(
    cluster: SomeCluster, tiny_model: Path, tmp_path: Path
) -> None:
    for _ in range(2):
        cluster.add_node(2)
    sweep = RunningSweep(tmp_path, tiny_model, tokens="1M")
    sweep.submit()
    serve = RunningServe(sweep.store, tmp_path / "serve.txt")
    with serve.command("--ray-address", cluster.address, "--until-idle") as process:
        state = sweep.wait_for(all_checkpointed, process, LONG_S)
        freezing = cluster.node_where(lambda node: bool(node.trials_of(state)))
        assert freezing is not None
        on_it = {name: state.trials[name].epoch for name in freezing.trials_of(state)}
        frozen_at = time.time()
        freezing.freeze()
        sweep.wait_for(lambda s: not freezing.trials_of(s) & set(on_it), process, 120)
        noticed_s = time.time() - frozen_at
        state = sweep.wait_for(lambda s: go_on(s, on_it), process, LONG_S)
        starts = [state.trials[name].started for name in on_it]
        again_s = max(one.at for one in starts if one is not None) - frozen_at
        print(f"noticed after {noticed_s:.1f} s, all run again after {again_s:.1f} s")  # noqa: T201
        before = {name: checkpoints(sweep, name, epoch) for name, epoch in on_it.items()}
        freezing.wake_workers()
        time.sleep(STALE_FOR_S)
        freezing.wake()
        assert process.wait(timeout=LONG_S) == 0, serve.output[-3000:]
    assert noticed_s < NOTICED_WITHIN_S
    for name, epoch in on_it.items():
        assert checkpoints(sweep, name, epoch) <= before[name], "a stale actor wrote"
    assert_all_finished(sweep, 4)


def all_checkpointed(state: SweepState) -> bool:
    running = [trial for trial in state.trials.values() if trial.status == "running"]
    return len(running) == 4 and all(trial.checkpoint_tokens for trial in running)


def go_on(state: SweepState, epoch_of: dict[str, int]) -> bool:
    """Whether every one of them has started again, under a later lease."""
    starts = {name: state.trials[name].started for name in epoch_of}
    return all(start and start.epoch > epoch_of[name] for name, start in starts.items())


def checkpoints(sweep: RunningSweep, trial: str, epoch: int) -> set[str]:
    """Complete ones that were taken under one lease."""
    prefix = sweep.store.layout.checkpoints(sweep.id, trial)
    names = sweep.store.backend.children(prefix)
    mine = [name for name in names if name.rstrip("/").endswith(f"-{epoch:06d}")]
    return {name for name in mine if sweep.store.files(f"{prefix}{name.rstrip('/')}/") is not None}
