"""A finished SAE, wherever it comes from: our own folders, SAELens releases, Gemma Scope files.

A torch module. Shape suffixes: N = activations, D = d_in, F = d_sae.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, model_validator
from torch import Tensor

__all__ = ["BadSae", "SaeSpec", "TrainedSae", "load_sae"]


class BadSae(ValueError):
    """An SAE that cannot be had, or not be used as it is."""


class SaeSpec(BaseModel):
    """Where a finished SAE is; exactly one of folder and release."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    folder: str | None = None
    """A SAELens folder (cfg.json, sae_weights.safetensors), or Gemma Scope's with params.npz."""
    release: str | None = None
    """A release that sae_lens knows, such as gemma-scope-2b-pt-res-canonical."""
    id: str | None = None
    """Of one SAE of the release, such as layer_12/width_16k/canonical."""

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if (self.folder is None) == (self.release is None):
            raise ValueError(
                f"give exactly one of folder and release; got folder={self.folder!r}, "
                f"release={self.release!r}"
            )
        if (self.release is None) != (self.id is None):
            raise ValueError(
                f"release and id name one SAE together; got release={self.release!r}, "
                f"id={self.id!r}"
            )
        return self

    @property
    def label(self) -> str:
        """How a person would call it."""
        return self.folder or f"{self.release}/{self.id}"


class TrainedSae:
    """Encodes and decodes raw activations; weights are float32 and do not train."""

    def __init__(self, sae: Any, label: str) -> None:
        self.sae = sae
        """sae_lens's own object."""
        self.label = label

    @property
    def d_in(self) -> int:
        """Width of the activations."""
        return int(self.sae.cfg.d_in)

    @property
    def d_sae(self) -> int:
        """Number of latents."""
        return int(self.sae.cfg.d_sae)

    @property
    def architecture(self) -> str:
        """topk, standard, jumprelu, gated: as sae_lens calls it at inference."""
        return str(self.sae.cfg.architecture())

    @property
    def hook(self) -> str | None:
        """The hook it was trained at, as its maker wrote it; None if it does not say."""
        name = self.sae.cfg.metadata.hook_name
        return None if name is None else str(name)

    @property
    def model_name(self) -> str | None:
        """The language model it was trained on; None if it does not say."""
        name = self.sae.cfg.metadata.model_name
        return None if name is None else str(name)

    @property
    def W_dec_FD(self) -> Tensor:
        """Decoder rows."""
        rows_FD: Tensor = self.sae.W_dec.detach()
        return rows_FD

    @property
    def b_dec_D(self) -> Tensor:
        """Decoder bias."""
        bias_D: Tensor = self.sae.b_dec.detach()
        return bias_D

    @torch.no_grad()
    def encode(self, x_ND: Tensor) -> Tensor:
        """Latents [N, F], non-negative, of raw activations [N, D]."""
        latents_NF: Tensor = self.sae.encode(x_ND.to(self.W_dec_FD))
        return latents_NF

    @torch.no_grad()
    def decode(self, latents_NF: Tensor) -> Tensor:
        """Reconstructions [N, D] of latents [N, F]."""
        x_ND: Tensor = self.sae.decode(latents_NF)
        return x_ND


def load_sae(spec: SaeSpec, device: str | torch.device = "cpu") -> TrainedSae:
    """Load a finished SAE. Raises BadSae with what is missing and what to do."""
    if spec.folder is None:
        return _from_release(spec, str(device))
    folder = Path(spec.folder)
    if (folder / "params.npz").is_file():
        return TrainedSae(_from_npz(folder, str(device)), spec.label)
    if not (folder / "cfg.json").is_file():
        raise BadSae(
            f"{folder} holds no SAE; name a folder with cfg.json and sae_weights.safetensors, or "
            "with Gemma Scope's params.npz"
        )
    from sae_lens import SAE

    try:
        return TrainedSae(SAE.load_from_disk(folder, device=str(device)), spec.label)
    except (OSError, KeyError, ValueError, RuntimeError, json.JSONDecodeError) as error:
        said = " ".join(str(error).split())
        raise BadSae(f"the SAE in {folder} cannot be loaded: {said}") from error


def _from_release(spec: SaeSpec, device: str) -> TrainedSae:
    from sae_lens import SAE

    try:
        return TrainedSae(SAE.from_pretrained(spec.release, spec.id, device=device), spec.label)
    except (OSError, KeyError, ValueError, RuntimeError) as error:
        said = " ".join(str(error).split())
        raise BadSae(
            f"release={spec.release!r}, id={spec.id!r} cannot be loaded: {said}; sae_lens lists "
            "what there is (`sae_lens.loading.pretrained_saes_directory`), or name a local folder"
        ) from error


def _from_npz(folder: Path, device: str) -> Any:
    """Gemma Scope's own files: f = (z > threshold) * relu(z), z = x W_enc + b_enc."""
    from sae_lens import JumpReLUSAE, JumpReLUSAEConfig

    with np.load(folder / "params.npz") as file:
        missing = {"W_enc", "W_dec", "b_enc", "b_dec", "threshold"} - set(file.files)
        if missing:
            raise BadSae(f"{folder}/params.npz lacks {', '.join(sorted(missing))}; fetch it again")
        weights = {name: torch.from_numpy(file[name]).float() for name in file.files}
    d_in, d_sae = weights["W_enc"].shape
    config = JumpReLUSAEConfig(
        d_in=d_in,
        d_sae=d_sae,
        device=device,
        apply_b_dec_to_input=False,
        normalize_activations="none",
    )
    sae = JumpReLUSAE(config)
    sae.load_state_dict(weights)
    return sae.to(device).eval()
