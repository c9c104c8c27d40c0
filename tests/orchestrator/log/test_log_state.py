"""The fold of events into a state: the same for every order, always legal, and ends are final."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, get_args

from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.log.events import (
    AnyEvent,
    Cancelled,
    Checkpointed,
    Closed,
    DriverEnded,
    DriverStarted,
    Failed,
    Finished,
    Leased,
    Preempted,
    Reported,
    Started,
    Stopped,
    Suggested,
    TrialEvent,
)
from orchestrator.log.state import ENDS, SweepState, TrialState, TrialStatus, fold, fold_trial
from tests.orchestrator.invented_log import INTERVAL_TOKENS, MOVES, Move, World, moves, play

LEGAL = frozenset(get_args(TrialStatus))
seeds = st.integers(0, 2**16)
thorough = settings(max_examples=100, deadline=None)


def cut(world: World, rng: random.Random) -> dict[str, list[AnyEvent]]:
    """A prefix of each writer's events: what a reader can have seen."""
    return {
        writer: events[: rng.randint(0, len(events))] for writer, events in world.by_writer.items()
    }


def interleaved(by_writer: dict[str, list[AnyEvent]], rng: random.Random) -> list[AnyEvent]:
    """Each writer's events in their order, the writers in any."""
    turns = [writer for writer, events in by_writer.items() for _ in events]
    rng.shuffle(turns)
    left = {writer: iter(events) for writer, events in by_writer.items()}
    return [next(left[writer]) for writer in turns]


def everything(world: World) -> list[AnyEvent]:
    return [event for events in world.by_writer.values() for event in events]


def seen(state: SweepState) -> dict[str, Any]:
    """All that anybody can read from a state."""
    return {
        "trials": state.trials,
        "drivers": state.drivers,
        "submitted": state.submitted,
        "closed": state.closed,
        "paused": (state.controls.paused, state.controls.paused_trials),
        "priority": state.priority,
        "extensions": state.controls.extensions,
        "reopened": state.controls.reopened,
        "max_order": state.controls.max_order,
        "recent": state.recent,
        "counts": state.counts,
        "numbers": [trial.id for trial in state.by_number()],
    }


# Any order, any prefix


@thorough
@given(moves, seeds)
def test_every_interleaving_of_every_prefix_gives_one_state(played: list[Move], seed: int) -> None:
    rng = random.Random(seed)
    prefix = cut(play(played), rng)
    first = fold(interleaved(prefix, rng))
    second = fold(interleaved(prefix, rng))
    any_order = [event for events in prefix.values() for event in events]
    rng.shuffle(any_order)
    assert seen(first) == seen(second) == seen(fold(any_order))


@thorough
@given(moves, seeds)
def test_taking_events_in_bit_by_bit_and_twice_is_taking_them_in_at_once(
    played: list[Move], seed: int
) -> None:
    rng = random.Random(seed)
    events = interleaved(cut(play(played), rng), rng)
    state = SweepState()
    position = 0
    while position < len(events):
        step = rng.randint(1, 6)
        state.add(events[position : position + step])
        if rng.random() < 0.3:
            state.add(rng.sample(events[: position + step], min(3, position)))
        position += step
    assert seen(state) == seen(fold(events))


@thorough
@given(moves, seeds)
def test_every_prefix_gives_a_legal_state(played: list[Move], seed: int) -> None:
    rng = random.Random(seed)
    state = fold(interleaved(cut(play(played), rng), rng))
    gone = {driver for driver, s in state.drivers.items() if s.ended is not None}
    assert sum(state.counts.values()) == len(state.trials)
    for trial in state.trials.values():
        check_legal(trial)
        assert not (trial.status == "running" and trial.holder in gone)


def check_legal(trial: TrialState) -> None:
    assert trial.status in LEGAL
    assert trial.ended == (trial.status in ENDS) == (trial.ended_at is not None)
    assert (trial.stop is not None) == (trial.status == "stopped")
    assert (trial.artefact is not None) == (trial.status == "finished")
    if trial.status == "running":
        assert trial.epoch > 0 and trial.holder
    tokens = [at for at, _ in trial.history]
    assert tokens == sorted(set(tokens))
    assert all(report.rung == rung for rung, report in trial.rungs.items())
    assert min(trial.num_failures, trial.num_preemptions, trial.tokens, trial.busy_seconds) >= 0


@thorough
@given(moves)
def test_the_whole_log_tells_what_really_happened(played: list[Move]) -> None:
    world = play(played)
    state = fold(everything(world))
    assert set(state.trials) == {trial.id for trial in world.trials}
    for truth in world.trials:
        told = state.trials[truth.id]
        assert told.life == truth.life
        if truth.end is not None:
            assert told.status == truth.end
        elif truth.holder is None or truth.holder in world.dead:
            assert told.status == "queued"
        else:
            assert (told.status, told.holder, told.epoch) == (
                "running",
                truth.holder,
                truth.epoch,
            )


# Ends


@thorough
@given(moves, seeds)
def test_a_trial_that_ended_never_un_ends_nor_changes_its_end(
    played: list[Move], seed: int
) -> None:
    rng = random.Random(seed)
    world = play(played)
    early = cut(world, rng)
    later = {
        writer: world.by_writer[writer][: rng.randint(len(events), len(world.by_writer[writer]))]
        for writer, events in early.items()
    }
    before, after = (fold(interleaved(prefix, rng)) for prefix in (early, later))
    for trial_id, trial in before.trials.items():
        if trial.ended and after.trials[trial_id].life == trial.life:
            assert after.trials[trial_id].status == trial.status
            assert after.trials[trial_id].ended_at == trial.ended_at
        elif trial.ended:
            assert trial.status == "failed" and after.trials[trial_id].life > trial.life
        if trial.ended:
            assert after.trials[trial_id].artefact == trial.artefact


def stamped(event: TrialEvent, writer: str, seq: int) -> TrialEvent:
    return event.model_copy(update={"writer": writer, "seq": seq, "at": float(seq)})


@st.composite
def lawless(draw: st.DrawFn) -> list[TrialEvent]:
    """Events of one trial that keep no promise at all: any epoch, several ends."""
    made: list[TrialEvent] = []
    for seq in range(1, draw(st.integers(0, 25)) + 1):
        about = {"trial": "t", "epoch": draw(st.integers(0, 3))}
        tokens = draw(st.integers(0, 5)) * INTERVAL_TOKENS
        event = draw(
            st.sampled_from(
                [
                    Leased(**about),
                    Started(**about, tokens=tokens),
                    Reported(**about, tokens=tokens, metrics={"fvu": None}, rung=tokens),
                    Checkpointed(**about, tokens=tokens),
                    Preempted(**about, reason="x", tokens=tokens),
                    Failed(**about, reason="x", final=draw(st.booleans())),
                    Finished(**about, artefact="a", metrics={}, tokens=tokens),
                    Cancelled(trial="t"),
                ]
            )
        )
        made.append(stamped(event, f"w{draw(st.integers(0, 2))}", seq))
    return made


@thorough
@given(lawless(), seeds)
def test_even_without_the_stores_promises_an_end_stays_an_end(
    events: list[TrialEvent], seed: int
) -> None:
    some = random.Random(seed).sample(events, len(events) // 2)
    assert fold_trial("t", some).status in LEGAL
    if fold_trial("t", some).ended:
        assert fold_trial("t", events).ended


def test_the_first_end_in_order_of_epochs_counts() -> None:
    about = {"trial": "t", "artefact": "first", "metrics": {}, "tokens": 1}
    first = stamped(Finished(**about, epoch=1), "a", 9)
    second = stamped(Finished(**{**about, "artefact": "second"}, epoch=2), "b", 1)
    assert fold_trial("t", [second, first]).artefact == "first"


def test_a_cancelled_trial_keeps_what_it_had_learnt() -> None:
    events = [
        stamped(Leased(trial="t", epoch=1), "a", 1),
        stamped(Reported(trial="t", epoch=1, tokens=5, metrics={"fvu": 0.5}, rung=5), "a", 2),
        stamped(Cancelled(trial="t", by="ada"), "cli", 1),
    ]
    state = fold_trial("t", events)
    assert (state.status, state.reason) == ("cancelled", "cancelled by ada")
    assert state.tokens == 5 and dict(state.metrics) == {"fvu": 0.5} and set(state.rungs) == {5}


# Leases


def test_the_invented_logs_have_what_they_are_made_for() -> None:
    """Trials taken over, zombies, lives, every end: else the properties hold of nothing."""
    rng = random.Random(0)
    ends: Counter[str | None] = Counter()
    num_taken = num_stale = num_retried = 0
    for _ in range(50):
        played = [(rng.choice(MOVES), rng.randrange(3), rng.randrange(4)) for _ in range(160)]
        world = play(played)
        ends.update(trial.end for trial in world.trials)
        num_taken += sum(trial.epoch > 1 for trial in world.trials)
        num_retried += sum(trial.life for trial in world.trials)
        epochs = {trial.id: trial.epoch for trial in world.trials}
        num_stale += sum(
            0 < event.epoch < epochs[event.trial]
            for event in everything(world)
            if isinstance(event, Reported)
        )
    assert set(ends) == {None, "stopped", "diverged", "finished", "cancelled", "failed"}
    assert min(ends.values()) > 10 and num_taken > 50 and num_stale > 50 and num_retried > 20


def zombie(trial: TrialState, tokens: int) -> list[Any]:
    """What the holder of an older epoch may still say, not having noticed that it lost it."""
    about = {"trial": trial.id, "epoch": trial.epoch - 1}
    said: Sequence[TrialEvent] = (
        Reported(**about, tokens=tokens, metrics={"fvu": 9.0}, busy_seconds=99.0),
        Checkpointed(**about, tokens=0),
        Preempted(**about, reason="late", tokens=0),
        Failed(**about, reason="late", final=False),
    )
    return [stamped(event, "zombie", 1000 + n) for n, event in enumerate(said)]


@thorough
@given(moves, st.integers(0, 20))
def test_what_is_said_under_a_lost_lease_moves_nothing(played: list[Move], at: int) -> None:
    world = play(played)
    before = fold(everything(world))
    taken = [
        trial
        for trial in before.trials.values()
        if trial.epoch > 1 and trial.started is not None and trial.started.epoch == trial.epoch
    ]
    late: list[AnyEvent] = [
        event for trial in taken for event in zombie(trial, at * INTERVAL_TOKENS)
    ]
    after = fold([*everything(world), *late])
    for trial in taken:
        now = after.trials[trial.id]
        for name in ("status", "epoch", "holder", "tokens", "started", "stop", "artefact"):
            assert getattr(now, name) == getattr(trial, name), name
        assert now.checkpoint_tokens == trial.checkpoint_tokens
        assert now.rungs == trial.rungs
        beyond = trial.started.tokens if trial.started else 0
        assert [h for h in now.history if h[0] > beyond] == [
            h for h in trial.history if h[0] > beyond
        ]
        assert now.busy_seconds >= trial.busy_seconds  # it is paid for all the same


def test_a_trial_goes_on_from_its_checkpoint_and_keeps_its_rungs() -> None:
    def reports(epoch: int, tokens: Iterable[int], writer: str) -> list[TrialEvent]:
        return [
            stamped(
                Reported(trial="t", epoch=epoch, tokens=at, metrics={"fvu": epoch}, rung=at),
                writer,
                10 + at,
            )
            for at in tokens
        ]

    events = [
        stamped(Suggested(trial="t", number=4, config={"k": 1}, total_tokens=9), "a", 1),
        stamped(Leased(trial="t", epoch=1), "a", 2),
        stamped(Started(trial="t", epoch=1, usd_per_hour=3600.0), "a", 3),
        *reports(1, (1, 2, 3), "a"),
        stamped(Checkpointed(trial="t", epoch=1, tokens=2), "a", 20),
        stamped(Leased(trial="t", epoch=2), "b", 1),
        stamped(Started(trial="t", epoch=2, tokens=2), "b", 2),
    ]
    state = fold_trial("t", events)
    assert (state.status, state.holder, state.epoch, state.tokens) == ("running", "b", 2, 2)
    assert [tokens for tokens, _ in state.history] == [1, 2]
    assert set(state.rungs) == {1, 2, 3}
    assert state.num_preemptions == 1 and state.number == 4
    again = fold_trial("t", [*events, *reports(2, (3, 4), "b")])
    assert [(tokens, m["fvu"]) for tokens, m in again.history] == [(1, 1), (2, 1), (3, 2), (4, 2)]
    assert again.rungs[3].epoch == 1


def test_device_time_and_money_add_up_over_epochs() -> None:
    events: list[TrialEvent] = []
    for epoch, price in ((1, 3600.0), (2, 7200.0)):
        writer = f"w{epoch}"
        events += [
            stamped(Leased(trial="t", epoch=epoch), writer, 1),
            stamped(Started(trial="t", epoch=epoch, usd_per_hour=price), writer, 2),
            stamped(
                Reported(trial="t", epoch=epoch, tokens=1, metrics={}, busy_seconds=2.0), writer, 3
            ),
            stamped(
                Reported(trial="t", epoch=epoch, tokens=2, metrics={}, busy_seconds=5.0), writer, 4
            ),
        ]
    state = fold_trial("t", events)
    assert state.busy_seconds == 10.0
    assert state.usd == 15.0


# Drivers


def driver(event: AnyEvent, writer: str, seq: int, at: float = 0.0) -> AnyEvent:
    return event.model_copy(update={"writer": writer, "seq": seq, "at": at})


def test_the_trials_of_a_driver_that_ended_wait_and_say_why() -> None:
    state = fold(
        [
            driver(DriverStarted(host="h", pid=1), "a", 1),
            driver(Leased(trial="t", epoch=1), "a", 2),
            driver(DriverEnded(driver="a", reason="killed"), "supervisor", 1, at=5.0),
        ]
    )
    assert state.trials["t"].status == "queued"
    assert state.trials["t"].reason == "its driver ended: killed"
    assert state.trials["t"].num_preemptions == 1
    assert state.drivers["a"].ended is not None


def test_of_two_who_saw_a_driver_end_the_earlier_is_quoted_whoever_is_read_first() -> None:
    events = [
        driver(DriverStarted(host="h", pid=1), "a", 1),
        driver(Leased(trial="t", epoch=1), "a", 2),
        driver(DriverEnded(driver="a", reason="late"), "c", 1, at=9.0),
        driver(DriverEnded(driver="a", reason="early"), "b", 1, at=8.0),
        driver(Closed(reason="late"), "c", 2, at=9.0),
        driver(Closed(reason="early"), "b", 2, at=8.0),
    ]
    state = SweepState()
    for event in events:
        state.add([event])
    assert state.trials["t"].reason == "its driver ended: early"
    assert state.closed is not None and state.closed.reason == "early"
    assert state.trials["t"].num_preemptions == 1


def test_the_last_fifty_events_for_people_are_kept_in_order_of_their_clocks() -> None:
    events = [
        driver(Stopped(**_stopped(f"t{n}")), f"w{n % 3}", n, at=float((n * 37) % 101))
        for n in range(100)
    ]
    state = SweepState()
    for event in events:
        state.add([event])
    clocks = [event.at for event in state.recent]
    assert clocks == sorted(event.at for event in events)[-50:]
    assert seen(state) == seen(fold(reversed(events)))


def _stopped(trial: str) -> dict[str, Any]:
    about: dict[str, Any] = {"trial": trial, "epoch": 1, "rule": "asha", "rung": 1, "metric": "fvu"}
    return {**about, "value": 1.0, "cutoff": 0.5, "against": 2, "reason": "x", "tokens": 1}


def test_reports_of_a_rung_are_found_by_stratum() -> None:
    state = fold(
        driver(
            Reported(trial=f"t{n}", epoch=1, tokens=9, metrics={}, rung=9, stratum=f"k={n % 2}"),
            f"w{n}",
            1,
        )
        for n in range(4)
    )
    assert set(state.rung(9, "k=1")) == {"t1", "t3"}
    assert state.rung(8, "k=1") == {}
