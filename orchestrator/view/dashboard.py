"""One frame of the dashboard: the view model drawn at a given width."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from orchestrator.money.budget import BudgetUse
from orchestrator.view import cells
from orchestrator.view.columns import Column, cut, flowed, table_lines
from orchestrator.view.event_lines import EventLine, clock_time
from orchestrator.view.marks import counts_legend, status_bar, status_text, style_of
from orchestrator.view.model import (
    CURVE_POINTS,
    Header,
    NodesPanel,
    RunningRow,
    SweepBar,
    ViewModel,
    WaitingRow,
    view_model,
)

__all__ = ["ViewModel", "frame", "frame_lines", "view_model"]

MIN_EVENTS, MAX_EVENTS, MAX_WAITING = 3, 12, 4
UNLIMITED_ROWS = 10_000
BUDGET_CELLS = 10
SHORT_NAMES = {"architecture": "arch", "normalize_activations": "norm"}
MAX_NODE_REMARKS = 3
NODE_STYLES = {
    "working": "green",
    "ready": "cyan",
    "draining": "yellow",
    "starting": "blue",
    "waiting": "bright_black",
    "failed": "bold red",
    "silent": "yellow",
    "ended": "bright_black",
}
MANY_SWEEPS = 3
"""From so many on, each gets a line instead of a paragraph."""


def frame(
    model: ViewModel, width: int, height: int | None = None, *, ascii_only: bool = False
) -> RenderableType:
    """Draw one frame.

    Args:
        width: terminal cells; no line is wider.
        height: lines to fit into; None for as many as it takes.
        ascii_only: for terminals that cannot show blocks.
    """
    return Group(*frame_lines(model, width, height, ascii_only=ascii_only))


def frame_lines(
    model: ViewModel, width: int, height: int | None = None, *, ascii_only: bool = False
) -> list[Text]:
    """The lines of a frame; see `frame`."""
    width = max(width, 20)
    header = [*_header(model, width), *_nodes(model.nodes, width)]
    top = [*header, *_bars(model.sweeps, width, ascii_only)]
    rows_left = UNLIMITED_ROWS if height is None else height - len(top)
    num_running, num_waiting, num_events = _share_rows(model, rows_left, height is None)
    running = _running(model, num_running, width, ascii_only)
    waiting = _waiting(model.waiting, num_waiting, width, ascii_only)
    events = _events(model.events, num_events, width, ascii_only)
    lines = [*top, *running, *waiting, *events]
    if height is not None:
        lines = lines[: max(height, 1)]
    return [cut(line, width, "..." if ascii_only else "\u2026") for line in lines]


def _share_rows(model: ViewModel, rows: int, unlimited: bool) -> tuple[int, int, int]:
    """How many lines the running table, the queue and the events get below their headings."""
    num_running, num_waiting = len(model.running), min(len(model.waiting), MAX_WAITING)
    num_events = min(len(model.events), MAX_EVENTS if unlimited else UNLIMITED_ROWS)
    if unlimited:
        return num_running, num_waiting, num_events
    headings = (2 if num_running else 0) + (1 if num_waiting else 0) + (1 if num_events else 0)
    free = max(rows - headings, 0)
    kept_events = min(num_events, MIN_EVENTS)
    num_waiting = min(num_waiting, max(free - num_running - kept_events, 1 if num_waiting else 0))
    shown = max(min(num_running, free - num_waiting - kept_events), min(num_running, 1))
    return shown, num_waiting, max(free - shown - num_waiting, 0)


def _heading(title: str, width: int, ascii_only: bool) -> Text:
    rule = "-" if ascii_only else "\u2500"
    line = Text(no_wrap=True)
    line.append(f"{rule * 2} ", style="bright_black")
    line.append(title, style="bold")
    line.append(" " + rule * max(width - len(title) - 4, 0), style="bright_black")
    return line


# Header


def _header(model: ViewModel, width: int) -> list[Text]:
    header = model.header
    pieces = [Text.assemble(("saeq", "bold"), " ", (clock_time(model.now), "bright_black"))]
    pieces += [_machines(header), _labelled("slots", _slots(header))]
    pieces += [
        _labelled(header.unit, cells.rate(header.units_per_second)),
        *_language_model(header),
        _labelled("spent", _money(header)),
        _labelled("ETA", cells.duration(header.eta_s)),
    ]
    if header.silent_s is not None:
        silent = f"no word for {cells.duration(header.silent_s)}"
        pieces.append(Text(silent, style="bold yellow"))
    return flowed(pieces, width)


def _language_model(header: Header) -> list[Text]:
    if header.unit != "SAE tokens":
        return []
    return [_labelled("LM tokens", cells.rate(header.lm_tokens_per_second))]


def _labelled(label: str, value: str) -> Text:
    return Text.assemble((f"{label} ", "bright_black"), (value, "bold"))


def _machines(header: Header) -> Text:
    if header.num_nodes is None:
        return Text("no driver", style="yellow")
    nodes = _plural(header.num_nodes, "node")
    if header.num_gpus:
        return Text(f"{nodes}, {_plural(header.num_gpus, 'GPU')}")
    return Text(f"{nodes}, {_plural(header.num_cpus or 0, 'core')}")


def _plural(count: float, noun: str) -> str:
    if cells.known(count) is None or count < 0:
        return f"{cells.UNKNOWN} {noun}s"
    return f"{count:g} {noun}" + ("" if count == 1 else "s")


def _slots(header: Header) -> str:
    busy = str(header.busy_slots)
    return f"{busy} of {header.slots}" if header.slots else busy if header.busy_slots else "-"


def _money(header: Header) -> str:
    spent = cells.usd(header.spent_usd, is_estimate=header.spent_is_estimate)
    if header.usd_per_hour is None:
        return spent
    return f"{spent} at {cells.usd(header.usd_per_hour)}/h"


def _nodes(nodes: NodesPanel, width: int) -> list[Text]:
    """One line of counts, and a line for each of the worst; nothing of one that is well."""
    if not nodes.remarks and sum(nodes.counts.values()) <= 1:
        return []
    pieces = [Text("nodes", style="bright_black")]
    for word, count in nodes.counts.items():
        pieces.append(Text(f"{count} {word}", style=NODE_STYLES.get(word, "bold red")))
    lines = flowed(pieces, width)[:2]
    for name, what in nodes.remarks[:MAX_NODE_REMARKS]:
        lines.append(Text.assemble("  ", (name, "bold"), f" {what}"))
    hidden = len(nodes.remarks) - MAX_NODE_REMARKS
    if hidden > 0:
        lines.append(Text(f"  and {hidden} more: `saeq nodes`", style="bright_black"))
    return lines


# Sweeps


def _bars(bars: Sequence[SweepBar], width: int, ascii_only: bool) -> list[Text]:
    if len(bars) >= MANY_SWEEPS:
        return _bar_table(bars, width, ascii_only)
    lines: list[Text] = []
    for bar in bars:
        pieces = [
            Text(cells.one_line(bar.id), style="bold"),
            status_text(bar.status),
            Text(f"{bar.num_ended} of {bar.num_trials} done"),
            _labelled(f"best {cells.one_line(bar.metric)}", cells.number(bar.best)),
            _labelled("saved", cells.percent(bar.saved or None)),
        ]
        if len(bars) > 1:
            pieces.append(_labelled("ETA", cells.duration(bar.eta_s)))
        if bar.budget.share is not None:
            pieces.append(_budget(bar.budget, ascii_only))
        lines += [Text(""), *flowed(pieces, width)]
        lines.append(status_bar(dict(bar.counts), width, ascii_only=ascii_only))
        lines += flowed(counts_legend(dict(bar.counts), ascii_only=ascii_only), width)
    return [*lines, Text("")]


def _budget(budget: BudgetUse, ascii_only: bool) -> Text:
    """A small bar of what is used, and the limits in words."""
    share = budget.share or 0.0
    bar = cells.progress_bar(share, 1.0, BUDGET_CELLS, ascii_only=ascii_only)
    style = budget_style(budget)
    return Text.assemble(
        ("budget ", "bright_black"),
        (bar, style or "cyan"),
        " ",
        (", ".join(budget.parts), style or "bold"),
    )


def budget_style(budget: BudgetUse) -> str:
    """Yellow when it comes near its end, red when it is spent."""
    if budget.spent is not None:
        return "bold red"
    return "bold yellow" if budget.warning is not None else ""


def _budget_share(budget: BudgetUse) -> Text:
    return Text(cells.percent(budget.share), style=budget_style(budget))


def _bar_table(bars: Sequence[SweepBar], width: int, ascii_only: bool) -> list[Text]:
    drawn = [
        status_bar(dict(bar.counts), max(width // 4, 10), ascii_only=ascii_only) for bar in bars
    ]
    columns = [
        Column("sweep", [Text(cells.one_line(b.id), style="bold") for b in bars], shrinks_to=12),
        Column("status", [status_text(bar.status) for bar in bars], rank=2),
        Column("trials", drawn, rank=3),
        Column("done", [f"{b.num_ended}/{b.num_trials}" for b in bars], right=True),
        Column("best", [cells.number(b.best) for b in bars], rank=1, right=True),
        Column("saved", [cells.percent(b.saved or None) for b in bars], rank=5, right=True),
        Column("budget", [_budget_share(b.budget) for b in bars], rank=2, right=True),
        Column("ETA", [cells.duration(b.eta_s) for b in bars], rank=4, right=True),
    ]
    return [Text(""), *table_lines(columns, width, ascii_only=ascii_only), Text("")]


# Running trials


def _running(model: ViewModel, num_rows: int, width: int, ascii_only: bool) -> list[Text]:
    rows = model.running[:num_rows]
    if not rows:
        return []
    hidden = len(model.running) - len(rows)
    title = f"running {len(model.running)}" + (f" ({hidden} not shown)" if hidden else "")
    columns = _running_columns(rows, len(model.sweeps) > 1, width, ascii_only)
    return [
        _heading(title, width, ascii_only),
        *table_lines(columns, width, ascii_only=ascii_only),
    ]


def _running_columns(
    rows: Sequence[RunningRow], several: bool, width: int, ascii_only: bool
) -> list[Column]:
    bar_width = 4 if width < 100 else 10 if width < 160 else 20
    metrics = list(dict.fromkeys(row.metric for row in rows))
    metric = cells.one_line(metrics[0]) if len(metrics) == 1 else "metric"
    points = 4 if width < 100 else CURVE_POINTS
    curves = [
        Text(cells.sparkline(row.curve, points, ascii_only=ascii_only), style="cyan")
        for row in rows
    ]
    return [
        *([Column("sweep", [cells.one_line(r.sweep) for r in rows], 3)] if several else []),
        Column("trial", [Text(cells.one_line(r.trial), style="bold") for r in rows]),
        _configurations(rows, ascii_only),
        Column("on", [cells.one_line(row.place) for row in rows], 9, shrinks_to=8),
        _progress(rows, bar_width, ascii_only),
        Column(metric, [Text(cells.number(r.value), style="bold") for r in rows], right=True),
        Column("", curves, 6),
        *_sae_columns(rows),
        Column("next rung", [_next_rung(row, ascii_only) for row in rows], 5),
        Column("ETA", [_trial_eta(row) for row in rows], 2, right=True),
    ]


def _sae_columns(rows: Sequence[RunningRow]) -> list[Column]:
    """What only SAEs have."""
    if all(row.unit != "tokens" for row in rows):
        return []
    return [
        Column("L0", [cells.number(row.l0, 1) for row in rows], 4, right=True),
        Column("dead", [cells.percent(row.dead_fraction) for row in rows], 7, right=True),
    ]


def _configurations(rows: Sequence[RunningRow], ascii_only: bool) -> Column:
    """The parameters below each other, named once in the title, so that they fit at 80 columns."""
    names = list(dict.fromkeys(name for row in rows for name in row.parameters))
    title, lines = [], [""] * len(rows)
    for name in names:
        texts = [row.parameters.get(name, cells.UNKNOWN) for row in rows]
        width = max(len(text) for text in texts)
        label = cut(
            Text(SHORT_NAMES.get(name, name)), max(width, 5), "" if ascii_only else "\u2026"
        )
        width = max(width, label.cell_len)
        title.append(label.plain.ljust(width))
        lines = [f"{line} {text.ljust(width)}" for line, text in zip(lines, texts, strict=True)]
    shown = [line.strip() or cells.UNKNOWN for line in lines]
    return Column(" ".join(title).rstrip(), shown, 1, shrinks_to=26)


def _progress(rows: Sequence[RunningRow], bar_width: int, ascii_only: bool) -> Column:
    """Tokens done; the total stands in the title where all trials have the same."""
    totals = {cells.tokens(row.total_tokens if row.total_tokens > 0 else None) for row in rows}
    shared = totals.pop() if len(totals) == 1 else None
    texts = []
    for row in rows:
        bar = cells.progress_bar(row.tokens, row.total_tokens, bar_width, ascii_only=ascii_only)
        total = "" if shared else f"/{cells.tokens(row.total_tokens or None)}"
        texts.append(Text.assemble((bar, "cyan"), f" {cells.tokens(row.tokens)}{total}"))
    units = {row.unit for row in rows}
    unit = units.pop() if len(units) == 1 else "done"
    short = "tok" if unit == "tokens" else unit
    return Column(f"of {shared} {short}" if shared else unit, texts)


def _next_rung(row: RunningRow, ascii_only: bool) -> str:
    """Where it may be stopped next, and what it has to reach there if that is known."""
    if row.next_rung is None:
        return cells.UNKNOWN
    rung = cells.tokens(row.next_rung)
    if row.cutoff is None:
        return rung
    below, above = ("<=", ">=") if ascii_only else ("\u2264", "\u2265")
    arrow = ("->" if ascii_only else "\u2192") if row.cutoff_is_forecast else ""
    return f"{rung} {arrow}{below if row.is_upper_bound else above}{cells.number(row.cutoff)}"


def _trial_eta(row: RunningRow) -> Text:
    if row.silent_s is not None:
        return Text("silent", style="yellow")
    return Text(cells.countdown(row.eta_s))


# Queue and events


def _waiting(rows: Sequence[WaitingRow], num_rows: int, width: int, ascii_only: bool) -> list[Text]:
    if not rows or num_rows <= 0:
        return []
    shown = list(rows[:num_rows])
    if rows[-1] not in shown and not rows[-1].trial:
        shown[-1] = rows[-1]  # the line that counts those not suggested yet
    hidden = len(rows) - len(shown)
    several = len({row.sweep for row in rows}) > 1
    title = "waiting" + (f" ({hidden} not shown)" if hidden else "")
    columns = [
        *([Column("sweep", [cells.one_line(row.sweep) for row in shown], 1)] if several else []),
        Column("trial", [Text(cells.one_line(r.trial) or "new", style="bold") for r in shown]),
        Column("what", [row.parameters for row in shown], 2, shrinks_to=16),
        Column("why", [row.reason for row in shown], shrinks_to=20),
    ]
    lines = table_lines(columns, width, ascii_only=ascii_only, titled=False)
    return [_heading(title, width, ascii_only), *lines]


def _events(events: Sequence[EventLine], num_rows: int, width: int, ascii_only: bool) -> list[Text]:
    shown = list(reversed(events[-num_rows:])) if num_rows > 0 else []
    if not shown:
        return []
    several = any(event.sweep for event in shown)
    columns = [
        Column("", [Text(event.clock, style="bright_black") for event in shown], 2),
        *([Column("", [cells.one_line(event.sweep) for event in shown], 3)] if several else []),
        Column("", [Text(event.what, style=style_of(event.what)) for event in shown]),
        Column("", [Text(event.trial, style="bold") for event in shown], 1),
        Column("", [event.text for event in shown], shrinks_to=20),
    ]
    lines = table_lines(columns, width, ascii_only=ascii_only, titled=False)
    return [_heading("events, newest first", width, ascii_only), *lines]
