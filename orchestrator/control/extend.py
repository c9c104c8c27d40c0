"""More of a sweep that exists: trials, tokens, or money."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from orchestrator.control.orders import Done, OrderRefused, Orders, num_left
from orchestrator.log.events import Extended
from orchestrator.queue import Queue
from orchestrator.spec.checks import Parts, cross_faults
from orchestrator.spec.faults import SpecFaults
from orchestrator.spec.sweep import SweepSpec
from orchestrator.spec.units import format_tokens, parse_hours, parse_tokens, parse_usd


@dataclass(frozen=True)
class More:
    """What is asked for, as people write it: `60`, `+20`, `400M`, `+100M`; None: as it is."""

    trials: str | None = None
    tokens: str | None = None
    usd: str | None = None
    hours: str | None = None


def extend(orders: Orders, more: More) -> Done:
    """Give a sweep more to do, or more money; what has ended stays as it is.

    A sweep that was over by itself goes on; one that was closed for lack of money does once it has
    some. Drivers take it over while they run: a trial that is to go further is given back and goes
    on from its checkpoint.

    Raises:
        OrderRefused: it would change nothing, or cannot be.
        BadQuantity: a number cannot be read.
        SpecFaults: the sweep would not hold together any more.
    """
    if more == More():
        raise OrderRefused(
            "nothing to extend was named; write --trials, --tokens, --usd or --hours"
        )
    if orders.state.cancelled_by:
        raise OrderRefused(
            f"sweep {orders.sweep} was cancelled by {orders.state.cancelled_by}, so it cannot be "
            "extended; submit it anew under another name"
        )
    before = orders.spec
    after = extended(before, more)
    if more.tokens is not None and not num_left(after, orders.state):
        raise OrderRefused(
            f"every trial of sweep {orders.sweep} has ended, so a length of {more.tokens} tokens "
            "would change none; --trials adds some"
        )
    after = Queue(orders.store).change(orders.sweep, lambda spec: extended(spec, more)).spec
    order = orders.next_order()
    changed = _changed(before, after)
    orders.log.append(Extended(by=orders.by, order=order, **changed))
    return Done(orders.sweep, "extended", (), _said(orders, before, after))


def extended(spec: SweepSpec, more: More) -> SweepSpec:
    """The spec with more in it; everything is checked again as for a new sweep."""
    changes: dict[str, Any] = {}
    if more.trials is not None:
        total = _raised(more.trials, spec.trials, _count, "trials")
        changes["search"] = spec.search.model_copy(update={"trials": total})
    if more.tokens is not None:
        changes.update(_longer(spec, more.tokens))
    if more.usd is not None or more.hours is not None:
        changes["budget"] = _richer(spec, more)
    after = spec.model_copy(update=changes)
    if more.trials is not None and after.trials != total:
        raise OrderRefused(
            f"a search by {spec.search.sampler} has only {after.trials} configurations, and "
            f"{spec.trials} of them are in the sweep; got {more.trials}; submit another space "
            "under another name"
        )
    _refuse_faults(after)
    return after


def _longer(spec: SweepSpec, asked: str) -> dict[str, Any]:
    now = getattr(spec.setup, "tokens", None)
    if not isinstance(now, int):
        raise OrderRefused(
            f"trials of {spec.job} have no length in tokens to extend; --trials adds trials"
        )
    tokens = _raised(asked, now, parse_tokens, "tokens")
    setup = spec.setup.model_dump(mode="json")
    changes: dict[str, Any] = {
        "setup": type(spec.setup).model_validate({**setup, "tokens": tokens})
    }
    rungs = spec.rungs({})
    if rungs and getattr(spec.early_stop, "grace", rungs) is None:
        # Else it would be a share of the new length, and trials at new rungs meet nobody there.
        changes["early_stop"] = spec.early_stop.model_copy(update={"grace": rungs[0]})
    return changes


def _richer(spec: SweepSpec, more: More) -> Any:
    budget = spec.budget
    update: dict[str, float] = {}
    if more.usd is not None:
        update["usd"] = _raised(more.usd, budget.usd, parse_usd, "dollars")
    if more.hours is not None:
        update["hours"] = _raised(more.hours, budget.hours, parse_hours, "hours")
    return budget.model_copy(update=update)


def _raised(asked: str, now: Any, parse: Callable[[str], Any], what: str) -> Any:
    """The number asked for; `+20` is twenty more than now."""
    text = asked.strip()
    if now is None:
        raise OrderRefused(f"the sweep has no limit in {what} that could be raised; leave it out")
    value = now + parse(text[1:].strip()) if text.startswith("+") else parse(text)
    if value <= now:
        raise OrderRefused(
            f"a sweep can only be extended to more {what} than it has; got {asked}, it has "
            f"{_shown(now, what)}; write a larger number, or +N for N more"
        )
    return value


def _count(text: str) -> int:
    if not re.fullmatch(r"[0-9]+", text):
        raise OrderRefused(f"trials must be a whole number; got {text!r}; write 60, or +20")
    return int(text)


def _refuse_faults(spec: SweepSpec) -> None:
    faults = cross_faults(
        Parts(
            kind=spec.kind,
            setup=spec.setup,
            space=spec.space,
            names=spec.names,
            search=spec.search,
            early_stop=spec.early_stop,
            rest=spec,
        )
    )
    if faults:
        raise SpecFaults(faults)


def _changed(before: SweepSpec, after: SweepSpec) -> dict[str, Any]:
    values = {name: (_value(before, name), _value(after, name)) for name in _NAMES}
    return {name: new for name, (old, new) in values.items() if new != old}


_NAMES = ("trials", "tokens", "usd", "hours")


def _value(spec: SweepSpec, name: str) -> Any:
    if name == "trials":
        return spec.trials
    return getattr(spec.setup if name == "tokens" else spec.budget, name, None)


def _said(orders: Orders, before: SweepSpec, after: SweepSpec) -> str:
    changed = _changed(before, after)
    parts = [
        f"{_shown(new, name)} {'dollars' if name == 'usd' else name} "
        f"(was {_shown(_value(before, name), name)})"
        for name, new in changed.items()
    ]
    num_ended = sum(trial.ended for trial in orders.state.trials.values())
    stay = ""
    if "tokens" in changed and num_ended:
        stay = f"; {num_ended} of its trials {'has' if num_ended == 1 else 'have'} ended as before"
    return f"sweep {orders.sweep}: extended to {' and '.join(parts)}{stay}"


def _shown(value: Any, what: str) -> str:
    return format_tokens(value) if what == "tokens" else f"{value:g}"
