"""The blows of a storm hit what they say, and nothing of anybody else's."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.log.events import Leased
from orchestrator.spec.sweep import parse_sweep
from orchestrator.store import Damaged
from tests.chaos.faults import CutCheckpoint, CutLog, KillDriver, KillServe, Scene
from tests.chaos.invented_store import SWEEP, InventedStore
from tests.chaos.processes import MARK, Kind, Process, kill_all, marked
from tests.chaos.segments import read_segments
from tests.chaos.served import Served
from tests.chaos.storm import Weather, known_faults, sweep_text
from tests.chaos.verdict import judge

LIVING = "driver-eeeeeeeeee"


def scene_of(invented: InventedStore) -> Scene:
    return Scene(invented.store, [], random.Random(0), sweep=SWEEP)


def test_a_log_is_torn_in_its_last_line_once(tmp_path: Path) -> None:
    invented = InventedStore(tmp_path)
    before = {s.key: len(s.events) for s in read_segments(invented.store, SWEEP)}
    scene = scene_of(invented)
    first = CutLog().strike(scene)
    second = CutLog().strike(scene)
    assert first is not None and second is not None and first != second
    assert CutLog().strike(scene) is None, "both drivers' logs are torn"
    torn = {s.key: len(s.events) for s in read_segments(invented.store, SWEEP) if s.torn}
    assert torn == {key: before[key] - 1 for key in (first, second)}
    verdict = judge(invented.store, SWEEP, scene.damage, load_weights=False)
    assert verdict.holds, str(verdict)
    assert verdict.num_lost_events == 2


def test_the_newest_of_two_checkpoints_is_truncated_and_the_older_one_stays(
    tmp_path: Path,
) -> None:
    invented = InventedStore(tmp_path)
    store, layout = invented.store, invented.layout
    invented.suggest(LIVING, 2, k=16)
    invented.say(LIVING, Leased(trial="t0002", epoch=1))
    state = tmp_path / "state"
    state.mkdir()
    state.joinpath("tensors").write_bytes(b"0123456789")
    older, newest = (layout.checkpoint(SWEEP, "t0002", tokens, 1) for tokens in (1000, 2000))
    store.put_files(state, older)
    scene = scene_of(invented)
    assert CutCheckpoint().strike(scene) is None, "one alone is never hurt"
    store.put_files(state, newest)
    assert CutCheckpoint().strike(scene) == f"{newest}tensors"
    store.get_files(older, tmp_path / "older")
    with pytest.raises(Damaged, match="5 bytes, not 10"):
        store.get_files(newest, tmp_path / "newest")
    assert [trial for trial, _ in scene.damage.cut_checkpoints] == ["t0002"]
    assert CutCheckpoint().strike(scene) is None, "never twice the same trial"


def test_where_nothing_runs_nothing_is_killed(tmp_path: Path) -> None:
    scene = scene_of(InventedStore(tmp_path))
    assert KillDriver().strike(scene) is None
    assert KillServe().strike(scene) is None


COMMANDS: dict[Kind, str] = {
    "serve": "/x/python -m orchestrator.cli serve --plain --store /s",
    "driver": "/x/python -m orchestrator.tune.driver --store /s --writer driver-0123456789",
    "ray host": "/x/python -m orchestrator.serving.ray_host",
    "gcs": "/x/ray/core/src/ray/gcs/gcs_server --log_dir=/tmp/saeq-ray-abc/session/logs",
    "raylet": "/x/ray/core/src/ray/raylet/raylet --raylet_socket_name=/tmp/saeq-ray-abc/s",
    "trial": "ray::SweepTrial.train",
    "pack": "ray::SaePackActor.advance",
    "other": "ray::IDLE",
}


@pytest.mark.parametrize("kind", COMMANDS)
def test_a_process_is_known_by_its_command_line(kind: Kind) -> None:
    process = Process(1, COMMANDS[kind])
    assert process.kind == kind
    assert process.writer == ("driver-0123456789" if kind == "driver" else "")
    in_ray = kind in ("gcs", "raylet")
    assert process.ray_folder == (Path("/tmp/saeq-ray-abc") if in_ray else None)


def test_marked_processes_are_found_also_when_their_parent_is_gone() -> None:
    mark = uuid.uuid4().hex
    child = [sys.executable, "-c", "import time; time.sleep(300)"]
    parent = f"import subprocess, time; subprocess.Popen({child!r}); time.sleep(300)"
    with subprocess.Popen([sys.executable, "-c", parent], env={**os.environ, MARK: mark}) as made:
        until(lambda: len(marked(mark)) == 2)
        made.kill()
        made.wait()
        (orphan,) = marked(mark)
        assert orphan.pid != made.pid
        orphan.send(signal.SIGSTOP)
        until(lambda: marked(mark)[0].is_stopped)
        assert kill_all(mark) == 1
        until(lambda: not marked(mark))


def until(seen: Callable[[], bool], timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not seen():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_command_is_started_again_and_nothing_of_it_is_left(tmp_path: Path) -> None:
    served = Served("version", tmp_path, {})
    for _ in range(2):
        served.start(["--version"])
        until(lambda: served.poll() is not None)
        assert served.poll() == 0
    assert len(served.output().splitlines()) == 2
    assert served.leftovers(within_s=10.0) == []


def test_a_storms_sweep_has_as_many_trials_as_asked_and_some_bad_ones() -> None:
    text = sweep_text(Weather(trials=24), "storm-1", Path("/models/tiny"))
    spec = parse_sweep(text)
    assert spec.trials == 24
    sampler = spec.build_sampler()
    rates = Counter(sampler.suggest(number, [])["lr"] for number in range(24))
    assert set(rates.values()) == {2}, "each with both k"
    assert sum(rate < 1e-5 for rate in rates) == 4


def test_a_fault_that_is_not_known_is_refused_with_those_that_are() -> None:
    with pytest.raises(ValueError, match="'kill-cat' is unknown; known faults: cut-checkpoint,"):
        known_faults(["kill-trial", "kill-cat"])
