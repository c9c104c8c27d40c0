"""The search space: parameters, where their values come from, and on what each depends."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING, Any

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from orchestrator.spec import space_faults
from orchestrator.spec.distributions import (
    Choice,
    Distribution,
    Fixed,
    Int,
    LogUniform,
    Uniform,
    plain,
    value_key,
)
from orchestrator.spec.entries import parse_entry
from orchestrator.spec.faults import Fault, SpecFaults

if TYPE_CHECKING:
    from jobs import JobKind

__all__ = ["Choice", "Distribution", "Fixed", "Int", "LogUniform", "Space", "Uniform"]

MAX_GRID = 100_000
"""Points of a grid; more is a mistake, not a sweep."""
MAX_CONDITION_STATES = 10_000
"""Joint values of the parameters that conditions name, up to which they are gone through."""

Ask = Callable[[str, Distribution], Any]
Config = dict[str, Any]


@dataclass(frozen=True)
class Space:
    """What may be tried. `parse` checks; the constructor trusts."""

    entries: Mapping[str, tuple[Distribution, ...]]
    """Parameter -> its distributions, in the file's order; several exclude each other by `when`."""

    @classmethod
    def parse(cls, raw: Any, implied: Mapping[str, Sequence[Any]] | None = None) -> Space:
        """Read the `space:` of a sweep file or its JSON.

        Args:
            raw: parameter name -> scalar, mapping with a form, or list of such mappings.
            implied: parameters that other parts of the file open; the space's own come first.

        Raises:
            SpecFaults: all faults, with paths below `space`.
        """
        if isinstance(raw, Space):
            return raw
        space, faults = cls.read(raw, implied)
        if faults:
            raise SpecFaults(faults)
        return space

    @classmethod
    def read(
        cls, raw: Any, implied: Mapping[str, Sequence[Any]] | None = None
    ) -> tuple[Space, list[Fault]]:
        """As `parse`, but what can be read comes back beside the faults; the rest is empty."""
        if not isinstance(raw, Mapping):
            way_out = "write lines such as `k: {choice: [16, 32]}` below space"
            return cls({}), [Fault((), "must map parameters to what they may be", raw, way_out)]
        faults: list[Fault] = []
        entries: dict[str, tuple[Distribution, ...]] = {
            name: (Choice(values=tuple(values)),)
            for name, values in (implied or {}).items()
            if name not in raw
        }
        for name, entry in raw.items():
            try:
                entries[str(name)] = parse_entry(entry)
            except SpecFaults as error:
                faults.extend(fault.under((str(name),)) for fault in error.faults)
                entries[str(name)] = ()
        space = cls(entries)
        return space, [*faults, *space_faults.condition_faults(space)]

    def for_kind(self, kind: JobKind, *, complete: bool = True) -> Space:
        """The space in which parameters that only some variants have are asked for those alone.

        Args:
            kind: whose parameters these are.
            complete: whether every trial's whole configuration comes from here; if not, what is
                missing is no fault.

        Raises:
            SpecFaults: a parameter that no variant in the space has, a missing one, ...
        """
        faults = space_faults.kind_faults(self, kind, complete=complete)
        if faults:
            raise SpecFaults(faults)
        narrowed, faults = self.narrowed_to(kind)
        if faults:
            raise SpecFaults(faults)
        return narrowed

    def narrowed_to(self, kind: JobKind) -> tuple[Space, list[Fault]]:
        """As `for_kind`, for a space whose names fit the kind; the faults come back beside it."""
        discriminator = kind.discriminator
        if discriminator is None or discriminator not in self.entries:
            return self, []
        models = kind.parameters()
        variants = self.values_of(discriminator)
        entries = {}
        for name, alternatives in self.entries.items():
            having = [v for v in variants if v in models and name in models[v].model_fields]
            if name != discriminator and len(having) < len(variants):
                alternatives = tuple(_only_for(d, discriminator, having) for d in alternatives)
            entries[name] = alternatives
        narrowed = Space(entries)
        return narrowed, space_faults.condition_faults(narrowed)

    @property
    def names(self) -> tuple[str, ...]:
        """All parameters, in the file's order."""
        return tuple(self.entries)

    @cached_property
    def searched(self) -> tuple[str, ...]:
        """Parameters that differ between trials, also by being absent from some of them."""
        states = self.condition_states()
        found = []
        for name, alternatives in self.entries.items():
            varies = any(d.varies for d in alternatives)
            if not varies and states is None:
                varies = any(d.when for d in alternatives)
            elif not varies and states is not None:
                varies = len({_outcome(self.applicable(name, state)) for state in states}) > 1
            if varies:
                found.append(name)
        return tuple(found)

    def walk(self, ask: Ask) -> Config:
        """Make one configuration: the only place where conditions are resolved.

        Args:
            ask: called with name and distribution of each parameter that applies and is not
                fixed, those that others depend on first.

        Returns:
            Plain JSON values in the file's order; parameters that do not apply are absent.
        """
        config: Config = {}
        for name in self.order:
            distribution = self.applicable(name, config)
            if isinstance(distribution, Fixed):
                config[name] = plain(distribution.value)
            elif distribution is not None:
                config[name] = ask(name, distribution)
        return self._in_file_order(config)

    def sample(self, rng: random.Random) -> Config:
        """Draw one configuration."""
        return self.walk(lambda _, distribution: distribution.sample(rng))

    def grid(self) -> list[Config]:
        """All combinations, the last parameter fastest.

        Raises:
            ValueError: a range has no `points`, or there are more than MAX_GRID combinations.
        """
        open_ranges = [
            name for name, ds in self.entries.items() if any(d.grid_values() is None for d in ds)
        ]
        if open_ranges:
            raise ValueError(
                f"a grid cannot visit all of a range: {', '.join(open_ranges)}; add `points: 5` "
                "there or use sampler: random"
            )
        size = self.grid_size()
        if size is None or size > MAX_GRID:
            raise ValueError(
                f"the grid has {size or 'countless'} points, more than {MAX_GRID}; shorten the "
                "lists or use sampler: random"
            )
        return list(self.combinations(lambda d: d.grid_values() or ()))

    def combinations(self, values_of: Callable[[Distribution], Sequence[Any]]) -> Iterator[Config]:
        """Every configuration over the values that are given for each distribution."""
        return map(self._in_file_order, self._combine(self.order, values_of))

    def grid_size(self) -> int | None:
        """Number of grid points; None when a range has no `points`."""
        return self._count(lambda d: None if (v := d.grid_values()) is None else len(v))

    def size(self) -> int | None:
        """Number of different configurations; None when there is no end of them."""
        return self._count(_num_values)

    def values_of(self, name: str) -> tuple[Any, ...]:
        """All values a choice, fixed or whole-number parameter can have, in order."""
        values = [v for d in self.entries.get(name, ()) for v in (d.grid_values() or d.corners())]
        return tuple({value_key(value): value for value in values}.values())

    def applicable(self, name: str, config: Mapping[str, Any]) -> Distribution | None:
        """The distribution whose conditions hold; None if the parameter does not apply."""
        return next((d for d in self.entries[name] if holds(d, config)), None)

    @cached_property
    def conditioning(self) -> tuple[str, ...]:
        """Parameters that conditions name, those that others of them depend on first."""
        named = {name for ds in self.entries.values() for d in ds for name, _ in d.when}
        return tuple(name for name in self.order if name in named)

    @cached_property
    def order(self) -> tuple[str, ...]:
        """Parameters, each after those its conditions name; else in the file's order.

        Those in a circle of conditions are left out: `parse` refuses them.
        """
        depends_on = {
            name: {other for d in ds for other, _ in d.when if other in self.entries}
            for name, ds in self.entries.items()
        }
        ordered: dict[str, None] = {}
        while ready := [n for n, on in depends_on.items() if n not in ordered and on <= {*ordered}]:
            ordered[ready[0]] = None
        return tuple(ordered)

    def condition_states(self) -> list[Config] | None:
        """Every joint value of the parameters that conditions name; None if they are too many."""
        states: list[Config] = []
        for state in self._combine(self.conditioning, lambda d: d.grid_values() or ()):
            states.append(state)
            if len(states) > MAX_CONDITION_STATES:
                return None
        return states

    def as_json(self) -> dict[str, Any]:
        """The space as it would stand in a sweep file."""
        return {
            name: ds[0].as_json() if len(ds) == 1 else [d.as_json() for d in ds]
            for name, ds in self.entries.items()
        }

    def _combine(
        self, names: Sequence[str], values_of: Callable[[Distribution], Sequence[Any]]
    ) -> Iterator[Config]:
        if not names:
            yield {}
            return
        for config in self._combine(names[:-1], values_of):
            distribution = self.applicable(names[-1], config)
            if distribution is None:
                yield config
            else:
                for value in values_of(distribution):
                    yield {**config, names[-1]: value}

    def _count(self, count: Callable[[Distribution], int | None]) -> int | None:
        states = self.condition_states()
        if states is None:
            return None
        rest = [name for name in self.order if name not in self.conditioning]
        total = 0
        for state in states:
            applicable = [d for name in rest if (d := self.applicable(name, state)) is not None]
            counts = [count(distribution) for distribution in applicable]
            if None in counts:
                return None
            total += prod(c for c in counts if c is not None)
        return total

    def _in_file_order(self, config: Config) -> Config:
        return {name: config[name] for name in self.entries if name in config}

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        del source, handler
        return core_schema.no_info_plain_validator_function(
            cls.parse,
            serialization=core_schema.plain_serializer_function_ser_schema(cls.as_json),
        )


def holds(distribution: Distribution, config: Mapping[str, Any]) -> bool:
    """Whether a distribution's conditions hold; one on an absent parameter does not."""
    return all(
        name in config and value_key(config[name]) in {value_key(value) for value in values}
        for name, values in distribution.when
    )


def _outcome(distribution: Distribution | None) -> str:
    return "" if distribution is None else value_key(distribution.corners())


def _num_values(distribution: Distribution) -> int | None:
    if isinstance(distribution, Int):
        return distribution.size
    return len(distribution.corners()) if isinstance(distribution, Choice | Fixed) else None


def _only_for(
    distribution: Distribution, discriminator: str, variants: Sequence[Any]
) -> Distribution:
    """The distribution with a condition on the discriminator, or the one it has narrowed."""
    conditions = dict(distribution.when)
    asked = conditions.get(discriminator, tuple(variants))
    conditions[discriminator] = tuple(value for value in asked if value in variants)
    return replace(distribution, when=tuple(conditions.items()))
