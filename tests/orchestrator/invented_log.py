"""Logs as several drivers would write them, invented move by move.

The world keeps the two promises that the store keeps in a real sweep: one holder for each epoch of
a trial, and one end for each trial. Everything else is as unlucky as hypothesis likes: drivers
that are declared dead and go on writing, trials taken from under them, the same end told twice.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from orchestrator.log.events import (
    AnyEvent,
    Cancelled,
    Checkpointed,
    Closed,
    Diverged,
    DriverEnded,
    DriverStarted,
    Extended,
    Failed,
    Finished,
    Leased,
    Paused,
    Preempted,
    Prioritised,
    Reopened,
    Reported,
    Resumed,
    Retried,
    Started,
    Stopped,
    Submitted,
    Suggested,
)

NUM_DRIVERS = 3
INTERVAL_TOKENS = 1000
RUNGS = (2000, 6000)
MOVES = (
    *("suggest", "take", "take", "take", *("report",) * 6, "checkpoint", "checkpoint"),
    *("preempt", "fail", "stop", "diverge", "finish", "cancel", "declare_dead", "close"),
    *("fail_for_good", "fail_for_good", "retry", "order", "order"),
)
ENDINGS = {
    "stop": "stopped",
    "diverge": "diverged",
    "finish": "finished",
    "fail_for_good": "failed",
}
Move = tuple[str, int, int]
"""(what, the place of which driver, which of its trials)"""


def _eventful(seed: int, num_moves: int) -> list[Move]:
    """Hypothesis's own lists are short; a trial that is taken twice needs a long story."""
    rng = random.Random(seed)
    return [
        (rng.choice(MOVES), rng.randrange(NUM_DRIVERS), rng.randrange(4)) for _ in range(num_moves)
    ]


_one_move = st.tuples(st.sampled_from(MOVES), st.integers(0, NUM_DRIVERS - 1), st.integers(0, 3))
moves = st.lists(_one_move, max_size=40) | st.builds(
    _eventful, st.integers(0, 2**32), st.integers(30, 150)
)


@dataclass
class Ticket:
    """What one driver believes about a trial; it may have been taken from it since."""

    writer: str
    trial: str
    epoch: int
    tokens: int
    life: int = 0

    @property
    def about(self) -> dict[str, Any]:
        """What every event under it carries."""
        return {"trial": self.trial, "epoch": self.epoch, "life": self.life}


@dataclass
class Trial:
    """The truth about a trial."""

    id: str
    epoch: int = 0
    holder: str | None = None
    safe_tokens: int = 0
    end: str | None = None
    """Of its present life."""
    life: int = 0


@dataclass
class World:
    by_writer: dict[str, list[AnyEvent]] = field(default_factory=dict)
    trials: list[Trial] = field(default_factory=list)
    tickets: list[list[Ticket]] = field(default_factory=lambda: [[] for _ in range(NUM_DRIVERS)])
    """By place of a driver: its own, and those of dead ones before it that still go on writing."""
    generation: list[int] = field(default_factory=lambda: [0] * NUM_DRIVERS)
    dead: set[str] = field(default_factory=set)
    clock: float = 100.0

    def write(self, writer: str, event: AnyEvent) -> None:
        events = self.by_writer.setdefault(writer, [])
        # Clocks disagree and often stand still.
        at = self.clock + 7.0 * (sum(writer.encode()) % 3)
        self.clock += len(events) % 2
        events.append(event.model_copy(update={"writer": writer, "seq": len(events) + 1, "at": at}))

    def trial(self, name: str) -> Trial:
        return next(trial for trial in self.trials if trial.id == name)

    def driver(self, place: int) -> str:
        """The newest driver of a place; it starts when it is first heard of."""
        writer = f"driver-{place}.{self.generation[place]}"
        if writer not in self.by_writer:
            self.write(writer, DriverStarted(host="h", pid=place))
        return writer

    def move(self, what: str, place: int, which: int) -> None:
        writer = self.driver(place)
        if what == "suggest":
            self._suggest(writer)
        elif what == "take":
            self._take(place, which)
        elif what == "declare_dead":
            self.dead.add(writer)
            teller = self.driver(which % NUM_DRIVERS)
            self.write(teller, DriverEnded(driver=writer, reason=f"silent for {which} s"))
            self.generation[place] += which > 0  # else it may be declared dead once more
        elif what == "cancel":
            self._cancel(place, which)
        elif what == "retry":
            self._retry(place, which)
        elif what == "order":
            self._order(place, which)
        elif what == "close":
            self.write(writer, Closed(reason=f"{writer} saw the budget spent"))
        elif self.tickets[place]:
            self._work(what, place, self.tickets[place][which % len(self.tickets[place])])

    def _cancel(self, place: int, which: int) -> None:
        trials = [trial for trial in self.trials if trial.end is None]
        if which == 0 and trials:
            trial = trials[place % len(trials)]
            trial.end, trial.holder = "cancelled", None
            self.write(f"user-{place}", Cancelled(trial=trial.id, life=trial.life, by="a user"))

    def _retry(self, place: int, which: int) -> None:
        """Perhaps two users see the same failure."""
        failed = [trial for trial in self.trials if trial.end == "failed"]
        if failed:
            trial = failed[which % len(failed)]
            trial.end, trial.life = None, trial.life + 1
            for user in {f"user-{place}", f"user-{which}"}:
                self.write(user, Retried(trial=trial.id, epoch=trial.epoch, life=trial.life))

    def _order(self, place: int, which: int) -> None:
        """Two users who do not see each other may give orders of the same number."""
        about: dict[str, Any] = {"by": f"user-{place}", "order": 1 + sum(map(len, self.tickets))}
        trial = self.trials[-1].id if self.trials and place else ""
        event = (
            Paused(**about, trial=trial, keep_running=bool(place)),
            Resumed(**about, trial=trial),
            Prioritised(**about, priority=place - 1),
            Extended(**about, trials=9 + place) if place else Reopened(**about),
        )[which]
        self.write(f"user-{place}", event)

    def _suggest(self, writer: str) -> None:
        number = len(self.trials)
        self.trials.append(Trial(f"t{number:04d}"))
        config = {"k": 16 * (1 + number % 2)}
        self.write(
            writer,
            Suggested(trial=f"t{number:04d}", number=number, config=config, total_tokens=20_000),
        )

    def _take(self, place: int, which: int) -> None:
        writer = self.driver(place)
        free = [t for t in self.trials if t.end is None and t.holder in (None, *self.dead)]
        if not free or writer in self.dead:
            return
        trial = free[which % len(free)]
        trial.epoch, trial.holder = trial.epoch + 1, writer
        ticket = Ticket(writer, trial.id, trial.epoch, trial.safe_tokens, trial.life)
        self.write(writer, Leased(**ticket.about))
        self.tickets[place].append(ticket)
        started = Started(**ticket.about, tokens=ticket.tokens, usd_per_hour=3600.0)
        self.write(writer, started)

    def _work(self, what: str, place: int, ticket: Ticket) -> None:
        trial, writer, about = self.trial(ticket.trial), ticket.writer, ticket.about
        if what == "report":
            ticket.tokens += INTERVAL_TOKENS
            rung = ticket.tokens if ticket.tokens in RUNGS else None
            metrics = {"fvu": 1 / ticket.tokens}
            busy = ticket.tokens / INTERVAL_TOKENS
            self.write(
                writer,
                Reported(
                    **about, tokens=ticket.tokens, metrics=metrics, rung=rung, busy_seconds=busy
                ),
            )
        elif what == "checkpoint":
            if trial.epoch == ticket.epoch:
                trial.safe_tokens = max(trial.safe_tokens, ticket.tokens)
            self.write(writer, Checkpointed(**about, tokens=ticket.tokens))
        else:
            self.tickets[place].remove(ticket)
            self._let_go(what, ticket, trial)

    def _let_go(self, what: str, ticket: Ticket, trial: Trial) -> None:
        about, writer = ticket.about, ticket.writer
        is_held = trial.holder == writer and trial.epoch == ticket.epoch
        if what in ("preempt", "fail"):
            if is_held:
                trial.holder = None
            gone = Preempted(**about, reason="node gone", tokens=trial.safe_tokens)
            failed = Failed(**about, reason="ValueError: no", final=False)
            self.write(writer, gone if what == "preempt" else failed)
            return
        if trial.end is not None or trial.life != ticket.life:  # somebody else won the end object
            return
        trial.end = ENDINGS[what]
        trial.holder = None
        self.write(writer, ending(trial.end, ticket))


def ending(status: str, ticket: Ticket) -> AnyEvent:
    if status == "failed":
        return Failed(**ticket.about, reason="ValueError: no", final=True)
    about: dict[str, Any] = {**ticket.about, "tokens": ticket.tokens}
    if status == "stopped":
        return Stopped(
            **about,
            rule="asha",
            rung=2000,
            metric="fvu",
            value=0.5,
            cutoff=0.4,
            against=3,
            reason="x",
        )
    if status == "diverged":
        return Diverged(**about, rule="spike", reason="loss")
    return Finished(**about, artefact=ticket.trial, metrics={"fvu": 0.1})


def play(played: list[Move]) -> World:
    """The world after the moves, with all that was written in it."""
    world = World()
    world.write("submitter", Submitted(spec_sha256="0"))
    for move in played:
        world.move(*move)
    return world
