"""Tiny random classifiers of (text, attribute), saved as Hugging Face folders: no download."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import BertConfig, BertForSequenceClassification, BertModel

from tests.sae.tiny_model import VOCAB_SIZE, build_tiny_model

SIZES = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 64,
}


def build_pair_scorer(folder: Path, num_labels: int, *, has_head: bool = True) -> Path:
    """Save a BERT with so many logits, or without a trained head."""
    build_tiny_model(folder, bos=False)
    config = BertConfig(**SIZES, num_labels=num_labels)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if has_head:
            model = BertForSequenceClassification(config)
            torch.nn.init.normal_(model.classifier.weight, std=1.0)
            model.save_pretrained(folder)
        else:
            BertModel(config).save_pretrained(folder)
    return folder
