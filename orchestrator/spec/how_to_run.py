"""What of a sweep only says how it is run: no part of its identity, taken over by another run."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orchestrator.spec.sweep import SweepSpec

HOW_TO_RUN = frozenset({"price", "pack", "device", "checkpoint"})
"""Fields of every sweep that may change between two runs of what is still the same one; a job kind
names those of its own setup (`JobKind.how_to_run`)."""

Paths = Sequence[tuple[str, ...]]


def what_is_run(spec: SweepSpec) -> dict[str, Any]:
    """The spec as JSON values, without what only says how to run it."""
    left = spec.model_dump(mode="json", exclude=set(HOW_TO_RUN))
    for path in spec.kind.how_to_run:
        holder = _holder(left["setup"], path)
        if holder is not None:
            holder.pop(path[-1], None)
    return left


def run_as(given: SweepSpec) -> Callable[[SweepSpec], SweepSpec]:
    """Take over how a sweep is run, and nothing of what is run: that may have been extended."""

    def change(now: SweepSpec) -> SweepSpec:
        how = {name: getattr(given, name) for name in HOW_TO_RUN}
        before = now.setup.model_dump(mode="json")
        after = _taken_over(before, given.setup.model_dump(mode="json"), given.kind.how_to_run)
        setup = now.setup if after == before else type(now.setup).model_validate(after)
        return now.model_copy(update={**how, "setup": setup})

    return change


def _taken_over(setup: Mapping[str, Any], given: Mapping[str, Any], paths: Paths) -> dict[str, Any]:
    made = copy.deepcopy(dict(setup))
    for path in paths:
        holder, source = _holder(made, path), _holder(given, path)
        if holder is not None and source is not None and path[-1] in source:
            holder[path[-1]] = source[path[-1]]
    return made


def _holder(tree: Any, path: Sequence[str]) -> Any:
    """The mapping that a path's last key is in; None where a key on the way is not given."""
    for key in path[:-1]:
        tree = tree.get(key)
        if tree is None:
            return None
    return tree
