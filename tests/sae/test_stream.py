"""A batch is a function of seed and position, and of nothing else."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from sae.activation_source import ActivationSource
from sae.packed_text import PackedText
from sae.packing import ContextBank, Packer, Packing
from sae.pieces import cut_documents
from sae.stream import ActivationStream
from sae.stream_errors import BadData
from sae.stream_spec import DataSpec, ModelSpec, StreamSpec
from sae.token_order import TokenOrder
from tests.sae.tiny_model import D_MODEL, build_tiny_model, write_text

HOOK = "blocks.1.hook_resid_post"


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("tiny") / "llama")


@pytest.fixture(scope="module")
def text_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_text(tmp_path_factory.mktemp("text") / "text.txt", 20_000)


def spec_of(model_folder: Path, text_file: Path, /, **changes: Any) -> StreamSpec:
    given_: dict[str, Any] = {
        "model": ModelSpec(name=str(model_folder)),
        "data": DataSpec(files=str(text_file), context=32),
        "hooks": (HOOK, "mlp_out.0"),
        "batch_tokens": 64,
        "buffer_tokens": 512,
        "held_out_tokens": 200,
        "lm_batch_contexts": 4,
        "device": "cpu",
    }
    return StreamSpec(**(given_ | changes))


@pytest.fixture(scope="module")
def spec(model_folder: Path, text_file: Path) -> StreamSpec:
    return spec_of(model_folder, text_file)


@pytest.fixture(scope="module")
def stream(spec: StreamSpec) -> ActivationStream:
    return ActivationStream(spec)


def rows_of(*batches: torch.Tensor) -> set[bytes]:
    return {row.numpy().tobytes() for batch in batches for row in batch}


def test_a_batch_has_fp32_activations_of_each_hook(stream: ActivationStream) -> None:
    batch = stream.batch_at(0)
    assert list(batch) == [HOOK, "mlp_out.0"]
    for acts_BD in batch.values():
        assert acts_BD.shape == (64, D_MODEL)
        assert acts_BD.dtype == torch.float32
    weight = torch.zeros(D_MODEL, requires_grad=True)
    (batch[HOOK] @ weight).sum().backward()  # type: ignore[no-untyped-call]


def test_a_stream_is_what_packs_and_evaluation_take(stream: ActivationStream) -> None:
    source: ActivationSource = stream
    assert source.batch_tokens == 64
    assert source.d_in(HOOK) == D_MODEL
    assert list(source.hooks) == [HOOK, "mlp_out.0"]


@pytest.mark.parametrize("position", [0, 7, 8, 163, 400])
def test_a_batch_does_not_depend_on_what_was_asked_before(
    position: int, stream: ActivationStream, spec: StreamSpec
) -> None:
    stream.batch_at(position + 30)
    stream.batch_at(3)
    used, fresh = stream.batch_at(position), ActivationStream(spec).batch_at(position)
    for hook in spec.hooks:
        assert torch.equal(used[hook], fresh[hook])


def test_hooks_see_the_same_tokens_in_the_same_order(
    model_folder: Path, text_file: Path, stream: ActivationStream
) -> None:
    alone = ActivationStream(spec_of(model_folder, text_file, hooks=("mlp_out.0",)))
    torch.testing.assert_close(alone.batch_at(9)["mlp_out.0"], stream.batch_at(9)["mlp_out.0"])


def test_a_batch_may_be_written_to(stream: ActivationStream) -> None:
    before = stream.batch_at(2)[HOOK]
    stream.batch_at(2)[HOOK].zero_()
    assert torch.equal(stream.batch_at(2)[HOOK], before)


def numbers(texts: Sequence[str]) -> list[list[int]]:
    """Tokenize a text of numbers: each is a token of its own."""
    return [[10 + int(word) for word in text.split()] for text in texts]


def numbered_text(num_documents: int, document_tokens: int) -> PackedText:
    starts = range(0, num_documents * document_tokens, document_tokens)
    documents = [[" ".join(map(str, range(n, n + document_tokens)))] for n in starts]
    packing = Packing(16, 0, 1, (0, 1))
    pieces = cut_documents(documents)
    return PackedText(pieces, numbers, packing, held_out_tokens=500, batch_tokens=64)


@pytest.mark.parametrize("document_tokens", [7, 100, 5000])
def test_every_token_comes_once_an_epoch_and_no_held_out_one_ever(document_tokens: int) -> None:
    text = numbered_text(400_000 // document_tokens, document_tokens)
    order = TokenOrder(text, seed=3, block_tokens=700)
    seen: list[int] = []
    while order.epoch_at(len(seen) + 699) == 0:
        block = order.block(len(seen) // 700)
        assert sorted(block.slot_S.tolist()) == list(range(700))
        seen += block.tokens_CT.flatten()[block.flat_index_S].tolist()
    assert text.num_kept is not None
    assert 0 <= text.num_kept - len(seen) < 700
    assert len(set(seen)) == len(seen)
    # Tokens at a context's first place are BOS here, and separators count nowhere.
    held_out = set(text.held_out_CT.flatten().tolist()) - {0, 1}
    assert len(held_out) >= 500
    assert not held_out & set(seen)
    lost = 400_000 // document_tokens * document_tokens - len(held_out) - text.num_kept
    assert 0 <= lost <= 32


def test_the_epoch_is_known_at_any_position(stream: ActivationStream) -> None:
    num_kept = stream._text.num_kept
    assert num_kept is not None
    whole = num_kept // 64
    assert [stream.epoch_at(position) for position in (0, whole - 1, whole + 1)] == [0, 0, 1]
    assert stream.epoch_at(5 * num_kept // 64 + 1) == 5


def test_blocks_that_span_windows_and_epochs_are_whole() -> None:
    text = numbered_text(60, 100)
    order = TokenOrder(text, seed=0, block_tokens=16_000)
    block = order.block(3)
    tokens = block.tokens_CT.flatten()[block.flat_index_S]
    assert len(tokens) == 16_000
    assert text.num_kept is not None
    most = max(np.unique_counts(tokens).counts)
    assert most <= -(-16_000 // text.num_kept) + 1


def test_epochs_and_seeds_have_orders_of_their_own(
    model_folder: Path, text_file: Path, stream: ActivationStream
) -> None:
    num_kept = stream._text.num_kept
    assert num_kept is not None
    later = stream.batch_at(num_kept // 64 + 1)[HOOK]
    assert not torch.equal(later, stream.batch_at(0)[HOOK])
    other = ActivationStream(spec_of(model_folder, text_file, seed=1))
    assert not torch.equal(other.batch_at(0)[HOOK], stream.batch_at(0)[HOOK])


def test_batches_are_the_activations_of_kept_tokens(stream: ActivationStream) -> None:
    text = stream._text
    model, special = stream.language_model, set(stream.language_model.special_token_ids)
    expected: set[bytes] = set()
    for context_T in torch.from_numpy(text.window(0)).long():
        acts_TD = model.activations(context_T[None], [HOOK])[HOOK][0]
        keep = [n for n, token in enumerate(context_T.tolist()) if n and token not in special]
        expected |= rows_of(acts_TD[keep])
    assert int(text.window(0)[0, 0]) == model.bos_token_id
    nearest = torch.stack(
        [torch.frombuffer(bytearray(row), dtype=torch.float32) for row in expected]
    )
    distance = torch.cdist(stream.batch_at(5)[HOOK], nearest).min(dim=1).values
    assert distance.max() < 1e-3


def test_held_out_tokens_are_apart_and_the_same_for_every_seed(
    model_folder: Path, text_file: Path, stream: ActivationStream
) -> None:
    held_out = stream.held_out
    assert held_out.num_tokens >= 200
    assert held_out.tokens_CT.shape == held_out.kept_CT.shape
    assert not held_out.kept_CT[:, 0].any()
    acts_ND = held_out.activations(HOOK)
    assert acts_ND.shape == (held_out.num_tokens, D_MODEL)
    assert acts_ND.dtype == torch.float32
    again = stream.language_model.activations(held_out.tokens_CT, [HOOK])[HOOK]
    torch.testing.assert_close(acts_ND, again[held_out.kept_CT])
    other = ActivationStream(spec_of(model_folder, text_file, seed=5, batch_tokens=32))
    assert other.held_out.fingerprint == held_out.fingerprint
    trained = {tuple(context) for context in stream._text.window(0).tolist()}
    assert not trained & {tuple(context) for context in held_out.tokens_CT.tolist()}
    with pytest.raises(ValueError, match="is not in this stream"):
        held_out.activations("resid_post.0")


def test_scale_and_mean_are_those_of_the_first_block(spec: StreamSpec) -> None:
    stream = ActivationStream(spec)
    stream.batch_at(20)
    scale, mean_D = stream.scale(HOOK), stream.mean(HOOK)
    block_SD = torch.cat([stream.batch_at(position)[HOOK] for position in range(8)])
    assert scale == pytest.approx(D_MODEL**0.5 / block_SD.norm(dim=1).mean().item(), rel=1e-5)
    torch.testing.assert_close(mean_D, block_SD.mean(0))
    first = ActivationStream(spec)
    assert first.scale(HOOK) == scale
    assert torch.equal(first.mean(HOOK), mean_D)


def test_forward_passes_are_counted(spec: StreamSpec) -> None:
    stream = ActivationStream(spec)
    assert (stream.lm_tokens, stream.lm_seconds) == (0, 0.0)
    stream.batch_at(0)
    once = stream.lm_tokens
    assert 512 < once < 700
    assert stream.lm_seconds > 0
    stream.batch_at(1)
    assert stream.lm_tokens == once


def test_a_record_says_what_the_content_depends_on(stream: ActivationStream) -> None:
    record = stream.record()
    assert json.loads(json.dumps(record)) == record
    assert record["key"] == stream.spec.key
    assert record["hooks"] == {HOOK: "model.layers.1", "mlp_out.0": "model.layers.0.mlp"}
    assert record["packing"]["each_context_starts_with_bos"] is True
    assert len(record["model"]["weights_sha256"]) == 64


def test_equal_specs_have_equal_keys(spec: StreamSpec, model_folder: Path, text_file: Path) -> None:
    again = StreamSpec.model_validate(json.loads(spec.model_dump_json()))
    assert again == spec
    assert again.key == spec.key
    asked = spec_of(model_folder, text_file, buffer_tokens=16 * 64)
    silent = spec_of(model_folder, text_file, buffer_tokens=None)
    assert asked.key == silent.key != spec.key
    assert spec_of(model_folder, text_file, seed=1).key != spec.key


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"buffer_tokens": 10}, "buffer_tokens=10 is below batch_tokens=64"),
        ({"hooks": ("a", "a")}, "name a more than once"),
        ({"hooks": ()}, "at least 1"),
        ({"batch_token": 3}, "Extra inputs"),
        ({"model": {"name": "a", "builtin": "smollm2-135m"}}, "exactly one of name and builtin"),
        ({"data": {"files": "a", "dataset": "b"}}, "got dataset and files"),
        ({"data": {"files": "a", "split": "test"}}, "split only applies to `dataset:`"),
        ({"data": {"files": "a", "context": 4}}, "greater than or equal to 8"),
    ],
)
def test_specs_that_cannot_be_meant_are_refused(
    changes: dict[str, Any], message: str, model_folder: Path, text_file: Path
) -> None:
    with pytest.raises(ValidationError, match=message):
        spec_of(model_folder, text_file, **changes)


@pytest.mark.parametrize("num_chars", [1, 100, 800])
def test_too_little_text_is_refused_with_numbers(
    num_chars: int, model_folder: Path, tmp_path: Path
) -> None:
    path = write_text(tmp_path / "short.txt", num_chars)
    with pytest.raises(BadData, match=r"too short: \d+ tokens were found.*give more text"):
        ActivationStream(spec_of(model_folder, path, data=DataSpec(files=str(path), context=128)))


def test_a_text_shorter_than_a_block_repeats_with_a_warning(
    model_folder: Path, text_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        stream = ActivationStream(spec_of(model_folder, text_file, buffer_tokens=64 * 500))
    assert "tokens repeat within a block" in caplog.text
    assert stream.batch_at(499)[HOOK].shape == (64, D_MODEL)


def test_a_context_longer_than_the_model_takes_is_refused(
    model_folder: Path, text_file: Path
) -> None:
    data = DataSpec(files=str(text_file), context=512)
    with pytest.raises(BadData, match="context=512 exceeds the 256 tokens"):
        ActivationStream(spec_of(model_folder, text_file, data=data))


def test_a_long_text_is_read_as_far_as_needed(model_folder: Path, tmp_path: Path) -> None:
    path = write_text(tmp_path / "long.txt", 4_000_000)
    stream = ActivationStream(spec_of(model_folder, path))
    assert stream._text.num_kept is None
    assert stream.epoch_at(0) == 0
    before = len(stream._text._kept_before)
    far = 2 * stream._text._kept_before[-1] // 64
    fresh = ActivationStream(spec_of(model_folder, path))
    assert torch.equal(stream.batch_at(far)[HOOK], fresh.batch_at(far)[HOOK])
    assert len(stream._text._kept_before) > before


def test_a_tokenizer_without_bos_fills_whole_contexts(tmp_path: Path, text_file: Path) -> None:
    folder = build_tiny_model(tmp_path / "m", bos=False)
    stream = ActivationStream(spec_of(folder, text_file))
    assert not (stream.held_out.tokens_CT == 0).any()
    assert not stream.held_out.kept_CT[:, 0].any()
    assert stream.record()["packing"]["each_context_starts_with_bos"] is False


@given(
    lengths=st.lists(st.integers(0, 40), max_size=20),
    context=st.integers(8, 16),
    bos=st.sampled_from([None, 0]),
)
def test_packing_keeps_every_token_in_order(
    lengths: list[int], context: int, bos: int | None
) -> None:
    packer = Packer(Packing(context, bos, 1, (0, 1)))
    documents = [[10 + n] * length for n, length in enumerate(lengths)]
    contexts = [row for d in documents for row in packer.add(d, continues=False).tolist()]
    assert all(len(row) == context for row in contexts)
    if bos is not None:
        assert all(row[0] == bos for row in contexts)
        contexts = [row[1:] for row in contexts]
    joined = [token for n, d in enumerate(documents) for token in ([1] if n else []) + d]
    packed = [token for row in contexts for token in row]
    assert packed == joined[: len(packed)]
    assert len(joined) - len(packed) < context


def test_windows_beyond_the_memory_limit_come_back_from_disk() -> None:
    windows = [np.arange(n, n + 12, dtype=np.int32).reshape(3, 4) for n in range(5)]
    bank = ContextBank(memory_limit_bytes=windows[0].nbytes * 2)
    for window_CT in windows:
        bank.append(window_CT)
    for index in (4, 0, 2, 3, 1):
        assert np.array_equal(bank[index], windows[index])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_activations_stay_there_in_bf16(model_folder: Path, text_file: Path) -> None:
    stream = ActivationStream(spec_of(model_folder, text_file, device="auto"))
    assert stream.language_model.dtype == torch.bfloat16
    on_cpu = ActivationStream(spec_of(model_folder, text_file))
    batch_BD, same_BD = stream.batch_at(11)[HOOK], on_cpu.batch_at(11)[HOOK]
    assert batch_BD.device.type == "cuda"
    torch.testing.assert_close(batch_BD.cpu(), same_BD, rtol=0.05, atol=0.05)
    assert stream.held_out.activations(HOOK).device.type == "cuda"
    torch.cuda.synchronize()
    assert stream.lm_seconds > 0
    assert stream.scale(HOOK) == pytest.approx(on_cpu.scale(HOOK), rel=0.02)
