"""Invents logs of sweeps: what drivers would have written, without any driver."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from orchestrator.log.events import (
    Cancelled,
    Checkpointed,
    Diverged,
    DriverEnded,
    DriverStarted,
    EventBase,
    Failed,
    Finished,
    Leased,
    Preempted,
    Reported,
    Started,
    Stopped,
    Submitted,
    Suggested,
)
from orchestrator.log.sweep_log import LogWriter, SweepLog
from orchestrator.stopping import stratum_of
from orchestrator.store import Store
from orchestrator.view.facts import SweepFacts, WatchedSweep

START_AT = 1_790_000_000.0
TOTAL = 64_000
RUNGS = (8_000, 24_000)
CUTOFF = {("k=16", 8_000): 0.55, ("k=64", 8_000): 0.45, ("k=16", 24_000): 0.40}
FACTS = SweepFacts(
    id="demo",
    job="sae_train",
    num_trials=16,
    strata=("k",),
    searched=("architecture", "d_sae", "k", "lr"),
    rungs=lambda total: tuple(rung for rung in RUNGS if rung < total),
    artefact_kind="sae",
    sampler="grid",
    scheduler="asha",
    submitted_at=START_AT - 5,
    setup={
        "model": {"builtin": "smollm2-135m"},
        "hooks": "model.layers.10",
        "tokens": TOTAL,
        "data": {"builtin": "python-docs"},
    },
)


@dataclass
class Clock:
    """A clock that moves when told."""

    now: float = START_AT

    def __call__(self) -> float:
        return self.now


@dataclass
class InventedSweep:
    """A sweep in a store, whose driver does what the test says."""

    store: Store
    facts: SweepFacts = FACTS
    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        self.driver = self.writer("driver")
        self.submitter = self.writer("submit")

    @classmethod
    def under(cls, folder: Path, **changed: Any) -> InventedSweep:
        """In a new store in a folder, with some facts changed."""
        return cls(Store.open(str(folder)), replace(FACTS, **changed))

    def writer(self, role: str) -> LogWriter:
        return LogWriter(self.store, self.facts.id, role, self.clock)

    def say(self, *events: EventBase, after_s: float = 0.0) -> None:
        self.clock.now += after_s
        self.driver.append(*events)

    def begin(self, **changed: Any) -> None:
        self.submitter.append(Submitted(spec_sha256="0" * 64, by="ada@laptop"))
        started = DriverStarted(
            host="laptop", pid=4711, num_cpus=2, slots=4, usd_per_hour=0.8
        ).model_copy(update=changed)
        self.say(started, after_s=2)

    def suggest(self, number: int, config: Mapping[str, Any], epoch: int = 1) -> str:
        trial = f"t{number:04d}"
        self.say(
            Suggested(trial=trial, number=number, config=config, total_tokens=TOTAL),
            Leased(trial=trial, epoch=epoch),
            Started(
                trial=trial,
                epoch=epoch,
                node="10.0.0.4",
                device="cpu",
                pack="pack-1",
                pid=77,
                usd_per_hour=0.8,
            ),
            after_s=1,
        )
        return trial

    def report(
        self, trial: str, config: Mapping[str, Any], curve: Mapping[int, float], epoch: int = 1
    ) -> None:
        for tokens, fvu in curve.items():
            metrics = {"fvu": fvu, "l0": config["k"] - 0.3, "dead_fraction": 0.02 + fvu / 9}
            stratum = stratum_of(config, metrics, self.facts.strata)
            self.say(
                Reported(
                    trial=trial,
                    epoch=epoch,
                    tokens=tokens,
                    metrics=metrics,
                    busy_seconds=tokens / 1000,
                    rung=tokens if tokens in RUNGS else None,
                    stratum=stratum,
                    cutoff=CUTOFF.get((stratum, tokens)) if tokens in RUNGS else None,
                    at_place={"pack": "pack-1", "lm_tokens_per_second": 2840.0, "members": 4},
                ),
                Checkpointed(trial=trial, epoch=epoch, tokens=tokens),
                after_s=2,
            )

    def watched(self) -> WatchedSweep:
        log = SweepLog(self.store, self.facts.id)
        log.refresh()
        return WatchedSweep(self.facts, log)


def config(number: int) -> dict[str, Any]:
    return {
        "architecture": "topk" if number % 2 else "batchtopk",
        "d_sae": 1024 if number % 4 < 2 else 2048,
        "k": (16, 64)[number % 2],
        "lr": (1e-5, 3e-3, 3e-2)[number % 3],
    }


def falling(last: float, up_to: int = TOTAL, step: int = 8_000) -> dict[int, float]:
    """A learning curve that ends at a value."""
    points = range(step, up_to + 1, step)
    return {tokens: last + (0.9 - last) * (1 - tokens / up_to) ** 3 for tokens in points}


def sweep_in_all_states(folder: Path, **changed: Any) -> InventedSweep:
    """Twelve trials: finished, stopped, diverged, failed, cancelled, running, queued; four to
    come."""
    sweep = InventedSweep.under(folder, **changed)
    sweep.begin()
    for number, last in ((0, 0.31), (1, 0.21), (3, 0.24)):
        _finish(sweep, number, last)
    _stop(sweep, 2, 8_000, 0.71)
    _stop(sweep, 4, 24_000, 0.52)
    _stop(sweep, 5, 8_000, 0.66)
    diverged = sweep.suggest(6, config(6))
    sweep.report(diverged, config(6), {4_000: 0.95, 6_000: float("inf")})
    sweep.say(
        Diverged(
            trial=diverged,
            epoch=1,
            rule="not finite",
            reason="loss is not finite at 6k tokens",
            tokens=6_000,
        )
    )
    _fail(sweep, 7)
    cancelled = sweep.suggest(8, config(8))
    sweep.say(Cancelled(trial=cancelled, epoch=1, by="ada"))
    for number, up_to in ((9, 40_000), (10, 16_000), (11, 4_000)):
        trial = sweep.suggest(number, config(number))
        sweep.report(trial, config(number), falling(0.3 + number / 60, up_to, up_to // 4))
    preempted = sweep.suggest(12, config(12))
    sweep.say(
        Checkpointed(trial=preempted, epoch=1, tokens=8_000),
        Preempted(trial=preempted, epoch=1, reason="spot notice on n2", tokens=8_000),
        after_s=3,
    )
    sweep.clock.now += 2
    return sweep


def _finish(sweep: InventedSweep, number: int, last: float) -> None:
    trial = sweep.suggest(number, config(number))
    sweep.report(trial, config(number), falling(last))
    sweep.say(
        Finished(
            trial=trial,
            epoch=1,
            artefact=f"{sweep.facts.id}-{trial}",
            metrics={"fvu": last, "l0": config(number)["k"] - 0.1, "ce_recovered": 0.93},
            tokens=TOTAL,
            busy_seconds=66.0,
        )
    )


def _stop(sweep: InventedSweep, number: int, rung: int, value: float) -> None:
    trial = sweep.suggest(number, config(number))
    sweep.report(trial, config(number), falling(value, rung))
    sweep.say(
        Stopped(
            trial=trial,
            epoch=1,
            rule="asha",
            rung=rung,
            metric="fvu",
            value=value,
            cutoff=0.41,
            against=3,
            reason=f"fvu {value} at {rung}; the best 1 of 4 reach 0.41",
            tokens=rung,
        )
    )


def _fail(sweep: InventedSweep, number: int) -> None:
    trial = sweep.suggest(number, config(number))
    sweep.say(
        Failed(
            trial=trial,
            epoch=1,
            reason="ValueError: k=4096 exceeds d_sae=1024",
            traceback="Traceback (most recent call last):\n  File 'sae.py', line 3, in step\n"
            "ValueError: k=4096 exceeds d_sae=1024",
            final=True,
        )
    )


def end_driver(sweep: InventedSweep, reason: str = "asked to stop") -> None:
    sweep.say(DriverEnded(driver=sweep.driver.id, reason=reason))
