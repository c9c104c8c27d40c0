"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

StoreOption = Annotated[
    str | None,
    typer.Option(
        "--store",
        metavar="STORE",
        help="Where everything durable lives: a folder or s3://BUCKET/PREFIX. Else $SAEQ_STORE, "
        "else ./saeq-store.",
        show_default=False,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="For programs: JSON on stdout.")]
SweepArgument = Annotated[
    str, typer.Argument(metavar="ID", help="A sweep's id, as `saeq ls` shows it.")
]
