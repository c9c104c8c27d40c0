"""The page that `saeq plan --where` prints: one line a kind of machine, at 80 columns."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from orchestrator.planning.where import MachineRow, WherePlan, expected
from orchestrator.spec.units import format_duration, format_rounded, format_usd
from orchestrator.view.cells import UNKNOWN
from orchestrator.view.columns import Column, table_lines

LEGEND = (
    "SAEs: live on one GPU at once; tok/s: SAE tokens trained a second on the whole machine; "
    "time and dollars with early stopping as expected, one machine, without its start"
)


def where_page(plan: WherePlan, width: int = 80) -> RenderableType:
    """Everything a person wants to know before renting.

    Args:
        width: terminal cells.
    """
    rows = plan.machines
    head = Text.assemble((plan.sweep, "bold"), f"  {plan.trials} trials: where to run them")
    return Group(
        head,
        Text(),
        *table_lines(_columns(rows), width),
        Text(),
        *_verdict(plan),
        *[Text(note, style="yellow") for note in _row_notes(rows)],
        Text(),
        *[Text(line, style="dim") for line in _footnotes(plan)],
    )


def _columns(rows: Sequence[MachineRow]) -> list[Column]:
    def cells(shown: Sequence[str]) -> list[str | Text]:
        return [Text(cell, style=_style(row)) for row, cell in zip(rows, shown, strict=True)]

    return [
        Column("", cells(["*" if row.on_frontier else " " for row in rows])),
        Column("machine", cells([row.name for row in rows]), shrinks_to=12),
        Column("GPUs", cells([_gpus(row) for row in rows])),
        Column("SAEs", cells([str(row.saes_per_device or UNKNOWN) for row in rows]), right=True),
        Column("tok/s", cells([_pace(row) for row in rows]), 3, right=True),
        Column("time", cells([_time(row) for row in rows]), right=True),
        Column("$/h", cells([_hourly(row) for row in rows]), 1, right=True),
        Column("total", cells([_total(row) for row in rows]), right=True),
        Column("per SAE", cells([_per_sae(row) for row in rows]), 2, right=True),
    ]


def _style(row: MachineRow) -> str:
    if row.hours is None:
        return "bright_black"
    return "bold" if row.on_frontier else ""


def _gpus(row: MachineRow) -> str:
    return f"{row.num_devices} {row.device}" if row.num_devices > 1 else row.device


def _pace(row: MachineRow) -> str:
    return UNKNOWN if row.tokens_per_second is None else format_rounded(row.tokens_per_second)


def _time(row: MachineRow) -> str:
    return UNKNOWN if row.hours is None else format_duration(expected(row.hours) * 3600)


def _about(row: MachineRow, text: str) -> str:
    return f"~{text}" if row.price_is_estimate else text


def _hourly(row: MachineRow) -> str:
    return UNKNOWN if row.usd_per_hour is None else _about(row, f"{row.usd_per_hour:.2f}")


def _total(row: MachineRow) -> str:
    return UNKNOWN if row.usd is None else _about(row, _short_usd(expected(row.usd)))


def _per_sae(row: MachineRow) -> str:
    return UNKNOWN if row.usd_per_sae is None else _about(row, _short_usd(row.usd_per_sae))


def _short_usd(usd: float) -> str:
    """With the cents, or parts of them, that tell machines apart."""
    if usd >= 100:
        return f"${usd:,.0f}"
    return format_usd(usd) if usd >= 1 else f"${usd:.3f}" if usd >= 0.001 else "<$0.001"


def _verdict(plan: WherePlan) -> list[Text]:
    by_name = {row.name: row for row in reversed(plan.machines)}
    lines = []
    if plan.cheapest is not None:
        lines.append(_named("cheapest", by_name[plan.cheapest]))
    if plan.fastest is not None and plan.fastest != plan.cheapest:
        lines.append(_named("fastest", by_name[plan.fastest]))
    elif plan.fastest is not None:
        lines[-1] = _named("cheapest and fastest", by_name[plan.fastest])
    between = [r.name for r in plan.machines if r.on_frontier]
    others = [name for name in between if name not in (plan.cheapest, plan.fastest)]
    if others:
        line = f"between them, * : {', '.join(others)} (none is both cheaper and faster)"
        lines.append(Text(line))
    return lines


def _named(what: str, row: MachineRow) -> Text:
    where = f" in {row.zone}" if row.zone else ""
    market = "spot" if row.spot else "on demand" if row.provider == "aws" else ""
    details = " ".join(word for word in (row.provider, market) if word)
    words = f"{_gpus(row)}, {details}{where}".rstrip(", ")
    cost = f"{_total(row)} in {_time(row)}" if row.usd is not None else _time(row)
    return Text.assemble((f"{what}: ", "bold green"), (row.name, "bold"), f" ({words}): {cost}")


def _row_notes(rows: Sequence[MachineRow]) -> list[str]:
    """Equal notes once, with all machines they are about."""
    about: dict[str, list[str]] = {}
    for row in rows:
        for note in row.notes:
            about.setdefault(f"{note} a GPU" if row.hours is None else note, []).append(row.name)
    return [f"{', '.join(dict.fromkeys(names))}: {note}" for note, names in about.items()]


def _footnotes(plan: WherePlan) -> list[str]:
    lines = [LEGEND]
    basis = plan.hours_basis
    if plan.scaling is not None:
        basis += f"; times {plan.scaling.factor:.2g}, as measured on {plan.scaling.device}"
    lines.append(f"time: {basis}")
    lines.append(f"early stopping: {plan.expected_share_basis}")
    sources: dict[str, list[str]] = {}
    for row in plan.machines:
        if row.usd_per_hour is not None:
            place = f" {row.zone}" if row.zone else ""
            sources.setdefault(_source(row), []).append(f"{row.name}{place}")
    if len(sources) == 1:
        lines += [f"price: {source}" for source in sources]
    else:
        lines += [f"price, {', '.join(names)}: {source}" for source, names in sources.items()]
    if named := [f"{row.name} ({row.node_type})" for row in plan.machines if row.node_type]:
        lines.append(f"in the cluster file: {', '.join(dict.fromkeys(named))}")
    return [*lines, *plan.notes]


def _source(row: MachineRow) -> str:
    return f"~ {row.price_source}" if row.price_is_estimate else row.price_source
