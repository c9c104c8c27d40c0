"""Real processes killed in the middle of a sweep: nothing is lost and nothing is run twice."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from orchestrator.log.events import Finished, Started
from orchestrator.log.state import SweepState
from tests.orchestrator.running import RunningSweep, process_of

pytestmark = pytest.mark.storm


def all_checkpointed(state: SweepState) -> bool:
    """Four trials run and each has a checkpoint to come back to."""
    running = [t for t in state.trials.values() if t.status == "running"]
    return len(running) == 4 and all(t.checkpoint_tokens > 0 for t in running)


def assert_whole(sweep: RunningSweep) -> None:
    """Every trial ended once, exported a verified SAE, and went on from where it was safe."""
    state = sweep.state()
    assert Counter(t.status for t in state.trials.values()) == {"finished": 4}, sweep.output[-3000:]
    events = sweep.events()
    ends = Counter(e.trial for e in events if isinstance(e, Finished))
    assert set(ends.values()) == {1}
    for trial in state.trials.values():
        assert trial.artefact is not None
        prefix = sweep.store.layout.artefact("sae", trial.artefact)
        assert sweep.store.files(prefix) is not None
        assert (
            sweep.store.backend.children(sweep.store.layout.checkpoints(sweep.id, trial.id)) == []
        ), "checkpoints of an ended trial are removed"


def assert_resumed_from_checkpoints(sweep: RunningSweep, at_least: int) -> None:
    resumed = [e for e in sweep.events() if isinstance(e, Started) and e.epoch > 1]
    assert len(resumed) >= at_least
    assert all(e.tokens > 0 for e in resumed), "resumed from its checkpoint, not from the start"


def test_a_killed_driver_is_replaced_and_its_trials_go_on(tiny_model: Path, tmp_path: Path) -> None:
    sweep = RunningSweep(tmp_path, tiny_model)
    with sweep.command() as process:
        state = sweep.wait_for(all_checkpointed, process, timeout_s=240)
        (driver,) = state.drivers.values()
        os.kill(driver.started.pid, signal.SIGKILL)
        assert process.wait(timeout=240) == 0, sweep.output[-3000:]
    assert_whole(sweep)
    assert_resumed_from_checkpoints(sweep, at_least=4)


def test_a_killed_pack_costs_one_checkpoint_interval(tiny_model: Path, tmp_path: Path) -> None:
    sweep = RunningSweep(tmp_path, tiny_model)
    with sweep.command() as process:
        state = sweep.wait_for(all_checkpointed, process, timeout_s=240)
        pids = {t.started.pid for t in state.trials.values() if t.started}
        assert len(pids) == 1, "four trials share one pack"
        os.kill(pids.pop(), signal.SIGKILL)
        assert process.wait(timeout=240) == 0, sweep.output[-3000:]
    assert_whole(sweep)
    assert_resumed_from_checkpoints(sweep, at_least=4)


def test_a_killed_trial_actor_hurts_nobody_else(tiny_model: Path, tmp_path: Path) -> None:
    sweep = RunningSweep(tmp_path, tiny_model)
    with sweep.command() as process:
        sweep.wait_for(all_checkpointed, process, timeout_s=240)
        os.kill(process_of("ray::SweepTrial", below=process.pid), signal.SIGKILL)
        assert process.wait(timeout=240) == 0, sweep.output[-3000:]
    assert_whole(sweep)
    assert_resumed_from_checkpoints(sweep, at_least=1)
    again = [e for e in sweep.events() if isinstance(e, Started) and e.epoch > 1]
    assert len(again) == 1, "the other three were not disturbed"


def test_ctrl_c_stops_within_five_seconds_and_the_same_command_goes_on(
    tiny_model: Path, tmp_path: Path
) -> None:
    sweep = RunningSweep(tmp_path, tiny_model)
    with sweep.command() as process:
        before = sweep.wait_for(all_checkpointed, process, timeout_s=240)
        asked = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 130, sweep.output[-3000:]
        assert time.monotonic() - asked < 15.0  # 5 s on a quiet machine
    stopped = sweep.state()
    assert {t.status for t in stopped.trials.values()} == {"queued"}
    for trial in stopped.trials.values():
        assert trial.checkpoint_tokens >= before.trials[trial.id].checkpoint_tokens
    assert sweep.run() == 0, sweep.output[-3000:]
    assert_whole(sweep)
    assert_resumed_from_checkpoints(sweep, at_least=4)


def test_ctrl_c_while_ray_starts_is_answered_at_once(tiny_model: Path, tmp_path: Path) -> None:
    sweep = RunningSweep(tmp_path, tiny_model)
    with sweep.command() as process:
        deadline = time.monotonic() + 120
        while not list(Path("/tmp").glob(f"saeq-ray-{_child(process.pid)}-*")):
            assert time.monotonic() < deadline and process.poll() is None, sweep.output[-3000:]
            time.sleep(0.05)
        asked = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 130, sweep.output[-3000:]
        assert time.monotonic() - asked < 10.0  # 1 s on a quiet machine
    assert sweep.state().drivers == {}


def test_a_cluster_that_is_not_there_is_said_in_one_sentence(
    tiny_model: Path, tmp_path: Path
) -> None:
    sweep = RunningSweep(tmp_path, tiny_model)
    with sweep.command("--ray-address", "127.0.0.1:1") as process:
        assert process.wait(timeout=120) == 1
    assert "the Ray cluster at 127.0.0.1:1 does not answer" in sweep.output
    assert "Traceback" not in sweep.output


def test_a_killed_command_takes_its_processes_with_it_and_can_be_run_again(
    tiny_model: Path, tmp_path: Path
) -> None:
    sweep = RunningSweep(tmp_path, tiny_model)
    with sweep.command() as process:
        state = sweep.wait_for(all_checkpointed, process, timeout_s=240)
        (driver,) = state.drivers.values()
        process.kill()
        process.wait()
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and _alive(driver.started.pid):
            time.sleep(0.2)
        assert not _alive(driver.started.pid), "an orphaned driver ends by itself"
    assert sweep.run() == 0, sweep.output[-3000:]
    assert_whole(sweep)


def test_a_machine_that_is_switched_off_leaves_a_sweep_that_can_be_run_again(
    tiny_model: Path, tmp_path: Path
) -> None:
    sweep = RunningSweep(tmp_path, tiny_model)
    with sweep.command() as process:
        state = sweep.wait_for(all_checkpointed, process, timeout_s=240)
        (driver,) = state.drivers.values()
        for pid in (process.pid, driver.started.pid):  # nobody is left to say that it is over
            os.kill(pid, signal.SIGKILL)
        process.wait()
    assert sweep.run() == 0, sweep.output[-3000:]
    assert_whole(sweep)
    assert_resumed_from_checkpoints(sweep, at_least=4)


def test_sigterm_is_answered_like_ctrl_c(tiny_model: Path, tmp_path: Path) -> None:
    sweep = RunningSweep(tmp_path, tiny_model)
    with sweep.command() as process:
        sweep.wait_for(all_checkpointed, process, timeout_s=240)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 130, sweep.output[-3000:]
    assert {t.status for t in sweep.state().trials.values()} == {"queued"}


def _child(pid: int) -> int:
    """Of the command's children the one that holds Ray; 0 before it is there."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(children[0]) if children else 0


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
