"""A Ray cluster that is only an address: for what never joins it."""

from __future__ import annotations

from orchestrator.serving.local_ray import RaySource


class SomeRay(RaySource):
    """A cluster that nobody asks anything."""

    is_local = False

    def __init__(self) -> None:
        super().__init__()
        self.address = "127.0.0.1:1"

    def tick(self) -> None:
        """Nothing changes."""

    def close(self) -> None:
        """Nothing was started."""
