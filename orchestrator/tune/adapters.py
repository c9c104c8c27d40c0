"""Tune's searcher and scheduler as thin windows onto the desk."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any

from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from orchestrator.store import NotWritable
from orchestrator.trials.desk import Desk, Done, Ticket
from orchestrator.tune.actor_places import ActorPlaces
from orchestrator.tune.trial import PAYLOAD
from orchestrator.tune.withdraw import Withdrawals

logger = logging.getLogger(__name__)


def give_up(desk: Desk, error: NotWritable, ticket: Ticket | None = None) -> None:
    """Nothing more can be recorded: let every trial go; the log has what was safe.

    Not raised into Tune: it would turn the error into text of its own.
    """
    logger.error("%s", error)
    desk.unusable, desk.draining = str(error), True
    if ticket is not None:
        desk.held.pop(ticket.trial, None)


class DeskSearcher(Searcher):
    """Asks the desk for the next trial of the log."""

    def __init__(self, desk: Desk, settings: Mapping[str, Any]) -> None:
        super().__init__(metric=None, mode=None)
        self._desk, self._settings = desk, dict(settings)
        self._tickets: dict[str, Ticket] = {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        try:
            ticket = self._desk.next()
        except NotWritable as error:
            give_up(self._desk, error)
            return None if self._desk.held else str(Searcher.FINISHED)
        if isinstance(ticket, Done):
            return str(Searcher.FINISHED)
        if ticket is None:
            return None
        self._tickets[trial_id] = ticket
        setup = self._desk.spec.setup.model_dump(mode="json")  # an extension may have changed it
        return {"ticket": ticket.to_json(), "settings": {**self._settings, "setup": setup}}

    def on_trial_complete(
        self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False
    ) -> None:
        """Whatever was not settled by a result is lost; the desk knows which."""
        del result, error
        ticket = self._tickets.pop(trial_id, None)
        if ticket is None:
            return
        try:
            self._desk.on_lost(ticket, "its trial process is gone")
        except NotWritable as refusal:
            give_up(self._desk, refusal, ticket)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the log is the truth."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the log is the truth."""


class DeskScheduler(FIFOScheduler):
    """Lets the desk judge every result, and idle actors go."""

    def __init__(self, desk: Desk) -> None:
        super().__init__()
        self._desk = desk
        self._places = ActorPlaces()
        self._withdrawals = Withdrawals(desk)

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        """Called right after the searcher was asked for trials: an actor kept for none goes.

        Tune keeps the actor of a trial that ended for the next one, and with it a placement group
        that another driver may be waiting for (ray 2.60, `may_keep_one` of its actor cache).
        """
        controller = _unwrapped(tune_controller)
        if controller._actor_cache.num_cached_objects and not controller._pending_trials:
            controller._cleanup_cached_actors(force_all=True)
        self._places.drop_cached_on_draining_nodes(controller)
        try:
            self._withdrawals.look(controller)
        except NotWritable as error:
            give_up(self._desk, error)
        return super().choose_trial_to_run(tune_controller)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: Mapping[str, Any]) -> str:
        ticket, said = Ticket.from_json(trial.config["ticket"]), json.loads(result[PAYLOAD])
        if said["kind"] in ("started", "preempted"):
            self._places.note(_unwrapped(tune_controller), trial, said)
        try:
            goes_on = self._desk.on_result(ticket, said)
        except NotWritable as error:
            give_up(self._desk, error, ticket)
            goes_on = False
        return str(TrialScheduler.CONTINUE if goes_on else TrialScheduler.STOP)


def _unwrapped(tune_controller: Any) -> Any:
    """A scheduler is handed a wrapper that would warn of each look at the actor cache."""
    return vars(tune_controller).get("_tune_controller", tune_controller)
