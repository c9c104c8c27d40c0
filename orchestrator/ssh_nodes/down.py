"""`saeq node down`: a node gives its trials back, and nothing of it stays running."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from orchestrator.nodes.records import NodeRecord, read_node, remove_node
from orchestrator.nodes.stages import STAGES
from orchestrator.redaction import redact
from orchestrator.ssh_nodes.connection import SshConnection
from orchestrator.ssh_nodes.inventory import folder_of
from orchestrator.ssh_nodes.parcel import script
from orchestrator.ssh_nodes.ssh_faults import SshFailed
from orchestrator.ssh_nodes.starter_record import StarterRecord
from orchestrator.ssh_nodes.target import SshTarget
from orchestrator.store import Store

DRAIN_WITHIN_S = 75
"""`serve` gives everything back within 50 s, or stops without; the rest is for slow machines."""
ANSWER_WITHIN_S = 60.0
FREED_AFTER_S = 20


class NotDown(ValueError):
    """Something of the node may still run; the message says what to do."""


@dataclass(frozen=True)
class DownOptions:
    """How to take a node down."""

    now: bool = False
    """Kill it; its trials go on elsewhere from their checkpoints."""
    purge: bool = False
    """Remove the environment and all else from the host."""
    gone: bool = False
    """The machine is no more: only the store is told."""


def take_down(
    store: Store,
    node: str,
    target: SshTarget,
    folder: str | None,
    options: DownOptions,
    say: Callable[[str], None],
) -> None:
    """End a node and see that nothing of it is left.

    Args:
        folder: on the host; None: as its record has it.

    Raises:
        SshFailed: the host cannot be reached.
        NotDown: processes are left, or the host has another node.
    """
    record = read_node(store, node)
    if record is None and options.gone:
        raise NotDown(f"the store knows no node {node}; `saeq node ls` shows those that it knows")
    if options.gone:
        _forget(store, node, record)
        say(f"{node}: taken out of the store's list; nothing was looked at on the machine")
        return
    where = folder or folder_of(store, node)
    slots = record.itself.slots if record is not None and record.itself is not None else 0
    say(f"{node}: {_announced(slots, options.now)}")
    answer = _stop(target, node, where, options)
    if answer.get("other"):
        raise NotDown(
            f"{target}: {where} there belongs to node {answer['other']}, not {node}; "
            f"`saeq node down {answer['other']}`, or name --folder"
        )
    if "busy" in answer:
        raise NotDown(f"{target}: another `up` or `down` is at work there; try again in a minute")
    if int(answer.get("left", "0")) > 0:
        raise NotDown(
            f"{target}: {answer['left']} processes of {node} do not end, not even killed: a driver "
            "or a disk holds them; reboot the machine, or end the rental"
        )
    _forget(store, node, record)
    say(f"{node}: nothing of it runs on {target} any more, its credentials are removed there")
    if "freed" in answer:
        say(f"{node}: {int(answer['freed']) / 1024:.1f} GiB removed from {where}")


def _announced(slots: int, now: bool) -> str:
    trials = f"{slots} trial{'s' if slots != 1 else ''}"
    if now:
        return (
            f"killing it; {trials} go on elsewhere from their checkpoints after {FREED_AFTER_S} s"
        )
    return f"asked to stop: {trials} checkpoint and go back, within a minute"


def _stop(target: SshTarget, node: str, folder: str, options: DownOptions) -> dict[str, str]:
    patience_s = 0 if options.now else DRAIN_WITHIN_S
    words = [folder, node, str(patience_s), "yes" if options.purge else "no"]
    try:
        with SshConnection(target) as connection:
            answer = connection.run(
                script("node_state.sh", "stop_node.sh", "stop.sh"),
                words,
                within_s=patience_s + ANSWER_WITHIN_S,
            )
    except SshFailed as error:
        way_out = f"if the machine is no more, `saeq node down {node} --gone` takes it off the list"
        raise SshFailed(error.target, error.why, f"{error.way_out}; {way_out}") from error
    lines = (line.partition(" ") for line in answer.output.splitlines())
    found = {word: value.strip() for word, _, value in lines}
    if not found.keys() & {"none", "left", "other", "busy"}:
        raise NotDown(f"{target}: it did not say how that went ({answer.last_words}); try again")
    return found


def _forget(store: Store, node: str, record: NodeRecord | None) -> None:
    """The record says that it ended; what the node said of itself is removed."""
    if record is None:
        return
    remove_node(store, node, "self")
    side = record.starter
    if side is None:
        return
    kept = tuple(mark for mark in side.marks if STAGES.index(mark.stage) < STAGES.index("ended"))
    again = StarterRecord(store, node, side.host, side.labels, redact)
    again.side = side.model_copy(update={"marks": kept, "at": time.time()})
    again.mark("ended")
