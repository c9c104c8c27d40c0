"""Members attach, wait, fail and leave without disturbing one another."""

from __future__ import annotations

import pickle
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from sae.architectures import by_architecture
from sae.member import Member
from sae.metric_names import REPORTED
from sae.pack import Pack, UnknownMember
from sae.step_backend import MemberStepFailed, is_out_of_memory
from tests.sae.synthetic_source import SyntheticSource, small_config

BATCH = 64
TOTAL = 100 * BATCH


@pytest.fixture
def source() -> SyntheticSource:
    return SyntheticSource(("low", "high"))


@pytest.fixture
def pack(source: SyntheticSource) -> Pack:
    return Pack(source)


def attach(pack: Pack, name: str, steps: int = 0, **parameters: Any) -> None:
    config = small_config(**{"architecture": "topk", "hook": "low", **parameters})
    pack.attach(name, config, TOTAL)
    pack.set_target(name, steps * BATCH)


def run(pack: Pack) -> int:
    steps = 0
    while pack.run_step():
        steps += 1
    return steps


def weights(pack: Pack, name: str) -> torch.Tensor:
    W_dec_FD: torch.Tensor = pack._slots[name].member.sae.W_dec.detach().clone()
    return W_dec_FD


def test_nobody_due_means_no_step_and_no_batch(pack: Pack, source: SyntheticSource) -> None:
    attach(pack, "a", steps=0)
    assert not pack.run_step()
    assert source.positions_drawn == []
    assert pack.position == 0


def test_each_member_stops_at_its_own_target_on_one_pass_over_the_stream(
    pack: Pack, source: SyntheticSource
) -> None:
    for steps, name in enumerate(by_architecture, start=2):
        attach(pack, name, steps=steps, architecture=name, hook=("low", "high")[steps % 2])
    assert run(pack) == 7
    assert [pack.tokens(name) // BATCH for name in pack.members] == [2, 3, 4, 5, 6, 7]
    assert source.positions_drawn == list(range(7))


def test_a_member_in_company_equals_a_member_alone(source: SyntheticSource) -> None:
    crowd, alone = Pack(source), Pack(source)
    for name in ("a", "b", "c"):
        attach(crowd, name, steps=10, init_seed=ord(name))
    attach(alone, "b", steps=10, init_seed=ord("b"))
    run(crowd)
    run(alone)
    assert torch.equal(weights(crowd, "b"), weights(alone, "b"))


def test_a_report_has_every_promised_number_and_they_are_plausible(pack: Pack) -> None:
    attach(pack, "a", steps=100)
    run(pack)
    report = pack.report("a")
    assert set(report) == set(REPORTED)
    assert report["l0"] == pytest.approx(4, abs=0.01)
    assert report["fvu"] == pytest.approx(1 - report["explained_variance"])
    assert report["loss_max"] >= report["loss"] > 0


def test_a_late_member_starts_where_the_pack_is(pack: Pack) -> None:
    attach(pack, "early", steps=5)
    run(pack)
    attach(pack, "late", steps=3)
    run(pack)
    assert pack._slots["late"].member.segments == [(5, 8)]


def test_a_resumed_member_goes_on_at_its_next_batch(
    pack: Pack, source: SyntheticSource, tmp_path: Path
) -> None:
    attach(pack, "a", steps=6)
    run(pack)
    assert pack.save("a", tmp_path) == 6 * BATCH
    pack.set_target("a", 10 * BATCH)
    run(pack)
    elsewhere = Pack(source)
    assert elsewhere.attach("a", small_config("topk", hook="low"), TOTAL, tmp_path) == 6 * BATCH
    assert elsewhere.position == 6
    elsewhere.set_target("a", 10 * BATCH)
    run(elsewhere)
    assert torch.equal(weights(pack, "a"), weights(elsewhere, "a"))


def test_a_resumed_member_is_not_fed_twice_by_a_pack_that_is_behind(
    pack: Pack, source: SyntheticSource, tmp_path: Path
) -> None:
    attach(pack, "a", steps=6)
    run(pack)
    pack.save("a", tmp_path)
    behind = Pack(source)
    attach(behind, "b", steps=2)
    run(behind)
    behind.attach("a", small_config("topk", hook="low"), TOTAL, tmp_path)
    assert behind.position == 6
    behind.set_target("b", 3 * BATCH)
    run(behind)
    assert behind._slots["b"].member.segments == [(0, 2), (6, 7)]


def test_language_model_time_is_shared_among_those_due(pack: Pack) -> None:
    attach(pack, "a", steps=4)
    attach(pack, "b", steps=2)
    run(pack)
    own = {name: pack._slots[name].member.step_seconds for name in pack.members}
    assert pack.busy_seconds("a") - own["a"] == pytest.approx(2 * 0.125 + 2 * 0.25)
    assert pack.busy_seconds("b") - own["b"] == pytest.approx(2 * 0.125)


def fail_at_third_step(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    step = Member.step

    def failing(self: Member, batch_BD: torch.Tensor, position: int) -> None:
        if self.config.init_seed == 13 and position == 2:
            raise error
        step(self, batch_BD, position)

    monkeypatch.setattr(Member, "step", failing)


def test_a_step_that_raises_parks_its_member_and_leaves_the_others_alone(
    pack: Pack, source: SyntheticSource, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    short_of_memory: Any = torch.OutOfMemoryError
    fail_at_third_step(monkeypatch, short_of_memory("CUDA out of memory"))
    attach(pack, "good", steps=5)
    attach(pack, "bad", steps=5, init_seed=13)
    assert run(pack) == 5
    with pytest.raises(MemberStepFailed, match="member bad failed in a step: OutOfMemory") as found:
        pack.report("bad")
    assert is_out_of_memory(found.value)
    with pytest.raises(MemberStepFailed):
        pack.tokens("bad")
    with pytest.raises(MemberStepFailed):
        pack.save("bad", tmp_path)
    assert pack.busy_seconds("bad") > 0
    alone = Pack(source)
    attach(alone, "good", steps=5)
    run(alone)
    assert torch.equal(weights(alone, "good"), weights(pack, "good"))
    pack.detach("bad")
    assert pack.members == ("good",)


def test_other_failures_are_not_taken_for_a_lack_of_memory(
    pack: Pack, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_at_third_step(monkeypatch, RuntimeError("mat1 and mat2 shapes\ncannot be multiplied"))
    attach(pack, "bad", steps=5, init_seed=13)
    run(pack)
    with pytest.raises(MemberStepFailed, match="RuntimeError: mat1 and mat2 shapes$") as found:
        pack.set_target("bad", 9 * BATCH)
    assert not is_out_of_memory(found.value)
    assert is_out_of_memory(
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")
    )


def test_errors_survive_pickling() -> None:
    failed = pickle.loads(pickle.dumps(MemberStepFailed("a", "MemoryError: ", True)))
    assert failed.out_of_memory
    assert str(failed) == "member a failed in a step: MemoryError: "
    unknown = pickle.loads(pickle.dumps(UnknownMember("b", ("a",))))
    assert str(unknown) == "member 'b' is not attached to this pack; attached: a"


def test_wrong_calls_are_refused_with_the_way_out(pack: Pack) -> None:
    with pytest.raises(UnknownMember, match="attached: nobody"):
        pack.tokens("a")
    attach(pack, "a")
    with pytest.raises(ValueError, match="attached already"):
        attach(pack, "a")
    with pytest.raises(ValueError, match="exceeds total_tokens=6400 of member 'a'"):
        pack.set_target("a", TOTAL + 1)
    with pytest.raises(ValueError, match="its hooks are low, high"):
        attach(pack, "b", hook="middle")
    with pytest.raises(UnknownMember):
        pack.detach("b")


def test_a_total_that_is_no_whole_number_of_batches_ends_in_a_whole_batch(pack: Pack) -> None:
    pack.attach("a", small_config("topk", hook="low"), 10 * BATCH + 1)
    pack.set_target("a", 10 * BATCH + 1)
    assert run(pack) == 11


def test_members_come_report_and_go_while_another_thread_steps(pack: Pack, tmp_path: Path) -> None:
    attach(pack, "steady", steps=100)
    stop = threading.Event()

    def keep_stepping() -> None:
        while not stop.is_set():
            pack.run_step()

    stepping = threading.Thread(target=keep_stepping)
    stepping.start()
    try:
        for number in range(20):
            name = f"m{number}"
            attach(pack, name, steps=3)
            pack.report("steady")
            pack.save(name, tmp_path / name)
            pack.detach(name)
    finally:
        stop.set()
        stepping.join()
    assert pack.members == ("steady",)
    run(pack)
    assert pack.tokens("steady") == TOTAL


def test_members_that_end_together_are_exported_one_at_a_time(
    pack: Pack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else sixteen that end together would have their weights in memory twice more at once."""
    at_work, seen, may_go_on = [0], [], threading.Event()

    def slow(*_: Any, **__: Any) -> None:
        at_work[0] += 1
        seen.append(at_work[0])
        may_go_on.wait(30)
        at_work[0] -= 1

    monkeypatch.setattr("sae.pack.finish_member", slow)
    for name in "xy":
        pack.attach(name, small_config("topk", hook="low"), 640)
    finishing = [
        threading.Thread(target=pack.finish, args=(name, tmp_path / name)) for name in "xy"
    ]
    for thread in finishing:
        thread.start()
    while not (seen and all(slot.finishing for slot in pack._slots.values())):
        finishing[0].join(0.01)
    finishing[0].join(0.05)
    may_go_on.set()
    for thread in finishing:
        thread.join(30)
    assert seen == [1, 1]
