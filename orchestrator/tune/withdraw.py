"""Trials that still wait for a node go back when nobody wants them any more.

An actor hears for itself that its trial is asked back. A trial without one, whose placement group
waits for a machine that may come in minutes or never, would be heard of only then.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

from orchestrator.control.watch import summons_for
from orchestrator.log.state import SweepState
from orchestrator.trials.ticket import Ticket

if TYPE_CHECKING:
    from orchestrator.trials.desk import Desk

logger = logging.getLogger(__name__)

LOOK_EVERY_S = 1.0
OVER_SHARE_FOR_S = 10.0
"""Shares move while sweeps take turns: what waits goes back once they have settled."""


class Withdrawals:
    """Looks at what waits, about once a second, in the thread of Tune's loop."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._next_look = 0.0
        self._over_since: float | None = None

    def look(self, controller: Any) -> None:
        """Give back what waits in vain. Raises StoreError.

        Args:
            controller: Tune's own, not the wrapper that a scheduler is handed.
        """
        now = time.monotonic()
        if now < self._next_look or not controller._pending_trials:
            return
        self._next_look = now + LOOK_EVERY_S
        waiting = [trial for trial in controller.get_trials() if _waits(trial, controller)]
        state, num_over = self._desk.log.refresh(), self._num_over_share(now)
        for trial in reversed(waiting):  # who has waited longest keeps its place
            ticket = Ticket.from_json(trial.config["ticket"])
            reason = self._why(ticket, state)
            if not reason and num_over > 0:
                reason, num_over = "its share went to others before a node came", num_over - 1
            if reason:
                self._give_back(controller, trial, ticket, reason)

    def _num_over_share(self, now: float) -> int:
        """Trials held beyond the allowance, once that has lasted."""
        desk = self._desk
        num_over = 0 if desk.allowed is None else len(desk.held) - desk.allowed
        if num_over <= 0:
            self._over_since = None
            return 0
        self._over_since = now if self._over_since is None else self._over_since
        return num_over if now - self._over_since >= OVER_SHARE_FOR_S else 0

    def _why(self, ticket: Ticket, state: SweepState) -> str:
        desk = self._desk
        if desk.draining:
            return "asked to stop before a node came"
        summons = summons_for(ticket, state, desk.spec, desk.leases.holder)
        return "" if summons is None else summons.reason

    def _give_back(self, controller: Any, trial: Any, ticket: Ticket, reason: str) -> None:
        logger.info("trial %s: given back: %s", ticket.trial, reason)
        self._desk.on_lost(ticket, reason, process_died=False)
        controller.stop_trial(trial)
        if trial in controller._staged_trials:  # ray 2.60 does so only once its actor has started
            controller._staged_trials.remove(trial)
            controller._actor_cache.decrease_max(trial.placement_group_factory)


def _waits(trial: Any, controller: Any) -> bool:
    """Whether its actor has not come up yet."""
    actor = controller._trial_to_actor.get(trial)
    return trial in controller._pending_trials and actor not in controller._started_actors
