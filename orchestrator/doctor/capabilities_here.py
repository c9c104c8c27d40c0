"""What `sae.capabilities` says of this machine, asked once for all checks, in a child process."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Mapping
from typing import Any

from orchestrator.nodes.patient_child import answer_within

WITHIN_S = 40.0
"""Importing torch takes a second from a local disk, and the better part of a minute from NFS."""

_asking = threading.Lock()
_answers: list[Mapping[str, Any]] = []


class NoCapabilities(ValueError):
    """The child process gave no answer; the message is how it ended."""


def capabilities_here() -> Mapping[str, Any]:
    """Its answer as JSON (`sae.capabilities.Capabilities`). Raises NoCapabilities."""
    with _asking:
        if not _answers:
            _answers.append(_ask())
        return _answers[0]


def forget_capabilities() -> None:
    """Ask again next time: the machine has changed."""
    with _asking:
        _answers.clear()


def _ask() -> Mapping[str, Any]:
    answer = answer_within([sys.executable, "-m", "sae.capabilities"], WITHIN_S)
    if answer.exit_code is None:
        raise NoCapabilities(f"`python -m sae.capabilities` did not end within {WITHIN_S:g} s")
    try:
        said: Mapping[str, Any] = json.loads(answer.output)
    except ValueError:
        how = answer.last_words or "no words"
        raise NoCapabilities(
            f"`python -m sae.capabilities` ended with exit code {answer.exit_code} ({how})"
        ) from None
    return said
