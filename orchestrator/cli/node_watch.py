"""`saeq node watch`."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.errors import DONE, RequestError
from orchestrator.cli.serve_options import seconds_of

if TYPE_CHECKING:
    from orchestrator.nodes.presence import Presence
    from orchestrator.nodes.raylet import Raylet
    from orchestrator.nodes.watcher import OnRebalance
    from orchestrator.providers.notices import NoticeSource
    from orchestrator.store import Store

WAIT_FOR_RAY_S = 120.0


NoticesOption = Annotated[
    str,
    typer.Option(
        "--notices",
        metavar="SOURCE",
        help="Who announces that this machine goes: auto, aws, gcp, command:CMD, none.",
    ),
]
RayAddressOption = Annotated[
    str | None,
    typer.Option(
        "--ray-address",
        metavar="HOST:PORT",
        help="The node's cluster, where several Rays run here. Else $RAY_ADDRESS.",
        show_default=False,
    ),
]
NodeIdOption = Annotated[
    str | None,
    typer.Option(
        "--node-id",
        metavar="ID",
        help="Ray's id of the node, where several of one cluster run here.",
        show_default=False,
    ),
]
OwnStoreOption = Annotated[
    str | None,
    typer.Option(
        "--store",
        metavar="STORE",
        help="Where the node tells that it is there, and where the quarantine is. Else "
        "$SAEQ_STORE, else neither.",
        show_default=False,
    ),
]
RebalanceOption = Annotated[
    str,
    typer.Option(
        "--on-rebalance",
        metavar="note|drain",
        help="What a rebalance recommendation does: most machines with one live on for hours.",
    ),
]


def watch(
    notices: NoticesOption = "auto",
    ray_address: RayAddressOption = None,
    node_id: NodeIdOption = None,
    store: OwnStoreOption = None,
    every: Annotated[str, typer.Option("--every", metavar="TIME", help="How often to ask.")] = "3s",
    on_rebalance: RebalanceOption = "note",
) -> int:
    """Drain this machine's Ray node when the machine is about to be taken away.

    For a node of a Ray cluster, started right after `ray start`; it ends with the node. Trials
    there checkpoint at once and go on elsewhere; nothing counts as a failure. A host in quarantine
    is drained, too.

        saeq node watch --store s3://bucket/saeq &
        saeq node watch --notices 'command:cat /run/rental-ends-at'
    """
    from orchestrator.nodes.identity import this_host
    from orchestrator.nodes.watcher import AlreadyWatched, NodeWatcher, watch_alone
    from orchestrator.providers.notices import notice_source
    from orchestrator.store import Store

    rule, every_s = _rebalance_rule(on_rebalance), _every_s(every)
    source = notice_source(notices)
    where = store or os.environ.get("SAEQ_STORE")
    opened = Store.open(where) if where else None
    if source is None and opened is None:
        _say("nobody announces this machine's end, and no store is given: nothing to watch")
        return DONE
    node = _raylet(ray_address or os.environ.get("RAY_ADDRESS"), node_id)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(DONE))
    with ExitStack() as undo:
        try:
            undo.enter_context(watch_alone(node.node_id))
        except AlreadyWatched as error:
            _say(str(error))
            return DONE
        told = undo.enter_context(_presence(opened, node, source)) if opened is not None else None
        if opened is not None and told is not None:
            _probe_meanwhile(opened, told)
        who = source.name if source is not None else "nobody"
        _say(f"watching Ray node {node.node_id[:10]}; {who} announces its end")
        watcher = NodeWatcher(node, source, opened, told, _say, host=this_host())
        watcher.run(every_s, rule)
    return DONE


def _rebalance_rule(text: str) -> OnRebalance:
    rules: dict[str, OnRebalance] = {"note": "note", "drain": "drain"}
    if text not in rules:
        raise RequestError(f"--on-rebalance must be note or drain; got {text!r}")
    return rules[text]


def _every_s(text: str) -> float:
    seconds = seconds_of("--every", text)
    if not seconds:
        raise RequestError(f"--every must be more than no time; got {text!r}; write 3s")
    return seconds


def _raylet(address: str | None, node_id: str | None) -> Raylet:
    """The node, once it is there: `ray start` may still be at it."""
    from orchestrator.nodes.raylet import NoRaylet, own_raylet

    deadline = time.monotonic() + WAIT_FOR_RAY_S
    while True:
        try:
            return own_raylet(address, node_id)
        except NoRaylet:
            if time.monotonic() >= deadline:
                raise
        time.sleep(0.5)


def _presence(store: Store, node: Raylet, source: NoticeSource | None) -> Presence:
    from orchestrator.nodes.identity import NODE_VARIABLE, node_labels
    from orchestrator.nodes.presence import Presence
    from orchestrator.providers.notices import NoticesUnavailable

    try:
        known = dict(source.labels()) if source is not None else {}
    except NoticesUnavailable:
        known = {}  # what announces may be away for a moment; the watcher says so if it stays
    labels = {**known, **node.labels, **node_labels(), "ray.io/node-id": node.node_id}
    name = os.environ.get(NODE_VARIABLE) or f"ray-{node.node_id[:10]}"
    return Presence(store, name, kind="cluster", labels=labels)


def _probe_meanwhile(store: Store, presence: Presence) -> None:
    """In a thread: a driver that hangs must not hide a notice."""
    from orchestrator.nodes.admission import probe_beside_ray
    from orchestrator.nodes.probe import Prober

    presence.mark("environment")
    work = partial(probe_beside_ray, store, presence, Prober(presence.labels), _say)
    threading.Thread(target=work, name="probe", daemon=True).start()


def _say(what: str) -> None:
    typer.echo(f"{time.strftime('%H:%M:%S')} {what}")
