"""One trial in its actor under one lease: moves files between whatever computes it and the store.

Checkpoints travel while the trial goes on; what is told to the desk is what is complete.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray

from jobs.kind import Progress, TrialContext, TrialLost, TrialRunner, job_kind
from orchestrator.money.ray_prices import price_of_this_node
from orchestrator.needs.inputs import inputs_of
from orchestrator.nodes.identity import this_host
from orchestrator.store import Store, StoreError
from orchestrator.trials.artefacts import (
    finished_before,
    register_artefact,
    registered_metrics,
)
from orchestrator.trials.checkpoints import Checkpoints
from orchestrator.trials.leases import still_held
from orchestrator.trials.output import TrialOutput
from orchestrator.trials.recall import Recall, RecallWatch
from orchestrator.trials.ticket import Ticket
from orchestrator.trials.uploads import CheckpointUploads, LocalState
from orchestrator.tune.draining import DrainWatch

logger = logging.getLogger(__name__)

SLICE_S = 1.0
"""How long one call to the pack waits at most: the time in which a trial notices anything."""

SETTLE_WITHIN_S = 60.0
"""How long a trial that is let go waits for its last checkpoint to be complete."""

LEAVE_WITHIN_S = 5.0
"""How long a slot is kept from the next trial by an upload of the last one."""


class TrialRun:
    """From attaching to an end, one result after the other.

    Args:
        settings: what the driver tells all its trials.
        scratch: an empty folder on this machine.
        output: gets what the trial's runner printed.
    """

    def __init__(
        self,
        store: Store,
        ticket: Ticket,
        settings: Mapping[str, Any],
        scratch: Path,
        output: TrialOutput,
    ) -> None:
        self._store, self._ticket, self._settings = store, ticket, settings
        self._scratch, self._output = scratch, output
        self._runner: TrialRunner | None = None
        self._tokens: int | None = None
        self._saved_at = time.monotonic()
        self._num_saved = 0
        self._checkpoints = Checkpoints(store, ticket.sweep, ticket.trial)
        self._uploads = CheckpointUploads(self._checkpoints, ticket.epoch, self._is_held)
        self._watch = RecallWatch(store, ticket.sweep, ticket.trial, ticket.epoch).start()
        self._drain = DrainWatch(ray.get_runtime_context().get_node_id()).start()

    def next_result(self) -> dict[str, Any]:
        """Attach, go on to the next report, or finish. Raises what a runner and a store raise."""
        if self._tokens is None:
            return self._attach()
        until = next((p for p in self._ticket.report_points if p > (self._tokens or 0)), None)
        if until is not None:
            return self._advance(until)
        if self._drain.recall is not None and self._runner is not None:
            self._save(None)  # what there is, in case the node goes before the end is reached
        return self._finish()

    def checkpoint_since_last_result(self) -> dict[str, Any]:
        """What became safe in the store since it was last asked."""
        complete = self._uploads.take_complete()
        if complete is None:
            return {"checkpoint_tokens": None}
        return {
            "checkpoint_tokens": complete.tokens,
            "checkpoint_busy_seconds": complete.busy_seconds,
        }

    def let_go(self) -> None:
        """Detach; what travels is given a moment, unless the trial needs no checkpoint any more."""
        self._watch.stop()
        self._drain.stop()
        if self._runner is not None:
            self._output.take_last()
            self._runner.detach()
            self._runner = None
        try:
            if self._has_ended() and self._is_held():  # else they may be another life's
                self._uploads.abandon(LEAVE_WITHIN_S)
                self._checkpoints.remove_all()
                return
            self._uploads.settle(LEAVE_WITHIN_S)
        except StoreError as error:
            logger.warning("its checkpoints were not cleared away: %s", error)
        self._uploads.abandon(within_s=0.1)

    def _has_ended(self) -> bool:
        ticket = self._ticket
        key = self._store.layout.end(ticket.sweep, ticket.trial, ticket.life)
        return self._store.backend.exists(key)

    # Attaching

    def _attach(self) -> dict[str, Any]:
        ticket, settings = self._ticket, self._settings
        if self._drain.recall is not None:
            return self._give_back(replace(self._drain.recall, save=False))
        gpu_ids = tuple(str(gpu) for gpu in ray.get_gpu_ids())
        kind = job_kind(settings["job"])
        end = finished_before(self._store, ticket, kind.artefact_kind)
        if end is not None:
            logger.info("its artefact is complete: the end was all that was missing")
            self._tokens = ticket.total_tokens
            return {"kind": "finished", "finished": end}
        context = TrialContext(
            sweep=ticket.sweep,
            trial=ticket.trial,
            config=ticket.config,
            setup=settings["setup"],
            seed=settings["seed"],
            max_members=ticket.max_members,
            device=settings["device"],
            gpu_ids=gpu_ids,
            inputs=inputs_of(self._store, ticket, kind),
            metric=settings["metric"],
        )
        self._runner = kind.runner(context)
        self._output.also_from(self._runner.take_output)
        self._tokens = self._attach_from_newest(self._runner)
        place = self._runner.place
        price = price_of_this_node(settings["usd_per_hour"], settings["device"], self._store)
        self._settings = {**settings, "usd_per_hour": price.usd_per_hour or 0.0}
        started = {
            "node": ray.util.get_node_ip_address(),
            "node_id": ray.get_runtime_context().get_node_id(),
            **this_place(),
            "pack": place.get("pack", ""),
            "pid": place.get("pid", 0),
            "tokens": self._tokens,
            **price.noted(),
        }
        where = f"node {started['node']}, {started['device']}, {started['pack']}"
        logger.info("started at %d tokens on %s", self._tokens, where)
        return {"kind": "started", "started": started}

    def _attach_from_newest(self, runner: TrialRunner) -> int:
        self._checkpoints.remove_cut_off(self._ticket.epoch)
        newest = self._checkpoints.fetch_newest(self._scratch / "resume")
        tokens = runner.attach(newest[0] if newest else None)
        shutil.rmtree(self._scratch / "resume", ignore_errors=True)
        return tokens

    # Going on

    def _advance(self, until: int) -> dict[str, Any]:
        assert self._runner is not None
        stops = (*self._ticket.rungs, self._ticket.total_tokens)
        run_on_to = min(point for point in stops if point >= until)
        while True:
            recall = self._watch.recall or self._drain.recall
            if recall is not None:
                return self._give_back(recall)
            self._uploads.raise_if_failed()
            due = self._saved_at + self._settings["checkpoint_seconds"] - time.monotonic()
            progress = self._runner.advance(until, run_on_to, max(0.05, min(SLICE_S, due)))
            self._tokens = progress.tokens
            if progress.draining:
                return self._give_back(Recall("asked to stop", save=True), progress)
            if progress.metrics is not None:
                return _report(progress)
            if time.monotonic() - self._saved_at >= self._settings["checkpoint_seconds"]:
                self._save(progress)

    def _give_back(self, recall: Recall, progress: Progress | None = None) -> dict[str, Any]:
        """Back to the queue: somebody asked for it, or holds the trial already."""
        if recall.lost:
            raise TrialLost(recall.reason)
        if recall.save:
            self._save(progress)
            if not self._uploads.settle(SETTLE_WITHIN_S):
                logger.warning("its last checkpoint took longer than %.0f s", SETTLE_WITHIN_S)
            self._uploads.raise_if_failed()
        leaves = self._drain.node_id if self._drain.recall is not None else None
        return {"kind": "preempted", "reason": recall.reason, "draining_node": leaves}

    def _save(self, progress: Progress | None) -> None:
        """Take a state and send it on its way; whoever computes goes on meanwhile."""
        assert self._runner is not None
        self._num_saved += 1
        folder = self._scratch / f"checkpoint-{self._num_saved}"
        folder.mkdir(parents=True)
        tokens = self._runner.save(folder)
        self._saved_at = time.monotonic()
        busy_seconds = progress.busy_seconds if progress is not None else None
        self._uploads.offer(LocalState(folder, tokens, busy_seconds))

    # Finishing

    def _finish(self) -> dict[str, Any]:
        assert self._runner is not None
        folder = self._scratch / "artefact"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        finished = self._runner.finish(folder)
        self._check_lease()
        artefact = register_artefact(
            self._store, self._ticket, self._settings, finished, folder, self._check_lease
        )
        self._uploads.abandon(LEAVE_WITHIN_S)
        return {
            "kind": "finished",
            "finished": {
                "artefact": artefact,
                "metrics": registered_metrics(self._store, finished.kind, artefact),
                "tokens": self._tokens,
                "busy_seconds": finished.busy_seconds,
                "lm_seconds": finished.lm_seconds,
                "lm_alone_seconds": finished.lm_alone_seconds,
            },
        }

    def _is_held(self) -> bool:
        ticket = self._ticket
        return still_held(self._store, ticket.sweep, ticket.trial, ticket.epoch)

    def _check_lease(self) -> None:
        if not self._is_held():
            raise TrialLost("its lease was taken over")


def this_place() -> dict[str, str]:
    """The machine and the device that Ray gave to this actor, in words."""
    gpu_ids = [str(gpu) for gpu in ray.get_gpu_ids()]
    return {"host": this_host(), "device": f"gpu {','.join(gpu_ids)}" if gpu_ids else "cpu"}


def _report(progress: Progress) -> dict[str, Any]:
    return {
        "kind": "report",
        "tokens": progress.tokens,
        "metrics": dict(progress.metrics or {}),
        "busy_seconds": progress.busy_seconds,
        "lm_seconds": progress.lm_seconds,
        "lm_alone_seconds": progress.lm_alone_seconds,
        "at": dict(progress.at),
    }
