"""Train an SAE again, alone, from the record that another run of it left."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch

from sae.activation_source import ActivationSource
from sae.architectures import parse_architecture
from sae.batched.backend import stepper_named
from sae.batched.kernels import CannotCompile
from sae.member import REFERENCE_STEPPER, Member, Stepper
from sae.member_snapshot import snapshot
from sae.member_state import restore_member

logger = logging.getLogger(__name__)


class BadRecord(ValueError):
    """A record that the given source cannot replay.

    Args:
        reason: what does not match, or is missing.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"this record cannot be replayed here: {self.reason}"


def train_from_record(
    record: Mapping[str, Any], source: ActivationSource, device: str | torch.device = "cpu"
) -> Member:
    """Feed a fresh member exactly the stream positions that a record lists.

    On the CPU in fp32, by the recorded backend and kernels and with the same number of threads, the
    weights come out the same bit for bit.

    Args:
        record: as `sae.export.member_record` writes it.
        source: a source of the same stream.

    Raises:
        BadRecord: the record lacks something, is of another stream, or of a backend that cannot be
            had here.
    """
    missing = sorted({"architecture", "hook", "total_tokens", "segments", "tokens"} - set(record))
    if missing:
        raise BadRecord(f"it lacks {', '.join(missing)}")
    config = parse_architecture({**record["architecture"], "hook": record["hook"]})
    total_by_step = dict(record.get("lengths") or [(0, record["total_tokens"])])
    member = Member.from_source(config, source, total_by_step.pop(0), device)
    member.stepper = _recorded_stepper(record, member)
    for name in ("batch_tokens", "d_in", "scale"):
        here, there = getattr(member, name), record.get(name)
        if here != there:
            raise BadRecord(f"{name}={there!r} there, {here!r} in this stream")
    for first, end in record["segments"]:
        for position in range(first, end):
            if member.steps in total_by_step:
                member = _lengthened(member, source, total_by_step.pop(member.steps))
            member.step(source.batch_at(position)[member.hook], position)
    if member.tokens != record["tokens"]:
        raise BadRecord(
            f"its segments come to {member.tokens} tokens, but it says {record['tokens']}"
        )
    return member


def _lengthened(member: Member, source: ActivationSource, total_tokens: int) -> Member:
    """The same member, its schedules laid out over another length from here on."""
    longer = Member.from_source(member.config, source, total_tokens, member.device)
    restore_member(longer, snapshot(member))
    longer.stepper = member.stepper
    return longer


def _recorded_stepper(record: Mapping[str, Any], member: Member) -> Stepper:
    """Who stepped the member of a record; those before there was a choice, sae_lens's trainer."""
    name = record.get("backend", REFERENCE_STEPPER.name)
    try:
        stepper = stepper_named(name, member.device)
    except (ValueError, CannotCompile) as error:
        raise BadRecord(f"it was stepped by {name}: {error}") from error
    others = [other for other in record.get("backends", ()) if other != name]
    kernels = record.get("kernels")
    if others or kernels not in (None, stepper.identity):
        logger.warning(
            "this replay may differ in the last bits: the record was stepped by %s (%s), "
            "here by %s (%s)",
            ", ".join((*others, name)),
            kernels,
            name,
            stepper.identity,
        )
    return stepper
