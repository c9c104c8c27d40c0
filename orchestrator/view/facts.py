"""What the views need to know of a sweep's spec, and nothing else of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from orchestrator.log.sweep_log import SweepLog, refresh_all
from orchestrator.stopping.strata import stratum_of
from orchestrator.store import Store
from orchestrator.view.silence import Silence

if TYPE_CHECKING:
    from orchestrator.queue import QueuedSweep
    from orchestrator.spec.sweep import SweepSpec


def _nothing_unmet() -> str:
    return ""


def _never_silent(drivers: Iterable[str]) -> float | None:
    del drivers
    return None


def _no_rungs(total_tokens: int) -> tuple[int, ...]:
    del total_tokens
    return ()


@dataclass(frozen=True)
class SweepFacts:
    """A sweep as it was asked for."""

    id: str
    job: str = "sae_train"
    unit: str = "tokens"
    """What a trial's progress is counted in."""
    metrics: tuple[str, ...] = ("fvu", "l0", "dead_fraction", "ce_recovered")
    """All that its trials may report, in the order of the job kind."""
    num_trials: int = 0
    metric: str = "fvu"
    direction: Literal["min", "max"] = "min"
    strata: tuple[str, ...] = ()
    searched: tuple[str, ...] = ()
    """Parameters that differ between trials, in the order of the sweep file."""
    rungs: Callable[[int], tuple[int, ...]] = _no_rungs
    """A trial's tokens -> the token counts at which it may be stopped."""
    artefact_kind: str = ""
    sampler: str = ""
    scheduler: str = ""
    budget_usd: float | None = None
    budget_hours: float | None = None
    submitted_at: float | None = None
    priority: int = 0
    why_unmet: Callable[[], str] = _nothing_unmet
    """Which sweep it waits for and how that one stands; empty when it waits for none."""
    silent_s: Callable[[Iterable[str]], float | None] = _never_silent
    """Drivers -> seconds since the last sign of life of any; None if that is not known."""
    setup: Mapping[str, Any] = field(default_factory=dict)
    """The job kind's part of the sweep file: model, data, hooks, tokens, ..."""

    def stratum(self, config: Mapping[str, Any], metrics: Mapping[str, float | None]) -> str:
        """Name of the group within which a trial is compared."""
        return stratum_of(config, metrics, self.strata)

    def next_rung(self, tokens: int, total_tokens: int) -> int | None:
        """The first rung above a token count; None when there is none left."""
        if total_tokens <= 0:
            return None
        return next((rung for rung in self.rungs(total_tokens) if rung > tokens), None)

    def is_better(self, value: float, other: float) -> bool:
        """Whether one value of the metric beats another."""
        return value < other if self.direction == "min" else value > other


def facts_of(queued: QueuedSweep) -> SweepFacts:
    """Draw the facts from a submitted sweep."""
    spec = queued.spec
    return SweepFacts(
        id=queued.id,
        job=spec.job,
        unit=spec.kind.unit,
        metrics=tuple(m.name for m in (*spec.kind.metrics, *spec.kind.final_metrics)),
        num_trials=spec.trials,
        metric=spec.metric,
        direction=spec.direction,
        strata=tuple(spec.strata),
        searched=_telling(spec),
        rungs=spec.early_stop.rungs,
        artefact_kind=spec.kind.artefact_kind,
        sampler=spec.search.sampler,
        scheduler=spec.early_stop.scheduler,
        budget_usd=spec.budget.usd,
        budget_hours=spec.budget.hours,
        submitted_at=queued.submitted_at,
        priority=queued.priority,
        setup=spec.setup.model_dump(mode="json"),
    )


def _telling(spec: SweepSpec) -> tuple[str, ...]:
    """Parameters worth a column: those that differ in value, not only by being absent."""
    return tuple(
        name
        for name in spec.searched
        if name not in spec.space.entries or len(spec.space.values_of(name)) > 1
    )


@dataclass
class WatchedSweep:
    """A sweep and its log, as far as it was read."""

    facts: SweepFacts
    log: SweepLog

    @classmethod
    def open(cls, store: Store, sweep: str) -> WatchedSweep:
        """Find a sweep in the store and read its log. Raises UnknownSweep."""
        from orchestrator.queue import Queue

        return cls._of(store, Queue(store).get(sweep))

    @classmethod
    def open_all(
        cls, store: Store, sweeps: Sequence[QueuedSweep] | None = None
    ) -> list[WatchedSweep]:
        """Several sweeps and their logs; not given: every one of the store, oldest first."""
        from orchestrator.queue import Queue

        wanted = Queue(store).all() if sweeps is None else sweeps
        watched = [cls._unread(store, queued) for queued in wanted]
        refresh_all([each.log for each in watched])
        return watched

    @classmethod
    def _of(cls, store: Store, queued: QueuedSweep) -> WatchedSweep:
        watched = cls._unread(store, queued)
        watched.log.refresh()
        return watched

    @classmethod
    def _unread(cls, store: Store, queued: QueuedSweep) -> WatchedSweep:
        facts = replace(facts_of(queued), silent_s=Silence(store, queued.id).since_s)
        if queued.spec.needs:
            from orchestrator.needs.readiness import Needs

            facts = replace(facts, why_unmet=Needs(store, queued.id, queued.spec.needs).why_unmet)
        return cls(facts, SweepLog(store, queued.id))
