"""The part of a sweep file that a steering sweep owns. Plain data, no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from jobs.composed_setup import NEEDS, GroupsSpec
from jobs.one_or_many import ONE_OR_MANY
from sae.sae_spec import SaeSpec
from sae.stream_spec import ModelSpec
from steering.directions import ContrastSpec
from steering.generation.spec import GenerationSpec
from steering.measures.effect import EffectSpec
from steering.sae_limits import SaeLimits

__all__ = ["INSTRUCTIONS", "NEEDS", "PROBE_REPORT", "DrawingSpec", "Site", "SteerSetup"]

Site = Literal["resid_post", "resid_pre", "mlp_out", "attn_out"]
PROBE_REPORT = "report/probe.json"
"""What says, in a probe's folder, where it reads and which labels it has."""
DEFAULT_NUM_PROMPTS = 24
MIN_PROMPTS = 4

INSTRUCTIONS: Mapping[str, str] = {
    "formal": "Answer in a very formal style, as in an official letter.",
    "sentiment": "Answer in a very positive, enthusiastic way.",
}
"""How one would ask for what a built-in contrast is about."""


class DrawingSpec(BaseModel):
    """What method `generated` has the model answer; never a prompt that the sweep measures by."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    prompts: str | tuple[str, ...] = "neutral"
    """A built-in bank (neutral, ...), a .txt or .jsonl file, or the prompts themselves."""
    num_prompts: int = Field(default=16, gt=0)
    """How many of those that the sweep's own `prompts` leave; fewer if there are no more."""
    away: str = ""
    """How one would ask for the opposite of `instruction`; not given: the other side is not
    asked for anything."""


class SteerSetup(BaseModel):
    """The keys of a sweep file that all trials share."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    model: ModelSpec
    """The language model that is steered."""
    layers: Annotated[tuple[int, ...], ONE_OR_MANY] = ()
    """Where the vector is added: each is a layer that trials may choose."""
    site: Site = "resid_post"
    """Which place of a layer."""
    contrast: ContrastSpec | None = None
    """Texts on two sides; trials make a direction of them, by their method."""
    vectors: str | None = None
    """Folder of steering vectors, or `needs`; their own hook if no layers are given."""
    sae: Literal["needs"] | SaeSpec | None = None
    """An SAE whose `latents` are steered with, or beside a contrast: in whose latents its sides are
    compared; its own hook if no layers are given."""
    latents: Annotated[tuple[int, ...], ONE_OR_MANY] = ()
    """Of the SAE: each is one that trials may choose."""
    groups: GroupsSpec | None = None
    """Groups of texts; trials make the vector of one of them, of style attributes or the texts."""
    probe: str | None = None
    """Folder of a finished linear probe of activations, or `needs`; its weights are the vector, and
    where it reads is where they are added."""
    prompts: str | tuple[str, ...]
    """A built-in bank (neutral, ...), a .txt or .jsonl file, or the prompts themselves."""
    num_prompts: int | None = Field(default=None, ge=MIN_PROMPTS)
    """How many, from the first on; not given: 24, or all that are written here."""
    split_seed: int = Field(default=0, ge=0)
    """Of the halves: a strength is chosen on one and reported on the other."""
    strengths: Annotated[tuple[float, ...], ONE_OR_MANY] = (0.1, 0.2, 0.4, 0.8)
    """Tried in each trial, the best chosen on half of the prompts; fractions of the residual norm.
    Not used where `strength` is in the space."""
    effect: EffectSpec | None = None
    """What measures the effect; not given: a classifier of the contrast's or groups' texts, or the
    groups' embedding."""
    relevance: Literal["prompt", "unsteered"] = "prompt"
    """What answers should stay near: the prompt, or the unsteered answer."""
    instruction: str | None = Field(default=None, min_length=1)
    """How one would ask for it in words: the baseline to beat. Not given: known for built-in
    contrasts; of others, a request for the style of three of their texts; of a group, its name and
    the three attributes by which it leads the others most."""
    generation: GenerationSpec = GenerationSpec(max_new_tokens=48)
    """How answers are generated."""
    drawing: DrawingSpec = DrawingSpec()
    """Of method `generated` alone: what its directions are drawn from."""
    sae_limits: SaeLimits = SaeLimits()
    """What an SAE has to reach on the prompts before anything is steered with it."""
    other_model: bool = False
    """Allow vectors that were made of another model of the same width."""

    @model_validator(mode="after")
    def _one_source(self) -> SteerSetup:
        sources = ("contrast", "vectors", "sae", "groups", "probe")
        given = [name for name in sources if getattr(self, name) is not None]
        if len(given) != 1 and given != ["contrast", "sae"]:
            raise ValueError(
                f"give exactly one of {', '.join(sources)}, or contrast and sae; got "
                f"{' and '.join(given) or 'none'}"
            )
        if given in (["contrast"], ["groups"]) and not self.layers:
            raise ValueError("layers is missing: at which layers to steer, such as [10, 15, 20]")
        if self.probe is not None and self.layers:
            raise ValueError(
                f"layers={list(self.layers)} beside a probe, whose weights mean something where it "
                "reads alone; leave layers out"
            )
        if (given != ["sae"]) != (not self.latents):
            raise ValueError(
                f"latents are steered with where sae stands alone, and needed there; got latents="
                f"{list(self.latents)} beside {' and '.join(given)}"
            )
        return self

    @model_validator(mode="after")
    def _can_be_measured(self) -> SteerSetup:
        if self.groups is not None:
            self._can_tell_the_group()
            return self
        if self.contrast is None and self.effect is None:
            raise ValueError(
                "effect is missing: vectors, SAEs and probes do not say what they are for; write "
                "effect: {contrast: ...}, {embedding: FOLDER, group: ...} or {classifier: NAME, "
                "label: ...}"
            )
        told_by = self.contrast or (self.effect.contrast if self.effect else None)
        if told_by is None and self.instruction is None:
            raise ValueError(
                "instruction is missing: how one would ask for it in words, such as 'Answer like "
                "a physicist.'; it is the baseline that steering has to beat"
            )
        return self

    def _can_tell_the_group(self) -> None:
        assert self.groups is not None
        data = self.groups.data
        by_texts = self.effect is None and self.groups.embedding is None
        if by_texts and data is not None and not data.has_text:
            raise ValueError(
                "effect is missing: groups.data has vectors and no texts that a classifier of "
                "answers could learn from; name their column (text: NAME), or an embedding of the "
                "groups (groups: {embedding: FOLDER})"
            )

    @model_validator(mode="after")
    def _lists_are_lists(self) -> SteerSetup:
        for name in ("layers", "latents", "strengths"):
            values = getattr(self, name)
            if len(set(values)) != len(values):
                raise ValueError(f"{name}={list(values)} names one twice; drop it")
        if min((*self.layers, *self.latents, 0)) < 0:
            raise ValueError("layers and latents count from 0")
        if not self.strengths:
            raise ValueError("strengths is empty; name at least one, such as [0.1, 0.2, 0.4]")
        if isinstance(self.prompts, tuple) and len(self.prompts) < self.count:
            raise ValueError(
                f"{len(self.prompts)} prompts are written, and {self.count} are needed: at least "
                f"{MIN_PROMPTS}, half of them to choose on and half to report"
            )
        return self

    @property
    def count(self) -> int:
        """Number of prompts."""
        written = len(self.prompts) if isinstance(self.prompts, tuple) else DEFAULT_NUM_PROMPTS
        return max(MIN_PROMPTS, self.num_prompts or written)

    @property
    def num_selection(self) -> int:
        """Prompts that a strength is chosen on."""
        return (self.count + 1) // 2

    @property
    def effect_or_contrast(self) -> EffectSpec | None:
        """What measures the effect; None for what the groups themselves say."""
        if self.effect is None and self.groups is not None:
            return None
        return self.effect or EffectSpec(contrast=self.contrast)

    @property
    def hooks(self) -> tuple[str, ...]:
        """Those of `layers`."""
        return tuple(f"{self.site}.{layer}" for layer in self.layers)

    def hook_of(self, layer: int | None) -> str:
        """That of a layer; not given: of the first."""
        return self.hooks[0] if layer is None else f"{self.site}.{layer}"
