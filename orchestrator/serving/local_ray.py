"""A private Ray on this machine for as long as a command needs it."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from orchestrator.planning.machine import num_cpus
from orchestrator.serving.interrupts import stop_signals_deferred

OBJECT_STORE_BYTES = 128 * 2**20
"""Nothing large travels through Ray's object store: activations never leave their pack."""

QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
}


def cluster_address(given: str | None) -> str | None:
    """A running cluster's address: the given one or $RAY_ADDRESS; None: start a local Ray."""
    return given or os.environ.get("RAY_ADDRESS") or None


@contextmanager
def ray_cluster(address: str | None) -> Iterator[str]:
    """Address of the cluster to use: the given one, $RAY_ADDRESS, or a local Ray started here.

    The local one listens on loopback only, lives in a folder of its own and ends with this
    process, however that ends (on Linux its processes are killed with their parent).
    """
    address = cluster_address(address)
    if address:
        yield address
        return
    os.environ.update(QUIET)
    logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)
    import ray

    # A short path: Ray's sockets live below it, and a socket's path has at most 107 characters.
    folder = tempfile.mkdtemp(prefix="saeq-ray-", dir="/tmp")
    try:
        with stop_signals_deferred():
            ray.init(
                num_cpus=num_cpus(),
                include_dashboard=False,
                log_to_driver=False,
                configure_logging=False,
                logging_level=logging.ERROR,
                object_store_memory=OBJECT_STORE_BYTES,
                _node_ip_address="127.0.0.1",
                _temp_dir=folder,
            )
        yield str(ray.get_runtime_context().gcs_address)
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)
