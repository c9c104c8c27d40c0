"""Trying the configurations of a space before anything runs: every value, and every corner."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

from pydantic import ValidationError

from jobs import JobKind
from orchestrator.samplers import SamplerConfig
from orchestrator.samplers.list import completed
from orchestrator.spec.distributions import Choice, Distribution, Fixed, value_key
from orchestrator.spec.faults import Fault, KeyPath, listed
from orchestrator.spec.pydantic_faults import model_faults
from orchestrator.spec.space import Space
from orchestrator.spec.space_faults import required_fields

MAX_PROBES = 2_000
"""Configurations that are tried; with more corners than that: value by value, and at random."""
MAX_MESSAGES_A_PLACE = 3

Config = dict[str, Any]


@dataclass
class _Told:
    """What was found wrong at one place of the file."""

    first: dict[str, Fault] = field(default_factory=dict)
    """Message -> the fault as it was first seen."""
    num_configs: int = 0


def config_faults(
    kind: JobKind, setup: Any, space: Space, search: SamplerConfig | None
) -> list[Fault]:
    """Faults of the configurations that the sweep would try, each told once at its place.

    Args:
        setup: the kind's part, or None if it has faults: then only the parameters are judged.
    """
    configs = getattr(search, "configs", ())
    if configs:
        return list(_list_faults(kind, setup, space, configs))
    told: dict[KeyPath, _Told] = {}
    num_probes = 0
    for config in probes(space):
        num_probes += 1
        seen: set[KeyPath] = set()
        for fault in _one_config(kind, setup, config):
            placed = _placed(fault, space, config)
            entry = told.setdefault(placed.path, _Told())
            entry.first.setdefault(fault.rule, placed)
            entry.num_configs += placed.path not in seen
            seen.add(placed.path)
    return [fault for entry in told.values() for fault in _summed_up(entry, num_probes)]


def _placed(fault: Fault, space: Space, config: Config) -> Fault:
    """The fault at its value's place in the space."""
    if fault.rule.startswith("is missing") and fault.path[0] in space.entries:
        rule = f"{fault.path[0]} is needed where its `when` leaves it out"
        way_out = "widen the condition, or add a range for the other cases"
        return Fault(("space", fault.path[0]), rule, way_out=way_out)
    return replace(fault, path=("space", *_entry_path(space, fault.path, config)))


def probes(space: Space) -> Iterator[Config]:
    """Configurations that stand for the space: all corners if they are not too many."""
    corners = list(islice(space.combinations(lambda d: d.corners()), MAX_PROBES + 1))
    if len(corners) <= MAX_PROBES:
        yield from corners
        return
    states = space.condition_states() or [{}]
    num_given = 0
    for name, alternatives in space.entries.items():
        for distribution in alternatives:
            state = next((s for s in states if space.applicable(name, s) is distribution), None)
            for value in distribution.corners() if state is not None else ():
                yield space.walk(_forced(distribution, value, state or {}))
                num_given += 1
    rng = random.Random(0)
    for _ in range(max(0, MAX_PROBES - num_given)):
        yield space.walk(lambda _, d: rng.choice(d.corners()))


def _forced(wanted: Distribution, value: Any, state: Mapping[str, Any]) -> Any:
    def ask(name: str, distribution: Distribution) -> Any:
        if distribution is wanted:
            return value
        return state.get(name, distribution.corners()[0])

    return ask


def _one_config(kind: JobKind, setup: Any, config: Config) -> list[Fault]:
    """Faults of one configuration, with paths from the parameter down."""
    models = kind.parameters()
    variant = config.get(kind.discriminator) if kind.discriminator else None
    if setup is None and kind.discriminator and kind.discriminator not in config:
        return []  # the setup may have given it
    if not isinstance(variant, str | None) or variant not in models:
        rule = f"must be one of {listed(models)}"
        return [Fault((str(kind.discriminator),), rule, variant, "name one of these")]
    model = models[variant]
    faults: list[Fault] = []
    try:
        model.model_validate(config)
    except ValidationError as error:
        faults = model_faults(error, model, config)
        sound = {k: v for k, v in config.items() if (k,) not in {f.path[:1] for f in faults}}
        if any(name not in sound for name in required_fields(model) if name in config):
            return faults
        if any(fault.path[0] not in config for fault in faults if fault.path):
            return faults
        config = sound
    if setup is None:
        return faults
    return [*faults, *(Fault(_named(m, config), m) for m in kind.check(setup, config))]


def _named(message: str, config: Config) -> KeyPath:
    """The parameter that a message such as `k=128 exceeds d_sae=64` is about."""
    names = [name for name in re.findall(r"(\w+)=", message) if name in config]
    return (names[0],) if names else ()


def _entry_path(space: Space, path: KeyPath, config: Config) -> KeyPath:
    """Where the value of a configuration stands in the space: `k.choice[1]`."""
    if not path or path[0] not in space.entries:
        return path
    name = str(path[0])
    distribution = space.applicable(name, config)
    if distribution is None:
        return (name,)
    alternatives = space.entries[name]
    which: KeyPath = () if len(alternatives) == 1 else (alternatives.index(distribution),)
    if isinstance(distribution, Fixed) or name not in config:
        return (name, *which)
    if isinstance(distribution, Choice):
        keys = [value_key(value) for value in distribution.values]
        return (name, *which, "choice", keys.index(value_key(config[name])))
    return (name, *which, distribution.form)


def _summed_up(told: _Told, num_probes: int) -> Iterator[Fault]:
    faults = list(told.first.values())
    partly = told.num_configs < num_probes
    share = f" (in {told.num_configs} of {num_probes} combinations tried)" if partly else ""
    for fault in faults[:MAX_MESSAGES_A_PLACE]:
        yield Fault(
            fault.path, f"{fault.rule}{share}", fault.value, fault.way_out, fault.suggestion
        )
    if len(faults) > MAX_MESSAGES_A_PLACE:
        yield Fault(faults[0].path, f"and {len(faults) - MAX_MESSAGES_A_PLACE} more like these")


def _list_faults(
    kind: JobKind, setup: Any, space: Space, configs: Iterable[Mapping[str, Any]]
) -> Iterator[Fault]:
    for index, config in enumerate(configs):
        whole = completed(space, config)[0]
        for fault in _one_config(kind, setup, whole):
            own = (
                bool(fault.path) and fault.path[0] in space.entries and fault.path[0] not in config
            )
            yield fault.under(("space",) if own else ("search", "configs", index))
