"""On which nodes Tune's actors live, so that none on a draining node gets another trial."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class ActorPlaces:
    """Learns from what the actors say themselves: nobody else need be asked.

    Reaches into Tune's actor cache (ray 2.60), which has no public way to let one actor go.
    """

    def __init__(self) -> None:
        self._node_of: dict[Any, str] = {}
        self._draining: set[str] = set()

    def note(self, controller: Any, trial: Any, said: Mapping[str, Any]) -> None:
        """Take in a result: where its actor is, and whether that node will go."""
        leaves = said.get("draining_node")
        node = leaves or said.get("started", {}).get("node_id")
        actor = controller._trial_to_actor.get(trial)
        if not node or actor is None:
            return
        if leaves:
            self._draining.add(leaves)
        started = controller._started_actors
        self._node_of = {one: at for one, at in self._node_of.items() if one in started}
        self._node_of[actor] = node

    def drop_cached_on_draining_nodes(self, controller: Any) -> None:
        """Let idle actors there go, and with them the places that they hold."""
        if not self._draining:
            return
        cache = controller._actor_cache
        for actors in cache._cached_objects.values():
            leaving = [one for one in actors if self._node_of.get(one) in self._draining]
            for actor in leaving:
                actors.remove(actor)
                cache._num_cached_objects -= 1
                actor.set_on_stop(None)
                actor.set_on_error(None)
                controller._remove_actor(tracked_actor=actor)
