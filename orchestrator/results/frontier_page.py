"""Results as one HTML file: the figure inside it, the tables below, nothing fetched."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape

from orchestrator.results.frontier_plot import subtitle
from orchestrator.results.page import extra_metrics, how_it_ended, summary
from orchestrator.results.table import ResultRow, Results
from orchestrator.view import cells

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 62rem; margin: 2rem auto;
  padding: 0 1rem; }
h1 { font-size: 1.5rem; margin: 0; } h2 { font-size: 1.05rem; margin: 1.6rem 0 .3rem; }
p { margin: .2rem 0; color: #555; } img { width: 100%; max-width: 46rem; margin: 1rem 0; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .2rem .6rem; border-bottom: 1px solid #e5e5e5;
  white-space: nowrap; }
th { color: #777; font-weight: 500; } .text { text-align: left; }
tr.frontier td { background: #eef6ee; font-weight: 600; }
tr.stopped td, tr.diverged td, tr.failed td, tr.cancelled td, tr.queued td { color: #888; }
"""


def frontier_html(results: Results, png: bytes) -> str:
    """Write the page.

    Args:
        png: the figure, as `frontier_png` draws it.
    """
    name = escape(cells.one_line(results.facts.id))
    image = base64.b64encode(png).decode()
    lines = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{name}</title><style>{STYLE}</style></head><body>",
        f"<h1>{name}</h1>",
        f"<p>{escape(subtitle(results.facts.setup))}</p>",
        *(f"<p>{escape(line)}</p>" for line in summary(results)),
        f'<img alt="{escape(results.facts.metric)} over L0" src="data:image/png;base64,{image}">',
    ]
    for stratum, rows in results.by_stratum().items():
        lines.append(f"<h2>{escape(stratum)}</h2>")
        lines.append(_table(results, rows))
    lines.append("<p>Green: on the frontier, no other is both sparser and better.</p>")
    return "\n".join([*lines, "</body></html>", ""])


def _table(results: Results, rows: Sequence[ResultRow]) -> str:
    names = [
        name
        for name in dict.fromkeys(("architecture", *results.facts.searched))
        if any(name in row.config for row in rows)
    ]
    metric = results.facts.metric
    extra = [(name, title) for name, title, _ in extra_metrics(results.facts)]
    head = ["trial", "state", *names, results.facts.unit, metric, *(title for _, title in extra)]
    body = "".join(_row(results, row, names, [name for name, _ in extra]) for row in rows)
    return (
        '<div class="wide"><table><tr>'
        + "".join(f"<th>{escape(title)}</th>" for title in head)
        + f'<th class="text">how it ended</th></tr>{body}</table></div>'
    )


def _row(results: Results, row: ResultRow, names: Iterable[str], extra: Iterable[str]) -> str:
    texts = [
        row.trial,
        row.state,
        *(cells.parameter(row.config[name]) if name in row.config else "-" for name in names),
        cells.tokens(row.tokens),
        cells.number(results.value(row)),
        *(cells.number(row.metrics.get(name)) for name in extra),
    ]
    mark = "frontier" if row.on_frontier else row.state
    drawn = "".join(f"<td>{escape(cells.one_line(text))}</td>" for text in texts)
    ended = escape(how_it_ended(row))
    return f'<tr class="{mark}">{drawn}<td class="text">{ended}</td></tr>'
