"""Small SAEs with given weights, and data to probe on a tiny model: no download, no training."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sae_lens import (
    JumpReLUSAE,
    JumpReLUSAEConfig,
    StandardSAE,
    StandardSAEConfig,
    TopKSAE,
    TopKSAEConfig,
)
from sae_lens.saes.sae import SAEMetadata

from sae.language_model import LanguageModel
from sae.stream_spec import ModelSpec
from sae.trained_sae import TrainedSae
from steering.probes.data import LabelledTexts
from tests.sae.tiny_model import D_MODEL, TEXT, build_tiny_model

HOOK = "resid_post.1"


def tiny_lm(folder: Path, **options: object) -> LanguageModel:
    """A random Llama of 3 layers."""
    path = build_tiny_model(folder, **options)  # type: ignore[arg-type]
    return LanguageModel.load(ModelSpec(name=str(path)), "cpu")


def random_sae(
    d_sae: int = 64, *, hook: str | None = HOOK, d_in: int = D_MODEL, k: int = 6, seed: int = 0
) -> TrainedSae:
    """A top-k SAE with random weights."""
    config = TopKSAEConfig(
        d_in=d_in, d_sae=d_sae, k=k, device="cpu", metadata=SAEMetadata(hook_name=hook)
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        sae = TopKSAE(config)
        with torch.no_grad():
            for weight in (sae.W_enc, sae.W_dec):
                weight.normal_()
            sae.b_enc.normal_(std=0.1)
            sae.b_dec.normal_(std=0.1)
    return TrainedSae(sae.eval(), f"random-{seed}")


def dense_sae(d_sae: int = 24, *, hook: str | None = HOOK, seed: int = 0) -> TrainedSae:
    """A ReLU SAE whose latents change smoothly, for derivatives."""
    config = StandardSAEConfig(
        d_in=D_MODEL, d_sae=d_sae, device="cpu", metadata=SAEMetadata(hook_name=hook)
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        sae = StandardSAE(config)
        with torch.no_grad():
            for weight in (sae.W_enc, sae.W_dec):
                weight.normal_()
            sae.b_enc.fill_(0.5)
            sae.b_dec.normal_(std=0.1)
    return TrainedSae(sae.eval(), f"dense-{seed}")


def planted_sae(direction_D: torch.Tensor, threshold: float, latent: int = 7) -> TrainedSae:
    """A JumpReLU SAE of random latents, but for one that reads the direction beyond a threshold."""
    d_sae = 32
    config = JumpReLUSAEConfig(
        d_in=D_MODEL,
        d_sae=d_sae,
        device="cpu",
        apply_b_dec_to_input=False,
        metadata=SAEMetadata(hook_name=HOOK),
    )
    sae = JumpReLUSAE(config)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        w_dec_FD = torch.nn.functional.normalize(torch.randn(d_sae, D_MODEL), dim=-1)
        w_dec_FD[latent] = torch.nn.functional.normalize(direction_D, dim=0)
        sae.W_dec.copy_(w_dec_FD)
        sae.W_enc.copy_(w_dec_FD.T)
        sae.b_enc.zero_()
        sae.b_enc[latent] = -threshold
        sae.b_dec.zero_()
        sae.threshold.fill_(0.0)
    return TrainedSae(sae.eval(), "planted")


def separating(x_ND: np.ndarray[Any, Any], y_N: np.ndarray[Any, Any]) -> tuple[torch.Tensor, float]:
    """A direction [D] and a threshold that tell the two classes apart as well as any."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(x_ND)
    model = LogisticRegression(C=1e6, max_iter=5000).fit(scaler.transform(x_ND), y_N)
    weight_D = model.coef_[0] / scaler.scale_
    norm = float(np.linalg.norm(weight_D))
    bias = float(model.intercept_[0] - (weight_D * scaler.mean_).sum())
    return torch.from_numpy(weight_D / norm).float(), -bias / norm


def word_data(num_texts: int = 40, *, word: str = "mill", seed: int = 0) -> LabelledTexts:
    """Texts of random words; positive ones hold one more, marked by a span. Two texts an item."""
    from steering.probes.data import Span

    rng = np.random.default_rng(seed)
    words = [one for one in re.findall(r"[A-Za-z]+", TEXT) if one != word]
    texts, spans, labels = [], [], []
    for row in range(num_texts):
        some = rng.choice(words, size=int(rng.integers(4, 20))).tolist()
        is_positive = (row // 2) % 2 == 0
        marked: tuple[Span, ...] = ()
        if is_positive:
            place = int(rng.integers(1, len(some)))
            start = len(" ".join(some[:place])) + 1
            some.insert(place, word)
            marked = (Span(start, start + len(word), 0),)
        texts.append(" ".join(some))
        spans.append(marked)
        labels.append([is_positive])
    items = [str(row // 2) for row in range(num_texts)]
    return LabelledTexts(texts, items, np.array(labels), ("has_mill",), "binary", spans)
