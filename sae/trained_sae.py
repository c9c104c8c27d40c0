"""A finished SAE, wherever it comes from: our own folders, SAELens releases, Gemma Scope files.

Imports torch when it loads one. Shape suffixes: N = activations, D = d_in, F = d_sae.
"""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

if TYPE_CHECKING:
    import torch
    from torch import Tensor

from sae.sae_spec import BadSae, SaeSpec

__all__ = ["BadSae", "SaeSpec", "TrainedSae", "load_sae"]


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
    def normalization(self) -> str:
        """What is done to each activation before it is encoded: none, layer_norm, ..."""
        return str(self.sae.cfg.normalize_activations)

    @property
    def needs_input_scale(self) -> bool:
        """Whether it was trained on activations divided by a constant that its files do not say."""
        return self.normalization == "expected_average_only_in"

    def with_input_scale(self, scale: float) -> Self:
        """A copy that takes raw activations, where this one was trained on `scale` times them.

        Latents stay in the SAE's own units; decoder rows are in raw units afterwards.
        """
        folded = copy.deepcopy(self.sae)
        folded.fold_activation_norm_scaling_factor(scale)
        return type(self)(folded, self.label)

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

    def encode(self, x_ND: Tensor) -> Tensor:
        """Latents [N, F], non-negative, of raw activations [N, D]."""
        import torch

        with torch.no_grad():
            latents_NF: Tensor = self.sae.encode(x_ND.to(self.W_dec_FD))
        return latents_NF

    def decode(self, latents_NF: Tensor) -> Tensor:
        """Reconstructions [N, D] of latents [N, F].

        Where each activation is normalised (`normalization`), of those that were encoded last.
        """
        import torch

        with torch.no_grad():
            x_ND: Tensor = self.sae.decode(latents_NF)
        return x_ND


def load_sae(
    spec: SaeSpec, device: str | torch.device = "cpu", *, label: str | None = None
) -> TrainedSae:
    """Load a finished SAE.

    Args:
        label: what messages and records call it, such as an artefact's id; not given: its place.

    Raises:
        BadSae: with what is missing and what to do.
    """
    found = _load(spec, device)
    found.label = label or found.label
    if found.normalization not in _NORMALIZATIONS:
        raise BadSae(
            f"{found.label} expects activations under {found.normalization}, which is not folded "
            f"into its weights; fold it with sae_lens, or take an SAE with one of "
            f"{', '.join(_NORMALIZATIONS)}"
        )
    if found.sae.cfg.reshape_activations != "none":
        raise BadSae(
            f"{found.label} reads the outputs of attention heads ({found.hook}), which no hook "
            "gives; take an SAE of the residual stream, an attention output or an MLP output"
        )
    return found


_NORMALIZATIONS = ("none", "layer_norm", "constant_norm_rescale", "expected_average_only_in")


def _load(spec: SaeSpec, device: str | torch.device) -> TrainedSae:
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
    import torch
    from sae_lens import JumpReLUSAE, JumpReLUSAEConfig

    with np.load(folder / "params.npz") as file:
        missing = set(_NPZ_NAMES) - set(file.files)
        if missing:
            raise BadSae(f"{folder}/params.npz lacks {', '.join(sorted(missing))}; fetch it again")
        weights = {name: torch.from_numpy(file[name]).float() for name in _NPZ_NAMES}
    _check_shapes(folder, weights)
    d_in, d_sae = weights["W_enc"].shape
    config = JumpReLUSAEConfig(
        d_in=d_in,
        d_sae=d_sae,
        device=device,
        apply_b_dec_to_input=False,
        normalize_activations="none",
    )
    for name, value in _said_by_path(folder).items():
        config.metadata[name] = value
    sae = JumpReLUSAE(config)
    sae.load_state_dict(weights)
    return sae.to(device).eval()


_NPZ_NAMES = ("W_enc", "W_dec", "b_enc", "b_dec", "threshold")
_RELEASE = re.compile(r"gemma-scope-(\d+b)-(pt|it)-(res|mlp)\b")
_LAYER = re.compile(r"layer_(\d+)")
_SITES = {"res": "resid_post", "mlp": "mlp_out"}


def _check_shapes(folder: Path, weights: dict[str, torch.Tensor]) -> None:
    d_in, d_sae = weights["W_enc"].shape
    expected = {"W_dec": (d_sae, d_in), "b_enc": (d_sae,), "b_dec": (d_in,), "threshold": (d_sae,)}
    for name, shape in expected.items():
        if tuple(weights[name].shape) != shape:
            raise BadSae(
                f"{folder}/params.npz: {name} has shape {list(weights[name].shape)}, and with "
                f"W_enc of {[d_in, d_sae]} it must have {list(shape)}; fetch it again"
            )


def _said_by_path(folder: Path) -> dict[str, str]:
    """Model and hook, where the folder lies as in Gemma Scope's repositories; the file says none.

    Of `gemma-scope-2b-pt-res/layer_12/width_16k/average_l0_82`.
    """
    text = folder.absolute().as_posix()
    release, layer = _RELEASE.search(text), _LAYER.search(text)
    said: dict[str, str] = {}
    if release is not None:
        size, tuning, site = release.groups()
        said["model_name"] = f"google/gemma-2-{size}" + ("-it" if tuning == "it" else "")
        if layer is not None:
            said["hook_name"] = f"{_SITES[site]}.{layer[1]}"
    return said
