"""Runs on the node: `python -m orchestrator.ssh_nodes.on_host environment|store`.

The last line on stdout says what was found; with exit code 1 it is what is wrong.
"""

from __future__ import annotations

import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution, version

from orchestrator.nodes.identity import node_id, node_kind, node_labels, this_host
from orchestrator.nodes.records import NodeSide, write_side
from orchestrator.store import Store, StoreError

SHOWN = ("torch", "ray")


def main(what: str) -> int:
    """Answers with an exit code."""
    try:
        told = environment() if what == "environment" else store()
    except (StoreError, Unfit) as error:
        sys.stdout.write(" ".join(str(error).split()) + "\n")
        return 1
    sys.stdout.write(told + "\n")
    return 0


class Unfit(ValueError):
    """The environment cannot run saeq; the message says what to do."""


def environment() -> str:
    """Versions, once they are those that saeq asks for and torch reaches the device.

    Raises Unfit.
    """
    wrong = list(_unmet())
    if wrong:
        raise Unfit(
            f"the environment {sys.prefix} does not have what saeq needs: {'; '.join(wrong)}; "
            "install that there, or leave --environment out"
        )
    built_for, has_device = _torch()
    driver = _driver()
    if driver and not has_device:
        if built_for is None:
            raise Unfit(
                f"torch {version('torch')} is a build without CUDA and the host has a GPU; give "
                "--torch-index URL of a CUDA build, or another --environment"
            )
        raise Unfit(
            f"torch {version('torch')}, built for CUDA {built_for}, does not reach the GPU with "
            f"driver {driver}; give --torch-index https://download.pytorch.org/whl/cu129 or "
            "older, or rent a machine with a newer driver"
        )
    device = f"CUDA {built_for}" if has_device else "no GPU"
    shown = ", ".join(f"{name} {version(name)}" for name in SHOWN)
    return f"Python {platform.python_version()}, {shown}, {device}"


def _unmet() -> Iterator[str]:
    """What saeq's own metadata asks for and the environment lacks."""
    from packaging.requirements import Requirement

    for line in distribution("saeq").requires or []:
        wanted = Requirement(line)
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": "s3"}):
            continue
        try:
            found = version(wanted.name)
        except PackageNotFoundError:
            yield f"{wanted.name} is missing"
            continue
        if not wanted.specifier.contains(found, prereleases=True):
            yield f"{wanted.name} is {found}, not {wanted.specifier}"


def _torch() -> tuple[str | None, bool]:
    """CUDA version that torch was built for, and whether it finds a device."""
    import warnings

    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.version.cuda, torch.cuda.is_available()


def _driver() -> str:
    """Driver version; empty on a host without a GPU."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (FileNotFoundError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip().partition("\n")[0]


def store() -> str:
    """Write the node's own side of its record: what serve will do, tried first.

    Raises StoreError.
    """
    opened = Store.open()
    now = time.time()
    side = NodeSide(
        id=node_id(), kind=node_kind(), host=this_host(), labels=node_labels(), since=now
    )
    write_side(opened, "self", side.model_copy(update={"state": "starting"}))
    return f"the store answers in {time.time() - now:.1f} s"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
