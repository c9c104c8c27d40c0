"""`saeq compare`: the values, the differences with their intervals, and what that says."""

from __future__ import annotations

from rich.text import Text

from orchestrator.results.comparison import Comparison, Contrast
from orchestrator.view import cells
from orchestrator.view.columns import Column, table_lines
from orchestrator.view.cost_page import wrapped

FEW_SEEDS = 5
BETTER = {"min": "lower is better", "max": "higher is better"}


def comparison_page(
    found: Comparison, width: int | None, *, ascii_only: bool = False
) -> list[Text]:
    """Two tables and a sentence a pair."""
    asked = found.question
    title = Text.assemble(
        (cells.one_line(asked.sweep), "bold"),
        f"  {asked.metric} by {asked.parameter} ({BETTER[asked.direction]})",
    )
    lines = [title, Text(""), *_values(found, width, ascii_only), Text("")]
    lines += [*_contrasts(found, width, ascii_only), Text("")]
    for text in [*map(_sentence, found.contrasts), *_notes(found)]:
        lines += wrapped(text, width)
    return lines


def _values(found: Comparison, width: int | None, ascii_only: bool) -> list[Text]:
    sides = found.sides
    best = [
        " ".join(f"{name}={cells.parameter(value)}" for name, value in side.best.items())
        for side in sides
    ]
    columns = [
        Column(found.question.parameter, [cells.parameter(side.value) for side in sides]),
        Column("at its best", best, 2, shrinks_to=16),
        Column("trials", [str(side.num_trials) for side in sides], 1, right=True),
        Column(f"mean {found.question.metric}", [f"{s.mean:.4g}" for s in sides], right=True),
    ]
    return table_lines(columns, width, ascii_only=ascii_only)


def _contrasts(found: Comparison, width: int | None, ascii_only: bool) -> list[Text]:
    some = found.contrasts
    pairs = [f"{cells.parameter(one.first)} - {cells.parameter(one.second)}" for one in some]
    confidence = f"{100 * some[0].difference.confidence:.3g}%"
    ranges = [f"[{_signed(o.difference.low)}, {_signed(o.difference.high)}]" for o in some]
    columns = [
        Column("difference", pairs),
        Column("mean", [_signed(one.difference.estimate) for one in some], right=True),
        Column(f"{confidence} interval", ranges, right=True),
        Column("pairs", [str(one.num_pairs) for one in some], 2, right=True),
        Column("seeds", [str(o.num_units) if found.unit == "seeds" else "" for o in some], 1,
               right=True),
        Column("verdict", [Text(o.verdict, "bold" if o.winner != "tie" else "") for o in some]),
    ]  # fmt: skip
    return table_lines(columns, width, ascii_only=ascii_only)


def _sentence(one: Contrast) -> str:
    first, second = cells.parameter(one.first), cells.parameter(one.second)
    if one.winner == "tie":
        return f"{first} and {second}: a tie; these trials do not tell them apart."
    other = second if one.verdict == first else first
    return f"{one.verdict} is better than {other}."


def _notes(found: Comparison) -> list[str]:
    asked, notes = found.question, [f"{why}." for why in found.not_compared]
    ignored = sorted({name for one in found.contrasts for name in one.ignored})
    if ignored:
        notes.append(
            f"Averaged over {', '.join(ignored)}, which not all values have; --at-best NAME "
            "compares each value at its own best one."
        )
    if asked.at_best:
        notes.append(f"Each value's best setting was chosen by mean {asked.chosen_by}.")
        if asked.chosen_by == asked.metric:
            notes.append("What is chosen by a metric looks too good in it: --metric names another.")
    if len(found.contrasts) > 1:
        notes.append(f"The {len(found.contrasts)} intervals hold together at 95% (Bonferroni).")
    fewest = min((one.num_units for one in found.contrasts), default=0)
    if fewest < FEW_SEEDS:
        chance = 2 ** (fewest - 1)
        notes.append(
            f"{fewest} {found.unit} agree in sign once in {chance} by chance alone: take more "
            "where it matters."
        )
    if found.left_out:
        ended = ", ".join(f"{count} {status}" for status, count in found.left_out.items())
        notes.append(f"Not compared, since they did not finish: {ended}.")
    return notes


def _signed(value: float) -> str:
    return f"{value:+.4f}" if 1e-3 <= abs(value) < 100 or value == 0 else f"{value:+.2e}"
