"""The live view: redraws on a terminal, writes plain lines into a pipe. Reads the log only."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

from orchestrator.log.events import AnyEvent
from orchestrator.log.sweep_log import SweepLog
from orchestrator.store import Store
from orchestrator.view import cells
from orchestrator.view.dashboard import frame
from orchestrator.view.event_lines import EventLine, clock_time, event_line
from orchestrator.view.facts import WatchedSweep, facts_of
from orchestrator.view.marks import MARKS
from orchestrator.view.model import ViewModel, view_model
from orchestrator.view.nodes_feed import NodesFeed
from orchestrator.view.nodes_table import panel_of

if TYPE_CHECKING:
    from orchestrator.queue import QueuedSweep

REDRAW_EVERY_S = 1.0
SUMMARY_EVERY_S = 30.0


class LiveView(AbstractContextManager["LiveView"]):
    """Shows sweeps until left; `update` is called as often as one likes.

    On a terminal it takes the whole screen (what stood there comes back afterwards) and leaves the
    last frame behind. Elsewhere it writes one line an event, and a summary now and then.
    """

    def __init__(
        self,
        sweeps: Sequence[WatchedSweep],
        console: Console | None = None,
        *,
        plain: bool | None = None,
        clock: Callable[[], float] = time.time,
        summary_every_s: float = SUMMARY_EVERY_S,
    ) -> None:
        """
        Args:
            plain: plain lines; None: wherever there is no terminal that can redraw.
            clock: seconds since 1970.
        """
        self.sweeps = sweeps
        self._console = console or Console(highlight=False)
        self._plain = is_plain(self._console) if plain is None else plain
        self._clock, self._summary_every_s = clock, summary_every_s
        self._undo = ExitStack()
        self._live: Live | None = None
        self._next_draw = 0.0
        self._next_summary = 0.0
        self._said: set[tuple[str, int]] = set()
        self._messages: list[str] = []
        self._nodes: NodesFeed | None = None

    def __enter__(self) -> LiveView:
        now = self._clock()
        self._next_summary = now + self._summary_every_s
        if self._plain:
            self._take_as_said()
            self._console.print(_summary_line(self._model(now)), soft_wrap=True)
        else:
            self._follow_nodes()
            live = Live(console=self._console, screen=True, auto_refresh=False)
            self._live = self._undo.enter_context(live)
        self.update()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        del kind, error, trace
        self._refresh()
        self._undo.close()
        model = self._model(self._clock())
        if self._live is None:
            self._write_events()
            self._console.print(_summary_line(model), soft_wrap=True)
        else:
            for message in self._messages:
                self._console.print(message, markup=False)
            self._console.print(self._frame(model, None))

    def update(self) -> None:
        """Read what is new and show it; cheap when called too often."""
        now = self._clock()
        if now < self._next_draw:
            return
        self._next_draw = now + REDRAW_EVERY_S
        self._refresh()
        if self._live is not None:
            self._live.update(self._frame(self._model(now), self._console.height), refresh=True)
            return
        self._write_events()
        if now >= self._next_summary:
            self._next_summary = now + self._summary_every_s
            self._console.print(_summary_line(self._model(now)), soft_wrap=True)

    def say(self, message: str) -> None:
        """Tell something that is in no log: what is being started, what went wrong outside."""
        if self._live is None:
            self._console.print(message, markup=False, soft_wrap=True)
        else:
            self._messages.append(message)

    def _follow_nodes(self) -> None:
        """In a thread: a frame is drawn with what is known, however slow the store is."""
        if self.sweeps:
            self._nodes = NodesFeed(self.sweeps[0].log.store).start()
            self._undo.callback(self._nodes.close)

    def _refresh(self) -> None:
        for sweep in self.sweeps:
            sweep.log.refresh()

    def _model(self, now: float) -> ViewModel:
        states = [(sweep.facts, sweep.log.state) for sweep in self.sweeps]
        if self._nodes is None:
            return view_model(states, now)
        return view_model(states, now, panel_of(self._nodes.latest, states, now))

    def _frame(self, model: ViewModel, height: int | None) -> RenderableType:
        ascii_only = not can_show_blocks(self._console)
        # The last column stays free: some terminals wrap the cursor there.
        return frame(model, max(self._console.width - 1, 20), height, ascii_only=ascii_only)

    def _take_as_said(self) -> None:
        """What happened before we looked belongs into the summary, not into the lines."""
        for sweep in self.sweeps:
            self._said.update((event.writer, event.seq) for event in sweep.log.state.recent)

    def _write_events(self) -> None:
        for sweep in self.sweeps:
            several = len(self.sweeps) > 1
            for event in _unsaid(sweep.log.state.recent, self._said):
                line = event_line(event, sweep.facts.id if several else "")
                if line is not None:
                    self._console.print(Text(plain_line(line)), soft_wrap=True)


def _unsaid(events: Sequence[AnyEvent], said: set[tuple[str, int]]) -> list[AnyEvent]:
    new = [event for event in events if (event.writer, event.seq) not in said]
    said.update((event.writer, event.seq) for event in new)
    return new


def plain_line(line: EventLine) -> str:
    """One event as one line of plain text."""
    return " ".join(
        part for part in (line.clock, line.sweep, line.what, line.trial, line.text) if part
    )


def _summary_line(model: ViewModel) -> Text:
    """The whole state in one line a sweep, for logs and pipes."""
    lines = []
    for bar in model.sweeps:
        counts = ", ".join(f"{bar.counts[word]} {word}" for word in MARKS if bar.counts.get(word))
        parts = [
            f"{clock_time(model.now)} {bar.id}: {bar.status}, {bar.num_ended} of "
            f"{bar.num_trials} done ({counts})",
            f"best {bar.metric} {cells.number(bar.best)}",
            f"{model.header.unit} {cells.rate(model.header.units_per_second)}",
            f"spent {_spent(model)}",
            *([f"budget {', '.join(bar.budget.parts)}"] if bar.budget.parts else []),
            f"ETA {cells.duration(bar.eta_s)}",
        ]
        lines.append("; ".join(parts))
    return Text("\n".join(lines) or "no sweeps")


def _spent(model: ViewModel) -> str:
    header = model.header
    return cells.usd(header.spent_usd, is_estimate=header.spent_is_estimate)


def is_plain(console: Console) -> bool:
    """Whether the output cannot be redrawn: a pipe, a file, a dumb terminal."""
    return not console.is_terminal or console.is_dumb_terminal or bool(os.environ.get("CI"))


def can_show_blocks(console: Console) -> bool:
    """Whether the output's encoding has block characters."""
    return "utf" in console.encoding.lower()


def live_view(
    store: Store, queued: QueuedSweep, *, plain: bool = False, to_stderr: bool = False
) -> LiveView:
    """The live view of one sweep, for the command that works it off."""
    console = Console(file=sys.stderr if to_stderr else sys.stdout, highlight=False)
    watched = WatchedSweep(facts_of(queued), SweepLog(store, queued.id))
    watched.log.refresh()
    return LiveView([watched], console, plain=True if plain else None)
