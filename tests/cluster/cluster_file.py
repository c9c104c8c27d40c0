"""cluster.yaml as a user would fill it in, and as Ray reads it."""

from __future__ import annotations

import copy
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
CLUSTER_FILE = ROOT / "cluster.yaml"


def cluster_text() -> str:
    """The file, as it is delivered."""
    return CLUSTER_FILE.read_text()


def filled_in(group: str = "sg-0123456789abcdef0", bucket: str = "my-bucket") -> dict[str, Any]:
    """The file with a user's own lines in it, parsed as Ray parses it."""
    text = cluster_text().replace("sg-REPLACE-ME", group).replace("REPLACE-ME", bucket)
    return dict(yaml.safe_load(text))


@cache
def _prepared() -> dict[str, Any]:
    from ray.autoscaler._private.util import prepare_config, validate_config

    config: dict[str, Any] = prepare_config(filled_in())
    validate_config(config)
    return config


def prepared() -> dict[str, Any]:
    """The file with Ray's own defaults where it says nothing, valid by Ray's schema."""
    return copy.deepcopy(_prepared())


def workers(config: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Node types other than the head's, by name."""
    types = config["available_node_types"]
    return {name: each for name, each in types.items() if name != config["head_node_type"]}


def head(config: dict[str, Any]) -> dict[str, Any]:
    """The head's node type."""
    return dict(config["available_node_types"][config["head_node_type"]])
