"""How a group of members is stepped on one batch; the reference backend does it one by one.

Shape suffixes: B = tokens in the batch, D = d_in.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor

from sae.member import Member


class MemberStepFailed(RuntimeError):
    """A member's step raised; the member is parked and the others go on.

    Args:
        member_id: which member.
        detail: what was raised, in one line.
        out_of_memory: whether it was for lack of memory.
    """

    def __init__(self, member_id: str, detail: str, out_of_memory: bool) -> None:
        super().__init__(member_id, detail, out_of_memory)
        self.member_id, self.detail, self.out_of_memory = member_id, detail, out_of_memory

    def __str__(self) -> str:
        return f"member {self.member_id} failed in a step: {self.detail}"


class StepBackend(Protocol):
    """One step of several members with equal `group_key` on the same batch."""

    def step(
        self, members: Mapping[str, Member], batch_BD: Tensor, position: int
    ) -> dict[str, MemberStepFailed]:
        """Step each member once; returns what failed, by member id, `__cause__` set."""


class ReferenceBackend:
    """Members stepped one after the other by sae_lens's own trainer: what others must equal."""

    def step(
        self, members: Mapping[str, Member], batch_BD: Tensor, position: int
    ) -> dict[str, MemberStepFailed]:
        """Step each member once; returns what failed, by member id."""
        failures = {}
        for member_id, member in members.items():
            try:
                member.step(batch_BD, position)
            except Exception as error:  # kept, and raised by the next call for this member
                failures[member_id] = failure_of(member_id, error)
                member.drop_gradients()
        return failures


def failure_of(member_id: str, error: Exception) -> MemberStepFailed:
    """Wrap what a step raised, with the original as its cause."""
    lines = str(error).splitlines()
    detail = f"{type(error).__name__}: {lines[0] if lines else ''}"
    failure = MemberStepFailed(member_id, detail, is_out_of_memory(error))
    failure.__cause__ = error
    # The traceback's frames hold the step's tensors, which is what the memory is short of.
    error.__traceback__ = None
    return failure


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory was short, on a GPU or on the host."""
    if isinstance(error, MemberStepFailed):
        return error.out_of_memory
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    # What torch's CPU allocator raises is a bare RuntimeError.
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
