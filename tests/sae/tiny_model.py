"""Tiny random language models with a real tokenizer, saved as Hugging Face folders: no download."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Literal, get_args

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GPT2Config,
    GPTNeoXConfig,
    PretrainedConfig,
    PreTrainedTokenizerFast,
)

Family = Literal[
    "llama", "gpt2", "gpt_neox", "gemma2", "gemma", "gemma3_text", "mistral", "qwen2", "qwen3"
]
FAMILIES: tuple[Family, ...] = ("llama", "gpt2", "gpt_neox", "gemma2")
"""One of each layout."""
ALL_FAMILIES: tuple[Family, ...] = get_args(Family)

D_MODEL = 32
NUM_LAYERS = 3
VOCAB_SIZE = 300

TEXT = (
    "The river ran past the old mill, and the children of the village watched the water turn "
    "the wheel. A measure of grain was weighed in the morning; by night the flour was sold. "
    "Nobody knew why the miller sang, but everyone agreed that the bread was better for it. "
)

BLOCK_LIST: dict[Family, str] = {
    "llama": "model.layers",
    "gpt2": "transformer.h",
    "gpt_neox": "gpt_neox.layers",
    "gemma2": "model.layers",
    "gemma": "model.layers",
    "gemma3_text": "model.layers",
    "mistral": "model.layers",
    "qwen2": "model.layers",
    "qwen3": "model.layers",
}
"""Module path of the list of blocks, by family: a hook on block 1 is `f"{BLOCK_LIST[f]}.1"`."""


def build_tiny_model(
    folder: Path, family: Family = "llama", *, seed: int = 0, bos: bool = True
) -> Path:
    """Save a random model (d_model 32, 3 layers, 300 tokens) and its tokenizer into `folder`.

    Args:
        folder: made if it is not there; returned, to be used as the model's name.
        family: `model_type` of its configuration.
        seed: of the weights.
        bos: whether the tokenizer has a beginning-of-sequence token.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _tokenizer(bos).save_pretrained(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(_config(family))
    model.float().save_pretrained(folder)
    return folder


def write_text(path: Path, num_chars: int = 40_000) -> Path:
    """Write a text file of `num_chars` characters: words in an order that does not repeat."""
    rng, words = random.Random(0), TEXT.split()
    lines: list[str] = []
    length = 0
    while length < num_chars:
        lines.append(" ".join(rng.choices(words, k=12)) + ".\n")
        length += len(lines[-1])
    path.write_text("".join(lines)[:num_chars], encoding="utf-8")
    return path


def _tokenizer(bos: bool) -> PreTrainedTokenizerFast:
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=["<bos>", "<eos>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator([TEXT] * 4, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token="<bos>" if bos else None,
        eos_token="<eos>",
        model_max_length=256,
    )


def _config(family: Family) -> PretrainedConfig:
    sizes = {
        "vocab_size": VOCAB_SIZE,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": None,
    }
    blocks = {
        "hidden_size": D_MODEL,
        "num_hidden_layers": NUM_LAYERS,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "max_position_embeddings": 256,
    }
    if family == "gpt2":
        return GPT2Config(n_embd=D_MODEL, n_layer=NUM_LAYERS, n_head=4, n_positions=256, **sizes)
    if family == "gpt_neox":
        return GPTNeoXConfig(**sizes, **blocks)
    with_window: dict[str, object] = {"head_dim": 8, "sliding_window": 64}
    more: dict[Family, dict[str, object]] = {
        "gemma": {"head_dim": 8},
        "gemma2": with_window,
        "gemma3_text": {**with_window, "sliding_window_pattern": 2},
        "mistral": with_window,
        "qwen3": {"head_dim": 8},
    }
    return AutoConfig.for_model(
        family, num_key_value_heads=2, **sizes, **blocks, **more.get(family, {})
    )
