"""Pydantic's complaints in the words of a sweep file: what is accepted there, with an example."""

from __future__ import annotations

import re
import types
from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from jobs.units import BadQuantity
from orchestrator.spec.faults import (
    NOT_SHOWN,
    Fault,
    KeyPath,
    SpecFaults,
    closest,
    listed,
    unknown_key,
    value_at,
)

_WORDS_BY_TYPE: Mapping[type, str] = {
    int: "a whole number",
    float: "a number",
    str: "text",
    bool: "true or false",
    list: "a list such as [a, b]",
    tuple: "a list such as [a, b]",
    dict: "`key: value` pairs",
    Mapping: "`key: value` pairs",
}
_WORDS_BY_ERROR: Mapping[str, tuple[str, str]] = {
    "int": ("a whole number", "16"),
    "float": ("a number", "0.5"),
    "string": ("text", "'name'"),
    "bool": ("true or false", "true"),
    "list": ("a list", "[a, b]"),
    "tuple": ("a list", "[a, b]"),
    "dict": ("`key: value` pairs", "{key: value}"),
    "mapping": ("`key: value` pairs", "{key: value}"),
    "model": ("`key: value` pairs", "{key: value}"),
    "finite": ("a finite number", "0.5"),
}
"""First word of a pydantic error -> what is wanted, and an example."""
_BOUND_WORDS: Mapping[str, tuple[str, str, str]] = {
    "greater_than": ("gt", "above", "raise it"),
    "greater_than_equal": ("ge", "at least", "raise it"),
    "less_than": ("lt", "below", "lower it"),
    "less_than_equal": ("le", "at most", "lower it"),
}
_UNIONS = (types.UnionType, get_origin(Annotated[int, ...] | None))
_LENGTH_ERROR = re.compile(r"(?:string_)?too_(short|long)")


def model_faults(error: ValidationError, model: type[BaseModel], data: Any) -> list[Fault]:
    """Every complaint as a fault, with paths from the model down.

    Args:
        error: what validating `data` as `model` raised.
        model: needed for the keys that would have been right.
        data: what was validated.
    """
    by_path: dict[KeyPath, list[ErrorDetails]] = {}
    for details in error.errors():
        by_path.setdefault(_real_path(details, data), []).append(details)
    faults: list[Fault] = []
    for path, several in by_path.items():
        # A list is also called too short when it is its values that are wrong.
        inside = (other for other in by_path if len(other) > len(path))
        if several[0]["type"] == "too_short" and any(o[: len(path)] == path for o in inside):
            continue
        faults.extend(_faults(path, several, model, data))
    return faults


def type_words(annotation: Any) -> str:
    """What a field of this type takes, in words."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return type_words(get_args(annotation)[0])
    if origin in _UNIONS:
        words = [type_words(a) for a in get_args(annotation) if a is not type(None)]
        return " or ".join(dict.fromkeys(words))
    if origin is Literal:
        return "one of " + listed(get_args(annotation))
    plain = origin or annotation
    if isinstance(plain, type) and issubclass(plain, BaseModel):
        return "`key: value` pairs"
    return _WORDS_BY_TYPE.get(plain, "a value")


def _real_path(details: ErrorDetails, data: Any) -> KeyPath:
    """Pydantic's location without the names of union members and validators in it."""
    path: KeyPath = ()
    last = len(details["loc"]) - 1
    for index, part in enumerate(details["loc"]):
        names_key = index == last and details["type"] in ("missing", "extra_forbidden")
        if names_key or value_at(data, (*path, part)) is not NOT_SHOWN:
            path = (*path, part)
    return path


def _faults(
    path: KeyPath, several: list[ErrorDetails], model: type[BaseModel], data: Any
) -> list[Fault]:
    details = several[0]
    value = value_at(data, path)
    kind = details["type"]
    if kind == "extra_forbidden":
        return [unknown_key(path, _keys(model, path[:-1]))]
    if kind == "missing":
        return [_missing(path, model)]
    raised = details.get("ctx", {}).get("error")
    if isinstance(raised, SpecFaults):
        return [fault.under(path) for fault in raised.faults]
    if isinstance(raised, BadQuantity):
        return [Fault(path, raised.rule, value, raised.way_out)]
    if kind in ("value_error", "assertion_error"):
        return [Fault(path, str(raised) if raised else details["msg"])]
    if kind == "literal_error":
        return [_not_allowed(path, model, value)]
    told = dict(_rule_and_way_out(each) for each in several)
    meaning = _meaning(path, model)
    rule = f"must be {' or '.join(told)}" + (f" ({meaning})" if meaning else "")
    return [Fault(path, rule, value, " or ".join(filter(None, told.values())))]


def _missing(path: KeyPath, model: type[BaseModel]) -> Fault:
    field = _field(model, path)
    if field is None:
        return Fault(path, "is missing", way_out=f"write {path[-1]}: ...")
    meaning = _meaning(path, model)
    rule = f"is missing ({meaning})" if meaning else "is missing"
    return Fault(path, rule, way_out=f"write {path[-1]}: {type_words(field.annotation)}")


def _not_allowed(path: KeyPath, model: type[BaseModel], value: Any) -> Fault:
    field = _field(model, path)
    allowed = [str(name) for name in _literals(field.annotation)] if field else []
    return Fault(
        path, f"must be one of {listed(allowed)}", value, suggestion=closest(value, allowed)
    )


def _literals(annotation: Any) -> list[Any]:
    if get_origin(annotation) is Literal:
        return list(get_args(annotation))
    return [value for argument in get_args(annotation) for value in _literals(argument)]


def _rule_and_way_out(details: ErrorDetails) -> tuple[str, str]:
    kind, context = details["type"], details.get("ctx", {})
    if kind in _BOUND_WORDS:
        key, words, way_out = _BOUND_WORDS[kind]
        return f"{words} {context[key]:g}", way_out
    if length := _LENGTH_ERROR.fullmatch(kind):
        is_short = length[1] == "short"
        bound = context.get("min_length", context.get("max_length"))
        return f"{'at least' if is_short else 'at most'} {bound} long", ""
    if kind.split("_")[0] in _WORDS_BY_ERROR:
        words, example = _WORDS_BY_ERROR[kind.split("_")[0]]
        return words, f"write {example}"
    return details["msg"].removeprefix("Input should be "), ""


def _meaning(path: KeyPath, model: type[BaseModel]) -> str:
    """First line of the remark under the field."""
    field = _field(model, path)
    return (field.description or "").split("\n")[0].rstrip(".") if field else ""


def _field(model: type[BaseModel], path: KeyPath) -> Any:
    while path and isinstance(path[-1], int):  # a value of a list: the field is the list's
        path = path[:-1]
    parent = _model_at(model, path[:-1])
    return parent.model_fields.get(str(path[-1])) if parent is not None and path else None


def _keys(model: type[BaseModel], path: KeyPath) -> list[str]:
    parent = _model_at(model, path)
    return list(parent.model_fields) if parent is not None else []


def _model_at(model: type[BaseModel], path: KeyPath) -> type[BaseModel] | None:
    current: Any = model
    for part in path:
        found = _inner_models(current)
        if isinstance(part, int):
            continue
        fields = [m.model_fields[part].annotation for m in found if part in m.model_fields]
        if not fields:
            return None
        current = fields[0]
    inner = _inner_models(current)
    return inner[0] if inner else None


def _inner_models(annotation: Any) -> list[type[BaseModel]]:
    """The models in an annotation such as `tuple[Need, ...] | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [m for argument in get_args(annotation) for m in _inner_models(argument)]
