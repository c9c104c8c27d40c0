"""How a trial's status looks: a word, a character and a colour, each enough by itself."""

from __future__ import annotations

from dataclasses import dataclass

from rich.text import Text

from orchestrator.view.cells import UNKNOWN


@dataclass(frozen=True)
class Mark:
    """The looks of one status."""

    block: str
    ascii_block: str
    style: str

    def drawn(self, ascii_only: bool) -> str:
        """Its character in a bar."""
        return self.ascii_block if ascii_only else self.block


MARKS: dict[str, Mark] = {
    "finished": Mark("\u2588", "#", "green"),
    "stopped": Mark("\u2593", "=", "yellow"),
    "diverged": Mark("\u259a", "~", "magenta"),
    "failed": Mark("\u2573", "!", "bold red"),
    "cancelled": Mark("\u2591", "x", "red"),
    "running": Mark("\u25b6", ">", "bold cyan"),
    "queued": Mark("\u00b7", ".", "bright_black"),
}
"""In the order of the bar: what is over first."""
OTHER_STYLES = {
    "preempted": "blue",
    "started": "cyan",
    "resumed": "cyan",
    "budget": "bold yellow",
    "driver": "bright_black",
    "submitted": "bright_black",
    "closed": "bright_black",
    "interrupted": "blue",
    "paused": "blue",
    "priority": "bright_black",
    "extended": "bright_black",
    "reopened": "bright_black",
    "needs": "bright_black",
    "retried": "cyan",
}


def style_of(word: str) -> str:
    """Colour of a status or of a kind of event."""
    return MARKS[word].style if word in MARKS else OTHER_STYLES.get(word, "")


def status_text(word: str, width: int = 0) -> Text:
    """A status in its colour."""
    return Text(word.ljust(width), style=style_of(word))


def segment_widths(counts: list[int], width: int) -> list[int]:
    """Share a bar among counts; whatever is there at all gets a cell if there are enough."""
    total = sum(counts)
    if total <= 0 or width <= 0:
        return [0] * len(counts)
    shares = [count * width / total for count in counts]
    widths = [
        max(int(share), 1) if count else 0 for share, count in zip(shares, counts, strict=True)
    ]
    while sum(widths) > width:
        widths[max(range(len(widths)), key=lambda i: (widths[i] > 1, widths[i] - shares[i]))] -= 1
    while sum(widths) < width:
        widths[max(range(len(widths)), key=lambda i: (shares[i] - widths[i], counts[i]))] += 1
    return widths


def status_bar(counts: dict[str, int], width: int, *, ascii_only: bool = False) -> Text:
    """The trials of a sweep as one bar."""
    bar = Text(no_wrap=True)
    widths = segment_widths([max(counts.get(word, 0), 0) for word in MARKS], width)
    for mark, cells in zip(MARKS.values(), widths, strict=True):
        bar.append(mark.drawn(ascii_only) * cells, style=mark.style)
    return bar


def counts_legend(counts: dict[str, int], *, ascii_only: bool = False) -> list[Text]:
    """`# 4 finished`, one piece for each status that occurs."""
    pieces = [
        Text(f"{mark.drawn(ascii_only)} {counts[word]} {word}", style=mark.style)
        for word, mark in MARKS.items()
        if counts.get(word, 0) > 0
    ]
    return pieces or [Text(f"{UNKNOWN} no trials", style="bright_black")]
