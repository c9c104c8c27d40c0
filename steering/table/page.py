"""The table for people: Markdown, LaTeX (booktabs) and CSV. No numpy, no torch."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

from steering.intervals import Interval
from steering.prompt_banks.leak import Leak
from steering.table.measuring import MIN_PROMPTS, Comparison, ConditionRow, Shift, Table

__all__ = ["csv_text", "latex", "markdown"]

_TEX = str.maketrans({"\\": "\\textbackslash{}", **{sign: "\\" + sign for sign in "&%$#_{}"}})
CHECK = {True: "x", False: ""}


@dataclass(frozen=True)
class _Column:
    """A column of the main table."""

    head: str
    latex: str
    what: str
    """Said below the table."""


COLUMNS = (
    _Column("M1 changed", "M1", "answers whose nearest group is another one than before"),
    _Column("M2 gain", "M2 gain", "those that came to the target group"),
    _Column("M2 loss", "loss", "those that were in the target group and left it"),
    _Column("M2 net", "net", "gain - loss"),
    _Column("M2 of those not there", "cond.", "gain among answers that were not there before"),
    _Column("M3 literal", "M3 lit.", "1 - cos(shift, e_t)"),
    _Column("M3 centred", "M3 cen.", "1 - cos(shift, e_t - mean of all groups)"),
    _Column("M3 towards", "M3 tow.", "1 - cos(shift, e_t - where the answer was)"),
    _Column("hit rate", "hit", "shifts nearest to the target's direction (towards)"),
    _Column("no shift", "n excl.", "answers left out of M3: they did not move"),
)
FLUENCY_HEADS = {
    "perplexity": "perplexity",
    "distinct_1": "distinct-1",
    "distinct_2": "distinct-2",
    "repeated_3grams": "repeated 3-grams",
    "num_tokens": "tokens",
    "empty": "empty",
}


def shift_texts(shift: Shift) -> list[str]:
    """A shift in the columns' order."""
    by = shift.direction
    return [
        f"{shift.num_changed} ({_rate(shift.changed)})",
        f"{shift.num_gained} ({_rate(shift.gain)})",
        f"{shift.num_lost} ({_rate(shift.loss)})",
        _rate(shift.net),
        _rate(shift.conditional),
        _rate(by["literal"].distance),
        _rate(by["centred"].distance),
        _rate(by["towards"].distance),
        _rate(by["towards"].hit),
        str(by["towards"].num_excluded),
    ]


def markdown(table: Table, leak: Leak, notes: Sequence[str] = ()) -> str:
    """One bank's table with what has to be known to read it.

    Args:
        notes: lines about the run: model, embedding, strength, composition.
    """
    heads = ["", "condition", *(column.head for column in COLUMNS), *FLUENCY_HEADS.values()]
    main = [
        [row.name, row.label, *shift_texts(row.shift), *_fluency_texts(row)] for row in table.rows
    ]
    pure = [
        [row.name, row.label, row.pure.before, *shift_texts(row.pure)]
        for row in table.rows
        if row.pure is not None
    ]
    pure_heads = ["", "condition", "before", *(column.head for column in COLUMNS)]
    parts = [
        f"## Prompt bank: {table.bank}",
        "\n".join(f"- {line}" for line in [*_facts(table, leak), *notes]),
        _grid(heads, main),
        _legend(),
        "### Steering alone: against the same prompt without steering",
        _grid(pure_heads, pure),
        "### Conditions against each other (net M2)",
        _grid(
            ["first", "second", "first - second", "only first", "only second", "McNemar p", ""],
            [_comparison(one) for one in table.comparisons],
        ),
        "McNemar's exact test is over cells, which it takes for independent; cells of one prompt "
        "are not. The interval, over prompts, is what the verdict goes by. C1b is C1 with another "
        "seed.",
    ]
    return "\n\n".join(parts) + "\n"


def latex(table: Table) -> str:
    """The main table for a paper; needs the packages booktabs and graphicx."""
    heads = ["", "S", "G", "A", *(column.latex for column in COLUMNS), "PPL", "d-1", "d-2", "rep-3"]
    lines = [
        "% \\usepackage{booktabs,graphicx}",
        "\\begin{table}",
        "\\centering",
        f"\\caption{{Steering (S), group in the prompt (G), attributes in the prompt (A): "
        f"{_tex(table.bank)} prompts, {table.num_prompts} prompts, {table.num_seeds} seeds, "
        f"{len(table.groups)} groups. 95\\% intervals over prompts.}}",
        "\\resizebox{\\textwidth}{!}{%",
        f"\\begin{{tabular}}{{lccc{'r' * (len(heads) - 4)}}}",
        "\\toprule",
        " & ".join(heads) + r" \\",
        "\\midrule",
    ]
    for row in table.rows:
        shown = _conditions(row)
        numbers = [_tex(text) for text in shift_texts(row.shift)]
        fluency = [_tex(text) for text in _fluency_texts(row)[:4]]
        lines.append(" & ".join([row.name, *shown, *numbers, *fluency]) + r" \\")
    lines += ["\\bottomrule", "\\end{tabular}}", "\\end{table}"]
    return "\n".join(lines) + "\n"


def csv_text(tables: Sequence[Table]) -> str:
    """Every number of every bank, a line a condition, "before" and measure."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["bank", "condition", "label", "before", "measure", "value", "low", "high"])
    for table in tables:
        for row in table.rows:
            for shift in (row.shift, *([row.pure] if row.pure is not None else [])):
                for name, found in _measures(shift).items():
                    numbers = [_csv(one) for one in (found.estimate, found.low, found.high)]
                    head = [table.bank, row.name, row.label, shift.before, name]
                    writer.writerow([*head, *numbers])
            for name, value in row.fluency.items():
                writer.writerow([table.bank, row.name, row.label, "", name, _csv(value), "", ""])
    return out.getvalue()


def _measures(shift: Shift) -> dict[str, Interval]:
    found = {
        "m1_changed": shift.changed,
        "m2_gain": shift.gain,
        "m2_loss": shift.loss,
        "m2_net": shift.net,
        "m2_conditional": shift.conditional,
    }
    for reading, direction in shift.direction.items():
        found |= {f"m3_{reading}": direction.distance, f"m3_{reading}_hit": direction.hit}
    return found


def _facts(table: Table, leak: Leak) -> list[str]:
    floor = table.row("C1").shift.changed
    facts = [
        f"{table.num_prompts} prompts, {table.num_seeds} seeds, {len(table.groups)} groups: "
        f"{', '.join(table.groups)}; {table.rows[0].shift.num_cells} cells a condition",
        f"strength {table.strength:g} of the residual norm, from the other half of the prompts",
        f"when one only asks again (the line of C1), {_rate(floor)} of the answers change their "
        f"group; net M2 is 0 by chance, M3 literal and centred 1, gain among those not there "
        f"{table.chance:.2f}. M3 towards is held against the line of C1: any shift leads away from "
        f"where an answer was, and so towards the other groups",
    ]
    if leak.accuracy is not None:
        facts.append(
            f"topic leak: unsteered answers are of their prompt's group in {_rate(leak.accuracy)}, "
            f"{leak.score:.1f} times chance"
        )
    if leak.agreement is not None:
        facts.append(
            f"unsteered answers to one prompt are of one group in {_rate(leak.agreement)}, to any "
            f"two prompts in {leak.agreement_by_chance:.3f}"
        )
    most = max(leak.share_by_group, key=lambda group: leak.share_by_group[group])
    facts.append(f"{leak.share_by_group[most]:.0%} of the unsteered answers are of group {most}")
    if table.num_prompts < MIN_PROMPTS:
        facts.append(
            f"**Warning: {table.num_prompts} prompts are too few for a verdict, and their "
            f"intervals too narrow; ask at least {2 * MIN_PROMPTS}, half of which are reported on**"
        )
    return facts + ([f"**Warning: {leak.warning}**"] if leak.warning else [])


def _legend() -> str:
    said = "; ".join(f"{column.head}: {column.what}" for column in COLUMNS)
    return (
        f"95% intervals over prompts. Before: the answer of C1 to the same prompt with the same "
        f"seed; for C1 itself that of another seed. {said}. Perplexity is of the answer's tokens "
        f"given the plain prompt, under the unsteered model."
    )


def _comparison(one: Comparison) -> list[str]:
    verdict = {
        "tie": "tie",
        "first": f"{one.first} better",
        "second": f"{one.second} better",
        None: "too few prompts",
    }
    test = one.test
    p_value = "<0.0001" if test.p_value < 1e-4 else f"{test.p_value:.4f}"
    counts = [str(test.only_first), str(test.only_second)]
    return [one.first, one.second, _rate(one.net), *counts, p_value, verdict[one.verdict]]


def _fluency_texts(row: ConditionRow) -> list[str]:
    digits = {"perplexity": 1, "num_tokens": 1}
    return [_number(row.fluency[name], digits.get(name, 2)) for name in FLUENCY_HEADS]


def _conditions(row: ConditionRow) -> list[str]:
    return [CHECK[word in row.label.split(" + ")] for word in ("steering", "group", "attributes")]


def _grid(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _rate(found: Interval) -> str:
    if math.isnan(found.estimate):
        return "-"
    return f"{found.estimate:.2f} [{found.low:.2f}, {found.high:.2f}]"


def _number(value: float, digits: int) -> str:
    return "-" if math.isnan(value) else f"{value:.{digits}f}"


def _csv(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.6g}"


def _tex(text: str) -> str:
    return text.translate(_TEX)
