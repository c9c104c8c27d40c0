"""Options of `saeq serve`, and what their text means."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.cli.errors import RequestError

RayAddressOption = Annotated[
    str | None,
    typer.Option(
        "--ray-address",
        metavar="HOST:PORT",
        help="A running Ray cluster. Else $RAY_ADDRESS, else a local Ray is started.",
        show_default=False,
    ),
]
ForOption = Annotated[
    str | None,
    typer.Option("--for", metavar="TIME", help="End after that time: 30m, 4h, 1h30m."),
]
UntilOption = Annotated[
    str | None,
    typer.Option("--until", metavar="WHEN", help="End then: a unix time, or an ISO time."),
]
NoticesOption = Annotated[
    str | None,
    typer.Option(
        "--notices",
        metavar="SOURCE",
        help="Who announces that this machine goes: auto, aws, gcp, command:CMD, none. Else "
        "$SAEQ_NOTICES, else none.",
        show_default=False,
    ),
]
IdleForOption = Annotated[
    str | None,
    typer.Option(
        "--idle-for", metavar="TIME", help="End when there was nothing to do here for so long."
    ),
]
AnywayOption = Annotated[
    bool,
    typer.Option(
        "--anyway",
        envvar="SAEQ_SERVE_ANYWAY",
        show_envvar=False,
        help="Also on a machine that its probe or a quarantine keeps out. Else $SAEQ_SERVE_ANYWAY.",
    ),
]


def seconds_of(option: str, given: str | None) -> float | None:
    """An option's time in seconds; None where it was not given. Raises RequestError."""
    from orchestrator.spec.units import BadQuantity, parse_seconds

    if given is None:
        return None
    try:
        return parse_seconds(given)
    except BadQuantity as error:
        raise RequestError(f"{option} {error}") from error


def unix_time_of(option: str, given: str | None) -> float | None:
    """Seconds since 1970; None where it was not given. Raises RequestError.

    An ISO time without an offset is this machine's local time.
    """
    from datetime import datetime

    if given is None:
        return None
    try:
        return float(given)
    except ValueError:
        pass  # then it has to be the other way of writing it
    try:
        return datetime.fromisoformat(given).timestamp()
    except ValueError as error:
        raise RequestError(
            f"{option} must be a unix time or an ISO time; got {given!r}; write 1795255200 or "
            "2026-11-21T10:00:00+00:00"
        ) from error
