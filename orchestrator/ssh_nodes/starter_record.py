"""The side of a node's record that its starter writes: by the starter's clock, without a secret."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from orchestrator.nodes.records import Failure, NodeSide, write_side
from orchestrator.nodes.stages import Mark, Stage, last_attempt
from orchestrator.store import Store


class StarterRecord:
    """One attempt to bring a node up, told to the store as it goes on.

    Args:
        labels: how to reach it again and what it costs.
        clean: takes secrets out of what is written.
        is_held: write nothing before `release`: what the store says of a node that runs stays true
            until something is changed there.
    """

    def __init__(
        self,
        store: Store,
        node: str,
        machine: str,
        labels: Mapping[str, str],
        clean: Callable[[str], str],
        *,
        is_held: bool = False,
    ) -> None:
        self._store, self._is_held = store, is_held
        self.clean = clean
        self.side = NodeSide(
            id=node, kind="ssh", host=machine, labels=dict(labels), since=time.time()
        )

    def release(self) -> None:
        """From now on everything is written. Raises StoreError."""
        self._is_held = False
        self._write()

    def label(self, **labels: str) -> None:
        """Know more of it. Raises StoreError."""
        self._write(labels={**self.side.labels, **labels})

    def mark(self, stage: Stage, detail: str = "", at: float | None = None) -> Mark:
        """A stage was reached; the same one again takes back all that came after it."""
        at = time.time() if at is None else at
        mark = Mark(stage, at, self.side.host, self.clean(detail)[:300])
        self._write(marks=tuple(last_attempt([*self.side.marks, mark])), failure=None)
        return mark

    def fail(self, stage: Stage, why: str, tail: str) -> Failure:
        """The start did not reach a stage."""
        failure = Failure(stage=stage, why=self.clean(why), tail=self.clean(tail), at=time.time())
        self._write(failure=failure)
        return failure

    def _write(self, **facts: object) -> None:
        self.side = self.side.model_copy(update=facts)
        if not self._is_held:
            write_side(self._store, "starter", self.side)
