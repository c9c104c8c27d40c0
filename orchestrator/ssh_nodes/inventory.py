"""The nodes that were brought up over ssh: what the store knows of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from math import isfinite
from typing import TYPE_CHECKING, Any

from orchestrator.money.node_price import PRICE_LABEL
from orchestrator.nodes.records import NodeRecord, read_node, read_nodes
from orchestrator.nodes.stages import WORDS, standing
from orchestrator.ssh_nodes.order import DEFAULT_FOLDER
from orchestrator.ssh_nodes.target import SshTarget
from orchestrator.store import Store

if TYPE_CHECKING:
    from rich.text import Text


class UnknownNode(ValueError):
    """No node of that name was brought up over ssh."""

    def __init__(self, name: str, known: Sequence[str]) -> None:
        super().__init__(name, tuple(known))
        self.name, self.known = name, tuple(known)

    def __str__(self) -> str:
        near = get_close_matches(self.name, self.known, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        known = ", ".join(self.known) or "none"
        return (
            f"the store knows no node {self.name!r} that `saeq node up` brought up; known: {known}."
            f"{hint} For a host that it does not know, give its address: user@host"
        )


@dataclass(frozen=True)
class SshNode:
    """One node, by the store."""

    record: NodeRecord

    @property
    def name(self) -> str:
        return self.record.id

    @property
    def target(self) -> str:
        """`user@host`, with the port if it is not 22."""
        labels = self.record.labels
        port = labels.get("ssh-port")
        return labels.get("ssh-target", self.record.host) + (f":{port}" if port else "")

    @property
    def is_down(self) -> bool:
        side = self.record.starter
        return side is not None and any(mark.stage == "ended" for mark in side.marks)

    @property
    def usd_per_hour(self) -> float | None:
        try:
            found = float(self.record.labels.get(PRICE_LABEL, ""))
        except ValueError:
            return None
        return found if isfinite(found) else None

    @property
    def up_since(self) -> float:
        """When it was asked for, seconds since 1970: about when it began to cost."""
        side = self.record.starter
        return side.since if side is not None else 0.0

    def hours(self, now: float) -> float:
        """Since it was asked for, until it was taken down."""
        side = self.record.starter
        ends = [m.at for m in side.marks if m.stage == "ended"] if side is not None else []
        return max((ends[-1] if ends else now) - self.up_since, 0.0) / 3600

    def usd(self, now: float) -> float | None:
        """What its rental has cost since it was asked for."""
        return None if self.usd_per_hour is None else self.usd_per_hour * self.hours(now)

    def state(self, now: float) -> str:
        """In a few words: down, failed and why, how far its start is, or what it does."""
        itself, failure = self.record.itself, self.record.failure
        if self.is_down:
            return "down"
        if self.record.is_fresh(now) and failure is None and itself is not None and itself.beat:
            trials = f", {itself.slots} trial{'s' if itself.slots != 1 else ''}"
            return (itself.state or "serving") + (trials if itself.slots else "")
        if failure is not None:
            return f"failed before {WORDS[failure.stage]}: {failure.why}"
        if itself is not None and itself.beat:
            return f"silent for {_age(now - itself.at)}"
        marks = self.record.marks
        if not marks:
            return "unknown"
        waits_for = standing(marks).waits_for
        return f"starting: {_age(now - marks[-1].at)} since {WORDS[marks[-1].stage]}" + (
            f", {WORDS[waits_for]} comes next" if waits_for else ""
        )

    def to_json(self, now: float) -> dict[str, Any]:
        """As `saeq node ls --json` prints it."""
        itself = self.record.itself
        usd = self.usd(now)
        return {
            "node": self.name,
            "target": self.target,
            "state": self.state(now),
            "is_down": self.is_down,
            "is_heard_of": self.record.is_fresh(now),
            "stage": self.record.marks[-1].stage if self.record.marks else None,
            "trials": itself.slots if itself is not None else 0,
            "sweeps": list(itself.sweeps) if itself is not None else [],
            "usd_per_hour": self.usd_per_hour,
            "usd": None if usd is None else round(usd, 4),
            "up_since": self.up_since,
            "hours": round(self.hours(now), 4),
            "labels": dict(self.record.labels),
        }


def ssh_nodes(store: Store, *, with_down: bool = False) -> list[SshNode]:
    """Those that `saeq node up` brought up, by name."""
    found = [
        SshNode(record)
        for record in read_nodes(store)
        if record.starter is not None and record.starter.kind == "ssh"
    ]
    return [node for node in found if with_down or not node.is_down]


def resolve(
    store: Store,
    given: str,
    port: int | None,
    identity: str | None,
    options: tuple[str, ...],
) -> tuple[str, SshTarget]:
    """A node's name and how to reach it, from either; the store knows the other.

    Raises UnknownNode, BadTarget.
    """
    known = {node.name: node for node in ssh_nodes(store, with_down=True)}
    if given in known:
        labels = dict(known[given].record.labels)
        if port is not None:
            labels["ssh-port"] = str(port)
        return given, SshTarget.of_labels(labels, identity, options)
    target = SshTarget.parse(given, port, identity, options)
    same = [
        node
        for node in known.values()
        if SshTarget.of_labels(node.record.labels, None, ()).labels == target.labels
    ]
    up = [node for node in same if not node.is_down] or same
    if up:
        return up[0].name, target
    if "@" not in given and port is None:
        raise UnknownNode(given, sorted(known))
    return target.node, target


def folder_of(store: Store, name: str) -> str:
    """Where the node's files are on its host."""
    record = read_node(store, name)
    return (record.labels.get("folder") if record is not None else None) or DEFAULT_FOLDER


def node_table(nodes: Sequence[SshNode], now: float, width: int | None) -> list[Text]:
    """`saeq node ls` as lines."""
    from rich.text import Text

    from orchestrator.view import cells
    from orchestrator.view.columns import Column, table_lines

    if not nodes:
        return [Text("no node was brought up from here; `saeq node up user@host` brings one up")]
    columns = [
        Column("node", [Text(cells.one_line(node.name), style="bold") for node in nodes]),
        Column("host", [cells.one_line(node.target) for node in nodes], 3, shrinks_to=16),
        Column("since", [cells.duration(now - node.up_since) for node in nodes], 2, right=True),
        Column("$/h", [cells.usd(node.usd_per_hour) for node in nodes], 4, right=True),
        Column("cost", [cells.usd(node.usd(now)) for node in nodes], 5, right=True),
        Column("state", [cells.one_line(node.state(now)) for node in nodes], 1, shrinks_to=20),
    ]
    return table_lines(columns, width)


def _age(seconds: float) -> str:
    from orchestrator.view.cells import duration

    return duration(max(seconds, 0.0))
