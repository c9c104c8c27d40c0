"""What the store knows of each node: one object by whoever started it, one by the node itself.

For people and for the choice of the next node; no trial depends on it. Two writers, two objects:
they never conflict.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from functools import partial
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from orchestrator.nodes.stages import STAGES, Mark, Stage, last_attempt
from orchestrator.store import Damaged, KeyMissing, Store

logger = logging.getLogger(__name__)

FRESH_FOR_S = 60.0
"""A node that was heard of within this is there, by the reader's clock."""

Side = Literal["starter", "self"]
SIDES: tuple[Side, ...] = get_args(Side)


class Failure(BaseModel):
    """Why a start failed, or why a node is kept out."""

    model_config = ConfigDict(extra="ignore", frozen=True, use_attribute_docstrings=True)

    stage: Stage
    """The stage that was not reached."""
    why: str
    tail: str = ""
    """Last lines of the log that tells more."""
    at: float = 0.0


class NodeSide(BaseModel):
    """One writer's object about a node."""

    model_config = ConfigDict(extra="ignore", frozen=True, use_attribute_docstrings=True)

    id: str
    kind: str = ""
    """How it came: `serve`, `slurm`, `ssh`, `cluster`."""
    host: str = ""
    """The machine's name; what a quarantine is about."""
    labels: Mapping[str, str] = Field(default_factory=dict)
    """provider, instance type, zone, price, partition, job: whatever is known, as text."""
    marks: tuple[Mark, ...] = ()
    failure: Failure | None = None
    since: float = 0.0
    at: float = 0.0
    """When it was last written, seconds since 1970, by the writer's clock."""
    beat: int = 0
    pid: int = 0
    slots: int = 0
    """Trials that it holds."""
    sweeps: tuple[str, ...] = ()
    probe: Mapping[str, Any] = Field(default_factory=dict)
    """What its probe found (`orchestrator.nodes.probe.ProbeReport`), as JSON."""
    state: str = ""
    """In a few words: `serving`, `draining: spot notice, 110 s`, `waiting: QOS limit`."""
    takes: tuple[Mapping[str, Any], ...] = ()
    """Kinds of machine that trials may be put on through this node, also ones that an autoscaler
    would still have to bring (`orchestrator.planning.node_types.NodeType`), as JSON."""


class NodeRecord(BaseModel):
    """Both sides of a node put together."""

    model_config = ConfigDict(frozen=True)

    starter: NodeSide | None = None
    itself: NodeSide | None = None

    @property
    def newest(self) -> NodeSide:
        """The node's own word, where there is one."""
        side = self.itself or self.starter
        assert side is not None
        return side

    @property
    def id(self) -> str:
        return self.newest.id

    @property
    def host(self) -> str:
        return (self.itself and self.itself.host) or self.newest.host

    @property
    def labels(self) -> Mapping[str, str]:
        sides = [side for side in (self.starter, self.itself) if side is not None]
        return {key: value for side in sides for key, value in side.labels.items()}

    @property
    def failure(self) -> Failure | None:
        found = [s.failure for s in (self.starter, self.itself) if s is not None and s.failure]
        return max(found, key=lambda failure: failure.at, default=None)

    @property
    def marks(self) -> list[Mark]:
        """Of the last attempt, of both sides, in the order of time."""
        sides = [side for side in (self.starter, self.itself) if side is not None]
        every = [mark for side in sides for mark in side.marks]
        return last_attempt(sorted(every, key=lambda m: (m.at, STAGES.index(m.stage))))

    @property
    def heard_at(self) -> float:
        """When anybody last wrote of it, seconds since 1970, by the writer's clock."""
        return max(side.at for side in (self.starter, self.itself) if side is not None)

    def is_fresh(self, now: float | None = None) -> bool:
        """Whether the node itself was heard of within a minute."""
        now = time.time() if now is None else now
        return self.itself is not None and abs(now - self.itself.at) < FRESH_FOR_S


def write_side(store: Store, side: Side, content: NodeSide) -> None:
    """Replace one side of a node's record. Raises StoreError."""
    key = _key(store, content.id, side)
    store.write_json(key, content.model_copy(update={"at": time.time()}).model_dump(mode="json"))


def read_side(store: Store, node: str, side: Side) -> NodeSide | None:
    """None where there is none, or where it is damaged."""
    try:
        return NodeSide.model_validate(store.read_json(_key(store, node, side)))
    except (KeyMissing, Damaged):
        return None
    except ValidationError as error:
        logger.info("nodes/%s/%s.json says nothing sensible: %s", node, side, error)
        return None


def read_node(store: Store, node: str) -> NodeRecord | None:
    """One node's record; None where the store knows of none."""
    starter, itself = (read_side(store, node, side) for side in ("starter", "self"))
    return NodeRecord(starter=starter, itself=itself) if starter or itself else None


def read_nodes(store: Store) -> list[NodeRecord]:
    """Every node that the store knows of, by id."""
    names = {name.rstrip("/") for name in store.backend.children(store.layout.nodes)}
    found = store.side_by_side(partial(read_node, store), sorted(names))
    return [record for record in found if record is not None]


def remove_node(store: Store, node: str, *sides: Side) -> None:
    """Forget a node, or one side of what is known of it. Raises StoreError."""
    for side in sides or SIDES:
        store.backend.delete(_key(store, node, side))
    if not any(store.backend.exists(_key(store, node, side)) for side in SIDES):
        store.backend.delete_prefix(f"{store.layout.nodes}{node}/")  # a folder is left, empty


def _key(store: Store, node: str, side: Side) -> str:
    return store.layout.node_starter(node) if side == "starter" else store.layout.node_self(node)
