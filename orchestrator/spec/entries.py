"""Reading the entries of a search space: scalars, forms, and lists of forms with conditions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from orchestrator.spec.distributions import (
    Choice,
    Distribution,
    Fixed,
    LogUniform,
    When,
    plain_value,
    refused,
)
from orchestrator.spec.faults import Fault, SpecFaults, closest, listed


def parse_entry(raw: Any) -> tuple[Distribution, ...]:
    """Read what stands under a parameter: one entry, or several with `when`. Raises SpecFaults."""
    is_list_of_mappings = isinstance(raw, list) and any(isinstance(item, Mapping) for item in raw)
    if not is_list_of_mappings:
        return (parse_distribution(raw),)
    faults: list[Fault] = []
    alternatives = []
    for index, item in enumerate(raw):
        try:
            distribution = parse_distribution(item)
        except SpecFaults as error:
            faults.extend(fault.under((index,)) for fault in error.faults)
            continue
        if not distribution.when:
            rule = "needs `when`, as one of several ranges of the same parameter"
            way_out = "write when: {architecture: topk}"
            faults.append(Fault((index,), rule, way_out=way_out))
        alternatives.append(distribution)
    if faults:
        raise SpecFaults(faults)
    return tuple(alternatives)


def parse_distribution(raw: Any) -> Distribution:
    """Read one entry, a scalar or a mapping with one form. Raises SpecFaults."""
    if isinstance(raw, list):
        rule = "a bare list could be one value or several"
        text = json.dumps(raw, default=str)
        way_out = f"write {{choice: {text}}} for several, {{fixed: {text}}} for one"
        raise refused((), rule, raw, way_out)
    if not isinstance(raw, Mapping):
        return Fixed(value=plain_value(raw, ()))
    forms = [key for key in raw if key in Distribution.by_form]
    if len(forms) != 1:
        raise SpecFaults([_wrong_forms(raw, forms)])
    cls = Distribution.by_form[forms[0]]
    allowed = {cls.form, "why", "when", *cls.options}
    faults = []
    for key in raw:
        if key not in allowed:
            rule = f"unknown key; beside `{cls.form}` may stand {listed(sorted(allowed))}"
            faults.append(Fault((key,), rule, suggestion=closest(key, allowed)))
    why = raw.get("why")
    if why is not None and not isinstance(why, str):
        faults.append(Fault(("why",), "must be text", why, "put it in quotes"))
    when: When = ()
    try:
        when = _parse_when(raw["when"]) if "when" in raw else ()
    except SpecFaults as error:
        faults.extend(error.faults)
    try:
        distribution = cls.parse(raw[cls.form], {k: raw[k] for k in cls.options if k in raw})
    except SpecFaults as error:
        faults.extend(error.faults)
    if faults:
        raise SpecFaults(faults)
    return replace(distribution, why=why, when=when)


def _wrong_forms(raw: Mapping[str, Any], forms: list[str]) -> Fault:
    known = sorted(Distribution.by_form)
    if forms:
        rule = f"has {len(forms)} forms ({listed(forms)}) where one is needed"
        return Fault((forms[1],), rule, way_out="keep one of them")
    rule = f"needs one of {listed(known)}"
    for key in raw:
        suggestion = closest(key, known)
        if suggestion and key not in ("why", "when"):
            return Fault((key,), f"unknown form; {rule}", suggestion=suggestion)
    return Fault((), rule, dict(raw), f"write {Choice.example} or {LogUniform.example}")


def _parse_when(raw: Any) -> When:
    example = "write when: {architecture: topk} or when: {architecture: [topk, batchtopk]}"
    if not isinstance(raw, Mapping) or not raw:
        raise refused(("when",), "must be a mapping of parameter to values", raw, example)
    conditions = []
    for name, given in raw.items():
        values = given if isinstance(given, list) else [given]
        if not values:
            raise refused(("when", name), "lists no value, so it is never true", given, example)
        read = tuple(plain_value(value, ("when", name)) for value in values)
        conditions.append((str(name), read))
    return tuple(conditions)
