"""What there is to put trials on, as whoever serves sees it: this machine, or a cluster's nodes.

Imports no Ray: a process of its own looks at a cluster and tells.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from orchestrator.planning.node_types import ClusterShape, shape_of_this_machine
from orchestrator.serving.local_ray import RaySource, is_door_open

logger = logging.getLogger(__name__)

AGAIN_AFTER_S = 5.0
GIVE_UP_AFTER = 3
"""Processes that ended without an answer: then what is here is planned with, as far as known."""
ONCE_WITHIN_S = 90.0


class ClusterLook:
    """The shape of what a `RaySource` offers; `tick` is called again and again and never waits."""

    def __init__(self, ray: RaySource) -> None:
        self._ray = ray
        self._shape: ClusterShape | None = shape_of_this_machine() if ray.is_local else None
        self._process: subprocess.Popen[str] | None = None
        self._address: str | None = None
        self._not_before = 0.0
        self._num_silent = 0

    @property
    def shape(self) -> ClusterShape | None:
        """None until the cluster has been looked at."""
        return self._shape

    @property
    def takes(self) -> tuple[dict[str, Any], ...]:
        """Its node types, for the node's record in the store; empty until they are known."""
        shape = self._shape or ClusterShape()
        return tuple(t.model_dump(mode="json") for t in shape.types)

    def tick(self) -> None:
        """Keep somebody looking at the cluster that there is now."""
        if self._ray.is_local:
            return
        if self._process is not None and self._process.poll() is not None:
            self._on_end()
        if self._process is not None and self._address != self._ray.address:
            self.close()
        if self._process is None and self._ray.address and time.monotonic() >= self._not_before:
            self._start(self._ray.address)

    def close(self) -> None:
        """Nobody looks any more."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            _close_pipes(self._process)
            self._process = None

    def _start(self, address: str) -> None:
        self._address = address
        self._process = _looking_at(address, self._ray.environment)
        threading.Thread(target=self._listen, args=(self._process,), daemon=True).start()

    def _listen(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                self._shape, self._num_silent = ClusterShape.model_validate_json(line), 0
        except (OSError, ValueError) as error:  # closed under our hands, or no JSON
            logger.info("no word from the cluster any more: %s", error)

    def _on_end(self) -> None:
        assert self._process is not None
        _close_pipes(self._process)
        self._process, self._num_silent = None, self._num_silent + 1
        self._not_before = time.monotonic() + AGAIN_AFTER_S
        if self._shape is None and self._num_silent >= GIVE_UP_AFTER:
            logger.warning("the cluster's node types cannot be found out: planning with this host")
            self._shape = shape_of_this_machine()


def shape_of_cluster(address: str) -> ClusterShape | None:
    """Ask a given cluster once, for some seconds; None where it does not say."""
    if not is_door_open(address):  # Ray itself would try for a minute
        return None
    process = _looking_at(address, {}, "--once")
    try:
        answer, _ = process.communicate(timeout=ONCE_WITHIN_S)
        return ClusterShape.model_validate_json(answer)
    except (subprocess.TimeoutExpired, ValidationError):
        return None
    finally:
        process.kill()
        process.wait()
        _close_pipes(process)


def _looking_at(
    address: str, environment: Mapping[str, str], *options: str
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "orchestrator.serving.shape_process", address, *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
        env={**os.environ, **environment},
    )


def _close_pipes(process: subprocess.Popen[str]) -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
