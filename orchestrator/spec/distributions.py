"""What a parameter may be: one fixed value, one of several, or a number from a range.

The form in a sweep file (`{loguniform: [1e-5, 1e-3], why: ...}`) is also the form in JSON.
"""

from __future__ import annotations

import json
import math
import random
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from orchestrator.spec.faults import Fault, KeyPath, SpecFaults
from orchestrator.spec.units import BadQuantity, parse_count

When = tuple[tuple[str, tuple[Any, ...]], ...]
"""Conditions that must all hold: (parameter, values of which it must have one)."""


def value_key(value: Any) -> str:
    """Equal for values that mean the same (16 and 16.0), unequal for 1 and true."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if is_number and math.isfinite(value) and value == int(value):
        return str(int(value))
    return json.dumps(value, default=str)


def plain(value: Any) -> Any:
    """A value for a trial's configuration: what is frozen as a tuple becomes a list again."""
    return [plain(item) for item in value] if isinstance(value, tuple) else value


@dataclass(frozen=True, kw_only=True)
class Distribution(ABC):
    """Where a parameter's value comes from. Subclasses name the key they are written under."""

    form: ClassVar[str]
    by_form: ClassVar[dict[str, type[Distribution]]] = {}
    options: ClassVar[frozenset[str]] = frozenset()
    """Keys that may stand beside the form's own, other than `why` and `when`."""
    example: ClassVar[str]

    why: str | None = None
    """The reason for the range, for whoever reads the sweep later."""
    when: When = ()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "form" in vars(cls):
            Distribution.by_form[cls.form] = cls

    @classmethod
    @abstractmethod
    def parse(cls, body: Any, options: Mapping[str, Any]) -> Distribution:
        """Read what stands under the form's key. Raises SpecFaults, paths from the entry down."""

    @abstractmethod
    def body(self) -> dict[str, Any]:
        """The form's own part as JSON."""

    @property
    @abstractmethod
    def varies(self) -> bool:
        """Whether it can give more than one value."""

    @abstractmethod
    def grid_values(self) -> Sequence[Any] | None:
        """The values a grid visits, in order; None for a range without `points`."""

    @abstractmethod
    def corners(self) -> list[Any]:
        """Values to check a configuration with: all of a choice, both ends of a range."""

    @abstractmethod
    def sample(self, rng: random.Random) -> Any:
        """Draw a value."""

    @abstractmethod
    def contains(self, value: Any) -> bool:
        """Whether it can give this value."""

    def as_json(self) -> dict[str, Any]:
        """The entry as it would stand in a sweep file."""
        entry = self.body()
        if self.why is not None:
            entry["why"] = self.why
        if self.when:
            entry["when"] = {name: [plain(v) for v in values] for name, values in self.when}
        return entry


@dataclass(frozen=True, kw_only=True)
class Fixed(Distribution):
    """One value."""

    form = "fixed"
    example = "{fixed: 16}"
    value: Any

    @classmethod
    def parse(cls, body: Any, options: Mapping[str, Any]) -> Fixed:
        del options
        return cls(value=plain_value(body, (cls.form,)))

    def body(self) -> dict[str, Any]:
        return {"fixed": plain(self.value)}

    @property
    def varies(self) -> bool:
        return False

    def grid_values(self) -> list[Any]:
        return [plain(self.value)]

    def corners(self) -> list[Any]:
        return [plain(self.value)]

    def sample(self, rng: random.Random) -> Any:
        del rng
        return plain(self.value)

    def contains(self, value: Any) -> bool:
        return value_key(value) == value_key(self.value)


@dataclass(frozen=True, kw_only=True)
class Choice(Distribution):
    """One of several values."""

    form = "choice"
    example = "{choice: [16, 32]}"
    values: tuple[Any, ...]

    @classmethod
    def parse(cls, body: Any, options: Mapping[str, Any]) -> Choice:
        del options
        if not isinstance(body, list) or not body:
            rule = "must list at least one value"
            raise refused((cls.form,), rule, body, f"write {cls.example}")
        values = tuple(plain_value(item, (cls.form, i)) for i, item in enumerate(body))
        seen: dict[str, int] = {}
        for index, value in enumerate(values):
            first = seen.setdefault(value_key(value), index)
            if first != index:
                rule = "lists a value twice, which would run the same trial twice"
                raise refused((cls.form, index), rule, plain(value), "keep one of them")
        return cls(values=values)

    def body(self) -> dict[str, Any]:
        return {"choice": [plain(value) for value in self.values]}

    @property
    def varies(self) -> bool:
        return len(self.values) > 1

    def grid_values(self) -> list[Any]:
        return [plain(value) for value in self.values]

    def corners(self) -> list[Any]:
        return [plain(value) for value in self.values]

    def sample(self, rng: random.Random) -> Any:
        return plain(rng.choice(self.values))

    def contains(self, value: Any) -> bool:
        return value_key(value) in {value_key(v) for v in self.values}


@dataclass(frozen=True, kw_only=True)
class _Range(Distribution):
    """A real number between two bounds, both possible."""

    options = frozenset({"points"})
    low: float
    high: float
    points: int | None = None
    """How many values a grid takes from it."""

    @classmethod
    def parse(cls, body: Any, options: Mapping[str, Any]) -> _Range:
        low, high = _bounds(cls, body, float)
        if cls is LogUniform and low <= 0:
            rule = "needs bounds above zero, since it is even in the logarithm"
            raise refused((cls.form,), rule, body, "raise the lower bound or use uniform")
        points = options.get("points")
        if points is not None and (type(points) is not int or points < 2):
            rule = "must be a whole number of at least 2"
            raise refused(("points",), rule, points, "write points: 5")
        return cls(low=low, high=high, points=points)

    def body(self) -> dict[str, Any]:
        body: dict[str, Any] = {self.form: [self.low, self.high]}
        return body if self.points is None else {**body, "points": self.points}

    @property
    def varies(self) -> bool:
        return True

    def grid_values(self) -> Sequence[Any] | None:
        if self.points is None:
            return None
        inner = [self._at(i / (self.points - 1)) for i in range(1, self.points - 1)]
        return [self.low, *inner, self.high]

    def corners(self) -> list[Any]:
        return [self.low, self.high]

    def sample(self, rng: random.Random) -> float:
        return min(max(self._at(rng.random()), self.low), self.high)

    def contains(self, value: Any) -> bool:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and self.low <= value <= self.high

    @abstractmethod
    def _at(self, share: float) -> float:
        """The value at a share (0 to 1) of the way from low to high."""


@dataclass(frozen=True, kw_only=True)
class Uniform(_Range):
    """A real number, every one as likely."""

    form = "uniform"
    example = "{uniform: [0.1, 0.9]}"

    def _at(self, share: float) -> float:
        return self.low + share * (self.high - self.low)


@dataclass(frozen=True, kw_only=True)
class LogUniform(_Range):
    """A positive real number, every order of magnitude as likely."""

    form = "loguniform"
    example = "{loguniform: [1.0e-5, 1.0e-3]}"

    def _at(self, share: float) -> float:
        return math.exp(math.log(self.low) + share * (math.log(self.high) - math.log(self.low)))


@dataclass(frozen=True, kw_only=True)
class Int(Distribution):
    """A whole number between two bounds, both possible, in steps from the lower one."""

    form = "int"
    example = "{int: [16, 64]}"
    options = frozenset({"log", "step"})
    low: int
    high: int
    log: bool = False
    """Whether every order of magnitude is as likely, instead of every number."""
    step: int = 1

    @classmethod
    def parse(cls, body: Any, options: Mapping[str, Any]) -> Int:
        low, high = _bounds(cls, body, int)
        log, step = options.get("log", False), parse_count(options.get("step", 1))
        if not isinstance(log, bool):
            raise refused(("log",), "must be true or false", log, "write log: true")
        if type(step) is not int or step < 1:
            rule = "must be a whole number of at least 1"
            raise refused(("step",), rule, step, "write step: 16")
        if step > high - low:
            rule = f"exceeds the range of {low} to {high}, so that only {low} is left"
            raise refused(("step",), rule, step, "lower it")
        if log and low < 1:
            rule = "needs bounds above zero, since log is true"
            raise refused((cls.form,), rule, body, "raise the lower bound or drop log")
        if log and step != 1:
            rule = "cannot stand beside log: true"
            raise refused(("step",), rule, step, "drop one of the two")
        return cls(low=low, high=high, log=log, step=step)

    def body(self) -> dict[str, Any]:
        body: dict[str, Any] = {"int": [self.low, self.high]}
        if self.log:
            body["log"] = True
        if self.step != 1:
            body["step"] = self.step
        return body

    @property
    def varies(self) -> bool:
        return True

    def grid_values(self) -> Sequence[int]:
        return range(self.low, self.high + 1, self.step)

    @property
    def size(self) -> int:
        """How many values there are."""
        return (self.high - self.low) // self.step + 1

    def corners(self) -> list[Any]:
        return [self.low, self.low + (self.size - 1) * self.step]

    def sample(self, rng: random.Random) -> int:
        if self.log:
            drawn = math.exp(rng.uniform(math.log(self.low - 0.5), math.log(self.high + 0.5)))
            return min(max(round(drawn), self.low), self.high)
        return self.low + rng.randrange(self.size) * self.step

    def contains(self, value: Any) -> bool:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        inside = number and self.low <= value <= self.high
        return inside and (value - self.low) % self.step == 0


def _bounds(cls: type[Distribution], body: Any, number: type[float] | type[int]) -> Any:
    way_out = f"write {cls.example}"
    if not isinstance(body, list) or len(body) != 2:
        raise refused((cls.form,), "needs two bounds, low and high", body, way_out)
    low, high = (_bound(item, (cls.form, i), number, way_out) for i, item in enumerate(body))
    if low >= high:
        rule = "needs a low bound below its high one"
        advice = "swap them" if low > high else f"use {{fixed: {low}}} for a single value"
        raise refused((cls.form,), rule, body, advice)
    return low, high


def _bound(raw: Any, path: KeyPath, number: type[float] | type[int], way_out: str) -> Any:
    value = plain_value(raw, path)
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            raise refused(path, "must be a number", raw, way_out) from None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise refused(path, "must be a finite number", raw, way_out)
    if number is int and value != int(value):
        raise refused(path, "must be a whole number", raw, way_out)
    return number(value)


def plain_value(raw: Any, path: KeyPath) -> Any:
    """A JSON scalar, or lists of them, frozen. Raises SpecFaults."""
    if isinstance(raw, list | tuple):
        return tuple(plain_value(item, path) for item in raw)
    if not (raw is None or isinstance(raw, bool | int | float | str)):
        way_out = "quote it" if not isinstance(raw, Mapping) else "use a single value"
        raise refused(path, "must be a number, text, true, false or null", raw, way_out)
    if isinstance(raw, float) and not math.isfinite(raw):
        raise refused(path, "must be a finite number", str(raw), "give a number")
    try:
        return parse_count(raw)
    except BadQuantity as error:
        raise refused(path, error.rule, raw, error.way_out) from error


def refused(path: KeyPath, rule: str, value: Any, way_out: str) -> SpecFaults:
    """A single fault of an entry, to be raised."""
    return SpecFaults([Fault(path, rule, value, way_out)])
