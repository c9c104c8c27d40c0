"""How useful a finished SAE's latents are: k-sparse probes of labelled text, as one number."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from jobs.sae_train import SaeProbeConfig
from sae.language_model import LanguageModel
from sae.model_files import cache_dir
from sae.sae_spec import SaeSpec
from sae.trained_sae import load_sae
from steering.probes.data import read_labelled
from steering.probes.features import ExtractSettings, FeatureSpec, extract
from steering.probes.sae_score import k_sparse_score
from steering.probes.study import parts_of

SAE = "sae"


def probe_auroc(lm: LanguageModel, folder: Path, spec: SaeProbeConfig) -> float:
    """Mean over labels of the test AUROC with at most `spec.k` latents.

    As in sae-probes, the most reliable of SAEBench's family (Chanin 2026, arXiv 2605.18229).

    Args:
        lm: the model that the SAE was trained on.
        folder: the exported SAE, which knows its hook.

    Raises:
        BadSteeringInput: the labelled text cannot be used.
    """
    labelled = read_labelled(spec.data)
    features = FeatureSpec(sae=SAE, pooling=spec.pooling)
    sae = load_sae(SaeSpec(folder=str(folder)), lm.device)
    settings = ExtractSettings(max_tokens=spec.max_tokens)
    cache = cache_dir() / "probe-features"
    table = extract(lm, {SAE: sae}, labelled, [features], cache, settings=settings)
    parts = parts_of(table, features, spec.split.shares, spec.split.seed)
    scores = [
        k_sparse_score(
            parts.train.x,
            parts.train.y_NL[:, label],
            parts.test.x,
            parts.test.y_NL[:, label],
            [min(spec.k, sae.d_sae)],
            items_train=parts.train.items.tolist(),
            items_test=parts.test.items.tolist(),
            resamples=0,
        ).value(min(spec.k, sae.d_sae))
        for label in range(parts.train.y_NL.shape[1])
    ]
    return float(np.mean(scores))
