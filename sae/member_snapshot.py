"""A copy of a member's whole state in host memory, made while the member stands still, and written
to disk while it trains on.

What has to be fast is the copy alone: its memory is made, and touched, before the member's lock
is taken (`SnapshotRoom`), since fresh pages cost ten times what copying into warm ones does.
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from sae.member import Member
from sae.versions import versions

STATE_FILE = "state.json"
TENSORS_FILE = "state.safetensors"
FORMAT = 1

_one_at_a_time = Lock()
"""Sixteen members that are due together would need sixteen times the memory, and one disk writes
no faster for it."""


@dataclass(frozen=True)
class MemberSnapshot:
    """A member at one moment. Nothing in it changes when the member trains on."""

    tensors: Mapping[str, Tensor]
    """Weights, optimizer moments, counters; on the host."""
    numbers: Mapping[str, Any]
    """Schedules, counters, segments, configuration: JSON values."""

    @property
    def tokens(self) -> int:
        """Tokens trained on up to that moment."""
        return int(self.numbers["tokens"])

    def write(self, folder: Path) -> int:
        """Write into a folder; `state.json` comes last and makes it complete.

        Returns:
            The tokens it stands for.
        """
        folder.mkdir(parents=True, exist_ok=True)
        tensors_path = folder / TENSORS_FILE
        save_file(dict(self.tensors), tensors_path)
        state = {
            **self.numbers,
            "versions": versions(),
            "tensor_names": sorted(self.tensors),
            "tensor_bytes": tensors_path.stat().st_size,
        }
        unfinished = folder / f"{STATE_FILE}.part"
        unfinished.write_text(json.dumps(state, indent=1), encoding="ascii")
        _sync(tensors_path)
        _sync(unfinished)
        os.replace(unfinished, folder / STATE_FILE)
        return self.tokens


@dataclass(frozen=True)
class _Shape:
    """What a buffer for a tensor has to be like."""

    size: torch.Size
    dtype: torch.dtype
    on_gpu: bool

    @classmethod
    def of(cls, tensor: Tensor) -> _Shape:
        return cls(tensor.shape, tensor.dtype, tensor.device.type == "cuda")

    def make(self) -> Tensor:
        buffer = torch.empty(self.size, dtype=self.dtype, pin_memory=self.on_gpu)
        return buffer if self.on_gpu else buffer.zero_()  # touches the pages


class SnapshotRoom:
    """Host memory as large as a member's state: page-locked where the member is on a GPU."""

    def __init__(self, member: Member, lock: AbstractContextManager[object] | None = None) -> None:
        """
        Args:
            lock: keeps the member from being stepped; held here only to look at the shapes.
        """
        with lock or nullcontext():
            shapes = {name: _Shape.of(tensor) for name, tensor in _tensors(member).items()}
        self._buffers = {name: shape.make() for name, shape in shapes.items()}

    def take(self, member: Member) -> MemberSnapshot:
        """Copy the state; the caller holds the member's lock, and may let go on return."""
        sources = _tensors(member)
        buffers = {name: self._buffer(name, tensor) for name, tensor in sources.items()}
        if member.device.type == "cuda":
            _copy_from_gpu(sources, buffers, member.device)
        else:
            for name, tensor in sources.items():
                buffers[name].copy_(tensor.detach())
        return MemberSnapshot(buffers, copy.deepcopy(_numbers(member)))

    def _buffer(self, name: str, tensor: Tensor) -> Tensor:
        """The buffer made for it; a new one for what came since, as Adam's moments do at once."""
        made = self._buffers.get(name)
        fits = made is not None and made.shape == tensor.shape and made.dtype == tensor.dtype
        return made if made is not None and fits else _Shape.of(tensor).make()


@contextmanager
def snapshot_room(member: Member, lock: AbstractContextManager[object]) -> Iterator[SnapshotRoom]:
    """Room for a snapshot, one in the process at a time: write it before leaving the block.

    Args:
        lock: keeps the member from being stepped.
    """
    with _one_at_a_time:
        yield SnapshotRoom(member, lock)


def snapshot(member: Member) -> MemberSnapshot:
    """Copy a member's state; the caller sees to it that nobody steps the member meanwhile."""
    return SnapshotRoom(member).take(member)


def _copy_from_gpu(
    sources: Mapping[str, Tensor], buffers: Mapping[str, Tensor], device: torch.device
) -> None:
    """All copies at once on a stream of their own, behind the steps that are queued already."""
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        for name, tensor in sources.items():
            buffers[name].copy_(tensor.detach(), non_blocking=True)
    stream.synchronize()


def _tensors(member: Member) -> dict[str, Tensor]:
    trainer = member.trainer
    tensors = {f"sae.{name}": tensor for name, tensor in trainer.sae.state_dict().items()}
    for index, slots in trainer.optimizer.state_dict()["state"].items():
        tensors |= {f"adam.{index}.{name}": tensor for name, tensor in slots.items()}
    tensors["act_freq_scores"] = trainer.act_freq_scores
    tensors["n_forward_passes_since_fired"] = trainer.n_forward_passes_since_fired
    tensors["loss_sum"] = member.losses.sum
    tensors["loss_max"] = member.losses.max
    return tensors


def _numbers(member: Member) -> dict[str, Any]:
    trainer = member.trainer
    return {
        "format": FORMAT,
        "config": member.config.model_dump(mode="json"),
        "hook": member.hook,
        "d_in": member.d_in,
        "total_tokens": member.total_tokens,
        "lengths": member.lengths,
        "batch_tokens": member.batch_tokens,
        "scale": member.scale,
        "tokens": member.tokens,
        "steps": member.steps,
        "n_frac_active_samples": trainer.n_frac_active_samples,
        "optimizer_groups": trainer.optimizer.state_dict()["param_groups"],
        "lr_scheduler": trainer.lr_scheduler.state_dict(),
        "coefficient_schedulers": {
            name: scheduler.state_dict()
            for name, scheduler in trainer.coefficient_schedulers.items()
        },
        "losses": {
            "num_steps": member.losses.num_steps,
            # As text: a diverged member's NaN is no JSON.
            "last": {name: repr(value) for name, value in member.losses.last.items()},
        },
        "segments": member.segments,
        "steppers": member.steppers,
        "step_seconds": member.step_seconds,
    }


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
