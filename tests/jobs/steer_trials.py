"""Trials of `steer` on a tiny random model, from their setup to their artefact."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from jobs.kind import InputArtefact, TrialContext, TrialRunner
from jobs.steer import Steer
from tests.sae.tiny_model import D_MODEL

NUM_PROMPTS = 6
STRENGTHS = [0.2, 4.0]


def setup_of(model: Path, **changes: Any) -> dict[str, Any]:
    return {
        "model": {"name": str(model)},
        "layers": [0, 1],
        "contrast": {"builtin": "formal"},
        "prompts": "neutral",
        "num_prompts": NUM_PROMPTS,
        "strengths": STRENGTHS,
        "generation": {"max_new_tokens": 6, "chat": False},
        **changes,
    }


def runner_of(
    setup: dict[str, Any], inputs: tuple[InputArtefact, ...] = (), **config: Any
) -> TrialRunner:
    config = {"method": "mean_difference", "layer": 1, **config}
    if config["layer"] is None:
        del config["layer"]
    context = TrialContext("sweep", "t0000", config, setup, 0, 1, "cpu", inputs=inputs)
    return Steer().runner(context)


def finished(runner: TrialRunner, folder: Path) -> Any:
    runner.attach(None)
    runner.advance(4, 4, 300.0)
    runner.advance(NUM_PROMPTS, NUM_PROMPTS, 300.0)
    folder.mkdir()
    return runner.finish(folder)


def sae_folder(folder: Path, *, broken: bool = False) -> Path:
    from sae_lens import StandardSAE, StandardSAEConfig

    config = StandardSAEConfig(d_in=D_MODEL, d_sae=2 * D_MODEL)
    config.metadata["hook_name"] = "blocks.1.hook_resid_post"
    sae = StandardSAE(config)
    rows_FD = torch.cat([torch.eye(D_MODEL), -torch.eye(D_MODEL)])
    sae.W_enc.data, sae.W_dec.data = rows_FD.T.contiguous(), rows_FD.clone() * (9 if broken else 1)
    sae.b_enc.data.zero_()
    sae.b_dec.data.zero_()
    sae.save_model(folder)
    return folder
