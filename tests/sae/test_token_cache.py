"""Token ids come from the disk or from the tokenizer, and are the same."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from sae.packed_text import PackedText
from sae.packing import Packing, Tokens
from sae.pieces import Piece, cut_documents
from sae.stream import ActivationStream
from sae.stream_errors import BadData
from sae.stream_tokenizer import StreamTokenizer
from sae.token_cache import TOKENIZE_PIECES, TokenCache, TokenizedText
from tests.sae.tiny_stream import HOOKS, Place

PACKING = Packing(16, 0, 1, (0, 1))


class Counting:
    """A tokenizer that counts its calls: each number is a token."""

    def __init__(self) -> None:
        self.num_pieces = 0
        self.threads: set[str] = set()

    def __call__(self, texts: Sequence[str]) -> list[list[int]]:
        self.num_pieces += len(texts)
        self.threads.add(threading.current_thread().name)
        return [[10 + int(word) for word in text.split()] for text in texts]


def pieces(num_tokens: int = 400_000) -> Iterator[Piece]:
    starts = range(0, num_tokens, 900)
    return cut_documents([" ".join(map(str, range(n, n + 900)))] for n in starts)


def text_of(
    tokenize: Counting, cache: TokenCache | None = None, ahead_tokens: int = 0
) -> PackedText:
    return PackedText(
        pieces(),
        tokenize,
        PACKING,
        held_out_tokens=500,
        batch_tokens=64,
        ahead_tokens=ahead_tokens,
        cache=cache,
    )


def windows_of(text: PackedText) -> list[Tokens]:
    while text.num_kept is None:
        text.place(text._kept_before[-1])
    return [text.window(number) for number in range(len(text._kept_before) - 1)]


def test_a_second_start_tokenizes_nothing_and_reads_no_text(tmp_path: Path) -> None:
    plain = windows_of(text_of(Counting()))
    assert len(plain) == 2
    for expected in (True, False):
        tokenize = Counting()
        windows = windows_of(text_of(tokenize, TokenCache(tmp_path, {"text": "numbers"})))
        assert bool(tokenize.num_pieces) == expected
        for window_CT, plain_CT in zip(windows, plain, strict=True):
            assert np.array_equal(window_CT, plain_CT)

    def unread() -> Iterator[Piece]:
        raise AssertionError("the text is read")
        yield

    text = TokenizedText(unread(), Counting(), TokenCache(tmp_path, {"text": "numbers"}))
    assert len(text.next_batch()) == TOKENIZE_PIECES


def test_other_texts_and_tokenizers_do_not_share(tmp_path: Path) -> None:
    text_of(Counting(), TokenCache(tmp_path, {"text": "numbers"}))
    tokenize = Counting()
    text_of(tokenize, TokenCache(tmp_path, {"text": "other"}))
    assert tokenize.num_pieces > 0


def test_what_is_damaged_or_missing_is_tokenized_again_and_only_that(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plain = windows_of(text_of(Counting(), TokenCache(tmp_path, {})))
    files = sorted(tmp_path.rglob("*.safetensors"))
    files[1].write_bytes(files[1].read_bytes()[:-9])
    files[3].unlink()
    tokenize = Counting()
    with caplog.at_level(logging.WARNING):
        windows = windows_of(text_of(tokenize, TokenCache(tmp_path, {})))
    assert tokenize.num_pieces == 2 * TOKENIZE_PIECES
    assert caplog.text.count("is damaged") == 1
    assert all(np.array_equal(a, b) for a, b in zip(windows, plain, strict=True))
    again = Counting()
    text_of(again, TokenCache(tmp_path, {}))
    assert again.num_pieces == 0


def test_a_short_text_is_not_kept(tmp_path: Path) -> None:
    text = TokenizedText(cut_documents([["1 2 3"]]), Counting(), TokenCache(tmp_path, {}))
    assert len(text.next_batch()) == 1
    assert not list(tmp_path.rglob("*.safetensors"))


def test_reading_ahead_happens_elsewhere_and_changes_nothing() -> None:
    plain, tokenize = windows_of(text_of(Counting())), Counting()
    text = text_of(tokenize, ahead_tokens=300_000)
    assert tokenize.threads == {"MainThread"}
    before = tokenize.num_pieces
    text.place(0)
    assert text._reading is not None
    text._reading.result(timeout=120)
    assert tokenize.num_pieces > before
    assert any(name.startswith("tokenizer") for name in tokenize.threads)
    assert text.num_kept is not None
    assert all(np.array_equal(a, b) for a, b in zip(windows_of(text), plain, strict=True))


def test_a_fault_further_on_is_told_when_it_is_come_to_and_then_each_time() -> None:
    def broken() -> Iterator[Piece]:
        for piece in pieces(2_000_000):
            if piece.index == 5 * TOKENIZE_PIECES:
                raise BadData("line 7 is not text")
            yield piece

    text = PackedText(
        broken(), Counting(), PACKING, held_out_tokens=500, batch_tokens=64, ahead_tokens=10**6
    )
    assert text.place(0) == (0, 0, 0)
    for _ in range(3):
        with pytest.raises(BadData, match="line 7"):
            text.place(10**6)
    assert text.place(5) == (0, 0, 5)


def test_a_stream_starts_again_without_its_tokenizer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAEQ_CACHE", str(tmp_path / "cache"))
    place = Place.make(tmp_path, 600_000)
    first = ActivationStream(place.spec()).batch_at(3)
    assert list((tmp_path / "cache" / "tokens").rglob("*.safetensors"))

    def refuse(*_: object) -> None:
        raise AssertionError("the tokenizer is asked")

    monkeypatch.setattr(StreamTokenizer, "__call__", refuse)
    again = ActivationStream(place.spec()).batch_at(3)
    assert all(torch.equal(first[hook], again[hook]) for hook in HOOKS)
