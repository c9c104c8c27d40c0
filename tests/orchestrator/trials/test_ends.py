"""What a driver that died right after telling an end has left behind is cleared up."""

from __future__ import annotations

from pathlib import Path

from orchestrator.log.events import DriverStarted, Failed, Finished, Leased, Suggested
from orchestrator.log.sweep_log import LogWriter, SweepLog
from orchestrator.store import Store
from orchestrator.trials.checkpoints import Checkpoints
from orchestrator.trials.ends import Ends


def test_checkpoints_of_its_last_ends_go_with_a_dead_driver_but_for_failed_trials(
    tmp_path: Path,
) -> None:
    store = Store.open(str(tmp_path / "store"))
    log = SweepLog(store, "s", LogWriter(store, "s", clock=lambda: 1000.0))
    assert log.writer is not None
    log.append(DriverStarted(host="here", pid=1))
    state = tmp_path / "state"
    state.mkdir()
    (state / "weights").write_bytes(b"12345")
    for number in range(3):
        trial = f"t{number:04d}"
        log.append(Suggested(trial=trial, number=number, config={}, total_tokens=10))
        log.append(Leased(trial=trial, epoch=1))
        Checkpoints(store, "s", trial).save(state, 5, 1)
    log.append(Finished(trial="t0000", epoch=1, artefact="a", metrics={}, tokens=10))
    log.append(Failed(trial="t0001", epoch=1, reason="bug", final=True))
    Ends(store, "s", log).clear_up_after(log.writer.id)
    left = {t: Checkpoints(store, "s", t).fetch_newest(tmp_path / t) for t in log.state.trials}
    assert [trial for trial, found in left.items() if found] == ["t0001", "t0002"]
    Ends(store, "s", log).clear_up_after("somebody else")
