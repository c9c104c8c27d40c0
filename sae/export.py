"""A finished member as a SAELens folder, loaded back and measured before it counts.

Shape suffixes: N = held-out tokens, D = d_in, F = d_sae.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from sae_lens import SAE
from sae_lens.constants import SPARSITY_FILENAME
from safetensors.torch import save_file

from sae.activation_source import ActivationSource
from sae.downstream import DEFAULT_CE_TOKENS
from sae.evaluation import exported_forward, full_metrics, reconstruction_metrics
from sae.member import Member
from sae.model_files import BUILTIN_HUB_IDS
from sae.sae_lens_evals import DEFAULT_CE_TOKENS as DEFAULT_SAE_LENS_CE_TOKENS
from sae.sae_lens_evals import run_sae_lens_evals
from sae.versions import versions

EXPLAINED_VARIANCE_TOLERANCE = 0.01
"""Absolute."""
L0_TOLERANCE = 0.02
"""Relative."""


class ExportDiffers(ValueError):
    """The exported SAE, loaded back, does not give the numbers of the trained one.

    Args:
        trained: explained_variance and l0 of the member in training.
        measured: where else they were measured, to the numbers found there.
    """

    def __init__(
        self, trained: Mapping[str, float], measured: Mapping[str, Mapping[str, float]]
    ) -> None:
        super().__init__(dict(trained), {name: dict(found) for name, found in measured.items()})
        self.trained, self.measured = trained, measured

    def __str__(self) -> str:
        numbers = "; ".join(
            f"{name} {_two_numbers(found)}"
            for name, found in {"trained": self.trained, **self.measured}.items()
        )
        return f"export differs from what was trained: {numbers}"


@dataclass(frozen=True)
class FinishReport:
    """A finished member: its numbers, and how it came to be."""

    metrics: dict[str, float]
    record: dict[str, Any]


def finish_member(
    member: Member,
    source: ActivationSource,
    folder: Path,
    *,
    ce_tokens: int = DEFAULT_CE_TOKENS,
    sae_lens_ce_tokens: int = DEFAULT_SAE_LENS_CE_TOKENS,
) -> FinishReport:
    """Measure a member, export it, load it back, and measure it again in two ways.

    The member itself is left as it is and could train on. The folder is complete on return.

    Args:
        folder: where `cfg.json`, `sae_weights.safetensors` and `sparsity.safetensors` go.
        ce_tokens: kept held-out tokens for our cross-entropy and KL.
        sae_lens_ce_tokens: kept held-out tokens for sae_lens's.

    Raises:
        ExportDiffers: the numbers of the export are not those of the member.
    """
    metrics = full_metrics(member, source, ce_tokens=ce_tokens)
    export_member(member, source, folder)
    measured = verify_export(
        folder, source, member.hook, metrics, ce_tokens=sae_lens_ce_tokens, device=member.device
    )
    return FinishReport(metrics, {**member_record(member, source), **measured})


def member_record(member: Member, source: ActivationSource) -> dict[str, Any]:
    """All that it takes to train the same SAE again, as JSON values."""
    return {
        "architecture": member.config.model_dump(mode="json"),
        "learning_rate": member.config.learning_rate,
        "hook": member.hook,
        "d_in": member.d_in,
        "total_tokens": member.total_tokens,
        "lengths": [list(length) for length in member.lengths],
        "tokens": member.tokens,
        "batch_tokens": member.batch_tokens,
        "segments": [list(segment) for segment in member.segments],
        "last_epoch": source.epoch_at(max(0, member.end_position - 1)),
        "seed": member.config.init_seed,
        "scale": member.scale,
        "device": str(member.device),
        **member.stepper_record(),
        "held_out": source.held_out.fingerprint,
        "stream": source.record(),
        "versions": versions(),
    }


@torch.no_grad()
def export_member(member: Member, source: ActivationSource, folder: Path) -> None:
    """Write the SAELens inference folder, normalisation folded into the weights of a copy."""
    folder.mkdir(parents=True, exist_ok=True)
    sae = weights_on_host(member.sae)
    if member.trainer.activation_scaler.scaling_factor is not None:
        sae.fold_activation_norm_scaling_factor(member.scale)
    for name, value in _metadata(member, source).items():
        sae.cfg.metadata[name] = value
    sae.save_inference_model(folder)
    _make_portable(folder)
    if member.trainer.n_frac_active_samples:
        sparsity_F = member.trainer.log_feature_sparsity.contiguous()
        save_file({"sparsity": sparsity_F}, folder / SPARSITY_FILENAME)


def weights_on_host(sae: Any) -> Any:
    """A copy of an SAE whose weights are in host memory; nothing is copied on its device.

    Folding makes further copies, for which a GPU full of SAEs has no room.
    """
    copies: dict[int, Any] = {}
    for param in sae.parameters():
        on_host = param.detach().to("cpu", copy=True)
        copies[id(param)] = torch.nn.Parameter(on_host, requires_grad=param.requires_grad)
    for buffer in sae.buffers():
        copies[id(buffer)] = buffer.detach().to("cpu", copy=True)
    return copy.deepcopy(sae, copies)


def _make_portable(folder: Path) -> None:
    """Let the SAE load anywhere: sae_lens writes down the device that it was trained on."""
    path = folder / "cfg.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["device"] = "cpu"
    path.write_text(json.dumps(config, indent=1), encoding="utf-8")


def _metadata(member: Member, source: ActivationSource) -> dict[str, Any]:
    """What sae_lens and its users look for in an SAE's metadata, and the stream as we record it."""
    stream = source.record()
    model_name = stream.get("model", {}).get("name")
    data, packing = stream.get("data", {}), stream.get("packing", {})
    metadata: dict[str, Any] = {
        # A builtin model is called what the hub calls it, so that it can be loaded elsewhere.
        "model_name": BUILTIN_HUB_IDS.get(model_name, model_name),
        "model_class_name": "AutoModelForCausalLM",
        "hook_name": source.language_model.path_of(member.hook),
        "hook_head_index": None,
        "context_size": source.held_out.tokens_CT.shape[-1],
        "prepend_bos": packing.get("each_context_starts_with_bos"),
        "dataset_path": data.get("dataset") or data.get("source"),
        "exclude_special_tokens": packing.get("special_token_ids_left_out"),
        "seqpos_slice": [1, None],
        "training_tokens": member.tokens,
        "normalized_by": member.scale,
        "saeq_stream": stream,
    }
    trainer = member.trainer
    if trainer.n_frac_active_samples:
        metadata["l0"] = float(trainer.feature_sparsity.sum())
        metadata["num_dead_features"] = int(trainer.dead_neurons.sum())
    return metadata


def verify_export(
    folder: Path,
    source: ActivationSource,
    hook: str,
    expected: Mapping[str, float],
    *,
    ce_tokens: int = DEFAULT_SAE_LENS_CE_TOKENS,
    device: str | torch.device = "cpu",
) -> dict[str, Any]:
    """Load an exported SAE and measure it on raw held-out activations, ours and sae_lens's way.

    Args:
        expected: explained_variance and l0 that the trained member had.

    Returns:
        `loaded_back` (explained_variance, l0, ...) and `sae_lens_evals` (`run_evals`'s numbers).

    Raises:
        ExportDiffers: explained variance is off by more than 0.01, or L0 by more than 2%.
    """
    sae = SAE.load_from_disk(folder, device=str(device))
    x_ND = source.held_out.activations(hook).to(device)
    loaded = reconstruction_metrics(exported_forward(sae), x_ND, sae.cfg.d_sae)
    evals = run_sae_lens_evals(sae, source, hook, ce_tokens=ce_tokens)
    measured = {"loaded back": loaded, "sae_lens evals": evals}
    if not all(_agree(expected, found) for found in measured.values()):
        raise ExportDiffers(expected, measured)
    return {"loaded_back": loaded, "sae_lens_evals": evals}


def _agree(expected: Mapping[str, float], found: Mapping[str, float]) -> bool:
    """Whether two measurements are one; NaN agrees with nothing."""
    variance_off = abs(found["explained_variance"] - expected["explained_variance"])
    l0_off = abs(found["l0"] - expected["l0"])
    return variance_off <= EXPLAINED_VARIANCE_TOLERANCE and l0_off <= L0_TOLERANCE * expected["l0"]


def _two_numbers(found: Mapping[str, float]) -> str:
    return f"explained_variance={found['explained_variance']:.4f} l0={found['l0']:.2f}"
