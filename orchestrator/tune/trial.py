"""The trial's actor: light, reused from trial to trial.

It never raises into Tune: what goes wrong comes back as a result that the desk judges.
"""

from __future__ import annotations

import json
import logging
import traceback
from collections.abc import Callable, Mapping
from typing import Any

from ray import tune

from jobs.kind import SweepUnusable, TrialFailed, TrialLost, TrialOutOfMemory
from orchestrator.redaction import redact
from orchestrator.serving.scratch import ScratchFolder, remove_left_overs
from orchestrator.store import NotWritable, Store, StoreError
from orchestrator.trials.output import TrialOutput
from orchestrator.trials.ticket import Ticket
from orchestrator.tune.trial_run import TrialRun, this_place

logger = logging.getLogger(__name__)

PAYLOAD = "saeq"
"""Key of the result. Its value is JSON text: Tune would flatten a mapping."""

CLOSE_OUTPUT_WITHIN_S = 5.0


class SweepTrial(tune.Trainable):
    """One slot's worth of trials, one after the other."""

    @classmethod
    def default_resource_request(cls, config: Mapping[str, Any]) -> tune.PlacementGroupFactory:
        """A device's share; twice that for a trial that ran out of memory in a full pack."""
        settings = config["settings"]
        scale = settings["members"] / config["ticket"]["max_members"]
        share = {name: amount * scale for name, amount in settings["resources"].items() if amount}
        avoids = settings.get("avoids")
        where = {"bundle_label_selector": [avoids]} if avoids else {}
        return tune.PlacementGroupFactory([share], **where)

    def setup(self, config: Mapping[str, Any]) -> None:
        logging.captureWarnings(True)
        self._begin(config)

    def reset_config(self, new_config: Mapping[str, Any]) -> bool:
        self.cleanup()
        self._begin(new_config)
        return True

    def cleanup(self) -> None:
        self._trial_run.let_go()
        self._output.close(CLOSE_OUTPUT_WITHIN_S)
        self._scratch.remove()

    def _begin(self, config: Mapping[str, Any]) -> None:
        ticket, settings = Ticket.from_json(config["ticket"]), config["settings"]
        store = Store.open(settings["store"])
        remove_left_overs()
        self._scratch = ScratchFolder("trial")
        key = store.layout.trial_output(ticket.sweep, ticket.trial, ticket.epoch)
        self._output = TrialOutput(store, key).start()
        self._trial_run = TrialRun(store, ticket, settings, self._scratch.path, self._output)

    def step(self) -> dict[str, Any]:
        """One result: started, a report, or how it ended."""
        result = _guarded(self._trial_run.next_result)
        if result["kind"] in ("failed", "lost"):
            result |= this_place()
        for field in ("reason", "traceback"):
            if result.get(field):
                result[field] = redact(result[field])
        _log_end(result)
        result |= self._trial_run.checkpoint_since_last_result()
        return {PAYLOAD: json.dumps(result)}


def _guarded(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """A result, or what went wrong as a result."""
    try:
        return work()
    except TrialLost as error:
        return {"kind": "lost", "reason": error.reason}
    except SweepUnusable as error:
        return {"kind": "unusable", "reason": error.reason}
    except TrialOutOfMemory as error:
        reason = f"out of memory: {error.detail}"
        return {"kind": "failed", "reason": reason, "out_of_memory": True}
    except TrialFailed as error:
        failed = {"reason": error.reason, "traceback": error.traceback, "final": error.final}
        return {"kind": "failed", **failed}
    except NotWritable as error:  # a full disk is no fault of the trial
        return {"kind": "unusable", "reason": str(error)}
    except StoreError as error:  # nor is what the store has lost
        return {"kind": "lost", "reason": str(error)}
    except Exception as error:  # noqa: BLE001 - Tune would only log it; the desk records it
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        return {"kind": "failed", "reason": reason, "traceback": traceback.format_exc()}


def _log_end(result: Mapping[str, Any]) -> None:
    """Into the trial's own output: how its time here ended, with the traceback if there is one."""
    kind = result["kind"]
    if kind == "failed":
        logger.error("failed: %s\n%s", result["reason"], result.get("traceback", "").rstrip())
    elif kind in ("lost", "preempted", "unusable"):
        logger.info("given back (%s): %s", kind, result["reason"])
    elif kind == "finished":
        logger.info("finished: artefact %s", result["finished"]["artefact"])
