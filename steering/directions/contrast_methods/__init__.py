"""Methods that make a direction of texts on two sides; one module is one method. numpy only."""

from __future__ import annotations

from difflib import get_close_matches
from importlib import import_module
from pkgutil import iter_modules

from steering.directions.contrast_methods.base import Array, ContrastMethod
from steering.errors import BadSteeringInput

__all__ = ["Array", "ContrastMethod", "contrast_method", "method_names"]

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")


def method_names() -> tuple[str, ...]:
    """Formula ids of all methods."""
    return tuple(sorted(ContrastMethod.by_formula))


def contrast_method(formula: str) -> ContrastMethod:
    """A method by its formula id. Raises BadSteeringInput with those there are."""
    if formula not in ContrastMethod.by_formula:
        near = get_close_matches(formula, method_names(), n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise BadSteeringInput(
            f"method {formula!r} is unknown; known: {', '.join(method_names())}.{hint}"
        )
    return ContrastMethod.by_formula[formula]
