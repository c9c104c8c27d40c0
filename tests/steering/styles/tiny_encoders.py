"""Tiny random text encoders of several families, with a tokenizer of a few words."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    AutoModel,
    BertConfig,
    DebertaV2Config,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    ModernBertConfig,
    PreTrainedTokenizerFast,
    RobertaConfig,
)

SPECIAL = ["[PAD]", "[CLS]", "[SEP]", "[UNK]"]
WORDS = [f"w{number}" for number in range(60)]
WIDTH, LAYERS, POSITIONS = 16, 2, 64
FAMILIES = ("bert", "roberta", "deberta-v2", "modernbert", "gpt_neox", "gpt2", "llama")
DECODERS = ("gpt_neox", "gpt2", "llama")


def build_encoder(folder: Path, family: str = "bert", *, dropout: float = 0.0) -> Path:
    """Save a random model with its tokenizer; returns the folder."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModel.from_config(_config(family, dropout))
        for weight in model.parameters():  # larger than usual, so that texts differ
            weight.data.add_(0.1 * torch.randn_like(weight))
    model.eval().save_pretrained(folder)
    _tokenizer(family).save_pretrained(folder)
    return folder


def _tokenizer(family: str) -> PreTrainedTokenizerFast:
    vocabulary = {word: number for number, word in enumerate([*SPECIAL, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    names: dict[str, str] = {"unk_token": "[UNK]"}
    if family in DECODERS:
        names |= {"eos_token": "[SEP]"}  # and no padding token, as such models come
    else:
        ends = [("[CLS]", 1), ("[SEP]", 2)]
        tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", None, ends)
        names |= {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


def _config(family: str, dropout: float) -> Any:
    sizes: dict[str, Any] = {
        "vocab_size": len(SPECIAL) + len(WORDS),
        "hidden_size": WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 2,
        "intermediate_size": 24,
        "max_position_embeddings": POSITIONS,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    drops = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    if family == "bert":
        return BertConfig(**sizes, **drops)
    if family == "roberta":
        return RobertaConfig(**sizes, **drops)
    if family == "deberta-v2":
        return DebertaV2Config(**sizes, **drops, relative_attention=True, pos_att_type=["p2c"])
    if family == "modernbert":
        more = {"cls_token_id": 1, "sep_token_id": 2, "attention_dropout": dropout}
        return ModernBertConfig(**sizes, **more, global_attn_every_n_layers=2, local_attention=8)
    if family == "gpt2":
        return GPT2Config(
            vocab_size=sizes["vocab_size"],
            n_embd=WIDTH,
            n_layer=LAYERS,
            n_head=2,
            n_positions=POSITIONS,
            resid_pdrop=dropout,
        )
    if family == "gpt_neox":
        return GPTNeoXConfig(**sizes)
    return LlamaConfig(**sizes, num_key_value_heads=2)


def styled_texts(per_group: int = 24, num_groups: int = 3) -> tuple[list[str], list[str]]:
    """Texts whose groups prefer words of their own, and the groups."""
    rng = random.Random(0)
    texts, groups = [], []
    for number in range(per_group * num_groups):
        group = number % num_groups
        own = WORDS[group * 10 : group * 10 + 10]
        count = rng.randint(4, 14)
        words = [rng.choice(own if rng.random() < 0.5 else WORDS) for _ in range(count)]
        texts.append(" ".join(words))
        groups.append(f"g{group}")
    return texts, groups
