"""What a command does at this moment, for whoever waits at a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer

Say = Callable[[str], None]


@contextmanager
def told_what_is_done(first: str, *, wanted: bool = True) -> Iterator[Say]:
    """A line on stderr that says what is done now, erased at the end.

    Yields what changes it. Nothing is written where it is not wanted, or where no one looks.

    Raises:
        typer.Abort: interrupted; of a KeyboardInterrupt typer makes an exit without a word.
    """
    try:
        with _line(first, wanted=wanted) as say:
            yield say
    except KeyboardInterrupt as error:
        raise typer.Abort from error


@contextmanager
def _line(first: str, *, wanted: bool) -> Iterator[Say]:
    from rich.console import Console
    from rich.markup import escape

    from orchestrator.view.live import can_show_blocks

    console = Console(stderr=True, highlight=False)
    # Not console.is_terminal: FORCE_COLOR makes that true of a log file.
    if not wanted or not sys.stderr.isatty() or console.is_dumb_terminal:
        yield _to_nobody
        return
    spinner = "dots" if can_show_blocks(console) else "line"
    with console.status(escape(first), spinner=spinner) as status:
        yield lambda said: status.update(escape(said))


def _to_nobody(said: str) -> None:
    del said
