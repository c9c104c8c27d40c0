"""`saeq serve`."""

from __future__ import annotations

import json
import sys
import time
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.errors import DONE
from orchestrator.cli.options import StoreOption
from orchestrator.cli.serve_options import (
    AnywayOption,
    ForOption,
    IdleForOption,
    NoticesOption,
    RayAddressOption,
    UntilOption,
    seconds_of,
    unix_time_of,
)

if TYPE_CHECKING:
    from orchestrator.serving.serve import Serve
    from orchestrator.view.live import LiveView


def serve(
    store: StoreOption = None,
    ray_address: RayAddressOption = None,
    until_idle: Annotated[
        bool, typer.Option("--until-idle", help="End when nothing can be worked on any more.")
    ] = False,
    for_time: ForOption = None,
    until: UntilOption = None,
    notices: NoticesOption = None,
    idle_for: IdleForOption = None,
    sweeps: Annotated[
        int, typer.Option("--sweeps", metavar="N", min=1, help="Sweeps worked on at once.")
    ] = 4,
    plain: Annotated[
        bool, typer.Option("--plain", help="Plain lines instead of the live view.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="JSON lines instead of text.")] = False,
    anyway: AnywayOption = False,
) -> int:
    """Work the queue off: sweeps by priority, several at once, until stopped.

    Safe to kill at any moment, and safe to run many of on one store. Ctrl-C or SIGTERM checkpoints
    all trials and gives them back; nobody has to clear anything up.

        saeq serve
        saeq serve --until-idle --store s3://bucket/saeq
        saeq serve --for 4h --sweeps 2
        saeq serve --notices auto
    """
    from orchestrator.serving.interrupts import stop_signals_interrupt
    from orchestrator.serving.local_ray import ray_source
    from orchestrator.serving.notice_watch import watched_notices
    from orchestrator.serving.serve import Serve, ServeOptions
    from orchestrator.store import Store

    options = ServeOptions(
        max_sweeps=sweeps,
        until_idle=until_idle,
        for_s=seconds_of("--for", for_time),
        until=unix_time_of("--until", until),
        idle_for_s=seconds_of("--idle-for", idle_for),
        anyway=anyway,
    )
    opened = Store.open(store)
    talk = _Talk(as_json=as_json, plain=plain or not sys.stdout.isatty())
    with ExitStack() as undo:
        undo.enter_context(stop_signals_interrupt())
        ray = undo.enter_context(closing(ray_source(ray_address)))
        heeded = undo.enter_context(watched_notices(notices, lambda line: talk.say("", line)))
        serving = Serve(opened, ray, options, talk.say, lambda: talk.show(serving), notices=heeded)
        undo.enter_context(talk)
        talk.say("", f"serving {opened.url}")
        serving.run()
    talk.say("", "stopped serving")
    return DONE


class _Talk(ExitStack):
    """One line for each thing that happens, or the live view with the lines at its end."""

    def __init__(self, *, as_json: bool, plain: bool) -> None:
        super().__init__()
        self._as_json, self._is_live = as_json, not (as_json or plain)
        self._view: LiveView | None = None
        self._shown: list[str] = []

    def say(self, sweep: str, what: str) -> None:
        line = f"{time.strftime('%H:%M:%S')} {sweep + ': ' if sweep else ''}{what}"
        if self._as_json:
            typer.echo(json.dumps({"at": round(time.time(), 3), "sweep": sweep, "what": what}))
        elif self._view is not None:
            self._view.say(line)
        else:
            typer.echo(line)

    def show(self, serving: Serve) -> None:
        """Draw the sweeps that are being worked on, on a terminal."""
        if not self._is_live:
            return
        from orchestrator.view.facts import WatchedSweep, facts_of
        from orchestrator.view.live import LiveView

        working = serving.working
        watched = [WatchedSweep(facts_of(w.queued), w.log) for w in working]
        if self._view is None:
            self._view = self.enter_context(LiveView(watched))
        shown = [worker.queued.id for worker in working]
        if shown != self._shown:
            self._view.sweeps, self._shown = watched, shown
        self._view.update()
