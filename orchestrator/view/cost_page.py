"""What sweeps cost: tables for people, plain sentences under them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.text import Text

from orchestrator.log.sweep_status import SweepStatus, is_over
from orchestrator.money.budget import BudgetUse
from orchestrator.money.cost import Amount, CostReport, TrialCost
from orchestrator.money.node_price import PRICE_LABEL
from orchestrator.view import cells
from orchestrator.view.columns import Column, table_lines
from orchestrator.view.dashboard import budget_style
from orchestrator.view.marks import status_text

HOW_TO_PRICE = (
    "give price: {usd_per_hour: 2.5} in the sweep file, or start nodes with "
    f'ray start --labels="{PRICE_LABEL}=2.5"'
)


@dataclass(frozen=True)
class SweepCost:
    """One sweep's bill and what a page says beside it."""

    sweep: str
    status: SweepStatus
    report: CostReport
    budget: BudgetUse
    parameters: Mapping[str, str]
    """Trial -> its configuration in short."""


def cost_table(
    sweeps: Sequence[SweepCost], total: CostReport, width: int | None, *, ascii_only: bool = False
) -> list[Text]:
    """`saeq cost`: a line a sweep, a total, and what they say together."""
    if not sweeps:
        return [Text("no sweeps in this store; submit one with `saeq run FILE`")]
    reports = [one.report for one in sweeps] + [total]
    names = [Text(cells.one_line(one.sweep), style="bold") for one in sweeps]
    ends = [f"{r.num_finished}/{len(r.trials)}" for r in reports]
    columns = [
        Column("sweep", [*names, Text("total", style="bold")], shrinks_to=12),
        Column("status", [*(status_text(one.status) for one in sweeps), Text("")], 7),
        Column("finished", ends, 6, right=True),
        Column("device time", [cells.duration(r.spent.seconds or None) for r in reports], 3,
               right=True),
        Column("spent", [_usd(r.spent, r) for r in reports], 1, right=True),
        Column("per finished", [_per_finished(r) for r in reports], 5, right=True),
        *_lost_and_saved(reports),
        Column("budget", [*(_budget_cell(one.budget) for one in sweeps), ""], 2, right=True),
    ]  # fmt: skip
    lines = table_lines(columns, width, ascii_only=ascii_only)
    return _with_sentences(_ruled(lines, ascii_only), sentences(total), width)


def trial_cost_table(
    sweep: SweepCost, width: int | None, *, ascii_only: bool = False
) -> list[Text]:
    """`saeq cost SWEEP`: a line a trial, a total, and what they say together."""
    report, trials = sweep.report, sweep.report.trials
    title = Text.assemble(
        (cells.one_line(sweep.sweep), "bold"), "  ", status_text(sweep.status), "\n"
    )
    if not trials:
        return [title, Text("no trial has begun: nothing is spent")]
    rows: list[TrialCost | CostReport] = [*trials, report]
    columns = [
        Column("trial", [*(Text(t.trial, style="bold") for t in trials), Text("total", "bold")]),
        Column("state", [*(status_text(t.state) for t in trials), Text("")]),
        Column("configuration", [*(sweep.parameters.get(t.trial, "-") for t in trials), ""], 5,
               shrinks_to=16),
        Column("tokens", [*(cells.tokens(t.tokens or None) for t in trials), ""], 4, right=True),
        Column("device time", [cells.duration(r.spent.seconds or None) for r in rows], 3,
               right=True),
        Column("spent", [_usd(row.spent, row) for row in rows], 1, right=True),
        *_lost_and_saved(rows),
    ]  # fmt: skip
    lines = table_lines(columns, width, ascii_only=ascii_only)
    said = [*_where_it_went(report), *sentences(report), *_budget_sentences(sweep)]
    return [title, *_with_sentences(_ruled(lines, ascii_only), said, width)]


def _lost_and_saved(rows: Sequence[TrialCost | CostReport]) -> list[Column]:
    lost = [row.lost_to_preemption + row.lost_to_failures for row in rows]
    return [
        Column("lost", [_amount(a, r) for a, r in zip(lost, rows, strict=True)], 2, right=True),
        Column("stop saved", [_amount(r.saved_by_stopping, r) for r in rows], 2, right=True),
        Column("pack saved", [_amount(r.saved_by_packing, r) for r in rows], 2, right=True),
    ]


def _ruled(lines: list[Text], ascii_only: bool) -> list[Text]:
    """A rule above the last line, the total."""
    longest = max(line.cell_len for line in lines)
    rule = Text(("-" if ascii_only else "\u2500") * longest, style="bright_black")
    return [*lines[:-1], rule, lines[-1]]


def _with_sentences(lines: list[Text], said: Sequence[str], width: int | None) -> list[Text]:
    folded = [line for text in said for line in wrapped(text, width)]
    return [*lines, *([Text("")] if folded else []), *folded]


def wrapped(text: str, width: int | None) -> list[Text]:
    """Words on lines of a terminal's width, those that go on indented."""
    lines: list[str] = []
    for word in text.split():
        if lines and (width is None or len(lines[-1]) + 1 + len(word) <= width):
            lines[-1] += f" {word}"
        else:
            lines.append(f"  {word}" if lines else word)
    return [Text(line) for line in lines]


def _has_price(row: TrialCost | CostReport) -> bool:
    if isinstance(row, CostReport):
        return row.has_price
    return row.spent.seconds > row.unpriced_seconds


def _usd(amount: Amount, row: TrialCost | CostReport) -> str:
    if not _has_price(row):
        return cells.UNKNOWN
    return cells.usd(amount.usd, is_estimate=row.is_estimate)


def _amount(amount: Amount, row: TrialCost | CostReport) -> str:
    """Dollars where there is a price, else time; a dash for nothing at all."""
    if amount.seconds <= 0:
        return cells.UNKNOWN
    return _usd(amount, row) if _has_price(row) else cells.duration(amount.seconds)


def _per_finished(report: CostReport) -> str:
    partly_priced = report.has_price and report.unpriced_seconds > 0
    if report.per_finished is None or partly_priced:
        return cells.UNKNOWN
    return _amount(report.per_finished, report)


def _budget_cell(budget: BudgetUse) -> Text:
    return Text(cells.percent(budget.share), style=budget_style(budget))


# Sentences


def sentences(report: CostReport) -> list[str]:
    """What it would have cost otherwise, what was lost, what the machines cost, whose prices."""
    return [
        *_against_one_run_each(report),
        *_losses(report),
        *_machines(report),
        *_prices(report),
    ]


def _against_one_run_each(report: CostReport) -> list[str]:
    whole, packing, stopping = (
        report.one_run_each,
        report.saved_by_packing,
        report.saved_by_stopping,
    )
    if whole.seconds <= report.spent.seconds:
        return []
    verb = "cost" if report.has_price else "taken"
    parts = [
        f"{name} saved {_share(part, whole, report)}"
        for name, part in (("packing", packing), ("early stopping", stopping))
        if part.seconds > 0
    ]
    return [
        f"one run per SAE, each to its end, would have {verb} at least {_amount(whole, report)}: "
        + ", ".join(parts)
    ]


def _share(part: Amount, whole: Amount, report: CostReport) -> str:
    if report.has_price and whole.usd > 0:
        return cells.percent(part.usd / whole.usd)
    return cells.percent(part.seconds / whole.seconds)


def _losses(report: CostReport) -> list[str]:
    return [
        f"{what} cost {_amount(lost, report)}, {_share(lost, report.spent, report)} of what was "
        "spent: work that was done again"
        for what, lost in (
            ("preemptions", report.lost_to_preemption),
            ("failures of trials", report.lost_to_failures),
        )
        if lost.seconds > 0
    ]


def _machines(report: CostReport) -> list[str]:
    machines, rest = report.machines, report.unattributed
    if rest is None or not report.spent.seconds:
        return []
    whole = Amount(machines.device_seconds, machines.usd)
    cost = f", {cells.usd(machines.usd)}" if machines.usd else ""
    return [
        f"machines were held for {cells.duration(machines.device_seconds)} of device time{cost}; "
        f"not attributed to trials: {_share(rest, whole, report)} (loading, evaluation, waiting, "
        "other sweeps on the same machines)"
    ]


def _prices(report: CostReport) -> list[str]:
    said = []
    if report.unpriced_seconds > 0:
        seconds = cells.duration(report.unpriced_seconds)
        said.append(f"no price is known for {seconds} of device time; {HOW_TO_PRICE}")
    if report.price_sources:
        said.append(f"price from: {'; '.join(cells.one_line(s) for s in report.price_sources)}")
    if report.is_estimate:
        said.append(f"{cells.ABOUT} stands before what rests on a typical price: nobody named one")
    return said


def _where_it_went(report: CostReport) -> list[str]:
    shares = [
        f"{state} {_amount(amount, report)} ({_share(amount, report.spent, report)})"
        for state, amount in report.by_state.items()
        if amount.seconds > 0
    ]
    return [f"where it went: {', '.join(shares)}"] if len(shares) > 1 else []


def _budget_sentences(sweep: SweepCost) -> list[str]:
    budget = sweep.budget
    if budget.share is None:
        return []
    what_follows = "; no further trial is suggested, running ones go to their next rung"
    follows = budget.spent is not None and not is_over(sweep.status)
    said = [f"budget: {' and '.join(budget.parts)} used{what_follows if follows else ''}"]
    if budget.usd_limit is not None and sweep.report.unpriced_seconds > 0:
        said.append("budget.usd does not see device time without a price; budget.hours does")
    return said
