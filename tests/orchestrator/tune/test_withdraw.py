"""What still waits for a node goes back when it is not wanted, and what runs does not."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator.trials.ticket import Ticket
from orchestrator.tune import withdraw
from orchestrator.tune.withdraw import OVER_SHARE_FOR_S, Withdrawals


class Loop:
    """Tune's controller and the desk, as far as they are asked; trial 0 runs, the others wait."""

    def __init__(self, num_trials: int) -> None:
        self.now = 100.0
        self.given_back: list[tuple[str, str]] = []
        self.desk: Any = SimpleNamespace(
            draining=False,
            allowed=None,
            held={f"t{n}": None for n in range(num_trials)},
            log=SimpleNamespace(refresh=lambda: None),
            spec=None,
            leases=SimpleNamespace(holder="me"),
            on_lost=self._on_lost,
        )
        trials = [SimpleNamespace(config={"ticket": _ticket(f"t{n}")}) for n in range(num_trials)]
        self._by_id = {id(trial): trial for trial in trials}
        self.controller: Any = SimpleNamespace(
            _pending_trials=_Identities(trials[1:]),
            _staged_trials=_Identities([]),
            _trial_to_actor=SimpleNamespace(get=lambda _trial: None),
            _started_actors=set(),
            get_trials=lambda: trials,
            stop_trial=lambda trial: self.controller._pending_trials.remove(trial),
        )
        self.withdrawals = Withdrawals(_any(self.desk))

    def _on_lost(self, ticket: Ticket, reason: str, process_died: bool) -> None:
        assert not process_died, "nobody died: it must not count towards giving the trial up"
        self.given_back.append((ticket.trial, reason))
        del self.desk.held[ticket.trial]

    def look(self, after_s: float = 2.0) -> list[str]:
        self.now += after_s
        self.given_back.clear()
        self.withdrawals.look(self.controller)
        return [trial for trial, _ in self.given_back]


def _any(one: object) -> Any:
    return one


class _Identities(list[Any]):
    """Trials are told apart by identity, as Tune does."""

    def __contains__(self, one: object) -> bool:
        return any(each is one for each in self)


def _ticket(trial: str) -> Any:
    ticket = Ticket("s", trial, 1, {}, 10, (10,), (), 1, 0, ())
    return ticket.to_json()


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> Loop:
    made = Loop(4)
    monkeypatch.setattr("time.monotonic", lambda: made.now)
    monkeypatch.setattr(withdraw, "summons_for", lambda *_: None)
    return made


def test_nothing_goes_back_while_it_is_wanted(loop: Loop) -> None:
    assert loop.look() == []


def test_all_that_waits_goes_back_when_the_driver_is_to_end(loop: Loop) -> None:
    loop.desk.draining = True
    assert loop.look() == ["t3", "t2", "t1"]
    assert set(loop.desk.held) == {"t0"}, "what runs gives itself back"


def test_a_share_that_stays_smaller_takes_back_the_youngest(loop: Loop) -> None:
    loop.desk.allowed = 2
    assert loop.look() == [], "shares move while sweeps take turns"
    loop.desk.allowed = 4
    assert loop.look(OVER_SHARE_FOR_S) == []
    loop.desk.allowed = 2
    assert loop.look() == []
    assert loop.look(OVER_SHARE_FOR_S) == ["t3", "t2"]
    assert loop.look() == []


def test_what_was_asked_back_goes_back_with_its_reason(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        withdraw,
        "summons_for",
        lambda ticket, *_: SimpleNamespace(reason="paused") if ticket.trial == "t2" else None,
    )
    assert loop.look() == ["t2"]
    assert loop.given_back == [("t2", "paused")]
