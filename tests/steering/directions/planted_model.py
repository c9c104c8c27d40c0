"""A tiny language model in which some words carry directions that are known."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from sae.language_model import LanguageModel
from sae.stream_spec import ModelSpec
from tests.sae.tiny_model import D_MODEL, Family, build_tiny_model

WORDS = ("river", "mill", "water", "wheel", "grain", "night", "flour", "bread", "village")


def tiny_lm(folder: Path, family: Family = "llama", *, bos: bool = True) -> LanguageModel:
    """A random model, loaded."""
    path = build_tiny_model(folder / f"{family}-{bos}", family, bos=bos)
    return LanguageModel.load(ModelSpec(name=str(path)), "cpu")


def directions(count: int, seed: int = 7) -> Tensor:
    """Orthonormal directions, [count, D]."""
    generator = torch.Generator().manual_seed(seed)
    square = torch.randn(D_MODEL, D_MODEL, generator=generator)
    return torch.linalg.qr(square).Q[:count]


def plant(lm: LanguageModel, direction_by_mark: Mapping[str, Tensor], size: float) -> None:
    """Give single-token marks such as "+" embeddings that are a direction, `size` norms long.

    The norm is the usual one of the model's own embeddings.
    """
    weight = lm.model.get_input_embeddings().weight
    usual = weight.norm(dim=1).median()
    for mark, direction_D in direction_by_mark.items():
        (token,) = lm.tokenizer(mark, add_special_tokens=False)["input_ids"]
        weight.data[token] = size * usual * direction_D


def sentences(mark: str, count: int, seed: int) -> list[str]:
    """Random words that end with a mark."""
    chooser = random.Random(f"{mark} {seed}")
    return [" ".join(chooser.choices(WORDS, k=chooser.randint(3, 9))) + mark for _ in range(count)]


def cosine(one: Tensor, other: Tensor) -> float:
    """Between two vectors."""
    return float(torch.cosine_similarity(one.float(), other.float(), dim=-1))
