"""Blocks read from the disk are what was trained on when they were computed."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import safetensors
import torch
from torch import Tensor

from sae.activation_cache.stored import FLOAT8, Stored
from sae.architectures import parse_architecture
from sae.export import member_record
from sae.pack import Pack
from sae.replay import train_from_record
from sae.stream import ActivationStream
from sae.stream_spec import CacheSpec, DataSpec
from tests.sae.tiny_model import build_tiny_model, write_text
from tests.sae.tiny_stream import BATCH, BLOCK_BATCHES, HOOKS, Place, batches_of

HOOK = HOOKS[0]
PRECISION = {None: 0.0, "float32": 0.0, "bfloat16": 2.0**-8, "float8": 2.0**-4}
"""Largest relative error of a number: half of the last of 8 bits of mantissa, and of 4."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place.make(tmp_path_factory.mktemp("place"))


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SAEQ_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "activations"


def stream_of(place: Place, dtype: Any = None, size: int = 10**8, **more: Any) -> ActivationStream:
    return ActivationStream(place.spec(cache=CacheSpec(bytes=size, dtype=dtype), **more))


def shards(root: Path) -> list[Path]:
    return sorted(root.rglob("*.safetensors"))


def assert_equal(left: list[dict[str, Tensor]], right: list[dict[str, Tensor]]) -> None:
    for one, other in zip(left, right, strict=True):
        assert all(torch.equal(one[hook], other[hook]) for hook in HOOKS)


@pytest.mark.parametrize("dtype", [None, "bfloat16", "float8", "float32"])
def test_a_later_wave_reads_bit_for_bit_what_the_first_was_trained_on(
    dtype: Any, place: Place, root: Path
) -> None:
    first, plain = stream_of(place, dtype), ActivationStream(place.spec())
    trained_on, exact = batches_of(first, 3), batches_of(plain, 3)
    assert len(shards(root)) == 3
    later = stream_of(place, dtype)
    assert_equal(batches_of(later, 3), trained_on)
    assert first.lm_tokens == plain.lm_tokens > 0
    assert later.lm_tokens == 0
    assert later.scale(HOOK) == first.scale(HOOK)
    assert torch.equal(later.mean(HOOK), first.mean(HOOK))
    for batch, exact_batch in zip(trained_on, exact, strict=True):
        for hook in HOOKS:
            error = (batch[hook] - exact_batch[hook]).norm() / exact_batch[hook].norm()
            assert error <= PRECISION[dtype]


def test_a_cache_in_the_models_own_precision_changes_nothing(place: Place) -> None:
    assert_equal(batches_of(stream_of(place), 2), batches_of(ActivationStream(place.spec()), 2))


def test_the_precision_is_in_the_key_and_in_the_record_the_size_is_not(place: Place) -> None:
    small, large = stream_of(place, "float8", 10**6), stream_of(place, "float8", 10**9)
    assert small.spec.key == large.spec.key
    keys = {stream_of(place, dtype).spec.key for dtype in PRECISION}
    assert len(keys | {place.spec().key}) == 5
    record = json.loads(json.dumps(small.record()))
    assert record["cache"] == {"dtype": "float8_e4m3fn", "scale": "amax of each row / 448"}
    assert ActivationStream(place.spec()).record()["cache"] is None


def test_a_wave_that_begins_later_or_goes_further_computes_only_what_is_missing(
    place: Place,
) -> None:
    whole = batches_of(ActivationStream(place.spec()), 4)
    batches_of(stream_of(place), 2)
    later = stream_of(place)
    assert torch.equal(later.batch_at(BLOCK_BATCHES)[HOOK], whole[BLOCK_BATCHES][HOOK])
    assert later.lm_tokens == 0
    assert torch.equal(later.batch_at(3 * BLOCK_BATCHES)[HOOK], whole[3 * BLOCK_BATCHES][HOOK])
    assert later.lm_tokens > 0


@pytest.mark.parametrize("damage", ["cut short", "bit flipped", "empty", "other bytes"])
def test_a_damaged_block_is_computed_again_with_a_warning(
    damage: str, place: Place, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = batches_of(stream_of(place, "bfloat16"), 2)
    victim = shards(root)[0]
    content = bytearray(victim.read_bytes())
    if damage == "bit flipped":
        content[len(content) // 2] ^= 4
    victim.write_bytes(
        {
            "cut short": bytes(content[:-7]),
            "bit flipped": bytes(content),
            "empty": b"",
            "other bytes": b"\xff" * 500,
        }[damage]
    )
    later = stream_of(place, "bfloat16")
    with caplog.at_level(logging.WARNING):
        assert_equal(batches_of(later, 2), whole)
    assert caplog.text.count("is damaged") == 1
    assert later.lm_tokens > 0
    again = stream_of(place, "bfloat16")
    assert_equal(batches_of(again, 2), whole)
    assert again.lm_tokens == 0


def test_a_text_or_model_that_changed_under_its_name_is_not_answered_from_the_cache(
    tmp_path: Path,
) -> None:
    place = Place.make(tmp_path)
    old = batches_of(stream_of(place), 1)
    build_tiny_model(place.model, seed=1)
    batches = batches_of(stream_of(place), 1)
    assert_equal(batches, batches_of(ActivationStream(place.spec()), 1))
    assert not torch.equal(batches[0][HOOK], old[0][HOOK])
    text = place.text.read_text()
    place.text.write_text(text[len(text) // 2 :] + text[: len(text) // 2])
    assert_equal(batches_of(stream_of(place), 1), batches_of(ActivationStream(place.spec()), 1))


def test_another_order_of_the_same_text_is_another_block(place: Place) -> None:
    batches_of(stream_of(place), 1)
    other = stream_of(place, seed=1)
    assert_equal(batches_of(other, 1), batches_of(ActivationStream(place.spec(seed=1)), 1))


def test_a_full_cache_keeps_the_start_of_its_stream(place: Place, root: Path) -> None:
    batches_of(stream_of(place), 1)
    room_for_two = int(2.5 * shards(root)[0].stat().st_size)
    first = stream_of(place, size=room_for_two)
    whole = batches_of(first, 5)
    assert [path.name[:12] for path in shards(root)] == ["block-000000", "block-000001"]
    later = stream_of(place, size=room_for_two)
    assert_equal(batches_of(later, 5), whole)
    assert 0 < later.lm_tokens < first.lm_tokens + 1


def test_another_streams_blocks_make_room_least_recently_used_first(
    place: Place, root: Path
) -> None:
    batches_of(stream_of(place), 2)
    old = set(shards(root))
    room_for_three = int(3.5 * shards(root)[0].stat().st_size)
    batches_of(stream_of(place, seed=1, size=room_for_three), 2)
    left = set(shards(root))
    assert len(left) == 3
    assert {path.name[:12] for path in left & old} == {"block-000001"}


@pytest.mark.parametrize("refused", ["os.truncate", "os.replace", "fcntl.flock"])
def test_a_full_disk_switches_the_cache_off_with_one_warning_and_nothing_else(
    refused: str,
    place: Place,
    root: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_space(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    whole = batches_of(stream_of(place, "float8"), 3)
    for path in shards(root):
        path.unlink()
    monkeypatch.setattr(refused, no_space)
    with caplog.at_level(logging.WARNING):
        assert_equal(batches_of(stream_of(place, "float8"), 3), whole)
    warnings = [r for r in caplog.records if "takes nothing in any more" in r.getMessage()]
    assert len(warnings) == 1
    assert "No space left" in warnings[0].getMessage()
    assert not list(root.rglob("*writing*"))


def test_an_sae_is_replayed_bit_for_bit_with_and_without_the_cached_files(
    place: Place, root: Path
) -> None:
    source = stream_of(place, "float8")
    pack = Pack(source)
    config = parse_architecture({"architecture": "topk", "d_sae": 64, "k": 4, "hook": HOOK})
    pack.attach("a", config, 10 * BATCH)
    pack.set_target("a", 10 * BATCH)
    while pack.run_step():
        assert source.cache is not None
        source.cache.flush()
    member = pack._slots["a"].member
    record = json.loads(json.dumps(member_record(member, source)))
    assert record["stream"]["cache"]["dtype"] == "float8_e4m3fn"
    from_disk = stream_of(place, "float8")
    again = [train_from_record(record, from_disk)]
    assert from_disk.lm_tokens == 0
    for path in shards(root):
        path.unlink()
    again.append(train_from_record(record, stream_of(place, "float8")))
    for name, value in member.sae.state_dict().items():
        assert all(torch.equal(value, each.sae.state_dict()[name]) for each in again), name


def test_a_block_is_a_safetensors_file_that_says_where_it_is_from(place: Place, root: Path) -> None:
    batches_of(stream_of(place, "float8"), 1)
    with safetensors.safe_open(shards(root)[0], "pt") as file:
        assert set(file.keys()) == {name for hook in HOOKS for name in (hook, f"{hook}:scale")}
        said = json.loads(file.metadata()["pass"])
        values_SD, scale_S = file.get_tensor(HOOK), file.get_tensor(f"{HOOK}:scale")
    assert said["model"]["name"] == str(place.model)
    assert values_SD.dtype == FLOAT8
    assert values_SD.float().abs().amax(dim=1).min() == 448
    assert scale_S.shape == (BATCH * BLOCK_BATCHES,)


def test_float8_keeps_small_numbers_beside_a_massive_one_and_rows_of_zeros() -> None:
    acts_RD = torch.randn(64, 32, generator=torch.Generator().manual_seed(0))
    acts_RD[:, 3] = 3000.0  # as large as the massive activations of real models
    acts_RD[7] = 0.0
    stored = Stored.empty(64, 32, FLOAT8, torch.device("cpu"))
    order_R = torch.randperm(64, generator=torch.Generator().manual_seed(1))
    stored.put(order_R, acts_RD)
    back_RD = stored.rows(slice(0, 64))[order_R]
    assert torch.equal(back_RD[7], acts_RD[7])
    large = acts_RD.abs() > 0.2
    relative = ((back_RD - acts_RD).abs() / acts_RD.abs())[large]
    assert relative.max() <= 2.0**-4
    assert torch.equal(stored.rows(slice(5, 9)), stored.rows(slice(0, 64))[5:9])


def test_a_stream_over_another_context_length_shares_the_folder_but_no_block(
    tmp_path: Path,
) -> None:
    place = Place.make(tmp_path)
    write_text(tmp_path / "t.txt", 30_000)
    batches_of(stream_of(place), 1)
    data = DataSpec(files=str(place.text), context=16)
    other = stream_of(place, data=data)
    assert_equal(batches_of(other, 1), batches_of(ActivationStream(place.spec(data=data)), 1))
    assert other.lm_tokens > 0
