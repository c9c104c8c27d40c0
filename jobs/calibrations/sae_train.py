"""Rates of a pack on this machine: the real stream and real members, for some seconds.

Imports torch; run as a process of its own.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from jobs.sae_train import SaeTrain
from sae.device_clock import DeviceClock
from sae.pack import Pack
from sae.stream import ActivationStream

LONG = 10**6
"""Training lengths are multiplied by this, so that no member comes to its end while measured."""

PATIENCE = 4
"""Times the asked seconds after which measuring ends in the middle of a shuffle block."""


Rates = dict[str, float | int | str | None]


def measure(request: Mapping[str, Any]) -> Rates:
    """Train the asked configurations side by side and take the times.

    Args:
        request: `setup` and `configs` as JSON, `device` (`auto`, `cpu`, `cuda`), `seconds`.
    """
    kind = SaeTrain()
    setup = kind.Setup.model_validate(request["setup"])
    device = request["device"]
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    start = time.perf_counter()
    # Rates that add up: with a cache or a second stream, passes would take no time at all or that
    # of the steps. What these save comes on top.
    spec = kind.stream_spec(setup, device).model_copy(update={"cache": None, "overlap": False})
    stream = ActivationStream(spec, device=torch.device(device))
    pack = Pack(stream)
    for number, config in enumerate(request["configs"]):
        total = kind.total_tokens(setup, config) * LONG
        pack.attach(str(number), kind.architecture(setup, config), total)
        pack.set_target(str(number), total)
    pack.run_step()
    _wait_for(device)
    load_seconds = time.perf_counter() - start
    rates = _run(stream, pack, spec.block_batches, request["seconds"], device)
    return {"device": device, "load_seconds": load_seconds, **rates}


def _run(
    stream: ActivationStream, pack: Pack, block_batches: int, seconds: float, device: str
) -> Rates:
    """From the start of a shuffle block: the language model runs once for all of one."""
    num_members = len(pack.members)
    while pack.position % block_batches:
        pack.run_step()
    _wait_for(device)
    lm_before, steps_before = stream.lm_seconds, _seconds_of_steps(pack)
    first, start = pack.position, time.perf_counter()
    with _optimizer_clock(torch.device(device)) as optimizer_clock:
        while (spent := time.perf_counter() - start) < seconds or (
            pack.position % block_batches and spent < PATIENCE * seconds
        ):
            pack.run_step()
        _wait_for(device)
    wall_seconds = time.perf_counter() - start
    shared_seconds = stream.lm_seconds - lm_before
    step_seconds = _seconds_of_steps(pack) - steps_before
    trial_seconds = wall_seconds - shared_seconds
    num_batches = pack.position - first
    stream_tokens = num_batches * stream.batch_tokens
    lm_tokens = -(-num_batches // block_batches) * block_batches * stream.batch_tokens
    return {
        "members": num_members,
        "stream_tokens": stream_tokens,
        "wall_seconds": wall_seconds,
        "shared_seconds_per_token": shared_seconds / lm_tokens,
        "trial_seconds_per_token": trial_seconds / stream_tokens / num_members,
        "waiting_share": max(0.0, 1 - step_seconds / trial_seconds),
        # Hand-written steps do without the optimizer's own: nothing is known of theirs.
        "optimizer_share": (optimizer_clock.seconds / step_seconds) or None,
        "report_seconds": _seconds_of_reports(pack) / num_members,
        "checkpoint_seconds": _seconds_of_checkpoints(pack) / num_members,
    }


def _seconds_of_steps(pack: Pack) -> float:
    """Of all members so far, the language model's time left out."""
    return sum(pack.busy_seconds(name) - pack.lm_seconds(name)[0] for name in pack.members)


@contextmanager
def _optimizer_clock(device: torch.device) -> Iterator[DeviceClock]:
    """Time that torch's optimizers spend in their steps meanwhile."""
    clock = DeviceClock(device)
    hooks = [
        register_optimizer_step_pre_hook(lambda *_: clock.__enter__()),
        register_optimizer_step_post_hook(lambda *_: clock.__exit__()),
    ]
    try:
        yield clock
    finally:
        for hook in hooks:
            hook.remove()


def _seconds_of_reports(pack: Pack) -> float:
    for member in pack.members:  # the first one fills the caches of held-out activations
        pack.report(member)
    start = time.perf_counter()
    for member in pack.members:
        pack.report(member)
    return time.perf_counter() - start


def _seconds_of_checkpoints(pack: Pack) -> float:
    with tempfile.TemporaryDirectory(prefix="saeq-calibrate-") as folder:
        start = time.perf_counter()
        for member in pack.members:
            target = Path(folder, member)
            target.mkdir()
            pack.save(member, target)
        return time.perf_counter() - start


def _wait_for(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    sys.stdout.write(json.dumps(measure(json.load(sys.stdin))) + "\n")
