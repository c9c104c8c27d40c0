"""Who this node is: told by whoever started it, in the environment."""

from __future__ import annotations

import os
import re
import socket
import uuid
from collections.abc import Mapping

NODE_VARIABLE = "SAEQ_NODE"
"""The id under which a starter writes the other side of the node's record."""
KIND_VARIABLE = "SAEQ_NODE_KIND"
LABELS_VARIABLE = "SAEQ_NODE_LABELS"
HOST_VARIABLE = "SAEQ_NODE_HOST"
"""A name for the machine where its own says nothing: rented ones are often all called `ubuntu`."""
KINDS = ("serve", "slurm", "ssh", "cluster")
BY_MACHINERY = frozenset(KINDS) - {"serve"}
"""Started by something that will start it again, so that its failures have to be counted."""


class BadNodeKind(ValueError):
    """SAEQ_NODE_KIND names no way in which a node comes."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind

    def __str__(self) -> str:
        return f"{KIND_VARIABLE}={self.kind!r} is unknown; kinds: {', '.join(KINDS)}"


def has_starter(node: str, environment: Mapping[str, str] = os.environ) -> bool:
    """Whether somebody else keeps a side of the node's record."""
    return environment.get(NODE_VARIABLE) == node


def node_id(environment: Mapping[str, str] = os.environ) -> str:
    """The starter's name for it, else one that no other node has."""
    return environment.get(NODE_VARIABLE) or f"serve-{uuid.uuid4().hex[:10]}"


def node_kind(environment: Mapping[str, str] = os.environ) -> str:
    """How it came. Raises BadNodeKind."""
    kind = environment.get(KIND_VARIABLE) or "serve"
    if kind not in KINDS:
        raise BadNodeKind(kind)
    return kind


def node_labels(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """`k=v,k=v` as a mapping; a part without a name or a value is left out."""
    parts = (part.partition("=") for part in environment.get(LABELS_VARIABLE, "").split(","))
    return {key.strip(): value.strip() for key, _, value in parts if key.strip() and value.strip()}


def this_host(environment: Mapping[str, str] = os.environ) -> str:
    """The machine's name, as a key of the store takes it."""
    name = environment.get(HOST_VARIABLE) or socket.gethostname()
    return re.sub(r"[^A-Za-z0-9._@-]", "-", name).strip(".") or "unnamed"
