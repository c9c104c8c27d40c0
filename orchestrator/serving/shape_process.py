"""Joins a Ray cluster and says what trials may be put on there, a JSON line whenever that changes.

`python -m orchestrator.serving.shape_process ADDRESS [--once]`: a process of its own, so that
whoever serves imports no Ray and does not hang with it. Ends when its stdin does.
"""

from __future__ import annotations

import argparse
import logging
import os
import threading
import time

LOOK_EVERY_S = 5.0


def main() -> None:
    """Stay until stdin ends, or the cluster does."""
    parser = argparse.ArgumentParser(prog="python -m orchestrator.serving.shape_process")
    parser.add_argument("address")
    parser.add_argument("--once", action="store_true")
    arguments = parser.parse_args()
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # Ray may print: that goes to the log
    if not arguments.once:
        threading.Thread(target=_end_with_stdin, daemon=True).start()
    import ray

    from orchestrator.planning.ray_node_types import node_types_of_cluster

    ray.init(
        address=arguments.address,
        log_to_driver=False,
        configure_logging=False,
        logging_level=logging.ERROR,
    )
    said = ""
    while True:
        line = node_types_of_cluster().model_dump_json()
        if line != said:
            answers.write(f"{line}\n")
            said = line
        if arguments.once:
            os._exit(0)  # whoever asked waits for the answer, not for Ray's good-bye
        time.sleep(LOOK_EVERY_S)


def _end_with_stdin() -> None:
    while os.read(0, 4096):
        pass
    os._exit(0)


if __name__ == "__main__":
    main()
