"""Results for the terminal: a table per stratum, the frontier, the best SAEs, what was saved."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from orchestrator.log.sweep_log import SweepLog
from orchestrator.results.table import ResultRow, Results, results_of
from orchestrator.store import Store
from orchestrator.view import cells
from orchestrator.view.columns import Column, table_lines
from orchestrator.view.dashboard import SHORT_NAMES
from orchestrator.view.facts import SweepFacts, facts_of
from orchestrator.view.live import can_show_blocks
from orchestrator.view.marks import MARKS, status_text

if TYPE_CHECKING:
    from orchestrator.queue import QueuedSweep

ON_FRONTIER = "*"
MOST_EXTRA_METRICS = 4
EXTRA_METRICS = (
    ("l0", "L0", 2),
    ("dead_fraction", "dead", 5),
    ("ce_recovered", "CE rec.", 4),
)


def extra_metrics(facts: SweepFacts) -> Sequence[tuple[str, str, int]]:
    """Metrics that get a column beside the one that decides: (name, title, who makes way first)."""
    known = [each for each in EXTRA_METRICS if each[0] in facts.metrics]
    known = known or [(name, name.replace("_", " "), 4) for name in facts.metrics]
    return [each for each in known if each[0] != facts.metric][:MOST_EXTRA_METRICS]


def results_lines(results: Results, width: int | None, *, ascii_only: bool = False) -> list[Text]:
    """The page as lines; width None for as wide as it gets."""
    lines: list[Text] = []
    strata = results.by_stratum()
    every_row = [row for rows in strata.values() for row in rows]
    titles, *body = table_lines(_columns(results, every_row), width, ascii_only=ascii_only)
    for stratum, rows in strata.items():
        lines += [Text(stratum, style="bold underline"), titles, *body[: len(rows)], Text("")]
        body = body[len(rows) :]
    if any(row.on_frontier for row in results.rows):
        metric = cells.one_line(results.facts.metric)
        note = f"{ON_FRONTIER} on the frontier: no other is both sparser and better in {metric}"
        lines += [Text(note, style="bright_black"), Text("")]
    lines += _best_lines(results, width, ascii_only)
    return [*lines, *(Text(line) for line in summary(results))]


def _columns(results: Results, rows: Sequence[ResultRow]) -> list[Column]:
    searched = results.facts.searched
    names = [
        name
        for name in ("architecture", *searched)
        if name not in results.facts.strata and any(name in row.config for row in rows)
    ]
    return [
        Column("", [Text(ON_FRONTIER if r.on_frontier else " ", style="bold green") for r in rows]),
        Column("trial", [Text(cells.one_line(row.trial), style="bold") for row in rows]),
        Column("state", [status_text(row.state) for row in rows]),
        *(_parameter_column(name, rows) for name in dict.fromkeys(names)),
        Column(results.facts.unit, [cells.tokens(row.tokens) for row in rows], 3, right=True),
        Column(
            cells.one_line(results.facts.metric),
            [Text(cells.number(results.value(row)), style="bold") for row in rows],
            right=True,
        ),
        *(
            Column(title, [_metric(row, name) for row in rows], rank, right=True)
            for name, title, rank in extra_metrics(results.facts)
        ),
        Column("time", [cells.countdown(row.seconds or None) for row in rows], 7, right=True),
        Column("cost", [_cost(row) for row in rows], 8, right=True),
        Column("how it ended", [how_it_ended(row) for row in rows], 6, shrinks_to=30),
    ]


def _cost(row: ResultRow) -> str:
    return cells.usd(row.usd or None, is_estimate=row.usd_is_estimate)


def _parameter_column(name: str, rows: Sequence[ResultRow]) -> Column:
    texts = [
        cells.parameter(row.config[name]) if name in row.config else cells.UNKNOWN for row in rows
    ]
    title = SHORT_NAMES.get(name, cells.one_line(name))
    return Column(title, texts, 1, right=name != "architecture", shrinks_to=9)


def _metric(row: ResultRow, name: str) -> str:
    value = row.metrics.get(name)
    if name.endswith("_fraction") or name.startswith("ce_recovered"):
        return cells.percent(value)
    return cells.number(value, 1) if name == "l0" else cells.number(value)


def how_it_ended(row: ResultRow) -> str:
    """Artefact of a finished trial, value and cutoff of a stopped one, else the reason."""
    if row.state == "finished":
        return cells.one_line(row.artefact or "")
    if row.stopped is not None:
        stop = row.stopped
        against = f"against {stop['against']} ({stop['rule']})"
        if stop["cutoff"] is not None:
            place = cells.tokens(row.tokens if stop["rung"] is None else stop["rung"])
            heading = f"heading for {cells.number(stop['value'])}, " if stop["on_course"] else ""
            return f"at {place}: {heading}cutoff {cells.number(stop['cutoff'])} {against}"
    return cells.one_line(row.reason)


def _best_lines(results: Results, width: int | None, ascii_only: bool) -> list[Text]:
    best = results.best_by_stratum()
    if not best:
        return []
    columns = [
        Column("best of", list(best), shrinks_to=12),
        Column("trial", [Text(cells.one_line(row.trial), style="bold") for row in best.values()]),
        Column(
            cells.one_line(results.facts.metric),
            [Text(cells.number(results.value(row)), style="bold") for row in best.values()],
            right=True,
        ),
        *(
            Column(title, [_metric(row, name) for row in best.values()], 2, right=True)
            for name, title, _ in extra_metrics(results.facts)
            if name != "dead_fraction"
        ),
        Column(
            "configuration",
            [cells.parameters(row.config, results.facts.searched) for row in best.values()],
            4,
            shrinks_to=24,
        ),
        Column("artefact", [cells.one_line(row.artefact or "-") for row in best.values()], 3),
    ]
    return [*table_lines(columns, width, ascii_only=ascii_only), Text("")]


def summary(results: Results) -> list[str]:
    """How many ended how, what it took, and what early stopping saved; two lines."""
    counts = ", ".join(
        f"{results.counts[word]} {word}" for word in MARKS if results.counts.get(word, 0)
    )
    total = sum(results.counts.values())
    seconds = sum(row.seconds for row in results.rows)
    money = sum(row.usd for row in results.rows)
    unit = "SAE-tokens" if results.facts.job == "sae_train" else results.facts.unit
    spent = [f"{cells.tokens(results.spent_tokens)} {unit}"]
    if results.full_tokens:
        spent[0] += f" of {cells.tokens(results.full_tokens)} for the full search"
    if results.saved:
        spent.append(f"early stopping saved {cells.percent(results.saved)}")
    spent.append(f"{cells.duration(seconds)} of device time")
    if money:
        about = any(row.usd_is_estimate for row in results.rows)
        spent.append(cells.usd(money, is_estimate=about))
    return [
        f"{cells.one_line(results.facts.id)} {results.status}: {total} trials: {counts or '-'}",
        "; ".join(spent),
    ]


def print_results(store: Store, queued: QueuedSweep, console: Console | None = None) -> None:
    """Print the page of a sweep as it stands in its log."""
    log = SweepLog(store, queued.id)
    print_page(results_of(facts_of(queued), log.refresh()), store, console)


def print_page(results: Results, store: Store, console: Console | None = None) -> None:
    """Print the page, as wide as the terminal, or as wide as it gets into a pipe."""
    console = console or Console(highlight=False)
    width = console.width if console.is_terminal else None
    for line in results_lines(results, width, ascii_only=not can_show_blocks(console)):
        console.print(line, soft_wrap=True)
    for line in _place_lines(results, store):
        console.print(line, soft_wrap=True)


def _place_lines(results: Results, store: Store) -> list[Text]:
    """Where the best artefact of each stratum lies."""
    lines = []
    for stratum, row in results.best_by_stratum().items():
        if row.artefact is not None:
            prefix = store.layout.artefact(results.facts.artefact_kind, row.artefact)
            path = store.local_path(prefix)
            near = path if "://" in path else os.path.relpath(path)
            shown = path if near.startswith("..") else near
            lines.append(Text.assemble((f"best of {stratum}: ", "bright_black"), shown))
    return lines
