"""Specs of small streams over a tiny model, with a cache folder of their own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from sae.stream import ActivationStream
from sae.stream_spec import DataSpec, ModelSpec, StreamSpec
from tests.sae.tiny_model import build_tiny_model, write_text

HOOKS = ("blocks.1.hook_resid_post", "mlp_out.0")
BATCH = 64
BLOCK_BATCHES = 4


@dataclass(frozen=True)
class Place:
    """A model and a text."""

    model: Path
    text: Path

    @classmethod
    def make(cls, folder: Path, num_chars: int = 20_000) -> Place:
        return cls(build_tiny_model(folder / "m"), write_text(folder / "t.txt", num_chars))

    def spec(self, **changes: Any) -> StreamSpec:
        given: dict[str, Any] = {
            "model": ModelSpec(name=str(self.model)),
            "data": DataSpec(files=str(self.text), context=32),
            "hooks": HOOKS,
            "batch_tokens": BATCH,
            "buffer_tokens": BATCH * BLOCK_BATCHES,
            "held_out_tokens": 200,
            "lm_batch_contexts": 4,
            "device": "cpu",
        }
        return StreamSpec(**(given | changes))


def batches_of(stream: ActivationStream, num_blocks: int) -> list[dict[str, Tensor]]:
    """The first batches, each block written before the next is asked for."""
    batches = []
    for position in range(num_blocks * BLOCK_BATCHES):
        batches.append(stream.batch_at(position))
        if stream.cache is not None:
            stream.cache.flush()
    return batches
