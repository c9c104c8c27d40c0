"""Train an SAE again, alone, from the record that another run of it left."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from sae.activation_source import ActivationSource
from sae.architectures import parse_architecture
from sae.member import Member


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

    On the CPU in fp32, with the same number of threads, the weights come out the same bit for
    bit.

    Args:
        record: as `sae.export.member_record` writes it.
        source: a source of the same stream.

    Raises:
        BadRecord: the record lacks something, or is of another stream.
    """
    missing = sorted({"architecture", "hook", "total_tokens", "segments", "tokens"} - set(record))
    if missing:
        raise BadRecord(f"it lacks {', '.join(missing)}")
    config = parse_architecture({**record["architecture"], "hook": record["hook"]})
    member = Member.from_source(config, source, record["total_tokens"], device)
    for name in ("batch_tokens", "d_in", "scale"):
        here, there = getattr(member, name), record.get(name)
        if here != there:
            raise BadRecord(f"{name}={there!r} there, {here!r} in this stream")
    for first, end in record["segments"]:
        for position in range(first, end):
            member.step(source.batch_at(position)[member.hook], position)
    if member.tokens != record["tokens"]:
        raise BadRecord(
            f"its segments come to {member.tokens} tokens, but it says {record['tokens']}"
        )
    return member
