"""What only the store can say of a sweep's needs: asked when it is submitted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from orchestrator.needs.selection import COST, all_metrics
from orchestrator.needs.where import parse_where
from orchestrator.queue import Queue, UnknownSweep
from orchestrator.spec.faults import Fault, KeyPath, SpecFaults, closest, listed
from orchestrator.spec.sweep import Need, SweepSpec
from orchestrator.spec.sweep_file import read_text
from orchestrator.spec.yaml_positions import parse_yaml
from orchestrator.store import Store


def refuse_needs_that_cannot_be_met(spec: SweepSpec, store: Store, file: Path) -> None:
    """Look the needed sweeps up in the store the sweep is to go into.

    Raises:
        SpecFaults: a needed sweep is not there, makes something else, has no such metric, or needs
            this one; with the lines of the sweep file.
    """
    faults = list(need_faults(spec, store))
    if faults:
        document = parse_yaml(read_text(file), str(file))
        raise SpecFaults(document.all_placed(faults), str(file))


def need_faults(spec: SweepSpec, store: Store) -> Iterator[Fault]:
    """All that is wrong with a sweep's needs, given what is in the store."""
    queue = Queue(store)
    for index, need in enumerate(spec.needs):
        path: KeyPath = ("needs", index)
        try:
            other = queue.get(need.sweep).spec
        except UnknownSweep as error:
            near = closest(need.sweep, error.known)
            rule = f"no sweep of that name is in the store {store.url}"
            way_out = f"submit it first; there are: {listed(error.known[:8]) or 'none'}"
            yield Fault((*path, "sweep"), rule, need.sweep, way_out, near)
            continue
        chain = _chain_back(queue, spec.name, need.sweep)
        if chain:
            rule = f"needs a sweep that needs this one ({' -> '.join(chain)}): neither would start"
            yield Fault((*path, "sweep"), rule, need.sweep, "remove one of these needs")
        yield from _select_faults(need, other, (*path, "select"))


def _select_faults(need: Need, other: SweepSpec, path: KeyPath) -> Iterator[Fault]:
    kind, wanted = other.kind, need.select
    if wanted.kind != kind.artefact_kind:
        rule = f"sweep {need.sweep} makes artefacts of kind {kind.artefact_kind}"
        yield Fault((*path, "kind"), rule, wanted.kind, f"write kind: {kind.artefact_kind}")
    ranked = [metric.name for metric in all_metrics(kind) if metric.direction is not None]
    if wanted.best is not None and wanted.best not in ranked:
        rule = f"is no metric of {kind.name} by which one is better than another"
        near = closest(wanted.best, ranked)
        yield Fault((*path, "best"), rule, wanted.best, f"use one of {listed(ranked)}", near)
    metrics = [metric.name for metric in all_metrics(kind)]
    if wanted.pareto and COST not in metrics:
        rule = f"{kind.name} measures no {COST}, over which a frontier is drawn"
        yield Fault((*path, "pareto"), rule, way_out="use best or top")
    known = list(dict.fromkeys([*metrics, *other.names]))
    for name in parse_where(wanted.where).names:
        if name not in known:
            rule = f"{name} is neither a metric nor a parameter of sweep {need.sweep}"
            way_out = f"known: {listed(known)}"
            yield Fault((*path, "where"), rule, wanted.where, way_out, closest(name, known))


def _chain_back(queue: Queue, name: str, through: str) -> list[str]:
    """Names from a sweep over the ones it needs back to itself; empty when there is no such way."""
    ways = [[name, through]]
    seen = set()
    while ways:
        way = ways.pop()
        if way[-1] == name:
            return way
        if way[-1] in seen:
            continue
        seen.add(way[-1])
        try:
            needs = queue.get(way[-1]).spec.needs
        except UnknownSweep:
            continue
        ways.extend([*way, need.sweep] for need in needs)
    return []
