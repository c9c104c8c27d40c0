"""Members stop and go on anywhere, and nobody can tell; longer ones follow the new schedule."""

from __future__ import annotations

import json
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sae.architectures import by_architecture
from sae.batched.backend import default_backend
from sae.export import member_record
from sae.member import Member
from sae.member_snapshot import MemberSnapshot, SnapshotRoom, snapshot
from sae.member_state import BadCheckpoint, load_member, restore_member, save_member
from sae.pack import Pack
from sae.replay import train_from_record
from tests.sae.synthetic_source import SyntheticSource, scheduled_config, small_config

ARCHITECTURES = sorted(by_architecture)
SOURCE = SyntheticSource()
BATCH = SOURCE.batch_tokens
STEPS = 40
BACKEND = default_backend(torch.device("cpu"))
"""What a pack steps its members by unless told otherwise."""


EIGHT_BIT = {"adam_moments": "8bit", "d_sae": 384}
"""Wide enough that moments are bytes."""
CASES: list[tuple[str, dict[str, Any]]] = [
    *((architecture, {}) for architecture in ARCHITECTURES),
    ("topk", EIGHT_BIT),
    ("gated", EIGHT_BIT),
]


def fresh(architecture: str, steps: int = STEPS, **parameters: Any) -> Member:
    config = scheduled_config(architecture, **parameters)
    return Member.from_source(config, SOURCE, steps * BATCH)


def train(member: Member, first: int, end: int) -> Member:
    for position in range(first, end):
        failures = BACKEND.step({"m": member}, SOURCE.batch_at(position)[member.hook], position)
        assert not failures
    return member


def assert_same(one: Member, other: Member) -> None:
    """Equal in everything that a checkpoint holds, bit for bit; but for the time it took."""
    left, right = snapshot(one), snapshot(other)
    assert left.tensors.keys() == right.tensors.keys()
    unequal = [n for n, value in left.tensors.items() if not torch.equal(value, right.tensors[n])]
    assert not unequal
    assert _without_time(left) == _without_time(right)


def _without_time(saved: MemberSnapshot) -> str:
    return json.dumps({**saved.numbers, "step_seconds": 0.0}, sort_keys=True)


@pytest.mark.parametrize(("architecture", "parameters"), CASES)
@settings(max_examples=5, deadline=None, derandomize=True)
@given(cuts=st.lists(st.integers(0, STEPS), max_size=5).map(sorted))
def test_interruptions_anywhere_leave_no_trace(
    architecture: str, parameters: dict[str, Any], cuts: list[int]
) -> None:
    uninterrupted = train(fresh(architecture, **parameters), 0, STEPS)
    member = fresh(architecture, **parameters)
    for first, end in zip([0, *cuts], [*cuts, STEPS], strict=True):
        train(member, first, end)
        with tempfile.TemporaryDirectory() as folder:
            assert save_member(member, Path(folder)) == end * BATCH
            member = fresh(architecture, **parameters)
            assert load_member(member, Path(folder)) == end * BATCH
    assert_same(uninterrupted, member)


def test_a_snapshot_stays_as_it_was_when_the_member_trains_on(tmp_path: Path) -> None:
    member = train(fresh("topk"), 0, 5)
    taken = snapshot(member)
    train(member, 5, 12)
    assert taken.write(tmp_path) == 5 * BATCH
    resumed = fresh("topk")
    load_member(resumed, tmp_path)
    assert_same(train(resumed, 5, 12), member)


def test_room_made_before_the_first_step_still_takes_what_came_since() -> None:
    """Adam has no moments before the first step."""
    member = fresh("topk")
    room = SnapshotRoom(member)
    train(member, 0, 3)
    resumed = fresh("topk")
    restore_member(resumed, room.take(member))
    assert_same(resumed, member)


def test_the_others_are_stepped_while_a_snapshot_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack = Pack(SyntheticSource())
    for name in ("saved", "other"):
        pack.attach(name, small_config("topk"), 100 * BATCH)
        pack.set_target(name, 5 * BATCH)
    while pack.run_step():
        pass
    writing, go_on = threading.Event(), threading.Event()
    write = MemberSnapshot.write

    def slow_write(self: MemberSnapshot, folder: Path) -> int:
        writing.set()
        assert go_on.wait(timeout=60)
        return write(self, folder)

    monkeypatch.setattr(MemberSnapshot, "write", slow_write)
    answers: list[int] = []
    saver = threading.Thread(target=lambda: answers.append(pack.save("saved", tmp_path)))
    saver.start()
    assert writing.wait(timeout=60)
    for name in ("saved", "other"):
        pack.set_target(name, 9 * BATCH)
    while pack.run_step():
        pass
    assert pack.tokens("saved") == pack.tokens("other") == 9 * BATCH
    go_on.set()
    saver.join(timeout=60)
    assert answers == [5 * BATCH]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_an_extended_member_goes_on_along_the_longer_schedule(
    architecture: str, tmp_path: Path
) -> None:
    """What was learned stays; from the next step on the learning rate is that of the new length."""
    short = train(fresh(architecture, STEPS), 0, STEPS - 4)  # well into its decay
    save_member(short, tmp_path)
    longer = fresh(architecture, 3 * STEPS)
    load_member(longer, tmp_path)
    assert longer.tokens == short.tokens
    assert torch.equal(longer.sae.W_dec, short.sae.W_dec)
    assert longer.lengths == [(0, STEPS * BATCH), (STEPS - 4, 3 * STEPS * BATCH)]
    always_long = train(fresh(architecture, 3 * STEPS), 0, STEPS - 4)
    for _ in range(2 * STEPS + 4):
        assert _lr(longer) == _lr(always_long)
        train(longer, longer.steps, longer.steps + 1)
        train(always_long, always_long.steps, always_long.steps + 1)
    assert longer.tokens == longer.total_tokens


def _lr(member: Member) -> float:
    return float(member.trainer.optimizer.param_groups[0]["lr"])


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_an_extended_member_is_replayed_from_its_record_bit_for_bit(
    architecture: str, tmp_path: Path
) -> None:
    save_member(train(fresh(architecture, STEPS), 0, 35), tmp_path)
    longer = fresh(architecture, 2 * STEPS)
    load_member(longer, tmp_path)
    train(longer, 35, 2 * STEPS)
    record = json.loads(json.dumps(member_record(longer, SOURCE)))
    again = train_from_record(record, SyntheticSource())
    assert again.lengths == longer.lengths == [(0, STEPS * BATCH), (35, 2 * STEPS * BATCH)]
    left, right = snapshot(again).tensors, snapshot(longer).tensors
    assert not [name for name, value in left.items() if not torch.equal(value, right[name])]


def test_a_member_is_not_shortened_below_what_it_has_done(tmp_path: Path) -> None:
    save_member(train(fresh("topk"), 0, 35), tmp_path)
    with pytest.raises(BadCheckpoint, match="tokens=2240 there, total 1920 here"):
        load_member(fresh("topk", 30), tmp_path)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_snapshot_of_a_member_on_a_gpu_equals_the_member(tmp_path: Path) -> None:
    config = small_config("topk")
    member = train(Member.from_source(config, SOURCE, STEPS * BATCH, "cuda"), 0, 20)
    taken = snapshot(member)
    assert all(tensor.device.type == "cpu" for tensor in taken.tensors.values())
    taken.write(tmp_path)
    resumed = Member.from_source(config, SOURCE, STEPS * BATCH, "cuda")
    load_member(resumed, tmp_path)
    assert_same(resumed, member)


def test_members_are_saved_while_others_step_and_every_state_is_of_one_moment(
    tmp_path: Path,
) -> None:
    """From its first step on, when Adam's moments come: each state is that after whole steps."""
    pack = Pack(SyntheticSource())
    pack.attach("m", scheduled_config("topk"), STEPS * BATCH)
    pack.set_target("m", STEPS * BATCH)
    over = threading.Event()

    def step() -> None:
        while pack.run_step():
            pass
        over.set()

    stepper = threading.Thread(target=step)
    stepper.start()
    saved: list[tuple[int, Path]] = []
    while not over.is_set() or not saved:
        folder = tmp_path / str(len(saved))
        saved.append((pack.save("m", folder), folder))
    stepper.join()
    for tokens, folder in saved[:: max(1, len(saved) // 4)]:
        resumed, alone = fresh("topk"), fresh("topk")
        load_member(resumed, folder)
        assert_same(resumed, train(alone, 0, tokens // BATCH))
