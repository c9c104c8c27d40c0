"""Members of every optimizer that is not torch's own: from a checkpoint on, and from a record."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from sae.member import Member
from sae.member_state import BadCheckpoint, load_member, save_member
from sae.replay import train_from_record
from tests.sae.batched.test_backend import packed_record
from tests.sae.optimizers.trainings import BACKENDS, fresh, state_of, trained
from tests.sae.synthetic_source import SyntheticSource, scheduled_config

OPTIMIZERS: dict[str, dict[str, Any]] = {
    "signum": {"signum_beta": 0.8, "lr": 1e-3},
    "muon": {"muon_momentum": 0.8, "adam_beta2": 0.95, "lr": 1e-3},
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_member_goes_on_from_a_checkpoint_bit_for_bit(
    optimizer: str, backend: str, tmp_path: Path
) -> None:
    source = SyntheticSource()
    config = scheduled_config("topk", optimizer=optimizer, **OPTIMIZERS[optimizer])
    whole = trained(fresh(config, source), source, backend, first=0, end=30)
    save_member(trained(fresh(config, source), source, backend, first=0, end=13), tmp_path)
    resumed = fresh(config, source)
    load_member(resumed, tmp_path)
    again = trained(resumed, source, backend, first=13, end=30)
    one, other = state_of(again.trainer), state_of(whole.trainer)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    with pytest.raises(BadCheckpoint, match=f"optimizer='{optimizer}' there, 'adam' here"):
        load_member(Member.from_source(scheduled_config("topk"), source, 3840), tmp_path)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_record_is_replayed(optimizer: str) -> None:
    source = SyntheticSource()
    config = scheduled_config("batchtopk", optimizer=optimizer, **OPTIMIZERS[optimizer])
    member, record = packed_record(source, config)
    again = train_from_record(record, SyntheticSource())
    for name, value in again.sae.state_dict().items():
        assert torch.equal(value, member.sae.state_dict()[name]), name
