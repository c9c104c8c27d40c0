"""`saeq nodes` as lines: the table, who is kept out, what is late, and why nothing happens."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from orchestrator.log.state import SweepState
from orchestrator.nodes.health import WaitingWork, in_words
from orchestrator.nodes.quarantine import HostStanding
from orchestrator.nodes.stages import WITHIN_S, WORDS
from orchestrator.view import cells
from orchestrator.view.columns import Column, table_lines
from orchestrator.view.dashboard import NODE_STYLES
from orchestrator.view.facts import SweepFacts
from orchestrator.view.model import NodesPanel
from orchestrator.view.nodes_rows import NodeRow, NodesSnapshot, node_rows

TAIL_LINES = 8


def nodes_page(
    rows: Sequence[NodeRow],
    kept_out: Sequence[HostStanding],
    work: WaitingWork,
    now: float,
    width: int | None,
    *,
    num_hidden: int = 0,
    ascii_only: bool = False,
) -> list[Text]:
    """All of it.

    Args:
        num_hidden: nodes that are of no interest any more.
        work: what waits in the store.
        now: seconds since 1970.
        width: terminal cells; None: as wide as it gets.
    """
    table = _table(rows, now, width, ascii_only) if rows else []
    below: list[Text] = []
    for standing in kept_out:
        below += _wrapped(_quarantine_line(standing, now), width)
    for row, line in zip(rows, table[1:], strict=True):
        if row.why and (row.tail or row.why not in line.plain):
            below += _details(row, width)
    why = why_nothing_happens(rows, kept_out, work, now)
    if why:
        below += _wrapped(Text(why, style="bold yellow"), width)
    if not (table or why):
        known = f"no node is there now (`saeq nodes --all` shows {num_hidden} that were)"
        none = "no node has been heard of; `saeq serve` makes this machine one"
        below.insert(0, Text(known if num_hidden else none))
    return [*table, *([Text("")] if table and below else []), *below]


def _table(rows: Sequence[NodeRow], now: float, width: int | None, ascii_only: bool) -> list[Text]:
    columns = [
        Column("node", [Text(row.id, style="bold") for row in rows], shrinks_to=14),
        Column("kind", [row.kind for row in rows], 7),
        Column("host", [row.host for row in rows], 3, shrinks_to=10),
        Column("where", [row.where for row in rows], 4, shrinks_to=12),
        Column("state", [state_text(row) for row in rows]),
        Column("stage", [_stage(row, now) for row in rows], 2),
        Column("devices", [row.devices for row in rows], 5, shrinks_to=8),
        Column("trials", [str(row.slots or cells.UNKNOWN) for row in rows], 1, right=True),
        Column("sweeps", [_sweeps(row) for row in rows], 8, shrinks_to=8),
        Column("$/h", [cells.usd(row.usd_per_hour) for row in rows], 6, right=True),
        Column("heard", [_heard(row) for row in rows], 9, right=True),
        Column("why", [row.why for row in rows], 1, shrinks_to=16),
    ]
    return table_lines(columns, width, ascii_only=ascii_only)


def state_text(row: NodeRow) -> Text:
    """Its state in its colour; what is late is yellow."""
    style = "yellow" if row.health.overdue else NODE_STYLES[row.health.state]
    return Text(row.health.state + (", late" if row.health.overdue else ""), style=style)


def _stage(row: NodeRow, now: float) -> str:
    health = row.health
    if not health.words:
        return cells.UNKNOWN
    age = "" if health.since is None else f" {cells.duration(round(max(now - health.since, 0)))}"
    return health.words + age


def _sweeps(row: NodeRow) -> str:
    first = cells.one_line(row.sweeps[0]) if row.sweeps else ""
    return f"{first} +{len(row.sweeps) - 1}" if len(row.sweeps) > 1 else first


def _heard(row: NodeRow) -> str:
    return cells.UNKNOWN if row.heard_s is None else cells.duration(round(row.heard_s))


def _quarantine_line(standing: HostStanding, now: float) -> Text:
    since = now - (standing.kept_out_since or now)
    return Text.assemble(
        ("quarantine ", "bold red"),
        (cells.one_line(standing.host), "bold"),
        f" for {in_words(since)}: {cells.one_line(standing.why)}; "
        f"`saeq nodes --release {standing.host}` lets it work again",
    )


def _details(row: NodeRow, width: int | None) -> list[Text]:
    """What the table has no room for: the whole sentence, and the log's tail."""
    lines = _wrapped(Text.assemble((row.id, "bold"), f": {cells.one_line(row.why, 1000)}"), width)
    tail = row.tail.splitlines()[-TAIL_LINES:]
    return lines + [Text(f"    {cells.one_line_kept(line)}", style="bright_black") for line in tail]


def _wrapped(text: Text, width: int | None) -> list[Text]:
    """As many lines as it takes; further ones are indented."""
    if width is None or text.cell_len <= width:
        return [text]
    console = Console(width=max(width - 2, 20))
    first, *more = text.wrap(console, max(width - 2, 20))
    return [first, *(Text("  ").append_text(line) for line in more)]


def panel_of(
    snapshot: NodesSnapshot, sweeps: Sequence[tuple[SweepFacts, SweepState]], now: float
) -> NodesPanel:
    """For the dashboard: counts, and a remark on each node that does not work."""
    rows, kept_out = node_rows(snapshot, sweeps, now), snapshot.kept_out
    counts: Counter[str] = Counter(row.health.state for row in rows)
    by_word: dict[str, int] = {word: counts[word] for word in NODE_STYLES if counts[word]}
    if kept_out:
        by_word["quarantined"] = len(kept_out)
    worst = [row for row in rows if row.health.needs_a_look]
    coming = [row for row in rows if row.health.state in ("draining", "starting", "waiting")]
    remarks = [(row.id, row.why) for row in worst]
    remarks += [(standing.host, f"in quarantine: {standing.why}") for standing in kept_out]
    remarks += [(row.id, _coming(row, now)) for row in coming if row not in worst]
    plain = tuple((cells.one_line(name), cells.one_line(what)) for name, what in remarks)
    return NodesPanel(by_word, plain)


def _coming(row: NodeRow, now: float) -> str:
    if row.health.state == "draining":
        return row.says
    stage = _stage(row, now)
    return f"{stage} ago{f' ({row.says})' if row.says else ''}"


def why_nothing_happens(
    rows: Sequence[NodeRow], kept_out: Sequence[HostStanding], work: WaitingWork, now: float
) -> str:
    """One sentence while work waits and no node holds any; empty otherwise."""
    if not work or any(row.health.state in ("working", "draining") for row in rows):
        return ""
    trials = "1 trial waits" if work.trials == 1 else f"{work.trials} trials wait"
    return f"{trials} and no node works: {_reason(rows, kept_out, now)}"


def _reason(rows: Sequence[NodeRow], kept_out: Sequence[HostStanding], now: float) -> str:
    by_state: dict[str, list[NodeRow]] = {}
    for row in rows:
        by_state.setdefault(row.health.state, []).append(row)
    if up := by_state.get("ready"):
        return _of_ready(up[0])
    if coming := by_state.get("starting"):
        newest = max(coming, key=lambda row: row.health.since or 0.0)
        return _of_coming(newest, now)
    if queued := by_state.get("waiting"):
        said = f" ({queued[0].says})" if queued[0].says else ""
        return f"{queued[0].id} waits for its allocation{said}"
    if failed := by_state.get("failed"):
        last = max(failed, key=lambda row: row.health.failure.at if row.health.failure else 0.0)
        return f"{_count(len(failed))} failed, the last one {last.id}: {last.why}"
    if silent := by_state.get("silent"):
        return f"{silent[0].id} is {silent[0].why}; if it was killed, start another"
    if kept_out:
        hosts = ", ".join(standing.host for standing in kept_out)
        return f"none is there, and quarantine holds {hosts}"
    return "none is there; start one: `saeq serve` here, `saeq slurm up`, `saeq node up`"


def _of_ready(row: NodeRow) -> str:
    if row.health.overdue:
        return f"{row.id}: {row.health.overdue}" + (f"; it says: {row.says}" if row.says else "")
    return f"{row.id} is about to take some" + (f" ({row.says})" if row.why else "")


def _of_coming(row: NodeRow, now: float) -> str:
    health = row.health
    if health.overdue:
        return f"{row.id}: {health.overdue}"
    age = f" {in_words(now - health.since)} ago" if health.since is not None else ""
    limit_s = WITHIN_S.get(health.waits_for) if health.waits_for else None
    due = ""
    if health.waits_for and limit_s and health.since is not None:
        left_s = max(health.since + limit_s - now, 0.0)
        due = f"; {WORDS[health.waits_for]} is due within {in_words(left_s)}"
    return f"{row.id} is starting: {health.words}{age}{due}"


def _count(count: int) -> str:
    return "1 node has" if count == 1 else f"{count} nodes have"
