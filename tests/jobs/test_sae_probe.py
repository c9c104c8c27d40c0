"""The final metric `probe_auroc`: an SAE that carries a label scores, a blind one is at chance."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from jobs.runners.sae_probe import probe_auroc
from jobs.sae_train import SaeProbeConfig, SaeTrain
from steering.errors import BadSteeringInput
from steering.probes.data import LabelledSpec
from tests.jobs.bread_texts import write_texts
from tests.steering.probes.tiny_saes import dense_sae, tiny_lm


def test_an_sae_is_scored_by_what_its_latents_tell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAEQ_CACHE", str(tmp_path / "cache"))
    lm = tiny_lm(tmp_path / "model")
    texts = write_texts(tmp_path / "texts.jsonl")
    data = LabelledSpec(files=str(texts), label="bread", item="who")
    config = SaeProbeConfig(data=data, k=8, pooling="max")
    good, blind = dense_sae(), dense_sae(seed=1)
    with torch.no_grad():
        blind.sae.W_enc.zero_()
    for name, sae in (("good", good), ("blind", blind)):
        sae.sae.save_model(tmp_path / name)
    assert probe_auroc(lm, tmp_path / "good", config) > 0.6
    assert probe_auroc(lm, tmp_path / "blind", config) == pytest.approx(0.5, abs=0.02)
    lacking = SaeProbeConfig(data=LabelledSpec(files=str(texts), label="butter"))
    with pytest.raises(BadSteeringInput, match="butter"):
        probe_auroc(lm, tmp_path / "good", lacking)


def test_it_is_a_metric_by_which_saes_can_be_told_apart() -> None:
    metric = next(m for m in SaeTrain.final_metrics if m.name == "probe_auroc")
    assert metric.direction == "max"
