"""Set, scale or zero latents of an SAE, and keep what the SAE does not explain.

A torch module. Shape suffixes: N = rows of a batch, M = edited tokens, D = d_in, F = d_sae,
K = latents that are edited.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor

from sae.trained_sae import TrainedSae
from steering.edits.base import Edit
from steering.edits.row_wise import Number, check_number, per_row
from steering.errors import BadSteeringInput

__all__ = ["LatentChange", "LatentChangeKind", "SaeLatents"]

LatentChangeKind = Literal["set", "scale"]
LatentChange = tuple[LatentChangeKind, Number]
"""("set", c) makes a latent c in the SAE's own units; ("scale", s) multiplies it; ("scale", 0.0)
turns it off. Numbers may be tensors [N], one a row."""


@dataclass(frozen=True, eq=False)
class SaeLatents(Edit):
    """x + strength sum_i (c_i - f_i(x)) W_dec[i], over the latents named.

    For a linear decoder this is decode(f') + (x - decode(f)), AxBench's
    DictionaryAdditionIntervention, without decoding. Standard, gated and JumpReLU SAEs (BatchTopK
    and Matryoshka are that at inference) encode the named latents alone. In a TopK or AbsTopK SAE
    latents compete and in matching pursuit one follows from another, so there the whole encoder
    runs for each edited token; the other latents keep what they had, there is no second contest.
    Where an SAE normalises each activation, the displacement is scaled back as its decoder does.
    """

    name: ClassVar[str] = "sae_latents"

    sae: TrainedSae
    latents: Mapping[int, LatentChange]

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_sae(self.sae)
        if not self.latents:
            raise BadSteeringInput(
                "SaeLatents: no latent is named; name one, or leave the edit out"
            )
        for index, (kind, value) in self.latents.items():
            if not 0 <= index < self.sae.d_sae:
                raise BadSteeringInput(
                    f"SaeLatents: latent {index} is not one of {self.sae.label}, which has 0 to "
                    f"{self.sae.d_sae - 1}"
                )
            if kind not in get_args(LatentChangeKind):
                known = ", ".join(get_args(LatentChangeKind))
                raise BadSteeringInput(f"SaeLatents: change {kind!r} is unknown; known: {known}")
            check_number(f"SaeLatents: latent {index}", value)

    @property
    def width(self) -> int:
        """Of the activations that can be edited."""
        return self.sae.d_in

    def change(self, h_MD: Tensor, row_M: Tensor, strength: Tensor) -> Tensor:
        index_K = torch.tensor(list(self.latents), device=self.sae.W_dec_FD.device)
        x_MD = h_MD.to(self.sae.W_dec_FD)
        latents_MK = _encode(self.sae.sae, x_MD, index_K)
        wanted_MK = torch.stack(
            [
                self._wanted(change, latents_M, row_M)
                for change, latents_M in zip(
                    self.latents.values(), latents_MK.unbind(dim=-1), strict=True
                )
            ],
            dim=-1,
        )
        moved_MD = (wanted_MK - latents_MK) @ _decoder_rows(self.sae.sae, index_K)
        return h_MD + strength * (moved_MD * _output_scale(self.sae.sae, x_MD)).to(h_MD)

    @staticmethod
    def _wanted(change: LatentChange, latents_M: Tensor, row_M: Tensor) -> Tensor:
        kind, value = change
        value_M1 = per_row(value, row_M.to(latents_M.device), latents_M, shared_ndim=0)
        value_M = value_M1.squeeze(-1) if value_M1.ndim else value_M1
        return value_M.expand_as(latents_M) if kind == "set" else value_M * latents_M

    def _num_rows_by_field(self) -> dict[int, str]:
        values = {f"latent {index}": value for index, (_, value) in self.latents.items()}
        return super()._num_rows_by_field() | {
            len(value): name
            for name, value in values.items()
            if isinstance(value, Tensor) and value.ndim
        }

    def _changed(
        self, change: Callable[[Tensor], Tensor], *, only_row_wise: bool
    ) -> dict[str, Any]:
        """Numbers of latents as well; the SAE stays on its device."""
        latents: dict[int, LatentChange] = {
            index: (kind, change(value))
            if isinstance(value, Tensor) and (value.ndim or not only_row_wise)
            else (kind, value)
            for index, (kind, value) in self.latents.items()
        }
        return super()._changed(change, only_row_wise=only_row_wise) | {"latents": latents}


def _check_sae(sae: TrainedSae) -> None:
    known = (*_ELEMENTWISE, *_COMPETING)
    if sae.architecture not in known:
        raise BadSteeringInput(
            f"SaeLatents: {sae.label} is a {sae.architecture}, whose output is no sum of decoder "
            f"rows in place of its input; take one of {', '.join(known)}"
        )
    if sae.needs_input_scale:
        raise BadSteeringInput(
            f"SaeLatents: {sae.label} was trained on activations times a constant that its files "
            "do not say, so its latents would be wrong; give sae.with_input_scale(scale)"
        )
    if sae.sae.cfg.reshape_activations != "none":
        raise BadSteeringInput(
            f"SaeLatents: {sae.label} reads attention heads (reshape_activations="
            f"{sae.sae.cfg.reshape_activations!r}), which no hook gives; take an SAE of the "
            "residual stream, an attention output or an MLP output"
        )


def _standard(sae: Any, x_MD: Tensor, index_K: Tensor) -> Tensor:
    latents_MK: Tensor = sae.activation_fn(x_MD @ sae.W_enc[:, index_K] + sae.b_enc[index_K])
    return latents_MK


def _jumprelu(sae: Any, x_MD: Tensor, index_K: Tensor) -> Tensor:
    pre_MK = x_MD @ sae.W_enc[:, index_K] + sae.b_enc[index_K]
    latents_MK: Tensor = sae.activation_fn(pre_MK) * (pre_MK > sae.threshold[index_K])
    return latents_MK


def _gated(sae: Any, x_MD: Tensor, index_K: Tensor) -> Tensor:
    projected_MK = x_MD @ sae.W_enc[:, index_K]
    magnitude_MK = sae.activation_fn(projected_MK * sae.r_mag[index_K].exp() + sae.b_mag[index_K])
    latents_MK: Tensor = magnitude_MK * (projected_MK + sae.b_gate[index_K] > 0)
    return latents_MK


_ELEMENTWISE = {"standard": _standard, "jumprelu": _jumprelu, "gated": _gated}
"""By sae_lens's name of the architecture: latents that depend on their own encoder row alone."""
_COMPETING = ("topk", "abstopk", "matching_pursuit")


def _encode(sae: Any, x_MD: Tensor, index_K: Tensor) -> Tensor:
    some = _ELEMENTWISE.get(sae.cfg.architecture())
    if some is None:
        latents_MF: Tensor = sae.encode(x_MD)
        return latents_MF[:, index_K]
    return some(sae, sae.process_sae_in(x_MD), index_K)


def _decoder_rows(sae: Any, index_K: Tensor) -> Tensor:
    rows_KD: Tensor = sae.W_dec[index_K]
    if getattr(sae.cfg, "rescale_acts_by_decoder_norm", False):
        return rows_KD / rows_KD.norm(dim=-1, keepdim=True)
    return rows_KD


def _output_scale(sae: Any, x_MD: Tensor) -> Tensor:
    """What the decoder multiplies its sum of rows by: [] or [M, 1]."""
    kind = sae.cfg.normalize_activations
    if kind == "layer_norm":
        return x_MD.std(dim=-1, keepdim=True)
    if kind == "constant_norm_rescale":
        return x_MD.norm(dim=-1, keepdim=True) / sae.cfg.d_in**0.5
    # Others are constants that sae_lens folds into the weights.
    return torch.ones((), dtype=x_MD.dtype, device=x_MD.device)
