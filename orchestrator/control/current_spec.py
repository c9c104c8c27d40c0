"""A sweep's spec as it is now: an extension changes the queue's record while drivers run."""

from __future__ import annotations

from orchestrator.log.state import SweepState
from orchestrator.queue import Queue
from orchestrator.spec.sweep import SweepSpec
from orchestrator.store import Store


class CurrentSpec:
    """Reads the queue's record again whenever the log tells of a further extension.

    Args:
        spec: as it was read before; None: it is read at the first look.
    """

    def __init__(self, store: Store, sweep: str, spec: SweepSpec | None = None) -> None:
        self._store, self._sweep = store, sweep
        self._spec = spec
        self._num_extensions = 0

    def look(self, state: SweepState) -> SweepSpec:
        """The spec that holds. Raises StoreError."""
        num_extensions = len(state.controls.extensions)
        if self._spec is None or num_extensions > self._num_extensions:
            self._spec = Queue(self._store).get(self._sweep).spec
            self._num_extensions = num_extensions
        return self._spec
