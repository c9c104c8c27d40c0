"""An SAE trained alone from another's record is the same SAE, bit for bit."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from sae.architectures import by_architecture
from sae.export import member_record
from sae.member import Member
from sae.pack import Pack
from sae.replay import BadRecord, train_from_record
from tests.sae.synthetic_source import SyntheticSource, scheduled_config, small_config

BATCH = 64
TOTAL = 40 * BATCH


def run_to(pack: Pack, **steps: int) -> None:
    for name, count in steps.items():
        pack.set_target(name, count * BATCH)
    while pack.run_step():
        pass


def late_and_pausing_member(source: SyntheticSource, architecture: str) -> Member:
    """A member that joins at step 4 and pauses for ten steps, beside two others."""
    pack = Pack(source)
    pack.attach("first", small_config("topk", init_seed=1), TOTAL)
    run_to(pack, first=4)
    pack.attach("late", scheduled_config(architecture, init_seed=2), TOTAL)
    pack.attach("third", small_config("standard", init_seed=3), TOTAL)
    run_to(pack, first=10, late=12, third=9)
    run_to(pack, first=26)
    run_to(pack, late=30, third=20, first=30)
    return pack._slots["late"].member


def record_of(member: Member, source: SyntheticSource) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(json.dumps(member_record(member, source)))
    return record


@pytest.mark.parametrize("architecture", sorted(by_architecture))
def test_a_member_with_a_gap_is_replayed_alone_bit_for_bit(architecture: str) -> None:
    source = SyntheticSource()
    member = late_and_pausing_member(source, architecture)
    record = record_of(member, source)
    assert record["segments"] == [[4, 16], [32, 50]]
    again = train_from_record(record, SyntheticSource())
    for name, value in member.sae.state_dict().items():
        assert torch.equal(value, again.sae.state_dict()[name]), name
    assert again.segments == member.segments


def test_a_record_of_another_stream_is_refused() -> None:
    source = SyntheticSource()
    member = late_and_pausing_member(source, "topk")
    record = record_of(member, source)
    with pytest.raises(BadRecord, match="batch_tokens=64 there, 32 in this stream"):
        train_from_record(record, SyntheticSource(batch_tokens=32))
    with pytest.raises(BadRecord, match="scale"):
        train_from_record(record, SyntheticSource(noise=3.0))


def test_a_record_that_contradicts_itself_is_refused() -> None:
    source = SyntheticSource()
    record = record_of(late_and_pausing_member(source, "topk"), source)
    with pytest.raises(BadRecord, match="its segments come to 1152 tokens"):
        train_from_record({**record, "segments": [[32, 50]]}, source)
    del record["segments"]
    with pytest.raises(BadRecord, match="it lacks segments"):
        train_from_record(record, source)
