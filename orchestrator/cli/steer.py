"""Commands that change what becomes of a sweep: cancel, pause, resume, retry, priority, extend."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.errors import RequestError
from orchestrator.cli.options import JsonOption, StoreOption, SweepArgument

if TYPE_CHECKING:
    from orchestrator.control.orders import Done, Orders

TrialsArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="TRIAL", help="Trials by id or number; else the whole sweep.", show_default=False
    ),
]
FailedArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="TRIAL", help="Trials by id or number; else all that failed.", show_default=False
    ),
]


def cancel(
    sweep: SweepArgument,
    trials: TrialsArgument = None,
    store: StoreOption = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: JsonOption = False,
) -> None:
    """End a sweep, or some of its trials, within seconds; what has finished is kept.

    There is no way back: pause is the gentler one.

        saeq cancel gpt2-l8-topk
        saeq cancel gpt2-l8-topk t0007 t0011
    """
    orders, names = _orders(sweep, trials, store)
    orders.refuse_cancel(names)
    if not yes and not as_json and sys.stdin.isatty():
        what = f"{len(names)} of its trials" if names else "all of its trials that have not ended"
        if not typer.confirm(f"cancel {what} of sweep {orders.sweep}?"):
            raise RequestError("nothing was cancelled")
    _say(orders, orders.cancel(names), as_json)


def pause(
    sweep: SweepArgument,
    trials: TrialsArgument = None,
    store: StoreOption = None,
    keep_running: Annotated[
        bool,
        typer.Option("--keep-running", help="What runs goes on to its end; nothing more begins."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Stand still: what runs is checkpointed and let go within seconds, nothing is begun.

    saeq pause gpt2-l8-topk
    saeq pause gpt2-l8-topk --keep-running
    """
    orders, names = _orders(sweep, trials, store)
    _say(orders, orders.pause(names, keep_running=keep_running), as_json)


def resume(
    sweep: SweepArgument,
    trials: TrialsArgument = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Go on with what was paused, each trial from its checkpoint.

    saeq resume gpt2-l8-topk
    """
    orders, names = _orders(sweep, trials, store)
    _say(orders, orders.resume(names), as_json)


def retry(
    sweep: SweepArgument,
    trials: FailedArgument = None,
    store: StoreOption = None,
    afresh: Annotated[
        bool, typer.Option("--afresh", help="From the beginning, not from the checkpoint.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Try failed trials again, once what they failed by is mended.

    A sweep that was given up, since its drivers died, is tried again at once.

        saeq retry gpt2-l8-topk
        saeq retry gpt2-l8-topk t0007 --afresh
    """
    orders, names = _orders(sweep, trials, store)
    _say(orders, orders.retry(names, afresh=afresh), as_json)


def priority(
    sweep: SweepArgument,
    number: Annotated[int, typer.Argument(metavar="N", help="Higher comes first; 0 at first.")],
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Whose trials come first where several sweeps want the same machines.

    saeq priority gpt2-l8-topk 10

    saeq priority gpt2-l8-topk -- -5      after everything else
    """
    orders, _ = _orders(sweep, None, store)
    _say(orders, orders.prioritise(number), as_json)


def extend(
    sweep: SweepArgument,
    store: StoreOption = None,
    trials: Annotated[
        str | None,
        typer.Option("--trials", metavar="N", help="Trials in all; +20: twenty more."),
    ] = None,
    tokens: Annotated[
        str | None,
        typer.Option("--tokens", metavar="N", help="Length of each trial; +100M: so much more."),
    ] = None,
    usd: Annotated[
        str | None, typer.Option("--usd", metavar="$", help="Budget in dollars; or +N.")
    ] = None,
    hours: Annotated[
        str | None, typer.Option("--hours", metavar="H", help="Budget in hours; or +N.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Give a sweep more to do, or more money, while it runs or when it is over.

    Trials that have not ended go on to the new length from where they are; what has ended stays.

        saeq extend gpt2-l8-topk --trials +20
        saeq extend gpt2-l8-topk --tokens 400M
    """
    from orchestrator.control.extend import More
    from orchestrator.control.extend import extend as give_more

    orders, _ = _orders(sweep, None, store)
    _say(orders, give_more(orders, More(trials, tokens, usd, hours)), as_json)


def _orders(sweep: str, trials: list[str] | None, store: str | None) -> tuple[Orders, list[str]]:
    from orchestrator.control.orders import Orders
    from orchestrator.store import Store

    names = list(trials or [])
    if "/" in sweep:  # `demo/t0007` is `demo t0007`
        sweep, _, first = sweep.partition("/")
        names = [*([first] if first else []), *names]
    return Orders(Store.open(store), sweep), names


def _say(orders: Orders, done: Done, as_json: bool) -> None:
    if not as_json:
        typer.echo(done.said)
        return
    answer = {
        "sweep": done.sweep,
        "did": done.what,
        "trials": list(done.trials),
        "by": orders.by,
        "said": done.said,
    }
    typer.echo(json.dumps(answer, indent=1))
