"""A node that says of itself, every few seconds, that it is there and how far it has come."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Mapping
from typing import Any

from orchestrator.nodes.identity import NODE_VARIABLE as NODE_VARIABLE
from orchestrator.nodes.identity import has_starter, this_host
from orchestrator.nodes.records import Failure, NodeSide, remove_node, write_side
from orchestrator.nodes.stages import Mark, Stage, standing
from orchestrator.nodes.stages_file import append_failure, append_mark
from orchestrator.redaction import redact
from orchestrator.store import Store, StoreError

logger = logging.getLogger(__name__)

BEAT_EVERY_S = 5.0
TAIL_LINES = 20


class Presence:
    """Writes the node's own side of its record, from a thread of its own, until left.

    What is left behind: nothing; but a failure stays, and so does the word that it ended where
    somebody else keeps a side of the record and would take silence for a death.

    Args:
        node: its id.
        kind: how it came: `serve`, `slurm`, `ssh`, `cluster`.
        labels: what is known of the machine, as text.
    """

    def __init__(
        self,
        store: Store,
        node: str,
        kind: str = "serve",
        labels: Mapping[str, str] | None = None,
        every_s: float = BEAT_EVERY_S,
    ) -> None:
        self._store, self._every_s = store, every_s
        self._lock = threading.Lock()
        self._changed = threading.Event()
        self._stop = False
        self._side = NodeSide(
            id=node,
            kind=kind,
            host=this_host(),
            pid=os.getpid(),
            labels=dict(labels or {}),
            since=time.time(),
        )
        self._thread = threading.Thread(target=self._run, name="presence", daemon=True)

    def __enter__(self) -> Presence:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        del trace
        if kind is not None and issubclass(kind, Exception) and self._side.failure is None:
            self.fail(self._next_stage(), str(error) or kind.__name__)
        self._stop = True
        self._changed.set()
        if self._thread.ident is not None:
            self._thread.join(timeout=self._every_s)
        try:
            self._say_goodbye()
        except StoreError as refusal:
            logger.warning("node %s still looks present: %s", self._side.id, refusal)

    def _say_goodbye(self) -> None:
        if self._side.failure is None and not has_starter(self._side.id):
            remove_node(self._store, self._side.id, "self")
            return
        ended = Mark("ended", time.time(), self._side.host)
        gone = {
            "slots": 0,
            "sweeps": (),
            "takes": (),
            "state": "",
            "marks": (*self._side.marks, ended),
        }
        write_side(self._store, "self", self._side.model_copy(update=gone))

    @property
    def node(self) -> str:
        return self._side.id

    @property
    def host(self) -> str:
        return self._side.host

    @property
    def kind(self) -> str:
        return self._side.kind

    @property
    def labels(self) -> Mapping[str, str]:
        return self._side.labels

    def say(self, **facts: Any) -> None:
        """Change fields of its side (`slots`, `state`, `probe`, ...) for the next beat."""
        with self._lock:
            is_news = facts.get("state", self._side.state) != self._side.state
            self._side = self._side.model_copy(update=facts)
        if is_news:
            self._changed.set()

    def mark(self, stage: Stage, detail: str = "") -> None:
        """A stage was reached, now; told at once. Once it was reached, nothing changes."""
        with self._lock:
            if any(mark.stage == stage for mark in self._side.marks):
                return
            mark = Mark(stage, time.time(), self._side.host, detail)
            self._side = self._side.model_copy(update={"marks": (*self._side.marks, mark)})
        append_mark(mark)
        self._changed.set()

    def fail(self, stage: Stage, why: str, tail: str = "") -> None:
        """It cannot work, and why; told at once, and still there when its process is not.

        Args:
            stage: the one that was not reached.
            why: its first line is the sentence; further ones count as the log's.
            tail: last lines of the log that tells more.
        """
        sentence, _, rest = why.partition("\n")
        tail = "\n".join((tail or rest).splitlines()[-TAIL_LINES:])
        self.say(
            failure=Failure(stage=stage, why=redact(sentence), tail=redact(tail), at=time.time())
        )
        append_failure(self._side.host, stage, redact(sentence))
        self._changed.set()

    def _next_stage(self) -> Stage:
        return standing(self._side.marks).waits_for or "report"

    def _run(self) -> None:
        while not self._stop:
            with self._lock:
                self._side = self._side.model_copy(update={"beat": self._side.beat + 1})
                side = self._side
            try:
                write_side(self._store, "self", side)
            except StoreError as error:
                logger.info("node %s could not say that it is there: %s", side.id, error)
            self._changed.wait(self._every_s)
            self._changed.clear()
