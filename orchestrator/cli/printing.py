"""What several commands print: a table drawn for the terminal at hand, or JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.text import Text

Draw = Callable[[int | None, bool], "Iterable[Text]"]
"""(width in cells or None, ASCII only) to lines."""


def print_table(draw: Draw) -> None:
    """Draw for the terminal's width, or as wide as it gets where nobody's screen ends."""
    from rich.console import Console

    from orchestrator.view.live import can_show_blocks

    console = Console(highlight=False)
    width = console.width if console.is_terminal else None
    print_lines(draw(width, not can_show_blocks(console)))


def print_lines(lines: Iterable[Text]) -> None:
    """As they are; what is wider than the terminal is left to it."""
    from rich.console import Console

    console = Console(highlight=False)
    for line in lines:
        console.print(line, soft_wrap=True)


def print_json(value: Any) -> None:
    """One document on stdout; NaN is refused."""
    sys.stdout.write(json.dumps(value, indent=1, allow_nan=False) + "\n")
