"""The stages file that a start script has begun; Python adds what comes after."""

from __future__ import annotations

import logging
import os
import time

from orchestrator.nodes.stages import Mark, Stage

logger = logging.getLogger(__name__)

STAGES_VARIABLE = "SAEQ_STAGES"
FAILED = "failed"
"""Instead of a stage: `<time> <host> failed <stage not reached>: <why>`."""


def append_mark(mark: Mark) -> None:
    """Where $SAEQ_STAGES names a file: one more line in it."""
    _append(mark.to_line())


def append_failure(host: str, stage: Stage, why: str) -> None:
    """The same for a start that has failed, in one line."""
    words = " ".join(why.split())
    _append(f"{time.time():.3f} {host or '-'} {FAILED} {stage}: {words}")


def _append(line: str) -> None:
    path = os.environ.get(STAGES_VARIABLE)
    if not path:
        return
    try:
        with open(path, "a") as file:
            file.write(line + "\n")
    except OSError as error:
        logger.warning("%s was not told of a stage: %s", path, error)
