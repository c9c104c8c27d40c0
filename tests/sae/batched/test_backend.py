"""Members of a batched pack join, leave, fail and diverge without touching one another."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from sae.architectures import ArchitectureConfig, by_architecture
from sae.batched.backend import (
    BatchedBackend,
    BatchedStepper,
    default_backend,
    family_of,
    stepper_named,
)
from sae.batched.training import train
from sae.export import member_record
from sae.member import REFERENCE_STEPPER, Member
from sae.member_state import load_member, save_member
from sae.pack import Pack
from sae.replay import BadRecord, train_from_record
from sae.step_backend import MemberStepFailed, ReferenceBackend, is_out_of_memory
from tests.sae.synthetic_source import SyntheticSource, scheduled_config, small_config

SOURCE = SyntheticSource()
BATCH = SOURCE.batch_tokens
TOTAL = 60 * BATCH
CPU = torch.device("cpu")
ARCHITECTURES = sorted(by_architecture)


@pytest.fixture(params=["cpp", "torch"], autouse=True)
def kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    name: str = request.param
    if name == "torch":
        monkeypatch.setenv("SAEQ_KERNELS", name)
    elif BatchedStepper(CPU).name != "batched/cpp":
        pytest.skip("no compiler here")
    return name


def fresh(config: ArchitectureConfig) -> Member:
    return Member.from_source(config, SOURCE, TOTAL)


def steps(backend: BatchedBackend, members: dict[str, Member], first: int, end: int) -> None:
    for position in range(first, end):
        failures = backend.step(members, SOURCE.batch_at(position)["layer"], position)
        assert not failures


def weights(member: Member) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in member.sae.state_dict().items()}


def assert_equal(one: Member, other: Member) -> None:
    for name, value in weights(one).items():
        assert torch.equal(value, weights(other)[name]), name


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_member_among_comers_and_goers_equals_a_member_alone(architecture: str) -> None:
    crowd = {
        name: fresh(scheduled_config(architecture, init_seed=seed, lr=1e-3 * (1 + seed)))
        for seed, name in enumerate("abc")
    }
    backend = BatchedBackend()
    steps(backend, {name: crowd[name] for name in "ab"}, 0, 8)
    steps(backend, {name: crowd[name] for name in "cba"}, 8, 16)
    steps(backend, {name: crowd[name] for name in "bc"}, 16, 24)
    alone = fresh(scheduled_config(architecture, init_seed=1, lr=2e-3))
    steps(BatchedBackend(), {"alone": alone}, 0, 24)
    assert_equal(crowd["b"], alone)
    assert alone.steppers == [BatchedStepper(CPU).name]


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_an_interrupted_member_goes_on_bit_for_bit(
    architecture: str, autocast: bool, tmp_path: Path
) -> None:
    config = scheduled_config(architecture, autocast=autocast)
    whole, half = fresh(config), fresh(config)
    steps(BatchedBackend(), {"whole": whole}, 0, 30)
    steps(BatchedBackend(), {"half": half}, 0, 13)
    save_member(half, tmp_path)
    resumed = fresh(config)
    load_member(resumed, tmp_path)
    steps(BatchedBackend(), {"resumed": resumed}, 13, 30)
    assert_equal(whole, resumed)
    assert resumed.losses.report() == whole.losses.report()
    assert resumed.steppers == whole.steppers


def test_a_member_that_diverged_says_so_and_touches_nobody() -> None:
    sick, well = fresh(small_config("topk")), fresh(small_config("topk", init_seed=5))
    alone = fresh(small_config("topk", init_seed=5))
    sick.sae.W_enc.data[3, 3] = torch.nan
    steps(BatchedBackend(), {"sick": sick, "well": well}, 0, 5)
    steps(BatchedBackend(), {"alone": alone}, 0, 5)
    loss = sick.losses.report()["loss"]
    assert loss != loss
    assert_equal(well, alone)


def test_a_member_short_of_memory_fails_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    members = {name: fresh(small_config("topk", init_seed=ord(name))) for name in "ab"}

    def short(member: Member, *arguments: Any) -> torch.Tensor:
        if member is members["a"]:
            raise MemoryError("no room")
        return train(member, *arguments)

    monkeypatch.setattr("sae.batched.backend.train", short)
    failures = BatchedBackend().step(members, SOURCE.batch_at(0)["layer"], 0)
    assert list(failures) == ["a"]
    assert isinstance(failures["a"], MemberStepFailed)
    assert is_out_of_memory(failures["a"])
    assert [members[name].steps for name in "ab"] == [0, 1]


@pytest.mark.parametrize(
    "config",
    [
        small_config("standard", dtype="bfloat16"),
        small_config("standard", lp_norm=0.5),
    ],
)
def test_what_is_not_known_by_heart_is_left_to_sae_lens(config: ArchitectureConfig) -> None:
    assert family_of(config) is None
    member = fresh(config)
    steps(BatchedBackend(), {"m": member}, 0, 2)
    assert member.steppers == ["reference"]


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_is_known(architecture: str, autocast: bool) -> None:
    assert family_of(small_config(architecture, autocast=autocast)) is not None


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_members_with_autocast_and_without_share_buffers_and_nothing_else(
    architecture: str,
) -> None:
    backend, members = BatchedBackend(), {}
    for name, autocast in (("wide", False), ("narrow", True)):
        members[name] = fresh(scheduled_config(architecture, autocast=autocast))
    steps(backend, members, 0, 12)
    for name, member in members.items():
        alone = fresh(member.config)
        steps(BatchedBackend(), {name: alone}, 0, 12)
        assert_equal(alone, member)
    assert not torch.equal(members["wide"].sae.W_enc, members["narrow"].sae.W_enc)


def test_the_backend_is_chosen_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SAEQ_BACKEND", raising=False)
    assert isinstance(default_backend(CPU), BatchedBackend)
    assert isinstance(default_backend(torch.device("mps")), ReferenceBackend)
    monkeypatch.setattr("sae.batched.backend.BatchedBackend", str)
    assert str(default_backend(torch.device("cuda"))) == "cuda"
    monkeypatch.setenv("SAEQ_BACKEND", "reference")
    assert isinstance(default_backend(CPU), ReferenceBackend)
    monkeypatch.setenv("SAEQ_BACKEND", "fast")
    with pytest.raises(ValueError, match="SAEQ_BACKEND='fast' is unknown; set it to batched or"):
        default_backend(CPU)


def packed_record(
    source: SyntheticSource, config: ArchitectureConfig | None = None
) -> tuple[Member, dict[str, Any]]:
    pack = Pack(source)
    pack.attach("m", config or scheduled_config("topk"), TOTAL)
    pack.set_target("m", 10 * BATCH)
    while pack.run_step():
        pass
    member = pack._slots["m"].member
    return member, json.loads(json.dumps(member_record(member, source)))


@pytest.mark.parametrize("autocast", [False, True])
def test_a_record_says_who_stepped_and_is_replayed_by_the_same(
    autocast: bool,
    kernels: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    member, record = packed_record(SOURCE, scheduled_config("topk", autocast=autocast))
    assert record["backend"] == f"batched/{kernels}"
    assert record["kernels"] == BatchedStepper(CPU).identity
    monkeypatch.setenv("SAEQ_KERNELS", "torch")
    again = train_from_record(record, SOURCE)
    assert_equal(again, member)
    assert not caplog.messages
    train_from_record({**record, "kernels": "other"}, SOURCE)
    assert "may differ in the last bits" in caplog.text
    with pytest.raises(BadRecord, match="it was stepped by batched/lisp.*known are reference,"):
        train_from_record({**record, "backend": "batched/lisp"}, SOURCE)


def test_a_record_from_before_there_was_a_choice_is_replayed_by_sae_lens() -> None:
    _, record = packed_record(SOURCE)
    old = {name: value for name, value in record.items() if name not in ("backend", "kernels")}
    assert train_from_record(old, SOURCE).steppers == ["reference"]
    assert stepper_named("reference", CPU) is REFERENCE_STEPPER
