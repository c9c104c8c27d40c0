"""What trials' ends say of machines: planted logs, an own clock, no processes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from orchestrator.log.events import (
    AnyEvent,
    DriverEnded,
    DriverStarted,
    EventBase,
    Failed,
    Leased,
    Preempted,
    Reported,
    Started,
)
from orchestrator.log.state import SweepState
from orchestrator.nodes.host_watch import ONE_EVENT_S, SETTLE_S, HostWatch, WatchedWork
from orchestrator.nodes.quarantine import host_standing, note_failure
from orchestrator.nodes.records import NodeSide, write_side
from orchestrator.nodes.trial_failures import Incident, incidents
from orchestrator.store import Store

GONE = "its trial process is gone"
PACK_GONE = "its pack saeq-pack-1f is gone"
CUDA = "RuntimeError: CUDA error: no kernel image is available for execution on the device"
USERS = "ValueError: k=4096 exceeds d_sae=1024; lower k"


class Log:
    """One sweep's log, as drivers `a` (alone on its machine) and `c` (on a cluster) write it."""

    def __init__(self) -> None:
        self.state = SweepState()
        self._seq = 0
        self._epochs: dict[str, int] = {}
        self.at = 1000.0
        self.say("a", DriverStarted(host="box", pid=1))
        self.say("c", DriverStarted(host="head", pid=1, num_nodes=4))

    def say(self, writer: str, event: EventBase) -> None:
        self._seq += 1
        stamp = {"writer": writer, "seq": self._seq, "at": self.at}
        told: AnyEvent = event.model_copy(update=stamp)  # type: ignore[assignment]
        self.state.add([told])

    def stay(
        self,
        trial: str,
        end: EventBase | None,
        *,
        writer: str = "a",
        host: str = "box",
        after_s: float = 5.0,
        starts: bool = True,
        reports: bool = False,
    ) -> None:
        """One trial under one lease."""
        epoch = self._epochs[trial] = self._epochs.get(trial, 0) + 1
        about: dict[str, Any] = {"trial": trial, "epoch": epoch}
        self.say(writer, Leased(**about))
        if starts:
            self.say(writer, Started(**about, host=host, device="gpu 0", node_id=f"id-{host}"))
        if reports:
            self.say(writer, Reported(**about, tokens=1, metrics={}))
        self.at += after_s
        if end is not None:
            self.say(writer, end.model_copy(update=about))

    def found(self, trial: str = "t0") -> list[Incident]:
        return incidents(self.state, trial)


def failed(reason: str, **facts: Any) -> Failed:
    return Failed(**{"trial": "", "reason": reason, "final": False, **facts})


def lost(reason: str = GONE, **facts: Any) -> Preempted:
    return Preempted(**{"trial": "", "reason": reason, "tokens": 0, "process_died": True, **facts})


@pytest.mark.parametrize(
    "end",
    [
        failed(CUDA),
        failed("OSError: [Errno 28] No space left on device"),
        failed("RuntimeError: CUDA error: uncorrectable ECC error encountered"),
        failed("RuntimeError: No CUDA GPUs are available"),
        failed("AcceleratorError: CUDA error: device-side assert triggered"),
        failed("its model does not load", traceback="Traceback\n  x\nRuntimeError: CUDA error: xx"),
        lost(),
        lost(PACK_GONE),
    ],
)
def test_what_speaks_against_a_machine(end: EventBase) -> None:
    log = Log()
    log.stay("t0", end)
    (found,) = log.found()
    assert (found.host, found.device, found.writer) == ("box", "gpu 0", "a")
    assert found.what.startswith("trial t0: ")


@pytest.mark.parametrize(
    ("end", "facts"),
    [
        (failed(USERS), {}),
        (failed(USERS, traceback=f"Traceback\n  '{CUDA}'\n  a\n  b\n  c\n{USERS}"), {}),
        (failed("out of memory: CUDA error: out of memory", out_of_memory=True), {}),
        (failed("OutOfMemoryError: CUDA error: out of memory"), {}),
        (failed(CUDA), {"after_s": 121.0}),
        (lost(), {"after_s": 121.0}),
        (lost(), {"reports": True}),
        (lost(process_died=False), {}),
        (lost("asked to stop", process_died=False), {}),
        (lost("its lease was taken over"), {}),
        (lost("the store says no"), {}),
        (lost(), {"writer": "c", "host": ""}),
        (None, {}),
    ],
)
def test_what_speaks_against_no_machine(end: EventBase | None, facts: Mapping[str, Any]) -> None:
    log = Log()
    log.stay("t0", end, **facts)
    assert log.found() == []


def test_a_failure_before_the_start_is_on_the_host_it_names() -> None:
    log = Log()
    log.stay("t0", failed(CUDA), starts=False, after_s=400.0)
    log.stay("t1", failed(CUDA, host="n7", device="gpu 3"), writer="c", starts=False)
    log.stay("t2", failed(CUDA), writer="c", starts=False)
    assert [one.host for one in log.found("t0")] == ["box"], "one machine: there is no other"
    assert [(one.host, one.device) for one in log.found("t1")] == [("n7", "gpu 3")]
    assert log.found("t2") == [], "nobody knows where that was"


def test_what_fails_everywhere_is_the_trials_own_fault() -> None:
    log = Log()
    log.stay("t0", lost(), host="n1")
    assert [one.host for one in log.found()] == ["n1"]
    log.stay("t0", lost(PACK_GONE), host="n2")
    assert log.found() == []
    log.stay("t1", failed(CUDA), host="n1")
    log.stay("t1", failed(CUDA), host="n2")
    assert [one.host for one in log.found("t1")] == ["n1", "n2"], "no kernel image: never its own"


# Held against hosts


class Watched:
    """A watch over a log, by an own clock."""

    def __init__(self, store: Store, log: Log, own: str = "box") -> None:
        self.store, self.log, self.now = store, log, 0.0
        self.said: list[str] = []
        self.watch = HostWatch(store, own, lambda _, what: self.said.append(what), lambda: self.now)

    def look(self, writer: str = "a", after_s: float = SETTLE_S) -> None:
        """Once to see what is new, and once when that has settled."""
        for _ in range(2):
            self.watch.look([WatchedWork("s", self.log.state, writer)])
            self.now += after_s

    def failures(self, host: str = "box") -> int:
        return len(host_standing(self.store, host).failures)


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    return Watched(Store.open(str(tmp_path / "store")), Log())


def test_three_fast_failures_keep_the_own_host_out(watched: Watched) -> None:
    for number in range(3):
        assert not watched.watch.own.is_kept_out
        watched.log.stay(f"t{number}", failed(CUDA), after_s=ONE_EVENT_S)
        watched.look()
        assert watched.failures() == number + 1
    assert watched.watch.own.is_kept_out
    assert "the last: s: trial t2: RuntimeError: CUDA error" in watched.watch.own.why
    assert watched.said[0] == f"held against host box: trial t0: {CUDA}"
    watched.look()
    assert watched.failures() == 3, "each is held against it once"


def test_a_pack_that_dies_with_its_members_is_one_failure(watched: Watched) -> None:
    for _ in range(2):
        for number in range(4):
            watched.log.stay(f"t{number}", lost(PACK_GONE), after_s=0.1)
        watched.look()
        watched.log.at += ONE_EVENT_S
    assert watched.failures() == 2


def test_one_trial_that_dies_again_and_again_counts_once(watched: Watched) -> None:
    for _ in range(4):
        watched.log.stay("t0", lost(), after_s=2 * ONE_EVENT_S)
        watched.look()
    assert watched.failures() == 1
    for _ in range(2):
        watched.log.stay("t0", failed(CUDA), after_s=2 * ONE_EVENT_S)
        watched.look()
    assert watched.failures() == 3, "but not what nothing but the machine can be the reason of"


@pytest.mark.parametrize("reason", ["its Ray is gone", "killed by SIGKILL", "silent for 20 s"])
def test_nobody_is_blamed_when_ray_or_the_driver_died(watched: Watched, reason: str) -> None:
    watched.log.stay("t0", lost())
    watched.look(after_s=SETTLE_S / 4)
    watched.log.say("a", DriverEnded(driver="a", reason=reason))
    watched.look()
    assert watched.failures() == 0


def test_nobody_is_blamed_for_leaving(watched: Watched) -> None:
    side = NodeSide(id="n", host="n3", state="draining: spot notice, 110 s")
    write_side(watched.store, "self", side)
    watched.log.stay("t0", lost(), writer="c", host="n3")
    watched.look("c")
    assert watched.failures("n3") == 0


def test_others_note_what_happened_under_them(watched: Watched) -> None:
    watched.log.stay("t0", failed(CUDA), writer="somebody else")
    watched.look()
    assert watched.failures() == 0


def test_a_good_report_takes_failures_back_once_a_minute(watched: Watched) -> None:
    watched.log.stay("t0", failed(CUDA))
    watched.look()
    watched.log.stay("t1", None, reports=True)
    watched.look(after_s=1.0)
    assert watched.failures() == 0
    note_failure(watched.store, "box", "again")
    watched.log.stay("t2", None, reports=True)
    watched.look(after_s=1.0)
    assert watched.failures() == 1, "not asked for again so soon"
    watched.now += 60.0
    watched.log.stay("t3", None, reports=True)
    watched.look()
    assert watched.failures() == 0


def test_a_bad_device_is_not_hidden_by_good_ones(watched: Watched) -> None:
    watched.log.stay("t0", failed(CUDA, device="gpu 3"))
    watched.look()
    watched.log.stay("t1", None, reports=True)  # on gpu 0
    watched.look()
    assert watched.failures() == 1


def test_firsts_and_what_others_put_into_quarantine(watched: Watched) -> None:
    assert (watched.watch.first_lease, watched.watch.first_report) == ("", "")
    watched.log.stay("t0", None)
    watched.look()
    assert (watched.watch.first_lease, watched.watch.first_report) == ("s/t0", "")
    watched.log.stay("t1", None, reports=True)
    watched.look()
    assert (watched.watch.first_lease, watched.watch.first_report) == ("s/t0", "s/t1")
    for number in range(3):
        note_failure(watched.store, "box", f"by another serve ({number})")
    watched.now += 60.0
    watched.look()
    assert watched.watch.own.is_kept_out


def test_the_words_that_the_log_uses_are_those_that_are_looked_for() -> None:
    root = Path(__file__).parents[3]
    assert f'"{GONE}"' in (root / "orchestrator/tune/adapters.py").read_text()
    runner = (root / "jobs/runners/sae_pack.py").read_text()
    assert 'f"its pack {self._pack_name} is gone"' in runner
