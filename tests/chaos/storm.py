"""A sweep of a tiny model under random blows, until it is over all the same.

The seed fixes which blows fall in which order and after how many seconds; what the processes were
doing at that moment it cannot fix.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from orchestrator.log.sweep_log import SweepLog
from orchestrator.log.sweep_status import is_over, sweep_status
from orchestrator.queue import Queue
from orchestrator.spec.sweep import parse_sweep
from orchestrator.store import Store
from tests.chaos.faults import Fault, Scene
from tests.chaos.segments import Broken
from tests.chaos.served import Served
from tests.chaos.verdict import UPLOAD_SLACK_S, Verdict, judge
from tests.orchestrator.running import SWEEP

LOOK_EVERY_S = 0.25
NUM_BAD = 3
"""Every third learning rate is one at which nothing is learnt: early stopping has to act."""

Say = Callable[[str], None]
Command = Literal["run", "serve"]


@dataclass(frozen=True)
class Weather:
    """What a storm is like."""

    seed: int = 0
    storm_seconds: float = 600.0
    """Blows fall for that long; then the sweep may end in peace."""
    max_strikes: int | None = None
    """No further blow after so many."""
    calm_seconds: float = 600.0
    """How long the sweep may take to end after the last blow."""
    pause_seconds: tuple[float, float] = (5.0, 15.0)
    """Between two blows."""
    stop_seconds: tuple[float, float] = (25.0, 60.0)
    """How long a driver sleeps that is stopped."""
    restart_seconds: float = 2.0
    """After a serve ended, until it is started again."""
    faults: tuple[str, ...] = tuple(Fault.by_name)
    num_serves: int = 2
    command: Command = "serve"
    trials: int = 24
    tokens: int = 1_000_000
    checkpoint_seconds: float = 2.0
    again: bool = True
    """Submit the next sweep when one is over before the storm is."""


@dataclass
class Report:
    """What was done, and what became of it."""

    seed: int
    seconds: float = 0.0
    strikes: list[tuple[float, str, str]] = field(default_factory=list)
    """(seconds since the start, fault, what it hit)."""
    surprises: list[str] = field(default_factory=list)
    """Ends of a serve that nobody had caused."""
    verdicts: list[Verdict] = field(default_factory=list)
    broken: list[Broken] = field(default_factory=list)
    """What no single sweep is to blame for."""

    @property
    def num_kills(self) -> int:
        return sum(Fault.by_name[name].is_kill for _, name, _ in self.strikes)

    @property
    def holds(self) -> bool:
        return not self.broken and all(verdict.holds for verdict in self.verdicts)

    def __str__(self) -> str:
        by_fault = Counter(name for _, name, _ in self.strikes)
        hits = ", ".join(f"{number} {name}" for name, number in sorted(by_fault.items()))
        num_broken = len(self.broken) + sum(len(v.broken) for v in self.verdicts)
        lost = sum(verdict.lost_device_seconds for verdict in self.verdicts)
        resumes = sum(len(verdict.resumes) for verdict in self.verdicts)
        return "\n".join(
            [
                f"seed {self.seed}: {self.num_kills} kills in {self.seconds:.0f} s ({hits}), "
                f"{resumes} resumes, {lost:.1f} device seconds lost",
                *map(str, self.verdicts),
                *(f"  ended by itself: {surprise}" for surprise in self.surprises),
                *(f"  BROKEN  {broken}" for broken in self.broken),
                "verdict: every promise holds"
                if self.holds
                else f"verdict: {num_broken} promises broken; seed {self.seed}",
            ]
        )


class Storm:
    """One storm over one store.

    Args:
        folder: for sweep files, outputs and temporary files.
        model: folder of a tiny model.
        environment: for the commands, such as the credentials of an S3 server.
        say: told about every blow as it falls.
    """

    def __init__(
        self,
        weather: Weather,
        store: Store,
        folder: Path,
        model: Path,
        *,
        environment: Mapping[str, str] | None = None,
        say: Say | None = None,
    ) -> None:
        self.weather, self.store = weather, store
        self._folder, self._model, self._say = folder, model, say
        self._rng = random.Random(weather.seed)
        names = [f"{weather.command}-{number}" for number in range(1, weather.num_serves + 1)]
        self.serves = [Served(name, folder, environment or {}) for name in names]
        self._scene = Scene(store, self.serves, self._rng, stop_seconds=weather.stop_seconds)
        self.report = Report(weather.seed)
        self._sweeps: list[str] = []
        self._file = folder / "none.yaml"
        self._begun = self._next_strike = 0.0
        self._ended_at: dict[str, float] = {}
        self._killed: set[str] = set()

    def run(self) -> Report:
        """To the end of the sweep, or of its patience; never raises for a broken promise."""
        self._begun = time.monotonic()
        self._submit_next()
        self._plan_next_strike()
        try:
            self._blow()
            for driver in self._scene.wake(all_of_them=True):
                self._tell(f"woke {driver}")
            self._calm_down()
            self._stop_serves()
        finally:
            self._scene.wake(all_of_them=True)
            for served in self.serves:
                served.clear()
        self.report.seconds = time.monotonic() - self._begun
        self.report.verdicts = [
            judge(self.store, sweep, self._scene.damage, slack_s=UPLOAD_SLACK_S)
            for sweep in self._sweeps
        ]
        return self.report

    # The weather

    def _blow(self) -> None:
        weather = self.weather
        while time.monotonic() - self._begun < weather.storm_seconds:
            if weather.max_strikes is not None and len(self.report.strikes) >= weather.max_strikes:
                return
            self._keep_up()
            if self._is_over():
                if not weather.again:
                    return
                self._submit_next()
            if time.monotonic() >= self._next_strike and self._has_begun():
                self._strike()
                self._plan_next_strike()
            time.sleep(LOOK_EVERY_S)

    def _calm_down(self) -> None:
        self._tell("the storm is over")
        deadline = time.monotonic() + self.weather.calm_seconds
        while not self._is_over():
            if time.monotonic() > deadline:
                said = " | ".join(served.output(300) for served in self.serves)
                detail = f"not over {self.weather.calm_seconds:.0f} s after the storm: {said}"
                self.report.broken.append(Broken("a sweep ends", self._scene.sweep, detail))
                return
            self._keep_up()
            time.sleep(LOOK_EVERY_S)

    def _plan_next_strike(self) -> None:
        self._next_strike = time.monotonic() + self._rng.uniform(*self.weather.pause_seconds)

    def _strike(self) -> None:
        """One fault, drawn by weight; another one where there is nothing of its kind."""
        left = [Fault.by_name[name] for name in self.weather.faults]
        while left:
            (kind,) = self._rng.choices(left, weights=[fault.weight for fault in left])
            left.remove(kind)
            hit = kind().strike(self._scene)
            if hit is not None:
                at = time.monotonic() - self._begun
                self.report.strikes.append((at, kind.name, hit))
                self._tell(f"{kind.name}: {hit}")
                self._killed.update(s.name for s in self.serves if s.poll() is not None)
                return

    # What goes on meanwhile

    def _keep_up(self) -> None:
        """Start what has ended, wake what has slept enough."""
        for driver in self._scene.wake():
            self._tell(f"woke {driver}")
        for served in self.serves:
            code = served.poll()
            if not served.has_started:
                self._start(served)
            elif code is not None:
                self._start_again(served, code)

    def _start_again(self, served: Served, code: int) -> None:
        now = time.monotonic()
        since = self._ended_at.setdefault(served.name, now)
        if since == now and served.name not in self._killed and code != 0:
            self.report.surprises.append(f"{served.name} with code {code}: {served.output(200)!r}")
            self._tell(f"{served.name} ended with code {code}")
        if now - since >= self.weather.restart_seconds:
            self._ended_at.pop(served.name)
            self._killed.discard(served.name)
            self._start(served)

    def _start(self, served: Served) -> None:
        served.start(command_line(self.weather.command, self.store, self._file))

    def _submit_next(self) -> None:
        number = len(self._sweeps) + 1
        text = sweep_text(self.weather, f"storm-{number}", self._model)
        self._file = self._folder / f"storm-{number}.yaml"
        self._file.write_text(text)
        queued, _ = Queue(self.store).submit(parse_sweep(text), text)
        self._sweeps.append(queued.id)
        self._scene.sweep = queued.id
        self._log, self._num_trials = SweepLog(self.store, queued.id), queued.spec.trials
        self._tell(f"sweep {queued.id}: {queued.spec.trials} trials")

    def _is_over(self) -> bool:
        return is_over(sweep_status(self._num_trials, self._log.refresh()))

    def _has_begun(self) -> bool:
        return any(trial.started for trial in self._log.state.trials.values())

    def _stop_serves(self) -> None:
        """SIGTERM, as at a machine's end; nothing may outlive it."""
        for served in self.serves:
            if served.poll() is None and served.has_started and served.stop(within_s=60.0) is None:
                rule = "a command that is asked to stop goes within 60 s"
                self.report.broken.append(Broken(rule, served.name, served.output(300)))
        for served in self.serves:
            for process in served.leftovers(within_s=45.0):
                detail = f"{process}: {process.command[:120]}"
                self.report.broken.append(Broken("no process is left", served.name, detail))

    def _tell(self, line: str) -> None:
        if self._say is not None:
            self._say(f"{time.monotonic() - self._begun:7.1f} s  {line}")


def command_line(command: Command, store: Store, file: Path) -> list[str]:
    """Arguments of `saeq` that work a sweep off, or everything that is in the store."""
    what = ["run", str(file)] if command == "run" else ["serve"]
    return [*what, "--plain", "--store", store.url]


def sweep_text(weather: Weather, name: str, model: Path) -> str:
    """A grid of two k and as many learning rates as make up the trials."""
    num_rates = max(1, weather.trials // 2)
    rates = [
        1.0e-6 * (1 + place / 100) if place % NUM_BAD == NUM_BAD - 1 else 1.0e-3 * (1 + place / 10)
        for place in range(num_rates)
    ]
    grace = weather.tokens // 8
    return SWEEP.format(
        name=name,
        model=model,
        tokens=weather.tokens,
        lrs=", ".join(f"{rate:.4e}" for rate in rates),
        early_stop=f"{{scheduler: asha, grace: {grace}, reduction: 3}}",
        report=weather.tokens // 32,
        checkpoint_seconds=weather.checkpoint_seconds,
        members=4,
    )


def known_faults(names: Sequence[str]) -> tuple[str, ...]:
    """The names, if all of them are known. Raises ValueError that lists those that are."""
    for name in names:
        if name not in Fault.by_name:
            known = ", ".join(sorted(Fault.by_name))
            raise ValueError(f"fault {name!r} is unknown; known faults: {known}")
    return tuple(names)
