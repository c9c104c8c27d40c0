"""The condition of `select: {where: "l0 < 64 and architecture == 'topk'"}`, read and asked.

Read by Python's own parser and then taken apart by hand: comparisons of one name with one number
or text, joined by `and`. Nothing is ever evaluated.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_OPERATORS: dict[type[ast.cmpop], tuple[str, Callable[[Any, Any], bool]]] = {
    ast.Lt: ("<", operator.lt),
    ast.LtE: ("<=", operator.le),
    ast.Gt: (">", operator.gt),
    ast.GtE: (">=", operator.ge),
    ast.Eq: ("==", operator.eq),
    ast.NotEq: ("!=", operator.ne),
}
_BY_SIGN = dict(_OPERATORS.values())
_MIRRORED = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "==": "==", "!=": "!="}
WAY_OUT = "write comparisons such as l0 < 64, joined by and"


class BadCondition(ValueError):
    """A condition that cannot be read.

    Args:
        text: the condition.
        detail: what is wrong with it.
    """

    def __init__(self, text: str, detail: str) -> None:
        super().__init__(text, detail)
        self.text, self.detail = text, detail

    def __str__(self) -> str:
        return f"{self.detail}; got {self.text!r}; {WAY_OUT}"


@dataclass(frozen=True)
class Comparison:
    """One name against one value."""

    name: str
    sign: str
    value: float | str

    def holds(self, values: Mapping[str, Any]) -> bool:
        """Whether it is true of these values; what they lack, and what is no number, is not."""
        have = values.get(self.name)
        is_text = isinstance(self.value, str)
        if have is None or isinstance(have, bool) or isinstance(have, str) != is_text:
            return False
        return bool(_BY_SIGN[self.sign](have, self.value))


@dataclass(frozen=True)
class Condition:
    """All of them have to be true; of none, that is always so."""

    comparisons: tuple[Comparison, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Metrics and parameters that are asked about, each once."""
        return tuple(dict.fromkeys(comparison.name for comparison in self.comparisons))

    def holds(self, values: Mapping[str, Any]) -> bool:
        """Whether all of it is true of an artefact's metrics and configuration."""
        return all(comparison.holds(values) for comparison in self.comparisons)


def parse_where(text: str | None) -> Condition:
    """Read a condition; None asks for nothing. Raises BadCondition."""
    if text is None:
        return Condition()
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        detail = getattr(error, "msg", None) or str(error)
        raise BadCondition(text, f"is no condition ({detail})") from error
    return Condition(tuple(_comparisons(tree.body, text)))


def _comparisons(node: ast.expr, text: str) -> Iterator[Comparison]:
    if isinstance(node, ast.BoolOp) and isinstance(node.op, ast.And):
        for part in node.values:
            yield from _comparisons(part, text)
    elif isinstance(node, ast.Compare):
        sides = [node.left, *node.comparators]
        for left, sign, right in zip(sides, node.ops, sides[1:], strict=False):
            yield _comparison(left, sign, right, text)
    else:
        raise BadCondition(text, f"has {_shown(node)} where a comparison should be")


def _comparison(left: ast.expr, op: ast.cmpop, right: ast.expr, text: str) -> Comparison:
    if type(op) not in _OPERATORS:
        known = ", ".join(_BY_SIGN)
        raise BadCondition(text, f"may compare by {known} alone")
    sign = _OPERATORS[type(op)][0]
    if isinstance(right, ast.Name):
        left, right, sign = right, left, _MIRRORED[sign]
    if not isinstance(left, ast.Name):
        raise BadCondition(text, "compares no metric or parameter")
    value = _constant(right, text)
    if isinstance(value, str) and sign not in ("==", "!="):
        raise BadCondition(text, f"compares the text {value!r} by {sign}, where only == and != go")
    return Comparison(left.id, sign, value)


def _constant(node: ast.expr, text: str) -> float | str:
    negative = isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub)
    inner = node.operand if isinstance(node, ast.UnaryOp) and negative else node
    value = inner.value if isinstance(inner, ast.Constant) else None
    if isinstance(value, str) and not negative:
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return -value if negative else value
    raise BadCondition(text, f"has {_shown(node)} where a number or a quoted text should be")


def _shown(node: ast.expr) -> str:
    return repr(ast.unparse(node))
