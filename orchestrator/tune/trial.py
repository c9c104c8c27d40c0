"""The trial's actor: light, reused from trial to trial, moves files between pack and store.

It never raises into Tune: what goes wrong comes back as a result that the desk judges.
"""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ray
from ray import tune

from jobs.kind import (
    SweepUnusable,
    TrialContext,
    TrialFailed,
    TrialLost,
    TrialOutOfMemory,
    TrialRunner,
    job_kind,
)
from orchestrator.log.events import finite
from orchestrator.store import NotWritable, Store, StoreError
from orchestrator.trials.artefacts import register_artefact
from orchestrator.trials.checkpoints import Checkpoints
from orchestrator.trials.desk import Ticket
from orchestrator.trials.leases import still_held

logger = logging.getLogger(__name__)

PAYLOAD = "saeq"
"""Key of the result. Its value is JSON text: Tune would flatten a mapping."""

SLICE_S = 5.0
"""How long one call to the pack waits at most: the time in which a trial notices anything."""


class SweepTrial(tune.Trainable):
    """One slot's worth of trials, one after the other."""

    @classmethod
    def default_resource_request(cls, config: Mapping[str, Any]) -> tune.PlacementGroupFactory:
        """A device's share; twice that for a trial that ran out of memory in a full pack."""
        settings = config["settings"]
        scale = settings["members"] / config["ticket"]["max_members"]
        share = {name: amount * scale for name, amount in settings["resources"].items() if amount}
        return tune.PlacementGroupFactory([share])

    def setup(self, config: Mapping[str, Any]) -> None:
        self._runner: TrialRunner | None = None
        self._begin(config)

    def reset_config(self, new_config: Mapping[str, Any]) -> bool:
        self.cleanup()
        self._begin(new_config)
        return True

    def cleanup(self) -> None:
        if self._runner is not None:
            self._runner.detach()
            self._runner = None
        shutil.rmtree(self._scratch, ignore_errors=True)

    def _begin(self, config: Mapping[str, Any]) -> None:
        self._ticket = Ticket.from_json(config["ticket"])
        self._settings = config["settings"]
        self._store = Store.open(self._settings["store"])
        self._scratch = Path(tempfile.mkdtemp(prefix="saeq-trial-"))
        self._tokens: int | None = None
        self._saved_at = time.monotonic()
        self._checkpoint_tokens: int | None = None

    def step(self) -> dict[str, Any]:
        """One result: started, a report, or how it ended."""
        self._checkpoint_tokens = None
        result = self._guarded(self._next_result)
        result["checkpoint_tokens"] = self._checkpoint_tokens
        return {PAYLOAD: json.dumps(result)}

    def _guarded(self, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
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
        except StoreError as error:
            return {"kind": "failed", "reason": str(error), "traceback": traceback.format_exc()}
        except Exception as error:  # noqa: BLE001 - Tune would only log it; the desk records it
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            return {"kind": "failed", "reason": reason, "traceback": traceback.format_exc()}

    def _next_result(self) -> dict[str, Any]:
        if self._tokens is None:
            return self._attach()
        until = next((p for p in self._ticket.report_points if p > self._tokens), None)
        if until is None:
            return self._finish()
        return self._advance(until)

    def _attach(self) -> dict[str, Any]:
        ticket = self._ticket
        gpu_ids = tuple(str(gpu) for gpu in ray.get_gpu_ids())
        context = TrialContext(
            sweep=ticket.sweep,
            trial=ticket.trial,
            config=ticket.config,
            setup=self._settings["setup"],
            seed=self._settings["seed"],
            max_members=ticket.max_members,
            device=self._settings["device"],
            gpu_ids=gpu_ids,
        )
        self._runner = job_kind(self._settings["job"]).runner(context)
        self._tokens = self._attach_from_newest()
        place = self._runner.place
        started = {
            "node": ray.util.get_node_ip_address(),
            "device": f"gpu {','.join(gpu_ids)}" if gpu_ids else "cpu",
            "pack": place.get("pack", ""),
            "pid": place.get("pid", 0),
            "tokens": self._tokens,
            "usd_per_hour": self._settings["usd_per_hour"],
        }
        return {"kind": "started", "started": started}

    def _attach_from_newest(self) -> int:
        assert self._runner is not None
        checkpoints = Checkpoints(self._store, self._ticket.sweep, self._ticket.trial)
        newest = checkpoints.fetch_newest(self._scratch / "resume")
        tokens = self._runner.attach(newest[0] if newest else None)
        shutil.rmtree(self._scratch / "resume", ignore_errors=True)
        return tokens

    def _advance(self, until: int) -> dict[str, Any]:
        assert self._runner is not None
        stops = (*self._ticket.rungs, self._ticket.total_tokens)
        run_on_to = min(point for point in stops if point >= until)
        while True:
            due = self._saved_at + self._settings["checkpoint_seconds"] - time.monotonic()
            progress = self._runner.advance(until, run_on_to, max(0.05, min(SLICE_S, due)))
            self._tokens = progress.tokens
            if progress.draining:
                self._save()
                return {"kind": "preempted", "reason": "asked to stop"}
            if progress.metrics is not None:
                return {
                    "kind": "report",
                    "tokens": progress.tokens,
                    "metrics": dict(progress.metrics),
                    "busy_seconds": progress.busy_seconds,
                    "lm_seconds": progress.lm_seconds,
                    "lm_alone_seconds": progress.lm_alone_seconds,
                    "at": dict(progress.at),
                }
            if time.monotonic() - self._saved_at >= self._settings["checkpoint_seconds"]:
                self._save()

    def _save(self) -> None:
        """Checkpoint into the store; the pack goes on training meanwhile."""
        assert self._runner is not None
        self._check_lease()
        folder = self._scratch / "checkpoint"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        tokens = self._runner.save(folder)
        checkpoints = Checkpoints(self._store, self._ticket.sweep, self._ticket.trial)
        checkpoints.save(folder, tokens, self._ticket.epoch)
        shutil.rmtree(folder)
        self._saved_at = time.monotonic()
        self._checkpoint_tokens = tokens

    def _finish(self) -> dict[str, Any]:
        assert self._runner is not None
        folder = self._scratch / "artefact"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        finished = self._runner.finish(folder)
        self._check_lease()
        artefact = register_artefact(self._store, self._ticket, self._settings, finished, folder)
        return {
            "kind": "finished",
            "finished": {
                "artefact": artefact,
                "metrics": finite(finished.metrics),
                "tokens": self._tokens,
                "busy_seconds": finished.busy_seconds,
                "lm_seconds": finished.lm_seconds,
                "lm_alone_seconds": finished.lm_alone_seconds,
            },
        }

    def _check_lease(self) -> None:
        ticket = self._ticket
        if not still_held(self._store, ticket.sweep, ticket.trial, ticket.epoch):
            raise TrialLost("its lease was taken over")
