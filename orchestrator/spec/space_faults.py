"""What is wrong with a search space as a whole: its conditions, and its names for a job kind."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from orchestrator.spec.distributions import Choice, Distribution, Fixed, Int, value_key
from orchestrator.spec.faults import Fault, KeyPath, closest, listed
from orchestrator.spec.pydantic_faults import type_words

if TYPE_CHECKING:
    from jobs import JobKind
    from orchestrator.spec.space import Space

MAX_CONDITION_VALUES = 1_000
"""Values of a whole-number range that a condition may name."""


def condition_faults(space: Space) -> list[Fault]:
    """Faults of all `when`, with paths below `space`."""
    faults = [fault for name in space.entries for fault in _when_faults(space, name)]
    circle = [name for name in space.entries if name not in space.order]
    if circle:
        rule = f"the conditions of {listed(circle)} go round in a circle, so none can be drawn"
        faults.append(Fault((circle[0], "when"), rule, way_out="drop one of them"))
    if not faults:
        faults.extend(_never_true(space))
    return faults


def _entry_path(space: Space, name: str, index: int) -> KeyPath:
    return (name,) if len(space.entries[name]) == 1 else (name, index)


def _when_faults(space: Space, name: str) -> Iterator[Fault]:
    alternatives = space.entries[name]
    for index, distribution in enumerate(alternatives):
        path = (*_entry_path(space, name, index), "when")
        for other, values in distribution.when:
            yield from _condition_faults(space, name, other, values, (*path, other))
    for (i, one), (j, other_one) in combinations(enumerate(alternatives), 2):
        if not _exclude_each_other(one, other_one):
            rule = f"may hold together with the one of {name}[{i}], which leaves two ranges"
            way_out = "make the conditions exclude each other, on one parameter they share"
            yield Fault((name, j, "when"), rule, way_out=way_out)


def _condition_faults(
    space: Space, name: str, other: str, values: Sequence[Any], path: KeyPath
) -> Iterator[Fault]:
    if other == name:
        yield Fault(path, f"{name} cannot depend on itself", way_out="name another parameter")
        return
    if other not in space.entries:
        rule = f"is no parameter of this space; it has {listed(space.entries)}"
        yield Fault(path, rule, way_out="name one of them", suggestion=closest(other, space.names))
        return
    sources = space.entries[other]
    if not sources:  # its own faults are told already
        return
    countable = all(
        isinstance(d, Choice | Fixed) or (isinstance(d, Int) and d.size <= MAX_CONDITION_VALUES)
        for d in sources
    )
    if not countable:
        way_out = "make it depend on a choice, or make that parameter a choice"
        yield Fault(path, f"{other} is a range, and a condition needs single values", None, way_out)
        return
    for value in values:
        if not any(d.contains(value) for d in sources):
            known = space.values_of(other)
            shown = listed(known[:12]) + ", ..." * (len(known) > 12)
            rule = f"is never true: {other} is one of {shown}"
            texts = [v for v in known if isinstance(v, str)]
            suggestion = closest(value, texts) if isinstance(value, str) else None
            yield Fault(path, rule, value, "use one of these, or add it there", suggestion)


def _exclude_each_other(one: Distribution, other: Distribution) -> bool:
    mine, theirs = dict(one.when), dict(other.when)
    return any(
        not {value_key(v) for v in mine[name]} & {value_key(v) for v in theirs[name]}
        for name in mine.keys() & theirs.keys()
    )


def _never_true(space: Space) -> Iterator[Fault]:
    states = space.condition_states()
    if states is None:
        return
    for name, alternatives in space.entries.items():
        reached = {id(space.applicable(name, state)) for state in states}
        for index, distribution in enumerate(alternatives):
            if id(distribution) not in reached:
                path = (*_entry_path(space, name, index), "when")
                conditions = {other: list(values) for other, values in distribution.when}
                rule = "is never true: its conditions do not go together"
                yield Fault(path, rule, conditions, "drop this range or widen the condition")


def kind_faults(
    space: Space, kind: JobKind, *, complete: bool, setup_is_known: bool = True
) -> list[Fault]:
    """Faults of the names: unknown, of no variant that is searched, missing.

    Args:
        setup_is_known: if not, it may be what would have decided between the variants.
    """
    models = kind.parameters()
    discriminator = kind.discriminator
    if not space.entries and complete and discriminator is None:
        return [Fault((), "is empty", {}, "write at least one parameter")]
    variants: list[str | None] = [None]
    faults: list[Fault] = []
    if discriminator is not None:
        is_due = complete and setup_is_known
        faults = list(_discriminator_faults(space, kind, discriminator, is_due=is_due))
        given = space.values_of(discriminator) or (() if complete else tuple(models))
        variants = [value for value in given if isinstance(value, str) and value in models]
    for name in space.entries:
        faults.extend(_name_faults(space, name, kind, variants))
    if complete:
        misspelt = {fault.suggestion for fault in faults}
        faults.extend(f for f in _missing(space, kind, variants) if f.path[0] not in misspelt)
    return faults


def _discriminator_faults(
    space: Space, kind: JobKind, discriminator: str, *, is_due: bool
) -> Iterator[Fault]:
    known = sorted(str(name) for name in kind.parameters())
    alternatives = space.entries.get(discriminator)
    if alternatives is None:
        if is_due:
            rule = "is missing; it decides which other parameters there are"
            way_out = f"write {discriminator}: {known[-1]} (known: {listed(known)})"
            yield Fault((discriminator,), rule, way_out=way_out)
        return
    for distribution in alternatives:
        if distribution.when or not isinstance(distribution, Choice | Fixed):
            rule = "decides which other parameters there are, so it cannot be a range or depend"
            way_out = f"write {discriminator}: {{choice: [{listed(known[:2])}]}}"
            yield Fault((discriminator,), rule, way_out=way_out)
            return
        for index, value in enumerate(distribution.corners()):
            if value not in known:
                is_choice = isinstance(distribution, Choice)
                path: KeyPath = (discriminator, "choice", index) if is_choice else (discriminator,)
                rule = f"unknown {discriminator}; known: {listed(known)}"
                yield Fault(path, rule, value, "use one of these", closest(value, known))


def _name_faults(
    space: Space, name: str, kind: JobKind, variants: Sequence[str | None]
) -> Iterator[Fault]:
    models = kind.parameters()
    having = [variant for variant, model in models.items() if name in model.model_fields]
    if not having:
        known = sorted({field for model in models.values() for field in model.model_fields})
        near = sorted({f for v in variants for f in models[v].model_fields}) or known
        suggestion = closest(name, near) or closest(name, known)
        way_out = "rename or remove it" if suggestion else f"known: {listed(near)}"
        yield Fault((name,), "unknown parameter", way_out=way_out, suggestion=suggestion)
        return
    if variants and not set(having) & set(variants):
        rule = (
            f"does not belong to {kind.discriminator} {listed(variants)}; it belongs to "
            f"{listed(having)}"
        )
        yield Fault((name,), rule, way_out=f"remove it, or search {kind.discriminator} {having[0]}")
        return
    for index, distribution in enumerate(space.entries[name]):
        asked = dict(distribution.when).get(kind.discriminator or "")
        if asked is not None and not set(asked) & set(having):
            path = (*_entry_path(space, name, index), "when", str(kind.discriminator))
            rule = (
                f"{name} does not belong to {kind.discriminator} {listed(asked)}; it belongs to "
                f"{listed(having)}"
            )
            yield Fault(path, rule, way_out="remove this range or change its condition")


def _missing(space: Space, kind: JobKind, variants: Sequence[str | None]) -> Iterator[Fault]:
    models = kind.parameters()
    needed_by: dict[str, list[str | None]] = {}
    for variant in variants:
        for name in required_fields(models[variant]):
            if name not in space.entries and name != kind.discriminator:
                needed_by.setdefault(name, []).append(variant)
    for name, needing in needed_by.items():
        field = models[needing[0]].model_fields[name]
        yield missing_parameter(name, field, kind.discriminator, needing)


def missing_parameter(
    name: str, field: FieldInfo, discriminator: str | None, needing: Sequence[str | None]
) -> Fault:
    """The fault of a required parameter that a trial would not have."""
    meaning = (field.description or "").split("\n")[0].rstrip(".")
    who = f"{discriminator} {listed(needing)} needs it" if discriminator else "every trial needs it"
    rule = f"is missing; {who}" + (f" ({meaning})" if meaning else "")
    return Fault((name,), rule, way_out=f"give it {type_words(field.annotation)} or a range")


def required_fields(model: type[BaseModel]) -> list[str]:
    """Fields without a default."""
    return [name for name, field in model.model_fields.items() if field.is_required()]
