"""What is wrong with a sweep although each of its parts is right: the rules between the parts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from jobs import JobKind
from orchestrator.needs.where import WAY_OUT, BadCondition, parse_where
from orchestrator.samplers import SamplerConfig
from orchestrator.spec.config_checks import config_faults
from orchestrator.spec.faults import Fault, KeyPath, closest, listed
from orchestrator.spec.space import Space
from orchestrator.spec.sweep import final_metric, parameter_names, reported_metric, searched_names
from orchestrator.spec.units import format_tokens
from orchestrator.stopping import StoppingConfig

L0 = "l0"
"""Strata may name it: bands of the metric."""


@dataclass(frozen=True)
class Parts:
    """The sections of a sweep file that were right in themselves; None for the others."""

    kind: JobKind | None
    setup: Any
    space: Space | None
    names: tuple[str, ...] | None
    """Parameters of the space, also where it has faults."""
    search: SamplerConfig | None
    early_stop: StoppingConfig | None
    rest: Any
    """The sections that every sweep has: needs, report, guards, ..."""


def cross_faults(parts: Parts) -> list[Fault]:
    """All faults between the parts, as far as the parts are there."""
    faults = [*_setup_faults(parts), *_needs_faults(parts), *_length_faults(parts)]
    faults.extend(_metric_faults(parts))
    faults.extend(_strata_faults(parts))
    faults.extend(_search_faults(parts))
    if parts.kind is not None and parts.space is not None:
        faults.extend(config_faults(parts.kind, parts.setup, parts.space, parts.search))
    return faults


def _setup_faults(parts: Parts) -> Iterator[Fault]:
    if parts.kind is not None and parts.setup is not None:
        for path, message in parts.kind.check_setup(parts.setup):
            yield Fault(path, message)
        if parts.rest is not None:
            kinds = [need.select.kind for need in parts.rest.needs]
            for path, message in parts.kind.check_needs(parts.setup, kinds):
                yield Fault(path, message)


def _needs_faults(parts: Parts) -> Iterator[Fault]:
    """What shows without the store; `orchestrator.needs.at_submit` asks the rest."""
    kinds = sorted({kind.artefact_kind for kind in JobKind.by_name.values()})
    for index, need in enumerate(getattr(parts.rest, "needs", ())):
        path: KeyPath = ("needs", index)
        if need.sweep == getattr(parts.rest, "name", None):
            rule = "is this sweep itself, which would wait for ever"
            yield Fault((*path, "sweep"), rule, need.sweep, "name another sweep")
        wanted = need.select
        if wanted.kind not in kinds:
            rule, near = "no job kind makes such artefacts", closest(wanted.kind, kinds)
            way_out = f"use one of {listed(kinds)}"
            yield Fault((*path, "select", "kind"), rule, wanted.kind, way_out, near)
        ways = ("best", "top", "all", "pareto")
        asked = [way for way in ways if getattr(wanted, way) not in (None, False)]
        if len(asked) > 1:
            rule = f"only one of {listed(ways)} can be asked for"
            yield Fault((*path, "select"), rule, " and ".join(asked), f"keep {asked[0]} alone")
        try:
            parse_where(wanted.where)
        except BadCondition as error:
            yield Fault((*path, "select", "where"), error.detail, error.text, WAY_OUT)


def _length_faults(parts: Parts) -> Iterator[Fault]:
    if parts.kind is None or parts.setup is None:
        return
    total = parts.kind.total_tokens(parts.setup, {})
    length = f"the {format_tokens(total)} tokens of a trial"
    grace = getattr(parts.early_stop, "grace", None)
    if grace is not None and grace >= total:
        rule = f"must be below {length}, or nothing is ever stopped"
        yield Fault(("early_stop", "grace"), rule, format_tokens(grace), "lower it or raise tokens")
    report = getattr(parts.rest, "report", None)
    if report is not None and report > total:
        rule = f"must not exceed {length}, or nothing is ever reported on the way"
        yield Fault(("report",), rule, format_tokens(report), "lower it or raise tokens")
    after = getattr(getattr(parts.rest, "guards", None), "l0_after", None)
    if after is not None and after >= total:
        rule = f"must be below {length}, or the band is never looked at"
        yield Fault(("guards", "l0_after"), rule, format_tokens(after), "lower it or raise tokens")


def _metric_faults(parts: Parts) -> Iterator[Fault]:
    kind, early_stop = parts.kind, parts.early_stop
    if kind is None or early_stop is None:
        return
    name = early_stop.metric or kind.default_metric
    path: KeyPath = ("early_stop", "metric") if early_stop.metric else ("early_stop",)
    metric = reported_metric(kind, name)
    if metric is None and early_stop.scheduler == "none":
        metric = final_metric(kind, name)
    useful = [m.name for m in kind.metrics if m.direction is not None]
    if metric is None:
        final = [m.name for m in kind.final_metrics]
        if name in final:
            rule = "is only measured when a trial has finished, so nothing can be stopped by it"
            way_out = f"use one of {listed(useful)}, or scheduler: none"
            yield Fault(path, rule, name, way_out)
            return
        rule = f"is not reported by {kind.name}"
        known = [m.name for m in kind.metrics]
        yield Fault(path, rule, name, f"use one of {listed(useful)}", closest(name, known))
        return
    if metric.direction is None:
        rule = "is watched, but neither more nor less of it is better"
        yield Fault(path, rule, name, f"use one of {listed(useful)}")
    for needed in early_stop.needed_metrics:
        if reported_metric(kind, needed) is None:
            rule = f"{early_stop.scheduler} needs {needed}, which {kind.name} does not report"
            yield Fault(("early_stop", "scheduler"), rule, way_out="use scheduler: asha")
    if parts.space is None:
        return
    names = parameter_names(parts.space, parts.search)
    strata = early_stop.strata_or(kind.default_strata(names))
    searched = searched_names(parts.space, parts.search)
    clash = [n for n in metric.not_comparable_while_searching if n in searched and n not in strata]
    if clash:
        rule = f"cannot be compared between trials that differ in {listed(clash)}"
        way_out = f"use metric: {kind.default_metric}, or strata: [{listed((*strata, *clash))}]"
        yield Fault(path, rule, name, way_out)


def _strata_faults(parts: Parts) -> Iterator[Fault]:
    if parts.kind is None or parts.names is None or parts.early_stop is None:
        return
    listed_names = (n for config in getattr(parts.search, "configs", ()) for n in config)
    # A hook that is not searched is still a sensible stratum: the file may get a second one.
    always = {n for m in parts.kind.parameters().values() for n in m.model_fields if n == "hook"}
    bands = [L0] if reported_metric(parts.kind, L0) else []
    known = list(dict.fromkeys((*parts.names, *listed_names, *always, *bands)))
    for index, name in enumerate(parts.early_stop.strata or ()):
        path = ("early_stop", "strata", index)
        if name not in known:
            way_out = f"strata may name {listed(known)}"
            rule = "is no parameter of this space"
            yield Fault(path, rule, name, way_out, closest(name, known))
        elif name in (parts.early_stop.strata or ())[:index]:
            yield Fault(path, "stands twice", name, "keep one of them")


def _search_faults(parts: Parts) -> Iterator[Fault]:
    space, search = parts.space, parts.search
    if space is None or search is None:
        return
    messages = search.faults(space)
    if messages:
        yield from (Fault(("search",), message) for message in messages)
        return
    configs = getattr(search, "configs", ())
    size = len(configs) or space.size()
    if search.sampler == "grid":
        try:
            size = len(space.grid())
        except ValueError as error:
            yield Fault(("search", "sampler"), str(error))
            return
    if search.trials is not None and size is not None and search.trials > size:
        what = "configurations in the list" if configs else "different configurations in the space"
        rule = f"there are only {size} {what}"
        yield Fault(("search", "trials"), rule, search.trials, f"write trials: {size}")
