"""The driver of one sweep: a process of its own that runs one Tuner over the sweep's log.

It may be killed at any moment: what it knew is in the log, and the next one goes on from there.
"""

from __future__ import annotations

import argparse
import logging
import math
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.tune.exit_codes import EXIT_DONE, EXIT_DRAINED, EXIT_UNUSABLE

if TYPE_CHECKING:
    from orchestrator.planning.placement import Placement
    from orchestrator.spec.sweep import SweepSpec
    from orchestrator.trials.desk import Desk
    from orchestrator.tune.parent_line import ParentLine

NODES_AGAIN_S = 2.0
MAX_PENDING_TRIALS = 512
"""Placement groups that wait at once: an autoscaler sees no other demand, and each costs GCS."""
ORPHAN_WITHIN_S = 4.0
"""How long a driver whose parent is gone waits for its trials."""

QUIET = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",
    "TUNE_RESULT_BUFFER_LENGTH": "1",
    "TUNE_WARN_THRESHOLD_S": "60",
    "TUNE_WARN_INSUFFICENT_RESOURCE_THRESHOLD_S": "1000000",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
}
"""Tune keeps nothing for us (the log does) and says nothing on our terminal."""

logger = logging.getLogger(__name__)


def main() -> None:
    """Entry of the driver's process."""
    arguments = _parse(sys.argv[1:])
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    os.environ.update(QUIET)
    from orchestrator.store import NotWritable

    try:
        code = _drive(arguments)
    except NotWritable as error:  # nor can the log take it in: the last line here says it
        logger.error("%s", error)
        code = EXIT_UNUSABLE
    sys.exit(code)


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m orchestrator.tune.driver")
    parser.add_argument("--store", required=True)
    parser.add_argument("--sweep", required=True)
    parser.add_argument("--writer", required=True)
    parser.add_argument("--ray-address", required=True)
    parser.add_argument("--scratch", type=Path, required=True)
    parser.add_argument("--drain-within-s", type=float, default=4.0)
    parser.add_argument("--slots", type=int, default=None)
    parser.add_argument("--usable-bytes", type=int, default=None)
    parser.add_argument("--ends-in-s", type=float, default=math.inf)
    return parser.parse_args(argv)


def _drive(arguments: argparse.Namespace) -> int:
    import ray

    from jobs.runners.sae_pack_actor import NAMESPACE
    from orchestrator.log.events import DriverEnded, DriverStarted
    from orchestrator.log.sweep_log import LogWriter, SweepLog
    from orchestrator.nodes.identity import this_host
    from orchestrator.planning.placement import DoesNotFit
    from orchestrator.queue import Queue
    from orchestrator.store import Store
    from orchestrator.trials.desk import Desk
    from orchestrator.trials.leases import Heartbeat
    from orchestrator.trials.time_left import TimeLeft
    from orchestrator.tune.parent_line import ParentLine

    time_left = TimeLeft(time.monotonic() + arguments.ends_in_s, this_host())
    parent = ParentLine(arguments.slots)
    parent.start()
    store = Store.open(arguments.store)
    spec = Queue(store).get(arguments.sweep).spec
    writer = LogWriter(store, arguments.sweep, "driver", writer_id=arguments.writer)
    log = SweepLog(store, arguments.sweep, writer)
    with Heartbeat(store, arguments.sweep, arguments.writer):
        ray.init(
            address=arguments.ray_address,
            namespace=NAMESPACE,
            log_to_driver=False,
            configure_logging=False,
            logging_level=logging.ERROR,
        )
        log.refresh()
        try:
            placement = _placement(spec, arguments.usable_bytes)
        except DoesNotFit as error:
            log.append(
                DriverStarted(host=this_host(), pid=os.getpid()),
                DriverEnded(driver=arguments.writer, reason=str(error)),
            )
            return EXIT_UNUSABLE
        desk = Desk(store, arguments.sweep, spec, log, placement.members)
        desk.time_left = time_left
        parent.tell(desk)
        code, reason = _work_off(desk, placement, arguments, parent)
        log.append(DriverEnded(driver=arguments.writer, reason=reason))
    ray.shutdown()
    return code


def _work_off(
    desk: Desk, placement: Placement, arguments: argparse.Namespace, parent: ParentLine
) -> tuple[int, str]:
    """Run trials until nothing is left to do here, or until asked to stop: exit code and why."""
    from orchestrator.control.watch import ControlWatch
    from orchestrator.log.events import DriverStarted
    from orchestrator.nodes.identity import this_host

    desk.log.append(
        DriverStarted(
            host=this_host(),
            pid=os.getpid(),
            num_nodes=placement.num_nodes,
            num_cpus=placement.num_cpus,
            num_gpus=placement.num_gpus,
            slots=placement.slots,
            num_devices=placement.num_devices,
            device=placement.device,
            usd_per_hour=_usd_per_hour(desk, placement.device),
        )
    )
    drain = _Drain(desk, parent, arguments.drain_within_s)
    signal.signal(signal.SIGTERM, drain)
    signal.signal(signal.SIGINT, drain)
    with ControlWatch(desk):
        _fit(desk, placement, arguments.scratch)
    desk.release_all("its driver ended")
    if desk.unusable:
        return EXIT_UNUSABLE, desk.unusable
    if drain.asked:
        return EXIT_DRAINED, "asked to stop"
    return EXIT_DONE, desk.time_left.why_not or "nothing left to do here"


def _usd_per_hour(desk: Desk, device: str) -> float:
    import ray

    from orchestrator.money.ray_prices import price_of_cluster

    return price_of_cluster(desk.spec.price.usd_per_hour, ray.nodes(), device, desk.store)


def _placement(spec: SweepSpec, usable_bytes: int | None) -> Placement:
    """Raises DoesNotFit.

    Args:
        usable_bytes: what is left of a device beside other drivers' streams; None: all of it.
    """
    from orchestrator.planning.fits_cluster import place_on
    from orchestrator.planning.ray_node_types import node_types_of_cluster

    shape = node_types_of_cluster()
    if shape.is_empty:
        logger.warning("no node has a GPU or a core, and no autoscaler brings one: waiting")
    while shape.is_empty:
        time.sleep(NODES_AGAIN_S)
        shape = node_types_of_cluster()
    placement = place_on(spec, shape, usable_bytes)
    for note in placement.notes:
        logger.warning("%s", note)
    return placement


def _fit(desk: Desk, placement: Placement, scratch: Path) -> None:
    from ray import tune

    from orchestrator.tune.adapters import DeskScheduler, DeskSearcher
    from orchestrator.tune.trial import SweepTrial

    spec = desk.spec
    settings = {
        "store": desk.store.url,
        "job": spec.job,
        "setup": spec.setup.model_dump(mode="json"),
        "seed": 0,
        "metric": spec.metric,
        "device": placement.device,
        "checkpoint_seconds": spec.checkpoint.seconds,
        "usd_per_hour": spec.price.usd_per_hour,
        "members": placement.members,
        "resources": {"CPU": placement.cpus_per_trial, "GPU": placement.gpus_per_trial},
        "avoids": dict(placement.avoids),
    }
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(min(placement.slots, MAX_PENDING_TRIALS))
    tune.Tuner(
        SweepTrial,
        tune_config=tune.TuneConfig(
            search_alg=DeskSearcher(desk, settings),
            scheduler=DeskScheduler(desk),
            num_samples=-1,
            max_concurrent_trials=placement.slots,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            storage_path=str(scratch),
            name=f"{desk.sweep}-{os.getpid()}",
            verbose=0,
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
        ),
    ).fit()


class _Drain:
    """Signal handler: packs give their members back, Tune's loop ends, at the latest in time."""

    def __init__(self, desk: Desk, parent: ParentLine, within_s: float) -> None:
        self._desk, self._parent, self._within_s = desk, parent, within_s
        self.asked = False

    def __call__(self, signum: int, frame: object) -> None:
        del frame
        if self.asked:
            return
        self.asked = True
        self._desk.draining = self._desk.asked_back = True
        logger.info("signal %d: draining", signum)
        threading.Thread(target=self._leave_in_time, daemon=True).start()
        threading.Thread(target=self._drain_packs, daemon=True).start()

    def _drain_packs(self) -> None:
        import ray
        from ray.exceptions import RayError

        from jobs.runners.sae_pack_actor import NAMESPACE

        places = (t.started.pack for t in self._desk.log.state.trials.values() if t.started)
        for name in {place for place in places if place}:
            try:
                ray.get_actor(name, namespace=NAMESPACE).drain.remote(self._desk.sweep)
            except (ValueError, RayError):
                logger.info("pack %s is gone already", name)

    def _leave_in_time(self) -> None:
        """Of itself: a thread that talks to a Ray that died may wait for it for a minute."""
        asked_at = time.monotonic()
        while time.monotonic() - asked_at < self._patience_s:
            time.sleep(0.1)
        logger.warning("not everything came back within %.0f s: leaving", self._patience_s)
        os._exit(EXIT_DRAINED)

    @property
    def _patience_s(self) -> float:
        """Short without a parent: its Ray has gone with it, and our heartbeat holds the trials."""
        return min(self._within_s, ORPHAN_WITHIN_S) if self._parent.is_gone else self._within_s


if __name__ == "__main__":
    main()
