"""Does an SAE explain the activations that it is to steer? Asked of the job's own prompts.

A torch module. Shape suffixes: N = tokens of the prompts, D = d_in.

SAEs trained on a base model may explain nothing of an instruction-tuned one, and one that is read
at the wrong hook, or in the wrong units, explains nothing anywhere: its latents then mean nothing,
and steering by them is noise. So such an SAE is refused, with what was found where it would fit.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from sae.hooks import layer_of
from sae.language_model import LanguageModel
from sae.model_files import BUILTIN_HUB_IDS
from sae.stream_errors import UnknownHook
from sae.stream_spec import ModelSpec
from sae.trained_sae import TrainedSae
from steering.errors import BadSteeringInput
from steering.generation.prompts import encode_prompts
from steering.generation.spec import GenerationSpec
from steering.sae_limits import SaeLimits

__all__ = ["CheckedSae", "SaeFit", "SaeUnfit", "check_model_name", "check_sae", "measure_fit"]

logger = logging.getLogger(__name__)

MAX_TOKENS = 4096
"""Tokens of the prompts that are looked at: enough for two digits."""
TOKENS_AT_ONCE = 512
NEIGHBOUR_LAYERS = 2
"""Layers before and after that are tried when an SAE does not fit."""
FEW_TOKENS = 32
"""Fewer say little of a variance."""


class SaeUnfit(BadSteeringInput):
    """An SAE that does not explain the activations it is to steer."""


@dataclass(frozen=True)
class SaeFit:
    """How well an SAE reconstructs some activations."""

    fvu: float
    """|x - decode(encode(x))|^2 over |x - mean|^2: 0 is perfect, 1 is no better than the mean."""
    l0: float
    """Mean number of latents that are not zero."""
    num_tokens: int

    @property
    def explained_variance(self) -> float:
        """1 - FVU."""
        return 1.0 - self.fvu

    def __str__(self) -> str:
        return f"FVU {self.fvu:.3g}, L0 {self.l0:.1f}"


@dataclass(frozen=True)
class CheckedSae:
    """An SAE that may be steered with."""

    sae: TrainedSae
    """In raw units: with the input scale folded in, where its files did not have it."""
    hook: str
    fit: SaeFit
    input_scale: float | None = None
    """What was folded in, estimated on the prompts; None if nothing had to be."""

    @property
    def record(self) -> dict[str, Any]:
        """All of it as JSON."""
        return {
            "sae": self.sae.label,
            "hook": self.hook,
            "architecture": self.sae.architecture,
            "d_sae": self.sae.d_sae,
            "trained_on": self.sae.model_name,
            "trained_at": self.sae.hook,
            "input_scale": self.input_scale,
            **asdict(self.fit),
        }


@torch.inference_mode()
def check_sae(
    lm: LanguageModel,
    sae: TrainedSae,
    prompts: Sequence[str],
    spec: GenerationSpec,
    *,
    hook: str | None = None,
    limits: SaeLimits | None = None,
    refuse: bool = True,
    way_out: str = "loosen sae_limits (max_fvu, min_l0)",
) -> CheckedSae:
    """Measure an SAE on prompts as the model will see them, and refuse one that does not fit.

    Args:
        spec: for chat and system message: what the prompts are put into.
        hook: where the SAE is to be read; its own if not given.
        limits: what it has to reach.
        refuse: False warns of an SAE that does not fit, and lets it through.
        way_out: how whoever asks can have it all the same, for the message.

    Raises:
        SaeUnfit: FVU or L0 is outside the limits; the message names the likely mistake.
        BadSteeringInput: the SAE does not say its hook and none is given, or has another width.
        UnknownHook: the model has no such hook.
    """
    limits = limits or SaeLimits()
    place = hook or sae.hook
    if place is None:
        raise BadSteeringInput(
            f"{sae.label} does not say at which hook it was trained; give it, as in resid_post.12 "
            "(layers: [12] in a sweep, --layer 12 of `saeq steer`)"
        )
    if (width := lm.d_in(place)) != sae.d_in:
        raise BadSteeringInput(
            f"{sae.label} reads activations {sae.d_in} wide, and {place!r} has {width}; take an "
            "SAE of this model and hook"
        )
    contexts = encode_prompts(lm, prompts, spec)
    x_ND = _activations(lm, contexts, [place])[place]
    scale = None
    if sae.needs_input_scale:
        scale = sae.d_in**0.5 / float(x_ND.norm(dim=1).mean())
        sae = sae.with_input_scale(scale)
        logger.warning(
            "%s was trained on scaled activations, and its files do not say the scale; %.4g is "
            "taken, which gives the prompts a mean norm of sqrt(d_in)",
            sae.label,
            scale,
        )
    fit = measure_fit(sae, x_ND)
    if not limits.hold(fit.fvu, fit.l0):
        said = f"{sae.label} does not explain these prompts at {place}: {_found(fit, limits)}"
        if refuse:
            causes = "; ".join(_causes(lm, sae, place, limits, contexts, prompts))
            why = causes or _nothing_fits(sae)
            raise SaeUnfit(f"{said}; {why}. Mend that, or {way_out} if it is meant")
        logger.warning("%s", said)
    return CheckedSae(sae, place, fit, scale)


@torch.inference_mode()
def measure_fit(sae: TrainedSae, x_ND: Tensor) -> SaeFit:
    """Reconstruct activations, a block at a time. At least two rows."""
    mean_D = x_ND.float().mean(dim=0)
    error, total, active = 0.0, 0.0, 0.0
    for first in range(0, len(x_ND), TOKENS_AT_ONCE):
        own_ND = x_ND[first : first + TOKENS_AT_ONCE].to(sae.W_dec_FD)
        latents_NF = sae.encode(own_ND)
        error += float((own_ND - sae.decode(latents_NF)).double().square().sum())
        total += float((own_ND - mean_D.to(own_ND)).double().square().sum())
        active += float((latents_NF != 0).sum())
    return SaeFit(error / max(total, 1e-30), active / len(x_ND), len(x_ND))


def check_model_name(
    sae: TrainedSae,
    model: ModelSpec,
    *,
    other_model: bool = False,
    way_out: str = "say sae_limits: {other_model: true}",
) -> None:
    """Whether an SAE was trained on this very model, by its name.

    Args:
        other_model: allow another one, such as the base model of a tuned one.
        way_out: how whoever asks can allow it, for the message.

    Raises:
        BadSteeringInput: it was trained on another.
    """
    trained_on = sae.model_name
    if trained_on is None or other_model:
        return
    here = BUILTIN_HUB_IDS.get(model.builtin or "", model.name or "")
    if _plain(trained_on) != _plain(here):
        raise BadSteeringInput(
            f"{sae.label} was trained on {trained_on}, and this is {here}; take an SAE of this "
            f"model, or {way_out} if the transfer is meant"
        )


_SAME = {"gpt2-small": "gpt2"}
"""TransformerLens's names beside the hub's."""


def _plain(name: str) -> str:
    last = name.rstrip("/").split("/")[-1].lower()
    return _SAME.get(last, last)


def _activations(
    lm: LanguageModel, contexts: Sequence[Sequence[int]], hooks: Sequence[str], first: int = 1
) -> dict[str, Tensor]:
    """[N, D] a hook, from each context's second token on: hardly an SAE is trained on the first."""
    found: dict[str, list[Tensor]] = {hook: [] for hook in hooks}
    num_tokens = 0
    for ids in contexts:
        acts = lm.activations(torch.tensor([list(ids)]), hooks)
        for hook in hooks:
            found[hook].append(acts[hook][0, first:].float())
        num_tokens += len(ids) - first
        if num_tokens >= MAX_TOKENS:
            break
    if num_tokens < 2:
        raise BadSteeringInput("the prompts have too few tokens to look at; give longer ones")
    return {hook: torch.cat(parts) for hook, parts in found.items()}


def _found(fit: SaeFit, limits: SaeLimits) -> str:
    few = ", which are few: longer prompts say more" if fit.num_tokens < FEW_TOKENS else ""
    return f"{fit} over {fit.num_tokens} tokens{few}, and {limits}"


def _nothing_fits(sae: TrainedSae) -> str:
    """What may be wrong where no other hook, units or text would do."""
    said = "nothing nearby fits either"
    if sae.model_name is None:
        return f"{said}: it does not say its model, and may be of another one, or weakly trained"
    return (
        f"{said}: it was trained on {sae.model_name}, and may be so weakly, on text unlike these "
        "prompts, or on other weights than these"
    )


def _causes(
    lm: LanguageModel,
    sae: TrainedSae,
    hook: str,
    limits: SaeLimits,
    contexts: Sequence[Sequence[int]],
    prompts: Sequence[str],
) -> Iterator[str]:
    """What would fit: other hooks, other units, other text; one sentence each."""
    neighbours = [one for one in _neighbours(lm, hook) if lm.d_in(one) == sae.d_in]
    acts = _activations(lm, contexts, [hook, *neighbours])
    fits = {one: measure_fit(sae, acts[one]) for one in neighbours}
    best = min(fits, key=lambda one: fits[one].fvu, default=None)
    if best is not None and limits.hold(fits[best].fvu, fits[best].l0):
        yield f"at {best} it does ({fits[best]}): the hook is probably wrong"
    norm = float(acts[hook].norm(dim=1).mean())
    scale = sae.d_in**0.5 / norm
    for factor, what in ((scale, "scaled to"), (1 / scale, "scaled back from")):
        scaled = measure_fit(sae, acts[hook] * factor)
        if limits.hold(scaled.fvu, scaled.l0):
            yield (
                f"on activations {what} a mean norm of sqrt(d_in) it does ({scaled}): the "
                "normalisation is probably not folded in, or folded in twice"
            )
            break
    plain = encode_prompts(lm, prompts, GenerationSpec(chat=False))
    if plain != [list(ids) for ids in contexts]:
        raw = measure_fit(sae, _activations(lm, plain, [hook])[hook])
        if limits.hold(raw.fvu, raw.l0):
            yield (
                f"on the prompts without the chat template it does ({raw}): it was trained on "
                "plain text, probably of the base model"
            )
    whole = measure_fit(sae, _activations(lm, contexts, [hook], first=0)[hook])
    if limits.hold(whole.fvu, whole.l0):
        yield (
            f"with the first token of each context, which is left out here, it does ({whole}): it "
            "was trained on that token's outsized norm, and knows little else"
        )


def _neighbours(lm: LanguageModel, hook: str) -> list[str]:
    """Hooks of the layers around, and the other sites of this one; never the same module."""
    path = lm.path_of(hook)
    layer = layer_of(hook)
    if layer is None:
        layer = layer_of(path)
    if layer is None:
        return []
    near = range(layer - NEIGHBOUR_LAYERS, layer + NEIGHBOUR_LAYERS + 1)
    names = [f"resid_post.{other}" for other in near if other >= 0]
    names += [f"mlp_out.{layer}", f"attn_out.{layer}"]
    found: dict[str, str] = {}
    for name in names:
        try:
            found.setdefault(lm.path_of(name), name)
        except UnknownHook:
            continue
    return [name for other, name in found.items() if other != path]
