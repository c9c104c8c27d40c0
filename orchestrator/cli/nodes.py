"""`saeq nodes`: every machine, how far its start came, and why it does not work."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli.errors import DONE, RequestError
from orchestrator.cli.options import JsonOption, StoreOption
from orchestrator.cli.printing import print_json, print_table

if TYPE_CHECKING:
    from orchestrator.nodes.health import WaitingWork
    from orchestrator.store import Store
    from orchestrator.view.nodes_rows import NodeRow, NodesSnapshot

WATCH_EVERY_S = 2.0


def nodes(
    store: StoreOption = None,
    as_json: JsonOption = False,
    every: Annotated[
        bool, typer.Option("--all", help="Also those that ended or were not heard of for a day.")
    ] = False,
    release: Annotated[
        list[str] | None,
        typer.Option(
            "--release",
            metavar="HOST",
            help="Let a host in quarantine work again; may be given several times.",
            show_default=False,
        ),
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Again and again, until Ctrl-C.")] = False,
) -> int:
    """Every machine that works for this store: its start in stages, its state, and why not.

    Below the table: hosts in quarantine, what did not come in time with the end of its log, and,
    while work waits and nobody takes it, why.

        saeq nodes
        saeq nodes --release gpu17
        saeq nodes --json | jq '.nodes[] | select(.state == "failed").why'
    """
    from orchestrator.store import Store

    opened = Store.open(store)
    if release:
        _release(opened, release)
    elif watch and not as_json:
        _watch(opened, every)
    else:
        _show(opened, every, as_json)
    return DONE


def _release(store: Store, hosts: list[str]) -> None:
    from orchestrator.nodes.quarantine import hosts_kept_out
    from orchestrator.nodes.quarantine import release as release_host

    kept_out = {standing.host: standing for standing in hosts_kept_out(store)}
    unknown = [host for host in hosts if host not in kept_out]
    if unknown:
        known = ", ".join(kept_out) or "none"
        raise RequestError(
            f"--release {unknown[0]}: that host is not in quarantine; in quarantine: {known}"
        )
    for host in dict.fromkeys(hosts):
        release_host(store, host)
        typer.echo(f"host {host} may work again (it was kept out: {kept_out[host].why})")


def _show(store: Store, every: bool, as_json: bool) -> None:
    from orchestrator.view.nodes_table import nodes_page, why_nothing_happens

    snapshot, rows, work, now = _look(store, every)
    kept_out = snapshot.kept_out
    if as_json:
        print_json(
            {
                "nodes": [row.to_json(now) for row in rows],
                "quarantine": [standing.model_dump(mode="json") for standing in kept_out],
                "waiting_trials": work.trials,
                "why": why_nothing_happens(rows, kept_out, work, now),
            }
        )
        return

    def draw(width: int | None, ascii_only: bool) -> Any:
        hidden = len(snapshot.records) - len(rows)
        return nodes_page(
            rows, kept_out, work, now, width, num_hidden=hidden, ascii_only=ascii_only
        )

    print_table(draw)


def _look(store: Store, every: bool) -> tuple[NodesSnapshot, list[NodeRow], WaitingWork, float]:
    from orchestrator.view.facts import WatchedSweep
    from orchestrator.view.nodes_rows import NodesSnapshot, node_rows, waiting_work
    from orchestrator.view.sweep_rows import sweep_rows

    now = time.time()
    over = ("finished", "failed", "cancelled")
    going = [row.sweep for row in sweep_rows(store, now) if row.state not in over]
    watched = [WatchedSweep.open(store, sweep) for sweep in going]
    sweeps = [(each.facts, each.log.state) for each in watched]
    snapshot = NodesSnapshot.read(store)
    return snapshot, node_rows(snapshot, sweeps, now, every=every), waiting_work(sweeps), now


def _watch(store: Store, every: bool) -> None:
    """On a terminal the page is drawn over itself; into a pipe it is written again and again."""
    from rich.console import Console

    console = Console(highlight=False)
    while True:
        if console.is_terminal:
            console.clear()
        _show(store, every, as_json=False)
        time.sleep(WATCH_EVERY_S)
