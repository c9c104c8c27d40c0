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
import re
import secrets
import signal
import threading
from pathlib import Path
from typing import IO, Any

from orchestrator.nodes.identity import node_labels
from orchestrator.planning.machine import num_cpus
from orchestrator.serving.ray_settings import health_checks
from orchestrator.serving.scratch import SHORT, ScratchFolder

OBJECT_STORE_BYTES = 128 * 2**20
"""Nothing large travels through Ray's object store: activations never leave their pack."""

QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
}

LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""Ray turns an address of 127.0.0.1 into the machine's own and listens on all interfaces, unless it
believes to be where clusters are not supported: then everything of it is on loopback (ray 2.60)."""

AUTH_MODE = "RAY_AUTH_MODE"
TOKEN, TOKEN_PATH = "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"

LOOK_EVERY_S = 0.3

_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")
"""Names and values as Ray's `label_utils` has them; another one keeps Ray from starting."""


def local_environment() -> dict[str, str]:
    """Environment of a local Ray and of the drivers on it.

    A Ray that starts by itself asks for a token; whoever joins it has to be told so (ray 2.60).
    """
    return {**QUIET, **LOOPBACK, **health_checks(), AUTH_MODE: os.environ.get(AUTH_MODE, "token")}


def private_token(folder: Path) -> dict[str, str]:
    """A token for one Ray alone, in a file that only its owner reads; nothing if one was given.

    Ray's own, ~/.ray/auth_token, is shared by all and as readable as the umask has it.
    """
    if any(os.environ.get(name) for name in (TOKEN, TOKEN_PATH)):
        return {}
    path = folder / "token"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(secrets.token_hex(32))
    return {TOKEN_PATH: str(path)}


def ray_labels() -> dict[str, str]:
    """What this node's starter knows of it, its price above all, where Ray takes it as a label."""
    known = node_labels()
    return {k: v for k, v in known.items() if _LABEL.fullmatch(k) and _LABEL.fullmatch(v)}


def outlive_sigterm() -> None:
    """For this process and all that it starts: SLURM and systemd tell every process of a job.

    Ray has to stay until its drivers have checkpointed; whoever started it ends it.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})


def main() -> None:
    """Start Ray, say its address, and stay until one of its processes dies or stdin ends."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # Ray may print: that goes to the log
    outlive_sigterm()
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
        labels=ray_labels(),
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
