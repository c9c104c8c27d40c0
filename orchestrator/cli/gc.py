"""`saeq gc`: what nothing in the store refers to, shown and, when told to, removed."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.options import JsonOption, StoreOption

if TYPE_CHECKING:
    from orchestrator.garbage import Garbage


def gc(
    store: StoreOption = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Remove it.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show what nothing refers to: checkpoints of ended trials, uploads that were cut off.

    Removes nothing without --yes. What a running trial may need is never touched; unfinished
    writes count once they are an hour old.

        saeq gc
        saeq gc --yes
    """
    from orchestrator.garbage import GarbageSearch
    from orchestrator.store import Store

    search = GarbageSearch(Store.open(store))
    found = search.find()
    removed = search.remove(found) if yes else []
    if as_json:
        rows = [
            {"kind": one.kind, "place": one.place, "bytes": one.num_bytes, "removed": is_removed}
            for group, is_removed in ((removed, True), (_without(found, removed), False))
            for one in group
        ]
        sys.stdout.write(json.dumps(rows, indent=1) + "\n")
        return
    for line in _lines(removed if yes else found, removed=yes):
        typer.echo(line)


def _without(found: list[Garbage], removed: list[Garbage]) -> list[Garbage]:
    gone = {(one.kind, one.place) for one in removed}
    return [one for one in found if (one.kind, one.place) not in gone]


def _lines(found: list[Garbage], *, removed: bool) -> list[str]:
    """A table of counts and sizes by kind, and what to do about it."""
    from jobs.units import format_bytes
    from orchestrator.garbage import KINDS

    if not found:
        return ["nothing to remove: everything in this store is referred to"]
    width = max(len(kind) for kind in KINDS)
    by_kind = {kind: [one for one in found if one.kind == kind] for kind in KINDS}
    rows = [(kind, group) for kind, group in by_kind.items() if group]
    lines = [
        f"{name:<{width}}  {len(group):>7}  {format_bytes(sum(o.num_bytes for o in group)):>10}"
        for name, group in [*rows, ("all", found)]
    ]
    lines.insert(0, f"{'what':<{width}}  {'count':>7}  {'size':>10}")
    lines.append("removed" if removed else "nothing was removed; `saeq gc --yes` removes it")
    return lines
