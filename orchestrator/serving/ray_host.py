"""A private Ray in a process of its own: `python -m orchestrator.serving.ray_host`.

So whoever uses it imports no Ray, can be interrupted while Ray starts, and can replace a Ray that
died. Says what happens as JSON lines on stdout: {"folder": ...}, {"address": ...}, {"dead": ...}.
Ends when its stdin does, and takes all of Ray's processes with it (on Linux they are killed with
the thread that started them).
"""

from __future__ import annotations

import json
import logging
import os
import threading
from typing import IO, Any

from orchestrator.planning.machine import num_cpus
from orchestrator.serving.scratch import SHORT, ScratchFolder

OBJECT_STORE_BYTES = 128 * 2**20
"""Nothing large travels through Ray's object store: activations never leave their pack."""

QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
}

AUTH_MODE = "RAY_AUTH_MODE"

LOOK_EVERY_S = 0.3


def local_environment() -> dict[str, str]:
    """Environment of a local Ray and of the drivers on it.

    A Ray that starts by itself asks for a token; whoever joins it has to be told so (ray 2.60).
    """
    return {**QUIET, AUTH_MODE: os.environ.get(AUTH_MODE, "token")}


def main() -> None:
    """Start Ray, say its address, and stay until one of its processes dies or stdin ends."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # Ray may print: that goes to the log
    os.environ.update(local_environment())
    scratch = ScratchFolder("ray", SHORT)
    _say(answers, folder=str(scratch.path))
    threading.Thread(target=_end_with_stdin, args=(scratch,), daemon=True).start()
    node = _start(scratch)
    import ray

    _say(answers, address=str(ray.get_runtime_context().gcs_address))
    while not (dead := node.dead_processes()):
        threading.Event().wait(LOOK_EVERY_S)
    _say(answers, dead=", ".join(str(kind) for kind, _ in dead))
    scratch.remove()
    os._exit(1)  # ray.shutdown() would wait for what is dead


def _start(scratch: ScratchFolder) -> Any:
    """Ray on loopback only, in a folder of its own; returns the node that holds its processes."""
    logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)
    import ray
    from ray._private import worker

    ray.init(
        num_cpus=num_cpus(),
        include_dashboard=False,
        log_to_driver=False,
        configure_logging=False,
        logging_level=logging.ERROR,
        object_store_memory=OBJECT_STORE_BYTES,
        _node_ip_address="127.0.0.1",
        _temp_dir=str(scratch.path),
    )
    return worker._global_node


def _end_with_stdin(scratch: ScratchFolder) -> None:
    """Whoever started us is gone or wants us gone: at once, there is nothing to save here."""
    while os.read(0, 4096):
        pass
    scratch.remove()
    os._exit(0)


def _say(answers: IO[str], **what: str) -> None:
    answers.write(json.dumps(what) + "\n")
    answers.flush()


if __name__ == "__main__":
    main()
