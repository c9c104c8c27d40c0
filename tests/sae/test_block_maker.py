"""Blocks that are made beside the steps are the same blocks, in the same order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sae.lanes import SideLane, has_room
from sae.stream import ActivationStream
from sae.stream_spec import CacheSpec, ModelSpec
from tests.sae.tiny_stream import BLOCK_BATCHES, HOOKS, Place, batches_of

HOOK = HOOKS[0]


class WatchedLane:
    """A second lane on a device that has one only; keeps account of what is asked of it."""

    def __init__(self) -> None:
        self.is_open = False
        self.num_handed_over = 0

    @contextmanager
    def working(self) -> Iterator[None]:
        self.is_open = True
        try:
            yield
        finally:
            self.is_open = False

    def hand_over(self, tensors: Sequence[Tensor]) -> None:
        assert len(tensors) >= len(HOOKS)
        self.num_handed_over += 1


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place.make(tmp_path_factory.mktemp("place"))


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAEQ_CACHE", str(tmp_path / "cache"))


def test_a_side_lane_changes_no_batch_and_takes_an_even_part_of_the_passes_each_time(
    place: Place,
) -> None:
    spec, lane = place.spec(lm_batch_contexts=1), WatchedLane()
    plain, stream = ActivationStream(spec), ActivationStream(spec, side=lane)
    tokens_before: list[int] = []
    for position in range(3 * BLOCK_BATCHES):
        batch, expected = stream.batch_at(position), plain.batch_at(position)
        assert all(torch.equal(batch[hook], expected[hook]) for hook in HOOKS)
        tokens_before.append(stream.lm_tokens)
    assert lane.num_handed_over == 2  # the first block had to be waited for
    steps = [b - a for a, b in zip(tokens_before, tokens_before[1:], strict=False)]
    assert all(0 < step <= 4 * 32 for step in steps)  # 64 tokens are two contexts and a bit


def test_passes_ahead_run_inside_the_lane(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    lane = WatchedLane()
    stream = ActivationStream(place.spec(), side=lane)
    inside: list[bool] = []
    activations = stream.language_model.activations

    def watched(tokens_CT: Tensor, hooks: Sequence[str]) -> dict[str, Tensor]:
        inside.append(lane.is_open)
        return activations(tokens_CT, hooks)

    monkeypatch.setattr(stream.language_model, "activations", watched)
    stream.batch_at(0)
    num_first = inside.count(False)
    assert num_first >= 3
    stream.batch_at(1)
    stream.batch_at(BLOCK_BATCHES)
    assert inside.count(False) == num_first
    assert inside.count(True) >= num_first


def test_jumping_about_beside_a_half_made_block_gives_the_same_batches(place: Place) -> None:
    stream, plain = (
        ActivationStream(place.spec(), side=WatchedLane()),
        ActivationStream(place.spec()),
    )
    for position in (5, 6, 30, 2, 3, 4, 0):
        assert torch.equal(stream.batch_at(position)[HOOK], plain.batch_at(position)[HOOK])
    assert stream.scale(HOOK) == plain.scale(HOOK)


def test_overlapping_is_off_when_asked_and_on_a_cpu(place: Place) -> None:
    lane = WatchedLane()
    off = ActivationStream(place.spec(overlap=False), side=lane)
    on_cpu = ActivationStream(place.spec())
    assert off.batch_at(1)[HOOK].shape == on_cpu.batch_at(1)[HOOK].shape
    assert off.lm_tokens == on_cpu.lm_tokens
    assert off.spec.key == on_cpu.spec.key


def test_out_of_memory_ahead_ends_the_overlapping_not_the_stream(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    class Full(WatchedLane):
        @contextmanager
        def working(self) -> Iterator[None]:
            raise torch.OutOfMemoryError("no room")
            yield

    stream, plain = ActivationStream(place.spec(), side=Full()), ActivationStream(place.spec())
    for position in range(2 * BLOCK_BATCHES):
        assert torch.equal(stream.batch_at(position)[HOOK], plain.batch_at(position)[HOOK])
    assert caplog.text.count("no memory for a second block") == 1


@pytest.mark.parametrize("dtype", ["float8", None])
def test_a_side_lane_reads_cached_blocks_ahead(dtype: str | None, place: Place) -> None:
    spec = place.spec(cache=CacheSpec.model_validate({"bytes": 10**8, "dtype": dtype}))
    whole = batches_of(ActivationStream(spec), 3)
    stream = ActivationStream(spec, side=WatchedLane())
    for position, expected in enumerate(whole):
        assert torch.equal(stream.batch_at(position)[HOOK], expected[HOOK])
    assert stream.lm_tokens < 700  # only what comes after the third block


def test_a_cpu_is_asked_for_no_room() -> None:
    assert has_room(torch.device("cpu"), 10**18)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("cache", [None, CacheSpec(bytes=10**9, dtype="float8")])
def test_on_a_gpu_the_second_stream_changes_no_batch(cache: CacheSpec | None, place: Place) -> None:
    model = ModelSpec(name=str(place.model), dtype="float32")
    changes = {"device": "cuda", "model": model, "buffer_tokens": 4096}
    plain = ActivationStream(place.spec(**changes, overlap=False, cache=cache))
    stream = ActivationStream(place.spec(**changes, cache=cache))
    assert isinstance(stream._side, SideLane)
    junk = torch.zeros(1, device="cuda")
    for position in range(200):
        batch = stream.batch_at(position)[HOOK]
        # Work that frees and takes memory while the second stream fills its own.
        junk = (batch @ batch.T).relu() @ batch
        assert torch.equal(batch, plain.batch_at(position)[HOOK]), position
        if plain.cache is not None:
            plain.cache.flush()
    assert torch.isfinite(junk).all()
